#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages of the named groups of tools/debian-packages.txt that are missing, and names them.
# Silent when nothing is missing. Needs root or sudo, and says what to type where it has neither.
set -eu
list=$(dirname "$0")/debian-packages.txt
[ $# -gt 0 ] || { echo "usage: deps.sh GROUP..." >&2; exit 2; }

command -v dpkg-query >/dev/null || {
    echo "this is not Debian: install what $list names with your own package manager" >&2
    exit 1
}

missing=
for group in "$@"; do
    for package in $(awk -v group="$group" '$1 == group { print $2 }' "$list"); do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed) ;;
        *) missing="$missing $package" ;;
        esac
    done
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "missing packages; as root, type: $install" >&2
        exit 1
    }
    as_root=sudo
fi
echo "installing missing packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# A fresh system has no package lists, an old one has stale ones: fetch them when the first try fails.
quiet="-qq -o Dpkg::Use-Pty=0"
if ! $as_root apt-get $quiet install -y --no-install-recommends $missing >/dev/null 2>&1; then
    $as_root apt-get $quiet update
    $as_root apt-get $quiet install -y --no-install-recommends $missing >/dev/null
fi

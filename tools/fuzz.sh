#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs every fuzz target for SECONDS under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer.
# What is found stays in BUILD/fuzz-findings; new inputs go to BUILD/fuzz-corpus, not into the tree.
# usage: fuzz.sh BUILD SECONDS [TARGET...]
set -eu
build=$1
seconds=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)

test -f "$build/build.ninja" || CC=${FUZZ_CC:-clang-14} meson setup "$build" "$root" -Dfuzz=true -Dbuildtype=debugoptimized \
    -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
mkdir -p "$build/fuzz-findings"

[ $# -gt 0 ] || set -- $(sed -n "s/^ *'\([a-z0-9_]*\)': *\[*dep_.*/\1/p" "$root/tests/fuzz/meson.build")
failed=
for name in "$@"; do
    ninja -C "$build" --quiet "tests/fuzz/fuzz_$name"
    mkdir -p "$build/fuzz-corpus/$name"
    echo "fuzz_$name: $seconds s"
    log="$build/fuzz_$name.log"
    if "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -max_len=65536 \
        -artifact_prefix="$build/fuzz-findings/$name-" "$build/fuzz-corpus/$name" "$root/tests/fuzz/corpus/$name" >"$log" 2>&1; then
        tail -1 "$log"
    else
        tail -40 "$log"
        failed="$failed $name"
    fi
done
[ -z "$failed" ] || { echo "findings in:$failed (inputs in $build/fuzz-findings)"; exit 1; }

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks of the source tree that no compiler makes. Prints `ok lint NAME` or `not ok lint NAME` and what is wrong.

Looks at the files that git tracks. With --build DIR (a finished build) the symbols of its libraries are checked too.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Who may include whom: a folder's headers, then those of the folders named here and of everything that these may include.
# Only the public header is open to all.
LAYERS = {
    "base": [],
    "tensor": ["base"],
    "kernels": ["tensor"],
    "nn": ["kernels"],
    "tokenizer": ["base"],
    "sample": ["nn"],
    "adapters": ["tensor"],
    "models": ["nn", "sample", "tokenizer", "adapters"],
    "engine": ["models", "adapters", "tokenizer"],
    "audio": ["base"],
    "db": ["base"],
    "store": ["base"],
    "http": ["base"],
    # jobs, api and cli know the engine by aulos/aulos.h alone.
    "jobs": ["base", "db", "store", "audio"],
    "compare": ["jobs"],
    "webhooks": ["jobs"],
    "api": ["jobs", "compare", "webhooks", "http"],
    "cli": ["api"],
}

BANNED = re.compile(
    r"\b(strcpy|strcat|strncat|sprintf|vsprintf|atoi|atol|atoll|atof|strtok|strtok_r|alloca|gets|rand|srand|localtime|gmtime|"
    r"asctime|ctime|tmpnam|mktemp|system|popen)\s*\(")
ENDS_PROCESS = re.compile(r"(?<![\w])(exit|abort|quick_exit)\s*\(")
GENERATED = re.compile(r"(^|/)(fixtures|corpus|models)/")


def tracked(*suffixes):
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT).decode().split("\0")
    return [n for n in names if n and (ROOT / n).is_file() and (not suffixes or n.endswith(suffixes))]


def sources(*suffixes):
    return [n for n in tracked(*suffixes) if not GENERATED.search(n)]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def without_comments(code):
    """Comments and strings blanked, lines kept."""
    pattern = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group(0)), code, flags=re.S)


def lines_matching(name, code, pattern):
    for number, line in enumerate(code.splitlines(), 1):
        found = pattern.search(line)
        if found:
            yield f"{name}:{number}: {found.group(0).strip()}"


def check_include_order():
    """Includes point down the layers only."""
    def reach(layer):
        seen = {layer}
        todo = [layer]
        while todo:
            for lower in LAYERS[todo.pop()]:
                if lower not in seen:
                    seen.add(lower)
                    todo.append(lower)
        return seen

    for name in sources(".c", ".h", ".def"):
        if not name.startswith("src/"):
            continue
        layer = name.split("/")[1]
        if layer not in LAYERS:
            yield f"{name}: folder {layer} is in no layer"
            continue
        for number, line in enumerate(text(name).splitlines(), 1):
            included = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not included:
                continue
            path = included.group(1)
            if path.startswith("aulos/"):
                continue
            if "/" not in path:
                yield f"{name}:{number}: {path} is named without its folder"
                continue
            target = path.split("/")[0]
            if target in LAYERS and target not in reach(layer):
                yield f"{name}:{number}: {layer} may not include {path}"


def check_spdx():
    """Every source file names its licence on its first lines."""
    named = (".c", ".h", ".def", ".py", ".sh", ".sql", ".build", "Makefile", ".supp", "meson_options.txt", ".ci/run")
    for name in sources(*named):
        head = "\n".join(text(name).splitlines()[:2])
        if "SPDX-License-Identifier: MIT" not in head:
            yield f"{name}: no SPDX line"


def check_banned_functions():
    """Functions that overflow, keep hidden state or start a shell; and exits outside the command line."""
    for name in sources(".c", ".h"):
        if not name.startswith(("src/", "include/")):
            continue
        code = without_comments(text(name))
        yield from lines_matching(name, code, BANNED)
        if not name.startswith("src/cli/") and name != "src/base/err.c":
            yield from lines_matching(name, code, ENDS_PROCESS)


def check_dead_code():
    """No disabled code and no notes to oneself."""
    pattern = re.compile(r"#\s*if\s+0\b|\b(TODO|FIXME|XXX|HACK)\b")
    for name in sources(".c", ".h", ".py", ".sh", ".sql"):
        if name != "tools/lint.py":
            yield from lines_matching(name, text(name), pattern)


def check_characters():
    """UTF-8, no tabs (but in Makefiles), no invisible or bidirectional characters, no blanks at line ends, a final newline."""
    invisible = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\x00-\x08\x0b-\x1f\x7f]")
    suffixes = (".c", ".h", ".def", ".py", ".sh", ".sql", ".build", ".md", ".txt", ".supp", ".yaml", ".map", "Makefile", ".ci/run")
    for name in sources(*suffixes):
        try:
            content = text(name)
        except UnicodeDecodeError as problem:
            yield f"{name}: not UTF-8: {problem}"
            continue
        if content and not content.endswith("\n"):
            yield f"{name}: no newline at the end"
        for number, line in enumerate(content.splitlines(), 1):
            if "\t" in line and not name.endswith("Makefile"):
                yield f"{name}:{number}: tab"
            if invisible.search(line):
                yield f"{name}:{number}: invisible character"
            if line != line.rstrip():
                yield f"{name}:{number}: blank at the end"


def check_format():
    """clang-format 14, the version of Debian 12."""
    tool = shutil.which("clang-format-14")
    if not tool:
        return "skip"
    files = [n for n in sources(".c", ".h")]
    done = subprocess.run([tool, "--dry-run", "-Werror", *files], cwd=ROOT, capture_output=True, text=True)
    return [l for l in done.stderr.splitlines() if "error:" in l]


def check_file_names():
    """Unique in src/ (a file is found by its name), lower case."""
    seen = {}
    for name in sources(".c", ".h"):
        if not name.startswith("src/"):
            continue
        base = name.rsplit("/", 1)[-1]
        if not re.fullmatch(r"[a-z0-9_]+\.[ch]", base):
            yield f"{name}: not snake_case"
        if base in seen:
            yield f"{name}: same name as {seen[base]}"
        seen[base] = name


def check_file_length():
    """A file of more than 1200 lines is two files; generated tables excepted."""
    for name in sources(".c", ".h"):
        lines = text(name).count("\n")
        if lines > 1200 and "table" not in name:
            yield f"{name}: {lines} lines"


def check_headers_alone():
    """Each header compiles alone; not those that are code for a unit that defines its lanes first."""
    compiler = os.environ.get("CC", "cc").split()
    flags = subprocess.run(["pkg-config", "--cflags", "jansson", "libsodium", "sqlite3", "libpcre2-8", "sndfile"],
                           capture_output=True, text=True).stdout.split()

    def compile_one(name):
        isa = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"] if "avx512" in name else \
              ["-mavx2", "-mfma", "-mf16c"] if "avx2" in name else []
        done = subprocess.run([*compiler, "-std=gnu17", "-D_GNU_SOURCE", "-Iinclude", "-Isrc", *flags, *isa, "-Wall", "-Wno-unused",
                               "-fsyntax-only", "-x", "c", "-include", name, "/dev/null"], cwd=ROOT, capture_output=True, text=True)
        return [] if done.returncode == 0 else [f"{name}: {done.stderr.splitlines()[0] if done.stderr else 'failed'}"]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for problems in pool.map(compile_one, [n for n in sources(".h") if n.startswith(("src/", "include/")) and not n.endswith(("_impl.h", "lane_math.h"))]):
            yield from problems


def check_scripts():
    """Scripts parse."""
    for name in sources(".py"):
        try:
            compile(text(name), name, "exec")
        except SyntaxError as problem:
            yield f"{name}: {problem}"
    for name in [*sources(".sh"), *([".ci/run"] if (ROOT / ".ci/run").exists() else [])]:
        shell = "bash" if "bash" in text(name).splitlines()[0] else "sh"
        done = subprocess.run([shell, "-n", name], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            yield f"{name}: {done.stderr.strip()}"


def check_links():
    """Links between the pages lead somewhere."""
    for name in tracked(".md"):
        for number, line in enumerate(text(name).splitlines(), 1):
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", line):
                if not re.match(r"[a-z]+:", target) and not (ROOT / name).parent.joinpath(target).exists():
                    yield f"{name}:{number}: no such file: {target}"


def nm(path, *options):
    return subprocess.check_output(["nm", *options, str(path)], text=True, stderr=subprocess.DEVNULL).splitlines()


def check_symbols(build):
    """Symbols of our libraries that other files can see begin with au_."""
    for library in sorted(build.glob("src/**/*.a")):
        for line in nm(library, "--defined-only", "--extern-only"):
            parts = line.split()
            if len(parts) == 3 and not re.match(r"_*(au_|asan|ubsan|odr_asan|tsan|sanitizer|start_|stop_)", parts[2].replace("__", "")):
                yield f"{library.name}: {parts[2]}"


def check_exports(build):
    """libaulos exports what the public headers declare, and the version script says the same."""
    declared = set()
    for header in ("include/aulos/aulos.h", "include/aulos/status.h"):
        declared |= set(re.findall(r"AU_API[^;(]*?\b(au_\w+)\(", without_comments(text(header))))
    listed = set(re.findall(r"^\s+(au_\w+);", text("src/libaulos.map"), re.M))
    for name in sorted(declared - listed):
        yield f"src/libaulos.map lacks {name}"
    for name in sorted(listed - declared):
        yield f"src/libaulos.map names {name}, which no public header declares"
    library = next(iter(sorted(build.glob("libaulos.so.*.*.*"))), None)
    if library is None:
        yield "no libaulos.so in the build folder"
        return
    exported = {line.split()[-1].split("@")[0] for line in nm(library, "-D", "--defined-only") if " A " not in line}
    for name in sorted(exported ^ declared):
        yield f"{library.name}: {name} is {'exported' if name in exported else 'missing'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path)
    args = parser.parse_args()
    checks = [check_include_order, check_spdx, check_banned_functions, check_dead_code, check_characters, check_format,
              check_file_names, check_file_length, check_headers_alone, check_scripts, check_links]
    runs = [(check.__name__.removeprefix("check_"), check()) for check in checks]
    if args.build:
        options = json.loads(subprocess.check_output(["meson", "introspect", "--buildoptions", str(args.build)]))
        runs.append(("symbols", check_symbols(args.build)))
        # A sanitizer's run-time adds exports of its own.
        if any(o["name"] == "b_sanitize" and o["value"] == "none" for o in options):
            runs.append(("exports", check_exports(args.build)))
    failed = 0
    for name, result in runs:
        problems = [] if result == "skip" else list(result)
        if result == "skip":
            print(f"skip   lint {name}")
        elif not problems:
            print(f"ok     lint {name}")
        else:
            failed += 1
            print(f"not ok lint {name}")
            for problem in problems[:40]:
                print(f"    {problem}")
            if len(problems) > 40:
                print(f"    and {len(problems) - 40} more")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the test programs that meson knows, the black-box tests and the lint, and counts cases.

The last line is `N passed, N failed, N skipped`. A case that skips without standing in tests/skips.txt has failed, and so has a
program that dies between two cases, or a sanitizer's report of a process that no test was watching. Test programs run one per
processor, each pinned to its own, so that their thread pools do not fight; a program marked is_parallel: false runs alone.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What the ThreadSanitizer run takes: everything that has threads or processes, and no pure computing.
THREADED_PROGRAMS = re.compile(r"generate|thread|pool|job|worker|queue|supervis|janitor|http|rout|serv|sqlite|_db|log|store")
THREADED_API = "scenario or http or kill or cancel or health"

CASE = re.compile(r"^\[ +(OK|SKIPPED|FAILED) +\] ([A-Za-z0-9_]\S*)$", re.M)
COUNT = re.compile(r"^\[=+\] (?:\S+: )?Running (\d+) test", re.M)


class Tally:
    """Results of cases, by name; what went wrong is told at once and again at the end."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.allowed = []
        for line in (ROOT / "tests/skips.txt").read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                self.allowed.append(line.split()[0])

    def add(self, name, result):
        if result == "ok":
            self.passed += 1
        elif result == "skip" and any(fnmatch.fnmatchcase(name, p) for p in self.allowed):
            self.skipped.append(name)
        elif result == "skip":
            self.failed.append(name + " (skipped, and not listed in tests/skips.txt)")
        else:
            self.failed.append(name)


def sanitizer_environment(build):
    """Reports of every process, the servers that tests start included, go to files that are counted at the end."""
    logs = build / "sanitizer-reports"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    log = f"log_path={logs}/report"
    return logs, {
        "ASAN_OPTIONS": f"{log}:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
        "LSAN_OPTIONS": f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0",
        "UBSAN_OPTIONS": f"{log}:halt_on_error=1:print_stacktrace=1",
        "TSAN_OPTIONS": f"{log}:halt_on_error=0:second_deadlock_stack=1:suppressions={ROOT}/tests/tsan.supp",
    }


def run_program(test, build, cpus, env, jobs_timeout):
    """One meson test: (seconds, exit status or text, output)."""
    started = time.monotonic()
    full = {**os.environ, **env, **test["env"]}
    process = subprocess.Popen(
        test["cmd"], cwd=test["workdir"] or build, env=full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    try:
        output, _ = process.communicate(timeout=test["timeout"] * jobs_timeout)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = f"no end after {test['timeout'] * jobs_timeout} s"
    return time.monotonic() - started, status, output.decode("utf-8", "replace")


def count_cases(test, status, output, tally):
    """Counts the cases of one program; returns how many and whether all is well."""
    name = test["name"]
    cases = CASE.findall(output)
    announced = sum(int(n) for n in COUNT.findall(output))
    before = len(tally.failed)
    for result, case in cases:
        tally.add(f"{name}::{case}", {"OK": "ok", "SKIPPED": "skip", "FAILED": "fail"}[result])
    if not announced:
        # Not a cmocka program (a fuzz replay): one case.
        tally.add(name, {0: "ok", 77: "skip"}.get(status, "fail"))
        return 1, len(tally.failed) == before
    if announced != len(cases) or (status != 0 and len(tally.failed) == before):
        tally.add(f"{name} ({len(cases)} of {announced} cases reported, exit status {status})", "fail")
    return len(cases), len(tally.failed) == before


def run_meson_tests(build, suites, threaded, tally, env, scale):
    tests = json.loads(subprocess.check_output(["meson", "introspect", "--tests", str(build)]))
    wanted = [t for t in tests if any(s.split(":")[-1] in suites for s in t["suite"])]
    if threaded:
        wanted = [t for t in wanted if THREADED_PROGRAMS.search(t["name"]) and "fuzz" not in t["name"]]
    all_cpus = sorted(os.sched_getaffinity(0))
    free = queue.Queue()
    for cpu in all_cpus:
        free.put({cpu})

    def pinned(test):
        cpus = free.get()
        try:
            return run_program(test, build, cpus, env, scale)
        finally:
            free.put(cpus)

    def report(test, result):
        seconds, status, output = result
        cases, well = count_cases(test, status, output, tally)
        print(f"{'ok  ' if well else 'FAIL'} {test['name']}: {cases} cases, {seconds:.1f} s", flush=True)
        if not well:
            print(output[-20000:], flush=True)

    # The longest (by their limit, then suite slow) first, so that the processors end together.
    together = sorted((t for t in wanted if t["is_parallel"]), key=lambda t: "quick" in str(t["suite"]))
    with concurrent.futures.ThreadPoolExecutor(len(all_cpus)) as pool:
        running = {pool.submit(pinned, t): t for t in together}
        for future in concurrent.futures.as_completed(running):
            report(running[future], future.result())
    for test in wanted:
        if not test["is_parallel"]:
            report(test, run_program(test, build, set(all_cpus), env, scale))


def run_pytest(build, threaded, tally, env):
    folder = ROOT / "tests/api"
    if not any(folder.glob("test_*.py")):
        return
    report = build / "pytest.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", str(folder), "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    if threaded:
        command += ["-k", THREADED_API]
    full = {**os.environ, **env, "AULOS_BUILD": str(build), "AULOS_BIN": str(build / "aulos"),
            "AULOS_SOURCE": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    status = subprocess.call(command, cwd=ROOT, env=full, stdin=subprocess.DEVNULL)
    before = len(tally.failed)
    try:
        cases = list(ET.parse(report).getroot().iter("testcase"))
    except (OSError, ET.ParseError):
        cases = []
    for case in cases:
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            tally.add(name, "fail")
        elif case.find("skipped") is not None:
            tally.add(name, "skip")
        else:
            tally.add(name, "ok")
    if not cases or (status != 0 and len(tally.failed) == before):
        tally.add(f"pytest (exit status {status}, {len(cases)} cases reported)", "fail")


def run_lint(build, tally):
    command = [sys.executable, str(ROOT / "tools/lint.py"), "--build", str(build)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    print(done.stdout, end="", flush=True)
    results = re.findall(r"^(ok|not ok|skip) +lint (\S+)", done.stdout, re.M)
    for result, name in results:
        tally.add(f"lint::{name}", {"ok": "ok", "skip": "skip", "not ok": "fail"}[result])
    if not results:
        tally.add("lint (no result)", "fail")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="lint,quick,slow,api", help="comma-separated: lint, quick, slow, api")
    parser.add_argument("--threaded", action="store_true", help="only what has threads or processes")
    args = parser.parse_args()
    build = args.build.resolve()
    parts = args.only.split(",")
    started = time.monotonic()
    tally = Tally()

    if subprocess.call(["ninja", "-C", str(build), f"-j{args.jobs}", "--quiet"]) != 0:
        print("the build failed\n0 passed, 1 failed, 0 skipped")
        return 1

    options = json.loads(subprocess.check_output(["meson", "introspect", "--buildoptions", str(build)]))
    sanitizer = next(o["value"] for o in options if o["name"] == "b_sanitize")
    reports, env = sanitizer_environment(build) if sanitizer != "none" else (None, {})

    if "lint" in parts:
        run_lint(build, tally)
    suites = {"quick", "slow"} & set(parts)
    if suites:
        run_meson_tests(build, suites, args.threaded, tally, env, 1 if sanitizer == "none" else 5)
    if "api" in parts:
        run_pytest(build, args.threaded, tally, env)
    for report in sorted(reports.glob("report*")) if reports else ():
        print(report.read_text(errors="replace")[:10000])
        tally.add(f"sanitizer::{report.name}", "fail")

    for name in tally.skipped:
        print(f"skipped: {name}")
    for name in tally.failed:
        print(f"FAILED: {name}")
    print(f"took {time.monotonic() - started:.0f} s")
    print(f"{tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())

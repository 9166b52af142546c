# SPDX-License-Identifier: MIT
"""The short form of `make chaos`: kills, stops, a full disk and a clock that steps, under clients."""
import os
import re
import subprocess
import sys

import harness


def test_nothing_is_lost_doubled_or_wrong_when_everything_is_killed():
    words = [sys.executable, str(harness.ROOT / "tests/chaos/chaos.py"), str(harness.BIN.parent), "--kills", "30",
             "--epoch", "15", "--seed", "5", "--slow", str(harness.SLOW)]
    done = subprocess.run(words, env=dict(os.environ), capture_output=True, text=True, timeout=900 * harness.SLOW, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict((name, int(n)) for n, name in re.findall(r"(\d+) ([a-z ]+)", done.stdout.splitlines()[-1]))
    assert figures.pop("kills") >= 30
    assert figures.pop("jobs") > 30
    assert set(figures) == {"lost", "doubled", "orphans", "wrong bytes", "incomplete", "came back", "event gaps",
                            "processes left"}
    assert not any(figures.values())

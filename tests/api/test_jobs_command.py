# SPDX-License-Identifier: MIT
"""`aulos jobs` and `aulos migrate`, through a server and in the data folder."""
import json

import pytest

from harness import MISSING_ID, aulos


def where(server, how):
    return ("--server", server.url) if how == "server" else ("--data", server.data)


@pytest.mark.parametrize("how", ["server", "folder"])
def test_list_and_show(api, how):
    job = api.submit(prompt="shown on the command line", duration_s=1)
    done = aulos("jobs", "list", *where(api, how))
    assert done.returncode == 0 and job["id"] in done.stdout
    done = aulos("jobs", "show", job["id"], "--json", *where(api, how))
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert (shown["id"], shown["state"]) == (job["id"], "queued")
    assert done.stderr == ""


@pytest.mark.parametrize("how", ["server", "folder"])
def test_cancel(api, how):
    job = api.submit(prompt="cancelled on the command line", duration_s=1)
    assert aulos("jobs", "cancel", job["id"], *where(api, how)).returncode == 0
    assert api.job(job)["state"] == "cancelled"
    done = aulos("jobs", "watch", job["id"], *where(api, how))
    assert done.returncode == 1 and "cancelled" in done.stdout


@pytest.mark.parametrize("how", ["server", "folder"])
def test_watch_ends_with_the_job(live, how):
    job = live.submit(prompt="watched", duration_s=0.2)
    done = aulos("jobs", "watch", job["id"], "--json", *where(live, how))
    assert done.returncode == 0
    assert json.loads(done.stdout)["state"] == "completed"
    assert "\r" not in done.stderr
    assert aulos("jobs", "cancel", job["id"], *where(live, how)).returncode == 1


@pytest.mark.parametrize("words", [(), ("nothing",), ("show",), ("list", "x"), ("show", "x"), ("watch", MISSING_ID, "x")])
def test_wrong_usage(words):
    done = aulos("jobs", *words)
    assert done.returncode == 2 and done.stderr.startswith("aulos: ")


@pytest.mark.parametrize("how", ["server", "folder"])
def test_what_is_not_there(api, how, tmp_path):
    done = aulos("jobs", "show", MISSING_ID, *where(api, how))
    assert done.returncode == 1 and MISSING_ID in done.stderr
    assert aulos("jobs", "list", "--data", tmp_path / "none").returncode == 1
    assert aulos("jobs", "list", "--server", "http://127.0.0.1:1").returncode == 1


def test_migrate(api, make_server, tmp_path):
    done = aulos("migrate", "--data", api.data)
    assert done.returncode == 1 and "belongs to a server" in done.stderr
    server = make_server(workers=0)
    server.stop()
    done = aulos("migrate", "--data", server.data)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    done = aulos("migrate", "--data", tmp_path / "none")
    assert done.returncode == 1 and "no data folder" in done.stderr
    assert aulos("migrate", "x").returncode == 2

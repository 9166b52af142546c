# SPDX-License-Identifier: MIT
"""Fixtures: servers with a model, shared where a test only asks, own where a test breaks things."""
import pytest

import harness
from contract import CONTRACT
from harness import Server


def hold_to_contract():
    """Whether all that was sent and received is what the API description says."""
    violations = CONTRACT.take_violations()
    if violations:
        more = f"\n... and {len(violations) - 10} more" if len(violations) > 10 else ""
        pytest.fail("not as src/api/openapi/ says:\n" + "\n".join(violations[:10]) + more, pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item):
    hold_to_contract()  # after the test itself, and only if it has passed


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    hold_to_contract()  # what the ends of fixtures sent


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session", autouse=True)
def what_is_tested():
    """Without these nothing here means anything: the run ends at once, and not with success."""
    if not harness.BIN.is_file():
        pytest.exit(f"no binary {harness.BIN} (set AULOS_BIN)", returncode=1)
    if not (harness.MODEL / "config.json").is_file():
        pytest.exit(f"no model {harness.MODEL} (set AULOS_MODEL)", returncode=1)


@pytest.fixture
def make_server(tmp_path):
    """Starts servers; what a test has not stopped is stopped gracefully, and nothing may be left."""
    made = []

    def make(*args, data=None, **kw):
        server = Server(data or tmp_path / f"data{len(made)}", *args, **kw)
        made.append(server)
        return server.start()

    yield make
    problems = []
    for server in reversed(made):
        try:
            if server.process is not None and server.process.poll() is None:
                server.stop()
        except AssertionError as problem:
            problems.append(str(problem))
        finally:
            server.kill()
    assert not problems, problems


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    """A server with one worker, shared by the tests that only submit, look and listen."""
    server = Server(tmp_path_factory.mktemp("live") / "data").start()
    yield server
    try:
        for state in ("queued", "processing"):
            for job in server.all(f"/v1/jobs?state={state}&limit=100"):
                server.cancel(job)
        harness.wait_until(lambda: all(j["state"] in harness.FINAL for j in server.all("/v1/jobs?limit=100")), 60,
                           "the shared server to come to rest")
        harness.check_invariants(server)
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """A server without a worker: jobs stay queued, so what is said of them does not change underneath."""
    server = Server(tmp_path_factory.mktemp("api") / "data", workers=0).start()
    yield server
    try:
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.fixture(scope="session")
def clip(live):
    """One finished sample on the shared server: (sample, its bytes)."""
    job = live.run(prompt="a calm piano melody", duration_s=0.5, seed=11, num_samples=1)
    sample = live.samples_of(job)[0]
    return sample, live.audio(sample)

# SPDX-License-Identifier: MIT
"""/metrics in the text format of Prometheus, and /v1/system."""
import math
import re

from harness import check_problem, wait_until

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = r'\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*\}'
SAMPLE = re.compile(rf"({NAME})({LABELS})? (-?[0-9.e+-]+|\+Inf|NaN)")


def scrape(server):
    """{name: type} and {(name, labels): value}, having looked at every line."""
    reply = server.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    types, helps, values = {}, set(), {}
    assert reply.text.endswith("\n")
    for line in reply.text.splitlines():
        if line.startswith("# HELP "):
            name, text = line[7:].split(" ", 1)
            assert name not in helps
            assert text
            helps.add(name)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name not in types
            assert kind in ("counter", "gauge", "histogram")
            types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            family = family if types.get(family) == "histogram" else name
            assert family in types, f"{name} comes before its TYPE"
            assert (name, labels) not in values, f"{name}{labels} stands twice"
            values[name, labels] = float(value)
    assert helps == set(types)
    return types, values


def of(values, name, **labels):
    """The sum of those with these labels."""
    found = [v for (n, text), v in values.items()
             if n == name and all(f'{k}="{want}"' in (text or "") for k, want in labels.items())]
    assert found, f"no {name} with {labels}"
    return sum(found)


def test_names_and_histograms_are_as_prometheus_wants_them(live):
    live.run(prompt="a calm harp arpeggio", duration_s=0.1)
    types, values = scrape(live)
    for name, kind in types.items():
        assert name.startswith(("aulos_", "process_"))
        assert name.endswith("_total") == (kind == "counter"), name
        if kind == "histogram":
            assert name.endswith(("_seconds", "_bytes"))
            series = {}
            for (n, labels), value in values.items():
                if n == f"{name}_bucket":
                    rest = re.sub(r',?le="[^"]*"', "", labels).replace("{}", "") or None
                    bound = re.search(r'le="([^"]*)"', labels).group(1)
                    series.setdefault(rest, []).append((math.inf if bound == "+Inf" else float(bound), value))
            assert series
            for rest, buckets in series.items():
                assert buckets == sorted(buckets)  # bounds rise, and so do counts
                assert [v for _, v in buckets] == sorted(v for _, v in buckets)
                assert buckets[-1][0] == math.inf
                assert values[f"{name}_count", rest] == buckets[-1][1]
                assert values[f"{name}_sum", rest] >= 0


def test_jobs_are_counted_whoever_ran_them(make_server):
    server = make_server()
    _, before = scrape(server)
    assert of(before, "aulos_jobs_total") == 0
    server.run(prompt="a calm harp arpeggio", num_samples=3, duration_s=0.2)
    server.post("/v1/admin/pause")
    waiting = server.submit(prompt="a calm harp arpeggio")
    wait_until(lambda: of(scrape(server)[1], "aulos_workers", state="ready") == 1, 60, "the worker")
    _, after = scrape(server)
    assert of(after, "aulos_jobs_total", state="completed") == 1
    assert of(after, "aulos_jobs_total", state="queued") == 2
    assert of(after, "aulos_samples_total") == 3
    assert abs(of(after, "aulos_audio_seconds_total") - 0.6) < 0.01
    assert of(after, "aulos_job_run_seconds_count") == of(after, "aulos_job_wait_seconds_count") == 1
    assert of(after, "aulos_jobs", state="queued") == 1
    assert of(after, "aulos_queue_paused") == 1
    assert of(after, "aulos_queue_limit") == 1000
    server.cancel(waiting)
    _, last = scrape(server)
    assert of(last, "aulos_jobs_total", state="cancelled") == 1
    assert of(last, "aulos_jobs", state="queued") == 0
    assert of(last, "aulos_queue_oldest_seconds") == 0


def test_requests_are_counted_by_route(make_server):
    server = make_server(workers=0)
    for _ in range(3):
        server.get("/v1/jobs/01900000-0000-7000-8000-000000000000")
    server.get("/healthz")
    server.get("/nowhere/at/all")
    _, values = scrape(server)
    route = {"method": "GET", "route": "/v1/jobs/{id}"}
    assert of(values, "aulos_http_requests_total", status="4xx", **route) == 3
    assert of(values, "aulos_http_request_duration_seconds_count", **route) == 3
    assert of(values, "aulos_http_requests_total", route="/healthz", status="2xx") >= 1
    assert of(values, "aulos_http_requests_total", route="none", status="4xx") == 1
    assert of(values, "aulos_http_connections") >= 1
    assert of(values, "process_open_fds") > 5
    assert of(values, "process_resident_memory_bytes") > 1 << 20
    assert of(values, "process_cpu_seconds_total") > 0
    check_problem(server.get("/metrics?x=1"), 400, "bad-query")


def test_the_system(live, api):
    seen = wait_until(lambda: (s := live.ok("/v1/system")) and s["workers"] and s["workers"][0]["state"] == "ready" and s, 60,
                      "the worker to be ready")
    assert seen["models"] == [m["name"] for m in live.ok("/v1/models")["data"]]
    assert seen["workers"][0]["pid"] in live.workers()
    assert seen["workers"][0]["models"] == seen["models"]
    assert seen["uptime_s"] > 0
    assert seen["disk"]["free_bytes"] <= seen["disk"]["total_bytes"]
    assert seen["queue"]["limit"] == 1000
    assert seen["devices"][0]["threads"] >= 1
    assert api.ok("/v1/system")["workers"] == []

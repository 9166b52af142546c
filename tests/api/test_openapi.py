# SPDX-License-Identifier: MIT
"""The API description: served as it is in the source, sound in itself, and each command that it shows works.

That routes and description agree is tests/unit/test_openapi.c; that replies are as described is checked in every other test
here (contract.py).
"""
import json
import os
import re
import subprocess

import jsonschema
import pytest

import harness
from contract import CONTRACT
from harness import BIN, check_problem

DOCUMENT = CONTRACT.document
OPERATIONS = [(path, method, op) for path, methods in DOCUMENT["paths"].items() for method, op in methods.items()]
COMMANDS = [pytest.param(method, sample["source"], id=f"{op['operationId']}-{i}")
            for path, method, op in OPERATIONS for i, sample in enumerate(op["x-codeSamples"])]


def walk(value, at=""):
    """Every object within, with its JSON pointer."""
    if isinstance(value, dict):
        yield at, value
        for key, inner in value.items():
            yield from walk(inner, f"{at}/{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from walk(inner, f"{at}/{i}")


def schemas():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        yield name, schema
    bodies = list(DOCUMENT["components"]["responses"].items())
    for path, method, op in OPERATIONS:
        for status, reply in [("body", op.get("requestBody", {})), *op["responses"].items()]:
            bodies.append((f"{method} {path} {status}", reply))
    for where, body in bodies:
        for kind, media in body.get("content", {}).items():
            if "schema" in media:
                yield f"{where} {kind}", media["schema"]


def test_the_description_is_served_as_it_is_in_the_source(api):
    reply = api.get("/openapi.json")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json() == DOCUMENT
    again = api.get("/openapi.json", headers={"If-None-Match": reply.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert api.head("/openapi.json").headers["Content-Length"] == str(len(reply.content))
    check_problem(api.get("/openapi.json?x=1"), 400, "bad-query")


def test_the_page_needs_nothing_else(api):
    reply = api.get("/docs")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    page = reply.content.decode("utf-8")
    assert not re.search(r"<(script|img|link|iframe)|@import|url\(|(src|href|action)=\"https?:", page)
    ids = set(re.findall(r'id="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links - ids == set(), "links to nowhere"
    for _, _, op in OPERATIONS:
        assert op["operationId"] in ids
    again = api.get("/docs", headers={"If-None-Match": reply.headers["ETag"]})
    assert again.status_code == 304


def test_it_says_which_openapi_it_is():
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["title"] and DOCUMENT["info"]["version"]


def test_references_lead_somewhere():
    for at, value in walk(DOCUMENT):
        if isinstance(value.get("$ref"), str):
            CONTRACT.resolve(value)
            assert len(value) == 1, f"{at}: a reference with more beside it"


def test_operations_are_complete():
    ids = [op["operationId"] for _, _, op in OPERATIONS]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, method, op in OPERATIONS:
        where = f"{method} {path}"
        assert op["summary"] and set(op["tags"]) <= tags, where
        parameters = [CONTRACT.resolve(p) for p in op.get("parameters", [])]
        in_path = {p["name"] for p in parameters if p["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path)), where
        names = [(p["in"], p["name"]) for p in parameters]
        assert len(names) == len(set(names)), where
        assert all(p["description"] for p in parameters), where
        assert any(status.startswith("2") for status in op["responses"]), where
        assert all(CONTRACT.resolve(r)["description"] for r in op["responses"].values()), where


@pytest.mark.parametrize(("where", "schema"), [pytest.param(*s, id=s[0]) for s in schemas()])
def test_schemas_are_schemas_and_allow_their_examples(where, schema):
    whole = CONTRACT.inline(schema)
    jsonschema.Draft202012Validator.check_schema(whole)
    for at, part in walk(whole):
        if at.endswith("/properties"):
            continue
        for example in part.get("examples", []) if isinstance(part.get("examples"), list) else []:
            found = [e.message for e in jsonschema.Draft202012Validator(part).iter_errors(example)]
            assert not found, f"{where}{at}: {found}"


def test_examples_of_bodies_are_allowed():
    n = 0
    for at, value in walk(DOCUMENT["paths"]):
        if "example" in value and "schema" in value:
            jsonschema.Draft202012Validator(CONTRACT.inline(value["schema"])).validate(value["example"])
            n += 1
    assert n > 0


class Things:
    """What the shown commands speak of: $PROMPT, $JOB ... Each is made when a command first needs it; what a command deletes
    or changes is made for it alone."""

    def __init__(self, server):
        self.server = server
        self.shared = {}

    def get(self, name, fresh):
        if not fresh and name in self.shared:
            return self.shared[name]
        value = getattr(self, f"make_{name.lower()}")()
        if not fresh:
            self.shared[name] = value
        return value

    def make_prompt(self):
        return self.server.prompt("a calm harp arpeggio")["id"]

    def make_job(self):
        return self.server.run(prompt="a calm harp arpeggio", duration_s=0.1)["id"]

    def make_new_job(self):
        return self.server.submit(prompt="a calm harp arpeggio", duration_s=10)["id"]

    def make_cancelled_job(self):
        job = self.server.submit(prompt="a calm harp arpeggio", duration_s=10)
        assert self.server.cancel(job).status_code in (200, 202)
        return self.server.wait(job, "cancelled")["id"]

    def make_sample(self):
        return self.server.job(self.make_job())["samples"][0]["sample_id"]

    def make_new_sample(self):
        return self.make_sample()

    def make_adapter(self):
        return self.server.adapters()["chiptune"]["id"]

    def make_folder(self):
        return str(harness.CHIPTUNE)

    def make_new_adapter(self):
        """Of content that nothing else has."""
        config = (harness.CHIPTUNE / "adapter_config.json").read_bytes() + b" " * (1 + len(self.server.all("/v1/adapters?all=1")))
        files = [("files", ("adapter_config.json", config)),
                 ("files", ("adapter_model.safetensors", (harness.CHIPTUNE / "adapter_model.safetensors").read_bytes()))]
        return self.server.req("POST", "/v1/adapters?replace=1", data={"name": "to be changed"}, files=files).json()["id"]

    def make_model(self):
        return self.server.ok("/v1/models")["data"][0]["name"]

    def make_comparison(self):
        return self.server.post("/v1/comparisons", {"sample_ids": [self.get("SAMPLE", False)]}).json()["id"]

    def make_doomed_comparison(self):
        return self.make_comparison()

    def new_test(self, mode="ab"):
        test = self.server.listening_test(prompt="a calm harp arpeggio", mode=mode, votes_wanted=1)
        session = self.server.post(f"/v1/comparisons/{test}/sessions", {"rater": "ann"}).json()
        return test, session["token"]

    def make_test(self):
        return self.new_test()[0]

    def make_rater(self):
        return self.new_test()[1]

    def make_abx_rater(self):
        return self.new_test("abx")[1]

    def make_trial(self):
        return self.server.ok(f"/v1/sessions/{self.get('RATER', False)}/next")["trial_id"]

    def make_voted(self):
        return self.get("TRIAL", False)

    def make_closed_test(self):
        test, token = self.new_test()
        trial = self.server.ok(f"/v1/sessions/{token}/next")["trial_id"]
        vote = {"trial_id": trial, "choice": "x", "heard_x_s": 1, "heard_y_s": 1}
        assert self.server.post(f"/v1/sessions/{token}/votes", vote).status_code == 201
        assert self.server.post(f"/v1/comparisons/{test}/close").status_code == 200
        return test

    def make_webhook(self):
        return self.server.post("/v1/webhooks", {"url": "https://example.com/aulos", "events": ["job.queued"]}).json()["id"]

    def make_delivery(self):
        self.make_new_job()
        return self.server.ok(f"/v1/webhooks/{self.get('WEBHOOK', False)}/deliveries")["data"][0]["id"]

    def make_key(self):
        return self.new_key()["id"]

    def make_secret(self):
        return self.new_key()["secret"]

    def new_key(self):
        return self.server.post("/v1/keys", {"name": "studio", "scopes": ["read"]}).json()


@pytest.fixture(scope="module")
def things(live):
    return Things(live)


@pytest.mark.parametrize(("method", "command"), COMMANDS)
def test_the_commands_shown_work(things, tmp_path, method, command):
    names = set(re.findall(r"\$([A-Z_]+)", command)) - {"AULOS"}
    fresh = method in ("delete", "patch")
    env = harness.clean_env({"AULOS": things.server.url, "PATH": f"{BIN.parent}{os.pathsep}{os.environ['PATH']}"})
    env |= {name: things.get(name, fresh or name.startswith("NEW_")) for name in names}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], env=env, cwd=tmp_path, capture_output=True,
                          timeout=120 * harness.SLOW, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    if done.stdout.strip().startswith(b"{"):
        json.loads(done.stdout)

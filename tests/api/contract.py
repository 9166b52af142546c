# SPDX-License-Identifier: MIT
"""Holds every exchange of the black-box tests against the API description (src/api/openapi/).

The session of harness.Server passes each request and its reply to check(). A status, content type, header or body that is
not described is kept as a violation, and so is a request that the server took although the description forbids it; conftest.py
fails the test in which it happened. Schemas are written out without references, since their validators are used by many threads.
"""
import importlib.util
import json
import re
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
# Refused before a route is known, or because there is none.
NO_ROUTE = {400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 421, 431, 500, 501, 503, 505}


def load_document():
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location("openapi_document", ROOT / "src/api/openapi/document.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(ROOT)


class Contract:
    def __init__(self, document):
        self.document = document
        self.paths = []  # (regex, template), literal segments before parameters
        for template in document["paths"]:
            pattern = re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(template))
            self.paths.append((re.compile(pattern), template))
        self.paths.sort(key=lambda p: p[1].replace("{", "\x7f"))
        self.validators = {}
        self.lock = threading.Lock()
        self.violations = []
        self.seen = set()  # (method, template, status)

    def resolve(self, value):
        while "$ref" in value:
            _, _, kind, name = value["$ref"].split("/")
            value = self.document["components"][kind][name]
        return value

    def inline(self, schema):
        if isinstance(schema, list):
            return [self.inline(s) for s in schema]
        if not isinstance(schema, dict):
            return schema
        if isinstance(schema.get("$ref"), str):
            return self.inline(self.resolve(schema))
        return {k: v if k in ("example", "examples", "enum", "const", "default") else self.inline(v) for k, v in schema.items()}

    def validator(self, schema):
        with self.lock:
            known = self.validators.get(id(schema))
            if known is None:
                known = self.validators[id(schema)] = (jsonschema.Draft202012Validator(self.inline(schema)), schema)
        return known[0]

    def errors(self, schema, value, what):
        found = jsonschema.exceptions.best_match(self.validator(schema).iter_errors(value))
        if found is not None:
            yield f"{what} at /{'/'.join(str(p) for p in found.absolute_path)}: {found.message[:300]}"

    def find(self, path):
        return next((template for pattern, template in self.paths if pattern.fullmatch(path)), None)

    def operation(self, method, path):
        template = self.find(path)
        methods = self.document["paths"].get(template, {})
        return template, methods.get("get" if method == "HEAD" else method.lower())

    # One exchange

    def check(self, method, url, sent, reply, streamed=False):
        parts = urlsplit(url)
        path = parts.path
        template, operation = self.operation(method, path)
        found = list(self.problems_of(method, parts, sent, reply, operation, streamed))
        with self.lock:
            self.seen.add((method, template, reply.status_code))
            self.violations += [f"{method} {path}: {reply.status_code}: {text}" for text in found]

    def problems_of(self, method, parts, sent, reply, operation, streamed):
        status = reply.status_code
        kind = reply.headers.get("Content-Type", "").split(";")[0].strip()
        if operation is None:
            if status not in NO_ROUTE:
                yield "there is no such operation in the description"
            elif method != "HEAD" and not streamed:
                yield from self.body_errors({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                                            kind, reply)
            return
        described = operation["responses"].get(str(status))
        if described is None:
            yield f"this status is not described, body {reply.text[:300] if not streamed else ''!r}"
            return
        described = self.resolve(described)
        for name, header in described.get("headers", {}).items():
            if self.resolve(header).get("required") and name not in reply.headers:
                yield f"no {name}"
        content = described.get("content", {})
        if not content and kind and not (status == 304 or method == "HEAD"):
            yield f"content {kind}, described is none"
        if content and kind not in content:
            yield f"content type {kind or 'none'}, described are {sorted(content)}"
        elif content and method != "HEAD" and not streamed:
            yield from self.body_errors(content, kind, reply)
        if 200 <= status < 300:
            yield from self.request_errors(method, parts, sent, operation)

    def body_errors(self, content, kind, reply):
        media = content.get(kind)
        if media is None:
            yield f"content type {kind or 'none'}, described are {sorted(content)}"
        elif "json" in kind:
            try:
                value = json.loads(reply.content)
            except ValueError as error:
                yield f"body is not JSON: {error}"
                return
            yield from self.errors(media["schema"], value, "body")

    def request_errors(self, method, parts, sent, operation):
        """What the server took must be what the description allows."""
        described = [self.resolve(p) for p in operation.get("parameters", [])]
        known = {p["name"]: p for p in described if p["in"] == "query"}
        given = parse_qsl(parts.query, keep_blank_values=True)
        for name, value in given:
            if name not in known:
                yield f"query parameter {name} is not described, but was taken"
                continue
            yield from self.errors(known[name]["schema"], self.typed(known[name]["schema"], value), f"query parameter {name}")
        body = operation.get("requestBody")
        if sent is None:
            return
        if body is None:
            if method not in ("GET", "HEAD", "DELETE") and sent != {}:
                yield "a JSON body was taken, described is none"
        elif "application/json" in body["content"]:
            yield from self.errors(body["content"]["application/json"]["schema"], sent, "request body")

    def typed(self, schema, text):
        kind = self.resolve(schema).get("type")
        if kind in ("integer", "number"):
            try:
                return json.loads(text)
            except ValueError:
                return text
        if kind == "boolean":
            return {"1": True, "0": False, "true": True, "false": False}.get(text, text)
        return unquote(text)

    def take_violations(self):
        with self.lock:
            found, self.violations = self.violations, []
        return list(dict.fromkeys(found))


CONTRACT = Contract(load_document())

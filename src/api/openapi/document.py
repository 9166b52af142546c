# SPDX-License-Identifier: MIT
"""The OpenAPI 3.1 document of the server, from the parts beside this file.

The parts (*.json, one a resource, read in the order of their names) are written by hand in a short notation; what every
request has in common is added here, so that it is said once. A word that the notation does not know ends the build.

A part: {"tag": {name, description}, "paths": {path: {method: operation}}, "parameters": {...}, "schemas": {...}}.
An operation:
    id           operationId
    summary, description
    scope        public | read | write | admin: what a key must allow, as in the table of routes; read when absent
    parameters   names from "parameters", of this or any other part; those in the path are found by themselves
    body         schema of the JSON body, or {"<media type>": schema}; body_optional: true
    replies      {status: schema | null | {schema, headers: [...], description, content: {"<media type>": schema}}}
    creates      true: takes an Idempotency-Key
    problems     slugs of src/http/problem.def that this operation has beside those that every one has
    try          shell commands that show its use; a test runs each
A parameter: {in: query | header | path, description, schema, required}; its name is what follows the last dot of its key.
A schema is JSON Schema with shorthands: "@Name" refers to a schema, "@Name?" allows null as well, "@Page<Name>" is a page of
them, and {"fields": {...}} is an object of exactly these members, of which those with a ? at the end of their name may be absent.
"""
import json
import re
from pathlib import Path

METHODS = ("get", "post", "put", "patch", "delete")
SCOPES = ("public", "read", "write", "admin")
OPERATION = {"id", "summary", "description", "scope", "parameters", "body", "body_optional", "creates", "replies",
             "problems", "try"}
REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "Nothing to say", 206: "A part of it", 304: "As the ETag says"}

# What any request may be told, by the HTTP layer alone.
EVERYWHERE = ["bad-request", "bad-query", "request-timeout", "content-too-large", "uri-too-long", "expectation-failed",
              "misdirected-request", "headers-too-large", "internal", "unavailable", "http-version"]


class Mistake(Exception):
    """What is wrong with a part, and where."""


def read_problems(path):
    """{slug: (status, title)} from problem.def."""
    rows = re.findall(r'^AU_PROBLEM\(\w+, "([^"]+)", (\d+), "([^"]+)"\)', Path(path).read_text(encoding="utf-8"), re.M)
    return {slug: (int(status), title) for slug, status, title in rows}


def reference(kind, name):
    return {"$ref": f"#/components/{kind}/{name}"}


class Document:
    def __init__(self, folder, problem_def):
        self.problems = read_problems(problem_def)
        self.parts = {}
        for path in sorted(Path(folder).glob("*.json")):
            try:
                self.parts[path.name] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise Mistake(f"{path.name}: {error}") from None
        self.parameters = self._merge("parameters")
        self.schemas = self._merge("schemas")
        self.responses = {}
        self.used_slugs = set()
        self.ids = set()

    def _merge(self, kind):
        """One dictionary from those of all parts; a name may stand in one of them only."""
        all_of_them = {}
        for name, part in self.parts.items():
            for key, value in part.get(kind, {}).items():
                if key in all_of_them:
                    raise Mistake(f"{name}: {kind} {key} is in another part too")
                all_of_them[key] = value
        return all_of_them

    # Schemas

    def schema(self, short):
        """The shorthands written out."""
        if isinstance(short, str) and short.startswith("@"):
            name = short[1:].rstrip("?")
            page = re.fullmatch(r"Page<(\w+)>", name)
            if page:
                name = f"{page[1]}Page"
                if name not in self.schemas:
                    self.schemas[name] = {"description": "One page of a list.", "fields": {
                        "data": {"type": "array", "items": f"@{page[1]}"}, "has_more": {"type": "boolean"},
                        "next_cursor": {"type": ["string", "null"], "description": "for the next page; null on the last"},
                        "total?": {"type": "integer", "minimum": 0, "description": "of all pages, where it was asked for"}}}
            if name not in self.schemas:
                raise Mistake(f"schema {name} is nowhere")
            found = reference("schemas", name)
            return {"anyOf": [found, {"type": "null"}]} if short.endswith("?") else found
        if isinstance(short, list):
            return [self.schema(s) for s in short]
        if not isinstance(short, dict):
            return short
        long = {}
        for key, value in short.items():
            if key == "fields":
                long["type"] = "object"
                long["properties"] = {k.rstrip("?"): self.schema(v) for k, v in value.items()}
                required = [k for k in value if not k.endswith("?")]
                if required:
                    long["required"] = required
                long["additionalProperties"] = False
            elif key in ("properties", "patternProperties"):
                long[key] = {k: self.schema(v) for k, v in value.items()}
            elif key in ("examples", "example", "enum", "const", "default", "description"):
                long[key] = value
            else:
                long[key] = self.schema(value)
        return long

    def example(self, schema, depth=0):
        """A value that the schema (written out) allows, from its examples where it has some."""
        if "$ref" in schema:
            schema = self.components["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        if schema.get("examples"):
            return schema["examples"][0]
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if "enum" in schema:
            return schema["enum"][0]
        for key in ("oneOf", "anyOf"):
            if key in schema:
                return self.example(schema[key][0], depth)
        kind = schema.get("type", "object")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            wanted = schema.get("required", []) if depth > 3 else schema.get("properties", {})
            return {k: self.example(schema["properties"][k], depth + 1) for k in wanted}
        if kind == "array":
            return [self.example(schema["items"], depth + 1)] if "items" in schema and schema.get("maxItems") != 0 else []
        return {"string": "", "integer": schema.get("minimum", 0), "number": schema.get("minimum", 0.0), "boolean": True,
                "null": None}[kind]

    # Replies

    def problem_response(self, slugs):
        """The name of the shared response for these problems, which have one status."""
        name = "-or-".join(slugs)
        if name not in self.responses:
            status = self.problems[slugs[0]][0]
            self.responses[name] = {
                "description": "; ".join(f"{self.problems[s][1]} (`{s}`)" for s in slugs),
                "headers": {"X-Request-Id": reference("headers", "X-Request-Id")},
                "content": {"application/problem+json": {
                    "schema": {"allOf": [reference("schemas", "Problem"),
                                         {"properties": {"type": {"enum": [f"/problems/{s}" for s in slugs]},
                                                         "status": {"const": status}}}]},
                    "example": {"type": f"/problems/{slugs[0]}", "title": self.problems[slugs[0]][1], "status": status,
                                "detail": "what exactly, in words", "request_id": "0197f3a2-6d1c-7c51-9d0e-3f6f1b2a4c5d"}}}}
        return name

    def problem_replies(self, slugs):
        """{status: reference} for a set of slugs, in the order of problem.def."""
        by_status = {}
        for slug in self.problems:
            if slug in slugs:
                by_status.setdefault(self.problems[slug][0], []).append(slug)
        unknown = set(slugs) - set(self.problems)
        if unknown:
            raise Mistake(f"problem {sorted(unknown)[0]} is not in problem.def")
        self.used_slugs |= set(slugs)
        return {str(status): reference("responses", self.problem_response(list(of))) for status, of in by_status.items()}

    def common_slugs(self, method, path, operation):
        scope = operation.get("scope", "read")
        slugs = set(EVERYWHERE)
        if operation.get("body"):
            slugs |= {"bad-json", "unsupported-media-type"}
        if method != "get":
            slugs.add("forbidden-origin")
        if "{" in path:
            slugs.add("not-found")
        if scope != "public":
            slugs |= {"unauthorized", "forbidden-scope"}
        if operation.get("creates"):
            slugs |= {"idempotency-key-reused", "not-found", "gone"}  # the two: what was made then is gone now
        if scope in ("write", "admin"):
            slugs.add("insufficient-storage")
        return slugs

    def reply(self, method, status, short):
        if not isinstance(short, dict) or not set(short) <= {"schema", "headers", "description", "content"}:
            short = {"schema": short}
        long = {"description": short.get("description") or REASONS[int(status)],
                "headers": {"X-Request-Id": reference("headers", "X-Request-Id")}}
        for name in short.get("headers", []):
            long["headers"][name] = reference("headers", name)
        content = short.get("content", {})
        if short.get("schema") is not None:
            content = {"application/json": short["schema"], **content}
            if method == "get" and status == "200":
                long["headers"]["ETag"] = reference("headers", "ETag")
        if content:
            long["content"] = {kind: {"schema": self.schema(s)} if s is not None else {} for kind, s in content.items()}
        return long

    # Operations

    def parameter(self, key):
        if key not in self.parameters:
            raise Mistake(f"parameter {key} is nowhere")
        return reference("parameters", key)

    def operation(self, where, method, path, short, tag):
        unknown = set(short) - OPERATION
        if unknown:
            raise Mistake(f"{where}: unknown word {sorted(unknown)[0]}")
        missing = {"id", "summary", "replies", "try"} - set(short)
        if missing:
            raise Mistake(f"{where}: no {sorted(missing)[0]}")
        if short["id"] in self.ids:
            raise Mistake(f"{where}: the id {short['id']} is used twice")
        self.ids.add(short["id"])
        scope = short.get("scope", "read")
        if scope not in SCOPES:
            raise Mistake(f"{where}: scope {scope}")
        long = {"operationId": short["id"], "summary": short["summary"], "tags": [tag]}
        if "description" in short:
            long["description"] = short["description"]
        keys = re.findall(r"{(\w+)}", path) + short.get("parameters", [])
        if short.get("creates"):
            keys.append("Idempotency-Key")
        if keys:
            long["parameters"] = [self.parameter(key) for key in keys]
        if "body" in short:
            kinds = short["body"]
            if not (isinstance(kinds, dict) and all("/" in k for k in kinds)):
                kinds = {"application/json": kinds}
            long["requestBody"] = {"required": not short.get("body_optional", False),
                                   "content": {kind: {"schema": self.schema(s)} for kind, s in kinds.items()}}
        long["responses"] = {s: self.reply(method, s, r) for s, r in short["replies"].items()}
        if short.get("creates"):
            for reply in long["responses"].values():
                reply["headers"]["Idempotency-Replayed"] = reference("headers", "Idempotency-Replayed")
        if "ETag" in long["responses"].get("200", {}).get("headers", {}) and method == "get":
            long["responses"]["304"] = {"description": REASONS[304],
                                        "headers": {"X-Request-Id": reference("headers", "X-Request-Id"),
                                                    "ETag": reference("headers", "ETag")}}
        slugs = self.common_slugs(method, path, short) | set(short.get("problems", []))
        told = self.problem_replies(slugs)
        long["responses"] = dict(sorted((told | long["responses"]).items()))
        if scope == "public":
            long["security"] = []
        else:
            long["security"] = [{"key": [scope]}]
        commands = short["try"] if isinstance(short["try"], list) else [short["try"]]
        long["x-codeSamples"] = [{"lang": "Shell", "label": c.split()[0], "source": c} for c in commands]
        return long

    def build(self):
        head = self.parts["00-document.json"]
        document = {"openapi": "3.1.0", "info": head["info"], "servers": head["servers"], "tags": []}
        paths = {}
        for name, part in self.parts.items():
            unknown = set(part) - {"info", "servers", "headers", "securitySchemes", "tag", "paths", "parameters", "schemas"}
            if unknown:
                raise Mistake(f"{name}: unknown word {sorted(unknown)[0]}")
            if "tag" in part:
                document["tags"].append(part["tag"])
            for path, methods in part.get("paths", {}).items():
                for method, short in methods.items():
                    where = f"{name}: {method} {path}"
                    if method not in METHODS or method in paths.get(path, {}):
                        raise Mistake(f"{where}: no method, or here twice")
                    try:
                        paths.setdefault(path, {})[method] = self.operation(where, method, path, short, part["tag"]["name"])
                    except Mistake as error:
                        raise Mistake(f"{where}: {error}") from None
        document["paths"] = paths
        parameters = {}
        for key, short in self.parameters.items():
            parameters[key] = {"name": key.rsplit(".", 1)[-1], "in": short.get("in", "query"),
                               "required": short.get("in") == "path" or short.get("required", False),
                               "description": short["description"], "schema": self.schema(short["schema"])}
        done = {}
        while len(done) < len(self.schemas):  # pages are added on the way
            for name in [n for n in self.schemas if n not in done]:
                done[name] = self.schema(self.schemas[name])
        if "Problem" in done:
            done["Problem"]["properties"]["type"]["enum"] = [f"/problems/{slug}" for slug in self.problems]
        self.components = {"schemas": done, "parameters": parameters, "headers": head["headers"], "responses": self.responses,
                           "securitySchemes": head["securitySchemes"]}
        document["components"] = self.components
        self._add_examples(document)
        return document

    def _add_examples(self, document):
        """Objects have an example each, where none was written; so has every body that is not one of them."""
        for schema in self.components["schemas"].values():
            if schema.get("type") == "object" and schema.get("properties") and "examples" not in schema:
                schema["examples"] = [self.example(schema)]
        for methods in document["paths"].values():
            for operation in methods.values():
                for body in [operation.get("requestBody", {}), *operation["responses"].values()]:
                    media = body.get("content", {}).get("application/json")
                    if media and "$ref" not in media["schema"]:
                        media["example"] = self.example(media["schema"])


def load(source):
    """The document of the source tree at `source`."""
    source = Path(source)
    return Document(source / "src/api/openapi", source / "src/http/problem.def").build()

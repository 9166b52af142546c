# SPDX-License-Identifier: MIT
"""The documentation page: the OpenAPI document as one HTML file that needs nothing else, no script and no network."""
import html
import json
import re

STYLE = """
:root { --paper: #fbfaf7; --ink: #22262a; --soft: #6a7178; --line: #e2dfd7; --card: #fff; --code: #f3f1eb; --accent: #0b6e66;
  --get: #0b6e66; --post: #8a4b00; --put: #6a3d9a; --patch: #6a3d9a; --delete: #a4262c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e4e6e8; --soft: #99a1a8; --line: #2b3137; --card: #1a1e22;
  --code: #20262b; --accent: #5cc8bd; --get: #5cc8bd; --post: #e3a857; --put: #c3a1e8; --patch: #c3a1e8; --delete: #f08a8f; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.page { display: grid; grid-template-columns: 17rem minmax(0, 1fr); max-width: 84rem; margin: 0 auto; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.6rem 1rem 3rem; border-right: 1px solid var(--line);
  font-size: 13px; }
nav h2 { font-size: 11px; letter-spacing: .08em; text-transform: uppercase; color: var(--soft); margin: 1.4rem 0 .3rem; }
nav a { display: flex; gap: .5rem; padding: .14rem .4rem; border-radius: 5px; color: inherit; text-decoration: none; }
nav a:hover, nav a:focus-visible { background: var(--code); }
nav a b { flex: 0 0 3.3rem; font: 600 10px/1.9 ui-monospace, "DejaVu Sans Mono", monospace; }
main { padding: 1.6rem 2.2rem 6rem; min-width: 0; }
h1 { font-size: 2rem; margin: 0 0 .2rem; letter-spacing: -.01em; }
h2.tag { font-size: 1.35rem; margin: 3rem 0 .3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0; font-weight: 600; }
h4 { font-size: 11px; letter-spacing: .08em; text-transform: uppercase; color: var(--soft); margin: 1.1rem 0 .35rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { color: var(--soft); font-size: 1.05rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.2rem 1.1rem; margin: 1rem 0; }
.line { display: flex; flex-wrap: wrap; align-items: baseline; gap: .6rem; margin-bottom: .35rem;
  font: 13.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.get { color: var(--get); } .post { color: var(--post); } .put { color: var(--put); } .patch { color: var(--patch); }
.delete { color: var(--delete); }
.scope { margin-left: auto; color: var(--soft); font-family: system-ui, sans-serif; font-size: 12px; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--code); border-radius: 4px; padding: .05em .3em; }
pre { background: var(--code); border-radius: 8px; padding: .75rem .9rem; overflow-x: auto; margin: .35rem 0;
  font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre.shell { white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
td { padding: .28rem .8rem .28rem 0; border-top: 1px solid var(--line); vertical-align: top; }
tr:first-child td { border-top: 0; }
td:first-child { white-space: nowrap; width: 1%; }
td.type { color: var(--soft); width: 30%; overflow-wrap: anywhere; }
.need { color: var(--delete); font-size: 11px; margin-left: .3rem; }
a { color: var(--accent); }
details { margin-top: .9rem; } summary { cursor: pointer; color: var(--soft); font-size: 13px; }
summary:hover { color: var(--ink); }
@media (max-width: 60rem) { .page { display: block; } nav { position: static; height: auto; border-right: 0;
  border-bottom: 1px solid var(--line); columns: 2; } main { padding: 1.2rem; } td.type { width: auto; } }
@media print { nav { display: none; } .page { display: block; } }
"""


def esc(text):
    return html.escape(str(text), quote=True)


def prose(text):
    """Paragraphs with `code` in them."""
    return "".join(f"<p>{inline(p)}</p>" for p in text.split("\n\n"))


def inline(text):
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", esc(text))


class Page:
    def __init__(self, document):
        self.document = document
        self.out = []

    def resolve(self, value):
        while "$ref" in value:
            _, _, kind, name = value["$ref"].split("/")
            value = self.document["components"][kind][name]
        return value

    def type_of(self, schema):
        """One line that says what a value may be."""
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            return f'<a href="#schema-{esc(name)}">{esc(name)}</a>'
        for word in ("oneOf", "anyOf"):
            if word in schema and "type" not in schema:
                return " or ".join(self.type_of(s) for s in schema[word])
        if "const" in schema:
            return f"<code>{esc(json.dumps(schema['const'], ensure_ascii=False))}</code>"
        if "enum" in schema:
            return " ".join(f"<code>{esc('null' if v is None else v)}</code>" for v in schema["enum"])
        kind = schema.get("type")
        if kind == "array":
            return f"list of {self.type_of(schema.get('items', {}))}{self.bounds(schema, 'minItems', 'maxItems', ' elements')}"
        if kind == "object" and schema.get("properties"):
            inner = ", ".join(f"{esc(k)}: {self.type_of(v)}" for k, v in schema["properties"].items())
            return f"{{{inner}}}"
        kinds = " or ".join(kind) if isinstance(kind, list) else kind or "any value"
        limits = self.bounds(schema, "minimum", "maximum", "") + self.bounds(schema, "minLength", "maxLength", " characters")
        if "exclusiveMinimum" in schema:
            limits = f" &gt; {schema['exclusiveMinimum']}" + limits.replace(" ≤", ", ≤")
        return esc(kinds) + limits

    @staticmethod
    def bounds(schema, low, high, unit):
        if low in schema and high in schema:
            return f" {schema[low]} … {schema[high]}{unit}"
        if low in schema and unit == "":
            return f" ≥ {schema[low]}"
        if high in schema:
            return f" ≤ {schema[high]}{unit}"
        return ""

    def fields(self, schema):
        required = schema.get("required", [])
        rows = []
        for name, value in schema.get("properties", {}).items():
            need = '<span class="need">needed</span>' if name in required else ""
            default = f" Default <code>{esc(json.dumps(value['default']))}</code>." if "default" in value else ""
            rows.append(f"<tr><td><code>{esc(name)}</code>{need}</td><td class=\"type\">{self.type_of(value)}</td>"
                        f"<td>{inline(value.get('description', ''))}{default}</td></tr>")
        return f"<table>{''.join(rows)}</table>" if rows else ""

    def parameters(self, operation):
        rows = []
        for reference in operation.get("parameters", []):
            p = self.resolve(reference)
            need = '<span class="need">needed</span>' if p["required"] and p["in"] != "path" else ""
            default = f" Default {esc(p['schema']['default'])}." if "default" in p["schema"] else ""
            rows.append(f"<tr><td><code>{esc(p['name'])}</code>{need}</td><td class=\"type\">{esc(p['in'])}, "
                        f"{self.type_of(p['schema'])}</td><td>{inline(p['description'])}{default}</td></tr>")
        return f"<h4>Parameters</h4><table>{''.join(rows)}</table>" if rows else ""

    def body(self, operation):
        if "requestBody" not in operation:
            return ""
        parts = ["<h4>Body</h4>"]
        for kind, media in operation["requestBody"]["content"].items():
            schema = self.resolve(media["schema"])
            parts.append(f"<p><code>{esc(kind)}</code> {self.type_of(media['schema'])} {inline(schema.get('description', ''))}</p>")
            parts.append(self.fields(schema))
        return "".join(parts)

    def replies(self, operation):
        good, bad = [], []
        for status, reference in operation["responses"].items():
            reply = self.resolve(reference)
            types = " or ".join(
                self.type_of(media["schema"]) if kind == "application/json" else f"<code>{esc(kind)}</code>"
                for kind, media in reply.get("content", {}).items() if kind != "application/problem+json")
            row = f"<tr><td><code>{status}</code></td><td class=\"type\">{types}</td><td>{inline(reply['description'])}</td></tr>"
            (bad if int(status) >= 400 else good).append(row)
        problems = "".join(bad).replace('<td class="type"></td>', "")
        return (f"<h4>Replies</h4><table>{''.join(good)}</table>"
                f"<details><summary>Problems ({len(bad)} statuses)</summary><table>{problems}</table></details>")

    def operation(self, path, method, operation):
        scope = operation["security"][0]["key"][0] if operation["security"] else "no key needed"
        commands = "".join(f'<pre class="shell">{esc(c["source"])}</pre>' for c in operation["x-codeSamples"])
        self.out.append(
            f'<article id="{esc(operation["operationId"])}"><div class="line"><b class="{method}">{method.upper()}</b>'
            f'<span>{esc(path)}</span><span class="scope">{esc(scope)}</span></div><h3>{inline(operation["summary"])}</h3>'
            f'{prose(operation["description"]) if "description" in operation else ""}{self.parameters(operation)}'
            f'{self.body(operation)}{self.replies(operation)}<h4>Try it</h4>{commands}</article>')

    def schema(self, name, schema):
        example = schema.get("examples")
        shown = ""
        if example and isinstance(example[0], dict):
            text = json.dumps(example[0], indent=2, ensure_ascii=False)
            shown = f"<details><summary>Example</summary><pre>{esc(text)}</pre></details>"
        kind = self.fields(schema) or f"<p>{self.type_of(schema)}</p>"
        note = prose(schema["description"]) if "description" in schema else ""
        self.out.append(f'<article id="schema-{esc(name)}"><h3>{esc(name)}</h3>{note}{kind}{shown}</article>')

    def navigation(self, by_tag):
        parts = []
        for tag, operations in by_tag.items():
            links = "".join(
                f'<a href="#{esc(o["operationId"])}"><b class="{m}">{m.upper()}</b><span>{inline(o["summary"])}</span></a>'
                for _, m, o in operations)
            parts.append(f"<h2>{esc(tag)}</h2>{links}")
        parts.append('<h2>More</h2><a href="#schemas">Schemas</a><a href="openapi.json">openapi.json</a>')
        return "".join(parts)

    def render(self):
        info = self.document["info"]
        by_tag = {tag["name"]: [] for tag in self.document["tags"]}
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                by_tag[operation["tags"][0]].append((path, method, operation))
        for tag in self.document["tags"]:
            self.out.append(f'<h2 class="tag">{esc(tag["name"])}</h2>{prose(tag.get("description", ""))}')
            for path, method, operation in by_tag[tag["name"]]:
                self.operation(path, method, operation)
        self.out.append('<h2 class="tag" id="schemas">Schemas</h2>')
        for name, schema in self.document["components"]["schemas"].items():
            self.schema(name, schema)
        return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
                f'initial-scale=1"><title>{esc(info["title"])}: HTTP API</title><style>{STYLE}</style></head><body>'
                f'<div class="page"><nav aria-label="Operations">{self.navigation(by_tag)}</nav><main><h1>{esc(info["title"])}</h1>'
                f'<p class="lead">{inline(info["summary"])}</p>{prose(info["description"])}{"".join(self.out)}</main></div>'
                f'</body></html>\n')


def render(document):
    return Page(document).render()

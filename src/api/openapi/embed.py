# SPDX-License-Identifier: MIT
"""Writes the OpenAPI document and the page made from it as C: au_openapi_json and au_docs_html.

usage: embed.py OUT.c PROBLEM.def PART...
"""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import document  # noqa: E402
import page  # noqa: E402


def literal(symbol, text):
    """An au_embedded: the text as string literals, a line each and none longer than compilers promise to take."""
    data = text.encode("utf-8")
    lines = [f"static const char {symbol}_text[] ="]
    for at in range(0, len(data), 1000):
        escaped = "".join(chr(b) if 32 <= b < 127 and b not in (34, 92, 63) else f"\\{b:03o}" for b in data[at:at + 1000])
        lines.append(f'    "{escaped}"')
    lines[-1] += ";"
    return lines + [f"const au_embedded {symbol} = {{{symbol}_text, sizeof {symbol}_text - 1}};", ""]


def main():
    out, problem_def, *given = sys.argv[1:]
    folder = os.path.dirname(os.path.abspath(__file__))
    parts = {name for name in os.listdir(folder) if name.endswith(".json")}
    strays = sorted(parts ^ {os.path.basename(path) for path in given})
    if strays:
        sys.exit(f"openapi: {strays[0]} is in the folder or in src/api/meson.build, but not in both")
    try:
        made = document.Document(folder, problem_def).build()
    except document.Mistake as mistake:
        sys.exit(f"openapi: {mistake}")
    lines = ["/* Made by src/api/openapi/embed.py. */", '#include "api/embedded.h"', ""]
    lines += literal("au_openapi_json", json.dumps(made, separators=(",", ":"), ensure_ascii=False) + "\n")
    lines += literal("au_docs_html", page.render(made))
    with open(out, "w", encoding="utf-8") as f:
        f.write("\n".join(lines))


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()

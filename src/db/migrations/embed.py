# SPDX-License-Identifier: MIT
"""Writes the SQL files given as C: an array of {version, name, text}, sorted by the number in the name.

usage: embed.py OUT.c SYMBOL FILE...
"""
import os
import sys

out, symbol, files = sys.argv[1], sys.argv[2], sorted(sys.argv[3:], key=os.path.basename)
lines = ['/* Made by src/db/migrations/embed.py. */', '#include "db/db_backend.h"', '',
         f'const au_migration {symbol}[] = {{']
for expected, path in enumerate(files, 1):
    name = os.path.basename(path)
    if int(name[:4]) != expected:
        sys.exit(f'{name}: expected number {expected:04d}')
    lines.append(f'    {{{expected}, "{name}",')
    with open(path, encoding='utf-8') as f:
        for line in f:
            text = line.split('--')[0].rstrip()
            if text:
                escaped = text.replace('\\', '\\\\').replace('"', '\\"')
                lines.append(f'     "{escaped}\\n"')
    lines.append('    },')
lines += ['    {0, NULL, NULL},', '};', '']
with open(out, 'w', encoding='utf-8') as f:
    f.write('\n'.join(lines))

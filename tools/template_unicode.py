#!/usr/bin/env python3
"""Writes src/format/template_unicode.c: what utf8proc does not say of case, from Python's own tables.

Usage: template_unicode.py > src/format/template_unicode.c"""
import sys


def table(name, f):
    rows = [(c, f(chr(c))) for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000 and len(f(chr(c))) > 1]
    out = [f"const case_special {name}[] = {{"]
    line = "   "
    for c, to in rows:
        cell = " {0x%04x, {%s}}," % (c, ", ".join("0x%04x" % ord(x) for x in to))
        if len(line) + len(cell) > 118:
            out.append(line)
            line = "   "
        line += cell
    out.append(line + " {0, {0}},")
    return out + ["};"]


lines = [
    "/* Characters whose upper or title case is more than one character. Written by tools/template_unicode.py. */",
    '#include "format/template_unicode.h"',
    "",
    "#include <stddef.h>",
    "",
    "/* clang-format off */",
    *table("case_uppers", str.upper),
    *table("case_titles", str.title),
    "/* clang-format on */",
    "",
    "const case_special *find_case(const case_special *table, uint32_t c)",
    "{",
    "    for (; table->from && table->from <= c; table++)",
    "        if (table->from == c) return table;",
    "    return NULL;",
    "}",
]
sys.stdout.write("\n".join(lines) + "\n")

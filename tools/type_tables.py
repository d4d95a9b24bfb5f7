#!/usr/bin/env python3
"""Writes the codebooks of GGUF's grid types as C: src/backend/cpu/tables_grids.c.

    python tools/type_tables.py [OUT.c]

A codebook is part of its format. Each is taken from the gguf package (gguf/quants.py; the version is in
tools/requirements.txt) and kept as the codes of an entry's elements, not as the numbers those mean.
"""
import pathlib
import subprocess
import sys

import gguf.quants as quants
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "src/backend/cpu/tables_grids.c"
GRIDS = {"iq2_xxs": quants.IQ2_XXS, "iq2_xs": quants.IQ2_XS, "iq2_s": quants.IQ2_S, "iq3_xxs": quants.IQ3_XXS,
         "iq3_s": quants.IQ3_S, "iq1": quants.IQ1_S}

HEAD = """/* The codebooks of GGUF's grid types, facts of the format as the gguf package states them. Written by
 * tools/type_tables.py; grids.h says how they are read. */
#include "grids.h"
"""


def entries(kind):
    """[entries] uint16: the codes of an entry, the first in the lowest bits."""
    kind.init_grid()
    count, width = kind.grid_shape
    levels = np.array(kind.grid_map, np.float32)
    codes = (kind.grid.reshape(count, width, 1) == levels).argmax(-1)
    assert np.array_equal(levels[codes], kind.grid.reshape(count, width))
    return (codes << np.arange(0, 16, 16 // width)).sum(-1)


def main():
    text = HEAD
    for name, kind in GRIDS.items():
        x = entries(kind)
        text += f"\nconst uint16_t grid_{name}[{len(x)}] = {{{', '.join(f'0x{v:04x}' for v in x)}}};\n"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.write_text(text)
    subprocess.run(["clang-format", "-i", out], check=True)


main()

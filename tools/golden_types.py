#!/usr/bin/env python3
"""Makes tests/data/types.bin: blocks of GGUF's types, and their elements as the gguf package dequantises them in float32.

    python tools/golden_types.py [OUT]

Bytes are random, so that scales are of every size, sign and kind; where a block has f16 numbers of its own at a known
place, most are ordinary, and each is once zero, negative zero, least, largest, infinite and NaN. For each type,
little-endian:

    16 bytes  name, as in dtype.h, zero-padded
    2 uint32  elements, bytes
    bytes, then float32 elements
"""
import pathlib
import struct
import sys

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/types.bin"
ELEMENTS = 1024
ODD = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00], np.uint16).view(np.uint8)
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
TYPES = ["IQ4_NL", "IQ4_XS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0", "MXFP4",
         "NVFP4"] + list(HALVES)


def with_halves(blocks, places, random):
    """The f16 numbers of the blocks at those places: ordinary ones, then the odd ones."""
    n = len(blocks) - 9 * len(places)
    for i, at in enumerate(places):
        ordinary = random.normal(0, 0.01, len(blocks)).astype(np.float16).view(np.uint8)
        blocks[:, at:at + 2] = ordinary.reshape(-1, 2)
        blocks[n + 9 * i:n + 9 * i + 9, at:at + 2] = ODD.reshape(-1, 2)


def main():
    out = b""
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        random = np.random.Generator(np.random.PCG64(int(kind)))
        blocks = ELEMENTS // elements if name not in HALVES else max(ELEMENTS // elements, 9 * len(HALVES[name]) + 3)
        data = random.integers(0, 256, (blocks, size), np.uint8)
        with_halves(data, HALVES.get(name, []), random)
        data = data.reshape(-1)
        with np.errstate(all="ignore"):
            x = gguf.quants.dequantize(data, kind)
        assert x.dtype == np.float32 and x.size == blocks * elements
        out += struct.pack("<16s2I", name.lower().encode(), x.size, data.size) + data.tobytes() + x.tobytes()
    (pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUT).write_bytes(out)


main()

#!/usr/bin/env python3
"""Makes tests/data/types.bin: blocks of GGUF's types, and their elements as the gguf package dequantises them in float32.

    python tools/golden_types.py [OUT]

Bytes are random, so that scales are of every size, sign and kind. For each type, little-endian:

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
TYPES = ["IQ4_NL", "IQ4_XS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0", "MXFP4",
         "NVFP4"]


def main():
    out = b""
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        random = np.random.Generator(np.random.PCG64(int(kind)))
        data = random.integers(0, 256, ELEMENTS // elements * size, np.uint8)
        with np.errstate(all="ignore"):
            x = gguf.quants.dequantize(data, kind)
        assert x.dtype == np.float32 and x.size == ELEMENTS
        out += struct.pack("<16s2I", name.lower().encode(), x.size, data.size) + data.tobytes() + x.tobytes()
    (pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUT).write_bytes(out)


main()

#!/usr/bin/env python3
"""Makes the golden models: tiny, seeded, of odd sizes, with the logits that transformers computes for them in float32.

    python tools/golden.py [--out DIR] [NAME ...]       all, or those named, into tests/data/golden

Each folder holds a checkpoint (config.json and safetensors, or model.gguf) and golden.bin, which tests/golden.h reads;
all numbers little-endian:

    8 bytes   "LAMGOLD1"
    4 uint32  prompt P, steps S, vocabulary V, context C (of the session; scalings that depend on a length use it)
    int32     ids [P + S]
    float32   logits [P + S, V]: row i is what follows ids[0..i]

Rows are those of one forward pass over all ids. The tool asserts that the prompt followed by single steps with a cache
gives the same (except dynamic scaling, where the reference rescales as it goes; here a row's answer depends on the
context alone), and that no router chooses between near ties.

Weights come from numpy's PCG64, so that a rerun gives the same bytes with the versions in tools/requirements.txt.
golden_families.py has a row for each model in safetensors, golden_gguf.py for each GGUF, golden_core.py does the work.
"""
import argparse
import pathlib

import torch
import transformers

from golden_core import OUT, make_folder
from golden_families import FAMILIES
from golden_gguf import GGUFS, make_gguf


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    unknown = set(args.names) - set(FAMILIES) - set(GGUFS)
    assert not unknown, f"no such model: {', '.join(sorted(unknown))}"
    for rows, make in ((FAMILIES, make_folder), (GGUFS, make_gguf)):
        for name, row in rows.items():
            if not args.names or name in args.names:
                make(args.out, name, row)
    print(f"{sum(p.stat().st_size for p in args.out.rglob('*') if p.is_file()) / 1e6:.2f} MB in all")


main()

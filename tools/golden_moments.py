#!/usr/bin/env python3
"""Makes tests/data/golden/NAME/moments.bin: how large the inputs of a golden model's matrices are over its golden ids.

    python tools/golden_moments.py [NAME ...]      default: llama-bf16 cohere qwen3-moe

transformers runs the model in float32; every product with a matrix of the checkpoint (torch.nn.functional.linear) is
watched, and of its input the mean square of each column is taken in float64. Little-endian:

    8 bytes  "LAMMOM01"
    uint32   number of matrices
    each:    uint32 length of the name, the name, uint32 columns, float32 [columns]

Experts' gate and up are left out: their moments are the router's by definition. A matrix that no token reaches is left
out, too.
"""
import json
import pathlib
import struct
import sys

import numpy
import torch
import transformers
from safetensors.torch import load_file

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests/data/golden"


def ids_of(folder):
    data = (folder / "golden.bin").read_bytes()
    prompt, steps = struct.unpack_from("<II", data, 8)
    return numpy.frombuffer(data, "<i4", prompt + steps, 24).tolist()


def tensors_of(folder):
    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    return {k: v for name in sorted(names) for k, v in load_file(folder / name).items()}


def make(name):
    folder = GOLDEN / name
    matrices = {}
    for key, value in tensors_of(folder).items():
        if value.dim() == 2 and (".experts." not in key or "down_proj" in key):
            matrices[value.float().numpy().tobytes()] = key
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.set_experts_implementation("eager") if hasattr(model, "set_experts_implementation") else None
    sums, rows = {}, {}
    linear = torch.nn.functional.linear

    def watched(x, weight, bias=None):
        key = matrices.get(weight.detach().contiguous().numpy().tobytes())
        if key:
            flat = x.detach().reshape(-1, x.shape[-1]).double()
            sums[key] = sums.get(key, 0) + (flat * flat).sum(0)
            rows[key] = rows.get(key, 0) + flat.shape[0]
        return linear(x, weight, bias)

    torch.nn.functional.linear = watched
    with torch.no_grad():
        model(torch.tensor([ids_of(folder)]))
    torch.nn.functional.linear = linear
    out = b"LAMMOM01" + struct.pack("<I", len(sums))
    for key in sorted(sums):
        mean = (sums[key] / rows[key]).float().numpy().astype("<f4")
        out += struct.pack("<I", len(key)) + key.encode() + struct.pack("<I", len(mean)) + mean.tobytes()
    (folder / "moments.bin").write_bytes(out)
    print(f"{name}: {len(sums)} matrices of {len(matrices)}, {len(out)} bytes; tied head: {model.config.tie_word_embeddings}")


torch.set_num_threads(1)
for name in sys.argv[1:] or ["llama-bf16", "cohere", "qwen3-moe"]:
    make(name)

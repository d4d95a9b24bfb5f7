#!/usr/bin/env python3
"""Writes tests/model/rope_golden.h: inverse frequencies from transformers' ROPE_INIT_FUNCTIONS for every kind of scaling.

    rope_golden.py > tests/model/rope_golden.h          (transformers 5.23.0, torch 2.15.0; see requirements.txt)
"""
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

CASES = [
    ("plain", 128, 500000.0, 2048, {}),
    ("plain_odd_half", 30, 10000.0, 2048, {}),
    ("linear", 64, 10000.0, 2048, dict(rope_type="linear", factor=4.0)),
    ("dynamic", 64, 10000.0, 2048, dict(rope_type="dynamic", factor=2.0)),
    ("llama3", 128, 500000.0, 131072, dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                           original_max_position_embeddings=8192)),
    ("yarn", 128, 1000000.0, 131072, dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)),
    ("yarn_mscale", 64, 10000.0, 163840, dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=4096,
                                             beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.8)),
    ("yarn_smooth", 64, 150000.0, 131072, dict(rope_type="yarn", factor=32.0, original_max_position_embeddings=4096,
                                              truncate=False, attention_factor=1.25)),
]
CONTEXT = 5000  # what dynamic scaling is asked for


def main():
    print("/* Written by tools/rope_golden.py from transformers; do not edit. */")
    print("static const struct { const char *name; uint32_t dims, context; double theta; uint32_t trained; float scale;\n"
          "    float inv_freq[64]; } rope_golden[] = {")
    for name, dims, theta, trained, scaling in CASES:
        config = LlamaConfig(hidden_size=dims * 2, num_attention_heads=2, head_dim=dims, max_position_embeddings=trained,
                             rope_parameters=dict(rope_theta=theta, **(scaling or dict(rope_type="default"))))
        if scaling:
            inv, scale = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu", seq_len=CONTEXT)
        else:
            inv, scale = LlamaRotaryEmbedding(config).inv_freq, 1.0
        values = ", ".join(f"{float(v).hex()}f" for v in inv.to(torch.float32))
        print(f'    {{"{name}", {dims}, {CONTEXT}, {theta!r}, {trained}, {float(torch.tensor(scale)).hex()}f, {{{values}}}}},')
    print("};")


if __name__ == "__main__":
    main()

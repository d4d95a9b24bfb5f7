#!/usr/bin/env python3
"""Write a GGUF file's weights in bf16 (or f32), so that a model that is only at hand quantised can be quantised again.

    gguf_widen.py [--type bf16|f32] [--mix SEED] [--align 256] IN.gguf OUT.gguf

Matrices take the type, vectors become f32. Two changes that leave the model's function alone, architecture llama only:

--mix SEED   permutes channels: those of the residual stream, those between the feed-forward matrices, and those of each
             head's values. What was quantised in blocks has few values per block, and blocks of another type over the same
             columns would find them again; over mixed columns they see what an unquantised model would show them.
--align N    pads rows with zeros until N divides them (the blocks of K types have 256 columns): channels of the residual
             stream, whose norms are rescaled, and heads whose output is nothing.

Needs numpy and gguf (PyPI). The whole model is held in memory as f32.
"""
import argparse
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

ROWS_WRITE_RESIDUAL = ("attn_output.weight", "ffn_down.weight")
COLUMNS_READ_RESIDUAL = ("attn_q.weight", "attn_k.weight", "attn_v.weight", "ffn_gate.weight", "ffn_up.weight",
                         "token_embd.weight", "output.weight")


class Llama:
    """Sizes, and the weights by name; changes both."""

    def __init__(self, reader, tensors):
        def number(key):
            return reader.fields[f"llama.{key}"].contents()

        self.tensors = tensors
        self.layers, self.hidden, self.inner = (number(k) for k in ("block_count", "embedding_length", "feed_forward_length"))
        self.heads, self.groups = number("attention.head_count"), number("attention.head_count_kv")
        self.epsilon = number("attention.layer_norm_rms_epsilon")
        self.head = self.tensors["blk.0.attn_q.weight"].shape[0] // self.heads

    def residual(self, change_vector, change_columns, change_rows):
        for name, x in self.tensors.items():
            if name.endswith("_norm.weight"):
                self.tensors[name] = change_vector(x)
            elif name.endswith(ROWS_WRITE_RESIDUAL):
                self.tensors[name] = change_rows(x)
            elif name.endswith(COLUMNS_READ_RESIDUAL):
                self.tensors[name] = change_columns(x)
            else:
                sys.exit(f"{name}: not a tensor of the llama architecture that this script knows")

    def mix(self, seed):
        random, t = np.random.default_rng(seed), self.tensors
        p = random.permutation(self.hidden)
        self.residual(lambda x: x[p], lambda x: x[:, p], lambda x: x[p])
        each = self.heads // self.groups
        for layer in range(self.layers):
            name = f"blk.{layer}."
            p = random.permutation(self.inner)
            for part in ("ffn_gate.weight", "ffn_up.weight"):
                t[name + part] = t[name + part][p]
            t[name + "ffn_down.weight"] = t[name + "ffn_down.weight"][:, p]
            p = np.concatenate([g * self.head + random.permutation(self.head) for g in range(self.groups)])
            t[name + "attn_v.weight"] = t[name + "attn_v.weight"][p]
            p = p.reshape(self.groups, 1, self.head) - self.head * np.arange(self.groups).reshape(-1, 1, 1)
            columns = p + self.head * np.arange(self.heads).reshape(self.groups, each, 1)
            t[name + "attn_output.weight"] = t[name + "attn_output.weight"][:, columns.reshape(-1)]

    def align(self, n):
        t, hidden = self.tensors, -(-self.hidden // n) * n
        if self.inner % n:
            sys.exit(f"feed-forward size {self.inner}: {n} does not divide it")
        more, share = hidden - self.hidden, (self.hidden / hidden) ** 0.5  # the mean square is now over more channels
        self.residual(lambda x: np.pad(x * np.float32(share), (0, more)), lambda x: np.pad(x, ((0, 0), (0, more))),
                      lambda x: np.pad(x, ((0, more), (0, 0))))
        self.epsilon *= share * share
        each = self.heads // self.groups
        new = each
        while new * self.groups * self.head % n:
            new += 1
        for layer in range(self.layers):
            name = f"blk.{layer}."
            q = t[name + "attn_q.weight"].reshape(self.groups, each, self.head, hidden)
            t[name + "attn_q.weight"] = np.pad(q, ((0, 0), (0, new - each), (0, 0), (0, 0))).reshape(-1, hidden)
            o = t[name + "attn_output.weight"].reshape(hidden, self.groups, each, self.head)
            t[name + "attn_output.weight"] = np.pad(o, ((0, 0), (0, 0), (0, new - each), (0, 0))).reshape(hidden, -1)
        self.hidden, self.heads = hidden, new * self.groups


def bf16(x):
    """Rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def copy_fields(reader, writer, changed):
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, changed.get(name, field.contents()), kind, sub)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--type", choices=("bf16", "f32"), default="bf16")
    ap.add_argument("--mix", type=int, metavar="SEED")
    ap.add_argument("--align", type=int, metavar="N")
    ap.add_argument("source")
    ap.add_argument("out")
    a = ap.parse_args()
    reader = gguf.GGUFReader(a.source)
    architecture = reader.fields["general.architecture"].contents()
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type).reshape(tuple(map(int, t.shape[::-1]))) for t in reader.tensors}
    changed = {}
    if a.mix is not None or a.align:
        if architecture != "llama":
            sys.exit(f"{a.source}: expected architecture llama for --mix and --align, found {architecture}")
        model = Llama(reader, tensors)
        if a.mix is not None:
            model.mix(a.mix)
        if a.align:
            model.align(a.align)
        changed = {"llama.embedding_length": model.hidden, "llama.attention.head_count": model.heads,
                   "llama.attention.layer_norm_rms_epsilon": model.epsilon}
    writer = gguf.GGUFWriter(a.out, architecture)
    copy_fields(reader, writer, changed)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if a.type == "bf16" else gguf.LlamaFileType.ALL_F32)
    for name, x in tensors.items():
        if x.ndim > 1 and a.type == "bf16":
            writer.add_tensor(name, bf16(x).view(np.uint8), raw_dtype=Type.BF16)
        else:
            writer.add_tensor(name, np.ascontiguousarray(x, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()

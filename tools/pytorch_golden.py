#!/usr/bin/env python3
"""Writes the files of tests/data/pytorch: small checkpoints as torch.save() makes them, right and to be refused.

    tools/pytorch_golden.py          needs torch

Beside each NAME.bin that is to be read stands NAME.txt, one line a tensor: type, shape, FNV-1a of its bytes, name.
The same torch gives the same bytes, except for the older form, whose keys are addresses."""
import json
import pathlib
import zipfile

import torch

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "pytorch"
NAMES = {
    torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "bool",
    torch.uint16: "u16", torch.uint32: "u32", torch.uint64: "u64", torch.float8_e4m3fn: "f8_e4m3",
    torch.float8_e5m2: "f8_e5m2", torch.complex64: "other",
}


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return h


def raw(t):
    t = t.detach().contiguous().reshape(-1)
    return bytes(t.view(torch.uint8).tolist()) if t.numel() else b""


def describe(path, state):
    with open(path, "w") as f:
        for name, t in state.items():
            shape = "x".join(map(str, t.shape)) or "-"
            f.write(f"{NAMES[t.dtype]} {shape} {fnv(raw(t)):016x} {name}\n")


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def write(name, state, folder=FOLDER, **how):
    torch.save(state, folder / f"{name}.bin", **how)
    describe(folder / f"{name}.txt", state)


def all_types():
    state = {"f32": numbers(2, 3), "f16": numbers(3, 4).half(), "bf16": numbers(5, 2).bfloat16(),
             "f64": numbers(3).double(), "i64": torch.arange(4) - 2, "i32": torch.arange(3, dtype=torch.int32),
             "i16": torch.arange(3, dtype=torch.int16), "i8": torch.arange(3, dtype=torch.int8) - 1,
             "u8": torch.arange(5, dtype=torch.uint8), "bool": torch.tensor([True, False, True])}
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 7)
    state["six.dims"] = numbers(2, 1, 2, 1, 3, 2)
    state["parameter"] = torch.nn.Parameter(numbers(2, 2))
    state["fixed parameter"] = torch.nn.Parameter(numbers(2, 2), requires_grad=False)
    return state


def newer_types():
    return {"f8.e4m3": numbers(6).to(torch.float8_e4m3fn), "f8.e5m2": numbers(2, 3).to(torch.float8_e5m2),
            "u16": torch.arange(3).to(torch.uint16), "u32": torch.arange(3).to(torch.uint32),
            "u64": torch.arange(3).to(torch.uint64), "complex": torch.view_as_complex(numbers(3, 2))}


def shared():
    qkv = numbers(6, 4)
    state = {"embed": numbers(5, 4, seed=2), "qkv": qkv, "q": qkv[0:2], "k": qkv[2:4], "v": qkv[4:6],
             "row": qkv[3:4].T.reshape(1, 4), "column.of.one": qkv[:, :1][2:3]}
    state["head"] = state["embed"]
    state["flat"] = state["embed"].view(-1)
    return state


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(20))  # a memo of more than 256
        self.norm = torch.nn.LayerNorm(4)
        for i, p in enumerate(self.parameters()):
            p.data = numbers(*p.shape, seed=i)


def sharded():
    folder = FOLDER / "sharded"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "none"}\n')
    weights, n = {}, 2
    for i in range(n):
        name = f"pytorch_model-{i + 1:05d}-of-{n:05d}"
        state = {f"layers.{i}.weight": numbers(4, 3, seed=i).half(), f"layers.{i}.bias": numbers(3, seed=i + 9)}
        write(name, state, folder)
        weights.update({k: name + ".bin" for k in state})
    index = {"metadata": {"total_size": 72}, "weight_map": weights}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


def deflated():
    path = FOLDER / "refused-deflated.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as to, zipfile.ZipFile(FOLDER / "f32.bin") as of:
        for entry in of.infolist():
            to.writestr(zipfile.ZipInfo(entry.filename), of.read(entry), zipfile.ZIP_DEFLATED)


def main():
    FOLDER.mkdir(exist_ok=True)
    old = {"_use_new_zipfile_serialization": False}
    write("f32", {"weight": numbers(3, 4)})
    write("f32-legacy", {"weight": numbers(3, 4)}, **old)
    write("types", all_types())
    write("types-4", all_types(), pickle_protocol=4)
    write("types-5", all_types(), pickle_protocol=5)
    write("types-legacy", all_types(), **old)
    write("types-legacy-4", all_types(), pickle_protocol=4, **old)
    write("newer", newer_types())
    write("newer-legacy", newer_types(), **old)
    write("shared", shared())
    write("shared-legacy", shared(), **old)
    write("module", Model().state_dict())
    write("module-legacy", Model().state_dict(), **old)
    sharded()

    base = numbers(4, 6)
    for name, state in {
            "transposed": {"weight": base.T}, "expanded": {"weight": base[:1].expand(3, 6)},
            "strided": {"weight": base[:, ::2]}, "nested": {"state_dict": {"weight": base}, "epoch": 3},
            "number": {"weight": base, "step": 7}, "tensor": base, "module": torch.nn.Linear(2, 2),
            "conjugated": {"weight": torch.view_as_complex(numbers(2, 2)).conj()},
            "sparse": {"weight": torch.eye(2).to_sparse()}}.items():
        torch.save(state, FOLDER / f"refused-{name}.bin")
    torch.save({"weight": base.T}, FOLDER / "refused-transposed-legacy.bin", **old)
    deflated()
    torch.jit.save(torch.jit.script(torch.nn.Identity()), FOLDER / "refused-script.bin")


if __name__ == "__main__":
    main()

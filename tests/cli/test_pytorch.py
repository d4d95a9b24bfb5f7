#!/usr/bin/env python3
"""Checkpoints as torch.save() writes them, through the program: test_pytorch.py PATH/TO/lamina [unittest arguments].

The same weights as safetensors must give the same answers, bit for bit. Standard library only: the pickles are written
opcode by opcode."""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

import tiny_model

LAMINA = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "build/lamina"
IDS = "5,6,7,200,9,260,40,41,3"
MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." b"\x80\x02M\xe9\x03."


def text(s):
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def integer(n):
    return b"J" + struct.pack("<i", n)


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def tensor(key, elements, shape):
    """Opcodes of a bfloat16 tensor that is the whole of its storage."""
    strides, n = [], 1
    for d in reversed(shape):
        strides.insert(0, n)
        n *= d
    storage = tuple_of(text("storage"), b"ctorch\nBFloat16Storage\n", text(key), text("cpu"), integer(elements)) + b"Q"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n" +
            tuple_of(storage, integer(0), tuple_of(*map(integer, shape)), tuple_of(*map(integer, strides)), b"\x89",
                     b"ccollections\nOrderedDict\n)R") + b"R")


def read_safetensors(path):
    """{name: (shape, bytes)}, all of bfloat16"""
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {name: (t["shape"], data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for name, t in header.items()}


def save(path, state, legacy=False, shift=0, tied=None):
    """What torch.save() would write. shift: bytes by which the older form's data begin later; tied: {name: name of the
    tensor whose storage it shares}"""
    body, storages = b"ccollections\nOrderedDict\n)R(", {}
    for name, (shape, data) in state.items():
        key = str(list(state).index((tied or {}).get(name, name)))
        storages.setdefault(key, data)
        body += text(name) + tensor(key, len(data) // 2, shape)
    body = b"\x80\x02" + body + b"u."
    if legacy:
        system = b"\x80\x02}(" + text("little_endian") + b"\x88" + text("") + text(shift * "x") + b"u."
        keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
        with open(path, "wb") as f:
            f.write(MAGIC + system + body + keys)
            for data in storages.values():
                f.write(struct.pack("<q", len(data) // 2) + data)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        z.writestr("archive/data.pkl", body)
        z.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            z.writestr("archive/data/" + key, data)
        z.writestr("archive/version", "3\n")


def convert(source, folder, legacy=False, shift=0, shards=1, keep=False):
    """The checkpoint `source` again, its weights as PyTorch's."""
    shutil.copytree(source, folder)
    path = os.path.join(folder, "model.safetensors")
    state = read_safetensors(path)
    if not keep:
        os.remove(path)
    if shards == 1:
        return save(os.path.join(folder, "pytorch_model.bin"), state, legacy, shift)
    names, where = list(state), {}
    for i in range(shards):
        file = f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin"
        part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
        save(os.path.join(folder, file), {name: state[name] for name in part}, legacy, shift)
        where.update({name: file for name in part})
    with open(os.path.join(folder, "pytorch_model.bin.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": where}, f)


class PyTorch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="lamina-pytorch-")
        cls.model = cls.path("model")
        tiny_model.write(cls.model)
        cls.reference = cls.logits(cls.model)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    @staticmethod
    def run_lamina(*arguments):
        p = subprocess.run([LAMINA, *map(str, arguments)], capture_output=True, timeout=120)
        return p.returncode, p.stdout, p.stderr.decode(errors="replace")

    @classmethod
    def logits(cls, model, *more, memory="256M"):
        out = cls.path("out.npy")
        code, _, err = cls.run_lamina("logits", model, "--ids", IDS, "-o", out, "--memory", memory, *more)
        assert code == 0, err
        with open(out, "rb") as f:
            return f.read()

    def good(self, *arguments):
        code, out, err = self.run_lamina(*arguments)
        self.assertEqual(code, 0, f"{arguments}: {err}")
        return out

    FORMS = {"zip": {}, "older": {"legacy": True}, "older, shifted": {"legacy": True, "shift": 1},
             "shards": {"shards": 3}, "older shards": {"shards": 2, "legacy": True, "shift": 2}}

    def test_the_same_answers(self):
        for name, how in self.FORMS.items():
            with self.subTest(name):
                model = self.path(f"same {name}")
                convert(self.model, model, **how)
                self.assertEqual(self.logits(model), self.reference)
                self.assertEqual(self.logits(model, "--rows", "2", "--threads", "3"), self.reference)
                plan = ("plan", model, "--json", "--disk", "1G", "--memory")
                little = json.loads(self.good(*plan, "1G"))["minimum_bytes"] + (2 << 20)
                self.assertGreater(json.loads(self.good(*plan, little))["streamed_bytes_per_pass"], 0)
                self.assertEqual(self.logits(model, memory=little), self.reference)

    def test_inspect(self):
        model = self.path("inspected")
        convert(self.model, model, shards=2)
        told = [json.loads(self.good("inspect", m, "--json")) for m in (self.model, model)]
        mine, its = ({t["name"]: t for t in x["tensors"]} for x in told)
        self.assertEqual(set(mine), set(its))
        for name, t in its.items():
            for key in ("role", "layer", "dtype", "shape", "bytes"):
                self.assertEqual(t[key], mine[name][key], name)
            self.assertRegex(t["file"], r"^pytorch_model-0000[12]-of-00002\.bin$")
        self.assertEqual(told[0]["axes"], told[1]["axes"])
        self.assertEqual(told[1]["source"], "huggingface")

    def test_pack(self):
        """The store is, to the byte, the one that safetensors give; the original goes when it is asked to."""
        self.good("pack", self.model, "-o", self.path("reference.store"))
        for name, how in self.FORMS.items():
            with self.subTest(name):
                model, store = self.path(f"packed {name}"), self.path(f"packed {name}.store")
                convert(self.model, model, **how)
                self.good("pack", model, "-o", store, "--delete-original")
                self.assertEqual([f for f in os.listdir(model) if f.endswith(".bin")], [])
                self.assertTrue(os.path.exists(os.path.join(model, "config.json")))
                self.good("verify", store)
                self.assertEqual(self.logits(store), self.reference)
                layers = os.path.join(store, "layers")
                for file in os.listdir(layers):
                    with open(os.path.join(layers, file), "rb") as a, \
                            open(os.path.join(self.path("reference.store"), "layers", file), "rb") as b:
                        self.assertEqual(a.read(), b.read(), file)

    def test_tied_weights(self):
        """Of one storage, under two names: the same as said by the configuration."""
        model = self.path("tied")
        shutil.copytree(self.model, model)
        os.remove(os.path.join(model, "model.safetensors"))
        state = read_safetensors(os.path.join(self.model, "model.safetensors"))
        embed = state["model.embed_tokens.weight"]
        state["lm_head.weight"] = embed
        save(os.path.join(model, "pytorch_model.bin"), state, tied={"lm_head.weight": "model.embed_tokens.weight"})
        two_names = self.logits(model)
        self.assertNotEqual(two_names, self.reference)
        del state["lm_head.weight"]
        save(os.path.join(model, "pytorch_model.bin"), state)
        with open(os.path.join(model, "config.json"), "w") as f:
            json.dump(tiny_model.CONFIG | {"tie_word_embeddings": True}, f)
        self.assertEqual(self.logits(model), two_names)

    def test_safetensors_come_first(self):
        model = self.path("both")
        convert(self.model, model, keep=True)
        with open(os.path.join(model, "pytorch_model.bin"), "wb") as f:
            f.write(b"not even a checkpoint")
        self.assertEqual(self.logits(model), self.reference)

    def test_interrupted_deleting_beside_another_form(self):
        """A folder with both forms, and a failure after the first is deleted: the same command finishes the store."""
        mute = self.path("mute")
        tiny_model.write(mute, with_tokenizer=False)  # whose failures are borne
        begun = whole = 0  # runs that failed between deleting and the manifest; runs in a row that did not fail
        for n in range(1, 3000, 3):
            model, store = self.path(f"fading{n}"), self.path(f"fading{n}.store")
            convert(mute, model, keep=True)
            pack = ("pack", model, "-o", store, "--delete-original")
            code, _, _ = self.run_lamina(*pack, "--faults", f"alloc={n}")
            whole = whole + 1 if code == 0 else 0
            if code and not os.path.exists(os.path.join(model, "model.safetensors")):
                if not os.path.exists(os.path.join(store, "manifest.json")):
                    begun += 1
                    self.good(*pack)
                self.good("verify", store)
                self.assertEqual(self.logits(store), self.reference)
                self.assertTrue(os.path.exists(os.path.join(model, "pytorch_model.bin")))
            shutil.rmtree(model)
            shutil.rmtree(store, ignore_errors=True)
            if whole == 3:
                break
        self.assertGreater(begun, 0)

    def test_a_pickle_that_would_run_something(self):
        model, proof = self.path("hostile"), self.path("proof")
        shutil.copytree(self.model, model)
        os.remove(os.path.join(model, "model.safetensors"))
        with zipfile.ZipFile(os.path.join(model, "pytorch_model.bin"), "w") as z:
            z.writestr("archive/data.pkl", b"\x80\x02cposix\nsystem\n" + text("touch " + proof) + b"\x85R.")
        code, _, err = self.run_lamina("inspect", model)
        self.assertEqual(code, 1)
        self.assertRegex(err, r"\Alamina: [^\n]+names posix\.system, which is not a part of a state dict\n\Z")
        self.assertFalse(os.path.exists(proof))


if __name__ == "__main__":
    unittest.main()

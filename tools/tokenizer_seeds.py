#!/usr/bin/env python3
"""Makes the seeds of tests/fuzz/corpus/tokenizer that are made of others, and the hostile ones. To be run again when the
compact form's version changes; test_format_hostile_tokenizer fails until then.

NAME.compact            the seed NAME, or the small model NAME of tests/data/tokenizer, in the compact form
compact_*, sp_*, ...    wrong on purpose: ids, counts and offsets outside, maps and steps that never end

Usage: tokenizer_seeds.py DRIVER
DRIVER: the program test_format_tokenizer. Needs gguf==0.19.0 sentencepiece==0.2.3."""
import json
import os
import struct
import subprocess
import sys
import tempfile

import tokenizer_gguf
from tokenizer_sp import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER, field

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests")
OUT = os.path.join(ROOT, "fuzz", "corpus", "tokenizer")
ROWS = [("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL), ("a", -1, NORMAL), ("\u2581", -2, NORMAL), ("\u2581a", -0.5, UNUSED),
        ("\u2581\u2581", 0, USER), ("aa", -3, NORMAL)] + [("<0x%02X>" % b, 0, BYTE) for b in range(256)]


def save(name, kind, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(kind + data)


def compact(driver, data, name="tokenizer.json"):
    """The compact form of a file's bytes; None: of the folder NAME in tests/data."""
    if data is None:
        return subprocess.check_output([driver, "--compact", os.path.join(ROOT, "data", "tokenizer", name)])
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
        return subprocess.check_output([driver, "--compact", folder])


def hostile_compact(good):
    """Header words beyond the vocabulary; counts beyond the file."""
    for name, at, value in (("kind", 12, 99), ("bos", 20, 2**21 - 2), ("unknown", 28, 1000), ("byte", 32, 2**31)):
        yield name, good[:at] + struct.pack("<I", value) + good[at + 4:]
    def offsets(at):  # whether a count and so many offsets stand here
        n, = struct.unpack_from("<I", good, at)
        words = struct.unpack_from("<%dI" % (n + 1), good, at + 4) if 3 < n < (len(good) - at) // 4 - 2 else [1]
        return words[0] == 0 and list(words) == sorted(set(words))
    at = next(i for i in range(len(good) - 8) if offsets(i))
    for name, value in (("ids_many", 2**21 - 1), ("ids_more", 2**32 - 1), ("ids_none", 0)):
        yield name, good[:at] + struct.pack("<I", value) + good[at + 4:]
    yield "offsets", good[:at + 8] + struct.pack("<I", 2**32 - 2) + good[at + 12:]
    yield "cut", good[:at + 20]


def charsmap(units, texts=b"x\0"):
    trie = struct.pack("<%dI" % len(units), *units)
    return struct.pack("<I", len(trie)) + trie + texts


def maps():
    """precompiled_charsmaps: unit = offset << 10 | has a leaf << 8 | byte."""
    loop = [0] * 256  # 'a' leads to where 'a' leads, for ever
    loop[0] = 1 << 10 | 1 << 9  # an offset of 256 and more would leave: see the next
    yield "map_away", charsmap(loop)
    loop[0] = 0
    loop[ord("a")] = ord("a") | 1 << 8
    yield "map_loop", charsmap(loop)
    yield "map_loop_all", charsmap([b | 1 << 8 for b in range(256)])
    yield "map_grows", charsmap([b | 1 << 8 for b in range(256)], b"aaaaaaaaaaaaaaaa" * 60 + b"\0")
    yield "map_too_long", charsmap([b | 1 << 8 for b in range(256)], b"a" * 4000 + b"\0")
    yield "map_spaces", charsmap([b | 1 << 8 for b in range(256)], b" " * 1000 + b"\0")
    yield "map_half", charsmap([b | 1 << 8 for b in range(256)], "\u00e9".encode() + b"\0")


def sentencepiece(kind, charsmap=b"", rows=ROWS):
    return (b"".join(field(1, field(1, t) + field(2, float(s)) + field(3, k)) for t, s, k in rows) +
            field(2, field(3, kind) + field(35, 1)) + field(3, field(2, charsmap) if charsmap else b""))


def steps(normalizers=None, splitters=None, decoders=None):
    data = {"decoder": {"type": "Sequence", "decoders": decoders or [{"type": "Fuse"}]},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [], "unk_token": "a"}}
    if normalizers:
        data["normalizer"] = {"type": "Sequence", "normalizers": normalizers}
    if splitters:
        data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": splitters}
    return json.dumps(data).encode()


def bombs():
    def put(find, content):
        return {"type": "Replace", "pattern": {"String": find}, "content": content}
    there_and_back = [put("a", "bb"), put("b", "aa")] * 16
    yield "grow", steps([put("o", "a")] + there_and_back[:31])
    yield "grow_at_once", steps([put("o", "l" * 9000), put("l", "o" * 9000)])
    yield "decode", steps(decoders=there_and_back)
    yield "decode_words", steps(decoders=there_and_back[:31] + [{"type": "Strip", "content": "a", "start": 1, "stop": 1}])
    cut = [{"type": "FixedLength", "length": 1}, {"type": "Metaspace", "replacement": "\u2581", "split": False}]
    yield "cut", steps(splitters=cut * 16)
    nested = {"type": "Fuse"}
    for _ in range(60):
        nested = {"type": "Sequence", "decoders": [nested]}
    yield "nested", steps(decoders=[nested])


def gguf_bytes(model):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.gguf")
        tokenizer_gguf.write_sentencepiece(model, path)
        with open(path, "rb") as f:
            return f.read()


def main():
    driver = os.path.abspath(sys.argv[1])
    for name in ("bytes", "pairs", "spm", "continuing", "metaspace", "wordpiece"):
        with open(os.path.join(OUT, name + ".json"), "rb") as f:
            data = f.read()
        save(name + ".compact", b"c", compact(driver, data[1:].split(b"\0")[0]))
    for name in ("glm4", "sp_bpe"):
        save(name + ".compact", b"c", compact(driver, None, name))
    unigram = sentencepiece(1, dict(maps())["map_half"])
    save("unigram.compact", b"c", compact(driver, unigram, "tokenizer.model"))
    with open(os.path.join(OUT, "pairs.compact"), "rb") as f:
        good = f.read()[1:]
    for name, data in hostile_compact(good):
        save("compact_" + name, b"c", data)
    for name, data in maps():
        save("sp_" + name, b"s", sentencepiece(1, data))
    save("sp_pairs_loop", b"s", sentencepiece(2, dict(maps())["map_loop_all"]))
    save("sp_users", b"s", sentencepiece(2, rows=ROWS + [("a" * n, 0, USER) for n in range(3, 200)]))
    save("sp_unused", b"s", sentencepiece(2, rows=ROWS + [("a" * n, n, UNUSED) for n in range(3, 200)]))
    for name, data in bombs():
        save("bomb_" + name, b"j", data)
    save("llama.gguf", b"g", gguf_bytes(sentencepiece(2)))
    save("t5.gguf", b"g", gguf_bytes(sentencepiece(1, dict(maps())["map_half"])))
    with open(os.path.join(ROOT, "data", "tokenizer", "tiny.gguf"), "rb") as f:
        save("tiny.gguf", b"g", f.read())
    save("vocabulary_wide", b"j", steps().replace(b'"b": 1', b'"b": 2097150'))
    save("vocabulary_wider", b"j", steps().replace(b'"b": 1', b'"b": 4294967296'))


main()

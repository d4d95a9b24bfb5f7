#!/usr/bin/env python3
"""Compares lamina's tokenizers with Hugging Face's, tiktoken or sentencepiece on generated texts: ids, and decoding with and without special tokens.

Usage: tokenizer_compare.py DRIVER [-n TEXTS] [--seed N] [--plain] [--variants FOLDER]
                            [--sentencepiece FOLDER] [--ranks FILE FOLDER]
                            [--original FOLDER...] [--gguf SHARED FOLDER] [--gguf-sentencepiece SHARED FOLDER] FOLDER...
DRIVER: the program test_format_tokenizer. FOLDER: with a tokenizer.json, ranks or sentencepiece's tokenizer.model.
Exit status 1 when anything differs. Needs tokenizers==0.23.3, tiktoken==0.14.0, sentencepiece==0.2.3 (gguf==0.19.0 for .gguf)."""
import argparse
import os
import struct
import subprocess
import sys
import threading

from tokenizers import Tokenizer

import tokenizer_gguf
import tokenizer_ranks
import tokenizer_sp
import tokenizer_texts
import tokenizer_variants


PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2_5": "qwen2", "deepseek_v3": "deepseek-v3", "mistral_nemo": "tekken"}
oracles = {}  # of what was written here


def write_gguf(shared, folder):
    """The folders of PRE as GGUF files, to be compared with what they were made of."""
    os.makedirs(folder, exist_ok=True)
    for name, pre in PRE.items():
        tk = Tokenizer.from_file(os.path.join(shared, name, "tokenizer.json"))
        path = os.path.join(folder, name + ".gguf")
        tokenizer_gguf.write(tk, path, pre, {"deepseek_v3": None, "mistral_nemo": "<s>"}.get(name))
        oracles[path] = tk
        yield path


def write_gguf_sentencepiece(shared, folder):
    """The sentencepiece models in SHARED, Gemma's made of its tokenizer.json, and small ones trained here, as GGUF."""
    os.makedirs(folder, exist_ok=True)
    models = {n: os.path.join(shared, n, "tokenizer.model") for n in sorted(os.listdir(shared)) if tokenizer_sp.is_model(os.path.join(shared, n))}
    models.update((n, os.path.join(tokenizer_sp.train(folder, n), "tokenizer.model")) for n in tokenizer_sp.SMALL if n != "sp_unigram_suffix")
    for name in ("gemma2", "gemma2_spaces"):
        models[name] = os.path.join(folder, name + ".model")
        with open(models[name], "wb") as f:
            f.write(tokenizer_sp.from_json(os.path.join(shared, "gemma2", "tokenizer.json")))
    for name, model in models.items():
        path = os.path.join(folder, name + ".gguf")
        with open(model, "rb") as f:
            tokenizer_gguf.write_sentencepiece(f.read(), path, name.endswith("_spaces"))
        oracles[path] = tokenizer_sp.Model(model, cut_user=True)
        yield path


def oracle(path):
    return oracles.get(path) or (tokenizer_sp if tokenizer_sp.is_model(path) else tokenizer_ranks).load(path)


def records(stream):
    """ids, decoded, decoded with special tokens, of each text."""
    def read(n):
        data = stream.read(n)
        assert len(data) == n, "the driver ended early"
        return data
    while True:
        n, = struct.unpack("=I", read(4))
        ids = list(struct.unpack("=%di" % n, read(4 * n)))
        texts = [read(struct.unpack("=I", read(4))[0]).decode() for _ in range(2)]
        yield ids, texts


def compare(driver, path, n, seed, plain):
    tk = oracle(path)
    tk.encode_special_tokens = plain
    specials = [a.content for a in tk.get_added_tokens_decoder().values()][:60]
    process = subprocess.Popen([driver, "--pipe", path, "3" if plain else "0"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)

    def feed():
        for t in tokenizer_texts.texts(seed, n, specials):
            data = t.encode()
            process.stdin.write(struct.pack("=I", len(data)) + data)
        process.stdin.close()

    threading.Thread(target=feed, daemon=True).start()
    wrong_ids = wrong_text = 0
    for t, (ids, texts) in zip(tokenizer_texts.texts(seed, n, specials), records(process.stdout)):
        want = tk.encode(t, add_special_tokens=not plain).ids
        if ids != want:
            wrong_ids += 1
            if wrong_ids <= 5:
                print("ids", ascii(t), ids, want, sep="\n  ")
            continue
        for keep, text in enumerate(texts):
            if (want := tk.decode(ids, skip_special_tokens=not keep)) is not None and text != want:
                wrong_text += 1
                if wrong_text <= 5:
                    print("text", ascii(t), ascii(text), ascii(want), sep="\n  ")
    process.wait()
    print("%s: %d texts%s, ids differ in %d, decoding in %d" % (path, n, " (plain)" if plain else "", wrong_ids, wrong_text),
          flush=True)
    return wrong_ids + wrong_text


def main():
    a = argparse.ArgumentParser()
    a.add_argument("driver")
    a.add_argument("folders", nargs="*")
    a.add_argument("--variants", default="", help="write the small tokenizers to this folder and compare them too")
    a.add_argument("--ranks", nargs=2, metavar=("FILE", "FOLDER"),
                   help="write folders of GLM-4's, Kimi's and Mistral's form with the ranks of FILE and compare them too")
    a.add_argument("--gguf", nargs=2, metavar=("SHARED", "FOLDER"),
                   help="write GGUF vocabularies of the tokenizers in SHARED and compare them too")
    a.add_argument("--sentencepiece", default="", help="train small models into this folder and compare them too")
    a.add_argument("--gguf-sentencepiece", nargs=2, metavar=("SHARED", "FOLDER"),
                   help="the same of the sentencepiece models in SHARED, Gemma's rebuilt, and of small ones")
    a.add_argument("--original", nargs="+", default=[], metavar="FOLDER",
                   help="folders with a vocabulary, tokenizer_config.json and the code that it names, or one of transformers' classes")
    a.add_argument("-n", type=int, default=100000)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--plain", action="store_true")
    a = a.parse_args()
    if a.variants:
        for name, tk in tokenizer_variants.variants():
            a.folders.append(os.path.join(a.variants, name))
            os.makedirs(a.folders[-1], exist_ok=True)
            tk.save(a.folders[-1] + "/tokenizer.json")
    if a.sentencepiece:
        a.folders += [tokenizer_sp.train(a.sentencepiece, name) for name in tokenizer_sp.SMALL]
    if a.gguf:
        a.folders += write_gguf(*a.gguf)
    if a.gguf_sentencepiece:
        a.folders += write_gguf_sentencepiece(*a.gguf_sentencepiece)
    for folder in a.original:
        import tokenizer_original
        oracles[folder] = tokenizer_original.Original(folder)
        a.folders.append(folder)
    if a.ranks:
        ranks = tokenizer_ranks.read_ranks(a.ranks[0])
        a.folders += tokenizer_ranks.write(a.ranks[1], ranks)
    sys.exit(1 if sum(compare(a.driver, f, a.n, a.seed, a.plain) for f in a.folders) else 0)


main()

#!/usr/bin/env python3
"""lamina's tokenizers beside Hugging Face's, tiktoken or sentencepiece on one thread: a text of a third English, a third code and a third Chinese,
Japanese and Korean, whole and, for Hugging Face's, also in parts of 4 KiB (its better figure counts).

Usage: compare_tokenizers.py RATE FOLDER... [--megabytes N] [--rounds N]
RATE: the program build/tokenize_rate. Runs alternate; each figure is the least of them. Needs tokenizers==0.23.3
tiktoken==0.14.0 sentencepiece==0.2.3."""
import os
os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
import argparse
import glob
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import tokenizer_ranks
import tokenizer_sp

CJK = ("\u4eba\u5de5\u667a\u80fd \u6a21\u578b \u7684 \u662f \u5728 \u6211\u4eec \u53ef\u4ee5 \u4f7f\u7528 \u6570\u636e "
       "\u8ba1\u7b97\u673a \u7cfb\u7edf \u4e2d\u56fd \u4e16\u754c \u6587\u5b57 \u5b66\u4e60 \u8bed\u8a00 \u7814\u7a76 "
       "\u4e00\u4e2a \u8fd9\u79cd \u65b9\u6cd5 \uff0c \u3002 \u65e5\u672c\u8a9e \u6771\u4eac \u3067\u3059 \u307e\u3059 "
       "\u3053\u306e \u30c7\u30fc\u30bf \u30b7\u30b9\u30c6\u30e0 \u6027\u80fd \u5411\u4e0a \u3001 \ud55c\uad6d\uc5b4 "
       "\uc548\ub155\ud558\uc138\uc694 \uc2dc\uc2a4\ud15c \ubaa8\ub378 \ud559\uc2b5 \uadf8\ub9ac\uace0 .").split()


def files(pattern, need):
    parts, size = [], 0
    paths = sorted(glob.glob(os.path.join(sysconfig.get_paths()["purelib"], pattern), recursive=True))
    paths += sorted(glob.glob(os.path.join(sysconfig.get_paths()["stdlib"], pattern), recursive=True))
    while size < need and paths:
        for path in paths:
            with open(path, encoding="utf-8", errors="ignore") as f:
                parts.append(f.read(60000))
            size += len(parts[-1].encode())
            if size >= need:
                break
    return parts


def make_text(size):
    rng = random.Random(1)
    third = size // 3
    parts = files("**/METADATA", third) + files("**/*.py", third)
    east = 0
    while east < third:  # sentences of common words and a sprinkling of rare characters
        words = [rng.choice(CJK) if rng.random() < 0.8 else chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(400)]
        parts.append("".join(words) + "\n")
        east += len(parts[-1].encode())
    rng.shuffle(parts)
    return "".join(parts)


def theirs(tk, text):
    begin = time.perf_counter()
    tk.encode(text)
    whole = time.perf_counter() - begin
    parts = [text[i:i + 4096] for i in range(0, len(text), 4096)]
    begin = time.perf_counter()
    for part in parts:
        tk.encode(part)
    return min(whole, time.perf_counter() - begin)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("rate")
    a.add_argument("folders", nargs="+")
    a.add_argument("--megabytes", type=float, default=10)
    a.add_argument("--rounds", type=int, default=3)
    a = a.parse_args()
    text = make_text(int(a.megabytes * 1e6))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as f:
        f.write(text)
        f.flush()
        for folder in a.folders:
            tk = (tokenizer_sp if tokenizer_sp.is_model(folder) else tokenizer_ranks).load(folder)
            best = their_best = load = 1e9
            for _ in range(a.rounds):
                their_best = min(their_best, theirs(tk, text))
                ours = json.loads(subprocess.check_output([a.rate, folder, f.name, "2"]))
                best, load = min(best, ours["encode_seconds"]), min(load, ours["load_seconds"])
            ids = tk.encode(text).ids
            h = 0xCBF29CE484222325
            for i in ids:
                h = (h ^ i) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
            same = "the same ids" if "%016x" % h == ours["hash"] else "IDS DIFFER"
            print("%-16s ours %.1f MB/s, theirs %.1f MB/s: %.2f times; %s; loading %.1f MB: %.1f ms" % (
                os.path.basename(folder.rstrip("/")), ours["bytes"] / best / 1e6, ours["bytes"] / their_best / 1e6,
                their_best / best, same, ours["compact_bytes"] / 1e6, load * 1e3), flush=True)
            if same != "the same ids":
                sys.exit(1)


main()

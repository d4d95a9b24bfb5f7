#!/usr/bin/env python3
"""Makes tests/data/tokenizer: what Hugging Face's tokenizers answers, for the tests to compare with.

tiny.json, tiny.gguf    a byte-level BPE trained here, with added tokens of every flag, NFC and a template
spm.json                a SentencePiece-like BPE (Prepend, Replace, byte fallback)
wordpiece.json ...      small tokenizers of other steps (tokenizer_variants.py)
glm4/ kimi/ tekken/     files of ranks: the first 600 of QWen 1
sp_bpe/ ...            small sentencepiece models (tokenizer_sp.py); unigram.json: one of them for Hugging Face
gguf_llama.gguf ...     two of them as GGUF vocabularies
texts.jsonl             texts, a JSON string a line
NAME.ids                a line per text: ids with template, ids of plain text without template (LAMINA_PLAIN |
                        LAMINA_NO_SPECIAL), FNV-1a of the decoded text without and with special tokens
bytes.jsonl             hexadecimal bytes that are not UTF-8, and the ids of what Python decodes them to (tiny)

Usage: tokenizer_golden.py [FOLDER of tokenizers, default ../shared/tokenizers]
Needs tokenizers==0.23.3 gguf==0.19.0 tiktoken==0.14.0 sentencepiece==0.2.3."""
import json
import os
import random
import sys
import tempfile

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_gguf
import tokenizer_ranks
import tokenizer_sp
import tokenizer_texts
import tokenizer_variants

OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "data", "tokenizer")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
SPECIALS = ["<s>", "</s>", "<|left|>", "<|right|>", "<|both|>", "word", "Norm\u00e9", "Norme\u0301", "<|plain|>", "<s", "<|pla"]
REAL = ["gpt2", "llama3", "qwen2_5", "deepseek_v3", "mistral_nemo", "mistral_v1_json", "yi", "gemma2", "internlm2",
        "baichuan2", "chatglm3", "qwen1", "llama3_tiktoken"]
SENTENCEPIECE = ["sp_bpe", "sp_bpe_bare", "sp_bpe_user", "sp_unigram"]
GGUF = {"gguf_llama": "sp_bpe_user", "gguf_t5": "sp_unigram_bare"}
REAL_SENTENCEPIECE = ["llama2", "mistral_v1", "mistral_v3", "internlm1"]
VARIANTS = ["wordpiece", "metaspace_first", "metaspace_bytes", "affixes", "byte_normalizer", "wordlevel_punctuation"]


def corpus(seed):
    rng = random.Random(seed)
    for _ in range(4000):
        yield " ".join(rng.choice(tokenizer_texts.WORDS) for _ in range(12))
    for code in tokenizer_texts.CODE:
        yield code


def tiny():
    tk = Tokenizer(models.BPE())
    tk.normalizer = normalizers.NFC()
    tk.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tk.decoder = decoders.ByteLevel()
    tk.train_from_iterator(corpus(1), trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tk.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("</s>", normalized=False),
                           AddedToken("<|left|>", lstrip=True, normalized=False),
                           AddedToken("<|right|>", rstrip=True, normalized=False),
                           AddedToken("<|both|>", lstrip=True, rstrip=True)])
    tk.add_tokens([AddedToken("word", single_word=True), AddedToken("Norm\u00e9"),
                   AddedToken("<|plain|>", normalized=False), AddedToken("  \n", normalized=False)])
    bos, eos = tk.token_to_id("<s>"), tk.token_to_id("</s>")
    tk.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", bos), ("</s>", eos)])
    return tk


def smollm(tk):
    """The tiny vocabulary as GGUF's pre "smollm" means it."""
    data = json.loads(tk.to_str())
    data["normalizer"] = data["post_processor"] = None
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
    for a in data["added_tokens"]:
        a.update(lstrip=False, rstrip=False, single_word=False, normalized=False)
    return Tokenizer.from_str(json.dumps(data))


def spm():
    tk = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tk.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tk.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                    decoders.Strip(" ", 1, 0)])
    words = [w for w in tokenizer_texts.WORDS if w.isascii()]
    rng = random.Random(2)
    text = [" ".join(rng.choice(words) for _ in range(6)) for _ in range(2000)]
    # every byte token but one: characters that need it are unknown
    tk.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=500, show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256) if b != 0xE2]))
    data = json.loads(tk.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    tk = Tokenizer.from_str(json.dumps(data))
    tk.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tk


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def golden(tk, name, texts):
    with open(os.path.join(OUT, name + ".ids"), "w") as f:
        for t in texts:
            tk.encode_special_tokens = False
            ids = tk.encode(t).ids
            tk.encode_special_tokens = True
            plain = tk.encode(t, add_special_tokens=False).ids
            line = {"ids": ids, "plain": plain, "skip": fnv(tk.decode(ids))}
            keep = tk.decode(ids, skip_special_tokens=False)
            if keep is not None:
                line["keep"] = fnv(keep)
            f.write(json.dumps(line, separators=(",", ":")) + "\n")


def sentencepiece(texts):
    for name in SENTENCEPIECE:
        golden(tokenizer_sp.load(tokenizer_sp.train(OUT, name)), name, texts)
    for name, model in GGUF.items():
        path = tokenizer_sp.train(tempfile.gettempdir(), model) + "/tokenizer.model"
        with open(path, "rb") as f:
            tokenizer_gguf.write_sentencepiece(f.read(), os.path.join(OUT, name + ".gguf"))
        golden(tokenizer_sp.Model(path, cut_user=True), name, texts)
    tk = tokenizer_sp.unigram(tokenizer_sp.load(os.path.join(OUT, "sp_unigram")))
    tk.save(os.path.join(OUT, "unigram.json"), pretty=False)
    golden(tk, "unigram", texts)


def main():
    shared = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../../shared/tokenizers")
    os.makedirs(OUT, exist_ok=True)
    texts = list(tokenizer_texts.texts(11, 400, SPECIALS + ["<|endoftext|>", "<|im_start|>", "<bos>", "[INST]"]))
    short = [t for t in texts if len(t) < 200][:250]
    with open(os.path.join(OUT, "texts.jsonl"), "w") as f:
        f.writelines(json.dumps(t) + "\n" for t in short)
    t = tiny()
    t.save(os.path.join(OUT, "tiny.json"), pretty=False)
    golden(t, "tiny", short)
    tokenizer_gguf.write(t, os.path.join(OUT, "tiny.gguf"), "smollm", "<s>", "</s>", "{{ messages }}")
    golden(smollm(t), "tiny_gguf", short)
    s = spm()
    s.save(os.path.join(OUT, "spm.json"), pretty=False)
    golden(s, "spm", short)
    for name, v in tokenizer_variants.variants():
        if name in VARIANTS:
            v.save(os.path.join(OUT, name + ".json"), pretty=False)
            golden(v, name, short)
    ranks = {t: r for t, r in tokenizer_ranks.read_ranks(os.path.join(shared, "qwen1/qwen.tiktoken")).items() if r < 600}
    for path in tokenizer_ranks.write(OUT, ranks):
        golden(tokenizer_ranks.load(path), os.path.basename(path), short)
    sentencepiece(short)
    rng = random.Random(5)
    with open(os.path.join(OUT, "bytes.jsonl"), "w") as f:
        for _ in range(100):
            raw = b"".join(rng.choice([b"a", b" ", b"\xff", b"\xe2\x82", b"\xf0\x9f", b"\x80", "é".encode(), b"\xed\xa0\x80",
                                       b"\xc0\xaf", b"\xf4\x90", "日".encode(), b"\xe0\x9f", b"\n"]) for _ in range(12))
            t.encode_special_tokens = False
            f.write(json.dumps({"hex": raw.hex(), "ids": t.encode(raw.decode(errors="replace")).ids}) + "\n")
    for name in REAL:
        if os.path.isdir(os.path.join(shared, name)):
            golden(tokenizer_ranks.load(os.path.join(shared, name)), name, short[:120])
    for name in REAL_SENTENCEPIECE:
        if os.path.isdir(os.path.join(shared, name)):
            golden(tokenizer_sp.load(os.path.join(shared, name)), name, short[:120])


main()

"""The oracle of a folder: tokenizers with what tokenizer_config.json adds, as transformers adds it, or tiktoken where
there is no tokenizer.json. And folders of families whose files are not at hand: the
same ranks under other names. The patterns and special tokens are those of each family's published tokenization code."""
import base64
import json
import os
import unicodedata

import tiktoken
from tokenizers import AddedToken, Tokenizer

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
KIMI = "|".join([r"[\p{Han}]+", r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + r"+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                 r"[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + r"*(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}",
                 r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
GLM4 = ("<|endoftext|> [MASK] [gMASK] [sMASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|> "
        "<|begin_of_image|> <|end_of_image|> <|begin_of_video|> <|end_of_video|>").split()
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
          r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")


class Added:
    def __init__(self, content):
        self.content = content


class Ranks:
    """As much of a tokenizers.Tokenizer as tokenizer_compare.py asks for."""
    encode_special_tokens = False

    def __init__(self, pattern, ranks, special, before=(), nfc=False):
        self.special, self.before, self.nfc = special, [special[b] for b in before], nfc
        self.encoding = tiktoken.Encoding("ranks", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)

    def get_added_tokens_decoder(self):
        return {i: Added(t) for t, i in self.special.items()}

    def encode(self, text, add_special_tokens=True):
        text = unicodedata.normalize("NFC", text) if self.nfc else text
        allowed = set() if self.encode_special_tokens else "all"
        self.ids = self.encoding.encode(text, allowed_special=allowed, disallowed_special=())
        self.ids = (self.before if add_special_tokens else []) + self.ids
        return self

    def decode(self, ids, skip_special_tokens=True):
        drop = set(self.special.values()) if skip_special_tokens else set()
        return self.encoding.decode([i for i in ids if i not in drop], errors="replace")


def read_ranks(path):
    with open(path, "rb") as f:
        return {base64.b64decode(t): int(r) for t, r in (line.split() for line in f if line.strip())}


def numbered(names, first):
    return {t: first + i for i, t in enumerate(names)}


def with_config(tk, path):
    """A token's flags and id are those of the configuration; named tokens are special. As transformers 5 does, but that
    new tokens are not numbered anew, and that one absent from vocabulary and list is left out."""
    config = json.load(open(path))
    listed = config.get("added_tokens_decoder", {})
    new = {int(i): t["content"] for i, t in listed.items() if tk.token_to_id(t["content"]) is None}
    if new:
        data = json.loads(tk.to_str())
        vocab = {p: i for p, i in data["model"]["vocab"].items() if i not in new}
        data["model"]["vocab"] = dict(vocab, **{p: i for i, p in new.items()})
        tk = Tokenizer.from_str(json.dumps(data))
    tk.add_tokens([AddedToken(**listed[i]) for i in sorted(listed, key=int)])
    named = [config.get(k + "_token") for k in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
    named += config.get("additional_special_tokens") or []
    there = {a.content for a in tk.get_added_tokens_decoder().values()}
    for token in named:
        token = {k: v for k, v in token.items() if k != "__type"} if isinstance(token, dict) else {"content": token}
        if token["content"] in there or token["content"] is None or tk.token_to_id(token["content"]) is None:
            continue
        there.add(token["content"])
        tk.add_tokens([AddedToken(**dict(token, special=True, normalized=token.get("normalized", False)))])
    return tk


def load(folder):
    """The oracle of a folder."""
    def there(name):
        path = os.path.join(folder, name)
        return path if os.path.exists(path) else None

    if there("tokenizer.json"):
        tk = Tokenizer.from_file(there("tokenizer.json"))
        return with_config(tk, there("tokenizer_config.json")) if there("tokenizer_config.json") else tk
    if there("qwen.tiktoken"):
        ranks = read_ranks(there("qwen.tiktoken"))
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + ["<|extra_%d|>" % i for i in range(205)]
        return Ranks(QWEN, ranks, numbered(names, len(ranks)), nfc=True)
    if there("tiktoken.model"):
        ranks = read_ranks(there("tiktoken.model"))
        n = len(ranks)
        listed = json.load(open(there("tokenizer_config.json")))["added_tokens_decoder"]
        names = [listed.get(str(i), {}).get("content", "<|reserved_token_%d|>" % i) for i in range(n, n + 258)]
        return Ranks(KIMI, ranks, numbered(names, n))
    if there("tekken.json"):
        data = json.load(open(there("tekken.json")))
        config = data["config"]
        n = config["default_num_special_tokens"]
        ranks = {base64.b64decode(v["token_bytes"]): v["rank"] + n for v in data["vocab"]
                 if v["rank"] + n < config["default_vocab_size"]}
        names = {v["token_str"]: v["rank"] for v in data["special_tokens"]}
        names.update({"<SPECIAL_%d>" % i: i for i in range(n) if i not in names.values()})
        return Ranks(config["pattern"], ranks, names, before=["<s>"])
    ranks = read_ranks(there("tokenizer.model"))
    if there("tokenizer_config.json"):
        return Ranks(LLAMA3, ranks, numbered(GLM4, len(ranks)), before=["[gMASK]", "<sop>"])
    names = ["<|begin_of_text|>", "<|end_of_text|>"] + ["<|reserved_special_token_%d|>" % i for i in range(4)]
    names += ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
    names += ["<|reserved_special_token_%d|>" % i for i in range(5, 251)]
    return Ranks(LLAMA3, ranks, numbered(names, len(ranks)), before=["<|begin_of_text|>"])


def write(folder, ranks):
    """Folders of GLM-4's, Kimi K2's and Mistral's form with these ranks; yields them."""
    n = len(ranks)
    lines = b"".join(base64.b64encode(t) + b" %d\n" % r for t, r in sorted(ranks.items(), key=lambda x: x[1]))

    def new(name, file, data, config=None):
        path = os.path.join(folder, name)
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, file), "wb") as f:
            f.write(data)
        if config:
            with open(os.path.join(path, "tokenizer_config.json"), "w") as f:
                json.dump(config, f)
        return path

    def listed(tokens):
        return {str(i): dict(content=t, lstrip=False, rstrip=False, normalized=False, single_word=False, special=True)
                for t, i in tokens.items()}

    yield new("glm4", "tokenizer.model", lines, {"tokenizer_class": "ChatGLM4Tokenizer", "eos_token": "<|endoftext|>",
                                                 "added_tokens_decoder": listed(numbered(GLM4, n))})
    kimi = {"[BOS]": n, "[EOS]": n + 1, "<|im_end|>": n + 2, "<|im_user|>": n + 3, "<|im_system|>": n + 10, "[PAD]": n + 255}
    yield new("kimi", "tiktoken.model", lines, {"tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]",
                                                "added_tokens_decoder": listed(kimi)})
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"]
    yield new("tekken", "tekken.json", json.dumps({
        "config": {"pattern": TEKKEN, "num_vocab_tokens": n, "default_vocab_size": n + 90, "version": "v7",
                   "default_num_special_tokens": 100},
        "vocab": [{"rank": r, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for t, r in ranks.items()],
        "special_tokens": [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(special)]}).encode())

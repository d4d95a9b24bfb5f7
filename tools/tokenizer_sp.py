"""sentencepiece's answers in the form of Hugging Face's tokenizers, for tools/tokenizer_compare.py; small models of its
kinds. Needs sentencepiece==0.2.3."""
import io
import os
import random
import re
import struct

import sentencepiece

import tokenizer_texts


NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # a piece's type


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7f) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """number, value of each field of a protobuf message: an integer, or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at:at + size], at + size
        yield key >> 3, value


def field(number, value):
    """One field, for models made here. value: an integer, a float, bytes or text."""
    def number_bytes(n):
        out = b""
        while n >= 0x80:
            out, n = out + bytes([n & 0x7f | 0x80]), n >> 7
        return out + bytes([n])
    if isinstance(value, int):
        return number_bytes(number << 3) + number_bytes(value)
    if isinstance(value, float):
        return number_bytes(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return number_bytes(number << 3 | 2) + number_bytes(len(value)) + value


def pieces(data):
    """text, score, type of each piece of a model file."""
    for number, value in fields(data):
        if number == 1:
            f = dict(fields(value))
            yield f[1].decode(), struct.unpack("<f", f.get(2, bytes(4)))[0], f.get(3, NORMAL)


def from_json(path, prefix=0, bos="<bos>", eos="<eos>"):
    """A converted tokenizer.json as the sentencepiece model that it was made from, as far as that goes: a piece's score is
    its place, pieces that no merge makes are user-defined."""
    import json
    with open(path) as f:
        data = json.load(f)
    vocab = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    added = {a["content"]: a["special"] for a in data["added_tokens"]}
    merges = [m if isinstance(m, list) else m.split(" ") for m in data["model"]["merges"]]
    made = {left + right for left, right in merges}
    tab = "<0x09>" not in vocab  # transformers' converter of Gemma put the character in its place
    rows = []
    for i, text in enumerate(vocab):
        text = "<0x09>" if text == "\t" and tab else text
        kind = (UNKNOWN if text == "<unk>" else BYTE if re.fullmatch("<0x[0-9A-F]{2}>", text) else
                CONTROL if added.get(text) or text in (bos, eos) else
                USER if text in added or (len(text) > 1 and text not in made) else NORMAL)
        rows.append((text, -float(i) if kind == NORMAL else 0.0, kind))
    return (b"".join(field(1, field(1, t) + field(2, s) + field(3, k)) for t, s, k in rows) +
            field(2, field(3, 2) + field(35, 1) + field(46, bos) + field(47, eos)) + field(3, field(3, prefix) + field(4, 0)))


class Model:
    """A tokenizer.model as transformers' LlamaTokenizer uses it: BOS first, control pieces cut out of the raw text.
    cut_user: user-defined pieces as well, as GGUF's readers do."""

    def __init__(self, path, cut_user=False):
        with open(path, "rb") as f:
            data = f.read()
        self.sp = sentencepiece.SentencePieceProcessor(model_proto=data)
        kinds = [CONTROL, USER] if cut_user else [CONTROL]
        self.control = {t: i for i, (t, _, kind) in enumerate(pieces(data)) if kind in kinds and "\u2581" not in t}
        self.special = {t for t, i in self.control.items() if self.sp.is_control(i)}
        longest_first = sorted(self.control, key=len, reverse=True)
        self.split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if self.control else re.compile("(?!)()")
        self.encode_special_tokens = False
        self.ids = []

    def get_added_tokens_decoder(self):
        class Token:
            def __init__(self, content):
                self.content = content
        return {i: Token(p) for p, i in self.control.items()}

    def encode(self, text, add_special_tokens=True):
        class Result:
            pass
        r = Result()
        bos = self.sp.bos_id()
        r.ids = [bos] if add_special_tokens and bos >= 0 else []
        parts = self.split.split(text)
        if self.encode_special_tokens and self.special:
            parts = self.plain(parts)
        for i, part in enumerate(parts):
            r.ids += [self.control[part]] if i % 2 else self.sp.encode(part) if part else []
        return r

    def plain(self, parts):
        """The same, special tokens being text."""
        out = [parts[0]]
        for token, part in zip(parts[1::2], parts[2::2]):
            if token in self.special:
                out[-1] += token + part
            else:
                out += [token, part]
        return out

    def decode(self, ids, skip_special_tokens=True):
        """None: sentencepiece does not spell control pieces."""
        if not skip_special_tokens and any(self.sp.is_control(i) for i in ids):
            return None
        return self.sp.decode(ids)


def load(folder):
    return Model(os.path.join(folder, "tokenizer.model"))


def is_model(path):
    """A folder with a sentencepiece model as its only tokenizer."""
    name = os.path.join(path, "tokenizer.model")
    if not os.path.isfile(name) or os.path.exists(os.path.join(path, "tokenizer.json")):
        return False
    with open(name, "rb") as f:
        return not re.match(rb"[A-Za-z0-9+/=]+ \d+\n", f.read(200))


def unigram(model):
    """The pieces and the map of a unigram tokenizer.model as a tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    sp = model.sp
    tk = Tokenizer(models.Unigram([(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.get_piece_size())], sp.unk_id(), False))
    spec = dict(fields(dict(fields(sp.serialized_model_proto()))[3]))
    tk.normalizer = normalizers.Precompiled(spec[2])
    tk.pre_tokenizer = pre_tokenizers.Metaspace()
    tk.decoder = decoders.Metaspace()
    return tk


BYTES = dict(byte_fallback=True, character_coverage=0.98)
SMALL = {
    "sp_bpe": dict(model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False, **BYTES),
    "sp_bpe_user": dict(model_type="bpe", user_defined_symbols=["<user>", "don't", "==", "\u2581\u2581", "ab"],
                        control_symbols=["<ctl>"], normalization_rule_name="identity"),
    "sp_bpe_bare": dict(model_type="bpe", add_dummy_prefix=False, normalization_rule_name="identity",
                        remove_extra_whitespaces=False, split_by_whitespace=False, **BYTES),
    "sp_unigram": dict(model_type="unigram", normalization_rule_name="nmt_nfkc"),
    "sp_unigram_bare": dict(model_type="unigram", user_defined_symbols=["<user>", "don't", "==", "ab", "the the"],
                            normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False, **BYTES),
    "sp_unigram_user": dict(model_type="unigram", user_defined_symbols=["<user>", "don't", "==", "ab", "the the"],
                            normalization_rule_name="nfkc_cf", **BYTES),
    "sp_unigram_suffix": dict(model_type="unigram", treat_whitespace_as_suffix=True, unk_surface="[?]",
                              normalization_rule_name="nfkc"),
}


def train(folder, name):
    """Writes a small model to folder/name/tokenizer.model."""
    rng = random.Random(9)
    lines = [" ".join(rng.choice(tokenizer_texts.WORDS) for _ in range(12)) for _ in range(1500)] + tokenizer_texts.CODE
    out = io.BytesIO()
    options = dict(vocab_size=700 if SMALL[name].get("byte_fallback") else 640, num_threads=1, minloglevel=2, hard_vocab_limit=False)
    if SMALL[name]["model_type"] == "bpe":
        options.pop("hard_vocab_limit")
    options.update(SMALL[name])
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, **options)
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    with open(os.path.join(folder, name, "tokenizer.model"), "wb") as f:
        f.write(out.getvalue())
    return os.path.join(folder, name)

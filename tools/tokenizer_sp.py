"""sentencepiece's answers in the form of Hugging Face's tokenizers, for tools/tokenizer_compare.py; small models of its
kinds. Needs sentencepiece==0.2.3."""
import io
import os
import random
import re

import sentencepiece

import tokenizer_texts


class Model:
    """A tokenizer.model as transformers' LlamaTokenizer uses it: BOS first, control pieces cut out of the raw text."""

    def __init__(self, path):
        self.sp = sentencepiece.SentencePieceProcessor(model_file=path)
        ids = range(self.sp.get_piece_size())
        self.control = {self.sp.id_to_piece(i): i for i in ids if self.sp.is_control(i)}
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
        parts = [text] if self.encode_special_tokens else self.split.split(text)
        for i, part in enumerate(parts):
            r.ids += [self.control[part]] if i % 2 else self.sp.encode(part) if part else []
        return r

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
    data = sp.serialized_model_proto()
    at = data.rindex(b"nmt_nfkc") + 8  # of normalizer_spec: name, then the map as field 2
    assert data[at] == 0x12
    size = shift = 0
    while True:
        at += 1
        size |= (data[at] & 0x7f) << shift
        shift += 7
        if data[at] < 0x80:
            break
    tk.normalizer = normalizers.Precompiled(data[at + 1:at + 1 + size])
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

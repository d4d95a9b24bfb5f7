"""Small tokenizers that between them use every model, normalizer, pre-tokenizer, post-processor and decoder."""
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_texts

BERT = normalizers.BertNormalizer
META = "\u2581"


def corpus(seed):
    rng = random.Random(seed)
    for _ in range(1500):
        yield " ".join(rng.choice(tokenizer_texts.WORDS) for _ in range(10))
    for code in tokenizer_texts.CODE:
        yield code


def make(kind, normalizer, splitter, decoder, special=(), **options):
    """A tokenizer trained here, with three added tokens. special: extra words of the vocabulary."""
    train = dict(vocab_size=600, show_progress=False, special_tokens=["[UNK]", "[CLS]", "[SEP]"] + list(special))
    if kind == "WordPiece":
        tk, trainer = Tokenizer(models.WordPiece(unk_token="[UNK]", **options)), trainers.WordPieceTrainer(**train)
    elif kind == "WordLevel":
        tk, trainer = Tokenizer(models.WordLevel(unk_token="[UNK]", **options)), trainers.WordLevelTrainer(**train)
    else:
        affixes = {k: options[k] for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in options}
        tk, trainer = Tokenizer(models.BPE(unk_token="[UNK]", **options)), trainers.BpeTrainer(**train, **affixes)
    tk.normalizer, tk.pre_tokenizer = normalizer, splitter
    tk.train_from_iterator(corpus(3), trainer)
    data = json.loads(tk.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    tk = Tokenizer.from_str(json.dumps(data))
    if decoder is not None:
        tk.decoder = decoder
    tk.add_tokens([AddedToken("word", single_word=True), AddedToken("Caf\u00e9", normalized=True)])
    tk.post_processor = processors.BertProcessing(("[SEP]", tk.token_to_id("[SEP]")), ("[CLS]", tk.token_to_id("[CLS]")))
    return tk


def variants():
    """(name, tokenizer)."""
    sequence, split = pre_tokenizers.Sequence, pre_tokenizers.Split
    bert, words = pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace()
    byte_tokens = ["<0x%02X>" % b for b in range(256)]
    spaced = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(META, "always")])
    yield "wordpiece", make("WordPiece", BERT(), bert, decoders.WordPiece())
    yield "wordpiece_cased", make("WordPiece", BERT(lowercase=False), bert, decoders.WordPiece(cleanup=False),
                                  max_input_chars_per_word=7)
    yield "wordpiece_accents", make("WordPiece", BERT(clean_text=False, handle_chinese_chars=False, strip_accents=True,
                                                      lowercase=False), words, decoders.WordPiece())
    yield "wordlevel", make("WordLevel", normalizers.Lowercase(), words, None)
    yield "wordlevel_punctuation", make("WordLevel", normalizers.NFKC(), sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_next")]), None)
    for scheme in ("always", "first", "never"):
        for whole in (True, False):
            yield "metaspace_%s%s" % (scheme, "" if whole else "_whole"), make(
                "BPE", None, pre_tokenizers.Metaspace(META, scheme, whole), decoders.Metaspace(META, scheme, whole))
    yield "metaspace_words", make("BPE", normalizers.Strip(left=False), sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.Metaspace(META, "first")]), decoders.Metaspace(META, "first"))
    yield "metaspace_bytes", make("BPE", normalizers.NFKC(), pre_tokenizers.Metaspace(META, "always"), spaced,
                                  special=byte_tokens, byte_fallback=True, fuse_unk=True)
    yield "affixes", make("BPE", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), words,
                          decoders.BPEDecoder("</w>"), continuing_subword_prefix="##", end_of_word_suffix="</w>")
    yield "word_end", make("BPE", normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit(),
                           decoders.BPEDecoder("</w>"), end_of_word_suffix="</w>", fuse_unk=True)
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            yield "split_%s%s" % (behavior, "_inverted" if invert else ""), make(
                "BPE", None, sequence([split(Regex(r"\w+|[.,!?]"), behavior, invert),
                                       pre_tokenizers.Punctuation(behavior), pre_tokenizers.Digits(False)]), None)
    yield "delimiter", make("BPE", normalizers.Nmt(), pre_tokenizers.CharDelimiterSplit("e"), decoders.Fuse())
    yield "length", make("BPE", normalizers.Replace(Regex("[aeiou]+"), "_"), pre_tokenizers.FixedLength(3),
                         decoders.Sequence([decoders.Strip("_", 0, 1), decoders.Replace("h", "HH")]))
    yield "literal", make("BPE", normalizers.Replace("e", "\u00e9"), split("th", "isolated"), decoders.Fuse(),
                          ignore_merges=True)
    yield "nfkd", make("BPE", normalizers.Sequence([normalizers.NFKD(), normalizers.Prepend("x")]), words, None,
                       fuse_unk=True)
    tk = make("BPE", normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()]),
              split(Regex("\u0120?[A-Za-z]+|\u0120+"), "isolated"), decoders.ByteLevel())
    yield "byte_normalizer", tk
    tk = make("BPE", None, pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel())
    tk.post_processor = processors.Sequence([processors.ByteLevel(), processors.RobertaProcessing(
        ("[SEP]", 2), ("[CLS]", 1))])
    yield "roberta", tk

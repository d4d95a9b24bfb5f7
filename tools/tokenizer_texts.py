"""Texts that tokenizers disagree about, generated from a seed: words of many scripts, emoji, combining marks, runs of
white space, code, digits, control characters, spellings of special tokens, long repetitions."""
import random

WORDS = ("the of and to in that was he it's don't I'LL you've we'RE they'd o'clock hello world Tokenizer GPT-4 x86_64 "
         "naïve café Ünïcödé straße ΑΒΓ αβγδ Привет мир שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดี 你好世界 こんにちは カタカナ 안녕하세요 "
         "ÅÄÖ ﬁnance ﬀ ſtraße İstanbul ıI ŉ ǅ ǆ ʼn 𝔘𝔫𝔦 ℌ № ½ ² ³ Ⅷ ⅷ ① 一二三 龥 龦 〇 ๑๒๓ ١٢٣ १२३ ፩ 𐄇 ᠎ Ⓐ").split()
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u200b", "\u180e",
          "\u2028", "\u0085", "\v", "\f", "\x1c", "\x1f", "\ufeff", "        ", "\t\t\t", "\r", " \r\n \n", "\u202f"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "☕", "🧑🏿‍🚀", "©", "™", "\U0001fae8"]
MARKS = ["e\u0301", "a\u0308\u0323", "\u0323\u0308o", "ก็", "क्ष", "n\u0303\u0303", "\u0344", "\u1100\u1161\u11a8",
         "각", "A\u030a", "\u212b", "q\u0307\u0323", "\u0340", "가\u11a8", "\u0f73", "\ufb1d", "\u2126", "豈", "\u0958"]
CODE = ["def f(x):\n    return x**2\n", "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i] & 0xff;\n}", "<div class=\"a\">",
        "\\frac{1}{2}", "https://example.org/a?b=c&d=%20", "$x_{i}^{2}$", "//---***===", "!!!???...", "```c", "[/INST]",
        "{\"a\": [1, 2.5e-3, null]}", "#include <stdio.h>", "&&||!==", "--help", "a/b/c.txt", "__init__", "C:\\Users"]
CONTROL = ["\x00", "\x01", "\x07", "\x1b[0m", "\x7f", "\x80", "\x9f", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ue000",
           "\U000e0001", "\u0378", "\u061c", "\u200d", "\u200e"]


def random_char(rng):
    while True:
        high = rng.choice([0x80, 0x250, 0x800, 0x3000, 0xffff, 0x1ffff, 0x10ffff])
        code = rng.randrange(high + 1)
        if not 0xd800 <= code <= 0xdfff:
            return chr(code)


def piece(rng, specials):
    kind = rng.randrange(20)
    if kind < 7:
        return rng.choice(WORDS)
    if kind < 11:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3, 7])
    if kind == 11:
        return rng.choice(EMOJI)
    if kind == 12:
        return rng.choice(MARKS)
    if kind == 13:
        return rng.choice(CODE)
    if kind == 14:
        return str(rng.randrange(10 ** rng.randrange(1, 20)))
    if kind == 15:
        return rng.choice(CONTROL)
    if kind == 16:
        return rng.choice(specials) if specials else "<s>"
    if kind == 17:
        return "".join(random_char(rng) for _ in range(rng.randrange(1, 8)))
    if kind == 18:
        return "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(1, 12)))
    return rng.choice(WORDS + SPACES + EMOJI + ["a", "=", "-", "ab", "é"]) * rng.randrange(1, 60)


def text(rng, specials):
    joiner = rng.choice(["", "", " "])
    return joiner.join(piece(rng, specials) for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8, 13, 21])))


def texts(seed, n, specials, known=None):
    """n texts. known(char) false: the character is replaced (a later Unicode than the reference's tables)."""
    rng = random.Random(seed)
    for _ in range(n):
        t = text(rng, specials)
        yield t if known is None else "".join(c if known(c) else "?" for c in t)

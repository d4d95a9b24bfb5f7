#!/usr/bin/env python3
"""Writes src/format/tokenizer_later.c: characters that the reference's regular expressions know and Unicode 14 does not.

PCRE2 and utf8proc come in versions whose Unicode tables differ from those of Hugging Face's tokenizers. A pattern sees a
stand-in for each such character: one of the same general category and UTF-8 length that Unicode 14 has.

Normalization is the other way about: the reference's tables are older (Unicode 12), and what they do not know stays as
it is and keeps its place. Those characters are listed too, found by comparison with utf8proc 2.8.

The reference's classes of characters (punctuation, marks, controls) come from tables of several ages, one for each
step. Where they differ from Unicode 14 with those stand-ins is the third list; what only it makes lower case the fourth.

Usage: tokenizer_unicode.py [OUT.c, default src/format/tokenizer_later.c]
Needs tokenizers==0.23.3, libutf8proc.so.2 and a Python whose unicodedata is of Unicode 14 (3.11)."""
import ctypes
import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cf".split()
STAND_IN = {
    "low": dict(Lu=0x1C90, Ll=0x1C80, Lm=0x2C7C, Lo=0x0904, Mn=0x302A, Mc=0x0903, Nd=0x0966, Nl=0x2160, No=0x2460,
                Po=0x2E2A, Pd=0x2010, Sm=0x2200, Sc=0x20A0, Sk=0x309B, So=0x2100, Cf=0x2060),
    "high": dict(Lu=0xA790, Ll=0xA791, Lm=0xA717, Lo=0xA840, Mn=0xA8E0, Mc=0xA880, Nd=0xA8D0, Po=0xA8CE, So=0xA828,
                 Sk=0xA700, Sc=0xA838, Cf=0xFEFF),
    "astral": dict(Lu=0x16E40, Ll=0x16E60, Lm=0x16B40, Lo=0x10000, Mn=0x10A0F, Mc=0x11000, Nd=0x104A0, Nl=0x10140,
                   No=0x10107, Po=0x10100, Pd=0x10EAD, Sm=0x1D6C1, So=0x1D000, Cf=0x110BD, Sc=0x1E2FF),
}


def unmoved():
    """Ranges of characters that only utf8proc decomposes or reorders."""
    library = ctypes.CDLL("libutf8proc.so.2")
    found = set()
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        ours, theirs = getattr(library, "utf8proc_" + form), getattr(normalizers, form)()
        ours.restype = ctypes.c_void_p
        for c in range(0x80, 0x110000):
            if 0xD800 <= c <= 0xDFFF:
                continue
            for t in (chr(c), "e\u0323" + chr(c), "e\u0345" + chr(c), chr(c) + "\u0301", chr(c) + "\u0323"):
                if theirs.normalize_str(t) != ctypes.string_at(ours(t.encode())).decode():
                    assert theirs.normalize_str(chr(c)) == chr(c)
                    found.add(c)
    ranges = []
    for c in sorted(found):
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, 0])
    return ranges


def classes(stand_in):
    """Ranges of characters and the classes (bits as in tokenizer_unicode.h) in which the reference sees them otherwise."""
    chars = [chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c <= 0xDFFF]
    kept = "".join(p for p, _ in pre_tokenizers.Punctuation("removed").pre_tokenize_str("".join(chars)))

    def gone(normalizer):
        return {c for c in chars if normalizer.normalize_str("a" + c) == "a"}

    def bert(**options):
        no = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
        return normalizers.BertNormalizer(**dict(no, **options))

    theirs = [set(chars) - set(kept), gone(normalizers.StripAccents()), gone(bert(strip_accents=True)),
              gone(bert(clean_text=True)) - {"\ufffd"}]
    rows = [("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"), ("Mn", "Mc", "Me"), ("Mn",), ("Cc", "Cf", "Co")]
    found = []
    for c in chars:
        category = unicodedata.category(chr(stand_in.get(ord(c), ord(c))))
        bits = sum(1 << i for i, row in enumerate(rows) if (category in row) != (c in theirs[i]))
        if bits and found and found[-1][1] == ord(c) - 1 and found[-1][2] == bits:
            found[-1][1] = ord(c)
        elif bits:
            found.append([ord(c), ord(c), bits])
    return found


def lower():
    """Characters whose lower case is later than Unicode 14; with that of a range's first."""
    found = []
    for c in range(0x80, 0x110000):
        if 0xD800 <= c <= 0xDFFF:
            continue
        theirs = normalizers.Lowercase().normalize_str(chr(c))
        if theirs == chr(c).lower():
            continue
        assert len(theirs) == 1 and chr(c).lower() == chr(c)
        if found and found[-1][1] == c - 1 and found[-1][2] + c - found[-1][0] == ord(theirs):
            found[-1][1] = c
        else:
            found.append([c, c, ord(theirs)])
    return found


def write_ranges(f, name, ranges):
    f.write("const unicode_range %s[] = {\n" % name)
    for i in range(0, len(ranges), 4):
        f.write("    " + " ".join("{0x%05x, 0x%05x, 0x%05x}," % tuple(r) for r in ranges[i:i + 4]) + "\n")
    f.write("};\nconst unsigned %s_n = %d;\n" % (name, len(ranges)))


def main(path):
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    text = "".join(chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c <= 0xDFFF)
    rows = []
    for k in CATEGORIES:
        split = pre_tokenizers.Split(Regex(r"\p{%s}" % k), "removed", invert=True)
        for piece, _ in split.pre_tokenize_str(text):
            for c in map(ord, piece):
                if unicodedata.category(chr(c)) == k:
                    continue
                area = "astral" if c > 0xFFFF else "low" if c <= 0x4E00 else "high"
                assert c >= 0x800
                stand_in = 0x20000 if k == "Lo" and c >= 0x20000 else STAND_IN[area][k]
                assert unicodedata.category(chr(stand_in)) == k, (hex(c), k)
                rows.append((c, stand_in))
    rows.sort()
    ranges = []
    for c, s in rows:
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == s:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, s])
    with open(path, "w") as f:
        f.write("/* Characters later than Unicode 14 and their stand-ins; characters that normalization leaves alone. Written by\n"
                " * tools/tokenizer_unicode.py. */\n"
                '#include "format/tokenizer_unicode.h"\n\n/* clang-format off */\n')
        write_ranges(f, "unicode_later", ranges)
        write_ranges(f, "unicode_unmoved", unmoved())
        write_ranges(f, "unicode_otherwise", classes(dict(rows)))
        write_ranges(f, "unicode_lower", lower())
        f.write("/* clang-format on */\n")
    print(len(rows), "characters in", len(ranges), "ranges")


main(sys.argv[1] if len(sys.argv) > 1 else "src/format/tokenizer_later.c")

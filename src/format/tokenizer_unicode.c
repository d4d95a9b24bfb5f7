/* Strict UTF-8 and character classes.
 *
 * Owns no state. Promises that nothing outside of text [bytes] is read and that only scalar values in their shortest
 * form count as UTF-8, so that what passes here can be handed to PCRE2 unchecked. Categories come from utf8proc. */
#include "format/tokenizer_unicode.h"

#include <string.h>
#include <utf8proc.h>

size_t utf8_read(const char *text, size_t bytes, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned char c = s[0];
    if (c < 0x80) {
        *code = c;
        return 1;
    }
    *code = 1;
    if (c < 0xc2 || c > 0xf4) return 0;
    size_t length = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    /* The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF (Unicode, table 3-7). */
    unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    uint32_t value = c & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (i >= bytes) {
            *code = (uint32_t)i | UTF8_INCOMPLETE;
            return 0;
        }
        if (s[i] < low || s[i] > high) {
            *code = (uint32_t)i;
            return 0;
        }
        value = value << 6 | (s[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    *code = value;
    return length;
}

size_t utf8_write(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

size_t utf8_valid(const char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        unsigned char c = (unsigned char)text[at];
        uint64_t word = UINT64_C(0x80);
        if (bytes - at >= sizeof word) memcpy(&word, text + at, sizeof word);
        if ((word & UINT64_C(0x8080808080808080)) == 0) {
            at += sizeof word;
            continue;
        }
        if (c < 0x80) {
            at++;
            continue;
        }
        /* most of what is not ASCII: three bytes, neither overlong nor a surrogate whatever follows */
        bool three = c > 0xe0 && c < 0xf0 && c != 0xed && bytes - at >= 3;
        if (three && (text[at + 1] & 0xc0) == 0x80 && (text[at + 2] & 0xc0) == 0x80) {
            at += 3;
            continue;
        }
        uint32_t code;
        size_t n = utf8_read(text + at, bytes - at, &code);
        if (n == 0) break;
        at += n;
    }
    return at;
}

bool unicode_is_space(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static const unicode_range *find_range(const unicode_range *ranges, unsigned n, uint32_t c)
{
    unsigned low = 0, high = n;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ranges[low].first <= c ? &ranges[low] : NULL;
}

uint32_t unicode_stand_in(uint32_t c)
{
    /* All of them lie outside of this: most text is answered here. */
    if (c < unicode_later[0].first || (c >= 0x3200 && c < 0xa7c0) || (c >= 0xa800 && c < 0x10000)) return c;
    const unicode_range *r = find_range(unicode_later, unicode_later_n, c);
    return r ? r->stand_in : c;
}

bool unicode_is_unmoved(uint32_t c)
{
    return c >= unicode_unmoved[0].first && find_range(unicode_unmoved, unicode_unmoved_n, c) != NULL;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)unicode_stand_in(c));
}

bool unicode_is_word(uint32_t c)
{
    if (c == 0x200c || c == 0x200d) return true; /* Join_Control */
    /* Symbols that are Alphabetic: circled and squared letters. */
    if ((c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
        (c >= 0x1f170 && c <= 0x1f189))
        return true;
    switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

bool unicode_is_numeric(uint32_t c)
{
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

/* Whether `is`, said of Unicode 14 and stand-ins, is what the reference's table for this class says. */
static bool as_reference(uint32_t c, uint32_t class, bool is)
{
    const unicode_range *r =
        c < unicode_otherwise[0].first ? NULL : find_range(unicode_otherwise, unicode_otherwise_n, c);
    return r && (r->stand_in & class) ? !is : is;
}

bool unicode_is_punctuation(uint32_t c)
{
    if (c < 0x80) return (c > ' ' && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 127);
    utf8proc_category_t k = category(c);
    return as_reference(c, UNICODE_PUNCTUATION, k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO);
}

bool unicode_is_mark(uint32_t c)
{
    if (c < 0x300) return false;
    utf8proc_category_t k = category(c);
    return as_reference(c, UNICODE_MARK, k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME);
}

bool unicode_is_nonspacing_mark(uint32_t c)
{
    return c >= 0x300 && as_reference(c, UNICODE_NONSPACING, category(c) == UTF8PROC_CATEGORY_MN);
}

bool unicode_is_other(uint32_t c)
{
    utf8proc_category_t k = category(c);
    bool is = k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
    return as_reference(c, UNICODE_OTHER, is);
}

uint32_t unicode_to_lower(uint32_t c)
{
    const unicode_range *r = c < unicode_lower[0].first ? NULL : find_range(unicode_lower, unicode_lower_n, c);
    return r ? r->stand_in + (c - r->first) : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

/* Printable bytes stand for themselves; the other 68 are numbered from U+0100 in order (Radford et al. 2019, GPT-2's
 * encoder). Those are 0..0x20 (33), 0x7f..0xa0 (34) and 0xad (1). */
uint32_t byte_to_char(uint8_t b)
{
    if (b <= 0x20) return 0x100u + b;
    if (b >= 0x7f && b <= 0xa0) return 0x100u + 33 + (b - 0x7fu);
    if (b == 0xad) return 0x143u;
    return b;
}

int byte_from_char(uint32_t c)
{
    if (c > 0x20 && c < 0x7f) return (int)c;
    if (c > 0xa0 && c <= 0xff) return c == 0xad ? -1 : (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    if (c <= 0x120) return (int)(c - 0x100);
    return c == 0x143 ? 0xad : (int)(c - 0x121 + 0x7f);
}

bool bytes_from_alphabet(const char *text, size_t bytes, char *out, size_t *out_bytes)
{
    size_t n = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t length = utf8_read(text + at, bytes - at, &code);
        int byte = length ? byte_from_char(code) : -1;
        if (byte < 0) return false;
        out[n++] = (char)byte;
        at += length;
    }
    *out_bytes = n;
    return true;
}

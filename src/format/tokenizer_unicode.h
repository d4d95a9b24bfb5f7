/* What tokenizers need of Unicode: strict UTF-8, the few character classes that Rust and Oniguruma define. */
#ifndef LAMINA_FORMAT_TOKENIZER_UNICODE_H
#define LAMINA_FORMAT_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one character of text [bytes > 0]. Returns its length and sets *code; or 0 when it is not UTF-8, *code then
 * being the number of bytes (>= 1) that one U+FFFD replaces (Unicode's "maximal subpart", as Python and Rust do), with
 * bit 31 set when more bytes could still complete it. */
size_t utf8_read(const char *text, size_t bytes, uint32_t *code);
#define UTF8_INCOMPLETE 0x80000000u

/* Writes code as UTF-8 to out [4]; returns the length. code must be a scalar value. */
size_t utf8_write(uint32_t code, char *out);

/* Bytes at the start of text that are valid UTF-8. */
size_t utf8_valid(const char *text, size_t bytes);

/* The length of the character that begins at a valid text, by its first byte. */
static inline size_t utf8_length(char first)
{
    unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

bool unicode_is_space(uint32_t code);       /* White_Space */
bool unicode_is_word(uint32_t code);        /* \w of Rust's regex: Alphabetic, M, Nd, Pc, Join_Control */
bool unicode_is_numeric(uint32_t code);     /* N: Nd, Nl, No */
bool unicode_is_punctuation(uint32_t code); /* ASCII punctuation or P */
bool unicode_is_mark(uint32_t code);        /* M: Mn, Mc, Me */
bool unicode_is_nonspacing_mark(uint32_t code);
bool unicode_is_other(uint32_t code); /* Cc, Cf, Co */

/* Characters that the tables of PCRE2 or utf8proc may be too old for, and for each a stand-in of the same category and
 * UTF-8 length (tokenizer_later.c). */
typedef struct unicode_range {
    uint32_t first, last, stand_in;
} unicode_range;
extern const unicode_range unicode_later[], unicode_unmoved[];
extern const unsigned unicode_later_n, unicode_unmoved_n;
/* Characters of which the reference's older tables think otherwise: stand_in is a set of classes to invert. And
 * later lower cases: stand_in is that of `first`, the others follow in order. */
enum { UNICODE_PUNCTUATION = 1, UNICODE_MARK = 2, UNICODE_NONSPACING = 4, UNICODE_OTHER = 8 };
extern const unicode_range unicode_otherwise[], unicode_lower[];
extern const unsigned unicode_otherwise_n, unicode_lower_n;
uint32_t unicode_to_lower(uint32_t code); /* the one character; U+0130 has two and is the caller's */
uint32_t unicode_stand_in(uint32_t code); /* code itself if it has none */
/* Characters that the reference's normalization, of an older Unicode, does not know. */
bool unicode_is_unmoved(uint32_t code);

/* GPT-2's alphabet: each byte as one printable character (below U+0144). */
uint32_t byte_to_char(uint8_t byte);
int byte_from_char(uint32_t code); /* -1: not of the alphabet */
/* text [bytes] spelt in that alphabet -> out (at most `bytes` long). false: some character is not of it. */
bool bytes_from_alphabet(const char *text, size_t bytes, char *out, size_t *out_bytes);

#endif

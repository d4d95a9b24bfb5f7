/* WordPiece and WordLevel: words by look-up.
 *
 * WordPiece takes the longest piece that the word begins with, then, with the mark of continuation before it, the
 * longest that the rest begins with, and so on; a word that cannot be spelt to its end is unknown as a whole (Wu et al.
 * 2016; limits as Hugging Face's tokenizers sets them). WordLevel knows whole words only. No part longer than the
 * longest piece is looked up, so that a word costs at most its length times that. */
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

static size_t count_chars(const char *text, size_t bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

/* The longest piece at the front of text; its id and length, or -1. The word's buffer begins with the mark. */
static int32_t longest_piece(encoder *e, const char *text, size_t bytes, bool first, size_t *length)
{
    const word_model *w = &e->t->words;
    size_t mark = first ? 0 : w->continuing.bytes;
    if (mark > w->longest) return -1;
    size_t n = bytes < w->longest - mark ? bytes : w->longest - mark;
    char *part = e->word.data + w->continuing.bytes;
    memcpy(part, text, n);
    while (n > 0) {
        bool whole = n == bytes || ((unsigned char)text[n] & 0xc0) != 0x80; /* ends where a character does */
        int32_t id = whole ? vocabulary_find(&e->t->vocab, part - mark, n + mark) : -1;
        if (id >= 0) {
            *length = n;
            return id;
        }
        n--;
    }
    return -1;
}

static lamina_status wordpiece(encoder *e, const char *text, size_t bytes)
{
    const word_model *w = &e->t->words;
    uint32_t unknown = (uint32_t)w->unknown;
    if (bytes > w->max_chars && count_chars(text, bytes) > w->max_chars) return encoder_emit(e, unknown);
    size_t before = e->n_ids, length = 0;
    e->word.bytes = 0;
    TRY(buffer_append(e->m, &e->word, w->continuing.data, w->continuing.bytes, e->err));
    TRY(buffer_reserve(e->m, &e->word, bytes, e->err));
    for (size_t at = 0; at < bytes; at += length) {
        int32_t id = longest_piece(e, text + at, bytes - at, at == 0, &length);
        if (id < 0) {
            e->n_ids = before;
            return encoder_emit(e, unknown);
        }
        TRY(encoder_emit(e, (uint32_t)id));
    }
    return LAMINA_OK;
}

lamina_status words_encode(encoder *e, const char *text, size_t bytes)
{
    if (bytes == 0) return LAMINA_OK;
    if (e->t->kind == MODEL_WORDPIECE) return wordpiece(e, text, bytes);
    int32_t id = vocabulary_find(&e->t->vocab, text, bytes);
    return encoder_emit(e, (uint32_t)(id >= 0 ? id : e->t->words.unknown));
}

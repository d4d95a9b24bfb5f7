/* Ids to text, one id at a time.
 *
 * What comes out is always whole characters: an incomplete one waits in the caller's state, at most three bytes; a
 * wrong one becomes U+FFFD as Unicode recommends (and Python and Rust do), so that the concatenation is what decoding
 * all ids at once gives. Byte tokens of SentencePiece vocabularies are the exception that streaming forces: a run of
 * them of which a later byte is wrong has already shown its whole characters. */
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

typedef struct sink {
    char *out; /* NULL: only count */
    size_t capacity, bytes;
} sink;

static void put(sink *s, const char *data, size_t bytes)
{
    if (s->bytes + bytes < s->capacity) memcpy(s->out + s->bytes, data, bytes); /* one byte stays for the NUL */
    s->bytes += bytes;
}

static void put_wrong(sink *s)
{
    put(s, "\xef\xbf\xbd", 3);
}

/* ---- bytes to characters ------------------------------------------------------------------------------------ */

/* What waits, as one wrong part (byte-level), or one for each byte (byte tokens). */
static void flush(lamina_detokenizer *d, bool each, sink *s)
{
    for (unsigned i = 0; i < d->n_pending; i++)
        if (i == 0 || each) put_wrong(s);
    d->n_pending = 0;
}

static void put_bytes(lamina_detokenizer *d, const char *data, size_t bytes, bool each, sink *s)
{
    size_t at = 0;
    while (d->n_pending > 0 && at < bytes) { /* complete what waits, byte by byte */
        uint32_t code;
        d->pending[d->n_pending] = (unsigned char)data[at];
        size_t n = utf8_read((const char *)d->pending, d->n_pending + 1u, &code);
        if (n > 0) {
            put(s, (const char *)d->pending, n);
            d->n_pending = 0;
            at++;
        } else if (code & UTF8_INCOMPLETE) {
            d->n_pending++;
            at++;
        } else { /* the new byte does not continue it: it is looked at afresh */
            flush(d, each, s);
        }
    }
    while (at < bytes) {
        size_t good = utf8_valid(data + at, bytes - at);
        put(s, data + at, good);
        at += good;
        if (at == bytes) break;
        uint32_t code;
        utf8_read(data + at, bytes - at, &code);
        size_t wrong = code & ~UTF8_INCOMPLETE;
        if (code & UTF8_INCOMPLETE) {
            memcpy(d->pending, data + at, wrong);
            d->n_pending = (uint8_t)wrong;
        } else {
            put_wrong(s);
        }
        at += wrong;
    }
}

/* ---- pieces that are text ----------------------------------------------------------------------------------- */

static int byte_token(const char *text, size_t bytes)
{
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int value = 0;
    for (unsigned i = 3; i < 5; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

typedef struct text_decoder {
    const decoder_step *strip; /* NULL: none */
    lamina_detokenizer *state;
    sink *s;
} text_decoder;

/* The end of the pipeline: the text's first character may be dropped. */
static void put_text(text_decoder *x, const char *text, size_t bytes)
{
    if (bytes == 0) return;
    if (x->strip && !x->state->begun) {
        uint32_t n = x->strip->content.bytes;
        if (bytes >= n && memcmp(text, x->strip->content.data, n) == 0) {
            text += n;
            bytes -= n;
        }
    }
    x->state->begun = true;
    put(x->s, text, bytes);
}

/* DECODE_REPLACE steps from `step` on, applied to one piece. */
static void put_replaced(text_decoder *x, const tokenizer *t, uint32_t step, const char *text, size_t bytes)
{
    while (step < t->n_decoders && t->decoders[step].kind != DECODE_REPLACE) step++;
    if (step == t->n_decoders) {
        put_text(x, text, bytes);
        return;
    }
    const decoder_step *d = &t->decoders[step];
    size_t begin = 0;
    for (size_t at = 0; at + d->find.bytes <= bytes;) {
        if (memcmp(text + at, d->find.data, d->find.bytes) != 0) {
            at++;
            continue;
        }
        put_replaced(x, t, step + 1, text + begin, at - begin);
        put_replaced(x, t, step + 1, d->content.data, d->content.bytes);
        at += d->find.bytes;
        begin = at;
    }
    put_replaced(x, t, step + 1, text + begin, bytes - begin);
}

static void decode_piece(const tokenizer *t, lamina_detokenizer *state, uint32_t id, sink *s)
{
    const vocabulary *v = &t->vocab;
    const char *text = v->text + v->offset[id];
    size_t bytes = v->offset[id + 1] - v->offset[id];
    if (t->byte_level) {
        put_bytes(state, text, bytes, false, s);
        return;
    }
    bool fallback = false;
    text_decoder x = {.state = state, .s = s};
    for (uint32_t i = 0; i < t->n_decoders; i++) {
        if (t->decoders[i].kind == DECODE_BYTE_FALLBACK) fallback = true;
        if (t->decoders[i].kind == DECODE_STRIP) x.strip = &t->decoders[i];
    }
    int byte = fallback ? byte_token(text, bytes) : -1;
    if (byte >= 0) {
        char c = (char)byte;
        sink whole = {.out = (char[16]){0}, .capacity = 16}; /* at most four times U+FFFD, or a character */
        put_bytes(state, &c, 1, true, &whole);
        put_text(&x, whole.out, whole.bytes);
        return;
    }
    if (state->n_pending) state->begun = true;
    flush(state, true, s);
    put_replaced(&x, t, 0, text, bytes);
}

lamina_status tokenizer_decode(const tokenizer *t, lamina_detokenizer *state, int32_t id, char *out, size_t capacity,
                               size_t *bytes, lamina_error *err)
{
    *bytes = 0;
    if (id < -1 || id >= (int64_t)t->vocab.n_ids)
        return error_set(err, LAMINA_E_USAGE, "token id %d, the vocabulary has %u", id, t->vocab.n_ids);
    if (state->n_pending >= 4) return error_set(err, LAMINA_E_USAGE, "the detokenizer's state is not its own");
    lamina_detokenizer next = *state;
    sink s = {out, capacity, 0};
    if (id < 0)
        flush(&next, !t->byte_level, &s);
    else if (next.keep_special || !(t->vocab.flags[id] & PIECE_SPECIAL))
        decode_piece(t, &next, (uint32_t)id, &s);
    *bytes = s.bytes;
    if (s.bytes + 1 > capacity) {
        *bytes = s.bytes + 1;
        return error_set(err, LAMINA_E_USAGE, "token %d needs %zu bytes, %zu are given", id, s.bytes + 1, capacity);
    }
    out[s.bytes] = '\0';
    *state = next;
    return LAMINA_OK;
}

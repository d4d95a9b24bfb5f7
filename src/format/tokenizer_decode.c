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
    size_t looked_at; /* bytes, by steps that replace; see TOKEN_MAX_DECODING */
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
    x->looked_at += bytes + 1;
    if (x->looked_at > TOKEN_MAX_DECODING) return; /* the caller sees it */
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

/* ---- pieces that are words, or their parts ------------------------------------------------------------------ */

static bool ends_with(text_span s, text_span end)
{
    return s.bytes >= end.bytes && memcmp(s.data + s.bytes - end.bytes, end.data, end.bytes) == 0;
}

static bool begins_with(text_span s, text_span begin)
{
    return s.bytes >= begin.bytes && memcmp(s.data, begin.data, begin.bytes) == 0;
}

/* Replacements of replacements, step upon step. */
static lamina_status too_long(const char *text, size_t bytes, lamina_error *err)
{
    return error_set(err, LAMINA_E_UNSUPPORTED, "the tokenizer's decoder makes too much of \"%.*s\"",
                     (int)(bytes < 60 ? bytes : 60), text);
}

static lamina_status replace_all(memory *m, text_span in, text_span find, text_span with, text_buffer *out,
                                 lamina_error *err)
{
    size_t begin = 0;
    for (size_t at = 0; at + find.bytes <= in.bytes;) {
        if (memcmp(in.data + at, find.data, find.bytes) != 0) {
            at++;
            continue;
        }
        TRY(buffer_append(m, out, in.data + begin, at - begin, err));
        TRY(buffer_append(m, out, with.data, with.bytes, err));
        if (out->bytes > TOKEN_MAX_DECODING) return too_long(in.data, in.bytes, err);
        at += find.bytes;
        begin = at;
    }
    return buffer_append(m, out, in.data + begin, in.bytes - begin, err);
}

#define LITERAL(text) ((text_span){text, sizeof(text) - 1})

/* What BERT's tokenizers do about spaces before punctuation and contractions, a piece at a time. turn: two buffers, the
 * piece is in the first. */
static lamina_status clean_up(memory *m, text_buffer turn[2], lamina_error *err)
{
    static const text_span rows[][2] = {
        {{" .", 2}, {".", 1}},   {{" ?", 2}, {"?", 1}},     {{" !", 2}, {"!", 1}},    {{" ,", 2}, {",", 1}},
        {{" ' ", 3}, {"'", 1}},  {{" n't", 4}, {"n't", 3}}, {{" 'm", 3}, {"'m", 2}},  {{" do not", 7}, {" don't", 6}},
        {{" 's", 3}, {"'s", 2}}, {{" 've", 4}, {"'ve", 3}}, {{" 're", 4}, {"'re", 3}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        text_buffer keep = turn[0];
        turn[1].bytes = 0;
        text_span in = {keep.data, (uint32_t)keep.bytes};
        TRY(replace_all(m, in, rows[i][0], rows[i][1], &turn[1], err));
        turn[0] = turn[1];
        turn[1] = keep;
    }
    return LAMINA_OK;
}

/* At most `start` times `content` goes from the front, `stop` times from the end, not what went from the front. */
static text_span strip_piece(text_span s, const decoder_step *d)
{
    for (uint32_t i = 0; i < d->start && begins_with(s, d->content); i++)
        s = (text_span){s.data + d->content.bytes, s.bytes - d->content.bytes};
    for (uint32_t i = 0; i < d->stop && ends_with(s, d->content); i++) s.bytes -= d->content.bytes;
    return s;
}

/* One step: turn[0] -> turn[0]. */
static lamina_status word_step(memory *m, const decoder_step *d, lamina_detokenizer *state, text_buffer turn[2],
                               lamina_error *err)
{
    bool first = !state->seen && !state->begun;
    text_span in = {turn[0].data, (uint32_t)turn[0].bytes}, space = LITERAL(" ");
    text_buffer *out = &turn[1];
    out->bytes = 0;
    TRY(buffer_reserve(m, out, in.bytes + 1, err));
    switch (d->kind) {
    case DECODE_REPLACE:
        TRY(replace_all(m, in, d->find, d->content, out, err));
        break;
    case DECODE_METASPACE:
        if (first && d->first_bare) space.bytes = 0;
        TRY(replace_all(m, in, d->find, space, out, err));
        break;
    case DECODE_STRIP:
        in = strip_piece(in, d);
        TRY(buffer_append(m, out, in.data, in.bytes, err));
        break;
    case DECODE_WORDPIECE:
    case DECODE_SPACED: {
        bool goes_on = d->kind == DECODE_WORDPIECE && begins_with(in, d->find);
        uint32_t cut = goes_on && !first ? d->find.bytes : 0;
        if (!goes_on && !first) TRY(buffer_append(m, out, " ", 1, err));
        TRY(buffer_append(m, out, in.data + cut, in.bytes - cut, err));
        break;
    }
    case DECODE_WORD_END: {
        bool ends = ends_with(in, d->find);
        if (ends) in.bytes -= d->find.bytes;
        TRY(replace_all(m, in, d->find, space, out, err));
        state->space = ends;
        break;
    }
    default:
        return LAMINA_OK;
    }
    text_buffer keep = turn[0];
    turn[0] = turn[1];
    turn[1] = keep;
    return d->cleanup ? clean_up(m, turn, err) : LAMINA_OK;
}

/* A piece through all steps, each seeing the whole of what the one before made of it. */
static lamina_status decode_word(text_decoder *x, const tokenizer *t, const char *text, size_t bytes, lamina_error *err)
{
    text_buffer turn[2] = {{0}, {0}};
    bool space = x->state->space;
    x->state->space = false;
    lamina_status status = buffer_append(t->m, &turn[0], text, bytes, err);
    for (uint32_t i = 0; i < t->n_decoders && status == LAMINA_OK; i++) {
        if (t->decoders[i].kind == DECODE_FUSE) break;
        status = word_step(t->m, &t->decoders[i], x->state, turn, err);
    }
    if (status == LAMINA_OK) {
        if (space) put_text(x, " ", 1);
        put_text(x, turn[0].data, turn[0].bytes);
    }
    mem_free(t->m, turn[0].data);
    mem_free(t->m, turn[1].data);
    return status;
}

static bool is_word_decoder(const tokenizer *t)
{
    for (uint32_t i = 0; i < t->n_decoders; i++) {
        decoder_kind kind = t->decoders[i].kind;
        if (kind == DECODE_FUSE) return false;
        if (kind == DECODE_STRIP || (kind >= DECODE_METASPACE && kind != DECODE_SENTENCEPIECE)) return true;
    }
    return false;
}

static text_span spelling(const tokenizer *t, uint32_t id)
{
    const vocabulary *v = &t->vocab;
    for (uint32_t i = 0; (v->flags[id] & PIECE_RESPELT) && i < t->n_added; i++)
        if (t->added[i].id == id && t->added[i].shown.data) return t->added[i].shown;
    return (text_span){v->text + v->offset[id], v->offset[id + 1] - v->offset[id]};
}

/* sentencepiece's decoding: U+2581 is a space, but at the text's begin (sentencepiece_processor.cc). */
static void put_sentencepiece(text_decoder *x, const tokenizer *t, const decoder_step *d, uint32_t id, text_span s)
{
    static const char mark[3] = {'\xe2', '\x96', '\x81'};
    if ((int64_t)id == t->bpe.unknown) {
        put_text(x, d->content.data, d->content.bytes);
        return;
    }
    bool bare = !x->state->begun && d->first_bare && begins_with(s, (text_span){mark, sizeof mark});
    if (bare) s = (text_span){s.data + sizeof mark, s.bytes - (uint32_t)sizeof mark};
    for (uint32_t at = 0, n; at < s.bytes; at += n) {
        bool space = begins_with((text_span){s.data + at, s.bytes - at}, (text_span){mark, sizeof mark});
        n = space ? (uint32_t)sizeof mark : 1;
        put_text(x, space ? " " : s.data + at, 1);
    }
    if (bare && !d->cleanup) x->state->begun = true;
}

static lamina_status decode_piece(const tokenizer *t, lamina_detokenizer *state, uint32_t id, sink *out,
                                  lamina_error *err)
{
    text_span s = spelling(t, id);
    const char *text = s.data;
    size_t bytes = s.bytes;
    if (t->byte_level) {
        put_bytes(state, text, bytes, false, out);
        return LAMINA_OK;
    }
    bool fallback = false, fused = false;
    text_decoder x = {.state = state, .s = out};
    for (uint32_t i = 0; i < t->n_decoders; i++) {
        if (t->decoders[i].kind == DECODE_BYTE_FALLBACK || t->decoders[i].kind == DECODE_SENTENCEPIECE) fallback = true;
        if (t->decoders[i].kind == DECODE_FUSE) fused = true;
        if (t->decoders[i].kind == DECODE_STRIP && fused) x.strip = &t->decoders[i];
    }
    int byte = fallback ? byte_token(text, bytes) : -1;
    if (byte >= 0) {
        char c = (char)byte;
        sink whole = {.out = (char[16]){0}, .capacity = 16}; /* at most four times U+FFFD, or a character */
        put_bytes(state, &c, 1, true, &whole);
        put_text(&x, whole.out, whole.bytes);
        return LAMINA_OK;
    }
    if (state->n_pending) state->begun = true;
    flush(state, true, out);
    if (t->n_decoders && t->decoders[0].kind == DECODE_SENTENCEPIECE) {
        put_sentencepiece(&x, t, &t->decoders[0], id, s);
        return LAMINA_OK;
    }
    if (is_word_decoder(t)) return decode_word(&x, t, text, bytes, err);
    put_replaced(&x, t, 0, text, bytes);
    return x.looked_at > TOKEN_MAX_DECODING ? too_long(text, bytes, err) : LAMINA_OK;
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
    if (id < 0) {
        flush(&next, !t->byte_level, &s);
    } else if (next.keep_special || !(t->vocab.flags[id] & PIECE_SPECIAL)) {
        TRY(decode_piece(t, &next, (uint32_t)id, &s, err));
        next.seen = true;
    }
    *bytes = s.bytes;
    if (s.bytes + 1 > capacity) {
        *bytes = s.bytes + 1;
        return error_set(err, LAMINA_E_USAGE, "token %d needs %zu bytes, %zu are given", id, s.bytes + 1, capacity);
    }
    out[s.bytes] = '\0';
    *state = next;
    return LAMINA_OK;
}

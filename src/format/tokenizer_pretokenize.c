/* Pre-tokenizer steps: a text is cut into the pieces that the model sees one by one.
 *
 * Steps are applied depth first: each piece that a step cuts off goes through the steps behind it and into the model
 * before the next is cut, so that no list of pieces exists and a text of any length needs only one small state per
 * step. What becomes of a match (behaviour) is a matter of holding back at most one piece.
 *
 * A piece is its text and the same as patterns see it: of equal length, with stand-ins for characters that PCRE2's
 * Unicode tables may not know yet. Both are one pointer for nearly every text. */
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

typedef struct piece {
    const char *text, *seen; /* [bytes] */
    size_t bytes;
    bool first; /* begins where the whole text does */
} piece;

static lamina_status run_step(encoder *e, uint32_t step, piece p);

/* ---- behaviours --------------------------------------------------------------------------------------------- */

typedef struct cutter {
    encoder *e;
    uint32_t next; /* the step that receives the pieces */
    split_behavior behavior;
    bool invert;
    piece whole;
    size_t begin, end; /* what is held back */
    bool held, last_match;
} cutter;

static lamina_status cut(cutter *c, size_t begin, size_t end)
{
    if (begin == end) return LAMINA_OK;
    return run_step(c->e, c->next,
                    (piece){.text = c->whole.text + begin,
                            .seen = c->whole.seen + begin,
                            .bytes = end - begin,
                            .first = c->whole.first && begin == 0});
}

static lamina_status flush(cutter *c)
{
    if (!c->held) return LAMINA_OK;
    c->held = false;
    return cut(c, c->begin, c->end);
}

static lamina_status hold(cutter *c, size_t begin, size_t end)
{
    TRY(flush(c));
    c->begin = begin;
    c->end = end;
    c->held = true;
    return LAMINA_OK;
}

/* The next stretch of the text, matched or between matches; they come in order and leave no gap. */
static lamina_status stretch(cutter *c, size_t begin, size_t end, bool match)
{
    match ^= c->invert;
    bool last = c->last_match;
    c->last_match = match;
    switch (c->behavior) {
    case SPLIT_ISOLATED:
        return cut(c, begin, end);
    case SPLIT_REMOVED:
        return match ? LAMINA_OK : cut(c, begin, end);
    case SPLIT_CONTIGUOUS:
        if (c->held && match == last) {
            c->end = end;
            return LAMINA_OK;
        }
        return hold(c, begin, end);
    case SPLIT_MERGED_WITH_PREVIOUS: /* a match joins what is before it, unless that ends with a match */
        if (c->held && match && !last) {
            c->end = end;
            return LAMINA_OK;
        }
        return hold(c, begin, end);
    case SPLIT_MERGED_WITH_NEXT: /* only matches are held back */
        if (match) return hold(c, begin, end);
        if (c->held) {
            c->held = false;
            return cut(c, c->begin, end);
        }
        return cut(c, begin, end);
    case SPLIT_BEHAVIORS:
        break;
    }
    return error_set(c->e->err, LAMINA_E_UNSUPPORTED, "unknown split behaviour %d", (int)c->behavior);
}

/* ---- what is matched ---------------------------------------------------------------------------------------- */

static lamina_status split_pattern(cutter *c, const pattern *find)
{
    regex_cursor r = {0};
    size_t done = 0, bytes = c->whole.bytes, begin, end;
    for (;;) {
        bool found;
        TRY(regex_next(&c->e->regex, find, c->whole.seen, bytes, &r, &begin, &end, &found, c->e->err));
        if (!found) break;
        if (done != begin) TRY(stretch(c, done, begin, false));
        TRY(stretch(c, begin, end, true));
        done = end;
    }
    if (done != bytes) TRY(stretch(c, done, bytes, false));
    return flush(c);
}

static lamina_status split_chars(cutter *c, bool (*is)(uint32_t))
{
    size_t done = 0, bytes = c->whole.bytes;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t n = utf8_read(c->whole.text + at, bytes - at, &code);
        if (n == 0) break;
        if (is(code)) {
            if (done != at) TRY(stretch(c, done, at, false));
            TRY(stretch(c, at, at + n, true));
            done = at + n;
        }
        at += n;
    }
    if (done != bytes) TRY(stretch(c, done, bytes, false));
    return flush(c);
}

/* Runs of \w and runs of neither \w nor white space; white space goes. */
static lamina_status split_words(cutter *c)
{
    enum { SPACE, WORD, OTHER } last = SPACE, now;
    size_t begin = 0, bytes = c->whole.bytes;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t n = utf8_read(c->whole.text + at, bytes - at, &code);
        now = unicode_is_space(code) ? SPACE : unicode_is_word(code) ? WORD : OTHER;
        if (now != last) {
            if (last != SPACE) TRY(cut(c, begin, at));
            begin = at;
            last = now;
        }
        at += n;
    }
    return last != SPACE ? cut(c, begin, bytes) : LAMINA_OK;
}

static lamina_status split_length(cutter *c, uint32_t length)
{
    size_t begin = 0, bytes = c->whole.bytes;
    uint32_t n = 0;
    for (size_t at = 0; at < bytes;) {
        at += utf8_length(c->whole.text[at]);
        if (++n < length) continue;
        TRY(cut(c, begin, at));
        begin = at;
        n = 0;
    }
    return cut(c, begin, bytes);
}

/* ---- steps that change the text ----------------------------------------------------------------------------- */

static lamina_status prefix_space(encoder *e, uint32_t step, piece p)
{
    if (p.bytes == 0 || p.text[0] == ' ') return run_step(e, step + 1, p);
    text_buffer *b = &e->step[step], *seen = &e->seen[step];
    b->bytes = seen->bytes = 0;
    TRY(buffer_append(e->m, b, " ", 1, e->err));
    TRY(buffer_append(e->m, b, p.text, p.bytes, e->err));
    if (p.seen == p.text) return run_step(e, step + 1, (piece){b->data, b->data, b->bytes, p.first});
    TRY(buffer_append(e->m, seen, " ", 1, e->err));
    TRY(buffer_append(e->m, seen, p.seen, p.bytes, e->err));
    return run_step(e, step + 1, (piece){b->data, seen->data, b->bytes, p.first});
}

static lamina_status mark_spaces(encoder *e, const char *text, size_t bytes, text_span mark, bool before,
                                 text_buffer *out)
{
    out->bytes = 0;
    if (before) TRY(buffer_append(e->m, out, mark.data, mark.bytes, e->err));
    for (size_t at = 0; at < bytes;) {
        const char *space = memchr(text + at, ' ', bytes - at);
        size_t end = space ? (size_t)(space - text) : bytes;
        TRY(buffer_append(e->m, out, text + at, end - at, e->err));
        if (space) TRY(buffer_append(e->m, out, mark.data, mark.bytes, e->err));
        at = end + (space != NULL);
    }
    return LAMINA_OK;
}

static lamina_status metaspace(encoder *e, uint32_t step, piece p)
{
    const splitter_step *s = &e->t->splitters[step];
    text_span mark = s->find.source;
    bool begins = p.text[0] == ' ' || (p.bytes >= mark.bytes && memcmp(p.text, mark.data, mark.bytes) == 0);
    bool before = !begins && (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && p.first));
    text_buffer *b = &e->step[step], *seen = &e->seen[step];
    TRY(mark_spaces(e, p.text, p.bytes, mark, before, b));
    if (p.seen == p.text) return run_step(e, step + 1, (piece){b->data, b->data, b->bytes, p.first});
    TRY(mark_spaces(e, p.seen, p.bytes, mark, before, seen));
    return run_step(e, step + 1, (piece){b->data, seen->data, b->bytes, p.first});
}

static lamina_status byte_chars(encoder *e, uint32_t step, piece p)
{
    text_buffer *b = &e->step[step];
    b->bytes = 0;
    TRY(buffer_reserve(e->m, b, p.bytes * 2, e->err));
    for (size_t i = 0; i < p.bytes; i++) b->bytes += utf8_write(byte_to_char((uint8_t)p.text[i]), b->data + b->bytes);
    return run_step(e, step + 1, (piece){b->data, b->data, b->bytes, p.first});
}

static lamina_status encode_word(encoder *e, const char *text, size_t bytes)
{
    switch (e->t->kind) {
    case MODEL_BPE:
        return bpe_encode(e, text, bytes);
    case MODEL_WORDPIECE:
    case MODEL_WORDLEVEL:
        return words_encode(e, text, bytes);
    case MODEL_SCORED:
        return scored_encode(e, text, bytes);
    case MODEL_UNIGRAM:
        return unigram_encode(e, text, bytes);
    case MODEL_KINDS:
        break;
    }
    return error_set(e->err, LAMINA_E_UNSUPPORTED, "unknown model %d", (int)e->t->kind);
}

static lamina_status to_model(encoder *e, const char *text, size_t bytes)
{
    if (!e->t->byte_chars) return encode_word(e, text, bytes);
    e->bytes.bytes = 0;
    TRY(buffer_reserve(e->m, &e->bytes, bytes, e->err));
    if (!bytes_from_alphabet(text, bytes, e->bytes.data, &e->bytes.bytes))
        return error_set(e->err, LAMINA_E_UNSUPPORTED, "a piece is not spelt in the byte alphabet");
    return encode_word(e, e->bytes.data, e->bytes.bytes);
}

static lamina_status run_step(encoder *e, uint32_t step, piece p)
{
    if (step == e->t->n_splitters) return to_model(e, p.text, p.bytes);
    const splitter_step *s = &e->t->splitters[step];
    cutter c = {.e = e, .next = step + 1, .behavior = s->behavior, .invert = s->invert, .whole = p};
    switch (s->kind) {
    case SPLITTER_PATTERN:
        return split_pattern(&c, &s->find);
    case SPLITTER_DIGITS:
        return split_chars(&c, unicode_is_numeric);
    case SPLITTER_PUNCTUATION:
        return split_chars(&c, unicode_is_punctuation);
    case SPLITTER_PREFIX_SPACE:
        return prefix_space(e, step, p);
    case SPLITTER_BYTE_CHARS:
        return byte_chars(e, step, p);
    case SPLITTER_SPACES:
        return split_chars(&c, unicode_is_space);
    case SPLITTER_WORDS:
        return split_words(&c);
    case SPLITTER_LENGTH:
        return split_length(&c, s->length);
    case SPLITTER_METASPACE:
        return metaspace(e, step, p);
    case SPLITTER_KINDS:
        break;
    }
    return error_set(e->err, LAMINA_E_UNSUPPORTED, "unknown pre-tokenizer step %d", (int)s->kind);
}

/* The text with stand-ins; the text itself when it needs none. */
static lamina_status see(encoder *e, const char *text, size_t bytes, const char **seen)
{
    text_buffer *b = &e->seen[TOKEN_MAX_STEPS];
    b->bytes = 0;
    *seen = text;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        if ((unsigned char)text[at] < 0xe0) { /* none is that short */
            at++;
            continue;
        }
        size_t n = utf8_read(text + at, bytes - at, &code);
        uint32_t other = unicode_stand_in(code);
        if (other != code && b->bytes == 0) TRY(buffer_append(e->m, b, text, bytes, e->err));
        if (other != code) utf8_write(other, b->data + at);
        at += n;
    }
    if (b->bytes) *seen = b->data;
    return LAMINA_OK;
}

lamina_status pretokenize(encoder *e, const char *text, size_t bytes)
{
    const char *seen = text;
    if (bytes == 0) return LAMINA_OK;
    if (e->t->n_splitters) TRY(see(e, text, bytes, &seen));
    return run_step(e, 0, (piece){text, seen, bytes, e->at_begin});
}

/* The compact form: what a store carries, so that opening it parses no JSON.
 *
 * Little-endian, in one pass, without padding:
 *
 *   magic "LAMTOKEN", version, header words, steps, added tokens, template ids, named texts,
 *   offsets [n_ids + 1], flags [n_ids], pieces, merges [n_merges] of left, right, made (and whether its rank is that
 *   of the one before)
 *
 * Hash tables and compiled patterns are made anew at load: they are cheap and nothing that they hold needs to be
 * believed. Every count, offset and id is checked; checksums are the store's. The same tokenizer gives the same
 * bytes. */
#include <stdlib.h>
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

static const char magic[8] = "LAMTOKEN";
enum { VERSION = 4, NONE = -1 };

/* ---- writing ------------------------------------------------------------------------------------------------ */

typedef struct writer {
    memory *m;
    text_buffer out;
    lamina_status status; /* the first failure; writing goes on as nothing */
    lamina_error *err;
} writer;

static void put_raw(writer *w, const void *data, size_t bytes)
{
    if (w->status == LAMINA_OK) w->status = buffer_append(w->m, &w->out, data, bytes, w->err);
}

static void put_u32(writer *w, uint32_t v)
{
    unsigned char b[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                          (unsigned char)(v >> 24)};
    put_raw(w, b, 4);
}

static void put_span(writer *w, text_span s)
{
    put_u32(w, s.bytes);
    put_raw(w, s.data, s.bytes);
}

static void put_steps(writer *w, const tokenizer *t)
{
    put_u32(w, t->n_normalizers);
    for (uint32_t i = 0; i < t->n_normalizers; i++) {
        const normalizer_step *s = &t->normalizers[i];
        put_u32(w, (uint32_t)s->kind);
        put_u32(w, (uint32_t)s->left | (uint32_t)s->right << 1 | (uint32_t)s->find.literal << 2 | s->flags << 3);
        put_span(w, s->find.source);
        put_span(w, s->content);
    }
    put_u32(w, t->n_splitters);
    for (uint32_t i = 0; i < t->n_splitters; i++) {
        const splitter_step *s = &t->splitters[i];
        put_u32(w, (uint32_t)s->kind);
        put_u32(w, (uint32_t)s->behavior);
        put_u32(w, (uint32_t)s->invert | (uint32_t)s->find.literal << 2);
        put_u32(w, (uint32_t)s->prepend);
        put_u32(w, s->length);
        put_span(w, s->find.source);
    }
    put_u32(w, t->n_decoders);
    for (uint32_t i = 0; i < t->n_decoders; i++) {
        const decoder_step *s = &t->decoders[i];
        put_u32(w, (uint32_t)s->kind);
        put_u32(w, (uint32_t)s->first_bare | (uint32_t)s->cleanup << 1);
        put_u32(w, s->start);
        put_u32(w, s->stop);
        put_span(w, s->find);
        put_span(w, s->content);
    }
}

static void put_added(writer *w, const tokenizer *t)
{
    put_u32(w, t->n_added);
    for (uint32_t i = 0; i < t->n_added; i++) {
        const added_token *a = &t->added[i];
        put_u32(w, a->id);
        put_u32(w, (uint32_t)a->special | (uint32_t)a->lstrip << 1 | (uint32_t)a->rstrip << 2 |
                       (uint32_t)a->normalized << 3 | (uint32_t)a->single_word << 4);
        put_span(w, a->text);
    }
    put_u32(w, t->n_before);
    for (uint32_t i = 0; i < t->n_before; i++) put_u32(w, t->before[i]);
    put_u32(w, t->n_after);
    for (uint32_t i = 0; i < t->n_after; i++) put_u32(w, t->after[i]);
    put_u32(w, t->n_texts);
    for (uint32_t i = 0; i < t->n_texts; i++) {
        put_span(w, (text_span){t->texts[i].name, (uint32_t)strlen(t->texts[i].name)});
        put_span(w, (text_span){t->texts[i].text, (uint32_t)strlen(t->texts[i].text)});
    }
}

static int compare_words(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The pairs in the order of their ranks, out of the table. Gaps between ranks are not kept. */
static void put_merges(writer *w, const bpe_model *b)
{
    uint32_t n = 0, last = UINT32_MAX;
    for (size_t i = 0; i <= b->pair_mask && b->n_merges; i++) n += b->pair_table[i] != 0;
    put_u32(w, n);
    if (w->status != LAMINA_OK) return;
    uint64_t *pairs = mem_array(w->m, MEM_TOKENIZER, n, sizeof *pairs, w->err);
    if (!pairs) {
        w->status = no_memory(w->err);
        return;
    }
    for (size_t i = 0, k = 0; i <= b->pair_mask && n; i++) { /* the rank in front, to sort by it */
        uint64_t word = ~b->pair_table[i];
        if (b->pair_table[i] != 0) pairs[k++] = word << 42 | word >> 22;
    }
    if (n) qsort(pairs, n, sizeof *pairs, compare_words);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rank = (uint32_t)(pairs[i] >> 42);
        put_u32(w, (uint32_t)(pairs[i] >> 21) & TOKEN_MAX_IDS);
        put_u32(w, (uint32_t)pairs[i] & TOKEN_MAX_IDS);
        put_u32(w, (b->merged[rank] & ~MERGE_SAME_RANK) | (rank == last ? MERGE_SAME_RANK : 0));
        last = rank;
    }
    mem_free(w->m, pairs);
}

static void put_double(writer *w, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_u32(w, (uint32_t)bits);
    put_u32(w, (uint32_t)(bits >> 32));
}

/* The map of characters; and of scored models the scores. */
static void put_scores(writer *w, const tokenizer *t)
{
    put_span(w, t->charsmap);
    if (!model_has_scores(t->kind)) return;
    put_u32(w, (uint32_t)t->scored.single | (uint32_t)t->scored.refind << 1);
    put_double(w, t->scored.unknown_score);
    for (uint32_t i = 0; i < t->vocab.n_ids; i++) put_double(w, t->scored.score[i]);
}

lamina_status tokenizer_save(memory *m, const tokenizer *t, void **data, size_t *bytes, lamina_error *err)
{
    writer w = {.m = m, .err = err};
    const vocabulary *v = &t->vocab;
    put_raw(&w, magic, sizeof magic);
    put_u32(&w, VERSION);
    put_u32(&w, (uint32_t)t->kind);
    put_u32(&w, (uint32_t)t->byte_level | (uint32_t)t->bpe.fuse_unknown << 1 | (uint32_t)t->bpe.byte_fallback << 2 |
                    (uint32_t)t->bpe.ignore_merges << 3);
    put_u32(&w, (uint32_t)t->bos);
    put_u32(&w, (uint32_t)t->eos);
    put_u32(&w, (uint32_t)t->bpe.unknown);
    for (unsigned i = 0; i < 256; i++) put_u32(&w, (uint32_t)t->bpe.byte_id[i]);
    put_span(&w, t->bpe.continuing);
    put_span(&w, t->bpe.word_end);
    put_u32(&w, (uint32_t)t->words.unknown);
    put_u32(&w, t->words.max_chars);
    put_span(&w, t->words.continuing);
    put_steps(&w, t);
    put_added(&w, t);
    put_u32(&w, v->n_ids);
    for (size_t i = 0; i <= v->n_ids; i++) put_u32(&w, v->offset[i]);
    put_raw(&w, v->flags, v->n_ids);
    put_raw(&w, v->text, v->offset[v->n_ids]);
    put_merges(&w, &t->bpe);
    put_scores(&w, t);
    if (w.status != LAMINA_OK) {
        mem_free(m, w.out.data);
        return w.status;
    }
    *data = w.out.data;
    *bytes = w.out.bytes;
    return LAMINA_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

typedef struct reader {
    tokenizer *t;
    const unsigned char *data;
    size_t bytes, at;
    bool bad; /* something was outside the data, or outside its range */
    const char *what;
    lamina_error *err;
} reader;

static void fail(reader *r, const char *what)
{
    if (!r->bad) r->what = what;
    r->bad = true;
}

static uint32_t load_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static const unsigned char *take(reader *r, size_t bytes)
{
    if (r->bad || bytes > r->bytes - r->at) {
        fail(r, "the end comes too early");
        return NULL;
    }
    r->at += bytes;
    return r->data + r->at - bytes;
}

static uint32_t get_u32(reader *r)
{
    const unsigned char *p = take(r, 4);
    return p ? load_u32(p) : 0;
}

static uint32_t get_below(reader *r, uint32_t limit, const char *what)
{
    uint32_t v = get_u32(r);
    if (v < limit) return v;
    fail(r, what);
    return 0;
}

static int32_t get_id(reader *r) /* or -1; checked against the vocabulary later */
{
    uint32_t v = get_u32(r);
    if (v != UINT32_MAX && v >= TOKEN_MAX_IDS) fail(r, "a token id");
    return v >= TOKEN_MAX_IDS ? NONE : (int32_t)v;
}

/* Text that must be UTF-8, copied. */
static lamina_status get_span(reader *r, text_span *out)
{
    uint32_t n = get_below(r, TOKEN_MAX_PATTERN + 1, "a text's length");
    const unsigned char *p = take(r, n);
    if (!p) return LAMINA_OK;
    if (utf8_valid((const char *)p, n) != n) {
        fail(r, "a text that is not UTF-8");
        return LAMINA_OK;
    }
    char *copy = arena_strndup(r->t->strings, (const char *)p, n, r->err);
    if (!copy) return no_memory(r->err);
    *out = (text_span){copy, n};
    return LAMINA_OK;
}

static lamina_status get_affix(reader *r, text_span *out)
{
    TRY(get_span(r, out));
    if (out->bytes > TOKEN_MAX_AFFIX) fail(r, "an affix");
    return LAMINA_OK;
}

static lamina_status get_normalizers(reader *r)
{
    tokenizer *t = r->t;
    t->n_normalizers = get_below(r, TOKEN_MAX_STEPS + 1, "the number of normalizers");
    for (uint32_t i = 0; i < t->n_normalizers && !r->bad; i++) {
        normalizer_step *s = &t->normalizers[i];
        s->kind = (normalizer_kind)get_below(r, NORMALIZE_KINDS, "a normalizer's kind");
        uint32_t flags = get_below(r, 256, "a normalizer's flags");
        s->flags = flags >> 3;
        s->left = flags & 1;
        s->right = (flags >> 1) & 1;
        s->find.literal = (flags >> 2) & 1;
        TRY(get_span(r, &s->find.source));
        TRY(get_span(r, &s->content));
        if (s->kind == NORMALIZE_REPLACE && s->find.source.bytes == 0) fail(r, "an empty pattern");
        if (s->kind == NORMALIZE_BYTE_CHARS && t->byte_chars) fail(r, "a second byte alphabet");
        t->byte_chars |= s->kind == NORMALIZE_BYTE_CHARS;
    }
    return LAMINA_OK;
}

/* What a step needs, and what may not stand behind the byte alphabet. */
static void check_splitter(reader *r, const splitter_step *s)
{
    bool text = s->kind == SPLITTER_PATTERN || s->kind == SPLITTER_METASPACE;
    if (text && s->find.source.bytes == 0) fail(r, "an empty pattern");
    if (s->kind == SPLITTER_LENGTH && s->length == 0) fail(r, "a piece's length");
    if (s->kind == SPLITTER_METASPACE && s->find.source.bytes > 4) fail(r, "a mark for spaces");
    if (!r->t->byte_chars) return;
    if (s->kind == SPLITTER_BYTE_CHARS) fail(r, "a second byte alphabet");
    if (s->kind == SPLITTER_PREFIX_SPACE || s->kind == SPLITTER_METASPACE) fail(r, "a space behind the byte alphabet");
}

static lamina_status get_splitters(reader *r)
{
    tokenizer *t = r->t;
    t->n_splitters = get_below(r, TOKEN_MAX_STEPS + 1, "the number of pre-tokenizers");
    for (uint32_t i = 0; i < t->n_splitters && !r->bad; i++) {
        splitter_step *s = &t->splitters[i];
        s->kind = (splitter_kind)get_below(r, SPLITTER_KINDS, "a pre-tokenizer's kind");
        s->behavior = (split_behavior)get_below(r, SPLIT_BEHAVIORS, "a split's behaviour");
        uint32_t flags = get_u32(r);
        s->invert = flags & 1;
        s->find.literal = (flags >> 2) & 1;
        s->prepend = (prepend_scheme)get_below(r, PREPEND_SCHEMES, "a prepend scheme");
        s->length = get_u32(r);
        TRY(get_span(r, &s->find.source));
        check_splitter(r, s);
        t->byte_chars |= s->kind == SPLITTER_BYTE_CHARS;
    }
    if (t->byte_chars && !t->byte_level) fail(r, "a byte alphabet for a model of characters");
    return LAMINA_OK;
}

static lamina_status get_decoders(reader *r)
{
    tokenizer *t = r->t;
    t->n_decoders = get_below(r, TOKEN_MAX_STEPS + 1, "the number of decoders");
    for (uint32_t i = 0; i < t->n_decoders && !r->bad; i++) {
        decoder_step *s = &t->decoders[i];
        s->kind = (decoder_kind)get_below(r, DECODE_KINDS, "a decoder's kind");
        uint32_t flags = get_below(r, 4, "a decoder's flags");
        s->first_bare = flags & 1;
        s->cleanup = flags >> 1 & 1;
        s->start = get_u32(r);
        s->stop = get_u32(r);
        TRY(get_span(r, &s->find));
        TRY(get_span(r, &s->content));
        bool finds = s->kind == DECODE_REPLACE || s->kind == DECODE_METASPACE || s->kind == DECODE_WORD_END;
        if ((finds && s->find.bytes == 0) || (s->kind == DECODE_STRIP && s->content.bytes == 0))
            fail(r, "an empty pattern");
    }
    return LAMINA_OK;
}

static lamina_status get_added(reader *r)
{
    tokenizer *t = r->t;
    uint32_t n = get_below(r, 1u << 16, "the number of added tokens");
    if (n > (r->bytes - r->at) / 12) fail(r, "the number of added tokens");
    if (r->bad) return LAMINA_OK;
    t->added = mem_array(t->m, MEM_TOKENIZER, n, sizeof *t->added, r->err);
    if (!t->added) return no_memory(r->err);
    for (t->n_added = 0; t->n_added < n && !r->bad; t->n_added++) {
        added_token *a = &t->added[t->n_added];
        a->id = get_below(r, TOKEN_MAX_IDS, "a token id");
        uint32_t flags = get_u32(r);
        a->special = flags & 1;
        a->lstrip = flags >> 1 & 1;
        a->rstrip = flags >> 2 & 1;
        a->normalized = flags >> 3 & 1;
        a->single_word = flags >> 4 & 1;
        TRY(get_span(r, &a->text));
    }
    return LAMINA_OK;
}

static lamina_status get_around(reader *r, uint32_t **list, uint32_t *n)
{
    uint32_t count = get_below(r, 1025, "the length of a template");
    if (r->bad) return LAMINA_OK;
    *list = mem_array(r->t->m, MEM_TOKENIZER, count, sizeof **list, r->err);
    if (!*list) return no_memory(r->err);
    *n = count;
    for (uint32_t i = 0; i < count; i++) (*list)[i] = get_below(r, TOKEN_MAX_IDS, "a token id");
    return LAMINA_OK;
}

static lamina_status get_texts(reader *r)
{
    uint32_t n = get_below(r, TOKEN_MAX_TEXTS + 1, "the number of named texts");
    for (uint32_t i = 0; i < n && !r->bad; i++) {
        text_span name = {0};
        TRY(get_span(r, &name));
        uint32_t bytes = get_below(r, TOKEN_MAX_TEXT + 1, "a named text's length");
        const unsigned char *text = take(r, bytes);
        if (text) TRY(tokenizer_set_text(r->t, name.data, (const char *)text, bytes, r->err));
    }
    return LAMINA_OK;
}

static lamina_status get_vocabulary(reader *r)
{
    tokenizer *t = r->t;
    vocabulary *v = &t->vocab;
    uint32_t n = get_below(r, TOKEN_MAX_IDS + 1, "the number of ids");
    const unsigned char *offsets = take(r, ((size_t)n + 1) * 4), *flags = take(r, n);
    if (r->bad) return LAMINA_OK;
    v->offset = mem_array(t->m, MEM_TOKENIZER, (size_t)n + 1, sizeof *v->offset, r->err);
    if (!v->offset) return no_memory(r->err);
    v->flags = mem_alloc(t->m, MEM_TOKENIZER, n, r->err);
    if (!v->flags) return no_memory(r->err);
    for (uint32_t i = 0; i <= n; i++) {
        v->offset[i] = load_u32(offsets + (size_t)i * 4);
        if (i ? v->offset[i] < v->offset[i - 1] : v->offset[0] != 0) fail(r, "the offsets of the pieces");
    }
    const unsigned char *text = take(r, v->offset[n]);
    if (r->bad) return LAMINA_OK;
    v->text = mem_alloc(t->m, MEM_TOKENIZER, v->offset[n] ? v->offset[n] : 1, r->err);
    if (!v->text) return no_memory(r->err);
    memcpy(v->text, text, v->offset[n]);
    memcpy(v->flags, flags, n);
    bool characters = t->byte_level || utf8_valid(v->text, v->offset[n]) == v->offset[n];
    for (uint32_t i = 0; i < n; i++) {
        if (v->flags[i] >= 2 * PIECE_UNUSED) fail(r, "a piece's flags");
        bool begins = t->byte_level || v->offset[i] == v->offset[n] || (v->text[v->offset[i]] & 0xc0) != 0x80;
        if (!characters || !begins) fail(r, "a piece that is not UTF-8");
    }
    v->n_ids = n;
    return LAMINA_OK;
}

/* Ids that stand before the vocabulary in the file. */
static void check_ids(reader *r)
{
    const tokenizer *t = r->t;
    uint32_t n = t->vocab.n_ids;
    bool inside =
        t->bos < (int64_t)n && t->eos < (int64_t)n && t->bpe.unknown < (int64_t)n && t->words.unknown < (int64_t)n;
    for (unsigned i = 0; i < 256; i++) inside &= t->bpe.byte_id[i] < (int64_t)n;
    for (uint32_t i = 0; i < t->n_before; i++) inside &= t->before[i] < n;
    for (uint32_t i = 0; i < t->n_after; i++) inside &= t->after[i] < n;
    for (uint32_t i = 0; i < t->n_added; i++) inside &= t->added[i].id < n;
    if (!inside) fail(r, "a token id");
}

static lamina_status get_merges(reader *r, uint64_t **pairs)
{
    tokenizer *t = r->t;
    uint32_t n = get_below(r, TOKEN_MAX_MERGES + 1, "the number of merges"), ids = t->vocab.n_ids;
    const unsigned char *p = take(r, (size_t)n * 12);
    if (r->bad) return LAMINA_OK;
    t->bpe.merged = mem_array(t->m, MEM_TOKENIZER, n, sizeof *t->bpe.merged, r->err);
    if (!t->bpe.merged) return no_memory(r->err);
    *pairs = mem_array(t->m, MEM_TOKENIZER, n, sizeof **pairs, r->err);
    if (!*pairs) return no_memory(r->err);
    t->bpe.n_merges = n;
    for (uint32_t i = 0; i < n; i++, p += 12) {
        uint32_t left = load_u32(p), right = load_u32(p + 4), made = load_u32(p + 8);
        bool same = (made & MERGE_SAME_RANK) != 0;
        if (left >= ids || right >= ids || (made & ~MERGE_SAME_RANK) >= ids) fail(r, "a merge's token id");
        if (same && (i == 0 || (t->bpe.merged[i - 1] ^ made) & ~MERGE_SAME_RANK)) fail(r, "a merge's rank");
        (*pairs)[i] = pair_key(left, right);
        t->bpe.merged[i] = made;
    }
    return LAMINA_OK;
}

static double get_score(reader *r)
{
    const unsigned char *p = take(r, 8);
    uint64_t bits = p ? load_u32(p) | (uint64_t)load_u32(p + 4) << 32 : 0;
    double v;
    memcpy(&v, &bits, sizeof v);
    if (v >= -2 * SCORE_LIMIT && v <= SCORE_LIMIT) return v;
    fail(r, "a score");
    return 0;
}

static lamina_status get_scores(reader *r)
{
    tokenizer *t = r->t;
    uint32_t n = get_u32(r);
    const unsigned char *map = take(r, n);
    if (map && n) {
        if (charsmap_check("tokenizer", (const char *)map, n, NULL) != LAMINA_OK) fail(r, "the map of characters");
        char *copy = arena_strndup(t->strings, (const char *)map, n, r->err);
        if (!copy) return no_memory(r->err);
        t->charsmap = (text_span){copy, n};
    }
    if (!model_has_scores(t->kind)) return LAMINA_OK;
    uint32_t flags = get_below(r, 4, "the model's flags");
    t->scored.single = flags & 1;
    t->scored.refind = flags >> 1 & 1;
    t->scored.unknown_score = get_score(r);
    if (r->bad || t->byte_level) {
        fail(r, "scores of bytes");
        return LAMINA_OK;
    }
    t->scored.score = mem_array(t->m, MEM_TOKENIZER, t->vocab.n_ids, sizeof *t->scored.score, r->err);
    if (!t->scored.score) return no_memory(r->err);
    for (uint32_t i = 0; i < t->vocab.n_ids; i++) t->scored.score[i] = get_score(r);
    return LAMINA_OK;
}

static lamina_status get_affixes(reader *r)
{
    tokenizer *t = r->t;
    TRY(get_affix(r, &t->bpe.continuing));
    TRY(get_affix(r, &t->bpe.word_end));
    if ((t->bpe.continuing.bytes || t->bpe.word_end.bytes) && (t->byte_level || t->bpe.byte_fallback))
        fail(r, "an affix of bytes");
    t->words.unknown = get_id(r);
    t->words.max_chars = get_below(r, TOKEN_MAX_WORD + 1, "a word's length");
    bool words = t->kind == MODEL_WORDPIECE || t->kind == MODEL_WORDLEVEL;
    if (words && (t->words.unknown < 0 || t->byte_level)) fail(r, "the model of words");
    return get_affix(r, &t->words.continuing);
}

static lamina_status read_all(reader *r, uint64_t **pairs)
{
    tokenizer *t = r->t;
    t->kind = (model_kind)get_below(r, MODEL_KINDS, "the kind of model");
    uint32_t flags = get_below(r, 16, "the model's flags");
    t->byte_level = flags & 1;
    t->bpe.fuse_unknown = flags >> 1 & 1;
    t->bpe.byte_fallback = flags >> 2 & 1;
    t->bpe.ignore_merges = flags >> 3 & 1;
    if (t->byte_level && t->bpe.byte_fallback) fail(r, "the model's flags");
    t->bos = get_id(r);
    t->eos = get_id(r);
    t->bpe.unknown = get_id(r);
    for (unsigned i = 0; i < 256; i++) t->bpe.byte_id[i] = get_id(r);
    TRY(get_affixes(r));
    TRY(get_normalizers(r));
    TRY(get_splitters(r));
    TRY(get_decoders(r));
    TRY(get_added(r));
    TRY(get_around(r, &t->before, &t->n_before));
    TRY(get_around(r, &t->after, &t->n_after));
    TRY(get_texts(r));
    TRY(get_vocabulary(r));
    check_ids(r);
    TRY(get_merges(r, pairs));
    TRY(get_scores(r));
    if (r->at != r->bytes) fail(r, "bytes behind the end");
    return LAMINA_OK;
}

lamina_status tokenizer_load(memory *m, const void *data, size_t bytes, const char *name, tokenizer **out,
                             lamina_error *err)
{
    *out = NULL;
    reader r = {.data = data, .bytes = bytes, .err = err};
    if (bytes < sizeof magic + 4 || memcmp(data, magic, sizeof magic) != 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: not a tokenizer", name);
    r.at = sizeof magic;
    uint32_t version = get_u32(&r);
    if (version != VERSION)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: tokenizer version %u, %d is read", name, version, VERSION);
    r.t = tokenizer_new(m, err);
    if (!r.t) return no_memory(err);
    uint64_t *pairs = NULL;
    lamina_status status = read_all(&r, &pairs);
    if (status == LAMINA_OK && r.bad)
        status = error_set(err, LAMINA_E_FORMAT, "%s: %s is wrong at byte %zu of %zu", name, r.what, r.at, bytes);
    if (status == LAMINA_OK) status = tokenizer_seal(r.t, name, pairs, err);
    mem_free(m, pairs);
    if (status != LAMINA_OK) {
        tokenizer_free(r.t);
        return status;
    }
    *out = r.t;
    return LAMINA_OK;
}

/* Byte-pair encoding by scores, as sentencepiece does it: of all neighbours that together spell a piece, those with the
 * best score are merged first, the leftmost of equals, whatever they are themselves (Kudo & Richardson 2018,
 * bpe_model.cc). User-defined pieces are cut out before and stay as they are; unused ones are taken apart again as they
 * were last put together.
 *
 * A merge is looked up by the text of both symbols, which lie side by side: nothing but pieces and scores is held, and
 * symbols without a piece of their own merge as well. Where no piece of the vocabulary goes over the begin of a word,
 * words are merged one by one and remembered; else the text is one word, and a heap keeps it at n log n. */
#include <stdlib.h>
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

#define NOWHERE UINT32_MAX
#define NO_RANK UINT32_MAX
static const char mark[3] = {'\xe2', '\x96', '\x81'}; /* U+2581 */

static bool is_mark(const char *text, size_t bytes)
{
    return bytes >= sizeof mark && memcmp(text, mark, sizeof mark) == 0;
}

/* ---- unknown characters ------------------------------------------------------------------------------------- */

void scored_unknown_add(encoder *e, size_t begin, size_t end)
{
    if (e->unknown_begin == e->unknown_end) e->unknown_begin = begin;
    e->unknown_end = end;
}

/* A run of unknown characters: its bytes' tokens, if there is one for each, else the unknown token, once. */
lamina_status scored_unknown_flush(encoder *e, const char *text)
{
    const bpe_model *b = &e->t->bpe;
    size_t n = e->unknown_end - e->unknown_begin;
    const char *at = text + e->unknown_begin;
    if (n == 0) return LAMINA_OK;
    e->unknown_begin = e->unknown_end = 0;
    int32_t whole = e->t->scored.refind ? vocabulary_find(&e->t->vocab, at, n) : -1;
    if (whole >= 0) return encoder_emit(e, (uint32_t)whole);
    bool bytes = b->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++) bytes = b->byte_id[(unsigned char)at[i]] >= 0;
    for (size_t i = 0; i < n && bytes; i++) TRY(encoder_emit(e, (uint32_t)b->byte_id[(unsigned char)at[i]]));
    if (bytes) return LAMINA_OK;
    if (b->unknown >= 0) return encoder_emit(e, (uint32_t)b->unknown);
    return error_set(e->err, LAMINA_E_FORMAT, "the tokenizer has no token for \"%.*s\" and none for the unknown",
                     (int)(n < 16 ? n : 16), at);
}

/* ---- merging ------------------------------------------------------------------------------------------------ */

static void rank_pair(encoder *e, const char *text, uint32_t at, size_t *n_heap)
{
    const tokenizer *t = e->t;
    scored_symbol *s = e->scored, *a = &s[at];
    a->rank = NO_RANK;
    if (a->next == NOWHERE || a->frozen || s[a->next].frozen) return;
    uint32_t bytes = a->bytes + s[a->next].bytes;
    if (bytes > t->scored.longest) return;
    a->made = vocabulary_find(&t->vocab, text + a->begin, bytes);
    if (a->made < 0) return;
    a->rank = t->scored.rank[a->made];
    if (t->vocab.flags[a->made] & PIECE_UNUSED) e->unused[a->made] = a->bytes;
    bpe_heap_push(e->heap, n_heap, (uint64_t)a->rank << 32 | at);
}

static void merge_pairs(encoder *e, const char *text, size_t n)
{
    scored_symbol *s = e->scored;
    size_t n_heap = 0;
    for (size_t i = 0; i < n; i++) rank_pair(e, text, (uint32_t)i, &n_heap);
    while (n_heap > 0) {
        uint64_t top = bpe_heap_pop(e->heap, &n_heap);
        uint32_t at = (uint32_t)top, right = s[at].next;
        if (s[at].rank != (uint32_t)(top >> 32)) continue; /* the pair is no more */
        s[at].id = s[at].made;
        s[at].bytes += s[right].bytes;
        s[at].next = s[right].next;
        if (s[at].next != NOWHERE) s[s[at].next].previous = at;
        s[right].rank = NO_RANK;
        if (s[at].previous != NOWHERE) rank_pair(e, text, s[at].previous, &n_heap);
        rank_pair(e, text, at, &n_heap);
    }
}

/* Characters and user-defined pieces of text -> e->scored; returns their number. */
static size_t first_symbols(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    size_t n = 0;
    for (size_t at = 0; at < bytes; n++) {
        const matcher_entry *user = t->user.n ? matcher_longest(&t->user, text + at, bytes - at) : NULL;
        scored_symbol *s = &e->scored[n];
        *s = (scored_symbol){.begin = (uint32_t)at, .frozen = user != NULL, .made = -1};
        s->bytes = user ? user->text.bytes : (uint32_t)utf8_length(text[at]);
        s->id = user ? (int32_t)user->token : vocabulary_find(&t->vocab, text + at, s->bytes);
        s->previous = n ? (uint32_t)n - 1 : NOWHERE;
        at += s->bytes;
        s->next = at < bytes ? (uint32_t)n + 1 : NOWHERE;
    }
    return n;
}

static lamina_status reserve(encoder *e, size_t bytes)
{
    if (bytes >= NOWHERE / 4) return error_set(e->err, LAMINA_E_USAGE, "a word of %zu bytes is too long", bytes);
    if (e->scored_capacity < bytes) {
        scored_symbol *s = mem_resize(e->m, MEM_TOKENIZER, e->scored, bytes * sizeof *s, e->err);
        if (!s) return no_memory(e->err);
        e->scored = s;
        e->scored_capacity = bytes;
    }
    if (e->heap_capacity < bytes * 2) { /* a merge takes one away and adds two; at most n - 1 merges */
        uint64_t *h = mem_resize(e->m, MEM_TOKENIZER, e->heap, bytes * 2 * sizeof *h, e->err);
        if (!h) return no_memory(e->err);
        e->heap = h;
        e->heap_capacity = bytes * 2;
    }
    if (!e->t->scored.has_unused || e->unused) return LAMINA_OK;
    e->unused = mem_array(e->m, MEM_TOKENIZER, e->t->vocab.n_ids, sizeof *e->unused, e->err);
    return e->unused ? LAMINA_OK : no_memory(e->err);
}

/* The piece at text + begin. An unused one is what it was made of; the parts are shorter, and looked up in turn. */
static lamina_status emit_piece(encoder *e, const char *text, size_t begin, size_t bytes, int32_t id)
{
    uint32_t left = 0;
    while (id >= 0 && (e->t->vocab.flags[id] & PIECE_UNUSED) && (left = e->unused[id]) > 0 && left < bytes) {
        const char *at = text + begin;
        TRY(emit_piece(e, text, begin, left, vocabulary_find(&e->t->vocab, at, left)));
        begin += left;
        bytes -= left;
        id = vocabulary_find(&e->t->vocab, at + left, bytes);
    }
    if (id < 0) {
        scored_unknown_add(e, begin, begin + bytes);
        return LAMINA_OK;
    }
    TRY(scored_unknown_flush(e, text));
    return encoder_emit(e, (uint32_t)id);
}

/* ---- words -------------------------------------------------------------------------------------------------- */

size_t scored_word_end(const scored_model *s, const char *text, size_t bytes, size_t at)
{
    if (!s->cuts) return bytes;
    while (is_mark(text + at, bytes - at)) at += sizeof mark;
    while (at < bytes) {
        const char *next = memchr(text + at, mark[0], bytes - at);
        if (!next) return bytes;
        at = (size_t)(next - text);
        if (is_mark(next, bytes - at)) return at;
        at++;
    }
    return at;
}

static lamina_status encode_word(encoder *e, const char *text, size_t begin, size_t end)
{
    size_t bytes = end - begin;
    const char *at = text + begin;
    word_entry *word = NULL;
    if (e->cache && bytes <= WORD_CACHE_TEXT) {
        word = &e->cache[hash_bytes(at, bytes) % WORD_CACHE_SIZE];
        if (word->bytes == bytes && memcmp(word->text, at, bytes) == 0) {
            TRY(scored_unknown_flush(e, text));
            for (unsigned i = 0; i < word->n; i++) TRY(encoder_emit(e, word->ids[i]));
            return LAMINA_OK;
        }
    }
    TRY(reserve(e, bytes));
    size_t n = first_symbols(e, at, bytes);
    merge_pairs(e, at, n);
    bool known = true; /* words with unknown characters at their ends depend on their neighbours */
    unsigned kept = 0;
    uint32_t ids[WORD_CACHE_IDS];
    for (uint32_t i = n ? 0 : NOWHERE; i != NOWHERE; i = e->scored[i].next) {
        const scored_symbol *s = &e->scored[i];
        known &= s->id >= 0 && !(e->t->vocab.flags[s->id] & PIECE_UNUSED);
        if (known && kept < WORD_CACHE_IDS) ids[kept] = (uint32_t)s->id;
        kept++;
        TRY(emit_piece(e, text, begin + s->begin, s->bytes, s->id));
    }
    if (!word || !known || kept > WORD_CACHE_IDS) return LAMINA_OK;
    word->bytes = (uint8_t)bytes;
    word->n = (uint8_t)kept;
    memcpy(word->text, at, bytes);
    memcpy(word->ids, ids, kept * sizeof *ids);
    return LAMINA_OK;
}

lamina_status scored_encode(encoder *e, const char *text, size_t bytes)
{
    e->unknown_begin = e->unknown_end = 0;
    for (size_t at = 0, end; at < bytes; at = end) {
        end = scored_word_end(&e->t->scored, text, bytes, at);
        TRY(encode_word(e, text, at, end));
    }
    return scored_unknown_flush(e, text);
}

/* ---- what the scores mean ----------------------------------------------------------------------------------- */

typedef struct scored_id {
    double score;
    uint32_t id;
} scored_id;

static int compare_scores(const void *a, const void *b)
{
    const scored_id *x = a, *y = b;
    return x->score > y->score ? -1 : x->score < y->score;
}

/* Models list their pieces by falling score, but for a few: only those are sorted. */
static lamina_status seal_ranks(tokenizer *t, lamina_error *err)
{
    uint32_t n = t->vocab.n_ids, falling = 0, rest = 0, a = 0, b = 0, rank = 0;
    const double *score = t->scored.score;
    t->scored.rank = mem_array(t->m, MEM_TOKENIZER, n, sizeof *t->scored.rank, err);
    if (!t->scored.rank) return no_memory(err);
    scored_id *order = mem_array(t->m, MEM_TOKENIZER, n, sizeof *order, err);
    if (!order) return no_memory(err);
    for (uint32_t i = 0; i < n; i++) {
        if (!(t->vocab.flags[i] & PIECE_LOOKUP)) continue;
        bool falls = falling == 0 || score[i] <= order[falling - 1].score;
        order[falls ? falling++ : n - ++rest] = (scored_id){score[i], i};
    }
    const scored_id *others = order + n - rest, *last = NULL;
    if (rest) qsort(order + n - rest, rest, sizeof *order, compare_scores);
    for (uint32_t i = 0; i < falling + rest; i++) {
        bool first = b == rest || (a < falling && order[a].score >= others[b].score);
        const scored_id *now = first ? &order[a++] : &others[b++];
        if (last && now->score != last->score) rank = i;
        t->scored.rank[now->id] = rank;
        last = now;
    }
    mem_free(t->m, order);
    return LAMINA_OK;
}

static lamina_status seal_user(tokenizer *t, lamina_error *err)
{
    const vocabulary *v = &t->vocab;
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n_ids; i++) n += (v->flags[i] & PIECE_USER) != 0;
    matcher_entry *entries = mem_array(t->m, MEM_TOKENIZER, n, sizeof *entries, err);
    if (!entries) return no_memory(err);
    n = 0;
    for (uint32_t i = 0; i < v->n_ids; i++) {
        uint32_t bytes = v->offset[i + 1] - v->offset[i];
        if ((v->flags[i] & PIECE_USER) && bytes) entries[n++] = (matcher_entry){{v->text + v->offset[i], bytes}, i};
    }
    lamina_status status = matcher_seal(t, &t->user, entries, n, err);
    mem_free(t->m, entries);
    return status;
}

/* Whether U+2581 stands behind another character. */
static bool goes_over(const char *text, size_t bytes)
{
    size_t at = 0;
    while (is_mark(text + at, bytes - at)) at += sizeof mark;
    for (const char *next; at < bytes && (next = memchr(text + at, mark[0], bytes - at)) != NULL; at++) {
        at = (size_t)(next - text);
        if (is_mark(next, bytes - at)) return true;
    }
    return false;
}

lamina_status scored_seal(tokenizer *t, const char *name, lamina_error *err)
{
    const vocabulary *v = &t->vocab;
    scored_model *s = &t->scored;
    s->cuts = true;
    for (uint32_t i = 0; i < v->n_ids; i++) {
        uint32_t bytes = v->offset[i + 1] - v->offset[i];
        if (!(v->flags[i] & PIECE_LOOKUP)) continue;
        if (bytes == 0) return error_set(err, LAMINA_E_FORMAT, "%s: piece %u is empty", name, i);
        if (bytes > s->longest) s->longest = bytes;
        if (v->flags[i] & PIECE_UNUSED) s->has_unused = true;
        if (goes_over(v->text + v->offset[i], bytes)) s->cuts = false;
    }
    if (s->has_unused && t->kind == MODEL_SCORED) s->cuts = false; /* what was merged last is so in the whole text */
    TRY(seal_user(t, err));
    return t->kind == MODEL_UNIGRAM ? unigram_seal(t, err) : seal_ranks(t, err);
}

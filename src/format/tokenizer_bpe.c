/* Byte-pair encoding: of all adjacent pairs, the one learnt first is merged first, the leftmost of equals first, until
 * none is left (Sennrich et al. 2016; ties and unknown characters as Hugging Face's tokenizers resolves them).
 *
 * A pair's rank is one look-up in an open-addressing table of 64-bit words that hold both ids and the rank: one cache
 * line. Short words find their least rank by scanning; long ones keep a heap, so that a megabyte without a space costs
 * n log n. Long texts repeat their words: a direct-mapped cache of one call remembers the ids of the last ones.
 *
 * Vocabularies that came from SentencePiece take a whole text as one word. Where their merges never join U+2581 to what
 * stands before it, which bpe_seal() finds out, the text is cut there: the ids are the same, and the cache pays. */
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

#define NO_RANK UINT32_MAX
#define NOWHERE UINT32_MAX
enum { RANK_BITS = 22, SHORT_WORD = 40 };

static size_t pair_place(const bpe_model *b, uint64_t key)
{
    return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> b->pair_shift);
}

static inline uint32_t pair_rank(const bpe_model *b, uint32_t left, uint32_t right)
{
    uint64_t key = pair_key(left, right);
    for (size_t at = pair_place(b, key);; at = (at + 1) & b->pair_mask) {
        uint64_t word = ~b->pair_table[at];
        if (word == UINT64_MAX) return NO_RANK;
        if ((word ^ key) >> RANK_BITS == 0) return (uint32_t)word & TOKEN_MAX_MERGES;
    }
}

static bool find_cuts(const tokenizer *t, const uint64_t *pairs, bool joined[256]);

/* A pair given twice has its last rank. Pairs marked MERGE_SAME_RANK share the rank of the first one before them. */
lamina_status bpe_seal(tokenizer *t, const char *name, const uint64_t *pairs, lamina_error *err)
{
    bpe_model *b = &t->bpe;
    unsigned bits = 4;
    while ((UINT64_C(1) << bits) * 2 < (uint64_t)b->n_merges * 3) bits++;
    size_t size = (size_t)1 << bits;
    b->pair_table = mem_array(t->m, MEM_TOKENIZER, size, sizeof *b->pair_table, err);
    if (!b->pair_table) return no_memory(err);
    b->pair_mask = size - 1;
    b->pair_shift = 64 - bits;
    for (uint32_t i = 0, rank = 0; i < b->n_merges; i++) {
        enum { AHEAD = 16 }; /* places are random: fetch them before they are needed */
        if (i + AHEAD < b->n_merges) __builtin_prefetch(&b->pair_table[pair_place(b, pairs[i + AHEAD])], 1);
        uint64_t key = pairs[i];
        if (!(b->merged[i] & MERGE_SAME_RANK)) rank = i;
        size_t at = pair_place(b, key), probes = 0;
        while (b->pair_table[at] != 0 && (~b->pair_table[at] ^ key) >> RANK_BITS != 0) {
            if (++probes > TOKEN_MAX_PROBE)
                return error_set(err, LAMINA_E_FORMAT, "%s: the merges collide on purpose", name);
            at = (at + 1) & b->pair_mask;
        }
        b->pair_table[at] = ~(key | rank);
    }
    b->cuts = find_cuts(t, pairs, b->joined);
    return LAMINA_OK;
}

/* ---- where a text may be cut -------------------------------------------------------------------------------- */

static const char space_mark[] = "\xe2\x96\x81"; /* U+2581 */
enum { MARK_BYTES = 3 };

static bool begins_with_mark(const char *text, size_t bytes)
{
    return bytes >= MARK_BYTES && memcmp(text, space_mark, MARK_BYTES) == 0;
}

static bool ends_with_mark(const char *text, size_t bytes)
{
    return bytes >= MARK_BYTES && memcmp(text + bytes - MARK_BYTES, space_mark, MARK_BYTES) == 0;
}

/* Symbols whose text is not their spelling (bytes' tokens end with '>', the unknown token) must not take part. */
static bool find_cuts(const tokenizer *t, const uint64_t *pairs, bool joined[256])
{
    const bpe_model *b = &t->bpe;
    const vocabulary *v = &t->vocab;
    if (t->byte_level || b->ignore_merges || b->continuing.bytes || b->word_end.bytes) return false;
    if (vocabulary_find(v, space_mark, MARK_BYTES) < 0) return false;
    for (uint32_t i = 0; i < b->n_merges; i++) {
        uint32_t left = (uint32_t)(pairs[i] >> 43), right = (uint32_t)(pairs[i] >> 22) & TOKEN_MAX_IDS;
        size_t bytes = v->offset[left + 1] - v->offset[left], right_bytes = v->offset[right + 1] - v->offset[right];
        const char *text = v->text + v->offset[left];
        if (bytes == 0 || right_bytes == 0 || (int64_t)left == b->unknown || (int64_t)right == b->unknown) return false;
        if (!begins_with_mark(v->text + v->offset[right], right_bytes) || ends_with_mark(text, bytes)) continue;
        if (text[bytes - 1] == '>') return false;
        joined[(unsigned char)text[bytes - 1]] = true;
    }
    return true;
}

/* The end of the part that begins at `at`. */
static size_t next_cut(const bpe_model *b, const char *text, size_t bytes, size_t at)
{
    bool after_mark = begins_with_mark(text + at, bytes - at);
    at += after_mark ? MARK_BYTES : 1;
    while (at < bytes) {
        const char *mark = memchr(text + at, space_mark[0], bytes - at);
        if (!mark) return bytes;
        size_t found = (size_t)(mark - text);
        if (found != at) after_mark = false;
        if (!begins_with_mark(mark, bytes - found)) {
            at = found + 1;
            after_mark = false;
            continue;
        }
        if (!after_mark && !b->joined[(unsigned char)text[found - 1]]) return found;
        at = found + MARK_BYTES;
        after_mark = true;
    }
    return bytes;
}

/* ---- the first symbols -------------------------------------------------------------------------------------- */

typedef struct symbol_reader { /* characters not in the vocabulary wait here, to be fused */
    int32_t unknown;
    size_t n;
} symbol_reader;

/* What stands for a character (or byte) outside the vocabulary: its bytes' tokens, else the unknown token, else none.
 * text: the character as the model spells it. Returns how many ids were written to out [4]. */
static size_t unknown_symbols(const bpe_model *b, const char *text, size_t bytes, symbol_reader *r, uint32_t *out)
{
    if (b->byte_fallback) {
        size_t n = 0;
        while (n < bytes && b->byte_id[(unsigned char)text[n]] >= 0) {
            out[n] = (uint32_t)b->byte_id[(unsigned char)text[n]];
            n++;
        }
        if (n == bytes) return n;
    }
    if (b->unknown < 0) return 0;
    size_t flushed = 0;
    if (r->unknown >= 0 && !b->fuse_unknown) out[flushed++] = (uint32_t)r->unknown;
    r->unknown = b->unknown;
    return flushed;
}

/* A character with the affixes that its place in the word gives it. Such models have no byte fallback. */
static int32_t find_affixed(const tokenizer *t, const char *text, size_t length, bool first, bool last)
{
    const bpe_model *b = &t->bpe;
    char spelt[2 * TOKEN_MAX_AFFIX + 4];
    size_t n = 0;
    if (!first && b->continuing.bytes) {
        memcpy(spelt, b->continuing.data, b->continuing.bytes);
        n = b->continuing.bytes;
    }
    memcpy(spelt + n, text, length);
    n += length;
    if (last && b->word_end.bytes) {
        memcpy(spelt + n, b->word_end.data, b->word_end.bytes);
        n += b->word_end.bytes;
    }
    return vocabulary_find(&t->vocab, spelt, n);
}

static int32_t find_symbol(const tokenizer *t, const char *text, size_t bytes, size_t at, size_t length)
{
    if (t->byte_level) return t->bpe.byte_id[(unsigned char)text[at]];
    if (t->bpe.continuing.bytes || t->bpe.word_end.bytes)
        return find_affixed(t, text + at, length, at == 0, at + length == bytes);
    return vocabulary_find(&t->vocab, text + at, length);
}

/* Ids of the text's bytes or characters -> out [bytes + 1]; returns their number. */
static size_t first_symbols(const tokenizer *t, const char *text, size_t bytes, uint32_t *out)
{
    const bpe_model *b = &t->bpe;
    symbol_reader r = {.unknown = -1};
    size_t n = 0;
    for (size_t at = 0; at < bytes;) {
        size_t length = t->byte_level ? 1 : utf8_length(text[at]);
        int32_t id = find_symbol(t, text, bytes, at, length);
        if (id >= 0) {
            if (r.unknown >= 0) out[n++] = (uint32_t)r.unknown;
            r.unknown = -1;
            out[n++] = (uint32_t)id;
        } else {
            n += unknown_symbols(b, text + at, length, &r, out + n);
        }
        at += length;
    }
    if (r.unknown >= 0) out[n++] = (uint32_t)r.unknown;
    return n;
}

/* ---- merging ------------------------------------------------------------------------------------------------ */

/* ids [n] are merged in place; returns how many remain. n is small. */
static size_t merge_short(const bpe_model *b, uint32_t *ids, size_t n)
{
    uint32_t rank[SHORT_WORD + 1];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = pair_rank(b, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        ids[best] = b->merged[rank[best]];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof *rank);
        if (best > 0) rank[best - 1] = pair_rank(b, ids[best - 1], ids[best]);
        if (best + 1 < n) rank[best] = pair_rank(b, ids[best], ids[best + 1]);
    }
    return n;
}

/* A heap of rank << 32 | position, least first. */
void bpe_heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t at = (*n)++;
    while (at > 0 && heap[(at - 1) / 2] > key) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = key;
}

uint64_t bpe_heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0], last = heap[--*n];
    size_t at = 0, child;
    while ((child = at * 2 + 1) < *n) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

static void rank_symbol(const bpe_model *b, bpe_symbol *s, uint32_t at, uint64_t *heap, size_t *n_heap)
{
    s[at].rank = s[at].next == NOWHERE ? NO_RANK : pair_rank(b, s[at].id, s[s[at].next].id);
    if (s[at].rank != NO_RANK) bpe_heap_push(heap, n_heap, (uint64_t)s[at].rank << 32 | at);
}

static void merge_long(const bpe_model *b, bpe_symbol *s, size_t n, uint64_t *heap)
{
    size_t n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        s[i].previous = i ? (uint32_t)i - 1 : NOWHERE;
        s[i].next = i + 1 < n ? (uint32_t)i + 1 : NOWHERE;
    }
    for (size_t i = 0; i < n; i++) rank_symbol(b, s, (uint32_t)i, heap, &n_heap);
    while (n_heap > 0) {
        uint64_t top = bpe_heap_pop(heap, &n_heap);
        uint32_t at = (uint32_t)top;
        if (s[at].rank != (uint32_t)(top >> 32)) continue; /* the pair is no more */
        uint32_t right = s[at].next;
        s[at].id = b->merged[s[at].rank];
        s[at].next = s[right].next;
        if (s[at].next != NOWHERE) s[s[at].next].previous = at;
        s[right].rank = NO_RANK;
        rank_symbol(b, s, at, heap, &n_heap);
        if (s[at].previous != NOWHERE) rank_symbol(b, s, s[at].previous, heap, &n_heap);
    }
}

static lamina_status encode_long(encoder *e, const char *text, size_t bytes)
{
    if (bytes >= NOWHERE / 4) return error_set(e->err, LAMINA_E_USAGE, "a word of %zu bytes is too long", bytes);
    size_t want = bytes + 1;
    if (e->symbols_capacity < want) {
        bpe_symbol *s = mem_resize(e->m, MEM_TOKENIZER, e->symbols, want * sizeof *s, e->err);
        if (!s) return no_memory(e->err);
        e->symbols = s;
        e->symbols_capacity = want;
    }
    if (e->heap_capacity < want * 2) { /* a merge takes one away and adds two; at most n - 1 merges */
        uint64_t *h = mem_resize(e->m, MEM_TOKENIZER, e->heap, want * 2 * sizeof *h, e->err);
        if (!h) return no_memory(e->err);
        e->heap = h;
        e->heap_capacity = want * 2;
    }
    uint32_t *ids = (uint32_t *)e->heap;
    size_t n = first_symbols(e->t, text, bytes, ids);
    for (size_t i = 0; i < n; i++) e->symbols[i] = (bpe_symbol){.id = ids[i]};
    merge_long(&e->t->bpe, e->symbols, n, e->heap);
    for (uint32_t at = n ? 0 : NOWHERE; at != NOWHERE; at = e->symbols[at].next)
        TRY(encoder_emit(e, e->symbols[at].id));
    return LAMINA_OK;
}

/* A word, or what may be treated as one. */
static lamina_status encode_part(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    if (bytes > SHORT_WORD) {
        int32_t whole = t->bpe.ignore_merges ? vocabulary_find(&t->vocab, text, bytes) : -1;
        return whole >= 0 ? encoder_emit(e, (uint32_t)whole) : encode_long(e, text, bytes);
    }
    word_entry *word = NULL;
    if (e->cache && bytes <= WORD_CACHE_TEXT) {
        word = &e->cache[hash_bytes(text, bytes) % WORD_CACHE_SIZE];
        if (word->bytes == bytes && memcmp(word->text, text, bytes) == 0) {
            for (unsigned i = 0; i < word->n; i++) TRY(encoder_emit(e, word->ids[i]));
            return LAMINA_OK;
        }
    }
    uint32_t ids[SHORT_WORD + 4];
    int32_t whole = t->bpe.ignore_merges ? vocabulary_find(&t->vocab, text, bytes) : -1;
    size_t n = 1;
    if (whole >= 0) {
        ids[0] = (uint32_t)whole;
    } else {
        n = first_symbols(t, text, bytes, ids);
        n = merge_short(&t->bpe, ids, n);
    }
    if (word && n <= WORD_CACHE_IDS) {
        word->bytes = (uint8_t)bytes;
        word->n = (uint8_t)n;
        memcpy(word->text, text, bytes);
        memcpy(word->ids, ids, n * sizeof *ids);
    }
    for (size_t i = 0; i < n; i++) TRY(encoder_emit(e, ids[i]));
    return LAMINA_OK;
}

lamina_status bpe_encode(encoder *e, const char *text, size_t bytes)
{
    const bpe_model *b = &e->t->bpe;
    for (size_t at = 0, end; at < bytes; at = end) {
        end = b->cuts && bytes > SHORT_WORD ? next_cut(b, text, bytes, at) : bytes;
        TRY(encode_part(e, text + at, end - at));
    }
    return LAMINA_OK;
}

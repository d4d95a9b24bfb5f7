/* Unigram models: of all ways to cut a text into pieces, the one whose scores' sum is greatest (Kudo 2018).
 *
 * One pass from the left keeps the best way to each byte; of equal ones the one that was found first stays. Sums are of
 * the precision of the implementation whose models these are, and run over the whole text, so that ties fall as theirs
 * do (sentencepiece's unigram_model.cc, EncodeOptimized; Hugging Face's tokenizers, models/unigram). A character
 * without a piece costs unknown_score. Pieces are found in a trie; where none goes over the begin of a word, the way to
 * there is settled, and no more than a word is held. */
#include <stdlib.h>
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

/* ---- the trie ----------------------------------------------------------------------------------------------- */

typedef struct sorted_piece {
    uint64_t begin; /* its first eight bytes, most significant first */
    uint32_t offset, bytes, id;
} sorted_piece;

typedef struct sorter {
    sorted_piece piece;
    const char *text;
} sorter; /* qsort has no place for the text */

static int compare_pieces(const void *a, const void *b)
{
    const sorter *x = a, *y = b;
    if (x->piece.begin != y->piece.begin) return x->piece.begin < y->piece.begin ? -1 : 1;
    uint32_t n = x->piece.bytes < y->piece.bytes ? x->piece.bytes : y->piece.bytes;
    int c = n > 8 ? memcmp(x->text + 8, y->text + 8, n - 8) : 0;
    if (c) return c;
    return x->piece.bytes < y->piece.bytes ? -1 : x->piece.bytes > y->piece.bytes;
}

static lamina_status sort_pieces(const tokenizer *t, sorter **out, uint32_t *n_out, lamina_error *err)
{
    const vocabulary *v = &t->vocab;
    uint32_t n = 0;
    sorter *s = mem_array(t->m, MEM_TOKENIZER, v->n_ids, sizeof *s, err);
    if (!s) return no_memory(err);
    for (uint32_t id = 0; id < v->n_ids; id++) {
        uint32_t at = v->offset[id], bytes = v->offset[id + 1] - at;
        if ((v->flags[id] & (PIECE_LOOKUP | PIECE_UNUSED)) != PIECE_LOOKUP || bytes == 0) continue;
        uint64_t begin = 0;
        for (uint32_t i = 0; i < 8; i++) begin = begin << 8 | (i < bytes ? (unsigned char)v->text[at + i] : 0);
        s[n++] = (sorter){{begin, at, bytes, id}, v->text + at};
    }
    if (n) qsort(s, n, sizeof *s, compare_pieces);
    uint32_t kept = 0; /* of equal pieces the last one counts */
    for (uint32_t i = 0; i < n; i++) {
        bool same = kept && s[kept - 1].piece.bytes == s[i].piece.bytes &&
                    memcmp(s[kept - 1].text, s[i].text, s[i].piece.bytes) == 0;
        if (same && s[kept - 1].piece.id > s[i].piece.id) continue;
        s[same ? kept - 1 : kept++] = s[i];
    }
    *out = s;
    *n_out = kept;
    return LAMINA_OK;
}

typedef struct range {
    uint32_t low, high, depth; /* pieces that begin with a node's path */
} range;

typedef struct trie_builder {
    tokenizer *t;
    const sorter *pieces;
    range *ranges; /* [n_trie] */
    size_t nodes_capacity, ranges_capacity;
} trie_builder;

static lamina_status add_node(trie_builder *b, range r, uint8_t byte, lamina_error *err)
{
    scored_model *s = &b->t->scored;
    memory *m = b->t->m;
    TRY(array_grow(m, (void **)&s->trie, s->n_trie, &b->nodes_capacity, sizeof *s->trie, err));
    TRY(array_grow(m, (void **)&b->ranges, s->n_trie, &b->ranges_capacity, sizeof *b->ranges, err));
    b->ranges[s->n_trie] = r;
    s->trie[s->n_trie++] = (trie_node){.id = -1, .byte = byte};
    return LAMINA_OK;
}

/* Breadth first: the children of a node follow each other. */
static lamina_status expand_node(trie_builder *b, uint32_t node, lamina_error *err)
{
    scored_model *s = &b->t->scored;
    range r = b->ranges[node];
    const sorter *p = b->pieces;
    if (r.low == r.high) return LAMINA_OK;
    if (r.high - r.low == 1 && node > 0) { /* one piece left: the rest of it is compared */
        s->trie[node].id = (int32_t)p[r.low].piece.id;
        s->trie[node].tail = (uint16_t)(p[r.low].piece.bytes - r.depth);
        return LAMINA_OK;
    }
    if (p[r.low].piece.bytes == r.depth) s->trie[node].id = (int32_t)p[r.low++].piece.id;
    s->trie[node].first = s->n_trie;
    while (r.low < r.high) {
        uint8_t byte = (uint8_t)p[r.low].text[r.depth];
        uint32_t end = r.low + 1;
        while (end < r.high && (uint8_t)p[end].text[r.depth] == byte) end++;
        TRY(add_node(b, (range){r.low, end, r.depth + 1}, byte, err));
        s->trie[node].n++;
        r.low = end;
    }
    return LAMINA_OK;
}

lamina_status unigram_seal(tokenizer *t, lamina_error *err)
{
    sorter *pieces = NULL;
    uint32_t n = 0;
    TRY(sort_pieces(t, &pieces, &n, err));
    trie_builder b = {.t = t, .pieces = pieces};
    lamina_status status = add_node(&b, (range){0, n, 0}, 0, err);
    for (uint32_t node = 0; status == LAMINA_OK && node < t->scored.n_trie; node++) status = expand_node(&b, node, err);
    mem_free(t->m, b.ranges);
    mem_free(t->m, pieces);
    return status;
}

static const trie_node *child(const trie_node *trie, const trie_node *p, uint8_t byte)
{
    const trie_node *low = trie + p->first, *high = low + p->n;
    while (low < high) {
        const trie_node *middle = low + (high - low) / 2;
        if (middle->byte < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low < trie + p->first + p->n && low->byte == byte ? low : NULL;
}

/* ---- the best way ------------------------------------------------------------------------------------------- */

typedef struct viterbi {
    encoder *e;
    const char *text; /* of the word */
    size_t bytes;
} viterbi;

static void offer(const viterbi *w, size_t begin, size_t end, int32_t id, double sum)
{
    path_node *to = &w->e->path[end];
    if (w->e->t->scored.single) sum = (double)(float)sum;
    if (to->begin != UINT32_MAX && !(sum > to->score)) return;
    to->score = sum;
    to->begin = (uint32_t)begin;
    to->id = id;
}

/* Offers all pieces that begin at `at`. */
static void offer_pieces(const viterbi *w, size_t at)
{
    const tokenizer *t = w->e->t;
    const scored_model *s = &t->scored;
    double here = w->e->path[at].score;
    size_t length = utf8_length(w->text[at]), end = at;
    bool single = false;
    for (const trie_node *node = s->trie; end < w->bytes;) {
        node = child(s->trie, node, (uint8_t)w->text[end]);
        if (!node) break;
        end++;
        if (node->id < 0) continue;
        if (node->tail) {
            const char *rest = t->vocab.text + t->vocab.offset[node->id] + (end - at);
            if (node->tail > w->bytes - end || memcmp(rest, w->text + end, node->tail) != 0) break;
            end += node->tail;
        }
        offer(w, at, end, node->id, s->score[node->id] + here);
        single |= end - at == length;
        if (node->n == 0) break;
    }
    if (single) return;
    offer(w, at, at + length, t->bpe.unknown, s->unknown_score + here);
}

static lamina_status encode_word(encoder *e, const char *text, size_t begin, size_t end, double *sum)
{
    viterbi w = {e, text + begin, end - begin};
    if (w.bytes >= UINT32_MAX / 4) return error_set(e->err, LAMINA_E_USAGE, "a text of %zu bytes is too long", w.bytes);
    TRY(array_grow(e->m, (void **)&e->path, w.bytes + 1, &e->path_capacity, sizeof *e->path, e->err));
    TRY(array_grow(e->m, (void **)&e->pieces, w.bytes, &e->pieces_capacity, sizeof *e->pieces, e->err));
    e->path[0] = (path_node){*sum, -1, 0};
    for (size_t i = 1; i <= w.bytes; i++) e->path[i].begin = UINT32_MAX;
    for (size_t at = 0; at < w.bytes; at += utf8_length(w.text[at])) offer_pieces(&w, at);
    *sum = e->path[w.bytes].score;
    size_t n = 0; /* ends of the pieces, the last one first */
    for (uint32_t at = (uint32_t)w.bytes; at > 0; at = e->path[at].begin) e->pieces[n++] = at;
    while (n > 0) {
        const path_node *p = &e->path[e->pieces[--n]];
        if (p->id == e->t->bpe.unknown) {
            scored_unknown_add(e, begin + p->begin, begin + e->pieces[n]);
            continue;
        }
        TRY(scored_unknown_flush(e, text));
        TRY(encoder_emit(e, (uint32_t)p->id));
    }
    return LAMINA_OK;
}

lamina_status unigram_encode(encoder *e, const char *text, size_t bytes)
{
    double sum = 0;
    e->unknown_begin = e->unknown_end = 0;
    for (size_t at = 0, end; at < bytes; at = end) {
        end = scored_word_end(&e->t->scored, text, bytes, at);
        TRY(encode_word(e, text, at, end, &sum));
    }
    return scored_unknown_flush(e, text);
}

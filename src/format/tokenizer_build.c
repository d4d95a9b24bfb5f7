/* Building a tokenizer: pieces, merges, added tokens and steps are gathered as a source spells them, then turned into
 * the immutable tables of tokenizer_internal.h.
 *
 * Promises that ids, offsets and counts are checked here once for every source, that a vocabulary made to collide in
 * the hash tables is refused rather than slow, and that nothing is held beyond builder_finish() but the tables. */
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

/* ---- growing ------------------------------------------------------------------------------------------------ */

lamina_status no_memory(const lamina_error *err)
{
    return err && err->status != LAMINA_OK ? err->status : LAMINA_E_MEMORY;
}

lamina_status buffer_reserve(memory *m, text_buffer *b, size_t more, lamina_error *err)
{
    if (b->data && more <= b->capacity - b->bytes) return LAMINA_OK;
    if (more > SIZE_MAX / 4 || b->bytes > SIZE_MAX / 4)
        return error_set(err, LAMINA_E_MEMORY, "a text of %zu bytes is too long", more);
    size_t want = b->bytes + more + (b->capacity / 2) + 64;
    char *grown = mem_resize(m, MEM_TOKENIZER, b->data, want, err);
    if (!grown) return no_memory(err);
    b->data = grown;
    b->capacity = want;
    return LAMINA_OK;
}

lamina_status buffer_append(memory *m, text_buffer *b, const char *data, size_t bytes, lamina_error *err)
{
    TRY(buffer_reserve(m, b, bytes, err));
    if (bytes) memcpy(b->data + b->bytes, data, bytes);
    b->bytes += bytes;
    return LAMINA_OK;
}

lamina_status array_grow(memory *m, void **array, size_t n, size_t *capacity, size_t size, lamina_error *err)
{
    if (n < *capacity) return LAMINA_OK;
    size_t want = n + n / 2 + 16;
    if (want > SIZE_MAX / size) return error_set(err, LAMINA_E_MEMORY, "too many elements: %zu", n);
    void *grown = mem_resize(m, MEM_TOKENIZER, *array, want * size, err);
    if (!grown) return no_memory(err);
    *array = grown;
    *capacity = want;
    return LAMINA_OK;
}

/* ---- ids by text -------------------------------------------------------------------------------------------- */

/* The last 1 to 7 bytes in two loads. */
static inline uint64_t load_tail(const char *data, size_t bytes)
{
    if (bytes >= 4) {
        uint32_t low, high;
        memcpy(&low, data, 4);
        memcpy(&high, data + bytes - 4, 4);
        return (uint64_t)high << 32 | low;
    }
    return (uint64_t)(unsigned char)data[0] | (uint64_t)(unsigned char)data[bytes / 2] << 8 |
           (uint64_t)(unsigned char)data[bytes - 1] << 16;
}

uint64_t hash_bytes(const char *data, size_t bytes)
{
    const uint64_t k = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t h = bytes * k, w;
    for (; bytes >= 8; data += 8, bytes -= 8) {
        memcpy(&w, data, 8);
        h = (h ^ w) * k;
        h ^= h >> 32;
    }
    if (bytes) {
        h = (h ^ load_tail(data, bytes)) * k;
        h ^= h >> 32;
    }
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static uint32_t table_word(uint64_t hash, uint32_t id)
{
    return (uint32_t)(hash >> (64 - 11)) << TOKEN_ID_BITS | id;
}

/* false: the run of occupied places is too long to be chance. */
static bool table_put(uint32_t *table, uint32_t mask, uint64_t hash, uint32_t id)
{
    for (uint32_t i = 0, at = (uint32_t)hash & mask; i < TOKEN_MAX_PROBE; i++, at = (at + 1) & mask) {
        if (table[at] != 0) continue;
        table[at] = ~table_word(hash, id);
        return true;
    }
    return false;
}

static uint32_t table_size(size_t n)
{
    uint32_t size = 16;
    while (size < n * 2) size *= 2;
    return size;
}

static uint32_t *table_new(memory *m, uint32_t size, lamina_error *err)
{
    return mem_array(m, MEM_TOKENIZER, size, sizeof(uint32_t), err);
}

static lamina_status collides(const char *name, lamina_error *err)
{
    return error_set(err, LAMINA_E_FORMAT, "%s: the vocabulary's pieces collide on purpose", name);
}

int32_t vocabulary_find(const vocabulary *v, const char *text, size_t bytes)
{
    uint64_t hash = hash_bytes(text, bytes);
    uint32_t tag = table_word(hash, 0);
    for (uint32_t at = (uint32_t)hash & v->piece_mask;; at = (at + 1) & v->piece_mask) {
        uint32_t word = ~v->piece_table[at];
        if (word == UINT32_MAX) return -1;
        uint32_t id = word & TOKEN_MAX_IDS;
        if ((word & ~(uint32_t)TOKEN_MAX_IDS) != tag) continue;
        uint32_t n = v->offset[id + 1] - v->offset[id];
        if (n == bytes && memcmp(v->text + v->offset[id], text, bytes) == 0) return (int32_t)id;
    }
}

static lamina_status vocabulary_seal(tokenizer *t, const char *name, lamina_error *err)
{
    vocabulary *v = &t->vocab;
    size_t n = 0;
    for (uint32_t id = 0; id < v->n_ids; id++) n += (v->flags[id] & PIECE_LOOKUP) != 0;
    uint32_t size = table_size(n);
    v->piece_table = table_new(t->m, size, err);
    if (!v->piece_table) return no_memory(err);
    v->piece_mask = size - 1;
    enum { AHEAD = 16 }; /* places are random: fetched while others are hashed */
    struct {
        uint64_t hash;
        uint32_t id;
    } waiting[AHEAD];
    size_t begun = 0, done = 0;
    for (uint32_t id = 0; id < v->n_ids || done < begun;) {
        if (id < v->n_ids) {
            uint32_t at = v->offset[id], bytes = v->offset[id + 1] - at;
            if (v->flags[id] & PIECE_LOOKUP) {
                waiting[begun % AHEAD].hash = hash_bytes(v->text + at, bytes);
                waiting[begun % AHEAD].id = id;
                __builtin_prefetch(&v->piece_table[(uint32_t)waiting[begun++ % AHEAD].hash & v->piece_mask], 1);
            }
            id++;
            if (begun - done < AHEAD && id < v->n_ids) continue;
        }
        if (done == begun) continue;
        uint64_t hash = waiting[done % AHEAD].hash;
        if (!table_put(v->piece_table, v->piece_mask, hash, waiting[done++ % AHEAD].id)) return collides(name, err);
    }
    return LAMINA_OK;
}

/* ---- the builder -------------------------------------------------------------------------------------------- */

tokenizer *tokenizer_new(memory *m, lamina_error *err)
{
    tokenizer *t = mem_alloc(m, MEM_TOKENIZER, sizeof *t, err);
    if (!t) return NULL;
    t->m = m;
    t->bos = t->eos = t->bpe.unknown = t->words.unknown = -1;
    t->strings = arena_new(m, MEM_TOKENIZER, err);
    if (t->strings) t->general = regex_context(m);
    if (t->general) return t;
    if (t->strings) error_set(err, LAMINA_E_MEMORY, "no memory for a tokenizer");
    tokenizer_free(t);
    return NULL;
}

lamina_status builder_begin(memory *m, const char *name, builder *b, lamina_error *err)
{
    *b = (builder){.m = m, .name = name};
    b->t = tokenizer_new(m, err);
    if (!b->t) return no_memory(err);
    b->table = table_new(m, 1024, err);
    b->mask = 1023;
    return b->table ? LAMINA_OK : no_memory(err);
}

void builder_end(builder *b)
{
    if (!b->m) return;
    tokenizer_free(b->t);
    mem_free(b->m, b->text.data);
    mem_free(b->m, b->spans);
    mem_free(b->m, b->table);
    mem_free(b->m, b->pairs);
    mem_free(b->m, b->scores);
    mem_free(b->m, b->score_flags);
    *b = (builder){0};
}

lamina_status builder_text(builder *b, const char *data, size_t bytes, text_span *out, lamina_error *err)
{
    if (bytes > TOKEN_MAX_PATTERN)
        return error_set(err, LAMINA_E_FORMAT, "%s: a text of %zu bytes, at most %d are read", b->name, bytes,
                         TOKEN_MAX_PATTERN);
    char *copy = arena_strndup(b->t->strings, data, bytes, err);
    if (!copy) return no_memory(err);
    *out = (text_span){copy, (uint32_t)bytes};
    return LAMINA_OK;
}

int32_t builder_find(const builder *b, const char *text, size_t bytes)
{
    uint64_t hash = hash_bytes(text, bytes);
    uint32_t tag = table_word(hash, 0);
    for (uint32_t at = (uint32_t)hash & b->mask;; at = (at + 1) & b->mask) {
        uint32_t word = ~b->table[at];
        if (word == UINT32_MAX) return -1;
        if ((word & ~(uint32_t)TOKEN_MAX_IDS) != tag) continue;
        uint32_t id = word & TOKEN_MAX_IDS;
        if (b->spans[id].bytes == bytes && memcmp(b->text.data + b->spans[id].offset, text, bytes) == 0)
            return (int32_t)id;
    }
}

static lamina_status builder_rehash(builder *b, lamina_error *err)
{
    uint32_t size = (b->mask + 1) * 4;
    uint32_t *table = table_new(b->m, size, err);
    if (!table) return no_memory(err);
    mem_free(b->m, b->table);
    b->table = table;
    b->mask = size - 1;
    for (size_t id = 0; id < b->n_ids; id++) {
        if (b->spans[id].bytes == UINT32_MAX) continue;
        uint64_t hash = hash_bytes(b->text.data + b->spans[id].offset, b->spans[id].bytes);
        if (!table_put(b->table, b->mask, hash, (uint32_t)id)) return collides(b->name, err);
    }
    return LAMINA_OK;
}

/* Gives an id its spelling, without entering it for look-up. */
static lamina_status place(builder *b, uint64_t id, const char *text, size_t bytes, lamina_error *err)
{
    if (id >= TOKEN_MAX_IDS)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: token id %llu, ids below %d are supported", b->name,
                         (unsigned long long)id, TOKEN_MAX_IDS);
    if (id < b->n_ids && b->spans[id].bytes != UINT32_MAX)
        return error_set(err, LAMINA_E_FORMAT, "%s: two pieces have id %llu", b->name, (unsigned long long)id);
    if (b->text.bytes + bytes >= UINT32_MAX - 1)
        return error_set(err, LAMINA_E_FORMAT, "%s: the vocabulary's text exceeds 4 GiB", b->name);
    if (id >= b->n_ids) {
        TRY(array_grow(b->m, (void **)&b->spans, (size_t)id, &b->spans_capacity, sizeof *b->spans, err));
        for (size_t i = b->n_ids; i <= id; i++) b->spans[i] = (piece_span){0, UINT32_MAX};
        b->n_ids = (size_t)id + 1;
    }
    uint32_t offset = (uint32_t)b->text.bytes;
    TRY(buffer_append(b->m, &b->text, text, bytes, err));
    b->spans[id] = (piece_span){offset, (uint32_t)bytes};
    return LAMINA_OK;
}

lamina_status builder_piece(builder *b, uint64_t id, const char *text, size_t bytes, lamina_error *err)
{
    if (builder_find(b, text, bytes) >= 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: the piece \"%.*s\" is there twice", b->name,
                         (int)(bytes < 60 ? bytes : 60), text);
    TRY(place(b, id, text, bytes, err));
    b->n_pieces++;
    if (b->n_pieces > b->mask / 2) return builder_rehash(b, err);
    if (!table_put(b->table, b->mask, hash_bytes(text, bytes), (uint32_t)id)) return collides(b->name, err);
    return LAMINA_OK;
}

lamina_status builder_score(builder *b, uint64_t id, double score, uint8_t flags, lamina_error *err)
{
    if (!(score >= -SCORE_LIMIT && score <= SCORE_LIMIT))
        return error_set(err, LAMINA_E_FORMAT, "%s: piece %llu has score %g", b->name, (unsigned long long)id, score);
    TRY(array_grow(b->m, (void **)&b->scores, (size_t)id, &b->scores_capacity, sizeof *b->scores, err));
    TRY(array_grow(b->m, (void **)&b->score_flags, (size_t)id, &b->score_flags_capacity, 1, err));
    for (size_t i = b->n_scores; i < id; i++) {
        b->scores[i] = 0;
        b->score_flags[i] = 0;
    }
    b->scores[id] = score;
    b->score_flags[id] = flags;
    if (b->n_scores <= id) b->n_scores = (size_t)id + 1;
    return LAMINA_OK;
}

lamina_status builder_charsmap(builder *b, const char *data, size_t bytes, lamina_error *err)
{
    TRY(charsmap_check(b->name, data, bytes, err));
    if (b->t->charsmap.bytes) return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a second precompiled_charsmap", b->name);
    char *copy = arena_strndup(b->t->strings, data, bytes, err);
    if (!copy) return no_memory(err);
    b->t->charsmap = (text_span){copy, (uint32_t)bytes};
    return LAMINA_OK;
}

static lamina_status absent(const builder *b, const char *text, size_t bytes, lamina_error *err)
{
    return error_set(err, LAMINA_E_FORMAT, "%s: merge %zu names \"%.*s\", which is not in the vocabulary", b->name,
                     b->n_merges, (int)(bytes < 60 ? bytes : 60), text);
}

static lamina_status add_merge(builder *b, int32_t left, int32_t right, uint32_t made, lamina_error *err)
{
    bpe_model *bpe = &b->t->bpe;
    if (b->n_merges >= TOKEN_MAX_MERGES)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: more than %d merges", b->name, TOKEN_MAX_MERGES);
    TRY(array_grow(b->m, (void **)&b->pairs, b->n_merges, &b->pairs_capacity, sizeof *b->pairs, err));
    TRY(array_grow(b->m, (void **)&bpe->merged, b->n_merges, &b->merged_capacity, sizeof *bpe->merged, err));
    b->pairs[b->n_merges] = pair_key((uint32_t)left, (uint32_t)right);
    bpe->merged[b->n_merges++] = made;
    return LAMINA_OK;
}

lamina_status builder_merge(builder *b, text_span left, text_span right, lamina_error *err)
{
    int32_t l = builder_find(b, left.data, left.bytes), r = builder_find(b, right.data, right.bytes);
    if (l < 0) return absent(b, left.data, left.bytes, err);
    if (r < 0) return absent(b, right.data, right.bytes, err);
    uint32_t mark = b->t->bpe.continuing.bytes;
    if (right.bytes < mark) return absent(b, right.data, right.bytes, err);
    right = (text_span){right.data + mark, right.bytes - mark};
    size_t bytes = (size_t)left.bytes + right.bytes, keep = b->text.bytes;
    /* the joined text, behind the pieces for a moment */
    TRY(buffer_append(b->m, &b->text, left.data, left.bytes, err));
    TRY(buffer_append(b->m, &b->text, right.data, right.bytes, err));
    b->text.bytes = keep;
    int32_t made = builder_find(b, b->text.data + keep, bytes);
    if (made < 0) return absent(b, b->text.data + keep, bytes, err);
    return add_merge(b, l, r, (uint32_t)made, err);
}

lamina_status builder_implied_merges(builder *b, const uint32_t *order, size_t n, lamina_error *err)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t id = order[i], same = 0;
        piece_span s = b->spans[id];
        const char *text = b->text.data + s.offset;
        if (s.bytes == UINT32_MAX || builder_find(b, text, s.bytes) != (int32_t)id) continue;
        for (uint32_t cut = 1; cut < s.bytes; cut++) {
            int32_t left = builder_find(b, text, cut);
            int32_t right = left < 0 ? -1 : builder_find(b, text + cut, s.bytes - cut);
            if (right < 0) continue;
            TRY(add_merge(b, left, right, id | same, err));
            same = MERGE_SAME_RANK;
        }
    }
    return LAMINA_OK;
}

/* "left right" */
static lamina_status split_merge(const builder *b, text_span line, text_span *left, text_span *right, lamina_error *err)
{
    const char *space = memchr(line.data, ' ', line.bytes);
    size_t n = space ? (size_t)(space - line.data) : 0;
    if (!space || memchr(space + 1, ' ', line.bytes - n - 1))
        return error_set(err, LAMINA_E_FORMAT, "%s: merge %zu is not two pieces: \"%.*s\"", b->name, b->n_merges,
                         (int)(line.bytes < 60 ? line.bytes : 60), line.data);
    *left = (text_span){line.data, (uint32_t)n};
    *right = (text_span){space + 1, line.bytes - (uint32_t)n - 1};
    return LAMINA_OK;
}

lamina_status builder_merge_line(builder *b, const char *text, size_t bytes, lamina_error *err)
{
    text_span left, right;
    if (bytes > TOKEN_MAX_PATTERN) return error_set(err, LAMINA_E_FORMAT, "%s: a merge of %zu bytes", b->name, bytes);
    TRY(split_merge(b, (text_span){text, (uint32_t)bytes}, &left, &right, err));
    return builder_merge(b, left, right, err);
}

static added_token *find_added(tokenizer *t, text_span text)
{
    for (uint32_t i = 0; i < t->n_added; i++) {
        added_token *a = &t->added[i];
        if (a->text.bytes == text.bytes && memcmp(a->text.data, text.data, text.bytes) == 0) return a;
    }
    return NULL;
}

bool builder_has(const builder *b, uint32_t id)
{
    return id < b->n_ids && b->spans[id].bytes != UINT32_MAX;
}

bool builder_is_added(const builder *b, uint32_t id)
{
    for (uint32_t i = 0; i < b->t->n_added; i++)
        if (b->t->added[i].id == id) return true;
    return false;
}

static lamina_status append_added(builder *b, const added_token *token, lamina_error *err)
{
    tokenizer *t = b->t;
    if (t->n_added >= 1u << 16)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: more than 65536 added tokens", b->name);
    added_token copy = *token;
    TRY(builder_text(b, token->text.data, token->text.bytes, &copy.text, err));
    TRY(array_grow(b->m, (void **)&t->added, t->n_added, &b->added_capacity, sizeof *t->added, err));
    t->added[t->n_added++] = copy;
    return LAMINA_OK;
}

lamina_status builder_added_at(builder *b, const added_token *token, lamina_error *err)
{
    if (token->text.bytes == 0 || find_added(b->t, token->text)) return LAMINA_OK;
    if (builder_is_added(b, token->id))
        return error_set(err, LAMINA_E_FORMAT, "%s: added token \"%.*s\" has id %u, which is another one's", b->name,
                         (int)(token->text.bytes < 60 ? token->text.bytes : 60), token->text.data, token->id);
    if (builder_has(b, token->id)) b->spans[token->id].bytes = UINT32_MAX; /* the piece is no more */
    TRY(append_added(b, token, err));
    return place(b, token->id, token->text.data, token->text.bytes, err);
}

/* Ids as HF gives them: that of the piece; else behind the vocabulary and behind all added before. */
lamina_status builder_added(builder *b, const added_token *token, lamina_error *err)
{
    if (token->text.bytes == 0 || find_added(b->t, token->text)) return LAMINA_OK;
    added_token copy = *token;
    int32_t id = builder_find(b, token->text.data, token->text.bytes);
    if (id >= 0) {
        copy.id = (uint32_t)id;
        return append_added(b, &copy, err);
    }
    copy.id = b->n_pieces;
    for (uint32_t i = 0; i < b->t->n_added; i++)
        if (b->t->added[i].id >= copy.id) copy.id = b->t->added[i].id + 1;
    if (builder_has(b, copy.id))
        return error_set(err, LAMINA_E_FORMAT, "%s: added token \"%.*s\" would get id %u, which is a piece's", b->name,
                         (int)(token->text.bytes < 60 ? token->text.bytes : 60), token->text.data, copy.id);
    return builder_added_at(b, &copy, err);
}

lamina_status builder_added_again(builder *b, const added_token *token, lamina_error *err)
{
    added_token *a = token->text.bytes ? find_added(b->t, token->text) : NULL;
    if (!a) return builder_added(b, token, err);
    a->special = token->special;
    a->normalized = token->normalized;
    a->lstrip = token->lstrip;
    a->rstrip = token->rstrip;
    a->single_word = token->single_word;
    return LAMINA_OK;
}

int32_t builder_token(const builder *b, const char *text, size_t bytes)
{
    for (uint32_t i = 0; i < b->t->n_added; i++) {
        const added_token *a = &b->t->added[i];
        if (a->text.bytes == bytes && memcmp(a->text.data, text, bytes) == 0) return (int32_t)a->id;
    }
    return builder_find(b, text, bytes);
}

lamina_status builder_around(builder *b, bool before, int64_t id, lamina_error *err)
{
    tokenizer *t = b->t;
    uint32_t **list = before ? &t->before : &t->after, *n = before ? &t->n_before : &t->n_after;
    if (id < 0 || id >= TOKEN_MAX_IDS || *n >= 1024)
        return error_set(err, LAMINA_E_FORMAT, "%s: the template's token id %lld cannot be meant", b->name,
                         (long long)id);
    uint32_t *grown = mem_resize(b->m, MEM_TOKENIZER, *list, (*n + 1) * sizeof **list, err);
    if (!grown) return no_memory(err);
    grown[(*n)++] = (uint32_t)id;
    *list = grown;
    return LAMINA_OK;
}

static lamina_status too_many(const builder *b, lamina_error *err)
{
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: more than %d steps", b->name, TOKEN_MAX_STEPS);
}

lamina_status builder_normalizer(builder *b, const normalizer_step *step, lamina_error *err)
{
    if (b->t->n_normalizers == TOKEN_MAX_STEPS) return too_many(b, err);
    if (step->kind == NORMALIZE_BYTE_CHARS && b->t->byte_level)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a second ByteLevel step is not supported", b->name);
    if (step->kind == NORMALIZE_BYTE_CHARS) b->t->byte_level = true;
    b->t->normalizers[b->t->n_normalizers++] = *step;
    return LAMINA_OK;
}

lamina_status builder_splitter(builder *b, const splitter_step *step, lamina_error *err)
{
    tokenizer *t = b->t;
    if (t->n_splitters == TOKEN_MAX_STEPS) return too_many(b, err);
    if (step->kind == SPLITTER_BYTE_CHARS && t->byte_level)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a second ByteLevel step is not supported", b->name);
    if (step->kind == SPLITTER_BYTE_CHARS) t->byte_level = true;
    t->splitters[t->n_splitters++] = *step;
    return LAMINA_OK;
}

lamina_status builder_decoder(builder *b, const decoder_step *step, lamina_error *err)
{
    if (b->t->n_decoders == TOKEN_MAX_STEPS) return too_many(b, err);
    b->t->decoders[b->t->n_decoders++] = *step;
    return LAMINA_OK;
}

lamina_status builder_pattern_splitter(builder *b, const char *regex, lamina_error *err)
{
    splitter_step step = {.kind = SPLITTER_PATTERN, .behavior = SPLIT_ISOLATED};
    TRY(builder_text(b, regex, strlen(regex), &step.find.source, err));
    return builder_splitter(b, &step, err);
}

lamina_status builder_byte_level(builder *b, bool prefix_space, bool use_regex, lamina_error *err)
{
    if (prefix_space) TRY(builder_splitter(b, &(splitter_step){.kind = SPLITTER_PREFIX_SPACE}, err));
    if (use_regex) TRY(builder_pattern_splitter(b, regex_gpt2, err));
    return builder_splitter(b, &(splitter_step){.kind = SPLITTER_BYTE_CHARS}, err);
}

/* ---- finishing ---------------------------------------------------------------------------------------------- */

/* The pieces in the order of ids, in the form in which they are decoded. */
static lamina_status make_vocabulary(builder *b, lamina_error *err)
{
    tokenizer *t = b->t;
    vocabulary *v = &t->vocab;
    size_t n = b->n_ids, at = 0;
    v->offset = mem_array(b->m, MEM_TOKENIZER, n + 1, sizeof *v->offset, err);
    if (!v->offset) return no_memory(err);
    v->flags = mem_alloc(b->m, MEM_TOKENIZER, n, err);
    if (!v->flags) return no_memory(err);
    v->text = mem_alloc(b->m, MEM_TOKENIZER, b->text.bytes, err);
    if (!v->text) return no_memory(err);
    v->n_ids = (uint32_t)n;
    for (size_t id = 0; id < n; id++) {
        piece_span s = b->spans[id];
        v->offset[id] = (uint32_t)at;
        if (s.bytes == UINT32_MAX) continue;
        const char *text = b->text.data + s.offset;
        size_t bytes = s.bytes;
        bool mapped = b->raw || (t->byte_level && bytes_from_alphabet(text, s.bytes, v->text + at, &bytes));
        if (!mapped || b->raw) memcpy(v->text + at, text, s.bytes);
        bool model = builder_find(b, text, s.bytes) == (int32_t)id;
        unsigned look = PIECE_LOOKUP;
        if (model_has_scores(t->kind)) look = id < b->n_scores ? b->score_flags[id] : 0;
        v->flags[id] = (uint8_t)(PIECE_PRESENT | (model && (mapped || !t->byte_level) ? look : 0));
        at += mapped ? bytes : s.bytes;
    }
    v->offset[n] = (uint32_t)at;
    char *shrunk = mem_resize(b->m, MEM_TOKENIZER, v->text, at ? at : 1, err);
    if (!shrunk) return no_memory(err);
    v->text = shrunk;
    return LAMINA_OK;
}

/* Special tokens first, in the file's order: of two that normalize alike the first wins. */
static lamina_status order_added(builder *b, lamina_error *err)
{
    tokenizer *t = b->t;
    if (t->n_added == 0) return LAMINA_OK;
    added_token *ordered = mem_array(b->m, MEM_TOKENIZER, t->n_added, sizeof *ordered, err);
    if (!ordered) return no_memory(err);
    uint32_t n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < t->n_added; i++)
            if (t->added[i].special == (pass == 0)) ordered[n++] = t->added[i];
    mem_free(b->m, t->added);
    t->added = ordered;
    return LAMINA_OK;
}

/* What byte_fallback and byte-level symbols need: the id of each byte. */
static void find_bytes(builder *b)
{
    bpe_model *bpe = &b->t->bpe;
    for (unsigned byte = 0; byte < 256; byte++) {
        static const char hex[] = "0123456789ABCDEF";
        char text[8] = {'<', '0', 'x', hex[byte >> 4], hex[byte & 15], '>'};
        size_t bytes = 6;
        if (b->raw) {
            text[0] = (char)byte;
            bytes = 1;
        } else if (b->t->byte_level)
            bytes = utf8_write(byte_to_char((uint8_t)byte), text);
        bpe->byte_id[byte] = b->t->byte_level || bpe->byte_fallback ? builder_find(b, text, bytes) : -1;
    }
}

lamina_status builder_finish(builder *b, tokenizer **out, lamina_error *err)
{
    tokenizer *t = b->t;
    for (uint32_t i = 0; i < t->n_before; i++)
        if (t->before[i] >= b->n_ids)
            return error_set(err, LAMINA_E_FORMAT, "%s: the template's token id %u is not in the vocabulary", b->name,
                             t->before[i]);
    for (uint32_t i = 0; i < t->n_after; i++)
        if (t->after[i] >= b->n_ids)
            return error_set(err, LAMINA_E_FORMAT, "%s: the template's token id %u is not in the vocabulary", b->name,
                             t->after[i]);
    /* bytes need not be spelt for the model's sake: it takes them as they are */
    if (t->n_splitters && t->splitters[t->n_splitters - 1].kind == SPLITTER_BYTE_CHARS) t->n_splitters--;
    find_bytes(b);
    if (t->byte_level && t->bpe.byte_fallback) { /* without missing bytes there is nothing to fall back from */
        for (unsigned byte = 0; byte < 256; byte++)
            if (t->bpe.byte_id[byte] < 0)
                return error_set(err, LAMINA_E_UNSUPPORTED, "%s: byte_fallback of a byte-level model is not supported",
                                 b->name);
        t->bpe.byte_fallback = false;
    }
    TRY(make_vocabulary(b, err));
    if (model_has_scores(t->kind)) {
        t->scored.score = mem_array(b->m, MEM_TOKENIZER, b->n_ids, sizeof *t->scored.score, err);
        if (!t->scored.score) return no_memory(err);
        if (b->n_scores) memcpy(t->scored.score, b->scores, b->n_scores * sizeof *b->scores);
    }
    TRY(order_added(b, err));
    mem_free(b->m, b->text.data);
    mem_free(b->m, b->spans);
    mem_free(b->m, b->table);
    b->text.data = NULL;
    b->spans = NULL;
    b->table = NULL;
    t->bpe.n_merges = (uint32_t)b->n_merges;
    TRY(tokenizer_seal(t, b->name, b->pairs, err));
    b->t = NULL;
    *out = t;
    return LAMINA_OK;
}

static lamina_status seal_patterns(tokenizer *t, const char *name, lamina_error *err)
{
    for (uint32_t i = 0; i < t->n_normalizers; i++)
        if (t->normalizers[i].kind == NORMALIZE_REPLACE)
            TRY(regex_compile(t->m, t->general, name, &t->normalizers[i].find, err));
    for (uint32_t i = 0; i < t->n_splitters; i++) {
        if (t->splitters[i].kind == SPLITTER_PATTERN)
            TRY(regex_compile(t->m, t->general, name, &t->splitters[i].find, err));
        if (t->splitters[i].kind == SPLITTER_BYTE_CHARS) t->byte_chars = true;
    }
    for (uint32_t i = 0; i < t->n_normalizers; i++)
        if (t->normalizers[i].kind == NORMALIZE_BYTE_CHARS) t->byte_chars = true;
    return LAMINA_OK;
}

static lamina_status normalized_spelling(tokenizer *t, matcher_entry *entry, lamina_error *err)
{
    encoder e = {.t = t, .m = t->m, .err = err};
    const char *text = NULL;
    size_t bytes = 0;
    lamina_status status = regex_scratch_new(t->m, &e.regex, err);
    if (status == LAMINA_OK) status = normalize(&e, entry->text.data, entry->text.bytes, &text, &bytes);
    if (status == LAMINA_OK) {
        char *copy = arena_strndup(t->strings, text, bytes, err);
        if (!copy) status = no_memory(err);
        entry->text = (text_span){copy, (uint32_t)bytes};
    }
    regex_scratch_free(&e.regex);
    mem_free(t->m, e.normal[0].data);
    mem_free(t->m, e.normal[1].data);
    mem_free(t->m, e.points);
    return status;
}

/* Decoding spells a token as it looks when normalized. */
static lamina_status respell(tokenizer *t, added_token *a, text_span normal, lamina_error *err)
{
    if (normal.bytes == a->text.bytes && memcmp(normal.data, a->text.data, normal.bytes) == 0) return LAMINA_OK;
    char *copy = arena_strndup(t->strings, normal.data, normal.bytes, err);
    if (!copy) return no_memory(err);
    size_t bytes = normal.bytes;
    if (t->byte_level && !bytes_from_alphabet(normal.data, normal.bytes, copy, &bytes)) {
        bytes = normal.bytes;
        memcpy(copy, normal.data, bytes);
    }
    a->shown = (text_span){copy, (uint32_t)bytes};
    t->vocab.flags[a->id] |= PIECE_RESPELT;
    return LAMINA_OK;
}

static lamina_status seal_added(tokenizer *t, lamina_error *err)
{
    matcher_entry *entries = mem_array(t->m, MEM_TOKENIZER, t->n_added, sizeof *entries, err);
    if (!entries) return no_memory(err);
    lamina_status status = LAMINA_OK;
    for (int normal = 0; normal < 2 && status == LAMINA_OK; normal++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < t->n_added && status == LAMINA_OK; i++) {
            if (t->added[i].normalized != (normal == 1)) continue;
            entries[n] = (matcher_entry){t->added[i].text, i};
            if (normal && t->n_normalizers) status = normalized_spelling(t, &entries[n], err);
            if (normal && status == LAMINA_OK) status = respell(t, &t->added[i], entries[n].text, err);
            if (entries[n].text.bytes > 0) n++;
        }
        if (status == LAMINA_OK) status = matcher_seal(t, normal ? &t->normalized : &t->raw, entries, n, err);
    }
    mem_free(t->m, entries);
    for (uint32_t i = 0; i < t->n_added; i++)
        if (t->added[i].special) t->vocab.flags[t->added[i].id] |= PIECE_SPECIAL;
    return status;
}

lamina_status tokenizer_seal(tokenizer *t, const char *name, const uint64_t *pairs, lamina_error *err)
{
    TRY(vocabulary_seal(t, name, err));
    for (uint32_t id = 0; id < t->vocab.n_ids && t->kind == MODEL_WORDPIECE; id++) {
        uint32_t bytes = t->vocab.offset[id + 1] - t->vocab.offset[id];
        if (bytes > t->words.longest) t->words.longest = bytes;
    }
    TRY(bpe_seal(t, name, pairs, err));
    if (model_has_scores(t->kind)) TRY(scored_seal(t, name, err));
    TRY(seal_patterns(t, name, err));
    return seal_added(t, err);
}

/* Vocabularies of GGUF with scores: "llama" (sentencepiece's byte-pair encoding, merged by scores) and "t5" (unigram).
 *
 * GGUF keeps pieces, scores and kinds as sentencepiece has them; of the normalization it keeps whether a space goes
 * before a text, whether runs of spaces become one, and for t5 the map of characters. Control and user-defined tokens
 * are cut out of the raw text before all else, as llama.cpp does (llama-vocab.cpp): behind each the text begins anew,
 * with its space. User-defined ones that only a normalized text can show, and all those of U+2581, are found there, as
 * in sentencepiece. */
#include <string.h>

#include "format/gguf.h"
#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

static const char gguf_name[] = "GGUF tokenizer";
enum { KIND_NORMAL = 1, KIND_UNKNOWN, KIND_CONTROL, KIND_USER_DEFINED, KIND_UNUSED, KIND_BYTE };

typedef struct gguf_scores {
    bool kinds, bytes; /* pieces have kinds; some are bytes */
    double least, greatest;
} gguf_scores;

/* A piece that is a NUL counts for nothing beside bytes' tokens (ModelInterface::InitializePieces). */
static uint8_t piece_flags(const gguf_scores *s, int64_t kind, gguf_string text)
{
    if (s->bytes && text.bytes == 1 && text.data[0] == '\0') return 0;
    if (kind == KIND_USER_DEFINED) return PIECE_LOOKUP | PIECE_USER;
    if (kind == KIND_UNUSED) return PIECE_LOOKUP | PIECE_UNUSED;
    return kind == KIND_NORMAL || kind == 0 ? PIECE_LOOKUP : 0;
}

static lamina_status add_piece(builder *b, const gguf *g, gguf_scores *s, uint64_t id, lamina_error *err)
{
    gguf_string text = gguf_text_at(g, "tokenizer.ggml.tokens", id);
    int64_t kind = s->kinds ? gguf_int_at(g, "tokenizer.ggml.token_type", id) : KIND_NORMAL;
    double score = (double)gguf_float_at(g, "tokenizer.ggml.scores", id);
    if (text.bytes == 0) return LAMINA_OK;
    if (text.bytes >= TOKEN_MAX_PATTERN || utf8_valid(text.data, (size_t)text.bytes) != text.bytes)
        return error_set(err, LAMINA_E_FORMAT, "%s: piece %llu is too long or not UTF-8", gguf_name,
                         (unsigned long long)id);
    TRY(builder_piece(b, id, text.data, (size_t)text.bytes, err));
    if (kind == KIND_UNKNOWN && b->t->bpe.unknown < 0) b->t->bpe.unknown = (int32_t)id;
    if (kind == KIND_NORMAL && score < s->least) s->least = score;
    if (kind == KIND_NORMAL && score > s->greatest) s->greatest = score;
    return builder_score(b, id, score, piece_flags(s, kind, text), err);
}

/* User-defined pieces of a unigram model have the score that makes them win (Model::EncodeOptimized). */
static lamina_status raise_user_piece(builder *b, const gguf *g, const gguf_scores *s, uint64_t id, lamina_error *err)
{
    gguf_string text = gguf_text_at(g, "tokenizer.ggml.tokens", id);
    if (text.bytes == 0 || !(b->score_flags[id] & PIECE_USER)) return LAMINA_OK;
    float score = (float)((double)((float)text.bytes * (float)s->greatest) + 0.1);
    return builder_score(b, id, (double)score, PIECE_LOOKUP | PIECE_USER, err);
}

static lamina_status add_special(builder *b, const gguf *g, uint64_t id, lamina_error *err)
{
    int64_t kind = gguf_int_at(g, "tokenizer.ggml.token_type", id);
    gguf_string text = gguf_text_at(g, "tokenizer.ggml.tokens", id);
    if (kind != KIND_CONTROL && kind != KIND_USER_DEFINED) return LAMINA_OK;
    bool marked = false; /* no raw text has such a one */
    for (uint64_t i = 0; i + 3 <= text.bytes; i++) marked |= memcmp(text.data + i, "\xe2\x96\x81", 3) == 0;
    if (marked && kind == KIND_USER_DEFINED) return LAMINA_OK;
    added_token token = {.text = {text.data, (uint32_t)text.bytes}, .special = kind == KIND_CONTROL};
    return builder_added(b, &token, err);
}

static lamina_status add_pieces(builder *b, const gguf *g, gguf_scores *s, lamina_error *err)
{
    uint64_t n = 0, kinds = 0, scores = 0;
    if (!gguf_text_array(g, "tokenizer.ggml.tokens", &n) || n == 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: no tokenizer.ggml.tokens", gguf_name);
    if (n > TOKEN_MAX_IDS)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: %llu pieces", gguf_name, (unsigned long long)n);
    if (!gguf_float_array(g, "tokenizer.ggml.scores", &scores) || scores != n)
        return error_set(err, LAMINA_E_FORMAT, "%s: %llu pieces, %llu scores", gguf_name, (unsigned long long)n,
                         (unsigned long long)scores);
    s->kinds = gguf_int_array(g, "tokenizer.ggml.token_type", &kinds);
    if (s->kinds && kinds != n)
        return error_set(err, LAMINA_E_FORMAT, "%s: %llu pieces, %llu token types", gguf_name, (unsigned long long)n,
                         (unsigned long long)kinds);
    for (uint64_t id = 0; id < kinds; id++) s->bytes |= gguf_int_at(g, "tokenizer.ggml.token_type", id) == KIND_BYTE;
    b->t->bpe.byte_fallback = s->bytes;
    for (uint64_t id = 0; id < n; id++) TRY(add_piece(b, g, s, id, err));
    for (uint64_t id = 0; id < n && b->t->kind == MODEL_UNIGRAM; id++) TRY(raise_user_piece(b, g, s, id, err));
    for (uint64_t id = 0; id < kinds; id++) TRY(add_special(b, g, id, err));
    return LAMINA_OK;
}

static lamina_status add_charsmap(builder *b, const gguf *g, lamina_error *err)
{
    uint64_t n = 0;
    text_buffer map = {0};
    if (!gguf_int_array(g, "tokenizer.ggml.precompiled_charsmap", &n) || n == 0) return LAMINA_OK;
    if (n > 1u << 28)
        return error_set(err, LAMINA_E_FORMAT, "%s: a precompiled_charsmap of %llu bytes", gguf_name,
                         (unsigned long long)n);
    lamina_status status = buffer_reserve(b->m, &map, (size_t)n, err);
    for (uint64_t i = 0; status == LAMINA_OK && i < n; i++)
        map.data[i] = (char)(gguf_int_at(g, "tokenizer.ggml.precompiled_charsmap", i) & 0xff);
    if (status == LAMINA_OK) status = builder_charsmap(b, map.data, (size_t)n, err);
    mem_free(b->m, map.data);
    return status;
}

static lamina_status add_steps(builder *b, const gguf *g, lamina_error *err)
{
    bool prefix = true, squeeze = false;
    gguf_bool(g, "tokenizer.ggml.add_space_prefix", &prefix);
    gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &squeeze);
    normalizer_step step = {.kind = NORMALIZE_SENTENCEPIECE,
                            .flags = SP_ESCAPE | (prefix ? SP_PREFIX : 0u) | (squeeze ? SP_SQUEEZE : 0u)};
    decoder_step decoder = {.kind = DECODE_SENTENCEPIECE, .first_bare = prefix || squeeze, .cleanup = squeeze};
    TRY(builder_text(b, " \xe2\x81\x87 ", 5, &decoder.content, err));
    TRY(builder_normalizer(b, &step, err));
    return builder_decoder(b, &decoder, err);
}

/* The id under a key; one outside the vocabulary, or none, is `other` (where that is inside). */
static int32_t named_id(const builder *b, const gguf *g, const char *key, uint64_t other)
{
    uint64_t id = other;
    if (gguf_u64(g, key, &id) && id >= b->n_ids) return -1;
    return id < b->n_ids ? (int32_t)id : -1;
}

lamina_status gguf_read_scored(builder *b, const gguf *g, bool unigram, lamina_error *err)
{
    tokenizer *t = b->t;
    gguf_scores s = {.least = 3.40282346638528859812e38, .greatest = 1.17549435082228750797e-38};
    bool bos = !unigram, eos = unigram;
    t->kind = unigram ? MODEL_UNIGRAM : MODEL_SCORED;
    t->scored.single = true;
    TRY(add_pieces(b, g, &s, err));
    t->scored.unknown_score = s.least > SCORE_LIMIT ? -10.0 : (double)((float)s.least - 10.0f);
    TRY(add_charsmap(b, g, err));
    TRY(add_steps(b, g, err));
    if (t->bpe.unknown < 0) t->bpe.unknown = named_id(b, g, "tokenizer.ggml.unknown_token_id", unigram ? 2 : 0);
    t->bos = named_id(b, g, "tokenizer.ggml.bos_token_id", unigram ? UINT64_MAX : 1);
    t->eos = named_id(b, g, "tokenizer.ggml.eos_token_id", unigram ? 1 : 2);
    gguf_bool(g, "tokenizer.ggml.add_bos_token", &bos);
    gguf_bool(g, "tokenizer.ggml.add_eos_token", &eos);
    if (bos && t->bos >= 0) TRY(builder_around(b, true, t->bos, err));
    if (eos && t->eos >= 0) TRY(builder_around(b, false, t->eos, err));
    return tokenizer_read_texts_gguf(t, g, err);
}

/* tokenizer.model: sentencepiece's ModelProto (sentencepiece_model.proto).
 *
 * The protobuf is walked by cursors that check every length against what encloses it; fields that mean nothing here are
 * passed over. What the file does not say, the class of tokenizer_config.json does, as the classes' own code has it:
 * whether BOS and EOS are put around a text (transformers' LlamaTokenizer and its relatives), and the special tokens of
 * ChatGLM2 and 3, which stand behind the vocabulary (tokenization_chatglm.py). */
#include <string.h>

#include "format/jsonpull.h"
#include "format/little.h"
#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

static const char sp_name[] = "tokenizer.model";
#define DEFAULT_SURFACE " \xe2\x81\x87 "

/* ---- protobuf ----------------------------------------------------------------------------------------------- */

typedef struct proto {
    const unsigned char *at, *end;
} proto;

typedef struct field {
    uint64_t number, value; /* of a varint */
    unsigned wire;
    proto in; /* of bytes; four bytes of a fixed32, eight of a fixed64 */
} field;

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static bool read_varint(proto *p, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && p->at < p->end; shift += 7) {
        unsigned char byte = *p->at++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* *more false: the end. */
static lamina_status next_field(proto *p, field *f, bool *more, lamina_error *err)
{
    *more = p->at < p->end;
    if (!*more) return LAMINA_OK;
    uint64_t key = 0, bytes = 0;
    bool ok = read_varint(p, &key);
    *f = (field){.number = key >> 3, .wire = (unsigned)(key & 7)};
    switch (f->wire) {
    case WIRE_VARINT:
        ok = ok && read_varint(p, &f->value);
        break;
    case WIRE_64:
        bytes = 8;
        break;
    case WIRE_BYTES:
        ok = ok && read_varint(p, &bytes);
        break;
    case WIRE_32:
        bytes = 4;
        break;
    default:
        ok = false;
    }
    if (!ok || f->number == 0 || bytes > (uint64_t)(p->end - p->at))
        return error_set(err, LAMINA_E_FORMAT, "%s: not a sentencepiece model, or cut short", sp_name);
    f->in = (proto){p->at, p->at + bytes};
    p->at += bytes;
    return LAMINA_OK;
}

static text_span field_text(const field *f)
{
    return (text_span){(const char *)f->in.at, (uint32_t)(f->in.end - f->in.at)};
}

static bool is_flag(const field *f, uint64_t number)
{
    return f->number == number && f->wire == WIRE_VARINT;
}

static bool is_bytes(const field *f, uint64_t number)
{
    return f->number == number && f->wire == WIRE_BYTES;
}

/* ---- the model's parts -------------------------------------------------------------------------------------- */

enum { MODEL_TYPE_UNIGRAM = 1, MODEL_TYPE_BPE = 2 };
enum { KIND_NORMAL = 1, KIND_UNKNOWN, KIND_CONTROL, KIND_USER_DEFINED, KIND_UNUSED, KIND_BYTE };

typedef struct sp_model {
    uint64_t type;
    bool suffix, byte_fallback, prefix, squeeze, escape;
    text_span bos, eos, surface, charsmap;
    uint32_t n_pieces;
    double least, greatest; /* scores of normal pieces */
} sp_model;

static lamina_status read_trainer(proto p, sp_model *s, lamina_error *err)
{
    field f;
    for (bool more;;) {
        TRY(next_field(&p, &f, &more, err));
        if (!more) return LAMINA_OK;
        if (is_flag(&f, 3)) s->type = f.value;
        if (is_flag(&f, 24)) s->suffix = f.value != 0;
        if (is_flag(&f, 35)) s->byte_fallback = f.value != 0;
        if (is_bytes(&f, 44)) s->surface = field_text(&f);
        if (is_bytes(&f, 46)) s->bos = field_text(&f);
        if (is_bytes(&f, 47)) s->eos = field_text(&f);
    }
}

static lamina_status read_normalizer(proto p, sp_model *s, lamina_error *err)
{
    field f;
    for (bool more;;) {
        TRY(next_field(&p, &f, &more, err));
        if (!more) return LAMINA_OK;
        if (is_bytes(&f, 2)) s->charsmap = field_text(&f);
        if (is_flag(&f, 3)) s->prefix = f.value != 0;
        if (is_flag(&f, 4)) s->squeeze = f.value != 0;
        if (is_flag(&f, 5)) s->escape = f.value != 0;
    }
}

static lamina_status refuse_denormalizer(proto p, lamina_error *err)
{
    sp_model s = {0};
    TRY(read_normalizer(p, &s, err));
    return s.charsmap.bytes ? error_set(err, LAMINA_E_UNSUPPORTED, "%s: a denormalizer is not supported", sp_name)
                            : LAMINA_OK;
}

typedef struct sp_piece {
    text_span text;
    float score;
    uint64_t kind;
} sp_piece;

static lamina_status read_piece(proto p, uint32_t id, sp_piece *out, lamina_error *err)
{
    field f;
    *out = (sp_piece){.kind = KIND_NORMAL};
    for (bool more;;) {
        TRY(next_field(&p, &f, &more, err));
        if (!more) break;
        if (is_bytes(&f, 1)) out->text = field_text(&f);
        if (f.number == 2 && f.wire == WIRE_32) {
            uint32_t bits = (uint32_t)little_number(f.in.at, 4);
            memcpy(&out->score, &bits, sizeof bits);
        }
        if (is_flag(&f, 3)) out->kind = f.value;
    }
    text_span s = out->text;
    if (s.bytes == 0 || s.bytes > TOKEN_MAX_PATTERN - 1 || utf8_valid(s.data, s.bytes) != s.bytes)
        return error_set(err, LAMINA_E_FORMAT, "%s: piece %u is empty, too long or not UTF-8", sp_name, id);
    if (out->kind < KIND_NORMAL || out->kind > KIND_BYTE)
        return error_set(err, LAMINA_E_FORMAT, "%s: piece %u has type %llu", sp_name, id,
                         (unsigned long long)out->kind);
    return LAMINA_OK;
}

/* Calls `each` for every piece. */
static lamina_status
walk_pieces(builder *b, proto p, sp_model *s,
            lamina_status (*each)(builder *, sp_model *, uint32_t, const sp_piece *, lamina_error *), lamina_error *err)
{
    field f;
    uint32_t id = 0;
    for (bool more;;) {
        TRY(next_field(&p, &f, &more, err));
        if (!more) break;
        if (!is_bytes(&f, 1)) continue;
        sp_piece piece;
        if (id >= TOKEN_MAX_IDS)
            return error_set(err, LAMINA_E_UNSUPPORTED, "%s: more than %d pieces", sp_name, TOKEN_MAX_IDS);
        TRY(read_piece(f.in, id, &piece, err));
        TRY(each(b, s, id++, &piece, err));
    }
    s->n_pieces = id;
    return LAMINA_OK;
}

static lamina_status add_piece(builder *b, sp_model *s, uint32_t id, const sp_piece *p, lamina_error *err)
{
    TRY(builder_piece(b, id, p->text.data, p->text.bytes, err));
    if (p->kind == KIND_UNKNOWN && b->t->bpe.unknown >= 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: pieces %d and %u are the unknown one", sp_name, b->t->bpe.unknown,
                         id);
    if (p->kind == KIND_UNKNOWN) b->t->bpe.unknown = (int32_t)id;
    if (p->kind == KIND_CONTROL) {
        added_token token = {.text = p->text, .special = true};
        TRY(builder_added(b, &token, err));
    }
    if (p->kind == KIND_NORMAL && (double)p->score < s->least) s->least = (double)p->score;
    if (p->kind == KIND_NORMAL && (double)p->score > s->greatest) s->greatest = (double)p->score;
    unsigned flags = p->kind == KIND_NORMAL         ? PIECE_LOOKUP
                     : p->kind == KIND_USER_DEFINED ? PIECE_LOOKUP | PIECE_USER
                     : p->kind == KIND_UNUSED       ? PIECE_LOOKUP | PIECE_UNUSED
                                                    : 0;
    /* beside bytes' tokens a piece that is a NUL counts for nothing (ModelInterface::InitializePieces) */
    if (s->byte_fallback && p->text.bytes == 1 && p->text.data[0] == '\0') flags = 0;
    return builder_score(b, id, (double)p->score, (uint8_t)flags, err);
}

/* A user-defined piece has the score that makes it win (Model::EncodeOptimized). */
static lamina_status raise_user_piece(builder *b, sp_model *s, uint32_t id, const sp_piece *p, lamina_error *err)
{
    if (p->kind != KIND_USER_DEFINED) return LAMINA_OK;
    float score = (float)((double)((float)p->text.bytes * (float)s->greatest) + 0.1);
    return builder_score(b, id, (double)score, PIECE_LOOKUP | PIECE_USER, err);
}

/* ---- the pipeline ------------------------------------------------------------------------------------------- */

static lamina_status add_steps(builder *b, const sp_model *s, bool first_only, lamina_error *err)
{
    normalizer_step step = {.kind = NORMALIZE_SENTENCEPIECE};
    decoder_step decoder = {.kind = DECODE_SENTENCEPIECE, .first_bare = s->prefix || s->squeeze, .cleanup = s->squeeze};
    step.flags = (s->prefix ? SP_PREFIX : 0u) | (s->suffix ? SP_SUFFIX : 0u) | (s->squeeze ? SP_SQUEEZE : 0u) |
                 (s->escape ? SP_ESCAPE : 0u) | (first_only ? SP_FIRST : 0u);
    TRY(builder_normalizer(b, &step, err));
    if (utf8_valid(s->surface.data, s->surface.bytes) != s->surface.bytes)
        return error_set(err, LAMINA_E_FORMAT, "%s: unk_surface is not UTF-8", sp_name);
    TRY(builder_text(b, s->surface.data, s->surface.bytes, &decoder.content, err));
    return builder_decoder(b, &decoder, err);
}

static lamina_status read_flag(const jp *root, const char *key, bool *out, lamina_error *err)
{
    jp value;
    bool found;
    TRY(jp_member(root, key, &found, &value, err));
    return found && jp_peek(&value) == JP_BOOL ? jp_bool(&value, out, err) : LAMINA_OK;
}

typedef struct sp_class {
    char name[64];
    bool bos, eos, legacy;
} sp_class;

static lamina_status read_class(builder *b, const tokenizer_files *files, sp_class *c, lamina_error *err)
{
    jp_document document;
    jp root;
    *c = (sp_class){.bos = true, .legacy = true};
    if (!files->config) return LAMINA_OK;
    TRY(tokenizer_config_class(b->m, files, c->name, sizeof c->name, err));
    TRY(jp_open(b->m, MEM_TOKENIZER, "tokenizer_config.json", files->config, files->config_bytes, &document, &root,
                err));
    lamina_status status = read_flag(&root, "add_bos_token", &c->bos, err);
    if (status == LAMINA_OK) status = read_flag(&root, "add_eos_token", &c->eos, err);
    if (status == LAMINA_OK) status = read_flag(&root, "legacy", &c->legacy, err);
    jp_close(&document);
    return status;
}

static bool mentions(const char *text, size_t bytes, const char *word)
{
    size_t n = strlen(word);
    for (size_t at = 0; text && at + n <= bytes; at++)
        if (memcmp(text + at, word, n) == 0) return true;
    return false;
}

/* ChatGLM2's tokens behind the vocabulary, and those that ChatGLM3 has in addition. */
static lamina_status add_chatglm(builder *b, const tokenizer_files *files, lamina_error *err)
{
    static const char *const names[] = {"[MASK]",   "[gMASK]",       "[sMASK]",        "sop", "eop", "<|system|>",
                                        "<|user|>", "<|assistant|>", "<|observation|>"};
    bool roles = mentions(files->config, files->config_bytes, "<|user|>") ||
                 mentions(files->config, files->config_bytes, "chatglm3") ||
                 mentions(files->model, files->model_bytes, "chatglm3");
    uint32_t first = b->n_pieces;
    for (uint32_t i = 0; i < (roles ? 9 : 5); i++) {
        added_token token = {.text = {names[i], (uint32_t)strlen(names[i])}, .id = first + i, .special = true};
        if (!builder_has(b, token.id)) TRY(builder_added_at(b, &token, err));
    }
    TRY(builder_around(b, true, builder_token(b, "[gMASK]", 7), err));
    return builder_around(b, true, builder_token(b, "sop", 3), err);
}

/* Every class of transformers has the unknown piece among its special tokens, whether the configuration says so or not.
 */
static lamina_status add_unknown(builder *b, lamina_error *err)
{
    piece_span s = b->spans[b->t->bpe.unknown];
    if (s.bytes == UINT32_MAX || builder_is_added(b, (uint32_t)b->t->bpe.unknown)) return LAMINA_OK;
    text_buffer copy = {0}; /* the builder's text moves when it grows */
    lamina_status status = buffer_append(b->m, &copy, b->text.data + s.offset, s.bytes, err);
    added_token token = {.text = {copy.data, s.bytes}, .special = true};
    if (status == LAMINA_OK) status = builder_added(b, &token, err);
    mem_free(b->m, copy.data);
    return status;
}

static lamina_status add_class(builder *b, const tokenizer_files *files, const sp_model *s, const sp_class *c,
                               lamina_error *err)
{
    tokenizer *t = b->t;
    t->bos = builder_find(b, s->bos.data, s->bos.bytes);
    t->eos = builder_find(b, s->eos.data, s->eos.bytes);
    TRY(tokenizer_read_config(b, files, true, err));
    for (uint32_t i = 0; i < t->n_added; i++)
        t->added[i].normalized = false; /* such tokens are cut out of the raw text */
    if (strcmp(c->name, "ChatGLMTokenizer") == 0) return add_chatglm(b, files, err);
    if (c->name[0]) TRY(add_unknown(b, err));
    if (c->bos && t->bos >= 0) TRY(builder_around(b, true, t->bos, err));
    if (c->eos && t->eos >= 0) TRY(builder_around(b, false, t->eos, err));
    return LAMINA_OK;
}

static lamina_status read_specs(builder *b, proto p, sp_model *s, lamina_error *err)
{
    field f;
    *s = (sp_model){.type = MODEL_TYPE_UNIGRAM, .prefix = true, .squeeze = true, .escape = true};
    s->bos = (text_span){"<s>", 3};
    s->eos = (text_span){"</s>", 4};
    s->surface = (text_span){DEFAULT_SURFACE, sizeof DEFAULT_SURFACE - 1};
    s->least = 3.40282346638528859812e38; /* where sentencepiece begins to look: FLT_MAX, FLT_MIN */
    s->greatest = 1.17549435082228750797e-38;
    for (bool more;;) {
        TRY(next_field(&p, &f, &more, err));
        if (!more) break;
        if (is_bytes(&f, 2)) TRY(read_trainer(f.in, s, err));
        if (is_bytes(&f, 3)) TRY(read_normalizer(f.in, s, err));
        if (is_bytes(&f, 5)) TRY(refuse_denormalizer(f.in, err));
    }
    if (s->type != MODEL_TYPE_UNIGRAM && s->type != MODEL_TYPE_BPE)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: model_type %s is not supported", sp_name,
                         s->type == 3   ? "WORD"
                         : s->type == 4 ? "CHAR"
                                        : "(unknown)");
    b->t->kind = s->type == MODEL_TYPE_BPE ? MODEL_SCORED : MODEL_UNIGRAM;
    b->t->bpe.byte_fallback = s->byte_fallback;
    b->t->scored.single = true;
    return LAMINA_OK;
}

static lamina_status read_sentencepiece(builder *b, const tokenizer_files *files, lamina_error *err)
{
    const unsigned char *data = (const unsigned char *)files->sp;
    proto whole = {data, data + files->sp_bytes};
    sp_model s;
    sp_class c;
    TRY(read_specs(b, whole, &s, err));
    TRY(walk_pieces(b, whole, &s, add_piece, err));
    if (s.n_pieces == 0) return error_set(err, LAMINA_E_FORMAT, "%s: no pieces", sp_name);
    if (b->t->bpe.unknown < 0) return error_set(err, LAMINA_E_FORMAT, "%s: no unknown piece", sp_name);
    if (s.least > s.greatest) s.least = 0; /* no normal piece: there is nothing to be worse than */
    b->t->scored.unknown_score = (double)((float)s.least - 10.0f);
    if (b->t->kind == MODEL_UNIGRAM) TRY(walk_pieces(b, whole, &s, raise_user_piece, err));
    if (s.charsmap.bytes) TRY(builder_charsmap(b, s.charsmap.data, s.charsmap.bytes, err));
    TRY(read_class(b, files, &c, err));
    TRY(add_steps(b, &s, !c.legacy, err));
    TRY(add_class(b, files, &s, &c, err));
    return tokenizer_read_texts(b->t, files, err);
}

lamina_status tokenizer_read_sentencepiece(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err)
{
    builder b;
    if (files->sp_bytes > UINT32_MAX - 1) return error_set(err, LAMINA_E_FORMAT, "%s: too large", sp_name);
    lamina_status status = builder_begin(m, sp_name, &b, err);
    if (status == LAMINA_OK) status = read_sentencepiece(&b, files, err);
    if (status == LAMINA_OK) status = builder_finish(&b, out, err);
    builder_end(&b);
    return status;
}

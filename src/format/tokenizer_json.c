/* tokenizer.json.
 *
 * The file's text is checked once and then walked by cursors, member by member, in the order in which this reader
 * needs them, whatever the order in the file; the vocabulary goes straight into the builder. Beside the text itself
 * nothing of the size of the file is held. */
#include <string.h>

#include "format/jsonpull.h"
#include "format/tokenizer_internal.h"

static const char json_name[] = "tokenizer.json";

static lamina_status unsupported(const char *what, lamina_error *err)
{
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: %s is not supported", json_name, what);
}

/* ---- the model ---------------------------------------------------------------------------------------------- */

static lamina_status read_vocabulary(builder *b, const jp *at, lamina_error *err)
{
    jp in;
    TRY(jp_enter(at, JP_OBJECT, &in, err));
    for (;;) {
        bool more;
        jp_text key;
        int64_t id;
        TRY(jp_next_key(&in, &more, &key, err));
        if (!more) return LAMINA_OK;
        TRY(jp_integer(&in, &id, err));
        if (id < 0)
            return error_set(err, LAMINA_E_FORMAT, "%s: piece \"%.*s\" has id %lld", json_name,
                             (int)(key.bytes < 60 ? key.bytes : 60), key.data, (long long)id);
        TRY(builder_piece(b, (uint64_t)id, key.data, key.bytes, err));
    }
}

/* ["left", "right"]; the left one is kept in the buffer while the right one is read. */
static lamina_status read_merge_pair(builder *b, jp *at, text_buffer *keep, lamina_error *err)
{
    jp in;
    jp_text left, right;
    TRY(jp_enter(at, JP_ARRAY, &in, err));
    keep->bytes = 0;
    if (!jp_next_item(&in)) return error_set(err, LAMINA_E_FORMAT, "%s: merge %zu is empty", json_name, b->n_merges);
    TRY(jp_string(&in, &left, err));
    TRY(buffer_append(b->m, keep, left.data, left.bytes, err));
    if (!jp_next_item(&in))
        return error_set(err, LAMINA_E_FORMAT, "%s: merge %zu has one piece", json_name, b->n_merges);
    TRY(jp_string(&in, &right, err));
    if (jp_next_item(&in))
        return error_set(err, LAMINA_E_FORMAT, "%s: merge %zu has more than two pieces", json_name, b->n_merges);
    if (left.bytes > TOKEN_MAX_PATTERN || right.bytes > TOKEN_MAX_PATTERN)
        return error_set(err, LAMINA_E_FORMAT, "%s: merge %zu is too long", json_name, b->n_merges);
    text_span l = {keep->data, (uint32_t)keep->bytes}, r = {right.data, (uint32_t)right.bytes};
    TRY(builder_merge(b, l, r, err));
    jp_skip(at);
    return LAMINA_OK;
}

static lamina_status read_merges(builder *b, const jp *at, lamina_error *err)
{
    jp in;
    text_buffer keep = {0};
    TRY(jp_enter(at, JP_ARRAY, &in, err));
    lamina_status status = LAMINA_OK;
    while (status == LAMINA_OK && jp_next_item(&in)) {
        jp_text line;
        if (jp_peek(&in) == JP_ARRAY) {
            status = read_merge_pair(b, &in, &keep, err);
        } else {
            status = jp_string(&in, &line, err);
            if (status == LAMINA_OK) status = builder_merge_line(b, line.data, line.bytes, err);
        }
    }
    mem_free(b->m, keep.data);
    return status;
}

static lamina_status read_flag(const jp *model, const char *key, bool *out, lamina_error *err)
{
    jp value;
    bool found;
    TRY(jp_member(model, key, &found, &value, err));
    return found ? jp_bool(&value, out, err) : LAMINA_OK;
}

/* An affix of BPE symbols or WordPiece pieces; empty when there is none. */
static lamina_status read_affix(builder *b, const jp *model, const char *key, text_span *out, lamina_error *err)
{
    jp value;
    bool found;
    jp_text text = {0};
    TRY(jp_member(model, key, &found, &value, err));
    if (found) TRY(jp_string(&value, &text, err));
    if (text.bytes > TOKEN_MAX_AFFIX)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a %s of %zu bytes", json_name, key, text.bytes);
    return text.bytes ? builder_text(b, text.data, text.bytes, out, err) : LAMINA_OK;
}

static lamina_status refuse_dropout(const jp *model, lamina_error *err)
{
    jp value;
    bool found;
    double dropout = 0;
    TRY(jp_member(model, "dropout", &found, &value, err));
    if (found) TRY(jp_number(&value, &dropout, err));
    return dropout > 0 ? unsupported("dropout", err) : LAMINA_OK;
}

/* Absent from the vocabulary: as if there were none. */
static lamina_status read_unknown(builder *b, const jp *model, int32_t *id, lamina_error *err)
{
    jp value;
    bool found;
    jp_text text;
    TRY(jp_member(model, "unk_token", &found, &value, err));
    if (!found) return LAMINA_OK;
    TRY(jp_string(&value, &text, err));
    *id = builder_find(b, text.data, text.bytes);
    return LAMINA_OK;
}

static lamina_status read_bpe(builder *b, const jp *model, lamina_error *err)
{
    jp value;
    bool vocab, merges;
    bpe_model *bpe = &b->t->bpe;
    TRY(refuse_dropout(model, err));
    TRY(read_affix(b, model, "continuing_subword_prefix", &bpe->continuing, err));
    TRY(read_affix(b, model, "end_of_word_suffix", &bpe->word_end, err));
    TRY(read_flag(model, "fuse_unk", &bpe->fuse_unknown, err));
    TRY(read_flag(model, "byte_fallback", &bpe->byte_fallback, err));
    TRY(read_flag(model, "ignore_merges", &bpe->ignore_merges, err));
    if ((bpe->continuing.bytes || bpe->word_end.bytes) && (b->t->byte_level || bpe->byte_fallback))
        return unsupported("continuing_subword_prefix or end_of_word_suffix in a model of bytes", err);
    TRY(jp_member(model, "vocab", &vocab, &value, err));
    if (vocab) TRY(read_vocabulary(b, &value, err));
    TRY(jp_member(model, "merges", &merges, &value, err));
    if (!vocab || !merges) return error_set(err, LAMINA_E_FORMAT, "%s: a model without vocab and merges", json_name);
    TRY(read_merges(b, &value, err));
    return read_unknown(b, model, &bpe->unknown, err);
}

/* WordPiece and WordLevel. */
static lamina_status read_words(builder *b, const jp *model, lamina_error *err)
{
    jp value;
    bool found;
    int64_t max_chars = 100;
    word_model *words = &b->t->words;
    if (b->t->byte_level) return unsupported("a ByteLevel step before a model of words", err);
    TRY(jp_member(model, "max_input_chars_per_word", &found, &value, err));
    if (found) TRY(jp_integer(&value, &max_chars, err));
    if (max_chars < 0 || max_chars > TOKEN_MAX_WORD)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: max_input_chars_per_word %lld, at most %d is supported",
                         json_name, (long long)max_chars, TOKEN_MAX_WORD);
    words->max_chars = (uint32_t)max_chars;
    if (b->t->kind == MODEL_WORDPIECE) {
        TRY(jp_member(model, "continuing_subword_prefix", &found, &value, err));
        TRY(found ? read_affix(b, model, "continuing_subword_prefix", &words->continuing, err)
                  : builder_text(b, "##", 2, &words->continuing, err));
    }
    TRY(jp_member(model, "vocab", &found, &value, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: a model without vocab", json_name);
    TRY(read_vocabulary(b, &value, err));
    TRY(read_unknown(b, model, &words->unknown, err));
    if (words->unknown >= 0) return LAMINA_OK;
    return error_set(err, LAMINA_E_FORMAT, "%s: the model's unk_token is not in its vocabulary", json_name);
}

/* [["piece", score], ...]: ids are places. */
static lamina_status read_scored_pieces(builder *b, const jp *at, double *least, lamina_error *err)
{
    jp in, pair;
    TRY(jp_enter(at, JP_ARRAY, &in, err));
    for (uint64_t id = 0; jp_next_item(&in); id++, jp_skip(&in)) {
        jp_text text;
        double score;
        TRY(jp_enter(&in, JP_ARRAY, &pair, err));
        if (!jp_next_item(&pair)) return error_set(err, LAMINA_E_FORMAT, "%s: an empty piece", json_name);
        TRY(jp_string(&pair, &text, err));
        TRY(builder_piece(b, id, text.data, text.bytes, err));
        if (!jp_next_item(&pair)) return error_set(err, LAMINA_E_FORMAT, "%s: a piece without a score", json_name);
        TRY(jp_number(&pair, &score, err));
        if (text.bytes == 0 || text.bytes >= TOKEN_MAX_PATTERN)
            return error_set(err, LAMINA_E_FORMAT, "%s: a piece of %zu bytes", json_name, text.bytes);
        TRY(builder_score(b, id, score, PIECE_LOOKUP, err));
        if (id == 0 || score < *least) *least = score;
    }
    return LAMINA_OK;
}

static lamina_status read_unigram(builder *b, const jp *model, lamina_error *err)
{
    jp value;
    bool found;
    double least = 0;
    int64_t unknown = -1;
    if (b->t->byte_level) return unsupported("a ByteLevel step before a model of scores", err);
    TRY(jp_member(model, "vocab", &found, &value, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: a model without vocab", json_name);
    TRY(read_scored_pieces(b, &value, &least, err));
    TRY(jp_member(model, "unk_id", &found, &value, err));
    if (found && jp_peek(&value) != JP_NULL) TRY(jp_integer(&value, &unknown, err));
    if (unknown < -1 || unknown >= (int64_t)b->n_ids)
        return error_set(err, LAMINA_E_FORMAT, "%s: unk_id %lld, the vocabulary has %zu", json_name, (long long)unknown,
                         b->n_ids);
    b->t->bpe.unknown = (int32_t)unknown;
    b->t->scored.refind = true;
    b->t->scored.unknown_score = least - 10;
    return read_flag(model, "byte_fallback", &b->t->bpe.byte_fallback, err);
}

static lamina_status read_model(builder *b, const jp *root, lamina_error *err)
{
    jp model, value;
    bool found;
    jp_text type = {"BPE", 3};
    TRY(jp_member(root, "model", &found, &model, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: no \"model\"", json_name);
    TRY(jp_member(&model, "type", &found, &value, err));
    bool typed = found;
    if (found) TRY(jp_string(&value, &type, err));
    TRY(jp_member(&model, "vocab", &found, &value, err));
    if (!typed && found && jp_peek(&value) == JP_ARRAY) type = (jp_text){"Unigram", 7};
    b->t->kind = jp_is(type, "BPE")         ? MODEL_BPE
                 : jp_is(type, "Unigram")   ? MODEL_UNIGRAM
                 : jp_is(type, "WordPiece") ? MODEL_WORDPIECE
                 : jp_is(type, "WordLevel") ? MODEL_WORDLEVEL
                                            : MODEL_KINDS;
    switch (b->t->kind) {
    case MODEL_BPE:
        return read_bpe(b, &model, err);
    case MODEL_WORDPIECE:
    case MODEL_WORDLEVEL:
        return read_words(b, &model, err);
    case MODEL_UNIGRAM:
        return read_unigram(b, &model, err);
    case MODEL_SCORED:
    case MODEL_KINDS:
        break;
    }
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: model \"%.*s\" is not supported", json_name,
                     (int)(type.bytes < 60 ? type.bytes : 60), type.data);
}

/* ---- added tokens ------------------------------------------------------------------------------------------- */

static lamina_status read_added_token(builder *b, const jp *at, lamina_error *err)
{
    added_token token;
    bool found;
    TRY(json_read_added_token(at, &token, &found, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: an added token without \"content\"", json_name);
    return builder_added(b, &token, err);
}

static lamina_status read_added(builder *b, const jp *root, lamina_error *err)
{
    jp value, in;
    bool found;
    TRY(jp_member(root, "added_tokens", &found, &value, err));
    if (!found) return LAMINA_OK;
    TRY(jp_enter(&value, JP_ARRAY, &in, err));
    for (; jp_next_item(&in); jp_skip(&in)) TRY(read_added_token(b, &in, err));
    return LAMINA_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static lamina_status read_part(builder *b, const jp *root, const char *key,
                               lamina_status (*read)(builder *, const jp *, lamina_error *), lamina_error *err)
{
    jp value;
    bool found;
    TRY(jp_member(root, key, &found, &value, err));
    return found ? read(b, &value, err) : LAMINA_OK;
}

/* Byte-level pieces and their decoder belong together. */
static lamina_status check_decoder(const tokenizer *t, lamina_error *err)
{
    bool bytes = t->n_decoders == 1 && t->decoders[0].kind == DECODE_BYTES, other = false;
    for (uint32_t i = 0; i < t->n_decoders; i++) other |= t->decoders[i].kind == DECODE_BYTES;
    if (t->byte_level && !bytes) return unsupported("a ByteLevel step without a ByteLevel decoder", err);
    if (!t->byte_level && other) return unsupported("a ByteLevel decoder without a ByteLevel step", err);
    return LAMINA_OK;
}

/* What a builder cannot do without a tokenizer's text behind it: steps after ByteLevel may only cut. */
static lamina_status check_splitters(const tokenizer *t, lamina_error *err)
{
    bool mapped = t->byte_level;
    for (uint32_t i = 0; i < t->n_splitters; i++) mapped &= t->splitters[i].kind != SPLITTER_BYTE_CHARS;
    for (uint32_t i = 0; i < t->n_splitters; i++) { /* mapped before the first: by a normalizer */
        splitter_kind kind = t->splitters[i].kind;
        if (mapped && (kind == SPLITTER_PREFIX_SPACE || kind == SPLITTER_METASPACE))
            return unsupported("a space put behind ByteLevel", err);
        mapped |= t->splitters[i].kind == SPLITTER_BYTE_CHARS;
    }
    return LAMINA_OK;
}

static lamina_status read_root(builder *b, const jp *root, const tokenizer_files *files, lamina_error *err)
{
    if (jp_peek(root) != JP_OBJECT) return error_set(err, LAMINA_E_FORMAT, "%s: expected an object", json_name);
    TRY(read_part(b, root, "normalizer", json_read_normalizer, err));
    TRY(read_part(b, root, "pre_tokenizer", json_read_splitter, err));
    TRY(read_part(b, root, "decoder", json_read_decoder, err));
    if (!b->t->n_decoders) TRY(builder_decoder(b, &(decoder_step){.kind = DECODE_SPACED}, err));
    TRY(check_decoder(b->t, err));
    TRY(check_splitters(b->t, err));
    TRY(read_model(b, root, err));
    TRY(read_added(b, root, err));
    TRY(read_part(b, root, "post_processor", json_read_post_processor, err));
    TRY(tokenizer_read_config(b, files, true, err));
    if (b->t->bos < 0 && b->t->n_before) b->t->bos = (int32_t)b->t->before[0];
    return tokenizer_read_texts(b->t, files, err);
}

lamina_status tokenizer_read_json(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err)
{
    jp_document document;
    jp root;
    builder b;
    TRY(jp_open(m, MEM_TOKENIZER, json_name, files->json, files->json_bytes, &document, &root, err));
    lamina_status status = builder_begin(m, json_name, &b, err);
    if (status == LAMINA_OK) status = read_root(&b, &root, files, err);
    jp_close(&document);
    if (status == LAMINA_OK) status = builder_finish(&b, out, err);
    builder_end(&b);
    return status;
}

/* The steps of tokenizer.json: normalizers, pre-tokenizers, decoders, post-processors.
 *
 * Each reader turns one JSON object into tagged structs of the builder. What is not understood is refused by the name
 * that the file gives it: a tokenizer that is almost right is worse than none. */
#include <string.h>

#include "format/jsonpull.h"
#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

static lamina_status unsupported(const builder *b, const char *what, jp_text type, lamina_error *err)
{
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: %s \"%.*s\" is not supported", b->name, what,
                     (int)(type.bytes < 80 ? type.bytes : 80), type.data);
}

/* The names of types are short: copied, so that later strings do not overwrite them. */
typedef struct type_name {
    char data[40];
    size_t bytes;
} type_name;

static lamina_status read_type(const builder *b, const jp *at, const char *what, type_name *type, lamina_error *err)
{
    jp value;
    bool found;
    jp_text text;
    TRY(jp_member(at, "type", &found, &value, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: a %s without \"type\"", b->name, what);
    TRY(jp_string(&value, &text, err));
    if (text.bytes >= sizeof type->data) return unsupported(b, what, text, err);
    memcpy(type->data, text.data, text.bytes);
    type->data[text.bytes] = '\0';
    type->bytes = text.bytes;
    return LAMINA_OK;
}

static bool is(const type_name *type, const char *word)
{
    return strcmp(type->data, word) == 0;
}

static lamina_status unsupported_type(const builder *b, const char *what, const type_name *type, lamina_error *err)
{
    return unsupported(b, what, (jp_text){type->data, type->bytes}, err);
}

static lamina_status read_bool(const jp *at, const char *key, bool otherwise, bool *out, lamina_error *err)
{
    jp value;
    bool found;
    *out = otherwise;
    TRY(jp_member(at, key, &found, &value, err));
    return found ? jp_bool(&value, out, err) : LAMINA_OK;
}

static lamina_status read_text(builder *b, const jp *at, const char *key, text_span *out, lamina_error *err)
{
    jp value;
    bool found;
    jp_text text;
    TRY(jp_member(at, key, &found, &value, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: expected \"%s\" at byte %zu", b->name, key, at->at);
    TRY(jp_string(&value, &text, err));
    return builder_text(b, text.data, text.bytes, out, err);
}

static lamina_status read_count(const jp *at, const char *key, int64_t *out, lamina_error *err)
{
    jp value;
    bool found;
    *out = 0;
    TRY(jp_member(at, key, &found, &value, err));
    return found ? jp_integer(&value, out, err) : LAMINA_OK;
}

/* {"String": "..."} or {"Regex": "..."} under "pattern". */
static lamina_status read_pattern(builder *b, const jp *at, pattern *p, lamina_error *err)
{
    jp value, inner;
    bool found, regex;
    TRY(jp_member(at, "pattern", &found, &value, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: expected \"pattern\" at byte %zu", b->name, at->at);
    TRY(jp_member(&value, "Regex", &regex, &inner, err));
    p->literal = !regex;
    TRY(read_text(b, &value, regex ? "Regex" : "String", &p->source, err));
    if (p->source.bytes == 0) return error_set(err, LAMINA_E_UNSUPPORTED, "%s: an empty pattern", b->name);
    return LAMINA_OK;
}

typedef lamina_status (*read_step)(builder *b, const jp *at, lamina_error *err);

/* The steps of a Sequence, in order. Depth is bounded by the document's. */
static lamina_status read_sequence(builder *b, const jp *at, const char *key, read_step read, lamina_error *err)
{
    jp value, in;
    bool found;
    TRY(jp_member(at, key, &found, &value, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: a Sequence without \"%s\"", b->name, key);
    TRY(jp_enter(&value, JP_ARRAY, &in, err));
    while (jp_next_item(&in)) {
        TRY(read(b, &in, err));
        jp_skip(&in);
    }
    return LAMINA_OK;
}

/* ---- normalizers -------------------------------------------------------------------------------------------- */

/* BertNormalizer: the steps it stands for. strip_accents without a value follows lowercase. */
static lamina_status read_bert_normalizer(builder *b, const jp *at, lamina_error *err)
{
    bool clean, ideographs, accents, lowercase;
    TRY(read_bool(at, "clean_text", true, &clean, err));
    TRY(read_bool(at, "handle_chinese_chars", true, &ideographs, err));
    TRY(read_bool(at, "lowercase", true, &lowercase, err));
    TRY(read_bool(at, "strip_accents", lowercase, &accents, err));
    if (clean) TRY(builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_CLEAN}, err));
    if (ideographs) TRY(builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_SPACE_IDEOGRAPHS}, err));
    if (accents) {
        TRY(builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_NFD}, err));
        TRY(builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_STRIP_ACCENTS, .left = true}, err));
    }
    return lowercase ? builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_LOWERCASE}, err) : LAMINA_OK;
}

static normalizer_kind simple_normalizer(const type_name *type)
{
    static const struct {
        const char *name;
        normalizer_kind kind;
    } rows[] = {{"NFC", NORMALIZE_NFC},
                {"NFD", NORMALIZE_NFD},
                {"NFKC", NORMALIZE_NFKC},
                {"NFKD", NORMALIZE_NFKD},
                {"Lowercase", NORMALIZE_LOWERCASE},
                {"StripAccents", NORMALIZE_STRIP_ACCENTS},
                {"Nmt", NORMALIZE_NMT},
                {"ByteLevel", NORMALIZE_BYTE_CHARS}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (is(type, rows[i].name)) return rows[i].kind;
    return NORMALIZE_KINDS;
}

/* Precompiled: base64 of sentencepiece's map. An empty one changes nothing. */
static lamina_status read_charsmap(builder *b, const jp *at, lamina_error *err)
{
    jp value;
    bool found;
    jp_text text = {0};
    text_buffer map = {0};
    TRY(jp_member(at, "precompiled_charsmap", &found, &value, err));
    if (found) TRY(jp_string(&value, &text, err));
    if (text.bytes == 0) return LAMINA_OK;
    lamina_status status = buffer_reserve(b->m, &map, text.bytes, err);
    if (status == LAMINA_OK && !base64_decode(text.data, text.bytes, map.data, &map.bytes))
        status = error_set(err, LAMINA_E_FORMAT, "%s: precompiled_charsmap is not base64", b->name);
    if (status == LAMINA_OK) status = builder_charsmap(b, map.data, map.bytes, err);
    mem_free(b->m, map.data);
    TRY(status);
    return builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_CHARSMAP}, err);
}

lamina_status json_read_normalizer(builder *b, const jp *at, lamina_error *err)
{
    type_name type;
    TRY(read_type(b, at, "normalizer", &type, err));
    if (is(&type, "Sequence")) return read_sequence(b, at, "normalizers", json_read_normalizer, err);
    if (is(&type, "Precompiled")) return read_charsmap(b, at, err);
    if (is(&type, "BertNormalizer")) return read_bert_normalizer(b, at, err);
    normalizer_step step = {.kind = simple_normalizer(&type)};
    if (is(&type, "Replace")) {
        step.kind = NORMALIZE_REPLACE;
        TRY(read_pattern(b, at, &step.find, err));
        TRY(read_text(b, at, "content", &step.content, err));
    } else if (is(&type, "Prepend")) {
        step.kind = NORMALIZE_PREPEND;
        TRY(read_text(b, at, "prepend", &step.content, err));
    } else if (is(&type, "Strip")) {
        step.kind = NORMALIZE_STRIP;
        TRY(read_bool(at, "strip_left", true, &step.left, err));
        TRY(read_bool(at, "strip_right", true, &step.right, err));
    }
    if (step.kind == NORMALIZE_KINDS) return unsupported_type(b, "normalizer", &type, err);
    return builder_normalizer(b, &step, err);
}

/* ---- pre-tokenizers ----------------------------------------------------------------------------------------- */

static lamina_status read_behavior(builder *b, const jp *at, split_behavior *out, lamina_error *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    text_span name;
    TRY(read_text(b, at, "behavior", &name, err));
    for (unsigned i = 0; i < SPLIT_BEHAVIORS; i++) {
        if (strcmp(name.data, names[i]) != 0) continue;
        *out = (split_behavior)i;
        return LAMINA_OK;
    }
    return unsupported(b, "split behavior", (jp_text){name.data, name.bytes}, err);
}

static lamina_status read_byte_level(builder *b, const jp *at, lamina_error *err)
{
    bool prefix_space, use_regex;
    TRY(read_bool(at, "add_prefix_space", true, &prefix_space, err));
    TRY(read_bool(at, "use_regex", true, &use_regex, err));
    return builder_byte_level(b, prefix_space, use_regex, err);
}

/* Spaces are replaced, then, unless "split" is false, each replacement begins a piece. */
static lamina_status read_metaspace(builder *b, const jp *at, const char *what, splitter_step *step, bool *split,
                                    lamina_error *err)
{
    static const char *const names[] = {"always", "first", "never"}; /* in prepend_scheme's order */
    jp value;
    bool found, prefix;
    jp_text name = {"always", 6};
    step->kind = SPLITTER_METASPACE;
    step->find.literal = true;
    TRY(read_text(b, at, "replacement", &step->find.source, err));
    if (step->find.source.bytes == 0 || utf8_length(step->find.source.data[0]) != step->find.source.bytes)
        return error_set(err, LAMINA_E_FORMAT, "%s: %s \"Metaspace\" with a replacement that is not one character",
                         b->name, what);
    TRY(read_bool(at, "split", true, split, err));
    TRY(read_bool(at, "add_prefix_space", true, &prefix, err));
    TRY(jp_member(at, "prepend_scheme", &found, &value, err));
    if (found) TRY(jp_string(&value, &name, err));
    for (step->prepend = PREPEND_ALWAYS; step->prepend < PREPEND_SCHEMES; step->prepend++)
        if (jp_is(name, names[step->prepend])) break;
    if (step->prepend == PREPEND_SCHEMES) return unsupported(b, "prepend scheme", name, err);
    if (!prefix && found && step->prepend != PREPEND_NEVER)
        return error_set(err, LAMINA_E_FORMAT, "%s: %s \"Metaspace\": add_prefix_space contradicts prepend_scheme",
                         b->name, what);
    if (!prefix) step->prepend = PREPEND_NEVER;
    return LAMINA_OK;
}

/* Pre-tokenizers that stand for several steps. */
static lamina_status read_compound(builder *b, const jp *at, const type_name *type, bool *done, lamina_error *err)
{
    *done = true;
    if (is(type, "ByteLevel")) return read_byte_level(b, at, err);
    if (is(type, "BertPreTokenizer")) {
        const splitter_step spaces = {.kind = SPLITTER_SPACES, .behavior = SPLIT_REMOVED};
        const splitter_step marks = {.kind = SPLITTER_PUNCTUATION, .behavior = SPLIT_ISOLATED};
        TRY(builder_splitter(b, &spaces, err));
        return builder_splitter(b, &marks, err);
    }
    *done = is(type, "Metaspace");
    if (!*done) return LAMINA_OK;
    splitter_step step = {0};
    bool split;
    TRY(read_metaspace(b, at, "pre-tokenizer", &step, &split, err));
    TRY(builder_splitter(b, &step, err));
    step.kind = SPLITTER_PATTERN;
    step.behavior = SPLIT_MERGED_WITH_NEXT;
    return split ? builder_splitter(b, &step, err) : LAMINA_OK;
}

static lamina_status read_length(builder *b, const jp *at, splitter_step *step, lamina_error *err)
{
    jp value;
    bool found;
    int64_t length = 5;
    TRY(jp_member(at, "length", &found, &value, err));
    if (found) TRY(jp_integer(&value, &length, err));
    if (length < 1 || length > UINT32_MAX)
        return error_set(err, LAMINA_E_FORMAT, "%s: pre-tokenizer \"FixedLength\" with length %lld", b->name,
                         (long long)length);
    step->kind = SPLITTER_LENGTH;
    step->length = (uint32_t)length;
    return LAMINA_OK;
}

lamina_status json_read_splitter(builder *b, const jp *at, lamina_error *err)
{
    type_name type;
    TRY(read_type(b, at, "pre-tokenizer", &type, err));
    if (is(&type, "Sequence")) return read_sequence(b, at, "pretokenizers", json_read_splitter, err);
    bool done;
    TRY(read_compound(b, at, &type, &done, err));
    if (done) return LAMINA_OK;
    splitter_step step = {.kind = SPLITTER_KINDS};
    if (is(&type, "Split")) {
        step.kind = SPLITTER_PATTERN;
        TRY(read_pattern(b, at, &step.find, err));
        TRY(read_behavior(b, at, &step.behavior, err));
        TRY(read_bool(at, "invert", false, &step.invert, err));
    } else if (is(&type, "Digits")) {
        bool individual;
        TRY(read_bool(at, "individual_digits", false, &individual, err));
        step.kind = SPLITTER_DIGITS;
        step.behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    } else if (is(&type, "Punctuation")) {
        jp value;
        bool found;
        step.kind = SPLITTER_PUNCTUATION;
        step.behavior = SPLIT_ISOLATED;
        TRY(jp_member(at, "behavior", &found, &value, err));
        if (found) TRY(read_behavior(b, at, &step.behavior, err));
    } else if (is(&type, "Whitespace")) {
        step.kind = SPLITTER_WORDS;
    } else if (is(&type, "WhitespaceSplit")) {
        step.kind = SPLITTER_SPACES;
        step.behavior = SPLIT_REMOVED;
    } else if (is(&type, "CharDelimiterSplit")) {
        step.kind = SPLITTER_PATTERN;
        step.behavior = SPLIT_REMOVED;
        step.find.literal = true;
        TRY(read_text(b, at, "delimiter", &step.find.source, err));
        if (step.find.source.bytes == 0) return error_set(err, LAMINA_E_FORMAT, "%s: an empty delimiter", b->name);
    } else if (is(&type, "FixedLength")) {
        TRY(read_length(b, at, &step, err));
    }
    if (step.kind == SPLITTER_KINDS) return unsupported_type(b, "pre-tokenizer", &type, err);
    return builder_splitter(b, &step, err);
}

/* ---- decoders ----------------------------------------------------------------------------------------------- */

static bool is_fused(const tokenizer *t)
{
    for (uint32_t i = 0; i < t->n_decoders; i++)
        if (t->decoders[i].kind == DECODE_FUSE) return true;
    return false;
}

static lamina_status read_strip(builder *b, const jp *at, decoder_step *step, lamina_error *err)
{
    int64_t start, stop;
    TRY(read_count(at, "start", &start, err));
    TRY(read_count(at, "stop", &stop, err));
    TRY(read_text(b, at, "content", &step->content, err));
    step->kind = DECODE_STRIP;
    if (is_fused(b->t) && (start != 1 || stop != 0))
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: decoder \"Strip\" after Fuse is supported with start 1 and stop 0", b->name);
    if (start < 0 || stop < 0 || start > UINT32_MAX || stop > UINT32_MAX || step->content.bytes == 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: decoder \"Strip\" of \"%s\", %lld and %lld", b->name,
                         step->content.data, (long long)start, (long long)stop);
    step->start = (uint32_t)start;
    step->stop = (uint32_t)stop;
    return LAMINA_OK;
}

static lamina_status read_decoder_replace(builder *b, const jp *at, decoder_step *step, lamina_error *err)
{
    pattern p = {0};
    TRY(read_pattern(b, at, &p, err));
    TRY(read_text(b, at, "content", &step->content, err));
    if (!p.literal)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: decoder \"Replace\" with a Regex is not supported", b->name);
    if (is_fused(b->t) && utf8_length(p.source.data[0]) != p.source.bytes)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: decoder \"Replace\" after Fuse is supported for a single character", b->name);
    step->kind = DECODE_REPLACE;
    step->find = p.source;
    return LAMINA_OK;
}

/* Decoders that treat piece by piece what begins, continues or ends a word. */
static lamina_status read_word_decoder(builder *b, const jp *at, const type_name *type, decoder_step *step,
                                       lamina_error *err)
{
    if (is(type, "Metaspace")) {
        splitter_step like = {0};
        bool split;
        TRY(read_metaspace(b, at, "decoder", &like, &split, err));
        *step = (decoder_step){.kind = DECODE_METASPACE, .find = like.find.source};
        step->first_bare = like.prepend != PREPEND_NEVER;
    } else if (is(type, "WordPiece")) {
        TRY(read_text(b, at, "prefix", &step->find, err));
        TRY(read_bool(at, "cleanup", true, &step->cleanup, err));
        step->kind = DECODE_WORDPIECE;
    } else if (is(type, "BPEDecoder")) {
        TRY(read_text(b, at, "suffix", &step->find, err));
        if (step->find.bytes == 0) return error_set(err, LAMINA_E_FORMAT, "%s: an empty suffix", b->name);
        step->kind = DECODE_WORD_END;
    }
    if (step->kind != DECODE_KINDS && is_fused(b->t))
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: decoder \"%s\" after Fuse is not supported", b->name,
                         type->data);
    return LAMINA_OK;
}

lamina_status json_read_decoder(builder *b, const jp *at, lamina_error *err)
{
    type_name type;
    TRY(read_type(b, at, "decoder", &type, err));
    if (is(&type, "Sequence")) return read_sequence(b, at, "decoders", json_read_decoder, err);
    decoder_step step = {.kind = DECODE_KINDS};
    if (is(&type, "ByteLevel"))
        step.kind = DECODE_BYTES;
    else if (is(&type, "ByteFallback"))
        step.kind = DECODE_BYTE_FALLBACK;
    else if (is(&type, "Fuse"))
        step.kind = DECODE_FUSE;
    else if (is(&type, "Strip"))
        TRY(read_strip(b, at, &step, err));
    else if (is(&type, "Replace"))
        TRY(read_decoder_replace(b, at, &step, err));
    else
        TRY(read_word_decoder(b, at, &type, &step, err));
    if (step.kind == DECODE_KINDS) return unsupported_type(b, "decoder", &type, err);
    return builder_decoder(b, &step, err);
}

/* ---- post-processors ---------------------------------------------------------------------------------------- */

/* The ids that special_tokens gives a name of the template. */
static lamina_status around_special(builder *b, const jp *at, const text_span *name, bool before, lamina_error *err)
{
    jp tokens, token, ids, in;
    bool found;
    TRY(jp_member(at, "special_tokens", &found, &tokens, err));
    if (found) TRY(jp_member(&tokens, name->data, &found, &token, err));
    if (found) TRY(jp_member(&token, "ids", &found, &ids, err));
    if (!found)
        return error_set(err, LAMINA_E_FORMAT, "%s: the template's token \"%.60s\" has no ids", b->name, name->data);
    TRY(jp_enter(&ids, JP_ARRAY, &in, err));
    while (jp_next_item(&in)) {
        int64_t id;
        TRY(jp_integer(&in, &id, err));
        TRY(builder_around(b, before, id, err));
    }
    return LAMINA_OK;
}

static lamina_status read_template(builder *b, const jp *at, lamina_error *err)
{
    jp single, in, inner;
    bool found, seen = false;
    TRY(jp_member(at, "single", &found, &single, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: a TemplateProcessing without \"single\"", b->name);
    TRY(jp_enter(&single, JP_ARRAY, &in, err));
    for (; jp_next_item(&in); jp_skip(&in)) {
        text_span name;
        TRY(jp_member(&in, "SpecialToken", &found, &inner, err));
        if (found) {
            TRY(read_text(b, &inner, "id", &name, err));
            TRY(around_special(b, at, &name, !seen, err));
            continue;
        }
        TRY(jp_member(&in, "Sequence", &found, &inner, err));
        if (found) TRY(read_text(b, &inner, "id", &name, err));
        if (!found || seen || strcmp(name.data, "A") != 0)
            return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a template that is not tokens around one text", b->name);
        seen = true;
    }
    if (!seen) return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a template without the text", b->name);
    return LAMINA_OK;
}

/* "cls" and "sep": [spelling, id]. */
static lamina_status read_pair(builder *b, const jp *at, const char *key, bool before, lamina_error *err)
{
    jp value, in;
    bool found;
    int64_t id;
    TRY(jp_member(at, key, &found, &value, err));
    if (!found) return error_set(err, LAMINA_E_FORMAT, "%s: a post-processor without \"%s\"", b->name, key);
    TRY(jp_enter(&value, JP_ARRAY, &in, err));
    if (!jp_next_item(&in)) return error_set(err, LAMINA_E_FORMAT, "%s: an empty \"%s\"", b->name, key);
    jp_skip(&in);
    if (!jp_next_item(&in)) return error_set(err, LAMINA_E_FORMAT, "%s: \"%s\" without an id", b->name, key);
    TRY(jp_integer(&in, &id, err));
    return builder_around(b, before, id, err);
}

lamina_status json_read_post_processor(builder *b, const jp *at, lamina_error *err)
{
    type_name type;
    TRY(read_type(b, at, "post-processor", &type, err));
    if (is(&type, "Sequence")) return read_sequence(b, at, "processors", json_read_post_processor, err);
    if (is(&type, "ByteLevel")) return LAMINA_OK; /* changes offsets only */
    if (b->t->n_before || b->t->n_after)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a second template around the text", b->name);
    if (is(&type, "TemplateProcessing")) return read_template(b, at, err);
    if (is(&type, "BertProcessing") || is(&type, "RobertaProcessing")) {
        TRY(read_pair(b, at, "cls", true, err));
        return read_pair(b, at, "sep", false, err);
    }
    return unsupported_type(b, "post-processor", &type, err);
}

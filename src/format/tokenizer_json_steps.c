/* The steps of tokenizer.json: normalizers, pre-tokenizers, decoders, post-processors.
 *
 * Each reader turns one JSON object into tagged structs of the builder. What is not understood is refused by the name
 * that the file gives it: a tokenizer that is almost right is worse than none. */
#include <string.h>

#include "format/jsonpull.h"
#include "format/tokenizer_internal.h"

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

lamina_status json_read_normalizer(builder *b, const jp *at, lamina_error *err)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}; /* in normalizer_kind's order */
    type_name type;
    TRY(read_type(b, at, "normalizer", &type, err));
    if (is(&type, "Sequence")) return read_sequence(b, at, "normalizers", json_read_normalizer, err);
    normalizer_step step = {.kind = NORMALIZE_KINDS};
    for (unsigned i = 0; i < sizeof forms / sizeof *forms; i++)
        if (is(&type, forms[i])) step.kind = (normalizer_kind)i;
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

lamina_status json_read_splitter(builder *b, const jp *at, lamina_error *err)
{
    type_name type;
    TRY(read_type(b, at, "pre-tokenizer", &type, err));
    if (is(&type, "Sequence")) return read_sequence(b, at, "pretokenizers", json_read_splitter, err);
    if (is(&type, "ByteLevel")) return read_byte_level(b, at, err);
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
    }
    if (step.kind == SPLITTER_KINDS) return unsupported_type(b, "pre-tokenizer", &type, err);
    return builder_splitter(b, &step, err);
}

/* ---- decoders ----------------------------------------------------------------------------------------------- */

static lamina_status read_strip(builder *b, const jp *at, decoder_step *step, lamina_error *err)
{
    int64_t start, stop;
    TRY(read_count(at, "start", &start, err));
    TRY(read_count(at, "stop", &stop, err));
    TRY(read_text(b, at, "content", &step->content, err));
    step->kind = DECODE_STRIP;
    bool fused = false;
    for (uint32_t i = 0; i < b->t->n_decoders; i++) fused |= b->t->decoders[i].kind == DECODE_FUSE;
    if (!fused || start != 1 || stop != 0)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: decoder \"Strip\" is supported after Fuse, with start 1 and stop 0", b->name);
    return LAMINA_OK;
}

lamina_status json_read_decoder(builder *b, const jp *at, lamina_error *err)
{
    type_name type;
    TRY(read_type(b, at, "decoder", &type, err));
    if (is(&type, "Sequence")) return read_sequence(b, at, "decoders", json_read_decoder, err);
    decoder_step step = {.kind = DECODE_KINDS};
    if (is(&type, "ByteLevel")) {
        step.kind = DECODE_BYTES;
    } else if (is(&type, "ByteFallback")) {
        step.kind = DECODE_BYTE_FALLBACK;
    } else if (is(&type, "Fuse")) {
        step.kind = DECODE_FUSE;
    } else if (is(&type, "Strip")) {
        TRY(read_strip(b, at, &step, err));
    } else if (is(&type, "Replace")) {
        pattern p = {0};
        TRY(read_pattern(b, at, &p, err));
        TRY(read_text(b, at, "content", &step.content, err));
        if (!p.literal)
            return error_set(err, LAMINA_E_UNSUPPORTED, "%s: decoder \"Replace\" with a Regex is not supported",
                             b->name);
        step.kind = DECODE_REPLACE;
        step.find = p.source;
    }
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

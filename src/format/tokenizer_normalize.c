/* Normalizer steps: text in, text out.
 *
 * Normalization forms go through utf8proc a stretch at a time: a stretch ends before a character that never composes
 * with what is before it, so that megabytes are normalized in a small buffer. ASCII is copied. The text is valid UTF-8
 * before and after every step. */
#include <string.h>
#include <utf8proc.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

/* ---- normalization forms ------------------------------------------------------------------------------------ */

static utf8proc_option_t form_options(normalizer_kind kind)
{
    utf8proc_option_t o = UTF8PROC_STABLE;
    o |= kind == NORMALIZE_NFC || kind == NORMALIZE_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (kind == NORMALIZE_NFKC || kind == NORMALIZE_NFKD) o |= UTF8PROC_COMPAT;
    return o;
}

/* Nothing before such a character changes it or is changed by it, and it is its own decomposition's first: ASCII, and
 * the CJK ideographs that have no decompositions. */
static bool begins_stretch(uint32_t code, bool unmoved)
{
    return code < 0x80 || (code >= 0x4e00 && code < 0xa000) || (unmoved && unicode_is_unmoved(code));
}

static lamina_status normalize_stretch(encoder *e, utf8proc_option_t options, const char *text, size_t bytes,
                                       text_buffer *out)
{
    for (;;) {
        size_t room = e->points_capacity;
        utf8proc_ssize_t n = utf8proc_decompose((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes,
                                                (utf8proc_int32_t *)e->points, (utf8proc_ssize_t)room, options);
        if (n < 0) return error_set(e->err, LAMINA_E_FORMAT, "normalizing a text: %s", utf8proc_errmsg(n));
        if ((size_t)n <= room) {
            n = utf8proc_normalize_utf32((utf8proc_int32_t *)e->points, n, options);
            if (n < 0) return error_set(e->err, LAMINA_E_FORMAT, "normalizing a text: %s", utf8proc_errmsg(n));
            TRY(buffer_reserve(e->m, out, (size_t)n * 4, e->err));
            for (utf8proc_ssize_t i = 0; i < n; i++)
                out->bytes += utf8_write((uint32_t)e->points[i], out->data + out->bytes);
            return LAMINA_OK;
        }
        size_t want = (size_t)n + 64;
        int32_t *grown = mem_resize(e->m, MEM_TOKENIZER, e->points, want * sizeof *grown, e->err);
        if (!grown) return no_memory(e->err);
        e->points = grown;
        e->points_capacity = want;
    }
}

static lamina_status normalize_form(encoder *e, const normalizer_step *step, const char *text, size_t bytes,
                                    text_buffer *out)
{
    utf8proc_option_t options = form_options(step->kind);
    bool unmoved = !step->left;
    TRY(buffer_reserve(e->m, out, bytes, e->err));
    for (size_t at = 0; at < bytes;) {
        size_t end = at;
        while (end < bytes && (unsigned char)text[end] < 0x80) end++;
        if (end < bytes && end > at) end--; /* what follows may compose with the last ASCII character */
        TRY(buffer_append(e->m, out, text + at, end - at, e->err));
        if (end == bytes) break;
        at = end;
        uint32_t code;
        end += utf8_read(text + at, bytes - at, &code);
        if (unmoved && unicode_is_unmoved(code)) {
            TRY(buffer_append(e->m, out, text + at, end - at, e->err));
            at = end;
            continue;
        }
        while (end < bytes) {
            size_t n = utf8_read(text + end, bytes - end, &code);
            if (begins_stretch(code, unmoved)) break;
            end += n;
        }
        TRY(normalize_stretch(e, options, text + at, end - at, out));
        at = end;
    }
    return LAMINA_OK;
}

/* ---- the other steps ---------------------------------------------------------------------------------------- */

/* Steps that put long texts for short ones may not do so one upon the other without an end. */
lamina_status normalize_append(encoder *e, text_buffer *out, const char *data, size_t bytes)
{
    if (bytes <= e->normal_limit && out->bytes <= e->normal_limit - bytes)
        return buffer_append(e->m, out, data, bytes, e->err);
    return error_set(e->err, LAMINA_E_UNSUPPORTED,
                     "the tokenizer's normalizer makes more than %zu bytes of a text, which is more than %d times it",
                     e->normal_limit, TOKEN_MAX_GROWTH);
}

static lamina_status lowercase(encoder *e, const char *text, size_t bytes, text_buffer *out)
{
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        at += utf8_read(text + at, bytes - at, &code);
        TRY(buffer_reserve(e->m, out, 8, e->err));
        if (code == 0x130) { /* the one character whose lower case is two */
            memcpy(out->data + out->bytes, "i\xcc\x87", 3);
            out->bytes += 3;
            continue;
        }
        out->bytes += utf8_write(unicode_to_lower(code), out->data + out->bytes);
    }
    return LAMINA_OK;
}

static lamina_status replace(encoder *e, const normalizer_step *step, const char *text, size_t bytes, text_buffer *out)
{
    regex_cursor c = {0};
    size_t done = 0, begin, end;
    for (;;) {
        bool found;
        TRY(regex_next(&e->regex, &step->find, text, bytes, &c, &begin, &end, &found, e->err));
        if (!found) break;
        TRY(normalize_append(e, out, text + done, begin - done));
        TRY(normalize_append(e, out, step->content.data, step->content.bytes));
        done = end;
    }
    return normalize_append(e, out, text + done, bytes - done);
}

static lamina_status strip(encoder *e, const normalizer_step *step, const char *text, size_t bytes, text_buffer *out)
{
    size_t begin = 0, end = bytes;
    while (step->left && begin < end) {
        uint32_t code;
        size_t n = utf8_read(text + begin, end - begin, &code);
        if (!unicode_is_space(code)) break;
        begin += n;
    }
    while (step->right && end > begin) {
        size_t last = end - 1;
        uint32_t code;
        while (last > begin && ((unsigned char)text[last] & 0xc0) == 0x80) last--;
        utf8_read(text + last, end - last, &code);
        if (!unicode_is_space(code)) break;
        end = last;
    }
    return buffer_append(e->m, out, text + begin, end - begin, e->err);
}

/* ---- steps that look at one character at a time ------------------------------------------------------------- */

/* Each gives the character that stands for `code`, or GONE. */
#define GONE UINT32_MAX

static uint32_t without_mark(uint32_t code)
{
    return unicode_is_mark(code) ? GONE : code;
}

static uint32_t without_nonspacing_mark(uint32_t code)
{
    return unicode_is_nonspacing_mark(code) ? GONE : code;
}

static uint32_t clean(uint32_t code)
{
    if (code == '\t' || code == '\n' || code == '\r') return ' ';
    if (code == 0 || code == 0xfffd || unicode_is_other(code)) return GONE;
    return unicode_is_space(code) ? ' ' : code;
}

/* As SentencePiece's nmt_nfkc rule treats controls, without the normalization form. */
static uint32_t nmt(uint32_t code)
{
    if ((code >= 1 && code <= 8) || code == 0xb || (code >= 0xe && code <= 0x1f) || code == 0x7f || code == 0x8f ||
        code == 0x9f)
        return GONE;
    bool space = code == 9 || code == 0xa || code == 0xc || code == 0xd || code == 0x1680 ||
                 (code >= 0x200b && code <= 0x200f) || code == 0x2028 || code == 0x2029 || code == 0x2581 ||
                 code == 0xfeff || code == 0xfffd;
    return space ? ' ' : code;
}

static lamina_status map_chars(encoder *e, uint32_t (*map)(uint32_t), const char *text, size_t bytes, text_buffer *out)
{
    TRY(buffer_reserve(e->m, out, bytes, e->err)); /* no character becomes a longer one */
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        at += utf8_read(text + at, bytes - at, &code);
        code = map(code);
        if (code != GONE) out->bytes += utf8_write(code, out->data + out->bytes);
    }
    return LAMINA_OK;
}

/* The blocks of ideographs that BERT's multilingual tokenizer sets apart (Devlin et al. 2018). */
static bool is_set_apart(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static lamina_status space_ideographs(encoder *e, const char *text, size_t bytes, text_buffer *out)
{
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t n = utf8_read(text + at, bytes - at, &code);
        bool apart = is_set_apart(code);
        if (apart) TRY(buffer_append(e->m, out, " ", 1, e->err));
        TRY(buffer_append(e->m, out, text + at, n, e->err));
        if (apart) TRY(buffer_append(e->m, out, " ", 1, e->err));
        at += n;
    }
    return LAMINA_OK;
}

static lamina_status spell_bytes(encoder *e, const char *text, size_t bytes, text_buffer *out)
{
    TRY(buffer_reserve(e->m, out, bytes * 2, e->err));
    for (size_t i = 0; i < bytes; i++) out->bytes += utf8_write(byte_to_char((uint8_t)text[i]), out->data + out->bytes);
    return LAMINA_OK;
}

static lamina_status apply(encoder *e, const normalizer_step *step, const char *text, size_t bytes, text_buffer *out)
{
    switch (step->kind) {
    case NORMALIZE_NFC:
    case NORMALIZE_NFD:
    case NORMALIZE_NFKC:
    case NORMALIZE_NFKD:
        return normalize_form(e, step, text, bytes, out);
    case NORMALIZE_LOWERCASE:
        return lowercase(e, text, bytes, out);
    case NORMALIZE_REPLACE:
        return replace(e, step, text, bytes, out);
    case NORMALIZE_PREPEND:
        if (bytes) TRY(normalize_append(e, out, step->content.data, step->content.bytes));
        return normalize_append(e, out, text, bytes);
    case NORMALIZE_STRIP:
        return strip(e, step, text, bytes, out);
    case NORMALIZE_STRIP_ACCENTS:
        return map_chars(e, step->left ? without_nonspacing_mark : without_mark, text, bytes, out);
    case NORMALIZE_CLEAN:
        return map_chars(e, clean, text, bytes, out);
    case NORMALIZE_SPACE_IDEOGRAPHS:
        return space_ideographs(e, text, bytes, out);
    case NORMALIZE_NMT:
        return map_chars(e, nmt, text, bytes, out);
    case NORMALIZE_BYTE_CHARS:
        return spell_bytes(e, text, bytes, out);
    case NORMALIZE_CHARSMAP:
        return charsmap_normalize(e, text, bytes, out);
    case NORMALIZE_SENTENCEPIECE:
        return sentencepiece_normalize(e, step->flags, text, bytes, out);
    case NORMALIZE_KINDS:
        break;
    }
    return error_set(e->err, LAMINA_E_UNSUPPORTED, "unknown normalizer step %d", (int)step->kind);
}

static bool is_form(normalizer_kind kind)
{
    return kind <= NORMALIZE_NFKD;
}

lamina_status normalize(encoder *e, const char *text, size_t bytes, const char **out, size_t *out_bytes)
{
    const tokenizer *t = e->t;
    unsigned turn = 0;
    e->normal_limit = bytes > (SIZE_MAX >> 1) / TOKEN_MAX_GROWTH ? SIZE_MAX >> 1 : bytes * TOKEN_MAX_GROWTH;
    e->normal_limit += TOKEN_MAX_SURPLUS;
    for (uint32_t i = 0; i < t->n_normalizers; i++) {
        const normalizer_step *step = &t->normalizers[i];
        if (is_form(step->kind)) { /* ASCII is in every form already */
            size_t ascii = 0;
            while (ascii < bytes && (unsigned char)text[ascii] < 0x80) ascii++;
            if (ascii == bytes) continue;
        }
        text_buffer *to = &e->normal[turn];
        to->bytes = 0;
        TRY(buffer_reserve(e->m, to, bytes, e->err));
        TRY(apply(e, step, text, bytes, to));
        text = to->data;
        bytes = to->bytes;
        turn ^= 1;
    }
    *out = text;
    *out_bytes = bytes;
    return LAMINA_OK;
}

/* The JSON cursor.
 *
 * jp_open walks the whole text once and accepts exactly RFC 8259 (depth limited, strings valid UTF-8, no lone
 * surrogates). Everything after that relies on it: the walking functions only check what they need to stay inside. */
#include "format/jsonpull.h"

#include <stdlib.h>
#include <string.h>

#include "format/tokenizer_unicode.h"

static size_t skip_space(const jp_document *d, size_t at)
{
    while (at < d->bytes && (d->text[at] == ' ' || d->text[at] == '\n' || d->text[at] == '\r' || d->text[at] == '\t'))
        at++;
    return at;
}

static lamina_status bad(const jp_document *d, size_t at, const char *what, lamina_error *err)
{
    return error_set(err, LAMINA_E_FORMAT, "%s: %s at byte %zu", d->name, what, at);
}

/* ---- the check ---------------------------------------------------------------------------------------------- */

static int hex4(const jp_document *d, size_t at)
{
    if (d->bytes - at < 4) return -1;
    int value = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = d->text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* at: behind a backslash. Sets *code and moves *at behind the escape. */
static bool read_escape(const jp_document *d, size_t *at, uint32_t *code)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (*at >= d->bytes) return false;
    char c = d->text[(*at)++];
    if (c != 'u') {
        const char *found = c ? strchr(names, c) : NULL;
        if (!found) return false;
        *code = (unsigned char)values[found - names];
        return true;
    }
    int high = hex4(d, *at);
    if (high < 0 || (high >= 0xdc00 && high <= 0xdfff)) return false;
    *at += 4;
    *code = (uint32_t)high;
    if (high < 0xd800 || high > 0xdbff) return true;
    if (d->bytes - *at < 6 || d->text[*at] != '\\' || d->text[*at + 1] != 'u') return false;
    int low = hex4(d, *at + 2);
    if (low < 0xdc00 || low > 0xdfff) return false;
    *at += 6;
    *code = 0x10000u + (((uint32_t)high - 0xd800u) << 10) + ((uint32_t)low - 0xdc00u);
    return true;
}

/* at: behind the opening quote; moves it behind the closing one. */
static lamina_status check_string(const jp_document *d, size_t *at, lamina_error *err)
{
    for (size_t i = *at; i < d->bytes;) {
        unsigned char c = (unsigned char)d->text[i];
        uint32_t code;
        if (c == '"') {
            *at = i + 1;
            return LAMINA_OK;
        }
        if (c == '\\') {
            size_t begin = i++;
            if (!read_escape(d, &i, &code)) return bad(d, begin, "bad escape in a string", err);
        } else if (c < 0x20) {
            return bad(d, i, "control character in a string", err);
        } else if (c < 0x80) {
            i++;
        } else {
            size_t n = utf8_read(d->text + i, d->bytes - i, &code);
            if (n == 0) return bad(d, i, "text that is not UTF-8", err);
            i += n;
        }
    }
    return bad(d, d->bytes, "unfinished string", err);
}

static size_t digits(const jp_document *d, size_t at)
{
    size_t begin = at;
    while (at < d->bytes && d->text[at] >= '0' && d->text[at] <= '9') at++;
    return at - begin;
}

static lamina_status check_number(const jp_document *d, size_t *at, lamina_error *err)
{
    size_t i = *at;
    if (i < d->bytes && d->text[i] == '-') i++;
    size_t n = digits(d, i);
    if (n == 0 || (n > 1 && d->text[i] == '0')) return bad(d, *at, "bad number", err);
    i += n;
    if (i < d->bytes && d->text[i] == '.') {
        n = digits(d, ++i);
        if (n == 0) return bad(d, *at, "bad number", err);
        i += n;
    }
    if (i < d->bytes && (d->text[i] == 'e' || d->text[i] == 'E')) {
        i++;
        if (i < d->bytes && (d->text[i] == '+' || d->text[i] == '-')) i++;
        n = digits(d, i);
        if (n == 0) return bad(d, *at, "bad number", err);
        i += n;
    }
    *at = i;
    return LAMINA_OK;
}

static bool starts_with(const jp_document *d, size_t at, const char *word)
{
    size_t n = strlen(word);
    return d->bytes - at >= n && memcmp(d->text + at, word, n) == 0;
}

static lamina_status check_scalar(const jp_document *d, size_t *at, lamina_error *err)
{
    static const char *const words[] = {"true", "false", "null"};
    if (*at >= d->bytes) return bad(d, *at, "unexpected end", err);
    if (d->text[*at] == '"') {
        ++*at;
        return check_string(d, at, err);
    }
    for (size_t i = 0; i < 3; i++) {
        if (!starts_with(d, *at, words[i])) continue;
        *at += strlen(words[i]);
        return LAMINA_OK;
    }
    if (d->text[*at] == '-' || digits(d, *at)) return check_number(d, at, err);
    return bad(d, *at, "unexpected character", err);
}

static lamina_status check_key(const jp_document *d, size_t *at, lamina_error *err)
{
    *at = skip_space(d, *at);
    if (*at >= d->bytes || d->text[*at] != '"') return bad(d, *at, "expected a key", err);
    ++*at;
    TRY(check_string(d, at, err));
    *at = skip_space(d, *at);
    if (*at >= d->bytes || d->text[*at] != ':') return bad(d, *at, "expected ':'", err);
    ++*at;
    return LAMINA_OK;
}

/* Behind a value: closes containers, or passes a comma. *depth 0 afterwards: the document's value is complete. */
static lamina_status check_after_value(const jp_document *d, size_t *at, const char *stack, unsigned *depth,
                                       lamina_error *err)
{
    for (;;) {
        *at = skip_space(d, *at);
        if (*depth == 0) return LAMINA_OK;
        if (*at >= d->bytes) return bad(d, *at, "unexpected end", err);
        char c = d->text[(*at)++];
        if (c == stack[*depth - 1]) {
            --*depth;
            continue;
        }
        if (c != ',') return bad(d, *at - 1, "expected ',' or the end of a container", err);
        return stack[*depth - 1] == '}' ? check_key(d, at, err) : LAMINA_OK;
    }
}

static lamina_status check_document(const jp_document *d, lamina_error *err)
{
    char stack[JP_MAX_DEPTH]; /* the closing bracket of each open container */
    unsigned depth = 0;
    size_t at = 0;
    do {
        at = skip_space(d, at);
        char c = at < d->bytes ? d->text[at] : '\0';
        if (c == '{' || c == '[') {
            if (depth == JP_MAX_DEPTH) return bad(d, at, "nesting too deep", err);
            stack[depth++] = c == '{' ? '}' : ']';
            size_t inside = skip_space(d, at + 1);
            at = inside;
            if (inside < d->bytes && d->text[inside] == stack[depth - 1]) {
                at = inside + 1;
                depth--;
            } else {
                if (c == '{') TRY(check_key(d, &at, err));
                continue;
            }
        } else {
            TRY(check_scalar(d, &at, err));
        }
        TRY(check_after_value(d, &at, stack, &depth, err));
    } while (depth > 0);
    if (at != d->bytes) return bad(d, at, "text after the end of the document", err);
    return LAMINA_OK;
}

lamina_status jp_open(memory *m, mem_tag tag, const char *name, const char *text, size_t bytes, jp_document *document,
                      jp *root, lamina_error *err)
{
    *document = (jp_document){.m = m, .tag = tag, .name = name, .text = text, .bytes = bytes};
    TRY(check_document(document, err));
    *root = (jp){.document = document, .at = skip_space(document, 0)};
    return LAMINA_OK;
}

void jp_close(jp_document *document)
{
    if (!document->m) return;
    mem_free(document->m, document->scratch);
    document->scratch = NULL;
}

/* ---- walking a checked document ----------------------------------------------------------------------------- */

jp_kind jp_peek(const jp *p)
{
    if (p->at >= p->document->bytes) return JP_BAD;
    switch (p->document->text[p->at]) {
    case '{':
        return JP_OBJECT;
    case '[':
        return JP_ARRAY;
    case '"':
        return JP_STRING;
    case 't':
    case 'f':
        return JP_BOOL;
    case 'n':
        return JP_NULL;
    case '}':
    case ']':
        return JP_BAD;
    default:
        return JP_NUMBER;
    }
}

static lamina_status expect(const jp *p, jp_kind kind, lamina_error *err)
{
    static const char *const names[] = {"an object", "an array", "a string", "a number", "true or false", "null", "?"};
    jp_kind found = jp_peek(p);
    if (found == kind) return LAMINA_OK;
    return error_set(err, LAMINA_E_FORMAT, "%s: expected %s, found %s at byte %zu", p->document->name, names[kind],
                     names[found], p->at);
}

/* at: behind the opening quote. Returns the place of the closing one; *escaped: there are backslashes. */
static size_t string_end(const jp_document *d, size_t at, bool *escaped)
{
    *escaped = false;
    while (at < d->bytes && d->text[at] != '"') {
        if (d->text[at] == '\\') {
            *escaped = true;
            at++;
        }
        at++;
    }
    return at;
}

lamina_status jp_string(jp *p, jp_text *text, lamina_error *err)
{
    jp_document *d = p->document;
    TRY(expect(p, JP_STRING, err));
    bool escaped;
    size_t begin = p->at + 1, end = string_end(d, begin, &escaped);
    p->at = end + 1;
    *text = (jp_text){d->text + begin, end - begin};
    if (!escaped) return LAMINA_OK;
    if (d->scratch_bytes < end - begin) { /* an escape never grows */
        size_t want = (end - begin) * 2;
        char *grown = mem_resize(d->m, d->tag, d->scratch, want, err);
        if (!grown) return err ? err->status : LAMINA_E_MEMORY;
        d->scratch = grown;
        d->scratch_bytes = want;
    }
    size_t n = 0;
    for (size_t at = begin; at < end;) {
        if (d->text[at] != '\\') {
            d->scratch[n++] = d->text[at++];
            continue;
        }
        uint32_t code = 0xfffd;
        at++;
        read_escape(d, &at, &code);
        n += utf8_write(code, d->scratch + n);
    }
    *text = (jp_text){d->scratch, n};
    return LAMINA_OK;
}

static size_t scalar_end(const jp_document *d, size_t at)
{
    while (at < d->bytes && !strchr(",]} \n\r\t", d->text[at])) at++;
    return at;
}

lamina_status jp_integer(jp *p, int64_t *value, lamina_error *err)
{
    TRY(expect(p, JP_NUMBER, err));
    const jp_document *d = p->document;
    size_t end = scalar_end(d, p->at), at = p->at;
    bool negative = d->text[at] == '-';
    uint64_t v = 0;
    for (at += negative; at < end; at++) {
        unsigned digit = (unsigned)(d->text[at] - '0');
        if (digit > 9 || v > ((uint64_t)INT64_MAX - digit) / 10) return bad(d, p->at, "expected a 64-bit integer", err);
        v = v * 10 + digit;
    }
    *value = negative ? -(int64_t)v : (int64_t)v;
    p->at = end;
    return LAMINA_OK;
}

lamina_status jp_number(jp *p, double *value, lamina_error *err)
{
    TRY(expect(p, JP_NUMBER, err));
    const jp_document *d = p->document;
    size_t end = scalar_end(d, p->at), n = end - p->at;
    char copy[64];
    if (n >= sizeof copy) return bad(d, p->at, "number too long", err);
    memcpy(copy, d->text + p->at, n);
    copy[n] = '\0';
    *value = strtod(copy, NULL);
    p->at = end;
    return LAMINA_OK;
}

lamina_status jp_bool(jp *p, bool *value, lamina_error *err)
{
    TRY(expect(p, JP_BOOL, err));
    *value = p->document->text[p->at] == 't';
    p->at += *value ? 4 : 5;
    return LAMINA_OK;
}

void jp_skip(jp *p)
{
    const jp_document *d = p->document;
    unsigned depth = 0;
    size_t at = p->at;
    do {
        if (at >= d->bytes) break;
        char c = d->text[at];
        bool escaped;
        if (c == '"')
            at = string_end(d, at + 1, &escaped) + 1;
        else if (c == '{' || c == '[')
            depth++, at++;
        else if (c == '}' || c == ']')
            depth--, at++;
        else if (c == ',' || c == ':' || c == ' ' || c == '\n' || c == '\r' || c == '\t')
            at++;
        else
            at = scalar_end(d, at);
    } while (depth > 0);
    p->at = at;
}

lamina_status jp_enter(const jp *p, jp_kind kind, jp *inside, lamina_error *err)
{
    TRY(expect(p, kind, err));
    *inside = (jp){.document = p->document, .at = p->at + 1, .first = true};
    return LAMINA_OK;
}

bool jp_next_item(jp *p)
{
    const jp_document *d = p->document;
    p->at = skip_space(d, p->at);
    if (p->at >= d->bytes || d->text[p->at] == ']' || d->text[p->at] == '}') return false;
    if (!p->first) p->at = skip_space(d, p->at + 1); /* the comma */
    p->first = false;
    return true;
}

lamina_status jp_next_key(jp *p, bool *more, jp_text *key, lamina_error *err)
{
    *more = jp_next_item(p);
    if (!*more) return LAMINA_OK;
    TRY(jp_string(p, key, err));
    p->at = skip_space(p->document, p->at); /* the colon */
    p->at = skip_space(p->document, p->at + 1);
    return LAMINA_OK;
}

lamina_status jp_member(const jp *p, const char *name, bool *found, jp *value, lamina_error *err)
{
    *found = false;
    if (jp_peek(p) != JP_OBJECT) return LAMINA_OK;
    jp in;
    TRY(jp_enter(p, JP_OBJECT, &in, err));
    for (;;) {
        bool more;
        jp_text key;
        TRY(jp_next_key(&in, &more, &key, err));
        if (!more) return LAMINA_OK;
        if (jp_is(key, name)) {
            *value = in;
            *found = jp_peek(&in) != JP_NULL;
            return LAMINA_OK;
        }
        jp_skip(&in);
    }
}

bool jp_is(jp_text text, const char *word)
{
    return strlen(word) == text.bytes && memcmp(text.data, word, text.bytes) == 0;
}

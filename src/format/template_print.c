/* Values as text: str() and repr() as Python prints them, and JSON as json.dumps writes it.
 *
 * Output grows in the arena by doubling; its size is limited. Floats are the shortest digits that read back the same,
 * laid out as Python does. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "format/template_internal.h"
#include "format/tokenizer_unicode.h"

bool out_bytes(vm *v, output *o, const char *data, size_t bytes)
{
    if (bytes > TEMPLATE_MAX_OUTPUT - o->bytes) return vm_fail(v, "a text of more than %d bytes", TEMPLATE_MAX_OUTPUT);
    if (o->bytes + bytes > o->capacity) {
        size_t capacity = o->capacity ? o->capacity * 2 : 64;
        while (capacity < o->bytes + bytes) capacity *= 2;
        char *grown_data = vm_alloc(v, capacity);
        if (!grown_data) return false;
        if (o->bytes) memcpy(grown_data, o->data, o->bytes);
        o->data = grown_data;
        o->capacity = capacity;
    }
    if (bytes) memcpy(o->data + o->bytes, data, bytes);
    o->bytes += bytes;
    return vm_steps(v, 1 + bytes / 32);
}

bool out_words(vm *v, output *o, const char *words)
{
    return out_bytes(v, o, words, strlen(words));
}

bool out_string(vm *v, output *o, value *out)
{
    return v_text(v, o->data ? o->data : "", o->bytes, out);
}

/* ---- numbers ------------------------------------------------------------------------------------------------ */

/* The digits and decimal exponent of the shortest form that reads back as f (finite). */
static int shortest(double f, char digits[20], int *n)
{
    char text[40];
    for (int precision = 0; precision <= 16; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (strtod(text, NULL) == f || precision == 16) break;
    }
    *n = 0;
    const char *at = text;
    for (; *at && *at != 'e'; at++)
        if (*at >= '0' && *at <= '9') digits[(*n)++] = *at; /* skips the sign and the locale's point */
    while (*n > 1 && digits[*n - 1] == '0') (*n)--;
    return *at ? atoi(at + 1) : 0;
}

bool print_float(vm *v, output *o, double f)
{
    char digits[20], text[64];
    size_t k = 0;
    int n, exponent;
    if (isnan(f)) return out_words(v, o, "nan");
    if (isinf(f)) return out_words(v, o, f < 0 ? "-inf" : "inf");
    exponent = shortest(f, digits, &n);
    if (signbit(f)) text[k++] = '-';
    if (exponent < -4 || exponent >= 16) {
        text[k++] = digits[0];
        if (n > 1) text[k++] = '.';
        for (int i = 1; i < n; i++) text[k++] = digits[i];
        k += (size_t)snprintf(text + k, sizeof text - k, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return out_bytes(v, o, text, k);
    }
    if (exponent < 0) {
        text[k++] = '0';
        text[k++] = '.';
        for (int i = -1; i > exponent; i--) text[k++] = '0';
        for (int i = 0; i < n; i++) text[k++] = digits[i];
    } else {
        for (int i = 0; i <= exponent; i++) text[k++] = i < n ? digits[i] : '0';
        text[k++] = '.';
        if (n <= exponent + 1) text[k++] = '0';
        for (int i = exponent + 1; i < n; i++) text[k++] = digits[i];
    }
    return out_bytes(v, o, text, k);
}

static bool print_int(vm *v, output *o, int64_t i)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)i);
    return out_bytes(v, o, text, (size_t)n);
}

/* ---- repr --------------------------------------------------------------------------------------------------- */

static bool is_printable(uint32_t c)
{
    if (c < 0x80) return c >= 0x20 && c < 0x7f;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    case UTF8PROC_CATEGORY_CN:
        return unicode_stand_in(c) != c;
    default:
        return true;
    }
}

static bool repr_char(vm *v, output *o, uint32_t c, char quote)
{
    char text[12];
    if (c == (unsigned char)quote || c == '\\')
        snprintf(text, sizeof text, "\\%c", (char)c);
    else if (c == '\n' || c == '\r' || c == '\t')
        snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    else if (is_printable(c))
        text[utf8_write(c, text)] = '\0';
    else
        snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    return out_words(v, o, text);
}

static bool repr_string(vm *v, output *o, const tstring *s)
{
    bool single = s->bytes && memchr(s->data, '\'', s->bytes), twice = s->bytes && memchr(s->data, '"', s->bytes);
    char quote = single && !twice ? '"' : '\'';
    if (!out_bytes(v, o, &quote, 1)) return false;
    for (size_t at = 0; at < s->bytes;) {
        uint32_t c;
        size_t n = utf8_read(s->data + at, s->bytes - at, &c);
        if (!n) break;
        if (!repr_char(v, o, c, quote)) return false;
        at += n;
    }
    return out_bytes(v, o, &quote, 1);
}

static bool repr_items(vm *v, output *o, const tlist *l, const char *begin, const char *end)
{
    if (!out_words(v, o, begin)) return false;
    for (size_t i = 0; i < l->n; i++)
        if ((i && !out_words(v, o, ", ")) || !print_repr(v, o, l->items[i])) return false;
    return out_words(v, o, end);
}

static bool repr_dict(vm *v, output *o, const tdict *d)
{
    if (!out_words(v, o, "{")) return false;
    for (size_t i = 0; i < d->n; i++)
        if ((i && !out_words(v, o, ", ")) || !print_repr(v, o, d->entries[i].key) || !out_words(v, o, ": ") ||
            !print_repr(v, o, d->entries[i].value))
            return false;
    return out_words(v, o, "}");
}

static bool repr_range(vm *v, output *o, const tlist *l)
{
    char text[96];
    if (l->step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)l->start, (long long)l->stop);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)l->start, (long long)l->stop,
                 (long long)l->step);
    return out_words(v, o, text);
}

static bool repr_object(vm *v, output *o, value x)
{
    switch (x.kind) {
    case V_NAMESPACE:
        return out_words(v, o, "<Namespace ") && repr_dict(v, o, x.d) && out_words(v, o, ">");
    case V_MACRO:
        return out_words(v, o, "<Macro '") && out_words(v, o, x.macro->name) && out_words(v, o, "'>");
    case V_VIEW:
        return out_words(v, o, x.l->view) && repr_items(v, o, x.l, "([", "])");
    default: /* Python prints an address */
        return vm_fail(v, "a %s cannot be printed", kind_name(x));
    }
}

static bool repr_inside(vm *v, output *o, value x)
{
    switch (x.kind) {
    case V_MISSING:
    case V_UNDEFINED:
        return out_words(v, o, "Undefined");
    case V_NONE:
        return out_words(v, o, "None");
    case V_BOOL:
        return out_words(v, o, x.b ? "True" : "False");
    case V_INT:
        return print_int(v, o, x.i);
    case V_FLOAT:
        return print_float(v, o, x.f);
    case V_STRING:
        if (!x.s->markup) return repr_string(v, o, x.s);
        return out_words(v, o, "Markup(") && repr_string(v, o, x.s) && out_words(v, o, ")");
    case V_LIST:
        return repr_items(v, o, x.l, "[", "]");
    case V_TUPLE:
        return repr_items(v, o, x.l, "(", x.l->n == 1 ? ",)" : ")");
    case V_RANGE:
        return repr_range(v, o, x.l);
    case V_DICT:
        return repr_dict(v, o, x.d);
    default:
        return repr_object(v, o, x);
    }
}

bool print_repr(vm *v, output *o, value x)
{
    if (!vm_steps(v, 1) || !vm_enter(v)) return false;
    bool ok = repr_inside(v, o, x);
    vm_leave(v);
    return ok;
}

bool print_str(vm *v, output *o, value x)
{
    if (x.kind == V_STRING) return out_bytes(v, o, x.s->data, x.s->bytes);
    if (x.kind == V_UNDEFINED || x.kind == V_MISSING) return true;
    return print_repr(v, o, x);
}

bool v_str(vm *v, value x, value *out)
{
    output o = {0};
    if (x.kind == V_STRING) {
        *out = x;
        return true;
    }
    return print_str(v, &o, x) && out_string(v, &o, out);
}

bool v_repr(vm *v, value x, value *out)
{
    output o = {0};
    return print_repr(v, &o, x) && out_string(v, &o, out);
}

/* ---- JSON --------------------------------------------------------------------------------------------------- */

typedef struct json_writer {
    vm *v;
    output *o;
    const char *item, *key, *indent; /* indent NULL: on one line */
    size_t item_bytes, key_bytes, indent_bytes, level;
    bool ensure_ascii, sort_keys;
} json_writer;

static bool json_char(json_writer *w, uint32_t c)
{
    char text[16];
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *simple = c && c < 0x80 ? strchr(from, (int)c) : NULL;
    if (simple)
        snprintf(text, sizeof text, "\\%c", to[simple - from]);
    else if (c >= 0x10000 && w->ensure_ascii)
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + ((c - 0x10000) & 0x3ff));
    else if (c < 0x20 || (c >= 0x7f && w->ensure_ascii))
        snprintf(text, sizeof text, "\\u%04x", c);
    else
        text[utf8_write(c, text)] = '\0';
    return out_words(w->v, w->o, text);
}

static bool json_text(json_writer *w, const char *data, size_t bytes)
{
    if (!out_words(w->v, w->o, "\"")) return false;
    for (size_t at = 0; at < bytes;) {
        size_t plain = at;
        while (plain < bytes && (unsigned char)data[plain] >= 0x20 && (unsigned char)data[plain] < 0x7f &&
               data[plain] != '"' && data[plain] != '\\')
            plain++;
        if (plain > at && !out_bytes(w->v, w->o, data + at, plain - at)) return false;
        at = plain;
        uint32_t c;
        size_t n = at < bytes ? utf8_read(data + at, bytes - at, &c) : 0;
        if (!n) break;
        if (!json_char(w, c)) return false;
        at += n;
    }
    return out_words(w->v, w->o, "\"");
}

static bool json_newline(json_writer *w)
{
    if (!w->indent) return true;
    if (!out_words(w->v, w->o, "\n")) return false;
    for (size_t i = 0; i < w->level; i++)
        if (!out_bytes(w->v, w->o, w->indent, w->indent_bytes)) return false;
    return true;
}

static bool json_float(json_writer *w, double f)
{
    if (isnan(f)) return out_words(w->v, w->o, "NaN");
    if (isinf(f)) return out_words(w->v, w->o, f < 0 ? "-Infinity" : "Infinity");
    return print_float(w->v, w->o, f);
}

static bool json_value(json_writer *w, value x);

static bool json_items(json_writer *w, const tlist *l)
{
    if (!l->n) return out_words(w->v, w->o, "[]");
    if (!out_words(w->v, w->o, "[")) return false;
    w->level++;
    for (size_t i = 0; i < l->n; i++)
        if ((i && !out_bytes(w->v, w->o, w->item, w->item_bytes)) || !json_newline(w) || !json_value(w, l->items[i]))
            return false;
    w->level--;
    return json_newline(w) && out_words(w->v, w->o, "]");
}

static bool json_key(json_writer *w, value key)
{
    output text = {0};
    switch (key.kind) {
    case V_STRING:
        return json_text(w, key.s->data, key.s->bytes);
    case V_NONE:
        return json_text(w, "null", 4);
    case V_BOOL:
        return json_text(w, key.b ? "true" : "false", key.b ? 4 : 5);
    case V_INT:
        return print_int(w->v, &text, key.i) && json_text(w, text.data, text.bytes);
    case V_FLOAT: {
        json_writer inner = *w;
        inner.o = &text;
        return json_float(&inner, key.f) && json_text(w, text.data, text.bytes);
    }
    default:
        return vm_fail(w->v, "keys must be str, int, float, bool or None, not %s", kind_name(key));
    }
}

/* Entries in the order of their keys: a stable merge sort of places. */
static bool sort_entries(json_writer *w, const tdict *d, dict_entry *a, dict_entry *b)
{
    memcpy(a, d->entries, d->n * sizeof *a);
    for (size_t width = 1; width < d->n; width *= 2) {
        for (size_t begin = 0; begin < d->n; begin += 2 * width) {
            size_t i = begin, middle = begin + width < d->n ? begin + width : d->n;
            size_t end = begin + 2 * width < d->n ? begin + 2 * width : d->n;
            for (size_t j = middle, k = begin; k < end; k++) {
                bool less = false;
                if (i < middle && j < end && !v_less(w->v, a[j].key, a[i].key, &less)) return false;
                b[k] = i < middle && (j >= end || !less) ? a[i++] : a[j++];
            }
        }
        memcpy(a, b, d->n * sizeof *a);
    }
    return true;
}

static bool json_members(json_writer *w, const tdict *d)
{
    const dict_entry *entries = d->entries;
    if (!d->n) return out_words(w->v, w->o, "{}");
    if (w->sort_keys) {
        dict_entry *a = vm_array(w->v, d->n, sizeof *a), *b = vm_array(w->v, d->n, sizeof *b);
        if (!a || !b || !sort_entries(w, d, a, b)) return false;
        entries = a;
    }
    if (!out_words(w->v, w->o, "{")) return false;
    w->level++;
    for (size_t i = 0; i < d->n; i++) {
        if ((i && !out_bytes(w->v, w->o, w->item, w->item_bytes)) || !json_newline(w)) return false;
        if (!json_key(w, entries[i].key) || !out_bytes(w->v, w->o, w->key, w->key_bytes)) return false;
        if (!json_value(w, entries[i].value)) return false;
    }
    w->level--;
    return json_newline(w) && out_words(w->v, w->o, "}");
}

static bool json_value(json_writer *w, value x)
{
    bool ok = false;
    if (!vm_steps(w->v, 1) || !vm_enter(w->v)) return false;
    switch (x.kind) {
    case V_NONE:
        ok = out_words(w->v, w->o, "null");
        break;
    case V_BOOL:
        ok = out_words(w->v, w->o, x.b ? "true" : "false");
        break;
    case V_INT:
        ok = print_int(w->v, w->o, x.i);
        break;
    case V_FLOAT:
        ok = json_float(w, x.f);
        break;
    case V_STRING:
        ok = json_text(w, x.s->data, x.s->bytes);
        break;
    case V_LIST:
    case V_TUPLE:
        ok = json_items(w, x.l);
        break;
    case V_DICT:
        ok = json_members(w, x.d);
        break;
    default:
        ok = vm_fail(w->v, "Object of type %s is not JSON serializable", kind_name(x));
        break;
    }
    vm_leave(w->v);
    return ok;
}

static bool json_indent(json_writer *w, value indent)
{
    int64_t spaces;
    if (indent.kind == V_STRING) {
        w->indent = indent.s->data;
        w->indent_bytes = indent.s->bytes;
        return true;
    }
    if (!want_int(w->v, "tojson", indent, 0, &spaces)) return false;
    if (spaces > 1000) return vm_fail(w->v, "tojson: an indent of %lld", (long long)spaces);
    w->indent_bytes = spaces > 0 ? (size_t)spaces : 0;
    char *text = vm_alloc(w->v, w->indent_bytes + 1);
    if (!text) return false;
    memset(text, ' ', w->indent_bytes);
    w->indent = text;
    return true;
}

bool print_json(vm *v, output *o, value x, const json_style *style)
{
    json_writer w = {.v = v, .o = o, .item = ", ", .item_bytes = 2, .key = ": ", .key_bytes = 2};
    w.ensure_ascii = style->ensure_ascii;
    w.sort_keys = style->sort_keys;
    if (style->indent.kind != V_NONE && style->indent.kind != V_MISSING) {
        if (!json_indent(&w, style->indent)) return false;
        w.item_bytes = 1;
    }
    if (style->separators.kind != V_NONE && style->separators.kind != V_MISSING) {
        value s = style->separators;
        if (!is_sequence(s) || s.l->n != 2 || s.l->items[0].kind != V_STRING || s.l->items[1].kind != V_STRING)
            return vm_fail(v, "tojson: expected two texts as separators");
        w.item = s.l->items[0].s->data;
        w.item_bytes = s.l->items[0].s->bytes;
        w.key = s.l->items[1].s->data;
        w.key_bytes = s.l->items[1].s->bytes;
    }
    return json_value(&w, x);
}

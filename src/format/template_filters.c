/* Filters of single values: text, numbers, and the few that take anything. (Those of lists are in template_lists.c.) */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "format/template_internal.h"
#include "format/tokenizer_unicode.h"

static bool as_text(vm *v, value x, value *out)
{
    return v_str(v, x, out);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

#define CASE_FILTER(name, what)                                                                                        \
    static bool filter_##name(vm *v, value x, const call_args *args, value *out)                                       \
    {                                                                                                                  \
        return bind(v, #name, args, "", NULL) && as_text(v, x, &x) && (what);                                          \
    }
CASE_FILTER(upper, text_case(v, x, CASE_UPPER, out))
CASE_FILTER(lower, text_case(v, x, CASE_LOWER, out))
CASE_FILTER(capitalize, text_case(v, x, CASE_CAPITALIZE, out))
CASE_FILTER(title, text_words_title(v, x, out))
CASE_FILTER(escape, text_escape(v, x, out))
CASE_FILTER(string, (*out = x, true))

static bool filter_safe(vm *v, value x, const call_args *args, value *out)
{
    if (!bind(v, "safe", args, "", NULL) || !as_text(v, x, &x) || !v_text(v, x.s->data, x.s->bytes, out)) return false;
    *out = markup_of(*out, true);
    return true;
}

static bool filter_forceescape(vm *v, value x, const call_args *args, value *out)
{
    if (!bind(v, "forceescape", args, "", NULL) || !as_text(v, x, &x)) return false;
    return v_text(v, x.s->data, x.s->bytes, &x) && text_escape(v, x, out);
}

static bool filter_trim(vm *v, value x, const call_args *args, value *out)
{
    value chars;
    return bind(v, "trim", args, "chars?", &chars) && as_text(v, x, &x) && text_strip(v, x, chars, 3, out);
}

static bool filter_replace(vm *v, value x, const call_args *args, value *out)
{
    value a[3];
    int64_t count;
    if (!bind(v, "replace", args, "old new count?", a) || !as_text(v, x, &x) || !as_text(v, a[0], &a[0]) ||
        !as_text(v, a[1], &a[1]) || !want_int(v, "replace", a[2], -1, &count) ||
        !v_text(v, x.s->data, x.s->bytes, &x)) /* no markup any more */
        return false;
    return text_replace(v, x, a[0], a[1], count, out);
}

static bool filter_center(vm *v, value x, const call_args *args, value *out)
{
    value width;
    int64_t n;
    return bind(v, "center", args, "width?", &width) && as_text(v, x, &x) && want_int(v, "center", width, 80, &n) &&
           text_pad(v, x, n, (value){0}, 0, out);
}

static bool indent_of(vm *v, value width, value *out)
{
    int64_t n;
    value space;
    if (width.kind == V_STRING) {
        *out = width;
        return true;
    }
    if (!want_int(v, "indent", width, 4, &n) || !v_words(v, "", &space)) return false;
    return text_pad(v, space, n, (value){0}, -1, out);
}

static bool filter_indent(vm *v, value x, const call_args *args, value *out)
{
    value a[3], indent, lines, newline;
    output o = {0};
    if (!bind(v, "indent", args, "width? first? blank?", a) || !indent_of(v, a[0], &indent)) return false;
    if (!v_words(v, "\n", &newline) || !binary(v, OP_ADD, x, newline, &x) || !text_lines(v, x, false, &lines))
        return false;
    if (v_true(a[1]) && !out_bytes(v, &o, indent.s->data, indent.s->bytes)) return false;
    for (size_t i = 0; i < lines.l->n; i++) {
        const tstring *line = lines.l->items[i].s;
        if (i && !out_bytes(v, &o, "\n", 1)) return false;
        if (i && (line->bytes || v_true(a[2])) && !out_bytes(v, &o, indent.s->data, indent.s->bytes)) return false;
        if (!out_bytes(v, &o, line->data, line->bytes)) return false;
    }
    return out_string(v, &o, out);
}

static bool filter_truncate(vm *v, value x, const call_args *args, value *out)
{
    value a[4], end, cut;
    int64_t length, leeway;
    if (!bind(v, "truncate", args, "length? killwords? end? leeway?", a) ||
        !want_int(v, "truncate", a[0], 255, &length) || !want_int(v, "truncate", a[3], 5, &leeway) ||
        !want_text(v, "truncate", x, &x))
        return false;
    if (a[2].kind == V_MISSING ? !v_words(v, "...", &end) : !want_text(v, "truncate", a[2], &end)) return false;
    int64_t n = (int64_t)v_chars(v, x.s), k = (int64_t)v_chars(v, end.s);
    if (length < k) return vm_fail(v, "expected length >= %lld, got %lld", (long long)k, (long long)length);
    if (leeway < 0) return vm_fail(v, "expected leeway >= 0, got %lld", (long long)leeway);
    *out = x;
    if (n <= length || n - length <= leeway) return true;
    if (!text_slice(v, x, 0, (size_t)(length - k), &cut)) return false;
    if (!v_true(a[1])) {
        value space, parts;
        if (!v_words(v, " ", &space) || !text_split(v, cut, space, 1, true, &parts)) return false;
        cut = parts.l->items[0];
    }
    return binary(v, OP_ADD, cut, end, out);
}

static bool filter_wordcount(vm *v, value x, const call_args *args, value *out)
{
    int64_t n = 0;
    bool inside = false;
    if (!bind(v, "wordcount", args, "", NULL) || !as_text(v, x, &x)) return false;
    for (size_t at = 0, k; at < x.s->bytes; at += k) {
        uint32_t c;
        k = utf8_read(x.s->data + at, x.s->bytes - at, &c);
        if (!k) break;
        bool word = unicode_is_word(c);
        n += word && !inside;
        inside = word;
    }
    *out = v_int(n);
    return vm_steps(v, x.s->bytes / 8);
}

static bool put_quoted(vm *v, output *o, const tstring *s, bool query)
{
    for (size_t i = 0; i < s->bytes; i++) {
        unsigned char c = (unsigned char)s->data[i];
        bool plain = (c | 32) >= 'a' && (c | 32) <= 'z';
        plain |= (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
        char hex[4];
        snprintf(hex, sizeof hex, "%%%02X", c);
        if (plain               ? !out_bytes(v, o, &s->data[i], 1)
            : query && c == ' ' ? !out_words(v, o, "+")
                                : !out_words(v, o, hex))
            return false;
    }
    return true;
}

static bool filter_urlencode(vm *v, value x, const call_args *args, value *out)
{
    output o = {0};
    if (!bind(v, "urlencode", args, "", NULL)) return false;
    if (x.kind != V_DICT) {
        if (is_sequence(x)) return vm_fail(v, "urlencode: pairs are not supported");
        return as_text(v, x, &x) && put_quoted(v, &o, x.s, false) && out_string(v, &o, out);
    }
    for (size_t i = 0; i < x.d->n; i++) {
        value key, item;
        if (!as_text(v, x.d->entries[i].key, &key) || !as_text(v, x.d->entries[i].value, &item)) return false;
        if ((i && !out_words(v, &o, "&")) || !put_quoted(v, &o, key.s, true) || !out_words(v, &o, "=") ||
            !put_quoted(v, &o, item.s, true))
            return false;
    }
    return out_string(v, &o, out);
}

static bool filter_format(vm *v, value x, const call_args *args, value *out)
{
    value all;
    if (args->n && args->n_named) return vm_fail(v, "can't handle positional and keyword arguments at the same time");
    if (!as_text(v, x, &x)) return false;
    if (args->n_named) {
        if (!v_dict(v, &all)) return false;
        for (size_t i = 0; i < args->n_named; i++)
            if (!dict_set(v, all.d, args->names[i], args->named[i])) return false;
    } else {
        if (!v_list(v, V_TUPLE, args->n, &all)) return false;
        for (size_t i = 0; i < args->n; i++) all.l->items[i] = args->items[i];
    }
    return format_percent(v, x.s, all, out);
}

static bool filter_tojson(vm *v, value x, const call_args *args, value *out)
{
    value a[4];
    output o = {0};
    if (!bind(v, "tojson", args, "ensure_ascii? indent? separators? sort_keys?", a)) return false;
    json_style style = {.indent = a[1], .separators = a[2], .ensure_ascii = v_true(a[0]), .sort_keys = v_true(a[3])};
    return print_json(v, &o, x, &style) && out_string(v, &o, out);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static bool filter_abs(vm *v, value x, const call_args *args, value *out)
{
    if (!bind(v, "abs", args, "", NULL)) return false;
    if (x.kind == V_FLOAT) {
        *out = v_float(fabs(x.f));
        return true;
    }
    if (x.kind != V_INT && x.kind != V_BOOL)
        return v_used(v, x) && vm_fail(v, "bad operand type for abs(): '%s'", kind_name(x));
    int64_t i = x.kind == V_INT ? x.i : (int64_t)x.b;
    if (i == INT64_MIN) return vm_fail(v, "an integer beyond 64 bits");
    *out = v_int(i < 0 ? -i : i);
    return true;
}

/* The text of a number without white space around it and without its underscores; false: too long for one, or
 * underscores where none may be. */
static bool number_text(vm *v, value x, char *out, size_t capacity)
{
    value s;
    size_t n = 0;
    if (!text_strip(v, x, v_none(), 3, &s) || s.s->bytes >= capacity || !s.s->bytes) return false;
    for (size_t i = 0; i < s.s->bytes; i++) {
        char c = s.s->data[i];
        if (c == '_') {
            bool between = i && i + 1 < s.s->bytes && s.s->data[i - 1] != '_' && s.s->data[i + 1] != '_';
            if (!between) return false;
            continue;
        }
        if (!c) return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

/* float(text) */
static bool text_to_float(vm *v, value x, double *out)
{
    char text[400], *end;
    if (!number_text(v, x, text, sizeof text)) return false;
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    if (digits[0] == '0' && (digits[1] | 32) == 'x') return false;
    if (!strncasecmp(digits, "nan", 3) && digits[3]) return false;
    *out = strtod(text, &end);
    return !*end;
}

/* int(text, base): 0 no such number, 1 done, 2 beyond 64 bits */
static int text_to_int(vm *v, value x, int64_t base, int64_t *out)
{
    char text[400], *end;
    if (!number_text(v, x, text, sizeof text)) return 0;
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    char kind = digits[0] == '0' ? (char)(digits[1] | 32) : 0;
    int64_t prefix = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    if (base < 0 || base == 1 || base > 36) return 0;
    if (!base) base = prefix ? prefix : 10;
    bool skip = prefix && prefix == base;
    if (prefix == 16 && base != 16 && base < 34) return 0;
    if (skip) digits += 2;
    if (digits[0] == '-' || digits[0] == '+' || digits[0] == ' ' || !digits[0]) return 0;
    errno = 0;
    long long whole = strtoll(digits, &end, (int)base);
    if (*end) return 0;
    if (errno) return 2;
    *out = text[0] == '-' ? -whole : whole;
    return 1;
}

static bool float_to_int(vm *v, double f, value otherwise, value *out)
{
    *out = otherwise;
    if (isnan(f) || isinf(f)) return true;
    if (fabs(f) >= 9223372036854775808.0) return vm_fail(v, "an integer beyond 64 bits");
    *out = v_int((int64_t)f);
    return true;
}

static bool filter_int(vm *v, value x, const call_args *args, value *out)
{
    value a[2];
    int64_t base, whole = 0;
    double f;
    if (!bind(v, "int", args, "default? base?", a) || !want_int(v, "int", a[1], 10, &base) || !v_used(v, x))
        return false;
    if (a[0].kind == V_MISSING) a[0] = v_int(0);
    if (x.kind == V_FLOAT) return float_to_int(v, x.f, a[0], out);
    *out = a[0];
    if (x.kind == V_INT || x.kind == V_BOOL) *out = v_int(x.kind == V_INT ? x.i : (int64_t)x.b);
    if (x.kind != V_STRING) return true;
    int done = text_to_int(v, x, base, &whole);
    if (done == 2) return vm_fail(v, "an integer beyond 64 bits");
    if (done == 1) *out = v_int(whole);
    if (!done && text_to_float(v, x, &f)) return float_to_int(v, f, a[0], out);
    return v->status == LAMINA_OK;
}

static bool filter_float(vm *v, value x, const call_args *args, value *out)
{
    value otherwise;
    double f;
    if (!bind(v, "float", args, "default?", &otherwise) || !v_used(v, x)) return false;
    *out = otherwise.kind == V_MISSING ? v_float(0) : otherwise;
    if (x.kind == V_FLOAT) *out = x;
    if (x.kind == V_INT || x.kind == V_BOOL) *out = v_float(x.kind == V_INT ? (double)x.i : (double)x.b);
    if (x.kind == V_STRING && text_to_float(v, x, &f)) *out = v_float(f);
    return v->status == LAMINA_OK;
}

static bool filter_round(vm *v, value x, const call_args *args, value *out)
{
    value a[2];
    int64_t precision;
    char text[400];
    if (!bind(v, "round", args, "precision? method?", a) || !want_int(v, "round", a[0], 0, &precision)) return false;
    if (x.kind != V_INT && x.kind != V_BOOL && x.kind != V_FLOAT)
        return v_used(v, x) && vm_fail(v, "round: expected a number, found %s", kind_name(x));
    const char *how = "common";
    if (a[1].kind == V_STRING)
        how = a[1].s->bytes == 4 && !memcmp(a[1].s->data, "ceil", 4)     ? "ceil"
              : a[1].s->bytes == 5 && !memcmp(a[1].s->data, "floor", 5)  ? "floor"
              : a[1].s->bytes == 6 && !memcmp(a[1].s->data, "common", 6) ? "common"
                                                                         : NULL;
    if (!how) return vm_fail(v, "method must be common, ceil or floor");
    if (precision > 300 || precision < -300) return vm_fail(v, "round: a precision of %lld", (long long)precision);
    bool is_whole = x.kind != V_FLOAT;
    double f = is_whole ? (x.kind == V_INT ? (double)x.i : (double)x.b) : x.f;
    if (*how != 'c' || how[1] != 'o') {
        double scale = pow(10, (double)precision), scaled = f * scale;
        *out = v_float((*how == 'c' ? ceil(scaled) : floor(scaled)) / scale);
        return true;
    }
    if (is_whole && precision >= 0) {
        *out = v_int(x.kind == V_INT ? x.i : (int64_t)x.b);
        return true;
    }
    if (precision < 0) {
        double scale = pow(10, (double)-precision), rounded = nearbyint(f / scale) * scale;
        *out = is_whole ? v_int((int64_t)rounded) : v_float(rounded);
        return true;
    }
    if (snprintf(text, sizeof text, "%.*f", precision > 60 ? 60 : (int)precision, f) >= (int)sizeof text)
        return vm_fail(v, "round: too many digits");
    *out = v_float(strtod(text, NULL)); /* printf rounds the exact value, as Python does */
    return true;
}

static bool filter_filesizeformat(vm *v, value x, const call_args *args, value *out)
{
    static const char *const units[] = {"k", "M", "G", "T", "P", "E", "Z", "Y"};
    value binary_units, number;
    char text[64];
    const call_args none = {0};
    if (!bind(v, "filesizeformat", args, "binary?", &binary_units) || !filter_float(v, x, &none, &number)) return false;
    double bytes = number.f, base = v_true(binary_units) ? 1024 : 1000, unit = base;
    if (bytes == 1) return v_words(v, "1 Byte", out);
    if (bytes < base) {
        snprintf(text, sizeof text, "%lld Bytes", (long long)bytes);
        return v_copy(v, text, strlen(text), out);
    }
    size_t i = 0;
    for (unit *= base; i < 7 && bytes >= unit; i++) unit *= base;
    const char *kilo = i == 0 && base == 1024 ? "K" : units[i];
    snprintf(text, sizeof text, "%.1f %s%s", base * bytes / unit, kilo, base == 1024 ? "iB" : "B");
    return v_copy(v, text, strlen(text), out);
}

/* ---- anything --------------------------------------------------------------------------------------------------- */

static bool filter_default(vm *v, value x, const call_args *args, value *out)
{
    value a[2];
    if (!bind(v, "default", args, "default_value? boolean?", a)) return false;
    *out = x;
    if (x.kind != V_UNDEFINED && (v_true(x) || !v_true(a[1]))) return true;
    if (a[0].kind == V_MISSING) return v_words(v, "", out);
    *out = a[0];
    return true;
}

static bool filter_attr(vm *v, value x, const call_args *args, value *out)
{
    value name;
    bool found = false;
    if (!bind(v, "attr", args, "name", &name) || !as_text(v, name, &name)) return false;
    if (x.kind == V_NAMESPACE || x.kind == V_LOOP || x.kind == V_UNDEFINED) return get_attribute(v, x, name.s, out);
    if (!get_method(v, x, name.s->data, name.s->bytes, out, &found)) return false;
    return found || v_undefined(v, out, "'%s object' has no such attribute", kind_name(x));
}

const filter_row filters_of_values[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", filter_capitalize},
    {"center", filter_center},
    {"d", filter_default},
    {"default", filter_default},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"filesizeformat", filter_filesizeformat},
    {"float", filter_float},
    {"forceescape", filter_forceescape},
    {"format", filter_format},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", filter_lower},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_upper},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
    {NULL, NULL},
};

const filter_row *find_filter(const tstring *name)
{
    const filter_row *const tables[] = {filters_of_values, filters_of_lists};
    for (size_t i = 0; i < 2; i++)
        for (const filter_row *row = tables[i]; row->name; row++)
            if (strlen(row->name) == name->bytes && memcmp(row->name, name->data, name->bytes) == 0) return row;
    return NULL;
}

/* Formatting by pattern: "%s" % x, "{}".format(x), strftime.
 *
 * The parts of Python's formatting that text needs: widths, signs, fills, precision, and the types s, r, d, i, f, F, e,
 * g, x, X, o, b, c, %. What is not among them is refused, not ignored. */
#include <stdio.h>
#include <stdlib.h>

#include "format/template_internal.h"
#include "format/tokenizer_unicode.h"

typedef struct spec {
    value fill; /* V_MISSING: a space */
    char align; /* '<', '>', '^', '='; 0: by type */
    char sign;  /* '+', ' ' or 0 */
    char type;  /* 0: none */
    bool alternate, zero, comma;
    int64_t width, precision; /* precision -1: none */
} spec;

enum { MAX_PRECISION = 60 };

/* ---- one value --------------------------------------------------------------------------------------------------- */

/* Digits of an integer in a base, without its sign. */
static size_t whole_digits(uint64_t n, unsigned base, bool upper, char *out)
{
    char reversed[64];
    size_t k = 0, n_out = 0;
    do {
        reversed[k++] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[n % base];
        n /= base;
    } while (n);
    while (k) out[n_out++] = reversed[--k];
    return n_out;
}

static void group_thousands(char *text, size_t *n)
{
    char copy[512];
    size_t whole = strcspn(text, ".e"), k = 0;
    if (whole > *n) whole = *n;
    for (size_t i = 0; i < *n; i++) {
        if (i && i < whole && (whole - i) % 3 == 0) copy[k++] = ',';
        copy[k++] = text[i];
    }
    memcpy(text, copy, k);
    text[k] = '\0';
    *n = k;
}

/* Sign, digits: padded to the width. */
static bool put_number(vm *v, output *o, const spec *s, bool negative, const char *prefix, const char *digits, size_t n)
{
    char head[8];
    value body, text;
    snprintf(head, sizeof head, "%s%s", negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "", prefix);
    size_t k = strlen(head);
    bool inside = s->align == '=' || (s->zero && (!s->align || s->align == '='));
    value fill = s->fill;
    if (s->zero && fill.kind == V_MISSING && !v_words(v, "0", &fill)) return false;
    if (!v_copy(v, digits, n, &body)) return false;
    if (inside) {
        if (!text_pad(v, body, s->width - (int64_t)k, fill, 1, &body)) return false;
        return out_bytes(v, o, head, k) && out_bytes(v, o, body.s->data, body.s->bytes);
    }
    output whole = {0};
    if (!out_bytes(v, &whole, head, k) || !out_bytes(v, &whole, digits, n) || !out_string(v, &whole, &text))
        return false;
    int side = s->align == '<' ? -1 : s->align == '^' ? 0 : 1;
    return text_pad(v, text, s->width, fill, side, &text) && out_bytes(v, o, text.s->data, text.s->bytes);
}

static bool put_whole(vm *v, output *o, const spec *s, int64_t i)
{
    char digits[128];
    unsigned base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    uint64_t n = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    size_t k = whole_digits(n, base, s->type == 'X', digits);
    digits[k] = '\0';
    if (s->comma) group_thousands(digits, &k);
    const char *prefix = !s->alternate || base == 10 ? ""
                         : base == 8                 ? "0o"
                         : base == 2                 ? "0b"
                         : s->type == 'X'            ? "0X"
                                                     : "0x";
    return put_number(v, o, s, i < 0, prefix, digits, k);
}

static bool put_float(vm *v, output *o, const spec *s, double f)
{
    char digits[512], pattern[] = "%.*f";
    int64_t precision = s->precision < 0 ? 6 : s->precision;
    bool percent = s->type == '%';
    if (precision > MAX_PRECISION) return vm_fail(v, "a precision of more than %d", MAX_PRECISION);
    if (!s->type && s->precision < 0) {
        output plain = {0};
        value text;
        if (!print_float(v, &plain, f < 0 ? -f : f) || !out_string(v, &plain, &text)) return false;
        snprintf(digits, sizeof digits, "%.*s", (int)text.s->bytes, text.s->data);
    } else {
        pattern[3] = s->type == 0 || s->type == 'n' ? 'g' : percent ? 'f' : s->type;
        if (percent) f *= 100;
        int n = snprintf(digits, sizeof digits, pattern, (int)precision, f < 0 ? -f : f);
        if (n < 0 || n >= (int)sizeof digits - 140) return vm_fail(v, "a number of too many digits");
    }
    size_t k = strlen(digits);
    if (s->comma) group_thousands(digits, &k);
    if (percent) digits[k++] = '%';
    return put_number(v, o, s, f < 0 || (f == 0 && 1 / f < 0), "", digits, k);
}

static bool put_text(vm *v, output *o, const spec *s, value text)
{
    if (s->precision >= 0 && !text_slice(v, text, 0, (size_t)s->precision, &text)) return false;
    int side = s->align == '>' ? 1 : s->align == '^' ? 0 : -1;
    return text_pad(v, text, s->width, s->fill, side, &text) && out_bytes(v, o, text.s->data, text.s->bytes);
}

static bool put_char(vm *v, output *o, const spec *s, int64_t code)
{
    char text[4];
    value x;
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return vm_fail(v, "%%c: not a character");
    return v_copy(v, text, utf8_write((uint32_t)code, text), &x) && put_text(v, o, s, x);
}

static bool put_value(vm *v, output *o, const spec *s, value x)
{
    bool whole = x.kind == V_INT || x.kind == V_BOOL;
    int64_t i = x.kind == V_INT ? x.i : x.kind == V_BOOL ? (int64_t)x.b : 0;
    if (s->type == 'c' && whole) return put_char(v, o, s, i);
    if (s->type && strchr("feEgG%F", s->type) && (whole || x.kind == V_FLOAT))
        return put_float(v, o, s, whole ? (double)i : x.f);
    if (s->type && strchr("dxXob", s->type) && whole) return put_whole(v, o, s, i);
    if (!s->type && x.kind == V_INT) return put_whole(v, o, s, i);
    if (!s->type && x.kind == V_FLOAT) return put_float(v, o, s, x.f);
    if (s->type && s->type != 's')
        return vm_fail(v, "Unknown format code '%c' for object of type '%s'", s->type, kind_name(x));
    bool plain = !s->width && s->precision < 0 && !s->align;
    if (x.kind != V_STRING && x.kind != V_UNDEFINED && !plain && x.kind != V_BOOL)
        return vm_fail(v, "unsupported format string passed to %s.__format__", kind_name(x));
    return v_str(v, x, &x) && put_text(v, o, s, x);
}

/* ---- %-patterns -------------------------------------------------------------------------------------------------- */

typedef struct percent {
    vm *v;
    const tstring *f;
    size_t at;
    value args;
    size_t used; /* of a tuple */
    bool single; /* args is one value */
} percent;

static bool next_argument(percent *p, value *out)
{
    if (p->single ? p->used > 0 : p->used >= p->args.l->n)
        return vm_fail(p->v, "not enough arguments for format string");
    *out = p->single ? p->args : p->args.l->items[p->used];
    p->used++;
    return true;
}

static bool named_argument(percent *p, value *out)
{
    size_t begin = ++p->at;
    bool found = false;
    value key;
    while (p->at < p->f->bytes && p->f->data[p->at] != ')') p->at++;
    if (p->at >= p->f->bytes) return vm_fail(p->v, "incomplete format key");
    if (p->args.kind != V_DICT) return vm_fail(p->v, "format requires a mapping");
    if (!v_text(p->v, p->f->data + begin, p->at++ - begin, &key) || !dict_get(p->v, p->args.d, key, out, &found))
        return false;
    p->used = 1;
    return found || vm_fail(p->v, "a format key that is not in the mapping");
}

static bool read_count(percent *p, int64_t *out)
{
    value x;
    if (p->at < p->f->bytes && p->f->data[p->at] == '*') {
        p->at++;
        return next_argument(p, &x) && want_int(p->v, "*", x, 0, out);
    }
    *out = 0;
    while (p->at < p->f->bytes && p->f->data[p->at] >= '0' && p->f->data[p->at] <= '9') {
        *out = *out * 10 + (p->f->data[p->at++] - '0');
        if (*out > TEMPLATE_MAX_OUTPUT) return vm_fail(p->v, "a width of more than %d", TEMPLATE_MAX_OUTPUT);
    }
    return true;
}

static bool percent_value(percent *p, output *o, spec *s, char type, value x)
{
    bool number = x.kind == V_INT || x.kind == V_BOOL || x.kind == V_FLOAT;
    if (type == 'r' || type == 'a' || type == 's') {
        if (type == 's' ? !v_str(p->v, x, &x) : !v_repr(p->v, x, &x)) return false;
        if (s->align != '<') s->align = '>';
        return put_text(p->v, o, s, x);
    }
    s->type = type == 'i' || type == 'u' ? 'd' : type;
    if (type == 'c' && x.kind == V_STRING && v_chars(p->v, x.s) == 1) return put_text(p->v, o, s, x);
    if (!strchr("dxXofFeEgGc", s->type)) return vm_fail(p->v, "unsupported format character '%c'", type);
    if (!number) return vm_fail(p->v, "%%%c format: a real number is required, not %s", type, kind_name(x));
    if (x.kind == V_FLOAT && s->type == 'd') {
        if (!(x.f > -9.2e18 && x.f < 9.2e18)) return vm_fail(p->v, "an integer beyond 64 bits");
        x = v_int((int64_t)x.f);
    }
    return put_value(p->v, o, s, x);
}

static bool percent_one(percent *p, output *o)
{
    spec s = {.precision = -1};
    value x = {0};
    bool named = false;
    if (p->at < p->f->bytes && p->f->data[p->at] == '(') {
        named = true;
        if (!named_argument(p, &x)) return false;
    }
    for (; p->at < p->f->bytes && strchr("-+ #0", p->f->data[p->at]) && p->f->data[p->at]; p->at++) {
        char c = p->f->data[p->at];
        if (c == '-') s.align = '<';
        if (c == '+' || (c == ' ' && !s.sign)) s.sign = c;
        s.alternate |= c == '#';
        s.zero |= c == '0';
    }
    if (!read_count(p, &s.width)) return false;
    if (s.width < 0) {
        s.align = '<';
        s.width = -s.width;
    }
    if (s.align == '<') s.zero = false;
    if (p->at < p->f->bytes && p->f->data[p->at] == '.') {
        p->at++;
        if (!read_count(p, &s.precision)) return false;
    }
    while (p->at < p->f->bytes && strchr("hlL", p->f->data[p->at]) && p->f->data[p->at]) p->at++;
    if (p->at >= p->f->bytes) return vm_fail(p->v, "incomplete format");
    char type = p->f->data[p->at++];
    if (type == '%') return out_bytes(p->v, o, "%", 1);
    if (!named && !next_argument(p, &x)) return false;
    return percent_value(p, o, &s, type, x);
}

bool format_percent(vm *v, const tstring *format, value args, value *out)
{
    percent p = {.v = v, .f = format, .args = args, .single = args.kind != V_TUPLE};
    output o = {0};
    while (p.at < format->bytes) {
        const char *hit = memchr(format->data + p.at, '%', format->bytes - p.at);
        size_t end = hit ? (size_t)(hit - format->data) : format->bytes;
        if (!out_bytes(v, &o, format->data + p.at, end - p.at)) return false;
        p.at = end + 1;
        if (hit && !percent_one(&p, &o)) return false;
    }
    bool takes_any = args.kind == V_DICT || args.kind == V_LIST || args.kind == V_UNDEFINED;
    if (p.single ? !p.used && !takes_any : p.used < args.l->n)
        return vm_fail(v, "not all arguments converted during string formatting");
    return out_string(v, &o, out);
}

/* ---- {}-patterns ------------------------------------------------------------------------------------------------- */

typedef struct braces {
    vm *v;
    const call_args *args;
    size_t next;
    bool automatic, manual;
} braces;

static bool braces_in(braces *b, const char *f, size_t n, unsigned depth, output *o);

/* The argument that a field's name begins with: a number, a name, or the next one. */
static bool field_argument(braces *b, const char *name, size_t n, value *out)
{
    size_t index = 0;
    bool digits = n > 0;
    for (size_t i = 0; i < n; i++) {
        digits = digits && name[i] >= '0' && name[i] <= '9' && index < 100000;
        index = digits ? index * 10 + (size_t)(name[i] - '0') : index;
    }
    if (!n || digits) {
        b->automatic |= !n;
        b->manual |= digits;
        if (b->automatic && b->manual)
            return vm_fail(b->v, "cannot switch between automatic and manual field numbering");
        if (!n) index = b->next++;
        if (index >= b->args->n)
            return vm_fail(b->v, "Replacement index %zu out of range for positional args tuple", index);
        *out = b->args->items[index];
        return true;
    }
    for (size_t i = 0; i < b->args->n_named; i++) {
        const tstring *s = b->args->names[i].s;
        if (s->bytes != n || memcmp(s->data, name, n) != 0) continue;
        *out = b->args->named[i];
        return true;
    }
    return vm_fail(b->v, "no argument '%.*s' to format", (int)(n & 63), name);
}

/* name, then .attribute and [item], to the field's value */
static bool field_value(braces *b, const char *f, size_t n, value *out)
{
    size_t at = 0;
    while (at < n && f[at] != '.' && f[at] != '[') at++;
    if (!field_argument(b, f, at, out)) return false;
    while (at < n) {
        bool item = f[at++] == '[';
        size_t begin = at;
        value key, x = *out;
        while (at < n && (item ? f[at] != ']' : f[at] != '.' && f[at] != '[')) at++;
        if (at == begin) return vm_fail(b->v, "Empty attribute in format string");
        if (!v_text(b->v, f + begin, at - begin, &key)) return false;
        if (!item) {
            tstring name = *key.s;
            if (!get_attribute(b->v, x, &name, out)) return false;
        } else {
            bool digits = true;
            for (size_t i = begin; i < at; i++) digits = digits && f[i] >= '0' && f[i] <= '9' && at - begin < 18;
            if (digits) key = v_int(strtoll(key.s->data, NULL, 10));
            if (!get_item(b->v, x, key, out)) return false;
            at++;
        }
    }
    return true;
}

static bool parse_spec(vm *v, const char *f, size_t n, spec *s)
{
    size_t at = 0, first = n ? utf8_length(f[0]) : 0;
    *s = (spec){.precision = -1};
    if (first && first < n && strchr("<>^=", f[first])) {
        if (!v_copy(v, f, first, &s->fill)) return false;
        s->align = f[first];
        at = first + 1;
    } else if (n && f[0] && strchr("<>^=", f[0])) {
        s->align = f[at++];
    }
    if (at < n && (f[at] == '+' || f[at] == '-' || f[at] == ' ')) s->sign = f[at++];
    if (at < n && f[at] == '#') s->alternate = ++at;
    if (at < n && f[at] == '0') s->zero = ++at;
    for (; at < n && f[at] >= '0' && f[at] <= '9'; at++)
        if ((s->width = s->width * 10 + (f[at] - '0')) > TEMPLATE_MAX_OUTPUT) return vm_fail(v, "too wide a field");
    if (at < n && f[at] == ',') s->comma = ++at;
    if (at < n && f[at] == '.') {
        s->precision = 0;
        for (at++; at < n && f[at] >= '0' && f[at] <= '9'; at++)
            if ((s->precision = s->precision * 10 + (f[at] - '0')) > TEMPLATE_MAX_OUTPUT)
                return vm_fail(v, "too precise a field");
    }
    if (at < n) s->type = f[at++];
    return at == n || vm_fail(v, "Invalid format specifier");
}

/* name!conversion:spec */
static bool field(braces *b, const char *f, size_t n, unsigned depth, output *o)
{
    size_t end = 0;
    value x;
    spec s;
    output spec_text = {0};
    for (size_t open = 0; end < n && (open || (f[end] != '!' && f[end] != ':')); end++) {
        if (f[end] == '[') open = 1;
        if (f[end] == ']') open = 0;
    }
    if (!field_value(b, f, end, &x)) return false;
    if (end < n && f[end] == '!') {
        char how = end + 1 < n ? f[end + 1] : 0;
        if ((how != 'r' && how != 's' && how != 'a') || (end + 2 < n && f[end + 2] != ':'))
            return vm_fail(b->v, "expected a conversion s, r or a");
        if (how == 's' ? !v_str(b->v, x, &x) : !v_repr(b->v, x, &x)) return false;
        end += 2;
    }
    if (end < n) end++;
    if (depth > 1) return vm_fail(b->v, "Max string recursion exceeded");
    if (end < n && !braces_in(b, f + end, n - end, depth + 1, &spec_text)) return false;
    if (!parse_spec(b->v, spec_text.data, spec_text.bytes, &s)) return false;
    return put_value(b->v, o, &s, x);
}

static bool braces_in(braces *b, const char *f, size_t n, unsigned depth, output *o)
{
    for (size_t at = 0; at < n;) {
        char c = f[at];
        if (!vm_steps(b->v, 1)) return false;
        if (c != '{' && c != '}') {
            size_t begin = at;
            while (at < n && f[at] != '{' && f[at] != '}') at++;
            if (!out_bytes(b->v, o, f + begin, at - begin)) return false;
            continue;
        }
        if (at + 1 < n && f[at + 1] == c && !depth) {
            if (!out_bytes(b->v, o, f + at, 1)) return false;
            at += 2;
            continue;
        }
        if (c == '}') return vm_fail(b->v, "Single '}' encountered in format string");
        size_t begin = ++at, open = 1;
        for (; at < n && open; at++) open += f[at] == '{' ? 1u : f[at] == '}' ? SIZE_MAX : 0;
        if (open) return vm_fail(b->v, "expected '}' before end of string");
        if (!field(b, f + begin, at - 1 - begin, depth, o)) return false;
    }
    return true;
}

bool format_braces(vm *v, const tstring *format, const call_args *args, value *out)
{
    braces b = {.v = v, .args = args};
    output o = {0};
    return braces_in(&b, format->data, format->bytes, 0, &o) && out_string(v, &o, out);
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                     "July",    "August",   "September", "October", "November", "December"};

/* ISO 8601's week, and the year that it belongs to. */
static int iso_week(const struct tm *t, int *year)
{
    int weekday = (t->tm_wday + 6) % 7; /* Monday 0 */
    int week = (t->tm_yday - weekday + 10) / 7;
    *year = t->tm_year + 1900;
    int before = *year - 1, leap = *year % 4 == 0 && (*year % 100 != 0 || *year % 400 == 0);
    if (week < 1) {
        int leap_before = before % 4 == 0 && (before % 100 != 0 || before % 400 == 0);
        *year = before;
        return (t->tm_yday + 365 + leap_before - weekday + 10) / 7;
    }
    if (week == 53 && t->tm_yday - weekday + 3 >= 365 + leap) {
        *year += 1;
        return 1;
    }
    return week;
}

static bool put_padded(vm *v, output *o, char flag, int n, int width, char pad_with)
{
    char text[24];
    if (flag == '-') pad_with = 0;
    if (flag == '_') pad_with = ' ';
    if (flag == '0') pad_with = '0';
    snprintf(text, sizeof text, pad_with == '0' ? "%0*d" : "%*d", pad_with ? width : 0, n);
    return out_words(v, o, text);
}

static bool put_time(vm *v, output *o, char flag, char code, const struct tm *t)
{
    const char *day = days[(unsigned)t->tm_wday % 7], *month = months[(unsigned)t->tm_mon % 12];
    int hour12 = t->tm_hour % 12 ? t->tm_hour % 12 : 12, year = t->tm_year + 1900, iso_year = 0,
        week = iso_week(t, &iso_year);
    switch (code) {
    case 'Y':
        return put_padded(v, o, '-', year, 4, 0);
    case 'y':
        return put_padded(v, o, flag, year % 100, 2, '0');
    case 'C':
        return put_padded(v, o, flag, year / 100, 2, '0');
    case 'm':
        return put_padded(v, o, flag, t->tm_mon + 1, 2, '0');
    case 'd':
        return put_padded(v, o, flag, t->tm_mday, 2, '0');
    case 'e':
        return put_padded(v, o, flag, t->tm_mday, 2, ' ');
    case 'H':
        return put_padded(v, o, flag, t->tm_hour, 2, '0');
    case 'k':
        return put_padded(v, o, flag, t->tm_hour, 2, ' ');
    case 'I':
        return put_padded(v, o, flag, hour12, 2, '0');
    case 'l':
        return put_padded(v, o, flag, hour12, 2, ' ');
    case 'M':
        return put_padded(v, o, flag, t->tm_min, 2, '0');
    case 'S':
        return put_padded(v, o, flag, t->tm_sec, 2, '0');
    case 'f':
        return out_words(v, o, "000000");
    case 'j':
        return put_padded(v, o, flag, t->tm_yday + 1, 3, '0');
    case 'u':
        return put_padded(v, o, flag, t->tm_wday ? t->tm_wday : 7, 1, 0);
    case 'w':
        return put_padded(v, o, flag, t->tm_wday, 1, 0);
    case 'U':
        return put_padded(v, o, flag, (t->tm_yday + 7 - t->tm_wday) / 7, 2, '0');
    case 'W':
        return put_padded(v, o, flag, (t->tm_yday + 7 - (t->tm_wday + 6) % 7) / 7, 2, '0');
    case 'V':
        return put_padded(v, o, flag, week, 2, '0');
    case 'G':
        return put_padded(v, o, '-', iso_year, 4, 0);
    case 'p':
        return out_words(v, o, t->tm_hour < 12 ? "AM" : "PM");
    case 'P':
        return out_words(v, o, t->tm_hour < 12 ? "am" : "pm");
    case 'A':
        return out_words(v, o, day);
    case 'a':
        return out_bytes(v, o, day, 3);
    case 'B':
        return out_words(v, o, month);
    case 'b':
    case 'h':
        return out_bytes(v, o, month, 3);
    case '%':
        return out_words(v, o, "%");
    case 'z':
    case 'Z': /* of a time without a zone */
        return true;
    default:
        return vm_fail(v, "strftime_now: %%%c is not supported", code > 32 && code < 127 ? code : '?');
    }
}

bool print_time(vm *v, output *o, const char *format, size_t bytes, const struct tm *t)
{
    static const struct {
        char code;
        const char *means;
    } wholes[] = {{'c', "%a %b %e %H:%M:%S %Y"},
                  {'x', "%m/%d/%y"},
                  {'X', "%H:%M:%S"},
                  {'D', "%m/%d/%y"},
                  {'F', "%Y-%m-%d"},
                  {'T', "%H:%M:%S"},
                  {'R', "%H:%M"},
                  {'r', "%I:%M:%S %p"}};
    for (size_t at = 0; at < bytes; at++) {
        char flag = 0;
        if (format[at] != '%' || at + 1 >= bytes) {
            if (!out_bytes(v, o, format + at, 1)) return false;
            continue;
        }
        at++;
        if ((format[at] == '-' || format[at] == '_' || format[at] == '0') && at + 1 < bytes) flag = format[at++];
        const char *means = NULL;
        for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++)
            if (wholes[i].code == format[at]) means = wholes[i].means;
        if (means ? !print_time(v, o, means, strlen(means), t) : !put_time(v, o, flag, format[at], t)) return false;
    }
    return true;
}

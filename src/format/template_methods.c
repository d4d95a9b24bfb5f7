/* Methods of strings, dicts, lists and the small objects of Jinja, as Python has them.
 *
 * The sandbox permits what changes nothing; methods that would change a list or dict are undefined, an error once they
 * are called. Arguments are checked as Python checks them: what it refuses is refused. */
#include <utf8proc.h>

#include "format/template_internal.h"
#include "format/tokenizer_unicode.h"

/* ---- strings ---------------------------------------------------------------------------------------------------- */

static bool no_arguments(vm *v, const char *what, const call_args *args)
{
    return (!args->n && !args->n_named) || vm_fail(v, "%s() takes no arguments", what);
}

#define STRING_CASE(name, how)                                                                                         \
    static bool str_##name(vm *v, value self, const call_args *args, value *out)                                       \
    {                                                                                                                  \
        return no_arguments(v, #name, args) && text_case(v, self, how, out);                                           \
    }
STRING_CASE(upper, CASE_UPPER)
STRING_CASE(lower, CASE_LOWER)
STRING_CASE(title, CASE_TITLE)
STRING_CASE(capitalize, CASE_CAPITALIZE)
STRING_CASE(swapcase, CASE_SWAP)

static bool strip_ends(vm *v, value self, const call_args *args, int ends, value *out)
{
    value chars;
    return bind(v, "strip", args, "chars?", &chars) && text_strip(v, self, chars, ends, out);
}
static bool str_strip(vm *v, value self, const call_args *args, value *out)
{
    return strip_ends(v, self, args, 3, out);
}
static bool str_lstrip(vm *v, value self, const call_args *args, value *out)
{
    return strip_ends(v, self, args, 1, out);
}
static bool str_rstrip(vm *v, value self, const call_args *args, value *out)
{
    return strip_ends(v, self, args, 2, out);
}

static bool split_from(vm *v, value self, const call_args *args, bool from_right, value *out)
{
    value a[2];
    int64_t most;
    return bind(v, "split", args, "sep? maxsplit?", a) && want_int(v, "split", a[1], -1, &most) &&
           text_split(v, self, a[0], most, from_right, out);
}
static bool str_split(vm *v, value self, const call_args *args, value *out)
{
    return split_from(v, self, args, false, out);
}
static bool str_rsplit(vm *v, value self, const call_args *args, value *out)
{
    return split_from(v, self, args, true, out);
}

static bool str_splitlines(vm *v, value self, const call_args *args, value *out)
{
    value keep;
    return bind(v, "splitlines", args, "keepends?", &keep) && text_lines(v, self, v_true(keep), out);
}

static bool str_replace(vm *v, value self, const call_args *args, value *out)
{
    value a[3];
    int64_t count;
    return bind(v, "replace", args, "old new count?", a) && want_text(v, "replace", a[0], &a[0]) &&
           want_text(v, "replace", a[1], &a[1]) && want_int(v, "replace", a[2], -1, &count) &&
           text_replace(v, self, a[0], a[1], count, out);
}

/* [start, end) of code points, as slices cut it, in bytes. false in *inside: start is behind the end. */
static bool bounds(vm *v, value self, value start, value end, size_t *from, size_t *to, bool *inside)
{
    int64_t n = (int64_t)v_chars(v, self.s), a, b;
    if (!want_int(v, "index", start, 0, &a) || !want_int(v, "index", end, n, &b)) return false;
    if (a < 0) a = a + n < 0 ? 0 : a + n;
    if (b < 0) b = b + n < 0 ? 0 : b + n;
    if (b > n) b = n;
    *inside = a <= b;
    *from = text_place(self.s, (size_t)(a > n ? n : a));
    *to = text_place(self.s, (size_t)b);
    return vm_steps(v, self.s->bytes / 32);
}

static bool ends_match(const tstring *s, size_t from, size_t to, const tstring *part, bool at_end)
{
    if (part->bytes > to - from) return false;
    return memcmp(s->data + (at_end ? to - part->bytes : from), part->data, part->bytes) == 0;
}

static bool begins_or_ends(vm *v, value self, const call_args *args, bool at_end, value *out)
{
    const char *what = at_end ? "endswith" : "startswith";
    value a[3];
    size_t from, to;
    bool inside, holds = false;
    if (!bind(v, what, args, "prefix start? end?", a) || !bounds(v, self, a[1], a[2], &from, &to, &inside))
        return false;
    tlist one = {.items = &a[0], .n = 1}, *all = a[0].kind == V_TUPLE ? a[0].l : &one;
    for (size_t i = 0; i < all->n; i++) {
        if (all->items[i].kind != V_STRING)
            return v_used(v, all->items[i]) &&
                   vm_fail(v, "%s first arg must be str or a tuple of str, not %s", what, kind_name(all->items[i]));
        holds = holds || (inside && ends_match(self.s, from, to, all->items[i].s, at_end));
    }
    *out = v_bool(holds);
    return true;
}
static bool str_startswith(vm *v, value self, const call_args *args, value *out)
{
    return begins_or_ends(v, self, args, false, out);
}
static bool str_endswith(vm *v, value self, const call_args *args, value *out)
{
    return begins_or_ends(v, self, args, true, out);
}

/* Code point of the first or last place of a part; -1: none. */
static bool find_part(vm *v, value self, const call_args *args, bool last, int64_t *out)
{
    value a[3];
    size_t from, to, hit = SIZE_MAX;
    bool inside;
    if (!bind(v, "find", args, "sub start? end?", a) || !want_text(v, "find", a[0], &a[0])) return false;
    if (!bounds(v, self, a[1], a[2], &from, &to, &inside)) return false;
    const tstring part = {.data = self.s->data, .bytes = to};
    if (inside && !last) hit = text_find(&part, a[0].s, from);
    for (size_t at = to; inside && last && at >= from + a[0].s->bytes; at--) {
        if (memcmp(self.s->data + at - a[0].s->bytes, a[0].s->data, a[0].s->bytes) == 0) {
            hit = at - a[0].s->bytes;
            break;
        }
        if (!at) break;
    }
    *out = -1;
    if (hit == SIZE_MAX) return true;
    *out = 0;
    for (size_t i = 0; i < hit; i++) *out += ((unsigned char)self.s->data[i] & 0xc0) != 0x80;
    return true;
}
static bool find_number(vm *v, value self, const call_args *args, bool last, bool must, value *out)
{
    int64_t at;
    if (!find_part(v, self, args, last, &at)) return false;
    if (at < 0 && must) return vm_fail(v, "substring not found");
    *out = v_int(at);
    return true;
}
static bool str_find(vm *v, value self, const call_args *args, value *out)
{
    return find_number(v, self, args, false, false, out);
}
static bool str_rfind(vm *v, value self, const call_args *args, value *out)
{
    return find_number(v, self, args, true, false, out);
}
static bool str_index(vm *v, value self, const call_args *args, value *out)
{
    return find_number(v, self, args, false, true, out);
}
static bool str_rindex(vm *v, value self, const call_args *args, value *out)
{
    return find_number(v, self, args, true, true, out);
}

static bool str_count(vm *v, value self, const call_args *args, value *out)
{
    value a[3];
    size_t from, to;
    bool inside;
    int64_t n = 0;
    if (!bind(v, "count", args, "sub start? end?", a) || !want_text(v, "count", a[0], &a[0])) return false;
    if (!bounds(v, self, a[1], a[2], &from, &to, &inside)) return false;
    const tstring part = {.data = self.s->data, .bytes = to, .chars = CHARS_UNKNOWN};
    if (!a[0].s->bytes) {
        for (size_t i = from; i < to; i++) n += ((unsigned char)self.s->data[i] & 0xc0) != 0x80;
        n += inside;
    } else {
        for (size_t at = from; inside && (at = text_find(&part, a[0].s, at)) != SIZE_MAX; at += a[0].s->bytes) n++;
    }
    *out = v_int(n);
    return vm_steps(v, (to - from) / 16);
}

static bool str_join(vm *v, value self, const call_args *args, value *out)
{
    value items;
    tlist *l;
    output o = {0};
    if (!bind(v, "join", args, "iterable", &items) || !v_iterate(v, items, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        value x = l->items[i];
        if (x.kind != V_STRING)
            return v_used(v, x) && vm_fail(v, "sequence item %zu: expected str instance, %s found", i, kind_name(x));
        if ((i && !out_bytes(v, &o, self.s->data, self.s->bytes)) || !out_bytes(v, &o, x.s->data, x.s->bytes))
            return false;
    }
    return out_string(v, &o, out);
}

static bool str_format(vm *v, value self, const call_args *args, value *out)
{
    return format_braces(v, self.s, args, out);
}

static bool remove_end(vm *v, value self, const call_args *args, bool at_end, value *out)
{
    value part;
    if (!bind(v, "remove", args, "prefix", &part) || !want_text(v, "remove", part, &part)) return false;
    size_t n = self.s->bytes, k = part.s->bytes;
    *out = self;
    if (!ends_match(self.s, 0, n, part.s, at_end)) return true;
    return v_text(v, self.s->data + (at_end ? 0 : k), n - k, out);
}
static bool str_removeprefix(vm *v, value self, const call_args *args, value *out)
{
    return remove_end(v, self, args, false, out);
}
static bool str_removesuffix(vm *v, value self, const call_args *args, value *out)
{
    return remove_end(v, self, args, true, out);
}

static bool pad(vm *v, value self, const call_args *args, int side, value *out)
{
    value a[2];
    int64_t width;
    if (!bind(v, "justify", args, "width fillchar?", a) || !want_int(v, "justify", a[0], 0, &width)) return false;
    if (a[1].kind != V_MISSING && !want_text(v, "justify", a[1], &a[1])) return false;
    return text_pad(v, self, width, a[1], side, out);
}
static bool str_ljust(vm *v, value self, const call_args *args, value *out)
{
    return pad(v, self, args, -1, out);
}
static bool str_center(vm *v, value self, const call_args *args, value *out)
{
    return pad(v, self, args, 0, out);
}
static bool str_rjust(vm *v, value self, const call_args *args, value *out)
{
    return pad(v, self, args, 1, out);
}

static bool str_zfill(vm *v, value self, const call_args *args, value *out)
{
    value width, zero, rest, sign;
    int64_t n;
    if (!bind(v, "zfill", args, "width", &width) || !want_int(v, "zfill", width, 0, &n) || !v_words(v, "0", &zero))
        return false;
    bool is_signed = self.s->bytes && (self.s->data[0] == '-' || self.s->data[0] == '+');
    if (!v_text(v, self.s->data + is_signed, self.s->bytes - is_signed, &rest)) return false;
    if (!text_pad(v, rest, n - is_signed, zero, 1, &rest) || !v_text(v, self.s->data, is_signed, &sign)) return false;
    return binary(v, OP_ADD, sign, rest, out);
}

static bool cut_three(vm *v, value self, const call_args *args, bool last, value *out)
{
    value sep, items[3], position;
    growing g = {0};
    if (!bind(v, "partition", args, "sep", &sep) || !want_text(v, "partition", sep, &sep)) return false;
    if (!sep.s->bytes) return vm_fail(v, "empty separator");
    if (!text_split(v, self, sep, 1, last, &position)) return false;
    bool found = position.l->n == 2;
    if (!v_words(v, "", &items[1])) return false;
    items[0] = found || !last ? position.l->items[0] : items[1];
    items[2] = found ? position.l->items[1] : last ? position.l->items[0] : items[1];
    if (found) items[1] = sep;
    for (int i = 0; i < 3; i++)
        if (!grow(v, &g, items[i])) return false;
    return grown(v, V_TUPLE, &g, out);
}
static bool str_partition(vm *v, value self, const call_args *args, value *out)
{
    return cut_three(v, self, args, false, out);
}
static bool str_rpartition(vm *v, value self, const call_args *args, value *out)
{
    return cut_three(v, self, args, true, out);
}

static bool str_expandtabs(vm *v, value self, const call_args *args, value *out)
{
    value size;
    int64_t tab, column = 0;
    output o = {0};
    if (!bind(v, "expandtabs", args, "tabsize?", &size) || !want_int(v, "expandtabs", size, 8, &tab)) return false;
    for (size_t i = 0; i < self.s->bytes; i++) {
        char c = self.s->data[i];
        if (c == '\t') {
            int64_t spaces = tab > 0 ? tab - column % tab : 0;
            for (column += spaces; spaces > 0; spaces--)
                if (!out_bytes(v, &o, " ", 1)) return false;
            continue;
        }
        column = c == '\n' || c == '\r' ? 0 : column + (((unsigned char)c & 0xc0) != 0x80);
        if (!out_bytes(v, &o, &c, 1)) return false;
    }
    return out_string(v, &o, out);
}

/* ---- what strings are -------------------------------------------------------------------------------------------- */

typedef enum string_class { IS_DIGIT, IS_DECIMAL, IS_NUMERIC, IS_ALPHA, IS_ALNUM, IS_SPACE, IS_ASCII } string_class;

static bool in_class(uint32_t c, string_class what)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)unicode_stand_in(c));
    bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO, decimal = k == UTF8PROC_CATEGORY_ND;
    bool super = c == 0xb2 || c == 0xb3 || c == 0xb9 || (c >= 0x2070 && c <= 0x2089 && k == UTF8PROC_CATEGORY_NO) ||
                 (c >= 0x2460 && c <= 0x249b && k == UTF8PROC_CATEGORY_NO && c % 20 != 9);
    switch (what) {
    case IS_DECIMAL:
        return decimal;
    case IS_DIGIT:
        return decimal || super;
    case IS_NUMERIC:
        return unicode_is_numeric(c);
    case IS_ALPHA:
        return letter;
    case IS_ALNUM:
        return letter || unicode_is_numeric(c);
    case IS_SPACE:
        return py_is_space(c);
    case IS_ASCII:
        return c < 0x80;
    }
    return false;
}

static bool all_in_class(vm *v, value self, const call_args *args, string_class what, value *out)
{
    bool holds = self.s->bytes != 0 || what == IS_ASCII;
    if (!no_arguments(v, "is...", args)) return false;
    for (size_t at = 0, n; holds && at < self.s->bytes; at += n) {
        uint32_t c;
        n = utf8_read(self.s->data + at, self.s->bytes - at, &c);
        holds = n && in_class(c, what);
        if (!n) break;
    }
    *out = v_bool(holds);
    return vm_steps(v, self.s->bytes / 8);
}

#define STRING_IS(name, what)                                                                                          \
    static bool str_##name(vm *v, value self, const call_args *args, value *out)                                       \
    {                                                                                                                  \
        return all_in_class(v, self, args, what, out);                                                                 \
    }
STRING_IS(isdigit, IS_DIGIT)
STRING_IS(isdecimal, IS_DECIMAL)
STRING_IS(isnumeric, IS_NUMERIC)
STRING_IS(isalpha, IS_ALPHA)
STRING_IS(isalnum, IS_ALNUM)
STRING_IS(isspace, IS_SPACE)
STRING_IS(isascii, IS_ASCII)

static bool has_case(vm *v, value self, const call_args *args, case_kind how, value *out)
{
    value changed, other;
    bool same, cased;
    if (!no_arguments(v, "is...", args) || !text_case(v, self, how, &changed)) return false;
    if (!text_case(v, self, how == CASE_UPPER ? CASE_LOWER : CASE_UPPER, &other)) return false;
    if (!v_equal(v, self, changed, &same) || !v_equal(v, changed, other, &cased)) return false;
    *out = v_bool(same && !cased);
    return true;
}
static bool str_isupper(vm *v, value self, const call_args *args, value *out)
{
    return has_case(v, self, args, CASE_UPPER, out);
}
static bool str_islower(vm *v, value self, const call_args *args, value *out)
{
    return has_case(v, self, args, CASE_LOWER, out);
}
static bool str_istitle(vm *v, value self, const call_args *args, value *out)
{
    return has_case(v, self, args, CASE_TITLE, out);
}

static bool str_isidentifier(vm *v, value self, const call_args *args, value *out)
{
    bool holds = self.s->bytes && !(self.s->data[0] >= '0' && self.s->data[0] <= '9');
    for (size_t at = 0, n; holds && at < self.s->bytes; at += n) {
        uint32_t c;
        n = utf8_read(self.s->data + at, self.s->bytes - at, &c);
        holds = n && unicode_is_word(c);
        if (!n) break;
    }
    *out = v_bool(holds);
    return no_arguments(v, "isidentifier", args);
}

/* ---- dicts, lists ----------------------------------------------------------------------------------------------- */

static bool view(vm *v, value self, const char *name, value *out)
{
    const tdict *d = self.d;
    if (!v_list(v, V_VIEW, d->n, out)) return false;
    out->l->view = name;
    for (size_t i = 0; i < d->n; i++) {
        value pair;
        if (name[5] == 'k') {
            out->l->items[i] = d->entries[i].key;
        } else if (name[5] == 'v') {
            out->l->items[i] = d->entries[i].value;
        } else {
            if (!v_list(v, V_TUPLE, 2, &pair)) return false;
            pair.l->items[0] = d->entries[i].key;
            pair.l->items[1] = d->entries[i].value;
            out->l->items[i] = pair;
        }
    }
    return vm_steps(v, d->n);
}
static bool dict_keys(vm *v, value self, const call_args *args, value *out)
{
    return no_arguments(v, "keys", args) && view(v, self, "dict_keys", out);
}
static bool dict_values(vm *v, value self, const call_args *args, value *out)
{
    return no_arguments(v, "values", args) && view(v, self, "dict_values", out);
}
static bool dict_items(vm *v, value self, const call_args *args, value *out)
{
    return no_arguments(v, "items", args) && view(v, self, "dict_items", out);
}

static bool dict_get_method(vm *v, value self, const call_args *args, value *out)
{
    value a[2];
    bool found;
    if (args->n_named) return vm_fail(v, "dict.get() takes no keyword arguments");
    if (!bind(v, "get", args, "key default?", a) || !dict_get(v, self.d, a[0], out, &found)) return false;
    if (!found) *out = a[1].kind == V_MISSING ? v_none() : a[1];
    return true;
}

static bool copy_self(vm *v, value self, const call_args *args, value *out)
{
    *out = self; /* nothing can change it */
    return no_arguments(v, "copy", args);
}

static bool list_index(vm *v, value self, const call_args *args, value *out)
{
    value a[3];
    int64_t from, to, n = (int64_t)self.l->n;
    bool same = false;
    if (!bind(v, "index", args, "value start? end?", a)) return false;
    if (!want_int(v, "index", a[1], 0, &from) || !want_int(v, "index", a[2], n, &to)) return false;
    if (from < 0) from = from + n < 0 ? 0 : from + n;
    if (to < 0) to += n;
    for (int64_t i = from; i < to && i < n; i++) {
        if (!v_equal(v, self.l->items[i], a[0], &same)) return false;
        *out = v_int(i);
        if (same) return true;
    }
    return vm_fail(v, "the value is not in the list");
}

static bool list_count(vm *v, value self, const call_args *args, value *out)
{
    value x;
    int64_t n = 0;
    bool same;
    if (!bind(v, "count", args, "value", &x)) return false;
    for (size_t i = 0; i < self.l->n; i++) {
        if (!v_equal(v, self.l->items[i], x, &same)) return false;
        n += same;
    }
    *out = v_int(n);
    return true;
}

static bool cycler_next(vm *v, value self, const call_args *args, value *out)
{
    *out = self.l->items[self.l->at];
    self.l->at = (self.l->at + 1) % self.l->n;
    return no_arguments(v, "next", args);
}

static bool cycler_reset(vm *v, value self, const call_args *args, value *out)
{
    self.l->at = 0;
    *out = v_none();
    return no_arguments(v, "reset", args);
}

/* ---- the tables ------------------------------------------------------------------------------------------------- */

typedef struct method_row {
    const char *name;
    method_fn call; /* NULL: would change its object */
    bool named;     /* takes arguments by name */
} method_row;

static const method_row of_strings[] = {
    {"capitalize", str_capitalize, false},
    {"center", str_center, false},
    {"count", str_count, false},
    {"endswith", str_endswith, false},
    {"expandtabs", str_expandtabs, true},
    {"find", str_find, false},
    {"format", str_format, true},
    {"index", str_index, false},
    {"isalnum", str_isalnum, false},
    {"isalpha", str_isalpha, false},
    {"isascii", str_isascii, false},
    {"isdecimal", str_isdecimal, false},
    {"isdigit", str_isdigit, false},
    {"isidentifier", str_isidentifier, false},
    {"islower", str_islower, false},
    {"isnumeric", str_isnumeric, false},
    {"isspace", str_isspace, false},
    {"istitle", str_istitle, false},
    {"isupper", str_isupper, false},
    {"join", str_join, false},
    {"ljust", str_ljust, false},
    {"lower", str_lower, false},
    {"lstrip", str_lstrip, false},
    {"partition", str_partition, false},
    {"removeprefix", str_removeprefix, false},
    {"removesuffix", str_removesuffix, false},
    {"replace", str_replace, false},
    {"rfind", str_rfind, false},
    {"rindex", str_rindex, false},
    {"rjust", str_rjust, false},
    {"rpartition", str_rpartition, false},
    {"rsplit", str_rsplit, true},
    {"rstrip", str_rstrip, false},
    {"split", str_split, true},
    {"splitlines", str_splitlines, true},
    {"startswith", str_startswith, false},
    {"strip", str_strip, false},
    {"swapcase", str_swapcase, false},
    {"title", str_title, false},
    {"upper", str_upper, false},
    {"zfill", str_zfill, false},
    {NULL, NULL, false},
};
static const method_row of_dicts[] = {
    {"get", dict_get_method, false},
    {"items", dict_items, false},
    {"keys", dict_keys, false},
    {"values", dict_values, false},
    {"copy", copy_self, false},
    {"clear", NULL, false},
    {"pop", NULL, false},
    {"popitem", NULL, false},
    {"setdefault", NULL, false},
    {"update", NULL, false},
    {NULL, NULL, false},
};
static const method_row of_lists[] = {
    {"index", list_index, false}, {"count", list_count, false}, {"copy", copy_self, false}, {"append", NULL, false},
    {"clear", NULL, false},       {"pop", NULL, false},         {"reverse", NULL, false},   {"insert", NULL, false},
    {"sort", NULL, false},        {"extend", NULL, false},      {"remove", NULL, false},    {NULL, NULL, false},
};
static const method_row of_tuples[] = {{"index", list_index, false}, {"count", list_count, false}, {NULL, NULL, false}};
static const method_row of_cyclers[] = {
    {"next", cycler_next, false}, {"reset", cycler_reset, false}, {NULL, NULL, false}};

bool get_method(vm *v, value x, const char *name, size_t bytes, value *out, bool *found)
{
    const method_row *row = x.kind == V_STRING                       ? of_strings
                            : x.kind == V_DICT                       ? of_dicts
                            : x.kind == V_LIST                       ? of_lists
                            : x.kind == V_TUPLE || x.kind == V_RANGE ? of_tuples
                            : x.kind == V_CYCLER                     ? of_cyclers
                                                                     : NULL;
    *found = false;
    if (x.kind == V_CYCLER && bytes == 7 && memcmp(name, "current", 7) == 0) {
        *found = true;
        *out = x.l->items[x.l->at];
        return true;
    }
    for (; row && row->name; row++) {
        if (strlen(row->name) != bytes || memcmp(row->name, name, bytes) != 0) continue;
        *found = true;
        if (!row->call)
            return v_undefined(v, out, "access to attribute '%s' of '%s' object is unsafe.", row->name, kind_name(x));
        tmethod *method = vm_alloc(v, sizeof *method);
        if (!method) return false;
        *method = (tmethod){x, row->name, row->call, row->named};
        *out = (value){.kind = V_METHOD, .method = method};
        return true;
    }
    return true;
}

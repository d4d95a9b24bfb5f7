/* Strings, as Python's methods treat them: by code points, with Unicode's white space and letters. */
#include <utf8proc.h>

#include "format/template_internal.h"
#include "format/template_unicode.h"
#include "format/tokenizer_unicode.h"

bool py_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

value markup_of(value s, bool markup)
{
    if (s.kind == V_STRING && markup) s.s->markup = true;
    return s;
}

/* ---- case --------------------------------------------------------------------------------------------------- */

static bool is_cased(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

static bool put_char(vm *v, output *o, uint32_t c)
{
    char text[4];
    return out_bytes(v, o, text, utf8_write(c, text));
}

static bool put_special(vm *v, output *o, const case_special *special)
{
    for (size_t i = 0; i < 3 && special->to[i]; i++)
        if (!put_char(v, o, special->to[i])) return false;
    return true;
}

static bool put_upper(vm *v, output *o, uint32_t c, bool title)
{
    const case_special *special = c < 0x80 ? NULL : find_case(title ? case_titles : case_uppers, c);
    if (special) return put_special(v, o, special);
    if (c < 0x80) return put_char(v, o, c >= 'a' && c <= 'z' ? c - 32 : c);
    return put_char(v, o, (uint32_t)(title ? utf8proc_totitle((int32_t)c) : utf8proc_toupper((int32_t)c)));
}

/* A capital sigma at the end of a word becomes the final form. */
static bool is_final_sigma(const tstring *s, size_t at)
{
    uint32_t c;
    bool before = false, behind = false;
    for (size_t i = at; i > 0 && !before;) {
        size_t k = i - 1;
        while (k > 0 && ((unsigned char)s->data[k] & 0xc0) == 0x80) k--;
        utf8_read(s->data + k, i - k, &c);
        before = is_cased(c);
        if (!before && utf8proc_category((int32_t)c) != UTF8PROC_CATEGORY_MN && c != '\'' && c != 0xad) break;
        i = k;
    }
    for (size_t i = at + 2; i < s->bytes && !behind;) {
        size_t n = utf8_read(s->data + i, s->bytes - i, &c);
        if (!n) break;
        behind = is_cased(c);
        if (!behind && utf8proc_category((int32_t)c) != UTF8PROC_CATEGORY_MN && c != '\'' && c != 0xad) break;
        i += n;
    }
    return before && !behind;
}

static bool put_lower(vm *v, output *o, const tstring *s, size_t at, uint32_t c)
{
    if (c < 0x80) return put_char(v, o, c >= 'A' && c <= 'Z' ? c + 32 : c);
    if (c == 0x130) return out_bytes(v, o, "i\xcc\x87", 3);
    if (c == 0x3a3) return put_char(v, o, is_final_sigma(s, at) ? 0x3c2 : 0x3c3);
    return put_char(v, o, (uint32_t)utf8proc_tolower((int32_t)c));
}

bool text_case(vm *v, value x, case_kind how, value *out)
{
    const tstring *s = x.s;
    output o = {0};
    bool inside = false; /* of a word; capitalize: behind the first character */
    for (size_t at = 0, n; at < s->bytes; at += n) {
        uint32_t c;
        n = utf8_read(s->data + at, s->bytes - at, &c);
        if (!n) break;
        bool upper = how == CASE_UPPER || ((how == CASE_TITLE || how == CASE_CAPITALIZE) && !inside);
        if (how == CASE_SWAP) upper = utf8proc_category((int32_t)c) == UTF8PROC_CATEGORY_LL;
        if (how == CASE_SWAP && !is_cased(c) ? !put_char(v, &o, c)
            : upper                          ? !put_upper(v, &o, c, how == CASE_TITLE || how == CASE_CAPITALIZE)
                                             : !put_lower(v, &o, s, at, c))
            return false;
        inside = how == CASE_CAPITALIZE || is_cased(c);
    }
    if (!out_string(v, &o, out)) return false;
    *out = markup_of(*out, s->markup);
    return true;
}

/* Words begin behind white space and any of -({[<. */
bool text_words_title(vm *v, value x, value *out)
{
    const tstring *s = x.s;
    output o = {0};
    bool inside = false;
    for (size_t at = 0, n; at < s->bytes; at += n) {
        uint32_t c;
        n = utf8_read(s->data + at, s->bytes - at, &c);
        if (!n) break;
        bool gap = py_is_space(c) || (c < 0x80 && c && strchr("-({[<", (int)c));
        if (inside && !gap ? !put_lower(v, &o, s, at, c) : !put_upper(v, &o, c, false)) return false;
        inside = !gap;
    }
    return out_string(v, &o, out);
}

/* ---- parts -------------------------------------------------------------------------------------------------- */

size_t text_find(const tstring *s, const tstring *part, size_t from)
{
    if (from > s->bytes || part->bytes > s->bytes - from) return SIZE_MAX;
    if (!part->bytes) return from;
    const char *hit = memmem(s->data + from, s->bytes - from, part->data, part->bytes);
    return hit ? (size_t)(hit - s->data) : SIZE_MAX;
}

static bool part_of(vm *v, const tstring *s, size_t begin, size_t end, value *out)
{
    if (!v_text(v, s->data + begin, end - begin, out)) return false;
    *out = markup_of(*out, s->markup);
    return true;
}

bool text_slice(vm *v, value s, size_t first, size_t last, value *out)
{
    (void)v_chars(v, s.s);
    size_t begin = text_place(s.s, first), end = text_place(s.s, last);
    return vm_steps(v, s.s->chars == s.s->bytes ? 0 : end / 32) &&
           part_of(v, s.s, begin, end > begin ? end : begin, out);
}

static bool strips(const tstring *chars, const char *at, size_t n, uint32_t c)
{
    if (!chars) return py_is_space(c);
    const tstring one = {.data = at, .bytes = n};
    return text_find(chars, &one, 0) != SIZE_MAX;
}

bool text_strip(vm *v, value x, value chars, int ends, value *out)
{
    const tstring *s = x.s, *set = NULL;
    size_t begin = 0, end = s->bytes;
    if (chars.kind == V_STRING)
        set = chars.s;
    else if (chars.kind != V_MISSING && chars.kind != V_NONE)
        return v_used(v, chars) && vm_fail(v, "strip arg must be None or str, not %s", kind_name(chars));
    uint32_t c;
    while (ends & 1 && begin < end) {
        size_t n = utf8_read(s->data + begin, end - begin, &c);
        if (!n || !strips(set, s->data + begin, n, c)) break;
        begin += n;
    }
    while (ends & 2 && end > begin) {
        size_t k = end - 1;
        while (k > begin && ((unsigned char)s->data[k] & 0xc0) == 0x80) k--;
        if (!utf8_read(s->data + k, end - k, &c) || !strips(set, s->data + k, end - k, c)) break;
        end = k;
    }
    return vm_steps(v, (s->bytes - (end - begin)) / 8 * (set ? 1 + set->bytes / 16 : 1)) &&
           part_of(v, s, begin, end, out);
}

bool text_replace(vm *v, value x, value old, value new, int64_t count, value *out)
{
    const tstring *s = x.s;
    output o = {0};
    size_t at = 0;
    uint64_t left = count < 0 ? UINT64_MAX : (uint64_t)count;
    while (left--) {
        size_t hit = text_find(s, old.s, at);
        if (hit == SIZE_MAX) break;
        size_t end = hit + old.s->bytes;
        if (!out_bytes(v, &o, s->data + at, hit - at) || !out_bytes(v, &o, new.s->data, new.s->bytes)) return false;
        if (!old.s->bytes) { /* between all characters */
            if (end >= s->bytes) {
                at = s->bytes;
                break;
            }
            size_t n = utf8_length(s->data[end]);
            if (!out_bytes(v, &o, s->data + end, n)) return false;
            end += n;
        }
        at = end;
        if (!vm_steps(v, 1)) return false;
    }
    if (!out_bytes(v, &o, s->data + at, s->bytes - at) || !out_string(v, &o, out)) return false;
    *out = markup_of(*out, s->markup);
    return true;
}

/* ---- splitting ------------------------------------------------------------------------------------------------ */

static void reverse(growing *g)
{
    for (size_t i = 0, j = g->n; i + 1 < j; i++) {
        value x = g->items[i];
        g->items[i] = g->items[--j];
        g->items[j] = x;
    }
}

static bool add_part(vm *v, growing *g, const tstring *s, size_t begin, size_t end)
{
    value part;
    return part_of(v, s, begin, end, &part) && grow(v, g, part);
}

static size_t spaces_from(const tstring *s, size_t at, bool want)
{
    while (at < s->bytes) {
        uint32_t c;
        size_t n = utf8_read(s->data + at, s->bytes - at, &c);
        if (!n || py_is_space(c) != want) break;
        at += n;
    }
    return at;
}

static size_t spaces_until(const tstring *s, size_t end, bool want)
{
    while (end > 0) {
        size_t k = end - 1;
        uint32_t c;
        while (k > 0 && ((unsigned char)s->data[k] & 0xc0) == 0x80) k--;
        if (!utf8_read(s->data + k, end - k, &c) || py_is_space(c) != want) break;
        end = k;
    }
    return end;
}

/* What is left when no more cuts may be made keeps the white space at its far end. */
static bool split_spaces(vm *v, const tstring *s, uint64_t most, bool from_right, growing *g)
{
    if (from_right) {
        size_t end = spaces_until(s, s->bytes, true);
        while (end > 0) {
            size_t begin = most ? spaces_until(s, end, false) : 0;
            if (!add_part(v, g, s, begin, end)) return false;
            if (!most--) break;
            end = spaces_until(s, begin, true);
        }
        reverse(g);
        return true;
    }
    size_t at = spaces_from(s, 0, true);
    while (at < s->bytes) {
        size_t end = most ? spaces_from(s, at, false) : s->bytes;
        if (!add_part(v, g, s, at, end)) return false;
        if (!most--) break;
        at = spaces_from(s, end, true);
    }
    return true;
}

static size_t find_last(const tstring *s, const tstring *part, size_t end)
{
    for (size_t at = end; at >= part->bytes; at--)
        if (memcmp(s->data + at - part->bytes, part->data, part->bytes) == 0) return at - part->bytes;
    return SIZE_MAX;
}

bool text_split(vm *v, value x, value by, int64_t most, bool from_right, value *out)
{
    const tstring *s = x.s;
    growing g = {0};
    uint64_t left = most < 0 ? UINT64_MAX : (uint64_t)most;
    if (!vm_steps(v, s->bytes / 16)) return false;
    if (by.kind == V_NONE || by.kind == V_MISSING)
        return split_spaces(v, s, left, from_right, &g) && grown(v, V_LIST, &g, out);
    if (by.kind != V_STRING) return v_used(v, by) && vm_fail(v, "must be str or None, not %s", kind_name(by));
    if (!by.s->bytes) return vm_fail(v, "empty separator");
    if (from_right) {
        size_t end = s->bytes, hit;
        for (; left && (hit = find_last(s, by.s, end)) != SIZE_MAX; left--) {
            if (!add_part(v, &g, s, hit + by.s->bytes, end)) return false;
            end = hit;
        }
        if (!add_part(v, &g, s, 0, end)) return false;
        reverse(&g);
        return grown(v, V_LIST, &g, out);
    }
    size_t at = 0, hit;
    for (; left && (hit = text_find(s, by.s, at)) != SIZE_MAX; left--) {
        if (!add_part(v, &g, s, at, hit)) return false;
        at = hit + by.s->bytes;
    }
    return add_part(v, &g, s, at, s->bytes) && grown(v, V_LIST, &g, out);
}

static bool ends_line(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool text_lines(vm *v, value x, bool keep, value *out)
{
    const tstring *s = x.s;
    growing g = {0};
    size_t begin = 0;
    if (!vm_steps(v, s->bytes / 16)) return false;
    for (size_t at = 0; at < s->bytes;) {
        uint32_t c;
        size_t n = utf8_read(s->data + at, s->bytes - at, &c);
        if (!n) break;
        size_t end = at;
        at += n;
        if (!ends_line(c)) continue;
        if (c == '\r' && at < s->bytes && s->data[at] == '\n') at++;
        if (!add_part(v, &g, s, begin, keep ? at : end)) return false;
        begin = at;
    }
    if (begin < s->bytes && !add_part(v, &g, s, begin, s->bytes)) return false;
    return grown(v, V_LIST, &g, out);
}

/* ---- dressing ------------------------------------------------------------------------------------------------- */

bool text_escape(vm *v, value x, value *out)
{
    output o = {0};
    *out = x;
    if (x.s->markup) return true;
    for (size_t i = 0; i < x.s->bytes; i++) {
        const char *to = NULL;
        switch (x.s->data[i]) {
        case '&':
            to = "&amp;";
            break;
        case '<':
            to = "&lt;";
            break;
        case '>':
            to = "&gt;";
            break;
        case '\'':
            to = "&#39;";
            break;
        case '"':
            to = "&#34;";
            break;
        }
        if (to ? !out_words(v, &o, to) : !out_bytes(v, &o, x.s->data + i, 1)) return false;
    }
    if (!out_string(v, &o, out)) return false;
    *out = markup_of(*out, true);
    return true;
}

static bool put_times(vm *v, output *o, const tstring *fill, uint64_t times)
{
    if (fill->bytes && times > TEMPLATE_MAX_OUTPUT / fill->bytes)
        return vm_fail(v, "a text of more than %d bytes", TEMPLATE_MAX_OUTPUT);
    while (times--)
        if (!out_bytes(v, o, fill->data, fill->bytes)) return false;
    return vm_steps(v, o->bytes / 8);
}

bool text_pad(vm *v, value x, int64_t width, value fill, int side, value *out)
{
    tstring space = {.data = " ", .bytes = 1, .chars = 1};
    const tstring *with = fill.kind == V_STRING ? fill.s : &space;
    uint64_t have = v_chars(v, x.s);
    *out = x;
    if (v_chars(v, with) != 1) return vm_fail(v, "The fill character must be exactly one character long");
    if (width < 0 || (uint64_t)width <= have) return true;
    uint64_t more = (uint64_t)width - have, left = side < 0   ? 0
                                                   : side > 0 ? more
                                                              : more / 2 + (more & (uint64_t)width & 1);
    output o = {0};
    return put_times(v, &o, with, left) && out_bytes(v, &o, x.s->data, x.s->bytes) &&
           put_times(v, &o, with, more - left) && out_string(v, &o, out);
}

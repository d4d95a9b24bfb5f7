/* Values: making them, comparing them, looking into them, with Python's rules.
 *
 * Every walk into a value counts its depth and its steps: values can be nested as deep and be as many as a hostile
 * template likes. Dicts keep the order of insertion; the hash index behind them is made when they grow. */
#include <math.h>

#include "format/template_internal.h"
#include "format/tokenizer_unicode.h"

/* ---- making ------------------------------------------------------------------------------------------------- */

static bool make_string(vm *v, const char *data, size_t bytes, value *out)
{
    tstring *s = vm_alloc(v, sizeof *s);
    if (!s) return false;
    *s = (tstring){.data = data, .bytes = bytes, .chars = CHARS_UNKNOWN};
    *out = (value){.kind = V_STRING, .s = s};
    return true;
}

bool v_text(vm *v, const char *data, size_t bytes, value *out)
{
    return make_string(v, data, bytes, out);
}

bool v_copy(vm *v, const char *data, size_t bytes, value *out)
{
    if (!vm_steps(v, bytes / 32)) return false;
    char *copy = vm_alloc(v, bytes + 1);
    if (!copy) return false;
    if (bytes) memcpy(copy, data, bytes);
    return make_string(v, copy, bytes, out);
}

bool v_words(vm *v, const char *text, value *out)
{
    return make_string(v, text, strlen(text), out);
}

bool v_list(vm *v, value_kind kind, size_t n, value *out)
{
    tlist *l = vm_alloc(v, sizeof *l);
    if (!l || !vm_steps(v, n / 8)) return false;
    l->items = vm_array(v, n, sizeof *l->items);
    if (!l->items) return false;
    l->n = n;
    *out = (value){.kind = kind, .l = l};
    return true;
}

bool grow(vm *v, growing *g, value x)
{
    if (g->n == g->capacity) {
        size_t capacity = g->capacity ? g->capacity * 2 : 8;
        value *items = vm_array(v, capacity, sizeof *items);
        if (!items) return false;
        if (g->n) memcpy(items, g->items, g->n * sizeof *items);
        g->items = items;
        g->capacity = capacity;
    }
    g->items[g->n++] = x;
    return vm_steps(v, 1);
}

bool grown(vm *v, value_kind kind, const growing *g, value *out)
{
    tlist *l = vm_alloc(v, sizeof *l);
    if (!l) return false;
    *l = (tlist){.items = g->items, .n = g->n};
    *out = (value){.kind = kind, .l = l};
    return true;
}

bool v_dict(vm *v, value *out)
{
    tdict *d = vm_alloc(v, sizeof *d);
    if (!d) return false;
    *out = (value){.kind = V_DICT, .d = d};
    return true;
}

static bool json_list(vm *v, const json_t *json, value *out)
{
    if (!v_list(v, V_LIST, json_array_size(json), out)) return false;
    for (size_t i = 0; i < out->l->n; i++)
        if (!v_json(v, json_array_get(json, i), &out->l->items[i])) return false;
    return true;
}

static bool json_dict(vm *v, const json_t *json, value *out)
{
    if (!v_dict(v, out)) return false;
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)json, key, member)
    {
        value k, x;
        if (!v_words(v, key, &k) || !v_json(v, member, &x) || !dict_set(v, out->d, k, x)) return false;
    }
    return true;
}

/* Strings are not copied: the JSON outlives the rendering. */
bool v_json(vm *v, const json_t *json, value *out)
{
    bool ok = true;
    if (!vm_steps(v, 1) || !vm_enter(v)) return false;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        ok = json_dict(v, json, out);
        break;
    case JSON_ARRAY:
        ok = json_list(v, json, out);
        break;
    case JSON_STRING:
        ok = v_text(v, json_string_value(json), json_string_length(json), out);
        break;
    case JSON_INTEGER:
        *out = v_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *out = v_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = v_bool(json_is_true(json));
        break;
    case JSON_NULL:
        *out = v_none();
        break;
    }
    vm_leave(v);
    return ok;
}

/* ---- kinds -------------------------------------------------------------------------------------------------- */

const char *kind_name(value x)
{
    switch (x.kind) {
    case V_MISSING:
    case V_UNDEFINED:
        return "Undefined";
    case V_NONE:
        return "NoneType";
    case V_BOOL:
        return "bool";
    case V_INT:
        return "int";
    case V_FLOAT:
        return "float";
    case V_STRING:
        return x.s->markup ? "Markup" : "str";
    case V_LIST:
        return "list";
    case V_TUPLE:
        return "tuple";
    case V_RANGE:
        return "range";
    case V_ITERATOR:
        return "generator";
    case V_VIEW:
        return x.l->view;
    case V_DICT:
        return "dict";
    case V_NAMESPACE:
        return "Namespace";
    case V_LOOP:
        return "LoopContext";
    case V_MACRO:
        return "Macro";
    case V_METHOD:
        return "builtin_function_or_method";
    case V_FUNCTION:
        return "function";
    case V_CYCLER:
        return "Cycler";
    case V_JOINER:
        return "Joiner";
    }
    return "object";
}

bool v_true(value x)
{
    switch (x.kind) {
    case V_MISSING:
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
        return x.b;
    case V_INT:
        return x.i != 0;
    case V_FLOAT:
        return x.f != 0;
    case V_STRING:
        return x.s->bytes != 0;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW:
        return x.l->n != 0;
    case V_DICT:
        return x.d->n != 0;
    case V_LOOP:
    case V_ITERATOR:
    case V_NAMESPACE:
    case V_MACRO:
    case V_METHOD:
    case V_FUNCTION:
    case V_CYCLER:
    case V_JOINER:
        return true;
    }
    return true;
}

size_t v_chars(vm *v, const tstring *s)
{
    if (s->chars != CHARS_UNKNOWN) return s->chars;
    size_t n = 0;
    for (size_t i = 0; i < s->bytes; i++) n += ((unsigned char)s->data[i] & 0xc0) != 0x80;
    ((tstring *)(uintptr_t)s)->chars = n;
    (void)vm_steps(v, s->bytes / 64);
    return n;
}

size_t text_place(const tstring *s, size_t index)
{
    if (s->chars == s->bytes) return index < s->bytes ? index : s->bytes;
    size_t at = 0;
    while (index && at < s->bytes) {
        at += utf8_length(s->data[at]);
        index--;
    }
    return at < s->bytes ? at : s->bytes;
}

/* ---- equality and order ------------------------------------------------------------------------------------- */

static bool is_number(value x)
{
    return x.kind == V_BOOL || x.kind == V_INT || x.kind == V_FLOAT;
}

static double number_of(value x)
{
    return x.kind == V_FLOAT ? x.f : x.kind == V_INT ? (double)x.i : (double)x.b;
}

static int64_t whole_of(value x)
{
    return x.kind == V_INT ? x.i : (int64_t)x.b;
}

/* An integer against a float, exactly: a double cannot hold every int64. */
static int compare_mixed(int64_t i, double f)
{
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    double floor_f = floor(f);
    int64_t whole = (int64_t)floor_f;
    if (i != whole) return i < whole ? -1 : 1;
    return f > floor_f ? -1 : 0;
}

/* -1, 0, 1; 2: not comparable (NaN) */
static int compare_numbers(value a, value b)
{
    if ((a.kind == V_FLOAT && isnan(a.f)) || (b.kind == V_FLOAT && isnan(b.f))) return 2;
    if (a.kind == V_FLOAT && b.kind == V_FLOAT) return a.f < b.f ? -1 : a.f > b.f;
    if (a.kind == V_FLOAT) return -compare_mixed(whole_of(b), a.f);
    if (b.kind == V_FLOAT) return compare_mixed(whole_of(a), b.f);
    return whole_of(a) < whole_of(b) ? -1 : whole_of(a) > whole_of(b);
}

static int compare_texts(const tstring *a, const tstring *b)
{
    size_t n = a->bytes < b->bytes ? a->bytes : b->bytes;
    int c = n ? memcmp(a->data, b->data, n) : 0; /* UTF-8 sorts as code points do */
    return c ? (c < 0 ? -1 : 1) : a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static bool equal_lists(vm *v, const tlist *a, const tlist *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++)
        if (!v_equal(v, a->items[i], b->items[i], out)) return false;
    return true;
}

static bool equal_dicts(vm *v, const tdict *a, const tdict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        value other;
        if (!dict_get(v, b, a->entries[i].key, &other, out)) return false;
        if (*out && !v_equal(v, a->entries[i].value, other, out)) return false;
    }
    return true;
}

static bool equal_inside(vm *v, value a, value b, bool *out)
{
    *out = false;
    if (a.kind == V_STRING && b.kind == V_STRING) {
        *out = a.s->bytes == b.s->bytes && (a.s->data == b.s->data || compare_texts(a.s, b.s) == 0);
        return vm_steps(v, *out ? a.s->bytes / 64 : 0);
    }
    if (is_number(a) && is_number(b)) {
        *out = compare_numbers(a, b) == 0;
        return true;
    }
    if (a.kind != b.kind) return true;
    switch (a.kind) {
    case V_NONE:
    case V_UNDEFINED:
        *out = true;
        return true;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
        return equal_lists(v, a.l, b.l, out);
    case V_DICT:
        return equal_dicts(v, a.d, b.d, out);
    default:
        *out = a.l == b.l; /* the same object */
        return true;
    }
}

bool v_equal(vm *v, value a, value b, bool *out)
{
    if (!vm_steps(v, 1) || !vm_enter(v)) return false;
    bool ok = equal_inside(v, a, b, out);
    vm_leave(v);
    return ok;
}

static bool compare_lists(vm *v, const tlist *a, const tlist *b, const char *op, int *out)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        if (!v_equal(v, a->items[i], b->items[i], &same)) return false;
        if (!same) return v_compare(v, a->items[i], b->items[i], op, out);
    }
    *out = a->n < b->n ? -1 : a->n > b->n;
    return true;
}

bool v_compare(vm *v, value a, value b, const char *op, int *out)
{
    if (!vm_steps(v, 1)) return false;
    if (is_number(a) && is_number(b)) {
        *out = compare_numbers(a, b);
        return true;
    }
    if (a.kind == V_STRING && b.kind == V_STRING) {
        *out = compare_texts(a.s, b.s);
        return vm_steps(v, (a.s->bytes < b.s->bytes ? a.s->bytes : b.s->bytes) / 64);
    }
    if (a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE)) {
        if (!vm_enter(v)) return false;
        bool ok = compare_lists(v, a.l, b.l, op, out);
        vm_leave(v);
        return ok;
    }
    if (!v_used(v, a) || !v_used(v, b)) return false;
    return vm_fail(v, "'%s' not supported between instances of '%s' and '%s'", op, kind_name(a), kind_name(b));
}

bool v_less(vm *v, value a, value b, bool *out)
{
    int c = 0;
    if (!v_compare(v, a, b, "<", &c)) return false;
    *out = c == -1;
    return true;
}

/* ---- dicts -------------------------------------------------------------------------------------------------- */

static bool hash_of(vm *v, value x, uint64_t *out)
{
    uint64_t h = 14695981039346656037u;
    switch (x.kind) {
    case V_STRING:
        for (size_t i = 0; i < x.s->bytes; i++) h = (h ^ (unsigned char)x.s->data[i]) * 1099511628211u;
        *out = h;
        return vm_steps(v, x.s->bytes / 32);
    case V_TUPLE:
        if (!vm_enter(v)) return false;
        for (size_t i = 0; i < x.l->n; i++) {
            uint64_t k;
            if (!hash_of(v, x.l->items[i], &k)) return false;
            h = (h ^ k) * 1099511628211u;
        }
        vm_leave(v);
        *out = h;
        return vm_steps(v, x.l->n);
    case V_LIST:
    case V_DICT:
        return vm_fail(v, "unhashable type: '%s'", kind_name(x));
    case V_BOOL:
    case V_INT:
    case V_FLOAT: {
        double f = number_of(x) + 0.0; /* equal numbers, equal hashes; -0.0 becomes 0.0 */
        memcpy(&h, &f, sizeof h);
        *out = (h ^ h >> 29) * 0x9e3779b97f4a7c15u;
        return true;
    }
    default:
        *out = (uint64_t)x.kind;
        return true;
    }
}

/* The place of a key among the entries; SIZE_MAX: not there. */
static bool dict_place(vm *v, const tdict *d, value key, uint64_t hash, size_t *out)
{
    *out = SIZE_MAX;
    bool same = false;
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++) {
            if (d->entries[i].hash != hash) continue;
            if (!v_equal(v, d->entries[i].key, key, &same)) return false;
            if (same) *out = i;
            if (same) return true;
        }
        return true;
    }
    for (size_t at = hash & d->mask; d->index[at]; at = (at + 1) & d->mask) {
        size_t i = d->index[at] - 1;
        if (!vm_steps(v, 1)) return false;
        if (d->entries[i].hash != hash) continue;
        if (!v_equal(v, d->entries[i].key, key, &same)) return false;
        if (same) *out = i;
        if (same) return true;
    }
    return true;
}

static void index_put(tdict *d, size_t i)
{
    size_t at = d->entries[i].hash & d->mask;
    while (d->index[at]) at = (at + 1) & d->mask;
    d->index[at] = (uint32_t)i + 1;
}

static bool dict_grow(vm *v, tdict *d)
{
    size_t capacity = d->capacity ? d->capacity * 2 : 4;
    if (capacity > UINT32_MAX / 4) return vm_fail(v, "a dict of more than %zu entries", d->capacity);
    dict_entry *entries = vm_array(v, capacity, sizeof *entries);
    if (!entries) return false;
    if (d->n) memcpy(entries, d->entries, d->n * sizeof *entries);
    d->entries = entries;
    d->capacity = capacity;
    if (capacity <= 8) return true;
    d->index = vm_array(v, capacity * 2, sizeof *d->index);
    if (!d->index) return false;
    d->mask = capacity * 2 - 1;
    for (size_t i = 0; i < d->n; i++) index_put(d, i);
    return vm_steps(v, d->n);
}

bool dict_set(vm *v, tdict *d, value key, value x)
{
    uint64_t hash;
    size_t at;
    if (!hash_of(v, key, &hash) || !dict_place(v, d, key, hash, &at)) return false;
    if (at != SIZE_MAX) {
        d->entries[at].value = x;
        return true;
    }
    if (d->n == d->capacity && !dict_grow(v, d)) return false;
    d->entries[d->n++] = (dict_entry){.key = key, .value = x, .hash = hash};
    if (d->index) index_put(d, d->n - 1);
    return true;
}

bool dict_get(vm *v, const tdict *d, value key, value *out, bool *found)
{
    uint64_t hash;
    size_t at;
    if (!hash_of(v, key, &hash) || !dict_place(v, d, key, hash, &at)) return false;
    *found = at != SIZE_MAX;
    if (*found) *out = d->entries[at].value;
    return true;
}

bool dict_find(vm *v, const tdict *d, const char *name, value *out)
{
    tstring s = {.data = name, .bytes = strlen(name), .chars = CHARS_UNKNOWN};
    bool found = false;
    return dict_get(v, d, (value){.kind = V_STRING, .s = &s}, out, &found) && found;
}

/* ---- looking into ------------------------------------------------------------------------------------------- */

bool v_used(vm *v, value x)
{
    if (x.kind != V_UNDEFINED && x.kind != V_MISSING) return true;
    return vm_fail(v, "%s", x.kind == V_MISSING ? "a value is missing" : x.why);
}

static bool chars_of(vm *v, const tstring *s, value *out)
{
    if (!v_list(v, V_LIST, v_chars(v, s), out)) return false;
    size_t i = 0;
    for (size_t at = 0; at < s->bytes && i < out->l->n; i++) {
        size_t n = utf8_length(s->data[at]);
        if (n > s->bytes - at) n = s->bytes - at;
        if (!v_text(v, s->data + at, n, &out->l->items[i])) return false;
        at += n;
    }
    return true;
}

bool v_iterate(vm *v, value x, tlist **out)
{
    value made;
    switch (x.kind) {
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW:
        *out = x.l;
        return true;
    case V_ITERATOR:
        if (!v_list(v, V_LIST, 0, &made)) return false;
        *made.l = (tlist){.items = x.l->n ? x.l->items + x.l->at : NULL, .n = x.l->n - x.l->at};
        x.l->at = x.l->n;
        break;
    case V_STRING:
        if (!chars_of(v, x.s, &made)) return false;
        break;
    case V_DICT:
        if (!v_list(v, V_LIST, x.d->n, &made)) return false;
        for (size_t i = 0; i < x.d->n; i++) made.l->items[i] = x.d->entries[i].key;
        break;
    case V_UNDEFINED:
        if (!v_list(v, V_LIST, 0, &made)) return false;
        break;
    default:
        return vm_fail(v, "'%s' object is not iterable", kind_name(x));
    }
    *out = made.l;
    return true;
}

bool v_length(vm *v, value x, size_t *out)
{
    switch (x.kind) {
    case V_STRING:
        *out = v_chars(v, x.s);
        return true;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW:
        *out = x.l->n;
        return true;
    case V_DICT:
        *out = x.d->n;
        return true;
    case V_UNDEFINED:
        *out = 0;
        return true;
    default:
        return vm_fail(v, "object of type '%s' has no len()", kind_name(x));
    }
}

bool v_contains(vm *v, value container, value item, bool *out)
{
    *out = false;
    if (container.kind == V_STRING) {
        if (item.kind != V_STRING)
            return vm_fail(v, "'in <string>' requires string as left operand, not %s", kind_name(item));
        *out = text_find(container.s, item.s, 0) != SIZE_MAX;
        return vm_steps(v, container.s->bytes / 32);
    }
    value ignored;
    if (container.kind == V_DICT) return dict_get(v, container.d, item, &ignored, out);
    tlist *l;
    if (container.kind != V_UNDEFINED && container.kind != V_VIEW && container.kind != V_ITERATOR &&
        !is_sequence(container))
        return vm_fail(v, "argument of type '%s' is not iterable", kind_name(container));
    if (container.kind == V_ITERATOR) { /* what stands before the match has gone by */
        for (l = container.l; !*out && l->at < l->n;)
            if (!v_equal(v, l->items[l->at++], item, out)) return false;
        return true;
    }
    if (!v_iterate(v, container, &l)) return false;
    for (size_t i = 0; !*out && i < l->n; i++)
        if (!v_equal(v, l->items[i], item, out)) return false;
    return true;
}

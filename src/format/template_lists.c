/* Filters of lists, and what they share: attributes by path, sorting.
 *
 * map, select and their like are generators in Jinja: their results go by once and have no length. Here they are worked
 * out at once and marked as such. */
#include "format/template_internal.h"

/* ---- attributes by path ------------------------------------------------------------------------------------------ */

static bool is_digits(const char *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (at[i] < '0' || at[i] > '9') return false;
    return n > 0 && n < 19;
}

/* item.a.b.0 for the path "a.b.0"; a number is an index; V_MISSING, V_NONE: the item itself. */
static bool by_path(vm *v, value item, value path, value otherwise, value *out)
{
    *out = item;
    if (path.kind == V_MISSING || path.kind == V_NONE) return true;
    if (path.kind != V_STRING) return get_item(v, item, path, out);
    const char *at = path.s->data, *end = at + path.s->bytes;
    for (;;) {
        const char *dot = memchr(at, '.', (size_t)(end - at));
        size_t n = (size_t)((dot ? dot : end) - at);
        value key, x = *out;
        if (is_digits(at, n)) {
            int64_t i = 0;
            for (size_t k = 0; k < n; k++) i = i * 10 + (at[k] - '0');
            key = v_int(i);
        } else if (!v_text(v, at, n, &key)) {
            return false;
        }
        if (!get_item(v, x, key, out)) return false;
        if (out->kind == V_UNDEFINED && otherwise.kind != V_MISSING && otherwise.kind != V_NONE) *out = otherwise;
        if (!dot) return true;
        at = dot + 1;
    }
}

/* What an item is compared by: its attribute, in lower case unless case counts. */
static bool sort_key(vm *v, value item, value path, bool cased, value *out)
{
    if (!by_path(v, item, path, (value){0}, out)) return false;
    return cased || out->kind != V_STRING || text_case(v, *out, CASE_LOWER, out);
}

/* "a,b": a key of several parts. A list in any case, as in Jinja: of equal items nobody asks which is less. */
static bool sort_keys(vm *v, value item, value paths, bool cased, value *out)
{
    value parts, comma, part;
    growing g = {0};
    if (paths.kind != V_STRING)
        return sort_key(v, item, paths, cased, &part) && grow(v, &g, part) && grown(v, V_LIST, &g, out);
    if (!v_words(v, ",", &comma) || !text_split(v, paths, comma, -1, false, &parts)) return false;
    for (size_t i = 0; i < parts.l->n; i++)
        if (!sort_key(v, item, parts.l->items[i], cased, &part) || !grow(v, &g, part)) return false;
    return grown(v, V_LIST, &g, out);
}

/* Sorts items by keys [n], stably; reversed: equal ones stay in order all the same. */
static bool sort_by(vm *v, value *items, value *keys, size_t n, bool reversed)
{
    value *other = vm_array(v, n, 2 * sizeof *other);
    if (!other) return false;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t i = begin, middle = begin + width < n ? begin + width : n;
            size_t end = begin + 2 * width < n ? begin + 2 * width : n, j = middle;
            for (size_t k = begin; k < end; k++) {
                bool swap = false;
                if (i < middle && j < end &&
                    !(reversed ? v_less(v, keys[i], keys[j], &swap) : v_less(v, keys[j], keys[i], &swap)))
                    return false;
                size_t from = i < middle && (j >= end || !swap) ? i++ : j++;
                other[2 * k] = items[from];
                other[2 * k + 1] = keys[from];
            }
        }
        for (size_t k = 0; k < n; k++) {
            items[k] = other[2 * k];
            keys[k] = other[2 * k + 1];
        }
    }
    return vm_steps(v, n);
}

static bool copy_items(vm *v, value x, value_kind kind, value *out)
{
    tlist *l;
    if (!v_iterate(v, x, &l) || !v_list(v, kind, l->n, out)) return false;
    if (l->n) memcpy(out->l->items, l->items, l->n * sizeof *l->items);
    return vm_steps(v, l->n / 4);
}

static bool filter_sort(vm *v, value x, const call_args *args, value *out)
{
    value a[3];
    if (!bind(v, "sort", args, "reverse? case_sensitive? attribute?", a) || !copy_items(v, x, V_LIST, out))
        return false;
    size_t n = out->l->n;
    value *keys = vm_array(v, n, sizeof *keys);
    if (!keys) return false;
    for (size_t i = 0; i < n; i++)
        if (!sort_keys(v, out->l->items[i], a[2], v_true(a[1]), &keys[i])) return false;
    return sort_by(v, out->l->items, keys, n, v_true(a[0]));
}

static bool filter_dictsort(vm *v, value x, const call_args *args, value *out)
{
    value a[3], pair;
    size_t place = 0;
    if (!bind(v, "dictsort", args, "case_sensitive? by? reverse?", a)) return false;
    if (x.kind != V_DICT) return v_used(v, x) && vm_fail(v, "dictsort: expected a dict, found %s", kind_name(x));
    if (a[1].kind != V_MISSING) {
        bool by_key = a[1].kind == V_STRING && a[1].s->bytes == 3 && !memcmp(a[1].s->data, "key", 3);
        place = !by_key;
        if (place && !(a[1].kind == V_STRING && a[1].s->bytes == 5 && !memcmp(a[1].s->data, "value", 5)))
            return vm_fail(v, "You can only sort by either \"key\" or \"value\"");
    }
    if (!v_list(v, V_LIST, x.d->n, out)) return false;
    value *keys = vm_array(v, x.d->n, sizeof *keys);
    if (!keys) return false;
    for (size_t i = 0; i < x.d->n; i++) {
        if (!v_list(v, V_TUPLE, 2, &pair)) return false;
        pair.l->items[0] = x.d->entries[i].key;
        pair.l->items[1] = x.d->entries[i].value;
        out->l->items[i] = pair;
        if (!sort_key(v, pair.l->items[place], (value){0}, v_true(a[0]), &keys[i])) return false;
    }
    return sort_by(v, out->l->items, keys, x.d->n, v_true(a[2]));
}

static bool filter_groupby(vm *v, value x, const call_args *args, value *out)
{
    value a[3], group, sorted;
    growing groups = {0}, members = {0};
    if (!bind(v, "groupby", args, "attribute default? case_sensitive?", a) || !copy_items(v, x, V_LIST, &sorted))
        return false;
    size_t n = sorted.l->n;
    value *keys = vm_array(v, n, sizeof *keys), *items = sorted.l->items;
    if (!keys) return false;
    for (size_t i = 0; i < n; i++) {
        if (!by_path(v, items[i], a[0], a[1], &keys[i])) return false;
        if (!v_true(a[2]) && keys[i].kind == V_STRING && !text_case(v, keys[i], CASE_LOWER, &keys[i])) return false;
    }
    if (!sort_by(v, items, keys, n, false)) return false;
    for (size_t i = 0; i < n; i++) {
        bool same = false;
        if (!grow(v, &members, items[i])) return false;
        if (i + 1 < n && !v_equal(v, keys[i], keys[i + 1], &same)) return false;
        if (same) continue;
        if (!v_list(v, V_TUPLE, 2, &group) || !grown(v, V_LIST, &members, &group.l->items[1])) return false;
        group.l->group = true;
        group.l->items[0] = keys[i];
        if (!v_true(a[2]) && !by_path(v, members.items[0], a[0], a[1], &group.l->items[0])) return false;
        if (!grow(v, &groups, group)) return false;
        members = (growing){0};
    }
    return grown(v, V_LIST, &groups, out);
}

static bool filter_unique(vm *v, value x, const call_args *args, value *out)
{
    value a[2], seen, key, ignored;
    tlist *l;
    growing g = {0};
    if (!bind(v, "unique", args, "case_sensitive? attribute?", a) || !v_iterate(v, x, &l) || !v_dict(v, &seen))
        return false;
    for (size_t i = 0; i < l->n; i++) {
        bool found;
        if (!sort_key(v, l->items[i], a[1], v_true(a[0]), &key) || !dict_get(v, seen.d, key, &ignored, &found))
            return false;
        if (!found && (!dict_set(v, seen.d, key, v_none()) || !grow(v, &g, l->items[i]))) return false;
    }
    return grown(v, V_ITERATOR, &g, out);
}

static bool extreme(vm *v, value x, const call_args *args, bool most, value *out)
{
    value a[2], best, key;
    tlist *l;
    if (!bind(v, "min", args, "case_sensitive? attribute?", a) || !v_iterate(v, x, &l)) return false;
    if (!l->n) return v_undefined(v, out, "No aggregated item, sequence was empty.");
    for (size_t i = 0; i < l->n; i++) {
        bool better = i == 0;
        if (!sort_key(v, l->items[i], a[1], v_true(a[0]), &key)) return false;
        if (i && !(most ? v_less(v, best, key, &better) : v_less(v, key, best, &better))) return false;
        if (!better) continue;
        best = key;
        *out = l->items[i];
    }
    return true;
}
static bool filter_min(vm *v, value x, const call_args *args, value *out)
{
    return extreme(v, x, args, false, out);
}
static bool filter_max(vm *v, value x, const call_args *args, value *out)
{
    return extreme(v, x, args, true, out);
}

/* ---- picking ----------------------------------------------------------------------------------------------------- */

static bool filter_first(vm *v, value x, const call_args *args, value *out)
{
    tlist *l;
    if (!bind(v, "first", args, "", NULL)) return false;
    if (x.kind == V_ITERATOR && x.l->at < x.l->n) {
        *out = x.l->items[x.l->at++];
        return true;
    }
    if (x.kind == V_STRING && x.s->bytes) return text_slice(v, x, 0, 1, out);
    if (!v_iterate(v, x, &l)) return false;
    if (!l->n) return v_undefined(v, out, "No first item, sequence was empty.");
    *out = l->items[0];
    return true;
}

static bool filter_last(vm *v, value x, const call_args *args, value *out)
{
    tlist *l;
    if (!bind(v, "last", args, "", NULL)) return false;
    if (x.kind == V_ITERATOR) return vm_fail(v, "'generator' object is not reversible");
    if (!v_iterate(v, x, &l)) return false;
    if (!l->n) return v_undefined(v, out, "No last item, sequence was empty.");
    *out = l->items[l->n - 1];
    return true;
}

static bool filter_length(vm *v, value x, const call_args *args, value *out)
{
    size_t n;
    if (!bind(v, "length", args, "", NULL) || !v_length(v, x, &n)) return false;
    *out = v_int((int64_t)n);
    return true;
}

static bool filter_list(vm *v, value x, const call_args *args, value *out)
{
    return bind(v, "list", args, "", NULL) && copy_items(v, x, V_LIST, out);
}

static bool filter_reverse(vm *v, value x, const call_args *args, value *out)
{
    if (!bind(v, "reverse", args, "", NULL)) return false;
    if (x.kind == V_STRING) return get_slice(v, x, (value){0}, (value){0}, v_int(-1), out);
    if (!copy_items(v, x, x.kind == V_ITERATOR ? V_LIST : V_ITERATOR, out)) return false;
    for (size_t i = 0, j = out->l->n; i + 1 < j; i++) {
        value swap = out->l->items[i];
        out->l->items[i] = out->l->items[--j];
        out->l->items[j] = swap;
    }
    return true;
}

static bool filter_items(vm *v, value x, const call_args *args, value *out)
{
    value pair;
    if (!bind(v, "items", args, "", NULL)) return false;
    if (x.kind == V_UNDEFINED) return v_list(v, V_ITERATOR, 0, out);
    if (x.kind != V_DICT) return vm_fail(v, "Can only get item pairs from a mapping.");
    if (!v_list(v, V_ITERATOR, x.d->n, out)) return false;
    for (size_t i = 0; i < x.d->n; i++) {
        if (!v_list(v, V_TUPLE, 2, &pair)) return false;
        pair.l->items[0] = x.d->entries[i].key;
        pair.l->items[1] = x.d->entries[i].value;
        out->l->items[i] = pair;
    }
    return true;
}

static bool filter_batch(vm *v, value x, const call_args *args, value *out)
{
    value a[2], part;
    int64_t size;
    tlist *l;
    growing all = {0}, g = {0};
    if (!bind(v, "batch", args, "linecount fill_with?", a) || !want_int(v, "batch", a[0], 0, &size) ||
        !v_iterate(v, x, &l))
        return false;
    for (size_t i = 0; i < l->n; i++) {
        if ((int64_t)g.n == size) {
            if (!grown(v, V_LIST, &g, &part) || !grow(v, &all, part)) return false;
            g = (growing){0};
        }
        if (!grow(v, &g, l->items[i])) return false;
    }
    if (g.n) {
        while (a[1].kind != V_MISSING && a[1].kind != V_NONE && (int64_t)g.n < size)
            if (!grow(v, &g, a[1])) return false;
        if (!grown(v, V_LIST, &g, &part) || !grow(v, &all, part)) return false;
    }
    return grown(v, V_ITERATOR, &all, out);
}

static bool filter_slice(vm *v, value x, const call_args *args, value *out)
{
    value a[2], part;
    int64_t slices, at = 0;
    tlist *l;
    growing all = {0};
    if (!bind(v, "slice", args, "slices fill_with?", a) || !want_int(v, "slice", a[0], 0, &slices) ||
        !v_iterate(v, x, &l))
        return false;
    if (!slices) return vm_fail(v, "integer division or modulo by zero");
    for (int64_t i = 0; i < slices; i++) {
        int64_t n = (int64_t)l->n / slices + (i < (int64_t)l->n % slices);
        growing g = {0};
        for (int64_t k = 0; k < n; k++)
            if (!grow(v, &g, l->items[at++])) return false;
        if (a[1].kind != V_MISSING && a[1].kind != V_NONE && i >= (int64_t)l->n % slices && !grow(v, &g, a[1]))
            return false;
        if (!grown(v, V_LIST, &g, &part) || !grow(v, &all, part)) return false;
    }
    return grown(v, V_ITERATOR, &all, out);
}

/* ---- folding ---------------------------------------------------------------------------------------------------- */

static bool filter_join(vm *v, value x, const call_args *args, value *out)
{
    value a[2];
    tlist *l;
    output o = {0};
    if (!bind(v, "join", args, "d? attribute?", a) || !v_iterate(v, x, &l)) return false;
    if (a[0].kind == V_MISSING ? !v_words(v, "", &a[0]) : !v_str(v, a[0], &a[0])) return false;
    for (size_t i = 0; i < l->n; i++) {
        value item;
        if (!by_path(v, l->items[i], a[1], (value){0}, &item)) return false;
        if ((i && !out_bytes(v, &o, a[0].s->data, a[0].s->bytes)) || !print_str(v, &o, item)) return false;
    }
    return out_string(v, &o, out);
}

static bool filter_sum(vm *v, value x, const call_args *args, value *out)
{
    value a[2];
    tlist *l;
    if (!bind(v, "sum", args, "attribute? start?", a) || !v_iterate(v, x, &l)) return false;
    *out = a[1].kind == V_MISSING ? v_int(0) : a[1];
    if (out->kind == V_STRING) return vm_fail(v, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; i < l->n; i++) {
        value item, so_far = *out;
        if (!by_path(v, l->items[i], a[0], (value){0}, &item) || !binary(v, OP_ADD, so_far, item, out)) return false;
    }
    return true;
}

/* ---- map, select ------------------------------------------------------------------------------------------------ */

/* map(attribute=...): names only, no positions. */
static bool map_attribute(vm *v, const tlist *l, const call_args *args, value *out)
{
    value a[2];
    growing g = {0};
    if (!bind(v, "map", args, "attribute default?", a)) return false;
    for (size_t i = 0; i < l->n; i++) {
        value item;
        if (!by_path(v, l->items[i], a[0], a[1], &item) || !grow(v, &g, item)) return false;
    }
    return grown(v, V_ITERATOR, &g, out);
}

static bool filter_map(vm *v, value x, const call_args *args, value *out)
{
    tlist *l;
    growing g = {0};
    if (!v_true(x)) return v_list(v, V_ITERATOR, 0, out);
    if (!v_iterate(v, x, &l)) return false;
    if (!args->n) return map_attribute(v, l, args, out);
    if (args->items[0].kind != V_STRING) return vm_fail(v, "map requires a filter argument");
    const filter_row *row = find_filter(args->items[0].s);
    if (!row) return vm_fail(v, "No filter named '%.*s'.", (int)(args->items[0].s->bytes & 63), args->items[0].s->data);
    call_args rest = *args;
    rest.items++;
    rest.n--;
    for (size_t i = 0; i < l->n; i++) {
        value item;
        if (!row->call(v, l->items[i], &rest, &item) || !grow(v, &g, item)) return false;
    }
    return grown(v, V_ITERATOR, &g, out);
}

static bool choose(vm *v, value x, const call_args *args, bool by_attribute, bool keep, value *out)
{
    tlist *l;
    growing g = {0};
    value path = {0};
    const test_row *row = NULL;
    call_args rest = *args;
    if (!v_true(x)) return v_list(v, V_ITERATOR, 0, out);
    if (!v_iterate(v, x, &l)) return false;
    if (by_attribute) {
        if (!rest.n) return vm_fail(v, "Missing parameter for attribute name");
        path = *rest.items++;
        rest.n--;
    }
    if (rest.n) {
        if (rest.items[0].kind != V_STRING) return vm_fail(v, "the name of a test must be a string");
        row = find_test(rest.items[0].s);
        if (!row) return vm_fail(v, "No test named '%.*s'.", (int)(rest.items[0].s->bytes & 63), rest.items[0].s->data);
        rest.items++;
        rest.n--;
    }
    for (size_t i = 0; i < l->n; i++) {
        value item;
        bool holds;
        if (!by_path(v, l->items[i], path, (value){0}, &item)) return false;
        holds = v_true(item);
        if (row && !row->call(v, item, &rest, &holds)) return false;
        if (holds == keep && !grow(v, &g, l->items[i])) return false;
        if (!vm_steps(v, 1)) return false;
    }
    return grown(v, V_ITERATOR, &g, out);
}
static bool filter_select(vm *v, value x, const call_args *args, value *out)
{
    return choose(v, x, args, false, true, out);
}
static bool filter_reject(vm *v, value x, const call_args *args, value *out)
{
    return choose(v, x, args, false, false, out);
}
static bool filter_selectattr(vm *v, value x, const call_args *args, value *out)
{
    return choose(v, x, args, true, true, out);
}
static bool filter_rejectattr(vm *v, value x, const call_args *args, value *out)
{
    return choose(v, x, args, true, false, out);
}

const filter_row filters_of_lists[] = {
    {"batch", filter_batch},
    {"count", filter_length},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"groupby", filter_groupby},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
    {NULL, NULL},
};

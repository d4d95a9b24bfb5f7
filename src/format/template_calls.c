/* What can be called: the global functions, and values that are callable; arguments by name.
 *
 * The globals are those of transformers' sandbox: range (bounded), dict, namespace, cycler, joiner, raise_exception,
 * strftime_now. lipsum, which is random, is not there. */
#include <stdio.h>

#include "format/template_internal.h"

/* ---- arguments -------------------------------------------------------------------------------------------------- */

/* The next word of a spec; *n 0 at the end. */
static const char *next_word(const char *spec, size_t *n, bool *optional)
{
    spec += strspn(spec, " ");
    *n = strcspn(spec, " ");
    *optional = *n && spec[*n - 1] == '?';
    if (*optional) *n -= 1;
    return spec;
}

static bool bind_named(vm *v, const char *what, const call_args *args, size_t i, const char *spec, value *out)
{
    const tstring *name = args->names[i].s;
    bool optional;
    size_t n, at = 0;
    for (const char *word = next_word(spec, &n, &optional); n;
         word = next_word(word + n + optional, &n, &optional), at++) {
        if (n != name->bytes || memcmp(word, name->data, n) != 0) continue;
        if (out[at].kind != V_MISSING)
            return vm_fail(v, "%s got multiple values for argument '%.*s'", what, (int)n, word);
        out[at] = args->named[i];
        return true;
    }
    return vm_fail(v, "%s got an unexpected keyword argument '%.*s'", what, (int)(name->bytes & 63), name->data);
}

bool bind(vm *v, const char *what, const call_args *args, const char *spec, value *out)
{
    bool optional;
    size_t n, count = 0, at = 0;
    for (const char *word = next_word(spec, &n, &optional); n; word = next_word(word + n + optional, &n, &optional))
        out[count++] = (value){0};
    if (args->n > count) return vm_fail(v, "%s takes at most %zu arguments, %zu given", what, count, args->n);
    for (size_t i = 0; i < args->n; i++) out[i] = args->items[i];
    for (size_t i = 0; i < args->n_named; i++)
        if (!bind_named(v, what, args, i, spec, out)) return false;
    for (const char *word = next_word(spec, &n, &optional); n;
         word = next_word(word + n + optional, &n, &optional), at++)
        if (!optional && out[at].kind == V_MISSING)
            return vm_fail(v, "%s missing the argument '%.*s'", what, (int)n, word);
    return true;
}

bool want_int(vm *v, const char *what, value x, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (x.kind == V_MISSING || x.kind == V_NONE) return true;
    if (x.kind == V_INT)
        *out = x.i;
    else if (x.kind == V_BOOL)
        *out = x.b;
    else
        return v_used(v, x) && vm_fail(v, "%s: expected an integer, found %s", what, kind_name(x));
    return true;
}

bool want_text(vm *v, const char *what, value x, value *out)
{
    *out = x;
    if (x.kind == V_STRING) return true;
    return v_used(v, x) && vm_fail(v, "%s: expected a string, found %s", what, kind_name(x));
}

/* ---- globals ---------------------------------------------------------------------------------------------------- */

static bool call_range(vm *v, const call_args *args, value *out)
{
    int64_t n[3] = {0, 0, 1};
    if (args->n < 1 || args->n > 3 || args->n_named) return vm_fail(v, "range expected 1 to 3 arguments");
    for (size_t i = 0; i < args->n; i++) {
        if (args->items[i].kind == V_NONE) return vm_fail(v, "range: expected an integer, found NoneType");
        if (!want_int(v, "range", args->items[i], 0, &n[i])) return false;
    }
    if (args->n == 1) {
        n[1] = n[0];
        n[0] = 0;
    }
    if (!n[2]) return vm_fail(v, "range() arg 3 must not be zero");
    uint64_t count = 0;
    if (n[2] > 0 && n[1] > n[0]) count = ((uint64_t)n[1] - (uint64_t)n[0] - 1) / (uint64_t)n[2] + 1;
    if (n[2] < 0 && n[1] < n[0]) count = ((uint64_t)n[0] - (uint64_t)n[1] - 1) / (0 - (uint64_t)n[2]) + 1;
    if (count > TEMPLATE_MAX_RANGE)
        return vm_fail(v, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", TEMPLATE_MAX_RANGE);
    if (!v_list(v, V_RANGE, (size_t)count, out)) return false;
    out->l->start = n[0];
    out->l->stop = n[1];
    out->l->step = n[2];
    for (size_t i = 0; i < count; i++) out->l->items[i] = v_int((int64_t)((uint64_t)n[0] + i * (uint64_t)n[2]));
    return vm_steps(v, count / 4);
}

static bool fill_dict(vm *v, const call_args *args, tdict *d)
{
    if (args->n > 1) return vm_fail(v, "dict expected at most 1 argument, got %zu", args->n);
    if (args->n && args->items[0].kind == V_DICT) {
        const tdict *from = args->items[0].d;
        for (size_t i = 0; i < from->n; i++)
            if (!dict_set(v, d, from->entries[i].key, from->entries[i].value)) return false;
    } else if (args->n) {
        tlist *l, *pair;
        if (!v_iterate(v, args->items[0], &l)) return false;
        for (size_t i = 0; i < l->n; i++) {
            if (!v_iterate(v, l->items[i], &pair)) return false;
            if (pair->n != 2)
                return vm_fail(v, "dictionary update sequence element #%zu has length %zu; 2 is required", i, pair->n);
            if (!dict_set(v, d, pair->items[0], pair->items[1])) return false;
        }
    }
    for (size_t i = 0; i < args->n_named; i++)
        if (!dict_set(v, d, args->names[i], args->named[i])) return false;
    return true;
}

static bool call_dict(vm *v, const call_args *args, value *out)
{
    return v_dict(v, out) && fill_dict(v, args, out->d);
}

static bool call_namespace(vm *v, const call_args *args, value *out)
{
    if (!call_dict(v, args, out)) return false;
    out->kind = V_NAMESPACE;
    for (size_t i = 0; i < out->d->n; i++) {
        value key = out->d->entries[i].key;
        if (key.kind == V_STRING && key.s->bytes && key.s->data[0] == '_')
            return vm_fail(v, "a namespace cannot hold names that begin with an underscore");
    }
    return true;
}

static bool call_cycler(vm *v, const call_args *args, value *out)
{
    if (!args->n || args->n_named) return vm_fail(v, "at least one item has to be provided");
    if (!v_list(v, V_CYCLER, args->n, out)) return false;
    for (size_t i = 0; i < args->n; i++) out->l->items[i] = args->items[i];
    return true;
}

static bool call_joiner(vm *v, const call_args *args, value *out)
{
    value sep;
    if (!bind(v, "joiner", args, "sep?", &sep)) return false;
    if (sep.kind == V_MISSING && !v_words(v, ", ", &sep)) return false;
    if (!v_list(v, V_JOINER, 1, out)) return false;
    out->l->items[0] = sep;
    return true;
}

static bool call_raise(vm *v, const call_args *args, value *out)
{
    value message;
    (void)out;
    if (!bind(v, "raise_exception", args, "message", &message) || !v_str(v, message, &message)) return false;
    return vm_fail(v, "%.*s", (int)(message.s->bytes < 700 ? message.s->bytes : 700), message.s->data);
}

static bool call_time(vm *v, const call_args *args, value *out)
{
    value format;
    output o = {0};
    struct tm now;
    if (!bind(v, "strftime_now", args, "format", &format) || !want_text(v, "strftime_now", format, &format))
        return false;
    if (v->in->now) {
        now = *v->in->now;
    } else {
        time_t seconds = time(NULL);
        if (!localtime_r(&seconds, &now)) return vm_fail(v, "strftime_now: the local time is not known");
    }
    return print_time(v, &o, format.s->data, format.s->bytes, &now) && out_string(v, &o, out);
}

const function_row functions[] = {
    {"range", call_range},         {"dict", call_dict},
    {"namespace", call_namespace}, {"cycler", call_cycler},
    {"joiner", call_joiner},       {"raise_exception", call_raise},
    {"strftime_now", call_time},   {NULL, NULL},
};

/* ---- calling ---------------------------------------------------------------------------------------------------- */

static bool call_inside(vm *v, value f, const call_args *args, value *out)
{
    switch (f.kind) {
    case V_FUNCTION:
        return f.function->call(v, args, out);
    case V_METHOD:
        if (args->n_named && !f.method->named) return vm_fail(v, "%s() takes no keyword arguments", f.method->name);
        return f.method->call(v, f.method->self, args, out);
    case V_MACRO:
        return call_macro(v, f.macro, args, out);
    case V_LOOP:
        return call_loop(v, f.loop, args, out);
    case V_JOINER:
        if (args->n || args->n_named) return vm_fail(v, "a joiner takes no arguments");
        *out = f.l->items[0];
        return f.l->at++ ? true : v_words(v, "", out);
    default:
        return v_used(v, f) && vm_fail(v, "'%s' object is not callable", kind_name(f));
    }
}

bool call_value(vm *v, value f, const call_args *args, value *out)
{
    *out = (value){0};
    if (!vm_steps(v, 1) || !vm_enter(v)) return false;
    bool ok = call_inside(v, f, args, out);
    vm_leave(v);
    return ok;
}

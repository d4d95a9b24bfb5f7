/* Expressions: the tree to values, with Python's operators and Jinja's ways of looking things up.
 *
 * x.name asks for an attribute first and an item then, x["name"] the other way round; what is not there is undefined,
 * and undefined is an error only when something is asked of it. Integers are 64 bits wide; what leaves them is an
 * error. */
#include <math.h>

#include "format/template_internal.h"
#include "format/tokenizer_unicode.h"

/* ---- looking up ------------------------------------------------------------------------------------------------- */

static bool no_attribute(vm *v, value x, const tstring *name, value *out)
{
    int n = (int)(name->bytes < 60 ? name->bytes : 60);
    if (x.kind == V_NONE) return v_undefined(v, out, "'None' has no attribute '%.*s'", n, name->data);
    return v_undefined(v, out, "'%s object' has no attribute '%.*s'", kind_name(x), n, name->data);
}

/* Attributes proper, as getattr() has them. */
static bool own_attribute(vm *v, value x, const tstring *name, value *out, bool *found)
{
    *found = false;
    switch (x.kind) {
    case V_MISSING:
    case V_UNDEFINED:
        return v_used(v, x);
    case V_NAMESPACE:
        return dict_get(v, x.d, (value){.kind = V_STRING, .s = (tstring *)(uintptr_t)name}, out, found);
    case V_LOOP:
        return loop_attribute(v, x, name, out, found);
    case V_TUPLE:
        if (x.l->group && name->bytes == 7 && memcmp(name->data, "grouper", 7) == 0) {
            *out = x.l->items[0];
            *found = true;
            return true;
        }
        if (x.l->group && name->bytes == 4 && memcmp(name->data, "list", 4) == 0) {
            *out = x.l->items[1];
            *found = true;
            return true;
        }
        break;
    case V_MACRO:
        if (name->bytes == 4 && memcmp(name->data, "name", 4) == 0) {
            *found = true;
            return v_words(v, x.macro->name, out);
        }
        break;
    default:
        break;
    }
    return get_method(v, x, name->data, name->bytes, out, found);
}

/* x[key] proper. *found false: not there, or x has no subscripts for such a key. */
static bool own_item(vm *v, value x, value key, value *out, bool *found)
{
    *found = false;
    if (x.kind == V_UNDEFINED) return v_used(v, x);
    if (x.kind == V_DICT) {
        if (key.kind == V_LIST || key.kind == V_DICT) return true; /* cannot be a key */
        return dict_get(v, x.d, key, out, found);
    }
    if (key.kind != V_INT && key.kind != V_BOOL) return true;
    int64_t i = key.kind == V_INT ? key.i : (int64_t)key.b;
    if (!is_sequence(x) && x.kind != V_STRING) return true;
    size_t n;
    if (!v_length(v, x, &n)) return false;
    if (i < 0) i += (int64_t)n;
    if (i < 0 || (uint64_t)i >= n) return true;
    *found = true;
    if (x.kind == V_STRING) return text_slice(v, x, (size_t)i, (size_t)i + 1, out);
    *out = x.l->items[i];
    return true;
}

bool get_attribute(vm *v, value x, const tstring *name, value *out)
{
    bool found;
    if (!own_attribute(v, x, name, out, &found)) return false;
    if (found) return true;
    if (!own_item(v, x, (value){.kind = V_STRING, .s = (tstring *)(uintptr_t)name}, out, &found)) return false;
    return found || no_attribute(v, x, name, out);
}

bool get_item(vm *v, value x, value key, value *out)
{
    bool found;
    if (!own_item(v, x, key, out, &found)) return false;
    if (found) return true;
    if (key.kind == V_STRING) {
        if (!own_attribute(v, x, key.s, out, &found)) return false;
        return found || no_attribute(v, x, key.s, out);
    }
    if (key.kind == V_UNDEFINED) return v_undefined(v, out, "%s", key.why);
    value shown;
    if (!v_repr(v, key, &shown)) return false;
    return v_undefined(v, out, "%s object has no element %.*s", kind_name(x),
                       (int)(shown.s->bytes < 60 ? shown.s->bytes : 60), shown.s->data);
}

/* ---- slices ----------------------------------------------------------------------------------------------------- */

/* A bound of a slice over n items, as Python cuts it to size. */
static bool slice_bound(vm *v, value x, int64_t n, int64_t step, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (x.kind == V_MISSING || x.kind == V_NONE) return true;
    if (x.kind != V_INT && x.kind != V_BOOL)
        return v_used(v, x) && vm_fail(v, "slice indices must be integers or None, not %s", kind_name(x));
    int64_t i = x.kind == V_INT ? x.i : (int64_t)x.b;
    if (i < 0) i = i < -n ? -1 : i + n;
    if (i < 0) i = step < 0 ? -1 : 0;
    if (i >= n) i = step < 0 ? n - 1 : n;
    *out = i;
    return true;
}

static bool slice_text(vm *v, value x, int64_t first, int64_t step, size_t count, value *out)
{
    if (step == 1) return text_slice(v, x, (size_t)first, (size_t)first + count, out);
    output o = {0};
    tlist *chars;
    if (!count) return v_words(v, "", out);
    if (!v_iterate(v, x, &chars)) return false;
    for (size_t i = 0; i < count; i++) {
        const tstring *s = chars->items[first + (int64_t)i * step].s;
        if (!out_bytes(v, &o, s->data, s->bytes)) return false;
    }
    return out_string(v, &o, out);
}

bool get_slice(vm *v, value x, value low, value high, value by, value *out)
{
    int64_t step = 1, first, last;
    size_t length;
    if (!is_sequence(x) && x.kind != V_STRING) {
        if (!v_used(v, x)) return false;
        return vm_fail(v, "'%s' object is not subscriptable by a slice", kind_name(x));
    }
    if (by.kind != V_NONE && by.kind != V_MISSING && !want_int(v, "slice", by, 1, &step)) return false;
    if (!step) return vm_fail(v, "slice step cannot be zero");
    if (!v_length(v, x, &length)) return false;
    int64_t n = (int64_t)length;
    if (step > n) step = n + 1;
    if (step < -n) step = -n - 1;
    if (!slice_bound(v, low, n, step, step < 0 ? n - 1 : 0, &first)) return false;
    if (!slice_bound(v, high, n, step, step < 0 ? -1 : n, &last)) return false;
    size_t count = 0;
    if (step > 0 && last > first) count = (size_t)((last - first - 1) / step + 1);
    if (step < 0 && first > last) count = (size_t)((first - last - 1) / -step + 1);
    if (x.kind == V_STRING) return slice_text(v, x, first, step, count, out);
    if (!v_list(v, x.kind, count, out)) return false;
    for (size_t i = 0; i < count; i++) out->l->items[i] = x.l->items[first + (int64_t)i * step];
    if (x.kind == V_RANGE) {
        out->l->start = x.l->start + first * x.l->step;
        out->l->stop = x.l->start + last * x.l->step;
        out->l->step = x.l->step * step;
    }
    return vm_steps(v, count / 4);
}

/* ---- arithmetic ------------------------------------------------------------------------------------------------- */

static bool too_big(vm *v)
{
    return vm_fail(v, "an integer beyond 64 bits");
}

static bool floor_divide(vm *v, int64_t a, int64_t b, int64_t *quotient, int64_t *rest)
{
    if (!b) return vm_fail(v, "integer division or modulo by zero");
    if (a == INT64_MIN && b == -1) {
        *rest = 0;
        *quotient = 0;
        return quotient == rest || too_big(v);
    }
    *quotient = a / b;
    *rest = a % b;
    if (*rest && (*rest < 0) != (b < 0)) {
        *quotient -= 1;
        *rest += b;
    }
    return true;
}

static bool power(vm *v, int64_t base, int64_t exponent, value *out)
{
    if (exponent < 0) {
        if (!base) return vm_fail(v, "0.0 cannot be raised to a negative power");
        *out = v_float(pow((double)base, (double)exponent));
        return true;
    }
    int64_t result = 1;
    bool wide = false; /* base has left 64 bits: an error if it is needed once more */
    while (exponent) {
        if (exponent & 1 && (wide || __builtin_mul_overflow(result, base, &result))) return too_big(v);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) wide = true;
    }
    *out = v_int(result);
    return true;
}

static bool whole_operation(vm *v, operator_kind op, int64_t a, int64_t b, value *out)
{
    int64_t r = 0, q = 0;
    bool over = false;
    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case OP_DIV:
        if (!b) return vm_fail(v, "division by zero");
        *out = v_float((double)a / (double)b);
        return true;
    case OP_FLOORDIV:
        if (a == INT64_MIN && b == -1) return too_big(v);
        if (!floor_divide(v, a, b, &r, &q)) return false;
        break;
    case OP_MOD:
        if (b == -1) break;
        if (!floor_divide(v, a, b, &q, &r)) return false;
        break;
    default:
        return power(v, a, b, out);
    }
    if (over) return too_big(v);
    *out = v_int(r);
    return true;
}

static bool float_operation(vm *v, operator_kind op, double a, double b, value *out)
{
    double r = 0;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0) return vm_fail(v, "float division by zero");
    switch (op) {
    case OP_ADD:
        r = a + b;
        break;
    case OP_SUB:
        r = a - b;
        break;
    case OP_MUL:
        r = a * b;
        break;
    case OP_DIV:
        r = a / b;
        break;
    case OP_FLOORDIV:
    case OP_MOD: {
        double rest = fmod(a, b);
        double q = (a - rest) / b;
        if (rest != 0 && (b < 0) != (rest < 0)) {
            rest += b;
            q -= 1;
        }
        if (rest == 0) rest = copysign(0.0, b);
        double whole = floor(q);
        if (q - whole > 0.5) whole += 1;
        r = op == OP_MOD ? rest : q == 0 ? copysign(0.0, a / b) : whole;
        break;
    }
    default:
        if (a == 0 && b < 0) return vm_fail(v, "0.0 cannot be raised to a negative power");
        r = pow(a, b);
        if (isnan(r) && !isnan(a) && !isnan(b)) return vm_fail(v, "a negative number to a fraction is complex");
        if (isinf(r) && !isinf(a) && !isinf(b)) return vm_fail(v, "Numerical result out of range");
        break;
    }
    *out = v_float(r);
    return true;
}

static bool repeat(vm *v, value x, int64_t times, value *out)
{
    if (times < 0) times = 0;
    if (x.kind == V_STRING) {
        output o = {0};
        if (x.s->bytes && (uint64_t)times > TEMPLATE_MAX_OUTPUT / x.s->bytes)
            return vm_fail(v, "a text of more than %d bytes", TEMPLATE_MAX_OUTPUT);
        for (int64_t i = 0; x.s->bytes && i < times; i++)
            if (!out_bytes(v, &o, x.s->data, x.s->bytes)) return false;
        if (!out_string(v, &o, out)) return false;
        *out = markup_of(*out, x.s->markup);
        return true;
    }
    size_t n = x.l->n;
    if (n && (uint64_t)times > TEMPLATE_MAX_VALUES / sizeof(value) / n)
        return vm_fail(v, "a list of more than %zu items", TEMPLATE_MAX_VALUES / sizeof(value));
    if (!v_list(v, x.kind, n * (size_t)times, out)) return false;
    for (size_t i = 0; n && i < out->l->n; i++) out->l->items[i] = x.l->items[i % n];
    return vm_steps(v, out->l->n);
}

static bool join_lists(vm *v, value a, value b, value *out)
{
    if (!v_list(v, a.kind, a.l->n + b.l->n, out)) return false;
    if (a.l->n) memcpy(out->l->items, a.l->items, a.l->n * sizeof(value));
    if (b.l->n) memcpy(out->l->items + a.l->n, b.l->items, b.l->n * sizeof(value));
    return true;
}

static bool join_texts(vm *v, value a, value b, value *out)
{
    output o = {0};
    bool markup = a.s->markup || b.s->markup;
    if (markup && (!text_escape(v, a, &a) || !text_escape(v, b, &b))) return false;
    size_t bytes = a.s->bytes + b.s->bytes;
    if (bytes > TEMPLATE_MAX_OUTPUT) return vm_fail(v, "a text of more than %d bytes", TEMPLATE_MAX_OUTPUT);
    o.data = vm_alloc(v, bytes + 1);
    if (!o.data) return false;
    o.capacity = bytes;
    if (!out_bytes(v, &o, a.s->data, a.s->bytes) || !out_bytes(v, &o, b.s->data, b.s->bytes)) return false;
    if (!out_string(v, &o, out)) return false;
    *out = markup_of(*out, markup);
    return true;
}

static bool is_whole(value x)
{
    return x.kind == V_INT || x.kind == V_BOOL;
}
static int64_t whole(value x)
{
    return x.kind == V_INT ? x.i : (int64_t)x.b;
}
static double number(value x)
{
    return x.kind == V_FLOAT ? x.f : (double)whole(x);
}

bool binary(vm *v, operator_kind op, value a, value b, value *out)
{
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    if (is_whole(a) && is_whole(b)) return whole_operation(v, op, whole(a), whole(b), out);
    bool numbers = (is_whole(a) || a.kind == V_FLOAT) && (is_whole(b) || b.kind == V_FLOAT);
    if (numbers) return float_operation(v, op, number(a), number(b), out);
    bool a_repeats = a.kind == V_STRING || a.kind == V_LIST || a.kind == V_TUPLE;
    bool b_repeats = b.kind == V_STRING || b.kind == V_LIST || b.kind == V_TUPLE;
    if (op == OP_MOD && a.kind == V_STRING) return format_percent(v, a.s, b, out);
    if (op == OP_ADD && a.kind == V_STRING && b.kind == V_STRING) return join_texts(v, a, b, out);
    if (op == OP_ADD && a.kind == b.kind && a_repeats) return join_lists(v, a, b, out);
    if (op == OP_MUL && a_repeats && is_whole(b)) return repeat(v, a, whole(b), out);
    if (op == OP_MUL && b_repeats && is_whole(a)) return repeat(v, b, whole(a), out);
    if (!v_used(v, a) || !v_used(v, b)) return false;
    return vm_fail(v, "unsupported operand type(s) for %s: '%s' and '%s'", signs[op], kind_name(a), kind_name(b));
}

static bool compare(vm *v, operator_kind op, value a, value b, bool *out)
{
    static const char *const signs[] = {[OP_LT] = "<", [OP_LE] = "<=", [OP_GT] = ">", [OP_GE] = ">="};
    int c = 0;
    switch (op) {
    case OP_EQ:
        return v_equal(v, a, b, out);
    case OP_NE:
        if (!v_equal(v, a, b, out)) return false;
        *out = !*out;
        return true;
    case OP_IN:
        return v_contains(v, b, a, out);
    case OP_NOT_IN:
        if (!v_contains(v, b, a, out)) return false;
        *out = !*out;
        return true;
    default:
        if (!v_compare(v, a, b, signs[op], &c)) return false;
        *out = c != 2 && (op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0);
        return true;
    }
}

static bool eval_compare(vm *v, const node *e, value *out)
{
    value left, right;
    bool holds = true;
    if (!eval(v, e->a, &left)) return false;
    for (const node *operand = e->list; operand && holds; operand = operand->next) {
        if (!eval(v, operand->a, &right) || !compare(v, operand->op, left, right, &holds)) return false;
        left = right;
    }
    *out = v_bool(holds);
    return true;
}

static bool eval_sign(vm *v, const node *e, value *out)
{
    value x;
    if (!eval(v, e->a, &x)) return false;
    if (is_whole(x)) {
        if (e->kind == N_NEGATIVE && whole(x) == INT64_MIN) return too_big(v);
        *out = v_int(e->kind == N_NEGATIVE ? -whole(x) : whole(x));
    } else if (x.kind == V_FLOAT) {
        *out = v_float(e->kind == N_NEGATIVE ? -x.f : x.f);
    } else {
        return v_used(v, x) &&
               vm_fail(v, "bad operand type for unary %s: '%s'", e->kind == N_NEGATIVE ? "-" : "+", kind_name(x));
    }
    return true;
}

/* ---- the tree --------------------------------------------------------------------------------------------------- */

static bool eval_items(vm *v, const node *e, value *out)
{
    growing g = {0};
    for (const node *item = e->list; item; item = item->next) {
        value x;
        if (!eval(v, item, &x) || !grow(v, &g, x)) return false;
    }
    return grown(v, e->kind == N_TUPLE ? V_TUPLE : V_LIST, &g, out);
}

static bool eval_dict(vm *v, const node *e, value *out)
{
    if (!v_dict(v, out)) return false;
    for (const node *key = e->list; key; key = key->next->next) {
        value k, x;
        if (!eval(v, key, &k) || !eval(v, key->next, &x) || !dict_set(v, out->d, k, x)) return false;
    }
    return true;
}

/* a ~ b: text, whether escaped or not. */
static bool eval_concat(vm *v, const node *e, value *out)
{
    output o = {0};
    growing g = {0};
    value x;
    for (const node *part = e->list; part; part = part->next)
        if (!eval(v, part, &x) || !grow(v, &g, x)) return false;
    for (size_t i = 0; i < g.n; i++)
        if (!print_str(v, &o, g.items[i])) return false;
    return out_string(v, &o, out);
}

typedef struct arguments {
    growing items, names, named;
} arguments;

static bool add_named(vm *v, arguments *a, value name, value x)
{
    if (name.kind != V_STRING) return vm_fail(v, "keywords must be strings");
    for (size_t i = 0; i < a->names.n; i++) {
        bool same;
        if (!v_equal(v, a->names.items[i], name, &same)) return false;
        if (same)
            return vm_fail(v, "got multiple values for keyword argument '%.*s'", (int)(name.s->bytes & 63),
                           name.s->data);
    }
    return grow(v, &a->names, name) && grow(v, &a->named, x);
}

static bool add_argument(vm *v, arguments *a, const node *arg)
{
    value x;
    if (arg->kind != N_KEYWORD && arg->kind != N_STAR && arg->kind != N_STARS)
        return eval(v, arg, &x) && grow(v, &a->items, x);
    if (!eval(v, arg->a, &x)) return false;
    if (arg->kind == N_KEYWORD) return add_named(v, a, (value){.kind = V_STRING, .s = arg->name}, x);
    if (arg->kind == N_STAR) {
        tlist *l;
        if (!v_iterate(v, x, &l)) return false;
        for (size_t i = 0; i < l->n; i++)
            if (!grow(v, &a->items, l->items[i])) return false;
        return true;
    }
    if (x.kind != V_DICT)
        return v_used(v, x) && vm_fail(v, "argument after ** must be a mapping, not %s", kind_name(x));
    for (size_t i = 0; i < x.d->n; i++)
        if (!add_named(v, a, x.d->entries[i].key, x.d->entries[i].value)) return false;
    return true;
}

bool eval_arguments(vm *v, const node *list, const value *caller, call_args *out)
{
    arguments a = {0};
    for (const node *arg = list; arg; arg = arg->next)
        if (!add_argument(v, &a, arg)) return false;
    if (caller) {
        value name;
        if (!v_words(v, "caller", &name) || !add_named(v, &a, name, *caller)) return false;
    }
    *out = (call_args){a.items.items, a.items.n, a.names.items, a.named.items, a.names.n};
    return true;
}

static bool eval_call(vm *v, const node *e, value *out)
{
    value f;
    call_args args;
    return eval(v, e->a, &f) && eval_arguments(v, e->list, NULL, &args) &&
           (v->line = e->line, call_value(v, f, &args, out));
}

static bool eval_filter(vm *v, const node *e, value *out)
{
    const filter_row *row = e->row;
    value x;
    call_args args;
    if (!eval(v, e->a, &x) || !eval_arguments(v, e->list, NULL, &args)) return false;
    v->line = e->line;
    if (!row) return vm_fail(v, "No filter named '%.*s'", (int)(e->name->bytes & 63), e->name->data);
    return row->call(v, x, &args, out);
}

static bool eval_test(vm *v, const node *e, value *out)
{
    const test_row *row = e->row;
    value x;
    call_args args;
    bool holds = false;
    if (!eval(v, e->a, &x) || !eval_arguments(v, e->list, NULL, &args)) return false;
    v->line = e->line;
    if (!row) return vm_fail(v, "No test named '%.*s'", (int)(e->name->bytes & 63), e->name->data);
    if (!row->call(v, x, &args, &holds)) return false;
    *out = v_bool(holds);
    return true;
}

static bool eval_name(vm *v, const node *e, value *out)
{
    if (scope_find(v, v->scope, e->name, out)) return true;
    if (v->status != LAMINA_OK) return false;
    return v_undefined(v, out, "'%.*s' is undefined", (int)(e->name->bytes < 60 ? e->name->bytes : 60), e->name->data);
}

static bool eval_slice(vm *v, const node *e, value *out)
{
    value x, low = {0}, high = {0}, by = {0};
    if (!eval(v, e->a, &x) || (e->b && !eval(v, e->b, &low)) || (e->c && !eval(v, e->c, &high)) ||
        (e->d && !eval(v, e->d, &by)))
        return false;
    v->line = e->line;
    return get_slice(v, x, low, high, by, out);
}

static bool eval_condition(vm *v, const node *e, value *out)
{
    value test;
    if (!eval(v, e->b, &test)) return false;
    if (v_true(test)) return eval(v, e->a, out);
    if (e->c) return eval(v, e->c, out);
    return v_undefined(
        v, out, "the inline if-expression on line %u evaluated to false and no else section was defined.", e->line);
}

static bool eval_inside(vm *v, const node *e, value *out)
{
    value a, b;
    switch (e->kind) {
    case N_CONST:
        *out = e->constant;
        return true;
    case N_NAME:
        return eval_name(v, e, out);
    case N_TUPLE:
    case N_LIST:
        return eval_items(v, e, out);
    case N_DICT:
        return eval_dict(v, e, out);
    case N_COND:
        return eval_condition(v, e, out);
    case N_OR:
    case N_AND:
        return eval(v, e->a, out) && (v_true(*out) == (e->kind == N_OR) || eval(v, e->b, out));
    case N_NOT:
        if (!eval(v, e->a, &a)) return false;
        *out = v_bool(!v_true(a));
        return true;
    case N_COMPARE:
        return eval_compare(v, e, out);
    case N_BINARY:
        return eval(v, e->a, &a) && eval(v, e->b, &b) && (v->line = e->line, binary(v, e->op, a, b, out));
    case N_NEGATIVE:
    case N_POSITIVE:
        return eval_sign(v, e, out);
    case N_CONCAT:
        return eval_concat(v, e, out);
    case N_ATTRIBUTE:
        return eval(v, e->a, &a) && (v->line = e->line, get_attribute(v, a, e->name, out));
    case N_ITEM:
        return eval(v, e->a, &a) && eval(v, e->b, &b) && (v->line = e->line, get_item(v, a, b, out));
    case N_SLICE:
        return eval_slice(v, e, out);
    case N_CALL:
        return eval_call(v, e, out);
    case N_FILTER:
        return eval_filter(v, e, out);
    case N_TEST:
        return eval_test(v, e, out);
    default:
        return vm_fail(v, "not an expression");
    }
}

bool eval(vm *v, const node *e, value *out)
{
    *out = (value){0};
    v->line = e->line;
    if (!vm_steps(v, 1) || !vm_enter(v)) return false;
    bool ok = eval_inside(v, e, out);
    vm_leave(v);
    return ok;
}

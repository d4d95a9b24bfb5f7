/* Tests: x is NAME(...). */
#include <math.h>

#include "format/template_internal.h"

#define SIMPLE_TEST(name, what)                                                                                        \
    static bool test_##name(vm *v, value x, const call_args *args, bool *out)                                          \
    {                                                                                                                  \
        *out = (what);                                                                                                 \
        return bind(v, #name, args, "", NULL);                                                                         \
    }
SIMPLE_TEST(defined, x.kind != V_UNDEFINED)
SIMPLE_TEST(undefined, x.kind == V_UNDEFINED)
SIMPLE_TEST(none, x.kind == V_NONE)
SIMPLE_TEST(boolean, x.kind == V_BOOL)
SIMPLE_TEST(true, x.kind == V_BOOL && x.b)
SIMPLE_TEST(false, x.kind == V_BOOL && !x.b)
SIMPLE_TEST(integer, x.kind == V_INT)
SIMPLE_TEST(float, x.kind == V_FLOAT)
SIMPLE_TEST(number, x.kind == V_INT || x.kind == V_FLOAT || x.kind == V_BOOL)
SIMPLE_TEST(string, x.kind == V_STRING)
SIMPLE_TEST(mapping, x.kind == V_DICT)
SIMPLE_TEST(escaped, x.kind == V_STRING && x.s->markup)
SIMPLE_TEST(sequence, x.kind == V_STRING || is_sequence(x) || x.kind == V_DICT || x.kind == V_UNDEFINED)
SIMPLE_TEST(iterable,
            x.kind == V_STRING || (x.kind >= V_LIST && x.kind <= V_DICT) || x.kind == V_UNDEFINED || x.kind == V_LOOP)
SIMPLE_TEST(callable, x.kind == V_MACRO || x.kind == V_METHOD || x.kind == V_FUNCTION || x.kind == V_LOOP ||
                          x.kind == V_JOINER || x.kind == V_UNDEFINED)

static bool is_case(vm *v, value x, const call_args *args, case_kind how, bool *out)
{
    value changed, other;
    bool same, cased;
    if (!bind(v, "upper", args, "", NULL) || !v_str(v, x, &x) || !text_case(v, x, how, &changed)) return false;
    if (!text_case(v, x, how == CASE_UPPER ? CASE_LOWER : CASE_UPPER, &other)) return false;
    if (!v_equal(v, x, changed, &same) || !v_equal(v, changed, other, &cased)) return false;
    *out = same && !cased;
    return true;
}
static bool test_upper(vm *v, value x, const call_args *args, bool *out)
{
    return is_case(v, x, args, CASE_UPPER, out);
}
static bool test_lower(vm *v, value x, const call_args *args, bool *out)
{
    return is_case(v, x, args, CASE_LOWER, out);
}

/* x % n, compared with a number */
static bool rest_is(vm *v, value x, value n, int64_t rest, bool *out)
{
    value r;
    if (x.kind == V_STRING) return vm_fail(v, "not all arguments converted during string formatting");
    return binary(v, OP_MOD, x, n, &r) && v_equal(v, r, v_int(rest), out);
}
static bool test_odd(vm *v, value x, const call_args *args, bool *out)
{
    return bind(v, "odd", args, "", NULL) && rest_is(v, x, v_int(2), 1, out);
}
static bool test_even(vm *v, value x, const call_args *args, bool *out)
{
    return bind(v, "even", args, "", NULL) && rest_is(v, x, v_int(2), 0, out);
}
static bool test_divisibleby(vm *v, value x, const call_args *args, bool *out)
{
    value n;
    return bind(v, "divisibleby", args, "num", &n) && rest_is(v, x, n, 0, out);
}

static bool test_eq(vm *v, value x, const call_args *args, bool *out)
{
    value other;
    return bind(v, "eq", args, "other", &other) && v_equal(v, x, other, out);
}
static bool test_ne(vm *v, value x, const call_args *args, bool *out)
{
    if (!test_eq(v, x, args, out)) return false;
    *out = !*out;
    return true;
}

static bool in_order(vm *v, value x, const call_args *args, const char *op, int *out)
{
    value other;
    return bind(v, op, args, "other", &other) && v_compare(v, x, other, op, out);
}
#define ORDER_TEST(name, op, what)                                                                                     \
    static bool test_##name(vm *v, value x, const call_args *args, bool *out)                                          \
    {                                                                                                                  \
        int c = 2;                                                                                                     \
        if (!in_order(v, x, args, op, &c)) return false;                                                               \
        *out = c != 2 && (what);                                                                                       \
        return true;                                                                                                   \
    }
ORDER_TEST(lt, "<", c < 0)
ORDER_TEST(le, "<=", c <= 0)
ORDER_TEST(gt, ">", c > 0)
ORDER_TEST(ge, ">=", c >= 0)

static bool test_in(vm *v, value x, const call_args *args, bool *out)
{
    value seq;
    return bind(v, "in", args, "seq", &seq) && v_contains(v, seq, x, out);
}

/* The same object. Of numbers and strings Python's identity is an accident; equal ones of a kind count as the same. */
static bool test_sameas(vm *v, value x, const call_args *args, bool *out)
{
    value other;
    if (!bind(v, "sameas", args, "other", &other)) return false;
    *out = x.kind == other.kind;
    if (!*out || x.kind == V_NONE) return true;
    if (x.kind <= V_STRING) return v_equal(v, x, other, out);
    *out = x.l == other.l;
    return true;
}

static bool test_filter(vm *v, value x, const call_args *args, bool *out)
{
    *out = x.kind == V_STRING && find_filter(x.s) != NULL;
    return bind(v, "filter", args, "", NULL);
}
static bool test_test(vm *v, value x, const call_args *args, bool *out)
{
    *out = x.kind == V_STRING && find_test(x.s) != NULL;
    return bind(v, "test", args, "", NULL);
}

static const test_row tests[] = {
    {"defined", test_defined},
    {"undefined", test_undefined},
    {"none", test_none},
    {"boolean", test_boolean},
    {"true", test_true},
    {"false", test_false},
    {"integer", test_integer},
    {"float", test_float},
    {"number", test_number},
    {"string", test_string},
    {"mapping", test_mapping},
    {"sequence", test_sequence},
    {"iterable", test_iterable},
    {"callable", test_callable},
    {"escaped", test_escaped},
    {"upper", test_upper},
    {"lower", test_lower},
    {"odd", test_odd},
    {"even", test_even},
    {"divisibleby", test_divisibleby},
    {"eq", test_eq},
    {"equalto", test_eq},
    {"==", test_eq},
    {"ne", test_ne},
    {"!=", test_ne},
    {"lt", test_lt},
    {"lessthan", test_lt},
    {"<", test_lt},
    {"le", test_le},
    {"<=", test_le},
    {"gt", test_gt},
    {"greaterthan", test_gt},
    {">", test_gt},
    {"ge", test_ge},
    {">=", test_ge},
    {"in", test_in},
    {"sameas", test_sameas},
    {"filter", test_filter},
    {"test", test_test},
    {NULL, NULL},
};

const test_row *find_test(const tstring *name)
{
    for (const test_row *row = tests; row->name; row++)
        if (strlen(row->name) == name->bytes && memcmp(row->name, name->data, name->bytes) == 0) return row;
    return NULL;
}

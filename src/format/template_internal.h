/* The inside of the template interpreter: values, the tree, the machine.
 *
 *   source -> tokens (template_lex.c) -> tree (template_parse.c, template_statements.c) -> text (template_run.c)
 *
 * Values follow Python, because templates are written against it. All that a rendering makes lives in one arena and
 * goes with it; nothing is ever changed once made, except namespaces, cyclers, joiners and the state of iterators, as
 * the sandbox permits. Functions return false after vm_fail(), which keeps the first reason. */
#ifndef LAMINA_FORMAT_TEMPLATE_INTERNAL_H
#define LAMINA_FORMAT_TEMPLATE_INTERNAL_H

#include <stdint.h>
#include <string.h>

#include "format/template.h"

enum {
    TEMPLATE_MAX_NESTING = 200, /* of the source's brackets and blocks */
    TEMPLATE_MAX_DEPTH = 600,   /* of evaluation: macros that call each other, values inside values */
    TEMPLATE_MAX_RANGE = 100000,
    TEMPLATE_MAX_STEPS = 100000000 /* about two seconds */
};

/* ---- values (template_value.c) ------------------------------------------------------------------------------ */

typedef enum value_kind {
    V_MISSING, /* no value: an argument that was not given */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_RANGE,
    V_ITERATOR, /* what generators give: goes by once, has no length */
    V_VIEW,     /* a dict's keys, values or items: iterable, has a length, no subscripts */
    V_DICT,
    V_NAMESPACE,
    V_LOOP,
    V_MACRO,
    V_METHOD,
    V_FUNCTION,
    V_CYCLER,
    V_JOINER
} value_kind;

typedef struct tstring {
    const char *data; /* UTF-8 */
    size_t bytes, chars;
    bool markup; /* escaped already: what `safe` and `escape` give */
} tstring;
#define CHARS_UNKNOWN SIZE_MAX

struct value;
typedef struct tlist {
    struct value *items;       /* [n] */
    size_t n, at;              /* at: of iterators, the next item */
    int64_t start, stop, step; /* of ranges */
    const char *view;          /* of views, "dict_items" and its like */
    bool group;                /* a tuple of groupby: has the attributes grouper and list */
} tlist;

typedef struct tdict tdict;
typedef struct tloop tloop;
typedef struct tmacro tmacro;
typedef struct tmethod tmethod;
typedef struct vm vm;
typedef struct call_args call_args;
typedef struct function_row function_row;

typedef struct value {
    value_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        tstring *s;
        tlist *l;
        tdict *d; /* also of namespaces */
        tloop *loop;
        tmacro *macro;
        tmethod *method;
        const function_row *function;
        const char *why; /* of undefined: the text of the error if it is used */
    };
} value;

typedef struct dict_entry {
    value key, value;
    uint64_t hash;
} dict_entry;
struct tdict {
    dict_entry *entries; /* [n] in the order of insertion */
    size_t n, capacity;
    uint32_t *index; /* [mask + 1]: place among entries + 1; NULL while n is small */
    size_t mask;
};

struct tmethod {
    value self;
    const char *name;
    bool (*call)(vm *v, value self, const call_args *args, value *out);
    bool named; /* takes arguments by name */
};
typedef bool (*method_fn)(vm *v, value self, const call_args *args, value *out);

struct call_args {
    const value *items; /* [n] */
    size_t n;
    const value *names, *named; /* [n_named]: names are strings */
    size_t n_named;
};

typedef bool (*function_fn)(vm *v, const call_args *args, value *out);
struct function_row {
    const char *name;
    function_fn call;
};

/* ---- the tree ------------------------------------------------------------------------------------------------- */

typedef enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_TUPLE, /* list */
    N_LIST,  /* list */
    N_DICT,  /* list: key, value, key, value */
    N_COND,  /* a if b else c; c may be NULL */
    N_OR,
    N_AND,
    N_NOT,
    N_COMPARE, /* a, then list of N_OPERAND (op, a) */
    N_OPERAND,
    N_BINARY, /* a op b */
    N_NEGATIVE,
    N_POSITIVE,
    N_CONCAT,    /* list */
    N_ATTRIBUTE, /* a.name */
    N_ITEM,      /* a[b] */
    N_SLICE,     /* a[b:c:d]; each may be NULL */
    N_CALL,      /* a(list) */
    N_FILTER,    /* a|name(list); a NULL: the block's text */
    N_TEST,      /* a is name(list) */
    /* arguments of calls */
    N_KEYWORD, /* name=a */
    N_STAR,    /* *a */
    N_STARS,   /* **a */
    /* statements */
    N_NS_TARGET, /* name.constant, in set only */
    N_TEXT,
    N_OUTPUT,       /* a */
    N_FOR,          /* a target, b iterable, c filter, list body, other else */
    N_IF,           /* a, list body, other else, or one N_IF with is_elif */
    N_SET,          /* a = b */
    N_SET_BLOCK,    /* a, b filter chain, list body */
    N_MACRO,        /* name, params, list body */
    N_CALL_BLOCK,   /* a call, params, list body */
    N_FILTER_BLOCK, /* a filter chain, list body */
    N_WITH,         /* params (name, a = value), list body */
    N_SCOPE,        /* list body: generation */
    N_BLOCK,        /* list body */
    N_BREAK,
    N_CONTINUE,
    N_REFUSED /* name: include and its like, an error when it is reached */
} node_kind;

typedef enum operator_kind {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN
} operator_kind;

typedef struct node {
    node_kind kind;
    operator_kind op;
    uint32_t line;
    tstring *name; /* interned: equal names are the same pointer */
    value constant;
    struct node *a, *b, *c, *d;
    struct node *list, *other, *params; /* chained by next */
    struct node *next;
    bool is_elif, recursive, uses_caller, uses_kwargs, uses_varargs;
    const void *row; /* N_FILTER, N_TEST: of its table; NULL: there is none of that name */
} node;

/* ---- the machine ------------------------------------------------------------------------------------------------ */

typedef struct variable {
    const tstring *name;
    value value;
    struct variable *next;
} variable;
typedef struct scope {
    struct scope *parent;
    variable *variables;
} scope;

typedef struct output {
    char *data;
    size_t bytes, capacity;
} output;

struct tmacro {
    const node *node;
    scope *scope; /* where it was defined */
    const char *name;
};

struct tloop {
    const node *node;
    scope *scope, *inner; /* around the loop; of its last iteration */
    uint64_t macros;      /* when that began */
    tlist *source;
    size_t source_at;
    bool filtered;    /* items still pass the filter */
    size_t index0, n; /* n: valid once counted */
    size_t depth0;
    value current, before, after; /* after: looked ahead at; V_MISSING: not yet */
    bool ended, has_changed;
    value changed;
};

enum { NAME_BUCKETS = 1024 };
typedef struct name_entry {
    tstring name;
    struct name_entry *next;
} name_entry;

struct vm {
    memory *m;
    arena *arena;
    lamina_error *err;
    lamina_status status;
    const template_input *in;
    uint32_t line;
    uint32_t depth;
    uint64_t steps;
    uint64_t macros; /* made so far: each holds on to the scope it was made in */
    size_t bytes;    /* of the arena */
    name_entry *names[NAME_BUCKETS];
    scope *root, *scope;
    output *out;
    int control; /* 0, or the N_BREAK or N_CONTINUE that is under way */
};

bool vm_fail(vm *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool vm_memory(vm *v); /* after a failed allocation; false */
void *vm_alloc(vm *v, size_t bytes);
void *vm_array(vm *v, size_t n, size_t size);
bool vm_steps(vm *v, size_t n);
bool vm_enter(vm *v);
static inline void vm_leave(vm *v)
{
    v->depth--;
}
tstring *vm_intern(vm *v, const char *text, size_t bytes);

/* ---- making values ------------------------------------------------------------------------------------------------ */

static inline value v_none(void)
{
    return (value){.kind = V_NONE};
}
static inline value v_bool(bool b)
{
    return (value){.kind = V_BOOL, .b = b};
}
static inline value v_int(int64_t i)
{
    return (value){.kind = V_INT, .i = i};
}
static inline value v_float(double f)
{
    return (value){.kind = V_FLOAT, .f = f};
}
static inline bool is_sequence(value x) /* a tlist with subscripts */
{
    return x.kind == V_LIST || x.kind == V_TUPLE || x.kind == V_RANGE;
}
bool v_text(vm *v, const char *data, size_t bytes, value *out); /* data is not copied */
bool v_copy(vm *v, const char *data, size_t bytes, value *out); /* a copy */
bool v_words(vm *v, const char *text, value *out);              /* of a C string that stays */
bool v_undefined(vm *v, value *out, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool v_list(vm *v, value_kind kind, size_t n, value *out); /* items zeroed: V_MISSING */
bool v_dict(vm *v, value *out);
bool v_json(vm *v, const json_t *json, value *out);

/* A list that grows. */
typedef struct growing {
    value *items;
    size_t n, capacity;
} growing;
bool grow(vm *v, growing *g, value x);
bool grown(vm *v, value_kind kind, const growing *g, value *out);

size_t v_chars(vm *v, const tstring *s);           /* code points */
size_t text_place(const tstring *s, size_t index); /* byte where code point `index` begins */
bool dict_set(vm *v, tdict *d, value key, value x);
bool dict_get(vm *v, const tdict *d, value key, value *out, bool *found); /* fails on keys that cannot be hashed */
bool dict_find(vm *v, const tdict *d, const char *name, value *out);      /* false: not there, or failed */

const char *kind_name(value x); /* Python's name of the type */
bool v_true(value x);
bool v_equal(vm *v, value a, value b, bool *out);
bool v_compare(vm *v, value a, value b, const char *op, int *out); /* for < and its like; fails on unlike kinds */
bool v_less(vm *v, value a, value b, bool *out);
bool v_contains(vm *v, value container, value item, bool *out);
bool v_iterate(vm *v, value x, tlist **out); /* all items, as a list; takes what an iterator has left */
bool v_length(vm *v, value x, size_t *out);
bool v_used(vm *v, value undefined); /* fails with the reason that an undefined value carries */

/* ---- text of values (template_print.c) ---------------------------------------------------------------------------- */

bool out_bytes(vm *v, output *o, const char *data, size_t bytes);
bool out_words(vm *v, output *o, const char *words);
bool out_string(vm *v, output *o, value *out); /* what was written, as a string */
bool print_str(vm *v, output *o, value x);
bool print_repr(vm *v, output *o, value x);
bool print_float(vm *v, output *o, double f);
bool v_str(vm *v, value x, value *out); /* str(x); a string is itself */
bool v_repr(vm *v, value x, value *out);
typedef struct json_style {
    value indent, separators;
    bool ensure_ascii, sort_keys;
} json_style;
bool print_json(vm *v, output *o, value x, const json_style *style);
bool format_percent(vm *v, const tstring *format, value args, value *out);           /* "%s" % x */
bool format_braces(vm *v, const tstring *format, const call_args *args, value *out); /* "{}".format(x) */
bool print_time(vm *v, output *o, const char *format, size_t bytes, const struct tm *t);

/* ---- text (template_text.c) ----------------------------------------------------------------------------------------- */

bool py_is_space(uint32_t c);
typedef enum case_kind { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP } case_kind;
bool text_case(vm *v, value s, case_kind how, value *out);
bool text_words_title(vm *v, value s, value *out);                  /* the filter's way */
bool text_strip(vm *v, value s, value chars, int ends, value *out); /* ends: 1 left, 2 right, 3 both */
bool text_replace(vm *v, value s, value old, value new, int64_t count, value *out);
bool text_slice(vm *v, value s, size_t first, size_t last, value *out); /* code points [first, last) */
bool text_split(vm *v, value s, value by, int64_t most, bool from_right, value *out);
bool text_lines(vm *v, value s, bool keep, value *out);
bool text_escape(vm *v, value s, value *out);
size_t text_find(const tstring *s, const tstring *part, size_t from);                 /* byte; SIZE_MAX: not there */
bool text_pad(vm *v, value s, int64_t width, value fill, int left_right, value *out); /* -1 ljust, 0 center, 1 rjust */
value markup_of(value s, bool markup);

/* ---- evaluation ------------------------------------------------------------------------------------------------------- */

typedef struct token token;
bool lex(vm *v, const char *source, size_t bytes, token **tokens, size_t *n);
bool parse(vm *v, const token *tokens, size_t n, node **body);
bool check_names(vm *v, const node *body); /* filters and tests that do not exist, as the reference's compiler does */

bool eval(vm *v, const node *e, value *out);
bool eval_arguments(vm *v, const node *list, const value *caller, call_args *out); /* caller: one more, or NULL */
bool run(vm *v, const node *body);
bool run_captured(vm *v, const node *body, value *out); /* its output as a string */
bool binary(vm *v, operator_kind op, value a, value b, value *out);
bool call_value(vm *v, value f, const call_args *args, value *out);
bool call_macro(vm *v, const tmacro *macro, const call_args *args, value *out);
bool call_loop(vm *v, tloop *loop, const call_args *args, value *out);
bool loop_attribute(vm *v, value loop, const tstring *name, value *out, bool *found);
bool get_attribute(vm *v, value x, const tstring *name, value *out);                      /* x.name */
bool get_item(vm *v, value x, value key, value *out);                                     /* x[key] */
bool get_method(vm *v, value x, const char *name, size_t bytes, value *out, bool *found); /* template_methods.c */
bool get_slice(vm *v, value x, value first, value last, value step, value *out);
scope *scope_new(vm *v, scope *parent);
bool scope_set(vm *v, scope *s, const tstring *name, value x);
bool scope_find(vm *v, const scope *s, const tstring *name, value *out);
bool assign(vm *v, const node *target, value x);
extern const function_row functions[]; /* range, dict ...; ends with a NULL name */

/* ---- filters and tests -------------------------------------------------------------------------------------------------- */

typedef bool (*filter_fn)(vm *v, value x, const call_args *args, value *out);
typedef struct filter_row {
    const char *name;
    filter_fn call;
} filter_row;
extern const filter_row filters_of_values[], filters_of_lists[]; /* each ends with a NULL name */
const filter_row *find_filter(const tstring *name);

typedef bool (*test_fn)(vm *v, value x, const call_args *args, bool *out);
typedef struct test_row {
    const char *name;
    test_fn call;
} test_row;
const test_row *find_test(const tstring *name);

/* Arguments by name. spec: "old new count?": names in order, '?' behind those that may be left out (V_MISSING). */
bool bind(vm *v, const char *what, const call_args *args, const char *spec, value *out);
bool want_int(vm *v, const char *what, value x, int64_t otherwise, int64_t *out); /* V_MISSING, V_NONE: otherwise */
bool want_text(vm *v, const char *what, value x, value *out);

#endif

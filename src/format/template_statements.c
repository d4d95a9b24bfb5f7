/* Statements: tokens to a tree.
 *
 * A body ends at one of a few names; break and continue stand inside of a loop of the same macro. What would open other
 * files (include, import, extends) becomes a node that refuses when it is reached, as it would fail there in
 * transformers, whose templates have no loader. */
#include "format/template_parse.h"

static node *parse_statement(parser *p);

static bool ends_body(const parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (is_name(p, *ends)) return true;
    return false;
}

/* Up to "{% END", standing before END. ends NULL: the whole template. */
static bool parse_parts(parser *p, const char *const *ends, node **out)
{
    chain body = {0};
    while (p->now->kind != T_EOF) {
        node *n = NULL;
        if (p->now->kind == T_DATA) {
            n = new_node(p, N_TEXT);
            if (n) n->constant = p->now->value;
            p->now++;
        } else if (p->now->kind == T_VARIABLE_BEGIN) {
            n = new_node(p, N_OUTPUT);
            p->now++;
            if (n) n->a = parse_tuple(p, true, false, NULL);
            if (!n || !n->a || !expect_token(p, T_VARIABLE_END, "}}")) return false;
        } else {
            p->now++; /* {% */
            if (ends_body(p, ends)) {
                *out = body.first;
                return true;
            }
            n = parse_statement(p);
            if (n && !expect_token(p, T_BLOCK_END, "%}")) return false;
        }
        if (!n) return false;
        chain_add(&body, n);
    }
    *out = body.first;
    return ends ? parse_fail(p, ends[0]) : true;
}

/* "%} body {% END": stands before END. */
static bool parse_body(parser *p, const char *const *ends, node **out)
{
    skip_token(p, T_COLON);
    if (!expect_token(p, T_BLOCK_END, "%}") || !parse_nest(p)) return false;
    bool ok = parse_parts(p, ends, out);
    p->nesting--;
    return ok;
}

static bool parse_closed(parser *p, const char *end, node **out)
{
    const char *const ends[] = {end, NULL};
    return parse_body(p, ends, out) && (p->now++, true);
}

static node *parse_for(parser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    node *n = new_node(p, N_FOR);
    p->now++;
    if (!n || !(n->a = parse_target(p, false, "in"))) return NULL;
    if (!skip_name(p, "in")) return parse_fail(p, "in"), NULL;
    if (!(n->b = parse_tuple(p, false, false, "recursive"))) return NULL;
    if (skip_name(p, "if") && !(n->c = parse_expression(p, true))) return NULL;
    n->recursive = skip_name(p, "recursive");
    p->loops++;
    bool ok = parse_body(p, ends, &n->list);
    p->loops--;
    if (!ok) return NULL;
    bool has_else = is_name(p, "else");
    p->now++;
    return !has_else || parse_closed(p, "endfor", &n->other) ? n : NULL;
}

static node *parse_if(parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node *first = NULL, **link = &first;
    for (;;) {
        node *n = new_node(p, N_IF);
        p->now++; /* if, elif */
        if (!n || !(n->a = parse_tuple(p, false, false, NULL)) || !parse_body(p, ends, &n->list)) return NULL;
        n->is_elif = link != &first;
        *link = n;
        link = &n->other;
        if (is_name(p, "elif")) continue;
        bool has_else = is_name(p, "else");
        p->now++;
        return !has_else || parse_closed(p, "endif", link) ? first : NULL;
    }
}

static node *parse_set(parser *p)
{
    node *n = new_node(p, N_SET);
    p->now++;
    if (!n || !(n->a = parse_target(p, true, NULL))) return NULL;
    if (skip_token(p, T_ASSIGN)) return (n->b = parse_tuple(p, true, false, NULL)) ? n : NULL;
    n->kind = N_SET_BLOCK;
    if (p->now->kind == T_PIPE && !(n->b = parse_filters(p, NULL, false))) return NULL;
    return parse_closed(p, "endset", &n->list) ? n : NULL;
}

static bool parse_signature(parser *p, node **out)
{
    chain params = {0};
    bool defaults = false;
    if (!expect_token(p, T_LPAREN, "\"(\"")) return false;
    while (p->now->kind != T_RPAREN) {
        if (params.first && !expect_token(p, T_COMMA, "\",\" or \")\"")) return false;
        node *n = parse_name_target(p);
        if (!n) return false;
        chain_add(&params, n);
        if (skip_token(p, T_ASSIGN)) {
            defaults = true;
            if (!(n->a = parse_expression(p, true))) return false;
        } else if (defaults) {
            return parse_fail(p, "a default as well");
        }
    }
    p->now++;
    *out = params.first;
    return true;
}

/* The body of a macro or call block, which breaks no loop outside. */
static bool parse_macro_body(parser *p, node *n, const char *end)
{
    uint32_t loops = p->loops;
    unsigned uses = p->uses;
    p->loops = 0;
    p->uses = 0;
    bool ok = parse_closed(p, end, &n->list);
    n->uses_caller = p->uses & USES_CALLER;
    n->uses_kwargs = p->uses & USES_KWARGS;
    n->uses_varargs = p->uses & USES_VARARGS;
    p->loops = loops;
    p->uses |= uses;
    return ok;
}

static node *parse_macro(parser *p)
{
    node *n = new_node(p, N_MACRO);
    p->now++;
    node *name = n ? parse_name_target(p) : NULL;
    if (!name) return NULL;
    n->name = name->name;
    return parse_signature(p, &n->params) && parse_macro_body(p, n, "endmacro") ? n : NULL;
}

static node *parse_call_block(parser *p)
{
    node *n = new_node(p, N_CALL_BLOCK);
    p->now++;
    if (!n || (p->now->kind == T_LPAREN && !parse_signature(p, &n->params))) return NULL;
    if (!(n->a = parse_expression(p, true))) return NULL;
    if (n->a->kind != N_CALL) return parse_fail(p, "a call before it"), NULL;
    return parse_macro_body(p, n, "endcall") ? n : NULL;
}

static node *parse_filter_block(parser *p)
{
    node *n = new_node(p, N_FILTER_BLOCK);
    p->now++;
    return n && (n->a = parse_filters(p, NULL, true)) && parse_closed(p, "endfilter", &n->list) ? n : NULL;
}

static node *parse_with(parser *p)
{
    node *n = new_node(p, N_WITH);
    chain names = {0};
    p->now++;
    while (n && p->now->kind != T_BLOCK_END) {
        if (names.first && !expect_token(p, T_COMMA, "\",\"")) return NULL;
        node *pair = new_node(p, N_SET);
        if (!pair || !(pair->a = parse_target(p, false, NULL)) || !expect_token(p, T_ASSIGN, "\"=\"")) return NULL;
        if (!(pair->b = parse_expression(p, true))) return NULL;
        chain_add(&names, pair);
    }
    if (!n) return NULL;
    n->params = names.first;
    return parse_closed(p, "endwith", &n->list) ? n : NULL;
}

static node *parse_generation(parser *p)
{
    node *n = new_node(p, N_SCOPE);
    uint32_t loops = p->loops;
    p->now++;
    p->loops = 0;
    bool ok = n && parse_closed(p, "endgeneration", &n->list);
    p->loops = loops;
    return ok ? n : NULL;
}

static node *parse_block(parser *p)
{
    node *n = new_node(p, N_BLOCK);
    uint32_t loops = p->loops;
    p->now++;
    if (!n || p->now->kind != T_NAME) return parse_fail(p, "a name"), NULL;
    n->name = p->now->value.s;
    p->now++;
    skip_name(p, "scoped");
    skip_name(p, "required");
    p->loops = 0;
    if (!parse_closed(p, "endblock", &n->list)) return NULL;
    p->loops = loops;
    if (p->now->kind == T_NAME && p->now->value.s == n->name) p->now++;
    return n;
}

static node *parse_print(parser *p)
{
    node *n = new_node(p, N_SCOPE);
    chain parts = {0};
    p->now++;
    while (n && p->now->kind != T_BLOCK_END) {
        if (parts.first && !expect_token(p, T_COMMA, "\",\"")) return NULL;
        node *o = new_node(p, N_OUTPUT);
        if (!o || !(o->a = parse_expression(p, true))) return NULL;
        chain_add(&parts, o);
    }
    if (n) n->list = parts.first;
    return n;
}

static node *parse_break(parser *p)
{
    node *n = new_node(p, is_name(p, "break") ? N_BREAK : N_CONTINUE);
    if (!p->loops) return parse_fail(p, "a loop around break and continue"), NULL;
    p->now++;
    return n;
}

static node *parse_refused(parser *p)
{
    node *n = new_node(p, N_REFUSED);
    if (n) n->name = p->now->value.s;
    while (p->now->kind != T_BLOCK_END && p->now->kind != T_EOF) p->now++;
    return n;
}

static node *parse_statement(parser *p)
{
    static const struct {
        const char *name;
        node *(*parse)(parser *);
    } table[] = {
        {"for", parse_for},         {"if", parse_if},
        {"set", parse_set},         {"macro", parse_macro},
        {"call", parse_call_block}, {"filter", parse_filter_block},
        {"with", parse_with},       {"generation", parse_generation},
        {"block", parse_block},     {"print", parse_print},
        {"break", parse_break},     {"continue", parse_break},
        {"include", parse_refused}, {"import", parse_refused},
        {"from", parse_refused},    {"extends", parse_refused},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (is_name(p, table[i].name)) return table[i].parse(p);
    parse_fail(p, "a tag that is known");
    return NULL;
}

bool parse(vm *v, const token *tokens, size_t n, node **body)
{
    parser p = {.v = v, .tokens = tokens, .now = tokens};
    if (!n) return vm_fail(v, "no tokens");
    return parse_parts(&p, NULL, body);
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

/* A filter or test that does not exist is an error, unless it stands in a branch: then only when it is reached. That is
 * how Jinja's compiler has it; templates ask "x is defined" of the future there. */
static bool check_chain(vm *v, const node *n, bool branch);

static bool check_node(vm *v, const node *n, bool branch)
{
    bool missing = (n->kind == N_FILTER || n->kind == N_TEST) && !n->row;
    if (missing && !branch) {
        v->line = n->line;
        return vm_fail(v, "No %s named '%.*s'.", n->kind == N_FILTER ? "filter" : "test",
                       (int)(n->name->bytes < 60 ? n->name->bytes : 60), n->name->data);
    }
    bool opens = n->kind == N_FOR || n->kind == N_MACRO || n->kind == N_CALL_BLOCK || n->kind == N_FILTER_BLOCK ||
                 n->kind == N_SET_BLOCK || n->kind == N_WITH || n->kind == N_SCOPE || n->kind == N_BLOCK;
    bool inside = n->kind == N_IF || n->kind == N_COND ? true : opens ? false : branch;
    const node *parts[] = {n->a, n->c, n->d, n->list, n->params, n->other};
    if (n->b && !check_chain(v, n->b, n->kind == N_FOR ? branch : inside)) return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i] && !check_chain(v, parts[i], inside)) return false;
    return true;
}

static bool check_chain(vm *v, const node *n, bool branch)
{
    if (!vm_enter(v)) return false;
    for (; n; n = n->next)
        if (!vm_steps(v, 1) || !check_node(v, n, branch)) return false;
    vm_leave(v);
    return true;
}

bool check_names(vm *v, const node *body)
{
    return !body || check_chain(v, body, false);
}

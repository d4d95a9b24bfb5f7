/* Expressions: tokens to a tree, by recursive descent.
 *
 * Precedence and oddities are those of Jinja's parser (jinja2/parser.py), which are not quite Python's: "**" binds to
 * the left, a filter behind a sign applies to the signed value, a test takes one argument without brackets. Depth is
 * counted where the grammar recurses. */
#include "format/template_parse.h"

bool parse_fail(parser *p, const char *expected)
{
    static const char *const words[] = {[T_EOF] = "the end of the template",
                                        [T_DATA] = "text",
                                        [T_VARIABLE_BEGIN] = "{{",
                                        [T_VARIABLE_END] = "}}",
                                        [T_BLOCK_BEGIN] = "{%",
                                        [T_BLOCK_END] = "%}"};
    const token *t = p->now;
    p->v->line = t->line;
    if (t->kind < sizeof words / sizeof *words) return vm_fail(p->v, "expected %s, found %s", expected, words[t->kind]);
    if (t->value.kind != V_STRING) return vm_fail(p->v, "expected %s, found a number", expected);
    return vm_fail(p->v, "expected %s, found %s%.*s", expected, t->kind == T_STRING ? "the string " : "",
                   (int)(t->value.s->bytes < 60 ? t->value.s->bytes : 60), t->value.s->data);
}

node *new_node(parser *p, node_kind kind)
{
    node *n = vm_alloc(p->v, sizeof *n);
    if (!n || !vm_steps(p->v, 1)) return NULL;
    n->kind = kind;
    n->line = p->now->line;
    return n;
}

static void advance(parser *p)
{
    if (p->now->kind != T_EOF) p->now++;
}

bool skip_token(parser *p, token_kind kind)
{
    if (p->now->kind != kind) return false;
    advance(p);
    return true;
}

bool expect_token(parser *p, token_kind kind, const char *what)
{
    return skip_token(p, kind) || parse_fail(p, what);
}

static bool token_is(const token *t, const char *name)
{
    size_t n = strlen(name);
    return t->kind == T_NAME && t->value.s->bytes == n && memcmp(t->value.s->data, name, n) == 0;
}

bool is_name(const parser *p, const char *name)
{
    return token_is(p->now, name);
}

bool skip_name(parser *p, const char *name)
{
    if (!is_name(p, name)) return false;
    advance(p);
    return true;
}

void chain_add(chain *c, node *n)
{
    if (c->last)
        c->last->next = n;
    else
        c->first = n;
    c->last = n;
}

bool parse_nest(parser *p)
{
    if (++p->nesting <= TEMPLATE_MAX_NESTING) return true;
    p->v->line = p->now->line;
    return vm_fail(p->v, "nested deeper than %d", TEMPLATE_MAX_NESTING);
}

static node *new_unary(parser *p, node_kind kind, node *a)
{
    node *n = a ? new_node(p, kind) : NULL;
    if (n) n->a = a;
    return n;
}

/* ---- primaries -------------------------------------------------------------------------------------------------- */

static node *new_const(parser *p, value x)
{
    node *n = new_node(p, N_CONST);
    if (n) n->constant = x;
    return n;
}

static node *parse_list(parser *p)
{
    node *n = new_node(p, N_LIST);
    chain items = {0};
    advance(p);
    while (n && p->now->kind != T_RBRACKET) {
        if (items.first && !expect_token(p, T_COMMA, "\",\" or \"]\"")) return NULL;
        if (p->now->kind == T_RBRACKET) break;
        node *item = parse_expression(p, true);
        if (!item) return NULL;
        chain_add(&items, item);
    }
    advance(p);
    if (n) n->list = items.first;
    return n;
}

static node *parse_dict(parser *p)
{
    node *n = new_node(p, N_DICT);
    chain items = {0};
    advance(p);
    while (n && p->now->kind != T_RBRACE) {
        if (items.first && !expect_token(p, T_COMMA, "\",\" or \"}\"")) return NULL;
        if (p->now->kind == T_RBRACE) break;
        node *key = parse_expression(p, true);
        if (!key || !expect_token(p, T_COLON, "\":\"")) return NULL;
        node *x = parse_expression(p, true);
        if (!x) return NULL;
        chain_add(&items, key);
        chain_add(&items, x);
    }
    advance(p);
    if (n) n->list = items.first;
    return n;
}

static node *parse_name(parser *p, bool attributes)
{
    const token *t = p->now;
    if (is_name(p, "true") || is_name(p, "True") || is_name(p, "false") || is_name(p, "False")) {
        bool truth = (t->value.s->data[0] | 32) == 't';
        advance(p);
        return new_const(p, v_bool(truth));
    }
    if (is_name(p, "none") || is_name(p, "None")) {
        advance(p);
        return new_const(p, v_none());
    }
    node *n = new_node(p, N_NAME);
    if (!n) return NULL;
    n->name = t->value.s;
    if (is_name(p, "caller")) p->uses |= USES_CALLER;
    if (is_name(p, "kwargs")) p->uses |= USES_KWARGS;
    if (is_name(p, "varargs")) p->uses |= USES_VARARGS;
    advance(p);
    if (attributes && p->now->kind == T_DOT) {
        advance(p);
        n->kind = N_NS_TARGET;
        if (p->now->kind != T_NAME) return parse_fail(p, "a name"), NULL;
        n->constant = p->now->value;
        advance(p);
    }
    return n;
}

/* 'a' 'b' is 'ab'. */
static node *parse_strings(parser *p)
{
    node *n = new_const(p, p->now->value);
    advance(p);
    if (!n || p->now->kind != T_STRING) return n;
    output o = {0};
    if (!out_bytes(p->v, &o, n->constant.s->data, n->constant.s->bytes)) return NULL;
    for (; p->now->kind == T_STRING; advance(p))
        if (!out_bytes(p->v, &o, p->now->value.s->data, p->now->value.s->bytes)) return NULL;
    return out_string(p->v, &o, &n->constant) ? n : NULL;
}

static node *parse_primary(parser *p, bool attributes)
{
    node *n = NULL;
    switch (p->now->kind) {
    case T_NAME:
        return parse_name(p, attributes);
    case T_STRING:
        return parse_strings(p);
    case T_INTEGER:
    case T_FLOAT:
        n = new_const(p, p->now->value);
        advance(p);
        return n;
    case T_LPAREN:
        advance(p);
        n = parse_tuple(p, true, true, NULL);
        return n && expect_token(p, T_RPAREN, "\")\"") ? n : NULL;
    case T_LBRACKET:
        return parse_list(p);
    case T_LBRACE:
        return parse_dict(p);
    default:
        parse_fail(p, "an expression");
        return NULL;
    }
}

/* ---- what follows a primary ----------------------------------------------------------------------------------- */

static node *parse_argument(parser *p, bool *named, bool *starred, bool *stars)
{
    node *n;
    if (p->now->kind == T_MUL || p->now->kind == T_POW) {
        bool two = p->now->kind == T_POW;
        if (*stars || (!two && *starred)) return parse_fail(p, "no further argument"), NULL;
        advance(p);
        *stars |= two;
        *starred |= !two;
        return new_unary(p, two ? N_STARS : N_STAR, parse_expression(p, true));
    }
    if (p->now->kind == T_NAME && p->now[1].kind == T_ASSIGN) {
        if (*stars) return parse_fail(p, "no argument behind **"), NULL;
        tstring *name = p->now->value.s;
        advance(p);
        advance(p);
        *named = true;
        n = new_unary(p, N_KEYWORD, parse_expression(p, true));
        if (n) n->name = name;
        return n;
    }
    if (*named || *starred || *stars) return parse_fail(p, "a named argument"), NULL;
    return parse_expression(p, true);
}

static bool parse_arguments(parser *p, node **out)
{
    chain args = {0};
    bool named = false, starred = false, stars = false;
    advance(p);
    while (p->now->kind != T_RPAREN) {
        if (args.first && !expect_token(p, T_COMMA, "\",\" or \")\"")) return false;
        if (p->now->kind == T_RPAREN) break;
        node *n = parse_argument(p, &named, &starred, &stars);
        if (!n) return false;
        chain_add(&args, n);
    }
    advance(p);
    *out = args.first;
    return true;
}

static node *parse_call(parser *p, node *f)
{
    node *n = new_unary(p, N_CALL, f);
    return n && parse_arguments(p, &n->list) ? n : NULL;
}

static bool slice_ends(const parser *p)
{
    return p->now->kind == T_RBRACKET || p->now->kind == T_COMMA;
}

static node *parse_subscribed(parser *p)
{
    node *first = NULL, *n;
    if (p->now->kind != T_COLON) {
        first = parse_expression(p, true);
        if (!first || p->now->kind != T_COLON) return first;
    }
    advance(p);
    n = new_node(p, N_SLICE);
    if (!n) return NULL;
    n->b = first;
    if (p->now->kind != T_COLON && !slice_ends(p) && !(n->c = parse_expression(p, true))) return NULL;
    if (skip_token(p, T_COLON) && !slice_ends(p) && !(n->d = parse_expression(p, true))) return NULL;
    return n;
}

static node *parse_subscript(parser *p, node *x)
{
    node *n;
    if (skip_token(p, T_DOT)) {
        n = new_unary(p, p->now->kind == T_NAME ? N_ATTRIBUTE : N_ITEM, x);
        if (!n) return NULL;
        if (p->now->kind == T_NAME) {
            n->name = p->now->value.s;
            advance(p);
            return n;
        }
        if (p->now->kind != T_INTEGER) return parse_fail(p, "a name or a number"), NULL;
        n->b = new_const(p, p->now->value);
        advance(p);
        return n->b ? n : NULL;
    }
    advance(p);
    chain parts = {0};
    n = new_unary(p, N_ITEM, x);
    while (n && p->now->kind != T_RBRACKET) {
        if (parts.first && !expect_token(p, T_COMMA, "\",\" or \"]\"")) return NULL;
        node *part = parse_subscribed(p);
        if (!part) return NULL;
        chain_add(&parts, part);
    }
    advance(p);
    if (!n) return NULL;
    n->b = parts.first;
    if (parts.first && parts.first == parts.last) {
        if (n->b->kind != N_SLICE) return n;
        n->b->a = x;
        return n->b;
    }
    for (node *part = parts.first; part; part = part->next)
        if (part->kind == N_SLICE) return parse_fail(p, "one slice"), NULL;
    n->b = new_node(p, N_TUPLE);
    if (n->b) n->b->list = parts.first;
    return n->b ? n : NULL;
}

static node *parse_postfix(parser *p, node *n)
{
    while (n) {
        if (p->now->kind == T_DOT || p->now->kind == T_LBRACKET)
            n = parse_subscript(p, n);
        else if (p->now->kind == T_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* "a.b" is the name of a filter or test too. */
static tstring *parse_dotted(parser *p)
{
    if (p->now->kind != T_NAME) return parse_fail(p, "a name"), NULL;
    tstring *name = p->now->value.s;
    advance(p);
    while (p->now->kind == T_DOT) {
        advance(p);
        if (p->now->kind != T_NAME) return parse_fail(p, "a name"), NULL;
        output o = {0};
        const tstring *more = p->now->value.s;
        if (!out_bytes(p->v, &o, name->data, name->bytes) || !out_bytes(p->v, &o, ".", 1) ||
            !out_bytes(p->v, &o, more->data, more->bytes))
            return NULL;
        name = vm_intern(p->v, o.data, o.bytes);
        if (!name) return NULL;
        advance(p);
    }
    return name;
}

node *parse_filters(parser *p, node *input, bool begun)
{
    node *n = input;
    while (begun || p->now->kind == T_PIPE) {
        if (!begun) advance(p);
        begun = false;
        node *filter = new_node(p, N_FILTER);
        if (!filter) return NULL;
        filter->a = n;
        filter->name = parse_dotted(p);
        if (!filter->name) return NULL;
        filter->row = find_filter(filter->name);
        if (p->now->kind == T_LPAREN && !parse_arguments(p, &filter->list)) return NULL;
        n = filter;
    }
    return n;
}

static bool begins_argument(const parser *p)
{
    switch (p->now->kind) {
    case T_NAME:
        return !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and");
    case T_STRING:
    case T_INTEGER:
    case T_FLOAT:
    case T_LPAREN:
    case T_LBRACKET:
    case T_LBRACE:
        return true;
    default:
        return false;
    }
}

static node *parse_test(parser *p, node *x)
{
    advance(p);
    bool not = skip_name(p, "not");
    node *n = new_unary(p, N_TEST, x);
    if (!n) return NULL;
    n->name = parse_dotted(p);
    if (!n->name) return NULL;
    n->row = find_test(n->name);
    if (p->now->kind == T_LPAREN) {
        if (!parse_arguments(p, &n->list)) return NULL;
    } else if (begins_argument(p)) {
        if (is_name(p, "is")) return parse_fail(p, "no second test"), NULL;
        n->list = parse_postfix(p, parse_primary(p, false));
        if (!n->list) return NULL;
    }
    return not ? new_unary(p, N_NOT, n) : n;
}

static node *parse_filter_expression(parser *p, node *n)
{
    while (n) {
        if (p->now->kind == T_PIPE)
            n = parse_filters(p, n, false);
        else if (is_name(p, "is"))
            n = parse_test(p, n);
        else if (p->now->kind == T_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* ---- operators -------------------------------------------------------------------------------------------------- */

static node *parse_unary(parser *p, bool filters)
{
    node *n = NULL;
    if (!parse_nest(p)) return NULL;
    if (p->now->kind == T_SUB || p->now->kind == T_ADD) {
        node_kind kind = p->now->kind == T_SUB ? N_NEGATIVE : N_POSITIVE;
        advance(p);
        n = new_unary(p, kind, parse_unary(p, false));
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    if (filters) n = parse_filter_expression(p, n);
    p->nesting--;
    return n;
}

static node *new_binary(parser *p, operator_kind op, node *a, node *b)
{
    node *n = a && b ? new_node(p, N_BINARY) : NULL;
    if (!n) return NULL;
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

static node *parse_power(parser *p)
{
    node *n = parse_unary(p, true);
    while (n && skip_token(p, T_POW)) n = new_binary(p, OP_POW, n, parse_unary(p, true));
    return n;
}

static node *parse_product(parser *p)
{
    node *n = parse_power(p);
    while (n) {
        token_kind k = p->now->kind;
        if (k != T_MUL && k != T_DIV && k != T_FLOORDIV && k != T_MOD) break;
        advance(p);
        operator_kind op = k == T_MUL ? OP_MUL : k == T_DIV ? OP_DIV : k == T_FLOORDIV ? OP_FLOORDIV : OP_MOD;
        n = new_binary(p, op, n, parse_power(p));
    }
    return n;
}

static node *parse_concat(parser *p)
{
    node *first = parse_product(p);
    if (!first || p->now->kind != T_TILDE) return first;
    node *n = new_node(p, N_CONCAT);
    chain parts = {0};
    chain_add(&parts, first);
    while (n && skip_token(p, T_TILDE)) {
        node *part = parse_product(p);
        if (!part) return NULL;
        chain_add(&parts, part);
    }
    if (n) n->list = parts.first;
    return n;
}

static node *parse_sum(parser *p)
{
    node *n = parse_concat(p);
    while (n && (p->now->kind == T_ADD || p->now->kind == T_SUB)) {
        operator_kind op = p->now->kind == T_ADD ? OP_ADD : OP_SUB;
        advance(p);
        n = new_binary(p, op, n, parse_concat(p));
    }
    return n;
}

static bool comparison(parser *p, operator_kind *op)
{
    static const struct {
        token_kind kind;
        operator_kind op;
    } table[] = {{T_EQ, OP_EQ}, {T_NE, OP_NE}, {T_LT, OP_LT}, {T_LE, OP_LE}, {T_GT, OP_GT}, {T_GE, OP_GE}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (p->now->kind != table[i].kind) continue;
        *op = table[i].op;
        advance(p);
        return true;
    }
    if (skip_name(p, "in")) {
        *op = OP_IN;
        return true;
    }
    if (!is_name(p, "not") || !token_is(p->now + 1, "in")) return false;
    advance(p);
    advance(p);
    *op = OP_NOT_IN;
    return true;
}

static node *parse_compare(parser *p)
{
    node *first = parse_sum(p);
    chain operands = {0};
    operator_kind op;
    while (first && comparison(p, &op)) {
        node *operand = new_unary(p, N_OPERAND, parse_sum(p));
        if (!operand) return NULL;
        operand->op = op;
        chain_add(&operands, operand);
    }
    if (!first || !operands.first) return first;
    node *n = new_unary(p, N_COMPARE, first);
    if (n) n->list = operands.first;
    return n;
}

static node *parse_not(parser *p)
{
    if (!is_name(p, "not")) return parse_compare(p);
    if (!parse_nest(p)) return NULL;
    advance(p);
    node *n = new_unary(p, N_NOT, parse_not(p));
    p->nesting--;
    return n;
}

static node *parse_and(parser *p)
{
    node *n = parse_not(p);
    while (n && skip_name(p, "and")) {
        n = new_binary(p, OP_ADD, n, parse_not(p));
        if (n) n->kind = N_AND;
    }
    return n;
}

static node *parse_or(parser *p)
{
    node *n = parse_and(p);
    while (n && skip_name(p, "or")) {
        n = new_binary(p, OP_ADD, n, parse_and(p));
        if (n) n->kind = N_OR;
    }
    return n;
}

node *parse_expression(parser *p, bool conditional)
{
    if (!parse_nest(p)) return NULL;
    node *n = parse_or(p);
    while (n && conditional && skip_name(p, "if")) {
        node *c = new_unary(p, N_COND, n);
        if (!c || !(c->b = parse_or(p))) return NULL;
        if (skip_name(p, "else") && !(c->c = parse_expression(p, true))) return NULL;
        n = c;
    }
    p->nesting--;
    return n;
}

/* ---- tuples and targets --------------------------------------------------------------------------------------- */

static bool tuple_ends(const parser *p, const char *end)
{
    token_kind k = p->now->kind;
    return k == T_VARIABLE_END || k == T_BLOCK_END || k == T_RPAREN || (end && is_name(p, end));
}

node *parse_tuple(parser *p, bool conditional, bool parentheses, const char *end)
{
    chain items = {0};
    bool is_tuple = false;
    for (;;) {
        if (items.first && !expect_token(p, T_COMMA, "\",\"")) return NULL;
        if (tuple_ends(p, end)) break;
        node *item = parse_expression(p, conditional);
        if (!item) return NULL;
        chain_add(&items, item);
        if (p->now->kind != T_COMMA) break;
        is_tuple = true;
    }
    if (!is_tuple && items.first) return items.first;
    if (!is_tuple && !parentheses) return parse_fail(p, "an expression"), NULL;
    node *n = new_node(p, N_TUPLE);
    if (n) n->list = items.first;
    return n;
}

static bool can_assign(parser *p, const node *n)
{
    if (n->kind == N_NS_TARGET || n->kind == N_NAME) return true;
    if (n->kind != N_TUPLE) return parse_fail(p, "a name to assign to");
    for (const node *item = n->list; item; item = item->next)
        if (!can_assign(p, item)) return false;
    return true;
}

node *parse_name_target(parser *p)
{
    if (p->now->kind != T_NAME) return parse_fail(p, "a name"), NULL;
    node *n = parse_name(p, false);
    return n && can_assign(p, n) ? n : NULL;
}

node *parse_target(parser *p, bool attributes, const char *end)
{
    chain items = {0};
    bool is_tuple = false;
    for (;;) {
        if (items.first && !expect_token(p, T_COMMA, "\",\"")) return NULL;
        if (tuple_ends(p, end)) break;
        node *item = parse_primary(p, attributes);
        if (!item || !can_assign(p, item)) return NULL;
        chain_add(&items, item);
        if (p->now->kind != T_COMMA) break;
        is_tuple = true;
    }
    if (!items.first) return parse_fail(p, "a name to assign to"), NULL;
    if (!is_tuple) return items.first;
    node *n = new_node(p, N_TUPLE);
    if (n) n->list = items.first;
    return n;
}

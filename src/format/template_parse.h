/* The parser's two halves: expressions (template_parse.c) and statements (template_statements.c). */
#ifndef LAMINA_FORMAT_TEMPLATE_PARSE_H
#define LAMINA_FORMAT_TEMPLATE_PARSE_H

#include "format/template_lex.h"

/* Special names that a macro's body uses. */
enum { USES_CALLER = 1, USES_KWARGS = 2, USES_VARARGS = 4 };

typedef struct parser {
    vm *v;
    const token *tokens, *now;
    uint32_t nesting;
    uint32_t loops; /* of the loops around, those that break and continue can leave */
    unsigned uses;
} parser;

typedef struct chain { /* nodes in order */
    node *first, *last;
} chain;

bool parse_fail(parser *p, const char *expected); /* "expected ..., found ..." */
node *new_node(parser *p, node_kind kind);
bool expect_token(parser *p, token_kind kind, const char *what);
bool skip_token(parser *p, token_kind kind);
bool is_name(const parser *p, const char *name);
bool skip_name(parser *p, const char *name);
void chain_add(chain *c, node *n);
bool parse_nest(parser *p);

node *parse_expression(parser *p, bool conditional);
/* end: a name that ends the tuple as well, or NULL. */
node *parse_tuple(parser *p, bool conditional, bool parentheses, const char *end);
/* What stands left of "=" or "in"; namespace attributes if `attributes`. */
node *parse_target(parser *p, bool attributes, const char *end);
node *parse_name_target(parser *p);
node *parse_filters(parser *p, node *input, bool begun); /* "|a|b"; begun: the first one without its "|" */

#endif

/* Statements: the tree to text; scopes, loops, macros; and the machine's limits.
 *
 * A scope is a list of variables in front of the scopes around it. What a body of a loop, macro or block sets is gone
 * at its end, as in Jinja; branches of `if` are no scope. A macro sees the scope in which it stands, not that of its
 * caller.
 *
 * Filters, tests and iterables of loops are evaluated where they stand; the items of a loop one at a time, one ahead
 * only if the template asks for what comes next. */
#include <stdarg.h>
#include <stdio.h>

#include "format/template_lex.h"
#include "format/tokenizer_unicode.h"

/* ---- the machine ------------------------------------------------------------------------------------------------ */

bool vm_fail(vm *v, const char *format, ...)
{
    if (v->status != LAMINA_OK) return false;
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    v->status = error_set(v->err, LAMINA_E_FORMAT, "chat template, line %u: %s", v->line ? v->line : 1, text);
    return false;
}

void *vm_alloc(vm *v, size_t bytes)
{
    if (bytes > TEMPLATE_MAX_VALUES - v->bytes) {
        vm_fail(v, "values of more than %d bytes together", TEMPLATE_MAX_VALUES);
        return NULL;
    }
    v->bytes +=
        bytes + (bytes > 1 << 18 ? 1 << 20 : 16); /* a large piece leaves the rest of the arena's block behind */
    if (v->bytes > TEMPLATE_MAX_VALUES) v->bytes = TEMPLATE_MAX_VALUES;
    lamina_error why = {.status = LAMINA_E_MEMORY};
    void *p = arena_alloc(v->arena, bytes ? bytes : 1, &why);
    if (!p && v->status == LAMINA_OK) {
        v->status = why.status;
        if (v->err) *v->err = why;
    }
    return p;
}

void *vm_array(vm *v, size_t n, size_t size)
{
    if (n > TEMPLATE_MAX_VALUES / size) {
        vm_fail(v, "values of more than %d bytes together", TEMPLATE_MAX_VALUES);
        return NULL;
    }
    return vm_alloc(v, n * size);
}

bool vm_steps(vm *v, size_t n)
{
    if (v->status != LAMINA_OK) return false;
    v->steps += n;
    return v->steps <= TEMPLATE_MAX_STEPS || vm_fail(v, "more than %d steps", TEMPLATE_MAX_STEPS);
}

bool vm_enter(vm *v)
{
    if (v->depth >= TEMPLATE_MAX_DEPTH) return vm_fail(v, "deeper than %d levels", TEMPLATE_MAX_DEPTH);
    v->depth++;
    return true;
}

tstring *vm_intern(vm *v, const char *text, size_t bytes)
{
    size_t h = 5381;
    for (size_t i = 0; i < bytes; i++) h = h * 33 + (unsigned char)text[i];
    name_entry **slot = &v->names[h % NAME_BUCKETS];
    for (name_entry *e = *slot; e; e = e->next) {
        if (e->name.bytes == bytes && memcmp(e->name.data, text, bytes) == 0) return &e->name;
        if (!vm_steps(v, 1)) return NULL;
    }
    name_entry *e = vm_alloc(v, sizeof *e);
    if (!e) return NULL;
    *e = (name_entry){.name = {.data = text, .bytes = bytes, .chars = CHARS_UNKNOWN}, .next = *slot};
    *slot = e;
    return &e->name;
}

bool v_undefined(vm *v, value *out, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t bytes = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    char *why = vm_alloc(v, bytes + 1);
    if (!why) return false;
    memcpy(why, text, bytes);
    *out = (value){.kind = V_UNDEFINED, .why = why};
    return true;
}

/* ---- scopes ----------------------------------------------------------------------------------------------------- */

scope *scope_new(vm *v, scope *parent)
{
    scope *s = vm_alloc(v, sizeof *s);
    if (s) s->parent = parent;
    return s;
}

bool scope_set(vm *v, scope *s, const tstring *name, value x)
{
    for (variable *var = s->variables; var; var = var->next) {
        if (!vm_steps(v, 1)) return false;
        if (var->name != name) continue;
        var->value = x;
        return true;
    }
    variable *var = vm_alloc(v, sizeof *var);
    if (!var) return false;
    *var = (variable){name, x, s->variables};
    s->variables = var;
    return true;
}

bool scope_find(vm *v, const scope *s, const tstring *name, value *out)
{
    for (; s; s = s->parent) {
        for (const variable *var = s->variables; var; var = var->next) {
            if (!vm_steps(v, 1)) return false;
            if (var->name != name || var->value.kind == V_MISSING) continue;
            *out = var->value;
            return true;
        }
    }
    return false;
}

static bool set_attribute(vm *v, const node *target, value x)
{
    value ns;
    if (!scope_find(v, v->scope, target->name, &ns)) ns = (value){0};
    if (v->status != LAMINA_OK) return false;
    if (ns.kind != V_NAMESPACE) return vm_fail(v, "cannot assign attribute on non-namespace object");
    if (target->constant.s->bytes && target->constant.s->data[0] == '_')
        return vm_fail(v, "a namespace cannot hold names that begin with an underscore");
    return dict_set(v, ns.d, target->constant, x);
}

bool assign(vm *v, const node *target, value x)
{
    if (target->kind == N_NAME) return scope_set(v, v->scope, target->name, x);
    if (target->kind == N_NS_TARGET) return set_attribute(v, target, x);
    tlist *l;
    size_t n = 0;
    if (!v_iterate(v, x, &l)) return false;
    for (const node *part = target->list; part; part = part->next) n++;
    if (l->n < n) return vm_fail(v, "not enough values to unpack (expected %zu, got %zu)", n, l->n);
    if (l->n > n) return vm_fail(v, "too many values to unpack (expected %zu)", n);
    n = 0;
    for (const node *part = target->list; part; part = part->next)
        if (!assign(v, part, l->items[n++])) return false;
    return true;
}

/* A body in a scope of its own before `parent`. */
static bool run_inner(vm *v, const node *body, scope *parent)
{
    scope *outer = v->scope;
    v->scope = scope_new(v, parent);
    bool ok = v->scope && run(v, body);
    v->scope = outer;
    return ok;
}

bool run_captured(vm *v, const node *body, value *out)
{
    output o = {0}, *outer = v->out;
    v->out = &o;
    bool ok = run(v, body);
    v->out = outer;
    return ok && out_string(v, &o, out);
}

/* ---- loops ------------------------------------------------------------------------------------------------------ */

/* The next item that passes the filter; V_MISSING: no more. */
static bool loop_pull(vm *v, tloop *l, value *out)
{
    scope *outer = v->scope;
    *out = (value){0};
    while (l->source_at < l->source->n) {
        value x = l->source->items[l->source_at++], test;
        if (!vm_steps(v, 1)) return false;
        if (!l->filtered) {
            *out = x;
            return true;
        }
        v->scope = scope_new(v, l->scope);
        bool ok = v->scope && assign(v, l->node->a, x) && eval(v, l->node->c, &test);
        v->scope = outer;
        if (!ok) return false;
        if (!v_true(test)) continue;
        *out = x;
        return true;
    }
    return true;
}

static bool loop_peek(vm *v, tloop *l, value *out)
{
    if (l->after.kind == V_MISSING && !l->ended) {
        if (!loop_pull(v, l, &l->after)) return false;
        l->ended = l->after.kind == V_MISSING;
    }
    *out = l->after;
    return true;
}

/* The number of items in all: those that are still to come are drawn now. */
static bool loop_count(vm *v, tloop *l, size_t *out)
{
    if (l->filtered) {
        growing g = {0};
        value x;
        do {
            if (!loop_pull(v, l, &x)) return false;
            if (x.kind != V_MISSING && !grow(v, &g, x)) return false;
        } while (x.kind != V_MISSING);
        if (!grown(v, V_LIST, &g, &x)) return false;
        l->source = x.l;
        l->source_at = 0;
        l->filtered = false;
    }
    *out = l->index0 + 1 + (l->after.kind != V_MISSING) + (l->source->n - l->source_at);
    return true;
}

static bool loop_cycle(vm *v, value self, const call_args *args, value *out)
{
    if (!args->n) return vm_fail(v, "no items for cycling given");
    *out = args->items[self.loop->index0 % args->n];
    return true;
}

static bool loop_changed(vm *v, value self, const call_args *args, value *out)
{
    value now;
    bool same = false;
    if (!v_list(v, V_TUPLE, args->n, &now)) return false;
    for (size_t i = 0; i < args->n; i++) now.l->items[i] = args->items[i];
    if (self.loop->has_changed && !v_equal(v, self.loop->changed, now, &same)) return false;
    self.loop->has_changed = true;
    self.loop->changed = now;
    *out = v_bool(!same);
    return true;
}

bool loop_attribute(vm *v, value x, const tstring *name, value *out, bool *found)
{
    static const char *const names[] = {"index", "index0", "first",    "last",     "length", "revindex", "revindex0",
                                        "depth", "depth0", "previtem", "nextitem", "cycle",  "changed"};
    tloop *l = x.loop;
    size_t which = 0, n = 0, count = sizeof names / sizeof *names;
    while (which < count && (strlen(names[which]) != name->bytes || memcmp(names[which], name->data, name->bytes) != 0))
        which++;
    *found = which < count;
    if (which >= 4 && which <= 6 && !loop_count(v, l, &n)) return false;
    value next = {0};
    if ((which == 3 || which == 10) && !loop_peek(v, l, &next)) return false;
    switch (which) {
    case 0:
    case 1:
        *out = v_int((int64_t)l->index0 + (which == 0));
        return true;
    case 2:
        *out = v_bool(l->index0 == 0);
        return true;
    case 3:
        *out = v_bool(next.kind == V_MISSING);
        return true;
    case 4:
        *out = v_int((int64_t)n);
        return true;
    case 5:
    case 6:
        *out = v_int((int64_t)(n - l->index0) - (which == 6));
        return true;
    case 7:
    case 8:
        *out = v_int((int64_t)l->depth0 + (which == 7));
        return true;
    case 9:
        *out = l->before;
        return l->before.kind != V_MISSING || v_undefined(v, out, "there is no previous item");
    case 10:
        *out = next;
        return next.kind != V_MISSING || v_undefined(v, out, "there is no next item");
    case 11:
    case 12: {
        tmethod *method = vm_alloc(v, sizeof *method);
        if (!method) return false;
        *method = (tmethod){x, names[which], which == 11 ? loop_cycle : loop_changed, false};
        *out = (value){.kind = V_METHOD, .method = method};
        return true;
    }
    default:
        return true;
    }
}

/* A fresh scope: that of the iteration before, emptied, unless a macro may still look into it. */
static scope *iteration_scope(vm *v, tloop *l)
{
    if (!l->inner || l->macros != v->macros) return scope_new(v, l->scope);
    for (variable *var = l->inner->variables; var; var = var->next) var->value = (value){0};
    return l->inner;
}

static bool run_iteration(vm *v, tloop *l, value item, bool *complete)
{
    scope *outer = v->scope;
    v->scope = l->inner = iteration_scope(v, l);
    l->macros = v->macros;
    l->before = l->index0 ? l->current : (value){0};
    l->current = item;
    bool ok = v->scope && scope_set(v, v->scope, vm_intern(v, "loop", 4), (value){.kind = V_LOOP, .loop = l}) &&
              assign(v, l->node->a, item) && run(v, l->node->list);
    v->scope = outer;
    if (!v->control) *complete = true;
    return ok;
}

static bool run_loop(vm *v, const node *n, scope *around, value items, size_t depth0)
{
    tloop *l = vm_alloc(v, sizeof *l);
    bool complete = false; /* an iteration came to its end: else, as in Jinja, the other branch runs */
    if (!l) return false;
    *l = (tloop){.node = n, .scope = around, .filtered = n->c != NULL, .depth0 = depth0};
    if (!v_iterate(v, items, &l->source)) return false;
    for (;;) {
        value item = l->after;
        l->after = (value){0};
        if (item.kind == V_MISSING && !loop_pull(v, l, &item)) return false;
        if (item.kind == V_MISSING) break;
        if (!run_iteration(v, l, item, &complete)) return false;
        l->index0++;
        int control = v->control;
        v->control = 0;
        if (control == N_BREAK) break;
    }
    return complete || !n->other || run_inner(v, n->other, around);
}

bool call_loop(vm *v, tloop *l, const call_args *args, value *out)
{
    output o = {0}, *outer = v->out;
    if (!l->node->recursive) return vm_fail(v, "The loop must have the 'recursive' marker to be called recursively.");
    if (args->n != 1) return vm_fail(v, "expected one iterable for the recursive loop");
    scope *outer_scope = v->scope;
    v->out = &o;
    v->scope = l->scope;
    bool ok = run_loop(v, l->node, l->scope, args->items[0], l->depth0 + 1);
    v->scope = outer_scope;
    v->out = outer;
    return ok && out_string(v, &o, out);
}

/* ---- macros ----------------------------------------------------------------------------------------------------- */

/* The named argument, crossed off in taken. */
static bool take_named(const call_args *args, bool *taken, const tstring *name, value *out)
{
    for (size_t i = 0; i < args->n_named; i++) {
        const tstring *s = args->names[i].s;
        if (s->bytes != name->bytes || memcmp(s->data, name->data, s->bytes) != 0) continue;
        taken[i] = true;
        *out = args->named[i];
        return true;
    }
    return false;
}

static bool bind_parameters(vm *v, const node *n, const call_args *args, bool *taken, size_t *count)
{
    *count = 0;
    for (const node *p = n->params; p; p = p->next, ++*count) {
        value x = {0};
        if (*count < args->n)
            x = args->items[*count];
        else if (!take_named(args, taken, p->name, &x) && p->a && !eval(v, p->a, &x))
            return false;
        if (x.kind == V_MISSING &&
            !v_undefined(v, &x, "parameter '%.*s' was not provided", (int)(p->name->bytes & 63), p->name->data))
            return false;
        if (!scope_set(v, v->scope, p->name, x)) return false;
    }
    return true;
}

/* caller, kwargs and varargs: given to a body that names them, else too much. */
static bool bind_rest(vm *v, const tmacro *m, const call_args *args, bool *taken, size_t count)
{
    const node *n = m->node;
    value rest, caller;
    if (n->uses_caller) {
        const tstring *name = vm_intern(v, "caller", 6);
        if (!name) return false;
        if (!take_named(args, taken, name, &caller) && !v_undefined(v, &caller, "No caller defined")) return false;
        if (!scope_set(v, v->scope, name, caller)) return false;
    }
    if (!v_dict(v, &rest)) return false;
    for (size_t i = 0; i < args->n_named; i++) {
        if (taken[i]) continue;
        if (!n->uses_kwargs)
            return vm_fail(v, "macro '%s' takes no keyword argument '%.*s'", m->name,
                           (int)(args->names[i].s->bytes & 63), args->names[i].s->data);
        if (!dict_set(v, rest.d, args->names[i], args->named[i])) return false;
    }
    if (n->uses_kwargs && !scope_set(v, v->scope, vm_intern(v, "kwargs", 6), rest)) return false;
    if (args->n > count && !n->uses_varargs)
        return vm_fail(v, "macro '%s' takes not more than %zu argument(s)", m->name, count);
    if (!n->uses_varargs) return true;
    if (!v_list(v, V_TUPLE, args->n > count ? args->n - count : 0, &rest)) return false;
    for (size_t i = 0; i < rest.l->n; i++) rest.l->items[i] = args->items[count + i];
    return scope_set(v, v->scope, vm_intern(v, "varargs", 7), rest);
}

bool call_macro(vm *v, const tmacro *m, const call_args *args, value *out)
{
    scope *outer = v->scope;
    size_t count;
    bool *taken = vm_alloc(v, args->n_named);
    if (!taken || !vm_enter(v)) return false;
    v->scope = scope_new(v, m->scope);
    bool ok = v->scope && bind_parameters(v, m->node, args, taken, &count) && bind_rest(v, m, args, taken, count) &&
              run_captured(v, m->node->list, out);
    v->scope = outer;
    vm_leave(v);
    return ok;
}

static bool make_macro(vm *v, const node *n, const char *name, value *out)
{
    tmacro *m = vm_alloc(v, sizeof *m);
    if (!m) return false;
    v->macros++;
    *m = (tmacro){n, v->scope, name};
    *out = (value){.kind = V_MACRO, .macro = m};
    return true;
}

static bool run_macro(vm *v, const node *n)
{
    value m, name;
    if (!v_copy(v, n->name->data, n->name->bytes, &name)) return false;
    return make_macro(v, n, name.s->data, &m) && scope_set(v, v->scope, n->name, m);
}

static bool run_call_block(vm *v, const node *n)
{
    value caller, f, x;
    call_args args;
    if (!make_macro(v, n, "caller", &caller)) return false;
    if (!eval(v, n->a->a, &f) || !eval_arguments(v, n->a->list, &caller, &args)) return false;
    return call_value(v, f, &args, &x) && print_str(v, v->out, x);
}

/* ---- statements ------------------------------------------------------------------------------------------------- */

/* The text of a body in a scope of its own, through a chain of filters whose innermost has no input. */
static bool filtered_text(vm *v, const node *filter, const node *body, value *out)
{
    scope *outer = v->scope;
    v->scope = scope_new(v, outer);
    bool ok = v->scope && run_captured(v, body, out);
    v->scope = outer;
    const node *chain[TEMPLATE_MAX_NESTING];
    size_t n = 0;
    for (; ok && filter; filter = filter->a) {
        if (n == TEMPLATE_MAX_NESTING) return vm_fail(v, "more than %d filters in a row", TEMPLATE_MAX_NESTING);
        chain[n++] = filter;
    }
    while (ok && !v->control && n--) {
        const filter_row *row = chain[n]->row;
        call_args args;
        v->line = chain[n]->line;
        if (!row) return vm_fail(v, "No filter named '%.*s'", (int)(chain[n]->name->bytes & 63), chain[n]->name->data);
        value x = *out;
        ok = eval_arguments(v, chain[n]->list, NULL, &args) && row->call(v, x, &args, out);
    }
    return ok;
}

static bool run_with(vm *v, const node *n)
{
    scope *outer = v->scope, *inner = scope_new(v, outer);
    bool ok = inner != NULL;
    for (const node *pair = n->params; ok && pair; pair = pair->next) {
        value x;
        ok = eval(v, pair->b, &x);
        v->scope = inner;
        ok = ok && assign(v, pair->a, x);
        v->scope = outer;
    }
    v->scope = inner;
    ok = ok && run(v, n->list);
    v->scope = outer;
    return ok;
}

static bool run_if(vm *v, const node *n)
{
    for (;; n = n->other) {
        value test;
        if (!eval(v, n->a, &test)) return false;
        if (v_true(test)) return run(v, n->list);
        if (!n->other || !n->other->is_elif) return run(v, n->other);
    }
}

static bool run_one(vm *v, const node *n)
{
    value x;
    switch (n->kind) {
    case N_TEXT:
        return out_bytes(v, v->out, n->constant.s->data, n->constant.s->bytes);
    case N_OUTPUT:
        return eval(v, n->a, &x) && print_str(v, v->out, x);
    case N_FOR:
        return eval(v, n->b, &x) && run_loop(v, n, v->scope, x, 0);
    case N_IF:
        return run_if(v, n);
    case N_SET:
        return eval(v, n->b, &x) && assign(v, n->a, x);
    case N_SET_BLOCK:
        return filtered_text(v, n->b, n->list, &x) && (v->control || assign(v, n->a, x));
    case N_MACRO:
        return run_macro(v, n);
    case N_CALL_BLOCK:
        return run_call_block(v, n);
    case N_FILTER_BLOCK:
        return filtered_text(v, n->a, n->list, &x) && (v->control || print_str(v, v->out, x));
    case N_WITH:
        return run_with(v, n);
    case N_SCOPE:
        return run_inner(v, n->list, v->scope);
    case N_BLOCK:
        return run_inner(v, n->list, v->root);
    case N_BREAK:
    case N_CONTINUE:
        v->control = (int)n->kind;
        return true;
    case N_REFUSED:
        return vm_fail(v, "%.*s: a chat template cannot open other templates", (int)(n->name->bytes & 63),
                       n->name->data);
    default:
        return vm_fail(v, "not a statement");
    }
}

bool run(vm *v, const node *body)
{
    if (!body) return true;
    if (!vm_enter(v)) return false;
    bool ok = true;
    for (const node *n = body; ok && n && !v->control; n = n->next) {
        v->line = n->line;
        ok = vm_steps(v, 1) && run_one(v, n);
    }
    vm_leave(v);
    return ok;
}

/* ---- the entry -------------------------------------------------------------------------------------------------- */

static bool set_variable(vm *v, const char *name, value x)
{
    tstring *interned = vm_intern(v, name, strlen(name));
    return interned && scope_set(v, v->root, interned, x);
}

static bool set_json(vm *v, const char *name, const json_t *json)
{
    value x = v_none();
    return (!json || v_json(v, json, &x)) && set_variable(v, name, x);
}

/* transformers knows three names for a message's reasoning: whichever is given, `thinking` (in front) and
 * `reasoning_content` (the first of them that is not None) are there. */
static bool alias_reasoning(vm *v, value *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    value reasoning = {0}, made, key;
    for (size_t i = 0; i < 3 && (reasoning.kind == V_MISSING || reasoning.kind == V_NONE); i++)
        if (!dict_find(v, message->d, names[i], &reasoning) && v->status != LAMINA_OK) return false;
    if (reasoning.kind == V_MISSING || reasoning.kind == V_NONE) return true;
    if (!v_dict(v, &made) || !v_words(v, "thinking", &key) || !dict_set(v, made.d, key, reasoning)) return false;
    for (size_t i = 0; i < message->d->n; i++)
        if (!dict_set(v, made.d, message->d->entries[i].key, message->d->entries[i].value)) return false;
    if (!v_words(v, "reasoning_content", &key) || !dict_set(v, made.d, key, reasoning)) return false;
    *message = made;
    return true;
}

static bool set_messages(vm *v, const json_t *json)
{
    value messages;
    if (!json_is_array(json)) return vm_fail(v, "messages: expected an array of objects");
    if (!v_json(v, json, &messages)) return false;
    for (size_t i = 0; i < messages.l->n; i++) {
        if (messages.l->items[i].kind != V_DICT) return vm_fail(v, "message %zu: expected an object", i);
        if (!alias_reasoning(v, &messages.l->items[i])) return false;
    }
    return set_variable(v, "messages", messages);
}

static bool check_objects(vm *v, const char *name, const json_t *json)
{
    if (!json) return true;
    if (!json_is_array(json)) return vm_fail(v, "%s: expected an array of objects", name);
    for (size_t i = 0; i < json_array_size(json); i++)
        if (!json_is_object(json_array_get(json, i))) return vm_fail(v, "%s: item %zu is no object", name, i);
    return true;
}

static bool set_up(vm *v)
{
    const template_input *in = v->in;
    value x;
    v->root = v->scope = scope_new(v, NULL);
    if (!v->root) return false;
    for (const function_row *f = functions; f->name; f++)
        if (!set_variable(v, f->name, (value){.kind = V_FUNCTION, .function = f})) return false;
    for (uint32_t i = 0; i < in->n_texts; i++) {
        size_t n = strlen(in->texts[i].name);
        if (n < 6 || strcmp(in->texts[i].name + n - 6, "_token") != 0) continue;
        if (!v_words(v, in->texts[i].text, &x) || !set_variable(v, in->texts[i].name, x)) return false;
    }
    const char *key;
    json_t *member;
    if (in->extra && !json_is_object(in->extra)) return vm_fail(v, "variables: expected an object");
    json_object_foreach((json_t *)(uintptr_t)in->extra, key, member) if (!set_json(v, key, member)) return false;
    return check_objects(v, "tools", in->tools) && check_objects(v, "documents", in->documents) &&
           set_messages(v, in->messages) && set_json(v, "tools", in->tools) &&
           set_json(v, "documents", in->documents) &&
           set_variable(v, "add_generation_prompt", v_bool(in->add_generation_prompt));
}

static bool render(vm *v, output *o)
{
    token *tokens;
    size_t n;
    node *body;
    v->out = o;
    if (v->in->bytes > TEMPLATE_MAX_SOURCE)
        return vm_fail(v, "%zu bytes of template, more than %d", v->in->bytes, TEMPLATE_MAX_SOURCE);
    if (utf8_valid(v->in->source, v->in->bytes) != v->in->bytes) return vm_fail(v, "the template is not UTF-8");
    return lex(v, v->in->source, v->in->bytes, &tokens, &n) && parse(v, tokens, n, &body) && check_names(v, body) &&
           set_up(v) && run(v, body);
}

lamina_status template_render(memory *m, const template_input *in, char **text, size_t *bytes, lamina_error *err)
{
    *text = NULL;
    *bytes = 0;
    vm *v = mem_alloc(m, MEM_OTHER, sizeof *v, err);
    if (!v) return err ? err->status : LAMINA_E_MEMORY;
    *v = (vm){.m = m, .err = err, .in = in};
    v->arena = arena_new(m, MEM_OTHER, err);
    output o = {0};
    lamina_status status = v->arena ? LAMINA_OK : err ? err->status : LAMINA_E_MEMORY;
    if (v->arena && !render(v, &o)) status = v->status;
    if (status == LAMINA_OK) {
        *text = mem_alloc(m, MEM_OTHER, o.bytes + 1, err);
        if (!*text) status = err ? err->status : LAMINA_E_MEMORY;
    }
    if (status == LAMINA_OK) {
        if (o.bytes) memcpy(*text, o.data, o.bytes);
        *bytes = o.bytes;
    }
    arena_free(v->arena);
    mem_free(m, v);
    return status;
}

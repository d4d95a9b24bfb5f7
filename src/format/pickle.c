/* Owns the walk through a pickle (Python's Lib/pickletools.py describes the opcodes; protocols 2 to 5). Promises that
 * nothing is executed, imported or looked up; that every opcode outside of one table is refused by its name; and that
 * time is linear in the pickle's bytes and memory bounded, whatever they are:
 *
 * - an opcode takes from the stack what it stores, so values grow with the bytes read, never with a product of them: a
 *   tuple of tuples is references, and nothing here ever walks into one. Depth costs nothing, because nothing recurses
 * - the memo is an array, whose indexes may not run ahead of the bytes read
 * - all of it (values, stack, memo) is counted, and the count has a limit */
#include "format/pickle.h"

#include <inttypes.h>
#include <string.h>

#include "format/little.h"

enum {
    BUFFER_BYTES = 128 << 10,
    TEXT_LIMIT = 64 << 10,   /* bytes of a string; it passes through the buffer in one piece */
    NAME_LIMIT = 256,        /* bytes of a module's or a class's name */
    BYTES_LIMIT = 256 << 20, /* of one pickle; the largest known directories, 10^5 tensors, have 15 MB */
    MEMORY_LIMIT = 256 << 20 /* bytes; those take 80 MB */
};

struct pickle {
    memory *m;
    arena *values;
    const os_file *file;
    const char *path;
    uint64_t next, end; /* of the file: the first byte behind the buffer, the last */
    unsigned char *buffer;
    size_t used, have;
    uint64_t read;  /* bytes of this pickle */
    uint64_t taken; /* bytes of memory */
    pickle_client client;
    pickle_value *stack, *memo;
    size_t depth, stack_room, memo_n, memo_room;
    bool stopped;
    lamina_error *err;
};

static lamina_status memory_status(const lamina_error *err)
{
    return err ? err->status : LAMINA_E_MEMORY;
}

const char *pickle_kind_name(pickle_kind kind)
{
    static const char *const names[] = {"a mark",   "None",         "a boolean", "an integer", "a long integer",
                                        "a number", "a string",     "bytes",     "a tuple",    "a list",
                                        "a dict",   "a class name", "an object"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "nothing";
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

lamina_status pickle_count(pickle *p, size_t bytes, lamina_error *err)
{
    size_t whole = bytes / 16 * 16 + 16; /* the arena's rounding */
    if (bytes > MEMORY_LIMIT || whole > MEMORY_LIMIT - p->taken)
        return error_set(err, LAMINA_E_FORMAT, "takes more than %d MiB to be read", MEMORY_LIMIT >> 20);
    p->taken += whole;
    return LAMINA_OK;
}

void *pickle_take(pickle *p, size_t bytes, lamina_error *err)
{
    return pickle_count(p, bytes, err) == LAMINA_OK ? arena_alloc(p->values, bytes, err) : NULL;
}

lamina_status pickle_push_item(pickle *p, pickle_list *list, const pickle_value *v, lamina_error *err)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 8;
        pickle_value *grown = pickle_take(p, room * sizeof *grown, err);
        if (!grown) return memory_status(err);
        if (list->n) memcpy(grown, list->items, list->n * sizeof *grown);
        list->items = grown;
        list->room = room;
    }
    list->items[list->n++] = *v;
    return LAMINA_OK;
}

/* Makes room for at least `n` values in *table. */
static lamina_status reserve(pickle *p, pickle_value **table, size_t *room, size_t n)
{
    if (n <= *room) return LAMINA_OK;
    size_t grown_room = *room ? *room : 64;
    while (grown_room < n) grown_room *= 2;
    TRY(pickle_count(p, (grown_room - *room) * sizeof **table, p->err));
    pickle_value *grown = mem_resize(p->m, MEM_OTHER, *table, grown_room * sizeof *grown, p->err);
    if (!grown) return memory_status(p->err);
    *table = grown;
    *room = grown_room;
    return LAMINA_OK;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

uint64_t pickle_at(const pickle *p)
{
    return p->next - (p->have - p->used);
}

/* The next n <= BUFFER_BYTES bytes, in place until the next call. */
static lamina_status get_bytes(pickle *p, size_t n, const unsigned char **out)
{
    size_t rest = p->have - p->used;
    if (rest < n) {
        uint64_t left = p->end - p->next;
        size_t more = BUFFER_BYTES - rest;
        if (more > left) more = (size_t)left;
        if (rest + more < n) return error_set(p->err, LAMINA_E_FORMAT, "ends in the middle (is the file cut short?)");
        if (rest) memmove(p->buffer, p->buffer + p->used, rest);
        p->used = 0;
        p->have = rest;
        TRY(os_read_at(p->file, p->path, p->next, p->buffer + rest, more, p->err));
        p->have += more;
        p->next += more;
    }
    *out = p->buffer + p->used;
    p->used += n;
    p->read += n;
    return LAMINA_OK;
}

static lamina_status get_number(pickle *p, unsigned width, uint64_t *v)
{
    const unsigned char *raw;
    TRY(get_bytes(p, width, &raw));
    *v = little_number(raw, width);
    return LAMINA_OK;
}

/* A length of `width` bytes and so many bytes, copied. */
static lamina_status get_counted(pickle *p, unsigned width, pickle_value *v)
{
    uint64_t n;
    const unsigned char *raw;
    TRY(get_number(p, width, &n));
    if (n > TEXT_LIMIT)
        return error_set(p->err, LAMINA_E_FORMAT, "%" PRIu64 " bytes: expected at most %d", n, TEXT_LIMIT);
    TRY(get_bytes(p, (size_t)n, &raw));
    char *copy = pickle_take(p, (size_t)n + 1, p->err);
    if (!copy) return memory_status(p->err);
    memcpy(copy, raw, (size_t)n);
    v->n = (uint32_t)n;
    v->text = copy;
    return LAMINA_OK;
}

/* A line without its end. */
static lamina_status get_line(pickle *p, char line[NAME_LIMIT + 1])
{
    const unsigned char *c;
    for (size_t n = 0; n <= NAME_LIMIT; n++) {
        TRY(get_bytes(p, 1, &c));
        line[n] = *c == '\n' ? '\0' : (char)*c;
        if (*c == '\0') return error_set(p->err, LAMINA_E_FORMAT, "a zero byte in a name");
        if (*c == '\n') return LAMINA_OK;
    }
    return error_set(p->err, LAMINA_E_FORMAT, "a name of more than %d bytes", NAME_LIMIT);
}

/* ---- the stack -------------------------------------------------------------------------------------------------- */

static lamina_status push(pickle *p, pickle_value v)
{
    TRY(reserve(p, &p->stack, &p->stack_room, p->depth + 1));
    p->stack[p->depth++] = v;
    return LAMINA_OK;
}

/* The value on top, below which nothing is looked at. */
static lamina_status top(pickle *p, pickle_value **v)
{
    *v = NULL;
    if (p->depth == 0 || p->stack[p->depth - 1].kind == PICKLE_MARK)
        return error_set(p->err, LAMINA_E_FORMAT, "expected a value on the stack, found %s",
                         p->depth ? "a mark" : "none");
    *v = &p->stack[p->depth - 1];
    return LAMINA_OK;
}

static lamina_status pop(pickle *p, pickle_value *v)
{
    pickle_value *at;
    TRY(top(p, &at));
    *v = *at;
    p->depth--;
    return LAMINA_OK;
}

static lamina_status top_of(pickle *p, pickle_kind kind, pickle_value **v)
{
    TRY(top(p, v));
    if ((*v)->kind != kind)
        return error_set(p->err, LAMINA_E_FORMAT, "expected %s on the stack, found %s", pickle_kind_name(kind),
                         pickle_kind_name((*v)->kind));
    return LAMINA_OK;
}

static lamina_status pop_of(pickle *p, pickle_kind kind, pickle_value *v)
{
    pickle_value *at;
    TRY(top_of(p, kind, &at));
    *v = *at;
    p->depth--;
    return LAMINA_OK;
}

/* Takes the topmost mark and all above it off the stack; the values stand at *items until the next push. */
static lamina_status pop_to_mark(pickle *p, pickle_value **items, size_t *n)
{
    size_t at = p->depth;
    while (at > 0 && p->stack[at - 1].kind != PICKLE_MARK) at--;
    if (at == 0) return error_set(p->err, LAMINA_E_FORMAT, "no mark on the stack");
    *items = p->stack + at;
    *n = p->depth - at;
    p->depth = at - 1;
    return LAMINA_OK;
}

/* ---- opcodes ---------------------------------------------------------------------------------------------------- */

static lamina_status op_protocol(pickle *p, unsigned width)
{
    uint64_t version;
    TRY(get_number(p, width, &version));
    if (version < 2 || version > 5)
        return error_set(p->err, LAMINA_E_UNSUPPORTED, "protocol %" PRIu64 ": expected 2 to 5", version);
    return LAMINA_OK;
}

static lamina_status op_frame(pickle *p, unsigned width) /* a hint to readers of streams */
{
    uint64_t bytes;
    return get_number(p, width, &bytes);
}

static lamina_status op_stop(pickle *p, unsigned unused)
{
    (void)unused;
    p->stopped = true;
    return LAMINA_OK;
}

static lamina_status op_constant(pickle *p, unsigned kind)
{
    return push(p, (pickle_value){.kind = (pickle_kind)kind});
}

static lamina_status op_bool(pickle *p, unsigned value)
{
    return push(p, (pickle_value){.kind = PICKLE_BOOL, .number = value});
}

static lamina_status op_integer(pickle *p, unsigned width) /* of 4 bytes: signed */
{
    uint64_t v;
    TRY(get_number(p, width, &v));
    return push(p, (pickle_value){.kind = PICKLE_INT, .number = width == 4 ? (int32_t)(uint32_t)v : (int64_t)v});
}

static lamina_status op_long(pickle *p, unsigned width)
{
    pickle_value v = {.kind = PICKLE_LONG};
    TRY(get_counted(p, width, &v));
    if (v.n > 8) return push(p, v);
    uint64_t bits = little_number(v.text, v.n);
    bool negative = v.n && (unsigned char)v.text[v.n - 1] >= 0x80;
    if (negative && v.n < 8) bits |= UINT64_MAX << (8 * v.n);
    int64_t number;
    memcpy(&number, &bits, sizeof number);
    return push(p, (pickle_value){.kind = PICKLE_INT, .number = number});
}

static lamina_status op_float(pickle *p, unsigned width)
{
    const unsigned char *raw;
    TRY(get_bytes(p, width, &raw));
    return push(p, (pickle_value){.kind = PICKLE_FLOAT});
}

static lamina_status op_text(pickle *p, unsigned width)
{
    pickle_value v = {.kind = PICKLE_TEXT};
    TRY(get_counted(p, width, &v));
    return push(p, v);
}

static lamina_status op_bytes(pickle *p, unsigned width)
{
    pickle_value v = {.kind = PICKLE_BYTES};
    TRY(get_counted(p, width, &v));
    return push(p, v);
}

static lamina_status push_tuple(pickle *p, const pickle_value *items, size_t n)
{
    if (n > UINT32_MAX) return error_set(p->err, LAMINA_E_FORMAT, "a tuple of %zu items", n);
    pickle_value *copy = pickle_take(p, n * sizeof *copy, p->err);
    if (!copy) return memory_status(p->err);
    if (n) memcpy(copy, items, n * sizeof *copy);
    return push(p, (pickle_value){.kind = PICKLE_TUPLE, .n = (uint32_t)n, .items = copy});
}

static lamina_status op_tuple(pickle *p, unsigned n)
{
    pickle_value items[3];
    for (unsigned i = n; i-- > 0;) TRY(pop(p, &items[i]));
    return push_tuple(p, items, n);
}

static lamina_status op_tuple_to_mark(pickle *p, unsigned unused)
{
    (void)unused;
    pickle_value *items;
    size_t n;
    TRY(pop_to_mark(p, &items, &n));
    return push_tuple(p, items, n);
}

static lamina_status op_container(pickle *p, unsigned kind)
{
    pickle_value v = {.kind = (pickle_kind)kind, .list = pickle_take(p, sizeof *v.list, p->err)};
    return v.list ? push(p, v) : memory_status(p->err);
}

/* Puts one value into the list, or a key and a value into the dict, below it. */
static lamina_status op_put_one(pickle *p, unsigned kind)
{
    pickle_value v, key, *into;
    TRY(pop(p, &v));
    if (kind == PICKLE_DICT) TRY(pop(p, &key));
    TRY(top_of(p, (pickle_kind)kind, &into));
    if (kind == PICKLE_DICT) TRY(pickle_push_item(p, into->list, &key, p->err));
    return pickle_push_item(p, into->list, &v, p->err);
}

/* The same for all above the mark. */
static lamina_status op_put_all(pickle *p, unsigned kind)
{
    pickle_value *items, *into;
    size_t n;
    TRY(pop_to_mark(p, &items, &n));
    TRY(top_of(p, (pickle_kind)kind, &into));
    if (kind == PICKLE_DICT && n % 2)
        return error_set(p->err, LAMINA_E_FORMAT, "a key without a value among %zu items", n);
    for (size_t i = 0; i < n; i++) TRY(pickle_push_item(p, into->list, &items[i], p->err));
    return LAMINA_OK;
}

static lamina_status remember(pickle *p, uint64_t index)
{
    pickle_value *v;
    TRY(top(p, &v));
    if (index >= p->read)
        return error_set(p->err, LAMINA_E_FORMAT, "memo %" PRIu64 " after %" PRIu64 " bytes", index, p->read);
    TRY(reserve(p, &p->memo, &p->memo_room, (size_t)index + 1));
    if (index >= p->memo_n) p->memo_n = (size_t)index + 1;
    p->memo[index] = *v;
    return LAMINA_OK;
}

static lamina_status op_put_memo(pickle *p, unsigned width)
{
    uint64_t index;
    TRY(get_number(p, width, &index));
    return remember(p, index);
}

static lamina_status op_memoize(pickle *p, unsigned unused)
{
    (void)unused;
    return remember(p, p->memo_n);
}

static lamina_status op_get_memo(pickle *p, unsigned width)
{
    uint64_t index;
    TRY(get_number(p, width, &index));
    if (index >= p->memo_n || p->memo[index].kind == PICKLE_MARK)
        return error_set(p->err, LAMINA_E_FORMAT, "nothing was put into memo %" PRIu64, index);
    return push(p, p->memo[index]);
}

static lamina_status push_name(pickle *p, const char *module, const char *name)
{
    pickle_value v = {.kind = PICKLE_NAME};
    TRY(p->client.name(p->client.user, module, name, &v.n, p->err));
    return push(p, v);
}

static lamina_status op_global(pickle *p, unsigned unused)
{
    (void)unused;
    char module[NAME_LIMIT + 1], name[NAME_LIMIT + 1];
    TRY(get_line(p, module));
    TRY(get_line(p, name));
    return push_name(p, module, name);
}

static lamina_status op_stack_global(pickle *p, unsigned unused)
{
    (void)unused;
    pickle_value module, name;
    TRY(pop_of(p, PICKLE_TEXT, &name));
    TRY(pop_of(p, PICKLE_TEXT, &module));
    if (strlen(module.text) != module.n || strlen(name.text) != name.n)
        return error_set(p->err, LAMINA_E_FORMAT, "a zero byte in a name");
    return push_name(p, module.text, name.text);
}

static lamina_status op_call(pickle *p, unsigned unused)
{
    (void)unused;
    pickle_value arguments, callee, out = {0};
    TRY(pop_of(p, PICKLE_TUPLE, &arguments));
    TRY(pop_of(p, PICKLE_NAME, &callee));
    TRY(p->client.call(p->client.user, p, &callee, &arguments, &out, p->err));
    return push(p, out);
}

static lamina_status op_build(pickle *p, unsigned unused)
{
    (void)unused;
    pickle_value state, *object;
    TRY(pop(p, &state));
    TRY(top(p, &object));
    return p->client.set_state(p->client.user, object, &state, p->err);
}

static lamina_status op_persistent(pickle *p, unsigned unused)
{
    (void)unused;
    pickle_value id, out = {0};
    TRY(pop(p, &id));
    TRY(p->client.persistent(p->client.user, p, &id, &out, p->err));
    return push(p, out);
}

static lamina_status op_mark(pickle *p, unsigned unused)
{
    (void)unused;
    return push(p, (pickle_value){.kind = PICKLE_MARK});
}

/* What torch.save() writes. The rest of the language is known by name, so that a refusal can say it. */
static const struct opcode {
    const char *name;
    lamina_status (*run)(pickle *p, unsigned argument); /* NULL: refused */
    unsigned argument;
} opcodes[256] = {
    [0x80] = {"PROTO", op_protocol, 1},
    [0x95] = {"FRAME", op_frame, 8},
    ['.'] = {"STOP", op_stop, 0},
    ['N'] = {"NONE", op_constant, PICKLE_NONE},
    [0x88] = {"NEWTRUE", op_bool, true},
    [0x89] = {"NEWFALSE", op_bool, false},
    ['K'] = {"BININT1", op_integer, 1},
    ['M'] = {"BININT2", op_integer, 2},
    ['J'] = {"BININT", op_integer, 4},
    [0x8a] = {"LONG1", op_long, 1},
    [0x8b] = {"LONG4", op_long, 4},
    ['G'] = {"BINFLOAT", op_float, 8},
    ['U'] = {"SHORT_BINSTRING", op_text, 1},
    ['T'] = {"BINSTRING", op_text, 4},
    [0x8c] = {"SHORT_BINUNICODE", op_text, 1},
    ['X'] = {"BINUNICODE", op_text, 4},
    [0x8d] = {"BINUNICODE8", op_text, 8},
    ['C'] = {"SHORT_BINBYTES", op_bytes, 1},
    ['B'] = {"BINBYTES", op_bytes, 4},
    [')'] = {"EMPTY_TUPLE", op_tuple, 0},
    [0x85] = {"TUPLE1", op_tuple, 1},
    [0x86] = {"TUPLE2", op_tuple, 2},
    [0x87] = {"TUPLE3", op_tuple, 3},
    ['t'] = {"TUPLE", op_tuple_to_mark, 0},
    [']'] = {"EMPTY_LIST", op_container, PICKLE_LIST},
    ['a'] = {"APPEND", op_put_one, PICKLE_LIST},
    ['e'] = {"APPENDS", op_put_all, PICKLE_LIST},
    ['}'] = {"EMPTY_DICT", op_container, PICKLE_DICT},
    ['s'] = {"SETITEM", op_put_one, PICKLE_DICT},
    ['u'] = {"SETITEMS", op_put_all, PICKLE_DICT},
    ['q'] = {"BINPUT", op_put_memo, 1},
    ['r'] = {"LONG_BINPUT", op_put_memo, 4},
    [0x94] = {"MEMOIZE", op_memoize, 0},
    ['h'] = {"BINGET", op_get_memo, 1},
    ['j'] = {"LONG_BINGET", op_get_memo, 4},
    ['('] = {"MARK", op_mark, 0},
    ['c'] = {"GLOBAL", op_global, 0},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0},
    ['R'] = {"REDUCE", op_call, 0},
    [0x81] = {"NEWOBJ", op_call, 0},
    ['b'] = {"BUILD", op_build, 0},
    ['Q'] = {"BINPERSID", op_persistent, 0},

    ['0'] = {"POP", NULL, 0},
    ['1'] = {"POP_MARK", NULL, 0},
    ['2'] = {"DUP", NULL, 0},
    ['F'] = {"FLOAT", NULL, 0},
    ['I'] = {"INT", NULL, 0},
    ['L'] = {"LONG", NULL, 0},
    ['P'] = {"PERSID", NULL, 0},
    ['S'] = {"STRING", NULL, 0},
    ['V'] = {"UNICODE", NULL, 0},
    ['d'] = {"DICT", NULL, 0},
    ['g'] = {"GET", NULL, 0},
    ['i'] = {"INST", NULL, 0},
    ['l'] = {"LIST", NULL, 0},
    ['o'] = {"OBJ", NULL, 0},
    ['p'] = {"PUT", NULL, 0},
    [0x82] = {"EXT1", NULL, 0},
    [0x83] = {"EXT2", NULL, 0},
    [0x84] = {"EXT4", NULL, 0},
    [0x8e] = {"BINBYTES8", NULL, 0},
    [0x8f] = {"EMPTY_SET", NULL, 0},
    [0x90] = {"ADDITEMS", NULL, 0},
    [0x91] = {"FROZENSET", NULL, 0},
    [0x92] = {"NEWOBJ_EX", NULL, 0},
    [0x96] = {"BYTEARRAY8", NULL, 0},
    [0x97] = {"NEXT_BUFFER", NULL, 0},
    [0x98] = {"READONLY_BUFFER", NULL, 0},
};

/* ---- a pickle --------------------------------------------------------------------------------------------------- */

lamina_status pickle_new(memory *m, const os_file *file, const char *path, uint64_t begin, uint64_t end,
                         const pickle_client *client, pickle **out, lamina_error *err)
{
    *out = NULL;
    pickle *p = mem_alloc(m, MEM_OTHER, sizeof *p, err);
    if (!p) return memory_status(err);
    *p = (pickle){.m = m, .file = file, .path = path, .next = begin, .end = end, .client = *client};
    p->values = arena_new(m, MEM_OTHER, err);
    if (p->values) p->buffer = mem_alloc(m, MEM_OTHER, BUFFER_BYTES, err);
    if (!p->buffer) {
        pickle_free(p);
        return memory_status(err);
    }
    *out = p;
    return LAMINA_OK;
}

void pickle_free(pickle *p)
{
    if (!p) return;
    mem_free(p->m, p->stack);
    mem_free(p->m, p->memo);
    mem_free(p->m, p->buffer);
    arena_free(p->values);
    mem_free(p->m, p);
}

static lamina_status run_one(pickle *p, const char **name)
{
    const unsigned char *code;
    *name = "opcode";
    TRY(get_bytes(p, 1, &code));
    const struct opcode *o = &opcodes[*code];
    if (p->read == 1 && *code != 0x80)
        return error_set(p->err, LAMINA_E_FORMAT, "begins with the byte 0x%02x: expected a protocol of 2 or more",
                         *code);
    if (p->read > BYTES_LIMIT) return error_set(p->err, LAMINA_E_FORMAT, "more than %d MiB", BYTES_LIMIT >> 20);
    if (!o->name) return error_set(p->err, LAMINA_E_FORMAT, "0x%02x is none", *code);
    *name = o->name;
    if (!o->run) return error_set(p->err, LAMINA_E_UNSUPPORTED, "not a part of a state dict");
    return o->run(p, o->argument);
}

lamina_status pickle_load(pickle *p, pickle_value *out, lamina_error *err)
{
    p->err = err;
    p->read = p->depth = p->memo_n = 0;
    p->stopped = false;
    if (p->memo) memset(p->memo, 0, p->memo_room * sizeof *p->memo);
    lamina_status status = LAMINA_OK;
    const char *name = "";
    uint64_t at = 0;
    while (status == LAMINA_OK && !p->stopped) {
        at = pickle_at(p);
        status = run_one(p, &name);
    }
    if (status == LAMINA_OK) status = pop(p, out);
    if (status == LAMINA_E_FORMAT || status == LAMINA_E_UNSUPPORTED)
        error_prefix(err, status, "%s: pickle, byte %" PRIu64 ": %s", p->path, at, name);
    return status;
}

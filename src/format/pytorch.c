/* Owns what a PyTorch checkpoint means: which names its pickle may hold and what becomes of a call to each, where the
 * storages lie, and which bytes of them a tensor is. Promises that a name which is not in the table below ends the
 * reading, spelt out; that a tensor is a run of bytes inside a storage that lies inside the file, or is refused; and
 * that storages do not overlap, so that two tensors share bytes only when they share a storage, as PyTorch allows.
 *
 * The formats are those of torch/serialization.py: the zip has ARCHIVE/data.pkl, and ARCHIVE/data/KEY for each storage;
 * the older form is five pickles (magic number, version, system, state dict, keys of the storages), then for each key 8
 * bytes with the number of elements, and the elements. */
#include "format/pytorch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "format/little.h"
#include "format/pickle.h"
#include "format/tokenizer_unicode.h"
#include "format/zip.h"

enum {
    DIMS_LIMIT = 64,
    NAME_LIMIT = 1024,    /* bytes of a tensor's name */
    KEY_LIMIT = 64,       /* bytes of a storage's key: a number in decimal */
    NEWEST_VERSION = 10,  /* of the zip form */
    LEGACY_VERSION = 1001 /* of the older form */
};

/* ---- names ------------------------------------------------------------------------------------------------------ */

typedef enum meaning {
    ORDERED_DICT,
    REBUILD_TENSOR, /* storage, offset, size, stride, ... */
    REBUILD_TYPED,  /* the same, and the type of the elements */
    REBUILD_PARAMETER,
    SIZE,
    STORAGE,
    TYPE
} meaning;

typedef struct known {
    const char *module, *name;
    meaning is;
    dtype type;    /* STORAGE, TYPE: of the elements */
    uint8_t width; /* bytes of one */
} known;

static const known names[] = {
    {"collections", "OrderedDict", ORDERED_DICT, DT_OTHER, 0},
    {"torch._utils", "_rebuild_tensor", REBUILD_TENSOR, DT_OTHER, 0},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, DT_OTHER, 0},
    {"torch._utils", "_rebuild_tensor_v3", REBUILD_TYPED, DT_OTHER, 0},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, DT_OTHER, 0},
    {"torch", "Size", SIZE, DT_OTHER, 0},
    {"torch", "FloatStorage", STORAGE, DT_F32, 4},
    {"torch", "HalfStorage", STORAGE, DT_F16, 2},
    {"torch", "BFloat16Storage", STORAGE, DT_BF16, 2},
    {"torch", "DoubleStorage", STORAGE, DT_F64, 8},
    {"torch", "LongStorage", STORAGE, DT_I64, 8},
    {"torch", "IntStorage", STORAGE, DT_I32, 4},
    {"torch", "ShortStorage", STORAGE, DT_I16, 2},
    {"torch", "CharStorage", STORAGE, DT_I8, 1},
    {"torch", "ByteStorage", STORAGE, DT_U8, 1},
    {"torch", "BoolStorage", STORAGE, DT_BOOL, 1},
    {"torch", "ComplexFloatStorage", STORAGE, DT_OTHER, 8},
    {"torch", "ComplexDoubleStorage", STORAGE, DT_OTHER, 16},
    {"torch.storage", "UntypedStorage", STORAGE, DT_U8, 1},
    {"torch", "uint16", TYPE, DT_U16, 2},
    {"torch", "uint32", TYPE, DT_U32, 4},
    {"torch", "uint64", TYPE, DT_U64, 8},
    {"torch", "float8_e4m3fn", TYPE, DT_F8_E4M3, 1},
    {"torch", "float8_e5m2", TYPE, DT_F8_E5M2, 1},
    {"torch", "float8_e8m0fnu", TYPE, DT_OTHER, 1},
};
enum { N_NAMES = sizeof names / sizeof *names };

/* ---- what the pickle makes -------------------------------------------------------------------------------------- */

enum { A_STORAGE, A_TENSOR }; /* kinds of PICKLE_OBJECT */

typedef struct storage {
    struct storage *before; /* in the file's list of all */
    const char *key;
    const known *type;
    uint64_t bytes;
} storage;

typedef struct stored_tensor {
    const storage *of;
    const known *type;
    int64_t first;                     /* element of the storage */
    const pickle_value *size, *stride; /* [n_dims] integers, in elements */
    uint32_t n_dims;
} stored_tensor;

typedef struct place { /* of a storage in the file */
    const char *key;
    uint64_t offset, bytes;
} place;

typedef struct reading {
    checkpoint *c;
    const os_file *file;
    const char *path;
    uint64_t size;  /* of the file */
    uint32_t index; /* of the file in c */
    storage *last;  /* of the list */
    size_t n_storages;
    place *places; /* [n_places] by key */
    size_t n_places;
} reading;

static lamina_status memory_status(const lamina_error *err)
{
    return err ? err->status : LAMINA_E_MEMORY;
}

static bool is_object(const pickle_value *v, uint32_t kind)
{
    return v->kind == PICKLE_OBJECT && v->n == kind;
}

static lamina_status find_name(void *user, const char *module, const char *name, uint32_t *number, lamina_error *err)
{
    (void)user;
    for (uint32_t i = 0; i < N_NAMES; i++) {
        if (strcmp(names[i].module, module) != 0 || strcmp(names[i].name, name) != 0) continue;
        *number = i;
        return LAMINA_OK;
    }
    return error_set(err, LAMINA_E_UNSUPPORTED, "names %s.%s, which is not a part of a state dict", module, name);
}

/* ('storage', class, key, location, elements); older files add None for a view of another storage. */
static lamina_status make_storage(void *user, pickle *p, const pickle_value *id, pickle_value *out, lamina_error *err)
{
    reading *r = user;
    const pickle_value *v = id->items;
    bool right = id->kind == PICKLE_TUPLE && (id->n == 5 || (id->n == 6 && v[5].kind == PICKLE_NONE)) &&
                 v[0].kind == PICKLE_TEXT && strcmp(v[0].text, "storage") == 0 && v[1].kind == PICKLE_NAME &&
                 names[v[1].n].is == STORAGE && v[2].kind == PICKLE_TEXT && v[2].n <= KEY_LIMIT &&
                 strlen(v[2].text) == v[2].n && v[4].kind == PICKLE_INT && v[4].number >= 0;
    if (!right)
        return error_set(err, LAMINA_E_FORMAT,
                         "expected ('storage', class, key, location, number of elements), found another persistent id");
    const known *type = &names[v[1].n];
    uint64_t n = (uint64_t)v[4].number;
    if (n > UINT64_MAX / type->width)
        return error_set(err, LAMINA_E_FORMAT, "storage %s: %" PRIu64 " elements: more than 64 bits of bytes",
                         v[2].text, n);
    storage *s = pickle_take(p, sizeof *s, err);
    if (!s) return memory_status(err);
    *s = (storage){.before = r->last, .key = v[2].text, .type = type, .bytes = n * type->width};
    r->last = s;
    r->n_storages++;
    *out = (pickle_value){.kind = PICKLE_OBJECT, .n = A_STORAGE, .object = s};
    return LAMINA_OK;
}

/* A tuple of integers, at most DIMS_LIMIT. */
static bool is_integers(const pickle_value *v)
{
    if (v->kind != PICKLE_TUPLE || v->n > DIMS_LIMIT) return false;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->items[i].kind != PICKLE_INT) return false;
    return true;
}

/* Arguments: storage, offset, size, stride[, requires_grad, hooks[, type][, metadata]]. */
static lamina_status make_tensor(pickle *p, const known *callee, const pickle_value *arguments, pickle_value *out,
                                 lamina_error *err)
{
    const pickle_value *v = arguments->items;
    bool typed = callee->is == REBUILD_TYPED;
    uint32_t n = arguments->n, most = typed ? 8 : 7;
    bool right = n >= (typed ? 7u : 4u) && n <= most && is_object(&v[0], A_STORAGE) && v[1].kind == PICKLE_INT &&
                 is_integers(&v[2]) && is_integers(&v[3]) && v[2].n == v[3].n;
    if (right && typed) right = v[6].kind == PICKLE_NAME && names[v[6].n].is == TYPE;
    if (!right)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s.%s: expected a storage, an offset, a size and as many strides (at most %d)%s",
                         callee->module, callee->name, DIMS_LIMIT, typed ? ", a type" : "");
    bool plain =
        n < most || v[most - 1].kind == PICKLE_NONE || (v[most - 1].kind == PICKLE_DICT && v[most - 1].list->n == 0);
    if (!plain)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s.%s: a tensor that is conjugated or negated when it is read: save it as resolve_conj() and "
                         "resolve_neg() give it",
                         callee->module, callee->name);
    stored_tensor *t = pickle_take(p, sizeof *t, err);
    if (!t) return memory_status(err);
    *t = (stored_tensor){.of = v[0].object, .first = v[1].number, .size = v[2].items, .stride = v[3].items};
    t->n_dims = v[2].n;
    t->type = typed ? &names[v[6].n] : t->of->type;
    *out = (pickle_value){.kind = PICKLE_OBJECT, .n = A_TENSOR, .object = t};
    return LAMINA_OK;
}

static lamina_status make(void *user, pickle *p, const pickle_value *callee, const pickle_value *arguments,
                          pickle_value *out, lamina_error *err)
{
    (void)user;
    const known *k = &names[callee->n];
    const pickle_value *first = arguments->items;
    switch (k->is) {
    case ORDERED_DICT: /* empty: what is in it follows */
        if (arguments->n != 0) break;
        *out = (pickle_value){.kind = PICKLE_DICT, .list = pickle_take(p, sizeof *out->list, err)};
        return out->list ? LAMINA_OK : memory_status(err);
    case REBUILD_TENSOR:
    case REBUILD_TYPED:
        return make_tensor(p, k, arguments, out, err);
    case REBUILD_PARAMETER: /* tensor, requires_grad, hooks */
        if (arguments->n != 3 || !is_object(first, A_TENSOR)) break;
        *out = *first;
        return LAMINA_OK;
    case SIZE:
        if (arguments->n != 1 || first->kind != PICKLE_TUPLE) break;
        *out = *first;
        return LAMINA_OK;
    case STORAGE:
    case TYPE:
        return error_set(err, LAMINA_E_UNSUPPORTED, "calls %s.%s, which no state dict does", k->module, k->name);
    }
    return error_set(err, LAMINA_E_FORMAT, "%s.%s: called with other arguments than expected", k->module, k->name);
}

/* A module's state dict carries the versions of its parts as an attribute, "_metadata", which says nothing of weights.
 * Anything else that hangs on a dict would be lost. */
static lamina_status set_state(void *user, const pickle_value *object, const pickle_value *state, lamina_error *err)
{
    (void)user;
    bool right = object->kind == PICKLE_DICT && state->kind == PICKLE_DICT && state->list->n <= 2;
    const pickle_value *key = right && state->list->n ? state->list->items : NULL;
    if (key) right = key->kind == PICKLE_TEXT && strcmp(key->text, "_metadata") == 0;
    return right ? LAMINA_OK
                 : error_set(err, LAMINA_E_UNSUPPORTED, "attributes of %s: expected only \"_metadata\" of a dict",
                             pickle_kind_name(object->kind));
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const place *)a)->key, ((const place *)b)->key);
}

/* Writes "(a, b, ...)". */
static void show(const pickle_value *v, uint32_t n, char *text, size_t bytes)
{
    size_t at = (size_t)snprintf(text, bytes, "(");
    for (uint32_t i = 0; i < n && at < bytes; i++)
        at += (size_t)snprintf(text + at, bytes - at, "%s%" PRId64, i ? ", " : "", v[i].number);
    if (at < bytes) snprintf(text + at, bytes - at, ")");
}

/* Elements of the tensor, whose rows must follow one another. */
static lamina_status count_elements(const reading *r, const char *name, const stored_tensor *s,
                                    uint64_t dims[DIMS_LIMIT], uint64_t *n, lamina_error *err)
{
    bool empty = false, in_order = true;
    for (uint32_t i = 0; i < s->n_dims; i++) {
        if (s->size[i].number < 0)
            return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: a dimension of %" PRId64, r->path, name,
                             s->size[i].number);
        dims[i] = (uint64_t)s->size[i].number;
        empty = empty || dims[i] == 0;
    }
    *n = empty ? 0 : 1;
    for (uint32_t i = s->n_dims; i-- > 0 && !empty;) {
        in_order = in_order && (dims[i] == 1 || (s->stride[i].number >= 0 && (uint64_t)s->stride[i].number == *n));
        if (*n > UINT64_MAX / dims[i])
            return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: more than 64 bits of elements", r->path, name);
        *n *= dims[i];
    }
    if (in_order) return LAMINA_OK;
    char size[96], stride[96];
    show(s->size, s->n_dims, size, sizeof size);
    show(s->stride, s->n_dims, stride, sizeof stride);
    return error_set(err, LAMINA_E_UNSUPPORTED,
                     "%s: tensor %s: of shape %s with strides %s, whose rows do not follow one another: save it as "
                     "contiguous() gives it",
                     r->path, name, size, stride);
}

static lamina_status add_tensor(const reading *r, const char *name, const stored_tensor *s, lamina_error *err)
{
    uint64_t dims[DIMS_LIMIT], n = 0, width = s->type->width;
    TRY(count_elements(r, name, s, dims, &n, err));
    const storage *of = s->of;
    place key = {.key = of->key};
    const place *at = r->n_places ? bsearch(&key, r->places, r->n_places, sizeof *r->places, by_key) : NULL;
    if (!at)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: there is no storage %s (is the file cut short?)",
                         r->path, name, of->key);
    if (at->bytes != of->bytes)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: storage %s: expected %" PRIu64 " bytes, found %" PRIu64,
                         r->path, name, of->key, of->bytes, at->bytes);
    uint64_t room = of->bytes / width, first = (uint64_t)s->first;
    if (s->first < 0 || first > room || n > room - first)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: %" PRIu64 " elements from element %" PRId64
                         " on do not lie inside storage %s of %" PRIu64,
                         r->path, name, n, s->first, of->key, room);
    tensor t = {.name = name,
                .type = s->type->type,
                .foreign_name = s->type->type == DT_OTHER ? s->type->name : NULL,
                .file = r->index,
                .offset = at->offset + first * width,
                .bytes = n * width};
    if (!tensor_set_shape(&t, dims, s->n_dims))
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: more than 64 bits of elements", r->path, name);
    return checkpoint_add_tensor(r->c, &t, err);
}

/* The state dict: names and tensors, nothing else, so that nothing is left behind unseen. A name that stands many times
 * in the dict may stand once in the file: so what is made of it counts as well. */
static lamina_status add_tensors(const reading *r, pickle *p, const pickle_value *top, lamina_error *err)
{
    if (top->kind != PICKLE_DICT)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: holds %s: expected a state dict (names and tensors)", r->path,
                         pickle_kind_name(top->kind));
    const pickle_value *v = top->list->items;
    for (size_t i = 0; i + 1 < top->list->n; i += 2) {
        const pickle_value *key = &v[i], *value = &v[i + 1];
        bool named = key->kind == PICKLE_TEXT && key->n > 0 && key->n <= NAME_LIMIT &&
                     !memchr(key->text, '\0', key->n) && utf8_valid(key->text, key->n) == key->n;
        if (!named)
            return error_set(err, LAMINA_E_FORMAT,
                             "%s: a key of the state dict: expected UTF-8 of 1 to %d bytes, found %s", r->path,
                             NAME_LIMIT, key->kind == PICKLE_TEXT ? "another string" : pickle_kind_name(key->kind));
        if (!is_object(value, A_TENSOR))
            return error_set(err, LAMINA_E_UNSUPPORTED,
                             "%s: \"%s\" is %s, not a tensor: expected a state dict alone (save that)", r->path,
                             key->text, pickle_kind_name(value->kind));
        lamina_status status = pickle_count(p, key->n + 2 * sizeof(tensor), err);
        if (status != LAMINA_OK) return error_prefix(err, status, "%s", r->path);
        TRY(add_tensor(r, key->text, value->object, err));
    }
    return LAMINA_OK;
}

static lamina_status open_pickles(reading *r, uint64_t begin, uint64_t end, pickle **p, lamina_error *err)
{
    const pickle_client client = {
        .user = r, .name = find_name, .call = make, .persistent = make_storage, .set_state = set_state};
    return pickle_new(r->c->m, r->file, r->path, begin, end, &client, p, err);
}

/* ---- the zip ---------------------------------------------------------------------------------------------------- */

/* ARCHIVE/data.pkl; NULL: there is none. */
static const zip_entry *find_data(const zip *z)
{
    for (size_t i = 0; i < z->n; i++) {
        const char *slash = strchr(z->entries[i].name, '/');
        if (slash && strcmp(slash, "/data.pkl") == 0) return &z->entries[i];
    }
    return NULL;
}

/* ARCHIVE/name; NULL: there is none. */
static const zip_entry *find_part(const zip *z, const zip_entry *data, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%.*s/%s", (int)strcspn(data->name, "/"), data->name, name);
    return zip_find(z, path);
}

/* The text of a small entry, "" when it is absent or not small. */
static lamina_status read_word(const reading *r, const zip_entry *e, char text[16], lamina_error *err)
{
    memset(text, 0, 16);
    return e && e->bytes < 16 ? os_read_at(r->file, r->path, e->offset, text, (size_t)e->bytes, err) : LAMINA_OK;
}

static lamina_status check_archive(const reading *r, const zip *z, const zip_entry *data, lamina_error *err)
{
    char word[16];
    if (find_part(z, data, "constants.pkl"))
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a TorchScript program: expected a state dict", r->path);
    const zip_entry *order = find_part(z, data, "byteorder"); /* since 2.1; before that little was all there was */
    TRY(read_word(r, order, word, err));
    if (order && strcmp(word, "little") != 0)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: byte order \"%s\": expected \"little\"", r->path, word);
    TRY(read_word(r, find_part(z, data, "version"), word, err));
    if (strtol(word, NULL, 10) > NEWEST_VERSION)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: version %s: expected at most %d", r->path, word,
                         NEWEST_VERSION);
    return LAMINA_OK;
}

/* The storages: entries ARCHIVE/data/KEY. They have one prefix, so the order of the names is that of the keys. */
static lamina_status find_places(reading *r, const zip *z, const zip_entry *data, lamina_error *err)
{
    size_t n = strcspn(data->name, "/") + 1;
    r->places = mem_array(r->c->m, MEM_OTHER, z->n, sizeof *r->places, err);
    if (!r->places) return memory_status(err);
    for (size_t i = 0; i < z->n; i++) {
        const zip_entry *e = &z->entries[i];
        if (strncmp(e->name, data->name, n) == 0 && strncmp(e->name + n, "data/", 5) == 0)
            r->places[r->n_places++] = (place){e->name + n + 5, e->offset, e->bytes};
    }
    return LAMINA_OK;
}

static lamina_status read_archive(reading *r, const zip *z, lamina_error *err)
{
    const zip_entry *data = find_data(z);
    if (!data)
        return error_set(err, LAMINA_E_FORMAT, "%s: a zip without ARCHIVE/data.pkl: not what torch.save() writes",
                         r->path);
    TRY(check_archive(r, z, data, err));
    TRY(find_places(r, z, data, err));
    pickle *p;
    pickle_value top;
    TRY(open_pickles(r, data->offset, data->offset + data->bytes, &p, err));
    lamina_status status = pickle_load(p, &top, err);
    if (status == LAMINA_OK) status = add_tensors(r, p, &top, err);
    pickle_free(p);
    return status;
}

static lamina_status read_zip(reading *r, lamina_error *err)
{
    zip z;
    TRY(zip_open(r->c->m, r->file, r->path, &z, err));
    lamina_status status = read_archive(r, &z, err);
    zip_close(&z);
    return status;
}

/* ---- the older form --------------------------------------------------------------------------------------------- */

static const unsigned char magic[10] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

/* The three pickles before the state dict. */
static lamina_status check_preamble(const reading *r, pickle *p, lamina_error *err)
{
    pickle_value v;
    TRY(pickle_load(p, &v, err));
    if (v.kind != PICKLE_LONG || v.n != sizeof magic || memcmp(v.text, magic, sizeof magic) != 0)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: a pickle without PyTorch's magic number: not what torch.save() writes", r->path);
    TRY(pickle_load(p, &v, err));
    if (v.kind != PICKLE_INT || v.number != LEGACY_VERSION)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: expected version %d of the older form, found %s", r->path,
                         LEGACY_VERSION, v.kind == PICKLE_INT ? "another" : pickle_kind_name(v.kind));
    TRY(pickle_load(p, &v, err));
    for (size_t i = 0; v.kind == PICKLE_DICT && i + 1 < v.list->n; i += 2) {
        const pickle_value *key = &v.list->items[i], *value = key + 1;
        if (key->kind == PICKLE_TEXT && strcmp(key->text, "little_endian") == 0 &&
            (value->kind != PICKLE_BOOL || !value->number))
            return error_set(err, LAMINA_E_UNSUPPORTED, "%s: from a big-endian machine: expected little-endian",
                             r->path);
    }
    return LAMINA_OK;
}

static int by_storage_key(const void *a, const void *b)
{
    const storage *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

/* The storages that the pickle names, by key; those of one key must be alike. *list: mem_free(). */
static lamina_status list_storages(const reading *r, const storage ***list, lamina_error *err)
{
    *list = mem_array(r->c->m, MEM_OTHER, r->n_storages, sizeof **list, err);
    if (!*list) return memory_status(err);
    size_t n = 0;
    for (const storage *s = r->last; s; s = s->before) (*list)[n++] = s;
    if (n > 1) qsort(*list, n, sizeof **list, by_storage_key);
    for (size_t i = 1; i < n; i++) {
        const storage *a = (*list)[i - 1], *b = (*list)[i];
        if (strcmp(a->key, b->key) == 0 && (a->bytes != b->bytes || a->type->width != b->type->width))
            return error_set(err, LAMINA_E_FORMAT, "%s: storage %s is said to have two sizes", r->path, a->key);
    }
    return LAMINA_OK;
}

/* The storage of this key begins at *at; moves *at behind it. */
static lamina_status place_storage(reading *r, const storage *const *list, const pickle_value *key, uint64_t *at,
                                   lamina_error *err)
{
    unsigned char raw[8];
    const storage wanted = {.key = key->text}, *p = &wanted;
    const storage *const *s = NULL;
    if (key->kind == PICKLE_TEXT && r->n_storages) s = bsearch(&p, list, r->n_storages, sizeof *list, by_storage_key);
    if (!s)
        return error_set(err, LAMINA_E_FORMAT, "%s: a storage at offset %" PRIu64 " that no tensor names: %s", r->path,
                         *at, key->kind == PICKLE_TEXT ? key->text : pickle_kind_name(key->kind));
    if (r->size - *at < sizeof raw)
        return error_set(err, LAMINA_E_FORMAT, "%s: storage %s: the file ends before it (is it cut short?)", r->path,
                         key->text);
    TRY(os_read_at(r->file, r->path, *at, raw, sizeof raw, err));
    *at += sizeof raw;
    uint64_t n = little_number(raw, 8), bytes = (*s)->bytes;
    if (n != bytes / (*s)->type->width)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: storage %s: expected %" PRIu64 " elements at offset %" PRIu64 ", found %" PRIu64, r->path,
                         key->text, bytes / (*s)->type->width, *at - sizeof raw, n);
    if (bytes > r->size - *at)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: storage %s: %" PRIu64 " bytes at offset %" PRIu64
                         " do not lie inside the file of %" PRIu64 " bytes (is it cut short?)",
                         r->path, key->text, bytes, *at, r->size);
    r->places[r->n_places++] = (place){(*s)->key, *at, bytes};
    *at += bytes;
    return LAMINA_OK;
}

static lamina_status place_storages(reading *r, const pickle_value *keys, uint64_t at, lamina_error *err)
{
    const storage **list = NULL;
    if (keys->kind != PICKLE_LIST)
        return error_set(err, LAMINA_E_FORMAT, "%s: expected a list of the storages' keys, found %s", r->path,
                         pickle_kind_name(keys->kind));
    lamina_status status = list_storages(r, &list, err);
    if (status == LAMINA_OK) {
        r->places = mem_array(r->c->m, MEM_OTHER, keys->list->n, sizeof *r->places, err);
        if (!r->places) status = memory_status(err);
    }
    for (size_t i = 0; status == LAMINA_OK && i < keys->list->n; i++)
        status = place_storage(r, list, &keys->list->items[i], &at, err);
    mem_free(r->c->m, list);
    if (status == LAMINA_OK && r->n_places > 1) qsort(r->places, r->n_places, sizeof *r->places, by_key);
    for (size_t i = 1; status == LAMINA_OK && i < r->n_places; i++)
        if (strcmp(r->places[i - 1].key, r->places[i].key) == 0)
            status = error_set(err, LAMINA_E_FORMAT, "%s: storage %s stands twice", r->path, r->places[i].key);
    return status;
}

static lamina_status read_legacy(reading *r, lamina_error *err)
{
    pickle *p;
    pickle_value top, keys;
    TRY(open_pickles(r, 0, r->size, &p, err));
    lamina_status status = check_preamble(r, p, err);
    if (status == LAMINA_OK) status = pickle_load(p, &top, err);
    if (status == LAMINA_OK) status = pickle_load(p, &keys, err);
    if (status == LAMINA_OK) status = place_storages(r, &keys, pickle_at(p), err);
    if (status == LAMINA_OK) status = add_tensors(r, p, &top, err);
    pickle_free(p);
    return status;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

static lamina_status read_file(reading *r, const char *name, lamina_error *err)
{
    unsigned char begin[512] = {0};
    TRY(os_file_size(r->file, r->path, &r->size, err));
    TRY(os_read_at(r->file, r->path, 0, begin, r->size < sizeof begin ? (size_t)r->size : sizeof begin, err));
    TRY(checkpoint_add_file(r->c, r->path, name, r->size, &r->index, err));
    if (memcmp(begin, "PK\3\4", 4) == 0) return read_zip(r, err);
    if (begin[0] == 0x80) return read_legacy(r, err);
    if (memcmp(begin + 257, "ustar", 5) == 0)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: a tar of PyTorch 0.1: convert it with torch.save(torch.load(FILE), FILE)", r->path);
    if (memcmp(begin, "version https://git-lfs", 23) == 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: a pointer of Git LFS, not the file itself: git lfs pull fetches it",
                         r->path);
    return error_set(err, LAMINA_E_FORMAT, "%s: %s: expected what torch.save() writes, a zip or a pickle", r->path,
                     r->size ? "begins otherwise" : "is empty");
}

lamina_status pytorch_read(checkpoint *c, const char *path, const char *name, lamina_error *err)
{
    os_file file;
    TRY(os_open(path, OS_READ, &file, err));
    reading r = {.c = c, .file = &file, .path = path};
    lamina_status status = read_file(&r, name, err);
    c->shares = true;
    mem_free(c->m, r.places);
    os_close(&file);
    return status;
}

/* Reads a manifest or a draft back into an image.
 *
 * These bytes may come from strangers: every count, length, number and name is checked before use. File names are the
 * few that a store can have, so no path leads out of it. Tensors must stand in the order of files and offsets and
 * leave no gap, as packing writes them: so no extent overlaps another or leaves its file. A version that this program
 * does not know is refused by its number; the checksum's place is the same in every version. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "format/jsonpull.h"
#include "store/recode.h"
#include "store/scales.h"

typedef struct parse {
    image *im;
    const char *name; /* of the file, for errors */
    image_form form;
    lamina_error *err;
} parse;

#define BAD(p, ...) error_set((p)->err, LAMINA_E_FORMAT, __VA_ARGS__)

/* The members of one object that are known: where their values are. A tree of the whole would cost twenty times the
 * text, which for a model of many experts is tens of megabytes. */
enum { MOST_FIELDS = 15 };
typedef struct fields {
    const char *where; /* for errors */
    const char *const *keys;
    jp value[MOST_FIELDS]; /* document NULL: absent */
    jp end;                /* behind the object */
} fields;

/* keys end with NULL, at most MOST_FIELDS of them. */
static lamina_status find_fields(const parse *p, const jp *object, const char *where, const char *const *keys,
                                 fields *out)
{
    *out = (fields){.where = where, .keys = keys};
    if (jp_peek(object) != JP_OBJECT) return BAD(p, "%s: %s: not an object", p->name, where);
    jp in;
    TRY(jp_enter(object, JP_OBJECT, &in, p->err));
    for (;;) {
        bool more;
        jp_text key;
        TRY(jp_next_key(&in, &more, &key, p->err));
        if (!more) break;
        for (size_t i = 0; keys[i]; i++) {
            if (!jp_is(key, keys[i])) continue;
            if (out->value[i].document) return BAD(p, "%s: %s: duplicate \"%s\"", p->name, where, keys[i]);
            out->value[i] = in;
        }
        jp_skip(&in);
    }
    out->end = in;
    out->end.at++;
    return LAMINA_OK;
}

static bool is_there(const fields *f, int i, jp_kind kind)
{
    return f->value[i].document && jp_peek(&f->value[i]) == kind;
}

/* A string without NUL; it lives until the next one is read. */
static lamina_status get_text(const parse *p, const fields *f, int i, jp_text *out)
{
    if (!is_there(f, i, JP_STRING)) return BAD(p, "%s: %s: \"%s\" is not a string", p->name, f->where, f->keys[i]);
    jp at = f->value[i];
    TRY(jp_string(&at, out, p->err));
    if (!memchr(out->data, 0, out->bytes)) return LAMINA_OK;
    return BAD(p, "%s: %s: \"%s\" holds a NUL", p->name, f->where, f->keys[i]);
}

/* The same in a buffer, cut where it is too long to be right. */
typedef struct word {
    char text[STORE_MAX_NAME + 8];
} word;
static lamina_status get_word(const parse *p, const fields *f, int i, word *out)
{
    jp_text t;
    TRY(get_text(p, f, i, &t));
    size_t n = t.bytes < sizeof out->text - 1 ? t.bytes : sizeof out->text - 1;
    memcpy(out->text, t.data, n);
    out->text[n] = 0;
    return LAMINA_OK;
}

static lamina_status keep_text(const parse *p, const fields *f, int i, const char **out)
{
    jp_text t;
    TRY(get_text(p, f, i, &t));
    if (t.bytes > STORE_MAX_NAME * 4) return BAD(p, "%s: %s: \"%s\" is too long", p->name, f->where, f->keys[i]);
    *out = arena_strndup(p->im->strings, t.data, t.bytes, p->err);
    return *out ? LAMINA_OK : NO_MEMORY(p->err);
}

static lamina_status get_count(const parse *p, const fields *f, int i, uint64_t limit, uint64_t *out)
{
    jp at = f->value[i];
    int64_t v;
    if (!is_there(f, i, JP_NUMBER) || jp_integer(&at, &v, NULL) != LAMINA_OK || v < 0 || (uint64_t)v > limit)
        return BAD(p, "%s: %s: \"%s\" is not a number from 0 to %llu", p->name, f->where, f->keys[i],
                   (unsigned long long)limit);
    *out = (uint64_t)v;
    return LAMINA_OK;
}

/* *inside: before the first of *n items. */
static lamina_status get_array(const parse *p, const fields *f, int i, size_t limit, jp *inside, size_t *n)
{
    if (!is_there(f, i, JP_ARRAY)) return BAD(p, "%s: %s: \"%s\" is not an array", p->name, f->where, f->keys[i]);
    TRY(jp_enter(&f->value[i], JP_ARRAY, inside, p->err));
    jp at = *inside;
    for (*n = 0; jp_next_item(&at); ++*n) jp_skip(&at);
    if (*n <= limit) return LAMINA_OK;
    return BAD(p, "%s: %s: \"%s\" has %zu entries, more than %zu", p->name, f->where, f->keys[i], *n, limit);
}

/* A value as a tree, for those that the rest of the program reads so. */
static lamina_status get_tree(const parse *p, const fields *f, int i, json_t **out)
{
    jp end = f->value[i];
    const char *begin = end.document->text + end.at;
    jp_skip(&end);
    json_error_t bad;
    *out = json_loadb(begin, end.at - f->value[i].at, JSON_REJECT_DUPLICATES, &bad);
    return *out ? LAMINA_OK : BAD(p, "%s: \"%s\": line %d: %s", p->name, f->keys[i], bad.line, bad.text);
}

static bool read_hash(const char *s, uint64_t *out)
{
    uint64_t v = 0;
    for (int i = 0; i < 16; i++) {
        char c = s[i];
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else
            return false;
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}

static lamina_status get_hash(const parse *p, const fields *f, int i, uint64_t *out)
{
    jp_text hash;
    TRY(get_text(p, f, i, &hash));
    if (hash.bytes == 16 && read_hash(hash.data, out)) return LAMINA_OK;
    return BAD(p, "%s: %s: \"%s\" is not 16 hexadecimal digits", p->name, f->where, f->keys[i]);
}

/* tokenizer.lamina or layers/NAME.safetensors, NAME of letters, digits, '-' and '_'. */
static bool plain_name(const char *s)
{
    if (strcmp(s, STORE_TOKENIZER) == 0) return true;
    const size_t head = sizeof STORE_LAYERS, tail = sizeof ".safetensors" - 1;
    size_t n = strlen(s);
    if (n <= head + tail || n > 200 || strncmp(s, STORE_LAYERS "/", head) != 0) return false;
    if (strcmp(s + n - tail, ".safetensors") != 0) return false;
    for (size_t i = head; i < n - tail; i++) {
        char c = s[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_'))
            return false;
    }
    return true;
}

static lamina_status read_source_file(const parse *p, const jp *v, image_source *s)
{
    static const char *const keys[] = {"name", "bytes", "path", "modified", NULL};
    enum { NAME, BYTES, PATH, MODIFIED };
    fields f;
    TRY(find_fields(p, v, "source", keys, &f));
    TRY(keep_text(p, &f, NAME, &s->name));
    TRY(get_count(p, &f, BYTES, INT64_MAX, &s->bytes));
    if (p->form != FORM_DRAFT) return LAMINA_OK;
    TRY(keep_text(p, &f, PATH, &s->path));
    jp at = f.value[MODIFIED];
    if (!is_there(&f, MODIFIED, JP_NUMBER) || jp_integer(&at, &s->modified_ns, NULL) != LAMINA_OK)
        return BAD(p, "%s: source: \"modified\" is not a number", p->name);
    return LAMINA_OK;
}

static lamina_status read_source(const parse *p, const fields *root, int i)
{
    static const char *const keys[] = {"kind", "path", "files", NULL};
    enum { KIND, PATH, FILES };
    image *im = p->im;
    fields f;
    jp at;
    size_t n;
    if (!is_there(root, i, JP_OBJECT)) return BAD(p, "%s: \"source\" is not an object", p->name);
    TRY(find_fields(p, &root->value[i], "source", keys, &f));
    TRY(keep_text(p, &f, KIND, &im->source_kind));
    if (p->form == FORM_DRAFT) TRY(keep_text(p, &f, PATH, &im->source_path));
    TRY(get_array(p, &f, FILES, STORE_MAX_FILES, &at, &n));
    im->sources = mem_array(im->m, MEM_MODEL, n, sizeof *im->sources, p->err);
    if (!im->sources) return NO_MEMORY(p->err);
    while (jp_next_item(&at)) {
        TRY(read_source_file(p, &at, &im->sources[im->n_sources]));
        jp_skip(&at);
        im->n_sources++;
    }
    return LAMINA_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static lamina_status refuse_twins(const parse *p)
{
    const image *im = p->im;
    const char **names = mem_array(im->m, MEM_OTHER, im->n_files, sizeof *names, p->err);
    lamina_status status = LAMINA_OK;
    if (!names) return NO_MEMORY(p->err);
    for (uint32_t i = 0; i < im->n_files; i++) names[i] = im->files[i].name;
    qsort(names, im->n_files, sizeof *names, by_name);
    for (uint32_t i = 1; i < im->n_files && status == LAMINA_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0) status = BAD(p, "%s: file %s is listed twice", p->name, names[i]);
    mem_free(im->m, names);
    return status;
}

static lamina_status read_file(const parse *p, const jp *v, image_file *out)
{
    static const char *const keys[] = {"name", "bytes", "xxh3", NULL};
    enum { NAME, BYTES, XXH3 };
    fields f;
    TRY(find_fields(p, v, "files", keys, &f));
    TRY(keep_text(p, &f, NAME, &out->name));
    if (!plain_name(out->name)) return BAD(p, "%s: \"%.80s\" is not a name of a store's file", p->name, out->name);
    f.where = out->name;
    TRY(get_count(p, &f, BYTES, INT64_MAX, &out->bytes));
    if (p->form != FORM_MANIFEST && strcmp(out->name, STORE_TOKENIZER) != 0) return LAMINA_OK;
    f.where = out->name;
    return get_hash(p, &f, XXH3, &out->xxh3);
}

static lamina_status read_files(const parse *p, const fields *root, int i)
{
    image *im = p->im;
    jp at;
    size_t n;
    TRY(get_array(p, root, i, STORE_MAX_FILES, &at, &n));
    im->files = mem_array(im->m, MEM_MODEL, n, sizeof *im->files, p->err);
    if (!im->files) return NO_MEMORY(p->err);
    while (jp_next_item(&at)) {
        TRY(read_file(p, &at, &im->files[im->n_files]));
        jp_skip(&at);
        im->n_files++;
    }
    return refuse_twins(p);
}

static lamina_status read_shape(const parse *p, const fields *f, int i, tensor *t)
{
    jp at;
    size_t n;
    TRY(get_array(p, f, i, TENSOR_MAX_DIMS, &at, &n));
    t->n_dims = (uint32_t)n;
    for (uint64_t *d = t->shape; jp_next_item(&at); d++) {
        int64_t v;
        if (jp_integer(&at, &v, NULL) != LAMINA_OK || v < 0)
            return BAD(p, "%s: %s: a dimension is not a number", p->name, t->name);
        *d = (uint64_t)v;
    }
    return LAMINA_OK;
}

/* The bytes that follow from dtype and shape. */
static lamina_status check_size(const parse *p, const tensor *t)
{
    if (t->type == DT_OTHER) return LAMINA_OK; /* blocks not known */
    uint64_t columns = image_columns(t), total = 0;
    if (!t->row_bytes && !dtype_row_ok(t->type, columns))
        return BAD(p, "%s: %s: rows of %llu are not whole blocks of %s", p->name, t->name, (unsigned long long)columns,
                   dtype_name(t->type));
    total = tensor_row_bytes(t, columns);
    if (columns && !total) return BAD(p, "%s: %s: its shape is too large", p->name, t->name);
    for (uint32_t i = 0; i + 1 < t->n_dims; i++)
        if (__builtin_mul_overflow(total, t->shape[i], &total))
            return BAD(p, "%s: %s: its shape is too large", p->name, t->name);
    if (total != t->bytes)
        return BAD(p, "%s: %s: dtype and shape give %llu bytes, found %llu", p->name, t->name,
                   (unsigned long long)total, (unsigned long long)t->bytes);
    return LAMINA_OK;
}

static bool read_dtype(const char *name, dtype *out)
{
    for (int i = 0; i < DT_COUNT; i++)
        if (strcmp(dtype_table[i].name, name) == 0) {
            *out = (dtype)i;
            return true;
        }
    return false;
}

enum {
    T_NAME,
    T_DTYPE,
    T_SHAPE,
    T_FILE,
    T_OFFSET,
    T_BYTES,
    T_GGUF_TYPE,
    T_ROW_BYTES,
    T_OF,
    T_SOURCE,
    T_SOURCE_OFFSET,
    T_FROM,
    T_FROM_ROW_BYTES,
    T_IMPORTANCE,
    T_SCALES
};

static lamina_status find_tensor(const parse *p, const jp *v, fields *f)
{
    static const char *const keys[] = {"name",           "dtype",      "shape",  "file",   "offset",        "bytes",
                                       "gguf_type",      "row_bytes",  "of",     "source", "source_offset", "from",
                                       "from_row_bytes", "importance", "scales", NULL};
    return find_fields(p, v, "tensors", keys, f);
}

static lamina_status get_dtype(const parse *p, const fields *f, int i, dtype *out)
{
    word type;
    TRY(get_word(p, f, i, &type));
    if (read_dtype(type.text, out)) return LAMINA_OK;
    return error_set(p->err, LAMINA_E_UNSUPPORTED, "%s: %s: dtype \"%.40s\" is not known", p->name, f->where,
                     type.text);
}

/* Packed rows say how long they are, and of what. */
static lamina_status read_packed(const parse *p, const fields *f, const packed_form *form, tensor *t)
{
    TRY(get_count(p, f, T_ROW_BYTES, INT64_MAX, &t->row_bytes));
    TRY(get_dtype(p, f, T_OF, &t->of));
    if (t->of != form->of && t->of != DT_F32)
        return BAD(p, "%s: %s: \"of\" is %s, expected %s or f32", p->name, t->name, dtype_name(t->of),
                   dtype_name(form->of));
    if (packed_row_ok(form, image_columns(t), t->row_bytes)) return LAMINA_OK;
    return BAD(p, "%s: %s: rows of %llu elements cannot have %llu bytes in %s", p->name, t->name,
               (unsigned long long)image_columns(t), (unsigned long long)t->row_bytes, dtype_name(t->type));
}

static lamina_status read_importance(const parse *p, const fields *f, image_tensor *x)
{
    uint64_t columns = image_columns(&x->t), all = p->im->n_importance;
    if (recode_kind_of(x) != RECODE_QUANTISE || columns > all)
        return BAD(p, "%s: %s: has an \"importance\" that it cannot have", p->name, x->t.name);
    return get_count(p, f, T_IMPORTANCE, all - columns, &x->importance_offset);
}

static lamina_status read_scales(const parse *p, const fields *f, image_tensor *x)
{
    static const char *const keys[] = {"source", "offset", "dtype", "block", NULL};
    enum { SOURCE, OFFSET, DTYPE, BLOCK };
    const image *im = p->im;
    image_scales *s = &x->scales;
    uint64_t source, columns = image_columns(&x->t), bytes;
    int64_t rows = 0, cols = 0;
    fields in;
    jp at;
    size_t n;
    TRY(find_fields(p, &f->value[T_SCALES], "scales", keys, &in));
    TRY(get_count(p, &in, SOURCE, UINT32_MAX, &source));
    TRY(get_count(p, &in, OFFSET, INT64_MAX, &s->offset));
    TRY(get_dtype(p, &in, DTYPE, &s->type));
    TRY(get_array(p, &in, BLOCK, 2, &at, &n));
    bool two = n == 2 && jp_next_item(&at) && jp_integer(&at, &rows, NULL) == LAMINA_OK && jp_next_item(&at) &&
               jp_integer(&at, &cols, NULL) == LAMINA_OK;
    if (!two || rows < 1 || rows > UINT32_MAX || cols < 1 || cols > UINT32_MAX)
        return BAD(p, "%s: %s: \"block\" is not rows and columns", p->name, x->t.name);
    s->source = (uint32_t)source;
    s->rows = (uint32_t)rows;
    s->cols = (uint32_t)cols;
    s->stride = (columns - 1) / s->cols + 1;
    bool can = recode_kind_of(x) == RECODE_QUANTISE && dtype_is_f8(x->from);
    if (can && scales_extent(s, image_rows(&x->t), columns, &bytes) && source < im->n_sources &&
        s->offset <= im->sources[source].bytes && bytes <= im->sources[source].bytes - s->offset)
        return LAMINA_OK;
    return BAD(p, "%s: %s: has \"scales\" that it cannot have", p->name, x->t.name);
}

/* Where the bytes come from, in a draft. */
static lamina_status read_origin(const parse *p, const fields *f, image_tensor *x)
{
    const image *im = p->im;
    uint64_t source, row, bytes = x->t.bytes;
    TRY(get_count(p, f, T_SOURCE, UINT32_MAX, &source));
    TRY(get_count(p, f, T_SOURCE_OFFSET, INT64_MAX, &x->source_offset));
    x->importance_offset = IMPORTANCE_NONE;
    if (f->value[T_FROM].document) {
        TRY(get_dtype(p, f, T_FROM, &x->from));
        x->from_row_bytes = 0;
        const packed_form *form = packed_form_of(x->from);
        if (form) TRY(get_count(p, f, T_FROM_ROW_BYTES, INT64_MAX, &x->from_row_bytes));
        if ((form && !packed_row_ok(form, image_columns(&x->t), x->from_row_bytes)) ||
            recode_kind_of(x) == RECODE_IMPOSSIBLE || !bytes)
            return BAD(p, "%s: %s: %s cannot come from %s", p->name, x->t.name, dtype_name(x->t.type),
                       dtype_name(x->from));
        row = image_source_row(x);
        if (!row || __builtin_mul_overflow(row, image_rows(&x->t), &bytes))
            return BAD(p, "%s: %s: its source is too large", p->name, x->t.name);
        if (f->value[T_IMPORTANCE].document) TRY(read_importance(p, f, x));
        if (f->value[T_SCALES].document) TRY(read_scales(p, f, x));
    }
    if (source >= im->n_sources || x->source_offset > im->sources[source].bytes ||
        bytes > im->sources[source].bytes - x->source_offset)
        return BAD(p, "%s: %s: its source lies outside the source's files", p->name, x->t.name);
    x->source = (uint32_t)source;
    return LAMINA_OK;
}

static lamina_status read_tensor(const parse *p, fields *f, image_tensor *x)
{
    tensor *t = &x->t;
    TRY(keep_text(p, f, T_NAME, &t->name));
    if (!*t->name || strlen(t->name) > STORE_MAX_NAME)
        return BAD(p, "%s: a tensor's name is %zu bytes long", p->name, strlen(t->name));
    f->where = t->name;
    TRY(get_dtype(p, f, T_DTYPE, &t->type));
    if (t->type == DT_OTHER) {
        uint64_t foreign;
        TRY(get_count(p, f, T_GGUF_TYPE, UINT32_MAX, &foreign));
        t->foreign_type = (uint32_t)foreign;
    }
    TRY(read_shape(p, f, T_SHAPE, t));
    const packed_form *form = packed_form_of(t->type);
    if (form) TRY(read_packed(p, f, form, t));
    TRY(get_count(p, f, T_OFFSET, INT64_MAX, &t->offset));
    TRY(get_count(p, f, T_BYTES, INT64_MAX, &t->bytes));
    TRY(check_size(p, t));
    x->from = t->type;
    x->from_row_bytes = t->row_bytes;
    return p->form == FORM_MANIFEST ? LAMINA_OK : read_origin(p, f, x);
}

/* Puts tensor i into its file: the same file as the tensor before it, or the next one that has tensors. */
static lamina_status seat(const parse *p, const fields *f, size_t i, uint32_t *file, uint64_t *end)
{
    image *im = p->im;
    tensor *t = &im->tensors[i].t;
    word in;
    TRY(get_word(p, f, T_FILE, &in));
    const char *name = in.text;
    if (*file == im->n_files || strcmp(im->files[*file].name, name) != 0) {
        uint32_t next = *file == im->n_files ? 0 : *file + 1;
        if (next < im->n_files && strcmp(im->files[next].name, STORE_TOKENIZER) == 0) next++;
        if (*file != im->n_files && *end != im->files[*file].bytes)
            return BAD(p, "%s: %s: its tensors end at %llu, the file at %llu", p->name, im->files[*file].name,
                       (unsigned long long)*end, (unsigned long long)im->files[*file].bytes);
        if (next >= im->n_files || strcmp(im->files[next].name, name) != 0)
            return BAD(p, "%s: %s: file \"%.80s\" is not the next of the list", p->name, t->name, name);
        if (t->offset == 0 || t->offset % STORE_ALIGN || t->offset > STORE_MAX_JSON)
            return BAD(p, "%s: %s: data begin at %llu, not at a multiple of %d", p->name, t->name,
                       (unsigned long long)t->offset, STORE_ALIGN);
        *file = next;
        *end = t->offset;
        im->files[next].first = i;
        im->files[next].header_bytes = t->offset;
    }
    if (t->offset != *end)
        return BAD(p, "%s: %s: begins at %llu, expected %llu", p->name, t->name, (unsigned long long)t->offset,
                   (unsigned long long)*end);
    if (t->offset > im->files[*file].bytes || t->bytes > im->files[*file].bytes - t->offset)
        return BAD(p, "%s: %s: lies outside %s of %llu bytes", p->name, t->name, name,
                   (unsigned long long)im->files[*file].bytes);
    *end += t->bytes;
    t->file = *file;
    im->files[*file].n_tensors++;
    return LAMINA_OK;
}

static lamina_status read_tensors(const parse *p, const fields *root, int field)
{
    image *im = p->im;
    jp at;
    size_t n;
    TRY(get_array(p, root, field, STORE_MAX_TENSORS, &at, &n));
    im->tensors = mem_array(im->m, MEM_MODEL, n, sizeof *im->tensors, p->err);
    if (!im->tensors) return NO_MEMORY(p->err);
    uint32_t file = im->n_files;
    uint64_t end = 0;
    while (jp_next_item(&at)) {
        fields f;
        TRY(find_tensor(p, &at, &f));
        TRY(read_tensor(p, &f, &im->tensors[im->n_tensors]));
        TRY(seat(p, &f, im->n_tensors, &file, &end));
        at.at = f.end.at;
        im->n_tensors++;
    }
    if (file < im->n_files && end != im->files[file].bytes)
        return BAD(p, "%s: %s: its tensors end at %llu, the file at %llu", p->name, im->files[file].name,
                   (unsigned long long)end, (unsigned long long)im->files[file].bytes);
    for (uint32_t i = 0; i < im->n_files; i++)
        if (!im->files[i].n_tensors && strcmp(im->files[i].name, STORE_TOKENIZER) != 0)
            return BAD(p, "%s: %s: holds no tensors", p->name, im->files[i].name);
    return LAMINA_OK;
}

/* What the file of columns' importance must be. */
static lamina_status read_importances(const parse *p, const jp *v)
{
    static const char *const keys[] = {"count", "xxh3", NULL};
    fields f;
    TRY(find_fields(p, v, "importance", keys, &f));
    TRY(get_count(p, &f, 0, INT32_MAX, &p->im->n_importance));
    return get_hash(p, &f, 1, &p->im->importance_xxh3);
}

static lamina_status read_root(const parse *p, const jp *value)
{
    static const char *const keys[] = {"format",      "version",    "family", "dialect", "config",
                                       "generation",  "source",     "files",  "tensors", "dtype",
                                       "calibration", "importance", NULL};
    enum {
        FORMAT,
        VERSION,
        FAMILY,
        DIALECT,
        CONFIG,
        GENERATION,
        SOURCE,
        FILES,
        TENSORS,
        DTYPE,
        CALIBRATION,
        IMPORTANCE
    };
    const char *expected = p->form == FORM_MANIFEST ? "lamina-store" : "lamina-store-draft";
    image *im = p->im;
    fields root;
    word format, dialect;
    uint64_t version;
    TRY(find_fields(p, value, "manifest", keys, &root));
    TRY(get_word(p, &root, FORMAT, &format));
    if (strcmp(format.text, expected) != 0)
        return BAD(p, "%s: format is \"%.40s\", expected \"%s\"", p->name, format.text, expected);
    TRY(get_count(p, &root, VERSION, INT32_MAX, &version));
    if (version != STORE_VERSION)
        return error_set(p->err, LAMINA_E_UNSUPPORTED, "%s: store format version %llu; this program reads version %d",
                         p->name, (unsigned long long)version, STORE_VERSION);
    TRY(keep_text(p, &root, FAMILY, &im->family));
    TRY(get_word(p, &root, DIALECT, &dialect));
    if (strcmp(dialect.text, "hf") != 0 && strcmp(dialect.text, "gguf") != 0)
        return BAD(p, "%s: dialect is \"%.40s\", expected \"hf\" or \"gguf\"", p->name, dialect.text);
    im->dialect = strcmp(dialect.text, "gguf") == 0 ? DIALECT_GGUF : DIALECT_HF;
    if (!is_there(&root, CONFIG, JP_OBJECT)) return BAD(p, "%s: \"config\" is not an object", p->name);
    bool generation = is_there(&root, GENERATION, JP_OBJECT);
    if (root.value[GENERATION].document && !generation && !is_there(&root, GENERATION, JP_NULL))
        return BAD(p, "%s: \"generation\" is neither an object nor null", p->name);
    TRY(get_tree(p, &root, CONFIG, &im->config));
    if (generation) TRY(get_tree(p, &root, GENERATION, &im->generation));
    if (root.value[DTYPE].document) TRY(keep_text(p, &root, DTYPE, &im->dtype));
    if (root.value[CALIBRATION].document) TRY(get_hash(p, &root, CALIBRATION, &im->calibration));
    if (p->form == FORM_DRAFT && root.value[IMPORTANCE].document) TRY(read_importances(p, &root.value[IMPORTANCE]));
    TRY(read_source(p, &root, SOURCE));
    TRY(read_files(p, &root, FILES));
    return read_tensors(p, &root, TENSORS);
}

static lamina_status check_sum(const parse *p, const char *data, size_t bytes)
{
    static const char pattern[] = "\"xxh3\": \"################\"\n}\n";
    const char *trailer = data + bytes - (sizeof pattern - 1);
    uint64_t found = 0, expected;
    if (bytes < sizeof pattern - 1) return BAD(p, "%s: %zu bytes are too few", p->name, bytes);
    if (memcmp(trailer, pattern, 9) != 0 || memcmp(trailer + 25, pattern + 25, sizeof pattern - 1 - 25) != 0 ||
        !read_hash(trailer + 9, &expected))
        return error_set(p->err, LAMINA_E_CORRUPT, "%s: does not end with its checksum: cut short or changed", p->name);
    found = XXH3_64bits(data, bytes - (sizeof pattern - 1));
    if (found != expected)
        return error_set(p->err, LAMINA_E_CORRUPT, "%s: checksum %016llx expected, %016llx found", p->name,
                         (unsigned long long)expected, (unsigned long long)found);
    return LAMINA_OK;
}

lamina_status image_parse(memory *m, const char *path, const char *name, const char *data, size_t bytes,
                          image_form form, image **out, lamina_error *err)
{
    parse p = {.name = name, .form = form, .err = err};
    *out = NULL;
    TRY(check_sum(&p, data, bytes));
    jp_document document;
    jp root;
    lamina_status status = jp_open(m, MEM_OTHER, name, data, bytes, &document, &root, err);
    if (status == LAMINA_OK) status = image_new(m, path, &p.im, err);
    if (status == LAMINA_OK) status = read_root(&p, &root);
    jp_close(&document);
    if (status != LAMINA_OK) {
        image_free(p.im);
        return status;
    }
    *out = p.im;
    return LAMINA_OK;
}

lamina_status image_load(memory *m, const char *path, const char *name, image_form form, image **out, lamina_error *err)
{
    *out = NULL;
    char *file = store_join(m, path, name, err), *data = NULL;
    size_t bytes = 0;
    if (!file) return NO_MEMORY(err);
    lamina_status status = LAMINA_OK;
    if (os_exists(file)) {
        status = os_read_file(m, file, STORE_MAX_JSON, &data, &bytes, err);
        if (status == LAMINA_OK) status = image_parse(m, path, file, data, bytes, form, out, err);
    }
    mem_free(m, data);
    mem_free(m, file);
    return status;
}

/* Reads a manifest or a draft back into an image.
 *
 * These bytes may come from strangers: every count, length, number and name is checked before use. File names are the
 * few that a store can have, so no path leads out of it. Tensors must stand in the order of files and offsets and
 * leave no gap, as packing writes them: so no extent overlaps another or leaves its file. A version that this program
 * does not know is refused by its number; the checksum's place is the same in every version. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "store/image.h"

typedef struct parse {
    image *im;
    const char *name; /* of the file, for errors */
    image_form form;
    lamina_error *err;
} parse;

#define BAD(p, ...) error_set((p)->err, LAMINA_E_FORMAT, __VA_ARGS__)

static lamina_status get_text(const parse *p, const json_t *from, const char *where, const char *key, const char **out)
{
    const json_t *v = json_object_get(from, key);
    if (!json_is_string(v)) return BAD(p, "%s: %s: \"%s\" is not a string", p->name, where, key);
    *out = json_string_value(v);
    return LAMINA_OK;
}

static lamina_status keep_text(const parse *p, const json_t *from, const char *where, const char *key, const char **out)
{
    const char *s;
    TRY(get_text(p, from, where, key, &s));
    if (strlen(s) > STORE_MAX_NAME * 4) return BAD(p, "%s: %s: \"%s\" is too long", p->name, where, key);
    *out = arena_strndup(p->im->strings, s, strlen(s), p->err);
    return *out ? LAMINA_OK : NO_MEMORY(p->err);
}

static lamina_status get_count(const parse *p, const json_t *from, const char *where, const char *key, uint64_t limit,
                               uint64_t *out)
{
    const json_t *v = json_object_get(from, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > limit)
        return BAD(p, "%s: %s: \"%s\" is not a number from 0 to %llu", p->name, where, key, (unsigned long long)limit);
    *out = (uint64_t)json_integer_value(v);
    return LAMINA_OK;
}

static lamina_status get_array(const parse *p, const json_t *from, const char *where, const char *key, size_t limit,
                               const json_t **out, size_t *n)
{
    const json_t *v = json_object_get(from, key);
    if (!json_is_array(v)) return BAD(p, "%s: %s: \"%s\" is not an array", p->name, where, key);
    if (json_array_size(v) > limit)
        return BAD(p, "%s: %s: \"%s\" has %zu entries, more than %zu", p->name, where, key, json_array_size(v), limit);
    *out = v;
    *n = json_array_size(v);
    return LAMINA_OK;
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

static lamina_status read_source(const parse *p, const json_t *root)
{
    image *im = p->im;
    const json_t *source = json_object_get(root, "source"), *files;
    size_t n;
    if (!json_is_object(source)) return BAD(p, "%s: \"source\" is not an object", p->name);
    TRY(keep_text(p, source, "source", "kind", &im->source_kind));
    if (p->form == FORM_DRAFT) TRY(keep_text(p, source, "source", "path", &im->source_path));
    TRY(get_array(p, source, "source", "files", STORE_MAX_FILES, &files, &n));
    im->sources = mem_array(im->m, MEM_MODEL, n, sizeof *im->sources, p->err);
    if (!im->sources) return NO_MEMORY(p->err);
    for (size_t i = 0; i < n; i++) {
        const json_t *f = json_array_get(files, i);
        image_source *s = &im->sources[i];
        TRY(keep_text(p, f, "source", "name", &s->name));
        TRY(get_count(p, f, "source", "bytes", INT64_MAX, &s->bytes));
        if (p->form == FORM_DRAFT) {
            TRY(keep_text(p, f, "source", "path", &s->path));
            const json_t *modified = json_object_get(f, "modified");
            if (!json_is_integer(modified)) return BAD(p, "%s: source: \"modified\" is not a number", p->name);
            s->modified_ns = json_integer_value(modified);
        }
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

static lamina_status read_files(const parse *p, const json_t *root)
{
    image *im = p->im;
    const json_t *files;
    size_t n;
    TRY(get_array(p, root, "manifest", "files", STORE_MAX_FILES, &files, &n));
    im->files = mem_array(im->m, MEM_MODEL, n, sizeof *im->files, p->err);
    if (!im->files) return NO_MEMORY(p->err);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(files, i);
        image_file *f = &im->files[i];
        TRY(keep_text(p, v, "files", "name", &f->name));
        if (!plain_name(f->name)) return BAD(p, "%s: \"%.80s\" is not a name of a store's file", p->name, f->name);
        TRY(get_count(p, v, f->name, "bytes", INT64_MAX, &f->bytes));
        if (p->form == FORM_MANIFEST || strcmp(f->name, STORE_TOKENIZER) == 0) {
            const char *hash;
            TRY(get_text(p, v, f->name, "xxh3", &hash));
            if (strlen(hash) != 16 || !read_hash(hash, &f->xxh3))
                return BAD(p, "%s: %s: \"xxh3\" is not 16 hexadecimal digits", p->name, f->name);
        }
        im->n_files++;
    }
    return refuse_twins(p);
}

static lamina_status read_shape(const parse *p, const json_t *v, tensor *t)
{
    const json_t *shape;
    size_t n;
    TRY(get_array(p, v, t->name, "shape", TENSOR_MAX_DIMS, &shape, &n));
    t->n_dims = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return BAD(p, "%s: %s: a dimension is not a number", p->name, t->name);
        t->shape[i] = (uint64_t)json_integer_value(d);
    }
    return LAMINA_OK;
}

/* The bytes that follow from dtype and shape. */
static lamina_status check_size(const parse *p, const tensor *t)
{
    if (t->type == DT_OTHER) return LAMINA_OK; /* blocks not known */
    uint64_t columns = t->n_dims ? t->shape[t->n_dims - 1] : 1, total = 0;
    if (!dtype_row_ok(t->type, columns))
        return BAD(p, "%s: %s: rows of %llu are not whole blocks of %s", p->name, t->name, (unsigned long long)columns,
                   dtype_name(t->type));
    total = dtype_row_bytes(t->type, columns);
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

static lamina_status read_tensor(const parse *p, const json_t *v, image_tensor *x)
{
    const image *im = p->im;
    tensor *t = &x->t;
    const char *type;
    TRY(keep_text(p, v, "tensors", "name", &t->name));
    if (!*t->name || strlen(t->name) > STORE_MAX_NAME)
        return BAD(p, "%s: a tensor's name is %zu bytes long", p->name, strlen(t->name));
    TRY(get_text(p, v, t->name, "dtype", &type));
    if (!read_dtype(type, &t->type))
        return error_set(p->err, LAMINA_E_UNSUPPORTED, "%s: %s: dtype \"%.40s\" is not known", p->name, t->name, type);
    if (t->type == DT_OTHER) {
        uint64_t foreign;
        TRY(get_count(p, v, t->name, "gguf_type", UINT32_MAX, &foreign));
        t->foreign_type = (uint32_t)foreign;
    }
    TRY(read_shape(p, v, t));
    TRY(get_count(p, v, t->name, "offset", INT64_MAX, &t->offset));
    TRY(get_count(p, v, t->name, "bytes", INT64_MAX, &t->bytes));
    TRY(check_size(p, t));
    if (p->form == FORM_MANIFEST) return LAMINA_OK;
    uint64_t source;
    TRY(get_count(p, v, t->name, "source", UINT32_MAX, &source));
    TRY(get_count(p, v, t->name, "source_offset", INT64_MAX, &x->source_offset));
    if (source >= im->n_sources || x->source_offset > im->sources[source].bytes ||
        t->bytes > im->sources[source].bytes - x->source_offset)
        return BAD(p, "%s: %s: its source lies outside the source's files", p->name, t->name);
    x->source = (uint32_t)source;
    return LAMINA_OK;
}

/* Puts tensor i into its file: the same file as the tensor before it, or the next one that has tensors. */
static lamina_status seat(const parse *p, const json_t *v, size_t i, uint32_t *file, uint64_t *end)
{
    image *im = p->im;
    tensor *t = &im->tensors[i].t;
    const char *name;
    TRY(get_text(p, v, t->name, "file", &name));
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

static lamina_status read_tensors(const parse *p, const json_t *root)
{
    image *im = p->im;
    const json_t *tensors;
    size_t n;
    TRY(get_array(p, root, "manifest", "tensors", STORE_MAX_TENSORS, &tensors, &n));
    im->tensors = mem_array(im->m, MEM_MODEL, n, sizeof *im->tensors, p->err);
    if (!im->tensors) return NO_MEMORY(p->err);
    uint32_t file = im->n_files;
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(tensors, i);
        TRY(read_tensor(p, v, &im->tensors[i]));
        TRY(seat(p, v, i, &file, &end));
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

static lamina_status read_root(const parse *p, const json_t *root)
{
    image *im = p->im;
    const char *format, *dialect, *expected = p->form == FORM_MANIFEST ? "lamina-store" : "lamina-store-draft";
    uint64_t version;
    TRY(get_text(p, root, "manifest", "format", &format));
    if (strcmp(format, expected) != 0)
        return BAD(p, "%s: format is \"%.40s\", expected \"%s\"", p->name, format, expected);
    TRY(get_count(p, root, "manifest", "version", INT32_MAX, &version));
    if (version != STORE_VERSION)
        return error_set(p->err, LAMINA_E_UNSUPPORTED, "%s: store format version %llu; this program reads version %d",
                         p->name, (unsigned long long)version, STORE_VERSION);
    TRY(keep_text(p, root, "manifest", "family", &im->family));
    TRY(get_text(p, root, "manifest", "dialect", &dialect));
    if (strcmp(dialect, "hf") != 0 && strcmp(dialect, "gguf") != 0)
        return BAD(p, "%s: dialect is \"%.40s\", expected \"hf\" or \"gguf\"", p->name, dialect);
    im->dialect = strcmp(dialect, "gguf") == 0 ? DIALECT_GGUF : DIALECT_HF;
    json_t *config = json_object_get(root, "config"), *generation = json_object_get(root, "generation");
    if (!json_is_object(config)) return BAD(p, "%s: \"config\" is not an object", p->name);
    if (generation && !json_is_null(generation) && !json_is_object(generation))
        return BAD(p, "%s: \"generation\" is neither an object nor null", p->name);
    im->config = json_incref(config);
    im->generation = json_is_object(generation) ? json_incref(generation) : NULL;
    TRY(read_source(p, root));
    TRY(read_files(p, root));
    return read_tensors(p, root);
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
    json_error_t bad;
    json_t *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &bad);
    if (!root) return BAD(&p, "%s: line %d: %s", name, bad.line, bad.text);
    lamina_status status = image_new(m, path, &p.im, err);
    if (status == LAMINA_OK) status = read_root(&p, root);
    json_decref(root);
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

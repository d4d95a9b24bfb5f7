/* Writes what an image says: the manifest, the draft, the header of a layer file.
 *
 * Promises that the text follows from the image alone (no times, no paths of this machine in a manifest), one tensor
 * to a line, and that its last field is a checksum of all bytes before that field, so that a flipped bit anywhere in
 * it is found. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "store/image.h"

static bool reserve(text *t, size_t more)
{
    if (t->status != LAMINA_OK) return false;
    if (more < t->capacity - t->bytes) return true;
    size_t capacity = t->capacity ? t->capacity : 4096;
    while (capacity - t->bytes <= more) capacity *= 2;
    char *data = mem_resize(t->m, MEM_OTHER, t->data, capacity, t->err);
    if (!data) {
        t->status = NO_MEMORY(t->err);
        return false;
    }
    t->data = data;
    t->capacity = capacity;
    return true;
}

void text_add(text *t, const char *format, ...)
{
    if (!reserve(t, 256)) return;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->data + t->bytes, t->capacity - t->bytes, format, args);
    va_end(args);
    if (n < 0) {
        t->status = error_set(t->err, LAMINA_E_USAGE, "text cannot be formatted");
        return;
    }
    if ((size_t)n >= t->capacity - t->bytes) {
        if (!reserve(t, (size_t)n + 1)) return;
        va_start(args, format);
        vsnprintf(t->data + t->bytes, t->capacity - t->bytes, format, args);
        va_end(args);
    }
    t->bytes += (size_t)n;
}

void text_quote(text *t, const char *s)
{
    size_t n = strlen(s);
    if (!reserve(t, 6 * n + 3)) return;
    char *to = t->data + t->bytes;
    *to++ = '"';
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            *to++ = '\\';
            *to++ = (char)c;
        } else if (c < 0x20) {
            to += snprintf(to, 7, "\\u%04x", c);
        } else {
            *to++ = (char)c;
        }
    }
    *to++ = '"';
    *to = 0;
    t->bytes = (size_t)(to - t->data);
}

static void add_json(text *t, const char *key, const json_t *value)
{
    char *dump = value ? json_dumps(value, JSON_COMPACT) : NULL;
    if (value && !dump && t->status == LAMINA_OK)
        t->status = error_set(t->err, LAMINA_E_MEMORY, "no memory for the text of %s", key);
    text_add(t, "\"%s\": %s,\n", key, dump ? dump : "null");
    free(dump);
}

static void add_shape(text *t, const uint64_t *shape, uint32_t n)
{
    text_add(t, "[");
    for (uint32_t i = 0; i < n; i++) text_add(t, "%s%llu", i ? "," : "", (unsigned long long)shape[i]);
    text_add(t, "]");
}

static void add_sources(const image *im, image_form form, text *t)
{
    text_add(t, "\"source\": {\"kind\": ");
    text_quote(t, im->source_kind);
    if (form == FORM_DRAFT) {
        text_add(t, ", \"path\": ");
        text_quote(t, im->source_path);
    }
    text_add(t, ", \"files\": [");
    for (uint32_t i = 0; i < im->n_sources; i++) {
        const image_source *s = &im->sources[i];
        text_add(t, "%s\n {\"name\": ", i ? "," : "");
        text_quote(t, s->name);
        text_add(t, ", \"bytes\": %llu", (unsigned long long)s->bytes);
        if (form != FORM_MANIFEST) text_add(t, ", \"modified\": %lld", (long long)s->modified_ns);
        if (form == FORM_DRAFT) {
            text_add(t, ", \"path\": ");
            text_quote(t, s->path);
        }
        text_add(t, "}");
    }
    text_add(t, "]},\n");
}

static void add_origin(const image_tensor *x, text *t)
{
    text_add(t, ", \"source\": %u, \"source_offset\": %llu", x->source, (unsigned long long)x->source_offset);
    if (!image_recoded(x)) return;
    text_add(t, ", \"from\": \"%s\"", dtype_name(x->from));
    if (x->from_row_bytes) text_add(t, ", \"from_row_bytes\": %llu", (unsigned long long)x->from_row_bytes);
    if (x->scales.rows)
        text_add(t, ", \"scales\": {\"source\": %u, \"offset\": %llu, \"dtype\": \"%s\", \"block\": [%u, %u]}",
                 x->scales.source, (unsigned long long)x->scales.offset, dtype_name(x->scales.type), x->scales.rows,
                 x->scales.cols);
    if (x->importance_offset != IMPORTANCE_NONE)
        text_add(t, ", \"importance\": %llu", (unsigned long long)x->importance_offset);
}

static void add_tensors(const image *im, image_form form, text *t)
{
    text_add(t, "\"tensors\": [");
    for (size_t i = 0; i < im->n_tensors; i++) {
        const tensor *x = &im->tensors[i].t;
        text_add(t, "%s\n {\"name\": ", i ? "," : "");
        text_quote(t, x->name);
        text_add(t, ", \"dtype\": \"%s\"", dtype_name(x->type));
        if (x->type == DT_OTHER) text_add(t, ", \"gguf_type\": %u", x->foreign_type);
        text_add(t, ", \"shape\": ");
        add_shape(t, x->shape, x->n_dims);
        if (x->row_bytes)
            text_add(t, ", \"row_bytes\": %llu, \"of\": \"%s\"", (unsigned long long)x->row_bytes, dtype_name(x->of));
        text_add(t, ", \"file\": \"%s\", \"offset\": %llu, \"bytes\": %llu", im->files[x->file].name,
                 (unsigned long long)x->offset, (unsigned long long)x->bytes);
        if (form != FORM_MANIFEST) add_origin(&im->tensors[i], t);
        text_add(t, "}");
    }
    text_add(t, "],\n");
}

lamina_status image_render(const image *im, image_form form, text *t)
{
    text_add(t, "{\n\"format\": \"%s\", \"version\": %d,\n",
             form == FORM_MANIFEST ? "lamina-store" : "lamina-store-draft", STORE_VERSION);
    text_add(t, "\"family\": ");
    text_quote(t, im->family);
    text_add(t, ", \"dialect\": \"%s\",\n", im->dialect == DIALECT_GGUF ? "gguf" : "hf");
    if (im->dtype) {
        text_add(t, "\"dtype\": ");
        text_quote(t, im->dtype);
        text_add(t, ",\n");
    }
    if (im->calibration) text_add(t, "\"calibration\": \"%016llx\",\n", (unsigned long long)im->calibration);
    if (im->n_importance && (form == FORM_DRAFT || form == FORM_IDENTITY))
        text_add(t, "\"importance\": {\"count\": %llu, \"xxh3\": \"%016llx\"},\n", (unsigned long long)im->n_importance,
                 (unsigned long long)im->importance_xxh3);
    add_sources(im, form, t);
    add_json(t, "config", im->config);
    add_json(t, "generation", im->generation);
    text_add(t, "\"files\": [");
    for (uint32_t i = 0; i < im->n_files && (form != FORM_WORK || !im->files[i].n_tensors); i++) {
        const image_file *f = &im->files[i];
        text_add(t, "%s\n {\"name\": \"%s\", \"bytes\": %llu", i ? "," : "", f->name, (unsigned long long)f->bytes);
        if (form == FORM_MANIFEST || !f->n_tensors) text_add(t, ", \"xxh3\": \"%016llx\"", (unsigned long long)f->xxh3);
        text_add(t, "}");
    }
    text_add(t, "],\n");
    if (form != FORM_WORK) add_tensors(im, form, t);
    if (t->status == LAMINA_OK)
        text_add(t, "\"xxh3\": \"%016llx\"\n}\n", (unsigned long long)XXH3_64bits(t->data, t->bytes));
    return t->status;
}

lamina_status image_header(const image *im, uint32_t file, text *t)
{
    const image_file *f = &im->files[file];
    uint64_t at = 0;
    text_add(t, "%8s{\"__metadata__\":{\"format\":\"pt\"}", "");
    for (size_t i = f->first; i < f->first + f->n_tensors; i++) {
        const tensor *x = &im->tensors[i].t;
        const char *type = dtype_table[x->type].safetensors_name;
        uint64_t shape[TENSOR_MAX_DIMS] = {x->bytes};
        uint32_t n_dims = 1;
        uint64_t columns = x->n_dims ? x->shape[x->n_dims - 1] : 0;
        if (type) {
            n_dims = x->n_dims;
            memcpy(shape, x->shape, sizeof shape);
        } else if (columns && (x->row_bytes || dtype_row_ok(x->type, columns))) {
            n_dims = x->n_dims; /* a row of blocks is a row of bytes */
            memcpy(shape, x->shape, sizeof shape);
            shape[n_dims - 1] = tensor_row_bytes(x, columns);
        }
        text_add(t, ",");
        text_quote(t, x->name);
        text_add(t, ":{\"dtype\":\"%s\",\"shape\":", type ? type : "U8");
        add_shape(t, shape, n_dims);
        text_add(t, ",\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + x->bytes));
        at += x->bytes;
    }
    text_add(t, "}");
    size_t padding = (size_t)(-t->bytes & (STORE_ALIGN - 1));
    if (!reserve(t, padding + 1)) return t->status;
    memset(t->data + t->bytes, ' ', padding);
    t->bytes += padding;
    t->data[t->bytes] = 0;
    for (int i = 0; i < 8; i++) t->data[i] = (char)((t->bytes - 8) >> (8 * i));
    return LAMINA_OK;
}

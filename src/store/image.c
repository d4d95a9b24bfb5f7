/* The image of a store: made from a model, or filled by the manifest's reader.
 *
 * Owns the layout: which unit of the pass a tensor belongs to, in what order tensors stand, where they begin. Promises
 * that the layout depends on the model alone, so that packing twice gives the same bytes, and that every tensor of the
 * source is stored exactly once: what no pass uses goes into a last file, so that deleting the source loses nothing.
 * (Scales of codes that become other blocks have done their work.) In a layer the matrices come first, as they are
 * applied; then the vectors, which are read once when the model starts. So the matrices, whose sizes are nearly always
 * multiples of a page, keep the alignment of the first. */
#include "store/image.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

lamina_status image_new(memory *m, const char *path, image **out, lamina_error *err)
{
    *out = NULL;
    image *im = mem_alloc(m, MEM_MODEL, sizeof *im, err);
    if (!im) return NO_MEMORY(err);
    im->m = m;
    im->strings = arena_new(m, MEM_MODEL, err);
    im->path = im->strings ? arena_strndup(im->strings, path, strlen(path), err) : NULL;
    if (!im->path) {
        image_free(im);
        return NO_MEMORY(err);
    }
    *out = im;
    return LAMINA_OK;
}

void image_free(image *im)
{
    if (!im) return;
    json_decref(im->config);
    json_decref(im->generation);
    mem_free(im->m, im->sources);
    mem_free(im->m, im->files);
    mem_free(im->m, im->tensors);
    mem_free(im->m, im->importance);
    arena_free(im->strings);
    mem_free(im->m, im);
}

char *store_join(memory *m, const char *a, const char *b, lamina_error *err)
{
    size_t n = strlen(a), n_b = strlen(b);
    char *s = mem_alloc(m, MEM_OTHER, n + n_b + 2, err);
    if (!s) return NULL;
    memcpy(s, a, n);
    if (n && a[n - 1] != '/') s[n++] = '/';
    memcpy(s + n, b, n_b);
    return s;
}

/* ---- from a model -------------------------------------------------------------------------------------------- */

typedef struct layout {
    image *im;
    const model *from;
    const checkpoint *c;
    const image_target *targets; /* [c->n_tensors] */
    uint8_t *placed;             /* [c->n_tensors] */
    lamina_error *err;
} layout;

/* It says what codes mean that are quantised on their way into the store. */
static bool is_spent(const layout *l, size_t index)
{
    uint32_t codes = l->from->tensor_codes[index];
    return codes != TENSOR_NONE && l->targets[codes].type != l->c->tensors[codes].type;
}

static lamina_status place(layout *l, size_t index)
{
    image *im = l->im;
    if (index >= l->c->n_tensors) return error_set(l->err, LAMINA_E_USAGE, "pack: the model has an unbound tensor");
    if (l->placed[index]) return LAMINA_OK; /* tied: stored where it is first used */
    l->placed[index] = 1;
    if (is_spent(l, index)) return LAMINA_OK;
    const tensor *t = &l->c->tensors[index];
    const image_target *to = &l->targets[index];
    image_tensor *d = &im->tensors[im->n_tensors++];
    d->t = *t;
    d->from = t->type;
    d->from_row_bytes = t->row_bytes;
    d->scales = to->scales;
    d->importance = to->importance;
    d->importance_offset = IMPORTANCE_NONE;
    if (to->importance) {
        d->importance_offset = im->n_importance;
        im->n_importance += image_columns(t);
    }
    if (to->type != t->type || to->row_bytes != t->row_bytes) {
        uint64_t rows = image_rows(t);
        d->t.type = to->type;
        d->t.row_bytes = to->row_bytes;
        d->t.of = to->of;
        d->t.bytes = rows * tensor_row_bytes(&d->t, image_columns(t)); /* not larger than 2^63, as what it comes from */
    }
    d->t.name = arena_strndup(im->strings, t->name, strlen(t->name), l->err);
    if (!d->t.name) return NO_MEMORY(l->err);
    d->t.file = im->n_files;
    d->source = t->file;
    d->source_offset = t->offset;
    return LAMINA_OK;
}

static lamina_status place_weight(layout *l, const weight *w)
{
    if (!w->rows) return LAMINA_OK;
    for (uint32_t i = 0; i < w->n_pieces; i++) TRY(place(l, w->pieces[i]));
    TRY(place(l, w->tensor));
    return w->scales == TENSOR_NONE ? LAMINA_OK : place(l, w->scales);
}

/* In the order of use, each expert's matrices side by side. */
static lamina_status place_layer(layout *l, const model_layer *layer, uint32_t n_experts)
{
    for (int r = 0; r < ROLE_LAYER_COUNT; r++) TRY(place_weight(l, &layer->w[r]));
    for (uint32_t e = 0; layer->experts && e < n_experts; e++)
        for (int i = 0; i < EXPERT_MATRICES; i++) TRY(place_weight(l, &layer->experts[e].w[i]));
    return LAMINA_OK;
}

static lamina_status add_file(layout *l, const char *name)
{
    image *im = l->im;
    image_file *f = &im->files[im->n_files];
    *f = (image_file){.name = arena_strndup(im->strings, name, strlen(name), l->err)};
    if (!f->name) return NO_MEMORY(l->err);
    return LAMINA_OK;
}

/* Closes the file whose tensors begin at `first`: offsets and size. A file of no tensors is not made. */
static lamina_status end_file(layout *l, const char *unit, size_t first)
{
    image *im = l->im;
    if (im->n_tensors == first) return LAMINA_OK;
    char name[64];
    snprintf(name, sizeof name, STORE_LAYERS "/%s.safetensors", unit);
    TRY(add_file(l, name));
    image_file *f = &im->files[im->n_files];
    f->first = first;
    f->n_tensors = im->n_tensors - first;
    text header = {.m = im->m, .err = l->err};
    lamina_status status = image_header(im, im->n_files, &header);
    mem_free(im->m, header.data);
    TRY(status);
    uint64_t at = f->header_bytes = header.bytes;
    for (size_t i = first; i < im->n_tensors; i++) {
        im->tensors[i].t.offset = at;
        if (im->tensors[i].t.bytes > (uint64_t)INT64_MAX - at)
            return error_set(l->err, LAMINA_E_FORMAT, "%s: sizes overflow", im->tensors[i].t.name);
        at += im->tensors[i].t.bytes;
    }
    f->bytes = at;
    im->n_files++;
    return LAMINA_OK;
}

static lamina_status place_units(layout *l)
{
    const model *from = l->from;
    size_t first = 0;
    static const role begins[] = {ROLE_EMBED, ROLE_POSITIONS, ROLE_ROPE_FACTORS, ROLE_ROPE_LONG, ROLE_ROPE_SHORT};
    static const role ends[] = {ROLE_FINAL_NORM, ROLE_FINAL_NORM_BIAS, ROLE_HEAD, ROLE_HEAD_BIAS};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) TRY(place_weight(l, model_end(from, begins[i])));
    TRY(end_file(l, "embed", first));
    for (uint32_t i = 0; i < from->n_layers; i++) {
        first = l->im->n_tensors;
        TRY(place_layer(l, &from->layers[i], from->experts.count));
        char unit[32];
        snprintf(unit, sizeof unit, "%04u", i);
        TRY(end_file(l, unit, first));
    }
    first = l->im->n_tensors;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) TRY(place_weight(l, model_end(from, ends[i])));
    TRY(end_file(l, "head", first));
    first = l->im->n_tensors;
    for (size_t i = 0; i < l->c->n_tensors; i++) TRY(place(l, i));
    return end_file(l, "rest", first);
}

static lamina_status name_source(layout *l)
{
    image *im = l->im;
    const checkpoint *c = l->c;
    char *absolute;
    TRY(os_absolute(im->m, c->path, true, &absolute, l->err));
    im->source_path = arena_strndup(im->strings, absolute, strlen(absolute), l->err);
    mem_free(im->m, absolute);
    if (!im->source_path) return NO_MEMORY(l->err);
    im->source_kind = c->kind == CHECKPOINT_GGUF ? "gguf" : c->kind == CHECKPOINT_STORE ? "store" : "huggingface";
    for (uint32_t i = 0; i < c->n_files; i++) {
        image_source *s = &im->sources[im->n_sources++];
        s->name = arena_strndup(im->strings, c->files[i].name, strlen(c->files[i].name), l->err);
        if (!s->name) return NO_MEMORY(l->err);
        TRY(os_absolute(im->m, c->files[i].path, true, &absolute, l->err));
        s->path = arena_strndup(im->strings, absolute, strlen(absolute), l->err);
        mem_free(im->m, absolute);
        if (!s->path) return NO_MEMORY(l->err);
        bool exists;
        os_identity id;
        TRY(os_identify(s->path, true, &exists, &id, l->err));
        if (!exists) return error_set(l->err, LAMINA_E_IO, "%s: is no longer there", s->path);
        if (id.bytes != c->files[i].bytes)
            return error_set(l->err, LAMINA_E_IO, "%s: changed since it was opened: %llu bytes, now %llu", s->path,
                             (unsigned long long)c->files[i].bytes, (unsigned long long)id.bytes);
        s->bytes = id.bytes;
        s->modified_ns = id.modified_ns;
    }
    return LAMINA_OK;
}

static lamina_status begin_image(layout *l, image_tokenizer tok, image_request request)
{
    image *im = l->im;
    const checkpoint *c = l->c;
    memory *m = im->m;
    im->family = arena_strndup(im->strings, l->from->family, strlen(l->from->family), l->err);
    im->dialect = c->dialect;
    im->config = json_incref(c->config);
    im->generation = c->generation ? json_incref(c->generation) : NULL;
    im->sources = mem_array(m, MEM_MODEL, c->n_files, sizeof *im->sources, l->err);
    im->files = im->sources ? mem_array(m, MEM_MODEL, (size_t)l->from->n_layers + 4, sizeof *im->files, l->err) : NULL;
    if (!im->family || !im->files) return NO_MEMORY(l->err);
    im->calibration = request.calibration;
    if (request.spec) im->dtype = arena_strndup(im->strings, request.spec, strlen(request.spec), l->err);
    if (request.spec && !im->dtype) return NO_MEMORY(l->err);
    TRY(name_source(l));
    if (tok.bytes) {
        TRY(add_file(l, STORE_TOKENIZER));
        im->files[0].bytes = tok.bytes;
        im->files[0].xxh3 = tok.xxh3;
        im->n_files = 1;
    }
    return LAMINA_OK;
}

lamina_status image_begin(memory *m, const model *from, const char *path, image_tokenizer tok, image_request request,
                          image **out, lamina_error *err)
{
    const checkpoint *c = from->source;
    *out = NULL;
    if (c->kind == CHECKPOINT_CONFIG || c->n_tensors == 0)
        return error_set(err, LAMINA_E_USAGE, "%s: a configuration without weights cannot be packed", c->path);
    layout l = {.from = from, .c = c, .err = err};
    TRY(image_new(m, path, &l.im, err));
    lamina_status status = begin_image(&l, tok, request);
    if (status != LAMINA_OK) {
        image_free(l.im);
        return status;
    }
    *out = l.im;
    return LAMINA_OK;
}

/* Takes the columns' importance to where it stays. */
static lamina_status keep_importance(image *im, lamina_error *err)
{
    if (!im->n_importance) return LAMINA_OK;
    im->importance = mem_array(im->m, MEM_OTHER, (size_t)im->n_importance, sizeof *im->importance, err);
    if (!im->importance) return NO_MEMORY(err);
    for (size_t i = 0; i < im->n_tensors; i++) {
        image_tensor *x = &im->tensors[i];
        if (!x->importance) continue;
        float *own = im->importance + x->importance_offset;
        memcpy(own, x->importance, image_columns(&x->t) * sizeof *own);
        x->importance = own;
    }
    im->importance_xxh3 = XXH3_64bits(im->importance, im->n_importance * sizeof *im->importance);
    return LAMINA_OK;
}

lamina_status image_lay_out(image *im, const model *from, const image_target *targets, lamina_error *err)
{
    const checkpoint *c = from->source;
    layout l = {.im = im, .from = from, .c = c, .targets = targets, .err = err};
    im->tensors = mem_array(im->m, MEM_MODEL, c->n_tensors, sizeof *im->tensors, err);
    l.placed = im->tensors ? mem_alloc(im->m, MEM_OTHER, c->n_tensors, err) : NULL;
    if (!l.placed) return NO_MEMORY(err);
    lamina_status status = place_units(&l);
    mem_free(im->m, l.placed);
    if (status == LAMINA_OK && (im->n_files > STORE_MAX_FILES || im->n_tensors > STORE_MAX_TENSORS))
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: %u files and %zu tensors are more than a store holds", c->path,
                         im->n_files, im->n_tensors);
    return status == LAMINA_OK ? keep_importance(im, err) : status;
}

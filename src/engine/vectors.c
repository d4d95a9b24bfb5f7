/* Norms, biases and scales: small, needed by every pass, so they are read once, widened to f32 and kept. They lie
 * scattered through the files; all are asked for at once, so that opening costs a few device latencies and not
 * hundreds; long ones in pieces, so that it costs little memory. */
#include "engine/engine.h"

enum { DEPTH = 32, PIECE = 1 << 15 /* elements */ };

typedef struct wanted { /* a piece of a vector */
    const char *name;
    float *to;
    uint64_t offset, n; /* in the file; elements */
    uint32_t file;
    dtype type;
} wanted;

typedef struct loader {
    lamina_engine *e;
    reader *r;
    wanted *list; /* [n]; NULL while they are counted */
    size_t n;
    float *at; /* where the next vector goes; NULL while they are counted */
    uint64_t elements;
    uint64_t longest;       /* piece, in bytes */
    unsigned char *staging; /* [DEPTH] slots of slot_bytes */
    size_t slot_bytes;
    read_request request[DEPTH];
    size_t item[DEPTH]; /* what each request is for */
} loader;

static void want_piece(loader *l, const wanted *v, uint64_t from, float *to)
{
    uint64_t n = v->n - from < PIECE ? v->n - from : PIECE, bytes = n * dtype_row_bytes(v->type, 1);
    if (bytes > l->longest) l->longest = bytes;
    if (l->list) {
        wanted *w = &l->list[l->n];
        *w = *v;
        w->offset += from * dtype_row_bytes(v->type, 1);
        w->n = n;
        w->to = to + from;
    }
    l->n++;
}

static float *take(loader *l, uint64_t n)
{
    float *to = l->at;
    uint64_t padded = (n + 15) & ~UINT64_C(15);
    l->elements += padded;
    if (l->at) l->at += padded;
    return to;
}

static uint64_t scales_count(const weight *w)
{
    return (w->grid.row0 + w->rows + w->grid.rows - 1) / w->grid.rows * w->grid.stride;
}

/* Gives a vector its place in the block and lists its pieces. */
static const float *want(loader *l, const wanted *v)
{
    float *to = take(l, v->n);
    for (uint64_t from = 0; from < v->n; from += PIECE) want_piece(l, v, from, to);
    return to;
}

/* The same for one that lies in several tensors. */
static const float *want_pieces(loader *l, const weight *w)
{
    float *to = take(l, w->cols);
    uint64_t n = w->cols / w->n_pieces;
    for (uint32_t i = 0; i < w->n_pieces; i++) {
        const tensor *t = &l->e->ckpt->tensors[w->pieces[i]];
        wanted v = {.name = t->name, .file = t->file, .offset = t->offset, .n = n, .type = t->type};
        for (uint64_t from = 0; from < n; from += PIECE) want_piece(l, &v, from, to ? to + i * n : NULL);
    }
    return to;
}

static const float *want_weight(loader *l, const weight *w)
{
    if (!w->rows) return NULL;
    if (w->pieces) return want_pieces(l, w);
    wanted v = {.name = w->name, .file = w->file, .offset = w->offset, .n = w->cols, .type = w->type};
    return want(l, &v);
}

/* The scales of a dense matrix. Those that are codes get their place alone. */
static const float *want_scales(loader *l, const weight *w)
{
    if (!w->rows || w->scales == TENSOR_NONE || !dtype_has_scales(w->type)) return NULL;
    const tensor *t = &l->e->ckpt->tensors[w->scales];
    wanted v = {.name = t->name, .file = t->file, .offset = t->offset + w->scales_offset, .type = t->type};
    v.n = scales_count(w);
    return w->nested ? take(l, v.n) : want(l, &v);
}

/* Walks over all of them; with a list and a place, fills both and the engine's pointers. */
static void walk(loader *l)
{
    lamina_engine *e = l->e;
    const model *mo = e->model;
    layer_vectors none;
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        layer_vectors *to = l->list ? &e->vectors.layers[i] : &none;
        const weight *w = mo->layers[i].w;
        for (int r = 0; r < ROLE_MATRICES; r++) to->v[r] = want_scales(l, &w[r]);
        for (int r = ROLE_MATRICES; r < ROLE_LAYER_COUNT; r++) to->v[r] = want_weight(l, &w[r]);
    }
    const float *norm = want_weight(l, model_end(mo, ROLE_FINAL_NORM));
    const float *norm_bias = want_weight(l, model_end(mo, ROLE_FINAL_NORM_BIAS));
    const float *head_bias = want_weight(l, model_end(mo, ROLE_HEAD_BIAS));
    const float *head_scales = want_scales(l, model_end(mo, ROLE_HEAD));
    if (!l->list) return;
    e->vectors.final_norm = norm;
    e->vectors.final_norm_bias = norm_bias;
    e->vectors.head_bias = head_bias;
    e->vectors.head_scales = head_scales;
}

static uint64_t block_bytes(lamina_engine *e)
{
    loader l = {.e = e};
    walk(&l);
    return 4096 + (l.elements + e->model->heads) * sizeof(float);
}

uint64_t vectors_bytes(lamina_engine *e)
{
    return block_bytes(e) + e->model->n_layers * sizeof(layer_vectors);
}

static void ask(loader *l, size_t slot, size_t item)
{
    const wanted *w = &l->list[item];
    uint64_t begin = w->offset / READ_ALIGN * READ_ALIGN, end = w->offset + w->n * dtype_row_bytes(w->type, 1);
    l->item[slot] = item;
    l->request[slot] = (read_request){
        .file = w->file,
        .offset = begin,
        .bytes = (uint32_t)((end - begin + READ_ALIGN - 1) / READ_ALIGN * READ_ALIGN),
        .needed = (uint32_t)(end - begin),
        .data = l->staging + slot * l->slot_bytes,
    };
    reader_submit(l->r, &l->request[slot]);
}

static lamina_status read_all(loader *l, lamina_error *err)
{
    lamina_status status = LAMINA_OK;
    size_t next = 0;
    for (size_t slot = 0; slot < DEPTH && next < l->n; slot++) ask(l, slot, next++);
    reader_flush(l->r);
    for (read_request *q; (q = reader_wait(l->r, true));) {
        size_t slot = (size_t)(q - l->request);
        const wanted *w = &l->list[l->item[slot]];
        if (q->error && status == LAMINA_OK) {
            char why[128];
            status = error_set(err, LAMINA_E_IO, "%s: reading %s at offset %llu: %s", l->e->ckpt->files[w->file].path,
                               w->name, (unsigned long long)w->offset, os_error_text(q->error, why, sizeof why));
        }
        if (status != LAMINA_OK) continue; /* what is in flight must still come back */
        const unsigned char *data = l->staging + slot * l->slot_bytes + w->offset % READ_ALIGN;
        matrix_rows m = {.type = w->type, .data = data, .n_rows = 1, .cols = w->n};
        l->e->backend->ops->widen(l->e->backend, &m, w->to);
        if (next < l->n) {
            ask(l, slot, next++);
            reader_flush(l->r);
        }
    }
    return status;
}

static lamina_status load_list(lamina_engine *e, loader *l, lamina_error *err)
{
    l->slot_bytes = (l->longest + 3 * READ_ALIGN) / READ_ALIGN * READ_ALIGN;
    l->staging = mem_pages(e->m, MEM_OTHER, DEPTH * l->slot_bytes, err);
    if (!l->staging) return LAMINA_E_MEMORY;
    reader_config config = {
        .m = e->m, .io = e->options.io, .depth = DEPTH, .n_files = e->ckpt->n_files, .paths = e->paths};
    lamina_status status = reader_new(&config, &l->r, err);
    if (status == LAMINA_OK) status = read_all(l, err);
    reader_free(l->r);
    mem_pages_free(e->m, MEM_OTHER, l->staging, DEPTH * l->slot_bytes);
    return status;
}

/* ---- scales that are codes ----------------------------------------------------------------------------------------- */

/* One matrix's: levels [256] and the scales of the codes behind them, then the codes piece by piece. */
typedef struct expansion {
    lamina_engine *e;
    const weight *w;
    float *to;              /* backend memory */
    float *levels, *scales; /* host memory */
    uint8_t *codes;         /* [PIECE] */
    float *host;            /* [PIECE] */
} expansion;

static lamina_status read_tensor(const lamina_engine *e, const tensor *t, uint64_t at, void *data, uint64_t bytes,
                                 lamina_error *err)
{
    const char *path = e->ckpt->files[t->file].path;
    os_file f;
    TRY(os_open(path, OS_READ, &f, err));
    lamina_status status = os_read_at(&f, path, t->offset + at, data, bytes, err);
    os_close(&f);
    return status;
}

static lamina_status expand(const expansion *x, lamina_error *err)
{
    const nested_scales *nested = x->w->nested;
    const tensor *all = x->e->ckpt->tensors, *codes = &all[x->w->scales];
    uint64_t total = scales_count(x->w), first = x->w->scales_offset;
    TRY(read_tensor(x->e, &all[nested->map], 0, x->levels, all[nested->map].bytes, err));
    TRY(read_tensor(x->e, &all[nested->scales], 0, x->scales, all[nested->scales].bytes, err));
    for (uint64_t done = 0; done < total; done += PIECE) {
        uint64_t n = total - done < PIECE ? total - done : PIECE;
        TRY(read_tensor(x->e, codes, first + done, x->codes, n, err));
        for (uint64_t i = 0; i < n; i++)
            x->host[i] = x->levels[x->codes[i]] * x->scales[(first + done + i) / nested->block] + nested->offset;
        x->e->backend->ops->upload(x->e->backend, x->to + done, x->host, n * sizeof *x->host);
    }
    return LAMINA_OK;
}

static lamina_status load_nested(lamina_engine *e, const weight *w, const float *to, lamina_error *err)
{
    if (!to || !w->nested) return LAMINA_OK;
    size_t map = e->ckpt->tensors[w->nested->map].bytes, scales = e->ckpt->tensors[w->nested->scales].bytes;
    float *held = mem_alloc(e->m, MEM_OTHER, map + scales + PIECE * (sizeof(float) + 1), err);
    if (!held) return LAMINA_E_MEMORY;
    expansion x = {.e = e, .w = w, .to = (float *)(uintptr_t)to, .levels = held};
    x.scales = x.levels + map / sizeof(float);
    x.host = x.scales + scales / sizeof(float);
    x.codes = (uint8_t *)(x.host + PIECE);
    lamina_status status = expand(&x, err);
    mem_free(e->m, held);
    return status;
}

static lamina_status load_all_nested(lamina_engine *e, lamina_error *err)
{
    const model *mo = e->model;
    for (uint32_t i = 0; i < mo->n_layers; i++)
        for (int r = 0; r < ROLE_MATRICES; r++)
            TRY(load_nested(e, &mo->layers[i].w[r], e->vectors.layers[i].v[r], err));
    return load_nested(e, model_end(mo, ROLE_HEAD), e->vectors.head_scales, err);
}

/* Factors of rotation go to host memory: they shape frequencies, they are not applied. */
static lamina_status load_factors(lamina_engine *e, role r, float **out, lamina_error *err)
{
    const weight *w = model_end(e->model, r);
    if (!w->rows) return LAMINA_OK;
    os_file f;
    *out = mem_array(e->m, MEM_VECTOR, w->cols, sizeof(float), err);
    if (!*out) return LAMINA_E_MEMORY;
    const checkpoint_file *file = &e->ckpt->files[w->file];
    TRY(os_open(file->path, OS_READ, &f, err));
    lamina_status status = os_read_at(&f, file->path, w->offset, *out, w->cols * sizeof(float), err);
    os_close(&f);
    return status;
}

static lamina_status make_slopes(lamina_engine *e, float *to, lamina_error *err)
{
    const model *mo = e->model;
    if (mo->position != POSITION_ALIBI) return LAMINA_OK;
    float *host = mem_array(e->m, MEM_OTHER, mo->heads, sizeof *host, err);
    if (!host) return LAMINA_E_MEMORY;
    for (uint32_t h = 0; h < mo->heads; h++) host[h] = alibi_slope(mo->heads, h);
    e->backend->ops->upload(e->backend, to, host, mo->heads * sizeof *host);
    mem_free(e->m, host);
    e->vectors.slopes = to;
    return LAMINA_OK;
}

/* Norms that multiply by 1 + weight get the sum. */
static void add_one(lamina_engine *e, const float *v, uint64_t n, float *host)
{
    const backend_ops *ops = e->backend->ops;
    if (!v) return;
    ops->download(e->backend, host, v, n * sizeof *host);
    for (uint64_t i = 0; i < n; i++) host[i] += 1.0f;
    ops->upload(e->backend, (float *)(uintptr_t)v, host, n * sizeof *host);
}

static lamina_status add_offsets(lamina_engine *e, lamina_error *err)
{
    static const role norms[] = {ROLE_ATTN_NORM,      ROLE_Q_NORM,   ROLE_K_NORM,
                                 ROLE_POST_ATTN_NORM, ROLE_FFN_NORM, ROLE_POST_FFN_NORM};
    const model *mo = e->model;
    if (!mo->norm_offset) return LAMINA_OK;
    uint64_t widest = mo->hidden > mo->heads * mo->head_dim ? mo->hidden : mo->heads * mo->head_dim;
    float *host = mem_array(e->m, MEM_OTHER, widest, sizeof *host, err);
    if (!host) return LAMINA_E_MEMORY;
    for (uint32_t i = 0; i < mo->n_layers; i++)
        for (size_t k = 0; k < sizeof norms / sizeof *norms; k++)
            add_one(e, e->vectors.layers[i].v[norms[k]], mo->layers[i].w[norms[k]].cols, host);
    add_one(e, e->vectors.final_norm, mo->hidden, host);
    mem_free(e->m, host);
    return LAMINA_OK;
}

static lamina_status load_block(lamina_engine *e, loader *l, lamina_error *err)
{
    walk(l); /* counts */
    l->list = mem_array(e->m, MEM_OTHER, l->n, sizeof *l->list, err);
    if (!l->list) return LAMINA_E_MEMORY;
    l->n = 0;
    l->elements = 0;
    l->at = e->vectors.block;
    walk(l);
    return load_list(e, l, err);
}

lamina_status vectors_load(lamina_engine *e, lamina_error *err)
{
    const model *mo = e->model;
    e->vectors.layers = mem_array(e->m, MEM_VECTOR, mo->n_layers, sizeof *e->vectors.layers, err);
    if (!e->vectors.layers) return LAMINA_E_MEMORY;
    e->vectors.bytes = block_bytes(e);
    e->vectors.block = e->backend->ops->alloc(e->backend, MEM_VECTOR, e->vectors.bytes, err);
    if (!e->vectors.block) return LAMINA_E_MEMORY;
    loader *l = mem_alloc(e->m, MEM_OTHER, sizeof *l, err);
    if (!l) return LAMINA_E_MEMORY;
    l->e = e;
    lamina_status status = load_block(e, l, err);
    float *behind = l->at;
    mem_free(e->m, l->list);
    mem_free(e->m, l);
    TRY(status);
    TRY(load_all_nested(e, err));
    TRY(add_offsets(e, err));
    TRY(make_slopes(e, behind, err));
    TRY(load_factors(e, ROLE_ROPE_FACTORS, &e->vectors.rope_factors, err));
    TRY(load_factors(e, ROLE_ROPE_LONG, &e->vectors.rope_long, err));
    return load_factors(e, ROLE_ROPE_SHORT, &e->vectors.rope_short, err);
}

void vectors_free(lamina_engine *e)
{
    if (e->vectors.block) e->backend->ops->free(e->backend, MEM_VECTOR, e->vectors.block, e->vectors.bytes);
    mem_free(e->m, e->vectors.layers);
    mem_free(e->m, e->vectors.rope_factors);
    mem_free(e->m, e->vectors.rope_long);
    mem_free(e->m, e->vectors.rope_short);
    e->vectors = (vectors){0};
}

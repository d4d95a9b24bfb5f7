/* Norms and biases: small, needed by every pass, so they are read once, widened to f32 and kept. They lie scattered
 * through the files; all are asked for at once, so that opening costs a few device latencies and not hundreds. */
#include "engine/engine.h"

enum { DEPTH = 32 };

typedef struct wanted {
    const weight *w;
    float *to;
} wanted;

typedef struct loader {
    lamina_engine *e;
    reader *r;
    wanted *list; /* [n] */
    size_t n;
    unsigned char *staging; /* [DEPTH] slots of slot_bytes */
    size_t slot_bytes;
    read_request request[DEPTH];
    size_t item[DEPTH]; /* what each request is for */
} loader;

static uint64_t padded(const weight *w)
{
    return (w->cols * sizeof(float) + 63) & ~UINT64_C(63);
}

static size_t count(const model *mo)
{
    size_t n = mo->final_norm.rows ? 1 : 0;
    for (uint32_t i = 0; i < mo->n_layers; i++)
        for (int r = ROLE_MATRICES; r < ROLE_LAYER_COUNT; r++) n += mo->layers[i].w[r].rows ? 1 : 0;
    return n;
}

static uint64_t block_bytes(const model *mo)
{
    uint64_t bytes = 4096 + (mo->final_norm.rows ? padded(&mo->final_norm) : 0);
    for (uint32_t i = 0; i < mo->n_layers; i++)
        for (int r = ROLE_MATRICES; r < ROLE_LAYER_COUNT; r++)
            if (mo->layers[i].w[r].rows) bytes += padded(&mo->layers[i].w[r]);
    return bytes;
}

uint64_t vectors_bytes(const model *mo)
{
    return block_bytes(mo) + mo->n_layers * sizeof(layer_vectors);
}

/* Gives every vector its place in the block and lists what must be read. */
static void place(lamina_engine *e, loader *l)
{
    const model *mo = e->model;
    float *at = e->vectors.block;
    for (uint32_t i = 0; i < mo->n_layers; i++)
        for (int r = ROLE_MATRICES; r < ROLE_LAYER_COUNT; r++) {
            const weight *w = &mo->layers[i].w[r];
            if (!w->rows) continue;
            e->vectors.layers[i].v[r] = at;
            l->list[l->n++] = (wanted){w, at};
            at += padded(w) / sizeof(float);
        }
    if (!mo->final_norm.rows) return;
    e->vectors.final_norm = at;
    l->list[l->n++] = (wanted){&mo->final_norm, at};
}

static void ask(loader *l, size_t slot, size_t item)
{
    const weight *w = l->list[item].w;
    uint64_t begin = w->offset / READ_ALIGN * READ_ALIGN, end = w->offset + w->bytes;
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
            status =
                error_set(err, LAMINA_E_IO, "%s: reading %s at offset %llu: %s", l->e->ckpt->files[w->w->file].path,
                          w->w->name, (unsigned long long)w->w->offset, os_error_text(q->error, why, sizeof why));
        }
        if (status != LAMINA_OK) continue; /* what is in flight must still come back */
        const unsigned char *data = l->staging + slot * l->slot_bytes + w->w->offset % READ_ALIGN;
        matrix_rows m = {.type = w->w->type, .data = data, .n_rows = 1, .cols = w->w->cols};
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
    uint64_t most = 0;
    for (size_t i = 0; i < l->n; i++)
        if (l->list[i].w->bytes > most) most = l->list[i].w->bytes;
    l->slot_bytes = (most + 3 * READ_ALIGN) / READ_ALIGN * READ_ALIGN;
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

/* The tensor of rope factors goes to host memory: it shapes frequencies, it is not applied. */
static lamina_status load_factors(lamina_engine *e, lamina_error *err)
{
    const weight *w = &e->model->rope_factors;
    if (!w->rows) return LAMINA_OK;
    os_file f;
    e->vectors.rope_factors = mem_array(e->m, MEM_VECTOR, w->cols, sizeof(float), err);
    if (!e->vectors.rope_factors) return LAMINA_E_MEMORY;
    const checkpoint_file *file = &e->ckpt->files[w->file];
    TRY(os_open(file->path, OS_READ, &f, err));
    lamina_status status = LAMINA_OK;
    if (w->type != DT_F32)
        status = error_set(err, LAMINA_E_UNSUPPORTED, "%s: type %s, expected f32", w->name, dtype_name(w->type));
    else
        status = os_read_at(&f, file->path, w->offset, e->vectors.rope_factors, w->cols * sizeof(float), err);
    os_close(&f);
    return status;
}

lamina_status vectors_load(lamina_engine *e, lamina_error *err)
{
    const model *mo = e->model;
    e->vectors.layers = mem_array(e->m, MEM_VECTOR, mo->n_layers, sizeof *e->vectors.layers, err);
    if (!e->vectors.layers) return LAMINA_E_MEMORY;
    e->vectors.bytes = block_bytes(mo);
    e->vectors.block = e->backend->ops->alloc(e->backend, MEM_VECTOR, e->vectors.bytes, err);
    if (!e->vectors.block) return LAMINA_E_MEMORY;
    loader *l = mem_alloc(e->m, MEM_OTHER, sizeof *l, err);
    if (!l) return LAMINA_E_MEMORY;
    l->e = e;
    l->list = mem_array(e->m, MEM_OTHER, count(mo), sizeof *l->list, err);
    lamina_status status = l->list ? LAMINA_OK : LAMINA_E_MEMORY;
    if (status == LAMINA_OK) {
        place(e, l);
        status = load_list(e, l, err);
    }
    mem_free(e->m, l->list);
    mem_free(e->m, l);
    if (status == LAMINA_OK) status = load_factors(e, err);
    return status;
}

void vectors_free(lamina_engine *e)
{
    if (e->vectors.block) e->backend->ops->free(e->backend, MEM_VECTOR, e->vectors.block, e->vectors.bytes);
    mem_free(e->m, e->vectors.layers);
    mem_free(e->m, e->vectors.rope_factors);
    e->vectors = (vectors){0};
}

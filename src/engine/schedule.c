/* The order of the pass, written down once: layer by layer its matrices in the order of their roles, then the head. The
 * forward pass asks for matrices in this order and the stream reads them in it, so neither has to tell the other. Here,
 * too, that stream is made. */
#include "engine/engine.h"

static void put(schedule *s, const weight *w, role r, int32_t layer)
{
    if (w->rows == 0) return;
    s->stream[s->n] = (stream_matrix){.name = w->name,
                                      .layer = layer,
                                      .file = w->file,
                                      .offset = w->offset,
                                      .rows = w->rows,
                                      .row_bytes = w->row_bytes};
    s->matrix[s->n] = (pass_matrix){.type = w->type, .cols = w->cols, .transposed = w->transposed, .role = r};
    s->n++;
}

/* Rows [from, from + n) of each of `heads` runs of `step` rows, as matrices of their own. */
static void put_heads(schedule *s, const model *mo, const weight *w, role r, int32_t layer, uint64_t from, uint64_t n)
{
    uint64_t step = w->rows / mo->heads;
    for (uint32_t h = 0; h < mo->heads && w->rows; h++) {
        weight part = *w;
        part.rows = n;
        part.offset = w->offset + (h * step + from) * w->row_bytes;
        put(s, &part, r, layer);
        s->matrix[s->n - 1].row0 = h * step + from;
    }
}

/* What expands the latent to each head's keys is applied to queries, before attention; what expands it to values, to
 * what was attended, behind it. */
static void put_latent(schedule *s, const model *mo, const weight *w, int32_t layer)
{
    const weight *both = &w[ROLE_KV_B];
    size_t first = s->n;
    put_heads(s, mo, both, ROLE_KV_B, layer, 0, mo->nope_dim);
    for (size_t i = first; i < s->n; i++) s->matrix[i].transposed = true;
    put_heads(s, mo, &w[ROLE_K_B], ROLE_K_B, layer, 0, mo->kv_lora);
    put_heads(s, mo, both, ROLE_KV_B, layer, mo->nope_dim, mo->v_dim);
    put_heads(s, mo, &w[ROLE_V_B], ROLE_V_B, layer, 0, mo->v_dim);
}

static void put_layer(schedule *s, const model *mo, uint32_t index)
{
    const weight *w = mo->layers[index].w;
    for (int r = 0; r < ROLE_MATRICES; r++) {
        if (r == ROLE_KV_B) put_latent(s, mo, w, (int32_t)index);
        if (r != ROLE_KV_B && r != ROLE_K_B && r != ROLE_V_B) put(s, &w[r], (role)r, (int32_t)index);
    }
}

lamina_status schedule_make(memory *m, const model *mo, schedule *out, lamina_error *err)
{
    size_t of_layer = ROLE_MATRICES + (mo->mixer == MIXER_MLA ? 2 * (size_t)mo->heads : 0);
    size_t most = mo->n_layers * of_layer + 1;
    *out = (schedule){0};
    out->stream = mem_array(m, MEM_MODEL, most, sizeof *out->stream, err);
    if (!out->stream) return LAMINA_E_MEMORY;
    out->matrix = mem_array(m, MEM_MODEL, most, sizeof *out->matrix, err);
    if (!out->matrix) return LAMINA_E_MEMORY; /* the engine's close frees what stands */
    for (uint32_t i = 0; i < mo->n_layers; i++) put_layer(out, mo, i);
    out->tail = out->n;
    put(out, model_end(mo, ROLE_HEAD), ROLE_HEAD, -1);
    return LAMINA_OK;
}

void schedule_free(memory *m, schedule *s)
{
    mem_free(m, s->stream);
    mem_free(m, s->matrix);
    *s = (schedule){0};
}

lamina_status engine_stream(lamina_engine *e, uint64_t chunk, uint64_t ring, uint64_t pin_budget, bool tune,
                            stream **out, lamina_error *err)
{
    stream_config config = {.m = e->m,
                            .trace = e->trace,
                            .io = e->options.io,
                            .faults = e->options.faults,
                            .n_files = e->ckpt->n_files,
                            .paths = e->paths,
                            .file_bytes = e->sizes,
                            .n_matrices = e->schedule.n,
                            .matrices = e->schedule.stream,
                            .tail = e->schedule.tail,
                            .chunk_bytes = chunk,
                            .ring_bytes = ring,
                            .pin_budget = pin_budget,
                            .tune = tune};
    return stream_new(&config, out, err);
}

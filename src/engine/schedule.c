/* The order of the pass, written down once: layer by layer q, k, v, o, gate, up, down, then the head. The forward pass
 * asks for matrices in this order and the stream reads them in it, so neither has to tell the other. Here, too, that
 * stream is made. */
#include "engine/engine.h"

const weight *head_weight(const model *mo)
{
    return mo->tied_head ? &mo->embed : &mo->head;
}

static void put(schedule *s, const weight *w, int32_t index)
{
    if (w->rows == 0) return;
    s->stream[s->n] = (stream_matrix){.name = w->name,
                                      .layer = index,
                                      .file = w->file,
                                      .offset = w->offset,
                                      .rows = w->rows,
                                      .row_bytes = dtype_row_bytes(w->type, w->cols)};
    s->matrix[s->n] = (pass_matrix){.type = w->type, .cols = w->cols};
    s->n++;
}

lamina_status schedule_make(memory *m, const model *mo, schedule *out, lamina_error *err)
{
    size_t most = (size_t)mo->n_layers * ROLE_MATRICES + 1;
    *out = (schedule){0};
    out->stream = mem_array(m, MEM_MODEL, most, sizeof *out->stream, err);
    if (!out->stream) return LAMINA_E_MEMORY;
    out->matrix = mem_array(m, MEM_MODEL, most, sizeof *out->matrix, err);
    if (!out->matrix) return LAMINA_E_MEMORY; /* the engine's close frees what stands */
    for (uint32_t i = 0; i < mo->n_layers; i++)
        for (int r = 0; r < ROLE_MATRICES; r++) put(out, &mo->layers[i].w[r], (int32_t)i);
    out->tail = out->n;
    put(out, head_weight(mo), -1);
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

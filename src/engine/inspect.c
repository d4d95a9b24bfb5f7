/* What is known about an opened engine, for those who look: the model, its tensors, its axes, its statistics. */
#include "engine/engine.h"
#include "model/family.h"

static const char *source_name(const checkpoint *c)
{
    static const char *const names[] = {"huggingface", "gguf", "store", "config"};
    return c ? names[c->kind] : "tokenizer";
}

void lamina_model(const lamina_engine *e, lamina_model_info *info)
{
    *info = (lamina_model_info){.family = "",
                                .source = source_name(e->ckpt),
                                .path = e->path,
                                .has_tokenizer = e->tok != NULL,
                                .bos_token = -1};
    const model *mo = e->model;
    if (!mo) {
        if (e->tok) info->vocab = tokenizer_vocab(e->tok);
        return;
    }
    info->family = mo->family;
    info->has_weights = e->ckpt->n_files > 0;
    info->n_layers = mo->n_layers;
    info->hidden = mo->hidden;
    info->vocab = mo->vocab;
    info->max_context = mo->max_context;
    info->n_parameters = mo->n_parameters;
    info->weight_bytes = mo->weight_bytes;
    info->n_tensors = e->ckpt->n_tensors;
    info->n_axes = mo->n_axes;
    info->bos_token = mo->bos;
    info->eos_tokens = mo->eos;
    info->n_eos = mo->n_eos;
}

lamina_status lamina_tensor(const lamina_engine *e, size_t index, lamina_tensor_info *info)
{
    *info = (lamina_tensor_info){0};
    if (!e->model || index >= e->ckpt->n_tensors) return LAMINA_E_USAGE;
    const tensor *t = &e->ckpt->tensors[index];
    uint8_t r = e->model->tensor_roles[index];
    *info = (lamina_tensor_info){.name = t->name,
                                 .role = r ? role_name((role)(r - 1)) : "",
                                 .dtype = dtype_name((dtype)e->model->tensor_types[index]),
                                 .file = e->ckpt->n_files ? e->ckpt->files[t->file].name : "",
                                 .layer = e->model->tensor_layers[index],
                                 .n_dims = t->n_dims,
                                 .offset = t->offset,
                                 .bytes = t->bytes};
    for (uint32_t i = 0; i < t->n_dims && i < 4; i++) info->shape[i] = t->shape[i];
    dtype as = (dtype)e->model->tensor_types[index];
    bool pairs = as == DT_NF4_PAIRS || as == DT_FP4_PAIRS || as == DT_MXFP4_PAIRS;
    if (pairs && t->n_dims) info->shape[t->n_dims - 1] *= 2; /* elements, not bytes */
    return LAMINA_OK;
}

lamina_status lamina_axis(const lamina_engine *e, size_t index, const char **name, const char **value)
{
    *name = *value = "";
    if (!e->model || index >= e->model->n_axes) return LAMINA_E_USAGE;
    *name = e->model->axis_names[index];
    *value = e->model->axis_values[index];
    return LAMINA_OK;
}

void engine_reading(const lamina_engine *e, uint64_t *bytes, double *stall_seconds)
{
    stream_stats s = {0};
    experts_stats x = {0};
    if (e->stream) stream_get_stats(e->stream, &s);
    if (e->experts) experts_get_stats(e->experts, &x);
    *bytes = s.bytes_read + x.bytes_read;
    *stall_seconds = s.stall_seconds + x.stall_seconds;
}

static void take_expert_stats(const experts *x, lamina_stats *stats)
{
    experts_stats s;
    experts_get_stats(x, &s);
    stats->experts_wanted = s.wanted;
    stats->expert_hits = s.hits;
    stats->experts_resident = s.resident;
    stats->expert_bytes_read = s.bytes_read;
    stats->expert_missed_bytes = s.missed_bytes;
}

void lamina_get_stats(const lamina_engine *e, lamina_stats *stats)
{
    *stats = e->stats;
    stats->peak_rss_bytes = os_peak_resident_bytes();
    stats->accounted_bytes = memory_used(e->m);
    stats->io = stats->io_note = stats->isa = "";
    stats->budget_bytes = e->plan.budget_bytes;
    stats->minimum_bytes = e->plan.minimum_bytes;
    stats->predicted_peak_bytes = e->plan.predicted_peak_bytes;
    stats->pinned_bytes = e->plan.pinned_bytes;
    stats->streamed_bytes_per_pass = e->plan.streamed_bytes_per_pass;
    if (e->pool) stats->threads = pool_threads(e->pool);
    if (e->backend) stats->isa = backend_cpu_isa(e->backend);
    if (!e->stream) return;
    stream_stats s;
    stream_get_stats(e->stream, &s);
    engine_reading(e, &stats->bytes_read, &stats->stall_seconds);
    if (e->experts) take_expert_stats(e->experts, stats);
    if (s.first_read > 0) stats->seconds_to_first_read = s.first_read - e->opened_at;
    stats->io = reader_name(stream_reader(e->stream));
    stats->io_note = reader_note(stream_reader(e->stream));
    stats->io_depth = stream_depth(e->stream);
    stats->chunk_bytes = stream_read_bytes(e->stream);
}

void lamina_stats_reset(lamina_engine *e)
{
    e->stats = (lamina_stats){0};
    if (e->stream) stream_reset_stats(e->stream);
    if (e->experts) experts_reset_stats(e->experts);
}

/* The buffer takes what the budget leaves, less what the process has grown by beside the accountant. */
static double measure_ram(lamina_engine *e, double seconds)
{
    static const uint64_t grown = 2 << 20;
    if (e->started) memory_set_limit(e->m, e->limit > grown ? e->limit - grown : 1);
    double rate = backend_cpu_measure_ram(e->backend, seconds);
    if (e->started) memory_set_limit(e->m, e->limit);
    if (rate > 0) e->ram_rate = rate;
    return e->ram_rate;
}

lamina_status lamina_measure(lamina_engine *e, lamina_measure_kind kind, double seconds, double *per_second,
                             lamina_error *err)
{
    *per_second = 0;
    if (!(seconds > 0 && seconds <= 3600))
        return error_set(err, LAMINA_E_USAGE, "%g seconds: expected 0 to 3600", seconds);
    TRY(engine_backend(e, err));
    switch (kind) {
    case LAMINA_MEASURE_DISK:
        if (!e->stream) return error_set(err, LAMINA_E_USAGE, "measuring the disk needs a started engine");
        if (e->experts) return stream_measure_all(e->stream, seconds, per_second, err);
        return stream_measure(e->stream, seconds, per_second, err);
    case LAMINA_MEASURE_RAM:
        *per_second = measure_ram(e, seconds);
        return LAMINA_OK;
    case LAMINA_MEASURE_FMA:
        *per_second = e->fma_rate = backend_cpu_measure_fma(e->backend, seconds);
        return LAMINA_OK;
    }
    return error_set(err, LAMINA_E_USAGE, "unknown kind of measurement %d", (int)kind);
}

bool lamina_family(size_t index, lamina_family_info *info)
{
    static const char *const none[] = {NULL};
    const family *f = family_at(index);
    *info = (lamina_family_info){.name = "", .model_types = none};
    if (!f) return false;
    *info = (lamina_family_info){
        .name = f->name, .title = f->title, .model_types = f->also ? f->also : none, .architecture = f->architecture};
    return true;
}

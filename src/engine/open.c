/* Opening, starting and closing an engine. Opening reads descriptions only; starting takes memory and threads as the
 * plan says. Whatever fails half way, lamina_close() frees what stands, in the reverse order of taking. */
#include "engine/engine.h"
#include "format/gguf.h"
#include "store/store.h"

static lamina_status copy_text(memory *m, const char **text, lamina_error *err)
{
    if (!*text) return LAMINA_OK;
    *text = mem_strdup(m, MEM_MODEL, *text, err);
    return *text ? LAMINA_OK : LAMINA_E_MEMORY;
}

static lamina_status find_tokenizer(lamina_engine *e, lamina_error *err)
{
    if (e->tok || e->options.no_tokenizer) return LAMINA_OK;
    e->no_tokenizer = (lamina_error){0};
    if (e->ckpt->kind == CHECKPOINT_STORE) {
        (void)error_set(&e->no_tokenizer, LAMINA_OK, "%s: the store has no tokenizer", e->path);
        return LAMINA_OK;
    }
    lamina_status status = tokenizer_of(e->m, e->ckpt, &e->tok, &e->no_tokenizer);
    gguf_free(e->ckpt->metadata); /* the vocabulary as the file has it: nobody asks for it again */
    e->ckpt->metadata = NULL;
    if (status != LAMINA_OK && err) *err = e->no_tokenizer;
    return status;
}

static lamina_status open_checkpoint(lamina_engine *e, lamina_error *err)
{
    if (store_is(e->path))
        TRY(store_open(e->m, e->path, e->options.tokenizer_only || !e->options.no_tokenizer, &e->ckpt, &e->tok, err));
    else
        TRY(checkpoint_open(e->m, e->path, &e->ckpt, err));
    return find_tokenizer(e, err);
}

/* A folder's tokenizer needs none of its weights. */
static lamina_status open_tokenizer_only(lamina_engine *e, lamina_error *err)
{
    if (!store_is(e->path) && os_is_dir(e->path)) return tokenizer_from_folder(e->m, e->path, &e->tok, err);
    TRY(open_checkpoint(e, err));
    if (!e->tok) return error_set(err, LAMINA_E_UNSUPPORTED, "%s", e->no_tokenizer.text);
    return LAMINA_OK;
}

/* The files as readers want them: two lists that live as long as the engine. */
static lamina_status list_files(lamina_engine *e, lamina_error *err)
{
    const checkpoint *c = e->ckpt;
    e->paths = mem_array(e->m, MEM_MODEL, c->n_files, sizeof *e->paths, err);
    if (!e->paths) return LAMINA_E_MEMORY;
    e->sizes = mem_array(e->m, MEM_MODEL, c->n_files, sizeof *e->sizes, err);
    if (!e->sizes) return LAMINA_E_MEMORY;
    for (uint32_t i = 0; i < c->n_files; i++) {
        e->paths[i] = c->files[i].path;
        e->sizes[i] = c->files[i].bytes;
    }
    return LAMINA_OK;
}

static lamina_status list_moe_layers(lamina_engine *e, lamina_error *err)
{
    const model *mo = e->model;
    if (!mo->experts.count) return LAMINA_OK;
    e->moe_layers = mem_array(e->m, MEM_MODEL, mo->n_layers, sizeof *e->moe_layers, err);
    if (!e->moe_layers) return LAMINA_E_MEMORY;
    for (uint32_t i = 0; i < mo->n_layers; i++)
        if (mo->layers[i].experts) e->moe_layers[e->n_moe_layers++] = i;
    return LAMINA_OK;
}

static lamina_status open_model(lamina_engine *e, lamina_error *err)
{
    if (e->options.tokenizer_only) return open_tokenizer_only(e, err);
    TRY(open_checkpoint(e, err));
    TRY(model_bind(e->m, e->ckpt, e->options.ignore_config, &e->model, err));
    TRY(list_files(e, err));
    TRY(list_moe_layers(e, err));
    return schedule_make(e->m, e->model, &e->schedule, err);
}

lamina_status lamina_open(const char *path, const lamina_options *options, lamina_engine **engine, lamina_error *err)
{
    *engine = NULL;
    if (!path || !*path) return error_set(err, LAMINA_E_USAGE, "no path to a model was given");
    memory *m = memory_new();
    if (!m) return error_set(err, LAMINA_E_MEMORY, "%s: no memory to open it", path);
    if (options) memory_fail_at(m, options->faults.fail_alloc);
    lamina_engine *e = mem_alloc(m, MEM_MODEL, sizeof *e, err);
    if (!e) {
        memory_free(m);
        return LAMINA_E_MEMORY;
    }
    e->m = m;
    e->opened_at = os_seconds();
    if (options) e->options = *options;
    lamina_status status = (e->path = mem_strdup(m, MEM_MODEL, path, err)) ? LAMINA_OK : LAMINA_E_MEMORY;
    const char *trace_path = e->options.trace_path, *ignore = e->options.ignore_config;
    e->options.trace_path = e->options.ignore_config = NULL;
    if (status == LAMINA_OK && (status = copy_text(m, &trace_path, err)) == LAMINA_OK)
        e->options.trace_path = trace_path;
    if (status == LAMINA_OK && (status = copy_text(m, &ignore, err)) == LAMINA_OK) e->options.ignore_config = ignore;
    if (status == LAMINA_OK && e->options.trace_path) status = trace_new(m, e->options.trace_path, &e->trace, err);
    if (status == LAMINA_OK) status = open_model(e, err);
    os_trim_heap(); /* parsed JSON has come and gone; the plan measures what is resident */
    if (status != LAMINA_OK) {
        lamina_close(e);
        return status;
    }
    *engine = e;
    return LAMINA_OK;
}

/* Gives back what lamina_start() took, as far as it came. */
static void give_back(lamina_engine *e)
{
    stream_free(e->stream);
    e->stream = NULL;
    experts_free(e->experts);
    e->experts = NULL;
    if (e->embed_rows) mem_pages_free(e->m, MEM_PINNED, e->embed_rows, e->plan.embedding_bytes);
    e->embed_rows = NULL;
    activations_free(e);
    vectors_free(e);
}

void engine_stop(lamina_engine *e)
{
    give_back(e);
    memory_set_limit(e->m, 0);
    e->started = false;
}

void lamina_close(lamina_engine *e)
{
    if (!e) return;
    memory *m = e->m;
    give_back(e);
    if (e->backend) e->backend->ops->close(e->backend);
    pool_free(e->pool);
    (void)trace_close(e->trace, NULL);
    schedule_free(m, &e->schedule);
    mem_free(m, e->paths);
    mem_free(m, e->sizes);
    mem_free(m, e->moe_layers);
    model_free(e->model);
    tokenizer_free(e->tok);
    checkpoint_free(e->ckpt);
    mem_free(m, (void *)(uintptr_t)e->options.trace_path);
    mem_free(m, (void *)(uintptr_t)e->options.ignore_config);
    mem_free(m, e->path);
    mem_free(m, e);
    (void)memory_free(m);
}

lamina_status engine_backend(lamina_engine *e, lamina_error *err)
{
    uint32_t threads = e->options.threads ? e->options.threads : os_cores();
    if (threads > 1024) return error_set(err, LAMINA_E_USAGE, "%u threads: expected 1 to 1024", threads);
    if (!e->pool) TRY(pool_new(e->m, threads, &e->pool, err));
    if (!e->backend) TRY(backend_cpu_new(e->m, e->pool, e->options.isa, &e->backend, err));
    return LAMINA_OK;
}

static lamina_status need_model(const lamina_engine *e, lamina_error *err)
{
    if (e->model) return LAMINA_OK;
    return error_set(err, LAMINA_E_USAGE, "%s: opened for its tokenizer only", e->path);
}

lamina_status lamina_plan(lamina_engine *e, const lamina_budget *budget, lamina_plan_info *info, lamina_error *err)
{
    static const lamina_budget defaults;
    *info = (lamina_plan_info){0};
    TRY(need_model(e, err));
    TRY(engine_backend(e, err));
    return plan_make(e, budget ? budget : &defaults, true, info, err);
}

static lamina_status keep_embedding(lamina_engine *e, lamina_error *err)
{
    const weight *w = model_end(e->model, ROLE_EMBED);
    if (!e->plan.embedding_bytes) return LAMINA_OK;
    e->embed_rows = mem_pages(e->m, MEM_PINNED, e->plan.embedding_bytes, err);
    if (!e->embed_rows) return LAMINA_E_MEMORY;
    os_file f;
    const char *path = e->ckpt->files[w->file].path;
    TRY(os_open(path, OS_READ, &f, err));
    lamina_status status = LAMINA_OK;
    for (uint64_t at = 0; at < w->bytes && status == LAMINA_OK;) {
        uint64_t n = w->bytes - at < UINT64_C(8) << 20 ? w->bytes - at : UINT64_C(8) << 20;
        status = os_read_at(&f, path, w->offset + at, e->embed_rows + at, n, err);
        os_drop_cache(&f, w->offset + at, n);
        at += n;
    }
    os_close(&f);
    return status;
}

static lamina_status take_all(lamina_engine *e, const lamina_budget *b, lamina_error *err)
{
    lamina_plan_info *p = &e->plan;
    e->kv = b->kv;
    TRY(vectors_load(e, err));
    TRY(engine_stream(e, p->chunk_bytes, p->ring_bytes, p->pinned_bytes, b->chunk == 0, &e->stream, err));
    if (e->n_moe_layers) {
        experts_config config = expert_pool_config(e);
        config.piece_bytes = p->expert_piece_bytes;
        config.pool_bytes = p->expert_pool_bytes;
        TRY(experts_new(&config, &e->experts, err));
    }
    TRY(activations_new(e, p->rows, p->logit_rows, err));
    return keep_embedding(e, err);
}

lamina_status lamina_start(lamina_engine *e, const lamina_budget *budget, lamina_plan_info *info, lamina_error *err)
{
    static const lamina_budget defaults;
    if (!budget) budget = &defaults;
    if (info) *info = (lamina_plan_info){0};
    TRY(need_model(e, err));
    if (e->started) return error_set(err, LAMINA_E_USAGE, "%s: already started", e->path);
    if (e->ckpt->n_files == 0)
        return error_set(err, LAMINA_E_USAGE, "%s: has no weights, only a configuration", e->path);
    TRY(engine_backend(e, err));
    lamina_status status = plan_make(e, budget, false, &e->plan, err);
    if (info) *info = e->plan;
    TRY(status);
    plan_limit(e, e->plan.budget_bytes);
    status = take_all(e, budget, err);
    e->started = status == LAMINA_OK;
    if (status != LAMINA_OK) engine_stop(e);
    return status;
}

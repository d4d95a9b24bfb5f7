/* Packing and verifying, on behalf of an opened engine. */
#include "engine/calibrate.h"

static store_job job_of(lamina_engine *e)
{
    return (store_job){
        .m = e->m, .progress = e->options.progress, .progress_user = e->options.progress_user, .cancel = &e->cancel};
}

/* Honours a request to cancel once. */
static lamina_status finish(lamina_engine *e, lamina_status status)
{
    if (status == LAMINA_E_CANCELLED) atomic_store(&e->cancel, false);
    return status;
}

static bool fill_calibration(const lamina_pack_options *options, store_calibration *c)
{
    if (!options || !options->calibration) return false;
    c->text = options->calibration;
    c->bytes = options->calibration_bytes;
    return true;
}

lamina_status lamina_pack(lamina_engine *e, const char *store_path, const lamina_pack_options *options,
                          lamina_pack_info *info, lamina_error *err)
{
    if (!e->model || e->ckpt->n_files == 0)
        return error_set(err, LAMINA_E_USAGE, "%s: has no weights to pack", e->path);
    if (!store_path || !*store_path) return error_set(err, LAMINA_E_USAGE, "no path for the store was given");
    store_job job = job_of(e);
    calibration_run run = {.e = e};
    store_calibration calibration = {.run = calibrate, .user = &run};
    bool calibrates = fill_calibration(options, &calibration);
    if (calibrates) {
        run.text = calibration.text;
        run.bytes = calibration.bytes;
        run.memory = options->calibration_memory;
    }
    return finish(e,
                  store_pack(e->model, e->tok, store_path, options, calibrates ? &calibration : NULL, &job, info, err));
}

lamina_status lamina_pack_resume(const char *store_path, const char *source_path, const lamina_options *options,
                                 const lamina_pack_options *pack, lamina_pack_info *info, lamina_error *err)
{
    if (!store_path || !store_incomplete(store_path))
        return error_set(err, LAMINA_E_USAGE, "%s: is not an interrupted store", store_path ? store_path : "(no path)");
    memory *m = memory_new();
    if (!m) return error_set(err, LAMINA_E_MEMORY, "%s: no memory to resume packing", store_path);
    store_job job = {.m = m};
    if (options) {
        memory_fail_at(m, options->faults.fail_alloc);
        job.progress = options->progress;
        job.progress_user = options->progress_user;
    }
    store_calibration calibration = {0}; /* to be compared, not run */
    bool calibrates = fill_calibration(pack, &calibration);
    lamina_status status =
        store_pack_resume(store_path, source_path, pack, calibrates ? &calibration : NULL, &job, info, err);
    (void)memory_free(m);
    return status;
}

lamina_status lamina_verify(lamina_engine *e, uint64_t *bytes, lamina_error *err)
{
    if (!e->ckpt || e->ckpt->kind != CHECKPOINT_STORE)
        return error_set(err, LAMINA_E_USAGE, "%s: is not a store; only stores carry checksums", e->path);
    store_job job = job_of(e);
    return finish(e, store_verify(e->path, &job, bytes, err));
}

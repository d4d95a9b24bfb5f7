/* Packing: from a model, or from an interrupted packing's own draft, to a whole store.
 *
 * Owns the order of events, which is what makes it safe to be killed at any byte:
 *
 *   1 tokenizer.lamina, pack.importance (of what is quantised by a text)
 *   2 pack.json (the draft)      3 pack.journal
 *   4 layers: each to NAME.part, synced, renamed, recorded in the journal
 *   5 with delete_original, as soon as all that came from a source is written: read back, recorded, source removed
 *   6 manifest.json              7 pack.journal, pack.importance, pack.json removed
 *
 * A store without manifest is incomplete and known to be. Promises that the bytes of two models never mix: the draft
 * names its sources by name, size and time of change and every tensor by its place in them, and a packing that would
 * write another draft is refused. Promises that nothing is removed which is not twice on the disk at that moment. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "store/flow.h"
#include "store/original.h"
#include "store/targets.h"

typedef struct packing {
    const store_job *job;
    const lamina_pack_options *options;
    const store_calibration *calibration;
    const char *path;
    image *im;
    journal j;
    flow *f;
    uint32_t *list;               /* [n_files] for one run of the flow */
    uint32_t *last;               /* [n_sources] the last file that needs the source; UINT32_MAX: none */
    uint64_t to_write, to_verify; /* bytes, for progress */
    uint64_t reused;
    bool draft_sound; /* the draft has been read back */
    bool made_folder;
    targets_kept kept;
    char kept_name[160];
} packing;

lamina_status store_replace(memory *m, const char *folder, const char *name, const void *data, size_t bytes,
                            const store_job *job, lamina_error *err)
{
    os_file file = {.fd = -1};
    char *path = store_join(m, folder, name, err);
    char *part = path ? mem_alloc(m, MEM_OTHER, strlen(path) + sizeof ".part", err) : NULL;
    lamina_status status = part ? LAMINA_OK : NO_MEMORY(err);
    if (status == LAMINA_OK) {
        memcpy(part, path, strlen(path));
        strcat(part, ".part");
        store_step(job);
        status = os_create(part, &file, err);
    }
    if (status == LAMINA_OK) {
        store_step(job);
        status = os_write_at(&file, part, 0, data, bytes, err);
        store_step(job);
        if (status == LAMINA_OK) status = os_sync(&file, part, err);
        os_close(&file);
        store_step(job);
        if (status == LAMINA_OK) status = os_rename(part, path, err);
        if (status != LAMINA_OK) (void)os_remove(part, NULL);
    }
    mem_free(m, part);
    mem_free(m, path);
    return status;
}

/* ---- where things stand --------------------------------------------------------------------------------------- */

/* Nothing but what an interrupted packing leaves before its draft. */
static lamina_status only_ours(void *user, const char *name, lamina_error *err)
{
    static const char *const ours[] = {
        STORE_LAYERS,        STORE_TOKENIZER, STORE_TOKENIZER ".part", STORE_JOURNAL,    STORE_JOURNAL ".part",
        STORE_DRAFT ".part", STORE_DRAFT,     STORE_MANIFEST ".part",  STORE_IMPORTANCE, STORE_IMPORTANCE ".part"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strcmp(name, ours[i]) == 0) return LAMINA_OK;
    return error_set(err, LAMINA_E_USAGE, "%s: is not empty (it has \"%s\"): a store wants a folder of its own",
                     (const char *)user, name);
}

/* Marks what the store already has. A recorded file whose size is wrong is written again. */
static lamina_status take_stock(packing *p, lamina_error *err)
{
    image *im = p->im, *done = NULL;
    TRY(image_load(im->m, p->path, STORE_MANIFEST, FORM_MANIFEST, &done, err));
    for (uint32_t i = 0; done && i < im->n_files && i < done->n_files; i++) {
        /* The manifest has been written: only cleaning up remained. */
        if (strcmp(im->files[i].name, done->files[i].name) != 0 || im->files[i].bytes != done->files[i].bytes) break;
        im->files[i].written = true;
        im->files[i].xxh3 = done->files[i].xxh3;
    }
    image_free(done);
    p->to_write = p->to_verify = p->reused = 0;
    for (uint32_t i = 0; i < im->n_files; i++) {
        image_file *f = &im->files[i];
        bool exists;
        os_identity id;
        char *path = store_join(im->m, p->path, f->name, err);
        if (!path) return NO_MEMORY(err);
        lamina_status status = os_identify(path, true, &exists, &id, err);
        mem_free(im->m, path);
        TRY(status);
        if (!f->n_tensors) f->written = true; /* the tokenizer precedes the draft */
        if (f->written && (!exists || id.bytes != f->bytes)) {
            if (!f->n_tensors) return error_set(err, LAMINA_E_CORRUPT, "%s/%s: missing or cut short", p->path, f->name);
            f->written = f->verified = false;
        }
        if (!f->written)
            p->to_write += f->bytes;
        else
            p->reused += f->n_tensors ? f->bytes : 0;
        if (!f->verified) p->to_verify += f->bytes;
    }
    return LAMINA_OK;
}

/* Files that were under way when an earlier run ended: their space is wanted. */
static lamina_status sweep(const packing *p, const image *im, lamina_error *err)
{
    for (uint32_t i = 0; i < im->n_files; i++) {
        if (im->files[i].written) continue;
        char name[256];
        for (int part = 0; part < 2; part++) {
            snprintf(name, sizeof name, "%s%s", im->files[i].name, part ? ".part" : "");
            char *path = store_join(im->m, p->path, name, err);
            if (!path) return NO_MEMORY(err);
            lamina_status status = os_exists(path) ? os_remove(path, err) : LAMINA_OK;
            mem_free(im->m, path);
            TRY(status);
        }
    }
    return LAMINA_OK;
}

/* What is still needed of the sources is there and is what it was. */
static lamina_status check_sources(packing *p, lamina_error *err)
{
    const image *im = p->im;
    for (uint32_t s = 0; s < im->n_sources; s++) {
        bool there;
        TRY(original_check(&im->sources[s], &there, err));
        if (there) continue;
        for (size_t i = 0; i < im->n_tensors; i++) {
            const image_file *f = &im->files[im->tensors[i].t.file];
            if (im->tensors[i].source == s && !f->written)
                return error_set(err, LAMINA_E_IO, "%s: is gone, and %s, which needs it, is not yet written",
                                 im->sources[s].path, f->name);
        }
    }
    return LAMINA_OK;
}

/* Most bytes that the store and what is not yet deleted take more than now, at any moment. */
static lamina_status check_space(packing *p, lamina_error *err)
{
    const image *im = p->im;
    const int64_t slack = 1 << 20;
    int64_t now = 0, peak = 0;
    bool exists;
    os_identity folder;
    uint64_t free_bytes;
    TRY(os_identify(p->path, true, &exists, &folder, err));
    TRY(os_free_space(p->path, &free_bytes, err));
    for (uint32_t i = 0; i < im->n_files; i++) {
        if (!im->files[i].written) now += (int64_t)(im->files[i].bytes / 4096 * 4096) + 8192;
        if (now > peak) peak = now;
        for (uint32_t s = 0; p->options->delete_original && s < im->n_sources; s++) {
            uint64_t gain;
            if (p->last[s] != i) continue;
            TRY(original_gain(p->job, &im->sources[s], folder.device, &gain, err));
            now -= (int64_t)gain;
        }
    }
    if (peak > 0 && (uint64_t)(peak + slack) > free_bytes)
        return error_set(err, LAMINA_E_SPACE, "%s: packing needs %llu bytes of free disk, %llu are free", p->path,
                         (unsigned long long)(peak + slack), (unsigned long long)free_bytes);
    return LAMINA_OK;
}

/* ---- the work ------------------------------------------------------------------------------------------------- */

static lamina_status move(packing *p, flow_mode mode, uint32_t from, uint32_t to, lamina_error *err)
{
    size_t n = 0;
    for (uint32_t i = from; i < to; i++) {
        const image_file *f = &p->im->files[i];
        if (mode == FLOW_WRITE ? !f->written : f->written && !f->verified) p->list[n++] = i;
    }
    return flow_run(p->f, mode, p->list, n, mode == FLOW_WRITE ? p->to_write : p->to_verify, err);
}

/* Before the first removal: the draft, which holds the configuration, comes back from the disk as it was. */
static lamina_status read_draft_back(packing *p, lamina_error *err)
{
    if (p->draft_sound) return LAMINA_OK;
    os_file file;
    char *path = store_join(p->im->m, p->path, STORE_DRAFT, err);
    if (!path) return NO_MEMORY(err);
    lamina_status status = os_open(path, OS_READ, &file, err);
    mem_free(p->im->m, path);
    TRY(status);
    os_drop_cache(&file, 0, 0);
    os_close(&file);
    image *again;
    TRY(image_load(p->im->m, p->path, STORE_DRAFT, FORM_DRAFT, &again, err));
    p->draft_sound = again != NULL;
    image_free(again);
    return p->draft_sound ? LAMINA_OK : error_set(err, LAMINA_E_CORRUPT, "%s: its " STORE_DRAFT " is gone", p->path);
}

/* Removes the sources whose last reader is file `file`. */
static lamina_status remove_originals(packing *p, uint32_t file, lamina_error *err)
{
    TRY(move(p, FLOW_CHECK, 0, file + 1, err));
    TRY(read_draft_back(p, err));
    for (uint32_t s = 0; s < p->im->n_sources; s++)
        if (p->last[s] == file) TRY(original_remove(p->job, &p->im->sources[s], err));
    return LAMINA_OK;
}

static lamina_status write_layers(packing *p, lamina_error *err)
{
    const image *im = p->im;
    uint32_t from = 0;
    for (uint32_t i = 0; p->options->delete_original && i < im->n_files; i++) {
        bool ends = false;
        for (uint32_t s = 0; s < im->n_sources; s++) ends = ends || p->last[s] == i;
        if (!ends) continue;
        TRY(move(p, FLOW_WRITE, from, i + 1, err));
        TRY(check_sources(p, err)); /* nothing changed while it was read */
        TRY(remove_originals(p, i, err));
        from = i + 1;
    }
    TRY(move(p, FLOW_WRITE, from, im->n_files, err));
    return check_sources(p, err);
}

static lamina_status drop(packing *p, const char *name, lamina_error *err)
{
    char *path = store_join(p->im->m, p->path, name, err);
    if (!path) return NO_MEMORY(err);
    store_step(p->job);
    lamina_status status = os_remove(path, err);
    mem_free(p->im->m, path);
    return status;
}

static lamina_status put_text(packing *p, const char *name, image_form form, lamina_error *err)
{
    text t = {.m = p->im->m, .err = err};
    lamina_status status = image_render(p->im, form, &t);
    if (status == LAMINA_OK && t.bytes > STORE_MAX_JSON)
        status = error_set(err, LAMINA_E_UNSUPPORTED, "%s: %s would have %zu bytes", p->path, name, t.bytes);
    if (status == LAMINA_OK) { /* what could not be read back is not written */
        image *again;
        status = image_parse(p->im->m, p->path, name, t.data, t.bytes, form, &again, err);
        image_free(again);
    }
    if (status == LAMINA_OK) status = store_replace(p->im->m, p->path, name, t.data, t.bytes, p->job, err);
    mem_free(p->im->m, t.data);
    return status;
}

static lamina_status checksum(const image *im, image_form form, uint64_t *sum, lamina_error *err)
{
    text t = {.m = im->m, .err = err};
    lamina_status status = image_render(im, form, &t);
    if (status == LAMINA_OK) *sum = XXH3_64bits(t.data, t.bytes);
    mem_free(im->m, t.data);
    return status;
}

/* The columns' importance as an earlier run left it, where something is still to be quantised. */
static lamina_status recall_importance(packing *p, lamina_error *err)
{
    image *im = p->im;
    char *data = NULL;
    size_t bytes = 0, expected = (size_t)im->n_importance * sizeof *im->importance;
    if (!im->n_importance || im->importance || !p->to_write) return LAMINA_OK;
    char *path = store_join(im->m, p->path, STORE_IMPORTANCE, err);
    if (!path) return NO_MEMORY(err);
    lamina_status status = os_read_file(im->m, path, expected + 1, &data, &bytes, err);
    if (status == LAMINA_OK && (bytes != expected || XXH3_64bits(data, bytes) != im->importance_xxh3))
        status = error_set(err, LAMINA_E_CORRUPT, "%s: is not what was written there: remove the store and pack again",
                           path);
    mem_free(im->m, path);
    if (status == LAMINA_OK) im->importance = mem_alloc(im->m, MEM_OTHER, expected, err);
    if (status == LAMINA_OK && !im->importance) status = NO_MEMORY(err);
    if (status == LAMINA_OK) memcpy(im->importance, data, expected);
    mem_free(im->m, data);
    TRY(status);
    for (size_t i = 0; i < im->n_tensors; i++) {
        image_tensor *x = &im->tensors[i];
        if (x->importance_offset != IMPORTANCE_NONE) x->importance = im->importance + x->importance_offset;
    }
    return LAMINA_OK;
}

/* What the caller gave for buffers, less what is held beside them; 0: it gave nothing. */
static uint64_t buffers_beside(const packing *p, uint64_t held)
{
    uint64_t given = p->options->memory;
    return !given ? 0 : given > held ? given - held : 1;
}

/* Steps 3 to 7: the draft stands. */
static lamina_status finish_store(packing *p, lamina_error *err)
{
    image *im = p->im;
    uint64_t sum;
    bool begun;
    TRY(checksum(im, FORM_IDENTITY, &sum, err));
    TRY(journal_open(&p->j, im, sum, p->job, &begun, err));
    TRY(take_stock(p, err));
    TRY(sweep(p, im, err));
    TRY(check_sources(p, err));
    TRY(check_space(p, err));
    TRY(recall_importance(p, err));
    TRY(flow_new(p->job, buffers_beside(p, im->importance ? im->n_importance * sizeof *im->importance : 0), im, &p->j,
                 &p->f, err));
    TRY(write_layers(p, err));
    TRY(put_text(p, STORE_MANIFEST, FORM_MANIFEST, err));
    journal_close(&p->j);
    TRY(drop(p, STORE_JOURNAL, err));
    if (im->n_importance) TRY(drop(p, STORE_IMPORTANCE, err));
    TRY(drop(p, STORE_DRAFT, err));
    return os_sync_dir(p->path, err);
}

static lamina_status index_sources(packing *p, lamina_error *err)
{
    const image *im = p->im;
    p->list = mem_array(im->m, MEM_OTHER, im->n_files, sizeof *p->list, err);
    p->last = p->list ? mem_array(im->m, MEM_OTHER, im->n_sources, sizeof *p->last, err) : NULL;
    if (!p->last) return NO_MEMORY(err);
    for (uint32_t s = 0; s < im->n_sources; s++) p->last[s] = UINT32_MAX; /* what gave nothing is never removed */
    for (size_t i = 0; i < im->n_tensors; i++) p->last[im->tensors[i].source] = im->tensors[i].t.file;
    return LAMINA_OK;
}

/* ---- beginning ------------------------------------------------------------------------------------------------ */

/* How the image names a text. */
static uint64_t name_of(const store_calibration *c)
{
    uint64_t sum = c ? XXH3_64bits(c->text, c->bytes) : 0;
    return c && !sum ? 1 : sum;
}

/* Has an earlier, different packing anything to show for itself? */
static lamina_status refuse_other(const packing *p, image *old, lamina_error *err)
{
    journal j;
    uint64_t sum;
    bool begun;
    TRY(checksum(old, FORM_IDENTITY, &sum, err));
    TRY(journal_open(&j, old, sum, p->job, &begun, err));
    journal_close(&j);
    if (!begun) return sweep(p, old, err);
    return error_set(
        err, LAMINA_E_USAGE,
        "%s: holds an unfinished store of another model, of other files or by another --dtype or --calibrate (%s, %s): "
        "finish that, or remove it",
        p->path, old->source_path, old->dtype ? old->dtype : "none");
}

static lamina_status keep(const image *im, const char *s, const char **out, lamina_error *err)
{
    *out = arena_strndup(im->strings, s, strlen(s), err);
    return *out ? LAMINA_OK : NO_MEMORY(err);
}

/* The draft of an earlier run of the same work takes the image's place: what it says was found out then. The sources
 * are where they are now; *moved: not where they were. */
static lamina_status adopt(packing *p, image *old, bool *moved, lamina_error *err)
{
    const image *now = p->im;
    for (uint32_t i = 0; i < old->n_sources; i++) {
        if (strcmp(old->sources[i].path, now->sources[i].path) == 0) continue;
        *moved = true;
        TRY(keep(old, now->sources[i].path, &old->sources[i].path, err));
    }
    if (*moved) TRY(keep(old, now->source_path, &old->source_path, err));
    image_free(p->im);
    p->im = old;
    return LAMINA_OK;
}

/* Goes on with the draft of an earlier run, if there is one of the same work. */
static lamina_status find_draft(packing *p, bool *found, bool *moved, lamina_error *err)
{
    image *old;
    uint64_t work = 0, work_old = 0;
    *found = *moved = false;
    TRY(image_load(p->im->m, p->path, STORE_DRAFT, FORM_DRAFT, &old, err));
    if (!old) return LAMINA_OK;
    lamina_status status = checksum(p->im, FORM_WORK, &work, err);
    if (status == LAMINA_OK) status = checksum(old, FORM_WORK, &work_old, err);
    *found = status == LAMINA_OK && work == work_old;
    if (status == LAMINA_OK) status = *found ? adopt(p, old, moved, err) : refuse_other(p, old, err);
    if (p->im != old) image_free(old);
    return status;
}

static lamina_status prepare_folder(packing *p, lamina_error *err)
{
    bool exists;
    os_identity id;
    TRY(os_identify(p->path, true, &exists, &id, err));
    if (exists && !id.is_dir) return error_set(err, LAMINA_E_USAGE, "%s: is not a folder", p->path);
    if (!exists) {
        TRY(os_make_dir(p->path, err));
        p->made_folder = true;
    }
    char *manifest = store_join(p->job->m, p->path, STORE_MANIFEST, err);
    char *draft = store_join(p->job->m, p->path, STORE_DRAFT, err);
    lamina_status status = LAMINA_OK;
    if (!manifest || !draft)
        status = NO_MEMORY(err);
    else if (!os_exists(draft)) {
        if (os_exists(manifest))
            status = error_set(err, LAMINA_E_USAGE,
                               "%s: holds a whole store already: remove it, or choose another name", p->path);
        else
            status = os_list_dir(p->path, only_ours, (void *)p->path, err);
    }
    mem_free(p->job->m, manifest);
    mem_free(p->job->m, draft);
    return status;
}

static lamina_status sync_parent(packing *p, lamina_error *err)
{
    char *absolute;
    TRY(os_absolute(p->job->m, p->path, false, &absolute, err));
    char *slash = strrchr(absolute, '/');
    if (slash) slash[slash == absolute] = 0;
    lamina_status status = os_sync_dir(absolute, err);
    mem_free(p->job->m, absolute);
    return status;
}

static uint64_t moments_bytes(const model *from, float *const *moments)
{
    uint64_t bytes = 0;
    for (size_t i = 0; moments && i < from->source->n_tensors; i++)
        if (moments[i]) bytes += image_columns(&from->source->tensors[i]) * sizeof **moments;
    return bytes;
}

/* Lays the store out, which for some types wants a look at every weight, and what a text makes of them. */
static lamina_status lay_out(packing *p, const model *from, lamina_error *err)
{
    memory *m = p->job->m;
    size_t n = from->source->n_tensors;
    const store_calibration *c = p->calibration;
    float **moments = c ? mem_array(m, MEM_OTHER, n, sizeof *moments, err) : NULL;
    image_target *targets = c && !moments ? NULL : mem_array(m, MEM_OTHER, n, sizeof *targets, err);
    lamina_status status = targets ? LAMINA_OK : NO_MEMORY(err);
    if (status == LAMINA_OK && c) status = c->run(c->user, moments, err);
    if (status == LAMINA_OK)
        status = targets_choose(p->job, p->im, from, p->options->dtype, (const float *const *)moments,
                                buffers_beside(p, moments_bytes(from, moments)), targets, &p->kept, err);
    if (p->kept.n) snprintf(p->kept_name, sizeof p->kept_name, "%s", from->source->tensors[p->kept.first].name);
    if (status == LAMINA_OK) status = image_lay_out(p->im, from, targets, err);
    for (size_t i = 0; moments && i < n; i++) mem_free(m, moments[i]);
    mem_free(m, moments);
    mem_free(m, targets);
    return status;
}

/* Step 1. */
static lamina_status put_first(packing *p, bool resumed, const void *tok, size_t tok_bytes, lamina_error *err)
{
    const image *im = p->im;
    if (tok) TRY(store_replace(p->job->m, p->path, STORE_TOKENIZER, tok, tok_bytes, p->job, err));
    if (resumed || !im->n_importance) return LAMINA_OK;
    return store_replace(p->job->m, p->path, STORE_IMPORTANCE, im->importance,
                         (size_t)im->n_importance * sizeof *im->importance, p->job, err);
}

static lamina_status begin(packing *p, const model *from, const void *tok, size_t tok_bytes, lamina_error *err)
{
    bool resumed, moved;
    TRY(find_draft(p, &resumed, &moved, err));
    if (!resumed) TRY(lay_out(p, from, err));
    TRY(index_sources(p, err));
    if (!resumed) TRY(check_space(p, err)); /* before the first byte */
    char *layers = store_join(p->job->m, p->path, STORE_LAYERS, err);
    if (!layers) return NO_MEMORY(err);
    store_step(p->job);
    lamina_status status = os_make_dir(layers, err);
    mem_free(p->job->m, layers);
    TRY(status);
    TRY(sync_parent(p, err));
    TRY(put_first(p, resumed, tok, tok_bytes, err));
    p->made_folder = false;
    return resumed && !moved ? LAMINA_OK : put_text(p, STORE_DRAFT, FORM_DRAFT, err);
}

/* ---- what was done ---------------------------------------------------------------------------------------------- */

/* The square root of the error's share; 0: none, or not known. */
static double relative_error(const image_tensor *x)
{
    return x->power > 0 ? sqrt(x->error / x->power) : 0;
}

/* Of two recoded tensors the one that lost more, or else gained less; of equals the first. */
static bool is_worse(const image_tensor *a, const lamina_pack_tensor *b)
{
    double error = relative_error(a);
    if (error > b->error || error < b->error) return error > b->error;
    return (double)a->t.bytes * (double)b->bytes_before > (double)b->bytes_after * (double)image_source_bytes(a);
}

static void rank(lamina_pack_info *info, const image_tensor *x)
{
    uint32_t at = info->n_worst;
    while (at > 0 && is_worse(x, &info->worst[at - 1])) at--;
    if (at == LAMINA_PACK_WORST) return;
    if (info->n_worst < LAMINA_PACK_WORST) info->n_worst++;
    memmove(&info->worst[at + 1], &info->worst[at], (info->n_worst - 1 - at) * sizeof *info->worst);
    info->worst[at] = (lamina_pack_tensor){.from = dtype_name(x->from),
                                           .to = dtype_name(x->t.type),
                                           .bytes_before = image_source_bytes(x),
                                           .bytes_after = x->t.bytes,
                                           .error = relative_error(x)};
    snprintf(info->worst[at].name, sizeof info->worst[at].name, "%s", x->t.name);
}

static int by_bytes(const void *a, const void *b)
{
    const lamina_pack_change *x = a, *y = b;
    if (x->bytes_before != y->bytes_before) return x->bytes_before < y->bytes_before ? 1 : -1;
    int order = strcmp(x->from, y->from);
    return order ? order : strcmp(x->to, y->to);
}

static void count_changes(const image *im, lamina_pack_info *info)
{
    bool recoded = false;
    for (size_t i = 0; i < im->n_tensors; i++) {
        const image_tensor *x = &im->tensors[i];
        uint64_t before = image_source_bytes(x);
        uint32_t c = 0;
        info->bytes_before += before;
        info->bytes_after += x->t.bytes;
        if (image_recoded(x)) {
            recoded = true;
            rank(info, x);
        }
        while (c < info->n_changes &&
               (info->changes[c].from != dtype_name(x->from) || info->changes[c].to != dtype_name(x->t.type)))
            c++;
        if (c == LAMINA_PACK_CHANGES) continue;
        if (c == info->n_changes)
            info->changes[info->n_changes++] =
                (lamina_pack_change){.from = dtype_name(x->from), .to = dtype_name(x->t.type)};
        info->changes[c].tensors++;
        info->changes[c].bytes_before += before;
        info->changes[c].bytes_after += x->t.bytes;
    }
    qsort(info->changes, info->n_changes, sizeof *info->changes, by_bytes);
    if (!recoded) info->n_changes = 0;
}

static void end(packing *p, lamina_pack_info *info, double began)
{
    if (info && p->im) {
        *info = (lamina_pack_info){
            .bytes_written = p->f ? flow_bytes(p->f, FLOW_WRITE) : 0,
            .bytes_reused = p->reused,
            .files = p->im->n_files,
            .seconds = os_seconds() - began,
            .n_kept = p->kept.n,
            .kept_bytes = p->kept.bytes,
            .kept_why = p->kept.why,
        };
        memcpy(info->kept_name, p->kept_name, sizeof info->kept_name);
        count_changes(p->im, info);
    }
    journal_close(&p->j);
    flow_free(p->f);
    mem_free(p->job->m, p->list);
    mem_free(p->job->m, p->last);
    image_free(p->im);
    if (p->made_folder) (void)os_remove(p->path, NULL); /* nothing was begun: removes only an empty folder */
}

static lamina_status is_made_of(const image *im, const char *source, bool *same, lamina_error *err)
{
    char *absolute;
    TRY(os_absolute(im->m, source, true, &absolute, err));
    *same = strcmp(absolute, im->source_path) == 0;
    mem_free(im->m, absolute);
    return LAMINA_OK;
}

static lamina_status resume(packing *p, const char *source, lamina_error *err)
{
    bool same = true;
    TRY(image_load(p->job->m, p->path, STORE_DRAFT, FORM_DRAFT, &p->im, err));
    if (!p->im) return error_set(err, LAMINA_E_USAGE, "%s: holds no unfinished store", p->path);
    if (source) TRY(is_made_of(p->im, source, &same, err));
    if (!same)
        return error_set(err, LAMINA_E_USAGE, "%s: holds an unfinished store of %s, not of %s", p->path,
                         p->im->source_path, source);
    const char *asked = p->options->dtype, *begun = p->im->dtype;
    if (asked && (!begun || strcmp(asked, begun) != 0))
        return error_set(err, LAMINA_E_USAGE, "%s: was begun with --dtype %s, not %.200s", p->path,
                         begun ? begun : "none", asked);
    if (p->calibration && name_of(p->calibration) != p->im->calibration)
        return error_set(err, LAMINA_E_USAGE, "%s: was begun %s", p->path,
                         p->im->calibration ? "with another text to --calibrate" : "without --calibrate");
    TRY(index_sources(p, err));
    return finish_store(p, err);
}

/* Has an earlier run from the folder or file `from` begun to delete it? What opens there now is what was not packed:
 * the same weights in another form, which lie beside them on many a disk. */
static lamina_status was_deleting(const packing *p, const char *from, bool *was, lamina_error *err)
{
    image *old;
    bool same = false;
    *was = false;
    TRY(image_load(p->job->m, p->path, STORE_DRAFT, FORM_DRAFT, &old, err));
    if (!old) return LAMINA_OK;
    lamina_status status = is_made_of(old, from, &same, err);
    for (uint32_t i = 0; same && i < old->n_sources && status == LAMINA_OK; i++) {
        bool exists;
        os_identity id;
        status = os_identify(old->sources[i].path, true, &exists, &id, err);
        *was = *was || !exists;
    }
    image_free(old);
    return status;
}

static lamina_status pack_model(packing *p, const model *from, const void *tok, size_t tok_bytes, lamina_error *err)
{
    bool was;
    TRY(targets_check(p->job->m, p->options->dtype, p->calibration != NULL, err));
    TRY(prepare_folder(p, err));
    TRY(was_deleting(p, from->source->path, &was, err));
    if (was) return resume(p, NULL, err);
    image_tokenizer t = {.bytes = tok_bytes, .xxh3 = tok ? XXH3_64bits(tok, tok_bytes) : 0};
    image_request request = {.spec = p->options->dtype, .calibration = name_of(p->calibration)};
    TRY(image_begin(p->job->m, from, p->path, t, request, &p->im, err));
    TRY(begin(p, from, tok, tok_bytes, err));
    return finish_store(p, err);
}

lamina_status store_pack(const model *from, const tokenizer *tok, const char *path, const lamina_pack_options *options,
                         const store_calibration *calibration, const store_job *job, lamina_pack_info *info,
                         lamina_error *err)
{
    static const lamina_pack_options none = {0};
    packing p = {.job = job, .options = options ? options : &none, .calibration = calibration, .path = path};
    double began = os_seconds();
    void *data = NULL;
    size_t bytes = 0;
    lamina_status status = tok ? tokenizer_save(job->m, tok, &data, &bytes, err) : LAMINA_OK;
    if (status == LAMINA_OK) status = pack_model(&p, from, data, bytes, err);
    end(&p, info, began);
    mem_free(job->m, data);
    return status;
}

lamina_status store_pack_resume(const char *path, const char *source, const lamina_pack_options *options,
                                const store_calibration *calibration, const store_job *job, lamina_pack_info *info,
                                lamina_error *err)
{
    static const lamina_pack_options none = {0};
    packing p = {.job = job, .options = options ? options : &none, .calibration = calibration, .path = path};
    double began = os_seconds();
    lamina_status status = resume(&p, source, err);
    end(&p, info, began);
    return status;
}

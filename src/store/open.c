/* Opening and verifying a store.
 *
 * Opening believes the manifest's checksum and the files' sizes and reads no weights, so that a model starts at once;
 * verifying reads every byte back at the speed of the disk and names the first file that is wrong. */
#include <string.h>
#include <xxhash.h>

#include "store/flow.h"

static bool has(const char *path, const char *name)
{
    char *file = NULL;
    memory *m = memory_new();
    bool found = m && (file = store_join(m, path, name, NULL)) && os_exists(file);
    if (m) mem_free(m, file);
    if (m) memory_free(m);
    return found;
}

/* A manifest of another program's folder is not taken for ours: a store also has layers/ beside it. */
bool store_is(const char *path)
{
    return (has(path, STORE_MANIFEST) && has(path, STORE_LAYERS)) || has(path, STORE_DRAFT);
}

bool store_incomplete(const char *path)
{
    return has(path, STORE_DRAFT);
}

static lamina_status load_whole(memory *m, const char *path, image **out, lamina_error *err)
{
    if (store_incomplete(path) && !has(path, STORE_MANIFEST)) /* with one, only cleaning up is left to do */
        return error_set(err, LAMINA_E_FORMAT, "%s: incomplete store: pack again to resume", path);
    TRY(image_load(m, path, STORE_MANIFEST, FORM_MANIFEST, out, err));
    if (!*out) return error_set(err, LAMINA_E_FORMAT, "%s: is not a store: it has no " STORE_MANIFEST, path);
    return LAMINA_OK;
}

static lamina_status check_file(const char *path, const image_file *f, lamina_error *err)
{
    bool exists;
    os_identity id;
    TRY(os_identify(path, true, &exists, &id, err));
    if (!exists) return error_set(err, LAMINA_E_CORRUPT, "%s: is missing", path);
    if (!id.is_file || id.bytes != f->bytes)
        return error_set(err, LAMINA_E_CORRUPT, "%s: %llu bytes expected, %llu found", path,
                         (unsigned long long)f->bytes, (unsigned long long)id.bytes);
    return LAMINA_OK;
}

static lamina_status load_tokenizer(memory *m, const char *path, const image_file *f, tokenizer **tok,
                                    lamina_error *err)
{
    char *data;
    size_t bytes;
    TRY(os_read_file(m, path, f->bytes, &data, &bytes, err));
    uint64_t sum = XXH3_64bits(data, bytes);
    lamina_status status = LAMINA_OK;
    if (bytes != f->bytes || sum != f->xxh3)
        status = error_set(err, LAMINA_E_CORRUPT, "%s: checksum %016llx expected, %016llx found", path,
                           (unsigned long long)f->xxh3, (unsigned long long)sum);
    if (status == LAMINA_OK) status = tokenizer_load(m, data, bytes, path, tok, err);
    mem_free(m, data);
    return status;
}

static lamina_status add_files(const image *im, checkpoint *c, bool with_tokenizer, tokenizer **tok, lamina_error *err)
{
    for (uint32_t i = 0; i < im->n_files; i++) {
        const image_file *f = &im->files[i];
        uint32_t index;
        char *path = store_join(im->m, im->path, f->name, err);
        if (!path) return NO_MEMORY(err);
        lamina_status status = check_file(path, f, err);
        if (status == LAMINA_OK && f->n_tensors)
            status = checkpoint_add_file(c, path, f->name, f->bytes, &index, err);
        else if (status == LAMINA_OK && with_tokenizer)
            status = load_tokenizer(im->m, path, f, tok, err);
        mem_free(im->m, path);
        TRY(status);
    }
    return LAMINA_OK;
}

static lamina_status become_checkpoint(const image *im, checkpoint *c, bool with_tokenizer, tokenizer **tok,
                                       lamina_error *err)
{
    c->dialect = im->dialect;
    c->config = json_incref(im->config);
    c->generation = im->generation ? json_incref(im->generation) : NULL;
    TRY(add_files(im, c, with_tokenizer, tok, err));
    uint32_t blobs = 0; /* files without tensors are not the checkpoint's */
    for (uint32_t file = 0; file < im->n_files; file++) {
        const image_file *f = &im->files[file];
        if (!f->n_tensors) blobs++;
        for (size_t i = f->first; i < f->first + f->n_tensors; i++) {
            tensor t = im->tensors[i].t;
            t.file = file - blobs;
            TRY(checkpoint_add_tensor(c, &t, err));
        }
    }
    return checkpoint_seal(c, err);
}

lamina_status store_open(memory *m, const char *path, bool with_tokenizer, checkpoint **out, tokenizer **tok,
                         lamina_error *err)
{
    image *im;
    *out = NULL;
    *tok = NULL;
    TRY(load_whole(m, path, &im, err));
    checkpoint *c = checkpoint_new(m, CHECKPOINT_STORE, path, err);
    lamina_status status = c ? become_checkpoint(im, c, with_tokenizer, tok, err) : NO_MEMORY(err);
    image_free(im);
    if (status != LAMINA_OK) {
        tokenizer_free(*tok);
        *tok = NULL;
        checkpoint_free(c);
        return status;
    }
    *out = c;
    return LAMINA_OK;
}

static lamina_status verify_all(image *im, const store_job *job, uint64_t *bytes, lamina_error *err)
{
    uint32_t *files = mem_array(im->m, MEM_OTHER, im->n_files, sizeof *files, err);
    flow *f = NULL;
    uint64_t total = 0;
    lamina_status status = files ? flow_new(job, 0, im, NULL, &f, err) : NO_MEMORY(err);
    if (status == LAMINA_OK) {
        for (uint32_t i = 0; i < im->n_files; i++) {
            files[i] = i;
            total += im->files[i].bytes;
        }
        status = flow_run(f, FLOW_CHECK, files, im->n_files, total, err);
        if (bytes) *bytes = flow_bytes(f, FLOW_CHECK);
    }
    flow_free(f);
    mem_free(im->m, files);
    return status;
}

lamina_status store_verify(const char *path, const store_job *job, uint64_t *bytes, lamina_error *err)
{
    image *im;
    if (bytes) *bytes = 0;
    TRY(load_whole(job->m, path, &im, err));
    lamina_status status = verify_all(im, job, bytes, err);
    image_free(im);
    return status;
}

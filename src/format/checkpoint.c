/* Owns the checkpoint: its list of files, its directory of tensors, and the rules that every directory must keep,
 * whoever wrote it. Promises that after checkpoint_seal() each tensor's extent lies inside its file, shares no byte
 * with another's (where the format does not allow it) and is as long as its shape and type say, so that those who read
 * weights check nothing again.
 *
 * Names live in an arena, the two lists grow by doubling: a directory of a hundred thousand tensors is sorted twice and
 * never searched line by line. */
#include "format/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "format/gguf.h"
#include "format/huggingface.h"

static lamina_status memory_status(const lamina_error *err)
{
    return err ? err->status : LAMINA_E_MEMORY;
}

checkpoint *checkpoint_new(memory *m, checkpoint_kind kind, const char *path, lamina_error *err)
{
    checkpoint *c = mem_alloc(m, MEM_MODEL, sizeof *c, err);
    if (!c) return NULL;
    *c = (checkpoint){.m = m, .kind = kind, .dialect = kind == CHECKPOINT_GGUF ? DIALECT_GGUF : DIALECT_HF};
    c->strings = arena_new(m, MEM_MODEL, err);
    if (c->strings) c->path = arena_strndup(c->strings, path, strlen(path), err);
    if (c->path) return c;
    checkpoint_free(c);
    return NULL;
}

void checkpoint_free(checkpoint *c)
{
    if (!c) return;
    json_decref(c->config);
    json_decref(c->generation);
    gguf_free(c->metadata);
    mem_free(c->m, c->tensors);
    mem_free(c->m, c->files);
    arena_free(c->strings);
    mem_free(c->m, c);
}

lamina_status checkpoint_add_file(checkpoint *c, const char *path, const char *name, uint64_t bytes, uint32_t *index,
                                  lamina_error *err)
{
    if (c->n_files == c->file_room) {
        if (c->n_files > UINT32_MAX / 4)
            return error_set(err, LAMINA_E_FORMAT, "%s: more than %" PRIu32 " files", c->path, c->n_files);
        uint32_t room = c->file_room ? 2 * c->file_room : 8;
        checkpoint_file *grown = mem_resize(c->m, MEM_MODEL, c->files, room * sizeof *grown, err);
        if (!grown) return memory_status(err);
        c->files = grown;
        c->file_room = room;
    }
    checkpoint_file f = {.bytes = bytes};
    f.path = arena_strndup(c->strings, path, strlen(path), err);
    if (!f.path) return memory_status(err);
    f.name = arena_strndup(c->strings, name, strlen(name), err);
    if (!f.name) return memory_status(err);
    if (index) *index = c->n_files;
    c->files[c->n_files++] = f;
    return LAMINA_OK;
}

lamina_status checkpoint_add_tensor(checkpoint *c, const tensor *t, lamina_error *err)
{
    if (c->n_tensors == c->tensor_room) {
        size_t room = c->tensor_room ? 2 * c->tensor_room : 64;
        if (room > SIZE_MAX / 2 / sizeof *t)
            return error_set(err, LAMINA_E_FORMAT, "%s: more than %zu tensors", c->path, c->n_tensors);
        tensor *grown = mem_resize(c->m, MEM_MODEL, c->tensors, room * sizeof *grown, err);
        if (!grown) return memory_status(err);
        c->tensors = grown;
        c->tensor_room = room;
    }
    tensor copy = *t;
    copy.name = arena_strndup(c->strings, t->name, strlen(t->name), err);
    if (!copy.name) return memory_status(err);
    if (t->foreign_name) {
        copy.foreign_name = arena_strndup(c->strings, t->foreign_name, strlen(t->foreign_name), err);
        if (!copy.foreign_name) return memory_status(err);
    }
    c->tensors[c->n_tensors++] = copy;
    return LAMINA_OK;
}

bool tensor_set_shape(tensor *t, const uint64_t *dims, uint32_t n)
{
    uint32_t folded = n > TENSOR_MAX_DIMS ? n - TENSOR_MAX_DIMS : 0;
    t->n_dims = n - folded;
    for (uint32_t i = 0; i < t->n_dims; i++) t->shape[i] = dims[folded + i];
    for (uint32_t i = 0; i < folded; i++) {
        if (dims[i] && t->shape[0] > UINT64_MAX / dims[i]) return false;
        t->shape[0] *= dims[i];
    }
    return true;
}

/* ---- sealing -------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tensor *)a)->name, ((const tensor *)b)->name);
}

static const char *file_name(const checkpoint *c, uint32_t file)
{
    return file < c->n_files ? c->files[file].path : c->path;
}

/* Bytes that shape and type imply. false: they exceed 64 bits, or a row is not whole blocks. */
static bool implied_bytes(const tensor *t, uint64_t *bytes)
{
    uint64_t row = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    if (!t->row_bytes && !dtype_row_ok(t->type, row)) return false;
    uint64_t total = tensor_row_bytes(t, row);
    if (total == 0 && row != 0) return false;
    bool empty = row == 0;
    for (uint32_t i = 0; i + 1 < t->n_dims; i++) empty = empty || t->shape[i] == 0;
    for (uint32_t i = 0; !empty && i + 1 < t->n_dims; i++) {
        if (total > UINT64_MAX / t->shape[i]) return false;
        total *= t->shape[i];
    }
    *bytes = empty ? 0 : total;
    return true;
}

static lamina_status check_tensor(const checkpoint *c, const tensor *t, lamina_error *err)
{
    if ((unsigned)t->type >= DT_COUNT || t->n_dims > TENSOR_MAX_DIMS)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: expected at most %d dimensions, found %" PRIu32,
                         file_name(c, t->file), t->name, TENSOR_MAX_DIMS, t->n_dims);
    uint64_t expected = 0;
    if (t->type != DT_OTHER && !implied_bytes(t, &expected))
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: its shape is impossible in %s: more than 64 bits of bytes, or rows of %" PRIu64
                         " elements that are not whole blocks of %" PRIu32,
                         file_name(c, t->file), t->name, dtype_name(t->type), t->n_dims ? t->shape[t->n_dims - 1] : 1,
                         dtype_table[t->type].block_elements);
    if (t->type != DT_OTHER && expected != t->bytes)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: expected %" PRIu64 " bytes from its shape in %s, found %" PRIu64,
                         file_name(c, t->file), t->name, expected, dtype_name(t->type), t->bytes);
    if (c->n_files == 0) return LAMINA_OK;
    if (t->file >= c->n_files)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: stands in file %" PRIu32 " of %" PRIu32, c->path,
                         t->name, t->file, c->n_files);
    uint64_t end = c->files[t->file].bytes;
    if (t->offset > end || t->bytes > end - t->offset)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: %" PRIu64 " bytes at offset %" PRIu64 " do not lie inside the file of %" PRIu64
                         " bytes (is it cut short?)",
                         file_name(c, t->file), t->name, t->bytes, t->offset, end);
    return LAMINA_OK;
}

typedef struct extent {
    uint64_t offset, end;
    uint32_t file;
    size_t tensor;
} extent;

static int by_place(const void *a, const void *b)
{
    const extent *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static lamina_status check_overlaps(const checkpoint *c, lamina_error *err)
{
    extent *all = mem_array(c->m, MEM_OTHER, c->n_tensors, sizeof *all, err);
    if (!all) return memory_status(err);
    size_t n = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        if (t->bytes) all[n++] = (extent){t->offset, t->offset + t->bytes, t->file, i};
    }
    if (n > 1) qsort(all, n, sizeof *all, by_place);
    lamina_status status = LAMINA_OK;
    for (size_t i = 1; i < n && status == LAMINA_OK; i++) {
        const extent *a = &all[i - 1], *b = &all[i];
        if (a->file == b->file && b->offset < a->end)
            status = error_set(
                err, LAMINA_E_FORMAT,
                "%s: tensors %s and %s overlap: one ends at offset %" PRIu64 ", the other begins at %" PRIu64,
                file_name(c, a->file), c->tensors[a->tensor].name, c->tensors[b->tensor].name, a->end, b->offset);
    }
    mem_free(c->m, all);
    return status;
}

lamina_status checkpoint_seal(checkpoint *c, lamina_error *err)
{
    if (c->n_tensors > 1) qsort(c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        if (i && strcmp(t[-1].name, t->name) == 0)
            return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s stands twice (also in %s)", file_name(c, t->file),
                             t->name, file_name(c, t[-1].file));
        TRY(check_tensor(c, t, err));
    }
    return c->n_files && !c->shares ? check_overlaps(c, err) : LAMINA_OK;
}

const tensor *checkpoint_find(const checkpoint *c, const char *name)
{
    tensor key = {.name = name};
    if (c->n_tensors == 0) return NULL;
    return bsearch(&key, c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && memcmp(text + n - k, end, k) == 0;
}

/* One .safetensors or .bin file of a folder stands for the folder, if the folder's checkpoint is made of it. */
static lamina_status open_beside(memory *m, const char *path, checkpoint **out, lamina_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char *folder = mem_strdup(m, MEM_OTHER, slash ? path : ".", err);
    if (!folder) return memory_status(err);
    if (slash) folder[slash == path ? 1 : slash - path] = '\0';
    lamina_status status = huggingface_open(m, folder, out, err);
    bool used = false;
    for (uint32_t i = 0; status == LAMINA_OK && i < (*out)->n_files; i++)
        used = used || strcmp((*out)->files[i].name, name) == 0;
    if (status == LAMINA_OK && !used) {
        status =
            error_set(err, LAMINA_E_UNSUPPORTED,
                      "%s: not a file that the checkpoint in its folder is made of: open the folder %s", path, folder);
        checkpoint_free(*out);
        *out = NULL;
    }
    mem_free(m, folder);
    return status;
}

static lamina_status refuse_file(const char *path, lamina_error *err)
{
    static const char *const pickles[] = {".pt", ".pth", ".ckpt", ".pkl"};
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        if (ends_with(path, pickles[i]))
            return error_set(err, LAMINA_E_UNSUPPORTED,
                             "%s: a PyTorch pickle of unknown layout: expected a Hugging Face folder (config.json with "
                             "safetensors or pytorch_model.bin)",
                             path);
    }
    return error_set(err, LAMINA_E_FORMAT,
                     "%s: expected a folder with config.json and safetensors (or pytorch_model.bin), a GGUF file or a "
                     "config.json",
                     path);
}

lamina_status checkpoint_open(memory *m, const char *path, checkpoint **out, lamina_error *err)
{
    *out = NULL;
    if (os_is_dir(path)) return huggingface_open(m, path, out, err);
    os_file file;
    TRY(os_open(path, OS_READ, &file, err));
    char magic[4] = {0};
    int64_t n = os_pread(&file, magic, sizeof magic, 0);
    os_close(&file);
    if (n < 0) {
        char text[128];
        return error_set(err, LAMINA_E_IO, "%s: reading: %s", path, os_error_text((int)-n, text, sizeof text));
    }
    if ((n == 4 && memcmp(magic, "GGUF", 4) == 0) || ends_with(path, ".gguf")) return gguf_open(m, path, out, err);
    if (ends_with(path, ".safetensors") || ends_with(path, ".bin")) return open_beside(m, path, out, err);
    if (ends_with(path, ".json")) return huggingface_open_config(m, path, out, err);
    return refuse_file(path, err);
}

/* Owns the opening of Hugging Face folders. Promises that which files are the weights is decided by their names and the
 * index alone, before any is read, as transformers decides it; that an index cannot reach outside its folder; and that
 * a folder which is something else (a publisher's own layout, an adapter, a pipeline) is refused by what it is. */
#include "format/huggingface.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "format/jsonio.h"
#include "format/jsonpull.h"
#include "format/pytorch.h"
#include "format/safetensors.h"

enum { INDEX_LIMIT = 256 << 20 }; /* bytes */

/* The forms that weights come in. */
typedef struct form {
    const char *begin, *end;    /* of the names of its files */
    const char *single, *index; /* the names that transformers gives */
    const char *index_end;
    lamina_status (*read)(checkpoint *c, const char *path, const char *name, lamina_error *err);
} form;

enum { SAFETENSORS, PYTORCH, N_FORMS };
static const form forms[N_FORMS] = {
    [SAFETENSORS] = {"", ".safetensors", "model.safetensors", "model.safetensors.index.json", ".safetensors.index.json",
                     safetensors_read},
    [PYTORCH] = {"pytorch_model", ".bin", "pytorch_model.bin", "pytorch_model.bin.index.json", ".bin.index.json",
                 pytorch_read},
};

static lamina_status memory_status(const lamina_error *err)
{
    return err ? err->status : LAMINA_E_MEMORY;
}

static bool starts_with(const char *text, const char *begin)
{
    return strncmp(text, begin, strlen(begin)) == 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && memcmp(text + n - k, end, k) == 0;
}

static const char *join(arena *a, const char *folder, const char *name, lamina_error *err)
{
    size_t n = strlen(folder), k = strlen(name);
    char *path = arena_alloc(a, n + k + 2, err);
    if (!path) return NULL;
    memcpy(path, folder, n);
    if (n && folder[n - 1] != '/') path[n++] = '/';
    memcpy(path + n, name, k + 1);
    return path;
}

/* ---- what the folder holds ------------------------------------------------------------------------------------- */

/* Names of interest; NULL: absent. Of several the first in sorted order is kept, and how many there were. */
typedef struct holding {
    const char *single, *index;      /* by transformers' names */
    const char *other_index, *other; /* of other names */
    unsigned n_other_index, n_other;
} holding;

typedef struct listing {
    arena *names;
    bool config, adapter, pipeline;
    holding of[N_FORMS];
    const char *consolidated, *foreign, *gguf;
} listing;

static lamina_status keep(listing *l, const char **first, const char *name, lamina_error *err)
{
    if (*first) return LAMINA_OK;
    *first = arena_strndup(l->names, name, strlen(name), err);
    return *first ? LAMINA_OK : memory_status(err);
}

/* Weights that only another program reads: TensorFlow's, Flax's and other files. */
static bool is_foreign_weights(const char *name)
{
    return ends_with(name, ".pth") || (starts_with(name, "model") && ends_with(name, ".pt")) ||
           starts_with(name, "tf_model") || starts_with(name, "flax_model");
}

static lamina_status list_weights(listing *l, size_t which, const char *name, bool *mine, lamina_error *err)
{
    const form *f = &forms[which];
    holding *h = &l->of[which];
    bool index = ends_with(name, f->index_end);
    *mine = starts_with(name, f->begin) && (index || ends_with(name, f->end));
    if (!*mine) return LAMINA_OK;
    if (strcmp(name, f->single) == 0) return keep(l, &h->single, name, err);
    if (strcmp(name, f->index) == 0) return keep(l, &h->index, name, err);
    *(index ? &h->n_other_index : &h->n_other) += 1;
    return keep(l, index ? &h->other_index : &h->other, name, err);
}

static lamina_status list_name(void *user, const char *name, lamina_error *err)
{
    listing *l = user;
    if (strcmp(name, "config.json") == 0) l->config = true;
    if (starts_with(name, "adapter_config.json") || starts_with(name, "adapter_model.")) l->adapter = true;
    if (strcmp(name, "model_index.json") == 0) l->pipeline = true;
    if (starts_with(name, "adapter_model.")) return LAMINA_OK;
    if (starts_with(name, "consolidated.") &&
        (ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json") || ends_with(name, ".pth")))
        return keep(l, &l->consolidated, name, err);
    if (ends_with(name, ".gguf")) return keep(l, &l->gguf, name, err);
    bool mine = false;
    for (size_t i = 0; i < N_FORMS && !mine; i++) TRY(list_weights(l, i, name, &mine, err));
    return !mine && is_foreign_weights(name) ? keep(l, &l->foreign, name, err) : LAMINA_OK;
}

static lamina_status refuse_folder(const char *folder, const listing *l, lamina_error *err)
{
    if (l->adapter)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: an adapter (adapter_config.json) without its model: merge it into the model first",
                         folder);
    if (l->pipeline)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: a pipeline of several models (model_index.json): expected one language model", folder);
    if (l->gguf)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: a folder with GGUF files, for instance %s: open the GGUF file itself", folder, l->gguf);
    if (l->consolidated)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: weights only as %s, their publisher's own layout: the Hugging Face layout is needed "
                         "(config.json and model*.safetensors or pytorch_model*.bin); transformers has a script that "
                         "converts (convert_*_weights_to_hf.py)",
                         folder, l->consolidated);
    if (l->foreign)
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: weights only as %s: safetensors are needed (or pytorch_model.bin)", folder, l->foreign);
    return error_set(err, LAMINA_E_FORMAT, "%s: no config.json in this folder", folder);
}

/* ---- the index -------------------------------------------------------------------------------------------------- */

typedef struct placed { /* one line of the weight_map */
    const char *tensor, *shard;
    uint32_t file;
    bool found;
} placed;

typedef struct index_map {
    memory *m;
    arena *names;
    const form *of;
    const char *folder, *path;
    placed *lines;
    size_t n, room;
} index_map;

static int by_shard(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    int order = strcmp(x->shard, y->shard);
    return order ? order : strcmp(x->tensor, y->tensor);
}

static int by_tensor(const void *a, const void *b)
{
    return strcmp(((const placed *)a)->tensor, ((const placed *)b)->tensor);
}

/* A shard is a file of the same folder: nothing in its name leads elsewhere. */
static lamina_status check_shard_name(const index_map *x, const char *of, jp_text shard, lamina_error *err)
{
    bool plain = shard.bytes > 0 && shard.bytes <= 255 && shard.data[0] != '.';
    for (size_t i = 0; i < shard.bytes; i++) {
        unsigned char c = (unsigned char)shard.data[i];
        plain = plain && c >= 0x20 && c != 0x7f && c != '/' && c != '\\';
    }
    const char *end = x->of->end;
    size_t k = strlen(end);
    int shown = shard.bytes > 200 ? 200 : (int)shard.bytes;
    if (!plain)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: the file \"%.*s\" is not a plain name of a file in this folder", x->path, of,
                         shown, shard.data);
    if (shard.bytes <= k || memcmp(shard.data + shard.bytes - k, end, k) != 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: the file \"%.*s\" is not named *%s", x->path, of, shown,
                         shard.data, end);
    return LAMINA_OK;
}

static lamina_status add_line(index_map *x, jp_text key, jp *value, lamina_error *err)
{
    if (x->n == x->room) {
        size_t room = x->room ? 2 * x->room : 256;
        placed *grown = mem_resize(x->m, MEM_OTHER, x->lines, room * sizeof *grown, err);
        if (!grown) return memory_status(err);
        x->lines = grown;
        x->room = room;
    }
    if (memchr(key.data, '\0', key.bytes))
        return error_set(err, LAMINA_E_FORMAT, "%s: the name of a tensor holds a zero byte", x->path);
    placed line = {.tensor = arena_strndup(x->names, key.data, key.bytes, err)};
    if (!line.tensor) return memory_status(err);
    jp_text shard;
    if (jp_peek(value) != JP_STRING)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: its file is not a string", x->path, line.tensor);
    TRY(jp_string(value, &shard, err));
    const char *last = x->n ? x->lines[x->n - 1].shard : "";
    if (jp_is(shard, last) && x->n) {
        line.shard = last; /* neighbours mostly share their shard */
    } else {
        TRY(check_shard_name(x, line.tensor, shard, err));
        line.shard = arena_strndup(x->names, shard.data, shard.bytes, err);
        if (!line.shard) return memory_status(err);
    }
    x->lines[x->n++] = line;
    return LAMINA_OK;
}

static lamina_status walk_index(index_map *x, jp *root, lamina_error *err)
{
    bool found;
    jp map, in;
    if (jp_peek(root) != JP_OBJECT) return error_set(err, LAMINA_E_FORMAT, "%s: expected a JSON object", x->path);
    TRY(jp_member(root, "weight_map", &found, &map, err));
    if (!found || jp_peek(&map) != JP_OBJECT)
        return error_set(err, LAMINA_E_FORMAT, "%s: expected an object \"weight_map\"", x->path);
    TRY(jp_enter(&map, JP_OBJECT, &in, err));
    for (;;) {
        bool more;
        jp_text key;
        TRY(jp_next_key(&in, &more, &key, err));
        if (!more) break;
        TRY(add_line(x, key, &in, err));
    }
    if (x->n == 0) return error_set(err, LAMINA_E_FORMAT, "%s: \"weight_map\" is empty", x->path);
    qsort(x->lines, x->n, sizeof *x->lines, by_tensor);
    for (size_t i = 1; i < x->n; i++) {
        if (strcmp(x->lines[i - 1].tensor, x->lines[i].tensor) == 0)
            return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s stands twice in \"weight_map\"", x->path,
                             x->lines[i].tensor);
    }
    return LAMINA_OK;
}

static lamina_status parse_index(index_map *x, lamina_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    TRY(os_read_file(x->m, x->path, INDEX_LIMIT, &text, &bytes, err));
    jp_document document;
    jp root;
    lamina_status status = jp_open(x->m, MEM_OTHER, x->path, text, bytes, &document, &root, err);
    if (status == LAMINA_OK) status = walk_index(x, &root, err);
    jp_close(&document);
    mem_free(x->m, text);
    return status;
}

static lamina_status read_shards(checkpoint *c, index_map *x, lamina_error *err)
{
    qsort(x->lines, x->n, sizeof *x->lines, by_shard);
    for (size_t i = 0; i < x->n; i++) {
        placed *line = &x->lines[i];
        if (i && strcmp(line[-1].shard, line->shard) == 0) {
            line->file = line[-1].file;
            continue;
        }
        const char *path = join(x->names, x->folder, line->shard, err);
        if (!path) return memory_status(err);
        if (!os_exists(path))
            return error_set(err, LAMINA_E_IO, "%s: the file %s that it names is missing from the folder", x->path,
                             line->shard);
        TRY(x->of->read(c, path, line->shard, err));
        line->file = c->n_files - 1;
    }
    qsort(x->lines, x->n, sizeof *x->lines, by_tensor);
    return LAMINA_OK;
}

/* Keeps of each listed tensor the one in the shard that the index names. */
static lamina_status follow_index(checkpoint *c, index_map *x, lamina_error *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        placed key = {.tensor = t->name};
        placed *line = bsearch(&key, x->lines, x->n, sizeof *x->lines, by_tensor);
        if (line && line->file != t->file) continue;
        if (line) line->found = true;
        c->tensors[kept++] = *t;
    }
    c->n_tensors = kept;
    for (size_t i = 0; i < x->n; i++) {
        if (!x->lines[i].found)
            return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s is not in %s, where the index says it is", x->path,
                             x->lines[i].tensor, x->lines[i].shard);
    }
    return LAMINA_OK;
}

static lamina_status open_index(checkpoint *c, const form *of, const char *name, arena *scratch, lamina_error *err)
{
    index_map x = {.m = c->m, .names = scratch, .of = of, .folder = c->path};
    x.path = join(scratch, c->path, name, err);
    if (!x.path) return memory_status(err);
    lamina_status status = parse_index(&x, err);
    if (status == LAMINA_OK) status = read_shards(c, &x, err);
    if (status == LAMINA_OK) status = follow_index(c, &x, err);
    mem_free(c->m, x.lines);
    return status;
}

/* ---- the folder ------------------------------------------------------------------------------------------------- */

/* The N of a name "...-00002-of-0000N" and the form's end; 1 for any other. */
static unsigned long shards_by_name(const form *of, const char *name)
{
    static const char pattern[] = "-#####-of-#####";
    size_t n = strlen(name) - strlen(of->end), k = sizeof pattern - 1;
    if (n < k) return 1;
    const char *end = name + n - k;
    for (size_t i = 0; i < k; i++) {
        if (pattern[i] == '#' ? end[i] < '0' || end[i] > '9' : end[i] != pattern[i]) return 1;
    }
    return strtoul(end + 10, NULL, 10);
}

static lamina_status open_weights(checkpoint *c, const form *of, const holding *h, arena *scratch, lamina_error *err)
{
    const char *one = h->single, *folder = c->path;
    if (!one && !h->index && h->n_other_index > 1)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: %u indexes, for instance %s: expected %s or one alone", folder,
                         h->n_other_index, h->other_index, of->index);
    const char *index = one ? NULL : h->index ? h->index : h->other_index;
    if (index) return open_index(c, of, index, scratch, err);
    if (!one && h->n_other > 1)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: %u %s files, for instance %s, but no %s to say how they belong together", folder,
                         h->n_other, of->end + 1, h->other, of->index);
    if (!one) one = h->other;
    unsigned long shards = shards_by_name(of, one);
    if (shards > 1)
        return error_set(err, LAMINA_E_FORMAT, "%s: %s is one of %lu files, but there is no %s", folder, one, shards,
                         of->index);
    const char *path = join(scratch, folder, one, err);
    return path ? of->read(c, path, one, err) : memory_status(err);
}

/* The form to read: the first that has a name that transformers gives, else the first that has any; N_FORMS: none. */
static size_t choose(const listing *l)
{
    for (size_t i = 0; i < N_FORMS; i++)
        if (l->of[i].single || l->of[i].index) return i;
    for (size_t i = 0; i < N_FORMS; i++)
        if (l->of[i].other || l->of[i].other_index) return i;
    return N_FORMS;
}

static lamina_status read_configs(checkpoint *c, const char *folder, arena *scratch, lamina_error *err)
{
    const char *path = join(scratch, folder, "config.json", err);
    if (!path) return memory_status(err);
    TRY(json_read_file(c->m, path, JSON_CONFIG_LIMIT, &c->config, err));
    path = join(scratch, folder, "generation_config.json", err);
    if (!path) return memory_status(err);
    return os_exists(path) ? json_read_file(c->m, path, JSON_CONFIG_LIMIT, &c->generation, err) : LAMINA_OK;
}

static lamina_status open_listed(memory *m, const char *folder, listing *l, checkpoint **out, lamina_error *err)
{
    TRY(os_list_dir(folder, list_name, l, err));
    size_t which = choose(l);
    bool weights = which < N_FORMS;
    bool something_else = l->adapter || l->gguf || l->consolidated || l->foreign;
    if (!l->config || (!weights && something_else)) return refuse_folder(folder, l, err);
    checkpoint *c = checkpoint_new(m, weights ? CHECKPOINT_HF : CHECKPOINT_CONFIG, folder, err);
    if (!c) return memory_status(err);
    lamina_status status = read_configs(c, folder, l->names, err);
    if (status == LAMINA_OK && weights) status = open_weights(c, &forms[which], &l->of[which], l->names, err);
    if (status == LAMINA_OK) status = checkpoint_seal(c, err);
    if (status == LAMINA_OK) {
        *out = c;
        return LAMINA_OK;
    }
    checkpoint_free(c);
    return status;
}

lamina_status huggingface_open(memory *m, const char *folder, checkpoint **out, lamina_error *err)
{
    *out = NULL;
    listing l = {.names = arena_new(m, MEM_OTHER, err)};
    if (!l.names) return memory_status(err);
    lamina_status status = open_listed(m, folder, &l, out, err);
    arena_free(l.names);
    return status;
}

lamina_status huggingface_open_config(memory *m, const char *path, checkpoint **out, lamina_error *err)
{
    *out = NULL;
    checkpoint *c = checkpoint_new(m, CHECKPOINT_CONFIG, path, err);
    if (!c) return memory_status(err);
    lamina_status status = json_read_file(m, path, JSON_CONFIG_LIMIT, &c->config, err);
    if (status != LAMINA_OK) {
        checkpoint_free(c);
        return status;
    }
    *out = c;
    return LAMINA_OK;
}

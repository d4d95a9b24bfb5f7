/* The image of a store: everything that its manifest says, in memory. Packing makes one from a model and writes what
 * it says; opening and verifying read one back. A draft (pack.json) is an image that also knows where every byte
 * comes from, so that an interrupted packing can be finished from it alone. */
#ifndef LAMINA_STORE_IMAGE_H
#define LAMINA_STORE_IMAGE_H

#include "base/os.h"
#include "base/os_files.h"
#include "store/store.h"

#define STORE_MANIFEST   "manifest.json"
#define STORE_DRAFT      "pack.json"
#define STORE_JOURNAL    "pack.journal"
#define STORE_TOKENIZER  "tokenizer.lamina"
#define STORE_IMPORTANCE "pack.importance"
#define STORE_LAYERS     "layers"

enum {
    STORE_VERSION = 1,
    STORE_ALIGN = 4096, /* tensor data of a layer file begin at a multiple of this */
    STORE_MAX_FILES = 1 << 16,
    STORE_MAX_TENSORS = 1 << 22,
    STORE_MAX_NAME = 1024,
    STORE_MAX_JSON = 256 << 20 /* bytes of a manifest */
};

/* Status of an allocation that failed with *err filled in. */
#define NO_MEMORY(err) ((err) && (err)->status != LAMINA_OK ? (err)->status : LAMINA_E_MEMORY)

typedef struct image_source { /* a file that bytes come from */
    const char *name;
    uint64_t bytes;
    const char *path;    /* draft only: absolute */
    int64_t modified_ns; /* draft only */
} image_source;

typedef struct image_file { /* a file of the store */
    const char *name;       /* within the store */
    uint64_t bytes;
    uint64_t xxh3;         /* XXH3-64 of the whole file; 0 in a draft until written */
    uint64_t header_bytes; /* before the first tensor; 0: not a layer file */
    size_t first, n_tensors;
    bool written, verified; /* while packing */
} image_file;

/* Numbers that codes are multiplied by, each for a block of the matrix. */
typedef struct image_scales {
    uint32_t source;
    dtype type; /* f32, bf16 or f16 */
    uint64_t offset;
    uint32_t rows, cols; /* of a block; UINT32_MAX, SCALE_COLS_ALL: all; rows 0: there are none */
    uint64_t stride;     /* scales of a row of blocks */
} image_scales;

typedef struct image_tensor {
    tensor t; /* as the store has it. file: index into files; offset: in that file */
    /* draft only: where its bytes are, and what they are there; of the same type and row_bytes: copied */
    uint32_t source;
    uint64_t source_offset;
    dtype from;
    uint64_t from_row_bytes;    /* of packed types, else 0 */
    image_scales scales;        /* of what is quantised from codes that have some */
    const float *importance;    /* [columns] of what is quantised; NULL: none, or not read yet */
    uint64_t importance_offset; /* draft only: where it begins in STORE_IMPORTANCE, in f32; IMPORTANCE_NONE: none */
    /* while packing: of the rows quantised so far the sums of (x - quantised)^2 and of x^2 */
    double error, power;
} image_tensor;

#define IMPORTANCE_NONE UINT64_MAX

static inline uint64_t image_columns(const tensor *t)
{
    return t->n_dims ? t->shape[t->n_dims - 1] : 1;
}
/* Of a tensor that is not empty. */
static inline uint64_t image_rows(const tensor *t)
{
    return t->bytes / tensor_row_bytes(t, image_columns(t));
}
static inline bool image_recoded(const image_tensor *x)
{
    return x->from != x->t.type || x->from_row_bytes != x->t.row_bytes;
}
static inline uint64_t image_source_row(const image_tensor *x)
{
    return x->from_row_bytes ? x->from_row_bytes : dtype_row_bytes(x->from, image_columns(&x->t));
}
/* Bytes that it has in the source. */
static inline uint64_t image_source_bytes(const image_tensor *x)
{
    return image_recoded(x) ? image_rows(&x->t) * image_source_row(x) : x->t.bytes;
}

typedef struct image {
    memory *m;
    arena *strings;
    const char *path; /* the store's folder */
    const char *family;
    tensor_dialect dialect;
    const char *source_kind;     /* "huggingface", "gguf" or "store" */
    const char *source_path;     /* draft only: absolute */
    const char *dtype;           /* the SPEC that it was packed by; NULL: none, all was copied */
    uint64_t calibration;        /* XXH3-64 of the text that its types and roundings were judged by; 0: none */
    json_t *config, *generation; /* generation may be NULL */
    /* draft only: what STORE_IMPORTANCE holds, f32 one tensor after the other; n 0: there is no such file */
    uint64_t n_importance, importance_xxh3;
    float *importance; /* [n_importance]; NULL: not read yet */
    uint32_t n_sources, n_files;
    image_source *sources;
    image_file *files; /* the tokenizer first, if there is one; then in the order of the pass */
    size_t n_tensors;
    image_tensor *tensors; /* in the order of files and offsets, without gaps */
} image;

lamina_status image_new(memory *m, const char *path, image **out, lamina_error *err);
void image_free(image *im); /* NULL is allowed */

/* What a tensor of the source becomes. */
typedef struct image_target {
    dtype type;
    uint64_t row_bytes;      /* of packed types */
    dtype of;                /* of packed types */
    image_scales scales;     /* of what is quantised from codes that have some */
    const float *importance; /* [columns] of what is quantised; NULL: none; it need not outlive image_lay_out() */
} image_target;

typedef struct image_tokenizer {
    uint64_t bytes, xxh3; /* bytes 0: none */
} image_tokenizer;

/* What the bytes of a store follow from, beside the model. */
typedef struct image_request {
    const char *spec;     /* NULL: none */
    uint64_t calibration; /* 0: none */
} image_request;

/* The beginnings of what packing `from` into the folder `path` gives: all but the layer files and the tensors, so all
 * that FORM_WORK says. */
lamina_status image_begin(memory *m, const model *from, const char *path, image_tokenizer tok, image_request request,
                          image **out, lamina_error *err);
/* The rest: units, order, sizes, offsets. targets [from->source->n_tensors]. Reads no weights. */
lamina_status image_lay_out(image *im, const model *from, const image_target *targets, lamina_error *err);

/* Text that grows. The first failure sticks: later calls do nothing. */
typedef struct text {
    memory *m;
    char *data; /* NUL-terminated; mem_free() */
    size_t bytes, capacity;
    lamina_status status;
    lamina_error *err;
} text;
__attribute__((format(printf, 2, 3))) void text_add(text *t, const char *format, ...);
void text_quote(text *t, const char *s); /* as a JSON string */

typedef enum image_form {
    FORM_MANIFEST,
    FORM_DRAFT,    /* with the sources' paths, times and offsets, without the layer files' checksums */
    FORM_IDENTITY, /* the draft without paths: equal texts, equal bytes in every file */
    FORM_WORK      /* the sources, the configuration and the SPEC: what packing follows from */
} image_form;
/* The JSON text, its own checksum last. The same image gives the same bytes. */
lamina_status image_render(const image *im, image_form form, text *out);
/* Reads it back; everything in it is checked. form: manifest or draft. name is for errors. */
lamina_status image_parse(memory *m, const char *path, const char *name, const char *data, size_t bytes,
                          image_form form, image **out, lamina_error *err);
/* path/name, read and parsed. *out NULL and LAMINA_OK: there is none. */
lamina_status image_load(memory *m, const char *path, const char *name, image_form form, image **out,
                         lamina_error *err);
/* Header of layer file `file`: padded to a multiple of STORE_ALIGN. */
lamina_status image_header(const image *im, uint32_t file, text *out);

/* a/b; mem_free(). */
char *store_join(memory *m, const char *a, const char *b, lamina_error *err);
/* Writes a small file: temporary name, sync, rename. */
lamina_status store_replace(memory *m, const char *folder, const char *name, const void *data, size_t bytes,
                            const store_job *job, lamina_error *err);
static inline void store_step(const store_job *job)
{
    if (job->step) job->step(job->step_user);
}

#endif

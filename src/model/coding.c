/* Owns how quantised checkpoints of transformers say what their numbers mean: which tensors lie beside a matrix, how
 * many of its elements a scale is for, what shape eight bits of two codes have.
 *
 * fp8 (fine-grained, fbgemm, compressed-tensors): X is F8; X_scale_inv or X_scale has one scale for all, for a row, or
 * for a block of 128 x 128. What scales activations (input_scale and its like) is for kernels that round those; here
 * nobody does, so it is not used.
 * bitsandbytes, 4 bits: X is a column of bytes; X.quant_state.bitsandbytes__nf4 (or fp4) is JSON with the shape and how
 * many elements share a scale of X.absmax; those may be 8-bit codes themselves, of X.nested_quant_map, X.nested_absmax
 * and an offset. 8 bits: X is int8, SCB beside it has 127 times the scale of each row.
 *
 * Foreign bytes: the JSON is at most STATE_BYTES, and what it says must fit the tensors. */
#include "model/coding.h"

#include <stdio.h>
#include <string.h>

#include "base/os.h"

enum { STATE_BYTES = 4096, NAME_BYTES = 224, FP8_BLOCK = 128, NESTED_CODES = 256, LEVELS = 16 };

typedef struct look {
    const reading *r;
    arena *small;
    const tensor *t;
    coding *out;
    char stem[NAME_BYTES]; /* its name without "weight" at the end */
} look;

static const char *file_of(const look *l, const tensor *t)
{
    return t->file < l->r->c->n_files ? l->r->c->files[t->file].path : l->r->c->path;
}

static lamina_status refuse(const look *l, const tensor *t, lamina_status status, const char *what)
{
    return error_set(l->r->err, status, "%s: tensor %s: %s", file_of(l, t), t->name, what);
}

static const tensor *find(const look *l, const char *before, const char *after)
{
    char name[2 * NAME_BYTES];
    int n = snprintf(name, sizeof name, "%s%s", before, after);
    return n > 0 && (size_t)n < sizeof name ? checkpoint_find(l->r->c, name) : NULL;
}

/* From now on it belongs to the matrix; NULL is allowed. */
static void take(look *l, const tensor *t)
{
    if (t && l->out->n < CODING_MOST) l->out->with[l->out->n++] = (uint32_t)(t - l->r->c->tensors);
}

static lamina_status missing(const look *l, const char *before, const char *after)
{
    return error_set(l->r->err, LAMINA_E_FORMAT, "%s: tensor %s%s: the scales of %s are missing", l->r->c->path, before,
                     after, l->t->name);
}

static uint64_t count_of(const tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

static bool is_wide(const tensor *t)
{
    return t->type == DT_F32 || t->type == DT_BF16 || t->type == DT_F16;
}

/* A small tensor's bytes. */
static lamina_status read_small(const look *l, const tensor *t, void *data)
{
    os_file f;
    const char *path = file_of(l, t);
    TRY(os_open(path, OS_READ, &f, l->r->err));
    lamina_status status = os_read_at(&f, path, t->offset, data, t->bytes, l->r->err);
    os_close(&f);
    return status;
}

/* ---- fp8 ---------------------------------------------------------------------------------------------------------- */

static uint64_t blocks_of(uint64_t n)
{
    return (n + FP8_BLOCK - 1) / FP8_BLOCK;
}

/* What the shape of scales says they are for. */
static lamina_status fp8_grid(const look *l, const tensor *s, scale_grid *g)
{
    const tensor *t = l->t;
    uint64_t rows = t->shape[0], cols = t->shape[1], last = s->n_dims ? s->shape[s->n_dims - 1] : 1;
    bool two = s->n_dims == 2 && s->shape[0] == blocks_of(rows) && s->shape[1] == blocks_of(cols);
    bool a_row = (s->n_dims == 2 && s->shape[0] == rows && last == 1) || (s->n_dims == 1 && last == rows);
    if (!is_wide(s)) return refuse(l, s, LAMINA_E_UNSUPPORTED, "expected scales in f32, bf16 or f16");
    if (two) {
        *g = (scale_grid){.rows = FP8_BLOCK, .cols = FP8_BLOCK, .stride = blocks_of(cols)};
    } else if (count_of(s) == 1) {
        *g = (scale_grid){.rows = UINT32_MAX, .cols = SCALE_COLS_ALL, .stride = 1};
    } else if (a_row) {
        *g = (scale_grid){.rows = 1, .cols = SCALE_COLS_ALL, .stride = 1};
    } else {
        return error_set(l->r->err, LAMINA_E_FORMAT,
                         "%s: tensor %s: expected one scale, one for each of %llu rows, or the shape [%llu, %llu]",
                         file_of(l, s), s->name, (unsigned long long)rows, (unsigned long long)blocks_of(rows),
                         (unsigned long long)blocks_of(cols));
    }
    return LAMINA_OK;
}

static bool is_quantised(const reading *r)
{
    return json_is_object(json_object_get(r->config, "quantization_config")) ||
           json_is_object(json_object_get(r->c->config, "quantization_config"));
}

static lamina_status fp8(look *l)
{
    static const char *const unused[] = {"input_scale", "activation_scale", "input_scale_ub"};
    const tensor *s = find(l, l->t->name, "_scale_inv");
    if (!s) s = find(l, l->t->name, "_scale");
    if (!s) return is_quantised(l->r) ? missing(l, l->t->name, "_scale_inv") : LAMINA_OK;
    TRY(fp8_grid(l, s, &l->out->grid));
    l->out->scales = (uint32_t)(s - l->r->c->tensors);
    take(l, s);
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) take(l, find(l, l->stem, unused[i]));
    return LAMINA_OK;
}

/* ---- bitsandbytes, 8 bits ------------------------------------------------------------------------------------------ */

static lamina_status int8_rows(look *l, const tensor *s)
{
    const tensor *format = find(l, l->stem, "weight_format");
    uint8_t order = 0;
    if (s->type != DT_F32 || count_of(s) != l->t->shape[0])
        return error_set(l->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected f32, one for each of %llu rows",
                         file_of(l, s), s->name, (unsigned long long)l->t->shape[0]);
    if (format) {
        if (format->type != DT_U8 || format->bytes != 1) return refuse(l, format, LAMINA_E_FORMAT, "expected one u8");
        TRY(read_small(l, format, &order));
        if (order) return refuse(l, format, LAMINA_E_UNSUPPORTED, "only the order of rows, 0, is read");
    }
    l->out->as.type = DT_INT8_ROWS;
    l->out->scales = (uint32_t)(s - l->r->c->tensors);
    l->out->grid = (scale_grid){.rows = 1, .cols = SCALE_COLS_ALL, .stride = 1};
    take(l, s);
    take(l, format);
    return LAMINA_OK;
}

/* ---- bitsandbytes, 4 bits ------------------------------------------------------------------------------------------ */

typedef struct four_bits { /* of the JSON */
    uint64_t rows, cols;
    uint32_t block, nested_block;
    double offset;
} four_bits;

static bool is_whole(const json_t *value, json_int_t most)
{
    return json_is_integer(value) && json_integer_value(value) >= 1 && json_integer_value(value) <= most;
}

static bool read_state(const json_t *state, four_bits *out)
{
    enum { MOST_BLOCK = 1 << 16 };
    const json_int_t most = (json_int_t)1 << 31;
    const json_t *shape = json_object_get(state, "shape"), *block = json_object_get(state, "blocksize");
    const json_t *rows = json_array_get(shape, 0), *cols = json_array_get(shape, 1);
    const json_t *nested = json_object_get(state, "nested_blocksize"),
                 *offset = json_object_get(state, "nested_offset");
    if (json_array_size(shape) != 2 || !is_whole(rows, most) || !is_whole(cols, most)) return false;
    if (!is_whole(block, MOST_BLOCK) || (nested && !(is_whole(nested, MOST_BLOCK) && json_is_number(offset))))
        return false;
    *out = (four_bits){.rows = (uint64_t)json_integer_value(rows),
                       .cols = (uint64_t)json_integer_value(cols),
                       .block = (uint32_t)json_integer_value(block),
                       .nested_block = (uint32_t)json_integer_value(nested),
                       .offset = json_number_value(offset)};
    return true;
}

static lamina_status load_state(const look *l, const tensor *q, four_bits *out)
{
    char text[STATE_BYTES];
    if (q->type != DT_U8 || q->bytes > sizeof text)
        return refuse(l, q, LAMINA_E_FORMAT, "expected JSON of at most 4096 bytes as u8");
    TRY(read_small(l, q, text));
    json_t *state = json_loadb(text, q->bytes, JSON_REJECT_DUPLICATES, NULL);
    bool ok = json_is_object(state) && read_state(state, out);
    json_decref(state);
    return ok ? LAMINA_OK
              : refuse(l, q, LAMINA_E_FORMAT, "expected an object with a blocksize and a shape of two sizes");
}

/* The levels that kernels know. */
static lamina_status check_levels(const look *l, bool nf4)
{
    static const float levels[2][LEVELS] = {{LEVELS_BNB_FP4}, {LEVELS_NF4}};
    const tensor *map = find(l, l->t->name, ".quant_map");
    float have[LEVELS];
    if (!map) return missing(l, l->t->name, ".quant_map");
    if (map->type != DT_F32 || map->bytes != sizeof have) return refuse(l, map, LAMINA_E_FORMAT, "expected 16 of f32");
    TRY(read_small(l, map, have));
    for (size_t i = 0; i < LEVELS; i++)
        if (have[i] != levels[nf4][i])
            return error_set(l->r->err, LAMINA_E_UNSUPPORTED, "%s: tensor %s: element %zu is %.9g, that of %s is %.9g",
                             file_of(l, map), map->name, i, (double)have[i], nf4 ? "nf4" : "fp4",
                             (double)levels[nf4][i]);
    return LAMINA_OK;
}

/* absmax as codes: of how many which levels, scales and offset. */
static lamina_status nested(look *l, const four_bits *f, const tensor *absmax)
{
    const tensor *scales = find(l, l->t->name, ".nested_absmax"), *map = find(l, l->t->name, ".nested_quant_map");
    if (!scales || !map) return missing(l, l->t->name, scales ? ".nested_quant_map" : ".nested_absmax");
    uint64_t n = f->nested_block ? (count_of(absmax) + f->nested_block - 1) / f->nested_block : 0;
    if (scales->type != DT_F32 || !n || count_of(scales) != n)
        return error_set(l->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected %llu of f32", file_of(l, scales),
                         scales->name, (unsigned long long)n);
    if (map->type != DT_F32 || count_of(map) != NESTED_CODES)
        return refuse(l, map, LAMINA_E_FORMAT, "expected 256 of f32");
    nested_scales *to = arena_alloc(l->small, sizeof *to, l->r->err);
    if (!to) return LAMINA_E_MEMORY;
    *to = (nested_scales){.scales = (uint32_t)(scales - l->r->c->tensors),
                          .map = (uint32_t)(map - l->r->c->tensors),
                          .block = f->nested_block,
                          .offset = (float)f->offset};
    l->out->nested = to;
    take(l, scales);
    take(l, map);
    return LAMINA_OK;
}

static lamina_status check_sizes(const look *l, const four_bits *f, const tensor *absmax)
{
    uint64_t n = f->rows * f->cols; /* at most 2^62 */
    bool power = f->block >= 32 && (f->block & (f->block - 1)) == 0;
    if (!power || f->cols % f->block)
        return error_set(l->r->err, LAMINA_E_UNSUPPORTED,
                         "%s: tensor %s: blocks of %u elements in rows of %llu are not computed; expected a power of "
                         "two from 32 that divides a row",
                         file_of(l, l->t), l->t->name, f->block, (unsigned long long)f->cols);
    if (n != 2 * l->t->bytes)
        return error_set(l->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected %llu x %llu codes, found %llu",
                         file_of(l, l->t), l->t->name, (unsigned long long)f->rows, (unsigned long long)f->cols,
                         (unsigned long long)(2 * l->t->bytes));
    if ((absmax->type != DT_F32 && absmax->type != DT_U8) || count_of(absmax) != n / f->block)
        return error_set(l->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected %llu of f32 or u8", file_of(l, absmax),
                         absmax->name, (unsigned long long)(n / f->block));
    return LAMINA_OK;
}

static lamina_status four_bit(look *l, const tensor *q, bool nf4)
{
    const tensor *absmax = find(l, l->t->name, ".absmax");
    four_bits f;
    if (!absmax) return missing(l, l->t->name, ".absmax");
    if (l->t->type != DT_U8)
        return refuse(l, l->t, LAMINA_E_UNSUPPORTED, "codes of 4 bits in another type than uint8 are not read");
    TRY(load_state(l, q, &f));
    TRY(check_sizes(l, &f, absmax));
    TRY(check_levels(l, nf4));
    if (absmax->type == DT_U8) TRY(nested(l, &f, absmax));
    coding *c = l->out;
    c->as.type = nf4 ? DT_NF4_PAIRS : DT_FP4_PAIRS;
    c->as.n_dims = 2;
    c->as.shape[0] = f.rows;
    c->as.shape[1] = f.cols;
    c->scales = (uint32_t)(absmax - l->r->c->tensors);
    c->grid = (scale_grid){.rows = 1, .cols = f.block, .stride = f.cols / f.block};
    take(l, absmax);
    take(l, find(l, l->t->name, ".quant_map"));
    take(l, q);
    return LAMINA_OK;
}

lamina_status coding_of(const reading *r, arena *small, const tensor *t, coding *out)
{
    look l = {.r = r, .small = small, .t = t, .out = out};
    size_t n = strlen(t->name), end = sizeof "weight" - 1;
    *out = (coding){.as = *t, .scales = TENSOR_NONE};
    bool is_fp8 = dtype_is_f8(t->type);
    if (r->c->dialect == DIALECT_GGUF || n >= NAME_BYTES) return LAMINA_OK;
    if (t->n_dims != 2)
        return is_fp8 && is_quantised(r)
                   ? refuse(&l, t, LAMINA_E_UNSUPPORTED, "fp8 of other than two dimensions is not computed")
                   : LAMINA_OK;
    memcpy(l.stem, t->name, n + 1);
    if (n >= end && strcmp(l.stem + n - end, "weight") == 0) l.stem[n - end] = '\0';
    if (is_fp8) return fp8(&l);
    if (t->type == DT_I8) {
        const tensor *s = find(&l, l.stem, "SCB");
        return s ? int8_rows(&l, s) : LAMINA_OK;
    }
    const tensor *nf4 = find(&l, t->name, ".quant_state.bitsandbytes__nf4");
    const tensor *fp4 = nf4 ? NULL : find(&l, t->name, ".quant_state.bitsandbytes__fp4");
    return nf4 || fp4 ? four_bit(&l, nf4 ? nf4 : fp4, nf4 != NULL) : LAMINA_OK;
}

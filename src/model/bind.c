/* Owns the binding of tensors to roles. Promises that every weight a pass reads is there, has exactly the shape that
 * the configuration implies and a type that kernels apply, and that every tensor of the checkpoint is read by somebody:
 * one that nobody reads, a bias say, would change the answer.
 *
 * A configuration without weights is first given the tensors its row implies, one after the other in the order of use,
 * so that sizes and plans come from the same code. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/coding.h"

enum { NAME_BYTES = 160 };
static const uint64_t BYTES_LIMIT = UINT64_C(1) << 62; /* of all weights together */

enum { FP8_BLOCK = 128, MXFP4_BLOCK = 32 };

/* How names of tensors differ from the table's: not; behind "language_model."; "model.language_model." instead of the
 * first part; without the first part. */
typedef enum naming { NAMES_PLAIN, NAMES_OUTSIDE, NAMES_INSIDE, NAMES_BARE, NAMES_KINDS } naming;

typedef struct binding {
    const reading *r;
    checkpoint *c;
    const settings *s;
    model *mo;
    const bool *moe; /* [layers] */
    int naming;
    bool blocks, fp8; /* the configuration says so */
} binding;

static uint64_t norm_size(const model *mo, uint32_t heads)
{
    return mo->qk_norm == QK_NORM_HEAD ? mo->head_dim : (uint64_t)heads * mo->head_dim;
}

static uint64_t attention_size(const model *mo, extent e)
{
    switch (e) {
    case HEADS:
        return mo->heads;
    case KV_HEADS:
        return mo->kv_heads;
    case QUERY:
        return (uint64_t)mo->heads * mo->head_dim;
    case KEY:
        return (uint64_t)mo->kv_heads * mo->head_dim;
    case QKV:
        return ((uint64_t)mo->heads + 2 * mo->kv_heads) * mo->head_dim;
    case ATTENDED:
        return (uint64_t)mo->heads * mo->v_dim;
    case HEAD_DIM:
        return mo->head_dim;
    case QUERY_NORM:
        return norm_size(mo, mo->heads);
    case KEY_NORM:
        return norm_size(mo, mo->kv_heads);
    case ROTATED:
        return mo->rope[0].dims / 2;
    case Q_LORA:
        return mo->q_lora;
    case KV_LORA:
        return mo->kv_lora;
    case NOPE:
        return mo->nope_dim;
    case KV_A:
        return (uint64_t)mo->kv_lora + mo->rope_dim;
    case KV_B:
        return (uint64_t)mo->heads * (mo->nope_dim + mo->v_dim);
    case HEADS_KV_LORA:
        return (uint64_t)mo->heads * mo->kv_lora;
    default:
        return 0;
    }
}

static uint64_t size_of(const binding *b, extent e)
{
    const model *mo = b->mo;
    switch (e) {
    case EXTENT_NONE:
    case ONE:
        return 1;
    case HIDDEN:
        return mo->hidden;
    case VOCAB:
        return mo->vocab;
    case CONTEXT:
        return mo->max_context;
    case FFN:
        return mo->ffn;
    case EXPERTS:
        return mo->experts.count;
    case EXPERT_FFN:
        return mo->experts.ffn;
    case EXPERT_FFN_2:
        return 2 * (uint64_t)mo->experts.ffn;
    case SHARED_FFN:
        return mo->experts.shared_ffn;
    default:
        return attention_size(mo, e);
    }
}

typedef enum demand { NOT_WANTED, OPTIONAL, REQUIRED } demand;

static demand by_presence(const binding *b, presence p)
{
    if (p == NEVER) return NOT_WANTED;
    if (p == ALWAYS) return REQUIRED;
    if (p == IF_FOUND || b->c->dialect == DIALECT_GGUF) return OPTIONAL;
    bool said = p == BY_QKV_BIAS ? b->s->qkv_bias : p == BY_MLP_BIAS ? b->s->mlp_bias : b->s->attention_bias;
    return said ? REQUIRED : NOT_WANTED;
}

static demand needed(bool is)
{
    return is ? REQUIRED : NOT_WANTED;
}

static demand wanted(const binding *b, const tensor_rule *t, uint32_t layer)
{
    const family *f = b->r->f;
    switch (t->when) {
    case WHEN_ALWAYS:
        return REQUIRED;
    case WHEN_QKV_BIAS:
        return by_presence(b, f->qkv_bias);
    case WHEN_O_BIAS:
        return by_presence(b, f->o_bias);
    case WHEN_MLP_BIAS:
        return b->moe[layer] ? NOT_WANTED : by_presence(b, f->mlp_bias);
    case WHEN_QK_NORM:
        return f->qk_norm_found ? OPTIONAL : needed(b->mo->qk_norm != QK_NORM_NONE);
    case WHEN_UNTIED: /* a configuration that is silent leaves it to the tensors */
        if (b->c->kind == CHECKPOINT_CONFIG) return needed(!b->s->tied);
        return b->s->tied || !b->s->tied_said ? OPTIONAL : REQUIRED;
    case WHEN_SEQUENTIAL:
        return needed(!b->mo->parallel);
    case WHEN_DENSE:
        return needed(!b->moe[layer]);
    case WHEN_MOE:
        return needed(b->moe[layer]);
    case WHEN_CORRECTION:
        return needed(b->moe[layer] && f->router == ROUTER_SIGMOID);
    case WHEN_SHARED:
        return needed(b->moe[layer] && b->mo->experts.shared_ffn);
    case WHEN_Q_LORA:
        return needed(b->mo->q_lora != 0);
    case WHEN_NO_Q_LORA:
        return needed(b->mo->q_lora == 0);
    case WHEN_Q_A_BIAS:
        return b->mo->q_lora ? by_presence(b, f->qkv_bias) : NOT_WANTED;
    case WHEN_NOT_SPLIT:
        return needed(!b->mo->layers[layer].w[ROLE_K_B].rows);
    case WHEN_BLOCKS:
        return !b->moe[layer] ? NOT_WANTED : b->blocks ? REQUIRED : OPTIONAL;
    case WHEN_FOUND:
        return OPTIONAL;
    }
    return NOT_WANTED;
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

/* A language model inside another, or saved without what was around it. */
static void put_prefix(const binding *b, const char *pattern, const char **before, const char **rest)
{
    const char *dot = strchr(pattern, '.');
    *before = "";
    *rest = pattern;
    if (b->c->dialect == DIALECT_GGUF || b->naming == NAMES_PLAIN) return;
    if (b->naming == NAMES_OUTSIDE) {
        *before = "language_model.";
    } else if (dot && strncmp(pattern, "lm_head.", 8) != 0) {
        *rest = dot + 1;
        if (b->naming == NAMES_INSIDE) *before = "model.language_model.";
    }
}

/* The printf of names: patterns come from the table; %u is the layer, then the expert. */
static void name_of(const binding *b, const char *pattern, uint32_t layer, uint32_t expert, char name[NAME_BYTES])
{
    const char *before, *rest;
    put_prefix(b, pattern, &before, &rest);
    size_t n = (size_t)snprintf(name, NAME_BYTES, "%s", before);
    uint32_t number = layer;
    for (const char *mark; (mark = strstr(rest, "%u")); rest = mark + 2, number = expert)
        n += (size_t)snprintf(name + n, NAME_BYTES - n, "%.*s%" PRIu32, (int)(mark - rest), rest, number);
    snprintf(name + n, NAME_BYTES - n, "%s", rest);
}

static bool is_of_layers(role r)
{
    return r < ROLE_LAYER_END;
}

static bool is_of_experts(role r)
{
    return r >= ROLE_EXPERT_GATE && r < ROLE_LAYER_END;
}

/* Whether a rule's tensor holds all experts, one after the other. */
static bool holds_experts(const tensor_rule *t, const char *pattern)
{
    const char *mark = strstr(pattern, "%u");
    return is_of_experts(t->role) && !(mark && strstr(mark + 2, "%u"));
}

static weight *place_of(const binding *b, role r, uint32_t layer, uint32_t expert)
{
    if (is_of_experts(r)) return &b->mo->layers[layer].experts[expert].w[r - ROLE_EXPERT_GATE];
    if (r >= ROLE_LAYER_END) return &b->mo->w[r - ROLE_LAYER_END];
    return &b->mo->layers[layer].w[r];
}

/* ---- one tensor --------------------------------------------------------------------------------------------------- */

static void shape_text(const tensor *t, char *text, size_t bytes)
{
    size_t n = (size_t)snprintf(text, bytes, "[");
    for (uint32_t i = 0; i < t->n_dims && n < bytes; i++)
        n += (size_t)snprintf(text + n, bytes - n, "%s%" PRIu64, i ? ", " : "", t->shape[i]);
    if (n < bytes) snprintf(text + n, bytes - n, "]");
}

static const char *file_of(const binding *b, const tensor *t)
{
    return t->file < b->c->n_files ? b->c->files[t->file].path : b->c->path;
}

static const char *type_text(const tensor *t)
{
    return t->type == DT_OTHER && t->foreign_type ? dtype_gguf_name(t->foreign_type) : dtype_name(t->type);
}

/* Where a role's rows lie in the tensor, and how many rows that has in all. */
static uint64_t rows_before(const binding *b, const tensor_rule *t, uint64_t *all)
{
    bool vector = t->rows == EXTENT_NONE;
    uint64_t own = size_of(b, vector ? t->cols : t->rows), query = size_of(b, QUERY), key = size_of(b, KEY);
    switch (t->part) {
    case PART_QKV:
        *all = query + 2 * key;
        return t->role == ROLE_Q || t->role == ROLE_Q_BIAS   ? 0
               : t->role == ROLE_K || t->role == ROLE_K_BIAS ? query
                                                             : query + key;
    case PART_GATE_UP:
        *all = 2 * own;
        return t->role == ROLE_UP || t->role == ROLE_SHARED_UP || t->role == ROLE_UP_BIAS || t->role == ROLE_EXPERT_UP
                   ? own
                   : 0;
    case PART_WHOLE:
        break;
    }
    *all = own;
    return 0;
}

/* What a rule expects of its tensor. */
static tensor expected_of(const binding *b, const tensor_rule *rule, const char *pattern)
{
    uint64_t all;
    (void)rows_before(b, rule, &all);
    tensor want = {.n_dims = 0};
    if (holds_experts(rule, pattern) || rule->stacked) {
        want.shape[want.n_dims++] = size_of(b, rule->stacked ? rule->stacked : EXPERTS);
        if (rule->stacked && rule->rows != EXTENT_NONE) all /= want.shape[0] ? want.shape[0] : 1;
    }
    if (rule->rows == EXTENT_NONE) {
        want.shape[want.n_dims++] = all;
        return want;
    }
    uint64_t cols = size_of(b, rule->cols);
    bool transposed = rule->transposed && b->c->dialect == DIALECT_HF;
    want.shape[want.n_dims++] = transposed ? cols : all;
    want.shape[want.n_dims++] = transposed ? all : cols;
    if (!rule->side) return want;
    want.shape[want.n_dims - 1] = cols / MXFP4_BLOCK; /* codes in blocks */
    want.shape[want.n_dims++] = MXFP4_BLOCK / 2;
    return want;
}

static bool same_shape(const tensor *a, const tensor *b)
{
    if (a->n_dims != b->n_dims) return false;
    for (uint32_t i = 0; i < a->n_dims; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

/* A vector of each head's or expert's numbers may stand as a table. */
static bool same_elements(const tensor *a, const tensor *b)
{
    uint64_t x = 1, y = 1;
    for (uint32_t i = 0; i < a->n_dims; i++) x *= a->shape[i];
    for (uint32_t i = 0; i < b->n_dims; i++) {
        if (b->shape[i] > UINT32_MAX || y > UINT32_MAX) return false;
        y *= b->shape[i];
    }
    return x == y;
}

static lamina_status check_shape(const binding *b, const tensor *t, const tensor *want, bool elements)
{
    if (same_shape(want, t) || (elements && same_elements(want, t))) return LAMINA_OK;
    char expected[64], have[128];
    shape_text(want, expected, sizeof expected);
    shape_text(t, have, sizeof have);
    return error_set(b->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected the shape %s, found %s", file_of(b, t),
                     t->name, expected, have);
}

static lamina_status refuse_type(const binding *b, const tensor *t, const char *expected)
{
    return error_set(b->r->err, LAMINA_E_UNSUPPORTED, "%s: tensor %s: type %s is not computed; expected %s",
                     file_of(b, t), t->name, type_text(t), expected);
}

static lamina_status check_type(const binding *b, const tensor_rule *rule, const tensor *t)
{
    if (rule->side) return t->type == DT_U8 ? LAMINA_OK : refuse_type(b, t, "u8, two codes a byte");
    bool plain = t->type == DT_F32 || t->type == DT_F16 || t->type == DT_BF16;
    bool factors = rule->role == ROLE_ROPE_FACTORS || rule->role == ROLE_ROPE_LONG || rule->role == ROLE_ROPE_SHORT;
    if (factors) return t->type == DT_F32 ? LAMINA_OK : refuse_type(b, t, "f32");
    if (rule->rows == EXTENT_NONE || rule->role == ROLE_POSITIONS)
        return plain ? LAMINA_OK : refuse_type(b, t, "f32, f16 or bf16");
    bool whole = t->row_bytes || (t->n_dims && dtype_row_ok(t->type, t->shape[t->n_dims - 1]));
    if (t->type < DT_WEIGHTS && whole) return LAMINA_OK;
    return refuse_type(b, t, "f32, f16, bf16, fp8, bitsandbytes' or GGUF's of blocks");
}

static lamina_status missing(const binding *b, const tensor_rule *rule, const char *name)
{
    const family *f = b->r->f;
    tensor want = expected_of(b, rule, rule->name[b->c->dialect]);
    char shape[64];
    shape_text(&want, shape, sizeof shape);
    bool by_key = (rule->when == WHEN_QKV_BIAS && f->qkv_bias == BY_ATTENTION_BIAS) ||
                  (rule->when == WHEN_O_BIAS && f->o_bias == BY_ATTENTION_BIAS);
    const char *why = rule->when == WHEN_UNTIED ? " (tie_word_embeddings is false)"
                      : by_key                  ? " (attention_bias is true)"
                                                : "";
    return error_set(b->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected the shape %s, found none%s", b->c->path, name,
                     shape, why);
}

/* ---- scales ------------------------------------------------------------------------------------------------------- */

static void mark(const binding *b, uint32_t index, role r, uint32_t layer)
{
    b->mo->tensor_roles[index] = (uint8_t)(r + 1);
    b->mo->tensor_layers[index] = is_of_layers(r) ? (int32_t)layer : -1;
}

static uint64_t blocks_of(uint64_t n)
{
    return (n + FP8_BLOCK - 1) / FP8_BLOCK;
}

/* The tensor of e8m0 scales beside one of codes in blocks. */
static lamina_status bind_side(const binding *b, const tensor_rule *rule, uint32_t layer, const tensor *t, weight *w)
{
    char name[NAME_BYTES];
    name_of(b, rule->side, layer, 0, name);
    tensor want = expected_of(b, rule, rule->name[b->c->dialect]);
    want.n_dims--;
    const tensor *scales = checkpoint_find(b->c, name);
    if (!scales)
        return error_set(b->r->err, LAMINA_E_FORMAT, "%s: tensor %s: the scales of %s are missing", b->c->path, name,
                         t->name);
    TRY(check_shape(b, scales, &want, false));
    if (scales->type != DT_U8) return refuse_type(b, scales, "u8");
    w->scales = (uint32_t)(scales - b->c->tensors);
    mark(b, w->scales, rule->role, layer);
    b->mo->tensor_codes[w->scales] = w->tensor;
    return LAMINA_OK;
}

/* What belongs to a matrix beside its tensor, and where the weight's part of the scales begins. */
static lamina_status bind_coding(const binding *b, const tensor_rule *rule, uint32_t layer, const coding *c, weight *w)
{
    uint64_t all, before = rows_before(b, rule, &all);
    for (uint32_t i = 0; i < c->n; i++) {
        mark(b, c->with[i], rule->role, layer);
        b->mo->tensor_codes[c->with[i]] = w->tensor;
    }
    if (c->scales == TENSOR_NONE) return LAMINA_OK;
    if (rule->role == ROLE_EMBED || rule->role == ROLE_POSITIONS || rule->rows == EXTENT_NONE)
        return error_set(b->r->err, LAMINA_E_UNSUPPORTED, "%s: tensor %s: scales beside %s are not computed",
                         file_of(b, &c->as), c->as.name, role_name(rule->role));
    if (is_of_experts(rule->role) && (c->nested || c->grid.rows == UINT32_MAX))
        return error_set(b->r->err, LAMINA_E_UNSUPPORTED,
                         "%s: tensor %s: routed experts with %s are not computed; expected scales of rows or of blocks",
                         file_of(b, &c->as), c->as.name, c->nested ? "scales that are codes" : "one scale for all");
    w->scales = c->scales;
    w->nested = c->nested;
    w->grid = c->grid;
    w->grid.row0 = before % c->grid.rows;
    w->scales_offset = before / c->grid.rows * c->grid.stride * dtype_row_bytes(b->c->tensors[c->scales].type, 1);
    return LAMINA_OK;
}

static lamina_status count_weight(const binding *b, const weight *w)
{
    model *mo = b->mo;
    if (w->bytes > BYTES_LIMIT - mo->weight_bytes)
        return error_set(b->r->err, LAMINA_E_FORMAT, "%s: its weights exceed 2^62 bytes", b->c->path);
    mo->weight_bytes += w->bytes;
    mo->n_parameters += w->rows * w->cols;
    return LAMINA_OK;
}

/* The weight that a rule cuts out of tensor `index`, seen as t. */
static weight cut(const binding *b, const tensor_rule *rule, const tensor *t, uint32_t index, uint32_t expert)
{
    const char *pattern = rule->name[b->c->dialect];
    bool vector = rule->rows == EXTENT_NONE, stacked = holds_experts(rule, pattern);
    bool transposed = rule->transposed && b->c->dialect == DIALECT_HF;
    uint64_t all, before = rows_before(b, rule, &all), rows = size_of(b, rule->rows), cols = size_of(b, rule->cols);
    weight w = {.type = t->type, .file = t->file, .name = t->name, .scales = TENSOR_NONE, .transposed = transposed};
    w.tensor = index;
    if (vector) {
        uint64_t n = cols * (rule->stacked ? size_of(b, rule->stacked) : 1), one = dtype_row_bytes(t->type, 1);
        w.rows = 1;
        w.cols = n;
        w.bytes = n * one;
        w.offset = t->offset + before * one;
        return w;
    }
    w.rows = transposed ? cols : rows;
    w.cols = transposed ? all : cols;
    uint64_t row = tensor_row_bytes(t, w.cols);
    if (rule->side) {
        w.type = DT_MXFP4_PAIRS;
        row = cols / 2;
    }
    w.row_bytes = row;
    w.bytes = w.rows * row;
    w.offset = t->offset + before * row;
    if (stacked) w.offset += expert * (transposed ? w.bytes : all * row);
    if (rule->side) w.scales_offset = (expert * all + before) * (cols / MXFP4_BLOCK);
    return w;
}

/* A vector whose parts are tensors of their own. */
static lamina_status bind_pieces(const binding *b, const tensor_rule *rule, uint32_t layer, weight *w)
{
    char name[NAME_BYTES];
    uint32_t n = (uint32_t)size_of(b, rule->joined);
    w->cols = size_of(b, rule->cols);
    w->scales = TENSOR_NONE;
    w->pieces = mem_array(b->mo->m, MEM_MODEL, n, sizeof *w->pieces, b->r->err);
    if (!w->pieces) return LAMINA_E_MEMORY;
    for (; w->n_pieces < n; w->n_pieces++) {
        name_of(b, rule->name[DIALECT_HF], layer, w->n_pieces, name);
        const tensor *t = checkpoint_find(b->c, name);
        tensor want = {.n_dims = 1, .shape = {w->cols / n}};
        if (!t) return error_set(b->r->err, LAMINA_E_FORMAT, "%s: tensor %s: found none", b->c->path, name);
        TRY(check_shape(b, t, &want, false));
        TRY(check_type(b, rule, t));
        w->rows = 1;
        w->type = t->type;
        w->name = t->name;
        w->tensor = w->pieces[w->n_pieces] = (uint32_t)(t - b->c->tensors);
        w->bytes += t->bytes;
        mark(b, w->tensor, rule->role, layer);
    }
    return count_weight(b, w);
}

static lamina_status bind_one(const binding *b, const tensor_rule *rule, uint32_t layer, uint32_t expert)
{
    const char *pattern = rule->name[b->c->dialect];
    demand d = pattern ? wanted(b, rule, layer) : NOT_WANTED;
    if (d == NOT_WANTED) return LAMINA_OK;
    weight *w = place_of(b, rule->role, layer, expert);
    if (w->rows) return LAMINA_OK; /* an earlier rule has it in another form */
    if (rule->joined && b->c->dialect == DIALECT_HF) return bind_pieces(b, rule, layer, w);
    char name[NAME_BYTES];
    name_of(b, pattern, layer, expert, name);
    const tensor *t = checkpoint_find(b->c, name);
    if (!t) return d == OPTIONAL ? LAMINA_OK : missing(b, rule, name);
    tensor want = expected_of(b, rule, pattern);
    coding code;
    TRY(coding_of(b->r, b->mo->small, t, &code));
    TRY(check_shape(b, &code.as, &want, rule->rows == EXTENT_NONE));
    TRY(check_type(b, rule, &code.as));
    *w = cut(b, rule, &code.as, (uint32_t)(t - b->c->tensors), expert);
    b->mo->tensor_types[w->tensor] = (uint8_t)w->type;
    TRY(rule->side ? bind_side(b, rule, layer, t, w) : bind_coding(b, rule, layer, &code, w));
    mark(b, w->tensor, rule->role, layer);
    return count_weight(b, w);
}

/* Calls fn for every tensor of the row's list, layers and experts repeated, in the order of use. */
typedef lamina_status (*rule_fn)(const binding *b, const tensor_rule *rule, uint32_t layer, uint32_t expert);

static lamina_status for_each_expert(const binding *b, const tensor_rule *first, const tensor_rule *end, uint32_t layer,
                                     rule_fn fn)
{
    if (!b->moe[layer]) return LAMINA_OK;
    for (uint32_t e = 0; e < b->mo->experts.count; e++)
        for (const tensor_rule *t = first; t != end; t++)
            if (is_of_experts(t->role)) TRY(fn(b, t, layer, e));
    return LAMINA_OK;
}

static lamina_status for_each_rule(const binding *b, rule_fn fn)
{
    const tensor_rule *t = b->r->f->tensors;
    for (; t->role != ROLE_COUNT && !is_of_layers(t->role); t++) TRY(fn(b, t, 0, 0));
    const tensor_rule *first = t, *end = t;
    while (end->role != ROLE_COUNT && is_of_layers(end->role)) end++;
    for (uint32_t i = 0; i < b->mo->n_layers; i++) {
        for (t = first; t != end; t++)
            if (!is_of_experts(t->role)) TRY(fn(b, t, i, 0));
        TRY(for_each_expert(b, first, end, i, fn));
    }
    for (t = end; t->role != ROLE_COUNT; t++) TRY(fn(b, t, 0, 0));
    return LAMINA_OK;
}

/* ---- a configuration without weights ------------------------------------------------------------------------------ */

static lamina_status add_tensor(const binding *b, const char *name, tensor t)
{
    const tensor *last = b->c->n_tensors ? &b->c->tensors[b->c->n_tensors - 1] : NULL;
    t.name = name;
    t.offset = last ? last->offset + last->bytes : 0;
    t.bytes = dtype_row_bytes(t.type, t.shape[t.n_dims - 1]); /* at most 2^50, by the ranges of keys */
    for (uint32_t i = 0; i + 1 < t.n_dims; i++) t.bytes *= t.shape[i];
    if (t.bytes > BYTES_LIMIT - t.offset)
        return error_set(b->r->err, LAMINA_E_FORMAT, "%s: its weights exceed 2^62 bytes", b->c->path);
    return checkpoint_add_tensor(b->c, &t, b->r->err);
}

/* Matrices that a checkpoint in fp8 keeps in another type. */
static bool stays_wide(role r)
{
    return !is_of_layers(r) || r == ROLE_ROUTER || r == ROLE_SHARED_ROUTER;
}

static lamina_status synthesise(const binding *b, const tensor_rule *rule, uint32_t layer, uint32_t expert)
{
    const char *pattern = rule->name[b->c->dialect];
    if (!pattern || wanted(b, rule, layer) != REQUIRED) return LAMINA_OK;
    if (b->blocks && is_of_experts(rule->role) && !rule->side) return LAMINA_OK; /* the other form */
    uint64_t all;
    for (uint32_t i = 0; rule->joined && i < size_of(b, rule->joined); i++) {
        char part_name[NAME_BYTES];
        name_of(b, pattern, layer, i, part_name);
        tensor t = {.type = b->s->type, .n_dims = 1, .shape = {size_of(b, rule->cols) / size_of(b, rule->joined)}};
        TRY(add_tensor(b, part_name, t));
    }
    if (rule->joined) return LAMINA_OK;
    if (rows_before(b, rule, &all) || (expert && holds_experts(rule, pattern))) return LAMINA_OK; /* stands already */
    char name[NAME_BYTES + 16];
    name_of(b, pattern, layer, expert, name);
    tensor t = expected_of(b, rule, pattern);
    bool vector = rule->rows == EXTENT_NONE, coded = b->fp8 && !vector && !stays_wide(rule->role);
    t.type = rule->side ? DT_U8 : coded ? DT_F8_E4M3 : b->s->type;
    TRY(add_tensor(b, name, t));
    if (rule->side) {
        name_of(b, rule->side, layer, expert, name);
        t.n_dims--;
        return add_tensor(b, name, t);
    }
    if (!coded) return LAMINA_OK;
    strcat(name, "_scale_inv");
    tensor scales = {.type = DT_F32, .n_dims = 2, .shape = {blocks_of(t.shape[0]), blocks_of(t.shape[1])}};
    return add_tensor(b, name, scales);
}

static lamina_status synthesise_all(const binding *b)
{
    lamina_status status = for_each_rule(b, synthesise);
    if (status == LAMINA_OK) status = checkpoint_seal(b->c, b->r->err);
    if (status != LAMINA_OK) b->c->n_tensors = 0;
    return status;
}

/* ---- what is left over -------------------------------------------------------------------------------------------- */

/* Layers behind the last, which predict more than one token at a time and are not run. */
static bool predicts_further(const binding *b, const char *name)
{
    const char *before = b->c->dialect == DIALECT_GGUF ? "blk." : "layers.", *mark = strstr(name, before);
    if (!b->s->extra_layers || !mark) return false;
    unsigned long layer = strtoul(mark + strlen(before), NULL, 10);
    return layer >= b->mo->n_layers && layer < (unsigned long)b->mo->n_layers + b->s->extra_layers;
}

/* Tensors of the other modalities of a model that has a language model inside. */
static bool is_of_another(const binding *b, const char *name)
{
    static const char *const seen[] = {"visual.*", "model.visual.*", "vision_tower.*", "multi_modal_projector.*"};
    for (size_t i = 0; b->c->dialect == DIALECT_HF && i < sizeof seen / sizeof *seen; i++)
        if (glob_match(seen[i], name)) return true;
    if (b->naming == NAMES_OUTSIDE) return strncmp(name, "language_model.", 15) != 0;
    if (b->naming == NAMES_INSIDE)
        return strncmp(name, "model.language_model.", 21) != 0 && strncmp(name, "lm_head.", 8) != 0;
    return false;
}

static lamina_status judge_unread(const binding *b)
{
    for (size_t i = 0; i < b->c->n_tensors; i++) {
        const tensor *t = &b->c->tensors[i];
        if (b->mo->tensor_roles[i] || tensor_is_idle(b->r->f, t->name) || reading_ignores(b->r, t->name)) continue;
        if (is_of_another(b, t->name) || predicts_further(b, t->name)) {
            b->mo->left_bytes += t->bytes; /* of files that exist: no overflow */
            continue;
        }
        char shape[128];
        shape_text(t, shape, sizeof shape);
        return error_set(b->r->err, LAMINA_E_UNSUPPORTED,
                         "%s: tensor %s %s is not one of %s with %" PRIu32
                         " layers and may change the answer; --ignore-config %s accepts it unread",
                         file_of(b, t), t->name, shape, b->r->f->name, b->mo->n_layers, t->name);
    }
    return LAMINA_OK;
}

/* GGUF says some scalings as tensors of divisors. It says nothing about another scaling on top. */
static lamina_status settle_rope(const binding *b)
{
    model *mo = b->mo;
    const weight *factors = model_end(mo, ROLE_ROPE_FACTORS), *longs = model_end(mo, ROLE_ROPE_LONG);
    if (longs->rows && mo->rope[0].scaling == ROPE_PLAIN) mo->rope[0].scaling = ROPE_LONG;
    if (mo->rope[0].scaling == ROPE_LONG && b->c->dialect == DIALECT_GGUF &&
        !(longs->rows && model_end(mo, ROLE_ROPE_SHORT)->rows))
        return error_set(b->r->err, LAMINA_E_FORMAT,
                         "%s: tensors rope_factors_long.weight and rope_factors_short.weight: expected both, or none",
                         b->c->path);
    if (!factors->rows) return LAMINA_OK;
    if (mo->rope[0].scaling != ROPE_PLAIN)
        return error_set(b->r->err, LAMINA_E_UNSUPPORTED,
                         "%s: tensor %s together with a rope scaling in the metadata is not computed", b->c->path,
                         factors->name);
    mo->rope[0].scaling = ROPE_FACTORS;
    return LAMINA_OK;
}

/* What stands by its presence alone must stand in every layer of its kind: less is a damaged file. */
static lamina_status settle_found(const binding *b)
{
    static const role vectors[] = {ROLE_Q_BIAS,    ROLE_K_BIAS,  ROLE_V_BIAS,    ROLE_QKV_BIAS, ROLE_O_BIAS,
                                   ROLE_GATE_BIAS, ROLE_UP_BIAS, ROLE_DOWN_BIAS, ROLE_Q_NORM,   ROLE_K_NORM};
    const model *mo = b->mo;
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++) {
        bool dense_only = vectors[k] == ROLE_GATE_BIAS || vectors[k] == ROLE_UP_BIAS || vectors[k] == ROLE_DOWN_BIAS;
        uint32_t n = 0, of = 0;
        for (uint32_t i = 0; i < mo->n_layers; i++) {
            if (dense_only && b->moe[i]) continue;
            of++;
            n += mo->layers[i].w[vectors[k]].rows ? 1 : 0;
        }
        if (n && n != of)
            return error_set(b->r->err, LAMINA_E_FORMAT,
                             "%s: %s: expected it in every layer or in none; found %" PRIu32 " of %" PRIu32, b->c->path,
                             role_name(vectors[k]), n, of);
    }
    const model_layer *l = &mo->layers[0];
    bool q = l->w[ROLE_Q_BIAS].rows, k = l->w[ROLE_K_BIAS].rows, v = l->w[ROLE_V_BIAS].rows;
    if (q == k && k == v && !l->w[ROLE_Q_NORM].rows == !l->w[ROLE_K_NORM].rows) return LAMINA_OK;
    return error_set(b->r->err, LAMINA_E_FORMAT, "%s: attention biases and norms: expected them on q, k and v alike",
                     b->c->path);
}

static lamina_status make_experts(const binding *b)
{
    model *mo = b->mo;
    uint32_t n = 0;
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        if (!b->moe[i]) continue;
        mo->layers[i].moe_index = n++;
        mo->layers[i].experts =
            mem_array(mo->m, MEM_MODEL, mo->experts.count, sizeof *mo->layers[i].experts, b->r->err);
        if (!mo->layers[i].experts) return LAMINA_E_MEMORY;
    }
    return LAMINA_OK;
}

static lamina_status make_roles(const binding *b)
{
    model *mo = b->mo;
    size_t n = b->c->n_tensors;
    mo->tensor_roles = mem_array(mo->m, MEM_MODEL, n, sizeof *mo->tensor_roles, b->r->err);
    if (!mo->tensor_roles) return LAMINA_E_MEMORY;
    mo->tensor_types = mem_array(mo->m, MEM_MODEL, n, sizeof *mo->tensor_types, b->r->err);
    if (!mo->tensor_types) return LAMINA_E_MEMORY;
    for (size_t i = 0; i < n; i++) mo->tensor_types[i] = (uint8_t)b->c->tensors[i].type;
    mo->tensor_layers = mem_array(mo->m, MEM_MODEL, n, sizeof *mo->tensor_layers, b->r->err);
    if (!mo->tensor_layers) return LAMINA_E_MEMORY;
    mo->tensor_codes = mem_array(mo->m, MEM_MODEL, n, sizeof *mo->tensor_codes, b->r->err);
    if (!mo->tensor_codes) return LAMINA_E_MEMORY;
    for (size_t i = 0; i < n; i++) {
        mo->tensor_layers[i] = -1;
        mo->tensor_codes[i] = TENSOR_NONE;
    }
    return LAMINA_OK;
}

/* How this checkpoint spells what the table calls "model.embed_tokens.weight". */
static void find_naming(binding *b)
{
    const tensor_rule *first = b->r->f->tensors;
    if (b->c->dialect == DIALECT_GGUF || b->c->n_tensors == 0) return;
    for (int way = NAMES_PLAIN; way < NAMES_KINDS; way++) {
        char name[NAME_BYTES];
        b->naming = way;
        name_of(b, first->name[DIALECT_HF], 0, 0, name);
        if (checkpoint_find(b->c, name)) return;
    }
    b->naming = NAMES_PLAIN;
}

lamina_status bind_tensors(const reading *r, checkpoint *c, const settings *s, const bool *moe, model *mo)
{
    binding b = {.r = r, .c = c, .s = s, .mo = mo, .moe = moe};
    const json_t *quantised = json_object_get(r->config, "quantization_config");
    b.blocks = json_is(json_object_get(quantised, "quant_method"), "mxfp4");
    b.fp8 = json_is(json_object_get(quantised, "quant_method"), "fp8") &&
            json_array_size(json_object_get(quantised, "weight_block_size")) == 2;
    find_naming(&b);
    if (c->kind == CHECKPOINT_CONFIG && c->n_tensors == 0) TRY(synthesise_all(&b));
    TRY(make_roles(&b));
    TRY(make_experts(&b));
    TRY(for_each_rule(&b, bind_one));
    TRY(judge_unread(&b));
    TRY(settle_rope(&b));
    TRY(settle_found(&b));
    if (!mo->layers[0].w[ROLE_QKV].rows) mo->qkv = QKV_SEPARATE; /* GGUF has put the rows in order */
    if (r->f->qk_norm_found && !mo->layers[0].w[ROLE_Q_NORM].rows) mo->qk_norm = QK_NORM_NONE;
    mo->tied_head = model_end(mo, ROLE_HEAD)->rows == 0;
    if (mo->tied_head) mo->w[ROLE_HEAD - ROLE_LAYER_END] = *model_end(mo, ROLE_EMBED);
    return LAMINA_OK;
}

/* Owns the binding of tensors to roles. Promises that every weight a pass reads is there, has exactly the shape that the
 * configuration implies and a type that kernels apply, and that every tensor of the checkpoint is read by somebody: one
 * that nobody reads, a bias say, would change the answer.
 *
 * A configuration without weights is first given the tensors its row implies, one after the other in the order of use,
 * so that sizes and plans come from the same code. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"

enum { NAME_BYTES = 160 };
static const uint64_t BYTES_LIMIT = UINT64_C(1) << 62; /* of all weights together */

typedef struct binding {
    const reading *r;
    checkpoint *c;
    const settings *s;
    model *mo;
} binding;

static uint64_t size_of(const binding *b, extent e)
{
    const model *mo = b->mo;
    switch (e) {
    case EXTENT_NONE:
        return 1;
    case HIDDEN:
        return mo->hidden;
    case VOCAB:
        return mo->vocab;
    case QUERY:
        return (uint64_t)mo->heads * mo->head_dim;
    case KEY:
        return (uint64_t)mo->kv_heads * mo->head_dim;
    case FFN:
        return mo->ffn;
    case HEAD_DIM:
        return mo->head_dim;
    case ROTATED:
        return mo->rope.dims / 2;
    }
    return 0;
}

typedef enum demand { NOT_WANTED, OPTIONAL, REQUIRED } demand;

static demand by_presence(const binding *b, presence p)
{
    if (p == NEVER) return NOT_WANTED;
    if (p == ALWAYS) return REQUIRED;
    if (b->c->dialect == DIALECT_GGUF) return OPTIONAL;
    return b->s->attention_bias ? REQUIRED : NOT_WANTED;
}

static demand wanted(const binding *b, const tensor_rule *t)
{
    switch (t->when) {
    case WHEN_ALWAYS:
        return REQUIRED;
    case WHEN_QKV_BIAS:
        return by_presence(b, b->r->f->qkv_bias);
    case WHEN_O_BIAS:
        return by_presence(b, b->r->f->o_bias);
    case WHEN_QK_NORM:
        return b->mo->qk_norm ? REQUIRED : NOT_WANTED;
    case WHEN_UNTIED: /* a configuration that is silent leaves it to the tensors */
        if (b->c->kind == CHECKPOINT_CONFIG) return b->s->tied ? NOT_WANTED : REQUIRED;
        return b->s->tied || !b->s->tied_said ? OPTIONAL : REQUIRED;
    case WHEN_FOUND:
        return OPTIONAL;
    }
    return NOT_WANTED;
}

/* The printf of names: patterns come from the table, %u is the layer. */
static void name_of(const binding *b, const tensor_rule *t, uint32_t layer, char name[NAME_BYTES])
{
    const char *pattern = t->name[b->c->dialect], *mark = strstr(pattern, "%u");
    if (mark)
        snprintf(name, NAME_BYTES, "%.*s%" PRIu32 "%s", (int)(mark - pattern), pattern, layer, mark + 2);
    else
        snprintf(name, NAME_BYTES, "%s", pattern);
}

static bool is_of_layers(role r)
{
    return r < ROLE_LAYER_COUNT;
}

static weight *place_of(const binding *b, role r, uint32_t layer)
{
    switch (r) {
    case ROLE_EMBED:
        return &b->mo->embed;
    case ROLE_FINAL_NORM:
        return &b->mo->final_norm;
    case ROLE_HEAD:
        return &b->mo->head;
    case ROLE_ROPE_FACTORS:
        return &b->mo->rope_factors;
    default:
        return &b->mo->layers[layer].w[r];
    }
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

static lamina_status check_tensor(const binding *b, const tensor_rule *rule, const tensor *t)
{
    bool vector = rule->rows == EXTENT_NONE;
    uint64_t rows = size_of(b, rule->rows), cols = size_of(b, rule->cols);
    bool fits =
        vector ? t->n_dims == 1 && t->shape[0] == cols : t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols;
    if (!fits) {
        tensor expected = {.n_dims = vector ? 1 : 2, .shape = {vector ? cols : rows, cols}};
        char want[64], have[128];
        shape_text(&expected, want, sizeof want);
        shape_text(t, have, sizeof have);
        return error_set(b->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected the shape %s, found %s", file_of(b, t),
                         t->name, want, have);
    }
    bool plain = t->type == DT_F32 || t->type == DT_F16 || t->type == DT_BF16;
    if (rule->role == ROLE_ROPE_FACTORS) plain = t->type == DT_F32;
    if (vector ? !plain : t->type >= DT_WEIGHTS || !dtype_row_ok(t->type, cols))
        return error_set(b->r->err, LAMINA_E_UNSUPPORTED, "%s: tensor %s: type %s is not computed; expected %s",
                         file_of(b, t), t->name, type_text(t),
                         rule->role == ROLE_ROPE_FACTORS ? "f32"
                         : vector                        ? "f32, f16 or bf16"
                                                         : "f32, f16, bf16, q8_0, q4_0 or q4_1");
    return LAMINA_OK;
}

static lamina_status missing(const binding *b, const tensor_rule *rule, const char *name)
{
    uint64_t rows = size_of(b, rule->rows), cols = size_of(b, rule->cols);
    const char *why = rule->when == WHEN_UNTIED ? " (tie_word_embeddings is false)"
                      : rule->when == WHEN_QKV_BIAS && b->r->f->qkv_bias == BY_CONFIG ? " (attention_bias is true)"
                      : rule->when == WHEN_O_BIAS                                     ? " (attention_bias is true)"
                                                                                      : "";
    if (rule->rows == EXTENT_NONE)
        return error_set(b->r->err, LAMINA_E_FORMAT, "%s: tensor %s: expected the shape [%" PRIu64 "], found none%s",
                         b->c->path, name, cols, why);
    return error_set(b->r->err, LAMINA_E_FORMAT,
                     "%s: tensor %s: expected the shape [%" PRIu64 ", %" PRIu64 "], found none%s", b->c->path, name,
                     rows, cols, why);
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

static lamina_status bind_one(const binding *b, const tensor_rule *rule, uint32_t layer)
{
    demand d = rule->name[b->c->dialect] ? wanted(b, rule) : NOT_WANTED;
    if (d == NOT_WANTED) return LAMINA_OK;
    char name[NAME_BYTES];
    name_of(b, rule, layer, name);
    const tensor *t = checkpoint_find(b->c, name);
    if (!t) return d == OPTIONAL ? LAMINA_OK : missing(b, rule, name);
    TRY(check_tensor(b, rule, t));
    size_t index = (size_t)(t - b->c->tensors);
    weight *w = place_of(b, rule->role, layer);
    *w = (weight){.rows = size_of(b, rule->rows),
                  .cols = size_of(b, rule->cols),
                  .type = t->type,
                  .file = t->file,
                  .offset = t->offset,
                  .bytes = t->bytes,
                  .name = t->name,
                  .tensor = index};
    b->mo->tensor_roles[index] = (uint8_t)(rule->role + 1);
    b->mo->tensor_layers[index] = is_of_layers(rule->role) ? (int32_t)layer : -1;
    return count_weight(b, w);
}

/* Calls fn for every tensor of the row's list, layers repeated, in the order of use. */
typedef lamina_status (*rule_fn)(const binding *b, const tensor_rule *rule, uint32_t layer);
static lamina_status for_each_rule(const binding *b, rule_fn fn)
{
    const tensor_rule *t = b->r->f->tensors;
    for (; t->role != ROLE_COUNT && !is_of_layers(t->role); t++) TRY(fn(b, t, 0));
    const tensor_rule *first = t, *end = t;
    while (end->role != ROLE_COUNT && is_of_layers(end->role)) end++;
    for (uint32_t i = 0; i < b->mo->n_layers; i++)
        for (t = first; t != end; t++) TRY(fn(b, t, i));
    for (t = end; t->role != ROLE_COUNT; t++) TRY(fn(b, t, 0));
    return LAMINA_OK;
}

/* ---- a configuration without weights ------------------------------------------------------------------------------ */

static lamina_status synthesise(const binding *b, const tensor_rule *rule, uint32_t layer)
{
    if (!rule->name[b->c->dialect] || wanted(b, rule) != REQUIRED) return LAMINA_OK;
    char name[NAME_BYTES];
    name_of(b, rule, layer, name);
    uint64_t rows = size_of(b, rule->rows), cols = size_of(b, rule->cols);
    bool vector = rule->rows == EXTENT_NONE;
    const tensor *last = b->c->n_tensors ? &b->c->tensors[b->c->n_tensors - 1] : NULL;
    tensor t = {.name = name,
                .type = b->s->type,
                .n_dims = vector ? 1 : 2,
                .shape = {vector ? cols : rows, vector ? 0 : cols},
                .offset = last ? last->offset + last->bytes : 0,
                .bytes = rows * dtype_row_bytes(b->s->type, cols)}; /* at most 2^50, by the ranges of keys */
    if (t.bytes > BYTES_LIMIT - t.offset)
        return error_set(b->r->err, LAMINA_E_FORMAT, "%s: its weights exceed 2^62 bytes", b->c->path);
    return checkpoint_add_tensor(b->c, &t, b->r->err);
}

static lamina_status synthesise_all(const binding *b)
{
    lamina_status status = for_each_rule(b, synthesise);
    if (status == LAMINA_OK) status = checkpoint_seal(b->c, b->r->err);
    if (status != LAMINA_OK) b->c->n_tensors = 0;
    return status;
}

/* ---- what is left over -------------------------------------------------------------------------------------------- */

static lamina_status judge_unread(const binding *b)
{
    for (size_t i = 0; i < b->c->n_tensors; i++) {
        const tensor *t = &b->c->tensors[i];
        if (b->mo->tensor_roles[i] || tensor_is_idle(t->name) || reading_ignores(b->r, t->name)) continue;
        char shape[128];
        shape_text(t, shape, sizeof shape);
        return error_set(b->r->err, LAMINA_E_UNSUPPORTED,
                         "%s: tensor %s %s is not one of %s with %" PRIu32
                         " layers and may change the answer; --ignore-config %s accepts it unread",
                         file_of(b, t), t->name, shape, b->r->f->name, b->mo->n_layers, t->name);
    }
    return LAMINA_OK;
}

/* GGUF says the scaling of Llama 3 as a tensor of divisors. It says nothing about another scaling on top. */
static lamina_status settle_rope(const binding *b)
{
    model *mo = b->mo;
    if (!mo->rope_factors.rows) return LAMINA_OK;
    if (mo->rope.scaling != ROPE_PLAIN)
        return error_set(b->r->err, LAMINA_E_UNSUPPORTED,
                         "%s: tensor %s together with a rope scaling in the metadata is not computed", b->c->path,
                         mo->rope_factors.name);
    mo->rope.scaling = ROPE_FACTORS;
    return LAMINA_OK;
}

/* Axes that GGUF shows only by its tensors. A bias on some of the layers, or on some of q, k and v, is a damaged file. */
static lamina_status settle_biases(const binding *b)
{
    model *mo = b->mo;
    static const role qkv[] = {ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS};
    uint32_t n_qkv = 0, n_o = 0;
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        for (size_t k = 0; k < 3; k++) n_qkv += mo->layers[i].w[qkv[k]].rows ? 1 : 0;
        n_o += mo->layers[i].w[ROLE_O_BIAS].rows ? 1 : 0;
    }
    if ((n_qkv && n_qkv != 3 * mo->n_layers) || (n_o && n_o != mo->n_layers))
        return error_set(
            b->r->err, LAMINA_E_FORMAT,
            "%s: attention biases: expected them on q, k and v of every layer and o of every layer, or none; "
            "found %" PRIu32 " on q, k, v and %" PRIu32 " on o of %" PRIu32 " layers",
            b->c->path, n_qkv, n_o, mo->n_layers);
    mo->qkv_bias = n_qkv != 0;
    mo->o_bias = n_o != 0;
    return LAMINA_OK;
}

static lamina_status make_roles(const binding *b)
{
    model *mo = b->mo;
    size_t n = b->c->n_tensors;
    mo->tensor_roles = mem_array(mo->m, MEM_MODEL, n, sizeof *mo->tensor_roles, b->r->err);
    if (!mo->tensor_roles) return LAMINA_E_MEMORY;
    mo->tensor_layers = mem_array(mo->m, MEM_MODEL, n, sizeof *mo->tensor_layers, b->r->err);
    if (!mo->tensor_layers) return LAMINA_E_MEMORY;
    for (size_t i = 0; i < n; i++) mo->tensor_layers[i] = -1;
    return LAMINA_OK;
}

lamina_status bind_tensors(const reading *r, checkpoint *c, const settings *s, model *mo)
{
    binding b = {.r = r, .c = c, .s = s, .mo = mo};
    if (c->kind == CHECKPOINT_CONFIG && c->n_tensors == 0) TRY(synthesise_all(&b));
    TRY(make_roles(&b));
    TRY(for_each_rule(&b, bind_one));
    TRY(judge_unread(&b));
    TRY(settle_rope(&b));
    TRY(settle_biases(&b));
    mo->tied_head = mo->head.rows == 0;
    if (mo->tied_head) mo->head = mo->embed;
    return LAMINA_OK;
}

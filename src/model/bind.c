/* From a checkpoint to a model: chooses the row of the table, reads the configuration, gives every tensor its role and
 * checks its shape and type. What is not bound is refused: a bias that is not read would change the answer. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"

static lamina_status status_of(const lamina_error *err)
{
    return err ? err->status : LAMINA_E_MEMORY;
}

static lamina_status choose(const checkpoint *c, const family **out, lamina_error *err)
{
    const char *type = json_string_value(json_object_get(c->config, "model_type"));
    if (!type) return error_set(err, LAMINA_E_FORMAT, "%s: config.json has no model_type", c->path);
    char known[256] = "";
    for (size_t i = 0; i < n_families; i++) {
        const family *f = &family_table[i];
        const char *name = c->dialect == DIALECT_GGUF ? f->architecture : f->model_type;
        if (!name) continue;
        if (!strcmp(name, type)) {
            *out = f;
            return LAMINA_OK;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", name);
    }
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: model_type \"%.64s\" is not supported; known are %s", c->path,
                     type, known);
}

typedef struct shape {
    uint64_t rows, cols;
} shape; /* vectors: rows 1 */

static shape shape_of(const model *m, role r)
{
    uint64_t q = (uint64_t)m->heads * m->head_dim, kv = (uint64_t)m->kv_heads * m->head_dim;
    switch (r) {
    case ROLE_Q:
        return (shape){q, m->hidden};
    case ROLE_K:
    case ROLE_V:
        return (shape){kv, m->hidden};
    case ROLE_O:
        return (shape){m->hidden, q};
    case ROLE_GATE:
    case ROLE_UP:
        return (shape){m->ffn, m->hidden};
    case ROLE_DOWN:
        return (shape){m->hidden, m->ffn};
    case ROLE_Q_BIAS:
        return (shape){1, q};
    case ROLE_K_BIAS:
    case ROLE_V_BIAS:
        return (shape){1, kv};
    case ROLE_Q_NORM:
    case ROLE_K_NORM:
        return (shape){1, m->head_dim};
    case ROLE_EMBED:
    case ROLE_HEAD:
        return (shape){m->vocab, m->hidden};
    case ROLE_ROPE_FACTORS:
        return (shape){1, m->rope.dims / 2};
    default:
        return (shape){1, m->hidden};
    }
}

static bool is_matrix(role r)
{
    return r < ROLE_MATRICES || r == ROLE_EMBED || r == ROLE_HEAD;
}

/* Does this model have the role at all? */
static bool wanted(const model *m, const family *f, const settings *s, role r)
{
    switch (r) {
    case ROLE_Q_BIAS:
    case ROLE_K_BIAS:
    case ROLE_V_BIAS:
        return f->bias == BIAS_QKV || (f->bias == BIAS_BY_KEY && s->attention_bias);
    case ROLE_O_BIAS:
        return f->bias == BIAS_BY_KEY && s->attention_bias;
    case ROLE_Q_NORM:
    case ROLE_K_NORM:
        return f->qk_norm;
    case ROLE_HEAD:
        return !m->tied_head;
    default:
        return true;
    }
}

static weight *slot(model *m, role r, int32_t layer)
{
    if (layer >= 0) return &m->layers[layer].w[r];
    return r == ROLE_EMBED        ? &m->embed
           : r == ROLE_HEAD       ? &m->head
           : r == ROLE_FINAL_NORM ? &m->final_norm
                                  : &m->rope_factors;
}

static void name_of(const model *m, role r, int32_t layer, char *name, size_t bytes)
{
    const char *pattern = role_pattern(r, m->source->dialect), *number = strstr(pattern, "%u");
    if (!number)
        snprintf(name, bytes, "%s", pattern);
    else
        snprintf(name, bytes, "%.*s%d%s", (int)(number - pattern), pattern, layer, number + 2);
}

static lamina_status check(const model *m, const tensor *t, role r, shape want, lamina_error *err)
{
    const checkpoint *c = m->source;
    const char *file = c->n_files ? c->files[t->file].path : c->path;
    bool matrix = is_matrix(r);
    bool fits = matrix ? t->n_dims == 2 && t->shape[0] == want.rows && t->shape[1] == want.cols
                       : t->n_dims == 1 && t->shape[0] == want.cols;
    if (!fits) {
        char found[96] = "";
        for (uint32_t i = 0; i < t->n_dims; i++) {
            size_t n = strlen(found);
            snprintf(found + n, sizeof found - n, "%s%llu", i ? ", " : "", (unsigned long long)t->shape[i]);
        }
        if (matrix)
            return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: expected the shape [%llu, %llu], found [%s]", file,
                             t->name, (unsigned long long)want.rows, (unsigned long long)want.cols, found);
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: expected the shape [%llu], found [%s]", file, t->name,
                         (unsigned long long)want.cols, found);
    }
    bool computable = matrix ? t->type < DT_WEIGHTS : t->type <= DT_BF16;
    if (computable) return LAMINA_OK;
    if (t->type == DT_OTHER)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: tensor %s: numbers of type %u are not supported", file,
                         t->name, t->foreign_type);
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: tensor %s: type %s is not supported here", file, t->name,
                     dtype_name(t->type));
}

static lamina_status bind_one(model *m, role r, int32_t layer, lamina_error *err)
{
    const checkpoint *c = m->source;
    char name[160];
    if (!role_pattern(r, c->dialect)) return LAMINA_OK;
    name_of(m, r, layer, name, sizeof name);
    const tensor *t = checkpoint_find(c, name);
    if (!t) {
        if (r == ROLE_ROPE_FACTORS) return LAMINA_OK;
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s is missing", c->path, name);
    }
    shape want = shape_of(m, r);
    TRY(check(m, t, r, want, err));
    size_t index = (size_t)(t - c->tensors);
    *slot(m, r, layer) = (weight){.rows = want.rows,
                                  .cols = want.cols,
                                  .type = t->type,
                                  .file = t->file,
                                  .offset = t->offset,
                                  .bytes = t->bytes,
                                  .name = t->name,
                                  .tensor = index};
    m->tensor_roles[index] = (uint8_t)(r + 1);
    m->tensor_layers[index] = layer;
    m->weight_bytes += t->bytes;
    if (r != ROLE_ROPE_FACTORS) m->n_parameters += want.rows * want.cols;
    return LAMINA_OK;
}

static lamina_status bind_all(model *m, const family *f, const settings *s, lamina_error *err)
{
    for (role r = ROLE_EMBED; r < ROLE_COUNT; r++)
        if (wanted(m, f, s, r)) TRY(bind_one(m, r, -1, err));
    for (uint32_t i = 0; i < m->n_layers; i++)
        for (role r = 0; r < ROLE_LAYER_COUNT; r++)
            if (wanted(m, f, s, r)) TRY(bind_one(m, r, (int32_t)i, err));
    return LAMINA_OK;
}

/* Buffers that old exporters wrote beside the weights and that the configuration determines; a head that is tied anyway. */
static bool harmless(const model *m, const char *name)
{
    static const char inv_freq[] = "rotary_emb.inv_freq";
    size_t n = strlen(name), k = sizeof inv_freq - 1;
    if (n >= k && !strcmp(name + n - k, inv_freq)) return true;
    return m->tied_head && !strcmp(name, role_pattern(ROLE_HEAD, m->source->dialect));
}

static lamina_status refuse_unbound(const model *m, lamina_error *err)
{
    const checkpoint *c = m->source;
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (m->tensor_roles[i] || harmless(m, c->tensors[i].name)) continue;
        return error_set(err, LAMINA_E_UNSUPPORTED,
                         "%s: tensor %s has no role in family %s; leaving it out could change the answer",
                         c->n_files ? c->files[c->tensors[i].file].path : c->path, c->tensors[i].name, m->family);
    }
    return LAMINA_OK;
}

static lamina_status add_implied(checkpoint *c, const model *m, role r, int32_t layer, dtype type, uint64_t *at,
                                 lamina_error *err)
{
    char name[160];
    if (!role_pattern(r, c->dialect)) return LAMINA_OK;
    name_of(m, r, layer, name, sizeof name);
    shape s = shape_of(m, r);
    tensor t = {.name = name,
                .type = type,
                .n_dims = is_matrix(r) ? 2 : 1,
                .offset = *at,
                .bytes = s.rows * dtype_row_bytes(type, s.cols)};
    t.shape[0] = is_matrix(r) ? s.rows : s.cols;
    if (is_matrix(r)) t.shape[1] = s.cols;
    *at += t.bytes;
    return checkpoint_add_tensor(c, &t, err);
}

/* A configuration alone is given the tensors that its row implies, so that plans can be made of it. */
static lamina_status imply_tensors(checkpoint *c, const model *m, const family *f, const settings *s, lamina_error *err)
{
    const char *name = json_string_value(json_object_get(c->config, "dtype"));
    if (!name) name = json_string_value(json_object_get(c->config, "torch_dtype"));
    dtype type = DT_F32;
    if (name && (!dtype_from_name(name, &type) || type > DT_BF16))
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: dtype \"%.40s\" is not supported", c->path, name);
    uint64_t at = 0;
    for (role r = ROLE_EMBED; r < ROLE_COUNT; r++)
        if (wanted(m, f, s, r)) TRY(add_implied(c, m, r, -1, type, &at, err));
    for (uint32_t i = 0; i < m->n_layers; i++)
        for (role r = 0; r < ROLE_LAYER_COUNT; r++)
            if (wanted(m, f, s, r)) TRY(add_implied(c, m, r, (int32_t)i, type, &at, err));
    return checkpoint_seal(c, err);
}

static lamina_status fill(model *m, checkpoint *c, const char *ignore, lamina_error *err)
{
    const family *f = NULL;
    settings s = {0};
    TRY(choose(c, &f, err));
    m->family = f->name;
    m->qk_norm = f->qk_norm;
    m->rope.style = f->style[c->dialect];
    TRY(config_read(m, f, ignore, &s, err));
    m->attention_scale = (float)(1 / sqrt((double)m->head_dim));
    if (c->kind == CHECKPOINT_CONFIG) TRY(imply_tensors(c, m, f, &s, err));
    if (c->dialect == DIALECT_GGUF) m->tied_head = checkpoint_find(c, role_pattern(ROLE_HEAD, c->dialect)) == NULL;
    m->tensor_roles = mem_array(m->m, MEM_MODEL, c->n_tensors, sizeof *m->tensor_roles, err);
    if (!m->tensor_roles) return status_of(err);
    m->tensor_layers = mem_array(m->m, MEM_MODEL, c->n_tensors, sizeof *m->tensor_layers, err);
    if (!m->tensor_layers) return status_of(err);
    for (size_t i = 0; i < c->n_tensors; i++) m->tensor_layers[i] = -1;
    TRY(bind_all(m, f, &s, err));
    if (m->rope_factors.rows) m->rope.scaling = ROPE_FACTORS;
    TRY(refuse_unbound(m, err));
    return describe_axes(m, err);
}

lamina_status model_bind(memory *mem, checkpoint *c, const char *ignore_config, model **out, lamina_error *err)
{
    *out = NULL;
    model *m = mem_alloc(mem, MEM_MODEL, sizeof *m, err);
    if (!m) return status_of(err);
    m->m = mem;
    m->source = c;
    lamina_status status = fill(m, c, ignore_config, err);
    if (status != LAMINA_OK) {
        model_free(m);
        return status;
    }
    *out = m;
    return LAMINA_OK;
}

void model_free(model *m)
{
    if (!m) return;
    memory *mem = m->m;
    mem_free(mem, m->layers);
    mem_free(mem, m->eos);
    mem_free(mem, m->tensor_roles);
    mem_free(mem, m->tensor_layers);
    arena_free(m->strings);
    mem_free(mem, m);
}

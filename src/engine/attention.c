/* The first half of a layer: what a row takes from those before it. Two mixers. Grouped-query attention (Ainslie et al.
 * 2023) caches keys and values of each KV head. Latent attention (DeepSeek-V2, arXiv:2405.04434) caches a latent and
 * one rotated key for all heads: the expansion of the latent to keys is applied to the queries instead, that to values
 * to what was attended, so that all heads read one cache (the paper's absorption). */
#include "engine/pass.h"

typedef struct attention_step {
    pass *p;
    const model_layer *l;
    const float *const *v; /* vectors of the layer */
    uint32_t index;
} attention_step;

static void rotate(const attention_step *s, float *x, uint32_t heads, uint32_t head_dim)
{
    const pass *p = s->p;
    const activations *a = p->a;
    const rope_axes *rope = &p->mo->rope[s->l->rope];
    size_t at = (size_t)s->l->rope * a->rows * (rope->dims / 2);
    rotate_kind kind = rope->style == ROPE_HALF ? ROTATE_HALF : ROTATE_INTERLEAVED;
    p->ops->rotate(p->b, kind, x, p->n, heads, head_dim, rope->dims, a->cos + at, a->sin + at);
}

static void add_bias(const pass *p, float *x, const float *bias, uint32_t k)
{
    if (bias) p->ops->add_bias(p->b, x, bias, p->n, k);
}

/* ---- grouped queries --------------------------------------------------------------------------------------------- */

typedef struct qkv {
    float *q, *k, *v, *out, *fused; /* [n, heads, head_dim], [n, kv_heads, head_dim] twice, as q, [n, all of them] */
    uint32_t wq, wkv;
} qkv;

/* Takes q, k and v apart where one matrix makes all of them. */
static void split(const pass *p, const qkv *x)
{
    const model *mo = p->mo;
    uint32_t all = x->wq + 2 * x->wkv, d = mo->head_dim, group = mo->heads / mo->kv_heads;
    bool grouped = mo->qkv == QKV_GROUPED;
    uint32_t step = (group + 2) * d;
    columns_args q = {.src = x->fused, .src_stride = all, .dst = x->q, .dst_stride = x->wq, .n = p->n};
    columns_args k = {.src = x->fused + (grouped ? group * d : x->wq),
                      .src_stride = all,
                      .dst = x->k,
                      .dst_stride = x->wkv,
                      .n = p->n};
    columns_args v = {.src = x->fused + (grouped ? (group + 1) * d : x->wq + x->wkv),
                      .src_stride = all,
                      .dst = x->v,
                      .dst_stride = x->wkv,
                      .n = p->n};
    q.groups = k.groups = v.groups = grouped ? mo->kv_heads : 1;
    q.src_step = k.src_step = v.src_step = step;
    q.width = grouped ? group * d : x->wq;
    k.width = v.width = grouped ? d : x->wkv;
    q.dst_step = q.width;
    k.dst_step = v.dst_step = k.width;
    p->ops->copy_columns(p->b, &q);
    p->ops->copy_columns(p->b, &k);
    p->ops->copy_columns(p->b, &v);
}

static lamina_status project(const attention_step *s, const qkv *x)
{
    pass *p = s->p;
    if (p->mo->qkv != QKV_SEPARATE) {
        uint32_t all = x->wq + 2 * x->wkv;
        TRY(pass_product(p, p->n, x->fused, all));
        add_bias(p, x->fused, s->v[ROLE_QKV_BIAS], all);
        split(p, x);
        return LAMINA_OK;
    }
    TRY(pass_product(p, p->n, x->q, x->wq));
    TRY(pass_product(p, p->n, x->k, x->wkv));
    TRY(pass_product(p, p->n, x->v, x->wkv));
    add_bias(p, x->q, s->v[ROLE_Q_BIAS], x->wq);
    add_bias(p, x->k, s->v[ROLE_K_BIAS], x->wkv);
    add_bias(p, x->v, s->v[ROLE_V_BIAS], x->wkv);
    return LAMINA_OK;
}

static void norm_heads(const attention_step *s, float *x, role norm, role bias, uint32_t heads)
{
    pass *p = s->p;
    uint32_t d = p->mo->head_dim;
    norm_weights w = {.w = s->v[norm], .bias = s->v[bias]};
    switch (p->mo->qk_norm) {
    case QK_NORM_NONE:
        break;
    case QK_NORM_HEAD:
        pass_norm(p, x, w, p->n * heads, d, x);
        break;
    case QK_NORM_HEADS:
        w.w_rows = heads;
        pass_norm(p, x, w, p->n * heads, d, x);
        break;
    case QK_NORM_WHOLE:
        pass_norm(p, x, w, p->n, heads * d, x);
        break;
    }
}

static void norm_queries_and_keys(const attention_step *s, const qkv *x)
{
    norm_heads(s, x->q, ROLE_Q_NORM, ROLE_Q_NORM_BIAS, s->p->mo->heads);
    norm_heads(s, x->k, ROLE_K_NORM, ROLE_K_NORM_BIAS, s->p->mo->kv_heads);
}

static void attend(const attention_step *s, attention_args *args)
{
    pass *p = s->p;
    activations *a = p->a;
    for (uint32_t i = 0; i < p->n_parts; i++) a->parts[i].kv = a->part_session[i]->kv[s->index];
    args->heads = p->mo->heads;
    args->scale = p->mo->attention_scale;
    if (p->mo->scale_by_layer) args->scale /= (float)(s->index + 1);
    args->softcap = p->mo->attention_softcap;
    args->sinks = s->v[ROLE_SINKS];
    args->slopes = p->e->vectors.slopes;
    args->window = s->l->window;
    args->parts = a->parts;
    args->n_parts = p->n_parts;
    double begin = p->e->trace ? os_seconds() : 0;
    p->ops->attention(p->b, args);
    if (p->e->trace) trace_span(p->e->trace, TRACE_COMPUTE, "attention", (int32_t)s->index, 0, begin, os_seconds());
}

static lamina_status grouped_queries(const attention_step *s, const float **out)
{
    pass *p = s->p;
    const model *mo = p->mo;
    size_t n = p->n;
    qkv x = {.wq = mo->heads * mo->head_dim, .wkv = mo->kv_heads * mo->head_dim, .q = p->a->wide};
    x.k = x.q + n * x.wq;
    x.v = x.k + n * x.wkv;
    x.out = x.v + n * x.wkv;
    x.fused = x.out + n * x.wq;
    TRY(project(s, &x));
    if (!mo->qk_norm_late) norm_queries_and_keys(s, &x);
    if (mo->clip_qkv > 0) {
        p->ops->clamp(p->b, x.q, mo->clip_qkv, n * x.wq);
        p->ops->clamp(p->b, x.k, mo->clip_qkv, n * x.wkv);
        p->ops->clamp(p->b, x.v, mo->clip_qkv, n * x.wkv);
    }
    if (s->l->rope >= 0) {
        rotate(s, x.q, mo->heads, mo->head_dim);
        rotate(s, x.k, mo->kv_heads, mo->head_dim);
    }
    if (mo->qk_norm_late) norm_queries_and_keys(s, &x);
    if (p->a->query_scale) p->ops->scale_rows(p->b, x.q, p->a->query_scale, p->n, x.wq);
    attention_args args = {.q = x.q,
                           .k = x.k,
                           .v = x.v,
                           .out = x.out,
                           .kv_heads = mo->kv_heads,
                           .head_dim = mo->head_dim,
                           .v_dim = mo->head_dim};
    attend(s, &args);
    *out = x.out;
    return LAMINA_OK;
}

/* ---- latent ------------------------------------------------------------------------------------------------------ */

static const float LATENT_EPS = 1e-6f; /* of the norms of latents, whatever rms_norm_eps says */

typedef struct latent {
    float *q_a, *q;       /* [n, q_lora], [n, heads, nope + rope] */
    float *kv_a, *c, *k;  /* [n, kv_lora + rope], its latent alone, normed and rotated: what is cached */
    float *q_rope;        /* [n, heads, rope] */
    float *wide_q, *read; /* [n, heads, kv_lora + rope], [n, heads, kv_lora] */
    float *out;           /* [n, heads, v_dim] */
    float *head_q;        /* [n, nope] of the head at hand */
    uint32_t head, key;   /* nope + rope; kv_lora + rope */
} latent;

static latent carve(const pass *p)
{
    const model *mo = p->mo;
    size_t n = p->n;
    latent x = {.head = mo->head_dim, .key = mo->kv_lora + mo->rope_dim, .q_a = p->a->wide};
    x.q = x.q_a + n * mo->q_lora;
    x.kv_a = x.q + n * mo->heads * x.head;
    x.c = x.kv_a + n * x.key;
    x.k = x.c + n * x.key;
    x.q_rope = x.k + n * x.key;
    x.wide_q = x.q_rope + n * mo->heads * mo->rope_dim;
    x.read = x.wide_q + n * mo->heads * x.key;
    x.out = x.read + n * mo->heads * mo->kv_lora;
    x.head_q = x.out + n * mo->heads * mo->v_dim;
    return x;
}

/* One run of columns from rows of `from` to rows of `to`. */
static void copy(const pass *p, const float *from, uint32_t from_stride, float *to, uint32_t to_stride, uint32_t width)
{
    columns_args c = {.src = from,
                      .src_stride = from_stride,
                      .dst = to,
                      .dst_stride = to_stride,
                      .n = p->n,
                      .groups = 1,
                      .width = width};
    p->ops->copy_columns(p->b, &c);
}

static lamina_status latent_queries(const attention_step *s, const latent *x, const float *input)
{
    pass *p = s->p;
    const model *mo = p->mo;
    uint32_t all = mo->heads * x->head;
    if (!mo->q_lora) return LAMINA_OK; /* ROLE_Q comes behind ROLE_Q_A and ROLE_Q_B */
    TRY(pass_product(p, p->n, x->q_a, mo->q_lora));
    add_bias(p, x->q_a, s->v[ROLE_Q_A_BIAS], mo->q_lora);
    pass_norm(p, x->q_a, (norm_weights){.w = s->v[ROLE_Q_A_NORM], .eps = LATENT_EPS}, p->n, mo->q_lora, x->q_a);
    pass_input(p, x->q_a, mo->q_lora);
    TRY(pass_product(p, p->n, x->q, all));
    pass_input(p, input, mo->hidden);
    return LAMINA_OK;
}

/* The latent is normed, the rotated part rotated; together they are what is cached. */
static lamina_status latent_keys(const attention_step *s, const latent *x)
{
    pass *p = s->p;
    const model *mo = p->mo;
    TRY(pass_product(p, p->n, x->kv_a, x->key));
    add_bias(p, x->kv_a, s->v[ROLE_KV_A_BIAS], x->key);
    copy(p, x->kv_a, x->key, x->c, mo->kv_lora, mo->kv_lora);
    pass_norm(p, x->c, (norm_weights){.w = s->v[ROLE_KV_A_NORM], .eps = LATENT_EPS}, p->n, mo->kv_lora, x->c);
    copy(p, x->c, mo->kv_lora, x->k, x->key, mo->kv_lora);
    copy(p, x->kv_a + mo->kv_lora, x->key, x->c, mo->rope_dim, mo->rope_dim);
    rotate(s, x->c, 1, mo->rope_dim);
    copy(p, x->c, mo->rope_dim, x->k + mo->kv_lora, x->key, mo->rope_dim);
    return LAMINA_OK;
}

/* Queries as wide as the cache: for each head its part without rotation through the expansion to keys, then the rotated
 * part. */
static lamina_status widen_queries(const attention_step *s, const latent *x)
{
    pass *p = s->p;
    const model *mo = p->mo;
    uint32_t all = mo->heads * x->head;
    p->ops->zero(p->b, x->wide_q, (uint64_t)p->n * mo->heads * x->key);
    columns_args c = {.src = x->q + mo->nope_dim,
                      .src_stride = all,
                      .src_step = x->head,
                      .dst = x->q_rope,
                      .dst_stride = mo->heads * mo->rope_dim,
                      .dst_step = mo->rope_dim,
                      .n = p->n,
                      .groups = mo->heads,
                      .width = mo->rope_dim};
    p->ops->copy_columns(p->b, &c);
    rotate(s, x->q_rope, mo->heads, mo->rope_dim);
    c = (columns_args){.src = x->q_rope,
                       .src_stride = mo->heads * mo->rope_dim,
                       .src_step = mo->rope_dim,
                       .dst = x->wide_q + mo->kv_lora,
                       .dst_stride = mo->heads * x->key,
                       .dst_step = x->key,
                       .n = p->n,
                       .groups = mo->heads,
                       .width = mo->rope_dim};
    p->ops->copy_columns(p->b, &c);
    for (uint32_t h = 0; h < mo->heads; h++) {
        copy(p, x->q + (size_t)h * x->head, all, x->head_q, mo->nope_dim, mo->nope_dim);
        pass_input(p, x->head_q, mo->nope_dim);
        TRY(pass_product(p, p->n, x->wide_q + (size_t)h * x->key, (uint64_t)mo->heads * x->key));
    }
    return LAMINA_OK;
}

/* What was attended is in latents; each head's expansion to values makes it what the next matrix reads. */
static lamina_status expand_values(const attention_step *s, const latent *x)
{
    pass *p = s->p;
    const model *mo = p->mo;
    for (uint32_t h = 0; h < mo->heads; h++) {
        copy(p, x->read + (size_t)h * mo->kv_lora, mo->heads * mo->kv_lora, x->wide_q, mo->kv_lora, mo->kv_lora);
        pass_input(p, x->wide_q, mo->kv_lora);
        TRY(pass_product(p, p->n, x->out + (size_t)h * mo->v_dim, (uint64_t)mo->heads * mo->v_dim));
    }
    return LAMINA_OK;
}

static lamina_status latent_attention(const attention_step *s, const float *input, const float **out)
{
    pass *p = s->p;
    const model *mo = p->mo;
    latent x = carve(p);
    TRY(latent_queries(s, &x, input));
    if (!mo->q_lora) TRY(pass_product(p, p->n, x.q, (uint64_t)mo->heads * x.head));
    TRY(latent_keys(s, &x));
    TRY(widen_queries(s, &x));
    attention_args args = {.q = x.wide_q,
                           .k = x.k,
                           .out = x.read,
                           .kv_heads = 1,
                           .head_dim = x.key,
                           .v_dim = mo->kv_lora,
                           .values_in_keys = true};
    attend(s, &args);
    TRY(expand_values(s, &x));
    *out = x.out;
    return LAMINA_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

lamina_status pass_attention(pass *p, uint32_t index)
{
    const model *mo = p->mo;
    activations *a = p->a;
    attention_step s = {.p = p, .l = &mo->layers[index], .v = p->e->vectors.layers[index].v, .index = index};
    const float *out = NULL, *input = a->x;
    if (s.v[ROLE_ATTN_NORM]) {
        norm_weights w = {.w = s.v[ROLE_ATTN_NORM], .bias = s.v[ROLE_ATTN_NORM_BIAS]};
        pass_norm(p, a->x, w, p->n, mo->hidden, a->t);
        input = a->t;
    }
    pass_input(p, input, mo->hidden);
    if (mo->mixer == MIXER_GQA)
        TRY(grouped_queries(&s, &out));
    else
        TRY(latent_attention(&s, input, &out));
    float *to = mo->parallel ? a->held : a->t;
    pass_input(p, out, (uint64_t)mo->heads * mo->v_dim);
    TRY(pass_product(p, p->n, to, mo->hidden));
    add_bias(p, to, s.v[ROLE_O_BIAS], mo->hidden);
    if (!mo->parallel) pass_add(p, s.v[ROLE_POST_ATTN_NORM], to);
    return LAMINA_OK;
}

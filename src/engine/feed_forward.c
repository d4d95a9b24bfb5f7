/* The second half of a layer: what a row makes of itself. */
#include "engine/pass.h"

act_kind pass_act(activation a)
{
    static const act_kind kinds[] = {
        [ACT_SILU] = BACKEND_SILU,       [ACT_GELU_TANH] = BACKEND_GELU_TANH, [ACT_GELU] = BACKEND_GELU_ERF,
        [ACT_RELU] = BACKEND_RELU,       [ACT_RELU2] = BACKEND_RELU2,         [ACT_QUICK_GELU] = BACKEND_QUICK_GELU,
        [ACT_CLAMPED] = BACKEND_CLAMPED,
    };
    return kinds[a];
}

static lamina_status dense(pass *p, const float *const *v)
{
    const model *mo = p->mo;
    uint32_t n = p->n;
    uint64_t elements = (uint64_t)n * mo->ffn;
    float *first = p->a->wide, *up = mo->gated ? first + elements : first;
    if (mo->gated) {
        TRY(pass_product(p, n, first, mo->ffn));
        if (v[ROLE_GATE_BIAS]) p->ops->add_bias(p->b, first, v[ROLE_GATE_BIAS], n, mo->ffn);
    }
    TRY(pass_product(p, n, up, mo->ffn));
    if (v[ROLE_UP_BIAS]) p->ops->add_bias(p->b, up, v[ROLE_UP_BIAS], n, mo->ffn);
    if (mo->gated)
        p->ops->gate(p->b, pass_act(mo->act), mo->act_limit, first, up, elements);
    else
        p->ops->activate(p->b, pass_act(mo->act), mo->act_limit, first, elements);
    pass_input(p, first, mo->ffn);
    TRY(pass_product(p, n, p->a->t, mo->hidden));
    if (v[ROLE_DOWN_BIAS]) p->ops->add_bias(p->b, p->a->t, v[ROLE_DOWN_BIAS], n, mo->hidden);
    return LAMINA_OK;
}

lamina_status pass_feed_forward(pass *p, uint32_t index)
{
    const model *mo = p->mo;
    const float *const *v = p->e->vectors.layers[index].v;
    activations *a = p->a;
    const float *input = a->x;
    role norm = mo->parallel && !v[ROLE_FFN_NORM] ? ROLE_ATTN_NORM : ROLE_FFN_NORM;
    if (v[norm]) {
        role bias = norm == ROLE_ATTN_NORM ? ROLE_ATTN_NORM_BIAS : ROLE_FFN_NORM_BIAS;
        pass_norm(p, a->x, (norm_weights){.w = v[norm], .bias = v[bias]}, p->n, mo->hidden, a->t);
        input = a->t;
    }
    pass_input(p, input, mo->hidden);
    if (mo->layers[index].experts) {
        TRY(pass_experts(p, index, input));
        pass_add(p, v[ROLE_POST_FFN_NORM], p->e->moe.out);
        return LAMINA_OK;
    }
    TRY(dense(p, v));
    if (mo->parallel) pass_add(p, v[ROLE_POST_ATTN_NORM], a->held);
    pass_add(p, v[ROLE_POST_FFN_NORM], a->t);
    return LAMINA_OK;
}

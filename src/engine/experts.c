/* The second half of a layer that has experts. The router speaks for all rows of the pass; the union of what it chose
 * is asked for at once; the shared expert is computed while the first arrive; each expert is applied to all rows that
 * want it, piece by piece as its matrices come. Outputs are kept apart until all are there and then summed for each row
 * in ascending order of experts, so that neither the order of arrival nor the company changes a bit. */
#include "engine/calibrate.h"
#include "engine/pass.h"

/* ---- where experts lie -------------------------------------------------------------------------------------------- */

static uint32_t n_matrices(const expert_axes *e)
{
    return e->fused ? 2 : EXPERT_MATRICES;
}

/* Which of an expert's weights matrix `matrix` of the pool is. */
static int part_of(const expert_axes *e, uint32_t matrix)
{
    return e->fused && matrix == 1 ? EXPERT_MATRICES - 1 : (int)matrix;
}

static expert_matrix locate(const void *user, uint32_t layer, uint32_t expert, uint32_t matrix)
{
    const lamina_engine *e = user;
    const model *mo = e->model;
    const weight *w = &mo->layers[e->moe_layers[layer]].experts[expert].w[part_of(&mo->experts, matrix)];
    expert_matrix m = {.file = w->file, .offset = w->offset, .rows = w->rows, .row_bytes = w->row_bytes};
    if (w->scales == TENSOR_NONE) return m;
    const tensor *t = &e->ckpt->tensors[w->scales];
    bool numbers = dtype_has_scales(w->type);
    m.side_file = t->file;
    m.side_offset = t->offset + w->scales_offset;
    m.side_row_bytes = (numbers ? w->grid.stride : t->shape[t->n_dims - 1]) * dtype_row_bytes(t->type, 1);
    m.side_rows = numbers ? w->grid.rows : 1;
    return m;
}

experts_config expert_pool_config(lamina_engine *e)
{
    return (experts_config){.m = e->m,
                            .trace = e->trace,
                            .io = e->options.io,
                            .faults = e->options.faults,
                            .n_files = e->ckpt->n_files,
                            .paths = e->paths,
                            .file_bytes = e->sizes,
                            .n_layers = e->n_moe_layers,
                            .n_experts = e->model->experts.count,
                            .n_matrices = n_matrices(&e->model->experts),
                            .layer_numbers = e->moe_layers,
                            .locate = locate,
                            .user = e};
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

enum { BUFFERS = 19 };

typedef struct buffer {
    void *slot; /* of a pointer in expert_buffers */
    uint64_t bytes;
    bool host;
} buffer;

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Scales of a piece, widened: at most those of a whole matrix, of two bytes each or more. */
static uint64_t side_bytes(lamina_engine *e)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < n_matrices(&e->model->experts); i++) {
        expert_matrix m = locate(e, 0, 0, i);
        const weight *w = &e->model->layers[e->moe_layers[0]].experts[0].w[part_of(&e->model->experts, i)];
        if (m.side_row_bytes && dtype_has_scales(w->type))
            most = max64(most, (m.rows + m.side_rows - 1) / m.side_rows * m.side_row_bytes * 2);
    }
    return most + sizeof(float);
}

static void list_buffers(lamina_engine *e, uint32_t rows, buffer list[BUFFERS])
{
    const model *mo = e->model;
    const expert_axes *x = &mo->experts;
    expert_buffers *b = &e->moe;
    uint64_t n = rows, slots = n * x->used, widest = max64(x->ffn, x->shared_ffn), f = sizeof(float);
    const buffer all[BUFFERS] = {
        {&b->logits, n * x->count * f, false},
        {&b->out, n * mo->hidden * f, false},
        {&b->x, n * mo->hidden * f, false},
        {&b->gate, n * (x->fused ? 2 : 1) * widest * f, false},
        {&b->up, n * (x->fused ? 2 : 1) * widest * f, false},
        {&b->y, slots * mo->hidden * f, false},
        {&b->factors, n * f, false},
        {&b->scores, n * x->count * f, true},
        {&b->correction, x->count * f, true},
        {&b->ids, slots * sizeof *b->ids, true},
        {&b->weights, slots * f, true},
        {&b->index, slots * sizeof *b->index, true},
        {&b->members, slots * sizeof *b->members, true},
        {&b->first, (x->count + 1ull) * sizeof *b->first, true},
        {&b->wanted, 3 * (uint64_t)x->count * sizeof *b->wanted, true},
        {&b->side, side_bytes(e), false},
        {&b->router.choice, x->count * f, true},
        {&b->router.group_scores, x->groups * f, true},
        {&b->router.taken, (uint64_t)x->count + x->groups, true},
    };
    memcpy(list, all, sizeof all);
}

uint64_t expert_buffers_bytes(lamina_engine *e, uint32_t rows)
{
    if (!e->n_moe_layers) return 0;
    buffer list[BUFFERS];
    uint64_t bytes = 0;
    list_buffers(e, rows, list);
    for (size_t i = 0; i < BUFFERS; i++) bytes += (list[i].bytes + 63) & ~UINT64_C(63);
    return bytes;
}

lamina_status expert_buffers_new(lamina_engine *e, uint32_t rows, lamina_error *err)
{
    if (!e->n_moe_layers) return LAMINA_OK;
    buffer list[BUFFERS];
    expert_buffers *b = &e->moe;
    b->rows = rows;
    list_buffers(e, rows, list);
    for (size_t i = 0; i < BUFFERS; i++) {
        void *p = list[i].host ? mem_alloc(e->m, MEM_ACTIVATION, list[i].bytes, err)
                               : e->backend->ops->alloc(e->backend, MEM_ACTIVATION, list[i].bytes, err);
        if (!p) return err ? err->status : LAMINA_E_MEMORY;
        memcpy(list[i].slot, &p, sizeof p);
    }
    b->uses = b->wanted + e->model->experts.count;
    b->place = b->uses + e->model->experts.count;
    b->router.group_taken = b->router.taken + e->model->experts.count;
    return LAMINA_OK;
}

void expert_buffers_free(lamina_engine *e)
{
    if (!e->moe.rows) return;
    buffer list[BUFFERS];
    list_buffers(e, e->moe.rows, list);
    for (size_t i = 0; i < BUFFERS; i++) {
        void *p;
        memcpy(&p, list[i].slot, sizeof p);
        if (!p) continue;
        if (list[i].host)
            mem_free(e->m, p);
        else
            e->backend->ops->free(e->backend, MEM_ACTIVATION, p, list[i].bytes);
    }
    e->moe = (expert_buffers){0};
}

/* ---- choosing ----------------------------------------------------------------------------------------------------- */

typedef struct mixture {
    pass *p;
    expert_buffers *b;
    const expert_axes *e;
    const model_layer *l;
    const float *const *v; /* vectors of the layer */
    const float *input;    /* [n, hidden] */
    uint32_t n_wanted;
} mixture;

/* Lists each wanted expert's rows, and where each row's outputs will stand. */
static void group_rows(mixture *m)
{
    expert_buffers *b = m->b;
    uint32_t used = m->e->used, n = m->p->n;
    memset(b->uses, 0, m->e->count * sizeof *b->uses);
    for (uint32_t i = 0; i < n * used; i++) b->uses[b->ids[i]]++;
    uint32_t at = 0;
    m->n_wanted = 0;
    for (uint32_t i = 0; i < m->e->count; i++) {
        if (!b->uses[i]) continue;
        b->wanted[m->n_wanted] = i;
        b->first[m->n_wanted] = at;
        b->place[i] = at; /* of the next row */
        at += b->uses[i];
        m->n_wanted++;
    }
    b->first[m->n_wanted] = at;
    for (uint32_t i = 0; i < n * used; i++) {
        b->index[i] = b->place[b->ids[i]]++;
        b->members[b->index[i]] = i / used;
    }
    for (uint32_t i = 0; i < m->n_wanted; i++) b->uses[i] = b->first[i + 1] - b->first[i];
}

static lamina_status choose(mixture *m)
{
    pass *p = m->p;
    expert_buffers *b = m->b;
    const expert_axes *e = m->e;
    TRY(pass_product(p, p->n, b->logits, e->count));
    if (m->v[ROLE_ROUTER_BIAS]) p->ops->add_bias(p->b, b->logits, m->v[ROLE_ROUTER_BIAS], p->n, e->count);
    p->ops->download(p->b, b->scores, b->logits, (size_t)p->n * e->count * sizeof(float));
    const float *correction = m->v[ROLE_ROUTER_CORRECTION] ? b->correction : NULL;
    if (correction) p->ops->download(p->b, b->correction, m->v[ROLE_ROUTER_CORRECTION], e->count * sizeof(float));
    for (uint32_t t = 0; t < p->n; t++)
        router_choose(e, b->scores + (size_t)t * e->count, correction, &b->router, b->ids + (size_t)t * e->used,
                      b->weights + (size_t)t * e->used);
    group_rows(m);
    return LAMINA_OK;
}

/* ---- computing ---------------------------------------------------------------------------------------------------- */

/* The expert that every row has, into out. */
static lamina_status shared_expert(mixture *m)
{
    pass *p = m->p;
    expert_buffers *b = m->b;
    uint32_t n = p->n, ffn = m->e->shared_ffn, hidden = p->mo->hidden;
    p->ops->zero(p->b, b->out, (uint64_t)n * hidden);
    if (!ffn) return LAMINA_OK;
    bool weighed = m->l->w[ROLE_SHARED_ROUTER].rows != 0;
    if (weighed) {
        TRY(pass_product(p, n, b->factors, 1));
        p->ops->sigmoid(p->b, b->factors, n);
    }
    TRY(pass_product(p, n, b->gate, ffn));
    TRY(pass_product(p, n, b->up, ffn));
    p->ops->gate(p->b, pass_act(p->mo->act), p->mo->act_limit, b->gate, b->up, (uint64_t)n * ffn);
    pass_input(p, b->gate, ffn);
    TRY(pass_product(p, n, b->out, hidden));
    if (weighed) p->ops->scale_rows(p->b, b->out, b->factors, n, hidden);
    return LAMINA_OK;
}

/* The expert at hand. */
typedef struct visit {
    mixture *m;
    uint32_t id, rows; /* its number; rows of the pass that want it */
    float *to;         /* [rows, hidden]: where its outputs stand */
} visit;

static void add_expert_bias(const visit *v, role r, float *x, uint32_t k)
{
    const float *bias = v->m->v[r];
    if (bias) v->m->p->ops->add_bias(v->m->p->b, x, bias + (size_t)v->id * k, v->rows, k);
}

/* Where a matrix's results go, and how wide they are. */
static float *target(const visit *v, int part, uint32_t *width)
{
    const expert_axes *e = v->m->e;
    *width = part == EXPERT_MATRICES - 1 ? v->m->p->mo->hidden : part == 0 && e->fused ? 2 * e->ffn : e->ffn;
    return part == EXPERT_MATRICES - 1 ? v->to : part == 1 || e->fused ? v->m->b->up : v->m->b->gate;
}

static void begin_matrix(const visit *v, int part, const weight *w, float *y, uint32_t width)
{
    pass *p = v->m->p;
    expert_buffers *b = v->m->b;
    if (part == 0) {
        uint32_t item = (uint32_t)((v->to - b->y) / p->mo->hidden);
        p->ops->take_rows(p->b, v->m->input, b->members + item, v->rows, p->mo->hidden, b->x);
        pass_input(p, b->x, p->mo->hidden);
    }
    if (w->transposed) p->ops->zero(p->b, y, (uint64_t)v->rows * width);
}

/* Gate and up that came as one, apart: even and odd columns, or halves. up holds them together, gate comes to gate, up
 * to x's place behind them. */
static float *part_fused(const visit *v)
{
    pass *p = v->m->p;
    const expert_axes *e = v->m->e;
    float *gate = v->m->b->gate, *up = gate + (size_t)v->rows * e->ffn;
    columns_args c = {.src = v->m->b->up, .src_stride = 2 * (uint64_t)e->ffn, .dst_stride = e->ffn, .n = v->rows};
    c.groups = e->interleaved ? e->ffn : 1;
    c.width = e->interleaved ? 1 : e->ffn;
    c.src_step = 2;
    c.dst_step = 1;
    c.dst = gate;
    p->ops->copy_columns(p->b, &c);
    c.src += e->interleaved ? 1 : e->ffn;
    c.dst = up;
    p->ops->copy_columns(p->b, &c);
    return up;
}

static void end_matrix(const visit *v, int part, float *y, uint32_t width)
{
    static const role biases[EXPERT_MATRICES] = {ROLE_EXPERT_GATE_BIAS, ROLE_EXPERT_UP_BIAS, ROLE_EXPERT_DOWN_BIAS};
    pass *p = v->m->p;
    const expert_axes *e = v->m->e;
    add_expert_bias(v, biases[part], y, width);
    if (part != (e->fused ? 0 : 1)) return;
    float *up = e->fused ? part_fused(v) : v->m->b->up;
    p->ops->gate(p->b, pass_act(p->mo->act), p->mo->act_limit, v->m->b->gate, up, (uint64_t)v->rows * e->ffn);
    pass_input(p, v->m->b->gate, e->ffn);
    if (p->e->moments) moments_add(p, &v->m->l->experts[v->id].w[EXPERT_MATRICES - 1], v->m->b->gate, v->rows, e->ffn);
}

static matrix_rows rows_of(const visit *v, const weight *w, const expert_piece *piece)
{
    matrix_rows rows = {
        .type = w->type, .data = piece->data, .n_rows = piece->n_rows, .cols = w->cols, .row_bytes = w->row_bytes};
    if (!piece->side) return rows;
    if (w->type == DT_MXFP4_PAIRS) {
        rows.side = piece->side;
        return rows;
    }
    rows.scales_stride = w->grid.stride;
    rows.scale_rows = w->grid.rows;
    rows.scale_cols = w->grid.cols;
    /* To where floats may be read. */
    matrix_rows scales = {
        .type = v->m->p->e->ckpt->tensors[w->scales].type, .data = piece->side, .cols = rows.scales_stride};
    scales.n_rows = (piece->n_rows + w->grid.rows - 1) / w->grid.rows;
    v->m->p->ops->widen(v->m->p->b, &scales, v->m->b->side);
    rows.scales = v->m->b->side;
    return rows;
}

static void apply_piece(mixture *m, const expert_piece *piece)
{
    pass *p = m->p;
    expert_buffers *b = m->b;
    int part = part_of(m->e, piece->matrix);
    visit v = {.m = m, .id = b->wanted[piece->item], .rows = b->uses[piece->item]};
    v.to = b->y + (size_t)b->first[piece->item] * p->mo->hidden;
    const weight *w = &m->l->experts[v.id].w[part];
    uint32_t width;
    float *y = target(&v, part, &width);
    if (piece->row0 == 0) begin_matrix(&v, part, w, y, width);
    matrix_rows rows = rows_of(&v, w, piece);
    pass_apply(p, &rows, w->transposed, piece->row0, v.rows, y, width);
    if (piece->row0 + piece->n_rows == w->rows) end_matrix(&v, part, y, width);
}

lamina_status pass_experts(pass *p, uint32_t layer, const float *input)
{
    mixture m = {.p = p, .b = &p->e->moe, .e = &p->mo->experts, .l = &p->mo->layers[layer], .input = input};
    m.v = p->e->vectors.layers[layer].v;
    expert_buffers *b = m.b;
    TRY(choose(&m));
    experts_want(p->e->experts, m.l->moe_index, b->wanted, b->uses, m.n_wanted);
    TRY(shared_expert(&m));
    for (;;) {
        expert_piece piece;
        bool more = false;
        TRY(experts_next(p->e->experts, &piece, &more, p->err));
        if (!more) break;
        double begin = p->e->trace ? os_seconds() : 0;
        apply_piece(&m, &piece);
        if (p->e->trace) trace_span(p->e->trace, TRACE_COMPUTE, "expert", (int32_t)layer, 0, begin, os_seconds());
        if (atomic_load_explicit(&p->e->cancel, memory_order_relaxed))
            return error_set(p->err, LAMINA_E_CANCELLED, "cancelled");
    }
    combine_args sum = {.x = b->out,
                        .y = b->y,
                        .index = b->index,
                        .weight = b->weights,
                        .n = p->n,
                        .slots = m.e->used,
                        .k = p->mo->hidden};
    p->ops->combine(p->b, &sum);
    return LAMINA_OK;
}

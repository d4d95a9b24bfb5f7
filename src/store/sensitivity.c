/* Owns the sample: how many rows say enough. A tensor is one piece of work, so its sums have one order and the result
 * does not depend on threads. Measured on trained matrices: relative errors of rows scatter by 10 to 20 %, so that 128
 * rows give a tensor's within 1 to 2 %, less than one type differs from the next by a factor of 3. */
#include "store/sensitivity.h"

#include "store/crew.h"
#include "store/flow.h"
#include "store/recode.h"
#include "store/sources.h"

enum {
    SAMPLE = 128,    /* rows of a matrix, or of all experts' together */
    SAMPLE_LEAST = 4 /* of an expert's */
};

typedef struct sampler { /* what one thread has */
    uint8_t *bounce, *half, *row;
    float *wide;
    scales_window scales;
    size_t at; /* index of the tensor */
} sampler;

typedef struct sensing {
    const model *mo;
    const recipe_target *targets;
    const float *const *importance;
    recipe_survey *out;
    sources sources;
    sampler workers[CREW_MOST];
    size_t next;
    uint64_t done, total;
} sensing;

static uint64_t sampled_rows(const model *mo, size_t index)
{
    const tensor *t = &mo->source->tensors[index];
    uint64_t rows = image_rows(t), some = SAMPLE;
    role r = (role)(mo->tensor_roles[index] - 1);
    if (r >= ROLE_EXPERT_GATE && r < ROLE_LAYER_END && mo->experts.count)
        some = SAMPLE / mo->experts.count > SAMPLE_LEAST ? SAMPLE / mo->experts.count : SAMPLE_LEAST;
    return rows < some ? rows : some;
}

static bool is_open(const sensing *s, size_t index)
{
    return s->targets[index].form == RECIPE_OPEN && s->mo->source->tensors[index].bytes;
}

static bool take(void *user, uint32_t worker)
{
    sensing *s = user;
    while (s->next < s->mo->source->n_tensors && !is_open(s, s->next)) s->next++;
    if (s->next == s->mo->source->n_tensors) return false;
    s->workers[worker].at = s->next++;
    return true;
}

/* What errors of each column cost. Of the embedding a row is taken as it is: all columns alike, also where it is the
 * head, too. (Measured on SmolLM2: by the head's inputs alone its loss is foretold 17 times too small.) */
static const float *importance_of(const sensing *s, size_t index)
{
    return s->importance && s->mo->tensor_roles[index] != ROLE_EMBED + 1 ? s->importance[index] : NULL;
}

static image_scales scales_at(const sensing *s, size_t index)
{
    const weight *codes = s->targets[index].codes;
    return codes ? scales_of(s->mo, codes) : (image_scales){0};
}

static lamina_status sense(void *user, uint32_t worker, lamina_error *err)
{
    sensing *s = user;
    sampler *w = &s->workers[worker];
    const tensor *t = &s->mo->source->tensors[w->at];
    const float *importance = importance_of(s, w->at);
    uint64_t cols = image_columns(t), row_bytes = tensor_row_bytes(t, cols), rows = image_rows(t);
    uint64_t n = sampled_rows(s->mo, w->at);
    recipe_survey *out = &s->out[w->at];
    const image_scales scales = scales_at(s, w->at);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t row = rows / n * i;
        const uint8_t *at;
        TRY(sources_read(&s->sources, t->file, t->offset + row * row_bytes, (size_t)row_bytes, w->bounce, &at, err));
        recode_widen(t->type, t->row_bytes, at, cols, w->half, w->wide);
        TRY(scales_apply(&w->scales, &s->sources, &scales, row, rows, cols, w->wide, err));
        for (int k = 0; k < RECIPE_CANDIDATES; k++) {
            dtype to = recipe_candidate(cols, k);
            quantize_cost cost = {0};
            if (quantize_error(to, w->wide, 1, cols, importance, w->row, &cost) != 1)
                return recode_cannot_hold(t->name, row, to, err);
            out->error[k] += cost.error;
            if (k == 0) out->power += cost.power;
        }
    }
    return LAMINA_OK;
}

static void done(void *user, uint32_t worker)
{
    sensing *s = user;
    s->done += s->mo->source->tensors[s->workers[worker].at].bytes;
}

static void say(void *user, lamina_progress *p)
{
    const sensing *s = user;
    size_t last = s->mo->source->n_tensors - 1;
    p->unit = s->mo->source->tensors[s->next < last ? s->next : last].name;
    p->done = s->done;
    p->total = s->total;
}

typedef struct extents { /* of a thread's buffers, which place() divides; whole pages */
    uint64_t source, columns, scales, all;
} extents;

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static extents buffers_of(const sensing *s)
{
    extents e = {0};
    for (size_t i = 0; i < s->mo->source->n_tensors; i++) {
        const tensor *t = &s->mo->source->tensors[i];
        if (!is_open(s, i)) continue;
        const image_scales scales = scales_at(s, i);
        e.columns = larger(e.columns, image_columns(t));
        e.source = larger(e.source, tensor_row_bytes(t, image_columns(t)));
        e.scales = larger(e.scales, scales_window_bytes(&scales));
    }
    const uint64_t page = SOURCE_PAGE;
    e.source = (e.source + page - 1) / page * page + 2 * page;
    e.columns = (e.columns + page - 1) / page * page;
    /* as read; scales; as halves; as f32; as blocks, of which none is larger */
    e.all = e.source + e.scales + (2 + 4 + 4) * e.columns;
    return e;
}

static void place(sampler *w, uint8_t *at, const extents *e)
{
    uint8_t *scales = at + e->source, *wide = scales + e->scales;
    *w = (sampler){.bounce = at, .wide = (float *)(void *)wide};
    scales_window_place(&w->scales, scales, e->scales);
    w->row = wide + 4 * e->columns;
    w->half = w->row + 4 * e->columns;
}

lamina_status sensitivity_survey(const store_job *job, const image *im, const model *mo, uint64_t buffers,
                                 const recipe_target *targets, const float *const *importance, recipe_survey *out,
                                 lamina_error *err)
{
    sensing s = {.mo = mo, .targets = targets, .importance = importance, .out = out};
    const extents e = buffers_of(&s);
    const uint64_t own = e.all, all = buffers ? buffers : FLOW_MEMORY;
    const uint32_t n = crew_threads(job, all, own);
    for (size_t i = 0; i < mo->source->n_tensors; i++) s.total += is_open(&s, i) ? mo->source->tensors[i].bytes : 0;
    if (!s.total) return LAMINA_OK;
    if (n * own > all)
        return error_set(err, LAMINA_E_BUDGET, "memory: %llu bytes of buffers, packing needs at least %llu",
                         (unsigned long long)buffers, (unsigned long long)(n * own));
    uint8_t *pages = mem_pages(job->m, MEM_OTHER, (size_t)(n * own), err);
    if (!pages) return NO_MEMORY(err);
    for (uint32_t i = 0; i < n; i++) place(&s.workers[i], pages + i * own, &e);
    const crew_work work = {
        .user = &s, .phase = LAMINA_PHASE_SURVEY, .take = take, .work = sense, .done = done, .say = say};
    lamina_status status = sources_new(im, &s.sources, err);
    if (status == LAMINA_OK) status = crew_run(job, &work, n, err);
    sources_free(&s.sources);
    mem_pages_free(job->m, MEM_OTHER, pages, (size_t)(n * own));
    return status;
}

/* The survey: the fullest row of each tensor, and with it the form in which it is least.
 *
 * Owns the counts, made by a crew whose members each take the next rows and read them. Rows of a packed tensor have one
 * length, that of the fullest, so that a row's place needs no index; the price is to read the tensors twice. Promises a
 * result that depends on neither threads nor buffers: it is a largest value. A tensor for which no form is left (an f32
 * that is no widened half, bits without any pattern) is not read further. */
#include "store/survey.h"

#include <string.h>

#include "store/crew.h"
#include "store/flow.h"
#include "store/recode.h"
#include "store/sources.h"

enum { FORMS = 3, SURVEY_BLOCK = 4 << 20, GOOD_BUFFER = 1 << 20 };

static const dtype form_types[FORMS] = {DT_BF16_PACKED3, DT_BF16_PACKED4, DT_F16_PACKED3};

typedef struct state { /* of a tensor, or of those like it */
    uint64_t columns, source_row;
    uint64_t room[FORMS]; /* the most escapes with which the form is worth it */
    uint64_t most[FORMS]; /* found so far; more than room: out */
} state;

typedef struct stretch { /* rows of an item */
    size_t item;
    uint64_t row, rows;
    uint64_t most[FORMS]; /* found in them, and before */
} stretch;

typedef struct surveyor {   /* what one thread has */
    uint8_t *bounce, *half; /* [buffer + two pages], [2 columns] */
    stretch at;
} surveyor;

typedef struct survey {
    const store_job *job;
    const survey_item *items;
    size_t n;
    state *states; /* [n]; used: those of the first of their like */
    sources sources;
    size_t buffer; /* bytes of a thread's, without two pages and a row of halves */
    surveyor workers[CREW_MOST];
    uint32_t n_threads;
    size_t next; /* item, and row of it, that nobody has taken */
    uint64_t next_row, done, total, bytes;
} survey;

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

/* Could the tensor be this form's? The most escapes that make it less than it is. */
static bool is_open(const state *t, int form)
{
    return t->most[form] <= t->room[form];
}

static bool any_open(const state *t)
{
    for (int i = 0; i < FORMS; i++)
        if (is_open(t, i)) return true;
    return false;
}

static void begin_state(const store_job *job, const survey_item *item, state *t)
{
    t->columns = image_columns(item->t);
    t->source_row = tensor_row_bytes(item->t, t->columns);
    for (int i = 0; i < FORMS; i++) {
        const packed_form *f = packed_form_of(form_types[i]);
        uint64_t least = packed_row_bytes(f, t->columns, 0), most = job->pack_all ? UINT32_MAX : t->source_row - 1;
        bool fits = (item->t->type == f->of || item->t->type == DT_F32) && packed_row_ok(f, t->columns, least);
        bool pays = fits && least <= most;
        t->room[i] = pays ? most - least : 0;
        t->most[i] = pays ? 0 : UINT64_MAX;
    }
}

/* The form that is least; of equals the first. */
static void end_state(const state *t, image_target *target, dtype of)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < FORMS; i++) {
        const packed_form *f = packed_form_of(form_types[i]);
        if (!is_open(t, i)) continue;
        uint64_t bytes = packed_row_bytes(f, t->columns, t->most[i]);
        if (bytes >= best) continue;
        best = bytes;
        *target = (image_target){.type = f->type, .row_bytes = bytes, .of = of};
    }
}

static void count_row(const state *t, dtype type, const uint8_t *row, uint8_t *half, uint64_t *most)
{
    dtype counted = DT_F32; /* of what halves the counts are */
    bool is_half = type != DT_F32;
    packed_counts counts;
    for (int i = 0; i < FORMS; i++) {
        const packed_form *f = packed_form_of(form_types[i]);
        if (most[i] > t->room[i]) continue;
        if (counted != f->of) {
            if (type == DT_F32) is_half = recode_narrow(f->of, row, t->columns, half);
            if (is_half) packed_count(f, type == DT_F32 ? half : row, t->columns, &counts);
            counted = f->of;
        }
        uint64_t n = is_half ? packed_escapes_of(f, &counts, t->columns) : UINT64_MAX;
        if (n == UINT32_MAX) n = UINT64_MAX; /* the form cannot hold it */
        if (n > most[i]) most[i] = n;
    }
}

/* ---- the threads ------------------------------------------------------------------------------------------------- */

/* The next rows of the next tensor that has a form left. */
static bool take(void *user, uint32_t worker)
{
    survey *s = user;
    for (; s->next < s->n; s->next++, s->next_row = 0) {
        const state *t = &s->states[s->items[s->next].like];
        uint64_t left = image_rows(s->items[s->next].t) - s->next_row, most = s->buffer / t->source_row;
        if (!any_open(t)) s->done += left * t->source_row;
        if (!any_open(t) || left == 0) continue;
        stretch *x = &s->workers[worker].at;
        *x = (stretch){.item = s->next, .row = s->next_row, .rows = left < most ? left : most};
        memcpy(x->most, t->most, sizeof x->most);
        s->next_row += x->rows;
        return true;
    }
    return false;
}

static lamina_status count_stretch(void *user, uint32_t worker, lamina_error *err)
{
    survey *s = user;
    surveyor *w = &s->workers[worker];
    stretch *x = &w->at;
    const tensor *t = s->items[x->item].t;
    const state *a = &s->states[s->items[x->item].like];
    const uint8_t *at;
    TRY(sources_read(&s->sources, t->file, t->offset + x->row * a->source_row, (size_t)(x->rows * a->source_row),
                     w->bounce, &at, err));
    for (uint64_t i = 0; i < x->rows; i++) count_row(a, t->type, at + i * a->source_row, w->half, x->most);
    return LAMINA_OK;
}

static void add_stretch(void *user, uint32_t worker)
{
    survey *s = user;
    const stretch *x = &s->workers[worker].at;
    state *t = &s->states[s->items[x->item].like];
    for (int i = 0; i < FORMS; i++)
        if (x->most[i] > t->most[i]) t->most[i] = x->most[i];
    s->done += x->rows * t->source_row;
    s->bytes += x->rows * t->source_row;
}

static void say(void *user, lamina_progress *p)
{
    const survey *s = user;
    p->unit = s->items[s->next < s->n ? s->next : s->n - 1].t->name;
    p->done = s->done;
    p->total = s->total;
    p->bytes = s->bytes;
}

/* ---- the caller -------------------------------------------------------------------------------------------------- */

/* Divides the buffers among the threads. */
static lamina_status divide(survey *s, uint64_t buffers, size_t *own, lamina_error *err)
{
    uint64_t row = 0, columns = 0;
    for (size_t i = 0; i < s->n; i++) {
        const state *t = &s->states[i];
        s->total += s->items[i].t->bytes;
        if (t->source_row > row) row = t->source_row;
        if (t->columns > columns) columns = t->columns;
    }
    const uint64_t page = SOURCE_PAGE;
    uint64_t half = (2 * columns + page - 1) / page * page, least = (row + page - 1) / page * page;
    uint64_t good = least > GOOD_BUFFER ? least : GOOD_BUFFER, all = buffers ? buffers : FLOW_MEMORY;
    s->n_threads = crew_threads(s->job, all, half + 2 * page + good);
    uint64_t each = all / s->n_threads / page * page;
    if (each < half + 2 * page + least)
        return error_set(err, LAMINA_E_BUDGET, "memory: %llu bytes of buffers, packing needs at least %llu",
                         (unsigned long long)buffers, (unsigned long long)(s->n_threads * (half + 2 * page + least)));
    uint64_t buffer = each - half - 2 * page;
    if (buffer > SURVEY_BLOCK && least <= SURVEY_BLOCK) buffer = SURVEY_BLOCK;
    s->buffer = (size_t)buffer;
    *own = (size_t)(buffer + half + 2 * page);
    return LAMINA_OK;
}

static lamina_status run_survey(survey *s, uint64_t buffers, lamina_error *err)
{
    size_t own = 0;
    memory *m = s->job->m;
    TRY(divide(s, buffers, &own, err));
    uint8_t *pages = mem_pages(m, MEM_OTHER, s->n_threads * own, err);
    if (!pages) return NO_MEMORY(err);
    for (uint32_t i = 0; i < s->n_threads; i++) {
        uint8_t *bounce = pages + i * own;
        s->workers[i] = (surveyor){.bounce = bounce, .half = bounce + s->buffer + (size_t)(2 * SOURCE_PAGE)};
    }
    const crew_work work = {
        .user = s, .phase = LAMINA_PHASE_SURVEY, .take = take, .work = count_stretch, .done = add_stretch, .say = say};
    lamina_status status = crew_run(s->job, &work, s->n_threads, err);
    mem_pages_free(m, MEM_OTHER, pages, s->n_threads * own);
    return status;
}

lamina_status survey_packed(const store_job *job, const image *im, uint64_t buffers, const survey_item *items, size_t n,
                            lamina_error *err)
{
    if (n == 0) return LAMINA_OK;
    survey s = {.job = job, .items = items, .n = n};
    s.states = mem_array(job->m, MEM_OTHER, n, sizeof *s.states, err);
    if (!s.states) return NO_MEMORY(err);
    for (size_t i = 0; i < n; i++) begin_state(job, &items[i], &s.states[i]);
    lamina_status status = sources_new(im, &s.sources, err);
    if (status == LAMINA_OK) status = run_survey(&s, buffers, err);
    sources_free(&s.sources);
    for (size_t i = 0; i < n && status == LAMINA_OK; i++)
        end_state(&s.states[items[i].like], items[i].target, items[i].t->type);
    mem_free(job->m, s.states);
    return status;
}

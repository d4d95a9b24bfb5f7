/* The survey: the fullest row of each tensor, and with it the form in which it is least.
 *
 * Owns a few threads that each take the next rows, read them and count. Rows of a packed tensor have one length, that of
 * the fullest, so that a row's place needs no index; the price is to read the tensors twice. Promises a result that
 * depends on neither threads nor buffers: it is a largest value. A tensor for which no form is left (an f32 that is no
 * widened half, bits without any pattern) is not read further. */
#include "store/survey.h"

#include <string.h>
#include <time.h>

#include "store/flow.h"
#include "store/recode.h"
#include "store/sources.h"

enum { FORMS = 3, SURVEY_BLOCK = 4 << 20 };

static const dtype form_types[FORMS] = {DT_BF16_PACKED3, DT_BF16_PACKED4, DT_F16_PACKED3};

typedef struct state { /* of a tensor, or of those like it */
    uint64_t columns, source_row;
    uint64_t room[FORMS]; /* the most escapes with which the form is worth it */
    uint64_t most[FORMS]; /* found so far; more than room: out */
} state;

typedef struct survey {
    const store_job *job;
    const survey_item *items;
    size_t n;
    state *states; /* [n]; used: those of the first of their like */
    sources sources;
    size_t buffer; /* bytes of a thread's, without two pages and a row of halves */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t next; /* item, and row of it, that nobody has taken */
    uint64_t next_row, done, total, bytes;
    uint32_t running;
    bool stop;
    lamina_status status;
    lamina_error error;
} survey;

typedef struct surveyor {
    survey *s;
    uint8_t *bounce, *half; /* [buffer + two pages], [2 columns] */
    pthread_t thread;
} surveyor;

typedef struct stretch { /* rows of an item */
    size_t item;
    uint64_t row, rows;
} stretch;

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

/* The next rows of the next tensor that has a form left; false: none is. The lock is held. */
static bool take(survey *s, stretch *out)
{
    for (; s->next < s->n; s->next++, s->next_row = 0) {
        const state *t = &s->states[s->items[s->next].like];
        uint64_t left = image_rows(s->items[s->next].t) - s->next_row, most = s->buffer / t->source_row;
        if (!any_open(t)) s->done += left * t->source_row;
        if (!any_open(t) || left == 0) continue;
        *out = (stretch){.item = s->next, .row = s->next_row, .rows = left < most ? left : most};
        s->next_row += out->rows;
        return true;
    }
    return false;
}

static lamina_status count_stretch(surveyor *w, const stretch *x, uint64_t *most, lamina_error *err)
{
    survey *s = w->s;
    const tensor *t = s->items[x->item].t;
    const state *a = &s->states[s->items[x->item].like];
    const uint8_t *at;
    TRY(sources_read(&s->sources, t->file, t->offset + x->row * a->source_row, (size_t)(x->rows * a->source_row),
                     w->bounce, &at, err));
    for (uint64_t i = 0; i < x->rows; i++) count_row(a, t->type, at + i * a->source_row, w->half, most);
    return LAMINA_OK;
}

static void *work(void *arg)
{
    surveyor *w = arg;
    survey *s = w->s;
    stretch x;
    pthread_mutex_lock(&s->lock);
    while (!s->stop && take(s, &x)) {
        state *t = &s->states[s->items[x.item].like];
        uint64_t most[FORMS];
        lamina_error error = {0};
        memcpy(most, t->most, sizeof most);
        pthread_mutex_unlock(&s->lock);
        lamina_status status = count_stretch(w, &x, most, &error);
        pthread_mutex_lock(&s->lock);
        for (int i = 0; i < FORMS; i++)
            if (most[i] > t->most[i]) t->most[i] = most[i];
        s->done += x.rows * t->source_row;
        s->bytes += x.rows * t->source_row;
        if (status != LAMINA_OK && !s->stop) {
            s->status = status;
            s->error = error;
            s->stop = true;
        }
    }
    s->running--;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the caller -------------------------------------------------------------------------------------------------- */

static lamina_status report(const survey *s, const lamina_progress *p, lamina_error *err)
{
    const store_job *job = s->job;
    if (job->cancel && atomic_load(job->cancel)) return error_set(err, LAMINA_E_CANCELLED, "cancelled");
    if (!job->progress || job->progress(job->progress_user, p)) return LAMINA_OK;
    return error_set(err, LAMINA_E_CANCELLED, "cancelled by the caller");
}

/* Waits for the threads, reporting; the lock is held and let go for each report. */
static void watch(survey *s, double began)
{
    while (s->running) {
        lamina_error error = {0};
        struct timespec until;
        timespec_get(&until, TIME_UTC);
        until.tv_nsec += 50 * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&s->changed, &s->lock, &until);
        lamina_progress p = {.phase = LAMINA_PHASE_SURVEY,
                             .unit = s->items[s->next < s->n ? s->next : s->n - 1].t->name,
                             .done = s->done,
                             .total = s->total,
                             .bytes = s->bytes,
                             .seconds = os_seconds() - began};
        pthread_mutex_unlock(&s->lock);
        lamina_status status = report(s, &p, &error);
        pthread_mutex_lock(&s->lock);
        if (status == LAMINA_OK || s->stop) continue;
        s->status = status;
        s->error = error;
        s->stop = true;
    }
}

static void run(survey *s, uint8_t *buffers, size_t own)
{
    surveyor workers[FLOW_THREADS];
    uint32_t n = 0;
    double began = os_seconds();
    pthread_mutex_lock(&s->lock);
    for (; n < FLOW_THREADS && !s->stop; n++) {
        uint8_t *bounce = buffers + n * own;
        workers[n] = (surveyor){.s = s, .bounce = bounce, .half = bounce + s->buffer + (size_t)(2 * SOURCE_PAGE)};
        int code = pthread_create(&workers[n].thread, NULL, work, &workers[n]);
        char reason[128];
        if (code) {
            s->status = error_set(&s->error, LAMINA_E_IO, "cannot start a thread: %s",
                                  os_error_text(code, reason, sizeof reason));
            s->stop = true;
            break;
        }
        s->running++;
    }
    watch(s, began);
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < n; i++) pthread_join(workers[i].thread, NULL);
}

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
    uint64_t each = (buffers ? buffers : FLOW_MEMORY) / FLOW_THREADS / page * page;
    if (each < half + 2 * page + least)
        return error_set(err, LAMINA_E_BUDGET, "memory: %llu bytes of buffers, packing needs at least %llu",
                         (unsigned long long)buffers, (unsigned long long)(FLOW_THREADS * (half + 2 * page + least)));
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
    uint8_t *pages = mem_pages(m, MEM_OTHER, FLOW_THREADS * own, err);
    if (!pages) return NO_MEMORY(err);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    run(s, pages, own);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    mem_pages_free(m, MEM_OTHER, pages, FLOW_THREADS * own);
    if (s->status != LAMINA_OK && err) *err = s->error;
    return s->status;
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

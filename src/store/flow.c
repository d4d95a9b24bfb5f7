/* The mover of bytes: one ring of blocks between a few threads and the caller.
 *
 * A block is a stretch of one file of the store, at most `block` bytes long. It passes through a slot of the ring:
 *
 *   FREE -> FILLING (a thread reads what belongs there) -> FULL -> hashed by the caller, in order
 *        -> READY -> DRAINING (a thread writes it) -> FREE
 *
 * Checking ends after the hash. Reading and writing overlap because every thread does whatever is next; writing goes
 * first, since it frees slots. Everything moves past the page cache where the file system can, so that packing a
 * large model evicts nobody's memory and a sync at the end of a file finds nothing left to do but metadata. Blocks of
 * the destination begin at multiples of the block's size; what they are made of lies anywhere in the sources, so it is
 * read into a thread's own aligned buffer and copied from there; fill() is also where bytes change on their way, see
 * recode.h. The thread that writes a file's last block finishes the file: exact size, sync, rename, journal. */
#include "store/flow.h"

#include <string.h>
#include <time.h>

#define XXH_STATIC_LINKING_ONLY /* the size of a hash's state */
#include <xxhash.h>

#include "store/crew.h"
#include "store/recode.h"
#include "store/sources.h"

enum {
    PAGE = SOURCE_PAGE,
    LARGEST_BLOCK = 4 << 20,
    GOOD_BLOCK = 1 << 20, /* below it rather fewer threads than smaller blocks */
    SPARE_SLOTS = 8,      /* beside one for each thread */
    STACK = 128 << 10     /* what a thread touches of it, at most */
};

typedef enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_FULL, SLOT_READY, SLOT_DRAINING } slot_state;

typedef struct slot {
    slot_state state;
    uint8_t *data; /* [block] page-aligned */
    size_t at;     /* index into the run's files */
    uint64_t offset;
    size_t bytes;
} slot;

typedef struct moving { /* a file under way */
    os_file file;       /* the store's file: being written or checked */
    char *path, *part;  /* final name; name while written */
    char *header;
    uint64_t left; /* bytes not yet written (or, checking, not yet read) */
    bool made;     /* the temporary file exists */
    bool ready;    /* open: threads may claim its blocks */
} moving;

struct flow {
    const store_job *job;
    image *im;
    journal *j;
    size_t block, scratch;
    uint32_t n_threads, n_slots;
    uint8_t *buffers; /* [(n_slots + n_threads) * block, and two pages and scratch for each thread] */
    size_t buffers_bytes;
    double began, reported;
    uint64_t moved[2]; /* by mode: hashed so far, all runs */
    XXH3_state_t *hash;
    /* one run */
    flow_mode mode;
    const uint32_t *files;
    size_t n_files;
    moving *moving; /* [n_files] */
    sources sources;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    slot slots[CREW_MOST + SPARE_SLOTS];
    uint64_t claimed; /* blocks given to threads so far: the next goes to slot claimed % n_slots */
    size_t next_file;
    uint64_t next_offset;
    size_t finished; /* files */
    bool stop;
    lamina_status status;
    lamina_error error;
};

typedef struct worker {
    flow *f;
    uint8_t *bounce; /* [block + two pages] */
    recoder recoder;
    pthread_t thread;
} worker;

/* Blocks hold whole rows of what is recoded, so that these can be read; the longest decides the least. */
static lamina_status divide(flow *f, uint64_t buffers, lamina_error *err)
{
    uint64_t row, own = (recoder_bytes(f->im, &row) + PAGE - 1) / PAGE * PAGE + 2 * PAGE;
    uint64_t whole = (row + PAGE - 1) / PAGE * PAGE, good = whole > GOOD_BLOCK ? whole : GOOD_BLOCK;
    uint64_t spare = SPARE_SLOTS * good;
    f->n_threads = crew_threads(f->job, buffers > spare ? buffers - spare : 0, own + 2 * good + STACK);
    f->n_slots = f->n_threads + SPARE_SLOTS;
    uint64_t blocks = f->n_slots + f->n_threads, least = f->n_threads * own + blocks * whole;
    if (least < FLOW_LEAST_MEMORY) least = FLOW_LEAST_MEMORY;
    if (buffers < least)
        return error_set(err, LAMINA_E_BUDGET, "memory: %llu bytes of buffers, packing needs at least %llu",
                         (unsigned long long)buffers, (unsigned long long)least);
    uint64_t block = (buffers - f->n_threads * own) / blocks / PAGE * PAGE;
    uint64_t most = row <= LARGEST_BLOCK ? LARGEST_BLOCK : whole; /* more is no faster */
    if (block > most) block = most;
    f->block = (size_t)block;
    f->scratch = (size_t)own - 2 * PAGE;
    f->buffers_bytes = (size_t)(blocks * block + f->n_threads * own);
    return LAMINA_OK;
}

static lamina_status reserve(flow *f, uint64_t buffers, lamina_error *err)
{
    TRY(divide(f, buffers, err));
    f->buffers = mem_pages(f->job->m, MEM_OTHER, f->buffers_bytes, err);
    f->hash = f->buffers ? mem_alloc(f->job->m, MEM_OTHER, sizeof *f->hash, err) : NULL;
    if (!f->hash) return NO_MEMORY(err);
    for (size_t i = 0; i < f->n_slots; i++) f->slots[i].data = f->buffers + i * f->block;
    return LAMINA_OK;
}

lamina_status flow_new(const store_job *job, uint64_t buffers, image *im, journal *j, flow **out, lamina_error *err)
{
    *out = NULL;
    flow *f = mem_alloc(job->m, MEM_OTHER, sizeof *f, err);
    if (!f) return NO_MEMORY(err);
    f->job = job;
    f->im = im;
    f->j = j;
    lamina_status status = reserve(f, buffers ? buffers : FLOW_MEMORY, err);
    if (status != LAMINA_OK) {
        flow_free(f);
        return status;
    }
    f->began = os_seconds();
    *out = f;
    return LAMINA_OK;
}

void flow_free(flow *f)
{
    if (!f) return;
    memory *m = f->job->m;
    mem_free(m, f->hash);
    if (f->buffers) mem_pages_free(m, MEM_OTHER, f->buffers, f->buffers_bytes);
    mem_free(m, f);
}

uint64_t flow_bytes(const flow *f, flow_mode mode)
{
    return f->moved[mode];
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* The first tensor of the file that ends after `offset`. */
static size_t tensor_at(const image *im, const image_file *file, uint64_t offset)
{
    size_t low = file->first, high = file->first + file->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (im->tensors[middle].t.offset + im->tensors[middle].t.bytes <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Bytes [from, from + bytes) of what a tensor becomes, of rows that are read in batches. A row of which the block has a
 * part is made whole beside it, and again for its other part. */
static lamina_status fill_recoded(flow *f, image_tensor *x, uint64_t from, uint64_t bytes, uint8_t *to, worker *w,
                                  lamina_error *err)
{
    uint64_t row_bytes = tensor_row_bytes(&x->t, image_columns(&x->t)), source_row = image_source_row(x);
    uint64_t row = from / row_bytes, end = from + bytes, batch = f->block / source_row;
    for (uint64_t n = (end - 1) / row_bytes + 1 - row; n;) {
        uint64_t rows = n < batch ? n : batch;
        const uint8_t *at;
        TRY(sources_read(&f->sources, x->source, x->source_offset + row * source_row, (size_t)(rows * source_row),
                         w->bounce, &at, err));
        n -= rows;
        for (; rows; rows--, row++, at += source_row) {
            uint64_t begin = row * row_bytes;
            bool whole = begin >= from && begin + row_bytes <= end;
            uint8_t *place = whole ? to + (begin - from) : w->recoder.row;
            quantize_cost before = w->recoder.cost;
            TRY(recode_row(&w->recoder, x, row, at, place, err));
            if (whole) continue;
            if (begin < from) w->recoder.cost = before; /* counted with its first part */
            uint64_t skip = begin < from ? from - begin : 0, upto = begin + row_bytes > end ? end - begin : row_bytes;
            memcpy(to + (begin + skip - from), place + skip, (size_t)(upto - skip));
        }
    }
    pthread_mutex_lock(&f->lock);
    x->error += w->recoder.cost.error;
    x->power += w->recoder.cost.power;
    pthread_mutex_unlock(&f->lock);
    w->recoder.cost = (quantize_cost){0};
    return LAMINA_OK;
}

/* Makes the block's bytes: header, then pieces of tensors from wherever they lie. */
static lamina_status fill(flow *f, slot *s, worker *w, lamina_error *err)
{
    const image *im = f->im;
    const image_file *file = &im->files[f->files[s->at]];
    uint64_t at = s->offset, end = s->offset + s->bytes;
    moving *v = &f->moving[s->at];
    if (f->mode == FLOW_CHECK) return source_copy(&v->file, v->path, at, s->bytes, w->bounce, s->data, err);
    if (at < file->header_bytes) {
        uint64_t upto = end < file->header_bytes ? end : file->header_bytes;
        memcpy(s->data, v->header + at, (size_t)(upto - at));
        at = upto;
    }
    for (size_t i = tensor_at(im, file, at); at < end; i++) {
        image_tensor *x = &im->tensors[i];
        uint64_t skip = at - x->t.offset, piece = x->t.bytes - skip;
        uint8_t *to = s->data + (at - s->offset);
        if (piece > end - at) piece = end - at;
        if (piece == 0) continue;
        if (recode_kind_of(x) == RECODE_NONE)
            TRY(sources_copy(&f->sources, x->source, x->source_offset + skip, (size_t)piece, w->bounce, to, err));
        else
            TRY(fill_recoded(f, x, skip, piece, to, w, err));
        at += piece;
    }
    return LAMINA_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static lamina_status drain(flow *f, slot *s, lamina_error *err)
{
    moving *v = &f->moving[s->at];
    size_t bytes = s->bytes;
    if (v->file.direct) {
        bytes = (bytes + PAGE - 1) / PAGE * PAGE; /* the end is cut to size when the file is finished */
        memset(s->data + s->bytes, 0, bytes - s->bytes);
    }
    store_step(f->job);
    TRY(os_write_at(&v->file, v->part, s->offset, s->data, bytes, err));
    if (!v->file.direct) os_write_behind(&v->file, s->offset, bytes);
    return LAMINA_OK;
}

static lamina_status finish(flow *f, size_t at, lamina_error *err)
{
    moving *v = &f->moving[at];
    uint32_t index = f->files[at];
    store_step(f->job);
    TRY(os_truncate(&v->file, v->part, f->im->files[index].bytes, err));
    store_step(f->job);
    TRY(os_sync(&v->file, v->part, err));
    if (!v->file.direct) os_drop_cache(&v->file, 0, f->im->files[index].bytes);
    os_close(&v->file);
    store_step(f->job);
    TRY(os_rename(v->part, v->path, err));
    v->made = false;
    return journal_written(f->j, f->im, index, err);
}

/* ---- the threads --------------------------------------------------------------------------------------------- */

/* The first failure ends the run; the lock is held. */
static void stop(flow *f, lamina_status status, const lamina_error *error)
{
    if (f->status == LAMINA_OK) {
        f->status = status;
        f->error = *error;
    }
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
}

/* The oldest that waits to be written. */
static slot *ready_slot(flow *f)
{
    for (uint64_t i = 0; i < f->n_slots; i++) {
        slot *s = &f->slots[(f->claimed + i) % f->n_slots];
        if (s->state == SLOT_READY) return s;
    }
    return NULL;
}

/* The next block into the next slot of the ring, if both are there. */
static slot *claim(flow *f)
{
    slot *s = &f->slots[f->claimed % f->n_slots];
    if (f->next_file == f->n_files || s->state != SLOT_FREE) return NULL;
    if (!f->moving[f->next_file].ready) return NULL; /* the caller has not opened it yet */
    uint64_t left = f->im->files[f->files[f->next_file]].bytes - f->next_offset;
    s->at = f->next_file;
    s->offset = f->next_offset;
    s->bytes = left < f->block ? (size_t)left : f->block;
    s->state = SLOT_FILLING;
    f->claimed++;
    f->next_offset += s->bytes;
    if (s->bytes == left) {
        f->next_file++;
        f->next_offset = 0;
    }
    return s;
}

static void write_slot(flow *f, slot *s)
{
    lamina_error error = {0};
    s->state = SLOT_DRAINING;
    pthread_mutex_unlock(&f->lock);
    lamina_status status = drain(f, s, &error);
    pthread_mutex_lock(&f->lock);
    moving *v = &f->moving[s->at];
    size_t at = s->at;
    v->left -= s->bytes;
    bool last = v->left == 0 && status == LAMINA_OK && !f->stop;
    s->state = SLOT_FREE;
    pthread_cond_broadcast(&f->changed);
    if (last) {
        pthread_mutex_unlock(&f->lock);
        status = finish(f, at, &error);
        pthread_mutex_lock(&f->lock);
        if (status == LAMINA_OK) {
            f->im->files[f->files[at]].written = true;
            f->finished++;
        }
        pthread_cond_broadcast(&f->changed);
    }
    if (status != LAMINA_OK) stop(f, status, &error);
}

static void *work(void *arg)
{
    worker *w = arg;
    flow *f = w->f;
    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        slot *s = ready_slot(f);
        if (s) {
            write_slot(f, s);
            continue;
        }
        s = claim(f);
        if (!s) {
            pthread_cond_wait(&f->changed, &f->lock);
            continue;
        }
        lamina_error error = {0};
        pthread_mutex_unlock(&f->lock);
        lamina_status status = fill(f, s, w, &error);
        pthread_mutex_lock(&f->lock);
        s->state = SLOT_FULL;
        if (status != LAMINA_OK) stop(f, status, &error);
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- the caller ---------------------------------------------------------------------------------------------- */

static lamina_status report(flow *f, size_t at, uint64_t total, bool now, lamina_error *err)
{
    const store_job *job = f->job;
    if (job->cancel && atomic_load(job->cancel)) return error_set(err, LAMINA_E_CANCELLED, "cancelled");
    double t = os_seconds();
    if (!job->progress || (!now && t - f->reported < 0.05)) return LAMINA_OK;
    f->reported = t;
    lamina_progress p = {
        .phase = f->mode == FLOW_WRITE ? LAMINA_PHASE_PACK : LAMINA_PHASE_VERIFY,
        .unit = f->im->files[f->files[at]].name,
        .done = f->moved[f->mode],
        .total = total,
        .bytes = f->moved[FLOW_WRITE] + f->moved[FLOW_CHECK],
        .seconds = t - f->began,
    };
    return job->progress(job->progress_user, &p) ? LAMINA_OK
                                                 : error_set(err, LAMINA_E_CANCELLED, "cancelled by the caller");
}

/* Waits a little; the lock is held. */
static void wait_a_moment(flow *f)
{
    struct timespec until;
    timespec_get(&until, TIME_UTC);
    until.tv_nsec += 50 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&f->changed, &f->lock, &until);
}

static lamina_status begin_check(flow *f, moving *v, const image_file *file, lamina_error *err)
{
    bool exists;
    os_identity id;
    TRY(os_identify(v->path, true, &exists, &id, err));
    if (!exists) return error_set(err, LAMINA_E_CORRUPT, "%s: is missing", v->path);
    if (id.bytes != file->bytes)
        return error_set(err, LAMINA_E_CORRUPT, "%s: %llu bytes expected, %llu found", v->path,
                         (unsigned long long)file->bytes, (unsigned long long)id.bytes);
    store_step(f->job);
    TRY(os_open(v->path, OS_DIRECT, &v->file, err));
    if (!v->file.direct) os_drop_cache(&v->file, 0, file->bytes);
    return LAMINA_OK;
}

static lamina_status begin_write(flow *f, size_t at, lamina_error *err)
{
    moving *v = &f->moving[at];
    uint32_t index = f->files[at];
    text header = {.m = f->job->m, .err = err};
    lamina_status status = image_header(f->im, index, &header);
    v->header = header.data;
    TRY(status);
    if (header.bytes != f->im->files[index].header_bytes)
        return error_set(err, LAMINA_E_FORMAT, "%s: its header has %zu bytes, the draft says %llu", v->path,
                         header.bytes, (unsigned long long)f->im->files[index].header_bytes);
    const image_file *file = &f->im->files[index];
    for (size_t i = file->first; i < file->first + file->n_tensors; i++)
        f->im->tensors[i].error = f->im->tensors[i].power = 0;
    store_step(f->job);
    TRY(os_create_direct(v->part, &v->file, err));
    v->made = true;
    return LAMINA_OK;
}

/* Opens file `at` of the run and lets the threads at it. */
static lamina_status begin(flow *f, size_t at, lamina_error *err)
{
    moving *v = &f->moving[at];
    const image_file *file = &f->im->files[f->files[at]];
    v->path = store_join(f->job->m, f->im->path, file->name, err);
    if (!v->path) return NO_MEMORY(err);
    size_t n = strlen(v->path);
    v->part = mem_alloc(f->job->m, MEM_OTHER, n + sizeof ".part", err);
    if (!v->part) return NO_MEMORY(err);
    memcpy(v->part, v->path, n);
    memcpy(v->part + n, ".part", sizeof ".part");
    v->left = file->bytes;
    TRY(f->mode == FLOW_WRITE ? begin_write(f, at, err) : begin_check(f, v, file, err));
    pthread_mutex_lock(&f->lock);
    v->ready = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return LAMINA_OK;
}

static void end(flow *f, moving *v)
{
    memory *m = f->job->m;
    os_close(&v->file);
    if (v->made) (void)os_remove(v->part, NULL); /* incomplete: its space is better free */
    mem_free(m, v->header);
    mem_free(m, v->path);
    mem_free(m, v->part);
    *v = (moving){.file = {.fd = -1}};
}

/* After the hash of a file's last block: the sum is kept or compared. */
static lamina_status conclude(flow *f, size_t at, lamina_error *err)
{
    image_file *file = &f->im->files[f->files[at]];
    uint64_t sum = XXH3_64bits_digest(f->hash);
    if (f->mode == FLOW_WRITE) {
        file->xxh3 = sum;
        return LAMINA_OK;
    }
    if (sum != file->xxh3) {
        if (f->j && file->n_tensors) (void)os_remove(f->moving[at].path, NULL); /* the next run makes it again */
        return error_set(err, LAMINA_E_CORRUPT, "%s: checksum %016llx expected, %016llx found", f->moving[at].path,
                         (unsigned long long)file->xxh3, (unsigned long long)sum);
    }
    file->verified = true;
    if (f->j) TRY(journal_verified(f->j, f->im, f->files[at], err));
    f->finished++;
    end(f, &f->moving[at]);
    return LAMINA_OK;
}

/* Hashes block number `block` once it is there; *at: its file. */
static lamina_status take(flow *f, uint64_t block, size_t *at, uint64_t total, lamina_error *err)
{
    slot *s = &f->slots[block % f->n_slots];
    pthread_mutex_lock(&f->lock);
    while (!f->stop && !(s->state == SLOT_FULL && f->claimed > block)) {
        wait_a_moment(f);
        pthread_mutex_unlock(&f->lock);
        TRY(report(f, *at, total, false, err));
        pthread_mutex_lock(&f->lock);
    }
    lamina_status status = f->status;
    bool stopped = f->stop;
    pthread_mutex_unlock(&f->lock);
    if (stopped) return status;
    *at = s->at;
    if (s->offset == 0) XXH3_64bits_reset(f->hash);
    XXH3_64bits_update(f->hash, s->data, s->bytes);
    f->moved[f->mode] += s->bytes;
    if (s->offset + s->bytes == f->im->files[f->files[s->at]].bytes) TRY(conclude(f, s->at, err));
    pthread_mutex_lock(&f->lock);
    s->state = f->mode == FLOW_WRITE ? SLOT_READY : SLOT_FREE;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return report(f, *at, total, false, err);
}

/* The caller's part: opens files a little ahead, hashes block after block, waits for the last to be finished. */
static lamina_status conduct(flow *f, uint64_t total, lamina_error *err)
{
    size_t begun = 0, at = 0;
    uint64_t block = 0;
    for (size_t i = 0; i < f->n_files; i++) {
        for (; begun < f->n_files && begun <= i + 2; begun++) TRY(begin(f, begun, err));
        uint64_t bytes = f->im->files[f->files[i]].bytes;
        for (uint64_t done = 0; done < bytes; done += f->block) TRY(take(f, block++, &at, total, err));
    }
    for (;;) {
        pthread_mutex_lock(&f->lock);
        bool over = f->finished == f->n_files || f->stop;
        lamina_status status = f->status;
        if (!over) wait_a_moment(f);
        pthread_mutex_unlock(&f->lock);
        if (status != LAMINA_OK) return status;
        TRY(report(f, at, total, over, err));
        if (over) return LAMINA_OK;
    }
}

static lamina_status run_threads(flow *f, uint64_t total, lamina_error *err)
{
    worker workers[CREW_MOST];
    uint32_t n = 0;
    lamina_error first = {0};
    lamina_status status = LAMINA_OK;
    for (; n < f->n_threads && status == LAMINA_OK; n++) {
        uint8_t *bounce = f->buffers + f->n_slots * f->block + n * (f->block + (size_t)(2 * PAGE) + f->scratch);
        workers[n] = (worker){.f = f, .bounce = bounce};
        recoder_place(&workers[n].recoder, f->job, &f->sources, f->im, bounce + f->block + (size_t)(2 * PAGE));
        int code = pthread_create(&workers[n].thread, NULL, work, &workers[n]);
        char reason[128];
        if (code) {
            status =
                error_set(&first, LAMINA_E_IO, "cannot start a thread: %s", os_error_text(code, reason, sizeof reason));
            break;
        }
    }
    if (status == LAMINA_OK) status = conduct(f, total, &first);
    pthread_mutex_lock(&f->lock);
    stop(f, status, &first);
    pthread_mutex_unlock(&f->lock);
    for (uint32_t i = 0; i < n; i++) pthread_join(workers[i].thread, NULL);
    if (f->status != LAMINA_OK && err) *err = f->error;
    return f->status;
}

lamina_status flow_run(flow *f, flow_mode mode, const uint32_t *files, size_t n, uint64_t total, lamina_error *err)
{
    if (n == 0) return LAMINA_OK;
    memory *m = f->job->m;
    f->mode = mode;
    f->files = files;
    f->n_files = n;
    f->claimed = f->next_file = f->next_offset = f->finished = 0;
    f->stop = false;
    f->status = LAMINA_OK;
    for (uint32_t i = 0; i < f->n_slots; i++) f->slots[i].state = SLOT_FREE;
    f->moving = mem_array(m, MEM_OTHER, n, sizeof *f->moving, err);
    lamina_status status = f->moving ? sources_new(f->im, &f->sources, err) : NO_MEMORY(err);
    if (status != LAMINA_OK) {
        mem_free(m, f->moving);
        return status;
    }
    for (size_t i = 0; i < n; i++) f->moving[i].file.fd = -1;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    status = run_threads(f, total, err);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    for (size_t i = 0; i < n; i++) end(f, &f->moving[i]);
    sources_free(&f->sources);
    mem_free(m, f->moving);
    return status;
}

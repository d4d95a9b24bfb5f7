/* Owns what all readers share: the files, the choice of the engine, the rule for what to do with a system call's
 * result, and faults on purpose. Promises that a request comes back exactly once, either with at least `needed` bytes
 * or with an error. The engines only move bytes, so that they cannot differ in what they retry or report. */
#include "stream/reader_engine.h"

#include <errno.h>
#include <stdio.h>

enum { MOST_TRIES = 100 }; /* without progress; a disk that says "again" for longer is broken */

static void note(reader *r, const char *text, const char *detail)
{
    size_t used = 0;
    while (used < sizeof r->note && r->note[used]) used++;
    snprintf(r->note + used, sizeof r->note - used, "%s%s%.200s", used ? "; " : "", text, detail);
}

bool reader_step(read_request *q, int64_t result, bool direct)
{
    if (result == -EINTR || result == -EAGAIN || result == -ECANCELED) {
        if (result != -EINTR) {
            if (++q->tries >= MOST_TRIES) return q->error = EIO, true;
            os_sleep_us(100 * q->tries);
        }
        return false;
    }
    if (result < 0) return q->error = (int)-result, true;
    uint32_t got = (uint32_t)result;
    if (q->cut_short && got > 0) { /* as if the system had stopped half way; what follows is not to be trusted */
        q->cut_short = false;
        unsigned char *rest = (unsigned char *)q->data + q->done + got / 2;
        for (uint32_t i = 0; i < got - got / 2; i++) rest[i] = 0xA5;
        got /= 2;
        if (got == 0) return false;
    }
    uint32_t arrived = q->done + got;
    if (arrived >= q->needed) return q->done = arrived, true;
    /* Past the page cache a read restarts at a block, so less than a block is no progress: at the end of a file it
     * comes back the same for ever. */
    uint32_t keep = direct ? arrived / READ_ALIGN * READ_ALIGN : arrived;
    if (keep == q->done && (got == 0 || ++q->tries >= 8)) {
        q->done = arrived;
        q->ended = true;
        return q->error = EIO, true;
    }
    q->done = keep;
    return false;
}

static lamina_status open_files(reader *r, lamina_error *err)
{
    const reader_config *c = &r->config;
    r->files = mem_array(c->m, MEM_OTHER, c->n_files, sizeof *r->files, err);
    if (!r->files) return LAMINA_E_MEMORY;
    for (uint32_t i = 0; i < c->n_files; i++) r->files[i].main.fd = r->files[i].plain.fd = -1;
    unsigned how = c->io == LAMINA_IO_BUFFERED ? OS_READ : OS_DIRECT;
    bool said = c->io == LAMINA_IO_BUFFERED;
    for (uint32_t i = 0; i < c->n_files; i++) {
        TRY(os_open(c->paths[i], how, &r->files[i].main, err));
        if (!r->files[i].main.direct && !said) {
            note(r, "no direct I/O here, reading through the page cache: ", c->paths[i]);
            said = true;
        }
    }
    return LAMINA_OK;
}

static lamina_status start_engine(reader *r, lamina_error *err)
{
    lamina_io io = r->config.io;
    if (io == LAMINA_IO_AUTO || io == LAMINA_IO_URING) {
        lamina_error why = {0};
        r->engine = &reader_engine_uring;
        lamina_status status = r->engine->start(r, &why);
        if (status == LAMINA_OK) return status;
        r->engine = NULL;
        if (status != LAMINA_E_UNSUPPORTED) return error_set(err, status, "%s", why.text);
        note(r, "reading with threads: ", why.text);
    }
    r->engine = &reader_engine_pread;
    lamina_status status = r->engine->start(r, err);
    if (status != LAMINA_OK) r->engine = NULL;
    return status;
}

lamina_status reader_new(const reader_config *config, reader **out, lamina_error *err)
{
    *out = NULL;
    reader *r = mem_alloc(config->m, MEM_OTHER, sizeof *r, err);
    if (!r) return LAMINA_E_MEMORY;
    r->config = *config;
    lamina_status status = open_files(r, err);
    if (status == LAMINA_OK) status = start_engine(r, err);
    if (status != LAMINA_OK) {
        reader_free(r);
        return status;
    }
    *out = r;
    return LAMINA_OK;
}

void reader_free(reader *r)
{
    if (!r) return;
    while (r->engine && reader_wait(r, true)) continue;
    if (r->engine) r->engine->stop(r);
    for (uint32_t i = 0; r->files && i < r->config.n_files; i++) {
        if (r->files[i].main.fd >= 0) os_close(&r->files[i].main);
        if (r->files[i].plain.fd >= 0) os_close(&r->files[i].plain);
    }
    mem_free(r->config.m, r->files);
    mem_free(r->config.m, r);
}

const char *reader_name(const reader *r)
{
    return r->config.io == LAMINA_IO_BUFFERED ? "buffered" : r->engine->name;
}

const char *reader_note(const reader *r)
{
    return r->note;
}

uint32_t reader_in_flight(const reader *r)
{
    return r->in_flight;
}

static void make_late(reader *r, read_request *q)
{
    q->due = q->submitted + 1e-6 * r->config.faults.read_delay_us;
    q->next = r->late;
    r->late = q;
}

void reader_submit(reader *r, read_request *q)
{
    const lamina_faults *faults = &r->config.faults;
    q->done = q->tries = 0;
    q->error = 0;
    q->ended = false;
    q->plain = r->files[q->file].plain.fd >= 0;
    q->submitted = os_seconds();
    r->in_flight++;
    r->n_reads++;
    q->cut_short = faults->short_read_every && r->n_reads % faults->short_read_every == 0;
    if (faults->fail_read && r->n_reads == faults->fail_read) {
        q->error = EIO;
        make_late(r, q);
        return;
    }
    r->engine->submit(r, q);
}

void reader_flush(reader *r)
{
    r->engine->flush(r);
}

/* Some file systems accept O_DIRECT and then refuse the reads. true: q is under way again, through the page cache. */
static bool fall_back(reader *r, read_request *q)
{
    reader_file *f = &r->files[q->file];
    if (q->error != EINVAL || q->plain || !f->main.direct) return false;
    if (f->plain.fd < 0) {
        if (os_open(r->config.paths[q->file], OS_READ, &f->plain, NULL) != LAMINA_OK) return f->plain.fd = -1, false;
        note(r, "direct reads are refused, reading through the page cache: ", r->config.paths[q->file]);
    }
    q->plain = true;
    q->error = 0;
    q->done = q->tries = 0;
    r->engine->submit(r, q);
    r->engine->flush(r);
    return true;
}

/* The late request that is due first, unlinked if it is due by now. */
static read_request *take_due(reader *r, double now, double *next_due)
{
    read_request **first = NULL;
    for (read_request **at = &r->late; *at; at = &(*at)->next)
        if (!first || (*at)->due < (*first)->due) first = at;
    if (!first) return NULL;
    read_request *q = *first;
    *next_due = q->due;
    if (q->due > now) return NULL;
    *first = q->next;
    if (q->completed < q->due) q->completed = q->due;
    return q;
}

read_request *reader_wait(reader *r, bool block)
{
    while (r->in_flight > 0) {
        double now = r->late ? os_seconds() : 0, due = 0;
        read_request *q = r->late ? take_due(r, now, &due) : NULL;
        if (!q) {
            q = r->engine->wait(r, block && !r->late);
            if (!q && !block) return NULL;
            if (!q) { /* only late ones: the disk is being slow */
                if (due > now) os_sleep_us((uint32_t)((due - now) * 1e6) + 1);
                continue;
            }
            if (q->error && fall_back(r, q)) continue;
            const os_file *file = reader_file_of(r, q);
            if (!file->direct) os_drop_cache(file, q->offset, q->done);
            if (r->config.faults.read_delay_us) {
                make_late(r, q);
                continue;
            }
        }
        r->in_flight--;
        return q;
    }
    return NULL;
}

/* The io_uring engine: one thread, the owner, queues reads and collects completions; the kernel does the rest, also
 * while the owner computes. Files are registered, and the ring's memory too where the limit on locked memory allows,
 * which saves pinning 512 pages for each read.
 *
 * Completions are run cooperatively (at the owner's next system call or clock tick) instead of interrupting kernels.
 * IORING_SETUP_SINGLE_ISSUER and DEFER_TASKRUN are left alone: they bind a ring to the thread that made it, and an
 * engine may be handed from thread to thread. */
#include "stream/reader_engine.h"

#include <errno.h>
#include <liburing.h>

enum { SEGMENT_BYTES = 512 << 20, MOST_SEGMENTS = 64 }; /* the kernel registers at most 1 GiB in one piece */

typedef struct uring {
    struct io_uring ring;
    uint32_t flying;
    bool files_fixed, tried_memory;
    unsigned n_segments; /* of the fixed memory; 0: not registered */
} uring;

/* IORING_OP_READ came with Linux 5.6; before that there is nothing to ask either. */
static bool can_read(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    if (!probe) return false;
    bool ok =
        io_uring_opcode_supported(probe, IORING_OP_READ) && io_uring_opcode_supported(probe, IORING_OP_READ_FIXED);
    io_uring_free_probe(probe);
    return ok;
}

static int open_ring(struct io_uring *ring, unsigned entries)
{
    static const unsigned flags[] = {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
    int code = -ENOSYS;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        struct io_uring_params p = {.flags = flags[i] | IORING_SETUP_CLAMP};
        code = io_uring_queue_init_params(entries, ring, &p);
        if (code != -EINVAL) break;
    }
    return code;
}

static void register_files(reader *r, uring *u)
{
    uint32_t n = r->config.n_files;
    int *fds = mem_array(r->config.m, MEM_OTHER, n, sizeof *fds, NULL);
    if (!fds) return;
    for (uint32_t i = 0; i < n; i++) fds[i] = r->files[i].main.fd;
    u->files_fixed = io_uring_register_files(&u->ring, fds, n) == 0;
    mem_free(r->config.m, fds);
}

static lamina_status uring_start(reader *r, lamina_error *err)
{
    uring *u = mem_alloc(r->config.m, MEM_OTHER, sizeof *u, err);
    if (!u) return LAMINA_E_MEMORY;
    int code = open_ring(&u->ring, r->config.depth ? r->config.depth : 1);
    if (code != 0) {
        mem_free(r->config.m, u);
        char text[128];
        return error_set(err, LAMINA_E_UNSUPPORTED, "io_uring is not permitted here (%s)",
                         os_error_text(-code, text, sizeof text));
    }
    if (!can_read(&u->ring)) {
        io_uring_queue_exit(&u->ring);
        mem_free(r->config.m, u);
        return error_set(err, LAMINA_E_UNSUPPORTED, "this kernel's io_uring is too old");
    }
    register_files(r, u);
    r->state = u;
    return LAMINA_OK;
}

static void uring_stop(reader *r)
{
    uring *u = r->state;
    io_uring_queue_exit(&u->ring);
    mem_free(r->config.m, u);
    r->state = NULL;
}

/* Done when the first reads are under way, so that it costs the start nothing. Not being allowed to is no fault. */
static void register_memory(reader *r, uring *u)
{
    u->tried_memory = true;
    size_t bytes = r->config.fixed_bytes, segment = SEGMENT_BYTES;
    if (!r->config.fixed || bytes == 0 || bytes / segment >= MOST_SEGMENTS) return;
    struct iovec pieces[MOST_SEGMENTS];
    unsigned n = 0;
    for (size_t at = 0; at < bytes; at += segment, n++)
        pieces[n] = (struct iovec){(unsigned char *)r->config.fixed + at, bytes - at < segment ? bytes - at : segment};
    if (io_uring_register_buffers(&u->ring, pieces, n) == 0) u->n_segments = n;
}

/* The registered segment that holds [p, p + bytes), or -1. */
static int segment_of(const reader *r, const uring *u, const void *p, size_t bytes)
{
    uintptr_t begin = (uintptr_t)r->config.fixed, at = (uintptr_t)p;
    if (u->n_segments == 0 || at < begin || at - begin >= r->config.fixed_bytes) return -1;
    if (r->config.fixed_bytes - (at - begin) < bytes) return -1;
    size_t first = (at - begin) / SEGMENT_BYTES, last = (at - begin + bytes - 1) / SEGMENT_BYTES;
    return first == last ? (int)first : -1;
}

static void queue(reader *r, uring *u, read_request *q)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&u->ring)))
        if (io_uring_submit(&u->ring) < 0) os_sleep_us(100);
    const os_file *file = reader_file_of(r, q);
    bool fixed_file = u->files_fixed && !q->plain;
    int fd = fixed_file ? (int)q->file : file->fd;
    unsigned char *to = (unsigned char *)q->data + q->done;
    unsigned bytes = q->bytes - q->done;
    int segment = segment_of(r, u, to, bytes);
    if (segment >= 0)
        io_uring_prep_read_fixed(sqe, fd, to, bytes, q->offset + q->done, segment);
    else
        io_uring_prep_read(sqe, fd, to, bytes, q->offset + q->done);
    if (fixed_file) io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, q);
}

static void uring_submit(reader *r, read_request *q)
{
    uring *u = r->state;
    u->flying++;
    queue(r, u, q);
}

/* What the kernel does not take now stays queued and goes with the next call. */
static void uring_flush(reader *r)
{
    uring *u = r->state;
    if (io_uring_sq_ready(&u->ring) > 0) io_uring_submit(&u->ring);
}

static read_request *uring_wait(reader *r, bool block)
{
    uring *u = r->state;
    while (u->flying > 0) {
        struct io_uring_cqe *cqe = NULL;
        if (io_uring_peek_cqe(&u->ring, &cqe) != 0 || !cqe) {
            uring_flush(r);
            if (!block) return NULL;
            if (!u->tried_memory) {
                register_memory(r, u);
                continue;
            }
            int code = io_uring_submit_and_wait(&u->ring, 1);
            if (code < 0 && code != -EINTR) os_sleep_us(100);
            continue;
        }
        read_request *q = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        if (reader_step(q, result, reader_file_of(r, q)->direct)) {
            q->completed = os_seconds();
            u->flying--;
            return q;
        }
        queue(r, u, q);
        uring_flush(r);
    }
    return NULL;
}

const reader_engine reader_engine_uring = {
    .name = "io_uring",
    .start = uring_start,
    .submit = uring_submit,
    .flush = uring_flush,
    .wait = uring_wait,
    .stop = uring_stop,
};

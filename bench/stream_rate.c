/* How much of the device the stream delivers. `stream_rate FILE [CHUNK_KIB [RING_MIB [SECONDS [PIN_PERCENT]]]]`
 * takes any large file as a model of bf16 rows and alternates the ceiling (stream_measure) with passes, whose consumer
 * first does nothing and then touches every byte. No test: a disk of unknown speed and other users is no basis for a
 * verdict. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stream/stream.h"

enum { ROW_BYTES = 6144, MATRIX_ROWS = 8192, MOST_MATRICES = 4096 };

typedef struct bench {
    stream *s;
    double seconds;
    volatile uint64_t sum;
} bench;

static void touch(bench *b, const stream_chunk *c)
{
    const unsigned char *p = c->data;
    uint64_t sum = 0, word;
    for (uint64_t i = 0; i + sizeof word <= c->n_rows * ROW_BYTES; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        sum += word;
    }
    b->sum += sum;
}

/* Bytes a second taken in a steady state: the clock starts when twice the ring has gone by. */
static double run(bench *b, bool touching, double *stalled, lamina_error *err)
{
    stream_stats before = {0}, after;
    stream_chunk c;
    double begin = 0, now = 0;
    stream_reset_stats(b->s);
    for (stream_begin(b->s, 1); begin == 0 || now - begin < b->seconds; now = os_seconds()) {
        bool more = false;
        if (stream_next(b->s, &c, &more, err) != LAMINA_OK) return 0;
        if (!more)
            stream_begin(b->s, 1);
        else if (touching)
            touch(b, &c);
        stream_get_stats(b->s, &after);
        if (begin == 0 && after.bytes_read > 2 * stream_get_layout(b->s).ring_bytes) {
            before = after;
            begin = os_seconds();
        }
    }
    *stalled = (after.stall_seconds - before.stall_seconds) / (now - begin);
    stream_abort(b->s);
    return (double)(after.bytes_read - before.bytes_read) / (now - begin);
}

static int compare(bench *b, lamina_error *err)
{
    double total[3] = {0};
    stream_chunk c;
    bool more = true;
    stream_begin(b->s, 1); /* what is pinned is read before anything is timed */
    while (more)
        if (stream_next(b->s, &c, &more, err) != LAMINA_OK) return 1;
    enum { ROUNDS = 6 };
    for (int round = 0; round < ROUNDS; round++) {
        double ceiling = 0, stalled[2];
        if (stream_measure(b->s, b->seconds, &ceiling, err) != LAMINA_OK) return 1;
        double idle = run(b, false, &stalled[0], err), touching = run(b, true, &stalled[1], err);
        printf("ceiling %.3f GB/s  idle %.3f (%.3f)  touching %.3f (%.3f), stalled %.2f %.2f\n", ceiling / 1e9,
               idle / 1e9, idle / ceiling, touching / 1e9, touching / ceiling, stalled[0], stalled[1]);
        total[0] += ceiling;
        total[1] += idle;
        total[2] += touching;
    }
    printf("all: ceiling %.3f GB/s, idle %.3f of it, touching %.3f of it\n", total[0] / ROUNDS / 1e9,
           total[1] / total[0], total[2] / total[0]);
    return 0;
}

static double argument(int argc, char **argv, int i, double otherwise)
{
    return argc > i ? atof(argv[i]) : otherwise;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: stream_rate FILE [CHUNK_KIB [RING_MIB [SECONDS [PIN_PERCENT]]]]\n");
        return 2;
    }
    lamina_error err = {0};
    os_file file;
    uint64_t file_bytes = 0;
    if (os_open(argv[1], OS_READ, &file, &err) != LAMINA_OK ||
        os_file_size(&file, argv[1], &file_bytes, &err) != LAMINA_OK)
        return printf("%s\n", err.text), 1;
    os_close(&file);
    static stream_matrix m[MOST_MATRICES];
    size_t n = 0;
    for (uint64_t at = 4096; n < MOST_MATRICES && at + (uint64_t)MATRIX_ROWS * ROW_BYTES <= file_bytes; n++) {
        m[n] = (stream_matrix){
            .name = "w", .layer = (int32_t)n, .offset = at, .rows = MATRIX_ROWS, .row_bytes = ROW_BYTES};
        at += (uint64_t)MATRIX_ROWS * ROW_BYTES;
    }
    memory *mem = memory_new();
    const char *path = argv[1];
    stream_config c = {
        .m = mem, .n_files = 1, .paths = &path, .file_bytes = &file_bytes, .n_matrices = n, .matrices = m};
    c.tail = n ? n - 1 : 0;
    c.chunk_bytes = (uint64_t)argument(argc, argv, 2, 2048) * 1024;
    c.ring_bytes = (uint64_t)argument(argc, argv, 3, 128) << 20;
    c.pin_budget = (uint64_t)(argument(argc, argv, 5, 0) / 100 * (double)stream_pin_all(m, n));
    c.io = argc > 6 ? (lamina_io)atoi(argv[6]) : LAMINA_IO_AUTO;
    c.tune = argc > 7;
    bench b = {.seconds = argument(argc, argv, 4, 2)};
    int failed = stream_new(&c, &b.s, &err) != LAMINA_OK || compare(&b, &err) != 0;
    if (failed)
        printf("%s\n", err.text);
    else
        printf("%s, reads of %llu KiB, depth %u %s\n", reader_name(stream_reader(b.s)),
               (unsigned long long)stream_read_bytes(b.s) >> 10, stream_depth(b.s), reader_note(stream_reader(b.s)));
    stream_free(b.s);
    memory_free(mem);
    return failed;
}

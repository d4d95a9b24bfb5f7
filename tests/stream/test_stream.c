/* The stream by its behaviour: every engine, ring, pinning and tail gives the same bytes in the same order; what is
 * read is what was planned; faults are reported and survived. */
#include "model.h"

static const lamina_io engines[] = {LAMINA_IO_URING, LAMINA_IO_PREAD, LAMINA_IO_BUFFERED};
enum { ENGINES = sizeof engines / sizeof *engines };

/* From the least ring, pins and chunk to more than the model. */
static void draw_sizes(stream_config *c)
{
    uint64_t all = stream_pin_all(c->matrices, c->n_matrices);
    c->chunk_bytes = stream_min_chunk(c->matrices, c->n_matrices) + draw(2) * draw(20) * READ_ALIGN;
    c->ring_bytes = c->chunk_bytes * (1 + (draw(3) ? draw(6) : draw(200))) + draw(4096);
    c->pin_budget = draw(4) == 0 ? 0 : draw(4) == 0 ? all : draw(all);
}

static void report(const lamina_error *err, const stream_config *c, const char *what)
{
    CHECK(false, "%s: engine %d, chunk %llu, ring %llu, pins %llu, %s", what, (int)c->io,
          (unsigned long long)c->chunk_bytes, (unsigned long long)c->ring_bytes, (unsigned long long)c->pin_budget,
          err->text);
}

/* Several passes with different tails; from the second pass with the tail once on, exactly the planned bytes. */
static void run_passes(const model *m, const stream_config *c)
{
    lamina_error err = {0};
    stream *s;
    if (stream_new(c, &s, &err) != LAMINA_OK) {
        report(&err, c, "new");
        return;
    }
    stream_layout layout = stream_get_layout(s);
    stream_stats before, after;
    for (int pass = 0; pass < 7; pass++) {
        static const uint32_t tails[] = {1, 1, 0, 3, 1, 0, 1};
        bool checked;
        stream_get_stats(s, &before);
        if (model_pass(m, s, tails[pass], &checked, &err) != LAMINA_OK || !checked) report(&err, c, "pass");
        stream_get_stats(s, &after);
        uint64_t bytes = after.bytes_read - before.bytes_read;
        if (pass == 0)
            CHECK(bytes == layout.streamed_bytes + layout.pinned_bytes, "first pass: %llu", (unsigned long long)bytes);
        else if (tails[pass] == 1)
            CHECK(bytes == layout.streamed_bytes, "pass %d: %llu read, %llu planned", pass, (unsigned long long)bytes,
                  (unsigned long long)layout.streamed_bytes);
    }
    if (layout.streamed_bytes == 0) CHECK(reader_in_flight(stream_reader(s)) == 0, "all pinned, yet reading");
    CHECK(after.first_read > 0 && after.stall_seconds >= 0, "statistics");
    stream_free(s);
}

static void same_everywhere_in(const char *parent, int rounds)
{
    for (int round = 0; round < rounds; round++) {
        model m;
        REQUIRE(model_make(&m, parent, 1 + draw(120)), "cannot write a model below %s", parent);
        memory *mem = memory_new();
        for (int e = 0; e < ENGINES; e++) {
            for (int i = 0; i < 4; i++) {
                stream_config c = model_config(&m, mem);
                c.io = engines[e];
                draw_sizes(&c);
                run_passes(&m, &c);
            }
        }
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&m);
        if (test_now.current_failed) return;
    }
}

static void same_everywhere(void)
{
    same_everywhere_in(temporary(), 16);
}

static void same_in_memory_files(void)
{
    if (access("/dev/shm", W_OK) != 0) SKIP("no /dev/shm");
    same_everywhere_in("/dev/shm", 5);
}

/* Gathers between and within passes, with repeated and unaligned rows and rows larger than the area. */
static void gathers(void)
{
    for (int round = 0; round < 30; round++) {
        model m;
        REQUIRE(model_make(&m, temporary(), 100), "cannot write a model");
        memory *mem = memory_new();
        stream_config c = model_config(&m, mem);
        c.io = engines[round % ENGINES];
        draw_sizes(&c);
        lamina_error err = {0};
        stream *s;
        REQUIRE(stream_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        for (int pass = 0; pass < 4; pass++) {
            uint64_t offsets[100], n = draw(100), bytes;
            uint32_t file = m.matrices[0].file;
            bytes = 1 + draw(pass == 3 ? m.file_bytes[file] : m.file_bytes[file] < 9000 ? m.file_bytes[file] : 9000);
            for (uint64_t i = 0; i < n; i++)
                offsets[i] = i && draw(3) == 0 ? offsets[draw(i)] : draw(m.file_bytes[file] - bytes + 1);
            unsigned char *data = malloc(n * bytes + 1);
            CHECK(stream_gather(s, file, offsets, n, bytes, data, &err) == LAMINA_OK, "%s", err.text);
            for (uint64_t i = 0; i < n; i++)
                CHECK(model_check(file, offsets[i], data + i * bytes, bytes), "row %llu", (unsigned long long)i);
            free(data);
            uint64_t outside = m.file_bytes[file];
            CHECK(stream_gather(s, file, &outside, 1, 1, &bytes, &err) == LAMINA_E_FORMAT, "outside");
            bool checked;
            CHECK(model_pass(&m, s, 1, &checked, &err) == LAMINA_OK && checked, "%s", err.text);
        }
        stream_free(s);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&m);
    }
}

/* A row larger than the gather area comes in several reads. */
static void gather_large(void)
{
    model m = {.n_files = 1, .n = 1, .tail = 1};
    snprintf(m.folder, sizeof m.folder, "%s/lamina-stream-XXXXXX", temporary());
    REQUIRE(mkdtemp(m.folder), "no folder");
    snprintf(m.path[0], sizeof m.path[0], "%s/0.bin", m.folder);
    m.paths[0] = m.path[0];
    m.matrices[0] = (stream_matrix){.name = "w", .offset = 8, .rows = 10, .row_bytes = 4096};
    m.file_bytes[0] = 5 * STREAM_GATHER_BYTES + 77;
    REQUIRE(model_write(&m, 0), "cannot write");
    memory *mem = memory_new();
    stream_config c = model_config(&m, mem);
    c.chunk_bytes = 16384;
    c.ring_bytes = 2 * 16384;
    stream *s;
    lamina_error err = {0};
    REQUIRE(stream_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
    uint64_t offsets[2] = {3, 2 * STREAM_GATHER_BYTES + 5}, bytes = 3 * (uint64_t)STREAM_GATHER_BYTES - 100;
    unsigned char *data = malloc(2 * bytes);
    CHECK(stream_gather(s, 0, offsets, 2, bytes, data, &err) == LAMINA_OK, "%s", err.text);
    for (int i = 0; i < 2; i++) CHECK(model_check(0, offsets[i], data + (uint64_t)i * bytes, bytes), "row %d", i);
    free(data);
    stream_free(s);
    CHECK(memory_free(mem) == 0, "memory is held");
    model_remove(&m);
}

/* Every N-th read fails once: an error that names file and matrix, and after it the stream is as good as new. */
static void failing_reads(void)
{
    for (int round = 0; round < 6; round++) {
        model m;
        REQUIRE(model_make(&m, temporary(), 60), "cannot write a model");
        stream_config c = model_config(&m, NULL);
        draw_sizes(&c);
        for (uint64_t n = 1, failed = 1; failed && n < 400; n++) {
            memory *mem = memory_new();
            c.m = mem;
            c.io = engines[n % ENGINES];
            c.faults = (lamina_faults){.fail_read = n, .read_delay_us = n % 7 == 0 ? 50 : 0};
            lamina_error err = {0};
            stream *s;
            REQUIRE(stream_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
            failed = 0;
            for (int pass = 0; pass < 4; pass++) {
                bool checked;
                lamina_status status = model_pass(&m, s, 1, &checked, &err);
                CHECK(checked, "read %llu, pass %d", (unsigned long long)n, pass);
                if (status == LAMINA_OK) continue;
                failed++;
                CHECK(status == LAMINA_E_IO && strstr(err.text, m.folder) && strstr(err.text, "matrix.") &&
                          strstr(err.text, "offset"),
                      "%s", err.text);
                stream_abort(s);
            }
            CHECK(failed <= 1, "one fault, %llu errors", (unsigned long long)failed);
            stream_free(s);
            CHECK(memory_free(mem) == 0, "memory is held");
        }
        model_remove(&m);
    }
}

static void short_and_slow_reads(void)
{
    for (int round = 0; round < 18; round++) {
        model m;
        REQUIRE(model_make(&m, temporary(), 60), "cannot write a model");
        memory *mem = memory_new();
        stream_config c = model_config(&m, mem);
        c.io = engines[round % ENGINES];
        c.faults.short_read_every = 1 + (uint64_t)round / 6;
        c.faults.read_delay_us = round % 2 ? 100 : 0;
        draw_sizes(&c);
        run_passes(&m, &c);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&m);
    }
}

/* A slow disk delays what is seen, not the one who asks: many reads wait at once, and no read is early. */
static void slow_disk(void)
{
    for (int e = 0; e < ENGINES; e++) {
        model m;
        do REQUIRE(model_make(&m, temporary(), 100), "cannot write a model");
        while (m.n < 5 && (model_remove(&m), true));
        memory *mem = memory_new();
        stream_config c = model_config(&m, mem);
        c.io = engines[e];
        c.chunk_bytes = stream_min_chunk(m.matrices, m.n);
        c.ring_bytes = 64 * c.chunk_bytes;
        c.faults.read_delay_us = 20000;
        lamina_error err = {0};
        stream *s;
        stream_layout plan;
        stream_plan(m.matrices, m.n, c.chunk_bytes, c.ring_bytes, 0, &plan);
        double begin = os_seconds();
        REQUIRE(stream_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        double asked = os_seconds() - begin;
        bool checked;
        CHECK(model_pass(&m, s, 1, &checked, &err) == LAMINA_OK && checked, "%s", err.text);
        double took = os_seconds() - begin;
        stream_stats stats;
        stream_get_stats(s, &stats);
        double one_by_one = 0.02 * (double)(plan.streamed_bytes / c.chunk_bytes);
        printf("  %s: submitted in %.4f s, pass %.3f s, stalled %.3f s, one by one at least %.3f s\n",
               reader_name(stream_reader(s)), asked, took, stats.stall_seconds, one_by_one);
        CHECK(took >= 0.02 && stats.stall_seconds >= 0.015 && stats.stall_seconds <= took, "too fast for this disk");
        CHECK(one_by_one < 0.2 || took < one_by_one / 2, "reads wait for one another");
        stream_free(s);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&m);
    }
}

/* The file is cut after it was opened: the error says where it ends; whole again, the stream goes on. */
static void truncated(void)
{
    for (int e = 0; e < ENGINES; e++) {
        model m;
        REQUIRE(model_make(&m, temporary(), 60), "cannot write a model");
        memory *mem = memory_new();
        stream_config c = model_config(&m, mem);
        c.io = engines[e];
        draw_sizes(&c);
        c.ring_bytes = c.chunk_bytes * 2;
        c.pin_budget = 0;
        const stream_matrix *w = &m.matrices[m.n - 1];
        uint64_t end = w->offset + w->rows * w->row_bytes, cut_at = w->offset + (end - w->offset) / 2;
        REQUIRE(truncate(m.path[w->file], (off_t)cut_at) == 0, "truncate");
        lamina_error err = {0};
        stream *s;
        bool checked;
        REQUIRE(stream_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        CHECK(model_pass(&m, s, 1, &checked, &err) == LAMINA_E_IO && checked, "%s", err.text);
        char at[40];
        snprintf(at, sizeof at, "ends at offset %llu,", (unsigned long long)cut_at);
        CHECK(strstr(err.text, m.path[w->file]) && (strstr(err.text, at) || strstr(err.text, "ends at or before")),
              "%s, expected %s", err.text, at);
        REQUIRE(model_write(&m, w->file), "cannot write");
        stream_abort(s);
        CHECK(model_pass(&m, s, 1, &checked, &err) == LAMINA_OK && checked, "%s", err.text);
        stream_free(s);
        m.file_bytes[w->file] = cut_at;
        CHECK(stream_new(&c, &s, &err) == LAMINA_E_FORMAT && strstr(err.text, w->name), "%s", err.text);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&m);
    }
}

static void aborts(void)
{
    for (int round = 0; round < 30; round++) {
        model m;
        REQUIRE(model_make(&m, temporary(), 60), "cannot write a model");
        memory *mem = memory_new();
        stream_config c = model_config(&m, mem);
        c.io = engines[round % ENGINES];
        draw_sizes(&c);
        lamina_error err = {0};
        stream *s;
        REQUIRE(stream_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        uint64_t allocations = memory_count(mem);
        for (int i = 0; i < 5; i++) {
            stream_begin(s, (uint32_t)draw(3));
            stream_chunk chunk;
            bool more = true;
            for (uint64_t k = draw(30); more && k > 0; k--)
                CHECK(stream_next(s, &chunk, &more, &err) == LAMINA_OK, "next");
            if (draw(2)) stream_abort(s); /* else the next begin does */
            double rate;
            if (draw(3) == 0) CHECK(stream_measure(s, 0.002, &rate, &err) == LAMINA_OK && rate >= 0, "%s", err.text);
            bool checked;
            CHECK(model_pass(&m, s, (uint32_t)draw(3), &checked, &err) == LAMINA_OK && checked, "%s", err.text);
        }
        CHECK(memory_count(mem) == allocations, "memory was allocated during a pass");
        stream_free(s);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&m);
    }
}

static void failing_allocations(void)
{
    model m;
    REQUIRE(model_make(&m, temporary(), 60), "cannot write a model");
    for (int e = 0; e < ENGINES; e++) {
        lamina_status status = LAMINA_E_MEMORY;
        uint64_t n = 1;
        for (; status != LAMINA_OK && n < 100; n++) {
            memory *mem = memory_new();
            stream_config c = model_config(&m, mem);
            c.io = engines[e];
            c.chunk_bytes = stream_min_chunk(m.matrices, m.n);
            c.ring_bytes = 4 * c.chunk_bytes;
            c.pin_budget = stream_pin_all(m.matrices, m.n) / 2;
            memory_fail_at(mem, n);
            lamina_error err = {0};
            stream *s;
            status = stream_new(&c, &s, &err);
            CHECK(status == LAMINA_OK || (status == LAMINA_E_MEMORY && !s && err.text[0]), "%llu: %s",
                  (unsigned long long)n, err.text);
            bool checked = true;
            if (status == LAMINA_OK)
                CHECK(model_pass(&m, s, 1, &checked, &err) == LAMINA_OK && checked, "%s", err.text);
            stream_free(s);
            CHECK(memory_free(mem) == 0, "memory is held");
            if (n < 5) CHECK(status != LAMINA_OK, "allocation %llu did not fail", (unsigned long long)n);
        }
        CHECK(n < 100, "never opened");
    }
    model_remove(&m);
}

static void refused_configurations(void)
{
    model m;
    REQUIRE(model_make(&m, temporary(), 60), "cannot write a model");
    memory *mem = memory_new();
    stream_config good = model_config(&m, mem), c;
    good.chunk_bytes = stream_min_chunk(m.matrices, m.n);
    good.ring_bytes = good.chunk_bytes;
    stream *s;
    lamina_error err;
    c = good;
    c.chunk_bytes -= READ_ALIGN;
    CHECK(stream_new(&c, &s, &err) == LAMINA_E_USAGE, "chunk too small");
    c = good;
    c.chunk_bytes++;
    CHECK(stream_new(&c, &s, &err) == LAMINA_E_USAGE, "chunk not whole blocks");
    c = good;
    c.ring_bytes--;
    CHECK(stream_new(&c, &s, &err) == LAMINA_E_USAGE && strstr(err.text, "ring"), "no ring");
    c = good;
    c.tail = m.n + 1;
    CHECK(stream_new(&c, &s, &err) == LAMINA_E_USAGE, "tail");
    c = good;
    stream_matrix huge = m.matrices[0];
    huge.rows = UINT64_MAX;
    c.matrices = &huge;
    c.n_matrices = 1;
    c.tail = 1;
    CHECK(stream_new(&c, &s, &err) == LAMINA_E_FORMAT, "rows that overflow");
    c = good;
    const char *missing[MODEL_FILES] = {"/nowhere/a", "/nowhere/b", "/nowhere/c"};
    c.paths = missing;
    CHECK(stream_new(&c, &s, &err) == LAMINA_E_IO && strstr(err.text, "/nowhere/a"), "%s", err.text);
    c = good;
    c.ring_bytes = 0;
    c.pin_budget = stream_pin_all(m.matrices, m.n);
    CHECK(stream_new(&c, &s, &err) == LAMINA_OK, "all pinned needs no ring: %s", err.text);
    bool checked;
    CHECK(model_pass(&m, s, 1, &checked, &err) == LAMINA_OK && checked, "%s", err.text);
    stream_free(s);
    CHECK(memory_free(mem) == 0, "memory is held");
    model_remove(&m);
}

/* Resident weights cost next to nothing to ask for. */
static void resident_is_cheap(void)
{
    model m;
    do REQUIRE(model_make(&m, temporary(), 30), "cannot write a model");
    while (m.n < 8 && (model_remove(&m), true));
    memory *mem = memory_new();
    stream_config c = model_config(&m, mem);
    c.chunk_bytes = stream_min_chunk(m.matrices, m.n);
    c.pin_budget = stream_pin_all(m.matrices, m.n);
    lamina_error err = {0};
    stream *s;
    bool checked;
    REQUIRE(stream_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
    CHECK(model_pass(&m, s, 1, &checked, &err) == LAMINA_OK && checked, "%s", err.text);
    uint64_t chunks = 0;
    double begin = os_seconds();
    for (int pass = 0; pass < 2000; pass++) {
        stream_chunk chunk;
        bool more = true;
        stream_begin(s, 1);
        while (stream_next(s, &chunk, &more, &err) == LAMINA_OK && more) chunks++;
    }
    double each = (os_seconds() - begin) / (double)chunks;
    CHECK(chunks == 2000 * m.n, "one chunk a matrix: %llu", (unsigned long long)chunks);
    printf("  %.1f ns a matrix (at most 2000)\n", each * 1e9);
    CHECK(each < 2e-6, "%g s", each);
    stream_free(s);
    memory_free(mem);
    model_remove(&m);
}

TEST_MAIN(T(same_everywhere), T(same_in_memory_files), T(gathers), T(gather_large), T(failing_reads),
          T(short_and_slow_reads), T(slow_disk), T(truncated), T(aborts), T(failing_allocations),
          T(refused_configurations), T(resident_is_cheap))

/* Routed experts by their behaviour: whatever the pool, the engine, the history and the faults, what is delivered is
 * what lies in the file, in the order that was promised; and the statistics are exact. */
#include "model.h"

#include "stream/experts_cut.h"

static const lamina_io engines[] = {LAMINA_IO_URING, LAMINA_IO_PREAD, LAMINA_IO_BUFFERED};
enum { ENGINES = sizeof engines / sizeof *engines, MOST_LAYERS = 4, MOST_EXPERTS = 16, MOST_MATRICES = 3 };

typedef struct mixture {
    model files; /* their folder, paths and sizes alone */
    uint32_t n_layers, n_experts, n_matrices;
    expert_matrix matrix[MOST_LAYERS][MOST_EXPERTS][MOST_MATRICES];
} mixture;

static expert_matrix locate(const void *user, uint32_t layer, uint32_t expert, uint32_t matrix)
{
    return ((const mixture *)user)->matrix[layer][expert][matrix];
}

static uint64_t place(mixture *x, uint32_t file, uint64_t bytes)
{
    uint64_t at = x->files.file_bytes[file] + (draw(2) ? draw(5000) : 0);
    if (draw(3) == 0) at = (at + 4095) / 4096 * 4096;
    x->files.file_bytes[file] = at + bytes;
    return at;
}

/* An expert's matrices, each where there is room, scales sometimes in another file. */
static void place_expert(mixture *x, const expert_matrix *sizes, uint32_t layer, uint32_t expert)
{
    for (uint32_t i = 0; i < x->n_matrices; i++) {
        expert_matrix *m = &x->matrix[layer][expert][i];
        *m = sizes[i];
        m->file = (uint32_t)draw(x->files.n_files);
        m->offset = place(x, m->file, m->rows * m->row_bytes);
        if (!m->side_row_bytes) continue;
        m->side_file = (uint32_t)draw(x->files.n_files);
        m->side_offset = place(x, m->side_file, (m->rows + m->side_rows - 1) / m->side_rows * m->side_row_bytes);
    }
}

static bool mixture_write(mixture *x)
{
    snprintf(x->files.folder, sizeof x->files.folder, "%s/lamina-experts-XXXXXX", temporary());
    if (!mkdtemp(x->files.folder)) return false;
    for (uint32_t i = 0; i < x->files.n_files; i++) {
        snprintf(x->files.path[i], sizeof x->files.path[i], "%s/%u.bin", x->files.folder, i);
        x->files.paths[i] = x->files.path[i];
        if (!model_write(&x->files, i)) return false;
    }
    return true;
}

static bool mixture_make(mixture *x, uint64_t most_rows)
{
    static const uint32_t groups[] = {1, 1, 3, 16};
    *x = (mixture){.n_layers = 1 + (uint32_t)draw(MOST_LAYERS),
                   .n_experts = 1 + (uint32_t)draw(MOST_EXPERTS),
                   .n_matrices = 1 + (uint32_t)draw(MOST_MATRICES)};
    x->files.n_files = 1 + (uint32_t)draw(MODEL_FILES);
    expert_matrix sizes[MOST_MATRICES] = {0};
    for (uint32_t l = 0; l < x->n_layers; l++) {
        for (uint32_t i = 0; i < x->n_matrices && (l == 0 || draw(3) == 0); i++) { /* layers of other sizes */
            sizes[i] = (expert_matrix){.rows = 1 + draw(most_rows)};
            sizes[i].row_bytes = draw(2) ? 1 + draw(1500) : 512 * (1 + draw(3));
            if (draw(2)) continue;
            sizes[i].side_rows = groups[draw(4)];
            sizes[i].side_row_bytes = 1 + draw(100);
        }
        for (uint32_t e = 0; e < x->n_experts; e++) place_expert(x, sizes, l, e);
    }
    return mixture_write(x);
}

static experts_config config_of(const mixture *x, memory *mem, uint64_t piece)
{
    experts_config c = {.m = mem,
                        .n_files = x->files.n_files,
                        .paths = x->files.paths,
                        .file_bytes = x->files.file_bytes,
                        .n_layers = x->n_layers,
                        .n_experts = x->n_experts,
                        .n_matrices = x->n_matrices,
                        .locate = locate,
                        .user = x,
                        .piece_bytes = piece};
    experts_layout l;
    experts_plan(&c, &l);
    c.pool_bytes = l.least_pool;
    return c;
}

/* From two slots to more than everything. */
static void draw_pool(experts_config *c)
{
    experts_layout l;
    experts_plan(c, &l);
    uint64_t slots = l.whole_pool / l.slot_bytes;
    c->pool_bytes = draw(4) == 0   ? l.least_pool
                    : draw(4) == 0 ? l.whole_pool + draw(1 << 20)
                                   : (2 + draw(slots)) * l.slot_bytes + draw(l.slot_bytes);
}

/* A random choice of experts, ascending. */
static uint32_t choose(const mixture *x, uint32_t *ids, uint32_t *uses)
{
    uint32_t n = 0;
    uint64_t some = draw(4) == 0 ? 1 : 2 + draw(6);
    for (uint32_t i = 0; i < x->n_experts; i++) {
        if (some > 1 && draw(some) > 0) continue;
        uses[n] = 1 + (uint32_t)draw(9);
        ids[n++] = i;
    }
    return n;
}

static bool right(const expert_matrix *m, const expert_piece *p)
{
    if (p->n_rows == 0 || p->row0 + p->n_rows > m->rows) return false;
    if (!model_check(m->file, m->offset + p->row0 * m->row_bytes, p->data, p->n_rows * m->row_bytes)) return false;
    if (!m->side_row_bytes) return p->side == NULL;
    uint64_t n = (p->n_rows + m->side_rows - 1) / m->side_rows;
    return p->side && p->row0 % m->side_rows == 0 &&
           model_check(m->side_file, m->side_offset + p->row0 / m->side_rows * m->side_row_bytes, p->side,
                       n * m->side_row_bytes);
}

/* Takes all that was wanted. LAMINA_OK with *good: each expert once and whole, matrices and rows in order, bytes of the
 * file, in ascending order among those that were there and among those that were not. */
static lamina_status take(const mixture *x, experts *s, uint32_t layer, const uint32_t *ids, uint32_t n, bool *good,
                          lamina_error *err)
{
    bool seen[MOST_EXPERTS] = {false}, more;
    *good = false;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t item = UINT32_MAX;
        for (uint32_t i = 0; i < x->n_matrices; i++) {
            const expert_matrix *m = NULL;
            for (uint64_t row = 0; !m || row < m->rows;) {
                expert_piece p = {0};
                lamina_status status = experts_next(s, &p, &more, err);
                if (status != LAMINA_OK) return *good = true, status;
                if (item == UINT32_MAX) item = p.item;
                if (!more || p.item != item || item >= n || seen[item] || p.matrix != i || p.row0 != row)
                    return LAMINA_OK;
                m = &x->matrix[layer][ids[item]][i];
                if (!right(m, &p)) return LAMINA_OK;
                row += p.n_rows;
            }
        }
        seen[item] = true;
    }
    expert_piece p;
    lamina_status status = experts_next(s, &p, &more, err);
    if (status == LAMINA_OK && !more) status = experts_next(s, &p, &more, err); /* over stays over */
    *good = !more;
    return status;
}

static lamina_status want_and_take(const mixture *x, experts *s, uint32_t layer, bool *good, lamina_error *err)
{
    uint32_t ids[MOST_EXPERTS], uses[MOST_EXPERTS], n = choose(x, ids, uses);
    experts_want(s, layer, ids, uses, n);
    return take(x, s, layer, ids, n, good, err);
}

/* Random passes; every byte that was read is accounted for. */
static void passes(const mixture *x, const experts_config *c)
{
    lamina_error err = {0};
    experts *s;
    uint64_t before = memory_used(c->m);
    experts_layout l;
    experts_plan(c, &l);
    REQUIRE(experts_new(c, &s, &err) == LAMINA_OK, "%s", err.text);
    CHECK(memory_used(c->m) - before <= l.pool_bytes + l.overhead + 4096,
          "%llu bytes beside a pool of %llu, planned %llu",
          (unsigned long long)(memory_used(c->m) - before - l.pool_bytes), (unsigned long long)l.pool_bytes,
          (unsigned long long)l.overhead);
    uint64_t allocations = memory_count(c->m), wanted = 0;
    for (int pass = 0; pass < 12; pass++) {
        for (uint32_t layer = 0; layer < x->n_layers; layer++) {
            bool good;
            experts_stats a, b;
            experts_get_stats(s, &a);
            CHECK(want_and_take(x, s, layer, &good, &err) == LAMINA_OK && good,
                  "engine %d, pool of %llu slots, pass %d: %s", (int)c->io,
                  (unsigned long long)(l.pool_bytes / l.slot_bytes), pass, err.text);
            experts_get_stats(s, &b);
            wanted += b.wanted - a.wanted;
            uint64_t read = b.bytes_read - a.bytes_read;
            uint64_t missed = b.missed_bytes - a.missed_bytes;
            CHECK(read >= missed, "read less than was missed");
            CHECK(missed == 0 ? read == 0 : read <= missed + (missed / 1 + 1) * 16384, "read for nothing");
            CHECK(b.hits - a.hits <= b.wanted - a.wanted && (b.hits - a.hits < b.wanted - a.wanted || missed == 0),
                  "all hit, yet missed");
        }
        if (pass == 6) experts_abort(s);
    }
    experts_stats all;
    experts_abort(s);
    experts_get_stats(s, &all);
    CHECK(all.wanted == wanted && all.stall_seconds >= 0, "wanted");
    CHECK(memory_count(c->m) == allocations, "memory was allocated during a pass");
    experts_free(s);
}

static void same_everywhere(void)
{
    for (int round = 0; round < 16; round++) {
        mixture x;
        REQUIRE(mixture_make(&x, 1 + draw(60)), "cannot write a model");
        for (int e = 0; e < ENGINES; e++) {
            for (int i = 0; i < 4; i++) {
                memory *mem = memory_new();
                experts_config c = config_of(&x, mem, draw(3) ? 4096 * (1 + draw(20)) : 0);
                c.io = engines[e];
                draw_pool(&c);
                passes(&x, &c);
                CHECK(memory_free(mem) == 0, "memory is held");
            }
        }
        model_remove(&x.files);
        if (test_now.current_failed) return;
    }
}

/* What one expert of the mixture costs to read, by the cuts. */
static void cost(const mixture *x, const expert_cuts *cuts, uint32_t layer, uint32_t expert, uint64_t *read,
                 uint64_t *stored)
{
    for (uint32_t p = 0; p < cuts->n_pieces; p++) {
        expert_extent e;
        experts_extent(cuts, &x->matrix[layer][expert][experts_matrix_of(cuts, p)], p, &e);
        *read += (uint64_t)e.bytes + e.side_bytes;
        *stored += e.stored;
    }
}

/* With room for all, each expert is read once, exactly; then never again. */
static void all_resident(void)
{
    for (int round = 0; round < 12; round++) {
        mixture x;
        REQUIRE(mixture_make(&x, 60), "cannot write a model");
        memory *mem = memory_new();
        experts_config c = config_of(&x, mem, 16384);
        experts_layout l;
        experts_plan(&c, &l);
        c.pool_bytes = l.whole_pool;
        c.io = engines[round % ENGINES];
        expert_kinds kinds;
        uint8_t kind_of[MOST_LAYERS];
        lamina_error err = {0};
        experts *s;
        REQUIRE(experts_cut(&c, &kinds, kind_of, &err) == LAMINA_OK, "%s", err.text);
        REQUIRE(experts_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        uint64_t read = 0, stored = 0, wanted = 0, hits = 0;
        bool have[MOST_LAYERS][MOST_EXPERTS] = {{false}};
        for (int pass = 0; pass < 6; pass++) {
            for (uint32_t layer = 0; layer < x.n_layers; layer++) {
                uint32_t ids[MOST_EXPERTS], uses[MOST_EXPERTS], n = choose(&x, ids, uses);
                for (uint32_t i = 0; i < n; i++) {
                    if (have[layer][ids[i]])
                        hits++;
                    else
                        cost(&x, &kinds.of[kind_of[layer]], layer, ids[i], &read, &stored);
                    have[layer][ids[i]] = true;
                }
                wanted += n;
                bool good;
                experts_want(s, layer, ids, uses, n);
                CHECK(take(&x, s, layer, ids, n, &good, &err) == LAMINA_OK && good, "%s", err.text);
                experts_stats st;
                experts_get_stats(s, &st);
                CHECK(st.wanted == wanted && st.hits == hits && st.bytes_read == read && st.missed_bytes == stored &&
                          st.resident == wanted - hits,
                      "statistics of pass %d: %llu read, expected %llu", pass, (unsigned long long)st.bytes_read,
                      (unsigned long long)read);
            }
        }
        experts_free(s);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&x.files);
    }
}

static bool alike(const mixture *x)
{
    for (uint32_t l = 1; l < x->n_layers; l++)
        for (uint32_t i = 0; i < x->n_matrices; i++)
            if (x->matrix[l][0][i].rows != x->matrix[0][0][i].rows) return false;
    return true;
}

/* Layers that want all of their experts, again and again, find as many as the pool holds, less those on their way:
 * least recently used would find none. */
static void scans(void)
{
    mixture x;
    do REQUIRE(mixture_make(&x, 20), "cannot write a model");
    while ((x.n_layers < 3 || x.n_experts < 10 || !alike(&x)) && (model_remove(&x.files), true));
    for (uint32_t part = 1; part <= 4; part++) {
        memory *mem = memory_new();
        experts_config c = config_of(&x, mem, 4096);
        experts_layout l;
        experts_plan(&c, &l);
        uint32_t all = x.n_layers * x.n_experts, room = all * part / 5;
        uint64_t each = l.whole_pool / l.slot_bytes / all;
        c.pool_bytes = room * each * l.slot_bytes;
        lamina_error err = {0};
        experts *s;
        REQUIRE(experts_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        uint32_t ids[MOST_EXPERTS];
        for (uint32_t i = 0; i < x.n_experts; i++) ids[i] = i;
        experts_stats st;
        for (int pass = 0; pass < 12; pass++) {
            bool good;
            if (pass == 4) experts_reset_stats(s);
            for (uint32_t layer = 0; layer < x.n_layers; layer++) {
                experts_want(s, layer, ids, NULL, x.n_experts);
                CHECK(take(&x, s, layer, ids, x.n_experts, &good, &err) == LAMINA_OK && good, "%s", err.text);
            }
        }
        experts_get_stats(s, &st);
        uint64_t slots = room * each, way = slots / 4 < 8 ? 8 : slots / 4 > 32 ? 32 : slots / 4;
        uint64_t kept = slots > way ? (slots - way) / each : 0;
        printf("  room for %u of %u: %.1f found a pass\n", room, all, (double)st.hits / 8);
        CHECK(st.hits >= 8 * (kept > 2 ? kept - 2 : 0), "a scan destroys what is kept");
        experts_free(s);
        CHECK(memory_free(mem) == 0, "memory is held");
    }
    model_remove(&x.files);
}

/* The N-th read fails: one error that says where, and then everything as before. */
static void failing_reads(void)
{
    for (int round = 0; round < 60; round++) {
        mixture x;
        REQUIRE(mixture_make(&x, 40), "cannot write a model");
        memory *mem = memory_new();
        experts_config c = config_of(&x, mem, 4096 * (1 + draw(8)));
        uint32_t numbers[MOST_LAYERS] = {100, 101, 102, 103};
        c.layer_numbers = numbers;
        c.io = engines[round % ENGINES];
        draw_pool(&c);
        c.faults.fail_read = 1 + draw(40);
        lamina_error err = {0};
        experts *s;
        REQUIRE(experts_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        int failed = 0;
        for (int pass = 0; pass < 20; pass++) {
            bool good;
            lamina_status status = want_and_take(&x, s, (uint32_t)draw(x.n_layers), &good, &err);
            CHECK(good, "wrong bytes");
            if (status == LAMINA_OK) continue;
            failed++;
            CHECK(status == LAMINA_E_IO && strstr(err.text, x.files.folder) && strstr(err.text, "layer 10") &&
                      strstr(err.text, "expert "),
                  "%s", err.text);
            experts_abort(s);
        }
        CHECK(failed <= 1, "one fault, %d errors", failed);
        experts_free(s);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&x.files);
    }
}

static void short_and_slow_reads(void)
{
    for (int round = 0; round < 18; round++) {
        mixture x;
        REQUIRE(mixture_make(&x, 40), "cannot write a model");
        memory *mem = memory_new();
        experts_config c = config_of(&x, mem, 4096 * (1 + draw(8)));
        c.io = engines[round % ENGINES];
        c.faults.short_read_every = 1 + (uint64_t)round / 6;
        c.faults.read_delay_us = round % 2 ? 100 : 0;
        draw_pool(&c);
        passes(&x, &c);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&x.files);
    }
}

static void truncated(void)
{
    for (int e = 0; e < ENGINES; e++) {
        mixture x;
        REQUIRE(mixture_make(&x, 60), "cannot write a model");
        memory *mem = memory_new();
        experts_config c = config_of(&x, mem, 0);
        c.io = engines[e];
        const expert_matrix *m = &x.matrix[x.n_layers - 1][0][0];
        REQUIRE(truncate(x.files.path[m->file], (off_t)m->offset) == 0, "truncate");
        lamina_error err = {0};
        experts *s;
        REQUIRE(experts_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        uint32_t id = 0;
        bool good;
        experts_want(s, x.n_layers - 1, &id, NULL, 1);
        CHECK(take(&x, s, x.n_layers - 1, &id, 1, &good, &err) == LAMINA_E_IO && strstr(err.text, "ends at"), "%s",
              err.text);
        REQUIRE(model_write(&x.files, m->file), "cannot write");
        experts_abort(s);
        experts_want(s, x.n_layers - 1, &id, NULL, 1);
        CHECK(take(&x, s, x.n_layers - 1, &id, 1, &good, &err) == LAMINA_OK && good, "%s", err.text);
        experts_free(s);
        x.files.file_bytes[m->file] = m->offset;
        CHECK(experts_new(&c, &s, &err) == LAMINA_E_FORMAT && !s && strstr(err.text, "expert"), "%s", err.text);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&x.files);
    }
}

/* Passes left anywhere, by an abort or by wanting something else. */
static void aborts(void)
{
    for (int round = 0; round < 60; round++) {
        mixture x;
        REQUIRE(mixture_make(&x, 40), "cannot write a model");
        memory *mem = memory_new();
        experts_config c = config_of(&x, mem, 4096 * (1 + draw(8)));
        c.io = engines[round % ENGINES];
        draw_pool(&c);
        lamina_error err = {0};
        experts *s;
        REQUIRE(experts_new(&c, &s, &err) == LAMINA_OK, "%s", err.text);
        for (int i = 0; i < 20; i++) {
            uint32_t ids[MOST_EXPERTS], uses[MOST_EXPERTS], n = choose(&x, ids, uses);
            experts_want(s, (uint32_t)draw(x.n_layers), ids, uses, n);
            bool more = true, good;
            expert_piece p;
            for (uint64_t k = draw(12); more && k > 0; k--)
                CHECK(experts_next(s, &p, &more, &err) == LAMINA_OK, "%s", err.text);
            if (draw(2)) experts_abort(s);
            CHECK(want_and_take(&x, s, (uint32_t)draw(x.n_layers), &good, &err) == LAMINA_OK && good, "%s", err.text);
        }
        uint32_t none = x.n_experts, twice[2] = {0, 0};
        bool more;
        expert_piece p;
        experts_want(s, 0, &none, NULL, 1);
        CHECK(experts_next(s, &p, &more, &err) == LAMINA_E_USAGE && !more, "an expert that is not there");
        experts_abort(s);
        experts_want(s, 0, twice, NULL, 2);
        CHECK(experts_next(s, &p, &more, &err) == LAMINA_E_USAGE && !more, "an expert twice");
        experts_abort(s);
        experts_want(s, x.n_layers, twice, NULL, 1);
        CHECK(experts_next(s, &p, &more, &err) == LAMINA_E_USAGE && !more, "a layer that is not there");
        experts_free(s);
        CHECK(memory_free(mem) == 0, "memory is held");
        model_remove(&x.files);
    }
}

static void failing_allocations(void)
{
    mixture x;
    REQUIRE(mixture_make(&x, 20), "cannot write a model");
    for (int e = 0; e < ENGINES; e++) {
        lamina_status status = LAMINA_E_MEMORY;
        uint64_t n = 1;
        for (; status != LAMINA_OK && n < 100; n++) {
            memory *mem = memory_new();
            experts_config c = config_of(&x, mem, 0);
            c.io = engines[e];
            memory_fail_at(mem, n);
            lamina_error err = {0};
            experts *s;
            status = experts_new(&c, &s, &err);
            CHECK(status == LAMINA_OK || (status == LAMINA_E_MEMORY && !s && err.text[0]), "%llu: %s",
                  (unsigned long long)n, err.text);
            bool good = true;
            if (status == LAMINA_OK) CHECK(want_and_take(&x, s, 0, &good, &err) == LAMINA_OK && good, "%s", err.text);
            experts_free(s);
            CHECK(memory_free(mem) == 0, "memory is held");
            if (n < 12) CHECK(status != LAMINA_OK, "allocation %llu did not fail", (unsigned long long)n);
        }
        CHECK(n < 100, "never opened");
    }
    model_remove(&x.files);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

typedef struct shape {
    const char *name;
    uint32_t n_layers, n_experts, n;
    expert_matrix m[MOST_MATRICES];
} shape;

static expert_matrix of_shape(const void *user, uint32_t layer, uint32_t expert, uint32_t matrix)
{
    (void)layer, (void)expert;
    return ((const shape *)user)->m[matrix];
}

#define BF16(r, c)                                                                                                     \
    {                                                                                                                  \
        .rows = r, .row_bytes = 2 * (c), .offset = 100                                                                 \
    }
#define FP8(r, c)                                                                                                      \
    {                                                                                                                  \
        .rows = r, .row_bytes = c, .offset = 100, .side_rows = 128, .side_row_bytes = 4 * (c) / 128                    \
    }
#define MXFP4(r, c)                                                                                                    \
    {                                                                                                                  \
        .rows = r, .row_bytes = (c) / 2, .offset = 100, .side_rows = 1, .side_row_bytes = (c) / 32                     \
    }

/* Of published shapes: what is read beside what is missed, and what of the pool is not of use. */
static void published_shapes(void)
{
    static const shape shapes[] = {
        {"Qwen3-30B-A3B", 48, 128, 3, {BF16(768, 2048), BF16(768, 2048), BF16(2048, 768)}},
        {"Mixtral-8x7B", 32, 8, 3, {BF16(14336, 4096), BF16(14336, 4096), BF16(4096, 14336)}},
        {"DeepSeek-V3", 58, 256, 3, {FP8(2048, 7168), FP8(2048, 7168), FP8(7168, 2048)}},
        {"gpt-oss-20b", 24, 32, 2, {MXFP4(5760, 2880), MXFP4(2880, 2880)}},
        {"OLMoE-1B-7B", 16, 64, 3, {BF16(1024, 2048), BF16(1024, 2048), BF16(2048, 1024)}},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        experts_config c = {.n_layers = s->n_layers,
                            .n_experts = s->n_experts,
                            .n_matrices = s->n,
                            .locate = of_shape,
                            .user = s,
                            .pool_bytes = UINT64_C(16) << 30};
        experts_layout l;
        experts_plan(&c, &l);
        double more = (double)l.expert_bytes / (double)l.stored_bytes - 1;
        double room = (double)l.whole_pool / (double)(l.stored_bytes * s->n_layers * s->n_experts) - 1;
        printf("  %-14s %3llu pieces of %7llu: %.2f %% more is read, %.2f %% more is kept, tables of %llu\n", s->name,
               (unsigned long long)(l.whole_pool / l.slot_bytes / s->n_layers / s->n_experts),
               (unsigned long long)l.slot_bytes, 100 * more, 100 * room, (unsigned long long)l.overhead);
        CHECK(more <= 0.02 && room <= 0.03 && l.slot_bytes <= 2 << 20, "%s", s->name);
    }
}

static void hostile_sizes(void)
{
    static const expert_matrix bad[] = {
        {.rows = 0, .row_bytes = 8},
        {.rows = 8, .row_bytes = 0},
        {.rows = UINT64_MAX, .row_bytes = UINT64_MAX},
        {.rows = 1, .row_bytes = UINT64_MAX},
        {.rows = UINT64_MAX / 8, .row_bytes = 8},
        {.rows = UINT64_C(1) << 44, .row_bytes = 4096},
        {.rows = 8, .row_bytes = 8, .side_rows = 0, .side_row_bytes = 1},
        {.rows = 8, .row_bytes = 8, .side_rows = 1, .side_row_bytes = UINT64_MAX},
        {.rows = 1 << 20, .row_bytes = 1 << 20, .side_rows = UINT32_MAX, .side_row_bytes = 4},
        {.rows = 8, .row_bytes = 8, .offset = UINT64_MAX - 4},
        {.rows = 8, .row_bytes = 8, .file = 1},
        {.rows = 8, .row_bytes = 8, .side_rows = 1, .side_row_bytes = 8, .side_file = 9},
        {.rows = 8, .row_bytes = 8, .side_rows = 1, .side_row_bytes = 8, .side_offset = UINT64_MAX},
    };
    uint64_t size = UINT64_C(1) << 62;
    const char *path = "/dev/null";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memory *mem = memory_new();
        shape s = {.n_layers = 1, .n_experts = 1, .n = 1, .m = {bad[i]}};
        experts_config c = {.m = mem,
                            .n_files = 1,
                            .paths = &path,
                            .file_bytes = &size,
                            .n_layers = 1,
                            .n_experts = 1,
                            .n_matrices = 1,
                            .locate = of_shape,
                            .user = &s};
        experts_layout l;
        experts_plan(&c, &l);
        c.pool_bytes = UINT64_C(1) << 31;
        experts *x;
        lamina_error err = {0};
        CHECK(experts_new(&c, &x, &err) == LAMINA_E_FORMAT && !x && err.text[0], "%zu: %s", i, err.text);
        CHECK(i >= 9 || l.slot_bytes == 0, "%zu: a plan for what cannot be", i);
        s.m[0] = (expert_matrix){.rows = 8, .row_bytes = 8};
        c.n_layers = c.n_experts = 1u << 31;
        CHECK(experts_new(&c, &x, &err) == LAMINA_E_FORMAT && !x, "too many experts: %s", err.text);
        c.n_layers = 0;
        CHECK(experts_new(&c, &x, &err) == LAMINA_E_USAGE && !x, "no layers");
        c.n_layers = c.n_experts = 1;
        c.n_matrices = EXPERTS_MOST_MATRICES + 1;
        CHECK(experts_new(&c, &x, &err) == LAMINA_E_USAGE && !x, "too many matrices");
        c.n_matrices = 1;
        c.pool_bytes = 4096;
        CHECK(experts_new(&c, &x, &err) == LAMINA_E_USAGE && !x && strstr(err.text, "pool"), "%s", err.text);
        CHECK(memory_free(mem) == 0, "memory is held");
    }
}

/* Every row in exactly one piece, each piece within its slot, for any sizes. */
static void cuts_hold(void)
{
    for (int round = 0; round < 3000; round++) {
        expert_matrix m[MOST_MATRICES] = {0};
        uint32_t n = 1 + (uint32_t)draw(MOST_MATRICES);
        for (uint32_t i = 0; i < n; i++) {
            m[i] = (expert_matrix){.rows = 1 + draw(draw(2) ? 20 : 5000), .row_bytes = 1 + draw(draw(2) ? 50 : 9000)};
            m[i].offset = draw(1 << 20);
            m[i].side_offset = draw(1 << 20);
            if (draw(2)) m[i].side_rows = 1 + (uint32_t)draw(200), m[i].side_row_bytes = 1 + draw(300);
        }
        shape whole = {.n = n};
        memcpy(whole.m, m, sizeof m);
        experts_config config = {.n_layers = 1, .n_experts = 1, .n_matrices = n, .locate = of_shape, .user = &whole};
        config.piece_bytes = draw(2) ? 0 : draw(1 << 21);
        expert_kinds kinds;
        REQUIRE(experts_cut(&config, &kinds, NULL, NULL) == LAMINA_OK, "cut");
        expert_cuts c = kinds.of[0];
        uint64_t row = 0;
        uint32_t matrix = 0;
        for (uint32_t p = 0; p < c.n_pieces; p++) {
            expert_extent e;
            experts_extent(&c, &m[experts_matrix_of(&c, p)], p, &e);
            if (e.matrix != matrix) {
                CHECK(e.matrix == matrix + 1 && row == m[matrix].rows, "rows are left out");
                matrix++;
                row = 0;
            }
            CHECK(e.row0 == row && e.n_rows > 0 && (uint64_t)e.bytes + e.side_bytes <= kinds.slot_bytes, "piece %u", p);
            CHECK(e.needed <= e.bytes && e.bytes - e.needed < 4096 && e.skew < 4096 && e.begin % 4096 == 0, "blocks");
            CHECK(m[matrix].side_rows == 0 || e.row0 % m[matrix].side_rows == 0, "scales");
            row += e.n_rows;
        }
        CHECK(matrix == n - 1 && row == m[matrix].rows, "rows are left out");
        if (test_now.current_failed) return;
    }
}

TEST_MAIN(T(same_everywhere), T(all_resident), T(scans), T(failing_reads), T(short_and_slow_reads), T(truncated),
          T(aborts), T(failing_allocations), T(published_shapes), T(hostile_sizes), T(cuts_hold))

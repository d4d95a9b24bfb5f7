/* The cuts, over random models: the budget holds, every row is in exactly one place, pinned parts are prefixes and are
 * spread evenly, and the plan's sums are those of its parts. */
#include "test.h"

#include "stream/layout.h"

static uint64_t seed = 0x9E3779B97F4A7C15u;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 11) % below;
}

enum { MOST = 40 };

static size_t draw_model(stream_matrix *m)
{
    size_t n = 1 + draw(MOST);
    bool aligned = draw(2);
    for (size_t i = 0; i < n; i++) {
        m[i] = (stream_matrix){.name = "w", .layer = (int32_t)i, .rows = 1 + draw(3000), .row_bytes = 1 + draw(9000)};
        if (aligned) m[i].row_bytes = (1 + m[i].row_bytes / 512) * 512;
        m[i].offset = aligned ? draw(100) * READ_ALIGN : draw(1000000);
    }
    return n;
}

/* Rows of one matrix: prefix and chunks, in order, without gap, each within its slot. */
static bool rows_once(const stream_matrix *m, const cut *c, uint64_t chunk_bytes, uint64_t *streamed)
{
    uint64_t row = c->pinned_rows;
    bool whole = row % c->chunk_rows == 0 || row == m->rows;
    bool pin = row == 0 ? c->pin_bytes == 0
                        : c->pin_begin <= m->offset && m->offset - c->pin_begin < READ_ALIGN &&
                              c->pin_begin + c->pin_bytes >= m->offset + row * m->row_bytes;
    for (uint64_t i = 0; i < c->n_streamed; i++) {
        extent e;
        layout_extent(m, c, i, &e);
        if (e.row0 != row || e.n_rows == 0 || e.bytes > chunk_bytes || e.needed > e.bytes) return false;
        if (e.begin % READ_ALIGN || e.bytes % READ_ALIGN || e.skew >= READ_ALIGN) return false;
        if (e.begin + e.skew != m->offset + row * m->row_bytes) return false;
        if (e.needed != e.skew + e.n_rows * m->row_bytes || e.bytes - e.needed >= READ_ALIGN) return false;
        row += e.n_rows;
        *streamed += e.bytes;
    }
    return whole && pin && row == m->rows;
}

static void invariants(void)
{
    stream_matrix m[MOST];
    for (int round = 0; round < 3000; round++) {
        size_t n = draw_model(m);
        uint64_t all = stream_pin_all(m, n);
        uint64_t chunk = stream_min_chunk(m, n) + draw(2) * draw(64) * READ_ALIGN;
        uint64_t budget = draw(8) == 0 ? all + draw(2) : draw(all);
        stream_layout plan;
        stream_plan(m, n, chunk, 10 * chunk + 5, budget, &plan);
        pinning pins = {budget, all, 0, 0};
        uint64_t streamed = 0, total = 0;
        for (size_t i = 0; i < n; i++) {
            cut c;
            layout_cut(&m[i], chunk, &pins, &c);
            REQUIRE(rows_once(&m[i], &c, chunk, &streamed), "round %d matrix %zu", round, i);
            total += m[i].rows * m[i].row_bytes;
            /* Evenness: at every matrix the account is short of its share by less than a chunk and a block's ends. */
            double share = (double)budget / (double)all * (double)pins.seen;
            if (budget < all)
                REQUIRE((double)pins.used <= share + 1 &&
                            share - (double)pins.used < (double)chunk + 2.0 * READ_ALIGN + 1,
                        "round %d matrix %zu: share %.0f, pinned %llu, chunk %llu", round, i, share,
                        (unsigned long long)pins.used, (unsigned long long)chunk);
        }
        REQUIRE(plan.pinned_bytes == pins.used && plan.pinned_bytes <= budget, "round %d", round);
        REQUIRE(plan.streamed_bytes == streamed && plan.total_bytes == total, "round %d", round);
        REQUIRE(plan.ring_bytes == 10 * chunk && plan.chunk_bytes == chunk, "round %d", round);
        REQUIRE(budget < all || (streamed == 0 && plan.pinned_bytes == all), "round %d", round);
    }
}

/* A small chunk is the least: one block less and some row would not fit. */
static void least_chunk(void)
{
    stream_matrix m = {.name = "w", .rows = 4, .row_bytes = 4096, .offset = 8192};
    CHECK(stream_min_chunk(&m, 1) == 4096, "aligned");
    m.offset = 8200;
    CHECK(stream_min_chunk(&m, 1) == 8192, "eight bytes off");
    m = (stream_matrix){.name = "w", .rows = 4, .row_bytes = 6144, .offset = 0};
    CHECK(stream_min_chunk(&m, 1) == 8192, "half a block over: from 2048 to 8192");
    m.row_bytes = 1;
    CHECK(stream_min_chunk(&m, 1) == 4096, "a byte lies in one block wherever it is");
}

/* What reading whole blocks costs: nothing where rows can end on blocks, less than two blocks a chunk elsewhere. */
static void overhead(void)
{
    stream_matrix m = {.name = "w", .rows = 8192, .row_bytes = 6144, .offset = 4096};
    stream_layout plan;
    stream_plan(&m, 1, 2 << 20, 16 << 20, 0, &plan);
    CHECK(plan.streamed_bytes == plan.total_bytes, "%llu, %llu", (unsigned long long)plan.streamed_bytes,
          (unsigned long long)plan.total_bytes);
    m.offset = 4104;
    stream_plan(&m, 1, 2 << 20, 16 << 20, 0, &plan);
    double more = (double)plan.streamed_bytes / (double)plan.total_bytes - 1, bound = 2.0 * 4096 / (2 << 20) * 1.1;
    printf("  unaligned: %.4f more, bound %.4f\n", more, bound);
    CHECK(more < bound, "%f", more);
}

/* A model of the largest kind is planned in a moment, and each matrix gets its share. */
static void large(void)
{
    enum { LAYERS = 126, EACH = 7 };
    static stream_matrix m[LAYERS * EACH];
    uint64_t at = 4096;
    for (size_t i = 0; i < LAYERS * EACH; i++) {
        bool small = i % EACH == 1 || i % EACH == 2;
        m[i] = (stream_matrix){.name = "w", .offset = at, .rows = small ? 1024 : 53248, .row_bytes = 32768};
        at += m[i].rows * m[i].row_bytes;
    }
    uint64_t all = stream_pin_all(m, LAYERS * EACH), budget = all / 3;
    pinning pins = {budget, all, 0, 0};
    for (size_t i = 0; i < LAYERS * EACH; i++) {
        cut c;
        layout_cut(&m[i], 2 << 20, &pins, &c);
        double chunks = (double)m[i].rows / (double)c.chunk_rows, pinned = (double)c.pinned_rows / (double)c.chunk_rows;
        REQUIRE(pinned > chunks / 3 - 2 && pinned < chunks / 3 + 2, "matrix %zu: %.1f of %.1f", i, pinned, chunks);
    }
    CHECK(budget - pins.used < 3 << 20, "%llu left", (unsigned long long)(budget - pins.used));
}

TEST_MAIN(T(invariants), T(least_chunk), T(overhead), T(large))

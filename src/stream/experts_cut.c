/* The sizes of pieces. Small pieces waste blocks at their ends and reads; large ones waste the ends of slots, since a
 * slot must hold the largest. So of all slot sizes up to the largest allowed, the one is taken that makes an expert
 * cheapest to keep, when each piece counts a little more than its slot. */
#include "stream/experts_cut.h"

#include "stream/layout.h"

enum {
    LARGEST = 2 << 20,     /* a read that any device serves at full speed */
    PIECE_COST = 16 << 10, /* bytes of memory that one read less is worth */
    TRIES = 64             /* numbers of pieces tried for each matrix */
};
static const uint64_t most_group = UINT64_C(1) << 29, most_size = UINT64_C(1) << 46;

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Bytes of slot that so many rows take at the worst place in a file. */
static uint64_t span(const expert_cut *c, uint64_t rows)
{
    uint64_t bytes = block_ceil(rows * c->row_bytes + READ_ALIGN - 1);
    if (c->side_row_bytes) bytes += block_ceil(ceil_div(rows, c->side_rows) * c->side_row_bytes + READ_ALIGN - 1);
    return bytes;
}

/* Rows of a piece when a matrix is cut into n pieces, as equal as shared scales allow. */
static uint64_t rows_of(const expert_cut *c, uint64_t n)
{
    uint64_t groups = ceil_div(ceil_div(c->rows, c->side_rows), n);
    return min64(groups * c->side_rows, c->rows);
}

/* The fewest pieces that fit in a slot; 0: not even a group of rows does. */
static uint64_t fewest(const expert_cut *c, uint64_t slot)
{
    uint64_t groups = ceil_div(c->rows, c->side_rows), low = 1, high = groups;
    if (span(c, rows_of(c, groups)) > slot) return 0;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        if (span(c, rows_of(c, mid)) <= slot)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static bool take_sizes(const expert_matrix *sizes, uint32_t n, expert_cuts *out, uint32_t *bad)
{
    for (*bad = 0; *bad < n; ++*bad) {
        const expert_matrix *m = &sizes[*bad];
        expert_cut *c = &out->cut[*bad];
        bool sides = m->side_row_bytes > 0;
        *c = (expert_cut){.rows = m->rows,
                          .row_bytes = m->row_bytes,
                          .side_row_bytes = m->side_row_bytes,
                          .side_rows = sides ? m->side_rows : 1};
        if (c->rows == 0 || c->row_bytes == 0 || c->side_rows == 0) return false;
        if (c->rows > most_size / c->row_bytes || c->side_row_bytes > most_group) return false;
        if (c->side_rows > most_group / c->row_bytes) return false;
        out->sides = out->sides || sides;
    }
    return true;
}

/* Pieces of an expert in slots of this size; 0: some row does not fit. */
static uint64_t count(const expert_cuts *c, uint64_t slot)
{
    uint64_t pieces = 0;
    for (uint32_t i = 0; i < c->n_matrices; i++) {
        uint64_t n = fewest(&c->cut[i], slot);
        if (n == 0) return 0;
        pieces += n;
    }
    return pieces;
}

static uint64_t best_slot(const expert_cuts *c, uint64_t most)
{
    uint64_t best = 0, least_cost = UINT64_MAX;
    for (uint32_t i = 0; i < c->n_matrices; i++) {
        const expert_cut *m = &c->cut[i];
        uint64_t from = fewest(m, most), groups = ceil_div(m->rows, m->side_rows);
        for (uint64_t n = from; n <= groups && n < from + TRIES; n++) {
            uint64_t slot = span(m, rows_of(m, n)), pieces = count(c, slot);
            if (pieces == 0) break;
            uint64_t cost = pieces * (slot + PIECE_COST);
            if (cost >= least_cost) continue;
            least_cost = cost;
            best = slot;
        }
    }
    return best;
}

bool experts_cut(const expert_matrix *sizes, uint32_t n, uint64_t most, expert_cuts *out, uint32_t *bad)
{
    *out = (expert_cuts){.n_matrices = n};
    *bad = 0;
    if (n == 0 || n > EXPERTS_MOST_MATRICES || !take_sizes(sizes, n, out, bad)) return false;
    most = min64(most ? most : LARGEST, most_group);
    for (uint32_t i = 0; i < n; i++) { /* a slot holds at least the rows that share scales */
        const expert_cut *c = &out->cut[i];
        uint64_t least = span(c, rows_of(c, c->rows));
        if (most < least) most = least;
    }
    out->slot_bytes = best_slot(out, most);
    for (uint32_t i = 0; i < n; i++) {
        expert_cut *c = &out->cut[i];
        c->piece_rows = rows_of(c, fewest(c, out->slot_bytes));
        uint64_t pieces = ceil_div(c->rows, c->piece_rows);
        *bad = i;
        if (pieces > INT32_MAX - out->n_pieces) return false;
        c->piece0 = out->n_pieces;
        c->n_pieces = (uint32_t)pieces;
        out->n_pieces += c->n_pieces;
    }
    return true;
}

uint32_t experts_matrix_of(const expert_cuts *c, uint32_t piece)
{
    uint32_t i = 0;
    while (i + 1 < c->n_matrices && piece >= c->cut[i + 1].piece0) i++;
    return i;
}

/* Whole blocks around [offset, offset + needed). */
static void blocks(uint64_t offset, uint64_t length, uint64_t *begin, uint32_t *bytes, uint32_t *skew, uint32_t *needed)
{
    *begin = block_floor(offset);
    *skew = (uint32_t)(offset - *begin);
    *needed = (uint32_t)(*skew + length);
    *bytes = (uint32_t)block_ceil(*needed);
}

void experts_extent(const expert_cuts *c, const expert_matrix *m, uint32_t piece, expert_extent *out)
{
    *out = (expert_extent){.matrix = experts_matrix_of(c, piece)};
    const expert_cut *how = &c->cut[out->matrix];
    out->row0 = (piece - how->piece0) * how->piece_rows;
    out->n_rows = min64(how->piece_rows, how->rows - out->row0);
    out->stored = out->n_rows * how->row_bytes;
    blocks(m->offset + out->row0 * how->row_bytes, out->stored, &out->begin, &out->bytes, &out->skew, &out->needed);
    if (how->side_row_bytes == 0) return;
    uint64_t length = ceil_div(out->n_rows, how->side_rows) * how->side_row_bytes;
    out->stored += length;
    blocks(m->side_offset + out->row0 / how->side_rows * how->side_row_bytes, length, &out->side_begin,
           &out->side_bytes, &out->side_skew, &out->side_needed);
}

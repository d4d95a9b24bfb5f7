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

/* false: *m cannot be cut. */
static bool take_size(const expert_matrix *m, expert_cut *c)
{
    bool sides = m->side_row_bytes > 0;
    *c = (expert_cut){.rows = m->rows,
                      .row_bytes = m->row_bytes,
                      .side_row_bytes = m->side_row_bytes,
                      .side_rows = sides ? m->side_rows : 1};
    if (c->rows == 0 || c->row_bytes == 0 || c->side_rows == 0) return false;
    if (c->rows > most_size / c->row_bytes || c->side_row_bytes > most_group) return false;
    return c->side_rows <= most_group / c->row_bytes;
}

static bool same(const expert_cut *a, const expert_cut *b)
{
    return a->rows == b->rows && a->row_bytes == b->row_bytes && a->side_row_bytes == b->side_row_bytes &&
           a->side_rows == b->side_rows;
}

/* The kind of a layer's experts, by its first; a new one where none is like it. */
static lamina_status find_kind(const experts_config *c, uint32_t layer, expert_kinds *out, uint32_t *kind,
                               lamina_error *err)
{
    expert_cuts now = {.n_matrices = c->n_matrices};
    for (uint32_t i = 0; i < c->n_matrices; i++) {
        expert_matrix m = c->locate(c->user, layer, 0, i);
        if (!take_size(&m, &now.cut[i]))
            return error_set(err, LAMINA_E_FORMAT,
                             "experts: matrix %u of %llu rows of %llu bytes cannot be read in pieces", i,
                             (unsigned long long)m.rows, (unsigned long long)m.row_bytes);
        out->sides = out->sides || m.side_row_bytes;
    }
    for (*kind = 0; *kind < out->n; ++*kind) {
        uint32_t alike = 0;
        for (uint32_t i = 0; i < c->n_matrices; i++) alike += same(&now.cut[i], &out->of[*kind].cut[i]);
        if (alike == c->n_matrices) return LAMINA_OK;
    }
    if (out->n == EXPERTS_MOST_KINDS)
        return error_set(err, LAMINA_E_FORMAT, "experts: layers of more than %d different sizes", EXPERTS_MOST_KINDS);
    out->of[out->n++] = now;
    return LAMINA_OK;
}

/* What it costs to keep an expert of each layer in slots of this size; UINT64_MAX: some row does not fit. */
static uint64_t cost(const expert_kinds *k, uint64_t slot)
{
    uint64_t pieces = 0;
    for (uint32_t i = 0; i < k->n; i++) {
        for (uint32_t j = 0; j < k->of[i].n_matrices; j++) {
            uint64_t n = fewest(&k->of[i].cut[j], slot);
            if (n == 0) return UINT64_MAX;
            pieces += n * k->of[i].n_layers;
        }
    }
    return pieces > UINT64_MAX / (slot + PIECE_COST) ? UINT64_MAX : pieces * (slot + PIECE_COST);
}

static uint64_t best_slot(const expert_kinds *k, uint64_t most)
{
    uint64_t best = most, least = UINT64_MAX;
    for (uint32_t i = 0; i < k->n; i++) {
        for (uint32_t j = 0; j < k->of[i].n_matrices; j++) {
            const expert_cut *m = &k->of[i].cut[j];
            uint64_t from = fewest(m, most), groups = ceil_div(m->rows, m->side_rows);
            for (uint64_t n = from; n <= groups && n < from + TRIES; n++) {
                uint64_t slot = span(m, rows_of(m, n)), now = cost(k, slot);
                if (now >= least) continue;
                least = now;
                best = slot;
            }
        }
    }
    return best;
}

/* false: more pieces than can be numbered. */
static bool number(expert_cuts *c, uint64_t slot)
{
    for (uint32_t i = 0; i < c->n_matrices; i++) {
        expert_cut *m = &c->cut[i];
        m->piece_rows = rows_of(m, fewest(m, slot));
        uint64_t pieces = ceil_div(m->rows, m->piece_rows);
        if (pieces > INT32_MAX - c->n_pieces) return false;
        m->piece0 = c->n_pieces;
        m->n_pieces = (uint32_t)pieces;
        c->n_pieces += m->n_pieces;
    }
    return true;
}

lamina_status experts_cut(const experts_config *c, expert_kinds *out, uint8_t *kind_of, lamina_error *err)
{
    *out = (expert_kinds){0};
    if (c->n_matrices == 0 || c->n_matrices > EXPERTS_MOST_MATRICES || c->n_layers == 0 || c->n_experts == 0)
        return error_set(err, LAMINA_E_USAGE, "experts: %u layers of %u experts of %u matrices (at most %d)",
                         c->n_layers, c->n_experts, c->n_matrices, EXPERTS_MOST_MATRICES);
    uint64_t all = (uint64_t)c->n_layers * c->n_experts;
    for (uint32_t layer = 0; layer < c->n_layers && all <= INT32_MAX; layer++) {
        uint32_t kind;
        TRY(find_kind(c, layer, out, &kind, err));
        out->of[kind].n_layers++;
        if (kind_of) kind_of[layer] = (uint8_t)kind;
    }
    uint64_t most = min64(c->piece_bytes ? c->piece_bytes : LARGEST, most_group);
    for (uint32_t i = 0; i < out->n; i++) { /* a slot holds at least the rows that share scales */
        for (uint32_t j = 0; j < c->n_matrices; j++) {
            const expert_cut *m = &out->of[i].cut[j];
            uint64_t least = span(m, rows_of(m, m->rows));
            if (most < least) most = least;
        }
    }
    out->slot_bytes = best_slot(out, most);
    bool few = all <= INT32_MAX;
    for (uint32_t i = 0; i < out->n && few; i++) {
        few = number(&out->of[i], out->slot_bytes);
        if (few && out->of[i].n_pieces > out->most_pieces) out->most_pieces = out->of[i].n_pieces;
    }
    if (few && all * out->most_pieces <= INT32_MAX) return LAMINA_OK;
    return error_set(err, LAMINA_E_FORMAT, "experts: %u layers of %u experts are too many pieces", c->n_layers,
                     c->n_experts);
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

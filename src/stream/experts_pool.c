/* Slots and reads: which piece comes next, over which other, what happens when it has arrived. Promises that what is
 * wanted is read in the order of delivery, no further ahead than keeps a device busy (what lies there waiting is not
 * cache), and that no piece is pushed out between being wanted and being delivered while another can be (two slots
 * suffice to go on). Nothing is read on a guess: see bench/LOG.md. */
#include "stream/experts_pool.h"

static const double beyond_all = 1; /* log2 of a share is never above 0 */

expert_matrix pool_locate(const experts *x, uint32_t expert, uint32_t matrix)
{
    const experts_config *c = &x->config;
    return c->locate(c->user, expert / c->n_experts, expert % c->n_experts, matrix);
}

void pool_extent(const experts *x, uint32_t expert, uint32_t piece, expert_extent *out)
{
    const expert_cuts *c = cuts_of(x, expert);
    expert_matrix m = pool_locate(x, expert, experts_matrix_of(c, piece));
    experts_extent(c, &m, piece, out);
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static void take(experts *x, uint32_t slot, uint32_t expert, uint32_t piece)
{
    expert_state *s = &x->state[expert];
    x->slots[slot].piece = piece_number(x, expert, piece);
    x->where[x->slots[slot].piece] = slot;
    if (s->slots++ > 0) return;
    s->place = x->n_kept;
    x->kept[x->n_kept++] = expert;
}

static void set_free(experts *x, uint32_t slot)
{
    expert_slot *t = &x->slots[slot];
    uint32_t expert = expert_of(x, slot);
    expert_state *s = &x->state[expert];
    x->want.ahead -= t->fresh;
    x->where[t->piece] = NONE;
    *t = (expert_slot){.piece = NONE, .next = x->free_slot};
    x->free_slot = slot;
    if (--s->slots > 0) return;
    uint32_t last = x->kept[--x->n_kept];
    x->kept[s->place] = last;
    x->state[last].place = s->place;
}

static void push_out(experts *x, uint32_t slot)
{
    x->state[expert_of(x, slot)].here--;
    set_free(x, slot);
}

/* The last piece of an expert that may be pushed out, as its slot; or NONE. Of one that is wanted, only what has been
 * delivered already; `any`: any that is there. */
static uint32_t spare_slot(const experts *x, uint32_t expert, bool any)
{
    const expert_state *s = &x->state[expert];
    const expert_wants *w = &x->want;
    uint32_t end = cuts_of(x, expert)->n_pieces;
    if (s->here == 0) return NONE;
    if (!any && s->order != NONE && s->order >= w->at) end = s->order == w->at ? w->piece : 0;
    while (end-- > 0) {
        uint32_t slot = x->where[piece_number(x, expert, end)];
        if (slot != NONE && slot != x->held && x->slots[slot].waiting == 0) return slot;
    }
    return NONE;
}

static double worth(const experts *x, uint32_t expert)
{
    uint32_t n = x->config.n_experts;
    return policy_worth(&x->policy, expert / n, expert % n, x->want.layer);
}

/* A slot of the expert that is least worth keeping, of those worth less than `most`. One expert after the other is
 * pushed out, piece by piece, so that the choice is made once for each and what remains of it is of use. */
static uint32_t least_slot(experts *x, double most)
{
    if (x->victim != NONE) {
        uint32_t slot = spare_slot(x, x->victim, false);
        if (slot != NONE && worth(x, x->victim) < most) return slot;
    }
    uint32_t best = NONE;
    x->victim = NONE;
    for (uint32_t i = 0; i < x->n_kept; i++) {
        double value = worth(x, x->kept[i]);
        if (value >= most) continue;
        uint32_t slot = spare_slot(x, x->kept[i], false);
        if (slot == NONE) continue;
        most = value;
        best = slot;
        x->victim = x->kept[i];
    }
    return best;
}

static uint32_t find_slot(experts *x, double most)
{
    if (x->free_slot == NONE) {
        uint32_t slot = least_slot(x, most);
        if (slot == NONE) return NONE;
        push_out(x, slot);
    }
    uint32_t slot = x->free_slot;
    x->free_slot = x->slots[slot].next;
    return slot;
}

void pool_make_room(experts *x)
{
    expert_wants *w = &x->want;
    for (uint32_t i = w->n; i-- > w->at;) {
        uint32_t expert = wanted_expert(x, i), slot = spare_slot(x, expert, true);
        if (slot == NONE) continue;
        expert_extent lost;
        pool_extent(x, expert, x->slots[slot].piece % x->kinds.most_pieces, &lost);
        x->stats.missed_bytes += lost.stored; /* to be read again */
        push_out(x, slot);
        break;
    }
    w->read_at = w->at;
    w->read_piece = w->piece;
}

/* ---- reads ------------------------------------------------------------------------------------------------------- */

typedef struct span_of { /* a read: whole blocks */
    uint32_t file, bytes, needed;
    uint64_t begin;
} span_of;

static void submit_read(experts *x, uint32_t slot, const span_of *s, unsigned char *to)
{
    expert_flight *f = x->free_flight;
    x->free_flight = f->next;
    x->n_free_flights--;
    x->slots[slot].waiting++;
    f->slot = slot;
    f->request.file = s->file;
    f->request.offset = s->begin;
    f->request.bytes = s->bytes;
    f->request.needed = s->needed;
    f->request.data = to;
    reader_submit(x->reader, &f->request);
}

static void submit(experts *x, uint32_t slot, uint32_t expert, uint32_t piece)
{
    const expert_cuts *c = cuts_of(x, expert);
    expert_matrix m = pool_locate(x, expert, experts_matrix_of(c, piece));
    expert_extent e;
    experts_extent(c, &m, piece, &e);
    unsigned char *to = x->pool + slot * x->kinds.slot_bytes;
    span_of rows = {.file = m.file, .begin = e.begin, .bytes = e.bytes, .needed = e.needed};
    span_of side = {.file = m.side_file, .begin = e.side_begin, .bytes = e.side_bytes, .needed = e.side_needed};
    take(x, slot, expert, piece);
    submit_read(x, slot, &rows, to);
    if (e.side_bytes) submit_read(x, slot, &side, to + e.bytes);
}

/* Steps (*at, *piece) to the next piece that is in no slot, of experts ids[order[*at]]. false: there is none. */
static bool next_missing(const experts *x, const expert_wants *w, uint32_t *at, uint32_t *piece, uint32_t *expert)
{
    for (; *at < w->n; ++*at, *piece = 0) {
        *expert = w->layer * x->config.n_experts + w->ids[w->order ? w->order[*at] : *at];
        for (; *piece < cuts_of(x, *expert)->n_pieces; ++*piece)
            if (x->where[piece_number(x, *expert, *piece)] == NONE) return true;
    }
    return false;
}

/* false: nothing that is wanted can be read now. */
static bool submit_wanted(experts *x)
{
    expert_wants *w = &x->want;
    uint32_t expert;
    if (!w->active || w->ahead >= x->window || !next_missing(x, w, &w->read_at, &w->read_piece, &expert)) return false;
    uint32_t slot = find_slot(x, beyond_all);
    if (slot == NONE) return false;
    submit(x, slot, expert, w->read_piece++);
    x->slots[slot].fresh = true;
    w->ahead++;
    return true;
}

void pool_pump(experts *x)
{
    uint32_t of_piece = x->kinds.sides ? 2 : 1;
    bool any = false;
    if (x->failed) return;
    while (x->n_free_flights >= of_piece && submit_wanted(x)) any = true;
    if (any) reader_flush(x->reader);
}

static lamina_status describe(const experts *x, const expert_flight *f, lamina_error *err)
{
    const experts_config *c = &x->config;
    const read_request *q = &f->request;
    uint32_t expert = expert_of(x, f->slot), layer = expert / c->n_experts;
    unsigned number = c->layer_numbers ? c->layer_numbers[layer] : layer, of_layer = expert % c->n_experts;
    const char *path = c->paths[q->file];
    unsigned long long offset = q->offset;
    if (q->ended)
        return error_set(
            err, LAMINA_E_IO,
            "%s: the file ends %s offset %llu, %u bytes at offset %llu were expected (layer %u, expert %u)", path,
            q->done ? "at" : "at or before", offset + q->done, q->needed, offset, number, of_layer);
    char text[128];
    return error_set(err, LAMINA_E_IO, "%s: reading %u bytes at offset %llu failed: %s (layer %u, expert %u)", path,
                     q->needed, offset, os_error_text(q->error, text, sizeof text), number, of_layer);
}

/* All reads of a slot are back. */
static void settle(experts *x, uint32_t slot)
{
    expert_state *s = &x->state[expert_of(x, slot)];
    if (!x->slots[slot].lost)
        s->here++;
    else
        set_free(x, slot);
}

bool pool_reap(experts *x, bool block)
{
    read_request *q = reader_wait(x->reader, block);
    if (!q) return false;
    expert_flight *f = q->user;
    expert_slot *t = &x->slots[f->slot];
    uint32_t expert = expert_of(x, f->slot), layer = expert / x->config.n_experts;
    int32_t number = (int32_t)(x->config.layer_numbers ? x->config.layer_numbers[layer] : layer);
    trace_span(x->config.trace, TRACE_READ + f->lane, "expert", number, q->bytes, q->submitted, q->completed);
    if (q->error) {
        t->lost = true;
        if (!x->failed) {
            x->failed = true;
            describe(x, f, &x->failure);
        }
    } else {
        x->stats.bytes_read += q->bytes;
    }
    if (--t->waiting == 0) settle(x, f->slot);
    f->next = x->free_flight;
    x->free_flight = f;
    x->n_free_flights++;
    return true;
}

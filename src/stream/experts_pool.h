/* The inside of the experts' stream, shared by experts.c (what is wanted and delivered) and experts_pool.c (slots and
 * reads).
 *
 * A piece of an expert has a number: (layer * n_experts + expert) * most_pieces + piece. It is in no slot, or in
 * one, on its way (waiting > 0) or there. An expert is "at" the number layer * n_experts + expert. */
#ifndef LAMINA_STREAM_EXPERTS_POOL_H
#define LAMINA_STREAM_EXPERTS_POOL_H

#include "stream/experts_cut.h"
#include "stream/experts_policy.h"

enum { EXPERTS_DEPTH = 64 /* reads in flight */ };

#define NONE UINT32_MAX /* no piece, no slot, not wanted; an enumerator may not be as large */

typedef struct expert_slot {
    uint32_t piece;  /* NONE: free */
    uint32_t next;   /* free ones */
    uint8_t waiting; /* reads under way */
    bool fresh;      /* read for the want under way, and not delivered */
    bool lost;       /* a read has failed */
} expert_slot;

typedef struct expert_flight {
    read_request request; /* .user: this flight */
    uint32_t slot, lane;
    struct expert_flight *next; /* free ones */
} expert_flight;

typedef struct expert_state {
    uint32_t slots, here; /* slots it has; of those, the pieces that are there */
    uint32_t place;       /* in experts.kept, when slots > 0 */
    uint32_t order;       /* place in the want under way; NONE: not wanted */
} expert_state;

typedef struct expert_wants { /* one layer of a pass */
    bool active;
    uint32_t layer, n;
    uint32_t *ids;                /* [n] */
    uint32_t *order;              /* [n] items in the order of delivery */
    uint32_t at, piece;           /* next to deliver: which of the order, which of its pieces */
    uint32_t read_at, read_piece; /* next to read */
    uint32_t ahead;               /* pieces read for it and not yet delivered */
} expert_wants;

struct experts {
    experts_config config;
    experts_layout layout;
    expert_kinds kinds;
    uint8_t *kind_of; /* [n_layers] */
    policy policy;
    reader *reader;
    unsigned char *pool;
    uint32_t n_slots, n_experts; /* of all layers */
    uint32_t window;             /* most of expert_wants.ahead */
    expert_slot *slots;
    uint32_t free_slot;  /* NONE: none */
    uint32_t *where;     /* [n_experts * kinds.most_pieces] slot of a piece, or NONE */
    expert_state *state; /* [n_experts] */
    uint32_t *kept;      /* [n_kept] experts that have slots */
    uint32_t n_kept;
    uint32_t victim; /* the expert that is being pushed out, or NONE */
    uint32_t held;   /* the slot that the consumer has, or NONE */
    expert_flight *flights, *free_flight;
    uint32_t n_free_flights;
    expert_wants want;
    bool failed; /* until experts_abort() */
    lamina_error failure;
    experts_stats stats;
};

static inline uint32_t piece_number(const experts *x, uint32_t expert, uint32_t piece)
{
    return expert * x->kinds.most_pieces + piece;
}
static inline uint32_t expert_of(const experts *x, uint32_t slot)
{
    return x->slots[slot].piece / x->kinds.most_pieces;
}
static inline const expert_cuts *cuts_of(const experts *x, uint32_t expert)
{
    return &x->kinds.of[x->kind_of[expert / x->config.n_experts]];
}
/* The expert that is item `order` of the want under way. */
static inline uint32_t wanted_expert(const experts *x, uint32_t order)
{
    return x->want.layer * x->config.n_experts + x->want.ids[x->want.order[order]];
}
expert_matrix pool_locate(const experts *x, uint32_t expert, uint32_t matrix);
void pool_extent(const experts *x, uint32_t expert, uint32_t piece, expert_extent *out);

/* Submits reads of what is wanted, while slots and flights allow. */
void pool_pump(experts *x);
/* Takes one completion. false: there was none. */
bool pool_reap(experts *x, bool block);
/* Frees a slot for the piece that is to be delivered next although all are taken by pieces that are wanted later. */
void pool_make_room(experts *x);

#endif

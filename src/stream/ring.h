/* The inside of a stream, shared by stream.c (passes), gather.c (random access) and measure.c (the ceiling).
 *
 * Two cursors walk the same endless order of matrices: `reading`, ahead, submits; `taking`, behind, delivers. Streamed
 * chunks take the slots of the ring in turn, so chunk number k is in slot k % n_slots for both, and nothing is looked
 * up. Pinned prefixes arrive in pieces, straight in their place, and need no slot. */
#ifndef LAMINA_STREAM_RING_H
#define LAMINA_STREAM_RING_H

#include "stream/layout.h"

typedef enum flight_kind { FLIGHT_SLOT, FLIGHT_PIECE, FLIGHT_GATHER } flight_kind;

typedef struct flight {   /* one read; a slot of the ring owns one, others are shared */
    read_request request; /* .user: this flight */
    flight_kind kind;
    bool ready;    /* slots: the chunk has arrived */
    uint32_t lane; /* of the trace, after TRACE_READ */
    size_t matrix;
    extent extent;  /* slots */
    uint64_t piece; /* pieces: which, of the matrix */
    uint64_t row;   /* gather: which extent, and the byte of it that this read begins with */
    uint64_t row_at;
    struct flight *next; /* free ones */
} flight;

typedef struct part { /* one matrix */
    cut cut;
    unsigned char *pin; /* its blocks from cut.pin_begin on */
    uint64_t piece0;    /* its pieces' first bit in `arrived` */
    uint64_t n_pieces;
    uint64_t n_issued;  /* pieces submitted, in order */
    uint64_t n_arrived; /* pieces arrived without a gap */
    uint64_t rows_in;   /* pinned rows arrived without a gap */
} part;

typedef struct reading {
    size_t matrix;
    uint64_t chunk; /* the next streamed chunk of the matrix */
    bool ahead;     /* in the pass that has not begun: its tail is not known yet */
    uint32_t tails; /* deliveries of the tail still to read after the present one */
} reading;

typedef struct taking {
    bool active; /* a pass is under way */
    size_t matrix;
    uint64_t row;   /* the next to deliver */
    uint64_t chunk; /* the next streamed chunk of the matrix */
    uint32_t tails;
    bool holding; /* the consumer has the slot `taken` */
} taking;

struct stream {
    stream_config config;
    stream_layout layout;
    stream_matrix *matrices;
    part *parts;
    reader *reader;
    unsigned char *ring, *pinned, *gather;
    uint32_t n_slots;
    flight *slots, *pieces, *gathers;
    flight *free_pieces;
    uint64_t *arrived;          /* a bit for each piece */
    uint64_t n_pieces;          /* of all matrices */
    uint64_t pieces_left;       /* never submitted yet (or failed) */
    bool streams;               /* some chunk is not pinned */
    uint64_t issued, taken;     /* streamed chunks submitted, given back; slot = number % n_slots */
    uint32_t flying, gathering; /* in flight: ring and pieces; gather */
    reading reading;
    taking taking;
    bool failed; /* until stream_abort() */
    lamina_error failure;
    stream_stats stats;
};

enum { GATHER_FLIGHTS = 32, MOST_DEPTH = 64 /* ring and pieces in flight */ };

/* Submits the next reads of the order while slots and depth allow. */
void ring_pump(stream *s);
/* Takes one completion. Ring and pieces are accounted for; a gather's comes back, others give NULL.
 * *any: whether there was one. */
flight *ring_reap(stream *s, bool block, bool *any);
/* Waits for all that is in flight, forgets the read-ahead, sets both cursors to the start of a pass. */
void ring_reset(stream *s);
/* The error of a finished request, in words. */
lamina_status ring_error(const stream *s, const flight *f, lamina_error *err);
typedef struct rate_job {
    uint64_t chunk_bytes;
    const part *parts; /* the streamed chunks of these; NULL: as if nothing were pinned */
    double seconds;
    uint64_t in_flight; /* bytes, at most */
} rate_job;

/* Reads streamed chunks from *matrix on (left where it stopped); nothing else may be in flight. */
lamina_status ring_rate(stream *s, const rate_job *job, size_t *matrix, double *bytes_per_s, lamina_error *err);
/* The read size, of chunk_bytes and its half and quarter, that is fastest on this device. */
uint64_t ring_tune(stream *s);

#endif

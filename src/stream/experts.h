/* Routed experts: weights that a pass asks for only once the router has spoken. Each matrix of an expert is cut by rows
 * into pieces of at most `piece_bytes`; a pool of slots of that size is both the way in and the cache: a piece that is
 * missing is read into a free slot, or over the one whose expert is least worth keeping, and stays until it is pushed
 * out. So two slots suffice for any size of expert, and every byte of the pool is a byte of cache.
 *
 * What is cached changes when a piece comes, never what is in it. */
#ifndef LAMINA_STREAM_EXPERTS_H
#define LAMINA_STREAM_EXPERTS_H

#include "base/trace.h"
#include "stream/reader.h"

typedef struct expert_matrix { /* as it lies in the files */
    uint32_t file, side_file;
    uint64_t offset, rows, row_bytes;
    uint64_t side_offset, side_row_bytes; /* scales kept apart; side_row_bytes 0: none */
    uint32_t side_rows;                   /* rows that share a row of scales: 1 (MXFP4) or 128 (fp8) */
} expert_matrix;

/* Where matrix `matrix` of an expert lies; all experts of a layer have the same sizes (layers may differ: files of
 * mixed quantisation). */
typedef expert_matrix (*expert_locate)(const void *user, uint32_t layer, uint32_t expert, uint32_t matrix);

typedef struct experts_config {
    memory *m;
    trace *trace; /* may be NULL */
    lamina_io io;
    lamina_faults faults;
    uint32_t n_files;
    const char *const *paths; /* must outlive it, as file_bytes */
    const uint64_t *file_bytes;
    uint32_t n_layers, n_experts, n_matrices; /* layers that have experts, counted from 0 */
    const uint32_t *layer_numbers; /* [n_layers] what the model calls them, for errors and traces; NULL: as counted */
    expert_locate locate;
    const void *user;
    uint64_t piece_bytes; /* at most, of a slot, if a row (or the rows that share scales) fits; 0: chosen */
    uint64_t pool_bytes;  /* memory for slots, at least experts_layout.least_pool, at most whole_pool is taken */
} experts_config;

typedef struct experts experts;

enum { EXPERTS_MOST_MATRICES = 8, EXPERTS_MOST_LAYERS = 16384 };

/* A pure function of sizes, also used to plan: slots of what size, how many experts a pool holds, what it takes beside
 * the pool (tables, request queues). Reads of the configuration: n_layers, n_experts, n_matrices, locate, user,
 * piece_bytes, pool_bytes. */
typedef struct experts_layout {
    uint64_t slot_bytes;
    uint64_t expert_bytes, stored_bytes; /* of an expert as read, whole blocks, and as stored; the average of layers */
    uint64_t pool_bytes;                 /* of pool_bytes, what would be taken: whole slots, at most whole_pool */
    uint64_t least_pool, whole_pool;     /* two slots; all experts of all layers */
    uint64_t overhead;                   /* bytes beside that pool */
} experts_layout;
/* Sizes that cannot be cut (a row of a gigabyte, 2^31 pieces) give all zeros; experts_new() says which. */
void experts_plan(const experts_config *config, experts_layout *layout);

/* Takes the pool (MEM_EXPERTS) and the tables (MEM_OTHER); nothing is allocated, or read, until experts are wanted. */
lamina_status experts_new(const experts_config *config, experts **out, lamina_error *err);
void experts_free(experts *x); /* NULL is allowed */

typedef struct expert_piece {
    uint32_t item; /* index into the ids that were wanted */
    uint32_t matrix;
    uint64_t row0, n_rows;
    const void *data; /* [n_rows] rows of row_bytes, not necessarily aligned; valid until the next call */
    const void *side; /* rows of side_row_bytes, from that of row0 on (row0 is a multiple of side_rows); or NULL */
} expert_piece;

/* One layer of a pass: which experts [n] are wanted, each once, ascending; uses[i] rows want ids[i] (for the policy).
 * Then pieces, until *more is false: an expert's matrices in order, each in order of rows, all of one expert before the
 * next; experts that are resident come first. After a failure, or to leave: experts_abort(). LAMINA_E_IO names file,
 * layer and expert. */
void experts_want(experts *x, uint32_t layer, const uint32_t *ids, const uint32_t *uses, uint32_t n);
lamina_status experts_next(experts *x, expert_piece *piece, bool *more, lamina_error *err);
void experts_abort(experts *x);

typedef struct experts_stats {
    uint64_t bytes_read;   /* whole blocks */
    uint64_t wanted, hits; /* experts asked for, found whole */
    uint64_t missed_bytes; /* of pieces that were asked for and not there, as stored */
    uint64_t resident;     /* experts that are whole in memory now */
    double stall_seconds;
} experts_stats;
void experts_get_stats(const experts *x, experts_stats *stats);
void experts_reset_stats(experts *x);

#endif

/* lamina's own form of a model on disk: a folder with manifest.json, a compact tokenizer and layers/, one valid
 * safetensors file for each unit of the pass. docs/store-format.md is the specification. */
#ifndef LAMINA_STORE_STORE_H
#define LAMINA_STORE_STORE_H

#include <stdatomic.h>

#include "format/tokenizer.h"
#include "model/model.h"

typedef struct store_job { /* shared by packing and verifying */
    memory *m;
    lamina_progress_fn progress;
    void *progress_user;       /* NULL: none */
    const atomic_bool *cancel; /* NULL: none */
    /* tests, from any thread: before each write, sync, rename and removal; on each row that has been packed */
    void (*step)(void *user);
    void (*damage)(void *user, uint8_t *row, uint64_t bytes);
    void *step_user;
    uint32_t threads; /* tests: that many, 4 to 16; 0: as the machine and the memory have it */
    bool pack_all;    /* tests: pack also what becomes no smaller by it */
} store_job;

/* How the types and roundings of what is quantised are judged: by a text. Wanted only where an earlier run has not left
 * what came of it. */
typedef struct store_calibration {
    const char *text; /* [bytes] */
    size_t bytes;
    /* moments [from->source->n_tensors], NULL each: becomes, of a matrix whose input was seen, the mean square of each
     * of its columns' inputs, f32 [columns], from mem_alloc(job->m): the caller's. What stands there on an error, too.
     */
    lamina_status (*run)(void *user, float **moments, lamina_error *err);
    void *user;
} store_calibration;

bool store_is(const char *path); /* a folder that holds a manifest or the beginnings of one */
/* A packing was begun and has not ended: store_pack() or, when the model opens no more, store_pack_resume() finishes
 * it. Until the manifest is there store_open() refuses the store. */
bool store_incomplete(const char *path);
/* A checkpoint of kind CHECKPOINT_STORE and, if the store has one, its tokenizer (else *tok = NULL). */
lamina_status store_open(memory *m, const char *path, bool with_tokenizer, checkpoint **out, tokenizer **tok,
                         lamina_error *err);
/* Writes model `from` (bound to its checkpoint); tok, calibration may be NULL. Resumes. */
lamina_status store_pack(const model *from, const tokenizer *tok, const char *path, const lamina_pack_options *options,
                         const store_calibration *calibration, const store_job *job, lamina_pack_info *info,
                         lamina_error *err);
/* Finishes an interrupted packing from what the store itself recorded, when the model it came from opens no more
 * because some of its files have been deleted already (options->delete_original of the earlier run). source: the
 * model's path as given now; LAMINA_E_USAGE when the store was begun from another; NULL: not compared. The same with
 * the text of the calibration, which is not run. */
lamina_status store_pack_resume(const char *path, const char *source, const lamina_pack_options *options,
                                const store_calibration *calibration, const store_job *job, lamina_pack_info *info,
                                lamina_error *err);
/* Reads everything back against sizes and checksums. */
lamina_status store_verify(const char *path, const store_job *job, uint64_t *bytes, lamina_error *err);

#endif

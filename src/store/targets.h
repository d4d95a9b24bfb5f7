/* What becomes of each tensor of a model that is packed by a SPEC. */
#ifndef LAMINA_STORE_TARGETS_H
#define LAMINA_STORE_TARGETS_H

#include "store/image.h"

/* LAMINA_E_USAGE when nothing can be meant by it, or when a calibration is asked for and nothing is quantised. spec may
 * be NULL: all is copied. */
lamina_status targets_check(memory *m, const char *spec, bool calibrated, lamina_error *err);
typedef struct targets_kept { /* what was to be rounded and cannot be; zero: nothing */
    uint32_t n;
    uint64_t bytes;
    size_t first;    /* index of a tensor */
    const char *why; /* static */
} targets_kept;

/* targets [from->source->n_tensors]. im: begun, for its sources. Reads weights where their sizes depend on them, with
 * buffers of so many bytes (0: 64 MiB). moments [the same], each NULL or f32 [columns]; NULL: none. The same model,
 * SPEC and moments give the same targets. */
lamina_status targets_choose(const store_job *job, const image *im, const model *from, const char *spec,
                             const float *const *moments, uint64_t buffers, image_target *targets, targets_kept *kept,
                             lamina_error *err);

#endif

/* What each tensor whose type is still open would lose as each of its candidates. */
#ifndef LAMINA_STORE_SENSITIVITY_H
#define LAMINA_STORE_SENSITIVITY_H

#include "store/image.h"
#include "store/recipe.h"

/* out [mo->source->n_tensors], zeroed: filled in where targets [the same] are open, by quantising rows that are spread
 * evenly over the tensor. importance [the same]: see quantize_rows(); NULL, or an element of it: none. im: begun, for
 * its sources. buffers: bytes, 0: 64 MiB. What it finds depends on the tensors and the importance alone.
 * LAMINA_E_UNSUPPORTED: a number that no block can hold. LAMINA_E_BUDGET: buffers too small for a row. */
lamina_status sensitivity_survey(const store_job *job, const image *im, const model *mo, uint64_t buffers,
                                 const recipe_target *targets, const float *const *importance, recipe_survey *out,
                                 lamina_error *err);

#endif

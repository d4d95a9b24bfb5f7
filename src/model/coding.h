/* How the numbers of a matrix are coded where the tensor alone does not say: fp8, bitsandbytes. */
#ifndef LAMINA_MODEL_CODING_H
#define LAMINA_MODEL_CODING_H

#include "model/family.h"

enum { CODING_MOST = 8 };

typedef struct coding {
    tensor as;       /* the tensor as the matrix it stands for: shape, and the type that kernels apply */
    uint32_t scales; /* index of the tensor of scales; TENSOR_NONE: none */
    scale_grid grid;
    const nested_scales *nested;   /* lives as long as the model */
    uint32_t with[CODING_MOST], n; /* indices of tensors that belong to this one, scales included */
} coding;

/* Reads what lies beside t; a little of it from the file. `small` keeps nested scales. */
lamina_status coding_of(const reading *r, arena *small, const tensor *t, coding *out);

#endif

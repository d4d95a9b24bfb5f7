/* The first look at weights that will be packed: how long their rows become, before anything is laid out. */
#ifndef LAMINA_STORE_SURVEY_H
#define LAMINA_STORE_SURVEY_H

#include "store/image.h"

typedef struct survey_item {
    const tensor *t;      /* of bf16, f16 or f32; not empty */
    image_target *target; /* given: how it is copied; becomes how it is packed, where that is less */
    size_t like; /* the first item of those that share a form and the length of rows; itself: it stands alone */
} survey_item;

/* Reads the tensors [n] from im's sources. Those that share a form are of one type and width. buffers: bytes, 0: 64
 * MiB; LAMINA_E_BUDGET when they do not hold a row. What it finds depends on the tensors alone. */
lamina_status survey_packed(const store_job *job, const image *im, uint64_t buffers, const survey_item *items, size_t n,
                            lamina_error *err);

#endif

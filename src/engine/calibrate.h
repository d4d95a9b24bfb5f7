/* What each matrix of the pass is applied to, over a text: by that the quantisers judge which errors cost most. */
#ifndef LAMINA_ENGINE_CALIBRATE_H
#define LAMINA_ENGINE_CALIBRATE_H

#include "engine/pass.h"
#include "store/store.h"

/* While they are gathered. Of an expert's gate and up the router stands for, which reads the same for all rows. */
typedef struct moments {
    size_t n;
    double **sums;  /* [n tensors of the checkpoint]: of squares, [columns]; NULL: not looked at */
    uint64_t *rows; /* [n] that were added up */
    uint32_t *like; /* [n] the tensor whose sums are a tensor's; itself but for experts' gate and up */
} moments;

/* e->moments is there: adds what w is about to be applied to, x [n, k]. */
void moments_add(pass *p, const weight *w, const float *x, uint32_t n, uint64_t k);

typedef struct calibration_tokens {
    int32_t *id;
    size_t n;
    bool opens; /* id[0] is what the tokenizer puts before every text: before each window, then */
} calibration_tokens;

typedef struct calibration_run {
    lamina_engine *e; /* not started */
    const char *text;
    size_t bytes;
    uint64_t memory; /* of the process; 0: what is free */
    uint32_t rows;   /* of a pass at most; 0: what the memory allows */
} calibration_run;

/* Passes over tokens, in windows. out [tensors of the checkpoint]: see store_calibration. */
lamina_status calibrate_tokens(const calibration_run *c, const calibration_tokens *t, float **out, lamina_error *err);
/* The same over the text, as the tokenizer has it: for store_calibration. */
lamina_status calibrate(void *calibration_run, float **out, lamina_error *err);

#endif

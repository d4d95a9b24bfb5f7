/* What the files of the CPU backend's skeleton share. */
#ifndef LAMINA_BACKEND_CPU_BACKEND_CPU_H
#define LAMINA_BACKEND_CPU_BACKEND_CPU_H

#include "kernels.h"

typedef struct cpu {
    backend base; /* first, so that a backend is a cpu */
    memory *m;
    pool *pool;
    uint32_t threads;
    kernels kernels;
    uint8_t *scratch; /* [threads] of scratch_bytes */
    size_t scratch_bytes;
} cpu;

static inline cpu *cpu_of(backend *b)
{
    return (cpu *)b;
}
static inline float *cpu_scratch(const cpu *c, uint32_t thread)
{
    return (float *)(void *)(c->scratch + thread * c->scratch_bytes);
}

/* Calls fn over parts of [0, n), on this thread alone when n * elements is little. */
typedef void (*items_fn)(void *arg, uint64_t from, uint64_t to);
void cpu_items(cpu *c, items_fn fn, void *arg, uint64_t n, uint64_t elements);

size_t cpu_product_scratch(void); /* bytes a thread needs for products */
size_t cpu_packed_bytes(backend *b, uint32_t n, uint64_t k);
void cpu_pack(backend *b, const float *x, uint32_t n, uint64_t k, void *packed);
void cpu_apply(backend *b, const matrix_rows *w, const void *packed, uint32_t n, float *y, uint64_t stride);
void cpu_apply_columns(backend *b, const matrix_rows *w, const float *x, uint64_t x_stride, uint32_t n, float *y,
                       uint64_t stride);
void cpu_widen(backend *b, const matrix_rows *w, float *x);
void cpu_row_norms(backend *b, const matrix_rows *w, float *out);
void cpu_attention(backend *b, const attention_args *a);

#endif

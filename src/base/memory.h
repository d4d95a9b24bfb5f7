/* The accountant: every allocation of the library is tagged, counted against a limit and can be made to fail.
 *
 * One accountant belongs to one engine. It is thread-safe. Allocations are zeroed. What other libraries allocate
 * (JSON trees while a file is opened) is not seen here; the plan covers it by measuring the resident size. */
#ifndef LAMINA_BASE_MEMORY_H
#define LAMINA_BASE_MEMORY_H

#include "base/error.h"

typedef enum mem_tag {
    MEM_MODEL, /* configuration, tensor directory, roles */
    MEM_TOKENIZER,
    MEM_VECTOR, /* norms and biases */
    MEM_KV,
    MEM_ACTIVATION,
    MEM_RING,
    MEM_PINNED,
    MEM_EXPERTS, /* the pool of routed experts */
    MEM_OTHER,   /* small things: handles, threads, queues */
    MEM_TAGS
} mem_tag;

typedef struct memory memory;

/* The accountant itself is allocated outside of its own account. NULL when the system gives no memory. */
memory *memory_new(void);
/* Frees it. Everything must have been given back: returns the bytes still held (0 in a correct program). */
uint64_t memory_free(memory *m);
void memory_set_limit(memory *m, uint64_t bytes); /* 0: none */
void memory_fail_at(memory *m, uint64_t n);       /* the n-th allocation from now fails; 0: never */
uint64_t memory_used(const memory *m);
uint64_t memory_used_tag(const memory *m, mem_tag tag);
uint64_t memory_peak(const memory *m);
uint64_t memory_count(const memory *m); /* allocations made so far */
const char *mem_tag_name(mem_tag tag);

/* Zeroed, aligned to 64; from 1 MiB on in pages of its own, which leave the process when freed. bytes 0 gives a valid
 * pointer. On failure NULL, with *err set (LAMINA_E_MEMORY, or LAMINA_E_BUDGET when the limit forbids it). */
void *mem_alloc(memory *m, mem_tag tag, size_t bytes, lamina_error *err);
/* n * size with the product checked. */
void *mem_array(memory *m, mem_tag tag, size_t n, size_t size, lamina_error *err);
/* Grows or shrinks; what is new is zeroed. p may be NULL. On failure NULL and p is untouched. */
void *mem_resize(memory *m, mem_tag tag, void *p, size_t bytes, lamina_error *err);
char *mem_strdup(memory *m, mem_tag tag, const char *text, lamina_error *err);
void mem_free(memory *m, void *p); /* NULL is allowed */

/* Whole pages straight from the system, page-aligned (2 MiB-aligned and advised huge when large), zero, counted
 * rounded up to pages. Given back with the same size. */
void *mem_pages(memory *m, mem_tag tag, size_t bytes, lamina_error *err);
void mem_pages_free(memory *m, mem_tag tag, void *p, size_t bytes);

/* An arena: many small pieces with one life (names, directories). */
typedef struct arena arena;
arena *arena_new(memory *m, mem_tag tag, lamina_error *err);
void arena_free(arena *a);                                                        /* NULL is allowed */
void *arena_alloc(arena *a, size_t bytes, lamina_error *err);                     /* zeroed, aligned to 16 */
void *arena_array(arena *a, size_t n, size_t size, lamina_error *err);            /* product checked */
char *arena_strndup(arena *a, const char *text, size_t bytes, lamina_error *err); /* NUL-terminated */

#endif

/* Owns the accountant and the arena. Promises that the bytes counted are never less than what the caller can touch,
 * that the limit is never passed even for a moment (a reservation comes before the allocation), and that the counters
 * are right under any mixture of threads. Every block carries a header of 64 bytes in front, so that giving it back
 * needs no size and so that a stranger's pointer is noticed. */
#include "base/memory.h"

#include "base/os.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct memory {
    _Atomic uint64_t used, peak, limit, count;
    _Atomic uint64_t fail_at; /* value of count at which an allocation fails; 0: never */
    _Atomic uint64_t by_tag[MEM_TAGS];
};

enum {
    ALIGN = 64,
    OVERHEAD = 128,       /* header, and the padding to align behind calloc's 16 */
    PAGES_LEAST = 1 << 20 /* from here on blocks are pages of the system, so that what is freed leaves the process:
                           * a heap keeps up to twice its largest block */
};
#define HEADER_MAGIC UINT64_C(0x6c616d696e61a55a)

typedef struct header {
    void *base;       /* what calloc or os_pages gave */
    uint64_t bytes;   /* the caller's */
    uint64_t counted; /* in the account */
    uint64_t tag;
    uint64_t magic;
    uint64_t is_pages;
    uint64_t unused[2];
} header;
_Static_assert(sizeof(header) == ALIGN, "the header keeps the alignment");

memory *memory_new(void)
{
    return calloc(1, sizeof(memory));
}

uint64_t memory_free(memory *m)
{
    if (!m) return 0;
    uint64_t held = atomic_load(&m->used);
    free(m);
    return held;
}

void memory_set_limit(memory *m, uint64_t bytes)
{
    atomic_store(&m->limit, bytes);
}

void memory_fail_at(memory *m, uint64_t n)
{
    atomic_store(&m->fail_at, n ? atomic_load(&m->count) + n : 0);
}

uint64_t memory_used(const memory *m)
{
    return atomic_load(&m->used);
}

uint64_t memory_used_tag(const memory *m, mem_tag tag)
{
    return atomic_load(&m->by_tag[tag]);
}

uint64_t memory_peak(const memory *m)
{
    return atomic_load(&m->peak);
}

uint64_t memory_count(const memory *m)
{
    return atomic_load(&m->count);
}

const char *mem_tag_name(mem_tag tag)
{
    static const char *const names[MEM_TAGS] = {"model", "tokenizer", "vectors", "kv",   "activations",
                                                "ring",  "pinned",    "experts", "other"};
    return (unsigned)tag < MEM_TAGS ? names[tag] : "unknown";
}

/* Counts one more allocation; false when it is the one that is to fail. */
static bool admit(memory *m, size_t bytes, lamina_error *err)
{
    uint64_t count = atomic_fetch_add(&m->count, 1) + 1;
    if (count != atomic_load_explicit(&m->fail_at, memory_order_relaxed)) return true;
    error_set(err, LAMINA_E_MEMORY, "memory: allocation %llu (%zu bytes) failed on purpose", (unsigned long long)count,
              bytes);
    return false;
}

static bool reserve(memory *m, mem_tag tag, uint64_t bytes, lamina_error *err)
{
    uint64_t used = atomic_load(&m->used), limit = atomic_load(&m->limit), next;
    do {
        if (bytes > UINT64_MAX - used || (limit && used + bytes > limit)) {
            error_set(err, LAMINA_E_BUDGET, "memory: %llu bytes for %s do not fit: %llu of %llu bytes are in use",
                      (unsigned long long)bytes, mem_tag_name(tag), (unsigned long long)used,
                      (unsigned long long)limit);
            return false;
        }
        next = used + bytes;
    } while (!atomic_compare_exchange_weak(&m->used, &used, next));
    atomic_fetch_add(&m->by_tag[tag], bytes);
    uint64_t peak = atomic_load(&m->peak);
    while (peak < next && !atomic_compare_exchange_weak(&m->peak, &peak, next)) {
    }
    return true;
}

static void release(memory *m, mem_tag tag, uint64_t bytes)
{
    atomic_fetch_sub(&m->used, bytes);
    atomic_fetch_sub(&m->by_tag[tag], bytes);
}

static void *no_memory(mem_tag tag, size_t bytes, lamina_error *err)
{
    error_set(err, LAMINA_E_MEMORY, "memory: the system gave no %zu bytes for %s", bytes, mem_tag_name(tag));
    return NULL;
}

/* The first aligned address behind base that leaves room for a header. */
static unsigned char *aligned_in(void *base)
{
    unsigned char *p = (unsigned char *)base + sizeof(header);
    size_t over = (uintptr_t)p % ALIGN;
    return over ? p + (ALIGN - over) : p;
}

static header *header_of(void *p)
{
    return (header *)(void *)((unsigned char *)p - sizeof(header));
}

static void *write_header(void *base, header h)
{
    unsigned char *p = aligned_in(base);
    h.base = base;
    h.magic = HEADER_MAGIC;
    memcpy(p - sizeof h, &h, sizeof h);
    return p;
}

/* bytes rounded up to whole pages, at least one; 0 on overflow. */
static size_t whole_pages(size_t bytes)
{
    size_t page = os_page_size();
    if (bytes == 0) return page;
    if (bytes > SIZE_MAX - page) return 0;
    return (bytes + page - 1) / page * page;
}

static void *allocate(memory *m, mem_tag tag, size_t bytes, lamina_error *err)
{
    if (bytes > SIZE_MAX / 2 - OVERHEAD) return no_memory(tag, bytes, err);
    bool is_pages = bytes >= PAGES_LEAST;
    size_t counted = is_pages ? whole_pages(bytes + OVERHEAD) : bytes + OVERHEAD;
    if (!reserve(m, tag, counted, err)) return NULL;
    void *base = is_pages ? os_pages(counted) : calloc(1, counted);
    if (!base) {
        release(m, tag, counted);
        return no_memory(tag, bytes, err);
    }
    header h = {.bytes = bytes, .counted = counted, .tag = (uint64_t)tag, .is_pages = is_pages};
    return write_header(base, h);
}

void *mem_alloc(memory *m, mem_tag tag, size_t bytes, lamina_error *err)
{
    return admit(m, bytes, err) ? allocate(m, tag, bytes, err) : NULL;
}

void *mem_array(memory *m, mem_tag tag, size_t n, size_t size, lamina_error *err)
{
    if (size && n > SIZE_MAX / size) {
        error_set(err, LAMINA_E_MEMORY, "memory: %zu times %zu bytes for %s is more than can be addressed", n, size,
                  mem_tag_name(tag));
        return NULL;
    }
    return mem_alloc(m, tag, n * size, err);
}

/* Within the heap: grows in place where it can. */
static void *resize_heap(memory *m, mem_tag tag, void *p, header old, size_t bytes, lamina_error *err)
{
    size_t counted = bytes + OVERHEAD, kept = bytes < old.bytes ? bytes : (size_t)old.bytes;
    if (counted > old.counted && !reserve(m, tag, counted - old.counted, err)) return NULL;
    size_t shift = (size_t)((unsigned char *)p - (unsigned char *)old.base);
    void *base = realloc(old.base, counted);
    if (!base) {
        if (counted > old.counted) release(m, tag, counted - old.counted);
        return no_memory(tag, bytes, err);
    }
    unsigned char *q = aligned_in(base);
    memmove(q, (unsigned char *)base + shift, kept);
    memset(q + kept, 0, bytes - kept);
    if (counted < old.counted) release(m, (mem_tag)old.tag, old.counted - counted);
    if ((mem_tag)old.tag != tag) { /* what was kept changes its tag */
        atomic_fetch_sub(&m->by_tag[old.tag], kept + OVERHEAD);
        atomic_fetch_add(&m->by_tag[tag], kept + OVERHEAD);
    }
    return write_header(base, (header){.bytes = bytes, .counted = counted, .tag = (uint64_t)tag});
}

void *mem_resize(memory *m, mem_tag tag, void *p, size_t bytes, lamina_error *err)
{
    if (!admit(m, bytes, err)) return NULL;
    if (!p) return allocate(m, tag, bytes, err);
    header old = *header_of(p);
    if (old.magic != HEADER_MAGIC) return no_memory(tag, bytes, err);
    if (!old.is_pages && bytes < PAGES_LEAST) return resize_heap(m, tag, p, old, bytes, err);
    void *q = allocate(m, tag, bytes, err);
    if (!q) return NULL;
    memcpy(q, p, bytes < old.bytes ? bytes : (size_t)old.bytes);
    mem_free(m, p);
    return q;
}

char *mem_strdup(memory *m, mem_tag tag, const char *text, lamina_error *err)
{
    size_t bytes = strlen(text) + 1;
    char *copy = mem_alloc(m, tag, bytes, err);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}

void mem_free(memory *m, void *p)
{
    if (!p) return;
    header *h = header_of(p);
    if (h->magic != HEADER_MAGIC) return; /* not ours, or given back before: losing it is the lesser harm */
    header old = *h;
    h->magic = 0;
    if (old.is_pages)
        os_pages_free(old.base, old.counted);
    else
        free(old.base);
    release(m, (mem_tag)old.tag, old.counted);
}

void *mem_pages(memory *m, mem_tag tag, size_t bytes, lamina_error *err)
{
    size_t whole = whole_pages(bytes);
    if (!admit(m, bytes, err)) return NULL;
    if (!whole) return no_memory(tag, bytes, err);
    if (!reserve(m, tag, whole, err)) return NULL;
    void *p = os_pages(whole);
    if (!p) {
        release(m, tag, whole);
        return no_memory(tag, bytes, err);
    }
    return p;
}

void mem_pages_free(memory *m, mem_tag tag, void *p, size_t bytes)
{
    if (!p) return;
    size_t whole = whole_pages(bytes);
    os_pages_free(p, whole);
    release(m, tag, whole);
}

/* ---- the arena ------------------------------------------------------------------------------------------------ */

enum { ARENA_ALIGN = 16, ARENA_FIRST = 4096, ARENA_LARGEST = 1 << 20 };

typedef struct arena_block {
    struct arena_block *before;
    size_t used, size; /* of the bytes behind this struct, which keeps their alignment */
    size_t unused;
} arena_block;
_Static_assert(sizeof(arena_block) % ARENA_ALIGN == 0, "pieces stay aligned");

struct arena {
    memory *m;
    mem_tag tag;
    arena_block *last;
    size_t next_size;
};

arena *arena_new(memory *m, mem_tag tag, lamina_error *err)
{
    arena *a = mem_alloc(m, tag, sizeof *a, err);
    if (!a) return NULL;
    *a = (arena){.m = m, .tag = tag, .next_size = ARENA_FIRST};
    return a;
}

void arena_free(arena *a)
{
    if (!a) return;
    for (arena_block *b = a->last; b;) {
        arena_block *before = b->before;
        mem_free(a->m, b);
        b = before;
    }
    mem_free(a->m, a);
}

void *arena_alloc(arena *a, size_t bytes, lamina_error *err)
{
    if (bytes > SIZE_MAX / 4) return no_memory(a->tag, bytes, err);
    size_t whole = (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    arena_block *b = a->last;
    if (!b || whole > b->size - b->used) {
        size_t size = whole > a->next_size ? whole : a->next_size;
        b = mem_alloc(a->m, a->tag, sizeof *b + size, err);
        if (!b) return NULL;
        *b = (arena_block){.before = a->last, .size = size};
        a->last = b;
        if (a->next_size < ARENA_LARGEST) a->next_size *= 2;
    }
    void *p = (unsigned char *)(b + 1) + b->used;
    b->used += whole;
    return p;
}

void *arena_array(arena *a, size_t n, size_t size, lamina_error *err)
{
    if (size && n > SIZE_MAX / size) {
        error_set(err, LAMINA_E_MEMORY, "memory: %zu times %zu bytes for %s is more than can be addressed", n, size,
                  mem_tag_name(a->tag));
        return NULL;
    }
    return arena_alloc(a, n * size, err);
}

char *arena_strndup(arena *a, const char *text, size_t bytes, lamina_error *err)
{
    if (bytes == SIZE_MAX) return no_memory(a->tag, bytes, err);
    char *copy = arena_alloc(a, bytes + 1, err);
    if (copy && bytes) memcpy(copy, text, bytes);
    return copy;
}

/* The accountant: what it counts, refuses and fails on purpose; the arena. */
#include "base/memory.h"
#include "base/os.h"
#include "test.h"

#include <pthread.h>
#include <stdint.h>

/* A sanitizer's shadow and an emulator's code are resident too, and a system without a port does not say what is. */
#if defined(TEST_SANITIZED) || defined(TEST_PORTABLE) || defined(TEST_EMULATED)
enum { RESIDENT_IS_KNOWN = 0 };
#else
enum { RESIDENT_IS_KNOWN = 1 };
#endif

static bool all_zero(const void *p, size_t bytes)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < bytes; i++) {
        if (b[i]) return false;
    }
    return true;
}

static void aligned_zeroed_counted(void)
{
    memory *m = memory_new();
    lamina_error e = {0};
    void *held[64];
    for (size_t i = 0; i < 64; i++) {
        size_t bytes = i * i * i * 7;
        uint64_t before = memory_used(m);
        held[i] = mem_alloc(m, MEM_KV, bytes, &e);
        REQUIRE(held[i], "%s", e.text);
        CHECK((uintptr_t)held[i] % 64 == 0);
        CHECK(all_zero(held[i], bytes));
        CHECK(memory_used(m) >= before + bytes);
        memset(held[i], 0xAA, bytes);
    }
    CHECK(memory_count(m) == 64);
    CHECK(memory_used_tag(m, MEM_KV) == memory_used(m));
    CHECK(memory_peak(m) == memory_used(m));
    for (size_t i = 0; i < 64; i++) mem_free(m, held[i]);
    mem_free(m, NULL);
    CHECK(memory_used(m) == 0 && memory_used_tag(m, MEM_KV) == 0);
    CHECK(memory_peak(m) > 0);
    CHECK(memory_free(m) == 0);
}

static void held_bytes_are_told(void)
{
    memory *m = memory_new();
    void *p = mem_alloc(m, MEM_OTHER, 100, NULL);
    uint64_t used = memory_used(m);
    CHECK(used >= 100);
    mem_free(m, p);
    CHECK(memory_free(m) == 0);
    CHECK(memory_free(NULL) == 0);
}

static void resize_keeps_and_zeroes(void)
{
    static const size_t sizes[] = {1, 100, 64, 5000, 4999, 300000, 17, 1 << 20, 0, 3 << 20, 9 << 20, 33, 2 << 20, 1};
    memory *m = memory_new();
    unsigned char *p = NULL;
    size_t before = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        mem_tag tag = i % 2 ? MEM_RING : MEM_MODEL;
        unsigned char *q = mem_resize(m, tag, p, sizes[i], NULL);
        REQUIRE(q);
        CHECK((uintptr_t)q % 64 == 0);
        size_t kept = sizes[i] < before ? sizes[i] : before;
        bool same = true;
        for (size_t k = 0; k < kept; k++) same = same && q[k] == (unsigned char)(k * 31 + 1);
        CHECK(same, "step %zu", i);
        CHECK(all_zero(q + kept, sizes[i] - kept), "step %zu", i);
        CHECK(memory_used_tag(m, tag) == memory_used(m));
        for (size_t k = 0; k < sizes[i]; k++) q[k] = (unsigned char)(k * 31 + 1);
        p = q;
        before = sizes[i];
    }
    mem_free(m, p);
    CHECK(memory_free(m) == 0);
}

/* What is freed leaves the process, in any order of sizes: a heap would keep some of it. */
static void large_blocks_leave(void)
{
    if (!RESIDENT_IS_KNOWN) SKIP("the resident size is not the account's here");
    memory *m = memory_new();
    uint64_t before = os_resident_bytes();
    for (int round = 0; round < 4; round++) {
        void *large[8], *small[8]; /* a small one that stays behind each large one holds a heap's end in place */
        for (size_t i = 0; i < 8; i++) {
            large[i] = mem_alloc(m, MEM_KV, (i + 1) * 3000000, NULL);
            small[i] = mem_alloc(m, MEM_KV, 1000, NULL);
            REQUIRE(large[i] && small[i]);
            memset(large[i], 1, (i + 1) * 3000000);
        }
        for (size_t i = 0; i < 8; i++) mem_free(m, large[i]);
        CHECK(os_resident_bytes() < before + (1 << 20), "round %d: %llu", round,
              (unsigned long long)(os_resident_bytes() - before));
        for (size_t i = 0; i < 8; i++) mem_free(m, small[i]);
    }
    CHECK(memory_free(m) == 0);
}

static void limit_refuses(void)
{
    memory *m = memory_new();
    lamina_error e = {0};
    memory_set_limit(m, 10000);
    void *p = mem_alloc(m, MEM_RING, 6000, &e);
    REQUIRE(p);
    CHECK(!mem_alloc(m, MEM_RING, 6000, &e));
    CHECK(e.status == LAMINA_E_BUDGET && strstr(e.text, "ring"), "%s", e.text);
    memset(p, 7, 6000);
    CHECK(!mem_resize(m, MEM_RING, p, 12000, &e));
    CHECK(e.status == LAMINA_E_BUDGET);
    CHECK(((char *)p)[5999] == 7);
    CHECK(!mem_pages(m, MEM_RING, 8192, &e));
    CHECK(e.status == LAMINA_E_BUDGET);
    CHECK(memory_peak(m) <= 10000, "%llu", (unsigned long long)memory_peak(m));
    memory_set_limit(m, 0);
    p = mem_resize(m, MEM_RING, p, 12000, &e);
    CHECK(p);
    mem_free(m, p);
    CHECK(memory_free(m) == 0);
}

static void overflow_refused(void)
{
    memory *m = memory_new();
    lamina_error e = {0};
    CHECK(!mem_array(m, MEM_OTHER, SIZE_MAX / 2, 3, &e));
    CHECK(e.status == LAMINA_E_MEMORY, "%s", e.text);
    CHECK(!mem_alloc(m, MEM_OTHER, SIZE_MAX, &e));
    CHECK(!mem_alloc(m, MEM_OTHER, SIZE_MAX - 100, &e));
    CHECK(!mem_pages(m, MEM_OTHER, SIZE_MAX, &e));
    void *p = mem_alloc(m, MEM_OTHER, 10, &e);
    CHECK(!mem_resize(m, MEM_OTHER, p, SIZE_MAX - 5, &e));
    mem_free(m, p);
    arena *a = arena_new(m, MEM_OTHER, &e);
    CHECK(!arena_alloc(a, SIZE_MAX, &e));
    CHECK(!arena_array(a, SIZE_MAX / 2, 3, &e));
    CHECK(!arena_strndup(a, "", SIZE_MAX, &e));
    arena_free(a);
    p = mem_array(m, MEM_OTHER, 0, 8, &e);
    CHECK(p);
    mem_free(m, p);
    CHECK(memory_free(m) == 0);
}

/* Every kind of allocation can be the one that fails; the next one works again. */
static void fails_on_purpose(void)
{
    memory *m = memory_new();
    for (int kind = 0; kind < 4; kind++) {
        lamina_error e = {0};
        void *p = mem_alloc(m, MEM_OTHER, 10, &e), *q = NULL;
        for (int round = 0; round < 2; round++) {
            memory_fail_at(m, round == 0 ? 1 : 0);
            switch (kind) {
            case 0:
                q = mem_alloc(m, MEM_OTHER, 10, &e);
                break;
            case 1:
                q = mem_array(m, MEM_OTHER, 10, 10, &e);
                break;
            case 2:
                q = mem_resize(m, MEM_OTHER, p, 1000, &e);
                break;
            default:
                q = mem_pages(m, MEM_OTHER, 10000, &e);
                break;
            }
            if (round == 0) CHECK(!q && e.status == LAMINA_E_MEMORY, "kind %d", kind);
        }
        REQUIRE(q, "kind %d: %s", kind, e.text);
        if (kind == 3)
            mem_pages_free(m, MEM_OTHER, q, 10000);
        else
            mem_free(m, q);
        if (kind != 2) mem_free(m, p);
        CHECK(memory_used(m) == 0, "kind %d", kind);
    }
    memory_fail_at(m, 3);
    void *a = mem_alloc(m, MEM_OTHER, 1, NULL), *b = mem_alloc(m, MEM_OTHER, 1, NULL);
    CHECK(a && b && !mem_alloc(m, MEM_OTHER, 1, NULL));
    void *c = mem_alloc(m, MEM_OTHER, 1, NULL);
    CHECK(c);
    mem_free(m, a);
    mem_free(m, b);
    mem_free(m, c);
    CHECK(memory_free(m) == 0);
}

/* Pages: zero, aligned, counted by whole pages; what is resident is never more than what is counted. */
static void pages(void)
{
    static const size_t sizes[] = {1, 4096, 100000, (3 << 20) + 5, 8 << 20, (9 << 20) + 4096, (33 << 20) - 4096};
    memory *m = memory_new();
    size_t page = os_page_size();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t counted = (sizes[i] + page - 1) / page * page;
        uint64_t before = os_resident_bytes();
        unsigned char *p = mem_pages(m, MEM_RING, sizes[i], NULL);
        REQUIRE(p);
        CHECK((uintptr_t)p % page == 0);
        if (sizes[i] >= 8 << 20) CHECK((uintptr_t)p % (2 << 20) == 0, "%zu", sizes[i]);
        CHECK(memory_used(m) == counted);
        CHECK(all_zero(p, counted));
        memset(p, 1, counted);
        uint64_t after = RESIDENT_IS_KNOWN ? os_resident_bytes() : 0;
        /* Slack: 64 pages by which the system's per-core counters may lag, and page tables are not counted. */
        CHECK(after <= before + counted + 128 * page, "%zu bytes: resident grew by %llu", counted,
              (unsigned long long)(after - before));
        mem_pages_free(m, MEM_RING, p, sizes[i]);
        CHECK(memory_used(m) == 0);
    }
    mem_pages_free(m, MEM_RING, NULL, 100);
    CHECK(memory_free(m) == 0);
}

static void arena_pieces(void)
{
    memory *m = memory_new();
    arena *a = arena_new(m, MEM_MODEL, NULL);
    REQUIRE(a);
    unsigned char *pieces[500];
    for (size_t i = 0; i < 500; i++) {
        size_t bytes = i * 37 % 9000;
        pieces[i] = arena_alloc(a, bytes, NULL);
        REQUIRE(pieces[i]);
        CHECK((uintptr_t)pieces[i] % 16 == 0);
        CHECK(all_zero(pieces[i], bytes));
        memset(pieces[i], (int)(i & 0xFF), bytes);
    }
    bool same = true;
    for (size_t i = 0; i < 500; i++) {
        for (size_t k = 0; k < i * 37 % 9000; k++) same = same && pieces[i][k] == (i & 0xFF);
    }
    CHECK(same);
    char *text = arena_strndup(a, "weights and more", 7, NULL);
    CHECK(text && strcmp(text, "weights") == 0);
    memory_fail_at(m, 1);
    CHECK(!arena_alloc(a, 5 << 20, NULL));
    CHECK(arena_alloc(a, 5 << 20, NULL));
    arena_free(a);
    arena_free(NULL);
    CHECK(memory_free(m) == 0);
}

static void *churn(void *arg)
{
    memory *m = arg;
    unsigned random = 12345;
    for (int i = 0; i < 20000; i++) {
        random = random * 1664525 + 1013904223;
        void *p = mem_alloc(m, (mem_tag)(random % MEM_TAGS), random >> 20, NULL);
        if (p) p = mem_resize(m, (mem_tag)(random / 8 % MEM_TAGS), p, random >> 19, NULL);
        mem_free(m, p);
    }
    return NULL;
}

static void many_threads(void)
{
    memory *m = memory_new();
    memory_set_limit(m, 100000);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) REQUIRE(pthread_create(&threads[i], NULL, churn, m) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int t = 0; t < MEM_TAGS; t++) CHECK(memory_used_tag(m, (mem_tag)t) == 0, "%s", mem_tag_name((mem_tag)t));
    CHECK(memory_peak(m) <= 100000);
    CHECK(memory_free(m) == 0);
}

static void duplicates_text(void)
{
    memory *m = memory_new();
    char *text = mem_strdup(m, MEM_OTHER, "abc", NULL);
    CHECK(text && strcmp(text, "abc") == 0);
    mem_free(m, text);
    CHECK(memory_free(m) == 0);
}

TEST_MAIN(T(aligned_zeroed_counted), T(held_bytes_are_told), T(resize_keeps_and_zeroes), T(large_blocks_leave),
          T(limit_refuses), T(overflow_refused), T(fails_on_purpose), T(pages), T(arena_pieces), T(many_threads),
          T(duplicates_text))

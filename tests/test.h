/* The tests' whole framework. A test program is one .c file: TEST functions, then TEST_MAIN. It prints a line for each
 * test and, last, "N passed, N failed, N skipped"; its exit status is 1 when any failed. */
#ifndef LAMINA_TEST_H
#define LAMINA_TEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_state { int passed, failed, skipped; bool current_failed, current_skipped; } test_state;
static test_state test_now;

/* Fails the running test with a printf-style reason, and goes on. */
#define CHECK(condition, ...)                                                     \
    do {                                                                          \
        if (!(condition)) {                                                       \
            test_now.current_failed = true;                                       \
            printf("  %s:%d: %s is false: ", __FILE__, __LINE__, #condition);     \
            printf("" __VA_ARGS__);                                               \
            printf("\n");                                                         \
        }                                                                         \
    } while (0)
/* The same, and leaves the test function. */
#define REQUIRE(condition, ...)                                                   \
    do {                                                                          \
        bool require_ok_ = (condition);                                           \
        if (!require_ok_) {                                                       \
            test_now.current_failed = true;                                       \
            printf("  %s:%d: %s is false: ", __FILE__, __LINE__, #condition);     \
            printf("" __VA_ARGS__);                                               \
            printf("\n");                                                         \
            return;                                                               \
        }                                                                         \
    } while (0)
/* Leaves the test function; the test counts as skipped and says why. */
#define SKIP(...)                                                                 \
    do {                                                                          \
        test_now.current_skipped = true;                                          \
        printf("  skipped: ");                                                    \
        printf(__VA_ARGS__);                                                      \
        printf("\n");                                                             \
        return;                                                                   \
    } while (0)

typedef struct test_case { const char *name; void (*run)(void); } test_case;

static inline int test_main(int argc, char **argv, const test_case *cases, size_t n)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < n; i++) {
        if (argc > 1 && !strstr(cases[i].name, argv[1])) continue; /* one argument selects by name */
        test_now.current_failed = test_now.current_skipped = false;
        cases[i].run();
        const char *verdict = test_now.current_failed ? "FAILED" : test_now.current_skipped ? "skipped" : "ok";
        printf("%-8s %s\n", verdict, cases[i].name);
        if (test_now.current_failed) test_now.failed++;
        else if (test_now.current_skipped) test_now.skipped++;
        else test_now.passed++;
    }
    printf("%d passed, %d failed, %d skipped\n", test_now.passed, test_now.failed, test_now.skipped);
    return test_now.failed ? 1 : 0;
}

/* TEST_MAIN(T(a), T(b)) runs static void functions a and b. */
#define TEST_MAIN(...)                                                            \
    int main(int argc, char **argv)                                               \
    {                                                                             \
        const test_case cases[] = {__VA_ARGS__};                                  \
        return test_main(argc, argv, cases, sizeof cases / sizeof *cases);        \
    }
#define T(f) {#f, f}

#endif

/* The tests' whole framework. A test program is one .c file: TEST functions, then TEST_MAIN. It prints a line for each
 * test and, last, "N passed, N failed, N skipped"; its exit status is 1 when any failed. */
#ifndef LAMINA_TEST_H
#define LAMINA_TEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_state {
    int passed, failed, skipped;
    bool current_failed, current_skipped;
} test_state;
static test_state test_now;

static inline bool test_check(bool ok, const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static inline bool test_check(bool ok, const char *file, int line, const char *condition, const char *format, ...)
{
    if (ok) return true;
    va_list args;
    va_start(args, format);
    printf("  %s:%d: %s is false: ", file, line, condition);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    test_now.current_failed = true;
    return false;
}

/* CHECK(condition) or CHECK(condition, "printf-style reason", ...) fails the running test, and goes on. */
#define CHECK(...) (void)(TEST_PICK(__VA_ARGS__)(__VA_ARGS__))
/* The same, and leaves the test function. */
#define REQUIRE(...)                                                                                                   \
    do {                                                                                                               \
        if (!TEST_PICK(__VA_ARGS__)(__VA_ARGS__)) return;                                                              \
    } while (0)
/* TEST_SAY with a reason, TEST_MUTE without: C11 has no empty variable arguments. Up to 11 of them. */
#define TEST_PICK(...)                                                                                                 \
    TEST_13TH(__VA_ARGS__, TEST_SAY, TEST_SAY, TEST_SAY, TEST_SAY, TEST_SAY, TEST_SAY, TEST_SAY, TEST_SAY, TEST_SAY,   \
              TEST_SAY, TEST_SAY, TEST_MUTE, 0)
#define TEST_13TH(a, b, c, d, e, f, g, h, i, j, k, l, chosen, ...) chosen
#define TEST_SAY(condition, ...)                                   test_check((condition), __FILE__, __LINE__, #condition, __VA_ARGS__)
#define TEST_MUTE(condition)                                       test_check((condition), __FILE__, __LINE__, #condition, "%s", "")
/* Leaves the test function; the test counts as skipped and says why. */
#define SKIP(...)                                                                                                      \
    do {                                                                                                               \
        test_now.current_skipped = true;                                                                               \
        printf("  skipped: ");                                                                                         \
        printf(__VA_ARGS__);                                                                                           \
        printf("\n");                                                                                                  \
        return;                                                                                                        \
    } while (0)

typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case;

static inline int test_main(int argc, char **argv, const test_case *cases, size_t n)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < n; i++) {
        if (argc > 1 && !strstr(cases[i].name, argv[1])) continue; /* one argument selects by name */
        test_now.current_failed = test_now.current_skipped = false;
        cases[i].run();
        const char *verdict = test_now.current_failed ? "FAILED" : test_now.current_skipped ? "skipped" : "ok";
        printf("%-8s %s\n", verdict, cases[i].name);
        if (test_now.current_failed)
            test_now.failed++;
        else if (test_now.current_skipped)
            test_now.skipped++;
        else
            test_now.passed++;
    }
    printf("%d passed, %d failed, %d skipped\n", test_now.passed, test_now.failed, test_now.skipped);
    return test_now.failed ? 1 : 0;
}

/* TEST_MAIN(T(a), T(b)) runs static void functions a and b. */
#define TEST_MAIN(...)                                                                                                 \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        const test_case test_cases_[] = {__VA_ARGS__};                                                                 \
        return test_main(argc, argv, test_cases_, sizeof test_cases_ / sizeof *test_cases_);                           \
    }
/* clang-format off */
#define T(f) {#f, f}
/* clang-format on */

#endif

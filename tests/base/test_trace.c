/* The timeline: a whole JSON array, whatever the number of spans, lanes and threads. */
#include "base/os.h"
#include "base/trace.h"
#include "test.h"

#include <pthread.h>
#include <unistd.h>

/* A checker of JSON's shape: brackets, strings, numbers, literals, commas. Returns behind the value, or NULL. */
static const char *json_skip(const char *s, int depth);

static const char *blank(const char *s)
{
    return s + strspn(s, " \n\t");
}

static const char *json_string(const char *s)
{
    if (*s++ != '"') return NULL;
    for (; *s != '"'; s++) {
        if ((unsigned char)*s < 0x20) return NULL;
        if (*s == '\\' && !strchr("\"\\/bfnrtu", *++s)) return NULL;
    }
    return s + 1;
}

static const char *json_inside(const char *s, char close, int depth)
{
    s = blank(s + 1);
    if (*s == close) return s + 1;
    for (;;) {
        if (close == '}') {
            if (!(s = json_string(blank(s)))) return NULL;
            s = blank(s);
            if (*s++ != ':') return NULL;
        }
        if (!(s = json_skip(s, depth + 1))) return NULL;
        s = blank(s);
        if (*s == close) return s + 1;
        if (*s++ != ',') return NULL;
    }
}

static const char *json_skip(const char *s, int depth)
{
    s = blank(s);
    if (depth > 8) return NULL;
    if (*s == '{') return json_inside(s, '}', depth);
    if (*s == '[') return json_inside(s, ']', depth);
    if (*s == '"') return json_string(s);
    size_t n = strspn(s, "0123456789.-");
    return n ? s + n : NULL;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

enum { SPANS_EACH = 3000 };

static void *add_spans(void *arg)
{
    trace *t = arg;
    for (int i = 0; i < SPANS_EACH; i++) {
        double now = os_seconds();
        trace_span(t, TRACE_READ + (uint32_t)i % 4, "read \"q\\\n", i % 3 - 1, (uint64_t)(i % 2) * 4096, now,
                   now + 1e-4);
    }
    return NULL;
}

static void whole_array(void)
{
    char path[] = "/tmp/lamina_trace_XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    memory *m = memory_new();
    trace *t = NULL;
    lamina_error e = {0};
    REQUIRE(trace_new(m, path, &t, &e) == LAMINA_OK, "%s", e.text);
    double begin = os_seconds();
    trace_span(t, TRACE_COMPUTE, "matmul", 3, 0, begin, begin + 0.001234567);
    trace_span(t, TRACE_WAIT, "wait", -1, 0, begin, begin - 1); /* a length below nothing is nothing */
    trace_span(t, 100000, "far lane", -1, 7, begin - 5, begin); /* begun before the timeline */
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) REQUIRE(pthread_create(&threads[i], NULL, add_spans, t) == 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    CHECK(trace_close(t, &e) == LAMINA_OK, "%s", e.text);
    char *text = NULL;
    size_t bytes = 0;
    REQUIRE(os_read_file(m, path, 1 << 24, &text, &bytes, &e) == LAMINA_OK, "%s", e.text);
    const char *end = json_skip(text, 0);
    CHECK(end && *blank(end) == '\0', "not JSON");
    CHECK(count(text, "\"ph\":\"X\"") == 3 * SPANS_EACH + 3, "%zu spans", count(text, "\"ph\":\"X\""));
    CHECK(count(text, "\"thread_name\"") == 6, "%zu lanes", count(text, "\"thread_name\""));
    CHECK(strstr(text, "\"dur\":1234.56"), "microseconds"); /* the last digit is the double's */
    CHECK(strstr(text, "\"args\":{\"layer\":1,\"bytes\":4096}"));
    mem_free(m, text);
    os_remove(path, NULL);
    CHECK(memory_free(m) == 0);
}

static void empty_and_none(void)
{
    char path[] = "/tmp/lamina_trace_XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    memory *m = memory_new();
    trace *t = NULL;
    REQUIRE(trace_new(m, path, &t, NULL) == LAMINA_OK);
    CHECK(trace_close(t, NULL) == LAMINA_OK);
    char *text = NULL;
    size_t bytes = 0;
    REQUIRE(os_read_file(m, path, 1000, &text, &bytes, NULL) == LAMINA_OK);
    const char *end = json_skip(text, 0);
    CHECK(end && *blank(end) == '\0', "%s", text);
    mem_free(m, text);
    os_remove(path, NULL);
    trace_span(NULL, 1, "x", 0, 0, 0, 0);
    CHECK(trace_close(NULL, NULL) == LAMINA_OK);
    CHECK(memory_free(m) == 0);
}

static void failures(void)
{
    memory *m = memory_new();
    trace *t = NULL;
    lamina_error e = {0};
    CHECK(trace_new(m, "/nowhere/at/all.json", &t, &e) == LAMINA_E_IO && !t);
    memory_fail_at(m, 1);
    CHECK(trace_new(m, "/tmp/lamina_trace_none", &t, &e) == LAMINA_E_MEMORY && !t);
    if (os_exists("/dev/full")) {
        REQUIRE(trace_new(m, "/dev/full", &t, &e) == LAMINA_OK, "%s", e.text);
        add_spans(t);
        CHECK(trace_close(t, &e) == LAMINA_E_SPACE, "%s", e.text);
    }
    CHECK(memory_free(m) == 0);
}

TEST_MAIN(T(whole_array), T(empty_and_none), T(failures))

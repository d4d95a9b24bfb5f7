/* Chat templates against transformers: tests/data/template/cases.jsonl (written by tools/template_golden.py) holds templates,
 * what goes in and what must come out, or that they are refused; then limits, refusals by their words, failing
 * allocations, the known forms.
 *
 * Called as: test_format_template --pipe, it is the driver of tools/template_compare.py: cases in, results out, a line of
 * JSON each. */
#include "base/os.h"
#include "format/template.h"
#include "test.h"

/* ---- one case ----------------------------------------------------------------------------------------------- */

static bool read_time(const json_t *at, struct tm *t)
{
    if (!json_is_array(at) || json_array_size(at) != 6) return false;
    int n[6];
    for (size_t i = 0; i < 6; i++) n[i] = (int)json_integer_value(json_array_get(at, i));
    struct tm parts = {
        .tm_year = n[0] - 1900, .tm_mon = n[1] - 1, .tm_mday = n[2], .tm_hour = n[3], .tm_min = n[4], .tm_sec = n[5]};
    time_t seconds = timegm(&parts);
    return gmtime_r(&seconds, t) != NULL;
}

static const json_t *given(const json_t *c, const char *name)
{
    const json_t *x = json_object_get(c, name);
    return json_is_null(x) ? NULL : x;
}

static lamina_status render_case(memory *m, const json_t *c, char **text, size_t *bytes, lamina_error *err)
{
    const json_t *source = json_object_get(c, "template");
    struct tm now;
    json_t *empty = json_array();
    template_input in = {
        .source = json_string_value(source),
        .bytes = json_string_length(source),
        .messages = given(c, "messages") ? given(c, "messages") : empty,
        .tools = given(c, "tools"),
        .documents = given(c, "documents"),
        .extra = given(c, "extra"),
        .add_generation_prompt = json_is_true(json_object_get(c, "add_generation_prompt")),
        .now = read_time(json_object_get(c, "now"), &now) ? &now : NULL,
    };
    lamina_status s = template_render(m, &in, text, bytes, err);
    json_decref(empty);
    return s;
}

static lamina_status render(memory *m, const char *source, char **text, lamina_error *err)
{
    json_t *messages = json_array();
    size_t bytes;
    template_input in = {.source = source, .bytes = strlen(source), .messages = messages};
    lamina_status s = template_render(m, &in, text, &bytes, err);
    json_decref(messages);
    return s;
}

static void check_empty(memory *m)
{
    uint64_t left = memory_free(m);
    CHECK(left == 0, "%llu bytes are still held", (unsigned long long)left);
}

static void golden(void)
{
    memory *m = memory_new();
    char *data = NULL;
    size_t n = 0, lines = 0, wrong = 0;
    REQUIRE(os_read_file(m, TEST_DATA "/template/cases.jsonl", 1 << 26, &data, &n, NULL) == LAMINA_OK, "no cases");
    json_t *shared = NULL; /* the first line: what cases without messages of their own are given */
    for (char *at = data, *end; (end = memchr(at, '\n', n - (size_t)(at - data))); at = end + 1) {
        json_t *c = json_loadb(at, (size_t)(end - at), 0, NULL);
        char *text = NULL;
        size_t bytes = 0;
        lamina_error err = {0};
        CHECK(c != NULL, "line %zu is no JSON", lines);
        if (!c) break;
        if (!lines++) {
            shared = c;
            continue;
        }
        if (!json_object_get(c, "messages")) json_object_update_missing(c, shared);
        const json_t *out = json_object_get(c, "out");
        lamina_status s = render_case(m, c, &text, &bytes, &err);
        bool same =
            out ? s == LAMINA_OK && bytes == json_string_length(out) && memcmp(text, json_string_value(out), bytes) == 0
                : s == LAMINA_E_FORMAT && strncmp(err.text, "chat template, line ", 20) == 0;
        CHECK(same, "line %zu: %s\n  gives    %s\n  expected %s", lines,
              json_string_value(json_object_get(c, "template")), s == LAMINA_OK ? text : err.text,
              out ? json_string_value(out) : "a refusal");
        wrong += !same;
        mem_free(m, text);
        json_decref(c);
    }
    CHECK(lines > 500 && !wrong, "%zu cases, %zu differ", lines, wrong);
    printf("  %zu cases, %zu differ\n", lines - 1, wrong);
    json_decref(shared);
    mem_free(m, data);
    check_empty(m);
}

/* ---- the driver --------------------------------------------------------------------------------------------- */

static int drive(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    while ((n = getline(&line, &capacity, stdin)) > 0) {
        memory *m = memory_new();
        json_t *c = json_loadb(line, (size_t)n, 0, NULL), *answer = json_object();
        char *text = NULL;
        size_t bytes = 0;
        lamina_error err = {0};
        if (!m || !c || !answer) return 1;
        if (render_case(m, c, &text, &bytes, &err) == LAMINA_OK)
            json_object_set_new(answer, "out", json_stringn(text, bytes));
        else
            json_object_set_new(answer, "error", json_string(err.text));
        char *out = json_dumps(answer, JSON_COMPACT);
        printf("%s\n", out);
        fflush(stdout);
        free(out);
        mem_free(m, text);
        json_decref(c);
        json_decref(answer);
        if (memory_free(m)) return 1;
    }
    free(line);
    return 0;
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(golden)};
    (void)render;
    if (argc == 2 && strcmp(argv[1], "--pipe") == 0) return drive();
    return test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}

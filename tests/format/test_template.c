/* Chat templates against transformers: tests/data/template/cases.jsonl (written by tools/template_golden.py) holds
 * templates, what goes in and what must come out, or that they are refused; then limits, refusals by their words,
 * failing allocations, the known forms.
 *
 * Called as: test_format_template --pipe, it is the driver of tools/template_compare.py: cases in, results out, a line
 * of JSON each. */
#include "base/os.h"
#include "format/template.h"
#include "format/tokenizer_internal.h"
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

/* ---- real templates ----------------------------------------------------------------------------------------- */

static uint64_t fnv(const char *text, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* A tokenizer_config.json's template through each conversation; what comes out is known by its hash, "" for a
 * refusal. */
static size_t check_real(const json_t *folder, const json_t *conversations)
{
    char path[1024];
    const char *name = json_string_value(json_object_get(folder, "name"));
    const json_t *hashes = json_object_get(folder, "hashes");
    snprintf(path, sizeof path, TEST_SHARED "/tokenizers/%s/tokenizer_config.json", name);
    json_t *config = json_load_file(path, JSON_DECODE_INT_AS_REAL, NULL);
    if (!config) return 0;
    memory *m = memory_new();
    size_t wrong = 0, i;
    json_t *given_case;
    json_array_foreach((json_t *)(uintptr_t)conversations, i, given_case)
    {
        char *text = NULL, hash[24] = "";
        size_t bytes = 0;
        lamina_error err = {0};
        json_t *c = json_copy(given_case), *extra = json_deep_copy(json_object_get(folder, "tokens"));
        json_object_update(extra, json_object_get(given_case, "extra"));
        json_object_set_new(c, "extra", extra);
        json_object_set(c, "template", json_object_get(config, "chat_template"));
        if (render_case(m, c, &text, &bytes, &err) == LAMINA_OK)
            snprintf(hash, sizeof hash, "%016llx", (unsigned long long)fnv(text, bytes));
        wrong += strcmp(hash, json_string_value(json_array_get(hashes, i))) != 0;
        mem_free(m, text);
        json_decref(c);
    }
    CHECK(!wrong, "%s: %zu of %zu renderings differ", name, wrong, i);
    printf("  %s: %zu renderings, %zu differ\n", name, i, wrong);
    json_decref(config);
    check_empty(m);
    return i;
}

static void real_templates(void)
{
    json_t *all = json_load_file(TEST_DATA "/template/real.json", 0, NULL), *folder;
    size_t i, done = 0;
    REQUIRE(all, "no real.json");
    json_array_foreach(json_object_get(all, "folders"), i, folder) done +=
        check_real(folder, json_object_get(all, "conversations"));
    json_decref(all);
    if (!done) SKIP("no real tokenizers beside the repository");
}

/* ---- refusals ----------------------------------------------------------------------------------------------- */

typedef struct refusal {
    const char *source, *words;
} refusal;

/* What grows without end stops at a limit, soon, and says which. */
static const refusal bombs[] = {
    {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than"},
    {"{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
     "more than"},
    {"{{ 'a' * 10 ** 9 }}", "a text of more than"},
    {"{{ ('a' * 60000000) ~ ('b' * 60000000) }}", "more than"},
    {"{{ [1] * 10 ** 9 }}", "a list of more than"},
    {"{{ range(10 ** 9) }}", "MAX_RANGE"},
    {"{{ range(-9223372036854775807, 9223372036854775807) }}", "MAX_RANGE"},
    {"{{ '%999999999d' % 1 }}", "a width of more than"},
    {"{{ '{:999999999}'.format(1) }}", "too wide"},
    {"{{ 'x'.center(10 ** 12) }}", "a text of more than"},
    {"{{ 'x'.ljust(10 ** 9) }}", "a text of more than"},
    {"{{ 'a\nb'|indent(10 ** 9) }}", "a text of more than"},
    {"{{ '\t'.expandtabs(10 ** 9) }}", "a text of more than"},
    {"{{ [1]|batch(10 ** 9, 1)|list }}", "values of more than"},
    {"{{ [1]|slice(10 ** 9)|list }}", "values of more than"},
    {"{{ [1]|tojson(indent=10 ** 9) }}", "an indent of"},
    {"{{ 'aaaaaaaaaa' * 1000000 | replace('a', 'b' * 1000) }}", "unsupported operand"},
    {"{{ ('a' * 1000000)|replace('a', 'b' * 1000) }}", "a text of more than"},
    {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "levels"},
    {"{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "levels"},
    {"{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}", "more than"},
    {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "levels"},
    {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "levels"},
    {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
     "levels"},
    {"{% set ns = namespace(x=[], y=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}"
     "{% endfor %}{{ ns.x == ns.y }}",
     "levels"},
    {"{% set ns = namespace(x='a') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "more than"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "more than"},
    {"{% set ns = namespace(x={}) %}{% for i in range(99999) %}{% set ns.x = dict(ns.x, **{'k' ~ i: 1}) %}{% endfor %}",
     "more than"},
    {"{{ 9223372036854775807 + 1 }}", "beyond 64 bits"},
    {"{{ -9223372036854775807 - 2 }}", "beyond 64 bits"},
    {"{{ 2 ** 64 }}", "beyond 64 bits"},
    {"{{ 9999999999999999999 }}", "beyond 64 bits"},
    {"{{ 10 ** 18 * 10 }}", "beyond 64 bits"},
};

/* Wrong templates, with the line that is named. */
static const refusal wrong[] = {
    {"{{ missing.x }}", "line 1: 'missing' is undefined"},
    {"a\nb\n{{ missing.x }}", "line 3: 'missing' is undefined"},
    {"{{ messages[0].role }}", "line 1: list object has no element 0"},
    {"{{ none.a.b }}", "line 1: 'None' has no attribute 'a'"},
    {"\n{{ raise_exception('Roles must alternate') }}", "line 2: Roles must alternate"},
    {"{{ raise_exception('two\nlines') }}", "two"},
    {"{% include 'x' %}", "include: a chat template cannot open other templates"},
    {"{% import '/etc/passwd' as p %}", "import: a chat template cannot open"},
    {"{% from 'x' import y %}", "from: a chat template cannot open"},
    {"{% extends 'x' %}", "extends: a chat template cannot open"},
    {"{% for x in y %}", "expected endfor, found the end of the template"},
    {"{% if x %}", "expected elif, found the end of the template"},
    {"\n\n{% unknown %}", "line 3: expected a tag that is known, found unknown"},
    {"{{ 1|nope }}", "No filter named 'nope'"},
    {"{{ 1 is nope }}", "No test named 'nope'"},
    {"{{ x", "expected }}, found the end of the template"},
    {"{{ (x }}", "bracket"},
    {"{{ 'x }}", "a string without an end"},
    {"{# x", "a comment without an end"},
    {"{{ a ? b }}", "a character that is not expected"},
    {"{{ [].append(1) }}", "access to attribute 'append' of 'list' object is unsafe"},
    {"{{ {}.update(a=1) }}", "access to attribute 'update' of 'dict' object is unsafe"},
    {"{{ 1 + 'a' }}", "unsupported operand type(s) for +: 'int' and 'str'"},
    {"{{ 'a' < 1 }}", "'<' not supported between instances of 'str' and 'int'"},
    {"{{ 5|length }}", "object of type 'int' has no len()"},
    {"{% for x in 5 %}{% endfor %}", "'int' object is not iterable"},
    {"{{ {[]: 1} }}", "unhashable type: 'list'"},
    {"{% break %}", "expected a loop around break"},
    {"{{ missing|tojson }}", "Object of type Undefined is not JSON serializable"},
    {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "macro 'm' takes not more than 1 argument(s)"},
    {"\xff", "not UTF-8"},
};

static void check_refusals(const refusal *rows, size_t n, double seconds)
{
    for (size_t i = 0; i < n; i++) {
        memory *m = memory_new();
        char *text = NULL;
        lamina_error err = {0};
        double begin = os_seconds();
        lamina_status s = render(m, rows[i].source, &text, &err);
        double took = os_seconds() - begin;
        CHECK(s == LAMINA_E_FORMAT && strstr(err.text, rows[i].words), "%s: status %d: %s", rows[i].source, s,
              err.text);
        CHECK(took < seconds, "%s: %.1f s", rows[i].source, took);
        CHECK(memory_peak(m) < 400u << 20, "%s: %llu bytes", rows[i].source, (unsigned long long)memory_peak(m));
        CHECK(!strchr(err.text, '\n'), "two lines: %s", err.text);
        mem_free(m, text);
        check_empty(m);
    }
}

static void bombs_are_refused(void)
{
    check_refusals(bombs, sizeof bombs / sizeof *bombs, 60);
}

static void wrong_templates(void)
{
    check_refusals(wrong, sizeof wrong / sizeof *wrong, 10);
}

/* A source made of one piece again and again, and what else may be behind it. */
static void nesting(void)
{
    static const struct {
        const char *open, *middle, *words;
    } rows[] = {
        {"(", "1", "nested"},    {"[", "1", "nested"},  {"{1:", "1", "nested"}, {"not ", "1", "nested"},
        {"-", "1", "nested"},    {"f(", "1", "nested"}, {"a[", "1", "nested"},  {"1 if 1 else ", "1", "nested"},
        {"1 + ", "1", "levels"}, {"'a' ~ ", "1", NULL}, {"1 == ", "1", NULL},   {"1 and ", "1", "levels"},
        {"x|d(", "1", "nested"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        memory *m = memory_new();
        size_t n = strlen(rows[i].open), times = 20000;
        char *source = malloc(n * times + 64), *text = NULL, *at = source;
        REQUIRE(source, "no memory");
        at += sprintf(at, "{{ ");
        for (size_t k = 0; k < times; k++, at += n) memcpy(at, rows[i].open, n);
        sprintf(at, "%s }}", rows[i].middle);
        lamina_error err = {0};
        lamina_status s = render(m, source, &text, &err);
        if (rows[i].words)
            CHECK(s == LAMINA_E_FORMAT && strstr(err.text, rows[i].words), "%s: %s", rows[i].open, err.text);
        else
            CHECK(s == LAMINA_OK, "%s: %s", rows[i].open, err.text);
        mem_free(m, text);
        free(source);
        check_empty(m);
    }
}

static void nested_blocks(void)
{
    memory *m = memory_new();
    size_t times = 5000;
    char *source = malloc(times * 16 + 16), *text = NULL, *at = source;
    REQUIRE(source, "no memory");
    for (size_t k = 0; k < times; k++) at += sprintf(at, "{%% if true %%}");
    lamina_error err = {0};
    CHECK(render(m, source, &text, &err) == LAMINA_E_FORMAT && strstr(err.text, "nested"), "%s", err.text);
    free(source);
    json_t *deep = json_array(), *messages = json_array();
    for (int i = 0; i < 1000; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, deep);
        deep = outer;
    }
    json_t *message = json_object();
    json_object_set_new(message, "content", deep);
    json_array_append_new(messages, message);
    size_t bytes;
    template_input in = {.source = "x", .bytes = 1, .messages = messages};
    CHECK(template_render(m, &in, &text, &bytes, &err) == LAMINA_E_FORMAT && strstr(err.text, "levels"), "%s",
          err.text);
    json_decref(messages);
    check_empty(m);
}

/* ---- failing on purpose ------------------------------------------------------------------------------------- */

static void failing_allocations(void)
{
    static const char source[] = "{% set ns = namespace(t='') %}{% macro m(x) %}[{{ x|upper }}]{% endmacro %}"
                                 "{% for i in range(300) %}{% set ns.t = ns.t ~ m('abc' ~ i) %}{% endfor %}{{ ns.t "
                                 "}}{{ {'a': [1, 2.5]}|tojson }}";
    uint64_t failed = 0;
    for (uint64_t n = 1;; n++) {
        memory *m = memory_new();
        char *text = NULL;
        lamina_error err = {0};
        memory_fail_at(m, n);
        lamina_status s = render(m, source, &text, &err);
        CHECK(s == LAMINA_OK || s == LAMINA_E_MEMORY, "allocation %llu: status %d: %s", (unsigned long long)n, s,
              err.text);
        bool done = memory_count(m) < n;
        failed += s != LAMINA_OK;
        mem_free(m, text);
        check_empty(m);
        if (done || test_now.current_failed) break;
    }
    CHECK(failed > 5, "%llu failures were seen", (unsigned long long)failed);
}

static void budget(void)
{
    memory *m = memory_new();
    char *text = NULL;
    lamina_error err = {0};
    memory_set_limit(m, 1 << 20);
    CHECK(render(m, "{{ 'a' * 8000000 }}", &text, &err) == LAMINA_E_BUDGET, "%s", err.text);
    CHECK(render(m, "{{ 'a' * 80 }}", &text, &err) == LAMINA_OK, "%s", err.text);
    mem_free(m, text);
    check_empty(m);
}

/* ---- known forms -------------------------------------------------------------------------------------------- */

typedef struct form {
    const char *folder, *model_type, *expected;
} form;

/* The tokenizers of real models with another model's type would be no test: each stands with its own. */
static void known_forms(void)
{
    static const form forms[] = {
        {"baichuan2", "baichuan", "S<reserved_106>Q<reserved_107>A<reserved_106>R<reserved_107>"},
        {"qwen2_5", "qwen",
         "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
         "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n"},
        {"mistral_v1_json", "mistral", "<s>[INST] S\n\nQ [/INST]A</s>[INST] R [/INST]"},
        {"mistral_v1_json", "llama", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST] A </s><s>[INST] R [/INST]"},
        {"internlm2", "internlm2",
         "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
         "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n"},
        {"internlm2", "internlm", "<s><|System|>:S\n<|User|>:Q<eoh>\n<|Bot|>:A<eoa>\n<|User|>:R<eoh>\n<|Bot|>:"},
        {"chatglm3", "chatglm", "[gMASK]sop[Round 1]\n\n问：S\n\nQ\n\n答：A\n\n[Round 2]\n\n问：R\n\n答："},
        {"gpt2", "gpt2", NULL},
    };
    json_t *messages = json_loads("[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Q\"},"
                                  "{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"user\",\"content\":\"R\"}]",
                                  0, NULL);
    unsigned there = 0;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        memory *m = memory_new();
        char path[1024], *json = NULL, *text = NULL, config[64];
        size_t n = 0, bytes = 0;
        tokenizer *t = NULL;
        lamina_error err = {0};
        snprintf(path, sizeof path, TEST_SHARED "/tokenizers/%s/tokenizer.json", forms[i].folder);
        if (os_exists(path) && os_read_file(m, path, 1 << 28, &json, &n, &err) == LAMINA_OK) {
            there++;
            snprintf(config, sizeof config, "{\"model_type\":\"%s\"}", forms[i].model_type);
            tokenizer_files f = {.json = json, .json_bytes = n, .model = config, .model_bytes = strlen(config)};
            CHECK(tokenizer_read_json(m, &f, &t, &err) == LAMINA_OK, "%s", err.text);
            const char *source = t ? template_choose(t, false) : NULL;
            CHECK((source != NULL) == (forms[i].expected != NULL), "%s", forms[i].folder);
            template_input in = {.source = source, .messages = messages, .add_generation_prompt = true};
            in.bytes = source ? strlen(source) : 0;
            if (source) CHECK(template_render(m, &in, &text, &bytes, &err) == LAMINA_OK, "%s", err.text);
            if (text) CHECK(strcmp(text, forms[i].expected) == 0, "%s: %s", forms[i].folder, text);
        }
        mem_free(m, text);
        tokenizer_free(t);
        mem_free(m, json);
        check_empty(m);
    }
    json_decref(messages);
    if (!there) SKIP("no real tokenizers beside the repository");
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
    static const test_case cases[] = {T(golden),     T(real_templates), T(bombs_are_refused),   T(wrong_templates),
                                      T(nesting),    T(nested_blocks),  T(failing_allocations), T(budget),
                                      T(known_forms)};
    if (argc == 2 && strcmp(argv[1], "--pipe") == 0) return drive();
    return test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}

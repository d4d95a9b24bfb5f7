/* Error lines: one line of valid, harmless UTF-8 whatever went in. */
#include "base/error.h"
#include "test.h"

static void plain_text(void)
{
    lamina_error e = {0};
    CHECK(error_set(&e, LAMINA_E_FORMAT, "%s: expected %d, found %d", "a.gguf", 3, 4) == LAMINA_E_FORMAT);
    CHECK(e.status == LAMINA_E_FORMAT);
    CHECK(strcmp(e.text, "a.gguf: expected 3, found 4") == 0, "%s", e.text);
    CHECK(error_set(NULL, LAMINA_E_IO, "nobody reads this") == LAMINA_E_IO);
}

static void prefix(void)
{
    lamina_error e = {0};
    error_set(&e, LAMINA_E_IO, "reading failed");
    CHECK(error_prefix(&e, LAMINA_E_FORMAT, "layer %d", 7) == LAMINA_E_IO);
    CHECK(strcmp(e.text, "layer 7: reading failed") == 0, "%s", e.text);
    CHECK(error_prefix(NULL, LAMINA_E_FORMAT, "x") == LAMINA_E_FORMAT);
    for (int i = 0; i < 400; i++) error_prefix(&e, LAMINA_E_IO, "level %d", i);
    CHECK(strlen(e.text) == sizeof e.text - 1, "%zu", strlen(e.text));
}

static void own_text_as_argument(void)
{
    lamina_error e = {0};
    error_set(&e, LAMINA_E_IO, "inner");
    error_set(&e, LAMINA_E_FORMAT, "outer (%s)", e.text);
    CHECK(strcmp(e.text, "outer (inner)") == 0, "%s", e.text);
}

static void harmful_bytes(void)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"a\nb\tc\x1b[31m\x7f", "a?b?c?[31m?"},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"}, /* é € and a face stay */
        {"\xc2\x80\xc2\x9f|", "??|"},                                                     /* C1 controls */
        {"\xe2\x80\xae|\xe2\x80\xa8|\xe2\x81\xa6", "?|?|?"}, /* overrides, line separator */
        {"\xef\xbb\xbf|", "?|"},                             /* byte order mark */
        {"\xc0\xaf", "??"},                                  /* not the shortest form */
        {"\xe0\x80\x80", "???"},
        {"\xed\xa0\x80", "???"},      /* surrogate */
        {"\xf4\x90\x80\x80", "????"}, /* beyond U+10FFFF */
        {"\xff\xfe|\x80", "??|?"},
        {"cut \xe2\x82", "cut ??"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lamina_error e = {0};
        error_set(&e, LAMINA_E_FORMAT, "%s", cases[i].in);
        CHECK(strcmp(e.text, cases[i].out) == 0, "case %zu: %s", i, e.text);
    }
}

/* A long line is cut between characters at every alignment of a three-byte character. */
static void cut_between_characters(void)
{
    for (int lead = 0; lead < 4; lead++) {
        char long_text[2000] = "xxx";
        size_t n = (size_t)lead;
        while (n + 3 < sizeof long_text) {
            memcpy(long_text + n, "\xe2\x82\xac", 3);
            n += 3;
        }
        long_text[n] = '\0';
        lamina_error e;
        memset(&e, 0xEE, sizeof e);
        error_set(&e, LAMINA_E_FORMAT, "%s", long_text);
        size_t got = strlen(e.text);
        CHECK(got < sizeof e.text && got + 3 >= sizeof e.text, "%zu", got);
        CHECK((got - (size_t)lead) % 3 == 0, "%zu", got);
        CHECK(!strchr(e.text, '?'));
    }
}

static void names(void)
{
    for (int s = LAMINA_OK; s <= LAMINA_E_SPACE; s++) {
        const char *name = lamina_status_name((lamina_status)s);
        CHECK(name && *name && strcmp(name, "unknown status") != 0, "%d", s);
        for (int t = 0; t < s; t++) CHECK(strcmp(name, lamina_status_name((lamina_status)t)) != 0, "%d and %d", s, t);
    }
    CHECK(strcmp(lamina_status_name((lamina_status)99), "unknown status") == 0);
}

TEST_MAIN(T(plain_text), T(prefix), T(own_text_as_argument), T(harmful_bytes), T(cut_between_characters), T(names))

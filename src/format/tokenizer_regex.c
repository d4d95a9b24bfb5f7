/* Patterns of pre-tokenizers, through PCRE2.
 *
 * tokenizer.json is written for Oniguruma (Ruby's syntax, UTF-8). Where PCRE2 reads the same letters differently the
 * pattern is rewritten: \s is Unicode's White_Space, \w has marks and connectors, \h is a hexadecimal digit, an
 * interval before + is not possessive, ^ and $ are those of lines, \p{Han} is the script and not its extensions. What
 * has no equal is refused by name. Nothing but valid UTF-8 reaches PCRE2, its searches are bounded by a match limit
 * that grows with the text, and its memory is the accountant's. */
#include <stdio.h>
#include <string.h>

#include "format/tokenizer_internal.h"

const char regex_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define SPACES "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                                     \
    "\\x{0}-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"       \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORDS                                                                                                          \
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe" /* with Latin-1's fractions, as Oniguruma */

/* ---- Oniguruma to PCRE2 ------------------------------------------------------------------------------------- */

typedef struct translation {
    memory *m;
    const char *name;
    const char *in;
    size_t bytes, at;
    text_buffer out;
    bool in_class, class_begins;
} translation;

static lamina_status refuse(const translation *x, const char *what, lamina_error *err)
{
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: regular expression: %s is not supported: %.*s", x->name, what,
                     (int)(x->bytes < 120 ? x->bytes : 120), x->in);
}

static lamina_status put(translation *x, const char *text, lamina_error *err)
{
    return buffer_append(x->m, &x->out, text, strlen(text), err);
}

/* Copies n bytes of the source. */
static lamina_status copy(translation *x, size_t n, lamina_error *err)
{
    if (n > x->bytes - x->at) n = x->bytes - x->at;
    TRY(buffer_append(x->m, &x->out, x->in + x->at, n, err));
    x->at += n;
    return LAMINA_OK;
}

/* \p{...}: scripts are named as scripts. at: the backslash. */
static lamina_status translate_property(translation *x, lamina_error *err)
{
    static const char *const scripts[] = {"Han",   "Hiragana", "Katakana", "Hangul", "Latin",   "Cyrillic",
                                          "Greek", "Arabic",   "Hebrew",   "Thai",   "Bengali", "Devanagari",
                                          "Khmer", "Lao",      "Tamil",    "Telugu", "Tibetan", "Myanmar"};
    const char *open = x->in + x->at + 2;
    size_t left = x->bytes - x->at;
    const char *close = left > 2 && *open == '{' ? memchr(open, '}', left - 2) : NULL;
    if (!close) return copy(x, left > 2 && *open == '{' ? left : 3, err);
    size_t n = (size_t)(close - open) - 1;
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        if (strlen(scripts[i]) != n || memcmp(scripts[i], open + 1, n) != 0) continue;
        char spelt[40];
        snprintf(spelt, sizeof spelt, "\\%c{sc:%s}", x->in[x->at + 1], scripts[i]);
        x->at += n + 4;
        return put(x, spelt, err);
    }
    return copy(x, n + 4, err);
}

static lamina_status translate_escape(translation *x, lamina_error *err)
{
    if (x->bytes - x->at < 2) return refuse(x, "a backslash at the end", err);
    char c = x->in[x->at + 1];
    bool in = x->in_class;
    const char *spelt = NULL;
    switch (c) {
    case 's':
        spelt = in ? SPACES : "[" SPACES "]";
        break;
    case 'S':
        spelt = in ? NOT_SPACES : "[" NOT_SPACES "]";
        break;
    case 'w':
        spelt = in ? WORDS : "[" WORDS "]";
        break;
    case 'W':
        if (in) return refuse(x, "\\W in a class", err);
        spelt = "[^" WORDS "]";
        break;
    case 'h':
        spelt = in ? "0-9a-fA-F" : "[0-9a-fA-F]";
        break;
    case 'b':
    case 'B':
        if (in) return refuse(x, "\\b in a class", err);
        spelt = c == 'b' ? "(?:(?<=[" WORDS "])(?![" WORDS "])|(?<![" WORDS "])(?=[" WORDS "]))"
                         : "(?:(?<=[" WORDS "])(?=[" WORDS "])|(?<![" WORDS "])(?![" WORDS "]))";
        break;
    case 'p':
    case 'P':
        return translate_property(x, err);
    case 'u':
        TRY(put(x, "\\x{", err));
        x->at += 2;
        TRY(copy(x, 4, err));
        return put(x, "}", err);
    default:
        if (c && strchr("dDAzZnrtfaexDvk\\", c)) return copy(x, 2, err);
        if (c >= '0' && c <= '9') return copy(x, 2, err);
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
            char what[4] = {'\\', c, '\0', '\0'};
            return refuse(x, what, err);
        }
        if ((unsigned char)c < 0x80) return copy(x, 2, err);
        x->at++; /* a backslash before another character means that character */
        return LAMINA_OK;
    }
    x->at += 2;
    return put(x, spelt, err);
}

static lamina_status translate_in_class(translation *x, lamina_error *err)
{
    char c = x->in[x->at], next = x->at + 1 < x->bytes ? x->in[x->at + 1] : '\0';
    bool begins = x->class_begins;
    x->class_begins = begins && c == '^';
    if (c == '[') {
        if (next != ':') return refuse(x, "a class inside a class", err);
        const char *close = memchr(x->in + x->at, ']', x->bytes - x->at);
        return copy(x, close ? (size_t)(close - (x->in + x->at)) + 1 : 2, err);
    }
    if (c == '&' && next == '&') return refuse(x, "an intersection of classes", err);
    if (c == ']' && !begins) x->in_class = false;
    return copy(x, 1, err);
}

/* {n,m} at the cursor. Ruby repeats {n,m}+ and reads {,m} as {0,m}. */
static lamina_status translate_interval(translation *x, lamina_error *err)
{
    size_t at = x->at + 1, end = at;
    bool comma = false, open = true; /* open: no first number */
    while (end < x->bytes && ((x->in[end] >= '0' && x->in[end] <= '9') || (x->in[end] == ',' && !comma))) {
        if (x->in[end] == ',')
            comma = true;
        else if (!comma)
            open = false;
        end++;
    }
    if (end >= x->bytes || x->in[end] != '}' || end == at || end - at > 12) return copy(x, 1, err);
    bool plus = end + 1 < x->bytes && x->in[end + 1] == '+';
    if (plus) {
        if (x->in[at] != '1' || x->in[at + 1] != ',') return refuse(x, "an interval before '+'", err);
        x->at = end + 1; /* (x{1,m})+ is x+ */
        return copy(x, 1, err);
    }
    TRY(copy(x, 1, err));
    if (open) TRY(put(x, "0", err));
    return copy(x, end + 1 - at, err);
}

static lamina_status translate_group(translation *x, lamina_error *err)
{
    char c1 = x->at + 1 < x->bytes ? x->in[x->at + 1] : '\0', c2 = x->at + 2 < x->bytes ? x->in[x->at + 2] : '\0';
    if (c1 == '*') return refuse(x, "(*", err);
    if (c1 != '?') return copy(x, 1, err);
    if (c2 == 'i' || c2 == '-') {
        size_t end = x->at + 2;
        while (end < x->bytes && (x->in[end] == 'i' || x->in[end] == '-')) end++;
        if (end >= x->bytes || (x->in[end] != ':' && x->in[end] != ')'))
            return refuse(x, "an option other than i", err);
        if (x->in[end] == ')' && x->at != 0) return refuse(x, "an option in the middle", err);
        return copy(x, end + 1 - x->at, err);
    }
    if (!c2 || !strchr(":=!><", c2)) return refuse(x, "this kind of group", err);
    return copy(x, 3, err);
}

static lamina_status translate(translation *x, lamina_error *err)
{
    while (x->at < x->bytes) {
        char c = x->in[x->at];
        if (c == '\\') {
            x->class_begins = false;
            TRY(translate_escape(x, err));
        } else if (x->in_class) {
            TRY(translate_in_class(x, err));
        } else if (c == '[') {
            x->in_class = x->class_begins = true;
            TRY(copy(x, 1, err));
        } else if (c == '(') {
            TRY(translate_group(x, err));
        } else if (c == '{') {
            TRY(translate_interval(x, err));
        } else {
            TRY(copy(x, 1, err));
        }
    }
    return LAMINA_OK;
}

/* ---- compiling ---------------------------------------------------------------------------------------------- */

static void *give(size_t bytes, void *m)
{
    return mem_alloc(m, MEM_TOKENIZER, bytes, NULL);
}

static void take(void *p, void *m)
{
    mem_free(m, p);
}

pcre2_general_context *regex_context(memory *m)
{
    return pcre2_general_context_create(give, take, m);
}

static lamina_status compile_translated(pcre2_general_context *general, const char *name, pattern *p, const char *text,
                                        size_t bytes, lamina_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(general);
    if (!context) return error_set(err, LAMINA_E_MEMORY, "%s: no memory for a regular expression", name);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK;
    options |= p->literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int code = 0;
    size_t at = 0;
    p->code = pcre2_compile((PCRE2_SPTR)text, bytes, options, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!p->code) {
        if (code == PCRE2_ERROR_NOMEMORY || code == 121) /* 121: no heap memory while compiling */
            return error_set(err, LAMINA_E_MEMORY, "%s: no memory for a regular expression", name);
        char reason[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: regular expression: %s: %.*s", name, reason,
                         (int)(p->source.bytes < 120 ? p->source.bytes : 120), p->source.data);
    }
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* without it the interpreter searches, slower and the same */
    return LAMINA_OK;
}

lamina_status regex_compile(memory *m, pcre2_general_context *general, const char *name, pattern *p, lamina_error *err)
{
    if (p->literal) return compile_translated(general, name, p, p->source.data, p->source.bytes, err);
    translation x = {.m = m, .name = name, .in = p->source.data, .bytes = p->source.bytes};
    lamina_status status = translate(&x, err);
    if (status == LAMINA_OK)
        status = compile_translated(general, name, p, x.out.data ? x.out.data : "", x.out.bytes, err);
    mem_free(m, x.out.data);
    return status;
}

void regex_free(pattern *p)
{
    pcre2_code_free(p->code);
    p->code = NULL;
}

/* ---- searching ---------------------------------------------------------------------------------------------- */

lamina_status regex_scratch_new(memory *m, regex_scratch *s, lamina_error *err)
{
    s->general = regex_context(m);
    if (s->general) s->match = pcre2_match_context_create(s->general);
    if (s->match) s->data = pcre2_match_data_create(1, s->general);
    if (!s->data) return error_set(err, LAMINA_E_MEMORY, "no memory for a regular expression's search");
    pcre2_set_heap_limit(s->match, 64 * 1024); /* KiB; the interpreter's backtracking */
    return LAMINA_OK;
}

void regex_scratch_free(regex_scratch *s)
{
    pcre2_jit_stack_free(s->stack);
    pcre2_match_data_free(s->data);
    pcre2_match_context_free(s->match);
    pcre2_general_context_free(s->general);
    *s = (regex_scratch){0};
}

static int search(regex_scratch *s, const pattern *p, const char *text, size_t bytes, size_t at)
{
    /* A pattern of use backtracks at most a few times over the text; an exponential one stops soon. */
    uint64_t limit = 1000000u + 8 * (uint64_t)bytes;
    pcre2_set_match_limit(s->match, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
    int n = pcre2_match(p->code, (PCRE2_SPTR)text, bytes, at, PCRE2_NO_UTF_CHECK, s->data, s->match);
    if (n != PCRE2_ERROR_JIT_STACKLIMIT || s->stack) return n;
    s->stack = pcre2_jit_stack_create(64 * 1024, 8 * 1024 * 1024, s->general);
    if (!s->stack) return n;
    pcre2_jit_stack_assign(s->match, NULL, s->stack);
    return pcre2_match(p->code, (PCRE2_SPTR)text, bytes, at, PCRE2_NO_UTF_CHECK, s->data, s->match);
}

lamina_status regex_next(regex_scratch *s, const pattern *p, const char *text, size_t bytes, regex_cursor *c,
                         size_t *begin, size_t *end, bool *found, lamina_error *err)
{
    *found = false;
    while (c->at <= bytes) {
        int n = search(s, p, text, bytes, c->at);
        if (n == PCRE2_ERROR_NOMATCH) return LAMINA_OK;
        if (n == PCRE2_ERROR_NOMEMORY)
            return error_set(err, LAMINA_E_MEMORY, "no memory for a regular expression's search");
        if (n < 0) {
            char reason[160] = "";
            pcre2_get_error_message(n, (PCRE2_UCHAR *)reason, sizeof reason);
            return error_set(err, LAMINA_E_UNSUPPORTED,
                             "the tokenizer's regular expression gives up on this text (%s): %.*s", reason,
                             (int)(p->source.bytes < 120 ? p->source.bytes : 120), p->source.data);
        }
        const size_t *place = pcre2_get_ovector_pointer(s->data);
        if (place[1] < place[0] || place[1] > bytes)
            return error_set(err, LAMINA_E_UNSUPPORTED, "the tokenizer's regular expression matches backwards");
        *begin = place[0];
        *end = place[1];
        /* An empty match where the last one ended is none: move on by a character. */
        if (*begin == *end && c->matched && c->last_end == *end) {
            c->at++;
            while (c->at < bytes && ((unsigned char)text[c->at] & 0xc0) == 0x80) c->at++;
            continue;
        }
        c->at = c->last_end = *end;
        c->matched = *found = true;
        return LAMINA_OK;
    }
    return LAMINA_OK;
}

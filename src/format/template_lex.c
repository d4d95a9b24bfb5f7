/* Source to tokens, with the white space taken away that trim_blocks, lstrip_blocks, '-' and '+' take.
 *
 * Follows Jinja's lexer rule by rule (jinja2/lexer.py, "rules" and "tokeniter"), for what is stripped where depends on
 * its order: a tag's sign looks back over the text before it and its end looks ahead over the text behind it; whether a
 * text begins a line is asked of the last match. Inside of a tag its end is sought only while brackets are balanced. */
#include "format/template_lex.h"

#include <stdlib.h>

#include "format/tokenizer_unicode.h"

typedef struct lexer {
    vm *v;
    const char *s; /* [n], newlines are \n */
    size_t n, at;
    uint32_t line;
    bool line_starting;
    token *tokens;
    size_t count, capacity;
    char open[TEMPLATE_MAX_NESTING];
    size_t n_open;
} lexer;

static bool fail_at(lexer *l, const char *what)
{
    l->v->line = l->line;
    return vm_fail(l->v, "%s", what);
}

static bool push(lexer *l, token_kind kind, value x)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 256;
        token *grown_tokens = vm_array(l->v, capacity, sizeof *grown_tokens);
        if (!grown_tokens) return false;
        if (l->count) memcpy(grown_tokens, l->tokens, l->count * sizeof *grown_tokens);
        l->tokens = grown_tokens;
        l->capacity = capacity;
    }
    l->tokens[l->count++] = (token){.kind = kind, .line = l->line, .value = x};
    return true;
}

/* Moves to `end`, counting lines. */
static void move(lexer *l, size_t end)
{
    for (size_t i = l->at; i < end; i++) l->line += l->s[i] == '\n';
    if (end > l->at) l->line_starting = l->s[end - 1] == '\n';
    l->at = end;
}

static bool has(const lexer *l, size_t at, const char *word)
{
    size_t n = strlen(word);
    return at <= l->n && n <= l->n - at && memcmp(l->s + at, word, n) == 0;
}

static size_t skip_spaces(const lexer *l, size_t at)
{
    while (at < l->n) {
        uint32_t c;
        size_t k = utf8_read(l->s + at, l->n - at, &c);
        if (!k || !py_is_space(c)) break;
        at += k;
    }
    return at;
}

static size_t trim_right(const lexer *l, size_t begin, size_t end)
{
    while (end > begin) {
        size_t at = end - 1;
        uint32_t c;
        while (at > begin && ((unsigned char)l->s[at] & 0xc0) == 0x80) at--;
        if (!utf8_read(l->s + at, end - at, &c) || !py_is_space(c)) break;
        end = at;
    }
    return end;
}

/* The end of a tag at `at`: "-%}" and the spaces behind it, "+%}", "%}" and a newline behind it if `trims`. Returns
 * where it ends, 0: no end is here. */
static size_t tag_end(const lexer *l, size_t at, const char *close, bool plus, bool trims)
{
    if (plus && at < l->n && l->s[at] == '+' && has(l, at + 1, close)) return at + 3;
    if (at < l->n && l->s[at] == '-' && has(l, at + 1, close)) return skip_spaces(l, at + 3);
    if (!has(l, at, close)) return 0;
    at += 2;
    return trims && at < l->n && l->s[at] == '\n' ? at + 1 : at;
}

/* "{%- raw %}" at `at`: where it ends; 0: not here. */
static size_t raw_begin(const lexer *l, size_t at, char *sign)
{
    if (!has(l, at, "{%")) return 0;
    at += 2;
    *sign = at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
    if (*sign) at++;
    at = skip_spaces(l, at);
    if (!has(l, at, "raw")) return 0;
    at = skip_spaces(l, at + 3);
    if (has(l, at, "-%}")) return skip_spaces(l, at + 3);
    return has(l, at, "%}") ? at + 2 : 0;
}

static size_t raw_end(const lexer *l, size_t at, char *sign)
{
    if (!has(l, at, "{%")) return 0;
    at += 2;
    *sign = at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
    if (*sign) at++;
    at = skip_spaces(l, at);
    if (!has(l, at, "endraw")) return 0;
    return tag_end(l, skip_spaces(l, at + 6), "%}", true, true);
}

/* The text from here to a tag at `end` with this sign, less what is stripped, as a token. */
static bool push_text(lexer *l, size_t end, char sign, bool is_variable)
{
    size_t begin = l->at, stop = end;
    if (sign == '-') {
        stop = trim_right(l, begin, end);
    } else if (sign != '+' && !is_variable) {
        size_t line = end;
        while (line > begin && l->s[line - 1] != '\n') line--;
        if ((line > begin || l->line_starting) && line < end && skip_spaces(l, line) >= end) stop = line;
    }
    value text;
    if (stop == begin) return true;
    return v_text(l->v, l->s + begin, stop - begin, &text) && push(l, T_DATA, text);
}

/* ---- inside of tags --------------------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* (\d+_)*\d+ at `at`: its end; 0: none */
static size_t digits(const lexer *l, size_t at)
{
    size_t begin = at;
    while (at < l->n && (is_digit(l->s[at]) || (l->s[at] == '_' && at > begin && is_digit(l->s[at - 1]) &&
                                                at + 1 < l->n && is_digit(l->s[at + 1]))))
        at++;
    return at > begin ? at : 0;
}

static size_t float_end(const lexer *l)
{
    if (l->at && l->s[l->at - 1] == '.') return 0;
    size_t at = digits(l, l->at), fraction = 0;
    if (!at) return 0;
    if (at < l->n && l->s[at] == '.') fraction = digits(l, at + 1);
    size_t mantissa = fraction ? fraction : at;
    if (mantissa < l->n && (l->s[mantissa] | 32) == 'e') {
        size_t e = mantissa + 1;
        if (e < l->n && (l->s[e] == '+' || l->s[e] == '-')) e++;
        size_t end = digits(l, e);
        if (end) return end;
    }
    return fraction;
}

static size_t integer_end(const lexer *l, int *base)
{
    size_t at = l->at;
    *base = 10;
    if (at + 1 < l->n && l->s[at] == '0') {
        char c = (char)(l->s[at + 1] | 32);
        *base = c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 10;
    }
    if (*base == 10) {
        if (l->s[at] != '0') return digits(l, at);
        while (at < l->n && (l->s[at] == '0' || (l->s[at] == '_' && at + 1 < l->n && l->s[at + 1] == '0'))) at++;
        return at;
    }
    size_t begin = at += 2;
    while (at < l->n) {
        size_t k = at + (l->s[at] == '_' ? 1 : 0);
        char c = k < l->n ? (char)(l->s[k] | 32) : 0;
        int digit = k < l->n && is_digit(l->s[k]) ? l->s[k] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
        if (digit >= *base) break;
        at = k + 1;
    }
    if (at > begin) return at;
    *base = 10;
    return l->at + 1; /* "0" and a name */
}

static bool push_number(lexer *l, size_t end, bool is_float, int base)
{
    char copy[400];
    size_t n = 0;
    for (size_t i = l->at + (base == 10 ? 0 : 2); i < end; i++) {
        if (l->s[i] == '_') continue;
        if (n + 1 >= sizeof copy) return fail_at(l, "a number of more than 400 digits");
        copy[n++] = l->s[i];
    }
    copy[n] = '\0';
    if (is_float) return push(l, T_FLOAT, v_float(strtod(copy, NULL)));
    int64_t whole = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = is_digit(copy[i]) ? copy[i] - '0' : (copy[i] | 32) - 'a' + 10;
        if (__builtin_mul_overflow(whole, base, &whole) || __builtin_add_overflow(whole, digit, &whole))
            return fail_at(l, "an integer beyond 64 bits");
    }
    return push(l, T_INTEGER, v_int(whole));
}

static int hex_digit(char c)
{
    if (is_digit(c)) return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \xhh, \uhhhh, \Uhhhhhhhh: digits [want] at s[at] */
static bool read_hex(lexer *l, size_t *at, size_t end, unsigned want, char *out, size_t *n)
{
    uint32_t c = 0;
    for (unsigned i = 0; i < want; i++, (*at)++) {
        int digit = *at < end ? hex_digit(l->s[*at]) : -1;
        if (digit < 0) return fail_at(l, "truncated \\x, \\u or \\U escape");
        c = c << 4 | (uint32_t)digit;
    }
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return fail_at(l, "an escape that is no character");
    *n += utf8_write(c, out + *n);
    return true;
}

static bool read_escape(lexer *l, size_t *at, size_t end, char *out, size_t *n)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->s[(*at)++];
    const char *simple = c ? strchr(from, c) : NULL;
    if (c == '\n') return true; /* goes on in the next line */
    if (simple) {
        out[(*n)++] = to[simple - from];
    } else if (c == 'x' || c == 'u' || c == 'U') {
        return read_hex(l, at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8, out, n);
    } else if (c >= '0' && c <= '7') {
        uint32_t code = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *at < end && l->s[*at] >= '0' && l->s[*at] <= '7'; i++)
            code = code * 8 + (uint32_t)(l->s[(*at)++] - '0');
        *n += utf8_write(code, out + *n);
    } else if (c == 'N') {
        return fail_at(l, "\\N escapes are not supported");
    } else {
        out[(*n)++] = '\\';
        (*at)--;
    }
    return true;
}

/* A string literal: its end, or 0. */
static size_t string_end(const lexer *l)
{
    char quote = l->s[l->at];
    for (size_t at = l->at + 1; at < l->n; at++) {
        if (l->s[at] == quote) return at + 1;
        if (l->s[at] == '\\') at++;
    }
    return 0;
}

static bool push_string(lexer *l, size_t end)
{
    value x;
    size_t begin = l->at + 1, n = 0;
    if (!memchr(l->s + begin, '\\', end - 1 - begin))
        return v_text(l->v, l->s + begin, end - 1 - begin, &x) && push(l, T_STRING, x);
    char *out = vm_alloc(l->v, (end - begin) * 2 + 8);
    if (!out) return false;
    for (size_t at = begin; at < end - 1;) {
        if (l->s[at] == '\\') {
            at++;
            if (!read_escape(l, &at, end - 1, out, &n)) return false;
        } else {
            out[n++] = l->s[at++];
        }
    }
    return v_text(l->v, out, n, &x) && push(l, T_STRING, x);
}

static size_t name_end(const lexer *l)
{
    size_t at = l->at;
    while (at < l->n) {
        uint32_t c;
        size_t k = utf8_read(l->s + at, l->n - at, &c);
        if (!k ||
            !(c < 0x80 ? is_digit((char)c) || c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z') : unicode_is_word(c)))
            break;
        at += k;
    }
    return at;
}

static bool push_operator(lexer *l)
{
    static const struct {
        char text[3];
        token_kind kind;
    } table[] = {
        {"//", T_FLOORDIV}, {"**", T_POW},      {"==", T_EQ},    {"!=", T_NE},    {">=", T_GE},    {"<=", T_LE},
        {"+", T_ADD},       {"-", T_SUB},       {"/", T_DIV},    {"*", T_MUL},    {"%", T_MOD},    {"~", T_TILDE},
        {"[", T_LBRACKET},  {"]", T_RBRACKET},  {"(", T_LPAREN}, {")", T_RPAREN}, {"{", T_LBRACE}, {"}", T_RBRACE},
        {">", T_GT},        {"<", T_LT},        {"=", T_ASSIGN}, {".", T_DOT},    {":", T_COLON},  {"|", T_PIPE},
        {",", T_COMMA},     {";", T_SEMICOLON},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!has(l, l->at, table[i].text)) continue;
        char c = l->s[l->at];
        if (c == '(' || c == '[' || c == '{') {
            if (l->n_open == TEMPLATE_MAX_NESTING) return fail_at(l, "brackets nested too deep");
            l->open[l->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!l->n_open || l->open[--l->n_open] != c) return fail_at(l, "a closing bracket that nothing opened");
        }
        value text;
        if (!v_text(l->v, l->s + l->at, strlen(table[i].text), &text) || !push(l, table[i].kind, text)) return false;
        move(l, l->at + strlen(table[i].text));
        return true;
    }
    return fail_at(l, "a character that is not expected here");
}

static bool lex_one(lexer *l)
{
    char c = l->s[l->at];
    size_t end;
    int base = 10;
    value name;
    if ((end = skip_spaces(l, l->at)) > l->at) {
        move(l, end);
        return true;
    }
    if (is_digit(c)) {
        bool is_float = (end = float_end(l)) != 0;
        if (!is_float) end = integer_end(l, &base);
        if (!push_number(l, end, is_float, base)) return false;
    } else if ((end = name_end(l)) > l->at) {
        tstring *interned = vm_intern(l->v, l->s + l->at, end - l->at);
        name = (value){.kind = V_STRING, .s = interned};
        if (!interned || !push(l, T_NAME, name)) return false;
    } else if (c == '\'' || c == '"') {
        end = string_end(l);
        if (!end) return fail_at(l, "a string without an end");
        if (!push_string(l, end)) return false;
    } else {
        return push_operator(l);
    }
    move(l, end);
    return true;
}

static bool lex_tag(lexer *l, bool is_block)
{
    l->n_open = 0;
    for (;;) {
        size_t end = l->n_open || l->at >= l->n ? 0 : tag_end(l, l->at, is_block ? "%}" : "}}", is_block, is_block);
        if (end) {
            if (!push(l, is_block ? T_BLOCK_END : T_VARIABLE_END, v_none())) return false;
            move(l, end);
            return true;
        }
        if (l->at >= l->n) return true; /* the parser says what is missing */
        if (!vm_steps(l->v, 1) || !lex_one(l)) return false;
    }
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static bool lex_comment(lexer *l)
{
    for (size_t at = l->at; at < l->n; at++) {
        size_t end = l->s[at] == '+' || l->s[at] == '-' || l->s[at] == '#' ? tag_end(l, at, "#}", true, true) : 0;
        if (!end) continue;
        move(l, end);
        return true;
    }
    return l->at == l->n || fail_at(l, "a comment without an end"); /* at the very end Jinja lets it pass */
}

static bool lex_raw(lexer *l)
{
    for (size_t at = l->at; at < l->n; at++) {
        char sign = 0;
        size_t end = l->s[at] == '{' ? raw_end(l, at, &sign) : 0;
        if (!end) continue;
        if (!push_text(l, at, sign, false)) return false;
        move(l, end);
        return true;
    }
    return l->at == l->n || fail_at(l, "raw without endraw");
}

/* The text up to the next tag, and that tag. */
static bool lex_root(lexer *l)
{
    size_t at = l->at;
    while (at + 1 < l->n && !(l->s[at] == '{' && (l->s[at + 1] == '%' || l->s[at + 1] == '{' || l->s[at + 1] == '#')))
        at++;
    if (at + 1 >= l->n) {
        value text;
        if (!v_text(l->v, l->s + l->at, l->n - l->at, &text) || !push(l, T_DATA, text)) return false;
        move(l, l->n);
        return true;
    }
    char kind = l->s[at + 1], sign = 0;
    size_t end = raw_begin(l, at, &sign);
    bool raw = end != 0;
    if (!raw) {
        end = at + 2;
        sign = end < l->n && (l->s[end] == '-' || l->s[end] == '+') ? l->s[end] : 0;
        if (sign) end++;
    }
    if (!push_text(l, at, sign, kind == '{')) return false;
    move(l, end);
    if (raw) return lex_raw(l);
    if (kind == '#') return lex_comment(l);
    return push(l, kind == '{' ? T_VARIABLE_BEGIN : T_BLOCK_BEGIN, v_none()) && lex_tag(l, kind == '%');
}

/* Newlines as \n, and without the last of them. */
static char *normal_newlines(vm *v, const char *source, size_t bytes, size_t *n)
{
    char *s = vm_alloc(v, bytes + 1);
    if (!s) return NULL;
    size_t out = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (source[i] == '\r' && i + 1 < bytes && source[i + 1] == '\n') continue;
        s[out++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (out && s[out - 1] == '\n') out--;
    *n = out;
    return s;
}

bool lex(vm *v, const char *source, size_t bytes, token **tokens, size_t *n)
{
    lexer l = {.v = v, .line = 1, .line_starting = true};
    l.s = normal_newlines(v, source, bytes, &l.n);
    if (!l.s) return false;
    while (l.at < l.n)
        if (!lex_root(&l)) return false;
    if (!push(&l, T_EOF, v_none())) return false;
    *tokens = l.tokens;
    *n = l.count;
    return true;
}

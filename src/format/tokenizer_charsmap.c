/* sentencepiece's normalization: a map from strings to strings, and what becomes of spaces.
 *
 * The map is a blob: the size of a double-array trie in bytes, the trie (Darts-clone's units of 32 bits,
 * little-endian), and the replacements, each ended by a NUL. Nothing that it says is believed: each step stays inside,
 * a walk is no longer than the text or TOKEN_MAX_RULE, and replacements must be UTF-8 from where they are taken.
 *
 * Two readings of it exist. sentencepiece takes the longest rule at each place (normalizer.cc). tokenizer.json's
 * Precompiled looks at grapheme clusters of less than six bytes as a whole, then at characters, and takes the shortest
 * rule that either begins with (Hugging Face's spm_precompiled). */
#include <string.h>
#include <utf8proc.h>

#include "format/little.h"
#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

static uint32_t load_u32(const char *p)
{
    return (uint32_t)little_number(p, 4);
}

/* ---- the blob ----------------------------------------------------------------------------------------------- */

typedef struct charsmap {
    const char *units; /* 4 bytes each */
    uint32_t n;
    const char *texts; /* ends with a NUL */
    uint32_t bytes;
} charsmap;

static charsmap open_map(text_span blob)
{
    if (blob.bytes == 0) return (charsmap){0};
    uint32_t size = load_u32(blob.data);
    return (charsmap){blob.data + 4, size / 4, blob.data + 4 + size, blob.bytes - 4 - size};
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 0x200) >> 6);
}

/* Replacements are UTF-8 from where a rule may point to: the unit's value is checked for each unit that is a leaf. */
lamina_status charsmap_check(const char *name, const char *data, size_t bytes, lamina_error *err)
{
    if (bytes < 4 || bytes > UINT32_MAX)
        return error_set(err, LAMINA_E_FORMAT, "%s: a precompiled_charsmap of %zu bytes", name, bytes);
    uint32_t size = load_u32(data);
    if (size == 0 || size % 4 != 0 || size > bytes - 4 || size == bytes - 4)
        return error_set(err, LAMINA_E_FORMAT, "%s: the precompiled_charsmap's trie has %u of %zu bytes", name, size,
                         bytes);
    if (data[bytes - 1] != '\0')
        return error_set(err, LAMINA_E_FORMAT, "%s: the precompiled_charsmap's last replacement has no end", name);
    const char *texts = data + 4 + size;
    size_t n = bytes - 4 - size;
    if (utf8_valid(texts, n) != n)
        return error_set(err, LAMINA_E_FORMAT, "%s: the precompiled_charsmap's replacements are not UTF-8", name);
    for (size_t at = 0, length; at < n; at += length + 1) {
        length = strlen(texts + at);
        if (length > TOKEN_MAX_RULE)
            return error_set(err, LAMINA_E_UNSUPPORTED,
                             "%s: the precompiled_charsmap has a replacement of %zu bytes, more than %d", name, length,
                             TOKEN_MAX_RULE);
    }
    return LAMINA_OK;
}

typedef struct rule {
    size_t bytes; /* of what is replaced; 0: no rule */
    const char *text;
} rule;

/* The longest, or the shortest, rule that text begins with. */
static rule find_rule(const charsmap *c, const char *text, size_t bytes, bool shortest)
{
    rule found = {0, NULL};
    if (c->n == 0) return found;
    uint32_t at = offset_of(load_u32(c->units));
    for (size_t i = 0; i < bytes && i < TOKEN_MAX_RULE; i++) { /* a trie may lead back into itself */
        uint32_t byte = (unsigned char)text[i];
        at ^= byte;
        if (at >= c->n) break;
        uint32_t unit = load_u32(c->units + (size_t)at * 4);
        if ((unit & 0x800000ff) != byte) break;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1) || at >= c->n) continue;
        uint32_t value = load_u32(c->units + (size_t)at * 4) & 0x7fffffff;
        bool whole = i + 1 == bytes || ((unsigned char)text[i + 1] & 0xc0) != 0x80; /* no character is cut in two */
        if (!whole || value >= c->bytes || ((unsigned char)c->texts[value] & 0xc0) == 0x80) continue;
        found = (rule){i + 1, c->texts + value};
        if (shortest) break;
    }
    return found;
}

/* ---- tokenizer.json's ---------------------------------------------------------------------------------------- */

static lamina_status map_part(encoder *e, const charsmap *c, const char *text, size_t bytes, text_buffer *out,
                              bool *found)
{
    const char *nul = memchr(text, '\0', bytes);
    rule r = find_rule(c, text, nul ? (size_t)(nul - text) : bytes, true);
    *found = r.bytes > 0;
    return *found ? normalize_append(e, out, r.text, strlen(r.text)) : LAMINA_OK;
}

static lamina_status map_cluster(encoder *e, const charsmap *c, const char *text, size_t bytes, text_buffer *out)
{
    bool found = false;
    if (bytes < 6) TRY(map_part(e, c, text, bytes, out, &found));
    for (size_t at = 0, n; at < bytes && !found; at += n) {
        bool mapped;
        n = utf8_length(text[at]);
        TRY(map_part(e, c, text + at, n, out, &mapped));
        if (!mapped) TRY(normalize_append(e, out, text + at, n));
    }
    return LAMINA_OK;
}

lamina_status charsmap_normalize(encoder *e, const char *text, size_t bytes, text_buffer *out)
{
    charsmap c = open_map(e->t->charsmap);
    utf8proc_int32_t state = 0;
    uint32_t before = 0, code;
    size_t begin = 0;
    for (size_t at = 0, n; at < bytes; at += n, before = code) {
        n = utf8_read(text + at, bytes - at, &code);
        if (at == 0 || !utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)code, &state))
            continue;
        TRY(map_cluster(e, &c, text + begin, at - begin, out));
        begin = at;
    }
    return map_cluster(e, &c, text + begin, bytes - begin, out);
}

/* ---- sentencepiece's ----------------------------------------------------------------------------------------- */

/* What stands for the text's begin, and how much of it: a user-defined piece as it is, else a rule's replacement, else
 * one character. */
static text_span next_part(const encoder *e, const charsmap *c, const char *text, size_t bytes, size_t *used)
{
    const matcher_entry *user = e->t->user.n ? matcher_longest(&e->t->user, text, bytes) : NULL;
    if (user) {
        *used = user->text.bytes;
        return (text_span){text, user->text.bytes};
    }
    rule r = find_rule(c, text, bytes, false);
    *used = r.bytes ? r.bytes : utf8_length(*text);
    if (r.bytes) return (text_span){r.text, (uint32_t)strlen(r.text)};
    return (text_span){text, (uint32_t)*used};
}

static lamina_status put_space(encoder *e, uint32_t flags, text_buffer *out)
{
    bool escape = flags & SP_ESCAPE;
    return normalize_append(e, out, escape ? "\xe2\x96\x81" : " ", escape ? 3 : 1);
}

static lamina_status put_part(encoder *e, uint32_t flags, text_span s, text_buffer *out)
{
    for (uint32_t at = 0; at < s.bytes;) {
        const char *space = memchr(s.data + at, ' ', s.bytes - at);
        uint32_t end = space ? (uint32_t)(space - s.data) : s.bytes;
        TRY(normalize_append(e, out, s.data + at, end - at));
        if (space) TRY(put_space(e, flags, out));
        at = end + (space != NULL);
    }
    return LAMINA_OK;
}

static void drop_last_spaces(uint32_t flags, text_buffer *out)
{
    const char *space = flags & SP_ESCAPE ? "\xe2\x96\x81" : " ";
    size_t n = strlen(space);
    while (out->bytes >= n && memcmp(out->data + out->bytes - n, space, n) == 0) out->bytes -= n;
}

lamina_status sentencepiece_normalize(encoder *e, uint32_t flags, const char *text, size_t bytes, text_buffer *out)
{
    charsmap c = open_map(e->t->charsmap);
    bool squeeze = flags & SP_SQUEEZE, after_space = squeeze;
    size_t at = 0, used;
    while (squeeze && at < bytes) {
        text_span s = next_part(e, &c, text + at, bytes - at, &used);
        if (s.bytes != 1 || s.data[0] != ' ') break;
        at += used;
    }
    if (at == bytes) return LAMINA_OK;
    bool spaced = (flags & SP_PREFIX) && (e->at_begin || !(flags & SP_FIRST));
    if (spaced && !(flags & SP_SUFFIX)) TRY(put_space(e, flags, out));
    for (; at < bytes; at += used) {
        text_span s = next_part(e, &c, text + at, bytes - at, &used);
        while (after_space && s.bytes && s.data[0] == ' ') s = (text_span){s.data + 1, s.bytes - 1};
        if (s.bytes) {
            TRY(put_part(e, flags, s, out));
            after_space = squeeze && s.data[s.bytes - 1] == ' ';
        }
    }
    if (squeeze) drop_last_spaces(flags, out);
    return spaced && (flags & SP_SUFFIX) ? put_space(e, flags, out) : LAMINA_OK;
}

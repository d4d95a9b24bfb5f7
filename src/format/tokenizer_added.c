/* Added tokens are cut out of a text before anything else sees it.
 *
 * The search is leftmost-longest over their sorted spellings: a place where one may begin (a table of first bytes)
 * narrows the sorted range byte by byte. What a match takes of the white space around it, and when it is no match
 * because a word goes on (single_word), follows Hugging Face's tokenizers, oddities included: a discarded match is
 * passed over whole, and so is a special token's spelling in plain text. */
#include <stdlib.h>
#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"

static int compare_entries(const void *a, const void *b)
{
    const matcher_entry *x = a, *y = b;
    uint32_t n = x->text.bytes < y->text.bytes ? x->text.bytes : y->text.bytes;
    int c = memcmp(x->text.data, y->text.data, n);
    if (c) return c;
    if (x->text.bytes != y->text.bytes) return x->text.bytes < y->text.bytes ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token; /* of equal spellings the first added wins */
}

lamina_status matcher_seal(tokenizer *t, matcher *mt, const matcher_entry *entries, uint32_t n, lamina_error *err)
{
    mt->entries = mem_array(t->m, MEM_TOKENIZER, n, sizeof *mt->entries, err);
    if (!mt->entries) return no_memory(err);
    mt->n = n;
    if (n) {
        memcpy(mt->entries, entries, n * sizeof *entries);
        qsort(mt->entries, n, sizeof *mt->entries, compare_entries);
    }
    uint32_t at = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        mt->first[byte] = at;
        while (at < n && (unsigned char)mt->entries[at].text.data[0] == byte) at++;
    }
    mt->first[256] = n;
    return LAMINA_OK;
}

/* First entry of [low, high), all alike in the first `depth` bytes and longer, whose byte at depth is >= byte. */
static uint32_t lower_bound(const matcher *mt, uint32_t low, uint32_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((unsigned char)mt->entries[middle].text.data[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const matcher_entry *matcher_longest(const matcher *mt, const char *text, size_t bytes)
{
    uint32_t low = mt->first[(unsigned char)text[0]], high = mt->first[(unsigned char)text[0] + 1];
    const matcher_entry *best = NULL;
    for (size_t depth = 1; low < high; depth++) {
        if (mt->entries[low].text.bytes == depth) {
            best = &mt->entries[low];
            while (low < high && mt->entries[low].text.bytes == depth) low++;
        }
        if (depth >= bytes) break;
        unsigned byte = (unsigned char)text[depth];
        low = lower_bound(mt, low, high, depth, byte);
        high = lower_bound(mt, low, high, depth, byte + 1);
    }
    return best;
}

/* The character that ends at text + at. */
static size_t previous_char(const char *text, size_t at, uint32_t *code)
{
    size_t begin = at - 1;
    while (begin > 0 && ((unsigned char)text[begin] & 0xc0) == 0x80) begin--;
    utf8_read(text + begin, at - begin, code);
    return begin;
}

static bool stands_alone(const char *text, size_t bytes, size_t begin, size_t end)
{
    uint32_t code;
    if (begin > 0) {
        previous_char(text, begin, &code);
        if (unicode_is_word(code)) return false;
    }
    if (end == bytes) return true;
    utf8_read(text + end, bytes - end, &code);
    return !unicode_is_word(code);
}

static size_t spaces_before(const char *text, size_t at)
{
    uint32_t code;
    while (at > 0) {
        size_t begin = previous_char(text, at, &code);
        if (!unicode_is_space(code)) break;
        at = begin;
    }
    return at;
}

static size_t spaces_behind(const char *text, size_t bytes, size_t at)
{
    uint32_t code;
    while (at < bytes) {
        size_t n = utf8_read(text + at, bytes - at, &code);
        if (!unicode_is_space(code)) break;
        at += n;
    }
    return at;
}

bool added_next(const tokenizer *t, const matcher *mt, bool plain, const char *text, size_t bytes, added_cursor *c,
                added_match *match)
{
    if (mt->n == 0) return false;
    for (size_t at = c->at; at < bytes; at++) {
        unsigned char byte = (unsigned char)text[at];
        if (mt->first[byte] == mt->first[byte + 1]) continue;
        const matcher_entry *entry = matcher_longest(mt, text + at, bytes - at);
        if (!entry) continue;
        const added_token *token = &t->added[entry->token];
        size_t end = at + entry->text.bytes;
        if ((plain && token->special) || (token->single_word && !stands_alone(text, bytes, at, end))) {
            at = end - 1;
            continue;
        }
        c->at = end; /* white space taken behind it does not stop the search from there */
        match->token = token;
        match->begin = at;
        if (token->lstrip) match->begin = spaces_before(text, at);
        if (match->begin < c->emitted) match->begin = at < c->emitted ? at : c->emitted;
        match->end = token->rstrip ? spaces_behind(text, bytes, end) : end;
        c->emitted = match->end;
        return true;
    }
    return false;
}

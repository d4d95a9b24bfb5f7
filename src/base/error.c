/* Owns the making of error lines. Promises that lamina_error.text is always one line of valid UTF-8 without control
 * characters or text-direction overrides, whatever bytes of strangers (paths, tensor names, JSON keys) went into it:
 * such a line can be shown on a terminal or put into JSON as it is. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *lamina_status_name(lamina_status status)
{
    switch (status) {
    case LAMINA_OK:
        return "ok";
    case LAMINA_E_USAGE:
        return "wrong usage";
    case LAMINA_E_IO:
        return "input or output failed";
    case LAMINA_E_FORMAT:
        return "malformed file";
    case LAMINA_E_UNSUPPORTED:
        return "not supported";
    case LAMINA_E_MEMORY:
        return "out of memory";
    case LAMINA_E_BUDGET:
        return "memory budget too small";
    case LAMINA_E_CANCELLED:
        return "cancelled";
    case LAMINA_E_CORRUPT:
        return "data corrupt";
    case LAMINA_E_SPACE:
        return "disk full";
    }
    return "unknown status";
}

/* Length of the valid UTF-8 sequence at s (RFC 3629: shortest form, no surrogates, up to U+10FFFF), and its code
 * point; 0 when there is none. */
static size_t utf8_at(const unsigned char *s, size_t left, uint32_t *code)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3Fu);
    }
    if (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
    *code = c;
    return n;
}

static bool code_harmless(uint32_t c)
{
    if (c < 0x20 || (c >= 0x7F && c <= 0x9F)) return false;      /* controls C0, DEL, C1 */
    if (c == 0x200E || c == 0x200F || c == 0x061C) return false; /* direction marks */
    if (c >= 0x2028 && c <= 0x202E) return false;                /* line and paragraph separators, embeddings */
    if (c >= 0x2066 && c <= 0x2069) return false;                /* isolates */
    return c != 0xFEFF;
}

/* Copies text into out [capacity] with every harmful byte or character replaced by one '?', cut between characters. */
static void copy_harmless(char *out, size_t capacity, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t left = strlen(text), used = 0;
    while (left > 0) {
        uint32_t code = 0;
        size_t n = utf8_at(s, left, &code);
        bool keep = n > 0 && code_harmless(code);
        size_t take = n > 0 ? n : 1, put = keep ? n : 1;
        if (used + put >= capacity) break;
        if (keep)
            memcpy(out + used, s, n);
        else
            out[used] = '?';
        used += put;
        s += take;
        left -= take;
    }
    out[used] = '\0';
}

/* Wider than lamina_error.text, so that a character cut by vsnprintf lies beyond what copy_harmless() keeps. */
enum { RAW_BYTES = sizeof((lamina_error *)0)->text + 8 };

lamina_status error_set(lamina_error *err, lamina_status status, const char *format, ...)
{
    if (!err) return status;
    char raw[RAW_BYTES]; /* apart from err->text, which may be among the arguments */
    va_list args;
    va_start(args, format);
    if (vsnprintf(raw, sizeof raw, format, args) < 0) raw[0] = '\0';
    va_end(args);
    err->status = status;
    copy_harmless(err->text, sizeof err->text, raw);
    return status;
}

lamina_status error_prefix(lamina_error *err, lamina_status status, const char *format, ...)
{
    if (!err) return status;
    char raw[2 * RAW_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(raw, RAW_BYTES, format, args);
    va_end(args);
    size_t used = n < 0 ? 0 : n < RAW_BYTES ? (size_t)n : RAW_BYTES - 1;
    snprintf(raw + used, sizeof raw - used, ": %s", err->text);
    copy_harmless(err->text, sizeof err->text, raw);
    return err->status;
}

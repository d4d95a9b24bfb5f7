/* Errors as values. A function that can fail returns lamina_status and fills *err (which may be NULL). */
#ifndef LAMINA_BASE_ERROR_H
#define LAMINA_BASE_ERROR_H

#include "lamina.h"

/* Fills *err with the formatted line (cut at its size, control characters made harmless) and returns `status`. */
lamina_status error_set(lamina_error *err, lamina_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text already in *err; returns err->status (or `status` when err is NULL). */
lamina_status error_prefix(lamina_error *err, lamina_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Returns from the caller when `call` fails. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        lamina_status try_status_ = (call);                                                                            \
        if (try_status_ != LAMINA_OK) return try_status_;                                                              \
    } while (0)

#endif

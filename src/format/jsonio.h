/* JSON files that become trees: configurations, a few kilobytes each. (Directories of tensors, which may be large, are
 * walked in place by jsonpull.) */
#ifndef LAMINA_FORMAT_JSONIO_H
#define LAMINA_FORMAT_JSONIO_H

#include <jansson.h>

#include "base/memory.h"

enum { JSON_CONFIG_LIMIT = 16 << 20 }; /* bytes of a config.json */

/* Reads a JSON object. LAMINA_E_FORMAT names the file, the line and the column, also for a key that stands twice.
 * *out is the caller's: json_decref(). NULL on failure. */
lamina_status json_read_file(memory *m, const char *path, size_t limit, json_t **out, lamina_error *err);

#endif

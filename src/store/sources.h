/* The files that bytes come from, opened when first read, by several threads at a time. */
#ifndef LAMINA_STORE_SOURCES_H
#define LAMINA_STORE_SOURCES_H

#include <pthread.h>

#include "store/image.h"

enum { SOURCE_PAGE = 4096 };

typedef struct source_file {
    os_file file;
    bool open;
} source_file;

typedef struct sources {
    const image *im;
    source_file *files; /* [im->n_sources] */
    pthread_mutex_t lock;
} sources;

lamina_status sources_new(const image *im, sources *s, lamina_error *err);
void sources_free(sources *s); /* of a zeroed or failed one, too */

/* Reads [offset, offset + bytes) of source `index` somewhere into bounce [bytes + 2 pages, page-aligned]; *at: where it
 * begins there. */
lamina_status sources_read(sources *s, uint32_t index, uint64_t offset, size_t bytes, uint8_t *bounce,
                           const uint8_t **at, lamina_error *err);
/* The same into `to`, through the bounce buffer where it must. */
lamina_status sources_copy(sources *s, uint32_t index, uint64_t offset, size_t bytes, uint8_t *bounce, uint8_t *to,
                           lamina_error *err);

/* The same of a file that the caller has opened. */
lamina_status source_read(const os_file *file, const char *name, uint64_t offset, size_t bytes, uint8_t *bounce,
                          const uint8_t **at, lamina_error *err);
lamina_status source_copy(const os_file *file, const char *name, uint64_t offset, size_t bytes, uint8_t *bounce,
                          uint8_t *to, lamina_error *err);

#endif

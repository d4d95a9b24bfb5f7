/* The journal of a packing: which files of the store are whole, and which have been read back. */
#ifndef LAMINA_STORE_JOURNAL_H
#define LAMINA_STORE_JOURNAL_H

#include <pthread.h>

#include "store/image.h"

typedef struct journal {
    os_file file; /* fd -1: closed */
    char *name;
    uint64_t end; /* where the next line goes */
    const store_job *job;
    pthread_mutex_t lock;
} journal;

/* Opens the journal of the draft whose identity has checksum `identity`, creates it when there is none or when it
 * belongs to another draft, and marks in im what it says is written and verified. *begun: it had a record. */
lamina_status journal_open(journal *j, image *im, uint64_t identity, const store_job *job, bool *begun,
                           lamina_error *err);
/* Appends a record (of what is written, with what its quantised tensors lost) and syncs it. Thread-safe. The caller
 * marks the file in the image. */
lamina_status journal_written(journal *j, const image *im, uint32_t file, lamina_error *err);
lamina_status journal_verified(journal *j, const image *im, uint32_t file, lamina_error *err);
void journal_close(journal *j);

#endif

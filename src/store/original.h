/* The files that a store was made from, and how they go. */
#ifndef LAMINA_STORE_ORIGINAL_H
#define LAMINA_STORE_ORIGINAL_H

#include "store/image.h"

/* *there false: gone. LAMINA_E_IO when it is not the file that the draft describes (size, time of change). */
lamina_status original_check(const image_source *s, bool *there, lamina_error *err);
/* Bytes that removing it would free on the file system `device`. */
lamina_status original_gain(const store_job *job, const image_source *s, uint64_t device, uint64_t *bytes,
                            lamina_error *err);
/* Removes it; absent is fine. A symbolic link is removed; what it points to only when it is a blob of the Hub's cache
 * that the link belongs to and no other link of that cache needs it. */
lamina_status original_remove(const store_job *job, const image_source *s, lamina_error *err);

#endif

/* The directory of a zip file whose entries are stored, not compressed: where the bytes of each lie in the file. */
#ifndef LAMINA_FORMAT_ZIP_H
#define LAMINA_FORMAT_ZIP_H

#include "base/memory.h"
#include "base/os.h"

typedef struct zip_entry {
    const char *name;
    uint64_t begin;         /* of its local header */
    uint64_t offset, bytes; /* of its data in the file */
} zip_entry;

typedef struct zip {
    memory *m;
    arena *names;
    zip_entry *entries; /* sorted by name (strcmp), no two alike; their bytes lie inside the file and do not overlap */
    size_t n;
} zip;

/* path is for errors. Compressed, encrypted and split entries are LAMINA_E_UNSUPPORTED by name. Checksums are not
 * compared: that would read all data. */
lamina_status zip_open(memory *m, const os_file *file, const char *path, zip *z, lamina_error *err);
void zip_close(zip *z);
const zip_entry *zip_find(const zip *z, const char *name); /* NULL: none */

#endif

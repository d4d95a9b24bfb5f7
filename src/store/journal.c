/* The journal of a packing (pack.journal).
 *
 * Owns a file of short lines, each led by the checksum of its own rest, appended and synced one at a time. Promises
 * that what it says is on the disk: a file is recorded after it has been synced and renamed. A line cut short by a
 * crash, and all that follows it, counts as not written. The first line binds the journal to its draft, so that the
 * records of one packing are never believed in another.
 *
 *   CHECKSUM draft IDENTITY
 *   CHECKSUM lost TENSOR ERROR POWER     (of a quantised one: sums of squares, for the report)
 *   CHECKSUM written INDEX BYTES XXH3    (a file; behind what its tensors lost)
 *   CHECKSUM verified INDEX BYTES XXH3 */
#include "store/journal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { LINE = 128 };

static int make_line(char *line, const char *body)
{
    return snprintf(line, LINE, "%016llx %s\n", (unsigned long long)XXH3_64bits(body, strlen(body)), body);
}

/* Whole lines. */
static lamina_status append(journal *j, const char *lines, size_t n, lamina_error *err)
{
    pthread_mutex_lock(&j->lock);
    store_step(j->job);
    lamina_status status = os_write_at(&j->file, j->name, j->end, lines, n, err);
    if (status == LAMINA_OK) {
        store_step(j->job);
        status = os_sync(&j->file, j->name, err);
    }
    if (status == LAMINA_OK) j->end += n;
    pthread_mutex_unlock(&j->lock);
    return status;
}

static int file_line(char *line, const char *what, const image *im, uint32_t file)
{
    char body[LINE - 32];
    snprintf(body, sizeof body, "%s %u %llu %016llx", what, file, (unsigned long long)im->files[file].bytes,
             (unsigned long long)im->files[file].xxh3);
    return make_line(line, body);
}

lamina_status journal_written(journal *j, const image *im, uint32_t file, lamina_error *err)
{
    const image_file *f = &im->files[file];
    char line[LINE], body[LINE - 32];
    text lines = {.m = im->m, .err = err};
    for (size_t i = f->first; i < f->first + f->n_tensors; i++) {
        const image_tensor *x = &im->tensors[i];
        if (!(x->power > 0)) continue;
        snprintf(body, sizeof body, "lost %zu %a %a", i, x->error, x->power);
        make_line(line, body);
        text_add(&lines, "%s", line);
    }
    file_line(line, "written", im, file);
    text_add(&lines, "%s", line);
    lamina_status status = lines.status == LAMINA_OK ? append(j, lines.data, lines.bytes, err) : lines.status;
    mem_free(im->m, lines.data);
    return status;
}

lamina_status journal_verified(journal *j, const image *im, uint32_t file, lamina_error *err)
{
    char line[LINE];
    int n = file_line(line, "verified", im, file);
    return append(j, line, (size_t)n, err);
}

/* Where the file is not written after all, packing it begins the sums anew. */
static bool take_lost(image *im, const char *body)
{
    size_t i;
    double error, power;
    if (sscanf(body, "lost %zu %la %la", &i, &error, &power) != 3 || i >= im->n_tensors) return false;
    if (!(error >= 0 && error < INFINITY && power > 0 && power < INFINITY)) return false;
    im->tensors[i].error = error;
    im->tensors[i].power = power;
    return true;
}

/* Takes one line (without its end) into the image; false: not a line of this journal. */
static bool take(image *im, const char *line, size_t n, uint64_t identity, bool first)
{
    char body[LINE], expected[LINE], what[16];
    if (n < 18 || n >= LINE) return false;
    memcpy(body, line + 17, n - 17);
    body[n - 17] = 0;
    if ((size_t)make_line(expected, body) != n + 1 || memcmp(expected, line, n) != 0) return false;
    unsigned long long bytes, hash;
    unsigned file;
    if (first) return sscanf(body, "draft %llx", &hash) == 1 && hash == identity;
    if (strncmp(body, "lost ", 5) == 0) return take_lost(im, body);
    if (sscanf(body, "%15s %u %llu %llx", what, &file, &bytes, &hash) != 4) return false;
    if (file >= im->n_files || im->files[file].bytes != bytes) return false;
    image_file *f = &im->files[file];
    if (strcmp(what, "written") == 0) {
        f->verified = f->written && f->verified && f->xxh3 == hash;
        f->written = true;
        f->xxh3 = hash;
        return true;
    }
    if (strcmp(what, "verified") != 0 || !f->written || f->xxh3 != hash) return false;
    f->verified = true;
    return true;
}

/* Reads what is there; returns the length of the part that is whole. */
static uint64_t replay(image *im, const char *data, size_t bytes, uint64_t identity, bool *begun)
{
    size_t at = 0;
    for (bool first = true; at < bytes; first = false) {
        const char *end = memchr(data + at, '\n', bytes - at);
        if (!end || !take(im, data + at, (size_t)(end - (data + at)), identity, first)) break;
        at = (size_t)(end - data) + 1;
        if (!first) *begun = true;
    }
    return at;
}

static lamina_status start(journal *j, const image *im, uint64_t identity, lamina_error *err)
{
    char body[64], line[LINE];
    snprintf(body, sizeof body, "draft %016llx", (unsigned long long)identity);
    int n = make_line(line, body);
    j->end = (uint64_t)n;
    return store_replace(im->m, im->path, STORE_JOURNAL, line, (size_t)n, j->job, err);
}

lamina_status journal_open(journal *j, image *im, uint64_t identity, const store_job *job, bool *begun,
                           lamina_error *err)
{
    *j = (journal){.file = {.fd = -1}, .job = job};
    *begun = false;
    j->name = store_join(im->m, im->path, STORE_JOURNAL, err);
    if (!j->name) return NO_MEMORY(err);
    pthread_mutex_init(&j->lock, NULL);
    char *data = NULL;
    size_t bytes = 0;
    lamina_status status = LAMINA_OK;
    if (os_exists(j->name)) status = os_read_file(im->m, j->name, STORE_MAX_JSON, &data, &bytes, err);
    if (status == LAMINA_OK) {
        j->end = data ? replay(im, data, bytes, identity, begun) : 0;
        if (j->end == 0) status = start(j, im, identity, err);
    }
    mem_free(im->m, data);
    if (status == LAMINA_OK) status = os_open_append(j->name, &j->file, err);
    if (status == LAMINA_OK) status = os_truncate(&j->file, j->name, j->end, err);
    if (status != LAMINA_OK) {
        mem_free(im->m, j->name);
        os_close(&j->file);
        pthread_mutex_destroy(&j->lock);
        j->name = NULL;
    }
    return status;
}

void journal_close(journal *j)
{
    if (!j->name) return;
    os_close(&j->file);
    mem_free(j->job->m, j->name);
    pthread_mutex_destroy(&j->lock);
    j->name = NULL;
}

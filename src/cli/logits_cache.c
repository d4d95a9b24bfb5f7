/* Owns: next-token distributions of a reference model on disk, and what another model's are beside them.
 *
 * Promises: two bytes for each token of the vocabulary. Kept is the fourth root of the probability over the largest
 * one, rounded to a multiple of 1/65535: u = exp((logit - top) / 4). A probability is then off by a factor of 1 + 4 r /
 * u with |r| <= 2^-17: by 3e-5 of itself at most where it is large, by 1 % at 1e-10 of the largest, and gone below
 * 3e-21. What is read is normalised anew, so that no error enters the divergence in the first order but where the two
 * models differ; cache_compare() says for each position what may have entered, and it adds up to less than 1e-6 nat in
 * the mean for any text that is worth the name. The token that came and the likeliest one are kept exactly. A file
 * without a name goes with the process, whatever ends it; one with a name has it only when it is whole. A file's bytes
 * are checked before they are used: it may be another program's, or half of ours.
 *
 * Why a root: steps of equal width in the logit are too wide where probabilities are large, and their range ends; a
 * root needs no range, and reading it takes two multiplications where a logit takes an exponential. */
#include "eval.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char cache_magic[8] = "LMLOGITS";

enum { CACHE_VERSION = 1, CODE_TOP = 65535, CODES = 65536 };

_Static_assert(sizeof(cache_head) == 256, "the head has no padding");

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

double token_nll(const float *logits, uint32_t vocab, int32_t id, uint32_t *top, uint16_t *codes)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    double sum = 0, most = (double)logits[best];
    for (uint32_t i = 0; i < vocab; i++) {
        double u = exp(((double)logits[i] - most) * 0.25), square = u * u;
        sum += square * square;
        if (codes) codes[i] = u > 0 ? (uint16_t)(u * CODE_TOP + 0.5) : 0; /* what is not a number is none */
    }
    *top = best;
    return log(sum) + (most - (double)logits[id]);
}

/* Of distributions p, as read, and q = softmax(logits): with t = p / q up to a factor, kl = sum p log t / sum p + ....
 * A code's rounding changes log p by 4 r / u, where r is spread evenly over 1/65535; kl follows by the sum of
 * p (log t - its mean) times that. What is left when p = q is half the variance of log p by rounding. */
comparison cache_compare(const logits_cache *c, const float *logits, uint32_t common, int32_t id)
{
    comparison out = {.reference_nll = c->now.nll};
    uint32_t top;
    out.nll = token_nll(logits, common, id, &top, NULL);
    double most = (double)logits[top], log_sum = out.nll - (most - (double)logits[id]);
    double whole = 0, sum = 0, roots = 0, v[3] = {0};
    uint32_t best = 0;
    for (uint32_t i = 0; i < common; i++) {
        uint16_t code = c->codes[i];
        if (!code) continue;
        if (code > c->codes[best]) best = i;
        double u = code * (1.0 / CODE_TOP), square = u * u, p = square * square;
        double ratio = c->log_of[code] - ((double)logits[i] - most), weight = p * square;
        whole += p;
        sum += p * ratio;
        roots += square;
        v[0] += weight;
        v[1] += weight * ratio;
        v[2] += weight * ratio * ratio;
    }
    double mean = sum / whole, kl = mean - log(whole) + log_sum;
    if (c->now.top < common) { /* its code is exact */
        double ratio = most - (double)logits[c->now.top];
        best = c->now.top;
        roots -= 1;
        v[0] -= 1;
        v[1] -= ratio;
        v[2] -= ratio * ratio;
    }
    if (common < c->head.vocab) { /* without the ids that only the reference has */
        double rest = 0;
        for (uint32_t i = common; i < c->head.vocab; i++) {
            double u = c->codes[i] * (1.0 / CODE_TOP);
            rest += u * u * u * u;
        }
        out.reference_nll += log(whole / (whole + rest));
    }
    const double spread = 16.0 / (12.0 * CODE_TOP * (double)CODE_TOP); /* of 4 r */
    double variance = spread * (v[2] - 2 * mean * v[1] + mean * mean * v[0]) / (whole * whole);
    out.kl = kl < 0 ? 0 : kl; /* never below, but for the sums' own rounding */
    out.rounding_variance = variance > 0 ? variance : 0;
    out.rounding_bias = roots > 0 ? spread * roots / whole / 2 : 0;
    out.same_top = best == top;
    return out;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

uint64_t cache_bytes(uint32_t vocab, uint64_t n_ids, uint64_t positions)
{
    return sizeof(cache_head) + 4 * n_ids + positions * (16 + 2 * (uint64_t)vocab);
}

static int take_memory(logits_cache *c)
{
    c->codes = malloc(sizeof *c->codes * c->head.vocab);
    c->log_of = malloc(sizeof *c->log_of * CODES);
    if (!c->codes || !c->log_of) return fail("out of memory");
    memset(c->codes, 1, sizeof *c->codes * c->head.vocab); /* touched: it counts before the plan is made */
    c->log_of[0] = -INFINITY;
    for (int i = 1; i < CODES; i++) c->log_of[i] = 4 * log((double)i / CODE_TOP);
    return EXIT_DONE;
}

/* The folder of a path, or of temporary files: $TMPDIR, else /var/tmp, which is for large ones, else /tmp. */
static char *folder_of(const char *path)
{
    if (!path) {
        const char *told = getenv("TMPDIR");
        if (told && *told) return strdup(told);
        return strdup(access("/var/tmp", W_OK | X_OK) == 0 ? "/var/tmp" : "/tmp");
    }
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

static int check_space(const char *folder, uint64_t bytes, const char *reference)
{
    struct statvfs fs;
    if (statvfs(folder, &fs) != 0) return fail("%s: %s", folder, strerror(errno));
    uint64_t block = fs.f_frsize ? fs.f_frsize : fs.f_bsize;
    if (block && fs.f_bavail < bytes / block + 1)
        return fail("%s: expected %s free for the logits of %s, found %s; -n takes fewer tokens, --logits-cache "
                    "another place",
                    folder, human_bytes(bytes).text, reference, human_bytes(fs.f_bavail * block).text);
    return EXIT_DONE;
}

/* The file, under the name that it has until it is whole, or none. */
static int make_file(logits_cache *c, const char *path, const char *folder)
{
    size_t n = strlen(path ? path : folder) + 48;
    c->path = malloc(n);
    if (!c->path) return fail("out of memory");
    if (path) {
        snprintf(c->path, n, "%s.part.%ld", path, (long)getpid());
        c->file = fopen(c->path, "wb+");
    } else {
        snprintf(c->path, n, "%s/lamina-logits-XXXXXX", folder);
        int fd = mkstemp(c->path);
        c->file = fd < 0 ? NULL : fdopen(fd, "wb+");
        if (fd >= 0 && !c->file) close(fd);
        if (fd >= 0) unlink(c->path);
    }
    int error = errno;
    int code = c->file ? EXIT_DONE : fail("%s: %s", path ? c->path : folder, strerror(error));
    if (!path || !c->file) {
        free(c->path);
        c->path = NULL;
    }
    return code;
}

static int write_failed(const logits_cache *c)
{
    return fail("%s: %s", c->path ? c->path : c->name, strerror(errno));
}

int cache_create(logits_cache *c, const char *path, const cache_head *head, const int32_t *ids)
{
    *c = (logits_cache){.name = path ? path : "the temporary file of logits", .head = *head};
    memcpy(c->head.magic, cache_magic, sizeof cache_magic);
    c->head.version = CACHE_VERSION;
    uint64_t bytes = cache_bytes(head->vocab, head->n_ids, head->positions);
    char *folder = folder_of(path);
    int code = folder ? take_memory(c) : fail("out of memory");
    if (code == EXIT_DONE) code = check_space(folder, bytes, head->reference);
    if (code == EXIT_DONE) code = make_file(c, path, folder);
    if (code == EXIT_DONE)
        fprintf(stderr, "lamina: note: logits of %s: %s in %s%s\n", head->reference, human_bytes(bytes).text,
                c->path ? c->path : folder, c->path ? ", which is renamed when it is whole" : ", until the end");
    if (code == EXIT_DONE && (fwrite(&c->head, sizeof c->head, 1, c->file) != 1 ||
                              fwrite(ids, sizeof *ids, head->n_ids, c->file) != head->n_ids))
        code = write_failed(c);
    free(folder);
    return code;
}

int cache_append(logits_cache *c, const float *logits, int32_t id, double *nll)
{
    *nll = token_nll(logits, c->head.vocab, id, &c->now.top, c->codes);
    if (!isfinite(*nll)) return EXIT_DONE;
    c->now.nll = *nll;
    if (fwrite(&c->now, sizeof c->now, 1, c->file) != 1 ||
        fwrite(c->codes, sizeof *c->codes, c->head.vocab, c->file) != c->head.vocab)
        return write_failed(c);
    c->at++;
    return EXIT_DONE;
}

int cache_finish(logits_cache *c, const char *path)
{
    if (fflush(c->file) != 0 || fseeko(c->file, (off_t)cache_bytes(0, c->head.n_ids, 0), SEEK_SET) != 0)
        return write_failed(c);
    if (c->path) {
        if (fsync(fileno(c->file)) != 0) return write_failed(c);
        if (rename(c->path, path) != 0) return fail("%s: %s", path, strerror(errno));
        free(c->path);
        c->path = NULL;
    }
    c->at = 0;
    return EXIT_DONE;
}

void cache_close(logits_cache *c)
{
    if (c->file) fclose(c->file);
    if (c->path) unlink(c->path);
    free(c->path);
    free(c->codes);
    free(c->log_of);
    *c = (logits_cache){0};
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static int read_failed(const logits_cache *c)
{
    return fail("%s: %s", c->name, ferror(c->file) ? strerror(errno) : "ends before its last distribution");
}

/* The ids in the file are those of the text, or the first that is not is named. */
static int check_ids(logits_cache *c, const id_list *ids)
{
    if (c->head.n_ids != ids->n)
        return fail("%s: expected the logits of this text's %zu tokens, found those of %" PRIu64, c->name, ids->n,
                    c->head.n_ids);
    for (size_t at = 0; at < ids->n;) {
        int32_t block[1024];
        size_t n = ids->n - at < 1024 ? ids->n - at : 1024;
        if (fread(block, sizeof *block, n, c->file) != n) return read_failed(c);
        for (size_t i = 0; i < n; i++)
            if (block[i] != ids->data[at + i])
                return fail("%s: expected the logits of this text, found those of another: token %zu is %d, not %d",
                            c->name, at + i, block[i], ids->data[at + i]);
        at += n;
    }
    return EXIT_DONE;
}

static int check_head(const logits_cache *c)
{
    const cache_head *h = &c->head;
    struct stat st;
    if (memcmp(h->magic, cache_magic, sizeof cache_magic)) return fail("%s: not a file of logits", c->name);
    if (h->version != CACHE_VERSION)
        return fail(
            "%s: expected version %d, found %u: made by another version of lamina, or on another kind of machine",
            c->name, (int)CACHE_VERSION, h->version);
    bool sane = h->vocab > 0 && h->vocab <= INT32_MAX && h->tokens > 0 && h->tokens <= h->vocab && h->context >= 2 &&
                h->stride > 0 && h->stride <= h->context && h->n_ids >= 2 && h->n_ids <= INT32_MAX &&
                h->positions > 0 && h->positions < h->n_ids && memchr(h->reference, 0, sizeof h->reference);
    if (!sane) return fail("%s: damaged: what its head says cannot be", c->name);
    if (fstat(fileno(c->file), &st) != 0) return fail("%s: %s", c->name, strerror(errno));
    uint64_t expected = cache_bytes(h->vocab, h->n_ids, h->positions); /* below 2^31 (20 + 2^32) */
    if ((uint64_t)st.st_size != expected)
        return fail("%s: expected %" PRIu64 " bytes for %" PRIu64 " distributions, found %" PRIu64, c->name, expected,
                    h->positions, (uint64_t)st.st_size);
    return EXIT_DONE;
}

int cache_open(logits_cache *c, const char *path, const id_list *ids)
{
    *c = (logits_cache){.name = path, .file = fopen(path, "rb")};
    if (!c->file) return fail("%s: %s", path, strerror(errno));
    if (fread(&c->head, sizeof c->head, 1, c->file) != 1)
        return ferror(c->file) ? fail("%s: %s", path, strerror(errno)) : fail("%s: not a file of logits", path);
    int code = check_head(c);
    if (code == EXIT_DONE) code = take_memory(c);
    if (code == EXIT_DONE) code = check_ids(c, ids);
    return code;
}

int cache_next(logits_cache *c)
{
    uint32_t vocab = c->head.vocab;
    if (fread(&c->now, sizeof c->now, 1, c->file) != 1 || fread(c->codes, sizeof *c->codes, vocab, c->file) != vocab)
        return read_failed(c);
    if (!(c->now.nll >= 0) || !isfinite(c->now.nll) || c->now.top >= vocab || c->codes[c->now.top] != CODE_TOP)
        return fail("%s: distribution %" PRIu64 " is damaged", c->name, c->at);
    c->at++;
    return EXIT_DONE;
}

/* ---- the reference's identity ------------------------------------------------------------------------------------ */

/* FNV-1a, 64 bits. */
static void stir(uint64_t *hash, const void *data, size_t n)
{
    for (const unsigned char *at = data; n; n--) *hash = (*hash ^ *at++) * UINT64_C(0x100000001b3);
}

/* The file of a tensor: beside a model that is a file, inside of one that is a folder. */
static char *tensor_path(const work *w, const char *file)
{
    struct stat st;
    const char *path = w->model.path, *slash = strrchr(path, '/');
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    size_t n = folder ? strlen(path) : slash ? (size_t)(slash - path) : 0, room = strlen(path) + strlen(file) + 2;
    char *out = malloc(room);
    if (!out) return NULL;
    if (n || folder)
        snprintf(out, room, "%.*s/%s", (int)n, path, file);
    else
        snprintf(out, room, "%s%s", slash ? "/" : "", file);
    return out;
}

enum { SAMPLE = 256 };

static int stir_tensor(const lamina_tensor_info *t, FILE *f, const char *path, uint64_t *hash)
{
    unsigned char sample[SAMPLE];
    size_t n = t->bytes < SAMPLE ? (size_t)t->bytes : SAMPLE;
    if (fseeko(f, (off_t)t->offset, SEEK_SET) != 0 || fread(sample, 1, n, f) != n)
        return fail("%s: %s", path, ferror(f) ? strerror(errno) : "ends early");
    uint64_t own = UINT64_C(0xcbf29ce484222325);
    stir(&own, t->role, strlen(t->role));
    stir(&own, t->dtype, strlen(t->dtype));
    stir(&own, &t->layer, sizeof t->layer);
    stir(&own, t->shape, sizeof t->shape);
    stir(&own, sample, n);
    *hash += own; /* in whatever order files have them */
    return EXIT_DONE;
}

int model_fingerprint(const work *w, uint64_t *fingerprint)
{
    lamina_tensor_info t;
    char *path = NULL, open[256] = "";
    FILE *f = NULL;
    int code = EXIT_DONE;
    *fingerprint = 0;
    stir(fingerprint, w->model.family, strlen(w->model.family));
    for (size_t i = 0; code == EXIT_DONE && lamina_tensor(w->engine, i, &t) == LAMINA_OK; i++) {
        if (!*t.role) continue;
        if (!f || strcmp(open, t.file)) { /* tensors of a file mostly come together */
            if (f) fclose(f);
            free(path);
            path = tensor_path(w, t.file);
            f = path ? fopen(path, "rb") : NULL;
            snprintf(open, sizeof open, "%s", t.file);
            if (!f) code = path ? fail("%s: %s", path, strerror(errno)) : fail("out of memory");
        }
        if (code == EXIT_DONE) code = stir_tensor(&t, f, path, fingerprint);
    }
    if (f) fclose(f);
    free(path);
    return code;
}

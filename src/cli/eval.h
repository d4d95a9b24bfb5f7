/* What `lamina eval` is made of: the distributions of a reference kept on disk, and estimates with standard errors. */
#ifndef LAMINA_CLI_EVAL_H
#define LAMINA_CLI_EVAL_H

#include "cli.h"

/* ---- estimates -------------------------------------------------------------------------------------------------- */

typedef struct estimate {
    double value, error; /* error: one standard error; not a number where it is not known */
} estimate;

/* Of x [n] in the order of the text, n at least 1. */
estimate estimate_mean(const double *x, size_t n);
estimate estimate_rms(const double *x, size_t n); /* the root of the mean square */
/* q from 0 to 1; sorted: the same numbers in ascending order. */
estimate estimate_quantile(const double *x, const double *sorted, size_t n, double q);

/* ---- distributions ---------------------------------------------------------------------------------------------- */

/* Negative log-likelihood of one token in nats, from logits [vocab]; not finite if a logit is not. *top is the
 * likeliest token, of several the lowest; codes [vocab] (may be NULL) is the distribution as it is kept on disk. */
double token_nll(const float *logits, uint32_t vocab, int32_t id, uint32_t *top, uint16_t *codes);

/* What a file of distributions begins with, as it lies there: the machine's own byte order. */
typedef struct cache_head {
    char magic[8];
    uint32_t version, vocab;
    uint32_t tokens, context; /* tokens: ids from here on are padding */
    uint32_t stride, zero;
    uint64_t fingerprint; /* of the reference: model_fingerprint() */
    uint64_t n_ids;       /* of the text; the ids follow the head */
    uint64_t positions;   /* distributions, which follow the ids */
    char reference[200];  /* the model's path when it was made, NUL-terminated, perhaps cut */
} cache_head;

typedef struct logits_cache {
    FILE *file;
    const char *name; /* for messages */
    char *path;       /* its name until it is whole; NULL: none */
    cache_head head;
    uint64_t at;         /* distributions written or read so far */
    uint16_t *codes;     /* [head.vocab] */
    double *log_of;      /* [65536] 4 log(code / 65535) */
    struct {             /* of the distribution read last */
        double nll;      /* of the token that came */
        uint32_t top, _; /* the likeliest token */
    } now;
} logits_cache;

/* Bytes of a file for this vocabulary, text and number of distributions. */
uint64_t cache_bytes(uint32_t vocab, uint64_t n_ids, uint64_t positions);

/* Each returns EXIT_DONE, or an exit code after printing why; cache_close() is always allowed, and removes what is not
 * whole. All memory is taken and touched here. */

/* A new file for distributions; path NULL: one without a name in the folder of temporary files. Announces its size
 * after looking whether there is room. magic and version of *head are filled in. */
int cache_create(logits_cache *c, const char *path, const cache_head *head, const int32_t *ids);
/* Appends the distribution of logits [vocab], after which token id came. *nll: its negative log-likelihood, and nothing
 * is written if that is not finite. */
int cache_append(logits_cache *c, const float *logits, int32_t id, double *nll);
/* After the last: gives the file its name, and goes back to the first. */
int cache_finish(logits_cache *c, const char *path);
/* A whole file. ids: those that it must have been made for. */
int cache_open(logits_cache *c, const char *path, const id_list *ids);
/* Reads the next distribution: codes and `now`. */
int cache_next(logits_cache *c);
void cache_close(logits_cache *c);

typedef struct comparison {
    double nll, reference_nll; /* of the token that came */
    double kl;                 /* of the reference from the model, in nats */
    double rounding_variance;  /* of kl, by the rounding of what is stored */
    double rounding_bias;      /* what that rounding adds to kl on average */
    bool same_top;
} comparison;

/* The distribution read last beside logits [vocab] of the model, over the ids below `common`. */
comparison cache_compare(const logits_cache *c, const float *logits, uint32_t common, int32_t id);

/* A number for what the model is: roles, types, shapes and first bytes of its tensors, wherever they lie. */
int model_fingerprint(const work *w, uint64_t *fingerprint);

/* ---- an evaluation ---------------------------------------------------------------------------------------------- */

/* One model's way over the text. */
typedef struct scoring {
    struct evaluation *e;
    work w;
    bool is_reference;
    const int32_t *window; /* the tokens at hand */
    size_t n;              /* tokens scored */
    uint64_t windows, tokens_fed;
    double seconds;
    lamina_stats stats;
    bool cut_short, broken; /* by Ctrl-C; a likelihood was not a number */
    int code;               /* of the file of distributions */
} scoring;

typedef struct evaluation {
    const options *options;
    id_list ids;
    uint32_t context, stride;
    uint64_t windows;
    size_t positions; /* tokens that are scored */
    scoring model, reference;
    double *nll;           /* [positions] of the model */
    bool compares, reused; /* reused: the file of distributions was there */
    uint32_t common;       /* ids compared */
    logits_cache cache;
    double *reference_nll, *kl, *same_top, *scratch; /* [positions] */
    double rounding_variance, rounding_bias;         /* sums over the positions */
} evaluation;

/* Prints what was found; the exit code. */
int eval_report(evaluation *e);

#endif

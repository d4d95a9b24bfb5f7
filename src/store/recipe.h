/* Which tensor is stored as what. A recipe is read from text:
 *
 *   SPEC      = PART {"," PART}
 *   PART      = TYPE | PATTERN "=" TYPE | "bits=" NUMBER | "size=" SIZE
 *   TYPE      = "q8_0" | "q6_k" | "q5_k" | "q4_k" | "q4_0" ... | "packed" | "keep"
 *   PATTERN   = a name, with "*" for any characters and [0-3] for numbers; "layers[0-3]" is "layers[0-3].*"
 *
 * Names are made of layer and role: layers[3].down, layers[3].experts.down, embed, head. What comes later wins. A TYPE
 * alone, bits= or size= is for all that no pattern names; without one that is kept. A tensor that holds several
 * matrices (q, k and v in one) answers to each of their names; a head tied to the embedding is one tensor that answers
 * to both.
 *
 * Never quantised: norms, biases and other vectors, routers, learned positions, matrices stored [in, out], what is not
 * f32, f16, bf16 (packed or not) or FP8, what no pass uses. Where rows are not whole blocks of 256 the type of 32 takes
 * its place that llama.cpp puts there: q8_0 for q6_k, q5_1 for q5_k, q5_0 for q4_k; q4_0 for nf4. Where they are not of
 * 32 either, the tensor is kept. */
#ifndef LAMINA_STORE_RECIPE_H
#define LAMINA_STORE_RECIPE_H

#include "model/model.h"

typedef struct recipe recipe;

typedef enum recipe_form {
    RECIPE_KEEP,   /* copied bit for bit */
    RECIPE_PACKED, /* without loss */
    RECIPE_BLOCKS, /* quantised to .type */
    RECIPE_OPEN    /* to be distributed: recipe_distribute() */
} recipe_form;

typedef struct recipe_target {
    recipe_form form;
    dtype type;          /* of BLOCKS: what the store will have; else the tensor's own */
    const char *why;     /* static text: why this is not what was asked for; NULL: it is */
    const weight *codes; /* the tensor holds codes of FP8: the weight whose scales are theirs; NULL: numbers */
} recipe_target;

/* LAMINA_E_USAGE: the text says what is wrong, where, and what was expected. */
lamina_status recipe_parse(memory *m, const char *spec, recipe **out, lamina_error *err);
void recipe_free(recipe *r); /* NULL is allowed */
/* It has bits= or size=: there will be open targets. */
bool recipe_surveys(const recipe *r);
/* It asks for blocks: some matrix may be rounded. */
bool recipe_quantises(const recipe *r);

/* targets [mo->source->n_tensors]. LAMINA_E_USAGE: a pattern names nothing. */
lamina_status recipe_targets(const recipe *r, const model *mo, recipe_target *targets, lamina_error *err);

/* ---- distributing bits: measure every open tensor in its candidates' types, then choose ----------------------------- */

enum { RECIPE_CANDIDATES = 5 };
/* What a matrix of so many columns may become, by bytes, ascending; i < RECIPE_CANDIDATES. */
dtype recipe_candidate(uint64_t cols, int i);

typedef struct recipe_survey { /* of a tensor, by candidate: sums of quantize_cost over its rows */
    double error[RECIPE_CANDIDATES];
    double power; /* 0: not measured, or a tensor of zeros: the first candidate costs nothing */
} recipe_survey;

/* Closes the open targets so that the whole fits and the expected loss is least. survey [n_tensors]; layer by layer the
 * experts' matrices of a role share a type. size= counts the bytes of all tensors, packed ones as they were; bits=
 * those of the open ones over their elements. LAMINA_E_USAGE: even the least types do not fit; the text says what
 * would. */
lamina_status recipe_distribute(const recipe *r, const model *mo, const recipe_survey *survey, recipe_target *targets,
                                lamina_error *err);

#endif

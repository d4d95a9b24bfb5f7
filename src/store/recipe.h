/* Which tensor is stored as what. A recipe is read from text:
 *
 *   SPEC      = PART {"," PART}
 *   PART      = TYPE | PATTERN "=" TYPE | "bits=" NUMBER | "size=" SIZE
 *   TYPE      = "q8_0" | "q6_k" | "q5_k" | "q4_k" | "q4_0" | "nf4" | "packed" | "keep"
 *   PATTERN   = a name with "*" (any characters) and, for layers, ranges: "layers[0-3]" is "layers[0-3].*"
 *
 * Names are made of layer and role: layers[3].down, layers[3].experts.down, embed, head. What comes later wins. A TYPE
 * alone, bits= or size= is for all that no pattern names; none: kept. A tensor that holds several matrices (q, k and v
 * in one) answers to each of their names.
 *
 * Never quantised: norms, biases and other vectors, routers, matrices stored [in, out], what is quantised already, what
 * no pass uses. Where rows are not whole blocks of the type, the nearest larger type of 32 takes its place (q8_0 for q6_k
 * and q5_k, q4_0 for q4_k and nf4); where they are not of 32 either, the tensor is kept.
 *
 * A head tied to the embedding is one tensor, named both embed and head; as the head needs more, a bare TYPE below q6_k
 * gives it q6_k unless a pattern names it. */
#ifndef LAMINA_STORE_RECIPE_H
#define LAMINA_STORE_RECIPE_H

#include "model/model.h"

typedef struct recipe recipe;

typedef enum recipe_form {
    RECIPE_KEEP,   /* copied bit for bit */
    RECIPE_PACKED, /* without loss */
    RECIPE_BLOCKS  /* quantised to .type */
} recipe_form;

typedef struct recipe_target {
    recipe_form form;
    dtype type;      /* what the store will have; KEEP, PACKED: the tensor's own */
    const char *why; /* static text: why this is not what was asked; NULL: it is */
} recipe_target;

lamina_status recipe_parse(memory *m, const char *spec, recipe **out, lamina_error *err); /* LAMINA_E_USAGE */
void recipe_free(recipe *r);                                                              /* NULL is allowed */
/* It has bits= or size=: recipe_distribute() follows a survey. */
bool recipe_surveys(const recipe *r);

/* targets [mo->source->n_tensors]. LAMINA_E_USAGE: a pattern names nothing. With recipe_surveys(), those still open are
 * RECIPE_BLOCKS with type DT_COUNT. */
lamina_status recipe_targets(const recipe *r, const model *mo, recipe_target *targets, lamina_error *err);

/* ---- distributing bits: measure every open tensor in every candidate's type, then choose ----------------------- */

enum { RECIPE_CANDIDATES = 5 };
extern const dtype recipe_candidates[RECIPE_CANDIDATES]; /* by bytes, ascending */

typedef struct recipe_survey {              /* of a tensor */
    double error[RECIPE_CANDIDATES], power; /* sums of quantize_cost over its rows; power 0: not measured */
} recipe_survey;

/* Closes the open targets so that the whole fits and the expected loss is least. survey [n_tensors]. A layer's experts
 * share a type. LAMINA_E_USAGE: even the smallest does not fit; the text says what would. */
lamina_status recipe_distribute(const recipe *r, const model *mo, const recipe_survey *survey, recipe_target *targets,
                                lamina_error *err);

#endif

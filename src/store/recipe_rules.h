/* What a recipe is made of. */
#ifndef LAMINA_STORE_RECIPE_RULES_H
#define LAMINA_STORE_RECIPE_RULES_H

#include "store/recipe.h"

typedef struct recipe_rule {
    const char *pattern;
    recipe_form form;
    dtype type;
} recipe_rule;

struct recipe {
    memory *m;
    char *text;
    size_t n_rules;
    recipe_rule *rules;
    recipe_rule base; /* for what no rule names */
    double bits;      /* a weight, of what is open; 0: not asked for */
    uint64_t size;    /* bytes of all tensors; 0: not asked for */
};

bool pattern_ok(const char *pattern);
/* name: "layers[12].experts.down" */
bool pattern_matches(const char *pattern, const char *name);

#endif

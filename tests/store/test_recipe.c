/* Recipes: what their text means, and what is wrong with it. */
#include "store/recipe.h"

#include "store/recipe_rules.h"
#include "test.h"

static void patterns(void)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"layers[0-3]", "layers[0].down", true},
        {"layers[0-3]", "layers[3].experts.down", true},
        {"layers[0-3]", "layers[4].down", false},
        {"layers[0-3]", "layers[30].down", false},
        {"layers[2]", "layers[2].q", true},
        {"layers[2]", "layers[12].q", false},
        {"layers[2].q", "layers[2].q", true},
        {"layers[2].q", "layers[2].qkv", false},
        {"layers[*].experts.down", "layers[17].experts.down", true},
        {"layers[*].down", "layers[17].experts.down", false},
        {"*.down", "layers[17].experts.down", true},
        {"*.down", "layers[17].down", true},
        {"*.down", "layers[17].down_bias", false},
        {"*down*", "layers[17].shared_down", true},
        {"*[1-2].*", "layers[2].o", true},
        {"*[1-2].*", "layers[3].o", false},
        {"head", "head", true},
        {"head", "embed", false},
        {"*", "embed", true},
        {"he", "head", false},
        {"headed", "head", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(pattern_ok(cases[i].pattern), "%s", cases[i].pattern);
        CHECK(pattern_matches(cases[i].pattern, cases[i].name) == cases[i].matches, "%s, %s", cases[i].pattern,
              cases[i].name);
    }
    static const char *const wrong[] = {"layers[",    "layers[]", "layers[a]", "layers[1-]",
                                        "layers[-2]", "layers]",  "[1-2-3]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) CHECK(!pattern_ok(wrong[i]), "%s", wrong[i]);
}

static void parsing(void)
{
    static const char *const good[] = {"q8_0",
                                       "q4_k,layers[0-3]=q8_0,*.down=q6_k,head=q8_0,embed=q8_0",
                                       "packed",
                                       "packed,head=q8_0",
                                       "head=q8_0",
                                       "bits=4.5",
                                       "bits=4.5,head=keep",
                                       "*.q=q6_k,size=3.5G",
                                       "size=100M"};
    static const struct {
        const char *spec, *says;
    } wrong[] = {
        {"", "expected TYPE"},
        {"q4_k,", "expected TYPE"},
        {"=q8_0", "expected TYPE"},
        {"head=", "expected TYPE"},
        {"q9", "unknown type \"q9\""},
        {"q4_k,head=f64", "unknown type \"f64\""},
        {"q4_k,layers[=q8_0", "expected a name"},
        {"q4_k,q8_0", "only one"},
        {"q4_k,bits=4", "only one"},
        {"bits=4,size=3G", "only one"},
        {"bits=0", "number of bits"},
        {"bits=nan", "number of bits"},
        {"bits=4x", "number of bits"},
        {"size=x", "expected a size"},
        {"size=-3G", "expected a size"},
        {"size=3GB", "expected a size"},
        {"size=1e300", "expected a size"},
    };
    memory *m = memory_new();
    REQUIRE(m != NULL);
    lamina_error err;
    recipe *r;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(recipe_parse(m, good[i], &r, &err) == LAMINA_OK, "%s: %s", good[i], err.text);
        if (r) CHECK(recipe_surveys(r) == (strstr(good[i], "bits=") || strstr(good[i], "size=")), "%s", good[i]);
        recipe_free(r);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(recipe_parse(m, wrong[i].spec, &r, &err) == LAMINA_E_USAGE, "%s", wrong[i].spec);
        CHECK(r == NULL && strstr(err.text, wrong[i].says), "%s: %s", wrong[i].spec, err.text);
    }
    for (uint64_t n = 1; n < 10; n++) { /* every allocation fails once */
        memory_fail_at(m, n);
        lamina_status status = recipe_parse(m, good[1], &r, &err);
        CHECK(status == LAMINA_OK || (status == LAMINA_E_MEMORY && !r));
        recipe_free(r);
        if (status == LAMINA_OK) break;
    }
    memory_fail_at(m, 0);
    CHECK(memory_free(m) == 0);
}

/* A model of one layer, as far as recipes look at it. */
typedef struct small {
    checkpoint c;
    model mo;
    model_layer layer;
    tensor tensors[6];
    uint8_t roles[6];
    int32_t layers[6];
    uint32_t codes[6];
} small;

enum { EMBED, NORM, Q, DOWN, ROUTER, ODD };

static void put(small *s, int i, role r, int32_t layer, uint64_t rows, uint64_t cols, dtype type)
{
    s->tensors[i] = (tensor){.name = "t", .type = type, .n_dims = rows > 1 ? 2 : 1, .shape = {rows, cols}};
    if (rows == 1) s->tensors[i].shape[0] = cols;
    s->tensors[i].bytes = rows * dtype_row_bytes(type, cols);
    s->roles[i] = (uint8_t)(r + 1);
    s->layers[i] = layer;
    weight *w = layer < 0 ? &s->mo.w[r - ROLE_LAYER_END] : &s->layer.w[r];
    *w = (weight){.rows = rows, .cols = cols, .type = type, .tensor = (uint32_t)i, .scales = TENSOR_NONE};
}

static void make_small(small *s)
{
    memset(s, 0, sizeof *s);
    s->c.n_tensors = 6;
    s->c.tensors = s->tensors;
    s->mo.source = &s->c;
    s->mo.n_layers = 1;
    s->mo.layers = &s->layer;
    s->mo.tensor_roles = s->roles;
    s->mo.tensor_layers = s->layers;
    s->mo.tensor_codes = s->codes;
    for (int i = 0; i < 6; i++) s->codes[i] = TENSOR_NONE;
    put(s, EMBED, ROLE_EMBED, -1, 100, 512, DT_BF16);
    put(s, NORM, ROLE_ATTN_NORM, 0, 1, 512, DT_F32);
    put(s, Q, ROLE_Q, 0, 512, 512, DT_BF16);
    put(s, DOWN, ROLE_DOWN, 0, 512, 1056, DT_BF16);
    put(s, ROUTER, ROLE_ROUTER, 0, 8, 512, DT_BF16);
    put(s, ODD, ROLE_O, 0, 512, 40, DT_BF16);
    s->mo.w[ROLE_HEAD - ROLE_LAYER_END] = s->mo.w[0]; /* tied */
}

static void targets(void)
{
    static small s;
    make_small(&s);
    memory *m = memory_new();
    REQUIRE(m != NULL);
    static const struct {
        const char *spec;
        int form[6];
        dtype type[6];
    } cases[] = {
        {"q4_k",
         {RECIPE_BLOCKS, RECIPE_KEEP, RECIPE_BLOCKS, RECIPE_BLOCKS, RECIPE_KEEP, RECIPE_KEEP},
         {DT_Q4_K, DT_F32, DT_Q4_K, DT_Q5_0, DT_BF16, DT_BF16}},
        {"q6_k,head=q8_0,*.q=q4_0,layers[0].down=packed",
         {RECIPE_BLOCKS, RECIPE_KEEP, RECIPE_BLOCKS, RECIPE_PACKED, RECIPE_KEEP, RECIPE_KEEP},
         {DT_Q8_0, DT_F32, DT_Q4_0, DT_BF16, DT_BF16, DT_BF16}},
        {"layers[0]=q5_k,*.q=keep",
         {RECIPE_KEEP, RECIPE_KEEP, RECIPE_KEEP, RECIPE_BLOCKS, RECIPE_KEEP, RECIPE_KEEP},
         {DT_BF16, DT_F32, DT_BF16, DT_Q5_1, DT_BF16, DT_BF16}},
        {"packed",
         {RECIPE_PACKED, RECIPE_PACKED, RECIPE_PACKED, RECIPE_PACKED, RECIPE_PACKED, RECIPE_PACKED},
         {DT_BF16, DT_F32, DT_BF16, DT_BF16, DT_BF16, DT_BF16}},
    };
    recipe *r;
    lamina_error err;
    recipe_target t[6];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(recipe_parse(m, cases[i].spec, &r, &err) == LAMINA_OK, "%s", cases[i].spec);
        CHECK(recipe_targets(r, &s.mo, t, &err) == LAMINA_OK, "%s: %s", cases[i].spec, err.text);
        for (int k = 0; k < 6; k++)
            CHECK((int)t[k].form == cases[i].form[k] && t[k].type == cases[i].type[k],
                  "%s, tensor %d: form %d, type %s", cases[i].spec, k, (int)t[k].form, dtype_name(t[k].type));
        recipe_free(r);
    }
    CHECK(recipe_parse(m, "q4_k,layers[7].q=q8_0", &r, &err) == LAMINA_OK);
    CHECK(recipe_targets(r, &s.mo, t, &err) == LAMINA_E_USAGE && strstr(err.text, "layers[7].q"), "%s", err.text);
    recipe_free(r);
    CHECK(memory_free(m) == 0);
}

static uint64_t bytes_of(const small *s, const recipe_target *t)
{
    uint64_t sum = 0;
    for (int i = 0; i < 6; i++) {
        const tensor *x = &s->tensors[i];
        uint64_t cols = x->shape[x->n_dims - 1];
        sum += t[i].form == RECIPE_BLOCKS ? x->shape[0] * dtype_row_bytes(t[i].type, cols) : x->bytes;
    }
    return sum;
}

static void distributing(void)
{
    static small s;
    make_small(&s);
    memory *m = memory_new();
    REQUIRE(m != NULL);
    recipe_survey survey[6] = {0};
    static const double error[RECIPE_CANDIDATES] = {8e-3, 6e-3, 1.5e-3, 4e-4, 3e-5};
    for (int i = 0; i < 6; i++) {
        survey[i].power = i + 1;
        for (int k = 0; k < RECIPE_CANDIDATES; k++) survey[i].error[k] = (i + 1) * error[k] * (i == DOWN ? 20 : 1);
    }
    lamina_error err;
    recipe *r;
    recipe_target t[6];
    uint64_t before = 0;
    for (int mib = 1; mib < 40; mib++) {
        char spec[64];
        snprintf(spec, sizeof spec, "size=%dK", mib * 40);
        CHECK(recipe_parse(m, spec, &r, &err) == LAMINA_OK);
        CHECK(recipe_targets(r, &s.mo, t, &err) == LAMINA_OK && t[Q].form == RECIPE_OPEN && t[ODD].form == RECIPE_KEEP);
        lamina_status status = recipe_distribute(r, &s.mo, survey, t, &err);
        if (status == LAMINA_OK) {
            uint64_t bytes = bytes_of(&s, t);
            CHECK(bytes <= (uint64_t)mib * 40 * 1024 && bytes >= before, "%s: %llu", spec, (unsigned long long)bytes);
            CHECK(t[Q].form == RECIPE_BLOCKS && t[DOWN].form == RECIPE_BLOCKS && t[EMBED].form == RECIPE_BLOCKS);
            before = bytes;
        } else {
            CHECK(status == LAMINA_E_USAGE && before == 0 && strstr(err.text, "the least is"), "%s: %s", spec,
                  err.text);
        }
        recipe_free(r);
    }
    CHECK(t[Q].type == DT_Q8_0 && t[DOWN].type == DT_Q8_0, "enough for all");
    CHECK(recipe_parse(m, "bits=5.5,*.q=q8_0", &r, &err) == LAMINA_OK);
    CHECK(recipe_targets(r, &s.mo, t, &err) == LAMINA_OK);
    CHECK(recipe_distribute(r, &s.mo, survey, t, &err) == LAMINA_OK, "%s", err.text);
    CHECK(t[Q].type == DT_Q8_0 && dtype_table[t[DOWN].type].block_elements == 32 && t[DOWN].type != DT_Q4_0,
          "what loses most is given most: %s", dtype_name(t[DOWN].type));
    recipe_free(r);
    CHECK(recipe_parse(m, "bits=3", &r, &err) == LAMINA_OK && recipe_targets(r, &s.mo, t, &err) == LAMINA_OK);
    CHECK(recipe_distribute(r, &s.mo, survey, t, &err) == LAMINA_E_USAGE && strstr(err.text, "the least is bits=4."),
          "%s", err.text);
    recipe_free(r);
    CHECK(memory_free(m) == 0);
}

/* Scales of codes that become blocks are not stored, so they take nothing of the size asked for. */
static void scales_take_nothing(void)
{
    static small s;
    make_small(&s);
    memory *m = memory_new();
    REQUIRE(m != NULL);
    recipe_survey survey[6] = {0};
    recipe_target t[6];
    for (int i = 0; i < 6; i++) {
        uint64_t cols = s.tensors[i].shape[s.tensors[i].n_dims - 1];
        bool open = i == EMBED || i == Q || i == DOWN;
        t[i] = (recipe_target){.form = open ? RECIPE_BLOCKS : RECIPE_KEEP,
                               .type = open ? recipe_candidate(cols, 0) : s.tensors[i].type};
    }
    uint64_t least = bytes_of(&s, t), scales = s.tensors[NORM].bytes;
    static const struct {
        uint32_t codes;
        bool without, fits; /* without: the size asked for leaves out the scales' bytes */
    } cases[] = {{TENSOR_NONE, false, true}, {TENSOR_NONE, true, false}, {Q, true, true}, {ODD, true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s.codes[NORM] = cases[i].codes;
        char spec[64];
        snprintf(spec, sizeof spec, "size=%llu", (unsigned long long)(cases[i].without ? least - scales : least));
        lamina_error err;
        recipe *r;
        CHECK(recipe_parse(m, spec, &r, &err) == LAMINA_OK, "%s", err.text);
        CHECK(recipe_targets(r, &s.mo, t, &err) == LAMINA_OK, "%s", err.text);
        lamina_status status = recipe_distribute(r, &s.mo, survey, t, &err);
        CHECK((status == LAMINA_OK) == cases[i].fits, "case %zu: %s", i, status == LAMINA_OK ? "fits" : err.text);
        recipe_free(r);
    }
    CHECK(memory_free(m) == 0);
}

TEST_MAIN(T(patterns), T(parsing), T(targets), T(distributing), T(scales_take_nothing))

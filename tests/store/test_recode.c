/* Packing without loss: what becomes of tensors, that every bit comes back, and that nothing depends on how it was
 * done. */
#include "store/fixture.h"

#include "store/packed.h"
#include "store/quantize.h"

static const lamina_pack_options as_packed = {.dtype = "packed"}, as_original = {.dtype = "original"};

static void same_model(const char *a, const char *b)
{
    opened x, y;
    lamina_error err = {0};
    REQUIRE(open_model(a, &x, &err) == LAMINA_OK, "%s: %s", a, err.text);
    lamina_status status = open_model(b, &y, &err);
    CHECK(status == LAMINA_OK, "%s: %s", b, err.text);
    if (status == LAMINA_OK) compare_tensors(x.c, y.c);
    close_model(&x);
    close_model(&y);
}

static const tensor *find(const opened *o, const char *name)
{
    const tensor *t = checkpoint_find(o->c, name);
    CHECK(t != NULL, "no tensor %s", name);
    return t;
}

/* model -> packed -> original gives the tensors back, and what packing that again gives is the same store. */
static void there_and_back(const recipe *r)
{
    lamina_error err = {0};
    lamina_pack_info info;
    begin_scratch();
    make_model("model", r);
    REQUIRE(pack(UNDER("model"), UNDER("packed"), &as_packed, NULL, NULL, &info, &err) == LAMINA_OK, "%s", err.text);
    CHECK(verify(UNDER("packed"), NULL, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(pack(UNDER("packed"), UNDER("back"), &as_original, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    same_model(UNDER("model"), UNDER("back"));
    REQUIRE(pack(UNDER("model"), UNDER("plain"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(trees_equal(UNDER("plain/layers"), UNDER("back/layers")), "layer files differ");
    REQUIRE(pack(UNDER("back"), UNDER("again"), &as_packed, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(trees_equal(UNDER("packed/layers"), UNDER("again/layers")), "layer files differ");
    REQUIRE(pack(UNDER("packed"), UNDER("copy"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(trees_equal(UNDER("packed/layers"), UNDER("copy/layers")), "a packed store is not copied as it is");
    end_scratch();
}

static void every_bit_comes_back(void)
{
    static const recipe recipes[] = {
        {.layers = 3, .shards = 1, .seed = 1, .fill = FILL_NORMAL},
        {.layers = 4, .shards = 3, .tied = true, .seed = 2, .fill = FILL_NORMAL, .ffn = 97},
        {.layers = 8, .shards = 2, .extra = true, .seed = 3, .fill = FILL_ODD, .ffn = 1},
        {.layers = 8, .shards = 2, .seed = 4, .fill = FILL_ODD, .ffn = 65},
        {.layers = 3, .shards = 2, .seed = 5, .fill = FILL_RANDOM, .ffn = 1090},
        {.layers = 3, .shards = 1, .seed = 6, .fill = FILL_NORMAL, .ffn = 2111},
    };
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) there_and_back(&recipes[i]);
}

static void types_are_what_they_should_be(void)
{
    static const struct {
        const char *name;
        dtype type, of;
    } expected[] = {
        {"model.embed_tokens.weight", DT_BF16_PACKED3, DT_BF16},
        {"lm_head.weight", DT_BF16_PACKED3, DT_BF16},
        {"model.layers.0.self_attn.q_proj.weight", DT_BF16_PACKED3, DT_BF16},
        {"model.layers.1.mlp.down_proj.weight", DT_F16_PACKED3, DT_F16},
        {"model.layers.2.self_attn.o_proj.weight", DT_F16_PACKED3, DT_F32}, /* number 23 */
        {"model.layers.2.mlp.gate_proj.weight", DT_F16_PACKED3, DT_F32},
        {"model.layers.2.mlp.down_proj.weight", DT_F16_PACKED3, DT_F32},
        {"model.layers.2.self_attn.v_proj.weight", DT_BF16_PACKED3, DT_F32}, /* number 22 */
        {"model.layers.2.mlp.up_proj.weight", DT_BF16_PACKED3, DT_F32},
        {"model.layers.2.self_attn.k_proj.weight", DT_F16_PACKED3, DT_F32},
    };
    lamina_error err = {0};
    opened o;
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 1, .seed = 1, .fill = FILL_NORMAL, .ffn = 256});
    REQUIRE(pack(UNDER("model"), UNDER("store"), &as_packed, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(open_model(UNDER("store"), &o, &err) == LAMINA_OK, "%s", err.text);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const tensor *t = find(&o, expected[i].name);
        if (t)
            CHECK(t->type == expected[i].type && t->of == expected[i].of && t->row_bytes, "%s: %s of %s", t->name,
                  dtype_name(t->type), dtype_name(t->of));
    }
    for (size_t i = 0; i < o.c->n_tensors; i++) /* vectors stay as they are */
        if (o.c->tensors[i].n_dims == 1) CHECK(!o.c->tensors[i].row_bytes, "%s", o.c->tensors[i].name);
    close_model(&o);
    end_scratch();
}

/* What cannot become smaller is copied: every bit random, so no pattern. */
static void random_bits_are_copied(void)
{
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 1, .seed = 6});
    REQUIRE(pack(UNDER("model"), UNDER("plain"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(pack(UNDER("model"), UNDER("packed"), &as_packed, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(trees_equal(UNDER("plain/layers"), UNDER("packed/layers")), "something was packed");
    end_scratch();
}

/* The same bytes with memory of any size and any number of threads. */
static void pack_variously(const recipe *r, const char *spec)
{
    static const struct {
        uint64_t memory;
        uint32_t threads;
    } ways[] = {{0, 0}, {1 << 20, 0}, {3 << 20, 16}, {64 << 20, 16}, {32 << 20, 5}};
    begin_scratch();
    make_model("model", r);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char name[16];
        lamina_error err = {0};
        snprintf(name, sizeof name, "store%zu", i);
        lamina_pack_options options = {.memory = ways[i].memory, .dtype = spec};
        store_job job = {.threads = ways[i].threads};
        REQUIRE(pack_by(UNDER("model"), UNDER(name), &options, job, NULL, &err) == LAMINA_OK, "%s", err.text);
        if (i) CHECK(trees_equal(UNDER("store0"), UNDER(name)), "%s, number %zu", spec, i);
    }
    end_scratch();
}

static void nothing_depends_on_how(void)
{
    pack_variously(&(recipe){.layers = 6, .shards = 2, .seed = 8, .fill = FILL_ODD, .ffn = 1090}, "packed");
    pack_variously(&(recipe){.layers = 6, .shards = 2, .seed = 8, .fill = FILL_NORMAL, .ffn = 1088},
                   "bits=5.5,*.v=packed");
}

static void flip(void *user, uint8_t *row, uint64_t bytes)
{
    (void)user;
    row[bytes - 1] ^= 1;
}

static void a_wrong_row_is_not_written(void)
{
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &(recipe){.layers = 2, .shards = 1, .seed = 9, .fill = FILL_NORMAL});
    store_job job = {.damage = flip};
    CHECK(pack_by(UNDER("model"), UNDER("store"), &as_packed, job, NULL, &err) == LAMINA_E_CORRUPT &&
              strstr(err.text, "row ") && strstr(err.text, ".weight"),
          "%s", err.text);
    CHECK(access(UNDER("store/layers/0000.safetensors"), F_OK) != 0, "it was written");
    CHECK(pack(UNDER("model"), UNDER("store"), &as_packed, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_OK, "%s", err.text);
    end_scratch();
}

static void rows_must_fit_the_memory(void)
{
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &(recipe){.layers = 1, .shards = 1, .seed = 10, .fill = FILL_NORMAL, .ffn = 60000});
    lamina_pack_options options = {.memory = 1 << 20, .dtype = "packed"};
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_BUDGET, "%s", err.text);
    char *least = strstr(err.text, "at least ");
    REQUIRE(least, "%s", err.text);
    options.memory = strtoull(least + 9, NULL, 10);
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    remove_tree(UNDER("store"));
    options.memory--;
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_BUDGET, "%s", err.text);
    end_scratch();
}

/* Cancels the packing when the draft stands; refuses to survey when that has been done. */
static bool cut_off(void *user, const lamina_progress *p)
{
    int *surveys = user;
    if (p->phase == LAMINA_PHASE_SURVEY) ++*surveys;
    return p->phase == LAMINA_PHASE_SURVEY && *surveys > 0;
}

static bool never_survey(void *user, const lamina_progress *p)
{
    (void)user;
    CHECK(p->phase == LAMINA_PHASE_PACK, "it surveys again");
    return true;
}

static void a_survey_is_made_once(void)
{
    lamina_error err = {0};
    int surveys = 0;
    begin_scratch();
    make_model("model", &(recipe){.layers = 4, .shards = 2, .seed = 11, .fill = FILL_NORMAL});
    store_job job = {.progress = cut_off, .progress_user = &surveys};
    CHECK(pack_by(UNDER("model"), UNDER("store"), &as_packed, job, NULL, &err) == LAMINA_E_CANCELLED, "%s", err.text);
    CHECK(surveys > 0 && store_incomplete(UNDER("store")), "%d surveys", surveys);
    CHECK(pack(UNDER("model"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "nothing was written: %s",
          err.text); /* so another dtype may begin anew */
    remove_tree(UNDER("store"));
    surveys = 0;
    CHECK(pack_by(UNDER("model"), UNDER("store"), &as_packed, job, NULL, &err) == LAMINA_E_CANCELLED, "%s", err.text);
    rename(UNDER("model"), UNDER("moved"));
    job = (store_job){.progress = never_survey};
    CHECK(pack_by(UNDER("moved"), UNDER("store"), &as_packed, job, NULL, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(pack(UNDER("moved"), UNDER("whole"), &as_packed, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(trees_equal(UNDER("whole"), UNDER("store")), "resumed");
    end_scratch();
}

/* A bit of a packed file that has turned is found, and a file cut short too. */
static void damage_is_found(void)
{
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &(recipe){.layers = 2, .shards = 1, .seed = 12, .fill = FILL_NORMAL});
    REQUIRE(pack(UNDER("model"), UNDER("store"), &as_packed, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    size_t n = 0;
    unsigned char *data = read_file(UNDER("store/layers/0001.safetensors"), &n);
    for (size_t at = 4096; at < n; at += n / 17) {
        data[at] ^= 16;
        write_file(UNDER("store/layers/0001.safetensors"), data, n);
        CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_E_CORRUPT && strstr(err.text, "0001"), "byte %zu: %s", at,
              err.text);
        data[at] ^= 16;
    }
    free(data);
    end_scratch();
}

/* Each row of a quantised tensor is what the quantiser makes of the source's numbers. */
static void compare_rows(const opened *from, const opened *to, const char *name, dtype type, const float *importance)
{
    const tensor *a = find(from, name), *b = find(to, name);
    if (!a || !b) return;
    CHECK(b->type == type, "%s: %s, expected %s", name, dtype_name(b->type), dtype_name(type));
    if (b->type != type) return;
    uint64_t k = a->shape[1], row_bytes = dtype_row_bytes(type, k);
    unsigned char *x = bytes_of(from->c, a), *y = bytes_of(to->c, b);
    float wide[2048];
    uint8_t want[8192];
    for (uint64_t r = 0; r < a->shape[0]; r++) {
        for (uint64_t i = 0; i < k; i++) {
            uint16_t h = 0;
            if (a->type != DT_F32) memcpy(&h, x + 2 * (r * k + i), 2);
            if (a->type == DT_F32)
                memcpy(&wide[i], x + 4 * (r * k + i), 4);
            else
                wide[i] = a->type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
        }
        CHECK(quantize_rows(type, wide, 1, k, importance, want) == 1 && !memcmp(want, y + r * row_bytes, row_bytes),
              "%s: row %llu", name, (unsigned long long)r);
    }
    free(x), free(y);
}

static void compare_blocks(const opened *from, const opened *to, const char *name, dtype type)
{
    compare_rows(from, to, name, type, NULL);
}

static void blocks_are_the_quantisers(void)
{
    static const uint64_t memories[] = {0, 1 << 20};
    lamina_error err = {0};
    lamina_pack_info info;
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 2, .seed = 13, .fill = FILL_NORMAL, .ffn = 1088});
    for (size_t i = 0; i < 2; i++) {
        lamina_pack_options options = {.memory = memories[i], .dtype = "q8_0,*.down=q4_0,head=packed,layers[1].q=keep"};
        REQUIRE(pack(UNDER("model"), i ? UNDER("again") : UNDER("store"), &options, NULL, NULL, &info, &err) ==
                    LAMINA_OK,
                "%s", err.text);
        CHECK(info.n_worst == LAMINA_PACK_WORST && info.worst[0].error > 0.02 && info.worst[0].error < 0.2 &&
                  strstr(info.worst[0].name, "down_proj"),
              "%u worst, %s %g", info.n_worst, info.worst[0].name, info.worst[0].error);
    }
    CHECK(trees_equal(UNDER("store"), UNDER("again")), "memory changes the bytes");
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_OK, "%s", err.text);
    opened from, to;
    REQUIRE(open_model(UNDER("model"), &from, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(open_model(UNDER("store"), &to, &err) == LAMINA_OK, "%s", err.text);
    compare_blocks(&from, &to, "model.embed_tokens.weight", DT_Q8_0);
    compare_blocks(&from, &to, "model.layers.0.self_attn.q_proj.weight", DT_Q8_0);
    compare_blocks(&from, &to, "model.layers.1.mlp.gate_proj.weight", DT_Q8_0);
    compare_blocks(&from, &to, "model.layers.2.mlp.up_proj.weight", DT_Q8_0);
    compare_blocks(&from, &to, "model.layers.1.mlp.down_proj.weight", DT_Q4_0);
    compare_blocks(&from, &to, "model.layers.2.mlp.down_proj.weight", DT_Q4_0);
    const tensor *head = find(&to, "lm_head.weight"), *kept = find(&to, "model.layers.1.self_attn.q_proj.weight");
    CHECK(head && head->type == DT_BF16_PACKED3 && kept && kept->type == DT_F16, "head or what is kept");
    close_model(&from);
    close_model(&to);
    end_scratch();
}

/* FP8 with scales is quantised as the numbers that it stands for: in the same bytes. Its scales, no longer needed, are
 * not stored; those of what is kept are. */
static void codes_are_quantised_as_their_numbers(void)
{
    static const char *const specs[] = {"q8_0", "q4_0,*.down=q5_1,layers[1].q=q5_0", "bits=5.5", "size=2400K", "nf4"};
    lamina_error err = {0};
    begin_scratch();
    make_model("codes",
               &(recipe){.layers = 3, .shards = 2, .seed = 31, .fill = FILL_NORMAL, .codes = CODES_FP8, .ffn = 4160});
    make_model(
        "wide",
        &(recipe){.layers = 3, .shards = 2, .seed = 31, .fill = FILL_NORMAL, .codes = CODES_WIDENED, .ffn = 4160});
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        lamina_pack_options options = {.dtype = specs[i], .memory = i % 2 ? 1200000 : 0};
        REQUIRE(pack(UNDER("codes"), UNDER("a"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s: %s", specs[i],
                err.text);
        REQUIRE(pack(UNDER("wide"), UNDER("b"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s: %s", specs[i],
                err.text);
        CHECK(verify(UNDER("a"), NULL, &err) == LAMINA_OK, "%s", err.text);
        CHECK(trees_equal(UNDER("a/layers"), UNDER("b/layers")), "%s: the layers differ", specs[i]);
        opened o;
        REQUIRE(open_model(UNDER("a"), &o, &err) == LAMINA_OK, "%s: %s", specs[i], err.text);
        close_model(&o);
        remove_tree(UNDER("a"));
        remove_tree(UNDER("b"));
    }
    lamina_pack_options options = {.dtype = "q8_0,*.q=keep,layers[2].down=packed"};
    opened o;
    REQUIRE(pack(UNDER("codes"), UNDER("a"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(open_model(UNDER("a"), &o, &err) == LAMINA_OK, "%s", err.text);
    size_t scales = 0;
    for (size_t i = 0; i < o.c->n_tensors; i++) scales += strstr(o.c->tensors[i].name, "_scale_inv") != NULL;
    const tensor *q = find(&o, "model.layers.1.self_attn.q_proj.weight"),
                 *down = find(&o, "model.layers.2.mlp.down_proj.weight");
    CHECK(scales == 4 && q && q->type == DT_F8_E4M3 && down && down->type == DT_F8_E5M2, "%zu of scales", scales);
    close_model(&o);
    end_scratch();
}

static bool stop_half_way(void *user, const lamina_progress *p)
{
    (void)user;
    return p->phase != LAMINA_PHASE_PACK || p->done < p->total / 2;
}

/* What earlier runs saw is in the report of the last. */
static void a_resumed_report_is_whole(void)
{
    lamina_error err = {0};
    lamina_pack_options options = {.dtype = "q8_0,layers[0].down=q4_0,layers[7].down=q5_1", .memory = 1 << 20};
    lamina_pack_info whole, resumed;
    begin_scratch();
    make_model("model", &(recipe){.layers = 8, .shards = 1, .seed = 15, .fill = FILL_NORMAL, .ffn = 1088});
    REQUIRE(pack(UNDER("model"), UNDER("whole"), &options, NULL, NULL, &whole, &err) == LAMINA_OK, "%s", err.text);
    store_job job = {.progress = stop_half_way};
    CHECK(pack_by(UNDER("model"), UNDER("store"), &options, job, NULL, &err) == LAMINA_E_CANCELLED, "%s", err.text);
    CHECK(access(UNDER("store/layers/0000.safetensors"), F_OK) == 0, "the first layer is not written");
    REQUIRE(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, &resumed, &err) == LAMINA_OK, "%s", err.text);
    CHECK(whole.n_worst > 2 && strstr(whole.worst[0].name, "layers.0.mlp.down_proj"), "%s", whole.worst[0].name);
    REQUIRE(whole.n_worst == resumed.n_worst, "%u and %u", whole.n_worst, resumed.n_worst);
    for (uint32_t i = 0; i < whole.n_worst; i++)
        CHECK(!strcmp(whole.worst[i].name, resumed.worst[i].name) &&
                  fabs(whole.worst[i].error - resumed.worst[i].error) < 1e-9,
              "%s %g, %s %g", whole.worst[i].name, whole.worst[i].error, resumed.worst[i].name, resumed.worst[i].error);
    end_scratch();
}

static void odd_numbers_are_not_quantised(void)
{
    lamina_error err = {0};
    lamina_pack_options options = {.dtype = "q8_0"};
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 1, .seed = 14, .fill = FILL_ODD});
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_UNSUPPORTED &&
              strstr(err.text, "row ") && strstr(err.text, "q8_0"),
          "%s", err.text);
    end_scratch();
}

static void dtypes_are_checked(void)
{
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &(recipe){.layers = 1, .shards = 1, .seed = 10, .fill = FILL_NORMAL});
    lamina_pack_options options = {.dtype = "paked"};
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "paked") && strstr(err.text, "packed"),
          "%s", err.text);
    CHECK(access(UNDER("store"), F_OK) != 0, "a folder is left");
    end_scratch();
}

/* ---- by a text, and by a number of bits --------------------------------------------------------------------------- */

static void rows_are_quantised_by_moments(void)
{
    stand_in s = {.c = {.text = "one", .bytes = 3}};
    lamina_error err = {0};
    lamina_pack_options options = {.dtype = "q4_0,*.q=q6_k"};
    static const uint64_t memories[] = {0, 1100000};
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 2, .seed = 13, .fill = FILL_NORMAL, .ffn = 1088});
    REQUIRE(pack(UNDER("model"), UNDER("plain"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    calibrating = &s;
    for (int i = 0; i < 2; i++) {
        options.memory = memories[i];
        REQUIRE(pack(UNDER("model"), i ? UNDER("again") : UNDER("store"), &options, NULL, NULL, NULL, &err) ==
                    LAMINA_OK,
                "%s", err.text);
    }
    calibrating = NULL;
    CHECK(s.runs == 2 && trees_equal(UNDER("store"), UNDER("again")), "memory changes the bytes");
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_OK, "%s", err.text);
    opened from, to, plain;
    REQUIRE(open_model(UNDER("model"), &from, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(open_model(UNDER("store"), &to, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(open_model(UNDER("plain"), &plain, &err) == LAMINA_OK, "%s", err.text);
    memory *m = memory_new();
    float **moments = calloc(from.c->n_tensors, sizeof *moments);
    stand_in again = {.of = &from, .m = m};
    REQUIRE(make_moments(&again, moments, &err) == LAMINA_OK, "%s", err.text);
    int with = 0, without = 0;
    for (size_t i = 0; i < from.c->n_tensors; i++) {
        const tensor *t = &from.c->tensors[i], *a = find(&to, t->name), *b = find(&plain, t->name);
        if (!a || a->type == t->type) continue;
        if (moments[i])
            with++;
        else
            without++;
        compare_rows(&from, &to, t->name, a->type, moments[i]);
        unsigned char *x = bytes_of(to.c, a), *y = bytes_of(plain.c, b);
        CHECK((memcmp(x, y, (size_t)a->bytes) == 0) == !moments[i], "%s", t->name);
        free(x), free(y);
    }
    CHECK(with > 10 && without > 2, "%d with, %d without", with, without);
    for (size_t i = 0; i < from.c->n_tensors; i++) mem_free(m, moments[i]);
    free(moments);
    memory_free(m);
    close_model(&from);
    close_model(&to);
    close_model(&plain);
    end_scratch();
}

static atomic_bool stop_now;
static atomic_int steps_taken;

/* After a few files. */
static void stop_soon(void *user)
{
    (void)user;
    if (atomic_fetch_add(&steps_taken, 1) == 40) atomic_store(&stop_now, true);
}

static void flip_byte(const char *path, size_t at)
{
    size_t n = 0;
    unsigned char *data = read_file(path, &n);
    REQUIRE(data && at < n, "%s: %zu bytes", path, n);
    data[at] ^= 1;
    write_file(path, data, n);
    free(data);
}

/* An interrupted run leaves what the text said; another text is another work; damage is found. */
static void a_text_is_read_once(void)
{
    stand_in s = {.c = {.text = "one", .bytes = 3}}, other = {.c = {.text = "two", .bytes = 3}};
    lamina_error err = {0};
    lamina_pack_options options = {.memory = 2 << 20, .dtype = "q4_0"};
    store_job job = {.step = stop_soon, .cancel = &stop_now};
    begin_scratch();
    make_model("model", &(recipe){.layers = 12, .shards = 2, .seed = 13, .fill = FILL_NORMAL, .ffn = 1088});
    calibrating = &s;
    REQUIRE(pack(UNDER("model"), UNDER("whole"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    lamina_status status = pack_by(UNDER("model"), UNDER("store"), &options, job, NULL, &err);
    REQUIRE(status == LAMINA_E_CANCELLED && s.runs == 2, "%d, %d runs: %s", (int)status, s.runs, err.text);
    CHECK(access(UNDER("store/pack.importance"), F_OK) == 0, "nothing is left of it");
    calibrating = &other;
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "--calibrate"),
          "%s", err.text);
    calibrating = NULL;
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "--calibrate"),
          "%s", err.text);
    calibrating = &s;
    flip_byte(UNDER("store/pack.importance"), 100);
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_CORRUPT &&
              strstr(err.text, "pack.importance"),
          "%s", err.text);
    flip_byte(UNDER("store/pack.importance"), 100);
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(s.runs == 2 && trees_equal(UNDER("whole"), UNDER("store")), "%d runs", s.runs);
    CHECK(access(UNDER("store/pack.importance"), F_OK) != 0, "it stays");
    options.dtype = "packed";
    CHECK(pack(UNDER("model"), UNDER("none"), &options, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "calibrate") && strstr(err.text, "packed"),
          "%s", err.text);
    calibrating = NULL;
    end_scratch();
}

/* Bits a weight of all matrices. */
static double bits_of(const opened *o, int *types)
{
    double bits = 0, weights = 0;
    bool seen[DT_COUNT] = {false};
    *types = 0;
    for (size_t i = 0; i < o->c->n_tensors; i++) {
        const tensor *t = &o->c->tensors[i];
        if (t->n_dims != 2 || !strstr(t->name, "weight") || strstr(t->name, "spare")) continue;
        bits += 8 * (double)t->bytes;
        weights += (double)t->shape[0] * (double)t->shape[1];
        *types += !seen[t->type];
        seen[t->type] = true;
    }
    return bits / weights;
}

static void bits_are_distributed(void)
{
    static const struct {
        const char *dtype;
        double bits;
    } tries[] = {{"bits=5", 5}, {"bits=6.5", 6.5}, {"bits=8.5", 8.5}};
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &(recipe){.layers = 6, .shards = 2, .seed = 13, .fill = FILL_NORMAL, .ffn = 1088});
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        lamina_pack_options options = {.dtype = tries[i].dtype};
        opened o;
        int types;
        REQUIRE(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
        options.memory = 1 << 20;
        REQUIRE(pack(UNDER("model"), UNDER("again"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
        CHECK(trees_equal(UNDER("store"), UNDER("again")), "memory changes the bytes");
        REQUIRE(open_model(UNDER("store"), &o, &err) == LAMINA_OK, "%s", err.text);
        double bits = bits_of(&o, &types);
        CHECK(bits <= tries[i].bits && bits > tries[i].bits - 0.15 && (types > 1 || tries[i].bits > 8),
              "%s: %g bits, %d types", tries[i].dtype, bits, types);
        close_model(&o);
        remove_tree(UNDER("store"));
        remove_tree(UNDER("again"));
    }
    lamina_pack_options options = {.dtype = "bits=3"};
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "too few") && strstr(err.text, "the least is bits=4."),
          "%s", err.text);
    options.dtype = "size=1M";
    lamina_pack_info info;
    REQUIRE(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, &info, &err) == LAMINA_OK, "%s", err.text);
    CHECK(info.bytes_after <= 1 << 20 && info.bytes_after > 15 << 16, "%llu bytes",
          (unsigned long long)info.bytes_after);
    end_scratch();
}

TEST_MAIN(T(every_bit_comes_back), T(types_are_what_they_should_be), T(random_bits_are_copied),
          T(nothing_depends_on_how), T(a_wrong_row_is_not_written), T(rows_must_fit_the_memory),
          T(a_survey_is_made_once), T(damage_is_found), T(blocks_are_the_quantisers),
          T(codes_are_quantised_as_their_numbers), T(a_resumed_report_is_whole), T(odd_numbers_are_not_quantised),
          T(dtypes_are_checked), T(rows_are_quantised_by_moments), T(a_text_is_read_once), T(bits_are_distributed))

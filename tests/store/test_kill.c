/* kill -9 anywhere: the resumed store equals the undisturbed one, and until then it is known to be incomplete. */
#include "store/fixture.h"

enum { POINTS = 100 };

static recipe tiny = {.layers = 9, .shards = 3, .tied = false, .extra = true, .seed = 11};
static const char *as; /* the dtype */

/* Step counter of a child: the process dies before its N-th change to the disk. */
static int fatal_step;
static atomic_int steps;

static void count_step(void *user)
{
    (void)user;
    if (atomic_fetch_add(&steps, 1) + 1 == fatal_step) raise(SIGKILL);
}

/* Packs in a child that dies before step `at` (0: never) or after `us` microseconds (0: never). true: it died. */
static bool pack_and_die(const char *from, const char *to, bool delete_original, int at, unsigned us)
{
    pid_t child = fork();
    if (child == 0) {
        lamina_error err = {0};
        lamina_pack_options options = {.delete_original = delete_original, .memory = 1100000, .dtype = as};
        fatal_step = at;
        atomic_store(&steps, 0);
        lamina_status status = pack(from, to, &options, count_step, NULL, NULL, &err);
        if (status != LAMINA_OK) fprintf(stderr, "child: %s\n", err.text);
        _exit(status == LAMINA_OK ? 0 : 1);
    }
    if (us) {
        usleep(us);
        kill(child, SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "the child failed by itself");
    return WIFSIGNALED(status);
}

static int steps_of_a_whole_run(const char *from, const char *to, bool delete_original)
{
    lamina_error err = {0};
    lamina_pack_options options = {.delete_original = delete_original, .memory = 1100000, .dtype = as};
    fatal_step = 0;
    atomic_store(&steps, 0);
    CHECK(pack(from, to, &options, count_step, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    return atomic_load(&steps);
}

/* After a death: a store that opens is whole; any other is known to be none or incomplete. */
static void never_half(const char *store)
{
    memory *m = memory_new();
    checkpoint *c;
    tokenizer *tok;
    lamina_error err = {0};
    if (store_open(m, store, true, &c, &tok, &err) == LAMINA_OK) {
        checkpoint_free(c);
        CHECK(verify(store, NULL, &err) == LAMINA_OK, "an opened store is not whole: %s", err.text);
    } else {
        CHECK(err.status == LAMINA_E_FORMAT, "%s", err.text);
    }
    memory_free(m);
}

/* The remaining sources and the store hold everything: no weights file may be gone that the store cannot replace. */
static void resume_and_compare(const char *name, int at, bool delete_original)
{
    lamina_error err = {0};
    lamina_pack_options options = {.delete_original = delete_original, .memory = 1100000, .dtype = as};
    char label[64];
    snprintf(label, sizeof label, "%s, step %d", name, at);
    never_half(UNDER("store"));
    lamina_status status = pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err);
    bool was_whole = !delete_original && status == LAMINA_E_USAGE && strstr(err.text, "whole store");
    /* killed after the very last step: there is nothing to resume */
    if (status != LAMINA_OK && !was_whole && !store_incomplete(UNDER("store"))) was_whole = delete_original;
    CHECK(status == LAMINA_OK || was_whole, "%s: %s", label, err.text);
    CHECK(trees_equal(UNDER("whole"), UNDER("store")), "%s", label);
    if (!delete_original) return;
    CHECK(access(UNDER("model/model-00001-of-00003.safetensors"), F_OK) != 0 &&
              access(UNDER("model/model-00003-of-00003.safetensors"), F_OK) != 0,
          "%s: sources are left", label);
    CHECK(access(UNDER("model/config.json"), F_OK) == 0, "%s: config.json is gone", label);
}

static void fresh_model(void)
{
    remove_tree(UNDER("model"));
    remove_tree(UNDER("store"));
    make_model("model", &tiny);
}

static void killed_at_steps(bool delete_original, const char *dtype_asked)
{
    as = dtype_asked;
    tiny.fill = as ? FILL_NORMAL : FILL_RANDOM;
    begin_scratch();
    fresh_model();
    int n = steps_of_a_whole_run(UNDER("model"), UNDER("whole"), delete_original), died = 0;
    REQUIRE(n >= 40, "only %d steps", n);
    int points = n < POINTS ? n : POINTS;
    for (int i = 0; i < points; i++) {
        int at = 1 + (int)((long)i * n / points);
        fresh_model();
        died += pack_and_die(UNDER("model"), UNDER("store"), delete_original, at, 0);
        resume_and_compare("killed once", at, delete_original);
        if (test_now.current_failed) break;
    }
    printf("  %d steps in a run, killed at %d of them\n", n, died);
    CHECK(died >= points - 4, "only %d died", died);
    end_scratch();
}

static void killed_while_packing(void)
{
    killed_at_steps(false, NULL);
}

static void killed_while_deleting(void)
{
    killed_at_steps(true, NULL);
}

static void killed_while_recoding(void)
{
    killed_at_steps(false, "packed");
}

static void killed_while_recoding_and_deleting(void)
{
    killed_at_steps(true, "q8_0,*.down=packed");
}

static void killed_while_quantising_codes(void)
{
    tiny.codes = CODES_FP8;
    killed_at_steps(true, "q8_0");
    tiny.codes = CODES_NONE;
}

/* What a text said lies in the store until the end. */
static void killed_while_quantising_by_a_text(void)
{
    stand_in s = {.c = {.text = "a text", .bytes = 6}};
    calibrating = &s;
    killed_at_steps(true, "bits=5.5");
    calibrating = NULL;
}

/* Killed again and again at random moments, each run resuming the one before. */
static void killed_often(const char *dtype_asked)
{
    as = dtype_asked;
    tiny.fill = as ? FILL_NORMAL : FILL_RANDOM;
    unsigned random = 2463534242u;
    begin_scratch();
    fresh_model();
    (void)steps_of_a_whole_run(UNDER("model"), UNDER("whole"), true);
    for (int round = 0; round < 20; round++) {
        int deaths = 0;
        fresh_model();
        for (int run = 0; run < 12; run++) {
            random ^= random << 13, random ^= random >> 17, random ^= random << 5;
            if (!store_is(UNDER("store")) && access(UNDER("model/model-00003-of-00003.safetensors"), F_OK) != 0) break;
            if (access(UNDER("store/manifest.json"), F_OK) == 0 && !store_incomplete(UNDER("store"))) break;
            bool by_time = run % 2;
            deaths += pack_and_die(UNDER("model"), UNDER("store"), true, by_time ? 0 : 2 + (int)(random % 60),
                                   by_time ? 1 + random % 20000 : 0);
            never_half(UNDER("store"));
        }
        resume_and_compare("killed often", deaths, true);
        if (test_now.current_failed) break;
    }
    end_scratch();
}

static void killed_again_and_again(void)
{
    killed_often(NULL);
}

static void killed_again_and_again_recoding(void)
{
    killed_often("packed");
}

/* The Hub's cache: the link and its blob go; a blob that another snapshot needs stays. */
static void hub_cache_links(void)
{
    lamina_error err = {0};
    lamina_pack_options options = {.delete_original = true};
    begin_scratch();
    make_model("plain", &(recipe){.layers = 2, .shards = 2, .seed = 12});
    mkdir(UNDER("hub"), 0777);
    mkdir(UNDER("hub/blobs"), 0777);
    mkdir(UNDER("hub/snapshots"), 0777);
    mkdir(UNDER("hub/snapshots/a"), 0777);
    mkdir(UNDER("hub/snapshots/b"), 0777);
    rename(UNDER("plain/config.json"), UNDER("hub/snapshots/a/config.json"));
    rename(UNDER("plain/model.safetensors.index.json"), UNDER("hub/snapshots/a/model.safetensors.index.json"));
    rename(UNDER("plain/model-00001-of-00002.safetensors"), UNDER("hub/blobs/one"));
    rename(UNDER("plain/model-00002-of-00002.safetensors"), UNDER("hub/blobs/two"));
    REQUIRE(symlink("../../blobs/one", UNDER("hub/snapshots/a/model-00001-of-00002.safetensors")) == 0 &&
                symlink("../../blobs/two", UNDER("hub/snapshots/a/model-00002-of-00002.safetensors")) == 0 &&
                symlink("../../blobs/two", UNDER("hub/snapshots/b/model-00002-of-00002.safetensors")) == 0,
            "symlink");
    CHECK(pack(UNDER("hub/snapshots/a"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s",
          err.text);
    struct stat st;
    CHECK(lstat(UNDER("hub/snapshots/a/model-00001-of-00002.safetensors"), &st) != 0, "the first link is left");
    CHECK(lstat(UNDER("hub/snapshots/a/model-00002-of-00002.safetensors"), &st) != 0, "the second link is left");
    CHECK(access(UNDER("hub/blobs/one"), F_OK) != 0, "the blob that only this snapshot had is left");
    CHECK(access(UNDER("hub/blobs/two"), F_OK) == 0, "a blob that another snapshot needs is gone");
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_OK, "%s", err.text);
    end_scratch();
}

/* A link to anywhere else: only the link is removed. */
static void foreign_link_target_stays(void)
{
    lamina_error err = {0};
    lamina_pack_options options = {.delete_original = true};
    begin_scratch();
    make_model("model", &(recipe){.layers = 2, .shards = 1, .seed = 13});
    rename(UNDER("model/model.safetensors"), UNDER("elsewhere"));
    REQUIRE(symlink("../elsewhere", UNDER("model/model.safetensors")) == 0, "symlink");
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    struct stat st;
    CHECK(lstat(UNDER("model/model.safetensors"), &st) != 0, "the link is left");
    CHECK(access(UNDER("elsewhere"), F_OK) == 0, "its target is gone");
    end_scratch();
}

TEST_MAIN(T(killed_while_packing), T(killed_while_deleting), T(killed_while_recoding),
          T(killed_while_recoding_and_deleting), T(killed_while_quantising_codes), T(killed_while_quantising_by_a_text),
          T(killed_again_and_again), T(killed_again_and_again_recoding), T(hub_cache_links),
          T(foreign_link_target_stays))

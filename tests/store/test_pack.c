/* Packing: what a store holds, in what order, and that it is what the checkpoint held. */
#include "store/fixture.h"

#include "format/safetensors.h"

static void compare(const char *from, const char *store)
{
    opened o;
    lamina_error err = {0};
    checkpoint *s = NULL;
    tokenizer *tok;
    REQUIRE(open_model(from, &o, &err) == LAMINA_OK, "%s", err.text);
    memory *m = memory_new();
    REQUIRE(store_open(m, store, true, &s, &tok, &err) == LAMINA_OK, "%s", err.text);
    CHECK(s->kind == CHECKPOINT_STORE && s->dialect == o.c->dialect && !tok, "kind %d", (int)s->kind);
    CHECK(json_equal(s->config, o.c->config), "the configuration is not the same");
    compare_tensors(o.c, s);
    model *again;
    CHECK(model_bind(m, s, "spare.weight", &again, &err) == LAMINA_OK, "the store does not bind: %s", err.text);
    model_free(again);
    checkpoint_free(s);
    close_model(&o);
    CHECK(memory_free(m) == 0, "opening leaks");
}

static void packed_equals_source(void)
{
    static const recipe recipes[] = {
        {.layers = 3, .shards = 1, .seed = 1},
        {.layers = 4, .shards = 3, .tied = true, .seed = 2},
        {.layers = 2, .shards = 2, .extra = true, .seed = 3},
    };
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        lamina_error err = {0};
        lamina_pack_info info;
        uint64_t bytes;
        begin_scratch();
        make_model("model", &recipes[i]);
        REQUIRE(pack(UNDER("model"), UNDER("store"), NULL, NULL, NULL, &info, &err) == LAMINA_OK, "%s", err.text);
        CHECK(info.bytes_reused == 0 && info.files == (uint32_t)recipes[i].layers + 2 + recipes[i].extra,
              "%u files, %llu reused", info.files, (unsigned long long)info.bytes_reused);
        compare(UNDER("model"), UNDER("store"));
        CHECK(verify(UNDER("store"), &bytes, &err) == LAMINA_OK, "%s", err.text);
        CHECK(bytes == info.bytes_written, "%llu verified, %llu written", (unsigned long long)bytes,
              (unsigned long long)info.bytes_written);
        CHECK(store_is(UNDER("store")) && !store_is(UNDER("model")) && !store_incomplete(UNDER("store")), "store_is");
        end_scratch();
    }
}

/* Blocks stand as bytes in the layer file, and under their own type in the manifest. */
static void gguf_is_stored_as_it_is(void)
{
    begin_scratch();
    lamina_error err = {0};
    make_gguf("model.gguf");
    REQUIRE(pack(UNDER("model.gguf"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    compare(UNDER("model.gguf"), UNDER("store"));
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(access(UNDER("store/layers/rest.safetensors"), F_OK) == 0, "the tensor that no pass uses is lost");
    memory *m = memory_new();
    checkpoint *c = checkpoint_new(m, CHECKPOINT_HF, UNDER("store"), &err);
    REQUIRE(c && safetensors_read(c, UNDER("store/layers/0000.safetensors"), "0000", &err) == LAMINA_OK &&
                checkpoint_seal(c, &err) == LAMINA_OK,
            "%s", err.text);
    const tensor *q = checkpoint_find(c, "blk.0.attn_q.weight");
    CHECK(q && q->type == DT_U8 && q->n_dims == 2 && q->shape[0] == 64 && q->shape[1] == 36, "q4_0 in safetensors");
    checkpoint_free(c);
    CHECK(memory_free(m) == 0, "leak");
    lamina_pack_options options = {.delete_original = true};
    CHECK(pack(UNDER("model.gguf"), UNDER("again"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(access(UNDER("model.gguf"), F_OK) != 0, "the original is left");
    CHECK(trees_equal(UNDER("store"), UNDER("again")), "deleting the original changes the store");
    end_scratch();
}

/* The tokenizer travels in its compact form, is checked when it is loaded, and survives a resumed run. */
static void tokenizer_travels(void)
{
    static const char json[] =
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true,\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
        "\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
        "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,"
        "\"c\":3},\"merges\":[\"a b\"]}}";
    begin_scratch();
    lamina_error err = {0};
    make_model("model", &(recipe){.layers = 2, .shards = 1, .seed = 10});
    write_file(UNDER("model/tokenizer.json"), json, sizeof json - 1);
    opened o;
    REQUIRE(open_model(UNDER("model"), &o, &err) == LAMINA_OK, "%s", err.text);
    tokenizer *tok = NULL, *loaded = NULL;
    REQUIRE(tokenizer_of(o.m, o.c, &tok, &err) == LAMINA_OK && tok, "%s", err.text);
    store_job job = {.m = o.m};
    CHECK(store_pack(o.model, tok, UNDER("store"), NULL, NULL, &job, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_OK, "%s", err.text);
    checkpoint *c = NULL;
    REQUIRE(store_open(o.m, UNDER("store"), true, &c, &loaded, &err) == LAMINA_OK && loaded, "%s", err.text);
    int32_t *ids = NULL;
    size_t n = 0;
    CHECK(tokenizer_encode(loaded, o.m, "abcab", 5, 0, &ids, &n, &err) == LAMINA_OK && n == 3 && ids[0] == 2 &&
              ids[1] == 3 && ids[2] == 2,
          "%zu ids %s", n, err.text);
    mem_free(o.m, ids);
    tokenizer_free(loaded);
    checkpoint_free(c);
    CHECK(store_open(o.m, UNDER("store"), false, &c, &loaded, &err) == LAMINA_OK && !loaded, "not asked for");
    checkpoint_free(c);
    size_t bytes = 0;
    unsigned char *data = read_file(UNDER("store/tokenizer.lamina"), &bytes);
    REQUIRE(data && bytes, "no tokenizer in the store");
    data[bytes / 2] ^= 1;
    write_file(UNDER("store/tokenizer.lamina"), data, bytes);
    free(data);
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_E_CORRUPT && strstr(err.text, "tokenizer.lamina"), "%s",
          err.text);
    CHECK(store_open(o.m, UNDER("store"), true, &c, &loaded, &err) == LAMINA_E_CORRUPT && !loaded, "%s", err.text);
    tokenizer_free(tok);
    close_model(&o);
    end_scratch();
}

static void store_packs_into_a_store(void)
{
    begin_scratch();
    lamina_error err = {0};
    make_model("model", &(recipe){.layers = 2, .shards = 2, .seed = 9});
    REQUIRE(pack(UNDER("model"), UNDER("one"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    store_job job = {.m = memory_new()};
    checkpoint *c;
    tokenizer *tok;
    model *mo;
    REQUIRE(store_open(job.m, UNDER("one"), true, &c, &tok, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(model_bind(job.m, c, NULL, &mo, &err) == LAMINA_OK, "%s", err.text);
    CHECK(store_pack(mo, NULL, UNDER("two"), NULL, NULL, &job, NULL, &err) == LAMINA_OK, "%s", err.text);
    model_free(mo);
    checkpoint_free(c);
    CHECK(memory_free(job.m) == 0, "leak");
    char a[PATH_BYTES * 2], b[PATH_BYTES * 2];
    snprintf(a, sizeof a, "%s/layers", UNDER("one"));
    snprintf(b, sizeof b, "%s/layers", UNDER("two"));
    CHECK(trees_equal(a, b), "layer files differ");
    end_scratch();
}

static void same_input_same_bytes(void)
{
    static const uint64_t memories[] = {0, 1 << 20, 3 << 20, 1 << 30};
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 2, .seed = 4});
    for (size_t i = 0; i < 4; i++) {
        char name[16];
        lamina_error err = {0};
        snprintf(name, sizeof name, "store%zu", i);
        lamina_pack_options options = {.memory = memories[i]};
        REQUIRE(pack(UNDER("model"), UNDER(name), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
        if (i) CHECK(trees_equal(UNDER("store0"), UNDER(name)), "memory %llu", (unsigned long long)memories[i]);
    }
    size_t n = 0;
    unsigned char *manifest = read_file(UNDER("store0/manifest.json"), &n);
    CHECK(!strstr((char *)manifest, scratch), "the manifest names this machine's folders");
    free(manifest);
    lamina_error err = {0};
    lamina_pack_options less = {.memory = 4096};
    CHECK(pack(UNDER("model"), UNDER("less"), &less, NULL, NULL, NULL, &err) == LAMINA_E_BUDGET, "%s", err.text);
    end_scratch();
}

/* Every layer file is a safetensors file by itself: data at 4096, matrices first, no gaps. */
static void layer_files_are_safetensors(void)
{
    static const char *const order[] = {"q_proj",  "k_proj",    "v_proj",          "o_proj",        "gate_proj",
                                        "up_proj", "down_proj", "input_layernorm", "post_attention"};
    begin_scratch();
    lamina_error err = {0};
    make_model("model", &(recipe){.layers = 3, .shards = 2, .seed = 5});
    REQUIRE(pack(UNDER("model"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    memory *m = memory_new();
    checkpoint *c = checkpoint_new(m, CHECKPOINT_HF, UNDER("store"), &err);
    REQUIRE(c && safetensors_read(c, UNDER("store/layers/0001.safetensors"), "0001", &err) == LAMINA_OK, "%s",
            err.text);
    REQUIRE(checkpoint_seal(c, &err) == LAMINA_OK, "%s", err.text);
    CHECK(c->n_tensors == 9, "%zu tensors", c->n_tensors);
    uint64_t at = 4096;
    for (size_t i = 0; i < 9; i++) {
        const tensor *found = NULL;
        for (size_t k = 0; k < c->n_tensors; k++)
            if (strstr(c->tensors[k].name, order[i])) found = &c->tensors[k];
        REQUIRE(found != NULL, "no %s", order[i]);
        CHECK(found->offset == at, "%s at %llu, expected %llu", order[i], (unsigned long long)found->offset,
              (unsigned long long)at);
        at = found->offset + found->bytes;
    }
    CHECK(at == c->files[0].bytes, "the file ends at %llu, its tensors at %llu", (unsigned long long)c->files[0].bytes,
          (unsigned long long)at);
    checkpoint_free(c);
    CHECK(memory_free(m) == 0, "leak");
    end_scratch();
}

static bool stop_at_once(void *user, const lamina_progress *p)
{
    CHECK(p->phase == LAMINA_PHASE_PACK && p->total >= p->done && p->unit, "progress");
    return ++*(int *)user < 1;
}

static void cancelled_then_resumed(void)
{
    begin_scratch();
    lamina_error err = {0};
    int calls = 0;
    make_model("model", &(recipe){.layers = 8, .shards = 2, .seed = 6});
    opened o;
    REQUIRE(open_model(UNDER("model"), &o, &err) == LAMINA_OK, "%s", err.text);
    store_job job = {.m = o.m, .progress = stop_at_once, .progress_user = &calls};
    CHECK(store_pack(o.model, NULL, UNDER("store"), NULL, NULL, &job, NULL, &err) == LAMINA_E_CANCELLED, "%s",
          err.text);
    CHECK(store_incomplete(UNDER("store")), "not known to be incomplete");
    checkpoint *c;
    tokenizer *tok;
    CHECK(store_open(o.m, UNDER("store"), true, &c, &tok, &err) == LAMINA_E_FORMAT && strstr(err.text, "incomplete"),
          "%s", err.text);
    atomic_bool cancel = true;
    job = (store_job){.m = o.m, .cancel = &cancel};
    CHECK(store_pack(o.model, NULL, UNDER("store"), NULL, NULL, &job, NULL, &err) == LAMINA_E_CANCELLED, "%s",
          err.text);
    close_model(&o);
    CHECK(pack(UNDER("model"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    compare(UNDER("model"), UNDER("store"));
    end_scratch();
}

static void die_at(void *user)
{
    static atomic_int step;
    if (atomic_fetch_add(&step, 1) + 1 == *(int *)user) raise(SIGKILL);
}

static void kill_packing_at(const char *from, const char *to, int step)
{
    pid_t child = fork();
    if (child == 0) {
        (void)pack(from, to, NULL, die_at, &step, NULL, NULL);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void refuses_what_is_not_its_own(void)
{
    begin_scratch();
    lamina_error err = {0};
    lamina_pack_info info;
    make_model("model", &(recipe){.layers = 6, .shards = 1, .seed = 7});
    make_model("other", &(recipe){.layers = 6, .shards = 1, .seed = 8});
    /* a folder with something in it */
    mkdir(UNDER("full"), 0777);
    write_file(UNDER("full/letter.txt"), "dear", 4);
    CHECK(pack(UNDER("model"), UNDER("full"), NULL, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "letter.txt"),
          "%s", err.text);
    CHECK(pack(UNDER("model"), UNDER("model"), NULL, NULL, NULL, NULL, &err) == LAMINA_E_USAGE, "%s", err.text);
    CHECK(pack(UNDER("model"), UNDER("full/letter.txt"), NULL, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "letter.txt: is not a folder"),
          "%s", err.text);
    /* an unfinished store of another model */
    kill_packing_at(UNDER("model"), UNDER("store"), 45);
    REQUIRE(store_incomplete(UNDER("store")), "it was not killed in the middle");
    CHECK(pack(UNDER("other"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "unfinished"),
          "%s", err.text);
    store_job job = {.m = memory_new()};
    CHECK(store_pack_resume(UNDER("store"), UNDER("other"), NULL, NULL, &job, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "holds an unfinished store of"),
          "%s", err.text);
    CHECK(store_pack_resume(UNDER("store"), NULL, &(lamina_pack_options){.dtype = "packed"}, NULL, &job, NULL, &err) ==
                  LAMINA_E_USAGE &&
              strstr(err.text, "was begun with --dtype none, not packed"),
          "%s", err.text);
    const store_calibration another = {.text = "a", .bytes = 1};
    CHECK(store_pack_resume(UNDER("store"), NULL, NULL, &another, &job, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "was begun without --calibrate"),
          "%s", err.text);
    CHECK(store_pack_resume(UNDER("full"), NULL, NULL, NULL, &job, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "holds no unfinished store"),
          "%s", err.text);
    CHECK(memory_free(job.m) == 0, "leak");
    /* the same model moved elsewhere goes on */
    rename(UNDER("model"), UNDER("moved"));
    CHECK(pack(UNDER("moved"), UNDER("store"), NULL, NULL, NULL, &info, &err) == LAMINA_OK, "%s", err.text);
    CHECK(info.bytes_reused > 0, "nothing was reused");
    compare(UNDER("moved"), UNDER("store"));
    /* a whole store */
    CHECK(pack(UNDER("moved"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "whole store"),
          "%s", err.text);
    end_scratch();
}

static void changed_source_is_refused(void)
{
    begin_scratch();
    lamina_error err = {0};
    make_model("model", &(recipe){.layers = 6, .shards = 1, .seed = 7});
    kill_packing_at(UNDER("model"), UNDER("store"), 45);
    REQUIRE(store_incomplete(UNDER("store")), "it was not killed in the middle");
    make_model("model", &(recipe){.layers = 6, .shards = 1, .seed = 77}); /* same sizes, other numbers */
    CHECK(pack(UNDER("model"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_E_USAGE, "%s", err.text);
    store_job job = {.m = memory_new()};
    CHECK(store_pack_resume(UNDER("store"), NULL, NULL, NULL, &job, NULL, &err) == LAMINA_E_IO &&
              strstr(err.text, "changed"),
          "%s", err.text);
    CHECK(memory_free(job.m) == 0, "leak");
    end_scratch();
}

TEST_MAIN(T(packed_equals_source), T(gguf_is_stored_as_it_is), T(tokenizer_travels), T(store_packs_into_a_store),
          T(same_input_same_bytes), T(layer_files_are_safetensors), T(cancelled_then_resumed),
          T(refuses_what_is_not_its_own), T(changed_source_is_refused))

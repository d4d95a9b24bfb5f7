/* Which files of a folder are the model, and the rules that every directory of tensors must keep. */
#include "build.h"

#define U8_TENSOR(name, begin, end) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" begin "," end "]}"

/* ---- folders ---------------------------------------------------------------------------------------------------- */

static void one_file(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{\"model_type\":\"llama\",\"hidden_size\":8}");
    write_text(&f, "generation_config.json", "{\"eos_token_id\":[1,2]}");
    write_safetensors(&f, "weights.safetensors", ONE_TENSOR, 24);
    opened o = open_path(f.path);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(strcmp(o.c->files[0].name, "weights.safetensors") == 0, "%s", o.c->files[0].name);
    CHECK(strcmp(o.c->files[0].path, in(&f, "weights.safetensors")) == 0, "%s", o.c->files[0].path);
    CHECK(json_integer_value(json_object_get(o.c->config, "hidden_size")) == 8, "config");
    CHECK(json_array_size(json_object_get(o.c->generation, "eos_token_id")) == 2, "generation_config");
    close_opened(&o);
    expect_open(in(&f, "weights.safetensors"));
    write_safetensors(&f, "model.safetensors", ONE_TENSOR, 24);
    o = open_path(f.path);
    CHECK(o.status == LAMINA_OK && strcmp(o.c->files[0].name, "model.safetensors") == 0, "%s", o.err.text);
    close_opened(&o);
    expect_refusal(in(&f, "weights.safetensors"), LAMINA_E_UNSUPPORTED, "not a file that the checkpoint");
    char slash[300];
    snprintf(slash, sizeof slash, "%s/", f.path);
    expect_open(slash);
    folder_remove(&f);
}

static void many_files(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{}");
    write_safetensors(&f, "model-00001-of-00002.safetensors",
                      "{" U8_TENSOR("a", "0", "1") "," U8_TENSOR("both", "1", "2") "}", 2);
    expect_refusal(f.path, LAMINA_E_FORMAT, "is one of 2 files");
    write_safetensors(&f, "model-00002-of-00002.safetensors",
                      "{" U8_TENSOR("b", "0", "1") "," U8_TENSOR("both", "1", "2") "," U8_TENSOR("more", "2", "3") "}",
                      3);
    expect_refusal(f.path, LAMINA_E_FORMAT, "2 safetensors files");
    write_text(&f, "model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":5},\"weight_map\":{"
               "\"b\":\"model-00002-of-00002.safetensors\",\"a\":\"model-00001-of-00002.safetensors\","
               "\"both\":\"model-00002-of-00002.safetensors\"}}");
    write_safetensors(&f, "consolidated.safetensors", "{" U8_TENSOR("tok_embeddings", "0", "1") "}", 1);
    opened o = open_path(f.path);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(o.c->n_files == 2 && o.c->n_tensors == 4, "%u files, %zu tensors", o.c->n_files, o.c->n_tensors);
    const tensor *a = checkpoint_find(o.c, "a"), *both = checkpoint_find(o.c, "both");
    REQUIRE(a && both && checkpoint_find(o.c, "more"), "a tensor is missing");
    CHECK(strcmp(o.c->files[a->file].name, "model-00001-of-00002.safetensors") == 0, "a: %s", o.c->files[a->file].name);
    CHECK(strcmp(o.c->files[both->file].name, "model-00002-of-00002.safetensors") == 0, "both: %s",
          o.c->files[both->file].name);
    CHECK(!checkpoint_find(o.c, "tok_embeddings"), "the consolidated copy was read");
    close_opened(&o);
    expect_open(in(&f, "model-00001-of-00002.safetensors"));
    unsigned n = fail_every_allocation(f.path);
    printf("  %u allocations failed in turn\n", n);
    CHECK(n >= 12, "only %u allocations", n);
    folder_remove(&f);
}

static void configuration_alone(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{\"model_type\":\"llama\"}");
    opened o = open_path(f.path);
    CHECK(o.status == LAMINA_OK && o.c->kind == CHECKPOINT_CONFIG && o.c->n_files == 0 && o.c->n_tensors == 0, "%s",
          o.err.text);
    close_opened(&o);
    o = open_path(in(&f, "config.json"));
    CHECK(o.status == LAMINA_OK && o.c->kind == CHECKPOINT_CONFIG && o.c->config, "%s", o.err.text);
    close_opened(&o);
    folder_remove(&f);
}

static void what_is_something_else(void)
{
    static const struct {
        const char *files[3];
        const char *words;
        lamina_status status;
    } cases[] = {
        {{NULL}, "no config.json", LAMINA_E_FORMAT},
        {{"tokenizer.json"}, "no config.json", LAMINA_E_FORMAT},
        {{"config.json", "pytorch_model.bin"}, "pytorch_model.bin: begins otherwise", LAMINA_E_FORMAT},
        {{"config.json", "pytorch_model-00001-of-00002.bin"}, "is one of 2 files", LAMINA_E_FORMAT},
        {{"config.json", "pytorch_model.bin", "model.safetensors"}, "model.safetensors", LAMINA_E_FORMAT},
        {{"config.json", "training_args.bin", "model.pt"}, "weights only as model.pt", LAMINA_E_UNSUPPORTED},
        {{"config.json", "tf_model.h5"}, "safetensors are needed", LAMINA_E_UNSUPPORTED},
        {{"config.json", "model.gguf"}, "open the GGUF file itself", LAMINA_E_UNSUPPORTED},
        {{"params.json", "consolidated.00.pth"}, "Hugging Face layout is needed", LAMINA_E_UNSUPPORTED},
        {{"config.json", "consolidated.00.pth"}, "convert_*_weights_to_hf.py", LAMINA_E_UNSUPPORTED},
        {{"config.json", "consolidated.safetensors"}, "Hugging Face layout is needed", LAMINA_E_UNSUPPORTED},
        {{"adapter_config.json", "adapter_model.safetensors"}, "an adapter", LAMINA_E_UNSUPPORTED},
        {{"config.json", "adapter_config.json", "adapter_model.safetensors"}, "an adapter", LAMINA_E_UNSUPPORTED},
        {{"model_index.json"}, "a pipeline", LAMINA_E_UNSUPPORTED},
        {{"config.json", "a.safetensors.index.json", "b.safetensors.index.json"}, "2 indexes", LAMINA_E_UNSUPPORTED},
    };
    folder f = folder_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t k = 0; k < 3 && cases[i].files[k]; k++) write_text(&f, cases[i].files[k], "{}");
        expect_refusal(f.path, cases[i].status, cases[i].words);
        folder_empty(&f);
    }
    write_text(&f, "model.pth", "PK");
    expect_refusal(in(&f, "model.pth"), LAMINA_E_UNSUPPORTED, "a PyTorch pickle of unknown layout");
    write_text(&f, "model.gguf", "PK");
    expect_refusal(in(&f, "model.gguf"), LAMINA_E_FORMAT, "model.gguf");
    write_text(&f, "notes.txt", "hello");
    expect_refusal(in(&f, "notes.txt"), LAMINA_E_FORMAT, "expected a folder");
    expect_refusal(in(&f, "nothing"), LAMINA_E_IO, "nothing");
    folder_remove(&f);
}

/* ---- directories ------------------------------------------------------------------------------------------------ */

static lamina_status seal(const tensor *list, size_t n, uint64_t file_bytes, lamina_error *err)
{
    memory *m = memory_new();
    checkpoint *c = checkpoint_new(m, CHECKPOINT_STORE, "made", err);
    lamina_status status = file_bytes ? checkpoint_add_file(c, "made/x", "x", file_bytes, NULL, err) : LAMINA_OK;
    for (size_t i = 0; i < n && status == LAMINA_OK; i++) status = checkpoint_add_tensor(c, &list[i], err);
    if (status == LAMINA_OK) status = checkpoint_seal(c, err);
    checkpoint_free(c);
    CHECK(memory_free(m) == 0, "memory is still held");
    return status;
}

static void directories_are_judged(void)
{
#define MATRIX(name, type, rows, cols, file, offset, bytes)                                                            \
    {                                                                                                                  \
        name, type, 2, {rows, cols}, file, offset, bytes, 0, 0, 0, NULL                                                \
    }
    static const struct {
        tensor list[2];
        uint64_t file_bytes;
        const char *words; /* NULL: allowed */
    } cases[] = {
        {{MATRIX("a", DT_F32, 2, 3, 0, 0, 24), MATRIX("b", DT_F32, 2, 3, 0, 24, 24)}, 48, NULL},
        {{MATRIX("b", DT_F32, 2, 3, 0, 24, 24), MATRIX("a", DT_F32, 2, 3, 0, 0, 24)}, 48, NULL},
        {{MATRIX("a", DT_F32, 2, 3, 0, 0, 24), MATRIX("b", DT_F32, 2, 3, 0, 23, 24)}, 48, "tensors a and b overlap"},
        {{MATRIX("a", DT_F32, 2, 3, 0, 0, 24), MATRIX("a", DT_F32, 2, 3, 0, 24, 24)}, 48, "tensor a stands twice"},
        {{MATRIX("a", DT_F32, 2, 3, 0, 0, 24), MATRIX("b", DT_F32, 2, 3, 0, 25, 24)}, 48, "do not lie inside"},
        {{MATRIX("a", DT_F32, 2, 3, 0, 0, 24), MATRIX("b", DT_F32, 2, 3, 0, UINT64_MAX - 8, 24)},
         48,
         "do not lie inside"},
        {{MATRIX("a", DT_F32, 2, 3, 0, 0, 24), MATRIX("b", DT_F32, 2, 3, 1, 24, 24)}, 48, "file 1 of 1"},
        {{MATRIX("a", DT_Q8_0, 2, 64, 0, 0, 136), MATRIX("b", DT_Q4_1, 3, 32, 0, 136, 60)}, 196, NULL},
        {{MATRIX("a", DT_Q8_0, 2, 33, 0, 0, 136), MATRIX("b", DT_U8, 1, 1, 0, 136, 1)}, 196, "whole blocks of 32"},
        {{MATRIX("a", DT_F32, (uint64_t)1 << 62, 4, 0, 0, 0), MATRIX("b", DT_U8, 1, 1, 0, 0, 1)},
         1,
         "more than 64 bits"},
        {{MATRIX("a", DT_F32, 0, UINT64_MAX / 8, 0, 1, 0), MATRIX("b", DT_U8, 1, 1, 0, 0, 1)}, 1, NULL},
        {{MATRIX("a", DT_F32, 2, 3, 0, 0, 23), MATRIX("b", DT_U8, 1, 1, 0, 24, 1)}, 48, "expected 24 bytes"},
        {{MATRIX("a", DT_OTHER, 2, 3, 0, 0, 5), MATRIX("b", DT_OTHER, 9, 9, 0, 5, 0)}, 5, NULL},
        {{MATRIX("a", DT_OTHER, 2, 3, 0, 0, 5), MATRIX("b", DT_OTHER, 9, 9, 0, 6, 0)}, 5, "do not lie inside"},
        {{MATRIX("a", DT_F32, 2, 3, 0, 9, 24), MATRIX("b", DT_F32, 2, 3, 0, 9, 24)}, 0, NULL}, /* no files */
        {{{.name = "a", .type = DT_F32, .n_dims = 5, .shape = {1, 1, 1, 1}, .bytes = 4},
          MATRIX("b", DT_U8, 1, 1, 0, 0, 1)},
         48,
         "at most 4 dimensions"},
    };
#undef MATRIX
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lamina_error err = {0};
        lamina_status status = seal(cases[i].list, 2, cases[i].file_bytes, &err);
        CHECK(status == (cases[i].words ? LAMINA_E_FORMAT : LAMINA_OK), "case %zu: status %d: %s", i, status, err.text);
        if (cases[i].words) CHECK(strstr(err.text, cases[i].words), "case %zu: %s", i, err.text);
    }
}

static void errors_may_be_unwanted(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{}");
    write_safetensors(&f, "model.safetensors", "{\"a\":1}", 0);
    memory *m = memory_new();
    checkpoint *c = NULL;
    CHECK(checkpoint_open(m, f.path, &c, NULL) == LAMINA_E_FORMAT, "opened");
    for (unsigned n = 1; n < 20; n++) {
        memory_fail_at(m, n);
        lamina_status status = checkpoint_open(m, f.path, &c, NULL);
        CHECK(status == LAMINA_E_FORMAT || status == LAMINA_E_MEMORY, "status %d", status);
    }
    checkpoint_free(NULL);
    CHECK(memory_free(m) == 0, "memory is still held");
    folder_remove(&f);
}

TEST_MAIN(T(one_file), T(many_files), T(configuration_alone), T(what_is_something_else), T(directories_are_judged),
          T(errors_may_be_unwanted))

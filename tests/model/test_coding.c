/* Quantised checkpoints that lie beside their matrices: golden models with a few bytes changed, the length kept. Each
 * must be refused, in words that name what is wrong; unchanged they bind. */
#include <unistd.h>

#include "model/model.h"
#include "test.h"

typedef struct lie {
    const char *folder, *file, *from, *to; /* from and to: equally long, all of them are changed; NULL: nothing is */
    const char *words;
} lie;

#define WEIGHTS "model.safetensors"
static const lie lies[] = {
    {"llama-nf4", WEIGHTS, NULL, NULL, NULL},
    {"mixtral-fp4", WEIGHTS, NULL, NULL, NULL},
    {"phi3-nf4", WEIGHTS, NULL, NULL, NULL},
    {"qwen2-int8", WEIGHTS, NULL, NULL, NULL},
    {"qwen3-moe-fp8", WEIGHTS, NULL, NULL, NULL},
    {"phi3-fp8", WEIGHTS, NULL, NULL, NULL},
    {"llama-nf4", WEIGHTS, "\"blocksize\": 64", "\"blocksize\": 96", "blocks of 96 elements"},
    {"llama-nf4", WEIGHTS, "\"blocksize\": 64", "\"blocksize\": 16", "blocks of 16 elements"},
    {"llama-nf4", WEIGHTS, "\"blocksize\": 64", "\"blocksize\": 0 ", "a blocksize and a shape"},
    {"llama-nf4", WEIGHTS, "\"blocksize\": 64", "\"blocksize\": -1", "a blocksize and a shape"},
    {"llama-nf4", WEIGHTS, "\"shape\": [128, 64]", "\"shape\": [64, 128]", "expected the shape [128, 64]"},
    {"llama-nf4", WEIGHTS, "\"shape\": [128, 64]", "\"shape\": [129, 64]", "expected 129 x 64 codes, found 8192"},
    {"llama-nf4", WEIGHTS, "\"shape\": [128, 64]", "\"shape\": [1e9,1e9]", "a blocksize and a shape"},
    {"llama-nf4", WEIGHTS, "\"shape\": [128, 64]", "\"shape\": [128.5,6]", "a blocksize and a shape"},
    {"llama-nf4", WEIGHTS, "\"shape\": [128, 64]", "\"shape\": 128      ", "a blocksize and a shape"},
    {"llama-nf4", WEIGHTS, "\"nested_offset\"", "\"nested_offsat\"", "a blocksize and a shape"},
    {"llama-nf4", WEIGHTS, "{\"quant_type\"", "[\"quant_type\"", "expected an object"},
    {"llama-nf4", WEIGHTS, "weight.absmax", "weight.absmin", "weight.absmax: the scales of"},
    {"llama-nf4", WEIGHTS, "nested_absmax", "nested_absmin", "weight.nested_absmax: the scales of"},
    {"llama-nf4", WEIGHTS, "nested_quant_map", "nested_quant_mop", "weight.nested_quant_map: the scales of"},
    {"llama-nf4", WEIGHTS, "weight.quant_map", "weight.quant_mop", "weight.quant_map: the scales of"},
    {"llama-nf4", WEIGHTS, "\"nested_blocksize\": 256", "\"nested_blocksize\": 128", "nested_absmax: expected"},
    {"llama-nf4", WEIGHTS, "bitsandbytes__nf4", "bitsandbytes__fp4", "that of fp4 is"},
    {"mixtral-fp4", WEIGHTS, "bitsandbytes__fp4", "bitsandbytes__nf4", "that of nf4 is"},
    {"mixtral-fp4", WEIGHTS, "bitsandbytes__fp4", "bitsandbytes__fp5", "expected the shape"},
    {"qwen2-int8", WEIGHTS, ".SCB", ".SCX", "type i8 is not computed"},
    {"qwen2-int8", WEIGHTS, "\"dtype\":\"F32\"", "\"dtype\":\"I32\"", "SCB: expected f32, one for each of"},
    {"qwen2-int8", WEIGHTS, "\"dtype\":\"U8\"", "\"dtype\":\"I8\"", "weight_format: expected one u8"},
    {"llama-nf4", WEIGHTS, "\"dtype\":\"F32\",\"shape\":[16]", "\"dtype\":\"I32\",\"shape\":[16]",
     "expected 16 of f32"},
    {"llama-nf4", WEIGHTS, "\"dtype\":\"F32\",\"shape\":[256]", "\"dtype\":\"I32\",\"shape\":[256]",
     "expected 256 of f32"},
    {"phi3-fp8", WEIGHTS, "\"dtype\":\"F32\"", "\"dtype\":\"I32\"", "expected scales in f32, bf16 or f16"},
    {"phi3-fp8", WEIGHTS, "weight_scale", "weight_scalf", "weight_scale_inv: the scales of"},
    {"phi3-fp8", "config.json", "\"float-quantized\"", "\"pack-quantized!\"",
     "\"compressed-tensors\" are not computed"},
    {"phi3-fp8", "config.json", "\"num_bits\": 8", "\"num_bits\": 4", "\"compressed-tensors\" are not computed"},
    {"llama-nf4", "config.json", "\"bitsandbytes\"", "\"gptq\"        ", "\"gptq\" are not computed"},
    {"llama-nf4", "config.json", "\"bitsandbytes\"", "\"awq\"         ", "\"awq\" are not computed"},
};

enum { MOST = 1 << 20 };

static void change(unsigned char *data, size_t n, const lie *l)
{
    size_t k = l->from ? strlen(l->from) : 0, found = 0;
    CHECK(!k || strlen(l->to) == k, "%s: of another length", l->to);
    for (size_t i = 0; k && i + k <= n; i++) {
        if (memcmp(data + i, l->from, k) != 0) continue;
        memcpy(data + i, l->to, k);
        found++;
    }
    CHECK(!k || found, "%s has no %s", l->folder, l->from);
}

/* Copies one file, changed if it is the one. */
static bool copy(const lie *l, const char *to, const char *file, unsigned char *data)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s/%s", TEST_DATA, l->folder, file);
    FILE *in = fopen(path, "rb");
    if (!in) return false;
    size_t n = fread(data, 1, MOST, in);
    fclose(in);
    if (strcmp(file, l->file) == 0) change(data, n, l);
    snprintf(path, sizeof path, "%s/%s", to, file);
    FILE *out = fopen(path, "wb");
    if (!out) return false;
    bool ok = fwrite(data, 1, n, out) == n;
    return fclose(out) == 0 && ok;
}

static void bind_folder(const lie *l, const char *folder)
{
    memory *m = memory_new();
    lamina_error err = {0};
    checkpoint *c = NULL;
    model *mo = NULL;
    lamina_status status = checkpoint_open(m, folder, &c, &err);
    if (status == LAMINA_OK) status = model_bind(m, c, NULL, &mo, &err);
    if (l->words)
        CHECK(status != LAMINA_OK && strstr(err.text, l->words), "%s, %s: expected \"%s\", found \"%s\"", l->folder,
              l->to, l->words, err.text);
    else
        CHECK(status == LAMINA_OK, "%s: %s", l->folder, err.text);
    model_free(mo);
    checkpoint_free(c);
    CHECK(memory_free(m) == 0, "%s, %s: leaked", l->folder, l->to ? l->to : "");
}

static void lies_are_refused(void)
{
    unsigned char *data = malloc(MOST);
    for (size_t i = 0; data && i < sizeof lies / sizeof *lies; i++) {
        static const char *const files[] = {"config.json", WEIGHTS};
        char folder[] = "/tmp/lamina-coding-XXXXXX", path[512];
        REQUIRE(mkdtemp(folder));
        bool copied = copy(&lies[i], folder, files[0], data) && copy(&lies[i], folder, files[1], data);
        CHECK(copied, "%s: cannot be copied", lies[i].folder);
        if (copied) bind_folder(&lies[i], folder);
        for (size_t f = 0; f < 2; f++) {
            snprintf(path, sizeof path, "%s/%s", folder, files[f]);
            unlink(path);
        }
        rmdir(folder);
    }
    CHECK(data, "memory");
    free(data);
}

TEST_MAIN(T(lies_are_refused))

/* safetensors files, indexes and folders that lie: each must be refused, and in words that say what is wrong. */
#include "build.h"

/* ---- headers ---------------------------------------------------------------------------------------------------- */

#define ENTRY(dtype, shape, offsets) "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static const struct {
    const char *what, *header, *words;
} headers[] = {
    {"an offset beyond the data", ENTRY("\"F32\"", "[2,3]", "[8,32]"), "ends at byte 32 of the data"},
    {"an end before its begin", ENTRY("\"F32\"", "[2,3]", "[24,0]"), "a begin and an end after it"},
    {"an offset of 2^64", ENTRY("\"F32\"", "[2,3]", "[0,18446744073709551616]"), "data_offsets"},
    {"an offset of 2^63", ENTRY("\"F32\"", "[2,3]", "[0,9223372036854775808]"), "data_offsets"},
    {"a negative offset", ENTRY("\"F32\"", "[2,3]", "[-4,20]"), "data_offsets"},
    {"a fractional offset", ENTRY("\"F32\"", "[2,3]", "[0,24.0]"), "data_offsets"},
    {"one offset", ENTRY("\"F32\"", "[2,3]", "[0]"), "a begin and an end"},
    {"three offsets", ENTRY("\"F32\"", "[2,3]", "[0,12,24]"), "a begin and an end"},
    {"offsets as an object", ENTRY("\"F32\"", "[2,3]", "{}"), "a begin and an end"},
    {"a shape too large for its bytes", ENTRY("\"F32\"", "[2,4]", "[0,24]"), "expected 32 bytes from its shape"},
    {"a shape too small for its bytes", ENTRY("\"F16\"", "[2,3]", "[0,24]"), "expected 12 bytes from its shape"},
    {"a shape that wraps to its bytes", ENTRY("\"F32\"", "[4611686018427387904,4,6]", "[0,0]"), "more than 64 bits"},
    {"a row that wraps", ENTRY("\"F64\"", "[9223372036854775807]", "[0,24]"), "more than 64 bits"},
    {"folded dimensions that wrap", ENTRY("\"U8\"", "[4294967296,4294967296,4294967296,1,1,1,1]", "[0,0]"),
     "more than 64 bits"},
    {"a negative dimension", ENTRY("\"F32\"", "[-2,3]", "[0,24]"), "expected integers from 0"},
    {"a dimension in words", ENTRY("\"F32\"", "[\"2\",3]", "[0,24]"), "expected integers from 0"},
    {"a shape in a shape", ENTRY("\"F32\"", "[[2],3]", "[0,24]"), "expected integers from 0"},
    {"a number as shape", ENTRY("\"F32\"", "6", "[0,24]"), "\"shape\" is not an array"},
    {"a number as dtype", ENTRY("32", "[2,3]", "[0,24]"), "\"dtype\" is not a string"},
    {"no dtype", "{\"a\":{\"shape\":[2,3],\"data_offsets\":[0,24]}}", "\"dtype\" is missing"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,24]}}", "\"shape\" is missing"},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3]}}", "\"data_offsets\" is missing"},
    {"dtype twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[0,24]}}",
     "\"dtype\" stands twice"},
    {"an unknown key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24],\"code\":1}}",
     "\"code\" is unknown"},
    {"a tensor that is a list", "{\"a\":[]}", "expected an object with dtype"},
    {"a name twice",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     "tensor a stands twice"},
    {"a name twice, spelt differently",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     "tensor a stands twice"},
    {"an overlap",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[0,16]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[15,24]}}",
     "tensors a and b overlap"},
    {"the same bytes twice",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[24],\"data_offsets\":[0,24]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[24],\"data_offsets\":[0,24]}}",
     "overlap"},
    {"a name with a zero byte", "{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
     "without a zero byte"},
    {"no name", "{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "a tensor's name of 0 bytes"},
    {"metadata that are no object", "{\"__metadata__\":[]}", "\"__metadata__\" is not an object"},
    {"a list", "[]", "does not begin with '{'"},
    {"a space first", " {}", "does not begin with '{'"},
    {"text behind the end", "{}{}", "text after the end"},
    {"an unfinished object", "{\"a\":", "unexpected end"},
    {"a lone surrogate", "{\"\\ud800\":{}}", "bad escape"},
    {"text that is not UTF-8", "{\"a\xff\":{}}", "not UTF-8"},
    {"an overlong UTF-8 form", "{\"a\xc0\xaf\":{}}", "not UTF-8"},
    {"a number with a leading zero", ENTRY("\"F32\"", "[02,3]", "[0,24]"), "bad number"},
    {"NaN", ENTRY("\"F32\"", "[NaN]", "[0,24]"), "unexpected character"},
};

static void lying_headers(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{}");
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        write_safetensors(&f, "model.safetensors", headers[i].header, 24);
        bool before = test_now.current_failed;
        expect_refusal(f.path, LAMINA_E_FORMAT, headers[i].words);
        if (test_now.current_failed && !before) printf("  which was: %s\n", headers[i].what);
    }
    printf("  %zu headers\n", sizeof headers / sizeof *headers);
    folder_remove(&f);
}

static void lying_lengths(void)
{
    static const struct {
        uint64_t length;
        const char *words;
    } lengths[] = {
        {0, "header of 0 bytes"},
        {1, "header of 1 bytes"},
        {1000, "cut short"},
        {100000000, "cut short"},
        {100000001, "expected at most 100000000"},
        {UINT64_MAX, "header of 18446744073709551615 bytes"},
        {UINT64_MAX - 7, "header of 18446744073709551608 bytes"},
        {(uint64_t)1 << 63, "expected at most"},
    };
    folder f = folder_new();
    write_text(&f, "config.json", "{}");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        bytes b = {0};
        put_number(&b, lengths[i].length, 8);
        put_text(&b, ONE_TENSOR);
        put_fill(&b, 0, 24);
        write_bytes(&f, "model.safetensors", b.data, b.n);
        drop(&b);
        expect_refusal(f.path, LAMINA_E_FORMAT, lengths[i].words);
    }
    folder_remove(&f);
}

static void deep_headers(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{}");
    bytes b = {0};
    put_text(&b, "{\"a\":");
    put_fill(&b, '[', 1000000);
    put(&b, "", 1);
    write_safetensors(&f, "model.safetensors", (char *)b.data, 0);
    expect_refusal(f.path, LAMINA_E_FORMAT, "nesting too deep");
    drop(&b);
    put_text(&b, "{\"a\":{\"dtype\":\"U8\",\"shape\":[");
    for (int i = 0; i < 100000; i++) put_text(&b, "1,");
    put_text(&b, "1],\"data_offsets\":[0,1]}}");
    put(&b, "", 1);
    write_safetensors(&f, "model.safetensors", (char *)b.data, 1);
    expect_refusal(f.path, LAMINA_E_FORMAT, "more than 64 dimensions");
    drop(&b);
    put_text(&b, "{\"");
    put_fill(&b, 'n', 100000);
    put_text(&b, "\":{}}");
    put(&b, "", 1);
    write_safetensors(&f, "model.safetensors", (char *)b.data, 1);
    expect_refusal(f.path, LAMINA_E_FORMAT, "a tensor's name of 100000 bytes");
    drop(&b);
    folder_remove(&f);
}

/* ---- indexes ---------------------------------------------------------------------------------------------------- */

#define SHARD "model-00001-of-00001.safetensors"

static const struct {
    const char *what, *index;
    lamina_status status;
    const char *words;
} indexes[] = {
    {"a path upwards", "{\"weight_map\":{\"a\":\"../" SHARD "\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"an absolute path", "{\"weight_map\":{\"a\":\"/etc/passwd.safetensors\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"a folder", "{\"weight_map\":{\"a\":\"x/" SHARD "\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"a backslash", "{\"weight_map\":{\"a\":\"..\\\\x.safetensors\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"a zero byte", "{\"weight_map\":{\"a\":\"" SHARD "\\u0000\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"a line end", "{\"weight_map\":{\"a\":\"x\\n.safetensors\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"no name", "{\"weight_map\":{\"a\":\"\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"the folder itself", "{\"weight_map\":{\"a\":\"..\"}}", LAMINA_E_FORMAT, "not a plain name"},
    {"a pickle", "{\"weight_map\":{\"a\":\"pytorch_model.bin\"}}", LAMINA_E_FORMAT, "not named *.safetensors"},
    {"the index itself", "{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}", LAMINA_E_FORMAT,
     "not named *.safetensors"},
    {"a file that is missing", "{\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\"}}", LAMINA_E_IO,
     "model-00002-of-00002.safetensors that it names is missing"},
    {"a tensor that is missing", "{\"weight_map\":{\"a\":\"" SHARD "\",\"b\":\"" SHARD "\"}}", LAMINA_E_FORMAT,
     "tensor b is not in " SHARD},
    {"a tensor elsewhere", "{\"weight_map\":{\"a\":\"other.safetensors\"}}", LAMINA_E_FORMAT,
     "tensor a is not in other.safetensors"},
    {"a tensor twice", "{\"weight_map\":{\"a\":\"" SHARD "\",\"a\":\"" SHARD "\"}}", LAMINA_E_FORMAT,
     "tensor a stands twice"},
    {"a number", "{\"weight_map\":{\"a\":1}}", LAMINA_E_FORMAT, "its file is not a string"},
    {"a list", "{\"weight_map\":[]}", LAMINA_E_FORMAT, "expected an object \"weight_map\""},
    {"nothing", "{}", LAMINA_E_FORMAT, "expected an object \"weight_map\""},
    {"an empty map", "{\"weight_map\":{}}", LAMINA_E_FORMAT, "is empty"},
    {"not an object", "[]", LAMINA_E_FORMAT, "expected a JSON object"},
    {"an empty file", "", LAMINA_E_FORMAT, "index.json"},
    {"a name with a zero byte", "{\"weight_map\":{\"a\\u0000\":\"" SHARD "\"}}", LAMINA_E_FORMAT, "zero byte"},
};

static void lying_indexes(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{}");
    write_safetensors(&f, SHARD, ONE_TENSOR, 24);
    write_safetensors(&f, "other.safetensors", "{\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        write_text(&f, "model.safetensors.index.json", indexes[i].index);
        bool before = test_now.current_failed;
        expect_refusal(f.path, indexes[i].status, indexes[i].words);
        if (test_now.current_failed && !before) printf("  which was: %s\n", indexes[i].what);
    }
    write_text(&f, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"" SHARD "\"}}");
    expect_open(f.path);
    folder_remove(&f);
}

/* ---- configurations --------------------------------------------------------------------------------------------- */

static void lying_configurations(void)
{
    static const struct {
        const char *text, *words;
    } configs[] = {
        {"", "line 1"},
        {"[]", "expected a JSON object"},
        {"{\n\"a\": 1,\n\"b\" 2}", "line 3"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"a\":\"\xff\"}", "unable to decode byte 0xff"},
        {"{\"a\":1} x", "line 1"},
        {"{\"a\":99999999999999999999}", "too big"},
    };
    folder f = folder_new();
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        write_text(&f, "config.json", configs[i].text);
        expect_refusal(f.path, LAMINA_E_FORMAT, configs[i].words);
        expect_refusal(in(&f, "config.json"), LAMINA_E_FORMAT, configs[i].words);
    }
    write_text(&f, "config.json", "{}");
    write_text(&f, "generation_config.json", "{");
    expect_refusal(f.path, LAMINA_E_FORMAT, "generation_config.json");
    bytes b = {0};
    put_text(&b, "{\"a\":");
    put_fill(&b, '[', 1000000);
    write_bytes(&f, "config.json", b.data, b.n);
    expect_refusal(f.path, LAMINA_E_FORMAT, "depth");
    drop(&b);
    put_fill(&b, ' ', (16 << 20) + 1);
    write_bytes(&f, "config.json", b.data, b.n);
    expect_refusal(f.path, LAMINA_E_FORMAT, "expected at most 16777216 bytes");
    drop(&b);
    folder_remove(&f);
}

TEST_MAIN(T(lying_headers), T(lying_lengths), T(deep_headers), T(lying_indexes), T(lying_configurations))

/* Tokenizers that are refused, and in what words: tokenizer.json, files of ranks, patterns. sentencepiece's are in
 * test_sentencepiece.c, those of GGUF in test_tokenizer_gguf.c. */
#include "format/tokenizer_internal.h"
#include "test.h"

typedef lamina_status reader(memory *m, const tokenizer_files *files, tokenizer **t, lamina_error *err);

static bool reads(memory *m, reader *read, tokenizer_files files, lamina_error *err)
{
    tokenizer *t = NULL;
    lamina_status s = read(m, &files, &t, err);
    tokenizer_free(t);
    return s == LAMINA_OK;
}

/* text: what the files hold. */
static void refuses(memory *m, reader *read, tokenizer_files files, const char *text, const char *words)
{
    lamina_error err = {0};
    CHECK(!reads(m, read, files, &err), "accepted: %.200s", text);
    CHECK(strstr(err.text, words) != NULL, "expected \"%s\", found \"%s\": %.200s", words, err.text, text);
}

static tokenizer_files json_of(const char *text)
{
    return (tokenizer_files){.json = text, .json_bytes = strlen(text)};
}

typedef struct hostile {
    const char *json, *words;
} hostile;

#define WITH(part)                                                                                                     \
    "{" part "\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"                        \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}"
#define MODEL(model)                                                                                                   \
    "{\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":" model "}"

#define BYTES "{\"type\":\"ByteLevel\"}"
#define STEP(pre, decoder)                                                                                             \
    "{\"pre_tokenizer\":" pre ",\"decoder\":" decoder ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]" \
    "}}"

static const hostile refused[] = {
    {"", "unexpected end"},
    {"[]", "expected an object"},
    {"{\"model\":1}x", "text after the end"},
    {"{\"a\":\"\\ud800\"}", "bad escape"},
    {"{\"a\":\"\\udc00\"}", "bad escape"},
    {"{\"a\":\"\xff\"}", "not UTF-8"},
    {"{\"a\":\"\n\"}", "control character"},
    {"{\"a\":01}", "bad number"},
    {"{\"a\":[1,]}", "unexpected character"},
    {"{\"a\":1,}", "expected a key"},
    {"{}", "no \"model\""},
    {WITH("\"normalizer\":{\"type\":\"Nope\"},"), "normalizer \"Nope\" is not supported"},
    {WITH("\"normalizer\":{},"), "without \"type\""},
    {WITH("\"normalizer\":3,"), "without \"type\""},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"},"),
     "regular expression"},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"},"), "empty pattern"},
    {WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"***\"},"),
     "precompiled_charsmap is not base64"},
    {WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nope\"}]},"),
     "normalizer \"Nope\" is not supported"},
    {STEP("{\"type\":\"UnicodeScripts\"}", BYTES), "pre-tokenizer \"UnicodeScripts\" is not supported"},
    {STEP("{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", BYTES), "a replacement that is not one character"},
    {STEP(BYTES, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}"),
     "decoder \"Replace\" with a Regex is not supported"},
    {STEP(BYTES, "{\"type\":\"Nope\"}"), "decoder \"Nope\" is not supported"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},"
          "{\"Sequence\":{\"id\":\"A\"}}]},"),
     "a template that is not tokens around one text"},
    {WITH("\"post_processor\":{\"type\":\"X\"},"), "post-processor \"X\" is not supported"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"q\"}}]},"),
     "has no ids"},
    {WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",77],\"sep\":[\"b\",1]},"),
     "77 is not in the vocabulary"},
    {WITH("\"added_tokens\":[{}],"), "without \"content\""},
    {MODEL("{\"type\":\"Markov\"}"), "model \"Markov\" is not supported"},
    {MODEL("{\"type\":\"WordLevel\"}"), "a ByteLevel step before a model of words"},
    {MODEL("{\"type\":\"BPE\"}"), "without vocab"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"), "two pieces have id 0"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}"), "is there twice"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":4294967296},\"merges\":[]}"), "ids below"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}"), "64-bit integer"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"), "has id -1"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}"), "names \"b\""},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}"), "names \"ab\""},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}"), "is not two pieces"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}"), "has one piece"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}"), "end_of_word_suffix"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{},\"merges\":[],\"dropout\":0.1}"), "dropout"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\"},"), "a TemplateProcessing without \"single\""},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]},"), "a template without the text"},
    {WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0]},"), "a post-processor without \"sep\""},
    {WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"a\",0],\"cls\":[]},"), "an empty \"cls\""},
    {WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"a\",0],\"cls\":[\"a\"]},"),
     "\"cls\" without an id"},
    {WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"a\",0],\"cls\":[\"a\",-1]},"),
     "the template's token id -1 cannot be meant"},
    {WITH("\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],"
          "\"sep\":[\"a\",0]},{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"a\",0]}]},"),
     "a second template around the text"},
    {WITH("\"post_processor\":{\"type\":\"Sequence\"},"), "a Sequence without \"processors\""},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"},"), "expected \"pattern\""},
    {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}},"), "expected \"content\""},
    {WITH("\"normalizer\":{\"type\":\"Sequence\"},"), "a Sequence without \"normalizers\""},
    {STEP("{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"\"}", BYTES), "an empty delimiter"},
    {STEP("{\"type\":\"FixedLength\",\"length\":0}", BYTES), "\"FixedLength\" with length 0"},
    {STEP("{\"type\":\"Split\",\"behavior\":\"Sideways\",\"pattern\":{\"String\":\"a\"}}", BYTES),
     "split behavior \"Sideways\" is not supported"},
    {STEP("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}", BYTES),
     "prepend scheme \"last\" is not supported"},
    {STEP("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false,\"prepend_scheme\":\"always\"}",
          BYTES),
     "add_prefix_space contradicts prepend_scheme"},
    {STEP("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"ByteLevel\"}]}", BYTES),
     "a second ByteLevel step is not supported"},
    {STEP("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Metaspace\",\"replacement\":"
          "\"_\"}]}",
          BYTES),
     "a space put behind ByteLevel"},
    {STEP("{\"type\":\"Whitespace\"}", BYTES), "a ByteLevel decoder without a ByteLevel step"},
    {STEP(BYTES, "{\"type\":\"Fuse\"}"), "a ByteLevel step without a ByteLevel decoder"},
    {STEP(BYTES, "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\"a\","
                 "\"start\":2,\"stop\":0}]}"),
     "\"Strip\" after Fuse is supported with start 1 and stop 0"},
    {STEP(BYTES, "{\"type\":\"Strip\",\"content\":\"\",\"start\":1,\"stop\":0}"), "decoder \"Strip\" of \"\", 1 and 0"},
    {STEP(BYTES, "{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0}"),
     "decoder \"Strip\" of \"a\", -1 and 0"},
    {STEP(BYTES, "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{"
                 "\"String\":\"ab\"},\"content\":\"\"}]}"),
     "\"Replace\" after Fuse is supported for a single character"},
    {STEP(BYTES,
          "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"WordPiece\",\"prefix\":\"#\"}]}"),
     "decoder \"WordPiece\" after Fuse is not supported"},
    {STEP(BYTES, "{\"type\":\"BPEDecoder\",\"suffix\":\"\"}"), "an empty suffix"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[]]}"), "merge 0 is empty"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]}"),
     "merge 0 has more than two pieces"},
    {MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":true}"),
     "byte_fallback of a byte-level model is not supported"},
    {MODEL("{\"type\":\"Unigram\",\"vocab\":[]}"), "a ByteLevel step before a model of scores"},
    {"{\"model\":{\"type\":\"Unigram\"}}", "a model without vocab"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[]]}}", "an empty piece"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "a piece without a score"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"\",0]]}}", "a piece of 0 bytes"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1e300]]}}", "piece 0 has score 1e+300"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}", "unk_id 1, the vocabulary has 1"},
    {"{\"model\":{\"type\":\"WordPiece\"}}", "a model without vocab"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "unk_token is not in its vocabulary"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"unk_token\":\"a\",\"max_input_chars_per_word\":-1}}",
     "max_input_chars_per_word -1, at most 1024 is supported"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"unk_token\":\"a\",\"max_input_chars_per_word\":1025}}",
     "max_input_chars_per_word 1025, at most 1024"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"unk_token\":\"a\",\"continuing_subword_prefix\":\"######"
     "###########################\"}}",
     "a continuing_subword_prefix of 33 bytes"},
};

static void hostile_json(void)
{
    memory *m = memory_new();
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        refuses(m, tokenizer_read_json, json_of(refused[i].json), refused[i].json, refused[i].words);
    char deep[4096];
    memset(deep, '[', sizeof deep);
    refuses(m, tokenizer_read_json, (tokenizer_files){.json = deep, .json_bytes = sizeof deep}, "[[[", "too deep");
    CHECK(memory_free(m) == 0, "memory is left");
}

/* "before", `n` times the text "part" (commas between), "after". */
static char *many(const char *before, const char *part, size_t n, const char *after)
{
    char *text = malloc(strlen(before) + n * (strlen(part) + 1) + strlen(after) + 1), *at = text;
    if (!text) abort();
    at = stpcpy(at, before);
    for (size_t i = 0; i < n; i++) {
        if (i) *at++ = ',';
        at = stpcpy(at, part);
    }
    stpcpy(at, after);
    return text;
}

/* What there may not be too much of. */
static void limits(void)
{
    static const struct {
        const char *before, *part, *after, *words;
        size_t n; /* the least that is too many */
    } rows[] = {
        {"{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[", "{\"type\":\"NFC\"}",
         "]},\"model\":{\"vocab\":{},\"merges\":[]}}", "more than 32 steps", 33},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[", "{\"type\":\"Whitespace\"}",
         "]},\"model\":{\"vocab\":{},\"merges\":[]}}", "more than 32 steps", 33},
        {"{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[", "{\"type\":\"ByteFallback\"}",
         "]},\"model\":{\"vocab\":{},\"merges\":[]}}", "more than 32 steps", 33},
        {"{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"", "a", "\"},\"model\":{\"vocab\":{},\"merges\":[]}}",
         "a text of 65537 bytes, at most 65536", 32769},
        {"{\"added_tokens\":[{\"id\":0,\"content\":\"", "a", "\"}],\"model\":{\"vocab\":{},\"merges\":[]}}",
         "an added token of 65537 bytes", 32769},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"", "a", "\"]}}", "a merge of 65537 bytes", 32769},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"", "a", "\",\"a\"]]}}", "merge 0 is too long", 32769},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"", "a", "\",0]]}}", "a piece of 65537 bytes", 32769},
    };
    memory *m = memory_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lamina_error err = {0};
        char *json = many(rows[i].before, rows[i].part, rows[i].n, rows[i].after);
        refuses(m, tokenizer_read_json, json_of(json), json, rows[i].words);
        free(json);
        json = many(rows[i].before, rows[i].part, rows[i].n - 1, rows[i].after);
        bool read = reads(m, tokenizer_read_json, json_of(json), &err);
        CHECK(read || !strstr(err.text, rows[i].words), "one less: %s", err.text);
        free(json);
    }
    CHECK(memory_free(m) == 0, "memory is left");
}

/* ---- hostile ranks ------------------------------------------------------------------------------------------ */

static const hostile refused_ranks[] = {
    {"IQ== x\n", "line 1 is not a piece and its rank"},
    {"IQ== 1\n\nIg==\n", "line 3 is not a piece and its rank"},
    {"IQ== 1234567890\n", "line 1 is not"},
    {"I=Q= 0\n", "piece 0 is not base64"},
    {"IQ= 0\n", "piece 0 is not base64"},
    {"==== 0\n", "piece 0 is not base64"},
    {"IQ== 0\nIQ== 1\n", "is there twice"},
    {"IQ== 0\nIg== 0\n", "two pieces have id 0"},
    {"IQ== 99999999\n", "ids below"},
    {"IQ== 0\n", "byte 0x00 has no rank"},
    {"", "byte 0x00 has no rank"},
};

static const hostile refused_tekken[] = {
    {"{}", "no \"config\""},
    {"{\"config\":{\"default_vocab_size\":-1}}", "\"default_vocab_size\" is -1"},
    {"{\"config\":{\"default_vocab_size\":2,\"default_num_special_tokens\":3}}", "3 special tokens of 2"},
    {"{\"config\":{\"default_vocab_size\":9,\"default_num_special_tokens\":3}}", "no \"pattern\""},
    {"{\"config\":{\"default_vocab_size\":9,\"default_num_special_tokens\":3,\"pattern\":\"a\"}}", "no \"vocab\""},
    {"{\"config\":{\"default_vocab_size\":9,\"default_num_special_tokens\":3,\"pattern\":\"a\"},\"vocab\":[{}]}",
     "no \"rank\""},
    {"{\"config\":{\"default_vocab_size\":9,\"default_num_special_tokens\":3,\"pattern\":\"a\"},"
     "\"vocab\":[{\"rank\":0,\"token_bytes\":\"!\"}]}",
     "piece 3 is not base64"},
};

static void hostile_ranks(void)
{
    memory *m = memory_new();
    for (size_t i = 0; i < sizeof refused_ranks / sizeof *refused_ranks; i++) {
        const char *text = refused_ranks[i].json;
        tokenizer_files files = {.ranks = text, .ranks_bytes = strlen(text), .ranks_name = "qwen.tiktoken"};
        refuses(m, tokenizer_read_ranks, files, text, refused_ranks[i].words);
    }
    for (size_t i = 0; i < sizeof refused_tekken / sizeof *refused_tekken; i++) {
        const char *text = refused_tekken[i].json;
        tokenizer_files files = {.tekken = text, .tekken_bytes = strlen(text)};
        refuses(m, tokenizer_read_tekken, files, text, refused_tekken[i].words);
    }
    const char *config = "{\"tokenizer_class\":\"OtherTokenizer\"}";
    tokenizer_files files = {.ranks = "IQ== 0\n",
                             .ranks_bytes = 7,
                             .ranks_name = "tokenizer.model",
                             .config = config,
                             .config_bytes = strlen(config)};
    lamina_error err = {0};
    tokenizer *t = NULL;
    CHECK(tokenizer_read_ranks(m, &files, &t, &err) == LAMINA_E_UNSUPPORTED, "an unknown class is accepted");
    CHECK(strstr(err.text, "\"OtherTokenizer\" is not supported") != NULL, "%s", err.text);
    CHECK(tokenizer_is_ranks("IQ== 0\n", 7) && tokenizer_is_ranks("aGk= 17", 7), "not seen as ranks");
    CHECK(!tokenizer_is_ranks("\n\x0b\n\x05<unk>", 9) && !tokenizer_is_ranks("", 0), "a protobuf seen as ranks");
    CHECK(memory_free(m) == 0, "memory is left");
}

/* Patterns that Oniguruma reads in its own way are rewritten or refused; an exponential one gives up cleanly. */
static void patterns(void)
{
    static const hostile rows[] = {
        {"[a&&b]", "intersection"},    {"[a[b]]", "class inside"}, {"(?m:a)", "this kind"},
        {"\\\\Rx", "\\R is not"},      {"a{2,3}+", "an interval"}, {"(*UTF)a", "(*"},
        {"[\\\\b]", "\\b in a class"}, {"(((((((((", "parenthes"},
    };
    memory *m = memory_new();
    char json[1024];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(json, sizeof json,
                 "{\"decoder\":{\"type\":\"Fuse\"},\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
                 "\"pattern\":{\"Regex\":\"%s\"}},\"model\":{\"vocab\":{},\"merges\":[]}}",
                 rows[i].json);
        refuses(m, tokenizer_read_json, json_of(json), json, rows[i].words);
    }
    const char *bomb =
        "{\"decoder\":{\"type\":\"Fuse\"},\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
        "\"pattern\":{\"Regex\":\"(?:a|a|aa)+(?:b|c)\"}},\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}";
    lamina_error err = {0};
    tokenizer *t = NULL;
    tokenizer_files files = json_of(bomb);
    REQUIRE(tokenizer_read_json(m, &files, &t, &err) == LAMINA_OK, "%s", err.text);
    char text[200];
    int32_t *ids;
    size_t n;
    memset(text, 'a', sizeof text);
    lamina_status s = tokenizer_encode(t, m, text, sizeof text, 0, &ids, &n, &err);
    CHECK(s == LAMINA_E_UNSUPPORTED && strstr(err.text, "gives up"), "status %d: %s", s, err.text);
    tokenizer_free(t);
    CHECK(memory_free(m) == 0, "memory is left");
}

TEST_MAIN(T(hostile_json), T(limits), T(hostile_ranks), T(patterns))

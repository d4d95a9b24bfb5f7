/* Byte-level BPE vocabularies of GGUF files.
 *
 * GGUF keeps pieces, their kinds and merges, but of the rest of the pipeline only a name, tokenizer.ggml.pre. The table
 * below says which steps a name stands for, as the models' own tokenizer.json files define them (llama.cpp's
 * llama-vocab.cpp documents the names). A name that is not in it is refused: to guess a pattern is to be wrong a
 * little, everywhere. */
#include "format/gguf.h"

#include <string.h>

#include "format/tokenizer_internal.h"
#include "format/tokenizer_patterns.h"

static const char gguf_name[] = "GGUF tokenizer";

/* ---- what each name means ----------------------------------------------------------------------------------- */

#define DEEPSEEK_WORDS                                                                                                 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"               \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* Left alone by the formatter, which counts bytes for columns here and never comes to rest. Characters that
 * normalization changes are written by number, so that no editor does. */
/* clang-format off */
#define DEEPSEEK_LETTERS \
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ" \
    "-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\\x{1f7d}ᾀ-ᾴᾶ" \
    "-ᾼ\\x{1fbe}ῂ-ῄῆ-ῌῐ-\\x{1fd3}ῖ-\\x{1fdb}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-" \
    "ℝℤ\\x{2126}ℨ\\x{212a}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯ" \
    "ꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
/* clang-format on */
#define DEEPSEEK_CJK "[一-龥ࠀ-一가-퟿]+"
#define BLOOM        " ?[^(\\s|.,!?…。，、।۔،)]+"
#define HAN_KANA     "[一-龥぀-ゟ゠-ヿ]+"
#define LETTERS      "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SPARK_WORDS                                                                                                    \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"               \
    " ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+"
#define JAIS_SPACES                                                                                                    \
    "|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)"      \
    "|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"
#define MARKED_LETTERS                                                                                                 \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"                 \
    "|\\s+(?!\\S)|\\s+"
#define YOUTU_WORDS                                                                                                    \
    OTHER UPPER "*" LOWER "+" CONTRACTIONS "?|" OTHER UPPER "+" LOWER "*" CONTRACTIONS "?|\\p{N}" TAIL_SLASH

enum {
    PRE_NFC = 1,
    PRE_IGNORE_MERGES = 2,
    PRE_BOS = 4,
    PRE_GPT2 = 8 /* ByteLevel's own pattern last */,
    PRE_DIGITS = 16 /* each digit alone, before all else */,
    PRE_DIGITS_LAST = 32,
    PRE_RANKS = 64 /* merges, where none are given, follow from the pieces in order */
};

typedef struct pre_row {
    const char *names; /* separated by spaces, and a space at both ends */
    unsigned flags;
    const char *patterns[5]; /* Split, isolated, in order */
} pre_row;

static const pre_row pre_rows[] = {
    {" llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ",
     PRE_IGNORE_MERGES | PRE_BOS,
     {PATTERN_LLAMA3}},
    {" dbrx smaug-bpe ", 0, {PATTERN_LLAMA3}},
    {" chatglm-bpe glm4 glm5 ", PRE_IGNORE_MERGES, {PATTERN_LLAMA3}},
    {" qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan ", PRE_NFC, {PATTERN_QWEN2}},
    {" kormo f2llmv2 solar-open grok-2 ", 0, {PATTERN_QWEN2}},
    {" qwen35 ", PRE_NFC, {CONTRACTIONS MARKED_LETTERS}},
    {" ufakzeka ", 0, {"[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL}},
    {" tekken ", PRE_IGNORE_MERGES | PRE_BOS, {PATTERN_TEKKEN}},
    {" gpt-4o llama4 kanana2 talkie minimax-m2 ", 0, {PATTERN_GPT4O}},
    {" tiny_aya cohere2moe ", 0, {"\\d{1,3}(?=(?:\\d{3})*\\b)", PATTERN_GPT4O}},
    {" kimi-k2 ", PRE_RANKS | PRE_IGNORE_MERGES, {PATTERN_KIMI}},
    {" minicpm5 ", PRE_IGNORE_MERGES, {"\\p{N}{1,3}", CONTRACTIONS LETTERS "|\\p{N}+" TAIL}},
    {" seed-coder ", 0, {CONTRACTIONS LETTERS "|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {" bailingmoe bailingmoe2 llada-moe ",
     0,
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"
      "|\\s+(?!\\S)|\\s+"}},
    {" exaone-moe ",
     0,
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?"
                   "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {" jais-2 ", 0, {CONTRACTIONS LETTERS "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+" JAIS_SPACES}},
    {" laguna ", 0, {"[^\\n]+|[\\n]+", PATTERN_QWEN2}},
    {" youtu ",
     PRE_IGNORE_MERGES,
     {"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" HAN_KANA, YOUTU_WORDS}},
    {" smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ", PRE_DIGITS | PRE_GPT2, {NULL}},
    {" gpt-2 phi-2 mpt olmo jais trillion granite-docling roberta-bpe exaone4 gigachat a.x-4.0 mellum ",
     PRE_GPT2,
     {NULL}},
    {" deepseek-llm ",
     PRE_DIGITS_LAST,
     {"[\\r\\n]", DEEPSEEK_LETTERS, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", DEEPSEEK_CJK}},
    {" deepseek-coder ", PRE_DIGITS_LAST, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", DEEPSEEK_CJK}},
    {" deepseek-v3 hunyuan-dense joyai-llm hy_v4 ", 0, {"\\p{N}{1,3}", HAN_KANA, DEEPSEEK_WORDS}},
    {" spark2_5 ", PRE_DIGITS_LAST, {"\\p{N}{1,3}", HAN_KANA, SPARK_WORDS}},
    {" superbpe ", 0, {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
    {" bloom gpt3-finnish poro-chat ", 0, {BLOOM}},
    {" viking ", PRE_DIGITS_LAST, {BLOOM}},
};

static const pre_row *find_row(const char *name, size_t bytes)
{
    char spelt[64];
    if (bytes + 3 > sizeof spelt) return NULL;
    spelt[0] = ' ';
    memcpy(spelt + 1, name, bytes);
    spelt[bytes + 1] = ' ';
    spelt[bytes + 2] = '\0';
    if (memchr(name, ' ', bytes)) return NULL;
    for (size_t i = 0; i < sizeof pre_rows / sizeof *pre_rows; i++)
        if (strstr(pre_rows[i].names, spelt)) return &pre_rows[i];
    return NULL;
}

static lamina_status add_row(builder *b, const pre_row *row, lamina_error *err)
{
    const splitter_step digits = {.kind = SPLITTER_DIGITS, .behavior = SPLIT_ISOLATED};
    if (row->flags & PRE_NFC) TRY(builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_NFC}, err));
    if (row->flags & PRE_DIGITS) TRY(builder_splitter(b, &digits, err));
    for (unsigned i = 0; i < 5 && row->patterns[i]; i++) TRY(builder_pattern_splitter(b, row->patterns[i], err));
    if (row->flags & PRE_DIGITS_LAST) TRY(builder_splitter(b, &digits, err));
    b->t->bpe.ignore_merges = (row->flags & PRE_IGNORE_MERGES) != 0;
    return builder_byte_level(b, false, (row->flags & PRE_GPT2) != 0, err);
}

/* "falcon" and "default": punctuation first, then GPT-2's pattern, then digits three by three; default cuts runs of
 * numbers off before. */
static lamina_status add_falcon(builder *b, bool runs, lamina_error *err)
{
    TRY(builder_pattern_splitter(b, runs ? "[\\p{P}\\$\\+<=>\\^\\~\\|]+" : "[\\p{P}\\$\\+<=>\\^~\\|`]+", err));
    TRY(builder_pattern_splitter(b, regex_gpt2, err));
    if (runs) TRY(builder_pattern_splitter(b, "\\p{N}+", err));
    TRY(builder_pattern_splitter(b, "[0-9][0-9][0-9]", err));
    return builder_byte_level(b, false, false, err);
}

static lamina_status add_steps(builder *b, const gguf *g, unsigned *flags, lamina_error *err)
{
    gguf_string pre = {"default", 7};
    gguf_text(g, "tokenizer.ggml.pre", &pre);
    bool plain = pre.bytes == 7 && memcmp(pre.data, "default", 7) == 0;
    bool falcon = pre.bytes == 6 && memcmp(pre.data, "falcon", 6) == 0;
    *flags = 0;
    TRY(builder_decoder(b, &(decoder_step){.kind = DECODE_BYTES}, err));
    if (plain || falcon) return add_falcon(b, plain, err);
    const pre_row *row = pre.bytes < 64 ? find_row(pre.data, (size_t)pre.bytes) : NULL;
    if (!row)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: tokenizer.ggml.pre \"%.*s\" is not supported", gguf_name,
                         (int)(pre.bytes < 60 ? pre.bytes : 60), pre.data);
    *flags = row->flags;
    return add_row(b, row, err);
}

/* ---- pieces ------------------------------------------------------------------------------------------------- */

enum { KIND_UNKNOWN = 2, KIND_CONTROL = 3, KIND_USER_DEFINED = 4 };

static lamina_status add_pieces(builder *b, const gguf *g, lamina_error *err)
{
    uint64_t n = 0, kinds = 0;
    if (!gguf_text_array(g, "tokenizer.ggml.tokens", &n) || n == 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: no tokenizer.ggml.tokens", gguf_name);
    if (n > TOKEN_MAX_IDS)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: %llu pieces", gguf_name, (unsigned long long)n);
    gguf_int_array(g, "tokenizer.ggml.token_type", &kinds);
    if (kinds && kinds != n)
        return error_set(err, LAMINA_E_FORMAT, "%s: %llu pieces, %llu token types", gguf_name, (unsigned long long)n,
                         (unsigned long long)kinds);
    for (uint64_t id = 0; id < n; id++) {
        gguf_string piece = gguf_text_at(g, "tokenizer.ggml.tokens", id);
        if (piece.bytes > TOKEN_MAX_PATTERN)
            return error_set(err, LAMINA_E_FORMAT, "%s: piece %llu has %llu bytes", gguf_name, (unsigned long long)id,
                             (unsigned long long)piece.bytes);
        if (piece.bytes == 0) continue;
        TRY(builder_piece(b, id, piece.data, (size_t)piece.bytes, err));
    }
    for (uint64_t id = 0; id < kinds; id++) {
        int64_t kind = gguf_int_at(g, "tokenizer.ggml.token_type", id);
        gguf_string piece = gguf_text_at(g, "tokenizer.ggml.tokens", id);
        if (kind != KIND_CONTROL && kind != KIND_USER_DEFINED && kind != KIND_UNKNOWN) continue;
        added_token token = {.text = {piece.data, (uint32_t)piece.bytes}, .special = kind != KIND_USER_DEFINED};
        TRY(builder_added(b, &token, err));
    }
    return LAMINA_OK;
}

/* The pieces that are no added tokens, in the order of their ids. */
static lamina_status imply_merges(builder *b, lamina_error *err)
{
    uint32_t *order = mem_array(b->m, MEM_TOKENIZER, b->n_ids, sizeof *order, err);
    if (!order) return no_memory(err);
    size_t n = 0;
    for (size_t id = 0; id < b->n_ids; id++) order[id] = (uint32_t)id;
    for (uint32_t i = 0; i < b->t->n_added; i++) order[b->t->added[i].id] = UINT32_MAX;
    for (size_t id = 0; id < b->n_ids; id++)
        if (order[id] != UINT32_MAX) order[n++] = (uint32_t)id;
    lamina_status status = builder_implied_merges(b, order, n, err);
    mem_free(b->m, order);
    return status;
}

static lamina_status add_merges(builder *b, const gguf *g, bool implied, lamina_error *err)
{
    uint64_t n = 0;
    if (implied && !gguf_text_array(g, "tokenizer.ggml.merges", &n)) return imply_merges(b, err);
    if (!gguf_text_array(g, "tokenizer.ggml.merges", &n))
        return error_set(err, LAMINA_E_FORMAT, "%s: no tokenizer.ggml.merges", gguf_name);
    for (uint64_t i = 0; i < n; i++) {
        gguf_string line = gguf_text_at(g, "tokenizer.ggml.merges", i);
        TRY(builder_merge_line(b, line.data, (size_t)line.bytes, err));
    }
    return LAMINA_OK;
}

static int32_t named_id(const builder *b, const gguf *g, const char *key)
{
    uint64_t id;
    return gguf_u64(g, key, &id) && id < b->n_ids ? (int32_t)id : -1;
}

static lamina_status read_gguf(builder *b, const gguf *g, lamina_error *err)
{
    gguf_string model = {"", 0};
    gguf_text(g, "tokenizer.ggml.model", &model);
    bool llama = model.bytes == 5 && memcmp(model.data, "llama", 5) == 0;
    if (llama || (model.bytes == 2 && memcmp(model.data, "t5", 2) == 0)) return gguf_read_scored(b, g, !llama, err);
    if (model.bytes != 4 || memcmp(model.data, "gpt2", 4) != 0)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: tokenizer.ggml.model \"%.*s\" is not supported", gguf_name,
                         (int)(model.bytes < 60 ? model.bytes : 60), model.data);
    unsigned flags;
    TRY(add_steps(b, g, &flags, err));
    TRY(add_pieces(b, g, err));
    TRY(add_merges(b, g, flags & PRE_RANKS, err));
    bool bos = (flags & PRE_BOS) != 0, eos = false;
    b->t->bos = named_id(b, g, "tokenizer.ggml.bos_token_id");
    b->t->eos = named_id(b, g, "tokenizer.ggml.eos_token_id");
    gguf_bool(g, "tokenizer.ggml.add_bos_token", &bos);
    gguf_bool(g, "tokenizer.ggml.add_eos_token", &eos);
    if (bos && b->t->bos >= 0) TRY(builder_around(b, true, b->t->bos, err));
    if (eos && b->t->eos >= 0) TRY(builder_around(b, false, b->t->eos, err));
    return tokenizer_read_texts_gguf(b->t, g, err);
}

lamina_status tokenizer_from_gguf(memory *m, const gguf *g, tokenizer **out, lamina_error *err)
{
    builder b;
    *out = NULL;
    lamina_status status = builder_begin(m, gguf_name, &b, err);
    if (status == LAMINA_OK) status = read_gguf(&b, g, err);
    if (status == LAMINA_OK) status = builder_finish(&b, out, err);
    builder_end(&b);
    return status;
}

/* Vocabularies of ranks: tiktoken's files (a line per piece: base64, a space, the rank) and Mistral's tekken.json.
 *
 * A piece's rank is its id and its merge's priority: two neighbours that spell a piece may become it. What such a file
 * leaves to the model's own code (the pattern, special tokens, what stands before a text) is in the table below, chosen
 * by the file's name and the tokenizer's class; an unknown class is refused. Special tokens that tokenizer_config.json
 * lists take the place of the table's. Sources of the facts: the tokenization files published with QWen, Llama 3,
 * GLM-4, Kimi K2, and mistral-common. */
#include <stdio.h>
#include <string.h>

#include "format/jsonpull.h"
#include "format/tokenizer_internal.h"
#include "format/tokenizer_patterns.h"

/* ---- what each family's code says --------------------------------------------------------------------------- */

typedef struct rank_family {
    const char *class; /* tokenizer_class */
    const char *pattern;
    const char *named;       /* special tokens behind the ranks, in order, separated by spaces */
    const char *reserved;    /* ... and how those after them are spelt, by their number */
    uint32_t reserved_first; /* the first one's number; UINT32_MAX: the number is the id */
    uint32_t n_special;      /* all together */
    const char *before[2];   /* around a text */
    const char *bos, *eos;
    bool nfc; /* of the whole text, special tokens included */
} rank_family;

static const rank_family families[] = {
    {.class = "QWenTokenizer",
     .pattern = PATTERN_QWEN2,
     .named = "<|endoftext|> <|im_start|> <|im_end|>",
     .reserved = "<|extra_%u|>",
     .n_special = 208,
     .eos = "<|endoftext|>",
     .nfc = true},
    {.class = "Llama3",
     .pattern = PATTERN_LLAMA3,
     .named = "<|begin_of_text|> <|end_of_text|> <|reserved_special_token_0|> <|reserved_special_token_1|> "
              "<|reserved_special_token_2|> <|reserved_special_token_3|> <|start_header_id|> <|end_header_id|> "
              "<|reserved_special_token_4|> <|eot_id|>",
     .reserved = "<|reserved_special_token_%u|>",
     .reserved_first = 5,
     .n_special = 256,
     .before = {"<|begin_of_text|>"},
     .bos = "<|begin_of_text|>",
     .eos = "<|end_of_text|>"},
    {.class = "ChatGLM4Tokenizer",
     .pattern = PATTERN_LLAMA3,
     .named = "<|endoftext|> [MASK] [gMASK] [sMASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|> "
              "<|begin_of_image|> <|end_of_image|> <|begin_of_video|> <|end_of_video|>",
     .n_special = 14,
     .before = {"[gMASK]", "<sop>"},
     .eos = "<|endoftext|>"},
    {.class = "TikTokenTokenizer",
     .pattern = PATTERN_KIMI,
     .named = "[BOS] [EOS]",
     .reserved = "<|reserved_token_%u|>",
     .reserved_first = UINT32_MAX,
     .n_special = 258,
     .bos = "[BOS]",
     .eos = "[EOS]"},
};

/* Classes under which Llama 3's original file travels. */
static bool is_llama3_class(const char *class)
{
    static const char *const names[] = {"PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizer",
                                        "LlamaTokenizerFast", "PreTrainedTokenizer"};
    if (!class[0]) return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(class, names[i]) == 0) return true;
    return false;
}

static const rank_family *find_family(const tokenizer_files *files, const char *class)
{
    if (strcmp(files->ranks_name, "qwen.tiktoken") == 0) class = "QWenTokenizer";
    if (strcmp(files->ranks_name, "tiktoken.model") == 0) class = "TikTokenTokenizer";
    if (is_llama3_class(class)) class = "Llama3";
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].class, class) == 0) return &families[i];
    return NULL;
}

/* ---- base64 ------------------------------------------------------------------------------------------------- */

static int base64_digit(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(const char *text, size_t bytes, char *out, size_t *out_bytes)
{
    size_t pad = 0, n = 0;
    while (pad < 2 && pad < bytes && text[bytes - 1 - pad] == '=') pad++;
    if (bytes % 4 != 0) return false;
    uint32_t word = 0;
    for (size_t i = 0; i < bytes; i++) {
        int digit = i < bytes - pad ? base64_digit((unsigned char)text[i]) : 0;
        if (digit < 0) return false;
        word = word << 6 | (uint32_t)digit;
        if (i % 4 != 3) continue;
        out[n++] = (char)(word >> 16);
        out[n++] = (char)(word >> 8);
        out[n++] = (char)word;
        word = 0;
    }
    *out_bytes = n - pad;
    return true;
}

static lamina_status add_piece(builder *b, uint64_t id, const char *text, size_t bytes, text_buffer *raw,
                               lamina_error *err)
{
    raw->bytes = 0;
    TRY(buffer_reserve(b->m, raw, bytes + 3, err));
    if (bytes > TOKEN_MAX_PATTERN || !base64_decode(text, bytes, raw->data, &raw->bytes) || raw->bytes == 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: piece %llu is not base64: \"%.*s\"", b->name,
                         (unsigned long long)id, (int)(bytes < 60 ? bytes : 60), text);
    return builder_piece(b, id, raw->data, raw->bytes, err);
}

/* ---- lines of ranks ----------------------------------------------------------------------------------------- */

typedef struct rank_line {
    const char *text;
    size_t bytes;
    uint64_t rank;
} rank_line;

/* The line at *at; moves behind it. false: it is not a piece and a rank. */
static bool read_line(const char *text, size_t bytes, size_t *at, rank_line *line)
{
    const char *begin = text + *at, *newline = memchr(begin, '\n', bytes - *at);
    size_t n = newline ? (size_t)(newline - begin) : bytes - *at;
    *at += n + (newline != NULL);
    if (n && begin[n - 1] == '\r') n--;
    const char *space = memchr(begin, ' ', n);
    *line = (rank_line){.text = begin, .bytes = space ? (size_t)(space - begin) : 0};
    size_t first = line->bytes + 1;
    if (!space || first >= n || n - first > 9) return false;
    for (size_t i = first; i < n; i++) {
        if (begin[i] < '0' || begin[i] > '9') return false;
        line->rank = line->rank * 10 + (uint64_t)(begin[i] - '0');
    }
    return true;
}

bool tokenizer_is_ranks(const char *text, size_t bytes)
{
    rank_line line;
    size_t at = 0;
    bool is = bytes > 0 && read_line(text, bytes < 4096 ? bytes : 4096, &at, &line) && line.bytes >= 4;
    for (size_t i = 0; is && i < line.bytes; i++)
        is = base64_digit((unsigned char)line.text[i]) >= 0 || line.text[i] == '=';
    return is;
}

static lamina_status add_lines(builder *b, const char *text, size_t bytes, lamina_error *err)
{
    text_buffer raw = {0};
    lamina_status status = LAMINA_OK;
    size_t number = 0;
    for (size_t at = 0; at < bytes && status == LAMINA_OK;) {
        rank_line line;
        number++;
        if (text[at] == '\n') {
            at++;
        } else if (read_line(text, bytes, &at, &line)) {
            status = add_piece(b, line.rank, line.text, line.bytes, &raw, err);
        } else {
            status = error_set(err, LAMINA_E_FORMAT, "%s: line %zu is not a piece and its rank", b->name, number);
        }
    }
    mem_free(b->m, raw.data);
    return status;
}

/* Ids in the order of rank, which they are, and the merges that they imply. Every byte must be a piece. */
static lamina_status add_implied(builder *b, lamina_error *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        if (builder_find(b, &c, 1) < 0)
            return error_set(err, LAMINA_E_FORMAT, "%s: byte 0x%02x has no rank", b->name, byte);
    }
    uint32_t *order = mem_array(b->m, MEM_TOKENIZER, b->n_ids, sizeof *order, err);
    if (!order) return no_memory(err);
    for (size_t i = 0; i < b->n_ids; i++) order[i] = (uint32_t)i;
    lamina_status status = builder_implied_merges(b, order, b->n_ids, err);
    mem_free(b->m, order);
    return status;
}

/* ---- special tokens ----------------------------------------------------------------------------------------- */

static lamina_status add_special(builder *b, const rank_family *f, uint32_t id, const char *text, size_t bytes,
                                 lamina_error *err)
{
    added_token token = {.text = {text, (uint32_t)bytes}, .id = id, .special = true, .normalized = f->nfc};
    return builder_added_at(b, &token, err);
}

/* The family's own, behind the ranks, where the configuration has not spoken for an id or a spelling. */
static lamina_status add_specials(builder *b, const rank_family *f, uint32_t first, lamina_error *err)
{
    const char *name = f->named;
    uint32_t named = 0;
    for (uint32_t i = 0; i < f->n_special; i++) {
        char spelt[64];
        const char *text = spelt;
        size_t bytes = strcspn(name, " ");
        if (bytes) {
            text = name;
            name += bytes + (name[bytes] == ' ');
            named++;
        } else {
            uint32_t number = f->reserved_first == UINT32_MAX ? first + i : f->reserved_first + i - named;
            const char *mark = strchr(f->reserved, '%');
            int n = snprintf(spelt, sizeof spelt, "%.*s%u%s", (int)(mark - f->reserved), f->reserved, number, mark + 2);
            bytes = (size_t)n;
        }
        if (builder_has(b, first + i) || builder_token(b, text, bytes) >= 0) continue;
        TRY(add_special(b, f, first + i, text, bytes, err));
    }
    return LAMINA_OK;
}

static lamina_status add_ends(builder *b, const rank_family *f, lamina_error *err)
{
    for (unsigned i = 0; i < 2 && f->before[i]; i++) {
        int32_t id = builder_token(b, f->before[i], strlen(f->before[i]));
        if (id < 0)
            return error_set(err, LAMINA_E_FORMAT, "%s: the special token %s is missing", b->name, f->before[i]);
        TRY(builder_around(b, true, id, err));
    }
    if (f->bos && b->t->bos < 0) b->t->bos = builder_token(b, f->bos, strlen(f->bos));
    if (f->eos && b->t->eos < 0) b->t->eos = builder_token(b, f->eos, strlen(f->eos));
    return LAMINA_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static lamina_status begin_bytes(builder *b, const char *regex, size_t bytes, bool nfc, lamina_error *err)
{
    splitter_step step = {.kind = SPLITTER_PATTERN, .behavior = SPLIT_ISOLATED};
    b->raw = true;
    b->t->bpe.ignore_merges = true; /* a word that is a piece is that piece, however it would merge */
    if (nfc) TRY(builder_normalizer(b, &(normalizer_step){.kind = NORMALIZE_NFC, .left = true}, err));
    TRY(builder_text(b, regex, bytes, &step.find.source, err));
    TRY(builder_splitter(b, &step, err));
    TRY(builder_byte_level(b, false, false, err));
    return builder_decoder(b, &(decoder_step){.kind = DECODE_BYTES}, err);
}

static lamina_status read_ranks(builder *b, const tokenizer_files *files, lamina_error *err)
{
    char class[64];
    TRY(tokenizer_config_class(b->m, files, class, sizeof class, err));
    const rank_family *f = find_family(files, class);
    if (!f)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a file of ranks for tokenizer_class \"%s\" is not supported",
                         b->name, class);
    TRY(begin_bytes(b, f->pattern, strlen(f->pattern), f->nfc, err));
    TRY(add_lines(b, files->ranks, files->ranks_bytes, err));
    TRY(add_implied(b, err));
    uint32_t first = (uint32_t)b->n_ids;
    TRY(tokenizer_read_config(b, files, true, err));
    TRY(add_specials(b, f, first, err));
    TRY(add_ends(b, f, err));
    return tokenizer_read_texts(b->t, files, err);
}

lamina_status tokenizer_read_ranks(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err)
{
    builder b;
    lamina_status status = builder_begin(m, files->ranks_name, &b, err);
    if (status == LAMINA_OK) status = read_ranks(&b, files, err);
    if (status == LAMINA_OK) status = builder_finish(&b, out, err);
    builder_end(&b);
    return status;
}

/* ---- tekken.json -------------------------------------------------------------------------------------------- */

/* Special tokens of files that do not list their own. */
static const char tekken_named[] = "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] "
                                   "[/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] "
                                   "[SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]";

static lamina_status need(const builder *b, const jp *at, const char *key, jp *value, lamina_error *err)
{
    bool found;
    TRY(jp_member(at, key, &found, value, err));
    return found ? LAMINA_OK : error_set(err, LAMINA_E_FORMAT, "%s: no \"%s\"", b->name, key);
}

static lamina_status need_count(const builder *b, const jp *at, const char *key, uint32_t *out, lamina_error *err)
{
    jp value;
    int64_t n;
    TRY(need(b, at, key, &value, err));
    TRY(jp_integer(&value, &n, err));
    if (n < 0 || n > TOKEN_MAX_IDS)
        return error_set(err, LAMINA_E_FORMAT, "%s: \"%s\" is %lld", b->name, key, (long long)n);
    *out = (uint32_t)n;
    return LAMINA_OK;
}

/* [{"rank": 0, "token_str": "<unk>", ...}]: their ids are their ranks. */
static lamina_status add_listed(builder *b, const jp *list, uint32_t n_special, lamina_error *err)
{
    jp in, value;
    TRY(jp_enter(list, JP_ARRAY, &in, err));
    for (; jp_next_item(&in); jp_skip(&in)) {
        added_token token = {.special = true};
        jp_text text;
        TRY(need_count(b, &in, "rank", &token.id, err));
        TRY(need(b, &in, "token_str", &value, err));
        TRY(jp_string(&value, &text, err));
        if (token.id >= n_special || text.bytes > TOKEN_MAX_PATTERN)
            return error_set(err, LAMINA_E_FORMAT, "%s: special token %u of %u", b->name, token.id, n_special);
        token.text = (text_span){text.data, (uint32_t)text.bytes};
        TRY(builder_added_at(b, &token, err));
    }
    return LAMINA_OK;
}

/* Special tokens come first; ids that nobody names are <SPECIAL_n>. */
static lamina_status add_tekken_specials(builder *b, const jp *root, uint32_t n_special, lamina_error *err)
{
    jp list;
    bool listed;
    TRY(jp_member(root, "special_tokens", &listed, &list, err));
    if (listed) TRY(add_listed(b, &list, n_special, err));
    const char *name = listed ? "" : tekken_named;
    for (uint32_t id = 0; id < n_special; id++) {
        char spelt[32];
        size_t bytes = strcspn(name, " ");
        added_token token = {.text = {name, (uint32_t)bytes}, .id = id, .special = true};
        name += bytes + (name[bytes] == ' ');
        if (!bytes) token.text = (text_span){spelt, (uint32_t)snprintf(spelt, sizeof spelt, "<SPECIAL_%u>", id)};
        if (!builder_has(b, id)) TRY(builder_added_at(b, &token, err));
    }
    return LAMINA_OK;
}

static lamina_status add_tekken_pieces(builder *b, const jp *root, uint32_t n_special, uint32_t n_pieces,
                                       lamina_error *err)
{
    jp list, in, value;
    text_buffer raw = {0};
    TRY(need(b, root, "vocab", &list, err));
    TRY(jp_enter(&list, JP_ARRAY, &in, err));
    lamina_status status = LAMINA_OK;
    for (; status == LAMINA_OK && jp_next_item(&in); jp_skip(&in)) {
        uint32_t rank = 0;
        jp_text text = {0};
        status = need_count(b, &in, "rank", &rank, err);
        if (status == LAMINA_OK && rank >= n_pieces) continue;
        if (status == LAMINA_OK) status = need(b, &in, "token_bytes", &value, err);
        if (status == LAMINA_OK) status = jp_string(&value, &text, err);
        if (status == LAMINA_OK) status = add_piece(b, (uint64_t)rank + n_special, text.data, text.bytes, &raw, err);
    }
    mem_free(b->m, raw.data);
    return status;
}

static lamina_status read_tekken(builder *b, const jp *root, lamina_error *err)
{
    jp config, value;
    jp_text regex;
    uint32_t n_ids, n_special;
    TRY(need(b, root, "config", &config, err));
    TRY(need_count(b, &config, "default_vocab_size", &n_ids, err));
    TRY(need_count(b, &config, "default_num_special_tokens", &n_special, err));
    if (n_special > n_ids || n_special > 1u << 16)
        return error_set(err, LAMINA_E_FORMAT, "%s: %u special tokens of %u", b->name, n_special, n_ids);
    TRY(need(b, &config, "pattern", &value, err));
    TRY(jp_string(&value, &regex, err));
    TRY(begin_bytes(b, regex.data, regex.bytes, false, err));
    TRY(add_tekken_pieces(b, root, n_special, n_ids - n_special, err));
    TRY(add_implied(b, err));
    TRY(add_tekken_specials(b, root, n_special, err));
    b->t->bos = builder_token(b, "<s>", 3);
    b->t->eos = builder_token(b, "</s>", 4);
    return b->t->bos >= 0 ? builder_around(b, true, b->t->bos, err) : LAMINA_OK;
}

lamina_status tokenizer_read_tekken(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err)
{
    jp_document document;
    jp root;
    builder b;
    TRY(jp_open(m, MEM_TOKENIZER, "tekken.json", files->tekken, files->tekken_bytes, &document, &root, err));
    lamina_status status = builder_begin(m, "tekken.json", &b, err);
    if (status == LAMINA_OK) status = read_tekken(&b, &root, err);
    if (status == LAMINA_OK) status = tokenizer_read_texts(b.t, files, err);
    jp_close(&document);
    if (status == LAMINA_OK) status = builder_finish(&b, out, err);
    builder_end(&b);
    return status;
}

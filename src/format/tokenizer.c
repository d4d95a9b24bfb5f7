/* Text to ids: the pipeline, and the tokenizer's life.
 *
 * A tokenizer is immutable; all that a call changes is in its encoder, on the caller's account, and is given back when
 * the call returns. Text that is not UTF-8 is made so first (U+FFFD for each maximal wrong part), so that everything
 * behind it may rely on it. */
#include "format/tokenizer_internal.h"

#include <string.h>

#include "base/os.h"
#include "format/tokenizer_unicode.h"

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    for (uint32_t i = 0; i < t->n_normalizers; i++) regex_free(&t->normalizers[i].find);
    for (uint32_t i = 0; i < t->n_splitters; i++) regex_free(&t->splitters[i].find);
    mem_free(t->m, t->added);
    mem_free(t->m, t->raw.entries);
    mem_free(t->m, t->normalized.entries);
    mem_free(t->m, t->vocab.offset);
    mem_free(t->m, t->vocab.text);
    mem_free(t->m, t->vocab.flags);
    mem_free(t->m, t->vocab.piece_table);
    mem_free(t->m, t->bpe.merged);
    mem_free(t->m, t->bpe.pair_table);
    mem_free(t->m, t->scored.score);
    mem_free(t->m, t->scored.rank);
    mem_free(t->m, t->scored.trie);
    mem_free(t->m, t->user.entries);
    mem_free(t->m, t->before);
    mem_free(t->m, t->after);
    pcre2_general_context_free(t->general);
    arena_free(t->strings);
    mem_free(t->m, t);
}

uint32_t tokenizer_vocab(const tokenizer *t)
{
    return t->vocab.n_ids;
}

int32_t tokenizer_bos(const tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t)
{
    return t->eos;
}

/* ---- encoding ----------------------------------------------------------------------------------------------- */

lamina_status encoder_emit(encoder *e, uint32_t id)
{
    if (e->n_ids == e->capacity) {
        size_t want = e->capacity + e->capacity / 2 + 64;
        int32_t *grown = mem_resize(e->m, MEM_TOKENIZER, e->ids, want * sizeof *grown, e->err);
        if (!grown) return no_memory(e->err);
        e->ids = grown;
        e->capacity = want;
    }
    e->ids[e->n_ids++] = (int32_t)id;
    return LAMINA_OK;
}

/* A text without raw added tokens; `first`: the whole text begins with it. */
static lamina_status encode_gap(encoder *e, const char *text, size_t bytes, bool first)
{
    if (bytes == 0) return LAMINA_OK;
    const tokenizer *t = e->t;
    e->at_begin = first;
    TRY(normalize(e, text, bytes, &text, &bytes));
    added_cursor c = {0};
    added_match match;
    size_t done = 0;
    while (added_next(t, &t->normalized, e->plain, text, bytes, &c, &match)) {
        if (done < match.begin) TRY(pretokenize(e, text + done, match.begin - done));
        TRY(encoder_emit(e, match.token->id));
        done = match.end;
        e->at_begin = false;
    }
    return done < bytes ? pretokenize(e, text + done, bytes - done) : LAMINA_OK;
}

static lamina_status encode_text(encoder *e, const char *text, size_t bytes, bool around)
{
    const tokenizer *t = e->t;
    for (uint32_t i = 0; around && i < t->n_before; i++) TRY(encoder_emit(e, t->before[i]));
    added_cursor c = {0};
    added_match match;
    size_t done = 0;
    while (added_next(t, &t->raw, e->plain, text, bytes, &c, &match)) {
        if (done < match.begin) TRY(encode_gap(e, text + done, match.begin - done, done == 0));
        TRY(encoder_emit(e, match.token->id));
        done = match.end;
    }
    if (done < bytes) TRY(encode_gap(e, text + done, bytes - done, done == 0));
    for (uint32_t i = 0; around && i < t->n_after; i++) TRY(encoder_emit(e, t->after[i]));
    return LAMINA_OK;
}

/* A copy in which each maximal part that is not UTF-8 is U+FFFD. */
static lamina_status make_utf8(memory *m, const char *text, size_t bytes, text_buffer *out, lamina_error *err)
{
    for (size_t at = 0; at < bytes;) {
        size_t good = utf8_valid(text + at, bytes - at);
        TRY(buffer_append(m, out, text + at, good, err));
        at += good;
        if (at == bytes) break;
        uint32_t wrong;
        utf8_read(text + at, bytes - at, &wrong);
        TRY(buffer_append(m, out, "\xef\xbf\xbd", 3, err));
        at += wrong & ~UTF8_INCOMPLETE;
    }
    return LAMINA_OK;
}

static void encoder_free(encoder *e)
{
    regex_scratch_free(&e->regex);
    for (unsigned i = 0; i < 2; i++) mem_free(e->m, e->normal[i].data);
    for (unsigned i = 0; i < TOKEN_MAX_STEPS; i++) mem_free(e->m, e->step[i].data);
    for (unsigned i = 0; i <= TOKEN_MAX_STEPS; i++) mem_free(e->m, e->seen[i].data);
    mem_free(e->m, e->bytes.data);
    mem_free(e->m, e->word.data);
    mem_free(e->m, e->points);
    mem_free(e->m, e->symbols);
    mem_free(e->m, e->heap);
    mem_free(e->m, e->scored);
    mem_free(e->m, e->unused);
    mem_free(e->m, e->path);
    mem_free(e->m, e->pieces);
    mem_free(e->m, e->cache);
}

static lamina_status encoder_new(encoder *e, size_t bytes)
{
    TRY(regex_scratch_new(e->m, &e->regex, e->err));
    e->capacity = bytes / 4 + 64;
    e->ids = mem_array(e->m, MEM_TOKENIZER, e->capacity, sizeof *e->ids, e->err);
    if (!e->ids) return no_memory(e->err);
    bool words = e->t->n_splitters || e->t->bpe.cuts || (e->t->kind == MODEL_SCORED && e->t->scored.cuts);
    if (bytes < 4096 || !words) return LAMINA_OK; /* too short to repeat itself, or all one word */
    e->cache = mem_array(e->m, MEM_TOKENIZER, WORD_CACHE_SIZE, sizeof *e->cache, e->err);
    return e->cache ? LAMINA_OK : no_memory(e->err);
}

lamina_status tokenizer_encode(const tokenizer *t, memory *m, const char *text, size_t bytes, unsigned flags,
                               int32_t **ids, size_t *n_ids, lamina_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    encoder e = {.t = t, .m = m, .err = err, .plain = (flags & LAMINA_PLAIN) != 0};
    text_buffer valid = {0};
    lamina_status status = LAMINA_OK;
    if (utf8_valid(text, bytes) < bytes) {
        status = make_utf8(m, text, bytes, &valid, err);
        text = valid.data;
        bytes = valid.bytes;
    }
    if (status == LAMINA_OK) status = encoder_new(&e, bytes);
    if (status == LAMINA_OK) status = encode_text(&e, text, bytes, !(flags & LAMINA_NO_SPECIAL));
    encoder_free(&e);
    mem_free(m, valid.data);
    if (status != LAMINA_OK) {
        mem_free(m, e.ids);
        return status;
    }
    *ids = e.ids;
    *n_ids = e.n_ids;
    return LAMINA_OK;
}

/* ---- finding the files -------------------------------------------------------------------------------------- */

enum { MAX_TOKENIZER_FILE = 1 << 28, MAX_CONFIG_FILE = 1 << 24 };

static lamina_status read_if_there(memory *m, const char *folder, const char *name, size_t limit, char **text,
                                   size_t *bytes, lamina_error *err)
{
    char path[4096];
    size_t n = strlen(folder);
    *text = NULL;
    *bytes = 0;
    if (n + strlen(name) + 2 > sizeof path) return error_set(err, LAMINA_E_USAGE, "the path is too long: %s", folder);
    memcpy(path, folder, n);
    path[n] = '/';
    strcpy(path + n + 1, name);
    if (!os_exists(path)) return LAMINA_OK;
    return os_read_file(m, path, limit, text, bytes, err);
}

static lamina_status no_tokenizer(const char *folder, lamina_error *err)
{
    static const char *const others[] = {"qwen.tiktoken", "vocab.json", "vocab.txt"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char path[4096];
        size_t n = strlen(folder), k = strlen(others[i]);
        if (n + k + 2 > sizeof path) break;
        memcpy(path, folder, n);
        path[n] = '/';
        memcpy(path + n + 1, others[i], k + 1);
        if (os_exists(path))
            return error_set(err, LAMINA_E_UNSUPPORTED, "%s: only %s is there, tokenizer.json is what is read", folder,
                             others[i]);
    }
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s: no tokenizer.json", folder);
}

lamina_status tokenizer_from_folder(memory *m, const char *path, tokenizer **out, lamina_error *err)
{
    *out = NULL;
    tokenizer_files f = {0};
    struct {
        const char *name, *text;
        size_t bytes;
    } ranks[3] = {{"qwen.tiktoken", NULL, 0}, {"tiktoken.model", NULL, 0}, {"tokenizer.model", NULL, 0}};
    const struct {
        const char *name;
        size_t limit, *bytes;
        const char **text;
    } wanted[] = {
        {"tokenizer.json", MAX_TOKENIZER_FILE, &f.json_bytes, &f.json},
        {"tokenizer_config.json", MAX_CONFIG_FILE, &f.config_bytes, &f.config},
        {"special_tokens_map.json", MAX_CONFIG_FILE, &f.special_bytes, &f.special},
        {"config.json", MAX_CONFIG_FILE, &f.model_bytes, &f.model},
        {"chat_template.jinja", MAX_CONFIG_FILE, &f.chat_bytes, &f.chat},
        {"chat_template.json", MAX_CONFIG_FILE, &f.chat_json_bytes, &f.chat_json},
        {"additional_chat_templates/tool_use.jinja", MAX_CONFIG_FILE, &f.tool_use_bytes, &f.tool_use},
        {"tekken.json", MAX_TOKENIZER_FILE, &f.tekken_bytes, &f.tekken},
        {"qwen.tiktoken", MAX_TOKENIZER_FILE, &ranks[0].bytes, &ranks[0].text},
        {"tiktoken.model", MAX_TOKENIZER_FILE, &ranks[1].bytes, &ranks[1].text},
        {"tokenizer.model", MAX_TOKENIZER_FILE, &ranks[2].bytes, &ranks[2].text},
    };
    enum { WANTED = sizeof wanted / sizeof *wanted };
    char *texts[WANTED] = {NULL};
    lamina_status status = LAMINA_OK;
    for (size_t i = 0; i < WANTED && status == LAMINA_OK; i++) {
        status = read_if_there(m, path, wanted[i].name, wanted[i].limit, &texts[i], wanted[i].bytes, err);
        *wanted[i].text = texts[i];
    }
    for (size_t i = 0; i < 3 && !f.ranks; i++) {
        if (!ranks[i].text || !tokenizer_is_ranks(ranks[i].text, ranks[i].bytes)) continue;
        f.ranks = ranks[i].text;
        f.ranks_name = ranks[i].name;
        f.ranks_bytes = ranks[i].bytes;
    }
    if (!f.ranks) {
        f.sp = ranks[2].text;
        f.sp_bytes = ranks[2].bytes;
    }
    if (status == LAMINA_OK)
        status = f.json     ? tokenizer_read_json(m, &f, out, err)
                 : f.tekken ? tokenizer_read_tekken(m, &f, out, err)
                 : f.ranks  ? tokenizer_read_ranks(m, &f, out, err)
                 : f.sp     ? tokenizer_read_sentencepiece(m, &f, out, err)
                            : no_tokenizer(path, err);
    for (size_t i = 0; i < WANTED; i++) mem_free(m, texts[i]);
    return status;
}

lamina_status tokenizer_of(memory *m, const checkpoint *c, tokenizer **out, lamina_error *err)
{
    *out = NULL;
    lamina_status status;
    char folder[4096];
    const char *slash = strrchr(c->path, '/');
    size_t n = slash ? (size_t)(slash - c->path) : 0;
    if (c->kind == CHECKPOINT_GGUF) {
        status = tokenizer_from_gguf(m, c->metadata, out, err);
    } else if (os_is_dir(c->path)) {
        status = tokenizer_from_folder(m, c->path, out, err);
    } else if (n < sizeof folder) { /* a config.json: its folder */
        memcpy(folder, slash ? c->path : ".", slash ? n : 2);
        folder[slash ? n : 1] = '\0';
        status = tokenizer_from_folder(m, n == 0 && slash ? "/" : folder, out, err);
    } else {
        status = error_set(err, LAMINA_E_UNSUPPORTED, "the path is too long: %s", c->path);
    }
    return status == LAMINA_E_MEMORY || status == LAMINA_E_BUDGET ? status : LAMINA_OK;
}

/* The inside of a tokenizer: a pipeline of steps as data. Text passes through
 *
 *   added tokens (raw) -> normalizer steps -> added tokens (normalized) -> pre-tokenizer steps -> model -> template
 *
 * and ids through decoder steps. Each step is a tagged struct; a new kind of step is a new tag and one case. Readers
 * (tokenizer.json, GGUF, the compact form) fill the same structs through the builder; after tokenizer_seal() nothing
 * changes any more. */
#ifndef LAMINA_FORMAT_TOKENIZER_INTERNAL_H
#define LAMINA_FORMAT_TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "format/tokenizer.h"

#define SCORE_LIMIT 1e20 /* of a piece; sums of them stay within single precision */

enum {
    TOKEN_ID_BITS = 21,                       /* ids share words with ranks and tags, see pair_table, piece_table */
    TOKEN_MAX_IDS = (1 << TOKEN_ID_BITS) - 1, /* 2 million: eight times the largest vocabulary known */
    TOKEN_MAX_MERGES = (1 << 22) - 1,
    TOKEN_MAX_STEPS = 32,        /* of each pipeline */
    TOKEN_MAX_PATTERN = 1 << 16, /* bytes of a regular expression or replacement */
    TOKEN_MAX_AFFIX = 32,        /* bytes of "##", "</w>" and their like */
    TOKEN_MAX_WORD = 1024,       /* characters of a word that WordPiece looks into */
    TOKEN_MAX_TEXTS = 256,       /* special tokens and templates */
    TOKEN_MAX_TEXT = 1 << 24,    /* bytes of one */
    TOKEN_TEXT_NAME = 128,       /* bytes of its name and the NUL */
    TOKEN_MAX_PROBE = 4096,      /* longer runs in a hash table are an attack, not a vocabulary */
    TOKEN_MAX_GROWTH = 64,       /* a normalized text has at most so many times the bytes of a text, and ... */
    TOKEN_MAX_SURPLUS = 1 << 16, /* ... these */
    TOKEN_MAX_RULE = 1024,       /* bytes of what a charsmap's rule replaces, and of what it puts there */
    TOKEN_MAX_DECODING = 1 << 20 /* bytes that the decoder's steps look at for one id */
};

typedef struct text_span {
    const char *data;
    uint32_t bytes;
} text_span; /* UTF-8, NUL-terminated beyond its bytes */

/* A pattern: what is searched for in Split and Replace. */
typedef struct pattern {
    text_span source; /* Oniguruma's syntax, as tokenizer.json writes it; literal: the text itself */
    bool literal;
    pcre2_code *code;
} pattern;

typedef enum normalizer_kind {
    NORMALIZE_NFC, /* forms; left: by today's Unicode, not the one that Hugging Face's tokenizers has */
    NORMALIZE_NFD,
    NORMALIZE_NFKC,
    NORMALIZE_NFKD,
    NORMALIZE_LOWERCASE,
    NORMALIZE_REPLACE,          /* pattern -> content */
    NORMALIZE_PREPEND,          /* content before a text that is not empty */
    NORMALIZE_STRIP,            /* white space at the left, right end */
    NORMALIZE_STRIP_ACCENTS,    /* marks vanish; left: only those without width (Mn) */
    NORMALIZE_CLEAN,            /* controls vanish, white space becomes a space (BertNormalizer) */
    NORMALIZE_SPACE_IDEOGRAPHS, /* a space on both sides of each (BertNormalizer) */
    NORMALIZE_NMT,              /* some controls vanish, some become a space */
    NORMALIZE_BYTE_CHARS,       /* bytes spelt in GPT-2's alphabet */
    NORMALIZE_CHARSMAP,         /* tokenizer.charsmap, by grapheme clusters as tokenizer.json's Precompiled */
    NORMALIZE_SENTENCEPIECE,    /* tokenizer.charsmap and spaces, as sentencepiece; see SP_ flags */
    NORMALIZE_KINDS
} normalizer_kind;

enum {
    SP_PREFIX = 1,  /* a space before a text */
    SP_SUFFIX = 2,  /* that space goes behind it */
    SP_SQUEEZE = 4, /* of a run of spaces one remains, none at the ends */
    SP_ESCAPE = 8,  /* spaces are spelt U+2581 */
    SP_FIRST = 16   /* SP_PREFIX only at the whole text's begin, not behind an added token */
};

typedef struct normalizer_step {
    normalizer_kind kind;
    bool left, right;
    uint32_t flags; /* SP_ of NORMALIZE_SENTENCEPIECE */
    pattern find;
    text_span content;
} normalizer_step;

typedef enum split_behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS,
    SPLIT_BEHAVIORS
} split_behavior;

typedef enum splitter_kind {
    SPLITTER_PATTERN,
    SPLITTER_DIGITS, /* N; behaviour says whether one by one */
    SPLITTER_PUNCTUATION,
    SPLITTER_PREFIX_SPACE, /* ByteLevel's add_prefix_space: a space before a piece that has none */
    SPLITTER_BYTE_CHARS,   /* bytes spelt in GPT-2's alphabet, for the steps behind it */
    SPLITTER_SPACES,       /* white space */
    SPLITTER_WORDS,        /* runs of \w and runs of what is neither \w nor white space; white space vanishes */
    SPLITTER_LENGTH,       /* `length` characters a piece */
    SPLITTER_METASPACE,    /* spaces become find.source, which is put before a piece as `prepend` says */
    SPLITTER_KINDS
} splitter_kind;

typedef enum prepend_scheme {
    PREPEND_ALWAYS,
    PREPEND_FIRST, /* before the piece at the text's begin only */
    PREPEND_NEVER,
    PREPEND_SCHEMES
} prepend_scheme;

typedef struct splitter_step {
    splitter_kind kind;
    split_behavior behavior;
    bool invert;
    prepend_scheme prepend;
    uint32_t length; /* > 0 for SPLITTER_LENGTH */
    pattern find;
} splitter_step;

typedef enum decoder_kind {
    DECODE_BYTES,         /* pieces are bytes (byte-level models) */
    DECODE_REPLACE,       /* find.source (literal) -> content, in each piece */
    DECODE_BYTE_FALLBACK, /* <0xNN> -> that byte */
    DECODE_FUSE,          /* from here on the text is one */
    DECODE_STRIP,         /* behind FUSE: at most one `content` at the text's begin; else up to `start` of them at each
                             piece's begin and `stop` at its end */
    DECODE_METASPACE,     /* find.source -> a space; in the first piece nothing where `first_bare` */
    DECODE_WORDPIECE,     /* `find` continues a word, all else but the first piece begins one; cleanup: BERT's */
    DECODE_WORD_END,      /* `find` at a piece's end is a space, unless nothing follows */
    DECODE_SPACED,        /* a space between pieces: what no decoder means */
    DECODE_SENTENCEPIECE, /* U+2581 is a space, the first of a text nothing where `first_bare` (all of them at its begin
                             where `cleanup`); the unknown token is `content`; <0xNN> -> that byte */
    DECODE_KINDS
} decoder_kind;

typedef struct decoder_step {
    decoder_kind kind;
    bool first_bare, cleanup;
    uint32_t start, stop;
    text_span find, content;
} decoder_step;

typedef struct added_token {
    text_span text;
    uint32_t id;
    bool special, lstrip, rstrip, normalized, single_word;
    text_span shown; /* what decoding spells, where normalizing changes the text; made by tokenizer_seal */
} added_token;

/* Leftmost-longest search for added tokens: their spellings sorted; a match narrows the range byte by byte. */
typedef struct matcher_entry {
    text_span text;
    uint32_t token; /* index into added */
} matcher_entry;
typedef struct matcher {
    matcher_entry *entries;
    uint32_t n;
    uint32_t first[257]; /* entries that begin with byte b: [first[b], first[b + 1]) */
} matcher;

enum {
    PIECE_PRESENT = 1,
    PIECE_LOOKUP = 2 /* the model finds it by its text */,
    PIECE_SPECIAL = 4,
    PIECE_RESPELT = 8 /* see added_token.shown */,
    PIECE_USER = 16 /* scored models: found before all else, and never merged */,
    PIECE_UNUSED = 32 /* scored models: may be merged further, is not given out */
};

/* Text of each id, and ids by text. For byte-level models a piece is its bytes, else as the file spells it. */
typedef struct vocabulary {
    uint32_t n_ids;   /* ids are below this */
    uint32_t *offset; /* [n_ids + 1] into text */
    char *text;
    uint8_t *flags;        /* [n_ids] */
    uint32_t *piece_table; /* open addressing: 11 bits of hash over 21 bits of id, inverted; 0: free */
    uint32_t piece_mask;
} vocabulary;

/* In merged[i]: this pair has the rank of the one before it, and makes the same piece. */
#define MERGE_SAME_RANK 0x80000000u

typedef struct bpe_model {
    uint32_t n_merges;
    uint32_t *merged;     /* [n_merges] id made by the merge of this rank; see MERGE_SAME_RANK */
    uint64_t *pair_table; /* open addressing: left 21 bits, right 21 bits, rank 22 bits, inverted; 0: free */
    uint64_t pair_mask;
    unsigned pair_shift;
    int32_t byte_id[256]; /* byte-level: id of each byte; byte fallback: id of <0xNN>; -1: none */
    int32_t unknown;      /* -1: none, unknown characters vanish */
    bool fuse_unknown, byte_fallback, ignore_merges;
    text_span continuing, word_end; /* affixes of symbols: of all but the first, of the last */
    bool cuts;                      /* no merge joins U+2581 to a character before it, unless that ends with ... */
    bool joined[256];               /* ... one of these bytes: texts are cut there. Made by bpe_seal. */
} bpe_model;

/* WordPiece: the longest piece first, from the left; `continuing` before all but the first. WordLevel: whole words. */
typedef struct word_model {
    int32_t unknown;    /* >= 0 */
    uint32_t max_chars; /* longer words are unknown */
    uint32_t longest;   /* bytes of the longest piece; made by tokenizer_seal */
    text_span continuing;
} word_model;

/* Prefixes of pieces: the children of a node stand together, by byte. */
typedef struct trie_node {
    uint32_t first; /* child; of a node without children whose piece goes on: what is left is compared, see tail */
    int32_t id;     /* -1: no piece ends here */
    uint16_t n;     /* children, at most 256 */
    uint16_t tail;  /* bytes of the piece behind this node */
    uint8_t byte;
} trie_node;

/* Pieces with scores (sentencepiece). MODEL_SCORED: of all neighbours that spell a piece the best one is merged first,
 * the leftmost of equals. MODEL_UNIGRAM: the segmentation of the greatest sum. The unknown token and the bytes' tokens
 * are those of bpe_model. */
typedef struct scored_model {
    double *score;        /* [n_ids], finite */
    double unknown_score; /* MODEL_UNIGRAM: of a character without a piece */
    bool single;          /* sums are of single precision, as sentencepiece's; else double, as HF's */
    bool refind;          /* what is unknown may, in one run, be a piece after all (HF) */
    /* made by tokenizer_seal */
    uint32_t *rank; /* [n_ids] MODEL_SCORED: 0 has the best score, equal ones are equal */
    trie_node *trie;
    uint32_t n_trie, longest;
    bool cuts;       /* no piece goes on with U+2581 behind another character: words are independent */
    bool has_unused; /* some piece is PIECE_UNUSED */
} scored_model;

typedef enum model_kind {
    MODEL_BPE,
    MODEL_WORDPIECE,
    MODEL_WORDLEVEL,
    MODEL_SCORED,
    MODEL_UNIGRAM,
    MODEL_KINDS
} model_kind;
static inline bool model_has_scores(model_kind kind)
{
    return kind == MODEL_SCORED || kind == MODEL_UNIGRAM;
}

struct tokenizer {
    memory *m;
    arena *strings;
    pcre2_general_context *general;
    uint32_t n_normalizers, n_splitters, n_decoders, n_added, n_before, n_after;
    normalizer_step normalizers[TOKEN_MAX_STEPS];
    splitter_step splitters[TOKEN_MAX_STEPS];
    decoder_step decoders[TOKEN_MAX_STEPS];
    added_token *added; /* [n_added] in the file's order, special ones first */
    matcher raw, normalized;
    bool byte_level; /* the model's symbols are bytes */
    bool byte_chars; /* ... and SPLITTER_BYTE_CHARS is among the steps: spell pieces back to bytes behind them */
    model_kind kind;
    vocabulary vocab;
    bpe_model bpe;
    word_model words;
    scored_model scored;
    matcher user;       /* pieces with PIECE_USER */
    text_span charsmap; /* NORMALIZE_CHARSMAP, NORMALIZE_SENTENCEPIECE; bytes 0: none. Checked by charsmap_check(). */
    uint32_t *before, *after; /* ids that the template puts around a text */
    int32_t bos, eos;
    tokenizer_text *texts; /* [n_texts] of TOKEN_MAX_TEXTS, in `strings` */
    uint32_t n_texts;
};

/* ---- growing text (tokenizer_build.c) ----------------------------------------------------------------------- */

typedef struct text_buffer {
    char *data;
    size_t bytes, capacity;
} text_buffer;
lamina_status buffer_reserve(memory *m, text_buffer *b, size_t more, lamina_error *err); /* room for `more` bytes */
lamina_status buffer_append(memory *m, text_buffer *b, const char *data, size_t bytes, lamina_error *err);
/* Doubles an array when it is full. */
lamina_status array_grow(memory *m, void **array, size_t n, size_t *capacity, size_t size, lamina_error *err);
lamina_status no_memory(const lamina_error *err); /* the status that a failed mem_ call left behind */

/* ---- building (tokenizer_build.c) --------------------------------------------------------------------------- */

typedef struct piece_span {
    uint32_t offset, bytes;
} piece_span; /* bytes UINT32_MAX: no such piece */

typedef struct builder {
    memory *m;
    const char *name; /* of the source, for errors */
    tokenizer *t;
    text_buffer text; /* the pieces as the source spells them */
    piece_span *spans;
    size_t n_ids, spans_capacity;
    bool raw;          /* pieces are given as bytes, not spelt in GPT-2's alphabet */
    uint32_t n_pieces; /* of the model: what HF calls the vocabulary's size */
    uint32_t *table;   /* ids by spelling; as vocabulary.piece_table */
    uint32_t mask;
    uint64_t *pairs; /* merges in order: left, right */
    size_t n_merges, pairs_capacity, merged_capacity;
    size_t added_capacity;
    double *scores;       /* [n_ids] of scored models, with ... */
    uint8_t *score_flags; /* ... PIECE_LOOKUP, PIECE_USER, PIECE_UNUSED of each */
    size_t n_scores, scores_capacity, score_flags_capacity;
} builder;

lamina_status builder_begin(memory *m, const char *name, builder *b, lamina_error *err);
void builder_end(builder *b); /* frees what is not handed over */
lamina_status builder_text(builder *b, const char *data, size_t bytes, text_span *out, lamina_error *err); /* a copy */
lamina_status builder_piece(builder *b, uint64_t id, const char *text, size_t bytes, lamina_error *err);
int32_t builder_find(const builder *b, const char *text, size_t bytes); /* -1: none */
/* The score of the piece that was placed last, and which of PIECE_LOOKUP, PIECE_USER, PIECE_UNUSED it has. */
lamina_status builder_score(builder *b, uint64_t id, double score, uint8_t flags, lamina_error *err);
/* The blob of a precompiled_charsmap, checked and copied. */
lamina_status builder_charsmap(builder *b, const char *data, size_t bytes, lamina_error *err);
lamina_status builder_merge(builder *b, text_span left, text_span right, lamina_error *err);
lamina_status builder_merge_line(builder *b, const char *text, size_t bytes, lamina_error *err); /* "left right" */
/* Merges implied by pieces: two neighbours that spell a piece may become it, the pieces in `order` [n] (ids) first. */
lamina_status builder_implied_merges(builder *b, const uint32_t *order, size_t n, lamina_error *err);
lamina_status builder_added(builder *b, const added_token *token, lamina_error *err); /* id is found or given here */
/* The same under the id that the token brings; a piece of that id gives way. */
lamina_status builder_added_at(builder *b, const added_token *token, lamina_error *err);
/* The same, and where it is there already its flags become the token's. */
lamina_status builder_added_again(builder *b, const added_token *token, lamina_error *err);
bool builder_has(const builder *b, uint32_t id); /* a piece or an added token */
bool builder_is_added(const builder *b, uint32_t id);
lamina_status builder_around(builder *b, bool before, int64_t id, lamina_error *err); /* appends to the template */
lamina_status builder_normalizer(builder *b, const normalizer_step *step, lamina_error *err);
lamina_status builder_splitter(builder *b, const splitter_step *step, lamina_error *err);
lamina_status builder_decoder(builder *b, const decoder_step *step, lamina_error *err);
/* ByteLevel: the steps it stands for. */
lamina_status builder_byte_level(builder *b, bool prefix_space, bool use_regex, lamina_error *err);
lamina_status builder_pattern_splitter(builder *b, const char *regex, lamina_error *err); /* isolated */
/* The id of a piece or added token; -1: none. */
int32_t builder_token(const builder *b, const char *text, size_t bytes);
/* Everything is there: makes the tables, compiles the patterns, hands the tokenizer over. */
lamina_status builder_finish(builder *b, tokenizer **out, lamina_error *err);

/* From filled structs (steps, added, vocab.offset/text/flags, merges) to tables and compiled patterns. pairs: as in
 * the builder, [bpe.n_merges]. */
lamina_status tokenizer_seal(tokenizer *t, const char *name, const uint64_t *pairs, lamina_error *err);
tokenizer *tokenizer_new(memory *m, lamina_error *err);

uint64_t hash_bytes(const char *data, size_t bytes);
static inline uint64_t pair_key(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 43 | (uint64_t)right << 22;
}
int32_t vocabulary_find(const vocabulary *v, const char *text, size_t bytes); /* -1: none */

/* ---- patterns (tokenizer_regex.c) --------------------------------------------------------------------------- */

pcre2_general_context *regex_context(memory *m); /* NULL: no memory */
lamina_status regex_compile(memory *m, pcre2_general_context *general, const char *name, pattern *p, lamina_error *err);
void regex_free(pattern *p);
extern const char regex_gpt2[]; /* what ByteLevel's use_regex means */

typedef struct regex_scratch { /* of one call: what a search needs beside the pattern */
    pcre2_general_context *general;
    pcre2_match_context *match;
    pcre2_match_data *data;
    pcre2_jit_stack *stack;
} regex_scratch;
lamina_status regex_scratch_new(memory *m, regex_scratch *s, lamina_error *err);
void regex_scratch_free(regex_scratch *s);

typedef struct regex_cursor {
    size_t at, last_end;
    bool matched;
} regex_cursor; /* zero-initialised */
/* The next match of p in text [bytes] (valid UTF-8), leftmost first, as an iterator of HF's onig bindings gives them.
 */
lamina_status regex_next(regex_scratch *s, const pattern *p, const char *text, size_t bytes, regex_cursor *c,
                         size_t *begin, size_t *end, bool *found, lamina_error *err);

/* ---- encoding ----------------------------------------------------------------------------------------------- */

enum { WORD_CACHE_TEXT = 30, WORD_CACHE_IDS = 8, WORD_CACHE_SIZE = 4096 };
typedef struct word_entry {
    uint8_t bytes, n;
    char text[WORD_CACHE_TEXT];
    uint32_t ids[WORD_CACHE_IDS];
} word_entry;
typedef struct bpe_symbol {
    uint32_t id, rank, previous, next;
} bpe_symbol;

typedef struct scored_symbol {
    uint32_t begin, bytes, rank, previous, next;
    int32_t id, made; /* -1: no piece; of this and the next symbol together */
    bool frozen;
} scored_symbol;
typedef struct path_node { /* the best way to a byte */
    double score;
    int32_t id;
    uint32_t begin; /* of the last piece; UINT32_MAX: no way */
} path_node;

typedef struct encoder {
    const tokenizer *t;
    memory *m;
    lamina_error *err;
    bool plain;
    int32_t *ids;
    size_t n_ids, capacity;
    regex_scratch regex;
    text_buffer normal[2];                 /* normalizers write from one to the other */
    text_buffer step[TOKEN_MAX_STEPS];     /* of splitters that change their text */
    text_buffer seen[TOKEN_MAX_STEPS + 1]; /* the same as patterns see it; the last: the text that comes in */
    text_buffer bytes;                     /* pieces spelt back from the alphabet */
    text_buffer word;                      /* WordPiece: a part with its prefix */
    bool at_begin;                         /* the text that pretokenize() is given is the whole text's begin */
    int32_t *points;                       /* composition */
    size_t points_capacity;
    size_t normal_limit; /* see TOKEN_MAX_GROWTH */
    bpe_symbol *symbols;
    uint64_t *heap;
    size_t symbols_capacity, heap_capacity;
    scored_symbol *scored;
    size_t scored_capacity;
    uint32_t *unused; /* [n_ids] or NULL: bytes of the left part of an unused piece's last merge */
    path_node *path;
    size_t path_capacity;
    uint32_t *pieces; /* a segmentation, from its end: end and id of each */
    size_t pieces_capacity;
    size_t unknown_begin, unknown_end; /* of a run of unknown characters, in the text being encoded */
    word_entry *cache;                 /* [WORD_CACHE_SIZE] or NULL */
} encoder;

lamina_status encoder_emit(encoder *e, uint32_t id);
/* tokenizer_normalize.c: text -> *out, *out_bytes (in e->normal, or text itself). */
lamina_status normalize_append(encoder *e, text_buffer *out, const char *data, size_t bytes); /* within the limit */
lamina_status normalize(encoder *e, const char *text, size_t bytes, const char **out, size_t *out_bytes);
/* tokenizer_pretokenize.c: cuts a text without added tokens and hands the pieces to the model. */
lamina_status pretokenize(encoder *e, const char *text, size_t bytes);
/* tokenizer_bpe.c */
lamina_status bpe_encode(encoder *e, const char *text, size_t bytes);
lamina_status words_encode(encoder *e, const char *text, size_t bytes); /* tokenizer_words.c */
lamina_status bpe_seal(tokenizer *t, const char *name, const uint64_t *pairs, lamina_error *err);

void bpe_heap_push(uint64_t *heap, size_t *n, uint64_t key); /* a heap, least first */
uint64_t bpe_heap_pop(uint64_t *heap, size_t *n);
/* tokenizer_scored.c, tokenizer_unigram.c */
lamina_status scored_encode(encoder *e, const char *text, size_t bytes);
lamina_status unigram_encode(encoder *e, const char *text, size_t bytes);
lamina_status scored_seal(tokenizer *t, const char *name, lamina_error *err);
lamina_status unigram_seal(tokenizer *t, lamina_error *err);
size_t scored_word_end(const scored_model *s, const char *text, size_t bytes, size_t at); /* of the word at `at` */
void scored_unknown_add(encoder *e, size_t begin, size_t end);                            /* an unknown character */
lamina_status scored_unknown_flush(encoder *e, const char *text);                         /* what was gathered -> ids */
/* tokenizer_charsmap.c */
lamina_status charsmap_check(const char *name, const char *data, size_t bytes, lamina_error *err);
lamina_status charsmap_normalize(encoder *e, const char *text, size_t bytes, text_buffer *out);
lamina_status sentencepiece_normalize(encoder *e, uint32_t flags, const char *text, size_t bytes, text_buffer *out);

/* tokenizer_added.c */
typedef struct added_match {
    size_t begin, end;
    const added_token *token;
} added_match;
typedef struct added_cursor {
    size_t at, emitted;
} added_cursor; /* zero-initialised */
/* The longest spelling that text [bytes > 0] begins with; NULL: none. */
const matcher_entry *matcher_longest(const matcher *mt, const char *text, size_t bytes);
lamina_status matcher_seal(tokenizer *t, matcher *mt, const matcher_entry *entries, uint32_t n, lamina_error *err);
/* The next added token; its begin and end include the white space that it takes. */
bool added_next(const tokenizer *t, const matcher *mt, bool plain, const char *text, size_t bytes, added_cursor *c,
                added_match *match);

/* ---- readers ------------------------------------------------------------------------------------------------ */

/* Texts of files; NULL: absent. */
typedef struct tokenizer_files {
    const char *json;       /* tokenizer.json */
    const char *config;     /* tokenizer_config.json */
    const char *special;    /* special_tokens_map.json */
    const char *model;      /* config.json */
    const char *chat;       /* chat_template.jinja */
    const char *chat_json;  /* chat_template.json */
    const char *tool_use;   /* additional_chat_templates/tool_use.jinja */
    const char *tekken;     /* tekken.json */
    const char *ranks;      /* a file of base64 and ranks ... */
    const char *ranks_name; /* ... and its name */
    const char *sp;         /* tokenizer.model: sentencepiece's */
    size_t sp_bytes;
    size_t tekken_bytes, ranks_bytes;
    size_t json_bytes, config_bytes, special_bytes, model_bytes, chat_bytes, chat_json_bytes, tool_use_bytes;
} tokenizer_files;
/* tokenizer_json.c, tokenizer_json_steps.c */
lamina_status tokenizer_read_json(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err);
/* tokenizer_ranks.c: tiktoken's files, tekken.json. */
/* text [bytes] -> out (room for 3/4 of it). false: not base64 with its padding. */
bool base64_decode(const char *text, size_t bytes, char *out, size_t *out_bytes);
bool tokenizer_is_ranks(const char *text, size_t bytes); /* by its first line */
lamina_status tokenizer_read_ranks(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err);
lamina_status tokenizer_read_tekken(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err);
/* tokenizer_sentencepiece.c, tokenizer_gguf_scored.c */
lamina_status tokenizer_read_sentencepiece(memory *m, const tokenizer_files *files, tokenizer **out, lamina_error *err);
lamina_status gguf_read_scored(builder *b, const gguf *g, bool unigram, lamina_error *err);
/* tokenizer_config.c: added and special tokens of tokenizer_config.json, or of special_tokens_map.json, and bos, eos.
 * ids: new tokens have the ids that the file gives them, else those that follow the vocabulary. */
lamina_status tokenizer_read_config(builder *b, const tokenizer_files *files, bool ids, lamina_error *err);
/* "tokenizer_class" -> out [capacity]; empty when there is none. */
lamina_status tokenizer_config_class(memory *m, const tokenizer_files *files, char *out, size_t capacity,
                                     lamina_error *err);
struct jp;
lamina_status json_read_added_token(const struct jp *at, added_token *token, bool *found, lamina_error *err);
/* tokenizer_chat.c: texts for chat templates, into a tokenizer that is there already. */
lamina_status tokenizer_set_text(tokenizer *t, const char *name, const char *text, size_t bytes, lamina_error *err);
lamina_status tokenizer_read_texts(tokenizer *t, const tokenizer_files *files, lamina_error *err);
lamina_status tokenizer_read_texts_gguf(tokenizer *t, const gguf *g, lamina_error *err);
struct jp;
lamina_status json_read_normalizer(builder *b, const struct jp *at, lamina_error *err);
lamina_status json_read_splitter(builder *b, const struct jp *at, lamina_error *err);
lamina_status json_read_decoder(builder *b, const struct jp *at, lamina_error *err);
lamina_status json_read_post_processor(builder *b, const struct jp *at, lamina_error *err);

#endif

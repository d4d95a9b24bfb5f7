/* Options as data: one table from which parsing, --help, the manual page and completion are made. */
#ifndef LAMINA_CLI_OPTIONS_H
#define LAMINA_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lamina.h"

typedef enum command_id {
    CMD_RUN,
    CMD_CHAT,
    CMD_PACK,
    CMD_PLAN,
    CMD_INSPECT,
    CMD_VERIFY,
    CMD_LOGITS,
    CMD_TOKENIZE,
    CMD_DETOKENIZE,
    CMD_TEMPLATE,
    CMD_EVAL,
    CMD_BENCH,
    CMD_FAMILIES,
    CMD_COMPLETION,
    CMD_HELP,
    CMD_COUNT
} command_id;

typedef struct id_list {
    int32_t *data; /* [n] */
    size_t n, capacity;
} id_list;

enum { MAX_STOPS = 16, MAX_BUDGETS = 16, MAX_OPERANDS = 2 };

typedef struct text_list {
    const char *data[MAX_STOPS];
    size_t n;
} text_list;
typedef struct size_list {
    uint64_t data[MAX_BUDGETS];
    size_t n;
} size_list;

/* What a command line says. Strings point into argv. */
typedef struct options {
    command_id command;
    const char *operands[MAX_OPERANDS]; /* MODEL first */
    size_t n_operands;
    bool help;
    /* input */
    const char *prompt, *file;
    id_list ids;
    bool jsonl, no_special, special, plain;
    const char *messages, *tools, *variables, *template_file; /* files of a chat */
    const char *system;
    bool no_generation_prompt;
    /* generation */
    uint32_t n;
    double temperature, top_p, min_p, repetition_penalty;
    uint32_t top_k;
    uint64_t seed;
    text_list stops;
    bool ignore_eos;
    /* memory and the stream */
    uint64_t memory, ring, chunk, disk;
    size_list memories;
    uint32_t context, rows;
    int kv, io, isa; /* lamina_kv, lamina_io, lamina_isa */
    uint32_t threads;
    const char *ignore_config;
    /* one command's own */
    const char *output, *dtype, *calibrate, *against, *logits_cache;
    bool delete_original, last, tensors, brief;
    uint32_t stride, rounds, prompt_tokens;
    double seconds;
    /* output */
    bool json, stats, progress;
    const char *trace;
    lamina_faults faults;
} options;

typedef enum option_kind {
    KIND_FLAG,   /* bool */
    KIND_TEXT,   /* const char * */
    KIND_TEXTS,  /* text_list, repeatable */
    KIND_SIZE,   /* uint64_t bytes: 512M, 1.5G */
    KIND_SIZES,  /* size_list: several, with commas */
    KIND_COUNT,  /* uint32_t within [least, most] */
    KIND_NUMBER, /* uint64_t */
    KIND_REAL,   /* double within [least, most] */
    KIND_CHOICE, /* int: the place among the words of metavar, separated by | */
    KIND_IDS,    /* id_list */
    KIND_FAULTS  /* lamina_faults: alloc=N,read=N,short=N,delay=MICROSECONDS */
} option_kind;

typedef enum option_group {
    GROUP_INPUT,
    GROUP_GENERATION,
    GROUP_MEMORY,
    GROUP_ENGINE,
    GROUP_OUTPUT,
    GROUP_TESTING,
    GROUP_COUNT
} option_group;

typedef struct option_row {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    option_kind kind;
    option_group group;
    uint32_t commands; /* bit i: commands[i] takes it */
    size_t offset;     /* in struct options */
    const char *metavar;
    double least, most;
    const char *help; /* lines at most 56 characters, separated by \n */
} option_row;

extern const option_row option_table[];
extern const size_t option_count;
extern const char *const option_group_names[GROUP_COUNT];

/* Fills *o from the arguments after the command's name. EXIT_DONE or EXIT_USAGE, with the reason printed. */
int options_parse(options *o, command_id id, int argc, char **argv);
void options_free(options *o);
/* The nearest of n words, or NULL if none is near: for suggestions. */
const char *nearest_word(const char *word, const char *(*word_at)(const void *user, size_t i), const void *user,
                         size_t n);

#endif

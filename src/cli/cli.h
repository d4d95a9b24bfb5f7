/* The command line: what its files share. It stands on include/lamina.h alone, as any other program would. */
#ifndef LAMINA_CLI_H
#define LAMINA_CLI_H

#include "lamina.h"

#include <jansson.h>
#include <stdio.h>

#include "options.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* ---- commands ------------------------------------------------------------------------------------------------- */

typedef struct command {
    const char *name;
    const char *operands;         /* "MODEL FILE": upper-case words, in order; "[X]" may be left out */
    const char *summary;          /* one line without a full stop */
    const char *details;          /* paragraphs for --help and the manual; lines at most 78 characters */
    int (*run)(const options *o); /* returns the exit code; has printed its error */
} command;

extern const command commands[CMD_COUNT];
bool find_command(const char *name, command_id *id);
int unknown_command(const char *name); /* prints, with the nearest name; EXIT_USAGE */

int run_command(const options *o);
int chat_command(const options *o);
int pack_command(const options *o);
int plan_command(const options *o);
int inspect_command(const options *o);
int verify_command(const options *o);
int logits_command(const options *o);
int tokenize_command(const options *o);
int detokenize_command(const options *o);
int template_command(const options *o);
int eval_command(const options *o);
int bench_command(const options *o);
int families_command(const options *o);
int completion_command(const options *o);
int help_command(const options *o);

/* ---- errors: one line on stderr, and the exit code to return ---------------------------------------------------- */

/* "lamina: ..."; EXIT_FAILED. */
__attribute__((format(printf, 1, 2))) int fail(const char *format, ...);
/* "lamina: ..."; EXIT_USAGE. */
__attribute__((format(printf, 1, 2))) int fail_usage(const char *format, ...);
/* The library's error; EXIT_USAGE for LAMINA_E_USAGE, else EXIT_FAILED. */
int fail_error(const lamina_error *err);
/* Flushes stdout. EXIT_DONE, also when the reader has gone; else EXIT_FAILED with a line. */
int finish_stdout(void);

/* ---- text for people -------------------------------------------------------------------------------------------- */

typedef struct label {
    char text[48];
} label;

label human_bytes(uint64_t bytes);    /* "1.50 GiB" */
label human_rate(double bytes_per_s); /* "1.23 GB/s"; "unknown" for 0 */
label human_seconds(double seconds);  /* "0.53 s", "2 min 05 s", "3 h 20 min" */
label human_count(double n);          /* "3.21 G" */

/* ---- progress --------------------------------------------------------------------------------------------------- */

typedef struct progress_line {
    bool on, terminal;
    bool below;           /* text streams to the same terminal: the line stands under it */
    bool shown;           /* something stands there now */
    double began;         /* of the whole work, by now_seconds() */
    double last;          /* when the line was last drawn */
    const char *what;     /* "prompt", "token", "window" ... or NULL */
    uint64_t done, total; /* units of `what` finished before this pass, and in all; total 0: unknown */
    uint64_t first;       /* of `done`, when `began` was noted */
    bool rows_are_units;  /* the rows of the pass count towards `done` */
} progress_line;

/* streams_text: stdout receives text while the work goes on. */
void progress_begin(progress_line *p, const options *o, bool streams_text);
bool progress_show(void *progress, const lamina_progress *now); /* a lamina_progress_fn */
void progress_clear(progress_line *p);
double now_seconds(void); /* monotonic */

/* ---- work: an opened model --------------------------------------------------------------------------------------- */

typedef struct work {
    lamina_engine *engine;
    lamina_session *session;
    lamina_model_info model;
    lamina_plan_info plan;
    progress_line progress;
    const options *options;
} work;

enum { WORK_TOKENIZER_ONLY = 1, WORK_NO_TOKENIZER = 2, WORK_STREAMS_TEXT = 4, WORK_NO_TRACE = 8 };

/* Each returns EXIT_DONE, or an exit code after printing why. work_close() is always allowed. */
int work_open(work *w, const options *o, unsigned flags);
int work_open_path(work *w, const options *o, const char *path, unsigned flags); /* another model than MODEL */
int work_need_weights(const work *w);
/* For pack: the model, or, when it opens no more because an interrupted packing has deleted some of it, the finished
 * store; then w->engine is NULL and *info says what was done. */
int work_open_or_resume(work *w, const options *o, const lamina_pack_options *pack, lamina_pack_info *info);
/* The budget of the options with this context and so many rows that want logits (lessened until it fits). */
int work_start(work *w, uint32_t context, uint32_t logit_rows);
/* The statistics; where they are shown and the model streams, the device's ceiling is measured for a moment first. */
void work_stats(work *w, lamina_stats *stats);
int work_need_tokenizer(const work *w, const char *instead);
void work_close(work *w);
lamina_budget work_budget(const options *o, uint32_t context);
bool interrupted(void); /* Ctrl-C or a termination signal has come */
bool terminated(void);  /* it was a termination signal */
/* For programs that go on after an interruption; both forget what came before. While computing, Ctrl-C cancels the pass
 * and a second one ends the process, as from work_open() on; while waiting for input it wakes the reader (EINTR). */
void work_signals_computing(work *w);
void work_signals_waiting(work *w);

/* ---- ids and text ------------------------------------------------------------------------------------------------ */

bool ids_push(id_list *list, int32_t id);
/* Ids separated by commas or white space. NULL, or the place that is none of these. */
const char *ids_parse(const char *text, id_list *list, bool *no_memory);
void ids_free(id_list *list);

typedef struct text_buffer {
    char *data; /* NUL-terminated */
    size_t n, capacity;
} text_buffer;

bool text_append(text_buffer *b, const char *data, size_t n);
void text_free(text_buffer *b);
/* A whole file, or standard input for "-". */
int text_read_file(text_buffer *b, const char *path);

/* A file that has its name only when it is whole. */
typedef struct whole_file {
    FILE *file;
    char *temporary; /* its name until then */
} whole_file;

int whole_file_create(whole_file *f, const char *path);
int whole_file_failed(const whole_file *f); /* says what errno has; EXIT_FAILED */
/* Closes; gives the file its name if `good`, else removes it. */
int whole_file_close(whole_file *f, const char *path, bool good);

/* All of a text's ids. */
int tokenize_text(const work *w, const char *text, size_t n, unsigned flags, id_list *ids);
/* Appends what the id completes; id -1 flushes. An id without a spelling (models have more ids than tokenizers) is an
 * error, or nothing at all if `lenient`. */
int detokenize_id(const work *w, lamina_detokenizer *state, int32_t id, bool lenient, text_buffer *out);
/* The prompt of the options: -p, -f, --ids or --messages. ends receives what ends an answer to --messages
 * (chat_ends()); NULL: not asked. */
int prompt_ids(const work *w, id_list *ids, id_list *ends);

/* ---- chats ------------------------------------------------------------------------------------------------------- */

/* The files of --messages, --tools, --variables, --template; data NULL: not given. */
typedef struct chat_files {
    text_buffer messages, tools, variables, template_text;
} chat_files;

/* standard: what standard input is read for already, or NULL. */
int chat_files_read(const options *o, const char *standard, chat_files *f);
void chat_files_free(chat_files *f);
/* Appends the conversation as the model's template writes it. messages: JSON. Prints nothing. */
lamina_status chat_render(const work *w, const chat_files *f, const char *messages, bool generation_prompt,
                          text_buffer *out, lamina_error *err);
/* The conversation of --messages; ends: as of prompt_ids(). */
int render_messages(const work *w, text_buffer *out, id_list *ends);
/* Appends the token that the template writes after an answer, where it is a control token: a model's own list of tokens
 * that end generation often lacks it (Llama 3's <|eot_id|> beside <|end_of_text|>). Where the template writes nothing
 * there, the token that opens the next question does as well. No template at all is an error. */
int chat_ends(const work *w, const chat_files *f, id_list *ends);

/* ---- statistics -------------------------------------------------------------------------------------------------- */

typedef struct timing {
    uint64_t prompt_tokens, decode_tokens; /* decode_tokens: passes of one token, timed */
    double prefill_seconds, decode_seconds;
} timing;

void json_set_real(json_t *object, const char *name, double value); /* null when not finite or negative */
void json_set_bytes(json_t *object, const char *name, uint64_t value);
void json_set_text(json_t *object, const char *name, const char *text);
void json_set_plan(json_t *object, const lamina_plan_info *plan);
void json_set_stats(json_t *object, const work *w, const lamina_stats *stats, const timing *t);
void json_set_experts(json_t *object, const lamina_stats *stats);
/* Prints one object on one line, gives it back, and returns the exit code. NULL (no memory) fails. */
int json_print(json_t *object);
/* One line of what experts were found and read. */
void print_experts(FILE *to, const work *w, const lamina_stats *stats);
void print_stats(const work *w, const lamina_stats *stats, const timing *t);

/* ---- help -------------------------------------------------------------------------------------------------------- */

void print_overview(FILE *out);
void print_command_help(FILE *out, command_id id);
void print_manual(FILE *out);
void print_completion(FILE *out);

#endif

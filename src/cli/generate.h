/* What `run` and `chat` share: rows into the session, tokens out of it, text as it becomes certain. */
#ifndef LAMINA_CLI_GENERATE_H
#define LAMINA_CLI_GENERATE_H

#include "cli.h"

/* One answer. Zero-initialise, set the first group, feed, run, finish. */
typedef struct generation {
    work *w;
    uint32_t most; /* tokens to generate at most */
    uint64_t seed;
    bool silent;         /* the text is only collected */
    const id_list *ends; /* ids that end the answer besides the model's own; NULL: none */

    id_list ids;               /* all that were generated, an end token included */
    size_t n_said;             /* of them, those that belong to the text: all but an end token */
    text_buffer text;          /* all that was generated, stop strings cut off */
    const char *finish_reason; /* "stop", "length", "interrupted"; NULL: goes on */
    bool context_full;         /* finish_reason "length": the session can hold no more */
    bool reader_gone;          /* standard output is closed */
    timing t;
    lamina_detokenizer detokenizer; /* the text goes on after the prompt: its leading space stays */
    size_t emitted;                 /* bytes of the text on standard output */
    bool cut;                       /* a stop string was found: nothing is added any more */
} generation;

/* Each returns EXIT_DONE, or an exit code after printing why. An interruption is no error: finish_reason says it, and
 * the session holds the tokens of the passes that were completed. */
int generation_feed(generation *g, const int32_t *ids, size_t n); /* the prompt, or what of it the session lacks */
int generation_run(generation *g);
int generation_finish(generation *g); /* the text that was still held back */
void generation_free(generation *g);

#endif

/* A conversation: its messages as JSON, and which of the tokens that were said are still good for what comes next. */
#ifndef LAMINA_CLI_CONVERSATION_H
#define LAMINA_CLI_CONVERSATION_H

#include "generate.h"

typedef struct conversation {
    work *w;
    chat_files files;
    json_t *messages;   /* an array of objects, each with a role */
    json_t *unanswered; /* the question that was taken back last, or NULL */
    id_list said;       /* what the session holds, and behind it what was generated and not fed */
    id_list ends;       /* tokens that end an answer besides the model's own */
} conversation;

/* What of a prompt has been said already. */
typedef struct overlap {
    size_t said, prompt; /* the first `said` tokens that were said stand for the first `prompt` of the prompt's */
} overlap;

/* Reads the files of the options and takes --messages and --system. The functions below that return an int return
 * EXIT_DONE, or an exit code after printing why; the conversation is then as it was. */
int conversation_open(conversation *c, work *w);
void conversation_close(conversation *c);

int conversation_reset(conversation *c);                              /* all but a system message at the begin */
int conversation_system(conversation *c, const char *text, size_t n); /* the system message; n 0: none. Resets */
int conversation_load(conversation *c, const char *path);
int conversation_save(const conversation *c, const char *path); /* the file is there whole or not at all */
int conversation_ask(conversation *c, const char *text, size_t n);
int conversation_answer(conversation *c, const char *text, size_t n);
/* Drops all from the last question on. False: there was none. */
bool conversation_undo(conversation *c);
void conversation_take_back(
    conversation *c); /* the last message, a question that has no answer; kept for asking again */
/* Makes the last question the last message again, without its answer. False: there is none. */
bool conversation_again(conversation *c);
bool conversation_waits(const conversation *c); /* the last message wants an answer */

/* The whole conversation as tokens, the answer opened at the end. */
int conversation_prompt(const conversation *c, id_list *ids);
/* The most that can be kept, with at least one token of the prompt left to feed. */
int conversation_overlap(const conversation *c, const id_list *prompt, overlap *o);
/* Notes what is said now: the session's tokens and those of the answer that were not fed. fed: how many were. */
int conversation_said(conversation *c, const generation *g, size_t fed);

#endif

/* Owns: `lamina chat`: a conversation in the terminal, or through a pipe, a turn a line.
 *
 * Promises: nothing that is typed ends the conversation but /quit, the end of input and two Ctrl-C in a row at the
 * prompt; what cannot be done is said in one line. Ctrl-C while answering keeps what was said. Standard output has the
 * answers, each ended by a line break, and nothing else; prompts, notes and statistics are on standard error, and
 * prompts and notes only where standard input is a terminal. Where it is not, an interruption ends the program, and the
 * exit code says whether all that was asked was done.
 *
 * Lines are edited by the terminal itself, in its own line mode: no dependency, nothing to get wrong over a slow
 * connection, and rlwrap gives history to who wants it. They are read with read(2), so that a signal is seen at once
 * and no buffer of stdio has to be mended after it. */
#include "conversation.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum { LINE_TOP = 16 << 20 }; /* bytes of a turn */

typedef struct chat {
    work w;
    conversation c;
    bool interactive; /* somebody types */
    bool failed;      /* something that was asked was not done */
    bool leaving;
    uint64_t draws;   /* answers that were drawn anew */
    char input[4096]; /* bytes that were read and belong to no line yet */
    size_t n_input, at_input;
} chat;

/* ---- lines in ---------------------------------------------------------------------------------------------------- */

typedef enum line_end { LINE_READ, LINE_END, LINE_SIGNAL, LINE_WRONG } line_end;

/* Appends one line without its end. LINE_END: there is none; a last line without an end is a line. */
static line_end read_line(chat *h, text_buffer *line)
{
    size_t before = line->n;
    for (;;) {
        if (h->at_input == h->n_input) {
            ssize_t n = read(STDIN_FILENO, h->input, sizeof h->input);
            if (n < 0 && errno == EINTR && interrupted()) return LINE_SIGNAL;
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) fail("standard input: %s", strerror(errno));
            if (n < 0) return LINE_WRONG;
            if (n == 0) return line->n > before ? LINE_READ : LINE_END;
            h->n_input = (size_t)n;
            h->at_input = 0;
        }
        const char *from = h->input + h->at_input;
        size_t n = h->n_input - h->at_input;
        const char *end = memchr(from, '\n', n);
        if (end) n = (size_t)(end - from);
        h->at_input += n + (end != NULL);
        if (n > LINE_TOP - line->n || !text_append(line, from, n)) {
            fail(n > LINE_TOP - line->n ? "a turn of more than 16 MiB" : "out of memory");
            return LINE_WRONG;
        }
        if (!end) continue;
        if (line->n > before && line->data[line->n - 1] == '\r') line->data[--line->n] = '\0';
        return LINE_READ;
    }
}

static void show_prompt(const chat *h, const char *prompt)
{
    if (h->interactive) fputs(prompt, stderr), fflush(stderr);
}

static bool ends_block(const text_buffer *turn)
{
    return turn->n >= 3 && !memcmp(turn->data + turn->n - 3, "\"\"\"", 3);
}

/* The lines of """ ... """, the first of which is there already; line breaks beside the quotes are no part of it. The
 * end of input ends it too. */
static line_end read_block(chat *h, text_buffer *turn)
{
    memmove(turn->data, turn->data + 3, turn->n -= 3);
    for (bool begun = turn->n > 0; !ends_block(turn); begun = true) {
        if (begun && !text_append(turn, "\n", 1)) return LINE_WRONG;
        show_prompt(h, ". ");
        line_end end = read_line(h, turn);
        if (end == LINE_END) break;
        if (end != LINE_READ) return end;
    }
    if (ends_block(turn)) turn->n -= 3;
    if (turn->n && turn->data[turn->n - 1] == '\n') turn->n--;
    turn->data[turn->n] = '\0';
    return LINE_READ;
}

/* One turn, of several lines where they go on. *literal: its first character is no command's. */
static line_end read_turn(chat *h, text_buffer *turn, bool *literal)
{
    turn->n = 0;
    *literal = false;
    if (!text_append(turn, "", 0)) return LINE_WRONG;
    show_prompt(h, "> ");
    line_end end = read_line(h, turn);
    if (end != LINE_READ) return end;
    if (turn->n >= 3 && !memcmp(turn->data, "\"\"\"", 3)) {
        *literal = true;
        return read_block(h, turn);
    }
    while (turn->n && turn->data[turn->n - 1] == '\\') {
        turn->data[turn->n - 1] = '\n';
        show_prompt(h, ". ");
        end = read_line(h, turn);
        if (end == LINE_END) turn->n--;
        if (end == LINE_END) break;
        if (end != LINE_READ) return end;
    }
    turn->data[turn->n] = '\0';
    if (turn->n >= 2 && turn->data[0] == '/' && turn->data[1] == '/') {
        *literal = true;
        memmove(turn->data, turn->data + 1, turn->n--);
    }
    return LINE_READ;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void note(const chat *h, const char *format, ...)
{
    if (!h->interactive) return;
    va_list arguments;
    va_start(arguments, format);
    fputc('[', stderr);
    vfprintf(stderr, format, arguments);
    fputs("]\n", stderr);
    va_end(arguments);
}

/* Rewinds to the first o->said tokens, or to the begin where a sliding window has let go of what that needs, and lists
 * what is to be fed: what was generated and not fed, and the prompt's rest. */
static int rewind_session(chat *h, const overlap *o, const id_list *prompt, id_list *rest, bool *again)
{
    lamina_session *session = h->w.session;
    lamina_error err;
    size_t held = lamina_session_length(session), keep = o->said < held ? o->said : held;
    *again = lamina_session_rewind(session, keep, &err) != LAMINA_OK;
    if (*again && lamina_session_rewind(session, keep = 0, &err) != LAMINA_OK) return fail_error(&err);
    bool good = true;
    for (size_t i = keep; i < o->said && good; i++) good = ids_push(rest, h->c.said.data[i]);
    for (size_t i = o->prompt; i < prompt->n && good; i++) good = ids_push(rest, prompt->data[i]);
    return good ? EXIT_DONE : fail("out of memory");
}

static void report(chat *h, const generation *g, size_t kept, bool again)
{
    lamina_stats stats;
    work_stats(&h->w, &stats);
    fprintf(stderr, "finish     %s after %zu tokens\n", g->reader_gone ? "reader gone" : g->finish_reason, g->ids.n);
    fprintf(stderr, "session    %zu tokens kept, %llu fed; %zu of %u held%s\n", kept,
            (unsigned long long)g->t.prompt_tokens, lamina_session_length(h->w.session), h->w.plan.context,
            again ? "; a sliding window had let go of earlier ones: all fed again" : "");
    print_stats(&h->w, &stats, &g->t);
}

/* What came out joins the conversation; a question without any answer is taken back. */
static int conclude(chat *h, const generation *g, size_t kept, bool again)
{
    bool stopped = !strcmp(g->finish_reason, "interrupted");
    if (!g->reader_gone && (g->ids.n || h->interactive)) putchar('\n');
    int code = g->reader_gone ? EXIT_DONE : finish_stdout();
    if (code == EXIT_DONE && g->ids.n) {
        code = conversation_answer(&h->c, g->text.data ? g->text.data : "", g->text.n);
    } else if (code == EXIT_DONE) {
        conversation_take_back(&h->c);
        note(h, "stopped before the answer began; /retry asks again");
    }
    if (g->context_full)
        note(h, "the context of %u tokens is full: /reset begins anew, --context N holds more", h->w.plan.context);
    else if (!strcmp(g->finish_reason, "length"))
        note(h, "cut after %zu tokens; -n N allows more", g->ids.n);
    if (h->w.options->stats) report(h, g, kept, again);
    if (g->reader_gone || terminated() || (stopped && !h->interactive)) h->leaving = true;
    if (stopped && !g->reader_gone && !h->interactive) h->failed = true;
    return code;
}

static int speak(chat *h, const id_list *rest, bool again)
{
    work *w = &h->w;
    size_t kept = lamina_session_length(w->session);
    generation g = {.w = w,
                    .most = w->options->n,
                    .seed = w->options->seed + h->draws,
                    .ends = &h->c.ends,
                    .detokenizer = {.begun = true}};
    lamina_stats_reset(w->engine);
    work_signals_computing(w);
    int code = generation_feed(&g, rest->data, rest->n);
    size_t fed = lamina_session_length(w->session);
    if (code == EXIT_DONE && !g.finish_reason) code = generation_run(&g);
    fed = lamina_session_length(w->session) - fed;
    if (code == EXIT_DONE) code = generation_finish(&g);
    progress_clear(&w->progress);
    int noted = conversation_said(&h->c, &g, fed);
    if (code == EXIT_DONE) code = noted;
    if (code == EXIT_DONE) code = conclude(h, &g, kept, again);
    generation_free(&g);
    return code;
}

/* Answers the last message. Whatever fails takes it back. */
static void answer(chat *h)
{
    id_list prompt = {0}, rest = {0};
    overlap o = {0};
    bool again = false;
    int code = conversation_prompt(&h->c, &prompt);
    if (code == EXIT_DONE) code = conversation_overlap(&h->c, &prompt, &o);
    size_t whole = code == EXIT_DONE ? o.said + prompt.n - o.prompt : 0;
    if (code == EXIT_DONE && whole > h->w.plan.context)
        code = fail(
            "the conversation takes %zu tokens and the context holds %u: /reset begins anew, --context N holds more",
            whole, h->w.plan.context);
    if (code == EXIT_DONE) code = rewind_session(h, &o, &prompt, &rest, &again);
    if (code == EXIT_DONE) code = speak(h, &rest, again);
    if (code != EXIT_DONE) {
        h->failed = true;
        if (conversation_waits(&h->c)) conversation_take_back(&h->c);
    }
    ids_free(&prompt);
    ids_free(&rest);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static int reset(chat *h, const char *text)
{
    (void)text;
    int code = conversation_reset(&h->c);
    if (code == EXIT_DONE) note(h, "a new conversation");
    return code;
}

static int set_system(chat *h, const char *text)
{
    int code = conversation_system(&h->c, text, strlen(text));
    if (code == EXIT_DONE)
        note(h, "a new conversation, %s", *text ? "with this system message" : "without a system message");
    return code;
}

static int save(chat *h, const char *path)
{
    int code = conversation_save(&h->c, path);
    if (code == EXIT_DONE) note(h, "%zu messages in %s", json_array_size(h->c.messages), path);
    return code;
}

static int load(chat *h, const char *path)
{
    if (!strcmp(path, "-")) return fail("/load: expected a file, found -: standard input is read for the conversation");
    int code = conversation_load(&h->c, path);
    if (code != EXIT_DONE) return code;
    note(h, "%zu messages from %s", json_array_size(h->c.messages), path);
    if (conversation_waits(&h->c)) answer(h);
    return EXIT_DONE;
}

static int undo(chat *h, const char *text)
{
    (void)text;
    if (!conversation_undo(&h->c)) return fail("/undo: nothing was asked yet");
    note(h, "the last question and its answer are forgotten");
    return EXIT_DONE;
}

static int retry(chat *h, const char *text)
{
    (void)text;
    if (!conversation_again(&h->c)) return fail("/retry: nothing was asked yet");
    h->draws++;
    answer(h);
    return EXIT_DONE;
}

static int leave(chat *h, const char *text)
{
    (void)text;
    h->leaving = true;
    return EXIT_DONE;
}

static int help(chat *h, const char *text);

static const struct chat_command {
    const char *name, *argument; /* argument NULL: takes none; "[X]" may be left out */
    const char *help;
    int (*run)(chat *h, const char *text);
} chat_commands[] = {
    {"reset", NULL, "begin anew; the system message stays", reset},
    {"system", "[TEXT]", "begin anew with this system message, or without one", set_system},
    {"save", "FILE", "write the conversation as JSON, as --messages takes it", save},
    {"load", "FILE", "go on with a conversation that was saved", load},
    {"undo", NULL, "forget the last question and its answer", undo},
    {"retry", NULL, "answer the last question again; with --temperature, anew", retry},
    {"help", NULL, "this list", help},
    {"quit", NULL, "leave, as Ctrl-D does", leave},
};
enum { CHAT_COMMANDS = sizeof chat_commands / sizeof *chat_commands };

static int help(chat *h, const char *text)
{
    (void)h, (void)text;
    for (size_t i = 0; i < CHAT_COMMANDS; i++) {
        char head[32];
        const char *argument = chat_commands[i].argument;
        snprintf(head, sizeof head, "/%s %s", chat_commands[i].name, argument ? argument : "");
        fprintf(stderr, "  %-16s %s\n", head, chat_commands[i].help);
    }
    fputs("A line that ends with \\ goes on; lines between \"\"\" and \"\"\" are one turn; // begins a line with a "
          "slash.\n"
          "Ctrl-C stops an answer and keeps what was said.\n",
          stderr);
    return EXIT_DONE;
}

static const char *command_at(const void *user, size_t i)
{
    (void)user;
    return chat_commands[i].name;
}

static int obey(chat *h, text_buffer *turn)
{
    char *name = turn->data + 1, *text = name + strcspn(name, " \t\n");
    if (*text) *text++ = '\0';
    text += strspn(text, " \t\n");
    for (size_t n = strlen(text); n && strchr(" \t", text[n - 1]); n--) text[n - 1] = '\0';
    for (size_t i = 0; i < CHAT_COMMANDS; i++) {
        const struct chat_command *known = &chat_commands[i];
        if (strcmp(known->name, name)) continue;
        if (!known->argument && *text) return fail("/%s takes nothing after it, found '%.64s'", name, text);
        if (known->argument && known->argument[0] != '[' && !*text)
            return fail("/%s: expected %s after it, found nothing", name, known->argument);
        return known->run(h, text);
    }
    const char *near = nearest_word(name, command_at, NULL, CHAT_COMMANDS);
    if (near) return fail("no command /%.64s; did you mean /%s? // begins a line with a slash", name, near);
    return fail("no command /%.64s; /help lists them, // begins a line with a slash", name);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static bool is_empty(const text_buffer *turn)
{
    for (size_t i = 0; i < turn->n; i++)
        if (!strchr(" \t\n", turn->data[i]) || !turn->data[i]) return false;
    return true;
}

static void take_turn(chat *h, text_buffer *turn, bool literal)
{
    if (is_empty(turn)) return;
    if (turn->data[0] == '/' && !literal) {
        if (obey(h, turn) != EXIT_DONE) h->failed = true;
        return;
    }
    if (conversation_ask(&h->c, turn->data, turn->n) == EXIT_DONE)
        answer(h);
    else
        h->failed = true;
}

static void converse(chat *h)
{
    text_buffer turn = {0};
    bool warned = false, literal = false;
    if (conversation_waits(&h->c)) answer(h);
    while (!h->leaving) {
        work_signals_waiting(&h->w);
        line_end end = read_turn(h, &turn, &literal);
        if (end == LINE_SIGNAL && !terminated() && h->interactive && !warned) {
            fputs("\n(/quit or Ctrl-D to leave)\n", stderr);
            warned = true;
        } else if (end == LINE_READ) {
            warned = false;
            take_turn(h, &turn, literal);
        } else {
            h->leaving = true;
            h->failed = h->failed || end == LINE_WRONG || (end == LINE_SIGNAL && (terminated() || !h->interactive));
            if (h->interactive) fputc('\n', stderr);
        }
    }
    text_free(&turn);
}

/* The context where the user left it open: the model's own up to 4096 tokens, or what of it the budget allows. */
static uint32_t choose_context(work *w)
{
    enum { USUAL = 4096, LEAST = 256 };
    uint32_t context = w->model.max_context && w->model.max_context < USUAL ? w->model.max_context : USUAL;
    if (w->options->context || !w->model.has_weights) return context;
    for (; context / 2 >= LEAST; context /= 2) {
        lamina_budget budget = work_budget(w->options, context);
        lamina_plan_info plan;
        lamina_error err;
        if (lamina_plan(w->engine, &budget, &plan, &err) != LAMINA_E_BUDGET) break;
    }
    return context;
}

int chat_command(const options *o)
{
    chat h = {.interactive = isatty(STDIN_FILENO)};
    int code = work_open(&h.w, o, WORK_STREAMS_TEXT);
    if (code == EXIT_DONE) code = work_need_tokenizer(&h.w, "chat speaks text only");
    if (code == EXIT_DONE) code = conversation_open(&h.c, &h.w);
    if (code == EXIT_DONE) code = work_start(&h.w, choose_context(&h.w), 1);
    if (code == EXIT_DONE) {
        note(&h, "%s, a context of %u tokens; /help lists commands", h.w.model.family, h.w.plan.context);
        converse(&h);
        if (h.failed && !h.interactive) code = EXIT_FAILED;
    }
    conversation_close(&h.c);
    work_close(&h.w);
    return code;
}

/* Owns: the table of options and the reading of arguments against it.
 *
 * Promises: what an option means is said once, here; parsing, --help, the manual page and completion follow from the
 * rows. A wrong argument gives one line that says what was expected and what was found, with the nearest name, and
 * EXIT_USAGE. Nothing is guessed: a value that is out of range is refused, never clamped.
 *
 * Why a table: options of a dozen commands drift apart when each parses its own. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BIT(c) (1u << (c))
#define ALL_MODEL                                                                                                      \
    (BIT(CMD_RUN) | BIT(CMD_CHAT) | BIT(CMD_PACK) | BIT(CMD_PLAN) | BIT(CMD_INSPECT) | BIT(CMD_VERIFY) |               \
     BIT(CMD_LOGITS) | BIT(CMD_TOKENIZE) | BIT(CMD_DETOKENIZE) | BIT(CMD_TEMPLATE) | BIT(CMD_EVAL) | BIT(CMD_BENCH))
#define PASSES      (GENERATES | BIT(CMD_LOGITS) | BIT(CMD_EVAL) | BIT(CMD_BENCH))
#define GENERATES   (BIT(CMD_RUN) | BIT(CMD_CHAT))
#define PLANS       (PASSES | BIT(CMD_PLAN))
#define CHATS       (GENERATES | BIT(CMD_TEMPLATE))
#define ONLY(c)     BIT(c)
#define AT(field)   offsetof(options, field)
#define U32_TOP     4294967295.0
#define CONTEXT_TOP 2147483647.0

const char *const option_group_names[GROUP_COUNT] = {"Input",  "Generation", "Memory and reading",
                                                     "Engine", "Output",     "Testing"};

/* clang-format off */
const option_row option_table[] = {
    {"prompt", 'p', KIND_TEXT, GROUP_INPUT, ONLY(CMD_RUN) | ONLY(CMD_LOGITS) | ONLY(CMD_TOKENIZE), AT(prompt), "TEXT", 0, 0,
     "the text, as it stands: no template is applied"},
    {"file", 'f', KIND_TEXT, GROUP_INPUT,
     ONLY(CMD_RUN) | ONLY(CMD_LOGITS) | ONLY(CMD_TOKENIZE) | ONLY(CMD_DETOKENIZE), AT(file), "FILE", 0, 0,
     "the text (detokenize: the ids) from a file; - reads\nstandard input"},
    {"ids", 0, KIND_IDS, GROUP_INPUT, ONLY(CMD_RUN) | ONLY(CMD_LOGITS) | ONLY(CMD_DETOKENIZE), AT(ids), "1,2,3", 0, 0,
     "token ids instead of text; needs no tokenizer"},
    {"jsonl", 0, KIND_FLAG, GROUP_INPUT, ONLY(CMD_TOKENIZE) | ONLY(CMD_DETOKENIZE), AT(jsonl), NULL, 0, 0,
     "standard input, a line each: a JSON string in and a\nJSON array of ids out; detokenize: the reverse"},
    {"no-special", 0, KIND_FLAG, GROUP_INPUT,
     ONLY(CMD_RUN) | ONLY(CMD_LOGITS) | ONLY(CMD_TOKENIZE) | ONLY(CMD_DETOKENIZE) | ONLY(CMD_EVAL), AT(no_special), NULL, 0, 0,
     "add no BOS or EOS to a text; detokenize: leave special\ntokens out, as it does by default"},
    {"special", 0, KIND_FLAG, GROUP_INPUT, ONLY(CMD_DETOKENIZE), AT(special), NULL, 0, 0,
     "spell special tokens too"},
    {"plain", 0, KIND_FLAG, GROUP_INPUT, ONLY(CMD_RUN) | ONLY(CMD_LOGITS) | ONLY(CMD_TOKENIZE) | ONLY(CMD_EVAL), AT(plain), NULL, 0, 0,
     "spellings of special tokens are ordinary text"},

    {"messages", 0, KIND_TEXT, GROUP_INPUT, CHATS, AT(messages), "FILE", 0, 0,
     "a conversation as JSON, an array of objects with role\nand content, through the model's chat template; - reads\nstandard input"},
    {"system", 0, KIND_TEXT, GROUP_INPUT, ONLY(CMD_CHAT), AT(system), "TEXT", 0, 0,
     "the system message to begin with"},
    {"tools", 0, KIND_TEXT, GROUP_INPUT, CHATS, AT(tools), "FILE", 0, 0,
     "with --messages: a JSON array that describes functions"},
    {"variables", 0, KIND_TEXT, GROUP_INPUT, CHATS, AT(variables), "FILE", 0, 0,
     "with --messages: a JSON object of further variables for\nthe template, as {\"enable_thinking\": false}"},
    {"template", 0, KIND_TEXT, GROUP_INPUT, CHATS, AT(template_file), "FILE", 0, 0,
     "with --messages: a chat template instead of the model's"},
    {"no-generation-prompt", 0, KIND_FLAG, GROUP_INPUT, ONLY(CMD_RUN) | ONLY(CMD_TEMPLATE), AT(no_generation_prompt), NULL, 0, 0,
     "with --messages: do not open the answer at the end"},

    {"tokens", 'n', KIND_COUNT, GROUP_GENERATION, ONLY(CMD_RUN), AT(n), "N", 0, CONTEXT_TOP,
     "tokens to generate at most (default 128)"},
    {"tokens", 'n', KIND_COUNT, GROUP_GENERATION, ONLY(CMD_CHAT), AT(n), "N", 1, CONTEXT_TOP,
     "tokens of an answer at most (default 1024)"},
    {"tokens", 'n', KIND_COUNT, GROUP_INPUT, ONLY(CMD_EVAL), AT(n), "N", 2, CONTEXT_TOP,
     "use the first N tokens of the text (default: all)"},
    {"against", 0, KIND_TEXT, GROUP_INPUT, ONLY(CMD_EVAL), AT(against), "PATH", 0, 0,
     "the reference: another model of the same vocabulary,\nscored first within the same budget"},
    {"logits-cache", 0, KIND_TEXT, GROUP_INPUT, ONLY(CMD_EVAL), AT(logits_cache), "FILE", 0, 0,
     "where the reference's logits are kept: written if it is\nnot there, else used again, also without --against\n(default: a temporary file in $TMPDIR or /var/tmp)"},
    {"temperature", 0, KIND_REAL, GROUP_GENERATION, GENERATES, AT(temperature), "T", 0, 100,
     "0 takes the likeliest token (default 0)"},
    {"top-k", 0, KIND_COUNT, GROUP_GENERATION, GENERATES, AT(top_k), "K", 0, U32_TOP,
     "sample among the K likeliest; 0: off (default)"},
    {"top-p", 0, KIND_REAL, GROUP_GENERATION, GENERATES, AT(top_p), "P", 0, 1,
     "sample among the likeliest that together reach P;\n1: off (default)"},
    {"min-p", 0, KIND_REAL, GROUP_GENERATION, GENERATES, AT(min_p), "P", 0, 1,
     "leave out tokens below P times the likeliest one's\nprobability; 0: off (default)"},
    {"repetition-penalty", 0, KIND_REAL, GROUP_GENERATION, GENERATES, AT(repetition_penalty), "R", 0.01, 100,
     "divide the logits of tokens already seen by R;\n1: off (default)"},
    {"seed", 0, KIND_NUMBER, GROUP_GENERATION, GENERATES | ONLY(CMD_BENCH), AT(seed), "N", 0, 0,
     "of the random numbers (default 0): the same seed, the\nsame text, on every machine"},
    {"stop", 0, KIND_TEXTS, GROUP_GENERATION, GENERATES, AT(stops), "TEXT", 0, 0,
     "end before this text; may be given up to 16 times"},
    {"ignore-eos", 0, KIND_FLAG, GROUP_GENERATION, GENERATES, AT(ignore_eos), NULL, 0, 0,
     "go on after the model's end-of-text token"},

    {"memory", 0, KIND_SIZE, GROUP_MEMORY, PASSES | ONLY(CMD_PACK), AT(memory), "SIZE", 0, 0,
     "bound of the process's peak resident size, as 512M or\n1.5G (default: what is free here less a margin;\npack: 64M of buffers)"},
    {"memory", 0, KIND_SIZES, GROUP_MEMORY, ONLY(CMD_PLAN), AT(memories), "SIZE[,SIZE...]", 0, 0,
     "budgets to compare, as 512M,4G (default: a ladder from\nthe least to everything resident)"},
    {"context", 0, KIND_COUNT, GROUP_MEMORY, PLANS, AT(context), "N", 1, CONTEXT_TOP,
     "tokens a session can hold (default: what the command\nneeds; plan and eval: 2048 or the model's own maximum;\nchat: 4096 or that)"},
    {"rows", 0, KIND_COUNT, GROUP_MEMORY, PLANS, AT(rows), "N", 1, CONTEXT_TOP,
     "tokens per pass at most (default: what the budget\nallows)"},
    {"kv", 0, KIND_CHOICE, GROUP_MEMORY, PLANS, AT(kv), "f32|f16", 0, 0,
     "how keys and values are held (default f32)"},
    {"ring", 0, KIND_SIZE, GROUP_MEMORY, PLANS, AT(ring), "SIZE", 0, 0,
     "bytes of read-ahead (default: chosen)"},
    {"chunk", 0, KIND_SIZE, GROUP_MEMORY, PLANS, AT(chunk), "SIZE", 0, 0,
     "bytes per read (default: chosen)"},
    {"disk", 0, KIND_SIZE, GROUP_MEMORY, ONLY(CMD_PLAN), AT(disk), "RATE", 0, 0,
     "bytes per second to predict with, as 1.2G (default:\nmeasured on the model's own files)"},
    {"io", 0, KIND_CHOICE, GROUP_MEMORY, PASSES | ONLY(CMD_PLAN) | ONLY(CMD_VERIFY), AT(io), "auto|io_uring|pread|buffered", 0, 0,
     "how weights are read (default auto)"},

    {"threads", 't', KIND_COUNT, GROUP_ENGINE, PLANS | ONLY(CMD_PACK) | ONLY(CMD_VERIFY), AT(threads), "N", 1, 1024,
     "compute threads (default: one per core)"},
    {"isa", 0, KIND_CHOICE, GROUP_ENGINE, PASSES, AT(isa), "best|scalar|avx2|avx512|neon", 0, 0,
     "the highest instruction set used; all give the same\nbits (default best)"},
    {"ignore-config", 0, KIND_TEXT, GROUP_ENGINE, ALL_MODEL, AT(ignore_config), "KEYS", 0, 0,
     "keys of config.json to accept without understanding\nthem, separated by commas"},
    {"stride", 0, KIND_COUNT, GROUP_ENGINE, ONLY(CMD_EVAL), AT(stride), "N", 1, CONTEXT_TOP,
     "tokens from one window to the next (default: half the\ncontext)"},
    {"rounds", 0, KIND_COUNT, GROUP_ENGINE, ONLY(CMD_BENCH), AT(rounds), "N", 1, 1000,
     "repetitions of each measurement (default 3)"},
    {"seconds", 0, KIND_REAL, GROUP_ENGINE, ONLY(CMD_BENCH), AT(seconds), "S", 0.01, 3600,
     "least length of each measurement (default 3)"},
    {"prompt-tokens", 0, KIND_COUNT, GROUP_ENGINE, ONLY(CMD_BENCH), AT(prompt_tokens), "N", 0, 1048576,
     "length of the prompt that is timed; 0: none (default\n256)"},

    {"output", 'o', KIND_TEXT, GROUP_OUTPUT, ONLY(CMD_PACK) | ONLY(CMD_LOGITS), AT(output), "PATH", 0, 0,
     "where to: the store's folder, or the .npy file"},
    {"dtype", 0, KIND_TEXT, GROUP_OUTPUT, ONLY(CMD_PACK), AT(dtype), "SPEC", 0, 0,
     "store weights in fewer bytes: packed (bf16, f16, and f32\nwidened from these, every bit kept), or types of blocks,\nwith patterns as in q4_k,*.down=q6_k,head=q8_0; bits=4.5\nor size=3500M: types are chosen for the least change of\nthe answer; original: what was packed as it was before"},
    {"calibrate", 0, KIND_TEXT, GROUP_OUTPUT, ONLY(CMD_PACK), AT(calibrate), "FILE", 0, 0,
     "judge types and roundings by what the model makes of\nthis text (UTF-8), not by the weights alone"},
    {"delete-original", 0, KIND_FLAG, GROUP_OUTPUT, ONLY(CMD_PACK), AT(delete_original), NULL, 0, 0,
     "remove each source file once all that came from it has\nbeen read back and verified"},
    {"last", 0, KIND_FLAG, GROUP_OUTPUT, ONLY(CMD_LOGITS), AT(last), NULL, 0, 0,
     "only the logits after the last token: [1, vocab]"},
    {"tensors", 0, KIND_FLAG, GROUP_OUTPUT, ONLY(CMD_INSPECT), AT(tensors), NULL, 0, 0,
     "only the table of tensors"},
    {"brief", 0, KIND_FLAG, GROUP_OUTPUT, ONLY(CMD_INSPECT), AT(brief), NULL, 0, 0,
     "everything but the table of tensors"},
    {"json", 0, KIND_FLAG, GROUP_OUTPUT, ALL_MODEL & ~ONLY(CMD_CHAT), AT(json), NULL, 0, 0,
     "one JSON object on standard output: result and\nstatistics"},
    {"stats", 0, KIND_FLAG, GROUP_OUTPUT, GENERATES | ONLY(CMD_LOGITS) | ONLY(CMD_EVAL), AT(stats), NULL, 0, 0,
     "where the time and the memory went, on standard error"},
    {"progress", 0, KIND_FLAG, GROUP_OUTPUT, PASSES | ONLY(CMD_PACK) | ONLY(CMD_VERIFY), AT(progress), NULL, 0, 0,
     "show progress even where standard error is no terminal"},
    {"trace", 0, KIND_TEXT, GROUP_OUTPUT, PASSES, AT(trace), "FILE", 0, 0,
     "write reads, waits and kernels as Chrome trace events"},
    {"help", 'h', KIND_FLAG, GROUP_OUTPUT, ALL_MODEL | ONLY(CMD_FAMILIES) | ONLY(CMD_COMPLETION) | ONLY(CMD_HELP), AT(help), NULL, 0, 0,
     "this text"},

    {"faults", 0, KIND_FAULTS, GROUP_TESTING, ALL_MODEL, AT(faults), "SPEC", 0, 0,
     "fail on purpose: alloc=N and read=N fail the N-th,\nshort=N shortens every N-th read, delay=US slows each;\nseveral with commas"},
};
/* clang-format on */
const size_t option_count = sizeof option_table / sizeof *option_table;

/* ---- suggestions ---------------------------------------------------------------------------------------------- */

enum { WORD_TOP = 40 };

/* Edits (insert, delete, replace, swap neighbours) between two words; large when either is long. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    if (na > WORD_TOP || nb > WORD_TOP) return WORD_TOP;
    size_t d[WORD_TOP + 1][WORD_TOP + 1];
    for (size_t i = 0; i <= na; i++) d[i][0] = i;
    for (size_t j = 0; j <= nb; j++) d[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        for (size_t j = 1; j <= nb; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[na][nb];
}

const char *nearest_word(const char *word, const char *(*word_at)(const void *user, size_t i), const void *user,
                         size_t n)
{
    const char *best = NULL;
    size_t least = strlen(word) < 4 ? 2 : 3; /* what is further away is another word */
    for (size_t i = 0; i < n; i++) {
        const char *candidate = word_at(user, i);
        if (!candidate) continue;
        size_t d = edit_distance(word, candidate);
        if (strlen(word) >= 3 && !strncmp(candidate, word, strlen(word)) && d > 1) d = 1; /* a beginning */
        if (d < least) {
            least = d;
            best = candidate;
        }
    }
    return best;
}

static const char *option_at(const void *user, size_t i)
{
    command_id id = *(const command_id *)user;
    return option_table[i].commands & BIT(id) ? option_table[i].name : NULL;
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

/* How an option was written, for messages: "--memory" or "-n". */
static const char *spelled(const option_row *row, label *l)
{
    snprintf(l->text, sizeof l->text, "--%s", row->name);
    return l->text;
}

static int wrong(const option_row *row, const char *expected, const char *found)
{
    label l;
    return fail_usage("%s: expected %s, found '%.200s'", spelled(row, &l), expected, found);
}

/* "512M", "1.5G", "4GiB", "100": bytes; *end is the first character after it. */
static bool parse_size(const char *text, uint64_t *bytes, const char **end)
{
    if (*text < '0' || *text > '9') return false;
    char *after;
    errno = 0;
    double value = strtod(text, &after);
    if (errno || strpbrk(text, "xXeE") != NULL) return false;
    static const char units[] = "KMGTP";
    const char *unit = *after ? strchr(units, *after >= 'a' && *after <= 'z' ? *after - 'a' + 'A' : *after) : NULL;
    if (unit) {
        value = ldexp(value, 10 * (int)(unit - units + 1));
        after++;
        if (*after == 'i') after++;
    }
    if (*after == 'B') after++;
    *end = after;
    if (!(value < 9.0e18)) return false;
    *bytes = (uint64_t)value;
    return *bytes > 0;
}

static int set_sizes(const option_row *row, const char *text, size_list *list)
{
    list->n = 0;
    for (const char *at = text;; at++) {
        if (list->n == MAX_BUDGETS) return wrong(row, "at most 16 sizes", text);
        if (!parse_size(at, &list->data[list->n], &at) || (*at && *at != ','))
            return wrong(row, "sizes such as 512M or 1.5G, separated by commas", text);
        list->n++;
        if (!*at) return EXIT_DONE;
    }
}

static int set_whole(const option_row *row, const char *text, void *field)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    bool good = end && !*end && !errno;
    if (row->kind == KIND_NUMBER) {
        if (!good) return wrong(row, "a whole number", text);
        *(uint64_t *)field = value;
        return EXIT_DONE;
    }
    if (!good || (double)value < row->least || (double)value > row->most) {
        char expected[80];
        snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", row->least, row->most);
        return wrong(row, expected, text);
    }
    *(uint32_t *)field = (uint32_t)value;
    return EXIT_DONE;
}

static int set_real(const option_row *row, const char *text, double *field)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || errno || !(value >= row->least && value <= row->most)) {
        char expected[80];
        snprintf(expected, sizeof expected, "a number from %g to %g", row->least, row->most);
        return wrong(row, expected, text);
    }
    *field = value;
    return EXIT_DONE;
}

static int set_choice(const option_row *row, const char *text, int *field)
{
    size_t n = strlen(text);
    int place = 0;
    for (const char *at = row->metavar; at; place++) {
        const char *bar = strchr(at, '|');
        size_t length = bar ? (size_t)(bar - at) : strlen(at);
        if (length == n && !strncmp(at, text, n)) {
            *field = place;
            return EXIT_DONE;
        }
        at = bar ? bar + 1 : NULL;
    }
    char expected[80];
    snprintf(expected, sizeof expected, "one of %s", row->metavar);
    return wrong(row, expected, text);
}

static int set_ids(const option_row *row, const char *text, id_list *list)
{
    bool no_memory = false;
    const char *bad = ids_parse(text, list, &no_memory);
    if (no_memory) return fail("out of memory");
    if (bad) return wrong(row, "token ids separated by commas", bad);
    if (!list->n) return wrong(row, "at least one token id", text);
    return EXIT_DONE;
}

static int set_faults(const option_row *row, const char *text, lamina_faults *faults)
{
    static const char *const names[] = {"alloc=", "read=", "short=", "delay="};
    for (const char *at = text;;) {
        size_t which = 0;
        while (which < 4 && strncmp(at, names[which], strlen(names[which]))) which++;
        char *end = NULL;
        errno = 0;
        unsigned long long value = 0;
        if (which < 4 && at[strlen(names[which])] >= '0' && at[strlen(names[which])] <= '9')
            value = strtoull(at + strlen(names[which]), &end, 10);
        if (!end || errno || (*end && *end != ',') || (which == 3 && value > 60000000))
            return wrong(row, "alloc=N, read=N, short=N or delay=MICROSECONDS, separated by commas", at);
        if (which == 0) faults->fail_alloc = value;
        if (which == 1) faults->fail_read = value;
        if (which == 2) faults->short_read_every = value;
        if (which == 3) faults->read_delay_us = (uint32_t)value;
        if (!*end) return EXIT_DONE;
        at = end + 1;
    }
}

static int set_value(options *o, const option_row *row, const char *text)
{
    void *field = (char *)o + row->offset;
    switch (row->kind) {
    case KIND_FLAG:
        *(bool *)field = true;
        return EXIT_DONE;
    case KIND_TEXT:
        *(const char **)field = text;
        return EXIT_DONE;
    case KIND_TEXTS: {
        text_list *list = field;
        if (list->n == MAX_STOPS) return wrong(row, "at most 16 of them", text);
        if (!*text) return wrong(row, "a text that is not empty", text);
        list->data[list->n++] = text;
        return EXIT_DONE;
    }
    case KIND_SIZE: {
        const char *end;
        if (!parse_size(text, field, &end) || *end) return wrong(row, "a size such as 512M or 1.5G", text);
        return EXIT_DONE;
    }
    case KIND_SIZES:
        return set_sizes(row, text, field);
    case KIND_COUNT:
    case KIND_NUMBER:
        return set_whole(row, text, field);
    case KIND_REAL:
        return set_real(row, text, field);
    case KIND_CHOICE:
        return set_choice(row, text, field);
    case KIND_IDS:
        return set_ids(row, text, field);
    case KIND_FAULTS:
        return set_faults(row, text, field);
    }
    return EXIT_USAGE;
}

/* ---- arguments -------------------------------------------------------------------------------------------------- */

static const option_row *find_option(command_id id, const char *name, size_t n, char letter)
{
    for (size_t i = 0; i < option_count; i++) {
        const option_row *row = &option_table[i];
        if (!(row->commands & BIT(id))) continue;
        if (letter ? row->letter == letter : strlen(row->name) == n && !strncmp(row->name, name, n)) return row;
    }
    return NULL;
}

/* The option is not one of this command: say whose it is, or what was perhaps meant. */
static int unknown_option(command_id id, const char *name, size_t n, char letter)
{
    char word[64];
    if (letter)
        snprintf(word, sizeof word, "-%c", letter);
    else
        snprintf(word, sizeof word, "--%.*s", n > 60 ? 60 : (int)n, name);
    char owners[160] = "";
    for (int c = 0; c < CMD_COUNT; c++) {
        if (!find_option((command_id)c, name, n, letter)) continue;
        size_t used = strlen(owners);
        snprintf(owners + used, sizeof owners - used, "%s%s", used ? ", " : "", commands[c].name);
    }
    if (*owners) return fail_usage("%s does not take %s (these do: %s)", commands[id].name, word, owners);
    const char *near = letter ? NULL : nearest_word(word + 2, option_at, &id, option_count);
    if (near) return fail_usage("%s: no option %s; did you mean --%s?", commands[id].name, word, near);
    return fail_usage("%s: no option %s; 'lamina %s --help' lists them", commands[id].name, word, commands[id].name);
}

/* One argument that begins with a dash; *i moves over its value. */
static int parse_option(options *o, int argc, char **argv, int *i)
{
    const char *argument = argv[*i], *value = NULL;
    bool is_long = argument[1] == '-';
    const char *name = argument + (is_long ? 2 : 1);
    size_t n = is_long ? strcspn(name, "=") : 1;
    char letter = is_long ? 0 : *name;
    const option_row *row = find_option(o->command, name, n, letter);
    if (!row) return unknown_option(o->command, name, n, letter);
    if (is_long && name[n] == '=') value = name + n + 1;
    if (!is_long && name[1]) value = name + 1;
    if (row->kind == KIND_FLAG) {
        if (value) return fail_usage("--%s takes no value, found '%.200s'", row->name, value);
        return set_value(o, row, "");
    }
    if (!value) {
        if (*i + 1 >= argc) return fail_usage("%.64s: expected %s after it, found nothing", argument, row->metavar);
        value = argv[++*i];
    }
    return set_value(o, row, value);
}

static int fail_surplus(command_id id, const char *operand)
{
    bool takes_text = id == CMD_RUN || id == CMD_LOGITS || id == CMD_TOKENIZE;
    const char *wanted = commands[id].operands;
    return fail_usage("%s: expected %s, found '%.200s' too%s", commands[id].name, *wanted ? wanted : "no operand",
                      operand, takes_text ? " (a text is given with -p)" : "");
}

/* Are as many operands there as the command wants? */
static int check_operands(const options *o)
{
    const char *wanted = commands[o->command].operands;
    size_t least = 0, words = 0;
    for (const char *at = wanted; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
        words++;
        if (*at != '[') least++;
    }
    if (o->n_operands < least) {
        const char *missing = wanted;
        for (size_t i = 0; i < o->n_operands; i++) missing += strcspn(missing, " ") + 1;
        return fail_usage("%s: expected %s, found %s", commands[o->command].name, missing,
                          o->n_operands ? "nothing more" : "nothing");
    }
    if (o->n_operands > words) return fail_surplus(o->command, o->operands[words]);
    return EXIT_DONE;
}

int options_parse(options *o, command_id id, int argc, char **argv)
{
    *o = (options){.command = id,
                   .temperature = 0,
                   .top_p = 1,
                   .repetition_penalty = 1,
                   .rounds = 3,
                   .seconds = 3,
                   .prompt_tokens = 256};
    if (id == CMD_RUN) o->n = 128;
    if (id == CMD_CHAT) o->n = 1024;
    bool only_operands = false;
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i];
        if (only_operands || argument[0] != '-' || !argument[1]) {
            if (o->n_operands == MAX_OPERANDS) return fail_surplus(id, argument);
            o->operands[o->n_operands++] = argument;
        } else if (!strcmp(argument, "--")) {
            only_operands = true;
        } else {
            int code = parse_option(o, argc, argv, &i);
            if (code != EXIT_DONE) return code;
        }
    }
    return o->help ? EXIT_DONE : check_operands(o);
}

void options_free(options *o)
{
    ids_free(&o->ids);
}

/* Arguments to options, without running anything: what is accepted, what is refused, and what a table of options must
 * satisfy for help and completion to be made from it. */
#include "test.h"

#include "cli.h"

static int parse(options *o, command_id id, int argc, char **argv)
{
    int code = options_parse(o, id, argc, argv);
    options_free(o);
    return code;
}

static int parse_one(options *o, command_id id, const char *option, const char *value)
{
    static char model[] = "m", a[64], b[64]; /* the options point into them */
    char *argv[] = {model, a, b};
    snprintf(a, sizeof a, "%s", option);
    snprintf(b, sizeof b, "%s", value ? value : "");
    return parse(o, id, value ? 3 : 2, argv);
}

static void sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: refused */
    } cases[] = {{"1", 1},
                 {"512M", 512u << 20},
                 {"4G", 4ull << 30},
                 {"1.5G", 3ull << 29},
                 {"2GiB", 2ull << 30},
                 {"3k", 3072},
                 {"10MB", 10u << 20},
                 {"1T", 1ull << 40},
                 {"", 0},
                 {"0", 0},
                 {"-1", 0},
                 {"M", 0},
                 {"1e3", 0},
                 {"0x10", 0},
                 {"4X", 0},
                 {"9999999999P", 0},
                 {"1.5.5G", 0},
                 {"5 G", 0},
                 {"nan", 0},
                 {"inf", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options o = {0};
        int code = parse_one(&o, CMD_RUN, "--memory", cases[i].text);
        CHECK(code == (cases[i].bytes ? EXIT_DONE : EXIT_USAGE), "'%s' gave %d", cases[i].text, code);
        if (cases[i].bytes)
            CHECK(o.memory == cases[i].bytes, "'%s' is %llu", cases[i].text, (unsigned long long)o.memory);
    }
}

static void lists_of_ids(void)
{
    static const struct {
        const char *text;
        size_t n; /* 0: refused, unless the text is empty */
    } cases[] = {{"1,2,3", 3},
                 {"1 2\n3", 3},
                 {"[1, 2, 3]", 3},
                 {"2147483647", 1},
                 {"", 0},
                 {"[]", 0},
                 {"2147483648", 0},
                 {"-1", 0},
                 {"1,,2", 0},
                 {"1,", 0},
                 {"1x", 0},
                 {"[1,2] 3", 0},
                 {"18446744073709551616", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        id_list ids = {0};
        bool no_memory;
        const char *bad = ids_parse(cases[i].text, &ids, &no_memory);
        bool empty = !*cases[i].text || !strcmp(cases[i].text, "[]");
        CHECK(!no_memory && (bad == NULL) == (cases[i].n > 0 || empty), "'%s'", cases[i].text);
        if (!bad) CHECK(ids.n == cases[i].n, "'%s' has %zu", cases[i].text, ids.n);
        ids_free(&ids);
    }
}

static void forms_of_an_option(void)
{
    options o = {0};
    CHECK(parse_one(&o, CMD_RUN, "-n5", NULL) == EXIT_DONE && o.n == 5, "-n5 is %u", o.n);
    CHECK(parse_one(&o, CMD_RUN, "--tokens=6", NULL) == EXIT_DONE && o.n == 6, "--tokens=6 is %u", o.n);
    CHECK(parse_one(&o, CMD_RUN, "--tokens", "7") == EXIT_DONE && o.n == 7, "--tokens 7 is %u", o.n);
    CHECK(parse_one(&o, CMD_RUN, "-p", "--json") == EXIT_DONE && !strcmp(o.prompt, "--json") && !o.json,
          "a value may look like an option");
    CHECK(parse_one(&o, CMD_RUN, "--", "-p") == EXIT_USAGE, "after -- all are operands, and two are too many");
    CHECK(parse_one(&o, CMD_RUN, "--kv", "f16") == EXIT_DONE && o.kv == LAMINA_KV_F16, "--kv f16 is %d", o.kv);
    CHECK(parse_one(&o, CMD_RUN, "--io", "buffered") == EXIT_DONE && o.io == LAMINA_IO_BUFFERED, "--io is %d", o.io);
    CHECK(parse_one(&o, CMD_RUN, "--isa", "neon") == EXIT_DONE && o.isa == LAMINA_ISA_NEON, "--isa is %d", o.isa);
    CHECK(parse_one(&o, CMD_RUN, "--i", "neon") == EXIT_USAGE, "no abbreviations");
    CHECK(parse_one(&o, CMD_PLAN, "--memory", "1G,2G") == EXIT_DONE && o.memories.n == 2 &&
              o.memories.data[1] == 2ull << 30,
          "a list of budgets");
    CHECK(parse_one(&o, CMD_RUN, "--faults", "alloc=3,delay=50") == EXIT_DONE && o.faults.fail_alloc == 3 &&
              o.faults.read_delay_us == 50,
          "faults");
}

/* Rows of one command never share a name or a letter; help fits a terminal; every row belongs somewhere. */
static void the_table_is_sound(void)
{
    for (size_t i = 0; i < option_count; i++) {
        const option_row *a = &option_table[i];
        CHECK(a->commands != 0 && a->commands >> CMD_COUNT == 0, "--%s belongs to no command", a->name);
        CHECK((a->kind == KIND_FLAG) == (a->metavar == NULL), "--%s: a metavar is for what takes a value", a->name);
        for (const char *line = a->help; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
            CHECK(strcspn(line, "\n") <= 56, "--%s: a line of its help has %zu characters", a->name,
                  strcspn(line, "\n"));
        for (size_t k = i + 1; k < option_count; k++) {
            const option_row *b = &option_table[k];
            if (!(a->commands & b->commands)) continue;
            CHECK(strcmp(a->name, b->name) != 0, "--%s stands twice", a->name);
            CHECK(!a->letter || a->letter != b->letter, "-%c stands twice", a->letter);
        }
    }
    for (int c = 0; c < CMD_COUNT; c++)
        CHECK(commands[c].name && commands[c].run && commands[c].summary, "command %d", c);
}

static void sizes_for_people(void)
{
    CHECK(!strcmp(human_bytes(0).text, "0 B"), "%s", human_bytes(0).text);
    CHECK(!strcmp(human_bytes(1023).text, "1023 B"), "%s", human_bytes(1023).text);
    CHECK(!strcmp(human_bytes(3u << 29).text, "1.50 GiB"), "%s", human_bytes(3u << 29).text);
    CHECK(!strcmp(human_bytes((1u << 30) - 1).text, "1.00 GiB"), "%s", human_bytes((1u << 30) - 1).text);
    CHECK(!strcmp(human_rate(1.234e9).text, "1.23 GB/s"), "%s", human_rate(1.234e9).text);
    CHECK(!strcmp(human_rate(0).text, "unknown"), "%s", human_rate(0).text);
    CHECK(!strcmp(human_seconds(125).text, "2 min 05 s"), "%s", human_seconds(125).text);
    CHECK(!strcmp(human_seconds(-1).text, "unknown"), "%s", human_seconds(-1).text);
}

static const char *word_at(const void *user, size_t i)
{
    return ((const char *const *)user)[i];
}

static void suggestions(void)
{
    static const char *const words[] = {"run", "pack", "plan", "verify", "tokenize", "detokenize"};
    static const struct {
        const char *typed, *meant;
    } cases[] = {{"rnu", "run"},           {"plna", "plan"}, {"verfy", "verify"},
                 {"tokenise", "tokenize"}, {"xyzzy", NULL},  {"", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *found = nearest_word(cases[i].typed, word_at, words, sizeof words / sizeof *words);
        CHECK(found == cases[i].meant || (found && cases[i].meant && !strcmp(found, cases[i].meant)), "'%s' gave %s",
              cases[i].typed, found ? found : "nothing");
    }
}

TEST_MAIN(T(sizes), T(lists_of_ids), T(forms_of_an_option), T(the_table_is_sound), T(sizes_for_people), T(suggestions))

/* Owns: which command runs.
 *
 * Promises: exit code 0 done, 1 failed, 2 wrong usage; whatever goes wrong is one line on standard error. */
#include "cli.h"

#include <signal.h>
#include <string.h>

static int run_named(const char *name, int argc, char **argv)
{
    command_id id;
    if (!find_command(name, &id)) return unknown_command(name);
    options o;
    int code = options_parse(&o, id, argc, argv);
    if (code == EXIT_DONE && o.help) {
        print_command_help(stdout, id);
        code = finish_stdout();
    } else if (code == EXIT_DONE) {
        code = commands[id].run(&o);
    }
    options_free(&o);
    return code;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is a failed write, not a death */
    if (argc < 2) return fail_usage("expected a command, found nothing; 'lamina --help' lists them");
    const char *first = argv[1];
    if (!strcmp(first, "--help") || !strcmp(first, "-h")) {
        print_overview(stdout);
        return finish_stdout();
    }
    if (!strcmp(first, "--version")) {
        printf("lamina %s\n", LAMINA_VERSION);
        return finish_stdout();
    }
    if (!strcmp(first, "--man")) {
        print_manual(stdout);
        return finish_stdout();
    }
    if (first[0] == '-') return fail_usage("expected a command before '%.64s'; 'lamina --help' lists them", first);
    return run_named(first, argc - 2, argv + 2);
}

/* Owns: `lamina families`: the table of families as Markdown, which README carries too.
 *
 * Promises: it is the library's own table, so that no list of families can be out of date. */
#include "cli.h"

static void print_row(const lamina_family_info *f)
{
    printf("| %s | `%s`", f->title, f->name);
    for (const char *const *type = f->model_types; *type; type++) printf(", `%s`", *type);
    if (f->architecture)
        printf(" | `%s` |\n", f->architecture);
    else
        printf(" | |\n");
}

int families_command(const options *o)
{
    if (o->n_operands) return fail_usage("families: expected nothing more, found '%.64s'", o->operands[0]);
    lamina_family_info f;
    printf("| models | `model_type` | GGUF |\n|---|---|---|\n");
    for (size_t i = 0; lamina_family(i, &f); i++)
        if (f.title) print_row(&f);
    return finish_stdout();
}

/* Owns: everything that explains the program: the overview, each command's help, the manual page (roff), completion for
 * bash. All of it is made from the tables of commands and options, so none of it can disagree with what is parsed. */
#include "cli.h"

#include <string.h>

static bool takes(command_id id, const option_row *row)
{
    return (row->commands >> id) & 1u;
}

static bool has_model(command_id id)
{
    return id != CMD_FAMILIES && id != CMD_COMPLETION && id != CMD_HELP;
}

void print_overview(FILE *out)
{
    fprintf(out, "lamina %s: large language models that do not fit in memory\n\n", LAMINA_VERSION);
    fprintf(out, "usage: lamina COMMAND ... [options]\n\n");
    for (int c = 0; c < CMD_COUNT; c++) {
        char head[64];
        snprintf(head, sizeof head, "%s %s", commands[c].name, commands[c].operands);
        fprintf(out, "  %-18s  %s\n", head, commands[c].summary);
    }
    fprintf(out,
            "\nMODEL is a Hugging Face folder, a GGUF file or a store made by 'lamina pack'; plan also takes a\n"
            "config.json alone. Sizes are 512M, 1.5G: powers of 1024. Exit codes: 0 done, 1 failed, 2 wrong usage.\n"
            "\n'lamina COMMAND --help' lists a command's options; 'lamina --man' prints the manual page;\n"
            "'lamina --version' the version.\n");
}

/* "-n, --tokens N" */
static void option_head(const option_row *row, char *head, size_t size)
{
    char letter[8] = "    ";
    if (row->letter) snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(head, size, "%s--%s%s%s", letter, row->name, row->metavar ? " " : "", row->metavar ? row->metavar : "");
}

static void print_option(FILE *out, const option_row *row)
{
    char head[96];
    option_head(row, head, sizeof head);
    enum { COLUMN = 24 };
    int padding = COLUMN - (int)strlen(head);
    fprintf(out, "  %s", head);
    if (padding < 2) {
        fprintf(out, "\n");
        padding = COLUMN + 2;
    }
    for (const char *line = row->help; line;) {
        const char *end = strchr(line, '\n');
        int n = end ? (int)(end - line) : (int)strlen(line);
        fprintf(out, "%*s%.*s\n", padding, "", n, line);
        padding = COLUMN + 2;
        line = end ? end + 1 : NULL;
    }
}

void print_command_help(FILE *out, command_id id)
{
    const command *c = &commands[id];
    fprintf(out, "lamina %s: %s\n\nusage: lamina %s %s [options]\n\n%s\n", c->name, c->summary, c->name, c->operands,
            c->details);
    for (int g = 0; g < GROUP_COUNT; g++) {
        bool headed = false;
        for (size_t i = 0; i < option_count; i++) {
            const option_row *row = &option_table[i];
            if (row->group != (option_group)g || !takes(id, row)) continue;
            if (!headed) fprintf(out, "\n%s\n", option_group_names[g]);
            headed = true;
            print_option(out, row);
        }
    }
}

/* ---- the manual page --------------------------------------------------------------------------------------------- */

/* Text for roff: dashes that are typed, no line that begins with a control character. */
static void roff_text(FILE *out, const char *text)
{
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", out);
        if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
        line_start = *text == '\n';
        if (line_start && text[1] == '\n') {
            fputs(".PP", out); /* the empty line between paragraphs; its own line break follows */
        }
    }
    fputc('\n', out);
}

static void roff_option(FILE *out, const option_row *row)
{
    fputs(".TP\n\\fB", out);
    if (row->letter) fprintf(out, "\\-%c\\fR, \\fB", row->letter);
    fputs("\\-\\-", out);
    for (const char *at = row->name; *at; at++) fputs(*at == '-' ? "\\-" : (char[]){*at, 0}, out);
    if (row->metavar) fprintf(out, "\\fR \\fI%s", row->metavar);
    fputs("\\fR\n", out);
    roff_text(out, row->help);
}

static void manual_command(FILE *out, command_id id)
{
    const command *c = &commands[id];
    fprintf(out, ".SS lamina %s %s\n", c->name, c->operands);
    roff_text(out, c->summary);
    fputs(".PP\n", out);
    roff_text(out, c->details);
    if (!has_model(id)) return;
    fputs(".PP\nOptions:", out);
    const char *separator = " ";
    for (size_t i = 0; i < option_count; i++) {
        if (!takes(id, &option_table[i])) continue;
        fprintf(out, "%s\\-\\-", separator);
        for (const char *at = option_table[i].name; *at; at++) fputs(*at == '-' ? "\\-" : (char[]){*at, 0}, out);
        separator = ", ";
    }
    fputs(".\n", out);
}

void print_manual(FILE *out)
{
    fprintf(out, ".TH LAMINA 1 \"\" \"lamina %s\" \"User Commands\"\n", LAMINA_VERSION);
    fputs(".SH NAME\nlamina \\- large language models that do not fit in memory\n"
          ".SH SYNOPSIS\n.B lamina\n\\fICOMMAND\\fR ... [\\fIoptions\\fR]\n"
          ".SH DESCRIPTION\n"
          "The weights stay on disk and flow through a fixed budget of memory, layer by layer, once per\n"
          "forward pass; the answer is the one the full model gives. \\fIMODEL\\fR is a Hugging Face folder, a GGUF\n"
          "file or a store made by \\fBlamina pack\\fR. Sizes are read as 512M or 1.5G, powers of 1024.\n"
          ".SH COMMANDS\n",
          out);
    for (int c = 0; c < CMD_COUNT; c++) manual_command(out, (command_id)c);
    fputs(".SH OPTIONS\n", out);
    for (int g = 0; g < GROUP_COUNT; g++) {
        fprintf(out, ".SS %s\n", option_group_names[g]);
        for (size_t i = 0; i < option_count; i++)
            if (option_table[i].group == (option_group)g) roff_option(out, &option_table[i]);
    }
    fputs(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage. A failure is one line on standard error.\n"
          ".SH EXAMPLES\n.nf\n"
          "lamina plan config.json \\-\\-disk 3G\n"
          "lamina pack Llama\\-3.1\\-70B \\-o llama70.store\n"
          "lamina run llama70.store \\-\\-memory 4G \\-p \"Once upon a time\" \\-n 20\n"
          ".fi\n",
          out);
}

/* ---- completion -------------------------------------------------------------------------------------------------- */

static void completion_choices(FILE *out)
{
    for (size_t i = 0; i < option_count; i++) {
        const option_row *row = &option_table[i];
        if (row->kind != KIND_CHOICE) continue;
        fprintf(out, "    --%s) COMPREPLY=($(compgen -W \"", row->name);
        for (const char *at = row->metavar; *at; at++) fputc(*at == '|' ? ' ' : *at, out);
        fputs("\" -- \"$current\")); return ;;\n", out);
    }
}

/* Options whose value is not a name of a file: nothing is offered after them. */
static void completion_values(FILE *out)
{
    const char *separator = "    ";
    for (size_t i = 0; i < option_count; i++) {
        const option_row *row = &option_table[i];
        if (row->kind == KIND_FLAG || row->kind == KIND_CHOICE) continue;
        if (row->metavar && (!strcmp(row->metavar, "FILE") || !strcmp(row->metavar, "PATH"))) continue;
        fprintf(out, "%s--%s", separator, row->name);
        separator = "|";
        if (row->letter) fprintf(out, "|-%c", row->letter);
    }
    fputs(") return ;;\n", out);
}

void print_completion(FILE *out)
{
    fputs("# bash completion for lamina, made from its own tables: source <(lamina completion bash)\n"
          "# shellcheck disable=SC2207\n"
          "_lamina()\n{\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} options=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        COMPREPLY=($(compgen -W \"",
          out);
    for (int c = 0; c < CMD_COUNT; c++) fprintf(out, "%s ", commands[c].name);
    fputs("--help --man --version\" -- \"$current\"))\n        return\n    fi\n"
          "    case $previous in\n",
          out);
    completion_choices(out);
    completion_values(out);
    fputs("    completion) COMPREPLY=($(compgen -W bash -- \"$current\")); return ;;\n"
          "    help) COMPREPLY=($(compgen -W \"",
          out);
    for (int c = 0; c < CMD_COUNT; c++) fprintf(out, "%s%s", c ? " " : "", commands[c].name);
    fputs("\" -- \"$current\")); return ;;\n    esac\n    case ${COMP_WORDS[1]} in\n", out);
    for (int c = 0; c < CMD_COUNT; c++) {
        fprintf(out, "    %s) options=\"", commands[c].name);
        for (size_t i = 0; i < option_count; i++)
            if (takes((command_id)c, &option_table[i])) fprintf(out, "--%s ", option_table[i].name);
        fputs("\" ;;\n", out);
    }
    fputs("    esac\n"
          "    case $current in\n"
          "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$current\")) ;;\n"
          "    *) COMPREPLY=($(compgen -f -- \"$current\")) ;;\n"
          "    esac\n"
          "}\n"
          "complete -o filenames -F _lamina lamina\n",
          out);
}

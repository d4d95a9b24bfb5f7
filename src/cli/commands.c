/* Owns: the table of commands.
 *
 * Promises: a command is a name in command_id, a row here, and its function; dispatch, help, the manual page and
 * completion follow. */
#include "cli.h"

#include <string.h>

/* clang-format off */
const command commands[CMD_COUNT] = {
    [CMD_RUN] = {"run", "MODEL", "generate text",
        "The prompt (-p, -f, --ids or --messages, one) is fed as it stands, after the BOS\n"
        "token where the tokenizer's own rules add one. The text goes to standard output\n"
        "as it comes, with nothing added (on a terminal: a line break at the end).\n"
        "Decoding is greedy unless --temperature is given. Without a tokenizer, --ids\n"
        "gives the prompt and ids come out, separated by spaces. --messages makes the\n"
        "prompt of a conversation by the model's chat template.\n"
        "\n"
        "Ctrl-C ends the run after the layer at hand, with its statistics and exit code\n"
        "1; a second one ends it at once. With --json the object has text, ids (all that\n"
        "were generated, an end token included) and finish_reason: stop, length or\n"
        "interrupted.",
        run_command},
    [CMD_CHAT] = {"chat", "MODEL", "a conversation, with the model's own chat template",
        "A line is a turn; one that ends with \\ goes on, and lines between \"\"\" and \"\"\" are\n"
        "one turn. /help lists the commands (/reset, /system, /save, /load, /undo, /retry,\n"
        "/quit); a line that begins with // is sent with one slash. What was said stays\n"
        "computed: a turn feeds only what is new. --messages begins with a conversation\n"
        "that was saved; one that ends with a question is answered at once.\n"
        "\n"
        "Ctrl-C stops an answer and keeps what was said of it; at the prompt a second one\n"
        "leaves, and so does the end of input. Where standard input is no terminal, every\n"
        "line is a turn, standard output has the answers alone, each ended by a line\n"
        "break, and the exit code is 1 if a turn or a command could not be done.",
        chat_command},
    [CMD_PACK] = {"pack", "MODEL", "split a checkpoint into a store: one file per layer, checksummed",
        "The store is a folder that is read at the disk's speed and verified at any time.\n"
        "An interrupted run is resumed by the same command and does nothing twice. The\n"
        "original stays unless --delete-original is given.\n"
        "Weights are copied bit for bit. With --dtype packed those of half precision take\n"
        "about 0.71 of the bytes (bf16) or 0.89 (f16) and compute the same bits; each row is\n"
        "decoded again and compared before it is written. --dtype original makes a store\n"
        "of the first kind from one of the second.\n"
        "Types of blocks (q8_0, q6_k, q5_k, q4_k, q4_0, nf4) round: what each matrix lost is\n"
        "reported, and lamina eval --against measures what the model lost. --calibrate reads\n"
        "a text with the model first, within --memory, to learn which errors cost most.",
        pack_command},
    [CMD_PLAN] = {"plan", "MODEL", "what a memory budget buys",
        "Every term of the plan: what is resident, what each pass reads, and the predicted\n"
        "time of a token. MODEL may be a config.json alone, so that a model can be weighed\n"
        "before it is fetched; --disk then says how fast the device would be.\n"
        "Without --memory a ladder of budgets is shown, from the least that works to the\n"
        "one that keeps everything resident.",
        plan_command},
    [CMD_INSPECT] = {"inspect", "MODEL", "architecture, sizes, tensors",
        "The family whose row was chosen, the value of every axis, and every tensor with\n"
        "its role, type, shape, file, offset and bytes.",
        inspect_command},
    [CMD_VERIFY] = {"verify", "STORE", "read a store back against its checksums",
        "Names the first file that is wrong and ends with exit code 1, or says how much was\n"
        "read.",
        verify_command},
    [CMD_LOGITS] = {"logits", "MODEL", "exact logits to a file",
        "Feeds --ids, -p or -f and writes the logits after each token as a NumPy array,\n"
        "float32 [tokens, vocab]. The file appears under its name only when it is whole.",
        logits_command},
    [CMD_TOKENIZE] = {"tokenize", "MODEL", "text to ids",
        "From -p, -f or standard input. Ids come out separated by commas, as --ids takes\n"
        "them.",
        tokenize_command},
    [CMD_DETOKENIZE] = {"detokenize", "MODEL", "ids to text",
        "From --ids, -f or standard input. The text comes out with nothing added (on a\n"
        "terminal: a line break at the end).",
        detokenize_command},
    [CMD_TEMPLATE] = {"template", "MODEL", "a conversation as the prompt that the model sees",
        "Renders --messages through the model's own chat template, or the known form of\n"
        "its family, byte for byte as transformers does; nothing is added. Only the\n"
        "tokenizer's files are needed.",
        template_command},
    [CMD_EVAL] = {"eval", "MODEL FILE", "perplexity over a text file",
        "Windows of --context tokens move by --stride; each token after the first is scored\n"
        "once, with at least context - stride tokens before it except at the beginning.\n"
        "Prints the mean negative log-likelihood (nats), the perplexity, and their standard\n"
        "errors, which come from blocks of neighbouring tokens.\n"
        "\n"
        "--against REFERENCE compares MODEL with the model that it is meant to stand for:\n"
        "the Kullback-Leibler divergence sum p log(p / q) in nats, p the reference's\n"
        "distribution of the next token and q MODEL's, as mean, median, 90th and 99th\n"
        "percentile and maximum; how often both have the same likeliest token; and by how\n"
        "much MODEL's probability of the token that came differs. The reference goes first\n"
        "and leaves its distributions on disk, two bytes for each token of the vocabulary;\n"
        "--logits-cache keeps them for the next comparison. Vocabularies may differ by\n"
        "padding; ids that only one model has are left out then.",
        eval_command},
    [CMD_BENCH] = {"bench", "MODEL", "what the device can do, what the stream does, and which term binds",
        "Alternates between reading the model's own files with nothing computed and\n"
        "decoding, and takes medians. Then every term of a pass: disk, arithmetic, memory\n"
        "traffic, beside the time measured. Tokens are random; no tokenizer is needed.",
        bench_command},
    [CMD_FAMILIES] = {"families", "", "the families of models that this version computes",
        "A table in Markdown: whose models, by which model_type config.json names them and\n"
        "by which general.architecture a GGUF file.",
        families_command},
    [CMD_COMPLETION] = {"completion", "[bash]", "print the completion script of a shell",
        "To use it now: source <(lamina completion bash)",
        completion_command},
    [CMD_HELP] = {"help", "[COMMAND]", "explain a command",
        "Without a command: list them.",
        help_command},
};
/* clang-format on */

static const char *command_at(const void *user, size_t i)
{
    (void)user;
    return commands[i].name;
}

bool find_command(const char *name, command_id *id)
{
    for (int c = 0; c < CMD_COUNT; c++) {
        if (strcmp(commands[c].name, name)) continue;
        *id = (command_id)c;
        return true;
    }
    return false;
}

int unknown_command(const char *name)
{
    const char *near = nearest_word(name, command_at, NULL, CMD_COUNT);
    if (near) return fail_usage("no command '%.64s'; did you mean '%s'?", name, near);
    return fail_usage("no command '%.64s'; 'lamina --help' lists them", name);
}

int help_command(const options *o)
{
    command_id id;
    if (!o->n_operands) {
        print_overview(stdout);
    } else {
        if (!find_command(o->operands[0], &id)) return unknown_command(o->operands[0]);
        print_command_help(stdout, id);
    }
    return finish_stdout();
}

int completion_command(const options *o)
{
    if (o->n_operands && strcmp(o->operands[0], "bash"))
        return fail_usage("completion: expected bash, found '%.64s'", o->operands[0]);
    print_completion(stdout);
    return finish_stdout();
}

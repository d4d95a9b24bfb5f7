/* Owns: `lamina pack`: a checkpoint becomes a store. The work and its safety are the library's; here are the options, the
 * budget's share for buffers, and what is said. */
#include "cli.h"

static const uint64_t mebibyte = 1u << 20;

/* Of --memory, what is left for buffers when the process and its directory of tensors are counted. */
static int buffer_share(const work *w, uint64_t *buffers)
{
    lamina_stats stats;
    *buffers = 0;
    if (!w->options->memory) return EXIT_DONE;
    lamina_get_stats(w->engine, &stats);
    uint64_t taken = stats.peak_rss_bytes + 4 * mebibyte; /* threads' stacks and the manifest's tree */
    if (w->options->memory < taken + mebibyte)
        return fail("--memory: expected at least %s for packing this model, found %s",
                    human_bytes(taken + mebibyte).text, human_bytes(w->options->memory).text);
    *buffers = w->options->memory - taken;
    if (*buffers > 64 * mebibyte) *buffers = 64 * mebibyte; /* more makes nothing faster */
    return EXIT_DONE;
}

static int report(const work *w, const lamina_pack_info *info)
{
    lamina_stats stats = {0};
    double rate = info->seconds > 0 ? (double)info->bytes_written / info->seconds : 0;
    if (w->engine) lamina_get_stats(w->engine, &stats);
    if (w->options->json) {
        json_t *object = json_object();
        json_set_text(object, "model", w->options->operands[0]);
        json_set_text(object, "store", w->options->output);
        json_set_bytes(object, "files", info->files);
        json_set_bytes(object, "bytes_written", info->bytes_written);
        json_set_bytes(object, "bytes_reused", info->bytes_reused);
        json_set_real(object, "seconds", info->seconds);
        json_set_real(object, "bytes_per_s", rate);
        if (w->engine) json_set_bytes(object, "peak_rss_bytes", stats.peak_rss_bytes);
        return json_print(object);
    }
    printf("%s: %u files, %s written in %s (%s)", w->options->output, info->files,
           human_bytes(info->bytes_written).text, human_seconds(info->seconds).text, human_rate(rate).text);
    if (info->bytes_reused) printf(", %s found from an earlier run", human_bytes(info->bytes_reused).text);
    printf("\n");
    return finish_stdout();
}

int pack_command(const options *o)
{
    if (!o->output) return fail_usage("pack: expected -o STORE, found no output");
    work w;
    lamina_error err;
    lamina_pack_info info = {0};
    lamina_pack_options pack = {.delete_original = o->delete_original};
    int code = work_open_or_resume(&w, o, &pack, &info);
    if (code == EXIT_DONE && w.engine) code = buffer_share(&w, &pack.memory);
    if (code == EXIT_DONE && w.engine) {
        lamina_status status = lamina_pack(w.engine, o->output, &pack, &info, &err);
        progress_clear(&w.progress);
        if (status == LAMINA_E_CANCELLED)
            code = fail("interrupted; the same command goes on from here");
        else if (status != LAMINA_OK)
            code = fail_error(&err);
    }
    if (code == EXIT_DONE) code = report(&w, &info);
    work_close(&w);
    return code;
}

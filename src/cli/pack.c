/* Owns: `lamina pack`: a checkpoint becomes a store. The work and its safety are the library's; here are the options,
 * the budget's share for buffers, and what is said. */
#include "cli.h"

#include <string.h>

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
    return EXIT_DONE;
}

static double ratio(uint64_t after, uint64_t before)
{
    return before ? (double)after / (double)before : 1;
}

static json_t *json_of_changes(const lamina_pack_info *info)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < info->n_changes; i++) {
        const lamina_pack_change *c = &info->changes[i];
        json_t *object = json_object();
        json_set_text(object, "from", c->from);
        json_set_text(object, "to", c->to);
        json_set_bytes(object, "tensors", c->tensors);
        json_set_bytes(object, "bytes_before", c->bytes_before);
        json_set_bytes(object, "bytes_after", c->bytes_after);
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *json_of_worst(const lamina_pack_info *info)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < info->n_worst; i++) {
        const lamina_pack_tensor *t = &info->worst[i];
        json_t *object = json_object();
        json_set_text(object, "name", t->name);
        json_set_text(object, "from", t->from);
        json_set_text(object, "to", t->to);
        json_set_bytes(object, "bytes_before", t->bytes_before);
        json_set_bytes(object, "bytes_after", t->bytes_after);
        json_set_real(object, "error", t->error);
        json_array_append_new(list, object);
    }
    return list;
}

/* What became of the types. */
static void print_changes(const lamina_pack_info *info)
{
    if (!info->n_changes) return;
    for (uint32_t i = 0; i < info->n_changes; i++) {
        const lamina_pack_change *c = &info->changes[i];
        if (!strcmp(c->from, c->to))
            printf("  %-29s", c->from);
        else
            printf("  %-12s -> %-13s", c->from, c->to);
        printf("  %6u tensors  %10s -> %10s  %.3f\n", c->tensors, human_bytes(c->bytes_before).text,
               human_bytes(c->bytes_after).text, ratio(c->bytes_after, c->bytes_before));
    }
    printf("  %-29s  %14s  %10s -> %10s  %.3f\n", "in all", "", human_bytes(info->bytes_before).text,
           human_bytes(info->bytes_after).text, ratio(info->bytes_after, info->bytes_before));
    bool lossy = info->n_worst && info->worst[0].error > 0;
    for (uint32_t i = 0; i < info->n_worst && i < 3; i++) {
        const lamina_pack_tensor *t = &info->worst[i];
        printf("  %-12s %s  %.4f\n",
               i       ? ""
               : lossy ? "most lost"
                       : "least gained",
               t->name, lossy ? t->error : ratio(t->bytes_after, t->bytes_before));
    }
}

/* What was asked for and could not be. */
static void print_kept(const lamina_pack_info *info)
{
    if (!info->n_kept) return;
    printf("  kept as it is: %u matrices, %s (%s %s%s)\n", info->n_kept, human_bytes(info->kept_bytes).text,
           info->kept_name, info->kept_why, info->n_kept > 1 ? " ..." : "");
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
        json_set_bytes(object, "tensor_bytes_before", info->bytes_before);
        json_set_bytes(object, "tensor_bytes_after", info->bytes_after);
        json_object_set_new(object, "changes", json_of_changes(info));
        json_object_set_new(object, "worst", json_of_worst(info));
        json_set_bytes(object, "kept", info->n_kept);
        json_set_bytes(object, "kept_bytes", info->kept_bytes);
        if (w->engine) json_set_bytes(object, "peak_rss_bytes", stats.peak_rss_bytes);
        return json_print(object);
    }
    printf("%s: %u files, %s written in %s (%s)", w->options->output, info->files,
           human_bytes(info->bytes_written).text, human_seconds(info->seconds).text, human_rate(rate).text);
    if (info->bytes_reused) printf(", %s found from an earlier run", human_bytes(info->bytes_reused).text);
    printf("\n");
    print_changes(info);
    print_kept(info);
    return finish_stdout();
}

int pack_command(const options *o)
{
    if (!o->output) return fail_usage("pack: expected -o STORE, found no output");
    work w;
    lamina_error err;
    lamina_pack_info info = {0};
    lamina_pack_options pack = {
        .delete_original = o->delete_original, .dtype = o->dtype, .calibration_memory = o->memory};
    text_buffer text = {0};
    int code = o->calibrate ? text_read_file(&text, o->calibrate) : EXIT_DONE;
    if (code != EXIT_DONE) return code;
    if (o->calibrate) {
        pack.calibration = text.data ? text.data : "";
        pack.calibration_bytes = text.n;
    }
    code = work_open_or_resume(&w, o, &pack, &info);
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
    text_free(&text);
    return code;
}

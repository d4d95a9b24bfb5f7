/* Owns: `lamina logits`: the logits after every token, as a NumPy array.
 *
 * Promises: rows go to the file as passes deliver them, so that no more than the plan's rows are ever held; the file
 * has its name only when it is whole. Format: NumPy's .npy 1.0 (numpy.lib.format): magic, version, a header padded to
 * 64. */
#include "cli.h"

#include <errno.h>
#include <string.h>

typedef struct npy {
    whole_file out;
    uint32_t columns;
    uint64_t rows_written;
    int error; /* errno of the first failed write */
} npy;

static bool little_endian(void)
{
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 1;
}

static int npy_create(npy *f, const char *path, uint64_t rows, uint32_t columns)
{
    f->columns = columns;
    int code = whole_file_create(&f->out, path);
    if (code != EXIT_DONE) return code;
    char header[129] = "\x93NUMPY\x01";
    int used =
        snprintf(header + 10, sizeof header - 10, "{'descr': '%cf4', 'fortran_order': False, 'shape': (%llu, %u), }",
                 little_endian() ? '<' : '>', (unsigned long long)rows, columns);
    memset(header + 10 + used, ' ', (size_t)(128 - 10 - used));
    header[127] = '\n';
    header[6] = 1;
    header[7] = 0;
    header[8] = 128 - 10;
    header[9] = 0;
    return fwrite(header, 1, 128, f->out.file) == 128 ? EXIT_DONE : whole_file_failed(&f->out);
}

static bool npy_row(void *file, size_t index, const float *logits)
{
    npy *f = file;
    (void)index;
    if (fwrite(logits, sizeof *logits, f->columns, f->out.file) == f->columns) {
        f->rows_written++;
        return true;
    }
    f->error = errno;
    return false;
}

static int feed(work *w, const id_list *ids, npy *f)
{
    lamina_error err;
    size_t from = w->options->last ? ids->n - 1 : 0, rows = w->plan.rows ? w->plan.rows : 1;
    lamina_status status = LAMINA_OK;
    w->progress.what = "token";
    w->progress.total = ids->n;
    w->progress.rows_are_units = true;
    for (size_t at = 0; at < ids->n && status == LAMINA_OK; at += rows) { /* a pass each, so that progress knows */
        size_t n = ids->n - at < rows ? ids->n - at : rows;
        bool wanted = from < at + n;
        w->progress.done = at;
        status = lamina_feed(w->session, ids->data + at, n, wanted && from > at ? from - at : 0,
                             wanted ? npy_row : NULL, f, &err);
    }
    progress_clear(&w->progress);
    if (f->error) return fail("%s: %s", f->out.temporary, strerror(f->error));
    if (status != LAMINA_OK) return fail_error(&err);
    uint64_t expected = ids->n - from;
    if (f->rows_written != expected)
        return fail("%s: expected %llu rows of logits, found %llu", f->out.temporary, (unsigned long long)expected,
                    (unsigned long long)f->rows_written);
    return EXIT_DONE;
}

static int report(work *w, const id_list *ids, uint64_t rows, double seconds)
{
    lamina_stats stats;
    timing t = {.prompt_tokens = ids->n, .prefill_seconds = seconds};
    work_stats(w, &stats);
    if (w->options->stats) print_stats(w, &stats, &t);
    if (!w->options->json) return EXIT_DONE;
    json_t *object = json_object();
    if (!object) return fail("out of memory");
    json_set_text(object, "model", w->options->operands[0]);
    json_set_text(object, "output", w->options->output);
    json_set_bytes(object, "tokens", rows);
    json_set_bytes(object, "vocab", w->model.vocab);
    json_set_stats(object, w, &stats, &t);
    return json_print(object);
}

int logits_command(const options *o)
{
    if (!o->output) return fail_usage("logits: expected -o OUT.npy, found no output");
    work w;
    id_list ids = {0};
    npy f = {0};
    int code = work_open(&w, o, o->ids.n ? WORK_NO_TOKENIZER : 0);
    if (code == EXIT_DONE) code = prompt_ids(&w, &ids, NULL);
    if (code == EXIT_DONE && ids.n > INT32_MAX)
        code = fail_usage("logits: expected fewer than 2^31 tokens, found %zu", ids.n);
    if (code == EXIT_DONE && o->context && ids.n > o->context)
        code = fail_usage("--context: expected at least the %zu tokens given, found %u", ids.n, o->context);
    if (code == EXIT_DONE) code = work_start(&w, (uint32_t)ids.n, o->last ? 1 : (uint32_t)ids.n);
    if (code == EXIT_DONE) code = npy_create(&f, o->output, o->last ? 1 : ids.n, w.model.vocab);
    double begin = now_seconds();
    if (code == EXIT_DONE) code = feed(&w, &ids, &f);
    double seconds = now_seconds() - begin;
    uint64_t rows = f.rows_written;
    int closed = whole_file_close(&f.out, o->output, code == EXIT_DONE);
    if (code == EXIT_DONE) code = closed;
    if (code == EXIT_DONE) code = report(&w, &ids, rows, seconds);
    ids_free(&ids);
    work_close(&w);
    return code;
}

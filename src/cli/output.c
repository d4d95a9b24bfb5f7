/* Owns: what the program says: errors, sizes and times for people, the progress line, statistics as JSON and as text.
 *
 * Promises: an error is one line. Statistics have the same names everywhere. A number that is not known is null in JSON
 * and "unknown" in text, never a zero that looks measured. Progress is drawn only on a terminal, or line by line when
 * it is asked for elsewhere, and only when a pass takes long enough to wonder. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void say(const char *format, va_list arguments)
{
    char line[1400];
    vsnprintf(line, sizeof line, format, arguments);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127) *c = '?';
    fflush(stdout);
    fprintf(stderr, "lamina: %s\n", line);
}

int fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return EXIT_FAILED;
}

int fail_usage(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return EXIT_USAGE;
}

int fail_error(const lamina_error *err)
{
    fail("%s", err->text[0] ? err->text : lamina_status_name(err->status));
    return err->status == LAMINA_E_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

int finish_stdout(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_DONE;
    if (errno == EPIPE) return EXIT_DONE; /* the reader has seen enough */
    return fail("standard output: %s", errno ? strerror(errno) : "write failed");
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static label scaled(double value, double step, const char *const *units, size_t n)
{
    size_t i = 0;
    while (i + 1 < n && value >= step * 0.99995) {
        value /= step;
        i++;
    }
    label l;
    int digits = i == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    snprintf(l.text, sizeof l.text, "%.*f%s%s", digits, value, *units[i] ? " " : "", units[i]);
    return l;
}

label human_bytes(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    return scaled((double)bytes, 1024, units, sizeof units / sizeof *units);
}

label human_rate(double bytes_per_s)
{
    static const char *const units[] = {"B/s", "kB/s", "MB/s", "GB/s", "TB/s"};
    if (!(bytes_per_s > 0)) return (label){"unknown"};
    return scaled(bytes_per_s, 1000, units, sizeof units / sizeof *units);
}

label human_count(double n)
{
    static const char *const units[] = {"", "k", "M", "G", "T", "P"};
    if (!(n > 0)) return (label){"unknown"};
    return scaled(n, 1000, units, sizeof units / sizeof *units);
}

label human_seconds(double s)
{
    label l;
    if (!(s >= 0) || s > 3.2e9) return (label){"unknown"};
    if (s < 0.1)
        snprintf(l.text, sizeof l.text, "%.2f ms", s * 1e3);
    else if (s < 10)
        snprintf(l.text, sizeof l.text, "%.2f s", s);
    else if (s < 59.95)
        snprintf(l.text, sizeof l.text, "%.1f s", s);
    else if (s < 3600)
        snprintf(l.text, sizeof l.text, "%d min %02d s", (int)s / 60, (int)s % 60);
    else if (s < 172800)
        snprintf(l.text, sizeof l.text, "%d h %02d min", (int)s / 3600, (int)s / 60 % 60);
    else
        snprintf(l.text, sizeof l.text, "%.1f days", s / 86400);
    return l;
}

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static const double progress_patience = 0.5; /* seconds of a pass before anybody wonders */

void progress_begin(progress_line *p, const options *o, bool streams_text)
{
    bool terminal = isatty(STDERR_FILENO);
    *p = (progress_line){.on = terminal || o->progress, .terminal = terminal, .began = now_seconds()};
    p->below = terminal && streams_text && !o->json && isatty(STDOUT_FILENO);
}

/* On a terminal the line is drawn over itself. Below streaming text it stands on the next line: the cursor makes room
 * (down, up), is saved, goes there, and comes back; wrapping is off meanwhile. */
static void progress_draw(progress_line *p, const char *text)
{
    if (!p->terminal)
        fprintf(stderr, "%s\n", text);
    else if (p->below)
        fprintf(stderr, "\033D\033[A\0337\033[B\r\033[?7l%s\033[K\033[?7h\0338", text);
    else
        fprintf(stderr, "\r\033[?7l%s\033[K\033[?7h", text);
    fflush(stderr);
    p->shown = true;
}

void progress_clear(progress_line *p)
{
    if (!p->shown) return;
    if (p->terminal) fputs(p->below ? "\0337\033[B\r\033[2K\0338" : "\r\033[2K", stderr);
    fflush(stderr);
    p->shown = false;
}

/* Seconds that are left: of the whole work where its size is known, else of this pass. */
static double time_left(const progress_line *p, const lamina_progress *now, double fraction)
{
    if (p->total > p->first && now->phase == LAMINA_PHASE_PASS) {
        double units = p->rows_are_units ? (double)now->rows : 1;
        double done = ((double)(p->done - p->first) + units * fraction) / (double)(p->total - p->first);
        if (done > 0.01) return (now_seconds() - p->began) * (1 - done) / done;
    }
    return fraction > 0.01 ? now->seconds * (1 - fraction) / fraction : -1;
}

bool progress_show(void *progress, const lamina_progress *now)
{
    progress_line *p = progress;
    double t = now_seconds(), fraction = now->total ? (double)now->done / (double)now->total : 0;
    if (!p->on || now->seconds < progress_patience || t - p->last < (p->terminal ? 0.1 : 1.0)) return true;
    p->last = t;
    char line[400];
    int n = 0;
    if (p->what && p->total)
        n = snprintf(line, sizeof line, "%s %llu/%llu  ", p->what, (unsigned long long)p->done,
                     (unsigned long long)p->total);
    size_t at = n > 0 ? (size_t)n : 0;
    double rate = now->seconds > 0 ? (double)now->bytes / now->seconds : 0;
    double left = time_left(p, now, fraction);
    if (now->phase == LAMINA_PHASE_CALIBRATE)
        snprintf(line + at, sizeof line - at, "calibrating %.60s  %.0f %%  %s%s%s", now->unit ? now->unit : "",
                 100 * fraction, rate > 0 ? human_rate(rate).text : "no reading", left >= 0 ? "  left " : "",
                 left >= 0 ? human_seconds(left).text : "");
    else if (now->phase == LAMINA_PHASE_PASS)
        snprintf(line + at, sizeof line - at, "%.60s (%llu of %llu)  %s%s%s", now->unit ? now->unit : "",
                 (unsigned long long)now->done, (unsigned long long)now->total,
                 rate > 0 ? human_rate(rate).text : "no reading", left >= 0 ? "  left " : "",
                 left >= 0 ? human_seconds(left).text : "");
    else
        snprintf(line + at, sizeof line - at, "%s %.80s  %.0f %% of %s  %s%s%s",
                 now->phase == LAMINA_PHASE_PACK     ? "packing"
                 : now->phase == LAMINA_PHASE_SURVEY ? "surveying"
                                                     : "verifying",
                 now->unit ? now->unit : "", 100 * fraction, human_bytes(now->total).text, human_rate(rate).text,
                 left >= 0 ? "  left " : "", left >= 0 ? human_seconds(left).text : "");
    progress_draw(p, line);
    return true;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

void json_set_real(json_t *object, const char *name, double value)
{
    json_object_set_new(object, name, isfinite(value) && value >= 0 ? json_real(value) : json_null());
}

void json_set_bytes(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

/* Text that is not UTF-8 (a path can be anything) is left null. */
void json_set_text(json_t *object, const char *name, const char *text)
{
    json_t *value = text ? json_string(text) : NULL;
    json_object_set_new(object, name, value ? value : json_null());
}

static void json_set_known(json_t *object, const char *name, double value)
{
    json_set_real(object, name, value > 0 ? value : -1);
}

void json_set_plan(json_t *object, const lamina_plan_info *plan)
{
    json_set_bytes(object, "budget_bytes", plan->budget_bytes);
    json_object_set_new(object, "budget_chosen", json_boolean(plan->budget_chosen));
    json_set_bytes(object, "minimum_bytes", plan->minimum_bytes);
    json_set_bytes(object, "predicted_peak_bytes", plan->predicted_peak_bytes);
    json_set_bytes(object, "process_bytes", plan->process_bytes);
    json_set_bytes(object, "vector_bytes", plan->vector_bytes);
    json_set_bytes(object, "kv_bytes", plan->kv_bytes);
    json_set_bytes(object, "activation_bytes", plan->activation_bytes);
    json_set_bytes(object, "ring_bytes", plan->ring_bytes);
    json_set_bytes(object, "chunk_bytes", plan->chunk_bytes);
    json_set_bytes(object, "pinned_bytes", plan->pinned_bytes);
    json_set_bytes(object, "weight_bytes", plan->weight_bytes);
    json_set_bytes(object, "streamed_bytes_per_pass", plan->streamed_bytes_per_pass);
    json_set_bytes(object, "active_bytes_per_token", plan->active_bytes_per_token);
    if (plan->experts) {
        json_set_bytes(object, "experts", plan->experts);
        json_set_bytes(object, "experts_per_token", plan->experts_per_token);
        json_set_bytes(object, "experts_resident", plan->experts_resident);
        json_set_bytes(object, "expert_bytes", plan->expert_bytes);
        json_set_bytes(object, "expert_pool_bytes", plan->expert_pool_bytes);
        json_set_bytes(object, "expert_piece_bytes", plan->expert_piece_bytes);
        json_set_bytes(object, "expert_read_bytes_per_pass", plan->expert_read_bytes_per_pass);
        json_set_real(object, "expert_hit_rate", plan->expert_hit_rate);
    }
    json_set_bytes(object, "context", plan->context);
    json_set_bytes(object, "sessions", plan->sessions);
    json_set_bytes(object, "rows", plan->rows);
    json_set_bytes(object, "logit_rows", plan->logit_rows);
    json_set_known(object, "device_bytes_per_s", plan->device_bytes_per_s);
    json_set_known(object, "flops_per_s", plan->flops_per_s);
    json_set_known(object, "seconds_per_token", plan->seconds_per_token);
    json_set_known(object, "prompt_tokens_per_s", plan->prompt_tokens_per_s);
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : -1;
}

void json_set_experts(json_t *object, const lamina_stats *s)
{
    json_set_bytes(object, "experts_wanted", s->experts_wanted);
    json_set_bytes(object, "expert_hits", s->expert_hits);
    json_set_real(object, "expert_hit_rate", ratio((double)s->expert_hits, (double)s->experts_wanted));
    json_set_bytes(object, "experts_resident", s->experts_resident);
    json_set_bytes(object, "expert_bytes_read", s->expert_bytes_read);
    json_set_bytes(object, "expert_missed_bytes", s->expert_missed_bytes);
    json_set_real(object, "expert_read_overhead",
                  s->expert_missed_bytes ? (double)s->expert_bytes_read / (double)s->expert_missed_bytes - 1 : -1);
}

void json_set_stats(json_t *object, const work *w, const lamina_stats *stats, const timing *t)
{
    json_set_real(object, "decode_tokens_per_s",
                  t->decode_tokens ? ratio((double)t->decode_tokens, t->decode_seconds) : -1);
    json_set_real(object, "prefill_tokens_per_s",
                  t->prompt_tokens ? ratio((double)t->prompt_tokens, t->prefill_seconds) : -1);
    json_set_bytes(object, "prompt_tokens", t->prompt_tokens);
    json_set_real(object, "prefill_seconds", t->prefill_seconds);
    json_set_real(object, "decode_seconds", t->decode_seconds);
    json_set_bytes(object, "passes", stats->passes);
    json_set_bytes(object, "bytes_read", stats->bytes_read);
    json_set_real(object, "seconds", stats->seconds);
    json_set_real(object, "stall_seconds", stats->stall_seconds);
    json_set_real(object, "compute_seconds", stats->compute_seconds);
    json_set_bytes(object, "peak_rss_bytes", stats->peak_rss_bytes);
    json_set_bytes(object, "budget_bytes", stats->budget_bytes);
    json_set_bytes(object, "minimum_bytes", stats->minimum_bytes);
    json_set_bytes(object, "predicted_peak_bytes", stats->predicted_peak_bytes);
    json_set_bytes(object, "pinned_bytes", stats->pinned_bytes);
    json_set_bytes(object, "streamed_bytes_per_pass", stats->streamed_bytes_per_pass);
    if (w->plan.experts) json_set_experts(object, stats);
    json_set_known(object, "device_bytes_per_s", w->plan.device_bytes_per_s);
    double rate = ratio((double)stats->bytes_read, stats->seconds);
    bool streams = stats->streamed_bytes_per_pass > 0;
    json_set_real(object, "stream_efficiency", streams && rate >= 0 ? ratio(rate, w->plan.device_bytes_per_s) : -1);
    json_set_real(object, "seconds_to_first_read", stats->seconds_to_first_read);
    json_set_text(object, "io", stats->io);
    json_set_text(object, "io_note", stats->io_note);
    json_set_text(object, "isa", stats->isa);
    json_set_bytes(object, "threads", stats->threads);
    json_set_bytes(object, "io_depth", stats->io_depth);
    json_set_bytes(object, "chunk_bytes", stats->chunk_bytes);
}

int json_print(json_t *object)
{
    if (!object) return fail("out of memory");
    int bad = json_dumpf(object, stdout, JSON_COMPACT);
    json_decref(object);
    if (bad && !ferror(stdout)) return fail("out of memory");
    putchar('\n');
    return finish_stdout();
}

/* ---- statistics as text ------------------------------------------------------------------------------------------ */

static void print_share(const char *what, double part, double whole)
{
    fprintf(stderr, "%s %s (%.0f %%)", what, human_seconds(part).text, whole > 0 ? 100 * part / whole : 0);
}

void print_experts(FILE *to, const work *w, const lamina_stats *s)
{
    fprintf(to, "%.1f %% of %llu found; %llu of %u in memory, %s read",
            100 * ratio((double)s->expert_hits, (double)s->experts_wanted), (unsigned long long)s->experts_wanted,
            (unsigned long long)s->experts_resident, w->plan.experts, human_bytes(s->expert_bytes_read).text);
    if (s->expert_missed_bytes)
        fprintf(to, " (%.2f %% more than was missed)",
                100 * ((double)s->expert_bytes_read / (double)s->expert_missed_bytes - 1));
    fputc('\n', to);
}

void print_stats(const work *w, const lamina_stats *s, const timing *t)
{
    if (t->prompt_tokens)
        fprintf(stderr, "prompt     %llu tokens in %s, %.4g tokens/s\n", (unsigned long long)t->prompt_tokens,
                human_seconds(t->prefill_seconds).text, ratio((double)t->prompt_tokens, t->prefill_seconds));
    if (t->decode_tokens)
        fprintf(stderr, "decode     %llu tokens in %s, %.4g tokens/s\n", (unsigned long long)t->decode_tokens,
                human_seconds(t->decode_seconds).text, ratio((double)t->decode_tokens, t->decode_seconds));
    fprintf(stderr, "reading    %s in %llu passes, %s", human_bytes(s->bytes_read).text, (unsigned long long)s->passes,
            human_rate(ratio((double)s->bytes_read, s->seconds)).text);
    if (w->plan.device_bytes_per_s > 0)
        fprintf(stderr, "; the device: %s", human_rate(w->plan.device_bytes_per_s).text);
    fprintf(stderr, "\ntime       %s in passes: ", human_seconds(s->seconds).text);
    print_share("waiting for the disk", s->stall_seconds, s->seconds);
    print_share(", computing", s->compute_seconds, s->seconds);
    fprintf(stderr, "\nmemory     peak %s of %s (predicted %s, least %s); pinned %s, streamed %s a pass\n",
            human_bytes(s->peak_rss_bytes).text, human_bytes(s->budget_bytes).text,
            human_bytes(s->predicted_peak_bytes).text, human_bytes(s->minimum_bytes).text,
            human_bytes(s->pinned_bytes).text, human_bytes(s->streamed_bytes_per_pass).text);
    if (s->experts_wanted) {
        fprintf(stderr, "experts    ");
        print_experts(stderr, w, s);
    }
    fprintf(stderr, "engine     %s, depth %u, chunks of %s; %s, %u thread%s; first read %s after the start\n", s->io,
            s->io_depth, human_bytes(s->chunk_bytes).text, s->isa, s->threads, s->threads == 1 ? "" : "s",
            human_seconds(s->seconds_to_first_read).text);
}

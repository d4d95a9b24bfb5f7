/* Owns the timeline file. Promises that what is on disk after trace_close() is valid JSON in the array form of
 * Chrome's trace-event format ("Trace Event Format", complete events "X" and metadata "M"), and that a span costs a
 * lock and a copy; text is made only when the buffer is full. A failure to write is kept and reported at the end:
 * tracing never fails what it watches. */
#include "base/trace.h"

#include "base/os.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { SPANS = 2048, LANES = 256, TEXT_BYTES = 32768, EVENT_BYTES = 512 };

typedef struct span {
    const char *name;
    double begin, end;
    uint64_t bytes;
    int32_t layer;
    uint32_t lane;
} span;

struct trace {
    memory *m;
    pthread_mutex_t lock;
    os_file file;
    uint64_t offset; /* bytes written */
    double origin;   /* os_seconds() at the start of the timeline */
    bool begun;      /* an event has been written: the next needs a comma */
    lamina_status status;
    lamina_error error; /* the first failure */
    bool lane_named[LANES];
    size_t n_spans, n_text;
    span spans[SPANS];
    char text[TEXT_BYTES];
    char path[];
};

static void write_text(trace *t)
{
    if (t->status == LAMINA_OK && t->n_text > 0) {
        t->status = os_write_at(&t->file, t->path, t->offset, t->text, t->n_text, &t->error);
        t->offset += t->n_text;
    }
    t->n_text = 0;
}

/* A JSON string's inside: names are ours and short, but nothing is taken for granted. */
static void escape(char *out, size_t capacity, const char *text)
{
    size_t n = 0;
    for (; *text && n + 2 < capacity; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') out[n++] = '\\';
        out[n++] = c < 0x20 || c >= 0x7F ? '?' : (char)c;
    }
    out[n] = '\0';
}

static void add_event(trace *t, const char *event)
{
    size_t n = strlen(event);
    if (t->n_text + n + 2 > TEXT_BYTES) write_text(t);
    if (t->begun) t->text[t->n_text++] = ',';
    t->text[t->n_text++] = '\n';
    memcpy(t->text + t->n_text, event, n);
    t->n_text += n;
    t->begun = true;
}

static void name_lane(trace *t, uint32_t lane)
{
    if (lane >= LANES || t->lane_named[lane]) return;
    t->lane_named[lane] = true;
    char name[32], event[EVENT_BYTES];
    if (lane == TRACE_COMPUTE)
        snprintf(name, sizeof name, "compute");
    else if (lane == TRACE_WAIT)
        snprintf(name, sizeof name, "wait");
    else if (lane >= TRACE_READ)
        snprintf(name, sizeof name, "read %" PRIu32, lane - TRACE_READ);
    else
        snprintf(name, sizeof name, "lane %" PRIu32, lane);
    snprintf(event, sizeof event,
             "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":%" PRIu32 ",\"args\":{\"name\":\"%s\"}},\n"
             "{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":1,\"tid\":%" PRIu32
             ",\"args\":{\"sort_index\":%" PRIu32 "}}",
             lane, name, lane, lane);
    add_event(t, event);
}

static void add_span(trace *t, const span *s)
{
    name_lane(t, s->lane);
    char name[128], args[96] = "", event[EVENT_BYTES];
    escape(name, sizeof name, s->name);
    if (s->layer >= 0 && s->bytes) {
        snprintf(args, sizeof args, ",\"args\":{\"layer\":%" PRId32 ",\"bytes\":%" PRIu64 "}", s->layer, s->bytes);
    } else if (s->layer >= 0) {
        snprintf(args, sizeof args, ",\"args\":{\"layer\":%" PRId32 "}", s->layer);
    } else if (s->bytes) {
        snprintf(args, sizeof args, ",\"args\":{\"bytes\":%" PRIu64 "}", s->bytes);
    }
    double begin = s->begin > t->origin ? s->begin - t->origin : 0;
    double length = s->end > s->begin ? s->end - s->begin : 0;
    /* Whole nanoseconds by integers: a locale's decimal comma would not be JSON. */
    uint64_t ts = (uint64_t)(begin * 1e9), dur = (uint64_t)(length * 1e9);
    snprintf(event, sizeof event,
             "{\"ph\":\"X\",\"name\":\"%s\",\"pid\":1,\"tid\":%" PRIu32 ",\"ts\":%" PRIu64 ".%03u,\"dur\":%" PRIu64
             ".%03u%s}",
             name, s->lane, ts / 1000, (unsigned)(ts % 1000), dur / 1000, (unsigned)(dur % 1000), args);
    add_event(t, event);
}

static void flush(trace *t)
{
    for (size_t i = 0; i < t->n_spans; i++) add_span(t, &t->spans[i]);
    t->n_spans = 0;
}

lamina_status trace_new(memory *m, const char *path, trace **out, lamina_error *err)
{
    *out = NULL;
    size_t path_bytes = strlen(path) + 1;
    trace *t = mem_alloc(m, MEM_OTHER, sizeof *t + path_bytes, err);
    if (!t) return LAMINA_E_MEMORY;
    t->m = m;
    t->origin = os_seconds();
    memcpy(t->path, path, path_bytes);
    lamina_status status = os_create(path, &t->file, err);
    if (status != LAMINA_OK) {
        mem_free(m, t);
        return status;
    }
    pthread_mutex_init(&t->lock, NULL);
    t->text[t->n_text++] = '[';
    *out = t;
    return LAMINA_OK;
}

void trace_span(trace *t, uint32_t lane, const char *name, int32_t layer, uint64_t bytes, double begin, double end)
{
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->spans[t->n_spans++] =
        (span){.name = name, .begin = begin, .end = end, .bytes = bytes, .layer = layer, .lane = lane};
    if (t->n_spans == SPANS) flush(t);
    pthread_mutex_unlock(&t->lock);
}

lamina_status trace_close(trace *t, lamina_error *err)
{
    if (!t) return LAMINA_OK;
    flush(t);
    if (t->n_text + 3 > TEXT_BYTES) write_text(t);
    memcpy(t->text + t->n_text, "\n]\n", 3);
    t->n_text += 3;
    write_text(t);
    lamina_status status = t->status;
    if (status != LAMINA_OK) error_set(err, status, "%s", t->error.text);
    os_close(&t->file);
    pthread_mutex_destroy(&t->lock);
    mem_free(t->m, t);
    return status;
}

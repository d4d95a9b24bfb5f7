/* Owns: `lamina inspect`: what was understood of a model, as text or JSON.
 *
 * Promises: it only reports; every value comes from the library's own tables, so that what is printed is what a pass
 * would use. */
#include "cli.h"

#include <string.h>

static void shape_text(const lamina_tensor_info *t, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t d = 0; d < t->n_dims && d < 4; d++) {
        int n = snprintf(text + used, size - used, "%s%llu", d ? "x" : "", (unsigned long long)t->shape[d]);
        if (n < 0 || (size_t)n >= size - used) return;
        used += (size_t)n;
    }
}

static double elements_of(const lamina_tensor_info *t)
{
    double n = 1;
    for (uint32_t d = 0; d < t->n_dims && d < 4; d++) n *= (double)t->shape[d];
    return n;
}

static double bits_each(double bytes, double elements)
{
    return elements > 0 ? 8 * bytes / elements : 0;
}

static int print_tensors(const work *w)
{
    lamina_tensor_info t;
    int wide = 6, role = 4;
    double bytes = 0, elements = 0;
    for (size_t i = 0; i < w->model.n_tensors; i++) {
        if (lamina_tensor(w->engine, i, &t) != LAMINA_OK) continue;
        if ((int)strlen(t.name) > wide) wide = (int)strlen(t.name);
        if ((int)strlen(t.role) > role) role = (int)strlen(t.role);
    }
    printf("%-*s  %-*s  %5s  %-12s  %5s  %-18s  %14s  %14s  %s\n", wide, "tensor", role, "role", "layer", "type",
           "bits", "shape", "offset", "bytes", "file");
    for (size_t i = 0; i < w->model.n_tensors; i++) {
        if (lamina_tensor(w->engine, i, &t) != LAMINA_OK) return fail("tensor %zu: not there", i);
        char shape[96], layer[16] = "-";
        shape_text(&t, shape, sizeof shape);
        if (t.layer >= 0) snprintf(layer, sizeof layer, "%d", t.layer);
        printf("%-*s  %-*s  %5s  %-12s  %5.2f  %-18s  %14llu  %14llu  %s\n", wide, t.name, role,
               *t.role ? t.role : "unused", layer, t.dtype, bits_each((double)t.bytes, elements_of(&t)), shape,
               (unsigned long long)t.offset, (unsigned long long)t.bytes, *t.file ? t.file : "-");
        bytes += (double)t.bytes;
        elements += elements_of(&t);
    }
    printf("%-*s  %-*s  %5s  %-12s  %5.2f  %-18s  %14s  %14.0f\n", wide, "all", role, "", "", "",
           bits_each(bytes, elements), "", "", bytes);
    return EXIT_DONE;
}

static void print_model(const work *w)
{
    const lamina_model_info *m = &w->model;
    printf("%-22s %s\n", "path", m->path);
    printf("%-22s %s\n", "source", m->source);
    printf("%-22s %s\n", "family", m->family);
    printf("%-22s %u\n%-22s %u\n%-22s %u\n", "layers", m->n_layers, "hidden", m->hidden, "vocabulary", m->vocab);
    if (m->max_context)
        printf("%-22s %u tokens\n", "trained context", m->max_context);
    else
        printf("%-22s not said\n", "trained context");
    printf("%-22s %s (%llu)\n", "parameters", human_count((double)m->n_parameters).text,
           (unsigned long long)m->n_parameters);
    printf("%-22s %s (%llu bytes)", "weights", human_bytes(m->weight_bytes).text, (unsigned long long)m->weight_bytes);
    if (m->n_parameters) printf(", %.2f bits each", 8.0 * (double)m->weight_bytes / (double)m->n_parameters);
    printf("%s\n", m->has_weights ? "" : ", none here: a configuration only");
    printf("%-22s %s\n", "tokenizer", m->has_tokenizer ? "yes" : "none that can be read");
    if (m->bos_token >= 0) printf("%-22s %d\n", "BOS", m->bos_token);
    if (m->n_eos) printf("%-22s", "ends generation");
    for (size_t i = 0; i < m->n_eos; i++) printf(" %d", m->eos_tokens[i]);
    printf("%s", m->n_eos ? "\n" : "");
    for (size_t i = 0; i < m->n_axes; i++) {
        const char *name, *value;
        if (lamina_axis(w->engine, i, &name, &value) == LAMINA_OK) printf("%-22s %s\n", name, value);
    }
}

static json_t *json_tensor(const lamina_tensor_info *t)
{
    json_t *object = json_object(), *shape = json_array();
    for (uint32_t d = 0; d < t->n_dims && d < 4; d++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
    json_set_text(object, "name", t->name);
    json_set_text(object, "role", t->role);
    json_object_set_new(object, "layer", t->layer >= 0 ? json_integer(t->layer) : json_null());
    json_set_text(object, "dtype", t->dtype);
    json_object_set_new(object, "shape", shape);
    json_set_text(object, "file", t->file);
    json_set_bytes(object, "offset", t->offset);
    json_set_bytes(object, "bytes", t->bytes);
    json_object_set_new(object, "bits_per_weight", json_real(bits_each((double)t->bytes, elements_of(t))));
    return object;
}

static json_t *json_model(const work *w)
{
    const lamina_model_info *m = &w->model;
    json_t *object = json_object(), *axes = json_object(), *eos = json_array();
    json_set_text(object, "path", m->path);
    json_set_text(object, "source", m->source);
    json_set_text(object, "family", m->family);
    json_object_set_new(object, "has_weights", json_boolean(m->has_weights));
    json_object_set_new(object, "has_tokenizer", json_boolean(m->has_tokenizer));
    json_set_bytes(object, "layers", m->n_layers);
    json_set_bytes(object, "hidden", m->hidden);
    json_set_bytes(object, "vocab", m->vocab);
    json_object_set_new(object, "max_context", m->max_context ? json_integer(m->max_context) : json_null());
    json_set_bytes(object, "parameters", m->n_parameters);
    json_set_bytes(object, "weight_bytes", m->weight_bytes);
    json_object_set_new(object, "bits_per_weight",
                        json_real(bits_each((double)m->weight_bytes, (double)m->n_parameters)));
    json_object_set_new(object, "bos_token", m->bos_token >= 0 ? json_integer(m->bos_token) : json_null());
    for (size_t i = 0; i < m->n_eos; i++) json_array_append_new(eos, json_integer(m->eos_tokens[i]));
    json_object_set_new(object, "eos_tokens", eos);
    for (size_t i = 0; i < m->n_axes; i++) {
        const char *name, *value;
        if (lamina_axis(w->engine, i, &name, &value) == LAMINA_OK) json_set_text(axes, name, value);
    }
    json_object_set_new(object, "axes", axes);
    if (w->options->brief) return object;
    json_t *tensors = json_array();
    for (size_t i = 0; i < m->n_tensors; i++) {
        lamina_tensor_info t;
        if (lamina_tensor(w->engine, i, &t) == LAMINA_OK) json_array_append_new(tensors, json_tensor(&t));
    }
    json_object_set_new(object, "tensors", tensors);
    return object;
}

int inspect_command(const options *o)
{
    if (o->tensors && o->brief) return fail_usage("inspect: expected one of --tensors and --brief, found both");
    work w;
    int code = work_open(&w, o, 0);
    if (code == EXIT_DONE && o->json) {
        code = json_print(json_model(&w));
    } else if (code == EXIT_DONE) {
        if (!o->tensors) print_model(&w);
        if (!o->tensors && !o->brief && w.model.n_tensors) putchar('\n');
        if (!o->brief && w.model.n_tensors) code = print_tensors(&w);
        if (code == EXIT_DONE) code = finish_stdout();
    }
    work_close(&w);
    return code;
}

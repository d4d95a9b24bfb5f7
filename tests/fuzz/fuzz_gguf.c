/* Any bytes as a GGUF file: refused in words or opened, never worse. What was opened is walked to its ends. */
#include <string.h>

#include "feed.h"
#include "format/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Touches every byte that the accessors hand out. */
static uint64_t touch(const gguf *g)
{
    uint64_t sum = 0;
    char key[256];
    gguf_string k;
    for (size_t i = 0; (k = gguf_key(g, i)).data; i++) {
        if (k.bytes >= sizeof key) continue;
        memcpy(key, k.data, (size_t)k.bytes);
        key[k.bytes] = '\0';
        uint64_t u = 0, count = 0;
        double f = 0;
        bool b = false;
        gguf_string s = {0};
        sum += (uint64_t)gguf_u64(g, key, &u) + gguf_f64(g, key, &f) + gguf_bool(g, key, &b);
        if (gguf_text(g, key, &s))
            for (uint64_t j = 0; j < s.bytes; j++) sum += (unsigned char)s.data[j];
        if (gguf_text_array(g, key, &count)) {
            for (uint64_t j = 0; j <= count; j++) {
                s = gguf_text_at(g, key, j);
                for (uint64_t x = 0; x < s.bytes; x++) sum += (unsigned char)s.data[x];
            }
        }
        if (gguf_int_array(g, key, &count))
            for (uint64_t j = 0; j <= count; j++) sum += (uint64_t)gguf_int_at(g, key, j);
        if (gguf_float_array(g, key, &count))
            for (uint64_t j = 0; j <= count; j++) sum += gguf_float_at(g, key, j) > 0;
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    memory *m = memory_new();
    lamina_error err = {0};
    checkpoint *c = NULL;
    if (!m) abort();
    lamina_status status = gguf_open(m, feed(data, n), &c, &err);
    if (status != LAMINA_OK && (!err.text[0] || c)) abort();
    if (c) {
        volatile uint64_t sum = touch(c->metadata);
        (void)sum;
        for (size_t i = 0; i < c->n_tensors; i++) {
            const tensor *t = &c->tensors[i];
            if (t->offset > n || t->bytes > n - t->offset || checkpoint_find(c, t->name) != t) abort();
        }
        if (!json_is_object(c->config)) abort();
    }
    checkpoint_free(c);
    if (memory_free(m) != 0) abort();
    return 0;
}

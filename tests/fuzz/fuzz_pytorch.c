/* Any bytes as a PyTorch checkpoint, zip or older: refused in words or sealed, never worse. What was sealed must keep
 * its promise. */
#include <string.h>

#include "feed.h"
#include "format/pytorch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    memory *m = memory_new();
    lamina_error err = {0};
    checkpoint *c = m ? checkpoint_new(m, CHECKPOINT_HF, "fuzz", &err) : NULL;
    if (!c) abort();
    lamina_status status = pytorch_read(c, feed(data, n), "fuzz.bin", &err);
    if (status == LAMINA_OK) status = checkpoint_seal(c, &err);
    if (status != LAMINA_OK && !err.text[0]) abort();
    for (size_t i = 0; status == LAMINA_OK && i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        if (t->offset > n || t->bytes > n - t->offset || checkpoint_find(c, t->name) != t) abort();
    }
    checkpoint_free(c);
    if (memory_free(m) != 0) abort();
    return 0;
}

/* A store's manifest and draft from hostile hands. The first byte chooses the form; the rest is the text, to which its
 * checksum is added so that the fuzzer gets behind it. What is accepted must hold together: every tensor inside its
 * file, and the text made of it must be accepted again and be the same text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "store/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) abort();
}

static void hold_together(const image *im, image_form form)
{
    for (size_t i = 0; i < im->n_tensors; i++) {
        const tensor *t = &im->tensors[i].t;
        must(t->file < im->n_files && t->offset >= STORE_ALIGN && t->offset <= im->files[t->file].bytes);
        must(t->bytes <= im->files[t->file].bytes - t->offset);
    }
    text once = {.m = im->m}, twice = {.m = im->m}, header = {.m = im->m};
    image *again = NULL;
    must(image_render(im, form, &once) == LAMINA_OK);
    must(image_parse(im->m, "store", "again", once.data, once.bytes, form, &again, NULL) == LAMINA_OK);
    must(image_render(again, form, &twice) == LAMINA_OK);
    must(once.bytes == twice.bytes && memcmp(once.data, twice.data, once.bytes) == 0);
    for (uint32_t i = 0; i < im->n_files && i < 4; i++) {
        if (!im->files[i].n_tensors) continue;
        must(image_header(im, i, &header) == LAMINA_OK && header.bytes % STORE_ALIGN == 0);
        mem_free(im->m, header.data);
        header = (text){.m = im->m};
    }
    image_free(again);
    mem_free(im->m, once.data);
    mem_free(im->m, twice.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    image_form form = data[0] & 1 ? FORM_DRAFT : FORM_MANIFEST;
    size_t bytes = size - 1;
    memory *m = memory_new();
    char *json = malloc(bytes + 64);
    if (!m || !json) abort();
    memcpy(json, data + 1, bytes);
    unsigned long long sum = XXH3_64bits(json, bytes);
    bytes += (size_t)snprintf(json + bytes, 64, "\"xxh3\": \"%016llx\"\n}\n", sum);
    image *im;
    lamina_error err = {0};
    if (image_parse(m, "store", "manifest.json", json, bytes, form, &im, &err) == LAMINA_OK) {
        hold_together(im, form);
        image_free(im);
    } else if (!err.text[0]) {
        abort();
    }
    free(json);
    if (memory_free(m) != 0) abort();
    return 0;
}

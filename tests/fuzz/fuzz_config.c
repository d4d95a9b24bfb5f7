/* Any bytes as a config.json: refused in words or bound, never worse. What was bound must be computable: the tensors it
 * implies lie one after the other, the windows are those of layers that are there, the rotation's angles are finite. */
#include <math.h>

#include "feed.h"
#include "format/huggingface.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { LAYERS_HERE = 200, HALF_HERE = 2048 };

static void must(bool holds)
{
    if (!holds) abort();
}

/* Thousands of layers are understood and only slow: each implies a dozen tensors like those of the one before. */
static bool is_quick(const checkpoint *c)
{
    double layers = json_number_value(json_object_get(c->config, "num_hidden_layers"));
    return layers <= LAYERS_HERE || layers > 10000; /* the latter are refused */
}

static void turn(const rope_axes *rope, uint32_t context)
{
    static float inv_freq[HALF_HERE];
    float scale = 0;
    uint32_t half = rope->dims / 2;
    if (half > HALF_HERE) return;
    rope_frequencies(rope, context, NULL, inv_freq, &scale);
    must(isfinite(scale) && scale > 0);
    for (uint32_t i = 0; i < half; i++) must(isfinite(inv_freq[i]) && inv_freq[i] >= 0);
}

static void hold_together(const model *mo, const checkpoint *c)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        must(mo->tensor_roles[i] != 0 && mo->tensor_layers[i] < (int64_t)mo->n_layers);
        bytes += c->tensors[i].bytes;
    }
    must(bytes == mo->weight_bytes && mo->heads % mo->kv_heads == 0);
    must(mo->n_ropes <= ROPE_SETS);
    must(isfinite(mo->attention_scale) && mo->norm_eps > 0);
    must(model_end(mo, ROLE_EMBED)->rows == mo->vocab && model_end(mo, ROLE_HEAD)->rows == mo->vocab);
    for (size_t i = 0; i < mo->n_eos; i++)
        must(mo->eos[i] >= 0 && (uint32_t)mo->eos[i] < mo->vocab && (i == 0 || mo->eos[i] > mo->eos[i - 1]));
    must(mo->bos >= -1 && (mo->bos < 0 || (uint32_t)mo->bos < mo->vocab));
    for (uint32_t i = 0; i < mo->n_ropes; i++) {
        must(mo->rope[i].dims > 0 && mo->rope[i].dims <= mo->head_dim && mo->rope[i].dims % 2 == 0);
        turn(&mo->rope[i], 64);
        turn(&mo->rope[i], mo->max_context);
    }
    for (uint32_t i = 0; i < mo->n_layers; i++) must(mo->layers[i].rope < (int)mo->n_ropes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    memory *m = memory_new();
    lamina_error err = {0};
    checkpoint *c = NULL;
    model *mo = NULL;
    must(m != NULL);
    lamina_status status = huggingface_open_config(m, feed(data, n), &c, &err);
    must(status == LAMINA_OK ? c != NULL : !c && err.text[0]);
    if (c && is_quick(c)) {
        status = model_bind(m, c, NULL, &mo, &err);
        must(status == LAMINA_OK ? mo != NULL : !mo && err.text[0]);
        if (mo) hold_together(mo, c);
    }
    model_free(mo);
    checkpoint_free(c);
    must(memory_free(m) == 0);
    return 0;
}

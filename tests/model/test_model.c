/* Configurations: which are understood, which are refused and in what words; frequencies against transformers'. */
#include <math.h>
#include <stdint.h>
#include <unistd.h>

#include "base/os.h"
#include "model/model.h"
#include "rope_golden.h"
#include "test.h"

/* Binds a configuration alone, written to a temporary file. */
static lamina_status bind_text(const char *text, const char *ignore, void (*look)(const model *), lamina_error *err)
{
    char path[] = "/tmp/lamina-config-XXXXXX.json";
    int fd = mkstemps(path, 5);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) return LAMINA_E_IO;
    close(fd);
    memory *m = memory_new();
    checkpoint *c = NULL;
    model *mo = NULL;
    lamina_status s = checkpoint_open(m, path, &c, err);
    if (s == LAMINA_OK) s = model_bind(m, c, ignore, &mo, err);
    if (s == LAMINA_OK && look) look(mo);
    model_free(mo);
    checkpoint_free(c);
    CHECK(memory_free(m) == 0, "memory is still held");
    unlink(path);
    return s;
}

#define LLAMA                                                                                                          \
    "\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, "            \
    "\"num_attention_heads\": 4, \"vocab_size\": 300"

static void look_defaults(const model *m)
{
    CHECK(m->kv_heads == 4 && m->head_dim == 16 && m->max_context == 2048, "%u %u %u", m->kv_heads, m->head_dim,
          m->max_context);
    CHECK(m->norm_eps == 1e-6f && m->rope[0].theta == 10000 && !m->tied_head, "eps %g theta %g", (double)m->norm_eps,
          m->rope[0].theta);
    CHECK(m->n_parameters == 2 * 300 * 64 + 64 + 2 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64), "%llu parameters",
          (unsigned long long)m->n_parameters);
    CHECK(m->weight_bytes == 4 * m->n_parameters, "%llu bytes", (unsigned long long)m->weight_bytes);
}

static void absent_keys_take_the_reference_defaults(void)
{
    lamina_error err = {0};
    CHECK(!bind_text("{" LLAMA "}", NULL, look_defaults, &err), "%s", err.text);
}

static void look_llama3(const model *m)
{
    CHECK(m->rope[0].scaling == ROPE_LLAMA3 && m->rope[0].theta == 500000 && m->rope[0].factor == 8 &&
              m->rope[0].original_context == 32 && m->rope[0].low_freq_factor == 1 && m->rope[0].high_freq_factor == 4,
          "scaling %d theta %g", m->rope[0].scaling, m->rope[0].theta);
    CHECK(m->weight_bytes == 2 * m->n_parameters, "bf16");
}

static void both_dialects_say_the_same(void)
{
    lamina_error err = {0};
    CHECK(
        !bind_text(
            "{" LLAMA
            ", \"torch_dtype\": \"bfloat16\", \"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", "
            "\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
            "\"original_max_position_embeddings\": 32}}",
            NULL, look_llama3, &err),
        "%s", err.text);
    CHECK(!bind_text(
              "{" LLAMA
              ", \"dtype\": \"bfloat16\", \"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 500000.0, "
              "\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
              "\"original_max_position_embeddings\": 32}}",
              NULL, look_llama3, &err),
          "%s", err.text);
}

static void look_window(const model *m)
{
    CHECK(m->layers[0].window == 0 && m->layers[1].window == 7, "windows %u %u", m->layers[0].window,
          m->layers[1].window);
    CHECK(m->layers[0].w[ROLE_Q_BIAS].rows == 1 && m->layers[0].w[ROLE_O_BIAS].rows == 0, "biases of qwen2");
}

static void windows_follow_the_family(void)
{
    lamina_error err = {0};
    CHECK(!bind_text(
              "{\"model_type\": \"qwen2\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, "
              "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 300, \"use_sliding_window\": "
              "true, "
              "\"sliding_window\": 7, \"max_window_layers\": 1}",
              NULL, look_window, &err),
          "%s", err.text);
}

static void what_is_not_understood_is_refused_by_name(void)
{
    static const struct {
        const char *text, *ignore;
        lamina_status status;
        const char *words;
    } cases[] = {
        {"{" LLAMA ", \"logit_softcap\": 30.0}", NULL, LAMINA_E_UNSUPPORTED,
         "\"logit_softcap\" = 30.0 is not understood"},
        {"{" LLAMA ", \"logit_softcap\": 30.0}", "other,logit_softcap", LAMINA_OK, NULL},
        {"{" LLAMA ", \"logit_softcap\": null}", NULL, LAMINA_OK, NULL},
        {"{" LLAMA ", \"_name_or_path\": \"x\", \"attention_dropout\": 0.0, \"use_cache\": true}", NULL, LAMINA_OK,
         NULL},
        {"{" LLAMA ", \"use_mrope\": true}", NULL, LAMINA_E_UNSUPPORTED, "\"use_mrope\" = true is not understood"},
        {"{" LLAMA ", \"hidden_act\": \"mish\"}", NULL, LAMINA_E_UNSUPPORTED,
         "\"hidden_act\" = \"mish\": this activation is not computed; known are silu"},
        {"{" LLAMA ", \"partial_rotary_factor\": 0.5}", NULL, LAMINA_E_UNSUPPORTED,
         "\"partial_rotary_factor\" = 0.5 is not understood"},
        {"{" LLAMA ", \"quantization_config\": {\"quant_method\": \"gptq\"}}", NULL, LAMINA_E_UNSUPPORTED, "\"gptq\""},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"wave\", \"factor\": 2}}", NULL, LAMINA_E_UNSUPPORTED, "\"wave\""},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2}}", NULL, LAMINA_E_FORMAT,
         "\"rope_scaling.long_factor\" = nothing: expected a list of 8 numbers"},
        {"{" LLAMA ", \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}", NULL, LAMINA_E_FORMAT,
         "expected one set, or full_attention and sliding_attention"},
        {"{" LLAMA ", \"rope_parameters\": {\"full_attention\": {\"rope_theta\": 5}, \"sliding_attention\": {}}}", NULL,
         LAMINA_E_FORMAT, "expected the same for all layers"},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"linear\"}}", NULL, LAMINA_E_FORMAT,
         "\"rope_scaling.factor\" = nothing"},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"twist\": 1}}", NULL,
         LAMINA_E_UNSUPPORTED, "\"rope_scaling.twist\" = 1 is not understood"},
        {"{" LLAMA ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": 1e-310}}", NULL,
         LAMINA_E_FORMAT, "expected 0 or at least 1e-6"},
        {"{" LLAMA ", \"num_key_value_heads\": 3}", NULL, LAMINA_E_FORMAT,
         "expected a multiple of num_key_value_heads 3"},
        {"{" LLAMA ", \"head_dim\": 7}", NULL, LAMINA_E_FORMAT, "head_dim 7: expected an even number"},
        {"{" LLAMA ", \"head_dim\": 2, \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", NULL,
         LAMINA_E_FORMAT, "head_dim 2: dynamic scaling expects at least 4"},
        {"{" LLAMA ", \"rms_norm_eps\": -1}", NULL, LAMINA_E_FORMAT, "\"rms_norm_eps\" = -1"},
        {"{" LLAMA ", \"torch_dtype\": \"float64\"}", NULL, LAMINA_E_FORMAT, "\"float64\""},
        {"{" LLAMA ", \"layer_types\": [\"full_attention\", \"linear_attention\"]}", NULL, LAMINA_E_UNSUPPORTED,
         "linear_attention"},
        {"{" LLAMA ", \"layer_types\": [\"full_attention\"]}", NULL, LAMINA_E_FORMAT,
         "expected a list of num_hidden_layers = 2"},
        {"{" LLAMA ", \"eos_token_id\": \"x\"}", NULL, LAMINA_E_FORMAT, "eos_token_id"},
        {"{\"model_type\": \"mamba\"}", NULL, LAMINA_E_UNSUPPORTED,
         "\"mamba\" is not a family that this version computes; known are llama, "},
        {"{\"hidden_size\": 1}", NULL, LAMINA_E_FORMAT, "model_type, found none"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 1e99}", NULL, LAMINA_E_FORMAT, "hidden_size"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 99999999999}", NULL, LAMINA_E_FORMAT,
         "expected a whole number from 1 to 1048576"},
        {"{\"model_type\": \"llama\", \"hidden_size\": \"64\"}", NULL, LAMINA_E_FORMAT, "expected a whole number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lamina_error err = {0};
        lamina_status s = bind_text(cases[i].text, cases[i].ignore, NULL, &err);
        CHECK(s == cases[i].status, "case %zu: status %d: %s", i, s, err.text);
        CHECK(!cases[i].words || strstr(err.text, cases[i].words), "case %zu says: %s", i, err.text);
    }
}

static const struct {
    const char *name;
    double billions; /* 0: refused by name */
    const char *words;
} known[] = {
    {"Llama-3.1-405B", 405.853, 0},
    {"Llama-3.1-70B", 70.554, 0},
    {"Llama-3.1-8B", 8.030, 0},
    {"Llama-3.2-3B", 3.213, 0},
    {"Llama-3.2-1B", 1.236, 0},
    {"Llama-2-70B", 68.977, 0},
    {"Llama-2-7B", 6.738, 0},
    {"Llama-3-70B", 70.554, 0},
    {"Llama-3-8B", 8.030, 0},
    {"Mistral-7B-v0.1", 7.242, 0},
    {"Mistral-7B-v0.3", 7.248, 0},
    {"Qwen2-0.5B", 0.494, 0},
    {"Qwen2-7B", 7.616, 0},
    {"Qwen2.5-72B", 72.706, 0},
    {"Qwen2.5-32B", 32.764, 0},
    {"Qwen2.5-14B", 14.770, 0},
    {"Qwen2.5-7B", 7.616, 0},
    {"Qwen3-0.6B", 0.596, 0},
    {"Qwen3-32B", 32.762, 0},
    {"Qwen3-8B", 8.191, 0},
    {"Qwen3-4B", 4.022, 0},
    {"Qwen3-1.7B", 1.721, 0},
    {"SmolLM2-135M", 0.1345, 0},
    {"TinyLlama-1.1B-Chat-v1.0", 1.100, 0},
    {"Yi-34B", 34.389, 0},
    {"Gemma-2-9B", 9.242, 0},
    {"Gemma-2-2B", 2.614, 0},
    {"Gemma-2B", 2.506, 0},
    {"Gemma-3-1B-it", 1.000, 0},
    {"GPT-2", 0.124, 0},
    {"ChatGLM3-6B", 6.244, 0},
    {"GLM-4-9B-chat", 9.400, 0},
    {"Phi-4-14B", 14.660, 0},
    {"Phi-3.5-mini", 3.821, 0},
    {"Baichuan2-7B", 7.506, 0},
    {"InternLM-7B", 7.322, 0},
    {"InternLM-20B", 20.089, 0},
    {"InternLM2-7B", 7.738, 0},
    {"InternLM2.5-7B", 7.738, 0},
    {"Qwen-1.8B", 1.837, 0},
    {"Qwen-7B", 7.721, 0},
    {"Qwen-72B", 72.288, 0},
    {"DeepSeek-V3", 671.026, 0},
    {"Qwen1.5-MoE-A2.7B", 14.316, 0},
    {"Mixtral-8x7B-v0.1", 46.703, 0},
    {"Qwen3-30B-A3B", 30.532, 0},
    {"Qwen3-235B-A22B", 235.094, 0},
};

#define MIXED                                                                                                          \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"moe_intermediate_size\": 32, \"num_hidden_layers\": 2, "        \
    "\"num_attention_heads\": 4, \"vocab_size\": 300, \"n_routed_experts\": 8, \"num_experts_per_tok\": "
#define V2 "\"model_type\": \"deepseek_v2\", " MIXED "2"
#define V3_OF(used, groups, best)                                                                                      \
    "\"model_type\": \"deepseek_v3\", " MIXED used ", \"n_group\": " groups ", \"topk_group\": " best
#define V3 V3_OF("2", "2", "1")

/* What the rows of other mechanisms refuse, in what words. */
static void mechanisms_refuse_by_name(void)
{
    static const struct {
        const char *text, *words; /* NULL: accepted */
    } cases[] = {
        {"{" V2 "}", NULL},
        {"{" V2 ", \"topk_method\": \"noaux_tc\"}",
         "\"topk_method\" = \"noaux_tc\": expected greedy or group_limited_greedy"},
        {"{" V2 ", \"scoring_func\": \"sigmoid\"}", "\"scoring_func\" = \"sigmoid\": expected softmax"},
        {"{" V2 ", \"norm_topk_prob\": true}", "\"norm_topk_prob\" = true is not computed for deepseek_v2"},
        {"{" V2 ", \"moe_layer_freq\": 0}", "\"moe_layer_freq\" = 0: expected a whole number from 1"},
        {"{" V2 ", \"qk_rope_head_dim\": 7}", "qk_rope_head_dim 7: expected an even number"},
        {"{" V2 ", \"mlp_layer_types\": [\"sparse\", \"both\"]}", "layer 1 is \"both\": expected dense or sparse"},
        {"{" V3 "}", NULL},
        {"{" V3 ", \"topk_method\": \"greedy\"}", "\"topk_method\" = \"greedy\": expected noaux_tc"},
        {"{" V3_OF("2", "3", "1") "}", "n_group 3: expected a divisor of the number of experts"},
        {"{" V3_OF("2", "8", "4") "}", "n_group 8: expected at least two experts in a group"},
        {"{" V3_OF("2", "2", "3") "}", "topk_group 3: expected at most n_group"},
        {"{" V3_OF("5", "2", "1") "}", "num_experts_per_tok 5: expected at most the experts of topk_group groups"},
        {"{" V3_OF("9", "2", "1") "}", "num_experts_per_tok 9: expected at most num_experts"},
        {"{" V3 ", \"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [64, 64]}}",
         "weights quantised by \"fp8\" are not computed"},
        {"{\"model_type\": \"cohere2\", \"use_qk_norm\": true}", "\"use_qk_norm\" = true is not understood"},
        {"{\"model_type\": \"gemma2\", \"use_bidirectional_attention\": true}",
         "\"use_bidirectional_attention\" = true is not understood"},
        {"{\"model_type\": \"exaone4\", \"sliding_window_pattern\": \"LGLG\"}",
         "expected a whole number, or letters like LLLG"},
        {"{\"model_type\": \"smollm3\", \"num_hidden_layers\": 2, \"no_rope_layers\": [1, 2]}",
         "expected 1 for a layer that is rotated"},
        {"{\"model_type\": \"falcon\", \"alibi\": true}", "\"alibi\" = true is not understood"},
        {"{\"model_type\": \"chatglm\", \"post_layer_norm\": false}", "\"post_layer_norm\" = false is not understood"},
        {"{\"model_type\": \"chatglm\", \"quantization_bit\": 4}", "\"quantization_bit\" = 4 is not understood"},
        {"{\"model_type\": \"qwen\", \"intermediate_size\": 77}", "intermediate_size 77: expected an even number"},
        {"{\"model_type\": \"qwen\", \"no_bias\": false}", "\"no_bias\" = false is not understood"},
        {"{\"model_type\": \"gpt_oss\", \"swiglu_alpha\": 2}", "\"swiglu_alpha\" = 2 is not understood"},
        {"{\"model_type\": \"phi3\", \"partial_rotary_factor\": 0.33}",
         "expected an even number of rotated dimensions"},
        {"{\"model_type\": \"glm4_moe\", \"partial_rotary_factor\": 2}", "expected a number from 0.001 to 1"},
        {"{\"model_type\": \"wrapper\", \"text_config\": {" LLAMA "}}", NULL},
        {"{\"model_type\": \"wrapper\", \"text_config\": {\"model_type\": \"mamba\"}}", "\"wrapper\" is not a family"},
        {"{\"model_type\": \"wrapper\", \"text_config\": {" LLAMA ", \"twist\": 1}}",
         "\"twist\" = 1 is not understood"},
        {"{\"model_type\": \"wrapper\", \"quantization_config\": {\"quant_method\": \"awq\"}, \"text_config\": {" LLAMA
         "}}",
         "\"awq\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lamina_error err = {0};
        lamina_status s = bind_text(cases[i].text, NULL, NULL, &err);
        CHECK((s == LAMINA_OK) == !cases[i].words, "case %zu: status %d: %s", i, s, err.text);
        CHECK(!cases[i].words || strstr(err.text, cases[i].words), "case %zu says: %s", i, err.text);
    }
}

/* Every real configuration at hand: those of known families bind with the published number of parameters. */
static void real_configurations(void)
{
    int seen = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/configs/%s.json", TEST_SHARED, known[i].name);
        if (!os_exists(path)) continue;
        seen++;
        lamina_error err = {0};
        memory *m = memory_new();
        checkpoint *c = NULL;
        model *mo = NULL;
        lamina_status s = checkpoint_open(m, path, &c, &err);
        if (s == LAMINA_OK) s = model_bind(m, c, NULL, &mo, &err);
        if (known[i].billions > 0) {
            double got = mo ? (double)mo->n_parameters / 1e9 : 0, tolerance = 0.0006 * fmax(1, known[i].billions / 10);
            CHECK(s == LAMINA_OK, "%s: %s", known[i].name, err.text);
            CHECK(fabs(got - known[i].billions) <= tolerance, "%s: %.4f billion, published %.4f", known[i].name, got,
                  known[i].billions);
        } else {
            CHECK(s == LAMINA_E_UNSUPPORTED && strstr(err.text, known[i].words), "%s: %d %s", known[i].name, s,
                  err.text);
        }
        model_free(mo);
        checkpoint_free(c);
        CHECK(memory_free(m) == 0, "%s: memory is still held", known[i].name);
    }
    if (seen == 0) SKIP("no %s/configs here", TEST_SHARED);
    printf("  %d configurations\n", seen);
}

/* Configurations of sizes that no other test has, by facts that were published, with the number of parameters. */
static void other_sizes(void)
{
    static const struct {
        const char *name;
        double billions;
    } sizes[] = {
        {"codellama-70b", 68.977},   {"command-r-plus", 103.811}, {"deepseek-coder-v2", 235.741},
        {"exaone-4.0-32b", 32.003},  {"falcon-180b", 179.521},    {"gemma-2-27b", 27.227},
        {"glm-4.5-air", 106.852},    {"gpt-oss-120b", 116.829},   {"granite-3.3-8b", 8.171},
        {"internlm2.5-20b", 19.861}, {"kimi-k2", 1026.408},       {"mistral-small-24b", 23.572},
        {"mixtral-8x22b", 140.621},  {"olmo-2-32b", 32.234},      {"phi-3-medium-4k", 13.960},
        {"seed-oss-36b", 36.151},    {"starcoder2-15b", 15.958},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char path[600];
        lamina_error err = {0};
        memory *m = memory_new();
        checkpoint *c = NULL;
        model *mo = NULL;
        snprintf(path, sizeof path, TEST_DATA "/configs/%s.json", sizes[i].name);
        lamina_status s = checkpoint_open(m, path, &c, &err);
        if (s == LAMINA_OK) s = model_bind(m, c, NULL, &mo, &err);
        CHECK(s == LAMINA_OK, "%s: %s", sizes[i].name, err.text);
        double got = mo ? (double)mo->n_parameters / 1e9 : 0;
        CHECK(fabs(got - sizes[i].billions) <= 0.0011, "%s: %.4f billion, published %.3f", sizes[i].name, got,
              sizes[i].billions);
        model_free(mo);
        checkpoint_free(c);
        CHECK(memory_free(m) == 0, "%s: memory is still held", sizes[i].name);
    }
}

static void every_failing_allocation_is_clean(void)
{
    char path[] = "/tmp/lamina-config-XXXXXX.json";
    static const char text[] = "{" LLAMA ", \"eos_token_id\": [1, 2]}";
    int fd = mkstemps(path, 5);
    REQUIRE(fd >= 0 && write(fd, text, sizeof text - 1) == sizeof text - 1, "no temporary file");
    close(fd);
    lamina_status s = LAMINA_E_MEMORY;
    for (uint64_t n = 1; s != LAMINA_OK && n < 1000; n++) {
        lamina_error err = {0};
        memory *m = memory_new();
        checkpoint *c = NULL;
        model *mo = NULL;
        memory_fail_at(m, n);
        s = checkpoint_open(m, path, &c, &err);
        if (s == LAMINA_OK) s = model_bind(m, c, NULL, &mo, &err);
        CHECK(s == LAMINA_OK || s == LAMINA_E_MEMORY, "allocation %d: %d %s", (int)n, s, err.text);
        model_free(mo);
        checkpoint_free(c);
        CHECK(memory_free(m) == 0, "allocation %d leaks", (int)n);
    }
    CHECK(s == LAMINA_OK, "never succeeds");
    unlink(path);
}

/* Frequencies to two units in the last place: a power rounded to f32 may differ by one from the reference (its own is
 * not correctly rounded), and so may its reciprocal or what scaling makes of it. */
static void frequencies_are_those_of_the_reference(void)
{
    static const rope_axes axes[] = {
        {.theta = 500000, .dims = 128},
        {.theta = 10000, .dims = 30},
        {.theta = 10000, .dims = 64, .scaling = ROPE_LINEAR, .factor = 4},
        {.theta = 10000, .dims = 64, .scaling = ROPE_DYNAMIC, .factor = 2, .original_context = 2048},
        {.theta = 500000,
         .dims = 128,
         .scaling = ROPE_LLAMA3,
         .factor = 8,
         .low_freq_factor = 1,
         .high_freq_factor = 4,
         .original_context = 8192},
        {.theta = 1000000,
         .dims = 128,
         .scaling = ROPE_YARN,
         .factor = 4,
         .original_context = 32768,
         .beta_fast = 32,
         .beta_slow = 1,
         .truncate = true},
        {.theta = 10000,
         .dims = 64,
         .scaling = ROPE_YARN,
         .factor = 40,
         .original_context = 4096,
         .beta_fast = 32,
         .beta_slow = 1,
         .mscale = 1,
         .mscale_all_dim = 0.8,
         .truncate = true},
        {.theta = 150000,
         .dims = 64,
         .scaling = ROPE_YARN,
         .factor = 32,
         .original_context = 4096,
         .beta_fast = 32,
         .beta_slow = 1,
         .attention_factor = 1.25},
    };
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++) {
        float got[64], scale, worst = 0;
        rope_frequencies(&axes[i], rope_golden[i].context, NULL, got, &scale);
        for (uint32_t k = 0; k < axes[i].dims / 2; k++) {
            float want = rope_golden[i].inv_freq[k], ulp = nextafterf(want, INFINITY) - want;
            worst = fmaxf(worst, fabsf(got[k] - want) / ulp);
        }
        CHECK(worst <= 2, "%s: %g units in the last place, tolerance 2", rope_golden[i].name, (double)worst);
        CHECK(scale == rope_golden[i].scale, "%s: scale %.9g, expected %.9g", rope_golden[i].name, (double)scale,
              (double)rope_golden[i].scale);
        printf("  %-15s worst %g units in the last place (tolerance 2)\n", rope_golden[i].name, (double)worst);
    }
}

/* A base that has grown beyond f32: torch's 1 / inf^0 and 1 / inf^x. */
static void a_base_may_grow_to_infinity(void)
{
    rope_axes axes = {.theta = 1e30, .dims = 4, .scaling = ROPE_DYNAMIC, .factor = 1e6, .original_context = 16};
    float got[2], scale;
    rope_frequencies(&axes, 4096, NULL, got, &scale);
    CHECK(got[0] == 1.0f && got[1] == 0.0f && scale == 1.0f, "%g %g scale %g", (double)got[0], (double)got[1],
          (double)scale);
}

TEST_MAIN(T(absent_keys_take_the_reference_defaults), T(both_dialects_say_the_same), T(windows_follow_the_family),
          T(what_is_not_understood_is_refused_by_name), T(mechanisms_refuse_by_name), T(real_configurations),
          T(other_sizes), T(every_failing_allocation_is_clean), T(frequencies_are_those_of_the_reference),
          T(a_base_may_grow_to_infinity))

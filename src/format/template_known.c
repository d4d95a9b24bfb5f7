/* The templates of models that come without one but were trained with a known form.
 *
 * Written as Jinja, so that there is one way from messages to text. A row is chosen by what the checkpoint says of
 * itself, its model_type, and by spellings that tell generations apart; the first that fits. What a form has no place
 * for is refused by the template itself. */
#include <string.h>

#include "format/template.h"
#include "format/tokenizer_internal.h"

/* wrong(message) refuses a role. */
#define REFUSES                                                                                                        \
    "{%- macro wrong(m) %}{{ raise_exception('role ' ~ m.role ~ ' has no place in this model\\'s form') }}"            \
    "{% endmacro -%}"

/* A system message that the form has no place of its own for stands before the first question. */
#define SYSTEM_FIRST                                                                                                   \
    "{%- set ns = namespace(system='', round=0) -%}"                                                                   \
    "{%- for m in messages if m.role == 'system' %}{% set ns.system = ns.system ~ m.content ~ '\\n\\n' %}{% endfor "   \
    "-%}"

#define CHATML(begin)                                                                                                  \
    begin "{%- for m in messages -%}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{%- endfor -%}" \
          "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}"

/* Tokenizer of THUDM/chatglm2-6b, build_prompt(): rounds counted from 1. */
static const char chatglm2[] = SYSTEM_FIRST REFUSES
    "[gMASK]sop"
    "{%- for m in messages if m.role != 'system' -%}"
    "{%- if m.role == 'user' -%}{%- set ns.round = ns.round + 1 -%}"
    "{{ '[Round ' ~ ns.round ~ ']\\n\\n问：' ~ ns.system ~ m.content ~ '\\n\\n答：' }}{%- set ns.system = '' -%}"
    "{%- elif m.role == 'assistant' -%}{{ m.content ~ '\\n\\n' }}{%- else -%}{{ wrong(m) }}{%- endif -%}"
    "{%- endfor -%}";

/* Tokenizer of THUDM/chatglm3-6b, build_chat_input(): the space is SentencePiece's dummy prefix, which each part
 * gets. */
static const char chatglm3[] =
    "[gMASK]sop{%- for m in messages -%}{{ '<|' ~ m.role ~ '|>\\n ' ~ m.content }}{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif -%}";

/* Tokenizer of THUDM/glm-4-9b-chat, apply_chat_template(). */
static const char glm4[] =
    "[gMASK]<sop>{%- for m in messages -%}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content }}{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif -%}";

/* baichuan-inc/Baichuan-13B-Chat, _build_chat_input(): user_token_id 195, assistant_token_id 196. */
static const char baichuan1[] = SYSTEM_FIRST REFUSES
    "{%- for m in messages if m.role != 'system' -%}"
    "{%- if m.role == 'user' -%}{{ '<reserved_102>' ~ ns.system ~ m.content }}{%- set ns.system = '' -%}"
    "{%- elif m.role == 'assistant' -%}{{ '<reserved_103>' ~ m.content ~ '</s>' }}"
    "{%- else -%}{{ wrong(m) }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '<reserved_103>' }}{% endif -%}";

/* baichuan-inc/Baichuan2-13B-Chat, generation_utils.build_chat_input(): a system text stands first, as it is. */
static const char baichuan2[] = REFUSES "{%- for m in messages -%}"
                                        "{%- if m.role == 'system' -%}{{ m.content }}"
                                        "{%- elif m.role == 'user' -%}{{ '<reserved_106>' ~ m.content }}"
                                        "{%- elif m.role == 'assistant' -%}{{ '<reserved_107>' ~ m.content }}"
                                        "{%- else -%}{{ wrong(m) }}{%- endif -%}"
                                        "{%- endfor -%}"
                                        "{%- if add_generation_prompt %}{{ '<reserved_107>' }}{% endif -%}";

/* internlm/internlm-chat-7b, modeling_internlm.build_inputs(). */
static const char internlm1[] = REFUSES "<s>{%- for m in messages -%}"
                                        "{%- if m.role == 'system' -%}{{ '<|System|>:' ~ m.content ~ '\\n' }}"
                                        "{%- elif m.role == 'user' -%}{{ '<|User|>:' ~ m.content ~ '<eoh>\\n' }}"
                                        "{%- elif m.role == 'assistant' -%}{{ '<|Bot|>:' ~ m.content ~ '<eoa>\\n' }}"
                                        "{%- else -%}{{ wrong(m) }}{%- endif -%}"
                                        "{%- endfor -%}"
                                        "{%- if add_generation_prompt %}{{ '<|Bot|>:' }}{% endif -%}";

/* internlm/internlm2-chat-7b, modeling_internlm2.build_inputs(). */
static const char internlm2[] = CHATML("<s>");

/* Qwen/Qwen-7B-Chat, qwen_generation_utils.make_context(): without a system message it has this one. */
static const char qwen1[] =
    CHATML("{%- if not messages or messages[0].role != 'system' %}"
           "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif -%}");

/* facebookresearch/llama, llama/generation.py, chat_completion(). */
static const char llama2[] =
    REFUSES "{%- set ns = namespace(system='') -%}"
            "{%- for m in messages -%}"
            "{%- if m.role == 'system' -%}{%- set ns.system = '<<SYS>>\\n' ~ m.content ~ '\\n<</SYS>>\\n\\n' -%}"
            "{%- elif m.role == 'user' -%}{{ '<s>[INST] ' ~ (ns.system ~ m.content)|trim ~ ' [/INST]' }}{%- set "
            "ns.system = '' -%}"
            "{%- elif m.role == 'assistant' -%}{{ ' ' ~ m.content|trim ~ ' </s>' }}"
            "{%- else -%}{{ wrong(m) }}{%- endif -%}"
            "{%- endfor -%}";

/* mistralai/Mistral-7B-Instruct-v0.1, its model card. */
static const char mistral1[] = SYSTEM_FIRST REFUSES
    "<s>{%- for m in messages if m.role != 'system' -%}"
    "{%- if m.role == 'user' -%}{{ '[INST] ' ~ ns.system ~ m.content ~ ' [/INST]' }}{%- set ns.system = '' -%}"
    "{%- elif m.role == 'assistant' -%}{{ m.content ~ '</s>' }}{%- else -%}{{ wrong(m) }}{%- endif -%}"
    "{%- endfor -%}";

static const struct {
    const char *model_type;
    const char *with, *without; /* spellings that the vocabulary must have, must not have; NULL: any */
    uint32_t vocab_least, vocab_most;
    const char *source;
} forms[] = {
    {"chatglm", "<sop>", NULL, 0, UINT32_MAX, glm4},
    {"chatglm", "<|user|>", NULL, 0, UINT32_MAX, chatglm3},
    {"chatglm", NULL, NULL, 0, UINT32_MAX, chatglm2},
    {"baichuan", "<reserved_107>", NULL, 100000, UINT32_MAX, baichuan2},
    {"baichuan", "<reserved_103>", NULL, 0, 99999, baichuan1},
    {"internlm", NULL, NULL, 0, UINT32_MAX, internlm1},
    {"internlm2", NULL, NULL, 0, UINT32_MAX, internlm2},
    {"qwen", NULL, NULL, 0, UINT32_MAX, qwen1},
    {"llama", "<s>", "<|im_start|>", 32000, 32063, llama2},
    {"mistral", "<s>", "[INST]", 32000, 32063, mistral1},
};

static bool has_spelling(const tokenizer *t, const char *text)
{
    size_t n = strlen(text);
    for (uint32_t i = 0; i < t->n_added; i++)
        if (t->added[i].text.bytes == n && memcmp(t->added[i].text.data, text, n) == 0) return true;
    return vocabulary_find(&t->vocab, text, n) >= 0;
}

const char *template_known(const tokenizer *t)
{
    const char *type = tokenizer_find_text(t, "model_type");
    uint32_t vocab = tokenizer_vocab(t);
    for (size_t i = 0; type && i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].model_type, type) != 0 || vocab < forms[i].vocab_least || vocab > forms[i].vocab_most)
            continue;
        if (forms[i].with && !has_spelling(t, forms[i].with)) continue;
        if (forms[i].without && has_spelling(t, forms[i].without)) continue;
        return forms[i].source;
    }
    return NULL;
}

const char *template_choose(const tokenizer *t, bool tools)
{
    const char *own = tools ? tokenizer_find_text(t, "chat_template.tool_use") : NULL;
    if (!own) own = tokenizer_chat_template(t);
    return own ? own : template_known(t);
}

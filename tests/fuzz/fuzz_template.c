/* libFuzzer target: the bytes are a template, rendered over a small conversation with tools. What is rendered must be
 * UTF-8; nothing may leak, run long or deep. */
#include <stdint.h>
#include <stdlib.h>

#include "format/template.h"
#include "format/tokenizer_unicode.h"

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Gr\\u00fc\\u00dfe \\n\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":"
    "{\"a\":[1,2.5,"
    "true]}}}]},{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static json_t *chat;
    static const tokenizer_text texts[] = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    static const struct tm now = {.tm_year = 126, .tm_mon = 6, .tm_mday = 5};
    if (!chat) chat = json_loads(conversation, 0, NULL);
    memory *m = memory_new();
    if (!m || !chat) abort();
    memory_set_limit(m, 64u << 20);
    char *text = NULL;
    size_t n = 0;
    template_input in = {.source = (const char *)data,
                         .bytes = bytes,
                         .messages = json_object_get(chat, "messages"),
                         .tools = json_object_get(chat, "tools"),
                         .add_generation_prompt = true,
                         .texts = texts,
                         .n_texts = 2,
                         .now = &now};
    if (template_render(m, &in, &text, &n, NULL) == LAMINA_OK && utf8_valid(text, n) != n) abort();
    mem_free(m, text);
    if (memory_free(m) != 0) abort();
    return 0;
}

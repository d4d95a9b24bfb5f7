/* Characters whose upper or title case is more than one character (Unicode's SpecialCasing). */
#ifndef LAMINA_FORMAT_TEMPLATE_UNICODE_H
#define LAMINA_FORMAT_TEMPLATE_UNICODE_H

#include <stdint.h>

typedef struct case_special {
    uint32_t from, to[3]; /* 0: no more */
} case_special;
extern const case_special case_uppers[], case_titles[]; /* sorted by from; end with from 0 */

const case_special *find_case(const case_special *table, uint32_t c); /* NULL: an ordinary one */

#endif

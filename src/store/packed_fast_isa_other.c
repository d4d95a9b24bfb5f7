/* Owns the answer of machines for which nothing was written: the compiler's vectors do. */
#include "store/packed_fast.h"

const packed_fast *packed_fast_best(void)
{
    return NULL;
}

/* An architecture without a level of its own: scalar runs. */
#include "kernels.h"

void kernels_ladder(kernels *k, lamina_isa cap)
{
    (void)k;
    (void)cap;
}

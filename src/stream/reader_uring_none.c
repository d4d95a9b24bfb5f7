/* Stands in for reader_uring.c on systems without io_uring: says so, and the threads take over. */
#include "stream/reader_engine.h"

static lamina_status none_start(reader *r, lamina_error *err)
{
    (void)r;
    return error_set(err, LAMINA_E_UNSUPPORTED, "built without io_uring");
}

const reader_engine reader_engine_uring = {.name = "io_uring", .start = none_start};

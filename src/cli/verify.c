/* Owns: `lamina verify`: a store read back against its checksums. */
#include "cli.h"

int verify_command(const options *o)
{
    work w;
    lamina_error err;
    uint64_t bytes = 0;
    int code = work_open(&w, o, 0);
    double begin = now_seconds();
    if (code == EXIT_DONE) {
        lamina_status status = lamina_verify(w.engine, &bytes, &err);
        progress_clear(&w.progress);
        if (status == LAMINA_E_CANCELLED)
            code = fail("interrupted after %s", human_bytes(bytes).text);
        else if (status != LAMINA_OK)
            code = fail_error(&err);
    }
    double seconds = now_seconds() - begin, rate = seconds > 0 ? (double)bytes / seconds : 0;
    if (code == EXIT_DONE && o->json) {
        json_t *object = json_object();
        json_set_text(object, "store", o->operands[0]);
        json_object_set_new(object, "whole", json_true());
        json_set_bytes(object, "bytes_read", bytes);
        json_set_real(object, "seconds", seconds);
        json_set_real(object, "bytes_per_s", rate);
        code = json_print(object);
    } else if (code == EXIT_DONE) {
        printf("%s: whole; %s read in %s (%s)\n", o->operands[0], human_bytes(bytes).text, human_seconds(seconds).text,
               human_rate(rate).text);
        code = finish_stdout();
    }
    work_close(&w);
    return code;
}

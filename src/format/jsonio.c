/* Owns the reading of JSON files into trees. Promises that a tree is an object without duplicate keys and that nothing
 * of the file's text stays behind. Duplicates are refused because readers differ in which of two they believe. */
#include "format/jsonio.h"

#include "base/os.h"

lamina_status json_read_file(memory *m, const char *path, size_t limit, json_t **out, lamina_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    *out = NULL;
    TRY(os_read_file(m, path, limit, &text, &bytes, err));
    json_error_t why;
    json_t *tree = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    mem_free(m, text);
    if (!tree && json_error_code(&why) == json_error_out_of_memory)
        return error_set(err, LAMINA_E_MEMORY, "%s: no memory for its JSON", path);
    if (!tree)
        return error_set(err, LAMINA_E_FORMAT, "%s: line %d, column %d: expected JSON, found: %s", path, why.line,
                         why.column, why.text);
    if (!json_is_object(tree)) {
        json_decref(tree);
        return error_set(err, LAMINA_E_FORMAT, "%s: expected a JSON object, found an array", path);
    }
    *out = tree;
    return LAMINA_OK;
}

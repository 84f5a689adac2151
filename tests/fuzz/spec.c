/* SPDX-License-Identifier: BSD-3-Clause */
/* spec.c - any bytes as a spec: the first says whether in a face and whether as --image-opts, the
 * rest is the text. Which names exist is drawn from the names. */
#include <stdlib.h>

#include "block/option_text.h"
#include "block/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_file(const struct spec_env *env, const char *path)
{
    size_t len = strlen(path);
    return len && (path[len - 1] & 1);
}

/* What the rest of the program relies on: no tree is deeper than a coroutine's stack can stand, and
 * the resolver's own words come from nobody else, but for what a set is called (spec_set.c). */
static void check_depth(const json_t *tree, unsigned room)
{
    const char *key;
    json_t *value;
    assert(room > 0);
    for (size_t i = 0; i < json_array_size(tree); i++)
        check_depth(json_array_get(tree, i), room - 1);
    json_object_foreach ((json_t *)tree, key, value) {
        assert(strncmp(key, "x-lamina-", 9) != 0 || strcmp(key, "x-lamina-name") == 0);
        check_depth(value, room - 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct spec_env env = {.face = data[0] & 1, .co_is_file = data[0] & 2 ? is_file : NULL};
    char *text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    json_t *tree = NULL;
    struct blk_error e = {0};
    int rc = co_spec_parse(&env, text, data[0] & 4, &tree, &e);
    assert((rc == 0) == (tree != NULL) && rc <= 0);
    assert(rc == 0 || (e.rc == rc && e.text[0]));
    if (tree)
        check_depth(tree, 2 * OPTS_DEPTH);
    json_decref(tree);
    free(text);
    return 0;
}

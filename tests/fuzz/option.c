/* SPDX-License-Identifier: BSD-3-Clause */
/* option.c - any text as key=value options against a table with every type, as a size, and as a
 * misspelt name. */
#include <stdlib.h>

#include "block/option.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {"off", "on", "auto", NULL};

static const struct opt_desc table[] = {
    {.name = "b", .type = OPT_BOOL, .help = "bool"},
    {.name = "s", .type = OPT_SIZE, .help = "size", .preset = "1k", .min = 512, .max = 1 * MiB},
    {.name = "i", .type = OPT_INT, .help = "int", .max = 64},
    {.name = "t", .type = OPT_STRING, .help = "text"},
    {.name = "e", .type = OPT_ENUM, .help = "enum", .choices = words},
    {.name = "k", .type = OPT_SECRET, .help = "secret"},
    {.name = "c", .type = OPT_CHILD, .help = "child"},
    {.name = "l", .type = OPT_CHILDREN, .help = "list"},
    {0},
};

static void check_values(const struct opts *o)
{
    assert(opts_number(o, "s") >= 512 && opts_number(o, "s") <= 1 * MiB);
    assert(opts_number(o, "i") <= 64 && opts_number(o, "e") < 3);
    assert(!opts_given(o, "t") || opts_text(o, "t"));
    assert(!opts_given(o, "l") || json_is_array(opts_get(o, "l")->node));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct blk_error e = {0};
    struct opts o;
    uint64_t bytes = 0;
    const char *names[] = {table[0].name, "cluster_size", "preallocation"};
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = 0;
    json_t *tree = json_object();
    int rc = opts_text_to_tree(text, size & 1 ? "t" : NULL, tree, &e);
    if (rc == 0 && (rc = opts_parse(table, tree, &o, &e)) == 0) {
        check_values(&o);
        opts_drop(&o);
    }
    assert(rc == 0 || (e.rc == rc && e.text[0]));
    json_decref(tree);
    if (opts_parse_size(text, &bytes, &e) == 0)
        assert(bytes <= INT64_MAX);
    opts_nearest(text, names, ARRAY_LEN(names));
    json_decref(json_from_text(text));
    free(text);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl.c - any bytes as a line of the control socket: parsed, run against the built-in verbs, and
 * answered. */
#include <stdlib.h>

#include "block/ctl_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int co_echo(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    *result = json_incref((json_t *)request);
    return 0;
}

static const struct ctl_verb verbs[] = {{"echo", "gives the request back", co_echo}, {0}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ctl c = {.verbs = verbs};
    struct blk_error e = {0};
    json_t *request = NULL;
    int rc = ctl_parse((const char *)data, size, &request, &e);
    assert((rc == 0) == (request != NULL));
    json_t *answer = rc == 0 ? co_ctl_answer(&c, request) : ctl_refusal(&e);
    assert(json_is_boolean(json_object_get(answer, "ok")));
    char *text = json_dumps(answer, JSON_COMPACT);
    assert(text && !strchr(text, '\n'));
    free(text);
    json_decref(answer);
    json_decref(request);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl_json.c - lines to trees and back, off the coroutine's small stack; sending. */
#include <stdlib.h>

#include "block/ctl_private.h"
#include "block/option_text.h"

int ctl_parse(const char *line, size_t bytes, json_t **out, struct blk_error *e)
{
    json_error_t why;
    *out = NULL;
    TRY(json_check_depth(line, bytes, e));
    json_t *tree = json_loadb(line, bytes, 0, &why);
    if (!tree)
        return err_set(e, -EINVAL, "not valid JSON: %s (column %d)", why.text, why.column);
    if (!json_is_object(tree)) {
        json_decref(tree);
        return err_set(e, -EINVAL, "expected an object: {\"do\": \"help\"}");
    }
    *out = tree;
    return 0;
}

struct parse_work {
    const char *line;
    size_t bytes;
    json_t **out;
    struct blk_error *e;
};

static int parse_work(void *arg)
{
    struct parse_work *w = arg;
    return ctl_parse(w->line, w->bytes, w->out, w->e);
}

int co_ctl_parse(const char *line, size_t bytes, json_t **out, struct blk_error *e)
{
    struct parse_work w = {.line = line, .bytes = bytes, .out = out, .e = e};
    return co_offload(parse_work, &w);
}

struct print_work {
    json_t *tree;
    char *text;
    size_t bytes;
};

static int print_work(void *arg)
{
    struct print_work *w = arg;
    size_t room = w->tree ? json_dumpb(w->tree, NULL, 0, JSON_COMPACT) : 0;
    if (room > CTL_ANSWER_MAX)
        return -E2BIG;
    w->text = room ? malloc(room + 1) : NULL;
    if (w->text) {
        w->bytes = json_dumpb(w->tree, w->text, room, JSON_COMPACT);
        w->text[w->bytes++] = '\n';
    }
    json_decref(w->tree);
    return w->text ? 0 : -ENOMEM;
}

int co_ctl_print(json_t *tree, char **text, size_t *bytes)
{
    struct print_work w = {.tree = tree};
    int rc = co_offload(print_work, &w);
    *text = w.text;
    *bytes = w.bytes;
    return rc;
}

int co_ctl_send(struct host_stream *s, const char *text, size_t bytes, uint64_t timeout_ns)
{
    while (bytes) {
        struct iovec iov = {.iov_base = (void *)text, .iov_len = bytes};
        int64_t sent = host_stream_sendv(s, &iov, 1);
        if (sent == -EAGAIN || sent == 0) {
            int rc = co_host_stream_wait(s, HOST_WRITABLE, timeout_ns);
            if (rc < 0)
                return rc;
            continue;
        }
        if (sent < 0)
            return (int)sent;
        text += sent;
        bytes -= (size_t)sent;
    }
    return 0;
}

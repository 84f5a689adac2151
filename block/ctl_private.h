/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl_private.h - what the server, the client and the verbs of the control socket share. */
#ifndef BLOCK_CTL_PRIVATE_H
#define BLOCK_CTL_PRIVATE_H

#include "block/ctl.h"
#include "block/host.h"

#define CTL_LINE_MAX   (64 * KiB)
#define CTL_ANSWER_MAX (16 * MiB)
#define CTL_CLIENTS    64

struct ctl_client;
struct ctl {
    struct host *host;
    struct job_list *jobs;
    const struct ctl_verb *verbs;
    void *arg;
    struct host_stream *listener;
    struct ctl_client *clients;
    unsigned count;      /* of clients, those that were told to go not included */
    unsigned coroutines; /* the one that accepts, and one for each client */
    struct co_queue gone;
};

/* One line to a tree; pure. What is not JSON, not an object, or nests too deep: -EINVAL. */
must_use int ctl_parse(const char *line, size_t bytes, json_t **out, struct blk_error *e);
/* The same on the pool. */
must_use int co_ctl_parse(const char *line, size_t bytes, json_t **out, struct blk_error *e);
/* One line, the newline at its end included; runs on the pool. Takes @tree over; *text is free()d
 * by the caller. */
must_use int co_ctl_print(json_t *tree, char **text, size_t *bytes);
/* Sends all; -ETIMEDOUT if the peer takes nothing for @timeout_ns. */
must_use int co_ctl_send(struct host_stream *s, const char *text, size_t bytes,
                         uint64_t timeout_ns);
/* Runs what @request asks for; gives the answer, {"ok": ...}. NULL: no memory. */
json_t *co_ctl_answer(struct ctl *c, const json_t *request);
/* An answer that refuses. */
json_t *ctl_refusal(const struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* client_replay.c - what a server acknowledged and may yet lose.
 *
 * A server that is killed loses what it held in memory: metadata of an image at the least. The one
 * that comes back does not know of it, and would answer a flush with "done". So, where requests are
 * to outlive a server:
 *
 *   R1  Every change is copied before it is sent, and kept in the order of acknowledgements.
 *   R2  A flush lets go of what was acknowledged before it was sent.
 *   R3  A new connection first gets all that is kept, in order; then calls go on.
 *   R4  What is kept is bounded: a change that finds no room flushes first.
 *
 * Where nothing is kept (no reconnect-delay, or replay-size=0) flushes fail for good once a server
 * went away with changes that were not flushed. */
#ifdef HAVE_LIBNBD
#include "nbd/client.h"

struct client_entry {
    struct client_entry *next;
    uint64_t seq;
    enum client_op op;
    uint32_t flags;
    uint64_t offset, bytes;
    uint64_t held; /* memory */
    uint8_t data[];
};

static struct client_entry *entry_new(const struct client_call *call)
{
    size_t data = call->op == CLIENT_WRITE ? call->bytes : 0;
    struct client_entry *n = mem_alloc(sizeof(*n) + data);

    if (!n)
        return NULL;
    *n = (struct client_entry){.op = call->op,
                               .flags = call->flags,
                               .offset = call->offset,
                               .bytes = call->bytes,
                               .held = sizeof(*n) + data};
    if (data)
        memcpy(n->data, call->buf, data);
    return n;
}

int co_replay_prepare(struct client *c, struct client_call *call)
{
    struct client_replay *r = &c->replay;
    uint64_t need = sizeof(struct client_entry) + (call->op == CLIENT_WRITE ? call->bytes : 0);

    call->kept = NULL;
    if (!r->limit || !c->facts.flush)
        return 0;
    if (r->bytes + need > r->limit) {
        with_lock(&r->making);
        while (r->first && r->bytes + need > r->limit)
            TRY(co_client_flush(c));
    }
    call->kept = entry_new(call);
    if (!call->kept)
        return -ENOMEM;
    r->bytes += call->kept->held;
    return 0;
}

void replay_acknowledged(struct client *c, struct client_call *call)
{
    struct client_replay *r = &c->replay;
    struct client_entry *n = take(call->kept);

    if (call->again ||
        (call->op != CLIENT_WRITE && call->op != CLIENT_ZERO && call->op != CLIENT_TRIM))
        return;
    r->seq++;
    if (!n)
        return;
    n->seq = r->seq;
    if (r->last)
        r->last->next = n;
    else
        r->first = n;
    r->last = n;
}

void replay_drop(struct client *c, struct client_call *call)
{
    struct client_entry *n = take(call->kept);

    if (n)
        c->replay.bytes -= n->held;
    mem_free(n);
}

static void forget(struct client_replay *r, uint64_t upto)
{
    r->flushed = MAX(r->flushed, upto);
    while (r->first && r->first->seq <= upto) {
        struct client_entry *n = r->first;

        r->first = n->next;
        r->bytes -= n->held;
        mem_free(n);
    }
    if (!r->first)
        r->last = NULL;
}

int co_client_flush(struct client *c)
{
    uint64_t seq = c->replay.seq;
    struct client_call call = {.op = CLIENT_FLUSH};

    if (c->replay.forgot)
        return -EIO;
    if (!c->facts.flush)
        return 0;
    TRY(co_client_call(c, &call));
    if (c->replay.forgot) /* while it was under way */
        return -EIO;
    forget(&c->replay, seq);
    return 0;
}

/* Nothing else changes the log meanwhile: no call goes on before the client is up. */
int co_replay(struct client *c, struct client_link *l)
{
    for (struct client_entry *n = c->replay.first; n; n = n->next) {
        struct client_call call = {.client = c,
                                   .op = n->op,
                                   .flags = n->flags,
                                   .offset = n->offset,
                                   .bytes = n->bytes,
                                   .buf = n->data,
                                   .again = true};

        TRY(co_link_call(l, &call));
    }
    return 0;
}

void replay_end(struct client *c)
{
    forget(&c->replay, UINT64_MAX);
}
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* client_link.c - one connection to a server.
 *
 * Resolving names, connecting and the handshake (with TLS, which needs a deep stack) run on a
 * thread that may block. From then on libnbd is driven from the loop: a coroutine each waits until
 * the socket can be read or written where libnbd wants that, and lets it. Calls are put on the wire
 * by the coroutine that makes them. */
#ifdef HAVE_LIBNBD
#include <fcntl.h>
#include <libnbd.h>
#include <stdlib.h>
#include <unistd.h>

#include "nbd/client.h"

#define POLL_MS   100                 /* between looks at whether to go on connecting */
#define GOODBYE   (1000 * 1000000ULL) /* what a server gets to hang up, ns */
#define TLS_STACK (24 * KiB)          /* for what GnuTLS does to a record */
#define CONTEXT   LIBNBD_CONTEXT_BASE_ALLOCATION

/* --- connecting, on a thread -------------------------------------------------------------------
 */

struct connecting {
    struct client *client;
    struct nbd_handle *h; /* out */
    struct client_facts facts;
    struct blk_error error;
    uint64_t deadline;
};

/* libnbd's words without the name of its function; where the socket could not be had, the errno's
 * say it all. */
static int failed(struct connecting *j, int rc)
{
    const char *text = nbd_get_error(), *colon = text ? strstr(text, ": ") : NULL;
    int number = nbd_get_errno();

    if (rc == 0)
        rc = number > 0 ? -number : -ECONNREFUSED;
    if (number > 0 && text && strstr(text, "connect"))
        return err_errno(&j->error, rc, "Failed to connect to '%.200s'", j->client->where.text);
    return err_set(&j->error, rc, "NBD server %.200s: %.300s", j->client->where.text,
                   colon  ? colon + 2
                   : text ? text
                          : strerror(-rc));
}

static int set_up(struct nbd_handle *h, const struct client_where *w)
{
    if (nbd_set_export_name(h, w->export ? w->export : "") < 0 ||
        nbd_add_meta_context(h, CONTEXT) < 0 || nbd_set_pread_initialize(h, false) < 0 ||
        nbd_set_tls(h, w->tls ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_DISABLE) < 0)
        return -1;
    if (!w->tls)
        return 0;
    if (w->certificates && nbd_set_tls_certificates(h, w->certificates) < 0)
        return -1;
    if (w->psk_file && nbd_set_tls_psk_file(h, w->psk_file) < 0)
        return -1;
    if (w->user && nbd_set_tls_username(h, w->user) < 0)
        return -1;
    return nbd_set_tls_verify_peer(h, w->verify);
}

static int begin(struct nbd_handle *h, const struct client_where *w)
{
    if (w->path)
        return nbd_aio_connect_unix(h, w->path);
    if (w->host)
        return nbd_aio_connect_tcp(h, w->host, w->port);
    return nbd_aio_connect_vsock(h, w->cid, (uint32_t)strtoul(w->port, NULL, 10));
}

/* Until it is ready, refused, too late or not wanted any more. */
static int shake_hands(struct connecting *j)
{
    struct client *c = j->client;

    while (!nbd_aio_is_ready(j->h)) {
        if (nbd_aio_is_dead(j->h) || nbd_aio_is_closed(j->h))
            return failed(j, 0);
        if (atomic_load(&c->closing))
            return err_set(&j->error, -ECANCELED, "closed while connecting");
        if (c->host->ops->now(c->host) >= j->deadline)
            return err_set(&j->error, -ETIMEDOUT, "NBD server %.200s: no answer", c->where.text);
        if (nbd_poll(j->h, POLL_MS) < 0)
            return failed(j, 0);
    }
    return 0;
}

static uint32_t block_size(struct nbd_handle *h, int which, uint32_t preset)
{
    int64_t n = nbd_get_block_size(h, which);

    return n > 0 ? (uint32_t)MIN(n, UINT32_MAX) : preset;
}

static int learn(struct connecting *j)
{
    struct nbd_handle *h = j->h;
    struct client_facts *f = &j->facts;
    int64_t size = nbd_get_size(h);

    if (size < 0)
        return err_set(&j->error, -EPROTO,
                       "NBD server %.200s: the server tells a size that no disk has",
                       j->client->where.text);
    *f = (struct client_facts){
        .size = (uint64_t)size,
        .min_block = block_size(h, LIBNBD_SIZE_MINIMUM, 1),
        .max_block = block_size(h, LIBNBD_SIZE_MAXIMUM, 32 * MiB),
        .read_only = nbd_is_read_only(h) > 0,
        .flush = nbd_can_flush(h) > 0,
        .fua = nbd_can_fua(h) > 0,
        .trim = nbd_can_trim(h) > 0,
        .zero = nbd_can_zero(h) > 0,
        .fast_zero = nbd_can_fast_zero(h) > 0,
        .multi_conn = nbd_can_multi_conn(h) > 0,
        .status = nbd_can_meta_context(h, CONTEXT) > 0,
    };
    if (!is_pow2(f->min_block) || f->min_block > 64 * KiB || f->max_block < f->min_block ||
        f->size > INT64_MAX - 64 * KiB)
        return err_set(
            &j->error, -EPROTO,
            "NBD server %.200s: the server tells block sizes, or a size, that no disk has",
            j->client->where.text);
    return 0;
}

static int connect_job(void *arg)
{
    struct connecting *j = arg;
    int rc;

    j->h = nbd_create();
    if (!j->h || set_up(j->h, &j->client->where) < 0)
        rc = failed(j, 0);
    else if (begin(j->h, &j->client->where) < 0)
        rc = failed(j, 0);
    else if ((rc = shake_hands(j)) == 0)
        rc = learn(j);
    if (rc < 0) {
        nbd_close(j->h); /* NULL is fine */
        j->h = NULL;
    }
    return rc;
}

/* --- calls in flight ---------------------------------------------------------------------------
 */

static void finish(struct client_call *call)
{
    struct client_link *l = call->link;

    if (call->prev)
        call->prev->next = call->next;
    else
        l->first = call->next;
    if (call->next)
        call->next->prev = call->prev;
    l->in_flight--;
    call->done = true;
    co_wake(call->co);
}

static void enlist(struct client_link *l, struct client_call *call)
{
    call->link = l;
    call->prev = NULL;
    call->next = l->first;
    if (l->first)
        l->first->prev = call;
    l->first = call;
    l->in_flight++;
}

/* Called by libnbd in the midst of its own work: nothing of it may be called from here. */
static int on_done(void *arg, int *error)
{
    struct client_call *call = arg;

    call->rc = *error > 0 ? -*error : 0;
    call->lost = *error == ENOTCONN || *error == ESHUTDOWN;
    if (call->rc == 0 && call->op == CLIENT_READ && call->seen != call->bytes)
        call->rc = -EIO; /* libnbd looks at that only for who asks it later */
    if (call->rc == 0)
        replay_acknowledged(call->client, call);
    else if (*error == ESHUTDOWN)
        link_break(call->link);
    finish(call);
    return 1;
}

static int on_chunk(void *arg, const void *part, size_t count, uint64_t offset, unsigned status,
                    int *error)
{
    struct client_call *call = arg;

    if (status == LIBNBD_READ_ERROR)
        return 0;
    call->odd |= offset != call->offset + call->seen;
    call->seen += count;
    return 0;
}

static int on_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries,
                      size_t count, int *error)
{
    struct client_extents *x = ((struct client_call *)arg)->extents;

    if (strcmp(context, CONTEXT) != 0 || x->count)
        return 0;
    x->offset = offset;
    for (size_t i = 0; i + 1 < count; i += 2) {
        if (x->count && x->list[x->count - 1].flags == entries[i + 1]) {
            x->list[x->count - 1].bytes += entries[i];
        } else if (x->count < CLIENT_EXTENTS) {
            x->list[x->count].bytes = entries[i];
            x->list[x->count++].flags = entries[i + 1];
        } else {
            break;
        }
    }
    return 0;
}

/* --- the wire -----------------------------------------------------------------------------------
 */

static int64_t put_read(struct nbd_handle *h, struct client_call *k, nbd_completion_callback cb)
{
    nbd_chunk_callback chunk = {.callback = on_chunk, .user_data = k};

    return nbd_aio_pread_structured(h, k->buf, k->bytes, k->offset, chunk, cb, k->flags);
}

static int64_t put_write(struct nbd_handle *h, struct client_call *k, nbd_completion_callback cb)
{
    return nbd_aio_pwrite(h, k->buf, k->bytes, k->offset, cb, k->flags);
}

static int64_t put_flush(struct nbd_handle *h, struct client_call *k, nbd_completion_callback cb)
{
    return nbd_aio_flush(h, cb, 0);
}

static int64_t put_trim(struct nbd_handle *h, struct client_call *k, nbd_completion_callback cb)
{
    return nbd_aio_trim(h, k->bytes, k->offset, cb, k->flags);
}

static int64_t put_zero(struct nbd_handle *h, struct client_call *k, nbd_completion_callback cb)
{
    return nbd_aio_zero(h, k->bytes, k->offset, cb, k->flags);
}

static int64_t put_status(struct nbd_handle *h, struct client_call *k, nbd_completion_callback cb)
{
    nbd_extent_callback extents = {.callback = on_extents, .user_data = k};

    return nbd_aio_block_status(h, k->bytes, k->offset, extents, cb, k->flags);
}

static int64_t (*const put[CLIENT_OPS])(struct nbd_handle *h, struct client_call *k,
                                        nbd_completion_callback cb) = {
    [CLIENT_READ] = put_read, [CLIENT_WRITE] = put_write, [CLIENT_FLUSH] = put_flush,
    [CLIENT_TRIM] = put_trim, [CLIENT_ZERO] = put_zero,   [CLIENT_STATUS] = put_status,
};

static bool is_dead(struct client_link *l)
{
    return nbd_aio_is_dead(l->h) > 0 || nbd_aio_is_closed(l->h) > 0;
}

/* After every call into libnbd that may have changed what it waits for. */
static void look(struct client_link *l)
{
    unsigned direction = nbd_aio_get_direction(l->h);

    if (is_dead(l))
        link_break(l);
    if (direction != l->direction || l->broken) {
        l->direction = direction;
        co_queue_wake_all(&l->turned);
    }
}

void link_break(struct client_link *l)
{
    if (l->broken)
        return;
    l->broken = true;
    host_stream_shutdown(l->stream);
    co_queue_wake_all(&l->turned);
    client_lost(l->client);
}

/* The last of the two pumps lets go of everything. */
static void pump_over(struct client_link *l)
{
    if (--l->pumps)
        return;
    nbd_close(take(l->h)); /* its descriptor before ours: that one is in epoll */
    host_stream_close(take(l->stream));
    while (l->first) {
        l->first->lost = true;
        l->first->rc = -ENOTCONN;
        finish(l->first);
    }
    co_queue_wake_all(&l->client->changed);
}

static void co_pump(struct client_link *l, unsigned direction, unsigned what,
                    int (*notify)(struct nbd_handle *h))
{
    while (!l->broken) {
        if (!(nbd_aio_get_direction(l->h) & direction)) {
            co_queue_wait(&l->turned);
            continue;
        }
        if (co_host_stream_wait(l->stream, what, 0) < 0)
            link_break(l);
        if (!l->broken && nbd_aio_get_direction(l->h) & direction) {
            notify(l->h); /* what goes wrong shows in its state */
            look(l);
        }
    }
    pump_over(l);
}

static void co_pump_in(void *arg)
{
    co_pump(arg, LIBNBD_AIO_DIRECTION_READ, HOST_READABLE, nbd_aio_notify_read);
}

static void co_pump_out(void *arg)
{
    co_pump(arg, LIBNBD_AIO_DIRECTION_WRITE, HOST_WRITABLE, nbd_aio_notify_write);
}

static int put_on_wire(void *arg)
{
    struct client_call *call = arg;
    struct client_link *l = call->link;
    nbd_completion_callback done = {.callback = on_done, .user_data = call};

    if (put[call->op](l->h, call, done) < 0 && !call->done) {
        call->rc = nbd_get_errno() ? -nbd_get_errno() : -EIO;
        call->lost = is_dead(l);
        finish(call);
    }
    look(l);
    return 0;
}

int co_link_call(struct client_link *l, struct client_call *call)
{
    call->done = call->lost = call->odd = false;
    call->seen = 0;
    call->rc = 0;
    call->co = co_self();
    if (l->broken) {
        call->lost = true;
        return -ENOTCONN;
    }
    enlist(l, call);
    if (l->client->where.tls && co_stack_left() < TLS_STACK) {
        struct co_group g;

        co_group_init(&g, 0);
        co_group_start(&g, put_on_wire, call);
        co_group_wait(&g);
    } else {
        put_on_wire(call);
    }
    while (!call->done)
        co_suspend();
    return call->rc;
}

/* --- life ---------------------------------------------------------------------------------------
 */

int co_link_open(struct client_link *l, struct client_facts *facts, struct blk_error *e)
{
    struct client *c = l->client;
    auto_free struct connecting *j = mem_zalloc(sizeof(*j));
    int rc, fd;

    assert(!l->h);
    if (!j)
        return err_set(e, -ENOMEM, "out of memory");
    j->client = c;
    j->deadline = worker_now() + c->open_ns;
    rc = co_blocking(connect_job, j);
    if (rc < 0) {
        if (e)
            *e = j->error;
        return rc;
    }
    fd = fcntl(nbd_aio_get_fd(j->h), F_DUPFD_CLOEXEC, 0);
    rc = fd < 0 ? -errno : host_stream_watch(c->host, fd, &l->stream);
    if (rc < 0) {
        nbd_close(j->h);
        return err_errno(e, rc, "NBD server %.200s", c->where.text);
    }
    *facts = j->facts;
    l->h = j->h;
    l->broken = false;
    l->pumps = 2;
    if (co_start(co_pump_in, l) < 0) {
        rc = -ENOMEM;
        link_break(l);
        pump_over(l);
    }
    if (co_start(co_pump_out, l) < 0) {
        rc = -ENOMEM;
        link_break(l);
        pump_over(l);
    }
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

static void on_goodbye_over(struct timer *t)
{
    struct client *c = container_of(t, struct client, goodbye);

    for (unsigned i = 0; i < c->count; i++)
        if (c->links[i].h)
            link_break(&c->links[i]);
}

void co_link_close(struct client_link *l)
{
    struct client *c = l->client;

    if (!l->h)
        return;
    timer_arm(&c->goodbye, worker_now() + GOODBYE, on_goodbye_over);
    if (!l->broken && nbd_aio_disconnect(l->h, 0) == 0)
        look(l);
    else
        link_break(l);
    while (l->h)
        co_queue_wait(&c->changed);
    timer_cancel(&c->goodbye);
}
#endif

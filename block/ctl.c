/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl.c - the control socket's server and client.
 *
 * One coroutine accepts, one serves each client, so a client that sends half a line or reads no
 * answers holds up only itself, and that for WRITE_NS at most. When all places are taken, the
 * client that has been idle longest loses its own: someone who wants to steer always gets in. */
#include "block/ctl_private.h"

#include <stdlib.h>

#define SECOND_NS 1000000000ULL
#define WRITE_NS  (10 * SECOND_NS)
#define CALL_NS   (30 * SECOND_NS)
#define LEAVE_NS  (SECOND_NS) /* for the answers that are under way when the server ends */

struct ctl_client {
    struct ctl_client *next;
    struct ctl *ctl;
    struct host_stream *stream;
    uint64_t idle_since_ns;
    bool busy; /* a verb runs */
    bool told_to_go;
    size_t have;
    char line[CTL_LINE_MAX];
};

/* --- one client
 * ------------------------------------------------------------------------------------- */

static int co_answer(struct ctl_client *k, json_t *answer)
{
    char *text = NULL;
    size_t bytes = 0;
    int rc = co_ctl_print(answer, &text, &bytes);
    if (rc == 0)
        rc = co_ctl_send(k->stream, text, bytes, WRITE_NS);
    free(text);
    return rc;
}

static int co_refuse(struct ctl_client *k, int rc, const char *sentence)
{
    struct blk_error e;
    err_set(&e, rc, "%s", sentence);
    return co_answer(k, ctl_refusal(&e));
}

/* Answers one line. Negative: the connection is over. */
static int co_line(struct ctl_client *k, size_t bytes)
{
    struct blk_error e = {0};
    json_t *request = NULL;
    if (bytes && k->line[bytes - 1] == '\r')
        bytes--;
    if (bytes == 0)
        return 0;
    int rc = co_ctl_parse(k->line, bytes, &request, &e);
    if (rc < 0)
        return co_answer(k, ctl_refusal(&e));
    rc = co_answer(k, co_ctl_answer(k->ctl, request));
    json_decref(request);
    return rc;
}

/* Answers all whole lines of the buffer. */
static int co_lines(struct ctl_client *k)
{
    char *end;
    while ((end = memchr(k->line, '\n', k->have))) {
        size_t bytes = (size_t)(end - k->line);
        k->busy = true;
        int rc = co_line(k, bytes);
        k->busy = false;
        k->idle_since_ns = worker_now();
        if (rc < 0)
            return rc;
        k->have -= bytes + 1;
        memmove(k->line, end + 1, k->have);
    }
    if (k->have < sizeof k->line)
        return 0;
    TRY(co_refuse(k, -EMSGSIZE, "a line is longer than 65536 bytes"));
    return -EMSGSIZE;
}

static int co_receive(struct host_stream *s, void *to, size_t room, uint64_t timeout_ns)
{
    for (;;) {
        int64_t got = host_stream_recv(s, to, room);
        if (got != -EAGAIN)
            return (int)got;
        TRY(co_host_stream_wait(s, HOST_READABLE, timeout_ns));
    }
}

static void leave(struct ctl *c)
{
    c->coroutines--;
    co_queue_wake_all(&c->gone);
}

static void client_remove(struct ctl_client *k)
{
    struct ctl *c = k->ctl;
    struct ctl_client **at = &c->clients;
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
    if (!k->told_to_go)
        c->count--;
    host_stream_close(k->stream);
    mem_free(k);
    leave(c);
}

static void co_client(void *arg)
{
    struct ctl_client *k = arg;
    int got;
    do {
        got = co_receive(k->stream, k->line + k->have, sizeof k->line - k->have, 0);
        if (got > 0) {
            k->have += (size_t)got;
            if (co_lines(k) < 0)
                break;
        }
    } while (got > 0 && !k->told_to_go);
    client_remove(k);
}

/* --- accepting
 * ------------------------------------------------------------------------------------- */

/* Makes room; false if everybody is busy. */
static bool make_room(struct ctl *c)
{
    struct ctl_client *oldest = NULL;
    if (c->count < CTL_CLIENTS)
        return true;
    for (struct ctl_client *k = c->clients; k; k = k->next)
        if (!k->busy && !k->told_to_go && (!oldest || k->idle_since_ns < oldest->idle_since_ns))
            oldest = k;
    if (!oldest)
        return false;
    oldest->told_to_go = true;
    c->count--;
    host_stream_shutdown(oldest->stream);
    return true;
}

static int client_start(struct ctl *c, struct host_stream *s)
{
    struct ctl_client *k = make_room(c) ? mem_zalloc(sizeof *k) : NULL;
    if (!k)
        return -ENOMEM;
    k->ctl = c;
    k->stream = s;
    k->idle_since_ns = worker_now();
    k->next = c->clients;
    c->clients = k;
    c->count++;
    c->coroutines++;
    int rc = co_start_later(co_client, k);
    if (rc == 0)
        return 0;
    c->clients = k->next;
    c->count--;
    c->coroutines--;
    mem_free(k);
    return rc;
}

static void co_accept(void *arg)
{
    struct ctl *c = arg;
    for (;;) {
        struct host_stream *s;
        int rc = co_host_accept(c->listener, &s);
        if (rc == -ECANCELED)
            break;
        if (rc < 0)
            co_sleep(SECOND_NS / 10); /* out of descriptors: they come back */
        else if (client_start(c, s) < 0)
            host_stream_close(s);
    }
    leave(c);
}

int co_ctl_open(struct host *h, const struct ctl_options *o, struct ctl **out, struct blk_error *e)
{
    struct ctl *c = mem_zalloc(sizeof *c);
    auto_free char *address = mem_printf("private:unix:%s", o->path);
    int rc = c && address ? co_host_listen(h, address, &c->listener) : -ENOMEM;
    if (rc == 0) {
        c->host = h;
        c->jobs = o->jobs;
        c->verbs = o->verbs;
        c->arg = o->arg;
        c->coroutines = 1;
        rc = co_start_later(co_accept, c);
        if (rc < 0)
            host_stream_close(c->listener);
    }
    if (rc < 0)
        mem_free(c);
    if (rc == -EADDRINUSE)
        return err_set(e, rc,
                       "the control socket '%.200s' is there already: another server uses it, or "
                       "one that died left it; remove it if so",
                       o->path);
    if (rc < 0)
        return err_errno(e, rc, "the control socket '%.200s'", o->path);
    *out = c;
    return 0;
}

void *ctl_arg(const struct ctl *c)
{
    return c->arg;
}

struct farewell {
    struct timer timer;
    struct ctl *ctl;
};

static void hang_up(struct timer *t)
{
    struct ctl *c = container_of(t, struct farewell, timer)->ctl;
    for (struct ctl_client *k = c->clients; k; k = k->next)
        host_stream_shutdown(k->stream);
}

void co_ctl_close(struct ctl *c)
{
    struct farewell farewell = {.ctl = c};
    host_stream_shutdown(c->listener);
    timer_arm(&farewell.timer, worker_now() + LEAVE_NS, hang_up);
    do {
        for (struct ctl_client *k = c->clients; k; k = k->next) {
            if (!k->told_to_go)
                c->count--;
            k->told_to_go = true;
            if (!k->busy) /* who asked for the end gets his answer */
                host_stream_shutdown(k->stream);
        }
        if (c->coroutines)
            co_queue_wait(&c->gone);
    } while (c->coroutines);
    timer_cancel(&farewell.timer);
    host_stream_close(c->listener);
    mem_free(c);
}

/* --- the client
 * ------------------------------------------------------------------------------------- */

struct answer {
    char *text;
    size_t bytes, room;
};

static int co_receive_line(struct host_stream *s, struct answer *a, uint64_t deadline_ns)
{
    for (;;) {
        if (a->bytes == a->room) {
            size_t room = a->room ? a->room * 2 : 16 * KiB;
            char *grown = room <= CTL_ANSWER_MAX ? mem_resize(a->text, room) : NULL;
            if (!grown)
                return room <= CTL_ANSWER_MAX ? -ENOMEM : -EMSGSIZE;
            a->text = grown;
            a->room = room;
        }
        uint64_t now = worker_now();
        if (now >= deadline_ns)
            return -ETIMEDOUT;
        int got = co_receive(s, a->text + a->bytes, a->room - a->bytes, deadline_ns - now);
        if (got <= 0)
            return got < 0 ? got : -ECONNRESET;
        char *end = memchr(a->text + a->bytes, '\n', (size_t)got);
        a->bytes += (size_t)got;
        if (end) {
            a->bytes = (size_t)(end - a->text);
            return 0;
        }
    }
}

static int errno_by_name(const char *name)
{
    for (int i = 1; i < 140; i++) {
        const char *known = strerrorname_np(i);
        if (known && name && strcmp(known, name) == 0)
            return -i;
    }
    return -EIO;
}

static int read_answer(const json_t *answer, json_t **result, struct blk_error *e)
{
    const json_t *ok = json_object_get(answer, "ok");
    const char *text = json_string_value(json_object_get(answer, "error"));
    if (json_is_true(ok)) {
        json_t *given = json_object_get(answer, "result");
        *result = given ? json_incref(given) : json_null();
        return 0;
    }
    if (!json_is_false(ok) || !text)
        return err_set(e, -EPROTO, "the answer is not one of a control socket");
    return err_set(e, errno_by_name(json_string_value(json_object_get(answer, "errno"))), "%s",
                   text);
}

static int co_exchange(struct host_stream *s, const json_t *request, struct answer *a)
{
    char *text = NULL;
    size_t bytes = 0;
    int rc = co_ctl_print(json_incref((json_t *)request), &text, &bytes);
    if (rc == 0)
        rc = co_ctl_send(s, text, bytes, CALL_NS);
    free(text);
    if (rc < 0 && rc != -EPIPE) /* what hung up may have said why */
        return rc;
    return co_receive_line(s, a, worker_now() + CALL_NS);
}

int co_ctl_call(struct host *h, const char *path, const json_t *request, json_t **result,
                struct blk_error *e)
{
    struct host_stream *s;
    struct answer a = {0};
    json_t *answer = NULL;
    auto_free char *address = mem_printf("unix:%s", path);
    int rc = address ? co_host_connect(h, address, &s) : -ENOMEM;
    if (rc == -ENOENT || rc == -ECONNREFUSED)
        return err_set(e, rc, "no server answers at the control socket '%.200s'", path);
    if (rc < 0)
        return err_errno(e, rc, "the control socket '%.200s'", path);
    rc = co_exchange(s, request, &a);
    host_stream_close(s);
    if (rc < 0)
        err_errno(e, rc, "the control socket '%.200s'", path);
    else
        rc = co_ctl_parse(a.text, a.bytes, &answer, e);
    mem_free(a.text);
    if (rc == 0)
        rc = read_answer(answer, result, e);
    json_decref(answer);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_run.c - from a plan to a server, and to its end.
 *
 * Everything is opened first, then the sockets appear, then the pid file, then whoever waits is
 * told: who sees one of them can rely on what comes before it. SIGTERM, SIGINT and SIGHUP stop it
 * cleanly: requests in flight are answered, devices flushed and closed, sockets and the pid file
 * removed. Sockets that were handed over, or handed on, are not ours to remove. */
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tools/serve.h"

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, 0};

static int say(const struct serving *s, const struct blk_error *e)
{
    (void)tool_failed(s->plan->tool, e);
    return e->rc;
}

/* Somebody has asked it to stop, or it stops by itself. */
static void on_event(void *arg, const struct nbd_event *ev)
{
    struct serving *s = arg;

    if (strcmp(ev->what, "stopping") == 0)
        serve_around_notify(s->around, "STOPPING=1", NULL, 0);
    serve_watch_event(s->watch, ev);
}

static void co_wait_for_signal(void *arg)
{
    struct serving *s = arg;
    int signal;

    do
        signal = co_host_signal(s->plan->tool->host, stop_signals);
    while (signal == SIGCHLD && !serve_around_ended(s->around));
    if (signal > 0)
        nbd_server_stop(s->server);
    s->signals_end = true;
    co_queue_wake_all(&s->ended);
}

static int co_write_pid_file(struct serving *s)
{
    const char *path = s->plan->pid_file;
    struct host_file *f;
    char text[24];
    int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    int rc = co_host_open(s->plan->tool->host, path, NULL,
                          HOST_READ | HOST_WRITE | HOST_CREATE | HOST_TRUNCATE, &f);

    if (rc == 0) {
        struct vec v = VEC_BUF(text, n);

        rc = co_host_write(f, 0, &v);
        co_host_close(f);
    }
    if (rc < 0)
        tool_error(s->plan->tool,
                   s->plan->tool->face == FACE_NBD ? "Could not create '%s': %s"
                                                   : "cannot write the pid file %s: %s",
                   path, strerror(-rc));
    s->pid_written = rc == 0;
    return rc;
}

/* --- where it listens --- */

/* As qemu-nbd says that an address cannot be had. */
static void face_words(const char *address, struct blk_error *e)
{
    bool is_unix = strncmp(address, "unix:", 5) == 0;

    if (e->rc == -EADDRINUSE && !is_unix)
        err_set(e, e->rc, "Failed to find an available port: %s", strerror(-e->rc));
    else
        err_set(e, e->rc, "Failed to bind socket%s%s: %s", is_unix ? " to " : "",
                is_unix ? address + 5 : "", strerror(-e->rc));
}

static int co_make_socket(struct serving *s, const char *address, struct blk_error *e)
{
    const char *label = s->plan->socket_label;
    int rc = label ? serve_around_label(label, e) : 0;

    if (rc < 0)
        return rc;
    rc = co_nbd_server_listen(s->server, address, e);
    if (label)
        (void)!serve_around_label(NULL, NULL);
    if (rc < 0 && s->plan->tool->face == FACE_NBD)
        face_words(address, e);
    return rc;
}

static int co_listen_on(struct serving *s, const char *address)
{
    struct blk_error e = {0};
    int fd = serve_around_take(s->around, address);
    int rc = fd >= 0 ? nbd_server_listen_at(s->server, fd, &e) : co_make_socket(s, address, &e);

    return rc < 0 ? say(s, &e) : 0;
}

/* At what is told, and at what was handed over. */
static int co_listen(struct serving *s)
{
    const struct serve_plan *p = s->plan;
    struct blk_error e = {0};
    int fd;

    for (unsigned i = 0; i < p->address_count; i++)
        TRY(co_listen_on(s, p->addresses[i]));
    while ((fd = serve_around_next(s->around)) >= 0)
        if (nbd_server_listen_at(s->server, fd, &e) < 0)
            return say(s, &e);
    return nbd_server_next_address(s->server, NULL) ? 0 : co_listen_on(s, p->preset_address);
}

/* --- beginning and end --- */

static struct nbd_export *export_of(const struct serving *s, const struct serve_offer *o)
{
    struct nbd_export *x = nbd_server_exports(s->server)->first;

    while (x && strcmp(x->name, o->name) != 0)
        x = x->next;
    return x;
}

/* What the offers say of sharing. */
static int co_share(struct serving *s)
{
    struct nbd_sharing *all = &serve_watch_of(s->watch)->sharing;
    struct blk_error e = {0};

    for (size_t i = 0; i < s->plan->count; i++) {
        const struct serve_offer *o = &s->plan->offers[i];
        struct nbd_export *x = o->shares ? export_of(s, o) : NULL;

        if (x && nbd_share_set(all, x, o->group, &o->wish, &e) < 0)
            return say(s, &e);
    }
    return 0;
}

/* Everything that has to be there before the first client. */
static int co_begin(struct serving *s)
{
    TRY(co_serve_open(s));
    if (s->plan->check_only)
        return 0;
    TRY(co_serve_watch_begin(s->watch, s->server));
    TRY(co_share(s));
    TRY(co_listen(s));
    if (s->plan->control)
        TRY(co_serve_ctl_open(&s->ctl, s->plan->control));
    if (s->plan->pid_file)
        TRY(co_write_pid_file(s));
    return 0;
}

static int co_end(struct serving *s)
{
    const struct serve_plan *p = s->plan;
    struct blk_error e = {0};
    int rc;

    co_serve_ctl_close(&s->ctl);
    co_serve_watch_end(s->watch);
    rc = co_nbd_server_close(s->server, &e);
    co_resolver_shared_drop(&s->ctl.shared);
    co_serve_watch_free(s->watch);
    if (rc < 0)
        (void)tool_failed(p->tool, &e);
    if (s->pid_written && co_host_unlink(p->tool->host, p->pid_file) < 0)
        tool_error(p->tool, "cannot remove the pid file %s", p->pid_file);
    resolver_drop(&s->resolver[false]);
    resolver_drop(&s->resolver[true]);
    return rc;
}

static int co_serve_until_told(struct serving *s)
{
    struct blk_error e = {0};
    int rc = co_start(co_wait_for_signal, s);

    if (rc < 0)
        return rc;
    if (s->plan->announce && s->around->socket_count == 0) /* else whoever made them knows */
        serve_announce(s);
    if (s->plan->run)
        rc = serve_around_run(s, &e);
    else if (s->plan->on_ready)
        rc = s->plan->on_ready(s->plan->ready_arg, s, &e);
    if (rc < 0) {
        say(s, &e);
        nbd_server_stop(s->server);
    } else {
        serve_around_ready(s);
    }
    co_nbd_server_run(s->server);
    host_signal_cancel(s->plan->tool->host);
    while (!s->signals_end)
        co_queue_wait(&s->ended);
    return rc;
}

static int co_serve(void *arg)
{
    struct serving *s = arg;
    const struct serve_plan *p = s->plan;
    struct nbd_server_options o = {.host = p->tool->host,
                                   .max_clients = p->max_clients,
                                   .once = p->once,
                                   .tls = s->tls,
                                   .tls_mode = p->tls_mode,
                                   .on_event = on_event,
                                   .event_arg = s};
    struct blk_error e = {0};
    int rc, closed;

    TRY(serve_watch_new(p->tool, &p->watch, &s->watch));
    rc = nbd_server_open(&o, &s->server, &e);
    if (rc < 0) {
        co_serve_watch_free(s->watch);
        return say(s, &e);
    }
    s->ctl = (struct serve_ctl){.tool = p->tool,
                                .server = s->server,
                                .watch = s->watch,
                                .cache = p->cache,
                                .dealt = (unsigned)p->count};
    rc = co_begin(s);
    if (rc == 0 && !p->check_only)
        rc = co_serve_until_told(s);
    closed = co_end(s);
    return rc ? rc : closed;
}

/* Clients are descriptors; the usual soft limit of 1024 is there for select(), which we do not use.
 */
static void allow_many_descriptors(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* The command's own status is ours where nothing else went wrong. */
static int run(struct serving *s)
{
    const struct serve_plan *p = s->plan;
    int rc;

    allow_many_descriptors();
    tool_block_signals(stop_signals);
    rc = tool_run_workers(p->tool, p->workers, 0, co_serve, s) < 0 ? 1 : 0;
    serve_around_end(s->around);
    if (rc == 0 && p->check_only && !p->tool->quiet)
        printf("all is well: %zu to be served\n", p->count);
    return rc ? rc : s->around->child_status;
}

int serve_run(struct serve_plan *plan)
{
    struct serve_around around;
    struct serving s = {.plan = plan, .around = &around};
    struct blk_error e = {0};
    int status = 1, rc = serve_around_begin(&around, plan, &e);

    if (rc == 0 && plan->tls.folder)
        rc = nbd_tls_open(&plan->tls, &s.tls, &e);
    if (rc < 0)
        (void)tool_failed(plan->tool, &e);
    else if (!plan->background || plan->check_only || !serve_around_fork(&around, &status))
        status = run(&s);
    nbd_tls_close(s.tls);
    serve_around_drop(&around);
    return status;
}

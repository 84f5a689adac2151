/* SPDX-License-Identifier: BSD-3-Clause */
/* serve.c - `lamina serve`: offers devices over NBD until told to stop.
 *
 * Everything is opened first, then the socket appears, then the pid file: who sees one of them can
 * rely on what comes before it. SIGTERM, SIGINT and SIGHUP stop it cleanly: requests in flight are
 * answered, devices flushed and closed, the socket and the pid file removed. */
#include "tools/serve.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "nbd/proto.h"
#include "tools/serve_ctl.h"

struct serving {
    struct serve_plan *plan;
    struct nbd_server *server;
    struct serve_watch *watch;
    struct serve_ctl ctl;
    bool signals_end; /* the coroutine that waits for signals has ended */
    struct co_queue ended;
};

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP, 0};

/* --- what is said --- */

static void print_escaped(const char *text, bool path)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-._~", *p) || (path && *p == '/');

        if (plain)
            putchar(*p);
        else
            printf("%%%02X", *p);
    }
}

static void print_uri(const char *address, const char *name)
{
    static const char unix_prefix[] = "unix:", tcp_prefix[] = "tcp:";

    if (strncmp(address, unix_prefix, sizeof(unix_prefix) - 1) == 0) {
        printf("nbd+unix:///");
        print_escaped(name, true);
        printf("?socket=");
        print_escaped(address + sizeof(unix_prefix) - 1, true);
    } else {
        printf("nbd://%s/", address + sizeof(tcp_prefix) - 1);
        print_escaped(name, true);
    }
}

static void announce(const struct serving *s)
{
    const char *address = nbd_server_address(s->server);

    for (const struct nbd_export *x = nbd_server_exports(s->server)->first; x; x = x->next) {
        print_uri(address, x->name);
        putchar('\n');
    }
    for (const struct nbd_export *x = nbd_server_exports(s->server)->first; x; x = x->next) {
        printf("for QEMU: -drive file=");
        print_uri(address, x->name);
        printf(",format=raw,if=virtio%s\n",
               nbd_facts_now(&x->facts).flags & NBD_FLAG_READ_ONLY ? ",read-only=on" : "");
    }
    fflush(stdout);
}

/* --- running --- */

/* The qemu-nbd face says it as qemu-nbd does: without the words that qemu-img begins with. */
static int open_failed(struct serving *s, const char *spec, const struct blk_error *e)
{
    const struct tool *t = s->plan->tool;
    const char *text = e->text;
    char prefix[256];
    int n = snprintf(prefix, sizeof(prefix), "Could not open '%.200s': ", spec);

    if (t->face != FACE_NBD) {
        tool_error(t, "%s", text);
        return e->rc;
    }
    if (strncmp(text, prefix, (size_t)n) == 0)
        text += n;
    tool_error(t, "Failed to blk_new_open '%s': %s", spec, text);
    return e->rc;
}

struct opening {
    struct resolver *resolver;
    const struct serve_plan *plan;
    const char *spec;
    struct blk_device *dev;
    struct blk_error error;
};

static int co_open_at_home(void *arg)
{
    struct opening *o = arg;
    struct blk_device *dev;

    TRY(co_resolver_open(o->resolver, o->spec, o->plan->format,
                         o->plan->read_only ? 0 : BLK_OPEN_WRITE, &dev, &o->error));
    if (o->plan->control) /* else nobody could ask for work on it */
        return co_serve_seat(dev, &o->dev, &o->error);
    o->dev = dev;
    return 0;
}

/* Exports are dealt out to the workers: each is served where its device lives. */
static int co_open_exports(struct serving *s)
{
    const struct serve_plan *p = s->plan;
    struct nbd_exports *all = nbd_server_exports(s->server);
    struct runtime *rt = p->tool->runtime;
    struct resolver r;

    tool_resolver(p->tool, p->read_only ? TRUST_READ : TRUST_WRITE, &r);
    if (p->cache)
        r.cache = p->cache;
    for (int i = 0; i < p->count; i++) {
        struct opening o = {.resolver = &r, .plan = p, .spec = p->specs[i]};
        struct worker *home = runtime_worker(rt, (unsigned)i % runtime_workers(rt));
        int rc = co_on(home, co_open_at_home, &o);

        if (rc == 0)
            rc = co_nbd_export_add(all, o.dev, &(struct nbd_export_options){.name = p->names[i]},
                                   NULL, &o.error);
        if (rc < 0)
            return open_failed(s, p->specs[i], &o.error);
    }
    return 0;
}

static void co_wait_for_signal(void *arg)
{
    struct serving *s = arg;

    if (co_host_signal(s->plan->tool->host, stop_signals) > 0)
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
        tool_error(s->plan->tool, "cannot write the pid file %s: %s", path, strerror(-rc));
    return rc;
}

static int co_listen(struct serving *s)
{
    struct blk_error e = {0};
    int rc = co_nbd_server_listen(s->server, s->plan->address, &e);

    if (rc < 0)
        tool_error(s->plan->tool, "%s", e.text);
    return rc;
}

/* Everything that has to be there before the first client. */
static int co_begin(struct serving *s)
{
    TRY(co_open_exports(s));
    TRY(co_serve_watch_begin(s->watch, s->server));
    TRY(co_listen(s));
    if (s->plan->control)
        TRY(co_serve_ctl_open(&s->ctl, s->plan->control));
    if (s->plan->pid_file)
        TRY(co_write_pid_file(s));
    return 0;
}

static int co_end(struct serving *s)
{
    struct host *h = s->plan->tool->host;
    struct blk_error e = {0};
    int rc;

    co_serve_ctl_close(&s->ctl);
    co_serve_watch_end(s->watch);
    rc = co_nbd_server_close(s->server, &e);
    co_serve_watch_free(s->watch);
    if (rc < 0)
        tool_error(s->plan->tool, "%s", e.text);
    if (s->plan->pid_file && co_host_unlink(h, s->plan->pid_file) < 0)
        tool_error(s->plan->tool, "cannot remove the pid file %s", s->plan->pid_file);
    return rc;
}

static int co_serve_until_told(struct serving *s)
{
    int rc = co_start(co_wait_for_signal, s);

    if (rc < 0)
        return rc;
    if (s->plan->announce)
        announce(s);
    co_nbd_server_run(s->server);
    host_signal_cancel(s->plan->tool->host);
    while (!s->signals_end)
        co_queue_wait(&s->ended);
    return 0;
}

static int co_serve(void *arg)
{
    struct serving s = {.plan = arg};
    struct nbd_server_options o = {.host = s.plan->tool->host,
                                   .max_clients = s.plan->max_clients,
                                   .once = s.plan->once,
                                   .on_event = serve_watch_event};
    struct blk_error e = {0};
    int rc, closed;

    TRY(serve_watch_new(s.plan->tool, &s.plan->watch, &s.watch));
    o.event_arg = s.watch;
    rc = nbd_server_open(&o, &s.server, &e);
    if (rc < 0) {
        co_serve_watch_free(s.watch);
        tool_error(s.plan->tool, "%s", e.text);
        return rc;
    }
    s.ctl = (struct serve_ctl){.tool = s.plan->tool,
                               .server = s.server,
                               .watch = s.watch,
                               .cache = s.plan->cache,
                               .dealt = (unsigned)s.plan->count};
    rc = co_begin(&s);
    if (rc == 0)
        rc = co_serve_until_told(&s);
    closed = co_end(&s);
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

int serve_run(struct serve_plan *plan)
{
    allow_many_descriptors();
    tool_block_signals(stop_signals);
    return tool_run_workers(plan->tool, plan->workers, 0, co_serve, plan) < 0 ? 1 : 0;
}

/* --- the verb --- */

enum {
    ARG_READ_ONLY = ARG_LONG,
    ARG_SOCKET,
    ARG_PORT,
    ARG_BIND,
    ARG_EXPORT,
    ARG_ONCE,
    ARG_CONTROL,
    ARG_PID_FILE,
    ARG_CACHE,
    ARG_INSECURE,
    ARG_WORKERS,
};

static const struct arg_desc options[] = {
    {'r', "read-only", NULL, "clients may not write (default: they may)", 0, false},
    {'f', "format", "FORMAT", "the images' format", 0, false},
    {ARG_SOCKET, "socket", "PATH", "listen on this Unix socket", 0, false},
    {ARG_PORT, "port", "N", "listen on this TCP port (0: any)", 0, false},
    {ARG_BIND, "bind", "ADDR", "with --port: on this address (default 127.0.0.1)", 0, false},
    {ARG_INSECURE, "insecure", NULL, "allow --bind beyond this machine; anyone there may connect",
     0, false},
    {ARG_EXPORT, "export", "NAME", "the export's name; once per SPEC, in their order", 0, false},
    {ARG_ONCE, "once", NULL, "end when the last client has gone", 0, false},
    {ARG_CACHE, "cache", "MODE", "writeback, none, writethrough, directsync or unsafe", 0, false},
    {ARG_WORKERS, "workers", "N", "event loops that the exports are spread over (default 1)", 0,
     false},
    {ARG_CONTROL, "control", "SOCKET", "answer `lamina ctl` on this Unix socket", 0, false},
    {ARG_PID_FILE, "pid-file", "FILE", "written when clients can connect", 0, false},
    SERVE_WATCH_OPTIONS,
    ARG_FORCE_SHARE,
    ARG_QUIET,
    ARG_END,
};

#define MAX_SPECS 1000

/* What the command line said, before it is put together. */
struct words {
    struct serve_plan plan;
    const char *socket, *port, *bind;
    bool insecure;
    const char *names[MAX_SPECS];
    int named;
    char address[600];
};

static int option(void *verb, int id, const char *value)
{
    struct words *w = verb;
    char *end;
    int rc;

    if (serve_watch_option(w->plan.tool, &w->plan.watch, id, value, &rc))
        return rc;
    if (id == ARG_EXPORT && w->named < MAX_SPECS) {
        w->names[w->named++] = value;
        return 0;
    }
    if (id == ARG_EXPORT) {
        tool_misuse(w->plan.tool, "too many exports");
        return ARGS_BAD;
    }
    w->plan.workers = (unsigned)strtoul(value, &end, 10);
    if (!*end && w->plan.workers >= 1 && w->plan.workers <= 64)
        return 0;
    tool_misuse(w->plan.tool, "--workers wants a number from 1 to 64");
    return ARGS_BAD;
}

static bool is_loopback(const char *bind)
{
    return strncmp(bind, "127.", 4) == 0 || strcmp(bind, "localhost") == 0 ||
           strcmp(bind, "::1") == 0 || strcmp(bind, "[::1]") == 0;
}

static int tcp_address(struct tool *t, struct words *w)
{
    const char *bind = w->bind ? w->bind : "127.0.0.1";
    bool bare_v6 = strchr(bind, ':') && bind[0] != '[';
    char *end;
    unsigned long port = strtoul(w->port, &end, 10);

    if (*end || end == w->port || port > 65535)
        return tool_misuse(t, "'%s' is not a port", w->port);
    if (!is_loopback(bind) && !w->insecure)
        return tool_misuse(t,
                           "%s is reachable from other machines, and whoever connects there can "
                           "read and write the disk; add --insecure if that is meant",
                           bind);
    if (snprintf(w->address, sizeof(w->address), bare_v6 ? "tcp:[%s]:%lu" : "tcp:%s:%lu", bind,
                 port) >= (int)sizeof(w->address))
        return tool_misuse(t, "the address is too long");
    return 0;
}

/* A relative path would make an URI that only works from here. */
static int socket_address(struct tool *t, struct words *w)
{
    char cwd[400] = "";
    const char *run = getenv("XDG_RUNTIME_DIR");
    int n;

    if (!w->socket) {
        n = snprintf(w->address, sizeof(w->address), "private:unix:%s/lamina-%ld.sock",
                     run && *run ? run : "/tmp", (long)getpid());
    } else {
        if (w->socket[0] != '/' && !getcwd(cwd, sizeof(cwd) - 1))
            return tool_misuse(t, "--socket wants a path that begins with /");
        n = snprintf(w->address, sizeof(w->address), "unix:%s%s%s", cwd, *cwd ? "/" : "",
                     w->socket);
    }
    /* sockaddr_un holds 107 characters */
    return n > (w->socket ? 5 : 13) + 107 ? tool_misuse(t, "the socket's path is too long") : 0;
}

static int put_together(struct tool *t, struct words *w)
{
    struct serve_plan *p = &w->plan;

    if (p->count == 0)
        return tool_misuse(t, "which image?");
    if (p->count > MAX_SPECS || w->named > p->count)
        return tool_misuse(t, "there are %d images and %d export names", p->count, w->named);
    if (w->socket && w->port)
        return tool_misuse(t, "--socket and --port exclude each other");
    if (w->bind && !w->port)
        return tool_misuse(t, "--bind needs --port");
    for (int i = w->named; i < p->count; i++) {
        const char *slash = strrchr(p->specs[i], '/');

        w->names[i] = p->count == 1 ? "" : slash ? slash + 1 : p->specs[i];
    }
    p->names = w->names;
    p->address = w->address;
    return w->port ? tcp_address(t, w) : socket_address(t, w);
}

static int parse(struct words *w, int argc, char **argv)
{
    const struct arg_place places[] = {
        {'r', NULL, &w->plan.read_only},
        {'f', &w->plan.format, NULL},
        {ARG_SOCKET, &w->socket, NULL},
        {ARG_PORT, &w->port, NULL},
        {ARG_BIND, &w->bind, NULL},
        {ARG_INSECURE, NULL, &w->insecure},
        {ARG_ONCE, NULL, &w->plan.once},
        {ARG_CACHE, &w->plan.cache, NULL},
        {ARG_CONTROL, &w->plan.control, NULL},
        {ARG_PID_FILE, &w->plan.pid_file, NULL},
        {0, NULL, NULL},
    };
    struct command_line line = {argc, argv, places, option, w};
    struct tool *t = w->plan.tool;
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id;
    w->plan.specs = line.argv;
    w->plan.count = line.argc;
    w->plan.announce = !t->quiet;
    return put_together(t, w) ? ARGS_BAD : ARGS_END;
}

static int serve_main(struct tool *t, int argc, char **argv)
{
    struct words *w = mem_zalloc(sizeof(*w));
    if (!w) {
        tool_error(t, "out of memory");
        return 1;
    }
    w->plan.tool = t;
    int id = parse(w, argc, argv);
    int rc = id == ARGS_END ? serve_run(&w->plan) : id == ARGS_HELP ? 0 : 1;
    mem_free(w);
    return rc;
}

const struct command serve_command = {
    .name = "serve",
    .run = serve_main,
    .usage = "serve [OPTION]... SPEC...",
    .summary = "Offers disks over NBD until it is told to stop",
    .faces = FACE_LAMINA,
    .options = options,
    .notes =
        "One SPEC is the export with the empty name unless --export names it; several are\n"
        "named after their files, and the first is also the default. Clients connect to the\n"
        "URI that is printed. SIGTERM, SIGINT and SIGHUP, or `lamina ctl SOCKET shutdown`,\n"
        "stop it: everything is flushed and closed first.\n"
        "\n"
        "  lamina serve --read-only disk.qcow2\n"
        "  lamina serve -f qcow2 --socket /run/vm1.sock --control /run/vm1.ctl vm1.qcow2\n"
        "  lamina serve --port 10809 a.img b.vdi\n"
        "  lamina serve --group disk,iops=5000 --share a,group=disk,weight=300 --export a a.img",
};

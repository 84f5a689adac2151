/* SPDX-License-Identifier: BSD-3-Clause */
/* serve.c - `lamina serve`: offers devices over NBD until told to stop. From the command line, and
 * a file where one is named, to a plan (serve.h). What the command line says goes before what the
 * file's [server] says. */
#include "tools/serve.h"

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    ARG_SOCKET = ARG_LONG,
    ARG_PORT,
    ARG_BIND,
    ARG_VSOCK,
    ARG_INSECURE,
    ARG_TLS,
    ARG_TLS_CREDS,
    ARG_TLS_ANY,
    ARG_TLS_PRIORITY,
    ARG_EXPORT,
    ARG_DIR,
    ARG_CLONES,
    ARG_KEEP,
    ARG_SPACE,
    ARG_SCRATCH,
    ARG_CONFIG,
    ARG_CHECK_CONFIG,
    ARG_ALLOW,
    ARG_WRITERS,
    ARG_ONCE,
    ARG_RUN,
    ARG_EXIT_WITH_PARENT,
    ARG_KEEP_SOCKETS,
    ARG_CONTROL,
    ARG_PID_FILE,
    ARG_CACHE,
    ARG_WORKERS,
};

static const struct arg_desc options[] = {
    {'r', "read-only", NULL, "clients may not write (default: they may)", 0, false},
    {'f', "format", "FORMAT", "the images' format", 0, false},
    {ARG_EXPORT, "export", "NAME[,KEY=VALUE]...",
     "the export's name; once per SPEC, in their order", 0, false},
    {ARG_DIR, "dir", "FOLDER[,KEY=VALUE]...", "offer every image in FOLDER, as they come and go", 0,
     false},
    {ARG_CLONES, "clones", NULL, "whoever asks for NAME/ANYTHING gets a clone of the SPEC NAME", 0,
     false},
    {ARG_KEEP, "keep", "DIR", "with --clones: they stay in DIR as qcow2 images", 0, false},
    {ARG_SPACE, "space", "SIZE", "with --clones: what all of them may take (default 16G)", 0,
     false},
    {ARG_SCRATCH, "scratch", "DIR", "where clones lie that are not kept (default /var/tmp)", 0,
     false},
    {ARG_CONFIG, "config", "FILE", "read what is to be served from FILE", 0, false},
    {ARG_CHECK_CONFIG, "check-config", NULL, "open all of it read-only, say whether it went, end",
     0, false},
    {ARG_SOCKET, "socket", "PATH", "listen on this Unix socket", 0, false},
    {ARG_PORT, "port", "N", "listen on this TCP port (0: any)", 0, false},
    {ARG_BIND, "bind", "ADDR", "with --port: on this address (default 127.0.0.1)", 0, false},
    {ARG_VSOCK, "vsock", "PORT", "listen for virtual machines on this vsock port", 0, false},
    {ARG_INSECURE, "insecure", NULL,
     "let others than this machine connect without TLS; anyone there may", 0, false},
    {ARG_TLS_CREDS, "tls-creds", "DIR", "certificates and keys for TLS (see below)", 0, false},
    {ARG_TLS, "tls", "require|allow", "whether clients have to use TLS (default require)", 0,
     false},
    {ARG_TLS_ANY, "tls-any-client", NULL, "clients need no certificate", 0, false},
    {ARG_TLS_PRIORITY, "tls-priority", "WORDS", "GnuTLS's priority string (default NORMAL)", 0,
     false},
    {ARG_ALLOW, "allow", "WHO", "who may see the exports: uid:USER, cert:NAME, dn:NAME, psk:ID", 0,
     false},
    {ARG_WRITERS, "writers", "N", "hosts that may use one writable export at a time", 0, false},
    {ARG_ONCE, "once", NULL, "end when the last client has gone", 0, false},
    {ARG_RUN, "run", "COMMAND",
     "run it with $uri, $unixsocket, $port, $exportname set; end with it", 0, false},
    {ARG_EXIT_WITH_PARENT, "exit-with-parent", NULL, "end when the process that started it has", 0,
     false},
    {ARG_KEEP_SOCKETS, "keep-sockets", NULL,
     "have systemd keep the sockets, so that a restart loses no client", 0, false},
    {ARG_CACHE, "cache", "MODE", "writeback, none, writethrough, directsync or unsafe", 0, false},
    {ARG_WORKERS, "workers", "N", "event loops that the exports are spread over (default 1)", 0,
     false},
    {ARG_CONTROL, "control", "SOCKET", "answer `lamina ctl` on this Unix socket", 0, false},
    {ARG_PID_FILE, "pid-file", "FILE", "written when clients can connect", 0, false},
    SERVE_WATCH_OPTIONS,
    ARG_SECRET,
    ARG_FORCE_SHARE,
    ARG_QUIET,
    ARG_END,
};

#define MAX_TOLD 1000

struct told {
    int id;
    const char *value;
};

/* What was said, before it is put together. */
struct words {
    struct serve_plan plan;
    struct serve_config config;
    const char *format, *socket, *port, *bind, *vsock, *tls, *keep, *space, *writers, *workers,
        *file;
    bool read_only, clones, insecure;
    struct told exports[MAX_TOLD]; /* --export and --dir, in order */
    unsigned told;
    struct nbd_zone zone; /* --allow */
    char unix_address[600], tcp_address[600], vsock_address[40], preset_address[600];
};

/* Where each option goes; also from a file, by its long name. */
static const struct place {
    int id;
    bool is_flag;
    size_t at;
} places[] = {
    {'f', false, offsetof(struct words, format)},
    {'r', true, offsetof(struct words, read_only)},
    {ARG_CLONES, true, offsetof(struct words, clones)},
    {ARG_KEEP, false, offsetof(struct words, keep)},
    {ARG_SPACE, false, offsetof(struct words, space)},
    {ARG_SCRATCH, false, offsetof(struct words, plan.scratch)},
    {ARG_CONFIG, false, offsetof(struct words, file)},
    {ARG_CHECK_CONFIG, true, offsetof(struct words, plan.check_only)},
    {ARG_SOCKET, false, offsetof(struct words, socket)},
    {ARG_PORT, false, offsetof(struct words, port)},
    {ARG_BIND, false, offsetof(struct words, bind)},
    {ARG_VSOCK, false, offsetof(struct words, vsock)},
    {ARG_INSECURE, true, offsetof(struct words, insecure)},
    {ARG_TLS, false, offsetof(struct words, tls)},
    {ARG_TLS_CREDS, false, offsetof(struct words, plan.tls.folder)},
    {ARG_TLS_ANY, true, offsetof(struct words, plan.tls.any_client)},
    {ARG_TLS_PRIORITY, false, offsetof(struct words, plan.tls.priority)},
    {ARG_WRITERS, false, offsetof(struct words, writers)},
    {ARG_ONCE, true, offsetof(struct words, plan.once)},
    {ARG_RUN, false, offsetof(struct words, plan.run)},
    {ARG_EXIT_WITH_PARENT, true, offsetof(struct words, plan.exit_with_parent)},
    {ARG_KEEP_SOCKETS, true, offsetof(struct words, plan.keep_sockets)},
    {ARG_CACHE, false, offsetof(struct words, plan.cache)},
    {ARG_WORKERS, false, offsetof(struct words, workers)},
    {ARG_CONTROL, false, offsetof(struct words, plan.control)},
    {ARG_PID_FILE, false, offsetof(struct words, plan.pid_file)},
};

static const struct place *place_of(int id)
{
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (places[i].id == id)
            return &places[i];
    return NULL;
}

static const char **text_at(struct words *w, const struct place *p)
{
    return (const char **)(void *)((char *)w + p->at);
}

static bool *flag_at(struct words *w, const struct place *p)
{
    return (bool *)((char *)w + p->at);
}

/* --- from the command line, from a file --- */

static int option(void *verb, int id, const char *value)
{
    struct words *w = verb;
    const struct place *p = place_of(id);
    struct blk_error e = {0};
    int rc;

    if (serve_watch_option(w->plan.tool, &w->plan.watch, id, value, &rc))
        return rc;
    if (p && p->is_flag) {
        *flag_at(w, p) = true;
    } else if (p) {
        *text_at(w, p) = value;
    } else if (id == ARG_ALLOW) {
        if (nbd_zone_add(&w->zone, value, &e) < 0) {
            tool_misuse(w->plan.tool, "--allow: %s", e.text);
            return ARGS_BAD;
        }
    } else if (w->told < MAX_TOLD) {
        w->exports[w->told++] = (struct told){id, value};
    } else {
        tool_misuse(w->plan.tool, "too many exports");
        return ARGS_BAD;
    }
    return 0;
}

/* A key of [server]. What the command line said stays. */
static int from_file(void *arg, const char *key, const char *value, struct blk_error *e)
{
    struct words *w = arg;
    const char *names[ARRAY_LEN(options)], *near;
    size_t count = 0;
    bool yes;
    int rc;

    for (const struct arg_desc *d = options; d->id; d++) {
        const struct place *p = place_of(d->id);

        if (strcmp(d->name, key) == 0 &&
            serve_watch_option(w->plan.tool, &w->plan.watch, d->id, value, &rc))
            return rc < 0 ? err_set(e, -EINVAL, "%s: '%.60s' will not do", key, value) : 0;
        if (!p || d->id == ARG_CONFIG || d->id == ARG_CHECK_CONFIG || d->id == ARG_CLONES)
            continue;
        names[count++] = d->name;
        if (strcmp(d->name, key) != 0)
            continue;
        if (!p->is_flag)
            *text_at(w, p) = *text_at(w, p) ? *text_at(w, p) : value;
        else if (serve_yes_no(value, &yes) < 0)
            return err_set(e, -EINVAL, "%s: '%.60s' is not yes or no", key, value);
        else
            *flag_at(w, p) |= yes;
        return 0;
    }
    near = opts_nearest(key, names, count);
    return err_set(e, -EINVAL,
                   near ? "'%.60s' is not known here; did you mean '%s'?"
                        : "'%.60s' is not known here",
                   key, near);
}

/* --- what is offered --- */

/* What was told for all of the command line. */
static int for_all(struct words *w, struct serve_offer *o, struct blk_error *e)
{
    o->format = w->format;
    o->read_only = w->read_only;
    if (w->writers)
        TRY(serve_offer_set(o, "writers", w->writers, e));
    if (o->kind == SERVE_CLONES && w->space)
        TRY(serve_offer_set(o, "space", w->space, e));
    if (o->kind == SERVE_CLONES)
        o->keep = w->keep;
    return nbd_zone_copy(&w->zone, &o->zone) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int add(struct words *w, enum serve_kind kind, const char *spec, const char *told,
               struct blk_error *e)
{
    struct serve_offer *o = serve_offer_add(&w->plan, kind);

    if (!o)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(for_all(w, o, e));
    if (told)
        TRY(serve_offer_words(o, told, e));
    if (spec)
        o->what = spec;
    return 0;
}

static int add_offers(struct words *w, int argc, char **argv, struct blk_error *e)
{
    unsigned next = 0;

    for (int i = 0; i < argc; i++) {
        while (next < w->told && w->exports[next].id != ARG_EXPORT)
            next++;
        TRY(add(w, w->clones ? SERVE_CLONES : SERVE_EXPORT, argv[i],
                next < w->told ? w->exports[next].value : NULL, e));
        next += next < w->told;
    }
    for (; next < w->told; next++)
        if (w->exports[next].id == ARG_EXPORT)
            return err_set(e, -EINVAL, "there are more export names than images");
    for (unsigned i = 0; i < w->told; i++)
        if (w->exports[i].id == ARG_DIR)
            TRY(add(w, SERVE_FOLDER, NULL, w->exports[i].value, e));
    if (w->file)
        TRY(serve_config_read(&w->config, w->file, &w->plan, from_file, w, e));
    return serve_offers_check(&w->plan, e);
}

/* --- where it listens --- */

static bool is_loopback(const char *bind)
{
    return strncmp(bind, "127.", 4) == 0 || strcmp(bind, "localhost") == 0 ||
           strcmp(bind, "::1") == 0 || strcmp(bind, "[::1]") == 0;
}

static int beyond(struct words *w, const char *where)
{
    if (w->insecure || (w->plan.tls.folder && w->plan.tls_mode == NBD_TLS_REQUIRE))
        return 0;
    return tool_misuse(w->plan.tool,
                       "%s is reachable from other machines, and whoever connects there can "
                       "read and write the disk; add --tls-creds, or --insecure if that is meant",
                       where);
}

static int add_address(struct words *w, const char *address, int bytes, size_t room)
{
    if (bytes >= (int)room)
        return tool_misuse(w->plan.tool, "the address is too long");
    w->plan.addresses[w->plan.address_count++] = address;
    return 0;
}

static bool is_number(const char *text, unsigned long most)
{
    char *end;

    return *text >= '0' && *text <= '9' && strtoul(text, &end, 10) <= most && !*end;
}

static int tcp_address(struct words *w)
{
    const char *bind = w->bind ? w->bind : "127.0.0.1";
    bool bare_v6 = strchr(bind, ':') && bind[0] != '[';

    if (!is_number(w->port, 65535))
        return tool_misuse(w->plan.tool, "'%s' is not a port", w->port);
    if (!is_loopback(bind) && beyond(w, bind))
        return 1;
    return add_address(w, w->tcp_address,
                       snprintf(w->tcp_address, sizeof(w->tcp_address),
                                bare_v6 ? "tcp:[%s]:%s" : "tcp:%s:%s", bind, w->port),
                       sizeof(w->tcp_address));
}

static int vsock_address(struct words *w)
{
    if (!is_number(w->vsock, UINT32_MAX - 1))
        return tool_misuse(w->plan.tool, "'%s' is not a vsock port", w->vsock);
    if (beyond(w, "vsock"))
        return 1;
    return add_address(
        w, w->vsock_address,
        snprintf(w->vsock_address, sizeof(w->vsock_address), "vsock:4294967295:%s", w->vsock),
        sizeof(w->vsock_address));
}

/* A relative path would make an URI that only works from here. sockaddr_un holds 107 characters. */
static int unix_address(struct words *w)
{
    char cwd[400] = "";
    int n;

    if (w->socket[0] != '/' && !getcwd(cwd, sizeof(cwd) - 1))
        return tool_misuse(w->plan.tool, "--socket wants a path that begins with /");
    n = snprintf(w->unix_address, sizeof(w->unix_address), "unix:%s%s%s", cwd, *cwd ? "/" : "",
                 w->socket);
    if (n > 5 + 107)
        return tool_misuse(w->plan.tool, "the socket's path is too long");
    return add_address(w, w->unix_address, n, sizeof(w->unix_address));
}

/* Where nothing is told. */
static int preset_address(struct words *w)
{
    const char *run = getenv("XDG_RUNTIME_DIR");
    int n = snprintf(w->preset_address, sizeof(w->preset_address),
                     "private:unix:%s/lamina-%ld.sock", run && *run ? run : "/tmp", (long)getpid());

    w->plan.preset_address = w->preset_address;
    return n > 13 + 107 ? tool_misuse(w->plan.tool, "the socket's path is too long") : 0;
}

static int take_addresses(struct words *w)
{
    if (w->bind && !w->port)
        return tool_misuse(w->plan.tool, "--bind needs --port");
    if ((w->socket && unix_address(w)) || (w->port && tcp_address(w)) ||
        (w->vsock && vsock_address(w)))
        return 1;
    return preset_address(w);
}

/* --- put together --- */

static int take_tls(struct words *w)
{
    struct serve_plan *p = &w->plan;

    p->tls_mode = NBD_TLS_REQUIRE;
    if (w->tls && strcmp(w->tls, "allow") == 0)
        p->tls_mode = NBD_TLS_ALLOW;
    else if (w->tls && strcmp(w->tls, "require") != 0)
        return tool_misuse(p->tool, "--tls is require or allow");
    if (!p->tls.folder && (w->tls || p->tls.any_client || p->tls.priority))
        return tool_misuse(p->tool, "TLS needs --tls-creds");
    return 0;
}

static int put_together(struct words *w, int argc, char **argv)
{
    struct serve_plan *p = &w->plan;
    struct blk_error e = {0};

    if (argc == 0 && !w->told && !w->file)
        return tool_misuse(
            p->tool, "which image is to be served? Name one, or a section [export] in a --config");
    if (add_offers(w, argc, argv, &e) < 0)
        return tool_failed(p->tool, &e);
    if (w->workers && (!is_number(w->workers, 64) || strcmp(w->workers, "0") == 0))
        return tool_misuse(p->tool, "--workers wants a number from 1 to 64");
    p->workers = w->workers ? (unsigned)strtoul(w->workers, NULL, 10) : 0;
    if (!p->scratch)
        p->scratch = "/var/tmp";
    p->announce = !p->tool->quiet && !p->run;
    return take_tls(w) || take_addresses(w);
}

static int parse(struct words *w, int argc, char **argv)
{
    struct command_line line = {argc, argv, NULL, option, w};
    int id = args_read(w->plan.tool, &line);

    if (id != ARGS_END)
        return id;
    return put_together(w, line.argc, line.argv) ? ARGS_BAD : ARGS_END;
}

static int serve_main(struct tool *t, int argc, char **argv)
{
    struct words *w = mem_zalloc(sizeof(*w));
    int id, rc;

    if (!w) {
        tool_error(t, "out of memory");
        return 1;
    }
    w->plan.tool = t;
    id = parse(w, argc, argv);
    rc = id == ARGS_END ? serve_run(&w->plan) : id == ARGS_HELP ? 0 : 1;
    serve_plan_drop(&w->plan);
    serve_config_drop(&w->config);
    nbd_zone_drop(&w->zone);
    mem_free(w);
    return rc;
}

const struct command serve_command = {
    .name = "serve",
    .run = serve_main,
    .usage = "serve [OPTION]... SPEC...",
    .summary = "Offer disks over NBD until it is told to stop",
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
        "  lamina serve --group g,iops=5000 --export a,group=g --export b,group=g a.img b.img\n"
        "  lamina serve --run 'nbdcopy \"$uri\" out.img' disk.vmdk\n"
        "\n"
        "Keys of --export and --dir: format, read-only, allow, writers; of an export also\n"
        "description, default, group, weight, min-iops, iops, bps; of a folder also name\n"
        "(which goes before /FILE) and idle; of clones also keep, space, idle (seconds until a\n"
        "clone that nobody uses is closed; 60).\n"
        "\n"
        "  lamina serve --export 'vm1,allow=uid:libvirt-qemu,writers=1' vm1.qcow2\n"
        "  lamina serve --dir /srv/images,read-only\n"
        "  lamina serve --clones --keep /srv/clones golden.qcow2     (exports golden/NAME)\n"
        "\n"
        "TLS: DIR holds server-cert.pem, server-key.pem and ca-cert.pem (every client has to\n"
        "show a certificate that this authority signed), or keys.psk with lines ID:HEXKEY, or\n"
        "both. With --allow an export can only be seen by whom it lists.\n"
        "\n"
        "  lamina serve --port 10809 --bind 0.0.0.0 --tls-creds /etc/lamina --allow cert:host1 "
        "x.img\n"
        "\n"
        "A file for --config has a section for each thing that is served. Keys of [server] are\n"
        "the options above by their long names.\n"
        "\n"
        "  [server]\n"
        "  socket = /run/lamina.sock\n"
        "  [export vm1]\n"
        "  image = /srv/vm1.qcow2\n"
        "  allow = uid:libvirt-qemu\n"
        "  [folder isos]\n"
        "  folder = /srv/isos\n"
        "  read-only = yes\n"
        "  [clones golden]\n"
        "  image = /srv/golden.qcow2",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd.c - called as qemu-nbd: its options, defaults and words over the same server.
 *
 * As there: without -t it ends after the last client, one client at a time unless -e says
 * otherwise, TCP port 10809 on all addresses unless -k names a socket, discards are dropped unless
 * --discard=unmap. What is refused, and in which order, is qemu-nbd 7.2's. */
#include "tools/face_nbd.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/image.h"

enum {
    ARG_FORK = ARG_LONG,
    ARG_PID_FILE,
    ARG_TLS_CREDS,
    ARG_TLS_AUTHZ,
    ARG_TLS_HOSTNAME,
    ARG_OBJECT,
    ARG_CACHE,
    ARG_AIO,
    ARG_DISCARD,
    ARG_DETECT_ZEROES,
    ARG_IMAGE_OPTS,
    ARG_SELINUX_LABEL,
};

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "the image's format", 0, false},
    {'k', "socket", "PATH", "listen on this Unix socket", 0, false},
    {'p', "port", "PORT", "listen on this TCP port (default 10809)", 0, false},
    {'b', "bind", "IFACE", "listen on this address (default 0.0.0.0)", 0, false},
    {'r', "read-only", NULL, "clients may not write", 0, false},
    {'t', "persistent", NULL, "go on after the last client has gone", 0, false},
    {'e', "shared", "NUM", "so many clients at once (default 1; 0: no limit)", 0, false},
    {'x', "export-name", "NAME", "the export's name (default empty)", 0, false},
    {'D', "description", "TEXT", "what the export is, for people", 0, false},
    {'v', "verbose", NULL, "say when a device is connected; stay in the foreground", 0, false},
    {'o', "offset", "OFFSET", "only what comes behind that byte", 0, false},
    {'A', "allocation-depth", NULL, "show the context qemu:allocation-depth", 0, false},
    {'B', "bitmap", "NAME", "show the context qemu:dirty-bitmap:NAME", 0, false},
    {'L', "list", NULL, "list what another server offers", 0, false},
    {'T', "trace", "PATTERN", "accepted; there is nothing to trace", 0, false},
    {'c', "connect", "DEV", "connect FILE to the kernel's device DEV", 0, false},
    {'d', "disconnect", NULL, "FILE is such a device: disconnect it", 0, false},
    {'s', "snapshot", NULL, "changes go to a temporary image and are dropped in the end", 0, false},
    {'l', "load-snapshot", "SNAPSHOT", "read-only: a snapshot inside the image", 0, false},
    {ARG_FORK, "fork", NULL, "go to the background when clients can connect", 0, false},
    {ARG_PID_FILE, "pid-file", "PATH", "written when clients can connect", 0, false},
    {ARG_SELINUX_LABEL, "selinux-label", "LABEL", "give the socket this SELinux label", 0, false},
    {ARG_OBJECT, "object", "OBJECT", "tls-creds-x509, tls-creds-psk, authz-simple, secret", 0,
     false},
    {ARG_TLS_CREDS, "tls-creds", "ID", "clients have to use TLS with these credentials", 0, false},
    {ARG_TLS_AUTHZ, "tls-authz", "ID", "which certificates may connect", 0, false},
    {ARG_TLS_HOSTNAME, "tls-hostname", "NAME",
     "the name that a listed server's certificate has to show", 0, false},
    {'n', "nocache", NULL, "the same as --cache=none", 0, false},
    {ARG_CACHE, "cache", "MODE", "none, writeback, writethrough, directsync or unsafe", 0, false},
    {ARG_AIO, "aio", "MODE", "accepted: native, io_uring or threads", 0, false},
    {ARG_DISCARD, "discard", "MODE", "unmap or ignore (default)", 0, false},
    {ARG_DETECT_ZEROES, "detect-zeroes", "MODE", "off, on or unmap", 0, false},
    {ARG_IMAGE_OPTS, "image-opts", NULL, "FILE is key=value,...", 0, false},
    ARG_END,
};

int nbd_face_fail(const struct nbd_face *f, const char *fmt, ...)
{
    char text[8000];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    tool_error(f->plan.tool, "%s", text);
    return ARGS_BAD;
}

static bool is_one_of(const char *word, const char *const *list)
{
    while (*list && strcmp(*list, word) != 0)
        list++;
    return *list != NULL;
}

/* --- what is refused when it is read --- */

/* May be told once. */
static int once(struct nbd_face *f, const char **place, const char *value, const char *called)
{
    if (*place)
        return nbd_face_fail(f, "%s can only be specified once", called);
    *place = value;
    return 0;
}

static int take_cache(struct nbd_face *f, const char *value)
{
    static const char *const modes[] = {"none",         "off",        "writeback", "unsafe",
                                        "writethrough", "directsync", NULL};

    if (once(f, &f->plan.cache, value, "-n and --cache") < 0)
        return ARGS_BAD;
    return is_one_of(value, modes) ? 0 : nbd_face_fail(f, "Invalid cache mode `%s'", value);
}

static int take_aio(struct nbd_face *f, const char *value)
{
    static const char *const modes[] = {"native", "threads", "io_uring", NULL};

    if (once(f, &f->aio, value, "--aio") < 0)
        return ARGS_BAD;
    return is_one_of(value, modes) ? 0 : nbd_face_fail(f, "Invalid aio mode '%s'", value);
}

static int take_discard(struct nbd_face *f, const char *value)
{
    static const char *const unmaps[] = {"unmap", "on", NULL}, *const ignores[] = {"ignore", "off",
                                                                                   NULL};

    if (once(f, &f->discard, value, "--discard") < 0)
        return ARGS_BAD;
    if (is_one_of(value, unmaps))
        f->discard = "unmap";
    else if (!is_one_of(value, ignores))
        return nbd_face_fail(f, "Invalid discard mode `%s'", value);
    return 0;
}

static int take_detect(struct nbd_face *f, const char *value)
{
    static const char *const modes[] = {"on", "off", "unmap", NULL};
    bool unmaps = f->discard && strcmp(f->discard, "unmap") == 0;

    if (!is_one_of(value, modes))
        return nbd_face_fail(f, "Failed to parse detect_zeroes mode: invalid parameter value: %s",
                             value);
    if (strcmp(value, "unmap") == 0 && !unmaps)
        return nbd_face_fail(f, "setting detect-zeroes to unmap is not allowed without setting "
                                "discard operation to unmap");
    f->detect = value;
    return 0;
}

static int take_offset(struct nbd_face *f, const char *value)
{
    char *end;

    errno = 0;
    f->offset = strtoull(value, &end, 0);
    return *end || end == value || errno || strchr(value, '-')
               ? nbd_face_fail(f, "Invalid offset '%s'", value)
               : 0;
}

static int take_shared(struct nbd_face *f, const char *value)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(value, &end, 0);
    if (*end || end == value || errno || number < 0 || number > INT32_MAX)
        return nbd_face_fail(f, "Invalid shared device number '%s'", value);
    f->plan.max_clients = (unsigned)number;
    return 0;
}

/* What begins as keys do is read as keys. */
static int take_snapshot(struct nbd_face *f, const char *value)
{
    static const char base[] = "snapshot.";

    f->snapshot = value;
    f->read_only = true;
    if (strncmp(value, base, strlen(base)) != 0)
        return 0;
    for (const char *key = value; key; key = strchr(key, ',')) {
        key += *key == ',';
        if (strncmp(key, "snapshot.id=", 12) == 0 || strncmp(key, "snapshot.name=", 14) == 0)
            continue;
        nbd_face_fail(f, "Invalid parameter '%.*s'", (int)strcspn(key, "=,"), key);
        return nbd_face_fail(f, "Failed in parsing snapshot param `%s'", value);
    }
    return 0;
}

static int take_bitmap(struct nbd_face *f, const char *value)
{
    if (f->shown.bitmap_count == NBD_FACE_BITMAPS)
        return nbd_face_fail(f, "at most %d bitmaps can be shown", NBD_FACE_BITMAPS);
    f->bitmaps[f->shown.bitmap_count++] = value;
    return 0;
}

static int take_socket(struct nbd_face *f, const char *value)
{
    f->socket = value;
    return *value == '/' ? 0 : nbd_face_fail(f, "socket path must be absolute");
}

static int take_name(struct nbd_face *f, const char *value)
{
    f->name = value;
    return strlen(value) > 4096 ? nbd_face_fail(f, "export name '%s' too long", value) : 0;
}

static int take_description(struct nbd_face *f, const char *value)
{
    f->description = value;
    return strlen(value) > 4096 ? nbd_face_fail(f, "export description '%s' too long", value) : 0;
}

static int take_none(struct nbd_face *f, const char *value)
{
    return take_cache(f, value ? value : "none");
}

static int take_trace(struct nbd_face *f, const char *value)
{
    return 0;
}

static int option(void *verb, int id, const char *value)
{
    static const struct {
        int id;
        int (*take_it)(struct nbd_face *f, const char *value);
    } takers[] = {
        {'n', take_none},    {ARG_CACHE, take_cache},
        {ARG_AIO, take_aio}, {ARG_DISCARD, take_discard},
        {'o', take_offset},  {ARG_DETECT_ZEROES, take_detect},
        {'e', take_shared},  {'l', take_snapshot},
        {'B', take_bitmap},  {'k', take_socket},
        {'x', take_name},    {'D', take_description},
        {'T', take_trace},   {ARG_OBJECT, nbd_face_object},
    };
    size_t i = 0;

    while (takers[i].id != id)
        i++;
    return takers[i].take_it(verb, value);
}

/* --- what is refused when all of it is known --- */

static int check_list(const struct nbd_face *f, int operands)
{
    if (operands)
        return nbd_face_fail(f, "List mode is incompatible with a file name");
    if (f->name || f->description || f->offset || f->device || f->disconnect || f->format ||
        f->snapshot || f->shown.bitmap_count || f->shown.depth || f->aio || f->discard ||
        f->plan.cache)
        return nbd_face_fail(f, "List mode is incompatible with per-device settings");
    return f->plan.background ? nbd_face_fail(f, "List mode is incompatible with forking") : 0;
}

static int check_activation(const struct nbd_face *f)
{
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID"), *what = NULL;

    if (!fds || !pid || strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    if (f->device)
        what = "NBD device can't be set when using socket activation";
    else if (f->socket)
        what = "Unix socket can't be set when using socket activation";
    else if (f->bind)
        what = "The interface can't be set when using socket activation";
    else if (f->port)
        what = "TCP port number can't be set when using socket activation";
    else if (f->plan.socket_label)
        what = "SELinux label can't be set when using socket activation";
    else if (f->list)
        what = "List mode is incompatible with socket activation";
    else if (strtol(fds, NULL, 10) > 1)
        what = "qemu-nbd does not support socket activation with LISTEN_FDS > 1";
    return what ? nbd_face_fail(f, "%s", what) : 0;
}

static int check_tls(struct nbd_face *f)
{
    if (!f->creds && f->authz)
        return nbd_face_fail(f, "--tls-authz is not permitted without --tls-creds");
    if (!f->creds && f->hostname)
        return nbd_face_fail(f, "--tls-hostname is not permitted without --tls-creds");
    if (!f->creds)
        return 0;
    if (f->device)
        return nbd_face_fail(f, "TLS is not supported with a host device");
    if (f->authz && f->list)
        return nbd_face_fail(f, "TLS authorization is incompatible with export list");
    if (f->hostname && !f->list)
        return nbd_face_fail(f, "TLS hostname is only supported with export list");
    return nbd_face_tls(f);
}

/* Nothing here is refused before what stands above it. */
static int check(struct nbd_face *f, int operands)
{
    if (f->list && check_list(f, operands) < 0)
        return ARGS_BAD;
    if (!f->list && operands != 1) {
        nbd_face_fail(f, "Invalid number of arguments");
        fprintf(stderr, "Try `%s --help' for more information.\n", f->plan.tool->called);
        return ARGS_BAD;
    }
    if (check_activation(f) < 0 || check_tls(f) < 0)
        return ARGS_BAD;
    if (f->plan.socket_label && !f->socket && !f->device)
        return nbd_face_fail(f, "--selinux-label is not permitted without --socket");
    return 0;
}

/* --- put together --- */

/* Ports also have names; those of numbers that are too large mean what is left of them. */
static bool is_port(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

static int take_address(struct nbd_face *f)
{
    const char *bind = f->bind ? f->bind : "0.0.0.0", *port = f->port ? f->port : "10809";
    bool bare_v6 = strchr(bind, ':') && bind[0] != '[';
    int n;

    if (f->socket)
        n = snprintf(f->address, sizeof(f->address), "unix:%s", f->socket);
    else if (!is_port(port))
        return nbd_face_fail(
            f, "address resolution failed for %s:%s: Servname not supported for ai_socktype", bind,
            port);
    else
        n = snprintf(f->address, sizeof(f->address), bare_v6 ? "tcp:[%s]:%lu" : "tcp:%s:%lu", bind,
                     strtoul(port, NULL, 10) & 0xffff);
    if (n >= (int)sizeof(f->address))
        return nbd_face_fail(f, "the address is too long");
    /* Where nothing is told, a socket that was handed over comes first. */
    if (f->socket || f->port || f->bind)
        f->plan.addresses[f->plan.address_count++] = f->address;
    f->plan.preset_address = f->address;
    return 0;
}

static void take_device(struct nbd_face *f)
{
    const char *slash = strrchr(f->device, '/');

    snprintf(f->own_socket, sizeof(f->own_socket), "/var/lock/qemu-nbd-%.100s",
             slash ? slash + 1 : f->device);
    if (!f->socket)
        f->socket = f->own_socket;
    f->plan.background |= !f->verbose;
    f->plan.on_ready = nbd_face_connect;
    f->plan.ready_arg = f;
}

static bool is_direct(const char *cache)
{
    static const char *const direct[] = {"none", "off", "directsync", NULL};

    return cache && is_one_of(cache, direct);
}

static int put_together(struct nbd_face *f, const char *file)
{
    struct serve_offer *o = serve_offer_add(&f->plan, SERVE_EXPORT);

    if (!o)
        return nbd_face_fail(f, "out of memory");
    if (f->device)
        take_device(f);
    if (f->plan.image_opts && f->format)
        return nbd_face_fail(f, "--image-opts and -f are mutually exclusive");
    if (f->aio && strcmp(f->aio, "native") == 0 && !is_direct(f->plan.cache))
        return nbd_face_fail(f,
                             "Failed to blk_new_open '%s': aio=native was specified, but it "
                             "requires cache.direct=on, which was not specified.",
                             file);
    f->temporary &= !f->read_only;
    f->name = f->name ? f->name : "";
    f->shown.bitmaps = f->bitmaps;
    f->shown.one_client = f->plan.max_clients == 1;
    o->name = f->name;
    o->what = file;
    o->format = f->format;
    o->description = f->description;
    o->read_only = f->read_only || f->temporary; /* what is below a temporary image */
    o->co_over = co_nbd_face_over;
    o->over_arg = f;
    o->shown = &f->shown;
    if (f->authz && nbd_face_authz(f, o) < 0)
        return ARGS_BAD;
    return take_address(f);
}

static int serve(struct nbd_face *f, const char *file)
{
    int rc;

    if (put_together(f, file) < 0)
        return 1;
    rc = serve_run(&f->plan);
    nbd_face_join(f);
    return rc || f->kernel_failed;
}

static int run(struct nbd_face *f, int argc, char **argv)
{
    const struct arg_place places[] = {
        {'f', &f->format, NULL},
        {'p', &f->port, NULL},
        {'b', &f->bind, NULL},
        {'c', &f->device, NULL},
        {'d', NULL, &f->disconnect},
        {'L', NULL, &f->list},
        {'s', NULL, &f->temporary},
        {'v', NULL, &f->verbose},
        {'A', NULL, &f->shown.depth},
        {'r', NULL, &f->read_only},
        {'t', NULL, &f->persistent},
        {ARG_FORK, NULL, &f->plan.background},
        {ARG_PID_FILE, &f->plan.pid_file, NULL},
        {ARG_SELINUX_LABEL, &f->plan.socket_label, NULL},
        {ARG_TLS_CREDS, &f->creds, NULL},
        {ARG_TLS_AUTHZ, &f->authz, NULL},
        {ARG_TLS_HOSTNAME, &f->hostname, NULL},
        {ARG_IMAGE_OPTS, NULL, &f->plan.image_opts},
        {0, NULL, NULL},
    };
    struct command_line line = {argc, argv, places, option, f};
    int id = args_read(f->plan.tool, &line);

    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (check(f, line.argc) < 0)
        return 1;
    f->plan.once = !f->persistent;
    if (f->list) {
        f->bind = f->bind ? f->bind : "0.0.0.0";
        f->port = f->port ? f->port : "10809";
        return nbd_face_list(f);
    }
    return f->disconnect ? nbd_face_disconnect(f, line.argv[0]) : serve(f, line.argv[0]);
}

static int nbd_face_main(struct tool *t, int argc, char **argv)
{
    struct nbd_face f = {.plan = {.tool = t, .max_clients = 1}};
    int rc;

    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        puts("qemu-nbd 7.2.0 (lamina)");
        return 0;
    }
    f.objects = json_object();
    rc = run(&f, argc, argv);
    serve_plan_drop(&f.plan);
    json_decref(f.objects);
    return rc;
}

const struct command nbd_face_command = {
    .name = "qemu-nbd",
    .run = nbd_face_main,
    .usage = "qemu-nbd [OPTION]... FILE\n   or: qemu-nbd -L [OPTION]...",
    .summary = "Serves a disk image over NBD, by lamina",
    .faces = FACE_NBD,
    .options = options,
};

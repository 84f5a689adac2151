/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd.c - called as qemu-nbd: its options, defaults and words over the same server.
 *
 * As there: without -t it ends after the last client, one client at a time unless -e says
 * otherwise, TCP port 10809 on all addresses unless -k names a socket. */
#include <stdlib.h>

#include "tools/image.h"
#include "tools/serve.h"

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
};

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "the image's format", 0, false},
    {'k', "socket", "PATH", "listen on this Unix socket", 0, false},
    {'p', "port", "PORT", "the TCP port (default 10809)", 0, false},
    {'b', "bind", "IFACE", "the address (default 0.0.0.0)", 0, false},
    {'r', "read-only", NULL, "clients may not write", 0, false},
    {'t', "persistent", NULL, "go on after the last client has gone", 0, false},
    {'e', "shared", "NUM", "so many clients at once (default 1; 0: no limit)", 0, false},
    {'x', "export-name", "NAME", "the export's name (default empty)", 0, false},
    {'D', "description", "TEXT", "what the export is, for people", 0, false},
    {'v', "verbose", NULL, "accepted", 0, false},
    {ARG_FORK, "fork", NULL, "go to the background when clients can connect", 0, false},
    {ARG_PID_FILE, "pid-file", "PATH", "written when clients can connect", 0, false},
    {ARG_OBJECT, "object", "OBJECT", "tls-creds-x509, tls-creds-psk, authz-simple, secret", 0,
     false},
    {ARG_TLS_CREDS, "tls-creds", "ID", "clients have to use TLS with these credentials", 0, false},
    {ARG_TLS_AUTHZ, "tls-authz", "ID", "which certificates may connect", 0, false},
    {ARG_TLS_HOSTNAME, "tls-hostname", "NAME", "of a server whose exports are listed", 0, false},
    {'n', "nocache", NULL, "the same as --cache=none", 0, false},
    {ARG_CACHE, "cache", "MODE", "none, writeback, writethrough, directsync or unsafe", 0, false},
    {ARG_AIO, "aio", "MODE", "accepted: native, io_uring or threads", 0, false},
    {ARG_DISCARD, "discard", "MODE", "accepted: unmap or ignore", 0, false},
    {ARG_DETECT_ZEROES, "detect-zeroes", "MODE", "accepted: off, on or unmap", 0, false},
    {ARG_IMAGE_OPTS, "image-opts", NULL, "FILE is key=value,...", 0, false},
    ARG_END,
};

struct words {
    struct serve_plan plan;
    const char *socket, *port, *bind, *name, *format, *description, *creds, *authz, *hostname;
    bool read_only;
    json_t *objects; /* by id: TLS's */
    char address[600];
};

static int parse_number(const char *text, long min, long max, long *out)
{
    char *end;

    errno = 0;
    *out = strtol(text, &end, 0);
    return *end || end == text || errno || *out < min || *out > max ? -EINVAL : 0;
}

static int fail(const struct tool *t, const char *sentence, const char *word)
{
    tool_error(t, sentence, word);
    return ARGS_BAD;
}

static bool is_one_of(const char *word, const char *const *list)
{
    while (*list && strcmp(*list, word) != 0)
        list++;
    return *list != NULL;
}

/* --- TLS --- */

/* Objects that are not ours are the resolver's: secrets. */
static int take_object(struct words *w, const char *text)
{
    static const char *const ours[] = {"tls-creds-x509", "tls-creds-psk", "authz-simple", NULL};
    struct tool *t = w->plan.tool;
    json_t *tree = json_object();
    struct blk_error e = {0};
    const char *id;
    int rc = 0;

    if (!tree || opts_text_to_tree(text, "qom-type", tree, &e) < 0)
        rc = fail(t, "%s", e.text);
    else if (!is_one_of(json_string_value(json_object_get(tree, "qom-type")) ?: "", ours))
        rc = tool_add_object(t, text) ? 0 : ARGS_BAD;
    else if (!(id = json_string_value(json_object_get(tree, "id"))))
        rc = fail(t, "Parameter 'id' is missing%s", "");
    else if (json_object_set(w->objects, id, tree) < 0)
        rc = fail(t, "out of memory%s", "");
    json_decref(tree);
    return rc;
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static int take_creds(struct words *w)
{
    struct nbd_tls_options *o = &w->plan.tls;
    const json_t *c = json_object_get(w->objects, w->creds);
    const char *type = text_of(c, "qom-type"), *endpoint = text_of(c, "endpoint");
    const char *verify = text_of(c, "verify-peer");
    bool checks = true;

    if (!type)
        return fail(w->plan.tool, "No TLS credentials with id '%s'", w->creds);
    if (strncmp(type, "tls-creds-", 10) != 0)
        return fail(w->plan.tool, "Object with id '%s' is not TLS credentials", w->creds);
    if (!endpoint || strcmp(endpoint, "server") != 0)
        return fail(w->plan.tool, "Expecting TLS credentials with a server endpoint%s", "");
    if (verify && serve_yes_no(verify, &checks) < 0)
        return fail(w->plan.tool, "Parameter 'verify-peer' expects 'on' or 'off'%s", "");
    o->folder = text_of(c, "dir");
    if (!o->folder)
        return fail(w->plan.tool, "Parameter 'dir' is missing%s", "");
    o->priority = text_of(c, "priority");
    o->any_client = !checks;
    o->want_x509 = strcmp(type, "tls-creds-x509") == 0;
    o->want_psk = !o->want_x509;
    w->plan.tls_mode = NBD_TLS_REQUIRE;
    return 0;
}

static int take_authz(struct words *w, struct serve_offer *o)
{
    const json_t *a = json_object_get(w->objects, w->authz);
    const char *identity = text_of(a, "identity");

    if (!a || !identity || strcmp(text_of(a, "qom-type"), "authz-simple") != 0)
        return fail(w->plan.tool, "No authz-simple object with an identity and the id '%s'",
                    w->authz);
    return nbd_zone_add_dn(&o->zone, identity) < 0 ? fail(w->plan.tool, "out of memory%s", "") : 0;
}

static int take_tls(struct words *w, struct serve_offer *o)
{
    if (w->hostname)
        return fail(w->plan.tool, "TLS hostname is only supported with export list%s", "");
    if (w->creds && take_creds(w) < 0)
        return ARGS_BAD;
    if (w->authz && !w->creds)
        return fail(w->plan.tool, "TLS authorization is only supported with TLS credentials%s", "");
    return w->authz ? take_authz(w, o) : 0;
}

/* --- the rest --- */

static int option(void *verb, int id, const char *value)
{
    static const char *const aio[] = {"native", "threads", "io_uring", NULL};
    static const char *const discard[] = {"unmap", "on", "ignore", "off", NULL};
    static const char *const detect[] = {"on", "off", "unmap", NULL};
    struct words *w = verb;
    struct tool *t = w->plan.tool;
    long number;

    switch (id) {
    case 't':
        w->plan.once = false;
        return 0;
    case 'v':
        return 0;
    case 'n':
        w->plan.cache = "none";
        return 0;
    case ARG_OBJECT:
        return take_object(w, value);
    case ARG_CACHE:
        w->plan.cache = value;
        return cache_told(t, "cache", value) ? 0 : ARGS_BAD;
    case ARG_AIO:
        return is_one_of(value, aio) ? 0 : fail(t, "Invalid aio mode '%s'", value);
    case ARG_DISCARD:
        return is_one_of(value, discard) ? 0 : fail(t, "Invalid discard mode '%s'", value);
    case ARG_DETECT_ZEROES:
        return is_one_of(value, detect) ? 0 : fail(t, "Invalid detect-zeroes mode '%s'", value);
    }
    if (parse_number(value, 0, INT32_MAX, &number) < 0)
        return fail(t, "Invalid shared device number '%s'", value);
    w->plan.max_clients = (unsigned)number;
    return 0;
}

static int take_address(struct words *w)
{
    struct tool *t = w->plan.tool;
    long port;
    int n;

    if (w->socket && w->socket[0] != '/')
        return fail(t, "socket path must be absolute", w->socket);
    if (w->socket) {
        n = snprintf(w->address, sizeof(w->address), "unix:%s", w->socket);
    } else if (parse_number(w->port ? w->port : "10809", 0, 65535, &port) < 0) {
        return fail(t, "'%s' is not a port", w->port);
    } else {
        const char *bind = w->bind ? w->bind : "0.0.0.0";
        bool bare_v6 = strchr(bind, ':') && bind[0] != '[';

        n = snprintf(w->address, sizeof(w->address), bare_v6 ? "tcp:[%s]:%ld" : "tcp:%s:%ld", bind,
                     port);
    }
    if (n >= (int)sizeof(w->address))
        return fail(t, "the address is too long", w->address);
    /* Where nothing is told, a socket that was handed over comes first. */
    if (w->socket || w->port || w->bind)
        w->plan.addresses[w->plan.address_count++] = w->address;
    w->plan.preset_address = w->address;
    return 0;
}

static int put_together(struct tool *t, struct words *w, int argc, char **argv)
{
    struct serve_offer *o;

    if (argc != 1) {
        tool_error(t, "Invalid number of arguments");
        fprintf(stderr, "Try `%s --help' for more information.\n", t->called);
        return ARGS_BAD;
    }
    if (strlen(w->name) > 4096)
        return fail(t, "export name '%s' too long", w->name);
    if (w->description && strlen(w->description) > 4096)
        return fail(t, "export description '%s' too long", w->description);
    o = serve_offer_add(&w->plan, SERVE_EXPORT);
    if (!o)
        return fail(t, "out of memory", "");
    o->name = w->name;
    o->what = argv[0];
    o->format = w->format;
    o->description = w->description;
    o->read_only = w->read_only;
    return take_tls(w, o) < 0 || take_address(w) < 0 ? ARGS_BAD : ARGS_END;
}

static int parse(struct words *w, int argc, char **argv)
{
    const struct arg_place places[] = {
        {'f', &w->format, NULL},
        {'k', &w->socket, NULL},
        {'p', &w->port, NULL},
        {'b', &w->bind, NULL},
        {'x', &w->name, NULL},
        {'D', &w->description, NULL},
        {'r', NULL, &w->read_only},
        {ARG_FORK, NULL, &w->plan.background},
        {ARG_PID_FILE, &w->plan.pid_file, NULL},
        {ARG_TLS_CREDS, &w->creds, NULL},
        {ARG_TLS_AUTHZ, &w->authz, NULL},
        {ARG_TLS_HOSTNAME, &w->hostname, NULL},
        {ARG_IMAGE_OPTS, NULL, &w->plan.image_opts},
        {0, NULL, NULL},
    };
    struct command_line line = {argc, argv, places, option, w};
    int id = args_read(w->plan.tool, &line);

    return id == ARGS_END ? put_together(w->plan.tool, w, line.argc, line.argv) : id;
}

static int nbd_face_main(struct tool *t, int argc, char **argv)
{
    struct words w = {
        .plan = {.tool = t, .once = true, .max_clients = 1},
        .name = "",
    };
    int id, rc;

    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        puts("qemu-nbd 7.2.0 (lamina)");
        return 0;
    }
    w.objects = json_object();
    id = parse(&w, argc, argv);
    rc = id == ARGS_END ? serve_run(&w.plan) : id == ARGS_HELP ? 0 : 1;
    serve_plan_drop(&w.plan);
    json_decref(w.objects);
    return rc;
}

const struct command nbd_face_command = {
    .name = "qemu-nbd",
    .run = nbd_face_main,
    .usage = "qemu-nbd [OPTION]... FILE",
    .summary = "Serves a disk image over NBD, by lamina",
    .faces = FACE_NBD,
    .options = options,
};

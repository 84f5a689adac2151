/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd.c - called as qemu-nbd: its options, defaults and words over the same server.
 *
 * As there: without -t it ends after the last client, one client at a time unless -e says
 * otherwise, TCP port 10809 on all addresses unless -k names a socket. */
#include <stdlib.h>

#include "tools/serve.h"

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "the image's format", 0, false},
    {'k', "socket", "PATH", "listen on this Unix socket", 0, false},
    {'p', "port", "PORT", "the TCP port (default 10809)", 0, false},
    {'b', "bind", "IFACE", "the address (default 0.0.0.0)", 0, false},
    {'r', "read-only", NULL, "clients may not write", 0, false},
    {'t', "persistent", NULL, "go on after the last client has gone", 0, false},
    {'e', "shared", "NUM", "so many clients at once (default 1; 0: no limit)", 0, false},
    {'x', "export-name", "NAME", "the export's name (default empty)", 0, false},
    ARG_END,
};

struct words {
    struct serve_plan plan;
    const char *socket, *port, *bind, *name;
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

static int option(void *verb, int id, const char *value)
{
    struct words *w = verb;
    long number;

    if (id == 't') {
        w->plan.once = false;
        return 0;
    }
    if (parse_number(value, 0, INT32_MAX, &number) < 0)
        return fail(w->plan.tool, "Invalid shared device number '%s'", value);
    w->plan.max_clients = (unsigned)number;
    return 0;
}

static int put_together(struct tool *t, struct words *w)
{
    long port;
    int n;

    if (w->plan.count != 1) {
        tool_error(t, "Invalid number of arguments");
        fprintf(stderr, "Try `%s --help' for more information.\n", t->called);
        return ARGS_BAD;
    }
    if (strlen(w->name) > 4096)
        return fail(t, "export name '%s' too long", w->name);
    if (w->socket && w->socket[0] != '/')
        return fail(t, "socket path must be absolute", w->socket);
    if (w->socket) {
        n = snprintf(w->address, sizeof(w->address), "unix:%s", w->socket);
    } else if (parse_number(w->port, 0, 65535, &port) < 0) {
        return fail(t, "'%s' is not a port", w->port);
    } else {
        bool bare_v6 = strchr(w->bind, ':') && w->bind[0] != '[';

        n = snprintf(w->address, sizeof(w->address), bare_v6 ? "tcp:[%s]:%ld" : "tcp:%s:%ld",
                     w->bind, port);
    }
    if (n >= (int)sizeof(w->address))
        return fail(t, "the address is too long", w->address);
    w->plan.names = &w->name;
    w->plan.address = w->address;
    return ARGS_END;
}

static int parse(struct words *w, int argc, char **argv)
{
    const struct arg_place places[] = {
        {'f', &w->plan.format, NULL},
        {'k', &w->socket, NULL},
        {'p', &w->port, NULL},
        {'b', &w->bind, NULL},
        {'x', &w->name, NULL},
        {'r', NULL, &w->plan.read_only},
        {0, NULL, NULL},
    };
    struct command_line line = {argc, argv, places, option, w};
    int id = args_read(w->plan.tool, &line);
    if (id != ARGS_END)
        return id;
    w->plan.specs = line.argv;
    w->plan.count = line.argc;
    return put_together(w->plan.tool, w);
}

static int nbd_face_main(struct tool *t, int argc, char **argv)
{
    struct words w = {
        .plan = {.tool = t, .once = true, .max_clients = 1},
        .port = "10809",
        .bind = "0.0.0.0",
        .name = "",
    };

    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        puts("qemu-nbd 7.2.0 (lamina)");
        return 0;
    }
    int id = parse(&w, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    return serve_run(&w.plan);
}

const struct command nbd_face_command = {
    .name = "qemu-nbd",
    .run = nbd_face_main,
    .usage = "qemu-nbd [OPTION]... FILE",
    .summary = "Serves a disk image over NBD, by lamina",
    .faces = FACE_NBD,
    .options = options,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_say.c - what a person reads when it serves: URIs, and a line for QEMU. */
#include "tools/serve.h"

/* --- URIs --- */

static size_t escape(char *to, const char *text, bool path)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;

    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-._~", *p) || (path && *p == '/');

        if (plain) {
            to[n++] = (char)*p;
            continue;
        }
        to[n++] = '%';
        to[n++] = hex[*p >> 4];
        to[n++] = hex[*p & 15];
    }
    to[n] = 0;
    return n;
}

static const struct {
    const char *prefix, *scheme, *secure;
} kinds[] = {
    {"unix:", "nbd+unix:///", "nbds+unix:///"},
    {"tcp:", "nbd://", "nbds://"},
    {"vsock:", "nbd+vsock://", "nbds+vsock://"},
};

char *serve_uri(const struct serving *s, const char *address, const char *name)
{
    size_t room = 3 * (strlen(address) + strlen(name)) + 64, n, i = 0;
    char *out = mem_alloc(room);

    while (i < ARRAY_LEN(kinds) && strncmp(address, kinds[i].prefix, strlen(kinds[i].prefix)) != 0)
        i++;
    if (!out || i == ARRAY_LEN(kinds))
        return out ? strcpy(out, "") : NULL;
    address += strlen(kinds[i].prefix);
    n = (size_t)snprintf(out, room, "%s", s->tls ? kinds[i].secure : kinds[i].scheme);
    if (i == 0) {
        n += escape(out + n, name, true);
        n += (size_t)snprintf(out + n, room - n, "?socket=");
        escape(out + n, address, true);
    } else {
        const char any[] = "4294967295:"; /* as guests see us */
        bool is_any = i == 2 && strncmp(address, any, sizeof(any) - 1) == 0;

        n += (size_t)snprintf(out + n, room - n, "%s%s/", is_any ? "2:" : "",
                              is_any ? address + sizeof(any) - 1 : address);
        escape(out + n, name, true);
    }
    return out;
}

/* --- at the start --- */

static void say_uri(const struct serving *s, const char *name)
{
    for (const char *address = NULL;
         (address = nbd_server_next_address(s->server, address)) != NULL;) {
        auto_free char *uri = serve_uri(s, address, name);

        printf("%s\n", uri ? uri : "");
    }
}

static void say_for_qemu(const struct serving *s, const struct nbd_export *x)
{
    auto_free char *uri = serve_uri(s, nbd_server_address(s->server), x->name);

    printf("for QEMU: -drive file=%s,format=raw,if=virtio%s\n", uri ? uri : "",
           nbd_facts_now(&x->facts).flags & NBD_FLAG_READ_ONLY ? ",read-only=on" : "");
}

void serve_announce(const struct serving *s)
{
    const struct nbd_export *first = nbd_server_exports(s->server)->first;

    for (const struct nbd_export *x = first; x; x = x->next)
        say_uri(s, x->name);
    for (size_t i = 0; i < s->plan->count; i++) {
        const struct serve_offer *o = &s->plan->offers[i];
        auto_free char *name = mem_printf("%s%sNAME", o->name, *o->name ? "/" : "");

        if (o->kind != SERVE_EXPORT && name)
            say_uri(s, name);
    }
    for (const struct nbd_export *x = first; x && !s->tls; x = x->next)
        say_for_qemu(s, x);
    fflush(stdout);
}

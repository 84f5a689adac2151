/* SPDX-License-Identifier: BSD-3-Clause */
/* zone.c - clients' names, and lists of those that are let in. */
#include "nbd/zone.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>

/* --- lists of names --- */

int nbd_names_add(struct nbd_names *n, const void *text, size_t bytes)
{
    char *copy = mem_alloc(bytes + 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    if (n->count == n->room) {
        size_t room = n->room ? 2 * n->room : 8;
        char **more = mem_resize(n->at, room * sizeof(*more));

        if (!more) {
            mem_free(copy);
            return -ENOMEM;
        }
        n->at = more;
        n->room = room;
    }
    n->at[n->count++] = copy;
    return 0;
}

bool nbd_names_have(const struct nbd_names *n, const char *text)
{
    for (size_t i = 0; i < n->count; i++)
        if (strcmp(n->at[i], text) == 0)
            return true;
    return false;
}

void nbd_names_drop(struct nbd_names *n)
{
    for (size_t i = 0; i < n->count; i++)
        mem_free(n->at[i]);
    mem_free(n->at);
    *n = (struct nbd_names){0};
}

/* --- who a client is --- */

void nbd_peer_drop(struct nbd_peer *p)
{
    nbd_names_drop(&p->certs);
    mem_free(p->dn);
    mem_free(p->psk);
    *p = (struct nbd_peer){.uid = -1};
}

void nbd_peer_name_host(struct nbd_peer *p)
{
    const char *name = p->psk ? p->psk : p->dn;
    char where[sizeof(p->host)];

    if (!name)
        return;
    memcpy(where, p->host, sizeof(where));
    snprintf(p->host, sizeof(p->host), "%.90s by %.100s", where, name);
}

/* --- zones --- */

static const struct {
    const char *prefix;
    enum nbd_who_kind kind;
} kinds[] = {
    {"cert:", NBD_WHO_CERT},
    {"dn:", NBD_WHO_DN},
    {"psk:", NBD_WHO_PSK},
    {"uid:", NBD_WHO_UID},
};

static int uid_of(const char *text, int64_t *out, struct blk_error *e)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    char buf[4096];
    struct passwd pw, *found = NULL;

    if (!*end && *text >= '0' && *text <= '9' && number < UINT32_MAX) {
        *out = (int64_t)number;
        return 0;
    }
    if (getpwnam_r(text, &pw, buf, sizeof(buf), &found) != 0 || !found)
        return err_set(e, -EINVAL, "there is no user '%.60s'", text);
    *out = found->pw_uid;
    return 0;
}

static int append(struct nbd_zone *z, struct nbd_who one, const char *name)
{
    struct nbd_who *more;

    one.name = mem_strdup(name);
    more = one.name ? mem_resize(z->who, (z->count + 1) * sizeof(*more)) : NULL;
    if (!more) {
        mem_free(one.name);
        return -ENOMEM;
    }
    z->who = more;
    z->who[z->count++] = one;
    return 0;
}

static int add_one(struct nbd_zone *z, const char *word, struct blk_error *e)
{
    struct nbd_who one = {.uid = -1};
    size_t i = 0;

    while (i < ARRAY_LEN(kinds) && strncmp(word, kinds[i].prefix, strlen(kinds[i].prefix)) != 0)
        i++;
    if (i == ARRAY_LEN(kinds) || !word[strlen(kinds[i].prefix)])
        return err_set(e, -EINVAL,
                       "'%.60s' names no client: cert:NAME, dn:NAME, psk:IDENTITY or uid:USER",
                       word);
    word += strlen(kinds[i].prefix);
    one.kind = kinds[i].kind;
    if (one.kind == NBD_WHO_UID)
        TRY(uid_of(word, &one.uid, e));
    return append(z, one, word) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int nbd_zone_add_dn(struct nbd_zone *z, const char *name)
{
    return append(z, (struct nbd_who){.kind = NBD_WHO_DN, .uid = -1}, name);
}

/* A blank inside a name ("dn:CN=a b") is written "\ ". */
int nbd_zone_add(struct nbd_zone *z, const char *text, struct blk_error *e)
{
    auto_free char *word = mem_alloc(strlen(text) + 1);
    size_t n = 0;

    if (!word)
        return err_set(e, -ENOMEM, "out of memory");
    for (;; text++) {
        bool end = !*text || *text == ' ' || *text == '\t';

        if (!end) {
            text += text[0] == '\\' && text[1] == ' ';
            word[n++] = *text;
            continue;
        }
        word[n] = 0;
        if (n)
            TRY(add_one(z, word, e));
        n = 0;
        if (!*text)
            return 0;
    }
}

int nbd_zone_copy(const struct nbd_zone *from, struct nbd_zone *to)
{
    *to = (struct nbd_zone){0};
    if (from->count == 0)
        return 0;
    to->who = mem_zalloc(from->count * sizeof(*to->who));
    if (!to->who)
        return -ENOMEM;
    for (to->count = 0; to->count < from->count; to->count++) {
        struct nbd_who *w = &to->who[to->count];

        *w = from->who[to->count];
        w->name = mem_strdup(w->name);
        if (!w->name) {
            nbd_zone_drop(to);
            return -ENOMEM;
        }
    }
    return 0;
}

void nbd_zone_drop(struct nbd_zone *z)
{
    for (size_t i = 0; i < z->count; i++)
        mem_free(z->who[i].name);
    mem_free(z->who);
    *z = (struct nbd_zone){0};
}

static bool is_who(const struct nbd_who *w, const struct nbd_peer *p)
{
    switch (w->kind) {
    case NBD_WHO_CERT:
        return nbd_names_have(&p->certs, w->name);
    case NBD_WHO_DN:
        return p->dn && strcmp(p->dn, w->name) == 0;
    case NBD_WHO_PSK:
        return p->psk && strcmp(p->psk, w->name) == 0;
    case NBD_WHO_UID:
        return p->uid >= 0 && p->uid == w->uid;
    }
    return false;
}

bool nbd_zone_admits(const struct nbd_zone *z, const struct nbd_peer *p)
{
    for (size_t i = 0; i < z->count; i++)
        if (is_who(&z->who[i], p))
            return true;
    return z->count == 0;
}

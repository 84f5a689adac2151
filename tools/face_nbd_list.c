/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd_list.c - qemu-nbd -L: what another server offers, over libnbd. */
#include "tools/face_nbd.h"

#ifdef HAVE_LIBNBD
#include <libnbd.h>

#include "nbd/proto.h"

struct found {
    char *name, *description;
};

struct listing {
    const struct nbd_face *face;
    struct nbd_handle *nbd;
    struct found *found;
    size_t count;
    bool failed;
};

static int add(void *arg, const char *name, const char *description)
{
    struct listing *l = arg;
    struct found *more = mem_resize(l->found, (l->count + 1) * sizeof(*more));

    if (more) {
        l->found = more;
        more[l->count] = (struct found){mem_strdup(name), mem_strdup(description)};
        l->failed |= !more[l->count].name || !more[l->count].description;
        l->count++;
    }
    l->failed |= !more;
    return 0;
}

/* --- one export --- */

static const struct {
    int (*is)(struct nbd_handle *nbd);
    uint16_t flag;
    const char *word;
} flag_words[] = {
    {nbd_is_read_only, NBD_FLAG_READ_ONLY, "readonly"},
    {nbd_can_flush, NBD_FLAG_SEND_FLUSH, "flush"},
    {nbd_can_fua, NBD_FLAG_SEND_FUA, "fua"},
    {nbd_can_trim, NBD_FLAG_SEND_TRIM, "trim"},
    {nbd_can_zero, NBD_FLAG_SEND_WRITE_ZEROES, "zeroes"},
    {nbd_can_df, NBD_FLAG_SEND_DF, "df"},
    {nbd_can_multi_conn, NBD_FLAG_CAN_MULTI_CONN, "multi"},
    {nbd_can_cache, NBD_FLAG_SEND_CACHE, "cache"},
    {nbd_can_fast_zero, NBD_FLAG_SEND_FAST_ZERO, "fast-zero"},
};

static void say_flags(struct nbd_handle *nbd)
{
    unsigned flags = NBD_FLAG_HAS_FLAGS;

    for (size_t i = 0; i < ARRAY_LEN(flag_words); i++)
        if (flag_words[i].is(nbd) > 0)
            flags |= flag_words[i].flag;
    printf("  flags: 0x%x (", flags);
    for (size_t i = 0; i < ARRAY_LEN(flag_words); i++)
        if (flags & flag_words[i].flag)
            printf(" %s", flag_words[i].word);
    printf(" )\n");
}

struct contexts {
    unsigned count;
    bool print;
};

static int say_context(void *arg, const char *name)
{
    struct contexts *c = arg;

    c->count++;
    if (c->print)
        printf("   %s\n", name);
    return 0;
}

static void say_contexts(struct nbd_handle *nbd)
{
    struct contexts c = {0};
    nbd_context_callback each = {.callback = say_context, .user_data = &c};

    if (nbd_opt_list_meta_context(nbd, each) < 0 || c.count == 0)
        return;
    printf("  available meta contexts: %u\n", c.count);
    c.print = true;
    (void)!nbd_opt_list_meta_context(nbd, each);
}

static void say_export(struct nbd_handle *nbd, const struct found *f)
{
    int64_t least;

    printf(" export: '%s'\n", f->name);
    if (*f->description)
        printf("  description: %s\n", f->description);
    if (nbd_set_export_name(nbd, f->name) < 0 || nbd_opt_info(nbd) < 0)
        return;
    printf("  size:  %" PRIi64 "\n", nbd_get_size(nbd));
    say_flags(nbd);
    least = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
    if (least > 0)
        printf("  min block: %" PRIi64 "\n  opt block: %" PRIi64 "\n  max block: %" PRIi64 "\n",
               least, nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED),
               nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM));
    say_contexts(nbd);
}

/* --- the server --- */

static int say_lost(const struct nbd_face *f)
{
    if (nbd_get_errno() && f->socket)
        return nbd_face_fail(f, "Failed to connect to '%s': %s", f->socket,
                             strerror(nbd_get_errno()));
    if (nbd_get_errno())
        return nbd_face_fail(f, "Failed to connect to '%s:%s': %s", f->bind, f->port,
                             strerror(nbd_get_errno()));
    return nbd_face_fail(f, "%s", nbd_get_error());
}

static int set_tls(const struct nbd_face *f, struct nbd_handle *nbd)
{
    const struct nbd_tls_options *o = &f->plan.tls;
    const char *user = nbd_face_creds(f, "username");
    int rc = nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE);

    if (o->want_psk) {
        auto_free char *keys = mem_printf("%s/keys.psk", o->folder);
        if (rc == 0)
            rc = keys ? nbd_set_tls_psk_file(nbd, keys) : -1;
        if (rc == 0 && user)
            rc = nbd_set_tls_username(nbd, user);
    } else {
        if (rc == 0)
            rc = nbd_set_tls_certificates(nbd, o->folder);
        if (rc == 0)
            rc = nbd_set_tls_verify_peer(nbd, !o->any_client);
    }
    return rc < 0 ? nbd_face_fail(f, "%s", nbd_get_error()) : 0;
}

static int connect_to(const struct nbd_face *f, struct nbd_handle *nbd)
{
    if (f->hostname && strcmp(f->hostname, f->bind) != 0)
        return nbd_face_fail(f, "libnbd checks a server's name only against where it connects to");
    if (nbd_set_opt_mode(nbd, true) < 0 || nbd_set_full_info(nbd, true) < 0)
        return nbd_face_fail(f, "%s", nbd_get_error());
    if (f->creds && set_tls(f, nbd) < 0)
        return ARGS_BAD;
    int rc = f->socket ? nbd_connect_unix(nbd, f->socket) : nbd_connect_tcp(nbd, f->bind, f->port);
    return rc < 0 ? say_lost(f) : 0;
}

static int say_all(struct listing *l)
{
    nbd_list_callback each = {.callback = add, .user_data = l};

    if (nbd_opt_list(l->nbd, each) < 0)
        return nbd_face_fail(l->face, "%s", nbd_get_error());
    if (l->failed)
        return nbd_face_fail(l->face, "out of memory");
    printf("exports available: %zu\n", l->count);
    for (size_t i = 0; i < l->count; i++)
        say_export(l->nbd, &l->found[i]);
    (void)!nbd_opt_abort(l->nbd);
    return 0;
}

int nbd_face_list(const struct nbd_face *f)
{
    struct listing l = {.face = f, .nbd = nbd_create()};
    int rc = l.nbd ? connect_to(f, l.nbd) : nbd_face_fail(f, "%s", nbd_get_error());

    if (rc == 0)
        rc = say_all(&l);
    for (size_t i = 0; i < l.count; i++) {
        mem_free(l.found[i].name);
        mem_free(l.found[i].description);
    }
    mem_free(l.found);
    nbd_close(l.nbd);
    return rc ? 1 : 0;
}

#else

int nbd_face_list(const struct nbd_face *f)
{
    return nbd_face_fail(f, "this build has no NBD client (libnbd)") ? 1 : 0;
}

#endif

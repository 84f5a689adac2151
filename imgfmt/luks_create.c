/* SPDX-License-Identifier: BSD-3-Clause */
/* luks_create.c - a new header of version 1, laid out as QEMU lays it out. What is written first is
 * the key material, then the header; in fresh mode it has no magic until all is complete. */
#include <stdio.h>

#include "block/resolver.h"
#include "imgfmt/luks.h"

/* The option's name in @o's table; @buf keeps it. */
static const char *prefixed(const char *prefix, const char *name, char buf[48])
{
    snprintf(buf, 48, "%s%s", prefix, name);
    return buf;
}

static const char *text(const struct opts *o, const char *prefix, const char *name)
{
    char buf[48];
    return opts_text(o, prefixed(prefix, name, buf));
}

int luks_wish_take(const struct opts *o, const char *prefix, struct luks_wish *out,
                   struct blk_error *e)
{
    char buf[48];
    const char *hash = text(o, prefix, "hash-alg");
    *out = (struct luks_wish){0};
    TRY(crypt_spec_words(text(o, prefix, "cipher-alg"), text(o, prefix, "cipher-mode"),
                         text(o, prefix, "ivgen-alg"), text(o, prefix, "ivgen-hash-alg"),
                         &out->spec, e));
    out->hash = kdf_hash_find(hash);
    if (!out->hash)
        return err_set(e, -ENOTSUP, "the hash '%.40s' is not known", hash);
    out->strength.msec = opts_number(o, prefixed(prefix, "iter-time", buf));
    out->strength.rounds = opts_number(o, prefixed(prefix, "iterations", buf));
    return opts_secret(o, text(o, prefix, "key-secret"), &out->secret, &out->secret_bytes, e);
}

void luks_wish_drop(struct luks_wish *w)
{
    if (w->secret)
        key_wipe(w->secret, w->secret_bytes);
    mem_free(w->secret);
    w->secret = NULL;
}

uint64_t luks1_head_bytes(const struct crypt_spec *spec)
{
    struct luks l = {.payload = *spec};
    luks1_layout(&l);
    return l.payload_offset;
}

int co_luks1_write_header(const struct luks_where *w, const struct luks *l, bool magic,
                          unsigned flags)
{
    struct luks1_disk d;
    luks1_put(l, &d);
    if (!magic)
        memset(d.magic, 0, sizeof d.magic);
    return co_blk_write_buf(w->file, w->at, &d, sizeof d, flags);
}

static void random_uuid(struct host *host, char text[41])
{
    uint8_t u[16];
    host_uuid(host, u);
    snprintf(text, 41, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
             u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
             u[14], u[15]);
}

/* A random key (the two halves of xts' differ) in slot 0. */
static int co_fill_first(const struct luks_where *w, const struct luks_wish *wish, struct luks *out,
                         const uint8_t *key, struct blk_error *e)
{
    struct kdf_bytes secret = {wish->secret, wish->secret_bytes};
    TRY(co_luks1_set_digest(out, key, wish->strength, w->file->host, e));
    return co_luks1_fill(w, out, 0, key, secret, wish->strength, e);
}

int co_luks1_make(const struct luks_where *w, const struct luks_wish *wish, bool magic,
                  struct luks *out, struct blk_error *e)
{
    uint8_t *key = key_alloc(CRYPT_KEY_MAX);
    if (!key)
        return err_set(e, -ENOMEM, "out of memory");
    *out = (struct luks){.version = 1, .payload = wish->spec, .hash = wish->hash};
    luks1_layout(out);
    random_uuid(w->file->host, out->uuid);
    host_random(w->file->host, key, out->payload.key_bytes);
    int rc = co_fill_first(w, wish, out, key, e);
    key_free(key, CRYPT_KEY_MAX);
    TRY(rc);
    rc = co_luks1_write_header(w, out, magic, 0);
    return rc < 0 ? err_errno(e, rc, "cannot write the LUKS header") : 0;
}

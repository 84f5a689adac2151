/* SPDX-License-Identifier: BSD-3-Clause */
/* luks_key.c - key slots: unlocking, filling, erasing.
 *
 *   pass phrase --KDF--> slot key --decrypts--> key material --merge--> volume key --> digest?
 *
 * All arithmetic runs on pool threads; whatever held a key is wiped. */
#include <nettle/memops.h>

#include "block/host.h"
#include "block/worker.h"
#include "imgfmt/luks.h"

/* One slot on its way through the pool. */
struct slot_work {
    const struct luks *l;
    const struct luks_slot *slot;
    struct kdf_bytes secret;
    uint8_t *material; /* of slot->material_bytes: ciphertext, then plain */
    uint64_t bytes;    /* of it that are used */
    uint8_t *key;
};

static int derive(const struct slot_work *w, uint8_t *key)
{
    const struct luks_slot *s = w->slot;
    struct kdf_bytes salt = {s->salt, s->salt_bytes};
    if (s->kdf == LUKS_ARGON2)
        return kdf_argon2(&s->argon2, w->secret, salt, key, s->area.key_bytes);
    kdf_pbkdf2(s->hash, w->secret, salt, s->iterations, key, s->area.key_bytes);
    return 0;
}

/* The cipher of the slot's key material under the pass phrase. */
static int area_cipher(const struct slot_work *w, struct crypt **out)
{
    uint8_t *key = key_alloc(CRYPT_KEY_MAX);
    int rc = key ? derive(w, key) : -ENOMEM;
    if (rc == 0)
        rc = crypt_new(&w->slot->area, key, out);
    key_free(key, CRYPT_KEY_MAX);
    return rc;
}

static int digest_of(const struct luks *l, const uint8_t *key, size_t key_bytes, uint8_t *to)
{
    struct kdf_bytes secret = {key, key_bytes}, salt = {l->digest_salt, l->digest_salt_bytes};
    kdf_pbkdf2(l->digest_hash, secret, salt, l->digest_iterations, to, l->digest_bytes);
    return 0;
}

/* 1: it is the right pass phrase and w->key the volume key. */
static int open_slot(void *arg)
{
    struct slot_work *w = arg;
    const struct luks_slot *s = w->slot;
    struct crypt *area;
    uint8_t digest[KDF_HASH_MAX];
    TRY(area_cipher(w, &area));
    crypt_decrypt(area, 0, w->material, w->material, w->bytes);
    crypt_drop(area);
    TRY(af_merge(s->af_hash, w->material, s->key_bytes, s->stripes, w->key));
    digest_of(w->l, w->key, s->key_bytes, digest);
    return memeql_sec(digest, w->l->digest, w->l->digest_bytes) ? 1 : 0;
}

int co_luks_try(const struct luks_where *w, const struct luks *l, unsigned i,
                struct kdf_bytes secret, uint8_t *key, struct blk_error *e)
{
    const struct luks_slot *s = &l->slots[i];
    struct slot_work work = {
        .l = l, .slot = s, .secret = secret, .bytes = luks_material_bytes(s), .key = key};
    assert(i < l->slot_count && s->active && s->key_bytes <= CRYPT_KEY_MAX);
    work.material = key_alloc(work.bytes);
    if (!work.material)
        return err_set(e, -ENOMEM, "no memory to unlock key slot %u", i);
    int rc = co_blk_read_buf(w->file, w->at + s->material_offset, work.material, work.bytes);
    if (rc == 0)
        rc = co_offload(open_slot, &work);
    key_free(work.material, work.bytes);
    if (rc == -ENOMEM && s->kdf == LUKS_ARGON2)
        return err_set(e, rc, "no memory to unlock key slot %u: Argon2 takes %" PRIu32 " KiB", i,
                       s->argon2.memory_kib);
    return rc < 0 ? err_errno(e, rc, "cannot unlock key slot %u", i) : rc;
}

int co_luks_unlock(const struct luks_where *w, const struct luks *l, struct kdf_bytes secret,
                   uint8_t **key, unsigned *slot, struct blk_error *e)
{
    *key = key_alloc(CRYPT_KEY_MAX);
    if (!*key)
        return err_set(e, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < l->slot_count; i++) {
        /* Slots of priority 0 wait for a caller who names them. */
        if (!l->slots[i].active || l->slots[i].last)
            continue;
        int rc = co_luks_try(w, l, i, secret, *key, e);
        if (rc > 0) {
            *slot = i;
            return 0;
        }
        if (rc < 0) {
            key_free(take(*key), CRYPT_KEY_MAX);
            return rc;
        }
    }
    key_free(take(*key), CRYPT_KEY_MAX);
    return err_set(e, -EACCES, "Invalid password, cannot unlock any keyslot");
}

/* --- version 1, written -----------------------------------------------------------------------
 */

struct digest_work {
    struct luks *l;
    const uint8_t *key;
    struct luks_strength strength;
};

static int make_digest(void *arg)
{
    struct digest_work *w = arg;
    uint64_t rounds = w->strength.rounds;
    if (!rounds) /* an eighth of the time that a slot takes */
        rounds = kdf_pbkdf2_rounds(w->l->hash, LUKS1_DIGEST, w->strength.msec / 8);
    w->l->digest_iterations = (uint32_t)MIN(rounds, LUKS_ROUNDS_MAX);
    return digest_of(w->l, w->key, w->l->payload.key_bytes, w->l->digest);
}

int co_luks1_set_digest(struct luks *l, const uint8_t *key, struct luks_strength s,
                        struct host *host, struct blk_error *e)
{
    struct digest_work w = {l, key, s};
    l->digest_hash = l->hash;
    l->digest_bytes = LUKS1_DIGEST;
    l->digest_salt_bytes = LUKS1_SALT;
    host_random(host, l->digest_salt, LUKS1_SALT);
    int rc = co_offload(make_digest, &w);
    return rc < 0 ? err_errno(e, rc, "cannot make the key's digest") : 0;
}

struct fill_work {
    struct slot_work slot;
    struct luks_slot *fill;
    struct luks_strength strength;
};

/* The material's front is noise already. */
static int fill_slot(void *arg)
{
    struct fill_work *w = arg;
    struct luks_slot *s = w->fill;
    struct crypt *area;
    uint64_t rounds = w->strength.rounds;
    if (!rounds)
        rounds = kdf_pbkdf2_rounds(s->hash, s->key_bytes, w->strength.msec);
    s->iterations = (uint32_t)MIN(rounds, LUKS_ROUNDS_MAX);
    TRY(area_cipher(&w->slot, &area));
    int rc = af_split(s->af_hash, w->slot.key, s->key_bytes, s->stripes, w->slot.material);
    if (rc == 0)
        crypt_encrypt(area, 0, w->slot.material, w->slot.material, w->slot.bytes);
    crypt_drop(area);
    return rc;
}

int co_luks1_fill(const struct luks_where *w, struct luks *l, unsigned i, const uint8_t *key,
                  struct kdf_bytes secret, struct luks_strength strength, struct blk_error *e)
{
    struct luks_slot *s = &l->slots[i], filled = *s;
    struct fill_work work = {
        .slot = {.l = l,
                 .slot = &filled,
                 .secret = secret,
                 .bytes = s->material_bytes,
                 .key = (uint8_t *)key},
        .fill = &filled,
        .strength = strength,
    };
    work.slot.material = key_alloc(work.slot.bytes);
    if (!work.slot.material)
        return err_set(e, -ENOMEM, "out of memory");
    host_random(w->file->host, filled.salt, LUKS1_SALT);
    host_random(w->file->host, work.slot.material, (s->stripes - 1) * (size_t)s->key_bytes);
    int rc = co_offload(fill_slot, &work);
    if (rc == 0)
        rc = co_blk_write_buf(w->file, w->at + s->material_offset, work.slot.material,
                              work.slot.bytes, 0);
    key_free(work.slot.material, work.slot.bytes);
    if (rc < 0)
        return err_errno(e, rc, "cannot write key slot %u", i);
    filled.active = true;
    *s = filled;
    return 0;
}

int co_luks1_wipe(const struct luks_where *w, const struct luks *l, unsigned i, struct blk_error *e)
{
    const struct luks_slot *s = &l->slots[i];
    auto_free uint8_t *noise = mem_alloc(s->material_bytes);
    if (!noise)
        return err_set(e, -ENOMEM, "out of memory");
    host_random(w->file->host, noise, s->material_bytes);
    int rc = co_blk_write_buf(w->file, w->at + s->material_offset, noise, s->material_bytes, 0);
    return rc < 0 ? err_errno(e, rc, "cannot overwrite key slot %u", i) : 0;
}

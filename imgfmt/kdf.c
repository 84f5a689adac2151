/* SPDX-License-Identifier: BSD-3-Clause */
/* kdf.c - from a pass phrase to a key. One PBKDF2 for all hashes, over nettle's generic HMAC;
 * Argon2 is libargon2's. */
#include <argon2.h>
#include <nettle/hmac.h>
#include <nettle/nettle-meta.h>
#include <time.h>

#include "imgfmt/crypt.h"
#include "imgfmt/kdf.h"

#define CTX_MAX 256 /* the largest of nettle's hash contexts (sha512: 216) */

struct kdf_hash {
    const char *name;
    const struct nettle_hash *nettle;
};

static const struct kdf_hash hashes[] = {
    {"sha1", &nettle_sha1},     {"sha224", &nettle_sha224}, {"sha256", &nettle_sha256},
    {"sha384", &nettle_sha384}, {"sha512", &nettle_sha512}, {"ripemd160", &nettle_ripemd160},
};

const struct kdf_hash *kdf_hash_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(hashes); i++)
        if (strcmp(hashes[i].name, name) == 0)
            return &hashes[i];
    return NULL;
}

const char *kdf_hash_name(const struct kdf_hash *h)
{
    return h->name;
}

size_t kdf_hash_bytes(const struct kdf_hash *h)
{
    return h->nettle->digest_size;
}

void kdf_hash_of(const struct kdf_hash *h, const void *data, size_t bytes, uint8_t *digest)
{
    _Alignas(16) uint8_t ctx[CTX_MAX];
    assert(h->nettle->context_size <= sizeof ctx);
    h->nettle->init(ctx);
    h->nettle->update(ctx, bytes, data);
    h->nettle->digest(ctx, h->nettle->digest_size, digest);
    key_wipe(ctx, sizeof ctx);
}

/* --- PBKDF2 -----------------------------------------------------------------------------------
 */

struct hmac {
    _Alignas(16) uint8_t outer[CTX_MAX];
    _Alignas(16) uint8_t inner[CTX_MAX];
    _Alignas(16) uint8_t state[CTX_MAX];
};

/* Block @index of the result, counted from 1. */
static void pbkdf2_block(const struct nettle_hash *n, struct hmac *m, struct kdf_bytes salt,
                         uint32_t index, uint32_t iterations, uint8_t block[KDF_HASH_MAX])
{
    uint8_t u[KDF_HASH_MAX];
    uint8_t be[4] = {(uint8_t)(index >> 24), (uint8_t)(index >> 16), (uint8_t)(index >> 8),
                     (uint8_t)index};
    hmac_update(m->state, n, salt.bytes, salt.at);
    hmac_update(m->state, n, sizeof be, be);
    hmac_digest(m->outer, m->inner, m->state, n, n->digest_size, u);
    memcpy(block, u, n->digest_size);
    for (uint32_t i = 1; i < iterations; i++) {
        hmac_update(m->state, n, n->digest_size, u);
        hmac_digest(m->outer, m->inner, m->state, n, n->digest_size, u);
        for (size_t k = 0; k < n->digest_size; k++)
            block[k] ^= u[k];
    }
    key_wipe(u, sizeof u);
}

void kdf_pbkdf2(const struct kdf_hash *h, struct kdf_bytes secret, struct kdf_bytes salt,
                uint32_t iterations, uint8_t *to, size_t bytes)
{
    const struct nettle_hash *n = h->nettle;
    struct hmac m;
    uint8_t block[KDF_HASH_MAX];
    assert(n->context_size <= CTX_MAX && n->digest_size <= KDF_HASH_MAX);
    hmac_set_key(m.outer, m.inner, m.state, n, secret.bytes, secret.at);
    for (size_t at = 0, index = 1; at < bytes; at += n->digest_size, index++) {
        pbkdf2_block(n, &m, salt, (uint32_t)index, iterations, block);
        memcpy(to + at, block, MIN(bytes - at, n->digest_size));
    }
    key_wipe(&m, sizeof m);
    key_wipe(block, sizeof block);
}

/* The CPU time of this thread: what other processes do must not make keys weaker. It is no part of
 * what the simulator repeats; who wants that tells the number of rounds. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint32_t kdf_pbkdf2_rounds(const struct kdf_hash *h, size_t bytes, uint64_t msec)
{
    uint8_t key[KDF_HASH_MAX], salt[32] = {0};
    struct kdf_bytes s = {salt, sizeof salt};
    uint64_t rounds = 4096, spent = 0;
    assert(bytes <= sizeof key);
    for (; rounds <= 1u << 20; rounds *= 2) {
        uint64_t from = cpu_ns();
        kdf_pbkdf2(h, s, s, (uint32_t)rounds, key, bytes);
        spent = cpu_ns() - from;
        if (spent >= 20 * 1000000 || rounds == 1u << 20)
            break;
    }
    uint64_t per_msec = rounds * 1000000 / MAX(spent, 1u);
    uint64_t all;
    if (!mul_u64(MAX(per_msec, 1u), msec, &all) || all > UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)MAX(all, (uint64_t)KDF_ITERATIONS_MIN);
}

/* --- Argon2 -----------------------------------------------------------------------------------
 */

int kdf_argon2(const struct kdf_argon2_cost *cost, struct kdf_bytes secret, struct kdf_bytes salt,
               uint8_t *to, size_t bytes)
{
    int rc = (cost->kind == KDF_ARGON2I ? argon2i_hash_raw : argon2id_hash_raw)(
        cost->passes, cost->memory_kib, cost->lanes, secret.at, secret.bytes, salt.at, salt.bytes,
        to, bytes);
    if (rc == ARGON2_OK)
        return 0;
    return rc == ARGON2_MEMORY_ALLOCATION_ERROR || rc == ARGON2_THREAD_FAIL ? -ENOMEM : -EINVAL;
}

/* --- the anti-forensic splitter ---------------------------------------------------------------
 */

/* Every digest's length of @buf becomes the hash of its number and itself. */
static void diffuse(const struct nettle_hash *n, uint8_t *buf, size_t bytes)
{
    _Alignas(16) uint8_t ctx[CTX_MAX];
    uint32_t index = 0;
    for (size_t at = 0; at < bytes; at += n->digest_size, index++) {
        uint8_t be[4] = {(uint8_t)(index >> 24), (uint8_t)(index >> 16), (uint8_t)(index >> 8),
                         (uint8_t)index};
        size_t part = MIN(bytes - at, n->digest_size);
        n->init(ctx);
        n->update(ctx, sizeof be, be);
        n->update(ctx, part, buf + at);
        n->digest(ctx, part, buf + at);
    }
    key_wipe(ctx, sizeof ctx);
}

/* @out is @in xor the fold of all stripes but the last: from the key the last stripe, and back. */
static int fold_into(const struct kdf_hash *h, const uint8_t *stripes, size_t bytes, uint32_t count,
                     const uint8_t *in, uint8_t *out)
{
    uint8_t *folded = key_alloc(bytes);
    if (!folded)
        return -ENOMEM;
    for (uint32_t i = 0; i + 1 < count; i++) {
        for (size_t k = 0; k < bytes; k++)
            folded[k] ^= stripes[i * bytes + k];
        diffuse(h->nettle, folded, bytes);
    }
    for (size_t k = 0; k < bytes; k++)
        out[k] = folded[k] ^ in[k];
    key_free(folded, bytes);
    return 0;
}

int af_split(const struct kdf_hash *h, const uint8_t *key, size_t bytes, uint32_t stripes,
             uint8_t *to)
{
    return fold_into(h, to, bytes, stripes, key, to + (stripes - 1) * bytes);
}

int af_merge(const struct kdf_hash *h, const uint8_t *from, size_t bytes, uint32_t stripes,
             uint8_t *key)
{
    return fold_into(h, from, bytes, stripes, from + (stripes - 1) * bytes, key);
}

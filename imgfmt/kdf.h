/* SPDX-License-Identifier: BSD-3-Clause */
/* kdf.h - from a pass phrase to a key: hashes, PBKDF2, Argon2, and the anti-forensic splitter of
 * LUKS. Pure, slow, for pool threads. */
#ifndef IMGFMT_KDF_H
#define IMGFMT_KDF_H

#include "block/err.h"

#define KDF_HASH_MAX       64 /* bytes of the longest digest */
#define KDF_ITERATIONS_MIN 1000

struct kdf_hash; /* sha1, sha224, sha256, sha384, sha512, ripemd160 */
const struct kdf_hash *kdf_hash_find(const char *name); /* NULL: not known */
const char *kdf_hash_name(const struct kdf_hash *h);
size_t kdf_hash_bytes(const struct kdf_hash *h);
void kdf_hash_of(const struct kdf_hash *h, const void *data, size_t bytes, uint8_t *digest);

struct kdf_bytes {
    const uint8_t *at;
    size_t bytes;
};

/* RFC 8018. @key->bytes of any length; @to gets @bytes. */
void kdf_pbkdf2(const struct kdf_hash *h, struct kdf_bytes secret, struct kdf_bytes salt,
                uint32_t iterations, uint8_t *to, size_t bytes);
/* Rounds of kdf_pbkdf2() with @bytes of result that take @msec of this machine's CPU time; at least
 * KDF_ITERATIONS_MIN. Takes a tenth of a second, or less. */
uint32_t kdf_pbkdf2_rounds(const struct kdf_hash *h, size_t bytes, uint64_t msec);

enum kdf_argon2 { KDF_ARGON2I, KDF_ARGON2ID };
struct kdf_argon2_cost {
    enum kdf_argon2 kind;
    uint32_t passes, memory_kib, lanes;
};
/* RFC 9106. -ENOMEM: it takes cost->memory_kib. -EINVAL: parameters that Argon2 does not take. */
must_use int kdf_argon2(const struct kdf_argon2_cost *cost, struct kdf_bytes secret,
                        struct kdf_bytes salt, uint8_t *to, size_t bytes);

/* A key blown up to @stripes times its length, of which every bit is needed to get it back.
 * @random: (stripes - 1) * bytes of it lie in @to already when af_split() is called. */
must_use int af_split(const struct kdf_hash *h, const uint8_t *key, size_t bytes, uint32_t stripes,
                      uint8_t *to);
must_use int af_merge(const struct kdf_hash *h, const uint8_t *from, size_t bytes, uint32_t stripes,
                      uint8_t *key);

#endif

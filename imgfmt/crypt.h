/* SPDX-License-Identifier: BSD-3-Clause */
/* crypt.h - sector ciphers: what dm-crypt calls "aes-xts-plain64", over nettle's block ciphers.
 *
 * A disk is encrypted sector by sector (512 to 4096 bytes), each with a start value made of its
 * number, so that a sector can be read or written alone. All here is pure but for key_alloc():
 * it may run on any thread, many at once with one struct crypt. */
#ifndef IMGFMT_CRYPT_H
#define IMGFMT_CRYPT_H

#include "block/err.h"

#define CRYPT_KEY_MAX    64 /* bytes: two keys of 256 bits for xts */
#define CRYPT_SECTOR_MIN 512
#define CRYPT_SECTOR_MAX 4096

enum crypt_mode { CRYPT_ECB, CRYPT_CBC, CRYPT_CTR, CRYPT_XTS };
enum crypt_iv {
    CRYPT_IV_NONE,
    CRYPT_IV_PLAIN,
    CRYPT_IV_PLAIN64,
    CRYPT_IV_PLAIN64BE,
    CRYPT_IV_ESSIV
};

/* A kind of cipher with one key length; crypt.c's table. */
struct crypt_cipher;
struct kdf_hash;

struct crypt_spec {
    const struct crypt_cipher *cipher;
    enum crypt_mode mode;
    enum crypt_iv iv;
    const struct kdf_hash *iv_hash; /* of essiv; else NULL */
    uint32_t key_bytes;             /* both keys of xts */
    uint32_t sector_bytes;
};

/* What LUKS 1 writes in two fields: @cipher "aes", @mode "xts-plain64"; @key_bytes tells how long
 * the key is. -ENOTSUP names what is not known. sector_bytes becomes 512. */
must_use int crypt_spec_parse(const char *cipher, const char *mode, uint32_t key_bytes,
                              struct crypt_spec *out, struct blk_error *e);
/* From QEMU's words: @alg "aes-256", @mode "xts", @iv "plain64", @iv_hash "sha256" or NULL (none
 * told: sha256 where essiv needs one). */
must_use int crypt_spec_words(const char *alg, const char *mode, const char *iv,
                              const char *iv_hash, struct crypt_spec *out, struct blk_error *e);
/* Back again: QEMU's words, and LUKS 1's. */
const char *crypt_alg_name(const struct crypt_spec *s);    /* "aes-256" */
const char *crypt_cipher_name(const struct crypt_spec *s); /* "aes" */
const char *crypt_mode_name(const struct crypt_spec *s);   /* "xts" */
const char *crypt_iv_name(const struct crypt_spec *s);     /* "plain64"; NULL: none */
void crypt_mode_text(const struct crypt_spec *s, char *to, size_t bytes); /* "xts-plain64" */

/* An expanded key. Lies in memory of key_alloc(). */
struct crypt;
/* @key is spec->key_bytes long. NULL: no memory. -EINVAL: both halves of an xts key are equal. */
must_use int crypt_new(const struct crypt_spec *spec, const uint8_t *key, struct crypt **out);
void crypt_drop(struct crypt *c); /* NULL: nothing */
const struct crypt_spec *crypt_spec_of(const struct crypt *c);
/* @bytes: whole sectors. @number: of the first one, in units of 512 bytes. In place, or from
 * elsewhere (never partly overlapping). */
void crypt_encrypt(const struct crypt *c, uint64_t number, void *to, const void *from,
                   size_t bytes);
void crypt_decrypt(const struct crypt *c, uint64_t number, void *to, const void *from,
                   size_t bytes);

/* Memory for keys: zeroed, kept out of core dumps and, where the limits allow, out of swap. NULL:
 * no memory. key_free() wipes it. */
void *key_alloc(size_t bytes);
void key_free(void *p, size_t bytes);
void key_wipe(void *p, size_t bytes);

#endif

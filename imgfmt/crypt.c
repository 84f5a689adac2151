/* SPDX-License-Identifier: BSD-3-Clause */
/* crypt.c - sector ciphers over nettle.
 *
 * nettle's block ciphers are fastest when they get many blocks at once, so every mode is written
 * as: make all start values and masks of a stretch, then one call for all its blocks. (Its own
 * xts calls the cipher block by block, which is ten times slower.) */
#include <nettle/cbc.h>
#include <nettle/ctr.h>
#include <nettle/nettle-meta.h>
#include <stdio.h>
#include <sys/mman.h>

#include "imgfmt/crypt.h"
#include "imgfmt/kdf.h"

#define BLOCK_MAX 16
#define STRETCH   512  /* bytes that one call of xts or ecb covers */
#define CTX_MAX   4256 /* the largest of nettle's contexts (twofish) */

struct crypt_cipher {
    const char *alg, *name; /* QEMU's word with the key's bits, dm-crypt's */
    const struct nettle_cipher *nettle;
};

static const struct crypt_cipher ciphers[] = {
    {"aes-128", "aes", &nettle_aes128},
    {"aes-192", "aes", &nettle_aes192},
    {"aes-256", "aes", &nettle_aes256},
    {"serpent-128", "serpent", &nettle_serpent128},
    {"serpent-192", "serpent", &nettle_serpent192},
    {"serpent-256", "serpent", &nettle_serpent256},
    {"twofish-128", "twofish", &nettle_twofish128},
    {"twofish-192", "twofish", &nettle_twofish192},
    {"twofish-256", "twofish", &nettle_twofish256},
    {"cast5-128", "cast5", &nettle_cast128},
};
static const char *const modes[] = {"ecb", "cbc", "ctr", "xts"};
static const char *const ivs[] = {NULL, "plain", "plain64", "plain64be", "essiv"};

struct crypt {
    struct crypt_spec spec;
    /* One key schedule each way; xts: and one for the mask; essiv: and one for start values. */
    _Alignas(16) uint8_t forward[CTX_MAX];
    _Alignas(16) uint8_t backward[CTX_MAX];
    _Alignas(16) uint8_t starts[CTX_MAX];
    const struct nettle_cipher *starts_cipher;
};

/* --- memory for keys ---------------------------------------------------------------------------
 */

void *key_alloc(size_t bytes)
{
    uint8_t *p = mem_aligned(align_up(bytes, 4096));
    if (!p)
        return NULL;
    memset(p, 0, align_up(bytes, 4096));
    (void)!madvise(p, align_up(bytes, 4096), MADV_DONTDUMP); /* best effort, both */
    (void)!mlock(p, align_up(bytes, 4096));
    return p;
}

void key_wipe(void *p, size_t bytes)
{
    explicit_bzero(p, bytes);
}

void key_free(void *p, size_t bytes)
{
    if (!p)
        return;
    key_wipe(p, bytes);
    (void)!munlock(p, align_up(bytes, 4096));
    (void)!madvise(p, align_up(bytes, 4096), MADV_DODUMP);
    mem_free(p);
}

/* --- names ------------------------------------------------------------------------------------
 */

static uint32_t full_key(const struct crypt_cipher *c, enum crypt_mode mode)
{
    return (uint32_t)c->nettle->key_size * (mode == CRYPT_XTS ? 2 : 1);
}

/* The mode and the start values that @len and @iv_len bytes of two words name; an empty @iv: none
 * are named. */
static int find_words(struct crypt_spec *out, const char *mode, size_t len, const char *iv,
                      size_t iv_len, struct blk_error *e)
{
    int m = -1, v = iv_len == 0 ? CRYPT_IV_NONE : -1;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++)
        if (strlen(modes[i]) == len && strncmp(modes[i], mode, len) == 0)
            m = (int)i;
    for (size_t i = 1; i < ARRAY_LEN(ivs); i++)
        if (strlen(ivs[i]) == iv_len && strncmp(ivs[i], iv, iv_len) == 0)
            v = (int)i;
    if (m < 0)
        return err_bad(e, -ENOTSUP,
                       "the cipher mode '%.40s' is not known: xts, cbc, ecb and ctr are", mode);
    if (v < 0)
        return err_bad(e, -ENOTSUP, "the initial vector '%.40s' is not known", iv);
    *out = (struct crypt_spec){.mode = (enum crypt_mode)m, .iv = (enum crypt_iv)v};
    return 0;
}

/* What holds for every pair of mode and start values. */
static int check_spec(struct crypt_spec *s, struct blk_error *e)
{
    if (s->mode == CRYPT_XTS && s->cipher->nettle->block_size != BLOCK_MAX)
        return err_set(e, -ENOTSUP, "the cipher %s has blocks of 64 bits, xts needs 128",
                       s->cipher->name);
    if (s->mode != CRYPT_ECB && s->iv == CRYPT_IV_NONE)
        return err_set(e, -ENOTSUP, "the mode %s needs an initial vector (plain64)",
                       modes[s->mode]);
    if (s->iv == CRYPT_IV_ESSIV) {
        bool found = false;
        for (size_t i = 0; s->iv_hash && i < ARRAY_LEN(ciphers); i++)
            found |= strcmp(ciphers[i].name, s->cipher->name) == 0 &&
                     ciphers[i].nettle->key_size == kdf_hash_bytes(s->iv_hash);
        if (!found)
            return err_set(e, -ENOTSUP, "essiv: the hash %s does not give a key for %s",
                           s->iv_hash ? kdf_hash_name(s->iv_hash) : "", s->cipher->name);
    }
    s->key_bytes = full_key(s->cipher, s->mode);
    s->sector_bytes = CRYPT_SECTOR_MIN;
    return 0;
}

static const struct crypt_cipher *find_cipher(const char *name, enum crypt_mode mode,
                                              uint32_t key_bytes)
{
    for (size_t i = 0; i < ARRAY_LEN(ciphers); i++)
        if (strcmp(ciphers[i].name, name) == 0 && full_key(&ciphers[i], mode) == key_bytes)
            return &ciphers[i];
    return NULL;
}

int crypt_spec_parse(const char *cipher, const char *mode, uint32_t key_bytes,
                     struct crypt_spec *out, struct blk_error *e)
{
    size_t mode_len = strcspn(mode, "-");
    const char *iv = mode[mode_len] ? mode + mode_len + 1 : "";
    size_t iv_len = strcspn(iv, ":");
    TRY(find_words(out, mode, mode_len, iv, iv_len, e));
    out->cipher = find_cipher(cipher, out->mode, key_bytes);
    if (!out->cipher)
        return err_bad(e, -ENOTSUP,
                       "the cipher '%.40s' in the mode %s with %" PRIu32
                       " bytes of key is not known",
                       cipher, modes[out->mode], key_bytes);
    if (iv[iv_len] == ':')
        out->iv_hash = kdf_hash_find(iv + iv_len + 1);
    if (iv[iv_len] == ':' && (out->iv != CRYPT_IV_ESSIV || !out->iv_hash))
        return err_bad(e, -ENOTSUP, "the initial vector '%.40s' is not known", iv);
    return check_spec(out, e);
}

int crypt_spec_words(const char *alg, const char *mode, const char *iv, const char *iv_hash,
                     struct crypt_spec *out, struct blk_error *e)
{
    TRY(find_words(out, mode, strlen(mode), iv, strlen(iv), e));
    for (size_t i = 0; i < ARRAY_LEN(ciphers); i++)
        if (strcmp(ciphers[i].alg, alg) == 0)
            out->cipher = &ciphers[i];
    if (!out->cipher)
        return err_bad(e, -ENOTSUP, "the cipher '%.40s' is not known", alg);
    if (out->iv == CRYPT_IV_ESSIV)
        out->iv_hash = kdf_hash_find(iv_hash ? iv_hash : "sha256");
    if (out->iv == CRYPT_IV_ESSIV && !out->iv_hash)
        return err_bad(e, -ENOTSUP, "the hash '%.40s' is not known", iv_hash);
    return check_spec(out, e);
}

const char *crypt_alg_name(const struct crypt_spec *s)
{
    return s->cipher->alg;
}

const char *crypt_cipher_name(const struct crypt_spec *s)
{
    return s->cipher->name;
}

const char *crypt_mode_name(const struct crypt_spec *s)
{
    return modes[s->mode];
}

const char *crypt_iv_name(const struct crypt_spec *s)
{
    return ivs[s->iv];
}

void crypt_mode_text(const struct crypt_spec *s, char *to, size_t bytes)
{
    const char *iv = ivs[s->iv];
    snprintf(to, bytes, "%s%s%s%s%s", modes[s->mode], iv ? "-" : "", iv ? iv : "",
             s->iv_hash ? ":" : "", s->iv_hash ? kdf_hash_name(s->iv_hash) : "");
}

/* --- keys -------------------------------------------------------------------------------------
 */

/* Start values of essiv are encrypted with a hash of the key. */
static void set_essiv(struct crypt *c, const uint8_t *key)
{
    uint8_t salt[KDF_HASH_MAX];
    size_t bytes = kdf_hash_bytes(c->spec.iv_hash);
    kdf_hash_of(c->spec.iv_hash, key, c->spec.key_bytes, salt);
    const struct crypt_cipher *of = find_cipher(c->spec.cipher->name, CRYPT_CBC, (uint32_t)bytes);
    assert(of); /* check_spec() */
    c->starts_cipher = of->nettle;
    c->starts_cipher->set_encrypt_key(c->starts, salt);
    key_wipe(salt, sizeof salt);
}

int crypt_new(const struct crypt_spec *spec, const uint8_t *key, struct crypt **out)
{
    const struct nettle_cipher *n = spec->cipher->nettle;
    assert(n->context_size <= CTX_MAX);
    *out = NULL;
    if (spec->mode == CRYPT_XTS && memcmp(key, key + n->key_size, n->key_size) == 0)
        return -EINVAL; /* the mask would be as secret as nothing */
    struct crypt *c = key_alloc(sizeof *c);
    if (!c)
        return -ENOMEM;
    c->spec = *spec;
    n->set_encrypt_key(c->forward, key);
    n->set_decrypt_key(c->backward, key);
    if (spec->mode == CRYPT_XTS) {
        c->starts_cipher = n;
        n->set_encrypt_key(c->starts, key + n->key_size);
    } else if (spec->iv == CRYPT_IV_ESSIV) {
        set_essiv(c, key);
    }
    *out = c;
    return 0;
}

void crypt_drop(struct crypt *c)
{
    key_free(c, sizeof *c);
}

const struct crypt_spec *crypt_spec_of(const struct crypt *c)
{
    return &c->spec;
}

/* --- sectors ----------------------------------------------------------------------------------
 */

/* The start value of sector @number, as the cipher takes it. */
static void start_value(const struct crypt *c, uint64_t number, uint8_t iv[BLOCK_MAX])
{
    size_t block = c->spec.cipher->nettle->block_size;
    memset(iv, 0, BLOCK_MAX);
    if (c->spec.iv == CRYPT_IV_PLAIN)
        number = (uint32_t)number;
    for (size_t i = 0; i < 8; i++)
        iv[c->spec.iv == CRYPT_IV_PLAIN64BE ? block - 1 - i : i] = (uint8_t)(number >> (8 * i));
    if (c->starts_cipher)
        c->starts_cipher->encrypt(c->starts, block, iv, iv);
}

typedef uint64_t two64 __attribute__((vector_size(16), aligned(1), may_alias));

static inline void xor_stretch(uint8_t *to, const uint8_t *a, const uint8_t *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 16)
        *(two64 *)(to + i) = *(const two64 *)(a + i) ^ *(const two64 *)(b + i);
}

/* The masks of the next @bytes: each is the one before times x in GF(2^128); *lo and *hi go on. */
static inline void masks(uint64_t *lo, uint64_t *hi, uint8_t *to, size_t bytes)
{
    uint64_t l = *lo, h = *hi;
    for (size_t i = 0; i < bytes; i += 16) {
        memcpy(to + i, &l, 8);
        memcpy(to + i + 8, &h, 8);
        uint64_t carry = (uint64_t)((int64_t)h >> 63) & 0x87;
        h = h << 1 | l >> 63;
        l = l << 1 ^ carry;
    }
    *lo = l;
    *hi = h;
}

/* @start was encrypted already (start_value()). Words are little endian in memory, as on the CPUs
 * that lamina runs on. */
static void xts_sector(const void *ctx, nettle_cipher_func *fn, const uint8_t start[BLOCK_MAX],
                       uint8_t *to, const uint8_t *from, size_t bytes)
{
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "masks() computes in place");
    _Alignas(16) uint8_t mask[STRETCH];
    uint64_t lo, hi;
    memcpy(&lo, start, 8);
    memcpy(&hi, start + 8, 8);
    for (size_t at = 0; at < bytes; at += STRETCH) {
        masks(&lo, &hi, mask, STRETCH);
        xor_stretch(to + at, from + at, mask, STRETCH);
        fn(ctx, STRETCH, to + at, to + at);
        xor_stretch(to + at, to + at, mask, STRETCH);
    }
}

static void sector(const struct crypt *c, bool encrypt, uint64_t number, uint8_t *to,
                   const uint8_t *from)
{
    const struct nettle_cipher *n = c->spec.cipher->nettle;
    size_t bytes = c->spec.sector_bytes;
    uint8_t iv[BLOCK_MAX];
    start_value(c, number, iv);
    switch (c->spec.mode) {
    case CRYPT_ECB:
        (encrypt ? n->encrypt : n->decrypt)(encrypt ? c->forward : c->backward, bytes, to, from);
        break;
    case CRYPT_CBC:
        if (encrypt)
            cbc_encrypt(c->forward, n->encrypt, n->block_size, iv, bytes, to, from);
        else
            cbc_decrypt(c->backward, n->decrypt, n->block_size, iv, bytes, to, from);
        break;
    case CRYPT_CTR:
        ctr_crypt(c->forward, n->encrypt, n->block_size, iv, bytes, to, from);
        break;
    case CRYPT_XTS:
        xts_sector(encrypt ? c->forward : c->backward, encrypt ? n->encrypt : n->decrypt, iv, to,
                   from, bytes);
        break;
    }
}

static void sectors(const struct crypt *c, bool encrypt, uint64_t number, uint8_t *to,
                    const uint8_t *from, size_t bytes)
{
    size_t one = c->spec.sector_bytes;
    assert(bytes % one == 0);
    for (size_t at = 0; at < bytes; at += one)
        sector(c, encrypt, number + at / CRYPT_SECTOR_MIN, to + at, from + at);
}

void crypt_encrypt(const struct crypt *c, uint64_t number, void *to, const void *from, size_t bytes)
{
    sectors(c, true, number, to, from, bytes);
}

void crypt_decrypt(const struct crypt *c, uint64_t number, void *to, const void *from, size_t bytes)
{
    sectors(c, false, number, to, from, bytes);
}

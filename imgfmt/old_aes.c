/* SPDX-License-Identifier: BSD-3-Clause */
/* old_aes.c - AES of qcow version 1: see old_aes.h. */
#include "imgfmt/old_aes.h"
#include "imgfmt/luks.h"
#include "imgfmt/map.h"

#define KEY_BYTES 16

void old_aes_name_option(int rc, struct blk_error *e)
{
    if (rc == -ENOKEY && e && strstr(e->text, "'key-secret'"))
        err_set(e, rc, "Parameter 'encrypt.key-secret' is required for cipher");
}

/* A pass phrase is cut or filled to the key's bytes. */
int co_old_aes_open(const struct opts *opts, struct blk_opener *opener, struct crypt **out,
                    struct blk_error *e)
{
    struct crypt_spec spec;
    uint8_t *secret, key[KEY_BYTES] = {0};
    size_t bytes;
    int rc = opener_secret(opener, opts ? opts_text(opts, "encrypt.key-secret") : NULL, &secret,
                           &bytes, e);
    old_aes_name_option(rc, e);
    TRY(rc);
    memcpy(key, secret, MIN(bytes, sizeof(key)));
    key_wipe(secret, bytes);
    mem_free(secret);
    rc = crypt_spec_words("aes-128", "cbc", "plain64", NULL, &spec, e);
    if (rc == 0)
        rc = crypt_new(&spec, key, out);
    key_wipe(key, sizeof(key));
    return rc < 0 ? err_errno(e, rc, "the key cannot be used") : 0;
}

int co_old_aes_read(struct blk_device *dev, const struct crypt *crypt, uint64_t offset,
                    const struct vec *to)
{
    if (!crypt)
        return -ENOKEY;
    TRY(co_map_read(dev, offset, to));
    for (uint64_t at = 0, n; at < to->bytes; at += n) {
        struct blk_extent ext;
        unsigned here = BLK_EXT_DATA | BLK_EXT_ALLOCATED;
        if (offset + at >= dev->size)
            return 0; /* the rest of the last sector, of a disk that ends inside it */
        TRY(co_map_map(dev, offset + at, to->bytes - at, &ext));
        n = MIN(align_up(ext.bytes, LUKS_SECTOR), to->bytes - at);
        if (n == 0 || n % LUKS_SECTOR)
            return -EIO;
        struct vec part = vec_slice(to, at, n);
        if ((ext.flags & here) == here && !(ext.flags & BLK_EXT_COMPRESSED))
            TRY(co_crypt_in_place(crypt, (offset + at) / LUKS_SECTOR, &part));
    }
    return 0;
}

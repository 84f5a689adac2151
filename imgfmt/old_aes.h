/* SPDX-License-Identifier: BSD-3-Clause */
/* old_aes.h - the encryption that qcow version 1 had, and qcow2 before LUKS: AES-128 in CBC, the
 * pass phrase itself being the key, the start value a sector's number in the disk. It is read, and
 * never made. Compressed clusters and all tables are plain. */
#ifndef IMGFMT_OLD_AES_H
#define IMGFMT_OLD_AES_H

#include "block/resolver.h"
#include "imgfmt/crypt.h"

/* The secret that the option encrypt.key-secret of @opts (NULL: not told) names. Gives *out. */
must_use int co_old_aes_open(const struct opts *opts, struct blk_opener *opener, struct crypt **out,
                             struct blk_error *e);
/* What the map engine reads of @dev, decrypted: its driver's co_read. Whole sectors. @crypt NULL:
 * -ENOKEY. */
must_use int co_old_aes_read(struct blk_device *dev, const struct crypt *crypt, uint64_t offset,
                             const struct vec *to);
/* Options of a driver's open(). */
#define OLD_AES_SECRET                                           \
    {                                                            \
        .name = "encrypt.key-secret", .type = OPT_SECRET,        \
        .help = "ID of the secret that opens an encrypted image" \
    }
/* QEMU's words for what is wrong with the secret of an option with the prefix. */
void old_aes_name_option(int rc, struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* hash.h - what a disk holds as one number: `lamina hash`, `convert --hash`.
 *
 *   sha256   SHA-256 of what a guest reads from begin to end: what sha256sum says of a raw copy
 *   blkhash  the block based hash of the blkhash project with its presets (SHA-256, 64 KiB):
 *            H(H(block 1) || ... || H(block N) || length), the length as 64 bits, little endian;
 *            the last block may be shorter
 *   sumhash  the hash that streams name disks by (block/sumhash.h) */
#ifndef TOOLS_HASH_H
#define TOOLS_HASH_H

#include "block/job.h"
#include "tools/tool.h"

#define HASH_TEXT 65 /* hexadecimal digits and the end */

enum hash_kind { HASH_NONE, HASH_SHA256, HASH_BLKHASH, HASH_SUMHASH };

/* What is told of a hash. Zero-initialised: none is asked for. */
struct hash_told {
    enum hash_kind kind;
    char expect[HASH_TEXT]; /* in small letters; empty: nothing is expected */
};

/* Take the value of --hash and of --expect: 0, or ARGS_BAD after a message. */
must_use int hash_kind_told(const struct tool *t, const char *word, struct hash_told *h);
must_use int hash_expect_told(const struct tool *t, const char *text, struct hash_told *h);
const char *hash_name(enum hash_kind kind);

/* The hash of the first @bytes of @dev; @job (may be NULL) counts them and can end it. What reads
 * zero by its status is not read. */
must_use int co_hash_disk(struct blk_device *dev, uint64_t bytes, enum hash_kind kind,
                          struct job *job, char text[HASH_TEXT], struct blk_error *e);
/* -EBADMSG and a sentence about @name if @text is not what is expected. */
must_use int hash_compare(const struct hash_told *h, const char *text, const char *name,
                          struct blk_error *e);

#endif

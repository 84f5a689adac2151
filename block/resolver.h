/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver.h - from a spec to an open stack: the one place that opens names, and the table of who
 * may open what.
 *
 * Specs (docs/specs.md has the grammar), in this order: (1) a URL scheme, json:{...}, or
 * driver=...,key=value; (2) an existing file of exactly that name; (3) a set: md: lvm: thin: dir: ;
 * (4) NAME//inner. In the qemu faces and inside images (3) and (4) never apply. */
#ifndef BLOCK_RESOLVER_H
#define BLOCK_RESOLVER_H

#include "block/block.h"

/* A row of the trust table (design section 15). */
enum trust {
    TRUST_FACE,    /* called as qemu-img, qemu-nbd, qemu-io: as QEMU 7.2 */
    TRUST_READ,    /* lamina, verbs that read */
    TRUST_WRITE,   /* lamina, verbs that write in place */
    TRUST_NOTHING, /* `lamina info`, --untrusted: no reference of an image opens anything */
};

struct resolver {
    struct host *host;
    const struct blk_driver *const *drivers;
    enum trust trust;
    const char *chain_dir; /* --chain DIR: references may also resolve below it; NULL: none */
    bool force_share;      /* -U */
    const char *cache; /* "writeback" (default), "none", "unsafe", "directsync", "writethrough": of
                          the files below */
    /* Called when a probe decided the format and that is worth saying (trust READ/WRITE); may be
     * NULL. */
    void (*say)(struct resolver *r, const char *sentence);
    void *arg;
};

/* Parses @text to a tree that co_resolver_open_tree() takes; touches names only to see whether they
 * exist. Gives *out (json_decref). @format: NULL or the caller's -f. @image_opts: @text is
 * key=value or json only. Deep JSON is refused before it is parsed (64 levels). */
must_use int co_resolver_parse(struct resolver *r, const char *text, const char *format,
                               bool image_opts, json_t **out, struct blk_error *e);
must_use int co_resolver_open_tree(struct resolver *r, const json_t *tree, unsigned open_flags,
                                   struct blk_device **out, struct blk_error *e);
/* Both. */
must_use int co_resolver_open(struct resolver *r, const char *text, const char *format,
                              unsigned open_flags, struct blk_device **out, struct blk_error *e);
/* Only the bottom: the file (or other protocol) device that @text names, no format on it. For
 * create and probe. @create: HOST_ open flags or 0. */
must_use int co_resolver_open_file(struct resolver *r, const char *text, unsigned open_flags,
                                   unsigned create, struct blk_device **out, struct blk_error *e);
/* Which format is on @file: never NULL (raw at the least); *reason is static. -errno if it cannot
 * be read. */
must_use int co_resolver_probe(struct resolver *r, struct blk_device *file,
                               const struct blk_driver **out, const char **reason,
                               struct blk_error *e);

/* --- for drivers, in open()
 * ---------------------------------------------------------------------------------------------------------
 */

/* Opens the child under @key of the device's option tree; if there is none: the file that the
 * device stands on is @fallback... for "file" the tree always has it. Adds it to @dev with @key as
 * role. */
must_use int co_opener_child(struct blk_opener *o, struct blk_device *dev, const char *key,
                             unsigned open_flags, struct blk_error *e);
/* True if the caller's tree names a child @key (it overrides what the image says); JSON null counts
 * and means "none". */
bool opener_has(const struct blk_opener *o, const char *key);
/* Opens what the image itself refers to: @reference as written there (relative to the image's own
 * directory), @format NULL: probe (where the trust row allows). Adds it as @role. Refusals name the
 * file and the option that would allow it. -ELOOP beyond 1,024 links or on a cycle. With
 * BLK_OPEN_NO_BACKING or TRUST_NOTHING: -EACCES without touching anything. */
must_use int co_opener_reference(struct blk_opener *o, struct blk_device *dev, const char *role,
                                 const char *reference, const char *format, unsigned open_flags,
                                 struct blk_error *e);
/* What @reference would be, without opening: gives *out (mem_free). For info's
 * full-backing-filename. */
must_use int opener_full_name(const struct blk_opener *o, const char *reference, char **out);
/* The name of the file the device stands on, or NULL. Borrowed. */
const char *opener_file_name(const struct blk_opener *o);
/* Secrets by id (--object secret): bytes to be wiped and freed by the caller. -ENOENT. */
must_use int opener_secret(struct blk_opener *o, const char *id, uint8_t **out, size_t *bytes,
                           struct blk_error *e);

#endif

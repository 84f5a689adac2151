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

/* What several specs name before // is opened once, as in one spec: who opens them one after the
 * other, at any worker, has one of these for all, and drops it when no more are to come. A spec
 * that fails with -EXDEV and @elsewhere set has to be opened there: what it shares lives there. */
struct resolver_shared {
    struct within *open;
    struct worker *elsewhere;
};
/* Closes what nothing stands on any more, and what is only read. */
void co_resolver_shared_prune(struct resolver_shared *s);
void co_resolver_shared_drop(struct resolver_shared *s);

struct resolver {
    struct host *host;
    const struct blk_driver *const *drivers;
    enum trust trust;
    const char *chain_dir; /* --chain DIR: references may also resolve below it; NULL: none */
    bool force_share;      /* -U */
    const char *cache; /* "writeback" (default), "none", "unsafe", "directsync", "writethrough": of
                          the files below */
    /* Called when a probe decided the format and that is worth saying (trust READ/WRITE; in the
     * faces QEMU's warning about a probed raw disk that is written); may be NULL. */
    void (*say)(struct resolver *r, const char *sentence);
    void *arg;
    struct resolver_object *objects; /* of --object too: what is no secret */
    struct resolver_secret *secrets; /* of --object; resolver_drop() wipes them */
    struct resolver_shared *shared;  /* NULL: each spec for itself */
    const char *key_secret; /* id of the secret of the image that a person names, where its options
                               do not say; NULL: none */
};

/* --object: `secret,id=X,file=F[,format=raw|base64]`; in the faces `data=` too. The file is read
 * now. `tls-creds-x509,id=X,dir=D` and `tls-creds-psk,id=X,dir=D` are kept as they are.
 * x-lamina-bytes=BASE64 is the program's own word for what it has read already. */
must_use int co_resolver_add_object(struct resolver *r, const char *text, struct blk_error *e);
void resolver_drop(struct resolver *r);

/* What a tree is: {"driver": "qcow2", "file": {"driver": "file", "filename": "x.qcow2"}, ...}. No
 * "driver": the format is probed, except below "file", where it means the driver "file". A text in
 * the place of an object is a spec. {"driver": "inner", "name": "p3", "of": {...}} is a device
 * inside a container. Keys that begin with x-lamina- are the resolver's words to a driver and
 * refused from outside:
 *   file  x-lamina-beneath  a directory: co_host_open()'s @beneath; filename is relative to it
 *         x-lamina-name     what to call the device in messages
 *         x-lamina-create   co_host_open()'s flags beside READ and WRITE (an integer)
 *   raw   x-lamina-probed   true: nobody said raw; writes that make sector 0 another format's
 *                           header answer -EPERM
 * Also understood in every object: cache {direct, no-flush, writeback}, read-only, force-share,
 * node-name. */

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
/* Both, of --image-opts. */
must_use int co_resolver_open_opts(struct resolver *r, const char *text, unsigned open_flags,
                                   struct blk_device **out, struct blk_error *e);
/* Only the bottom: the file (or other protocol) device that @text names, no format on it. For
 * create and probe. @create: HOST_ open flags or 0. */
must_use int co_resolver_open_file(struct resolver *r, const char *text, unsigned open_flags,
                                   unsigned create, struct blk_device **out, struct blk_error *e);
/* Which format is on @file: never NULL (raw at the least); *reason is static. -errno if it cannot
 * be read. */
must_use int co_resolver_probe(struct resolver *r, struct blk_device *file,
                               const struct blk_driver **out, const char **reason,
                               struct blk_error *e);

/* Who sees containers (partition tables, volumes) in the contents of @dev, without opening them.
 * NULL: nobody. */
const struct blk_driver *co_find_container(struct resolver *r, struct blk_device *dev);
/* What sees containers in the contents of @dev, whatever that is: gives
 * *out, a device over @dev (a reference is kept) with the same rights. -ENOENT: nothing does. */
must_use int co_resolver_container(struct resolver *r, struct blk_device *dev,
                                   struct blk_device **out, struct blk_error *e);

/* --- for drivers, in open()
 * ---------------------------------------------------------------------------------------------------------
 */

/* Opens the child under @key of the device's option tree and adds it to @dev with @key as role
 * (borrowed: a literal). Under "file" and "data-file" no format is probed. -EINVAL if there is no
 * such key. Opened on a coroutine of its own, so trees may nest. */
must_use int co_opener_child(struct blk_opener *o, struct blk_device *dev, const char *key,
                             unsigned open_flags, struct blk_error *e);
/* The same for a list (OPT_CHILDREN), in order, all with @role. */
must_use int co_opener_children(struct blk_opener *o, struct blk_device *dev, const char *key,
                                const char *role, unsigned open_flags, struct blk_error *e);
/* True if the caller's tree names a child @key (it overrides what the image says); JSON null counts
 * and means "none". */
bool opener_has(const struct blk_opener *o, const char *key);
/* Asks for what the image itself refers to: @reference as written there (relative to the image's
 * own directory), @format NULL: probe. Returns 0 at once, nothing is open yet: when @dev's open()
 * has returned, the resolver opens all references of the chain in a loop, top to bottom, adds each
 * as @role (a literal) and then calls co_opened(); so chains of 1,024 need no deep stack. A
 * reference that fails fails the whole open. "backing" and "parent" are opened read-only, others
 * with no more rights than @dev has. Refusals name the file and the option that would allow it.
 * -ELOOP beyond 1,024 links or on a cycle. With BLK_OPEN_NO_BACKING or TRUST_NOTHING: -EACCES
 * without touching anything. A caller's tree that has @role overrides: then that child is opened
 * instead (null: none). */
must_use int co_opener_reference(struct blk_opener *o, struct blk_device *dev, const char *role,
                                 const char *reference, const char *format, unsigned open_flags,
                                 struct blk_error *e);
/* For images that name what they refer to by identity (a UUID): looks through the image's folder
 * and where else references may lead (resolver_find.c), at files of one ending. Gives *out
 * (mem_free): a reference for co_opener_reference(). -ENOENT: not found. -EACCES: nothing may be
 * looked at. */
struct opener_search {
    const char *ending; /* ".vdi" */
    const char *below;  /* a folder in the folder that is looked through too; NULL: none */
    size_t head_bytes;  /* of each file, at most */
    /* 0; -errno ends the search. *found (mem_alloc()ed): this is it, as a name relative to the
     * file's folder, or absolute. */
    int (*look)(void *arg, const char *name, const void *head, size_t bytes, char **found);
    void *arg;
};
must_use int co_opener_find(struct blk_opener *o, const struct opener_search *s, char **out);
/* What @reference would be, without opening: gives *out (mem_free). For info's
 * full-backing-filename. */
must_use int opener_full_name(const struct blk_opener *o, const char *reference, char **out);
/* For drivers that open what a person's words mean (a folder's files). Good until open() returns;
 * @o NULL: NULL. */
struct resolver *opener_resolver(const struct blk_opener *o);
/* A sentence for the person, if there is one who listens. @o NULL: a stack built by hand. */
void opener_say(const struct blk_opener *o, const char *fmt, ...) printf_like(2, 3);
/* The name of the file the device stands on, or NULL. Borrowed. */
const char *opener_file_name(const struct blk_opener *o);
/* A secret by id: *out is to be wiped and mem_free()d by the caller, a zero byte follows it.
 * -ENOENT. @id NULL: nobody said which; then it is the resolver's key_secret, or (not in the faces)
 * the only one there is; -ENOKEY: neither. @o NULL: a stack built by hand, which has none. */
must_use int opener_secret(struct blk_opener *o, const char *id, uint8_t **out, size_t *bytes,
                           struct blk_error *e);
/* An --object that is no secret, by id: its words with "qom-type". Borrowed; NULL: there is none.
 */
const json_t *opener_object(const struct blk_opener *o, const char *id);
/* opener_secret() for create and amend: of @o->secrets. */
must_use int opts_secret(const struct opts *o, const char *id, uint8_t **out, size_t *bytes,
                         struct blk_error *e);

#endif

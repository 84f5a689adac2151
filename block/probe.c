/* SPDX-License-Identifier: BSD-3-Clause */
/* probe.c - which format is on a file: every format looks at its first 64 KiB, its last 128 KiB and
 * its size; the highest score wins, the order of the driver list breaks ties, and what nobody
 * claims is raw. */
#include "block/resolver_private.h"

/* Reads what is stored and takes holes for the zeroes they are: on ext4, reading preallocated space
 * would make it look like data afterwards, and `map` would say so. */
static int co_read_stored(struct blk_device *file, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    struct blk_extent ext;
    for (; bytes > 0; offset += ext.bytes, to += ext.bytes, bytes -= ext.bytes) {
        if (co_blk_map(file, offset, bytes, &ext) < 0)
            return co_blk_read_buf(file, offset, to, bytes);
        if (ext.flags & BLK_EXT_ZERO)
            memset(to, 0, ext.bytes);
        else
            TRY(co_blk_read_buf(file, offset, to, ext.bytes));
    }
    return 0;
}

static int co_read_ends(struct blk_device *file, struct blk_probe *p, uint8_t *head, uint8_t *tail)
{
    p->size = file->size;
    p->head_bytes = (size_t)MIN(file->size, BLK_PROBE_HEAD);
    p->tail_bytes = (size_t)MIN(file->size, BLK_PROBE_TAIL);
    p->head = head;
    p->tail = tail;
    TRY(co_read_stored(file, 0, head, p->head_bytes));
    return co_read_stored(file, file->size - p->tail_bytes, tail, p->tail_bytes);
}

static const struct blk_driver *best_of(const struct resolver *r, const struct blk_probe *p,
                                        const char **reason)
{
    const struct blk_driver *best = blk_find_driver(r->drivers, "raw");
    int best_score = 1;
    *reason = "no format was recognised";
    for (const struct blk_driver *const *d = r->drivers; *d; d++) {
        const char *why = "";
        if (!(*d)->is_format || !(*d)->probe || *d == best)
            continue;
        int score = (*d)->probe(p, &why);
        if (score > best_score) {
            best = *d;
            best_score = score;
            *reason = why;
        }
    }
    return best;
}

int co_resolver_probe(struct resolver *r, struct blk_device *file, const struct blk_driver **out,
                      const char **reason, struct blk_error *e)
{
    struct blk_probe p = {.name = file->name, .as_qemu = trust_rule(r)->face};
    const char *why;
    auto_free uint8_t *buf = mem_aligned(BLK_PROBE_HEAD + BLK_PROBE_TAIL);
    if (!buf)
        return err_set(e, -ENOMEM, "no memory to look at the file");
    if (file->size > 0) {
        int rc = co_read_ends(file, &p, buf, buf + BLK_PROBE_HEAD);
        if (rc < 0)
            return err_errno(e, rc, "Could not read image for determining its format");
    }
    *out = best_of(r, &p, reason ? reason : &why);
    return *out ? 0 : err_set(e, -ENOTSUP, "this build has no driver \"raw\"");
}

/* --- containers --------------------------------------------------------------------------------
 */

const struct blk_driver *co_find_container(struct resolver *r, struct blk_device *dev)
{
    const struct blk_driver *best = NULL;
    int best_score = 0;
    struct blk_probe p = {.name = dev->name ? dev->name : ""};
    auto_free uint8_t *buf = mem_aligned(BLK_PROBE_HEAD + BLK_PROBE_TAIL);
    if (!buf || dev->size == 0 || co_read_ends(dev, &p, buf, buf + BLK_PROBE_HEAD) < 0)
        return NULL;
    for (const struct blk_driver *const *d = r->drivers; *d; d++) {
        const char *why;
        if ((*d)->is_format || !(*d)->co_inner_open || !(*d)->probe)
            continue;
        int score = (*d)->probe(&p, &why);
        if (score > best_score) {
            best = *d;
            best_score = score;
        }
    }
    return best;
}

int co_resolver_container(struct resolver *r, struct blk_device *dev, struct blk_device **out,
                          struct blk_error *e)
{
    const struct blk_driver *d = co_find_container(r, dev);
    struct blk_child child = {"file", dev};
    struct open_run run = {.r = r, .rule = trust_rule(r)};
    struct blk_opener o = {.run = &run}; /* what it says is heard */
    o.node.flags = dev->open_flags & (BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE);
    o.node.link = link_new(&run, NULL, true);
    if (!d || !o.node.link) {
        links_drop(&run);
        return d ? err_set(e, -ENOMEM, "no memory to open a device")
                 : err_set(e, -ENOENT, "nothing in it is known to hold devices");
    }
    blk_ref(dev);
    int rc = co_blk_open(d, dev->name, NULL, o.node.flags, &o, &child, 1, out, e);
    links_drop(&run);
    return rc;
}

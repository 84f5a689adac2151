/* SPDX-License-Identifier: BSD-3-Clause */
/* behind.c - what is behind an image: found layer by layer, and remembered, so that a chain of 64
 * costs hardly more than a chain of one.
 *
 * Who reads what an overlay does not hold asks each layer behind it in turn. Those layers are
 * read-only as a rule, and what a device answers while nobody can write to it stays true. So the
 * topmost image of a chain keeps, for blocks of the device behind it, where the asking ended:
 *
 *     block -> the device and the offset in it where all of the block lies
 *
 * in a direct-mapped array: a block that finds its place taken takes it over, and is asked for as
 * if nothing was kept. The image itself is always asked first, so what is written to it counts at
 * once.
 *
 * N1  What was passed on the way was fixed: not writable, not damaged, nobody about to change that;
 *     it gave the whole block, inside of its size, to one place in one child. Where the way ends is
 *     asked anew each time: it may be writable, or have to read tables first.
 * N2  All that is kept at a home is forgotten before a device there becomes writable, and when one
 *     has got another device behind it (blk_forget_behind).
 * N3  Looked at and changed at home only, never between two suspensions but whole. */
#include "block/waist.h"

#define LEAST_BLOCK 4096u
#define MOST_BLOCK  (2 * MiB)
#define USUAL_BLOCK (64 * KiB)
#define MOST_KEPT   (1u << 18) /* 6 MiB */
#define LONG_BLOCKS 4u         /* a request of more is asked for as one */

struct kept {
    uint64_t block;         /* its number, in the device behind */
    struct blk_device *dev; /* NULL: empty */
    uint64_t offset;
};

struct blk_behind {
    uint64_t block_bytes, mask;
    unsigned block_bits;
    struct kept kept[];
};

void blk_forget_behind(struct blk_device *dev)
{
    dev->home->fixed_changes++;
}

/* N1 */
static bool is_fixed(const struct blk_device *dev)
{
    return !dev->writable && !dev->marked_corrupt && !dev->gate;
}

/* --- making it -------------------------------------------------------------------------------- */

/* Blocks no larger than any cluster on the way, as far as that can be: each lies in one place. */
static unsigned block_bits(const struct blk_device *dev)
{
    uint64_t least = MOST_BLOCK;
    bool any = false;
    for (; dev; dev = dev->backing) {
        uint32_t cluster = dev->limits.cluster_size;
        any |= cluster != 0;
        least = cluster ? MIN(least, cluster) : least;
    }
    return log2_floor(any ? MAX(least, LEAST_BLOCK) : USUAL_BLOCK);
}

static bool is_deep(const struct blk_device *behind)
{
    return behind->backing || (behind->child_count && behind->children[0].dev->backing);
}

/* Only the topmost image of a chain keeps anything. One that cannot have the memory asks. */
static struct blk_behind *make(struct blk_device *dev)
{
    if (dev->backs || !is_deep(dev->backing))
        return NULL;
    unsigned bits = block_bits(dev->backing);
    uint64_t blocks = (dev->backing->size >> bits) + 1, count = 16;
    while (count < blocks && count < MOST_KEPT)
        count *= 2;
    struct blk_behind *b = mem_zalloc(sizeof(*b) + count * sizeof(b->kept[0]));
    if (!b)
        return NULL;
    b->block_bits = bits;
    b->block_bytes = 1ULL << bits;
    b->mask = count - 1;
    return b;
}

/* NULL: none is kept. */
static struct blk_behind *kept_by(struct blk_device *dev)
{
    if (unlikely(!blk_at_home(dev))) /* N3 */
        return NULL;
    if (unlikely(dev->behind_at != dev->home->fixed_changes + 1)) { /* N2 */
        mem_free(take(dev->behind));
        dev->behind = make(dev);
        dev->behind_at = dev->home->fixed_changes + 1;
    }
    return dev->behind;
}

/* --- asking ----------------------------------------------------------------------------------- */

/* One layer further, if it is known without waiting: *p gets shorter where what comes then lies
 * elsewhere. */
static bool step(struct blk_place *p)
{
    struct blk_device *d = p->child;
    struct blk_place next = {0};
    if (!is_fixed(d) || !d->driver->resolve || p->offset >= d->size ||
        !d->driver->resolve(d, p->offset, MIN(p->bytes, d->size - p->offset), false, &next) ||
        !next.child)
        return false;
    *p = next;
    return true;
}

/* The same for a block, as long as it stays whole. */
static bool step_whole(const struct blk_behind *b, struct kept *k)
{
    struct blk_place p = {.child = k->dev, .offset = k->offset, .bytes = b->block_bytes};
    if (!step(&p) || p.bytes < b->block_bytes)
        return false;
    k->dev = p.child;
    k->offset = p.offset;
    return true;
}

static struct kept *look_up(struct blk_device *dev, struct blk_behind *b, uint64_t block)
{
    struct kept *k = &b->kept[block & b->mask];
    if (unlikely(!k->dev || k->block != block))
        *k = (struct kept){block, dev->backing, block << b->block_bits};
    while (!k->dev->file && step_whole(b, k))
        ;
    return k;
}

/* --- long requests ---------------------------------------------------------------------------- */

/* The entry of a block that is known to the end of the way; NULL: it is not. */
static const struct kept *known(const struct blk_behind *b, uint64_t block)
{
    const struct kept *k = &b->kept[block & b->mask];
    return k->dev && k->block == block && k->dev->file ? k : NULL;
}

/* The front of *p, as far as it is known to lie together; false: what comes then is not known, and
 * may lie there too. */
static bool find_known(const struct blk_behind *b, struct blk_place *p)
{
    uint64_t n = p->offset >> b->block_bits, at = p->offset & (b->block_bytes - 1);
    uint64_t reach = b->block_bytes;
    const struct kept *first = known(b, n);
    for (; first && reach < at + p->bytes; reach += b->block_bytes) {
        const struct kept *k = known(b, ++n);
        if (!k)
            return false;
        if (k->dev != first->dev || k->offset != first->offset + reach)
            break;
    }
    if (first)
        *p = (struct blk_place){
            .child = first->dev, .offset = first->offset + at, .bytes = MIN(reach - at, p->bytes)};
    return first;
}

/* Keeps whole blocks of [from, +p->bytes), which lie together at *p. */
static void keep_run(struct blk_behind *b, uint64_t from, const struct blk_place *p)
{
    uint64_t end = from + p->bytes;
    for (uint64_t at = align_up(from, b->block_bytes); at + b->block_bytes <= end;
         at += b->block_bytes) {
        uint64_t n = at >> b->block_bits;
        b->kept[n & b->mask] = (struct kept){n, p->child, p->offset + (at - from)};
    }
}

/* What is not known is asked for all at once, not block by block. */
static void find_long(struct blk_behind *b, struct blk_place *p)
{
    uint64_t from = p->offset;
    if (find_known(b, p))
        return;
    while (!p->child->file && step(p))
        ;
    keep_run(b, from, p);
}

void blk_find_behind(struct blk_device *dev, struct blk_place *p)
{
    struct blk_behind *b = kept_by(dev);
    if (!b)
        return;
    uint64_t at = p->offset & (b->block_bytes - 1);
    uint64_t block = p->offset >> b->block_bits, end = at + p->bytes;
    if (end > LONG_BLOCKS << b->block_bits) {
        find_long(b, p);
        return;
    }
    struct kept first = *look_up(dev, b, block);
    uint64_t reach = b->block_bytes;
    for (; reach < end; reach += b->block_bytes) {
        const struct kept *k = look_up(dev, b, ++block);
        if (k->dev != first.dev || k->offset != first.offset + reach)
            break;
    }
    *p = (struct blk_place){
        .child = first.dev, .offset = first.offset + at, .bytes = MIN(end, reach) - at};
}

/* --- asking those that have to read tables first ---------------------------------------------- */

/* True if the image where asking for @block ended defers for all of it: it is kept that asking goes
 * on behind that one. */
static bool co_step(struct blk_device *dev, uint64_t block)
{
    struct blk_behind *b = kept_by(dev);
    if (!b)
        return false;
    struct kept k = *look_up(dev, b, block);
    uint64_t changes = dev->home->fixed_changes, bytes = b->block_bytes;
    struct blk_extent ext;
    if (!k.dev->backing || !is_fixed(k.dev))
        return false;
    if (co_blk_map(k.dev, k.offset, bytes, &ext) < 0 || ext.bytes < bytes || ext.flags != 0)
        return false;
    /* Others ran meanwhile: the answer may be out of date, the array another one. */
    b = kept_by(dev);
    if (!b || b->block_bytes != bytes || dev->home->fixed_changes != changes || !is_fixed(k.dev))
        return false;
    b->kept[block & b->mask] = (struct kept){block, k.dev->backing, k.offset};
    return true;
}

int co_blk_find_behind(struct blk_device *dev, struct blk_place *p)
{
    struct blk_behind *b = p->child == dev->backing ? kept_by(dev) : NULL;
    if (b && p->bytes <= b->block_bytes) {
        uint64_t block = p->offset >> b->block_bits;
        while (co_step(dev, block))
            ;
    }
    if (b)
        blk_find_behind(dev, p);
    while (p->child) {
        struct blk_device *d = p->child;
        if (p->offset >= d->size) {
            p->child = NULL;
            break;
        }
        p->bytes = MIN(p->bytes, d->size - p->offset);
        if (!d->backing)
            break;
        struct blk_extent ext;
        TRY(co_blk_map(d, p->offset, p->bytes, &ext));
        p->bytes = MIN(p->bytes, ext.bytes);
        if (ext.flags & (BLK_EXT_ALLOCATED | BLK_EXT_RECURSE)) /* its own, or its extents' */
            break;
        p->child = d->backing;
    }
    return 0;
}

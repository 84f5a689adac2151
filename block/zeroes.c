/* SPDX-License-Identifier: BSD-3-Clause */
/* zeroes.c - what becomes of zeroes and discards on their way down: writes that hold nothing but
 * zeroes become write_zeroes (detect), and discards are dropped (discard=ignore; zeroes that may
 * give space back do so all the same, as in QEMU). All else is resolve's. */
#include "block/block.h"

enum detect { DETECT_OFF, DETECT_ON, DETECT_UNMAP };

struct zeroes {
    struct blk_device *child;
    enum detect detect;
    bool keeps; /* discard=ignore */
};

static const char *const detect_modes[] = {"off", "on", "unmap", NULL};
static const char *const discard_modes[] = {"unmap", "ignore", NULL};

static const struct opt_desc zeroes_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the device below"},
    {.name = "detect",
     .type = OPT_ENUM,
     .choices = detect_modes,
     .preset = "off",
     .help = "whether writes of zeroes become zeroes that take no space, or give it back"},
    {.name = "discard",
     .type = OPT_ENUM,
     .choices = discard_modes,
     .preset = "unmap",
     .help = "whether discards go down"},
    {0},
};

/* A write has to be looked at where its zeroes count. */
static bool zeroes_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                           struct blk_place *out)
{
    const struct zeroes *z = dev->state;
    *out = (struct blk_place){.child = z->child, .offset = offset, .bytes = bytes};
    return !write || z->detect == DETECT_OFF;
}

static int co_zeroes_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                           unsigned flags)
{
    const struct zeroes *z = dev->state;
    unsigned zero_flags = (flags & BLK_FUA) | (z->detect == DETECT_UNMAP ? BLK_MAY_UNMAP : 0);
    if (z->detect == DETECT_OFF || flags & BLK_COMPRESSED || !vec_is_zero(from))
        return co_blk_write(z->child, offset, from, flags);
    return co_blk_write_zeroes(z->child, offset, from->bytes, zero_flags);
}

static int co_zeroes_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    const struct zeroes *z = dev->state;
    return z->keeps ? 0 : co_blk_discard(z->child, offset, bytes);
}

static int co_zeroes_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    const struct zeroes *z = dev->state;
    return co_blk_resize(z->child, size, shrink, e);
}

static int co_zeroes_bitmap_list(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                                 struct blk_error *e)
{
    const struct zeroes *z = dev->state;
    return co_blk_bitmap_list(z->child, out, count, e);
}

static int co_zeroes_bitmap_change(struct blk_device *dev, const struct blk_bitmap_change *c,
                                   struct blk_error *e)
{
    const struct zeroes *z = dev->state;
    struct blk_bitmap_change below = *c;
    if (below.source == dev)
        below.source = z->child;
    return co_blk_bitmap_change(z->child, &below, e);
}

static int co_zeroes_bitmap_read(struct blk_device *dev, const char *name, uint64_t offset,
                                 uint64_t bytes, struct blk_bitmap_extent *out, struct blk_error *e)
{
    const struct zeroes *z = dev->state;
    return co_blk_bitmap_read(z->child, name, offset, bytes, out, e);
}

static int co_zeroes_open(struct blk_device *dev, const struct opts *opts,
                          struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *child;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    struct zeroes *z = mem_zalloc(sizeof(*z));
    if (!z)
        return err_set(e, -ENOMEM, "out of memory");
    *z = (struct zeroes){.child = child,
                         .detect = (enum detect)opts_number(opts, "detect"),
                         .keeps = opts_number(opts, "discard") != 0};
    dev->state = z;
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    if (z->keeps)
        dev->limits.discard_reads_zero = false;
    return 0;
}

static int co_zeroes_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

const struct blk_driver zeroes_driver = {
    .name = "zeroes",
    .title = "finds zeroes in what is written, or drops discards",
    .is_filter = true,
    .is_layer = true,
    .stays_put = true,
    .handles_fua = true,
    .open_options = zeroes_options,
    .co_open = co_zeroes_open,
    .co_close = co_zeroes_close,
    .co_write = co_zeroes_write,
    .co_discard = co_zeroes_discard,
    .resolve = zeroes_resolve,
    .co_resize = co_zeroes_resize,
    .co_bitmap_list = co_zeroes_bitmap_list,
    .co_bitmap_change = co_zeroes_bitmap_change,
    .co_bitmap_read = co_zeroes_bitmap_read,
};

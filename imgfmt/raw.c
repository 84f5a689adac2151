/* SPDX-License-Identifier: BSD-3-Clause */
/* raw.c - a disk as it is: byte n of the disk is byte n of the file (from @offset on).
 *
 * resolve does it all but for one thing: where nobody said raw, but a probe found no other format,
 * a guest could write another format's header into its first sector and be opened as that the next
 * time, with references to any file. Such a write is refused with -EPERM (QEMU does the same). */
#include "imgfmt/raw.h"

#define GUARDED_BYTES 512

struct raw {
    struct blk_device *file;
    uint64_t offset;
    bool cut;    /* a size was given: the disk ends before its file, and cannot be resized */
    bool probed; /* nobody said raw */
};

/* --- data ------------------------------------------------------------------------------------- */

static bool raw_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                        struct blk_place *out)
{
    const struct raw *r = dev->state;
    if (write && r->probed && offset < GUARDED_BYTES)
        return false;
    *out = (struct blk_place){.child = r->file, .offset = r->offset + offset, .bytes = bytes};
    return true;
}

/* True if the first sector, once @from is written at @offset, would be taken for another format. */
static int makes_header(struct raw *r, uint64_t disk_bytes, uint64_t offset, const struct vec *from)
{
    uint8_t head[GUARDED_BYTES] = {0};
    uint64_t bytes = MIN(disk_bytes, GUARDED_BYTES);
    uint64_t part = MIN(from->bytes, bytes - offset);
    TRY(co_blk_read_buf(r->file, r->offset, head, bytes));
    struct vec first = vec_slice(from, 0, part);
    vec_to_buf(&first, head + offset);
    struct blk_probe p = {
        .head = head, .head_bytes = bytes, .size = disk_bytes, .name = "", .as_qemu = true};
    for (const struct blk_driver *const *d = blk_drivers; *d; d++) {
        const char *reason;
        if (*d != &raw_driver && (*d)->probe && (*d)->probe(&p, &reason) > 0)
            return 1;
    }
    return 0;
}

static int co_raw_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct raw *r = dev->state;
    if (r->probed && offset < GUARDED_BYTES) {
        int rc = makes_header(r, dev->size, offset, from);
        if (rc != 0)
            return rc < 0 ? rc : -EPERM;
    }
    return co_blk_write(r->file, r->offset + offset, from, flags);
}

static int co_raw_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    struct raw *r = dev->state;
    if (r->probed && offset < GUARDED_BYTES)
        return -ENOTSUP; /* the bytes must be seen */
    return co_blk_copy_from(r->file, r->offset + offset, from);
}

/* --- open, resize ----------------------------------------------------------------------------- */

static const struct opt_desc raw_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the disk lies in"},
    {.name = "offset", .type = OPT_SIZE, .preset = "0", .help = "where the disk begins"},
    {.name = "size", .type = OPT_SIZE, .help = "its length (default: to the end)"},
    {0},
};

static int co_raw_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    uint64_t offset = opts_number(opts, "offset");
    bool cut = opts_given(opts, "size");
    uint64_t size = cut ? opts_number(opts, "size") : file->size - MIN(offset, file->size);
    if (!range_fits(offset, size, file->size))
        return err_set(e, -EINVAL,
                       "offset (%" PRIu64 ") and size (%" PRIu64
                       ") reach past the end of the file (%" PRIu64 " bytes)",
                       offset, size, file->size);
    struct raw *r = mem_zalloc(sizeof(*r));
    if (!r)
        return err_set(e, -ENOMEM, "out of memory");
    *r = (struct raw){.file = file,
                      .offset = offset,
                      .cut = cut,
                      .probed = json_is_true(json_object_get(opts->tree, "x-lamina-probed"))};
    dev->state = r;
    dev->size = size;
    blk_inherit_limits(dev, file);
    return 0;
}

static int co_raw_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

static int co_raw_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct raw *r = dev->state;
    uint64_t end;
    if (r->cut)
        return err_set(e, -ENOTSUP, "a raw disk that was opened with a size cannot be resized");
    if (!add_u64(r->offset, size, &end))
        return err_set(e, -EFBIG, "%" PRIu64 " bytes are more than any file can hold", size);
    return co_blk_resize(r->file, end, shrink, e);
}

/* --- create, probe ---------------------------------------------------------------------------- */

enum preallocation { PREALLOC_OFF, PREALLOC_FALLOC, PREALLOC_FULL };
static const char *const preallocation_modes[] = {"off", "falloc", "full", NULL};

static const struct opt_desc raw_create_options[] = {
    {.name = "size", .type = OPT_SIZE, .help = "Virtual disk size"},
    {.name = "preallocation",
     .type = OPT_ENUM,
     .choices = preallocation_modes,
     .preset = "off",
     .help = "Preallocation mode (allowed values: off, falloc, full)"},
    {0},
};

static int write_all(struct blk_device *file, uint64_t size, struct blk_error *e)
{
    const uint64_t most = 1 * MiB;
    auto_free void *zeroes = mem_zalloc(most);
    if (!zeroes)
        return err_set(e, -ENOMEM, "out of memory");
    for (uint64_t at = 0; at < size; at += most) {
        int rc = co_blk_write_buf(file, at, zeroes, MIN(most, size - at), 0);
        if (rc < 0)
            return err_errno(e, rc, "Could not write zeroes for preallocation");
    }
    return 0;
}

static int co_raw_create(const struct blk_create *c, struct blk_error *e)
{
    uint64_t mode = opts_number(c->opts, "preallocation");
    if (c->file->limits.growable || c->file->size < c->size)
        TRY(co_blk_resize(c->file, c->size, true, e));
    if (mode == PREALLOC_FULL)
        return write_all(c->file, c->size, e);
    if (mode == PREALLOC_FALLOC && c->size > 0) {
        int rc =
            c->file->file ? co_host_fallocate(c->file->file, HOST_ALLOCATE, 0, c->size) : -ENOTSUP;
        if (rc < 0)
            return err_errno(e, rc, "Could not preallocate data for the new file");
    }
    return 0;
}

/* Holes count: a raw image is as long as its disk. */
static int co_raw_measure(struct blk_measure *m, struct blk_error *e)
{
    (void)e;
    m->required = m->fully_allocated = m->source ? m->size : align_up(m->size, 512);
    return 0;
}

static int raw_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "no format is known by what it holds";
    return 1;
}

const struct blk_driver raw_driver = {
    .name = "raw",
    .title = "a disk as it is, byte for byte",
    .extensions = "raw img",
    .is_format = true,
    .is_plain = true,
    .is_filter = true,
    .stays_put = true,
    .open_options = raw_options,
    .create_options = raw_create_options,
    .probe = raw_probe,
    .co_create = co_raw_create,
    .co_measure = co_raw_measure,
    .co_open = co_raw_open,
    .co_close = co_raw_close,
    .co_write = co_raw_write,
    .resolve = raw_resolve,
    .co_copy = co_raw_copy,
    .co_resize = co_raw_resize,
};

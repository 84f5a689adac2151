/* SPDX-License-Identifier: BSD-3-Clause */
/* pipe_spool.c - the file of an image that goes to a pipe: what was written lies in a nameless
 * file, what was copied is a list of references, 32 bytes for each run that lies together. */
#include "tools/pipe.h"

/* What was copied: bytes of another file that stays as it is until all is written out. */
struct reference {
    uint64_t offset, bytes;
    struct host_file *file;
    uint64_t at; /* in file */
};

struct spool {
    struct host_file *file; /* what was written */
    struct reference *list; /* by offset; they do not overlap */
    size_t count, room;
};

/* The first reference that ends behind @offset. */
static size_t find(const struct spool *s, uint64_t offset)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->list[middle].offset + s->list[middle].bytes > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int make_room(struct spool *s, size_t more)
{
    if (s->room - s->count >= more)
        return 0;
    size_t room = s->room * 2 + 64;
    struct reference *grown = mem_resize(s->list, room * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    s->list = grown;
    s->room = room;
    return 0;
}

static void insert(struct spool *s, size_t i, struct reference r)
{
    assert(s->count < s->room);
    memmove(&s->list[i + 1], &s->list[i], (s->count - i) * sizeof(r));
    s->list[i] = r;
    s->count++;
}

/* The part of @r from @offset on. */
static struct reference rest_of(struct reference r, uint64_t offset)
{
    uint64_t skip = offset - r.offset;
    return (struct reference){offset, r.bytes - skip, r.file, r.at + skip};
}

/* Nothing refers to [offset, end) any more. */
static int forget(struct spool *s, uint64_t offset, uint64_t end)
{
    TRY(make_room(s, 2)); /* a reference may fall into two */
    size_t i = find(s, offset);
    while (i < s->count && s->list[i].offset < end) {
        struct reference *r = &s->list[i], old = *r;
        uint64_t old_end = old.offset + old.bytes;
        if (old.offset < offset) {
            r->bytes = offset - old.offset;
            i++;
        } else {
            memmove(r, r + 1, (--s->count - i) * sizeof(*r));
        }
        if (old_end > end)
            insert(s, i++, rest_of(old, end));
    }
    return 0;
}

static int co_spool_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                          unsigned flags)
{
    struct spool *s = dev->state;
    TRY(forget(s, offset, offset + from->bytes));
    return co_host_write(s->file, offset, from);
}

static int co_spool_zero(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct spool *s = dev->state;
    TRY(forget(s, offset, offset + bytes));
    return co_host_fallocate(s->file, HOST_PUNCH, offset, bytes);
}

static int co_spool_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    struct spool *s = dev->state;
    struct reference now = {offset, from->bytes, from->file, from->offset};
    if (from->file == s->file)
        return -ENOTSUP;
    TRY(forget(s, offset, offset + from->bytes));
    size_t i = find(s, offset);
    struct reference *last = i > 0 ? &s->list[i - 1] : NULL;
    if (last && last->offset + last->bytes == offset && last->file == now.file &&
        last->at + last->bytes == now.at)
        last->bytes += now.bytes;
    else
        insert(s, i, now);
    return 0;
}

/* What lies behind the end of a file is zero. */
static int co_from_file(struct host_file *f, uint64_t offset, const struct vec *to)
{
    int64_t got = co_host_read(f, offset, to);
    if (got < 0)
        return (int)got;
    struct vec rest = vec_slice(to, (uint64_t)got, to->bytes - (uint64_t)got);
    vec_fill(&rest, 0);
    return 0;
}

static int co_spool_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct spool *s = dev->state;
    for (uint64_t at = 0, n; at < to->bytes; at += n) {
        uint64_t here = offset + at;
        size_t i = find(s, here);
        n = to->bytes - at;
        struct reference r = i < s->count ? s->list[i] : (struct reference){.offset = UINT64_MAX};
        bool inside = r.offset <= here;
        n = MIN(n, inside ? r.offset + r.bytes - here : r.offset - here);
        struct vec piece = vec_slice(to, at, n);
        TRY(inside ? co_from_file(r.file, r.at + (here - r.offset), &piece)
                   : co_from_file(s->file, here, &piece));
    }
    return 0;
}

static int co_spool_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct spool *s = dev->state;
    int rc = forget(s, size, UINT64_MAX);
    if (rc == 0)
        rc = co_host_truncate(s->file, size);
    return rc < 0 ? err_errno(e, rc, "the temporary file cannot be resized") : 0;
}

static int co_spool_flush(struct blk_device *dev)
{
    return 0;
}

static int co_spool_close(struct blk_device *dev, struct blk_error *e)
{
    struct spool *s = dev->state;
    if (s->file)
        co_host_close(s->file);
    mem_free(s->list);
    mem_free(s);
    return 0;
}

static int co_spool_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    dev->state = mem_zalloc(sizeof(struct spool));
    if (!dev->state)
        return err_set(e, -ENOMEM, "out of memory");
    dev->limits.growable = dev->limits.fresh_reads_zero = dev->limits.discard_reads_zero = true;
    dev->limits.can_zero_fast = dev->limits.can_unmap = true;
    return 0;
}

static const struct blk_driver spool_driver = {
    .name = "spool",
    .title = "an image on its way into a pipe",
    .handles_fua = true,
    .co_open = co_spool_open,
    .co_close = co_spool_close,
    .co_read = co_spool_read,
    .co_write = co_spool_write,
    .co_write_zeroes = co_spool_zero,
    .co_copy = co_spool_copy,
    .co_flush = co_spool_flush,
    .co_resize = co_spool_resize,
};

int co_pipe_spool(struct tool *t, struct blk_device **out, struct blk_error *e)
{
    struct host_file *file;
    TRY(co_pipe_temporary(t, &file, e));
    int rc = co_blk_open(&spool_driver, "-", NULL, BLK_OPEN_WRITE, NULL, NULL, 0, out, e);
    if (rc < 0)
        co_host_close(file);
    else
        ((struct spool *)(*out)->state)->file = file;
    return rc;
}

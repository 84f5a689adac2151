/* SPDX-License-Identifier: BSD-3-Clause */
/* file.c - the driver at the bottom: regular files and block devices of the host.
 *
 * Plain extents never come here: resolve answers the host file and the waist does the I/O. What
 * comes here is what needs a rule:
 *
 * F1  A failed fsync is for ever: the kernel may have dropped what it could not write, so every
 * later flush of this device answers the same error until the device is opened anew. F2  Flushes
 * that wait together share one fsync; none is answered by an fsync that began before it. F3  The
 * file is cut or grown only where no write can be under way behind (the waist holds that). F4
 * Nothing is truncated before the locks are held. F5  A cached hole is believed only while nobody
 * can write: writes in place do not pass here. */
#include "block/file.h"
#include "block/resolver.h"

struct file {
    struct host_file *host;
    char *path, *beneath; /* for reopening */
    enum file_locking locking;
    bool direct;  /* past the page cache */
    bool through; /* every write is durable when it returns */
    bool unsafe;  /* flushes are ignored */
    bool ignore_discard;
    bool no_zero, no_punch; /* the file system said so */
    /* F1, F2 */
    int failed;
    bool flushing;
    uint64_t asked, done; /* flushes asked for, and how many of them are covered */
    struct co_queue flushed;
    /* the last extent that map saw */
    uint64_t extent_from, extent_end;
    bool extent_data;
    struct retired *retired; /* to be closed */
    bool closing;            /* a coroutine does */
    struct co_queue closed;
};

/* --- open, close ------------------------------------------------------------------------------ */

static const char *const cache_modes[] = {"writeback",    "none",   "directsync",
                                          "writethrough", "unsafe", NULL};
enum { CACHE_WRITEBACK, CACHE_NONE, CACHE_DIRECTSYNC, CACHE_WRITETHROUGH, CACHE_UNSAFE };
static const char *const aio_modes[] = {"threads", "native", "io_uring", NULL};
static const char *const locking_modes[] = {"on", "off", "auto", NULL};
static const char *const discard_modes[] = {"unmap", "ignore", "on", "off", NULL};
enum { DISCARD_UNMAP, DISCARD_IGNORE, DISCARD_ON, DISCARD_OFF };

static const struct opt_desc file_options[] = {
    {.name = "filename", .type = OPT_STRING, .help = "the file's path", .required = true},
    {.name = "cache",
     .type = OPT_ENUM,
     .choices = cache_modes,
     .preset = "writeback",
     .help = "none and directsync pass the page cache by, directsync and writethrough make every "
             "write durable, unsafe ignores flushes"},
    {.name = "aio",
     .type = OPT_ENUM,
     .choices = aio_modes,
     .help = "accepted; the way of doing I/O is chosen for the whole program"},
    {.name = "locking",
     .type = OPT_ENUM,
     .choices = locking_modes,
     .preset = "auto",
     .help = "byte locks that exclude running machines"},
    {.name = "discard",
     .type = OPT_ENUM,
     .choices = discard_modes,
     .preset = "unmap",
     .help = "whether discards give space back"},
    {0},
};

static const char *tree_text(const struct opts *opts, const char *key)
{
    return json_string_value(json_object_get(opts->tree, key));
}

static int no_disk(const struct blk_device *dev, enum host_file_type type, int rc,
                   struct blk_error *e)
{
    err_set(e, rc, "Could not open '%s': it is neither a regular file nor a block device",
            dev->name);
    if (type == HOST_FILE_DIRECTORY)
        blk_next(e, "FILE is a folder: `lamina tree FILE` shows what the images in it hold",
                 dev->name);
    return rc;
}

/* Opening said no: finds the words that help. */
static int open_error(struct blk_device *dev, const struct file *f, unsigned flags, int rc,
                      struct blk_error *e)
{
    struct host_stat st;
    const char *path = f->beneath ? dev->name : f->path; /* the name starts where we do */
    if (rc == -EINVAL && co_host_stat(dev->host, path, &st) == 0) {
        if (st.type != HOST_FILE_REGULAR && st.type != HOST_FILE_BLOCK)
            return no_disk(dev, st.type, rc, e);
        if (flags & HOST_DIRECT)
            return err_set(e, rc,
                           "Could not open '%s': its file system has no direct I/O; use "
                           "cache=writeback",
                           dev->name);
    }
    if (rc == -EXDEV)
        return err_set(e, rc, "Could not open '%s': it lies outside of %s", dev->name, f->beneath);
    return err_errno(e, rc, "Could not open '%s'", dev->name);
}

/* Opens and locks. @keep: creation flags of this one time. */
static int open_host(struct blk_device *dev, struct file *f, bool write, unsigned keep,
                     struct host_file **out, struct blk_error *e)
{
    unsigned flags = HOST_READ | HOST_REGULAR_OR_BLOCK | (write ? HOST_WRITE : 0) |
                     (f->direct ? HOST_DIRECT : 0);
    unsigned create = keep & (HOST_CREATE | HOST_EXCLUSIVE);
    struct host_file *host;
    int rc = co_host_open(dev->host, f->path, f->beneath, flags | create, &host);
    if (rc < 0)
        return open_error(dev, f, flags, rc, e);
    if (!(dev->open_flags & BLK_OPEN_FORCE_SHARE) || write)
        rc = co_file_lock(host, dev->name, (struct file_claim){.write = write}, f->locking, e);
    if (rc == 0 && (keep & HOST_TRUNCATE) && host->stat.type == HOST_FILE_REGULAR) { /* F4 */
        rc = co_host_truncate(host, 0);
        if (rc == 0)
            rc = co_host_fstat(host, &host->stat);
        if (rc < 0)
            err_errno(e, rc, "%s cannot be emptied", dev->name);
    }
    if (rc < 0) {
        co_host_close(host);
        return rc;
    }
    *out = host;
    return 0;
}

static void file_limits(struct blk_device *dev, const struct file *f)
{
    const struct host_stat *st = &f->host->stat;
    bool regular = st->type == HOST_FILE_REGULAR;
    dev->file = f->host;
    dev->size = st->size;
    dev->limits.request_align = f->direct ? MAX(st->request_align, 1u) : 1;
    dev->limits.memory_align = f->direct ? MAX(st->memory_align, 1u) : 1;
    dev->limits.zero_align = regular ? 1 : 4096; /* devices zero and discard whole sectors only */
    dev->limits.discard_granularity = regular ? 1 : 4096;
    dev->limits.fresh_reads_zero = regular;
    dev->limits.discard_reads_zero = regular && !f->ignore_discard;
    dev->limits.can_zero_fast = true;
    dev->limits.can_unmap = !f->ignore_discard;
    dev->limits.growable = regular;
}

static int read_options(struct blk_device *dev, struct file *f, const struct opts *opts)
{
    uint64_t cache = opts_number(opts, "cache");
    const char *beneath = tree_text(opts, "x-lamina-beneath");
    const char *called = tree_text(opts, "x-lamina-name");
    f->direct = cache == CACHE_NONE || cache == CACHE_DIRECTSYNC;
    f->through = cache == CACHE_WRITETHROUGH || cache == CACHE_DIRECTSYNC;
    f->unsafe = cache == CACHE_UNSAFE;
    f->locking = (enum file_locking)opts_number(opts, "locking");
    uint64_t discard = opts_number(opts, "discard");
    f->ignore_discard = discard == DISCARD_IGNORE || discard == DISCARD_OFF;
    f->path = mem_strdup(opts_text(opts, "filename"));
    f->beneath = beneath ? mem_strdup(beneath) : NULL;
    if (!f->path || (beneath && !f->beneath))
        return -ENOMEM;
    if (called || !dev->name[0]) {
        char *name = mem_strdup(called ? called : f->path);
        if (!name)
            return -ENOMEM;
        mem_free(dev->name);
        dev->name = name;
    }
    return 0;
}

static void file_free(struct file *f)
{
    mem_free(f->path);
    mem_free(f->beneath);
    mem_free(f);
}

static int co_file_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct file *f = mem_zalloc(sizeof(*f));
    if (!f)
        return err_set(e, -ENOMEM, "out of memory");
    unsigned create = (unsigned)json_integer_value(json_object_get(opts->tree, "x-lamina-create"));
    int rc = read_options(dev, f, opts);
    if (rc < 0)
        err_set(e, rc, "out of memory");
    else
        rc = open_host(dev, f, dev->writable, create, &f->host, e);
    if (rc < 0) {
        file_free(f);
        return rc;
    }
    dev->state = f;
    file_limits(dev, f);
    return 0;
}

/* A descriptor that is not used any more, but for what was resolved to it and is still going on. */
struct retired {
    struct retired *next;
    struct host_file *host;
};

static void co_close_retired(void *arg)
{
    struct blk_device *dev = arg;
    struct file *f = dev->state;
    while (f->retired) {
        struct retired *r = take(f->retired); /* those that come now need a grace of their own */
        co_blk_quiesce(dev);
        while (r) {
            struct retired *next = r->next;
            co_host_close(r->host);
            mem_free(r);
            r = next;
        }
    }
    f->closing = false;
    co_queue_wake_all(&f->closed);
}

/* Not waited for: who waits for a device that the caller holds would never end. */
static void retire(struct blk_device *dev, struct retired *r, struct host_file *host)
{
    struct file *f = dev->state;
    *r = (struct retired){.next = f->retired, .host = host};
    f->retired = r;
    if (!f->closing) {
        f->closing = true;
        if (co_start(co_close_retired, dev) < 0)
            f->closing = false; /* next time, or when the device is closed */
    }
}

static int co_file_close(struct blk_device *dev, struct blk_error *e)
{
    struct file *f = dev->state;
    while (f->closing)
        co_queue_wait(&f->closed);
    if (f->retired)
        co_close_retired(dev);
    file_unlock(f->host); /* the kernel may hold the description a little longer than we do */
    co_host_close(f->host);
    file_free(f);
    return 0;
}

/* The locks of the old descriptor would stand in the way of the new one's. */
static int co_file_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    struct file *f = dev->state;
    struct host_file *host;
    struct file_claim old = {.write = dev->writable};
    struct retired *before = mem_alloc(sizeof(*before));
    if (!before)
        return err_set(e, -ENOMEM, "out of memory");
    file_unlock(f->host);
    int rc = open_host(dev, f, write, 0, &host, e);
    if (rc == 0 &&
        (host->stat.device != f->host->stat.device || host->stat.inode != f->host->stat.inode)) {
        rc = err_set(e, -ESTALE, "%s has been replaced by another file since it was opened",
                     dev->name);
        co_host_close(host);
    }
    if (rc < 0) {
        struct blk_error ignored;
        int again = co_file_lock(f->host, dev->name, old, f->locking, &ignored);
        (void)again; /* whoever came in between keeps it; we say why we failed */
        mem_free(before);
        return rc;
    }
    struct host_file *was = f->host;
    f->host = dev->file = host; /* who resolves from here on gets this one */
    f->extent_end = 0;
    retire(dev, before, was);
    return 0;
}

/* One layer's name for it, where that was the file's. */
static int take_name(struct blk_device *dev, const char *old, const char *path)
{
    if (strcmp(dev->name, old) != 0)
        return 0;
    char *name = mem_strdup(path);
    if (!name)
        return -ENOMEM;
    mem_free(dev->name);
    dev->name = name;
    return 0;
}

int blk_file_renamed(struct blk_device *dev, const char *path)
{
    struct blk_device *bottom = dev;
    while (bottom && bottom->driver != &file_driver)
        bottom = blk_child(bottom, "file");
    if (!bottom)
        return 0;
    struct file *f = bottom->state;
    auto_free char *old = mem_strdup(bottom->name);
    char *copy = mem_strdup(path);
    int rc = old && copy ? 0 : -ENOMEM;
    for (struct blk_device *at = dev; rc == 0 && at; at = blk_child(at, "file"))
        rc = take_name(at, old, path);
    if (rc < 0) {
        mem_free(copy);
        return rc;
    }
    mem_free(f->path);
    f->path = copy;
    mem_free(take(f->beneath));
    return 0;
}

/* --- read, write, flush ----------------------------------------------------------------------- */

static int co_file_flush(struct blk_device *dev)
{
    struct file *f = dev->state;
    if (f->unsafe)
        return 0;
    uint64_t mine = ++f->asked;
    while (f->failed == 0 && f->done < mine) {
        if (f->flushing) { /* F2: it began before us */
            co_queue_wait(&f->flushed);
            continue;
        }
        f->flushing = true;
        uint64_t covers = f->asked;
        int rc = co_host_fsync(f->host);
        f->flushing = false;
        if (rc < 0)
            f->failed = rc; /* F1 */
        else
            f->done = covers;
        co_queue_wake_all(&f->flushed);
    }
    return f->failed;
}

static int file_settle(struct blk_device *dev, unsigned flags)
{
    const struct file *f = dev->state;
    return (flags & BLK_FUA) || f->through ? co_file_flush(dev) : 0;
}

static int co_file_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct file *f = dev->state;
    int64_t got = co_host_read(f->host, offset, to);
    if (got < 0)
        return (int)got;
    struct vec rest = vec_slice(to, (uint64_t)got, to->bytes - (uint64_t)got);
    vec_fill(&rest, 0);
    return 0;
}

static int co_file_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                         unsigned flags)
{
    struct file *f = dev->state;
    TRY(co_host_write(f->host, offset, from));
    return file_settle(dev, flags);
}

static bool file_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                         struct blk_place *out)
{
    const struct file *f = dev->state;
    if (write && (f->through || !dev->writable || dev->limits.request_align > 1))
        return false;
    *out = (struct blk_place){.file = f->host, .offset = offset, .bytes = bytes};
    return true;
}

/* --- zeroes, discard, size -------------------------------------------------------------------- */

static int co_punch(struct file *f, uint64_t offset, uint64_t bytes)
{
    if (f->no_punch || f->host->stat.type != HOST_FILE_REGULAR) /* of devices: contents unknown */
        return -ENOTSUP;
    int rc = co_host_fallocate(f->host, HOST_PUNCH, offset, bytes);
    f->no_punch = rc == -ENOTSUP;
    return rc;
}

static int co_zero(struct file *f, uint64_t offset, uint64_t bytes)
{
    if (f->no_zero)
        return -ENOTSUP;
    int rc = co_host_fallocate(f->host, HOST_ZERO, offset, bytes);
    f->no_zero = rc == -ENOTSUP;
    return rc;
}

/* Inside the file. tmpfs knows only holes: dig one, then fill it with space again. */
static int zero_inside(struct file *f, uint64_t offset, uint64_t bytes, bool unmap)
{
    int rc = unmap ? co_punch(f, offset, bytes) : co_zero(f, offset, bytes);
    if (rc != -ENOTSUP)
        return rc;
    if (unmap)
        return co_zero(f, offset, bytes);
    rc = co_punch(f, offset, bytes);
    if (rc == 0)
        rc = co_host_fallocate(f->host, HOST_ALLOCATE, offset, bytes);
    return rc;
}

static int co_file_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                unsigned flags)
{
    struct file *f = dev->state;
    uint64_t end = offset + bytes;
    f->extent_end = 0;
    if (offset < dev->size) {
        int rc =
            zero_inside(f, offset, MIN(bytes, dev->size - offset), (flags & BLK_MAY_UNMAP) != 0);
        dev->limits.can_zero_fast = rc != -ENOTSUP;
        TRY(rc);
    }
    if (end > dev->size)
        TRY(co_host_truncate(f->host, end)); /* F3 */
    return file_settle(dev, flags);
}

static int co_file_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct file *f = dev->state;
    if (f->ignore_discard)
        return 0;
    f->extent_end = 0;
    if (f->host->stat.type == HOST_FILE_BLOCK)
        return co_host_fallocate(f->host, HOST_PUNCH, offset, bytes);
    return co_punch(f, offset, bytes);
}

static int co_file_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct file *f = dev->state;
    if (f->host->stat.type != HOST_FILE_REGULAR)
        return size == dev->size
                   ? 0
                   : err_set(e, -ENOTSUP,
                             "%s is a device of %" PRIu64 " bytes and cannot be resized here",
                             dev->name, dev->size);
    f->extent_end = 0;
    int rc = co_host_truncate(f->host, size);
    return rc < 0 ? err_errno(e, rc, "%s cannot be resized to %" PRIu64 " bytes", dev->name, size)
                  : 0;
}

/* --- map, copy, info -------------------------------------------------------------------------- */

static int co_file_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                       struct blk_extent *out)
{
    struct file *f = dev->state;
    if (offset < f->extent_from || offset >= f->extent_end || (dev->writable && !f->extent_data)) {
        bool data = true;
        uint64_t end = dev->size;
        int rc = co_host_extent(f->host, offset, &data, &end);
        if (rc < 0 || end <= offset) /* cannot say: it must be read */
            data = true, end = offset + bytes;
        f->extent_from = offset;
        f->extent_end = end;
        f->extent_data = data;
    }
    *out = (struct blk_extent){.bytes = MIN(bytes, f->extent_end - offset),
                               .flags = BLK_EXT_ALLOCATED | BLK_EXT_PLACED |
                                        (f->extent_data ? BLK_EXT_DATA : BLK_EXT_ZERO),
                               .child = dev,
                               .child_offset = offset};
    return 0;
}

static int co_file_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    struct file *f = dev->state;
    for (uint64_t at = 0; at < from->bytes;) {
        int64_t done =
            co_host_copy(from->file, from->offset + at, f->host, offset + at, from->bytes - at);
        if (done == 0) /* the source ended before its size says */
            return -EIO;
        if (at == 0 && (done == -EXDEV || done == -EINVAL || done == -ENOSYS))
            return -ENOTSUP;
        if (done < 0)
            return (int)done;
        at += (uint64_t)done;
    }
    return file_settle(dev, 0);
}

static int co_file_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct file *f = dev->state;
    struct host_stat st;
    if (co_host_fstat(f->host, &st) == 0)
        out->actual_size = st.type == HOST_FILE_BLOCK ? 0 : st.allocated; /* as QEMU says */
    return 0;
}

const struct blk_driver file_driver = {
    .name = "file",
    .title = "regular files and block devices of the host",
    .handles_fua = true,
    .stays_put = true,
    .open_options = file_options,
    .co_open = co_file_open,
    .co_close = co_file_close,
    .co_reopen = co_file_reopen,
    .co_read = co_file_read,
    .co_write = co_file_write,
    .co_write_zeroes = co_file_write_zeroes,
    .co_discard = co_file_discard,
    .co_flush = co_file_flush,
    .resolve = file_resolve,
    .co_map = co_file_map,
    .co_copy = co_file_copy,
    .co_resize = co_file_resize,
    .co_info = co_file_info,
};

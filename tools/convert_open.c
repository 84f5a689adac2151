/* SPDX-License-Identifier: BSD-3-Clause */
/* convert_open.c - opening the sources and making or opening the target; and the end of both. */
#include <libgen.h>

#include "tools/convert.h"

#define SECTOR   512
#define MAX_UNIT (2 * MiB) /* larger clusters are not gathered whole */

static int co_open_sources(struct convert *c)
{
    struct tool *t = c->make.tool;
    c->sources = mem_array(c->count, sizeof(*c->sources));
    if (!c->sources)
        return err_set(&c->task.error, -ENOMEM, "out of memory");
    for (size_t i = 0; i < c->count; i++) {
        struct convert_source *s = &c->sources[i];
        struct image image = {.text = c->names[i],
                              .format = c->format,
                              .image_opts = c->image_opts,
                              .cache = c->source_cache,
                              .deny_writers = true,
                              .trust = TRUST_READ};
        TRY(co_image_open(t, &image, &s->dev, &c->task.error));
        s->bytes = s->dev->size;
        if (c->with_bitmaps)
            c->bitmap_source = blk_ref(s->dev);
        if (c->snapshot)
            TRY(co_image_snapshot(t, c->snapshot, &s->dev, &c->task.error));
        if (t->face == FACE_LAMINA) /* QEMU shows a snapshot as large as the disk is now */
            s->bytes = s->dev->size;
        s->start = c->size;
        /* QEMU counts in sectors, and so must what stands behind an odd file. */
        bool odd = t->face != FACE_LAMINA || i + 1 < c->count;
        uint64_t size = odd ? align_up(s->bytes, SECTOR) : s->bytes;
        if (!add_u64(c->size, size, &c->size) || c->size > INT64_MAX)
            return err_set(&c->task.error, -EFBIG, "the sources together are too large");
    }
    return 0;
}

/* The backing image of a target with -B: it must be there; its format is written down. */
static int co_look_at_backing(struct convert *c)
{
    struct blk_device *dev;
    const char *slash = strrchr(c->make.name, '/');
    bool beside = slash && c->backing[0] != '/';
    auto_free char *path = mem_printf("%.*s%s", beside ? (int)(slash - c->make.name + 1) : 0,
                                      c->make.name, c->backing);
    if (!path)
        return err_set(&c->task.error, -ENOMEM, "out of memory");
    struct image i = {.text = path, .format = c->backing_format, .trust = TRUST_READ};
    TRY(co_image_open(c->make.tool, &i, &dev, &c->task.error));
    const char *format = dev->driver->name;
    TRY(co_image_close(dev, 0, &c->task.error));
    if (json_object_set_new(c->make.options, "backing_file", json_string(c->backing)) < 0 ||
        json_object_set_new(c->make.options, "backing_fmt", json_string(format)) < 0)
        return err_set(&c->task.error, -ENOMEM, "out of memory");
    return 0;
}

static int face_prefix(struct convert *c, int rc)
{
    if (rc < 0 && c->make.tool->face != FACE_LAMINA)
        err_prefix(&c->task.error, "%s: error while converting %s", c->make.name,
                   c->make.driver->name);
    return rc;
}

static int co_make_target(struct convert *c)
{
    struct make *m = &c->make;
    if (c->backing)
        TRY(co_look_at_backing(c));
    int rc = make_check_options(m, &c->task.error);
    if (rc < 0)
        return rc == -ENOTSUP ? face_prefix(c, rc) : rc;
    m->size = m->driver->extensions && !m->driver->is_plain ? align_up(c->size, SECTOR) : c->size;
    if (!c->resume.again)
        TRY(face_prefix(c, co_make(m, &c->task.error)));
    return co_make_open(m, 0, &c->target, &c->task.error);
}

static int co_open_target(struct convert *c)
{
    struct image i = {.text = c->make.name,
                      .format = c->target_format,
                      .image_opts = c->target_image_opts,
                      .cache = c->cache,
                      .flags = BLK_OPEN_WRITE,
                      .trust = TRUST_WRITE};
    TRY(co_image_open(c->make.tool, &i, &c->target, &c->task.error));
    if (c->target->size < c->size)
        return err_set(&c->task.error, -ENOSPC, "%s",
                       tool_words(c->make.tool,
                                  "the target is smaller than the source: `lamina resize` it first",
                                  "output file is smaller than input file"));
    if (c->compress && !c->target->driver->compresses)
        return format_no_compression(c->make.tool, c->target->driver, &c->task.error);
    return 0;
}

static bool direct(const struct blk_device *dev)
{
    return dev->limits.request_align > 1;
}

int co_convert_open(struct convert *c)
{
    TRY(co_open_sources(c));
    if (c->with_bitmaps)
        TRY(co_convert_check_bitmaps(c));
    if (c->make.pipe && c->make.driver->is_plain)
        return 0;
    if (c->resume.asked)
        TRY(co_convert_resume_begin(c));
    if (c->resume.ended)
        return 0;
    TRY(c->into ? co_open_target(c) : co_make_target(c));
    if (c->resume.asked)
        TRY(co_convert_resume_made(c));
    if (c->with_bitmaps)
        TRY(co_convert_check_target(c));
    const struct blk_device *t = c->target;
    if (c->compress && t->limits.never_compressed)
        return err_set(&c->task.error, -ENOTSUP,
                       "compression and an external data file cannot be used at the same time");
    bool fresh = !c->into && t->limits.fresh_reads_zero;
    c->target_reads_zero = (fresh || c->target_is_zero) && !blk_child(t, "backing");
    if (!c->into && t->size > c->size && !c->target_reads_zero) { /* an odd size was rounded up */
        int rc = co_blk_write_zeroes(c->target, c->size, t->size - c->size, 0);
        if (rc < 0)
            return err_errno(&c->task.error, rc, "cannot write the end of %s", c->make.name);
    }
    c->unit = MAX(t->limits.cluster_size, 1u);
    if (c->unit > MAX_UNIT || !is_pow2(c->unit))
        c->unit = 1;
    c->read_always = c->compress || c->sparse_told || c->salvage || direct(t);
    for (size_t i = 0; i < c->count; i++)
        c->read_always |= direct(c->sources[i].dev);
    return 0;
}

/* A directory entry is durable when its directory is. */
static int co_sync_name(struct convert *c)
{
    if (!c->sync || !c->make.path)
        return 0;
    auto_free char *copy = mem_strdup(c->make.path);
    if (!copy)
        return err_set(&c->task.error, -ENOMEM, "out of memory");
    int rc = co_host_sync_dir(c->make.tool->host, dirname(copy));
    return rc < 0 ? err_errno(&c->task.error, rc, "the directory of %s cannot be made durable",
                              c->make.name)
                  : 0;
}

int co_convert_close(struct convert *c, int rc)
{
    struct blk_error *e = &c->task.error;
    bool durable = c->sync || (c->cache && strcmp(c->cache, "unsafe") != 0);
    if (rc == 0 && c->target && c->resume.asked)
        rc = co_convert_resume_complete(c);
    if (rc == 0 && c->target && c->make.fresh && !c->into)
        rc = co_blk_complete(c->target, e);
    if (rc == 0 && c->with_bitmaps)
        rc = co_convert_copy_bitmaps(c);
    if (rc == 0 && c->target && durable) {
        rc = co_blk_flush(c->target);
        if (rc < 0)
            err_errno(e, rc, "%s cannot be made durable", c->make.name);
    }
    bool resumes = c->target && c->resume.asked;
    rc = co_image_close(take(c->target), rc, e);
    if (rc == 0 && c->make.spool)
        rc = co_convert_pipe_image(c);
    if (rc == 0 && c->hash.kind)
        rc = co_convert_hash(c);
    if (rc == 0 && resumes)
        rc = co_convert_resume_closed(c);
    if (!c->into && !c->resume.ended)
        rc = co_make_end(&c->make, rc, e);
    if (c->resume.asked)
        rc = co_convert_resume_end(c, rc);
    blk_bitmaps_drop(take(c->bitmaps), c->bitmap_count);
    rc = co_image_close(take(c->bitmap_source), rc, e);
    for (size_t i = 0; c->sources && i < c->count; i++)
        rc = co_image_close(c->sources[i].dev, rc, e);
    mem_free(take(c->sources));
    return rc == 0 ? co_sync_name(c) : rc;
}

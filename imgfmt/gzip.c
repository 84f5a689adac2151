/* SPDX-License-Identifier: BSD-3-Clause */
/* gzip.c - a disk in a .gz file, read only.
 *
 * gzip has no index and knows its length modulo 4 GiB, of the last member only; so the length is
 * found by inflating once, when the file is opened (`info` looks at the first 96 MiB and estimates
 * the rest). That run saves states of the inflater on the way, from which reads go on, several side
 * by side. */
#include "block/endian.h"
#include "imgfmt/stream.h"
#include "imgfmt/unpack.h"

#ifdef HAVE_LIBISAL
#include <isa-l/igzip_lib.h>
#else
#include <zlib.h>
#endif

struct gzip {
    struct stream stream;
};

/* --- the inflater ----------------------------------------------------------------------------- */

#ifdef HAVE_LIBISAL
struct inflater {
    bool in_member;
    struct inflate_state z; /* has no pointers but into the caller's buffers: a copy is a state */
};

static void *gzip_begin(struct stream *s, const struct stream_point *p)
{
    struct inflater *f = mem_alloc(sizeof(*f));
    if (f && p->saved)
        memcpy(f, p->saved, sizeof(*f));
    else if (f)
        f->in_member = false;
    return f;
}

static void gzip_end(void *decoder)
{
    mem_free(decoder);
}

static void *gzip_save(const void *decoder)
{
    struct inflater *copy = mem_alloc(sizeof(*copy));
    if (copy)
        memcpy(copy, decoder, sizeof(*copy));
    return copy;
}

static int begin_member(struct inflater *f)
{
    isal_inflate_init(&f->z);
    f->z.crc_flag = ISAL_GZIP;
    f->in_member = true;
    return 0;
}

/* @step says what is there and what was done; *over: the member ended. */
static int inflate_some(struct inflater *f, struct stream_step *step, bool *over)
{
    f->z.next_in = (uint8_t *)step->in + step->in_used;
    f->z.avail_in = (uint32_t)(step->in_bytes - step->in_used);
    f->z.next_out = step->out + step->out_made;
    f->z.avail_out = (uint32_t)(step->out_bytes - step->out_made);
    int rc = isal_inflate(&f->z);
    step->in_used = step->in_bytes - f->z.avail_in;
    step->out_made = step->out_bytes - f->z.avail_out;
    *over = f->z.block_state == ISAL_BLOCK_FINISH;
    return rc < 0 ? -EIO : 0;
}
#else
struct inflater {
    bool in_member, made;
    z_stream z;
};

static void gzip_end(void *decoder)
{
    struct inflater *f = decoder;
    if (f->made)
        inflateEnd(&f->z);
    mem_free(f);
}

static void *gzip_save(const void *decoder)
{
    const struct inflater *f = decoder;
    struct inflater *copy = mem_zalloc(sizeof(*copy));
    if (!copy || !f->made)
        return copy;
    copy->in_member = f->in_member;
    copy->made = inflateCopy(&copy->z, (z_stream *)&f->z) == Z_OK;
    if (!copy->made)
        mem_free(take(copy));
    return copy;
}

static void *gzip_begin(struct stream *s, const struct stream_point *p)
{
    return p->saved ? gzip_save(p->saved) : mem_zalloc(sizeof(struct inflater));
}

static int begin_member(struct inflater *f)
{
    if ((f->made ? inflateReset(&f->z) : inflateInit2(&f->z, 15 + 16)) != Z_OK)
        return -ENOMEM;
    f->made = f->in_member = true;
    return 0;
}

static int inflate_some(struct inflater *f, struct stream_step *step, bool *over)
{
    f->z.next_in = (Bytef *)step->in + step->in_used;
    f->z.avail_in = (uInt)(step->in_bytes - step->in_used);
    f->z.next_out = step->out + step->out_made;
    f->z.avail_out = (uInt)(step->out_bytes - step->out_made);
    int rc = inflate(&f->z, Z_NO_FLUSH);
    step->in_used = step->in_bytes - f->z.avail_in;
    step->out_made = step->out_bytes - f->z.avail_out;
    *over = rc == Z_STREAM_END;
    return rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR ? 0
           : rc == Z_MEM_ERROR                                   ? -ENOMEM
                                                                 : -EIO;
}
#endif

/* Members follow one another; zeroes or anything else behind the last one is not looked at, as
 * gzip does not. */
static int gzip_run(void *decoder, struct stream_step *step)
{
    struct inflater *f = decoder;
    for (;;) {
        const uint8_t *in = step->in + step->in_used;
        bool over = false;
        if (!f->in_member) {
            if (step->in_bytes - step->in_used < 2 && !step->in_last)
                return 0;
            step->ended = step->in_bytes - step->in_used < 2 || in[0] != 0x1f || in[1] != 0x8b;
            if (step->ended)
                return 0;
            TRY(begin_member(f));
        }
        TRY(inflate_some(f, step, &over));
        if (!over)
            return 0;
        f->in_member = false;
    }
}

static const struct stream_kind gzip_kind = {
    .begin = gzip_begin,
    .run = gzip_run,
    .end = gzip_end,
    .save = gzip_save,
    .drop = gzip_end,
    .saved_bytes = sizeof(struct inflater),
};

/* --- the length ------------------------------------------------------------------------------- */

/* From what the first @plain bytes took, and the length modulo 4 GiB at the end. */
static int co_estimate(struct stream *s, uint64_t plain, uint64_t packed)
{
    le32 raw;
    TRY(co_blk_read_buf(s->file, s->file->size - sizeof(raw), &raw, sizeof(raw)));
    double guess = (double)plain * ((double)s->file->size / (double)MAX(packed, 1));
    uint64_t low = le32_get(raw);
    double more = (guess - (double)low) / (double)(4 * GiB) + 0.5;
    s->size = low + (more > 0 && more < 1e9 ? (uint64_t)more * 4 * GiB : 0);
    while (s->size < plain)
        s->size += 4 * GiB;
    s->estimated = true;
    return 0;
}

static int co_find_size(struct stream *s, bool glance)
{
    uint64_t plain, packed;
    bool ended;
    TRY(co_stream_measure(s, &s->points[0], glance ? STREAM_GLANCE : UINT64_MAX, &ended, &plain,
                          &packed));
    s->size = plain;
    return ended ? 0 : co_estimate(s, plain, packed);
}

/* --- the driver ------------------------------------------------------------------------------- */

static int gzip_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "gzip's signature";
    return !p->as_qemu && p->head_bytes >= 18 && memcmp(p->head, "\x1f\x8b\x08", 3) == 0 &&
                   p->head[3] < 0x20
               ? 60
               : 0;
}

static int co_open_parts(struct gzip *g, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *file;
    uint8_t head[18];
    TRY(co_readonly_file(dev, opener, &file, e));
    int rc = file->size < sizeof(head) ? -EINVAL : co_blk_read_buf(file, 0, head, sizeof(head));
    if (rc < 0 || memcmp(head, "\x1f\x8b", 2) != 0)
        return err_set(e, rc < 0 ? rc : -EINVAL, "not a gzip file");
    if (stream_init(&g->stream, &gzip_kind, file, opts) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    if (opts_given(opts, "size"))
        g->stream.size = opts_number(opts, "size");
    else
        rc = co_find_size(&g->stream, dev->open_flags & BLK_OPEN_FACTS);
    return rc < 0 ? unpack_failed("gzip", rc, e) : 0;
}

static int co_gzip_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct gzip *g = mem_zalloc(sizeof(*g));
    if (!g)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(g, dev, opts, opener, e);
    if (rc < 0) {
        stream_drop(&g->stream);
        mem_free(g);
        return rc;
    }
    dev->state = g;
    dev->size = g->stream.size;
    return 0;
}

static int co_gzip_close(struct blk_device *dev, struct blk_error *e)
{
    struct gzip *g = dev->state;
    stream_drop(&g->stream);
    mem_free(g);
    return 0;
}

static int co_gzip_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct gzip *g = dev->state;
    return co_stream_read(&g->stream, offset, to);
}

static int co_gzip_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct gzip *g = dev->state;
    out->compressed = true;
    return stream_info(&g->stream, out, e);
}

static const struct opt_desc gzip_options[] = {STREAM_OPTIONS, {0}};

const struct blk_driver gzip_driver = {
    .name = "gzip",
    .title = "anything compressed with gzip (read only)",
    .mend = "`gzip -dc FILE >NEW` gives what comes before the damage; all of it is only in another "
            "copy",
    .extensions = "gz",
    .is_format = true,
    .inner_is_image = true,
    .open_options = gzip_options,
    .probe = gzip_probe,
    .co_open = co_gzip_open,
    .co_close = co_gzip_close,
    .co_reopen = co_readonly_reopen,
    .co_inner_list = co_readonly_inner_list,
    .co_inner_open = co_readonly_inner_open,
    .co_read = co_gzip_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_info = co_gzip_info,
};

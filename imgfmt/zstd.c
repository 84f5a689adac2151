/* SPDX-License-Identifier: BSD-3-Clause */
/* zstd.c - a disk in a .zst file, read only.
 *
 * A file is a row of frames; reads begin at one. Where they are says a seek table at the end, if
 * there is one; else the headers of all blocks are walked. A frame that does not say how long its
 * contents are is decompressed once to find out (`info` looks at the beginning and estimates). */
#ifdef HAVE_LIBZSTD
#include <zstd.h>
#endif

#include "block/endian.h"
#include "imgfmt/stream.h"
#include "imgfmt/unpack.h"

#ifdef HAVE_LIBZSTD
#define MAGIC         0xfd2fb528u
#define SKIPPABLE     0x184d2a50u /* the low four bits are free */
#define SEEKABLE      0x8f92eab1u
#define WINDOW_MAX    27    /* log2 of the memory that a frame may ask for */
#define GLANCE_BLOCKS 50000 /* that info walks */

struct zstd {
    struct stream stream;
};

/* --- the decompressor ------------------------------------------------------------------------- */

struct frame {
    ZSTD_DCtx *z;
    bool inside;
};

static void *zstd_begin(struct stream *s, const struct stream_point *p)
{
    struct frame *f = mem_zalloc(sizeof(*f));
    if (f && !(f->z = ZSTD_createDCtx()))
        mem_free(take(f));
    if (f)
        ZSTD_DCtx_setParameter(f->z, ZSTD_d_windowLogMax, WINDOW_MAX);
    return f;
}

static void zstd_end(void *decoder)
{
    struct frame *f = decoder;
    ZSTD_freeDCtx(f->z);
    mem_free(f);
}

/* Goes on from frame to frame to the end of the file. */
static int zstd_run(void *decoder, struct stream_step *step)
{
    struct frame *f = decoder;
    ZSTD_inBuffer in = {step->in, step->in_bytes, 0};
    ZSTD_outBuffer out = {step->out, step->out_bytes, 0};
    while (out.pos < out.size || f->inside) {
        size_t in_before = in.pos, out_before = out.pos;
        if (!f->inside && in.pos == in.size) {
            step->ended = step->in_last;
            break;
        }
        size_t rc = ZSTD_decompressStream(f->z, &out, &in);
        if (ZSTD_isError(rc))
            return -EIO;
        f->inside = rc != 0;
        if (in.pos == in_before && out.pos == out_before)
            break;
    }
    step->in_used = in.pos;
    step->out_made = out.pos;
    return 0;
}

static const struct stream_kind zstd_kind = {.begin = zstd_begin, .run = zstd_run, .end = zstd_end};

/* --- frames ----------------------------------------------------------------------------------- */

struct walk {
    struct stream *s;
    uint64_t at, plain;   /* in the file; of the disk */
    uint64_t blocks_left; /* that may be walked */
    bool unsized;         /* a frame did not say how long it is */
    bool gave_up;
};

struct frame_header {
    uint64_t bytes;      /* of the header itself, or of all where it is skippable */
    uint64_t plain;      /* contents; UINT64_MAX: not told */
    bool skippable, sum; /* sum: 4 bytes behind the last block */
};

static int parse_frame(const uint8_t *raw, size_t bytes, struct frame_header *h)
{
    static const uint8_t id_bytes[] = {0, 1, 2, 4}, size_bytes[] = {0, 2, 4, 8};
    le32 magic, length;
    if (bytes < 8)
        return -EIO;
    memcpy(&magic, raw, 4);
    memcpy(&length, raw + 4, 4);
    *h = (struct frame_header){.skippable = (le32_get(magic) & ~15u) == SKIPPABLE};
    if (h->skippable) {
        h->bytes = 8ULL + le32_get(length);
        return 0;
    }
    if (le32_get(magic) != MAGIC)
        return -EIO;
    bool single = raw[4] & 0x20;
    h->sum = raw[4] & 4;
    unsigned n = raw[4] >> 6 ? size_bytes[raw[4] >> 6] : single;
    size_t at = 5 + !single + id_bytes[raw[4] & 3];
    le64 plain = {{0}};
    h->bytes = at + n;
    if (h->bytes > bytes)
        return -EIO;
    memcpy(&plain, raw + at, n);
    h->plain = n ? le64_get(plain) + (n == 2 ? 256 : 0) : UINT64_MAX;
    return 0;
}

/* *at: from the first block behind the last one. */
static int co_walk_blocks(struct walk *w, uint64_t *at)
{
    for (;;) {
        uint8_t raw[3];
        if (w->blocks_left == 0) {
            w->gave_up = true;
            return 0;
        }
        w->blocks_left--;
        if (!range_fits(*at, sizeof(raw), w->s->file->size))
            return -EIO;
        TRY(co_blk_read_buf(w->s->file, *at, raw, sizeof(raw)));
        uint32_t v = raw[0] | raw[1] << 8 | (uint32_t)raw[2] << 16;
        unsigned kind = v >> 1 & 3;
        if (kind == 3)
            return -EIO;
        *at += sizeof(raw) + (kind == 1 ? 1 : v >> 3);
        if (v & 1)
            return 0;
    }
}

/* One frame further, or *unsized where that cannot be. */
static int co_walk_frame(struct walk *w)
{
    uint8_t raw[18];
    size_t n = MIN(sizeof(raw), w->s->file->size - w->at);
    struct frame_header h;
    TRY(co_blk_read_buf(w->s->file, w->at, raw, n));
    TRY(parse_frame(raw, n, &h));
    if (h.skippable) {
        w->at += h.bytes;
        return w->at <= w->s->file->size ? 0 : -EIO;
    }
    if (h.plain == UINT64_MAX) {
        w->unsized = true;
        return 0;
    }
    stream_add_point(w->s, w->plain, w->at, NULL);
    uint64_t at = w->at + h.bytes;
    TRY(co_walk_blocks(w, &at));
    if (!w->gave_up)
        w->at = at + (h.sum ? 4 : 0);
    if (!add_u64(w->plain, h.plain, &w->plain) || w->plain > INT64_MAX)
        return -EFBIG;
    return w->at <= w->s->file->size ? 0 : -EIO;
}

/* What cannot be found out by looking: the rest is decompressed. */
static int co_measure_rest(struct walk *w, bool glance)
{
    struct stream_point p = {w->plain, w->at, NULL};
    uint64_t plain, packed;
    bool ended;
    stream_add_point(w->s, w->plain, w->at, NULL);
    TRY(co_stream_measure(w->s, &p, glance ? STREAM_GLANCE : UINT64_MAX, &ended, &plain, &packed));
    w->plain = plain;
    if (ended)
        return 0;
    w->plain = (uint64_t)((double)plain * ((double)w->s->file->size / (double)MAX(packed, 1)));
    w->plain = MIN(align_down(w->plain, 512), (uint64_t)INT64_MAX - 511);
    w->s->estimated = true;
    return 0;
}

static int co_walk_frames(struct stream *s, bool glance)
{
    struct walk w = {.s = s, .blocks_left = glance ? GLANCE_BLOCKS : UINT64_MAX};
    while (w.at < s->file->size && !w.unsized && !w.gave_up)
        TRY(co_walk_frame(&w));
    if (w.unsized)
        TRY(co_measure_rest(&w, glance));
    s->estimated |= w.gave_up;
    s->size = w.plain;
    return 0;
}

/* --- the seek table --------------------------------------------------------------------------- */

/* Adds all frames that it names; false: there is none that fits the file. */
static int co_add_seekable(struct stream *s, uint64_t table, uint32_t frames, unsigned each)
{
    uint8_t *buf = buf_get(64 * KiB);
    uint64_t plain = 0, packed = 0;
    int rc = buf ? 1 : -ENOMEM;
    for (uint32_t i = 0, n; rc == 1 && i < frames; i += n) {
        n = (uint32_t)MIN(64 * KiB / each, frames - i);
        int got = co_blk_read_buf(s->file, table + (uint64_t)i * each, buf, (uint64_t)n * each);
        if (got < 0)
            rc = got;
        for (uint32_t k = 0; got == 0 && k < n; k++) {
            le32 two[2];
            memcpy(two, buf + k * each, sizeof(two));
            if (plain)
                stream_add_point(s, plain, packed, NULL);
            packed += le32_get(two[0]); /* at most 2^32 times 2^32 */
            plain += le32_get(two[1]);
        }
    }
    buf_put(buf, 64 * KiB);
    if (rc == 1 && packed + 8 != table)
        rc = 0;
    s->size = plain;
    return rc;
}

static int co_seek_table(struct stream *s)
{
    struct foot {
        le32 frames;
        uint8_t how;
        le32 magic;
    } foot;
    uint64_t size = s->file->size;
    _Static_assert(sizeof(foot) == 9, "no padding");
    if (size < sizeof(foot) + 8)
        return 0;
    TRY(co_blk_read_buf(s->file, size - sizeof(foot), &foot, sizeof(foot)));
    unsigned each = foot.how & 0x80 ? 12 : 8;
    uint64_t bytes = (uint64_t)le32_get(foot.frames) * each + sizeof(foot);
    if (le32_get(foot.magic) != SEEKABLE || bytes > size - 8)
        return 0;
    le32 head[2];
    TRY(co_blk_read_buf(s->file, size - bytes - 8, head, sizeof(head)));
    if ((le32_get(head[0]) & ~15u) != SKIPPABLE || le32_get(head[1]) != bytes)
        return 0;
    return co_add_seekable(s, size - bytes, le32_get(foot.frames), each);
}

/* --- the driver ------------------------------------------------------------------------------- */

static int zstd_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "zstd's signature";
    return !p->as_qemu && p->head_bytes >= 9 && memcmp(p->head, "\x28\xb5\x2f\xfd", 4) == 0 ? 80
                                                                                            : 0;
}

static int co_find_size(struct stream *s, bool glance)
{
    int rc = co_seek_table(s);
    if (rc != 0)
        return MIN(rc, 0);
    s->point_count = 1;
    return co_walk_frames(s, glance);
}

static int co_open_parts(struct zstd *z, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_readonly_file(dev, opener, &file, e));
    if (stream_init(&z->stream, &zstd_kind, file, opts) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    z->stream.cursor_count = 2; /* up to 128 MiB each */
    if (opts_given(opts, "size")) {
        z->stream.size = opts_number(opts, "size");
        return 0;
    }
    int rc = co_find_size(&z->stream, dev->open_flags & BLK_OPEN_FACTS);
    return rc < 0 ? unpack_failed("zstd", rc, e) : 0;
}

static int co_zstd_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct zstd *z = mem_zalloc(sizeof(*z));
    if (!z)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(z, dev, opts, opener, e);
    if (rc < 0) {
        stream_drop(&z->stream);
        mem_free(z);
        return rc;
    }
    dev->state = z;
    dev->size = z->stream.size;
    return 0;
}

static int co_zstd_close(struct blk_device *dev, struct blk_error *e)
{
    struct zstd *z = dev->state;
    stream_drop(&z->stream);
    mem_free(z);
    return 0;
}

static int co_zstd_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct zstd *z = dev->state;
    return co_stream_read(&z->stream, offset, to);
}

static int co_zstd_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct zstd *z = dev->state;
    out->compressed = true;
    return stream_info(&z->stream, out, e);
}

static const struct opt_desc zstd_options[] = {STREAM_OPTIONS, {0}};

const struct blk_driver zstd_driver = {
    .name = "zstd",
    .title = "anything compressed with zstd (read only)",
    .mend = "`zstd -dc FILE >NEW` gives what comes before the damage; all of it is only in another "
            "copy",
    .extensions = "zst zstd",
    .is_format = true,
    .inner_is_image = true,
    .open_options = zstd_options,
    .probe = zstd_probe,
    .co_open = co_zstd_open,
    .co_close = co_zstd_close,
    .co_reopen = co_readonly_reopen,
    .co_inner_list = co_readonly_inner_list,
    .co_inner_open = co_readonly_inner_open,
    .co_read = co_zstd_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_info = co_zstd_info,
};
#endif

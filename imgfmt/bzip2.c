/* SPDX-License-Identifier: BSD-3-Clause */
/* bzip2.c - a disk in a .bz2 file, read only.
 *
 * Blocks hold up to 900 kB before compression and can be read on their own, but neither say how
 * long they are nor where the next one is. So when the file is opened all of it is decompressed
 * once, on all CPUs, to find out (`info` looks at the beginning and estimates). The first blocks
 * are kept as far as the cache reaches, for most readers begin with them. */
#ifdef HAVE_BZIP2
#include <bzlib.h>
#endif

#include "imgfmt/bzip2.h"
#include "imgfmt/chunks.h"
#include "imgfmt/unpack.h"

#ifdef HAVE_BZIP2
#define READ_BYTES    (256 * KiB)
#define BLOCK_MOST    (1100 * 1000) /* packed bytes: 900 kB that cannot be compressed, and more */
#define BLOCKS_MAX    (2u << 20)
#define BATCH         8
#define GLANCE_BLOCKS 8
#define KEEP_BYTES    MiB /* a block that is longer (many like bytes) is not kept */

struct block {
    uint64_t begin, end; /* bits in the file */
    uint64_t plain;      /* where it begins on the disk; the next entry says where it ends */
};

struct bzip2 {
    struct chunks chunks;
    struct block *blocks; /* count + 1: the last one only says where the disk ends */
    size_t count, room;
    bool estimated;
};

/* --- one block -------------------------------------------------------------------------------- */

/* Decompresses a stream of one block into @plain, which has @most bytes; what is more than that is
 * only counted. */
static int decompress(const uint8_t *packed, size_t packed_bytes, uint8_t *plain, size_t most,
                      uint64_t *made)
{
    char scratch[16 * KiB];
    bz_stream z = {.next_in = (char *)packed, .avail_in = (unsigned)packed_bytes};
    int rc = BZ2_bzDecompressInit(&z, 0, 0);
    *made = 0;
    while (rc == BZ_OK) {
        bool fits = *made < most;
        unsigned room = (unsigned)(fits ? MIN(most - *made, 1 * MiB) : sizeof(scratch));
        z.next_out = fits ? (char *)plain + *made : scratch;
        z.avail_out = room;
        rc = BZ2_bzDecompress(&z);
        *made += room - z.avail_out;
        if (rc == BZ_OK && z.avail_out == room)
            break;
    }
    BZ2_bzDecompressEnd(&z);
    return rc == BZ_STREAM_END ? 0 : rc == BZ_MEM_ERROR ? -ENOMEM : -EIO;
}

static int bzip2_unpack(const struct chunk *chunk, const void *packed, void *plain)
{
    auto_free uint8_t *whole = NULL;
    size_t bytes;
    uint64_t made;
    unsigned first = chunk->how & 7, last = chunk->how >> 3; /* last: unused bits at the end */
    TRY(bzip2_wrap(packed, first, chunk->packed_bytes * 8 - last, &whole, &bytes));
    TRY(decompress(whole, bytes, plain, chunk->bytes, &made));
    return made == chunk->bytes ? 0 : -EIO;
}

/* --- finding all ------------------------------------------------------------------------------ */

struct measure {
    struct bzip2 *z;
    uint64_t begin, end; /* bits */
    uint64_t plain;
    int rc;
    const uint8_t *packed;
    uint8_t *data; /* owned, KEEP_BYTES: the block, where it is not longer; NULL: only measured */
};

static int run_measure(void *arg)
{
    struct measure *m = arg;
    auto_free uint8_t *whole = NULL;
    size_t bytes;
    unsigned first = m->begin % 8;
    TRY(bzip2_wrap(m->packed, first, m->end - m->begin + first, &whole, &bytes));
    return decompress(whole, bytes, m->data, m->data ? KEEP_BYTES : 0, &m->plain);
}

/* Its own result is in @rc, so that one broken block does not hide the others. */
static int co_measure(void *arg)
{
    struct measure *m = arg;
    uint64_t at = m->begin / 8, bytes = div_up(m->end, 8) - at;
    uint8_t *packed = bytes <= BLOCK_MOST ? buf_get(bytes) : NULL;
    m->rc = bytes > BLOCK_MOST ? -EIO : packed ? 0 : -ENOMEM;
    if (m->rc == 0)
        m->rc = co_blk_read_buf(m->z->chunks.file, at, packed, bytes);
    m->packed = packed;
    if (m->rc == 0)
        m->rc = co_offload(run_measure, m);
    buf_put(packed, bytes);
    return 0;
}

static int add_block(struct bzip2 *z, const struct measure *m, uint64_t plain)
{
    if (z->count + 2 > z->room) {
        size_t room = MAX(2 * z->room, 64);
        struct block *grown = mem_resize(z->blocks, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        z->blocks = grown;
        z->room = room;
    }
    z->blocks[z->count++] = (struct block){m->begin, m->end, plain};
    return z->count <= BLOCKS_MAX ? 0 : -EFBIG;
}

/* Blocks that were found and not yet measured: each ends where the next mark is. */
struct scan {
    struct bzip2 *z;
    struct measure found[BATCH];
    unsigned count;
    uint64_t plain;
    bool glance, enough;
};

/* Into the cache, where there is room without throwing another one out. */
static void keep(struct scan *s, struct measure *m)
{
    struct kept_list *l = &s->z->chunks.kept;
    if (!m->data || m->plain > KEEP_BYTES || l->used + m->plain > l->limit)
        return;
    struct kept *k = kept_new(l, s->plain, m->plain);
    if (!k)
        return; /* it is decompressed again then */
    memcpy(k->data, m->data, m->plain);
    kept_filled(l, k, 0);
    kept_put(l, k);
}

/* The 48 bits of a mark may stand inside a block by chance (once in 2^48): then neither half can be
 * decompressed, but both together can. */
static int co_join(struct scan *s, unsigned i)
{
    for (unsigned next = i + 1; s->found[i].rc == -EIO && next < s->count; next++) {
        s->found[i].end = s->found[next].end;
        co_measure(&s->found[i]);
        if (s->found[i].rc == 0)
            return (int)next;
    }
    return s->found[i].rc < 0 ? s->found[i].rc : (int)i;
}

static int co_measure_all(struct scan *s)
{
    const struct kept_list *l = &s->z->chunks.kept;
    bool room = l->used + KEEP_BYTES / 2 <= l->limit;
    struct co_group g;
    co_group_init(&g, BATCH);
    for (unsigned i = 0; i < s->count; i++) {
        s->found[i].z = s->z;
        s->found[i].data = room && !s->glance ? buf_get(KEEP_BYTES) : NULL;
        co_group_start(&g, co_measure, &s->found[i]);
    }
    return co_group_wait(&g);
}

static int co_take_found(struct scan *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        int last = co_join(s, i);
        TRY(last);
        TRY(add_block(s->z, &s->found[i], s->plain));
        keep(s, &s->found[i]);
        s->plain += s->found[i].plain;
        if (s->plain > INT64_MAX)
            return -EFBIG;
        i = (unsigned)last;
    }
    return 0;
}

static int co_measure_found(struct scan *s)
{
    int rc = co_measure_all(s);
    if (rc == 0)
        rc = co_take_found(s);
    for (unsigned i = 0; i < s->count; i++)
        if (s->found[i].data)
            buf_put(take(s->found[i].data), KEEP_BYTES);
    s->enough = s->glance && s->z->count >= GLANCE_BLOCKS;
    s->count = 0;
    return rc;
}

struct find_job {
    struct bzip2_finder finder;
    const uint8_t *in;
    size_t bytes, used;
    enum bzip2_mark mark;
    uint64_t bit;
    bool found;
};

static int run_find(void *arg)
{
    struct find_job *j = arg;
    j->found = bzip2_find(&j->finder, j->in, j->bytes, &j->used, &j->mark, &j->bit);
    return 0;
}

/* @open: a block has begun; it ends at the mark at @j->bit. */
static int co_mark(struct scan *s, const struct find_job *j, bool *open)
{
    if (*open)
        s->found[s->count++].end = j->bit;
    *open = j->mark == BZIP2_BLOCK;
    if (s->count == BATCH || (s->count && !*open && s->glance))
        TRY(co_measure_found(s));
    if (*open)
        s->found[s->count] = (struct measure){.begin = j->bit};
    return 0;
}

static int co_scan(struct scan *s, uint8_t *buf)
{
    struct blk_device *file = s->z->chunks.file;
    struct find_job j = {0};
    bool open = false;
    for (uint64_t at = 0, n; at < file->size && !s->enough; at += n) {
        n = MIN(READ_BYTES, file->size - at);
        TRY(co_blk_read_buf(file, at, buf, n));
        for (size_t done = 0; done < n && !s->enough; done += j.used) {
            j.in = buf + done;
            j.bytes = n - done;
            TRY(co_offload(run_find, &j));
            if (j.found)
                TRY(co_mark(s, &j, &open));
        }
    }
    if (open && !s->enough)
        return -EIO; /* it is cut off */
    return s->count ? co_measure_found(s) : 0;
}

static int co_find_blocks(struct bzip2 *z, bool glance, uint64_t *size)
{
    struct scan *s = mem_zalloc(sizeof(*s));
    uint8_t *buf = buf_get(READ_BYTES);
    int rc = s && buf ? 0 : -ENOMEM;
    if (rc == 0) {
        *s = (struct scan){.z = z, .glance = glance};
        rc = co_scan(s, buf);
    }
    if (rc == 0) {
        *size = s->plain;
        z->estimated = s->enough;
        if (z->count)
            z->blocks[z->count].plain = s->plain;
        if (s->enough)
            *size = (uint64_t)((double)s->plain * ((double)z->chunks.file->size * 8 /
                                                   (double)z->blocks[z->count - 1].end));
        *size = MIN(*size, (uint64_t)INT64_MAX);
    }
    buf_put(buf, READ_BYTES);
    mem_free(s);
    return rc;
}

/* --- the driver ------------------------------------------------------------------------------- */

static int co_bzip2_chunk(struct chunks *chunks, uint64_t offset, struct chunk *out)
{
    const struct bzip2 *z = container_of(chunks, struct bzip2, chunks);
    size_t low = 0, high = z->count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (z->blocks[mid].plain <= offset)
            low = mid;
        else
            high = mid;
    }
    if (z->count == 0 || offset >= z->blocks[z->count].plain)
        return -EIO; /* the length is an estimate */
    uint64_t begin = z->blocks[low].begin, end = z->blocks[low].end;
    *out = (struct chunk){.kind = CHUNK_PACKED,
                          .offset = z->blocks[low].plain,
                          .bytes = z->blocks[low + 1].plain - z->blocks[low].plain,
                          .packed_offset = begin / 8,
                          .packed_bytes = div_up(end, 8) - begin / 8,
                          .how = (unsigned)(begin % 8 | (8 - end % 8) % 8 << 3)};
    return 0;
}

static int bzip2_probe(const struct blk_probe *p, const char **reason)
{
    static const uint8_t block[] = {0x31, 0x41, 0x59, 0x26, 0x53, 0x59};
    *reason = "bzip2's signature";
    return !p->as_qemu && p->head_bytes >= 14 && memcmp(p->head, "BZh", 3) == 0 &&
                   memcmp(p->head + 4, block, sizeof(block)) == 0
               ? 90
               : 0;
}

static int co_open_parts(struct bzip2 *z, struct blk_device *dev, struct blk_opener *opener,
                         uint64_t *size, struct blk_error *e)
{
    struct blk_device *file;
    char head[4];
    TRY(co_readonly_file(dev, opener, &file, e));
    z->chunks.file = file;
    int rc = file->size < 14 ? -EINVAL : co_blk_read_buf(file, 0, head, sizeof(head));
    if (rc < 0 || memcmp(head, "BZh", 3) != 0)
        return err_set(e, rc < 0 ? rc : -EINVAL, "not a bzip2 file");
    rc = co_find_blocks(z, dev->open_flags & BLK_OPEN_FACTS, size);
    return rc < 0 ? unpack_failed("bzip2", rc, e) : 0;
}

static int co_bzip2_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct bzip2 *z = mem_zalloc(sizeof(*z));
    if (!z)
        return err_set(e, -ENOMEM, "out of memory");
    kept_init(&z->chunks.kept, opts_number(opts, "cache-size"));
    int rc = co_open_parts(z, dev, opener, &dev->size, e);
    if (rc < 0) {
        kept_drop(&z->chunks.kept);
        mem_free(z->blocks);
        mem_free(z);
        return rc;
    }
    z->chunks.co_find = co_bzip2_chunk;
    z->chunks.unpack = bzip2_unpack;
    dev->state = z;
    return 0;
}

static int co_bzip2_close(struct blk_device *dev, struct blk_error *e)
{
    struct bzip2 *z = dev->state;
    kept_drop(&z->chunks.kept);
    mem_free(z->blocks);
    mem_free(z);
    return 0;
}

static int co_bzip2_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct bzip2 *z = dev->state;
    return co_chunks_read(&z->chunks, offset, to);
}

static int co_bzip2_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct bzip2 *z = dev->state;
    out->compressed = true;
    if (!z->estimated)
        return 0;
    out->specific = json_pack("{s:b}", "size-estimated", 1);
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static const struct opt_desc bzip2_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what is compressed"},
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of decompressed blocks kept in memory",
     .preset = "32M"},
    {0},
};

const struct blk_driver bzip2_driver = {
    .name = "bzip2",
    .title = "anything compressed with bzip2 (read only)",
    .mend =
        "`bzip2recover FILE` takes the sound blocks out of it; all of it is only in another copy",
    .extensions = "bz2",
    .is_format = true,
    .inner_is_image = true,
    .open_options = bzip2_options,
    .probe = bzip2_probe,
    .co_open = co_bzip2_open,
    .co_close = co_bzip2_close,
    .co_reopen = co_readonly_reopen,
    .co_inner_list = co_readonly_inner_list,
    .co_inner_open = co_readonly_inner_open,
    .co_read = co_bzip2_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_info = co_bzip2_info,
};
#endif

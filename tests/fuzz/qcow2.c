/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2.c - any bytes as a qcow2 image in memory: the header parsed, the image opened (as any other
 * and for check), read, written, discarded, resized, described, checked and repaired; snapshots
 * made, read, applied and deleted; bitmaps read and changed. Nothing may crash or hang; memory
 * stays small. */
#include <stdio.h>
#include <stdlib.h>

#include "imgfmt/qcow2_bitmap.h"
#include "tests/fuzz/fuzz_stack.h"

struct step {
    uint64_t at, bytes;
    uint8_t kind, flags;
};

static int co_step(struct blk_device *dev, const struct step *s, uint8_t *buf)
{
    uint64_t cluster = dev->limits.cluster_size;
    struct blk_error e;
    struct blk_extent ext;

    switch (s->kind % 10) {
    case 0:
    case 1:
        return co_blk_write_buf(dev, s->at, buf, s->bytes, s->flags & BLK_FUA);
    case 2:
        return co_blk_write_zeroes(dev, s->at, s->bytes, s->flags & BLK_MAY_UNMAP);
    case 3:
        return co_blk_discard(dev, s->at, MIN(dev->size - s->at, 4 * cluster));
    case 4:
        return co_blk_flush(dev);
    case 5:
        return co_blk_resize(dev, align_down(s->at, 512) + 512, true, &e);
    case 6:
        return co_blk_map(dev, s->at, s->bytes, &ext);
    case 7:
        if (cluster > 64 * KiB || align_down(s->at, cluster) + cluster > dev->size)
            return 0;
        return co_blk_write_buf(dev, align_down(s->at, cluster), buf, cluster, BLK_COMPRESSED);
    default:
        return co_blk_read_buf(dev, s->at, buf, s->bytes);
    }
}

/* Made, listed, read, applied, deleted: whatever the image's own snapshots are. */
static int co_snapshots(struct blk_device *dev, uint8_t *buf, unsigned way)
{
    struct blk_snapshot wanted = {.name = (char *)"fuzz", .icount = UINT64_MAX}, *list;
    struct blk_device *inner;
    struct blk_error e;
    uint64_t freed;
    size_t count;
    char name[24];

    int rc = way & 1 ? co_blk_snapshot_create(dev, &wanted, &e) : 0;
    TRY(co_blk_snapshot_list(dev, &list, &count, &e));
    for (size_t i = 0; i < MIN(count, 4); i++) {
        snprintf(name, sizeof(name), "@id=%.16s", list[i].id);
        if (co_blk_inner_open(dev, name, &inner, &e) < 0)
            continue;
        if (inner->size)
            rc |= co_blk_read_buf(inner, inner->size - 1, buf, 1);
        rc |= co_blk_close(inner, &e);
    }
    const char *id = count ? list[(way >> 3) % count].id : "";
    if (way & 2)
        rc |= co_blk_snapshot_apply(dev, id, &e);
    if (way & 4)
        rc |= co_blk_snapshot_delete(dev, id, &freed, &e);
    blk_snapshots_drop(list, count);
    return rc;
}

/* Listed, read, changed in some way: whatever the image's own bitmaps are, and one of ours. */
static int co_bitmaps(struct blk_device *dev, uint8_t *buf, unsigned way)
{
    struct blk_bitmap_change c = {.action = BLK_BITMAP_ADD,
                                  .name = "fuzz",
                                  .granularity = 512ULL << way % 8,
                                  .disabled = way & 1,
                                  .source = dev};
    struct blk_bitmap_extent ext;
    struct blk_bitmap *list;
    struct blk_error e;
    size_t count;

    int rc = way & 2 ? co_blk_bitmap_change(dev, &c, &e) : 0;
    TRY(co_blk_bitmap_list(dev, &list, &count, &e));
    for (size_t i = 0; i < MIN(count, 4); i++) {
        c.name = list[i].name;
        c.source_name = "fuzz";
        c.action = BLK_BITMAP_REMOVE + (way + i) % 5;
        if (dev->size)
            rc |= co_blk_bitmap_read(dev, c.name, dev->size / 2, 1, &ext, &e);
        rc |= co_blk_bitmap_change(dev, &c, &e);
        if (dev->size)
            rc |= co_blk_write_buf(dev, dev->size / 2, buf, 1, 0);
    }
    blk_bitmaps_drop(list, count);
    return rc;
}

static void co_use(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_check check = {.fix_leaks = bytes & 1};
    struct blk_info info = {0};
    struct blk_error e;
    uint8_t *buf = mem_zalloc(128 * KiB);
    int rc = 0;

    for (size_t i = 0; buf && i + 4 <= bytes && i < 64 && dev->size; i += 4) {
        struct step s = {.kind = tail[i], .flags = tail[i + 3]};
        uint64_t spread = (uint64_t)tail[i + 1] << 24 | (uint64_t)tail[i + 2] << 9 | tail[i + 3];
        s.at = spread % dev->size;
        s.bytes = MIN(1 + tail[i + 2] * 511ULL, dev->size - s.at);
        rc |= co_step(dev, &s, buf);
    }
    if (buf && dev->size)
        rc |= co_blk_read_buf(dev, dev->size - 1, buf, 1);
    if (buf && bytes)
        rc |= co_snapshots(dev, buf, tail[bytes - 1]);
    if (buf && bytes > 1)
        rc |= co_bitmaps(dev, buf, tail[bytes - 2]);
    rc |= co_blk_info(dev, &info, &e);
    blk_info_drop(&info);
    rc |= co_blk_check(dev, &check, &e);
    (void)rc;
    mem_free(buf);
}

/* An entry that means something means the same when it is written again. */
static void entries_alone(const uint8_t *data, size_t bytes)
{
    for (unsigned way = 0; way < 4 && bytes >= 16; way++) {
        struct qcow2_header h = {
            .version = 3,
            .cluster_bits = 14 + data[0] % 8,
            .incompatible = way & 1 ? QCOW2_EXTENDED_L2 : 0,
        };
        struct qcow2_entry e, again;
        struct qcow2_bits bits = qcow2_bits_get(&h, data + (way & 2 ? bytes - 16 : 0));
        if (qcow2_entry_decode(&h, bits, &e) < 0 || e.state == MAP_PACKED)
            continue;
        if (qcow2_entry_decode(&h, qcow2_entry_encode(&h, &e), &again) < 0 ||
            again.state != e.state || again.offset != e.offset || again.sub != e.sub)
            abort();
    }
}

static void parse_alone(const uint8_t *data, size_t bytes)
{
    struct qcow2_header h;
    struct qcow2_snapshot s;
    struct blk_error e;
    uint8_t *put = malloc(QCOW2_SNAPSHOT_PUT_MAX);
    struct qcow2_bitmap b;

    if (put && qcow2_bitmap_parse(data, bytes, &b) > 0 &&
        qcow2_bitmap_put(&b, put) > QCOW2_BITMAP_ENTRY_MAX)
        abort();
    if (put && qcow2_snapshot_parse(data, bytes, &s) > 0 &&
        qcow2_snapshot_put(&s, put) > QCOW2_SNAPSHOT_PUT_MAX)
        abort();
    free(put);
    for (int way = 0; way < 4; way++) {
        struct qcow2_raw_header in = {
            .raw = data,
            .bytes = MIN(bytes, MAX(qcow2_header_wants(data, bytes, way & 1), 512)),
            .file_bytes = way & 2 ? UINT64_MAX : bytes,
            .fresh = way & 1,
            .damaged = way & 2,
        };
        if (qcow2_header_parse(&in, &h, &e) == 0)
            (void)!qcow2_header_refuse(&h, data, true, &e);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 256 * KiB)
        return 0;
    parse_alone(data, bytes);
    entries_alone(data, bytes);
    fuzz_stack((struct fuzz_input){&qcow2_driver, data, bytes, co_use});
    return 0;
}

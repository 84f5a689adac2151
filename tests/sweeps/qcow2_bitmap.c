/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_bitmap.c - the proof over persistent bitmaps: each opening makes, removes, clears, merges,
 * disables some, so cuts and faults fall into every step of that, and into marking them in use
 * before the first write and storing them at the end.
 *
 * What must hold in every state that a crash leaves: a bitmap is inconsistent, or every granule
 * that differs from what the disk held when it began is dirty in it. To know that, a snapshot is
 * taken when a bitmap begins; bitmap "N" and those whose names begin with "N+" are held against
 * snapshot "N". A snapshot without its bitmap, and a bitmap without its snapshot, say nothing. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sweep.h"

#define ANY                                                                               \
    .write = 30, .fua = 3, .zeroes = 5, .unmap = 5, .discard = 6, .read = 10, .flush = 6, \
    .reopen = 8, .kill = 1, .hot = 6

static const struct sweep_profile small = {ANY, .max_bytes = 16 * KiB};
static const struct sweep_profile middle = {ANY, .max_bytes = 128 * KiB};
static const struct sweep_profile packing = {ANY, .compressed = 20, .max_bytes = 32 * KiB};
static const struct sweep_profile growing = {ANY, .resize = 6, .max_bytes = 32 * KiB};
static const struct sweep_profile compacting = {ANY, .compact = 6, .max_bytes = 32 * KiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 384 * KiB};

#define CHUNK (4 * KiB) /* compared at once; no granule is smaller than a sector */
#define KEPT  4         /* more than so many: one goes */

/* --- what a bitmap says --------------------------------------------------------------------------
 */

/* -EBADMSG: a sector of [at, +n) differs that is clean. */
static int co_hold_against(struct blk_device *dev, const char *name, uint64_t at, uint64_t n,
                           const uint8_t *now, const uint8_t *then, struct blk_error *e)
{
    struct blk_bitmap_extent ext;
    for (uint64_t s = 0; s < n; s += 512) {
        if (memcmp(now + s, then + s, 512) == 0)
            continue;
        TRY(co_blk_bitmap_read(dev, name, at + s, 512, &ext, e));
        if (!ext.dirty)
            return err_set(e, -EBADMSG,
                           "bitmap %s is clean at %" PRIu64 ", where the disk has changed", name,
                           at + s);
    }
    return 0;
}

static int co_verify_over(struct blk_device *dev, struct blk_device *then, const char *name,
                          struct blk_error *e)
{
    static uint8_t a[CHUNK] __attribute__((aligned(4096))), b[CHUNK] __attribute__((aligned(4096)));
    uint64_t size = MIN(dev->size, then->size);
    for (uint64_t at = 0; at < size; at += CHUNK) {
        uint64_t n = MIN(CHUNK, size - at);
        int rc = co_blk_read_buf(dev, at, a, n);
        if (rc == 0)
            rc = co_blk_read_buf(then, at, b, n);
        if (rc < 0)
            return err_errno(e, rc, "cannot read the disk");
        TRY(co_hold_against(dev, name, at, n, a, b, e));
    }
    return 0;
}

static int co_verify_one(struct blk_device *dev, const struct blk_bitmap *b, struct blk_error *e)
{
    struct blk_device *then;
    struct blk_bitmap_extent ext;
    struct blk_error none;
    char snapshot[40];
    if (b->inconsistent)
        return 0;
    if (b->foreign)
        return err_set(e, -EBADMSG, "bitmap %s is of a kind that nobody made", b->name);
    for (uint64_t at = 0; at < dev->size; at += ext.bytes)
        TRY(co_blk_bitmap_read(dev, b->name, at, dev->size - at, &ext, e));
    snprintf(snapshot, sizeof(snapshot), "@name=%.*s", (int)strcspn(b->name, "+"), b->name);
    int rc = co_blk_inner_open(dev, snapshot, &then, &none);
    if (rc < 0)
        return rc == -ENOENT ? 0 : err_errno(e, rc, "cannot open %s", snapshot);
    rc = b->enabled ? co_verify_over(dev, then, b->name, e) : 0;
    co_blk_close(then, NULL);
    return rc;
}

static int co_verify(struct blk_device *dev, struct blk_error *e)
{
    struct blk_bitmap *list;
    size_t count;
    TRY(co_blk_bitmap_list(dev, &list, &count, e));
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = co_verify_one(dev, &list[i], e);
    blk_bitmaps_drop(list, count);
    return rc;
}

/* --- what each opening does ----------------------------------------------------------------------
 */

static int co_do(struct blk_device *dev, enum blk_bitmap_action action, const char *name,
                 const char *source, struct blk_error *e)
{
    struct blk_bitmap_change c = {.action = action,
                                  .name = name,
                                  .granularity = 512ULL << (strlen(name) + (uint8_t)*name) % 5,
                                  .source = dev,
                                  .source_name = source};
    return co_blk_bitmap_change(dev, &c, e);
}

/* The moment that bitmap @name begins at, or begins anew. */
static int co_begin(struct blk_device *dev, const char *name, struct blk_error *e)
{
    struct blk_snapshot wanted = {.name = (char *)name, .icount = UINT64_MAX};
    return co_blk_snapshot_create(dev, &wanted, e);
}

static int co_end(struct blk_device *dev, const char *name, struct blk_error *e)
{
    struct blk_snapshot *list;
    const struct blk_snapshot *s;
    size_t count;
    uint64_t freed;
    int rc = 0;
    TRY(co_blk_snapshot_list(dev, &list, &count, e));
    while (rc == 0 && (s = blk_snapshot_by_name(list, count, name))) {
        rc = co_blk_snapshot_delete(dev, s->id, &freed, e);
        blk_snapshots_drop(list, count);
        TRY(rc);
        TRY(co_blk_snapshot_list(dev, &list, &count, e));
    }
    blk_snapshots_drop(list, count);
    return rc;
}

/* The bitmap says nothing between the end of the old snapshot and the new one. */
static int co_clear(struct blk_device *dev, const char *name, struct blk_error *e)
{
    if (strchr(name, '+'))
        return 0;
    TRY(co_end(dev, name, e));
    TRY(co_do(dev, BLK_BITMAP_CLEAR, name, NULL, e));
    return co_begin(dev, name, e);
}

/* A new one that holds what @name does, and goes on recording. */
static int co_merge(struct blk_device *dev, const char *name, struct blk_error *e)
{
    char merged[40];
    snprintf(merged, sizeof(merged), "%.30s+", name);
    /* Disabled until it holds all: only then it is held against the snapshot. */
    struct blk_bitmap_change add = {.action = BLK_BITMAP_ADD, .name = merged, .disabled = true};
    TRY(co_blk_bitmap_change(dev, &add, e));
    TRY(co_do(dev, BLK_BITMAP_MERGE, merged, name, e));
    return co_do(dev, BLK_BITMAP_ENABLE, merged, NULL, e);
}

static int co_toggle(struct blk_device *dev, const char *name, struct blk_error *e)
{
    TRY(co_do(dev, BLK_BITMAP_DISABLE, name, NULL, e));
    return co_do(dev, BLK_BITMAP_ENABLE, name, NULL, e);
}

static int co_change_one(struct blk_device *dev, const struct blk_bitmap *b, uint64_t way,
                         size_t count, struct blk_error *e)
{
    if (b->inconsistent || count > KEPT)
        return co_do(dev, BLK_BITMAP_REMOVE, b->name, NULL, e);
    if (!b->enabled) /* nothing is known of it */
        return co_do(dev, BLK_BITMAP_REMOVE, b->name, NULL, e);
    switch (way % 4) {
    case 0:
        return co_clear(dev, b->name, e);
    case 1:
        return co_merge(dev, b->name, e);
    case 2:
        return co_toggle(dev, b->name, e);
    default: /* until the next opening, so that some are not recording */
        return co_do(dev, BLK_BITMAP_DISABLE, b->name, NULL, e);
    }
}

/* A snapshot and a bitmap of its name; older ones are changed. Their number decides how. */
static int co_change(struct blk_device *dev, struct blk_error *e)
{
    struct blk_bitmap *list;
    struct blk_snapshot *taken;
    size_t count, snapshots;
    char name[24];
    TRY(co_blk_snapshot_list(dev, &taken, &snapshots, e));
    uint64_t way = snapshots ? strtoull(taken[snapshots - 1].id, NULL, 10) : 0;
    int rc = snapshots > KEPT ? co_end(dev, taken[0].name, e) : 0;
    blk_snapshots_drop(taken, snapshots);
    TRY(rc);
    snprintf(name, sizeof(name), "%" PRIu64, way + 1);
    TRY(co_begin(dev, name, e));
    TRY(co_do(dev, BLK_BITMAP_ADD, name, NULL, e));
    TRY(co_blk_bitmap_list(dev, &list, &count, e));
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (strcmp(list[i].name, name) != 0)
            rc = co_change_one(dev, &list[i], way + i, count - i, e);
    blk_bitmaps_drop(list, count);
    return rc;
}

/* A fault may end the change, never the image: what cannot be opened or verified is told. */
static int co_open_and_change(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_error why = {0};
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver", "file",
                             "filename", SWEEP_TOP);
    int rc = co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE, out, e);
    json_decref(tree);
    TRY(rc);
    rc = co_verify(*out, &why);
    if (rc == 0)
        rc = co_change(*out, &why);
    if (rc == 0)
        rc = co_verify(*out, &why);
    if (rc != -EBADMSG)
        return 0;
    *e = why;
    co_blk_close(*out, NULL);
    *out = NULL;
    return rc;
}

/* --- check ---------------------------------------------------------------------------------------
 */

struct said {
    struct blk_check check;
    uint64_t flags;
    char first[300];
};

/* COPIED flags that a snapshot left half way: harmless, as in qcow2_snapshot.c. */
static void hear(struct blk_check *c, const char *sentence)
{
    struct said *s = container_of(c, struct said, check);
    if (strncmp(sentence, "ERROR OFLAG_COPIED", 18) == 0)
        s->flags++;
    else if (strncmp(sentence, "ERROR", 5) == 0 && !s->first[0])
        snprintf(s->first, sizeof(s->first), "%s", sentence);
}

static int co_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e)
{
    struct said s = {.check = {.say = hear}};
    TRY(co_blk_check(dev, &s.check, e));
    *bad = s.check.corruptions - MIN(s.check.corruptions, s.flags) + s.check.check_errors;
    if (*bad)
        return err_set(e, -EIO, "%s", s.first);
    return co_verify(dev, e);
}

static bool only_flags(const char *output)
{
    for (const char *at = output; (at = strstr(at, "ERROR")); at++)
        if (strncmp(at, "ERROR OFLAG_COPIED", 18) != 0)
            return false;
    return strstr(output, "ERROR OFLAG_COPIED");
}

/* --- the rows ------------------------------------------------------------------------------------
 */

#define MAPS                                                         \
    .format = "qcow2", .foreign = "qcow2", .foreign_ok = only_flags, \
    .co_open = co_open_and_change, .co_check = co_check, .ops = 40

static const struct sweep_subject rows[] = {
    {.name = "qcow2-bitmaps",
     MAPS,
     .create = "cluster_size=4k",
     .size = 512 * KiB,
     .profile = &small},
    {.name = "qcow2-bitmaps-64k", MAPS, .size = 1 * MiB, .granule = 64 * KiB, .profile = &middle},
    {.name = "qcow2-bitmaps-512", /* tables of several clusters, a header of one sector */
     MAPS,
     .create = "cluster_size=512,refcount_bits=8",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-bitmaps-packed",
     MAPS,
     .create = "cluster_size=4k",
     .size = 256 * KiB,
     .profile = &packing},
    {.name = "qcow2-bitmaps-over-raw",
     MAPS,
     .create = "backing_file=base.img,backing_fmt=raw,cluster_size=16k",
     .backing = &base_raw,
     .size = 512 * KiB,
     .granule = 16 * KiB,
     .profile = &small},
    {.name = "qcow2-bitmaps-resize",
     MAPS,
     .create = "cluster_size=512",
     .size = 64 * KiB,
     .granule = 512,
     .profile = &growing},
    {.name = "qcow2-bitmaps-tables", /* grow from one cluster of bits to two */
     MAPS,
     .create = "cluster_size=512",
     .size = 1280 * KiB,
     .granule = 4 * KiB,
     .profile = &growing},
    {.name = "qcow2-bitmaps-compact", /* table, bits, list and snapshots move */
     MAPS,
     .create = "cluster_size=512",
     .size = 256 * KiB,
     .granule = 4 * KiB,
     .profile = &compacting},
    {.name = "qcow2-bitmaps-compact-4k",
     MAPS,
     .create = "cluster_size=4k",
     .size = 512 * KiB,
     .profile = &compacting},
    {.name = "qcow2-bitmaps-on-a-device",
     MAPS,
     .create = "cluster_size=4k",
     .size = 256 * KiB,
     .profile = &small,
     .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 320, 960);
}

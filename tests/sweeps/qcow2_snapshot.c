/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_snapshot.c - the proof over snapshots: each opening makes, applies or deletes some, so cuts
 * and faults fall into every step of that; the workload between writes to what is shared.
 *
 * A snapshot's name holds the hash of what the disk showed when it was made. So every state that a
 * crash leaves can be asked whether each snapshot in it still shows what it showed then: after
 * opening, and again after the fresh writes. Applied is only what was made a moment ago: the disk
 * is what it was, to the model. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sweep.h"

#define ANY                                                                               \
    .write = 30, .fua = 3, .zeroes = 5, .unmap = 5, .discard = 6, .read = 10, .flush = 6, \
    .reopen = 5, .kill = 2, .hot = 6

static const struct sweep_profile small = {ANY, .max_bytes = 16 * KiB};
static const struct sweep_profile middle = {ANY, .max_bytes = 256 * KiB};
static const struct sweep_profile packing = {ANY, .compressed = 20, .max_bytes = 32 * KiB};
static const struct sweep_profile resizing = {ANY, .resize = 4, .max_bytes = 32 * KiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 768 * KiB};

#define CHUNK (64 * KiB)
#define KEPT  3 /* more than so many: one goes */

/* --- what a disk shows ---------------------------------------------------------------------------
 */

static int co_hash(struct blk_device *dev, uint64_t *hash)
{
    uint8_t *buf = aligned_alloc(4096, CHUNK);
    int rc = buf ? 0 : -ENOMEM;
    *hash = dev->size;
    for (uint64_t at = 0; rc == 0 && at < dev->size; at += CHUNK) {
        uint64_t n = MIN(CHUNK, dev->size - at);
        memset(buf, 0, CHUNK);
        rc = co_blk_read_buf(dev, at, buf, n);
        for (uint64_t i = 0; i < CHUNK; i += 8) {
            uint64_t word;
            memcpy(&word, buf + i, 8);
            *hash = (*hash ^ word) * 0x9e3779b97f4a7c15ULL;
            *hash ^= *hash >> 29;
        }
    }
    free(buf);
    return rc;
}

static int co_verify_one(struct blk_device *dev, const struct blk_snapshot *s, struct blk_error *e)
{
    struct blk_device *inner;
    char name[64];
    uint64_t hash;
    snprintf(name, sizeof(name), "@id=%s", s->id);
    TRY(co_blk_inner_open(dev, name, &inner, e));
    int rc = co_hash(inner, &hash);
    co_blk_close(inner, NULL);
    if (rc < 0)
        return err_errno(e, rc, "cannot read snapshot %s", s->id);
    if (strtoull(s->name, NULL, 16) != hash)
        return err_set(e, -EBADMSG, "snapshot %s, made as %s, shows %016" PRIx64, s->id, s->name,
                       hash);
    return 0;
}

static int co_verify(struct blk_device *dev, struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t count;
    TRY(co_blk_snapshot_list(dev, &list, &count, e));
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = co_verify_one(dev, &list[i], e);
    blk_snapshots_drop(list, count);
    return rc;
}

/* --- what each opening does ----------------------------------------------------------------------
 */

static int co_make(struct blk_device *dev, struct blk_error *e)
{
    char name[24];
    uint64_t hash;
    struct blk_snapshot wanted = {.name = name, .icount = UINT64_MAX};
    int rc = co_hash(dev, &hash);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the disk");
    snprintf(name, sizeof(name), "%016" PRIx64, hash);
    return co_blk_snapshot_create(dev, &wanted, e);
}

/* By the number of the last one: made, made and applied, one of the others deleted. */
static int co_change(struct blk_device *dev, struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t count;
    uint64_t freed;
    TRY(co_make(dev, e));
    TRY(co_blk_snapshot_list(dev, &list, &count, e));
    uint64_t last = strtoull(list[count - 1].id, NULL, 10);
    int rc = last % 2 ? co_blk_snapshot_apply(dev, list[count - 1].id, e) : 0;
    if (rc == 0 && count > KEPT)
        rc = co_blk_snapshot_delete(dev, list[last % count].id, &freed, e);
    blk_snapshots_drop(list, count);
    return rc;
}

/* A fault may end the change, never the image: what cannot be opened or verified is told. */
static int co_open_and_change(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct sweep_subject *s = run->subject;
    struct blk_error why = {0};
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver", "file",
                             "filename", SWEEP_TOP);
    if (s->open)
        json_object_set_new(tree, "cache-size", json_string(s->open));
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
    char first[300];
};

static void hear(struct blk_check *c, const char *sentence)
{
    struct said *s = container_of(c, struct said, check);
    if (strncmp(sentence, "ERROR", 5) == 0 && !s->first[0])
        snprintf(s->first, sizeof(s->first), "%s", sentence);
}

static int co_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e)
{
    struct said s = {.check = {.say = hear}};
    TRY(co_blk_check(dev, &s.check, e));
    *bad = s.check.corruptions + s.check.check_errors;
    if (*bad)
        return err_set(e, -EIO, "%s", s.first);
    return co_verify(dev, e);
}

/* --- the rows ------------------------------------------------------------------------------------
 */

#define SNAPS \
    .format = "qcow2", .foreign = "qcow2", .co_open = co_open_and_change, .co_check = co_check

static const struct sweep_subject rows[] = {
    {.name = "qcow2-snapshots",
     SNAPS,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "qcow2-snapshots-64k",
     SNAPS,
     .size = 2 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "qcow2-snapshots-512",
     SNAPS,
     .create = "cluster_size=512,refcount_bits=8",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-snapshots-v2",
     SNAPS,
     .create = "compat=0.10,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &small},
    {.name = "qcow2-snapshots-packed",
     SNAPS,
     .create = "cluster_size=4k",
     .size = 512 * KiB,
     .profile = &packing},
    {.name = "qcow2-snapshots-over-raw",
     SNAPS,
     .create = "backing_file=base.img,backing_fmt=raw,cluster_size=16k",
     .backing = &base_raw,
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &small},
    {.name = "qcow2-snapshots-extended",
     SNAPS,
     .create = "extended_l2=on,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-snapshots-extended-over-raw",
     SNAPS,
     .create = "extended_l2=on,backing_file=base.img,backing_fmt=raw,cluster_size=16k",
     .backing = &base_raw,
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-snapshots-resize",
     SNAPS,
     .create = "cluster_size=512",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "qcow2-snapshots-tiny-cache",
     SNAPS,
     .create = "cluster_size=512",
     .open = "8k",
     .size = 256 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-snapshots-on-a-device",
     SNAPS,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small,
     .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 300, 1000);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_snapshot.c - the proof over snapshots, in three kinds of rows.
 *
 *   changes   each opening makes, applies or deletes some, so cuts and faults fall into every step
 *             of that; the workload between writes to what is shared
 *   returns   each opening is a transaction that is taken back: a snapshot, wild writes (and
 * another size), back to the snapshot, which is deleted. Whoever finds the snapshot of such a
 *             transaction that was cut goes back to it first. So older content is applied, wherever
 *             the power goes
 *   flights   snapshots are made and deleted while up to 15 other operations are in flight
 *
 * A snapshot's name holds the hash of what the disk showed when it was made, or (flights) a number
 * by which the hash is known that was found right after. So every state that a crash leaves can be
 * asked whether each snapshot in it still shows what it showed then: after opening, and again after
 * the fresh writes. In rows of changes only what was made a moment ago is applied: the disk is what
 * it was, to the model. */
#include <stdio.h>
#include <stdlib.h>

#include "block/host_sim_store.h"
#include "tests/sweep.h"

#define ANY                                                                               \
    .write = 30, .fua = 3, .zeroes = 5, .unmap = 5, .discard = 6, .read = 10, .flush = 6, \
    .reopen = 5, .kill = 2, .hot = 6

static const struct sweep_profile small = {ANY, .max_bytes = 16 * KiB};
static const struct sweep_profile middle = {ANY, .max_bytes = 256 * KiB};
static const struct sweep_profile packing = {ANY, .compressed = 20, .max_bytes = 32 * KiB};
static const struct sweep_profile resizing = {ANY, .resize = 4, .max_bytes = 32 * KiB};

static const struct sweep_profile compacting = {ANY, .compressed = 6, .compact = 6,
                                                .max_bytes = 32 * KiB};

static const struct sweep_profile flying = {.write = 30,
                                            .fua = 3,
                                            .zeroes = 5,
                                            .unmap = 5,
                                            .discard = 6,
                                            .read = 10,
                                            .flush = 3,
                                            .reopen = 1,
                                            .kill = 1,
                                            .hot = 6,
                                            .hook = 6,
                                            .max_bytes = 32 * KiB};
static const struct sweep_profile big = {ANY, .max_bytes = 3 * MiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 768 * KiB};

static int may_refuse; /* a row whose counts or whose space may not do for all that is asked */

#define KEPT 3 /* more than so many: one goes */

/* --- what a disk shows ---------------------------------------------------------------------------
 */

/* Hashes of snapshots whose names are numbers; 0: not known. They outlive the machine on which they
 * were found: the states of its crashes are asked. */
struct known {
    uint64_t count;
    uint64_t hashes[1 << 20];
};
static struct known known;

#define NUMBERED "n"   /* then the number */
#define PENDING  "tx-" /* then the hash: a transaction to be taken back */

/* What it should show; 0: that is not known. */
static uint64_t expected(const char *name)
{
    if (*name == *NUMBERED)
        return known.hashes[strtoull(name + 1, NULL, 16) % ARRAY_LEN(known.hashes)];
    return strtoull(strncmp(name, PENDING, 3) == 0 ? name + 3 : name, NULL, 16);
}

static int co_inner_hash(struct blk_device *dev, const char *id, uint64_t *hash,
                         struct blk_error *e)
{
    struct blk_device *inner;
    char name[64];
    snprintf(name, sizeof(name), "@id=%s", id);
    TRY(co_blk_inner_open(dev, name, &inner, e));
    int rc = co_sweep_hash(inner, hash);
    co_blk_close(inner, NULL);
    return rc < 0 ? err_errno(e, rc, "cannot read snapshot %s", id) : 0;
}

static int co_verify_one(struct blk_device *dev, const struct blk_snapshot *s, struct blk_error *e)
{
    uint64_t hash, want = expected(s->name);
    TRY(co_inner_hash(dev, s->id, &hash, e));
    if (want && want != hash)
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

static int co_make(struct blk_device *dev, const char *prefix, struct blk_error *e)
{
    char name[30];
    uint64_t hash;
    struct blk_snapshot wanted = {.name = name, .icount = UINT64_MAX};
    int rc = co_sweep_hash(dev, &hash);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the disk");
    snprintf(name, sizeof(name), "%s%016" PRIx64, prefix, hash);
    return co_blk_snapshot_create(dev, &wanted, e);
}

/* By the number of the last one: made, made and applied, one of the others deleted. */
static int co_change(struct blk_device *dev, struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t count;
    uint64_t freed;
    TRY(co_make(dev, "", e));
    TRY(co_blk_snapshot_list(dev, &list, &count, e));
    uint64_t last = strtoull(list[count - 1].id, NULL, 10);
    int rc = last % 2 ? co_blk_snapshot_apply(dev, list[count - 1].id, e) : 0;
    if (rc == 0 && count > KEPT)
        rc = co_blk_snapshot_delete(dev, list[last % count].id, &freed, e);
    blk_snapshots_drop(list, count);
    return rc;
}

/* --- transactions that are taken back ------------------------------------------------------------
 */

/* The id of the transaction's snapshot, free() it; NULL: there is none. */
static int co_find_pending(struct blk_device *dev, char **id, size_t *count, struct blk_error *e)
{
    struct blk_snapshot *list;
    TRY(co_blk_snapshot_list(dev, &list, count, e));
    *id = NULL;
    for (size_t i = 0; i < *count; i++)
        if (!*id && strncmp(list[i].name, PENDING, 3) == 0)
            *id = strdup(list[i].id);
    blk_snapshots_drop(list, *count);
    return 0;
}

/* Back to what was before the transaction, if there is one. */
static int co_take_back(struct blk_device *dev, struct blk_error *e)
{
    char *id;
    size_t count;
    uint64_t freed;
    TRY(co_find_pending(dev, &id, &count, e));
    if (!id)
        return 0;
    int rc = co_blk_snapshot_apply(dev, id, e);
    if (rc == 0)
        rc = co_blk_snapshot_delete(dev, id, &freed, e);
    free(id);
    return rc;
}

/* Writes anything anywhere, and (@resize) makes the disk larger or smaller. */
static int co_run_wild(struct blk_device *dev, uint64_t seed, bool resize, struct blk_error *e)
{
    struct sim_rng r;
    static uint8_t buf[32 * KiB];
    sim_rng_seed(&r, seed);
    memset(buf, (int)(seed % 250) + 1, sizeof(buf));
    for (unsigned i = 0; i < 8; i++) {
        uint64_t length = 512 * (1 + sim_rng_below(&r, 64)), bytes = MIN(length, dev->size);
        uint64_t at = sim_rng_below(&r, (dev->size - bytes) / 512 + 1) * 512;
        unsigned what = (unsigned)sim_rng_below(&r, 6);
        int rc = what == 0   ? co_blk_discard(dev, at, bytes)
                 : what == 1 ? co_blk_write_zeroes(dev, at, bytes, BLK_MAY_UNMAP)
                             : co_blk_write_buf(dev, at, buf, bytes, 0);
        if (rc < 0)
            return err_errno(e, rc, "a wild write");
        if (i == 4 && resize)
            TRY(co_blk_resize(dev, 512 * (1 + sim_rng_below(&r, 2 * dev->size / 512)), true, e));
    }
    return 0;
}

/* The second snapshot stays until there are more than KEPT: the one that is deleted then is the
 * oldest. */
static int co_second(struct blk_device *dev, struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t count;
    uint64_t freed;
    TRY(co_make(dev, "", e));
    TRY(co_blk_snapshot_list(dev, &list, &count, e));
    int rc = count > KEPT ? co_blk_snapshot_delete(dev, list[0].id, &freed, e) : 0;
    blk_snapshots_drop(list, count);
    return rc;
}

static int co_go_and_return(struct blk_device *dev, const struct sweep_run *run,
                            struct blk_error *e)
{
    uint64_t before, after;
    bool resize = run->subject->profile->resize;
    TRY(co_take_back(dev, e));
    TRY(co_sweep_hash(dev, &before));
    TRY(co_make(dev, PENDING, e));
    uint64_t seed = run->seed + host_sim_count(run->host, SIM_WRITE);
    TRY(co_run_wild(dev, seed, resize, e));
    if (seed % 3 == 0) {
        /* nobody's but the transaction's: the first in the list is another one's */
        TRY(co_second(dev, e));
        TRY(co_run_wild(dev, seed + 1, resize, e));
    }
    TRY(co_take_back(dev, e));
    TRY(co_sweep_hash(dev, &after));
    return before == after
               ? 0
               : err_set(e, -EBADMSG,
                         "the disk showed %016" PRIx64 " and shows %016" PRIx64 " after going back",
                         before, after);
}

/* --- while others write --------------------------------------------------------------------------
 */

static int ignore(int rc)
{
    return rc == -ENOENT || rc == -EBUSY ? 0 : rc; /* another step was faster, or reads it */
}

/* One more by the next number, one of many less. */
static int co_step_in_flight(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t count;
    char name[24];
    uint64_t number = ++known.count % ARRAY_LEN(known.hashes), hash, freed;
    struct blk_snapshot wanted = {.name = name, .icount = UINT64_MAX};
    (void)run;
    known.hashes[number] = 0;
    snprintf(name, sizeof(name), NUMBERED "%016" PRIx64, number);
    TRY(co_blk_snapshot_create(dev, &wanted, e));
    TRY(co_blk_snapshot_list(dev, &list, &count, e));
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        if (strcmp(list[i].name, name) == 0) {
            rc = co_inner_hash(dev, list[i].id, &hash, e);
            if (rc == 0)
                known.hashes[number] = hash;
        }
    if (rc == 0 && count > KEPT)
        rc = co_blk_snapshot_delete(dev, list[number % count].id, &freed, e);
    blk_snapshots_drop(list, count);
    return ignore(rc);
}

/* --- opening -------------------------------------------------------------------------------------
 */

/* No fault has come up to now, so nothing may fail. */
static bool unprovoked(const struct sweep_run *run)
{
    const struct alloc_fault *f = &worker_self()->alloc_fault;
    return host_sim_fired(run->host) == 0 && !(f->countdown && f->seen >= f->countdown) &&
           run->subject->arg != &may_refuse;
}

static int co_open_top(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct sweep_subject *s = run->subject;
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver", "file",
                             "filename", SWEEP_TOP);
    if (s->open)
        json_object_set_new(tree, "cache-size", json_string(s->open));
    int rc = co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE, out, e);
    json_decref(tree);
    return rc;
}

static int give_up(struct blk_device **out, int rc, struct blk_error *e,
                   const struct blk_error *why)
{
    *e = *why;
    co_blk_close(*out, NULL);
    *out = NULL;
    return rc;
}

/* A fault may end the change, never the image: what cannot be opened or verified is told. */
static int co_open_and_change(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_error why = {0};
    TRY(co_open_top(run, out, e));
    int rc = co_verify(*out, &why);
    if (rc == 0)
        rc = co_change(*out, &why);
    if (rc == 0)
        rc = co_verify(*out, &why);
    return rc == -EBADMSG || (rc < 0 && unprovoked(run)) ? give_up(out, rc, e, &why) : 0;
}

/* Here a fault in the middle leaves wild writes: the image is not open before they are gone. */
static int co_open_and_return(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_error why = {0};
    TRY(co_open_top(run, out, e));
    int rc = co_verify(*out, &why);
    if (rc == 0)
        rc = co_go_and_return(*out, run, &why);
    if (rc == 0)
        rc = co_verify(*out, &why);
    return rc < 0 ? give_up(out, rc, e, &why) : 0;
}

static int co_open_and_verify(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_error why = {0};
    TRY(co_open_top(run, out, e));
    int rc = co_verify(*out, &why);
    return rc == -EBADMSG ? give_up(out, rc, e, &why) : 0;
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

#define ROW     .format = "qcow2", .foreign = "qcow2", .co_check = co_check
#define SNAPS   ROW, .co_open = co_open_and_change
#define RETURNS ROW, .co_open = co_open_and_return
#define FLIGHTS \
    ROW, .co_open = co_open_and_verify, .co_step = co_step_in_flight, .profile = &flying, .ops = 80

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
    {.name = "qcow2-snapshots-compact",
     SNAPS,
     .create = "cluster_size=4k",
     .size = 512 * KiB,
     .profile = &compacting},
    {.name = "qcow2-snapshots-compact-512",
     SNAPS,
     .create = "compat=0.10,cluster_size=512",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &compacting},
    {.name = "qcow2-returns-compact",
     RETURNS,
     .create = "cluster_size=1k,extended_l2=off",
     .size = 256 * KiB,
     .granule = 1 * KiB,
     .profile = &compacting},
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
     .arg = &may_refuse,
     .size = 1 * MiB,
     .profile = &small,
     .flags = SWEEP_BLOCK_DEVICE},
    {.name = "qcow2-snapshots-2m",
     SNAPS,
     .create = "cluster_size=2M",
     .size = 8 * MiB,
     .granule = 2 * MiB,
     .profile = &big,
     .ops = 20},
    {.name = "qcow2-snapshots-refcount-2",
     SNAPS,
     .create = "cluster_size=4k,refcount_bits=2",
     .arg = &may_refuse,
     .size = 1 * MiB,
     .profile = &small},
    {.name = "qcow2-snapshots-refcount-64",
     SNAPS,
     .create = "cluster_size=512,refcount_bits=64",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-returns-extended",
     RETURNS,
     .create = "cluster_size=16k,extended_l2=on",
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &packing},
    {.name = "qcow2-returns-4k",
     RETURNS,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "qcow2-returns-64k",
     RETURNS,
     .size = 2 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "qcow2-returns-v2",
     RETURNS,
     .create = "compat=0.10,cluster_size=512",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-returns-packed",
     RETURNS,
     .create = "cluster_size=4k",
     .size = 512 * KiB,
     .profile = &packing},
    {.name = "qcow2-returns-over-raw",
     RETURNS,
     .create = "backing_file=base.img,backing_fmt=raw,cluster_size=4k",
     .backing = &base_raw,
     .size = 1 * MiB,
     .profile = &small},
    {.name = "qcow2-returns-resize",
     RETURNS,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "qcow2-returns-resize-512",
     RETURNS,
     .create = "cluster_size=512,refcount_bits=8",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "qcow2-flights-4k", FLIGHTS, .create = "cluster_size=4k", .size = 1 * MiB},
    {.name = "qcow2-flights-64k", FLIGHTS, .size = 2 * MiB, .granule = 64 * KiB},
    {.name = "qcow2-flights-512",
     FLIGHTS,
     .create = "cluster_size=512",
     .open = "8k",
     .size = 128 * KiB,
     .granule = 512},
    {.name = "qcow2-flights-two-workers",
     FLIGHTS,
     .create = "cluster_size=16k",
     .size = 1 * MiB,
     .workers = 2},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 300, 1500);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* thin.c - the proof over thin pools: metadata in top.img, data in data.img, the workload on volume
 * 1. In every state the metadata is sound to the last reference: a leak is as bad as a loss.
 *
 *   plain     one volume; with an external origin; in a pool whose metadata hardly fits the cache
 *   killed    processes die in the middle of commits, and others go on with what they see
 *   changes   each opening makes a snapshot and deletes the oldest, so cuts fall into every step
 *   flights   the same while other operations are in flight
 *
 * A snapshot's number says what it showed when it was made: numbers are never given twice. Every
 * state that a crash leaves is asked whether each snapshot still shows that. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sweep.h"
#include "volumes/thin_check.h"
#include "volumes/thin_pool.h"

#define ANY \
    .write = 30, .fua = 3, .zeroes = 5, .unmap = 5, .discard = 8, .read = 10, .flush = 6, .hot = 6

#define CHUNK    (64 * KiB)
#define KEPT     2
#define META     (1 * MiB)
#define SIZE     (1 * MiB)
#define VOLUME   "1"
#define SNAPSHOT 2 /* the first number of one */

static const struct sweep_profile plain = {ANY, .max_bytes = 200 * KiB, .reopen = 3, .kill = 2};
static const struct sweep_profile killed = {.write = 30,
                                            .fua = 6,
                                            .zeroes = 5,
                                            .unmap = 5,
                                            .discard = 8,
                                            .read = 10,
                                            .flush = 14,
                                            .hot = 6,
                                            .max_bytes = 200 * KiB,
                                            .kill = 12};
static const struct sweep_profile flying = {ANY, .max_bytes = 200 * KiB, .hook = 6, .reopen = 1,
                                            .kill = 1};
static const struct sweep_backing base = {.format = "raw", .size = 700 * KiB};

/* Hashes by number; 0: not known. They outlive the machine on which they were found. */
static struct {
    uint32_t last;
    uint64_t hashes[1 << 20];
} known;

/* --- making it --------------------------------------------------------------------------------
 */

static int co_make_file(struct sweep_run *run, const char *path, uint64_t size,
                        struct blk_device **out, struct blk_error *e)
{
    TRY(co_resolver_open_file(&run->resolver, path, BLK_OPEN_WRITE, HOST_CREATE, out, e));
    int rc = co_blk_resize(*out, size, false, e);
    if (rc == 0)
        rc = co_blk_flush(*out);
    if (rc < 0)
        co_blk_close(*out, NULL);
    return rc;
}

static int co_open_pool(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct sweep_subject *s = run->subject;
    json_t *tree =
        json_pack("{s:s, s:{s:s, s:s}, s:{s:s, s:s}, s:I, s:s}", "driver", "thin", "metadata",
                  "driver", "file", "filename", SWEEP_TOP, "data", "driver", "file", "filename",
                  SWEEP_DATA, "size", (json_int_t)s->size, "cache-size", s->open ? s->open : "1M");
    if (s->backing)
        json_object_set_new(tree, "origin",
                            json_pack("{s:s, s:s}", "driver", "file", "filename", SWEEP_BASE));
    int rc = co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE | BLK_OPEN_CHECK, out, e);
    json_decref(tree);
    return rc;
}

static int co_make_volume(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *pool;
    TRY(co_open_pool(run, &pool, e));
    int rc = co_pool_create(thin_pool_of(pool), 1, e);
    int closed = co_blk_close(pool, e);
    return rc < 0 ? rc : closed;
}

static int co_create(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *meta, *data;
    uint64_t blocks = run->subject->size / CHUNK * (KEPT + 3) + 8;
    TRY(co_sweep_make_base(run, e));
    TRY(co_make_file(run, SWEEP_DATA, blocks * CHUNK, &data, e));
    TRY(co_blk_close(data, e));
    TRY(co_make_file(run, SWEEP_TOP, META, &meta, e));
    int rc = co_thin_format(meta, CHUNK, blocks, e);
    int closed = co_blk_close(meta, e);
    TRY(rc < 0 ? rc : closed);
    return co_make_volume(run, e);
}

/* --- snapshots --------------------------------------------------------------------------------
 */

static int co_hash_of(struct blk_device *pool, const char *name, uint64_t *hash,
                      struct blk_error *e)
{
    struct blk_device *dev;
    TRY(co_blk_inner_open(pool, name, &dev, e));
    int rc = co_sweep_hash(dev, hash);
    co_blk_close(dev, NULL);
    return rc < 0 ? err_errno(e, rc, "cannot read snapshot %s", name) : 0;
}

static int co_verify(struct blk_device *pool, struct blk_error *e)
{
    struct blk_inner *list;
    size_t count;
    int rc = 0;
    TRY(co_blk_inner_list(pool, &list, &count, e));
    for (size_t i = 0; i < count && rc == 0; i++) {
        uint64_t hash, want = known.hashes[strtoul(list[i].name, NULL, 10)];
        if (strcmp(list[i].name, VOLUME) == 0 || !want)
            continue;
        rc = co_hash_of(pool, list[i].name, &hash, e);
        if (rc == 0 && hash != want)
            rc = err_set(e, -EBADMSG, "snapshot %s shows something else than it did", list[i].name);
    }
    blk_inner_drop(list, count);
    return rc;
}

/* Until there are few: a step that ran beside this one may have left one too many. */
static int co_delete_oldest(struct blk_device *pool, struct blk_error *e)
{
    for (;;) {
        struct blk_inner *list;
        size_t count;
        TRY(co_blk_inner_list(pool, &list, &count, e));
        uint32_t oldest = count > 1 ? (uint32_t)strtoul(list[1].name, NULL, 10) : 0;
        blk_inner_drop(list, count);
        if (count <= KEPT + 1)
            return 0;
        int rc = co_pool_delete(thin_pool_of(pool), oldest, e);
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
}

/* One more, of one instant; then the oldest goes. */
static int co_change(struct blk_device *pool, struct blk_error *e)
{
    char name[16];
    uint64_t hash;
    uint32_t id = SNAPSHOT + ++known.last % (ARRAY_LEN(known.hashes) - SNAPSHOT);
    known.hashes[id] = 0;
    TRY(co_pool_snap(thin_pool_of(pool), id, 1, e));
    snprintf(name, sizeof(name), "%u", id);
    int rc = co_hash_of(pool, name, &hash, e);
    if (rc < 0)
        return rc == -ENOENT || rc == -EBUSY ? 0 : rc; /* another step was faster */
    known.hashes[id] = hash;
    rc = co_delete_oldest(pool, e);
    return rc == -ENOENT || rc == -EBUSY ? 0 : rc;
}

static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    return co_change(blk_child(dev, "container"), e);
}

/* --- opening, checking ------------------------------------------------------------------------
 */

/* A fault may end a change, never the pool: what cannot be read afterwards is told. */
static int co_open_volume(struct sweep_run *run, bool change, struct blk_device **out,
                          struct blk_error *e)
{
    struct blk_device *pool;
    struct blk_error ignored;
    TRY(co_open_pool(run, &pool, e));
    int rc = co_verify(pool, e);
    if (rc == 0 && change &&
        co_change(pool, &ignored) < 0) { /* the pool may have ended all changes */
        co_blk_close(pool, NULL);
        TRY(co_open_pool(run, &pool, e));
    }
    if (rc == 0)
        rc = co_blk_inner_open(pool, VOLUME, out, e);
    int closed = co_blk_close(pool, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

static int co_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    return co_open_volume(run, false, out, e);
}

static int co_open_and_change(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    return co_open_volume(run, true, out, e);
}

static void keep_first(struct thin_check *c, const char *sentence)
{
    struct blk_error *e = c->arg;
    if (!e->rc)
        err_set(e, -EIO, "%s", sentence);
}

static int co_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e)
{
    const struct thin_pool *p = blk_child(dev, "container")->state;
    struct blk_error first = {0};
    struct thin_check c = {.say = keep_first, .arg = &first};
    TRY(co_thin_check(p->meta.dev, &c, e));
    *bad = c.errors + c.leaks;
    if (*bad)
        *e = first;
    return 0;
}

#define POOL                                                                  \
    .format = "thin", .size = SIZE, .granule = CHUNK, .co_create = co_create, \
    .co_check = co_check, .long_factor = 13, .foreign = "thin",               \
    .foreign_command = "thin_check -q top.img"

static const struct sweep_subject rows[] = {
    {.name = "thin", POOL, .co_open = co_open, .profile = &plain},
    {.name = "thin-origin",
     POOL,
     .co_open = co_open,
     .profile = &plain,
     .backing = &base,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "thin-small-cache", POOL, .co_open = co_open, .profile = &plain, .open = "64k"},
    {.name = "thin-killed", POOL, .co_open = co_open, .profile = &killed},
    {.name = "thin-changes", POOL, .co_open = co_open_and_change, .profile = &plain},
    {.name = "thin-changes-small-cache",
     POOL,
     .co_open = co_open_and_change,
     .profile = &plain,
     .open = "64k"},
    {.name = "thin-flights", POOL, .co_open = co_open, .co_step = co_step, .profile = &flying},
    {.name = "thin-two-workers",
     POOL,
     .co_open = co_open,
     .co_step = co_step,
     .profile = &flying,
     .workers = 2},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 600, 5000);
}

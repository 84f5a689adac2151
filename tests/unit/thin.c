/* SPDX-License-Identifier: BSD-3-Clause */
/* thin.c - thin pools on disks in memory: a random life of volumes and snapshots beside a model,
 * the metadata checked as it goes; snapshots of one instant; a pool that runs full; growth;
 * reservation and quota; space taken ahead. */
#include <check.h>
#include <stdlib.h>

#include "block/fault.h"
#include "block/host_sim.h"
#include "tests/lib/on_host.h"
#include "volumes/thin_check.h"
#include "volumes/thin_pool.h"

#define CHUNK   (64 * KiB)
#define VOLUMES 8
#define BLOCKS  40 /* of a volume */

struct pool {
    struct blk_device *meta, *data, *dev;
    struct thin_pool *p;
};

static struct blk_device *co_disk(uint64_t size)
{
    char text[64];
    snprintf(text, sizeof(text), "size=%" PRIu64, size);
    return co_open_text(&mem_driver, text, NULL);
}

static void co_start_pool(struct pool *s, const char *options)
{
    struct blk_error e;
    json_t *tree = json_object();
    struct blk_child children[] = {{"metadata", blk_ref(s->meta)}, {"data", blk_ref(s->data)}};
    must(opts_text_to_tree(options, NULL, tree, &e) == 0);
    int rc =
        co_blk_open(&thin_driver, "pool", tree, BLK_OPEN_WRITE, NULL, children, 2, &s->dev, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    must(rc == 0);
    json_decref(tree);
    s->p = thin_pool_of(s->dev);
    must(s->p);
}

static void co_make_pool(struct pool *s, uint64_t meta_bytes, uint64_t blocks, const char *options)
{
    struct blk_error e;
    s->meta = co_disk(meta_bytes);
    s->data = co_open_text(&fault_driver, "", co_disk(blocks * CHUNK));
    must(co_thin_format(s->meta, CHUNK, blocks, &e) == 0);
    co_start_pool(s, options);
}

static void co_end_pool(struct pool *s)
{
    co_close_ok(s->dev);
    co_close_ok(s->data);
    co_close_ok(s->meta);
}

static struct blk_device *co_volume(struct pool *s, const char *name)
{
    struct blk_device *dev;
    struct blk_error e = {0};
    int rc = co_blk_inner_open(s->dev, name, &dev, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    must(rc == 0);
    return dev;
}

static void on_finding(struct thin_check *c, const char *sentence)
{
    fprintf(stderr, "%s\n", sentence);
}

/* What is on disk is sound, to the last reference (T3). */
static void co_check_clean(struct pool *s)
{
    struct thin_check c = {.say = on_finding};
    struct blk_error e;
    must(co_thin_check(s->meta, &c, &e) == 0);
    must(c.errors == 0 && c.leaks == 0);
}

/* --- a random life ----------------------------------------------------------------------------
 */

struct life {
    struct pool s;
    uint64_t random;
    uint8_t *model[VOLUMES]; /* NULL: there is none of that number */
    struct blk_device *open[VOLUMES];
};

static void co_open_one(struct life *l, unsigned id)
{
    char name[64];
    snprintf(name, sizeof(name), "%u,size=%u", id, (unsigned)(BLOCKS * CHUNK));
    if (!l->open[id])
        l->open[id] = co_volume(&l->s, name);
}

static void co_close_one(struct life *l, unsigned id)
{
    if (l->open[id])
        co_close_ok(l->open[id]);
    l->open[id] = NULL;
}

static void co_compare_one(struct life *l, unsigned id)
{
    co_open_one(l, id);
    auto_free uint8_t *got = mem_aligned(BLOCKS * CHUNK);
    must(co_blk_read_buf(l->open[id], 0, got, BLOCKS * CHUNK) == 0);
    must(memcmp(got, l->model[id], BLOCKS * CHUNK) == 0);
}

static void co_change_one(struct life *l, unsigned id)
{
    uint64_t what = next_random(&l->random) % 8, unit = what < 4 ? 512 : CHUNK;
    uint64_t at = next_random(&l->random) % (BLOCKS * CHUNK / unit) * unit;
    uint64_t bytes = (1 + next_random(&l->random) % 5) * unit;
    bytes = MIN(bytes, BLOCKS * CHUNK - at);
    uint8_t *model = l->model[id] + at;
    co_open_one(l, id);
    if (what == 7) {
        must(co_blk_discard(l->open[id], at, bytes) == 0);
        memset(model, 0, bytes);
    } else if (what == 6 || what == 3) {
        unsigned flags = next_random(&l->random) % 2 ? BLK_MAY_UNMAP : 0;
        must(co_blk_write_zeroes(l->open[id], at, bytes, flags) == 0);
        memset(model, 0, bytes);
    } else {
        fill_random(&l->random, model, bytes);
        must(co_blk_write_buf(l->open[id], at, model, bytes, what == 0 ? BLK_FUA : 0) == 0);
    }
}

static void co_make_one(struct life *l, unsigned id)
{
    unsigned of = (unsigned)(next_random(&l->random) % VOLUMES);
    struct blk_error e;
    l->model[id] = mem_zalloc(BLOCKS * CHUNK);
    must(l->model[id]);
    if (l->model[of] && of != id) {
        memcpy(l->model[id], l->model[of], BLOCKS * CHUNK);
        must(co_pool_snap(l->s.p, id, of, &e) == 0);
    } else {
        must(co_pool_create(l->s.p, id, &e) == 0);
    }
    must(co_pool_create(l->s.p, id, &e) == -EEXIST);
}

static void co_live(struct life *l)
{
    unsigned id = (unsigned)(next_random(&l->random) % VOLUMES);
    uint64_t what = next_random(&l->random) % 64;
    struct blk_error e;
    if (!l->model[id]) {
        co_make_one(l, id);
    } else if (what == 0) {
        must(!l->open[id] || co_pool_delete(l->s.p, id, &e) == -EBUSY);
        co_close_one(l, id);
        must(co_pool_delete(l->s.p, id, &e) == 0);
        mem_free(l->model[id]);
        l->model[id] = NULL;
    } else if (what == 1) {
        co_compare_one(l, id);
    } else if (what < 4) {
        co_close_one(l, id);
    } else if (what < 8) {
        co_open_one(l, id);
        must(co_blk_flush(l->open[id]) == 0);
        co_check_clean(&l->s);
    } else {
        co_change_one(l, id);
    }
}

static void co_close_all(struct life *l)
{
    for (unsigned id = 0; id < VOLUMES; id++)
        co_close_one(l, id);
}

/* After each operation the counts of all references are what can be reached. */
CO_TEST(counted_life)
{
    struct life l = {.random = 2};
    co_make_pool(&l.s, 4 * MiB, VOLUMES * BLOCKS + 64, "");
    for (unsigned i = 0; i < 600; i++) {
        co_live(&l);
        must(co_thin_commit(&l.s.p->meta) == 0);
        co_check_clean(&l.s);
    }
    co_close_all(&l);
    for (unsigned id = 0; id < VOLUMES; id++)
        mem_free(l.model[id]);
    co_end_pool(&l.s);
    return 0;
}

CO_TEST(random_life)
{
    struct life l = {.random = 1};
    co_make_pool(&l.s, 4 * MiB, VOLUMES * BLOCKS + 64, "");
    for (unsigned i = 0; i < 3000; i++) {
        co_live(&l);
        if (i % 500 != 499)
            continue;
        co_close_all(&l);
        co_close_ok(l.s.dev);
        co_check_clean(&l.s);
        co_start_pool(&l.s, "");
    }
    for (unsigned id = 0; id < VOLUMES; id++)
        if (l.model[id])
            co_compare_one(&l, id);
    co_close_all(&l);
    for (unsigned id = 0; id < VOLUMES; id++) {
        struct blk_error e;
        if (l.model[id])
            must(co_pool_delete(l.s.p, id, &e) == 0);
        mem_free(l.model[id]);
    }
    co_pool_settle(l.s.p);
    must(thin_data_free(&l.s.p->meta) == VOLUMES * BLOCKS + 64); /* exact accounting */
    co_end_pool(&l.s);
    return 0;
}

/* --- snapshots while others write --------------------------------------------------------------
 */

#define WRITERS 3
#define SLOTS   6 /* of a writer, each in a block of its own */
#define KEPT    8 /* snapshots */

struct writer {
    struct blk_device *v;
    unsigned index;
    uint64_t begun, ended; /* number of the write */
    bool stop, stopped;
};

static uint64_t slot_at(unsigned writer, uint64_t number)
{
    return (writer * SLOTS + number % SLOTS) * CHUNK;
}

/* The n-th write puts n into the slot that is next. */
static void co_count_up(void *arg)
{
    struct writer *w = arg;
    le64 sector[64];
    while (!w->stop) {
        w->begun++;
        for (unsigned i = 0; i < ARRAY_LEN(sector); i++)
            sector[i] = le64_of(w->begun);
        must(co_blk_write_buf(w->v, slot_at(w->index, w->begun), sector, 512, 0) == 0);
        w->ended = w->begun;
    }
    w->stopped = true;
}

/* The number of each writer's last write, in what a snapshot shows or as far as they are. */
struct numbers {
    uint64_t of[WRITERS];
};

/* One instant: a writer's slots hold its last SLOTS numbers, up to one that was being written. */
static void co_check_instant(struct pool *s, uint32_t id, const struct numbers *low,
                             const struct numbers *high, struct numbers *shown)
{
    char name[32];
    snprintf(name, sizeof(name), "%u,size=2M", id);
    struct blk_device *v = co_volume(s, name);
    for (unsigned w = 0; w < WRITERS; w++) {
        uint64_t found[SLOTS], last = 0;
        for (unsigned i = 0; i < SLOTS; i++) {
            le64 sector[64];
            must(co_blk_read_buf(v, slot_at(w, i), sector, 512) == 0);
            found[i] = le64_get(sector[0]);
            last = MAX(last, found[i]);
        }
        must(last >= low->of[w] && last <= high->of[w]);
        for (uint64_t n = last; n > 0 && n + SLOTS > last; n--)
            must(found[n % SLOTS] == n);
        shown->of[w] = last;
    }
    co_close_ok(v);
}

/* One more snapshot; the oldest still shows what it did, and goes. */
static void co_one_instant(struct pool *s, const struct writer *writers, struct numbers *shown,
                           uint32_t id)
{
    struct blk_error e;
    struct numbers low, high, *mine = &shown[id % KEPT], old = *mine;
    for (unsigned w = 0; w < WRITERS; w++)
        low.of[w] = writers[w].ended;
    must(co_pool_snap(s->p, id, 1, &e) == 0);
    for (unsigned w = 0; w < WRITERS; w++)
        high.of[w] = writers[w].begun;
    co_check_instant(s, id, &low, &high, mine);
    if (id < 2 + KEPT)
        return;
    co_check_instant(s, id - KEPT, &old, &old, &low);
    must(co_pool_delete(s->p, id - KEPT, &e) == 0);
}

static int co_instants(void *arg)
{
    struct pool s;
    struct blk_error e;
    struct writer writers[WRITERS] = {0};
    struct numbers shown[KEPT] = {0};
    uint32_t count = long_form() ? 10000 : 300;
    uint64_t random = 7;
    co_make_pool(&s, 4 * MiB, WRITERS * SLOTS * (KEPT + 3), "");
    fault_set(s.data, &(struct fault_rule){.op = FAULT_WRITE, .nth = 1, .delay_ns = 1000});
    must(co_pool_create(s.p, 1, &e) == 0);
    struct blk_device *v = co_volume(&s, "1,size=2M");
    for (unsigned w = 0; w < WRITERS; w++) {
        writers[w] = (struct writer){.v = v, .index = w};
        must(co_start(co_count_up, &writers[w]) == 0);
    }
    for (uint32_t i = 0; i < count; i++) {
        co_sleep(next_random(&random) % 40000); /* most writes go to blocks of their own */
        co_one_instant(&s, writers, shown, 2 + i);
    }
    for (unsigned w = 0; w < WRITERS; w++) {
        writers[w].stop = true;
        while (!writers[w].stopped)
            co_sleep(1000);
        must(writers[w].ended > count); /* they did write meanwhile */
    }
    co_close_ok(v);
    co_check_clean(&s);
    co_end_pool(&s);
    return 0;
}

/* In virtual time, in which a write takes a while. */
START_TEST(instants)
{
    struct host *h;
    ck_assert_int_eq(host_sim_open(&(struct sim_options){.seed = 1}, &h), 0);
    ck_assert_int_eq(on_this_host(h, co_instants, NULL), 0);
    host_close(h);
}
END_TEST

/* --- a full pool, promises, growth -------------------------------------------------------------
 */

CO_TEST(full_pool)
{
    struct pool s;
    struct blk_error e;
    auto_free uint8_t *buf = mem_aligned(CHUNK);
    must(buf);
    memset(buf, 1, CHUNK);
    co_make_pool(&s, 1 * MiB, 8, "");
    must(co_pool_create(s.p, 1, &e) == 0);
    struct blk_device *v = co_volume(&s, "1,size=1M");
    for (unsigned i = 0; i < 8; i++)
        must(co_blk_write_buf(v, i * CHUNK, buf, CHUNK, 0) == 0);
    must(co_blk_write_buf(v, 8 * CHUNK, buf, 512, 0) == -ENOSPC);
    must(co_blk_write_buf(v, 3 * CHUNK, buf, CHUNK, 0) == 0); /* overwrites go on */
    must(co_blk_flush(v) == 0);
    must(co_pool_snap(s.p, 2, 1, &e) == 0);
    must(co_blk_write_buf(v, 0, buf, 512, 0) == -ENOSPC); /* it would have to be copied */
    must(co_pool_delete(s.p, 2, &e) == 0);
    must(co_blk_discard(v, 2 * CHUNK, CHUNK) == 0);
    must(co_blk_write_buf(v, 8 * CHUNK, buf, 512, 0) == 0); /* what was let go of is found */
    must(co_blk_resize(s.data, 12 * CHUNK, false, &e) == 0);
    for (unsigned i = 9; i < 13; i++) /* what the data device grew by is found as well */
        must(co_blk_write_buf(v, i * CHUNK, buf, CHUNK, 0) == 0);
    must(co_blk_write_buf(v, 13 * CHUNK, buf, CHUNK, 0) == -ENOSPC);
    co_close_ok(v);
    co_check_clean(&s);
    co_end_pool(&s);
    return 0;
}

/* --- a volume whose snapshot is gone ------------------------------------------------------------
 */

struct rewriting {
    struct blk_device *v;
    uint64_t random;
    unsigned left; /* writers */
    int rc;        /* the first error of any */
};

static void co_rewrite(void *arg)
{
    struct rewriting *r = arg;
    auto_free uint8_t *buf = mem_aligned(CHUNK);
    must(buf);
    for (unsigned i = 0; i < 40 && r->rc == 0; i++) {
        uint64_t at = next_random(&r->random) % BLOCKS * CHUNK;
        uint64_t bytes = i % 2 ? CHUNK : 4096;
        fill_random(&r->random, buf, bytes);
        int rc = co_blk_write_buf(r->v, at, buf, bytes, 0);
        r->rc = r->rc ? r->rc : rc;
    }
    r->left--;
}

/* Many writers at once, in a pool with hardly more room than the volume: what each lets go of the
 * others need. */
CO_TEST(rewritten)
{
    struct pool s;
    struct blk_error e;
    auto_free uint8_t *buf = mem_aligned(BLOCKS * CHUNK);
    must(buf);
    memset(buf, 1, BLOCKS * CHUNK);
    co_make_pool(&s, 1 * MiB, BLOCKS + 2, "");
    must(co_pool_create(s.p, 1, &e) == 0);
    struct rewriting r = {.v = co_volume(&s, "1,size=2560K"), .random = 3};
    must(co_blk_write_buf(r.v, 0, buf, BLOCKS * CHUNK, 0) == 0);
    for (unsigned round = 0; round < 4; round++) {
        must(co_pool_snap(s.p, 2, 1, &e) == 0);
        must(co_pool_delete(s.p, 2, &e) == 0);
        r.left = 16;
        for (unsigned i = 0; i < 16; i++)
            must(co_start(co_rewrite, &r) == 0);
        while (r.left)
            co_sleep(1000000);
        must(r.rc == 0);
    }
    co_close_ok(r.v);
    co_check_clean(&s);
    co_end_pool(&s);
    return 0;
}

struct waiting {
    struct blk_device *v;
    int rc;
    bool done;
};

static void co_wait_for_space(void *arg)
{
    struct waiting *w = arg;
    uint8_t sector[512] = {1};
    w->rc = co_blk_write_buf(w->v, CHUNK, sector, sizeof(sector), 0);
    w->done = true;
}

CO_TEST(promises)
{
    struct pool s;
    struct blk_error e;
    struct blk_device *full;
    uint8_t sector[512] = {1};
    co_make_pool(&s, 1 * MiB, 4, "wait=100,low-water=128K");
    must(co_pool_create(s.p, 1, &e) == 0 && co_pool_create(s.p, 2, &e) == 0);
    struct blk_device *one = co_volume(&s, "1,size=1M,reserve=192K");
    struct blk_device *two = co_volume(&s, "2,size=1M,quota=128K");
    must(co_blk_inner_open(s.dev, "1", &full, &e) == -EBUSY);
    must(co_blk_write_buf(two, 0, sector, 512, 0) == 0);
    struct waiting w = {.v = two}; /* the rest is kept for the first */
    must(co_start(co_wait_for_space, &w) == 0);
    co_sleep(5000000);
    must(!w.done);
    must(co_blk_write_buf(one, 0, sector, 512, 0) == 0);
    must(co_blk_resize(s.data, 8 * CHUNK, false, &e) == 0);
    while (!w.done)
        co_sleep(1000000);
    must(w.rc == 0);
    must(co_blk_write_buf(two, 2 * CHUNK, sector, 512, 0) == -EDQUOT);
    must(co_pool_snap(s.p, 3, 2, &e) == 0);
    must(co_blk_write_buf(two, 0, sector, 512, 0) == 0); /* copied: the volume grows by nothing */
    must(co_pool_delete(s.p, 3, &e) == 0);
    co_close_ok(one);
    co_close_ok(two);
    co_close_ok(s.dev);
    co_start_pool(&s, "no-overcommit=on");
    one = co_volume(&s, "1,size=256K");
    must(co_blk_inner_open(s.dev, "2,size=320K", &full, &e) == -ENOSPC);
    two = co_volume(&s, "2,size=256K");
    co_close_ok(one);
    co_close_ok(two);
    co_end_pool(&s);
    return 0;
}

/* Metadata that is nearly full refuses new mappings, and still commits, discards, deletes. */
CO_TEST(full_metadata)
{
    struct pool s;
    struct blk_error e;
    uint8_t sector[512] = {1};
    int rc = 0;
    co_make_pool(&s, 64 * THIN_BLOCK, 8192, "");
    must(co_pool_create(s.p, 1, &e) == 0);
    struct blk_device *v = co_volume(&s, "1,size=4G");
    uint64_t wrote = 0;
    for (; wrote < 8000 && rc == 0; wrote++) {
        rc = co_blk_write_buf(v, wrote * 8 * CHUNK, sector, 512, 0);
        if (wrote % 64 == 63)
            must(co_blk_flush(v) == 0);
    }
    must(rc == -ENOSPC);
    must(co_blk_flush(v) == 0);
    must(co_blk_discard(v, 0, 4 * GiB) == 0);
    must(co_blk_flush(v) == 0);
    must(co_blk_write_buf(v, 0, sector, 512, BLK_FUA) == 0);
    co_close_ok(v);
    must(co_pool_delete(s.p, 1, &e) == 0);
    co_check_clean(&s);
    must(co_blk_resize(s.meta, 2 * MiB, false, &e) == 0);
    must(co_pool_grow(s.p, &e) == 0);
    must(s.p->meta.meta_space.root.blocks == 512);
    co_check_clean(&s);
    co_end_pool(&s);
    return 0;
}

/* --- space ahead ------------------------------------------------------------------------------
 */

/* How often space was asked for while @count blocks from @from on were written whole. */
static uint64_t co_write_in_a_row(struct host *h, struct blk_device *v, unsigned from,
                                  unsigned count)
{
    uint64_t before = host_sim_count(h, SIM_FALLOCATE);
    auto_free uint8_t *buf = mem_aligned(CHUNK);
    must(buf);
    for (unsigned i = from; i < from + count; i++) {
        memset(buf, (int)i + 1, CHUNK);
        must(co_blk_write_buf(v, i * CHUNK, buf, CHUNK, 0) == 0);
    }
    return host_sim_count(h, SIM_FALLOCATE) - before;
}

static void co_expect_row(struct blk_device *v, unsigned from, unsigned count)
{
    auto_free uint8_t *buf = mem_aligned(CHUNK);
    must(buf);
    for (unsigned i = from; i < from + count; i++) {
        must(co_blk_read_buf(v, i * CHUNK, buf, CHUNK) == 0);
        must(buf[0] == i + 1 && buf[CHUNK - 1] == i + 1);
    }
}

/* Blocks written whole in a row: space is taken for as many as there were, and once each. */
static int co_space_ahead(void *arg)
{
    struct host *h = arg;
    struct pool s = {.meta = co_disk(1 * MiB),
                     .data = co_open_text(&file_driver, "filename=/data", NULL)};
    struct blk_error e;
    must(co_blk_resize(s.data, 200 * CHUNK, false, &e) == 0);
    must(co_thin_format(s.meta, CHUNK, 200, &e) == 0);
    co_start_pool(&s, "");
    must(co_pool_create(s.p, 1, &e) == 0);
    struct blk_device *v = co_volume(&s, "1,size=10M");
    must(co_write_in_a_row(h, v, 0, 3) == 0);
    must(co_write_in_a_row(h, v, 3, 1) == 1);  /* up to block 7 */
    must(co_write_in_a_row(h, v, 4, 12) == 2); /* to 15, to 31 */
    must(co_write_in_a_row(h, v, 16, 15) == 0);
    must(co_write_in_a_row(h, v, 31, 64) == 2); /* to 63, to 127 */
    co_expect_row(v, 0, 95);
    co_close_ok(v);
    co_close_ok(s.dev);
    co_start_pool(&s, "");
    v = co_volume(&s, "1,size=10M");
    host_sim_fault(h,
                   &(struct sim_fault){.op = SIM_FALLOCATE, .nth = 1, .times = 1, .rc = -ENOSPC});
    must(co_write_in_a_row(h, v, 95, 64) == 1); /* it cannot be: no matter, and not asked again */
    must(host_sim_fired(h) == 1);
    co_expect_row(v, 0, 159);
    co_close_ok(v);
    co_check_clean(&s);
    co_end_pool(&s);
    return 0;
}

START_TEST(space_ahead)
{
    struct host *h;
    ck_assert_int_eq(host_sim_open(&(struct sim_options){.seed = 1, .in_order = true}, &h), 0);
    ck_assert_int_eq(host_sim_import(h, "/data", "", 0), 0);
    ck_assert_int_eq(on_this_host(h, co_space_ahead, h), 0);
    host_close(h);
}
END_TEST

/* --- trees ------------------------------------------------------------------------------------
 */

CO_TEST(trees)
{
    enum { KEYS = 20000 };
    struct blk_device *meta = co_disk(16 * MiB);
    struct blk_error e;
    struct thin_meta m;
    uint64_t root, random = 5;
    auto_free uint32_t *model = mem_array(KEYS, sizeof(*model));
    must(model && co_thin_format(meta, CHUNK, 1, &e) == 0);
    must(co_thin_meta_open(&m, meta, NULL, true, 4 * MiB, &e) == 0);
    must(co_thin_tree_new(&m, &thin_overflow, &root) == 0);
    for (unsigned i = 0; i < 60000; i++) {
        uint64_t key = i < KEYS ? i : next_random(&random) % KEYS; /* in order first */
        bool remove = i >= KEYS && next_random(&random) % 4 != 0;
        le32 value = le32_of(i + 1);
        if (remove)
            must(co_thin_remove(&m, &thin_overflow, &root, key) == (model[key] ? 0 : -ENOENT));
        else
            must(co_thin_insert(&m, &thin_overflow, &root, key, &value) == 0);
        model[key] = remove ? 0 : i + 1;
    }
    for (uint64_t key = 0; key < KEYS; key++) {
        le32 value;
        int rc = co_thin_lookup(&m, &thin_overflow, root, key, &value);
        must(model[key] ? rc == 0 && le32_get(value) == model[key] : rc == -ENOENT);
    }
    struct thin_walk w = {.tree = &thin_overflow};
    must(co_thin_walk(&m.cache, &w, root) == 0);
    uint64_t count = 0;
    for (uint64_t key = 0; key < KEYS; key++)
        count += model[key] != 0;
    must(w.entries == count);
    thin_meta_close(&m);
    co_close_ok(meta);
    return 0;
}

/* --- what lies on disk ------------------------------------------------------------------------
 */

START_TEST(blocks)
{
    uint8_t b[THIN_BLOCK];
    thin_node_init(b, true, 8);
    thin_seal(THIN_NODE, 7, b);
    ck_assert_uint_eq(le32_get(*(le32 *)b), 0x49c54642);
    ck_assert_ptr_null(thin_verify(THIN_NODE, 7, b));
    ck_assert_ptr_nonnull(thin_verify(THIN_NODE, 8, b));
    ck_assert_ptr_nonnull(thin_verify(THIN_BITMAP, 7, b));
    memset(b, 0, sizeof(b));
    thin_bits_set(b, 0, 1);
    thin_bits_set(b, 1, 1);
    ck_assert_uint_eq(b[16], 0x0a);
    thin_seal(THIN_BITMAP, 3, b);
    ck_assert_uint_eq(le32_get(*(le32 *)b), 0xfc30fbea);
    thin_bits_set(b, 0, 2);
    ck_assert_uint_eq(b[16], 0x09);
    ck_assert_uint_eq(thin_bits_find(b, 0, 100), 2);
    ck_assert_uint_eq(thin_bits_find(b, 0, 2), 2);
    ck_assert_uint_eq(thin_node_most(8), 252);
    ck_assert_uint_eq(thin_node_most(24), 126);
    ck_assert_uint_eq(thin_node_most(16), 168);
    ck_assert_uint_eq(thin_node_most(4), 336);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("thin");
    TCase *t = tcase_create("thin");
    tcase_set_timeout(t, 600);
    tcase_add_test(t, blocks);
    tcase_add_test(t, trees);
    tcase_add_test(t, full_pool);
    tcase_add_test(t, full_metadata);
    tcase_add_test(t, promises);
    tcase_add_test(t, space_ahead);
    tcase_add_test(t, rewritten);
    tcase_add_test(t, random_life);
    tcase_add_test(t, counted_life);
    tcase_add_test(t, instants);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

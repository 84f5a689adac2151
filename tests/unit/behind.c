/* SPDX-License-Identifier: BSD-3-Clause */
/* behind.c - what the top of a chain remembers of the layers behind it: right after everything that
 * can change one of them, and used.
 *
 * The judge is a second opening of the same files, which remembers nothing yet. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/chain.h"
#include "imgfmt/qcow2.h"
#include "imgfmt/raw.h"
#include "tests/lib/on_host.h"

#define LAYERS 6
#define SIZE   (1 * MiB)

static char dir[200];
static uint8_t seen[2 * SIZE], judge[2 * SIZE], buf[64 * KiB];

/* --- chains ----------------------------------------------------------------------------------- */

/* Layer 0 is the lowest. */
struct chain {
    const char *options[LAYERS]; /* of qcow2; NULL: raw */
    uint64_t size[LAYERS];       /* 0: SIZE */
    bool packs;                  /* some clusters are compressed */
    bool spied;                  /* a spy is behind the top */
};

static const char *path(unsigned layer)
{
    static char text[2][256];
    static unsigned turn;
    char *out = text[turn++ % 2];
    snprintf(out, 256, "%s/%u", dir, layer);
    return out;
}

static struct blk_device *co_file(unsigned layer, unsigned flags)
{
    char options[400];
    struct blk_device *file;
    struct blk_error e = {0};
    snprintf(options, sizeof(options), "filename=%s", path(layer));
    int rc = co_try_open_text(&file_driver, options, flags, NULL, &file, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    return file;
}

static uint64_t size_of(const struct chain *c, unsigned layer)
{
    return c->size[layer] ? c->size[layer] : SIZE;
}

static void co_make_qcow2(const struct chain *c, unsigned layer, struct blk_device *file)
{
    char text[200];
    snprintf(text, sizeof(text), "%s%s", c->options[layer],
             layer ? ",backing_file=x,backing_fmt=raw" : "");
    co_create_text(&qcow2_driver, text, file, size_of(c, layer));
}

static void co_make(const struct chain *c, unsigned layer)
{
    FILE *f = fopen(path(layer), "w");
    must(f && ftruncate(fileno(f), c->options[layer] ? 0 : (off_t)size_of(c, layer)) == 0);
    fclose(f);
    struct blk_device *file = co_file(layer, BLK_OPEN_WRITE);
    if (c->options[layer])
        co_make_qcow2(c, layer, file);
    co_close_ok(file);
}

/* --- a spy: counts who asks ------------------------------------------------------------------- */

static bool spy_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                        struct blk_place *out)
{
    (void)write;
    *out = (struct blk_place){.child = dev->children[0].dev, .offset = offset, .bytes = bytes};
    ++*(unsigned *)dev->state;
    return true;
}

static int co_spy_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    (void)opts, (void)opener, (void)e;
    static unsigned count;
    dev->state = &count;
    dev->size = dev->children[0].dev->size;
    return 0;
}

static const struct blk_driver spy_driver = {
    .name = "spy", .is_filter = true, .co_open = co_spy_open, .resolve = spy_resolve};

/* --- opening ---------------------------------------------------------------------------------- */

static struct blk_device *co_open_one(const struct chain *c, unsigned layer, unsigned flags,
                                      struct blk_device *behind)
{
    struct blk_child children[2] = {{"file", co_file(layer, flags)}, {"backing", behind}};
    const struct blk_driver *driver = c->options[layer] ? &qcow2_driver : &raw_driver;
    struct blk_error e = {0};
    struct blk_device *dev;
    json_t *tree = json_object();
    int rc = co_blk_open(driver, "", tree, flags, NULL, children, behind ? 2 : 1, &dev, &e);
    ck_assert_msg(rc == 0, "layer %u: %s", layer, e.text);
    json_decref(tree);
    return dev;
}

static struct blk_device *co_open_chain(const struct chain *c, unsigned top, unsigned flags)
{
    struct blk_device *dev = NULL;
    unsigned below = flags & ~(unsigned)BLK_OPEN_WRITE;
    for (unsigned i = 0; i <= top; i++) {
        if (c->spied && dev && i == top) {
            struct blk_child child = {"file", dev};
            must(co_blk_open(&spy_driver, "", NULL, below, NULL, &child, 1, &dev, NULL) == 0);
        }
        dev = co_open_one(c, i, i == top ? flags : below, dev);
    }
    return dev;
}

static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    return next_random(&random_state) % below;
}

static void co_write_some(struct blk_device *dev, bool packs)
{
    uint64_t at = draw(dev->size / 512) * 512, most = MIN(dev->size - at, 16 * KiB);
    uint64_t bytes = (1 + draw(32)) * 512;
    bytes = MIN(bytes, most);
    unsigned flags = 0;
    fill_random(&random_state, buf, sizeof(buf));
    if (packs && draw(2)) {
        uint32_t cluster = dev->limits.cluster_size;
        at = align_down(at, cluster);
        bytes = MIN(cluster, dev->size - at);
        memset(buf, (int)draw(256), cluster);
        flags = BLK_COMPRESSED;
    }
    ck_assert_int_eq(co_blk_write_buf(dev, at, buf, bytes, flags), 0);
}

/* Each layer holds some of the disk. */
static void co_make_chain(const struct chain *c)
{
    for (unsigned i = 0; i < LAYERS; i++) {
        co_make(c, i);
        struct blk_device *dev = co_open_chain(c, i, BLK_OPEN_WRITE);
        for (unsigned n = 0; n < 12; n++)
            co_write_some(dev, c->packs && c->options[i]);
        co_close_ok(dev);
    }
}

/* --- comparing -------------------------------------------------------------------------------- */

static void co_read_all(struct blk_device *dev, uint8_t *to, uint64_t most)
{
    for (uint64_t at = 0, n; at < dev->size; at += n) {
        n = most ? most : (1 + draw(300)) * 512;
        n = MIN(n, dev->size - at);
        ck_assert_int_eq(co_blk_read_buf(dev, at, to + at, n), 0);
    }
}

/* What @dev shows by small, odd and long reads is what a new opening shows. */
static void co_compare(const struct chain *c, struct blk_device *dev, const char *after)
{
    static const uint64_t sizes[] = {4096, 0, 256 * KiB, SIZE};
    for (struct blk_device *d = dev; d; d = d->backing)
        ck_assert_int_eq(co_blk_flush(d), 0);
    struct blk_device *fresh = co_open_chain(c, LAYERS - 1, BLK_OPEN_FORCE_SHARE);
    ck_assert_uint_eq(fresh->size, dev->size);
    co_read_all(fresh, judge, SIZE);
    co_close_ok(fresh);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        memset(seen, 0xee, sizeof(seen));
        co_read_all(dev, seen, sizes[i]);
        for (uint64_t at = 0; at < dev->size; at += 512)
            ck_assert_msg(memcmp(seen + at, judge + at, MIN(512, dev->size - at)) == 0,
                          "after %s, reads of %" PRIu64 ": other bytes at %" PRIu64, after,
                          sizes[i], at);
    }
}

/* --- everything that changes a layer ---------------------------------------------------------- */

static struct blk_device *layer_of(struct blk_device *top, unsigned depth)
{
    while (depth--)
        top = top->backing;
    return top;
}

static void co_reopen(struct blk_device *dev, bool write)
{
    struct blk_error e = {0};
    ck_assert_msg(co_blk_reopen(dev, write, &e) == 0, "%s", e.text);
}

static void co_do_write(struct blk_device *dev)
{
    co_write_some(dev, false);
}

static void co_do_zero(struct blk_device *dev)
{
    uint64_t at = draw(dev->size), n = 1 + draw(128 * KiB);
    ck_assert_int_eq(
        co_blk_write_zeroes(dev, at, MIN(n, dev->size - at), draw(2) ? BLK_MAY_UNMAP : 0), 0);
}

static void co_do_discard(struct blk_device *dev)
{
    uint64_t at = draw(dev->size), n = 1 + draw(256 * KiB);
    ck_assert_int_eq(co_blk_discard(dev, at, MIN(n, dev->size - at)), 0);
}

static void co_do_empty(struct blk_device *dev)
{
    struct blk_error e = {0};
    int rc = co_blk_make_empty(dev, &e);
    ck_assert_msg(rc == 0 || rc == -ENOTSUP, "%s", e.text);
}

/* All that it holds goes one or two layers down, and it keeps it or not. */
static void co_do_commit(struct blk_device *dev)
{
    struct blk_error e = {0};
    struct blk_commit work = {.top = dev, .base = dev->backing, .keep = draw(2)};
    if (!work.base)
        return;
    if (draw(2) && work.base->backing)
        work = (struct blk_commit){.top = dev, .base = work.base->backing, .keep = true};
    bool was = work.base->writable;
    co_reopen(work.base, true);
    int rc = co_blk_commit(&work, &e); /* version 2 with snapshots does not grow */
    ck_assert_msg(rc == 0 || rc == -ENOTSUP, "%s", e.text);
    co_reopen(work.base, was);
}

static void co_do_resize(struct blk_device *dev)
{
    struct blk_error e = {0};
    uint64_t size = (1 + draw(2 * SIZE / 512)) * 512;
    if (dev->driver == &raw_driver) /* it would change with the file */
        return;
    int rc = co_blk_resize(dev, size, true, &e);
    ck_assert_msg(rc == 0 || rc == -ENOTSUP, "%s", e.text);
}

/* One is made; or the first there is comes back, and goes. */
static void co_do_snapshot(struct blk_device *dev)
{
    struct blk_error e = {0};
    struct blk_snapshot *list, wanted = {.name = (char *)"s", .icount = UINT64_MAX};
    size_t count;
    uint64_t freed;
    if (!dev->driver->co_snapshot_list)
        return;
    must(co_blk_snapshot_list(dev, &list, &count, &e) == 0);
    if (count == 0) {
        ck_assert_msg(co_blk_snapshot_create(dev, &wanted, &e) == 0, "%s", e.text);
    } else {
        ck_assert_msg(co_blk_snapshot_apply(dev, list[0].id, &e) == 0, "%s", e.text);
        ck_assert_msg(co_blk_snapshot_delete(dev, list[0].id, &freed, &e) == 0, "%s", e.text);
    }
    blk_snapshots_drop(list, count);
}

static const struct change {
    const char *name;
    void (*co_do)(struct blk_device *dev);
} changes[] = {
    {"a write", co_do_write},       {"zeroes", co_do_zero},   {"a discard", co_do_discard},
    {"letting go", co_do_empty},    {"commit", co_do_commit}, {"resize", co_do_resize},
    {"a snapshot", co_do_snapshot},
};

/* At the top, or in a layer that others stand on, which is made writable for a while. */
static void co_change(const struct chain *c, struct blk_device *top)
{
    unsigned depth = draw(2) ? (unsigned)draw(LAYERS) : 0, times = 1 + (unsigned)draw(3);
    struct blk_device *dev = layer_of(top, depth);
    bool stays = draw(4) == 0;
    co_reopen(dev, true);
    while (times--) {
        const struct change *change = &changes[draw(ARRAY_LEN(changes))];
        change->co_do(dev);
        if (draw(2))
            co_compare(c, top, change->name);
    }
    if (depth && !stays)
        co_reopen(dev, false);
    co_compare(c, top, "all of it");
}

static const struct chain chains[] = {
    {.options = {NULL, "cluster_size=64k", "cluster_size=64k", "cluster_size=64k",
                 "cluster_size=64k", "cluster_size=64k"}},
    {.options = {NULL, "cluster_size=4k", "cluster_size=4k", "cluster_size=4k", "cluster_size=4k",
                 "cluster_size=4k"},
     .packs = true},
    {.options = {"cluster_size=512", "cluster_size=64k", "cluster_size=512", "cluster_size=4k",
                 "cluster_size=16k", "cluster_size=512"}},
    {.options = {"cluster_size=64k", "cluster_size=16k,extended_l2=on", "cluster_size=64k",
                 "cluster_size=32k,extended_l2=on", "cluster_size=16k,extended_l2=on",
                 "cluster_size=64k"}},
    {.options = {NULL, "cluster_size=16k", "cluster_size=8k,compat=0.10", "cluster_size=16k",
                 "cluster_size=64k", "cluster_size=16k"},
     .size = {SIZE / 2 + 512, SIZE / 4, SIZE + 1536, 3 * SIZE / 4 + 4096, SIZE - 512, 0},
     .packs = true},
};

static int co_random(void *arg)
{
    const struct chain *c = arg;
    co_make_chain(c);
    struct blk_device *top = co_open_chain(c, LAYERS - 1, BLK_OPEN_WRITE);
    co_compare(c, top, "opening");
    ck_assert_ptr_nonnull(top->behind);
    unsigned rounds = long_form() ? 300 : 15;
    for (unsigned i = 0; i < rounds; i++)
        co_change(c, top);
    co_close_ok(top);
    return 0;
}

START_TEST(whatever_changes_the_layers)
{
    random_state = (unsigned)_i;
    on_host("threads", co_random, (void *)&chains[_i]);
}
END_TEST

/* --- other devices behind -------------------------------------------------------------------- */

/* The image takes in all that shows through it, and stands on what is two below: what lay between
 * is closed. */
static void co_stand_lower(struct blk_device *dev)
{
    struct blk_device *old, *low = dev->backing->backing;
    struct blk_error e = {0};
    co_reopen(dev, true);
    for (uint64_t at = 0; at < dev->size; at += sizeof(buf)) {
        uint64_t n = MIN(sizeof(buf), dev->size - at);
        ck_assert_int_eq(co_blk_read_buf(dev, at, buf, n), 0);
        ck_assert_int_eq(co_blk_write_buf(dev, at, buf, n, 0), 0);
    }
    ck_assert_int_eq(co_blk_exchange_child(dev, "backing", blk_ref(low), &old, &e), 0);
    co_close_ok(old);
    co_reopen(dev, false);
}

static int co_exchange(void *arg)
{
    const struct chain *c = arg;
    co_make_chain(c);
    struct blk_device *top = co_open_chain(c, LAYERS - 1, BLK_OPEN_WRITE);
    co_compare(c, top, "opening");
    co_stand_lower(top->backing);
    co_compare(c, top, "standing lower");
    co_stand_lower(top->backing);
    co_compare(c, top, "standing lower again");
    co_close_ok(top);
    return 0;
}

START_TEST(layers_that_go)
{
    random_state = (unsigned)_i;
    on_host("threads", co_exchange, (void *)&chains[_i]);
}
END_TEST

/* An empty top shows what it stands on now. */
static int co_stand_elsewhere(void *arg)
{
    struct blk_device *top, *low, *old;
    struct blk_error e = {0};
    (void)arg;
    co_make_chain(&chains[0]);
    top = co_open_chain(&chains[0], LAYERS - 1, BLK_OPEN_WRITE);
    low = top->backing->backing;
    co_do_empty(top);
    co_compare(&chains[0], top, "letting go");
    ck_assert_int_eq(co_blk_exchange_child(top, "backing", blk_ref(low), &old, &e), 0);
    co_close_ok(old);
    co_read_all(low, judge, SIZE);
    co_read_all(top, seen, 4096);
    ck_assert_mem_eq(seen, judge, SIZE);
    co_close_ok(top);
    return 0;
}

START_TEST(a_top_that_goes_elsewhere)
{
    on_host("threads", co_stand_elsewhere, NULL);
}
END_TEST

/* --- that it is used -------------------------------------------------------------------------- */

static unsigned asked(struct blk_device *spy)
{
    unsigned n = *(unsigned *)spy->state;
    *(unsigned *)spy->state = 0;
    return n;
}

/* An overlay in memory, put on top of what is open. */
static struct blk_device *co_open_over(struct blk_device *top)
{
    struct chain c = {.options = {"cluster_size=64k", "cluster_size=64k"}};
    struct blk_device *disk = co_open_text(&mem_driver, "", NULL), *over, *none;
    struct blk_error e = {0};
    co_make_qcow2(&c, 1, disk);
    over = co_open_text(&qcow2_driver, "", disk);
    ck_assert_int_eq(co_blk_exchange_child(over, "backing", blk_ref(top), &none, &e), 0);
    ck_assert_ptr_null(none);
    return over;
}

static int co_spied(void *arg)
{
    struct chain c = chains[0];
    (void)arg;
    c.spied = true;
    co_make_chain(&c);
    struct blk_device *top = co_open_chain(&c, LAYERS - 1, BLK_OPEN_WRITE);
    struct blk_device *spy = top->backing;
    co_do_empty(top);
    co_read_all(top, seen, 4096);
    co_read_all(top, seen, 4096);
    asked(spy);
    co_read_all(top, judge, 4096);
    ck_assert_uint_eq(asked(spy), 0);
    ck_assert_mem_eq(seen, judge, SIZE);
    struct blk_device *over = co_open_over(top); /* who keeps it then; and again */
    co_read_all(over, judge, 4096);
    ck_assert_ptr_nonnull(over->behind);
    co_read_all(top, judge, 4096);
    ck_assert_ptr_null(top->behind);
    co_close_ok(over);
    co_read_all(top, judge, 4096);
    ck_assert_ptr_nonnull(top->behind);
    co_reopen(spy->children[0].dev, true); /* not while somebody may write */
    co_reopen(spy->children[0].dev, false);
    co_read_all(top, judge, 4096);
    ck_assert_uint_ge(asked(spy), SIZE / (64 * KiB));
    ck_assert_mem_eq(seen, judge, SIZE);
    co_close_ok(top);
    return 0;
}

START_TEST(the_layers_are_asked_once)
{
    on_host("threads", co_spied, NULL);
}
END_TEST

/* Layers without a table of entries there: only the top and the lowest hold something. */
static int co_without_tables(void *arg)
{
    struct chain c = chains[0];
    struct blk_place p;
    (void)arg;
    for (unsigned i = 0; i < LAYERS; i++)
        co_make(&c, i);
    struct blk_device *top = co_open_chain(&c, LAYERS - 1, BLK_OPEN_WRITE);
    ck_assert_int_eq(co_blk_write_buf(top, 0, buf, 512, 0), 0);
    ck_assert(!blk_resolve(top, SIZE / 2, 4096, false, &p));
    ck_assert_int_eq(co_blk_read_buf(top, SIZE / 2, buf, 4096), 0);
    ck_assert(blk_resolve(top, SIZE / 2, 4096, false, &p));
    ck_assert_uint_eq(p.offset, SIZE / 2);
    ck_assert_ptr_eq(p.file, layer_of(top, LAYERS - 1)->children[0].dev->file);
    co_close_ok(top);
    return 0;
}

START_TEST(layers_without_tables_are_passed)
{
    on_host("threads", co_without_tables, NULL);
}
END_TEST

/* The first bytes of each GiB are its number. */
static void co_read_number(struct blk_device *dev, uint64_t number, uint64_t at, uint64_t bytes)
{
    ck_assert_int_eq(co_blk_read_buf(dev, number * GiB + at, buf, bytes), 0);
    ck_assert_uint_eq(buf[0], number + 1);
    ck_assert(memcmp(buf, buf + 1, bytes - 1) == 0);
}

/* More blocks than are kept take turns. */
static int co_take_turns(void *arg)
{
    struct chain c = chains[1];
    uint64_t size = 4 * GiB;
    (void)arg;
    for (unsigned i = 0; i < LAYERS; i++)
        c.size[i] = size;
    for (unsigned i = 0; i < LAYERS; i++)
        co_make(&c, i);
    for (unsigned i = 0; i < 4; i++) {
        struct blk_device *dev = co_open_chain(&c, 1 + i, BLK_OPEN_WRITE);
        memset(buf, (int)i + 1, 32 * KiB);
        ck_assert_int_eq(co_blk_write_buf(dev, i * GiB, buf, 32 * KiB, 0), 0);
        co_close_ok(dev);
    }
    struct blk_device *top = co_open_chain(&c, LAYERS - 1, BLK_OPEN_WRITE);
    ck_assert_int_eq(co_blk_write_buf(top, 64 * KiB, buf, 512, 0), 0);
    for (unsigned n = 0; n < 40; n++) {
        uint64_t i = draw(4), other = draw(4);
        for (uint64_t at = 0; at < 32 * KiB; at += 4096)
            co_read_number(top, i, at, 4096);
        co_read_number(top, other, 0, 32 * KiB);
    }
    co_close_ok(top);
    return 0;
}

START_TEST(more_blocks_than_are_kept)
{
    on_host("threads", co_take_turns, NULL);
}
END_TEST

/* Who cannot have the memory asks. */
static int co_no_memory(void *arg)
{
    const struct chain *c = &chains[0];
    (void)arg;
    co_make_chain(c);
    struct blk_device *top = co_open_chain(c, LAYERS - 1, BLK_OPEN_WRITE);
    /* A whole cluster: the table is read then, and nothing behind. */
    ck_assert_int_eq(co_blk_write_buf(top, 0, buf, 64 * KiB, 0), 0);
    ck_assert_int_eq(co_blk_flush(top), 0);
    struct blk_device *fresh = co_open_chain(c, LAYERS - 1, BLK_OPEN_FORCE_SHARE);
    co_read_all(fresh, judge, 4096);
    ck_assert_uint_eq(top->behind_at, 0);
    worker_self()->alloc_fault = (struct alloc_fault){.countdown = 1, .sticky = true};
    for (uint64_t at = 0; at < SIZE && !top->behind_at; at += 4096)
        (void)!co_blk_read_buf(top, at, seen, 4096);
    worker_self()->alloc_fault = (struct alloc_fault){0};
    ck_assert_uint_ne(top->behind_at, 0);
    ck_assert_ptr_null(top->behind);
    co_read_all(top, seen, 4096);
    ck_assert_mem_eq(seen, judge, SIZE);
    co_close_ok(fresh);
    co_close_ok(top);
    return 0;
}

START_TEST(without_memory)
{
    on_host("threads", co_no_memory, NULL);
}
END_TEST

static void begin(void)
{
    snprintf(dir, sizeof(dir), "%s/behind.XXXXXX", fast_folder());
    must(mkdtemp(dir));
    random_state = 1;
}

static void end(void)
{
    for (unsigned i = 0; i < LAYERS; i++)
        unlink(path(i));
    rmdir(dir);
}

int main(void)
{
    Suite *s = suite_create("behind");
    TCase *t = tcase_create("behind");
    SRunner *r = srunner_create(s);
    tcase_add_checked_fixture(t, begin, end);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, whatever_changes_the_layers, 0, ARRAY_LEN(chains));
    tcase_add_loop_test(t, layers_that_go, 0, ARRAY_LEN(chains));
    tcase_add_test(t, a_top_that_goes_elsewhere);
    tcase_add_test(t, the_layers_are_asked_once);
    tcase_add_test(t, layers_without_tables_are_passed);
    tcase_add_test(t, more_blocks_than_are_kept);
    tcase_add_test(t, without_memory);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}

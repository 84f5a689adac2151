/* SPDX-License-Identifier: BSD-3-Clause */
/* thin.c - thin pools on disks in memory: a random life of volumes and snapshots beside a model,
 * the metadata checked as it goes; a pool that runs full; growth; reservation and quota. */
#include <check.h>

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
    s->data = co_disk(blocks * CHUNK);
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

static int co_random_life(void *arg)
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

START_TEST(random_life)
{
    ck_assert_int_eq(on_host(NULL, co_random_life, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("thin");
    TCase *t = tcase_create("thin");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, random_life);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_io.c - the qcow2 driver over real files: random operations against an array of bytes, the
 * images judged by our own check and by the installed qemu-img. */
#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "imgfmt/qcow2.h"
#include "imgfmt/raw.h"
#include "tests/lib/on_host.h"

static char dir[200];
static bool have_qemu;

static const char *path(const char *name)
{
    static char text[4][256];
    static unsigned turn;
    char *out = text[turn++ % 4];
    snprintf(out, 256, "%s/%s", dir, name);
    return out;
}

static int run(const char *fmt, ...) printf_like(1, 2);
static int run(const char *fmt, ...)
{
    char command[2000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    return system(command);
}

/* --- images ---------------------------------------------------------------------------------- */

struct image {
    const char *name, *options;
    uint64_t size;
    struct blk_device *dev;
    const char *open_options;
    const struct image *backing;
};

static struct blk_device *co_file(const char *name, bool write)
{
    char options[400];
    struct blk_device *file = NULL;
    struct blk_error e = {0};
    snprintf(options, sizeof(options), "filename=%s", path(name));
    int rc = co_try_open_text(&file_driver, options, write ? BLK_OPEN_WRITE : 0, NULL, &file, &e);
    ck_assert_msg(rc == 0, "%s: %s", name, e.text);
    return file;
}

static int co_make_on(struct blk_device *file, const struct image *i, struct blk_error *e)
{
    struct blk_create c = {.file = file, .size = i->size};
    return co_try_create_text(&qcow2_driver, i->options, &c, e);
}

static void co_make(const struct image *i)
{
    struct blk_error e = {0};
    FILE *f = fopen(path(i->name), "w");
    ck_assert_ptr_nonnull(f);
    fclose(f);
    struct blk_device *file = co_file(i->name, true);
    int rc = co_make_on(file, i, &e);
    ck_assert_msg(rc == 0, "%s: %s", i->options, e.text);
    co_close_ok(file);
}

static int co_try_open(struct image *i, unsigned flags, struct blk_error *e)
{
    json_t *tree = json_object();
    ck_assert_int_eq(opts_text_to_tree(i->open_options ? i->open_options : "", NULL, tree, e), 0);
    struct blk_child children[2] = {
        {.role = "file", .dev = co_file(i->name, flags & BLK_OPEN_WRITE)},
        {.role = "backing", .dev = i->backing ? blk_ref(i->backing->dev) : NULL},
    };
    int rc = co_blk_open(&qcow2_driver, i->name, tree, flags, NULL, children, i->backing ? 2 : 1,
                         &i->dev, e);
    json_decref(tree);
    return rc;
}

static void co_open(struct image *i, unsigned flags)
{
    struct blk_error e = {0};
    ck_assert_msg(co_try_open(i, flags, &e) == 0, "%s: %s", i->name, e.text);
}

static void print_sentence(struct blk_check *c, const char *sentence)
{
    printf("# %s\n", sentence);
}

/* Nothing but what the caller expects. */
static struct blk_check co_judge(struct image *i)
{
    struct blk_check c = {.say = print_sentence};
    struct blk_error e = {0};
    ck_assert_msg(co_blk_check(i->dev, &c, &e) == 0, "%s", e.text);
    return c;
}

static void co_judge_clean(struct image *i)
{
    struct blk_check c = co_judge(i);
    ck_assert_uint_eq(c.corruptions, 0);
    ck_assert_uint_eq(c.check_errors, 0);
    ck_assert_uint_eq(c.leaks, 0);
}

static void qemu_judge_clean(const struct image *i)
{
    if (have_qemu)
        ck_assert_msg(run("qemu-img check -q %s >%s 2>&1 || { cat %s; false; }", path(i->name),
                          path("out"), path("out")) == 0,
                      "qemu-img check %s (%s)", i->name, i->options);
}

/* --- the model ------------------------------------------------------------------------------- */

struct world {
    struct image *image;
    uint8_t *bytes;
    uint64_t seed, room;
    unsigned ops;
    bool compress, resize;
    uint8_t *buf;
};

static void co_compare_all(struct world *w)
{
    uint64_t size = w->image->dev->size;
    uint8_t *got = malloc(size);
    ck_assert_int_eq(co_blk_read_buf(w->image->dev, 0, got, size), 0);
    uint64_t at = 0;
    while (at < size && got[at] == w->bytes[at])
        at++;
    ck_assert_msg(at == size, "%s: byte %" PRIu64 " is %u, not %u", w->image->options, at, got[at],
                  w->bytes[at]);
    free(got);
}

static void qemu_compare(const struct world *w)
{
    if (!have_qemu)
        return;
    FILE *f = fopen(path("model.raw"), "w");
    ck_assert_uint_eq(fwrite(w->bytes, 1, w->image->size, f), w->image->size);
    fclose(f);
    ck_assert_msg(run("qemu-img compare -q -f raw -F qcow2 %s %s", path("model.raw"),
                      path(w->image->name)) == 0,
                  "qemu-img compare (%s)", w->image->options);
}

static void co_reopen(struct world *w)
{
    co_close_ok(w->image->dev);
    qemu_judge_clean(w->image);
    co_open(w->image, BLK_OPEN_WRITE);
}

static void co_resize(struct world *w)
{
    struct blk_error e = {0};
    uint64_t size = next_random(&w->seed) % (w->room / 512) * 512 + 512;
    uint64_t old = w->image->size;
    ck_assert_msg(co_blk_resize(w->image->dev, size, true, &e) == 0, "%s", e.text);
    ck_assert_uint_eq(w->image->dev->size, size);
    if (size > old)
        memset(w->bytes + old, 0, size - old);
    w->image->size = size;
}

static void co_one_op(struct world *w)
{
    struct blk_device *dev = w->image->dev;
    uint64_t size = w->image->size, cluster = dev->limits.cluster_size;
    uint64_t kind = next_random(&w->seed) % 100;
    uint64_t at = next_random(&w->seed) % size;
    uint64_t n = 1 + next_random(&w->seed) % (next_random(&w->seed) % 8 ? 3 * cluster : 20 * KiB);
    if (next_random(&w->seed) % 2) {
        at = align_down(at, cluster);
        n = align_up(n, cluster);
    }
    n = MIN(MIN(n, size - at), 8 * MiB);
    if (kind < 45) {
        fill_random(&w->seed, w->buf, n);
        ck_assert_int_eq(co_blk_write_buf(dev, at, w->buf, n, kind < 5 ? BLK_FUA : 0), 0);
        memcpy(w->bytes + at, w->buf, n);
    } else if (kind < 60) {
        ck_assert_int_eq(co_blk_read_buf(dev, at, w->buf, n), 0);
        ck_assert_int_eq(memcmp(w->buf, w->bytes + at, n), 0);
    } else if (kind < 75) {
        ck_assert_int_eq(co_blk_write_zeroes(dev, at, n, kind & 1 ? BLK_MAY_UNMAP : 0), 0);
        memset(w->bytes + at, 0, n);
    } else if (kind < 85 && !w->image->backing) {
        ck_assert_int_eq(co_blk_discard(dev, at, n), 0);
        ck_assert_int_eq(co_blk_read_buf(dev, at, w->bytes + at, n), 0);
    } else if (kind < 92 && w->compress) {
        at = align_down(at, cluster);
        uint64_t want = cluster * (1 + next_random(&w->seed) % 3);
        n = MIN(want, size - at);
        for (uint64_t i = 0; i < n; i++)
            w->buf[i] = (uint8_t)((at + i) / 37 * kind);
        ck_assert_int_eq(co_blk_write_buf(dev, at, w->buf, n, BLK_COMPRESSED), 0);
        memcpy(w->bytes + at, w->buf, n);
    } else if (kind < 96) {
        ck_assert_int_eq(co_blk_flush(dev), 0);
    } else if (kind < 98 && w->resize) {
        co_resize(w);
    } else if (kind == 99 && next_random(&w->seed) % 4 == 0) {
        co_reopen(w);
    }
}

static int co_random_world(void *arg)
{
    struct world *w = arg;
    struct image *i = w->image;
    w->room = i->size * 2;
    w->bytes = calloc(1, w->room);
    w->buf = malloc(9 * MiB);
    co_make(i);
    co_open(i, BLK_OPEN_WRITE);
    if (i->backing)
        ck_assert_int_eq(
            co_blk_read_buf(i->backing->dev, 0, w->bytes, MIN(i->size, i->backing->dev->size)), 0);
    for (unsigned op = 0; op < w->ops; op++)
        co_one_op(w);
    co_compare_all(w);
    co_close_ok(i->dev);
    qemu_judge_clean(i);
    if (!i->backing)
        qemu_compare(w);
    co_open(i, 0);
    co_compare_all(w);
    co_judge_clean(i);
    co_close_ok(i->dev);
    free(w->bytes);
    free(w->buf);
    return 0;
}

/* --- tests ----------------------------------------------------------------------------------- */

static const struct image variants[] = {
    {.name = "a.qcow2", .options = "cluster_size=512", .size = 300 * KiB + 512},
    {.name = "a.qcow2", .options = "cluster_size=512,refcount_bits=1", .size = 200 * KiB},
    {.name = "a.qcow2", .options = "cluster_size=512,refcount_bits=64", .size = 700 * KiB},
    {.name = "a.qcow2", .options = "cluster_size=1k,refcount_bits=2", .size = 500 * KiB},
    {.name = "a.qcow2", .options = "cluster_size=2k,refcount_bits=4", .size = 1 * MiB},
    {.name = "a.qcow2", .options = "cluster_size=4k,refcount_bits=8", .size = 2 * MiB},
    {.name = "a.qcow2", .options = "cluster_size=4k,compat=0.10", .size = 2 * MiB},
    {.name = "a.qcow2",
     .options = "cluster_size=4k,refcount_bits=32,compression_type=zstd",
     .size = 2 * MiB},
    {.name = "a.qcow2", .options = "", .size = 8 * MiB},
    {.name = "a.qcow2", .options = "lazy_refcounts=on", .size = 4 * MiB},
    {.name = "a.qcow2", .options = "compat=0.10", .size = 8 * MiB},
    {.name = "a.qcow2", .options = "cluster_size=2M", .size = 16 * MiB},
    {.name = "a.qcow2", .options = "extended_l2=on,cluster_size=16k", .size = 1 * MiB + 512},
    {.name = "a.qcow2", .options = "extended_l2=on,compression_type=zstd", .size = 4 * MiB},
};

START_TEST(random_operations)
{
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct image i = variants[_i];
        struct world w = {.image = &i,
                          .seed = seed * 1000 + (uint64_t)_i,
                          .ops = 400,
                          .compress = seed & 1,
                          .resize = true};
        i.open_options = seed == 2 ? "cache-size=8K" : "";
        on_host(NULL, co_random_world, &w);
    }
}
END_TEST

CO_TEST(random_operations_over_a_backing_file)
{
    struct image raw = {.name = "base.raw", .size = 1 * MiB + 700};
    uint8_t *bytes = malloc(raw.size);
    uint64_t seed = 5;
    FILE *f = fopen(path(raw.name), "w");
    fill_random(&seed, bytes, raw.size);
    ck_assert_uint_eq(fwrite(bytes, 1, raw.size, f), raw.size);
    fclose(f);
    raw.dev = co_open_text(&raw_driver, "", co_file(raw.name, false));
    for (int n = 0; n < 6; n++) {
        static const char *const options[] = {"cluster_size=512",
                                              "",
                                              "compat=0.10,cluster_size=4k",
                                              "cluster_size=16k,compression_type=zstd",
                                              "extended_l2=on,cluster_size=32k",
                                              "extended_l2=on,preallocation=metadata"};
        char all[300];
        snprintf(all, sizeof(all), "%s,backing_file=%s,backing_fmt=raw", options[n],
                 path(raw.name));
        struct image i = {.name = "a.qcow2",
                          .options = all + (all[0] == ','),
                          .backing = &raw,
                          .size = (n & 1 ? 512 : 2048) * KiB};
        struct world w = {
            .image = &i, .seed = (uint64_t)n + 70, .ops = 300, .compress = true, .resize = true};
        co_random_world(&w);
    }
    co_close_ok(raw.dev);
    free(bytes);
    return 0;
}

/* Every preallocation, cluster size and width: what we make is what qemu-img takes for sound. */
CO_TEST(what_is_created_is_sound)
{
    static const char *const pre[] = {"off", "metadata", "falloc", "full"};
    for (unsigned bits = 9; bits <= 21; bits++) {
        char options[200];
        struct image i = {.name = "a.qcow2", .options = options};
        i.size = bits < 12 ? 3 * MiB + 1000 : 37 * MiB;
        snprintf(options, sizeof(options), "cluster_size=%u,refcount_bits=%u,preallocation=%s",
                 1u << bits, 1u << bits % 7, pre[bits % 4]);
        co_make(&i);
        qemu_judge_clean(&i);
        co_open(&i, 0);
        co_judge_clean(&i);
        co_close_ok(i.dev);
    }
    struct image big = {.name = "a.qcow2", .options = "cluster_size=2M", .size = 1ULL << 60};
    co_make(&big);
    qemu_judge_clean(&big);
    struct image none = {.name = "a.qcow2", .options = "", .size = 0};
    co_make(&none);
    qemu_judge_clean(&none);
    co_open(&none, BLK_OPEN_WRITE);
    ck_assert_uint_eq(none.dev->size, 0);
    struct blk_error e = {0};
    ck_assert_msg(co_blk_resize(none.dev, 5 * MiB, false, &e) == 0, "%s", e.text);
    co_close_ok(none.dev);
    qemu_judge_clean(&none);
    return 0;
}

CO_TEST(bad_options_are_refused_with_a_sentence)
{
    static const struct {
        const char *options, *word;
        uint64_t size;
    } rows[] = {
        {"cluster_size=1000", "power of two", 1 * MiB},
        {"cluster_size=256", "power of two", 1 * MiB},
        {"cluster_size=4M", "power of two", 1 * MiB},
        {"refcount_bits=3", "power of two", 1 * MiB},
        {"refcount_bits=128", "power of two", 1 * MiB},
        {"compat=0.10,refcount_bits=8", "1.1 or above", 1 * MiB},
        {"compat=0.10,lazy_refcounts=on", "1.1 and above", 1 * MiB},
        {"compat=v2,compression_type=zstd", "1.1 and above", 1 * MiB},
        {"extended_l2=on,compat=0.10", "1.1 and above", 1 * MiB},
        {"extended_l2=on,cluster_size=8k", "at least 16384", 1 * MiB},
        {"data_file=x", "data file", 1 * MiB},
        {"data_file_raw=on", "data-file-raw requires", 1 * MiB},
        {"data_file=x,compat=0.10", "1.1 and above", 1 * MiB},
        {"encryption=on", "encrypt", 1 * MiB},
        {"encrypt.format=luks", "secret", 1 * MiB},
        {"encrypt.format=aes", "luks", 1 * MiB},
        {"backing_file=x", "backing_fmt", 1 * MiB},
        {"backing_file=x,backing_fmt=raw,preallocation=full", "extended_l2", 1 * MiB},
        {"cluster_size=512", "too large", 1ULL << 40},
        {"", "too large", 1ULL << 63},
    };
    for (size_t n = 0; n < ARRAY_LEN(rows); n++) {
        struct image i = {.name = "a.qcow2", .options = rows[n].options, .size = rows[n].size};
        struct blk_device *mem = co_open_text(&mem_driver, "size=0", NULL);
        struct blk_error e = {0};
        ck_assert_msg(co_make_on(mem, &i, &e) < 0, "%s", rows[n].options);
        ck_assert_msg(strstr(e.text, rows[n].word), "%s: %s", rows[n].options, e.text);
        co_close_ok(mem);
    }
    return 0;
}

/* --- damage ---------------------------------------------------------------------------------- */

static void co_poke(const char *name, uint64_t at, uint64_t value, unsigned bytes)
{
    struct blk_device *file = co_file(name, true);
    be64 raw = be64_of(value);
    ck_assert_int_eq(co_blk_write_buf(file, at, raw.b + 8 - bytes, bytes, 0), 0);
    co_close_ok(file);
}

static struct image co_small_image(void)
{
    struct image i = {.name = "a.qcow2", .options = "", .size = 4 * MiB};
    static uint8_t buf[64 * KiB]; /* a stack has no more */
    memset(buf, 7, sizeof(buf));
    co_make(&i);
    co_open(&i, BLK_OPEN_WRITE);
    for (uint64_t c = 0; c < 4; c++)
        ck_assert_int_eq(co_blk_write_buf(i.dev, c * 64 * KiB, buf, sizeof(buf), 0), 0);
    co_close_ok(i.dev);
    return i;
}

/* In co_small_image(): header, table, block at 2, L1 at 3, then an L2 table and four clusters. */
CO_TEST(leaks_are_found_and_repaired)
{
    struct image i = co_small_image();
    co_poke(i.name, 2 * 64 * KiB + 2 * 20, 1, 2); /* cluster 20 is nobody's */
    co_poke(i.name, 2 * 64 * KiB + 2 * 5, 3, 2);  /* one too many */
    co_open(&i, 0);
    struct blk_check c = co_judge(&i);
    ck_assert_uint_eq(c.leaks, 2);
    ck_assert_uint_eq(c.corruptions, 1); /* its COPIED flag no longer fits */
    ck_assert_uint_eq(c.total_clusters, 64);
    ck_assert_uint_eq(c.allocated_clusters, 4);
    ck_assert_uint_eq(c.image_end, 21 * 64 * KiB);
    co_close_ok(i.dev);
    co_open(&i, BLK_OPEN_WRITE | BLK_OPEN_CHECK);
    struct blk_check fix = {.fix_leaks = true};
    struct blk_error e = {0};
    ck_assert_msg(co_blk_check(i.dev, &fix, &e) == 0, "%s", e.text);
    ck_assert_uint_eq(fix.leaks_fixed, 2);
    ck_assert_uint_eq(fix.leaks, 0);
    co_close_ok(i.dev);
    qemu_judge_clean(&i);
    return 0;
}

CO_TEST(an_image_found_corrupt_is_marked_and_read_only)
{
    struct image i = co_small_image();
    uint64_t l2 = 4 * 64 * KiB;
    uint8_t buf[512] = {0};
    co_poke(i.name, l2, QCOW2_COPIED | 64 * KiB, 8); /* lies on the refcount table */
    co_poke(i.name, l2 + 8, QCOW2_COPIED | (6 * 64 * KiB + 512), 8); /* misaligned */
    co_poke(i.name, l2 + 16, QCOW2_COPIED | 1000ULL * 64 * KiB, 8);  /* beyond the end */
    co_open(&i, 0);
    struct blk_check c = co_judge(&i);
    ck_assert_uint_ge(c.corruptions, 3);
    co_close_ok(i.dev);
    co_open(&i, BLK_OPEN_WRITE);
    ck_assert_int_eq(co_blk_write_buf(i.dev, 0, buf, sizeof(buf), 0), -EIO);
    ck_assert(!i.dev->writable || i.dev->marked_corrupt);
    ck_assert_int_lt(co_blk_write_buf(i.dev, 3 * 64 * KiB, buf, sizeof(buf), 0), 0);
    ck_assert_int_eq(co_blk_read_buf(i.dev, 3 * 64 * KiB, buf, sizeof(buf)), 0);
    ck_assert_uint_eq(buf[0], 7);
    (void)!co_blk_close(i.dev, NULL);
    /* The mark is on disk: it stays read-only. */
    struct blk_error e = {0};
    ck_assert_int_eq(co_try_open(&i, BLK_OPEN_WRITE, &e), -EACCES);
    ck_assert_msg(strstr(e.text, "corrupt"), "%s", e.text);
    co_open(&i, 0);
    ck_assert(((struct qcow2 *)i.dev->state)->header.incompatible & QCOW2_CORRUPT);
    co_close_ok(i.dev);
    return 0;
}

CO_TEST(shared_clusters_are_copied_to_be_written)
{
    struct image i = co_small_image();
    static uint8_t buf[64 * KiB]; /* a stack has no more */
    /* As a snapshot would leave it: two references, no COPIED flags. Here the second reference is
     * another virtual cluster. */
    co_poke(i.name, 4 * 64 * KiB, 5 * 64 * KiB, 8);
    co_poke(i.name, 4 * 64 * KiB + 8 * 40, 5 * 64 * KiB, 8);
    co_poke(i.name, 2 * 64 * KiB + 2 * 5, 2, 2);
    co_open(&i, BLK_OPEN_WRITE);
    memset(buf, 9, 512);
    ck_assert_int_eq(co_blk_write_buf(i.dev, 1000, buf, 512, 0), 0);
    ck_assert_int_eq(co_blk_read_buf(i.dev, 40 * 64 * KiB, buf, sizeof(buf)), 0);
    for (size_t b = 0; b < sizeof(buf); b++)
        if (buf[b] != 7)
            ck_abort_msg("byte %zu is %u", b, buf[b]);
    ck_assert_int_eq(co_blk_read_buf(i.dev, 0, buf, sizeof(buf)), 0);
    for (size_t b = 0; b < sizeof(buf); b++)
        if (buf[b] != (b >= 1000 && b < 1512 ? 9 : 7))
            ck_abort_msg("byte %zu is %u", b, buf[b]);
    co_close_ok(i.dev);
    co_open(&i, 0);
    struct blk_check c = co_judge(&i);
    /* One reference is left and its flag is still clear: as after a snapshot's end. */
    ck_assert_uint_eq(c.corruptions, 1);
    ck_assert_uint_eq(c.leaks, 0);
    co_close_ok(i.dev);
    return 0;
}

/* Space that is freed is used again, in the session and after. */
CO_TEST(freed_space_is_used_again)
{
    struct image i = {.name = "a.qcow2", .options = "cluster_size=4k", .size = 16 * MiB};
    uint8_t *buf = malloc(1 * MiB);
    uint64_t sizes[2];
    memset(buf, 3, 1 * MiB);
    co_make(&i);
    co_open(&i, BLK_OPEN_WRITE);
    for (int round = 0; round < 30; round++) {
        for (uint64_t at = 0; at < 4 * MiB; at += 1 * MiB)
            ck_assert_int_eq(co_blk_write_buf(i.dev, at, buf, 1 * MiB, 0), 0);
        ck_assert_int_eq(co_blk_discard(i.dev, 0, 4 * MiB), 0);
        ck_assert_int_eq(co_blk_flush(i.dev), 0);
        /* What was let go of is counted in the background. */
        ck_assert_int_eq(co_qcow2_settle((struct qcow2 *)i.dev->state, true), 0);
        if (round % 10 == 9) {
            co_close_ok(i.dev);
            co_open(&i, BLK_OPEN_WRITE);
        }
        if (round < 2)
            sizes[round] = blk_child(i.dev, "file")->size;
    }
    ck_assert_uint_le(blk_child(i.dev, "file")->size, 2 * sizes[1]);
    co_judge_clean(&i);
    co_close_ok(i.dev);
    qemu_judge_clean(&i);
    free(buf);
    return 0;
}

/* A small refcount table, as other programs make it: it has to grow. */
CO_TEST(the_refcount_table_and_the_l1_table_grow)
{
    struct image i = {.name = "a.qcow2", .options = "qemu", .size = 64 * MiB};
    uint8_t *buf = malloc(1 * MiB);
    if (!have_qemu)
        return 0;
    ck_assert_int_eq(run("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 %s 64M",
                         path(i.name)),
                     0);
    co_open(&i, BLK_OPEN_WRITE);
    for (uint64_t at = 0; at < 40; at++) {
        memset(buf, (int)at + 1, 1 * MiB);
        ck_assert_int_eq(co_blk_write_buf(i.dev, at * MiB, buf, 1 * MiB, 0), 0);
    }
    ck_assert_uint_gt(((struct qcow2 *)i.dev->state)->header.refcount_table_clusters, 1);
    for (uint64_t at = 0; at < 40; at++) {
        ck_assert_int_eq(co_blk_read_buf(i.dev, at * MiB, buf, 1 * MiB), 0);
        ck_assert_uint_eq(buf[12345], at + 1);
    }
    struct blk_error e = {0};
    ck_assert_msg(co_blk_resize(i.dev, 8 * GiB, false, &e) == 0, "%s", e.text);
    ck_assert_int_eq(co_blk_write_buf(i.dev, 8 * GiB - 1 * MiB, buf, 1 * MiB, 0), 0);
    co_judge_clean(&i);
    co_close_ok(i.dev);
    qemu_judge_clean(&i);
    free(buf);
    return 0;
}

CO_TEST(unknown_autoclear_bits_go_with_the_first_write)
{
    struct image i = co_small_image();
    uint8_t one = 1;
    co_poke(i.name, 88, 0xf0, 8);
    co_open(&i, 0);
    ck_assert_int_eq(co_blk_read_buf(i.dev, 0, &one, 1), 0);
    co_close_ok(i.dev);
    co_open(&i, 0); /* reading left them alone */
    ck_assert_uint_eq(((struct qcow2 *)i.dev->state)->header.autoclear, 0xf0);
    co_close_ok(i.dev);
    co_open(&i, BLK_OPEN_WRITE);
    ck_assert_int_eq(co_blk_write_buf(i.dev, 0, &one, 1, 0), 0);
    co_close_ok(i.dev);
    co_open(&i, 0);
    ck_assert_uint_eq(((struct qcow2 *)i.dev->state)->header.autoclear, 0);
    co_close_ok(i.dev);
    return 0;
}

/* A fresh image is none until it is complete. */
CO_TEST(a_fresh_image_is_none_until_complete)
{
    struct image i = {.name = "a.qcow2", .options = "", .size = 4 * MiB};
    struct blk_error e = {0};
    struct opts o;
    uint8_t buf[1000];
    memset(buf, 4, sizeof(buf));
    co_make(&i); /* something to write over */
    struct blk_device *file = co_file(i.name, true);
    ck_assert_int_eq(opts_parse(qcow2_create_options, NULL, &o, &e), 0);
    struct blk_create c = {.file = file, .opts = &o, .size = i.size, .fresh = true};
    ck_assert_int_eq(co_qcow2_create(&c, &e), 0);
    opts_drop(&o);
    co_close_ok(file);
    ck_assert_int_eq(co_try_open(&i, 0, &e), -EINVAL);
    co_open(&i, BLK_OPEN_WRITE | BLK_OPEN_FRESH);
    ck_assert_int_eq(co_blk_write_buf(i.dev, 100, buf, sizeof(buf), 0), 0);
    ck_assert_msg(co_blk_complete(i.dev, &e) == 0, "%s", e.text);
    co_close_ok(i.dev);
    qemu_judge_clean(&i);
    co_open(&i, 0);
    ck_assert_int_eq(co_blk_read_buf(i.dev, 100, buf, sizeof(buf)), 0);
    ck_assert_uint_eq(buf[999], 4);
    co_judge_clean(&i);
    co_close_ok(i.dev);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("qcow2_io");
    TCase *tc = tcase_create("files");
    have_qemu = system("qemu-img --version >/dev/null 2>&1") == 0;
    snprintf(dir, sizeof(dir), "%s/qcow2-XXXXXX", fast_folder());
    if (!mkdtemp(dir))
        return 1;
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, what_is_created_is_sound);
    tcase_add_test(tc, bad_options_are_refused_with_a_sentence);
    tcase_add_loop_test(tc, random_operations, 0, ARRAY_LEN(variants));
    tcase_add_test(tc, random_operations_over_a_backing_file);
    tcase_add_test(tc, leaks_are_found_and_repaired);
    tcase_add_test(tc, an_image_found_corrupt_is_marked_and_read_only);
    tcase_add_test(tc, shared_clusters_are_copied_to_be_written);
    tcase_add_test(tc, freed_space_is_used_again);
    tcase_add_test(tc, the_refcount_table_and_the_l1_table_grow);
    tcase_add_test(tc, unknown_autoclear_bits_go_with_the_first_write);
    tcase_add_test(tc, a_fresh_image_is_none_until_complete);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    run("rm -rf %s", dir);
    return failed != 0;
}

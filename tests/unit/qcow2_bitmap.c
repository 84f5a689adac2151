/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_bitmap.c - persistent bitmaps: their bits and entries against plain models; random writes
 * and changes against an array of booleans, over reopenings and other sizes; what is in use, of an
 * unknown kind, stale or damaged. */
#include <check.h>

#include "block/log.h"
#include "imgfmt/qcow2_bitmap.h"
#include "tests/lib/on_host.h"

/* --- pure ----------------------------------------------------------------- */

#define BITS 700

START_TEST(granules_are_a_set)
{
    uint64_t random = 3;
    struct qcow2_granules g;
    static bool model[BITS];
    ck_assert_int_eq(qcow2_granules_make(&g, BITS * 512, 9, 9), 0);
    for (int i = 0; i < 3000; i++) {
        uint64_t first = next_random(&random) % BITS;
        uint64_t last = first + next_random(&random) % MIN(140, BITS - first);
        bool all = true, set;
        for (uint64_t b = first; b <= last; b++)
            all &= model[b];
        must(qcow2_granules_all(&g, first, last) == all);
        if (i % 50 == 0)
            must(qcow2_granules_set(&g, first, last) == !all);
        for (uint64_t b = first; i % 50 == 0 && b <= last; b++)
            model[b] = true;
        uint64_t end = first;
        while (end < BITS && model[end] == model[first])
            end++;
        must(qcow2_granules_run(&g, first, &set) == end && set == model[first]);
    }
    must(!qcow2_granules_all(&g, BITS - 1, BITS)); /* behind the end nothing is recorded */
    mem_free(g.words);
}
END_TEST

START_TEST(entries_round_trip)
{
    uint64_t random = 4;
    uint8_t raw[QCOW2_BITMAP_ENTRY_MAX], name[QCOW2_MAX_BITMAP_NAME], extra[1024];
    for (int i = 0; i < 2000; i++) {
        fill_random(&random, name, sizeof(name));
        fill_random(&random, extra, sizeof(extra));
        struct qcow2_bitmap out, in = {.table_offset = next_random(&random),
                                       .table_entries = (uint32_t)next_random(&random),
                                       .flags = (uint32_t)next_random(&random),
                                       .type = (uint8_t)next_random(&random),
                                       .granularity_bits = (uint8_t)next_random(&random) % 64,
                                       .name = (const char *)name,
                                       .name_bytes = 1 + next_random(&random) % 1023,
                                       .extra = extra,
                                       .extra_bytes = next_random(&random) % 1025};
        uint64_t bytes = qcow2_bitmap_put(&in, raw);
        must(bytes == qcow2_bitmap_entry_bytes(&in) && bytes <= sizeof(raw) && bytes % 8 == 0);
        must(qcow2_bitmap_parse(raw, bytes, &out) == (int64_t)bytes);
        must(qcow2_bitmap_parse(raw, 24 + in.extra_bytes + in.name_bytes - 1, &out) == -EINVAL);
        must(qcow2_bitmap_parse(raw, bytes, &out) == (int64_t)bytes);
        must(out.table_offset == in.table_offset && out.table_entries == in.table_entries);
        must(out.flags == in.flags && out.type == in.type);
        must(out.granularity_bits == in.granularity_bits && out.name_bytes == in.name_bytes);
        must(memcmp(out.name, in.name, in.name_bytes) == 0);
        must(out.extra_bytes == in.extra_bytes);
        must(memcmp(out.extra, in.extra, in.extra_bytes) == 0);
    }
}
END_TEST

/* --- an image ------------------------------------------------------------- */

static struct blk_device *co_file(const char *options, uint64_t size)
{
    struct blk_device *file = co_open_text(&mem_driver, "size=0", NULL);
    co_create_text(&qcow2_driver, options, file, size);
    return file;
}

/* @file stays open below. */
static struct blk_device *co_image(struct blk_device *file)
{
    return co_open_text(&qcow2_driver, "", blk_ref(file));
}

static void co_clean(struct blk_device *dev)
{
    struct blk_check c = {0};
    struct blk_error e = {0};
    must(co_blk_check(dev, &c, &e) == 0);
    must(c.corruptions == 0 && c.leaks == 0 && c.check_errors == 0);
}

static int co_do(struct blk_device *dev, enum blk_bitmap_action action, const char *name,
                 const char *source)
{
    struct blk_error e = {0};
    struct blk_bitmap_change c = {
        .action = action, .name = name, .source = dev, .source_name = source};
    return co_blk_bitmap_change(dev, &c, &e);
}

static int co_add(struct blk_device *dev, const char *name, uint64_t granularity)
{
    struct blk_error e = {0};
    struct blk_bitmap_change c = {
        .action = BLK_BITMAP_ADD, .name = name, .granularity = granularity};
    return co_blk_bitmap_change(dev, &c, &e);
}

static void co_write(struct blk_device *dev, uint64_t at, uint64_t bytes)
{
    uint8_t *buf = mem_alloc(bytes);
    memset(buf, 0x5a, bytes);
    must(co_blk_write_buf(dev, at, buf, bytes, 0) == 0);
    mem_free(buf);
}

static bool co_dirty(struct blk_device *dev, const char *name, uint64_t at)
{
    struct blk_bitmap_extent ext;
    struct blk_error e = {0};
    must(co_blk_bitmap_read(dev, name, at, 1, &ext, &e) == 0);
    return ext.dirty;
}

static struct blk_bitmap co_find(struct blk_device *dev, const char *name)
{
    struct blk_bitmap *list, found = {0};
    struct blk_error e = {0};
    size_t count;
    must(co_blk_bitmap_list(dev, &list, &count, &e) == 0);
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            found = list[i];
    blk_bitmaps_drop(list, count);
    return found; /* its name is gone */
}

/* Changes the entry of the image's only bitmap on disk. */
static void co_patch(struct blk_device *file, size_t at, const void *bytes, size_t count)
{
    struct blk_device *dev = co_image(file);
    uint64_t directory = qcow2_of_dev(dev)->bitmaps.at;
    co_close_ok(dev);
    must(co_blk_write_buf(file, directory + at, bytes, count, 0) == 0);
}
#define AT_TABLE_ENTRIES 8
#define AT_FLAGS         12
#define AT_TYPE          16
#define AT_GRANULARITY   17

static uint32_t co_flags(struct blk_device *file, uint64_t directory)
{
    be32 flags;
    must(co_blk_read_buf(file, directory + AT_FLAGS, &flags, 4) == 0);
    return be32_get(flags);
}

/* --- random, against a model ---------------------------------------------- */

#define SIZE  (3 * MiB)
#define SLOTS 5

struct model {
    struct blk_device *file, *dev;
    uint64_t random, size;
    struct one {
        bool there, enabled;
        uint64_t granularity;
        uint8_t must[2 * SIZE / 512], may[2 * SIZE / 512]; /* by granule */
    } one[SLOTS];
};

static void note(uint8_t *set, uint64_t granularity, uint64_t at, uint64_t bytes)
{
    for (uint64_t g = at / granularity; bytes && g <= (at + bytes - 1) / granularity; g++)
        set[g] = 1;
}

/* Bytes of [at, +bytes) changed; of [sure, +sure_bytes) for certain. */
static void changed(struct model *m, uint64_t at, uint64_t bytes, uint64_t sure,
                    uint64_t sure_bytes)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct one *o = &m->one[i];
        if (!o->there || !o->enabled)
            continue;
        note(o->may, o->granularity, at, bytes);
        note(o->must, o->granularity, sure, sure_bytes);
    }
}

static void co_request(struct model *m)
{
    uint64_t at = next_random(&m->random) % m->size, unit = m->dev->limits.discard_granularity;
    uint64_t bytes = 1 + next_random(&m->random) % MIN(96 * KiB, m->size - at);
    uint64_t from = div_up(at, unit) * unit, to = align_down(at + bytes, unit);
    switch (next_random(&m->random) % 4) {
    case 0:
        must(co_blk_write_zeroes(m->dev, at, bytes, BLK_MAY_UNMAP) == 0);
        changed(m, at, bytes, at, bytes);
        return;
    case 1:
        must(co_blk_discard(m->dev, at, bytes) == 0);
        changed(m, at, bytes, from, to > from ? to - from : 0);
        return;
    default:
        co_write(m->dev, at, bytes);
        changed(m, at, bytes, at, bytes);
    }
}

static void merge(struct one *to, const struct one *from, uint64_t size)
{
    for (uint64_t g = 0; g < div_up(size, from->granularity); g++) {
        uint64_t at = g * from->granularity, bytes = MIN(from->granularity, size - at);
        if (from->must[g])
            note(to->must, to->granularity, at, bytes);
        if (from->may[g])
            note(to->may, to->granularity, at, bytes);
    }
}

static void co_change(struct model *m)
{
    static const char *const names[SLOTS] = {"a", "bitmap", "third", "d", "a longer name"};
    unsigned i = next_random(&m->random) % SLOTS, j = next_random(&m->random) % SLOTS;
    struct one *o = &m->one[i];
    if (!o->there) {
        memset(o, 0, sizeof(*o));
        o->there = o->enabled = true;
        o->granularity = 512ULL << next_random(&m->random) % (i % 2 ? 2 : 9); /* long tables too */
        must(co_add(m->dev, names[i], o->granularity) == 0);
        must(co_add(m->dev, names[i], o->granularity) == -EEXIST);
        return;
    }
    switch (next_random(&m->random) % 7) {
    case 0:
        must(co_do(m->dev, BLK_BITMAP_REMOVE, names[i], NULL) == 0);
        o->there = false;
        return;
    case 1:
        must(co_do(m->dev, BLK_BITMAP_CLEAR, names[i], NULL) == 0);
        memset(o->must, 0, sizeof(o->must));
        memset(o->may, 0, sizeof(o->may));
        return;
    case 2:
    case 3:
        must(co_do(m->dev, o->enabled ? BLK_BITMAP_DISABLE : BLK_BITMAP_ENABLE, names[i], NULL) ==
             0);
        o->enabled = !o->enabled;
        return;
    default:
        must(co_do(m->dev, BLK_BITMAP_MERGE, names[i], names[j]) ==
             (m->one[j].there ? 0 : -ENOENT));
        if (m->one[j].there)
            merge(o, &m->one[j], m->size);
    }
}

/* What lies behind a smaller end is forgotten, what comes new is clean. */
static void co_resize(struct model *m)
{
    struct blk_error e = {0};
    uint64_t size = align_up(1 + next_random(&m->random) % (2 * SIZE), 512);
    must(co_blk_resize(m->dev, size, true, &e) == 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct one *o = &m->one[i];
        uint64_t kept = o->there ? div_up(MIN(size, m->size), o->granularity) : 0;
        memset(o->must + kept, 0, sizeof(o->must) - kept);
        memset(o->may + kept, 0, sizeof(o->may) - kept);
    }
    m->size = size;
}

static void co_compare(struct model *m)
{
    static const char *const names[SLOTS] = {"a", "bitmap", "third", "d", "a longer name"};
    for (unsigned i = 0; i < SLOTS; i++) {
        struct one *o = &m->one[i];
        struct blk_bitmap b = co_find(m->dev, names[i]);
        must((b.granularity != 0) == o->there);
        if (!o->there)
            continue;
        must(b.granularity == o->granularity && b.enabled == o->enabled && !b.inconsistent);
        struct blk_bitmap_extent ext;
        struct blk_error e = {0};
        for (uint64_t at = 0; at < m->size; at += ext.bytes) {
            must(co_blk_bitmap_read(m->dev, names[i], at, m->size - at, &ext, &e) == 0);
            for (uint64_t g = at / o->granularity; g * o->granularity < at + ext.bytes; g++)
                must(ext.dirty ? o->may[g] : !o->must[g]);
        }
    }
}

static void co_reopen(struct model *m, unsigned way)
{
    struct blk_error e = {0};
    if (way == 0) { /* read-only and back */
        must(co_blk_reopen(m->dev, false, &e) == 0);
        co_compare(m);
        must(co_blk_reopen(m->dev, true, &e) == 0);
        return;
    }
    co_close_ok(m->dev);
    m->dev = co_image(m->file);
    co_compare(m);
    co_clean(m->dev);
}

static int co_random(void *arg)
{
    struct model *m = mem_zalloc(sizeof(*m));
    m->file = co_file(arg, SIZE);
    m->dev = co_image(m->file);
    m->random = 11;
    m->size = SIZE;
    for (unsigned i = 0; i < 600; i++) {
        unsigned draw = next_random(&m->random) % 100;
        if (draw < 60)
            co_request(m);
        else if (draw < 85)
            co_change(m);
        else if (draw < 90)
            co_compare(m);
        else if (draw < 95)
            co_resize(m);
        else
            co_reopen(m, draw % 3);
    }
    co_reopen(m, 1);
    co_close_ok(m->dev);
    co_close_ok(m->file);
    mem_free(m);
    return 0;
}

START_TEST(random_changes_match_a_model)
{
    static const char *const options[] = {"cluster_size=512", "cluster_size=4k", "cluster_size=64k",
                                          "cluster_size=2M"};
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        ck_assert_int_eq(on_host(NULL, co_random, (void *)options[i]), 0);
}
END_TEST

/* --- in use --------------------------------------------------------------- */

CO_TEST(who_dies_leaves_it_inconsistent)
{
    struct blk_device *file = co_file("cluster_size=4k", MiB), *dev = co_image(file);
    struct blk_error e = {0};
    must(co_add(dev, "b", 4096) == 0 && co_add(dev, "off", 4096) == 0);
    must(co_do(dev, BLK_BITMAP_DISABLE, "off", NULL) == 0);
    uint64_t directory = qcow2_of_dev(dev)->bitmaps.at;
    must(!(co_flags(file, directory) & QCOW2_BITMAP_IN_USE)); /* nothing was written yet */
    co_write(dev, 8192, 4096);
    must(co_flags(file, directory) & QCOW2_BITMAP_IN_USE); /* B1 */
    must(co_dirty(dev, "b", 8192) && !co_dirty(dev, "b", 0) && !co_dirty(dev, "off", 8192));
    /* The short way takes what is recorded, and only that. */
    struct qcow2 *q = qcow2_of_dev(dev);
    must(qcow2_recorded(q, 8192, 4096) && !qcow2_recorded(q, 8192, 4097));

    /* A process that dies now: what it left, opened by another. */
    struct blk_device *after = co_image(file);
    must(co_find(after, "b").inconsistent && !co_find(after, "off").inconsistent);
    must(co_do(after, BLK_BITMAP_CLEAR, "b", NULL) == -EINVAL);
    must(co_do(after, BLK_BITMAP_MERGE, "off", "b") == -EINVAL);
    must(co_do(after, BLK_BITMAP_DISABLE, "b", NULL) == -EINVAL);
    must(co_blk_resize(after, 2 * MiB, false, &e) == -EINVAL);
    co_write(after, 0, 4096);
    must(co_find(after, "b").inconsistent);
    co_close_ok(after);
    after = co_image(file);
    must(co_find(after, "b").inconsistent); /* kept through a session */
    must(co_do(after, BLK_BITMAP_REMOVE, "b", NULL) == 0);
    must(co_find(after, "b").granularity == 0);
    co_close_ok(after);
    q->bitmaps.recording = NULL; /* the dead one does nothing more */
    dev->writable = false;
    co_close_ok(dev);
    dev = co_image(file);
    must(!co_dirty(dev, "off", 8192));
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

/* B1: an overwrite in place, which needs nothing else to be durable, waits for the mark. */
CO_TEST(the_mark_is_durable_before_the_first_write)
{
    struct blk_device *file = co_file("cluster_size=4k", MiB), *dev = co_image(file);
    co_write(dev, 8192, 4096);
    must(co_add(dev, "b", 4096) == 0);
    co_close_ok(dev);
    struct blk_device *log = co_open_text(&log_driver, "", blk_ref(file));
    dev = co_image(log);
    uint64_t directory = qcow2_of_dev(dev)->bitmaps.at;
    log_clear(log);
    co_write(dev, 8192, 4096);
    size_t i = 0, count = log_count(log);
    while (i < count && log_at(log, i)->offset != directory)
        must(log_at(log, i++)->op == LOG_FLUSH);
    must(i < count && log_at(log, i)->op == LOG_WRITE);
    bool durable = log_at(log, i++)->flags & BLK_FUA;
    for (; i < count && log_at(log, i)->op == LOG_FLUSH; i++)
        durable = true;
    must(durable && i + 1 == count && log_at(log, i)->op == LOG_WRITE);
    log_clear(log);
    co_write(dev, 8192, 4096); /* once is enough */
    must(log_count(log) == 1);
    co_close_ok(dev);
    co_close_ok(log);
    co_close_ok(file);
    return 0;
}

/* --- of an unknown kind --------------------------------------------------- */

/* @patch of @count bytes at @at makes the bitmap one that is not known; enabled ones are marked by
 * the first write, disabled ones are not touched. */
static void co_foreign_one(size_t at, const void *patch, size_t count, bool enabled)
{
    struct blk_device *file = co_file("cluster_size=4k", MiB), *dev = co_image(file);
    struct blk_error e = {0};
    uint8_t before[64], now[64];
    must(co_add(dev, "b", 4096) == 0);
    if (!enabled)
        must(co_do(dev, BLK_BITMAP_DISABLE, "b", NULL) == 0);
    co_close_ok(dev);
    co_patch(file, at, patch, count);
    dev = co_image(file);
    uint64_t directory = qcow2_of_dev(dev)->bitmaps.at;
    must(co_blk_read_buf(file, directory, before, sizeof(before)) == 0);
    must(co_find(dev, "b").foreign);
    must(co_do(dev, BLK_BITMAP_CLEAR, "b", NULL) == -ENOTSUP);
    must(co_blk_resize(dev, 2 * MiB, false, &e) == -EINVAL);
    co_write(dev, 0, 4096);
    if (enabled)
        before[AT_FLAGS + 3] |= QCOW2_BITMAP_IN_USE;
    must(co_blk_read_buf(file, directory, now, sizeof(now)) == 0);
    must(memcmp(before, now, sizeof(now)) == 0);
    must(co_find(dev, "b").inconsistent == enabled);
    co_write(dev, 4096, 4096);
    must(co_add(dev, "c", 0) == 0); /* the list is written anew: it stays in it */
    co_close_ok(dev);
    dev = co_image(file);
    must(co_find(dev, "b").granularity != 0);
    must(co_do(dev, BLK_BITMAP_REMOVE, "b", NULL) == 0);
    must(co_do(dev, BLK_BITMAP_REMOVE, "c", NULL) == 0);
    must(!qcow2_of_dev(dev)->header.bitmaps.bytes); /* no list, no extension */
    co_close_ok(dev);
    dev = co_image(file);
    if (at != AT_TABLE_ENTRIES)
        co_clean(dev);
    co_close_ok(dev);
    co_close_ok(file);
}

CO_TEST(what_is_not_known_is_kept_and_marked)
{
    for (unsigned enabled = 0; enabled < 2; enabled++) {
        be32 flags = be32_of(8 | (enabled ? QCOW2_BITMAP_AUTO : 0)), entries = be32_of(2);
        co_foreign_one(AT_TYPE, "\x02", 1, enabled);
        co_foreign_one(AT_GRANULARITY, "\x08", 1, enabled);
        co_foreign_one(AT_GRANULARITY, "\x28", 1, enabled);
        co_foreign_one(AT_FLAGS, &flags, 4, enabled);
        co_foreign_one(AT_TABLE_ENTRIES, &entries, 4, enabled);
    }
    return 0;
}

/* Extra data that does no harm stays with a bitmap that is used; other extra data makes it foreign.
 */
CO_TEST(extra_data_stays)
{
    static const uint8_t extra[16] = "somebody's words";
    for (unsigned harmless = 0; harmless < 2; harmless++) {
        struct blk_device *file = co_file("cluster_size=4k", MiB), *dev = co_image(file);
        uint8_t raw[64];
        struct qcow2_bitmap b;
        must(co_add(dev, "b", 4096) == 0);
        struct qcow2_dirty *d = qcow2_of_dev(dev)->bitmaps.list[0];
        d->disk.extra = extra;
        d->disk.extra_bytes = sizeof(extra);
        d->disk.flags |= harmless ? QCOW2_BITMAP_EXTRA_HARMLESS : 0;
        must(co_add(dev, "c", 4096) == 0); /* writes the list */
        co_close_ok(dev);
        dev = co_image(file);
        must(co_find(dev, "b").foreign == !harmless);
        co_write(dev, 0, 4096);
        must(!harmless || co_dirty(dev, "b", 0));
        co_close_ok(dev);
        dev = co_image(file);
        must(co_blk_read_buf(file, qcow2_of_dev(dev)->bitmaps.at, raw, sizeof(raw)) == 0);
        must(qcow2_bitmap_parse(raw, sizeof(raw), &b) > 0 && b.extra_bytes == sizeof(extra));
        must(memcmp(b.extra, extra, sizeof(extra)) == 0);
        must(!harmless || co_dirty(dev, "b", 0));
        must(co_find(dev, "b").inconsistent == !harmless);
        co_close_ok(dev);
        co_close_ok(file);
    }
    return 0;
}

/* --- stale, damaged ------------------------------------------------------- */

CO_TEST(a_stale_list_goes_with_the_first_write)
{
    struct blk_device *file = co_file("cluster_size=4k", MiB), *dev = co_image(file);
    struct blk_check c = {.fix_leaks = true};
    struct blk_error e = {0};
    must(co_add(dev, "b", 4096) == 0);
    co_close_ok(dev);
    be64 none = be64_of(0); /* as somebody writes who does not know the bit */
    must(co_blk_write_buf(file, 88, &none, 8, 0) == 0);
    dev = co_image(file);
    must(co_find(dev, "b").granularity == 0);
    must(qcow2_of_dev(dev)->header.bitmaps.bytes);
    co_write(dev, 0, 4096);
    must(!qcow2_of_dev(dev)->header.bitmaps.bytes); /* the extension is gone */
    must(co_blk_check(dev, &c, &e) == 0 && c.leaks_fixed == 2 && c.corruptions == 0);
    must(co_add(dev, "b", 4096) == 0);
    co_close_ok(dev);
    dev = co_image(file);
    must(co_find(dev, "b").enabled);
    co_clean(dev);
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

static int co_try(struct blk_device *file, unsigned flags)
{
    struct blk_error e = {0};
    struct blk_device *dev;
    int rc = co_try_open_text(&qcow2_driver, "", flags, blk_ref(file), &dev, &e);
    if (rc == 0)
        co_close_ok(dev);
    return rc;
}

/* The place of the directory, in the header. */
static void co_move_directory(struct blk_device *file, uint64_t to)
{
    struct blk_device *dev = co_image(file);
    uint64_t at = qcow2_of_dev(dev)->header.bitmaps.offset + 16;
    be64 place = be64_of(to);
    co_close_ok(dev);
    must(co_blk_write_buf(file, at, &place, 8, 0) == 0);
}

CO_TEST(damage_is_refused_by_who_would_write)
{
    struct blk_device *file = co_file("cluster_size=4k", MiB), *dev = co_image(file);
    struct blk_error e = {0};
    must(co_add(dev, "b", 4096) == 0);
    co_write(dev, 0, 4096);
    co_close_ok(dev);
    dev = co_image(file);
    uint64_t at = qcow2_of_dev(dev)->bitmaps.at;
    co_close_ok(dev);

    /* No name: neither listed nor written to, but read. */
    be16 none = be16_of(0), one = be16_of(1);
    must(co_blk_write_buf(file, at + 18, &none, 2, 0) == 0);
    must(co_try(file, BLK_OPEN_WRITE) == -EINVAL && co_try(file, 0) == 0);
    must(co_blk_write_buf(file, at + 18, &one, 2, 0) == 0);
    must(co_try(file, BLK_OPEN_WRITE) == 0);

    /* A table whose cells lead nowhere: it cannot be used, but removed. */
    be64 table;
    must(co_blk_read_buf(file, at, &table, 8) == 0);
    uint64_t cell_at = be64_get(table);
    be64 cell, bad = be64_of(513);
    must(co_blk_read_buf(file, cell_at, &cell, 8) == 0);
    must(co_blk_write_buf(file, cell_at, &bad, 8, 0) == 0);
    dev = co_image(file);
    struct blk_bitmap_extent ext;
    must(co_blk_bitmap_read(dev, "b", 0, 512, &ext, &e) == -EINVAL);
    struct blk_check c = {0};
    must(co_blk_check(dev, &c, &e) == 0 && c.corruptions == 1);
    co_write(dev, 65536, 4096);
    must(co_blk_close(dev, &e) < 0); /* what it recorded cannot be added to what it held */
    must(co_blk_write_buf(file, cell_at, &cell, 8, 0) == 0);
    dev = co_image(file);
    must(co_find(dev, "b").inconsistent);
    must(co_do(dev, BLK_BITMAP_REMOVE, "b", NULL) == 0);
    co_clean(dev);
    must(co_add(dev, "b", 4096) == 0);
    co_close_ok(dev);

    /* A directory in the header. */
    co_move_directory(file, 0);
    must(co_try(file, BLK_OPEN_WRITE) == -EINVAL);
    co_close_ok(file);
    return 0;
}

/* An entry that lies in an L2 table can be read as a bitmap; marking it would change the table. */
CO_TEST(nothing_is_marked_in_another_table)
{
    struct blk_device *file = co_file("cluster_size=4k", 64 * MiB), *dev = co_image(file);
    struct blk_error e = {0};
    uint8_t entry[32], now[32];
    be64 raw;
    must(co_add(dev, "b", 4096) == 0);
    co_write(dev, 0, 4096);
    co_close_ok(dev);
    dev = co_image(file);
    uint64_t from = qcow2_of_dev(dev)->bitmaps.at, l1 = qcow2_of_dev(dev)->header.l1_offset;
    co_close_ok(dev);
    must(co_blk_read_buf(file, from, entry, 32) == 0);
    must(co_blk_read_buf(file, l1, &raw, 8) == 0);
    uint64_t l2 = be64_get(raw) & QCOW2_OFFSET_MASK;
    must(co_blk_write_buf(file, l2, entry, 32, 0) == 0);
    co_move_directory(file, l2);
    dev = co_image(file);
    uint8_t data[512] = {0};
    must(co_blk_write_buf(dev, 32 * MiB, data, 512, 0) == -EIO);
    must(dev->marked_corrupt);
    must(co_blk_read_buf(file, l2, now, 32) == 0 && memcmp(now, entry, 32) == 0);
    (void)!co_blk_close(dev, &e);
    co_close_ok(file);
    return 0;
}

/* What lies in the file behind the last bit, by a smaller size or by another program, never shows.
 */
CO_TEST(nothing_behind_the_end_shows)
{
    struct blk_device *file = co_file("cluster_size=4k", MiB), *dev = co_image(file);
    struct blk_error e = {0};
    be64 table, cell;
    uint8_t bits[4096];
    must(co_add(dev, "b", 4096) == 0);
    co_write(dev, 0, 4096);
    co_write(dev, 1020 * KiB, 4096);
    co_close_ok(dev);
    dev = co_image(file);
    must(co_do(dev, BLK_BITMAP_DISABLE, "b", NULL) == 0);
    must(co_blk_resize(dev, 512 * KiB, true, &e) == 0);
    co_close_ok(dev);
    dev = co_image(file);
    uint64_t directory = qcow2_of_dev(dev)->bitmaps.at;
    co_close_ok(dev);
    must(co_blk_read_buf(file, directory, &table, 8) == 0);
    must(co_blk_read_buf(file, be64_get(table), &cell, 8) == 0);
    must(co_blk_read_buf(file, be64_get(cell), bits, sizeof(bits)) == 0);
    for (size_t i = 0; i < sizeof(bits); i++)
        must(bits[i] == (i == 0));
    memset(bits + 16, 0xff, 100);
    must(co_blk_write_buf(file, be64_get(cell), bits, sizeof(bits), 0) == 0);
    for (unsigned turn = 0; turn < 2; turn++) {
        dev = co_image(file);
        must(co_dirty(dev, "b", 0));
        for (uint64_t at = 4096; at < dev->size; at += 4096)
            must(!co_dirty(dev, "b", at));
        must(turn || co_blk_resize(dev, MiB, false, &e) == 0);
        co_close_ok(dev);
    }
    co_close_ok(file);
    return 0;
}

/* --- limits and neighbours ------------------------------------------------ */

CO_TEST(limits_and_other_changes_of_the_image)
{
    struct blk_device *file = co_file("cluster_size=64k", MiB), *dev = co_image(file);
    struct blk_error e = {0};
    char name[1026];
    must(co_add(dev, "", 0) == -EINVAL);
    must(co_add(dev, "b", 256) == -EINVAL && co_add(dev, "b", 1000) == -EINVAL);
    must(co_add(dev, "b", 4 * GiB) == -EINVAL);
    must(co_add(dev, "b", 0) == 0 && co_find(dev, "b").granularity == 65536);
    must(co_add(dev, "huge", 2 * GiB) == 0);
    memset(name, 'n', sizeof(name));
    name[1024] = 0;
    must(co_add(dev, name, 0) == -EINVAL);
    name[1023] = 0;
    must(co_add(dev, name, 0) == 0);
    must(co_do(dev, BLK_BITMAP_REMOVE, "c", NULL) == -ENOENT);
    must(co_do(dev, BLK_BITMAP_MERGE, "b", "c") == -ENOENT);
    must(co_blk_resize(dev, 0, true, &e) == -EINVAL); /* no bitmap of nothing */
    must(co_blk_resize(dev, 1ULL << 50, false, &e) == -EFBIG);
    must(co_blk_resize(dev, 1ULL << 40, false, &e) == 0);
    must(co_do(dev, BLK_BITMAP_REMOVE, "b", NULL) == 0);
    co_clean(dev);

    struct blk_snapshot s = {.name = (char *)"s", .icount = UINT64_MAX};
    must(co_blk_snapshot_create(dev, &s, &e) == 0);
    must(co_blk_snapshot_apply(dev, "1", &e) == -EBUSY);
    co_write(dev, 0, 4096);
    must(co_blk_make_empty(dev, &e) == 0); /* what it shows may be the same: they stay */
    must(co_dirty(dev, "huge", 0) && !co_dirty(dev, name, MiB));
    must(co_blk_change_backing(dev, NULL, NULL, &e) == 0);
    co_close_ok(dev);
    dev = co_image(file);
    must(co_dirty(dev, "huge", 0) && co_dirty(dev, name, 0) && !co_dirty(dev, name, MiB));
    co_clean(dev);
    co_close_ok(dev);
    co_close_ok(file);
    file = co_file("compat=0.10", MiB);
    dev = co_image(file);
    must(co_add(dev, "b", 0) == -ENOTSUP);
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("qcow2_bitmap");
    TCase *t = tcase_create("bitmaps");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, granules_are_a_set);
    tcase_add_test(t, entries_round_trip);
    tcase_add_test(t, random_changes_match_a_model);
    tcase_add_test(t, who_dies_leaves_it_inconsistent);
    tcase_add_test(t, the_mark_is_durable_before_the_first_write);
    tcase_add_test(t, what_is_not_known_is_kept_and_marked);
    tcase_add_test(t, extra_data_stays);
    tcase_add_test(t, a_stale_list_goes_with_the_first_write);
    tcase_add_test(t, damage_is_refused_by_who_would_write);
    tcase_add_test(t, nothing_is_marked_in_another_table);
    tcase_add_test(t, nothing_behind_the_end_shows);
    tcase_add_test(t, limits_and_other_changes_of_the_image);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

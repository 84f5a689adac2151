/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_commit.c - a group on disks in memory: its text goes round the buffer and is read again each
 * time, never over the one before; errors leave the old one; types that are not read. */
#include <check.h>
#include <stdlib.h>

#include "block/fault.h"
#include "tests/lib/on_host.h"
#include "volumes/lvm_commit.h"

#define DISKS 2

struct rig {
    struct blk_device *disk[DISKS]; /* held by us, so that they outlive the set */
    struct blk_device *dev;
    struct lvm_set *set;
};

static void co_rig_open(struct rig *r, const char *fault)
{
    struct blk_child parts[DISKS];
    struct blk_error e = {0};
    for (unsigned i = 0; i < DISKS; i++) {
        struct blk_device *d = blk_ref(r->disk[i]);
        parts[i] = (struct blk_child){"member",
                                      fault && i == 1 ? co_open_text(&fault_driver, fault, d) : d};
    }
    int rc = co_blk_open(&lvm_driver, "set", NULL, BLK_OPEN_WRITE, NULL, parts, DISKS, &r->dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    r->set = lvm_set_of(r->dev);
}

static void co_rig_init(struct rig *r)
{
    char uuid[LVM_UUID + 1];
    struct lvm_vg *vg;
    struct blk_error e = {0};
    for (unsigned i = 0; i < DISKS; i++) {
        r->disk[i] = co_open_text(&mem_driver, "size=4M,growable=off", NULL);
        ck_assert_int_eq(co_lvm_pv_create(r->disk[i], &e), 0);
    }
    co_rig_open(r, NULL);
    lvm_uuid_new(r->dev->host, uuid);
    ck_assert_int_eq(lvm_vg_create("vg", uuid, 64 * KiB, &vg, &e), 0);
    for (unsigned i = 0; i < DISKS; i++)
        ck_assert_int_eq(lvm_vg_add_member(vg, &r->set->members[i], &e), 0);
    ck_assert_msg(co_lvm_commit(r->set, &vg, "a test", &e) == 0, "%s", e.text);
}

static void co_rig_drop(struct rig *r)
{
    co_blk_close(r->dev, NULL);
    for (unsigned i = 0; i < DISKS; i++)
        co_blk_close(r->disk[i], NULL);
}

static int co_make_volume(struct rig *r, const char *name, uint64_t extents, struct blk_error *e)
{
    char uuid[LVM_UUID + 1];
    struct lvm_vg *copy;
    struct lvm_volume_new n = {.name = name, .uuid = uuid};
    n.space = (struct lvm_wanted){.extents = extents, .stripes = 1};
    lvm_uuid_new(r->dev->host, uuid);
    TRY(lvm_vg_copy(r->set->vgs[0], &copy, e));
    int rc = lvm_lv_create(copy, &n, e);
    if (rc == 0)
        rc = co_lvm_commit(r->set, &copy, "a test", e);
    if (rc < 0)
        lvm_vg_drop(copy);
    return rc;
}

CO_TEST(the_text_goes_round)
{
    struct rig r;
    struct blk_error e = {0};
    unsigned wraps = 0;
    uint64_t last = 0, seqno = 1;
    co_rig_init(&r);
    for (unsigned i = 0; i < 24; i++) { /* so that the text is some KiB long */
        char name[16];
        snprintf(name, sizeof(name), "v%u", i);
        ck_assert_msg(co_make_volume(&r, name, 1, &e) == 0, "%s", e.text);
        seqno++;
    }
    for (unsigned i = 0; i < 400; i++) {
        struct lvm_vg *copy;
        const struct lvm_locn *t = &r.set->members[0].texts[0];
        uint64_t old_end = t->offset + t->bytes, area = r.set->members[0].label.areas[0].bytes;
        ck_assert_int_eq(lvm_vg_copy(r.set->vgs[0], &copy, &e), 0);
        ck_assert_int_eq(co_lvm_commit(r.set, &copy, "a test", &e), 0);
        seqno++;
        ck_assert(t->offset % LVM_SECTOR == 0 && t->offset >= LVM_SECTOR && t->offset < area);
        ck_assert(t->offset >= old_end || t->offset < last); /* behind the old one, or round */
        wraps += t->offset + t->bytes > area;
        last = t->offset;
        if (t->offset + t->bytes <= area && i % 50)
            continue;
        co_blk_close(r.dev, NULL);
        co_rig_open(&r, NULL);
        ck_assert_uint_eq(r.set->vg_count, 1);
        ck_assert_uint_eq(r.set->vgs[0]->seqno, seqno);
        ck_assert(r.set->members[0].usable[0] && r.set->members[1].usable[0]);
    }
    ck_assert_uint_gt(wraps, 0);
    co_rig_drop(&r);
    return 0;
}

/* The n-th write to the second disk fails: the group is as it was, or as it was to be. */
CO_TEST(a_failed_write_leaves_a_whole_text)
{
    struct rig r;
    struct blk_error e = {0};
    co_rig_init(&r);
    ck_assert_int_eq(co_make_volume(&r, "first", 2, &e), 0);
    unsigned failed = 0;
    for (unsigned n = 1; n <= 4; n++) {
        char fault[60], name[16];
        snprintf(fault, sizeof(fault), "op=write,nth=%u,times=1,errno=EIO", n);
        snprintf(name, sizeof(name), "n%u", n);
        co_blk_close(r.dev, NULL);
        co_rig_open(&r, fault);
        int rc = co_make_volume(&r, name, 1, &e);
        failed += rc < 0;
        if (rc < 0 && r.set->unsure) /* and nothing is written over what may count now */
            ck_assert_int_eq(co_make_volume(&r, "more", 1, &e), -EIO);
        co_blk_close(r.dev, NULL);
        co_rig_open(&r, NULL);
        ck_assert_ptr_nonnull(lvm_find_lv(r.set->vgs[0], "first"));
        ck_assert(rc < 0 || lvm_find_lv(r.set->vgs[0], name));
        ck_assert_ptr_null(lvm_find_lv(r.set->vgs[0], "more"));
    }
    ck_assert_uint_eq(failed, 3); /* the text, and the header twice */
    co_rig_drop(&r);
    return 0;
}

CO_TEST(all_extents_can_be_had)
{
    struct rig r;
    struct blk_error e = {0};
    int rc = 0;
    unsigned made = 0;
    co_rig_init(&r);
    for (char name[16]; rc == 0; made += rc == 0) {
        snprintf(name, sizeof(name), "v%u", made);
        rc = co_make_volume(&r, name, 7, &e);
    }
    ck_assert_int_eq(rc, -ENOSPC);
    ck_assert_uint_eq(made, DISKS * 48 / 7); /* the last but in two pieces */
    ck_assert_uint_eq(lvm_free_extents(r.set->vgs[0], NULL), DISKS * 48 - 7 * made);
    co_rig_drop(&r);
    return 0;
}

/* Each segment of the volume says that it is of @type. */
static int co_change_type(struct rig *r, const char *name, const char *type, struct blk_error *e)
{
    struct lvm_vg *copy;
    TRY(lvm_vg_copy(r->set->vgs[0], &copy, e));
    int rc = lvm_set_text(&copy->text, lvm_find_lv(copy, name)->segments[0].node, "type", type);
    if (rc == 0)
        rc = co_lvm_commit(r->set, &copy, "a test", e);
    if (rc < 0)
        lvm_vg_drop(copy);
    return rc;
}

static const char *const unread[] = {"cache",     "cache+CACHE_USES_CACHEVOL", "vdo",  "writecache",
                                     "integrity", "striped+UNHEARD_OF",        "other"};

CO_TEST(what_is_not_read_is_refused_by_name)
{
    struct rig r;
    struct blk_error e = {0};
    struct blk_device *dev;
    co_rig_init(&r);
    ck_assert_int_eq(co_make_volume(&r, "lv", 2, &e), 0);
    for (size_t i = 0; i < ARRAY_LEN(unread); i++) {
        ck_assert_msg(co_change_type(&r, "lv", unread[i], &e) == 0, "%s", e.text);
        ck_assert_int_eq(co_blk_inner_open(r.dev, "vg/lv", &dev, &e), -ENOTSUP);
        ck_assert_ptr_nonnull(strstr(e.text, unread[i]));
    }
    ck_assert_int_eq(co_change_type(&r, "lv", "striped", &e), 0);
    ck_assert_int_eq(co_blk_inner_open(r.dev, "vg/lv", &dev, &e), 0);
    co_blk_close(dev, NULL);
    co_rig_drop(&r);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("lvm_commit");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_text_goes_round);
    tcase_add_test(t, a_failed_write_leaves_a_whole_text);
    tcase_add_test(t, all_extents_can_be_had);
    tcase_add_test(t, what_is_not_read_is_refused_by_name);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_super.c - md's superblocks: a known checksum, what is written is what is read, hostile
 * fields. That mdadm reads ours is tests/e2e/raid.sh's. */
#include <check.h>
#include <stdlib.h>

#include "block/base.h"
#include "raid/super.h"

#define DEVICE (64 * MiB)

static struct md_super *fresh(enum md_version v)
{
    struct md_super *s = mem_zalloc(sizeof(*s));
    ck_assert_ptr_nonnull(s);
    s->version = v;
    ck_assert(md_super_place(v, DEVICE, &s->super_offset));
    memcpy(s->uuid, "0123456789abcdef", 16);
    strcpy(s->name, "here:home");
    s->ctime = s->utime = 1700000000;
    s->level = 5;
    s->layout = 2;
    s->disks = 3;
    s->chunk = 64 * KiB;
    s->size = 16 * MiB;
    s->data_offset = v >= MD_1_1 ? 2 * MiB : 0;
    s->data_size = 16 * MiB;
    s->events = 77;
    s->resync_offset = UINT64_MAX;
    s->recovery_offset = UINT64_MAX;
    s->bad_shift = 9;
    s->number = 1;
    for (unsigned i = 0; i < 3; i++)
        ck_assert(md_super_set_role(s, i, i));
    return s;
}

/* Of 0.90 the raw bytes hold what build() does not put there. */
static void fill_0(struct md_super *s)
{
    struct md_super_0 *d = (struct md_super_0 *)s->raw;
    d->magic = le32_of(MD_MAGIC);
    d->minor = le32_of(90);
    memcpy(&d->uuid0, s->uuid, 4);
    memcpy(&d->uuid1, s->uuid + 4, 12);
    d->ctime = le32_of((uint32_t)s->ctime);
    d->level = le32_of((uint32_t)s->level);
    d->size = le32_of((uint32_t)(s->size / KiB));
    d->layout = le32_of(s->layout);
    d->chunk = le32_of((uint32_t)s->chunk);
}

static struct md_super *again(const struct md_super *s)
{
    struct md_super *t = mem_alloc(sizeof(*t));
    struct blk_error e = {0};
    ck_assert_ptr_nonnull(t);
    ck_assert_msg(md_super_parse(s->version, s->raw, DEVICE, t, &e) == 0, "%s", e.text);
    return t;
}

START_TEST(the_checksum_is_that_of_md)
{
    struct md_super s = {.version = MD_1_2,
                         .super_offset = 4096,
                         .level = 1,
                         .size = 1000 * 512,
                         .disks = 2,
                         .data_offset = 2048 * 512,
                         .data_size = 1000 * 512,
                         .events = 1,
                         .resync_offset = UINT64_MAX,
                         .recovery_offset = UINT64_MAX,
                         .role_count = 3,
                         .roles = {0, 1, 0xffff}};
    md_super_build(&s);
    ck_assert_uint_eq(le32_get(((struct md_super_1 *)s.raw)->checksum), 0xA92D5EDB);
}
END_TEST

START_TEST(what_is_written_is_read)
{
    for (enum md_version v = 0; v < MD_VERSIONS; v++) {
        struct md_super *s = fresh(v);
        fill_0(s);
        if (v != MD_0_90)
            memset(s->raw, 0, sizeof(s->raw));
        md_super_build(s);
        struct md_super *t = again(s);
        ck_assert(md_super_same_array(s, t));
        ck_assert_uint_eq(t->size, s->size);
        ck_assert_uint_eq(t->disks, 3);
        ck_assert_uint_eq(t->events, 77);
        ck_assert(t->resync_offset == UINT64_MAX && t->recovery_offset == UINT64_MAX);
        ck_assert_uint_eq(t->number, 1);
        for (unsigned i = 0; i < 30; i++)
            ck_assert_uint_eq(md_super_role(t, i), i < 3 ? i : MD_ROLE_SPARE);
        t->events++; /* dirty, one failed, and once more */
        t->resync_offset = MiB;
        ck_assert(md_super_set_role(t, 2, MD_ROLE_FAULTY));
        ck_assert(md_super_set_role(t, 4, 2));
        if (v != MD_0_90) {
            t->features |= MD_RECOVERY;
            t->recovery_offset = 3 * MiB;
        }
        md_super_build(t);
        struct md_super *u = again(t);
        ck_assert_uint_eq(u->events, 78);
        ck_assert_uint_eq(u->resync_offset, MiB);
        ck_assert_uint_eq(u->recovery_offset, v == MD_0_90 ? UINT64_MAX : 3 * MiB);
        ck_assert_uint_eq(md_super_role(u, 2), MD_ROLE_FAULTY);
        ck_assert_uint_eq(md_super_role(u, 3), MD_ROLE_SPARE);
        ck_assert_uint_eq(md_super_role(u, 4), 2);
        mem_free(s);
        mem_free(t);
        mem_free(u);
    }
}
END_TEST

START_TEST(where_superblocks_lie)
{
    uint64_t at;
    ck_assert(md_super_place(MD_0_90, 10 * MiB + 5000, &at) && at == 10 * MiB - 64 * KiB);
    ck_assert(md_super_place(MD_1_0, 10 * MiB, &at) && at == 10 * MiB - 8 * KiB);
    ck_assert(md_super_place(MD_1_0, 10 * MiB + 3584, &at) && at == 10 * MiB - 8 * KiB);
    ck_assert(md_super_place(MD_1_1, 10 * MiB, &at) && at == 0);
    ck_assert(md_super_place(MD_1_2, 10 * MiB, &at) && at == 4096);
    for (enum md_version v = 0; v < MD_VERSIONS; v++)
        ck_assert(!md_super_place(v, 11 * KiB, &at));
}
END_TEST

/* A superblock of the other byte order is read, and says that it must not be written. */
START_TEST(the_other_byte_order_is_read)
{
    struct md_super *s = fresh(MD_0_90);
    fill_0(s);
    md_super_build(s);
    uint32_t words[MD_SUPER_BYTES / 4];
    memcpy(words, s->raw, sizeof(words));
    uint32_t low = words[39];
    words[39] = words[40];
    words[40] = low;
    for (unsigned i = 0; i < MD_SUPER_BYTES / 4; i++)
        words[i] = __builtin_bswap32(words[i]);
    memcpy(s->raw, words, sizeof(words));
    struct md_super *t = again(s);
    ck_assert(t->swapped && t->read_only);
    ck_assert_uint_eq(t->events, 77);
    ck_assert_uint_eq(t->size, 16 * MiB);
    mem_free(s);
    mem_free(t);
}
END_TEST

/* Any change of a bit is noticed; with the checksum made right again nothing asserts. */
START_TEST(damaged_superblocks_are_refused)
{
    srandom(5);
    for (enum md_version v = 0; v < MD_VERSIONS; v++) {
        struct md_super *s = fresh(v), *t = mem_alloc(sizeof(*t));
        fill_0(s);
        if (v != MD_0_90)
            memset(s->raw, 0, sizeof(s->raw));
        md_super_build(s);
        uint64_t covered = v == MD_0_90 ? MD_SUPER_BYTES : 256 + 2 * s->role_count;
        for (unsigned i = 0; i < 2000; i++) {
            struct blk_error e = {0};
            uint64_t at = (uint64_t)random() % covered;
            uint8_t bit = (uint8_t)(1 << random() % 8);
            s->raw[at] ^= bit;
            ck_assert_int_lt(md_super_parse(v, s->raw, DEVICE, t, &e), 0);
            s->raw[at] ^= bit;
        }
        mem_free(s);
        mem_free(t);
    }
}
END_TEST

START_TEST(hostile_fields_are_named)
{
    struct md_super *t = mem_alloc(sizeof(*t));
    for (int i = 0; i < 9; i++) {
        struct md_super *s = fresh(MD_1_2);
        struct blk_error e = {0};
        switch (i) {
        case 0:
            s->features = 0x4000;
            break;
        case 1:
            s->features = MD_BITMAP;
            s->bitmap_offset = 3 * MiB;
            break;
        case 2:
            s->features = MD_BITMAP | MD_PPL;
            break;
        case 3:
            s->data_size = 63 * MiB;
            break;
        case 4:
            s->data_offset = 4096;
            break;
        case 5:
            s->size = 17 * MiB;
            break;
        case 6:
            s->bad_offset = -8192;
            s->bad_bytes = 4096;
            break;
        case 7:
            s->features = MD_RESHAPE;
            s->reshaping = true;
            s->delta_disks = 3;
            break;
        case 8:
            s->features = MD_CLUSTERED;
            break;
        }
        md_super_build(s);
        ck_assert_msg(md_super_parse(MD_1_2, s->raw, DEVICE, t, &e) == -EINVAL, "case %d", i);
        ck_assert_msg(strlen(e.text) > 10, "case %d", i);
        mem_free(s);
    }
    mem_free(t);
}
END_TEST

/* --- dm-raid's ----------------------------------------------------------------------------------
 */

#define DM_DATA (128 * KiB) /* where the image begins */

/* Image 1 of four of a RAID-5, as Linux 6.1 wrote it; the rest is zero. */
static void make_dm(uint8_t raw[MD_SUPER_BYTES])
{
    static const struct {
        unsigned at;
        uint32_t value;
    } words[] = {{0, 0x64526d44}, {4, 1},    {8, 4},   {12, 1},    {16, 0x11}, {32, ~0u}, {36, ~0u},
                 {40, ~0u},       {44, ~0u}, {48, 5},  {52, 2},    {56, 16},   {64, ~0u}, {68, ~0u},
                 {72, 5},         {76, 2},   {80, 16}, {88, 1536}, {112, 512}};
    memset(raw, 0, MD_SUPER_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        le32 word = le32_of(words[i].value);
        memcpy(raw + words[i].at, &word, sizeof(word));
    }
}

START_TEST(dm_raids_is_read_and_written)
{
    uint8_t raw[MD_SUPER_BYTES];
    struct blk_error e = {0};
    struct md_super *s = mem_alloc(sizeof(*s)), *t = mem_alloc(sizeof(*t));
    ck_assert(s && t);
    make_dm(raw);
    ck_assert_int_eq(md_super_dm_parse(raw, DM_DATA + MiB, DM_DATA, s, &e), 0);
    ck_assert(s->level == 5 && s->layout == 2 && s->disks == 4 && s->number == 1);
    ck_assert(s->chunk == 8 * KiB && s->size == MiB && s->data_offset == DM_DATA);
    ck_assert(s->events == 0x11 && s->resync_offset == UINT64_MAX && s->bitmap_offset == 4096);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_eq(md_super_role(s, i), i);
    md_super_build(s); /* nothing has changed */
    ck_assert_mem_eq(s->raw, raw, sizeof(raw));

    s->events++; /* dirty, one failed, another one half way */
    s->resync_offset = 0;
    ck_assert(md_super_set_role(s, 3, MD_ROLE_FAULTY));
    s->features |= MD_RECOVERY;
    s->recovery_offset = 64 * KiB;
    md_super_build(s);
    ck_assert_uint_eq(s->raw[24], 1 << 3);
    ck_assert_int_eq(md_super_dm_parse(s->raw, DM_DATA + MiB, DM_DATA, t, &e), 0);
    ck_assert(t->events == 0x12 && t->resync_offset == 0 && t->recovery_offset == 64 * KiB);
    ck_assert(t->features & MD_RECOVERY);
    ck_assert_uint_eq(md_super_role(t, 3), MD_ROLE_FAULTY);
    ck_assert_uint_eq(md_super_role(t, 2), 2);
    mem_free(s);
    mem_free(t);
}
END_TEST

START_TEST(dm_raids_that_cannot_be_are_refused)
{
    static const struct {
        unsigned at;
        uint32_t value;
        int expect;
    } rows[] = {
        {0, 0, -ENODATA},          {144, 1, -ENOTSUP},  {60, 1, -EBUSY},
        {8, 0, -EINVAL},           {8, 257, -EINVAL},   {12, 4, -EINVAL},
        {36, 0x7fffffff, -EINVAL}, {96, 4096, -EINVAL}, {100, 0x7fffffff, -EINVAL},
    };
    struct md_super *s = mem_alloc(sizeof(*s));
    ck_assert_ptr_nonnull(s);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t raw[MD_SUPER_BYTES];
        struct blk_error e = {0};
        le32 word = le32_of(rows[i].value);
        make_dm(raw);
        memcpy(raw + rows[i].at, &word, sizeof(word));
        int rc = md_super_dm_parse(raw, DM_DATA + MiB, DM_DATA, s, &e);
        ck_assert_msg(rc == rows[i].expect, "row %zu: %d", i, rc);
    }
    mem_free(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("raid_super");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, the_checksum_is_that_of_md);
    tcase_add_test(tc, what_is_written_is_read);
    tcase_add_test(tc, where_superblocks_lie);
    tcase_add_test(tc, the_other_byte_order_is_read);
    tcase_add_test(tc, damaged_superblocks_are_refused);
    tcase_add_test(tc, hostile_fields_are_named);
    tcase_add_test(tc, dm_raids_is_read_and_written);
    tcase_add_test(tc, dm_raids_that_cannot_be_are_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

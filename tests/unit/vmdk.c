/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk.c - VMDK: headers' bounds, entries, descriptors as they are found, and edited. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "imgfmt/vmdk.h"

static struct vmdk_header_disk good_header(void)
{
    return (struct vmdk_header_disk){
        .magic = le32_of(VMDK_MAGIC),
        .version = le32_of(1),
        .flags = le32_of(3),
        .capacity = le64_of(2048),
        .grain = le64_of(128),
        .descriptor_at = le64_of(1),
        .descriptor_size = le64_of(20),
        .table_entries = le32_of(512),
        .rgd_at = le64_of(21),
        .gd_at = le64_of(26),
        .overhead = le64_of(128),
    };
}

START_TEST(header_bounds)
{
    struct vmdk_header out;
    struct blk_error e;
    struct vmdk_header_disk raw = good_header();
    ck_assert_int_eq(vmdk_header_parse(&raw, false, &out, &e), 0);
    ck_assert_uint_eq(out.size, 1 * MiB);
    ck_assert_uint_eq(out.grain_bytes, 64 * KiB);
    ck_assert_uint_eq(out.tables, 1);
    ck_assert_uint_eq(out.rgd_at, 21 * 512);
#define REFUSED(change, rc)                                           \
    do {                                                              \
        struct vmdk_header_disk r = good_header();                    \
        change;                                                       \
        ck_assert_int_eq(vmdk_header_parse(&r, false, &out, &e), rc); \
        ck_assert_int_ne(e.text[0], 0);                               \
    } while (0)
    REFUSED(r.magic = le32_of(0), -EINVAL);
    REFUSED(r.version = le32_of(0), -ENOTSUP);
    REFUSED(r.version = le32_of(4), -ENOTSUP);
    REFUSED(r.table_entries = le32_of(256), -EINVAL);
    REFUSED(r.grain.b[0] = 0, -EINVAL);
    REFUSED(r.grain.b[0] = 4, -EINVAL);
    REFUSED(r.grain.b[0] = 127, -EINVAL);
    REFUSED(r.grain.b[4] = 1, -EINVAL);
    REFUSED(r.capacity.b[7] = 1, -EFBIG);
    REFUSED(r.gd_at.b[7] = 1, -EINVAL);
    REFUSED(r.rgd_at.b[7] = 1, -EINVAL);
    REFUSED(r.overhead.b[7] = 1, -EINVAL);
    REFUSED(r.descriptor_size.b[4] = 1, -EFBIG);
    raw.magic = le32_of(0);
    ck_assert_int_eq(vmdk_header_parse(&raw, true, &out, &e), 0);
}
END_TEST

static struct vmdk_se_disk good_se(void)
{
    return (struct vmdk_se_disk){
        .magic = le64_of(0xcafebabe),
        .version = le64_of(0x200000001),
        .capacity = le64_of(0x20000),
        .grain = le64_of(8),
        .table = le64_of(64),
        .gd_at = le64_of(2080),
        .gd_sectors = le64_of(8),
        .tables_at = le64_of(2088),
        .grains_at = le64_of(4096),
    };
}

START_TEST(se_header_bounds)
{
    struct vmdk_header out;
    struct blk_error e;
    struct vmdk_se_disk raw = good_se();
    ck_assert_int_eq(vmdk_se_parse(&raw, &out, &e), 0);
    ck_assert_uint_eq(out.size, 64 * MiB);
    ck_assert_uint_eq(out.tables, 4);
    ck_assert_uint_eq(out.table_entries, 4096);
    ck_assert_uint_eq(out.grains_at, 2 * MiB);
#define SE_REFUSED(field, value, rc)                       \
    do {                                                   \
        struct vmdk_se_disk r = good_se();                 \
        r.field = le64_of(value);                          \
        ck_assert_int_eq(vmdk_se_parse(&r, &out, &e), rc); \
        ck_assert_int_ne(e.text[0], 0);                    \
    } while (0)
    SE_REFUSED(magic, 0xcafecafe, -EINVAL);
    SE_REFUSED(version, 0x100000001, -ENOTSUP);
    SE_REFUSED(version, 1, -ENOTSUP);
    SE_REFUSED(flags, 1, -ENOTSUP);
    SE_REFUSED(grain, 0, -EINVAL);
    SE_REFUSED(grain, 9, -EINVAL);
    SE_REFUSED(grain, 1ULL << 40, -EINVAL);
    SE_REFUSED(table, 0, -EINVAL);
    SE_REFUSED(table, 1ULL << 40, -EINVAL);
    SE_REFUSED(capacity, 1ULL << 60, -EFBIG);
    SE_REFUSED(capacity, 1ULL << 50, -EFBIG);
    SE_REFUSED(gd_at, 1ULL << 60, -EINVAL);
    SE_REFUSED(gd_sectors, 0, -EINVAL);
    SE_REFUSED(tables_at, 1ULL << 60, -EINVAL);
    SE_REFUSED(grains_at, UINT64_MAX, -EINVAL);
}
END_TEST

START_TEST(cowd_header_bounds)
{
    struct vmdk_header out;
    struct blk_error e;
    const struct vmdk_cowd_disk good = {
        .magic = le32_of(VMDK_COWD_MAGIC),
        .version = le32_of(1),
        .capacity = le32_of(4097),
        .grain = le32_of(1),
        .gd_at = le32_of(4),
        .tables = le32_of(2),
        .next_free = le32_of(5),
        .unclean = le32_of(1),
    };
    ck_assert_int_eq(vmdk_cowd_parse(&good, &out, &e), 0);
    ck_assert_uint_eq(out.size, 4097 * 512);
    ck_assert_uint_eq(out.tables, 2);
    ck_assert_uint_eq(out.gd_at, 2048);
    ck_assert_uint_eq(out.next_free, 5 * 512);
    ck_assert(out.unclean);
#define COWD_REFUSED(field, value)                                \
    do {                                                          \
        struct vmdk_cowd_disk r = good;                           \
        r.field = le32_of(value);                                 \
        ck_assert_int_eq(vmdk_cowd_parse(&r, &out, &e), -EINVAL); \
        ck_assert_int_ne(e.text[0], 0);                           \
    } while (0)
    COWD_REFUSED(magic, 0);
    COWD_REFUSED(version, 2);
    COWD_REFUSED(grain, 0);
    COWD_REFUSED(grain, 3);
    COWD_REFUSED(grain, 1u << 31);
    COWD_REFUSED(tables, 1);
    COWD_REFUSED(gd_at, 3);
}
END_TEST

START_TEST(se_entries)
{
    static const struct {
        uint64_t raw;
        enum map_state state;
        uint64_t grain;
    } good[] = {
        {0, MAP_HOLE, 0},
        {1ULL << 60, MAP_ZERO, 0},
        {2ULL << 60 | 77, MAP_ZERO, 0},
        {3ULL << 60, MAP_DATA, 0},
        {3ULL << 60 | 0xabcULL << 48, MAP_DATA, 0xabc},
        {3ULL << 60 | 0xabcULL << 48 | 5, MAP_DATA, 5 << 12 | 0xabc},
    };
    static const uint64_t bad[] = {1, 4ULL << 60, UINT64_MAX, 3ULL << 60 | 0xffffffffffffULL};
    struct vmdk v = {.h.grains_at = 2 * MiB, .map.shape.cluster_bits = 12};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        le64 raw = le64_of(good[i].raw);
        struct map_cell cell = {0};
        ck_assert_int_eq(vmdk_se_format.decode(&v.map, &raw, &cell), 0);
        ck_assert_int_eq(cell.state, good[i].state);
        if (cell.state == MAP_DATA)
            ck_assert_uint_eq(cell.offset, 2 * MiB + good[i].grain * 4096);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        le64 raw = le64_of(bad[i]);
        struct map_cell cell = {0};
        ck_assert_int_eq(vmdk_se_format.decode(&v.map, &raw, &cell), -EIO);
    }
}
END_TEST

static const char some[] = "# Disk DescriptorFile\r\n"
                           "version=1\n"
                           "encoding=\"UTF-8\"\n"
                           "CID = abcd1234\n"
                           "parentCID=0000ffff\n"
                           "createType=\"twoGbMaxExtentSparse\"\n"
                           "parentFileNameHint=\"a name = odd.vmdk\"\n"
                           "changeTrackPath=\"x-ctk.vmdk\"\n"
                           "\n"
                           "RW 4194304 SPARSE \"x s001.vmdk\"\r\n"
                           "  RDONLY 20 FLAT \"y\" 7\n"
                           "RW 1 ZERO\n"
                           "ddb.adapterType = \"ide\"";

START_TEST(descriptors)
{
    struct vmdk_descriptor d;
    struct blk_error e;
    ck_assert_int_eq(vmdk_descriptor_parse(some, &d, &e), 0);
    ck_assert_uint_eq(d.cid, 0xabcd1234);
    ck_assert_uint_eq(d.parent_cid, 0xffff);
    ck_assert_str_eq(d.type, "twoGbMaxExtentSparse");
    ck_assert_str_eq(d.parent, "a name = odd.vmdk");
    ck_assert_str_eq(d.tracking, "x-ctk.vmdk");
    ck_assert_uint_eq(d.count, 3);
    ck_assert_str_eq(d.extents[0].name, "x s001.vmdk");
    ck_assert(d.extents[0].writable && !d.extents[1].writable);
    ck_assert_uint_eq(d.extents[1].offset, 7 * 512);
    ck_assert_ptr_null(d.extents[2].name);
    ck_assert_uint_eq(d.bytes, (4194304 + 20 + 1) * 512ULL);
    vmdk_descriptor_drop(&d);
    static const char *const bad[] = {"RW -1 ZERO",
                                      "RW 0 ZERO",
                                      "RW 99999999999999999999 ZERO",
                                      "RW 1 FLAT",
                                      "RW 1 FLAT \"\" 0",
                                      "RW 1 FLAT \"x\" y",
                                      "RW 1 SOMETHING \"x\"",
                                      "RW"
                                      " "};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_lt(vmdk_descriptor_parse(bad[i], &d, &e), 0);
        ck_assert_ptr_null(d.copy);
    }
}
END_TEST

static void edited(const char *text, struct vmdk_edit edit, const char *want)
{
    char *out = vmdk_descriptor_edit(text, &edit);
    ck_assert_str_eq(out, want);
    mem_free(out);
}

START_TEST(editing)
{
    edited("CID=1\nparentCID=00000002\nchangeTrackPath=\"x\"\n"
           "RW 5 FLAT \"a\" 0\nRW  5 FLAT \"b\" 0\n",
           (struct vmdk_edit){.cid = 0xbeef, .parent_cid = 2, .number = 1, .bytes = 20 * 512},
           "CID=0000beef\nparentCID=00000002\n#hangeTrackPath=\"x\"\n"
           "RW 5 FLAT \"a\" 0\nRW  20 FLAT \"b\" 0\n");
    edited("#\r\n cid = 1\r\nparentFileNameHint=\"a\"\r\nRW 5 ZERO\r\nparentCID=3",
           (struct vmdk_edit){.cid = 1, .parent_cid = 4, .bytes = 512},
           "#\r\nCID=00000001\r\nparentCID=00000004\r\nparentFileNameHint=\"a\"\r\nRW 1 ZERO\r\n");
    edited("CID=1\nparentFileNameHint=\"a\"\nddb.x = \"cid=\"\n",
           (struct vmdk_edit){.cid = 1, .parent_cid = 5, .parent = "b/c", .number = SIZE_MAX},
           "CID=00000001\nparentCID=00000005\nparentFileNameHint=\"b/c\"\nddb.x = \"cid=\"\n");
    edited("CID=1\nparentFileNameHint=\"a\"",
           (struct vmdk_edit){.cid = 1, .parent_cid = VMDK_NO_PARENT, .parent = ""},
           "CID=00000001\nparentCID=ffffffff\n");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vmdk");
    TCase *t = tcase_create("vmdk");
    tcase_add_test(t, header_bounds);
    tcase_add_test(t, cowd_header_bounds);
    tcase_add_test(t, se_header_bounds);
    tcase_add_test(t, se_entries);
    tcase_add_test(t, descriptors);
    tcase_add_test(t, editing);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

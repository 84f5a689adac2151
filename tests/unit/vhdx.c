/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx.c - VHDX: bounds of headers, regions, metadata and locators; what a log says. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "block/crc32c.h"
#include "block/utf16.h"
#include "imgfmt/vhdx.h"

static const uint8_t guid[16] = {1, 2, 3};

START_TEST(known_sums)
{
    uint8_t zeroes[32] = {0};
    ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
    ck_assert_uint_eq(crc32c(0, zeroes, 32), 0x8a9136aa); /* RFC 3720 */
    ck_assert_uint_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    uint8_t other[32] = {[7] = 1, [8] = 2, [10] = 3};
    ck_assert_uint_eq(crc32c_but(other, 32, 7), 0x8a9136aa);
}
END_TEST

/* --- headers --- */

static struct vhdx_header_disk good_header(uint64_t sequence)
{
    struct vhdx_header_disk h = {.signature = "head"};
    h.sequence = le64_of(sequence);
    h.version = le16_of(1);
    h.log_bytes = le32_of(MiB);
    h.log_offset = le64_of(MiB);
    vhdx_seal(&h, sizeof(h));
    return h;
}

static int choose(struct vhdx_header_disk a, struct vhdx_header_disk b, struct vhdx_header *out)
{
    struct vhdx_header_disk both[2] = {a, b};
    struct blk_error e = {0};
    int rc = vhdx_header_choose(both, 8 * MiB, out, &e);
    ck_assert_int_eq(rc < 0, e.text[0] != 0);
    return rc;
}

START_TEST(which_header)
{
    struct vhdx_header out;
    struct vhdx_header_disk bad = good_header(9);
    bad.reserved[77]++;
    ck_assert_int_eq(choose(good_header(4), good_header(5), &out), 0);
    ck_assert_uint_eq(out.slot, 1);
    ck_assert_uint_eq(out.sequence, 5);
    ck_assert_int_eq(choose(good_header(7), good_header(5), &out), 0);
    ck_assert_uint_eq(out.slot, 0);
    ck_assert_int_eq(choose(bad, good_header(5), &out), 0);
    ck_assert_uint_eq(out.slot, 1);
    ck_assert_int_eq(choose(good_header(5), bad, &out), 0);
    ck_assert_uint_eq(out.slot, 0);
    ck_assert_int_eq(choose(bad, bad, &out), -EINVAL);
    /* Disk2VHD writes both alike. */
    ck_assert_int_eq(choose(good_header(5), good_header(5), &out), 0);
    struct vhdx_header_disk other = good_header(5);
    other.data_write[0]++;
    vhdx_seal(&other, sizeof(other));
    ck_assert_int_eq(choose(good_header(5), other, &out), -EINVAL);
}
END_TEST

START_TEST(header_bounds)
{
    struct vhdx_header out;
#define REFUSED(field, value, rc)                   \
    do {                                            \
        struct vhdx_header_disk h = good_header(5); \
        h.field = value;                            \
        vhdx_seal(&h, sizeof(h));                   \
        ck_assert_int_eq(choose(h, h, &out), rc);   \
    } while (0)
    REFUSED(version, le16_of(2), -ENOTSUP);
    REFUSED(log_bytes, le32_of(0), -EINVAL);
    REFUSED(log_bytes, le32_of(4096), -EINVAL);
    REFUSED(log_bytes, le32_of(8 * MiB), -EINVAL);
    REFUSED(log_offset, le64_of(0), -EINVAL);
    REFUSED(log_offset, le64_of(MiB + 4096), -EINVAL);
    REFUSED(log_offset, le64_of(UINT64_MAX - MiB + 1), -EINVAL);
    REFUSED(sequence, le64_of(UINT64_MAX), -EINVAL);
#undef REFUSED
    struct vhdx_header_disk h = good_header(5);
    h.log_version = le16_of(1); /* of an empty log it says nothing */
    vhdx_seal(&h, sizeof(h));
    ck_assert_int_eq(choose(h, h, &out), 0);
    h.log_guid[3] = 1;
    vhdx_seal(&h, sizeof(h));
    ck_assert_int_eq(choose(h, h, &out), -ENOTSUP);
}
END_TEST

/* --- regions and metadata --- */

struct region {
    const uint8_t *guid;
    uint64_t offset;
    uint32_t bytes, required;
};

static int regions(const struct region *list, unsigned count, struct vhdx_regions *out)
{
    static struct vhdx_regions_disk raw;
    struct vhdx_header h = {.log_offset = MiB, .log_bytes = MiB};
    struct blk_error e;
    memset(&raw, 0, sizeof(raw));
    memcpy(raw.signature, "regi", 4);
    raw.count = le32_of(count);
    for (unsigned i = 0; i < count && i < 2047; i++) {
        memcpy(raw.regions[i].guid, list[i].guid, 16);
        raw.regions[i].offset = le64_of(list[i].offset);
        raw.regions[i].bytes = le32_of(list[i].bytes);
        raw.regions[i].required = le32_of(list[i].required);
    }
    vhdx_seal(&raw, sizeof(raw));
    return vhdx_regions_parse(&raw, &h, out, &e);
}

START_TEST(region_bounds)
{
    struct vhdx_regions out;
    struct region r[] = {{vhdx_guid_table, 3 * MiB, MiB, 1},
                         {vhdx_guid_metadata, 2 * MiB, MiB, 1},
                         {guid, 4 * MiB, MiB, 0}};
    ck_assert_int_eq(regions(r, 3, &out), 0);
    ck_assert_uint_eq(out.table.offset, 3 * MiB);
    ck_assert_uint_eq(out.metadata.offset, 2 * MiB);
    ck_assert_uint_eq(out.others[0].offset, 4 * MiB); /* unknown and optional: kept */
    ck_assert_int_eq(regions(r, 1, &out), -EINVAL);
    r[2].required = 1;
    ck_assert_int_eq(regions(r, 3, &out), -ENOTSUP);
    r[2] = (struct region){vhdx_guid_table, 4 * MiB, MiB, 1};
    ck_assert_int_eq(regions(r, 3, &out), -EINVAL);
    static const uint64_t bad[] = {0,       512 * KiB,      MiB,
                                   2 * MiB, 3 * MiB + 4096, UINT64_MAX - MiB + 1};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        r[0].offset = bad[i];
        ck_assert_int_eq(regions(r, 2, &out), -EINVAL);
    }
    r[0] = (struct region){vhdx_guid_table, 3 * MiB, 0, 1};
    ck_assert_int_eq(regions(r, 2, &out), -EINVAL);
    r[0].bytes = MiB + 4096;
    ck_assert_int_eq(regions(r, 2, &out), -EINVAL);
    ck_assert_int_eq(regions(r, 0, &out), -EINVAL);
}
END_TEST

static int items(uint32_t block, uint32_t flags, uint64_t size, uint32_t sector)
{
    uint8_t raw[VHDX_ITEMS][16] = {0};
    struct vhdx_metadata d = {0};
    struct blk_error e;
    le32 n = le32_of(block), f = le32_of(flags), s = le32_of(sector);
    le64 z = le64_of(size);
    memcpy(raw[VHDX_ITEM_FILE], &n, 4);
    memcpy(raw[VHDX_ITEM_FILE] + 4, &f, 4);
    memcpy(raw[VHDX_ITEM_SIZE], &z, 8);
    memcpy(raw[VHDX_ITEM_LOGICAL], &s, 4);
    memcpy(raw[VHDX_ITEM_PHYSICAL], &s, 4);
    return vhdx_items_parse(raw, &d, &e);
}

START_TEST(item_bounds)
{
    ck_assert_int_eq(items(MiB, 0, GiB, 512), 0);
    ck_assert_int_eq(items(256 * MiB, 1, 64 * TiB, 4096), 0);
    ck_assert_int_eq(items(0, 0, GiB, 512), -EINVAL);
    ck_assert_int_eq(items(1, 0, GiB, 512), -EINVAL);
    ck_assert_int_eq(items(3 * MiB, 0, GiB, 512), -EINVAL);
    ck_assert_int_eq(items(512 * MiB, 0, GiB, 512), -EINVAL);
    ck_assert_int_eq(items(1U << 31, 0, GiB, 512), -EINVAL);
    ck_assert_int_eq(items(MiB, 0, GiB, 3), -EINVAL);
    ck_assert_int_eq(items(MiB, 0, GiB, 1024), -EINVAL);
    ck_assert_int_eq(items(MiB, 0, GiB + 512, 4096), -EINVAL);
    ck_assert_int_eq(items(MiB, 0, 64 * TiB + 512, 512), -EINVAL);
    ck_assert_int_eq(items(MiB, 2, GiB, 512), -EINVAL); /* a parent that nobody names */
}
END_TEST

START_TEST(metadata_bounds)
{
    static struct vhdx_metadata_disk raw;
    struct vhdx_metadata d;
    struct blk_error e;
    memcpy(raw.signature, "metadata", 8);
    raw.count = le16_of(6);
    for (unsigned i = 0; i < 5; i++) {
        memcpy(raw.items[i].guid, vhdx_items[i].guid, 16);
        raw.items[i].offset = le32_of(64 * KiB + 32 * i);
        raw.items[i].bytes = le32_of(vhdx_items[i].bytes);
        raw.items[i].flags = le32_of(4);
    }
    memcpy(raw.items[5].guid, guid, 16);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), 0); /* unknown and optional */
    ck_assert_uint_eq(d.at[VHDX_ITEM_SIZE].offset, 64 * KiB + 32);
    raw.items[5].flags = le32_of(4);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(e.text, "00030201-0000"));
    raw.count = le16_of(5);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), 0);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, 64 * KiB + 128, &d, &e), -EINVAL);
    raw.count = le16_of(4);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), -EINVAL);
    raw.count = le16_of(2048);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), -EINVAL);
    raw.count = le16_of(5);
    raw.items[1].offset = le32_of(64 * KiB - 8);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), -EINVAL);
    raw.items[1].offset = le32_of(UINT32_MAX);
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), -EINVAL);
    raw.items[1] = raw.items[0];
    ck_assert_int_eq(vhdx_metadata_parse(&raw, MiB, &d, &e), -EINVAL);
}
END_TEST

START_TEST(entries_and_chunks)
{
    struct vhdx_metadata d = {.block_bytes = MiB, .logical = 512};
    ck_assert_uint_eq(vhdx_chunk_ratio(&d), 4096);
    ck_assert_uint_eq(vhdx_entries(&d, 0), 0);
    ck_assert_uint_eq(vhdx_entries(&d, 4 * GiB), 4096);
    ck_assert_uint_eq(vhdx_entries(&d, 4 * GiB + 512), 4098);
    d.has_parent = true;
    ck_assert_uint_eq(vhdx_entries(&d, 512), 4097);
    ck_assert_uint_eq(vhdx_entries(&d, 4 * GiB + 512), 2 * 4097);
    d = (struct vhdx_metadata){.block_bytes = 256 * MiB, .logical = 4096};
    ck_assert_uint_eq(vhdx_chunk_ratio(&d), 128);
}
END_TEST

/* --- the log --- */

#define LOG_BYTES (16 * VHDX_PAGE)

/* An entry of @pages pages at @at, each full of its sequence number, for offsets from 1 MiB on. */
static uint64_t put_entry(uint8_t *log, uint64_t at, uint64_t tail, uint64_t sequence,
                          uint32_t pages)
{
    uint8_t entry[LOG_BYTES], page[VHDX_PAGE];
    struct vhdx_log_entry l = {
        .sequence = sequence, .tail = tail, .guid = guid, .flushed = MiB, .length = 9 * MiB};
    uint64_t bytes = vhdx_entry_bytes(pages);
    memset(page, (int)sequence, sizeof(page));
    vhdx_entry_begin(entry, &l, pages);
    for (uint32_t i = 0; i < pages; i++)
        vhdx_entry_page(entry, i, MiB + i * VHDX_PAGE, page);
    vhdx_entry_seal(entry);
    for (uint64_t i = 0; i < bytes; i++)
        log[(at + i) % LOG_BYTES] = entry[i];
    return (at + bytes) % LOG_BYTES;
}

static struct vhdx_replay replay(const uint8_t *log)
{
    struct vhdx_header h = {0};
    struct blk_error e;
    struct vhdx_replay r = {.log = mem_alloc(LOG_BYTES), .log_bytes = LOG_BYTES};
    memcpy(h.log_guid, guid, 16);
    memcpy(r.log, log, LOG_BYTES);
    ck_assert_int_eq(vhdx_replay_find(&r, &h, MiB, &e), 0);
    return r;
}

/* What byte of page @i is after a replay; 0xee: untouched. */
static int byte_after(const uint8_t *log, unsigned i)
{
    struct vhdx_replay r = replay(log);
    uint8_t page[VHDX_PAGE];
    memset(page, 0xee, sizeof(page));
    vhdx_replay_patch(&r, MiB + i * VHDX_PAGE, page, sizeof(page));
    for (unsigned k = 1; k < sizeof(page); k++)
        ck_assert_uint_eq(page[k], page[0]);
    vhdx_replay_drop(&r);
    return page[0];
}

START_TEST(empty_log)
{
    uint8_t log[LOG_BYTES] = {0};
    ck_assert_int_eq(byte_after(log, 0), 0xee);
    put_entry(log, 0, 0, 5, 1);
    log[0] = 'x';
    ck_assert_int_eq(byte_after(log, 0), 0xee);
    put_entry(log, 0, 0, 5, 1);
    log[VHDX_PAGE + 100]++; /* the page of data */
    ck_assert_int_eq(byte_after(log, 0), 0xee);
}
END_TEST

START_TEST(last_entry_wins)
{
    uint8_t log[LOG_BYTES] = {0};
    uint64_t at = put_entry(log, 0, 0, 5, 2);
    at = put_entry(log, at, 0, 6, 1);
    ck_assert_int_eq(byte_after(log, 0), 6);
    ck_assert_int_eq(byte_after(log, 1), 5);
    put_entry(log, at, at, 7, 1); /* its tail leaves the others behind */
    ck_assert_int_eq(byte_after(log, 0), 7);
    ck_assert_int_eq(byte_after(log, 1), 0xee);
    struct vhdx_replay r = replay(log);
    ck_assert_uint_eq(r.length, 9 * MiB);
    vhdx_replay_drop(&r);
}
END_TEST

START_TEST(around_the_end)
{
    uint8_t log[LOG_BYTES] = {0};
    uint64_t first = 13 * VHDX_PAGE;
    uint64_t at = put_entry(log, first, first, 8, 3); /* over the end */
    ck_assert_int_eq(byte_after(log, 2), 8);
    put_entry(log, at, first, 9, 1);
    ck_assert_int_eq(byte_after(log, 0), 9);
    ck_assert_int_eq(byte_after(log, 2), 8);
}
END_TEST

START_TEST(which_sequence)
{
    uint8_t log[LOG_BYTES] = {0};
    put_entry(log, 0, 0, 5, 1);
    put_entry(log, 8 * VHDX_PAGE, 8 * VHDX_PAGE, 9, 2);
    ck_assert_int_eq(byte_after(log, 0), 9);
    put_entry(log, 12 * VHDX_PAGE, 3 * VHDX_PAGE, 20, 1); /* its tail is none of its sequence */
    ck_assert_int_eq(byte_after(log, 0), 9);
}
END_TEST

START_TEST(zeroes_and_short_files)
{
    uint8_t log[LOG_BYTES] = {0};
    struct vhdx_header h = {0};
    struct blk_error e;
    put_entry(log, 0, 0, 5, 1);
    struct vhdx_descriptor_disk *d = (void *)(log + 64);
    memcpy(d->signature, "zero", 4);
    d->leading = le64_of(MiB);
    vhdx_entry_seal(log);
    ck_assert_int_eq(byte_after(log, 0), 0);
    ck_assert_int_eq(byte_after(log, 255), 0);
    ck_assert_int_eq(byte_after(log, 256), 0xee);
    struct vhdx_replay r = {.log = mem_alloc(LOG_BYTES), .log_bytes = LOG_BYTES};
    memcpy(h.log_guid, guid, 16);
    memcpy(r.log, log, LOG_BYTES);
    ck_assert_int_eq(vhdx_replay_find(&r, &h, MiB - 1, &e), -EINVAL);
    vhdx_replay_drop(&r);
}
END_TEST

/* Every page begins an entry that claims the whole log: summing them all up is refused. */
START_TEST(log_that_takes_too_long)
{
    struct vhdx_header h = {0};
    struct blk_error e;
    struct vhdx_replay r = {.log_bytes = MiB};
    r.log = mem_zalloc(r.log_bytes);
    memcpy(h.log_guid, guid, 16);
    struct vhdx_log_entry l = {.sequence = 1, .guid = guid};
    for (uint64_t at = 0; at < r.log_bytes; at += VHDX_PAGE) {
        vhdx_entry_begin(r.log + at, &l, 0);
        ((struct vhdx_log_entry_disk *)(r.log + at))->bytes = le32_of(r.log_bytes);
    }
    ck_assert_int_eq(vhdx_replay_find(&r, &h, MiB, &e), -EFBIG);
    vhdx_replay_drop(&r);
}
END_TEST

/* --- the locator --- */

/* Keys and values behind one another. */
static int locator(const char *const pairs[][2], unsigned count, char **name, uint8_t linkage[16])
{
    uint8_t raw[2048] = {0};
    struct blk_error e;
    struct vhdx_locator_disk head = {.count = le16_of(count)};
    size_t at = sizeof(head) + count * sizeof(struct vhdx_locator_entry_disk);
    memcpy(head.type, vhdx_guid_locator, 16);
    memcpy(raw, &head, sizeof(head));
    for (unsigned i = 0; i < count; i++) {
        struct vhdx_locator_entry_disk n = {.key_offset = le32_of(at)};
        size_t bytes = utf16_from_text(pairs[i][0], false, raw + at, 200);
        n.key_bytes = le16_of(bytes);
        n.value_offset = le32_of(at += bytes);
        bytes = utf16_from_text(pairs[i][1], false, raw + at, 200);
        n.value_bytes = le16_of(bytes);
        at += bytes;
        memcpy(raw + sizeof(head) + i * sizeof(n), &n, sizeof(n));
    }
    return vhdx_locator_parse(raw, at, name, linkage, &e);
}

START_TEST(names_of_parents)
{
    static const char *const all[][2] = {
        {"parent_linkage", "{03020100-0504-0706-0809-0a0b0c0d0e0f}"},
        {"absolute_win32_path", "C:\\disks\\abs.vhdx"},
        {"relative_path", "..\\base\\rel.vhdx"},
        {"volume_path", "\\\\?\\Volume{1}\\disks\\vol.vhdx"},
    };
    char *name;
    uint8_t linkage[16];
    ck_assert_int_eq(locator(all, 4, &name, linkage), 0);
    ck_assert_str_eq(name, "../base/rel.vhdx");
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(linkage[i], i);
    mem_free(name);
    ck_assert_int_eq(locator(all, 2, &name, linkage), 0);
    ck_assert_str_eq(name, "abs.vhdx");
    mem_free(name);
    ck_assert_int_eq(locator(all + 3, 1, &name, linkage), 0);
    ck_assert_str_eq(name, "vol.vhdx");
    mem_free(name);
    ck_assert_int_eq(locator(all, 1, &name, linkage), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vhdx");
    TCase *t = tcase_create("vhdx");
    tcase_add_test(t, known_sums);
    tcase_add_test(t, which_header);
    tcase_add_test(t, header_bounds);
    tcase_add_test(t, region_bounds);
    tcase_add_test(t, item_bounds);
    tcase_add_test(t, metadata_bounds);
    tcase_add_test(t, entries_and_chunks);
    tcase_add_test(t, empty_log);
    tcase_add_test(t, last_entry_wins);
    tcase_add_test(t, around_the_end);
    tcase_add_test(t, which_sequence);
    tcase_add_test(t, zeroes_and_short_files);
    tcase_add_test(t, log_that_takes_too_long);
    tcase_add_test(t, names_of_parents);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

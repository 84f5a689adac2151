/* SPDX-License-Identifier: BSD-3-Clause */
/* readonly.c - the parsers of formats that are only read: what they refuse; ADC, tar numbers, OVF
 * units, manifest lines, bits of bzip2; pieces that are kept; chunks that are inflated once. */
#include <check.h>
#include <stdlib.h>
#ifdef HAVE_BZIP2
#include <bzlib.h>
#endif

#include "imgfmt/bochs.h"
#include "imgfmt/bzip2.h"
#include "imgfmt/chunks.h"
#include "imgfmt/cloop.h"
#include "imgfmt/dmg.h"
#include "imgfmt/ova.h"
#include "imgfmt/qcow1.h"
#include "imgfmt/unpack.h"
#include "tests/lib/on_host.h"

#define REFUSED(good, parse, field, value, rc)            \
    do {                                                  \
        raw = good();                                     \
        memset(&e, 0, sizeof(e));                         \
        raw.field = value;                                \
        ck_assert_int_eq(parse, rc);                      \
        ck_assert_msg(e.text[0], "%s: no words", #field); \
    } while (0)

/* --- headers ---------------------------------------------------------------------------------- */

static struct qcow1_header_disk good_qcow1(void)
{
    return (struct qcow1_header_disk){.magic = be32_of(QCOW1_MAGIC),
                                      .version = be32_of(1),
                                      .size = be64_of(100 * MiB),
                                      .cluster_bits = 12,
                                      .l2_bits = 9,
                                      .l1_offset = be64_of(48)};
}

START_TEST(qcow1_header)
{
    struct qcow1_header out;
    struct blk_error e = {0};
    struct qcow1_header_disk raw = good_qcow1();
    ck_assert_int_eq(qcow1_header_parse(&raw, &out, &e), 0);
    ck_assert_uint_eq(out.l1_entries, 50);
#define NO(field, value, rc) \
    REFUSED(good_qcow1, qcow1_header_parse(&raw, &out, &e), field, value, rc)
    NO(magic, be32_of(1), -EINVAL);
    NO(version, be32_of(2), -ENOTSUP);
    NO(crypt, be32_of(2), -EINVAL);
    NO(cluster_bits, 8, -EINVAL);
    NO(cluster_bits, 17, -EINVAL);
    NO(cluster_bits, 255, -EINVAL);
    NO(l2_bits, 5, -EINVAL);
    NO(l2_bits, 14, -EINVAL);
    NO(size, be64_of(0), -EINVAL);
    NO(size, be64_of(1), -EINVAL);
    NO(size, be64_of(UINT64_MAX), -EINVAL);
    NO(size, be64_of(INT64_MAX), -EFBIG);
    NO(l1_offset, be64_of(0), -EINVAL);
    NO(l1_offset, be64_of(49), -EINVAL);
    NO(l1_offset, be64_of(UINT64_MAX - 7), -EINVAL);
#undef NO
    raw = good_qcow1();
    raw.backing_offset = be64_of(100);
    raw.backing_bytes = be32_of(1024);
    ck_assert_int_eq(qcow1_header_parse(&raw, &out, &e), -EINVAL);
}
END_TEST

static struct bochs_header_disk good_bochs(void)
{
    struct bochs_header_disk raw = {.magic = "Bochs Virtual HD Image",
                                    .type = "Redolog",
                                    .subtype = "Growing",
                                    .version = le32_of(BOCHS_VERSION_1),
                                    .header_bytes = le32_of(512),
                                    .catalog = le32_of(100),
                                    .bitmap_bytes = le32_of(8),
                                    .extent_bytes = le32_of(32768)};
    le64 size = le64_of(100 * 32768);
    memcpy(raw.versioned, &size, sizeof(size));
    return raw;
}

START_TEST(bochs_header)
{
    struct bochs_header out;
    struct blk_error e = {0};
    struct bochs_header_disk raw = good_bochs();
    ck_assert_int_eq(bochs_header_parse(&raw, &out, &e), 0);
    ck_assert_uint_eq(out.data_offset, 512 + 400);
    ck_assert_uint_eq(out.extent_stride, 512 + 32768);
#define NO(field, value, rc) \
    REFUSED(good_bochs, bochs_header_parse(&raw, &out, &e), field, value, rc)
    NO(magic[0], 'b', -EINVAL);
    NO(type[0], 'r', -EINVAL);
    NO(subtype[0], 'U', -EINVAL);
    NO(version, le32_of(0x30000), -EINVAL);
    NO(header_bytes, le32_of(0), -EINVAL);
    NO(header_bytes, le32_of(513), -EINVAL);
    NO(catalog, le32_of(99), -EINVAL);
    NO(catalog, le32_of(UINT32_MAX), -EFBIG);
    NO(bitmap_bytes, le32_of(7), -EINVAL);
    NO(bitmap_bytes, le32_of(UINT32_MAX), -EINVAL);
    NO(extent_bytes, le32_of(0), -EINVAL);
    NO(extent_bytes, le32_of(256), -EINVAL);
    NO(extent_bytes, le32_of(768), -EINVAL);
    NO(extent_bytes, le32_of(1u << 31), -EINVAL);
    NO(versioned[7], 0x7f, -EINVAL);
#undef NO
}
END_TEST

static struct cloop_header_disk good_cloop(void)
{
    return (struct cloop_header_disk){
        .script = "#!/bin/sh\n#V2.0 Format\n", .block_bytes = be32_of(65536), .blocks = be32_of(9)};
}

START_TEST(cloop_header)
{
    struct cloop_header out;
    struct blk_error e = {0};
    struct cloop_header_disk raw = good_cloop();
    ck_assert_int_eq(cloop_header_parse(&raw, 136 + 80, &out, &e), 0);
    ck_assert_int_eq(cloop_header_parse(&raw, 136 + 79, &out, &e), -EINVAL);
#define NO(field, value) \
    REFUSED(good_cloop, cloop_header_parse(&raw, 1000, &out, &e), field, value, -EINVAL)
    NO(script[12], '3');
    NO(block_bytes, be32_of(0));
    NO(block_bytes, be32_of(513));
    NO(block_bytes, be32_of(UINT32_MAX - 511));
    NO(blocks, be32_of(108));
    NO(blocks, be32_of(UINT32_MAX));
#undef NO
}
END_TEST

static struct dmg_koly_disk good_koly(void)
{
    return (struct dmg_koly_disk){.magic = be32_of(DMG_KOLY),
                                  .segments = be32_of(1),
                                  .data_bytes = be64_of(100),
                                  .xml_offset = be64_of(100),
                                  .xml_bytes = be64_of(100),
                                  .sectors = be64_of(8)};
}

START_TEST(dmg_trailer)
{
    struct dmg_koly out;
    struct blk_error e = {0};
    struct dmg_koly_disk raw = good_koly();
    ck_assert_int_eq(dmg_koly_parse(&raw, 712, &out, &e), 0);
#define NO(field, value, rc) \
    REFUSED(good_koly, dmg_koly_parse(&raw, 712, &out, &e), field, value, rc)
    NO(magic, be32_of(0), -EINVAL);
    NO(segments, be32_of(2), -ENOTSUP);
    NO(data_offset, be64_of(713), -EINVAL);
    NO(xml_offset, be64_of(700), -EINVAL);
    NO(xml_bytes, be64_of(0), -EINVAL);
    NO(xml_bytes, be64_of(UINT64_MAX), -EINVAL);
    NO(fork_bytes, be64_of(UINT64_MAX), -EINVAL);
    NO(sectors, be64_of(UINT64_MAX), -EFBIG);
#undef NO
}
END_TEST

/* --- the chunk tables of a DMG ---------------------------------------------------------------- */

struct mish {
    struct dmg_mish_disk head;
    struct dmg_chunk_disk chunks[3];
};

static struct mish good_mish(void)
{
    struct mish m = {
        .head = {.magic = be32_of(DMG_MISH), .sector = be64_of(10), .chunks = be32_of(3)}};
    m.chunks[0] = (struct dmg_chunk_disk){.kind = be32_of(DMG_ZLIB),
                                          .sector = be64_of(8),
                                          .sectors = be64_of(8),
                                          .offset = be64_of(0),
                                          .bytes = be64_of(50)};
    m.chunks[1] = (struct dmg_chunk_disk){.kind = be32_of(DMG_RAW),
                                          .sectors = be64_of(2),
                                          .offset = be64_of(50),
                                          .bytes = be64_of(1024)};
    m.chunks[2] = (struct dmg_chunk_disk){
        .kind = be32_of(DMG_ZERO), .sector = be64_of(16), .sectors = be64_of(100)};
    return m;
}

/* In pieces of @step bytes. */
static int feed(struct dmg_table *t, const struct mish *m, size_t step, struct blk_error *e)
{
    const uint8_t *p = (const uint8_t *)m;
    *t = (struct dmg_table){.file_bytes = 2000, .data_offset = 100};
    dmg_table_begin(t);
    for (size_t at = 0; at < sizeof(*m); at += step) {
        int rc = dmg_table_feed(t, p + at, MIN(step, sizeof(*m) - at), e);
        if (rc < 0)
            return rc;
    }
    return dmg_table_done(t, e);
}

START_TEST(dmg_tables_in_pieces)
{
    struct dmg_table t;
    struct blk_error e = {0};
    struct mish m = good_mish();
    ck_assert_int_eq(feed(&t, &m, (size_t)_i + 1, &e), 0);
    ck_assert_uint_eq(t.count, 2);
    ck_assert_uint_eq(t.sectors, 126);
    ck_assert_uint_eq(t.chunks[0].sector, 10);
    ck_assert_uint_eq(t.chunks[0].offset, 150);
    ck_assert_uint_eq(t.chunks[1].sector, 18);
    dmg_table_drop(&t);
}
END_TEST

START_TEST(dmg_tables_refused)
{
    struct dmg_table t;
    struct blk_error e = {0};
    struct mish raw;
#define NO(field, value, rc)                                         \
    do {                                                             \
        REFUSED(good_mish, feed(&t, &raw, 7, &e), field, value, rc); \
        dmg_table_drop(&t);                                          \
    } while (0)
    NO(head.magic, be32_of(0), -EINVAL);
    NO(head.data_offset, be64_of(UINT64_MAX), -EINVAL);
    NO(head.sector, be64_of(UINT64_MAX), -EFBIG);
    NO(chunks[0].kind, be32_of(77), -EINVAL);
    NO(chunks[0].sectors, be64_of(131073), -EINVAL);
    NO(chunks[0].sectors, be64_of(UINT64_MAX), -EFBIG);
    NO(chunks[0].bytes, be64_of(0), -EINVAL);
    NO(chunks[0].bytes, be64_of(64 * MiB + 1), -EINVAL);
    NO(chunks[0].offset, be64_of(1900), -EINVAL);
    NO(chunks[0].offset, be64_of(UINT64_MAX), -EINVAL);
    NO(chunks[0].sector, be64_of(1), -EINVAL); /* overlaps the raw one */
    NO(chunks[1].bytes, be64_of(1023), -EINVAL);
    NO(chunks[2].sectors, be64_of(1ULL << 60), -EFBIG);
#undef NO
}
END_TEST

/* --- ADC -------------------------------------------------------------------------------------- */

START_TEST(adc)
{
    static const uint8_t good[] = {0x82, 'a', 'b', 'c', 0x00, 2, 0x40 | 1, 0, 0};
    uint8_t out[11] = {0};
    ck_assert_int_eq(unpack(UNPACK_ADC, good, sizeof(good), out, sizeof(out)), 0);
    ck_assert_mem_eq(out, "abcabcccccc", 11);
    for (size_t n = 0; n < sizeof(good); n++) /* cut off, and too long */
        ck_assert_int_eq(unpack(UNPACK_ADC, good, n, out, sizeof(out)), -EIO);
    for (size_t n = 4; n < sizeof(out); n++)
        if (n != 6)
            ck_assert_int_eq(unpack(UNPACK_ADC, good, sizeof(good), out, n), -EIO);
    static const uint8_t before[] = {0x80, 'a', 0x00, 1}; /* copies what was not there */
    ck_assert_int_eq(unpack(UNPACK_ADC, before, sizeof(before), out, 4), -EIO);
}
END_TEST

/* --- tar -------------------------------------------------------------------------------------- */

static struct tar_header_disk tar_of(const char *name, const char *size, size_t size_bytes)
{
    struct tar_header_disk raw = {.type = '0', .magic = "ustar"};
    unsigned sum = 0;
    strncpy(raw.name, name, sizeof(raw.name));
    memcpy(raw.size, size, size_bytes);
    memset(raw.sum, ' ', sizeof(raw.sum));
    for (size_t i = 0; i < sizeof(raw); i++)
        sum += ((uint8_t *)&raw)[i];
    snprintf(raw.sum, sizeof(raw.sum), "%06o", sum);
    return raw;
}

static int tar_size(const char *size, size_t bytes, uint64_t *out)
{
    struct tar_header h;
    struct blk_error e;
    struct tar_header_disk raw = tar_of("a", size, bytes);
    int rc = tar_header_parse(&raw, &h, &e);
    *out = h.bytes;
    return rc;
}

START_TEST(tar_sizes)
{
    uint64_t v;
    ck_assert_int_eq(tar_size("00000001750", 11, &v), 1);
    ck_assert_uint_eq(v, 1000);
    ck_assert_int_eq(tar_size("  1750 ", 7, &v), 1);
    ck_assert_uint_eq(v, 1000);
    ck_assert_int_eq(tar_size("777777777777", 12, &v), 1);
    ck_assert_uint_eq(v, (1ULL << 36) - 1);
    ck_assert_int_eq(tar_size("\x80\0\0\0\0\0\0\1\0\0\0\0", 12, &v), 1);
    ck_assert_uint_eq(v, 1ULL << 32);
    ck_assert_int_eq(tar_size("\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12, &v), -EINVAL);
    ck_assert_int_eq(tar_size("12x", 3, &v), -EINVAL);
    struct tar_header_disk raw = tar_of("a", "1", 1);
    struct tar_header h;
    struct blk_error e = {0};
    raw.name[1] = 'b';
    ck_assert_int_eq(tar_header_parse(&raw, &h, &e), -EINVAL);
    memset(&raw, 0, sizeof(raw));
    ck_assert_int_eq(tar_header_parse(&raw, &h, &e), 0);
}
END_TEST

START_TEST(tar_pax)
{
    static const char *const broken[] = {"x",
                                         "5",
                                         "9999999 a=b\n",
                                         "3 a\n",
                                         "12 path=abcd",
                                         "13 size=12x\n",
                                         "30 size=99999999999999999999\n"};
    static const char good[] = "12 path=abc\n11 size=77\n9 x=yyyy\n";
    struct tar_header h = {0};
    bool name = false, size = false;
    struct blk_error e = {0};
    ck_assert_int_eq(tar_pax_parse(good, sizeof(good) - 1, &h, &name, &size, &e), 0);
    ck_assert(name && size);
    ck_assert_str_eq(h.name, "abc");
    ck_assert_uint_eq(h.bytes, 77);
    for (size_t i = 0; i < ARRAY_LEN(broken); i++)
        ck_assert_msg(tar_pax_parse(broken[i], strlen(broken[i]), &h, &name, &size, &e) == -EINVAL,
                      "%s", broken[i]);
}
END_TEST

/* --- OVF, manifests --------------------------------------------------------------------------- */

START_TEST(ovf_units)
{
    static const char *const broken[] = {"",    "byte * 2^61", "byte * 2^", "byte * 2^3x",
                                         "bit", "byte * 10"};
    uint64_t v;
    ck_assert_int_eq(ovf_parse_unit("byte", &v), 0);
    ck_assert_uint_eq(v, 1);
    ck_assert_int_eq(ovf_parse_unit("byte * 2^30", &v), 0);
    ck_assert_uint_eq(v, GiB);
    ck_assert_int_eq(ovf_parse_unit("MegaBytes", &v), 0);
    ck_assert_uint_eq(v, MiB);
    for (size_t i = 0; i < ARRAY_LEN(broken); i++)
        ck_assert_int_eq(ovf_parse_unit(broken[i], &v), -EINVAL);
}
END_TEST

START_TEST(manifest_lines)
{
    static const char *const broken[] = {
        "",
        "SHA1",
        "SHA1()= 00112233445566778899aabbccddeeff00112233",
        "SHA1(a)= 00112233445566778899aabbccddeeff0011223",
        "SHA1(a)= 00112233445566778899aabbccddeeff0011223g",
        "SHA1(a)= 00112233445566778899aabbccddeeff0011223344",
        "MD5(a)= 00112233445566778899aabbccddeeff",
        "SHA256(a)= 00112233445566778899aabbccddeeff00112233",
    };
    struct ova_digest d;
    static const char good[] = "SHA1 (a (1).vmdk) = 00112233445566778899AAbbccddeeff00112233";
    ck_assert_int_eq(ova_digest_parse(good, sizeof(good) - 1, &d), 0);
    ck_assert_str_eq(d.name, "a (1).vmdk");
    ck_assert_uint_eq(d.digest[10], 0xaa);
    for (size_t i = 0; i < ARRAY_LEN(broken); i++)
        ck_assert_msg(ova_digest_parse(broken[i], strlen(broken[i]), &d) == -EINVAL, "%s",
                      broken[i]);
}
END_TEST

/* --- bzip2 ------------------------------------------------------------------------------------ */

#ifdef HAVE_BZIP2
/* A block moved to any bit, cut out again, is still a stream. */
START_TEST(bzip2_blocks_at_any_bit)
{
    uint8_t plain[3000], stream[8000], moved[8001] = {0}, back[3000];
    unsigned bytes = sizeof(stream), made = sizeof(back);
    uint64_t seed = 5;
    fill_random(&seed, plain, sizeof(plain));
    ck_assert_int_eq(
        BZ2_bzBuffToBuffCompress((char *)stream, &bytes, (char *)plain, sizeof(plain), 9, 0, 0),
        BZ_OK);
    for (unsigned i = 0; i < bytes; i++) {
        moved[i] |= (uint8_t)(stream[i] >> _i);
        moved[i + 1] = (uint8_t)(stream[i] << (8 - _i));
    }
    struct bzip2_finder f = {0};
    enum bzip2_mark mark;
    uint64_t begin, end;
    size_t used, more;
    ck_assert(bzip2_find(&f, moved, bytes + 1, &used, &mark, &begin));
    ck_assert_int_eq(mark, BZIP2_BLOCK);
    ck_assert_uint_eq(begin, 32 + (unsigned)_i);
    ck_assert(bzip2_find(&f, moved + used, bytes + 1 - used, &more, &mark, &end));
    ck_assert_int_eq(mark, BZIP2_END);
    uint8_t *whole;
    size_t whole_bytes;
    ck_assert_int_eq(
        bzip2_wrap(moved + begin / 8, begin % 8, end - begin + begin % 8, &whole, &whole_bytes), 0);
    ck_assert_int_eq(
        BZ2_bzBuffToBuffDecompress((char *)back, &made, (char *)whole, (unsigned)whole_bytes, 0, 0),
        BZ_OK);
    ck_assert_mem_eq(back, plain, sizeof(plain));
    mem_free(whole);
}
END_TEST
#endif

/* --- pieces that are kept; chunks ------------------------------------------------------------- */

struct toy {
    struct chunks chunks;
};

static unsigned unpack_calls; /* toy_unpack() has no argument of its own */

static int toy_find(struct chunks *c, uint64_t offset, struct chunk *out)
{
    uint64_t i = offset / 4096;
    *out = (struct chunk){.kind = i % 5 == 3   ? CHUNK_ZERO
                                  : i % 5 == 4 ? CHUNK_RAW
                                               : CHUNK_PACKED,
                          .offset = i * 4096,
                          .bytes = 4096,
                          .packed_offset = i * 4096,
                          .packed_bytes = 4096};
    return 0;
}

static int toy_unpack(const struct chunk *chunk, const void *packed, void *plain)
{
    __atomic_add_fetch(&unpack_calls, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < 4096; i++)
        ((uint8_t *)plain)[i] = ((const uint8_t *)packed)[i] ^ 0xff;
    return 0;
}

struct reader {
    struct chunks *c;
    const uint8_t *model;
    uint64_t at, bytes;
};

static int co_one_read(void *arg)
{
    struct reader *r = arg;
    uint8_t *buf = mem_alloc(r->bytes);
    struct vec v = VEC_BUF(buf, r->bytes);
    must(co_chunks_read(r->c, r->at, &v) == 0);
    must(memcmp(buf, r->model + r->at, r->bytes) == 0);
    mem_free(buf);
    return 0;
}

#define TOY_BYTES (200 * 4096)

static int chunks_work(void *arg)
{
    struct toy t = {0};
    uint8_t *model = mem_alloc(TOY_BYTES);
    uint64_t seed = 3;
    t.chunks.file = co_open_text(&mem_driver, "size=819200", NULL);
    t.chunks.co_find = toy_find;
    t.chunks.unpack = toy_unpack;
    kept_init(&t.chunks.kept, 64 * KiB);
    fill_random(&seed, model, TOY_BYTES);
    must(co_blk_write_buf(t.chunks.file, 0, model, TOY_BYTES, 0) == 0);
    for (unsigned i = 0; i < TOY_BYTES; i++)
        model[i] = i / 4096 % 5 == 3 ? 0 : i / 4096 % 5 == 4 ? model[i] : model[i] ^ 0xff;

    /* Sixteen readers of parts of one chunk: it is inflated once. */
    struct reader r[16];
    struct co_group g;
    co_group_init(&g, 16);
    for (unsigned i = 0; i < 16; i++) {
        r[i] = (struct reader){&t.chunks, model, i * 256, 200};
        co_group_start(&g, co_one_read, &r[i]);
    }
    must(co_group_wait(&g) == 0);
    must(unpack_calls == 1);
    for (unsigned round = 0; round < 300; round++) {
        co_group_init(&g, 8);
        for (unsigned i = 0; i < 8; i++) {
            uint64_t at = next_random(&seed) % TOY_BYTES;
            r[i] = (struct reader){&t.chunks, model, at,
                                   1 + next_random(&seed) % MIN(60000, TOY_BYTES - at)};
            co_group_start(&g, co_one_read, &r[i]);
        }
        must(co_group_wait(&g) == 0);
        must(t.chunks.kept.used <= 64 * KiB + 8 * 2 * 4096);
    }
    kept_drop(&t.chunks.kept);
    co_close_ok(t.chunks.file);
    mem_free(model);
    return 0;
}

START_TEST(chunks_side_by_side)
{
    unpack_calls = 0;
    on_host(NULL, chunks_work, NULL);
}
END_TEST

CO_TEST(writing_is_refused_by_one_sentence)
{
    static const struct blk_driver *const drivers[] = {&qcow1_driver, &bochs_driver, &cloop_driver,
                                                       &dmg_driver,   &gzip_driver,  &ova_driver};
    for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
        struct blk_error e = {0};
        struct blk_device *dev, *file = co_open_text(&mem_driver, "size=4096", NULL);
        must(co_try_open_text(drivers[i], "", BLK_OPEN_WRITE, blk_ref(file), &dev, &e) == -EROFS);
        must(strstr(e.text, "images can only be read"));
        must(co_try_open_text(drivers[i], "", 0, blk_ref(file), &dev, &e) < 0); /* all zeroes */
        must(e.text[0]);
        co_close_ok(file);
    }
    return 0;
}

int main(void)
{
    Suite *s = suite_create("readonly");
    TCase *c = tcase_create("parsers");
    tcase_add_test(c, qcow1_header);
    tcase_add_test(c, bochs_header);
    tcase_add_test(c, cloop_header);
    tcase_add_test(c, dmg_trailer);
    tcase_add_loop_test(c, dmg_tables_in_pieces, 0, 330);
    tcase_add_test(c, dmg_tables_refused);
    tcase_add_test(c, adc);
    tcase_add_test(c, tar_sizes);
    tcase_add_test(c, tar_pax);
    tcase_add_test(c, ovf_units);
    tcase_add_test(c, manifest_lines);
#ifdef HAVE_BZIP2
    tcase_add_loop_test(c, bzip2_blocks_at_any_bit, 0, 8);
#endif
    tcase_add_test(c, chunks_side_by_side);
    tcase_add_test(c, writing_is_refused_by_one_sentence);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

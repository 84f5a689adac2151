/* SPDX-License-Identifier: BSD-3-Clause */
/* luks.c - LUKS headers: every field that may be wrong is refused with a sentence, of two headers
 * the right one counts, an image without its key gives facts and nothing else. Content against
 * foreign software is tests/e2e/luks.sh's. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "imgfmt/luks.h"
#include "tests/lib/on_host.h"

/* --- version 1 */

static struct luks1_disk good1(void)
{
    struct luks l = {.version = 1, .digest_iterations = 1000};
    struct luks1_disk d;
    struct blk_error e;
    ck_assert_int_eq(crypt_spec_parse("aes", "xts-plain64", 64, &l.payload, &e), 0);
    l.hash = kdf_hash_find("sha256");
    luks1_layout(&l);
    l.slots[0].active = true;
    l.slots[0].iterations = 1000;
    luks1_put(&l, &d);
    return d;
}

static int parse1(const struct luks1_disk *d, uint64_t file_bytes, struct blk_error *e)
{
    struct luks l;
    struct luks_parse in = {(const uint8_t *)d, sizeof *d, file_bytes, true, false};
    *e = (struct blk_error){0};
    return luks1_parse(&in, &l, e);
}

START_TEST(a_header_of_version_1_is_bounded)
{
    struct blk_error e;
    struct luks1_disk d = good1();
    uint64_t file = 4 * MiB;
    ck_assert_msg(parse1(&d, file, &e) == 0, "%s", e.text);
    ck_assert_uint_eq(be32_get(d.payload_sector), 4040); /* as QEMU's and cryptsetup's own */
#define REFUSED(change, rc)                         \
    do {                                            \
        d = good1();                                \
        change;                                     \
        ck_assert_int_eq(parse1(&d, file, &e), rc); \
        ck_assert(e.text[0]);                       \
    } while (0)
    REFUSED(d.magic[0] = 0, -EINVAL);
    REFUSED(d.version = be16_of(3), -ENOTSUP);
    REFUSED(memset(d.cipher, 'a', sizeof d.cipher), -EINVAL);
    REFUSED(memset(d.mode, 'a', sizeof d.mode), -EINVAL);
    REFUSED(memset(d.hash, 'a', sizeof d.hash), -EINVAL);
    REFUSED(strcpy(d.cipher, "des"), -ENOTSUP);
    REFUSED(strcpy(d.mode, "xts-null"), -ENOTSUP);
    REFUSED(strcpy(d.hash, "whirlpool"), -ENOTSUP);
    REFUSED(d.key_bytes = be32_of(0), -ENOTSUP);
    REFUSED(d.key_bytes = be32_of(UINT32_MAX), -ENOTSUP);
    REFUSED(d.payload_sector = be32_of(0), -ENOTSUP);
    REFUSED(d.payload_sector = be32_of(8 * 1024 + 1), -EINVAL);
    REFUSED(d.payload_sector = be32_of(UINT32_MAX), -EINVAL);
    REFUSED(d.payload_sector = be32_of(100), -EINVAL);
    REFUSED(d.digest_iterations = be32_of(0), -EINVAL);
    REFUSED(d.digest_iterations = be32_of(UINT32_MAX), -EINVAL);
    REFUSED(d.slots[7].state = be32_of(7), -EINVAL);
    REFUSED(d.slots[0].iterations = be32_of(0), -EINVAL);
    REFUSED(d.slots[0].iterations = be32_of(UINT32_MAX), -EINVAL);
    REFUSED(d.slots[3].stripes = be32_of(0), -EINVAL);
    REFUSED(d.slots[3].stripes = be32_of(UINT32_MAX), -EINVAL);
    REFUSED(d.slots[3].material_sector = be32_of(0), -EINVAL);
    REFUSED(d.slots[3].material_sector = be32_of(UINT32_MAX), -EINVAL);
    REFUSED(d.slots[3].material_sector = be32_of(4000), -EINVAL);
    REFUSED(d.slots[3].material_sector = d.slots[2].material_sector, -EINVAL);
    d = good1();
    ck_assert_int_eq(parse1(&d, 4040 * 512 - 1, &e), -EINVAL);
    ck_assert_int_eq(parse1(&d, 4040 * 512, &e), 0);
}
END_TEST

START_TEST(version_1_is_written_as_it_was_read)
{
    struct luks1_disk d = good1(), again;
    struct luks l;
    struct blk_error e;
    struct luks_parse in = {(const uint8_t *)&d, sizeof d, 4 * MiB, true, false};
    strcpy(d.mode, "cbc-essiv:sha256");
    d.key_bytes = be32_of(32);
    memset(d.digest, 7, sizeof d.digest);
    memset(d.slots[0].salt, 9, sizeof d.slots[0].salt);
    strcpy(d.uuid, "00112233-4455-6677-8899-aabbccddeeff");
    ck_assert_int_eq(luks1_parse(&in, &l, &e), 0);
    luks1_put(&l, &again);
    ck_assert(memcmp(&d, &again, sizeof d) == 0);
}
END_TEST

/* --- version 2 */

#define HEAD2   (16 * KiB)
#define DATA2   (1 * MiB)
#define DIGEST2 "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
static const char json2[] =
    "{\"keyslots\":{\"0\":{\"type\":\"luks2\",\"key_size\":64,"
    "\"af\":{\"type\":\"luks1\",\"stripes\":4000,\"hash\":\"sha256\"},"
    "\"area\":{\"type\":\"raw\",\"offset\":\"32768\",\"size\":\"258048\","
    "\"encryption\":\"aes-xts-plain64\",\"key_size\":64},"
    "\"kdf\":{\"type\":\"argon2id\",\"time\":4,\"memory\":1024,\"cpus\":2,\"salt\":\"" DIGEST2
    "\"}}},\"tokens\":{},\"segments\":{\"0\":{\"type\":\"crypt\",\"offset\":\"1048576\","
    "\"size\":\"dynamic\",\"iv_tweak\":\"0\",\"encryption\":\"aes-xts-plain64\","
    "\"sector_size\":4096}},\"digests\":{\"0\":{\"type\":\"pbkdf2\",\"keyslots\":[\"0\"],"
    "\"segments\":[\"0\"],\"hash\":\"sha256\",\"iterations\":1000,\"salt\":\"" DIGEST2
    "\",\"digest\":\"" DIGEST2 "\"}},"
    "\"config\":{\"json_size\":\"12288\",\"keyslots_size\":\"1015808\"}}";

/* @text with the first @old replaced by @new. */
static void put_json(uint8_t *raw, const char *old, const char *new)
{
    const char *at = old ? strstr(json2, old) : NULL;
    ck_assert(!old || at);
    if (at)
        sprintf((char *)raw + LUKS2_BINARY, "%.*s%s%s", (int)(at - json2), json2, new,
                at + strlen(old));
    else
        strcpy((char *)raw + LUKS2_BINARY, json2);
}

static void seal(uint8_t *raw, uint64_t at, uint64_t sequence)
{
    struct luks2_disk d = {.version = be16_of(2),
                           .header_bytes = be64_of(HEAD2),
                           .sequence = be64_of(sequence),
                           .header_offset = be64_of(at),
                           .checksum_name = "sha256",
                           .uuid = "u",
                           .label = "name"};
    memcpy(d.magic, at ? LUKS2_MAGIC_2 : LUKS_MAGIC, 6);
    memcpy(raw, &d, sizeof d);
    kdf_hash_of(kdf_hash_find("sha256"), raw, HEAD2, d.checksum);
    memcpy(raw, &d, sizeof d);
}

static int parse2(const char *old, const char *new, struct luks *l, struct blk_error *e)
{
    uint8_t *raw = mem_zalloc(HEAD2);
    put_json(raw, old, new);
    seal(raw, 0, 1);
    *e = (struct blk_error){0};
    int rc = luks2_check(raw, HEAD2, e);
    if (rc == 0)
        rc = luks2_parse(raw, HEAD2, 4 * MiB, l, e);
    mem_free(raw);
    return rc;
}

START_TEST(a_header_of_version_2_is_understood)
{
    struct luks l;
    struct blk_error e;
    ck_assert_msg(parse2(NULL, NULL, &l, &e) == 0, "%s", e.text);
    ck_assert_uint_eq(l.payload_offset, DATA2);
    ck_assert_uint_eq(l.payload.sector_bytes, 4096);
    ck_assert_str_eq(crypt_alg_name(&l.payload), "aes-256");
    ck_assert(l.slots[0].active && l.slots[0].kdf == LUKS_ARGON2 && !l.slots[0].last);
    ck_assert_uint_eq(l.slots[0].argon2.memory_kib, 1024);
    ck_assert_uint_eq(l.slots[0].salt_bytes, 32);
    ck_assert_uint_eq(l.digest_bytes, 32);
    ck_assert_str_eq(l.label, "name");
}
END_TEST

static const struct {
    const char *old, *new;
    int rc;
    const char *says;
} refused2[] = {
    {"{\"keyslots\"", "[{\"keyslots\"", -EINVAL, "no JSON"},
    {"\"keyslots\":{", "\"keyslots\":{\"0\":1,", -EINVAL, "no JSON"}, /* a key twice */
    {"\"0\":{\"type\":\"luks2\"", "\"32\":{\"type\":\"luks2\"", -EINVAL, "keyslots"},
    {"\"luks2\"", "\"other\"", -EINVAL, "no key slot"},
    {"\"luks2\"", "\"reencrypt\"", -ENOTSUP, "re-encrypted"},
    {"\"key_size\":64", "\"key_size\":63", -ENOTSUP, "63 bytes"},
    {"\"key_size\":64", "\"key_size\":65", -EINVAL, "key_size"},
    {"\"key_size\":64", "\"key_size\":\"64\"", -EINVAL, "key_size"},
    {"\"type\":\"luks1\"", "\"type\":\"luks3\"", -ENOTSUP, "splitter"},
    {"\"stripes\":4000", "\"stripes\":0", -EINVAL, "stripes"},
    {"\"stripes\":4000", "\"stripes\":-1", -EINVAL, "stripes"},
    {"\"stripes\":4000", "\"stripes\":100000", -EINVAL, "stripes"},
    {"\"stripes\":4000", "\"stripes\":9000", -EINVAL, "area"},
    {"\"sha256\"", "\"md5\"", -ENOTSUP, "md5"},
    {"\"raw\"", "\"journal\"", -ENOTSUP, "journal"},
    {"\"32768\"", "\"32769\"", -EINVAL, "area"},
    {"\"32768\"", "\"4194304\"", -EINVAL, "area"},
    {"\"32768\"", "\"18446744073709551104\"", -EINVAL, "area"},
    {"\"32768\"", "\"99999999999999999999\"", -EINVAL, "offset"},
    {"\"32768\"", "\"-1\"", -EINVAL, "offset"},
    {"\"32768\"", "\"\"", -EINVAL, "offset"},
    {"\"32768\"", "32768", -EINVAL, "offset"},
    {"\"258048\"", "\"100\"", -EINVAL, "area"},
    {"aes-xts-plain64", "serpent-gcm-plain64", -ENOTSUP, "gcm"},
    {"aes-xts-plain64", "capi:xts(aes)-plain64", -ENOTSUP, "capi"},
    {"aes-xts-plain64", "", -ENOTSUP, "cipher ''"},
    {"argon2id", "scrypt", -ENOTSUP, "scrypt"},
    {"\"memory\":1024", "\"memory\":5000000", -ENOTSUP, "5000000 KiB"},
    {"\"memory\":1024", "\"memory\":1", -EINVAL, "memory"},
    {"\"time\":4", "\"time\":4000000000", -ENOTSUP, "4000000000 times"},
    {"\"time\":4", "\"time\":0", -EINVAL, "time"},
    {"\"cpus\":2", "\"cpus\":100", -ENOTSUP, "100 lanes"},
    {"\"salt\":\"MDEy", "\"salt\":\"M*Ey", -EINVAL, "salt"},
    {"\"salt\":\"", "\"salt\":\"\",\"x\":\"", -EINVAL, "salt"},
    {"\"segments\":{", "\"segments\":{\"1\":{},", -ENOTSUP, "2 LUKS2 segments"},
    {"\"segments\":{\"0\"", "\"segments\":{\"1\"", -ENOTSUP, "segments"},
    {"\"type\":\"crypt\"", "\"type\":\"linear\"", -ENOTSUP, "linear"},
    {"\"type\":\"crypt\"", "\"type\":\"crypt\",\"integrity\":{\"type\":\"hmac(sha256)\"}", -ENOTSUP,
     "hmac(sha256)"},
    {"\"type\":\"crypt\"", "\"type\":\"crypt\",\"flags\":[\"backup-final\"]", -ENOTSUP,
     "re-encrypted"},
    {"\"1048576\"", "\"16384\"", -EINVAL, "place"},
    {"\"1048576\"", "\"1048577\"", -EINVAL, "place"},
    {"\"1048576\"", "\"8388608\"", -EINVAL, "place"},
    {"\"dynamic\"", "\"4194304\"", -EINVAL, "place"},
    {"\"dynamic\"", "\"4095\"", -EINVAL, "place"},
    {"\"dynamic\"", "\"lots\"", -EINVAL, "size"},
    {"\"iv_tweak\":\"0\"", "\"iv_tweak\":\"x\"", -EINVAL, "iv_tweak"},
    {"\"sector_size\":4096", "\"sector_size\":8192", -EINVAL, "sector_size"},
    {"\"sector_size\":4096", "\"sector_size\":513", -EINVAL, "place"},
    {"\"segments\":[\"0\"]", "\"segments\":[]", -EINVAL, "digests"},
    {"\"keyslots\":[\"0\"]", "\"keyslots\":[]", -EINVAL, "no key slot"},
    {"\"iterations\":1000", "\"iterations\":0", -EINVAL, "iterations"},
    {"\"iterations\":1000", "\"iterations\":4000000000", -EINVAL, "iterations"},
    {"\"pbkdf2\"", "\"crc\"", -ENOTSUP, "crc"},
    {"\"digest\":\"MDEy", "\"digest\":\"MDE=\",\"d\":\"", -EINVAL, "too short"},
    {"\"config\":{", "\"config\":{\"requirements\":{\"mandatory\":[\"online-reencrypt\"]},",
     -ENOTSUP, "online-reencrypt"},
};

START_TEST(what_version_2_may_not_say_is_refused)
{
    struct luks l;
    struct blk_error e;
    int rc = parse2(refused2[_i].old, refused2[_i].new, &l, &e);
    ck_assert_msg(rc == refused2[_i].rc, "%s: %d %s", refused2[_i].new, rc, e.text);
    ck_assert_msg(strstr(e.text, refused2[_i].says), "%s: %s", refused2[_i].new, e.text);
}
END_TEST

START_TEST(deep_json_is_refused_before_it_is_parsed)
{
    struct luks l;
    struct blk_error e;
    char deep[4000];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    ck_assert_int_lt(parse2("\"tokens\":{}", deep, &l, &e), 0);
}
END_TEST

/* --- which header counts */

struct two {
    uint64_t first, second; /* sequence numbers; 0: damaged */
    int rc;
    uint64_t sequence;
};

static int co_two(void *arg)
{
    const struct two *t = arg;
    struct blk_device *disk = co_open_text(&mem_driver, "size=4M", NULL);
    struct luks_where w = {.file = disk, .own_payload = true};
    struct luks *l = mem_zalloc(sizeof *l);
    struct blk_error e = {0};
    uint8_t *raw = mem_zalloc(HEAD2);
    put_json(raw, NULL, NULL);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t sequence = i ? t->second : t->first;
        seal(raw, i * HEAD2, sequence);
        raw[5000] ^= sequence == 0;
        must(co_blk_write_buf(disk, i * HEAD2, raw, HEAD2, 0) == 0);
        raw[5000] ^= sequence == 0;
    }
    int rc = co_luks_read(&w, l, &e);
    must(rc == t->rc);
    must(rc < 0 || l->sequence == t->sequence);
    must(rc == 0 || strstr(e.text, "damaged"));
    mem_free(raw);
    mem_free(l);
    co_close_ok(disk);
    return 0;
}

START_TEST(of_two_headers_the_valid_later_one_counts)
{
    static struct two rows[] = {{5, 5, 0, 5}, {5, 6, 0, 6}, {7, 6, 0, 7},
                                {5, 0, 0, 5}, {0, 3, 0, 3}, {0, 0, -EINVAL, 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        ck_assert_int_eq(on_host("threads", co_two, &rows[i]), 0);
}
END_TEST

/* --- the driver */

static struct blk_device *co_made(bool fresh)
{
    struct blk_device *disk = co_open_text(&mem_driver, "size=8M", NULL);
    struct luks_where w = {.file = disk, .own_payload = true};
    struct luks *l = mem_zalloc(sizeof *l);
    struct luks_wish wish = {.hash = kdf_hash_find("sha256"),
                             .strength = {.rounds = 1000},
                             .secret = (uint8_t *)"key",
                             .secret_bytes = 3};
    struct blk_error e;
    must(crypt_spec_parse("aes", "xts-plain64", 64, &wish.spec, &e) == 0);
    must(co_luks1_make(&w, &wish, !fresh, l, &e) == 0);
    mem_free(l);
    return disk;
}

static int co_no_key(void *arg)
{
    struct blk_device *disk = co_made(false), *dev;
    struct blk_error e = {0};
    struct blk_info info;
    uint8_t buf[512] = {0};
    must(co_try_open_text(&luks_driver, "", 0, blk_ref(disk), &dev, &e) == -ENOKEY);
    must(strstr(e.text, "--object secret"));
    must(co_try_open_text(&luks_driver, "", BLK_OPEN_NO_DATA | BLK_OPEN_WRITE, blk_ref(disk), &dev,
                          &e) == 0);
    must(co_blk_read_buf(dev, 0, buf, 512) == -ENOKEY);
    must(co_blk_write_buf(dev, 0, buf, 512, 0) == -ENOKEY);
    must(co_blk_info(dev, &info, &e) == 0 && info.encrypted);
    must(json_array_size(json_object_get(info.specific, "slots")) == LUKS1_SLOTS);
    blk_info_drop(&info);
    co_close_ok(dev);
    co_close_ok(disk);
    return 0;
}

START_TEST(without_a_key_there_are_only_facts)
{
    ck_assert_int_eq(on_host("threads", co_no_key, NULL), 0);
}
END_TEST

static int co_fresh(void *arg)
{
    struct blk_device *disk = co_made(true), *dev;
    struct blk_error e = {0};
    uint8_t head[sizeof(struct luks1_disk)];
    must(co_blk_read_buf(disk, 0, head, sizeof head) == 0);
    must(luks_version_of(head, sizeof head) == 0);
    must(co_try_open_text(&luks_driver, "", BLK_OPEN_NO_DATA, blk_ref(disk), &dev, &e) == -EINVAL);
    must(co_try_open_text(&luks_driver, "", BLK_OPEN_NO_DATA | BLK_OPEN_FRESH | BLK_OPEN_WRITE,
                          blk_ref(disk), &dev, &e) == 0);
    must(co_blk_complete(dev, &e) == 0);
    must(co_blk_read_buf(disk, 0, head, sizeof head) == 0);
    must(luks_version_of(head, sizeof head) == 1);
    co_close_ok(dev);
    co_close_ok(disk);
    return 0;
}

START_TEST(a_fresh_image_is_none_until_completed)
{
    ck_assert_int_eq(on_host("threads", co_fresh, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("luks");
    TCase *tc = tcase_create("luks");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_header_of_version_1_is_bounded);
    tcase_add_test(tc, version_1_is_written_as_it_was_read);
    tcase_add_test(tc, a_header_of_version_2_is_understood);
    tcase_add_loop_test(tc, what_version_2_may_not_say_is_refused, 0, ARRAY_LEN(refused2));
    tcase_add_test(tc, deep_json_is_refused_before_it_is_parsed);
    tcase_add_test(tc, of_two_headers_the_valid_later_one_counts);
    tcase_add_test(tc, without_a_key_there_are_only_facts);
    tcase_add_test(tc, a_fresh_image_is_none_until_completed);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

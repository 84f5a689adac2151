/* SPDX-License-Identifier: BSD-3-Clause */
/* crypt.c - sector ciphers, key derivation and the splitter against vectors made with other
 * libraries (libgcrypt 1.10 for ciphers, Python's hashlib for the rest; XTS also against IEEE
 * 1619), and requests through a cipher in every shape of memory. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "imgfmt/luks.h"
#include "tests/lib/on_host.h"

static void hex_of(const uint8_t *bytes, size_t count, char *to)
{
    for (size_t i = 0; i < count; i++)
        sprintf(to + 2 * i, "%02x", bytes[i]);
}

static const char *sha1_hex(const void *data, size_t bytes, char to[41])
{
    uint8_t digest[20];
    kdf_hash_of(kdf_hash_find("sha1"), data, bytes, digest);
    hex_of(digest, 20, to);
    return to;
}

/* --- ciphers */

#define NUMBER 0x123456789aULL /* of the sector */
static const struct {
    const char *alg, *mode, *iv, *sha1;
} vectors[] = {
    {"aes-128", "xts", "plain64", "23420dec23d451b1fcb3619e55c08388415bb016"},
    {"aes-256", "xts", "plain64", "e453ed664c3e35b913abab7eb073005cec370410"},
    {"serpent-128", "xts", "plain64", "ada24d9b33dd04939010fc5f1f35c4a79dc19d00"},
    {"serpent-256", "xts", "plain64", "ad7e1b11cdd3f95863b2376a199b02f28bccc3da"},
    {"twofish-128", "xts", "plain64", "3f590c02c3a19b2a98e2269587c40ed52701ee97"},
    {"twofish-256", "xts", "plain64", "011bf2afae69e35eb5b9295cc40c8a7bf07f61cb"},
    {"aes-128", "cbc", "essiv", "3e91ac884c63f31f7d44faf3a7fa8828c9bd363e"},
    {"aes-256", "cbc", "essiv", "9b83a2a13fc34cc8fb42f0fe750a333b89f86d15"},
    {"aes-192", "cbc", "plain64", "4ee5692db2ead58b5bd67df17837c54cbb6b3288"},
    {"aes-256", "cbc", "plain", "54d8847f77a4b622042b4a845b08865c13447a65"},
    {"aes-256", "cbc", "plain64be", "b10c17324b949a28b972491a2b9b4b91343785c1"},
    {"serpent-256", "cbc", "plain64", "d6392417d4642b4a4b9aa0a24dfbc2520138b849"},
    {"twofish-256", "cbc", "essiv", "b147ef8d505c412d8a6f88914edd0ed87ca71c4c"},
    {"cast5-128", "cbc", "plain64", "fb34d10661f5b83a717ca991bbd249dd9d7fa110"},
    {"aes-256", "ecb", "plain64", "f5105714523cb633e6119dfc91997c38742c605b"},
    {"aes-256", "ctr", "plain64", "f2a65df647c29d7ce862ff77c72a8b343b0916be"},
};

static struct crypt *vector_cipher(size_t i, uint32_t sector_bytes)
{
    struct crypt_spec spec, again;
    struct blk_error e;
    struct crypt *c;
    uint8_t key[CRYPT_KEY_MAX];
    char mode[40];
    for (size_t k = 0; k < sizeof key; k++)
        key[k] = (uint8_t)(k * 7 + 1);
    ck_assert_int_eq(
        crypt_spec_words(vectors[i].alg, vectors[i].mode, vectors[i].iv, NULL, &spec, &e), 0);
    crypt_mode_text(&spec, mode, sizeof mode);
    ck_assert_int_eq(crypt_spec_parse(crypt_cipher_name(&spec), mode, spec.key_bytes, &again, &e),
                     0);
    ck_assert_str_eq(crypt_alg_name(&again), vectors[i].alg);
    ck_assert(again.iv == spec.iv && again.mode == spec.mode && again.iv_hash == spec.iv_hash);
    spec.sector_bytes = sector_bytes;
    ck_assert_int_eq(crypt_new(&spec, key, &c), 0);
    return c;
}

START_TEST(a_sector_is_what_libgcrypt_makes_of_it)
{
    uint8_t plain[512], data[512];
    char hex[41];
    struct crypt *c = vector_cipher((size_t)_i, 512);
    for (size_t k = 0; k < sizeof data; k++)
        plain[k] = (uint8_t)(k * 3);
    crypt_encrypt(c, NUMBER, data, plain, sizeof data);
    ck_assert_str_eq(sha1_hex(data, sizeof data, hex), vectors[_i].sha1);
    crypt_decrypt(c, NUMBER, data, data, sizeof data);
    ck_assert(memcmp(data, plain, sizeof data) == 0);
    crypt_drop(c);
}
END_TEST

/* IEEE 1619-2007, annex B, vector 4: one data unit of 512 bytes. */
START_TEST(xts_is_the_standards)
{
    static const uint8_t key[32] = {0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45,
                                    0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26,
                                    0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93,
                                    0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95};
    uint8_t data[512];
    char hex[33];
    struct crypt_spec spec;
    struct blk_error e;
    struct crypt *c;
    for (size_t k = 0; k < sizeof data; k++)
        data[k] = (uint8_t)k;
    ck_assert_int_eq(crypt_spec_parse("aes", "xts-plain64", 32, &spec, &e), 0);
    ck_assert_int_eq(crypt_new(&spec, key, &c), 0);
    crypt_encrypt(c, 0, data, data, sizeof data);
    hex_of(data, 16, hex);
    ck_assert_str_eq(hex, "27a7479befa1d476489f308cd4cfa6e2");
    crypt_drop(c);
}
END_TEST

START_TEST(every_sector_has_its_own_number)
{
    uint8_t zeroes[8192] = {0}, many[8192], one[8192];
    for (uint32_t sector = 512; sector <= 4096; sector *= 2) {
        struct crypt *c = vector_cipher((size_t)_i, sector);
        crypt_encrypt(c, 7, many, zeroes, sizeof many);
        for (size_t at = 0; at < sizeof one; at += sector)
            crypt_encrypt(c, 7 + at / 512, one + at, zeroes + at, sector);
        ck_assert(memcmp(many, one, sizeof many) == 0);
        ck_assert(vectors[_i].mode[0] == 'e' || memcmp(many, many + 4096, 4096) != 0);
        crypt_drop(c);
    }
}
END_TEST

static const struct {
    const char *cipher, *mode;
    uint32_t key_bytes;
    const char *says;
} refused[] = {
    {"aes", "lrw-benbi", 32, "mode 'lrw-benbi'"},
    {"aes", "xts-random", 64, "vector 'random'"},
    {"aes", "xts-plain64", 63, "63 bytes"},
    {"aes", "xts-plain64", 0, "0 bytes"},
    {"camellia", "xts-plain64", 64, "'camellia'"},
    {"cipher_null", "ecb", 32, "'cipher_null'"},
    {"cast5", "xts-plain64", 32, "64 bits"},
    {"aes", "xts", 64, "initial vector"},
    {"aes", "cbc-essiv:whirlpool", 32, "essiv:whirlpool"},
    {"aes", "cbc-essiv:sha1", 32, "sha1"},
    {"aes", "cbc-essiv", 32, "essiv"},
    {"aes", "xts-plain64:sha256", 64, "plain64:sha256"},
    {"", "", 0, "mode ''"},
};

START_TEST(what_is_not_known_is_named)
{
    struct crypt_spec spec;
    struct blk_error e;
    int rc =
        crypt_spec_parse(refused[_i].cipher, refused[_i].mode, refused[_i].key_bytes, &spec, &e);
    ck_assert_int_eq(rc, -ENOTSUP);
    ck_assert_msg(strstr(e.text, refused[_i].says), "%s", e.text);
}
END_TEST

START_TEST(equal_halves_are_no_key_for_xts)
{
    struct crypt_spec spec;
    struct blk_error e;
    struct crypt *c;
    uint8_t key[64] = {0};
    ck_assert_int_eq(crypt_spec_parse("aes", "xts-plain64", 64, &spec, &e), 0);
    ck_assert_int_eq(crypt_new(&spec, key, &c), -EINVAL);
}
END_TEST

/* --- keys */

static const struct {
    const char *hash, *pbkdf2, *split_sha1;
} hashes[] = {
    {"sha1",
     "6e88be8bad7eae9d9e10aa061224034fed48d03fcbad968b56006784539d5214ce970d912ec2049b04231d47c2eb8"
     "850",
     "e05cec54408b538373e567b5cec865528a8ea879"},
    {"sha256",
     "632c2812e46d4604102ba7618e9d6d7d2f8128f6266b4a03264d2a0460b7dcb388b3b1131f741bcbeb02541c8c2e9"
     "7bd",
     "9ca0ba9cb4270886484a5f1d975379a4a6694219"},
    {"sha512",
     "afe6c5530785b6cc6b1c6453384731bd5ee432ee549fd42fb6695779ad8a1c5bf59de69c48f774efc4007d5298f90"
     "33c",
     "90ba54415458e47f170dae8c04a8d9b720814b7e"},
    {"ripemd160",
     "b5c5682c46fdb315930cfc54e82d0987e6ef938fee9320191bfbac2700de4ed4518152edc1ea7755a9ead23514d66"
     "4eb",
     "bafcf3df7003822b40dbb194814fca6578b441b7"},
    {"sha224",
     "d3bcf320fd918908eafcaa460faf40e201f6508d4e6f3d9c1c0abd30dae08cc8b1bc0657e2ebc229d22e48df55df7"
     "2e8",
     "95e7cd2837f2203463e9c7b66b6eda8020799f04"},
    {"sha384",
     "3bd37e2236941d4a77b1b5b714c6f913fabb6b0841a6d7d8656b99d611e900fe06edb93b5b809efaa9678b635ce51"
     "3e0",
     "89ac63f55b9faa3b205bb78975bf52d358b79db1"},
};

START_TEST(pbkdf2_is_what_hashlib_gives)
{
    uint8_t key[48];
    char hex[97];
    struct kdf_bytes secret = {(const uint8_t *)"password", 8}, salt = {(const uint8_t *)"salt", 4};
    kdf_pbkdf2(kdf_hash_find(hashes[_i].hash), secret, salt, 1000, key, sizeof key);
    hex_of(key, sizeof key, hex);
    ck_assert_str_eq(hex, hashes[_i].pbkdf2);
}
END_TEST

START_TEST(a_split_key_merges_and_needs_every_bit)
{
    enum { BYTES = 48, STRIPES = 10 };
    uint8_t key[BYTES], split[BYTES * STRIPES], merged[BYTES];
    char hex[41];
    const struct kdf_hash *h = kdf_hash_find(hashes[_i].hash);
    for (unsigned i = 0; i < BYTES; i++)
        key[i] = (uint8_t)(i * 5 + 9);
    for (unsigned i = 0; i < BYTES * (STRIPES - 1); i++)
        split[i] = (uint8_t)(i * i + i / 7);
    ck_assert_int_eq(af_split(h, key, BYTES, STRIPES, split), 0);
    ck_assert_str_eq(sha1_hex(split, sizeof split, hex), hashes[_i].split_sha1);
    ck_assert_int_eq(af_merge(h, split, BYTES, STRIPES, merged), 0);
    ck_assert(memcmp(merged, key, BYTES) == 0);
    split[BYTES * 3 + 5] ^= 1;
    ck_assert_int_eq(af_merge(h, split, BYTES, STRIPES, merged), 0);
    ck_assert(memcmp(merged, key, BYTES) != 0);
}
END_TEST

START_TEST(rounds_are_measured_and_bounded)
{
    const struct kdf_hash *h = kdf_hash_find("sha256");
    uint32_t few = kdf_pbkdf2_rounds(h, 32, 1), more = kdf_pbkdf2_rounds(h, 32, 1000);
    ck_assert_uint_ge(few, KDF_ITERATIONS_MIN);
    ck_assert_uint_gt(more, few);
    ck_assert_uint_eq(kdf_pbkdf2_rounds(h, 32, UINT64_MAX / 2), UINT32_MAX);
}
END_TEST

/* --- requests */

/* Writes and reads in pieces of memory of any length; the child holds what one call would make. */
static int co_shapes(void *arg)
{
    static const uint32_t pieces[][3] = {{512, 512, 512}, {100, 412, 512}, {1, 2, 3},
                                         {513, 700, 3},   {4096, 8192, 1}, {65536, 1, 511}};
    struct crypt *c = vector_cipher(1, (uint32_t)(uintptr_t)arg);
    uint64_t state = 5, sizes[] = {4096, 16384, 20480, 131072, 200704, 2 * MiB};
    struct blk_device *disk = co_open_text(&mem_driver, "size=4M", NULL);
    uint8_t *plain = mem_alloc(2 * MiB), *want = mem_alloc(2 * MiB), *got = mem_alloc(2 * MiB);
    struct iovec *iov = mem_array(2 * MiB, sizeof *iov);
    fill_random(&state, plain, 2 * MiB);
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
            struct crypt_place place = {c, disk, 8192, 77};
            size_t n = 0;
            for (uint64_t at = 0; at < sizes[s]; n++) {
                uint64_t len = MIN(pieces[p][n % 3], sizes[s] - at);
                iov[n] = (struct iovec){plain + at, len};
                at += len;
            }
            struct vec v = {iov, 0, sizes[s]};
            must(co_crypt_write(&place, &v, 0) == 0);
            must(co_blk_read_buf(disk, 8192, got, sizes[s]) == 0);
            crypt_encrypt(c, 77, want, plain, sizes[s]);
            must(memcmp(got, want, sizes[s]) == 0);
            for (size_t i = 0; i < n; i++)
                iov[i].iov_base = got + ((uint8_t *)iov[i].iov_base - plain);
            memset(got, 0, sizes[s]);
            must(co_crypt_read(&place, &v) == 0);
            must(memcmp(got, plain, sizes[s]) == 0);
        }
    mem_free(iov);
    mem_free(plain);
    mem_free(want);
    mem_free(got);
    co_close_ok(disk);
    crypt_drop(c);
    return 0;
}

START_TEST(requests_of_every_shape)
{
    ck_assert_int_eq(on_host("threads", co_shapes, (void *)(uintptr_t)(_i ? 4096 : 512)), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("crypt");
    TCase *tc = tcase_create("crypt");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, a_sector_is_what_libgcrypt_makes_of_it, 0, ARRAY_LEN(vectors));
    tcase_add_test(tc, xts_is_the_standards);
    tcase_add_loop_test(tc, every_sector_has_its_own_number, 0, ARRAY_LEN(vectors));
    tcase_add_loop_test(tc, what_is_not_known_is_named, 0, ARRAY_LEN(refused));
    tcase_add_test(tc, equal_halves_are_no_key_for_xts);
    tcase_add_loop_test(tc, pbkdf2_is_what_hashlib_gives, 0, ARRAY_LEN(hashes));
    tcase_add_loop_test(tc, a_split_key_merges_and_needs_every_bit, 0, ARRAY_LEN(hashes));
    tcase_add_test(tc, rounds_are_measured_and_bounded);
    tcase_add_loop_test(tc, requests_of_every_shape, 0, 2);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

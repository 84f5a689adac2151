/* SPDX-License-Identifier: BSD-3-Clause */
/* host.c - files and names on each real host. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/host.h"

static int files(void *arg)
{
    struct host *h = worker_self()->host;
    const char *dir = arg;
    char path[200], other[200];
    struct host_file *f;
    uint8_t a[10000], b[10000];

    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(other, sizeof(other), "%s/other", dir);
    memset(a, 0x5a, sizeof(a));
    ck_assert_int_eq(co_host_open(h, path, NULL, HOST_READ | HOST_WRITE, &f), -ENOENT);
    ck_assert_int_eq(
        co_host_open(h, path, NULL,
                     HOST_READ | HOST_WRITE | HOST_CREATE | HOST_EXCLUSIVE | HOST_REGULAR_OR_BLOCK,
                     &f),
        0);
    ck_assert_int_eq(co_host_write(f, 5, &VEC_BUF(a, sizeof(a))), 0);
    ck_assert_int_eq(co_host_read(f, 5, &VEC_BUF(b, sizeof(b))), (int64_t)sizeof(b));
    ck_assert_mem_eq(a, b, sizeof(a));
    ck_assert_int_eq(co_host_read(f, 4005, &VEC_BUF(b, sizeof(b))), 6000);
    ck_assert_int_eq(co_host_fsync(f), 0);
    struct host_stat st;
    ck_assert_int_eq(co_host_fstat(f, &st), 0);
    ck_assert_uint_eq(st.size, 10005);
    co_host_close(f);
    ck_assert_int_eq(co_host_rename(h, path, other), 0);
    char **names;
    size_t count;
    ck_assert_int_eq(co_host_list(h, dir, &names, &count), 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(names[0], "other");
    mem_free(names[0]);
    mem_free(names);
    ck_assert_int_eq(co_host_unlink(h, other), 0);
    return 0;
}

START_TEST(files_and_names)
{
    static const char *dirs[] = {"/dev/shm/lamina-XXXXXX", "/tmp/lamina-XXXXXX"};

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        struct runtime_options o = {.workers = 2};
        struct runtime *rt;
        char dir[64];
        strcpy(dir, dirs[i]);
        ck_assert_ptr_nonnull(mkdtemp(dir));
        ck_assert_int_eq(host_open(NULL, &o.host), 0);
        ck_assert_int_eq(runtime_open(&o, &rt), 0);
        ck_assert_int_eq(runtime_run(rt, files, dir), 0);
        runtime_close(rt);
        host_close(o.host);
        remove(dir);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("host");
    TCase *tc = tcase_create("host");

    tcase_add_test(tc, files_and_names);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

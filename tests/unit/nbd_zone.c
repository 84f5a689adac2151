/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_zone.c - who is let in, and the files that say so: zones against peers, INI texts. */
#include <check.h>
#include <stdlib.h>

#include "nbd/ini.h"
#include "nbd/zone.h"

static bool admits(const char *zone, const struct nbd_peer *p)
{
    struct nbd_zone z = {0};
    struct blk_error e = {0};
    bool yes;

    ck_assert_msg(nbd_zone_add(&z, zone, &e) == 0, "%s: %s", zone, e.text);
    yes = nbd_zone_admits(&z, p);
    nbd_zone_drop(&z);
    return yes;
}

START_TEST(a_zone_admits_whom_it_lists)
{
    char host1[] = "host1", other[] = "host1.example", dn[] = "CN=host 1,O=Lamina", id[] = "alice";
    char *names[] = {host1, other};
    const struct nbd_peer cert = {.certs = {.at = names, .count = 2}, .dn = dn, .uid = -1};
    const struct nbd_peer psk = {.psk = id, .uid = -1};
    const struct nbd_peer user = {.uid = 1000}, root = {.uid = 0}, nobody = {.uid = -1};

    ck_assert(admits("", &nobody) && admits("  ", &cert));
    ck_assert(admits("cert:host1", &cert) && admits("cert:host1.example", &cert));
    ck_assert(!admits("cert:host", &cert) && !admits("cert:host11", &cert));
    ck_assert(!admits("cert:alice", &psk) && !admits("psk:host1", &cert));
    ck_assert(admits("dn:CN=host\\ 1,O=Lamina", &cert) && !admits("dn:CN=host", &cert));
    ck_assert(admits("psk:alice", &psk) && admits("cert:x psk:bob\tpsk:alice", &psk));
    ck_assert(admits("uid:1000", &user) && !admits("uid:1000", &root));
    ck_assert(admits("uid:root", &root) && admits("uid:0", &root));
    ck_assert(!admits("uid:0", &nobody) && !admits("uid:1000 cert:host1 psk:alice", &nobody));
}
END_TEST

START_TEST(what_names_nobody_is_refused)
{
    static const char *const bad[] = {
        "host1",          "cert:",   "uid:",    "uid:-1",  "uid:no such user",
        "uid:4294967295", "uid:12x", "group:1", "cert:a b"};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct nbd_zone z = {0};
        struct blk_error e = {0};

        ck_assert_msg(nbd_zone_add(&z, bad[i], &e) == -EINVAL, "%s", bad[i]);
        ck_assert(e.text[0]);
        nbd_zone_drop(&z);
    }
}
END_TEST

START_TEST(ini_says_what_stands_there)
{
    static const char text[] =
        "# first\n; second\n\n[server]\n socket = /run/x y \r\n"
        "[export  a b ]\nimage=x=y\nempty =\nquoted = \" z \"\n[clones \"\"]";
    static const struct {
        unsigned line, section;
        const char *kind, *name, *key, *value;
    } want[] = {
        {4, 1, "server", "", NULL, NULL},     {5, 1, "server", "", "socket", "/run/x y"},
        {6, 2, "export", "a b", NULL, NULL},  {7, 2, "export", "a b", "image", "x=y"},
        {8, 2, "export", "a b", "empty", ""}, {9, 2, "export", "a b", "quoted", " z "},
        {10, 3, "clones", "", NULL, NULL},
    };
    struct blk_error e = {0};
    struct ini ini;

    ck_assert_msg(ini_parse(text, strlen(text), &ini, &e) == 0, "%s", e.text);
    ck_assert_uint_eq(ini.count, ARRAY_LEN(want));
    for (size_t i = 0; i < ini.count; i++) {
        const struct ini_entry *got = &ini.entries[i];

        ck_assert_uint_eq(got->line, want[i].line);
        ck_assert_uint_eq(got->section, want[i].section);
        ck_assert_str_eq(got->kind, want[i].kind);
        ck_assert_str_eq(got->name, want[i].name);
        ck_assert_pstr_eq(got->key, want[i].key);
        ck_assert_pstr_eq(got->value, want[i].value);
    }
    ini_drop(&ini);
}
END_TEST

START_TEST(ini_that_makes_no_sense_is_refused)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"a = b", "line 1: a section comes before"}, {"[x]\nwords", "line 2: this is no section"},
        {"[x]\n = b", "line 2: a key stands"},       {"[]", "line 1: a section has a kind"},
        {"\n[x", "line 2: a section is [KIND]"},     {"[x] y", "line 1: a section is [KIND]"},
    };
    static char long_line[INI_MAX_LINE + 10], big[INI_MAX_BYTES + 1];
    struct blk_error e = {0};
    struct ini ini;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_eq(ini_parse(bad[i].text, strlen(bad[i].text), &ini, &e), -EINVAL);
        ck_assert_msg(strstr(e.text, bad[i].says) == e.text, "%s", e.text);
        ini_drop(&ini);
    }
    memset(long_line, '#', sizeof(long_line));
    ck_assert_int_eq(ini_parse(long_line, sizeof(long_line), &ini, &e), -EINVAL);
    ini_drop(&ini);
    ck_assert_int_eq(ini_parse("[x]\n\0", 5, &ini, &e), -EINVAL);
    ini_drop(&ini);
    ck_assert_int_eq(ini_parse(big, sizeof(big), &ini, &e), -EFBIG);
    ini_drop(&ini);
    ck_assert_int_eq(ini_parse("", 0, &ini, &e), 0);
    ini_drop(&ini);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("nbd_zone");
    TCase *t = tcase_create("all");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_test(t, a_zone_admits_whom_it_lists);
    tcase_add_test(t, what_names_nobody_is_refused);
    tcase_add_test(t, ini_says_what_stands_there);
    tcase_add_test(t, ini_that_makes_no_sense_is_refused);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

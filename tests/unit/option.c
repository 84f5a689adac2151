/* SPDX-License-Identifier: BSD-3-Clause */
/* option.c - option tables, key=value text, sizes and misspelt names. */
#include <check.h>
#include <stdlib.h>

#include "block/option.h"

static const char *const kinds[] = {"off", "metadata", "full", NULL};

static const struct opt_desc table[] = {
    {.name = "cluster_size",
     .type = OPT_SIZE,
     .help = "bytes of a cluster",
     .preset = "64K",
     .min = 512,
     .max = 2 * MiB},
    {.name = "lazy", .type = OPT_BOOL, .help = "write late"},
    {.name = "preallocation",
     .type = OPT_ENUM,
     .help = "what is there at once",
     .preset = "off",
     .choices = kinds},
    {.name = "bits", .type = OPT_INT, .help = "width", .min = 1, .max = 64},
    {.name = "label", .type = OPT_STRING, .help = "a text"},
    {.name = "key-secret", .type = OPT_SECRET, .help = "id of a secret"},
    {.name = "child", .type = OPT_CHILD, .help = "a device"},
    {.name = "members", .type = OPT_CHILDREN, .help = "devices"},
    {0},
};

/* Text to tree to values. */
static int parse(const char *text, struct opts *o, struct blk_error *e)
{
    memset(e, 0, sizeof *e);
    memset(o, 0, sizeof *o);
    json_t *tree = json_object();
    int rc = opts_text_to_tree(text, NULL, tree, e);
    if (rc == 0)
        rc = opts_parse(table, tree, o, e);
    json_decref(tree);
    return rc;
}

START_TEST(presets_and_given)
{
    struct opts o;
    struct blk_error e;
    ck_assert_int_eq(parse("", &o, &e), 0);
    ck_assert_uint_eq(opts_number(&o, "cluster_size"), 65536);
    ck_assert(!opts_given(&o, "cluster_size"));
    ck_assert(opts_get(&o, "cluster_size")->set);
    ck_assert(!opts_get(&o, "lazy")->set);
    ck_assert_str_eq(opts_text(&o, "preallocation"), "off");
    ck_assert_ptr_null(opts_text(&o, "label"));
    opts_drop(&o);
    ck_assert_int_eq(
        parse("lazy,cluster_size=4k,label=a,,b=c,preallocation=full,bits=0x10", &o, &e), 0);
    ck_assert(opts_bool(&o, "lazy") && opts_given(&o, "lazy"));
    ck_assert_uint_eq(opts_number(&o, "cluster_size"), 4096);
    ck_assert_uint_eq(opts_number(&o, "bits"), 16);
    ck_assert_uint_eq(opts_number(&o, "preallocation"), 2);
    ck_assert_str_eq(opts_text(&o, "label"), "a,b=c");
    opts_drop(&o);
}
END_TEST

static const struct {
    const char *text, *says;
    int rc;
} refused[] = {
    {"clustersize=1k", "unknown option 'clustersize': the nearest is 'cluster_size'", -EINVAL},
    {"zzz=1", "unknown option 'zzz'; there are: cluster_size", -EINVAL},
    {"nolazy", "unknown option 'nolazy'", -EINVAL},
    {"cluster_size=256", "not between 512 and 2097152", -ERANGE},
    {"cluster_size=9E9", "not a size", -EINVAL},
    {"cluster_size=-1", "negative", -EINVAL},
    {"lazy=maybe", "on or off", -EINVAL},
    {"preallocation=fulll", "not one of off, metadata, full", -EINVAL},
    {"bits=99999999999999999999999", "not a number that fits", -ERANGE},
    {"bits=1x", "not a number that fits", -EINVAL},
    {"label.x=1", "expected a text", -EINVAL},
    {"label=1,label.x=1", "as a value and as a group", -EINVAL},
    {"label.x=1,label=1", "as a value and as a group", -EINVAL},
    {"=1", "has no name", -EINVAL},
    {",a=b", "has no name", -EINVAL},
    {"a..b=1", "empty part", -EINVAL},
    {".a=1", "empty part", -EINVAL},
    {"a.=1", "empty part", -EINVAL},
    {"members=1", "expected a list", -EINVAL},
    {"members.1=a", "members named 0, 1", -EINVAL},
};

START_TEST(refuses_by_name)
{
    struct opts o;
    struct blk_error e;
    ck_assert_int_eq(parse(refused[_i].text, &o, &e), refused[_i].rc);
    ck_assert_msg(strstr(e.text, refused[_i].says), "%s: %s", refused[_i].text, e.text);
}
END_TEST

START_TEST(lists_from_numbers)
{
    struct opts o;
    struct blk_error e;
    ck_assert_int_eq(parse("members.1=b,members.0.driver=x,members.0.y=1", &o, &e), 0);
    const json_t *list = opts_get(&o, "members")->node;
    ck_assert(json_is_array(list) && json_array_size(list) == 2);
    ck_assert_str_eq(json_string_value(json_array_get(list, 1)), "b");
    opts_drop(&o);
}
END_TEST

START_TEST(later_wins_and_trailing_comma)
{
    struct opts o;
    struct blk_error e;
    ck_assert_int_eq(parse("bits=1,bits=2,", &o, &e), 0);
    ck_assert_uint_eq(opts_number(&o, "bits"), 2);
    opts_drop(&o);
}
END_TEST

START_TEST(implied_key)
{
    struct blk_error e;
    json_t *tree = json_object();
    ck_assert_int_eq(opts_text_to_tree("secret,,x,id=a", "qom-type", tree, &e), 0);
    ck_assert_str_eq(json_string_value(json_object_get(tree, "qom-type")), "secret,x");
    json_decref(tree);
}
END_TEST

START_TEST(json_values_are_typed)
{
    struct opts o;
    struct blk_error e;
    json_t *tree = json_pack("{s:s, s:i, s:b, s:i, s:n, s:{s:i}}", "driver", "x", "cluster_size",
                             1024, "lazy", 1, "x-lamina-y", 1, "child", "encrypt", "z", 1);
    ck_assert_int_eq(opts_parse(table, tree, &o, &e), 0);
    ck_assert_uint_eq(opts_number(&o, "cluster_size"), 1024);
    ck_assert(opts_bool(&o, "lazy"));
    ck_assert(opts_given(&o, "child"));
    opts_drop(&o);
    json_object_set_new(tree, "bits", json_integer(-3));
    ck_assert_int_eq(opts_parse(table, tree, &o, &e), -EINVAL);
    json_decref(tree);
    ck_assert_int_eq(opts_parse(NULL, NULL, &o, &e), 0);
    opts_drop(&o);
}
END_TEST

START_TEST(required_is_named)
{
    static const struct opt_desc one[] = {
        {.name = "subformat", .type = OPT_STRING, .help = "which kind", .required = true}, {0}};
    struct opts o;
    struct blk_error e;
    ck_assert_int_eq(opts_parse(one, NULL, &o, &e), -EINVAL);
    ck_assert_str_eq(e.text, "option subformat is missing: which kind");
}
END_TEST

START_TEST(deep_keys_end)
{
    char text[400] = "a";
    struct blk_error e;
    for (int i = 0; i < 100; i++)
        strcat(text, ".a");
    json_t *tree = json_object();
    ck_assert_int_eq(opts_text_to_tree(text, NULL, tree, &e), -EINVAL);
    json_decref(tree);
}
END_TEST

static const struct {
    const char *text;
    int rc;
    uint64_t bytes;
} sizes[] = {
    {"0", 0, 0},
    {"1", 0, 1},
    {"10737418240b", 0, 10737418240},
    {"10B", 0, 10},
    {"5242880K", 0, 5368709120},
    {"1k", 0, 1024},
    {"1.5G", 0, 1610612736},
    {"0.5K", 0, 512},
    {".5K", -EINVAL, 0},
    {"1.K", 0, 1024},
    {"1.0", 0, 1},
    {"1.5", -EINVAL, 0},
    {"1.5b", -EINVAL, 0},
    {"0.1G", 0, 107374182},
    {"7E", 0, 7ULL << 60},
    {"8E", -ERANGE, 0},
    {"7.999999999999999999E", 0, 9223372036854775806},
    {"9223372036854775807", 0, INT64_MAX},
    {"9223372036854775808", -ERANGE, 0},
    {"18446744073709551616", -ERANGE, 0},
    {"99999999999999999999999999", -ERANGE, 0},
    {"0x10", 0, 16},
    {"0X1f", 0, 31},
    {"0x", -EINVAL, 0},
    {"0x1G", -EINVAL, 0},
    {"0xffffffffffffffff", -ERANGE, 0},
    {"0x10000000000000000", -ERANGE, 0},
    {"-1", -EINVAL, 0},
    {"-1K", -EINVAL, 0},
    {"", -EINVAL, 0},
    {"K", -EINVAL, 0},
    {"1KB", -EINVAL, 0},
    {"1 K", -EINVAL, 0},
    {"1x", -EINVAL, 0},
    {"010", 0, 10},
    {"1T", 0, 1ULL << 40},
    {"1p", 0, 1ULL << 50},
};

START_TEST(size_texts)
{
    uint64_t bytes = 0;
    struct blk_error e = {0};
    ck_assert_msg(opts_parse_size(sizes[_i].text, &bytes, &e) == sizes[_i].rc, "%s: %s",
                  sizes[_i].text, e.text);
    if (sizes[_i].rc == 0)
        ck_assert_uint_eq(bytes, sizes[_i].bytes);
    else
        ck_assert_int_gt(strlen(e.text), 0);
}
END_TEST

START_TEST(nearest_names)
{
    static const char *const names[] = {"qcow2", "raw", "vdi", "vmdk", "cluster_size"};
    size_t n = ARRAY_LEN(names);
    ck_assert_str_eq(opts_nearest("qcow", names, n), "qcow2");
    ck_assert_str_eq(opts_nearest("QCOW2", names, n), "qcow2");
    ck_assert_str_eq(opts_nearest("vdm", names, n), "vdi");
    ck_assert_str_eq(opts_nearest("vmkd", names, n) ? "some" : "none", "none");
    ck_assert_str_eq(opts_nearest("clusterbits", names, n) ? "some" : "none", "none");
    ck_assert_ptr_null(opts_nearest("x", names, n));
    ck_assert_ptr_null(opts_nearest("", names, n));
    char longer[200];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    ck_assert_ptr_null(opts_nearest(longer, names, n));
}
END_TEST

START_TEST(help_has_a_line_each)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    opts_help(table, f);
    fclose(f);
    ck_assert_ptr_nonnull(
        strstr(text, "  cluster_size=<size>            - bytes of a cluster (default: 64K)\n"));
    ck_assert_ptr_nonnull(strstr(text, "preallocation=off|metadata|full"));
    free(text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("option");
    TCase *t = tcase_create("option");
    tcase_add_test(t, presets_and_given);
    tcase_add_loop_test(t, refuses_by_name, 0, ARRAY_LEN(refused));
    tcase_add_test(t, lists_from_numbers);
    tcase_add_test(t, later_wins_and_trailing_comma);
    tcase_add_test(t, implied_key);
    tcase_add_test(t, json_values_are_typed);
    tcase_add_test(t, required_is_named);
    tcase_add_test(t, deep_keys_end);
    tcase_add_loop_test(t, size_texts, 0, ARRAY_LEN(sizes));
    tcase_add_test(t, nearest_names);
    tcase_add_test(t, help_has_a_line_each);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

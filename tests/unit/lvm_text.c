/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_text.c - LVM2's text: what is read is what stands there, what is written is read again the
 * same, and what is broken is refused with its line. */
#include <check.h>
#include <stdlib.h>

#include "volumes/lvm_text.h"

static struct lvm_text read_text(const char *text)
{
    struct lvm_text t;
    struct blk_error e = {0};
    ck_assert_msg(lvm_text_parse(text, strlen(text) + 1, &t, &e) == 0, "%s", e.text);
    return t;
}

START_TEST(values_are_read)
{
    struct lvm_text t =
        read_text("# a comment\nvg{id=\"a\\\"b\\\\c\" # another\n"
                  "n = -5 big=9223372036854775807\nempty=[]list = [ \"x\",7 ,\"]\" ]"
                  "f = 1.5\n in { n = 3 } }\nversion = 1\n");
    struct lvm_node *vg = lvm_find(&t.root, "vg", LVM_SECTION);
    uint64_t n;
    ck_assert_ptr_nonnull(vg);
    ck_assert_str_eq(lvm_find_text(vg, "id"), "a\"b\\c");
    ck_assert(!lvm_find_number(vg, "n", &n)); /* negative */
    ck_assert(lvm_find_number(vg, "big", &n) && n == INT64_MAX);
    ck_assert(lvm_find_number(lvm_find(vg, "in", LVM_SECTION), "n", &n) && n == 3);
    ck_assert_ptr_null(lvm_find(vg, "empty", LVM_LIST)->first);
    ck_assert(lvm_list_has(vg, "list", "x") && lvm_list_has(vg, "list", "]"));
    ck_assert(!lvm_list_has(vg, "list", "7") && !lvm_list_has(vg, "none", "x"));
    ck_assert_str_eq(lvm_find(vg, "f", LVM_FLOAT)->text, "1.5");
    ck_assert(lvm_find_number(&t.root, "version", &n) && n == 1);
    lvm_text_drop(&t);
}
END_TEST

START_TEST(what_is_written_is_as_lvm_stores_it)
{
    static const char *const want = "vg {\nid = \"a\\\"b\\\\c\"\nlist = [\"x\", 7]\nnone = []\n"
                                    "in {\nn = 3\nf = 2.5\n}\n}\nversion = 1\n\n";
    struct lvm_text t =
        read_text("vg{id=\"a\\\"b\\\\c\" list=[\"x\",7]none=[] in{n=3 f=2.5}}version=1");
    char *text;
    size_t bytes;
    ck_assert_int_eq(lvm_text_build(&t, &text, &bytes), 0);
    ck_assert_str_eq(text, want);
    ck_assert_uint_eq(bytes, strlen(want) + 1);
    lvm_text_drop(&t);
    mem_free(text);
}
END_TEST

START_TEST(changes_show_in_the_text)
{
    struct lvm_text t = read_text("vg { seqno = 3 flags = [\"A\", \"B\", \"C\"] one { } two { } }");
    struct lvm_node *vg = lvm_find(&t.root, "vg", LVM_SECTION);
    struct lvm_node *flags = lvm_find(vg, "flags", LVM_LIST);
    char *text;
    size_t bytes;
    ck_assert_int_eq(lvm_set_number(&t, vg, "seqno", 4), 0);
    ck_assert_int_eq(lvm_set_text(&t, vg, "id", "x"), 0);
    lvm_list_remove(flags, "C");
    lvm_list_remove(flags, "A");
    lvm_list_remove(flags, "not there");
    ck_assert_int_eq(lvm_list_add(&t, flags, "D"), 0);
    lvm_remove(vg, lvm_find(vg, "two", LVM_SECTION));
    ck_assert_int_eq(lvm_rename(&t, lvm_find(vg, "one", LVM_SECTION), "three"), 0);
    ck_assert_ptr_nonnull(lvm_add(&t, vg, LVM_SECTION, "four"));
    ck_assert_int_eq(lvm_text_build(&t, &text, &bytes), 0);
    ck_assert_str_eq(text, "vg {\nseqno = 4\nflags = [\"B\", \"D\"]\nthree {\n}\nid = \"x\"\n"
                           "four {\n}\n}\n\n");
    lvm_text_drop(&t);
    mem_free(text);
}
END_TEST

static const struct {
    const char *text, *says;
} broken[] = {
    {"vg {", "not closed"},
    {"a = 1 }", "was not opened"},
    {"a = \"x", "quote is not closed"},
    {"a = \"x\\", "quote is not closed"},
    {"\n\na = [1, 2", "line 3"},
    {"a = [1, [2]]", "a list stands in a list"},
    {"a = [,]", "a value was expected"},
    {"a = -", "a value was expected"},
    {"a = word", "a value was expected"},
    {"a 1", "neither { nor ="},
    {"= 1", "a name was expected"},
    {"a = 99999999999999999999", "too large"},
    {"a{a{a{a{a{a{a{a{a{a{a{a{a{a{a{a{a{}}}}}}}}}}}}}}}}}", "too deep"},
};

START_TEST(what_is_broken_is_refused)
{
    struct lvm_text t;
    struct blk_error e = {0};
    ck_assert_int_lt(lvm_text_parse(broken[_i].text, strlen(broken[_i].text), &t, &e), 0);
    ck_assert_msg(strstr(e.text, broken[_i].says) != NULL, "%s", e.text);
}
END_TEST

START_TEST(values_are_counted)
{
    size_t count = LVM_NODES_MOST + 1;
    char *text = malloc(4 * count + 1);
    struct lvm_text t;
    struct blk_error e = {0};
    for (size_t i = 0; i < count; i++)
        memcpy(text + 4 * i, "a=1\n", 4);
    ck_assert_int_eq(lvm_text_parse(text, 4 * count, &t, &e), -EFBIG);
    ck_assert_int_eq(lvm_text_parse(text, 4 * (count - 1), &t, &e), 0);
    lvm_text_drop(&t);
    free(text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lvm_text");
    TCase *t = tcase_create("all");
    tcase_add_test(t, values_are_read);
    tcase_add_test(t, what_is_written_is_as_lvm_stores_it);
    tcase_add_test(t, changes_show_in_the_text);
    tcase_add_loop_test(t, what_is_broken_is_refused, 0, (int)ARRAY_LEN(broken));
    tcase_add_test(t, values_are_counted);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* spec.c - every form of a spec to its tree, and every refusal. The only files that exist here are
 * those of the list below. */
#include <check.h>
#include <stdlib.h>

#include "block/spec.h"

static const char *const files[] = {"a.img",   "b.img",     "md:real", "odd//name",
                                    "x=y.img", "/dev/sda",  "a,b",     "nbd://x",
                                    "p:q",     "dir/a.img", "driver=x"};

static bool is_file(const struct spec_env *env, const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (strcmp(files[i], path) == 0)
            return true;
    return false;
}

#define FILE_OF(name)   "{\"file\":{\"driver\":\"file\",\"filename\":\"" name "\"}}"
#define INNER(name, of) "{\"driver\":\"inner\",\"name\":\"" name "\",\"of\":" of "}"
#define NBD(rest)       "{\"file\":{\"driver\":\"nbd\"," rest "}}"
#define INET(host, port) \
    "\"server\":{\"host\":\"" host "\",\"port\":\"" port "\",\"type\":\"inet\"}"
#define UNIX(path) "\"server\":{\"path\":\"" path "\",\"type\":\"unix\"}"
#define VSOCK(number, port) \
    "\"server\":{\"cid\":\"" number "\",\"port\":\"" port "\",\"type\":\"vsock\"}"

static const struct {
    const char *text, *tree;
} forms[] = {
    {"a.img", FILE_OF("a.img")},
    {"new.img", FILE_OF("new.img")},
    {"./a:b", FILE_OF("./a:b")},
    {"a:b", FILE_OF("a:b")},
    {"file:new.img", FILE_OF("new.img")},
    {"file:a:b", FILE_OF("a:b")},
    {"a,b", FILE_OF("a,b")},
    {"odd//name", FILE_OF("odd//name")},
    {"md:real", FILE_OF("md:real")},
    {"nowhere//p1", FILE_OF("nowhere//p1")},
    {"/mnt//dir//x", FILE_OF("/mnt//dir//x")},
    {"a.img//p3", INNER("p3", FILE_OF("a.img"))},
    {"/dev/sda//p3//vg0/root", INNER("vg0/root", INNER("p3", FILE_OF("/dev/sda")))},
    {"a.img//@monday", INNER("@monday", FILE_OF("a.img"))},
    {"a.img//vg0/vm1@monday", INNER("vg0/vm1@monday", FILE_OF("a.img"))},
    {"json:{\"driver\":\"qcow2\",\"file.filename\":\"a\"}",
     "{\"driver\":\"qcow2\",\"file\":{\"filename\":\"a\"}}"},
    {"json:{\"file\":{\"driver\":\"file\"},\"file.filename\":\"a\",\"n\":[{\"a.b\":1}]}",
     "{\"file\":{\"driver\":\"file\",\"filename\":\"a\"},\"n\":[{\"a\":{\"b\":1}}]}"},
    {"driver=qcow2,file.filename=a,,b,file.driver=file,lazy",
     "{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"a,b\"},\"lazy\":\"on\"}"},
    {"driver=x", "{\"driver\":\"x\"}"},
    {"file.driver=file,file.filename=/a", FILE_OF("/a")},
    {"dir/x.driver=a", FILE_OF("dir/x.driver=a")},
    {"nbd://h", NBD(INET("h", "10809"))},
    {"nbd://h:1/e%20x", NBD("\"export\":\"e x\"," INET("h", "1"))},
    {"nbd://[::1]:7/", NBD(INET("::1", "7"))},
    {"nbd://x", NBD(INET("x", "10809"))},
    {"nbd://x/?connections=4&reconnect-delay=9",
     "{\"file\":{\"connections\":\"4\",\"driver\":\"nbd\",\"reconnect-delay\":\"9\"," INET(
         "x", "10809") "}}"},
    {"nbds://h/e?tls-psk-file=k",
     NBD("\"export\":\"e\"," INET("h", "10809") ",\"tls\":true,\"tls-psk-file\":\"k\"")},
    {"nbd+unix:///e?socket=/a%2fb", NBD("\"export\":\"e\"," UNIX("/a/b"))},
    {"nbd+unix:///?socket=s", NBD(UNIX("s"))},
    {"nbds+unix:///?socket=s", NBD(UNIX("s") ",\"tls\":true")},
    {"nbd+vsock://2/e", NBD("\"export\":\"e\"," VSOCK("2", "10809"))},
    {"nbds+vsock://1:7", NBD(VSOCK("1", "7") ",\"tls\":true")},
    {"nbd:unix:/s:exportname=a:b", NBD("\"export\":\"a:b\"," UNIX("/s"))},
    {"nbd:h:9", NBD(INET("h", "9"))},
    {"https://h/a.img", "{\"file\":{\"driver\":\"https\",\"url\":\"https://h/a.img\"}}"},
    {"http://h//a", "{\"file\":{\"driver\":\"http\",\"url\":\"http://h//a\"}}"},
    {"rbd:p/i", "{\"file\":{\"driver\":\"rbd\",\"image\":\"i\",\"pool\":\"p\"}}"},
    {"rbd:p/n/i\\:x@s:id=u:conf=/c",
     "{\"file\":{\"conf\":\"/c\",\"driver\":\"rbd\",\"image\":\"i:x\",\"namespace\":\"n\",\"pool\":"
     "\"p\",\"snapshot\":\"s\",\"user\":\"u\"}}"},
    {"rbd:p/i:driver=file:id=u",
     "{\"file\":{\"driver\":\"rbd\",\"image\":\"i\",\"pool\":\"p\",\"settings\":{\"driver\":"
     "\"file\"},\"user\":\"u\"}}"},
    {"md:a.img,b.img",
     "{\"driver\":\"md\",\"members\":[" FILE_OF("a.img") "," FILE_OF("b.img") "]}"},
    {"md:a.img,b.img,level=5,chunk=64K",
     "{\"chunk\":\"64K\",\"driver\":\"md\",\"level\":\"5\",\"members\":[" FILE_OF(
         "a.img") "," FILE_OF("b.img") "]}"},
    {"md:a,,b,x=y.img",
     "{\"driver\":\"md\",\"members\":[" FILE_OF("a,b") "," FILE_OF("x=y.img") "]}"},
    {"md:a.img//p3,b.img//p3", "{\"driver\":\"md\",\"members\":[" INNER(
                                   "p3", FILE_OF("a.img")) "," INNER("p3", FILE_OF("b.img")) "]}"},
    {"md:a.img,b.img//vg0/root", INNER("vg0/root", "{\"driver\":\"md\",\"members\":[" FILE_OF(
                                                       "a.img") "," FILE_OF("b.img") "]}")},
    {"md:a.img//p3,b.img//p3//vg0/root",
     INNER("vg0/root", "{\"driver\":\"md\",\"members\":[" INNER("p3", FILE_OF("a.img")) "," INNER(
                           "p3", FILE_OF("b.img")) "]}")},
    {"lvm:a.img//vg0/root",
     INNER("vg0/root", "{\"driver\":\"lvm\",\"members\":[" FILE_OF("a.img") "]}")},
    {"thin:a.img,b.img,origin=base.img",
     "{\"driver\":\"thin\",\"members\":[" FILE_OF("a.img") "," FILE_OF(
         "b.img") "],\"origin\":\"base.img\"}"},
    {"dir:nas//vg0/data", INNER("vg0/data", "{\"driver\":\"dir\",\"path\":\"nas\"}")},
    {"dir:n,,s", "{\"driver\":\"dir\",\"path\":\"n,s\"}"},
};

/* A set keeps the words that named it, for messages; the rows leave them out. */
static void drop_names(json_t *tree)
{
    for (; tree; tree = json_object_get(tree, "of")) {
        const json_t *name = json_object_get(tree, "x-lamina-name");
        ck_assert_msg(!name ==
                          (!json_object_get(tree, "members") && !json_object_get(tree, "path")),
                      "a set has a name, and nothing else has");
        json_object_del(tree, "x-lamina-name");
    }
}

static void check_tree(const struct spec_env *env, const char *text, bool image_opts,
                       const char *expected)
{
    struct blk_error e = {0};
    json_t *tree = NULL;
    int rc = co_spec_parse(env, text, image_opts, &tree, &e);
    ck_assert_msg(rc == 0, "%s: %d %s", text, rc, e.text);
    drop_names(tree);
    char *got = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS);
    json_t *sorted = json_loads(expected, 0, NULL);
    ck_assert_msg(sorted != NULL, "bad row %s", text);
    char *want = json_dumps(sorted, JSON_COMPACT | JSON_SORT_KEYS);
    ck_assert_str_eq(got, want);
    free(got);
    free(want);
    json_decref(tree);
    json_decref(sorted);
}

START_TEST(forms_of_lamina)
{
    struct spec_env env = {.co_is_file = is_file};
    check_tree(&env, forms[_i].text, false, forms[_i].tree);
}
END_TEST

/* In the faces sets, // and driver= are names of files. */
static const struct {
    const char *text, *tree;
} face_forms[] = {
    {"a.img", FILE_OF("a.img")},         {"./a:b", FILE_OF("./a:b")},
    {"a.img//p3", FILE_OF("a.img//p3")}, {"driver=qcow2", FILE_OF("driver=qcow2")},
    {"dir/a:b", FILE_OF("dir/a:b")},     {"file:a", FILE_OF("a")},
    {"nbd:unix:/s", NBD(UNIX("/s"))},    {"json:{\"driver\":\"raw\"}", "{\"driver\":\"raw\"}"},
};

START_TEST(forms_of_faces)
{
    struct spec_env env = {.face = true, .co_is_file = is_file};
    check_tree(&env, face_forms[_i].text, false, face_forms[_i].tree);
}
END_TEST

START_TEST(image_opts)
{
    struct spec_env env = {.face = true};
    check_tree(&env, "file.filename=a.img//p", true, "{\"file\":{\"filename\":\"a.img//p\"}}");
    check_tree(&env, "json:{\"a\":1}", true, "{\"a\":1}");
    check_tree(&env, "{\"a\":true}", true, "{\"a\":true}");
}
END_TEST

static const struct {
    bool face;
    int rc;
    const char *text, *says;
} refused[] = {
    {false, -ENOENT, "", "requires a file name"},
    {true, -EPROTONOSUPPORT, "foo:bar", "Unknown protocol 'foo'"},
    {true, -EPROTONOSUPPORT, "p:q", "Unknown protocol 'p'"},
    {true, -EPROTONOSUPPORT, "md:a.img", "Unknown protocol 'md'"},
    {false, -EPROTONOSUPPORT, "ftp://x/y", "unknown scheme 'ftp'"},
    {false, -EINVAL, "a.img//", "missing behind //"},
    {false, -EINVAL, "a.img//p1//", "missing behind //"},
    {false, -EINVAL, "a.img////p1", "missing behind //"},
    {false, -EINVAL, "a.img//1//2//3//4//5//6//7//8//9//10//11//12//13//14//15//16//17", "levels"},
    {false, -EINVAL, "json:", "not valid JSON"},
    {false, -EINVAL, "json:[1]", "not an object"},
    {false, -EINVAL, "json:{\"a\":1", "not valid JSON"},
    {false, -EINVAL, "json:{\"a\":1,\"a.b\":2}", "a value and as a group"},
    {false, -EINVAL, "json:{\"x-lamina-beneath\":\"/\"}", "unknown option 'x-lamina-beneath'"},
    {false, -EINVAL, "json:{\"a\":[{\"file.x-lamina-name\":1}]}", "unknown option"},
    {false, -EINVAL, "driver=raw,file.x-lamina-probed=off", "unknown option"},
    {false, -EINVAL, "md:a.img,x-lamina-y=1", "unknown option"},
    {false, -EINVAL, "md:a.img,driver=y", "unknown option"},
    {false, -EINVAL, "md:", "at least one member"},
    {false, -EINVAL, "md:level=5", "at least one member"},
    {false, -EINVAL, "md:a.img,", "behind the last comma"},
    {false, -EINVAL, "md:a.img,level=5,b.img", "members come first"},
    {false, -EINVAL, "nbd://", "no host"},
    {false, -EINVAL, "nbd://h:0x9", "not a port"},
    {false, -EINVAL, "nbd://h:99999", "not a port"},
    {false, -EINVAL, "nbd://h:", "not a port"},
    {false, -EINVAL, "nbd://[::1", "lacks a ]"},
    {false, -EINVAL, "nbd://[::1]x", "behind ]"},
    {false, -EINVAL, "nbd://h/%zz", "bad % sequence"},
    {false, -EINVAL, "nbd://h/a%00b", "bad % sequence"},
    {false, -EINVAL, "nbd://h/e?socket=x", "belongs to nbd+unix"},
    {false, -EINVAL, "nbd://h/e?foo=x", "unknown parameter 'foo'"},
    {false, -EINVAL, "nbd+unix://h/e?socket=x", "takes no host"},
    {false, -EINVAL, "nbd+unix:///e", "path is missing"},
    {false, -EINVAL, "nbd+vsock://host/", "takes numbers"},
    {false, -EINVAL, "nbd+vsock://1:/", "takes numbers"},
    {false, -EINVAL, "nbd:foo", "expected nbd:HOST:PORT"},
    {false, -EINVAL, "rbd:pool", "expected rbd:POOL/IMAGE"},
    {false, -EINVAL, "rbd:pool/", "expected rbd:POOL/IMAGE"},
    {false, -EINVAL, "rbd:p/i:x", "KEY=VALUE"},
    {false, -EINVAL, "rbd:p/i:x-lamina-name=a", "KEY=VALUE"},
};

START_TEST(refuses_in_one_sentence)
{
    struct spec_env env = {.face = refused[_i].face, .co_is_file = is_file};
    struct blk_error e = {0};
    json_t *tree = NULL;
    int rc = co_spec_parse(&env, refused[_i].text, false, &tree, &e);
    ck_assert_msg(rc == refused[_i].rc, "%s: %d %s", refused[_i].text, rc, e.text);
    ck_assert_msg(strstr(e.text, refused[_i].says), "%s: %s", refused[_i].text, e.text);
    ck_assert_ptr_null(tree);
}
END_TEST

static json_t *parse_nested(unsigned levels, bool array, int *rc)
{
    char *text = malloc(levels * 6 + 100), *at = text;
    json_t *tree = NULL;
    struct blk_error e;
    struct spec_env env = {0};
    at += sprintf(at, "json:{\"b\":\"\\\"{{{[[[\",\"a\":");
    for (unsigned i = 1; i < levels; i++)
        at += sprintf(at, array ? "[" : "{\"a\":");
    if (!array)
        *at++ = '1';
    for (unsigned i = 1; i < levels; i++)
        *at++ = array ? ']' : '}';
    strcpy(at, "}");
    *rc = co_spec_parse(&env, text, false, &tree, &e);
    free(text);
    return tree;
}

START_TEST(nesting_is_bounded_before_parsing)
{
    int rc;
    for (int array = 0; array < 2; array++) {
        json_decref(parse_nested(60, array, &rc));
        ck_assert_int_eq(rc, 0);
        json_decref(parse_nested(65, array, &rc));
        ck_assert_int_eq(rc, -EINVAL);
        json_decref(parse_nested(150000, array, &rc));
        ck_assert_int_eq(rc, -EINVAL);
    }
}
END_TEST

START_TEST(dotted_keys_count_as_nesting)
{
    /* 10 levels of JSON with 10 dots each. */
    char text[1000] = "json:";
    struct blk_error e;
    struct spec_env env = {0};
    json_t *tree = NULL;
    for (int i = 0; i < 10; i++)
        strcat(text, "{\"a.a.a.a.a.a.a.a.a.a.a\":");
    strcat(text, "1}}}}}}}}}}");
    ck_assert_int_eq(co_spec_parse(&env, text, false, &tree, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.text, "nest"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("spec");
    TCase *t = tcase_create("spec");
    tcase_add_loop_test(t, forms_of_lamina, 0, ARRAY_LEN(forms));
    tcase_add_loop_test(t, forms_of_faces, 0, ARRAY_LEN(face_forms));
    tcase_add_test(t, image_opts);
    tcase_add_loop_test(t, refuses_in_one_sentence, 0, ARRAY_LEN(refused));
    tcase_add_test(t, nesting_is_bounded_before_parsing);
    tcase_add_test(t, dotted_keys_count_as_nesting);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

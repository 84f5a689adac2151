/* SPDX-License-Identifier: BSD-3-Clause */
/* tools.c - the frame of the command line: options, sizes, texts, creation options. */
#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/make.h"
#include "tools/output.h"
#include "tools/progress.h"

/* --- options ------------------------------------------------------------------------------------
 */

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "", 0, false},
    {'c', "compress", NULL, "", 0, false},
    {ARG_LONG, "shared", "N", "", 0, false},
    {ARG_LONG + 1, "only-lamina", NULL, "", FACE_LAMINA, false},
    {ARG_LONG + 2, "fork", "HOW", "", 0, true},
    ARG_OUTPUT,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};
static const struct command verb = {
    .name = "verb", .usage = "verb", .faces = FACE_LAMINA | FACE_IMG, .options = options};

#define MAX_WORDS 16
struct parsed {
    struct tool tool;
    char seen[256]; /* "f=qcow2 c 1000=4", then the operands in brackets */
    int end;
};

/* Parses a command line given as words split at blanks ("~" is an empty word). */
static struct parsed parse(enum face face, const char *line)
{
    struct parsed p = {.tool = {.called = "test", .face = face, .command = &verb}};
    static char copy[256];
    char *words[MAX_WORDS] = {"verb"}, *rest, **operands;
    const char *value;
    struct args a;
    int count = 1, id;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *w = strtok_r(copy, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        words[count++] = w;
    ck_assert_int_eq(args_init(&a, &p.tool, count, words), 0);
    size_t n = 0;
    while ((id = args_next(&a, &value)) >= 0) {
        n += (size_t)snprintf(p.seen + n, sizeof(p.seen) - n, id < 256 ? "%c" : "%d", id);
        n += (size_t)snprintf(p.seen + n, sizeof(p.seen) - n, "%s%s ", value ? "=" : "",
                              value ? value : "");
    }
    p.end = id;
    int left = args_operands(&a, &operands);
    for (int i = 0; id == ARGS_END && i < left; i++)
        n += (size_t)snprintf(p.seen + n, sizeof(p.seen) - n, "[%s]", operands[i]);
    args_drop(&a);
    return p;
}

/* Messages of refused command lines are not the test's output. */
static int mute(void)
{
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr));
    return kept;
}

static void unmute(int kept)
{
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
}

START_TEST(options_come_in_any_order_and_form)
{
    static const struct {
        const char *line, *seen;
    } rows[] = {
        {"-f qcow2 a", "f=qcow2 [a]"},
        {"a -f qcow2 b", "f=qcow2 [a][b]"},
        {"-fqcow2 a", "f=qcow2 [a]"},
        {"--format=qcow2 -c a", "f=qcow2 c [a]"},
        {"--format qcow2 a", "f=qcow2 [a]"},
        {"-cfraw a", "c f=raw [a]"},
        {"--share 1 a", "1000=1 [a]"},
        {"--sh=1 a", "1000=1 [a]"},
        {"a -- -f", "[a][-f]"},
        {"--fork a", "1002 [a]"},
        {"--fork=x a", "1002=x [a]"},
        {"-f raw -f qcow2", "f=raw f=qcow2 "},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct parsed p = parse(FACE_IMG, rows[i].line);
        ck_assert_int_eq(p.end, ARGS_END);
        ck_assert_str_eq(p.seen, rows[i].seen);
    }
}
END_TEST

START_TEST(common_options_are_kept_by_the_frame)
{
    struct parsed p =
        parse(FACE_LAMINA, "x --output=json -q -p -U --host=threads --chain d --untrusted");
    ck_assert_int_eq(p.end, ARGS_END);
    ck_assert_str_eq(p.seen, "[x]");
    ck_assert(p.tool.output == OUTPUT_JSON && p.tool.quiet && p.tool.progress);
    ck_assert(p.tool.force_share && p.tool.untrusted);
    ck_assert_str_eq(p.tool.host_kind, "threads");
    ck_assert_str_eq(p.tool.chain_dir, "d");
}
END_TEST

START_TEST(what_is_not_known_is_an_error)
{
    static const struct {
        enum face face;
        const char *line;
    } rows[] = {
        {FACE_IMG, "--nonsense"},
        {FACE_IMG, "-Z"},
        {FACE_IMG, "a -f"},
        {FACE_IMG, "--f=raw"}, /* --format, --force-share, --fork */
        {FACE_IMG, "--only-lamina"},
        {FACE_IMG, "--host=threads"},
        {FACE_LAMINA, "--progess"},
        {FACE_LAMINA, "--output=xml"},
        {FACE_LAMINA, "--compress=yes"},
    };
    int kept = mute();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        ck_assert_int_eq(parse(rows[i].face, rows[i].line).end, ARGS_BAD);
    unmute(kept);
    ck_assert_int_eq(parse(FACE_LAMINA, "--only-lamina").end, ARGS_END);
    ck_assert(parse(FACE_LAMINA, "--progres bar").tool.progress); /* an abbreviation */
}
END_TEST

/* --- sizes and texts
 * ------------------------------------------------------------------------------ */

START_TEST(sizes_read_as_qemu_img_writes_them)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 B"},
        {1, "1 B"},
        {512, "512 B"},
        {999, "999 B"},
        {1000, "0.977 KiB"},
        {1024, "1 KiB"},
        {4096, "4 KiB"},
        {196 * KiB, "196 KiB"},
        {1023 * KiB, "0.999 MiB"},
        {1572864, "1.5 MiB"},
        {GiB, "1 GiB"},
        {10 * TiB, "10 TiB"},
        {UINT64_MAX, "16 EiB"},
    };
    char text[32];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        ck_assert_str_eq(output_size(rows[i].bytes, text, sizeof(text)), rows[i].text);
}
END_TEST

START_TEST(text_that_is_no_utf8_is_json_all_the_same)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"plain", "plain"},
        {"\xc3\xa4", "\xc3\xa4"},
        {"a\xff", "a\xef\xbf\xbd"},
        {"\xc3", "\xef\xbf\xbd"},
        {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80x", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *v = output_text(rows[i].in);
        ck_assert_ptr_nonnull(v);
        ck_assert_str_eq(json_string_value(v), rows[i].out);
        json_decref(v);
    }
}
END_TEST

START_TEST(endings_name_formats)
{
    ck_assert_str_eq(format_by_ending("x.qcow2")->name, "qcow2");
    ck_assert_str_eq(format_by_ending("/a.b/x.VDI")->name, "vdi");
    ck_assert_str_eq(format_by_ending("x.img")->name, "raw");
    ck_assert_ptr_null(format_by_ending("x"));
    ck_assert_ptr_null(format_by_ending("/a.qcow2/x"));
    ck_assert_ptr_null(format_by_ending("x."));
    ck_assert_ptr_null(format_by_ending("x.qcow3"));
}
END_TEST

/* --- creation options
 * ----------------------------------------------------------------------------- */

START_TEST(lists_of_options_add_up)
{
    struct tool t = {.called = "test", .face = FACE_IMG, .command = &verb};
    struct make m = {.tool = &t, .driver = format_by_ending("x.qcow2"), .options = json_object()};
    uint64_t size = 0;
    bool given;
    ck_assert_int_eq(make_add_options(&t, m.options, "size=3M,cluster_size=4k"), 0);
    ck_assert_int_eq(make_add_options(&t, m.options, "backing_file=a,,b,backing_fmt=raw"), 0);
    ck_assert_int_eq(make_take_size(&m, &size, &given, NULL), 0);
    ck_assert(given && size == 3 * MiB);
    ck_assert_ptr_null(json_object_get(m.options, "size"));
    ck_assert_str_eq(json_string_value(json_object_get(m.options, "backing_file")), "a,b");
    ck_assert_int_eq(make_check_options(&m, NULL), 0);
    int kept = mute();
    ck_assert_int_eq(make_add_options(&t, m.options, "a=b,"), -EINVAL);
    ck_assert_int_eq(make_add_options(&t, m.options, ",a=b"), -EINVAL);
    ck_assert_int_eq(make_add_options(&t, m.options, ""), -EINVAL);
    unmute(kept);
    make_drop(&m);
}
END_TEST

START_TEST(options_of_another_format_are_refused)
{
    struct tool t = {.called = "test", .face = FACE_LAMINA, .command = &verb};
    static const struct {
        const char *target, *options, *words;
    } rows[] = {
        {"x.img", "backing_file=a", "stand on no other"},
        {"x.img", "backing_fmt=a", "Backing file format not supported"},
        {"x.qcow2", "cluster_sise=4k", "cluster_size"},
        {"x.qcow2", "compression_type=zst", "zst"},
        {"x.vdi", "static=perhaps", "static"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct blk_error e = {0};
        struct make m = {
            .tool = &t, .driver = format_by_ending(rows[i].target), .options = json_object()};
        ck_assert_int_eq(make_add_options(&t, m.options, rows[i].options), 0);
        ck_assert_int_lt(make_check_options(&m, &e), 0);
        ck_assert_msg(strstr(e.text, rows[i].words) != NULL, "%s", e.text);
        make_drop(&m);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tools");
    TCase *c = tcase_create("all");
    tcase_add_test(c, options_come_in_any_order_and_form);
    tcase_add_test(c, common_options_are_kept_by_the_frame);
    tcase_add_test(c, what_is_not_known_is_an_error);
    tcase_add_test(c, sizes_read_as_qemu_img_writes_them);
    tcase_add_test(c, text_that_is_no_utf8_is_json_all_the_same);
    tcase_add_test(c, endings_name_formats);
    tcase_add_test(c, lists_of_options_add_up);
    tcase_add_test(c, options_of_another_format_are_refused);
    suite_add_tcase(s, c);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* spec_set.c - md:a.img,b.img,level=5 and its like: members, then key=value, a comma in a name
 * doubled.
 *
 * A // behind the last word belongs to the set, but for as many levels of it as the member before
 * has: in md:a.img//p3,b.img//p3//vg0/root the members are two partitions, and vg0/root is inside
 * the array. A set of one member has all. */
#include <ctype.h>

#include "block/option_text.h"
#include "block/spec.h"

#define SET_MEMBERS_MAX 1024

struct set_words {
    char *words[SET_MEMBERS_MAX];
    size_t count;
    char *inner; /* behind the last word; into it; NULL: none */
};

static const char *const set_drivers[] = {"md", "lvm", "thin", "dir"};

/* driver=X,file=Y: a member with a layer over it (its commas were doubled). */
static bool is_layered(const char *word)
{
    return strncmp(word, "driver=", strlen("driver=")) == 0 && strchr(word, ',');
}

static bool is_key(const struct spec_env *env, const char *word)
{
    if (is_layered(word))
        return false;
    size_t len = strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_-.");
    if (len == 0 || word[len] != '=' || !islower((unsigned char)*word))
        return false;
    return !env->co_is_file || !env->co_is_file(env, word);
}

static unsigned count_levels(const char *word)
{
    unsigned n = 0;
    for (; (word = strstr(word, "//")); word += 2)
        n++;
    return n;
}

static int split_words(const char *text, struct set_words *s, struct blk_error *e)
{
    auto_free char *word = mem_alloc(strlen(text) + 1);
    if (!word)
        return err_set(e, -ENOMEM, "no memory for a spec");
    while (*text) {
        if (s->count == SET_MEMBERS_MAX)
            return err_set(e, -E2BIG, "a set of more than %d words", SET_MEMBERS_MAX);
        text += opts_take_word(text, word);
        if (*text == ',' && !*++text)
            return err_set(e, -EINVAL, "a word is missing behind the last comma");
        if (!*word)
            return err_set(e, -EINVAL, "an empty word stands before a comma");
        s->words[s->count] = mem_strdup(word);
        if (!s->words[s->count])
            return err_set(e, -ENOMEM, "no memory for a spec");
        s->count++;
    }
    return s->count ? 0 : err_set(e, -EINVAL, "a set names at least one member");
}

static void cut_inner(const struct spec_env *env, struct set_words *s)
{
    char *last = s->words[s->count - 1];
    unsigned keep = s->count > 1 && !is_key(env, last) ? count_levels(s->words[s->count - 2]) : 0;
    char *at = strstr(last, "//");
    for (; at && keep; keep--)
        at = strstr(at + 2, "//");
    if (!at)
        return;
    *at = 0;
    s->inner = at + 2;
}

/* @may_miss: the word `missing` is a member that is not there, the null device. */
static int co_add_members(const struct spec_env *env, const struct set_words *s, json_t *tree,
                          bool may_miss, size_t *used, struct blk_error *e)
{
    json_t *members = json_array();
    if (json_object_set_new(tree, "members", members) < 0)
        return err_set(e, -ENOMEM, "no memory for a spec");
    for (; *used < s->count && !is_key(env, s->words[*used]); ++*used) {
        json_t *member = NULL;
        if (may_miss && strcmp(s->words[*used], "missing") == 0)
            member = json_pack("{s:s}", "driver", "null");
        else if (is_layered(s->words[*used]))
            TRY(co_spec_parse(env, s->words[*used], true, &member, e));
        else
            TRY(co_spec_plain(env, s->words[*used], &member, e));
        if (json_array_append_new(members, member) < 0)
            return err_set(e, -ENOMEM, "no memory for a spec");
    }
    return json_array_size(members) ? 0 : err_set(e, -EINVAL, "a set names at least one member");
}

static int add_folder(const struct set_words *s, json_t *tree, size_t *used, struct blk_error *e)
{
    *used = 1;
    if (json_object_set_new_nocheck(tree, "path", json_string_nocheck(s->words[0])) < 0)
        return err_set(e, -ENOMEM, "no memory for a spec");
    return 0;
}

/* `format=raw` behind a set's members is theirs: no member is probed. */
static int tell_format(json_t *members, const char *format, struct blk_error *e)
{
    json_t *member;
    size_t i;
    json_array_foreach (members, i, member)
        if (!json_object_get(member, "driver") &&
            json_object_set_new_nocheck(member, "driver", json_string_nocheck(format)) < 0)
            return err_set(e, -ENOMEM, "no memory for a spec");
    return 0;
}

/* What a person knows it by: as it was told, without what is inside. */
static int name_set(const char *driver, const struct set_words *s, json_t *tree,
                    struct blk_error *e)
{
    char name[200] = "";
    size_t at = (size_t)snprintf(name, sizeof(name), "%s:", driver);
    for (size_t i = 0; i < s->count && at < sizeof(name); i++)
        at += (size_t)snprintf(name + at, sizeof(name) - at, "%s%s", i ? "," : "", s->words[i]);
    if (at >= sizeof(name))
        memcpy(name + sizeof(name) - 4, "...", 4);
    json_t *value = json_string_nocheck(name);
    return value && json_object_set_new(tree, "x-lamina-name", value) == 0
               ? 0
               : err_set(e, -ENOMEM, "no memory for a spec");
}

static int co_build(const struct spec_env *env, const char *driver, struct set_words *s,
                    json_t **tree, struct blk_error *e)
{
    size_t used = 0;
    if (json_object_set_new(*tree, "driver", json_string(driver)) < 0)
        return err_set(e, -ENOMEM, "no memory for a spec");
    TRY(strcmp(driver, "dir") == 0
            ? add_folder(s, *tree, &used, e)
            : co_add_members(env, s, *tree, strcmp(driver, "md") == 0, &used, e));
    for (; used < s->count; used++) {
        char *word = s->words[used], *equals = strchr(word, '=');
        if (!is_key(env, word))
            return err_set(e, -EINVAL, "'%.60s' is a member behind the keys: members come first",
                           word);
        *equals = 0;
        if (strncmp(word, "x-lamina-", 9) == 0 || strcmp(word, "driver") == 0)
            return err_set(e, -EINVAL, "unknown option '%.60s'", word);
        if (strcmp(word, "format") == 0)
            TRY(tell_format(json_object_get(*tree, "members"), equals + 1, e));
        else
            TRY(opts_put(*tree, word, json_string_nocheck(equals + 1), OPTS_DEPTH / 2, e));
    }
    return s->inner ? spec_inner(s->inner, tree, e) : 0;
}

static int co_parse_set(const struct spec_env *env, const char *driver, const char *text,
                        json_t **out, struct blk_error *e)
{
    auto_free struct set_words *s = mem_zalloc(sizeof *s);
    json_t *tree = json_object();
    int rc = s && tree ? split_words(text, s, e) : err_set(e, -ENOMEM, "no memory for a spec");
    if (rc == 0) {
        cut_inner(env, s);
        rc = name_set(driver, s, tree, e);
        if (rc == 0)
            rc = co_build(env, driver, s, &tree, e);
    }
    for (size_t i = 0; s && i < s->count; i++)
        mem_free(s->words[i]);
    if (rc == 0)
        *out = tree;
    else
        json_decref(tree);
    return rc;
}

bool co_spec_set(const struct spec_env *env, const char *text, json_t **out, int *rc,
                 struct blk_error *e)
{
    for (size_t i = 0; i < ARRAY_LEN(set_drivers); i++) {
        size_t len = strlen(set_drivers[i]);
        if (strncmp(text, set_drivers[i], len) == 0 && text[len] == ':') {
            *rc = co_parse_set(env, set_drivers[i], text + len + 1, out, e);
            return true;
        }
    }
    return false;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* spec.c - which form a spec has, in the order that docs/specs.md states.
 *
 *   1  URL, json:{...}, driver=...,key=value, file:PATH     the text alone decides
 *   2  an existing file of exactly that name
 *   3  a set: md: lvm: thin: dir:
 *   4  NAME//inner//inner, where NAME is a file or a block device
 *   -  else a file's name, that somebody may create
 *
 * The qemu faces know 1 (by QEMU's rule for protocols) and plain names. */
#include "block/spec.h"

#include <ctype.h>

#include "block/option_text.h"
#include "block/worker.h"

#define SPEC_JSON_MAX (1 * MiB)

json_t *spec_file(const char *driver, const char *filename)
{
    json_t *tree = json_object();
    if (json_object_set_new(tree, "driver", json_string_nocheck(driver)) < 0 ||
        json_object_set_new_nocheck(tree, "filename", json_string_nocheck(filename)) < 0) {
        json_decref(tree);
        return NULL;
    }
    return tree;
}

json_t *spec_on_file(json_t *file)
{
    json_t *tree = json_object();
    if (json_object_set_new(tree, "file", file) < 0) {
        json_decref(tree);
        return NULL;
    }
    return tree;
}

bool spec_has_protocol(const char *text)
{
    return text[strcspn(text, ":/")] == ':';
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static int give(json_t *tree, json_t **out, struct blk_error *e)
{
    *out = tree;
    return tree ? 0 : err_set(e, -ENOMEM, "no memory for a spec");
}

/* --- json:{...} and key=value
 * ------------------------------------------------------------------------------------- */

static int nest(const json_t *from, unsigned room, json_t **out, struct blk_error *e);

static int nest_list(const json_t *from, unsigned room, json_t **out, struct blk_error *e)
{
    json_t *list = json_array(), *item;
    for (size_t i = 0; i < json_array_size(from); i++) {
        int rc = nest(json_array_get(from, i), room - 1, &item, e);
        if (rc == 0 && json_array_append_new(list, item) < 0)
            rc = err_set(e, -ENOMEM, "no memory for a spec");
        if (rc < 0) {
            json_decref(list);
            return rc;
        }
    }
    return give(list, out, e);
}

static unsigned count_dots(const char *key)
{
    unsigned n = 0;
    while ((key = strchr(key, '.'))) {
        key++;
        n++;
    }
    return n;
}

/* A copy of @from in which keys like "file.filename" have become objects, at most @room deep. */
static int nest(const json_t *from, unsigned room, json_t **out, struct blk_error *e)
{
    if (room == 0)
        return err_set(e, -EINVAL, "the options nest deeper than %d levels", OPTS_DEPTH);
    if (json_is_array(from))
        return nest_list(from, room, out, e);
    if (!json_is_object(from))
        return give(json_incref((json_t *)from), out, e);
    json_t *to = json_object(), *value, *nested = NULL;
    const char *key;
    int rc = to ? 0 : -ENOMEM;
    json_object_foreach ((json_t *)from, key, value) {
        unsigned below = 1 + count_dots(key);
        if (rc == 0)
            rc = nest(value, room > below ? room - below : 0, &nested, e);
        if (rc == 0)
            rc = opts_put(to, key, nested, room, e);
    }
    if (rc == 0)
        return give(to, out, e);
    json_decref(to);
    return rc;
}

/* Words that only the resolver may say to a driver. At most OPTS_DEPTH deep. */
static int refuse_private(const json_t *tree, struct blk_error *e)
{
    const char *key;
    json_t *value;
    for (size_t i = 0; i < json_array_size(tree); i++)
        TRY(refuse_private(json_array_get(tree, i), e));
    json_object_foreach ((json_t *)tree, key, value) {
        if (starts(key, "x-lamina-"))
            return err_set(e, -EINVAL, "unknown option '%.60s'", key);
        TRY(refuse_private(value, e));
    }
    return 0;
}

struct json_work {
    const char *text;
    json_t *tree;
    struct blk_error *e;
};

static int parse_json(void *arg)
{
    struct json_work *w = arg;
    json_error_t why;
    json_t *raw = json_loads(w->text, 0, &why);
    if (!raw)
        return err_set(w->e, -EINVAL, "not valid JSON: %s (line %d, column %d)", why.text, why.line,
                       why.column);
    int rc = json_is_object(raw) ? nest(raw, OPTS_DEPTH, &w->tree, w->e)
                                 : err_set(w->e, -EINVAL, "the JSON is not an object");
    json_decref(raw);
    if (rc == 0)
        rc = refuse_private(w->tree, w->e);
    if (rc < 0) {
        json_decref(w->tree);
        w->tree = NULL;
    }
    return rc;
}

int co_spec_json(const char *text, json_t **out, struct blk_error *e)
{
    if (starts(text, "json:"))
        text += 5;
    if (strlen(text) > SPEC_JSON_MAX)
        return err_set(e, -E2BIG, "the JSON is longer than %llu bytes", SPEC_JSON_MAX);
    TRY(json_check_depth(text, strlen(text), e));
    struct json_work w = {.text = text, .e = e};
    int rc = co_self() ? co_offload(parse_json, &w) : parse_json(&w);
    *out = w.tree;
    return rc;
}

static bool is_key_values(const char *text)
{
    const char *found = strstr(text, ".driver=");
    return starts(text, "driver=") || (found && !memchr(text, '/', (size_t)(found - text)));
}

static int key_values(const char *text, json_t **out, struct blk_error *e)
{
    json_t *tree = json_object();
    int rc = tree ? opts_text_to_tree(text, NULL, tree, e) : -ENOMEM;
    if (rc == 0)
        rc = refuse_private(tree, e);
    if (rc == 0)
        return give(tree, out, e);
    json_decref(tree);
    return rc;
}

/* --- NAME//inner
 * ------------------------------------------------------------------------------------- */

static int add_inner(const char *name, size_t len, json_t **tree, struct blk_error *e)
{
    auto_free char *copy = mem_printf("%.*s", (int)len, name);
    json_t *inner = json_object();
    if (!copy || json_object_set_new(inner, "driver", json_string("inner")) < 0 ||
        json_object_set_new(inner, "name", json_string_nocheck(copy)) < 0 ||
        json_object_set(inner, "of", *tree) < 0) {
        json_decref(inner);
        return err_set(e, -ENOMEM, "no memory for a spec");
    }
    json_decref(*tree);
    *tree = inner;
    return 0;
}

int spec_inner(const char *names, json_t **tree, struct blk_error *e)
{
    for (unsigned levels = 0;; levels++) {
        const char *end = strstr(names, "//");
        size_t len = end ? (size_t)(end - names) : strlen(names);
        if (len == 0)
            return err_set(e, -EINVAL, "a name is missing behind //");
        if (levels == SPEC_INNER_MAX)
            return err_set(e, -EINVAL, "more than %d levels of //", SPEC_INNER_MAX);
        TRY(add_inner(names, len, tree, e));
        if (!end)
            return 0;
        names = end + 2;
    }
}

static bool co_is_file(const struct spec_env *env, const char *path)
{
    return env->co_is_file && env->co_is_file(env, path);
}

static int file_then_inner(const char *path, const char *names, json_t **out, struct blk_error *e)
{
    json_t *tree = spec_on_file(spec_file("file", path));
    int rc = tree ? spec_inner(names, &tree, e) : -ENOMEM;
    if (rc == 0)
        return give(tree, out, e);
    json_decref(tree);
    return rc;
}

/* The first // whose left part is a file; false: there is none. */
static bool co_split_inner(const struct spec_env *env, const char *text, json_t **out, int *rc,
                           struct blk_error *e)
{
    auto_free char *left = mem_strdup(text);
    if (!left) {
        *rc = err_set(e, -ENOMEM, "no memory for a spec");
        return true;
    }
    for (char *at = *left ? strstr(left + 1, "//") : NULL; at; at = strstr(at + 1, "//")) {
        *at = 0;
        if (co_is_file(env, left)) {
            *rc = file_then_inner(left, text + (at - left) + 2, out, e);
            return true;
        }
        *at = '/';
    }
    return false;
}

/* --- all forms
 * ------------------------------------------------------------------------------------- */

static int plain_file(const char *path, json_t **out, struct blk_error *e)
{
    if (!*path)
        return err_set(e, -ENOENT, "The 'file' block driver requires a file name");
    return give(spec_on_file(spec_file("file", path)), out, e);
}

static bool co_by_text(const struct spec_env *env, const char *text, json_t **out, int *rc,
                       struct blk_error *e)
{
    json_t *bottom = NULL;
    if (starts(text, "json:")) {
        *rc = co_spec_json(text, out, e);
    } else if (spec_url(text, &bottom, rc, e)) {
        if (*rc == 0)
            *rc = give(spec_on_file(bottom), out, e);
    } else if (starts(text, "file:")) {
        *rc = plain_file(text + 5, out, e);
    } else {
        return false;
    }
    return true;
}

/* `word://` that is no scheme of ours and no file: a misspelt or missing protocol. */
static int unknown_scheme(const char *text, struct blk_error *e)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+.-");
    if (len < 2 || !islower((unsigned char)*text) || strncmp(text + len, "://", 3) != 0)
        return 0;
    return err_set(e, -EPROTONOSUPPORT,
                   "unknown scheme '%.*s': nbd, nbd+unix, nbd+vsock, nbds, nbds+unix, "
                   "nbds+vsock, http, https and rbd "
                   "are known",
                   (int)MIN(len, (size_t)40), text);
}

int co_spec_plain(const struct spec_env *env, const char *text, json_t **out, struct blk_error *e)
{
    int rc = 0;
    if (co_by_text(env, text, out, &rc, e))
        return rc;
    if (co_is_file(env, text))
        return plain_file(text, out, e);
    if (co_split_inner(env, text, out, &rc, e))
        return rc;
    TRY(unknown_scheme(text, e));
    return plain_file(text, out, e);
}

/* QEMU's blkdebug:CONFIG:IMAGE and blkverify:RAW:IMAGE. False: it is neither. */
static bool test_layers(const char *text, json_t **out, int *rc, struct blk_error *e)
{
    bool debug = starts(text, "blkdebug:");
    if (!debug && !starts(text, "blkverify:"))
        return false;
    auto_free char *first = mem_strdup(strchr(text, ':') + 1);
    char *second = first ? strchr(first, ':') : NULL;
    if (!second) {
        *rc = err_set(e, first ? -EINVAL : -ENOMEM, "%.*s:%s:IMAGE is meant", debug ? 8 : 9, text,
                      debug ? "CONFIG" : "RAW");
        return true;
    }
    *second++ = '\0';
    json_t *tree =
        debug ? json_pack("{s:s, s:o}", "driver", "blkdebug", "image", spec_file("file", second))
              : json_pack("{s:s, s:o, s:s}", "driver", "blkverify", "raw", spec_file("file", first),
                          "test", second);
    if (tree && debug && *first && json_object_set_new(tree, "config", spec_file("file", first)))
        tree = NULL;
    *rc = tree ? give(spec_on_file(tree), out, e) : err_set(e, -ENOMEM, "no memory for a spec");
    return true;
}

static int face_spec(const struct spec_env *env, const char *text, json_t **out,
                     struct blk_error *e)
{
    int rc = 0;
    if (co_by_text(env, text, out, &rc, e))
        return rc;
    if (test_layers(text, out, &rc, e))
        return rc;
    if (spec_has_protocol(text))
        return err_set(e, -EPROTONOSUPPORT, "Unknown protocol '%.*s'",
                       (int)MIN(strcspn(text, ":"), (size_t)60), text);
    return plain_file(text, out, e);
}

int co_spec_parse(const struct spec_env *env, const char *text, bool image_opts, json_t **out,
                  struct blk_error *e)
{
    int rc = 0;
    *out = NULL;
    if (image_opts)
        return starts(text, "json:") || *text == '{' ? co_spec_json(text, out, e)
                                                     : key_values(text, out, e);
    if (env->face)
        return face_spec(env, text, out, e);
    if (!starts(text, "json:") && is_key_values(text))
        return key_values(text, out, e);
    if (co_by_text(env, text, out, &rc, e))
        return rc;
    if (!co_is_file(env, text) && co_spec_set(env, text, out, &rc, e))
        return rc;
    return co_spec_plain(env, text, out, e);
}

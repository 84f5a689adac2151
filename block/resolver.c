/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver.c - from a spec to an open stack: parse it (spec.c), put the caller's format over it,
 * open the tree (resolver_node.c), then what its images refer to (resolver_chain.c). */
#include "block/resolver_private.h"
#include "block/spec.h"

/* --- parse
 * ------------------------------------------------------------------------------------- */

bool co_resolver_is_file(struct resolver *r, const char *path)
{
    struct host_stat st;
    return co_host_stat(r->host, path, &st) == 0 &&
           (st.type == HOST_FILE_REGULAR || st.type == HOST_FILE_BLOCK);
}

static bool co_env_is_file(const struct spec_env *env, const char *path)
{
    return co_resolver_is_file(env->arg, path);
}

int co_parse_spec(struct resolver *r, const char *text, bool image_opts, json_t **out,
                  struct blk_error *e)
{
    struct spec_env env = {
        .face = trust_rule(r)->face,
        .co_is_file = co_env_is_file,
        .arg = r,
    };
    return co_spec_parse(&env, text, image_opts, out, e);
}

static const char *nearest_driver(const struct resolver *r, const char *word, bool formats)
{
    const char *names[64];
    size_t n = 0;
    for (const struct blk_driver *const *d = r->drivers; *d && n < ARRAY_LEN(names); d++)
        if (!formats || (*d)->is_format)
            names[n++] = (*d)->name;
    return opts_nearest(word, names, n);
}

int unknown_driver(struct open_run *run, const char *name, struct blk_error *e)
{
    if (run->rule->face)
        return err_set(e, -EINVAL, "Unknown driver '%.60s'", name);
    const char *near = nearest_driver(run->r, name, false);
    return err_set(e, -ENOTSUP, "this build has no driver \"%.60s\"%s%s%s", name,
                   near ? ": the nearest is \"" : "", near ? near : "", near ? "\"" : "");
}

static int check_format(struct resolver *r, const char *format, struct blk_error *e)
{
    const struct blk_driver *d = blk_find_driver(r->drivers, format);
    if (d && (d->is_format || trust_rule(r)->face))
        return 0;
    if (trust_rule(r)->face)
        return err_set(e, -EINVAL, "Unknown driver '%.60s'", format);
    const char *near = nearest_driver(r, format, true);
    err_set(e, -EINVAL, "Unknown file format '%.60s'%s%s%s", format,
            near ? ": the nearest is '" : "", near ? near : "", near ? "'" : "");
    err_next(e, "`lamina help formats` lists those there are");
    return -EINVAL;
}

int put_format(struct resolver *r, const char *format, json_t **tree, struct blk_error *e)
{
    const char *told = json_string_value(json_object_get(*tree, "driver"));
    const struct blk_driver *known = told ? blk_find_driver(r->drivers, told) : NULL;
    if (told && strcmp(told, format) == 0)
        return 0;
    if (told && known && known->is_format && !trust_rule(r)->face)
        return err_set(e, -EINVAL, "the format is told twice: %s and %s", told, format);
    if (told && (!known || !known->is_format))
        *tree = spec_on_file(*tree);
    if (json_object_set_new(*tree, "driver", json_string(format)) < 0)
        return err_set(e, -ENOMEM, "no memory for a spec");
    return 0;
}

/* What stands below the formats of @tree. Borrowed. */
static json_t *bottom_of(struct resolver *r, json_t *tree)
{
    for (;;) {
        const char *name = json_string_value(json_object_get(tree, "driver"));
        const struct blk_driver *d = name ? blk_find_driver(r->drivers, name) : NULL;
        json_t *file = json_object_get(tree, "file");
        if (!file || (name && !(d && d->is_format)))
            return tree;
        tree = file;
    }
}

/* What has no file's name is called in messages as it was written, if that was a URL. */
static int name_bottom(struct resolver *r, json_t *tree, const char *text, struct blk_error *e)
{
    json_t *url = NULL, *bottom = bottom_of(r, tree);
    int rc = 0;
    bool is_url = spec_url(text, &url, &rc, NULL);
    json_decref(url);
    if (is_url && json_is_object(bottom) &&
        json_object_set_new(bottom, "x-lamina-name", json_from_text(text)) < 0)
        return err_set(e, -ENOMEM, "no memory for a spec");
    return 0;
}

/* Of a folder that is an image: the name of the file in it that says so. NULL: it is none. */
static char *co_bundle(struct resolver *r, const char *text)
{
    struct host_stat st;
    if (trust_rule(r)->face || co_host_stat(r->host, text, &st) < 0 ||
        st.type != HOST_FILE_DIRECTORY)
        return NULL;
    for (const struct blk_driver *const *d = r->drivers; *d; d++) {
        char *path = (*d)->bundle_file ? mem_printf("%s/%s", text, (*d)->bundle_file) : NULL;
        if (path && co_resolver_is_file(r, path))
            return path;
        mem_free(path);
    }
    return NULL;
}

int co_resolver_parse(struct resolver *r, const char *text, const char *format, bool image_opts,
                      json_t **out, struct blk_error *e)
{
    json_t *tree = NULL;
    auto_free char *bundle = image_opts ? NULL : co_bundle(r, text);
    *out = NULL;
    if (bundle)
        text = bundle;
    if (format)
        TRY(check_format(r, format, e));
    TRY(co_parse_spec(r, text, image_opts, &tree, e));
    int rc = name_bottom(r, tree, text, e);
    if (rc == 0 && format)
        rc = put_format(r, format, &tree, e);
    if (rc < 0) {
        json_decref(tree);
        return rc;
    }
    *out = tree;
    return 0;
}

/* --- open
 * ------------------------------------------------------------------------------------- */

static void run_drop(struct open_run *run)
{
    references_drop(run->first);
    for (size_t i = 0; i < run->opened_count; i++)
        co_blk_close(run->opened[i], NULL);
    mem_free(run->opened);
    within_drop(run);
    links_drop(run);
}

/* A clean error to fill: the caller's, or one of ours. */
static struct blk_error *clean(struct blk_error *e, struct blk_error *own)
{
    e = e ? e : own;
    *e = (struct blk_error){0};
    return e;
}

/* Errors that came up without words get the errno's: who prefixes relies on e->rc. */
static int with_words(int rc, struct blk_error *e)
{
    return rc < 0 && e->rc == 0 ? err_errno(e, rc, "could not be opened") : rc;
}

/* *named: the error says already which file it is about; may be NULL. */
static int co_run(struct resolver *r, struct node *n, struct blk_device **out, bool *named,
                  struct blk_error *e)
{
    struct open_run run = {.r = r, .rule = trust_rule(r)};
    struct blk_device *dev = NULL;
    n->link = link_new(&run, NULL, true);
    n->cache = r->cache;
    if (r->force_share && !(n->flags & BLK_OPEN_WRITE))
        n->flags |= BLK_OPEN_FORCE_SHARE;
    int rc = n->link ? co_node_open(&run, n, &dev, e)
                     : err_set(e, -ENOMEM, "no memory to open a device");
    if (rc == 0)
        rc = co_references_open(&run, e);
    if (rc == 0)
        rc = co_run_opened(&run, e);
    if (rc == 0 && dev->driver->only_inner && !(n->flags & (BLK_OPEN_FACTS | BLK_OPEN_CHECK)))
        rc = err_set(e, -EINVAL,
                     "it holds disks and is none itself: name one behind //; `lamina info` lists "
                     "them");
    if (rc == 0)
        within_share(&run);
    run_drop(&run);
    if (named)
        *named = run.named;
    if (rc == 0) {
        *out = dev;
        return 0;
    }
    co_blk_close(dev, NULL);
    return with_words(rc, e);
}

int co_resolver_open_tree(struct resolver *r, const json_t *tree, unsigned open_flags,
                          struct blk_device **out, struct blk_error *e)
{
    struct blk_error own;
    struct node n = {.tree = tree, .flags = open_flags};
    return co_run(r, &n, out, NULL, clean(e, &own));
}

static int co_open_text(struct resolver *r, const char *text, const char *format, bool image_opts,
                        unsigned open_flags, struct blk_device **out, struct blk_error *e)
{
    json_t *tree = NULL;
    bool named = false;
    int rc = co_resolver_parse(r, text, format, image_opts, &tree, e);
    if (rc == 0) {
        struct node n = {.tree = tree, .flags = open_flags};
        rc = co_run(r, &n, out, &named, e);
    }
    json_decref(tree);
    rc = with_words(rc, e);
    if (rc < 0 && trust_rule(r)->face)
        return err_prefix(e, "Could not open '%.200s'", text);
    return rc < 0 && !named ? err_prefix(e, "%.200s", text) : rc;
}

int co_resolver_open(struct resolver *r, const char *text, const char *format, unsigned open_flags,
                     struct blk_device **out, struct blk_error *e)
{
    struct blk_error own;
    return co_open_text(r, text, format, false, open_flags, out, clean(e, &own));
}

int co_resolver_open_opts(struct resolver *r, const char *text, unsigned open_flags,
                          struct blk_device **out, struct blk_error *e)
{
    struct blk_error own;
    return co_open_text(r, text, NULL, true, open_flags, out, clean(e, &own));
}

int co_resolver_open_file(struct resolver *r, const char *text, unsigned open_flags,
                          unsigned create, struct blk_device **out, struct blk_error *e)
{
    struct blk_error own;
    json_t *tree = NULL;
    e = clean(e, &own);
    int rc = co_resolver_parse(r, text, NULL, false, &tree, e);
    if (with_words(rc, e) < 0)
        return trust_rule(r)->face ? rc : err_prefix(e, "%.200s", text);
    struct node n = {
        .tree = bottom_of(r, tree), .flags = open_flags, .create = create, .bottom = true};
    bool named = false;
    rc = co_run(r, &n, out, &named, e);
    json_decref(tree);
    return rc < 0 && !named && !trust_rule(r)->face ? err_prefix(e, "%.200s", text) : rc;
}

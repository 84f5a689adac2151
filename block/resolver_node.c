/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver_node.c - one object of a tree becomes one open device; what its driver may ask for.
 *
 * A tree nests at most 64 deep; where a coroutine's stack gets short, the next object is opened on
 * a coroutine of its own. */
#include "block/option_text.h"
#include "block/resolver_private.h"
#include "block/worker.h"

#define STACK_FOR_OPEN (40 * KiB)

/* --- names and words of a tree
 * ------------------------------------------------------------------------------------- */

const char *tree_name(const json_t *tree)
{
    const json_t *at = tree, *last = tree;
    for (unsigned i = 0; json_is_object(at) && i < OPTS_DEPTH; i++) {
        last = at;
        const char *name = json_string_value(json_object_get(at, "x-lamina-name"));
        if (!name)
            name = json_string_value(json_object_get(at, "filename"));
        if (name)
            return name;
        const json_t *below = json_object_get(at, "file");
        at = below ? below : json_object_get(at, "of");
    }
    if (json_is_string(at))
        return json_string_value(at);
    const char *driver = json_string_value(json_object_get(last, "driver")); /* of a set */
    return driver ? driver : "";
}

int run_name_error(struct open_run *run, const char *name, int rc, struct blk_error *e)
{
    if (e->rc == 0) /* a driver that gave no words */
        err_errno(e, rc, "could not be opened");
    if (run->named)
        return rc;
    run->named = true;
    size_t len = strlen(name);
    if (len && strncmp(e->text, name, len) == 0 && e->text[len] == ':')
        return rc;
    return len ? err_prefix(e, "%.200s", name) : rc;
}

int run_failed(struct open_run *run, const struct blk_driver *d, const char *name, int rc,
               struct blk_error *e)
{
    run_name_error(run, name, rc, e);
    blk_next_after_open(d, name, e);
    return rc;
}

static int tree_bool(const json_t *tree, const char *key, bool *out, struct blk_error *e)
{
    static const struct opt_desc table[] = {{.name = "value", .type = OPT_BOOL}, {0}};
    const json_t *value = json_object_get(tree, key);
    if (!value)
        return 0;
    json_auto_t *one = json_pack("{s:O}", "value", value);
    auto_free struct opts *o = mem_zalloc(sizeof *o);
    if (!one || !o)
        return err_set(e, -ENOMEM, "no memory for options");
    if (opts_parse(table, one, o, NULL) < 0)
        return err_set(e, -EINVAL, "option %s: expected on or off", key);
    *out = opts_bool(o, "value");
    opts_drop(o);
    return 0;
}

/* cache {direct, no-flush, writeback} to one of QEMU's words. */
static int take_cache(const json_t *cache, struct node *n, struct blk_error *e)
{
    bool direct = false, no_flush = false, writeback = true;
    const char *key;
    json_t *value;
    if (!json_is_object(cache))
        return err_set(e, -EINVAL, "option cache: expected cache.direct, cache.no-flush");
    json_object_foreach ((json_t *)cache, key, value)
        if (strcmp(key, "direct") && strcmp(key, "no-flush") && strcmp(key, "writeback"))
            return err_set(e, -EINVAL, "unknown option 'cache.%.60s'", key);
    TRY(tree_bool(cache, "direct", &direct, e));
    TRY(tree_bool(cache, "no-flush", &no_flush, e));
    TRY(tree_bool(cache, "writeback", &writeback, e));
    if (!writeback)
        n->cache = direct ? "directsync" : "writethrough";
    else
        n->cache = direct ? "none" : no_flush ? "unsafe" : "writeback";
    return 0;
}

/* What is understood in every object: into @n, and out of @tree. */
static int take_common(json_t *tree, struct node *n, struct blk_error *e)
{
    bool read_only = false, share = false;
    json_t *cache = json_object_get(tree, "cache");
    if (json_is_object(cache))
        TRY(take_cache(cache, n, e));
    TRY(tree_bool(tree, "read-only", &read_only, e));
    TRY(tree_bool(tree, "force-share", &share, e));
    if (read_only)
        n->flags &= ~(unsigned)BLK_OPEN_WRITE;
    if (share && (n->flags & BLK_OPEN_WRITE))
        return err_set(e, -EINVAL, "force-share=on can only be used with read-only images");
    if (share)
        n->flags |= BLK_OPEN_FORCE_SHARE;
    static const char *const words[] = {"read-only", "force-share", "node-name"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        json_object_del(tree, words[i]);
    if (json_is_object(cache))
        json_object_del(tree, "cache");
    return 0;
}

/* --- one driver
 * ------------------------------------------------------------------------------------- */

static const struct opt_desc *find_option(const struct blk_driver *d, const char *key)
{
    for (const struct opt_desc *o = d->open_options; o && o->name; o++)
        if (strcmp(o->name, key) == 0)
            return o;
    return NULL;
}

/* A child that nobody asked for is a misspelt or senseless option. */
static int check_claimed(struct blk_opener *o, const struct blk_driver *d, struct blk_error *e)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)o->node.tree, key, value) {
        const struct opt_desc *known = find_option(d, key);
        if ((known && known->type != OPT_CHILD && known->type != OPT_CHILDREN) ||
            opts_nests(d->open_options, key))
            continue;
        if (strcmp(key, "driver") == 0 || strncmp(key, "x-lamina-", 9) == 0 ||
            json_object_get(o->claimed, key) || (known && json_is_null(value)))
            continue;
        return err_set(e, -EINVAL, "the driver %s has no option '%.60s'", d->name, key);
    }
    return 0;
}

static int reserve_opened(struct open_run *run, size_t *slot)
{
    struct blk_device **grown =
        mem_resize(run->opened, (run->opened_count + 1) * sizeof *run->opened);
    if (!grown)
        return -ENOMEM;
    run->opened = grown;
    *slot = run->opened_count++;
    grown[*slot] = NULL;
    return 0;
}

static int co_call_driver(struct blk_opener *o, const struct blk_driver *d, const char *name,
                          struct blk_device **out, struct blk_error *e)
{
    struct open_run *run = o->run;
    size_t slot = 0;
    if (d->co_opened && reserve_opened(run, &slot) < 0)
        return err_set(e, -ENOMEM, "no memory to open a device");
    TRY(co_blk_open(d, name, o->node.tree, o->node.flags, o, NULL, 0, out, e));
    int rc = check_claimed(o, d, e);
    if (rc < 0) {
        co_blk_close(*out, NULL);
        *out = NULL;
        return rc;
    }
    references_adopt(o, *out);
    if (d->co_opened)
        run->opened[slot] = blk_ref(*out);
    return 0;
}

int co_driver_open(struct open_run *run, const struct node *n, const struct blk_driver *d,
                   struct blk_device *file, struct blk_device **out, struct blk_error *e)
{
    struct blk_opener *o = mem_zalloc(sizeof *o);
    json_t *claimed = json_object();
    if (!o || !claimed) {
        mem_free(o);
        json_decref(claimed);
        co_blk_close(file, NULL);
        return err_set(e, -ENOMEM, "no memory to open a device");
    }
    *o = (struct blk_opener){.run = run, .node = *n, .file = file, .claimed = claimed};
    const char *name = tree_name(n->tree);
    int rc = co_call_driver(o, d, name, out, e);
    if (rc < 0 && !run->rule->face && strcmp(d->name, "file") != 0)
        run_failed(run, d, name, rc, e);
    co_blk_close(o->file, NULL);
    references_drop(o->first);
    json_decref(o->claimed);
    mem_free(o);
    return rc;
}

/* --- the file at the bottom
 * ------------------------------------------------------------------------------------- */

static int set_word(json_t *tree, const char *key, json_t *value)
{
    return json_object_set_new_nocheck(tree, key, value) < 0 ? -ENOMEM : 0;
}

/* What the resolver tells the file driver. */
static int file_words(const struct node *n, const struct blk_driver *d, json_t *tree)
{
    if (n->create)
        TRY(set_word(tree, "x-lamina-create", json_integer(n->create)));
    if (n->cache && find_option(d, "cache") && !json_object_get(tree, "cache"))
        TRY(set_word(tree, "cache", json_string(n->cache)));
    return 0;
}

/* Before a lock could say less clearly what a cycle is. A name that cannot be looked at is left to
 * the driver's open. */
static int co_check_cycle(struct open_run *run, const struct node *n, const char *name,
                          struct blk_error *e)
{
    struct host_stat st;
    if (!n->link->parent || co_host_stat(run->r->host, name, &st) < 0)
        return 0;
    return link_check_cycle(n->link, &st, name, e);
}

static int note_file(struct link *l, const char *name, struct blk_device *dev, struct blk_error *e)
{
    if (dev->file && !l->has_id) {
        TRY(link_check_cycle(l, &dev->file->stat, name, e));
        l->has_id = true;
        l->device = dev->file->stat.device;
        l->inode = dev->file->stat.inode;
    }
    if (!l->file_name)
        l->file_name = mem_strdup(name);
    return l->file_name ? 0 : err_set(e, -ENOMEM, "no memory to open a file");
}

static int co_file_device(struct open_run *run, const struct node *n, const struct blk_driver *d,
                          const char *name, struct blk_device **out, struct blk_error *e)
{
    json_auto_t *tree = json_copy((json_t *)n->tree);
    if (!tree || file_words(n, d, tree) < 0)
        return err_set(e, -ENOMEM, "no memory to open a file");
    struct node with_words = *n;
    with_words.tree = tree;
    TRY(co_check_cycle(run, n, name, e));
    TRY(co_driver_open(run, &with_words, d, NULL, out, e));
    int rc = note_file(n->link, name, *out, e);
    if (rc < 0) {
        co_blk_close(*out, NULL);
        *out = NULL;
    }
    return rc;
}

/* The file driver speaks QEMU's words: "Could not open 'X': why". Under lamina's own name that is
 * "X: why". */
static int file_error(struct open_run *run, const struct node *n, const char *name, int rc,
                      struct blk_error *e)
{
    auto_free char *said = mem_printf("Could not open '%s': ", name);
    size_t len = said && strncmp(e->text, said, strlen(said)) == 0 ? strlen(said) : 0;
    if (len)
        memmove(e->text, e->text + len, strlen(e->text + len) + 1);
    if (!run->rule->face)
        return run_name_error(run, name, rc, e);
    return len ? err_prefix(e, "Could not %s '%.200s'", n->create ? "create" : "open", name) : rc;
}

static int co_file_open(struct open_run *run, const struct node *n, const struct blk_driver *d,
                        struct blk_device **out, struct blk_error *e)
{
    const char *filename = json_string_value(json_object_get(n->tree, "filename"));
    if (!filename || !*filename)
        return err_set(e, -EINVAL, "The 'file' block driver requires a file name");
    const char *name = tree_name(n->tree);
    int rc = co_file_device(run, n, d, name, out, e);
    return rc < 0 ? file_error(run, n, name, rc, e) : 0;
}

/* --- any object
 * ------------------------------------------------------------------------------------- */

static int co_probed_open(struct open_run *run, const struct node *n, struct blk_device **out,
                          struct blk_error *e)
{
    struct node below = *n;
    below.tree = json_object_get(n->tree, "file");
    below.bottom = true;
    if (!below.tree)
        return err_set(e, -EINVAL, "the options name neither a driver nor a file");
    struct blk_device *file = NULL;
    const struct blk_driver *d = NULL;
    const char *reason = "";
    TRY(co_node_open(run, &below, &file, e));
    const char *name = tree_name(n->tree);
    int rc = co_resolver_probe(run->r, file, &d, &reason, e);
    if (rc == 0)
        rc = trust_probed(run, n, name, d, reason, e);
    json_auto_t *tree = rc == 0 ? json_copy((json_t *)n->tree) : NULL;
    if (rc == 0)
        rc = set_word(tree, "driver", json_string(d->name));
    if (rc == 0 && run->rule->probe == PROBE_QEMU && strcmp(d->name, "raw") == 0)
        rc = set_word(tree, "x-lamina-probed", json_true());
    if (rc < 0) {
        co_blk_close(file, NULL);
        return run->rule->face ? rc : run_name_error(run, name, rc, e);
    }
    struct node as = *n;
    as.tree = tree;
    return co_driver_open(run, &as, d, file, out, e);
}

/* In the faces a backing file /dev/null means an empty disk: libvirt writes so. */
static int co_empty_open(struct open_run *run, const struct node *n, struct blk_device **out,
                         struct blk_error *e)
{
    const struct blk_driver *d = blk_find_driver(run->r->drivers, "null");
    json_auto_t *tree = json_pack("{s:i, s:s}", "size", 0, "x-lamina-name", "/dev/null");
    if (!d || !tree)
        return err_set(e, -ENOMEM, "no memory to open a device");
    struct node empty = *n;
    empty.tree = tree;
    return co_driver_open(run, &empty, d, NULL, out, e);
}

static bool is_dev_null(const struct open_run *run, const struct node *n)
{
    const char *filename = json_string_value(json_object_get(n->tree, "filename"));
    return run->rule->face && filename && strcmp(filename, "/dev/null") == 0;
}

static int co_object_open(struct open_run *run, struct node *n, struct blk_device **out,
                          struct blk_error *e)
{
    const char *name = json_string_value(json_object_get(n->tree, "driver"));
    if (!name && n->bottom)
        name = "file";
    if (!name)
        return co_probed_open(run, n, out, e);
    if (strcmp(name, "inner") == 0)
        return co_inner_node_open(run, n, out, e);
    if (strcmp(name, "host_device") == 0)
        name = "file";
    const struct blk_driver *d = blk_find_driver(run->r->drivers, name);
    if (!d)
        return unknown_driver(run, name, e);
    if (strcmp(name, "file") != 0)
        return co_driver_open(run, n, d, NULL, out, e);
    return is_dev_null(run, n) ? co_empty_open(run, n, out, e) : co_file_open(run, n, d, out, e);
}

/* A top object that names its file directly means that file under a format to be probed. */
static int lift_filename(json_t *tree)
{
    json_t *filename = json_object_get(tree, "filename");
    if (!filename || json_object_get(tree, "driver"))
        return 0;
    const json_t *given = json_object_get(tree, "file");
    json_t *file = given ? json_copy((json_t *)given) : json_object(); /* the caller's stays */
    if (json_object_set_new(tree, "file", file) < 0)
        return -ENOMEM;
    if (!json_is_object(file) || json_object_set(file, "filename", filename) < 0)
        return -EINVAL;
    json_object_del(tree, "filename");
    return 0;
}

static int co_tree_open(struct open_run *run, const struct node *n, json_t *tree,
                        struct blk_device **out, struct blk_error *e)
{
    struct node own = *n;
    int rc = take_common(tree, &own, e);
    if (rc == 0 && !n->bottom && lift_filename(tree) < 0)
        rc = err_set(e, -EINVAL, "option filename: a file is named already");
    own.tree = tree;
    return rc < 0 ? rc : co_object_open(run, &own, out, e);
}

static int co_text_open(struct open_run *run, const struct node *n, struct blk_device **out,
                        struct blk_error *e)
{
    json_t *parsed = NULL;
    TRY(co_parse_spec(run->r, json_string_value(n->tree), false, &parsed, e));
    struct node as = *n;
    as.tree = parsed;
    if (n->bottom && !json_object_get(parsed, "driver") && json_object_get(parsed, "file"))
        as.tree = json_object_get(parsed, "file");
    int rc = json_is_object(as.tree) ? co_node_open(run, &as, out, e)
                                     : err_set(e, -EINVAL, "expected a device as an object");
    json_decref(parsed);
    return rc;
}

static int co_node_here(struct open_run *run, const struct node *n, struct blk_device **out,
                        struct blk_error *e)
{
    if (json_is_string(n->tree))
        return co_text_open(run, n, out, e);
    if (!json_is_object(n->tree))
        return err_set(e, -EINVAL, "expected a device as an object or a text");
    json_t *tree = json_copy((json_t *)n->tree);
    if (!tree)
        return err_set(e, -ENOMEM, "no memory to open a device");
    int rc = co_tree_open(run, n, tree, out, e);
    json_decref(tree);
    return rc;
}

struct other_stack {
    struct open_run *run;
    const struct node *node;
    struct blk_device **out;
    struct blk_error *error;
    struct co *waiter; /* NULL: not asleep */
    bool done;
    int rc;
};

static void co_on_other_stack(void *arg)
{
    struct other_stack *s = arg;
    s->rc = co_node_here(s->run, s->node, s->out, s->error);
    s->done = true;
    if (s->waiter)
        co_wake(s->waiter);
}

int co_node_open(struct open_run *run, const struct node *n, struct blk_device **out,
                 struct blk_error *e)
{
    if (co_stack_left() >= STACK_FOR_OPEN)
        return co_node_here(run, n, out, e);
    struct other_stack s = {.run = run, .node = n, .out = out, .error = e};
    if (co_start(co_on_other_stack, &s) < 0)
        return err_set(e, -ENOMEM, "no memory to open a device");
    while (!s.done) {
        s.waiter = co_self();
        co_suspend();
    }
    return s.rc;
}

/* --- for drivers
 * ------------------------------------------------------------------------------------- */

static int claim(struct blk_opener *o, const char *key, struct blk_error *e)
{
    if (json_object_set_new_nocheck(o->claimed, key, json_true()) < 0)
        return err_set(e, -ENOMEM, "no memory to open a device");
    return 0;
}

static bool is_bottom_key(const char *key)
{
    return strcmp(key, "file") == 0 || strcmp(key, "data-file") == 0 || strcmp(key, "map") == 0;
}

static int co_add(struct blk_device *dev, const char *role, struct blk_device *child,
                  struct blk_error *e)
{
    int rc = blk_add_child(dev, role, child);
    if (rc == 0)
        return 0;
    co_blk_close(child, NULL);
    return err_set(e, rc, "no memory to open a device");
}

/* What every child inherits: no more rights than its parent, and the caller's general wishes. */
static unsigned child_flags(const struct blk_opener *o, unsigned flags)
{
    if (!(o->node.flags & BLK_OPEN_WRITE))
        flags &= ~(unsigned)BLK_OPEN_WRITE;
    flags &= ~(unsigned)BLK_OPEN_FACTS; /* what stands on it reads it */
    return flags |
           (o->node.flags & (BLK_OPEN_FORCE_SHARE | BLK_OPEN_NO_BACKING | BLK_OPEN_NO_DATA));
}

static int co_open_as(struct blk_opener *o, struct blk_device *dev, const json_t *tree,
                      const char *key, const char *role, unsigned flags, struct blk_error *e)
{
    struct node n = {
        .link = o->node.link,
        .tree = tree,
        .flags = child_flags(o, flags),
        .cache = o->node.cache,
        .bottom = is_bottom_key(key),
        .create = is_bottom_key(key) ? o->node.create : 0,
    };
    if (!n.bottom)
        n.link = link_new(o->run, o->node.link, true);
    if (!n.link)
        return err_set(e, -ENOMEM, "no memory to open a device");
    struct blk_device *child = NULL;
    TRY(co_node_open(o->run, &n, &child, e));
    return co_add(dev, role, child, e);
}

int co_opener_child(struct blk_opener *o, struct blk_device *dev, const char *key,
                    unsigned open_flags, struct blk_error *e)
{
    TRY(claim(o, key, e));
    if (o->file && strcmp(key, "file") == 0)
        return co_add(dev, key, take(o->file), e);
    const json_t *tree = json_object_get(o->node.tree, key);
    if (!tree || json_is_null(tree))
        return err_set(e, -EINVAL,
                       "the driver %s needs \"%s\": a device, or as in %s.filename=FILE",
                       dev->driver->name, key, key);
    return co_open_as(o, dev, tree, key, key, open_flags, e);
}

int co_opener_children(struct blk_opener *o, struct blk_device *dev, const char *key,
                       const char *role, unsigned open_flags, struct blk_error *e)
{
    TRY(claim(o, key, e));
    const json_t *list = json_object_get(o->node.tree, key);
    if (!json_is_array(list) && !json_is_object(list))
        return err_set(e, -EINVAL, "the driver %s needs a list \"%s\"", dev->driver->name, key);
    size_t count = json_is_array(list) ? json_array_size(list) : json_object_size(list);
    for (size_t i = 0; i < count; i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        const json_t *tree =
            json_is_array(list) ? json_array_get(list, i) : json_object_get(list, number);
        if (!tree)
            return err_set(e, -EINVAL, "the list \"%s\" has no member %zu", key, i);
        TRY(co_open_as(o, dev, tree, key, role, open_flags, e));
    }
    return 0;
}

bool opener_has(const struct blk_opener *o, const char *key)
{
    bool has = json_object_get(o->node.tree, key) != NULL;
    if (has && json_is_null(json_object_get(o->node.tree, key)) &&
        json_object_set_new_nocheck(o->claimed, key, json_true()) < 0)
        return has; /* then it is refused as unknown: no memory is an error too */
    return has;
}

struct resolver *opener_resolver(const struct blk_opener *o)
{
    return o ? o->run->r : NULL;
}

void opener_say(const struct blk_opener *o, const char *fmt, ...)
{
    char sentence[sizeof(((struct blk_error *)0)->text)];
    va_list ap;
    if (!o || !o->run->r->say || o->run->rule->face)
        return;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, ap);
    va_end(ap);
    o->run->r->say(o->run->r, sentence);
}

const char *opener_file_name(const struct blk_opener *o)
{
    return o->node.link->file_name;
}

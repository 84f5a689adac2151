/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver_chain.c - what images refer to.
 *
 * A driver that finds a reference in its image asks for it in open() and goes on: the reference is
 * put on a list. When open() has returned, the run opens the list from its front; each image opened
 * so may put its own reference at the end. So a chain is opened top to bottom by a loop, whatever
 * its length, on one stack. When the list is empty, every device that wants to know hears
 * co_opened(), those below before those above. */
#include "block/resolver_private.h"

struct reference {
    struct reference *next;
    struct blk_device *dev; /* whose it is; held by a reference once its open() has returned */
    const char *role;
    char *text, *format; /* as the image says; text NULL: @tree instead */
    json_t *tree;        /* the caller's own choice */
    struct link *from;
    unsigned flags;
    const char *cache;
};

/* --- links
 * ------------------------------------------------------------------------------------- */

struct link *link_new(struct open_run *run, struct link *parent, bool named)
{
    struct link *l = mem_zalloc(sizeof *l);
    if (!l)
        return NULL;
    l->parent = parent;
    l->root = named ? l : parent->root;
    l->depth = parent ? parent->depth + 1 : 0;
    l->next_of_run = run->links;
    run->links = l;
    return l;
}

void links_drop(struct open_run *run)
{
    while (run->links) {
        struct link *l = run->links;
        run->links = l->next_of_run;
        mem_free(l->file_name);
        mem_free(l->real_dir);
        mem_free(l);
    }
}

static int circle(const char *name, const char *again, struct blk_error *e)
{
    err_set(e, -ELOOP, "the chain of images is a circle: '%.200s' is '%.200s' again", name, again);
    blk_next(e, "`lamina rebase -u -b BASE -F FORMAT FILE` gives FILE the backing file BASE",
             again);
    return -ELOOP;
}

int link_check_cycle(const struct link *l, const struct host_stat *id, const char *name,
                     struct blk_error *e)
{
    for (const struct link *at = l->parent; at; at = at->parent)
        if (at->has_id && at->device == id->device && at->inode == id->inode)
            return circle(name, at->file_name, e);
    return 0;
}

/* --- asking
 * ------------------------------------------------------------------------------------- */

static void reference_free(struct reference *ref)
{
    json_decref(ref->tree);
    mem_free(ref->text);
    mem_free(ref->format);
    mem_free(ref);
}

void references_drop(struct reference *first)
{
    while (first) {
        struct reference *next = first->next;
        if (first->dev)
            co_blk_close(first->dev, NULL);
        reference_free(first);
        first = next;
    }
}

void references_adopt(struct blk_opener *o, struct blk_device *dev)
{
    if (!o->first)
        return;
    for (struct reference *ref = o->first; ref; ref = ref->next)
        ref->dev = blk_ref(dev);
    if (o->run->last)
        o->run->last->next = o->first;
    else
        o->run->first = o->first;
    o->run->last = o->last;
    o->first = o->last = NULL;
}

/* No more rights than the image itself has; what lies behind it is only read. */
static unsigned reference_flags(const struct blk_opener *o, const char *role, unsigned flags)
{
    bool behind = strcmp(role, "backing") == 0 || strcmp(role, "parent") == 0;
    if (behind || !(o->node.flags & BLK_OPEN_WRITE))
        flags &= ~(unsigned)BLK_OPEN_WRITE;
    flags &= ~(unsigned)BLK_OPEN_FRESH;
    if (o->run->r->force_share && !(flags & BLK_OPEN_WRITE))
        flags |= BLK_OPEN_FORCE_SHARE;
    return flags;
}

static int ask(struct blk_opener *o, struct reference what, const char *text, const char *format,
               struct blk_error *e)
{
    struct reference *ref = mem_alloc(sizeof *ref);
    if (ref) {
        *ref = what;
        ref->text = text ? mem_strdup(text) : NULL;
        ref->format = format ? mem_strdup(format) : NULL;
        json_incref(ref->tree);
    }
    if (!ref || (text && !ref->text) || (format && !ref->format)) {
        if (ref)
            reference_free(ref);
        return err_set(e, -ENOMEM, "no memory to open a device");
    }
    if (o->last)
        o->last->next = ref;
    else
        o->first = ref;
    o->last = ref;
    return 0;
}

static int refuse_all(const char *role, const char *reference, struct blk_error *e)
{
    return err_set(e, -EACCES, "its %s '%.200s' is not opened", role_words(role), reference);
}

int co_opener_reference(struct blk_opener *o, struct blk_device *dev, const char *role,
                        const char *reference, const char *format, unsigned open_flags,
                        struct blk_error *e)
{
    struct reference ref = {
        .role = role,
        .from = o->node.link,
        .flags = reference_flags(o, role, open_flags & ~(unsigned)BLK_OPEN_PART),
        .cache = o->node.cache,
    };
    if (opener_has(o, role)) {
        if (json_object_set_new_nocheck(o->claimed, role, json_true()) < 0)
            return err_set(e, -ENOMEM, "no memory to open a device");
        ref.tree = json_object_get(o->node.tree, role);
        return json_is_null(ref.tree) ? 0 : ask(o, ref, NULL, NULL, e);
    }
    bool part = open_flags & BLK_OPEN_PART && !(o->node.flags & BLK_OPEN_NO_DATA);
    bool other = (open_flags | o->node.flags) & BLK_OPEN_NO_BACKING && !part;
    if (o->run->rule->refs == REFS_NONE || other)
        return refuse_all(role, reference, e);
    if (o->node.link->depth >= LINKS_MAX)
        return err_set(e, -ELOOP, "the chain of images is longer than %d", LINKS_MAX);
    return ask(o, ref, reference, format && *format ? format : NULL, e);
}

/* --- opening
 * ------------------------------------------------------------------------------------- */

static int co_attach(struct open_run *run, struct reference *ref, const json_t *tree,
                     struct blk_error *e)
{
    struct node n = {
        .tree = tree,
        .flags = ref->flags,
        .cache = ref->cache,
        .bottom = strncmp(ref->role, "data", 4) == 0 && !ref->format,
        .link = link_new(run, ref->from, ref->text == NULL),
    };
    if (!n.link)
        return err_set(e, -ENOMEM, "no memory to open a device");
    if (n.bottom && !json_object_get(tree, "driver") && json_object_get(tree, "file"))
        n.tree = json_object_get(tree, "file");
    struct blk_device *child = NULL;
    TRY(co_node_open(run, &n, &child, e));
    int rc = blk_add_child(ref->dev, ref->role, child);
    if (rc == 0)
        return 0;
    co_blk_close(child, NULL);
    return err_set(e, rc, "no memory to open a device");
}

static int co_reference_open(struct open_run *run, struct reference *ref, struct blk_error *e)
{
    json_t *tree = json_incref(ref->tree);
    int rc =
        tree ? 0 : co_trust_locate(run, ref->from, ref->role, ref->text, ref->format, &tree, e);
    if (rc == 0)
        rc = co_attach(run, ref, tree, e);
    json_decref(tree);
    return rc;
}

/* As QEMU says it, once for each image on the way down; lamina's own name says it once. */
static void say_where(struct open_run *run, const struct reference *ref, struct blk_error *e)
{
    const struct link *top = ref->from;
    if (run->rule->face) {
        bool backing = strcmp(ref->role, "backing") == 0;
        for (const struct link *l = ref->from; l; l = l->parent)
            if (strlen(e->text) < sizeof e->text / 2)
                err_prefix(e, "Could not open %s", backing ? "backing file" : ref->role);
        return;
    }
    if (e->rc == -ENOENT && ref->from->file_name)
        blk_next(e,
                 strcmp(ref->role, "backing") == 0
                     ? "put it where it is looked for, or tell the image where it is now: `lamina "
                       "rebase -u -b BACKING -F FORMAT FILE`"
                     : "put it back where it is looked for; FILE is of no use without it",
                 ref->from->file_name);
    while (top->parent)
        top = top->parent;
    err_prefix(e, "%s", role_words(ref->role));
    run->named = top->file_name != NULL;
    if (top->file_name)
        err_prefix(e, "%.200s", top->file_name);
}

int co_references_open(struct open_run *run, struct blk_error *e)
{
    int rc = 0;
    while (rc == 0 && run->first) {
        struct reference *ref = run->first;
        run->first = ref->next;
        if (!run->first)
            run->last = NULL;
        if (ref->dev->refs > 1) { /* else its parent gave it up */
            rc = co_reference_open(run, ref, e);
            if (rc < 0)
                say_where(run, ref, e);
        }
        co_blk_close(ref->dev, NULL);
        reference_free(ref);
    }
    return rc;
}

int co_run_opened(struct open_run *run, struct blk_error *e)
{
    for (size_t i = run->opened_count; i-- > 0;) {
        struct blk_device *dev = run->opened[i];
        if (!dev || dev->refs == 1)
            continue;
        int rc = dev->driver->co_opened(dev, e);
        if (rc < 0)
            return run->rule->face ? rc : run_failed(run, dev->driver, dev->name, rc, e);
        run->opened[i] = NULL;
        co_blk_close(dev, NULL); /* the run's reference */
    }
    return 0;
}

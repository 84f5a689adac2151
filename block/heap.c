/* SPDX-License-Identifier: BSD-3-Clause */
/* heap.c - finds what is inside a heap of files (heap.h).
 *
 * Nothing here knows a format: who holds devices lists them, who has sets says who is a member, and
 * what recognises containers by their contents is asked by the resolver. */
#include <stdio.h>
#include <stdlib.h>

#include "block/ddrescue.h"
#include "block/heap.h"

#define ITEMS_MAX 4096
#define DEPTH_MAX 16 /* of //, as in a spec: a partition may hold the very table that lists it */

static int no_memory(struct blk_error *e)
{
    return err_set(e, -ENOMEM, "out of memory");
}

/* Takes the texts, also on failure. Gives its index. */
static int add_item(struct heap *h, char *spec, char *name, const char *kind, size_t parent,
                    struct blk_error *e)
{
    struct heap_item *grown = NULL;
    char *copy = mem_strdup(kind);
    if (spec && name && copy && h->count < ITEMS_MAX)
        grown = mem_resize(h->items, (h->count + 1) * sizeof(*grown));
    if (!grown) {
        mem_free(spec);
        mem_free(name);
        mem_free(copy);
        return h->count < ITEMS_MAX
                   ? no_memory(e)
                   : err_set(e, -E2BIG,
                             "more than %d devices cannot be looked at together: name fewer",
                             ITEMS_MAX);
    }
    h->items = grown;
    unsigned depth = parent == HEAP_NONE ? 0 : grown[parent].depth + 1;
    grown[h->count] = (struct heap_item){.spec = spec,
                                         .name = name,
                                         .kind = copy,
                                         .parent = parent,
                                         .set = HEAP_NONE,
                                         .depth = depth};
    return (int)h->count++;
}

/* --- files -------------------------------------------------------------------------------------
 */

/* Opens @spec; @shown is what it is called then. */
static int co_add_as(struct heap *h, const char *spec, const char *shown, const char *name,
                     struct blk_error *e)
{
    int at = add_item(h, mem_strdup(shown), mem_strdup(name), "file", HEAP_NONE, e);
    TRY(at);
    struct heap_item *i = &h->items[at];
    int rc = co_resolver_open(h->r, spec, NULL, h->flags, &i->dev, &i->error);
    i = &h->items[at];
    if (rc == -EINVAL && i->error.text[0]) { /* it may hold disks and be none: its facts are read */
        struct blk_error none;
        if (co_resolver_open(h->r, spec, NULL, BLK_OPEN_FACTS, &i->dev, &none) == 0)
            i->error = (struct blk_error){0};
    }
    i->bytes = i->dev ? i->dev->size : 0;
    return rc == -ENOMEM ? rc : 0;
}

int co_heap_add(struct heap *h, const char *spec, struct blk_error *e)
{
    const char *slash = strrchr(spec, '/');
    return co_add_as(h, spec, spec, slash && slash[1] ? slash + 1 : spec, e);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool co_is_file(struct host *host, const char *path)
{
    struct host_stat st;
    return co_host_stat(host, path, &st) == 0 &&
           (st.type == HOST_FILE_REGULAR || st.type == HOST_FILE_BLOCK);
}

/* Is it a map of ddrescue's? */
static bool co_is_map(struct host *host, const char *path)
{
    char head[64];
    struct host_file *file;
    if (!co_is_file(host, path) || co_host_open(host, path, NULL, HOST_READ, &file) < 0)
        return false;
    struct vec v = VEC_BUF(head, sizeof(head));
    int64_t n = co_host_read(file, 0, &v);
    co_host_close(file);
    return n > 0 && ddrescue_is_map(head, (size_t)n);
}

/* @text with each comma doubled, as options have it. NULL: no memory. */
static char *double_commas(const char *text)
{
    char *out = mem_alloc(2 * strlen(text) + 1), *to = out;
    for (; out && *text; text++) {
        *to++ = *text;
        if (*text == ',')
            *to++ = ',';
    }
    if (out)
        *to = '\0';
    return out;
}

bool co_heap_is_disk(struct host *host, const char *path)
{
    return co_is_file(host, path) && !co_is_map(host, path);
}

int co_heap_rescue_spec(struct host *host, const char *path, char **out)
{
    auto_free char *map = mem_printf("%s.map", path);
    *out = NULL;
    if (!map)
        return -ENOMEM;
    if (!co_is_map(host, map))
        return 0;
    auto_free char *file = double_commas(path), *with = double_commas(map);
    *out = file && with ? mem_printf("driver=ddrescue,file=%s,map=%s", file, with) : NULL;
    return *out ? 0 : -ENOMEM;
}

static int co_add_file(struct heap *h, const char *folder, const char *name, struct blk_error *e)
{
    auto_free char *path = mem_printf("%s/%s", folder, name), *spec = NULL;
    if (!path)
        return no_memory(e);
    if (*name == '.' || !co_heap_is_disk(h->r->host, path))
        return 0;
    if (co_heap_rescue_spec(h->r->host, path, &spec) < 0)
        return no_memory(e);
    if (!spec)
        return co_heap_add(h, path, e);
    auto_free char *shown = mem_printf("dir:%s//%s", folder, name);
    return shown ? co_add_as(h, spec, shown, name, e) : no_memory(e);
}

int co_heap_add_folder(struct heap *h, const char *folder, struct blk_error *e)
{
    char **names;
    size_t count;
    int rc = co_host_list(h->r->host, folder, &names, &count);
    if (rc < 0)
        return err_errno(e, rc, "%s", folder);
    if (count)
        qsort(names, count, sizeof(*names), by_name);
    for (size_t i = 0; i < count; i++) {
        if (rc >= 0)
            rc = co_add_file(h, folder, names[i], e);
        mem_free(names[i]);
    }
    mem_free(names);
    return rc;
}

/* --- what is inside ----------------------------------------------------------------------------
 */

/* PARENT//NAME, or as a tree where the parent is written as one. What is in a set of a folder that
 * is no disk itself needs no name of that: dir:FOLDER//VG/LV. */
static char *inner_spec(const struct heap *h, const struct heap_item *in, const char *name)
{
    const char *parent = in->spec;
    if (h->folder && in->dev && in->dev->driver->only_inner && strncmp(parent, "dir:", 4) == 0)
        return mem_printf("dir:%s//%s", h->folder, name);
    bool is_tree = strncmp(parent, "json:", 5) == 0;
    if (!is_tree && strncmp(parent, "driver=", 7) != 0)
        return mem_printf("%s//%s", parent, name);
    json_t *of = is_tree ? json_loads(parent + 5, 0, NULL) : json_from_text(parent);
    json_auto_t *tree =
        json_pack("{s:s, s:o, s:o}", "driver", "inner", "name", json_from_text(name), "of", of);
    char *text = tree ? json_dumps(tree, JSON_COMPACT) : NULL;
    char *spec = text ? mem_printf("json:%s", text) : NULL;
    free(text);
    return spec;
}

/* Snapshots are as many as there were days: they are listed, not looked into. */
static bool is_opened(const struct blk_inner *inner)
{
    return strcmp(inner->kind, "snapshot") != 0 && strcmp(inner->kind, "pool") != 0;
}

static int co_add_inner(struct heap *h, size_t parent, struct blk_device *container,
                        const struct blk_inner *inner, struct blk_error *e)
{
    int at = add_item(h, inner_spec(h, &h->items[parent], inner->name), mem_strdup(inner->name),
                      inner->kind, parent, e);
    TRY(at);
    struct heap_item *i = &h->items[at];
    i->bytes = inner->bytes;
    if (!is_opened(inner))
        return 0;
    struct blk_device *dev = NULL;
    struct blk_error why = {0};
    int rc = co_blk_inner_open(container, inner->name, &dev, &why);
    i = &h->items[at];
    i->error = why;
    i->dev = rc == 0 ? dev : NULL;
    i->bytes = dev ? dev->size : inner->bytes;
    return rc == -ENOMEM ? rc : 0;
}

static int co_add_all_inner(struct heap *h, size_t parent, struct blk_device *container,
                            struct blk_error *e)
{
    struct blk_inner *list;
    size_t count;
    int rc = co_blk_inner_list(container, &list, &count, &h->items[parent].error);
    if (rc < 0)
        return rc == -ENOMEM ? rc : 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = co_add_inner(h, parent, container, &list[i], e);
    blk_inner_drop(list, count);
    return rc;
}

/* Is it a member of a set? Then nobody looks into it but the set. */
static int co_ask_member(struct heap *h, size_t at, struct blk_error *e)
{
    for (const struct blk_driver *const *d = h->r->drivers; *d; d++) {
        struct blk_member m;
        struct blk_error none;
        int rc = co_blk_member_of(*d, h->items[at].dev, &m, &none);
        if (rc == -ENOMEM)
            return no_memory(e);
        if (rc < 0)
            continue;
        struct heap_item *i = &h->items[at];
        i->member_of = *d;
        i->member = m;
        i->what = mem_strdup(m.what);
        return i->what ? 1 : no_memory(e);
    }
    return 0;
}

static int co_look_into(struct heap *h, size_t at, struct blk_error *e)
{
    struct heap_item *i = &h->items[at];
    struct blk_device *dev = i->dev, *container = NULL;
    i->looked_into = true;
    if (i->depth == DEPTH_MAX)
        return 0;
    if (i->container)
        return co_add_all_inner(h, at, i->container, e);
    if (!dev)
        return 0;
    if (dev->driver->co_inner_list)
        TRY(co_add_all_inner(h, at, dev, e));
    if (dev->driver->only_inner)
        return 0;
    int rc = co_ask_member(h, at, e);
    if (rc != 0)
        return MIN(rc, 0);
    struct blk_error why = {0};
    rc = co_resolver_container(h->r, dev, &container, &why);
    if (rc == -ENOMEM)
        return no_memory(e);
    if (rc < 0) {
        if (rc != -ENOENT)
            h->items[at].error = why;
        return 0;
    }
    h->items[at].container = container;
    return co_add_all_inner(h, at, container, e);
}

/* --- sets --------------------------------------------------------------------------------------
 */

static bool waits(const struct heap_item *i)
{
    return i->member_of && i->set == HEAP_NONE;
}

/* Does @i go into the set that @first is a member of? */
static bool goes_with(const struct heap_item *i, const struct heap_item *first)
{
    return waits(i) && i->member_of == first->member_of &&
           (!i->member.set[0] || strcmp(i->member.set, first->member.set) == 0);
}

static size_t members_of(const struct heap *h, const struct heap_item *first)
{
    size_t n = 0;
    for (size_t k = 0; k < h->count; k++)
        n += goes_with(&h->items[k], first) && h->items[k].member.set[0];
    return n;
}

/* A member of the set that is to be opened next: one that is whole, else one that lacks least.
 * HEAP_NONE: there is none. */
static size_t next_set(const struct heap *h)
{
    size_t best = HEAP_NONE;
    uint64_t least = UINT64_MAX;
    for (size_t k = 0; k < h->count; k++) {
        const struct heap_item *i = &h->items[k];
        if (!waits(i) || !i->member.set[0])
            continue;
        uint64_t there = members_of(h, i);
        uint64_t lacks = i->member.wanted > there ? i->member.wanted - there : 0;
        if (lacks < least) {
            least = lacks;
            best = k;
        }
    }
    return best;
}

static unsigned levels_of(const char *spec)
{
    unsigned n = 0;
    for (const char *s = spec; (s = strstr(s, "//")); s += 2)
        n++;
    return n;
}

/* Can the specs of the members stand in DRIVER:MEMBER,MEMBER? Only names without what means
 * something there, and all of as many levels of // (spec_set.c). */
static bool members_are_plain(const struct heap *h, size_t set)
{
    size_t n = 0;
    unsigned levels = 0;
    for (size_t k = 0; k < h->count; k++) {
        const char *spec = h->items[k].spec;
        if (h->items[k].set != set)
            continue;
        if (strpbrk(spec, ",{=:") || (n > 0 && levels != levels_of(spec)))
            return false;
        levels = levels_of(spec);
        n++;
    }
    return n > 1 || levels == 0;
}

/* The specs of the members, separated by commas. NULL: no memory. */
static char *join_members(const struct heap *h, size_t set)
{
    char *text = mem_strdup("");
    for (size_t k = 0; text && k < h->count; k++) {
        if (h->items[k].set != set)
            continue;
        char *more = mem_printf("%s%s%s", text, *text ? "," : "", h->items[k].spec);
        mem_free(text);
        text = more;
    }
    return text;
}

static char *spec_as_tree(const struct heap *h, size_t set, const char *driver)
{
    json_t *members = json_array();
    for (size_t k = 0; members && k < h->count; k++)
        if (h->items[k].set == set)
            json_array_append_new(members, json_from_text(h->items[k].spec));
    json_auto_t *tree = json_pack("{s:s, s:o}", "driver", driver, "members", members);
    char *text = tree ? json_dumps(tree, JSON_COMPACT) : NULL;
    char *spec = text ? mem_printf("json:%s", text) : NULL;
    free(text);
    return spec;
}

static char *spec_of_set(const struct heap *h, size_t set, const char *driver)
{
    if (h->folder)
        return mem_printf("dir:%s//%s", h->folder, h->items[set].name);
    if (!members_are_plain(h, set))
        return spec_as_tree(h, set, driver);
    auto_free char *members = join_members(h, set);
    return members ? mem_printf("%s:%s", driver, members) : NULL;
}

/* Opens the set over the devices of its members. */
static int co_open_set(struct heap *h, size_t set, const struct blk_driver *d, struct blk_error *e)
{
    struct blk_child *children = mem_array(MAX(h->count, 1), sizeof(*children));
    struct blk_device *dev = NULL;
    struct blk_error why = {0};
    size_t n = 0;
    if (!children)
        return no_memory(e);
    for (size_t k = 0; k < h->count; k++)
        if (h->items[k].set == set)
            children[n++] = (struct blk_child){"member", blk_ref(h->items[k].dev)};
    unsigned flags = h->flags & (BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE);
    int rc = co_blk_open(d, h->items[set].name, NULL, flags, NULL, children, n, &dev, &why);
    mem_free(children);
    struct heap_item *s = &h->items[set];
    s->error = why;
    s->dev = rc == 0 ? dev : NULL;
    s->bytes = s->dev ? s->dev->size : 0;
    return rc == -ENOMEM ? no_memory(e) : 0;
}

static int co_make_set(struct heap *h, size_t first, struct blk_error *e)
{
    const struct heap_item model = h->items[first];
    const struct blk_driver *d = model.member_of;
    const char *name = model.member.name[0] ? model.member.name : d->name;
    int set = add_item(h, mem_strdup(""), mem_strdup(name), d->name, HEAP_NONE, e);
    TRY(set);
    for (size_t k = 0; k < h->count; k++)
        if ((int)k != set && goes_with(&h->items[k], &model))
            h->items[k].set = (size_t)set;
    mem_free(h->items[set].spec);
    h->items[set].spec = spec_of_set(h, (size_t)set, d->name);
    return h->items[set].spec ? co_open_set(h, (size_t)set, d, e) : no_memory(e);
}

int co_heap_look(struct heap *h, struct blk_error *e)
{
    for (size_t next = 0;;) {
        for (; next < h->count; next++)
            if (!h->items[next].looked_into)
                TRY(co_look_into(h, next, e));
        size_t first = next_set(h);
        if (first == HEAP_NONE)
            return 0;
        TRY(co_make_set(h, first, e));
    }
}

/* --- what stands on what -----------------------------------------------------------------------
 */

bool heap_stands_on(const struct heap *h, size_t x, size_t y)
{
    if (x == y)
        return true;
    if (h->items[x].parent != HEAP_NONE)
        return heap_stands_on(h, h->items[x].parent, y);
    for (size_t k = 0; k < h->count; k++)
        if (h->items[k].set == x && heap_stands_on(h, k, y))
            return true;
    return false;
}

static void co_close_item(struct heap_item *i)
{
    co_blk_close(take(i->container), NULL);
    co_blk_close(take(i->dev), NULL);
}

void co_heap_close_above(struct heap *h, size_t at)
{
    for (size_t k = h->count; k-- > 0;)
        if (k != at && heap_stands_on(h, k, at))
            co_close_item(&h->items[k]);
}

void co_heap_close(struct heap *h)
{
    for (size_t k = h->count; k-- > 0;) {
        struct heap_item *i = &h->items[k];
        co_close_item(i);
        mem_free(i->spec);
        mem_free(i->name);
        mem_free(i->kind);
        mem_free(i->what);
    }
    mem_free(h->items);
    h->items = NULL;
    h->count = 0;
}

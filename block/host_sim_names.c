/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_names.c - names of the simulator: directories, open, rename, unlink, list, locks.
 *
 * A directory is there as soon as a name in it is; there are no symlinks, and a rename stays within
 * its directory (-EXDEV else), which is all that a program needs that replaces files safely. */
#include <stdlib.h>

#include "block/host_sim_int.h"

/* --- paths -------------------------------------------------------------------------------------
 */

/* Appends the parts of @path to @out, which holds an absolute path without a slash at its end. */
static void append_parts(char *out, const char *path)
{
    while (*path) {
        size_t n = strcspn(path, "/");
        if (n == 2 && memcmp(path, "..", 2) == 0) {
            char *slash = strrchr(out, '/');
            if (slash)
                *slash = 0;
        } else if (n > 0 && !(n == 1 && *path == '.')) {
            size_t at = strlen(out);
            out[at] = '/';
            memcpy(out + at + 1, path, n);
            out[at + 1 + n] = 0;
        }
        path += n + (path[n] == '/');
    }
}

char *sim_normalise(const char *path, const char *beneath)
{
    char *out = calloc(1, strlen(path) + (beneath ? strlen(beneath) : 0) + 3);
    if (!out)
        return NULL;
    if (*path != '/' && beneath)
        append_parts(out, beneath);
    append_parts(out, path);
    if (!*out)
        out[0] = '/';
    return out;
}

static size_t dir_length(const char *path)
{
    return (size_t)(strrchr(path, '/') - path);
}

static const char *base_name(const char *path)
{
    return strrchr(path, '/') + 1;
}

/* --- directories -------------------------------------------------------------------------------
 */

static struct sim_dir *find_dir(const struct sim_host *h, const char *path, size_t length)
{
    for (struct sim_dir *d = h->dirs; d; d = d->next)
        if (strlen(d->path) == length && memcmp(d->path, path, length) == 0)
            return d;
    return NULL;
}

struct sim_dir *sim_dir_get(struct sim_host *h, const char *path, size_t length)
{
    struct sim_dir *d = find_dir(h, path, length);
    if (d)
        return d;
    d = calloc(1, sizeof(*d));
    if (!d || !(d->path = strndup(path, length)))
        abort();
    struct sim_dir **end = &h->dirs;
    while (*end)
        end = &(*end)->next;
    *end = d;
    return d;
}

bool sim_names_copy(struct sim_names *to, const struct sim_names *from)
{
    *to = (struct sim_names){.list = calloc(from->count + 1, sizeof(*to->list))};
    for (; to->list && to->count < from->count; to->count++) {
        to->list[to->count].inode = from->list[to->count].inode;
        if (!(to->list[to->count].name = strdup(from->list[to->count].name)))
            return false;
    }
    return to->list;
}

void sim_names_drop(struct sim_names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->list[i].name);
    free(n->list);
    *n = (struct sim_names){0};
}

/* The place of @name: *found says whether it is there. */
static size_t place_of(const struct sim_names *n, const char *name, bool *found)
{
    size_t at = 0;
    while (at < n->count && strcmp(n->list[at].name, name) < 0)
        at++;
    *found = at < n->count && strcmp(n->list[at].name, name) == 0;
    return at;
}

static void names_remove(struct sim_names *n, const char *name)
{
    bool found;
    size_t at = place_of(n, name, &found);
    if (!found)
        return;
    free(n->list[at].name);
    memmove(n->list + at, n->list + at + 1, (--n->count - at) * sizeof(*n->list));
}

static bool names_set(struct sim_names *n, const char *name, struct sim_inode *inode)
{
    bool found;
    size_t at = place_of(n, name, &found);
    if (found) {
        n->list[at].inode = inode;
        return true;
    }
    struct sim_entry *list = realloc(n->list, (n->count + 1) * sizeof(*list));
    char *copy = strdup(name);
    if (list)
        n->list = list;
    if (!list || !copy) {
        free(copy);
        return false;
    }
    memmove(list + at + 1, list + at, (n->count++ - at) * sizeof(*list));
    list[at] = (struct sim_entry){copy, inode};
    return true;
}

bool sim_names_apply(struct sim_names *n, const struct sim_change *c)
{
    if (c->kind == CHANGE_LINK)
        return names_set(n, c->name, c->target);
    names_remove(n, c->name);
    return c->kind == CHANGE_UNLINK || names_set(n, c->to, c->target);
}

static struct sim_inode *in_dir(const struct sim_dir *d, const char *name)
{
    bool found;
    size_t at = d ? place_of(&d->now, name, &found) : 0;
    return d && found ? d->now.list[at].inode : NULL;
}

struct sim_inode *sim_lookup(const struct sim_host *h, const char *path)
{
    return in_dir(find_dir(h, path, dir_length(path)), base_name(path));
}

struct sim_inode *sim_inode_new(struct sim_host *h)
{
    struct sim_inode *i = calloc(1, sizeof(*i));
    if (!i)
        abort();
    i->number = h->next_inode++;
    if (h->last_inode)
        h->last_inode->next = i;
    else
        h->inodes = i;
    h->last_inode = i;
    return i;
}

/* Contents of a file that nothing can reach any more are given back. */
static void inode_put(struct sim_host *h, struct sim_inode *i)
{
    if (i->names > 0 || i->opens > 0 || h->recording)
        return;
    h->used_pages -= i->now.tree.pages;
    sim_tree_drop(&i->now.tree);
    sim_tree_drop(&i->durable.tree);
    sim_changes_drop(&i->pending);
    i->now.size = i->durable.size = 0;
}

/* A change of names, done at once (the caller let the latency pass). Takes the strings. */
static void change_names(struct sim_host *h, struct sim_dir *d, enum sim_change_kind kind,
                         struct sim_inode *inode, const char *name, const char *to)
{
    struct sim_change *c = sim_change_new(h, kind, NULL, d);
    if (!c || !(c->name = strdup(name)) || (to && !(c->to = strdup(to))))
        abort();
    c->target = inode;
    sim_change_issue(h, c);
    struct sim_inode *replaced = to ? in_dir(d, to) : NULL;
    if (!sim_names_apply(&d->now, c))
        abort();
    inode->names += kind == CHANGE_LINK;
    inode->names -= kind == CHANGE_UNLINK;
    sim_change_done(h, c);
    sim_change_drop(c);
    if (replaced && replaced != inode) {
        replaced->names--;
        inode_put(h, replaced);
    }
    if (kind == CHANGE_UNLINK)
        inode_put(h, inode);
}

int sim_rename(struct host *host, const char *from, const char *to)
{
    struct sim_host *h = sim_of(host);
    int rc = sim_fault_hit(h, SIM_NAMES);
    co_sim_latency(h);
    if (rc < 0)
        return rc;
    char *a = sim_normalise(from, NULL), *b = sim_normalise(to, NULL);
    struct sim_inode *inode = a && b ? sim_lookup(h, a) : NULL;
    if (!a || !b)
        rc = -ENOMEM;
    else if (!inode)
        rc = -ENOENT;
    else if (dir_length(a) != dir_length(b) || memcmp(a, b, dir_length(a)) != 0)
        rc = -EXDEV;
    else if (strcmp(a, b) != 0)
        change_names(h, sim_dir_get(h, a, dir_length(a)), CHANGE_RENAME, inode, base_name(a),
                     base_name(b));
    free(a);
    free(b);
    return rc;
}

int sim_unlink(struct host *host, const char *path)
{
    struct sim_host *h = sim_of(host);
    int rc = sim_fault_hit(h, SIM_NAMES);
    co_sim_latency(h);
    if (rc < 0)
        return rc;
    char *name = sim_normalise(path, NULL);
    struct sim_inode *inode = name ? sim_lookup(h, name) : NULL;
    if (!inode)
        rc = name ? -ENOENT : -ENOMEM;
    else
        change_names(h, sim_dir_get(h, name, dir_length(name)), CHANGE_UNLINK, inode,
                     base_name(name), NULL);
    free(name);
    return rc;
}

int sim_sync_dir(struct host *host, const char *path)
{
    struct sim_host *h = sim_of(host);
    int rc = sim_fault_hit(h, SIM_NAMES);
    char *name = sim_normalise(path, NULL);
    struct sim_dir *d = name ? find_dir(h, name, strcmp(name, "/") ? strlen(name) : 0) : NULL;
    if (rc == 0 && !d)
        rc = name ? -ENOENT : -ENOMEM;
    free(name);
    if (rc < 0) {
        co_sim_latency(h);
        return rc;
    }
    struct sim_change *c = sim_change_new(h, CHANGE_SYNC, NULL, d);
    if (!c || !sim_names_copy(&c->names, &d->now))
        abort();
    sim_change_issue(h, c);
    co_sim_latency(h);
    sim_change_done(h, c);
    sim_changes_settle(h, &d->pending, c->issue);
    sim_change_drop(c);
    return 0;
}

/* --- open and close ----------------------------------------------------------------------------
 */

static bool is_dir(const struct sim_host *h, const char *path)
{
    size_t n = strcmp(path, "/") ? strlen(path) : 0;
    for (struct sim_dir *d = h->dirs; d; d = d->next)
        if (strncmp(d->path, path, n) == 0 && (d->path[n] == 0 || d->path[n] == '/'))
            return true;
    return n == 0;
}

static struct sim_inode *create(struct sim_host *h, const char *path, unsigned flags)
{
    struct sim_inode *i = sim_inode_new(h);
    if (!(flags & HOST_TEMPORARY))
        change_names(h, sim_dir_get(h, path, dir_length(path)), CHANGE_LINK, i, base_name(path),
                     NULL);
    return i;
}

/* Finds or makes what @path names. */
static int find(struct sim_host *h, const char *path, unsigned flags, struct sim_inode **out)
{
    *out = flags & HOST_TEMPORARY ? NULL : sim_lookup(h, path);
    if (*out && (flags & HOST_CREATE) && (flags & HOST_EXCLUSIVE))
        return -EEXIST;
    if (!*out && !(flags & (HOST_CREATE | HOST_TEMPORARY)))
        return is_dir(h, path) ? -EISDIR : -ENOENT;
    if (!*out)
        *out = create(h, path, flags);
    return 0;
}

static bool below(const char *path, const char *beneath)
{
    char *dir = sim_normalise(beneath, NULL);
    size_t n = dir && strcmp(dir, "/") ? strlen(dir) : 0;
    bool ok = dir && memcmp(path, dir, MIN(n, strlen(path))) == 0 && path[n] == '/';
    free(dir);
    return ok;
}

static int open_at(struct sim_host *h, const char *path, unsigned flags, struct host_file **out)
{
    struct sim_inode *i;
    TRY(find(h, path, flags, &i));
    struct sim_file *f = mem_zalloc(sizeof(*f));
    if (!f)
        return -ENOMEM;
    i->opens++;
    f->inode = i;
    f->base.host = &h->base;
    f->base.flags = flags;
    int rc = 0;
    if ((flags & HOST_TRUNCATE) && i->now.size > 0 && !i->device)
        rc = sim_truncate(&f->base, 0);
    if (rc < 0) {
        sim_close_file(&f->base);
        return rc;
    }
    sim_inode_stat(i, flags, &f->base.stat);
    *out = &f->base;
    return 0;
}

int sim_open(struct host *host, const char *path, const char *beneath, unsigned flags,
             struct host_file **out)
{
    struct sim_host *h = sim_of(host);
    int rc = sim_fault_hit(h, SIM_OPEN);
    co_sim_latency(h);
    if (rc < 0)
        return rc;
    char *name = sim_normalise(path, beneath);
    if (!name)
        return -ENOMEM;
    if (beneath && !below(name, beneath))
        rc = -EXDEV;
    else
        rc = open_at(h, name, flags, out);
    free(name);
    return rc;
}

static void drop_locks(struct sim_file *f, uint64_t from, uint64_t to)
{
    for (struct sim_lock **at = &f->inode->locks, *l; (l = *at);) {
        if (l->holder != f || l->from >= to || l->to <= from) {
            at = &l->next;
            continue;
        }
        if (l->from < from && l->to > to) { /* a hole in the middle */
            struct sim_lock *rest = malloc(sizeof(*rest));
            if (!rest)
                abort();
            *rest = (struct sim_lock){l->next, f, to, l->to, l->kind};
            l->next = rest;
            l->to = from;
            at = &rest->next;
        } else if (l->from < from) {
            l->to = from;
            at = &l->next;
        } else if (l->to > to) {
            l->from = to;
            at = &l->next;
        } else {
            *at = l->next;
            free(l);
        }
    }
}

void sim_close_file(struct host_file *file)
{
    struct sim_file *f = sim_file_of(file);
    drop_locks(f, 0, UINT64_MAX);
    f->inode->opens--;
    inode_put(sim_of(file->host), f->inode);
    mem_free(f);
}

int sim_lock_test(struct host_file *file, uint64_t offset, uint64_t bytes, int kind,
                  int *holder_pid)
{
    struct sim_file *f = sim_file_of(file);
    if (holder_pid)
        *holder_pid = 0;
    for (const struct sim_lock *l = f->inode->locks; l; l = l->next)
        if (l->holder != f && l->from < offset + bytes && l->to > offset &&
            (kind == 2 || l->kind == 2))
            return -EAGAIN;
    return 0;
}

int sim_lock(struct host_file *file, uint64_t offset, uint64_t bytes, int kind)
{
    struct sim_file *f = sim_file_of(file);
    if (kind)
        TRY(sim_lock_test(file, offset, bytes, kind, NULL));
    drop_locks(f, offset, offset + bytes);
    if (!kind)
        return 0;
    struct sim_lock *l = malloc(sizeof(*l));
    if (!l)
        return -ENOMEM;
    *l = (struct sim_lock){f->inode->locks, f, offset, offset + bytes, kind};
    f->inode->locks = l;
    return 0;
}

/* --- asking ------------------------------------------------------------------------------------
 */

int sim_stat(struct host *host, const char *path, struct host_stat *out)
{
    struct sim_host *h = sim_of(host);
    co_sim_latency(h);
    char *name = sim_normalise(path, NULL);
    if (!name)
        return -ENOMEM;
    const struct sim_inode *i = sim_lookup(h, name);
    int rc = 0;
    if (i)
        sim_inode_stat(i, 0, out);
    else if (is_dir(h, name))
        *out = (struct host_stat){.type = HOST_FILE_DIRECTORY,
                                  .device = 1,
                                  .request_align = 1,
                                  .memory_align = 1,
                                  .links = 1};
    else
        rc = -ENOENT;
    free(name);
    return rc;
}

int sim_realpath(struct host *host, const char *path, char **out)
{
    struct sim_host *h = sim_of(host);
    co_sim_latency(h);
    char *name = sim_normalise(path, NULL);
    int rc = 0;
    if (!name || !(*out = mem_strdup(name)))
        rc = -ENOMEM;
    else if (!sim_lookup(h, name) && !is_dir(h, name))
        rc = -ENOENT;
    if (rc == -ENOENT)
        mem_free(take(*out));
    free(name);
    return rc;
}

int sim_list(struct host *host, const char *path, char ***names, size_t *count)
{
    struct sim_host *h = sim_of(host);
    co_sim_latency(h);
    char *dir = sim_normalise(path, NULL);
    struct sim_dir *d = dir ? find_dir(h, dir, strcmp(dir, "/") ? strlen(dir) : 0) : NULL;
    free(dir);
    if (!d)
        return -ENOENT;
    char **list = mem_array(d->now.count + 1, sizeof(*list));
    bool ok = list;
    for (size_t i = 0; ok && i < d->now.count; i++)
        ok = (list[i] = mem_strdup(d->now.list[i].name));
    if (!ok) {
        for (size_t i = 0; list && i < d->now.count; i++)
            mem_free(list[i]);
        mem_free(list);
        return -ENOMEM;
    }
    *names = list;
    *count = d->now.count;
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_crash.c - recording, crash states, copies, import and export of simulated disks.
 *
 * A crash state starts from what each file's last fsync before the cut had confirmed (a snapshot
 * that the recording kept, which costs nothing) and applies the chosen pending changes: first those
 * that were done, in that order, then those in flight. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/host_sim_int.h"

/* What is known of one cut. */
struct sim_view {
    size_t cut;
    struct sim_change **pending;
    size_t count;
    const struct sim_contents **files; /* durable contents, by inode number */
    uint64_t *file_issue;
    const struct sim_names **dirs; /* by position in the host's list */
    uint64_t *dir_issue;
};

static const struct sim_host *const_sim_of(const struct host *h)
{
    return container_of(h, const struct sim_host, base);
}

static void *need(void *p)
{
    if (!p)
        abort();
    return p;
}

void host_sim_record(struct host *host)
{
    struct sim_host *h = sim_of(host);
    assert(!h->recording);
    h->recording = true;
    for (struct sim_inode *i = h->inodes; i; i = i->next) {
        sim_changes_drop(&i->pending);
        sim_tree_drop(&i->durable.tree);
        i->start = (struct sim_contents){sim_tree_copy(&i->now.tree), i->now.size};
        i->durable = (struct sim_contents){sim_tree_copy(&i->now.tree), i->now.size};
    }
    for (struct sim_dir *d = h->dirs; d; d = d->next) {
        sim_changes_drop(&d->pending);
        if (!sim_names_copy(&d->start, &d->now))
            abort();
    }
}

size_t host_sim_cut(const struct host *h)
{
    return const_sim_of(h)->event_count;
}

/* --- the view of a cut --------------------------------------------------------------------------
 */

void sim_view_drop(struct sim_host *h)
{
    struct sim_view *v = h->view;
    if (!v)
        return;
    free(v->pending);
    free(v->files);
    free(v->file_issue);
    free(v->dirs);
    free(v->dir_issue);
    free(v);
    h->view = NULL;
}

static size_t dir_index(const struct sim_host *h, const struct sim_dir *dir)
{
    size_t n = 0;
    for (const struct sim_dir *d = h->dirs; d != dir; d = d->next)
        n++;
    return n;
}

static void view_start(const struct sim_host *h, struct sim_view *v)
{
    size_t dirs = dir_index(h, NULL);
    v->files = need(calloc(h->next_inode, sizeof(*v->files)));
    v->file_issue = need(calloc(h->next_inode, sizeof(*v->file_issue)));
    v->dirs = need(calloc(dirs + 1, sizeof(*v->dirs)));
    v->dir_issue = need(calloc(dirs + 1, sizeof(*v->dir_issue)));
    v->pending = need(calloc(h->log_count + 1, sizeof(struct sim_change *)));
    for (const struct sim_inode *i = h->inodes; i; i = i->next)
        v->files[i->number] = &i->start;
    size_t n = 0;
    for (const struct sim_dir *d = h->dirs; d; d = d->next)
        v->dirs[n++] = &d->start;
}

static void view_sync(const struct sim_host *h, struct sim_view *v, const struct sim_change *c)
{
    if (c->done >= v->cut)
        return;
    if (c->inode && c->issue > v->file_issue[c->inode->number]) {
        v->files[c->inode->number] = &c->snap;
        v->file_issue[c->inode->number] = c->issue;
    } else if (c->dir) {
        size_t n = dir_index(h, c->dir);
        v->dirs[n] = c->issue > v->dir_issue[n] ? &c->names : v->dirs[n];
        v->dir_issue[n] = MAX(c->issue, v->dir_issue[n]);
    }
}

static int by_done(const void *a, const void *b)
{
    size_t x = (*(struct sim_change *const *)a)->done, y = (*(struct sim_change *const *)b)->done;
    return (x > y) - (x < y);
}

static const struct sim_view *view_at(const struct sim_host *h, size_t cut)
{
    if (h->view && h->view->cut == cut)
        return h->view;
    sim_view_drop((struct sim_host *)h); /* a cache */
    struct sim_view *v = need(calloc(1, sizeof(*v)));
    v->cut = cut;
    view_start(h, v);
    for (size_t i = 0; i < h->log_count; i++) {
        struct sim_change *c = h->log[i];
        if (c->kind == CHANGE_SYNC)
            view_sync(h, v, c);
        else if (c->done < cut && c->durable >= cut)
            v->pending[v->count++] = c;
    }
    qsort(v->pending, v->count, sizeof(struct sim_change *), by_done);
    for (size_t i = 0; i < h->log_count; i++) {
        struct sim_change *c = h->log[i];
        if (c->kind != CHANGE_SYNC && c->issued < cut && c->done >= cut && c->durable >= cut)
            v->pending[v->count++] = c;
    }
    ((struct sim_host *)h)->view = v;
    return v;
}

size_t host_sim_pending(const struct host *h, size_t cut)
{
    return view_at(const_sim_of(h), cut)->count;
}

static const char *const change_names[] = {
    [CHANGE_WRITE] = "write",   [CHANGE_TRUNCATE] = "truncate", [CHANGE_ALLOCATE] = "allocate",
    [CHANGE_PUNCH] = "punch",   [CHANGE_ZERO] = "zero",         [CHANGE_LINK] = "link",
    [CHANGE_RENAME] = "rename", [CHANGE_UNLINK] = "unlink",     [CHANGE_SYNC] = "sync",
};

static void change_text(const struct sim_change *c, char *to, size_t room)
{
    if (c->inode)
        snprintf(to, room, "%s file %" PRIu64 " at %" PRIu64 "+%" PRIu64, change_names[c->kind],
                 c->inode->number, c->offset, c->bytes);
    else
        snprintf(to, room, "%s %s/%s", change_names[c->kind], c->dir->path, c->name ? c->name : "");
}

void host_sim_pending_text(const struct host *h, size_t cut, size_t index, char *to, size_t room)
{
    const struct sim_view *v = view_at(const_sim_of(h), cut);
    assert(index < v->count);
    const struct sim_change *c = v->pending[index];
    change_text(c, to, room);
    size_t at = strlen(to);
    if (c->done >= cut)
        snprintf(to + at, room - at, " (in flight)");
}

static void print_event(FILE *to, const char *what, size_t event)
{
    if (event == SIM_NEVER)
        fprintf(to, " never %s", what);
    else
        fprintf(to, " %s %zu", what, event);
}

void host_sim_print(const struct host *host, FILE *to)
{
    const struct sim_host *h = const_sim_of(host);
    for (size_t i = 0; i < h->log_count; i++) {
        const struct sim_change *c = h->log[i];
        char text[200];
        change_text(c, text, sizeof(text));
        fprintf(to, "# %s:", text);
        print_event(to, "issued", c->issued);
        print_event(to, "done", c->done);
        if (c->kind != CHANGE_SYNC)
            print_event(to, "durable", c->durable);
        fputc('\n', to);
    }
}

/* --- new hosts ----------------------------------------------------------------------------------
 */

/* A host with the same inodes and directories, all empty. */
static struct sim_host *host_like(const struct sim_host *h, uint64_t seed)
{
    struct sim_options o = h->options;
    struct host *host;
    o.seed = seed;
    if (host_sim_open(&o, &host) < 0)
        abort();
    struct sim_host *n = sim_of(host);
    n->garbage = h->garbage;
    n->now = h->now;
    for (const struct sim_inode *i = h->inodes; i; i = i->next) {
        struct sim_inode *copy = sim_inode_new(n);
        copy->number = i->number;
        copy->device = i->device;
    }
    n->next_inode = h->next_inode;
    for (const struct sim_dir *d = h->dirs; d; d = d->next)
        sim_dir_get(n, d->path, strlen(d->path));
    return n;
}

static struct sim_inode *twin(const struct sim_host *n, const struct sim_inode *of)
{
    struct sim_inode *i = n->inodes;
    while (i->number != of->number)
        i = i->next;
    return i;
}

/* Names point at the new host's inodes; links are counted; what is there is durable. */
static struct host *host_finish(struct sim_host *n)
{
    for (struct sim_dir *d = n->dirs; d; d = d->next) {
        for (size_t k = 0; k < d->now.count; k++) {
            d->now.list[k].inode = twin(n, d->now.list[k].inode);
            d->now.list[k].inode->names++;
        }
    }
    for (struct sim_inode *i = n->inodes; i; i = i->next) {
        if (i->names == 0)
            sim_tree_drop(&i->now.tree);
        i->durable = (struct sim_contents){sim_tree_copy(&i->now.tree), i->now.size};
        n->used_pages += i->now.tree.pages;
    }
    return &n->base;
}

/* Whether pending change @at of a crash is applied; the metadata of one file or directory is a
 * prefix. */
static bool chosen(const struct sim_change *c, uint8_t apply, bool *stopped, struct sim_rng *tear)
{
    if (c->kind == CHANGE_WRITE)
        return apply;
    bool *stop = &stopped[c->inode ? 2 * c->inode->number : 1];
    if (apply == 2)
        apply = (uint8_t)sim_rng_below(tear, 2);
    *stop = *stop || !apply;
    return !*stop;
}

int host_sim_crash(const struct host *host, size_t cut, const uint8_t *apply, uint64_t seed,
                   struct host **out)
{
    const struct sim_host *h = const_sim_of(host);
    assert(h->recording && cut <= h->event_count);
    const struct sim_view *v = view_at(h, cut);
    struct sim_host *n = host_like(h, seed);
    for (struct sim_inode *i = n->inodes; i; i = i->next) {
        const struct sim_contents *base = v->files[i->number];
        i->now = (struct sim_contents){sim_tree_copy(&base->tree), base->size};
    }
    size_t at = 0;
    for (struct sim_dir *d = n->dirs; d; d = d->next)
        if (!sim_names_copy(&d->now, v->dirs[at++]))
            abort();
    /* Even places are inodes; directories share one order, which a journal gives them. */
    bool *stopped = need(calloc(2 * h->next_inode + 2, sizeof(bool)));
    for (size_t k = 0; k < v->count; k++) {
        const struct sim_change *c = v->pending[k];
        struct sim_rng tear;
        sim_rng_seed(&tear, sim_mix(seed, k));
        if (!chosen(c, apply[k], stopped, &tear))
            continue;
        struct sim_inode *i = c->inode ? twin(n, c->inode) : NULL;
        bool ok = i ? sim_apply(n, i, &i->now, c, apply[k] == 2 ? &tear : NULL)
                    : sim_names_apply(&sim_dir_get(n, c->dir->path, strlen(c->dir->path))->now, c);
        if (!ok)
            abort();
    }
    free(stopped);
    *out = host_finish(n);
    return 0;
}

int host_sim_clone(const struct host *host, uint64_t seed, struct host **out)
{
    const struct sim_host *h = const_sim_of(host);
    struct sim_host *n = host_like(h, seed);
    for (const struct sim_inode *i = h->inodes; i; i = i->next)
        twin(n, i)->now = (struct sim_contents){sim_tree_copy(&i->now.tree), i->now.size};
    struct sim_dir *to = n->dirs;
    for (const struct sim_dir *d = h->dirs; d; d = d->next, to = to->next)
        if (!sim_names_copy(&to->now, &d->now))
            abort();
    *out = host_finish(n);
    return 0;
}

/* --- files in and out ---------------------------------------------------------------------------
 */

uint64_t host_sim_hash(const struct host *host)
{
    const struct sim_host *h = const_sim_of(host);
    uint64_t sum = 0;
    for (const struct sim_dir *d = h->dirs; d; d = d->next) {
        for (size_t k = 0; k < d->now.count; k++) {
            const struct sim_inode *i = d->now.list[k].inode;
            uint64_t name =
                sim_mix(sim_hash_bytes(d->path, strlen(d->path)),
                        sim_hash_bytes(d->now.list[k].name, strlen(d->now.list[k].name)));
            sum += sim_mix(sim_mix(name, i->now.size), sim_tree_hash(&i->now.tree));
        }
    }
    return sum;
}

static struct sim_inode *add(struct sim_host *h, const char *path)
{
    char *name = need(sim_normalise(path, NULL));
    struct sim_inode *i = sim_lookup(h, name);
    if (!i) {
        i = sim_inode_new(h);
        i->names = 1;
        char *slash = strrchr(name, '/');
        struct sim_change link = {.kind = CHANGE_LINK, .name = slash + 1, .target = i};
        if (!sim_names_apply(&sim_dir_get(h, name, (size_t)(slash - name))->now, &link))
            abort();
    }
    free(name);
    return i;
}

int host_sim_add_device(struct host *host, const char *path, uint64_t bytes)
{
    struct sim_host *h = sim_of(host);
    assert(!h->recording);
    if (bytes == 0 || bytes % SIM_SECTOR || bytes > SIM_MAX_FILE)
        return -EINVAL;
    struct sim_inode *i = add(h, path);
    i->device = true;
    i->now.size = i->durable.size = bytes;
    return 0;
}

int host_sim_import(struct host *host, const char *path, const void *bytes, size_t size)
{
    struct sim_host *h = sim_of(host);
    assert(!h->recording);
    struct sim_inode *i = add(h, path);
    h->used_pages -= i->now.tree.pages;
    sim_changes_drop(&i->pending);
    sim_tree_drop(&i->now.tree);
    sim_tree_drop(&i->durable.tree);
    i->now.size = 0;
    struct sim_change *c = need(sim_change_new(h, CHANGE_WRITE, i, NULL));
    struct vec v = VEC_BUF(bytes, size);
    if (!sim_change_fill(c, 0, &v) || !sim_apply(h, i, &i->now, c, NULL))
        abort();
    sim_change_drop(c);
    h->used_pages += i->now.tree.pages;
    i->durable = (struct sim_contents){sim_tree_copy(&i->now.tree), i->now.size};
    return 0;
}

int host_sim_export(const struct host *host, const char *path, const char *real_path)
{
    const struct sim_host *h = const_sim_of(host);
    char *name = need(sim_normalise(path, NULL));
    const struct sim_inode *i = sim_lookup(h, name);
    free(name);
    if (!i)
        return -ENOENT;
    int fd = open(real_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int rc = ftruncate(fd, (off_t)i->now.size) < 0 ? -errno : 0;
    for (uint64_t at = 0; rc == 0 && at * SIM_PAGE < i->now.size; at++) {
        if (!i->device && (at = sim_tree_next(&i->now.tree, at)) == UINT64_MAX)
            break;
        uint8_t page[SIM_PAGE];
        struct vec v = VEC_BUF(page, sizeof(page));
        int64_t n = sim_read_contents(h, i, at * SIM_PAGE, &v);
        if (n > 0 && pwrite(fd, page, (size_t)n, (off_t)(at * SIM_PAGE)) != n)
            rc = errno ? -errno : -EIO;
    }
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    return rc;
}

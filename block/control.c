/* SPDX-License-Identifier: BSD-3-Clause */
/* control.c - what is not on the way of data: reopen, resize, complete, check, info,
 * snapshots.
 *
 * Changes of mode and size close the device's gate: requests in flight end first, new ones wait.
 * All of it runs at the device's home; callers may be anywhere. */
#include "block/waist.h"

struct control {
    struct blk_device *dev;
    struct blk_error *e;
    uint64_t size;
    bool flag; /* reopen: to write; resize: may shrink */
    struct blk_check *check;
    struct blk_info *info;
    const char *name, *format;
    const struct opts *opts;
    struct blk_device *backing;
};

/* --- reopen, complete ------------------------------------------------------------------------- */

/* Backing devices stay read-only: who wants to write one asks for it itself. */
static bool follows_parent(const struct blk_child *child)
{
    return strcmp(child->role, "backing") != 0 && strcmp(child->role, "parent") != 0;
}

static int reopen_children(struct blk_device *dev, bool write, struct blk_error *e)
{
    for (size_t i = 0; i < dev->child_count; i++) {
        struct blk_child *child = &dev->children[i];
        /* Another holder of the same device may be writing to it. */
        if (!follows_parent(child) || child->dev->writable == write ||
            (!write && child->dev->refs > 1))
            continue;
        TRY(co_blk_reopen(child->dev, write, e));
    }
    return 0;
}

static int reopen_gated(struct blk_device *dev, bool write, struct blk_error *e)
{
    if (write) {
        if (dev->marked_corrupt)
            return err_set(
                e, -EROFS,
                "%s is marked corrupt and stays read-only: repair it first, with check -r all",
                dev->name);
        blk_forget_behind(dev);
        TRY(reopen_children(dev, true, e));
    } else {
        int rc = co_blk_inside_flush(dev);
        if (rc < 0)
            return err_errno(e, rc, "%s could not be flushed", dev->name);
    }
    if (dev->driver->co_reopen)
        TRY(dev->driver->co_reopen(dev, write, e));
    dev->writable = write;
    dev->open_flags =
        write ? dev->open_flags | BLK_OPEN_WRITE : dev->open_flags & ~(unsigned)BLK_OPEN_WRITE;
    return write ? 0 : reopen_children(dev, false, e);
}

static int reopen_at_home(void *arg)
{
    struct control *c = arg;
    if (c->dev->writable == c->flag)
        return 0;
    co_blk_gate_close(c->dev);
    int rc = reopen_gated(c->dev, c->flag, c->e);
    blk_gate_open(c->dev);
    return rc;
}

int co_blk_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    struct control c = {.dev = dev, .flag = write, .e = e};
    return co_on(dev->home, reopen_at_home, &c);
}

static int complete_at_home(void *arg)
{
    struct control *c = arg;
    struct blk_device *dev = c->dev;
    struct blk_error *e = c->e;
    if (!(dev->open_flags & BLK_OPEN_FRESH))
        return 0;
    co_blk_gate_close(dev);
    int rc = dev->driver->co_complete ? dev->driver->co_complete(dev, e) : 0;
    for (size_t i = 0; rc == 0 && i < dev->child_count; i++)
        rc = co_blk_complete(dev->children[i].dev, e);
    if (rc == 0)
        dev->open_flags &= ~(unsigned)BLK_OPEN_FRESH;
    blk_gate_open(dev);
    return rc;
}

int co_blk_complete(struct blk_device *dev, struct blk_error *e)
{
    struct control c = {.dev = dev, .e = e};
    return co_on(dev->home, complete_at_home, &c);
}

/* --- resize ----------------------------------------------------------------------------------- */

static int may_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    if (!dev->driver->co_resize)
        return err_set(e, -ENOTSUP, "Image format driver does not support resize");
    if (!dev->writable)
        return err_set(e, -EROFS, "%s is read-only", dev->name);
    if (size > INT64_MAX)
        return err_set(e, -EFBIG, "%" PRIu64 " bytes is more than any image can hold", size);
    if (size < dev->size && !shrink)
        return err_set(e, -EINVAL,
                       "Use the --shrink option to perform a shrink operation; %s would lose its "
                       "last %" PRIu64 " bytes",
                       dev->name, dev->size - size);
    return 0;
}

static int resize_at_home(void *arg)
{
    struct control *c = arg;
    struct blk_device *dev = c->dev;
    co_blk_gate_close(dev);
    int rc = may_resize(dev, c->size, c->flag, c->e);
    if (rc == 0)
        rc = dev->driver->co_resize(dev, c->size, c->flag, c->e);
    if (rc == 0)
        dev->size = c->size;
    blk_gate_open(dev);
    if (rc == 0)
        blk_tell(dev, BLK_EV_RESIZED);
    return rc;
}

int co_blk_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct control c = {.dev = dev, .size = size, .flag = shrink, .e = e};
    return co_on(dev->home, resize_at_home, &c);
}

/* --- check, info ------------------------------------------------------------------------------ */

static int check_at_home(void *arg)
{
    struct control *c = arg;
    struct blk_device *dev = c->dev;
    struct blk_check *check = c->check;
    struct blk_error *e = c->e;
    if (!dev->driver->co_check)
        return err_set(e, -ENOTSUP, "This image format does not support checks");
    if ((check->fix_leaks || check->fix_errors) && !dev->writable)
        return err_set(e, -EROFS, "%s is read-only and cannot be repaired", dev->name);
    co_blk_gate_close(dev);
    int rc = dev->driver->co_check(dev, check, e);
    blk_gate_open(dev);
    if (rc == 0 && check->data)
        rc = co_blk_check_data(dev, check); /* requests like any others: outside the gate */
    return rc;
}

int co_blk_check(struct blk_device *dev, struct blk_check *check, struct blk_error *e)
{
    struct control c = {.dev = dev, .check = check, .e = e};
    return co_on(dev->home, check_at_home, &c);
}

/* What the files below take on disk, but for backing devices; unknown if one of them is. */
static uint64_t actual_size(struct blk_device *dev)
{
    uint64_t sum = 0;
    bool any = false;
    for (size_t i = 0; i < dev->child_count; i++) {
        if (!follows_parent(&dev->children[i]))
            continue;
        struct blk_info below = {0};
        struct blk_error ignored;
        int rc = co_blk_info(dev->children[i].dev, &below, &ignored);
        uint64_t bytes = rc < 0 ? UINT64_MAX : below.actual_size;
        blk_info_drop(&below);
        if (bytes == UINT64_MAX || !add_u64(sum, bytes, &sum))
            return UINT64_MAX;
        any = true;
    }
    return any ? sum : UINT64_MAX;
}

static int info_at_home(void *arg)
{
    struct control *call = arg;
    struct blk_device *dev = call->dev;
    struct blk_info *out = call->info;
    *out = (struct blk_info){.virtual_size = dev->size,
                             .actual_size = UINT64_MAX,
                             .cluster_size = dev->limits.cluster_size,
                             .corrupt = dev->marked_corrupt};
    if (dev->driver->co_info) {
        int rc = dev->driver->co_info(dev, out, call->e);
        if (rc < 0) {
            blk_info_drop(out);
            return rc;
        }
    }
    if (out->actual_size == UINT64_MAX)
        out->actual_size = actual_size(dev);
    return 0;
}

int co_blk_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct control call = {.dev = dev, .info = out, .e = e};
    return co_on(dev->home, info_at_home, &call);
}

void blk_info_drop(struct blk_info *i)
{
    mem_free(i->backing_name);
    mem_free(i->backing_format);
    mem_free(i->full_backing_name);
    json_decref(i->specific);
    json_decref(i->snapshots);
    *i = (struct blk_info){0};
}

/* --- what an image holds and stands on -------------------------------------------------------- */

static int may_change(struct blk_device *dev, struct blk_error *e)
{
    return dev->writable ? 0 : err_set(e, -EROFS, "%s is read-only", dev->name);
}

static int make_empty_at_home(void *arg)
{
    struct control *c = arg;
    if (!c->dev->driver->co_make_empty)
        return err_set(c->e, -ENOTSUP, "the format of %s cannot let go of its contents",
                       c->dev->name);
    TRY(may_change(c->dev, c->e));
    co_blk_gate_close(c->dev);
    int rc = c->dev->driver->co_make_empty(c->dev, c->e);
    blk_gate_open(c->dev);
    return rc;
}

int co_blk_make_empty(struct blk_device *dev, struct blk_error *e)
{
    struct control c = {.dev = dev, .e = e};
    return co_on(dev->home, make_empty_at_home, &c);
}

static int change_backing_at_home(void *arg)
{
    struct control *c = arg;
    if (!c->dev->driver->co_change_backing)
        return err_set(c->e, -ENOTSUP, "Operation not supported");
    TRY(may_change(c->dev, c->e));
    co_blk_gate_close(c->dev);
    int rc = c->dev->driver->co_change_backing(c->dev, c->name, c->format, c->e);
    blk_gate_open(c->dev);
    return rc;
}

int co_blk_change_backing(struct blk_device *dev, const char *name, const char *format,
                          struct blk_error *e)
{
    struct control c = {.dev = dev, .e = e, .name = name, .format = format};
    return co_on(dev->home, change_backing_at_home, &c);
}

static int identify_backing_at_home(void *arg)
{
    struct control *c = arg;
    TRY(may_change(c->dev, c->e));
    co_blk_gate_close(c->dev);
    int rc = c->dev->driver->co_identify_backing(c->dev, c->backing, c->e);
    blk_gate_open(c->dev);
    return rc;
}

int co_blk_identify_backing(struct blk_device *dev, struct blk_device *backing, struct blk_error *e)
{
    struct control c = {.dev = dev, .e = e, .backing = backing};
    return dev->driver->co_identify_backing ? co_on(dev->home, identify_backing_at_home, &c) : 0;
}

static int compact_at_home(void *arg)
{
    struct control *c = arg;
    if (!c->dev->driver->co_compact)
        return err_set(c->e, -ENOTSUP, "%s images cannot be compacted", c->dev->driver->name);
    TRY(may_change(c->dev, c->e));
    co_blk_gate_close(c->dev);
    int rc = c->dev->driver->co_compact(c->dev, c->e);
    blk_gate_open(c->dev);
    return rc;
}

int co_blk_compact(struct blk_device *dev, struct blk_error *e)
{
    struct control c = {.dev = dev, .e = e};
    return co_on(dev->home, compact_at_home, &c);
}

static int amend_at_home(void *arg)
{
    struct control *c = arg;
    if (!c->dev->driver->co_amend)
        return err_set(c->e, -ENOTSUP, "Format driver '%s' does not support option amendment",
                       c->dev->driver->name);
    TRY(may_change(c->dev, c->e));
    co_blk_gate_close(c->dev);
    int rc = c->dev->driver->co_amend(c->dev, c->opts, c->e);
    blk_gate_open(c->dev);
    return rc;
}

int co_blk_amend(struct blk_device *dev, const struct opts *opts, struct blk_error *e)
{
    struct control c = {.dev = dev, .e = e, .opts = opts};
    return co_on(dev->home, amend_at_home, &c);
}

/* --- snapshots -------------------------------------------------------------------------------- */

struct snapshot_call {
    struct blk_device *dev;
    const struct blk_snapshot *wanted;
    const char *id;
    uint64_t *freed;
    struct blk_snapshot **out;
    size_t *count;
    struct blk_error *e;
};

static int has_snapshots(struct blk_device *dev, bool write, struct blk_error *e)
{
    if (!dev->driver->co_snapshot_list)
        return err_set(e, -ENOTSUP, "%s images hold no snapshots", dev->driver->name);
    if (write && !dev->writable)
        return err_set(e, -EROFS, "%s is read-only", dev->name);
    return 0;
}

static int snapshot_list_at_home(void *arg)
{
    struct snapshot_call *c = arg;
    TRY(has_snapshots(c->dev, false, c->e));
    return c->dev->driver->co_snapshot_list(c->dev, c->out, c->count, c->e);
}

int co_blk_snapshot_list(struct blk_device *dev, struct blk_snapshot **out, size_t *count,
                         struct blk_error *e)
{
    struct snapshot_call c = {.dev = dev, .out = out, .count = count, .e = e};
    *out = NULL;
    *count = 0;
    return co_on(dev->home, snapshot_list_at_home, &c);
}

static int snapshot_change_gated(struct snapshot_call *c)
{
    const struct blk_driver *d = c->dev->driver;
    TRY(has_snapshots(c->dev, true, c->e));
    if (c->wanted)
        return d->co_snapshot_create(c->dev, c->wanted, c->e);
    if (c->freed)
        return d->co_snapshot_delete(c->dev, c->id, c->freed, c->e);
    return d->co_snapshot_apply(c->dev, c->id, c->e);
}

static int snapshot_change_at_home(void *arg)
{
    struct snapshot_call *c = arg;
    co_blk_gate_close(c->dev);
    uint64_t size = c->dev->size;
    int rc = snapshot_change_gated(c);
    blk_gate_open(c->dev);
    if (c->dev->size != size)
        blk_tell(c->dev, BLK_EV_RESIZED);
    return rc;
}

int co_blk_snapshot_create(struct blk_device *dev, const struct blk_snapshot *s,
                           struct blk_error *e)
{
    struct snapshot_call c = {.dev = dev, .wanted = s, .e = e};
    return co_on(dev->home, snapshot_change_at_home, &c);
}

int co_blk_snapshot_apply(struct blk_device *dev, const char *id, struct blk_error *e)
{
    struct snapshot_call c = {.dev = dev, .id = id, .e = e};
    return co_on(dev->home, snapshot_change_at_home, &c);
}

int co_blk_snapshot_delete(struct blk_device *dev, const char *id, uint64_t *freed_bytes,
                           struct blk_error *e)
{
    struct snapshot_call c = {.dev = dev, .id = id, .freed = freed_bytes, .e = e};
    *freed_bytes = 0;
    return co_on(dev->home, snapshot_change_at_home, &c);
}

void blk_snapshots_drop(struct blk_snapshot *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free(list[i].id);
        mem_free(list[i].name);
    }
    mem_free(list);
}

const struct blk_snapshot *blk_snapshot_by_id(const struct blk_snapshot *list, size_t count,
                                              const char *id)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].id, id) == 0)
            return &list[i];
    return NULL;
}

const struct blk_snapshot *blk_snapshot_by_name(const struct blk_snapshot *list, size_t count,
                                                const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}

/* --- redundancy ------------------------------------------------------------------------------- */

struct members {
    struct blk_device *dev;
    struct blk_sync *sync;
    const struct blk_member_change *change;
    const struct blk_members_grow *grow;
    struct blk_error *e;
};

static int has_members(const struct members *m)
{
    if (!m->dev->driver->co_sync)
        return err_set(m->e, -ENOTSUP, "%s is not made of members: it is no array", m->dev->name);
    return may_change(m->dev, m->e);
}

static int sync_at_home(void *arg)
{
    struct members *m = arg;
    TRY(has_members(m));
    int rc = m->dev->driver->co_sync(m->dev, m->sync, m->e);
    assert(rc < 0 || !m->sync->doing || m->sync->at <= m->sync->total);
    return rc;
}

int co_blk_sync(struct blk_device *dev, struct blk_sync *s, struct blk_error *e)
{
    struct members m = {.dev = dev, .sync = s, .e = e};
    return co_on(dev->home, sync_at_home, &m);
}

static int save_at_home(void *arg)
{
    struct members *m = arg;
    TRY(has_members(m));
    return m->dev->driver->co_sync_save(m->dev, m->e);
}

int co_blk_sync_save(struct blk_device *dev, struct blk_error *e)
{
    struct members m = {.dev = dev, .e = e};
    return co_on(dev->home, save_at_home, &m);
}

static int member_at_home(void *arg)
{
    struct members *m = arg;
    int rc = has_members(m);
    if (rc == 0)
        return m->dev->driver->co_member(m->dev, m->change, m->e);
    co_blk_close(m->change->device, NULL);
    return rc;
}

int co_blk_member(struct blk_device *dev, const struct blk_member_change *c, struct blk_error *e)
{
    struct members m = {.dev = dev, .change = c, .e = e};
    return co_on(dev->home, member_at_home, &m);
}

static int grow_at_home(void *arg)
{
    struct members *m = arg;
    TRY(has_members(m));
    co_blk_gate_close(m->dev);
    int rc = m->dev->driver->co_members_grow(m->dev, m->grow, m->e);
    blk_gate_open(m->dev);
    if (rc == 0)
        blk_tell(m->dev, BLK_EV_RESIZED);
    return rc;
}

int co_blk_members_grow(struct blk_device *dev, const struct blk_members_grow *g,
                        struct blk_error *e)
{
    struct members m = {.dev = dev, .grow = g, .e = e};
    return co_on(dev->home, grow_at_home, &m);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_file.c - file operations of the simulator.
 *
 * A call counts (and gets its fault) when it is made, lets a latency pass, then takes effect in one
 * step. A file's `now` is the page cache; `durable` is what an fsync last confirmed. */
#include "block/host_sim_int.h"

#include <stdlib.h>

/* Files' contents and the sum over all files. */
static bool show(struct sim_host *h, struct sim_inode *i, const struct sim_change *c)
{
    uint64_t before = i->now.tree.pages;
    bool ok = sim_apply(h, i, &i->now, c, NULL);
    h->used_pages += i->now.tree.pages - before;
    return ok;
}

/* A change that takes a latency: the common way of truncate and fallocate. Takes @c. */
static int co_change(struct sim_host *h, struct sim_change *c, enum sim_op op)
{
    if (!c)
        return -ENOMEM;
    int rc = sim_fault_hit(h, op);
    if (rc < 0) {
        co_sim_latency(h);
        sim_change_drop(c);
        return rc;
    }
    sim_change_issue(h, c);
    co_sim_latency(h);
    if (!show(h, c->inode, c))
        abort();
    sim_change_done(h, c);
    sim_change_drop(c);
    return 0;
}

static void copy_page(const struct sim_host *h, const struct sim_inode *i, uint64_t page,
                      uint64_t in, const struct vec *to)
{
    const struct sim_page *p = sim_tree_get(&i->now.tree, page);
    if (p) {
        vec_from_buf(to, p->bytes + in);
    } else if (i->device) {
        uint8_t garbage[SIM_PAGE];
        sim_garbage(h, i, page, garbage);
        vec_from_buf(to, garbage + in);
    } else {
        vec_fill(to, 0);
    }
}

int64_t sim_read_contents(const struct sim_host *h, const struct sim_inode *i, uint64_t offset,
                          const struct vec *to)
{
    if (offset >= i->now.size)
        return 0;
    uint64_t bytes = MIN(to->bytes, i->now.size - offset);
    for (uint64_t at = 0; at < bytes;) {
        uint64_t in = (offset + at) % SIM_PAGE, part = MIN(SIM_PAGE - in, bytes - at);
        struct vec piece = vec_slice(to, at, part);
        copy_page(h, i, (offset + at) / SIM_PAGE, in, &piece);
        at += part;
    }
    return (int64_t)bytes;
}

static void flip_bit(struct sim_host *h, const struct vec *v)
{
    if (v->bytes == 0)
        return;
    uint64_t bit = sim_rng_below(&h->rng, v->bytes * 8);
    struct vec one = vec_slice(v, bit / 8, 1);
    uint8_t byte;
    vec_to_buf(&one, &byte);
    byte ^= (uint8_t)(1U << (bit % 8));
    vec_from_buf(&one, &byte);
}

/* O_DIRECT's conditions. */
static bool aligned(const struct host_file *f, uint64_t offset, const struct vec *v)
{
    return !(f->flags & HOST_DIRECT) ||
           (offset % SIM_SECTOR == 0 && v->bytes % SIM_SECTOR == 0 && vec_aligned(v, SIM_SECTOR));
}

static int64_t read_at(struct sim_host *h, struct sim_file *f, uint64_t offset,
                       const struct vec *to, enum sim_damage damage)
{
    int64_t got = sim_read_contents(h, f->inode, offset, to);
    if (damage == SIM_FLIP && got > 0) {
        struct vec v = vec_slice(to, 0, (uint64_t)got);
        flip_bit(h, &v);
    }
    return got;
}

int64_t sim_read(struct host_file *file, uint64_t offset, const struct vec *to)
{
    struct sim_host *h = sim_of(file->host);
    int rc = sim_fault_hit(h, SIM_READ);
    enum sim_damage damage = rc ? SIM_NO_DAMAGE : sim_damage_hit(h, SIM_READ);
    if (!aligned(file, offset, to))
        rc = -EINVAL;
    co_sim_latency(h);
    return rc < 0 ? rc : read_at(h, sim_file_of(file), offset, to, damage);
}

int64_t sim_read_now(struct host_file *file, uint64_t offset, const struct vec *to)
{
    struct sim_host *h = sim_of(file->host);
    if (!h->options.in_order && sim_rng_below(&h->rng, 2))
        return -EAGAIN;
    int rc = sim_fault_hit(h, SIM_READ);
    if (!aligned(file, offset, to))
        rc = -EINVAL;
    return rc < 0 ? rc : read_at(h, sim_file_of(file), offset, to, sim_damage_hit(h, SIM_READ));
}

static uint64_t missing_pages(const struct sim_change *c)
{
    uint64_t missing = 0;
    for (size_t i = 0; i < c->page_count; i++)
        missing += !sim_tree_get(&c->inode->now.tree, c->offset / SIM_PAGE + i);
    return missing;
}

/* The moment a write is done. */
static int finish_write(struct sim_host *h, struct sim_change *c, enum sim_damage damage)
{
    uint64_t limit = h->options.disk_bytes / SIM_PAGE;
    if (limit && h->used_pages + missing_pages(c) > limit) {
        c->durable = h->event_count; /* no crash after this applies it */
        return -ENOSPC;
    }
    if (damage != SIM_LOST && !show(h, c->inode, c))
        abort();
    sim_change_done(h, c);
    return 0;
}

/* A write's data, with what the fault leaves of it: @rc is the fault's error. Of one who was killed
 * nothing arrives any more. */
static struct sim_change *prepare_write(struct sim_host *h, struct sim_inode *i, uint64_t offset,
                                        const struct vec *from, int rc, enum sim_damage damage)
{
    struct sim_change *c = sim_change_new(h, CHANGE_WRITE, i, NULL);
    if (!c)
        return NULL;
    uint64_t left = h->severed ? 0 : h->fault.short_bytes;
    uint64_t bytes = rc < 0 ? MIN(from->bytes, left) : from->bytes;
    struct vec part = vec_slice(from, 0, bytes);
    if (damage == SIM_MISPLACED)
        offset += SIM_PAGE;
    if (!sim_change_fill(c, offset, &part)) {
        sim_change_drop(c);
        return NULL;
    }
    if (damage == SIM_FLIP && bytes > 0)
        c->pages[0]->bytes[offset % SIM_PAGE] ^= (uint8_t)(1U << sim_rng_below(&h->rng, 8));
    return c;
}

static int64_t write_any(struct host_file *file, uint64_t offset, const struct vec *from, bool wait)
{
    struct sim_host *h = sim_of(file->host);
    struct sim_inode *i = sim_file_of(file)->inode;
    int rc = sim_fault_hit(h, SIM_WRITE);
    enum sim_damage damage = rc ? SIM_NO_DAMAGE : sim_damage_hit(h, SIM_WRITE);
    if (!aligned(file, offset, from))
        return -EINVAL;
    if (!range_fits(offset, from->bytes, i->device ? i->now.size : SIM_MAX_FILE))
        return i->device ? -ENOSPC : -EFBIG;
    struct sim_change *c = prepare_write(h, i, offset, from, rc, damage);
    if (!c)
        return -ENOMEM;
    bool nothing = rc < 0 && c->bytes == 0;
    if (!nothing)
        sim_change_issue(h, c);
    if (wait)
        co_sim_latency(h);
    int done = nothing ? 0 : finish_write(h, c, damage);
    sim_change_drop(c);
    if (rc < 0 || done < 0)
        return rc < 0 ? rc : done;
    return (int64_t)from->bytes;
}

int sim_write(struct host_file *file, uint64_t offset, const struct vec *from)
{
    int64_t n = write_any(file, offset, from, true);
    return n < 0 ? (int)n : 0;
}

int64_t sim_write_now(struct host_file *file, uint64_t offset, const struct vec *from)
{
    struct sim_host *h = sim_of(file->host);
    if (!h->options.in_order && sim_rng_below(&h->rng, 2))
        return -EAGAIN;
    return write_any(file, offset, from, false);
}

bool sim_resident(struct host_file *file, uint64_t offset, uint64_t bytes)
{
    struct sim_host *h = sim_of(file->host);
    return range_fits(offset, bytes, sim_file_of(file)->inode->now.size) &&
           (h->options.in_order || sim_rng_below(&h->rng, 4));
}

/* An fsync failed: some of what was not durable leaves the page cache, as on Linux, where the pages
 * of a failed write-back are clean afterwards and read again from the disk. Size changes stay. */
static void lose(struct sim_host *h, struct sim_inode *i)
{
    struct sim_contents kept = {sim_tree_copy(&i->durable.tree), i->durable.size};
    bool all = sim_rng_below(&h->rng, 2);
    for (struct sim_change *c = i->pending.first; c; c = c->next) {
        bool keep = c->kind != CHANGE_WRITE || (!c->lost && !all && sim_rng_below(&h->rng, 2));
        c->lost = !keep;
        if (keep && !sim_apply(h, i, &kept, c, NULL))
            abort();
        if (c->kind == CHANGE_WRITE && !i->device)
            kept.size = MAX(kept.size, c->offset + c->bytes);
    }
    h->used_pages += kept.tree.pages - i->now.tree.pages;
    sim_tree_drop(&i->now.tree);
    i->now = kept;
    i->lost_at = h->calls;
}

int sim_fsync(struct host_file *file)
{
    struct sim_host *h = sim_of(file->host);
    struct sim_inode *i = sim_file_of(file)->inode;
    int rc = sim_fault_hit(h, SIM_FSYNC);
    /* A severed call never reached the kernel: whoever is killed loses nothing by it. */
    bool loss = rc < 0 && h->fault.lose_unsynced && !h->severed;
    struct sim_change *c = sim_change_new(h, CHANGE_SYNC, i, NULL);
    if (!c)
        return -ENOMEM;
    uint64_t issue = c->issue;
    c->snap = (struct sim_contents){sim_tree_copy(&i->now.tree), i->now.size};
    sim_change_issue(h, c);
    co_sim_latency(h);
    if (loss)
        lose(h, i);
    else if (rc == 0 && i->lost_at >= issue)
        rc = -EIO; /* its pages were among those that another call's failure took */
    if (rc == 0) {
        sim_change_done(h, c);
        sim_changes_settle(h, &i->pending, issue);
    }
    if (rc == 0 && issue > i->durable_issue) {
        sim_tree_drop(&i->durable.tree);
        i->durable = (struct sim_contents){sim_tree_copy(&c->snap.tree), c->snap.size};
        i->durable_issue = issue;
    }
    sim_change_drop(c);
    return rc;
}

int sim_truncate(struct host_file *file, uint64_t size)
{
    struct sim_host *h = sim_of(file->host);
    struct sim_inode *i = sim_file_of(file)->inode;
    if (i->device)
        return -EINVAL;
    if (size > SIM_MAX_FILE)
        return -EFBIG;
    struct sim_change *c = sim_change_new(h, CHANGE_TRUNCATE, i, NULL);
    if (c)
        c->bytes = size;
    return co_change(h, c, SIM_TRUNCATE);
}

int sim_fallocate(struct host_file *file, enum host_alloc_mode mode, uint64_t offset,
                  uint64_t bytes)
{
    static const enum sim_change_kind kinds[] = {
        [HOST_ALLOCATE] = CHANGE_ALLOCATE,
        [HOST_PUNCH] = CHANGE_PUNCH,
        [HOST_ZERO] = CHANGE_ZERO,
    };
    struct sim_host *h = sim_of(file->host);
    struct sim_inode *i = sim_file_of(file)->inode;
    if (bytes == 0)
        return -EINVAL;
    if (!range_fits(offset, bytes, i->device ? i->now.size : SIM_MAX_FILE))
        return i->device ? -EINVAL : -EFBIG;
    if (i->device && mode == HOST_ALLOCATE)
        return -ENOTSUP;
    struct sim_change *c = sim_change_new(h, kinds[mode], i, NULL);
    if (c) {
        c->offset = offset;
        c->bytes = bytes;
    }
    return co_change(h, c, SIM_FALLOCATE);
}

int sim_extent(struct host_file *file, uint64_t offset, bool *data, uint64_t *end)
{
    struct sim_inode *i = sim_file_of(file)->inode;
    co_sim_latency(sim_of(file->host));
    if (offset >= i->now.size)
        return -ENXIO;
    uint64_t page = offset / SIM_PAGE, next = sim_tree_next(&i->now.tree, page);
    *data = i->device || next == page;
    if (i->device) {
        *end = i->now.size;
    } else if (*data) {
        while (sim_tree_get(&i->now.tree, page))
            page++;
        *end = MIN(page * SIM_PAGE, i->now.size);
    } else {
        *end = next == UINT64_MAX ? i->now.size : MIN(next * SIM_PAGE, i->now.size);
    }
    return 0;
}

/* A copy is a write whose data is what the source holds when the call is made. */
int64_t sim_copy(struct host_file *from, uint64_t from_offset, struct host_file *to,
                 uint64_t to_offset, uint64_t bytes)
{
    struct sim_host *h = sim_of(from->host);
    int rc = sim_fault_hit(h, SIM_COPY);
    if (rc < 0) {
        co_sim_latency(h);
        return rc;
    }
    const struct sim_inode *source = sim_file_of(from)->inode;
    if (from_offset >= source->now.size || bytes == 0)
        return 0;
    bytes = MIN(MIN(bytes, source->now.size - from_offset), MiB);
    void *buf = malloc(bytes);
    if (!buf)
        return -ENOMEM;
    struct vec v = VEC_BUF(buf, bytes);
    sim_read_contents(h, source, from_offset, &v);
    int64_t n = write_any(to, to_offset, &v, true);
    free(buf);
    return n;
}

void sim_inode_stat(const struct sim_inode *i, unsigned flags, struct host_stat *out)
{
    bool direct = flags & HOST_DIRECT;
    *out = (struct host_stat){
        .type = i->device ? HOST_FILE_BLOCK : HOST_FILE_REGULAR,
        .size = i->now.size,
        .allocated = i->device ? i->now.size : i->now.tree.pages * SIM_PAGE,
        .device = 1,
        .inode = i->number,
        .request_align = direct ? SIM_SECTOR : 1,
        .memory_align = direct ? SIM_SECTOR : 1,
        .links = i->names,
    };
}

int sim_fstat(struct host_file *file, struct host_stat *out)
{
    co_sim_latency(sim_of(file->host));
    sim_inode_stat(sim_file_of(file)->inode, file->flags, out);
    return 0;
}

int sim_advise(struct host_file *f, enum host_advice advice, uint64_t offset, uint64_t bytes)
{
    return 0;
}

int sim_fd(const struct host_file *f)
{
    return -1;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_change.c - one change of a simulated disk: its data, its life, what it does to contents.
 *
 * The same sim_apply() shows a change when its call is done and builds crash states from it. */
#include <stdlib.h>

#include "block/host_sim_int.h"

struct sim_change *sim_change_new(struct sim_host *h, enum sim_change_kind kind,
                                  struct sim_inode *inode, struct sim_dir *dir)
{
    struct sim_change *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->refs = 1;
    c->kind = kind;
    c->inode = inode;
    c->dir = dir;
    c->issue = ++h->calls;
    c->issued = c->done = c->durable = SIM_NEVER;
    return c;
}

void sim_change_drop(struct sim_change *c)
{
    if (--c->refs > 0)
        return;
    for (size_t i = 0; i < c->page_count; i++)
        sim_page_drop(c->pages[i]);
    free(c->pages);
    free(c->name);
    free(c->to);
    sim_tree_drop(&c->snap.tree);
    sim_names_drop(&c->names);
    free(c);
}

bool sim_change_fill(struct sim_change *c, uint64_t offset, const struct vec *from)
{
    c->offset = offset;
    c->bytes = from->bytes;
    if (from->bytes == 0)
        return true;
    size_t count = (offset + from->bytes - 1) / SIM_PAGE - offset / SIM_PAGE + 1;
    c->pages = calloc(count, sizeof(*c->pages));
    if (!c->pages)
        return false;
    for (uint64_t at = 0; at < from->bytes;) {
        uint64_t in_page = (offset + at) % SIM_PAGE;
        uint64_t part = MIN(SIM_PAGE - in_page, from->bytes - at);
        struct sim_page *p = sim_page_new();
        if (!p)
            return false;
        c->pages[c->page_count++] = p;
        struct vec piece = vec_slice(from, at, part);
        vec_to_buf(&piece, p->bytes + in_page);
        at += part;
    }
    return true;
}

static void log_add(struct sim_host *h, struct sim_change *c)
{
    if (h->log_count == h->log_room) {
        size_t room = MAX(64, h->log_room * 2);
        struct sim_change **log = realloc(h->log, room * sizeof(*log));
        if (!log)
            abort(); /* a test without memory proves nothing */
        h->log = log;
        h->log_room = room;
    }
    h->log[h->log_count++] = c;
    c->refs++;
}

void sim_change_issue(struct sim_host *h, struct sim_change *c)
{
    if (!h->recording)
        return;
    log_add(h, c);
    c->issued = h->event_count;
    if (!h->options.in_order)
        h->event_count++;
}

void sim_change_done(struct sim_host *h, struct sim_change *c)
{
    if (h->recording) {
        if (c->issued == SIM_NEVER) { /* issued before the recording began */
            log_add(h, c);
            c->issued = h->event_count;
        }
        c->done = h->event_count++;
    }
    c->done_call = h->calls;
    if (c->kind == CHANGE_SYNC)
        return;
    struct sim_changes *list = c->inode ? &c->inode->pending : &c->dir->pending;
    c->refs++;
    c->next = NULL;
    if (list->last)
        list->last->next = c;
    else
        list->first = c;
    list->last = c;
}

/* The list is in order of being done, so what an earlier call found done is its front. */
void sim_changes_settle(struct sim_host *h, struct sim_changes *list, uint64_t issue)
{
    while (list->first && list->first->done_call < issue) {
        struct sim_change *c = list->first;
        list->first = c->next;
        if (!list->first)
            list->last = NULL;
        c->durable = h->recording ? h->event_count - 1 : 0;
        sim_change_drop(c);
    }
}

void sim_changes_drop(struct sim_changes *list)
{
    while (list->first) {
        struct sim_change *c = list->first;
        list->first = c->next;
        sim_change_drop(c);
    }
    list->last = NULL;
}

void sim_garbage(const struct sim_host *h, const struct sim_inode *inode, uint64_t page,
                 uint8_t *to)
{
    struct sim_rng r;
    sim_rng_seed(&r, sim_mix(sim_mix(h->garbage, inode->number), page));
    for (unsigned i = 0; i < SIM_PAGE; i += 8) {
        uint64_t word = sim_rng_next(&r);
        memcpy(to + i, &word, 8);
    }
}

static struct sim_page *edit_page(const struct sim_host *h, const struct sim_inode *inode,
                                  struct sim_contents *to, uint64_t page)
{
    bool fresh;
    struct sim_page *p = sim_tree_edit(&to->tree, page, &fresh);
    if (p && fresh && inode->device)
        sim_garbage(h, inode, page, p->bytes);
    return p;
}

/* Copies of [from, to) of one page what the tearing leaves. */
static void copy_sectors(uint8_t *dst, const uint8_t *src, uint32_t from, uint32_t to,
                         struct sim_rng *tear)
{
    for (uint32_t at = from; at < to;) {
        uint32_t end = tear ? MIN(to, (uint32_t)align_down(at, SIM_SECTOR) + SIM_SECTOR) : to;
        if (!tear || sim_rng_below(tear, 2))
            memcpy(dst + at, src + at, end - at);
        at = end;
    }
}

static bool apply_write(const struct sim_host *h, const struct sim_inode *inode,
                        struct sim_contents *to, const struct sim_change *c, struct sim_rng *tear)
{
    uint64_t end = c->offset + c->bytes;
    for (size_t i = 0; i < c->page_count; i++) {
        uint64_t page = c->offset / SIM_PAGE + i, base = page * SIM_PAGE;
        uint32_t from = (uint32_t)(MAX(base, c->offset) - base);
        uint32_t upto = (uint32_t)(MIN(base + SIM_PAGE, end) - base);
        if (from == 0 && upto == SIM_PAGE && !tear) {
            if (!sim_tree_put(&to->tree, page, c->pages[i]))
                return false;
            continue;
        }
        struct sim_page *p = edit_page(h, inode, to, page);
        if (!p)
            return false;
        copy_sectors(p->bytes, c->pages[i]->bytes, from, upto, tear);
    }
    if (!inode->device && c->bytes > 0)
        to->size = MAX(to->size, end);
    return true;
}

/* Zeroes [from, to): whole pages become holes (zero pages on devices), edges are written. */
static bool zero_range(const struct sim_host *h, const struct sim_inode *inode,
                       struct sim_contents *to, uint64_t from, uint64_t upto)
{
    while (from < upto) {
        uint64_t page = from / SIM_PAGE, in = from % SIM_PAGE,
                 end = MIN(upto, (page + 1) * SIM_PAGE);
        if (in == 0 && !inode->device && upto - from >= SIM_PAGE) {
            if (!sim_tree_clear(&to->tree, page, upto / SIM_PAGE))
                return false;
            from = align_down(upto, SIM_PAGE);
            continue;
        }
        if (inode->device || sim_tree_get(&to->tree, page)) {
            struct sim_page *p = edit_page(h, inode, to, page);
            if (!p)
                return false;
            memset(p->bytes + in, 0, end - from);
        }
        from = end;
    }
    return true;
}

static bool apply_truncate(const struct sim_host *h, const struct sim_inode *inode,
                           struct sim_contents *to, uint64_t size)
{
    if (inode->device)
        return true;
    if (size < to->size) {
        uint64_t edge = MIN(align_up(size, SIM_PAGE), to->size);
        if (!zero_range(h, inode, to, size, edge) ||
            !sim_tree_clear(&to->tree, div_up(size, SIM_PAGE), UINT64_MAX))
            return false;
    }
    to->size = size;
    return true;
}

bool sim_apply(const struct sim_host *h, const struct sim_inode *inode, struct sim_contents *to,
               const struct sim_change *c, struct sim_rng *tear)
{
    uint64_t end = inode->device ? MIN(c->offset + c->bytes, to->size) : c->offset + c->bytes;
    switch (c->kind) {
    case CHANGE_WRITE:
        return apply_write(h, inode, to, c, tear);
    case CHANGE_TRUNCATE:
        return apply_truncate(h, inode, to, c->bytes);
    case CHANGE_ALLOCATE:
        to->size = inode->device ? to->size : MAX(to->size, end);
        return true;
    case CHANGE_PUNCH: /* of a device: what it reads as is unspecified, so garbage */
        if (inode->device)
            return sim_tree_clear(&to->tree, div_up(c->offset, SIM_PAGE), end / SIM_PAGE);
        return zero_range(h, inode, to, c->offset, MIN(end, to->size));
    case CHANGE_ZERO:
        return zero_range(h, inode, to, c->offset, MIN(end, to->size));
    default:
        return true;
    }
}

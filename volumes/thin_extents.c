/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_extents.c - mappings as runs; sparse counts. */
#include "volumes/thin_extents.h"

#define PAGE_COUNTS 4096

/* --- counts -----------------------------------------------------------------------------------
 */

int thin_counts_init(struct thin_counts *c, uint64_t blocks)
{
    c->page_count = div_up(blocks, PAGE_COUNTS);
    c->pages = mem_array(MAX(c->page_count, 1), sizeof(*c->pages));
    return c->pages ? 0 : -ENOMEM;
}

void thin_counts_drop(struct thin_counts *c)
{
    for (uint64_t i = 0; c->pages && i < c->page_count; i++)
        mem_free(c->pages[i]);
    mem_free(c->pages);
}

int thin_counts_add(struct thin_counts *c, uint64_t block)
{
    uint64_t page = block / PAGE_COUNTS;
    if (page >= c->page_count)
        return 0;
    if (!c->pages[page])
        c->pages[page] = mem_array(PAGE_COUNTS, sizeof(uint32_t));
    if (!c->pages[page])
        return -ENOMEM;
    c->pages[page][block % PAGE_COUNTS]++;
    return 0;
}

uint32_t thin_counts_get(const struct thin_counts *c, uint64_t block)
{
    uint64_t page = block / PAGE_COUNTS;
    return page < c->page_count && c->pages[page] ? c->pages[page][block % PAGE_COUNTS] : 0;
}

/* --- mappings ---------------------------------------------------------------------------------
 */

struct reading {
    struct thin_reader *r;
    struct thin_meta *m;
    struct thin_extent run;
    uint64_t device;
};

static int end_run(struct reading *g)
{
    struct thin_extent run = g->run;
    g->run.length = 0;
    return run.length && g->r->extent ? g->r->extent(g->r, &run) : 0;
}

static int on_entry(struct thin_walk *w, uint64_t key, const uint8_t *value)
{
    struct reading *g = w->arg;
    uint64_t mapping = le64_get(*(const le64 *)value), data = thin_mapping_block(mapping);
    uint32_t time = thin_mapping_time(mapping);
    struct thin_extent *x = &g->run;
    if (x->length && x->begin + x->length == key && x->data + x->length == data &&
        (g->r->any_time || x->time == time)) {
        x->length++;
        return 0;
    }
    TRY(end_run(g));
    *x = (struct thin_extent){key, data, 1, time};
    return 0;
}

static int on_bad(struct thin_walk *w, uint64_t number, const char *wrong)
{
    struct reading *g = w->arg;
    if (g->r->bad++ == 0)
        err_set(&g->r->first, -EBADMSG, "block %" PRIu64 ": %s", number, wrong);
    return 0;
}

static int co_read_device(struct reading *g, uint32_t id, const struct thin_detail *d)
{
    uint64_t root;
    struct thin_walk w = {.tree = &thin_mappings, .entry = on_entry, .bad = on_bad, .arg = g};
    int rc = co_thin_root(g->m, id, &root);
    if (rc == -ENOMEM)
        return rc;
    if (g->r->device)
        TRY(g->r->device(g->r, id, d));
    if (rc < 0)
        TRY(on_bad(&w, g->m->super.mapping_root, "the mappings of a device are missing"));
    else
        TRY(co_thin_walk(&g->m->cache, &w, root));
    TRY(end_run(g));
    return g->r->device_end ? g->r->device_end(g->r) : 0;
}

static int on_detail(struct thin_walk *w, uint64_t key, const uint8_t *value)
{
    struct thin_detail d = thin_detail_get(value);
    return key <= THIN_ID_MOST ? co_read_device(w->arg, (uint32_t)key, &d) : 0;
}

int co_thin_read(struct thin_meta *m, const uint32_t *id, struct thin_reader *r)
{
    struct reading g = {.r = r, .m = m};
    struct thin_detail d;
    if (id) {
        TRY(co_thin_detail(m, *id, &d));
        return co_read_device(&g, *id, &d);
    }
    struct thin_walk w = {.tree = &thin_details, .entry = on_detail, .bad = on_bad, .arg = &g};
    return co_thin_walk(&m->cache, &w, m->super.details_root);
}

int co_thin_use_snapshot(struct thin_meta *m)
{
    struct thin_block *b;
    struct thin_super held;
    struct blk_error e;
    uint64_t at = m->super.held_root;
    if (at == 0)
        return -ENOENT;
    TRY(co_thin_get(&m->cache, at, THIN_SUPER, &b));
    int rc = thin_super_parse(b->data, at, m->cache.blocks, &held, &e);
    thin_put(&m->cache, b);
    if (rc == 0)
        m->super = held;
    return rc;
}

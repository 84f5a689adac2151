/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_cells.c - pages of mappings that any worker may look at. */
#include "volumes/thin_cells.h"

#define LIFE_BITS 20

static struct thin_cell_page *const *slot_of(const struct thin_cells *c, uint64_t number)
{
    return &c->pages[number % THIN_PAGES_MOST];
}

static bool is_of(uint64_t tag, uint64_t number)
{
    return tag >> LIFE_BITS == number + 1;
}

/* Another life, of nobody or of a page. */
static uint64_t next_tag(uint64_t tag, uint64_t owner)
{
    return owner << LIFE_BITS | ((tag + 1) & ((1ULL << LIFE_BITS) - 1));
}

thin_cell thin_cells_get(const struct thin_cells *c, uint64_t block)
{
    uint64_t number = block / THIN_PAGE;
    const struct thin_cell_page *p = __atomic_load_n(slot_of(c, number), __ATOMIC_SEQ_CST);
    if (!p)
        return 0;
    uint64_t tag = __atomic_load_n(&p->tag, __ATOMIC_SEQ_CST);
    thin_cell cell = __atomic_load_n(&p->cells[block % THIN_PAGE], __ATOMIC_SEQ_CST);
    if (!is_of(tag, number) || __atomic_load_n(&p->tag, __ATOMIC_SEQ_CST) != tag)
        return 0;
    return cell;
}

bool thin_cells_fill(struct thin_cells *c, uint64_t block, const thin_cell cells[THIN_PAGE])
{
    uint64_t number = block / THIN_PAGE;
    struct thin_cell_page *p = *slot_of(c, number);
    if (!p) {
        p = mem_zalloc(sizeof(*p));
        if (!p)
            return false;
        __atomic_store_n(&c->pages[number % THIN_PAGES_MOST], p, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&p->tag, next_tag(p->tag, 0), __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < THIN_PAGE; i++)
        __atomic_store_n(&p->cells[i], cells[i], __ATOMIC_SEQ_CST);
    __atomic_store_n(&p->tag, next_tag(p->tag, number + 1), __ATOMIC_SEQ_CST);
    return true;
}

void thin_cells_set(struct thin_cells *c, uint64_t block, thin_cell cell)
{
    struct thin_cell_page *p = *slot_of(c, block / THIN_PAGE);
    if (p && is_of(p->tag, block / THIN_PAGE))
        __atomic_store_n(&p->cells[block % THIN_PAGE], cell, __ATOMIC_SEQ_CST);
}

void thin_cells_own(struct thin_cells *c, uint64_t block)
{
    thin_cell cell = thin_cells_get(c, block);
    if (thin_cell_mapped(cell))
        thin_cells_set(c, block, cell | 1);
}

void thin_cells_make_holes(struct thin_cells *c, uint64_t block, uint64_t end)
{
    for (uint64_t next; block < end; block = next) {
        const struct thin_cell_page *p = *slot_of(c, block / THIN_PAGE);
        next = MIN(end, (block / THIN_PAGE + 1) * THIN_PAGE);
        for (; p && block < next; block++)
            thin_cells_set(c, block, THIN_HOLE);
    }
}

void thin_cells_forget(struct thin_cells *c)
{
    for (unsigned i = 0; i < THIN_PAGES_MOST; i++)
        if (c->pages[i])
            __atomic_store_n(&c->pages[i]->tag, next_tag(c->pages[i]->tag, 0), __ATOMIC_SEQ_CST);
}

void thin_cells_drop(struct thin_cells *c)
{
    for (unsigned i = 0; i < THIN_PAGES_MOST; i++)
        mem_free(c->pages[i]);
}

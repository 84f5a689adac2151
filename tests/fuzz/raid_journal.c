/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_journal.c - any bytes as meta blocks of md's journal, one behind the other: what they
 * describe lies in the array, and of all of it at most one block of each kind counts for each page.
 *
 * The input's first byte says the level; then come payloads, in portions of what a meta block has
 * room for. Heads and checksums are made, or nothing would be seen of what is behind them. */
#include <stdlib.h>

#include "raid/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define SEED 0x1234567

static void must(bool yes)
{
    if (!yes)
        __builtin_trap();
}

static void fill_meta(struct journal_meta_disk *m, const uint8_t *data, size_t bytes)
{
    memset(m, 0, sizeof(*m));
    m->magic = le32_of(JOURNAL_MAGIC);
    m->version = 1;
    m->bytes = le32_of((uint32_t)(JOURNAL_HEAD + bytes));
    memcpy(m->payload, data, bytes);
    journal_seal(m, SEED);
    must(journal_is_meta(m, SEED, 0) &&
         !journal_is_meta(m, SEED, 0)); /* its checksum is taken out */
}

/* Gives the blocks that it describes. */
static unsigned walk(const struct journal_meta_disk *m, const struct raid_shape *shape)
{
    struct journal_payload p;
    unsigned at = JOURNAL_HEAD, before = at, blocks = 0;
    while (journal_next(m, shape, &at, &p) > 0) {
        must(at > before && at <= le32_get(m->bytes));
        must(p.blocks <= 2 && p.stripe_count <= sizeof(m->payload) / 8);
        blocks += p.blocks;
        before = at;
    }
    return blocks;
}

static void check_items(const struct journal_items *items, const struct raid_shape *shape)
{
    size_t alone = 0;
    for (size_t i = 0; i < items->count; i++) {
        const struct journal_item *item = &items->item[i], *before = i ? item - 1 : item;
        must(item->kind == ITEM_WHOLE || item->kind == ITEM_ALONE);
        must(item->role < shape->disks && item->block > 0);
        must(range_fits(item->page * JOURNAL_BLOCK, JOURNAL_BLOCK, shape->member));
        must(i == 0 || before->page < item->page ||
             (before->page == item->page &&
              (before->role < item->role ||
               (before->role == item->role && before->kind < item->kind))));
        must(items->item[journal_find(items, item->page)].page == item->page);
        alone += item->kind == ITEM_ALONE;
    }
    must(items->alone == alone);
}

static void use(const struct raid_shape *shape, const uint8_t *data, size_t bytes)
{
    struct journal_meta_disk *m = mem_aligned(sizeof(*m));
    struct journal_items items = {0};
    uint32_t block = 0;
    if (!m)
        abort();
    for (size_t at = 0, n; at < bytes; at += n) {
        n = MIN(bytes - at, sizeof(m->payload));
        fill_meta(m, data + at, n);
        unsigned blocks = walk(m, shape);
        if (journal_gather(m, shape, block, &items) < 0)
            break;
        block += 1 + blocks;
    }
    journal_fold(&items, shape->disks);
    check_items(&items, shape);
    mem_free(items.item);
    mem_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct raid_shape shape;
    struct blk_error e = {0};
    if (bytes == 0)
        return 0;
    struct raid_wanted w = {.level = 4 + data[0] % 3,
                            .layout = data[0] % 3 ? LEFT_SYMMETRIC : 0,
                            .disks = 5,
                            .chunk = 16 * KiB,
                            .used = MiB};
    must(raid_shape_init(&shape, &w, &e) == 0);
    use(&shape, data + 1, bytes - 1);
    raid_shape_drop(&shape);
    return 0;
}

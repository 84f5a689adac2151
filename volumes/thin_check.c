/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_check.c - the full check of a pool's metadata.
 *
 * Trees are walked from the superblock (and from that of a metadata snapshot). A node that several
 * parents share is read once: how many entries lie below it is kept. */
#include "volumes/thin_check.h"
#include "volumes/thin_extents.h"

#include <stdarg.h>
#include <stdio.h>

#define SAID_MOST 1000 /* of one run */

struct check {
    struct thin_check *c;
    struct thin_meta m;
    uint32_t *found;         /* references of each metadata block */
    uint64_t *below;         /* mappings below a node of a device's tree */
    struct thin_counts data; /* references of data blocks */
    uint64_t said;
    uint64_t start[THIN_DEPTH_MOST + 1]; /* entries when a node of that depth was entered */
    const char *where;                   /* static: the tree that is walked */
    uint64_t device;
};

printf_like(2, 3) static void say(struct check *k, const char *fmt, ...)
{
    struct blk_error text;
    va_list args;
    if (!k->c->say || k->said++ >= SAID_MOST)
        return;
    va_start(args, fmt);
    vsnprintf(text.text, sizeof(text.text), fmt, args);
    va_end(args);
    k->c->say(k->c, text.text);
}

/* --- references -------------------------------------------------------------------------------
 */

/* One more to a metadata block: 1 if it was known already, or is none. */
static int refer(struct check *k, uint64_t number)
{
    if (number == 0 || number >= k->m.super.metadata.blocks)
        return 0; /* reading it says so */
    return k->found[number]++ > 0;
}

static int on_node(struct thin_walk *w, uint64_t number)
{
    return refer(w->arg, number);
}

static int on_bad(struct thin_walk *w, uint64_t number, const char *wrong)
{
    struct check *k = w->arg;
    k->c->errors++;
    say(k, "%s: block %" PRIu64 ": %s", k->where, number, wrong);
    return 0;
}

static int refer_data(struct check *k, uint64_t block)
{
    if (block >= k->m.super.data.blocks && k->m.super.data.blocks) {
        k->c->errors++;
        say(k, "device %" PRIu64 " maps data block %" PRIu64 ", which the pool has not", k->device,
            block);
        return 0;
    }
    return thin_counts_add(&k->data, block);
}

/* --- devices ----------------------------------------------------------------------------------
 */

static int on_mapping(struct thin_walk *w, uint64_t key, const uint8_t *value)
{
    return refer_data(w->arg, thin_mapping_block(le64_get(*(const le64 *)value)));
}

static int on_mapping_node(struct thin_walk *w, uint64_t number)
{
    struct check *k = w->arg;
    int known = refer(k, number);
    if (known)
        w->entries += k->below[number];
    else
        k->start[w->depth] = w->entries;
    return known;
}

static void on_mapping_left(struct thin_walk *w, uint64_t number)
{
    struct check *k = w->arg;
    if (number < k->m.super.metadata.blocks)
        k->below[number] = w->entries - k->start[w->depth];
}

static int on_device(struct thin_walk *w, uint64_t id, const uint8_t *value)
{
    struct check *k = w->arg;
    struct thin_detail d;
    struct thin_walk mappings = {.tree = &thin_mappings,
                                 .node = on_mapping_node,
                                 .bad = on_bad,
                                 .entry = on_mapping,
                                 .left = on_mapping_left,
                                 .arg = k};
    uint64_t errors = k->c->errors;
    k->where = "mappings of a device";
    k->device = id;
    k->c->devices++;
    TRY(co_thin_walk(&k->m.cache, &mappings, le64_get(*(const le64 *)value)));
    k->where = "the tree of devices";
    k->c->mappings += mappings.entries;
    int rc = id <= THIN_ID_MOST ? co_thin_detail(&k->m, (uint32_t)id, &d) : -ENOENT;
    if (rc < 0) {
        k->c->errors++;
        say(k, "device %" PRIu64 " has mappings and no details", id);
    } else if (d.mapped != mappings.entries && errors == k->c->errors) {
        k->c->errors++;
        say(k, "device %" PRIu64 " has %" PRIu64 " mappings and counts %" PRIu64, id,
            mappings.entries, d.mapped);
    }
    return 0;
}

static int on_detail(struct thin_walk *w, uint64_t id, const uint8_t *value)
{
    struct check *k = w->arg;
    le64 root;
    int rc = co_thin_lookup(&k->m, &thin_devices, k->m.super.mapping_root, id, &root);
    if (rc == -ENOENT) {
        k->c->errors++;
        say(k, "device %" PRIu64 " has details and no mappings", id);
    }
    return rc == -ENOMEM ? rc : 0;
}

static int co_walk(struct check *k, const char *where, const struct thin_tree *t, uint64_t root,
                   int (*entry)(struct thin_walk *, uint64_t, const uint8_t *))
{
    struct thin_walk w = {.tree = t, .node = on_node, .bad = on_bad, .entry = entry, .arg = k};
    k->where = where;
    return co_thin_walk(&k->m.cache, &w, root);
}

static int co_walk_devices(struct check *k, const struct thin_super *s)
{
    TRY(co_walk(k, "the tree of devices", &thin_devices, s->mapping_root,
                k->c->skip_mappings ? NULL : on_device));
    return co_walk(k, "the tree of details", &thin_details, s->details_root, on_detail);
}

/* A metadata snapshot is a superblock of its own. */
static int co_walk_held(struct check *k)
{
    struct thin_super live = k->m.super;
    if (live.held_root == 0)
        return 0;
    refer(k, live.held_root);
    int rc = co_thin_use_snapshot(&k->m);
    if (rc < 0) {
        k->c->errors++;
        say(k, "the metadata snapshot cannot be read");
        return rc == -ENOMEM ? rc : 0;
    }
    rc = co_walk_devices(k, &k->m.super);
    k->m.super = live;
    return rc;
}

/* --- space maps -------------------------------------------------------------------------------
 */

static int on_index(struct thin_walk *w, uint64_t key, const uint8_t *value)
{
    refer(w->arg, le64_get(((const struct thin_index_disk *)value)->number));
    return 0;
}

static int co_walk_maps(struct check *k)
{
    const struct thin_super *s = &k->m.super;
    TRY(co_walk(k, "the data space map", &thin_bitmaps, s->data.bitmap_root, on_index));
    TRY(co_walk(k, "the data space map's counts", &thin_overflow, s->data.overflow_root, NULL));
    TRY(co_walk(k, "the metadata space map's counts", &thin_overflow, s->metadata.overflow_root,
                NULL));
    refer(k, s->metadata.bitmap_root);
    for (unsigned i = 0; i < div_up(s->metadata.blocks, THIN_PER_BITMAP); i++)
        refer(k, k->m.meta_space.bitmaps[i]);
    return 0;
}

static void compare(struct check *k, const char *what, uint64_t block, uint32_t says,
                    uint32_t found)
{
    if (says == found)
        return;
    *(says > found ? &k->c->leaks : &k->c->errors) += 1;
    say(k, "%s block %" PRIu64 " has %u references and counts %u", what, block, found, says);
}

static int co_compare_data(struct check *k)
{
    for (uint64_t block = 0; block < k->m.space.root.blocks; block++) {
        uint32_t says;
        int rc = co_thin_count(&k->m, block, &says);
        if (rc == 0) {
            compare(k, "data", block, says, thin_counts_get(&k->data, block));
            continue;
        }
        if (rc == -ENOMEM)
            return rc;
        k->c->errors++;
        say(k, "the data space map cannot be read at block %" PRIu64, block);
        block =
            rc == -ENOENT ? block : block / THIN_PER_BITMAP * THIN_PER_BITMAP + THIN_PER_BITMAP - 1;
    }
    return 0;
}

static int co_compare(struct check *k)
{
    for (uint64_t block = 0; block < k->m.super.metadata.blocks; block++)
        compare(k, "metadata", block, k->m.meta_space.counts[block],
                k->found[block] + (block == 0));
    return co_compare_data(k);
}

/* --- all of it --------------------------------------------------------------------------------
 */

static int co_load_maps(struct check *k)
{
    struct blk_error e = {0};
    int rc = co_thin_meta_space_load(&k->m);
    if (rc == -EBADMSG) {
        k->c->errors++;
        say(k, "the metadata space map cannot be read: block %" PRIu64 ": %s",
            k->m.cache.bad_number, k->m.cache.bad ? k->m.cache.bad : "it cannot be read");
        return 0;
    }
    TRY(rc);
    rc = co_thin_space_load(&k->m, &e);
    if (rc == -ENOMEM)
        return rc;
    if (rc < 0) {
        k->c->errors++;
        say(k, "%s", e.text);
    }
    return 0;
}

static int co_run(struct check *k)
{
    uint64_t errors;
    TRY(co_load_maps(k));
    TRY(co_walk_devices(k, &k->m.super));
    TRY(co_walk_held(k));
    errors = k->c->errors;
    if (errors || k->c->skip_mappings)
        return 0; /* what could not be read cannot be counted */
    TRY(co_walk_maps(k));
    return k->c->errors ? 0 : co_compare(k);
}

static int make_room(struct check *k)
{
    uint64_t blocks = k->m.super.metadata.blocks;
    k->found = mem_array(blocks, sizeof(*k->found));
    k->below = mem_array(blocks, sizeof(*k->below));
    return k->found && k->below ? thin_counts_init(&k->data, k->m.super.data.blocks) : -ENOMEM;
}

static void drop(struct check *k)
{
    thin_counts_drop(&k->data);
    mem_free(k->below);
    mem_free(k->found);
    thin_meta_close(&k->m);
    mem_free(k);
}

int co_thin_check(struct blk_device *dev, struct thin_check *c, struct blk_error *e)
{
    struct check *k = mem_zalloc(sizeof(*k));
    if (!k)
        return err_set(e, -ENOMEM, "out of memory");
    k->c = c;
    int rc = co_thin_meta_open(&k->m, dev, NULL, false, 32 * MiB, e);
    if (rc < 0) {
        mem_free(k);
        return rc;
    }
    rc = make_room(k);
    if (rc == 0)
        rc = co_run(k);
    drop(k);
    return rc < 0 ? err_errno(e, rc, "%s could not be checked", dev->name) : 0;
}

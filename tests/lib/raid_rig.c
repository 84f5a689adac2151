/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_rig.c - see raid_rig.h. */
#include "tests/lib/raid_rig.h"

#include "block/fault.h"
#include "raid/bitmap.h"
#include "raid/md.h"

void rig_super(const struct rig *r, unsigned i, struct md_super *s)
{
    memset(s, 0, sizeof(*s));
    s->version = MD_1_2;
    s->super_offset = 4096;
    s->level = r->level;
    s->layout = r->layout;
    s->disks = r->disks;
    s->events = 5;
    s->number = i;
    s->chunk = r->level == 1 ? 0 : RIG_CHUNK;
    s->data_offset = RIG_DATA_AT;
    s->size = r->level > 0 ? RIG_DATA : 0;
    s->data_size = RIG_DATA;
    s->resync_offset = s->recovery_offset = UINT64_MAX;
    memcpy(s->uuid, "test-array-uuid!", 16);
    if (r->lists) { /* in the page behind the superblock */
        s->bad_offset = 4096;
        s->bad_bytes = 4096;
        s->bad_shift = 9;
    }
    if (r->bitmap) {
        s->features |= MD_BITMAP;
        s->bitmap_offset = MD_SUPER_BYTES;
    }
    if (r->ppl) { /* behind that */
        s->features |= MD_PPL;
        s->ppl_offset = 8192;
        s->ppl_bytes = 64 * KiB;
    }
    if (r->level == 0)
        s->features = MD_RAID0_LAYOUT;
    if (r->journal) {
        s->features |= MD_JOURNAL;
        must(md_super_set_role(s, r->disks, MD_ROLE_JOURNAL));
    }
    if (r->dm_layout) {
        s->version = MD_DM_RAID;
        s->super_offset = 0;
        s->features = MD_BITMAP;
        s->bitmap_offset = MD_SUPER_BYTES;
        s->data_size = s->size = RIG_DISK - RIG_DATA_AT; /* all that is there */
    }
    for (unsigned k = 0; k < r->disks; k++)
        must(md_super_set_role(s, k, k));
    md_super_build(s);
}

int co_rig_bitmap(struct blk_device *dev, const struct md_super *s)
{
    struct md_bitmap b = {.events = s->events,
                          .events_cleared = s->events,
                          .sync_bytes = s->level == 10 ? s->disks / 2 * s->data_size : s->data_size,
                          .chunk = 16 * KiB,
                          .daemon_sleep = 5};
    b.bits = b.sync_bytes / b.chunk;
    if (s->version != MD_DM_RAID) /* there it has none */
        memcpy(b.uuid, s->uuid, sizeof(b.uuid));
    return co_bitmap_make(dev, s->super_offset + MD_SUPER_BYTES, 4096, &b, false);
}

static void co_write_super(struct rig *r, unsigned i)
{
    struct md_super *s = mem_alloc(sizeof(*s));
    must(s);
    rig_super(r, i, s);
    must(co_blk_write_buf(r->disk[i], s->super_offset, s->raw, MD_SUPER_BYTES, 0) == 0);
    must(!(s->features & MD_BITMAP) || co_rig_bitmap(r->disk[i], s) == 0);
    mem_free(s);
}

void co_rig_init(struct rig *r, int level, uint32_t layout, unsigned disks)
{
    *r = (struct rig){.level = level, .layout = layout, .disks = disks};
    co_rig_make(r);
}

void co_rig_make(struct rig *r)
{
    r->extra = r->journal;
    must(r->disks + r->extra <= RIG_MOST);
    for (unsigned i = 0; i < r->disks + r->extra; i++) {
        r->disk[i] = co_open_text(&mem_driver, "size=4M,growable=off", NULL);
        must(r->disk[i]->size == RIG_DISK);
        co_write_super(r, i);
    }
}

/* What the text of LVM2 says of an array. */
static json_t *dm_options(const struct rig *r)
{
    json_t *o = json_pack("{s:s, s:i, s:i, s:s}", "superblocks", "dm-raid", "data-offset",
                          (int)RIG_DATA_AT, "chunk", (int)RIG_CHUNK, "layout", r->dm_layout);
    must(o && json_object_set_new(o, "level", json_sprintf("%d", r->level)) == 0);
    return o;
}

int co_rig_open(struct rig *r, unsigned without, unsigned at, const char *fault,
                struct blk_error *e)
{
    struct blk_child parts[RIG_MOST];
    size_t count = 0;
    for (unsigned n = 0; n < r->disks + r->extra; n++) {
        unsigned i = r->disks + r->extra - 1 - n; /* not in the order of their roles */
        if (without >> i & 1)
            continue;
        struct blk_device *dev = blk_ref(r->disk[i]);
        if (fault && (i == at || at == RIG_ALL))
            dev = co_open_text(&fault_driver, fault, dev);
        parts[count++] = (struct blk_child){"member", dev};
    }
    json_auto_t *options = r->dm_layout ? dm_options(r) : json_object();
    must(options && json_object_set_new(options, "force", json_boolean(r->force)) == 0);
    return co_blk_open(&md_driver, NULL, options, r->reads ? 0 : BLK_OPEN_WRITE, NULL, parts, count,
                       &r->array, e);
}

void co_rig_reopen(struct rig *r, unsigned without, unsigned at, const char *fault)
{
    struct blk_error e = {0};
    if (co_rig_open(r, without, at, fault, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    if (!r->model)
        r->model = mem_zalloc(r->array->size);
    must(r->model);
}

void co_rig_close(struct rig *r)
{
    must(co_blk_close(r->array, NULL) == 0);
    r->array = NULL;
}

void co_rig_drop(struct rig *r)
{
    for (unsigned i = 0; i < r->disks + r->extra; i++)
        must(co_blk_close(r->disk[i], NULL) == 0);
    mem_free(r->model);
}

void co_rig_end(struct rig *r)
{
    co_rig_close(r);
    co_rig_drop(r);
}

void co_rig_end_compared(struct rig *r)
{
    co_rig_compare(r);
    co_rig_close(r);
    co_rig_reopen(r, 0, 0, NULL);
    co_rig_compare(r);
    co_rig_end(r);
}

int co_rig_member(struct rig *r, enum blk_member_action action, const char *name,
                  struct blk_device *dev, struct blk_error *e)
{
    struct blk_member_change c = {.action = action, .name = name, .device = dev};
    return co_blk_member(r->array, &c, e);
}

/* --- work --------------------------------------------------------------------------------------
 */

static void fill(uint8_t *to, uint64_t offset, uint64_t bytes, uint8_t seed)
{
    for (uint64_t i = 0; i < bytes; i++) {
        uint64_t at = offset + i;
        to[i] = seed ? (uint8_t)(seed + at + (at >> 9) * 37 + (at >> 16) * 91) : 0;
    }
}

int co_rig_put(struct rig *r, uint64_t offset, uint64_t bytes, uint8_t seed)
{
    fill(r->model + offset, offset, bytes, seed);
    if (!seed)
        return co_blk_write_zeroes(r->array, offset, bytes, BLK_MAY_UNMAP);
    auto_free uint8_t *buf = mem_aligned(bytes);
    must(buf);
    memcpy(buf, r->model + offset, bytes);
    return co_blk_write_buf(r->array, offset, buf, bytes, seed % 7 ? 0 : BLK_FUA);
}

struct job {
    struct rig *r;
    uint64_t offset, bytes;
    uint8_t seed;
};

static int co_job(void *arg)
{
    struct job *j = arg;
    return co_rig_put(j->r, j->offset, j->bytes, j->seed);
}

/* Each in its own sixteenth. */
void co_rig_work(struct rig *r, unsigned rounds)
{
    uint64_t part = r->array->size / 16;
    for (unsigned n = 0; n < rounds; n++) {
        struct job jobs[16];
        struct co_group g;
        co_group_init(&g, 0);
        for (unsigned i = 0; i < 16; i++) {
            uint64_t at = (uint64_t)random() % part, bytes = 1 + (uint64_t)random() % (200 * KiB);
            if (random() % 2) {
                at = at / 4096 * 4096;
                bytes = align_up(bytes, 4096);
            }
            jobs[i] = (struct job){r, i * part + at, MIN(bytes, part - at),
                                   (uint8_t)(random() % 5 ? random() : 0)};
            co_group_start(&g, co_job, &jobs[i]);
        }
        must(co_group_wait(&g) == 0);
    }
}

void co_rig_compare(struct rig *r)
{
    auto_free uint8_t *buf = mem_aligned(MiB);
    must(buf);
    for (uint64_t at = 0; at < r->array->size; at += MiB) {
        uint64_t n = MIN(MiB, r->array->size - at);
        must(co_blk_read_buf(r->array, at, buf, n) == 0);
        if (memcmp(buf, r->model + at, n) != 0) {
            fprintf(stderr, "level %d, layout %u: wrong bytes in the MiB at %" PRIu64 "\n",
                    r->level, r->layout, at);
            abort();
        }
    }
}

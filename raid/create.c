/* SPDX-License-Identifier: BSD-3-Clause */
/* create.c - a new array.
 *
 *     0      4 KiB        8 KiB          + bitmap's room   + 4 KiB           data_offset
 *     | free | superblock | bitmap, room | bad block log   | headroom ...... | data
 *
 * A partial parity log takes the place of the bitmap. A journal lies in the data of its device;
 * what is there is of another array, so it is empty. The room for that is kept even where none is
 * made, and the headroom lets a later reshape move the data. Both grow with the device, as mdadm
 * has them. */
#include "raid/create.h"
#include "raid/bitmap.h"
#include "raid/journal.h"
#include "raid/ppl.h"
#include "raid/super.h"

#define SECTOR      512
#define PPL_ROOM    MiB
#define ROLES_LEAST 128 /* that a table has room for, so that the superblock is whole sectors */

/* --- places ------------------------------------------------------------------------------------
 */

static uint64_t bitmap_room(const struct raid_create *c, uint64_t device)
{
    if (c->ppl) /* it is in the same place */
        return PPL_ROOM;
    if (device >= 200 * GiB + 64 * KiB)
        return 128 * KiB;
    return device > 8 * GiB + 4 * KiB ? 64 * KiB : 4 * KiB;
}

static uint64_t data_offset(const struct raid_create *c, uint64_t device)
{
    uint64_t headroom = 128 * MiB;
    if (c->data_offset != RAID_DEFAULT)
        return c->data_offset;
    while (headroom > device / 1024 && (c->chunk == 0 || headroom / 2 >= 2 * c->chunk))
        headroom /= 2;
    return align_up(12 * KiB + bitmap_room(c, device) + headroom, MiB);
}

/* The part of it that is used, in the units that md rounds to. */
static uint64_t usable(const struct raid_create *c, uint64_t data)
{
    return c->level->is_zoned ? data : align_down(data, c->chunk ? c->chunk : 64 * KiB);
}

static void place(const struct raid_create *c, uint64_t device, struct md_super *s)
{
    s->super_offset = 4 * KiB;
    s->bitmap_offset = c->bitmap ? 4 * KiB : 0;
    s->ppl_offset = c->ppl ? 4 * KiB : 0;
    s->ppl_bytes = c->ppl ? PPL_ROOM : 0;
    s->bad_offset = (int64_t)(4 * KiB + bitmap_room(c, device));
    s->bad_bytes = 4 * KiB;
    s->bad_shift = 9;
    s->data_offset = data_offset(c, device);
    s->data_size = align_down(device - s->data_offset, SECTOR);
}

/* --- checks ------------------------------------------------------------------------------------
 */

static const char *name_of(const struct raid_create *c, size_t i)
{
    return c->members[i]->name ? c->members[i]->name : "a member";
}

static int check_member(const struct raid_create *c, size_t i, struct blk_error *e)
{
    uint64_t device = c->members[i]->size, data = data_offset(c, device);
    uint64_t least = 16 * KiB + bitmap_room(c, device) + 4 * KiB;
    if (data % SECTOR || data < least)
        return err_set(e, -EINVAL, "the data's offset must be whole sectors, and at least %" PRIu64,
                       least);
    if (device <= data || usable(c, device - data) < 64 * KiB)
        return err_set(e, -ENOSPC,
                       "%s is too small: %" PRIu64 " bytes, of which %" PRIu64 " come before the "
                       "data",
                       name_of(c, i), device, data);
    for (size_t k = 0; k < i; k++)
        if (c->members[k] == c->members[i])
            return err_set(e, -EINVAL, "%s is named twice", name_of(c, i));
    return 0;
}

static int check_journal(const struct raid_create *c, struct blk_error *e)
{
    const struct blk_device *dev = c->members[c->count - 1];
    uint64_t bytes = dev->size - data_offset(c, dev->size), least = journal_least(c->disks);
    if (!c->level->parities || c->bitmap || c->ppl)
        return err_set(e, -EINVAL,
                       "a journal is of raid4, raid5 and raid6, without a bitmap or partial parity "
                       "log");
    if (c->disks > JOURNAL_DISKS_MOST)
        return err_set(e, -EINVAL, "%u members are too many for a journal", c->disks);
    if (bytes < least)
        return err_set(e, -ENOSPC, "%s is too small for a journal, which takes %" PRIu64 " bytes",
                       name_of(c, c->count - 1), least);
    return 0;
}

static int check_members(const struct raid_create *c, struct blk_error *e)
{
    unsigned missing = 0;
    if (c->ppl && (c->level->number != 5 || c->bitmap))
        return err_set(e, -EINVAL, "a partial parity log is of raid5%s",
                       c->bitmap ? " without a bitmap" : "");
    for (size_t i = 0; i < c->count; i++) {
        if (c->members[i])
            TRY(check_member(c, i, e));
        else if (i >= c->disks)
            return err_set(e, -EINVAL, "a %s cannot be missing",
                           c->journal && i + 1 == c->count ? "journal" : "spare");
        missing += !c->members[i];
    }
    if (c->journal)
        TRY(check_journal(c, e));
    if (missing == c->disks)
        return err_set(e, -EINVAL, "all members are missing");
    if (c->count > c->disks && c->level->is_zoned)
        return err_set(e, -EINVAL, "%s has no use for spares", c->level->name);
    return 0;
}

static int make_shape(const struct raid_create *c, struct raid_shape *out, struct blk_error *e)
{
    auto_free uint64_t *sizes = mem_array(c->disks, sizeof(*sizes));
    auto_free bool *there = mem_array(c->disks, sizeof(*there));
    if (!sizes || !there)
        return err_set(e, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < c->disks; i++) {
        const struct blk_device *dev = c->members[i];
        there[i] = dev != NULL;
        sizes[i] = dev ? usable(c, dev->size - data_offset(c, dev->size)) : UINT64_MAX;
    }
    struct raid_wanted w = {.level = c->level->number,
                            .layout = c->layout,
                            .disks = c->disks,
                            .chunk = c->chunk,
                            .used = usable(c, c->size),
                            .members = sizes};
    TRY(raid_shape_init(out, &w, e));
    if (raid_enough(out, there))
        return 0;
    raid_shape_drop(out);
    return err_set(e, -EINVAL, "so many members of %s cannot be missing", c->level->name);
}

/* Whether all members are known to read as zeroes: then they agree in every level. */
static int co_all_zero(const struct raid_create *c, bool *zero, struct blk_error *e)
{
    *zero = true;
    for (size_t i = 0; i < c->disks && *zero; i++) {
        struct blk_device *dev = c->members[i];
        struct blk_extent ext;
        unsigned depth;
        for (uint64_t at = dev ? data_offset(c, dev->size) : 0; dev && at < dev->size && *zero;) {
            int rc = co_blk_map_chain(dev, NULL, at, dev->size - at, &ext, &depth);
            if (rc < 0)
                return err_errno(e, rc, "what %s holds cannot be told", name_of(c, i));
            *zero = ext.flags & BLK_EXT_ZERO;
            at += ext.bytes;
        }
    }
    return 0;
}

/* Whether nothing is there to disagree: parity is what brings a missing member back. */
static int judge_clean(const struct raid_create *c, struct raid_created *out, struct blk_error *e)
{
    unsigned missing = 0;
    for (unsigned i = 0; i < c->disks; i++)
        missing += !c->members[i];
    bool alone = c->level->parities ? missing == c->level->parities : c->disks == missing + 1;
    out->clean = c->level->is_zoned || c->assume_clean || out->zeroes || alone;
    if (!out->clean && c->level->parities && missing)
        return err_set(e, -EINVAL,
                       "with a member missing, P and Q of %s cannot be made to agree: leave out "
                       "another one as well, take members that read as zeroes, or tell that they "
                       "agree (--assume-clean)",
                       c->level->name);
    return 0;
}

/* --- writing -----------------------------------------------------------------------------------
 */

struct making {
    const struct raid_create *c;
    struct raid_created *out;
    struct raid_shape shape;
    struct md_super *super; /* what all say; the member's own is put in for each */
    struct md_bitmap bitmap;
};

static int fill_super(struct making *m, struct blk_error *e)
{
    const struct raid_create *c = m->c;
    struct md_super *s = m->super;
    *s = (struct md_super){.version = MD_1_2,
                           .level = c->level->number,
                           .layout = c->layout,
                           .disks = c->disks,
                           .chunk = c->chunk,
                           .size = m->shape.member,
                           .events = 1,
                           .resync_offset = m->out->clean ? UINT64_MAX : 0,
                           .recovery_offset = UINT64_MAX};
    memcpy(s->uuid, m->out->uuid, sizeof(s->uuid));
    memcpy(s->name, c->name, MIN(strlen(c->name), 32));
    s->features = (c->level->number == 0 ? MD_RAID0_LAYOUT : 0) | (c->bitmap ? MD_BITMAP : 0) |
                  (c->ppl ? MD_PPL : 0) | (c->journal ? MD_JOURNAL : 0);
    unsigned slots = (unsigned)align_up(c->count + ROLES_LEAST, 2 * ROLES_LEAST) - ROLES_LEAST;
    bool fits = md_super_set_role(s, MAX(slots, (unsigned)c->count) - 1, MD_ROLE_SPARE);
    for (unsigned i = 0; i < c->disks && fits; i++)
        fits = md_super_set_role(s, i, c->members[i] ? i : MD_ROLE_SPARE);
    if (c->journal && fits)
        fits = md_super_set_role(s, (unsigned)c->count - 1, MD_ROLE_JOURNAL);
    return fits ? 0 : err_set(e, -EINVAL, "more members than a superblock has room for");
}

static int fill_bitmap(struct making *m, struct blk_error *e)
{
    uint64_t covers = m->shape.near ? m->shape.size : m->shape.member, least = 0;
    for (size_t i = 0; i < m->c->count; i++)
        if (m->c->members[i])
            least = MAX(least, md_bitmap_chunk(covers, bitmap_room(m->c, m->c->members[i]->size)));
    m->bitmap = (struct md_bitmap){
        .events = 1, .sync_bytes = covers, .chunk = MAX(least, 64 * MiB), .daemon_sleep = 5};
    if (m->c->bitmap_chunk != RAID_DEFAULT)
        m->bitmap.chunk = m->c->bitmap_chunk;
    m->bitmap.bits = div_up(covers, m->bitmap.chunk);
    memcpy(m->bitmap.uuid, m->out->uuid, sizeof(m->bitmap.uuid));
    if (m->shape.level->is_zoned)
        return err_set(e, -EINVAL, "%s keeps nothing in sync: it has no bitmap",
                       m->shape.level->name);
    if (!is_pow2(m->bitmap.chunk) || m->bitmap.chunk < least || m->bitmap.chunk > 2 * GiB)
        return err_set(e, -EINVAL,
                       "the bitmap's chunk must be a power of two from %" PRIu64 " to 2 GiB",
                       least);
    return 0;
}

static int co_forget_old(struct blk_device *dev)
{
    uint64_t at;
    for (enum md_version v = 0; v < MD_VERSIONS; v++)
        if (md_super_place(v, dev->size, &at) && range_fits(at, MD_SUPER_BYTES, dev->size))
            TRY(co_blk_write_zeroes(dev, at, MD_SUPER_BYTES, BLK_MAY_UNMAP));
    return 0;
}

/* An empty log of bad blocks is all ones. */
static int co_write_bad_log(struct blk_device *dev, const struct md_super *s)
{
    auto_free uint8_t *ones = mem_aligned(s->bad_bytes);
    if (!ones)
        return -ENOMEM;
    memset(ones, 0xff, s->bad_bytes);
    return co_blk_write_buf(dev, s->super_offset + (uint64_t)s->bad_offset, ones, s->bad_bytes, 0);
}

int co_raid_prepare_member(struct blk_device *dev, const struct md_super *s)
{
    TRY(co_forget_old(dev));
    if (s->bad_bytes)
        TRY(co_write_bad_log(dev, s));
    if (ppl_is_in(s))
        TRY(co_ppl_clear(dev, s));
    return co_blk_flush(dev);
}

static int co_prepare(struct making *m, size_t i)
{
    struct blk_device *dev = m->c->members[i];
    const struct md_super *s = m->super;
    if (m->c->bitmap)
        TRY(co_bitmap_make(dev, s->super_offset + (uint64_t)s->bitmap_offset,
                           bitmap_room(m->c, dev->size), &m->bitmap, !m->out->clean));
    return co_raid_prepare_member(dev, s);
}

static int co_write_super(struct making *m, size_t i)
{
    struct blk_device *dev = m->c->members[i];
    struct md_super *s = m->super;
    host_random(dev->host, s->device_uuid, sizeof(s->device_uuid));
    s->ctime = s->utime = m->out->ctime;
    s->number = (unsigned)i;
    md_super_build(s);
    uint64_t bytes = md_super_bytes(s, MAX(dev->limits.request_align, SECTOR));
    return co_blk_write_buf(dev, s->super_offset, s->raw, bytes, BLK_FUA);
}

static int co_each(struct making *m, int (*co_do)(struct making *m, size_t i), struct blk_error *e)
{
    for (size_t i = 0; i < m->c->count; i++) {
        if (!m->c->members[i])
            continue;
        place(m->c, m->c->members[i]->size, m->super);
        int rc = co_do(m, i);
        if (rc < 0)
            return err_errno(e, rc, "%s", name_of(m->c, i));
    }
    return 0;
}

static int co_make(struct making *m, struct blk_error *e)
{
    TRY(co_all_zero(m->c, &m->out->zeroes, e));
    TRY(judge_clean(m->c, m->out, e));
    TRY(fill_super(m, e));
    if (m->c->bitmap)
        TRY(fill_bitmap(m, e));
    TRY(co_each(m, co_prepare, e));
    return co_each(m, co_write_super, e);
}

int co_raid_create(const struct raid_create *c, struct raid_created *out, struct blk_error *e)
{
    struct making m = {.c = c, .out = out};
    *out = (struct raid_created){0};
    TRY(check_members(c, e));
    TRY(make_shape(c, &m.shape, e));
    struct host *host = worker_self()->host;
    host_random(host, out->uuid, sizeof(out->uuid));
    out->ctime = host_wall_clock(host) / 1000000000;
    out->size = m.shape.size;
    m.super = mem_alloc(sizeof(*m.super));
    int rc = m.super ? co_make(&m, e) : err_set(e, -ENOMEM, "out of memory");
    mem_free(m.super);
    raid_shape_drop(&m.shape);
    return rc;
}

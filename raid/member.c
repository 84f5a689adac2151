/* SPDX-License-Identifier: BSD-3-Clause */
/* member.c - one device of an array: requests to its data, and its superblock. Four places are
 * looked at for that; a disk that was in several arrays may have more than one, and the array that
 * was made last is the one it is in. */
#include <stdio.h>

#include "raid/array.h"
#include "raid/badblocks.h"
#include "raid/bitmap.h"
#include "raid/foreign.h"

/* What is bad of it is not read, and is bad no more once it has been written. */
static int co_do(const struct member_io *io, const struct raid_member *m)
{
    struct blk_device *dev = m->dev;
    struct bad_list *bad = m->bad;
    uint64_t at = m->data_offset + io->offset, bytes = io->bytes;
    int rc;
    switch (io->op) {
    case MEMBER_READ:
        return bad && bad_hits(bad, at, io->vec.bytes) ? -EIO : co_blk_read(dev, at, &io->vec);
    case MEMBER_WRITE:
        bytes = io->vec.bytes;
        rc = co_blk_write(dev, at, &io->vec, io->flags);
        break;
    case MEMBER_ZERO:
        rc = co_blk_write_zeroes(dev, at, bytes, io->flags);
        break;
    default:
        return co_blk_discard(dev, at, bytes);
    }
    if (rc == 0 && bad)
        bad_clear(bad, at, bytes);
    return rc;
}

/* A6. What one cannot take it misses, or it is out, which whoever answers the write sees to (A2). A
 * discard may leave different bytes on two devices: there it is zeroes for both. */
int co_member_io(void *arg)
{
    struct member_io *io = arg;
    struct raid_member *to = io->op == MEMBER_READ ? NULL : io->m->replacement;
    if (likely(!to || to->state == MEMBER_OUT)) {
        io->rc = co_do(io, io->m);
        return 0;
    }
    if (io->op == MEMBER_DISCARD) {
        io->op = MEMBER_ZERO;
        io->flags = BLK_MAY_UNMAP;
    }
    struct member_io there = *io;
    there.m = to;
    there.flags &= ~(unsigned)BLK_NO_FALLBACK;
    io->rc = co_do(io, io->m);
    there.rc = io->rc == -ENOTSUP ? 0 : co_do(&there, to);
    if (there.rc < 0 && to->state != MEMBER_OUT)
        (void)!co_array_miss(to->array, &there, true);
    return 0;
}

int co_member_put(struct raid_member *m, uint64_t offset, uint8_t *data, uint64_t bytes)
{
    struct member_io io = {
        .m = m, .op = MEMBER_WRITE, .offset = offset, .bytes = bytes, .vec = VEC_BUF(data, bytes)};
    if (mem_is_zero(data, bytes)) {
        io.op = MEMBER_ZERO;
        io.flags = BLK_MAY_UNMAP;
    }
    co_member_io(&io);
    return io.rc < 0 ? co_array_miss(m->array, &io, true) : 0;
}

const char *member_name(const struct raid_member *m)
{
    const struct blk_device *dev = m->dev;
    while (dev->child_count > 0 && (!dev->name || strcmp(dev->name, dev->driver->name) == 0))
        dev = dev->children[0].dev;
    return dev->name ? dev->name : "a member";
}

static int co_read_one(struct blk_device *dev, enum md_version v, struct md_super *into,
                       struct blk_error *e)
{
    uint64_t place;
    if (!md_super_place(v, dev->size, &place) || !range_fits(place, MD_SUPER_BYTES, dev->size))
        return -ENODATA;
    auto_free uint8_t *raw = mem_aligned(MD_SUPER_BYTES);
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(dev, place, raw, MD_SUPER_BYTES);
    if (rc < 0)
        return err_errno(e, rc, "the superblock at byte %" PRIu64 " cannot be read", place);
    return md_super_parse(v, raw, dev->size, into, e);
}

int co_member_find_super(struct blk_device *dev, struct md_super **out, struct blk_error *e)
{
    struct md_super *best = NULL;
    int rc = 0;
    for (enum md_version v = 0; v < MD_VERSIONS && rc != -ENOMEM; v++) {
        struct md_super *s = mem_alloc(sizeof(*s));
        int one = s ? co_read_one(dev, v, s, e) : -ENOMEM;
        if (one == 0 && (!best || s->ctime > best->ctime)) {
            mem_free(best);
            best = take(s);
        } else if (one < 0 && one != -ENODATA) {
            rc = one;
        }
        mem_free(s);
    }
    *out = best;
    if (best && rc != -ENOMEM) {
        if (e)
            *e = (struct blk_error){0};
        return 0;
    }
    return rc;
}

/* --- images of LVM2 ----------------------------------------------------------------------------
 */

static bool any_bit(const uint8_t *bits, uint64_t count)
{
    for (uint64_t i = 0; i < count / 8; i++)
        if (bits[i])
            return true;
    return count % 8 && bits[count / 8] & ((1u << count % 8) - 1);
}

/* Whether the bitmap says that somewhere images may differ. Of one that is no bitmap, or has more
 * bits than there is room for: not. One that is sealed is ours, so superblocks say what is dirty,
 * and bits may be of what an image missed that is not here. */
static int co_has_bits(struct blk_device *dev, const struct md_super *s, bool *out)
{
    uint8_t head[MD_BITMAP_HEADER];
    struct md_bitmap b;
    struct blk_error ignored = {0};
    uint64_t at = (uint64_t)s->bitmap_offset;
    *out = false;
    if (!range_fits(at, sizeof(head), s->data_offset))
        return 0;
    TRY(co_blk_read_buf(dev, at, head, sizeof(head)));
    if (md_bitmap_parse(head, &b, &ignored) < 0 ||
        !range_fits(at, md_bitmap_bytes(&b), s->data_offset) || b.bits > MD_BITMAP_BITS_MOST ||
        b.seal)
        return 0;
    uint64_t bytes = md_bitmap_bytes(&b) - sizeof(head);
    auto_free uint8_t *bits = mem_alloc(MAX(bytes, 1));
    if (!bits)
        return -ENOMEM;
    TRY(co_blk_read_buf(dev, at + sizeof(head), bits, bytes));
    *out = any_bit(bits, b.bits);
    return 0;
}

static bool has_failed(const struct md_super *s)
{
    for (unsigned i = 0; i < s->disks; i++)
        if (s->roles[i] == MD_ROLE_FAULTY)
            return true;
    return false;
}

int co_member_dm_super(struct blk_device *dev, uint64_t data_offset, struct md_super **out,
                       struct blk_error *e)
{
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    auto_free uint8_t *raw = mem_aligned(MD_SUPER_BYTES);
    *out = NULL;
    if (!s || !raw)
        return err_set(e, -ENOMEM, "out of memory");
    if (dev->size < MD_SUPER_BYTES)
        return 0;
    int rc = co_blk_read_buf(dev, 0, raw, MD_SUPER_BYTES);
    if (rc < 0)
        return err_errno(e, rc, "the superblock of dm-raid cannot be read");
    rc = md_super_dm_parse(raw, dev->size, data_offset, s, e);
    if (rc < 0)
        return rc == -ENODATA ? 0 : rc;
    *out = take(s);
    return 0;
}

int co_members_dm_bits(struct raid_array *a, struct blk_error *e)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        const struct md_super *s = a->members[i].super;
        if (s && (has_failed(s) || s->features & MD_RECOVERY))
            return 0;
    }
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        bool dirty = false;
        int rc = m->super ? co_has_bits(m->dev, m->super, &dirty) : 0;
        if (rc == -ENOMEM)
            return err_set(e, rc, "out of memory");
        dirty |= rc < 0; /* who cannot read them cannot tell */
        if (dirty && m->super->resync_offset == UINT64_MAX)
            m->super->resync_offset = 0;
    }
    return 0;
}

/* --- whose it is -------------------------------------------------------------------------------
 */

/* A superblock near the end of a disk may be that of the disk's last partition: then it speaks of
 * far fewer bytes than lie before it. */
static bool is_of_a_part(const struct md_super *s)
{
    uint64_t used = s->data_offset + MAX(s->data_size, s->size);
    return (s->version == MD_0_90 || s->version == MD_1_0) &&
           used + s->super_offset / 8 < s->super_offset;
}

/* Those of others are told as members of md, which refuses them with what gets their data out. */
static int co_foreign_member_of(struct blk_device *dev, struct blk_member *out)
{
    struct foreign *f;
    struct blk_error none = {0};
    int rc = co_foreign_find(dev, &f, &none);
    if (rc < 0 || !f || f->count == 0) {
        if (rc == 0)
            mem_free(f);
        return rc == -ENOMEM ? rc : -ENODATA;
    }
    const struct foreign_volume *v = &f->volume[0]; /* the same one for all that have several */
    for (unsigned i = 1; i < f->count; i++)
        if (memcmp(f->volume[i].id, v->id, sizeof(v->id)) < 0)
            v = &f->volume[i];
    char *to = out->set;
    for (unsigned i = 0; i < FOREIGN_ID; i++)
        to += snprintf(to, (size_t)(out->set + sizeof(out->set) - to), "%02x", v->id[i]);
    snprintf(out->name, sizeof(out->name), "%s", v->name);
    out->wanted = v->disks;
    snprintf(out->what, sizeof(out->what), "member of an array of %s", f->family);
    mem_free(f);
    return 0;
}

int co_md_member_of(struct blk_device *dev, struct blk_member *out, struct blk_error *e)
{
    struct md_super *s;
    int rc = co_member_find_super(dev, &s, e);
    if (rc < 0 || !s)
        return rc == -ENOMEM ? rc : co_foreign_member_of(dev, out);
    if (is_of_a_part(s)) {
        mem_free(s);
        return -ENODATA;
    }
    const struct raid_level *l = raid_level_by_number(s->level);
    unsigned role = md_super_role(s, s->number);
    md_uuid_text(s, out->set);
    snprintf(out->name, sizeof(out->name), "%s", s->name);
    out->wanted = s->disks;
    if (role < s->disks)
        snprintf(out->what, sizeof(out->what), "member %u of %u of a %s", role, s->disks,
                 l ? l->name : "array");
    else
        snprintf(out->what, sizeof(out->what), "spare of a %s", l ? l->name : "array");
    mem_free(s);
    return 0;
}

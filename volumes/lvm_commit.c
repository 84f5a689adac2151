/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_commit.c - writing a group's text.
 *
 * Order of a commit, over all metadata areas that are in use:
 *  1 the new text, with the next sequence number, where nothing of the old one lies: behind it in
 *    the circular buffer, from a whole sector on, or at the front; a text takes less than half
 *  2 flush
 *  3 each area's header names both texts: the old one as committed
 *  4 flush
 *  5 each area's header names the new text only
 *  6 flush
 * Until the first header of 5 is durable the old text counts, from then on the new one, whose
 * number is higher. If 1 to 4 fail the headers name the old text again. Labels that say that a
 * volume is used follow (LVM2 mends them by itself).
 *
 * A new physical volume: the front is zeroed but for an empty area's header, flush, the label,
 * flush. A volume that leaves a group: the group is committed without it, then its area is emptied,
 * then its label says so. */
#include "volumes/lvm_commit.h"

void lvm_uuid_new(struct host *h, char uuid[LVM_UUID + 1])
{
    uint8_t random[LVM_UUID];
    host_random(h, random, sizeof(random));
    lvm_uuid_make(random, uuid);
}

/* --- one area ----------------------------------------------------------------------------------
 */

static uint64_t text_most(const struct lvm_span *area)
{
    return (area->bytes - LVM_SECTOR) / 2 / LVM_SECTOR * LVM_SECTOR - LVM_SECTOR;
}

/* Where a text goes: behind the old one. */
static uint64_t next_place(const struct lvm_span *area, const struct lvm_locn *old)
{
    if (old->bytes == 0)
        return LVM_SECTOR;
    uint64_t end = old->offset + old->bytes;
    if (end > area->bytes)
        end = LVM_SECTOR + (end - area->bytes);
    end = align_up(end, LVM_SECTOR);
    return end > area->bytes - LVM_SECTOR ? LVM_SECTOR : end;
}

/* The text in whole sectors, in one piece or in two. */
static int co_write_text(const struct lvm_member *m, const struct lvm_span *area, uint64_t offset,
                         const uint8_t *text, uint64_t bytes)
{
    uint64_t front = MIN(bytes, area->bytes - offset);
    TRY(co_blk_write_buf(m->dev, area->offset + offset, text, front, 0));
    if (front == bytes)
        return 0;
    return co_blk_write_buf(m->dev, area->offset + LVM_SECTOR, text + front, bytes - front, 0);
}

static int co_write_header(const struct lvm_member *m, unsigned i, const struct lvm_locn *committed,
                           const struct lvm_locn *precommitted)
{
    struct lvm_area_disk raw;
    lvm_area_build(&m->label.areas[i], committed, precommitted, &raw);
    return co_blk_write_buf(m->dev, m->label.areas[i].offset, &raw, sizeof(raw), 0);
}

/* --- a commit ----------------------------------------------------------------------------------
 */

/* One area that is written to. */
struct target {
    struct lvm_member *m;
    unsigned area;
    struct lvm_locn old, now;
};

struct commit {
    struct lvm_set *set;
    struct target *targets;
    size_t count;
    uint8_t *text; /* in whole sectors */
    uint64_t text_bytes, padded_bytes;
    struct blk_error *e;
};

static int add_targets(struct commit *c, struct lvm_member *m)
{
    for (unsigned i = 0; i < m->label.area_count; i++) {
        const struct lvm_span *area = &m->label.areas[i];
        if (m->texts[i].ignored)
            continue;
        if (area->offset % LVM_SECTOR || area->bytes % LVM_SECTOR || area->bytes < 8 * LVM_SECTOR ||
            !range_fits(area->offset, area->bytes, m->dev->size))
            return err_set(c->e, -EINVAL, "%s: its metadata area is not where it can be written",
                           m->dev->name);
        if (c->text_bytes > text_most(area) ||
            c->padded_bytes + align_up(m->texts[i].bytes, LVM_SECTOR) > area->bytes - LVM_SECTOR)
            return err_set(c->e, -ENOSPC,
                           "%s: %" PRIu64 " bytes of metadata do not fit into its area of %" PRIu64,
                           m->dev->name, c->text_bytes, area->bytes);
        struct target *t = &c->targets[c->count++];
        *t = (struct target){.m = m, .area = i, .old = m->texts[i]};
        t->now = (struct lvm_locn){.offset = next_place(area, &t->old),
                                   .bytes = c->text_bytes,
                                   .crc = lvm_crc(LVM_CRC_INITIAL, c->text, c->text_bytes)};
    }
    return 0;
}

/* Flushes the devices of all targets; one that has two areas twice, which does no harm. */
static int co_flush_targets(const struct commit *c)
{
    int rc = 0;
    for (size_t i = 0; i < c->count; i++) {
        int one = co_blk_flush(c->targets[i].m->dev);
        rc = rc ? rc : one;
    }
    return rc;
}

static int co_write_texts(const struct commit *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct target *t = &c->targets[i];
        TRY(co_write_text(t->m, &t->m->label.areas[t->area], t->now.offset, c->text,
                          c->padded_bytes));
    }
    return co_flush_targets(c);
}

/* Of the three headers that an area has in turn. */
enum header { HEADER_BOTH, HEADER_NEW, HEADER_OLD };

static int co_write_headers(const struct commit *c, enum header which)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct target *t = &c->targets[i];
        const struct lvm_locn *old = t->old.bytes ? &t->old : NULL;
        TRY(co_write_header(t->m, t->area, which == HEADER_NEW ? &t->now : old,
                            which == HEADER_BOTH ? &t->now : NULL));
    }
    return co_flush_targets(c);
}

static int co_write_all(struct commit *c)
{
    int rc = co_write_texts(c);
    if (rc == 0)
        rc = co_write_headers(c, HEADER_BOTH);
    if (rc < 0) {
        (void)!co_write_headers(c, HEADER_OLD);
        return err_errno(c->e, rc, "the metadata could not be written; it is as it was");
    }
    rc = co_write_headers(c, HEADER_NEW);
    c->set->unsure = rc < 0;
    if (rc < 0)
        return err_errno(c->e, rc, "the metadata could not be written everywhere");
    for (size_t i = 0; i < c->count; i++)
        c->targets[i].m->texts[c->targets[i].area] = c->targets[i].now;
    return 0;
}

/* --- labels ------------------------------------------------------------------------------------
 */

static int co_set_used(struct lvm_member *m, bool used, struct blk_error *e)
{
    struct lvm_label_disk raw;
    uint64_t at = (uint64_t)m->label.sector * LVM_SECTOR;
    if (m->label.used == used || !m->label.extension)
        return 0;
    int rc = co_blk_read_buf(m->dev, at, &raw, sizeof(raw));
    if (rc == 0) {
        lvm_label_set_used(&raw, &m->label, used);
        rc = co_blk_write_buf(m->dev, at, &raw, sizeof(raw), 0);
    }
    if (rc == 0)
        rc = co_blk_flush(m->dev);
    if (rc < 0)
        return err_errno(e, rc, "%s: the label could not be written", m->dev->name);
    m->label.used = used;
    return 0;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static int may_change(const struct lvm_set *s, const struct lvm_vg *vg, struct blk_error *e)
{
    if (vg->foreign)
        return err_set(e, -EROFS, "the group %s cannot be changed: %s", vg->name, vg->foreign);
    for (size_t i = 0; i < vg->pv_count; i++)
        if (lvm_pv_lost(&vg->pvs[i]) && !s->partial)
            return err_set(e, -ENODEV,
                           "the group %s cannot be changed while its physical volume %s (%s) is "
                           "not here",
                           vg->name, vg->pvs[i].name, vg->pvs[i].uuid);
    if (s->opened_count) /* it knows the model as it is now */
        return err_set(e, -EBUSY, "a thin pool or an array of %s is in use: close it first",
                       vg->name);
    if (s->unsure)
        return err_set(e, -EIO, "an earlier change of %s failed midway: open it anew", vg->name);
    return s->dev->writable ? 0 : err_set(e, -EROFS, "the group was opened to be read only");
}

/* Who is not here is missing from now on: what its text says is older. */
static int mark_missing(struct lvm_vg *vg, struct blk_error *e)
{
    for (size_t i = 0; i < vg->pv_count; i++)
        if (!vg->pvs[i].dev)
            TRY(lvm_pv_set_missing(vg, &vg->pvs[i], true, e));
    return 0;
}

/* The model of what is about to be written: what cannot be read is not written. */
static int reread(const struct lvm_set *s, const struct commit *c, struct lvm_vg **out)
{
    struct lvm_text text;
    TRY(lvm_text_parse((const char *)c->text, c->text_bytes, &text, c->e));
    TRY(lvm_vg_read(&text, out, c->e));
    for (size_t i = 0; i < s->member_count; i++) {
        struct lvm_pv *pv =
            s->members[i].labelled ? lvm_find_pv(*out, s->members[i].label.uuid) : NULL;
        if (pv)
            pv->dev = s->members[i].dev;
    }
    return 0;
}

static int make_text(const struct lvm_set *s, struct lvm_vg *vg, const char *why, struct commit *c)
{
    struct lvm_text *t = &vg->text;
    char *text;
    size_t bytes;
    auto_free char *description = mem_printf("Write from %s.", why);
    uint64_t now = host_wall_clock(s->dev->home->host) / 1000000000;
    if (!description || lvm_set_number(t, vg->node, "seqno", vg->seqno + 1) < 0 ||
        lvm_set_text(t, &t->root, "description", description) < 0 ||
        lvm_set_number(t, &t->root, "creation_time", now) < 0 ||
        lvm_text_build(t, &text, &bytes) < 0)
        return err_set(c->e, -ENOMEM, "out of memory");
    c->text_bytes = bytes;
    c->padded_bytes = align_up(bytes, LVM_SECTOR);
    c->text = mem_aligned(c->padded_bytes);
    if (c->text) {
        memcpy(c->text, text, bytes);
        memset(c->text + bytes, 0, c->padded_bytes - bytes);
    }
    mem_free(text);
    return c->text ? 0 : err_set(c->e, -ENOMEM, "out of memory");
}

static int co_commit(struct commit *c, struct lvm_vg *now)
{
    struct lvm_set *s = c->set;
    TRY(may_change(s, now, c->e));
    c->targets = mem_array(s->member_count * LVM_AREAS_MOST, sizeof(*c->targets));
    if (!c->targets)
        return err_set(c->e, -ENOMEM, "out of memory");
    for (size_t i = 0; i < now->pv_count; i++)
        if (!lvm_pv_lost(&now->pvs[i]))
            TRY(add_targets(c, lvm_set_member(s, &now->pvs[i])));
    if (c->count == 0)
        return err_set(c->e, -EINVAL, "no physical volume of %s keeps metadata", now->name);
    TRY(co_write_all(c));
    for (size_t i = 0; i < now->pv_count; i++)
        if (!lvm_pv_lost(&now->pvs[i]))
            TRY(co_set_used(lvm_set_member(s, &now->pvs[i]), true, c->e));
    return 0;
}

/* @now takes the place of what @s has of that group, or is new in it. */
static int put_group(struct lvm_set *s, struct lvm_vg *now)
{
    struct lvm_vg *old = NULL;
    size_t i = 0;
    while (i < s->vg_count && strcmp(s->vgs[i]->uuid, now->uuid) != 0)
        i++;
    if (i < s->vg_count) {
        old = s->vgs[i];
    } else {
        struct lvm_vg **grown = mem_resize(s->vgs, (i + 1) * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        s->vgs = grown;
        s->vg_count++;
    }
    s->vgs[i] = now;
    for (size_t k = 0; k < s->member_count; k++) {
        struct lvm_member *m = &s->members[k];
        if (m->labelled && lvm_find_pv(now, m->label.uuid))
            m->vg = now;
        else if (m->vg == old)
            m->vg = NULL;
    }
    lvm_vg_drop(old);
    return 0;
}

int co_lvm_commit(struct lvm_set *s, struct lvm_vg **vg, const char *why, struct blk_error *e)
{
    struct commit c = {.set = s, .e = e};
    struct lvm_vg *now = NULL;
    int rc = s->partial ? mark_missing(*vg, e) : 0;
    if (rc == 0)
        rc = make_text(s, *vg, why, &c);
    if (rc == 0)
        rc = reread(s, &c, &now);
    if (rc == 0)
        rc = co_commit(&c, now);
    bool ours = false; /* it is dropped with what it replaces */
    for (size_t i = 0; i < s->vg_count; i++)
        ours |= s->vgs[i] == *vg;
    if (rc == 0 && put_group(s, now) < 0)
        rc = err_set(e, -ENOMEM, "out of memory");
    if (rc == 0 && !ours)
        lvm_vg_drop(*vg);
    if (rc < 0)
        lvm_vg_drop(now);
    else
        *vg = now;
    mem_free(c.text);
    mem_free(c.targets);
    return rc;
}

/* --- physical volumes --------------------------------------------------------------------------
 */

int lvm_vg_add_member(struct lvm_vg *vg, const struct lvm_member *m, struct blk_error *e)
{
    const struct lvm_label *l = &m->label;
    uint64_t end = MIN(m->dev->size, l->device_bytes);
    for (unsigned i = 0; i < l->area_count; i++)
        if (l->areas[i].offset > l->data_at)
            end = MIN(end, l->areas[i].offset);
    struct lvm_pv_new n = {.uuid = l->uuid,
                           .device = m->dev->name,
                           .device_bytes = l->device_bytes,
                           .start = l->data_at,
                           .end = end};
    if (m->vg)
        return err_set(e, -EBUSY, "%s is in the group %s already", m->dev->name, m->vg->name);
    return lvm_pv_add(vg, &n, e);
}

static int co_write_new_pv(struct blk_device *dev, const char *uuid)
{
    struct lvm_label_disk label;
    struct lvm_area_disk area;
    struct lvm_span span = {LVM_AREA_AT, LVM_DATA_AT - LVM_AREA_AT};
    lvm_label_build(uuid, dev->size, false, &label);
    lvm_area_build(&span, NULL, NULL, &area);
    TRY(co_blk_write_zeroes(dev, 0, LVM_DATA_AT, 0));
    TRY(co_blk_write_buf(dev, LVM_AREA_AT, &area, sizeof(area), 0));
    TRY(co_blk_flush(dev));
    TRY(co_blk_write_buf(dev, LVM_SECTOR, &label, sizeof(label), 0));
    return co_blk_flush(dev);
}

int co_lvm_pv_create(struct blk_device *dev, struct blk_error *e)
{
    char uuid[LVM_UUID + 1];
    if (dev->size < 2 * LVM_DATA_AT)
        return err_set(e, -ENOSPC, "%s is too small for a physical volume", dev->name);
    lvm_uuid_new(dev->home->host, uuid);
    int rc = co_write_new_pv(dev, uuid);
    return rc < 0 ? err_errno(e, rc, "%s: the label could not be written", dev->name) : 0;
}

int co_lvm_pv_remove(struct lvm_member *m, struct blk_error *e)
{
    static const uint8_t zeroes[LVM_SECTOR];
    uint64_t at = (uint64_t)m->label.sector * LVM_SECTOR;
    if (m->vg || m->label.used)
        return err_set(e, -EBUSY, "%s is used by %s", m->dev->name,
                       m->vg ? m->vg->name : "a group that is not here");
    int rc = co_blk_write_buf(m->dev, at, zeroes, sizeof(zeroes), 0);
    if (rc == 0)
        rc = co_blk_flush(m->dev);
    m->labelled = false;
    return rc < 0 ? err_errno(e, rc, "%s: the label could not be cleared", m->dev->name) : 0;
}

int co_lvm_release(struct lvm_member *m, struct blk_error *e)
{
    int rc = 0;
    for (unsigned i = 0; i < m->label.area_count && rc == 0; i++) {
        m->texts[i].bytes = 0;
        rc = co_write_header(m, i, m->texts[i].ignored ? &m->texts[i] : NULL, NULL);
    }
    if (rc == 0)
        rc = co_blk_flush(m->dev);
    if (rc < 0)
        return err_errno(e, rc, "%s: the metadata area could not be emptied", m->dev->name);
    m->vg = NULL;
    return co_set_used(m, false, e);
}

int co_lvm_vg_remove(struct lvm_set *s, struct lvm_vg *vg, struct blk_error *e)
{
    size_t i = 0;
    TRY(may_change(s, vg, e));
    if (vg->lv_count)
        return err_set(e, -EBUSY, "the group %s still has %zu logical volumes: remove them first",
                       vg->name, vg->lv_count);
    for (size_t k = 0; k < s->member_count; k++)
        if (s->members[k].vg == vg)
            TRY(co_lvm_release(&s->members[k], e));
    while (s->vgs[i] != vg)
        i++;
    s->vgs[i] = s->vgs[--s->vg_count];
    lvm_vg_drop(vg);
    return 0;
}

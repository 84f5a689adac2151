/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_set.c - the physical volumes that are here and the groups that they belong to.
 *
 * Each volume has the whole text of its group, or none. Of texts of one group the one with the
 * highest sequence number counts; volumes are matched with it by the UUID of their labels. What is
 * broken in one volume is no matter as long as another one has the text. */
#include "volumes/lvm.h"

/* --- one physical volume -----------------------------------------------------------------------
 */

static int co_read_areas(struct lvm_member *m, struct blk_error *e)
{
    int rc = 0;
    for (unsigned i = 0; i < m->label.area_count; i++) {
        const struct lvm_span *area = &m->label.areas[i];
        struct lvm_area_disk raw;
        if (!range_fits(area->offset, area->bytes, m->dev->size) || area->bytes < sizeof(raw)) {
            rc = err_bad(e, -EINVAL, "the metadata area at %" PRIu64 " ends past the device",
                         area->offset);
            continue;
        }
        int failed = co_blk_read_buf(m->dev, area->offset, &raw, sizeof(raw));
        if (failed < 0)
            failed = err_errno(e, failed, "cannot read the metadata area");
        else
            failed = lvm_area_parse(&raw, area, &m->texts[i], e);
        m->usable[i] = failed == 0;
        if (m->texts[i].ignored)
            m->texts[i].bytes = 0;
        rc = failed < 0 ? failed : rc;
    }
    return rc;
}

static int co_read_member(struct lvm_member *m, struct blk_error *e)
{
    uint8_t head[LVM_LABEL_SECTORS * LVM_SECTOR];
    size_t bytes = (size_t)MIN(m->dev->size, sizeof(head));
    int rc = co_blk_read_buf(m->dev, 0, head, bytes);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the label");
    TRY(lvm_label_find(head, bytes, &m->label, e));
    m->labelled = true;
    return co_read_areas(m, e);
}

/* The text that area @i holds: from its offset on, and from the area's front where it wraps. */
static int co_read_text(const struct lvm_member *m, unsigned i, char **out, struct blk_error *e)
{
    const struct lvm_span *area = &m->label.areas[i];
    const struct lvm_locn *t = &m->texts[i];
    if (t->bytes > LVM_TEXT_MOST)
        return err_bad(e, -EFBIG, "%" PRIu64 " bytes of metadata are more than any group has",
                       t->bytes);
    auto_free char *text = mem_alloc(t->bytes);
    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    uint64_t front = MIN(t->bytes, area->bytes - t->offset);
    int rc = co_blk_read_buf(m->dev, area->offset + t->offset, text, front);
    if (rc == 0 && front < t->bytes)
        rc = co_blk_read_buf(m->dev, area->offset + LVM_SECTOR, text + front, t->bytes - front);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the metadata");
    if (lvm_crc(LVM_CRC_INITIAL, text, t->bytes) != t->crc)
        return err_bad(e, -EBADMSG, "the checksum of the metadata at %" PRIu64 " is wrong",
                       area->offset + t->offset);
    *out = take(text);
    return 0;
}

/* --- groups ------------------------------------------------------------------------------------
 */

static int add_group(struct lvm_set *s, struct lvm_vg *vg, struct blk_error *e)
{
    for (size_t i = 0; i < s->vg_count; i++) {
        if (strcmp(s->vgs[i]->uuid, vg->uuid) != 0)
            continue;
        struct lvm_vg *older = vg;
        if (vg->seqno > s->vgs[i]->seqno) {
            older = s->vgs[i];
            s->vgs[i] = vg;
        }
        lvm_vg_drop(older);
        return 0;
    }
    struct lvm_vg **grown = mem_resize(s->vgs, (s->vg_count + 1) * sizeof(*grown));
    if (!grown) {
        lvm_vg_drop(vg);
        return err_set(e, -ENOMEM, "out of memory");
    }
    s->vgs = grown;
    s->vgs[s->vg_count++] = vg;
    return 0;
}

/* True if an earlier member has the very same text. */
static bool is_known(const struct lvm_set *s, const struct lvm_member *m, unsigned area)
{
    const struct lvm_locn *t = &m->texts[area];
    for (const struct lvm_member *x = s->members; x <= m; x++)
        for (unsigned i = 0; i < x->label.area_count && (x < m || i < area); i++)
            if (x->usable[i] && x->texts[i].crc == t->crc && x->texts[i].bytes == t->bytes)
                return true;
    return false;
}

static int co_read_groups(struct lvm_set *s, struct lvm_member *m, struct blk_error *e)
{
    int rc = 0;
    for (unsigned i = 0; i < m->label.area_count; i++) {
        auto_free char *text = NULL;
        struct lvm_text tree;
        struct lvm_vg *vg;
        if (!m->usable[i] || m->texts[i].bytes == 0 || is_known(s, m, i))
            continue;
        int failed = co_read_text(m, i, &text, e);
        if (failed == 0)
            failed = lvm_text_parse(text, m->texts[i].bytes, &tree, e);
        if (failed == 0)
            failed = lvm_vg_read(&tree, &vg, e);
        if (failed == 0)
            failed = add_group(s, vg, e);
        if (failed < 0)
            m->usable[i] = false;
        rc = failed < 0 ? failed : rc;
    }
    return rc;
}

static int check_duplicates(const struct lvm_set *s, struct blk_error *e)
{
    for (size_t i = 0; i < s->member_count; i++)
        for (size_t k = 0; k < i; k++)
            if (s->members[i].labelled && s->members[k].labelled &&
                strcmp(s->members[i].label.uuid, s->members[k].label.uuid) == 0)
                return err_set(e, -EEXIST, "%s and %s are the same physical volume: name one",
                               s->members[k].dev->name, s->members[i].dev->name);
    return 0;
}

static void link_groups(struct lvm_set *s)
{
    for (size_t i = 0; i < s->member_count; i++)
        for (size_t g = 0; s->members[i].labelled && g < s->vg_count; g++) {
            struct lvm_pv *pv = lvm_find_pv(s->vgs[g], s->members[i].label.uuid);
            if (!pv)
                continue;
            pv->dev = s->members[i].dev;
            s->members[i].vg = s->vgs[g];
        }
}

int co_lvm_set_read(struct lvm_set *s, struct blk_error *e)
{
    int rc = 0;
    s->member_count = s->dev->child_count;
    s->members = mem_array(MAX(s->member_count, 1), sizeof(*s->members));
    if (!s->members)
        return err_set(e, -ENOMEM, "out of memory");
    for (size_t i = 0; i < s->member_count; i++) {
        struct lvm_member *m = &s->members[i];
        struct blk_error why = {0};
        m->dev = s->dev->children[i].dev;
        int failed = co_read_member(m, &why);
        int unread = m->labelled ? co_read_groups(s, m, &why) : 0;
        if (unread < 0)
            failed = unread;
        if (failed < 0)
            err_prefix(&why, "%s", m->dev->name);
        if (!m->labelled || failed == -ENOMEM)
            return err_copy(e, failed, &why);
        if (failed < 0 && rc == 0)
            rc = err_copy(e, failed, &why);
    }
    TRY(check_duplicates(s, e));
    link_groups(s);
    for (size_t i = 0; i < s->member_count; i++)
        if (rc < 0 && !s->members[i].vg)
            return rc;
    return 0;
}

void lvm_set_drop(struct lvm_set *s)
{
    for (size_t i = 0; i < s->vg_count; i++)
        lvm_vg_drop(s->vgs[i]);
    mem_free(s->vgs);
    mem_free(s->members);
    mem_free(s);
}

struct lvm_vg *lvm_set_find(const struct lvm_set *s, const char *vg_name)
{
    for (size_t i = 0; i < s->vg_count; i++)
        if (strcmp(s->vgs[i]->name, vg_name) == 0)
            return s->vgs[i];
    return NULL;
}

struct lvm_member *lvm_set_member(const struct lvm_set *s, const struct lvm_pv *pv)
{
    for (size_t i = 0; i < s->member_count; i++)
        if (s->members[i].dev == pv->dev)
            return &s->members[i];
    return NULL;
}

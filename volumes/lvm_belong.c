/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_belong.c - which group a device is a physical volume of, for who looks through a heap of
 * devices. */
#include <stdio.h>

#include "volumes/lvm.h"

static void fill(const struct lvm_set *s, struct blk_member *out)
{
    const struct lvm_member *m = &s->members[0];
    const struct lvm_vg *vg = m->vg;
    if (!vg) {
        snprintf(out->what, sizeof(out->what), "physical volume%s",
                 m->label.used ? " without metadata" : " of no group");
        return;
    }
    snprintf(out->set, sizeof(out->set), "%s", vg->uuid);
    snprintf(out->name, sizeof(out->name), "%.120s", vg->name);
    snprintf(out->what, sizeof(out->what), "physical volume of %.60s", vg->name);
    out->wanted = vg->pv_count;
}

int co_lvm_member_of(struct blk_device *dev, struct blk_member *out, struct blk_error *e)
{
    uint8_t head[LVM_LABEL_SECTORS * LVM_SECTOR];
    struct lvm_label label;
    struct blk_device *alone;
    struct blk_child child = {"file", dev};
    size_t bytes = (size_t)MIN(dev->size, sizeof(head));
    if (co_blk_read_buf(dev, 0, head, bytes) < 0 || lvm_label_find(head, bytes, &label, e) < 0)
        return -ENODATA;
    blk_ref(dev);
    int rc = co_blk_open(&lvm_driver, dev->name, NULL, dev->open_flags & BLK_OPEN_FORCE_SHARE, NULL,
                         &child, 1, &alone, e);
    if (rc < 0) { /* it has a label: what it says may be known from others */
        snprintf(out->what, sizeof(out->what), "physical volume");
        return rc == -ENOMEM ? rc : 0;
    }
    fill(alone->state, out);
    co_blk_close(alone, NULL);
    return 0;
}

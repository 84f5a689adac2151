/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/lib/lvm_group.h"

#include "volumes/lvm_change.h"
#include "volumes/lvm_commit.h"

int co_lvm_group_make(struct lvm_set *s, uint64_t extent_bytes, struct lvm_vg **vg,
                      struct blk_error *e)
{
    char uuid[LVM_UUID + 1];
    lvm_uuid_new(s->dev->host, uuid);
    TRY(lvm_vg_create("vg", uuid, extent_bytes, vg, e));
    int rc = 0;
    for (size_t i = 0; i < s->member_count && rc == 0; i++)
        rc = lvm_vg_add_member(*vg, &s->members[i], e);
    if (rc == 0)
        rc = co_lvm_commit(s, vg, "a test", e);
    if (rc < 0)
        lvm_vg_drop(*vg);
    return rc;
}

int co_lvm_volume_open(struct blk_device *set, struct blk_device **out, struct blk_error *e)
{
    int rc = co_blk_inner_open(set, "vg/lv", out, e);
    if (rc == 0 && blk_add_child(*out, "container", set) < 0) {
        co_blk_close(*out, NULL);
        rc = err_set(e, -ENOMEM, "out of memory");
    }
    if (rc < 0)
        co_blk_close(set, NULL);
    return rc;
}

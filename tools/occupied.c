/* SPDX-License-Identifier: BSD-3-Clause */
/* occupied.c - whoever names the wrong device loses what it holds: members of arrays are known by
 * raid/, file systems and the like by libblkid, tables and volumes by their drivers' probes. */
#include "tools/occupied.h"

#include "raid/array.h"
#include "raid/foreign.h"
#include "tools/filesystem.h"

/* Of an array of md, DDF or Intel's: then @e says so. */
static int co_refuse_member(struct blk_device *dev, const char *anyway, struct blk_error *e)
{
    struct blk_member member;
    struct blk_error none = {0};
    auto_free struct foreign *foreign = NULL;
    if (co_md_member_of(dev, &member, &none) == 0)
        return err_set(e, -EEXIST, "%s appears to be part of a raid array (%s): %s writes over it",
                       dev->name, member.what, anyway);
    if (co_foreign_find(dev, &foreign, &none) == 0 && foreign)
        return err_set(e, -EEXIST, "%s appears to be part of a raid array (%s): %s writes over it",
                       dev->name, foreign->family, anyway);
    return 0;
}

static const struct blk_driver *co_container_of(struct tool *t, struct blk_device *dev)
{
    struct resolver r;
    tool_resolver(t, TRUST_READ, &r);
    const struct blk_driver *d = co_find_container(&r, dev);
    resolver_drop(&r);
    return d;
}

int co_refuse_occupied(struct tool *t, struct blk_device *dev, const char *anyway,
                       struct blk_error *e)
{
    struct filesystem fs;
    TRY(co_refuse_member(dev, anyway, e));
    co_filesystem_of(dev, &fs);
    const struct blk_driver *d = fs.type[0] ? NULL : co_container_of(t, dev);
    if (!fs.type[0] && !d)
        return 0;
    if (d)
        return err_set(e, -EEXIST,
                       "%s appears to contain partitions or volumes (%s): %s writes over them",
                       dev->name, d->name, anyway);
    return err_set(e, -EEXIST, "%s appears to contain %s%s%.60s%s: %s writes over it", dev->name,
                   fs.type, fs.label[0] ? " \"" : "", fs.label, fs.label[0] ? "\"" : "", anyway);
}

/* @member names the array that it is of. */
static bool co_is_of(struct blk_device *array, const struct blk_member *member)
{
    struct blk_error none = {0};
    struct blk_info info;
    if (co_blk_info(array, &info, &none) < 0)
        return false;
    const char *uuid = json_string_value(json_object_get(info.specific, "uuid"));
    bool same = uuid && strcmp(uuid, member->set) == 0;
    blk_info_drop(&info);
    return same;
}

int co_refuse_stranger(struct tool *t, struct blk_device *array, struct blk_device *dev,
                       const char *anyway, struct blk_error *e)
{
    struct blk_member member;
    struct blk_error none = {0};
    if (co_md_member_of(dev, &member, &none) == 0 && co_is_of(array, &member))
        return 0;
    return co_refuse_occupied(t, dev, anyway, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd_parent.c - the parent of a differencing VHD: its name from the locators, its identity.
 *
 * A locator holds a Windows path. The relative one counts; of an absolute one with a drive letter
 * or a server's name only the file's own name, looked for beside the child; last the name in the
 * header itself. */
#include "imgfmt/utf16.h"
#include "imgfmt/vhd.h"

#define NAME_MOST 4096

/* *out stays NULL where there is no such locator, or no name in it. */
static int co_locator(struct vhd *v, const char *platform, char **out)
{
    for (unsigned i = 0; i < VHD_LOCATORS && !*out; i++) {
        const struct vhd_locator_disk *l = &v->header.locators[i];
        uint32_t bytes = be32_get(l->bytes);
        if (memcmp(l->platform, platform, 4) != 0 || bytes == 0 || bytes > NAME_MOST ||
            !range_fits(be64_get(l->offset), bytes, v->map.file->size))
            continue;
        auto_free uint8_t *raw = mem_alloc(bytes);
        if (!raw)
            return -ENOMEM;
        TRY(co_blk_read_buf(v->map.file, be64_get(l->offset), raw, bytes));
        *out = utf16_windows_path(raw, bytes, false);
    }
    return 0;
}

int co_vhd_parent_name(struct vhd *v, struct blk_error *e)
{
    char *name = NULL;
    int rc = co_locator(v, "W2ru", &name);
    if (rc == 0 && !name)
        rc = co_locator(v, "W2ku", &name);
    if (rc < 0)
        return err_errno(e, rc, "the name of the parent cannot be read");
    if (!name)
        name = utf16_windows_path(v->header.parent_name, sizeof(v->header.parent_name), true);
    if (!name)
        return err_set(e, -EINVAL, "the image has a parent, and does not name it");
    v->backing.name = name;
    return 0;
}

int co_vhd_opened(struct blk_device *dev, struct blk_error *e)
{
    static const uint8_t unknown[16];
    struct map *m = dev->state;
    struct vhd *v = container_of(m, struct vhd, map);
    if (!m->meta) /* fixed */
        return 0;
    TRY(co_map_opened(dev, e));
    if (!m->backing || m->backing->driver != &vhd_driver ||
        memcmp(v->header.parent_uuid, unknown, 16) == 0)
        return 0;
    const struct vhd *parent = container_of((struct map *)m->backing->state, struct vhd, map);
    if (memcmp(parent->footer.uuid, v->header.parent_uuid, 16) != 0)
        return err_set(e, -EINVAL, "%.200s is not the parent: its UUID is another",
                       v->backing.name ? v->backing.name : "the backing image");
    return 0;
}

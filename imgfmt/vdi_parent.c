/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi_parent.c - the image behind a differencing VDI image: its header holds the parent's UUID and
 * no name, so the parent is looked for in the folder, in Snapshots there, and in .vbox files. */
#include "block/resolver.h"
#include "block/uuid.h"
#include "imgfmt/vbox.h"
#include "imgfmt/vdi.h"

int co_vdi_name_parent(struct blk_device *parent, struct vdi_header_disk *raw, struct blk_error *e)
{
    if (!parent)
        return 0;
    if (parent->driver != &vdi_driver)
        return err_set(e, -ENOTSUP, "behind a VDI image there can be another one only, not %s",
                       parent->driver->name);
    const struct vdi *v = parent->state;
    raw->type = le32_of(VDI_DIFFERENCING);
    memcpy(raw->ids.parent, v->h.ids.image, 16);
    memcpy(raw->ids.parent_modify, v->h.ids.modify, 16);
    return uuid_is_nil(raw->ids.parent) ? err_set(e, -EINVAL, "the parent has no UUID") : 0;
}

/* --- another parent --- */

static void fill_parent(struct map *m, void *at)
{
    const struct vdi_header *h = &container_of(m, struct vdi, map)->h;
    struct vdi_header_disk *raw = at;
    raw->type = le32_of(h->type);
    memcpy(raw->ids.parent, h->ids.parent, 16);
    memcpy(raw->ids.parent_modify, h->ids.parent_modify, 16);
}

/* One sector: type and UUIDs change together. No session begins, so that children of this image
 * still know it. */
static int co_put_parent(struct vdi *v, const struct vdi_header *now, struct blk_error *e)
{
    struct vdi_header before = v->h;
    v->h.type = now->type;
    v->h.ids = now->ids;
    int rc = co_map_units_rewrite(&v->map, 0, VDI_RANK_HEADER, fill_parent);
    if (rc < 0) {
        v->h.type = before.type;
        v->h.ids = before.ids;
        return err_errno(e, rc, "the header cannot be written");
    }
    return 0;
}

int co_vdi_identify_backing(struct blk_device *dev, struct blk_device *backing, struct blk_error *e)
{
    struct vdi *v = dev->state;
    struct vdi_header now = v->h;
    struct vdi_header_disk raw = {.type = le32_of(now.type), .ids = now.ids};
    memset(raw.ids.parent_modify, 0, 16);
    TRY(co_vdi_name_parent(backing, &raw, e));
    if (now.type == VDI_STATIC && backing)
        return err_set(e, -EINVAL, "a static VDI image has no parent");
    now.type = le32_get(raw.type);
    now.ids = raw.ids;
    return co_put_parent(v, &now, e);
}

/* The header has no room for a name: the UUID, which follows, is the name. */
int co_vdi_change_backing(struct blk_device *dev, const char *name, const char *format,
                          struct blk_error *e)
{
    struct vdi *v = dev->state;
    struct vdi_header now = v->h;
    if (name || now.type != VDI_DIFFERENCING)
        return 0;
    now.type = VDI_DYNAMIC;
    memset(now.ids.parent, 0, 16);
    memset(now.ids.parent_modify, 0, 16);
    return co_put_parent(v, &now, e);
}

/* --- finding it --- */

static int look_at_image(void *arg, const char *name, const void *head, size_t bytes, char **found)
{
    const struct vdi *v = arg;
    const struct vdi_header_disk *raw = head;
    if (bytes < sizeof(*raw) || le32_get(raw->signature) != VDI_SIGNATURE ||
        memcmp(raw->ids.image, v->h.ids.parent, 16) != 0)
        return 0;
    *found = mem_strdup(name);
    return *found ? 0 : -ENOMEM;
}

static int look_at_list(void *arg, const char *name, const void *head, size_t bytes, char **found)
{
    const struct vdi *v = arg;
    uint8_t uuid[16];
    uuid_swap(v->h.ids.parent, uuid);
    return vbox_location(head, bytes, uuid, found);
}

static int co_find_parent(struct vdi *v, struct blk_opener *opener, struct blk_error *e)
{
    struct opener_search images = {".vdi", "Snapshots", sizeof(struct vdi_header_disk),
                                   look_at_image, v};
    struct opener_search lists = {".vbox", NULL, 4 * MiB, look_at_list, v};
    char *name = NULL;
    int rc = co_opener_find(opener, &images, &name);
    if (rc == -ENOENT)
        rc = co_opener_find(opener, &lists, &name);
    if (rc == -ENOENT)
        return err_set(
            e, rc,
            "its parent %s is neither in its folder nor in Snapshots there, and no .vbox "
            "file there names it; --chain DIR looks in DIR too (for an image in "
            "Snapshots: --chain ..)",
            v->parent_name);
    if (name) {
        mem_free(v->parent_name);
        v->parent_name = name;
    }
    return rc < 0 && rc != -EACCES ? err_errno(e, rc, "its parent cannot be looked for") : 0;
}

int co_vdi_want_parent(struct vdi *v, struct blk_opener *opener, struct blk_error *e)
{
    char text[UUID_TEXT];
    uint8_t uuid[16];
    if (v->h.type != VDI_DIFFERENCING)
        return 0;
    uuid_swap(v->h.ids.parent, uuid);
    uuid_text(uuid, text);
    v->parent_name = mem_printf("{%s}", text);
    if (!v->parent_name)
        return err_set(e, -ENOMEM, "out of memory");
    v->parent_told = !opener || opener_has(opener, "backing");
    int rc = v->parent_told ? 0 : co_find_parent(v, opener, e);
    if (rc == 0)
        rc = co_map_want_backing(&v->map, opener, v->parent_name, NULL, e);
    if (rc < 0)
        mem_free(take(v->parent_name));
    return rc;
}

int co_vdi_opened(struct blk_device *dev, struct blk_error *e)
{
    struct vdi *v = dev->state;
    TRY(co_map_opened(dev, e));
    const struct blk_device *b = v->map.backing;
    const struct vdi *parent = b && b->driver == &vdi_driver ? b->state : NULL;
    if (!parent || v->parent_told)
        return 0;
    if (memcmp(parent->h.ids.image, v->h.ids.parent, 16) != 0)
        return err_set(e, -EINVAL, "%s is not its parent", b->name);
    if (!uuid_is_nil(v->h.ids.parent_modify) &&
        memcmp(parent->h.ids.modify, v->h.ids.parent_modify, 16) != 0)
        return err_set(e, -EINVAL,
                       "its parent %s was written to since; backing.file.filename=... opens it "
                       "all the same",
                       b->name);
    return 0;
}

int co_vdi_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct vdi *v = dev->state;
    if (!v->parent_name)
        return 0;
    const struct blk_device *parent = v->map.backing;
    out->backing_name = mem_strdup(v->parent_name);
    out->full_backing_name = parent && *parent->name ? mem_strdup(parent->name) : NULL;
    return out->backing_name ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx_parent.c - the parent of a differencing VHDX: its name and identity from the locator.
 *
 * The locator holds keys and values. The relative path counts; where there is none, of the absolute
 * ones only the file's own name, looked for beside the child. */
#include "imgfmt/utf16.h"
#include "imgfmt/uuid.h"
#include "imgfmt/vhdx.h"

struct locator {
    const uint8_t *raw;
    size_t bytes;
    struct vhdx_locator_disk head;
};

/* Entry @i's key, and the value's place; false: it does not lie inside. */
static bool entry_of(const struct locator *l, unsigned i, struct vhdx_locator_entry_disk *n)
{
    uint64_t at = sizeof(l->head) + i * sizeof(*n);
    if (!range_fits(at, sizeof(*n), l->bytes))
        return false;
    memcpy(n, l->raw + at, sizeof(*n));
    return range_fits(le32_get(n->key_offset), le16_get(n->key_bytes), l->bytes) &&
           range_fits(le32_get(n->value_offset), le16_get(n->value_bytes), l->bytes);
}

static bool is_key(const struct locator *l, const struct vhdx_locator_entry_disk *n,
                   const char *key)
{
    const uint8_t *raw = l->raw + le32_get(n->key_offset);
    size_t bytes = le16_get(n->key_bytes), i;
    for (i = 0; key[i] && 2 * i + 2 <= bytes; i++)
        if (raw[2 * i] != (uint8_t)key[i] || raw[2 * i + 1] != 0)
            return false;
    return !key[i] && 2 * i == bytes;
}

/* The value of @key; NULL: there is none. */
static const uint8_t *value_of(const struct locator *l, const char *key, size_t *bytes)
{
    struct vhdx_locator_entry_disk n;
    for (unsigned i = 0; i < le16_get(l->head.count); i++) {
        if (!entry_of(l, i, &n) || !is_key(l, &n, key))
            continue;
        *bytes = le16_get(n.value_bytes);
        return l->raw + le32_get(n.value_offset);
    }
    return NULL;
}

static void take_linkage(const struct locator *l, uint8_t linkage[16])
{
    size_t bytes;
    const uint8_t *raw = value_of(l, "parent_linkage", &bytes);
    auto_free char *text = raw ? utf16_to_text(raw, bytes, false) : NULL;
    uint8_t guid[16];
    memset(linkage, 0, 16);
    if (text && uuid_parse(text, guid))
        uuid_swap(guid, linkage);
}

int vhdx_locator_parse(const uint8_t *raw, size_t bytes, char **name, uint8_t linkage[16],
                       struct blk_error *e)
{
    static const char *const keys[] = {"relative_path", "absolute_win32_path", "volume_path"};
    struct locator l = {.raw = raw, .bytes = bytes};
    const uint8_t *value;
    size_t value_bytes;
    *name = NULL;
    if (bytes < sizeof(l.head))
        return err_set(e, -EINVAL, "the parent locator is too short");
    memcpy(&l.head, raw, sizeof(l.head));
    if (memcmp(l.head.type, vhdx_guid_locator, 16) != 0)
        return err_set(e, -ENOTSUP, "the parent is named in a way that is unknown");
    for (size_t i = 0; i < ARRAY_LEN(keys) && !*name; i++)
        if ((value = value_of(&l, keys[i], &value_bytes)))
            *name = utf16_windows_path(value, value_bytes, false);
    if (!*name)
        return err_set(e, -EINVAL, "the image has a parent, and does not name it");
    take_linkage(&l, linkage);
    return 0;
}

int co_vhdx_parent_name(struct vhdx *v, struct blk_error *e)
{
    const struct vhdx_region *at = &v->d.at[VHDX_ITEM_PARENT];
    auto_free uint8_t *raw = mem_alloc(at->bytes);
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_vhdx_read_meta(v, v->regions.metadata.offset + at->offset, raw, at->bytes);
    if (rc < 0)
        return err_errno(e, rc, "the name of the parent cannot be read");
    return vhdx_locator_parse(raw, at->bytes, &v->backing.name, v->linkage, e);
}

int co_vhdx_opened(struct blk_device *dev, struct blk_error *e)
{
    struct map *m = dev->state;
    const struct vhdx *v = vhdx_of(m);
    TRY(co_map_opened(dev, e));
    if (!m->backing || m->backing->driver != &vhdx_driver || uuid_is_nil(v->linkage))
        return 0;
    const struct vhdx *parent = vhdx_of(m->backing->state);
    if (memcmp(parent->h.data_write, v->linkage, 16) != 0)
        return err_set(e, -EINVAL, "%.200s is not the parent: it was changed, or is another image",
                       v->backing.name ? v->backing.name : "the backing image");
    return 0;
}

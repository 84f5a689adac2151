/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx_parent.c - the parent of a differencing VHDX: its name and identity from the locator.
 *
 * The locator holds keys and values. The relative path counts; where there is none, of the absolute
 * ones only the file's own name, looked for beside the child. */
#include "block/utf16.h"
#include "block/uuid.h"
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
        return err_bad(e, -EINVAL, "the parent locator is too short");
    memcpy(&l.head, raw, sizeof(l.head));
    if (memcmp(l.head.type, vhdx_guid_locator, 16) != 0)
        return err_set(e, -ENOTSUP, "the parent is named in a way that is unknown");
    for (size_t i = 0; i < ARRAY_LEN(keys) && !*name; i++)
        if ((value = value_of(&l, keys[i], &value_bytes)))
            *name = utf16_windows_path(value, value_bytes, false);
    if (!*name)
        return err_bad(e, -EINVAL, "the image has a parent, and does not name it");
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

/* --- a locator of our own --- */

#define NAME_ROOM 2048

const uint8_t *vhdx_identity(const struct blk_device *dev)
{
    return dev && dev->driver == &vhdx_driver ? vhdx_of(dev->state)->h.data_write : NULL;
}

/* "{aabbccdd-...}" */
static void linkage_text(const uint8_t *linkage, char text[UUID_TEXT + 2])
{
    uint8_t guid[16] = {0};
    if (linkage)
        uuid_swap(linkage, guid);
    text[0] = '{';
    uuid_text(guid, text + 1);
    memcpy(text + UUID_TEXT, "}", 2);
}

static bool put_text(uint8_t *to, size_t *used, const char *text, bool path, le32 *offset,
                     le16 *bytes)
{
    size_t room = MIN(VHDX_LOCATOR_ROOM - *used, NAME_ROOM);
    size_t n = path ? utf16_from_path(text, to + *used, room)
                    : utf16_from_text(text, false, to + *used, room);
    *offset = le32_of(*used);
    *bytes = le16_of(n);
    *used += n;
    return n > 0;
}

size_t vhdx_locator_make(const char *name, const uint8_t *linkage, uint8_t *to)
{
    struct vhdx_locator_disk head = {.count = le16_of(2)};
    struct vhdx_locator_entry_disk n[2];
    const char *key = name[0] == '/' ? "absolute_win32_path" : "relative_path";
    char text[UUID_TEXT + 2];
    size_t used = sizeof(head) + sizeof(n);
    linkage_text(linkage, text);
    memcpy(head.type, vhdx_guid_locator, 16);
    bool ok = put_text(to, &used, "parent_linkage", false, &n[0].key_offset, &n[0].key_bytes) &&
              put_text(to, &used, text, false, &n[0].value_offset, &n[0].value_bytes) &&
              put_text(to, &used, key, false, &n[1].key_offset, &n[1].key_bytes) &&
              put_text(to, &used, name, true, &n[1].value_offset, &n[1].value_bytes);
    memcpy(to, &head, sizeof(head));
    memcpy(to + sizeof(head), n, sizeof(n));
    return ok ? used : 0;
}

/* --- another parent --- */

/* The table of metadata, read, with what is to change of it. */
struct change {
    struct vhdx *v;
    struct vhdx_metadata_disk table;
    struct vhdx_edit edit;
};

static unsigned slot_of(const struct change *c)
{
    unsigned i = 0, count = le16_get(c->table.count);
    while (i < count && memcmp(c->table.items[i].guid, vhdx_items[VHDX_ITEM_PARENT].guid, 16) != 0)
        i++;
    assert(i < count); /* it was found when the image was opened */
    return i;
}

static int co_edit_slot(struct change *c, unsigned i, const struct vhdx_item_disk *item)
{
    uint64_t at = offsetof(struct vhdx_metadata_disk, items) + i * sizeof(*item);
    return co_vhdx_edit(c->v, &c->edit, c->v->regions.metadata.offset + at, item, sizeof(*item));
}

/* Where the locator may be @bytes long: where it is, or behind all items. -ENOSPC: nowhere. */
static int find_room(const struct change *c, size_t bytes, uint64_t *at)
{
    uint64_t old = c->v->d.at[VHDX_ITEM_PARENT].offset, room = c->v->regions.metadata.bytes;
    uint64_t next = room, end = VHDX_TABLE_BYTES;
    for (unsigned i = 0; i < le16_get(c->table.count); i++) {
        uint64_t offset = le32_get(c->table.items[i].offset);
        uint64_t stop = offset + le32_get(c->table.items[i].bytes);
        next = offset > old ? MIN(next, offset) : next;
        end = MAX(end, stop);
    }
    *at = old + bytes <= next ? old : align_up(end, 8);
    return range_fits(*at, bytes, room) ? 0 : -ENOSPC;
}

static int co_put_locator(struct change *c, const uint8_t *raw, size_t bytes)
{
    struct vhdx *v = c->v;
    unsigned slot = slot_of(c);
    struct vhdx_item_disk item = c->table.items[slot];
    uint64_t at;
    TRY(find_room(c, bytes, &at));
    item.offset = le32_of(at);
    item.bytes = le32_of(bytes);
    TRY(co_edit_slot(c, slot, &item));
    TRY(co_vhdx_edit(v, &c->edit, v->regions.metadata.offset + at, raw, bytes));
    TRY(co_vhdx_apply(v, &c->edit));
    v->d.at[VHDX_ITEM_PARENT] = (struct vhdx_region){at, bytes};
    return 0;
}

/* Sector bitmaps count for nothing where no block is partly here: their places are let go of. */
static int co_drop_bitmaps(struct vhdx *v)
{
    struct map *m = &v->map;
    uint64_t chunks = div_up(div_up(m->shape.size, m->cluster_bytes), v->chunk_ratio), at;
    for (uint64_t i = 0; i < chunks; i++) {
        TRY(co_vhdx_bitmap_place(m, i, &at));
        if (at)
            TRY(co_vhdx_bitmap_drop(m, i));
    }
    return co_map_flush(m->dev);
}

static int co_stand_alone(struct change *c)
{
    struct vhdx *v = c->v;
    struct vhdx_item_disk none = {0};
    unsigned slot = slot_of(c), last = le16_get(c->table.count) - 1u;
    uint64_t region = v->regions.metadata.offset;
    le16 count = le16_of(last);
    le32 flags = le32_of(v->d.fixed ? 1 : 0);
    TRY(co_map_make_whole(&v->map));
    TRY(co_map_flush(v->map.dev));
    TRY(co_drop_bitmaps(v));
    TRY(co_edit_slot(c, slot, &c->table.items[last]));
    TRY(co_edit_slot(c, last, &none));
    TRY(co_vhdx_edit(v, &c->edit, region + offsetof(struct vhdx_metadata_disk, count), &count,
                     sizeof(count)));
    TRY(co_vhdx_edit(v, &c->edit, region + v->d.at[VHDX_ITEM_FILE].offset + 4, &flags,
                     sizeof(flags)));
    return co_vhdx_apply(v, &c->edit);
}

static int co_begin_change(struct vhdx *v, struct change **out, struct blk_error *e)
{
    struct change *c = mem_zalloc(sizeof(*c));
    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    c->v = v;
    int rc = co_vhdx_read_meta(v, v->regions.metadata.offset, &c->table, sizeof(c->table));
    if (rc < 0) {
        mem_free(c);
        return err_errno(e, rc, "the metadata cannot be read");
    }
    *out = c;
    return 0;
}

static int say_failure(int rc, struct blk_error *e)
{
    if (rc == -ENOTSUP)
        return err_set(e, rc,
                       "blocks are partly here: what they lack is in the parent, which was "
                       "not opened");
    return rc < 0 ? err_errno(e, rc, "the metadata cannot be written") : 0;
}

static int co_rename(struct vhdx *v, const char *name, struct blk_error *e)
{
    auto_free uint8_t *raw = mem_alloc(VHDX_LOCATOR_ROOM);
    auto_free struct change *c = NULL;
    auto_free char *now = name ? mem_strdup(name) : NULL;
    if (!raw || (name && !now))
        return err_set(e, -ENOMEM, "out of memory");
    size_t bytes = name ? vhdx_locator_make(name, NULL, raw) : 0;
    if (name && !bytes)
        return err_set(e, -EINVAL, "the name of the parent is too long, or no UTF-8");
    TRY(co_begin_change(v, &c, e));
    TRY(say_failure(name ? co_put_locator(c, raw, bytes) : co_stand_alone(c), e));
    v->d.has_parent = name;
    memset(v->linkage, 0, sizeof(v->linkage));
    map_backing_drop(&v->backing);
    v->backing.name = take(now);
    return 0;
}

int co_vhdx_change_backing(struct blk_device *dev, const char *name, const char *format,
                           struct blk_error *e)
{
    struct vhdx *v = vhdx_of(dev->state);
    if (v->d.has_parent)
        return co_rename(v, name, e);
    return name ? err_set(e, -ENOTSUP, "the image was made without a parent, and can get none") : 0;
}

/* The value of the locator as it is; else the locator is made anew. */
static int co_put_linkage(struct change *c, const uint8_t *linkage, uint8_t *raw)
{
    struct vhdx *v = c->v;
    const struct vhdx_region *at = &v->d.at[VHDX_ITEM_PARENT];
    uint64_t region = v->regions.metadata.offset;
    auto_free uint8_t *old = mem_alloc(at->bytes);
    char text[UUID_TEXT + 2];
    uint8_t value[2 * UUID_TEXT + 4];
    struct locator l = {.raw = old, .bytes = at->bytes};
    size_t bytes = 0;
    if (!old)
        return -ENOMEM;
    TRY(co_vhdx_read_meta(v, region + at->offset, old, at->bytes));
    memcpy(&l.head, old, MIN(sizeof(l.head), at->bytes));
    const uint8_t *there = value_of(&l, "parent_linkage", &bytes);
    linkage_text(linkage, text);
    size_t n = utf16_from_text(text, false, value, sizeof(value));
    if (there && bytes == n) {
        TRY(co_vhdx_edit(v, &c->edit, region + at->offset + (uint64_t)(there - old), value, n));
        return co_vhdx_apply(v, &c->edit);
    }
    bytes = vhdx_locator_make(v->backing.name, linkage, raw);
    return bytes ? co_put_locator(c, raw, bytes) : -EINVAL;
}

int co_vhdx_identify_backing(struct blk_device *dev, struct blk_device *backing,
                             struct blk_error *e)
{
    struct vhdx *v = vhdx_of(dev->state);
    const uint8_t *linkage = vhdx_identity(backing);
    auto_free uint8_t *raw = mem_alloc(VHDX_LOCATOR_ROOM);
    auto_free struct change *c = NULL;
    if (!v->d.has_parent)
        return 0;
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_begin_change(v, &c, e));
    TRY(say_failure(co_put_linkage(c, linkage, raw), e));
    memset(v->linkage, 0, sizeof(v->linkage));
    if (linkage)
        memcpy(v->linkage, linkage, sizeof(v->linkage));
    return 0;
}

/* --- the one that was found --- */

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

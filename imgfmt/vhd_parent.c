/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd_parent.c - the parent of a differencing VHD: its name from the locators, its identity.
 *
 * A locator holds a Windows path. The relative one counts; of an absolute one with a drive letter
 * or a server's name only the file's own name, looked for beside the child; last the name in the
 * header itself.
 *
 * What is durable before what, when the parent gets another name:
 *   1 the new name, where the one that counts does not lie -> the new header in its spare place
 *     -> the header, whose two sectors a crash may tear: the spare one counts then -> no spare one
 * Images of others have no spare place as a rule: there the header is one write of 1024 bytes. */
#include "block/utf16.h"
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
        return err_bad(e, -EINVAL, "the image has a parent, and does not name it");
    v->backing.name = name;
    return 0;
}

/* --- the spare header --- */

static uint64_t spare_at(const struct vhd *v)
{
    return v->h.header_offset + sizeof(v->header);
}

static uint64_t space_of(const struct vhd_locator_disk *l)
{
    uint32_t space = be32_get(l->space);
    return space < 512 ? space * 512ULL : space;
}

static bool apart(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a + a_bytes <= b || b + b_bytes <= a;
}

/* Whether [at, +bytes) lies behind the header, before all blocks, and off the table and the names
 * but for locator @but. */
static bool is_free(const struct vhd *v, uint64_t at, uint64_t bytes, int but)
{
    uint64_t end = MIN(v->h.data_from, v->units.base);
    if (at < spare_at(v) || !range_fits(at, bytes, end) ||
        !apart(at, bytes, v->h.table_offset, v->h.entries * 4ULL))
        return false;
    for (int i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator_disk *l = &v->header.locators[i];
        uint64_t offset = be64_get(l->offset);
        if (i != but && l->platform[0] && offset < end && !apart(at, bytes, offset, space_of(l)))
            return false;
    }
    return true;
}

int co_vhd_take_spare(struct vhd *v)
{
    struct vhd_header_disk spare;
    struct vhd_header h = v->h;
    struct blk_error ignored;
    if (!range_fits(v->h.header_offset, 2 * sizeof(spare), v->map.file->size))
        return -EINVAL;
    TRY(co_blk_read_buf(v->map.file, spare_at(v), &spare, sizeof(spare)));
    TRY(vhd_header_parse(&spare, v->map.file->size, &h, &ignored));
    v->header = spare;
    v->h = h;
    v->unsure = true;
    return 0;
}

int co_vhd_drop_spare(struct vhd *v)
{
    if (!is_free(v, spare_at(v), sizeof(v->header), -1))
        return 0;
    return co_blk_write_zeroes(v->map.file, spare_at(v), sizeof(v->header), 0);
}

static int co_put_header(struct vhd *v)
{
    vhd_seal_header(&v->header);
    if (is_free(v, spare_at(v), sizeof(v->header), -1)) {
        TRY(co_blk_write_buf(v->map.file, spare_at(v), &v->header, sizeof(v->header), 0));
        TRY(co_blk_flush(v->map.file));
    }
    TRY(co_vhd_put_header(&v->map));
    return co_vhd_drop_spare(v);
}

/* --- another parent --- */

static int locator_of(const struct vhd *v, const char *platform)
{
    for (int i = 0; i < VHD_LOCATORS; i++)
        if (memcmp(v->header.locators[i].platform, platform, 4) == 0)
            return i;
    return -1;
}

/* A place of one of the two names, which is not that of the one that counts. */
static int other_place(const struct vhd *v, int counts, size_t bytes)
{
    for (int i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator_disk *l = &v->header.locators[i];
        if (i != counts && l->platform[0] && space_of(l) >= bytes &&
            is_free(v, be64_get(l->offset), space_of(l), i))
            return i;
    }
    return -1;
}

static void put_locator(struct vhd_locator_disk *to, const char *platform,
                        const struct vhd_locator_disk *place, size_t bytes)
{
    *to = (struct vhd_locator_disk){
        .space = place->space, .bytes = be32_of(bytes), .offset = place->offset};
    memcpy(to->platform, platform, 4);
}

/* The two names change places: the new one is written where the one that does not count lay, and
 * once it counts, over the other one too. */
static int co_put_name(struct vhd *v, const char *name, const uint8_t *raw, size_t bytes)
{
    const char *slash = strrchr(name, '/');
    struct vhd_header_disk *h = &v->header;
    int relative = locator_of(v, "W2ru"), absolute = locator_of(v, "W2ku");
    int counts = relative >= 0 ? relative : absolute, at = other_place(v, counts, bytes);
    if (at < 0)
        return -ENOSPC;
    struct vhd_locator_disk now = h->locators[at], old = now;
    if (counts >= 0 && space_of(&h->locators[counts]) >= bytes &&
        is_free(v, be64_get(h->locators[counts].offset), bytes, counts))
        old = h->locators[counts];
    TRY(co_blk_write_buf(v->map.file, be64_get(now.offset), raw, bytes, 0));
    TRY(co_blk_flush(v->map.file));
    memset(h->locators, 0, sizeof(h->locators));
    memset(h->parent_name, 0, sizeof(h->parent_name));
    (void)!utf16_from_text(slash ? slash + 1 : name, true, h->parent_name,
                           sizeof(h->parent_name) - 2);
    put_locator(&h->locators[0], "W2ru", &now, bytes);
    put_locator(&h->locators[1], "W2ku", &old, bytes);
    TRY(co_put_header(v));
    TRY(co_blk_write_buf(v->map.file, be64_get(old.offset), raw, bytes, 0));
    return co_blk_flush(v->map.file);
}

/* Only the type changes; what the header says of a parent counts for nothing then. */
static int co_stand_alone(struct vhd *v)
{
    TRY(co_map_make_whole(&v->map));
    TRY(co_map_flush(v->map.dev));
    v->footer.type = be32_of(VHD_DYNAMIC);
    vhd_seal_footer(&v->footer);
    return co_vhd_put_footer(&v->map);
}

static int co_change(struct vhd *v, const char *name, struct blk_error *e)
{
    struct vhd_header_disk header = v->header;
    struct vhd_footer_disk footer = v->footer;
    uint8_t raw[VHD_NAME_ROOM];
    size_t bytes = name ? utf16_from_path(name, raw, sizeof(raw)) : 0;
    if (name && !bytes)
        return err_set(e, -EINVAL, "the name of the parent is too long, or no UTF-8");
    int rc = co_map_will_write(&v->map);
    if (rc == 0)
        rc = name ? co_put_name(v, name, raw, bytes) : co_stand_alone(v);
    if (rc == -ENOTSUP)
        return err_set(e, rc,
                       "blocks are partly here: what they lack is in the parent, which was "
                       "not opened");
    if (rc == -ENOSPC)
        return err_set(e, rc, "the image has no room for the name beside the old one");
    if (rc < 0) {
        v->header = header;
        v->footer = footer;
        v->unsure = true;
        return err_errno(e, rc, "the header cannot be written");
    }
    return 0;
}

int co_vhd_change_backing(struct blk_device *dev, const char *name, const char *format,
                          struct blk_error *e)
{
    struct vhd *v = container_of((struct map *)dev->state, struct vhd, map);
    if (!v->differs)
        return name ? err_set(e, -ENOTSUP,
                              "the image was made without a parent, and has no room "
                              "for a parent's name")
                    : 0;
    char *now = name ? mem_strdup(name) : NULL;
    int rc = name && !now ? err_set(e, -ENOMEM, "out of memory") : co_change(v, name, e);
    if (rc == 0) {
        map_backing_drop(&v->backing);
        v->backing.name = take(now);
    }
    mem_free(now);
    return rc;
}

static void identify(struct vhd_header_disk *h, struct blk_device *parent)
{
    memset(h->parent_uuid, 0, sizeof(h->parent_uuid));
    h->parent_time = be32_of(0);
    if (!parent || parent->driver != &vhd_driver)
        return;
    const struct vhd *p = container_of((struct map *)parent->state, struct vhd, map);
    memcpy(h->parent_uuid, p->footer.uuid, sizeof(h->parent_uuid));
    h->parent_time = p->footer.time;
}

/* All of it lies in the header's first sector, with the checksum. */
int co_vhd_identify_backing(struct blk_device *dev, struct blk_device *backing, struct blk_error *e)
{
    struct vhd *v = container_of((struct map *)dev->state, struct vhd, map);
    struct vhd_header_disk before = v->header;
    if (!v->differs)
        return 0;
    int rc = co_map_will_write(&v->map);
    if (rc == 0) {
        identify(&v->header, backing);
        rc = co_vhd_put_header(&v->map);
    }
    if (rc < 0) {
        v->header = before;
        v->unsure = true;
        return err_errno(e, rc, "the header cannot be written");
    }
    return 0;
}

/* --- the one that was found --- */

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

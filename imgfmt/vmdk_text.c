/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_text.c - the descriptor's text, written anew: another CID, another size, another parent.
 *
 * It lies in the header's room of a sparse extent, or is a file of its own. What changes as a rule
 * is one sector: a text is about 400 bytes long, and a CID takes the place of another one. Where a
 * text is longer than a sector (many extents) and the parent's name makes it longer, a crash in the
 * middle of the write leaves a mixture.
 *
 * A parent is named by parentFileNameHint and identified by parentCID. VMDK_ANY_PARENT is no CID
 * that an image gets from us; in a child it says that the parent is just being written to, or is
 * another one: so both commit and rebase can be cut short. */
#include <strings.h>

#include "imgfmt/vmdk.h"

/* Past the end of what was there, zeroes; from the first sector on that is another one. */
static int co_put(struct vmdk *v, const char *text)
{
    size_t bytes = strlen(text), had = strlen(v->text), same = 0;
    uint64_t room = v->h.text_at ? v->h.text_room : VMDK_TEXT_MOST;
    size_t most = v->h.text_at ? MAX(bytes, had) : bytes;
    struct blk_error ignored;
    if (bytes + 1 > room)
        return -EMSGSIZE;
    auto_free char *raw = mem_zalloc(most + 1);
    if (!raw)
        return -ENOMEM;
    memcpy(raw, text, bytes);
    while (!v->text_unsure && same < MIN(bytes, had) && text[same] == v->text[same])
        same++;
    same = align_down(same, 512);
    v->text_unsure = true;
    if (most > same)
        TRY(co_blk_write_buf(v->map.file, v->h.text_at + same, raw + same, most - same, 0));
    if (!v->h.text_at && v->map.file->limits.growable && v->map.file->size != bytes)
        return co_blk_resize(v->map.file, bytes, true, &ignored);
    return 0;
}

int co_vmdk_tell(struct vmdk *v, const struct vmdk_edit *edit)
{
    auto_free char *text = vmdk_descriptor_edit(v->text, edit);
    if (!text)
        return -ENOMEM;
    if (v->text_unsure || strcmp(text, v->text) != 0)
        TRY(co_put(v, text));
    mem_free(v->text);
    v->text = take(text);
    v->text_unsure = false;
    v->d.cid = edit->cid;
    v->d.parent_cid = edit->parent_cid;
    return 0;
}

struct vmdk_edit vmdk_as_it_is(const struct vmdk *v)
{
    return (struct vmdk_edit){.cid = v->d.cid, .parent_cid = v->d.parent_cid, .number = SIZE_MAX};
}

uint32_t vmdk_new_cid(const struct vmdk *v, struct host *host)
{
    uint32_t cid = v->d.cid;
    while (cid == v->d.cid || cid == VMDK_NO_PARENT || cid == VMDK_ANY_PARENT)
        host_random(host, &cid, sizeof(cid));
    return cid;
}

/* --- another parent --- */

static int may_name(const struct vmdk *v, const char *name, const char *format, struct blk_error *e)
{
    if (!v->text)
        return err_set(e, -ENOTSUP, "an extent of several names no parent");
    if (name && (strpbrk(name, "\"\r\n") || !*name))
        return err_set(e, -EINVAL, "quotes and line ends cannot stand in a descriptor");
    if (name && format && strcmp(format, vmdk_driver.name) != 0)
        return err_set(e, -EINVAL, "Invalid backing file format: %s. Must be vmdk", format);
    for (size_t i = 0; name && i < v->d.count; i++)
        if (v->d.extents[i].kind == VMDK_FLAT || v->d.extents[i].kind == VMDK_VMFS)
            return err_set(e, -ENOTSUP, "Flat image can't have backing file");
    return 0;
}

int co_vmdk_change_backing(struct blk_device *dev, const char *name, const char *format,
                           struct blk_error *e)
{
    struct vmdk *v = dev->state;
    struct vmdk_edit edit;
    TRY(may_name(v, name, format, e));
    auto_free char *now = name ? mem_strdup(name) : NULL;
    int rc = name && !now ? -ENOMEM : v->co_will_write(v);
    if (rc == 0) {
        edit = vmdk_as_it_is(v);
        edit.parent = name ? name : "";
        if (!name)
            edit.parent_cid = VMDK_NO_PARENT;
        else if (edit.parent_cid == VMDK_NO_PARENT)
            edit.parent_cid = VMDK_ANY_PARENT;
        rc = v->co_tell(v, &edit);
    }
    if (rc == -EMSGSIZE)
        return err_set(e, -ENOSPC, "the descriptor has no room for the name");
    if (rc < 0)
        return err_errno(e, rc, "the descriptor cannot be written");
    map_backing_drop(&v->backing);
    v->backing.name = take(now);
    return 0;
}

int co_vmdk_identify_backing(struct blk_device *dev, struct blk_device *backing,
                             struct blk_error *e)
{
    struct vmdk *v = dev->state;
    if (!v->text || v->d.parent_cid == VMDK_NO_PARENT)
        return 0;
    bool ours = backing && strcmp(backing->driver->name, vmdk_driver.name) == 0;
    int rc = v->co_will_write(v);
    if (rc == 0) {
        struct vmdk_edit edit = vmdk_as_it_is(v);
        edit.parent_cid = ours ? ((const struct vmdk *)backing->state)->d.cid : VMDK_ANY_PARENT;
        rc = v->co_tell(v, &edit);
    }
    return rc < 0 ? err_errno(e, rc, "the descriptor cannot be written") : 0;
}

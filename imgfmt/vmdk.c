/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk.c - VMware disks: the driver, and the parents of delta images.
 *
 * A file is a sparse extent, with its descriptor inside or without one (one of several), or a
 * descriptor that names its extents; then another driver table of the same name takes over
 * (vmdk_extents.c). The parent is found by parentFileNameHint, and its CID has to be parentCID. */
#include <strings.h>

#include "imgfmt/vmdk.h"

static const char first_line[] = "# Disk DescriptorFile";

/* As QEMU has it: comments and empty lines, then the version. */
static bool is_descriptor(const uint8_t *head, size_t bytes)
{
    size_t at = 0;
    while (at < bytes &&
           (head[at] == '#' || head[at] == ' ' || head[at] == '\r' || head[at] == '\n')) {
        if (head[at] == '#')
            while (at < bytes && head[at] != '\n')
                at++;
        at++;
    }
    return at + 10 <= bytes && memcmp(head + at, "version=", 8) == 0 && head[at + 8] >= '1' &&
           head[at + 8] <= '3' && (head[at + 9] == '\n' || head[at + 9] == '\r');
}

static bool is_text(const void *head, size_t bytes)
{
    size_t length = sizeof(first_line) - 1;
    bool named = bytes > length && strncasecmp(head, first_line, length) == 0;
    return named || is_descriptor(head, bytes);
}

static int vmdk_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "it begins with KDMV";
    if (p->head_bytes >= sizeof(struct vmdk_header_disk) && memcmp(p->head, "KDMV", 4) == 0)
        return 100;
    *reason = "it begins with COWD";
    if (p->head_bytes >= 512 && memcmp(p->head, "COWD\1\0\0\0", 8) == 0)
        return 100;
    *reason = "the text of a disk's descriptor";
    return is_text(p->head, p->head_bytes) ? 100 : 0;
}

/* --- parents --- */

int co_vmdk_want_parent(struct vmdk *v, struct blk_opener *opener, struct blk_error *e)
{
    v->parent_told = !opener || opener_has(opener, "backing");
    if (v->d.parent && *v->d.parent) {
        v->backing.name = mem_strdup(v->d.parent);
        v->backing.format = mem_strdup("vmdk");
        if (!v->backing.name || !v->backing.format)
            return err_set(e, -ENOMEM, "out of memory");
    } else if (v->d.parent_cid != VMDK_NO_PARENT && !v->parent_told) {
        return err_bad(e, -EINVAL, "the image has a parent, and does not name it");
    }
    return co_map_backing_want(&v->map, &v->backing, opener, e);
}

int vmdk_check_parent(const struct vmdk *v, struct blk_error *e)
{
    const struct blk_device *b = blk_child(v->map.dev, "backing");
    if (!b || v->parent_told || strcmp(b->driver->name, vmdk_driver.name) != 0)
        return 0;
    const struct vmdk *parent = b->state;
    if (parent->d.cid == v->d.parent_cid || v->d.parent_cid == VMDK_ANY_PARENT)
        return 0;
    return err_set(e, -EINVAL,
                   "its parent %.200s was written to since (its CID is %08" PRIx32
                   ", not %08" PRIx32 "); backing.file.filename=... opens it all the same",
                   b->name, parent->d.cid, v->d.parent_cid);
}

static int co_vmdk_opened(struct blk_device *dev, struct blk_error *e)
{
    TRY(co_map_opened(dev, e));
    return vmdk_check_parent(dev->state, e);
}

/* --- info --- */

int co_vmdk_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    out->cluster_size = dev->limits.cluster_size;
    if (v->text)
        out->specific =
            json_pack("{s:I, s:I, s:s, s:O}", "cid", (json_int_t)v->d.cid, "parent-cid",
                      (json_int_t)v->d.parent_cid, "create-type", v->d.type, "extents", v->shown);
    if (v->text && !out->specific)
        return err_set(e, -ENOMEM, "out of memory");
    return map_backing_info(&v->backing, out, e);
}

/* A disk in one file shows that one. */
static int show_itself(struct vmdk *v, struct blk_opener *opener)
{
    const char *name = opener ? opener_file_name(opener) : NULL;
    json_t *one =
        v->h.flags & VMDK_COMPRESSED ? json_pack("{s:b}", "compressed", 1) : json_object();
    json_t *rest = json_pack("{s:I, s:o, s:I, s:s}", "virtual-size", (json_int_t)v->h.size,
                             "filename", json_from_text(name ? name : ""), "cluster-size",
                             (json_int_t)v->h.grain_bytes, "format", "");
    if (one && rest)
        (void)!json_object_update(one, rest);
    json_decref(rest);
    v->shown = json_pack("[o]", one);
    return v->shown ? 0 : -ENOMEM;
}

/* --- opening --- */

static int co_read_text(struct vmdk *v, uint64_t at, uint64_t bytes, struct blk_error *e)
{
    uint64_t there = at < v->map.file->size ? v->map.file->size - at : 0;
    bytes = MIN(bytes, there);
    v->text = mem_zalloc(bytes + 1);
    if (!v->text)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = bytes ? co_blk_read_buf(v->map.file, at, v->text, bytes) : 0;
    if (rc < 0)
        return err_errno(e, rc, "the descriptor cannot be read");
    if (v->text[0] == 0 && at == 0)
        v->text[0] = '#'; /* not completed yet */
    return vmdk_descriptor_parse(v->text, &v->d, e);
}

static int co_open_inside(struct vmdk *v, struct blk_device *dev,
                          const struct vmdk_header_disk *raw, const struct opts *opts,
                          struct blk_opener *opener, struct blk_error *e)
{
    TRY(co_vmdk_open_sparse(v, dev, raw, opts, e));
    int rc = v->h.text_room ? co_read_text(v, v->h.text_at, v->h.text_room, e) : 0;
    if (rc == 0 && v->text)
        rc = show_itself(v, opener);
    if (rc == 0 && v->text)
        rc = co_vmdk_want_parent(v, opener, e);
    if (rc < 0 && v->map.meta)
        co_map_detach(&v->map);
    return rc;
}

static int co_open_se(struct vmdk *v, struct blk_device *dev, const struct vmdk_header_disk *head,
                      const struct opts *opts, struct blk_error *e)
{
    struct vmdk_se_disk raw;
    memcpy(&raw, head, sizeof(raw));
    TRY(vmdk_se_parse(&raw, &v->h, e));
    TRY(co_vmdk_se_replayed(v->map.file, &raw, e));
    v->map.format = &vmdk_se_format;
    return co_vmdk_open_readonly(v, dev, opts, e);
}

static int co_open_parts(struct vmdk *v, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    struct vmdk_header_disk raw = {0};
    struct blk_device *file;
    unsigned pass = BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags & pass, &file, e));
    v->map.file = file;
    v->map.dev = dev;
    dev->state = v;
    int rc = co_blk_read_buf(file, 0, &raw, MIN(file->size, sizeof(raw)));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    if (le32_get(raw.magic) == VMDK_COWD_MAGIC)
        return co_vmdk_open_cowd(v, dev, opts, e);
    if (memcmp(&raw, "\xbe\xba\xfe\xca\0\0\0\0", 8) == 0)
        return co_open_se(v, dev, &raw, opts, e);
    bool fresh = dev->open_flags & BLK_OPEN_FRESH;
    bool text = fresh && le32_get(raw.magic) != VMDK_MAGIC ? memcmp(&raw, "\0 Disk", 6) == 0
                                                           : memcmp(&raw, "KDMV", 4) != 0;
    if (!text)
        return co_open_inside(v, dev, &raw, opts, opener, e);
    if (!fresh && !is_text(&raw, MIN(file->size, sizeof(raw))))
        return err_wrong_format(e, "not a VMDK image");
    if (file->size > VMDK_TEXT_MOST)
        return err_bad(e, -EFBIG, "%" PRIu64 " bytes are too many for a descriptor", file->size);
    TRY(co_read_text(v, 0, file->size, e));
    return co_vmdk_open_extents(v, dev, opener, e);
}

void vmdk_drop(struct vmdk *v)
{
    if (v->codec_made)
        codec_drop(&v->codec);
    vmdk_out_drop(v->out);
    map_backing_drop(&v->backing);
    vmdk_descriptor_drop(&v->d);
    json_decref(v->shown);
    mem_free(v->parts);
    mem_free(v->cowd);
    mem_free(v->text);
    mem_free(v);
}

static int co_vmdk_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct vmdk *v = mem_zalloc(sizeof(*v));
    if (!v)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(v, dev, opts, opener, e);
    /* Given by hand, all there is has been opened. */
    if (rc == 0 && !opener && dev->driver->co_opened)
        return dev->driver->co_opened(dev, e);
    if (rc < 0) {
        vmdk_drop(v);
        dev->state = NULL;
    }
    return rc;
}

static int co_vmdk_close(struct blk_device *dev, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    int rc = co_map_units_close(&v->map, e);
    vmdk_drop(v);
    return rc;
}

const struct blk_driver vmdk_driver = {
    .name = "vmdk",
    .title = "VMware disk (VMDK)",
    .mend = "if FILE is a text, an editor mends it (the extents lie beside it); else get it again "
            "if it is a copy or a download (one that was cut short looks like this), or take it "
            "from a backup",
    .extensions = "vmdk",
    MAP_UNITS_DRIVER,
    .knows_backing = true,
    .create_options = vmdk_create_options,
    .probe = vmdk_probe,
    .co_create = co_vmdk_create,
    .co_measure = co_vmdk_measure,
    .measure_is_ours = true,
    .co_open = co_vmdk_open,
    .co_opened = co_vmdk_opened,
    .co_close = co_vmdk_close,
    .co_change_backing = co_vmdk_change_backing,
    .co_identify_backing = co_vmdk_identify_backing,
    .co_info = co_vmdk_info,
};

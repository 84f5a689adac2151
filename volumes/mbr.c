/* SPDX-License-Identifier: BSD-3-Clause */
/* mbr.c - the partition table of the first sector: four primary partitions, and logical ones in a
 * chain of records inside an extended one.
 *
 *   | boot code | p1 p2 p3 p4 | 55 aa |        p4 extended: | record | p5 ... | record | p6 ... |
 *
 * A record's first entry is a logical partition, counted from the record on; its second one leads
 * to the next record, counted from the beginning of the extended partition. At most 252 are
 * followed, and none twice backwards: a chain that comes back ends there.
 *
 * To grow the last partition is one write of one sector; a crash leaves the old or the new one. */
#include <stdio.h>

#include "block/resolver.h"
#include "volumes/mbr.h"

#define LOGICAL_MAX 252

struct mbr {
    struct part_table t; /* first */
    struct mbr_disk first;
};

static bool is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

static bool is_used(const struct mbr_entry_disk *d)
{
    return d->type != 0 && le32_get(d->sectors) != 0;
}

bool mbr_is_sane(const struct mbr_disk *m)
{
    if (m->signature[0] != 0x55 || m->signature[1] != 0xaa)
        return false;
    for (unsigned i = 0; i < 4; i++) {
        const struct mbr_entry_disk *d = &m->entries[i];
        if (d->status & 0x7f || (is_used(d) && le32_get(d->start) == 0))
            return false;
    }
    return true;
}

bool mbr_is_used(const struct mbr_disk *m)
{
    for (unsigned i = 0; i < 4; i++)
        if (is_used(&m->entries[i]))
            return true;
    return false;
}

bool mbr_has_type(const struct mbr_disk *m, uint8_t type)
{
    for (unsigned i = 0; i < 4; i++)
        if (is_used(&m->entries[i]) && m->entries[i].type == type)
            return true;
    return false;
}

/* --- reading ------------------------------------------------------------------------------------
 */

static int add(struct part_table *t, unsigned number, const struct mbr_entry_disk *d, uint64_t base)
{
    struct part *p = part_add(t);
    if (!p)
        return -ENOMEM;
    p->number = number;
    p->offset = base + (uint64_t)le32_get(d->start) * t->sector_bytes;
    p->bytes = (uint64_t)le32_get(d->sectors) * t->sector_bytes;
    p->type_title = part_mbr_title(d->type);
    p->is_container = is_extended(d->type);
    snprintf(p->type, sizeof(p->type), "0x%02x", d->type);
    return 0;
}

/* The chain inside the extended partition at @base. What cannot be read or is no record ends it:
 * what was found before is there all the same. */
static int co_read_chain(struct mbr *m, uint64_t base)
{
    struct part_table *t = &m->t;
    uint64_t at = base, next;
    unsigned number = 5; /* an empty record takes none */
    for (unsigned n = 0; n < LOGICAL_MAX; n++, at = next) {
        struct mbr_disk record;
        if (!range_fits(at, sizeof(record), t->file->size) ||
            co_blk_read_buf(t->file, at, &record, sizeof(record)) < 0 || !mbr_is_sane(&record))
            return 0;
        if (is_used(&record.entries[0]) && !is_extended(record.entries[0].type))
            TRY(add(t, number++, &record.entries[0], at));
        if (!is_used(&record.entries[1]) || !is_extended(record.entries[1].type))
            return 0;
        next = base + (uint64_t)le32_get(record.entries[1].start) * t->sector_bytes;
        if (next <= at)
            return 0;
    }
    return 0;
}

static int read_primary(struct mbr *m)
{
    part_forget_all(&m->t);
    for (unsigned i = 0; i < 4; i++)
        if (is_used(&m->first.entries[i]))
            TRY(add(&m->t, i + 1, &m->first.entries[i], 0));
    return 0;
}

static int co_read_table(struct mbr *m)
{
    TRY(read_primary(m));
    size_t primary = m->t.count;
    for (size_t i = 0; i < primary; i++)
        if (m->t.list[i].is_container)
            return co_read_chain(m, m->t.list[i].offset);
    return 0;
}

static int co_mbr_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    struct mbr *m = mem_zalloc(sizeof(*m));
    if (!m)
        return err_set(e, -ENOMEM, "out of memory");
    m->t = (struct part_table){.file = file, .scheme = "mbr"};
    bool wide = opts_given(opts, "sector-size") ? opts_number(opts, "sector-size") == 1
                                                : file->limits.request_align > 512;
    m->t.sector_bytes = wide ? 4096 : 512;
    int rc = file->size < sizeof(m->first)
                 ? err_set(e, -EINVAL, "the disk is too small for a partition table")
                 : 0;
    if (rc == 0 && (rc = co_blk_read_buf(file, 0, &m->first, sizeof(m->first))) < 0)
        err_errno(e, rc, "the first sector cannot be read");
    if (rc == 0 && !mbr_is_sane(&m->first))
        rc = err_set(e, -EINVAL, "the first sector holds no partition table");
    if (rc == 0 && (rc = co_read_table(m)) < 0)
        err_set(e, rc, "out of memory");
    dev->state = m;
    if (rc < 0) {
        part_forget_all(&m->t);
        mem_free(m);
    }
    return rc;
}

static int co_mbr_close(struct blk_device *dev, struct blk_error *e)
{
    struct mbr *m = dev->state;
    part_forget_all(&m->t);
    mem_free(m);
    return 0;
}

static int mbr_probe(const struct blk_probe *p, const char **reason)
{
    struct mbr_disk m;
    *reason = "a partition table (MBR) in the first sector";
    if (p->head_bytes < sizeof(m))
        return 0;
    memcpy(&m, p->head, sizeof(m));
    bool fs = memcmp(m.code + 3, "NTFS", 4) == 0 || memcmp(m.code + 3, "EXFAT", 5) == 0 ||
              memcmp(m.code + 0x36, "FAT", 3) == 0 || memcmp(m.code + 0x52, "FAT", 3) == 0;
    return !fs && mbr_is_used(&m) && mbr_is_sane(&m) ? 50 : 0;
}

/* --- growing ------------------------------------------------------------------------------------
 */

static int co_mbr_grow(struct blk_device *dev, const char *name, uint64_t *bytes,
                       struct blk_error *e)
{
    struct mbr *m = dev->state;
    const struct part *p = name ? part_find(&m->t, name) : part_last(&m->t);
    if (!p)
        return err_set(e, -ENOENT, "there is no partition%s%s", name ? " " : "", name ? name : "");
    if (p->number > 4 || p->is_container)
        return err_set(e, -EINVAL,
                       "p%u lies in an extended partition, or is one: only primary ones grow "
                       "(sfdisk changes the others)",
                       p->number);
    uint64_t most = (uint64_t)UINT32_MAX * m->t.sector_bytes;
    uint64_t end = part_next_start(&m->t, p, m->t.file->size);
    uint64_t length = end > p->offset ? MIN(end - p->offset, most) : 0;
    length = align_down(length, m->t.sector_bytes);
    if (length < p->bytes)
        return err_set(e, -EINVAL, "p%u reaches past the end of the disk, or into another one",
                       p->number);
    struct mbr_disk next = m->first;
    next.entries[p->number - 1].sectors = le32_of((uint32_t)(length / m->t.sector_bytes));
    int rc = co_blk_write_buf(m->t.file, 0, &next, sizeof(next), BLK_FUA);
    if (rc < 0)
        return err_errno(e, rc, "the partition table cannot be written");
    m->first = next;
    m->t.list[p - m->t.list].bytes = length;
    *bytes = length;
    return 0;
}

static const struct opt_desc mbr_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the disk"},
    {.name = "sector-size",
     .type = OPT_ENUM,
     .choices = part_sector_sizes,
     .help = "bytes that the table counts in (what the disk asks for, else 512)"},
    {0},
};

const struct blk_driver mbr_driver = {
    .name = "mbr",
    .title = "partitions, as the first sector lists them",
    .mend = "programs like testdisk find where partitions begin and end; "
            "driver=slice,offset=BYTES,size=BYTES,file.filename=FILE (with --image-opts) opens one "
            "by that",
    .only_inner = true,
    .open_options = mbr_options,
    .probe = mbr_probe,
    .co_open = co_mbr_open,
    .co_close = co_mbr_close,
    .co_inner_list = co_part_inner_list,
    .co_inner_open = co_part_inner_open,
    .co_inner_grow = co_mbr_grow,
    .co_read = co_part_read,
    .co_write = co_part_write,
    .co_info = co_part_info,
};

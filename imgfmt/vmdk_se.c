/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_se.c - seSparse, the snapshots of ESXi 6.5 and later: its headers and entries, to be read
 * (no public description from VMware; facts from QEMU's mailing list, April 2019).
 *
 *   | header, constant | header, volatile | journal | directory | tables | bitmap, back map |
 * grains |
 *
 * All numbers are 64 bits. Directory and tables have room from the beginning, and entries count
 * from where tables and grains begin: the top 4 bits say what an entry is, the others which one. Of
 * a grain's number the lowest 12 bits stand above the others. Reading is vmdk_stream.c's and
 * map.c's. */
#include "imgfmt/vmdk.h"

#define SE_MAGIC          0xcafebabeULL
#define SE_VOLATILE_MAGIC 0xcafecafeULL
#define SE_MAJOR          2u
#define SE_MOST           ((uint64_t)INT64_MAX / 4) /* bytes: of any place */

struct se_volatile_disk {
    le64 magic, free_table, next_transaction, replay;
};

static int parse_places(const struct vmdk_se_disk *raw, struct vmdk_header *h, struct blk_error *e)
{
    uint64_t gd = le64_get(raw->gd_at), gd_room = le64_get(raw->gd_sectors);
    uint64_t tables = le64_get(raw->tables_at), grains = le64_get(raw->grains_at);
    if (gd > SE_MOST / 512 || gd_room > SE_MOST / 512 || tables > SE_MOST / 512 ||
        grains > SE_MOST / 512)
        return err_bad(e, -EINVAL,
                       "the header is damaged: it puts tables past the end of any file");
    if (gd_room < div_up(h->tables * 8, 512))
        return err_bad(e, -EINVAL, "the directory is too short for the disk");
    h->gd_at = gd * 512;
    h->tables_at = tables * 512;
    h->grains_at = grains * 512;
    return 0;
}

int vmdk_se_parse(const struct vmdk_se_disk *raw, struct vmdk_header *out, struct blk_error *e)
{
    uint64_t capacity = le64_get(raw->capacity), grain = le64_get(raw->grain);
    uint64_t table = le64_get(raw->table), version = le64_get(raw->version);
    if (le64_get(raw->magic) != SE_MAGIC)
        return err_set(e, -EINVAL, "not a seSparse extent");
    if (version >> 32 != SE_MAJOR)
        return err_bad(e, -ENOTSUP, "seSparse version %" PRIu64 ".%" PRIu64 "; 2 is known",
                       version >> 32, version & UINT32_MAX);
    if (le64_get(raw->flags))
        return err_bad(e, -ENOTSUP, "seSparse flags that are not known");
    if (!is_pow2(grain) || grain > 256 * MiB / 512 || !is_pow2(table) || table > 32 * MiB / 512)
        return err_bad(e, -EINVAL,
                       "the header says grains of %" PRIu64 " sectors and tables of %" PRIu64
                       ", which are impossible",
                       grain, table);
    if (capacity > SE_MOST / 512)
        return err_bad(e, -EFBIG,
                       "the header says a disk of %" PRIu64 " sectors, which is too large",
                       capacity);
    *out = (struct vmdk_header){
        .version = 2,
        .size = capacity * 512,
        .grain_bytes = grain * 512,
        .entry_bytes = 8,
        .table_entries = (uint32_t)(table * 512 / 8),
    };
    out->tables = div_up(capacity, grain * out->table_entries);
    if (out->tables > 32 * MiB / 8)
        return err_bad(e, -EFBIG, "the disk needs %" PRIu64 " grain tables, more than are read",
                       out->tables);
    return parse_places(raw, out, e);
}

int co_vmdk_se_replayed(struct blk_device *file, const struct vmdk_se_disk *raw,
                        struct blk_error *e)
{
    struct se_volatile_disk v;
    uint64_t at = le64_get(raw->volatile_at);
    if (at > SE_MOST / 512 || !range_fits(at * 512, 512, file->size))
        return err_bad(e, -EINVAL, "the volatile header ends past the file");
    int rc = co_blk_read_buf(file, at * 512, &v, sizeof(v));
    if (rc < 0)
        return err_errno(e, rc, "the volatile header cannot be read");
    if (le64_get(v.magic) != SE_VOLATILE_MAGIC)
        return err_bad(e, -EINVAL, "the volatile header is damaged: it does not begin as one");
    return le64_get(v.replay)
               ? err_set(e, -ENOTSUP, "its journal is to be replayed, which ESXi has to do")
               : 0;
}

/* --- entries --- */

enum { SE_NONE, SE_UNMAPPED, SE_ZERO, SE_GRAIN };

static uint64_t entry_of(const void *entry)
{
    le64 raw;
    memcpy(&raw, entry, sizeof(raw));
    return le64_get(raw);
}

static int se_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    uint64_t raw = entry_of(entry), low = (raw >> 48) & 0xfff;
    uint64_t number = low | (raw & 0x0000ffffffffffffULL) << 12;
    switch (raw >> 60) {
    case SE_NONE:
        out->state = MAP_HOLE;
        return raw ? -EIO : 0;
    case SE_UNMAPPED:
    case SE_ZERO:
        out->state = MAP_ZERO;
        return 0;
    case SE_GRAIN:
        if (number > SE_MOST >> m->shape.cluster_bits)
            return -EIO;
        out->state = MAP_DATA;
        out->offset = vmdk_of(m)->h.grains_at + (number << m->shape.cluster_bits);
        return 0;
    default:
        return -EIO;
    }
}

static void se_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    memset(entry, 0, 8); /* nobody writes */
}

static int se_root_decode(const struct map *m, const void *entry, uint64_t *offset, bool *shared)
{
    uint64_t raw = entry_of(entry);
    *shared = false;
    *offset = 0;
    if (raw == 0)
        return 0;
    if (raw >> 32 != 0x10000000)
        return -EIO;
    *offset = vmdk_of(m)->h.tables_at + (raw & UINT32_MAX) * m->shape.table_bytes;
    return 0;
}

const struct map_format vmdk_se_format = {
    .decode = se_decode,
    .encode = se_encode,
    .root_decode = se_root_decode,
    .table_rank = 0,
    .root_rank = 1,
};

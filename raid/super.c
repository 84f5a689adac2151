/* SPDX-License-Identifier: BSD-3-Clause */
/* super.c - what all versions of md's superblocks share: where they lie, roles, names. */
#include <stdio.h>

#include "block/crc32c.h"
#include "raid/super.h"

#define SECTOR 512

const char *md_version_name(enum md_version v)
{
    static const char *const names[] = {"0.90", "1.0", "1.1", "1.2", "dm-raid"};
    return names[v];
}

bool md_super_place(enum md_version v, uint64_t bytes, uint64_t *offset)
{
    uint64_t sectors = bytes / SECTOR;
    switch (v) {
    case MD_0_90: /* the last whole 64 KiB */
        *offset = sectors < 256 ? 0 : ((sectors & ~127ull) - 128) * SECTOR;
        return sectors >= 256;
    case MD_1_0: /* 8 to 12 KiB before the end */
        *offset = sectors < 24 ? 0 : ((sectors - 16) & ~7ull) * SECTOR;
        return sectors >= 24;
    case MD_1_1:
        *offset = 0;
        return sectors >= 24;
    default:
        *offset = 8 * SECTOR;
        return sectors >= 24;
    }
}

int md_super_parse(enum md_version v, const uint8_t *raw, uint64_t bytes, struct md_super *out,
                   struct blk_error *e)
{
    *out = (struct md_super){.version = v, .recovery_offset = UINT64_MAX};
    memcpy(out->raw, raw, MD_SUPER_BYTES);
    if (!md_super_place(v, bytes, &out->super_offset))
        return -ENODATA;
    return v == MD_0_90 ? md_super_0_parse(raw, bytes, out, e)
                        : md_super_1_parse(v, raw, bytes, out, e);
}

void md_super_build(struct md_super *s)
{
    assert(!s->read_only);
    if (s->version == MD_0_90)
        md_super_0_build(s);
    else if (s->version == MD_DM_RAID)
        md_super_dm_build(s);
    else
        md_super_1_build(s);
}

uint64_t md_super_bytes(const struct md_super *s, uint64_t block_bytes)
{
    if (s->version == MD_0_90)
        return MD_SUPER_BYTES;
    if (s->version == MD_DM_RAID)
        return MIN(block_bytes, MD_SUPER_BYTES);
    return MIN(align_up(256 + 2 * (uint64_t)s->role_count, block_bytes), MD_SUPER_BYTES);
}

/* --- roles -------------------------------------------------------------------------------------
 */

unsigned md_super_role(const struct md_super *s, unsigned number)
{
    return number < s->role_count ? s->roles[number] : MD_ROLE_SPARE;
}

bool md_super_set_role(struct md_super *s, unsigned number, unsigned role)
{
    if (number >= (s->version == MD_0_90 ? MD_DISKS_0 : MD_ROLES_1))
        return false;
    while (s->role_count <= number)
        s->roles[s->role_count++] = MD_ROLE_SPARE;
    s->roles[number] = (uint16_t)role;
    return true;
}

bool md_super_same_array(const struct md_super *a, const struct md_super *b)
{
    return (a->version == MD_0_90) == (b->version == MD_0_90) &&
           memcmp(a->uuid, b->uuid, sizeof(a->uuid)) == 0 && a->level == b->level &&
           a->layout == b->layout && a->chunk == b->chunk;
}

void md_uuid_text(const struct md_super *s, char text[MD_UUID_TEXT])
{
    char *at = text;
    for (unsigned i = 0; i < 16; i++)
        at += snprintf(at, (size_t)(text + MD_UUID_TEXT - at), "%s%02x", i && i % 4 == 0 ? ":" : "",
                       s->uuid[i]);
}

uint32_t md_uuid_crc(const struct md_super *s)
{
    return crc32c(0, s->uuid, sizeof(s->uuid));
}

unsigned md_super_roles(const struct md_super *s)
{
    int before = (int)s->disks - (s->reshaping ? s->delta_disks : 0);
    return MAX(s->disks, (unsigned)MAX(before, 0));
}

uint64_t md_super_end(const struct md_super *s)
{
    uint64_t end = s->super_offset + MD_SUPER_BYTES;
    if (s->bad_bytes)
        end = MAX(end, s->super_offset + (uint64_t)s->bad_offset + s->bad_bytes);
    if (s->features & (MD_PPL | MD_MULTIPLE_PPLS))
        end = MAX(end, s->super_offset + (uint64_t)s->ppl_offset + s->ppl_bytes);
    return end;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* mbr.h - the partition table of the first sector, as it lies on disk. */
#ifndef VOLUMES_MBR_H
#define VOLUMES_MBR_H

#include "block/endian.h"
#include "volumes/part.h"

struct mbr_entry_disk {
    uint8_t status;       /* 0x80: boot from it; 0 */
    uint8_t first_chs[3]; /* cylinder, head, sector: ignored, written as "too far" */
    uint8_t type;         /* 0: unused */
    uint8_t last_chs[3];
    le32 start;   /* sectors; of logical ones from their own record on */
    le32 sectors; /* its length */
};
static_assert(sizeof(struct mbr_entry_disk) == 16, "a partition entry");

struct mbr_disk { /* sector 0, and the first one of each link of an extended partition */
    uint8_t code[446];
    struct mbr_entry_disk entries[4];
    uint8_t signature[2]; /* 55 aa */
};
static_assert(sizeof(struct mbr_disk) == 512, "a boot record");

enum { MBR_GPT = 0xee };

/* Is there a signature, and only entries that can be? */
bool mbr_is_sane(const struct mbr_disk *m);
bool mbr_is_used(const struct mbr_disk *m); /* has it an entry? */
/* Has it an entry of that type? */
bool mbr_has_type(const struct mbr_disk *m, uint8_t type);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* ppl.h - the partial parity log of md's level 5, in arrays that have one; others have log.h's.
 *
 * Each member has an area beside its superblock, for the strips whose parity it holds: a header of
 * entries, then for each the *partial parity*, the sum of the data that a strip does not change.
 * With it and with what is in place of the data that was being changed parity is right again, so
 * that a member that is lost at the same time, and was not written to, is what it was.
 *
 * ppl.c writes it, ppl_replay.c reads it. */
#ifndef RAID_PPL_H
#define RAID_PPL_H

#include "block/endian.h"
#include "raid/rows.h"

#define PPL_HEAD    4096u
#define PPL_ENTRIES 148

struct ppl_entry_disk {
    le64 sector; /* of the array: where what is changed begins */
    le32 partial_bytes, data_bytes;
    le32 parity_role;
    le32 crc; /* CRC-32C of the partial parity */
};
struct ppl_head_disk {
    uint8_t reserved[512]; /* all ones */
    le32 signature;        /* CRC-32C of the array's UUID */
    le32 pad;
    le64 generation;
    le32 count;
    le32 crc; /* of these 4 KiB, with this one zero */
    struct ppl_entry_disk entry[PPL_ENTRIES];
    uint8_t pad2[8];
};
static_assert(sizeof(struct ppl_entry_disk) == 24, "PPL entry");
static_assert(sizeof(struct ppl_head_disk) == PPL_HEAD, "PPL header");

/* A strip that is logged. */
struct ppl_hold {
    struct ppl_log *log; /* NULL: it needs none */
    const struct row_strip *s;
    uint64_t offset, data_bytes, partial_bytes; /* offset: in the array */
    uint8_t *partial;
    struct ppl_hold *next;
    struct co *co;
    bool woken, leads;
    int rc;
};

/* One member's. Its strips go by *units*: what is in one header. */
struct ppl_log {
    struct raid_member *m;
    uint64_t start, room;           /* of partial parity, behind the header, on the device */
    struct ppl_hold *waiting, *end; /* for the next unit */
    unsigned in_flight;             /* strips of this unit that are being written in place */
    bool busy;                      /* somebody prepares a unit, or one is in flight */
    bool used;                      /* what its last unit wrote may not be flushed */
};

struct raid_ppl {
    uint64_t generation; /* of the header that was written last */
    uint64_t units;
    uint32_t signature;
};

static inline bool ppl_is_in(const struct md_super *s)
{
    return s->features & (MD_PPL | MD_MULTIPLE_PPLS);
}
/* Entries beside what is there; sums up @h. */
void ppl_seal(struct ppl_head_disk *h);

/* Of an array that has one and is written to: replays it if the array went down dirty, and begins
 * it anew. */
must_use int co_ppl_open(struct raid_array *a, struct blk_error *e);
void ppl_close(struct raid_array *a);
/* Before the superblock of a member of an array with one: its area is empty. */
must_use int co_ppl_clear(struct blk_device *dev, const struct md_super *s);

/* What @s does not change is durable in the log of its parity's member. Gives *h, to be ended when
 * the strip is in place. */
int co_ppl_strip(const struct row_strip *s, struct ppl_hold *h);
void ppl_end(struct ppl_hold *h);

/* What an entry says, in bytes. */
struct ppl_span {
    uint64_t first, last; /* in the array: what was changed */
    uint64_t columns;     /* of each chunk */
    unsigned chunks;
    struct raid_row row;
    uint64_t offset; /* in the members' data: of the first column */
    unsigned index;  /* of the first chunk in the row */
};
/* ppl_replay.c: of the log of the member with @role. False: it cannot be. */
bool ppl_span_of(const struct raid_shape *shape, const struct ppl_entry_disk *e, uint32_t role,
                 struct ppl_span *p);
/* All members' logs. *clean: nothing in parity can be wrong now. */
must_use int co_ppl_replay(struct raid_array *a, bool *clean);

#endif

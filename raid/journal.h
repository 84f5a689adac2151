/* SPDX-License-Identifier: BSD-3-Clause */
/* journal.h - the journal of md's levels 4, 5 and 6 (r5l), on a device of its own: it closes the
 * write hole of arrays that have one; others have log.h's or ppl.h's.
 *
 * A ring of *records*. A record is a meta block and the blocks that it describes: data and parity
 * of *stripes* (4 KiB of each member, at the same place). The journal's superblock says where the
 * oldest record lies that counts, the tail.
 *
 *     | meta: data, data, parity | block | block | block | meta ... | room | older records ...
 *
 * Linux has two modes. In write-through mode a stripe's data and parity are in one record, before
 * they are written in place. In write-back mode data come alone, are what readers get, and parity
 * comes in a later record. Here the first is written, and both are read.
 *
 *     journal_disk.c    pure: meta blocks, and what of all records counts
 *     journal_scan.c    records found from the tail on; blocks read
 *     journal_replay.c  what counts is written in place; who only reads gets it from here
 *     journal.c         records written, room used again */
#ifndef RAID_JOURNAL_H
#define RAID_JOURNAL_H

#include "block/endian.h"
#include "raid/rows.h"

#define JOURNAL_BLOCK      4096u
#define JOURNAL_MAGIC      0x6433c509
#define JOURNAL_JUMP       10000      /* of sequence numbers, where a new chain begins */
#define JOURNAL_ITEMS_MOST (3u << 20) /* blocks that may count, and that are looked at: 12 GiB */
#define JOURNAL_LIVE_MOST  (1u << 18) /* blocks of ours that have to be replayed: 1 GiB */
#define JOURNAL_PIECES     512        /* of memory, in one write of records */

struct journal_meta_disk { /* 4 KiB, little endian */
    le32 magic;
    le32 crc; /* as journal_crc(), with this one zero */
    uint8_t version, pad0;
    le16 pad1;
    le32 bytes; /* that are used of this block */
    le64 sequence;
    le64 position; /* sectors, in the ring */
    uint8_t payload[JOURNAL_BLOCK - 32];
};
enum journal_kind { JOURNAL_DATA, JOURNAL_PARITY, JOURNAL_FLUSH };
struct journal_payload_disk {
    le16 kind, flags;
    le32 sectors;  /* of the blocks; of a flush: bytes of the list */
    le64 location; /* sectors: of data in the array, of parity in the members' data */
    le32 crc[];    /* of each block */
};
/* Stripes that are in place: what came before of them counts no more. */
struct journal_flush_disk {
    le16 kind, flags;
    le32 bytes;
    le64 stripe[]; /* sectors, in the members' data */
};
static_assert(sizeof(struct journal_meta_disk) == JOURNAL_BLOCK, "journal meta block");
static_assert(sizeof(struct journal_payload_disk) == 16, "journal payload");
static_assert(sizeof(struct journal_flush_disk) == 8, "journal flush");
#define JOURNAL_HEAD offsetof(struct journal_meta_disk, payload)
/* A meta block has to have room for a stripe. */
#define JOURNAL_DISKS_MOST ((JOURNAL_BLOCK - JOURNAL_HEAD - 4) / 20)

/* A block of the journal that says something of a member's page. */
enum journal_item_kind {
    ITEM_FLUSH, /* what came before of the stripe counts no more */
    ITEM_DATA,
    ITEM_PARITY,
    /* What they become: */
    ITEM_WHOLE, /* is to be in place, and the others of its stripe agree with it */
    ITEM_ALONE, /* newer data, which parity knows nothing of yet */
};
struct journal_item {
    uint64_t page;  /* in the members' data, or that of all of them: the stripe */
    uint32_t block; /* from the tail on */
    uint16_t role;
    uint16_t kind;
};
struct journal_items {
    struct journal_item *item;
    size_t count, room;
    size_t alone; /* once folded */
};

/* --- journal_disk.c ----------------------------------------------------------------------------
 */

/* All checksums begin with @seed: md_uuid_crc(). */
uint32_t journal_crc(uint32_t seed, const void *bytes, size_t count);
void journal_seal(struct journal_meta_disk *m, uint32_t seed);
/* Whether it is one, and lies where it says. Its checksum is zero afterwards. */
bool journal_is_meta(struct journal_meta_disk *m, uint32_t seed, uint64_t position);

/* One payload. */
struct journal_payload {
    enum journal_kind kind;
    unsigned blocks;     /* of the ring; flush: 0 */
    uint64_t location;   /* bytes; flush: 0 */
    const le32 *crc;     /* for each block */
    const le64 *stripes; /* flush: sectors */
    unsigned stripe_count;
};
/* Takes the payload at *at (to begin with JOURNAL_HEAD) and moves on. 1: there is one; 0: it was
 * the last; -EINVAL: it cannot be. */
int journal_next(const struct journal_meta_disk *m, const struct raid_shape *shape, unsigned *at,
                 struct journal_payload *out);
/* Adds what the record says whose meta block lies @block blocks behind the tail. -EINVAL: some of
 * it lies outside of the array, and nothing is added. */
int journal_gather(const struct journal_meta_disk *m, const struct raid_shape *shape,
                   uint32_t block, struct journal_items *to);
/* Of all items those that count, by page, then role: at most one whole and one alone for each. */
void journal_fold(struct journal_items *items, unsigned disks);
/* The first item of @page or of a later one; items->count: there is none. */
size_t journal_find(const struct journal_items *items, uint64_t page);

/* Bytes of the smallest ring that an array can be written with: it has room for some stripes. */
static inline uint64_t journal_least(unsigned disks)
{
    return 4 * MAX(disks + 1, 4) * (uint64_t)JOURNAL_BLOCK;
}

/* --- the journal of an open array --------------------------------------------------------------
 */

/* A strip's record on its way, and while it is written in place. */
struct journal_hold {
    struct raid_journal *journal; /* NULL: none */
    const struct row_strip *s;
    struct journal_hold *prev, *next; /* in flight, oldest first */
    struct journal_hold *next_unwritten;
    uint64_t at, blocks;
    unsigned columns; /* stripes in each of its records */
    unsigned metas;
    struct journal_meta_disk *meta; /* as many */
    uint8_t *zeroes;                /* as long as the strip; NULL: it has none */
    bool done;
    int rc;
};

/* Places count on without end, in blocks; their remainder is where they lie in the ring. */
struct raid_journal {
    struct raid_member *m;
    uint32_t seed;
    uint64_t start, blocks; /* of the ring: bytes on the device; blocks */
    uint64_t tail;          /* durably: nobody may write to what lies behind */
    uint64_t next, sequence;
    uint64_t newest; /* the record that was begun last: a tail that is always there */
    uint64_t data_end, data_sequence; /* behind the last record found that is not of parity alone */
    uint64_t chain;                   /* where the chain begins that it is in */
    struct journal_hold *first, *last, *unwritten, *end;
    struct co_mutex write_lock; /* records, one write at a time */
    struct co_queue room;       /* who waits for room */
    bool trimming;
    int rc;                     /* a record could not be written: no later one would be found */
    bool replaying;             /* the tail must stay */
    struct journal_items found; /* that count, of an array that is only read */
    uint64_t records, writes, trims;
};

static inline bool journal_is_in(const struct md_super *s)
{
    return s->features & MD_JOURNAL;
}

/* journal_scan.c: all records from the journal's tail on; what counts of them goes to j->found,
 * where a new chain may begin to next and sequence. */
must_use int co_journal_scan(struct raid_array *a, struct raid_journal *j);
must_use int co_journal_block(const struct raid_journal *j, uint64_t at, void *block);

/* Of an array that has one, if its journal is there: replays it, or keeps what counts for who only
 * reads. */
must_use int co_journal_open(struct raid_array *a, struct blk_error *e);
void journal_close(struct raid_array *a);

/* Whether something of these columns is to be read from the journal. */
bool journal_covers(const struct raid_array *a, uint64_t offset, uint64_t bytes);
/* Puts over the contents of @role's block what the journal has of that kind. */
must_use int co_journal_patch(const struct row_strip *s, uint32_t role, uint8_t *contents,
                              enum journal_item_kind kind);

/* Everything older is in place and flushed: a new chain of records begins, durably; once the
 * journal's superblock has been written, which is filled in, the tail is there. */
must_use int co_journal_begin(struct raid_array *a);
void journal_begun(struct raid_journal *j);
/* At closing: all is in place, and the journal is empty. */
must_use int co_journal_empty(struct raid_array *a);

/* What @s is about to write becomes durable in the journal. Gives *h, to be ended when it is in
 * place. */
must_use int co_journal_strip(const struct row_strip *s, struct journal_hold *h);
void journal_end(struct journal_hold *h);
/* Bytes of columns whose records fit into the ring and into one write; 0: none do. */
uint64_t journal_widest(const struct raid_array *a);

#endif

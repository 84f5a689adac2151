/* SPDX-License-Identifier: BSD-3-Clause */
/* log.h - the stripe log of levels 4, 5 and 6: closes the write hole.
 *
 * A crash between the writes of data and parity leaves rows whose parity is wrong; with a member
 * lost at the same time what that one held is gone, though nobody was writing to it. So what will
 * be written is written to a log first: on the members that hold the row's parity, in the gap
 * between superblock and data, which md ignores.
 *
 *     | superblock, bitmap, ... | head 4 KiB | ring of records ... | data
 *
 * The parity's members are enough: if they are lost, only data is left, which needs no parity; if
 * others are, the log is there. Each member's ring is its own, with its own sequence. A record has
 * the contents of all blocks that a strip changes; of whole rows, all of whose data is being
 * written, it only says so (a mark), and parity is made anew. A mark is about many rows, and on all
 * members that hold parity of one of them: so older contents of a row, which are replayed only
 * where no later mark is, are never found without it.
 *
 * A record names the rings that it goes to. One that has not reached all of them was not begun in
 * place; if it were replayed from one ring alone, and that one were lost before it is in place,
 * nothing would say what it was. So it is passed over if one of the others can say so.
 *
 * In arrays of LVM2 the gap is the rest of the volume that has superblock and bitmap. dm-raid takes
 * every array for one that is being written to, and need not touch its superblock before it writes;
 * but it writes the bitmap's header when it loads it. So all bitmaps are sealed with the log's
 * session (bitmap.h), before superblocks say dirty; a log whose seal is broken does not count.
 *
 * log.c writes records and heads, log_replay.c reads them. */
#ifndef RAID_LOG_H
#define RAID_LOG_H

#include "block/endian.h"
#include "raid/rows.h"

#define LOG_BLOCK    4096u
#define LOG_LEAST    (64 * KiB)
#define LOG_MOST     (16 * MiB)
#define LOG_MARKED   (256 * MiB)
#define LOG_SYNCED   1u /* parity was right everywhere but for what is in the log */
#define LOG_HEAD_TAG "lamina-L"
#define LOG_TAG      "lamina-r"

struct log_head_disk { /* little endian; the first 512 bytes of the head */
    char tag[8];
    le32 crc; /* CRC-32C of these 512 bytes, with this one zero */
    le32 flags;
    uint8_t array_uuid[16];
    le64 session;             /* records of others are old */
    le64 ring_bytes;          /* behind the head's block */
    le64 tail, tail_sequence; /* the first record that counts: place in the ring */
    /* CRC-32C of this member's superblock: as it was, as an update would have it that failed, and
     * as the one has it that comes. */
    le32 super_now, super_tried, super_next;
    le32 ring;       /* its number in the session; 0: records do not name it */
    le64 tail_order; /* older records need not be here: they are in place */
    uint8_t pad[424];
};
static_assert(sizeof(struct log_head_disk) == 512, "log head");

enum log_kind { LOG_CONTENTS, LOG_ZEROES, LOG_MARK, LOG_RING };
struct log_entry_disk {
    le64 offset; /* in the member's data; of a ring: its number */
    le32 bytes;  /* of one chunk; of a mark: of as many rows as it is */
    le16 role;   /* of a mark and a ring: none */
    le16 kind;
};
struct log_record_disk {
    char tag[8];
    le32 crc;          /* CRC-32C of the header blocks, with this one zero */
    le32 contents_crc; /* of what follows them */
    le64 session;
    le64 sequence; /* in the ring */
    le64 order;    /* among the records of all rings; those of one strip have the same */
    le32 bytes;    /* with header blocks and contents */
    le32 count;
    struct log_entry_disk entry[];
};
static_assert(sizeof(struct log_record_disk) == 48, "log record");
static_assert(sizeof(struct log_entry_disk) == 16, "log entry");

/* Header blocks of a record with that many entries. */
static inline uint64_t log_header_bytes(uint64_t entries)
{
    return align_up(sizeof(struct log_record_disk) + entries * sizeof(struct log_entry_disk),
                    LOG_BLOCK);
}

struct log_ticket;

/* Where what counts begins: its place, and the numbers of the record there or that comes there. */
struct log_tail {
    uint64_t at, sequence, order;
};

/* One member's part. Places count on without end; their remainder is where they lie in the ring. */
struct log_ring {
    struct raid_member *m;
    uint32_t number;       /* another one when the member has been away */
    uint64_t start, bytes; /* of the ring, on the device; the head is in the block before */
    uint64_t next, next_sequence;
    struct log_tail tail;
    uint64_t marked; /* bytes that marks behind the tail are about: what is read after a crash */
    uint32_t super_now, super_tried, super_next; /* as in the head */
    struct log_ticket *first, *last;    /* whose blocks are being written in place, oldest first */
    struct log_ticket *unwritten, *end; /* records that are still to be written */
    bool writing, trimming;
    int rc; /* a record could not be written: those behind it would not be found, until the head
               says that what counts begins there */
    struct co_mutex head_lock;
};

struct raid_log {
    uint64_t session;
    uint64_t order;       /* of the next record */
    bool synced;          /* while it is replayed: nothing else can be wrong in parity */
    uint64_t marked_most; /* of a ring */
    struct co_queue room; /* who waits for room in a ring */
    uint64_t records, trims;
};

/* A record on its way: one strip, or a mark, in one ring. */
struct log_ticket {
    struct log_ring *ring;
    struct raid_array *a;
    struct log_ticket *prev, *next, *next_unwritten;
    uint64_t at, sequence, order, bytes;
    uint64_t marked; /* bytes; of a strip: 0 */
    uint8_t *header;
    const struct row_strip *s; /* NULL: a mark */
    struct co *co;
    bool done, leads;
    int rc;
};
struct log_hold {
    struct log_ticket *ticket;
    unsigned count, room;
};

/* Where a member's log has its place; false: it has none. */
bool log_area(const struct md_super *s, uint64_t *start, uint64_t *bytes);
uint32_t log_super_crc(const struct md_super *s);
/* What bitmaps are sealed with from the next update on, of arrays without a log too; 0: they are
 * not. */
uint64_t log_seal(const struct raid_array *a);
/* Of arrays whose bitmaps are sealed. */
uint64_t log_seal_of(uint64_t session);

/* Of an array that is written to: prepares the rings, replays what they hold, after which a dirty
 * array is not dirty any more if it was in sync before. Arrays without room have no log: a->log is
 * NULL. */
int co_log_open(struct raid_array *a, struct blk_error *e);
/* Of an open array: it would have a log, but for that. */
bool log_has_no_room(const struct raid_array *a);
void log_close(struct raid_array *a);

/* Of all rings: nothing in them counts any more. Without effect on members that it cannot be said
 * to: they are put out. */
int co_log_empty(struct raid_array *a);
/* state.c's: @m is out. When it comes back nothing in its ring counts. */
void log_leave(struct raid_member *m);
/* state.c's: before @m's superblock, which has been built, is written; and when it has been, or may
 * have been. */
int co_log_announce(struct raid_array *a, struct raid_member *m);
void log_announced(struct raid_member *m, bool written);

/* What @s is about to write becomes durable in the log. Gives *h, to be ended when it has been
 * written in place. */
int co_log_strip(const struct row_strip *s, struct log_hold *h);
/* The same of whole rows, or the same columns of all chunks of one: only that they are written. */
int co_log_mark(struct raid_array *a, uint64_t offset, uint64_t bytes, struct log_hold *h);
void log_end(struct raid_array *a, struct log_hold *h);
/* Bytes of columns whose record fits into the smallest ring; 0: none does. */
uint64_t log_widest(const struct raid_array *a);

/* log_replay.c. The session of a member's log, if that counts, and nothing but what is in it can be
 * wrong in parity; 0: else. */
uint64_t co_log_session(const struct raid_member *m);
/* All rings. *replayed: nothing in parity is wrong now. */
int co_log_replay(struct raid_array *a, bool *replayed, struct blk_error *e);

#endif

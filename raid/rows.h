/* SPDX-License-Identifier: BSD-3-Clause */
/* rows.h - levels 4, 5 and 6, between their files.
 *
 *     rows.c         the engine's table; requests cut into rows
 *     rows_merge.c   small writes to one row that come at the same time become one
 *     rows_strip.c   a strip: reading it, getting back what is lost
 *     rows_write.c   a strip that changes: what to read, parity, what to write
 *     rows_run.c     whole rows, several at a time
 *     rows_mend.c    strips that could be written only in part
 *     rows_sync.c    resync, recovery, scrub
 *     log.h, ppl.h, journal.h
 *                    what a strip writes, or what it does not change, is durable elsewhere before
 *
 * A *row* is a chunk of each member. A *part* is what one request has in one row, in bytes of the
 * row's data. A *strip* is what is read, computed and written at once: the same columns of all
 * chunks of a row, whole pages, with one answer for each member: untouched, touched, or whole.
 *
 * Invariants:
 *  R1 A strip is locked in a->writers (offsets: of the members' data) while it is looked at as a
 *     whole: shared to get back what is lost, alone to change it.
 *  R2 What may be written goes to every member that has a role, in sync or not, so that a member
 *     that is being filled misses nothing.
 *  R3 A strip waits for memory only when it has its lock, and for no second lock. */
#ifndef RAID_ROWS_H
#define RAID_ROWS_H

#include "raid/array.h"
#include "raid/parity.h"

#define ROW_PAGE      4096u
#define ROW_TORN_MOST 64
#define ROW_SLICE     (256 * KiB) /* columns of the longest strip */
#define ROW_RUN       MiB         /* of the longest run */

struct row_part;

/* Who writes to a row, and who waits to be merged into one write behind that. */
struct row_gate {
    struct row_gate *next;
    uint64_t row;
    struct row_part *waiting; /* by their place in the row */
};

/* A block that could not be written, of a strip of which others were: until it is, that strip is
 * torn. */
struct row_torn {
    uint32_t role;
    uint64_t offset, bytes;
    uint8_t *contents; /* NULL: zeroes */
};

/* The engine's state. */
struct rows {
    uint64_t held, most; /* bytes of memory of all strips */
    uint64_t slice;      /* columns of a strip, so that its record fits into the log */
    struct co_queue room;
    struct row_gate *gates[64]; /* by row */
    struct row_torn torn[ROW_TORN_MOST];
    unsigned torn_count;
    struct co_mutex mending;
    uint64_t merged; /* parts that went with another one's write */
};

struct row_part {
    uint64_t row, at, bytes; /* at: in the row's data; bytes: to its end, or whole rows */
    struct vec vec;          /* to read into or to write */
    bool zero;               /* zeroes are written instead */
    unsigned flags;
    struct row_part *next; /* of a batch, ascending */
    /* rows_merge.c's */
    struct row_gate gate;
    struct co *co;
    bool woken, leads;
    int rc;
};

/* The parts that are done at once; all of one row. */
struct row_batch {
    struct raid_array *a;
    uint64_t row;
    struct row_part *parts;
    unsigned flags;
    bool whole; /* the whole row is written */
    int (*co_strip)(struct raid_array *a, struct row_batch *b, uint64_t at, uint64_t bytes);
};
/* Cuts a batch into strips and runs co_strip for each, several at a time. */
int co_rows_batch(struct row_batch *b);
/* What the batch does to columns [at, +bytes) of data chunk @i. */
enum row_cover { ROW_UNTOUCHED, ROW_TOUCHED, ROW_WHOLE };
enum row_cover row_cover(const struct row_batch *b, unsigned i, uint64_t at, uint64_t bytes);
/* Where @part and those columns meet: bytes (0: nowhere), and where that begins in each. */
uint64_t row_meet(const struct row_batch *b, const struct row_part *part, unsigned i, uint64_t at,
                  uint64_t bytes, uint64_t *in_part, uint64_t *in_strip);
/* The memory of the one part that covers them all, if it is flat and aligned; NULL: there is none.
 */
uint8_t *row_direct(const struct row_batch *b, unsigned i, uint64_t at, uint64_t bytes);
/* Writes a part, with others that wait for the row. */
int co_rows_merge(struct raid_array *a, struct row_part *part);

/* One member's block of a strip. */
struct row_block {
    enum { BLOCK_UNKNOWN, BLOCK_GOOD, BLOCK_LOST } state;
    bool wanted;  /* its contents are needed */
    bool partly;  /* written, and part of it stays */
    bool failed;  /* it is there, but could not be read */
    bool written; /* fresh goes to the member */
    bool ours;    /* old is of the pool */
    bool fresh_ours;
    uint8_t *old;   /* contents; aligned for parity.h */
    uint8_t *fresh; /* what they become; NULL: zeroes */
    struct member_io io;
    struct iovec iov;
};

/* A lock on part of the members' data, and memory for what is done there. */
struct row_hold {
    struct raid_array *a;
    struct co_range_hold range;
    uint64_t memory;
};
/* Waits for both; what was torn there is mended. -errno: nothing is held. */
int co_rows_hold(struct row_hold *h, struct raid_array *a, uint64_t offset, uint64_t bytes,
                 bool shared, uint64_t memory);
void rows_release(struct row_hold *h);

struct row_strip {
    struct raid_array *a;
    struct raid_row row;
    uint64_t offset, bytes;  /* in the members' data */
    struct row_block *block; /* by role */
    struct row_hold hold;
};

/* Locks the strip, mended if it was torn, and gets memory for it; to be closed. -errno: it is not
 * open. */
int co_strip_open(struct row_strip *s, struct raid_array *a, uint64_t offset, uint64_t bytes,
                  bool shared);
void strip_close(struct row_strip *s);
/* How many of @bytes (whole pages) of the members' data from @offset on, at least a page, are
 * alike: each member's are all bad, or all not. Strips are no longer than that. */
uint64_t rows_even(const struct raid_array *a, uint64_t offset, uint64_t bytes);
/* Contents of all blocks that are wanted: read, or got back from the others. What could not be read
 * of a member that is there is written back. -EIO: too much is lost. */
int co_strip_load(struct row_strip *s);
/* Whether the others bring back what @role does not have of those columns. */
bool rows_enough_without(const struct raid_array *a, uint32_t role, uint64_t offset,
                         uint64_t bytes);
/* Writes the blocks that are to be written, side by side; members that fail are put out, or have it
 * on their lists of bad blocks. */
int co_strip_store(struct row_strip *s, unsigned flags);
/* After a write that failed: the member is put out, or has it on its list of bad blocks; where it
 * cannot be spared, or it was not its fault, it is tried again. 0: the write may be answered. */
int co_rows_write_again(struct raid_array *a, uint32_t role, struct member_io *io);
/* rows_mend.c: keeps what could not be written. Takes @contents (buf_get() of io->bytes), which a
 * write of zeroes has not; without them the array is lost. */
void rows_tear(struct raid_array *a, uint32_t role, const struct member_io *io, uint8_t *contents);
/* Writes what is still to be written; -errno: there is something left. No strip may be locked by
 * the caller. */
int co_rows_mend(struct raid_array *a);
bool rows_torn(const struct raid_array *a, uint64_t offset, uint64_t bytes);
void rows_forget_torn(struct raid_array *a);
/* Memory for a block's old and fresh contents, if it has none. */
int strip_old(struct row_strip *s, struct row_block *b);
int strip_fresh(struct row_strip *s, struct row_block *b);
/* Old (or fresh) contents as parity.h wants them; @data: room for PARITY_POWERS_MOST. */
struct parity_row strip_parity(const struct row_strip *s, uint8_t **data, bool fresh);

/* rows_run.c. Writes a part that is whole rows, of ROW_RUN or one; -ENOTSUP: it has to go strip by
 * strip, and nothing has been done. */
int co_rows_run(struct raid_array *a, const struct row_part *part);
/* Runs @fn, which computes with @bytes: here, or on a thread where that is worth it. */
int co_rows_compute(int (*fn)(void *arg), void *arg, uint64_t bytes);

/* row_batch's co_strip */
int co_strip_change(struct raid_array *a, struct row_batch *b, uint64_t at, uint64_t bytes);
int co_strip_read(struct raid_array *a, struct row_batch *b, uint64_t at, uint64_t bytes);

/* rows_sync.c: as in struct raid_engine */
int co_rows_resync(struct raid_array *a, uint64_t offset, uint64_t bytes);
int co_rows_rebuild(struct raid_array *a, struct raid_member *member, uint64_t offset,
                    uint64_t bytes);
int co_rows_scrub(struct raid_array *a, uint64_t offset, uint64_t bytes, bool repair,
                  struct raid_scrub *found);

#endif

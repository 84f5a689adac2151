/* SPDX-License-Identifier: BSD-3-Clause */
/* model.h - what a device may legally show: per 512-byte sector, the operations that reached it.
 *
 * Time is a counter that moves with every beginning and end of an operation; *cuts* are the events
 * of the simulator's recording (host_sim_cut()). An operation later in time *covers* an earlier one
 * if it began after that one had ended. Then
 *   a read may show every value that began before the read ended, but for those covered by one that
 *   had succeeded before the read began;
 *   a crash at a cut may leave every value that began before the cut, but for those covered by one
 *   that was acknowledged and flushed (or FUA) before the cut.
 * A failed write may show old or new and covers nothing. A discard may show zeroes and covers
 * nothing. Contents carry the number of their operation and of their sector, so stale or misplaced
 * data is recognised. Memory comes from malloc(): the program's allocation faults must not hit it.
 */
#ifndef TESTS_LIB_MODEL_H
#define TESTS_LIB_MODEL_H

#include "block/base.h"

#define MODEL_SECTOR 512U
#define MODEL_NEVER  UINT64_MAX

enum model_kind { MODEL_WRITE, MODEL_ZERO, MODEL_DISCARD, MODEL_DISCARD_ANY };

/* Values of a sector: the number of the operation that wrote it, or one of these. */
#define MODEL_ZEROES  0U
#define MODEL_BASE    0xfffffffeU /* the backing file's data */
#define MODEL_GARBAGE 0xffffffffU /* nothing that was ever written there */
#define MODEL_ANY     0xfffffffdU /* in a set: whatever it is, it is legal */

struct model_op {
    enum model_kind kind;
    uint64_t offset, bytes;
    uint64_t start, end; /* time; end MODEL_NEVER: in flight */
    uint64_t start_cut;  /* could not have reached the disk before */
    uint64_t flushed;    /* time when it was known durable; MODEL_NEVER: not yet */
    uint64_t flushed_cut;
    bool ok;
};

struct model_sector {
    uint32_t *ops; /* numbers, in order of beginning */
    uint32_t count, room;
};

struct model {
    uint64_t max_size;  /* sectors beyond do not exist */
    uint64_t base_size; /* of the backing file; 0: none */
    bool unflushed_any; /* anything may be where writes failed, and after a crash where they were
                           not flushed */
    bool keep;          /* everything that ever happened, for crashes long ago */
    uint64_t now;
    struct model_op *ops; /* [0] is nothing; numbers are 1 .. op_count - 1 */
    uint32_t op_count, op_room;
    struct model_sector *sectors;
    /* sizes the device had: a write of the size, with the same rules */
    struct model_op *sizes; /* bytes holds the size */
    uint32_t size_count, size_room;
};

void model_init(struct model *m, uint64_t size, uint64_t max_size, uint64_t base_size);
void model_drop(struct model *m);

/* An operation begins; gives its number. */
uint32_t model_begin(struct model *m, enum model_kind kind, uint64_t offset, uint64_t bytes,
                     uint64_t cut);
void model_end(struct model *m, uint32_t op, bool ok);
/* @op (FUA, just ended) is durable. */
void model_fua(struct model *m, uint32_t op, uint64_t cut);
/* Everything that had succeeded at time @began is durable: a flush that began then succeeded. */
void model_flushed(struct model *m, uint64_t began, uint64_t cut);
/* A flush or a close failed: what was acknowledged and not flushed may be there or not. */
void model_doubt(struct model *m);
uint64_t model_now(struct model *m);

/* Resize from @old (what the device says), with nothing else in flight. */
uint32_t model_resize_begin(struct model *m, uint64_t old, uint64_t size, uint64_t cut);
void model_resize_end(struct model *m, uint32_t size_op, bool ok);
bool model_size_legal(const struct model *m, uint64_t size, uint64_t cut, bool crash);
/* Also true of what lies between two legal sizes. */
bool model_size_between(const struct model *m, uint64_t size, uint64_t cut, bool crash);
uint64_t model_size(const struct model *m); /* the latest */

/* Contents. */
void model_fill(uint32_t op, uint64_t offset, void *to, uint64_t bytes);
uint32_t model_value(uint64_t offset, const void *sector); /* which value these bytes are */

/* The earliest number that is still legal, and so on: a set of at most @room values into @set;
 * gives their count. @began: of a read, its beginning. */
unsigned model_legal_read(const struct model *m, uint64_t sector, uint64_t began, uint32_t *set,
                          unsigned room);
unsigned model_legal_crash(const struct model *m, uint64_t sector, uint64_t cut, uint32_t *set,
                           unsigned room);
/* True if @value may be read in @sector now. */
bool model_may_read(const struct model *m, uint64_t sector, uint64_t began, uint32_t value);
/* "3 or 7 or zeroes" */
void model_set_text(const uint32_t *set, unsigned count, char *to, size_t room);

#define MODEL_SET 256

#endif

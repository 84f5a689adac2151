/* SPDX-License-Identifier: BSD-3-Clause */
/* array.h - an assembled array: its members, its state, and what a level adds to it.
 *
 * Layers of this folder, from below:
 *
 *     geometry.h, parity.h, super.h    pure: places, parity, superblocks
 *     assemble.h                       pure: from superblocks to a plan: who has which role
 *     foreign.h                        members of arrays that are not md's
 *     array.h, state.c                 members that live: superblocks written, members failed
 *     replace.c                        members that are replaced while they serve
 *     mirror.c, rows.c                 reading and writing of levels 1 and 10; 4, 5 and 6
 *     bitmap.c, log.c, ppl.c,
 *     journal.c                        what must be on disk before a write
 *     badblocks.c                      what is not to be read of a member
 *     sync.c                           resync, recovery, check, repair
 *     reshape.h                        arrays that change their shape
 *     md.c, member.c                   the driver: one blk_device over members as children
 *
 * Everything runs at the device's home worker.
 *
 * Invariants:
 *  A1 Before the first write to a clean array all members' superblocks say dirty, durably.
 *  A2 A write that skips a member is not answered before the others' superblocks durably say that
 *     the member failed (or that it is not in sync from there on).
 *  A3 A member's superblock is never written again once it has failed.
 *  A4 The last member that something depends on is not failed: the request fails instead.
 *  A5 Overlapping writes are ordered (co_range); reads of data being rebuilt wait for its row.
 *  A6 What is written to a member that is being replaced is written to its replacement as well,
 *     before it is answered (member.c). */
#ifndef RAID_ARRAY_H
#define RAID_ARRAY_H

#include "block/block.h"
#include "raid/geometry.h"
#include "raid/super.h"

struct raid_array;
struct raid_intent; /* intent.h */
struct bad_list;    /* badblocks.h */
struct member_io;

enum raid_member_state {
    MEMBER_OUT, /* left out: stale, of another array, or failed. Never written (A3) */
    MEMBER_IN_SYNC,
    MEMBER_REBUILDING, /* in sync below recovered */
    MEMBER_SPARE,
    MEMBER_JOURNAL, /* has no data of the array, but its journal: cannot be spared */
};

/* One device. It is a child of the array's device until it is removed. */
struct raid_member {
    struct blk_device *dev;
    struct md_super *super; /* NULL in arrays without superblocks */
    uint64_t data_offset;   /* bytes, in dev */
    enum raid_member_state state;
    unsigned role;            /* RAID_NO_DISK: of spares, and of those that are left out */
    uint64_t recovered;       /* MEMBER_REBUILDING: bytes of its data that are in sync */
    bool by_bitmap;           /* MEMBER_REBUILDING: only what bits are set for is missing */
    uint64_t recovered_saved; /* durably: what its superblock may say */
    uint64_t read_errors;     /* corrected */
    uint64_t mismatches;      /* bytes that scrubs found wrong here, as far as that can be told */
    uint64_t events;          /* that its superblock has, durably */
    struct log_ring *log;     /* its part of the stripe log; NULL: none */
    struct ppl_log *ppl;      /* its partial parity log; NULL: none */
    /* A6: the one that is filled to take this one's place, which has no place in by_role until
     * then; and the other way round. The first stays when this one is out: writes that are under
     * way have to go there. */
    struct raid_member *replacement, *replaces;
    struct raid_array *array;
    struct bad_list *bad; /* what is not to be read there; NULL: it has no list */
};

/* What comparing found: bytes. */
struct raid_scrub {
    uint64_t mismatches; /* do not agree */
    uint64_t *by_role;   /* level 6: of these only that member can have the wrong ones; NULL: is not
                            asked for */
};

/* What a kind of level does; offsets are in the array. NULL: the level has no such thing. */
struct raid_engine {
    /* As a driver's. */
    bool (*resolve)(struct raid_array *a, uint64_t offset, uint64_t bytes, bool write,
                    struct blk_place *out);
    int (*co_open)(struct raid_array *a, struct blk_error *e);
    void (*close)(struct raid_array *a);
    int (*co_read)(struct raid_array *a, uint64_t offset, const struct vec *to);
    int (*co_write)(struct raid_array *a, uint64_t offset, const struct vec *from, unsigned flags);
    int (*co_write_zeroes)(struct raid_array *a, uint64_t offset, uint64_t bytes, unsigned flags);
    int (*co_discard)(struct raid_array *a, uint64_t offset, uint64_t bytes);
    /* Finishes what could be written only in part: a->torn. */
    int (*co_mend)(struct raid_array *a);
    /* Makes [offset, +bytes) of all members agree (level 10: of the array): resync. */
    int (*co_resync)(struct raid_array *a, uint64_t offset, uint64_t bytes);
    /* Fills [offset, +bytes) of @member's data from the others: recovery. */
    int (*co_rebuild)(struct raid_array *a, struct raid_member *member, uint64_t offset,
                      uint64_t bytes);
    /* Compares, and adds what it finds to *found; with @repair all agree afterwards. */
    int (*co_scrub)(struct raid_array *a, uint64_t offset, uint64_t bytes, bool repair,
                    struct raid_scrub *found);
    uint64_t sync_unit; /* least that the four above take; 0: a chunk */
};

#define RAID_MEMBERS_MORE 64 /* that can be added while the array is open */

struct raid_array {
    struct blk_device *dev;
    struct raid_shape shape;
    const struct raid_engine *engine;
    struct raid_member **by_role; /* shape.disks of them; NULL: missing */
    struct raid_member *members;  /* all, spares too; they never move */
    unsigned member_count, member_room;
    struct md_super *super; /* of the array: what all members are to say; NULL: has none */
    uint64_t dm_offset;     /* of arrays of LVM2: where each member's data begins; else 0 */
    bool was_dirty;         /* when it was opened: copies may differ, parity may be wrong */
    uint64_t resync_at;     /* while was_dirty: to where they have been made to agree since */
    /* A member that cannot be spared has lost what it was told, or what would mend a torn strip is
     * not known: only opening anew helps, which replays the log. */
    bool lost;
    /* The roles of the last update: all that have its events say these. */
    uint16_t told[MD_ROLES_1];
    unsigned told_count;
    unsigned failing; /* errors of members that are not judged yet: what is read may be old */
    bool untold;      /* a member is out, and the others' superblocks do not all say so yet: A2 */
    bool torn; /* something could be written only in part: nothing is durable until it is mended */
    bool marked_dirty;          /* A1 has been done and not undone */
    struct co_mutex changes;    /* members that come and go, growth; taken first of these three */
    struct co_mutex state_lock; /* changes of superblocks, one at a time */
    struct co_range writers;    /* A5 */
    void *engine_state;
    struct raid_intent *intent;   /* NULL: there is no bitmap, or nobody writes */
    struct raid_log *log;         /* levels 4 to 6: the stripe log; NULL: none */
    struct raid_ppl *ppl;         /* of one that has a partial parity log instead */
    struct raid_journal *journal; /* of one that has md's journal instead, which is there */
    struct reshape *reshape;      /* of one that changes its shape, or did since it was opened */
    struct raid_array *whole;     /* of a view of one: the array itself, else NULL */
};

/* md.c */
const struct raid_engine *raid_engine_of(const struct raid_level *l);

/* state.c */
/* A1; returns at once when it has been done. */
must_use int co_array_mark_dirty(struct raid_array *a);
/* At closing, when everything is written: makes it durable, then superblocks say clean. */
must_use int co_array_mark_clean(struct raid_array *a);
/* A2 to A4: after an error of @m. 0: it is failed now and the others know; -errno: it was the last
 * one, and stays. */
must_use int co_array_fail(struct raid_array *a, struct raid_member *m);
/* As co_array_fail(), after a write that failed; @others bring back what it wrote, else the member
 * stays and it is -EIO. Where the medium was it, and the member has a list of bad blocks, it stays
 * too, and the list says so, durably: 0. */
must_use int co_array_miss(struct raid_array *a, const struct member_io *write, bool others);
/* A4: whether the array goes on without @m. */
bool array_can_spare(const struct raid_array *a, const struct raid_member *m);
/* When it is opened for writing: what was read may be an earlier process's that died, and is made
 * durable before anything is built on it. A member that cannot do that has lost what it was told
 * and is out, which co_array_level() says to the others. */
must_use int co_array_settle(struct raid_array *a);
/* The roles of a->super are those of the last update from now on. */
void array_roles_told(struct raid_array *a);
/* A2: what was done without a member that is out may be answered now; and every error that has been
 * seen is judged, so that a->lost is right. */
must_use int co_array_tell(struct raid_array *a);
/* After a crash in the middle of an update: superblocks that are behind become what the freshest
 * says, so that the next update cannot leave any of them two behind. */
must_use int co_array_level(struct raid_array *a);
/* Before anything is written that who is not there would lack: superblocks say so. */
must_use int co_array_go_without(struct raid_array *a);
/* How far resync and recovery are goes into the superblocks, once it is durable. */
must_use int co_array_checkpoint(struct raid_array *a);
/* All that was written to members is durable. One that cannot be flushed fails. */
must_use int co_array_flush(struct raid_array *a);
/* Writes all superblocks (events + 1) with what a->super, roles and members' state say. Members
 * that cannot be written fail. */
must_use int co_array_write_supers(struct raid_array *a);
must_use int co_array_write_supers_locked(struct raid_array *a); /* by who holds state_lock */

/* Bytes that are kept in sync: of each member's data; level 10: of the array. Zoned levels: 0. */
static inline uint64_t array_sync_bytes(const struct raid_array *a)
{
    return a->shape.near ? a->shape.size : a->shape.member;
}

/* The member that has @role and whose bytes [offset, +bytes) of data are right; NULL: none. */
struct raid_member *array_readable(const struct raid_array *a, unsigned role, uint64_t offset,
                                   uint64_t bytes);
/* There is one that would have them, but for its list of bad blocks. */
bool array_is_bad(const struct raid_array *a, unsigned role, uint64_t offset, uint64_t bytes);
/* How many of @bytes from @offset on of the member with @role are all bad, or all not. */
uint64_t array_even(const struct raid_array *a, unsigned role, uint64_t offset, uint64_t bytes);
/* The member that writes to @role must go to, in sync or not; NULL: none. */
static inline struct raid_member *array_writable(const struct raid_array *a, unsigned role)
{
    return a->by_role[role];
}

/* A spare that has room for what each member holds. */
static inline bool array_is_spare(const struct raid_array *a, const struct raid_member *m)
{
    return m->state == MEMBER_SPARE && m->super && m->super->data_size >= a->shape.member;
}

/* sync.c: struct blk_driver's; and spares take the places of members that are missing: *taken says
 * whether one did. */
int co_array_sync(struct raid_array *a, struct blk_sync *s, struct blk_error *e);
must_use int co_array_use_spares(struct raid_array *a, bool *taken);

/* change.c: struct blk_driver's */
int co_array_member(struct raid_array *a, const struct blk_member_change *c, struct blk_error *e);
int co_array_grow(struct raid_array *a, const struct blk_members_grow *g, struct blk_error *e);

/* replace.c. A spare begins to take the place of @old, which serves until it is filled. */
must_use int co_array_replace(struct raid_array *a, struct raid_member *old,
                              struct raid_member *spare, struct blk_error *e);
/* @m has all that the member has that it replaces: that one is out. */
must_use int co_array_replaced(struct raid_array *a, struct raid_member *m);
/* At opening: @m was being filled to replace who has its role. */
void array_take_replacement(struct raid_array *a, struct raid_member *m);
/* @m is out: who was to replace it goes on in its place, or who it was to replace stays. */
void array_forget_replacement(struct raid_array *a, struct raid_member *m);

/* member.c: one request to a member's data; a child of a co_group (it answers through rc). */
enum member_op { MEMBER_READ, MEMBER_WRITE, MEMBER_ZERO, MEMBER_DISCARD };
struct member_io {
    struct raid_member *m;
    enum member_op op;
    unsigned flags;
    uint64_t offset, bytes; /* in its data */
    struct vec vec;         /* to read into or to write */
    int rc;
};
int co_member_io(void *io); /* gives 0 */
/* Puts @data there when a member is filled or corrected: zeroes take no space. One that does not
 * take it fails; -errno: it cannot be spared. */
must_use int co_member_put(struct raid_member *m, uint64_t offset, uint8_t *data, uint64_t bytes);
/* What it is called: of a device that is called as its driver is, the one below. */
const char *member_name(const struct raid_member *m);
/* The superblock of @dev that counts: of all that are valid the one made last. Gives *out
 * (mem_free); NULL: there is none. @e says what is wrong with one that is there but cannot be. */
must_use int co_member_find_super(struct blk_device *dev, struct md_super **out,
                                  struct blk_error *e);
/* The same of an image of LVM2, whose data begins at @data_offset. */
must_use int co_member_dm_super(struct blk_device *dev, uint64_t data_offset, struct md_super **out,
                                struct blk_error *e);
/* Images of LVM2 that Linux left with bits set in their bitmaps, though none had failed or was
 * being filled, say that they are dirty, which dm-raid itself does not. */
must_use int co_members_dm_bits(struct raid_array *a, struct blk_error *e);
/* As a driver's co_member_of(). */
int co_md_member_of(struct blk_device *dev, struct blk_member *out, struct blk_error *e);

extern const struct raid_engine raid_zone_engine, raid_mirror_engine, raid_row_engine,
    raid_reshape_engine;

#endif

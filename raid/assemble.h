/* SPDX-License-Identifier: BSD-3-Clause */
/* assemble.h - from superblocks to an array: who belongs to it, who is stale, what may be started.
 *
 * Pure: superblocks in, a plan out. The rules are md's (docs/raid.md): the freshest member that is
 * no spare decides; one whose events are lower by more than one is stale and stays out; the
 * freshest table of roles counts; a member that the freshest table calls faulty while it claims to
 * be as fresh is the other half of a split array. */
#ifndef RAID_ASSEMBLE_H
#define RAID_ASSEMBLE_H

#include "raid/array.h"

enum raid_place_in {
    PLACE_MEMBER,      /* has a role, in sync or rebuilding */
    PLACE_REPLACEMENT, /* rebuilding beside the member of its role */
    PLACE_SPARE,
    PLACE_JOURNAL,
    PLACE_STALE,     /* events are too low */
    PLACE_FAULTY,    /* the others say so */
    PLACE_SPLIT,     /* as fresh as the others, which say that it failed, or the other way round */
    PLACE_DUPLICATE, /* another one has its role and is fresher, or the same superblock */
    PLACE_OTHER,     /* of another array */
};

struct raid_candidate {
    const char *name;             /* for sentences */
    const struct md_super *super; /* NULL: none was found */
    bool unread;                  /* whether it has one is not known: reading failed */
    uint64_t log_session;         /* of its stripe log that may be replayed; 0: there is none */
    enum raid_place_in place;     /* out */
    unsigned role;                /* out */
    char why[120];                /* out: one sentence where it is left out */
};

struct raid_plan {
    const struct md_super *freshest;
    struct raid_shape shape; /* of what may be read and written: while reshaping the old one */
    unsigned there, missing; /* roles */
    bool enough;
    bool enough_after;  /* also for the shape that it is being reshaped to */
    bool dirty;         /* parity or copies may not agree */
    bool lacks_journal; /* it has one, which is not here or stale */
    bool write_hole;    /* dirty and degraded, and nothing that closes the hole: not started */
    bool needs_force;   /* enough only if stale members are taken */
};

/* Decides each candidate's place and fills *out (to be dropped with raid_plan_drop()). @force:
 * stale members are taken, as many as it takes, and a write hole is accepted. -errno and
 * a sentence if no array comes of it; candidates' places are filled in all the same. */
must_use int raid_plan(struct raid_candidate *c, size_t count, bool force, struct raid_plan *out,
                       struct blk_error *e);
/* What raid_shape_init() takes, but for unequal members: the shape that @s says, or with @next the
 * one that it is being reshaped to. */
struct raid_wanted raid_wanted_of(const struct md_super *s, bool next);
/* Of a member: it has all that the array has. */
bool raid_in_sync(const struct raid_candidate *c);
void raid_plan_drop(struct raid_plan *p);

#endif

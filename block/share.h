/* SPDX-License-Identifier: BSD-3-Clause */
/* share.h - how requests of several users share what stands behind them.
 *
 * A *group* has a budget (requests and bytes a second) and a depth: how much may be under way at a
 * time. Its *shares* are the users, each with a weight, limits of its own and a minimum. Requests
 * that may not go yet wait in their share, and whenever one may:
 *
 *   S1  A share that got less than its minimum goes first, at once: depth and budget do not hold it
 *       (what it takes is charged to the budget all the same).
 *   S2  Else, while there is room in depth and budget, the share goes that is furthest behind by
 *       weight; who stood still has not saved anything up.
 *   S3  Nobody gets more than its own limits.
 *
 * The depth finds itself unless it is told: it grows until requests take clearly longer than at a
 * low depth, because what is queued behind it would only be queued out of our sight, where no
 * weight counts. A group and its shares belong to the worker that made it; co_share_begin() and
 * co_share_end() may be called anywhere. */
#ifndef BLOCK_SHARE_H
#define BLOCK_SHARE_H

#include "block/err.h"
#include "block/worker.h"

struct share;
struct share_group;

struct share_budget {
    uint64_t iops, bps; /* a second; 0: no limit */
    unsigned depth;     /* requests of up to 64 KiB under way; 0: found out */
};

struct share_wish {
    unsigned weight;    /* 1 to 10000; 0: 100 */
    uint64_t min_iops;  /* 0: none */
    uint64_t iops, bps; /* at most; 0: no limit */
};

struct share_stats {
    uint64_t passed, bytes; /* requests that went on */
    uint64_t waited, waited_ns;
};

struct share_group *share_group_new(const struct share_budget *b); /* NULL: no memory */
void share_group_set(struct share_group *g, const struct share_budget *b);
void share_group_get(const struct share_group *g, struct share_budget *b);
unsigned share_group_depth(const struct share_group *g); /* now */
unsigned share_group_count(const struct share_group *g); /* shares */
void share_group_free(struct share_group *g);            /* without shares (asserted) */

struct share *share_join(struct share_group *g, const struct share_wish *w); /* NULL: no memory */
void share_set(struct share *s, const struct share_wish *w);
void share_get(const struct share *s, struct share_wish *w);
void share_stats(const struct share *s, struct share_stats *out);
/* To another group, at once; what waits waits there. The same worker's. */
void share_move(struct share *s, struct share_group *to);
/* Nothing of it waits or is under way (asserted). */
void share_leave(struct share *s);
struct share_group *share_group_of(const struct share *s);

/* A request: begin() returns when it may go, end() says that it has ended. */
struct share_ticket {
    struct share_group *group;
    double cost;
    uint64_t began;
};
void co_share_begin(struct share *s, uint64_t bytes, struct share_ticket *t);
void co_share_end(struct share *s, struct share_ticket *t);

/* Words to numbers: "weight", "min-iops", "iops", "bps"; of a group "iops", "bps", "depth". */
must_use int share_wish_word(struct share_wish *w, const char *key, const char *value,
                             struct blk_error *e);
must_use int share_budget_word(struct share_budget *b, const char *key, const char *value,
                               struct blk_error *e);

#endif

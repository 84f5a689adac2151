/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.h - the layer that breaks on demand, driven from C (options do the same from a command
 * line).
 */
#ifndef BLOCK_FAULT_H
#define BLOCK_FAULT_H

#include "block/block.h"

enum fault_op {
    FAULT_READ,
    FAULT_WRITE,
    FAULT_FLUSH,
    FAULT_DISCARD,
    FAULT_ZERO,
    FAULT_OPS,
    FAULT_ALL = FAULT_OPS, /* in a rule: any of them */
};

struct fault_rule {
    enum fault_op op;
    uint64_t nth;         /* counted from when the rule was set; 1: the next; 0: none fails */
    uint64_t times;       /* how many fail from there; 0: all from then on */
    int rc;               /* what they answer; 0: they succeed (only delayed) */
    uint64_t short_bytes; /* a write that fails wrote this many bytes first, a read filled them */
    uint64_t delay_ns;    /* before anything else */
};

/* Replaces the rule of @dev, a device of fault_driver; NULL: none. */
void fault_set(struct blk_device *dev, const struct fault_rule *rule);
/* Requests of a kind (FAULT_ALL: of all) since the device was opened, and how often a rule fired.
 */
uint64_t fault_seen(const struct blk_device *dev, enum fault_op op);
uint64_t fault_fired(const struct blk_device *dev);

#endif

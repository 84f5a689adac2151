/* SPDX-License-Identifier: BSD-3-Clause */
/* drivers.c - every driver of every floor, in the order in which probes of equal score win. */
#include "block/block.h"

const struct blk_driver *const blk_drivers[] = {
    NULL,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* md.h - the driver of Linux' md arrays, for the list of drivers. */
#ifndef RAID_MD_H
#define RAID_MD_H

#include "block/block.h"

extern const struct blk_driver md_driver;

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* raw.h - the driver of disks without a format. */
#ifndef IMGFMT_RAW_H
#define IMGFMT_RAW_H

#include "block/block.h"

extern const struct blk_driver raw_driver;

#endif

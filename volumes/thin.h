/* SPDX-License-Identifier: BSD-3-Clause */
/* thin.h - the driver of thin pools (thin_pool.h has the rest). */
#ifndef VOLUMES_THIN_H
#define VOLUMES_THIN_H

extern const struct blk_driver thin_driver;

#endif

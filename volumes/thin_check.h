/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_check.h - is a pool's metadata sound: every reference counted anew from the roots, compared
 * with what both space maps say. */
#ifndef VOLUMES_THIN_CHECK_H
#define VOLUMES_THIN_CHECK_H

#include "volumes/thin_meta.h"

struct thin_check {
    void (*say)(struct thin_check *c, const char *sentence); /* NULL: only counts are asked for */
    void *arg;
    bool skip_mappings; /* trees of devices are not read, so counts are not compared */
    uint64_t errors;    /* trees that are damaged, blocks that count too few references */
    uint64_t leaks;     /* blocks that count too many: space is lost, nothing else */
    uint64_t devices, mappings;
};

/* @dev: the metadata device. 0 whatever was found; -errno: it could not be looked at. */
must_use int co_thin_check(struct blk_device *dev, struct thin_check *c, struct blk_error *e);

#endif

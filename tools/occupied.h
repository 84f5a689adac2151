/* SPDX-License-Identifier: BSD-3-Clause */
/* occupied.h - what a verb that lays something of its own over a device asks first: is there
 * something that would be lost? */
#ifndef TOOLS_OCCUPIED_H
#define TOOLS_OCCUPIED_H

#include "tools/tool.h"

/* 0 if nothing that is known is on @dev: no member of an array, no file system, physical volume or
 * swap space, no table of partitions. Else -EEXIST; the sentence says what there is, and that
 * @anyway (an option) writes over it. */
must_use int co_refuse_occupied(struct tool *t, struct blk_device *dev, const char *anyway,
                                struct blk_error *e);

/* The same of what is to be a member of @array: its own former ones may come back. */
must_use int co_refuse_stranger(struct tool *t, struct blk_device *array, struct blk_device *dev,
                                const char *anyway, struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* journal.h - a JSON object in a small file that says how far long work is: `convert --resume`,
 * `receive`. */
#ifndef TOOLS_JOURNAL_H
#define TOOLS_JOURNAL_H

#include "block/block.h"

/* Replaces what @path says by @tree (taken; NULL: -ENOMEM), by rename; durable when it returns: the
 * old or the new after a crash. */
must_use int co_journal_write(struct host *h, const char *path, json_t *tree, struct blk_error *e);
/* *out NULL: there is none. */
must_use int co_journal_read(struct host *h, const char *path, json_t **out, struct blk_error *e);
/* Every host file that @dev stands on (of very many, some): an array of arrays of device, inode,
 * size and time of the last change; null where one has no such thing. @strict: the time of any
 * change of the inode too. */
json_t *journal_files(struct blk_device *dev, bool strict);

#endif

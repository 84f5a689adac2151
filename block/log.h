/* SPDX-License-Identifier: BSD-3-Clause */
/* log.h - the layer that remembers every change and flush, in order of completion. */
#ifndef BLOCK_LOG_H
#define BLOCK_LOG_H

#include "block/block.h"

enum log_op { LOG_WRITE, LOG_ZERO, LOG_DISCARD, LOG_FLUSH };

struct log_record {
    enum log_op op;
    unsigned flags; /* enum blk_flags */
    int rc;         /* as it ended */
    uint64_t offset, bytes;
    uint64_t began; /* how many records there were when it began: what may have overlapped it */
    uint64_t hash;  /* of a write's bytes */
    uint8_t *data;  /* of a write, where data=on was said; else NULL */
};

/* Of @dev, a device of log_driver. Records stay where they are until log_clear(). */
size_t log_count(const struct blk_device *dev);
const struct log_record *log_at(const struct blk_device *dev, size_t index);
void log_clear(struct blk_device *dev);
uint64_t log_hash(const struct vec *v);

/* Reads back what a log layer wrote to its "log" child. Gives *out (log_drop()). */
must_use int co_log_read(struct blk_device *file, struct log_record **out, size_t *count,
                         struct blk_error *e);
void log_drop(struct log_record *records, size_t count);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_records.h - records of md's journal, by hand: what others left there, or made up. */
#ifndef TESTS_RAID_RECORDS_H
#define TESTS_RAID_RECORDS_H

#include "raid/journal.h"

/* A journal: its ring begins at @start of @dev. */
struct records {
    struct blk_device *dev;
    uint64_t start;
    uint32_t seed;
};

/* The meta block of record @number, which will lie at block @at and describes nothing so far. */
struct journal_meta_disk *records_meta(struct journal_meta_disk *m, uint64_t at, uint64_t number);
/* One payload of a block that is full of @byte. */
void records_add(const struct records *r, struct journal_meta_disk *m, unsigned kind,
                 uint64_t location, uint8_t byte);
/* A meta block and @blocks of @byte behind it. */
must_use int co_records_put(const struct records *r, uint64_t at, struct journal_meta_disk *m,
                            unsigned blocks, uint8_t byte);

#endif

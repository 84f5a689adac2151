/* SPDX-License-Identifier: BSD-3-Clause */
/* past.h - what the files of past instants share; others use live.h. */
#ifndef BLOCK_PAST_H
#define BLOCK_PAST_H

#include "block/live.h"

struct live_past {
    struct blk_device *seat, *store;
    struct seat_watch watch;
    bool watching, blank, only_dirty;
    uint64_t most, copied;
    int rc;               /* why it is lost; 0: it is not */
    struct granules left; /* to be kept, and not yet in the store */
    struct co_range
        lock; /* who copies holds the place alone, who reads it from the device shares */
    struct granules dirty; /* as the bitmap said; no words: there was none */
    char *bitmap, *before; /* its name, and that of its copy in the image; NULL: none */
    bool copy_there;
};

/* past_bitmap.c; the seat is held. */
must_use int co_past_take_bitmap(struct live_past *p, struct blk_error *e);
int co_past_leave_bitmap(struct live_past *p, bool failed, struct blk_error *e);

#endif

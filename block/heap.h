/* SPDX-License-Identifier: BSD-3-Clause */
/* heap.h - a heap of files and all that is inside: partitions, the sets (arrays, volume groups)
 * that are made of them, what is in those, and so on. `dir:FOLDER` and `lamina tree` show it.
 *
 * Items are found from the outside in. A device that is a member of a set waits for the others;
 * sets that are whole are opened first, then the fullest of those that are not. All that is known
 * of an item is its own spec, so each can be opened without the heap. */
#ifndef BLOCK_HEAP_H
#define BLOCK_HEAP_H

#include "block/resolver.h"

#define HEAP_NONE ((size_t)-1)

struct heap_item {
    char *spec;             /* names it, wherever a spec does; owned, as are all texts */
    char *name;             /* its own part of that */
    char *kind;             /* "file", "partition", "volume", "snapshot", or the set's driver */
    char *what;             /* of a member: that, in words; NULL: none */
    size_t parent;          /* it is inside of; HEAP_NONE: of nothing, or a set */
    size_t set;             /* it is a member of; HEAP_NONE: of none */
    unsigned depth;         /* it is inside of so many */
    struct blk_device *dev; /* NULL: not opened */
    uint64_t bytes;
    struct blk_error error; /* why it could not be opened; rc 0: it was, or was not asked for */
    const struct blk_driver *member_of; /* NULL: it is no member */
    struct blk_member member;
    struct blk_device *container; /* that its contents are; NULL: none. Of a set: the set itself */
    bool looked_into;
    bool taken; /* it was opened for writing: nothing that stands on it, or it stands on, may be */
};

struct heap {
    struct resolver *r;
    unsigned flags;     /* to open with */
    const char *folder; /* sets are named dir:FOLDER//NAME; NULL: by their members */
    struct heap_item *items;
    size_t count;
};

/* A spec, opened at once; that it cannot be is the item's error. */
must_use int co_heap_add(struct heap *h, const char *spec, struct blk_error *e);
/* All regular files and block devices in a folder, by name. Where X.map beside X is ddrescue's, the
 * ddrescue layer is over X. */
must_use int co_heap_add_folder(struct heap *h, const char *folder, struct blk_error *e);
/* Of a file in a folder: it may be a disk, and is no map of ddrescue's. */
bool co_heap_is_disk(struct host *host, const char *path);
/* Gives *out (mem_free), the spec of the ddrescue layer over the file; NULL: no map is beside it.
 */
must_use int co_heap_rescue_spec(struct host *host, const char *path, char **out);
/* Finds what is inside of all that was added. */
must_use int co_heap_look(struct heap *h, struct blk_error *e);
void co_heap_close(struct heap *h);
/* True if @x is @y, is inside of it, or is made of what is. */
bool heap_stands_on(const struct heap *h, size_t x, size_t y);
/* Closes all that stands on @at but itself. */
void co_heap_close_above(struct heap *h, size_t at);
/* What dir: found, for who has that open; NULL: @dev is none. */
struct heap *heap_of(struct blk_device *dev);

extern const struct blk_driver dir_driver;

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units.h - everything but header and entry codec, for formats whose table is the only record
 * of what is owned: VDI, VHD, Parallels, QED, VMDK, VHDX.
 *
 * From @base on the file is cut into *units*. Which are owned is no count on disk: the *census*, a
 * walk of the tables before the first write of an opening, fills a bit set that lives in memory.
 * Clusters and tables are placed first fit, the lowest free units first. What somebody else put off
 * the unit boundaries owns every unit it touches; those are not handed out again before the image
 * is opened anew. Two owners of one place, or an entry out of range, forbid writing until repaired.
 *
 * What a format does:
 *
 *   open    parse the header; fill m->dev, file, backing, format, state, shape, fresh; fill struct
 *           map_units; m->units = it; co_map_units_open()
 *   close   co_map_units_close(), then free its own state
 *   table   struct map_format with the codec and the hooks of here (MAP_UNITS_HOOKS); a format that
 *           has more to do in one of them wraps it
 *   driver  struct blk_driver with the engine's functions and those of here; dev->state is the
 *           struct map *
 *
 * The order of everything that changes more than an entry:
 *   1 begin   the census is clean -> co_begin's header change durable -> the first entry changes
 *   2 place   co_extend done -> units beyond the prepared end are handed out
 *   3 move    copied data durable -> its entry -> the old place free (co_map_move)
 *   4 grow    in place: new entries durable -> header.  Else: the first units moved away, durable
 *             -> the new table where they lay, durable -> one publication (base, table, size).
 *             With something behind: zeroes over what comes to light before the size
 *   5 shrink  size published -> entries dropped, durable -> gaps closed -> the shorter table
 *             published -> file truncated
 *   6 end     all written back, moved, durable -> co_end's header change durable -> file truncated
 * A crash leaves the state before or after each arrow, and units owned by none (leaks). */
#ifndef IMGFMT_MAP_UNITS_H
#define IMGFMT_MAP_UNITS_H

#include "imgfmt/map.h"
#include "imgfmt/map_space.h"

/* How a flat table (levels 2: the root) makes room for more entries. */
enum map_units_table {
    /* It stays where it is; where its end meets @base, the first units move to the end and base
     * goes up. For entries that do not count from base (Parallels). */
    UNITS_TABLE_STAYS,
    /* The same, but written anew where the first units lay: for entries that count from base (VDI).
     */
    UNITS_TABLE_FRONT,
    /* It moves to units behind the last one; base stays (VHD). Its old place is free then. */
    UNITS_TABLE_MOVES,
};

struct map_units_census;

/* What the format adds. Every member may be NULL: nothing to do. */
struct map_units_ops {
    /* In the census: owns what the image has at or above base beside clusters and tables (logs,
     * headers, a moved flat table) by map_units_reserve(). */
    int (*co_reserve)(struct map *m);
    /* Before units are handed out that end beyond u->prepared (a file offset): makes that the file
     * may hold data up to @end, durably where a crash in between would hurt (VHD moves its footer),
     * as far ahead as it likes, and sets u->prepared. One at a time. (A crash may keep a
     * file's new length and lose what was written there: who needs it there has a copy elsewhere.)
     */
    int (*co_extend)(struct map *m, uint64_t end);
    /* Once after a clean census, before the first change: a dirty flag, a new generation, pins what
     * commit needs. Durable when it returns, where order asks for it. */
    int (*co_begin)(struct map *m);
    /* When writing ends (close, reopened read-only, completed): all is written back; u->space.next
     * is final. Clears dirty flags, exact counts. Called only after co_begin. Follow-up
     * write-backs are its own (co_meta_write_back(m->meta, !m->fresh)). */
    int (*co_end)(struct map *m);
    /* The header on disk says what m->shape (size, root_offset, root_entries), u->base and
     * u->unfinished say now: one atomic change, durable (but in fresh mode) when it returns. All
     * else has been written back. -errno: the old header stands. */
    int (*co_publish)(struct map *m);
    /* The format's own findings in a check, after the walk; repairs what @c asks for. */
    int (*co_check)(struct map *m, struct blk_check *c);
    /* The file's end: where it is to be truncated to, given the end of the last owned unit (VHD: a
     * footer follows). NULL: there. Called when the tail has been released; does it itself. */
    int (*co_fit)(struct map *m, uint64_t end);
    /* Entries of a flat table for a disk of @size. NULL: up to the last cluster's (VHDX: bitmaps
     * have entries behind it). */
    uint64_t (*entries_for)(const struct map *m, uint64_t size);
};

struct map_units {
    /* The format fills these before co_map_units_open(). */
    const struct map_units_ops *ops;
    uint64_t base;          /* file offset of unit 0 */
    uint64_t unit_bytes;    /* any multiple of 512; VHD: bitmap (shape.lead_bytes) and block */
    uint32_t cluster_units; /* per cluster; 0: 1 */
    uint32_t table_units;   /* levels 2: per table, twins included; 0: as table_bytes needs */
    uint64_t limit;         /* units from this number on are out of range for entries; 0: those past
                               the file's end, or where the file is not kept ahead, far behind it */
    uint64_t ahead_bytes;   /* without co_extend: the file is grown by truncation so far ahead of
                               what is handed out, durably, so that no entry ever points past its
                               end; 0: not */
    uint64_t cluster_limit; /* resize: at most so many clusters; 0: as the table's bytes allow */
    enum map_units_table table;
    bool dense;   /* unit numbers stay below root_entries (needs shape.tight), and closing leaves no
                     free one below the last owned */
    bool gaps;    /* free units below the last owned one are no leaks: what takes several units may
                     not fit there, and a table that moved leaves its old place */
    bool roomy;   /* nor are those behind it: the format's writers leave room at the end */
    bool aligned; /* a place off the unit boundaries is a corruption (QED, VHDX) */
    bool unfinished;     /* a fresh image that is not completed: the header has no signature yet */
    uint32_t page_bytes; /* of the metadata cache; 0: the largest that keeps to the flat table */

    /* map_units.c's */
    struct map_space space; /* from the first write on, and during a check */
    uint64_t prepared;      /* file offset: co_extend has been here */
    uint64_t cluster_from;  /* below this no run of cluster_units is free */
    struct co_mutex extending;
    bool begun;                      /* co_begin has run, co_end not yet */
    struct map_units_census *census; /* that is running */
    bool repairing;                  /* a census that is not clean is no obstacle */
};

/* Bytes of a new flat table, for create: fills @count entries from index @first on at @to. */
typedef void map_units_fill(const void *arg, uint64_t first, uint64_t count, void *to);

/* --- life --- */

/* Opens the cache (of @cache_bytes), attaches the engine, fills dev->size, state and limits.
 * On failure everything of @m is closed again, the struct stays the caller's. */
must_use int co_map_units_open(struct map *m, uint64_t cache_bytes, struct blk_error *e);
/* Ends writing (tidies where that was begun), closes cache and engine. The first error; all is
 * closed all the same. */
must_use int co_map_units_close(struct map *m, struct blk_error *e);
/* Driver operations, as they stand. */
int co_map_units_reopen(struct blk_device *dev, bool write, struct blk_error *e);
int co_map_units_complete(struct blk_device *dev, struct blk_error *e);
int co_map_units_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e);
int co_map_units_make_empty(struct blk_device *dev, struct blk_error *e);
int co_map_units_compact(struct blk_device *dev, struct blk_error *e);
int co_map_units_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e);

/* Of struct blk_driver, all of the above and the engine's. A format with an operation of its own
 * among the former takes MAP_UNITS_REQUESTS and names the others. */
#define MAP_UNITS_DRIVER                                                                          \
    MAP_UNITS_REQUESTS, .open_options = map_units_open_options, .co_reopen = co_map_units_reopen, \
                        .co_resize = co_map_units_resize, .co_check = co_map_units_check,         \
                        .co_compact = co_map_units_compact,                                       \
                        .co_make_empty = co_map_units_make_empty
#define MAP_UNITS_REQUESTS                                                                    \
    .is_format = true, .handles_fua = true, .co_read = co_map_read, .co_write = co_map_write, \
    .co_write_zeroes = co_map_write_zeroes, .co_discard = co_map_discard,                     \
    .co_flush = co_map_flush, .resolve = map_resolve, .co_map = co_map_map,                   \
    .co_copy = co_map_copy, .co_complete = co_map_units_complete
/* cache-size, and a child "backing" for those that take one. */
extern const struct opt_desc map_units_open_options[];

/* --- hooks of struct map_format --- */

#define MAP_UNITS_HOOKS .co_place = co_map_units_place, MAP_UNITS_HOOKS_BUT_PLACE
#define MAP_UNITS_HOOKS_BUT_PLACE                                                         \
    .unplace = map_units_unplace, .co_release = co_map_units_release,                     \
    .co_place_table = co_map_units_place_table, .unplace_table = map_units_unplace_table, \
    .co_release_table = co_map_units_release_table, .co_before_first_write = co_map_units_begin

int co_map_units_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused);
void map_units_unplace(struct map *m, const struct map_cell *cells, size_t count);
void co_map_units_release(struct map *m, const struct map_cell *cell, uint64_t count, bool punch);
int co_map_units_place_table(struct map *m, uint64_t *offset);
void map_units_unplace_table(struct map *m, uint64_t offset);
void co_map_units_release_table(struct map *m, uint64_t offset);
int co_map_units_begin(struct map *m); /* the census, then co_begin */

/* --- for formats --- */

/* The unit number of the place of @offset (a cell's); it lies on a unit boundary. */
uint64_t map_units_number(const struct map *m, uint64_t offset);
/* In co_reserve: [offset, +bytes) of the file is owned by the image itself. What lies below base
 * counts for nothing. */
must_use int map_units_reserve(struct map *m, uint64_t offset, uint64_t bytes);
/* A place of whole units for @bytes that lie together, of any use: the format's own structures.
 * Extended and counted as clusters are. */
must_use int co_map_units_take(struct map *m, uint64_t bytes, uint64_t *offset, bool *reused);
void map_units_let_go(struct map *m, uint64_t offset, uint64_t bytes);
/* In co_extend: somebody wrote below @end, which may be handed out (VHD: the footer's old place).
 */
void map_units_touch(struct map *m, uint64_t end);
/* Writes back, frees what can be freed, makes dense. Drained. */
must_use int co_map_units_tidy(struct map *m);
/* All that is dirty durable, then @fill changes @bytes at @offset of the file (inside one page of
 * the cache, of @rank), then that durable: co_publish of a format whose header is one sector. */
must_use int co_map_units_rewrite(struct map *m, uint64_t offset, unsigned rank,
                                  void (*fill)(struct map *m, void *raw));
/* Units of the file, owned or not; of a device that is more than the image: those in use. */
uint64_t map_units_in_file(const struct map *m);
/* For co_check of formats that mark an image while it is written: says that somebody left the mark,
 * which is no damage, for the table is the truth; where @c mends, closing clears it. */
must_use int co_map_units_marked(struct map *m, struct blk_check *c, bool marked);
/* One sentence to c->say: "@n @what"; nothing where n is 0. */
void map_units_say(struct blk_check *c, uint64_t n, const char *what);

/* --- creating --- */

struct map_units_piece {
    uint64_t offset;
    const void *bytes;
    uint64_t length;
};
/* A new image, described. */
struct map_units_image {
    uint64_t end;                   /* of the file */
    uint64_t table_offset, entries; /* the flat table (or root) */
    uint32_t entry_bytes;
    uint64_t table_bytes; /* with its padding, which @fill is asked for too; 0: of the entries */
    map_units_fill *fill; /* NULL: zeroes */
    const void *arg;
    uint64_t zero_offset, zero_bytes;     /* zeroed where the file does not read zero by itself */
    const struct map_units_piece *pieces; /* in any order, ahead of the last */
    size_t piece_count;
    struct map_units_piece last; /* what makes it an image: after a flush, then flushed */
};
/* For co_measure: how large the file of a new image gets. */
struct map_units_measure {
    uint64_t size;          /* virtual bytes, as the format rounds them */
    uint64_t empty_bytes;   /* of the file with no cluster in it */
    uint64_t cluster_bytes; /* a power of two */
    uint64_t unit_bytes;    /* that a cluster takes in the file; 0: all of them are there already */
    uint64_t table_bytes, table_covers; /* levels 2: of one table, and of what it is for */
    bool overlay;                       /* how much of the source the parent shows is not known */
};
must_use int co_map_units_measure(struct blk_measure *m, const struct map_units_measure *u,
                                  struct blk_error *e);
/* Writes it; @c->fresh: without flushes (then @last has no signature yet). */
must_use int co_map_units_create(const struct blk_create *c, const struct map_units_image *i,
                                 struct blk_error *e);

#endif

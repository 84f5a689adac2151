/* SPDX-License-Identifier: BSD-3-Clause */
/* map.h - the one engine of cluster-mapped images: a table turns a virtual cluster into a *cell*, a
 * place in the file.
 *
 * VDI block, VHD block, VMDK grain, VHDX payload block, qcow2 cluster are all *cluster*; block map,
 * BAT, grain table, L2 are all *table*; directory and L1 are *root*. The engine (format-blind) owns
 * splitting, coalescing, backing reads, copy-on-write, in-flight range locks, ordering, rollback,
 * zero, discard, map, resolve, copy, check's walk. The format owns bytes: header, entry codec,
 * where space comes from.
 *
 * The one write path, per run of clusters:
 *
 *   1 lock    the cluster range among writers in flight (readers never wait)
 *   2 locate  the cells; data and not shared: write in place, done
 *   3 place   space for new clusters
 *   4 fill    edges from the backing device, the old cluster, or zeroes; one vectored write
 *   5 order   data before entry, with a durable barrier where the new cluster hides older contents
 *             (a backing file's, a shared or compressed cluster's), is compressed, reuses freed
 *             space, or the layer below does not read zero where never written
 *   6 commit  the entries enter the cached table, dirty (meta.h); no I/O in the ordinary case
 *   7 show    in the same step, not suspending: the cached page is the in-memory table
 *
 * A failure in 3-6: unplace, unlock, -errno; memory never shows an entry whose data write has not
 * succeeded. Zero and discard are the same path with a MAP_ZERO or MAP_HOLE cell and no data; old
 * space is released only after the change is durable and the reads that began before have ended.
 *
 * Invariants:
 *   M1  Data that hides older contents is durable before its entry is.
 *   M2  Memory never shows an entry whose data write has not succeeded.
 *   M3  No two entries of one image own the same cluster.
 *   M4  Space is owned (counted) durably before an entry that points at it is durable.
 *   M5  Space is reused only after the entry that pointed at it is durably gone and no request that
 *       saw it is in flight. */
#ifndef IMGFMT_MAP_H
#define IMGFMT_MAP_H

#include "imgfmt/meta.h"

enum map_state {
    MAP_HOLE, /* not here: the backing device shows through, or zeroes */
    MAP_ZERO, /* reads as zero, hides the backing device; offset != 0: space is kept */
    MAP_DATA,
    MAP_PARTIAL, /* some pieces here, others zero or below: sub says which (shape.piece_bits), or
                    co_subrange does */
    MAP_PACKED,  /* compressed */
};

struct map_cell {
    enum map_state state;
    bool shared;           /* somebody else points here too: copy to write */
    uint64_t offset;       /* bytes from the start of the data device; 0: no space */
    uint32_t packed_bytes; /* MAP_PACKED: compressed bytes, at most */
    uint64_t sub; /* MAP_PARTIAL, of pieces: bits 0..31 those that lie here, 32..63 those that
                     read as zero; never both */
};

/* Filled by the format's open() after validation. Only resize changes it, while the device is
 * drained. */
struct map_shape {
    uint64_t size;            /* virtual bytes */
    uint8_t cluster_bits;     /* 9 .. 28 */
    uint8_t entry_bytes;      /* 4, 8 or 16 */
    uint8_t piece_bits;       /* clusters are kept in MAP_PIECES pieces, one by one here, zero or
                                 behind (map_piece.c); 0: whole */
    uint8_t levels;           /* 1: one flat table at root_offset; 2: root of table places */
    uint32_t table_entries;   /* levels 2: entries per table (a power of two) */
    uint32_t table_bytes;     /* levels 2: of one table, as placed by co_place_table */
    uint8_t root_entry_bytes; /* levels 2 */
    uint64_t root_offset;     /* of the root, or of the flat table */
    uint64_t root_entries;
    uint32_t lead_bytes; /* of the format's own right before each cluster's data, that belong to its
                            place and move with it (VHD: the bitmap) */
    bool no_zero_cells; /* entries cannot say MAP_ZERO (qcow2 version 2): where something is behind,
                           zeroes are written as data; else a hole will do */
    bool zero_keeps_space; /* MAP_ZERO with an offset can be said: space stays allocated under it */
    bool tight; /* there are not more places than clusters: a cluster that let go of its place gets
                   that one back until it is released */
    bool stands_alone;   /* the format knows no backing device: its holes are its own zeroes */
    bool file_has_holes; /* clusters may lie in holes of their file: map lets those show */
    bool fixed_places;   /* each cluster lies at its own offset in the data device: space is not
                            placed, and counted by nobody */
    bool always_stored;  /* with fixed_places: zeroes are data, so that the data device is the disk
                            by itself */
    bool discard_keeps;  /* with zero_keeps_space: what is discarded keeps its space, punched */
    bool keeps_all;      /* static: all space is owned and stays so; discard does nothing */
};

#define MAP_PIECES 32 /* of a cluster that is kept in pieces */

struct map_update {
    uint64_t cluster; /* virtual */
    struct map_cell old, now;
};

struct map;
struct map_units;

/* What a format brings. NULL members have the stated default. */
struct map_format {
    /* Pure: no I/O, no lock, no allocation; total (any bytes are answered). @entry is entry_bytes
     * long. decode() gives -EIO for an entry that no valid image holds (misaligned, reserved bits):
     * the engine then marks the image corrupt. */
    int (*decode)(const struct map *m, const void *entry, struct map_cell *out);
    void (*encode)(const struct map *m, const struct map_cell *cell, void *entry);
    uint64_t (*slot)(const struct map *m, uint64_t cluster); /* NULL: same index */
    /* levels 2: where the table of a root entry lies; *offset 0: there is none. @shared: copy the
     * table before changing it. */
    int (*root_decode)(const struct map *m, const void *raw, uint64_t *offset, bool *shared);
    void (*root_encode)(const struct map *m, uint64_t offset, void *raw);

    /* Space for up to *count clusters that lie together; may give fewer (*count), at least one.
     * *reused: it was freed before or is not known to read zero, so data needs a barrier. Counted
     * (owned) when it returns. Cells placed here are never shown until committed. */
    int (*co_place)(struct map *m, uint64_t *count, uint64_t *offset, bool *reused);
    /* Space of any length for compressed bytes, may lie inside a cluster that holds others; NULL:
     * no compression. */
    int (*co_place_packed)(struct map *m, uint32_t bytes, uint64_t *offset, bool *reused);
    int (*co_place_table)(struct map *m, uint64_t *offset); /* levels 2: table_bytes */
    /* Gives placed, never shown space back. Does not fail. */
    void (*unplace)(struct map *m, const struct map_cell *cells, size_t count);
    void (*unplace_table)(struct map *m, uint64_t offset);
    /* Space that was shown once: the change that let go of it is durable and nobody reads it.
     * @count clusters of one kind that lie together from @cell on (1 where cell is MAP_PACKED or
     * shared). May suspend; gives whole clusters back to the layer below when @punch. */
    void (*co_release)(struct map *m, const struct map_cell *cell, uint64_t count, bool punch);
    void (*co_release_table)(struct map *m, uint64_t offset);

    /* Pages of the format's own that must change with the entries (VDI's block count, VMDK's second
     * table): commit() changes them in the step in which the entries change; it must not suspend,
     * and does all or nothing. What it needs in memory, co_prepare() brings there. Both NULL:
     * nothing. */
    int (*co_prepare)(struct map *m, const struct map_update *updates, size_t count);
    int (*commit)(struct map *m, const struct map_update *updates, size_t count);
    /* Once per open, before the first change of anything. NULL: nothing. */
    int (*co_before_first_write)(struct map *m);

    /* MAP_PARTIAL without pieces: from byte @at of the cluster, how far (*bytes) the answer @state
     * reaches. */
    int (*co_subrange)(struct map *m, const struct map_cell *cell, uint64_t cluster, uint32_t at,
                       uint32_t *bytes, enum map_state *state);
    /* Blocking and CPU-bound, run on the pool: on their own buffers only. pack: -ENOSPC when the
     * result is not smaller. */
    int (*unpack)(const struct map *m, const struct map_cell *cell, const void *packed,
                  size_t packed_bytes, void *cluster);
    int (*pack)(const struct map *m, const void *cluster, void *packed, size_t *packed_bytes);
    uint8_t root_rank, table_rank; /* in meta */
};

struct map {
    /* Immutable after map_attach(), but for shape.size/root_* which resize changes while drained.
     */
    struct map_shape shape;
    const struct map_format *format;
    struct blk_device *dev;     /* this image */
    struct blk_device *file;    /* metadata lies here */
    struct blk_device *data;    /* clusters lie here; usually == file */
    struct blk_device *packed;  /* compressed clusters lie here; NULL: where data does */
    struct blk_device *backing; /* NULL: none */
    bool backing_missing;       /* there is one, and it was not opened: holes cannot be read */
    struct meta *meta;          /* opened by the format (it needs it for its own tables), closed by
                                   co_map_detach() */
    void *state;                /* the format's */
    struct map_units *units;    /* map_units.h: the format's too; NULL: it keeps space itself */
    bool fresh;
    uint64_t cluster_bytes;   /* derived */
    struct map_private *priv; /* the engine's: index, locks, readers in flight, unpack cache */
};

/* Takes over a filled @m (shape, format, dev, file, data, backing, meta, state): checks the shape,
 * makes the index. */
must_use int map_attach(struct map *m, struct blk_error *e);
/* For open(): asks for the backing device that the image names (NULL: none), or the caller's tree
 * does. Where it is not to be opened, backing_missing is set. */
must_use int co_map_want_backing(struct map *m, struct blk_opener *opener, const char *name,
                                 const char *format, struct blk_error *e);
int co_map_opened(struct blk_device *dev, struct blk_error *e); /* driver operation: finds it */
/* Write-back is the caller's (co_map_flush); frees what map_attach() made and closes meta. */
void co_map_detach(struct map *m);

/* The driver operations. A format's driver table uses them through its own one-line functions, or
 * directly when dev->state is the struct map * (it must be its first member). */
int co_map_read(struct blk_device *dev, uint64_t offset, const struct vec *to);
int co_map_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags);
int co_map_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags);
int co_map_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes);
int co_map_flush(struct blk_device *dev);
bool map_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                 struct blk_place *out);
int co_map_map(struct blk_device *dev, uint64_t offset, uint64_t bytes, struct blk_extent *out);
int co_map_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from);

/* For formats. */

/* Pieces of a cell that lie in its space, and that read as zero; of a cell of any state. */
uint32_t map_pieces_here(const struct map_cell *c);
uint32_t map_pieces_zero(const struct map_cell *c);
static inline bool map_has_space(const struct map_cell *cell)
{
    return cell->offset ? cell->state != MAP_HOLE : map_pieces_here(cell) != 0;
}
/* State and sub of a cell whose offset is known: MAP_DATA, MAP_ZERO or MAP_HOLE where all pieces
 * are alike (a hole has no space), else MAP_PARTIAL. */
void map_set_pieces(struct map_cell *c, uint32_t here, uint32_t zero);

/* The cell of a virtual cluster, through the cache. */
must_use int co_map_cell(struct map *m, uint64_t cluster, struct map_cell *out);
/* Calls @fn for every table entry that is not a hole, in order of clusters; tables that are not
 * there are skipped whole. Stops at a non-zero value and gives it. */
must_use int co_map_walk(struct map *m,
                         int (*fn)(struct map *m, uint64_t cluster, const struct map_cell *cell,
                                   void *arg),
                         void *arg);
/* For formats that let go of their parent: clusters that are partly here become whole, with what
 * they show. -ENOTSUP: there are some, and what is behind was not opened. */
must_use int co_map_make_whole(struct map *m);
/* Lets go of every cell in [from, to) clusters (for shrinking): holes afterwards, space released
 * after write-back. */
must_use int co_map_drop(struct map *m, uint64_t from, uint64_t to);
/* A compressed cluster that nobody shares gets another place, its bytes as they are; where it was
 * is let go of. -EFBIG: it has more bytes than are placed at once. */
must_use int co_map_repack(struct map *m, uint64_t cluster);
/* Copies a data cluster that nobody shares to @to, which the caller placed, and lets go of where it
 * was. On failure @to is still the caller's. */
must_use int co_map_move(struct map *m, uint64_t cluster, const struct map_cell *to);
/* After shape.size/root_offset/root_entries changed, or what lies where (drained): rebuilds the
 * index. Does not fail. */
must_use int map_reshape(struct map *m, const struct map_shape *shape);
/* Makes sure co_before_first_write ran; every path that changes anything calls it first. */
must_use int co_map_will_write(struct map *m);
/* The next change of anything calls co_before_first_write again. Drained, all written back. */
void map_write_ended(struct map *m);
/* The same, where something failed: what was written may not be durable yet. */
void map_write_again(struct map *m);
/* Changes one cell; what it pointed at before is not released: for entries that own nothing. */
must_use int co_map_put(struct map *m, uint64_t cluster, const struct map_cell *now);
/* As co_map_put() with a copy of @from's data at @to, durable before. */
must_use int co_map_put_copy(struct map *m, uint64_t cluster, uint64_t from,
                             const struct map_cell *to);
/* Levels 2: the offset of table @number, 0: there is none. -EIO marks the image corrupt. */
must_use int co_map_table(struct map *m, uint64_t number, uint64_t *offset);
/* Levels 2: the root entry becomes none (@drop), or names a new table that holds what the old one
 * did. What it named before is released only with @release. */
must_use int co_map_table_anew(struct map *m, uint64_t number, bool drop, bool release);
/* Nothing may be written any more: tells the waist (blk_mark_corrupt) and, through @sentence, a
 * person once. */
void map_corrupt(struct map *m, const char *sentence);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_meta.h - a pool's metadata while it is open: transactions, trees, space maps, devices.
 *
 *     thin_disk.h     pure: what lies on disk          thin_block.h   blocks in memory
 *     thin_btree.c    trees: look-up, insert, remove   thin_walk.c    trees from end to end
 *     thin_space.c    which blocks are used            thin_meta.c    open, transactions, commit
 *     thin_device.c   devices and their mappings       thin_format.c  a new pool's metadata
 *
 * T1  A block of the committed transaction is never overwritten: what is changed is copied first,
 *     and the way up to the superblock with it. In place is changed only what this transaction made
 *     and one parent refers to.
 * T2  A block may be taken that has no reference now and had none in the last commit that is
 *     durable. Those let go of since are *held*.
 * T3  References of a metadata block: parents that point to it, in all trees. Of a data block:
 *     leaf entries, each leaf counted once however many share it.
 * T4  What a commit writes is not changed afterwards, so the next transaction goes on meanwhile.
 * T5  An operation that failed half way, or a commit, ends all changes until the pool is opened
 *     anew (meta->failed): on disk stands the last commit.
 *
 * Who changes something holds @lock for writing, who looks something up for reading; both may
 * suspend on a block that is not in memory. */
#ifndef VOLUMES_THIN_META_H
#define VOLUMES_THIN_META_H

#include "volumes/thin_block.h"

struct thin_meta;

/* --- trees ------------------------------------------------------------------------------------
 */

struct thin_tree {
    unsigned value_bytes;
    /* What a leaf's values refer to has one reference more, or less. NULL: they refer to nothing.
     */
    int (*co_hold)(struct thin_meta *m, const uint8_t *value);
    int (*co_drop)(struct thin_meta *m, const uint8_t *value);
};
extern const struct thin_tree thin_devices, thin_mappings, thin_details, thin_bitmaps,
    thin_overflow;
/* Devices, mappings; an insert in place of another drops nothing. */
extern const struct thin_tree thin_roots, thin_claims;

/* 0, or -ENOENT; *value is as long as the tree's are. */
must_use int co_thin_lookup(struct thin_meta *m, const struct thin_tree *t, uint64_t root,
                            uint64_t key, void *value);
/* The first entry with a key >= @key; -ENOENT: none. */
must_use int co_thin_next(struct thin_meta *m, const struct thin_tree *t, uint64_t root,
                          uint64_t key, uint64_t *found, void *value);
/* The highest key of all. */
must_use int co_thin_last(struct thin_meta *m, const struct thin_tree *t, uint64_t root,
                          uint64_t *key);
/* The values of keys [key, key + count) of a tree with values of 8 bytes; UINT64_MAX: no entry. */
must_use int co_thin_lookup_run(struct thin_meta *m, const struct thin_tree *t, uint64_t root,
                                uint64_t key, unsigned count, uint64_t *values);
/* Puts a value there, in place of an old one, which is dropped; the new one's reference is the
 * caller's gift. */
must_use int co_thin_insert(struct thin_meta *m, const struct thin_tree *t, uint64_t *root,
                            uint64_t key, const void *value);
/* -ENOENT: there is none. The value is dropped. */
must_use int co_thin_remove(struct thin_meta *m, const struct thin_tree *t, uint64_t *root,
                            uint64_t key);
/* Only one way leads to the leaf of @key. */
must_use int co_thin_is_alone(struct thin_meta *m, const struct thin_tree *t, uint64_t root,
                              uint64_t key, bool *alone);
/* A new one. */
must_use int co_thin_tree_new(struct thin_meta *m, const struct thin_tree *t, uint64_t *root);
/* One reference to the tree less; what only it referred to goes as well. */
must_use int co_thin_tree_drop(struct thin_meta *m, const struct thin_tree *t, uint64_t root);

/* From end to end, in order of keys. A node that cannot be read, or whose keys are not between its
 * parent's, is told and passed. */
struct thin_walk {
    const struct thin_tree *tree;
    /* Before a node is read: 0, 1: pass it, or an error. NULL: all are read. */
    int (*node)(struct thin_walk *w, uint64_t number);
    /* What is wrong with a node; 0: go on. NULL: ends the walk with -EBADMSG. */
    int (*bad)(struct thin_walk *w, uint64_t number, const char *wrong);
    int (*entry)(struct thin_walk *w, uint64_t key, const uint8_t *value);
    /* All below a node has been walked. NULL: nobody asks. */
    void (*left)(struct thin_walk *w, uint64_t number);
    void *arg;
    /* While it runs: of the node that is looked at; entries so far. */
    unsigned depth;
    uint64_t entries;
};
must_use int co_thin_walk(struct thin_cache *c, struct thin_walk *w, uint64_t root);

/* --- space ------------------------------------------------------------------------------------
 */

struct thin_run {
    uint64_t first, count;
};
struct thin_runs {
    struct thin_run *list;
    size_t count, room;
};
/* False: no memory; then nothing was added. */
bool thin_runs_add(struct thin_runs *r, uint64_t block);
void thin_runs_drop(struct thin_runs *r);

struct thin_bitmap { /* of THIN_PER_BITMAP data blocks */
    uint64_t at;     /* block that it lies in */
    uint32_t free, first_free;
    bool dirty; /* differs from the index tree's entry */
    uint32_t held_count;
    uint64_t *held; /* bit set; NULL: none was ever */
};
struct thin_space { /* of data */
    struct thin_root root;
    struct thin_bitmap *bitmaps;
    size_t bitmap_count;
    uint64_t cursor;        /* where the next search begins */
    uint64_t held;          /* blocks that must not be taken though nothing refers to them */
    struct thin_runs freed; /* by this transaction */
    uint64_t freed_ever;    /* blocks, since it was opened */
    uint64_t rounds;        /* how often the cursor went back */
    /* Ahead of the cursor, never taken or let go of since the data device said that they are a
     * hole. */
    struct thin_run zeroes;
};

must_use int co_thin_space_load(struct thin_meta *m, struct blk_error *e);
void thin_space_drop(struct thin_meta *m);
must_use int co_thin_count(struct thin_meta *m, uint64_t data_block, uint32_t *count);
must_use int co_thin_data_hold(struct thin_meta *m, uint64_t data_block);
must_use int co_thin_data_drop(struct thin_meta *m, uint64_t data_block);
/* Up to @count blocks that lie together and may be taken (T2), held from now on: -ENOSPC. */
must_use int co_thin_take(struct thin_meta *m, uint64_t count, struct thin_run *out);
/* Blocks of co_thin_take() have got their references, or are free again. */
/* They were taken this moment: they are a hole of the data device for certain. */
must_use bool thin_took_zeroes(struct thin_meta *m, const struct thin_run *run);
/* Asks the data device whether taken blocks are a hole, and remembers how far it goes. */
must_use int co_thin_ask_zeroes(struct thin_meta *m, const struct thin_run *run, bool *zeroes);
void thin_unhold(struct thin_meta *m, uint64_t first, uint64_t count);
uint64_t thin_data_free(const struct thin_meta *m); /* that may be taken now */
/* The map covers @blocks from now on; not fewer than it did. */
must_use int co_thin_space_grow(struct thin_meta *m, uint64_t blocks);
/* The changed bitmaps' entries go into the index tree. */
must_use int co_thin_space_settle(struct thin_meta *m);

/* Metadata blocks: all counts are in memory while the pool is open for writing. */
struct thin_meta_space {
    uint32_t *counts; /* NULL: opened read-only */
    /* Bit sets: made by this transaction; not to be taken; let go of by this transaction, by the
     * one being committed; whose entry in the overflow tree is to be looked at. */
    uint64_t *fresh, *held, *freed, *freeing, *changed;
    struct thin_root root;
    uint64_t bitmaps[THIN_INDEXES]; /* where they lie; 0: nowhere yet */
    bool dirty_bitmaps[THIN_INDEXES];
    uint64_t cursor, free; /* free: may be taken */
};
must_use int thin_meta_space_init(struct thin_meta *m, uint64_t blocks);
must_use int co_thin_meta_space_load(struct thin_meta *m);
void thin_meta_space_drop(struct thin_meta *m);
must_use int thin_meta_take(struct thin_meta *m, uint64_t *number);
/* 0: it is no block of the pool's, or a free one. */
uint32_t thin_meta_count(const struct thin_meta *m, uint64_t number);
void thin_meta_hold(struct thin_meta *m, uint64_t number);
void thin_meta_drop(struct thin_meta *m, uint64_t number);
bool thin_meta_is_fresh(const struct thin_meta *m, uint64_t number);
/* The map covers @blocks from now on; not fewer than it did. */
must_use int thin_meta_space_grow(struct thin_meta *m, uint64_t blocks);
/* Writes the map of metadata blocks into blocks of its own: the last step of a transaction. */
must_use int co_thin_meta_space_settle(struct thin_meta *m);
/* The transaction is complete; what it let go of stays held until it is durable. */
void thin_meta_space_cut(struct thin_meta *m);
void thin_meta_space_release(struct thin_meta *m);

/* --- the metadata -----------------------------------------------------------------------------
 */

struct thin_meta {
    struct blk_device *dev, *data; /* borrowed; data NULL: only metadata is looked at */
    struct thin_cache cache;
    struct thin_super super; /* as the current transaction has it */
    uint8_t *super_block;    /* its bytes as last written */
    struct thin_space space;
    struct thin_meta_space meta_space;
    struct co_rwlock lock;
    bool writable, dirty; /* dirty: the current transaction changed something */
    int failed;           /* T5 */
    /* What two referred to, one does now: by this transaction, by the one being committed. */
    bool unshared, unsharing;
    uint64_t changes; /* blocks changed so far */

    /* Commits: one at a time, many callers share one. */
    struct co_mutex committing;
    uint64_t commits_begun, commits_done; /* done: the latest that is durable began as */
    /* Before the cut, under the lock: what is only in memory goes into the trees. NULL: nothing. */
    int (*co_settle)(struct thin_meta *m);
    /* Data blocks that the commit, durable now, let go of: still held. Takes the list. NULL: they
     * are released at once. */
    void (*released)(struct thin_meta *m, struct thin_runs *freed);
};

must_use int co_thin_meta_open(struct thin_meta *m, struct blk_device *dev, struct blk_device *data,
                               bool write, size_t cache_bytes, struct blk_error *e);
void thin_meta_close(struct thin_meta *m);
/* All changes so far are durable, data first; 0 at once (after flushing data) if there are none.
 * Without the lock. */
must_use int co_thin_commit(struct thin_meta *m);
/* Before an operation, under the lock: 0, or -ENOSPC if there may be too few metadata blocks for
 * it. @frees: it lets go of space, so it may use half of the reserve. */
must_use int thin_meta_room(const struct thin_meta *m, uint64_t blocks, bool frees);
/* After one: gives @rc; one that failed after it changed something ends all changes (T5). @before:
 * m->changes when it began. */
int thin_meta_done(struct thin_meta *m, uint64_t before, int rc);
/* The block at *number, to be changed: copied first if it must be; then *number is another. Pinned.
 * @t NULL: a bitmap. */
must_use int co_thin_shadow(struct thin_meta *m, const struct thin_tree *t, uint64_t *number,
                            struct thin_block **out);
/* A new block, zero-filled, pinned. */
must_use int co_thin_make(struct thin_meta *m, enum thin_kind kind, uint64_t *number,
                          struct thin_block **out);
/* As co_thin_get() of a node of @t. */
must_use int co_thin_node(struct thin_cache *c, const struct thin_tree *t, uint64_t number,
                          struct thin_block **out);
/* A new pool's metadata; @blocks data blocks. Durable when it returns. */
must_use int co_thin_format(struct blk_device *dev, uint64_t chunk_bytes, uint64_t blocks,
                            struct blk_error *e);

/* --- devices: under the lock ------------------------------------------------------------------
 */

must_use int co_thin_detail(struct thin_meta *m, uint32_t id, struct thin_detail *out);
must_use int co_thin_set_detail(struct thin_meta *m, uint32_t id, const struct thin_detail *d);
must_use int co_thin_root(struct thin_meta *m, uint32_t id, uint64_t *root);
must_use int co_thin_create(struct thin_meta *m, uint32_t id);            /* -EEXIST */
must_use int co_thin_snap(struct thin_meta *m, uint32_t id, uint32_t of); /* -EEXIST, -ENOENT */
must_use int co_thin_delete(struct thin_meta *m, uint32_t id);            /* -ENOENT */
/* [first, +count) of the device lie at @data_block on; what was mapped there is dropped; data
 * blocks must be held (co_thin_take()), and are not any more. *added: that were not mapped before.
 */
must_use int co_thin_map(struct thin_meta *m, uint32_t id, uint64_t first,
                         const struct thin_run *data, uint64_t *added);
/* How many of [first, +count) are mapped, by nobody else and not in the last commit either: those
 * are the device's own from now on, whatever snapshots there were. *pending: one more would be,
 * once all changes so far are durable. */
must_use int co_thin_claim(struct thin_meta *m, uint32_t id, uint64_t first, uint64_t count,
                           uint64_t *claimed, bool *pending);
/* Unmaps at most @most blocks of [*first, end); *first is where to go on. *removed counts. */
must_use int co_thin_unmap(struct thin_meta *m, uint32_t id, uint64_t *first, uint64_t end,
                           unsigned most, uint64_t *removed);

#endif

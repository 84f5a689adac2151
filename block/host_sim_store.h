/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_store.h - contents of simulated files: a persistent tree of 4 KiB pages.
 *
 * Nodes have 64 children and a count of owners; a copy of a whole tree is one more owner of its
 * root, and a write copies only the nodes on its path (and the page, where it is shared). So a
 * crash state costs what it changes, whatever the size of the disk. Nodes and pages remember a hash
 * of what is below them, which makes the hash of a state as cheap. One thread only. */
#ifndef BLOCK_HOST_SIM_STORE_H
#define BLOCK_HOST_SIM_STORE_H

#include "block/base.h"

#define SIM_PAGE 4096U

struct sim_page {
    unsigned refs;
    bool hashed;
    uint64_t hash; /* of the bytes; 0 if they are all zero */
    uint8_t bytes[SIM_PAGE];
};

struct sim_node;
struct sim_tree {
    struct sim_node *root;
    unsigned height; /* levels of nodes below the root; the root of height 0 holds pages */
    uint64_t pages;
};

struct sim_page *sim_page_new(void); /* zeroed, one owner */
void sim_page_drop(struct sim_page *p);

struct sim_tree sim_tree_copy(const struct sim_tree *t);
void sim_tree_drop(struct sim_tree *t);
/* The page at index @at, or NULL for a hole. Borrowed. */
const struct sim_page *sim_tree_get(const struct sim_tree *t, uint64_t at);
/* The page at @at for writing: made (zeroed) if it was not there (*fresh says so), copied if it was
 * shared. Borrowed. NULL: no memory. */
struct sim_page *sim_tree_edit(struct sim_tree *t, uint64_t at, bool *fresh);
/* Puts @p (one more owner is taken) in place. False: no memory. */
bool sim_tree_put(struct sim_tree *t, uint64_t at, struct sim_page *p);
/* Makes [from, to) a hole. False: no memory. */
bool sim_tree_clear(struct sim_tree *t, uint64_t from, uint64_t to);
/* The first index >= @at with a page; UINT64_MAX: none. */
uint64_t sim_tree_next(const struct sim_tree *t, uint64_t at);
/* Equal contents give equal values; a page of zeroes and a hole are equal. */
uint64_t sim_tree_hash(const struct sim_tree *t);

uint64_t sim_mix(uint64_t a, uint64_t b);
uint64_t sim_hash_bytes(const void *bytes, size_t count);

/* xoshiro256**: every draw of the simulator and of the sweeps. */
struct sim_rng {
    uint64_t s[4];
};
void sim_rng_seed(struct sim_rng *r, uint64_t seed);
uint64_t sim_rng_next(struct sim_rng *r);
uint64_t sim_rng_below(struct sim_rng *r, uint64_t limit); /* @limit > 0 */

#endif

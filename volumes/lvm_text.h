/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_text.h - the text that LVM2 writes its metadata in, as a tree that can be read, changed and
 * written again.
 *
 *     vg0 {                            a section
 *         extent_size = 8192           a number
 *         status = ["READ", "WRITE"]   a list
 *         segment1 { type = "striped" }
 *     }
 *
 * The tree keeps all of a text, also what nobody here knows, in its order: so a group that somebody
 * else wrote loses nothing when it is written anew. Nodes live in the tree's own memory until it is
 * dropped; nothing is freed one by one. No I/O. */
#ifndef VOLUMES_LVM_TEXT_H
#define VOLUMES_LVM_TEXT_H

#include "block/err.h"

#define LVM_TEXT_MOST  (8 * MiB)    /* bytes of one text */
#define LVM_NODES_MOST (256 * 1024) /* of one text; a volume has some fifteen */
#define LVM_DEPTH_MOST 16

enum lvm_kind { LVM_SECTION, LVM_LIST, LVM_STRING, LVM_NUMBER, LVM_FLOAT };

struct lvm_node {
    struct lvm_node *next;         /* in its section or list */
    struct lvm_node *first, *last; /* of a section or list */
    const char *name;              /* NULL: the root, and what stands in a list */
    const char *text;              /* LVM_STRING: what it means; LVM_FLOAT: as it was written */
    int64_t number;
    enum lvm_kind kind;
};

struct lvm_text {
    struct lvm_node root;
    struct lvm_block *blocks; /* the memory */
    size_t node_count;
};

/* Reads @bytes of text, which end at the first zero byte. Gives *out, to be dropped. */
must_use int lvm_text_parse(const char *text, size_t bytes, struct lvm_text *out,
                            struct blk_error *e);
void lvm_text_drop(struct lvm_text *t);
/* Gives *out (mem_free): the text as LVM2 stores it, *bytes with the zero byte at its end. */
must_use int lvm_text_build(const struct lvm_text *t, char **out, size_t *bytes);

/* Of a section (NULL: nothing is found in it). NULL: there is none of that name and kind. */
struct lvm_node *lvm_find(const struct lvm_node *section, const char *name, enum lvm_kind kind);
const char *lvm_find_text(const struct lvm_node *section, const char *name);
/* False: there is none, or it is negative. */
bool lvm_find_number(const struct lvm_node *section, const char *name, uint64_t *out);
/* True if the list of that name holds the word. */
bool lvm_list_has(const struct lvm_node *section, const char *name, const char *word);

/* Changes. Texts are copied. NULL, -ENOMEM: no memory. */
struct lvm_node *lvm_add(struct lvm_text *t, struct lvm_node *in, enum lvm_kind kind,
                         const char *name);
must_use int lvm_set_text(struct lvm_text *t, struct lvm_node *in, const char *name,
                          const char *text);
must_use int lvm_set_number(struct lvm_text *t, struct lvm_node *in, const char *name,
                            uint64_t number);
/* @n, a string, is another one. */
must_use int lvm_change_text(struct lvm_text *t, struct lvm_node *n, const char *text);
/* Another value at the end of a list. */
must_use int lvm_list_add(struct lvm_text *t, struct lvm_node *list, const char *word);
void lvm_list_remove(struct lvm_node *list, const char *word);
must_use int lvm_rename(struct lvm_text *t, struct lvm_node *node, const char *name);
/* Nothing if it is not there. */
void lvm_remove(struct lvm_node *in, struct lvm_node *node);

#endif

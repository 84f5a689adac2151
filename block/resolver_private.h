/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver_private.h - what the files of the resolver share.
 *
 *   resolver.c         the public verbs: parse, open, open a bottom file
 *   resolver_node.c    one object of a tree to one device; the opener that its driver sees
 *   resolver_within.c  devices inside of others; containers shared between members of a set
 *   resolver_chain.c   what images refer to: the list of pending references, links, cycles
 *   resolver_trust.c   who may open what: the table, and where a reference leads
 *   resolver_find.c    what an image refers to by identity, looked for in folders
 *   resolver_secret.c  --object
 *   probe.c            which format is on a file
 *
 * One *run* opens one stack. A *link* is one image of the stack's chains: it has a file name that
 * relative references start from, an identity that must not come again further down, and a root:
 * the image that a person named, whose folder bounds what references may reach. */
#ifndef BLOCK_RESOLVER_PRIVATE_H
#define BLOCK_RESOLVER_PRIVATE_H

#include "block/resolver.h"

#define LINKS_MAX 1024 /* references below the image that a person named */

enum trust_probe {
    PROBE_QEMU,  /* as QEMU 7.2; a probed raw disk is guarded */
    PROBE_SAY,   /* what was found is said */
    PROBE_AGREE, /* to write in place, the file's extension must agree */
};
enum trust_refs { REFS_QEMU, REFS_BELOW, REFS_NONE };

struct trust_rule {
    bool face; /* QEMU's grammar, names and sentences */
    enum trust_probe probe;
    enum trust_refs refs;
};
const struct trust_rule *trust_rule(const struct resolver *r);

struct link {
    struct link *next_of_run;
    struct link *parent; /* whose reference this is; NULL: named by a person */
    struct link *root;   /* see above; may be itself */
    unsigned depth;
    char *file_name; /* of the first file opened for it; NULL: none yet */
    char *real_dir;  /* its directory; found when first needed */
    bool has_id;
    uint64_t device, inode;
};

/* What one object of a tree becomes: how it is to be opened. */
struct node {
    struct link *link;
    const json_t *tree; /* borrowed */
    unsigned flags;     /* enum blk_open_flags */
    const char *cache;
    bool bottom;     /* stands under "file": no format is probed */
    unsigned create; /* HOST_ flags for the file itself */
};

struct open_run {
    struct resolver *r;
    const struct trust_rule *rule;
    struct link *links;
    struct reference *first, *last; /* pending; see resolver_chain.c */
    /* Devices whose co_opened() is due, in the order in which their open began; each holds a
     * reference. NULL: it failed. */
    struct blk_device **opened;
    size_t opened_count;
    struct within
        *within; /* containers that are open: a set may have more than one device of one */
    bool named;  /* the error says already which file it is about */
};

struct blk_opener {
    struct open_run *run;
    struct node node;
    struct blk_device *file;        /* opened already, for the probe; NULL: none */
    json_t *claimed;                /* keys of children that the driver asked for */
    struct reference *first, *last; /* asked for in open() */
};

/* --- resolver.c */
bool co_resolver_is_file(struct resolver *r, const char *path);
/* The grammar alone, with the run's rules. */
must_use int co_parse_spec(struct resolver *r, const char *text, bool image_opts, json_t **out,
                           struct blk_error *e);
/* `{"driver": FORMAT}` over *tree: set in it where it names none or another format, else on top. */
must_use int put_format(struct resolver *r, const char *format, json_t **tree, struct blk_error *e);
/* An unknown name: the nearest is named. */
int unknown_driver(struct open_run *run, const char *name, struct blk_error *e);

/* --- resolver_node.c */
must_use int co_node_open(struct open_run *run, const struct node *n, struct blk_device **out,
                          struct blk_error *e);
/* The name that a person knows the object by; borrowed from it, or its driver's. */
const char *tree_name(const json_t *tree);
/* Puts the file's name in front of an error that has none yet, and words where there are none.
 * Gives @rc. */
int run_name_error(struct open_run *run, const char *name, int rc, struct blk_error *e);
/* The same of what @d could not open, and what a person can do next. */
int run_failed(struct open_run *run, const struct blk_driver *d, const char *name, int rc,
               struct blk_error *e);

/* @file: opened before for the probe, or NULL; taken over. */
must_use int co_driver_open(struct open_run *run, const struct node *n, const struct blk_driver *d,
                            struct blk_device *file, struct blk_device **out, struct blk_error *e);

/* --- resolver_within.c */
/* An object {"driver": "inner", ...}. */
must_use int co_inner_node_open(struct open_run *run, const struct node *n, struct blk_device **out,
                                struct blk_error *e);
void within_drop(struct open_run *run);
/* The run has succeeded: others may share what it opened, if the resolver has them do that. */
void within_share(struct open_run *run);

/* --- resolver_chain.c */
/* A link below @parent; @named: by a person, so it is a root. NULL: no memory. */
struct link *link_new(struct open_run *run, struct link *parent, bool named);
void links_drop(struct open_run *run);
/* -ELOOP if the file is that of a link above @l. */
must_use int link_check_cycle(const struct link *l, const struct host_stat *id, const char *name,
                              struct blk_error *e);
/* After open(): the driver's references become the run's. */
void references_adopt(struct blk_opener *o, struct blk_device *dev);
void references_drop(struct reference *first);
must_use int co_references_open(struct open_run *run, struct blk_error *e);
/* Calls the co_opened() that are due, each once. */
must_use int co_run_opened(struct open_run *run, struct blk_error *e);

/* --- resolver_trust.c */
/* Gives *tree for what @reference, found in the image of @from, may open. @role for sentences. */
must_use int co_trust_locate(struct open_run *run, struct link *from, const char *role,
                             const char *reference, const char *format, json_t **tree,
                             struct blk_error *e);
/* May what was probed be opened with @flags? Says what is to be said. */
must_use int trust_probed(struct open_run *run, const struct node *n, const char *name,
                          const struct blk_driver *driver, const char *reason, struct blk_error *e);
const char *role_words(const char *role);
/* The folder part of a name; "." if it has none. NULL: no memory. */
char *dir_of(const char *file_name);
/* What @reference means beside @file_name; NULL: no memory. */
char *combine_names(const char *file_name, const char *reference);

#endif

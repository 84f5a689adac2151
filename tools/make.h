/* SPDX-License-Identifier: BSD-3-Clause */
/* make.h - how a new image comes to be: the name, the file, the format in it; and how it goes away
 * again if something fails.
 *
 * A new regular file is written under a name of its own in the target's directory and takes the
 * target's name when all is done (co_make_end): what has the target's name is always whole. Where
 * the directory takes no new names, and in the qemu-img face over an existing file, it is written
 * in place. */
#ifndef TOOLS_MAKE_H
#define TOOLS_MAKE_H

#include "tools/image.h"

struct make {
    /* told */
    struct tool *tool;
    const char *name;                /* the target, as told */
    const struct blk_driver *driver; /* the format */
    json_t *options;                 /* creation options (owned); size is not among them */
    uint64_t size;
    const char *cache;
    bool force;  /* an existing file may be replaced (lamina's own name) */
    bool pipe;   /* it goes to standard output in the end: the file is a spool (pipe.h) */
    bool steady; /* its other name is always the same: see co_make_place() */
    bool direct; /* write under the target's name at once */
    bool fresh;  /* BLK_OPEN_FRESH: unrecognisable until co_blk_complete() */
    /* kept */
    char *path;       /* of the file; NULL: the target is no plain file */
    char *written;    /* the name that it is written under */
    char *folder;     /* of co_make_place(): the target's */
    char *parts_note; /* of co_make_place(): says which further files are being made */
    json_t *parts;    /* names of further files that we made for it; NULL: none */
    char *bundle;     /* the folder that is the image, of formats that have one; NULL: none */
    bool bundle_made; /* by us: to be removed on failure */
    bool created;     /* we made it: to be removed on failure */
    struct blk_device *spool; /* with pipe: the file, open until co_make_end() */
    struct blk_device *held; /* the file that will be replaced: open, so that nobody else uses it */
};

/* Adds @text (of -o) to @options. -EINVAL with a message. */
must_use int make_add_options(const struct tool *t, json_t *options, const char *text);
/* The same; -o help sets *help. Gives 0 or ARGS_BAD. */
must_use int make_options_told(const struct tool *t, json_t *options, const char *text, bool *help);
/* What -o says of a backing image, where -b and -F said nothing; an empty name is none. */
void make_backing_told(const json_t *options, const char **backing, const char **format);
/* Takes "size" out of the options; *given says whether it was there. */
must_use int make_take_size(struct make *m, uint64_t *size, bool *given, struct blk_error *e);
/* The id of the secret that the new image is encrypted with; NULL: none is told. */
const char *make_key_secret(const struct make *m);
/* Checks the options against the format's table. */
must_use int make_check_options(const struct make *m, struct blk_error *e);
bool make_has_option(const struct blk_driver *d, const char *name);
/* The same for the one who calls: in the faces not what QEMU's driver lacks. */
bool make_knows_option(const struct make *m, const char *name);
/* qemu-img's "Formatting 'x', fmt=..." line. */
void make_print_formatting(const struct make *m);
/* One line for each option of a table, as qemu-img prints them. */
void make_print_options(const struct opt_desc *table);
/* qemu-img's `-o help`. */
void make_print_help(const struct tool *t, const struct blk_driver *d, bool with_target);

/* For steady: finds out where the target is to lie, before anything is made; then path, written and
 * folder are known. -ENOTSUP: it is no plain file. */
must_use int co_make_place(struct make *m, struct blk_error *e);
/* Makes the file and the empty image in it, and closes it again. */
must_use int co_make(struct make *m, struct blk_error *e);
/* Opens what co_make() made, for writing. */
must_use int co_make_open(struct make *m, unsigned flags, struct blk_device **out,
                          struct blk_error *e);
/* Opens what was written and closed, for reading. */
must_use int co_make_look(struct make *m, struct blk_device **out, struct blk_error *e);
/* All is written and closed (@rc 0): it takes the target's name. Or not: what we made goes away.
 * Gives the first error. */
int co_make_end(struct make *m, int rc, struct blk_error *e);
/* From here on what we made stays, also on failure: there is a journal that speaks of it. */
must_use int co_make_keep(struct make *m, struct blk_error *e);
void make_drop(struct make *m);

/* --- between make.c and make_parts.c --- */

must_use int co_make_file(struct make *m, struct resolver *r, const char *path, unsigned create,
                          struct blk_device **out, struct blk_error *e);
/* struct blk_create's co_make_file; its arg is the make. */
must_use int co_make_part(const struct blk_create *c, const char *name, struct blk_device **out,
                          struct blk_error *e);
/* Removes what a run that was cut short had made, by its note. */
must_use int co_make_clear_parts(struct make *m, struct blk_error *e);
/* Removes what this run has made. */
void co_make_undo_parts(struct make *m);

#endif

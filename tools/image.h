/* SPDX-License-Identifier: BSD-3-Clause */
/* image.h - how verbs open the images that they are told, and the words of the options that say
 * how. */
#ifndef TOOLS_IMAGE_H
#define TOOLS_IMAGE_H

#include "tools/tool.h"

/* One image as told on the command line. Zero-initialised but for text is a read-only image of a
 * format to be found out. */
struct image {
    const char *text;               /* the operand */
    const char *format;             /* -f; NULL: probe */
    bool image_opts;                /* --image-opts: text is key=value or json */
    const char *cache;              /* -t or -T; NULL: writeback */
    unsigned flags;                 /* enum blk_open_flags */
    enum trust trust;               /* of lamina's own name */
    struct resolver_shared *shared; /* with other images; NULL: with none */
    const char *secret;             /* id of its key where its options do not say; NULL: none */
    bool deny_writers;              /* in the qemu-img face: also of a raw file */
    bool bare; /* in the faces: the error does not begin with "Could not open 'X': " */
};

/* Opens it; inside tool_run(). Gives *out; the error names the image. */
must_use int co_image_open(struct tool *t, const struct image *i, struct blk_device **out,
                           struct blk_error *e);
/* A resolver for this run with the --object secrets in it; resolver_drop() it. */
must_use int co_tool_resolver(struct tool *t, enum trust trust, const char *cache,
                              struct resolver *r, struct blk_error *e);
/* Closes @dev (may be NULL); its error only if *e holds none yet. Gives the first. */
int co_image_close(struct blk_device *dev, int rc, struct blk_error *e);
/* The same after image_failed(), which see. */
int co_image_end(const struct tool *t, struct blk_device *dev, int rc, struct blk_error *e);
/* *dev becomes its snapshot that @told names as -l does: a name or an id (which goes first),
 * snapshot.id=I, snapshot.name=N or both. */
must_use int co_image_snapshot(const struct tool *t, const char *told, struct blk_device **dev,
                               struct blk_error *e);

/* Entries that verbs share in their tables, and where they keep them. */
enum { ARG_IMAGE_OPTIONS_ID = 800 };
#define ARG_IMAGE_FORMAT                                                               \
    {                                                                                  \
        'f', "format", "FORMAT", "the image's format (else it is found out)", 0, false \
    }
#define ARG_IMAGE_OPTIONS                                                                        \
    {                                                                                            \
        ARG_IMAGE_OPTIONS_ID, "image-opts", NULL, "IMAGE is driver=...,key=value or json:{...}", \
            0, false                                                                             \
    }
#define IMAGE_PLACES(image)                              \
    {'f', &(image)->format, NULL},                       \
    {                                                    \
        ARG_IMAGE_OPTIONS_ID, NULL, &(image)->image_opts \
    }
/* As args_read(); then there must be one operand: @image's text. */
must_use int image_read(struct tool *t, struct command_line *w, struct image *image);

/* What @name means when the image @image names it: relative to its directory. NULL: no memory. */
char *image_beside(const char *image, const char *name);
/* True if @name is one of the cache modes, or NULL. */
bool cache_is_known(const char *name);
/* The same; false after a message, in which it is called @what: "cache" or "source cache". */
bool cache_told(const struct tool *t, const char *what, const char *name);
/* @d can make images; else says that it cannot, after @what. */
bool format_creates(const struct tool *t, const struct blk_driver *d, const char *what);
/* Sets @e to a sentence on what images of @d cannot do; gives -ENOTSUP, -EINVAL. */
int format_no_compression(const struct tool *t, const struct blk_driver *d, struct blk_error *e);
int format_no_backing(const struct tool *t, const struct blk_driver *d, struct blk_error *e);
/* By name or NULL after a message that names the nearest; @what goes in front ("x.img: "). */
const struct blk_driver *format_find(const struct tool *t, const char *name, const char *what);
/* The format that @name's ending says, or NULL. */
const struct blk_driver *format_by_ending(const char *name);
/* A size of the command line; a message and false if it is none. @what: "image size". */
bool size_told(const struct tool *t, const char *what, const char *text, uint64_t *bytes);

/* What becomes of the space that an image gains (resize.c). */
enum preallocation { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };
struct image_size {
    uint64_t bytes;
    enum preallocation preallocation;
    bool shrink; /* it may become smaller */
};
/* False after a message. */
bool preallocation_told(const struct tool *t, const char *value, enum preallocation *out);
/* @dev gets that size, durably. */
must_use int co_image_resize(const struct tool *t, struct blk_device *dev,
                             const struct image_size *s, struct blk_error *e);

/* An operation on @dev, which is open, failed: under lamina's own name @e says of what image, and
 * what is next. Nothing if @rc is no error. */
void image_failed(const struct tool *t, struct blk_device *dev, int rc, struct blk_error *e);
/* Tells what went wrong, "lamina: TEXT", and below it what to do next. Gives 1. */
int tool_failed(const struct tool *t, const struct blk_error *e);

#endif

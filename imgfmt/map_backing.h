/* SPDX-License-Identifier: BSD-3-Clause */
/* map_backing.h - the image that an image stands on, as its format names it: asked of the resolver,
 * told by info. */
#ifndef IMGFMT_MAP_BACKING_H
#define IMGFMT_MAP_BACKING_H

#include "block/resolver.h"
#include "imgfmt/map.h"

struct map_backing {
    char *name, *format; /* as the image says; NULL: none, or not told */
    char *full_name;     /* NULL: none, or not to be known */
};

/* In open(), once b->name and b->format are known (b's from now on): asks the opener for it. */
must_use int co_map_backing_ask(struct map *m, struct map_backing *b, struct blk_opener *opener,
                                struct blk_error *e);
/* In co_opened() (for most formats it is all of it). dev->state is the struct map *. */
int co_map_backing_opened(struct blk_device *dev, struct blk_error *e);
must_use int map_backing_info(const struct map_backing *b, struct blk_info *out,
                              struct blk_error *e);
void map_backing_drop(struct map_backing *b);

#endif

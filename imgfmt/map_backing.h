/* SPDX-License-Identifier: BSD-3-Clause */
/* map_backing.h - the image that an image stands on, as its format names it: for formats that show
 * the name. Asking for it and finding it is map.h's. */
#ifndef IMGFMT_MAP_BACKING_H
#define IMGFMT_MAP_BACKING_H

#include "block/resolver.h"
#include "imgfmt/map.h"

struct map_backing {
    char *name, *format; /* as the image says; NULL: none, or not told */
    char *full_name;     /* NULL: none, or not to be known */
};

/* co_map_want_backing() for @b, whose name and format the format filled. */
must_use int co_map_backing_want(struct map *m, struct map_backing *b, struct blk_opener *opener,
                                 struct blk_error *e);
must_use int map_backing_info(const struct map_backing *b, struct blk_info *out,
                              struct blk_error *e);
void map_backing_drop(struct map_backing *b);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* draw.h - a chain of images drawn on a terminal: a row for each, with a bar that shows how much of
 * the disk it holds, and where. Programs that read a pipe see none of it. */
#ifndef TOOLS_DRAW_H
#define TOOLS_DRAW_H

#include "tools/tool.h"

#define DRAW_CELLS 48 /* of a bar */

/* A chain whose rows are drawn one below the other. */
struct draw {
    bool color;
    uint64_t size; /* of the disk */
    size_t layers;
    uint64_t (*held)[DRAW_CELLS]; /* bytes that each layer holds in each part of the disk; owned */
};

/* True if pictures are wanted: on a terminal, for people, under lamina's own name. */
bool draw_is_wanted(const struct tool *t);
/* @d zero-initialised. -ENOMEM. */
must_use int draw_init(struct draw *d, uint64_t size, size_t layers);
/* Layer @layer holds [offset, +bytes) of the disk. */
void draw_add(struct draw *d, size_t layer, uint64_t offset, uint64_t bytes);
/* The row of layer @layer, called @name, with @note behind the bar. */
void draw_row(const struct draw *d, size_t layer, const char *name, const char *note);
void draw_drop(struct draw *d);

#endif

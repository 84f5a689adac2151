/* SPDX-License-Identifier: BSD-3-Clause */
/* output.h - what verbs print: sizes for people, JSON for programs. Main thread only. */
#ifndef TOOLS_OUTPUT_H
#define TOOLS_OUTPUT_H

#include "block/block.h"

/* "1.5 GiB", three digits that mean something, as qemu-img prints it. */
const char *output_size(uint64_t bytes, char *to, size_t to_bytes);
/* A new JSON string of a file name or other text; bytes that are no UTF-8 become U+FFFD. */
json_t *output_text(const char *text);
/* Prints and drops @value (NULL: out of memory). 0, or 1 as exit status. */
int output_json(json_t *value);
/* qemu-img's table of snapshots, from JSON of info's shape; nothing if there are none. */
void output_snapshots(const json_t *list, uint64_t left_out);
/* One image as qemu-img info prints it. Driver's private facts are walked in their order. */
void output_info_human(const char *name, const char *format, const struct blk_info *i);
/* The driver's private facts alone, with their heading; nothing if there are none. */
void output_info_specific(const struct blk_info *i);
json_t *output_info_json(const char *name, const char *format, const struct blk_info *i);

#endif

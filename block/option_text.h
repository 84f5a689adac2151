/* SPDX-License-Identifier: BSD-3-Clause */
/* option_text.h - what the spec parser shares with the option parser. */
#ifndef BLOCK_OPTION_TEXT_H
#define BLOCK_OPTION_TEXT_H

#include "block/option.h"

/* How deep a tree from outside may nest: more would overflow a coroutine's stack when it is walked
 * or freed. */
#define OPTS_DEPTH 64

/* Copies @text up to a single comma to @to (as large as @text), doubled commas made single. Gives
 * how much of @text that took, the comma not included. */
size_t opts_take_word(const char *text, char *to);

/* Refuses JSON that nests deeper than OPTS_DEPTH before anything recurses over it. */
must_use int json_check_depth(const char *text, size_t bytes, struct blk_error *e);

/* Puts @value (taken over, also on failure; NULL: no memory) at `a.b.c` below @tree, at most @room
 * levels down. Objects merge, other values are replaced. */
must_use int opts_put(json_t *tree, const char *key, json_t *value, unsigned room,
                      struct blk_error *e);

#endif

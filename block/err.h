/* SPDX-License-Identifier: BSD-3-Clause */
/* err.h - what a control operation says when it fails: an errno for programs, a sentence for
 * people.
 *
 * The sentence is said once, where the fact is known: what, in which file, at which offset, and
 * what to do. Callers add the object in front (err_prefix), they never rephrase. */
#ifndef BLOCK_ERR_H
#define BLOCK_ERR_H

#include "block/base.h"

struct blk_error {
    int rc;         /* 0 or a negative errno */
    char text[600]; /* no trailing newline, no trailing full stop */
};

/* Sets @e (which may be NULL) and returns @rc, a negative errno. An already set text is replaced.
 */
int err_set(struct blk_error *e, int rc, const char *fmt, ...) printf_like(3, 4);
/* As err_set(), the text followed by ": " and the errno's words. */
int err_errno(struct blk_error *e, int rc, const char *fmt, ...) printf_like(3, 4);
/* Puts "@fmt: " in front of the text and returns e->rc. Does nothing if @e is NULL. */
int err_prefix(struct blk_error *e, const char *fmt, ...) printf_like(2, 3);

#endif

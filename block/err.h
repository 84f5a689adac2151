/* SPDX-License-Identifier: BSD-3-Clause */
/* err.h - what a control operation says when it fails: an errno for programs, a sentence for
 * people.
 *
 * The sentence is said once, where the fact is known: what, in which file, at which offset. Callers
 * add the object in front (err_prefix), they never rephrase. What a person can do next is a line of
 * its own: whoever knows it sets it (err_next), for damage that is blk_next_after_open() and
 * blk_next_after_io() (mend.c); the program prints it below the sentence. */
#ifndef BLOCK_ERR_H
#define BLOCK_ERR_H

#include "block/base.h"

struct blk_error {
    int rc;         /* 0 or a negative errno */
    bool damaged;   /* bytes are not what they must be, whoever wrote them: err_bad() */
    char text[600]; /* no trailing newline, no trailing full stop */
    char next[360]; /* what to do; likewise, and empty if nobody knows */
};

/* Sets @e (which may be NULL) and returns @rc, a negative errno. An already set text is replaced.
 */
int err_set(struct blk_error *e, int rc, const char *fmt, ...) printf_like(3, 4);
/* As err_set(), of bytes that no writer of their format leaves behind: damage, or a file that was
 * cut; with -ENOTSUP perhaps a newer version. */
int err_bad(struct blk_error *e, int rc, const char *fmt, ...) printf_like(3, 4);
/* As err_set(), of a file that is none of the format it was told to be; what is next is said too.
 */
int err_wrong_format(struct blk_error *e, const char *fmt, ...) printf_like(2, 3);
/* As err_set(), the text followed by ": " and the errno's words. */
int err_errno(struct blk_error *e, int rc, const char *fmt, ...) printf_like(3, 4);
/* What a person can do about it, unless it is said already. Every setter of the text forgets it. */
void err_next(struct blk_error *e, const char *fmt, ...) printf_like(2, 3);
/* All that @from says becomes @e's, with @rc. */
int err_copy(struct blk_error *e, int rc, const struct blk_error *from);
/* Puts "@fmt: " in front of the text and returns e->rc. Does nothing if @e is NULL. */
int err_prefix(struct blk_error *e, const char *fmt, ...) printf_like(2, 3);

#endif

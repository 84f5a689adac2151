/* SPDX-License-Identifier: BSD-3-Clause */
/* receive.h - what the files of `lamina receive` share.
 *
 *   receive.c          what is told, from where the stream comes, the order of everything
 *   receive_open.c     the target: found, its base compared, made or opened; the end of it
 *   receive_apply.c    records read, checked, written
 *   receive_journal.c  how far it is; and what a target holds since */
#ifndef TOOLS_RECEIVE_H
#define TOOLS_RECEIVE_H

#include "tools/make.h"
#include "tools/send_format.h"
#include "tools/task.h"

/* --- applying --- */

struct receive_input {
    /* All of them, or -ENODATA: the stream has fewer. */
    int (*co_read)(struct receive_input *in, void *to, size_t bytes);
};

struct receive_apply {
    /* told */
    struct receive_input *input; /* behind the header */
    struct send_header header;
    struct blk_device *target; /* large enough */
    bool reads_zero;           /* nothing was ever written there */
    uint64_t from;             /* all before it is in the target, durable, */
    struct sumhash before;     /* and this is the sum of it */
    struct job *job;           /* NULL: nobody counts */
    /* All before @at is in the target, durable. NULL: nobody wants to know. */
    int (*co_note)(struct receive_apply *a, uint64_t at, const struct sumhash *sum);
    /* found */
    struct sumhash digest; /* of the disk */
};

must_use int co_receive_header(struct receive_input *in, struct send_header *out,
                               struct blk_error *e);
/* Writes all that the stream says, and flushes. */
must_use int co_receive_apply(struct receive_apply *a, struct blk_error *e);

/* --- the journal --- */

enum receive_state {
    RECEIVE_NOTHING, /* there is no journal */
    RECEIVE_GOING,   /* all before at is in the target */
    RECEIVE_WHOLE,   /* all is in the new image, which has its name, or not yet */
    RECEIVE_DONE,    /* the target held what digest says while its files were as files says */
};

struct receive_journal {
    struct host *host;
    char *path; /* owned */
    enum receive_state state;
    bool made;                 /* the target is a new image */
    struct send_header header; /* of the stream; start and passed do not count */
    uint64_t at;
    struct sumhash sum, digest; /* so far; in the end */
    json_t *files;              /* owned; NULL: not known */
};

/* Fills in what @j->path says. */
must_use int co_receive_journal_read(struct receive_journal *j, struct blk_error *e);
/* Durable when it returns. */
must_use int co_receive_journal_write(const struct receive_journal *j, struct blk_error *e);
/* True if what the journal is of is the stream that begins with @h, or its rest. */
bool receive_same_stream(const struct receive_journal *j, const struct send_header *h);
/* True if nothing was written to @dev since the journal said that it is done. */
bool receive_is_untouched(const struct receive_journal *j, struct blk_device *dev);
void receive_journal_drop(struct receive_journal *j);

/* --- the verb --- */

struct receive {
    struct task task;
    /* told */
    const char *stream, *target_format, *format, *base, *base_format, *journal_path;
    bool force, token;
    struct make make; /* the target; its name also where it is there already */
    /* open */
    struct receive_input *input;
    struct send_header header;
    struct receive_journal journal;
    struct blk_device *target;
    bool made, resumed;
    bool finished; /* an earlier run has done all but tell so */
};

/* Finds out where the target lies, and what the journal says of it. */
must_use int co_receive_place(struct receive *r);
/* Refuses what the stream cannot be applied to; else the target is open for writing, and the
 * journal says so. */
must_use int co_receive_open(struct receive *r);
/* All is written: closes the target, which takes its name; what it holds is noted. Or, with @rc an
 * error, closes what is open. Gives the first error. */
int co_receive_close(struct receive *r, int rc);
/* All of it, once the input is open. */
int co_receive_run(struct receive *r);

#endif

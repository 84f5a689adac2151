/* SPDX-License-Identifier: BSD-3-Clause */
/* pipe.h - "-" on the command line: an image that comes from standard input, or goes to standard
 * output.
 *
 * In: a pipe is copied to a nameless file in TMPDIR (else /var/tmp), which is then opened like any
 * other; so every format can be read, with bounded memory. A regular file is opened as it is.
 *
 * Out: a format whose file is the disk itself (raw) is written as it is read. Of the others the
 * image is made in a *spool*, a device that keeps what is written in a nameless file, but of what
 * is copied remembers only where it lies; when the image is complete, the spool is written out from
 * begin to end. So only metadata, and what had to be compressed or inflated, takes space there. */
#ifndef TOOLS_PIPE_H
#define TOOLS_PIPE_H

#include "block/job.h"
#include "tools/tool.h"

static inline bool is_pipe(const char *name)
{
    return name && strcmp(name, "-") == 0;
}

/* What standard input holds, as a path to be opened while *keep (may be NULL) is open; *path is to
 * be freed, and *keep closed by co_host_close(). */
must_use int co_pipe_in(struct tool *t, struct host_file **keep, char **path, struct blk_error *e);
/* A nameless file in TMPDIR, else in /var/tmp. */
must_use int co_pipe_temporary(struct tool *t, struct host_file **out, struct blk_error *e);
/* An empty spool, in memory but for its file. */
must_use int co_pipe_spool(struct tool *t, struct blk_device **out, struct blk_error *e);
/* Writes the first @bytes of @dev to standard output; @job (may be NULL) counts them. */
must_use int co_pipe_out(struct tool *t, struct blk_device *dev, uint64_t bytes, struct job *job,
                         struct blk_error *e);
/* For threads that may sleep: writes all to @fd; reads until there are @bytes, or to the end: *got
 * of them. -ECANCELED once a signal asks for the end. */
must_use int pipe_write_all(const struct tool *t, int fd, const uint8_t *buf, size_t bytes);
must_use int pipe_read_all(const struct tool *t, int fd, uint8_t *buf, size_t bytes, size_t *got);
/* Writes that many zeroes, at most 64 KiB of them. */
must_use int co_pipe_zeroes(struct tool *t, uint64_t bytes, struct blk_error *e);

#endif

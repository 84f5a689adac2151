/* SPDX-License-Identifier: BSD-3-Clause */
/* io.h - qemu-io's face: one image after another is open, and commands act on it.
 *
 *   face_io.c   what is told; lines of commands      io_rw.c     reading and writing, also beside
 *   io_snapshot.c  writes that go elsewhere
 *   io_image.c  opening, sizes, facts                io_print.c  numbers and reports as qemu-io
 * prints them
 *
 * The main thread reads and parses a command and prints its results; the work itself is a coroutine
 * (io_work). Requests of aio_read and aio_write go on whenever one runs. */
#ifndef TOOLS_IO_H
#define TOOLS_IO_H

#include "tools/image.h"

/* How an image is opened: as the command line says, or `open`. */
struct io_how {
    const char *text, *format, *options, *cache;
    bool image_opts, read_only, snapshot, copy_on_read, native;
    bool no_discard; /* discards are accepted and left undone */
};

struct io {
    struct tool *tool;
    struct blk_device *dev; /* NULL: none is open */
    struct io_how how;      /* of it; its texts are owned */
    bool misalign, image_opts, quit;
    struct co_group aio;
    struct io_request *done; /* of aio, latest first, not printed yet */
};

enum io_needs {
    IO_NO_FILE = 1, /* no image has to be open */
    IO_WRITES = 2,
};

struct io_command {
    const char *name, *alias;
    int (*run)(struct io *io, int argc, char **argv); /* 0, or a negative number: it failed */
    int least, most;                                  /* operands and options; -1: no limit */
    unsigned needs;
    const char *usage, *summary;
    const char *notes; /* what `help COMMAND` says more; NULL: nothing */
};

extern const struct io_command io_rw_commands[], io_image_commands[]; /* each ends with no name */

/* Prints "NAME USAGE -- SUMMARY". Gives -EINVAL. */
int io_misuse(const struct io_command *c);
/* The command whose run() is under way, for io_misuse(). */
const struct io_command *io_find(const char *name);
/* Runs @co_fn(@arg) to its end; its value. What aio has finished meanwhile is printed. */
int io_work(struct io *io, int (*co_fn)(void *arg), void *arg);

/* Opens the image that @how describes; its texts are borrowed. 0, or -errno after a message. */
must_use int io_open(struct io *io, const struct io_how *how);
int io_close(struct io *io);
/* Takes an -i, -d or -t option of @how; false after a message. */
bool io_how_told(const struct io *io, struct io_how *how, int option, const char *value);
/* A temporary image on top of @base: what to open, and the file that it is. */
struct io_snapshot {
    char *path, *text;
};
must_use int io_snapshot_make(struct io *io, const struct image *base, struct io_snapshot *s,
                              struct blk_error *e);
/* Also of one that could not be made. What is open stays. */
void io_snapshot_drop(struct io_snapshot *s);
/* Virtual bytes, in whole sectors as QEMU counts. */
uint64_t io_size(const struct io *io);

/* Waits for aio, and prints what it did. */
void io_aio_wait(struct io *io);
void io_aio_print(struct io *io);

/* A size as the commands take them; false after a message. */
bool io_number(const char *text, uint64_t *out);
/* "3.500 KiB" */
const char *io_size_text(double bytes, char *to, size_t to_bytes);
/* What a request of @bytes did, of @wanted. */
struct io_report {
    const char *word; /* "read", "wrote" */
    uint64_t offset, wanted, bytes;
    double seconds;
    bool machine; /* -C: bytes, operations, time, rates on one line */
};
void io_print_report(const struct io_report *r);
void io_print_dump(const uint8_t *bytes, uint64_t offset, uint64_t count);

#endif

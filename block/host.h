/* SPDX-License-Identifier: BSD-3-Clause */
/* host.h - everything outside the process: files, names, streams, clock, randomness. Real or
 * simulated.
 *
 *   host_uring    io_uring where the kernel allows it (the default)
 *   host_threads  preadv/pwritev on the pool
 *   host_aio      the same, but native asynchronous I/O for O_DIRECT
 *   host_sim      memory, a virtual clock and one seed (host_sim.h)
 *
 * Offsets and sizes are bytes. Functions return 0 (or a count, where said) or a negative errno. co_
 * functions run on a coroutine and may suspend; each first tries to finish without (page cache hits
 * through RWF_NOWAIT, plain calls on tmpfs). The others never block and never suspend. */
#ifndef BLOCK_HOST_H
#define BLOCK_HOST_H

#include "block/vec.h"
#include "block/worker.h"

/* --- hosts
 * ---------------------------------------------------------------------------------------------------------
 */

struct host {
    const struct host_ops *ops;
};

/* The real hosts. @kind: "uring", "threads", "aio", or NULL for what the environment names in
 * HOST_VARIABLE, else the best there is. -ENOTSUP if the kernel (or the build) has no such host. */
#define HOST_VARIABLE "LAMINA_HOST"
must_use int host_open(const char *kind, struct host **out);
void host_close(struct host *h);
const char *host_name(const struct host *h); /* "uring", "threads", "aio", "sim" */

/* Wall clock for time stamps in images: ns since 1970. Honours SOURCE_DATE_EPOCH. */
uint64_t host_wall_clock(struct host *h);
void host_random(struct host *h, void *to, size_t bytes);
/* Random (version 4) UUID in RFC 4122 byte order. */
void host_uuid(struct host *h, uint8_t uuid[16]);

/* --- files
 * ---------------------------------------------------------------------------------------------------------
 */

enum host_open_flags {
    HOST_READ = 1,
    HOST_WRITE = 2,
    HOST_CREATE = 4,    /* create if it is not there */
    HOST_EXCLUSIVE = 8, /* with CREATE: -EEXIST if it is there */
    HOST_TRUNCATE = 16,
    HOST_DIRECT = 32,           /* O_DIRECT */
    HOST_REGULAR_OR_BLOCK = 64, /* refuse all else with -EINVAL before opening can hang or act
                                   (FIFOs, character devices) */
    HOST_TEMPORARY = 128, /* create and unlink at once: a scratch file in the directory @path */
};

enum host_file_type { HOST_FILE_REGULAR, HOST_FILE_BLOCK, HOST_FILE_DIRECTORY, HOST_FILE_OTHER };

struct host_stat {
    enum host_file_type type;
    uint64_t size;          /* bytes; of block devices too */
    uint64_t allocated;     /* bytes that it takes on disk */
    uint64_t device, inode; /* identity: for cycle checks and "same file" */
    uint32_t request_align; /* what O_DIRECT asks of offsets and lengths; 1 without it */
    uint32_t memory_align;
    uint32_t links;
    bool inline_io; /* the file system never stalls (tmpfs): I/O is done in place */
};

struct host_file {
    struct host *host;
    struct host_stat stat; /* as of open; size kept by nobody: ask co_host_fstat() */
    unsigned flags;        /* enum host_open_flags */
};

/* Opens @path. @beneath: NULL, or a directory: @path (relative to it, or absolute and then checked)
 * must resolve to something below it, symlinks included, else -EXDEV (openat2 RESOLVE_BENEATH |
 * RESOLVE_NO_MAGICLINKS). */
must_use int co_host_open(struct host *h, const char *path, const char *beneath, unsigned flags,
                          struct host_file **out);
void co_host_close(struct host_file *f);

/* Bytes read: fewer than asked only at the end of the file. */
must_use int64_t co_host_read(struct host_file *f, uint64_t offset, const struct vec *to);
/* All or an error. */
must_use int co_host_write(struct host_file *f, uint64_t offset, const struct vec *from);
/* For who receives what is to be written: where much of this worker's waits for the page cache
 * already, sleeps until some of it is there. What is written while it is in the CPU's cache costs a
 * fifth less. True: it slept. */
bool co_host_ease(struct host *h);
/* As the two above where it can be done without blocking; -EAGAIN otherwise. Any worker, never
 * suspends: the fast lane. */
must_use int64_t host_read_now(struct host_file *f, uint64_t offset, const struct vec *to);
must_use int64_t host_write_now(struct host_file *f, uint64_t offset, const struct vec *from);
/* True if a read of all of it now is sure not to wait: it lies in the page cache. Never suspends.
 */
bool host_resident(struct host_file *f, uint64_t offset, uint64_t bytes);
must_use int co_host_fsync(struct host_file *f); /* fdatasync(); size changes included */
must_use int co_host_truncate(struct host_file *f, uint64_t size);
enum host_alloc_mode {
    HOST_ALLOCATE, /* reserve space; reads as zero where nothing was (fallocate 0, extends the file)
                    */
    HOST_PUNCH,    /* give space back; reads as zero after (PUNCH_HOLE | KEEP_SIZE; BLKDISCARD on a
                      device: then unspecified) */
    HOST_ZERO,     /* reads as zero after, keeping space (ZERO_RANGE | KEEP_SIZE; BLKZEROOUT) */
};
/* -ENOTSUP where the file system cannot. */
must_use int co_host_fallocate(struct host_file *f, enum host_alloc_mode mode, uint64_t offset,
                               uint64_t bytes);
/* Whether @offset lies in data or in a hole, and where that ends (at most the end of the file).
 * Past the end: -ENXIO. */
must_use int co_host_extent(struct host_file *f, uint64_t offset, bool *data, uint64_t *end);
/* Copies without the bytes coming up: reflink, copy_file_range. @from and @to belong to one host.
 * Bytes done (0: end of file) or -ENOTSUP/-EXDEV/-EINVAL where it cannot. Runs on the pool. */
must_use int64_t co_host_copy(struct host_file *from, uint64_t from_offset, struct host_file *to,
                              uint64_t to_offset, uint64_t bytes);
must_use int co_host_fstat(struct host_file *f, struct host_stat *out);
enum host_advice { HOST_SEQUENTIAL, HOST_WILL_NEED, HOST_DONT_NEED };
int co_host_advise(struct host_file *f, enum host_advice advice, uint64_t offset, uint64_t bytes);
/* Open file description lock on one byte range, never waits: -EAGAIN if somebody holds a
 * conflicting one. kind: 0 unlock, 1 shared, 2 exclusive. host_lock_test() asks without taking and
 * names the holder's pid where known (0: not). */
must_use int host_lock(struct host_file *f, uint64_t offset, uint64_t bytes, int kind);
must_use int host_lock_test(struct host_file *f, uint64_t offset, uint64_t bytes, int kind,
                            int *holder_pid);
/* The raw descriptor for zero-copy sends; -1 on host_sim. */
int host_fd(const struct host_file *f);

/* --- names
 * ---------------------------------------------------------------------------------------------------------
 */

must_use int co_host_stat(struct host *h, const char *path,
                          struct host_stat *out); /* follows symlinks */
must_use int co_host_rename(struct host *h, const char *from, const char *to); /* replaces @to */
must_use int co_host_unlink(struct host *h, const char *path);
must_use int co_host_sync_dir(struct host *h, const char *path); /* the directory @path itself */
must_use int co_host_realpath(struct host *h, const char *path,
                              char **out); /* gives *out; free with mem_free() */
/* Names in a directory, sorted, without . and .. ; gives *names (mem_free() each and the array). */
must_use int co_host_list(struct host *h, const char *path, char ***names, size_t *count);

/* --- streams (sockets)
 * --------------------------------------------------------------------------------------------- */

struct host_stream {
    struct host *host;
    bool listening;
    bool sealed; /* what is sent is not what travels (TLS): host_stream_send_file() is -ENOTSUP */
};

enum host_wait { HOST_READABLE = 1, HOST_WRITABLE = 2 };

/* @address: "unix:PATH", "tcp:HOST:PORT" (numeric or resolvable; [v6]; port 0 picks one), or
 * "vsock:CID:PORT" (numbers; listening on CID 4294967295: any).
 * "private:unix:PATH" listens for this user only. A listening Unix socket's path must not exist
 * (-EADDRINUSE); it is unlinked by host_stream_close().
 */
must_use int co_host_listen(struct host *h, const char *address, struct host_stream **out);
must_use int co_host_accept(struct host_stream *listener,
                            struct host_stream **out); /* -ECANCELED once shut down */
must_use int co_host_connect(struct host *h, const char *address, struct host_stream **out);
/* Never blocks: bytes (0: the peer closed), -EAGAIN. */
must_use int64_t host_stream_recv(struct host_stream *s, void *to, size_t bytes);
must_use int64_t host_stream_sendv(struct host_stream *s, const struct iovec *iov, unsigned count);
/* The file's pages go out as they are at the time the peer takes them, not as they are now: only
 * for bytes that may change in place at any time. Fewer than asked where the socket is full; 0: the
 * file ends there. What is not resident is waited for, in the call. */
must_use int64_t host_stream_send_file(struct host_stream *s, struct host_file *f, uint64_t offset,
                                       uint64_t bytes);
/* About @bytes may lie between the two sides from now on, where the system does not find that out
 * itself (Unix sockets), and as far as it lets us. */
void host_stream_widen(struct host_stream *s, uint32_t bytes);
/* Sleeps until one of @what (enum host_wait) holds or the stream was shut down; gives what holds,
 * or -ECANCELED. One reader and one writer may wait at a time. @timeout_ns 0: for ever, else
 * -ETIMEDOUT. */
must_use int co_host_stream_wait(struct host_stream *s, unsigned what, uint64_t timeout_ns);
/* Wakes all that wait on it; further calls answer -ECANCELED or end of stream. Of a listener that
 * others hold too, or of vsock: where it accepts. */
void host_stream_shutdown(struct host_stream *s);
void host_stream_close(struct host_stream *s); /* nobody may be waiting (asserted) */
/* For libraries that do their own I/O on a socket: gives a stream on which only
 * co_host_stream_wait() (which then asks the kernel each time), _shutdown and _close are used.
 * Takes @fd, also on failure; a duplicate of the library's, closed after it. -ENOTSUP on host_sim.
 */
must_use int host_stream_watch(struct host *h, int fd, struct host_stream **out);
/* Where it really listens ("tcp:127.0.0.1:10809"), or of an accepted one where its peer is:
 * borrowed, lives as long as the stream. */
const char *host_stream_address(const struct host_stream *s);
/* Who is at the other end of a Unix socket; -1 where nobody vouches for it. */
struct host_peer {
    int64_t pid, uid;
};
void host_stream_peer(struct host_stream *s, struct host_peer *out);
/* Takes over @fd, a listening socket that somebody else made, also on failure. Closing it leaves a
 * Unix socket's path alone. -ENOTSUP where there are no descriptors. */
must_use int host_listen_at(struct host *h, int fd, struct host_stream **out);
/* The descriptor of a listener, for handing it on: from now on closing leaves its path alone. -1:
 * it has none. */
int host_listener_share(struct host_stream *s);

/* --- signals
 * -------------------------------------------------------------------------------------------------------
 */

/* Sleeps until one of @signals (a 0-ended list; blocked in all threads by host_open()'s caller)
 * arrives; its number. -ECANCELED after host_signal_cancel(). */
must_use int co_host_signal(struct host *h, const int *signals);
void host_signal_cancel(struct host *h);

/* --- what a host implements
 * ---------------------------------------------------------------------------------------- */

/* The functions above are checked wrappers (host.c) around this table; same names, same meaning. */
struct host_ops {
    const char *name;
    void (*close)(struct host *h);
    int (*attach)(struct host *h,
                  struct worker *w); /* sets w->host_state; on the worker's thread */
    void (*detach)(struct worker *w);
    /* Submits what is queued, waits for completions or events until @deadline_ns (0: do not wait,
     * UINT64_MAX: for ever), and makes their coroutines ready. */
    void (*wait)(struct worker *w, uint64_t deadline_ns);
    void (*wake)(struct worker *w); /* ends wait(); any thread */
    /* Non-NULL: the host drives all workers itself on the caller's thread until *done (host_sim).
     */
    void (*drive)(struct runtime *rt, const bool *done);
    int (*co_offload)(struct host *h, int (*fn)(void *), void *arg); /* NULL: the pool */
    uint64_t (*now)(struct host *h);
    uint64_t (*wall_clock)(struct host *h);
    void (*random)(struct host *h, void *to, size_t bytes);

    int (*co_open)(struct host *h, const char *path, const char *beneath, unsigned flags,
                   struct host_file **out);
    void (*co_close)(struct host_file *f);
    int64_t (*co_read)(struct host_file *f, uint64_t offset, const struct vec *to);
    int (*co_write)(struct host_file *f, uint64_t offset, const struct vec *from);
    int64_t (*read_now)(struct host_file *f, uint64_t offset, const struct vec *to);
    int64_t (*write_now)(struct host_file *f, uint64_t offset, const struct vec *from);
    bool (*co_ease)(struct host *h); /* NULL: nothing */
    bool (*resident)(struct host_file *f, uint64_t offset, uint64_t bytes);
    int (*co_fsync)(struct host_file *f);
    int (*co_truncate)(struct host_file *f, uint64_t size);
    int (*co_fallocate)(struct host_file *f, enum host_alloc_mode mode, uint64_t offset,
                        uint64_t bytes);
    int (*co_extent)(struct host_file *f, uint64_t offset, bool *data, uint64_t *end);
    int64_t (*co_copy)(struct host_file *from, uint64_t from_offset, struct host_file *to,
                       uint64_t to_offset, uint64_t bytes);
    int (*co_fstat)(struct host_file *f, struct host_stat *out);
    int (*co_advise)(struct host_file *f, enum host_advice advice, uint64_t offset, uint64_t bytes);
    int (*lock)(struct host_file *f, uint64_t offset, uint64_t bytes, int kind);
    int (*lock_test)(struct host_file *f, uint64_t offset, uint64_t bytes, int kind,
                     int *holder_pid);
    int (*fd)(const struct host_file *f);

    int (*co_stat)(struct host *h, const char *path, struct host_stat *out);
    int (*co_rename)(struct host *h, const char *from, const char *to);
    int (*co_unlink)(struct host *h, const char *path);
    int (*co_sync_dir)(struct host *h, const char *path);
    int (*co_realpath)(struct host *h, const char *path, char **out);
    int (*co_list)(struct host *h, const char *path, char ***names, size_t *count);

    int (*co_listen)(struct host *h, const char *address, struct host_stream **out);
    int (*co_accept)(struct host_stream *listener, struct host_stream **out);
    int (*co_connect)(struct host *h, const char *address, struct host_stream **out);
    int (*stream_watch)(struct host *h, int fd, struct host_stream **out); /* NULL: cannot */
    int64_t (*stream_recv)(struct host_stream *s, void *to, size_t bytes);
    int64_t (*stream_sendv)(struct host_stream *s, const struct iovec *iov, unsigned count);
    int64_t (*stream_send_file)(struct host_stream *s, struct host_file *f, uint64_t offset,
                                uint64_t bytes);
    void (*stream_widen)(struct host_stream *s, uint32_t bytes); /* NULL: nothing */
    int (*co_stream_wait)(struct host_stream *s, unsigned what, uint64_t timeout_ns);
    void (*stream_shutdown)(struct host_stream *s);
    void (*stream_close)(struct host_stream *s);
    const char *(*stream_address)(const struct host_stream *s);
    void (*stream_peer)(struct host_stream *s, struct host_peer *out);  /* NULL: nothing known */
    int (*listen_at)(struct host *h, int fd, struct host_stream **out); /* NULL: -ENOTSUP */
    int (*listener_share)(struct host_stream *s);                       /* NULL: -1 */

    int (*co_signal)(struct host *h, const int *signals);
    void (*signal_cancel)(struct host *h);
};

#endif

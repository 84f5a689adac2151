/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os.h - what the two real hosts share: everything but how reads, writes and fsync wait.
 *
 * Each worker has an epoll instance. Its event fd, the streams and (under uring) the ring's event
 * fd are registered there once, edge-triggered, so nothing has to be read back or armed again. */
#ifndef BLOCK_HOST_OS_H
#define BLOCK_HOST_OS_H

#include <stdatomic.h>

#include "block/host.h"
#include "block/worker_priv.h"

struct os_worker;

/* What stands behind a file descriptor in the epoll instance. */
struct os_source {
    void (*on_event)(struct os_worker *ow, struct os_source *s, uint32_t events);
};

struct os_host {
    struct host pub;
    pthread_mutex_t signal_lock;
    struct os_stream *signal_stream; /* of the coroutine in co_host_signal(); under signal_lock */
    bool signal_cancelled;           /* under signal_lock */
    struct worker *signal_worker;    /* where it waits; under signal_lock */
    struct worker_msg signal_msg;
    pthread_mutex_t pipe_lock;
    struct os_pipe *pipes; /* idle ones, for copies; under pipe_lock */
    bool use_date_epoch;
    uint64_t date_epoch_ns;
};

struct os_batch; /* host_os_batch.c */
struct os_pipe;  /* host_os_copy.c */
struct os_stream_wait;

/* A stream belongs to the worker that first waits on it; it may move once (accepted here, served
 * there), while nobody waits. Events that the former owner had already fetched are ignored. */
struct os_stream {
    struct host_stream pub;
    struct os_source source;
    int fd;
    atomic_uint ready; /* enum host_wait as last seen by epoll, less what gave EAGAIN since */
    atomic_bool shut;
    bool shared;       /* a listener that others hold too: never shut down for them */
    bool foreign;      /* a library transfers: edges alone do not say what holds */
    bool watches_room; /* on the owner: its epoll reports when the stream takes more */
    char *address, *unlink_path;
    uint64_t unlink_device, unlink_inode;

    pthread_mutex_t lock;
    struct os_worker *owner, *first_owner;  /* under lock */
    struct os_stream_wait *reader, *writer; /* under lock; both on the owner */
    struct worker_msg free_msg;
};

/* What a worker knows about its own waiting; see host_os_wait.c. All zero to begin with. */
enum os_wait_phase { OS_WAIT_KEEP, OS_WAIT_TRY_SLEEPING, OS_WAIT_TRY_LOOKING };
struct os_wait_cost {
    uint64_t cpu_ns; /* of the thread */
    uint64_t ns;
};
struct os_wait {
    enum os_wait_phase phase;
    bool looks;                  /* before it sleeps, in this phase */
    unsigned left;               /* waits until the next phase */
    unsigned measured;           /* waits since @began and @served were taken; 0: not yet */
    unsigned vain;               /* looks in vain, one after the other */
    struct os_wait_cost began;   /* what the clocks said then */
    uint64_t served;             /* requests then */
    struct os_wait_cost cost[2]; /* of a request: [looks] */
};

struct os_worker {
    struct worker *worker;
    int epoll, event;
    bool woken; /* the event fd fired in the last os_wait() */
    bool pipe_signal_blocked;
    struct os_batch *batch; /* made when first used */
    struct os_wait wait;
};

struct os_file {
    struct host_file pub;
    int fd;
    atomic_bool no_read_now, no_write_now; /* the kernel has no RWF_NOWAIT for it */
    atomic_bool no_resident;               /* nor cachestat() */
    _Atomic(uint64_t) no_clone_to;         /* inode of the file that it could not be cloned to */
    atomic_int copies_by;       /* enum os_copy_way, found out by the first copy into it */
    struct pool_lane copy_lane; /* one copy writes at a time: more would only spin */
};

static inline struct os_file *os_file(const struct host_file *f)
{
    return container_of(f, struct os_file, pub);
}
static inline struct os_host *os_host(struct host *h)
{
    return container_of(h, struct os_host, pub);
}
static inline struct os_worker *os_worker(struct worker *w)
{
    return w->host_state;
}

/* --- host_os.c: the parts of a host ----------------------------------------------------------- */

void os_host_init(struct os_host *h, const struct host_ops *ops);
void os_close(struct host *h);
must_use int os_worker_init(struct os_worker *ow, struct worker *w);
void os_worker_end(struct os_worker *ow);
must_use int os_watch(struct os_worker *ow, int fd, uint32_t events, struct os_source *s);
/* Of one that is watched: from now on for @events. What holds already is reported once more. */
must_use int os_watch_for(struct os_worker *ow, int fd, uint32_t events, struct os_source *s);
void os_wake(struct worker *w);
uint64_t os_now(struct host *h);
uint64_t os_wall_clock(struct host *h);
void os_random(struct host *h, void *to, size_t bytes);

/* host_os_wait.c: takes what epoll has; @deadline_ns as in host_ops.wait. */
void os_wait(struct worker *w, uint64_t deadline_ns);
/* Whether the wait that begins now looks before it sleeps. @served: worker.served; @clocks is asked
 * where a phase ends or is measured from. */
bool os_wait_looks(struct os_wait *wait, uint64_t served, struct os_wait_cost (*clocks)(void));

/* --- host_os_file.c --------------------------------------------------------------------------- */

int co_os_open(struct host *h, const char *path, const char *beneath, unsigned flags,
               struct host_file **out);
void co_os_close(struct host_file *f);
int co_os_truncate(struct host_file *f, uint64_t size);
int co_os_fallocate(struct host_file *f, enum host_alloc_mode mode, uint64_t offset,
                    uint64_t bytes);
int co_os_extent(struct host_file *f, uint64_t offset, bool *data, uint64_t *end);
/* --- host_os_copy.c: from file to file inside the kernel */
void os_pipes_close(struct os_host *h);
int64_t co_os_copy(struct host_file *from, uint64_t from_offset, struct host_file *to,
                   uint64_t to_offset, uint64_t bytes);
int co_os_fstat(struct host_file *f, struct host_stat *out);
int co_os_advise(struct host_file *f, enum host_advice advice, uint64_t offset, uint64_t bytes);
int os_fd(const struct host_file *f);
/* host_os_stat.c: fills all but request_align and memory_align, which need @direct. */
must_use int os_stat_fd(int fd, bool direct, struct host_stat *out);
/* host_os_lock.c */
int os_lock(struct host_file *f, uint64_t offset, uint64_t bytes, int kind);
int os_lock_test(struct host_file *f, uint64_t offset, uint64_t bytes, int kind, int *holder_pid);

/* --- host_os_rw.c: reads and writes ----------------------------------------------------------- */

/* Pieces that are handed to the kernel in one call. */
#define OS_IOV 64

/* True if a read of @n bytes ended at the end of the file: O_DIRECT gives odd bytes only there, and
 * refuses to go on from them. */
static inline bool os_read_ended(const struct os_file *f, int64_t n)
{
    return n & (f->pub.stat.request_align - 1);
}

/* Tries to transfer without blocking, as much as goes; *done counts bytes. 0: all, or the end of
 * the file; -EAGAIN: the rest would block. */
int os_read_try(struct os_file *f, uint64_t offset, const struct vec *to, uint64_t *done);
int os_write_try(struct os_file *f, uint64_t offset, const struct vec *from, uint64_t *done);
int64_t os_read_now(struct host_file *f, uint64_t offset, const struct vec *to);
int64_t os_write_now(struct host_file *f, uint64_t offset, const struct vec *from);
bool os_resident(struct host_file *f, uint64_t offset, uint64_t bytes);
/* Plain blocking calls, for other threads. */
int64_t os_read_block(struct os_file *f, uint64_t offset, const struct vec *to);
int os_write_block(struct os_file *f, uint64_t offset, const struct vec *from);
/* The whole of a host's co_read and co_write by threads. */
int64_t co_os_read(struct host_file *f, uint64_t offset, const struct vec *to);
int co_os_write(struct host_file *f, uint64_t offset, const struct vec *from);
int co_os_fsync(struct host_file *f);

/* --- host_os_batch.c: small buffered writes --------------------------------------------------- */

/* Writes on this worker's helper thread, with all others of this turn of the loop. */
int co_os_batch_write(struct os_file *f, uint64_t offset, const struct vec *from);
bool co_os_ease(struct host *h);
void os_batch_end(struct os_worker *ow);

/* --- host_os_names.c -------------------------------------------------------------------------- */

int co_os_stat(struct host *h, const char *path, struct host_stat *out);
int co_os_rename(struct host *h, const char *from, const char *to);
int co_os_unlink(struct host *h, const char *path);
int co_os_sync_dir(struct host *h, const char *path);
int co_os_realpath(struct host *h, const char *path, char **out);
int co_os_list(struct host *h, const char *path, char ***names, size_t *count);

/* --- host_stream.c, host_address.c, host_signal.c
 * ---------------------------------------------------------------------------- */

/* Takes @fd, also on failure. @address is copied; NULL: none. */
must_use int os_stream_make(struct host *h, int fd, const char *address, struct os_stream **out);
/* Wakes who waits on @s, on its owner. */
void os_stream_kick(struct os_stream *s);
int co_os_listen(struct host *h, const char *address, struct host_stream **out);
int co_os_accept(struct host_stream *listener, struct host_stream **out);
int co_os_connect(struct host *h, const char *address, struct host_stream **out);
int os_stream_watch(struct host *h, int fd, struct host_stream **out);
int64_t os_stream_recv(struct host_stream *s, void *to, size_t bytes);
int64_t os_stream_sendv(struct host_stream *s, const struct iovec *iov, unsigned count);
void os_stream_widen(struct host_stream *s, uint32_t bytes);
int64_t os_stream_send_file(struct host_stream *s, struct host_file *f, uint64_t offset,
                            uint64_t bytes);
int co_os_stream_wait(struct host_stream *s, unsigned what, uint64_t timeout_ns);
void os_stream_shutdown(struct host_stream *s);
void os_stream_close(struct host_stream *s);
const char *os_stream_address(const struct host_stream *s);
void os_stream_peer(struct host_stream *s, struct host_peer *out);
int os_listen_at(struct host *h, int fd, struct host_stream **out);
int os_listener_share(struct host_stream *s);
int co_os_signal(struct host *h, const int *signals);
void os_signal_cancel(struct host *h);

/* The part of the table that both hosts have in common. */
#define OS_OPS                                                                                     \
    .close = os_close, .wake = os_wake, .now = os_now, .wall_clock = os_wall_clock,                \
    .random = os_random, .co_open = co_os_open, .co_close = co_os_close, .read_now = os_read_now,  \
    .write_now = os_write_now, .co_ease = co_os_ease, .resident = os_resident,                     \
    .co_truncate = co_os_truncate, .co_fallocate = co_os_fallocate, .co_extent = co_os_extent,     \
    .co_copy = co_os_copy, .co_fstat = co_os_fstat, .co_advise = co_os_advise, .lock = os_lock,    \
    .lock_test = os_lock_test, .fd = os_fd, .co_stat = co_os_stat, .co_rename = co_os_rename,      \
    .co_unlink = co_os_unlink, .co_sync_dir = co_os_sync_dir, .co_realpath = co_os_realpath,       \
    .co_list = co_os_list, .co_listen = co_os_listen, .co_accept = co_os_accept,                   \
    .co_connect = co_os_connect, .stream_recv = os_stream_recv, .stream_sendv = os_stream_sendv,   \
    .stream_send_file = os_stream_send_file, .stream_widen = os_stream_widen,                      \
    .co_stream_wait = co_os_stream_wait, .stream_watch = os_stream_watch,                          \
    .stream_shutdown = os_stream_shutdown, .stream_close = os_stream_close,                        \
    .stream_address = os_stream_address, .stream_peer = os_stream_peer, .listen_at = os_listen_at, \
    .listener_share = os_listener_share, .co_signal = co_os_signal,                                \
    .signal_cancel = os_signal_cancel

/* host_threads.c, host_uring.c, host_aio.c: gives a host, or -ENOTSUP. */
must_use int host_threads_open(struct host **out);
must_use int host_uring_open(struct host **out);
must_use int host_aio_open(struct host **out);

#endif

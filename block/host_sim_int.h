/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_int.h - what the files of the simulator share.
 *
 *   host_sim.c         the host: clock, events, the loop that drives all workers, faults
 *   host_sim_change.c  one change of a disk: its data, its life, what it does to contents
 *   host_sim_file.c    file operations          host_sim_names.c   directories, open, locks
 *   host_sim_stream.c  streams, signals         host_sim_crash.c   recording, crash states, copies
 *   host_sim_store.c   contents as a persistent tree of pages
 *
 * A call on a disk has two moments: it is *issued* (its data is taken, its fault decided) and,
 * after a latency from the seed, *done* (its effect shows, its coroutine wakes). Calls in flight
 * are done in the order of their latencies, which is any order. A recording numbers both moments; a
 * crash may come between any two. */
#ifndef BLOCK_HOST_SIM_INT_H
#define BLOCK_HOST_SIM_INT_H

#include "block/host_sim.h"
#include "block/host_sim_store.h"

#define SIM_SECTOR   512U
#define SIM_MAX_FILE (16 * TiB)
#define SIM_NEVER    SIZE_MAX

struct sim_contents {
    struct sim_tree tree;
    uint64_t size;
};

struct sim_lock {
    struct sim_lock *next;
    const struct sim_file *holder;
    uint64_t from, to; /* [from, to) */
    int kind;
};

struct sim_change;
struct sim_changes {
    struct sim_change *first, *last;
};

struct sim_inode {
    struct sim_inode *next; /* in order of number */
    uint64_t number;
    bool device;
    unsigned names, opens;
    struct sim_contents now;
    struct sim_contents durable; /* as of the last fsync that succeeded */
    uint64_t durable_issue;      /* when that one was issued (in calls), see co_fsync */
    uint64_t lost_at;            /* the last fsync that failed with loss, likewise */
    struct sim_contents start;   /* when the recording began */
    struct sim_changes pending;  /* done, not durable; in order of being done */
    struct sim_lock *locks;
};

struct sim_entry {
    char *name;
    struct sim_inode *inode;
};
struct sim_names {
    struct sim_entry *list; /* sorted */
    size_t count;
};
struct sim_dir {
    struct sim_dir *next;
    char *path;
    struct sim_names now, start;
    struct sim_changes pending;
};

enum sim_change_kind {
    CHANGE_WRITE,
    CHANGE_TRUNCATE,
    CHANGE_ALLOCATE,
    CHANGE_PUNCH,
    CHANGE_ZERO,
    CHANGE_LINK,   /* a name appears */
    CHANGE_RENAME, /* within one directory, replacing */
    CHANGE_UNLINK,
    CHANGE_SYNC, /* fsync of a file or a directory, once it succeeded */
};

/* One change of a disk. Owned by the pending list of its file and by the recording. */
struct sim_change {
    unsigned refs;
    enum sim_change_kind kind;
    struct sim_inode *inode; /* NULL: of a directory */
    struct sim_dir *dir;
    uint64_t offset, bytes;  /* truncate: bytes is the new size */
    struct sim_page **pages; /* of a write: the file's pages from offset / SIM_PAGE on, filled where
                                the write covers them */
    size_t page_count;
    char *name, *to; /* LINK, RENAME, UNLINK: of @target */
    struct sim_inode *target;
    uint64_t issue;               /* in calls */
    uint64_t done_call;           /* the last call that had been issued when this one was done */
    size_t issued, done, durable; /* events of the recording; SIM_NEVER: not yet */
    bool lost;                    /* by an fsync that failed; it does not come back */
    struct sim_contents snap;     /* SYNC of a file */
    struct sim_names names;       /* SYNC of a directory */
    struct sim_change *next;      /* in the pending list */
};

/* Something that will happen: a call is done, a waiter wakes. Lives on its coroutine's stack. */
struct sim_event {
    struct sim_event *next;
    struct worker *worker;
    struct co *co;
    uint64_t at, order;
    bool queued, fired;
};

struct sim_stream;

struct sim_host {
    struct host base;
    struct sim_options options;
    struct sim_rng rng;        /* order and latencies */
    struct sim_rng random_rng; /* host_random() */
    uint64_t garbage;          /* seed of what devices hold where never written */
    uint64_t now, order;
    struct sim_event *events; /* sorted by (at, order) */

    struct sim_inode *inodes, *last_inode;
    uint64_t next_inode;
    struct sim_dir *dirs;
    uint64_t used_pages;
    struct sim_stream *streams;
    unsigned next_port;
    struct sim_event *signal_waiter;
    bool signals_cancelled;
    int signal;

    uint64_t calls; /* a number for each call on a disk, in order of issue */
    uint64_t count[SIM_OP_KINDS];
    struct sim_fault fault;
    uint64_t fault_from, fired;
    bool severed;

    bool recording;
    size_t event_count;      /* of the recording */
    struct sim_change **log; /* in order of issue */
    size_t log_count, log_room;
    struct sim_view *view; /* of the cut asked for last */
};

struct sim_file {
    struct host_file base;
    struct sim_inode *inode;
};

static inline struct sim_host *sim_of(struct host *h)
{
    return container_of(h, struct sim_host, base);
}
static inline struct sim_file *sim_file_of(struct host_file *f)
{
    return container_of(f, struct sim_file, base);
}

/* host_sim.c */

/* Lets one latency pass (a coroutine; others run meanwhile). With in_order: only the clock moves.
 */
void co_sim_latency(struct sim_host *h);
/* Wakes @ev's coroutine after a latency. */
void sim_event_post(struct sim_host *h, struct sim_event *ev, uint64_t delay_ns);
void sim_event_cancel(struct sim_host *h, struct sim_event *ev);
/* Sleeps until @ev fires (somebody must post it). */
void co_sim_event_wait(struct sim_event *ev);
/* Counts a call of kind @op and gives the error that it shall fail with, or 0. */
int sim_fault_hit(struct sim_host *h, enum sim_op op);
/* The damage that a call of kind @op, for which sim_fault_hit() just answered 0, shall do. */
enum sim_damage sim_damage_hit(const struct sim_host *h, enum sim_op op);

/* host_sim_change.c */

struct sim_change *sim_change_new(struct sim_host *h, enum sim_change_kind kind,
                                  struct sim_inode *inode, struct sim_dir *dir);
void sim_change_drop(struct sim_change *c);
/* Takes the data of a write. False: no memory. */
bool sim_change_fill(struct sim_change *c, uint64_t offset, const struct vec *from);
void sim_change_issue(struct sim_host *h, struct sim_change *c);
/* The change took place: into the recording and onto the pending list of its file or directory. */
void sim_change_done(struct sim_host *h, struct sim_change *c);
/* What is pending in @list and was done when call @issue was made is durable from now on. */
void sim_changes_settle(struct sim_host *h, struct sim_changes *list, uint64_t issue);
void sim_changes_drop(struct sim_changes *list);
/* Applies @c to @to. @tear: NULL, or the source that draws which sectors are left out. */
bool sim_apply(const struct sim_host *h, const struct sim_inode *inode, struct sim_contents *to,
               const struct sim_change *c, struct sim_rng *tear);
void sim_garbage(const struct sim_host *h, const struct sim_inode *inode, uint64_t page,
                 uint8_t *to);

/* host_sim_names.c */

struct sim_dir *sim_dir_get(struct sim_host *h, const char *path, size_t length);
bool sim_names_copy(struct sim_names *to, const struct sim_names *from);
void sim_names_drop(struct sim_names *n);
/* Applies a change of names; inodes' link counts are not touched. */
bool sim_names_apply(struct sim_names *n, const struct sim_change *c);
struct sim_inode *sim_inode_new(struct sim_host *h);
struct sim_inode *sim_lookup(const struct sim_host *h, const char *path);
/* Absolute, without . .. and doubled slashes; malloc'd. */
char *sim_normalise(const char *path, const char *beneath);

extern const struct host_ops sim_ops;

/* The parts of the table. */
int sim_open(struct host *h, const char *path, const char *beneath, unsigned flags,
             struct host_file **out);
void sim_close_file(struct host_file *f);
int64_t sim_read(struct host_file *f, uint64_t offset, const struct vec *to);
int sim_write(struct host_file *f, uint64_t offset, const struct vec *from);
int64_t sim_read_now(struct host_file *f, uint64_t offset, const struct vec *to);
bool sim_resident(struct host_file *f, uint64_t offset, uint64_t bytes);
int64_t sim_write_now(struct host_file *f, uint64_t offset, const struct vec *from);
int sim_fsync(struct host_file *f);
int sim_truncate(struct host_file *f, uint64_t size);
int sim_fallocate(struct host_file *f, enum host_alloc_mode mode, uint64_t offset, uint64_t bytes);
int sim_extent(struct host_file *f, uint64_t offset, bool *data, uint64_t *end);
int64_t sim_copy(struct host_file *from, uint64_t from_offset, struct host_file *to,
                 uint64_t to_offset, uint64_t bytes);
int sim_fstat(struct host_file *f, struct host_stat *out);
int sim_advise(struct host_file *f, enum host_advice advice, uint64_t offset, uint64_t bytes);
void sim_inode_stat(const struct sim_inode *i, unsigned flags, struct host_stat *out);
int sim_lock(struct host_file *f, uint64_t offset, uint64_t bytes, int kind);
int sim_lock_test(struct host_file *f, uint64_t offset, uint64_t bytes, int kind, int *holder_pid);
int sim_fd(const struct host_file *f);
int sim_stat(struct host *h, const char *path, struct host_stat *out);
int sim_rename(struct host *h, const char *from, const char *to);
int sim_unlink(struct host *h, const char *path);
int sim_sync_dir(struct host *h, const char *path);
int sim_realpath(struct host *h, const char *path, char **out);
int sim_list(struct host *h, const char *path, char ***names, size_t *count);
int sim_listen(struct host *h, const char *address, struct host_stream **out);
int sim_accept(struct host_stream *listener, struct host_stream **out);
int sim_connect(struct host *h, const char *address, struct host_stream **out);
int64_t sim_stream_recv(struct host_stream *s, void *to, size_t bytes);
int64_t sim_stream_sendv(struct host_stream *s, const struct iovec *iov, unsigned count);
int64_t sim_stream_send_file(struct host_stream *s, struct host_file *f, uint64_t offset,
                             uint64_t bytes);
int sim_stream_wait(struct host_stream *s, unsigned what, uint64_t timeout_ns);
void sim_stream_shutdown(struct host_stream *s);
void sim_stream_close(struct host_stream *s);
const char *sim_stream_address(const struct host_stream *s);
int sim_signal(struct host *h, const int *signals);
void sim_signal_cancel(struct host *h);
int64_t sim_read_contents(const struct sim_host *h, const struct sim_inode *i, uint64_t offset,
                          const struct vec *to);
void sim_view_drop(struct sim_host *h);

#endif

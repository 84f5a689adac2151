/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim.h - the simulated host: disks and streams in memory, a virtual clock, one seed.
 *
 * The same seed gives the same run, to the byte. I/O completes in any legal order; each step (which
 * worker runs, which completion is delivered, how long it took) is drawn from the seed.
 *
 * Crash model: each file and each directory has its own flush epoch: the operations since its last
 * completed fsync, in order of issue. A crash state applies, for each file independently, any
 * subset of the *unflushed* operations' 512-byte sectors (data), with the file's metadata
 * operations (size changes, punches) applied in order as a prefix among themselves; an extending
 * write brings its size with it; names (create, rename, unlink) are operations of their directory's
 * epoch, in order. Bytes never written read zero on regular files and garbage (from the seed) on
 * block devices. An operation still in flight at the crash may be applied, wholly or torn at 512 B,
 * or not at all. */
#ifndef BLOCK_HOST_SIM_H
#define BLOCK_HOST_SIM_H

#include <stdio.h>

#include "block/host.h"

struct sim_options {
    uint64_t seed;
    bool in_order;       /* complete I/O in order of issue, at once: fast, for sweeps that need no
                            reordering at run time */
    uint64_t disk_bytes; /* space of the simulated disk; 0: no limit; -ENOSPC beyond */
};

must_use int host_sim_open(const struct sim_options *o, struct host **out);

/* What the sweeps count and break: each kind of call has an index of its own since the host was
 * opened. */
enum sim_op {
    SIM_READ, /* reads from devices and files, resolved ones included */
    SIM_WRITE,
    SIM_FSYNC,
    SIM_TRUNCATE,
    SIM_FALLOCATE,
    SIM_OPEN,
    SIM_NAMES,
    SIM_COPY,
    SIM_OP_KINDS,
};
/* Silent faults: the call reports success. */
enum sim_damage {
    SIM_NO_DAMAGE,
    SIM_FLIP,      /* SIM_READ, SIM_WRITE: one bit of the bytes, drawn from the seed, is turned */
    SIM_LOST,      /* SIM_WRITE: nothing reaches the disk */
    SIM_MISPLACED, /* SIM_WRITE: lands 4 KiB further on */
};
struct sim_fault {
    enum sim_op op;
    enum sim_damage damage; /* with rc 0 */
    uint64_t nth;           /* 1: the next call of that kind; 0: off */
    uint64_t times;         /* how many calls fail from there; UINT64_MAX: all that follow */
    int rc;                 /* -EIO, -ENOSPC, ... */
    bool lose_unsynced;   /* SIM_FSYNC: what was not yet durable is dropped from the page cache, as
                             Linux may */
    uint32_t short_bytes; /* a write that fails wrote this many bytes first */
};
void host_sim_fault(struct host *h,
                    const struct sim_fault *f); /* replaces the previous; NULL: none */
/* While @on every call on a disk fails with -EIO and does nothing (those in flight are done):
 * closing everything then leaves what a killed process leaves. */
void host_sim_sever(struct host *h, bool on);
uint64_t host_sim_count(const struct host *h, enum sim_op op);
/* How many times a fault has fired since it was set. */
uint64_t host_sim_fired(const struct host *h);

/* Lets the signal arrive that a co_host_signal() waits for. */
void host_sim_signal(struct host *h, int number);

/* Makes a block device of @bytes (garbage from the seed) at @path. */
must_use int host_sim_add_device(struct host *h, const char *path, uint64_t bytes);

/* --- crash states
 * ------------------------------------------------------------------------------------------------------
 */

/* A recording of everything that happens to the disks from now on. What they hold now counts as
 * durable. */
void host_sim_record(struct host *h);
/* Cut points so far are 0 .. the value given: events are numbered, a write, size change, punch or
 * rename has two (issued, done; one with in_order), an fsync that succeeds likewise, and a crash at
 * cut n comes after the first n of them. Callers mark with it what belongs to them (a flush was
 * acknowledged: from this cut on). */
size_t host_sim_cut(const struct host *h);
/* Pending (issued or completed but not durable) operations at cut @cut: what a crash there may or
 * may not have applied. */
size_t host_sim_pending(const struct host *h, size_t cut);
/* What pending operation @index at @cut is, for people. */
void host_sim_pending_text(const struct host *h, size_t cut, size_t index, char *to, size_t room);
/* The whole recording, a line per change with the events when it was issued, done and durable. */
void host_sim_print(const struct host *h, FILE *to);
/* A new simulated host whose disks hold a state that a crash at @cut could leave. @apply has one
 * byte per pending operation (in order of being done, then those in flight): 0 dropped, 1 applied,
 * 2 torn (some of its 512-byte sectors, drawn from @seed). Metadata operations of a file that
 * follow a dropped one are dropped too. The new host has no faults, no recording, and @seed. */
must_use int host_sim_crash(const struct host *h, size_t cut, const uint8_t *apply, uint64_t seed,
                            struct host **out);
/* A hash of all files' names and contents of @h: to tell distinct states apart. */
uint64_t host_sim_hash(const struct host *h);
/* The whole state as it stands, including what is not durable: a clean copy (for a copy while
 * paused, or a baseline). */
must_use int host_sim_clone(const struct host *h, uint64_t seed, struct host **out);
/* Copies one simulated file out to a real path (for foreign checkers). Outside of any coroutine. */
must_use int host_sim_export(const struct host *h, const char *sim_path, const char *real_path);
/* Puts a file of the given bytes in place, durable. Outside of any coroutine. */
must_use int host_sim_import(struct host *h, const char *sim_path, const void *bytes, size_t size);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_rw.c - reading and writing files.
 *
 * A read that the page cache can answer costs its system call and little more: preadv2(RWF_NOWAIT),
 * or a plain call on file systems that never stall. What would block goes to a thread (or the ring,
 * host_uring.c). Calls go by syscall(): the libc wrappers are cancellation points, and pay for it.
 */
#include <sys/syscall.h>
#include <unistd.h>

#include "block/host_os.h"

#ifndef SYS_cachestat
#define SYS_cachestat 451 /* one number on all machines; Linux 6.5 */
#endif

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

/* Writes of this size and more are worth a thread each. */
#define LARGE_WRITE (128 * KiB)
#define WRITE_STEP  (256 * KiB)

/* --- one system call -------------------------------------------------------------------------- */

static inline ssize_t transfer(long call, int fd, const struct iovec *iov, unsigned count,
                               uint64_t offset, int flags)
{
    ssize_t n;

    do
        n = syscall(call, fd, iov, count, offset, 0L, flags);
    while (unlikely(n < 0 && errno == EINTR));
    return n < 0 ? -errno : n;
}

/* Fills @iov from the front of @v; nearly always that is one piece. */
static inline unsigned pieces(const struct vec *v, struct iovec iov[OS_IOV])
{
    unsigned count = 1;

    if (likely(v->iov->iov_len - v->skip >= v->bytes)) {
        iov[0].iov_base = (char *)v->iov->iov_base + v->skip;
        iov[0].iov_len = v->bytes;
    } else {
        vec_export(v, iov, OS_IOV, &count);
    }
    return count;
}

/* Calls until all is transferred or a call gives 0 or an error; that is the result. */
static inline int64_t transfer_all(long call, struct os_file *f, uint64_t offset,
                                   const struct vec *v, int flags, uint64_t *done)
{
    struct iovec iov[OS_IOV];
    struct vec rest = *v;

    for (;;) {
        unsigned count = pieces(&rest, iov);
        int64_t n = transfer(call, f->fd, iov, count, offset + *done, flags);
        if (n <= 0)
            return n;
        *done += (uint64_t)n;
        if (likely(*done == v->bytes) || os_read_ended(f, n))
            return n;
        rest = vec_slice(v, *done, v->bytes - *done);
    }
}

/* --- without blocking ------------------------------------------------------------------------- */

/* Notes that the kernel cannot say "would block" for this file. */
static int refused(int64_t rc, atomic_bool *never)
{
    if (rc != -EOPNOTSUPP && rc != -ENOSYS)
        return (int)rc;
    atomic_store(never, true);
    return -EAGAIN;
}

int os_read_try(struct os_file *f, uint64_t offset, const struct vec *to, uint64_t *done)
{
    if (unlikely(to->bytes == 0))
        return 0;
    if (unlikely(atomic_load(&f->no_read_now)))
        return -EAGAIN;
    int flags = f->pub.stat.inline_io ? 0 : RWF_NOWAIT;
    int64_t n = transfer_all(SYS_preadv2, f, offset, to, flags, done);
    return likely(n >= 0) ? 0 : refused(n, &f->no_read_now);
}

int os_write_try(struct os_file *f, uint64_t offset, const struct vec *from, uint64_t *done)
{
    if (unlikely(from->bytes == 0))
        return 0;
    if (atomic_load(&f->no_write_now))
        return -EAGAIN;
    int flags = f->pub.stat.inline_io ? 0 : RWF_NOWAIT;
    int64_t n = transfer_all(SYS_pwritev2, f, offset, from, flags, done);
    if (unlikely(n == 0))
        return -EIO;
    return likely(n > 0) ? 0 : refused(n, &f->no_write_now);
}

int64_t os_read_now(struct host_file *pub, uint64_t offset, const struct vec *to)
{
    uint64_t done = 0;
    int rc = os_read_try(os_file(pub), offset, to, &done);

    return rc < 0 ? rc : (int64_t)done;
}

int64_t os_write_now(struct host_file *pub, uint64_t offset, const struct vec *from)
{
    uint64_t done = 0;
    int rc = os_write_try(os_file(pub), offset, from, &done);

    return rc < 0 ? rc : (int64_t)done;
}

/* What the kernel's cachestat() takes and gives. */
struct cache_range {
    uint64_t offset, bytes;
};
struct cache_counts {
    uint64_t cached, dirty, writeback, evicted, recently_evicted; /* pages */
};

bool os_resident(struct host_file *pub, uint64_t offset, uint64_t bytes)
{
    struct os_file *f = os_file(pub);
    uint64_t page = (uint64_t)getpagesize();
    struct cache_range range = {align_down(offset, page), 0};
    struct cache_counts counts;

    range.bytes = offset + bytes - range.offset;
    if (bytes == 0 || atomic_load(&f->no_resident))
        return bytes == 0;
    if (syscall(SYS_cachestat, f->fd, &range, &counts, 0) < 0) {
        atomic_store(&f->no_resident, true);
        return false;
    }
    return counts.cached >= div_up(range.bytes, page);
}

/* --- on other threads ------------------------------------------------------------------------- */

int64_t os_read_block(struct os_file *f, uint64_t offset, const struct vec *to)
{
    uint64_t done = 0;

    if (to->bytes == 0)
        return 0;
    int64_t n = transfer_all(SYS_preadv2, f, offset, to, 0, &done);
    return n < 0 ? n : (int64_t)done;
}

int os_write_block(struct os_file *f, uint64_t offset, const struct vec *from)
{
    uint64_t done = 0;

    if (from->bytes == 0)
        return 0;
    int64_t n = transfer_all(SYS_pwritev2, f, offset, from, 0, &done);
    return n < 0 ? (int)n : n == 0 ? -EIO : 0;
}

struct rw_job {
    struct os_file *f;
    uint64_t offset;
    const struct vec *v;
    int64_t rc;
};

static int read_job(void *arg)
{
    struct rw_job *job = arg;

    job->rc = os_read_block(job->f, job->offset, job->v);
    return 0;
}

/* In steps: one call of 2 MiB makes the kernel take a folio of that size, which in a virtual
 * machine that gives free memory back to its host is first-touched memory (measured: 2.0 s instead
 * of 0.3 for 700 MiB). */
static int write_job(void *arg)
{
    struct rw_job *job = arg;
    bool direct = job->f->pub.flags & HOST_DIRECT;
    uint64_t step = direct ? job->v->bytes : WRITE_STEP;
    int rc = 0;

    for (uint64_t at = 0; at < job->v->bytes && rc == 0; at += step) {
        struct vec part = vec_slice(job->v, at, MIN(step, job->v->bytes - at));
        rc = os_write_block(job->f, job->offset + at, &part);
    }
    return rc;
}

int64_t co_os_read(struct host_file *pub, uint64_t offset, const struct vec *to)
{
    uint64_t done = 0;
    int rc = os_read_try(os_file(pub), offset, to, &done);

    if (likely(rc == 0))
        return (int64_t)done;
    if (rc != -EAGAIN)
        return rc;
    struct vec rest = vec_slice(to, done, to->bytes - done);
    struct rw_job job = {.f = os_file(pub), .offset = offset + done, .v = &rest};
    co_blocking(read_job, &job);
    return job.rc < 0 ? job.rc : (int64_t)done + job.rc;
}

int co_os_write(struct host_file *pub, uint64_t offset, const struct vec *from)
{
    struct os_file *f = os_file(pub);
    uint64_t done = 0;
    int rc = os_write_try(f, offset, from, &done);

    if (rc != -EAGAIN)
        return rc;
    struct vec rest = vec_slice(from, done, from->bytes - done);
    struct rw_job job = {.f = f, .offset = offset + done, .v = &rest};
    if (rest.bytes >= LARGE_WRITE || (pub->flags & HOST_DIRECT))
        return co_blocking(write_job, &job);
    return co_os_batch_write(f, job.offset, &rest);
}

static int fsync_job(void *arg)
{
    struct os_file *f = arg;

    return fdatasync(f->fd) < 0 ? -errno : 0;
}

int co_os_fsync(struct host_file *pub)
{
    struct os_file *f = os_file(pub);

    return pub->stat.inline_io ? fsync_job(f) : co_blocking(fsync_job, f);
}

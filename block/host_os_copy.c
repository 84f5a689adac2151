/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_copy.c - copying from file to file without the bytes coming up.
 *
 * In this order: a reflink, where the file system shares blocks; copy_file_range() where the bytes
 * lie on another machine, which then copies them itself; else splice() through a pipe of 1 MiB: the
 * source's cached pages go into the pipe as they are, and come out of it as one large write.
 * copy_file_range() between local files does the same through a pipe of 64 KiB, which costs half as
 * much again. On ext4 the target's space is reserved first, which saves another fifth
 * (docs/tools.md has the figures).
 *
 * Splicing is one copy at a time for each target, one behind the other on one thread: the file
 * system locks the inode, and a second writer would spend its processor waiting. What is not in the
 * page cache is asked for before, so that disks read many pieces side by side. */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "block/host_os.h"

#define PIPE_BYTES (1 * MiB)

enum os_copy_way {
    COPY_UNKNOWN,
    COPY_RANGE,
    COPY_SPLICE,
    COPY_RESERVED, /* splice into space that was reserved: ext4 then need not count every block */
};

struct os_pipe {
    struct os_pipe *next;
    int read, write;
    int64_t bytes; /* that it takes */
};

struct copy_job {
    struct os_file *from, *to;
    uint64_t from_offset, to_offset, bytes;
    int64_t rc;
};

/* --- pipes ------------------------------------------------------------------------------------ */

static void pipe_close(struct os_pipe *p)
{
    close(p->read);
    close(p->write);
    mem_free(p);
}

static struct os_pipe *pipe_open(void)
{
    struct os_pipe *p = mem_zalloc(sizeof(*p));
    int fds[2];

    if (!p)
        return NULL;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        mem_free(p);
        return NULL;
    }
    p->read = fds[0];
    p->write = fds[1];
    p->bytes = fcntl(p->write, F_SETPIPE_SZ, (int)PIPE_BYTES);
    if (p->bytes <= 0) /* a limit of this user */
        p->bytes = fcntl(p->write, F_GETPIPE_SZ);
    return p;
}

static struct os_pipe *pipe_get(struct os_host *h)
{
    pthread_mutex_lock(&h->pipe_lock);
    struct os_pipe *p = h->pipes;
    if (p)
        h->pipes = p->next;
    pthread_mutex_unlock(&h->pipe_lock);
    return p ? p : pipe_open();
}

static void pipe_put(struct os_host *h, struct os_pipe *p)
{
    pthread_mutex_lock(&h->pipe_lock);
    p->next = h->pipes;
    h->pipes = p;
    pthread_mutex_unlock(&h->pipe_lock);
}

void os_pipes_close(struct os_host *h)
{
    while (h->pipes) {
        struct os_pipe *p = h->pipes;
        h->pipes = p->next;
        pipe_close(p);
    }
}

/* --- the three ways --------------------------------------------------------------------------- */

/* Reflinks need whole blocks; a pair of files that could not be cloned once is not tried again. */
static bool may_clone(struct copy_job *job)
{
    return (job->from_offset | job->to_offset | job->bytes) % 4096 == 0 && job->bytes > 0 &&
           atomic_load(&job->from->no_clone_to) != job->to->pub.stat.inode;
}

static bool copy_clone(struct copy_job *job)
{
    struct file_clone_range range = {.src_fd = job->from->fd,
                                     .src_offset = job->from_offset,
                                     .src_length = job->bytes,
                                     .dest_offset = job->to_offset};

    if (!may_clone(job))
        return false;
    if (ioctl(job->to->fd, FICLONERANGE, &range) == 0)
        return true;
    atomic_store(&job->from->no_clone_to, job->to->pub.stat.inode);
    return false;
}

/* Bytes done, 0 at the source's end, or -errno of a copy that did nothing. */
static int64_t copy_range(struct copy_job *job)
{
    uint64_t done = 0;

    while (done < job->bytes) {
        off_t in = (off_t)(job->from_offset + done), out = (off_t)(job->to_offset + done);
        ssize_t n = copy_file_range(job->from->fd, &in, job->to->fd, &out, job->bytes - done, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && done == 0)
            return -errno;
        if (n <= 0)
            break;
        done += (uint64_t)n;
    }
    return (int64_t)done;
}

/* Empties the pipe into the target. @left: what is in it; 0 when it returns 0. */
static int drain(struct copy_job *job, struct os_pipe *p, uint64_t at, size_t *left)
{
    loff_t out = (loff_t)at;
    int rc = 0;

    while (*left > 0 && rc == 0) {
        ssize_t n = splice(p->read, NULL, job->to->fd, &out, *left, SPLICE_F_MOVE);
        if (n > 0)
            *left -= (size_t)n;
        else if (n == 0 || errno != EINTR)
            rc = n == 0 ? -EIO : -errno;
    }
    return rc;
}

/* If this fails, writing will say why. */
static void reserve(struct copy_job *job)
{
    if (atomic_load(&job->to->copies_by) == COPY_RESERVED)
        (void)!fallocate(job->to->fd, FALLOC_FL_KEEP_SIZE, (off_t)job->to_offset,
                         (off_t)job->bytes);
}

static int64_t copy_splice(struct copy_job *job)
{
    struct os_host *h = os_host(job->to->pub.host);
    struct os_pipe *p = pipe_get(h);
    uint64_t done = 0;
    size_t left = 0;
    int rc = 0;

    if (!p)
        return -ENOTSUP;
    reserve(job);
    while (done < job->bytes && rc == 0) {
        loff_t in = (loff_t)(job->from_offset + done);
        uint64_t want = MIN(job->bytes - done, (uint64_t)p->bytes);
        ssize_t n = splice(job->from->fd, &in, p->write, NULL, want, 0);
        if (n < 0 && errno == EINTR)
            continue;
        rc = n < 0 ? -errno : 0;
        if (n <= 0)
            break;
        left = (size_t)n;
        rc = drain(job, p, job->to_offset + done, &left);
        done += (uint64_t)n - left;
    }
    if (left > 0) /* what is stuck in it belongs nowhere */
        pipe_close(p);
    else
        pipe_put(h, p);
    return done || rc == 0 ? (int64_t)done : rc;
}

/* Files on other machines are copied there. */
static enum os_copy_way way_into(struct os_file *to)
{
    static const unsigned local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,  BTRFS_SUPER_MAGIC,
                                     TMPFS_MAGIC,      F2FS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC};
    enum os_copy_way way = (enum os_copy_way)atomic_load(&to->copies_by);
    struct statfs fs;

    if (way != COPY_UNKNOWN)
        return way;
    way = to->pub.stat.type == HOST_FILE_BLOCK ? COPY_SPLICE : COPY_RANGE;
    for (size_t i = 0; i < ARRAY_LEN(local) && fstatfs(to->fd, &fs) == 0; i++)
        if ((unsigned)fs.f_type == local[i])
            way = local[i] == EXT4_SUPER_MAGIC ? COPY_RESERVED : COPY_SPLICE;
    atomic_store(&to->copies_by, way);
    return way;
}

/* Reflink, or on the other machine. */
static int whole_job(void *arg)
{
    struct copy_job *job = arg;

    if (copy_clone(job))
        job->rc = (int64_t)job->bytes;
    else
        job->rc = way_into(job->to) == COPY_RANGE ? copy_range(job) : -ENOTSUP;
    return 0;
}

static int splice_job(void *arg)
{
    struct copy_job *job = arg;

    job->rc = copy_splice(job);
    return 0;
}

static int fetch_job(void *arg)
{
    struct copy_job *job = arg;

    posix_fadvise(job->from->fd, (off_t)job->from_offset, (off_t)job->bytes, POSIX_FADV_WILLNEED);
    return 0;
}

/* Only the end is looked at: what was read ahead comes in order. True as well where the cache is
 * not used or cannot be asked. */
static bool in_cache(struct copy_job *job)
{
    uint8_t last;
    struct vec v = VEC_BUF(&last, 1);

    return atomic_load(&job->from->no_read_now) ||
           host_read_now(&job->from->pub, job->from_offset + job->bytes - 1, &v) != -EAGAIN;
}

static bool says_no(int64_t rc)
{
    return rc == -ENOTSUP || rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -EXDEV || rc == -EINVAL;
}

int64_t co_os_copy(struct host_file *from, uint64_t from_offset, struct host_file *to,
                   uint64_t to_offset, uint64_t bytes)
{
    struct copy_job job = {.from = os_file(from),
                           .to = os_file(to),
                           .from_offset = from_offset,
                           .to_offset = to_offset,
                           .bytes = bytes};
    int way = atomic_load(&job.to->copies_by);

    job.rc = -ENOTSUP;
    if (way == COPY_UNKNOWN || way == COPY_RANGE || may_clone(&job))
        co_blocking(whole_job, &job);
    if (!says_no(job.rc))
        return job.rc;
    if (!in_cache(&job))
        co_blocking(fetch_job, &job);
    co_blocking_in_turn(&job.to->copy_lane, splice_job, &job);
    return job.rc == -EOPNOTSUPP || job.rc == -ENOSYS ? -ENOTSUP : job.rc;
}

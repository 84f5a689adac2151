/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_file.c - opening files, and what is done to them besides reading and writing.
 *
 * An open that must not hang or act (HOST_REGULAR_OR_BLOCK) looks first through O_PATH, which
 * touches nothing, then opens the very same file through /proc/self/fd; without /proc it opens the
 * name again, non-blocking, and compares. All that may block runs on the pool. */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/host_os.h"

/* --- opening ---------------------------------------------------------------------------------- */

struct open_job {
    const char *path;
    const char *beneath;
    unsigned flags;
    int dir;               /* of beneath; -1 */
    char *relative;        /* path as seen from dir, where it was absolute */
    struct host_stat stat; /* out */
    int fd;                /* out */
};

static int open_beneath(const struct open_job *job, const char *path, int oflags)
{
    struct open_how how = {.flags = (uint64_t)oflags,
                           .mode = oflags & O_CREAT ? 0666 : 0,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;

    do
        fd = syscall(SYS_openat2, job->dir, path, &how, sizeof(how));
    while (fd < 0 && (errno == EAGAIN || errno == EINTR)); /* a rename raced with the walk */
    if (fd >= 0 || errno != ENOSYS)
        return fd < 0 ? -errno : (int)fd;
    /* A kernel before 5.6: only what cannot lead anywhere else. */
    if (strchr(path, '/') || strcmp(path, "..") == 0)
        return -EXDEV;
    fd = openat(job->dir, path, oflags | O_NOFOLLOW, 0666);
    return fd >= 0 ? (int)fd : errno == ELOOP ? -EXDEV : -errno;
}

static int open_once(const struct open_job *job, int oflags)
{
    int fd;

    oflags |= O_CLOEXEC;
    if (!(oflags & O_PATH)) /* openat2() refuses flags that mean nothing */
        oflags |= O_NOCTTY;
    if (job->beneath)
        return open_beneath(job, job->relative ? job->relative : job->path, oflags);
    do
        fd = open(job->path, oflags, 0666);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static int access_flags(unsigned flags)
{
    int oflags = !(flags & HOST_WRITE) ? O_RDONLY : flags & HOST_READ ? O_RDWR : O_WRONLY;

    return oflags | (flags & HOST_DIRECT ? O_DIRECT : 0);
}

static bool is_file_or_disk(const struct stat *st)
{
    return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

/* Opens by name what @seen (from fstat) was found under it, without waiting for anybody. */
static int open_again_by_name(const struct open_job *job, const struct stat *seen)
{
    struct stat now;
    int fd = open_once(job, access_flags(job->flags) | O_NONBLOCK);

    if (fd < 0)
        return fd;
    if (fstat(fd, &now) < 0 || now.st_dev != seen->st_dev || now.st_ino != seen->st_ino) {
        close(fd);
        return -EAGAIN;
    }
    int now_flags = fcntl(fd, F_GETFL);
    if (now_flags >= 0)
        fcntl(fd, F_SETFL, now_flags & ~O_NONBLOCK);
    return fd;
}

static int open_looked_at(const struct open_job *job, int look)
{
    struct stat st;
    char link[64];

    if (fstat(look, &st) < 0)
        return -errno;
    if (!is_file_or_disk(&st))
        return -EINVAL;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", look);
    int fd = open(link, access_flags(job->flags) | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0)
        return fd;
    int rc = -errno;
    if (rc == -ENOENT && access("/proc/self/fd", F_OK) < 0)
        return open_again_by_name(job, &st);
    return rc;
}

/* A new file, or, when somebody else was quicker (or a dangling link is in the way), theirs. */
static int open_created(const struct open_job *job)
{
    struct stat st;
    int fd = open_once(job, access_flags(job->flags) | O_CREAT | O_EXCL);

    if (fd != -EEXIST || (job->flags & HOST_EXCLUSIVE))
        return fd;
    fd = open_once(job, access_flags(job->flags) | O_CREAT | O_NONBLOCK);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0 || !is_file_or_disk(&st)) {
        close(fd);
        return -EINVAL;
    }
    return fd;
}

static int open_carefully(const struct open_job *job)
{
    if (job->flags & HOST_EXCLUSIVE)
        return open_created(job);
    int look = open_once(job, O_PATH);
    if (look == -ENOENT && (job->flags & HOST_CREATE))
        return open_created(job);
    if (look < 0)
        return look;
    int fd = open_looked_at(job, look);
    close(look);
    return fd;
}

static int open_plainly(const struct open_job *job)
{
    int oflags = access_flags(job->flags);

    if (job->flags & HOST_CREATE)
        oflags |= O_CREAT;
    if (job->flags & HOST_EXCLUSIVE)
        oflags |= O_EXCL;
    return open_once(job, oflags);
}

static int open_temporary(const struct open_job *job)
{
    int fd = open(job->path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd < 0 ? -errno : fd;
    char name[4096];
    if (snprintf(name, sizeof(name), "%s/.lamina-XXXXXX", job->path) >= (int)sizeof(name))
        return -ENAMETOOLONG;
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(name);
    return fd;
}

/* Turns an absolute path into one relative to the real path of the directory it must be below. */
static int find_relative(struct open_job *job)
{
    char *base = realpath(job->beneath, NULL), *whole = NULL;
    int rc = base ? -EXDEV : -errno;

    for (int attempt = 0; rc == -EXDEV && attempt < 2; attempt++) {
        size_t len = strcmp(base, "/") == 0 ? 0 : strlen(base);
        const char *path = attempt ? whole : job->path;
        if (path && strncmp(path, base, len) == 0 && path[len] == '/') {
            path += len + strspn(path + len, "/");
            job->relative = strdup(*path ? path : ".");
            rc = job->relative ? 0 : -ENOMEM;
        } else if (!attempt) {
            whole = realpath(job->path, NULL); /* perhaps through links */
        }
    }
    free(whole);
    free(base);
    return rc;
}

static int open_dir_beneath(struct open_job *job)
{
    job->dir = open(job->beneath, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (job->dir < 0)
        return -errno;
    return job->path[0] == '/' ? find_relative(job) : 0;
}

static int open_finish(struct open_job *job)
{
    int rc = os_stat_fd(job->fd, job->flags & HOST_DIRECT, &job->stat);

    if (rc == 0 && (job->flags & HOST_TRUNCATE) && job->stat.type == HOST_FILE_REGULAR) {
        rc = ftruncate(job->fd, 0) < 0 ? -errno : 0;
        job->stat.size = 0;
    }
    if (rc < 0)
        close(job->fd);
    return rc;
}

static int open_job(void *arg)
{
    struct open_job *job = arg;
    int rc = job->beneath ? open_dir_beneath(job) : 0;

    if (rc == 0) {
        if (job->flags & HOST_TEMPORARY)
            job->fd = open_temporary(job);
        else if (job->flags & HOST_REGULAR_OR_BLOCK)
            job->fd = open_carefully(job);
        else
            job->fd = open_plainly(job);
        rc = job->fd < 0 ? job->fd : open_finish(job);
    }
    if (job->dir >= 0)
        close(job->dir);
    free(job->relative);
    return rc;
}

int co_os_open(struct host *h, const char *path, const char *beneath, unsigned flags,
               struct host_file **out)
{
    struct open_job job = {.path = path, .beneath = beneath, .flags = flags, .dir = -1};
    struct os_file *f = mem_zalloc(sizeof(*f));

    if (!f)
        return -ENOMEM;
    int rc = co_blocking(open_job, &job);
    if (rc < 0) {
        mem_free(f);
        return rc;
    }
    f->pub = (struct host_file){.host = h, .stat = job.stat, .flags = flags};
    f->fd = job.fd;
    /* O_DIRECT never hits a cache; a call that waits for the disk is no use on the loop. */
    f->no_read_now = f->no_write_now = flags & HOST_DIRECT && !job.stat.inline_io;
    *out = &f->pub;
    return 0;
}

static int close_job(void *arg)
{
    struct os_file *f = arg;

    close(f->fd);
    return 0;
}

void co_os_close(struct host_file *pub)
{
    struct os_file *f = os_file(pub);

    if (pub->stat.inline_io)
        close_job(f);
    else
        co_blocking(close_job, f);
    mem_free(f);
}

/* --- size and space --------------------------------------------------------------------------- */

struct change_job {
    struct os_file *f;
    int mode;
    uint64_t offset, bytes;
};

static int truncate_job(void *arg)
{
    struct change_job *job = arg;
    int rc;

    do
        rc = ftruncate(job->f->fd, (off_t)job->bytes) < 0 ? -errno : 0;
    while (rc == -EINTR);
    return rc;
}

int co_os_truncate(struct host_file *f, uint64_t size)
{
    struct change_job job = {.f = os_file(f), .bytes = size};

    return co_blocking(truncate_job, &job);
}

static int discard_device(const struct change_job *job)
{
    uint64_t range[2] = {job->offset, job->bytes};

    return ioctl(job->f->fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

static int fallocate_job(void *arg)
{
    static const int modes[] = {
        [HOST_ALLOCATE] = 0,
        [HOST_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        [HOST_ZERO] = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
    };
    struct change_job *job = arg;
    int rc;

    if (job->mode == HOST_PUNCH && job->f->pub.stat.type == HOST_FILE_BLOCK) {
        rc = discard_device(job);
    } else {
        do
            rc = fallocate(job->f->fd, modes[job->mode], (off_t)job->offset, (off_t)job->bytes) < 0
                     ? -errno
                     : 0;
        while (rc == -EINTR);
    }
    return rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -ENODEV ? -ENOTSUP : rc;
}

int co_os_fallocate(struct host_file *f, enum host_alloc_mode mode, uint64_t offset, uint64_t bytes)
{
    struct change_job job = {.f = os_file(f), .mode = (int)mode, .offset = offset, .bytes = bytes};

    return co_blocking(fallocate_job, &job);
}

/* --- extents ---------------------------------------------------------------------------------- */

/* lseek() moves the descriptor's offset, which nothing here uses. */
static int64_t seek(int fd, uint64_t offset, int whence)
{
    off_t at = lseek(fd, (off_t)offset, whence);

    return at < 0 ? -errno : at;
}

static int all_data(struct os_file *f, uint64_t offset, bool *data, uint64_t *end)
{
    int64_t size = seek(f->fd, 0, SEEK_END);

    if (size < 0)
        return (int)size;
    if (offset >= (uint64_t)size)
        return -ENXIO;
    *data = true;
    *end = (uint64_t)size;
    return 0;
}

int co_os_extent(struct host_file *pub, uint64_t offset, bool *data, uint64_t *end)
{
    struct os_file *f = os_file(pub);

    if (pub->stat.type != HOST_FILE_REGULAR)
        return all_data(f, offset, data, end);
    int64_t at = seek(f->fd, offset, SEEK_DATA);
    if (at == -ENXIO) { /* a hole up to the end, or beyond it */
        int rc = all_data(f, offset, data, end);
        *data = false;
        return rc;
    }
    if (at < 0)
        return all_data(f, offset, data, end); /* the file system does not say */
    *data = (uint64_t)at == offset;
    if (!*data) {
        *end = (uint64_t)at;
        return 0;
    }
    at = seek(f->fd, offset, SEEK_HOLE);
    if (at < 0 || (uint64_t)at <= offset) /* somebody punched in between */
        return all_data(f, offset, data, end);
    *end = (uint64_t)at;
    return 0;
}

/* --- small things ----------------------------------------------------------------------------- */

int co_os_fstat(struct host_file *pub, struct host_stat *out)
{
    struct stat st;

    *out = pub->stat;
    if (pub->stat.type == HOST_FILE_BLOCK)
        return os_stat_fd(os_file(pub)->fd, pub->flags & HOST_DIRECT, out);
    if (fstat(os_file(pub)->fd, &st) < 0)
        return -errno;
    out->size = (uint64_t)st.st_size;
    out->allocated = (uint64_t)st.st_blocks * 512;
    out->links = (uint32_t)st.st_nlink;
    return 0;
}

struct advise_job {
    int fd, advice;
    uint64_t offset, bytes;
};

static int advise_job(void *arg)
{
    struct advise_job *job = arg;

    return -posix_fadvise(job->fd, (off_t)job->offset, (off_t)job->bytes, job->advice);
}

int co_os_advise(struct host_file *f, enum host_advice advice, uint64_t offset, uint64_t bytes)
{
    static const int advices[] = {
        [HOST_SEQUENTIAL] = POSIX_FADV_SEQUENTIAL,
        [HOST_WILL_NEED] = POSIX_FADV_WILLNEED,
        [HOST_DONT_NEED] = POSIX_FADV_DONTNEED,
    };
    struct advise_job job = {
        .fd = os_file(f)->fd, .advice = advices[advice], .offset = offset, .bytes = bytes};

    /* The first only sets a flag; the others walk the cache or start reading. */
    return advice == HOST_SEQUENTIAL ? advise_job(&job) : co_blocking(advise_job, &job);
}

int os_fd(const struct host_file *f)
{
    return os_file(f)->fd;
}

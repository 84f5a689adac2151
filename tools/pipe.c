/* SPDX-License-Identifier: BSD-3-Clause */
/* pipe.c - reading standard input and writing standard output. Both may sleep for long, so they are
 * waited for off the workers, in steps after which a signal's wish to end is seen. */
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/inorder.h"
#include "tools/pipe.h"

#define STEP    (1 * MiB)
#define HOLE    (64 * KiB) /* zeroes of this many bytes become a hole */
#define POLL_MS 200

/* True once @fd is ready for @what (a poll() event), or broken: then the call itself says how. */
static bool wait_for(const struct tool *t, int fd, short what)
{
    struct pollfd p = {.fd = fd, .events = what};
    while (!__atomic_load_n(&t->ending, __ATOMIC_RELAXED)) {
        int rc = poll(&p, 1, POLL_MS);
        if (rc > 0 || (rc < 0 && errno != EINTR))
            return true;
    }
    return false;
}

/* --- in --- */

struct reading {
    const struct tool *t;
    uint8_t *buf;
    size_t bytes; /* that came; fewer than STEP only at the end */
};

int pipe_read_all(const struct tool *t, int fd, uint8_t *buf, size_t bytes, size_t *got)
{
    *got = 0;
    while (*got < bytes) {
        if (!wait_for(t, fd, POLLIN))
            return -ECANCELED;
        ssize_t n = read(fd, buf + *got, bytes - *got);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (n == 0)
            break;
        *got += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int run_read(void *arg)
{
    struct reading *r = arg;
    return pipe_read_all(r->t, STDIN_FILENO, r->buf, STEP, &r->bytes);
}

/* Zeroes in whole blocks stay holes. */
static int co_keep(struct host_file *f, uint64_t offset, uint8_t *buf, size_t bytes)
{
    for (size_t at = 0, n; at < bytes; at += n) {
        n = MIN(HOLE, bytes - at);
        struct vec v = VEC_BUF(buf + at, n);
        if (!mem_is_zero(buf + at, n))
            TRY(co_host_write(f, offset + at, &v));
    }
    return 0;
}

static int co_fill(struct tool *t, struct host_file *f)
{
    struct reading r = {.t = t, .buf = mem_alloc(STEP)};
    uint64_t offset = 0;
    int rc = r.buf ? 0 : -ENOMEM;
    do {
        if (rc == 0)
            rc = co_blocking(run_read, &r);
        if (rc == 0)
            rc = co_keep(f, offset, r.buf, r.bytes);
        offset += r.bytes;
    } while (rc == 0 && r.bytes == STEP);
    mem_free(r.buf);
    return rc == 0 ? co_host_truncate(f, offset) : rc;
}

int co_pipe_temporary(struct tool *t, struct host_file **out, struct blk_error *e)
{
    const char *folder = getenv("TMPDIR");
    if (!folder || !*folder)
        folder = "/var/tmp";
    int rc = co_host_open(t->host, folder, NULL, HOST_READ | HOST_WRITE | HOST_TEMPORARY, out);
    return rc < 0 ? err_errno(e, rc, "a temporary file in %s (TMPDIR names another folder)", folder)
                  : 0;
}

/* A regular file that nothing was read of is as good as its name. */
static bool stdin_is_file(void)
{
    struct stat st;
    return fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode) &&
           lseek(STDIN_FILENO, 0, SEEK_CUR) == 0;
}

int co_pipe_in(struct tool *t, struct host_file **keep, char **path, struct blk_error *e)
{
    *keep = NULL;
    *path = NULL;
    if (t->stdin_taken)
        return err_set(e, -EINVAL, "standard input can be read only once");
    t->stdin_taken = true;
    if (!stdin_is_file()) {
        TRY(co_pipe_temporary(t, keep, e));
        int rc = co_fill(t, *keep);
        if (rc < 0) {
            co_host_close(take(*keep));
            return rc == -ECANCELED ? err_set(e, rc, "interrupted")
                                    : err_errno(e, rc, "cannot take in what comes from the pipe");
        }
    }
    *path = mem_printf("/proc/self/fd/%d", *keep ? host_fd(*keep) : STDIN_FILENO);
    return *path ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* --- out --- */

struct writing {
    const struct tool *t;
    const uint8_t *buf;
    size_t bytes;
};

int pipe_write_all(const struct tool *t, int fd, const uint8_t *buf, size_t bytes)
{
    while (bytes > 0) {
        if (!wait_for(t, fd, POLLOUT))
            return -ECANCELED;
        ssize_t n = write(fd, buf, bytes);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        buf += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static const uint8_t zeroes[INORDER_BLOCK];

static int take_piece(struct inorder_piece *p)
{
    const struct tool *t = p->all->arg;
    if (p->data)
        return pipe_write_all(t, STDOUT_FILENO, p->data, p->bytes);
    for (uint64_t at = 0; at < p->bytes; at += sizeof(zeroes))
        TRY(pipe_write_all(t, STDOUT_FILENO, zeroes, MIN(sizeof(zeroes), p->bytes - at)));
    return 0;
}

static int failed(int rc, struct blk_error *e)
{
    if (rc < 0 && rc != -ECANCELED && e->rc == 0)
        err_errno(e, rc, "cannot write to the pipe");
    return rc;
}

int co_pipe_out(struct tool *t, struct blk_device *dev, uint64_t bytes, struct job *job,
                struct blk_error *e)
{
    struct inorder *w = mem_zalloc(sizeof(*w));
    if (!w)
        return err_set(e, -ENOMEM, "out of memory");
    *w = (struct inorder){.dev = dev,
                          .bytes = bytes,
                          .job = job,
                          .error = e,
                          .use = take_piece,
                          .use_blocks = true,
                          .arg = t};
    int rc = co_inorder(w);
    mem_free(w);
    return failed(rc, e);
}

static int run_write(void *arg)
{
    const struct writing *w = arg;
    return pipe_write_all(w->t, STDOUT_FILENO, w->buf, w->bytes);
}

int co_pipe_zeroes(struct tool *t, uint64_t bytes, struct blk_error *e)
{
    assert(bytes <= sizeof(zeroes));
    struct writing w = {.t = t, .buf = zeroes, .bytes = bytes};
    return failed(co_blocking(run_write, &w), e);
}

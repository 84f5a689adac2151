/* SPDX-License-Identifier: BSD-3-Clause */
/* host.c - the checked way to a host: each function asserts its part of the contract once and calls
 * the table. */
#include <unistd.h>

#include "block/host.h"

#define MAX_OFFSET ((uint64_t)INT64_MAX)

static inline bool offsets_sane(uint64_t offset, uint64_t bytes)
{
    return range_fits(offset, bytes, MAX_OFFSET);
}

void host_close(struct host *h)
{
    if (h)
        h->ops->close(h);
}

const char *host_name(const struct host *h)
{
    return h->ops->name;
}

uint64_t host_wall_clock(struct host *h)
{
    return h->ops->wall_clock(h);
}

void host_random(struct host *h, void *to, size_t bytes)
{
    h->ops->random(h, to, bytes);
}

void host_uuid(struct host *h, uint8_t uuid[16])
{
    host_random(h, uuid, 16);
    uuid[6] = (uuid[6] & 0x0f) | 0x40; /* version 4: random */
    uuid[8] = (uuid[8] & 0x3f) | 0x80; /* variant 10 */
}

/* --- files ------------------------------------------------------------------------------------ */

int co_host_open(struct host *h, const char *path, const char *beneath, unsigned flags,
                 struct host_file **out)
{
    assert(path && out && (flags & (HOST_READ | HOST_WRITE)));
    *out = NULL;
    int rc = h->ops->co_open(h, path, beneath, flags, out);
    assert(rc <= 0 && (rc < 0) == (*out == NULL));
    return rc;
}

void co_host_close(struct host_file *f)
{
    if (f)
        f->host->ops->co_close(f);
}

int64_t co_host_read(struct host_file *f, uint64_t offset, const struct vec *to)
{
    if (unlikely(!offsets_sane(offset, to->bytes)))
        return -EINVAL;
    int64_t rc = f->host->ops->co_read(f, offset, to);
    assert(rc <= (int64_t)to->bytes);
    return rc;
}

int co_host_write(struct host_file *f, uint64_t offset, const struct vec *from)
{
    if (unlikely(!offsets_sane(offset, from->bytes)))
        return -EFBIG;
    int rc = f->host->ops->co_write(f, offset, from);
    assert(rc <= 0);
    return rc;
}

int64_t host_read_now(struct host_file *f, uint64_t offset, const struct vec *to)
{
    if (unlikely(!offsets_sane(offset, to->bytes)))
        return -EINVAL;
    return f->host->ops->read_now(f, offset, to);
}

int64_t host_write_now(struct host_file *f, uint64_t offset, const struct vec *from)
{
    if (unlikely(!offsets_sane(offset, from->bytes)))
        return -EFBIG;
    return f->host->ops->write_now(f, offset, from);
}

bool host_resident(struct host_file *f, uint64_t offset, uint64_t bytes)
{
    return offsets_sane(offset, bytes) && !(f->flags & HOST_DIRECT) &&
           f->host->ops->resident(f, offset, bytes);
}

bool co_host_ease(struct host *h)
{
    return h->ops->co_ease && h->ops->co_ease(h);
}

int co_host_fsync(struct host_file *f)
{
    int rc = f->host->ops->co_fsync(f);

    assert(rc <= 0);
    return rc;
}

int co_host_truncate(struct host_file *f, uint64_t size)
{
    if (size > MAX_OFFSET)
        return -EFBIG;
    int rc = f->host->ops->co_truncate(f, size);
    assert(rc <= 0);
    return rc;
}

int co_host_fallocate(struct host_file *f, enum host_alloc_mode mode, uint64_t offset,
                      uint64_t bytes)
{
    if (!offsets_sane(offset, bytes))
        return -EFBIG;
    if (bytes == 0)
        return 0;
    int rc = f->host->ops->co_fallocate(f, mode, offset, bytes);
    assert(rc <= 0);
    return rc;
}

int co_host_extent(struct host_file *f, uint64_t offset, bool *data, uint64_t *end)
{
    if (offset > MAX_OFFSET)
        return -ENXIO;
    int rc = f->host->ops->co_extent(f, offset, data, end);
    assert(rc < 0 || *end > offset);
    return rc;
}

int64_t co_host_copy(struct host_file *from, uint64_t from_offset, struct host_file *to,
                     uint64_t to_offset, uint64_t bytes)
{
    if (!offsets_sane(from_offset, bytes) || !offsets_sane(to_offset, bytes))
        return -EFBIG;
    assert(from->host == to->host);
    int64_t rc = from->host->ops->co_copy(from, from_offset, to, to_offset, bytes);
    assert(rc <= (int64_t)bytes);
    return rc;
}

int co_host_fstat(struct host_file *f, struct host_stat *out)
{
    return f->host->ops->co_fstat(f, out);
}

int co_host_advise(struct host_file *f, enum host_advice advice, uint64_t offset, uint64_t bytes)
{
    return f->host->ops->co_advise(f, advice, offset, bytes);
}

int host_lock(struct host_file *f, uint64_t offset, uint64_t bytes, int kind)
{
    assert(kind >= 0 && kind <= 2 && offsets_sane(offset, bytes));
    return f->host->ops->lock(f, offset, bytes, kind);
}

int host_lock_test(struct host_file *f, uint64_t offset, uint64_t bytes, int kind, int *holder_pid)
{
    assert(kind >= 1 && kind <= 2 && offsets_sane(offset, bytes));
    *holder_pid = 0;
    return f->host->ops->lock_test(f, offset, bytes, kind, holder_pid);
}

int host_fd(const struct host_file *f)
{
    return f->host->ops->fd(f);
}

/* --- names ------------------------------------------------------------------------------------ */

int co_host_stat(struct host *h, const char *path, struct host_stat *out)
{
    return h->ops->co_stat(h, path, out);
}

int co_host_rename(struct host *h, const char *from, const char *to)
{
    return h->ops->co_rename(h, from, to);
}

int co_host_unlink(struct host *h, const char *path)
{
    return h->ops->co_unlink(h, path);
}

int co_host_sync_dir(struct host *h, const char *path)
{
    return h->ops->co_sync_dir(h, path);
}

int co_host_realpath(struct host *h, const char *path, char **out)
{
    *out = NULL;
    return h->ops->co_realpath(h, path, out);
}

int co_host_list(struct host *h, const char *path, char ***names, size_t *count)
{
    *names = NULL;
    *count = 0;
    return h->ops->co_list(h, path, names, count);
}

/* --- streams ---------------------------------------------------------------------------------- */

int co_host_listen(struct host *h, const char *address, struct host_stream **out)
{
    *out = NULL;
    int rc = h->ops->co_listen(h, address, out);
    assert((rc < 0) == (*out == NULL));
    return rc;
}

int co_host_accept(struct host_stream *listener, struct host_stream **out)
{
    assert(listener->listening);
    *out = NULL;
    int rc = listener->host->ops->co_accept(listener, out);
    assert((rc < 0) == (*out == NULL));
    return rc;
}

int co_host_connect(struct host *h, const char *address, struct host_stream **out)
{
    *out = NULL;
    int rc = h->ops->co_connect(h, address, out);
    assert((rc < 0) == (*out == NULL));
    return rc;
}

int64_t host_stream_recv(struct host_stream *s, void *to, size_t bytes)
{
    assert(!s->listening && bytes > 0);
    return s->host->ops->stream_recv(s, to, bytes);
}

int64_t host_stream_sendv(struct host_stream *s, const struct iovec *iov, unsigned count)
{
    assert(!s->listening);
    return s->host->ops->stream_sendv(s, iov, count);
}

int64_t host_stream_send_file(struct host_stream *s, struct host_file *f, uint64_t offset,
                              uint64_t bytes)
{
    if (s->sealed)
        return -ENOTSUP;
    assert(!s->listening && s->host == f->host && offsets_sane(offset, bytes));
    return s->host->ops->stream_send_file(s, f, offset, bytes);
}

void host_stream_widen(struct host_stream *s, uint32_t bytes)
{
    if (s->host->ops->stream_widen)
        s->host->ops->stream_widen(s, bytes);
}

int co_host_stream_wait(struct host_stream *s, unsigned what, uint64_t timeout_ns)
{
    assert(what && !(what & ~(unsigned)(HOST_READABLE | HOST_WRITABLE)));
    int rc = s->host->ops->co_stream_wait(s, what, timeout_ns);
    assert(rc < 0 || (rc & (int)what));
    return rc;
}

void host_stream_shutdown(struct host_stream *s)
{
    s->host->ops->stream_shutdown(s);
}

void host_stream_close(struct host_stream *s)
{
    if (s)
        s->host->ops->stream_close(s);
}

int host_stream_watch(struct host *h, int fd, struct host_stream **out)
{
    *out = NULL;
    if (h->ops->stream_watch)
        return h->ops->stream_watch(h, fd, out);
    close(fd);
    return -ENOTSUP;
}

const char *host_stream_address(const struct host_stream *s)
{
    return s->host->ops->stream_address(s);
}

void host_stream_peer(struct host_stream *s, struct host_peer *out)
{
    assert(!s->listening);
    *out = (struct host_peer){.pid = -1, .uid = -1};
    if (s->host->ops->stream_peer)
        s->host->ops->stream_peer(s, out);
}

int host_listen_at(struct host *h, int fd, struct host_stream **out)
{
    *out = NULL;
    return h->ops->listen_at ? h->ops->listen_at(h, fd, out) : -ENOTSUP;
}

int host_listener_share(struct host_stream *s)
{
    assert(s->listening);
    return s->host->ops->listener_share ? s->host->ops->listener_share(s) : -1;
}

/* --- signals ---------------------------------------------------------------------------------- */

int co_host_signal(struct host *h, const int *signals)
{
    return h->ops->co_signal(h, signals);
}

void host_signal_cancel(struct host *h)
{
    h->ops->signal_cancel(h);
}

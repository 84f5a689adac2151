/* SPDX-License-Identifier: BSD-3-Clause */
/* host_aio.c - the threads host with Linux's native asynchronous I/O (what libaio wraps) for
 * O_DIRECT, for kernels and containers that allow no rings.
 *
 * Requests are queued as they come and submitted in wait(), all of a loop turn with one call. Each
 * completion signals an event fd of the worker's, which epoll watches. Buffered files would block
 * in io_submit(), so all but O_DIRECT goes the way of the threads host. The four system calls are
 * made directly; a library would add nothing to them. */
#include <linux/aio_abi.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/host_os.h"

#define RING_ENTRIES 256

/* A request; lives on the stack of the coroutine that waits for it. */
struct aio_op {
    struct iocb iocb;
    struct aio_op *next; /* queued */
    struct co *co;
    int64_t res;
    bool done;
};

struct aio_worker {
    struct os_worker os;
    aio_context_t ring;
    int event;
    struct os_source source;
    unsigned in_flight; /* submitted, not yet completed */
    struct aio_op *first, *last;
    bool answered; /* something without being sent: its coroutine is ready now */
};

static struct aio_worker *aio_of(struct worker *w)
{
    return container_of(os_worker(w), struct aio_worker, os);
}

static void aio_finish(struct aio_op *op, int64_t res)
{
    op->res = res;
    op->done = true;
    co_wake(op->co);
}

/* --- submission and completion ---------------------------------------------------------------- */

static void aio_reap(struct os_worker *ow, struct os_source *s, uint32_t events)
{
    struct aio_worker *aw = container_of(ow, struct aio_worker, os);
    struct io_event ev[64];
    struct timespec now = {0};
    long n;

    do {
        n = syscall(SYS_io_getevents, aw->ring, 0L, (long)ARRAY_LEN(ev), ev, &now);
        for (long i = 0; i < n; i++)
            aio_finish((struct aio_op *)(uintptr_t)ev[i].data, ev[i].res);
        aw->in_flight -= n > 0 ? (unsigned)n : 0;
    } while (n == (long)ARRAY_LEN(ev) || (n < 0 && errno == EINTR));
}

static void aio_take_first(struct aio_worker *aw)
{
    aw->first = aw->first->next;
    if (!aw->first)
        aw->last = NULL;
}

/* Sends what is queued and has room. What the kernel refuses is answered at once; -EAGAIN with
 * nothing under way too, for then nobody would tell when to try again. */
static void aio_submit(struct aio_worker *aw)
{
    struct iocb *list[RING_ENTRIES];

    while (aw->first && aw->in_flight < RING_ENTRIES) {
        long count = 0;
        for (struct aio_op *op = aw->first; op && count < (long)(RING_ENTRIES - aw->in_flight);
             op = op->next)
            list[count++] = &op->iocb;
        long n = syscall(SYS_io_submit, aw->ring, count, list);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && aw->in_flight > 0)
            return;
        if (n <= 0) {
            struct aio_op *op = aw->first;
            aio_take_first(aw);
            aio_finish(op, n < 0 ? -errno : -EAGAIN);
            aw->answered = true;
            continue;
        }
        aw->in_flight += (unsigned)n;
        for (long i = 0; i < n; i++)
            aio_take_first(aw);
    }
}

static void aio_wait(struct worker *w, uint64_t deadline_ns)
{
    struct aio_worker *aw = aio_of(w);

    aw->answered = false;
    aio_submit(aw);
    if (aw->answered)
        deadline_ns = 0;
    os_wait(w, deadline_ns);
}

/* Bytes or -errno; -EAGAIN: the kernel is out of something. */
static int64_t aio_run(struct aio_worker *aw, struct aio_op *op)
{
    op->co = co_self();
    assert(op->co);
    op->iocb.aio_data = (uintptr_t)op;
    op->iocb.aio_flags = IOCB_FLAG_RESFD;
    op->iocb.aio_resfd = (uint32_t)aw->event;
    *(aw->last ? &aw->last->next : &aw->first) = op;
    aw->last = op;
    co_await_help(&op->done);
    return op->res;
}

/* --- files ------------------------------------------------------------------------------------ */

/* Transfers all of @v, or up to where a call gives 0; bytes or -errno. */
static int64_t aio_transfer(int opcode, struct os_file *f, uint64_t offset, const struct vec *v)
{
    struct aio_worker *aw = aio_of(worker_self());
    struct iovec iov[OS_IOV];
    uint64_t done = 0;
    unsigned count;

    while (done < v->bytes) {
        struct vec rest = vec_slice(v, done, v->bytes - done);
        vec_export(&rest, iov, OS_IOV, &count);
        struct aio_op op = {.iocb = {.aio_lio_opcode = (uint16_t)opcode,
                                     .aio_fildes = (uint32_t)f->fd,
                                     .aio_buf = (uintptr_t)iov,
                                     .aio_nbytes = count,
                                     .aio_offset = (int64_t)(offset + done)}};
        int64_t n = aio_run(aw, &op);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return done && n == -EAGAIN ? (int64_t)done : n;
        done += (uint64_t)n;
        if (n == 0 || os_read_ended(f, n))
            break;
    }
    return (int64_t)done;
}

static bool goes_here(const struct host_file *f)
{
    return f->flags & HOST_DIRECT && !f->stat.inline_io;
}

static int64_t co_aio_read(struct host_file *pub, uint64_t offset, const struct vec *to)
{
    if (!goes_here(pub))
        return co_os_read(pub, offset, to);
    int64_t n = aio_transfer(IOCB_CMD_PREADV, os_file(pub), offset, to);
    return n == -EAGAIN ? co_os_read(pub, offset, to) : n;
}

static int co_aio_write(struct host_file *pub, uint64_t offset, const struct vec *from)
{
    if (!goes_here(pub))
        return co_os_write(pub, offset, from);
    int64_t n = aio_transfer(IOCB_CMD_PWRITEV, os_file(pub), offset, from);
    if (n == -EAGAIN)
        return co_os_write(pub, offset, from);
    return n < 0 ? (int)n : (uint64_t)n < from->bytes ? -EIO : 0;
}

/* --- the host --------------------------------------------------------------------------------- */

static int aio_attach(struct host *h, struct worker *w)
{
    struct aio_worker *aw = mem_zalloc(sizeof(*aw));

    if (!aw)
        return -ENOMEM;
    aw->source.on_event = aio_reap;
    int rc = os_worker_init(&aw->os, w);
    if (rc < 0) {
        mem_free(aw);
        return rc;
    }
    aw->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = aw->event < 0 ? -errno : os_watch(&aw->os, aw->event, EPOLLIN, &aw->source);
    if (rc == 0 && syscall(SYS_io_setup, RING_ENTRIES, &aw->ring) < 0)
        rc = -errno;
    if (rc < 0) {
        if (aw->event >= 0)
            close(aw->event);
        os_worker_end(&aw->os);
        mem_free(aw);
    }
    return rc;
}

static void aio_detach(struct worker *w)
{
    struct aio_worker *aw = aio_of(w);

    assert(aw->in_flight == 0 && !aw->first);
    syscall(SYS_io_destroy, aw->ring);
    close(aw->event);
    os_worker_end(&aw->os);
    mem_free(aw);
}

static const struct host_ops aio_ops = {
    OS_OPS,           .name = "aio",          .attach = aio_attach,     .detach = aio_detach,
    .wait = aio_wait, .co_read = co_aio_read, .co_write = co_aio_write, .co_fsync = co_os_fsync,
};

static bool aio_works(void)
{
    aio_context_t ring = 0;

    if (syscall(SYS_io_setup, 1, &ring) < 0)
        return false;
    syscall(SYS_io_destroy, ring);
    return true;
}

int host_aio_open(struct host **out)
{
    if (!aio_works())
        return -ENOTSUP;
    struct os_host *h = mem_zalloc(sizeof(*h));
    if (!h)
        return -ENOMEM;
    os_host_init(h, &aio_ops);
    *out = &h->pub;
    return 0;
}

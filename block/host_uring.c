/* SPDX-License-Identifier: BSD-3-Clause */
/* host_uring.c - what would block goes through a ring of the worker's own: reads that miss the page
 * cache, O_DIRECT, block devices, fsync. All else is as in host_threads.
 *
 * Requests are queued as they come and submitted in wait(), all of a loop turn with one call, which
 * also runs the kernel's side of completion (the ring is DEFER_TASKRUN where that exists). The ring
 * signals the worker's event fd, so epoll wakes for completions too; the ring's own descriptor is
 * never polled, which would not work for such rings. */
#include "block/host_os.h"

#ifdef HAVE_LIBURING

#include <liburing.h>

#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13) /* Linux 6.1; older liburing does not name it */
#endif

#define RING_ENTRIES 256

struct uring_worker {
    struct os_worker os;
    struct io_uring ring;
    unsigned in_flight; /* queued or submitted, not yet completed */
};

/* A request; lives on the stack of the coroutine that waits for it. */
struct uring_op {
    struct co *co;
    int res;
    bool done;
};

static struct uring_worker *uring_self(void)
{
    return container_of(os_worker(worker_self()), struct uring_worker, os);
}

/* --- submission and completion ---------------------------------------------------------------- */

static void uring_reap(struct uring_worker *uw)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;

    io_uring_for_each_cqe(&uw->ring, head, cqe)
    {
        struct uring_op *op = io_uring_cqe_get_data(cqe);
        op->res = cqe->res;
        op->done = true;
        co_wake(op->co);
        count++;
    }
    io_uring_cq_advance(&uw->ring, count);
    uw->in_flight -= count;
}

/* Sends what is queued, lets the kernel finish what it can, and takes the results. What could not
 * be sent (the kernel is out of something) stays queued for the next time. */
static void uring_turn(struct uring_worker *uw)
{
    io_uring_submit_and_get_events(&uw->ring);
    uring_reap(uw);
}

static struct io_uring_sqe *uring_sqe(struct uring_worker *uw)
{
    struct io_uring_sqe *sqe;

    while (!(sqe = io_uring_get_sqe(&uw->ring))) {
        uring_turn(uw);
        if (io_uring_sq_space_left(&uw->ring) == 0)
            co_yield ();
    }
    return sqe;
}

static int uring_finish(struct uring_worker *uw, struct io_uring_sqe *sqe)
{
    struct uring_op op = {.co = co_self()};

    assert(op.co);
    io_uring_sqe_set_data(sqe, &op);
    uw->in_flight++;
    co_await_help(&op.done);
    return op.res;
}

static void uring_wait(struct worker *w, uint64_t deadline_ns)
{
    struct uring_worker *uw = container_of(os_worker(w), struct uring_worker, os);
    unsigned before = uw->in_flight;

    if (before) {
        uring_turn(uw);
        if (uw->in_flight < before)
            deadline_ns = 0; /* some coroutines are ready now */
        if (io_uring_sq_ready(&uw->ring))
            deadline_ns = 0; /* not all was taken */
    }
    os_wait(w, deadline_ns);
    if (uw->os.woken && uw->in_flight)
        uring_turn(uw);
}

/* --- files ------------------------------------------------------------------------------------ */

/* Transfers all of @v, or up to where a call gives 0; bytes or -errno. */
static int64_t uring_transfer(int opcode, struct os_file *f, uint64_t offset, const struct vec *v)
{
    struct uring_worker *uw = uring_self();
    struct iovec iov[OS_IOV];
    uint64_t done = 0;
    unsigned count;

    while (done < v->bytes) {
        struct vec rest = vec_slice(v, done, v->bytes - done);
        vec_export(&rest, iov, OS_IOV, &count);
        struct io_uring_sqe *sqe = uring_sqe(uw);
        io_uring_prep_rw(opcode, sqe, f->fd, iov, count, offset + done);
        int n = uring_finish(uw, sqe);
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n < 0)
            return n;
        done += (uint64_t)n;
        if (n == 0 || os_read_ended(f, n))
            break;
    }
    return (int64_t)done;
}

static int64_t co_uring_read(struct host_file *pub, uint64_t offset, const struct vec *to)
{
    struct os_file *f = os_file(pub);
    uint64_t done = 0;
    int rc = os_read_try(f, offset, to, &done);

    if (likely(rc == 0))
        return (int64_t)done;
    if (rc != -EAGAIN)
        return rc;
    struct vec rest = vec_slice(to, done, to->bytes - done);
    int64_t n = uring_transfer(IORING_OP_READV, f, offset + done, &rest);
    return n < 0 ? n : (int64_t)done + n;
}

static int co_uring_write(struct host_file *pub, uint64_t offset, const struct vec *from)
{
    struct os_file *f = os_file(pub);

    /* For these the ring would only start a kernel thread for each write. */
    if (!(pub->flags & HOST_DIRECT) && pub->stat.type != HOST_FILE_BLOCK)
        return co_os_write(pub, offset, from);
    uint64_t done = 0;
    int rc = os_write_try(f, offset, from, &done);
    if (rc != -EAGAIN)
        return rc;
    struct vec rest = vec_slice(from, done, from->bytes - done);
    int64_t n = uring_transfer(IORING_OP_WRITEV, f, offset + done, &rest);
    return n < 0 ? (int)n : (uint64_t)n < rest.bytes ? -EIO : 0;
}

static int co_uring_fsync(struct host_file *pub)
{
    struct uring_worker *uw = uring_self();
    int rc;

    if (pub->stat.inline_io)
        return co_os_fsync(pub);
    do {
        struct io_uring_sqe *sqe = uring_sqe(uw);
        io_uring_prep_fsync(sqe, os_file(pub)->fd, IORING_FSYNC_DATASYNC);
        rc = uring_finish(uw, sqe);
    } while (rc == -EINTR || rc == -EAGAIN);
    return rc;
}

/* --- the host --------------------------------------------------------------------------------- */

static int ring_init(struct io_uring *ring, unsigned entries)
{
    static const unsigned flags[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0};
    int rc = -EINVAL;

    for (size_t i = 0; i < ARRAY_LEN(flags) && rc == -EINVAL; i++)
        rc = io_uring_queue_init(entries, ring, flags[i]);
    return rc;
}

static int uring_attach(struct host *h, struct worker *w)
{
    struct uring_worker *uw = mem_zalloc(sizeof(*uw));

    if (!uw)
        return -ENOMEM;
    int rc = os_worker_init(&uw->os, w);
    if (rc < 0) {
        mem_free(uw);
        return rc;
    }
    rc = ring_init(&uw->ring, RING_ENTRIES);
    if (rc == 0) {
        rc = io_uring_register_eventfd(&uw->ring, uw->os.event);
        if (rc < 0)
            io_uring_queue_exit(&uw->ring);
    }
    if (rc < 0) {
        os_worker_end(&uw->os);
        mem_free(uw);
    }
    return rc;
}

static void uring_detach(struct worker *w)
{
    struct uring_worker *uw = container_of(os_worker(w), struct uring_worker, os);

    assert(uw->in_flight == 0);
    io_uring_queue_exit(&uw->ring);
    os_worker_end(&uw->os);
    mem_free(uw);
}

static const struct host_ops uring_ops = {
    OS_OPS,
    .name = "uring",
    .attach = uring_attach,
    .detach = uring_detach,
    .wait = uring_wait,
    .co_read = co_uring_read,
    .co_write = co_uring_write,
    .co_fsync = co_uring_fsync,
};

/* True if this process may have rings, and they can do what is needed. */
static bool uring_works(void)
{
    static const int needed[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC};
    struct io_uring ring;

    if (ring_init(&ring, 4) < 0)
        return false;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
    bool ok = probe != NULL;
    for (size_t i = 0; i < ARRAY_LEN(needed) && ok; i++)
        ok = io_uring_opcode_supported(probe, needed[i]);
    io_uring_free_probe(probe);
    io_uring_queue_exit(&ring);
    return ok;
}

int host_uring_open(struct host **out)
{
    if (!uring_works())
        return -ENOTSUP;
    struct os_host *h = mem_zalloc(sizeof(*h));
    if (!h)
        return -ENOMEM;
    os_host_init(h, &uring_ops);
    *out = &h->pub;
    return 0;
}

#else

int host_uring_open(struct host **out)
{
    return -ENOTSUP;
}

#endif

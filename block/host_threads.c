/* SPDX-License-Identifier: BSD-3-Clause */
/* host_threads.c - the host that needs nothing special of the kernel: what would block runs on the
 * runtime's blocking pool, small buffered writes on each worker's batch helper. */
#include "block/host_os.h"

static int threads_attach(struct host *h, struct worker *w)
{
    struct os_worker *ow = mem_zalloc(sizeof(*ow));

    if (!ow)
        return -ENOMEM;
    int rc = os_worker_init(ow, w);
    if (rc < 0)
        mem_free(ow);
    return rc;
}

static void threads_detach(struct worker *w)
{
    struct os_worker *ow = os_worker(w);

    os_worker_end(ow);
    mem_free(ow);
}

static const struct host_ops threads_ops = {
    OS_OPS,          .name = "threads",     .attach = threads_attach, .detach = threads_detach,
    .wait = os_wait, .co_read = co_os_read, .co_write = co_os_write,  .co_fsync = co_os_fsync,
};

int host_threads_open(struct host **out)
{
    struct os_host *h = mem_zalloc(sizeof(*h));

    if (!h)
        return -ENOMEM;
    os_host_init(h, &threads_ops);
    *out = &h->pub;
    return 0;
}

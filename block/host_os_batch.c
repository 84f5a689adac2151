/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_batch.c - small buffered writes, on file systems where they may block.
 *
 * Linux cannot say in advance whether a buffered write will stall, so none is made on the loop. The
 * writes of one turn are collected and handed, as one list, to one helper thread of the worker; it
 * makes them one after another and answers with one message for the list, or for each ANSWER_BYTES
 * of it. That costs two thread switches for each batch, not for each write. */
#include "block/host_os.h"

#define ANSWER_BYTES (256 * KiB) /* those who wait for these need not wait for the rest */
#define ENOUGH_BYTES (512 * KiB) /* received before the helper is waited for */

struct batch_write {
    struct batch_write *next;
    struct os_file *f;
    uint64_t offset;
    const struct vec *from;
    struct co *co;
    int rc;
    bool done;
};

struct batch_list {
    struct batch_write *first, *last;
};

struct os_batch {
    struct worker *worker;
    struct turn_hook hook;
    /* The loop's own. */
    struct batch_list turn; /* collected in this turn */
    uint64_t waiting;       /* bytes not yet answered */
    struct co_queue eased;  /* until some are */

    pthread_t helper;
    pthread_mutex_t lock;
    pthread_cond_t work;
    /* Guarded by lock. */
    struct batch_list queued, written;
    bool stop, idle, answering; /* answering: msg is on its way */
    struct worker_msg msg;
};

static void list_add(struct batch_list *to, struct batch_list *from)
{
    if (!from->first)
        return;
    *(to->last ? &to->last->next : &to->first) = from->first;
    to->last = from->last;
    *from = (struct batch_list){0};
}

static struct batch_list list_take(struct batch_list *list)
{
    struct batch_list taken = *list;

    *list = (struct batch_list){0};
    return taken;
}

/* The front of @list, up to where there are ANSWER_BYTES. */
static struct batch_list take_some(struct batch_list *list)
{
    struct batch_list taken = {list->first, list->first};
    uint64_t bytes = taken.last->from->bytes;

    while (taken.last->next && bytes < ANSWER_BYTES) {
        taken.last = taken.last->next;
        bytes += taken.last->from->bytes;
    }
    list->first = taken.last->next;
    if (!list->first)
        list->last = NULL;
    taken.last->next = NULL;
    return taken;
}

/* On the loop: the helper has written what is in written. */
static void batch_answered(struct worker_msg *msg)
{
    struct os_batch *b = container_of(msg, struct os_batch, msg);

    pthread_mutex_lock(&b->lock);
    struct batch_write *w = list_take(&b->written).first;
    b->answering = false;
    pthread_mutex_unlock(&b->lock);
    while (w) {
        struct batch_write *next = w->next;
        b->waiting -= w->from->bytes;
        w->done = true;
        co_wake(w->co);
        w = next;
    }
    co_queue_wake_all(&b->eased);
}

static void batch_answer(struct os_batch *b, struct batch_list *list)
{
    list_add(&b->written, list);
    if (b->answering)
        return;
    b->answering = true;
    b->msg.fn = batch_answered;
    worker_post(b->worker, &b->msg);
}

static void *helper_main(void *arg)
{
    struct os_batch *b = arg;

    pthread_setname_np(pthread_self(), "writer");
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->queued.first && !b->stop) {
            b->idle = true;
            pthread_cond_wait(&b->work, &b->lock);
        }
        b->idle = false;
        if (!b->queued.first)
            break;
        struct batch_list some = take_some(&b->queued);
        pthread_mutex_unlock(&b->lock);
        for (struct batch_write *w = some.first; w; w = w->next)
            w->rc = os_write_block(w->f, w->offset, w->from);
        pthread_mutex_lock(&b->lock);
        batch_answer(b, &some);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

static struct os_batch *batch_make(struct os_worker *ow)
{
    struct os_batch *b = mem_zalloc(sizeof(*b));

    if (!b)
        return NULL;
    b->worker = ow->worker;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->work, NULL);
    if (thread_start(&b->helper, 256 * KiB, helper_main, b) < 0) {
        pthread_cond_destroy(&b->work);
        pthread_mutex_destroy(&b->lock);
        mem_free(b);
        return NULL;
    }
    ow->batch = b;
    return b;
}

void os_batch_end(struct os_worker *ow)
{
    struct os_batch *b = ow->batch;

    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_signal(&b->work);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->helper, NULL);
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
    mem_free(b);
    ow->batch = NULL;
}

static void batch_send(struct turn_hook *hook)
{
    struct os_batch *b = container_of(hook, struct os_batch, hook);

    pthread_mutex_lock(&b->lock);
    list_add(&b->queued, &b->turn);
    bool wake = b->idle;
    b->idle = false;
    pthread_mutex_unlock(&b->lock);
    if (wake)
        pthread_cond_signal(&b->work);
}

int co_os_batch_write(struct os_file *f, uint64_t offset, const struct vec *from)
{
    struct os_worker *ow = os_worker(worker_self());
    struct os_batch *b = ow->batch ? ow->batch : batch_make(ow);
    struct batch_write w = {.f = f, .offset = offset, .from = from, .co = co_self()};

    if (!b) /* no thread can be had: late is better than never */
        return os_write_block(f, offset, from);
    assert(w.co);
    list_add(&b->turn, &(struct batch_list){&w, &w});
    b->waiting += from->bytes;
    worker_at_turn_end(&b->hook, batch_send);
    co_await_help(&w.done);
    return w.rc;
}

/* Once: others may fill the queue meanwhile. */
bool co_os_ease(struct host *h)
{
    struct os_batch *b = os_worker(worker_self())->batch;

    if (!b || b->waiting < ENOUGH_BYTES)
        return false;
    co_queue_wait(&b->eased);
    return true;
}

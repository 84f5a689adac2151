/* SPDX-License-Identifier: BSD-3-Clause */
/* device.c - the life of a device: open, children, references, the gate, drain, close, events.
 *
 * A device belongs to who opened it; children belong to their parent by one reference each, and a
 * child may have several parents (a base image under many guests). The last reference closes it,
 * and closing walks down by a list, not by recursion: chains are up to 1,024 long. */
#include "block/resolver.h"
#include "block/waist.h"

#define HOLDS_POLL_NS 1000000

/* --- the device behind -------------------------------------------------------------------------
 */

/* Whether it keeps anything depends on it (behind.c). */
static void set_backs(struct blk_device *dev, unsigned backs)
{
    dev->backs = backs;
    dev->behind_at = 0;
}

static void no_backing(struct blk_device *dev)
{
    if (!dev->backing)
        return;
    set_backs(dev->backing, dev->backing->backs - 1);
    dev->backing = NULL;
    blk_forget_behind(dev);
}

/* After a change of the children. */
static void find_backing(struct blk_device *dev)
{
    struct blk_device *now = blk_child(dev, "backing");
    if (now == dev->backing)
        return;
    no_backing(dev);
    dev->backing = now;
    if (now)
        set_backs(now, now->backs + 1);
}

/* --- open --------------------------------------------------------------------------------------
 */

static struct blk_device *device_new(const struct blk_driver *driver, const char *name,
                                     unsigned open_flags)
{
    struct blk_device *dev = mem_zalloc(sizeof(*dev));
    if (!dev)
        return NULL;
    dev->name = mem_strdup(name ? name : "");
    if (!dev->name) {
        mem_free(dev);
        return NULL;
    }
    dev->driver = driver;
    dev->home = worker_self();
    dev->host = dev->home->host;
    dev->open_flags = open_flags;
    dev->writable = (open_flags & BLK_OPEN_WRITE) != 0;
    dev->limits = (struct blk_limits){.request_align = 1, .memory_align = 1, .zero_align = 1};
    dev->refs = 1;
    return dev;
}

static void device_free(struct blk_device *dev)
{
    assert(dev->in_flight == 0);
    mem_free(dev->behind);
    mem_free(dev->children);
    mem_free(dev->name);
    mem_free(dev);
}

/* What every driver promises when its open() has succeeded. */
static void check_opened(const struct blk_device *dev)
{
    const struct blk_limits *l = &dev->limits;
    assert(dev->driver);
    assert(is_pow2(l->request_align) && is_pow2(l->memory_align) && is_pow2(l->zero_align));
    assert(l->max_transfer == 0 || l->max_transfer >= l->request_align);
}

static void close_children(struct blk_device *dev)
{
    no_backing(dev);
    for (size_t i = 0; i < dev->child_count; i++)
        co_blk_close(dev->children[i].dev, NULL);
    dev->child_count = 0;
}

/* Drivers without a table still stand on something. */
static const struct opt_desc only_children[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the image lies in"},
    {.name = "backing", .type = OPT_CHILD, .help = "what shows through where nothing was written"},
    {0},
};

static int open_with_options(struct blk_device *dev, const json_t *tree, struct blk_opener *opener,
                             struct blk_error *e)
{
    const struct opt_desc *table = dev->driver->open_options;
    struct opts *opts = mem_zalloc(sizeof(*opts)); /* too big for a coroutine's stack */
    if (!opts)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = opts_parse(table ? table : only_children, tree, opts, e);
    if (rc == 0) {
        rc = dev->driver->co_open(dev, opts, opener, e);
        opts_drop(opts);
    }
    mem_free(opts);
    return rc;
}

int co_blk_open(const struct blk_driver *driver, const char *name, const json_t *tree,
                unsigned open_flags, struct blk_opener *opener, const struct blk_child *children,
                size_t count, struct blk_device **out, struct blk_error *e)
{
    struct blk_error ignored = {0};
    if (!e)
        e = &ignored;
    int rc = 0;
    size_t adopted = 0;
    struct blk_device *dev = device_new(driver, name, open_flags);
    if (!dev)
        rc = err_set(e, -ENOMEM, "out of memory");
    for (; rc == 0 && adopted < count; adopted++) {
        rc = blk_add_child(dev, children[adopted].role, children[adopted].dev);
        if (rc < 0) {
            err_set(e, rc, "out of memory");
            break;
        }
    }
    for (size_t i = adopted; i < count; i++)
        co_blk_close(children[i].dev, NULL);
    if (rc == 0)
        rc = open_with_options(dev, tree, opener, e);
    if (rc < 0) {
        if (dev) {
            close_children(dev);
            device_free(dev);
        }
        return rc;
    }
    check_opened(dev);
    *out = dev;
    return 0;
}

struct inner_call {
    struct blk_device *container, **out;
    const char *name;
    struct blk_error *e;
};

static int inner_open_at_home(void *arg)
{
    struct inner_call *call = arg;
    struct blk_device *container = call->container;
    const char *name = call->name;
    struct blk_error *e = call->e;
    if (!container->driver->co_inner_open)
        return err_set(e, -ENOTSUP, "%s holds no devices that could be named behind //",
                       container->driver->name);
    struct blk_device *dev = device_new(NULL, name, container->open_flags);
    if (!dev)
        return err_set(e, -ENOMEM, "out of memory");
    dev->writable = container->writable;
    int rc = container->driver->co_inner_open(container, name, dev, e);
    if (rc < 0) {
        close_children(dev);
        device_free(dev);
        return rc;
    }
    check_opened(dev);
    *call->out = dev;
    return 0;
}

int co_blk_inner_open(struct blk_device *container, const char *name, struct blk_device **out,
                      struct blk_error *e)
{
    struct inner_call call = {container, out, name, e};
    return co_on(container->home, inner_open_at_home, &call);
}

/* --- children and references -------------------------------------------------------------------
 */

int blk_add_child(struct blk_device *dev, const char *role, struct blk_device *child)
{
    assert(child && child->home == dev->home);
    struct blk_child *grown =
        mem_resize(dev->children, (dev->child_count + 1) * sizeof(*dev->children));
    if (!grown)
        return -ENOMEM;
    dev->children = grown;
    dev->children[dev->child_count++] = (struct blk_child){.role = role, .dev = child};
    find_backing(dev);
    return 0;
}

struct blk_device *blk_remove_child(struct blk_device *dev, size_t i)
{
    assert(i < dev->child_count);
    struct blk_device *old = dev->children[i].dev;
    memmove(&dev->children[i], &dev->children[i + 1],
            (--dev->child_count - i) * sizeof(*dev->children));
    return old;
}

static int exchange_gated(struct blk_device *dev, const char *role, struct blk_device *child,
                          struct blk_device **old, struct blk_error *e)
{
    size_t i = 0;
    while (i < dev->child_count && strcmp(dev->children[i].role, role) != 0)
        i++;
    if (i < dev->child_count && child) {
        *old = dev->children[i].dev;
        dev->children[i].dev = child;
    } else if (i < dev->child_count) {
        *old = blk_remove_child(dev, i);
    } else if (child && blk_add_child(dev, role, child) < 0) {
        co_blk_close(child, NULL);
        return err_set(e, -ENOMEM, "out of memory");
    }
    find_backing(dev);
    return dev->driver->co_opened(dev, e);
}

int co_blk_exchange_child(struct blk_device *dev, const char *role, struct blk_device *child,
                          struct blk_device **old, struct blk_error *e)
{
    assert(worker_self() == dev->home && (!child || child->home == dev->home));
    *old = NULL;
    if (!dev->driver->co_opened) {
        co_blk_close(child, NULL);
        return err_set(e, -ENOTSUP, "%s cannot be stood on another device while it is open",
                       dev->name);
    }
    co_blk_gate_close(dev);
    int rc = exchange_gated(dev, role, child, old, e);
    blk_gate_open(dev);
    return rc;
}

struct blk_device *blk_child(const struct blk_device *dev, const char *role)
{
    for (size_t i = 0; i < dev->child_count; i++) {
        if (strcmp(dev->children[i].role, role) == 0)
            return dev->children[i].dev;
    }
    return NULL;
}

#define FILES_MOST 64

unsigned blk_host_files(struct blk_device *dev, struct host_file **files, unsigned most)
{
    struct blk_device *ahead[FILES_MOST];
    unsigned count = 0, n = 0;
    ahead[n++] = dev;
    while (n > 0 && count < most) {
        struct blk_device *d = ahead[--n];
        if (d->file)
            files[count++] = d->file;
        for (size_t i = 0; i < d->child_count && n < FILES_MOST; i++)
            ahead[n++] = d->children[i].dev;
    }
    return count;
}

int co_blk_want_child(struct blk_device *dev, struct blk_opener *opener, const char *role,
                      unsigned open_flags, struct blk_device **out, struct blk_error *e)
{
    if (!blk_child(dev, role)) {
        if (!opener)
            return err_set(e, -EINVAL, "%s needs \"%s\"", dev->driver->name, role);
        TRY(co_opener_child(opener, dev, role, open_flags, e));
    }
    if (out)
        *out = blk_child(dev, role);
    return 0;
}

void blk_inherit_limits(struct blk_device *dev, const struct blk_device *child)
{
    const struct blk_limits *from = &child->limits;
    struct blk_limits *to = &dev->limits;
    to->optimal_transfer = from->optimal_transfer;
    to->discard_granularity = from->discard_granularity;
    to->fresh_reads_zero = from->fresh_reads_zero;
    to->discard_reads_zero = from->discard_reads_zero;
    to->can_zero_fast = from->can_zero_fast;
    to->can_unmap = from->can_unmap;
}

struct blk_device *blk_ref(struct blk_device *dev)
{
    assert(dev->refs > 0);
    dev->refs++;
    return dev;
}

const struct blk_driver *blk_find_driver(const struct blk_driver *const *list, const char *name)
{
    for (; *list; list++) {
        if (strcmp((*list)->name, name) == 0)
            return *list;
    }
    return NULL;
}

/* --- gate, drain, close ------------------------------------------------------------------------
 */

void co_blk_gate_wait(struct blk_device *dev)
{
    while (dev->gate && dev->gate != co_self())
        co_queue_wait(&dev->gate_waiters);
}

/* Holds elsewhere are few and short; nobody is told of their end. */
void co_blk_drain(struct blk_device *dev)
{
    while (dev->in_flight > 0)
        co_queue_wait(&dev->idle);
    while (__atomic_load_n(&dev->holds, __ATOMIC_SEQ_CST) > 0)
        co_sleep(HOLDS_POLL_NS);
}

/* --- other workers that look through devices of this home ---------------------------------------
 */

void blk_open_lane(struct blk_device *dev)
{
    assert(worker_self() == dev->home);
    dev->home->requests.lanes = true;
}

static int co_nothing(void *arg)
{
    return 0;
}

/* What they look at, they look at within one step: who has taken a message since sees no more of
 * it. */
static void co_lanes_pass(struct worker *home)
{
    struct runtime *rt = home->runtime;
    if (!home->requests.lanes)
        return;
    for (unsigned i = 0; i < runtime_workers(rt); i++)
        co_on(runtime_worker(rt, i), co_nothing, NULL);
}

static void co_shut(struct blk_device *dev, struct co *holder)
{
    __atomic_store_n(&dev->gate, holder, __ATOMIC_SEQ_CST);
    co_lanes_pass(dev->home);
    co_blk_drain(dev);
}

void co_blk_gate_close(struct blk_device *dev)
{
    assert(worker_self() == dev->home);
    co_blk_gate_wait(dev);
    assert(!dev->gate);
    co_shut(dev, co_self());
}

void blk_gate_open(struct blk_device *dev)
{
    __atomic_store_n(&dev->gate, NULL, __ATOMIC_SEQ_CST);
    co_queue_wake_all(&dev->gate_waiters);
}

/* A request of the device, but of no epoch: nothing that it stands on is ever reused. */
bool blk_hold(struct blk_device *dev)
{
    if (worker_self() == dev->home) {
        if (dev->gate)
            return false;
        dev->in_flight++;
        return true;
    }
    __atomic_add_fetch(&dev->holds, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&dev->gate, __ATOMIC_SEQ_CST))
        return true;
    __atomic_sub_fetch(&dev->holds, 1, __ATOMIC_SEQ_CST);
    return false;
}

void co_blk_stay(struct blk_device *dev)
{
    co_blk_gate_wait(dev);
    dev->in_flight++;
}

void blk_release(struct blk_device *dev)
{
    if (worker_self() != dev->home) {
        __atomic_sub_fetch(&dev->holds, 1, __ATOMIC_SEQ_CST);
        return;
    }
    assert(dev->in_flight > 0);
    if (--dev->in_flight == 0 && !co_queue_empty(&dev->idle))
        co_queue_wake_all(&dev->idle);
}

/* Nobody is this coroutine, so nobody passes. */
static struct co *nobody(struct blk_device *dev)
{
    return (struct co *)(void *)&dev->gate;
}

void co_blk_halt(struct blk_device *dev)
{
    assert(worker_self() == dev->home);
    co_blk_gate_wait(dev);
    co_shut(dev, nobody(dev));
}

void blk_go_on(struct blk_device *dev)
{
    assert(worker_self() == dev->home && dev->gate == nobody(dev));
    blk_gate_open(dev);
}

void blk_epoch_ended(struct worker *w)
{
    co_queue_wake_all(&w->requests.ended);
}

/* A request that resolved through @dev entered anywhere above it: so all that are in flight at this
 * home are waited for. */
void co_blk_quiesce(struct blk_device *dev)
{
    struct worker *w = dev->home;
    assert(worker_self() == w);
    co_mutex_lock(&w->requests.one_waiter);
    unsigned old = w->requests.epoch;
    assert(w->requests.in_flight[!old] == 0);
    w->requests.epoch = !old;
    while (w->requests.in_flight[old] > 0)
        co_queue_wait(&w->requests.ended);
    co_lanes_pass(w);
    co_mutex_unlock(&w->requests.one_waiter);
}

/* Puts the devices of @dev's children whose last reference this was at the end of the list. */
static struct blk_device *release_children(struct blk_device *dev, struct blk_device *last)
{
    no_backing(dev);
    for (size_t i = 0; i < dev->child_count; i++) {
        struct blk_device *child = dev->children[i].dev;
        assert(child->refs > 0);
        if (--child->refs > 0)
            continue;
        child->next_closing = NULL;
        last->next_closing = child;
        last = child;
    }
    return last;
}

static int close_one(struct blk_device *dev, struct blk_error *e)
{
    co_blk_drain(dev);
    if (!dev->driver->co_close)
        return 0;
    struct blk_error own = {0};
    int rc = dev->driver->co_close(dev, &own);
    if (rc < 0 && e)
        *e = own;
    return rc;
}

static int close_at_home(void *arg)
{
    struct blk_call *call = arg;
    struct blk_device *dev = call->dev;
    assert(dev->refs > 0);
    if (--dev->refs > 0)
        return 0;
    int first = 0;
    struct blk_device *last = dev;
    dev->next_closing = NULL;
    while (dev) {
        int rc = close_one(dev, first == 0 ? call->error : NULL);
        if (first == 0)
            first = rc;
        last = release_children(dev, last);
        struct blk_device *next = dev->next_closing;
        blk_tell(dev, BLK_EV_CLOSED);
        device_free(dev);
        dev = next;
    }
    return first;
}

int co_blk_close(struct blk_device *dev, struct blk_error *e)
{
    if (!dev)
        return 0;
    struct blk_call call = {.dev = dev, .error = e};
    return co_on(dev->home, close_at_home, &call);
}

/* --- events ------------------------------------------------------------------------------------
 */

void blk_listen(struct blk_device *dev, struct blk_listener *l)
{
    l->next = dev->listeners;
    dev->listeners = l;
}

void blk_unlisten(struct blk_device *dev, struct blk_listener *l)
{
    struct blk_listener **at = &dev->listeners;
    while (*at && *at != l)
        at = &(*at)->next;
    if (*at)
        *at = l->next;
}

void blk_tell(struct blk_device *dev, enum blk_event ev)
{
    struct blk_listener *next;
    for (struct blk_listener *l = dev->listeners; l; l = next) {
        next = l->next; /* it may take itself off */
        l->on_event(l, dev, ev);
    }
}

void blk_mark_corrupt(struct blk_device *dev)
{
    if (dev->marked_corrupt)
        return;
    dev->marked_corrupt = true;
    dev->writable = false;
    blk_tell(dev, BLK_EV_MARKED_CORRUPT);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* inner.c - devices inside a container, as the waist offers them: listed, made, deleted, grown.
 * Opening one is device.c's.
 *
 * What is changed closes the container's gate: its requests in flight end first, new ones wait. */
#include "block/waist.h"

struct inner_call {
    struct blk_device *dev;
    struct blk_inner **list;
    size_t *count;
    const struct opts *opts;
    const char *name;
    char **made;
    uint64_t *bytes;
    struct blk_error *e;
};

static int list_at_home(void *arg)
{
    struct inner_call *c = arg;
    return c->dev->driver->co_inner_list(c->dev, c->list, c->count, c->e);
}

int co_blk_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                      struct blk_error *e)
{
    *out = NULL;
    *count = 0;
    if (!dev->driver->co_inner_list)
        return 0;
    struct inner_call c = {.dev = dev, .list = out, .count = count, .e = e};
    return co_on(dev->home, list_at_home, &c);
}

struct container_call {
    struct blk_device *dev, **out;
    const char *name;
    struct blk_error *e;
};

static int container_at_home(void *arg)
{
    struct container_call *c = arg;
    return c->dev->driver->co_inner_container(c->dev, c->name, c->out, c->e);
}

int co_blk_inner_container(struct blk_device *container, const char *name, struct blk_device **out,
                           struct blk_error *e)
{
    struct container_call c = {container, out, name, e};
    if (!container->driver->co_inner_container)
        return -ENOENT;
    return co_on(container->home, container_at_home, &c);
}

void blk_inner_drop(struct blk_inner *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free(list[i].name);
        mem_free(list[i].kind);
    }
    mem_free(list);
}

struct member_call {
    const struct blk_driver *driver;
    struct blk_device *dev;
    struct blk_member *out;
    struct blk_error *e;
};

static int member_of_at_home(void *arg)
{
    struct member_call *c = arg;
    return c->driver->co_member_of(c->dev, c->out, c->e);
}

int co_blk_member_of(const struct blk_driver *driver, struct blk_device *dev,
                     struct blk_member *out, struct blk_error *e)
{
    struct member_call c = {driver, dev, out, e};
    *out = (struct blk_member){0};
    if (!driver->co_member_of)
        return -ENODATA;
    return co_on(dev->home, member_of_at_home, &c);
}

/* --- changes -----------------------------------------------------------------------------------
 */

static int may_change(struct blk_device *dev, const void *operation, struct blk_error *e)
{
    if (!operation)
        return err_set(e, -ENOTSUP, "what is inside a device of the driver %s is not changed here",
                       dev->driver->name);
    return dev->writable ? 0 : err_set(e, -EROFS, "%s is read-only", dev->name);
}

/* @change at home, with the gate closed. */
static int co_change(struct inner_call *c, int (*change)(struct inner_call *c))
{
    co_blk_gate_close(c->dev);
    int rc = change(c);
    blk_gate_open(c->dev);
    return rc;
}

static int add(struct inner_call *c)
{
    return c->dev->driver->co_inner_add(c->dev, c->opts, c->made, c->e);
}

static int add_at_home(void *arg)
{
    return co_change(arg, add);
}

int co_blk_inner_add(struct blk_device *dev, const struct opts *opts, char **name,
                     struct blk_error *e)
{
    struct inner_call c = {.dev = dev, .opts = opts, .made = name, .e = e};
    *name = NULL;
    TRY(may_change(dev, (const void *)dev->driver->co_inner_add, e));
    return co_on(dev->home, add_at_home, &c);
}

static int delete (struct inner_call *c)
{
    return c->dev->driver->co_inner_delete(c->dev, c->name, c->e);
}

static int delete_at_home(void *arg)
{
    return co_change(arg, delete);
}

int co_blk_inner_delete(struct blk_device *dev, const char *name, struct blk_error *e)
{
    struct inner_call c = {.dev = dev, .name = name, .e = e};
    TRY(may_change(dev, (const void *)dev->driver->co_inner_delete, e));
    return co_on(dev->home, delete_at_home, &c);
}

static int grow(struct inner_call *c)
{
    return c->dev->driver->co_inner_grow(c->dev, c->name, c->bytes, c->e);
}

static int grow_at_home(void *arg)
{
    return co_change(arg, grow);
}

int co_blk_inner_grow(struct blk_device *dev, const char *name, uint64_t *bytes,
                      struct blk_error *e)
{
    struct inner_call c = {.dev = dev, .name = name, .bytes = bytes, .e = e};
    TRY(may_change(dev, (const void *)dev->driver->co_inner_grow, e));
    return co_on(dev->home, grow_at_home, &c);
}

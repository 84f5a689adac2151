/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lib/on_host.h"

int on_this_host(struct host *h, int (*fn)(void *arg), void *arg)
{
    struct runtime_options o = {.host = h, .workers = 1};
    struct runtime *rt;
    int rc = runtime_open(&o, &rt);
    if (rc < 0) {
        fprintf(stderr, "no runtime: %s\n", strerror(-rc));
        abort();
    }
    rc = runtime_run(rt, fn, arg);
    runtime_close(rt);
    return rc;
}

int on_host(const char *kind, int (*fn)(void *arg), void *arg)
{
    struct host *h;
    int rc = host_open(kind, &h);
    if (rc < 0) {
        fprintf(stderr, "no host: %s\n", strerror(-rc));
        abort();
    }
    rc = on_this_host(h, fn, arg);
    host_close(h);
    return rc;
}

int co_try_open_text(const struct blk_driver *driver, const char *options, unsigned open_flags,
                     struct blk_device *child, struct blk_device **out, struct blk_error *e)
{
    json_t *tree = json_object();
    int rc = opts_text_to_tree(options, NULL, tree, e);
    if (rc == 0) {
        struct blk_child file = {.role = "file", .dev = child};
        rc = co_blk_open(driver, NULL, tree, open_flags, NULL, &file, child ? 1 : 0, out, e);
    }
    json_decref(tree);
    return rc;
}

struct blk_device *co_open_text(const struct blk_driver *driver, const char *options,
                                struct blk_device *child)
{
    struct blk_error e = {0};
    struct blk_device *dev = NULL;
    if (co_try_open_text(driver, options, BLK_OPEN_WRITE, child, &dev, &e) < 0) {
        fprintf(stderr, "%s,%s: %s\n", driver->name, options, e.text);
        abort();
    }
    return dev;
}

int co_try_create_text(const struct blk_driver *driver, const char *options, struct blk_create *c,
                       struct blk_error *e)
{
    json_t *tree = json_object();
    auto_free struct opts *opts = mem_zalloc(sizeof(*opts)); /* a coroutine's stack is small */
    int rc = opts ? 0 : -ENOMEM;
    if (rc == 0 && options)
        rc = opts_text_to_tree(options, NULL, tree, e);
    if (rc == 0)
        rc = opts_parse(driver->create_options, tree, opts, e);
    json_decref(tree);
    if (rc < 0)
        return rc;
    c->opts = opts;
    rc = driver->co_create(c, e);
    c->opts = NULL;
    opts_drop(opts);
    return rc;
}

void co_create_text(const struct blk_driver *driver, const char *options, struct blk_device *file,
                    uint64_t size)
{
    struct blk_error e = {0};
    struct blk_create c = {.file = file, .size = size};
    if (co_try_create_text(driver, options, &c, &e) < 0) {
        fprintf(stderr, "%s,%s: %s\n", driver->name, options, e.text);
        abort();
    }
}

void co_close_ok(struct blk_device *dev)
{
    struct blk_error e = {0};
    if (co_blk_close(dev, &e) < 0) {
        fprintf(stderr, "close: %s\n", e.text);
        abort();
    }
}

TEST_LOOP const char *fast_folder(void)
{
    const char *told = getenv("LAMINA_SHM");
    if (told && *told)
        return told;
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

bool long_form(void)
{
    const char *text = getenv("LAMINA_LONG");
    return text && *text && strcmp(text, "0") != 0;
}

uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

TEST_LOOP void fill_random(uint64_t *state, void *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)to)[i] = (uint8_t)(next_random(state) >> 32 | 1);
}

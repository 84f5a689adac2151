/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_stack.c - a subject's images over the simulated host: create, open, check, and the foreign
 * checker's opinion of an export. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/on_host.h"
#include "tests/lib/sweep_int.h"

int sweep_on(struct host *host, unsigned workers, int (*fn)(void *arg), void *arg)
{
    struct runtime_options o = {.host = host, .workers = MAX(1U, workers), .pool_threads = 1};
    struct runtime *rt;
    if (runtime_open(&o, &rt) < 0)
        abort();
    int rc = runtime_run(rt, fn, arg);
    runtime_close(rt);
    return rc;
}

void sweep_run_init(struct sweep_run *run, const struct sweep_subject *s, struct host *host,
                    uint64_t seed)
{
    *run = (struct sweep_run){
        .subject = s,
        .host = host,
        .seed = seed,
        .resolver = {.host = host, .drivers = blk_drivers, .trust = TRUST_WRITE},
    };
}

/* --- create -------------------------------------------------------------------------------------
 */

/* The data file of an image that has one, whatever it calls it; what belongs beside the image, by
 * its name. */
static int co_make_data(const struct blk_create *c, const char *name, struct blk_device **out,
                        struct blk_error *e)
{
    struct sweep_run *run = c->arg;
    char path[200];
    snprintf(path, sizeof(path), "/sim/%s", name);
    return co_resolver_open_file(&run->resolver, c->beside ? path : SWEEP_DATA, BLK_OPEN_WRITE,
                                 HOST_CREATE, out, e);
}

static int co_open_image(struct sweep_run *run, const char *path, const char *format,
                         const char *options, struct blk_device **out, struct blk_error *e)
{
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", format, "file", "driver", "file",
                             "filename", path);
    int rc = options ? opts_text_to_tree(options, NULL, tree, e) : 0;
    if (rc == 0)
        rc = co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE, out, e);
    json_decref(tree);
    return rc;
}

/* The backing image, for a driver that writes down which one it is. */
static int co_open_behind(struct sweep_run *run, const char *path, const struct blk_driver *driver,
                          struct blk_device **out, struct blk_error *e)
{
    const struct sweep_backing *b = run->subject->backing;
    *out = NULL;
    if (!b || !driver->knows_backing || strcmp(path, SWEEP_TOP) != 0)
        return 0;
    return co_open_image(run, SWEEP_BASE, b->format, NULL, out, e);
}

static int co_create_image(struct sweep_run *run, const char *path, const char *format,
                           const char *options, uint64_t size, struct blk_error *e)
{
    const struct blk_driver *driver = blk_find_driver(blk_drivers, format);
    struct blk_create c = {.size = size, .co_make_file = co_make_data, .arg = run};
    if (!driver)
        return err_set(e, -ENOENT, "no driver %s", format);
    bool device = run->subject->flags & SWEEP_BLOCK_DEVICE;
    TRY(co_resolver_open_file(&run->resolver, path, BLK_OPEN_WRITE, device ? 0 : HOST_CREATE,
                              &c.file, e));
    int rc = co_open_behind(run, path, driver, &c.backing, e);
    if (rc == 0)
        rc = co_try_create_text(driver, options, &c, e);
    if (rc == 0)
        rc = co_blk_flush(c.file);
    co_blk_close(c.backing, NULL);
    int closed = co_blk_close(c.file, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

/* Known data everywhere, or (@below) in every second piece and behind the end of what lies below.
 */
static int co_fill_base(struct blk_device *dev, const struct sweep_backing *below)
{
    auto_free uint8_t *buf = mem_aligned(64 * KiB);
    for (uint64_t at = 0; at < dev->size;) {
        uint64_t bytes = MIN(64 * KiB, dev->size - at);
        model_fill(MODEL_BASE, at, buf, bytes);
        if (!below || at / (64 * KiB) % 2 || at >= below->size)
            TRY(co_blk_write_buf(dev, at, buf, bytes, 0));
        at += bytes;
    }
    return co_blk_flush(dev);
}

static int co_create_base(struct sweep_run *run, const char *path, const struct sweep_backing *b,
                          struct blk_error *e)
{
    struct blk_device *dev;
    if (b->below)
        TRY(co_create_base(run, SWEEP_ROOT, b->below, e));
    TRY(co_create_image(run, path, b->format, b->create, b->size, e));
    TRY(co_open_image(run, path, b->format, NULL, &dev, e));
    int rc = co_fill_base(dev, b->below);
    int closed = co_blk_close(dev, e);
    return rc < 0 ? rc : closed;
}

int co_sweep_make_base(struct sweep_run *run, struct blk_error *e)
{
    const struct sweep_backing *b = run->subject->backing;
    return b ? co_create_base(run, SWEEP_BASE, b, e) : 0;
}

static int co_create_all(struct sweep_run *run, struct blk_error *e)
{
    const struct sweep_subject *s = run->subject;
    if (s->co_create)
        return s->co_create(run, e);
    TRY(co_sweep_make_base(run, e));
    return co_create_image(run, SWEEP_TOP, s->format, s->create, s->size, e);
}

struct preparing {
    struct sweep_run run;
    struct blk_error e;
};

static int prepare_main(void *arg)
{
    struct preparing *p = arg;
    return co_create_all(&p->run, &p->e);
}

struct host *sweep_prepare(const struct sweep_subject *s, uint64_t seed, struct sweep_verdict *v)
{
    struct sim_options o = {.seed = seed};
    struct host *host, *clean;
    if (host_sim_open(&o, &host) < 0)
        abort();
    if ((s->flags & SWEEP_BLOCK_DEVICE) &&
        host_sim_add_device(host, SWEEP_TOP, sweep_max_size(s) * 2 + 4 * MiB) < 0)
        abort();
    struct preparing p = {.e = {0}};
    sweep_run_init(&p.run, s, host, seed);
    int rc = sweep_on(host, 1, prepare_main, &p);
    if (rc < 0)
        sweep_broke(v, BREAK_REPAIR, "create: %s (%s)", p.e.text, strerror(-rc));
    else if (host_sim_clone(host, seed, &clean) < 0)
        abort();
    host_close(host);
    return rc < 0 ? NULL : clean;
}

int co_sweep_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct sweep_subject *s = run->subject;
    if (s->co_open)
        return s->co_open(run, out, e);
    return co_open_image(run, SWEEP_TOP, s->format, s->open, out, e);
}

/* --- check --------------------------------------------------------------------------------------
 */

struct said {
    char first[300];
};

static void keep_first(struct blk_check *c, const char *sentence)
{
    struct said *s = c->arg; /* c itself may be a driver's copy */
    if (!s->first[0])
        snprintf(s->first, sizeof(s->first), "%s", sentence);
}

int co_sweep_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                   struct blk_error *e)
{
    *bad = 0;
    if (run->subject->co_check)
        return run->subject->co_check(run, dev, bad, e);
    struct said s = {0};
    struct blk_check check = {.say = keep_first, .arg = &s};
    int rc = co_blk_check(dev, &check, e);
    if (rc == -ENOTSUP)
        return 0;
    *bad = check.corruptions + check.check_errors;
    if (rc == 0 && *bad)
        err_set(e, -EIO, "%s", s.first);
    return rc;
}

#define HASH_BYTES (64 * KiB)

int co_sweep_hash(struct blk_device *dev, uint64_t *hash)
{
    uint8_t *buf = aligned_alloc(4096, HASH_BYTES); /* of no matter to the sweep of allocations */
    int rc = buf ? 0 : -ENOMEM;
    *hash = dev->size;
    for (uint64_t at = 0; rc == 0 && at < dev->size; at += HASH_BYTES) {
        uint64_t n = MIN(HASH_BYTES, dev->size - at);
        memset(buf, 0, HASH_BYTES);
        rc = co_blk_read_buf(dev, at, buf, n);
        for (uint64_t i = 0; i < HASH_BYTES; i += 8) {
            uint64_t word;
            memcpy(&word, buf + i, 8);
            *hash = (*hash ^ word) * 0x9e3779b97f4a7c15ULL;
            *hash ^= *hash >> 29;
        }
    }
    free(buf);
    return rc;
}

/* --- the foreign checker ------------------------------------------------------------------------
 */

static int ask(const struct sweep_subject *s, const char *dir, char *text, size_t room)
{
    char command[400], line[300];
    /* A data file is looked for from where qemu-img was started. */
    if (s->foreign_command)
        snprintf(command, sizeof(command), "cd %s && %s 2>&1", dir, s->foreign_command);
    else
        snprintf(command, sizeof(command), "cd %s && qemu-img check -f %s top.img 2>&1", dir,
                 s->foreign);
    FILE *out = popen(command, "r");
    if (!out)
        return -errno;
    size_t at = 0;
    text[0] = 0;
    while (fgets(line, sizeof(line), out))
        if (at + strlen(line) < room)
            at += (size_t)snprintf(text + at, room - at, "%s", line);
    int status = pclose(out);
    if (!WIFEXITED(status) || WEXITSTATUS(status) == 127)
        return -ENOENT;
    if (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3)
        return 1;
    return s->foreign_ok && s->foreign_ok(text);
}

int sweep_foreign(const struct sweep_subject *s, const struct host *host, char *text, size_t room)
{
    char dir[200], top[240], base[240], root[240], data[240];
    snprintf(dir, sizeof(dir), "%s/sweep.XXXXXX", fast_folder());
    if (!mkdtemp(dir))
        return -errno;
    snprintf(top, sizeof(top), "%s/top.img", dir);
    snprintf(base, sizeof(base), "%s/base.img", dir);
    snprintf(data, sizeof(data), "%s/data.img", dir);
    snprintf(root, sizeof(root), "%s/root.img", dir);
    int rc = host_sim_export(host, SWEEP_TOP, top);
    if (rc == 0 && s->backing)
        rc = host_sim_export(host, SWEEP_BASE, base);
    if (rc == 0 && s->backing && s->backing->below)
        rc = host_sim_export(host, SWEEP_ROOT, root);
    if (rc == 0 && s->create && strstr(s->create, "data_file="))
        rc = host_sim_export(host, SWEEP_DATA, data);
    if (rc == 0)
        rc = ask(s, dir, text, room);
    unlink(data);
    unlink(top);
    unlink(base);
    unlink(root);
    rmdir(dir);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* luks.c - the proof over encrypted images: LUKS over raw, with pass phrases added and erased
 * before every opening; and inside qcow2. What was never written of LUKS over raw reads as noise,
 * so the disk is filled with zeroes first. */
#include "imgfmt/luks.h"
#include "imgfmt/qcow2.h"
#include "tests/lib/model.h"
#include "tests/sweep.h"

#define ANY                                                                              \
    .write = 30, .fua = 3, .zeroes = 5, .unmap = 3, .read = 10, .flush = 6, .reopen = 2, \
    .kill = 1, .hot = 4

static const struct sweep_profile small = {ANY};
static const struct sweep_profile big = {ANY, .max_bytes = 300 * KiB};
static const struct sweep_backing base = {.format = "raw", .size = 768 * KiB};
static const struct sweep_profile inside = {ANY, .discard = 5, .max_bytes = 200 * KiB, .resize = 1};
static const struct sweep_profile packing = {ANY, .discard = 4, .compressed = 10};
static const struct sweep_profile opening = {ANY, .max_bytes = 16 * KiB, .discard = 2};

/* The secret "key" is there while an image is made or opened. */
static int co_take_key(struct sweep_run *run, struct blk_error *e)
{
    struct resolver face = run->resolver; /* only there a secret may be told as it is */
    face.trust = TRUST_FACE;
    TRY(co_resolver_add_object(&face, "secret,id=other,data=opensesame", e));
    int rc = co_resolver_add_object(&face, "secret,id=key,data=sesame", e);
    run->resolver.secrets = face.secrets;
    if (rc < 0)
        resolver_drop(&run->resolver);
    return rc;
}

static int co_open_plain(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    bool within = strcmp(run->subject->format, "qcow2") == 0;
    json_t *tree = json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", run->subject->format,
                             within ? "encrypt.key-secret" : "key-secret", "key", "file", "driver",
                             "file", "filename", SWEEP_TOP);
    int rc = co_take_key(run, e);
    if (rc == 0)
        rc = co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE, out, e);
    resolver_drop(&run->resolver);
    json_decref(tree);
    return rc;
}

/* --- create ----------------------------------------------------------------------------------- */

static int co_make(struct sweep_run *run, const struct blk_driver *driver, struct blk_device *file,
                   struct blk_error *e)
{
    json_t *tree = json_object();
    struct opts opts = {0};
    const struct sweep_subject *s = run->subject;
    int rc = opts_text_to_tree(s->create, NULL, tree, e);
    if (rc == 0)
        rc = opts_parse(driver->create_options, tree, &opts, e);
    json_decref(tree);
    TRY(rc);
    rc = co_take_key(run, e);
    opts.secrets = &run->resolver;
    struct blk_create c = {.file = file, .opts = &opts, .size = s->size};
    if (rc == 0)
        rc = driver->co_create(&c, e);
    resolver_drop(&run->resolver);
    opts_drop(&opts);
    return rc;
}

static int co_fill(struct blk_device *dev, int rc, struct blk_error *e)
{
    if (rc == 0)
        rc = co_blk_write_zeroes(dev, 0, dev->size, 0);
    if (rc == 0)
        rc = co_blk_flush(dev);
    int closed = co_blk_close(dev, e);
    return rc < 0 ? rc : closed;
}

static int co_create_file(struct sweep_run *run, const struct blk_driver *driver,
                          struct blk_error *e)
{
    struct blk_device *dev;
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, HOST_CREATE, &dev, e));
    int rc = co_make(run, driver, dev, e);
    int closed = co_blk_close(dev, e);
    return rc < 0 ? rc : closed;
}

static int co_create_qcow2(struct sweep_run *run, struct blk_error *e)
{
    return co_create_file(run, &qcow2_driver, e);
}

/* On a raw image: what lies around a write is copied from there, and encrypted at its place. */
static int co_create_over(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *file;
    uint64_t bytes = run->subject->backing->size;
    auto_free uint8_t *buf = mem_aligned(bytes);
    TRY(co_resolver_open_file(&run->resolver, SWEEP_BASE, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = buf ? 0 : -ENOMEM;
    if (rc == 0) {
        model_fill(MODEL_BASE, 0, buf, bytes);
        rc = co_blk_write_buf(file, 0, buf, bytes, 0);
    }
    if (rc == 0)
        rc = co_blk_flush(file);
    int closed = co_blk_close(file, e);
    TRY(rc < 0 ? rc : closed);
    return co_create_file(run, &qcow2_driver, e);
}

static int co_create_luks(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *dev;
    TRY(co_create_file(run, &luks_driver, e));
    TRY(co_open_plain(run, &dev, e));
    return co_fill(dev, 0, e);
}

/* --- pass phrases that come and go ------------------------------------------------------------ */

static int co_amend(struct sweep_run *run, struct blk_device *dev, const char *what,
                    struct blk_error *e)
{
    json_t *tree = json_object();
    struct opts opts = {0};
    int rc = opts_text_to_tree(what, NULL, tree, e);
    if (rc == 0)
        rc = opts_parse(luks_driver.amend_options, tree, &opts, e);
    json_decref(tree);
    TRY(rc);
    rc = co_take_key(run, e);
    opts.secrets = &run->resolver;
    if (rc == 0)
        rc = co_blk_amend(dev, &opts, e);
    resolver_drop(&run->resolver);
    opts_drop(&opts);
    return rc;
}

/* How many slots are in use, by the header on disk. */
static int co_slots(struct blk_device *dev, unsigned *count, struct blk_error *e)
{
    struct luks_where w = {.file = blk_child(dev, "file"), .own_payload = true};
    struct luks *l = mem_alloc(sizeof *l);
    int rc = l ? co_luks_read(&w, l, e) : err_set(e, -ENOMEM, "out of memory");
    *count = 0;
    for (unsigned i = 0; rc == 0 && i < l->slot_count; i++)
        *count += l->slots[i].active;
    mem_free(l);
    return rc;
}

/* Adds a pass phrase, or erases it again; what cannot be done now is left. */
static int co_open_amending(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    unsigned count = 0;
    TRY(co_open_plain(run, out, e));
    int rc = co_slots(*out, &count, e);
    if (rc == 0)
        rc = co_amend(run, *out,
                      count == 1 ? "state=active,new-secret=other,iterations=1"
                                 : "state=inactive,old-secret=other",
                      e);
    if (rc < 0)
        co_blk_close(*out, NULL);
    return rc;
}

#define INSIDE .format = "qcow2", .co_create = co_create_qcow2, .co_open = co_open_plain
#define KEY                                                                                       \
    "encrypt.format=luks,encrypt.key-secret=key,encrypt.iterations=1,encrypt.cipher-alg=aes-128," \
    "encrypt.hash-alg=sha1"
#define LUKS .format = "luks", .co_create = co_create_luks, .co_open = co_open_plain

static const struct sweep_subject rows[] = {
    {.name = "luks",
     LUKS,
     .size = 512 * KiB,
     .create = "cipher-alg=aes-128,iterations=1,key-secret=key",
     .profile = &small},
    {.name = "luks-cbc-odd",
     LUKS,
     .size = 300 * KiB + 1536,
     .granule = 512,
     .create = "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,iterations=1,key-secret=key",
     .profile = &small},
    {.name = "luks-big-requests",
     LUKS,
     .size = 1 * MiB,
     .create = "cipher-alg=aes-128,cipher-mode=cbc,iterations=1,key-secret=key",
     .profile = &big},
    {.name = "luks-two-workers",
     LUKS,
     .size = 512 * KiB,
     .create = "cipher-alg=aes-128,cipher-mode=cbc,iterations=1,key-secret=key",
     .profile = &small,
     .workers = 2},
    {.name = "luks-amend",
     .format = "luks",
     .co_create = co_create_luks,
     .co_open = co_open_amending,
     .size = 64 * KiB,
     .create = "cipher-alg=aes-128,cipher-mode=cbc,hash-alg=sha1,iterations=1,key-secret=key",
     .profile = &opening},
    {.name = "qcow2-luks", INSIDE, .size = 1 * MiB, .create = KEY, .profile = &inside},
    {.name = "qcow2-luks-4k",
     INSIDE,
     .size = 1 * MiB,
     .create = KEY ",cluster_size=4k,encrypt.cipher-mode=cbc",
     .profile = &inside},
    {.name = "qcow2-luks-v2",
     INSIDE,
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .create = KEY ",compat=0.10,cluster_size=16k",
     .profile = &packing},
    {.name = "qcow2-luks-over-a-base",
     .format = "qcow2",
     .co_create = co_create_over,
     .co_open = co_open_plain,
     .size = 1 * MiB,
     .granule = 512,
     .backing = &base,
     .create = KEY ",cluster_size=4k,backing_file=base.img,backing_fmt=raw",
     .profile = &inside},
    {.name = "qcow2-luks-subclusters",
     INSIDE,
     .size = 1 * MiB,
     .create = KEY ",extended_l2=on,cluster_size=32k",
     .profile = &inside},
    {.name = "qcow2-luks-two-workers",
     INSIDE,
     .size = 1 * MiB,
     .create = KEY,
     .profile = &inside,
     .workers = 2},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 1000, 3000);
}

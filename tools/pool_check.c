/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_check.c - `lamina pool check` and `repair`: is a pool's metadata sound; and what can be read
 * of damaged metadata, written anew. Exit status: 0 sound, 1 not, or it could not be found out. */
#include "tools/pool.h"
#include "volumes/thin.h"
#include "volumes/thin_build.h"
#include "volumes/thin_check.h"

enum { ARG_SKIP_MAPPINGS = ARG_LONG, ARG_CLEAR, ARG_SUPER_ONLY };

/* --- check ------------------------------------------------------------------------------------
 */

struct check {
    struct task task;
    struct image image;
    struct thin_check found;
    bool clear, super_only;
};

static void say(struct thin_check *c, const char *sentence)
{
    fprintf(stderr, "%s\n", sentence);
}

/* The flag alone is changed, in the superblock's one sector. */
static int co_clear_flag(struct check *c, struct blk_device *dev)
{
    struct thin_meta m;
    struct blk_error *e = &c->task.error;
    TRY(co_thin_meta_open(&m, dev, NULL, false, 0, e));
    m.super.flags &= ~THIN_NEEDS_CHECK;
    thin_super_encode(&m.super, m.super_block);
    int rc = co_blk_write_buf(dev, 0, m.super_block, THIN_BLOCK, BLK_FUA);
    thin_meta_close(&m);
    return rc < 0 ? err_errno(e, rc, "the superblock could not be written") : 0;
}

static int co_check_super(struct check *c, struct blk_device *dev)
{
    struct thin_meta m;
    TRY(co_thin_meta_open(&m, dev, NULL, false, 0, &c->task.error));
    thin_meta_close(&m);
    return 0;
}

static int co_check_body(struct task *t)
{
    struct check *c = container_of(t, struct check, task);
    struct blk_device *dev;
    TRY(co_image_open(t->tool, &c->image, &dev, &t->error));
    int rc = c->super_only ? co_check_super(c, dev) : co_thin_check(dev, &c->found, &t->error);
    if (rc == 0 && c->clear && !c->found.errors)
        rc = co_clear_flag(c, dev);
    if (rc < 0)
        blk_next_after_open(&thin_driver, dev->name, &t->error);
    return co_image_close(dev, rc, &t->error);
}

static const struct arg_desc check_options[] = {
    ARG_IMAGE_FORMAT,
    ARG_IMAGE_OPTIONS,
    {ARG_SKIP_MAPPINGS, "skip-mappings", NULL, "do not read the devices' mappings", 0, false},
    {ARG_SUPER_ONLY, "super-block-only", NULL, "look at the superblock only", 0, false},
    {ARG_CLEAR, "clear-needs-check-flag", NULL, "if it is sound, the pool may be written again", 0,
     false},
    ARG_QUIET,
    ARG_END};

static int run_check(struct tool *t, int argc, char **argv)
{
    struct check c = {.task = {.tool = t, .kind = "pool check", .co_body = co_check_body},
                      .image = {.trust = TRUST_READ},
                      .found = {.say = say}};
    const struct arg_place places[] = {IMAGE_PLACES(&c.image),
                                       {ARG_SKIP_MAPPINGS, NULL, &c.found.skip_mappings},
                                       {ARG_SUPER_ONLY, NULL, &c.super_only},
                                       {ARG_CLEAR, NULL, &c.clear},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &c};
    int id = image_read(t, &line, &c.image);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (c.clear) {
        c.image.trust = TRUST_WRITE;
        c.image.flags = BLK_OPEN_WRITE;
    }
    if (task_run(&c.task, 1))
        return 1;
    const struct thin_check *f = &c.found;
    struct blk_error e = {0};
    if (f->errors || f->leaks) {
        printf("%" PRIu64 " errors, %" PRIu64 " blocks that are lost\n", f->errors, f->leaks);
        blk_next(&e, POOL_MEND, c.image.text);
        tool_next(t, e.next);
    } else if (!t->quiet && !c.super_only)
        printf("sound: %" PRIu64 " devices, %" PRIu64 " mappings\n", f->devices, f->mappings);
    return f->errors || f->leaks ? 1 : 0;
}

const struct command pool_check_command = {
    .name = "pool check",
    .run = run_check,
    .usage = "pool check [OPTION]... METADATA",
    .summary = "Say whether a pool's metadata is sound, to the last reference",
    .faces = FACE_LAMINA,
    .options = check_options,
    .notes = "  lamina pool check meta.img\n"
             "  lamina pool check --clear-needs-check-flag meta.img",
};

/* --- repair -----------------------------------------------------------------------------------
 */

struct repair {
    bool force;
    struct pool_look look;
    struct image out;
    struct thin_build build;
    uint64_t passed; /* nodes, and mappings that point nowhere */
    uint64_t mapped; /* of this device */
};

static int repair_device(struct thin_reader *r, uint32_t id, const struct thin_detail *d)
{
    struct repair *p = r->arg;
    p->mapped = 0;
    return co_thin_build_device(&p->build, id, d, &p->look.task.error);
}

static int repair_extent(struct thin_reader *r, const struct thin_extent *x)
{
    struct repair *p = r->arg;
    struct thin_extent there = *x;
    uint64_t blocks = p->build.m.space.root.blocks;
    there.length = x->data < blocks ? MIN(x->length, blocks - x->data) : 0;
    p->passed += x->length - there.length;
    p->mapped += there.length;
    return there.length ? co_thin_build_extent(&p->build, &there, &p->look.task.error) : 0;
}

static int repair_device_end(struct thin_reader *r)
{
    struct repair *p = r->arg;
    p->build.detail.mapped = p->mapped;
    return co_thin_build_device_end(&p->build, &p->look.task.error);
}

static int co_rebuild(struct repair *p, struct blk_device *to)
{
    struct thin_reader r = {.device = repair_device,
                            .extent = repair_extent,
                            .device_end = repair_device_end,
                            .arg = p};
    struct blk_error *e = &p->look.task.error;
    TRY(co_thin_build_begin(&p->build, to, &p->look.meta.super, e));
    int rc = co_thin_read(&p->look.meta, NULL, &r);
    if (rc < 0 && !e->rc)
        err_errno(e, rc, "the mappings cannot be read");
    p->passed += r.bad;
    return co_thin_build_end(&p->build, rc, e);
}

static int co_repair(struct pool_look *l)
{
    struct repair *p = container_of(l, struct repair, look);
    struct blk_device *to;
    TRY(co_pool_output_open(l->task.tool, &p->out, p->force, &to, &l->task.error));
    return co_image_close(to, co_rebuild(p, to), &l->task.error);
}

static const struct arg_desc repair_options[] = {
    {'i', "input", "METADATA", "the damaged metadata; nothing is written there", 0, false},
    {'o', "output", "METADATA", "where it is written anew; the pool that it holds is lost", 0,
     false},
    {'f', "format", "FORMAT", "the output's format (else it is found out)", 0, false},
    ARG_POOL_FORCE,
    ARG_QUIET,
    ARG_END};

static int run_repair(struct tool *t, int argc, char **argv)
{
    struct repair p = {.look = {.task.tool = t, .co_look = co_repair},
                       .out = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE}};
    const struct arg_place places[] = {{'i', &p.look.image.text, NULL},
                                       {'o', &p.out.text, NULL},
                                       {'f', &p.out.format, NULL},
                                       {ARG_POOL_FORCE_ID, NULL, &p.force},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &p};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (!p.look.image.text || !p.out.text || line.argc)
        return tool_misuse(t, "expecting --input METADATA and --output METADATA");
    int rc = pool_look_run(&p.look);
    if (rc == 0 && p.passed)
        printf("%" PRIu64 " damaged parts were left out\n", p.passed);
    return rc;
}

const struct command pool_repair_command = {
    .name = "pool repair",
    .run = run_repair,
    .usage = "pool repair --input METADATA --output METADATA",
    .summary = "Write what can be read of damaged metadata to another device",
    .faces = FACE_LAMINA,
    .options = repair_options,
    .notes = "The superblock must be readable. Space maps are not: they are made anew.\n"
             "\n"
             "  truncate -s 4M fixed.img\n"
             "  lamina pool repair -i meta.img -o fixed.img",
};

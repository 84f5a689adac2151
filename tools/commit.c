/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.c - puts what an overlay holds into an image below it. */
#include "block/chain.h"
#include "tools/task.h"

enum { ARG_IMAGE_OPTS = ARG_LONG, ARG_OBJECT };

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "the overlay's format (else it is found out)", 0, false},
    {'b', "base", "BASE", "down to this image of the chain (else the next one); implies -d", 0,
     false},
    {'d', "keep", NULL, "the overlay keeps what it holds", 0, false},
    {'t', "cache", "MODE", "none, writeback (the default), writethrough, directsync, unsafe", 0,
     false},
    {'r', "rate-limit", "RATE", "at most RATE bytes a second", 0, false},
    {ARG_IMAGE_OPTS, "image-opts", NULL, "IMAGE is driver=...,key=value or json:{...}", 0, false},
    {ARG_OBJECT, "object", "OBJECT", "a secret: secret,id=NAME,file=FILE", 0, false},
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_END};

struct commit {
    struct task task;
    struct image image;
    const char *base;
    bool keep;
};

/* True if both names lead to one file. */
static bool co_same_file(struct host *h, const char *a, const char *b)
{
    struct host_stat sa, sb;
    return co_host_stat(h, a, &sa) == 0 && co_host_stat(h, b, &sb) == 0 && sa.device == sb.device &&
           sa.inode == sb.inode;
}

/* True if @dev stands on what the caller calls @name: as the image writes it, or by its file. */
static int co_stands_on(struct commit *c, struct blk_device *dev, const char *name, bool *yes)
{
    struct blk_info info;
    TRY(co_blk_info(dev, &info, &c->task.error));
    const char *full = info.full_backing_name;
    *yes = (info.backing_name && strcmp(info.backing_name, name) == 0) ||
           (full && (strcmp(full, name) == 0 || co_same_file(c->task.tool->host, full, name)));
    blk_info_drop(&info);
    return 0;
}

static int co_find_base(struct commit *c, struct blk_device *top, struct blk_device **base)
{
    bool found = !c->base;
    struct blk_device *over = top;
    *base = blk_child(top, "backing");
    while (!found && *base) {
        TRY(co_stands_on(c, over, c->base, &found));
        if (found)
            break;
        over = *base;
        *base = blk_child(over, "backing");
    }
    if (*base)
        return 0;
    if (c->base)
        return err_set(&c->task.error, -EINVAL, "Did not find '%s' in the backing chain of '%s'",
                       c->base, c->image.text);
    return err_set(&c->task.error, -EINVAL, "Image does not have a backing file");
}

static int co_commit(struct commit *c, struct blk_device *top)
{
    struct blk_commit work = {.top = top, .keep = c->keep, .job = &c->task.job};
    TRY(co_find_base(c, top, &work.base));
    TRY(co_blk_reopen(work.base, true, &c->task.error));
    return co_blk_commit(&work, &c->task.error);
}

static int co_body(struct task *t)
{
    struct commit *c = container_of(t, struct commit, task);
    struct blk_device *top;
    TRY(co_image_open(t->tool, &c->image, &top, &t->error));
    int rc = co_commit(c, top);
    return co_image_close(top, rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

static int option(struct commit *c, int id, const char *value)
{
    struct tool *t = c->task.tool;
    switch (id) {
    case 'f':
        c->image.format = value;
        return 0;
    case 'b':
        c->base = value;
        c->keep = true; /* images between would show what base does not show any more */
        return 0;
    case 'd':
        c->keep = true;
        return 0;
    case 't':
        c->image.cache = value;
        return 0;
    case 'r':
        return size_told(t, "rate limit", value, &c->task.rate) ? 0 : ARGS_BAD;
    case ARG_IMAGE_OPTS:
        c->image.image_opts = true;
        return 0;
    default:
        return tool_add_object(t, value) ? 0 : ARGS_BAD;
    }
}

static int parse(struct commit *c, int argc, char **argv)
{
    struct args a;
    const char *value;
    char **words;
    int id, rc = 0;
    if (args_init(&a, c->task.tool, argc, argv) < 0)
        return ARGS_BAD;
    while (rc == 0 && (id = args_next(&a, &value)) >= 0)
        rc = option(c, id, value);
    int left = args_operands(&a, &words);
    args_drop(&a);
    if (rc < 0 || id != ARGS_END)
        return rc < 0 ? rc : id;
    if (left != 1) {
        tool_misuse(c->task.tool, "Expecting one image file name");
        return ARGS_BAD;
    }
    c->image.text = words[0];
    if (!c->image.cache || cache_known(c->image.cache))
        return ARGS_END;
    tool_error(c->task.tool, "Invalid cache option: %s", c->image.cache);
    return ARGS_BAD;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct commit c = {.task = {.tool = t, .kind = "commit", .co_body = co_body},
                       .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE}};
    int id = parse(&c, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    int rc = task_run(&c.task, 0);
    if (rc == 0 && !t->quiet)
        puts("Image committed.");
    return rc;
}

const struct command commit_command = {
    .name = "commit",
    .run = run,
    .usage = "commit [OPTION]... IMAGE",
    .summary = "Put what an overlay holds into the image it stands on",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes = "IMAGE shows the same as before at every instant, and is empty afterwards. Other "
             "overlays\nof the same base, and images between IMAGE and BASE, show garbage "
             "afterwards.\n"
             "\n"
             "  lamina commit vm1.qcow2\n"
             "  lamina commit -b base.qcow2 vm1-tuesday.qcow2",
};

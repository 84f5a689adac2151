/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.c - puts what an overlay holds into an image below it. */
#include "block/chain.h"
#include "tools/task.h"

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {'b', "base", "BASE", "down to this image of the chain (else the next one); implies -d", 0,
     false},
    {'d', "keep", NULL, "the overlay keeps what it holds", FACE_LAMINA, false},
    {'d', "drop", NULL, "the overlay keeps what it holds", FACE_IMG, false},
    {'t', "cache", "MODE", "none, writeback (the default), writethrough, directsync, unsafe", 0,
     false},
    {'r', "rate-limit", "RATE", "at most RATE bytes a second", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
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
    const struct tool *t = c->task.tool;
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
        return err_set(&c->task.error, -EINVAL,
                       tool_words(t,
                                  "'%s' is not in the chain of '%s'; `lamina info "
                                  "--backing-chain` shows what is",
                                  "Did not find '%s' in the backing chain of '%s'"),
                       c->base, c->image.text);
    return err_set(&c->task.error, -EINVAL, "%s",
                   tool_words(t, "the image stands on no other that it could be put into",
                              "Image does not have a backing file"));
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
    return co_image_end(t->tool, top, rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

static int option(void *verb, int id, const char *value)
{
    struct commit *c = verb;
    if (id == 'r')
        return size_told(c->task.tool, "rate limit", value, &c->task.rate) ? 0 : ARGS_BAD;
    c->base = value;
    c->keep = true; /* images between would show what base does not show any more */
    return 0;
}

static int parse(struct commit *c, int argc, char **argv)
{
    const struct arg_place places[] = {IMAGE_PLACES(&c->image),
                                       {'t', &c->image.cache, NULL},
                                       {'d', NULL, &c->keep},
                                       {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, c};
    int id = image_read(c->task.tool, &line, &c->image);
    if (id == ARGS_END && !cache_told(c->task.tool, "cache", c->image.cache))
        return ARGS_BAD;
    return id;
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

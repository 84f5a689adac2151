/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_change.c - `lamina pool new|snap|rm|resize|trim`: what is changed in a pool that is opened
 * whole. All of it is durable when the verb ends. */
#include "tools/pool.h"

static const struct arg_desc options[] = {ARG_IMAGE_OPTIONS, ARG_QUIET, ARG_END};

struct change {
    struct task task;
    struct image image;
    uint32_t ids[2];
    uint64_t bytes; /* of trim */
    bool only_help; /* was asked for and given */
    int (*co_do)(struct change *c, struct thin_pool *p);
};

static int co_new(struct change *c, struct thin_pool *p)
{
    return co_pool_create(p, c->ids[0], &c->task.error);
}

static int co_snap(struct change *c, struct thin_pool *p)
{
    return co_pool_snap(p, c->ids[0], c->ids[1], &c->task.error);
}

static int co_rm(struct change *c, struct thin_pool *p)
{
    return co_pool_delete(p, c->ids[0], &c->task.error);
}

static int co_resize(struct change *c, struct thin_pool *p)
{
    return co_pool_grow(p, &c->task.error);
}

static int co_trim(struct change *c, struct thin_pool *p)
{
    return co_pool_trim(p, &c->bytes, &c->task.error);
}

static int co_body(struct task *t)
{
    struct change *c = container_of(t, struct change, task);
    struct blk_device *dev;
    struct thin_pool *p;
    TRY(co_pool_image_open(t->tool, &c->image, &dev, &p, &t->error));
    return co_image_close(dev, c->co_do(c, p), &t->error);
}

/* A verb that is told a pool and @ids numbers of volumes. */
static int change(struct tool *t, int argc, char **argv, int ids,
                  int (*co_do)(struct change *, struct thin_pool *), struct change *c)
{
    *c = (struct change){.task = {.tool = t, .kind = t->command->name, .co_body = co_body},
                         .co_do = co_do};
    const struct arg_place places[] = {{ARG_IMAGE_OPTIONS_ID, NULL, &c->image.image_opts},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = c};
    int id = args_read(t, &line);
    c->only_help = id == ARGS_HELP;
    if (id != ARGS_END)
        return c->only_help ? 0 : 1;
    if (line.argc != 1 + ids)
        return tool_misuse(t, "expecting: %s", t->command->usage);
    c->image.text = line.argv[0];
    for (int i = 0; i < ids; i++)
        if (!pool_id_told(t, line.argv[1 + i], &c->ids[i]))
            return 1;
    return task_run(&c->task, 1);
}

static int run_new(struct tool *t, int argc, char **argv)
{
    struct change c;
    return change(t, argc, argv, 1, co_new, &c);
}

static int run_snap(struct tool *t, int argc, char **argv)
{
    struct change c;
    return change(t, argc, argv, 2, co_snap, &c);
}

static int run_rm(struct tool *t, int argc, char **argv)
{
    struct change c;
    return change(t, argc, argv, 1, co_rm, &c);
}

static int run_resize(struct tool *t, int argc, char **argv)
{
    struct change c;
    return change(t, argc, argv, 0, co_resize, &c);
}

static int run_trim(struct tool *t, int argc, char **argv)
{
    struct change c;
    int rc = change(t, argc, argv, 0, co_trim, &c);
    if (rc == 0 && !c.only_help && !t->quiet)
        printf("%" PRIu64 " bytes of free blocks were discarded\n", c.bytes);
    return rc;
}

const struct command pool_new_command = {
    .name = "pool new",
    .run = run_new,
    .usage = "pool new POOL ID",
    .summary = "Make a thin volume",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "A pool keeps no sizes of volumes: tell it with size= when one is opened.\n"
             "\n"
             "  lamina pool new thin:meta.img,data.img 1\n"
             "  lamina serve thin:meta.img,data.img,size=20G//1",
};
const struct command pool_snap_command = {
    .name = "pool snap",
    .run = run_snap,
    .usage = "pool snap POOL ID ORIGIN",
    .summary = "Make a volume that begins as another one is now",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina pool snap thin:meta.img,data.img 2 1",
};
const struct command pool_rm_command = {
    .name = "pool rm",
    .run = run_rm,
    .usage = "pool rm POOL ID",
    .summary = "Delete a volume; what only it had is discarded in the data device",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina pool rm thin:meta.img,data.img 1",
};
const struct command pool_resize_command = {
    .name = "pool resize",
    .run = run_resize,
    .usage = "pool resize POOL",
    .summary = "Take what the metadata or the data device has grown by",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina resize -f raw data.img +100G && lamina pool resize thin:meta.img,data.img",
};
const struct command pool_trim_command = {
    .name = "pool trim",
    .run = run_trim,
    .usage = "pool trim POOL",
    .summary = "Discard all free blocks in the data device",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina pool trim thin:meta.img,data.img",
};

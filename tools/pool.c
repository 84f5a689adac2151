/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c - `lamina pool VERB`: thin pools, with the words of thin-provisioning-tools. */
#include "tools/pool.h"
#include "tools/occupied.h"
#include "volumes/thin.h"
#include "volumes/thin_extents.h"

#include <stdlib.h>

static const struct command *const verbs[] = {
    &pool_create_command, &pool_new_command,           &pool_snap_command,
    &pool_rm_command,     &pool_resize_command,        &pool_trim_command,
    &pool_ls_command,     &pool_check_command,         &pool_repair_command,
    &pool_dump_command,   &pool_restore_command,       &pool_delta_command,
    &pool_rmap_command,   &pool_metadata_size_command, NULL};

int co_pool_image_open(struct tool *t, struct image *image, struct blk_device **dev,
                       struct thin_pool **pool, struct blk_error *e)
{
    image->trust = TRUST_WRITE;
    image->flags = BLK_OPEN_WRITE | BLK_OPEN_CHECK;
    TRY(co_image_open(t, image, dev, e));
    *pool = thin_pool_of(*dev);
    if (*pool)
        return 0;
    (void)!co_blk_close(*dev, NULL);
    return err_set(e, -EINVAL, "%s is no thin pool: name one as thin:METADATA,DATA", image->text);
}

int co_pool_output_open(struct tool *t, struct image *image, bool force, struct blk_device **dev,
                        struct blk_error *e)
{
    TRY(co_image_open(t, image, dev, e));
    int rc = force ? 0 : co_refuse_occupied(t, *dev, "--force", e);
    return rc < 0 ? co_image_close(take(*dev), rc, e) : 0;
}

bool pool_id_told(const struct tool *t, const char *text, uint32_t *id)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || number > THIN_ID_MOST) {
        tool_misuse(t, "'%s' is no number of a volume (0 to %u)", text, THIN_ID_MOST);
        return false;
    }
    *id = (uint32_t)number;
    return true;
}

/* --- metadata alone --- */

#define LOOK_CACHE (32 * MiB)

int pool_look_read(struct pool_look *l, int argc, char **argv, const struct arg_place *places)
{
    struct command_line line = {argc, argv, places, l->option, l};
    return image_read(l->task.tool, &line, &l->image);
}

static int co_look_body(struct task *t)
{
    struct pool_look *l = container_of(t, struct pool_look, task);
    struct blk_device *dev;
    TRY(co_image_open(t->tool, &l->image, &dev, &t->error));
    int rc = co_thin_meta_open(&l->meta, dev, NULL, false, LOOK_CACHE, &t->error);
    if (rc < 0) {
        blk_next_after_open(&thin_driver, dev->name, &t->error);
    } else {
        rc = l->held ? co_thin_use_snapshot(&l->meta) : 0;
        rc = rc < 0 ? err_errno(&t->error, rc, "the metadata snapshot cannot be read")
                    : l->co_look(l);
        thin_meta_close(&l->meta);
        if (rc == -EBADMSG || rc == -EIO)
            blk_next(&t->error, POOL_MEND, dev->name);
    }
    return co_image_close(dev, rc, &t->error);
}

int pool_look_run(struct pool_look *l)
{
    l->task.kind = l->task.tool->command->name;
    l->task.co_body = co_look_body;
    l->image.trust = TRUST_READ;
    return task_run(&l->task, 1);
}

static int run(struct tool *t, int argc, char **argv)
{
    return command_group(t, verbs, argc, argv);
}

static const struct arg_desc options[] = {ARG_END};

const struct command pool_command = {
    .name = "pool",
    .run = run,
    .usage = "pool VERB [OPTION]... ...",
    .summary = "Thin pools of dm-thin: made, changed, looked at, repaired",
    .faces = FACE_LAMINA,
    .options = options,
    .verbs = verbs,
};

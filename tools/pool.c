/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c - `lamina pool VERB`: thin pools, with the words of thin-provisioning-tools. */
#include "tools/pool.h"

#include <stdlib.h>

static const struct command *const verbs[] = {&pool_create_command,
                                              &pool_new_command,
                                              &pool_snap_command,
                                              &pool_rm_command,
                                              &pool_resize_command,
                                              &pool_trim_command,
                                              NULL};

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

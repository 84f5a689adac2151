/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_change.c - lamina raid add, fail, remove, grow, sync and scrub: work on an array that nobody
 * else has open. What `lamina ctl` does to one that is served is
 * in serve_raid.c. */
#include <stdlib.h>

#include "tools/raid.h"

enum { ARG_DEVICES = 'n', ARG_SIZE = 'z', ARG_SPEED = ARG_LONG, ARG_REPAIR };

#define ARG_SPEED_LIMIT                                                        \
    {                                                                          \
        ARG_SPEED, "speed", "SIZE", "at most so many bytes a second", 0, false \
    }

struct verb {
    struct task task;
    struct image image;
    const char *speed, *devices, *size;
    bool repair;
    char **members;
    int count;
    int (*co_do)(struct verb *v, struct blk_device *array);
    struct blk_sync sync;
    json_t *facts; /* of the array, when all is done */
};

/* --- work --------------------------------------------------------------------------------------
 */

static int co_sync(struct verb *v, struct blk_device *array)
{
    return co_job_sync(&v->task.job, array, &v->sync, &v->task.error);
}

static int co_scrub(struct verb *v, struct blk_device *array)
{
    v->sync.kind = v->repair ? BLK_SYNC_REPAIR : BLK_SYNC_CHECK;
    return co_sync(v, array);
}

static int co_change(struct verb *v, struct blk_device *array, enum blk_member_action action)
{
    for (int i = 0; i < v->count; i++) {
        struct blk_member_change c = {.action = action, .name = v->members[i]};
        TRY(co_blk_member(array, &c, &v->task.error));
    }
    return 0;
}

static int co_fail(struct verb *v, struct blk_device *array)
{
    return co_change(v, array, BLK_MEMBER_FAIL);
}

static int co_remove(struct verb *v, struct blk_device *array)
{
    return co_change(v, array, BLK_MEMBER_REMOVE);
}

/* What lacks a member takes the new one at once. */
static int co_add(struct verb *v, struct blk_device *array)
{
    for (int i = 0; i < v->count; i++) {
        struct image image = {.text = v->members[i],
                              .format = v->image.format,
                              .flags = BLK_OPEN_WRITE,
                              .trust = TRUST_WRITE};
        struct blk_member_change c = {.action = BLK_MEMBER_ADD};
        TRY(co_image_open(v->task.tool, &image, &c.device, &v->task.error));
        TRY(co_blk_member(array, &c, &v->task.error));
    }
    return co_sync(v, array);
}

static int co_grow(struct verb *v, struct blk_device *array)
{
    unsigned disks = v->devices ? (unsigned)strtoul(v->devices, NULL, 10) : 0;
    TRY(co_blk_members_grow(array, disks, &v->task.error));
    return co_sync(v, array);
}

static int co_facts(struct verb *v, struct blk_device *array)
{
    struct blk_info info;
    TRY(co_blk_info(array, &info, &v->task.error));
    v->facts = json_incref(info.specific);
    blk_info_drop(&info);
    return 0;
}

static int co_body(struct task *t)
{
    struct verb *v = container_of(t, struct verb, task);
    struct blk_device *dev;
    TRY(co_image_open(t->tool, &v->image, &dev, &t->error));
    struct blk_device *array = blk_find_redundant(dev);
    int rc = array ? v->co_do(v, array)
                   : err_set(&t->error, -EINVAL, "%s is not an array", v->image.text);
    if (rc == 0)
        rc = co_facts(v, array);
    return co_image_close(dev, rc, &t->error);
}

/* --- what is told and printed ------------------------------------------------------------------
 */

static bool numbers_told(struct verb *v)
{
    const struct tool *t = v->task.tool;
    if (v->speed && !size_told(t, "speed", v->speed, &v->task.rate))
        return false;
    if (v->devices && (v->devices[strspn(v->devices, "0123456789")] || atol(v->devices) < 1)) {
        tool_error(t, "--raid-devices takes a number, not '%s'", v->devices);
        return false;
    }
    if (v->size && strcmp(v->size, "max") != 0) {
        tool_error(t, "--size=max is what an array grows to");
        return false;
    }
    return true;
}

static int print(struct verb *v)
{
    char size[32];
    const json_t *m;
    size_t i;
    bool scrubbed = v->sync.kind != BLK_SYNC_OWED;
    if (scrubbed)
        json_object_set_new(v->facts, "mismatches", json_integer((json_int_t)v->sync.mismatches));
    if (v->task.tool->output == OUTPUT_JSON)
        return output_json(json_incref(v->facts));
    if (scrubbed)
        printf("%s %s.\n",
               v->sync.mismatches ? output_size(v->sync.mismatches, size, sizeof(size))
                                  : "All copies and parity",
               !v->sync.mismatches ? "agree"
               : v->repair         ? "differed, and agree now"
                                   : "differ");
    json_array_foreach (json_object_get(v->facts, "members"), i, m) {
        const json_t *wrong = json_object_get(m, "mismatches");
        printf("%s: %s", json_string_value(json_object_get(m, "name")),
               json_string_value(json_object_get(m, "state")));
        if (wrong)
            printf(", %s wrong",
                   output_size((uint64_t)json_integer_value(wrong), size, sizeof(size)));
        putchar('\n');
    }
    return 0;
}

/* Verbs take an array; those with @members devices as well. */
static int run(struct tool *t, int argc, char **argv,
               int (*co_do)(struct verb *v, struct blk_device *array), bool members)
{
    struct verb v = {.task = {.tool = t, .kind = t->command->name, .co_body = co_body},
                     .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE},
                     .co_do = co_do};
    const struct arg_place places[] = {{'f', &v.image.format, NULL},    {ARG_SPEED, &v.speed, NULL},
                                       {ARG_DEVICES, &v.devices, NULL}, {ARG_SIZE, &v.size, NULL},
                                       {ARG_REPAIR, NULL, &v.repair},   {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &v};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc < 1 || (line.argc > 1) != members)
        return tool_misuse(t, members ? "Expecting an array and members" : "Expecting one array");
    if (!numbers_told(&v))
        return 1;
    v.image.text = line.argv[0];
    v.members = line.argv + 1;
    v.count = line.argc - 1;
    int rc = task_run(&v.task, 2);
    rc = rc || t->quiet ? rc : print(&v);
    if (rc == 0 && v.sync.mismatches && !v.repair)
        rc = 2; /* as check: what it looked at is not sound */
    json_decref(v.facts);
    return rc;
}

static int run_add(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_add, true);
}

static int run_fail(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_fail, true);
}

static int run_remove(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_remove, true);
}

static int run_grow(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_grow, false);
}

static int run_sync(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_sync, false);
}

static int run_scrub(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_scrub, false);
}

/* --- the verbs ---------------------------------------------------------------------------------
 */

static const struct arg_desc sync_options[] = {
    ARG_SPEED_LIMIT, ARG_IMAGE_FORMAT, ARG_SECRET, ARG_PROGRESS, ARG_OUTPUT, ARG_QUIET, ARG_END};
static const struct arg_desc member_options[] = {ARG_IMAGE_FORMAT, ARG_SECRET, ARG_OUTPUT,
                                                 ARG_QUIET, ARG_END};
static const struct arg_desc scrub_options[] = {
    {ARG_REPAIR, "repair", NULL, "make what differs the same: copies from the first, parity anew",
     0, false},
    ARG_SPEED_LIMIT,
    ARG_IMAGE_FORMAT,
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_OUTPUT,
    ARG_QUIET,
    ARG_END};
static const struct arg_desc grow_options[] = {
    {ARG_DEVICES, "raid-devices", "N", "of raid1: so many active members", 0, false},
    {ARG_SIZE, "size", "max", "use all room that the members have now", 0, false},
    ARG_SPEED_LIMIT,
    ARG_IMAGE_FORMAT,
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_OUTPUT,
    ARG_QUIET,
    ARG_END};

const struct command raid_sync_command = {
    .name = "raid sync",
    .run = run_sync,
    .usage = "raid sync [OPTION]... ARRAY",
    .summary = "Resync an array that went down dirty; let spares take places and fill them",
    .faces = FACE_LAMINA,
    .options = sync_options,
    .notes =
        "How far it is stands in the superblocks: interrupted at any point, it goes on there.\n"
        "\n"
        "  lamina raid sync -p \"$(lamina raid assemble *.img)\"",
};

const struct command raid_scrub_command = {
    .name = "raid scrub",
    .run = run_scrub,
    .usage = "raid scrub [OPTION]... ARRAY",
    .summary = "Compare all copies, and parity with data",
    .faces = FACE_LAMINA,
    .options = scrub_options,
    .notes =
        "What cannot be read is rewritten from what can. On raid6 the member that is wrong is\n"
        "named. The exit status is 2 if something differs and is left so.\n"
        "\n"
        "  lamina raid scrub md:a.img,b.img,c.img\n"
        "  lamina raid scrub --repair --speed=100M md:a.img,b.img",
};

const struct command raid_add_command = {
    .name = "raid add",
    .run = run_add,
    .usage = "raid add [OPTION]... ARRAY DEVICE...",
    .summary = "New members: spares, or in place of what is missing, filled at once",
    .faces = FACE_LAMINA,
    .options = sync_options,
    .notes = "  lamina raid add md:a.img,b.img new.img",
};

const struct command raid_fail_command = {
    .name = "raid fail",
    .run = run_fail,
    .usage = "raid fail [OPTION]... ARRAY MEMBER...",
    .summary = "Members that are not to be trusted any more, by name or role",
    .faces = FACE_LAMINA,
    .options = member_options,
    .notes = "  lamina raid fail md:a.img,b.img,c.img b.img",
};

const struct command raid_remove_command = {
    .name = "raid remove",
    .run = run_remove,
    .usage = "raid remove [OPTION]... ARRAY MEMBER...",
    .summary = "Members that failed, and spares, leave the array",
    .faces = FACE_LAMINA,
    .options = member_options,
    .notes = "  lamina raid remove md:a.img,b.img,c.img c.img",
};

const struct command raid_grow_command = {
    .name = "raid grow",
    .run = run_grow,
    .usage = "raid grow [OPTION]... ARRAY",
    .summary = "Use more room of each member, or more members (raid1)",
    .faces = FACE_LAMINA,
    .options = grow_options,
    .notes = "  lamina raid grow --size=max md:a.img,b.img,c.img\n"
             "  lamina raid grow --raid-devices=3 md:a.img,b.img,spare.img",
};

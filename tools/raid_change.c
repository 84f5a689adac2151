/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_change.c - lamina raid add, re-add, replace, fail, remove, grow, sync and scrub: work on an
 * array that nobody else has open. What `lamina ctl` does to one that is served is in serve_raid.c.
 */
#include <limits.h>

#include "raid/array.h"
#include "tools/occupied.h"
#include "tools/raid.h"

enum { ARG_SPEED = ARG_LONG, ARG_REPAIR, ARG_WITH, ARG_FORCE };

struct verb {
    struct task task;
    struct image image;
    const char *speed, *devices, *size, *with;
    bool repair, force;
    struct blk_members_grow grow;
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

static int co_facts(struct verb *v, struct blk_device *array)
{
    struct blk_info info;
    json_decref(take(v->facts));
    TRY(co_blk_info(array, &info, &v->task.error));
    v->facts = json_incref(info.specific);
    blk_info_drop(&info);
    return 0;
}

static int co_open_member(struct verb *v, const char *name, struct blk_device **out)
{
    struct image image = {
        .text = name, .format = v->image.format, .flags = BLK_OPEN_WRITE, .trust = TRUST_WRITE};
    return co_image_open(v->task.tool, &image, out, &v->task.error);
}

/* One that is to hold what the array says. */
static int co_open_new(struct verb *v, struct blk_device *array, const char *name,
                       struct blk_device **out)
{
    TRY(co_open_member(v, name, out));
    int rc =
        v->force ? 0 : co_refuse_stranger(v->task.tool, array, *out, "--force", &v->task.error);
    return rc < 0 ? co_image_close(*out, rc, &v->task.error) : 0;
}

static int co_add_as(struct verb *v, struct blk_device *array, enum blk_member_action action)
{
    for (int i = 0; i < v->count; i++) {
        struct blk_member_change c = {.action = action};
        TRY(action == BLK_MEMBER_ADD ? co_open_new(v, array, v->members[i], &c.device)
                                     : co_open_member(v, v->members[i], &c.device));
        TRY(co_blk_member(array, &c, &v->task.error));
    }
    return co_sync(v, array);
}

/* What lacks a member takes the new one at once. */
static int co_add(struct verb *v, struct blk_device *array)
{
    return co_add_as(v, array, BLK_MEMBER_ADD);
}

static int co_re_add(struct verb *v, struct blk_device *array)
{
    return co_add_as(v, array, BLK_MEMBER_RE_ADD);
}

static bool is_spare(const json_t *facts, const char *name)
{
    const json_t *m;
    size_t i;
    json_array_foreach (json_object_get(facts, "members"), i, m)
        if (strcmp(json_string_value(json_object_get(m, "name")), name) == 0)
            return strcmp(json_string_value(json_object_get(m, "state")), "spare") == 0;
    return false;
}

/* With a spare that the array has, or one that is added for it. */
static int co_replace(struct verb *v, struct blk_device *array)
{
    struct blk_member_change c = {.action = BLK_MEMBER_REPLACE, .name = v->members[0]};
    TRY(co_facts(v, array));
    if (v->with && is_spare(v->facts, v->with))
        c.with = v->with;
    else if (v->with)
        TRY(co_open_new(v, array, v->with, &c.device));
    TRY(co_blk_member(array, &c, &v->task.error));
    return co_sync(v, array);
}

static int co_grow(struct verb *v, struct blk_device *array)
{
    TRY(co_blk_members_grow(array, &v->grow, &v->task.error));
    return co_sync(v, array);
}

static int co_body(struct task *t)
{
    struct verb *v = container_of(t, struct verb, task);
    struct blk_device *dev;
    TRY(co_image_open(t->tool, &v->image, &dev, &t->error));
    struct blk_device *array = blk_find_redundant(dev);
    int rc = array ? v->co_do(v, array)
                   : err_set(&t->error, -EINVAL,
                             "%s is not an array: name its members as md:MEMBER,MEMBER... or their "
                             "folder as dir:FOLDER",
                             v->image.text);
    if (rc == 0)
        rc = co_facts(v, array);
    return co_image_close(dev, rc, &t->error);
}

/* --- what is told and printed ------------------------------------------------------------------
 */

static bool numbers_told(struct verb *v)
{
    const struct tool *t = v->task.tool;
    unsigned disks = 0;
    if ((v->speed && !size_told(t, "speed", v->speed, &v->task.rate)) ||
        !raid_count_told(t, "raid-devices", v->devices, &disks) ||
        !raid_used_told(t, v->size, &v->grow.size))
        return false;
    v->grow.disks = disks;
    if (t->command == &raid_grow_command && !v->grow.disks == !v->grow.size) {
        tool_misuse(t, "Expecting --raid-devices or --size");
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

/* What the verbs do, and how many operands they take behind the array. */
static const struct deed {
    const struct command *command;
    int (*co_do)(struct verb *v, struct blk_device *array);
    int least, most;
    const char *misuse;
} deeds[] = {
    {&raid_sync_command, co_sync, 0, 0, "Expecting one array"},
    {&raid_scrub_command, co_scrub, 0, 0, "Expecting one array"},
    {&raid_grow_command, co_grow, 0, 0, "Expecting one array"},
    {&raid_add_command, co_add, 1, INT_MAX, "Expecting an array and devices"},
    {&raid_re_add_command, co_re_add, 1, INT_MAX, "Expecting an array and devices"},
    {&raid_fail_command, co_fail, 1, INT_MAX, "Expecting an array and members"},
    {&raid_remove_command, co_remove, 1, INT_MAX, "Expecting an array and members"},
    {&raid_replace_command, co_replace, 1, 1, "Expecting an array and one member"},
};

static int run(struct tool *t, int argc, char **argv)
{
    const struct deed *d = deeds;
    while (d->command != t->command)
        d++;
    struct verb v = {.task = {.tool = t, .kind = t->command->name, .co_body = co_body},
                     .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE},
                     .co_do = d->co_do};
    const struct arg_place places[] = {{'f', &v.image.format, NULL}, {ARG_SPEED, &v.speed, NULL},
                                       {'n', &v.devices, NULL},      {'z', &v.size, NULL},
                                       {ARG_WITH, &v.with, NULL},    {ARG_REPAIR, NULL, &v.repair},
                                       {ARG_FORCE, NULL, &v.force},  {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &v};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    v.count = line.argc - 1;
    if (v.count < d->least || v.count > d->most)
        return tool_misuse(t, "%s", d->misuse);
    if (!numbers_told(&v))
        return 1;
    v.image.text = line.argv[0];
    v.members = line.argv + 1;
    int rc = task_run(&v.task, 2);
    rc = rc || t->quiet ? rc : print(&v);
    if (rc == 0 && v.sync.mismatches && !v.repair)
        rc = 2; /* as check: what it looked at is not sound */
    json_decref(v.facts);
    return rc;
}

/* --- the verbs ---------------------------------------------------------------------------------
 */

#define OPTIONS_OF_ALL ARG_IMAGE_FORMAT, ARG_SECRET, ARG_OUTPUT, ARG_QUIET, ARG_END
#define OPTIONS_OF_WORK                                                                     \
    {ARG_SPEED, "speed", "SIZE", "at most so many bytes a second", 0, false}, ARG_PROGRESS, \
        OPTIONS_OF_ALL

static const struct arg_desc member_options[] = {OPTIONS_OF_ALL};
static const struct arg_desc sync_options[] = {OPTIONS_OF_WORK};
static const struct arg_desc scrub_options[] = {
    {ARG_REPAIR, "repair", NULL, "make what differs the same: copies from the first, parity anew",
     0, false},
    OPTIONS_OF_WORK};
#define ARG_OVER                                                                                 \
    {                                                                                            \
        ARG_FORCE, "force", NULL, "write over what is there: file systems, partitions", 0, false \
    }
static const struct arg_desc add_options[] = {ARG_OVER, OPTIONS_OF_WORK};
static const struct arg_desc replace_options[] = {
    ARG_OVER,
    {ARG_WITH, "with", "DEVICE", "a spare of the array, or a new device (any spare)", 0, false},
    OPTIONS_OF_WORK};
static const struct arg_desc grow_options[] = {
    {'n', "raid-devices", "N", "so many active members; levels 1, 4, 5 and 6", 0, false},
    {'z', "size", "SIZE|max", "use so much of each member, or all that it has; a bare number: KiB",
     0, false},
    OPTIONS_OF_WORK};

const struct command raid_sync_command = {
    .name = "raid sync",
    .run = run,
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
    .run = run,
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
    .run = run,
    .usage = "raid add [OPTION]... ARRAY DEVICE...",
    .summary = "New members: spares, or in place of what is missing, filled at once",
    .faces = FACE_LAMINA,
    .options = add_options,
    .notes = "  lamina raid add md:a.img,b.img new.img",
};

const struct command raid_re_add_command = {
    .name = "raid re-add",
    .run = run,
    .usage = "raid re-add [OPTION]... ARRAY DEVICE...",
    .summary = "Former members go back to their places; only what changed since is copied",
    .faces = FACE_LAMINA,
    .options = sync_options,
    .notes = "The array's write-intent bitmap says what that is; without one, or where it does not "
             "reach back,\nre-add is refused, and add takes the device as a new one.\n"
             "\n"
             "  lamina raid re-add md:a.img,b.img c.img",
};

const struct command raid_replace_command = {
    .name = "raid replace",
    .run = run,
    .usage = "raid replace [OPTION]... ARRAY MEMBER",
    .summary = "Fill a spare to take a member's place, which serves until then",
    .faces = FACE_LAMINA,
    .options = replace_options,
    .notes =
        "At the end the member has failed. Interrupted, `raid sync` goes on with it, and so does\n"
        "Linux.\n"
        "\n"
        "  lamina raid replace md:a.img,b.img,c.img b.img --with=new.img",
};

const struct command raid_fail_command = {
    .name = "raid fail",
    .run = run,
    .usage = "raid fail [OPTION]... ARRAY MEMBER...",
    .summary = "Members that are not to be trusted any more, by name or role",
    .faces = FACE_LAMINA,
    .options = member_options,
    .notes = "  lamina raid fail md:a.img,b.img,c.img b.img",
};

const struct command raid_remove_command = {
    .name = "raid remove",
    .run = run,
    .usage = "raid remove [OPTION]... ARRAY MEMBER...",
    .summary = "Members that failed, and spares, leave the array",
    .faces = FACE_LAMINA,
    .options = member_options,
    .notes = "  lamina raid remove md:a.img,b.img,c.img c.img",
};

const struct command raid_grow_command = {
    .name = "raid grow",
    .run = run,
    .usage = "raid grow [OPTION]... ARRAY",
    .summary = "Use more room of each member, or more members",
    .faces = FACE_LAMINA,
    .options = grow_options,
    .notes = "  lamina raid grow --size=max md:a.img,b.img,c.img\n"
             "  lamina raid grow --raid-devices=3 md:a.img,b.img,spare.img",
};

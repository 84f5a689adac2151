/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_create.c - lamina raid create: mdadm's --create over whatever can be opened. */

#include "raid/array.h"
#include "raid/create.h"
#include "tools/occupied.h"
#include "tools/raid.h"

enum {
    ARG_CHUNK = 'c',
    ARG_LEVEL = 'l',
    ARG_DEVICES = 'n',
    ARG_SPARES = 'x',
    ARG_SIZE = 'z',
    ARG_NAME = 'N',
    ARG_METADATA = 'e',
    ARG_BITMAP = 'b',
    ARG_POLICY = 'k',
    ARG_LAYOUT = ARG_LONG,
    ARG_CLEAN,
    ARG_BITMAP_CHUNK,
    ARG_DATA_OFFSET,
    ARG_JOURNAL,
    ARG_FORCE,
};

static const struct arg_desc options[] = {
    {ARG_LEVEL, "level", "LEVEL", "linear, 0, 1, 4, 5, 6 or 10", 0, false},
    {ARG_DEVICES, "raid-devices", "N", "active members: the first N MEMBERs", 0, false},
    {ARG_SPARES, "spare-devices", "N", "spares: the MEMBERs behind them", 0, false},
    {ARG_CHUNK, "chunk", "SIZE", "bytes on one member before the next (512K); a bare number: KiB",
     0, false},
    {ARG_LAYOUT, "layout", "LAYOUT", "as mdadm names it: left-symmetric, n2, f2, original, ...", 0,
     false},
    {ARG_SIZE, "size", "SIZE", "used of each member; a bare number: KiB, max: all", 0, false},
    {ARG_METADATA, "metadata", "VERSION", "of the superblocks: 1.2", 0, false},
    {ARG_NAME, "name", "NAME", "what the array is called", 0, false},
    {ARG_CLEAN, "assume-clean", NULL, "the members' data agrees already: no resync", 0, false},
    {ARG_BITMAP, "bitmap", "internal|none", "a write-intent bitmap on each member (none)", 0,
     false},
    {ARG_BITMAP_CHUNK, "bitmap-chunk", "SIZE", "that a bit stands for; a bare number: KiB", 0,
     false},
    {ARG_POLICY, "consistency-policy", "bitmap|ppl|resync",
     "bitmap: as --bitmap=internal; ppl: a partial parity log (5)", 0, false},
    {ARG_JOURNAL, "write-journal", "DEVICE", "a journal, which closes the write hole of 4, 5 and 6",
     0, false},
    {ARG_DATA_OFFSET, "data-offset", "SIZE", "where data begins on each; a bare number: KiB", 0,
     false},
    {ARG_FORCE, "force", NULL, "write over what is there: arrays, file systems, partitions", 0,
     false},
    ARG_IMAGE_FORMAT,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_QUIET,
    ARG_END};

/* What was told, as text. */
struct told {
    const char *level, *devices, *spares, *chunk, *layout, *size, *metadata, *name, *bitmap,
        *bitmap_chunk, *policy, *data_offset, *format;
    bool clean;
};

struct verb {
    struct task task;
    const char *format;
    const char **members; /* as told; the journal is the last */
    const char *journal;  /* NULL: none */
    struct raid_create create;
    struct raid_created created;
    unsigned spares;
    bool force;
};

/* --- work -------------------------------------------------------------------------------------
 */

static int co_open_all(struct verb *v, struct blk_device **devs)
{
    for (size_t i = 0; i < v->create.count; i++) {
        struct image image = {.text = v->members[i],
                              .format = v->format,
                              .flags = BLK_OPEN_WRITE,
                              .trust = TRUST_WRITE};
        if (strcmp(v->members[i], "missing") != 0)
            TRY(co_image_open(v->task.tool, &image, &devs[i], &v->task.error));
        if (devs[i] && !v->force)
            TRY(co_refuse_occupied(v->task.tool, devs[i], "--force", &v->task.error));
    }
    return 0;
}

static int co_body(struct task *t)
{
    struct verb *v = container_of(t, struct verb, task);
    auto_free struct blk_device **devs = mem_array(v->create.count, sizeof(*devs));
    if (!devs)
        return err_set(&t->error, -ENOMEM, "out of memory");
    v->create.members = devs;
    int rc = co_open_all(v, devs);
    if (rc == 0)
        rc = co_raid_create(&v->create, &v->created, &t->error);
    for (size_t i = 0; i < v->create.count; i++)
        rc = co_image_close(devs[i], rc, &t->error);
    return rc;
}

/* --- what is told ------------------------------------------------------------------------------
 */

/* None, or one of @first and @second. */
static bool is_word(const struct tool *t, const char *what, const char *text, const char *first,
                    const char *second)
{
    if (!text || strcmp(text, first) == 0 || strcmp(text, second) == 0)
        return true;
    tool_error(t, "--%s=%s: it is %s%s%s here", what, text, first,
               strcmp(first, second) ? " or " : "", strcmp(first, second) ? second : "");
    return false;
}

static bool take_numbers(struct verb *v, const struct told *o)
{
    const struct tool *t = v->task.tool;
    struct raid_create *c = &v->create;
    bool good = raid_count_told(t, "raid-devices", o->devices, &c->disks) &&
                raid_count_told(t, "spare-devices", o->spares, &v->spares) &&
                raid_size_told(t, "chunk", o->chunk, &c->chunk) &&
                raid_used_told(t, o->size, &c->size) &&
                raid_size_told(t, "bitmap chunk", o->bitmap_chunk, &c->bitmap_chunk) &&
                raid_size_told(t, "data offset", o->data_offset, &c->data_offset);
    c->size = c->size == RAID_SIZE_MAX ? 0 : c->size;
    return good;
}

static bool take_words(struct verb *v, const struct told *o)
{
    const struct tool *t = v->task.tool;
    struct raid_create *c = &v->create;
    if (!is_word(t, "metadata", o->metadata, "1.2", "default") ||
        !is_word(t, "bitmap", o->bitmap, "internal", "none"))
        return false;
    c->ppl = o->policy && strcmp(o->policy, "ppl") == 0;
    if (!c->ppl && !is_word(t, "consistency-policy", o->policy, "bitmap", "resync"))
        return false;
    c->bitmap = (o->bitmap && strcmp(o->bitmap, "internal") == 0) ||
                (o->policy && strcmp(o->policy, "bitmap") == 0);
    c->assume_clean = o->clean;
    c->name = o->name ? o->name : "";
    if (strlen(c->name) > 32)
        tool_error(t, "a name has at most 32 bytes");
    return strlen(c->name) <= 32;
}

static bool take_level(struct verb *v, const struct told *o)
{
    const struct tool *t = v->task.tool;
    struct raid_create *c = &v->create;
    c->level = o->level ? raid_level_by_name(o->level) : NULL;
    if (!c->level) {
        tool_error(t,
                   o->level ? "level '%s' is not known: linear, raid0, raid1, raid4, raid5, raid6 "
                              "and raid10 are"
                            : "which level? --level=raid1, or another one",
                   o->level);
        return false;
    }
    c->layout = c->level->default_layout;
    if (o->layout && !raid_layout_parse(c->level, o->layout, &c->layout)) {
        tool_error(t, "%s has no layout '%s'", c->level->name, o->layout);
        return false;
    }
    if (o->chunk && !c->level->has_chunk) {
        tool_error(t, "%s has no chunks", c->level->name);
        return false;
    }
    c->chunk = c->level->has_chunk ? 512 * KiB : 0;
    return true;
}

static bool take_all(struct verb *v, const struct told *o, int count)
{
    struct raid_create *c = &v->create;
    c->data_offset = c->bitmap_chunk = RAID_DEFAULT;
    if (!take_level(v, o) || !take_numbers(v, o) || !take_words(v, o))
        return false;
    c->count = (size_t)count;
    c->journal = v->journal != NULL;
    if (o->devices && c->count == c->disks + v->spares) {
        c->count += c->journal;
        return true;
    }
    tool_error(v->task.tool,
               "%u active members and %u spares are asked for (--raid-devices, --spare-devices), "
               "and %d are named",
               c->disks, v->spares, count);
    return false;
}

/* --- what is printed ---------------------------------------------------------------------------
 */

static int print(const struct verb *v)
{
    struct md_super s = {0};
    char uuid[MD_UUID_TEXT], size[32];
    memcpy(s.uuid, v->created.uuid, sizeof(s.uuid));
    md_uuid_text(&s, uuid);
    if (v->task.tool->output == OUTPUT_JSON)
        return output_json(json_pack("{s:s, s:s, s:I, s:b}", "uuid", uuid, "level",
                                     v->create.level->name, "size", (json_int_t)v->created.size,
                                     "clean", v->created.clean));
    printf("%s of %u members, %s, UUID %s; %s\n", v->create.level->name, v->create.disks,
           output_size(v->created.size, size, sizeof(size)), uuid,
           v->create.level->is_zoned ? "ready"
           : v->created.zeroes       ? "in sync: all members read as zeroes"
           : v->created.clean        ? "taken as in sync"
                                     : "to be resynced");
    return 0;
}

/* The only option without a place: told twice, the first one would be forgotten. */
static int take_journal(void *verb, int id, const char *value)
{
    struct verb *v = verb;
    assert(id == ARG_JOURNAL);
    if (v->journal) {
        tool_error(v->task.tool, "--write-journal: an array has one journal; two are named");
        return -EINVAL;
    }
    v->journal = value;
    return 0;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct told o = {0};
    struct verb v = {.task = {.tool = t, .kind = "create", .co_body = co_body}};
    const struct arg_place places[] = {{ARG_LEVEL, &o.level, NULL},
                                       {ARG_DEVICES, &o.devices, NULL},
                                       {ARG_SPARES, &o.spares, NULL},
                                       {ARG_CHUNK, &o.chunk, NULL},
                                       {ARG_LAYOUT, &o.layout, NULL},
                                       {ARG_SIZE, &o.size, NULL},
                                       {ARG_METADATA, &o.metadata, NULL},
                                       {ARG_NAME, &o.name, NULL},
                                       {ARG_CLEAN, NULL, &o.clean},
                                       {ARG_BITMAP, &o.bitmap, NULL},
                                       {ARG_POLICY, &o.policy, NULL},
                                       {ARG_BITMAP_CHUNK, &o.bitmap_chunk, NULL},
                                       {'f', &v.format, NULL},
                                       {ARG_FORCE, NULL, &v.force},
                                       {ARG_DATA_OFFSET, &o.data_offset, NULL},
                                       {0, NULL, NULL}};
    struct command_line line = {
        .argc = argc, .argv = argv, .places = places, .verb = &v, .option = take_journal};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (!take_all(&v, &o, line.argc))
        return 1;
    auto_free const char **members = mem_array(v.create.count, sizeof(*members));
    if (!members)
        return 1;
    memcpy(members, line.argv, (size_t)line.argc * sizeof(*members));
    if (v.journal)
        members[line.argc] = v.journal;
    v.members = members;
    int rc = task_run(&v.task, 1);
    return rc || t->quiet ? rc : print(&v);
}

const struct command raid_create_command = {
    .name = "raid create",
    .run = run,
    .usage = "raid create --level=LEVEL --raid-devices=N [OPTION]... MEMBER...",
    .summary = "Make an array that Linux would assemble",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "MEMBERs are devices of any kind that exist: block devices, raw files, images, "
             "exports. The\n"
             "word `missing` stands for one that is not there yet. Members that read as zeroes "
             "agree as\n"
             "they are; others are resynced.\n"
             "\n"
             "  lamina raid create --level=5 --raid-devices=3 a.img b.img c.img\n"
             "  lamina raid create -l 1 -n 2 --bitmap=internal a.qcow2 nbd://host/b\n"
             "  lamina raid create -l 6 -n 4 --write-journal=fast.img a.img b.img c.img d.img\n"
             "  lamina raid create -l 10 -n 4 --layout=f2 --chunk=64K a.img b.img c.img missing",
};

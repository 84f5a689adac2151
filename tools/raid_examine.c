/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_examine.c - lamina raid examine: what the superblocks of devices say, one by one. */
#include <time.h>

#include "raid/geometry.h"
#include "tools/raid.h"

static const struct arg_desc options[] = {ARG_IMAGE_FORMAT, ARG_SECRET, ARG_FORCE_SHARE,
                                          ARG_OUTPUT,       ARG_QUIET,  ARG_END};

static const struct raid_label labels[] = {
    {"version", "Version", FACT_TEXT},
    {"uuid", "Array UUID", FACT_TEXT},
    {"name", "Name", FACT_TEXT},
    {"created", "Creation Time", FACT_TIME},
    {"level", "Raid Level", FACT_TEXT},
    {"layout", "Layout", FACT_TEXT},
    {"raid-devices", "Raid Devices", FACT_NUMBER},
    {"chunk-size", "Chunk Size", FACT_SIZE},
    {"data-size", "Avail Dev Size", FACT_SIZE},
    {"member-size", "Used Dev Size", FACT_SIZE},
    {"data-offset", "Data Offset", FACT_SIZE},
    {"super-offset", "Super Offset", FACT_SIZE},
    {"bitmap-offset", "Internal Bitmap", FACT_NUMBER},
    {"clean", "State", FACT_CLEAN},
    {"resync-offset", "Resync Offset", FACT_SIZE},
    {"recovery-offset", "Recovery Offset", FACT_SIZE},
    {"reshape-position", "Reshape Position", FACT_SIZE},
    {"delta-devices", "Delta Devices", FACT_NUMBER},
    {"device-uuid", "Device UUID", FACT_TEXT},
    {"updated", "Update Time", FACT_TIME},
    {"events", "Events", FACT_NUMBER},
    {"role", "Device Role", FACT_TEXT},
    {"array-state", "Array State", FACT_TEXT},
};

/* --- a superblock as JSON ---------------------------------------------------------------------
 */

static void set_number(json_t *o, const char *key, uint64_t value)
{
    json_object_set_new(o, key, json_integer((json_int_t)value));
}

/* mdadm's letters: A is there, . is missing. */
static json_t *array_state(const struct md_super *s)
{
    char text[RAID_DISKS_MOST + 1];
    memset(text, '.', s->disks);
    for (unsigned i = 0; i < s->role_count; i++)
        if (s->roles[i] < s->disks)
            text[s->roles[i]] = 'A';
    return json_stringn(text, s->disks);
}

static json_t *role_text(const struct md_super *s)
{
    unsigned role = md_super_role(s, s->number);
    if (role < MD_ROLE_MOST)
        return json_sprintf("%s %u", s->features & MD_REPLACEMENT ? "Replacement" : "Active device",
                            role);
    return json_string(role == MD_ROLE_JOURNAL  ? "Journal"
                       : role == MD_ROLE_FAULTY ? "faulty"
                                                : "spare");
}

static void set_state(json_t *o, const struct md_super *s)
{
    json_object_set_new(o, "clean", json_boolean(s->resync_offset == UINT64_MAX));
    if (s->resync_offset != UINT64_MAX)
        set_number(o, "resync-offset", s->resync_offset);
    if (s->features & MD_RECOVERY)
        set_number(o, "recovery-offset", s->recovery_offset);
    if (s->reshaping) {
        set_number(o, "reshape-position", s->reshape_position);
        json_object_set_new(o, "delta-devices", json_integer(s->delta_disks));
    }
    set_number(o, "updated", s->utime);
    set_number(o, "events", s->events);
    json_object_set_new(o, "role", role_text(s));
    json_object_set_new(o, "array-state", array_state(s));
}

static void set_level(json_t *o, const struct md_super *s)
{
    const struct raid_level *l = raid_level_by_number(s->level);
    char layout[RAID_LAYOUT_TEXT];
    json_object_set_new(o, "level", l ? json_string(l->name) : json_sprintf("%d", s->level));
    if (l) {
        raid_layout_text(l, s->layout, layout);
        json_object_set_new(o, "layout", json_string(layout));
    }
}

json_t *raid_super_json(const char *name, const struct md_super *s)
{
    char uuid[MD_UUID_TEXT];
    struct md_super member = {0}; /* only its UUID is looked at */
    json_t *o = json_object();
    md_uuid_text(s, uuid);
    json_object_set_new(o, "device", output_text(name));
    json_object_set_new(o, "version", json_string(md_version_name(s->version)));
    set_number(o, "features", s->features);
    json_object_set_new(o, "uuid", json_string(uuid));
    json_object_set_new(o, "name", output_text(s->name));
    set_number(o, "created", s->ctime);
    set_level(o, s);
    set_number(o, "raid-devices", s->disks);
    set_number(o, "chunk-size", s->chunk);
    set_number(o, "data-size", s->data_size);
    set_number(o, "member-size", s->size);
    set_number(o, "data-offset", s->data_offset);
    set_number(o, "super-offset", s->super_offset);
    if (s->features & MD_BITMAP)
        json_object_set_new(o, "bitmap-offset", json_integer(s->bitmap_offset));
    if (s->version != MD_0_90) {
        memcpy(member.uuid, s->device_uuid, sizeof(member.uuid));
        md_uuid_text(&member, uuid);
        json_object_set_new(o, "device-uuid", json_string(uuid));
    }
    set_state(o, s);
    return o;
}

/* --- printing ---------------------------------------------------------------------------------
 */

static void print_fact(const json_t *value, enum raid_fact kind)
{
    char text[64];
    uint64_t number = (uint64_t)json_integer_value(value);
    time_t when = (time_t)number;
    struct tm tm;
    switch (kind) {
    case FACT_TEXT:
        printf("%s\n", json_string_value(value));
        return;
    case FACT_NUMBER:
        printf("%" PRId64 "\n", (int64_t)number);
        return;
    case FACT_SIZE:
        printf("%" PRIu64 " (%s)\n", number, output_size(number, text, sizeof(text)));
        return;
    case FACT_CLEAN:
        printf("%s\n", json_is_true(value) ? "clean" : "active");
        return;
    case FACT_TIME:
        if (!gmtime_r(&when, &tm) || !strftime(text, sizeof(text), "%F %T UTC", &tm))
            snprintf(text, sizeof(text), "%" PRIu64, number);
        printf("%s\n", text);
    }
}

void raid_print_facts(const json_t *facts, const struct raid_label *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(facts, rows[i].key);
        if (!value)
            continue;
        printf("%18s : ", rows[i].label);
        print_fact(value, rows[i].kind);
    }
}

/* --- the verb ---------------------------------------------------------------------------------
 */

struct verb {
    struct task task;
    const char *format;
    char **told;
    int count;
    struct raid_heap heap;
};

static int co_body(struct task *t)
{
    struct verb *v = container_of(t, struct verb, task);
    int rc = co_raid_heap_open(t->tool, v->told, (size_t)v->count, v->format, &v->heap, &t->error);
    co_raid_heap_close(&v->heap);
    return rc;
}

static int print(const struct verb *v)
{
    const struct tool *t = v->task.tool;
    json_t *all = json_array();
    int rc = 0;
    for (size_t i = 0; i < v->heap.count; i++) {
        const struct raid_heap_item *item = &v->heap.items[i];
        if (!item->super && !v->heap.same_folder) {
            tool_error(t, "%s: %s", item->name, item->error.text);
            rc = 1;
        }
        if (item->super)
            json_array_append_new(all, raid_super_json(item->name, item->super));
    }
    if (t->output == OUTPUT_JSON)
        return output_json(all) || rc;
    const json_t *one;
    size_t i;
    json_array_foreach (all, i, one) {
        printf("%s%s:\n", i ? "\n" : "", json_string_value(json_object_get(one, "device")));
        raid_print_facts(one, labels, ARRAY_LEN(labels));
    }
    json_decref(all);
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct verb v = {.task = {.tool = t, .kind = "examine", .co_body = co_body}};
    const struct arg_place places[] = {{'f', &v.format, NULL}, {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &v};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc == 0)
        return tool_misuse(t, "Expecting at least one device");
    v.told = line.argv;
    v.count = line.argc;
    int rc = task_run(&v.task, 1);
    rc = rc ? rc : print(&v);
    raid_heap_drop(&v.heap);
    return rc;
}

const struct command raid_examine_command = {
    .name = "raid examine",
    .run = run,
    .usage = "raid examine [OPTION]... DEVICE|dir:FOLDER...",
    .summary = "Print what a member's superblock says",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina raid examine a.img\n"
             "  lamina raid examine --output json dir:backups",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_examine.c - lamina raid examine: what the superblocks of devices say, one by one. */
#include <time.h>

#include "raid/badblocks.h"
#include "raid/geometry.h"
#include "tools/raid.h"

enum { ARG_BADBLOCKS = ARG_LONG };
static const struct arg_desc options[] = {ARG_IMAGE_FORMAT,
                                          ARG_SECRET,
                                          ARG_FORCE_SHARE,
                                          ARG_OUTPUT,
                                          ARG_QUIET,
                                          {ARG_BADBLOCKS, "badblocks", NULL,
                                           "print only the lists of bad blocks, as `mdadm "
                                           "--examine-badblocks` does",
                                           0, false},
                                          ARG_END};

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
    {"journal-tail", "Journal Tail", FACT_SIZE},
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
    if (md_super_role(s, s->number) == MD_ROLE_JOURNAL)
        set_number(o, "journal-tail", s->recovery_offset);
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
    bool badblocks;
    struct raid_heap heap;
    struct bad_list **bad; /* by item; NULL: it has no list */
};

/* One that cannot be read is the item's error, as a superblock is. */
static int co_load_bad(struct verb *v)
{
    v->bad = mem_array(v->heap.count, sizeof(*v->bad));
    if (!v->bad)
        return err_set(&v->task.error, -ENOMEM, "out of memory");
    for (size_t i = 0; i < v->heap.count; i++) {
        struct raid_heap_item *item = &v->heap.items[i];
        if (item->super && co_bad_load(item->dev, item->super, &v->bad[i], &item->error) < 0)
            mem_free(take(item->super));
    }
    return 0;
}

static int co_body(struct task *t)
{
    struct verb *v = container_of(t, struct verb, task);
    int rc = co_raid_heap_open(t->tool, v->told, (size_t)v->count, v->format, &v->heap, &t->error);
    if (rc == 0)
        rc = co_load_bad(v);
    co_raid_heap_close(&v->heap);
    return rc;
}

/* Bytes of the device. */
static json_t *bad_json(const struct bad_list *l)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < l->told_count; i++) {
        struct bad_range r = bad_range_of(l->told[i]);
        json_array_append_new(list,
                              json_pack("{s:I, s:I}", "offset", (json_int_t)(r.start << l->shift),
                                        "length", (json_int_t)((r.end - r.start) << l->shift)));
    }
    return list;
}

/* In mdadm's words, which others read. */
static void print_bad(const struct raid_heap_item *item, const struct bad_list *l)
{
    if (!l) {
        printf("No bad-blocks list configured on %s\n", item->name);
        return;
    }
    if (!(item->super->features & MD_BAD_BLOCKS)) {
        printf("Bad-blocks list is empty in %s\n", item->name);
        return;
    }
    printf("Bad-blocks on %s:\n", item->name);
    for (unsigned i = 0; i < l->told_count; i++) {
        struct bad_range r = bad_range_of(l->told[i]);
        printf("%20" PRIu64 " for %" PRIu64 " sectors\n", r.start << l->shift >> 9,
               (r.end - r.start) << l->shift >> 9);
    }
}

static int print(const struct verb *v)
{
    const struct tool *t = v->task.tool;
    json_t *all = json_array();
    int rc = 0;
    for (size_t i = 0; i < v->heap.count; i++) {
        const struct raid_heap_item *item = &v->heap.items[i];
        if (!item->super && (!v->heap.same_folder || item->foreign)) {
            tool_error(t, "%s: %s", item->name, item->error.text);
            tool_next(t, item->error.next);
            rc = 1;
        }
        if (!item->super)
            continue;
        json_t *one = raid_super_json(item->name, item->super);
        if (v->bad[i])
            json_object_set_new(one, "bad-blocks", bad_json(v->bad[i]));
        json_array_append_new(all, one);
        if (v->badblocks && t->output != OUTPUT_JSON)
            print_bad(item, v->bad[i]);
    }
    if (t->output == OUTPUT_JSON)
        return output_json(all) || rc;
    const json_t *one;
    size_t i;
    json_array_foreach (all, i, one) {
        if (v->badblocks)
            break; /* they have been printed */
        printf("%s%s:\n", i ? "\n" : "", json_string_value(json_object_get(one, "device")));
        raid_print_facts(one, labels, ARRAY_LEN(labels));
    }
    json_decref(all);
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct verb v = {.task = {.tool = t, .kind = "examine", .co_body = co_body}};
    const struct arg_place places[] = {
        {'f', &v.format, NULL}, {ARG_BADBLOCKS, NULL, &v.badblocks}, {0, NULL, NULL}};
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
    for (size_t i = 0; v.bad && i < v.heap.count; i++)
        mem_free(v.bad[i]);
    mem_free(v.bad);
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
             "  lamina raid examine --output json dir:backups\n"
             "  lamina raid examine --badblocks a.img",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_assemble.c - lamina raid assemble and detail: from a heap of devices to arrays. Members are
 * found by their superblocks alone; what is printed is a spec, which any verb opens. */
#include <stdio.h>
#include <stdlib.h>

#include "block/option_text.h"
#include "raid/assemble.h"
#include "tools/raid.h"

enum { ARG_FORCE = ARG_LONG, ARG_UUID = 'u', ARG_NAME = 'N' };

static const struct arg_desc options[] = {
    {ARG_FORCE, "force", NULL,
     "take stale members where there are no others; start where single blocks may be wrong", 0,
     false},
    {ARG_UUID, "uuid", "UUID", "only the array with that UUID", 0, false},
    {ARG_NAME, "name", "NAME", "only arrays of that name", 0, false},
    ARG_IMAGE_FORMAT,
    ARG_SECRET,
    ARG_FORCE_SHARE,
    ARG_OUTPUT,
    ARG_QUIET,
    ARG_END};

static const struct raid_label labels[] = {
    {"version", "Version", FACT_TEXT},
    {"created", "Creation Time", FACT_TIME},
    {"level", "Raid Level", FACT_TEXT},
    {"size", "Array Size", FACT_SIZE},
    {"member-size", "Used Dev Size", FACT_SIZE},
    {"raid-devices", "Raid Devices", FACT_NUMBER},
    {"updated", "Update Time", FACT_TIME},
    {"state", "State", FACT_TEXT},
    {"layout", "Layout", FACT_TEXT},
    {"chunk-size", "Chunk Size", FACT_SIZE},
    {"name", "Name", FACT_TEXT},
    {"uuid", "UUID", FACT_TEXT},
    {"events", "Events", FACT_NUMBER},
    {"spec", "Spec", FACT_TEXT},
};

struct verb {
    struct task task;
    const char *format, *uuid, *name;
    bool force;
    char **told;
    int count;
    struct raid_heap heap;
};

/* One array's candidates, and what became of them. */
struct found {
    struct raid_candidate *candidates;
    size_t count;
    struct raid_plan plan;
    bool forced;
    bool all_raw; /* devices without a format */
    struct blk_error error;
};

/* --- who belongs together ----------------------------------------------------------------------
 */

static bool is_asked(const struct verb *v, const struct md_super *s)
{
    char uuid[MD_UUID_TEXT];
    const char *colon = strchr(s->name, ':'); /* behind the name of the machine that made it */
    md_uuid_text(s, uuid);
    if (v->uuid && strcmp(v->uuid, uuid) != 0)
        return false;
    return !v->name || strcmp(v->name, s->name) == 0 || (colon && strcmp(v->name, colon + 1) == 0);
}

/* The first of the heap that has this one's array. */
static size_t leader(const struct raid_heap *h, size_t i)
{
    const struct md_super *s = h->items[i].super;
    for (size_t k = 0; k < i; k++)
        if (h->items[k].super && memcmp(h->items[k].super->uuid, s->uuid, sizeof(s->uuid)) == 0)
            return k;
    return i;
}

static int gather(const struct verb *v, size_t first, struct found *f)
{
    *f = (struct found){.candidates = mem_array(v->heap.count, sizeof(*f->candidates)),
                        .all_raw = true};
    if (!f->candidates)
        return -ENOMEM;
    for (size_t i = first; i < v->heap.count; i++) {
        const struct raid_heap_item *item = &v->heap.items[i];
        if (!item->super || leader(&v->heap, i) != first)
            continue;
        f->all_raw &= !item->format;
        f->candidates[f->count++] =
            (struct raid_candidate){.name = item->name, .super = item->super};
    }
    return 0;
}

/* By force only what does not go without. */
static int plan(const struct verb *v, struct found *f)
{
    struct blk_error forced = {0};
    int rc = raid_plan(f->candidates, f->count, false, &f->plan, &f->error);
    if (rc == 0 || !v->force)
        return rc;
    rc = raid_plan(f->candidates, f->count, true, &f->plan, &forced);
    f->forced = rc == 0;
    if (rc < 0)
        f->error = forced;
    return rc;
}

/* --- what is told ------------------------------------------------------------------------------
 */

static const char *place_word(const struct raid_candidate *c)
{
    static const char *const words[] = {
        [PLACE_MEMBER] = "active sync",
        [PLACE_REPLACEMENT] = "replacement rebuilding",
        [PLACE_SPARE] = "spare",
        [PLACE_JOURNAL] = "journal",
        [PLACE_STALE] = "stale",
        [PLACE_FAULTY] = "faulty",
        [PLACE_SPLIT] = "split",
        [PLACE_DUPLICATE] = "duplicate",
        [PLACE_OTHER] = "of another array",
    };
    if (c->place == PLACE_MEMBER && !raid_in_sync(c))
        return "spare rebuilding";
    return words[c->place];
}

/* Left out of the spec: opening it would leave it out as well. */
static bool is_out(const struct raid_candidate *c)
{
    return c->place >= PLACE_STALE;
}

/* Adds the name, commas doubled. */
static int put_name(FILE *to, const char *name)
{
    for (; *name; name++)
        if (fputc(*name, to) < 0 || (*name == ',' && fputc(',', to) < 0))
            return -ENOMEM;
    return 0;
}

/* Members by role, then those without. Gives *out (free()). */
static int make_spec(const struct found *f, char **out)
{
    size_t bytes;
    char mark = ':';
    FILE *to = open_memstream(out, &bytes);
    if (!to)
        return -ENOMEM;
    fputs("md", to);
    for (unsigned role = 0; role <= f->plan.shape.disks; role++)
        for (size_t i = 0; i < f->count; i++) {
            const struct raid_candidate *c = &f->candidates[i];
            bool here = c->role == role || (role == f->plan.shape.disks && c->role >= role);
            if (is_out(c) || !here)
                continue;
            fputc(mark, to);
            put_name(to, c->name);
            mark = ',';
        }
    if (f->all_raw) /* so that nobody has to find out again, whatever is written to them */
        fputs(",format=raw", to);
    if (f->forced)
        fputs(",force=on", to);
    return fclose(to) == 0 ? 0 : -ENOMEM;
}

static json_t *state_text(const struct found *f)
{
    if (f->error.rc && !f->forced)
        return json_string("not started");
    return json_sprintf("%s%s%s", f->plan.dirty ? "active" : "clean",
                        f->plan.missing ? ", degraded" : "", f->forced ? ", by force" : "");
}

static json_t *members_json(const struct found *f)
{
    json_t *all = json_array();
    for (size_t i = 0; i < f->count; i++) {
        const struct raid_candidate *c = &f->candidates[i];
        json_t *o = json_pack("{s:o, s:i, s:s, s:I}", "device", output_text(c->name), "number",
                              (int)c->super->number, "state", place_word(c), "events",
                              (json_int_t)c->super->events);
        if (o && c->role != RAID_NO_DISK)
            json_object_set_new(o, "role", json_integer(c->role));
        if (o && c->why[0])
            json_object_set_new(o, "why", output_text(c->why));
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *found_json(const struct found *f)
{
    const struct md_super *s = f->plan.freshest;
    bool started = !f->error.rc || f->forced;
    char *spec = NULL;
    json_t *o = raid_super_json("", s);
    static const char *const of_one[] = {"device",      "device-uuid",  "role",       "data-size",
                                         "data-offset", "super-offset", "array-state"};
    for (size_t i = 0; i < ARRAY_LEN(of_one); i++)
        json_object_del(o, of_one[i]);
    json_object_set_new(o, "state", state_text(f));
    if (started && make_spec(f, &spec) == 0) {
        json_object_set_new(o, "size", json_integer((json_int_t)f->plan.shape.size));
        json_object_set_new(o, "spec", output_text(spec));
    }
    if (f->error.rc)
        json_object_set_new(o, "error", output_text(f->error.text));
    json_object_set_new(o, "members", members_json(f));
    free(spec);
    return o;
}

static void print_detail(const json_t *o)
{
    const json_t *m;
    size_t i;
    raid_print_facts(o, labels, ARRAY_LEN(labels));
    printf("\n  Number  RaidDevice  State                   Device\n");
    json_array_foreach (json_object_get(o, "members"), i, m) {
        const json_t *role = json_object_get(m, "role"), *why = json_object_get(m, "why");
        printf("  %6" PRId64 "  ", (int64_t)json_integer_value(json_object_get(m, "number")));
        if (role)
            printf("%10" PRId64, (int64_t)json_integer_value(role));
        else
            printf("%10s", "-");
        printf("  %-22s  %s%s%s\n", json_string_value(json_object_get(m, "state")),
               json_string_value(json_object_get(m, "device")), why ? ": " : "",
               why ? json_string_value(why) : "");
    }
}

/* Who is left out, and what went wrong, on stderr. */
static void say(const struct tool *t, const struct found *f, int rc)
{
    char uuid[MD_UUID_TEXT];
    for (size_t i = 0; i < f->count; i++)
        if (is_out(&f->candidates[i]))
            tool_error(t, "%s is left out: %s", f->candidates[i].name, f->candidates[i].why);
    if (rc < 0) {
        md_uuid_text(f->candidates[0].super, uuid);
        tool_error(t, "array %s: %s", uuid, f->error.text);
        tool_next(t, f->error.next);
    } else if (f->forced) {
        tool_error(t, "by force: %s", f->error.text);
    }
}

static int tell_one(const struct verb *v, size_t first, json_t *all, struct found *f)
{
    const struct tool *t = v->task.tool;
    bool detail = t->command == &raid_detail_command;
    int rc = gather(v, first, f);
    if (rc < 0)
        return rc;
    rc = plan(v, f);
    if (!f->plan.freshest)
        return rc;
    json_t *o = found_json(f);
    const char *spec = json_string_value(json_object_get(o, "spec"));
    if (!t->quiet && !detail)
        say(t, f, rc);
    else if (rc < 0)
        (void)tool_failed(t, &f->error);
    if (t->output == OUTPUT_HUMAN && detail)
        print_detail(o);
    else if (t->output == OUTPUT_HUMAN && spec)
        puts(spec);
    json_array_append_new(all, o);
    return rc;
}

/* Arrays of others: a sentence for all of them. 1 if there are any. */
static int refuse_foreign(const struct verb *v)
{
    struct foreign_member *m = mem_array(v->heap.count, sizeof(*m));
    char *text = NULL;
    bool any = false;
    for (size_t i = 0; m && i < v->heap.count; i++) {
        const struct raid_heap_item *item = &v->heap.items[i];
        m[i] = (struct foreign_member){item->name, item->foreign, item->format};
        any |= item->foreign != NULL;
    }
    if (any && foreign_tell(m, v->heap.count, &text) == 0)
        tool_error(v->task.tool, "%s", text);
    free(text);
    mem_free(m);
    return any;
}

static int tell(const struct verb *v)
{
    const struct tool *t = v->task.tool;
    json_t *all = json_array();
    int rc = 0;
    for (size_t i = 0; i < v->heap.count; i++) {
        const struct raid_heap_item *item = &v->heap.items[i];
        struct found f;
        if (!item->super && !item->foreign && !v->heap.same_folder) {
            tool_error(t, "%s: %s", item->name, item->error.text);
            tool_next(t, item->error.next);
            rc = 1;
        }
        if (!item->super || !is_asked(v, item->super) || leader(&v->heap, i) != i)
            continue;
        rc |= tell_one(v, i, all, &f) < 0;
        raid_plan_drop(&f.plan);
        mem_free(f.candidates);
    }
    rc |= refuse_foreign(v);
    if (json_array_size(all) == 0 && rc == 0) {
        tool_error(
            t, "there are no members of an array among these; `lamina tree` shows what they hold");
        rc = 1;
    }
    if (t->output == OUTPUT_JSON)
        return output_json(all) || rc;
    json_decref(all);
    return rc;
}

/* --- the verbs ---------------------------------------------------------------------------------
 */

static int co_body(struct task *t)
{
    struct verb *v = container_of(t, struct verb, task);
    int rc = co_raid_heap_open(t->tool, v->told, (size_t)v->count, v->format, &v->heap, &t->error);
    co_raid_heap_close(&v->heap);
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct verb v = {.task = {.tool = t, .kind = "assemble", .co_body = co_body}};
    const struct arg_place places[] = {{'f', &v.format, NULL},
                                       {ARG_FORCE, NULL, &v.force},
                                       {ARG_UUID, &v.uuid, NULL},
                                       {ARG_NAME, &v.name, NULL},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &v};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc == 0)
        return tool_misuse(t, "Expecting at least one device");
    v.told = line.argv;
    v.count = line.argc;
    int rc = task_run(&v.task, 1);
    rc = rc ? rc : tell(&v);
    raid_heap_drop(&v.heap);
    return rc;
}

const struct command raid_assemble_command = {
    .name = "raid assemble",
    .run = run,
    .usage = "raid assemble [OPTION]... DEVICE|dir:FOLDER...",
    .summary = "Find the arrays in a heap of devices and print their specs",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "Devices are sorted by what their superblocks say, whatever they are called. A member "
             "that\n"
             "left its array before the others went on is left out; an array that was split is "
             "refused.\n"
             "Where ddrescue's X.map lies beside X, what it could not read is no data.\n"
             "Nothing is written. --force says what it is that may be lost.\n"
             "\n"
             "  lamina raid assemble *.img\n"
             "  lamina serve \"$(lamina raid assemble dir:disks)\"",
};

const struct command raid_detail_command = {
    .name = "raid detail",
    .run = run,
    .usage = "raid detail [OPTION]... ARRAY|DEVICE|dir:FOLDER...",
    .summary = "Print an array's state and its members",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina raid detail a.img b.img c.img\n"
             "  lamina raid detail md:a.img,b.img,c.img",
};

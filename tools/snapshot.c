/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot.c - snapshots inside an image: listed, made, gone back to, deleted.
 *
 * qemu-img finds what to delete by its name, what to apply by its id or else its name; under
 * lamina's own name both take a name, or else an id. */
#include "tools/image.h"
#include "tools/output.h"

enum action { NOTHING, LIST, CREATE, APPLY, DELETE };

static const struct arg_desc options[] = {
    {'l', "list", NULL, "list the snapshots (the default)", 0, false},
    {'c', "create", "NAME", "make one of the disk as it is now", 0, false},
    {'a', "apply", "NAME", "make the disk what it was then; what it is now is lost", 0, false},
    {'d', "delete", "NAME", "delete one; says how much space that freed", 0, false},
    {'f', "format", "FORMAT", "the image's format (else it is found out)", 0, false},
    {ARG_OUTPUT_ID, "output", "human|json", "print for people or for programs", FACE_LAMINA, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

struct snapshot {
    struct tool *tool;
    struct image image;
    enum action action;
    const char *name;
    struct blk_snapshot *list;
    size_t count;
    uint64_t freed;
    char *id; /* of what was changed */
    struct blk_error error;
};

static const struct blk_snapshot *find(const struct snapshot *s)
{
    const struct blk_snapshot *id = blk_snapshot_by_id(s->list, s->count, s->name);
    const struct blk_snapshot *name = blk_snapshot_by_name(s->list, s->count, s->name);
    if (s->tool->face == FACE_LAMINA)
        return name ? name : id;
    return s->action == DELETE ? name : id ? id : name;
}

static int co_list(struct snapshot *s, struct blk_device *dev)
{
    int rc = co_blk_snapshot_list(dev, &s->list, &s->count, &s->error);
    if (rc == -ENOTSUP && s->tool->face != FACE_LAMINA && s->action == LIST) {
        s->error = (struct blk_error){0}; /* QEMU lists none */
        return 0;
    }
    return rc;
}

static int co_create(struct snapshot *s, struct blk_device *dev)
{
    uint64_t now = host_wall_clock(s->tool->host);
    struct blk_snapshot wanted = {.name = (char *)s->name,
                                  .date_sec = now / 1000000000,
                                  .date_nsec = (uint32_t)(now % 1000000000)};
    return co_blk_snapshot_create(dev, &wanted, &s->error);
}

/* Whom -a or -d means. */
static int co_change(struct snapshot *s, struct blk_device *dev)
{
    TRY(co_list(s, dev));
    const struct blk_snapshot *found = find(s);
    if (!found)
        return err_set(&s->error, -ENOENT,
                       "the image holds no snapshot \"%s\"; `lamina snapshot` lists what it holds",
                       s->name);
    s->id = mem_strdup(found->id);
    if (!s->id)
        return err_set(&s->error, -ENOMEM, "out of memory");
    if (s->action == DELETE)
        return co_blk_snapshot_delete(dev, s->id, &s->freed, &s->error);
    return co_blk_snapshot_apply(dev, s->id, &s->error);
}

/* qemu-img's words. */
static void face_words(struct snapshot *s, int rc)
{
    char why[200];
    static const char *const doing[] = {
        [CREATE] = "create", [APPLY] = "apply", [DELETE] = "delete"};
    if (rc >= 0 || s->tool->face == FACE_LAMINA || s->action < CREATE)
        return;
    snprintf(why, sizeof(why), "%.199s", s->error.text);
    if (s->action == CREATE)
        snprintf(why, sizeof(why), "%d (%s)", rc, strerror(-rc));
    else if (s->action == DELETE && rc == -ENOENT)
        snprintf(why, sizeof(why), "snapshot not found");
    else if (rc == -ENOENT)
        snprintf(why, sizeof(why), "Failed to load snapshot: No such file or directory");
    else if (rc == -ENOTSUP)
        snprintf(why, sizeof(why), "Block driver does not support snapshots");
    err_set(&s->error, rc, "Could not %s snapshot '%s': %s", doing[s->action], s->name, why);
}

static int co_run(void *arg)
{
    struct snapshot *s = arg;
    struct blk_device *dev;
    TRY(co_image_open(s->tool, &s->image, &dev, &s->error));
    int rc = s->action == CREATE ? co_create(s, dev)
             : s->action == LIST ? co_list(s, dev)
             : s->action         ? co_change(s, dev)
                                 : 0;
    face_words(s, rc);
    return co_image_end(s->tool, dev, rc, &s->error);
}

/* --- printing ----------------------------------------------------------------------------------
 */

static json_t *one_json(const struct blk_snapshot *s)
{
    json_t *o = json_object();
    json_object_set_new(o, "id", output_text(s->id));
    json_object_set_new(o, "name", output_text(s->name));
    json_object_set_new(o, "vm-state-size", json_integer((json_int_t)s->vm_state_bytes));
    json_object_set_new(o, "date-sec", json_integer((json_int_t)s->date_sec));
    json_object_set_new(o, "date-nsec", json_integer((json_int_t)s->date_nsec));
    json_object_set_new(o, "vm-clock-sec",
                        json_integer((json_int_t)(s->vm_clock_nsec / 1000000000)));
    json_object_set_new(o, "vm-clock-nsec",
                        json_integer((json_int_t)(s->vm_clock_nsec % 1000000000)));
    if (s->icount != UINT64_MAX)
        json_object_set_new(o, "icount", json_integer((json_int_t)s->icount));
    json_object_set_new(o, "virtual-size", json_integer((json_int_t)s->virtual_size));
    return o;
}

static int print_list(const struct snapshot *s)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < s->count; i++)
        json_array_append_new(list, one_json(&s->list[i]));
    if (s->tool->output == OUTPUT_JSON)
        return output_json(list);
    if (list)
        output_snapshots(list, 0);
    json_decref(list);
    return 0;
}

static int print_done(const struct snapshot *s)
{
    char size[32];
    static const char *const words[] = {
        [CREATE] = "created", [APPLY] = "applied", [DELETE] = "deleted"};
    if (s->tool->output == OUTPUT_JSON) {
        json_t *o = json_pack("{s:o}", words[s->action], output_text(s->name));
        if (o && s->id)
            json_object_set_new(o, "id", output_text(s->id));
        if (o && s->action == DELETE)
            json_object_set_new(o, "freed-bytes", json_integer((json_int_t)s->freed));
        return output_json(o);
    }
    if (s->tool->quiet || s->tool->face != FACE_LAMINA)
        return 0;
    if (s->action == DELETE)
        printf("Snapshot '%s' %s, %s freed.\n", s->name, words[s->action],
               output_size(s->freed, size, sizeof(size)));
    else
        printf("Snapshot '%s' %s.\n", s->name, words[s->action]);
    return 0;
}

/* --- what is told -------------------------------------------------------------------------------
 */

static int act(struct snapshot *s, enum action action, const char *name)
{
    if (s->action != NOTHING) {
        tool_misuse(s->tool, "Cannot mix '-l', '-a', '-c', '-d'");
        return ARGS_BAD;
    }
    s->action = action;
    s->name = name;
    return 0;
}

static int option(void *verb, int id, const char *value)
{
    struct snapshot *s = verb;
    switch (id) {
    case 'l':
        return act(s, LIST, NULL);
    case 'c':
        return act(s, CREATE, value);
    case 'a':
        return act(s, APPLY, value);
    default:
        return act(s, DELETE, value);
    }
}

static int parse(struct snapshot *s, int argc, char **argv)
{
    const struct arg_place places[] = {IMAGE_PLACES(&s->image), {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, s};
    return image_read(s->tool, &line, &s->image);
}

static int run(struct tool *t, int argc, char **argv)
{
    struct snapshot s = {.tool = t};
    int id = parse(&s, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (s.action == NOTHING && t->face == FACE_LAMINA)
        s.action = LIST;
    bool write = s.action > LIST;
    s.image.trust = write ? TRUST_WRITE : TRUST_NOTHING;
    s.image.flags = BLK_OPEN_NO_BACKING | (write ? BLK_OPEN_WRITE : 0);
    int rc = tool_run(t, 1, co_run, &s);
    rc = rc < 0             ? tool_failed(t, &s.error)
         : s.action == LIST ? print_list(&s)
         : s.action         ? print_done(&s)
                            : 0;
    blk_snapshots_drop(s.list, s.count);
    mem_free(s.id);
    return rc;
}

const struct command snapshot_command = {
    .name = "snapshot",
    .run = run,
    .usage = "snapshot [OPTION]... IMAGE",
    .summary = "List, make, apply or delete the snapshots inside an image",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes = "A snapshot is read as IMAGE//@NAME, or with convert -l NAME. Two may have one name; "
             "an id\n"
             "tells them apart.\n"
             "\n"
             "  lamina snapshot -c monday disk.qcow2\n"
             "  lamina snapshot disk.qcow2\n"
             "  lamina convert disk.qcow2//@monday monday.img\n"
             "  lamina snapshot -a monday disk.qcow2\n"
             "  lamina snapshot -d monday disk.qcow2",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid.c - `lamina raid VERB`: arrays of md, with mdadm's words. */
#include <stdlib.h>

#include "block/heap.h"
#include "block/option_text.h"
#include "raid/array.h"
#include "tools/raid.h"

static const struct command *const verbs[] = {
    &raid_create_command, &raid_assemble_command, &raid_examine_command,
    &raid_detail_command, &raid_sync_command,     &raid_scrub_command,
    &raid_add_command,    &raid_re_add_command,   &raid_replace_command,
    &raid_fail_command,   &raid_remove_command,   &raid_grow_command,
    &raid_watch_command,  &raid_stop_command,     NULL};

/* --- a heap of devices -------------------------------------------------------------------------
 */

#define FOLDER "dir:"
#define ARRAY  "md:"

static int add_name(struct raid_heap *h, char *name, struct blk_error *e)
{
    struct raid_heap_item *more = mem_resize(h->items, (h->count + 1) * sizeof(*more));
    if (more)
        h->items = more;
    if (!name || !more) {
        mem_free(name);
        return err_set(e, -ENOMEM, "out of memory");
    }
    h->items[h->count++] = (struct raid_heap_item){.name = name};
    return 0;
}

/* Where ddrescue's map lies beside a file, what could not be read of it is no data. */
static int co_add_file(struct tool *t, struct raid_heap *h, const char *path, struct blk_error *e)
{
    char *spec;
    if (co_heap_rescue_spec(t->host, path, &spec) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    return add_name(h, spec ? spec : mem_strdup(path), e);
}

static int co_add_folder(struct tool *t, struct raid_heap *h, const char *folder,
                         struct blk_error *e)
{
    char **names;
    size_t count;
    int rc = co_host_list(t->host, folder, &names, &count);
    if (rc < 0)
        return err_errno(e, rc, "%s", folder);
    for (size_t i = 0; i < count; i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        if (rc == 0 && path && co_heap_is_disk(t->host, path))
            rc = co_add_file(t, h, path, e);
        mem_free(path);
        mem_free(names[i]);
    }
    mem_free(names);
    h->same_folder = true;
    return rc;
}

/* The members of a spec; its options are not what is looked at here. */
static int co_add_spec(struct tool *t, struct raid_heap *h, const char *spec, struct blk_error *e)
{
    auto_free char *word = mem_alloc(strlen(spec) + 1);
    int rc = word ? 0 : err_set(e, -ENOMEM, "out of memory");
    while (rc == 0 && *spec) {
        spec += opts_take_word(spec, word);
        spec += *spec == ',';
        bool is_option = word[strspn(word, "abcdefghijklmnopqrstuvwxyz-")] == '=' &&
                         strncmp(word, "driver=", strlen("driver=")) != 0;
        if (!is_option && strcmp(word, "missing") != 0)
            rc = co_add_file(t, h, word, e);
    }
    return rc;
}

static int co_add_told(struct tool *t, struct raid_heap *h, const char *told, struct blk_error *e)
{
    if (strncmp(told, FOLDER, strlen(FOLDER)) == 0)
        return co_add_folder(t, h, told + strlen(FOLDER), e);
    if (strncmp(told, ARRAY, strlen(ARRAY)) == 0)
        return co_add_spec(t, h, told + strlen(ARRAY), e);
    return co_add_file(t, h, told, e);
}

static void tell_foreign(struct raid_heap_item *item)
{
    struct foreign_member m = {item->name, item->foreign, item->format};
    char *text;
    int rc = foreign_tell(&m, 1, &text);
    if (rc < 0) {
        err_set(&item->error, rc, "out of memory");
        return;
    }
    err_set(&item->error, -ENOTSUP, "%s", text);
    free(text);
}

static void co_look_at(struct tool *t, struct raid_heap_item *item, const char *format)
{
    struct image image = {.text = item->name, .format = format, .trust = TRUST_READ};
    int rc = co_image_open(t, &image, &item->dev, &item->error);
    item->format = rc == 0 && !item->dev->driver->is_filter ? item->dev->driver->name : NULL;
    if (rc == 0)
        rc = co_member_find_super(item->dev, &item->super, &item->error);
    if (rc < 0 && item->error.damaged)
        blk_next(&item->error,
                 "the other members know the same of their array: assemble it without FILE, and "
                 "`lamina raid add` fills it anew",
                 item->name);
    if (rc < 0 || item->super)
        return;
    rc = co_foreign_find(item->dev, &item->foreign, &item->error);
    if (rc == 0 && item->foreign)
        tell_foreign(item);
    else if (rc == 0) {
        err_set(&item->error, -ENODATA,
                "it is no member of an array: it has no superblock of md, DDF or Intel's");
        blk_next(&item->error, "`lamina tree FILE` shows what it holds", item->name);
    }
}

int co_raid_heap_open(struct tool *t, char *const *told, size_t count, const char *format,
                      struct raid_heap *out, struct blk_error *e)
{
    bool quiet = t->quiet;
    int rc = 0;
    *out = (struct raid_heap){0};
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = co_add_told(t, out, told[i], e);
    t->quiet |= out->same_folder; /* that a format was found out is not worth a line for each */
    for (size_t i = 0; i < out->count && rc == 0; i++)
        co_look_at(t, &out->items[i], format);
    t->quiet = quiet;
    return rc;
}

void co_raid_heap_close(struct raid_heap *h)
{
    for (size_t i = 0; i < h->count; i++)
        (void)!co_blk_close(take(h->items[i].dev), NULL);
}

void raid_heap_drop(struct raid_heap *h)
{
    for (size_t i = 0; i < h->count; i++) {
        mem_free(h->items[i].name);
        mem_free(h->items[i].super);
        mem_free(h->items[i].foreign);
    }
    mem_free(h->items);
}

/* --- what is told ------------------------------------------------------------------------------
 */

bool raid_size_told(const struct tool *t, const char *what, const char *text, uint64_t *bytes)
{
    bool bare = text && text[strspn(text, "0123456789")] == 0;
    if (!text)
        return true;
    if (!size_told(t, what, text, bytes))
        return false;
    if (bare && !mul_u64(*bytes, KiB, bytes)) {
        tool_error(t, "the %s is too large", what);
        return false;
    }
    return true;
}

bool raid_used_told(const struct tool *t, const char *text, uint64_t *bytes)
{
    if (!text || strcmp(text, "max") != 0)
        return raid_size_told(t, "size", text, bytes);
    *bytes = RAID_SIZE_MAX;
    return true;
}

bool raid_count_told(const struct tool *t, const char *what, const char *text, unsigned *count)
{
    char *end;
    unsigned long n = text ? strtoul(text, &end, 10) : 0;
    if (!text)
        return true;
    if (*text < '0' || *text > '9' || *end || n > RAID_DISKS_MOST) {
        tool_error(t, "--%s takes a number up to %d, not '%s'", what, RAID_DISKS_MOST, text);
        return false;
    }
    *count = (unsigned)n;
    return true;
}

/* --- which verb --------------------------------------------------------------------------------
 */

static int run(struct tool *t, int argc, char **argv)
{
    return command_group(t, verbs, argc, argv);
}

static const struct arg_desc options[] = {ARG_END};

const struct command raid_command = {
    .name = "raid",
    .run = run,
    .usage = "raid VERB [OPTION]... ...",
    .summary = "Arrays of Linux' md: made, examined, assembled, kept whole",
    .faces = FACE_LAMINA,
    .options = options,
    .verbs = verbs,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid.h - what the verbs of `lamina raid` share.
 *
 *   raid.c           which verb; opening a heap of devices
 *   raid_create.c    create
 *   raid_examine.c   examine: what one device's superblock says
 *   raid_assemble.c  assemble: who belongs together; detail: one array
 *   raid_change.c    sync, scrub, add, re-add, replace, fail, remove, grow
 *   raid_watch.c     watch: what happens to arrays; stop */
#ifndef TOOLS_RAID_H
#define TOOLS_RAID_H

#include "raid/foreign.h"
#include "raid/super.h"
#include "tools/output.h"
#include "tools/task.h"

extern const struct command raid_create_command, raid_examine_command, raid_assemble_command,
    raid_detail_command, raid_sync_command, raid_scrub_command, raid_add_command,
    raid_re_add_command, raid_replace_command, raid_fail_command, raid_remove_command,
    raid_grow_command, raid_watch_command, raid_stop_command;

/* Devices that were told, those in folders one by one. */
struct raid_heap_item {
    char *name; /* as a spec */
    struct blk_device *dev;
    const char *format;      /* of the image that it is; NULL: none */
    struct md_super *super;  /* NULL: it has none that counts */
    struct foreign *foreign; /* what it has instead, of another kind of array; NULL: nothing */
    struct blk_error error;  /* why it could not be opened, or has none */
};
struct raid_heap {
    struct raid_heap_item *items;
    size_t count;
    bool same_folder; /* some came from dir:, where not everything is a member */
};
/* What @told names, opened read-only, with their superblocks; one that cannot be opened says so in
 * its item. Inside a task's body; to be dropped there, also on failure. */
must_use int co_raid_heap_open(struct tool *t, char *const *told, size_t count, const char *format,
                               struct raid_heap *out, struct blk_error *e);
void co_raid_heap_close(struct raid_heap *h); /* devices only: names and superblocks stay */
void raid_heap_drop(struct raid_heap *h);

/* As mdadm takes sizes: a bare number is KiB. True where @text is NULL: *bytes stays. False after a
 * message. */
bool raid_size_told(const struct tool *t, const char *what, const char *text, uint64_t *bytes);
/* --size: the same, or "max", which gives RAID_SIZE_MAX. */
#define RAID_SIZE_MAX UINT64_MAX
bool raid_used_told(const struct tool *t, const char *text, uint64_t *bytes);
/* A number of members, in the same way; @what: the option's name. */
bool raid_count_told(const struct tool *t, const char *what, const char *text, unsigned *count);

/* How a fact is printed for people. */
enum raid_fact { FACT_TEXT, FACT_NUMBER, FACT_SIZE, FACT_TIME, FACT_CLEAN };
struct raid_label {
    const char *key, *label;
    enum raid_fact kind;
};
/* Those of @facts that are there, in the rows' order, one on a line. */
void raid_print_facts(const json_t *facts, const struct raid_label *rows, size_t count);
/* What a superblock says; @name: of the device. NULL: no memory. */
json_t *raid_super_json(const char *name, const struct md_super *s);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.c - how the verbs of LVM open what they are told, run and print. */
#include "tools/lvm.h"

#include <stdarg.h>
#include <stdlib.h>

/* --- sizes -------------------------------------------------------------------------------------
 */

int lvm_parse_size(const char *text, uint64_t unit, uint64_t *bytes, struct blk_error *e)
{
    size_t digits = strspn(text, "0123456789.");
    char last = text[digits] ? text[strlen(text) - 1] : 0;
    auto_free char *number =
        mem_printf("%.*s%s", (int)digits, text, last == 's' || !last ? "" : text + digits);
    if (!number)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(opts_parse_size(number, bytes, e));
    if (last == 's')
        unit = LVM_SECTOR;
    if ((last == 's' || !last) && !mul_u64(*bytes, unit, bytes))
        return err_set(e, -ERANGE, "size '%.60s' is too large", text);
    return 0;
}

/* --- physical volumes by name ------------------------------------------------------------------
 */

struct lvm_member *lvm_verb_member(struct lvm_verb *v, const char *text)
{
    char uuid[LVM_UUID + 1];
    bool by_uuid = lvm_uuid_parse(text, uuid);
    for (size_t i = 0; i < v->set->member_count; i++) {
        struct lvm_member *m = &v->set->members[i];
        if (strcmp(v->texts[i], text) == 0 || (by_uuid && strcmp(m->label.uuid, uuid) == 0))
            return m;
    }
    err_set(&v->error, -ENOENT, "Failed to find physical volume \"%s\"", text);
    return NULL;
}

int lvm_verb_pvs(struct lvm_verb *v, char *const *texts, size_t count, struct lvm_pv ***out)
{
    struct lvm_pv **list = mem_array(MAX(count, 1), sizeof(*list));
    if (!list)
        return err_set(&v->error, -ENOMEM, "out of memory");
    *out = list;
    for (size_t i = 0; i < count; i++) {
        const struct lvm_member *m = lvm_verb_member(v, texts[i]);
        if (!m)
            return v->error.rc;
        list[i] = lvm_find_pv(v->vg, m->label.uuid);
        if (!list[i])
            return err_set(&v->error, -ENOENT,
                           "Physical Volume \"%s\" not found in Volume Group \"%s\".", texts[i],
                           v->vg->name);
    }
    return 0;
}

/* --- running -----------------------------------------------------------------------------------
 */

static int say(struct lvm_verb *v, const char *fmt, va_list args)
{
    char text[600];
    vsnprintf(text, sizeof(text), fmt, args);
    char *more = mem_printf("%s  %s\n", v->done ? v->done : "", text);
    if (!more)
        return err_set(&v->error, -ENOMEM, "out of memory");
    mem_free(v->done);
    v->done = more;
    return 0;
}

int lvm_verb_say(struct lvm_verb *v, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = say(v, fmt, args);
    va_end(args);
    return rc;
}

int co_lvm_verb_commit(struct lvm_verb *v, const char *done, ...)
{
    va_list args;
    auto_free char *why = mem_printf("lamina %s", v->tool->command->name);
    if (!why)
        return err_set(&v->error, -ENOMEM, "out of memory");
    va_start(args, done); /* names in it may be gone after the commit */
    int rc = say(v, done, args);
    va_end(args);
    return rc < 0 ? rc : co_lvm_commit(v->set, &v->vg, why, &v->error);
}

static int co_body(struct task *t)
{
    struct lvm_verb *v = container_of(t, struct lvm_verb, task);
    int rc = v->co_work(v);
    rc = co_image_close(v->dev, rc, &v->error);
    t->error = v->error;
    return rc;
}

int lvm_verb_run(struct lvm_verb *v, int argc, char **argv, const struct arg_place *places,
                 int least)
{
    struct command_line line = {argc, argv, places, v->option, v};
    int id = args_read(v->tool, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc < least)
        return tool_misuse(v->tool, "expecting: %s", v->tool->command->usage);
    v->operands = line.argv;
    v->count = line.argc;
    v->task.tool = v->tool;
    v->task.kind = v->tool->command->name;
    v->task.co_body = co_body;
    int rc = task_run(&v->task, 1);
    if (rc == 0 && v->done && !v->tool->quiet)
        fputs(v->done, stdout);
    lvm_verb_drop(v);
    return rc;
}

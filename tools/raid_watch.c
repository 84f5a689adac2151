/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_watch.c - lamina raid watch: mdadm's --monitor. Looks at arrays again and again, at members
 * themselves or at a server's control socket, and tells what has changed since in mdadm's words;
 * and lamina raid stop, which asks a server to let go of an array. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "block/ctl.h"
#include "tools/image.h"
#include "tools/raid.h"

enum { ARG_DELAY = 'd', ARG_ONESHOT = '1', ARG_CONTROL = ARG_LONG };

#define DELAY_SECONDS 60
#define PERCENT_STEP  20
#define LOOK_NS       100000000ull

struct watched {
    const char *name;  /* a spec, or an export's */
    json_t *was, *now; /* facts: of the last look, and of this one; NULL: it is not to be seen */
    bool known;        /* there was a look */
    struct blk_error error;
};

struct watch {
    struct tool *tool;
    const char *control, *format;
    struct watched *arrays;
    size_t count;
};

/* --- looking -----------------------------------------------------------------------------------
 */

static int co_ask(struct tool *t, const char *control, json_t *request, json_t **result,
                  struct blk_error *e)
{
    int rc = request ? co_ctl_call(t->host, control, request, result, e)
                     : err_set(e, -ENOMEM, "out of memory");
    json_decref(request);
    return rc;
}

static int co_look_at_members(struct watch *v, struct watched *w)
{
    struct image image = {.text = w->name, .format = v->format, .trust = TRUST_READ};
    struct blk_device *dev;
    struct blk_info info;
    TRY(co_image_open(v->tool, &image, &dev, &w->error));
    struct blk_device *array = blk_find_redundant(dev);
    int rc = array ? co_blk_info(array, &info, &w->error)
                   : err_set(&w->error, -EINVAL,
                             "%s is not an array: name its members as md:MEMBER,MEMBER... or their "
                             "folder as dir:FOLDER",
                             w->name);
    if (rc == 0) {
        w->now = json_incref(info.specific);
        blk_info_drop(&info);
    }
    return co_image_close(dev, rc, &w->error);
}

static int co_look(void *arg)
{
    struct watch *v = arg;
    for (size_t i = 0; i < v->count; i++) {
        struct watched *w = &v->arrays[i];
        w->error = (struct blk_error){0};
        if (v->control)
            (void)!co_ask(v->tool, v->control,
                          json_pack("{s:s, s:s}", "do", "raid", "name", w->name), &w->now,
                          &w->error);
        else
            (void)!co_look_at_members(v, w);
    }
    return 0;
}

/* --- what has changed --------------------------------------------------------------------------
 */

/* @member: NULL: it is about the array. */
static void tell(const struct watch *v, const struct watched *w, const char *event,
                 const char *member)
{
    char when[32] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (v->tool->output == OUTPUT_JSON) {
        json_t *o =
            json_pack("{s:I, s:s, s:o, s:o*}", "time", (json_int_t)now, "event", event, "array",
                      output_text(w->name), "member", member ? output_text(member) : NULL);
        json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
    } else {
        if (localtime_r(&now, &tm))
            strftime(when, sizeof(when), "%b %d %T: ", &tm);
        printf("%s%s on %s%s%s\n", when, event, *w->name ? w->name : "(default)", member ? " " : "",
               member ? member : "");
    }
    fflush(stdout);
}

static uint64_t number_of(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

/* How far a resync, recovery or reshape is, in percent; -1: there is none. */
static int percent_of(const json_t *facts)
{
    const json_t *sync = json_object_get(facts, "sync"),
                 *reshape = json_object_get(facts, "reshape");
    uint64_t at = sync ? number_of(sync, "at") : number_of(reshape, "position");
    uint64_t total = sync ? number_of(sync, "total") : number_of(reshape, "end");
    return !sync && !reshape ? -1 : total ? (int)(at * 100.0 / total) : 0;
}

static void compare_work(const struct watch *v, const struct watched *w)
{
    int was = percent_of(w->was), now = percent_of(w->now);
    char event[32];
    snprintf(event, sizeof(event), "Rebuild%02d", now - now % PERCENT_STEP);
    if (was < 0 && now >= 0)
        tell(v, w, "RebuildStarted", NULL);
    else if (was >= 0 && now < 0)
        tell(v, w, "RebuildFinished", NULL);
    else if (now / PERCENT_STEP > was / PERCENT_STEP)
        tell(v, w, event, NULL);
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static const json_t *same_member(const json_t *facts, const json_t *like)
{
    const json_t *m;
    size_t i;
    json_array_foreach (json_object_get(facts, "members"), i, m)
        if (strcmp(text_of(m, "name"), text_of(like, "name")) == 0)
            return m;
    return NULL;
}

static unsigned count_in_sync(const json_t *facts)
{
    const json_t *m;
    size_t i;
    unsigned n = 0;
    json_array_foreach (json_object_get(facts, "members"), i, m)
        n += strcmp(text_of(m, "state"), "in sync") == 0;
    return n;
}

static void compare_members(const struct watch *v, const struct watched *w)
{
    const json_t *m;
    size_t i;
    json_array_foreach (json_object_get(w->now, "members"), i, m) {
        const json_t *before = same_member(w->was, m);
        const char *was = text_of(before, "state"), *now = text_of(m, "state");
        if (!before || strcmp(was, now) == 0)
            continue;
        if (strcmp(now, "left out") == 0)
            tell(v, w, strcmp(was, "in sync") == 0 ? "Fail" : "FailSpare", text_of(m, "name"));
        else if (strcmp(now, "in sync") == 0)
            tell(v, w, "SpareActive", text_of(m, "name"));
    }
}

static void compare(const struct watch *v, const struct watched *w)
{
    if (!w->now) {
        if (!w->known || w->was)
            tell(v, w, "DeviceDisappeared", NULL);
        return;
    }
    if (!w->was)
        tell(v, w, "NewArray", NULL);
    if (!w->was && count_in_sync(w->now) < number_of(w->now, "raid-devices"))
        tell(v, w, "DegradedArray", NULL);
    compare_work(v, w);
    compare_members(v, w);
}

/* One look. False: an array is not to be seen, which stderr says once. */
static bool look(struct watch *v)
{
    bool all = tool_run(v->tool, 1, co_look, v) == 0;
    for (size_t i = 0; i < v->count; i++) {
        struct watched *w = &v->arrays[i];
        if (!w->now && (!w->known || w->was))
            (void)tool_failed(v->tool, &w->error);
        compare(v, w);
        all &= w->now != NULL;
        w->known = true;
        json_decref(w->was);
        w->was = take(w->now);
    }
    return all;
}

/* --- the verbs ---------------------------------------------------------------------------------
 */

static const struct arg_desc watch_options[] = {
    {ARG_ONESHOT, "oneshot", NULL, "look once and end", 0, false},
    {ARG_DELAY, "delay", "SECONDS", "from one look to the next (60)", 0, false},
    {ARG_CONTROL, "control", "SOCKET", "ask the server there; ARRAYs are its exports", 0, false},
    ARG_IMAGE_FORMAT,
    ARG_SECRET,
    ARG_FORCE_SHARE,
    ARG_OUTPUT,
    ARG_END};

static int run_watch(struct tool *t, int argc, char **argv)
{
    struct watch v = {.tool = t};
    const char *delay = NULL;
    unsigned seconds = DELAY_SECONDS;
    bool oneshot = false, all;
    const struct arg_place places[] = {{'f', &v.format, NULL},
                                       {ARG_DELAY, &delay, NULL},
                                       {ARG_CONTROL, &v.control, NULL},
                                       {ARG_ONESHOT, NULL, &oneshot},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &v};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc == 0)
        return tool_misuse(t, "Expecting at least one array");
    if (!raid_count_told(t, "delay", delay, &seconds))
        return 1;
    auto_free struct watched *arrays = mem_array((size_t)line.argc, sizeof(*arrays));
    if (!arrays)
        return 1;
    v.arrays = arrays;
    v.count = (size_t)line.argc;
    for (size_t i = 0; i < v.count; i++)
        arrays[i].name = line.argv[i];
    while ((all = look(&v)), !oneshot)
        sleep(MAX(seconds, 1));
    for (size_t i = 0; i < v.count; i++)
        json_decref(arrays[i].was);
    return all ? 0 : 1;
}

const struct command raid_watch_command = {
    .name = "raid watch",
    .run = run_watch,
    .usage = "raid watch [OPTION]... ARRAY...",
    .summary = "Tell what happens to arrays, as mdadm --monitor does",
    .faces = FACE_LAMINA,
    .options = watch_options,
    .notes = "Events, one on a line: NewArray DegradedArray DeviceDisappeared Fail FailSpare "
             "SpareActive\n"
             "RebuildStarted RebuildNN (percent) RebuildFinished. --oneshot fails if an array is "
             "not to be seen.\n"
             "\n"
             "  lamina raid watch --oneshot md:a.img,b.img\n"
             "  lamina raid watch --oneshot --control=/run/lamina.ctl --output=json disk",
};

struct stop {
    struct tool *tool;
    const char *control, *export;
    struct blk_error error;
};

/* The job that keeps an array whole ends when nobody has it any more, and it is closed. */
static bool is_kept(const json_t *jobs, const char *export)
{
    const json_t *job;
    size_t i;
    json_array_foreach (jobs, i, job)
        if (strcmp(text_of(job, "kind"), "raid") == 0 && strcmp(text_of(job, "of"), export) == 0 &&
            (strcmp(text_of(job, "state"), "running") == 0 ||
             strcmp(text_of(job, "state"), "paused") == 0))
            return true;
    return false;
}

static int co_stop(void *arg)
{
    struct stop *s = arg;
    json_t *result = NULL;
    bool kept = true;
    int rc = co_ask(s->tool, s->control, json_pack("{s:s, s:s}", "do", "raid", "name", s->export),
                    &result, &s->error);
    json_decref(take(result));
    if (rc == 0)
        rc = co_ask(s->tool, s->control, json_pack("{s:s, s:s}", "do", "remove", "name", s->export),
                    &result, &s->error);
    json_decref(take(result));
    while (rc == 0 && kept) {
        rc = co_ask(s->tool, s->control, json_pack("{s:s}", "do", "jobs"), &result, &s->error);
        kept = rc == 0 && is_kept(result, s->export);
        json_decref(take(result));
        if (kept)
            co_sleep(LOOK_NS);
    }
    return rc;
}

static const struct arg_desc stop_options[] = {ARG_QUIET, ARG_END};

static int run_stop(struct tool *t, int argc, char **argv)
{
    struct stop s = {.tool = t, .export = ""};
    struct command_line line = {.argc = argc, .argv = argv, .verb = &s};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc < 1 || line.argc > 2)
        return tool_misuse(t, "Expecting a server's control socket, and an export of it");
    s.control = line.argv[0];
    if (line.argc == 2)
        s.export = line.argv[1];
    if (tool_run(t, 1, co_stop, &s) < 0)
        return tool_failed(t, &s.error);
    if (!t->quiet)
        printf("stopped %s\n", *s.export ? s.export : "(default)");
    return 0;
}

const struct command raid_stop_command = {
    .name = "raid stop",
    .run = run_stop,
    .usage = "raid stop [OPTION]... SOCKET [EXPORT]",
    .summary = "Let a server stop an array that it serves; its members are free then",
    .faces = FACE_LAMINA,
    .options = stop_options,
    .notes = "Its clients are told to go, and its superblocks say clean where it is in sync. The "
             "server and its\nother exports go on.\n"
             "\n"
             "  lamina raid stop /run/lamina.ctl disk",
};

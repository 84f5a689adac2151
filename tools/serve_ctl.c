/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_ctl.c - the control socket of a server: what it can be asked, and its exports. */
#include "tools/serve_ctl.h"

#include <limits.h>

/* --- arguments --- */

int ask_known(const json_t *request, const char *const *keys, struct blk_error *e)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)request, key, value) {
        size_t n = 0;

        while (keys[n] && strcmp(keys[n], key) != 0)
            n++;
        if (keys[n] || strcmp(key, "do") == 0)
            continue;
        const char *near = opts_nearest(key, keys, n);
        return err_set(e, -EINVAL, "unknown word \"%.60s\"%s%s%s", key,
                       near ? ": the nearest is \"" : "", near ? near : "", near ? "\"" : "");
    }
    return 0;
}

int ask_text(const json_t *request, const char *key, bool needed, const char **out,
             struct blk_error *e)
{
    const json_t *value = json_object_get(request, key);

    *out = json_string_value(value);
    if (value && !*out)
        return err_set(e, -EINVAL, "\"%s\" has to be a text", key);
    return needed && !*out ? err_set(e, -EINVAL, "\"%s\" is missing", key) : 0;
}

int ask_bool(const json_t *request, const char *key, bool *out, struct blk_error *e)
{
    const json_t *value = json_object_get(request, key);
    const char *text = json_string_value(value);

    if (!value)
        return 0;
    if (json_is_boolean(value))
        *out = json_is_true(value);
    else if (text && (strcmp(text, "on") == 0 || strcmp(text, "off") == 0))
        *out = strcmp(text, "on") == 0;
    else
        return err_set(e, -EINVAL, "\"%s\" has to be on or off", key);
    return 0;
}

int ask_size(const json_t *request, const char *key, uint64_t *out, struct blk_error *e)
{
    const json_t *value = json_object_get(request, key);

    if (!value)
        return 0;
    if (json_is_string(value))
        return opts_parse_size(json_string_value(value), out, e);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_set(e, -EINVAL, "\"%s\" has to be a size", key);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

int ask_list(const json_t *request, const char *key, size_t room, const json_t **out, size_t *count,
             struct blk_error *e)
{
    const json_t *list = json_object_get(request, key);

    *out = list;
    *count = json_array_size(list);
    if (*count < 1 || *count > room)
        return err_set(e, -EINVAL, "\"%s\" has to be a list of 1 to %zu objects", key, room);
    for (size_t i = 0; i < *count; i++)
        if (!json_is_object(json_array_get(list, i)))
            return err_set(e, -EINVAL, "\"%s\" has to be a list of objects", key);
    return 0;
}

/* --- the exports, told --- */

/* The counts, and what the device stands on, belong to the export's home. */
struct facts {
    const struct nbd_export *export;
    json_t *image; /* NULL: it stands on no seat */
};

static json_t *or_null(const char *text)
{
    return text ? json_from_text(text) : json_null();
}

static int take_facts(void *arg)
{
    struct facts *f = arg;
    const struct blk_device *dev = f->export->dev;

    if (dev->driver != &seat_driver)
        return 0;
    dev = seat_device(dev);
    f->image = json_pack("{s:o, s:s}", "file", or_null(serve_image_path(dev)), "format",
                         dev->driver->name);
    return 0;
}

static json_t *co_export_to_json(const struct serve_ctl *s, const struct nbd_export *x)
{
    struct facts facts = {.export = x};
    auto_free struct nbd_export_stats *t = mem_alloc(sizeof(*t));
    json_t *o, *point;

    if (!t)
        return NULL;
    co_nbd_export_stats(x, t);
    co_on(x->dev->home, take_facts, &facts);
    o = json_pack("{s:o, s:o, s:I, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name",
                  json_from_text(x->name), "description", or_null(x->description), "size",
                  (json_int_t)nbd_facts_now(&x->facts).size, "read-only", !x->dev->writable,
                  "clients", (int)x->clients, "reads", (json_int_t)t->reads, "read-bytes",
                  (json_int_t)t->read_bytes, "writes", (json_int_t)t->writes, "written-bytes",
                  (json_int_t)t->written_bytes, "flushes", (json_int_t)t->flushes, "others",
                  (json_int_t)t->others, "errors", (json_int_t)t->errors);
    if (facts.image)
        json_object_set_new(o, "image", facts.image);
    point = co_serve_point_to_json(s, x);
    if (point)
        json_object_set_new(o, "point", point);
    return o;
}

/* Exports may come and go while another's home is asked: all are pinned first. */
static int co_list_exports(struct ctl *c, const json_t *request, json_t **result,
                           struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);
    struct nbd_exports *all = nbd_server_exports(s->server);
    size_t n = 0, most = all->count;
    auto_free struct nbd_export **held = mem_array(most + 1, sizeof(*held));
    json_t *list = json_array();

    for (struct nbd_export *x = held ? all->first : NULL; x && n < most; x = x->next) {
        nbd_export_pin(x);
        held[n++] = x;
    }
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, co_export_to_json(s, held[i]));
        nbd_export_release(held[i]);
    }
    if (held && json_array_size(list) == n)
        *result =
            json_pack("{s:s, s:o}", "address", nbd_server_address(s->server), "exports", list);
    else
        json_decref(list);
    return *result ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* --- and changed --- */

struct adding {
    struct serve_ctl *s;
    struct image image;
    struct nbd_export_options options;
    struct nbd_zone zone;
    struct blk_device *dev;
    struct blk_error *e;
};

static int co_open_at_home(void *arg)
{
    struct adding *a = arg;
    struct blk_device *dev;

    TRY(co_image_open(a->s->tool, &a->image, &dev, a->e));
    return co_serve_seat(dev, &a->dev, a->e);
}

static int read_adding(const json_t *request, struct adding *a, struct blk_error *e)
{
    static const char *const keys[] = {"spec",        "name",  "format",  "read-only",
                                       "description", "allow", "writers", NULL};
    const char *allow;
    bool read_only = false;
    uint64_t writers = 0;

    TRY(ask_known(request, keys, e));
    TRY(ask_text(request, "spec", true, &a->image.text, e));
    TRY(ask_text(request, "format", false, &a->image.format, e));
    TRY(ask_text(request, "name", false, &a->options.name, e));
    TRY(ask_text(request, "description", false, &a->options.description, e));
    TRY(ask_bool(request, "read-only", &read_only, e));
    TRY(ask_size(request, "writers", &writers, e));
    TRY(ask_text(request, "allow", false, &allow, e));
    const char *slash = strrchr(a->image.text, '/');
    if (!a->options.name)
        a->options.name = slash ? slash + 1 : a->image.text;
    if (writers > UINT_MAX)
        return err_set(e, -EINVAL, "\"writers\" is too large");
    a->options.max_writers = (unsigned)writers;
    a->options.zone = &a->zone;
    a->image.cache = a->s->cache;
    a->image.shared = &a->s->shared;
    a->image.flags = read_only ? 0 : BLK_OPEN_WRITE;
    a->image.trust = read_only ? TRUST_READ : TRUST_WRITE;
    return allow ? nbd_zone_add(&a->zone, allow, e) : 0;
}

static int co_keep(struct serve_ctl *s, const char *name, struct blk_error *e)
{
    struct nbd_export *x;

    TRY(serve_find(s, name, &x, e));
    return co_serve_raid_keep(s, x, e);
}

/* At @home, or where what it stands on is open already. */
static int co_open_shared(struct adding *a, struct worker *home)
{
    struct serve_ctl *s = a->s;

    with_lock(&s->opening);
    co_resolver_shared_prune(&s->shared);
    int rc = co_on(home, co_open_at_home, a);
    if (rc == -EXDEV && s->shared.elsewhere)
        rc = co_on(take(s->shared.elsewhere), co_open_at_home, a);
    return rc;
}

static int co_add(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct adding a = {.s = ctl_arg(c), .e = e};
    struct runtime *rt = a.s->tool->runtime;
    int rc = read_adding(request, &a, e);

    if (rc == 0)
        rc = co_open_shared(&a, runtime_worker(rt, a.s->dealt++ % runtime_workers(rt)));
    if (rc == 0)
        rc = co_nbd_export_add(nbd_server_exports(a.s->server), a.dev, &a.options, NULL, e);
    if (rc == 0)
        rc = co_keep(a.s, a.options.name, e);
    nbd_zone_drop(&a.zone);
    return rc;
}

static int co_remove(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);
    struct nbd_export *x;
    const char *name, *by;
    bool failed = false;
    int rc;

    TRY(ask_known(request, (const char *const[]){"name", "failed", NULL}, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(ask_bool(request, "failed", &failed, e));
    TRY(serve_find(s, name, &x, e));
    if (co_serve_point_remove(s, x, failed, &rc, e))
        return rc;
    by = serve_claimed(s, x);
    if (by)
        return err_set(e, -EBUSY, "%s is at work on '%s'", by, x->name);
    if (x->source)
        return err_set(e, -EINVAL, "'%s' is opened when it is asked for, and goes by itself",
                       x->name);
    rc = co_nbd_server_remove(s->server, x, e);
    with_lock(&s->opening);
    co_resolver_shared_prune(&s->shared); /* the last one on it lets go of its files */
    return rc;
}

static int co_resize(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_claim claim;
    const char *name;
    bool shrink = false;
    uint64_t size = UINT64_MAX;

    TRY(ask_known(request, (const char *const[]){"name", "size", "shrink", NULL}, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(ask_size(request, "size", &size, e));
    TRY(ask_bool(request, "shrink", &shrink, e));
    if (size > INT64_MAX)
        return err_set(e, -EINVAL, "\"size\" is missing, or too large");
    TRY(co_serve_claim(ctl_arg(c), name, "a resize", CLAIM_ALONE, &claim, e));
    int rc = co_blk_resize(claim.export->dev, size, shrink, e);
    serve_unclaim(&claim);
    return rc;
}

static int co_shutdown(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);

    nbd_server_stop(s->server);
    return 0;
}

/* --- seen from outside --- */

static int co_stats(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);

    return co_nbd_watch_stats(serve_watch_of(s->watch), result, e);
}

static int co_throttle(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);

    return co_nbd_watch_throttle(serve_watch_of(s->watch), request, result, e);
}

/* --- the socket --- */

static const struct ctl_verb verbs[] = {
    {"list", "the exports, their clients and counts", co_list_exports},
    {"stats", "all counts of all exports, with latencies", co_stats},
    {"events", "what happened to exports, when more has than is seen: [seen] [seconds]",
     co_serve_events},
    {"throttle", "weight, min-iops, iops, bps of an export; iops, bps, depth of a group",
     co_throttle},
    {"add", "a further export: spec [name] [format] [read-only] [description] [allow] [writers]",
     co_add},
    {"remove", "an export goes; its clients are told: name [failed, of a point export]", co_remove},
    {"resize", "an export's size: name, size [shrink]", co_resize},
    {"snapshot", "new images on top, all in one instant: exports [{name, file}] [format]",
     co_serve_snapshot},
    {"snapshot-inside", "a snapshot inside the image: name, snapshot", co_serve_snapshot_inside},
    {"commit", "the image goes down into the one it stands on: name [by-hand]", co_serve_commit},
    {"stream", "the image takes in what it stands on: name [base]", co_serve_stream},
    {"mirror", "another image takes its place: name, target [format] [existing] [by-hand]",
     co_serve_mirror},
    {"backup", "copies one instant: name, target [format] [existing] [bitmap [incremental]] [base]",
     co_serve_backup},
    {"point", "exports one instant: exports [{name, as}] [bitmap] [scratch] [limit]",
     co_serve_point},
    {"raid", "the array that an export stands on: name", co_serve_raid},
    {"member-add",
     "a further member, which takes the place of a missing one: name, spec [format] [force]",
     co_serve_member_add},
    {"member-re-add", "a former member, of which only what changed is copied: name, spec [format]",
     co_serve_member_re_add},
    {"member-replace",
     "a member that serves until its place is taken: name, member [with or spec] [force]",
     co_serve_member_replace},
    {"member-fail", "a member is not to be trusted any more: name, member", co_serve_member_fail},
    {"member-remove", "one that failed, or a spare, leaves: name, member", co_serve_member_remove},
    {"grow", "more of each member, or more members: name, size (or max) or raid-devices",
     co_serve_grow},
    {"scrub", "compares all copies, and parity: name [repair] [speed]", co_serve_scrub},
    {"forget", "takes a job that has ended off the list: id", co_serve_forget},
    {"shutdown", "stop serving: answer what is in flight, flush, close", co_shutdown},
    {NULL, NULL, NULL},
};

int co_serve_seat(struct blk_device *dev, struct blk_device **out, struct blk_error *e)
{
    if (dev->writable)
        return co_seat_put(dev, out, e);
    *out = dev;
    return 0;
}

int co_serve_ctl_open(struct serve_ctl *s, const char *path)
{
    struct ctl_options o = {.path = path, .jobs = &s->jobs, .verbs = verbs, .arg = s};
    struct blk_error e = {0};
    struct host *h = s->tool->host;
    auto_free char *address = mem_printf("unix:%s", path);
    int rc = co_ctl_open(h, &o, &s->socket, &e);

    if (rc == -EADDRINUSE && address && co_nbd_remove_dead_socket(h, address))
        rc = co_ctl_open(h, &o, &s->socket, &e);
    for (struct nbd_export *x = nbd_server_exports(s->server)->first; x && rc == 0; x = x->next)
        rc = co_serve_raid_keep(s, x, &e);
    if (rc < 0)
        tool_error(s->tool, "%s", e.text);
    return rc;
}

void co_serve_ctl_close(struct serve_ctl *s)
{
    s->closing = true;
    if (s->socket)
        co_ctl_close(take(s->socket));
    for (struct job *j = s->jobs.first; j; j = j->next)
        if (j->state < JOB_DONE)
            job_cancel(j);
    while (s->jobs.first) {
        (void)!co_job_wait(s->jobs.first);
        serve_forget(s->jobs.first);
    }
    co_serve_points_end(s);
}

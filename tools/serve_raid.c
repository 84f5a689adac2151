/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_raid.c - arrays that are being served: what lamina ctl asks of them, and a job for each
 * that keeps it whole.
 *
 * That job does what is owed (resync, recovery), then looks every second whether something is: a
 * member failed and a spare is there, or one was added. It holds the array, not the export; when
 * nobody else has the array any more, it ends. */
#include <limits.h>

#include "tools/occupied.h"
#include "tools/serve_ctl.h"

#define LOOK_NS 1000000000ull

/* The array below an export's seat; with a reference. */
struct finding {
    struct blk_device *top, *array;
};

static int find_at_home(void *arg)
{
    struct finding *f = arg;
    struct blk_device *found = blk_find_redundant(f->top);
    f->array = found && found->writable ? blk_ref(found) : NULL;
    return 0;
}

static struct blk_device *co_find_array(struct blk_device *top)
{
    struct finding f = {.top = top};
    (void)!co_on(top->home, find_at_home, &f);
    return f.array;
}

static int co_want_array(struct blk_device *top, struct blk_device **out, struct blk_error *e)
{
    *out = co_find_array(top);
    return *out ? 0 : err_set(e, -EINVAL, "%s stands on no array", top->name);
}

/* --- the job that keeps it whole --- */

static int is_alone(void *arg)
{
    const struct blk_device *array = arg;
    return array->refs == 1;
}

static int co_do_keep(struct serve_work *w, struct blk_error *e)
{
    serve_unclaim(&w->claim);
    for (;;) {
        struct blk_sync s = {.kind = BLK_SYNC_OWED};
        TRY(co_job_sync(&w->job, w->base, &s, e));
        if (co_on(w->base->home, is_alone, w->base))
            return 0;
        int rc = co_job_ready(&w->job, LOOK_NS);
        if (rc != 0)
            return rc < 0 ? rc : 0;
    }
}

static int keep(struct serve_ctl *s, const char *name, struct blk_device *array,
                struct blk_error *e)
{
    struct serve_work *w;
    json_t *id = NULL;
    int rc = serve_work_new(s, "raid", co_do_keep, &w, e);
    if (rc < 0) {
        co_blk_close(array, NULL);
        return rc;
    }
    w->base = array;
    rc = co_serve_work_begin(w, co_serve_claim(s, name, "a resync", 0, &w->claim, e), &id, e);
    json_decref(id);
    return rc;
}

int co_serve_raid_keep(struct serve_ctl *s, struct nbd_export *x, struct blk_error *e)
{
    if (x->source || x->dev->driver != &seat_driver)
        return 0;
    struct blk_device *array = co_find_array(x->dev);
    return array ? keep(s, x->name, array, e) : 0;
}

/* --- verbs --- */

static int co_do_scrub(struct serve_work *w, struct blk_error *e)
{
    struct blk_sync s = {.kind = w->repair ? BLK_SYNC_REPAIR : BLK_SYNC_CHECK};
    TRY(co_job_sync(&w->job, w->base, &s, e));
    return s.mismatches && !w->repair
               ? err_set(e, -EUCLEAN, "%" PRIu64 " bytes differ", s.mismatches)
               : 0;
}

static int co_prepare_scrub(struct serve_work *w, const json_t *request, struct blk_error *e)
{
    static const char *const keys[] = {"name", "repair", "speed", NULL};
    const char *name;
    TRY(ask_known(request, keys, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(ask_bool(request, "repair", &w->repair, e));
    TRY(ask_size(request, "speed", &w->speed, e));
    TRY(co_serve_claim(w->s, name, "a scrub", 0, &w->claim, e));
    return co_want_array(w->claim.export->dev, &w->base, e);
}

int co_serve_scrub(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_work *w;
    TRY(serve_work_new(ctl_arg(c), "scrub", co_do_scrub, &w, e));
    return co_serve_work_begin(w, co_prepare_scrub(w, request, e), result, e);
}

int co_serve_raid(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct nbd_export *x;
    struct blk_device *array;
    struct blk_info info;
    const char *name;
    TRY(ask_known(request, (const char *const[]){"name", NULL}, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(serve_find(ctl_arg(c), name, &x, e));
    if (x->source)
        return err_set(e, -EINVAL, "'%s' is opened when it is asked for", x->name);
    TRY(co_want_array(x->dev, &array, e));
    int rc = co_blk_info(array, &info, e);
    if (rc == 0) {
        *result = json_incref(info.specific);
        blk_info_drop(&info);
    }
    co_blk_close(array, NULL);
    return rc;
}

/* What is asked of an array: @co_do does it, with the array that the export stands on. */
struct asked {
    struct serve_ctl *s;
    const char *export, *spec, *format;
    bool force; /* whatever the new member holds */
    struct blk_member_change change;
    struct blk_members_grow grow;
    int (*co_do)(struct asked *q, struct blk_device *array);
    struct blk_error *e;
};

struct opening {
    struct asked *q;
    struct blk_device *array;
};

/* At the array's home. */
static int co_open_member(void *arg)
{
    const struct opening *o = arg;
    struct asked *q = o->q;
    struct blk_device **dev = &q->change.device;
    const struct image i = {.text = q->spec,
                            .format = q->format,
                            .cache = q->s->cache,
                            .flags = BLK_OPEN_WRITE,
                            .trust = TRUST_WRITE};
    TRY(co_image_open(q->s->tool, &i, dev, q->e));
    int rc = q->force || q->change.action == BLK_MEMBER_RE_ADD
                 ? 0
                 : co_refuse_stranger(q->s->tool, o->array, *dev, "force=on", q->e);
    return rc < 0 ? co_image_close(take(*dev), rc, q->e) : 0;
}

static int co_change(struct asked *q, struct blk_device *array)
{
    struct opening o = {q, array};
    int rc = q->spec ? co_on(array->home, co_open_member, &o) : 0;
    return rc < 0 ? rc : co_blk_member(array, &q->change, q->e);
}

static int co_grow(struct asked *q, struct blk_device *array)
{
    return co_blk_members_grow(array, &q->grow, q->e);
}

static int co_ask(struct asked *q)
{
    struct nbd_export *x;
    struct blk_device *array;
    TRY(serve_find(q->s, q->export, &x, q->e));
    if (x->source)
        return err_set(q->e, -EINVAL, "'%s' is opened when it is asked for", x->name);
    TRY(co_want_array(x->dev, &array, q->e));
    int rc = q->co_do(q, array);
    co_blk_close(array, NULL);
    return rc;
}

static struct asked asked_of(struct ctl *c, enum blk_member_action action, struct blk_error *e)
{
    return (struct asked){
        .s = ctl_arg(c), .change = {.action = action}, .co_do = co_change, .e = e};
}

static int co_by_spec(struct ctl *c, const json_t *request, enum blk_member_action action,
                      struct blk_error *e)
{
    static const char *const keys[] = {"name", "spec", "format", "force", NULL};
    struct asked q = asked_of(c, action, e);
    TRY(ask_known(request, keys, e));
    TRY(ask_text(request, "name", true, &q.export, e));
    TRY(ask_text(request, "spec", true, &q.spec, e));
    TRY(ask_text(request, "format", false, &q.format, e));
    TRY(ask_bool(request, "force", &q.force, e));
    return co_ask(&q);
}

int co_serve_member_add(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    return co_by_spec(c, request, BLK_MEMBER_ADD, e);
}

int co_serve_member_re_add(struct ctl *c, const json_t *request, json_t **result,
                           struct blk_error *e)
{
    return co_by_spec(c, request, BLK_MEMBER_RE_ADD, e);
}

static int co_by_name(struct ctl *c, const json_t *request, enum blk_member_action action,
                      struct blk_error *e)
{
    struct asked q = asked_of(c, action, e);
    TRY(ask_known(request, (const char *const[]){"name", "member", NULL}, e));
    TRY(ask_text(request, "name", true, &q.export, e));
    TRY(ask_text(request, "member", true, &q.change.name, e));
    return co_ask(&q);
}

int co_serve_member_fail(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    return co_by_name(c, request, BLK_MEMBER_FAIL, e);
}

int co_serve_member_remove(struct ctl *c, const json_t *request, json_t **result,
                           struct blk_error *e)
{
    return co_by_name(c, request, BLK_MEMBER_REMOVE, e);
}

int co_serve_member_replace(struct ctl *c, const json_t *request, json_t **result,
                            struct blk_error *e)
{
    static const char *const keys[] = {"name", "member", "with", "spec", "format", "force", NULL};
    struct asked q = asked_of(c, BLK_MEMBER_REPLACE, e);
    TRY(ask_known(request, keys, e));
    TRY(ask_text(request, "name", true, &q.export, e));
    TRY(ask_text(request, "member", true, &q.change.name, e));
    TRY(ask_text(request, "with", false, &q.change.with, e));
    TRY(ask_text(request, "spec", false, &q.spec, e));
    TRY(ask_text(request, "format", false, &q.format, e));
    TRY(ask_bool(request, "force", &q.force, e));
    if (q.spec && q.change.with)
        return err_set(e, -EINVAL, "'with' is a spare, 'spec' a new device: one of them");
    return co_ask(&q);
}

/* "max", or a size. */
static int ask_used(const json_t *request, uint64_t *bytes, struct blk_error *e)
{
    const char *text = json_string_value(json_object_get(request, "size"));
    if (!text || strcmp(text, "max") != 0)
        return ask_size(request, "size", bytes, e);
    *bytes = BLK_GROW_MAX;
    return 0;
}

int co_serve_grow(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct asked q = {.s = ctl_arg(c), .co_do = co_grow, .e = e};
    uint64_t disks = 0;
    TRY(ask_known(request, (const char *const[]){"name", "size", "raid-devices", NULL}, e));
    TRY(ask_text(request, "name", true, &q.export, e));
    TRY(ask_used(request, &q.grow.size, e));
    TRY(ask_size(request, "raid-devices", &disks, e));
    q.grow.disks = (unsigned)MIN(disks, UINT_MAX);
    if (!q.grow.size == !q.grow.disks)
        return err_set(e, -EINVAL, "grow wants 'size' or 'raid-devices'");
    struct serve_claim claim;
    TRY(co_serve_claim(q.s, q.export, "growing", CLAIM_ALONE, &claim, e));
    int rc = co_ask(&q);
    serve_unclaim(&claim);
    return rc;
}

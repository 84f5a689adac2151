/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_work.c - who works on which export, and the jobs that do.
 *
 * A claim holds its export, so that its device stays open; an export with claims is not removed. A
 * job that has ended stays on the list until it is forgotten or ENDED_MOST others have ended. */
#include "nbd/source.h"
#include "tools/serve_ctl.h"

#define ENDED_MOST 100

/* --- claims --- */

int serve_find(struct serve_ctl *s, const char *name, struct nbd_export **out, struct blk_error *e)
{
    struct nbd_export *preset = NULL;

    for (struct nbd_export *x = nbd_server_exports(s->server)->first; x; x = x->next) {
        if (strcmp(x->name, name) == 0) {
            *out = x;
            return 0;
        }
        if (!x->source && (!preset || (x->preset && !preset->preset)))
            preset = x;
    }
    *out = *name ? NULL : preset;
    return *out ? 0 : err_set(e, -ENOENT, "there is no export '%.200s'", name);
}

const char *serve_claimed(const struct serve_ctl *s, const struct nbd_export *x)
{
    for (const struct serve_claim *c = s->claims; c; c = c->next)
        if (c->export == x)
            return c->by;
    return NULL;
}

/* What a source offers is what its name says: whoever asks for it again later gets that. */
static int may_claim(const struct serve_ctl *s, const struct nbd_export *x, const char *by,
                     unsigned how, struct blk_error *e)
{
    if (x->dev->driver != &seat_driver)
        return err_set(e, -EINVAL, "'%s' cannot be worked on: it is read-only", x->name);
    if (x->source && how & CLAIM_MOVES)
        return err_set(e, -EINVAL, "%s would move '%s' to an image that has another name", by,
                       x->name);
    if (x->source && x->source->ops->on_golden && how & CLAIM_STANDS)
        return err_set(e, -EINVAL, "what '%s' stands on is not its own", x->name);
    for (const struct serve_claim *at = s->claims; at; at = at->next)
        if (at->export == x && at->alone && how & CLAIM_ALONE)
            return err_set(e, -EBUSY, "%s is at work on '%s'", at->by, x->name);
    return 0;
}

/* Gives the export, held. */
static int co_open_claimed(struct serve_ctl *s, const char *name, struct nbd_export **out,
                           struct blk_error *e)
{
    struct nbd_exports *all = nbd_server_exports(s->server);
    int rc = serve_find(s, name, out, e);

    if ((rc < 0 || (*out)->source) && nbd_sources_know(all, name, NULL))
        return co_nbd_sources_open(all, name, NULL, out, e);
    if (rc == 0)
        nbd_export_hold(*out);
    return rc;
}

int co_serve_claim(struct serve_ctl *s, const char *name, const char *by, unsigned how,
                   struct serve_claim *c, struct blk_error *e)
{
    struct nbd_export *x;
    int rc;

    TRY(co_open_claimed(s, name, &x, e));
    rc = may_claim(s, x, by, how, e);
    if (rc < 0) {
        nbd_export_release(x);
        return rc;
    }
    *c = (struct serve_claim){
        .next = s->claims, .s = s, .export = x, .by = by, .alone = how & CLAIM_ALONE};
    s->claims = c;
    return 0;
}

void serve_unclaim(struct serve_claim *c)
{
    struct serve_claim **at;

    if (!c->export)
        return;
    for (at = &c->s->claims; *at != c; at = &(*at)->next)
        ;
    *at = c->next;
    nbd_export_release(take(c->export));
}

/* --- jobs --- */

static void work_free(struct serve_work *w)
{
    mem_free(w->about);
    mem_free(w->name);
    mem_free(w->format);
    mem_free(w);
}

int serve_work_new(struct serve_ctl *s, const char *kind,
                   int (*co_do)(struct serve_work *w, struct blk_error *e), struct serve_work **out,
                   struct blk_error *e)
{
    struct serve_work *w = mem_zalloc(sizeof(*w));

    if (!w)
        return err_set(e, -ENOMEM, "out of memory");
    w->s = s;
    w->co_do = co_do;
    w->job.kind = kind;
    *out = w;
    return 0;
}

static void co_let_go(struct serve_work *w)
{
    co_serve_image_drop(&w->image);
    co_blk_close(take(w->base), NULL);
    serve_unclaim(&w->claim);
}

static int co_run(struct job *j, struct blk_error *e)
{
    struct serve_work *w = container_of(j, struct serve_work, job);
    int rc = w->co_do(w, e);

    co_let_go(w);
    return rc;
}

void serve_forget(struct job *j)
{
    struct serve_work *w = container_of(j, struct serve_work, job), **at = &w->s->works;

    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    job_forget(&w->s->jobs, &w->job);
    work_free(w);
}

/* The list has the newest first. */
static void forget_oldest(struct serve_ctl *s)
{
    struct serve_work *oldest = NULL;
    unsigned ended = 0;

    for (struct serve_work *w = s->works; w; w = w->next)
        if (w->job.state >= JOB_DONE) {
            ended++;
            oldest = w;
        }
    if (ended > ENDED_MOST)
        serve_forget(&oldest->job);
}

static int start(struct serve_work *w, struct blk_error *e)
{
    struct serve_ctl *s = w->s;

    w->about = mem_strdup(w->claim.export->name);
    if (!w->about)
        return err_set(e, -ENOMEM, "out of memory");
    job_init(&w->job, w->job.kind, co_run, NULL);
    w->job.about = w->about;
    w->job.bytes_per_second = w->speed;
    if (job_start(&s->jobs, &w->job) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    w->next = s->works;
    s->works = w;
    forget_oldest(s);
    return 0;
}

int co_serve_work_begin(struct serve_work *w, int rc, json_t **result, struct blk_error *e)
{
    struct blk_error ignored = {0};

    if (rc == 0)
        rc = start(w, e);
    if (rc == 0) {
        *result = json_pack("{s:s}", "id", w->job.id);
        return 0;
    }
    if (w->past)
        (void)!co_live_past_end(take(w->past), true, &ignored);
    co_let_go(w);
    work_free(w);
    return rc;
}

int co_serve_forget(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);
    const char *id;
    struct job *j;

    TRY(ask_known(request, (const char *const[]){"id", NULL}, e));
    TRY(ask_text(request, "id", true, &id, e));
    j = job_find(&s->jobs, id);
    if (!j)
        return err_set(e, -ENOENT, "there is no job '%.60s'", id);
    if (j->state < JOB_DONE)
        return err_set(e, -EBUSY, "the job %s has not ended", j->id);
    serve_forget(j);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl_verbs.c - what a request asks for: the server's own verbs first, then the built-in ones. */
#include "block/ctl_private.h"
#include "block/option.h"

/* --- built in
 * ------------------------------------------------------------------------------------- */

static int need_job(struct ctl *c, const json_t *request, struct job **out, struct blk_error *e)
{
    const char *id = json_string_value(json_object_get(request, "id"));
    if (!id)
        return err_set(e, -EINVAL, "which job: \"id\" is missing");
    *out = c->jobs ? job_find(c->jobs, id) : NULL;
    return *out ? 0 : err_set(e, -ENOENT, "there is no job '%.60s'", id);
}

static int need_running(struct ctl *c, const json_t *request, struct job **out, struct blk_error *e)
{
    TRY(need_job(c, request, out, e));
    if ((*out)->state >= JOB_DONE)
        return err_set(e, -EINVAL, "the job %s has ended: %s", (*out)->id,
                       job_state_name((*out)->state));
    return 0;
}

static int co_jobs(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    json_t *list = json_array();
    for (struct job *j = c->jobs ? c->jobs->first : NULL; j; j = j->next)
        if (json_array_append_new(list, job_to_json(j)) < 0) {
            json_decref(list);
            return err_set(e, -ENOMEM, "no memory for an answer");
        }
    *result = list;
    return 0;
}

static int co_show(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct job *j;
    TRY(need_job(c, request, &j, e));
    *result = job_to_json(j);
    return 0;
}

static int co_pause(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct job *j;
    TRY(need_running(c, request, &j, e));
    job_pause(j);
    return 0;
}

static int co_resume(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct job *j;
    TRY(need_running(c, request, &j, e));
    job_resume(j);
    return 0;
}

static int co_complete(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct job *j;
    TRY(need_running(c, request, &j, e));
    if (!j->ready)
        return err_set(e, -EBUSY, "the job %s is not ready", j->id);
    job_complete(j);
    return 0;
}

static int co_cancel(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct job *j;
    TRY(need_running(c, request, &j, e));
    job_cancel(j);
    return 0;
}

static int co_speed(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    static const char key[] = "bytes_per_second";
    struct job *j;
    uint64_t speed = 0;
    const json_t *value = json_object_get(request, key);
    TRY(need_running(c, request, &j, e));
    if (json_is_string(value))
        TRY(opts_parse_size(json_string_value(value), &speed, e));
    else if (json_is_integer(value) && json_integer_value(value) >= 0)
        speed = (uint64_t)json_integer_value(value);
    else
        return err_set(e, -EINVAL, "how fast: \"%s\" is missing (0: no limit)", key);
    job_set_speed(j, speed);
    return 0;
}

static int co_help(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);

static const struct ctl_verb built_in[] = {
    {"help", "lists the verbs", co_help},
    {"jobs", "lists the jobs", co_jobs},
    {"show", "one job: id", co_show},
    {"pause", "lets a job rest: id", co_pause},
    {"resume", "lets it go on: id", co_resume},
    {"complete", "lets a job that is ready end: id", co_complete},
    {"cancel", "ends a job; what it has done stays: id", co_cancel},
    {"speed", "limits a job: id, bytes_per_second (0: no limit)", co_speed},
    {0},
};

static int add_help(json_t *list, const struct ctl_verb *verbs)
{
    for (const struct ctl_verb *v = verbs; v && v->name; v++)
        if (json_array_append_new(list, json_pack("{s:s, s:s}", "do", v->name, "help", v->help)) <
            0)
            return -ENOMEM;
    return 0;
}

static int co_help(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    json_t *list = json_array();
    if (add_help(list, c->verbs) < 0 || add_help(list, built_in) < 0) {
        json_decref(list);
        return err_set(e, -ENOMEM, "no memory for an answer");
    }
    *result = list;
    return 0;
}

/* --- any
 * ------------------------------------------------------------------------------------- */

static const struct ctl_verb *find_verb(const struct ctl_verb *verbs, const char *name)
{
    for (const struct ctl_verb *v = verbs; v && v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    return NULL;
}

static int unknown_verb(const struct ctl *c, const char *name, struct blk_error *e)
{
    const char *names[64];
    size_t n = 0;
    for (const struct ctl_verb *v = c->verbs; v && v->name && n < ARRAY_LEN(names); v++)
        names[n++] = v->name;
    for (const struct ctl_verb *v = built_in; v->name && n < ARRAY_LEN(names); v++)
        names[n++] = v->name;
    const char *near = opts_nearest(name, names, n);
    return err_set(e, -ENOSYS, "unknown verb '%.60s'%s%s%s", name, near ? ": the nearest is '" : "",
                   near ? near : ": help lists them", near ? "'" : "");
}

static int co_run_verb(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    const char *name = json_string_value(json_object_get(request, "do"));
    if (!name)
        return err_set(e, -EINVAL, "what to do: \"do\" is missing: {\"do\": \"help\"}");
    const struct ctl_verb *v = find_verb(c->verbs, name);
    if (!v)
        v = find_verb(built_in, name);
    return v ? v->co_run(c, request, result, e) : unknown_verb(c, name, e);
}

json_t *ctl_refusal(const struct blk_error *e)
{
    const char *name = strerrorname_np(-e->rc);
    return json_pack("{s:b, s:o, s:s}", "ok", 0, "error", json_from_text(e->text), "errno",
                     name ? name : "EIO");
}

json_t *co_ctl_answer(struct ctl *c, const json_t *request)
{
    struct blk_error e = {0};
    json_t *result = NULL;
    int rc = co_run_verb(c, request, &result, &e);
    if (rc < 0) {
        json_decref(result);
        if (e.rc == 0)
            err_errno(&e, rc, "the request failed");
        return ctl_refusal(&e);
    }
    return json_pack("{s:b, s:o}", "ok", 1, "result", result ? result : json_null());
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_ctl.c - what a server answers on its control socket, beside jobs (block/ctl.h). */
#include "tools/serve.h"

/* The counts belong to the export's home. */
struct counts {
    const struct nbd_export *export;
    struct nbd_export_stats stats;
};

static int take_counts(void *arg)
{
    struct counts *c = arg;

    c->stats = c->export->stats;
    return 0;
}

static json_t *co_export_to_json(const struct nbd_export *x)
{
    struct counts counts = {.export = x};
    const struct nbd_export_stats *t = &counts.stats;

    co_on(x->dev->home, take_counts, &counts);
    return json_pack(
        "{s:o, s:I, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", json_from_text(x->name),
        "size", (json_int_t)x->facts.size, "read-only", !x->dev->writable, "clients",
        (int)x->clients, "reads", (json_int_t)t->reads, "read-bytes", (json_int_t)t->read_bytes,
        "writes", (json_int_t)t->writes, "written-bytes", (json_int_t)t->written_bytes, "flushes",
        (json_int_t)t->flushes, "others", (json_int_t)t->others, "errors", (json_int_t)t->errors);
}

/* Exports come and go while their homes are asked: all are pinned first. */
static int co_list_exports(struct ctl *c, const json_t *request, json_t **result,
                           struct blk_error *e)
{
    struct serving *s = ctl_arg(c);
    struct nbd_exports *all = nbd_server_exports(s->server);
    auto_free struct nbd_export **pinned = mem_array(all->count + 1, sizeof(struct nbd_export *));
    json_t *list = json_array();
    size_t count = 0;
    int rc = list && pinned ? 0 : -ENOMEM;

    for (struct nbd_export *x = all->first; rc == 0 && x; x = x->next) {
        nbd_export_pin(x);
        pinned[count++] = x;
    }
    for (size_t i = 0; i < count; i++) {
        if (rc == 0 && json_array_append_new(list, co_export_to_json(pinned[i])) < 0)
            rc = -ENOMEM;
        nbd_export_release(pinned[i]);
    }
    if (rc == 0)
        *result =
            json_pack("{s:s, s:O}", "address", nbd_server_address(s->server), "exports", list);
    json_decref(list);
    return *result ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int co_shutdown(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serving *s = ctl_arg(c);

    serve_stop(s);
    return 0;
}

static const struct ctl_verb verbs[] = {
    {"list", "the exports, their clients and counts", co_list_exports},
    {"shutdown", "stop serving: answer what is in flight, flush, close", co_shutdown},
    {NULL, NULL, NULL},
};

int co_serve_ctl_open(struct serving *s)
{
    struct ctl_options o = {.path = s->plan->control, .jobs = &s->jobs, .verbs = verbs, .arg = s};
    struct blk_error e = {0};
    struct host *h = s->plan->tool->host;
    auto_free char *address = mem_printf("unix:%s", s->plan->control);
    int rc = co_ctl_open(h, &o, &s->ctl, &e);

    if (rc == -EADDRINUSE && address && co_nbd_remove_dead_socket(h, address))
        rc = co_ctl_open(h, &o, &s->ctl, &e);
    if (rc < 0)
        tool_error(s->plan->tool, "%s", e.text);
    return rc;
}

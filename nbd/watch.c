/* SPDX-License-Identifier: BSD-3-Clause */
/* watch.c - snapshots of a server's counts, and the verbs `stats` and `throttle`. */
#include "nbd/watch.h"

static const char *const kinds[NBD_KINDS] = {"read", "write", "flush", "other"};

void nbd_watch_init(struct nbd_watch *w, struct nbd_server *s)
{
    *w = (struct nbd_watch){.server = s, .since = worker_now()};
}

void nbd_watch_drop(struct nbd_watch *w)
{
    nbd_sharing_drop(&w->sharing);
}

/* --- looking --- */

static int co_look_at(struct nbd_watch *w, struct nbd_export *x, struct nbd_seen *out)
{
    const struct nbd_group *g = nbd_group_of(&w->sharing, x);

    out->name = mem_strdup(x->name);
    out->size = nbd_facts_now(&x->facts).size;
    out->read_only = !x->dev->writable;
    out->clients = x->clients;
    if (g) {
        out->shares = true;
        out->group = mem_strdup(g->name);
        share_get(x->share, &out->wish);
        share_stats(x->share, &out->share);
    }
    co_nbd_export_stats(x, &out->stats);
    return out->name && (!g || out->group) ? 0 : -ENOMEM;
}

void nbd_seen_drop(struct nbd_seen *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free(list[i].name);
        mem_free(list[i].group);
    }
    mem_free(list);
}

/* Exports may come and go while another's home is asked: all are held first. */
int co_nbd_watch_look(struct nbd_watch *w, struct nbd_seen **out, size_t *count)
{
    struct nbd_exports *all = nbd_server_exports(w->server);
    size_t n = 0, most = all->count;
    auto_free struct nbd_export **held = mem_array(most + 1, sizeof(*held));
    struct nbd_seen *list = mem_zalloc((most + 1) * sizeof(*list));
    int rc = held && list ? 0 : -ENOMEM;

    for (struct nbd_export *x = all->first; rc == 0 && x && n < most; x = x->next) {
        nbd_export_pin(x);
        held[n++] = x;
    }
    for (size_t i = 0; i < n; i++) {
        if (rc == 0)
            rc = co_look_at(w, held[i], &list[i]);
        nbd_export_release(held[i]);
    }
    if (rc < 0) {
        nbd_seen_drop(list, n);
        return rc;
    }
    *out = list;
    *count = n;
    return 0;
}

/* --- stats --- */

static json_t *latency_to_json(const struct nbd_export_stats *s)
{
    json_t *all = json_object();

    for (unsigned k = 0; k < NBD_KINDS; k++) {
        json_t *buckets = json_array();

        for (unsigned i = 0; i <= NBD_LATENCY_BUCKETS; i++)
            json_array_append_new(buckets, json_integer((json_int_t)s->latency[k].bucket[i]));
        json_object_set_new(all, kinds[k],
                            json_pack("{s:I, s:o}", "sum-ns", (json_int_t)s->latency[k].sum_ns,
                                      "buckets", buckets));
    }
    return all;
}

static json_t *wish_to_json(const struct nbd_seen *x)
{
    if (!x->shares)
        return json_null();
    return json_pack("{s:o, s:i, s:I, s:I, s:I, s:I, s:I}", "group", json_from_text(x->group),
                     "weight", (int)x->wish.weight, "min-iops", (json_int_t)x->wish.min_iops,
                     "iops", (json_int_t)x->wish.iops, "bps", (json_int_t)x->wish.bps, "waited",
                     (json_int_t)x->share.waited, "waited-ns", (json_int_t)x->share.waited_ns);
}

static json_t *seen_to_json(const struct nbd_seen *x)
{
    const struct nbd_export_stats *s = &x->stats;

    return json_pack(
        "{s:o, s:I, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "name",
        json_from_text(x->name), "size", (json_int_t)x->size, "read-only", x->read_only, "clients",
        (int)x->clients, "reads", (json_int_t)s->reads, "read-bytes", (json_int_t)s->read_bytes,
        "writes", (json_int_t)s->writes, "written-bytes", (json_int_t)s->written_bytes, "flushes",
        (json_int_t)s->flushes, "others", (json_int_t)s->others, "errors", (json_int_t)s->errors,
        "latency", latency_to_json(s), "share", wish_to_json(x));
}

static json_t *groups_to_json(const struct nbd_sharing *all)
{
    json_t *list = json_array();

    for (const struct nbd_group *g = all->first; g; g = g->next) {
        struct share_budget b;

        share_group_get(g->share, &b);
        json_array_append_new(list, json_pack("{s:o, s:I, s:I, s:i, s:i, s:i}", "name",
                                              json_from_text(g->name), "iops", (json_int_t)b.iops,
                                              "bps", (json_int_t)b.bps, "depth", (int)b.depth,
                                              "depth-now", (int)share_group_depth(g->share),
                                              "exports", (int)share_group_count(g->share)));
    }
    return list;
}

int co_nbd_watch_stats(struct nbd_watch *w, json_t **result, struct blk_error *e)
{
    struct nbd_seen *seen = NULL;
    size_t count = 0;
    json_t *list = json_array();
    int rc = co_nbd_watch_look(w, &seen, &count);

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, seen_to_json(&seen[i]));
    if (rc == 0)
        nbd_seen_drop(seen, count);
    bool whole = rc == 0 && list && json_array_size(list) == count;
    *result = whole
                  ? json_pack("{s:s, s:I, s:i, s:O, s:o}", "address", nbd_server_address(w->server),
                              "up-ns", (json_int_t)(worker_now() - w->since), "clients",
                              (int)nbd_server_clients(w->server), "exports", list, "groups",
                              groups_to_json(&w->sharing))
                  : NULL;
    json_decref(list);
    return *result ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* --- throttle --- */

static struct nbd_export *find(const struct nbd_watch *w, const char *name)
{
    struct nbd_export *x = nbd_server_exports(w->server)->first;

    while (x && strcmp(x->name, name) != 0)
        x = x->next;
    return x;
}

/* A number of the request as text, for the one reader of such words. */
static const char *word_of(const json_t *value, char *room, size_t bytes)
{
    if (!json_is_integer(value))
        return json_string_value(value);
    snprintf(room, bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return room;
}

/* Every key but @names (ends with NULL) goes to @set. */
static int for_words(const json_t *request, const char *const *names,
                     int (*set)(void *to, const char *key, const char *value, struct blk_error *e),
                     void *to, unsigned *count, struct blk_error *e)
{
    const char *key;
    json_t *value;
    char room[24];

    json_object_foreach ((json_t *)request, key, value) {
        const char *text = word_of(value, room, sizeof(room));
        bool is_name = false;

        for (const char *const *n = names; *n && !is_name; n++)
            is_name = strcmp(*n, key) == 0;
        if (is_name)
            continue;
        if (!text)
            return err_set(e, -EINVAL, "'%.40s' wants a number or a text", key);
        TRY(set(to, key, text, e));
        ++*count;
    }
    return 0;
}

static int set_wish(void *to, const char *key, const char *value, struct blk_error *e)
{
    return share_wish_word(to, key, value, e);
}

static int set_budget(void *to, const char *key, const char *value, struct blk_error *e)
{
    return share_budget_word(to, key, value, e);
}

static int throttle_export(struct nbd_watch *w, const char *name, const json_t *request,
                           struct blk_error *e)
{
    static const char *const names[] = {"do", "export", "group", NULL};
    const char *group = json_string_value(json_object_get(request, "group"));
    struct nbd_export *x = find(w, name);
    struct share_wish wish = {.weight = 100};
    unsigned count = 0;

    if (!x)
        return err_set(e, -ENOENT, "there is no export '%.100s'", name);
    if (x->share)
        share_get(x->share, &wish);
    TRY(for_words(request, names, set_wish, &wish, &count, e));
    if (count == 0 && !group)
        return err_set(e, -EINVAL,
                       "nothing is to be changed: group, weight, min-iops, iops and bps can be");
    return nbd_share_set(&w->sharing, x, group, &wish, e);
}

static int throttle_group(struct nbd_watch *w, const char *name, const json_t *request,
                          struct blk_error *e)
{
    static const char *const names[] = {"do", "group", NULL};
    struct share_budget budget = {0};
    struct nbd_group *g = NULL;
    unsigned count = 0;

    if (nbd_group_get(&w->sharing, name, &g) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    share_group_get(g->share, &budget);
    TRY(for_words(request, names, set_budget, &budget, &count, e));
    if (count == 0)
        return err_set(e, -EINVAL, "nothing is to be changed: iops, bps and depth can be");
    share_group_set(g->share, &budget);
    return 0;
}

int co_nbd_watch_throttle(struct nbd_watch *w, const json_t *request, json_t **result,
                          struct blk_error *e)
{
    const char *export = json_string_value(json_object_get(request, "export"));
    const char *group = json_string_value(json_object_get(request, "group"));

    if (!export && !group)
        return err_set(e, -EINVAL, "name an \"export\" or a \"group\"");
    return export ? throttle_export(w, export, request, e) : throttle_group(w, group, request, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_watch.c - a running server seen from outside: shares told on the command line, metrics, and
 * the log of who comes and goes.
 *
 * The log is lines on stderr, which may be a pipe that nobody reads: they are written by a thread
 * that may block, and a bounded number waits for it; what is too many is counted and said. */
#include "tools/serve_watch.h"

#include <time.h>
#include <unistd.h>

#include "block/worker.h"

#define LINES_MOST 1000 /* that wait to be written */

struct line {
    struct line *next;
    size_t bytes;
    char text[];
};

struct serve_watch {
    struct tool *tool;
    const struct serve_watch_plan *plan;
    struct nbd_watch watch;
    bool json;
    struct line *first, *last;
    unsigned lines;
    uint64_t lost;
    bool writing;
    struct co_queue written;
};

/* --- the command line --- */

static int add(const struct tool *t, const char **list, unsigned *count, const char *value)
{
    if (*count == SERVE_SHARES) {
        tool_misuse(t, "too many of --share or --group");
        return ARGS_BAD;
    }
    list[(*count)++] = value;
    return 0;
}

static int set_metrics(const struct tool *t, struct serve_watch_plan *p, const char *value)
{
    struct blk_error e = {0};
    auto_free char *address = NULL;

    p->metrics = value;
    if (nbd_metrics_address(value, &address, &e) == 0)
        return 0;
    tool_misuse(t, "%s", e.text);
    return ARGS_BAD;
}

static int set_log(const struct tool *t, struct serve_watch_plan *p, const char *value)
{
    p->log_format = value;
    if (strcmp(value, "json") == 0 || strcmp(value, "text") == 0)
        return 0;
    tool_misuse(t, "--log-format is text or json");
    return ARGS_BAD;
}

bool serve_watch_option(const struct tool *t, struct serve_watch_plan *p, int id, const char *value,
                        int *rc)
{
    if (id == ARG_METRICS)
        *rc = set_metrics(t, p, value);
    else if (id == ARG_LOG_FORMAT)
        *rc = set_log(t, p, value);
    else if (id == ARG_SHARE)
        *rc = add(t, p->shares, &p->share_count, value);
    else if (id == ARG_GROUP)
        *rc = add(t, p->groups, &p->group_count, value);
    else
        return false;
    return true;
}

/* NAME,key=value... as the control socket's `throttle` would be told. */
static int co_apply(struct serve_watch *w, const char *text, const char *name_key)
{
    struct blk_error e = {0};
    json_auto_t *request = json_object();
    json_t *result = NULL;
    int rc = request ? opts_text_to_tree(text, name_key, request, &e)
                     : err_set(&e, -ENOMEM, "out of memory");

    if (rc == 0 && *text == ',') /* the export without a name */
        json_object_set_new(request, name_key, json_string(""));
    if (rc == 0)
        rc = co_nbd_watch_throttle(&w->watch, request, &result, &e);
    if (rc < 0)
        tool_error(w->tool, "--%s %s: %s", *name_key == 'e' ? "share" : "group", text, e.text);
    return rc;
}

/* --- the log --- */

static int write_line(void *arg)
{
    const struct line *l = arg;

    for (size_t done = 0; done < l->bytes;) {
        ssize_t n = write(STDERR_FILENO, l->text + done, l->bytes - done);

        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (n < 0 && errno == EAGAIN)
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static void co_write_lines(void *arg)
{
    struct serve_watch *w = arg;

    while (w->first) {
        struct line *l = w->first;

        co_blocking(write_line, l);
        w->first = l->next;
        if (!w->first)
            w->last = NULL;
        w->lines--;
        mem_free(l);
    }
    w->writing = false;
    co_queue_wake_all(&w->written);
}

/* Takes @text. */
static void put_line(struct serve_watch *w, const char *text)
{
    size_t bytes = strlen(text);
    struct line *l = w->lines < LINES_MOST ? mem_alloc(sizeof(*l) + bytes) : NULL;

    if (!l) {
        w->lost++;
        return;
    }
    *l = (struct line){.bytes = bytes};
    memcpy(l->text, text, bytes);
    if (w->last)
        w->last->next = l;
    else
        w->first = l;
    w->last = l;
    w->lines++;
    if (!w->writing) {
        w->writing = true;
        if (co_start_later(co_write_lines, w) < 0)
            w->writing = false; /* with the next one */
    }
}

/* A JSON text of @text, quotes included; bytes that are not plain ASCII as \u00XX. */
static void quote(const char *text, char *to, size_t room)
{
    char *end = to + room - 9;

    *to++ = '"';
    for (; *text && to < end; text++) {
        unsigned char c = (unsigned char)*text;

        if (c < 0x20 || c > 0x7e || c == '"' || c == '\\')
            to += sprintf(to, "\\u%04x", c);
        else
            *to++ = *text;
    }
    strcpy(to, "\"");
}

static void stamp(struct serve_watch *w, char *to, size_t room)
{
    uint64_t now = host_wall_clock(w->tool->host);
    time_t sec = (time_t)(now / 1000000000);
    struct tm tm;
    char day[32];

    gmtime_r(&sec, &tm);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(to, room, "%s.%03uZ", day, (unsigned)(now / 1000000 % 1000));
}

#define NAME_ROOM 600

static char *json_line(struct serve_watch *w, const char *time, const struct nbd_event *ev)
{
    char name[NAME_ROOM], peer[NAME_ROOM];

    quote(ev->export ? ev->export : "", name, sizeof(name));
    quote(ev->peer ? ev->peer : "", peer, sizeof(peer));
    return mem_printf("{\"time\": \"%s\", \"event\": \"%s\"%s%s%s%s, \"clients\": %u, "
                      "\"seconds\": %llu.%03llu, \"lost_lines\": %llu}\n",
                      time, ev->what, ev->export ? ", \"export\": " : "", ev->export ? name : "",
                      ev->peer ? ", \"peer\": " : "", ev->peer ? peer : "", ev->clients,
                      (unsigned long long)(ev->ns / 1000000000),
                      (unsigned long long)(ev->ns / 1000000 % 1000), (unsigned long long)w->lost);
}

static char *text_line(const char *time, const struct nbd_event *ev)
{
    char name[NAME_ROOM], peer[NAME_ROOM];

    quote(ev->export ? ev->export : "", name, sizeof(name));
    quote(ev->peer ? ev->peer : "", peer, sizeof(peer));
    return mem_printf("%s %s%s%s%s%s, %u clients\n", time, ev->what, ev->export ? " export " : "",
                      ev->export ? name : "", ev->peer ? " peer " : "", ev->peer ? peer : "",
                      ev->clients);
}

void serve_watch_event(void *watch, const struct nbd_event *ev)
{
    struct serve_watch *w = watch;
    char time[48];

    if (!w->plan->log_format)
        return;
    stamp(w, time, sizeof(time));
    auto_free char *line = w->json ? json_line(w, time, ev) : text_line(time, ev);
    if (line)
        put_line(w, line);
}

/* --- life --- */

int serve_watch_new(struct tool *t, const struct serve_watch_plan *p, struct serve_watch **out)
{
    struct serve_watch *w = mem_zalloc(sizeof(*w));

    *out = w;
    if (!w) {
        tool_error(t, "out of memory");
        return -ENOMEM;
    }
    w->tool = t;
    w->plan = p;
    w->json = p->log_format && strcmp(p->log_format, "json") == 0;
    return 0;
}

int co_serve_watch_begin(struct serve_watch *w, struct nbd_server *s)
{
    struct blk_error e = {0};

    nbd_watch_init(&w->watch, s);
    for (unsigned i = 0; i < w->plan->group_count; i++)
        TRY(co_apply(w, w->plan->groups[i], "group"));
    for (unsigned i = 0; i < w->plan->share_count; i++)
        TRY(co_apply(w, w->plan->shares[i], "export"));
    if (!w->plan->metrics)
        return 0;
    int rc = co_nbd_metrics_open(&w->watch, w->plan->metrics, &e);
    if (rc < 0)
        tool_error(w->tool, "%s", e.text);
    return rc;
}

void co_serve_watch_end(struct serve_watch *w)
{
    co_nbd_metrics_close(&w->watch);
}

void co_serve_watch_free(struct serve_watch *w)
{
    nbd_watch_drop(&w->watch);
    while (w->writing)
        co_queue_wait(&w->written);
    mem_free(w);
}

struct nbd_watch *serve_watch_of(struct serve_watch *w)
{
    return &w->watch;
}

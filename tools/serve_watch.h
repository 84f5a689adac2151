/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_watch.h - `lamina serve` seen from outside: who shares what, metrics, what happened. */
#ifndef TOOLS_SERVE_WATCH_H
#define TOOLS_SERVE_WATCH_H

#include "nbd/watch.h"
#include "tools/tool.h"

#define SERVE_SHARES 1000

/* What the command line says of it. */
struct serve_watch_plan {
    const char *metrics;    /* NULL: none */
    const char *log_format; /* "json", "text"; NULL: nothing is said */
    const char *shares[SERVE_SHARES], *groups[SERVE_SHARES];
    unsigned share_count, group_count;
};

/* The verb's options and where they go. */
enum { ARG_METRICS = ARG_LONG + 500, ARG_LOG_FORMAT, ARG_SHARE, ARG_GROUP };
#define SERVE_WATCH_OPTIONS                                                                        \
    {ARG_METRICS, "metrics", "ADDR", "tell counts to Prometheus at unix:PATH or 127.0.0.1:PORT",   \
     FACE_LAMINA, false},                                                                          \
        {ARG_LOG_FORMAT, "log-format", "text|json", "say on stderr who comes and goes",            \
         FACE_LAMINA,    false},                                                                   \
        {ARG_SHARE,                                                                                \
         "share",                                                                                  \
         "EXPORT,KEY=N,...",                                                                       \
         "group=NAME, weight, min-iops, iops, bps of an export; may be told again",                \
         FACE_LAMINA,                                                                              \
         false},                                                                                   \
    {                                                                                              \
        ARG_GROUP, "group", "NAME,KEY=N,...",                                                      \
            "iops, bps, depth that a group's exports share; may be told again", FACE_LAMINA, false \
    }
/* True if the option is one of these; *rc is 0, or ARGS_BAD after a message. */
bool serve_watch_option(const struct tool *t, struct serve_watch_plan *p, int id, const char *value,
                        int *rc);

struct serve_watch;
/* Before the exports are opened; gives what nbd_server_options want. */
must_use int serve_watch_new(struct tool *t, const struct serve_watch_plan *p,
                             struct serve_watch **out);
void serve_watch_event(void *watch, const struct nbd_event *ev);
/* When the exports are open: shares, metrics. Said on failure. */
must_use int co_serve_watch_begin(struct serve_watch *w, struct nbd_server *s);
/* Before the server closes; after it. */
void co_serve_watch_end(struct serve_watch *w);
void co_serve_watch_free(struct serve_watch *w);
struct nbd_watch *serve_watch_of(struct serve_watch *w);

#endif

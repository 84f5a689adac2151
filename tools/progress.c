/* SPDX-License-Identifier: BSD-3-Clause */
/* progress.c - a bar with rate and time left on a terminal; QEMU's "    (12.34/100%)" elsewhere and
 * in the faces, where callers parse it; a JSON object on a line of its own for programs. */
#include <unistd.h>

#include "tools/output.h"
#include "tools/progress.h"

#define BAR_WIDTH  28
#define BAR_PAUSE  100000000ULL /* ns between two pictures */
#define LEAST_STEP 1.0          /* percent between two of QEMU's lines */

void progress_init(struct progress *p, const struct tool *t)
{
    *p = (struct progress){.tool = t, .shown = t->progress && !t->quiet, .last = -1};
    p->to = t->stdout_taken ? stderr : stdout;
    p->json = t->progress == PROGRESS_JSON;
    p->bar = p->shown && !p->json && t->face == FACE_LAMINA && isatty(fileno(p->to));
}

static double percent(const struct job *j)
{
    if (j->total == 0)
        return 0;
    return MIN(100.0, 100.0 * (double)j->done / (double)j->total);
}

static void time_left(const struct job *j, double seconds, char *to, size_t bytes)
{
    double rate = seconds > 0 ? (double)j->done / seconds : 0;
    double left = rate > 0 ? (double)(j->total - MIN(j->done, j->total)) / rate : 0;
    uint64_t s = (uint64_t)left + 1;
    if (rate <= 0 || left > 1e7)
        snprintf(to, bytes, "-");
    else if (s >= 3600)
        snprintf(to, bytes, "%" PRIu64 ":%02u:%02u left", s / 3600, (unsigned)(s / 60 % 60),
                 (unsigned)(s % 60));
    else
        snprintf(to, bytes, "%u:%02u left", (unsigned)(s / 60), (unsigned)(s % 60));
}

static void picture(FILE *to, const struct job *j, uint64_t now)
{
    char bar[BAR_WIDTH + 1], done[32], total[32], rate[32], left[48];
    double seconds = (double)(now - j->started_ns) / 1e9, p = percent(j);
    unsigned full = (unsigned)(p / 100 * BAR_WIDTH);
    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', full);
    bar[BAR_WIDTH] = '\0';
    time_left(j, seconds, left, sizeof(left));
    output_size(seconds > 0 ? (uint64_t)((double)j->done / seconds) : 0, rate, sizeof(rate));
    fprintf(to, "\r%3.0f%% [%s] %s of %s, %s/s, %s \033[K", p, bar,
            output_size(j->done, done, sizeof(done)), output_size(j->total, total, sizeof(total)),
            rate, left);
    fflush(to);
}

/* @kind is a word of ours: nothing in it must be escaped. */
static void line(const struct progress *p, const struct job *j, double now)
{
    if (p->json)
        fprintf(p->to,
                "{\"job\": \"%s\", \"done\": %" PRIu64 ", \"total\": %" PRIu64
                ", \"percent\": %.2f, \"seconds\": %.3f}\n",
                j->kind, j->done, j->total, now, (double)(worker_now() - j->started_ns) / 1e9);
    else
        fprintf(p->to, "    (%3.2f/100%%)\r", now);
    fflush(p->to);
}

void progress_update(struct progress *p, const struct job *j)
{
    if (!p->shown)
        return;
    if (!p->bar) {
        double now = percent(j);
        if (p->last >= 0 && now < p->last + LEAST_STEP && now < 100)
            return;
        if (now == p->last)
            return;
        p->last = now;
        line(p, j, now);
        return;
    }
    uint64_t now = worker_now();
    if (p->last_ns && now < p->last_ns + BAR_PAUSE)
        return;
    p->last_ns = now;
    picture(p->to, j, now);
}

void progress_line(const struct job *j)
{
    fprintf(stderr, "    (%3.2f/100%%)\n", percent(j));
}

void progress_end(struct progress *p, const struct job *j, bool done)
{
    if (!p->shown)
        return;
    if (p->bar)
        picture(p->to, j, worker_now());
    else if (done && p->last < 100)
        line(p, j, 100);
    if (!p->json)
        fputc('\n', p->to);
    fflush(p->to);
}

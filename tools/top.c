/* SPDX-License-Identifier: BSD-3-Clause */
/* top.c - `lamina top`: a running server on a terminal: exports, clients, requests, bytes, latency,
 * jobs.
 *
 * Two answers of the verb `stats` make one picture: rates and latencies are of the time between
 * them. On a terminal it is drawn again each interval until q is pressed; where stdout is none, or
 * with --once, it is printed once, plain. */
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "block/ctl.h"
#include "nbd/stats.h"
#include "tools/tool.h"

#define SECOND   1000000000ULL
#define ROWS_MAX 1000 /* of exports that are looked at */
#define LINE_MAX 512
#define ROOM     24 /* for a number as text */

struct row {
    const char *name; /* borrowed from the answer */
    bool read_only;
    long long clients, errors;
    uint64_t iops, read_rate, write_rate; /* a second */
    uint64_t p50_us, p99_us;              /* 0: no requests */
};

struct top {
    struct tool *tool;
    const char *path;
    bool once, terminal, color, quit;
    uint64_t interval_ns;
    unsigned columns, lines; /* of the terminal */
    json_t *before, *now, *jobs;
    uint64_t before_ns, now_ns;
    struct row rows[ROWS_MAX];
    size_t row_count;
    char *frame;
    size_t frame_bytes, frame_room;
    unsigned drawn; /* lines in the frame */
    struct termios saved;
    struct host_stream *keys;
    bool signals_end;
    struct co_queue ended;
};

/* --- numbers of two answers --- */

static long long number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static const json_t *export_named(const json_t *stats, const char *name, size_t guess)
{
    const json_t *list = json_object_get(stats, "exports"), *x = json_array_get(list, guess);
    size_t i;

    if (x && strcmp(text_of(x, "name"), name) == 0)
        return x;
    json_array_foreach (list, i, x)
        if (strcmp(text_of(x, "name"), name) == 0)
            return x;
    return NULL;
}

static uint64_t grown(const json_t *now, const json_t *before, const char *key)
{
    long long a = number_of(before, key), b = number_of(now, key);

    return b > a ? (uint64_t)(b - a) : 0;
}

static uint64_t rate(const struct top *t, uint64_t count)
{
    uint64_t ms = MAX((t->now_ns - t->before_ns) / 1000000, 1);

    return t->before ? count * 1000 / ms : 0;
}

/* How many of the requests between the two answers were in each bucket, of all kinds. */
static uint64_t buckets_between(const json_t *now, const json_t *before,
                                uint64_t sum[NBD_LATENCY_BUCKETS + 1])
{
    static const char *const kinds[] = {"read", "write", "flush", "other"};
    uint64_t all = 0;

    memset(sum, 0, (NBD_LATENCY_BUCKETS + 1) * sizeof(*sum));
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        const json_t *b =
            json_object_get(json_object_get(json_object_get(now, "latency"), kinds[k]), "buckets");
        const json_t *a = json_object_get(
            json_object_get(json_object_get(before, "latency"), kinds[k]), "buckets");

        for (unsigned i = 0; i <= NBD_LATENCY_BUCKETS; i++) {
            long long n =
                json_integer_value(json_array_get(b, i)) - json_integer_value(json_array_get(a, i));
            sum[i] += n > 0 ? (uint64_t)n : 0;
        }
    }
    for (unsigned i = 0; i <= NBD_LATENCY_BUCKETS; i++)
        all += sum[i];
    return all;
}

/* The upper end of the bucket in which the @percent-th lies, microseconds. */
static uint64_t percentile(const uint64_t *sum, uint64_t all, unsigned percent)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i <= NBD_LATENCY_BUCKETS; i++) {
        seen += sum[i];
        if (all && seen * 100 >= all * percent)
            return (uint64_t)1 << i;
    }
    return 0;
}

static void fill_row(const struct top *t, struct row *r, const json_t *x, size_t index)
{
    uint64_t sum[NBD_LATENCY_BUCKETS + 1], all;
    const json_t *was = export_named(t->before, text_of(x, "name"), index);
    uint64_t requests = grown(x, was, "reads") + grown(x, was, "writes") +
                        grown(x, was, "flushes") + grown(x, was, "others");

    *r = (struct row){
        .name = text_of(x, "name"),
        .read_only = json_is_true(json_object_get(x, "read-only")),
        .clients = number_of(x, "clients"),
        .errors = number_of(x, "errors"),
        .iops = rate(t, requests),
        .read_rate = rate(t, grown(x, was, "read-bytes")),
        .write_rate = rate(t, grown(x, was, "written-bytes")),
    };
    all = t->before ? buckets_between(x, was, sum) : 0;
    r->p50_us = percentile(sum, all, 50);
    r->p99_us = percentile(sum, all, 99);
}

static int busiest_first(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    if (x->iops != y->iops)
        return x->iops < y->iops ? 1 : -1;
    if (x->clients != y->clients)
        return x->clients < y->clients ? 1 : -1;
    return strcmp(x->name, y->name);
}

static void fill_rows(struct top *t)
{
    const json_t *x;
    size_t i;

    t->row_count = 0;
    json_array_foreach (json_object_get(t->now, "exports"), i, x)
        if (t->row_count < ROWS_MAX)
            fill_row(t, &t->rows[t->row_count++], x, i);
    qsort(t->rows, t->row_count, sizeof(t->rows[0]), busiest_first);
}

/* --- the picture --- */

static void add(struct top *t, const char *text, size_t bytes)
{
    if (t->frame_bytes + bytes > t->frame_room) {
        size_t room = (t->frame_bytes + bytes) * 2;
        char *grown_frame = mem_resize(t->frame, room);

        if (!grown_frame)
            return;
        t->frame = grown_frame;
        t->frame_room = room;
    }
    memcpy(t->frame + t->frame_bytes, text, bytes);
    t->frame_bytes += bytes;
}

static void add_text(struct top *t, const char *text)
{
    add(t, text, strlen(text));
}

/* One line, cut at the terminal's width. Bytes that could steer a terminal become '?'. */
static void line(struct top *t, bool bold, const char *fmt, ...) printf_like(3, 4);
static void line(struct top *t, bool bold, const char *fmt, ...)
{
    char text[LINE_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p >= 0x7f)
            *p = '?';
    if (t->terminal && strlen(text) > t->columns)
        text[t->columns] = 0;
    if (t->color && bold)
        add_text(t, "\033[1m");
    add_text(t, text);
    if (t->color && bold)
        add_text(t, "\033[0m");
    add_text(t, t->terminal ? "\033[K\n" : "\n");
    t->drawn++;
}

/* Three or four digits and a letter: 999, 1.2k, 34.5M. Without floating point: it is wide on a
 * coroutine's stack. */
static const char *scaled(uint64_t n, unsigned step, char room[ROOM])
{
    static const char letters[] = " kMGTPE";
    unsigned i = 0;
    uint64_t tenths = n < UINT64_MAX / 10 ? n * 10 : UINT64_MAX;

    while (tenths >= 9995 && i < sizeof(letters) - 2) {
        tenths = (tenths + step / 2) / step;
        i++;
    }
    if (i == 0)
        snprintf(room, ROOM, "%" PRIu64, n);
    else if (tenths < 1000)
        snprintf(room, ROOM, "%" PRIu64 ".%" PRIu64 "%c", tenths / 10, tenths % 10, letters[i]);
    else
        snprintf(room, ROOM, "%" PRIu64 "%c", tenths / 10, letters[i]);
    return room;
}

static const char *duration(uint64_t us, char room[ROOM])
{
    if (us == 0)
        return "-";
    if (us < 1000)
        snprintf(room, ROOM, "%" PRIu64 "us", us);
    else if (us < 1000000)
        snprintf(room, ROOM, "%" PRIu64 ".%" PRIu64 "ms", us / 1000, us % 1000 / 100);
    else
        snprintf(room, ROOM, "%" PRIu64 ".%" PRIu64 "s", us / 1000000, us % 1000000 / 100000);
    return room;
}

static unsigned name_width(const struct top *t)
{
    unsigned columns = t->terminal ? t->columns : 80;

    return columns > 82 ? MIN(columns - 62, 60) : 20;
}

static void draw_row(struct top *t, const struct row *r)
{
    char a[ROOM], b[ROOM], c[ROOM], d[ROOM], e[ROOM];
    int width = (int)name_width(t);

    line(t, false, "%-*.*s %3s %7lld %7s %7s %7s %7s %7s %6lld", width, width,
         *r->name ? r->name : "(default)", r->read_only ? "ro" : "rw", r->clients,
         scaled(r->iops, 1000, a), scaled(r->read_rate, 1024, b), scaled(r->write_rate, 1024, c),
         duration(r->p50_us, d), duration(r->p99_us, e), r->errors);
}

/* Of @count lines, as many as fit into @room, the last of which may say how many do not. */
static size_t fitting(const struct top *t, size_t count, unsigned room)
{
    if (!t->terminal || count <= room)
        return count;
    return room > 0 ? room - 1 : 0;
}

static void draw_jobs(struct top *t)
{
    size_t count = json_array_size(t->jobs), shown = fitting(t, count, t->lines / 4);

    if (count == 0)
        return;
    line(t, false, "%s", "");
    line(t, true, "%-24s %-10s %-10s %8s %8s %5s", "JOB", "KIND", "STATE", "DONE", "OF", "");
    for (size_t i = 0; i < shown; i++) {
        const json_t *j = json_array_get(t->jobs, i);
        long long done = number_of(j, "done"), total = number_of(j, "total");
        char a[ROOM], b[ROOM];

        line(t, false, "%-24.24s %-10.10s %-10.10s %8s %8s %4lld%%", text_of(j, "id"),
             text_of(j, "kind"), text_of(j, "state"), scaled((uint64_t)MAX(done, 0), 1024, a),
             scaled((uint64_t)MAX(total, 0), 1024, b), total > 0 ? done / (total / 100 + 1) : 0);
    }
    if (shown < count)
        line(t, false, "... and %zu more", count - shown);
}

static void draw(struct top *t)
{
    uint64_t up = (uint64_t)number_of(t->now, "up-ns") / SECOND, all = 0;
    unsigned for_jobs =
        json_array_size(t->jobs) ? 2 + (unsigned)MIN(json_array_size(t->jobs), t->lines / 4) : 0;
    unsigned around = 4 + for_jobs;
    size_t shown = fitting(t, t->row_count, t->lines > around ? t->lines - around : 1);
    char a[ROOM];

    t->frame_bytes = t->drawn = 0;
    if (t->terminal)
        add_text(t, "\033[H");
    for (size_t i = 0; i < t->row_count; i++)
        all += t->rows[i].iops;
    line(t, true,
         "lamina top  up %" PRIu64 ":%02" PRIu64 ":%02" PRIu64 "  exports %zu  clients %lld"
         "  %s requests/s  %s",
         up / 3600, up / 60 % 60, up % 60, json_array_size(json_object_get(t->now, "exports")),
         number_of(t->now, "clients"), scaled(all, 1000, a), text_of(t->now, "address"));
    int width = (int)name_width(t);
    line(t, true, "%-*s %3s %7s %7s %7s %7s %7s %7s %6s", width, "EXPORT", "", "CLIENTS", "IOPS",
         "READ/S", "WRITE/S", "P50", "P99", "ERRORS");
    for (size_t i = 0; i < shown; i++)
        draw_row(t, &t->rows[i]);
    if (shown < t->row_count)
        line(t, false, "... and %zu more", t->row_count - shown);
    draw_jobs(t);
    if (t->terminal)
        add_text(t, "\033[Jq quits");
}

static int show(const struct top *t)
{
    for (size_t done = 0; done < t->frame_bytes;) {
        ssize_t n = write(STDOUT_FILENO, t->frame + done, t->frame_bytes - done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* --- asking --- */

static int co_ask(struct top *t, const char *verb, json_t **result)
{
    struct blk_error e = {0};
    json_auto_t *request = json_pack("{s:s}", "do", verb);
    int rc = request ? co_ctl_call(t->tool->host, t->path, request, result, &e)
                     : err_set(&e, -ENOMEM, "out of memory");

    if (rc < 0)
        err_set(&e, rc, "%s", e.text);
    if (rc < 0 && !t->terminal)
        tool_error(t->tool, "%s", e.text);
    return rc;
}

static int co_look(struct top *t)
{
    json_decref(t->before);
    json_decref(t->jobs);
    t->before = t->now;
    t->before_ns = t->now_ns;
    t->now = t->jobs = NULL;
    TRY(co_ask(t, "stats", &t->now));
    t->now_ns = worker_now();
    return co_ask(t, "jobs", &t->jobs);
}

/* --- the terminal --- */

static void find_size(struct top *t)
{
    struct winsize w = {0};

    t->columns = 80;
    t->lines = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
        t->columns = MIN(w.ws_col, LINE_MAX - 1);
        t->lines = w.ws_row;
    }
}

static void terminal_begin(struct top *t)
{
    struct termios raw;

    if (tcgetattr(STDIN_FILENO, &t->saved) == 0) {
        raw = t->saved;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    add_text(t, "\033[?1049h\033[?25l"); /* another screen, no cursor */
    show(t);
}

static void terminal_end(struct top *t)
{
    t->frame_bytes = 0;
    add_text(t, "\033[?25h\033[?1049l");
    show(t);
    tcsetattr(STDIN_FILENO, TCSANOW, &t->saved);
}

/* Waits for the interval or for a key. True: go on. */
static bool co_pause(struct top *t)
{
    uint64_t end = worker_now() + t->interval_ns;

    for (uint64_t now = worker_now(); now < end && !t->quit; now = worker_now()) {
        char key[16];
        int rc = co_host_stream_wait(t->keys, HOST_READABLE, end - now);
        ssize_t n = rc > 0 ? read(STDIN_FILENO, key, sizeof(key)) : 0;

        if (rc > 0 && n <= 0) /* the terminal has gone */
            return false;
        for (ssize_t i = 0; i < n; i++)
            if (key[i] == 'q' || key[i] == 'Q' || key[i] == 3 || key[i] == 4)
                return false;
        if (n > 0)
            break; /* any other key: now */
    }
    return !t->quit;
}

static const int end_signals[] = {SIGTERM, SIGINT, SIGHUP, 0};

static void co_wait_for_signal(void *arg)
{
    struct top *t = arg;

    if (co_host_signal(t->tool->host, end_signals) > 0) {
        t->quit = true;
        host_stream_shutdown(t->keys);
    }
    t->signals_end = true;
    co_queue_wake_all(&t->ended);
}

static int co_watch(struct top *t)
{
    int rc = host_stream_watch(t->tool->host, dup(STDIN_FILENO), &t->keys);

    if (rc == 0)
        rc = co_start(co_wait_for_signal, t);
    if (rc < 0)
        return rc;
    terminal_begin(t);
    do {
        find_size(t);
        rc = co_look(t);
        if (rc == 0) {
            fill_rows(t);
            draw(t);
            rc = show(t);
        }
    } while (rc == 0 && co_pause(t));
    terminal_end(t);
    host_signal_cancel(t->tool->host);
    while (!t->signals_end)
        co_queue_wait(&t->ended);
    host_stream_close(t->keys);
    if (rc < 0)
        tool_error(t->tool, "%s: %s", t->path, strerror(-rc));
    return rc;
}

static int co_print_once(struct top *t)
{
    TRY(co_look(t));
    co_sleep(t->interval_ns);
    TRY(co_look(t));
    fill_rows(t);
    draw(t);
    return show(t);
}

static int co_top(void *arg)
{
    struct top *t = arg;
    int rc = t->terminal ? co_watch(t) : co_print_once(t);

    json_decref(t->before);
    json_decref(t->now);
    json_decref(t->jobs);
    return rc;
}

/* --- the verb --- */

enum { ARG_ONCE = ARG_LONG, ARG_INTERVAL };

static const struct arg_desc options[] = {
    {ARG_ONCE, "once", NULL, "print it once, plain (as where stdout is no terminal)", 0, false},
    {ARG_INTERVAL, "interval", "SECONDS", "between two pictures (default 1)", 0, false},
    ARG_END,
};

static int option(void *verb, int id, const char *value)
{
    struct top *t = verb;
    char *end;
    double seconds = strtod(value, &end);

    if (*end || end == value || !(seconds >= 0.1 && seconds <= 3600)) {
        tool_misuse(t->tool, "--interval wants 0.1 to 3600 seconds");
        return ARGS_BAD;
    }
    t->interval_ns = (uint64_t)(seconds * 1e9);
    return 0;
}

static int top_run(struct top *t, int argc, char **argv)
{
    const struct arg_place places[] = {{ARG_ONCE, NULL, &t->once}, {0, NULL, NULL}};
    struct command_line words = {argc, argv, places, option, t};
    int id = args_read(t->tool, &words);

    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (words.argc != 1)
        return tool_misuse(t->tool, "expected the server's control socket");
    t->path = words.argv[0];
    t->terminal = !t->once && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
    t->color = t->terminal && !getenv("NO_COLOR");
    if (t->terminal)
        tool_block_signals(end_signals);
    return tool_run(t->tool, 1, co_top, t) < 0 ? 1 : 0;
}

static int top_main(struct tool *tool, int argc, char **argv)
{
    struct top *t = mem_zalloc(sizeof(*t));
    int rc;

    if (!t) {
        tool_error(tool, "out of memory");
        return 1;
    }
    t->tool = tool;
    t->interval_ns = SECOND;
    rc = top_run(t, argc, argv);
    mem_free(t->frame);
    mem_free(t);
    return rc;
}

const struct command top_command = {
    .name = "top",
    .run = top_main,
    .usage = "top [--once] [--interval SECONDS] SOCKET",
    .summary = "Show a running server: exports, clients, requests, latency, jobs",
    .faces = FACE_LAMINA,
    .options = options,
    .notes =
        "SOCKET is what `lamina serve --control` was told. Latencies are upper ends of buckets\n"
        "that double. q quits, any other key draws at once. NO_COLOR is respected.\n"
        "\n"
        "  lamina top --once server.ctl",
};

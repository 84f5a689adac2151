/* SPDX-License-Identifier: BSD-3-Clause */
/* receive.c - receive: a stream of `lamina send` becomes a disk, or changes one. */
#include "tools/receive.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/pipe.h"

#define INPUT_BYTES (256 * KiB)

enum { ARG_BASE = ARG_LONG, ARG_BASE_FORMAT, ARG_JOURNAL, ARG_FORCE, ARG_TOKEN };

static const struct arg_desc options[] = {
    {'O', "target-format", "FORMAT", "a new TARGET's format (else what its ending says)", 0, false},
    {'o', "target-format-options", "KEY=VALUE,...", "options of the format; -o help lists them", 0,
     false},
    {'f', "format", "FORMAT", "the format of a TARGET that is there (else it is found out)", 0,
     false},
    {ARG_BASE, "base", "OLD",
     "of an increment: TARGET is a new image that stands on OLD (its name as TARGET says it)", 0,
     false},
    {ARG_BASE_FORMAT, "base-format", "FORMAT", "OLD's format (else it is found out)", 0, false},
    {ARG_FORCE, "force", NULL, "of a full stream: replace what TARGET holds", 0, false},
    {ARG_JOURNAL, "journal", "FILE", "note there how far it is (else beside TARGET)", 0, false},
    {ARG_TOKEN, "token", NULL, "only print what `send --resume-from` wants to be told", 0, false},
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_END};

/* --- the stream --- */

struct fd_input {
    struct receive_input input;
    const struct tool *tool;
    int fd;
    uint8_t *buf; /* owned */
    size_t at, have;
};

struct fd_read {
    struct fd_input *in;
    uint8_t *to;
    size_t bytes, got;
};

static int run_read(void *arg)
{
    struct fd_read *r = arg;
    return pipe_read_all(r->in->tool, r->in->fd, r->to, r->bytes, &r->got);
}

static int co_fd_read(struct receive_input *input, void *to, size_t bytes)
{
    struct fd_input *in = container_of(input, struct fd_input, input);
    uint8_t *out = to;
    for (size_t n; bytes > 0; out += n, bytes -= n) {
        n = MIN(bytes, in->have - in->at);
        if (n > 0) {
            memcpy(out, in->buf + in->at, n);
            in->at += n;
            continue;
        }
        bool direct = bytes >= INPUT_BYTES;
        struct fd_read r = {
            .in = in, .to = direct ? out : in->buf, .bytes = direct ? bytes : INPUT_BYTES};
        TRY(co_blocking(run_read, &r));
        if (r.got == 0)
            return -ENODATA;
        n = direct ? r.got : 0;
        in->at = 0;
        in->have = direct ? 0 : r.got;
    }
    return 0;
}

static int open_input(struct receive *r, struct fd_input *in)
{
    bool pipe = is_pipe(r->stream);
    *in = (struct fd_input){.input.co_read = co_fd_read, .tool = r->task.tool};
    in->fd = pipe ? STDIN_FILENO : open(r->stream, O_RDONLY | O_CLOEXEC);
    if (in->fd < 0)
        return err_errno(&r->task.error, -errno, "%s", r->stream);
    in->buf = mem_alloc(INPUT_BYTES);
    r->input = &in->input;
    return in->buf ? 0 : err_set(&r->task.error, -ENOMEM, "out of memory");
}

static void close_input(struct fd_input *in)
{
    if (in->fd > STDIN_FILENO)
        close(in->fd);
    mem_free(in->buf);
}

/* --- the work --- */

struct work {
    struct receive_apply apply;
    struct receive *r;
};

static int co_note(struct receive_apply *a, uint64_t at, const struct sumhash *sum)
{
    struct receive *r = container_of(a, struct work, apply)->r;
    r->journal.at = at;
    r->journal.sum = *sum;
    return co_receive_journal_write(&r->journal, &r->task.error);
}

static int co_apply(struct receive *r)
{
    struct work w = {
        .r = r,
        .apply = {.input = r->input,
                  .header = r->header,
                  .target = r->target,
                  .reads_zero = r->made && r->target->limits.fresh_reads_zero,
                  .from = r->journal.at,
                  .before = r->journal.sum,
                  .job = &r->task.job,
                  .co_note = co_note},
    };
    r->task.job.total += r->header.size;
    TRY(co_receive_apply(&w.apply, &r->task.error));
    r->journal.digest = w.apply.digest;
    return r->task.signal ? err_set(&r->task.error, -ECANCELED, "interrupted") : 0;
}

static int co_token(struct receive *r)
{
    TRY(co_receive_place(r));
    if (r->journal.state == RECEIVE_GOING && r->journal.at > 0)
        return 0;
    return err_set(&r->task.error, -ENODATA, "%s: nothing is received in part that could go on",
                   r->make.name);
}

static int co_receive(struct receive *r)
{
    TRY(co_receive_header(r->input, &r->header, &r->task.error));
    if (r->base && !r->header.increment)
        return err_set(&r->task.error, -EINVAL, "--base: this is a full stream, it needs none");
    TRY(co_receive_place(r));
    TRY(co_receive_open(r));
    return r->finished ? 0 : co_apply(r);
}

int co_receive_run(struct receive *r)
{
    return co_receive_close(r, co_receive(r));
}

static int co_body(struct task *t)
{
    struct receive *r = container_of(t, struct receive, task);
    struct fd_input in = {.fd = -1};
    if (r->token)
        return co_token(r);
    int rc = open_input(r, &in);
    if (rc == 0)
        rc = co_receive_run(r);
    close_input(&in);
    return rc;
}

/* --- what is told --- */

static int option(void *verb, int id, const char *value)
{
    struct receive *r = verb;
    bool help = false;
    int rc = make_options_told(r->task.tool, r->make.options, value, &help);
    if (rc != 0 || !help)
        return rc;
    r->make.driver = format_find(r->task.tool, r->target_format ? r->target_format : "qcow2", "");
    if (!r->make.driver)
        return ARGS_BAD;
    make_print_help(r->task.tool, r->make.driver, false);
    return ARGS_HELP;
}

static int receive_it(struct receive *r)
{
    struct tool *t = r->task.tool;
    char text[SUMHASH_TEXT];
    if (r->base_format && !r->base)
        return tool_misuse(t, "--base-format needs --base");
    if (is_pipe(r->make.name))
        return tool_misuse(t, "TARGET cannot be a pipe");
    int rc = task_run(&r->task, 0);
    if (rc)
        return rc;
    sumhash_print(r->token ? &r->journal.sum : &r->journal.digest, text);
    if (r->token)
        printf("%" PRIu64 "-%s\n", r->journal.at, text);
    else if (!t->quiet)
        printf("%s  %s\n", text, r->make.name);
    return 0;
}

static int take_operands(struct receive *r, const struct command_line *line)
{
    int want = r->token ? 1 : 2;
    if (line->argc != want)
        return tool_misuse(r->task.tool, "%s",
                           r->token ? "--token needs TARGET" : "STREAM and TARGET are needed");
    r->stream = r->token ? NULL : line->argv[0];
    r->make.name = line->argv[want - 1];
    r->make.force = r->force;
    return receive_it(r);
}

static int run(struct tool *t, int argc, char **argv)
{
    struct receive r = {
        .task = {.tool = t, .kind = "receive", .co_body = co_body},
        .make = {.tool = t, .options = json_object(), .steady = true, .cache = "writeback"},
    };
    const struct arg_place places[] = {
        {'O', &r.target_format, NULL}, {'f', &r.format, NULL},
        {ARG_BASE, &r.base, NULL},     {ARG_BASE_FORMAT, &r.base_format, NULL},
        {ARG_FORCE, NULL, &r.force},   {ARG_JOURNAL, &r.journal_path, NULL},
        {ARG_TOKEN, NULL, &r.token},   {0, NULL, NULL},
    };
    struct command_line line = {argc, argv, places, option, &r};
    int id = args_read(t, &line);
    int rc = id == ARGS_END ? take_operands(&r, &line) : id == ARGS_HELP ? 0 : 1;
    receive_journal_drop(&r.journal);
    make_drop(&r.make);
    return rc;
}

const struct command receive_command = {
    .name = "receive",
    .run = run,
    .usage = "receive [OPTION]... STREAM TARGET",
    .summary = "Make a disk of what `lamina send` wrote, or change one",
    .faces = FACE_LAMINA,
    .options = options,
    .notes =
        "A STREAM - is standard input. A full stream makes a new TARGET. An increment changes the "
        "TARGET\nthat is its base, or with --base makes a new image on OLD; what is not the base, "
        "or "
        "was changed\nsince it was received, is refused untouched. A run that was cut short is "
        "started again with the\nsame stream, and goes on from the last point that is durable; "
        "--token prints what\n`send --resume-from` needs to send only the rest. The sumhash of "
        "TARGET is printed.\n"
        "\n"
        "  lamina receive full.lms copy.qcow2\n"
        "  lamina receive tuesday.lms copy.qcow2\n"
        "  lamina receive --base copy.qcow2 tuesday.lms tuesday.qcow2\n"
        "  lamina send disk.qcow2 | lamina receive --force --journal state - nbd://host/b",
};

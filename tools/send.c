/* SPDX-License-Identifier: BSD-3-Clause */
/* send.c - send: a disk, or what has changed since another one, as a stream of bytes. */
#include "tools/send.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "imgfmt/raw.h"
#include "tools/hash.h"
#include "tools/pipe.h"

enum {
    ARG_BASE = ARG_LONG,
    ARG_BASE_FORMAT,
    ARG_BASE_DIGEST,
    ARG_BITMAP,
    ARG_FORCE,
    ARG_RESUME_FROM
};

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "NEW's format (else it is found out)", 0, false},
    {ARG_BASE, "base", "OLD", "send only what differs from OLD", 0, false},
    {ARG_BASE_FORMAT, "base-format", "FORMAT", "OLD's format (else it is found out)", 0, false},
    {ARG_BASE_DIGEST, "base-digest", "VALUE",
     "the base's sumhash, as send and receive print it (else all of OLD is read)", 0, false},
    {ARG_BITMAP, "bitmap", "NAME", "what has changed since the base is in this bitmap of NEW", 0,
     false},
    {'o', "stream", "FILE", "write the stream into FILE (-, the default: to standard output)", 0,
     false},
    {ARG_FORCE, "force", NULL, "replace FILE if it exists", 0, false},
    {'c', "compress", NULL, "compress with zstd", 0, false},
    {ARG_RESUME_FROM, "resume-from", "TOKEN", "go on where `receive --token` says", 0, false},
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

/* --- opening --- */

static int co_check_bitmap(struct send *s)
{
    struct blk_bitmap *list = NULL;
    struct blk_error *e = &s->task.error;
    size_t count = 0, i = 0;
    int rc = co_blk_bitmap_list(s->dev, &list, &count, e);
    if (rc == -ENOTSUP)
        return err_set(e, rc, "%s keeps no bitmaps", s->image.text);
    TRY(rc);
    while (i < count && strcmp(list[i].name, s->bitmap) != 0)
        i++;
    if (i == count)
        rc = err_set(e, -ENOENT, "%s has no bitmap '%s'", s->image.text, s->bitmap);
    else if (list[i].inconsistent || list[i].foreign)
        rc = err_set(e, -EINVAL, "bitmap '%s' cannot be used: it was not stored to its end",
                     s->bitmap);
    blk_bitmaps_drop(list, count);
    return rc;
}

static int co_open(struct send *s)
{
    struct send_header *h = &s->header;
    struct blk_error *e = &s->task.error;
    char text[HASH_TEXT];
    TRY(co_image_open(s->task.tool, &s->image, &s->dev, e));
    h->size = s->task.job.total = s->dev->size;
    if (s->bitmap)
        TRY(co_check_bitmap(s));
    if (h->start > h->size)
        return err_set(e, -EINVAL, "the token is of a larger disk than %s", s->image.text);
    h->base_size = h->increment ? h->size : 0; /* with a bitmap alone */
    if (!s->base_image.text)
        return 0;
    TRY(co_image_open(s->task.tool, &s->base_image, &s->base, e));
    h->base_size = s->base->size;
    if (s->has_base_digest)
        return 0;
    s->task.job.total += h->base_size;
    TRY(co_hash_disk(s->base, h->base_size, HASH_SUMHASH, &s->task.job, text, e));
    return sumhash_parse(text, &h->base) ? 0 : -EINVAL;
}

/* --- where it goes --- */

static int co_open_stream(struct send *s)
{
    struct make *m = &s->make;
    s->fd = STDOUT_FILENO;
    if (m->pipe)
        return 0;
    m->driver = &raw_driver;
    TRY(co_make(m, &s->task.error));
    if (!m->path)
        return err_set(&s->task.error, -EINVAL, "the stream goes into a file or a pipe, not to %s",
                       m->name);
    s->fd = open(m->written, O_WRONLY | O_CLOEXEC);
    return s->fd < 0 ? err_errno(&s->task.error, -errno, "%s", m->written) : 0;
}

static int co_close_stream(struct send *s, int rc)
{
    if (s->make.pipe)
        return rc;
    if (s->fd >= 0 && close(s->fd) < 0 && rc == 0)
        rc = err_errno(&s->task.error, -errno, "%s", s->make.written);
    return co_make_end(&s->make, rc, &s->task.error);
}

static int co_body(struct task *t)
{
    struct send *s = container_of(t, struct send, task);
    s->fd = -1;
    int rc = co_open(s);
    if (rc == 0) {
        rc = co_open_stream(s);
        if (rc == 0)
            rc = co_send_stream(s);
        if (rc == 0 && t->signal)
            rc = err_set(&t->error, -ECANCELED, "interrupted");
        rc = co_close_stream(s, rc);
    }
    rc = co_image_close(take(s->base), rc, &t->error);
    return co_image_close(take(s->dev), rc, &t->error);
}

/* --- what is told --- */

static int digest_told(struct send *s, const char *value)
{
    s->has_base_digest = sumhash_parse(value, &s->header.base);
    if (s->has_base_digest)
        return 0;
    tool_misuse(s->task.tool, "'%s' is no hash: it must have %d hexadecimal digits", value,
                SUMHASH_TEXT - 1);
    return ARGS_BAD;
}

/* OFFSET-SUM, as `receive --token` prints it. */
static int token_told(struct send *s, const char *value)
{
    struct send_header *h = &s->header;
    char *end;
    errno = 0;
    h->start = strtoull(value, &end, 10);
    if (errno == 0 && end > value && *end == '-' && sumhash_parse(end + 1, &h->passed) &&
        h->start > 0 && h->start <= INT64_MAX && h->start % SEND_BLOCK == 0)
        return 0;
    tool_misuse(s->task.tool, "'%s' is no token of `lamina receive --token`", value);
    return ARGS_BAD;
}

static int option(void *verb, int id, const char *value)
{
    return id == ARG_BASE_DIGEST ? digest_told(verb, value) : token_told(verb, value);
}

/* The first rule that what was told breaks, or NULL. */
static const char *contradiction(const struct send *s)
{
    const struct {
        bool broken;
        const char *sentence;
    } rules[] = {
        {s->bitmap && !s->base_image.text && !s->has_base_digest,
         "--bitmap needs --base OLD, or --base-digest: whose changes are they?"},
        {s->has_base_digest && !s->base_image.text && !s->bitmap,
         "--base-digest needs --base OLD or --bitmap: what has changed since?"},
        {s->base_image.format && !s->base_image.text, "--base-format needs --base"},
        {s->make.force && s->make.pipe, "--force needs -o FILE"},
        {s->make.pipe && isatty(STDOUT_FILENO),
         "standard output is a terminal: send it into a file or a program"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return rules[i].sentence;
    return NULL;
}

static int send_it(struct send *s)
{
    struct tool *t = s->task.tool;
    s->make.name = s->out ? s->out : "-";
    s->make.pipe = is_pipe(s->make.name);
    s->header.increment = s->base_image.text || s->bitmap;
    const char *sentence = contradiction(s);
    if (sentence)
        return tool_misuse(t, "%s", sentence);
    t->stdout_taken = s->make.pipe;
    signal(SIGPIPE, SIG_IGN); /* errors like others */
    signal(SIGXFSZ, SIG_IGN);
    int rc = task_run(&s->task, 0);
    if (rc == 0 && !s->make.pipe && !t->quiet)
        printf("%s  %s\n", s->digest, s->image.text);
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct send *s = calloc(1, sizeof(*s));
    if (!s) {
        tool_error(t, "out of memory");
        return 1;
    }
    s->task = (struct task){.tool = t, .kind = "send", .co_body = co_body};
    s->image.trust = s->base_image.trust = TRUST_READ;
    s->make = (struct make){.tool = t, .options = json_object()};
    const struct arg_place places[] = {
        {'f', &s->image.format, NULL},
        {ARG_BASE, &s->base_image.text, NULL},
        {ARG_BASE_FORMAT, &s->base_image.format, NULL},
        {ARG_BITMAP, &s->bitmap, NULL},
        {'o', &s->out, NULL},
        {ARG_FORCE, NULL, &s->make.force},
        {'c', NULL, &s->compress},
        {0, NULL, NULL},
    };
    struct command_line line = {argc, argv, places, option, s};
    int id = image_read(t, &line, &s->image);
    int rc = id == ARGS_END ? send_it(s) : id == ARGS_HELP ? 0 : 1;
    make_drop(&s->make);
    free(s);
    return rc;
}

const struct command send_command = {
    .name = "send",
    .run = run,
    .usage = "send [OPTION]... NEW",
    .summary = "Write a disk, or what has changed in it, as a stream for `lamina receive`",
    .faces = FACE_LAMINA,
    .options = options,
    .notes =
        "With --base the stream holds what differs from OLD. What both keep in one place "
        "(snapshots "
        "of one\nimage or pool, images on one backing file) is not read; the rest is compared. "
        "With "
        "--bitmap only\nwhat the bitmap says is looked at, and OLD may be elsewhere: --base-digest "
        "names it then. The\nstream says what it must be applied to; `lamina receive` refuses all "
        "else. With -o FILE the sumhash\nof NEW is printed, which the next increment can be told "
        "as "
        "--base-digest.\n"
        "\n"
        "  lamina send -o full.lms disk.qcow2\n"
        "  lamina send --base disk.qcow2//@monday -c -o tuesday.lms disk.qcow2\n"
        "  lamina send --base thin:meta.img,data.img//1 -o 2.lms thin:meta.img,data.img//2\n"
        "  lamina send disk.qcow2 | ssh host lamina receive - copy.qcow2",
};

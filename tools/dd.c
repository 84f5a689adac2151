/* SPDX-License-Identifier: BSD-3-Clause */
/* dd.c - qemu-img's dd: the first blocks of an image, or those behind skip=, become a new one.
 *
 * As QEMU 7.2 does it, count= counts from the image's beginning, skip= included. What Proxmox's
 * qemu-img adds is known too: -n writes into an image that is there, -l reads a snapshot, isize=
 * and osize= say how much is read and how large the new image is, and a missing if= or of= is
 * standard input or output (raw). One coroutine, one buffer. */
#include <signal.h>
#include <unistd.h>

#include "tools/make.h"
#include "tools/task.h"

#define CHUNK_BYTES (1 * MiB)

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {'O', "output-format", "FORMAT", "the new image's format (raw)", 0, false},
    {'n', NULL, NULL, "write into of=IMAGE, which is there already", 0, false},
    {'l', NULL, "SNAPSHOT", "what if=IMAGE held when that snapshot was taken", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_FORCE_SHARE,
    ARG_END};

/* A number of the operands. */
struct number {
    uint64_t value;
    bool told;
};

struct dd {
    struct task task;
    struct make make;
    struct image input;
    const char *target_format, *snapshot;
    bool into;
    struct number block, count, skip, in_bytes, out_bytes;

    struct blk_device *source, *target; /* NULL: standard input, output */
    uint64_t from, bytes;               /* of the source: where it begins, how much is copied */
};

/* --- copying ---------------------------------------------------------------------------------- */

/* Bytes of a stream, for co_blocking(). */
struct stream {
    int fd;
    uint8_t *buf;
    uint64_t bytes, done;
};

static int stream_read(void *arg)
{
    struct stream *s = arg;
    while (s->done < s->bytes) {
        ssize_t n = read(s->fd, s->buf + s->done, s->bytes - s->done);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        s->done += n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

static int stream_write(void *arg)
{
    struct stream *s = arg;
    while (s->done < s->bytes) {
        ssize_t n = write(s->fd, s->buf + s->done, s->bytes - s->done);
        if (n < 0 && errno != EINTR)
            return -errno;
        s->done += n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

/* Up to *bytes; *bytes is what there was. */
static int co_take(struct dd *d, uint64_t at, uint8_t *to, uint64_t *bytes)
{
    struct stream in = {.fd = STDIN_FILENO, .buf = to, .bytes = *bytes};
    int rc;
    if (d->source) {
        rc = co_blk_read_buf(d->source, d->from + at, to, *bytes);
    } else {
        rc = co_blocking(stream_read, &in);
        *bytes = in.done;
    }
    return rc < 0 ? err_errno(&d->task.error, rc, "error while reading from input image file") : 0;
}

static int co_give(struct dd *d, uint64_t at, uint8_t *from, uint64_t bytes)
{
    struct stream out = {.fd = STDOUT_FILENO, .buf = from, .bytes = bytes};
    int rc = d->target ? co_blk_write_buf(d->target, at, from, bytes, 0)
                       : co_blocking(stream_write, &out);
    return rc < 0 ? err_errno(&d->task.error, rc, "error while writing to output image file") : 0;
}

static int co_copy(struct dd *d)
{
    uint8_t *buf = buf_get(CHUNK_BYTES);
    int rc = buf ? 0 : err_set(&d->task.error, -ENOMEM, "out of memory");
    d->task.job.total = d->bytes;
    for (uint64_t at = 0; rc == 0 && at < d->bytes;) {
        uint64_t wanted = MIN(CHUNK_BYTES, d->bytes - at), n = wanted;
        rc = co_take(d, at, buf, &n);
        if (rc == 0)
            rc = co_give(d, at, buf, n);
        if (rc == 0)
            rc = co_job_step(&d->task.job, n);
        if (n < wanted) /* the stream has ended */
            break;
        at += n;
    }
    if (buf)
        buf_put(buf, CHUNK_BYTES);
    return rc;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int co_open_source(struct dd *d)
{
    struct blk_error *e = &d->task.error;
    if (!d->input.text)
        return 0;
    TRY(co_image_open(d->task.tool, &d->input, &d->source, e));
    return d->snapshot ? co_image_snapshot(d->task.tool, d->snapshot, &d->source, e) : 0;
}

/* Where the copy begins and how long it is; what skip= leaves of it. */
static void measure(struct dd *d)
{
    uint64_t size = d->source           ? d->source->size
                    : d->out_bytes.told ? d->out_bytes.value
                                        : INT64_MAX;
    uint64_t limit;
    if (d->in_bytes.told && d->in_bytes.value)
        size = d->source ? MIN(size, d->in_bytes.value) : d->in_bytes.value;
    if (d->count.told && mul_u64(d->count.value, d->block.value, &limit))
        size = MIN(size, limit);
    if (!mul_u64(d->skip.value, d->block.value, &d->from) || d->from > size) {
        tool_error(d->task.tool, "%s: cannot skip to specified offset", d->input.text);
        d->from = size;
    }
    d->bytes = size - d->from;
    if (d->out_bytes.told)
        d->bytes = MIN(d->bytes, d->out_bytes.value);
}

static int co_make_target(struct dd *d)
{
    struct blk_error *e = &d->task.error;
    /* QEMU counts in sectors: a raw image of odd length is copied with what its last one holds. */
    d->make.size = d->out_bytes.told ? d->out_bytes.value : align_up(d->bytes, 512);
    int rc = make_check_options(&d->make, e);
    if (rc == 0)
        rc = co_make(&d->make, e);
    if (rc < 0) {
        err_prefix(e, "%s: error while creating output image", d->make.name);
        return rc;
    }
    return co_make_open(&d->make, 0, &d->target, e);
}

static int co_open_target(struct dd *d)
{
    struct image i = {.text = d->make.name,
                      .format = d->make.driver->name,
                      .flags = BLK_OPEN_WRITE,
                      .trust = TRUST_WRITE};
    if (!d->make.name)
        return 0;
    if (!d->into)
        return co_make_target(d);
    TRY(co_image_open(d->task.tool, &i, &d->target, &d->task.error));
    d->bytes = MIN(d->bytes, d->target->size);
    return 0;
}

static int co_body(struct task *t)
{
    struct dd *d = container_of(t, struct dd, task);
    int rc = co_open_source(d);
    if (rc == 0) {
        measure(d);
        rc = co_open_target(d);
    }
    if (rc == 0)
        rc = co_copy(d);
    rc = co_image_close(take(d->target), rc, &t->error);
    if (d->make.written)
        rc = co_make_end(&d->make, rc, &t->error);
    return co_image_close(take(d->source), rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

static bool number_told(const struct tool *t, const char *key, const char *text, struct number *n)
{
    bool is_block = strcmp(key, "bs") == 0;
    struct blk_error e = {0};
    uint64_t max = is_block ? INT32_MAX : INT64_MAX;
    int rc = opts_parse_size(text, &n->value, &e);
    n->told = true;
    if (rc == 0 && n->value <= max && !(is_block && n->value == 0))
        return true;
    if (rc == -EINVAL)
        return size_told(t, key, text, &n->value);
    tool_error(t, "Invalid %s specified. Must be between %d and %" PRIu64 ".", key, is_block, max);
    return false;
}

static int operand(struct dd *d, const char *word)
{
    const struct {
        const char *key;
        const char **text;
        struct number *number;
    } keys[] = {
        {"if", &d->input.text, NULL},   {"of", &d->make.name, NULL}, {"bs", NULL, &d->block},
        {"count", NULL, &d->count},     {"skip", NULL, &d->skip},    {"isize", NULL, &d->in_bytes},
        {"osize", NULL, &d->out_bytes},
    };
    size_t n = strcspn(word, "=");
    for (size_t i = 0; word[n] && i < ARRAY_LEN(keys); i++) {
        if (strlen(keys[i].key) != n || strncmp(keys[i].key, word, n) != 0)
            continue;
        if (keys[i].text)
            *keys[i].text = word + n + 1;
        else if (!number_told(d->task.tool, keys[i].key, word + n + 1, keys[i].number))
            return ARGS_BAD;
        return 0;
    }
    tool_error(d->task.tool, "unrecognized operand %.*s", (int)n, word);
    return ARGS_BAD;
}

static int parse(struct dd *d, int argc, char **argv)
{
    const struct arg_place places[] = {IMAGE_PLACES(&d->input),
                                       {'O', &d->target_format, NULL},
                                       {'l', &d->snapshot, NULL},
                                       {'n', NULL, &d->into},
                                       {0, NULL, NULL}};
    struct tool *t = d->task.tool;
    struct command_line line = {argc, argv, places, NULL, NULL};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id;
    for (int i = 0; i < line.argc; i++)
        if (operand(d, line.argv[i]) < 0)
            return ARGS_BAD;
    if (!d->input.text && !d->make.name)
        tool_error(t, "Must specify both input and output files");
    else if (d->input.image_opts && d->input.format)
        tool_error(t, "--image-opts and --format are mutually exclusive");
    else
        return ARGS_END;
    return ARGS_BAD;
}

/* The format of the target; false after a message. */
static bool find_format(struct dd *d)
{
    struct tool *t = d->task.tool;
    const char *name = d->target_format ? d->target_format : "raw";
    d->make.driver = blk_find_driver(blk_drivers, name);
    if (!d->make.driver || !d->make.driver->is_format)
        tool_error(t, "Unknown file format");
    else if (!d->make.driver->co_create)
        tool_error(t, "Format driver '%s' does not support image creation", name);
    else if (!d->make.name && strcmp(name, "raw") != 0)
        tool_error(t, "standard output takes raw images only");
    else
        return true;
    return false;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct dd d = {
        .task = {.tool = t, .kind = "dd", .co_body = co_body},
        .make = {.tool = t, .options = json_object(), .direct = true, .cache = "writeback"},
        .input = {.trust = TRUST_READ},
        .block = {.value = 512}};
    int id = parse(&d, argc, argv), rc = id == ARGS_HELP ? 0 : 1;
    if (id == ARGS_END && find_format(&d)) {
        signal(SIGPIPE, SIG_IGN); /* who takes the output may go away: an error like another */
        rc = task_run(&d.task, 0);
    }
    make_drop(&d.make);
    return rc;
}

const struct command dd_command = {
    .name = "dd",
    .run = run,
    .usage = "dd [OPTION]... [bs=SIZE] [count=N] [skip=N] if=IMAGE of=FILE",
    .summary = "Copy a part of an image into a new one",
    .faces = FACE_IMG,
    .options = options,
    .notes = "Blocks are of bs= bytes (512). count= counts from the image's beginning. Without if= "
             "standard\ninput is read, without of= standard output written; osize= is the new "
             "image's size.\n"
             "\n"
             "  qemu-img dd bs=1M count=1 if=disk.qcow2 of=first-mib.img",
};

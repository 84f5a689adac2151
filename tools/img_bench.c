/* SPDX-License-Identifier: BSD-3-Clause */
/* img_bench.c - qemu-img's bench: so many requests of one size, a few at once, and the time that
 * they took. With -w it writes into the image. All requests share one buffer: what is read is not
 * looked at. */
#include <time.h>

#include "tools/task.h"

enum { ARG_FLUSH_INTERVAL = ARG_LONG, ARG_NO_DRAIN, ARG_PATTERN };

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {'c', "count", "N", "so many requests (75000)", 0, false},
    {'d', "depth", "N", "so many at once (64)", 0, false},
    {'s', "buffer-size", "SIZE", "bytes of a request (4k)", 0, false},
    {'S', "step-size", "SIZE", "from one request's offset to the next (as -s)", 0, false},
    {'o', "offset", "OFFSET", "of the first request (0)", 0, false},
    {'w', "write", NULL, "write", 0, false},
    {ARG_PATTERN, "pattern", "BYTE", "what is written (0)", 0, false},
    {ARG_FLUSH_INTERVAL, "flush-interval", "N", "flush after every N requests", 0, false},
    {ARG_NO_DRAIN, "no-drain", NULL, "other requests go on while it flushes", 0, false},
    {'t', "cache", "MODE", "none, writeback (the default), writethrough, directsync, unsafe", 0,
     false},
    {'i', "aio", "MODE", "native, threads or io_uring: accepted", 0, false},
    {'n', "native", NULL, "the same as -i native", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

struct slot {
    struct bench *bench;
    uint64_t offset;
    struct slot *next_free;
};

struct bench {
    struct task task;
    struct image image;
    uint64_t count, depth, buffer_bytes, step, offset, flush_interval;
    uint8_t pattern;
    bool step_told, write, no_drain, native;

    struct blk_device *dev;
    uint8_t *buffer;
    struct slot *slots, *free; /* depth of them and one that waits for its turn */
    double seconds;
};

/* --- running ---------------------------------------------------------------------------------- */

static int co_request(void *arg)
{
    struct slot *s = arg;
    struct bench *b = s->bench;
    int rc = -EIO; /* past the end */
    if (range_fits(s->offset, b->buffer_bytes, b->dev->size))
        rc = b->write ? co_blk_write_buf(b->dev, s->offset, b->buffer, b->buffer_bytes, 0)
                      : co_blk_read_buf(b->dev, s->offset, b->buffer, b->buffer_bytes);
    s->next_free = b->free;
    b->free = s;
    return rc;
}

static int co_flush(struct bench *b, struct co_group *group)
{
    if (!b->no_drain)
        TRY(co_group_wait(group));
    return co_blk_flush(b->dev);
}

static int co_send(struct bench *b)
{
    struct co_group group;
    uint64_t offset = b->offset;
    int rc = 0;
    co_group_init(&group, (unsigned)b->depth);
    for (uint64_t i = 0; rc == 0 && i < b->count && !co_group_failed(&group); i++) {
        struct slot *s = b->free;
        b->free = s->next_free;
        s->offset = offset;
        offset = b->dev->size ? (offset + b->step) % b->dev->size : 0;
        co_group_start(&group, co_request, s);
        if (b->flush_interval && (i + 1) % b->flush_interval == 0)
            rc = co_flush(b, &group);
        if (rc == 0)
            rc = co_job_step(&b->task.job, b->buffer_bytes);
    }
    int done = co_group_wait(&group);
    return rc < 0 ? rc : done;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int co_measure(struct bench *b)
{
    b->buffer = buf_get(MAX(b->buffer_bytes, 1u));
    b->slots = mem_array(b->depth + 1, sizeof(*b->slots));
    if (!b->buffer || !b->slots)
        return err_set(&b->task.error, -ENOMEM, "out of memory");
    memset(b->buffer, b->pattern, b->buffer_bytes);
    for (uint64_t i = 0; i <= b->depth; i++) {
        b->slots[i] = (struct slot){.bench = b, .next_free = b->free};
        b->free = &b->slots[i];
    }
    double start = now();
    int rc = co_send(b);
    b->seconds = now() - start;
    return rc < 0 ? err_errno(&b->task.error, rc, "Failed request") : 0;
}

static int co_body(struct task *t)
{
    struct bench *b = container_of(t, struct bench, task);
    TRY(co_image_open(t->tool, &b->image, &b->dev, &t->error));
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           b->count, b->write ? "write" : "read", b->buffer_bytes, b->depth, b->offset, b->step);
    if (b->flush_interval)
        printf("Sending flush every %" PRIu64 " requests\n", b->flush_interval);
    int rc = co_measure(b);
    if (b->buffer)
        buf_put(b->buffer, MAX(b->buffer_bytes, 1u));
    mem_free(b->slots);
    return co_image_close(take(b->dev), rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

/* A plain number from @min to @max. */
static bool number_told(const struct bench *b, const char *what, const char *text, uint64_t min,
                        uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 0);
    if (end != text && !*end && !errno && text[0] != '-' && *out >= min && *out <= max)
        return true;
    tool_error(b->task.tool, "Invalid %s specified", what);
    return false;
}

/* A size of a request, as far as QEMU takes it. */
static bool bytes_told(const struct bench *b, const char *what, const char *text, uint64_t *out)
{
    if (!size_told(b->task.tool, what, text, out))
        return false;
    if (*out <= INT32_MAX)
        return true;
    tool_error(b->task.tool, "Invalid %s specified. Must be between 0 and %d.", what, INT32_MAX);
    return false;
}

static bool aio_told(struct bench *b, const char *value)
{
    static const char *const modes[] = {"native", "threads", "io_uring"};
    for (size_t i = 0; i < ARRAY_LEN(modes); i++)
        if (strcmp(value, modes[i]) == 0) {
            b->native = i == 0;
            return true;
        }
    tool_error(b->task.tool, "Invalid aio option: %s", value);
    return false;
}

static int option(void *verb, int id, const char *value)
{
    struct bench *b = verb;
    uint64_t byte;
    bool ok = true;
    switch (id) {
    case 'c':
        ok = number_told(b, "request count", value, 0, INT32_MAX, &b->count);
        break;
    case 'd':
        ok = number_told(b, "queue depth", value, 1, 1 << 20, &b->depth);
        break;
    case 's':
        ok = bytes_told(b, "buffer size", value, &b->buffer_bytes);
        break;
    case 'S':
        ok = bytes_told(b, "step_size", value, &b->step);
        b->step_told = b->step > 0;
        break;
    case 'o':
        ok = size_told(b->task.tool, "offset", value, &b->offset);
        break;
    case 'i':
        ok = aio_told(b, value);
        break;
    case ARG_FLUSH_INTERVAL:
        ok = number_told(b, "flush interval", value, 0, INT32_MAX, &b->flush_interval);
        break;
    default:
        ok = number_told(b, "pattern byte", value, 0, UINT8_MAX, &byte);
        b->pattern = (uint8_t)byte;
    }
    return ok ? 0 : ARGS_BAD;
}

static const char *contradiction(const struct bench *b)
{
    const struct {
        bool broken;
        const char *sentence;
    } rules[] = {
        {b->image.image_opts && b->image.format,
         "--image-opts and --format are mutually exclusive"},
        {!b->write && b->flush_interval, "--flush-interval is only available in write tests"},
        {b->flush_interval && b->flush_interval < b->depth,
         "Flush interval can't be smaller than depth"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return rules[i].sentence;
    return NULL;
}

static int parse(struct bench *b, int argc, char **argv)
{
    const struct arg_place places[] = {
        IMAGE_PLACES(&b->image), {'t', &b->image.cache, NULL},       {'w', NULL, &b->write},
        {'n', NULL, &b->native}, {ARG_NO_DRAIN, NULL, &b->no_drain}, {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, b};
    return image_read(b->task.tool, &line, &b->image);
}

static int bench(struct bench *b)
{
    struct tool *t = b->task.tool;
    const char *cache = b->image.cache, *sentence = contradiction(b);
    bool direct = cache && strchr("nod", cache[0]); /* none, off, directsync */
    if (sentence) {
        tool_error(t, "%s", sentence);
        return 1;
    }
    if (!cache_is_known(cache)) {
        tool_error(t, "Invalid cache mode");
        return 1;
    }
    if (b->native && !direct) {
        tool_error(t,
                   "Could not open '%s': aio=native was specified, but it requires "
                   "cache.direct=on, which was not specified.",
                   b->image.text);
        return 1;
    }
    b->image.flags = b->write ? BLK_OPEN_WRITE : 0;
    b->image.trust = b->write ? TRUST_WRITE : TRUST_READ;
    b->step = b->step_told ? b->step : b->buffer_bytes;
    int rc = task_run(&b->task, 0);
    if (rc == 0)
        printf("Run completed in %3.3f seconds.\n", b->seconds);
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct bench b = {.task = {.tool = t, .kind = "bench", .co_body = co_body},
                      .count = 75000,
                      .depth = 64,
                      .buffer_bytes = 4 * KiB};
    int id = parse(&b, argc, argv);
    return id == ARGS_END ? bench(&b) : id == ARGS_HELP ? 0 : 1;
}

const struct command img_bench_command = {
    .name = "bench",
    .run = run,
    .usage = "bench [OPTION]... IMAGE",
    .summary = "Time requests to an image",
    .faces = FACE_IMG,
    .options = options,
    .notes = "With -w it writes over what IMAGE holds.\n"
             "\n"
             "  qemu-img bench -c 1000 -d 8 -s 64k disk.qcow2",
};

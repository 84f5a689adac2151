/* SPDX-License-Identifier: BSD-3-Clause */
/* bench.c - bench: how fast a disk answers, under lamina's own name.
 *
 * As many coroutines as requests shall be in flight draw one after the other: an offset in order or
 * by a seed, a read or a write by the mix. Without --write nothing can write: the image is opened
 * read-only. With it the writes go into an overlay in a nameless file (TMPDIR, else /var/tmp) that
 * is gone afterwards; only --destroy writes into the image itself.
 *
 * Latencies are counted in buckets an eighth of a power of two wide, so percentiles are right to
 * within 13 %; least and most are exact. */
#include "tools/output.h"
#include "tools/pipe.h"
#include "tools/task.h"

#define SECOND     1000000000ULL
#define DEPTH_MOST 1024
#define SIZE_MOST  (32 * MiB)
#define STEPS      8 /* buckets for each power of two of nanoseconds, from 8 ns on */
#define BUCKETS    (62 * STEPS)

enum {
    ARG_RANDOM = ARG_LONG,
    ARG_SECONDS,
    ARG_MIX,
    ARG_DESTROY,
    ARG_FLUSH_INTERVAL,
    ARG_PATTERN,
    ARG_SEED
};

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {'c', "count", "N", "how many requests (75000)", 0, false},
    {ARG_SECONDS, "seconds", "N", "send requests for N seconds, instead of a count", 0, false},
    {'d', "depth", "N", "how many at once (64)", 0, false},
    {'s', "buffer-size", "SIZE", "bytes in a request (4k)", 0, false},
    {'S', "step-size", "SIZE", "from one request's offset to the next (as -s)", 0, false},
    {'o', "offset", "OFFSET", "where the first request goes (0)", 0, false},
    {ARG_RANDOM, "random", NULL, "offsets at random, at multiples of the step", 0, false},
    {ARG_SEED, "seed", "N", "what the random offsets begin with: the same N, the same offsets (1)",
     0, false},
    {'w', "write", NULL, "write, into an overlay that is thrown away", 0, false},
    {ARG_MIX, "mix", "PERCENT", "PERCENT of the requests write, the others read", 0, false},
    {ARG_DESTROY, "destroy", NULL, "with -w or --mix: write over what IMAGE holds", 0, false},
    {ARG_PATTERN, "pattern", "BYTE", "what is written (1)", 0, false},
    {ARG_FLUSH_INTERVAL, "flush-interval", "N", "flush after every N writes", 0, false},
    {'t', "cache", "MODE", "none, writeback (the default), writethrough, directsync, unsafe", 0,
     false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

/* Requests of one kind. */
struct tally {
    uint64_t count, least_ns, most_ns, sum_ns;
    uint64_t buckets[BUCKETS];
};

struct bench {
    struct task task;
    struct image image;
    uint64_t count, seconds, depth, bytes, step, offset, seed, mix, flush_interval, pattern;
    bool random, write, destroy;

    struct blk_device *dev;
    uint64_t size; /* of the image */
    uint64_t places, next, state, writes, flushes;
    uint64_t until_ns; /* UINT64_MAX: the count ends it */
    uint64_t took_ns;
    struct tally reads, written;
};

/* --- latencies --- */

static unsigned bucket_of(uint64_t ns)
{
    ns = MAX(ns, STEPS);
    unsigned power = log2_floor(ns);
    return (power - 3) * STEPS + ((ns >> (power - 3)) & (STEPS - 1));
}

static uint64_t bucket_end(unsigned i)
{
    return ((uint64_t)(STEPS + i % STEPS + 1) << i / STEPS) - 1;
}

static void count(struct tally *t, uint64_t ns)
{
    t->least_ns = t->count == 0 ? ns : MIN(t->least_ns, ns);
    t->most_ns = MAX(t->most_ns, ns);
    t->sum_ns += ns;
    t->buckets[bucket_of(ns)]++;
    t->count++;
}

/* What @share of the requests took at most, in microseconds. */
static double percentile(const struct tally *t, double share)
{
    uint64_t seen = 0, want = (uint64_t)(share * (double)t->count + 0.999999);
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += t->buckets[i];
        if (seen >= want && seen > 0)
            return (double)MIN(bucket_end(i), t->most_ns) / 1e3;
    }
    return (double)t->most_ns / 1e3;
}

/* --- requests --- */

/* splitmix64: any seed will do. */
static uint64_t chance(struct bench *b)
{
    uint64_t z = b->state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t next_offset(struct bench *b)
{
    uint64_t n = b->random ? chance(b) : b->next;
    return b->offset + n % b->places * b->step;
}

static int co_request(struct bench *b, uint8_t *buf)
{
    bool write = b->write && (b->mix == 100 || chance(b) % 100 < b->mix);
    uint64_t offset = next_offset(b), begin = worker_now();
    b->next++;
    int rc = write ? co_blk_write_buf(b->dev, offset, buf, b->bytes, 0)
                   : co_blk_read_buf(b->dev, offset, buf, b->bytes);
    if (rc == 0 && write && b->flush_interval && ++b->writes % b->flush_interval == 0) {
        b->flushes++;
        rc = co_blk_flush(b->dev);
    }
    if (rc < 0)
        return err_errno(&b->task.error, rc, "a request of %" PRIu64 " bytes at byte %" PRIu64,
                         b->bytes, offset);
    count(write ? &b->written : &b->reads, worker_now() - begin);
    return co_job_step(&b->task.job, b->bytes);
}

static int co_lane(void *arg)
{
    struct bench *b = arg;
    uint8_t *buf = buf_get(b->bytes);
    int rc = buf ? 0 : err_set(&b->task.error, -ENOMEM, "out of memory");
    if (buf)
        memset(buf, (int)b->pattern, b->bytes); /* what was read is written as well as anything */
    while (rc == 0 && b->next < b->count && worker_now() < b->until_ns)
        rc = co_request(b, buf);
    if (rc < 0)
        b->count = 0; /* the others stop too */
    if (buf)
        buf_put(buf, b->bytes);
    return rc;
}

static int co_measure(struct bench *b)
{
    struct co_group lanes;
    if (!range_fits(b->offset, b->bytes, b->size))
        return err_set(&b->task.error, -EINVAL,
                       "%s is too small (%" PRIu64 " bytes) for one request at --offset",
                       b->image.text, b->size);
    b->places = (b->size - b->offset - b->bytes) / b->step + 1;
    b->state = b->seed;
    b->task.job.total = b->seconds ? 0 : b->count * b->bytes;
    co_group_init(&lanes, 0);
    uint64_t begin = worker_now();
    b->until_ns = b->seconds ? begin + b->seconds * SECOND : UINT64_MAX;
    for (uint64_t i = 0; i < b->depth; i++)
        co_group_start(&lanes, co_lane, b);
    int rc = co_group_wait(&lanes);
    b->took_ns = worker_now() - begin;
    return rc;
}

/* --- the overlay --- */

/* An empty qcow2 image in the nameless file @path. */
static int co_make_overlay(struct bench *b, struct resolver *r, const char *path,
                           const struct blk_driver *format)
{
    struct blk_error *e = &b->task.error;
    struct opts opts = {0};
    json_auto_t *none = json_object();
    struct blk_create c = {.opts = &opts, .size = align_up(b->size, 512), .fresh = false};
    TRY(co_resolver_open_file(r, path, BLK_OPEN_WRITE, 0, &c.file, e));
    int rc = opts_parse(format->create_options, none, &opts, e);
    if (rc == 0) {
        rc = format->co_create(&c, e);
        opts_drop(&opts);
    }
    return co_image_close(c.file, rc, e);
}

static int co_open_overlay(struct bench *b, struct resolver *r, const char *path)
{
    const struct blk_driver *format = blk_find_driver(blk_drivers, "qcow2");
    struct blk_error *e = &b->task.error;
    json_t *below = NULL;
    TRY(co_make_overlay(b, r, path, format));
    TRY(co_resolver_parse(r, b->image.text, b->image.format, b->image.image_opts, &below, e));
    json_auto_t *tree = json_pack("{s:s, s:{s:s, s:s}, s:o}", "driver", format->name, "file",
                                  "driver", "file", "filename", path, "backing", below);
    if (!tree)
        return err_set(e, -ENOMEM, "out of memory");
    return co_resolver_open_tree(r, tree, BLK_OPEN_WRITE, &b->dev, e);
}

/* Puts an overlay over the image, which was opened to learn its size. */
static int co_cover(struct bench *b)
{
    struct tool *t = b->task.tool;
    struct resolver r;
    struct host_file *keep;
    TRY(co_image_close(take(b->dev), 0, &b->task.error));
    TRY(co_pipe_temporary(t, &keep, &b->task.error));
    auto_free char *path = mem_printf("/proc/self/fd/%d", host_fd(keep));
    int rc = path ? co_tool_resolver(t, TRUST_READ, b->image.cache, &r, &b->task.error)
                  : err_set(&b->task.error, -ENOMEM, "out of memory");
    if (rc == 0) {
        rc = co_open_overlay(b, &r, path);
        resolver_drop(&r);
    }
    co_host_close(keep);
    return rc;
}

static int co_body(struct task *t)
{
    struct bench *b = container_of(t, struct bench, task);
    TRY(co_image_open(t->tool, &b->image, &b->dev, &t->error));
    b->size = b->dev->size;
    int rc = b->write && !b->destroy ? co_cover(b) : 0;
    if (rc == 0)
        rc = co_measure(b);
    return co_image_close(take(b->dev), rc, &t->error);
}

/* --- what is printed --- */

static json_t *tally_json(const struct bench *b, const struct tally *t)
{
    double seconds = (double)b->took_ns / 1e9, n = (double)MAX(t->count, 1u);
    double rate = seconds > 0 ? (double)t->count / seconds : 0;
    return json_pack("{s:I, s:f, s:f, s:{s:f, s:f, s:f, s:f, s:f, s:f, s:f}}", "requests",
                     (json_int_t)t->count, "requests-per-second", rate, "bytes-per-second",
                     rate * (double)b->bytes, "latency-us", "least", (double)t->least_ns / 1e3,
                     "mean", (double)t->sum_ns / n / 1e3, "p50", percentile(t, 0.5), "p90",
                     percentile(t, 0.9), "p99", percentile(t, 0.99), "p99.9", percentile(t, 0.999),
                     "most", (double)t->most_ns / 1e3);
}

static void print_tally(const struct bench *b, const char *name, const struct tally *t)
{
    char rate[32];
    double seconds = (double)b->took_ns / 1e9, n = (double)t->count;
    if (t->count == 0)
        return;
    double a_second = seconds > 0 ? n / seconds : 0;
    output_size((uint64_t)(a_second * (double)b->bytes), rate, sizeof(rate));
    printf("%-7s %" PRIu64 " requests, %.0f a second, %s/s\n", name, t->count, a_second, rate);
    printf("        microseconds: least %.1f, mean %.1f, half %.1f, 90%% %.1f, 99%% %.1f, 99.9%% "
           "%.1f, most %.1f\n",
           (double)t->least_ns / 1e3, (double)t->sum_ns / n / 1e3, percentile(t, 0.5),
           percentile(t, 0.9), percentile(t, 0.99), percentile(t, 0.999), (double)t->most_ns / 1e3);
}

static int print(const struct bench *b)
{
    char size[32];
    if (b->task.tool->output == OUTPUT_JSON)
        return output_json(json_pack(
            "{s:o, s:I, s:I, s:b, s:f, s:I, s:o, s:o}", "filename", output_text(b->image.text),
            "request-bytes", (json_int_t)b->bytes, "depth", (json_int_t)b->depth, "random",
            b->random, "seconds", (double)b->took_ns / 1e9, "flushes", (json_int_t)b->flushes,
            "reads", tally_json(b, &b->reads), "writes", tally_json(b, &b->written)));
    printf("%s: %.3f seconds, requests of %s, %" PRIu64 " at once, %s\n", b->image.text,
           (double)b->took_ns / 1e9, output_size(b->bytes, size, sizeof(size)), b->depth,
           b->random ? "at random" : "in order");
    print_tally(b, "reads", &b->reads);
    print_tally(b, "writes", &b->written);
    if (b->flushes)
        printf("flushes %" PRIu64 "\n", b->flushes);
    return 0;
}

/* --- what is told --- */

static int number_told(struct bench *b, const char *name, const char *value, uint64_t least,
                       uint64_t most, uint64_t *to)
{
    struct blk_error e = {0};
    if (opts_parse_size(value, to, &e) == 0 && *to >= least && *to <= most)
        return 0;
    tool_misuse(b->task.tool, "--%s is a number from %" PRIu64 " to %" PRIu64 ", not '%s'", name,
                least, most, value);
    return ARGS_BAD;
}

static int option(void *verb, int id, const char *value)
{
    struct bench *b = verb;
    const struct {
        int id;
        const char *name;
        uint64_t least, most, *to;
    } numbers[] = {
        {'c', "count", 1, 1ULL << 40, &b->count},
        {ARG_SECONDS, "seconds", 1, 1 << 24, &b->seconds},
        {'d', "depth", 1, DEPTH_MOST, &b->depth},
        {'s', "buffer-size", 1, SIZE_MOST, &b->bytes},
        {'S', "step-size", 1, INT64_MAX, &b->step},
        {'o', "offset", 0, INT64_MAX, &b->offset},
        {ARG_MIX, "mix", 0, 100, &b->mix},
        {ARG_PATTERN, "pattern", 0, 255, &b->pattern},
        {ARG_FLUSH_INTERVAL, "flush-interval", 1, 1ULL << 40, &b->flush_interval},
        {ARG_SEED, "seed", 0, INT64_MAX, &b->seed},
    };
    b->write |= id == ARG_MIX;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (numbers[i].id == id)
            return number_told(b, numbers[i].name, value, numbers[i].least, numbers[i].most,
                               numbers[i].to);
    return 0;
}

static int bench(struct bench *b)
{
    struct tool *t = b->task.tool;
    if (!cache_told(t, "cache", b->image.cache))
        return 1;
    if (!b->write && (b->destroy || b->flush_interval))
        return tool_misuse(t, "--destroy and --flush-interval are for -w and --mix");
    b->step = b->step ? b->step : b->bytes;
    b->count = b->seconds ? UINT64_MAX : b->count;
    b->image.flags = b->destroy ? BLK_OPEN_WRITE : 0;
    b->image.trust = b->destroy ? TRUST_WRITE : TRUST_READ;
    int rc = task_run(&b->task, 0);
    return rc || t->quiet ? rc : print(b);
}

static int run(struct tool *t, int argc, char **argv)
{
    struct bench *b = mem_zalloc(sizeof(*b));
    if (!b)
        return 1;
    b->task = (struct task){.tool = t, .kind = "bench", .co_body = co_body};
    b->count = 75000;
    b->depth = 64;
    b->bytes = 4 * KiB;
    b->mix = 100;
    b->seed = b->pattern = 1;
    const struct arg_place places[] = {
        IMAGE_PLACES(&b->image),        {'t', &b->image.cache, NULL},     {'w', NULL, &b->write},
        {ARG_RANDOM, NULL, &b->random}, {ARG_DESTROY, NULL, &b->destroy}, {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, b};
    int id = image_read(t, &line, &b->image);
    int rc = id == ARGS_END ? bench(b) : id == ARGS_HELP ? 0 : 1;
    mem_free(b);
    return rc;
}

const struct command bench_command = {
    .name = "bench",
    .run = run,
    .usage = "bench [OPTION]... IMAGE",
    .summary = "Time requests to a disk: how many a second, and how long each takes",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "IMAGE is anything that can be opened, an NBD export too. It is only read, unless\n"
             "--destroy says that it may be written over; other writes go into an overlay in a\n"
             "temporary file (in TMPDIR, else /var/tmp) that is gone afterwards.\n"
             "\n"
             "  lamina bench --random --seconds 3 disk.qcow2\n"
             "  lamina bench --random --mix 30 -d 16 -c 2000 disk.qcow2\n"
             "  lamina bench -s 1M -d 8 -c 500 --output json disk.qcow2",
};

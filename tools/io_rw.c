/* SPDX-License-Identifier: BSD-3-Clause */
/* io_rw.c - qemu-io's commands that read, write, zero and discard; those that wait for them and
 * those that do not.
 *
 * A command line becomes a request (parse_*), a coroutine does it (co_request), the main thread
 * prints what it did (finish). aio_read and aio_write start it as a child and go on. */
#include <getopt.h>
#include <time.h>

#include "tools/io.h"

#define MOST_BYTES  2147483136u /* of a request, as QEMU has it */
#define SECTOR      512u
#define MISALIGNED  16
#define READ_FILL   0xab /* what a buffer holds before it is read into */
#define WRITE_FILL  0xcd
#define PATTERN_MAX (16 * MiB) /* of a file with a pattern */

enum kind { READ, WRITE, ZERO, DISCARD };

struct io_request {
    struct io *io;
    enum kind kind;
    const char *failed_word, *done_word;
    uint64_t offset, bytes;
    uint8_t *memory, *buf; /* memory: owned */
    unsigned flags;        /* of the waist */
    bool machine, quiet, dump, check, invalid, vm_state;
    uint8_t pattern;
    uint64_t check_from, check_bytes;   /* what has to hold the pattern */
    const char *from_text, *bytes_text; /* -s and -l, as told */
    const char *source;                 /* a file with what is written */
    int rc;
    double seconds;
    struct io_request *next;
};

/* --- the work --------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Clusters that the image itself does not hold yet come up into it. */
static int co_copy_up(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    uint64_t unit = MAX(dev->limits.cluster_size, 4096u);
    uint64_t end = MIN(align_up(offset + bytes, unit), dev->size);
    struct blk_device *below = blk_child(dev, "backing");
    uint8_t *buf = below && dev->writable ? buf_get(unit) : NULL;
    int rc = 0;
    if (!buf)
        return below && dev->writable ? -ENOMEM : 0;
    for (uint64_t at = align_down(offset, unit); rc == 0 && at < end; at += unit) {
        uint64_t n = MIN(unit, end - at);
        struct blk_extent ext;
        unsigned depth;
        rc = co_blk_map_chain(dev, below, at, n, &ext, &depth);
        if (rc < 0 || ext.flags & BLK_EXT_ALLOCATED)
            continue;
        rc = co_blk_read_buf(dev, at, buf, n);
        if (rc == 0)
            rc = co_blk_write_buf(dev, at, buf, n, 0);
    }
    buf_put(buf, unit);
    return rc;
}

/* What is between the end of an odd disk and that of its last sector reads as zero. */
static int co_read(const struct io_request *r)
{
    struct blk_device *dev = r->io->dev;
    uint64_t inside = r->offset < dev->size ? MIN(r->bytes, dev->size - r->offset) : 0;
    memset(r->buf + inside, 0, r->bytes - inside);
    int rc = inside ? co_blk_read_buf(dev, r->offset, r->buf, inside) : 0;
    return rc == 0 && r->io->how.copy_on_read ? co_copy_up(dev, r->offset, inside) : rc;
}

static int co_act(const struct io_request *r)
{
    struct blk_device *dev = r->io->dev;
    if (r->vm_state)
        return -ENOTSUP;
    if (!range_fits(r->offset, r->bytes, io_size(r->io)))
        return -EIO;
    if (r->bytes == 0)
        return 0;
    switch (r->kind) {
    case READ:
        return co_read(r);
    case WRITE:
        return co_blk_write_buf(dev, r->offset, r->buf, r->bytes, r->flags);
    case ZERO:
        return co_blk_write_zeroes(dev, r->offset, r->bytes, r->flags);
    default:
        return r->io->how.no_discard ? 0 : co_blk_discard(dev, r->offset, r->bytes);
    }
}

static int co_request(void *arg)
{
    struct io_request *r = arg;
    double start = now();
    r->rc = co_act(r);
    r->seconds = now() - start;
    return 0;
}

static bool holds_pattern(const struct io_request *r)
{
    for (uint64_t i = 0; i < r->check_bytes; i++)
        if (r->buf[r->check_from + i] != r->pattern)
            return false;
    return true;
}

/* Says what it did. 0, or -errno: it failed, or what was read is not the pattern. */
static int finish(struct io_request *r)
{
    if (r->rc < 0) {
        printf("%s failed: %s\n", r->failed_word, strerror(-r->rc));
        return r->rc;
    }
    int rc = r->check && !holds_pattern(r) ? -EINVAL : 0;
    if (rc < 0)
        printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
               r->offset + r->check_from, r->check_bytes);
    if (r->quiet)
        return rc;
    if (r->dump)
        io_print_dump(r->buf, r->offset, r->bytes);
    io_print_report(&(struct io_report){.word = r->done_word,
                                        .offset = r->offset,
                                        .wanted = r->bytes,
                                        .bytes = r->bytes,
                                        .seconds = r->seconds,
                                        .machine = r->machine});
    return rc;
}

/* --- beside ----------------------------------------------------------------------------------- */

static int co_beside(void *arg)
{
    struct io_request *r = arg;
    (void)!co_request(r);
    r->next = r->io->done;
    r->io->done = r;
    return 0;
}

static int co_start_beside(void *arg)
{
    struct io_request *r = arg;
    co_group_start(&r->io->aio, co_beside, r);
    return 0;
}

static int co_wait(void *arg)
{
    struct io *io = arg;
    return co_group_wait(&io->aio);
}

void io_aio_print(struct io *io)
{
    struct io_request *in_order = NULL, *r;
    while ((r = io->done)) {
        io->done = r->next;
        r->next = in_order;
        in_order = r;
    }
    while ((r = in_order)) {
        in_order = r->next;
        (void)!finish(r);
        mem_free(r->memory);
        mem_free(r);
    }
}

void io_aio_wait(struct io *io)
{
    (void)!io_work(io, co_wait, io);
}

/* --- what is told ----------------------------------------------------------------------------- */

static bool pattern_told(const char *text, uint8_t *out)
{
    char *end;
    long n = strtol(text, &end, 0);
    if (end == text || *end || n < 0 || n > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return false;
    }
    *out = (uint8_t)n;
    return true;
}

/* 0, ARGS_BAD after a message, or 1: there is no such option. */
static int common_option(struct io_request *r, int id)
{
    switch (id) {
    case 'C':
        r->machine = true;
        return 0;
    case 'q':
        r->quiet = true;
        return 0;
    case 'v':
        r->dump = true;
        return 0;
    case 'i':
        r->invalid = true;
        return 0;
    case 'b':
        r->vm_state = true;
        return 0;
    case 'p':
        return 0;
    case 's':
        r->from_text = optarg;
        return 0;
    case 'l':
        r->bytes_text = optarg;
        return 0;
    case 'P':
        r->check = true;
        return pattern_told(optarg, &r->pattern) ? 0 : ARGS_BAD;
    case 'f':
        r->flags |= BLK_FUA;
        return 0;
    case 'c':
        r->flags |= BLK_COMPRESSED;
        return 0;
    case 'u':
        r->flags |= BLK_MAY_UNMAP;
        return 0;
    case 'n':
        r->flags |= BLK_NO_FALLBACK;
        return 0;
    case 'z':
        r->kind = ZERO;
        return 0;
    default:
        return 1;
    }
}

/* The options, of @letters. */
static int parse_options(struct io_request *r, int argc, char **argv, const char *letters)
{
    int id, rc = 0;
    optind = 0;
    opterr = 1;
    while (rc == 0 && (id = getopt(argc, argv, letters)) != -1)
        rc = common_option(r, id);
    return rc == 1 ? io_misuse(io_find(argv[0])) : rc;
}

static int say(const char *sentence)
{
    puts(sentence);
    return -EINVAL;
}

/* A request of aio's, readv or writev: an offset and lengths, which together are one request. */
static int parse_lengths(struct io_request *r, int argc, char **argv)
{
    if (optind > argc - 2)
        return io_misuse(io_find(argv[0]));
    if (!io_number(argv[optind++], &r->offset))
        return -EINVAL;
    for (; optind < argc; optind++) {
        uint64_t n;
        if (!io_number(argv[optind], &n))
            return -EINVAL;
        if (n > MOST_BYTES) {
            printf("Argument '%s' exceeds maximum size %u\n", argv[optind], MOST_BYTES);
            return -EINVAL;
        }
        r->bytes += n;
        if (r->bytes > MOST_BYTES) {
            printf("The total number of bytes exceed the maximum size %u\n", MOST_BYTES);
            return -EINVAL;
        }
    }
    r->check_bytes = r->bytes;
    return 0;
}

/* An offset and one length. */
static int parse_range(struct io_request *r, int argc, char **argv)
{
    bool large = r->kind == ZERO && r->flags & BLK_NO_FALLBACK;
    if (optind != argc - 2)
        return io_misuse(io_find(argv[0]));
    if (!io_number(argv[optind], &r->offset) || !io_number(argv[optind + 1], &r->bytes))
        return -EINVAL;
    if (r->bytes > MOST_BYTES && !large) {
        printf("length cannot exceed %u%s, given %s\n", MOST_BYTES,
               r->kind == WRITE || r->kind == ZERO ? " without -n" : "", argv[optind + 1]);
        return -EINVAL;
    }
    if (!r->vm_state && !(r->flags & BLK_COMPRESSED))
        return 0;
    const char *odd = r->offset % SECTOR ? "offset" : r->bytes % SECTOR ? "count" : NULL;
    if (!odd)
        return 0;
    printf("%" PRIu64 " is not a sector-aligned value for '%s'\n",
           r->offset % SECTOR ? r->offset : r->bytes, odd);
    return -EINVAL;
}

/* --- buffers ---------------------------------------------------------------------------------- */

static int make_buffer(struct io_request *r, uint8_t fill)
{
    if (r->kind == ZERO || r->kind == DISCARD)
        return 0;
    void *memory;
    uint64_t room = r->bytes + MISALIGNED;
    if (posix_memalign(&memory, 4096, room) != 0) {
        puts(strerror(ENOMEM));
        return -ENOMEM;
    }
    r->memory = memory;
    r->buf = r->memory + (r->io->misalign ? MISALIGNED : 0);
    memset(r->buf, fill, r->bytes);
    return 0;
}

/* The file's bytes again and again. */
static int fill_from_file(struct io_request *r)
{
    FILE *f = fopen(r->source, "r");
    if (!f) {
        fprintf(stderr, "%s: %s\n", r->source, strerror(errno));
        return -EINVAL;
    }
    size_t got = fread(r->buf, 1, MIN(r->bytes, PATTERN_MAX), f);
    fclose(f);
    if (got == 0) {
        fprintf(stderr, "%s: file is empty\n", r->source);
        return -EINVAL;
    }
    for (uint64_t at = got; at < r->bytes; at += got)
        memcpy(r->buf + at, r->buf, MIN(got, r->bytes - at));
    return 0;
}

static int run_now(struct io_request *r, uint8_t fill)
{
    int rc = make_buffer(r, fill);
    if (rc == 0 && r->source)
        rc = fill_from_file(r);
    if (rc == 0) {
        (void)!io_work(r->io, co_request, r);
        rc = finish(r);
    }
    mem_free(r->memory);
    return rc;
}

static int run_beside(const struct io_request *told, uint8_t fill)
{
    struct io_request *r = mem_zalloc(sizeof(*r));
    if (!r)
        return say(strerror(ENOMEM));
    *r = *told;
    int rc = make_buffer(r, fill);
    if (rc < 0) {
        mem_free(r);
        return rc;
    }
    return io_work(r->io, co_start_beside, r);
}

/* --- commands --------------------------------------------------------------------------------- */

static int cmd_read(struct io *io, int argc, char **argv)
{
    struct io_request r = {.io = io, .kind = READ, .failed_word = "read", .done_word = "read"};
    int rc = parse_options(&r, argc, argv, "bCl:pP:qs:v");
    const char *from = r.from_text, *bytes = r.bytes_text;
    if (rc < 0 || (from && !io_number(from, &r.check_from)) ||
        (bytes && !io_number(bytes, &r.check_bytes)))
        return -EINVAL;
    rc = parse_range(&r, argc, argv);
    if (rc < 0)
        return rc;
    if (!r.check && (from || bytes))
        return io_misuse(io_find(argv[0]));
    if (!bytes)
        r.check_bytes = r.bytes - MIN(r.bytes, r.check_from);
    if (!range_fits(r.check_from, r.check_bytes, r.bytes))
        return say("pattern verification range exceeds end of read data");
    return run_now(&r, READ_FILL);
}

static int cmd_readv(struct io *io, int argc, char **argv)
{
    struct io_request r = {.io = io, .kind = READ, .failed_word = "readv", .done_word = "read"};
    int rc = parse_options(&r, argc, argv, "CP:qv");
    if (rc == 0)
        rc = parse_lengths(&r, argc, argv);
    return rc < 0 ? rc : run_now(&r, READ_FILL);
}

/* The first rule that what was told breaks, or NULL. */
static const char *contradiction(const struct io_request *r)
{
    bool zero = r->kind == ZERO, fua = r->flags & BLK_FUA, packed = r->flags & BLK_COMPRESSED;
    const struct {
        bool broken;
        const char *sentence;
    } rules[] = {
        {r->vm_state && zero, "-b and -z cannot be specified at the same time"},
        {fua && (r->vm_state || packed), "-f and -b or -c cannot be specified at the same time"},
        {(r->flags & BLK_NO_FALLBACK) && !zero, "-n requires -z to be specified"},
        {(r->flags & BLK_MAY_UNMAP) && !zero, "-u requires -z to be specified"},
        {zero + r->check + (r->source != NULL) > 1,
         "Only one of -z, -P, and -s can be specified at the same time"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return rules[i].sentence;
    return NULL;
}

/* What is written, where -P does not say it. */
static uint8_t fill_of(struct io_request *r)
{
    uint8_t fill = r->check ? r->pattern : WRITE_FILL;
    r->check = false;
    return fill;
}

static int cmd_write(struct io *io, int argc, char **argv)
{
    struct io_request r = {.io = io, .kind = WRITE, .failed_word = "write", .done_word = "wrote"};
    int rc = parse_options(&r, argc, argv, "bcCfnpP:qs:uz");
    r.source = r.from_text;
    if (rc == 0 && optind != argc - 2)
        return io_misuse(io_find(argv[0]));
    const char *sentence = contradiction(&r);
    if (rc == 0 && sentence)
        return say(sentence);
    if (rc == 0)
        rc = parse_range(&r, argc, argv);
    return rc < 0 ? rc : run_now(&r, fill_of(&r));
}

static int cmd_writev(struct io *io, int argc, char **argv)
{
    struct io_request r = {.io = io, .kind = WRITE, .failed_word = "writev", .done_word = "wrote"};
    int rc = parse_options(&r, argc, argv, "CfqP:");
    if (rc == 0)
        rc = parse_lengths(&r, argc, argv);
    return rc < 0 ? rc : run_now(&r, fill_of(&r));
}

static int cmd_discard(struct io *io, int argc, char **argv)
{
    struct io_request r = {
        .io = io, .kind = DISCARD, .failed_word = "discard", .done_word = "discard"};
    int rc = parse_options(&r, argc, argv, "Cq");
    if (rc == 0)
        rc = parse_range(&r, argc, argv);
    return rc < 0 ? rc : run_now(&r, 0);
}

static int cmd_aio_read(struct io *io, int argc, char **argv)
{
    struct io_request r = {.io = io, .kind = READ, .failed_word = "readv", .done_word = "read"};
    int rc = parse_options(&r, argc, argv, "CP:iqv");
    if (rc == 0 && r.invalid)
        puts("injecting invalid read request");
    if (rc < 0 || r.invalid)
        return rc;
    rc = parse_lengths(&r, argc, argv);
    return rc < 0 ? rc : run_beside(&r, READ_FILL);
}

static int cmd_aio_write(struct io *io, int argc, char **argv)
{
    struct io_request r = {
        .io = io, .kind = WRITE, .failed_word = "aio_write", .done_word = "wrote"};
    int rc = parse_options(&r, argc, argv, "CfiP:quz");
    if (rc < 0)
        return rc;
    if (optind > argc - 2)
        return io_misuse(io_find(argv[0]));
    if (r.kind == ZERO && optind != argc - 2)
        return say("-z supports only a single length parameter");
    if ((r.flags & BLK_MAY_UNMAP) && r.kind != ZERO)
        return say("-u requires -z to be specified");
    if (r.kind == ZERO && r.check)
        return say("-z and -P cannot be specified at the same time");
    if (r.invalid) {
        puts("injecting invalid write request");
        return 0;
    }
    rc = parse_lengths(&r, argc, argv);
    return rc < 0 ? rc : run_beside(&r, fill_of(&r));
}

static int cmd_aio_flush(struct io *io, int argc, char **argv)
{
    io_aio_wait(io);
    return 0;
}

static int co_flush(void *arg)
{
    const struct io *io = arg;
    return co_blk_flush(io->dev);
}

static int cmd_flush(struct io *io, int argc, char **argv)
{
    return io_work(io, co_flush, io);
}

#define PATTERN_NOTE "-P BYTE: what was read must be nothing else.\n"
#define COMMON_NOTES "-C: one line for programs. -q: say nothing of how fast it was.\n"

const struct io_command io_rw_commands[] = {
    {"read", "r", cmd_read, 2, -1, 0, "[-abCqv] [-P pattern [-s off] [-l len]] off len",
     "reads a number of bytes at a specified offset",
     PATTERN_NOTE
     "-s, -l: only of LEN bytes from OFF on of what was read. -v: dump it.\n" COMMON_NOTES},
    {"readv", NULL, cmd_readv, 2, -1, 0, "[-Cqv] [-P pattern] off len [len..]",
     "reads a number of bytes at a specified offset",
     PATTERN_NOTE "-v: dump what was read.\n" COMMON_NOTES},
    {"write", "w", cmd_write, 2, -1, IO_WRITES, "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "writes a number of bytes at a specified offset",
     "-P BYTE, -s FILE: what is written (0xcd). -z: zeroes; -u: space may be given back; -n: only "
     "if that\nis fast. -c: compressed. -f: durable when it returns.\n" COMMON_NOTES},
    {"writev", NULL, cmd_writev, 2, -1, IO_WRITES, "[-Cfq] [-P pattern] off len [len..]",
     "writes a number of bytes at a specified offset",
     "-P BYTE: what is written (0xcd). -f: durable when it returns.\n" COMMON_NOTES},
    {"aio_read", NULL, cmd_aio_read, 2, -1, 0, "[-Ciqv] [-P pattern] off len [len..]",
     "asynchronously reads a number of bytes",
     "As readv, but the next command does not wait for it: aio_flush does.\n"},
    {"aio_write", NULL, cmd_aio_write, 2, -1, IO_WRITES, "[-Cfiquz] [-P pattern] off len [len..]",
     "asynchronously writes a number of bytes",
     "As writev (-z -u: as write), but the next command does not wait for it: aio_flush does.\n"},
    {"aio_flush", NULL, cmd_aio_flush, 0, 0, 0, NULL, "completes all outstanding aio requests",
     NULL},
    {"flush", "f", cmd_flush, 0, 0, 0, NULL, "flush all in-core file state to disk", NULL},
    {"discard", "d", cmd_discard, 2, -1, IO_WRITES, "[-Cq] off len",
     "discards a number of bytes at a specified offset", COMMON_NOTES},
    {0},
};

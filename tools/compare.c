/* SPDX-License-Identifier: BSD-3-Clause */
/* compare.c - do two images show a guest the same bytes?
 *
 * One coroutine walks the status of both; what both know to be zero, or to lie at the same place of
 * the same file, is not read. The rest is read in pieces, several in flight, and the first byte
 * that differs is told: pieces are started in order, so the least offset found is the first.
 *
 * Exit status: 0 the same, 1 different, 2 cannot open, 3 cannot read status, 4 cannot read. */
#include "tools/image.h"
#include "tools/progress.h"

enum { ARG_IMAGE_OPTS = ARG_LONG };
enum { EXIT_DIFFER = 1, EXIT_OPEN = 2, EXIT_STATUS = 3, EXIT_READ = 4 };

#define PIECE_BYTES (1 * MiB)
#define IN_FLIGHT   8
#define SECTOR      512

static const struct arg_desc options[] = {
    {'f', "a-format", "FORMAT", "the first image's format (else it is found out)", 0, false},
    {'F', "b-format", "FORMAT", "the second image's format", 0, false},
    {'T', "cache", "MODE", "none, writeback, writethrough, directsync or unsafe", 0, false},
    {'s', "strict", NULL, "size and allocation must be the same, too", 0, false},
    {ARG_IMAGE_OPTS, "image-opts", NULL, "the images are driver=...,key=value or json:{...}", 0,
     false},
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

struct compare;
struct piece {
    struct compare *c;
    uint64_t offset, bytes;
    bool zero[2]; /* that side reads zero there */
    bool busy;
};

struct compare {
    struct tool *tool;
    struct image image[2];
    bool strict;
    struct blk_device *dev[2];
    uint64_t common, all; /* the smaller and the larger size */
    struct job job;
    struct progress progress;
    struct co_group group;
    struct piece pieces[IN_FLIGHT + 1];
    uint64_t differs;    /* least offset found; UINT64_MAX: none */
    bool status_differs; /* --strict */
    int exit;            /* of an error */
    struct blk_error error;
};

/* --- pieces
 * ---------------------------------------------------------------------------------------- */

static void found(struct compare *c, uint64_t offset)
{
    c->differs = MIN(c->differs, align_down(offset, SECTOR));
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    uint64_t at = 0;
    while (bytes - at > SECTOR && memcmp(a + at, b + at, SECTOR) == 0)
        at += SECTOR;
    return at;
}

static int co_load(struct compare *c, unsigned side, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    int rc = co_blk_read_buf(c->dev[side], offset, to, bytes);
    if (rc < 0 && c->exit == 0) {
        c->exit = EXIT_READ;
        err_errno(&c->error, rc, "Error while reading offset %" PRIu64 " of %s", offset,
                  c->image[side].text);
        image_failed(c->tool, c->dev[side], rc, &c->error);
    }
    return rc;
}

static int co_compare_piece(struct compare *c, struct piece *p, uint8_t *a, uint8_t *b)
{
    for (unsigned side = 0; side < 2; side++) {
        uint8_t *to = side ? b : a;
        if (p->zero[side])
            memset(to, 0, p->bytes);
        else
            TRY(co_load(c, side, p->offset, to, p->bytes));
    }
    if (memcmp(a, b, p->bytes) != 0)
        found(c, p->offset + first_difference(a, b, p->bytes));
    return 0;
}

static int co_piece(void *arg)
{
    struct piece *p = arg;
    struct compare *c = p->c;
    uint8_t *a = buf_get(PIECE_BYTES), *b = buf_get(PIECE_BYTES);
    int rc = a && b ? co_compare_piece(c, p, a, b) : -ENOMEM;
    if (a)
        buf_put(a, PIECE_BYTES);
    if (b)
        buf_put(b, PIECE_BYTES);
    if (rc == -ENOMEM && c->exit == 0) {
        c->exit = EXIT_READ;
        err_set(&c->error, rc, "out of memory");
    }
    if (rc == 0)
        rc = co_job_step(&c->job, p->bytes);
    p->busy = false;
    return rc;
}

static void start(struct compare *c, uint64_t offset, uint64_t bytes, const bool zero[2])
{
    struct piece *p = c->pieces;
    while (p->busy)
        p++;
    assert(p < c->pieces + ARRAY_LEN(c->pieces));
    *p = (struct piece){
        .c = c, .offset = offset, .bytes = bytes, .zero = {zero[0], zero[1]}, .busy = true};
    co_group_start(&c->group, co_piece, p);
}

/* --- the walk
 * --------------------------------------------------------------------------------------- */

static int co_status(struct compare *c, unsigned side, uint64_t at, uint64_t bytes,
                     struct blk_extent *ext)
{
    unsigned depth;
    if (at >= c->dev[side]->size) { /* behind the end of the smaller one */
        *ext = (struct blk_extent){.flags = BLK_EXT_ZERO, .bytes = bytes};
        return 0;
    }
    bytes = MIN(bytes, c->dev[side]->size - at);
    int rc = co_blk_map_chain(c->dev[side], NULL, at, bytes, ext, &depth);
    if (rc < 0 && c->exit == 0) {
        c->exit = EXIT_STATUS;
        err_errno(&c->error, rc, "Sector allocation test failed at offset %" PRIu64, at);
        image_failed(c->tool, c->dev[side], rc, &c->error);
    }
    return rc;
}

/* Both sides' bytes are the very same bytes of one file. */
static bool same_place(struct compare *c, uint64_t at, uint64_t bytes)
{
    struct blk_place a, b;
    if (at >= c->common || !blk_resolve(c->dev[0], at, bytes, false, &a) ||
        !blk_resolve(c->dev[1], at, bytes, false, &b))
        return false;
    return a.bytes == bytes && b.bytes == bytes && a.offset == b.offset &&
           a.file->stat.device == b.file->stat.device && a.file->stat.inode == b.file->stat.inode;
}

static void pass(struct compare *c, uint64_t bytes)
{
    c->job.done += bytes;
    progress_update(&c->progress, &c->job);
}

static void give(struct compare *c, uint64_t at, uint64_t bytes, const bool zero[2])
{
    if ((zero[0] && zero[1]) || same_place(c, at, bytes)) {
        pass(c, bytes);
        return;
    }
    while (bytes > 0 && c->differs == UINT64_MAX && !co_group_failed(&c->group)) {
        uint64_t n = MIN(bytes, PIECE_BYTES - at % PIECE_BYTES);
        start(c, at, n, zero);
        at += n;
        bytes -= n;
    }
}

static int co_walk(struct compare *c)
{
    const unsigned told = BLK_EXT_DATA | BLK_EXT_ZERO | BLK_EXT_ALLOCATED;
    for (uint64_t at = 0; at < c->all && c->differs == UINT64_MAX && !co_group_failed(&c->group);) {
        struct blk_extent a, b;
        uint64_t left = (at < c->common ? c->common : c->all) - at;
        TRY(co_status(c, 0, at, left, &a));
        TRY(co_status(c, 1, at, left, &b));
        uint64_t bytes = MIN(a.bytes, b.bytes);
        if (at == c->common) { /* all that both have is the same */
            int rc = co_group_wait(&c->group);
            if (rc < 0 || c->differs != UINT64_MAX)
                return rc;
            if (!c->tool->quiet)
                puts("Warning: Image size mismatch!");
        }
        if (c->strict && (a.flags & told) != (b.flags & told)) {
            c->status_differs = true;
            c->differs = at;
            return 0;
        }
        const bool zero[2] = {(a.flags & BLK_EXT_ZERO) != 0, (b.flags & BLK_EXT_ZERO) != 0};
        give(c, at, bytes, zero);
        at += bytes;
    }
    return 0;
}

static int co_compare(struct job *j, struct blk_error *e)
{
    struct compare *c = j->arg;
    co_group_init(&c->group, IN_FLIGHT);
    int rc = co_walk(c);
    int done = co_group_wait(&c->group);
    rc = rc < 0 ? rc : done;
    if (rc < 0 && e)
        *e = c->error;
    return rc;
}

static void on_event(struct job *j)
{
    struct compare *c = j->arg;
    progress_update(&c->progress, j);
}

static int co_both(struct compare *c)
{
    uint64_t a = c->dev[0]->size, b = c->dev[1]->size;
    c->common = MIN(a, b);
    c->all = MAX(a, b);
    if (a != b && c->strict) {
        if (!c->tool->quiet)
            puts("Strict mode: Image size mismatch!");
        c->exit = EXIT_DIFFER;
        return 0;
    }
    job_init(&c->job, "compare", co_compare, c);
    c->job.on_event = on_event;
    c->job.total = c->all;
    int rc = co_job_run(&c->job);
    progress_end(&c->progress, &c->job, rc == 0);
    return rc;
}

static int co_run(void *arg)
{
    struct compare *c = arg;
    int rc = 0;
    c->exit = 0;
    for (unsigned side = 0; rc == 0 && side < 2; side++)
        rc = co_image_open(c->tool, &c->image[side], &c->dev[side], &c->error);
    if (rc < 0)
        c->exit = EXIT_OPEN;
    else
        rc = co_both(c);
    for (unsigned side = 0; side < 2; side++)
        co_image_close(c->dev[side], rc, NULL); /* nothing was written: nothing can be lost */
    return rc;
}

/* --- what is told -------------------------------------------------------------------------------
 */

static int option(void *verb, int id, const char *value)
{
    struct compare *c = verb;
    if (id == ARG_IMAGE_OPTS) {
        c->image[0].image_opts = c->image[1].image_opts = true;
        return 0;
    }
    c->image[0].cache = c->image[1].cache = value;
    return cache_told(c->tool, "source cache", value) ? 0 : ARGS_BAD;
}

static int parse(struct compare *c, int argc, char **argv)
{
    const struct arg_place places[] = {{'f', &c->image[0].format, NULL},
                                       {'F', &c->image[1].format, NULL},
                                       {'s', NULL, &c->strict},
                                       {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, c};
    int id = args_read(c->tool, &line);
    if (id != ARGS_END)
        return id;
    if (line.argc != 2) {
        tool_misuse(c->tool, "Expecting two image file names");
        return ARGS_BAD;
    }
    c->image[0].text = line.argv[0];
    c->image[1].text = line.argv[1];
    return ARGS_END;
}

static int result(const struct compare *c, int rc)
{
    bool quiet = c->tool->quiet;
    if (c->exit == EXIT_DIFFER)
        return EXIT_DIFFER;
    /* A difference found before a later piece failed is still one. */
    if (c->differs != UINT64_MAX) {
        if (!quiet && c->status_differs)
            printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", c->differs);
        else if (!quiet)
            printf("Content mismatch at offset %" PRIu64 "!\n", c->differs);
        return EXIT_DIFFER;
    }
    if (rc < 0) {
        tool_failed(c->tool, &c->error);
        return c->exit ? c->exit : EXIT_OPEN;
    }
    if (!quiet)
        puts("Images are identical.");
    return 0;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct compare *c = mem_zalloc(sizeof(*c));
    if (!c)
        return EXIT_OPEN;
    c->tool = t;
    c->differs = UINT64_MAX;
    c->image[0].trust = c->image[1].trust = TRUST_READ;
    int id = parse(c, argc, argv);
    progress_init(&c->progress, t);
    int rc = id == ARGS_HELP ? 0 : 1;
    if (id == ARGS_END)
        rc = result(c, tool_run(t, 0, co_run, c));
    mem_free(c);
    return rc;
}

const struct command compare_command = {
    .name = "compare",
    .run = run,
    .usage = "compare [OPTION]... IMAGE IMAGE",
    .summary = "Say whether two images show a guest the same bytes",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes =
        "Where one image is shorter, it counts as zero. Exit status: 0 the same, 1 different,\n"
        "2 an image cannot be opened, 3 its status or 4 its data cannot be read.\n"
        "\n"
        "  lamina compare disk.qcow2 disk.img",
};

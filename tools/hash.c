/* SPDX-License-Identifier: BSD-3-Clause */
/* hash.c - hash: one number for what a disk holds. */
#include "tools/hash.h"
#include "tools/output.h"
#include "tools/task.h"

enum { ARG_EXPECT = ARG_LONG };

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {'a', "algorithm", "NAME", "sha256 (the default), blkhash or sumhash", 0, false},
    {ARG_EXPECT, "expect", "VALUE", "fail unless the hash is VALUE", 0, false},
    {'T', "cache", "MODE", "none, writeback (the default), writethrough, directsync, unsafe", 0,
     false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

struct hash {
    struct task task;
    struct image image;
    struct hash_told told;
    uint64_t size;
    char text[HASH_TEXT];
};

static int co_body(struct task *t)
{
    struct hash *h = container_of(t, struct hash, task);
    struct blk_device *dev;
    TRY(co_image_open(t->tool, &h->image, &dev, &t->error));
    h->size = t->job.total = dev->size;
    int rc = co_hash_disk(dev, dev->size, h->told.kind, &t->job, h->text, &t->error);
    if (rc == 0)
        rc = hash_compare(&h->told, h->text, h->image.text, &t->error);
    return co_image_end(t->tool, dev, rc, &t->error);
}

static int print(const struct hash *h)
{
    const struct tool *t = h->task.tool;
    if (t->output == OUTPUT_JSON)
        return output_json(json_pack("{s:o, s:s, s:s, s:I}", "filename", output_text(h->image.text),
                                     "algorithm", hash_name(h->told.kind), "hash", h->text,
                                     "virtual-size", (json_int_t)h->size));
    if (!t->quiet)
        printf("%s  %s\n", h->text, h->image.text);
    return 0;
}

static int option(void *verb, int id, const char *value)
{
    struct hash *h = verb;
    if (id == ARG_EXPECT)
        return hash_expect_told(h->task.tool, value, &h->told);
    return hash_kind_told(h->task.tool, value, &h->told);
}

static int run(struct tool *t, int argc, char **argv)
{
    struct hash h = {.task = {.tool = t, .kind = "hash", .co_body = co_body},
                     .image = {.trust = TRUST_READ},
                     .told = {.kind = HASH_SHA256}};
    const struct arg_place places[] = {
        IMAGE_PLACES(&h.image), {'T', &h.image.cache, NULL}, {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, &h};
    int id = image_read(t, &line, &h.image);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (!cache_told(t, "cache", h.image.cache))
        return 1;
    int rc = task_run(&h.task, 0);
    return rc ? rc : print(&h);
}

const struct command hash_command = {
    .name = "hash",
    .run = run,
    .usage = "hash [OPTION]... IMAGE",
    .summary = "Print a hash of what a disk holds",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "The same contents have the same hash in every format. sha256 is what sha256sum says "
             "of a raw\ncopy. blkhash is the hash of the program blksum (SHA-256 of the hashes of "
             "64 KiB blocks and the\nlength): all cores work on it, and zeroes cost nearly "
             "nothing. sumhash is the one that "
             "`lamina send` and `lamina receive` name disks by.\n"
             "\n"
             "  lamina hash disk.qcow2\n"
             "  lamina hash -a blkhash --output json disk.qcow2",
};

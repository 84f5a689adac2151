/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_create.c - `lamina pool create`: the metadata of a new, empty pool. Files that are not there
 * are made where their size is told. */
#include "tools/occupied.h"
#include "tools/pool.h"

enum { ARG_BLOCK_SIZE = ARG_LONG, ARG_METADATA_SIZE, ARG_DATA_SIZE, ARG_FORCE };

static const struct arg_desc options[] = {
    {ARG_BLOCK_SIZE, "block-size", "SIZE", "size of the data blocks: 64K (the default) to 1G", 0,
     false},
    {ARG_METADATA_SIZE, "metadata-size", "SIZE", "make METADATA, of this size", 0, false},
    {ARG_DATA_SIZE, "data-size", "SIZE", "make DATA, of this size", 0, false},
    {ARG_FORCE, "force", NULL, "write over what is there: file systems, partitions, another pool",
     0, false},
    {'f', "format", "FORMAT", "what METADATA and DATA are in (else it is found out)", 0, false},
    ARG_QUIET,
    ARG_END};

struct create {
    struct task task;
    const char *names[2]; /* metadata, data */
    const char *format, *block_text, *size_texts[2];
    uint64_t block_bytes, sizes[2]; /* 0: the file is there */
    bool force;
    uint64_t blocks; /* of data, in the end */
};

static int co_open_one(struct create *c, unsigned i, struct blk_device **dev)
{
    struct tool *t = c->task.tool;
    struct blk_error *e = &c->task.error;
    struct image image = {
        .text = c->names[i], .format = c->format, .flags = BLK_OPEN_WRITE, .trust = TRUST_WRITE};
    struct resolver r;
    if (!c->sizes[i])
        return co_image_open(t, &image, dev, e);
    TRY(co_tool_resolver(t, TRUST_WRITE, NULL, &r, e));
    int rc = co_resolver_open_file(&r, c->names[i], BLK_OPEN_WRITE, HOST_CREATE | HOST_EXCLUSIVE,
                                   dev, e);
    resolver_drop(&r);
    TRY(rc);
    rc = co_blk_resize(*dev, c->sizes[i], false, e);
    return rc < 0 ? co_image_close(*dev, rc, e) : 0;
}

/* Also what nobody knows: a pool's metadata begin with zeroes. */
static int co_check_empty(struct create *c, struct blk_device *meta)
{
    size_t bytes = (size_t)MIN(meta->size, THIN_BLOCK);
    uint8_t *buf = buf_get(THIN_BLOCK);
    int rc = buf ? co_blk_read_buf(meta, 0, buf, bytes) : -ENOMEM;
    bool empty = rc == 0 && mem_is_zero(buf, bytes);
    buf_put(buf, THIN_BLOCK);
    if (rc < 0)
        return err_errno(&c->task.error, rc, "%s cannot be read", c->names[0]);
    return empty ? 0
                 : err_set(&c->task.error, -EEXIST, "%s is not empty: --force writes over it",
                           c->names[0]);
}

static int co_check_unused(struct create *c, struct blk_device *meta, struct blk_device *data)
{
    if (c->force)
        return 0;
    TRY(co_refuse_occupied(c->task.tool, meta, "--force", &c->task.error));
    TRY(co_refuse_occupied(c->task.tool, data, "--force", &c->task.error));
    return co_check_empty(c, meta);
}

static int co_body(struct task *t)
{
    struct create *c = container_of(t, struct create, task);
    struct blk_device *meta, *data;
    TRY(co_open_one(c, 0, &meta));
    int rc = co_open_one(c, 1, &data);
    if (rc == 0) {
        c->blocks = data->size / c->block_bytes;
        rc = co_check_unused(c, meta, data);
        if (rc == 0)
            rc = co_thin_format(meta, c->block_bytes, c->blocks, &t->error);
        rc = co_image_close(data, rc, &t->error);
    }
    return co_image_close(meta, rc, &t->error);
}

static bool sizes_told(struct create *c)
{
    struct tool *t = c->task.tool;
    static const char *const what[] = {"metadata size", "data size"};
    c->block_bytes = 64 * KiB;
    if (c->block_text && !size_told(t, "block size", c->block_text, &c->block_bytes))
        return false;
    for (unsigned i = 0; i < 2; i++)
        if (c->size_texts[i] && !size_told(t, what[i], c->size_texts[i], &c->sizes[i]))
            return false;
    if (c->block_bytes < THIN_CHUNK_LEAST || c->block_bytes > THIN_CHUNK_MOST ||
        c->block_bytes % THIN_CHUNK_LEAST) {
        tool_misuse(t, "data blocks are 64 KiB to 1 GiB, in steps of 64 KiB");
        return false;
    }
    return true;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct create c = {.task = {.tool = t, .kind = "pool create", .co_body = co_body}};
    const struct arg_place places[] = {{'f', &c.format, NULL},
                                       {ARG_BLOCK_SIZE, &c.block_text, NULL},
                                       {ARG_METADATA_SIZE, &c.size_texts[0], NULL},
                                       {ARG_DATA_SIZE, &c.size_texts[1], NULL},
                                       {ARG_FORCE, NULL, &c.force},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &c};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc != 2)
        return tool_misuse(t, "expecting the metadata device and the data device");
    c.names[0] = line.argv[0];
    c.names[1] = line.argv[1];
    if (!sizes_told(&c))
        return 1;
    int rc = task_run(&c.task, 1);
    if (rc == 0 && !t->quiet)
        printf("A pool of %" PRIu64 " blocks; `lamina pool new thin:%s,%s 1` makes a volume in "
               "it.\n",
               c.blocks, c.names[0], c.names[1]);
    return rc;
}

const struct command pool_create_command = {
    .name = "pool create",
    .run = run,
    .usage = "pool create [OPTION]... METADATA DATA",
    .summary = "Make the metadata of a new pool over a data device",
    .faces = FACE_LAMINA,
    .options = options,
    .notes =
        "METADATA and DATA are images of any format. `lamina pool metadata-size` says how large\n"
        "the first should be.\n"
        "\n"
        "  lamina pool create --metadata-size 4M --data-size 100G meta.img data.img\n"
        "  lamina pool create --block-size 256K meta.qcow2 md:a.img,b.img",
};

/* --- metadata-size ----------------------------------------------------------------------------
 */

enum { ARG_BLOCK = 'b', ARG_POOL = 's', ARG_THINS = 'm' };

static const struct arg_desc size_options[] = {
    {ARG_BLOCK, "block-size", "SIZE", "size of the data blocks", 0, false},
    {ARG_POOL, "pool-size", "SIZE", "size of the data device", 0, false},
    {ARG_THINS, "max-thins", "NUMBER", "how many volumes and snapshots there may be", 0, false},
    ARG_END};

/* A leaf for every 126 blocks (half full), a root for each volume, the superblock:
 * thin_metadata_size estimates so. */
static uint64_t metadata_bytes(uint64_t chunk, uint64_t pool, uint64_t thins)
{
    return (1 + pool / chunk / 126 + thins) * THIN_BLOCK;
}

static int run_size(struct tool *t, int argc, char **argv)
{
    const char *texts[3] = {"64k", NULL, "1"};
    uint64_t values[3];
    static const char *const what[] = {"block size", "pool size", "number of volumes"};
    const struct arg_place places[] = {{ARG_BLOCK, &texts[0], NULL},
                                       {ARG_POOL, &texts[1], NULL},
                                       {ARG_THINS, &texts[2], NULL},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (!texts[1] || line.argc)
        return tool_misuse(t, "--pool-size says how large the data device is");
    for (unsigned i = 0; i < 3; i++)
        if (!size_told(t, what[i], texts[i], &values[i]))
            return 1;
    if (values[0] < THIN_CHUNK_LEAST || values[0] > THIN_CHUNK_MOST || values[2] > THIN_ID_MOST)
        return tool_misuse(t, "data blocks are 64 KiB to 1 GiB, volumes at most %u", THIN_ID_MOST);
    printf("%" PRIu64 "\n", metadata_bytes(values[0], values[1], values[2]));
    return 0;
}

const struct command pool_metadata_size_command = {
    .name = "pool metadata-size",
    .run = run_size,
    .usage = "pool metadata-size [OPTION]... --pool-size SIZE",
    .summary = "Say how large a pool's metadata device should be, in bytes",
    .faces = FACE_LAMINA,
    .options = size_options,
    .notes = "  lamina pool metadata-size --block-size 64K --pool-size 1T --max-thins 100",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* part.c - the proof over a partition of a GUID table that is changed at every opening: a partition
 * comes or goes, and when it went the disk grows and the last partition with it. So cuts and faults
 * fall into every step of a change. Whatever is left, a table is found in it, in which the
 * partition that was written to lies where it lay. */
#include "tests/sweep.h"
#include "volumes/gpt.h"

#define FIRST  MiB
#define BYTES  (256 * KiB)
#define COMING (3 * MiB) /* where p3 comes and goes */
#define MOST   (6 * MiB)

static const struct sweep_profile profile = {.write = 30,
                                             .fua = 3,
                                             .zeroes = 4,
                                             .discard = 3,
                                             .read = 8,
                                             .flush = 6,
                                             .reopen = 8,
                                             .kill = 3,
                                             .max_bytes = 16 * KiB};

static int parse(const struct opt_desc *table, const char *text, struct opts *o,
                 struct blk_error *e)
{
    json_auto_t *tree = json_object();
    TRY(opts_text_to_tree(text, NULL, tree, e));
    return opts_parse(table, tree, o, e);
}

static int co_add(struct blk_device *table, const char *text, struct blk_error *e)
{
    struct opts o;
    char *name = NULL;
    TRY(parse(gpt_inner_options, text, &o, e));
    int rc = co_blk_inner_add(table, &o, &name, e);
    opts_drop(&o);
    mem_free(name);
    return rc;
}

static int co_open_table(struct sweep_run *run, struct blk_device **file, struct blk_device **table,
                         struct blk_error *e)
{
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, 0, file, e));
    struct blk_child child = {"file", blk_ref(*file)};
    int rc = co_blk_open(&gpt_driver, "table", NULL, BLK_OPEN_WRITE, NULL, &child, 1, table, e);
    if (rc < 0)
        co_blk_close(*file, NULL);
    return rc;
}

/* --- create ----------------------------------------------------------------------------------- */

static int co_make_table(struct sweep_run *run, struct blk_device *file, struct blk_error *e)
{
    struct opts o;
    TRY(parse(gpt_create_options, run->subject->create, &o, e));
    struct blk_create c = {.file = file, .opts = &o, .size = file->size};
    int rc = co_blk_resize(file, 5 * MiB, false, e);
    if (rc == 0)
        rc = gpt_driver.co_create(&c, e);
    opts_drop(&o);
    return rc;
}

static int co_fill(struct blk_device *table, struct blk_error *e)
{
    TRY(co_add(table, "start=1M,size=256K,label=written", e));
    TRY(co_add(table, "start=2M,size=512K,label=still", e));
    return co_add(table, "start=4M,size=64K,label=growing,number=4", e);
}

static int co_create(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *file, *table;
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = co_make_table(run, file, e);
    co_blk_close(file, NULL);
    TRY(rc);
    TRY(co_open_table(run, &file, &table, e));
    rc = co_fill(table, e);
    co_blk_close(table, NULL);
    int closed = co_blk_close(file, e);
    return rc < 0 ? rc : closed;
}

/* --- open ------------------------------------------------------------------------------------- */

static int co_change(struct blk_device *file, struct blk_device *table, struct blk_error *e)
{
    const struct gpt *g = table->state;
    uint64_t bytes;
    if (!part_find(&g->t, "p3"))
        return co_add(table, "number=3,start=3M,size=64K", e);
    TRY(co_blk_inner_delete(table, "p3", e));
    if (file->size >= MOST)
        return 0;
    TRY(co_blk_resize(file, file->size + 36 * KiB, false, e));
    return co_blk_inner_grow(table, NULL, &bytes, e);
}

/* All that must be there is where it was. */
static int verify(const struct blk_device *table, struct blk_error *e)
{
    const struct gpt *g = table->state;
    const struct part *first = part_find(&g->t, "p1"), *second = part_find(&g->t, "p2");
    const struct part *coming = part_find(&g->t, "p3"), *last = part_find(&g->t, "p4");
    bool good = first && first->offset == FIRST && first->bytes == BYTES && second &&
                second->offset == 2 * MiB && second->bytes == 512 * KiB && last &&
                last->offset == 4 * MiB && last->bytes >= 64 * KiB &&
                (!coming || (coming->offset == COMING && coming->bytes == 64 * KiB));
    return good ? 0 : err_set(e, -EBADMSG, "the table shows other partitions than it held");
}

static int co_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_device *file, *table;
    TRY(co_open_table(run, &file, &table, e));
    int rc = verify(table, e);
    if (rc == 0)
        rc = co_change(file, table, e);
    if (rc == 0)
        rc = verify(table, e);
    if (rc == 0)
        rc = co_blk_inner_open(table, "p1", out, e);
    co_blk_close(table, NULL);
    co_blk_close(file, NULL);
    return rc;
}

#define ROW \
    .format = "gpt", .size = BYTES, .profile = &profile, .co_create = co_create, .co_open = co_open

static const struct sweep_subject rows[] = {
    {.name = "gpt-512", .create = "sector-size=512", ROW},
    {.name = "gpt-4096", .create = "sector-size=4096", ROW},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 300, 1500);
}

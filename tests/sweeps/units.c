/* SPDX-License-Identifier: BSD-3-Clause */
/* units.c - the proof over toy formats that differ as real ones do in how they keep their space. */
#include "tests/lib/toy_units.h"
#include "tests/sweep.h"

static const enum toy_units_kind numbers[] = {TOY_STAYS, TOY_MOVES, TOY_TABLES, TOY_BIG};

static int co_create(struct sweep_run *run, struct blk_error *e)
{
    const enum toy_units_kind *kind = run->subject->arg;
    struct blk_device *file;
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = co_toy_units_create(file, *kind, run->subject->size, e);
    int closed = co_blk_close(file, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

static int co_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_child file = {.role = "file"};
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, 0, &file.dev, e));
    json_t *tree = json_object();
    int rc =
        co_blk_open(&toy_units_driver, SWEEP_TOP, tree, BLK_OPEN_WRITE, NULL, &file, 1, out, e);
    json_decref(tree);
    return rc;
}

static const struct sweep_profile changing = {.write = 30,
                                              .fua = 3,
                                              .zeroes = 4,
                                              .unmap = 4,
                                              .discard = 8,
                                              .read = 10,
                                              .flush = 5,
                                              .reopen = 2,
                                              .kill = 1,
                                              .resize = 3,
                                              .compact = 3,
                                              .hot = 2};

#define ROW(title, number)                                                        \
    {.name = title,                                                               \
     .size = 768 * KiB,                                                           \
     .co_create = co_create,                                                      \
     .co_open = co_open,                                                          \
     .arg = (void *)&numbers[number]},                                            \
    {                                                                             \
        .name = title "-resize-compact", .size = 256 * KiB, .profile = &changing, \
        .flags = SWEEP_SHRINK, .co_create = co_create, .co_open = co_open,        \
        .arg = (void *)&numbers[number]                                           \
    }

static const struct sweep_subject rows[] = {
    ROW("stays", TOY_STAYS),
    ROW("moves", TOY_MOVES),
    ROW("tables", TOY_TABLES),
    ROW("big", TOY_BIG),
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 600, 2400);
}

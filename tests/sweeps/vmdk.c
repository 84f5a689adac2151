/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk.c - the proof over VMDK images, alone and over a parent, in one file and in several.
 *
 * QEMU's known bugs, and where they would be seen: "-delta" rows, data that the guest never touched
 * is lost when the entry of a grain outlives the copy of the parent's bytes (29 of 110 crash
 * states); "-two-extents", a request that spans extents goes to the wrong place in the second one
 * (QEMU commit b1649fae49); all crash states, an entry on disk before what it names (QEMU 7.2).
 * What streams had (5e82a31eb9, 51b3c6b73a) is in tests/e2e/vmdk.sh. */
#include <stdio.h>
#include <string.h>

#include "imgfmt/vmdk.h"
#include "tests/lib/sweep_chain.h"

static const struct sweep_backing base = {.format = "vmdk", .size = 3 * MiB};
static const struct sweep_backing short_base = {.format = "vmdk", .size = 1536 * KiB};

/* --- two extents, and what lies behind both of them, or in front --- */

#define ZEROES (512 * KiB)

static const char two[] = "# Disk DescriptorFile\n"
                          "version=1\n"
                          "CID=00000001\n"
                          "parentCID=%08x\n"
                          "%s"
                          "createType=\"twoGbMaxExtentSparse\"\n"
                          "%s"
                          "RW 2048 SPARSE \"s1.img\"\n"
                          "RW 3072 SPARSE \"s2.img\"\n";

static int co_make_extent(struct sweep_run *run, const char *path, uint64_t bytes,
                          struct blk_error *e)
{
    struct opts opts;
    struct blk_create c = {.size = bytes, .opts = &opts};
    TRY(opts_parse(vmdk_driver.create_options, NULL, &opts, e));
    int rc = co_resolver_open_file(&run->resolver, path, BLK_OPEN_WRITE, HOST_CREATE, &c.file, e);
    if (rc == 0) {
        rc = vmdk_driver.co_create(&c, e);
        int closed = co_blk_close(c.file, rc == 0 ? e : NULL);
        rc = rc < 0 ? rc : closed;
    }
    opts_drop(&opts);
    return rc;
}

static int co_write_descriptor(struct sweep_run *run, const char *text, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = co_blk_resize(file, strlen(text), false, e);
    if (rc == 0)
        rc = co_blk_write_buf(file, 0, text, strlen(text), 0);
    if (rc == 0)
        rc = co_blk_flush(file);
    int closed = co_blk_close(file, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

static int co_make_two(struct sweep_run *run, struct blk_error *e)
{
    const char *zeroes = run->subject->arg;
    bool over = run->subject->backing;
    char text[1000];
    TRY(co_sweep_make_base(run, e));
    TRY(co_make_extent(run, "/sim/s1.img", 1 * MiB, e));
    TRY(co_make_extent(run, "/sim/s2.img", 1536 * KiB, e));
    snprintf(text, sizeof(text), two, over ? VMDK_ANY_PARENT : VMDK_NO_PARENT,
             over ? "parentFileNameHint=\"base.img\"\n" : "", zeroes ? zeroes : "");
    return co_write_descriptor(run, text, e);
}

/* What lies behind the zeroes. */
static int co_open_behind_zeroes(struct sweep_run *run, struct blk_device **out,
                                 struct blk_error *e)
{
    json_t *tree = json_pack("{s:s, s:I, s:{s:s, s:{s:s, s:s}}}", "driver", "slice", "offset",
                             (json_int_t)ZEROES, "file", "driver", "vmdk", "file", "driver", "file",
                             "filename", SWEEP_TOP);
    int rc = tree ? co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE, out, e) : -ENOMEM;
    json_decref(tree);
    return rc;
}

/* The zeroes still are, and cannot be written to; then the extents behind them. */
static int co_check_zeroes(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                           struct blk_error *e)
{
    struct blk_device *all = blk_child(dev, "file");
    struct blk_check check = {0};
    auto_free uint8_t *buffer = mem_alloc(ZEROES);
    int rc = buffer ? co_blk_read_buf(all, 0, buffer, ZEROES) : -ENOMEM;
    if (rc == 0 && !mem_is_zero(buffer, ZEROES))
        rc = -EIO;
    if (rc == 0 && co_blk_write_buf(all, ZEROES - 512, "x", 1, 0) != -EROFS)
        rc = -EIO;
    if (rc < 0)
        return err_errno(e, rc, "the zeroes");
    rc = co_blk_check(all, &check, e);
    *bad = check.corruptions;
    return rc;
}

static struct sweep_chain_work commits = {co_sweep_commit}, keeps = {co_sweep_commit_and_keep},
                               renames = {co_sweep_rename_base}, rebases = {co_sweep_rebase};
#define DELTA \
    .format = "vmdk", .backing = &base, .size = 3 * MiB + 512 * KiB, .flags = SWEEP_DISCARD_ANY
#define OVER "backing_file=base.img,backing_fmt=vmdk"
#define TURN .co_open = co_sweep_work_and_open

static const struct sweep_subject rows[] = {
    {.name = "vmdk", .format = "vmdk", .size = 6 * MiB, .foreign = "vmdk"},
    {.name = "vmdk-zeroed",
     .format = "vmdk",
     .create = "zeroed_grain=on",
     .size = 6 * MiB + 1536,
     .foreign = "vmdk"},
    {.name = "vmdk-delta",
     .format = "vmdk",
     .create = "backing_file=base.img,backing_fmt=vmdk",
     .backing = &base,
     .size = 3 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vmdk-zeroed-delta",
     .format = "vmdk",
     .create = "backing_file=base.img,backing_fmt=vmdk,zeroed_grain=on",
     .backing = &short_base,
     .size = 4 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vmdk-resize",
     .format = "vmdk",
     .size = 6 * MiB,
     .profile = &sweep_resizing,
     .flags = SWEEP_SHRINK,
     .foreign = "vmdk"},
    {.name = "vmdk-vmfs",
     .format = "vmdk",
     .create = "subformat=vmfsSparse",
     .size = 3 * MiB,
     .profile = &sweep_resizing,
     .flags = SWEEP_SHRINK},
    {.name = "vmdk-vmfs-delta",
     .format = "vmdk",
     .create = "subformat=vmfsSparse,backing_file=base.img,backing_fmt=vmdk",
     .backing = &short_base,
     .size = 3 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vmdk-two-extents-delta",
     .format = "vmdk",
     .backing = &short_base,
     .size = 2560 * KiB,
     .flags = SWEEP_DISCARD_ANY,
     .co_create = co_make_two},
    {.name = "vmdk-behind-zeroes",
     .format = "vmdk",
     .size = 2560 * KiB,
     .co_create = co_make_two,
     .co_open = co_open_behind_zeroes,
     .co_check = co_check_zeroes,
     .arg = (void *)"RW 1024 ZERO\n"},
    {.name = "vmdk-commit", DELTA, TURN, .create = OVER, .arg = &commits},
    {.name = "vmdk-commit-keep", DELTA, TURN, .create = OVER, .arg = &keeps},
    {.name = "vmdk-rename", DELTA, TURN, .create = OVER, .arg = &renames},
    {.name = "vmdk-rebase", DELTA, TURN, .create = OVER ",zeroed_grain=on", .arg = &rebases},
    {.name = "vmdk-vmfs-rebase",
     DELTA,
     TURN,
     .create = OVER ",subformat=vmfsSparse",
     .arg = &rebases},
    {.name = "vmdk-two-extents", .format = "vmdk", .size = 2560 * KiB, .co_create = co_make_two},
    {.name = "vmdk-on-a-device", .format = "vmdk", .size = 2 * MiB, .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 200, 1200);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk.c - the proof over VMDK images, alone and over a parent. "-delta" is QEMU's lost data that
 * the guest never touched. */
#include <stdio.h>
#include <string.h>

#include "imgfmt/vmdk.h"
#include "tests/sweep.h"

static const struct sweep_backing base = {.format = "vmdk", .size = 3 * MiB};
static const struct sweep_backing short_base = {.format = "vmdk", .size = 1536 * KiB};

/* --- two extents, and what lies behind both of them --- */

static const char two[] = "# Disk DescriptorFile\n"
                          "version=1\n"
                          "CID=00000001\n"
                          "parentCID=ffffffff\n"
                          "createType=\"twoGbMaxExtentSparse\"\n"
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

static int co_make_two(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_make_extent(run, "/sim/s1.img", 1 * MiB, e));
    TRY(co_make_extent(run, "/sim/s2.img", 1536 * KiB, e));
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = co_blk_resize(file, sizeof(two) - 1, false, e);
    if (rc == 0)
        rc = co_blk_write_buf(file, 0, two, sizeof(two) - 1, 0);
    if (rc == 0)
        rc = co_blk_flush(file);
    int closed = co_blk_close(file, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

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
    {.name = "vmdk-two-extents", .format = "vmdk", .size = 2560 * KiB, .co_create = co_make_two},
    {.name = "vmdk-on-a-device", .format = "vmdk", .size = 2 * MiB, .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 100, 1000);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* parallels.c - the proof over Parallels images. */
#include <stdio.h>
#include <string.h>

#include "tests/sweep.h"

/* qemu-img counts it as an error that a crashed image is marked as in use. */
static bool only_open(const char *output)
{
    return output && strstr(output, "ERROR image was not closed correctly\n") &&
           strstr(output, "\n1 errors were found");
}

/* --- as a disk of two moments --- */

#define DESCRIPTOR "/sim/disk.xml"
#define TOP        "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
#define ROOT       "{00000001-0000-4000-8000-000000000001}"
#define IMAGE(guid, type, file) \
    "<Image><GUID>" guid "</GUID><Type>" type "</Type><File>" file "</File></Image>"

static const char text[] =
    "<Parallels_disk_image Version=\"1.0\"><Disk_Parameters><Disk_size>4096</Disk_size>"
    "</Disk_Parameters><StorageData><Storage><Start>0</Start><End>4096</End>" IMAGE(ROOT, "Plain",
                                                                                    "base.img")
        IMAGE(TOP, "Compressed",
              "top.img") "</Storage></StorageData><Snapshots><Shot><GUID>" TOP
                         "</GUID><ParentGUID>" ROOT
                         "</ParentGUID></Shot></Snapshots></Parallels_disk_image>";

static const struct sweep_backing root = {.format = "raw", .size = 1536 * KiB};

/* A description that was always there: what a crash leaves of it is no matter. */
static int co_describe(struct sweep_run *run, struct blk_error *e)
{
    char there[sizeof(text)] = {0};
    struct blk_device *file;
    TRY(co_resolver_open_file(&run->resolver, DESCRIPTOR, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = file->size < sizeof(text) - 1 ? 0 : co_blk_read_buf(file, 0, there, sizeof(text) - 1);
    if (rc == 0 && memcmp(there, text, sizeof(text) - 1) != 0)
        rc = co_blk_write_buf(file, 0, text, sizeof(text) - 1, 0);
    int closed = co_blk_close(file, rc == 0 ? e : NULL);
    return rc < 0 ? err_errno(e, rc, "the description cannot be written") : closed;
}

static int co_open_disk(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    TRY(co_describe(run, e));
    return co_resolver_open(&run->resolver, DESCRIPTOR, "hdd", BLK_OPEN_WRITE, out, e);
}

static const struct sweep_subject rows[] = {
    {.name = "parallels-64k",
     .format = "parallels",
     .create = "cluster_size=64k",
     .size = 3 * MiB,
     .foreign = "parallels",
     .foreign_ok = only_open},
    {.name = "parallels-1m",
     .format = "parallels",
     .size = 6 * MiB + 1536,
     .foreign = "parallels",
     .foreign_ok = only_open},
    {.name = "parallels-512",
     .format = "parallels",
     .create = "cluster_size=512",
     .size = 1 * MiB,
     .foreign = "parallels",
     .foreign_ok = only_open},
    {.name = "parallels-over-raw",
     .format = "parallels",
     .create = "cluster_size=16k",
     .backing = &root,
     .size = 2 * MiB,
     .flags = SWEEP_DISCARD_ANY,
     .co_open = co_open_disk,
     .foreign = "parallels",
     .foreign_ok = only_open},
    {.name = "parallels-resize",
     .format = "parallels",
     .create = "cluster_size=4k",
     .size = 3 * MiB,
     .profile = &sweep_resizing,
     .foreign = "parallels",
     .foreign_ok = only_open},
    {.name = "parallels-on-a-device",
     .format = "parallels",
     .create = "cluster_size=64k",
     .size = 2 * MiB,
     .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 100, 1000);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.c - the proof over VDI images, dynamic and static. */
#include <stdio.h>
#include <string.h>

#include "imgfmt/vdi.h"
#include "tests/sweep.h"

static const struct sweep_profile big = {.write = 30,
                                         .fua = 3,
                                         .zeroes = 5,
                                         .unmap = 4,
                                         .discard = 5,
                                         .read = 10,
                                         .flush = 6,
                                         .reopen = 1,
                                         .kill = 1,
                                         .max_bytes = 1280 * KiB,
                                         .hot = 4};
/* Fills up before it grows. */
static const struct sweep_profile growing = {.write = 30,
                                             .fua = 2,
                                             .zeroes = 3,
                                             .read = 8,
                                             .flush = 4,
                                             .reopen = 2,
                                             .kill = 1,
                                             .resize = 3,
                                             .compact = 1,
                                             .max_bytes = 400 * KiB};

/* --- a map without room ------------------------------------------------------------------------
 */

#define SMALL_BLOCK 4096U

/* Blocks of 4 KiB and a map of one sector: 128 entries fill it, then the map moves to where the
 * first blocks lie. */
static int co_create_narrow(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *file;
    uint32_t blocks = run->subject->size / SMALL_BLOCK;
    struct vdi_header_disk h = {
        .signature = le32_of(VDI_SIGNATURE),
        .version = le32_of(VDI_VERSION),
        .header_bytes = le32_of(0x180),
        .type = le32_of(VDI_DYNAMIC),
        .map_offset = le32_of(512),
        .data_offset = le32_of(1024),
        .sector_bytes = le32_of(512),
        .size = le64_of(run->subject->size),
        .block_bytes = le32_of(SMALL_BLOCK),
        .blocks = le32_of(blocks),
    };
    uint8_t map[512];
    memset(map, 0xff, sizeof(map)); /* VDI_FREE */
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = co_blk_write_buf(file, 0, &h, sizeof(h), 0);
    if (rc == 0)
        rc = co_blk_write_buf(file, 512, map, sizeof(map), 0);
    int closed = co_blk_close(file, e);
    return rc < 0 ? rc : closed;
}

/* In the simulated folder nothing ends in .vdi: the caller says what is behind. */
#define OVER_BASE "backing.driver=vdi,backing.file.driver=file,backing.file.filename=" SWEEP_BASE

static const struct sweep_backing base = {.format = "vdi", .size = 4 * MiB};

/* --- rows --------------------------------------------------------------------------------------
 */

/* One of the errors that qemu-img sees in what a crash leaves is none: a count in the header above
 * the map's is a leak to us, put right when the image is next opened for writing. */
static bool only_harmless(const char *output)
{
    unsigned map, header, errors = 0, harmless = 0;
    for (const char *at = output; at && *at; at = strchr(at, '\n'), at += at ? 1 : 0) {
        harmless += sscanf(at, "ERROR: allocated blocks mismatch, is %u, should be %u", &map,
                           &header) == 2 &&
                    map < header;
        (void)sscanf(at, "%u errors were found", &errors);
    }
    return errors > 0 && harmless == errors;
}

static const struct sweep_subject rows[] = {
    {.name = "vdi-dynamic",
     .format = "vdi",
     .size = 6 * MiB,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-dynamic-big-requests",
     .format = "vdi",
     .size = 8 * MiB,
     .granule = 1 * MiB,
     .profile = &big,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-static",
     .format = "vdi",
     .create = "static=on",
     .size = 4 * MiB,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-odd-size",
     .format = "vdi",
     .size = 3 * MiB + 1536,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-resize",
     .format = "vdi",
     .size = 3 * MiB,
     .profile = &sweep_resizing,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-map-moves",
     .format = "vdi",
     .size = 400 * KiB,
     .profile = &growing,
     .co_create = co_create_narrow},
    {.name = "vdi-differencing",
     .format = "vdi",
     .create = "backing_file=base.img,backing_fmt=vdi",
     .open = OVER_BASE,
     .size = 6 * MiB,
     .backing = &base},
    {.name = "vdi-differencing-resize",
     .format = "vdi",
     .create = "backing_file=base.img,backing_fmt=vdi",
     .open = OVER_BASE,
     .size = 3 * MiB,
     .flags = SWEEP_SHRINK,
     .profile = &sweep_resizing,
     .backing = &base},
    {.name = "vdi-two-workers", .format = "vdi", .size = 4 * MiB, .workers = 2},
    {.name = "vdi-on-a-device", .format = "vdi", .size = 4 * MiB, .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 600, 2400);
}

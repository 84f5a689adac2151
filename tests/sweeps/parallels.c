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

/* SPDX-License-Identifier: BSD-3-Clause */
/* face_io.c - called as qemu-io: it only says which program to use. */
#include "tools/tool.h"

int face_io_main(struct tool *t, int argc, char **argv)
{
    tool_error(t, "lamina has no qemu-io commands; use QEMU's own qemu-io "
                  "(Debian package qemu-utils, /usr/bin/qemu-io)");
    return 1;
}

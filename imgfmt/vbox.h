/* SPDX-License-Identifier: BSD-3-Clause */
/* vbox.h - where a machine's .vbox file says that a disk lies. */
#ifndef IMGFMT_VBOX_H
#define IMGFMT_VBOX_H

#include "block/base.h"

/* In the @bytes of a .vbox file: the location of the hard disk with @uuid (RFC 4122 order). Pure.
 * *out NULL: it is not there. Gives *out (mem_free): relative to the file's folder, or absolute. */
must_use int vbox_location(const char *text, size_t bytes, const uint8_t uuid[16], char **out);

#endif

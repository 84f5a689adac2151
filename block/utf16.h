/* SPDX-License-Identifier: BSD-3-Clause */
/* utf16.h - names in UTF-16, as images of Microsoft's formats hold them. */
#ifndef BLOCK_UTF16_H
#define BLOCK_UTF16_H

#include "block/base.h"

/* The first @bytes of @from, or up to a zero unit, as UTF-8; mem_free() it. NULL: no memory, or no
 * UTF-16, or empty. */
char *utf16_to_text(const void *from, size_t bytes, bool big_endian);
/* @text as UTF-16, without a zero at its end. Gives the bytes it takes; 0: no UTF-8, or more than
 * @room. */
size_t utf16_from_text(const char *text, bool big_endian, void *to, size_t room);

/* A path as Windows writes it, as one that can be opened: of "C:\\x\\y.vhd" and
 * "\\\\server\\x\\y.vhd" what is beside us, "y.vhd"; ".\\x\\y.vhd" is "x/y.vhd". As
 * utf16_to_text(). */
char *utf16_windows_path(const void *from, size_t bytes, bool big_endian);
/* The other way: ".\\" before relative ones. As utf16_from_text(). */
size_t utf16_from_path(const char *path, void *to, size_t room);

#endif

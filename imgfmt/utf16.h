/* SPDX-License-Identifier: BSD-3-Clause */
/* utf16.h - names in UTF-16, as images of Microsoft's formats hold them. */
#ifndef IMGFMT_UTF16_H
#define IMGFMT_UTF16_H

#include "block/base.h"

/* The first @bytes of @from, or up to a zero unit, as UTF-8; mem_free() it. NULL: no memory, or no
 * UTF-16, or empty. */
char *utf16_to_text(const void *from, size_t bytes, bool big_endian);
/* @text as UTF-16, without a zero at its end. Gives the bytes it takes; 0: no UTF-8, or more than
 * @room. */
size_t utf16_from_text(const char *text, bool big_endian, void *to, size_t room);

#endif

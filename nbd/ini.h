/* SPDX-License-Identifier: BSD-3-Clause */
/* ini.h - files of sections and keys, from bytes to entries. Pure.
 *
 *   # a comment, as is a line that begins with ;
 *   [KIND]
 *   [KIND NAME]
 *   key = value
 *   key = " value with blanks at its ends, or nothing "
 *
 * A name or a value is all that stands there, without the blanks around it; quotes that enclose it
 * go. There are no escapes and no lines that continue. */
#ifndef NBD_INI_H
#define NBD_INI_H

#include "block/err.h"

#define INI_MAX_BYTES (1u << 20)
#define INI_MAX_LINE  8192u

struct ini_entry {
    unsigned line;
    unsigned section; /* counted from 1 */
    const char *kind; /* of the section */
    const char *name; /* of the section; "": none */
    const char *key;  /* NULL: the section begins here */
    const char *value;
};

struct ini {
    struct ini_entry *entries;
    size_t count, room;
    char *text; /* which the entries point into */
};

/* -EINVAL: *e says in which line. ini_drop() it in any case. */
must_use int ini_parse(const void *bytes, size_t count, struct ini *out, struct blk_error *e);
void ini_drop(struct ini *ini);

#endif

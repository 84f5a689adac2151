/* SPDX-License-Identifier: BSD-3-Clause */
/* mend.c - what a person can do about a device that cannot be opened or read: the line below the
 * sentence (err_next). It follows from what the driver can do, so that no parser has to say it.
 *
 *   not to be opened   the driver's own advice (mend); else there is only another copy
 *   not to be read     its check, where it has one; and convert --salvage, whatever it is
 *   the disk below     read errors that no byte of the format explains: ddrescue */
#include "block/block.h"

#include <string.h>

#define NAME_MOST   120
#define QUOTED_MOST (4 * NAME_MOST + 3) /* each a quote, between two more */

/* @name as a shell takes it; what is too long to be read in a line is FILE. */
static const char *shell_name(const char *name, char to[QUOTED_MOST])
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "/._-+,:@%=~";
    size_t bytes = strlen(name), at = 0;
    if (bytes == 0 || bytes > NAME_MOST)
        return "FILE";
    if (strspn(name, plain) == bytes && name[0] != '-' && name[0] != '~')
        return name;
    to[at++] = '\'';
    for (; *name; name++) {
        if (*name == '\'') {
            memcpy(to + at, "'\\'", 3);
            at += 3;
        }
        to[at++] = *name;
    }
    to[at++] = '\'';
    to[at] = 0;
    return to;
}

void blk_next(struct blk_error *e, const char *advice, const char *name)
{
    char quoted[QUOTED_MOST], said[sizeof(e->next)];
    const char *shown = shell_name(name, quoted);
    size_t at = 0;
    for (const char *file; (file = strstr(advice, "FILE")) != NULL; advice = file + 4)
        at = MIN(at + (size_t)snprintf(said + at, sizeof(said) - at, "%.*s%s", (int)(file - advice),
                                       advice, shown),
                 sizeof(said) - 1);
    err_next(e, "%.*s%s", (int)at, said, advice);
}

void blk_next_after_open(const struct blk_driver *driver, const char *name, struct blk_error *e)
{
    if (!e || e->next[0])
        return;
    if (e->damaged && e->rc == -ENOTSUP)
        blk_next(e,
                 "FILE is damaged, or written in a way that is not read here (docs/formats.md says "
                 "what is): what made it may write it in another",
                 name);
    else if (e->damaged)
        blk_next(e,
                 driver->mend
                     ? driver->mend
                     : "it cannot be opened as it is. Get FILE again if it is a copy or a "
                       "download (one that was cut short looks like this), or take it from "
                       "a backup",
                 name);
    else if (e->rc == -EIO)
        blk_next(
            e,
            "what FILE lies on cannot be read everywhere: copy it with GNU ddrescue (`ddrescue "
            "FILE NEW NEW.map`) and open the copy",
            name);
}

void blk_next_after_io(struct blk_device *dev, struct blk_error *e)
{
    const char *name = dev->name ? dev->name : "";
    if (!e || (e->rc != -EIO && !e->damaged))
        return;
    blk_next(e,
             dev->driver->co_check
                 ? "`lamina check FILE` says whether its tables are damaged; " BLK_NEXT_SALVAGE
                 : BLK_NEXT_SALVAGE,
             name);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* err.c - composing the sentence of a failed control operation. A text that is too long is cut. */
#include "block/err.h"

#include <stdarg.h>
#include <stdio.h>

int err_set(struct blk_error *e, int rc, const char *fmt, ...)
{
    va_list args;

    assert(rc < 0);
    if (!e)
        return rc;
    /* By way of a copy: an argument may be the old text. */
    char text[sizeof(e->text)];
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    memcpy(e->text, text, sizeof(text));
    e->rc = rc;
    return rc;
}

int err_errno(struct blk_error *e, int rc, const char *fmt, ...)
{
    va_list args;
    char words[128];

    assert(rc < 0);
    if (!e)
        return rc;
    char text[sizeof(e->text)];
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    const char *why = strerror_r(-rc, words, sizeof(words));
    snprintf(e->text, sizeof(e->text), "%.*s: %s", (int)(sizeof(text) - sizeof(words) - 3), text,
             why);
    e->rc = rc;
    return rc;
}

int err_prefix(struct blk_error *e, const char *fmt, ...)
{
    va_list args;

    if (!e)
        return 0;
    char prefix[sizeof(e->text)], old[sizeof(e->text)];
    va_start(args, fmt);
    vsnprintf(prefix, sizeof(prefix), fmt, args);
    va_end(args);
    memcpy(old, e->text, sizeof(old));
    old[sizeof(old) - 1] = 0;
    if (snprintf(e->text, sizeof(e->text), "%s: %s", prefix, old) >= (int)sizeof(e->text))
        e->text[sizeof(e->text) - 1] = 0;
    return e->rc;
}

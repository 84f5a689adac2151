/* SPDX-License-Identifier: BSD-3-Clause */
/* err.c - composing the sentence of a failed control operation. A text that is too long is cut. */
#include "block/err.h"

#include <stdarg.h>
#include <stdio.h>

static int set(struct blk_error *e, int rc, bool damaged, const char *fmt, va_list args)
{
    assert(rc < 0);
    if (!e)
        return rc;
    /* By way of a copy: an argument may be the old text. */
    char text[sizeof(e->text)];
    vsnprintf(text, sizeof(text), fmt, args);
    memcpy(e->text, text, sizeof(text));
    e->rc = rc;
    e->damaged = damaged;
    e->next[0] = 0;
    return rc;
}

int err_set(struct blk_error *e, int rc, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    set(e, rc, false, fmt, args);
    va_end(args);
    return rc;
}

int err_bad(struct blk_error *e, int rc, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    set(e, rc, true, fmt, args);
    va_end(args);
    return rc;
}

int err_wrong_format(struct blk_error *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = set(e, -EINVAL, false, fmt, args);
    va_end(args);
    err_next(e, "where no format is told (-f, driver=) it is found out; `lamina info` says which");
    return rc;
}

void err_next(struct blk_error *e, const char *fmt, ...)
{
    va_list args;
    if (!e || e->next[0])
        return;
    va_start(args, fmt);
    vsnprintf(e->next, sizeof(e->next), fmt, args);
    va_end(args);
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
    e->damaged = false;
    e->next[0] = 0;
    return rc;
}

int err_copy(struct blk_error *e, int rc, const struct blk_error *from)
{
    assert(rc < 0);
    if (e) {
        *e = *from;
        e->rc = rc;
    }
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

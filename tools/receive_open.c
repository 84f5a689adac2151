/* SPDX-License-Identifier: BSD-3-Clause */
/* receive_open.c - receive's target, from being found to having its name.
 *
 * A new image lies under .TARGET.lamina-resume until it is whole; what it has of further files is
 * made in the order at the top of make_parts.c. In every case there is a journal
 * (.TARGET.lamina-received beside a file, else where --journal says):
 *
 *   1 The base is compared: by the journal, if nobody has touched the target since it was noted
 *     there, else all of it is read. Without its base a stream changes nothing.
 *   2 The journal says that the stream is being received, durably, before anything is written.
 *   3 What the stream says is written; at each of its points the target is flushed, and the journal
 *     says how far it is (receive_apply.c).
 *   4 At the end the target is flushed and closed. If it went on from a journal, all of it is read:
 *     what the run before wrote behind its last point, and whoever else wrote meanwhile, must have
 *     left what was sent.
 *   5 A new image: the journal says whole; it takes its name; the folder is durable.
 *   6 The journal says what the target holds. */
#include "tools/hash.h"
#include "tools/journal.h"
#include "tools/receive.h"

#define CLOCK_STEP_NS 20000000 /* of the times that files have: no smaller change is seen */

/* --- where it is --- */

static char *journal_beside(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    return mem_printf("%.*s.%s.lamina-received", (int)(name - path), path, name);
}

int co_receive_place(struct receive *r)
{
    struct blk_error *e = &r->task.error;
    struct receive_journal *j = &r->journal;
    struct host_stat st = {.type = HOST_FILE_REGULAR};
    int rc = co_make_place(&r->make, e);
    if (rc < 0 && rc != -ENOTSUP)
        return rc;
    *e = (struct blk_error){0};
    bool there = r->make.path && co_host_stat(r->make.tool->host, r->make.path, &st) == 0;
    bool file = r->make.path && st.type == HOST_FILE_REGULAR;
    if (!file && !r->journal_path)
        return err_set(
            e, -EINVAL,
            "%s is no file that a journal could lie beside; --journal FILE says where to "
            "note how far it is",
            r->make.name);
    j->host = r->make.tool->host;
    j->path = r->journal_path ? mem_strdup(r->journal_path) : journal_beside(r->make.path);
    if (!j->path)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_receive_journal_read(j, e));
    bool going = j->state == RECEIVE_GOING || j->state == RECEIVE_WHOLE;
    bool anew = !there || r->base || (r->force && !r->header.increment);
    r->made = going ? j->made : file && anew;
    if (!going && r->base && !file)
        return err_set(e, -EINVAL, "--base: the new image must be a file, and %s is none",
                       r->make.name);
    if (!going && r->made && r->header.increment && !r->base)
        return err_set(
            e, -ENOENT,
            "%s is not there: an increment changes its base, or with --base OLD makes an "
            "image that stands on OLD",
            r->make.name);
    return 0;
}

/* --- the base --- */

static int wrong_base(struct receive *r, const char *name, const char *is)
{
    char want[SUMHASH_TEXT];
    sumhash_print(&r->header.base, want);
    return err_set(&r->task.error, -ESTALE,
                   "%s is not the base of the stream: its sumhash is %s, not %s", name, is, want);
}

/* @j: what is noted of @dev. */
static int co_compare_base(struct receive *r, const char *name, struct blk_device *dev,
                           const struct receive_journal *j)
{
    const struct send_header *h = &r->header;
    struct blk_error *e = &r->task.error;
    struct sumhash is;
    char text[SUMHASH_TEXT];
    if (dev->size < h->base_size)
        return err_set(e, -ESTALE, "%s is not the base of the stream: it is smaller", name);
    if (j->header.size == h->base_size && receive_is_untouched(j, dev)) {
        sumhash_print(&j->digest, text);
        return sumhash_equal(&j->digest, &h->base) ? 0 : wrong_base(r, name, text);
    }
    r->task.job.total += h->base_size;
    TRY(co_hash_disk(dev, h->base_size, HASH_SUMHASH, &r->task.job, text, e));
    bool good = sumhash_parse(text, &is);
    assert(good);
    return sumhash_equal(&is, &h->base) ? 0 : wrong_base(r, name, text);
}

static int co_open_base(struct receive *r, const char *path, struct blk_device **out)
{
    struct blk_error *e = &r->task.error;
    struct image i = {.text = path, .format = r->base_format, .trust = TRUST_READ};
    struct host_stat st;
    int rc = co_host_stat(r->make.tool->host, path, &st);
    if (rc < 0)
        return err_errno(e, rc, "the base must be a file: %s", path);
    return co_image_open(r->make.tool, &i, out, e);
}

/* The new image is to name its base. */
static int name_base(struct receive *r, const struct blk_device *base)
{
    struct make *m = &r->make;
    if (!make_knows_option(m, "backing_file"))
        return err_set(&r->task.error, -ENOTSUP,
                       "an image of format '%s' cannot stand on another one", m->driver->name);
    if (json_object_set_new(m->options, "backing_file", json_string(r->base)) < 0 ||
        json_object_set_new(m->options, "backing_fmt", json_string(base->driver->name)) < 0)
        return err_set(&r->task.error, -ENOMEM, "out of memory");
    return 0;
}

/* --base: another image, which the new one will stand on. */
static int co_stand_on_base(struct receive *r)
{
    struct blk_error *e = &r->task.error;
    auto_free char *path = image_beside(r->make.name, r->base);
    struct receive_journal j = {.host = r->make.tool->host,
                                .path = path ? journal_beside(path) : NULL};
    struct blk_device *dev = NULL;
    int rc = j.path ? co_open_base(r, path, &dev) : err_set(e, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = co_receive_journal_read(&j, e);
    if (rc == 0)
        rc = co_compare_base(r, r->base, dev, &j);
    if (rc == 0)
        rc = name_base(r, dev);
    receive_journal_drop(&j);
    return co_image_close(dev, rc, e);
}

/* --- a new image --- */

static int find_format(struct receive *r)
{
    struct make *m = &r->make;
    m->driver =
        r->target_format ? format_find(m->tool, r->target_format, "") : format_by_ending(m->name);
    if (!m->driver)
        return r->target_format
                   ? -EINVAL
                   : err_set(&r->task.error, -EINVAL,
                             "the ending of '%s' names no format; say it with -O", m->name);
    if (!m->driver->co_create)
        return err_set(&r->task.error, -ENOTSUP,
                       "%s images are only read; `lamina help formats` tells what can be created",
                       m->driver->name);
    if (m->driver->bundle_file)
        return err_set(&r->task.error, -EINVAL,
                       "an image of format '%s' is a folder, which cannot be gone on with: receive "
                       "into another format and convert that",
                       m->driver->name);
    return make_check_options(m, &r->task.error);
}

/* What an image of @d is as large as, to hold the stream's disk. */
static uint64_t size_in(const struct receive *r, const struct blk_driver *d)
{
    return d->is_plain ? r->header.size : align_up(r->header.size, 512);
}

static int co_open_made(struct receive *r)
{
    struct make *m = &r->make;
    struct host_stat st;
    TRY(find_format(r));
    m->size = size_in(r, m->driver);
    bool there = r->resumed && co_host_stat(m->tool->host, m->written, &st) == 0;
    if (!there && r->journal.at > 0)
        return err_set(&r->task.error, -ENOENT, "%s is missing: remove %s to begin anew",
                       m->written, r->journal.path);
    if (!there && r->header.increment)
        TRY(co_stand_on_base(r));
    if (!there)
        TRY(co_make(m, &r->task.error));
    return co_make_open(m, 0, &r->target, &r->task.error);
}

/* --- what is there already --- */

/* Before the first byte: it becomes large enough. */
static int co_grow(struct receive *r)
{
    struct blk_device *dev = r->target;
    return dev->size >= r->header.size
               ? 0
               : co_blk_resize(dev, size_in(r, dev->driver), false, &r->task.error);
}

/* Behind the last: a file becomes smaller with the disk in it. */
static int co_shrink(struct receive *r)
{
    struct blk_device *dev = r->target;
    const struct send_header *h = &r->header;
    uint64_t size = size_in(r, dev->driver);
    if (h->size >= h->base_size || dev->size <= size || !r->make.path || !dev->driver->co_resize)
        return 0;
    int rc = size > h->size ? co_blk_write_zeroes(dev, h->size, size - h->size, 0) : 0;
    return rc < 0 ? err_errno(&r->task.error, rc, "cannot write the end of %s", r->make.name)
                  : co_blk_resize(dev, size, true, &r->task.error);
}

static int co_open_existing(struct receive *r)
{
    struct blk_error *e = &r->task.error;
    struct image i = {
        .text = r->make.name, .format = r->format, .flags = BLK_OPEN_WRITE, .trust = TRUST_WRITE};
    if (!r->header.increment && !r->force && !r->resumed)
        return err_set(e, -EEXIST, "%s exists already; --force replaces what it holds",
                       r->make.name);
    TRY(co_image_open(r->make.tool, &i, &r->target, e));
    return r->header.increment && !r->resumed
               ? co_compare_base(r, r->make.name, r->target, &r->journal)
               : 0;
}

/* --- both --- */

/* The journal is of this stream, or of its first part. */
static int go_on(struct receive *r)
{
    const struct receive_journal *j = &r->journal;
    const struct send_header *h = &r->header;
    struct blk_error *e = &r->task.error;
    if (!receive_same_stream(j, h))
        return err_set(e, -ESTALE,
                       "%s holds a part of another stream: receive that again, or remove %s and "
                       "begin anew with a full stream",
                       r->make.name, j->path);
    if (h->start > 0 && (h->start != j->at || !sumhash_equal(&h->passed, &j->sum)))
        return err_set(e, -ESTALE,
                       "the stream goes on from another place than %s; --token says from which",
                       r->make.name);
    r->resumed = true;
    return 0;
}

/* An earlier run has done steps 1 to 4: only the name was missing, or not even that. */
static int co_name(struct receive *r)
{
    struct host_stat st;
    struct make *m = &r->make;
    struct blk_error *e = &r->task.error;
    int rc = 0;
    if (co_host_stat(m->tool->host, m->written, &st) == 0)
        rc = co_make_end(m, 0, e);
    if (rc == 0) {
        rc = co_host_sync_dir(m->tool->host, m->folder);
        if (rc < 0)
            err_errno(e, rc, "the folder of %s", m->name);
    }
    return rc;
}

int co_receive_open(struct receive *r)
{
    struct receive_journal *j = &r->journal;
    struct blk_error *e = &r->task.error;
    if (j->state == RECEIVE_WHOLE) {
        TRY(go_on(r));
        r->finished = true;
        return co_name(r);
    }
    if (j->state == RECEIVE_GOING)
        TRY(go_on(r));
    else if (r->header.start > 0)
        return err_set(e, -ESTALE, "the stream is the rest of one of which %s has nothing",
                       r->make.name);
    if (!r->resumed)
        *j = (struct receive_journal){.host = j->host,
                                      .path = j->path,
                                      .state = j->state,
                                      .header = j->header,
                                      .digest = j->digest,
                                      .files = j->files};
    TRY(r->made ? co_open_made(r) : co_open_existing(r));
    if (!r->resumed) {
        j->state = RECEIVE_GOING;
        j->made = r->made;
        j->header = r->header;
        TRY(co_receive_journal_write(j, e)); /* 2 */
    }
    if (r->made)
        TRY(co_make_keep(&r->make, e));
    return co_grow(r);
}

/* --- the end --- */

/* 4: reads what is in the closed target. */
static int co_verify(struct receive *r)
{
    struct blk_device *dev;
    struct blk_error *e = &r->task.error;
    char text[SUMHASH_TEXT], want[SUMHASH_TEXT];
    struct image i = {.text = r->make.name, .format = r->format, .trust = TRUST_WRITE};
    TRY(r->made ? co_make_look(&r->make, &dev, e) : co_image_open(r->make.tool, &i, &dev, e));
    r->task.job.total += r->header.size;
    int rc = co_hash_disk(dev, r->header.size, HASH_SUMHASH, &r->task.job, text, e);
    sumhash_print(&r->journal.digest, want);
    if (rc == 0 && strcmp(text, want) != 0)
        rc =
            err_set(e, -EBADMSG,
                    "%s is not what was sent: what is sent has changed, or somebody wrote to the "
                    "target, since it was interrupted. Remove %s and begin anew with a full stream",
                    r->make.name, r->journal.path);
    return co_image_close(dev, rc, e);
}

/* Leaks of a run that was killed cost space only: not to mend them is no error. */
static int co_tidy(struct receive *r)
{
    struct blk_check *check = mem_zalloc(sizeof(*check));
    struct blk_error ignored = {0};
    if (!check)
        return err_set(&r->task.error, -ENOMEM, "out of memory");
    check->fix_leaks = true;
    (void)!co_blk_check(r->target, check, &ignored);
    mem_free(check);
    return 0;
}

/* 6. What is written within the same step of the files' clock would not be seen: that is waited
 * for. */
static int co_note_done(struct receive *r)
{
    struct receive_journal *j = &r->journal;
    struct blk_device *dev;
    struct blk_error *e = &r->task.error;
    struct image i = {.text = r->make.name,
                      .format = r->made ? r->make.driver->name : r->format,
                      .trust = TRUST_WRITE};
    co_sleep(CLOCK_STEP_NS);
    TRY(co_image_open(r->make.tool, &i, &dev, e));
    json_decref(j->files);
    j->files = journal_files(dev, true);
    j->state = RECEIVE_DONE;
    return co_image_close(dev, co_receive_journal_write(j, e), e);
}

static int co_finish(struct receive *r)
{
    struct blk_error *e = &r->task.error;
    int rc = co_shrink(r);
    if (rc == 0 && r->resumed)
        rc = co_tidy(r);
    if (rc == 0) {
        rc = co_blk_flush(r->target);
        if (rc < 0)
            err_errno(e, rc, "%s cannot be made durable", r->make.name);
    }
    rc = co_image_close(take(r->target), rc, e);
    if (rc == 0 && r->resumed)
        rc = co_verify(r);
    if (rc == 0 && r->made) { /* 5 */
        r->journal.state = RECEIVE_WHOLE;
        rc = co_receive_journal_write(&r->journal, e);
        if (rc == 0)
            rc = co_name(r);
    }
    return rc;
}

int co_receive_close(struct receive *r, int rc)
{
    struct blk_error *e = &r->task.error;
    if (rc == 0 && !r->finished)
        rc = co_finish(r);
    rc = co_image_close(take(r->target), rc, e);
    if (rc == 0 && (!r->finished || find_format(r) == 0))
        rc = co_note_done(r);
    return rc < 0 ? co_make_end(&r->make, rc, e) : co_image_close(take(r->make.held), rc, e);
}

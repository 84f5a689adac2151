/* SPDX-License-Identifier: BSD-3-Clause */
/* convert_resume.c - convert --resume: a conversion that was interrupted, by whatever, goes on.
 *
 * Beside the target DISK lie meanwhile .DISK.lamina-resume, the image that is being written, and
 * .DISK.lamina-journal, a JSON object: what is converted into what (the plan), and how far it is.
 *
 *   1 The image is made and flushed; only then there is a journal, with nothing done. A run that
 *     finds an image and no journal was cut short while it was made: it is made anew.
 *   2 The image is written as one that others rely on (no BLK_OPEN_FRESH): whenever the run is cut
 *     short, it opens, and shows in each sector what was written or zeroes.
 *   3 After each STEP of the disk nothing is in flight, the image is flushed, and only then the
 *     journal says so: it is replaced by rename, and durable.
 *   4 What lies behind the place in the journal may be there or not. It is all copied again: the
 *     plan names the sources' files by inode, size and time, so it is the same once more, and what
 *     reads zero in them was never written.
 *   5 When all is copied the image is flushed; if it was resumed, space that a killed run had taken
 *     and not used is given back (check, leaks); it is closed; the journal says complete.
 *   6 The image takes its name, the folder is durable, the journal goes. A run that finds a
 *     complete journal and no image was cut short here: the target is there, the journal goes. */
#include "tools/convert.h"
#include "tools/journal.h"

#define STEP (64 * MiB)

/* --- the plan --- */

/* The source's name and size, and every file that it stands on. */
static json_t *source_plan(const char *name, const struct convert_source *s)
{
    return json_pack("{s:s%, s:I, s:o}", "name", name, strlen(name), "bytes", (json_int_t)s->bytes,
                     "files", journal_files(s->dev, false));
}

static json_t *make_plan(const struct convert *c)
{
    json_t *sources = json_array();
    for (size_t i = 0; i < c->count; i++)
        if (json_array_append_new(sources, source_plan(c->names[i], &c->sources[i])) < 0)
            break;
    return json_pack("{s:s, s:O, s:s*, s:s*, s:b, s:I, s:o}", "format", c->make.driver->name,
                     "options", c->make.options, "backing", c->backing, "snapshot", c->snapshot,
                     "compress", c->compress, "sparse", (json_int_t)c->sparse, "sources", sources);
}

/* The journal says now that all before @done is durable. */
static int co_note(struct convert *c, uint64_t done, bool complete)
{
    struct convert_resume *r = &c->resume;
    json_t *tree = json_pack("{s:i, s:O, s:I, s:b}", "version", 1, "plan", r->plan, "done",
                             (json_int_t)done, "complete", complete);
    return co_journal_write(c->make.tool->host, r->journal, tree, &c->task.error);
}

/* --- going on --- */

static int other_plan(struct convert *c)
{
    return err_set(&c->task.error, -EINVAL,
                   "%s is of another conversion, or a source has changed since: remove it to begin "
                   "anew",
                   c->resume.journal);
}

/* Whether @path is there. */
static bool co_is_there(struct convert *c, const char *path)
{
    struct host_stat st;
    return co_host_stat(c->make.tool->host, path, &st) == 0;
}

/* What the journal says: where to go on, or that only the end was missing. */
static int co_take_up(struct convert *c, const json_t *journal)
{
    struct convert_resume *r = &c->resume;
    json_int_t done = json_integer_value(json_object_get(journal, "done"));
    bool complete = json_is_true(json_object_get(journal, "complete"));
    if (!json_equal(json_object_get(journal, "plan"), r->plan) || done < 0 ||
        (uint64_t)done > c->size)
        return other_plan(c);
    r->again = co_is_there(c, c->make.written);
    r->ended = complete && !r->again && co_is_there(c, c->make.path); /* step 6 */
    if (!r->again && !r->ended)
        return err_set(&c->task.error, -ENOENT, "%s is missing: remove %s to begin anew",
                       c->make.written, r->journal);
    r->from = (uint64_t)done;
    return 0;
}

int co_convert_resume_begin(struct convert *c)
{
    struct convert_resume *r = &c->resume;
    struct blk_error *e = &c->task.error;
    json_t *journal = NULL;
    TRY(co_make_place(&c->make, e));
    const char *slash = strrchr(c->make.path, '/');
    r->journal =
        mem_printf("%s/.%s.lamina-journal", c->make.folder, slash ? slash + 1 : c->make.path);
    r->plan = make_plan(c);
    if (!r->journal || !r->plan)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_journal_read(c->make.tool->host, r->journal, &journal, e));
    int rc = journal ? co_take_up(c, journal) : 0;
    json_decref(journal);
    if (rc == 0 && !r->ended && co_is_there(c, c->make.path))
        rc = err_set(e, -EEXIST, "%s exists already: --resume replaces nothing", c->make.name);
    return rc;
}

int co_convert_resume_made(struct convert *c)
{
    if (!c->resume.again)
        TRY(co_convert_resume_note(c, 0));
    return co_make_keep(&c->make, &c->task.error);
}

uint64_t convert_resume_step(uint64_t at)
{
    return align_down(at, STEP) + STEP;
}

int co_convert_resume_note(struct convert *c, uint64_t done)
{
    int rc = co_blk_flush(c->target);
    if (rc < 0)
        return err_errno(&c->task.error, rc, "%s cannot be made durable", c->make.written);
    return co_note(c, done, false);
}

int co_convert_resume_complete(struct convert *c)
{
    struct blk_check *check = mem_zalloc(sizeof(*check));
    struct blk_error ignored = {0};
    if (!check)
        return err_set(&c->task.error, -ENOMEM, "out of memory");
    check->fix_leaks = true;
    if (c->resume.again) /* leaks cost space only: not to mend them is no error */
        (void)!co_blk_check(c->target, check, &ignored);
    mem_free(check);
    return co_convert_resume_note(c, c->size);
}

int co_convert_resume_closed(struct convert *c)
{
    return co_note(c, c->size, true);
}

int co_convert_resume_end(struct convert *c, int rc)
{
    struct convert_resume *r = &c->resume;
    struct host *h = c->make.tool->host;
    if (rc == 0)
        rc = co_host_sync_dir(h, c->make.folder);
    if (rc == 0)
        rc = co_host_unlink(h, r->journal);
    if (rc < 0 && c->task.error.rc == 0)
        err_errno(&c->task.error, rc, "the journal %s cannot be removed", r->journal);
    mem_free(take(r->journal));
    json_decref(take(r->plan));
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* journal.c - what a journal holds, written and read (journal.h). */
#include "tools/journal.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "block/spec.h"

#define JOURNAL_MOST (256 * KiB)
#define FILES_MOST   64

static int co_put(struct host *h, const char *path, const char *text)
{
    struct host_file *f;
    struct vec v = VEC_BUF((void *)text, strlen(text));
    int gone = co_host_unlink(h, path); /* a killed run may have a write to it in flight yet */
    TRY(gone == -ENOENT ? 0 : gone);
    TRY(co_host_open(h, path, NULL, HOST_READ | HOST_WRITE | HOST_CREATE | HOST_EXCLUSIVE, &f));
    int rc = co_host_write(f, 0, &v);
    if (rc == 0)
        rc = co_host_fsync(f);
    co_host_close(f);
    return rc;
}

struct print {
    json_t *tree;
    char *text;
};

static int run_print(void *arg)
{
    struct print *p = arg;
    p->text = p->tree ? json_dumps(p->tree, JSON_COMPACT) : NULL;
    json_decref(p->tree);
    return p->text ? 0 : -ENOMEM;
}

static int co_sync_folder(struct host *h, const char *path)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder =
        slash ? mem_printf("%.*s", (int)MAX(slash - path, 1), path) : mem_strdup(".");
    return folder ? co_host_sync_dir(h, folder) : -ENOMEM;
}

int co_journal_write(struct host *h, const char *path, json_t *tree, struct blk_error *e)
{
    struct print p = {.tree = tree};
    auto_free char *beside = mem_printf("%s.new", path);
    int rc = co_offload(run_print, &p); /* a coroutine's stack is small */
    if (rc == 0)
        rc = beside ? co_put(h, beside, p.text) : -ENOMEM;
    free(p.text);
    if (rc == 0)
        rc = co_host_rename(h, beside, path);
    if (rc == 0)
        rc = co_sync_folder(h, path);
    return rc < 0 ? err_errno(e, rc, "the journal %s", path) : 0;
}

int co_journal_read(struct host *h, const char *path, json_t **out, struct blk_error *e)
{
    struct host_file *f;
    *out = NULL;
    int64_t rc = co_host_open(h, path, NULL, HOST_READ | HOST_REGULAR_OR_BLOCK, &f);
    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return err_errno(e, (int)rc, "%s", path);
    auto_free char *text = mem_zalloc(JOURNAL_MOST + 1);
    struct vec v = VEC_BUF(text, JOURNAL_MOST);
    rc = text ? co_host_read(f, 0, &v) : -ENOMEM;
    co_host_close(f);
    if (rc < 0)
        return err_errno(e, (int)rc, "%s", path);
    rc = co_spec_json(text, out, e);
    return rc < 0 ? err_prefix(e, "%s", path) : 0;
}

/* --- files --- */

static json_t *identity(struct host_file *f, bool strict)
{
    struct stat st;
    int fd = host_fd(f);
    if (fd < 0 || fstat(fd, &st) < 0)
        return json_null();
    const json_int_t facts[] = {(json_int_t)st.st_dev,          (json_int_t)st.st_ino,
                                (json_int_t)st.st_size,         (json_int_t)st.st_mtim.tv_sec,
                                (json_int_t)st.st_mtim.tv_nsec, (json_int_t)st.st_ctim.tv_sec,
                                (json_int_t)st.st_ctim.tv_nsec};
    json_t *list = json_array();
    for (size_t i = 0; list && i < ARRAY_LEN(facts) - (strict ? 0 : 2); i++)
        if (json_array_append_new(list, json_integer(facts[i])) < 0)
            break;
    return list;
}

json_t *journal_files(struct blk_device *dev, bool strict)
{
    struct host_file *file[FILES_MOST];
    unsigned count = blk_host_files(dev, file, ARRAY_LEN(file));
    json_t *files = json_array();
    for (unsigned i = 0; files && i < count; i++)
        if (json_array_append_new(files, identity(file[i], strict)) < 0)
            break;
    return files;
}

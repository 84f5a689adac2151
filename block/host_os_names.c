/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_names.c - names: each call on a thread that may block. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/host_os.h"

struct name_job {
    const char *path, *to;
    struct host_stat *stat;
    char *text;
    char **names;
    size_t count;
};

static int stat_job(void *arg)
{
    struct name_job *job = arg;
    /* Through a descriptor that opens nothing, so that one function knows how to look. */
    int fd = open(job->path, O_PATH | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = os_stat_fd(fd, false, job->stat);
    close(fd);
    if (rc == 0 && job->stat->type == HOST_FILE_BLOCK) {
        fd = open(job->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0) { /* else its size stays unknown */
            rc = os_stat_fd(fd, false, job->stat);
            close(fd);
        }
    }
    return rc;
}

int co_os_stat(struct host *h, const char *path, struct host_stat *out)
{
    struct name_job job = {.path = path, .stat = out};

    return co_blocking(stat_job, &job);
}

static int rename_job(void *arg)
{
    struct name_job *job = arg;

    return rename(job->path, job->to) < 0 ? -errno : 0;
}

int co_os_rename(struct host *h, const char *from, const char *to)
{
    struct name_job job = {.path = from, .to = to};

    return co_blocking(rename_job, &job);
}

static int unlink_job(void *arg)
{
    struct name_job *job = arg;

    return unlink(job->path) < 0 ? -errno : 0;
}

int co_os_unlink(struct host *h, const char *path)
{
    struct name_job job = {.path = path};

    return co_blocking(unlink_job, &job);
}

static int sync_dir_job(void *arg)
{
    struct name_job *job = arg;
    int fd = open(job->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc == -EINVAL ? 0 : rc; /* file systems without such a thing */
}

int co_os_sync_dir(struct host *h, const char *path)
{
    struct name_job job = {.path = path};

    return co_blocking(sync_dir_job, &job);
}

static int realpath_job(void *arg)
{
    struct name_job *job = arg;

    return realpath(job->path, job->text) ? 0 : -errno;
}

int co_os_realpath(struct host *h, const char *path, char **out)
{
    struct name_job job = {.path = path, .text = mem_alloc(PATH_MAX)};

    if (!job.text)
        return -ENOMEM;
    int rc = co_blocking(realpath_job, &job);
    if (rc < 0) {
        mem_free(job.text);
        return rc;
    }
    char *shorter = mem_resize(job.text, strlen(job.text) + 1);
    *out = shorter ? shorter : job.text;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_add(struct name_job *job, const char *name, size_t *room)
{
    if (job->count == *room) {
        size_t wanted = *room ? 2 * *room : 64;
        char **more = mem_resize(job->names, wanted * sizeof(char *));
        if (!more)
            return -ENOMEM;
        job->names = more;
        *room = wanted;
    }
    job->names[job->count] = mem_strdup(name);
    if (!job->names[job->count])
        return -ENOMEM;
    job->count++;
    return 0;
}

static int list_job(void *arg)
{
    struct name_job *job = arg;
    DIR *dir = opendir(job->path);
    struct dirent *entry;
    size_t room = 0;
    int rc = 0;

    if (!dir)
        return -errno;
    while (rc == 0 && (errno = 0, entry = readdir(dir))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
            rc = list_add(job, name, &room);
    }
    if (rc == 0 && errno)
        rc = -errno;
    closedir(dir);
    if (rc == 0 && job->count)
        qsort(job->names, job->count, sizeof(char *), by_name);
    return rc;
}

int co_os_list(struct host *h, const char *path, char ***names, size_t *count)
{
    struct name_job job = {.path = path};
    int rc = co_blocking(list_job, &job);

    if (rc < 0) {
        while (job.count)
            mem_free(job.names[--job.count]);
        mem_free(job.names);
        return rc;
    }
    *names = job.names;
    *count = job.count;
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_lock.c - open file description locks, and the search for who holds one.
 *
 * The kernel does not tell the owner of such a lock (it belongs to an open file, not to a process);
 * /proc/PID/fdinfo/FD lists the locks of each open file, as far as we may read it. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/host_os.h"

static struct flock lock_of(uint64_t offset, uint64_t bytes, short type)
{
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = (off_t)bytes};
}

int os_lock(struct host_file *f, uint64_t offset, uint64_t bytes, int kind)
{
    static const short types[] = {F_UNLCK, F_RDLCK, F_WRLCK};
    struct flock lock = lock_of(offset, bytes, types[kind]);

    if (fcntl(os_file(f)->fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

/* "lock:\t1: OFDLCK  ADVISORY  READ -1 08:01:123 100 100" : true if it overlaps and conflicts. */
static bool line_conflicts(const char *line, uint64_t offset, uint64_t bytes, int kind)
{
    char access[16], last_text[24];
    uint64_t first;

    if (strncmp(line, "lock:", 5) != 0 ||
        sscanf(line + 5, " %*s %*s %*s %15s %*s %*s %" SCNu64 " %23s", access, &first, last_text) !=
            3)
        return false;
    uint64_t last = strcmp(last_text, "EOF") == 0 ? UINT64_MAX : strtoull(last_text, NULL, 10);
    bool overlaps = first < offset + bytes && last >= offset;
    return overlaps && (kind == 2 || strcmp(access, "WRITE") == 0);
}

static bool fd_holds(const char *pid, const char *fd, uint64_t offset, uint64_t bytes, int kind)
{
    char path[80], line[256];
    bool holds = false;

    snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, fd);
    FILE *info = fopen(path, "re");
    if (!info)
        return false;
    while (!holds && fgets(line, sizeof(line), info))
        holds = line_conflicts(line, offset, bytes, kind);
    fclose(info);
    return holds;
}

static bool process_holds(const char *pid, const struct stat *file, int own_fd, uint64_t offset,
                          uint64_t bytes, int kind)
{
    char path[48], name[80];
    bool holds = false;
    struct dirent *entry;
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    DIR *fds = opendir(path);
    if (!fds)
        return false;
    bool own = atoi(pid) == getpid();
    while (!holds && (entry = readdir(fds))) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9' ||
            (own && atoi(entry->d_name) == own_fd))
            continue;
        snprintf(name, sizeof(name), "%s/%.16s", path, entry->d_name);
        holds = stat(name, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino &&
                fd_holds(pid, entry->d_name, offset, bytes, kind);
    }
    closedir(fds);
    return holds;
}

static int find_holder(int fd, uint64_t offset, uint64_t bytes, int kind)
{
    struct dirent *entry;
    struct stat file;
    int pid = 0;

    if (fstat(fd, &file) < 0)
        return 0;
    DIR *proc = opendir("/proc");
    if (!proc)
        return 0;
    while (!pid && (entry = readdir(proc))) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        if (process_holds(entry->d_name, &file, fd, offset, bytes, kind))
            pid = atoi(entry->d_name);
    }
    closedir(proc);
    return pid;
}

int os_lock_test(struct host_file *f, uint64_t offset, uint64_t bytes, int kind, int *holder_pid)
{
    struct flock lock = lock_of(offset, bytes, kind == 2 ? F_WRLCK : F_RDLCK);
    int fd = os_file(f)->fd;

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return -errno;
    if (lock.l_type == F_UNLCK)
        return 0;
    *holder_pid = lock.l_pid > 0 ? lock.l_pid : find_holder(fd, offset, bytes, kind);
    return -EAGAIN;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_stat.c - what a file is: type, size, identity, alignment, and whether its file system
 * ever stalls. */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "block/host_os.h"

static enum host_file_type type_of(mode_t mode)
{
    return S_ISREG(mode)   ? HOST_FILE_REGULAR
           : S_ISBLK(mode) ? HOST_FILE_BLOCK
           : S_ISDIR(mode) ? HOST_FILE_DIRECTORY
                           : HOST_FILE_OTHER;
}

static bool never_stalls(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 &&
           ((uint64_t)fs.f_type == TMPFS_MAGIC || (uint64_t)fs.f_type == RAMFS_MAGIC);
}

static uint32_t sane_align(uint64_t align, uint32_t otherwise)
{
    return is_pow2(align) && align <= 64 * KiB ? (uint32_t)align : otherwise;
}

static void direct_align(int fd, const struct stat *st, struct host_stat *out)
{
    int sector = 0;

    out->request_align = out->memory_align = 4096;
    if (S_ISBLK(st->st_mode) && ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0)
        out->request_align = out->memory_align = sane_align((uint64_t)sector, 4096);
    else
        out->request_align = out->memory_align = sane_align((uint64_t)st->st_blksize, 4096);
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) && stx.stx_dio_offset_align) {
        out->request_align = sane_align(stx.stx_dio_offset_align, out->request_align);
        out->memory_align = sane_align(stx.stx_dio_mem_align, out->memory_align);
    }
#endif
}

int os_stat_fd(int fd, bool direct, struct host_stat *out)
{
    struct stat st;
    uint64_t disk_bytes;

    if (fstat(fd, &st) < 0)
        return -errno;
    *out = (struct host_stat){
        .type = type_of(st.st_mode),
        .size = st.st_size > 0 ? (uint64_t)st.st_size : 0,
        .allocated = (uint64_t)st.st_blocks * 512,
        .device = st.st_dev,
        .inode = st.st_ino,
        .request_align = 1,
        .memory_align = 1,
        .links = (uint32_t)st.st_nlink,
    };
    if (out->type == HOST_FILE_BLOCK) {
        out->device = st.st_rdev; /* the same disk under two names is one */
        out->inode = 0;
        /* Fails on an O_PATH descriptor: then the size stays unknown, 0. */
        if (ioctl(fd, BLKGETSIZE64, &disk_bytes) == 0)
            out->size = disk_bytes;
        out->allocated = out->size;
    }
    out->inline_io = out->type == HOST_FILE_REGULAR && never_stalls(fd);
    if (direct)
        direct_align(fd, &st, out);
    return 0;
}

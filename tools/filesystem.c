/* SPDX-License-Identifier: BSD-3-Clause */
/* filesystem.c - file systems by libblkid, which wants a file descriptor: a file in memory as long
 * as the device, sparse but for the ends, where all signatures lie. */
#include "tools/filesystem.h"

#ifdef HAVE_BLKID

#include <blkid/blkid.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/worker.h"

#define HEAD_BYTES MiB
#define TAIL_BYTES (256 * KiB)
#define STEP_BYTES (64 * KiB)

struct look {
    int fd;
    struct filesystem *out;
};

static void take_value(blkid_probe p, const char *name, char *to, size_t room)
{
    const char *value;
    if (blkid_probe_lookup_value(p, name, &value, NULL) == 0)
        snprintf(to, room, "%s", value);
}

/* On the pool: it may want more stack than a coroutine has. */
static int look(void *arg)
{
    struct look *l = arg;
    blkid_probe p = blkid_new_probe();
    if (!p)
        return 0;
    if (blkid_probe_set_device(p, l->fd, 0, 0) == 0) {
        blkid_probe_enable_superblocks(p, 1);
        blkid_probe_set_superblocks_flags(p, BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID |
                                                 BLKID_SUBLKS_TYPE);
        if (blkid_do_safeprobe(p) == 0) {
            take_value(p, "TYPE", l->out->type, sizeof(l->out->type));
            take_value(p, "LABEL", l->out->label, sizeof(l->out->label));
            take_value(p, "UUID", l->out->uuid, sizeof(l->out->uuid));
        }
    }
    blkid_free_probe(p);
    return 0;
}

/* Copies what can be read of [offset, until). */
static void co_copy(struct blk_device *dev, int fd, uint8_t *buf, uint64_t offset, uint64_t until)
{
    for (; offset < until; offset += STEP_BYTES) {
        uint64_t n = MIN(STEP_BYTES, until - offset);
        if (co_blk_read_buf(dev, offset, buf, n) == 0 && !mem_is_zero(buf, n) &&
            pwrite(fd, buf, n, (off_t)offset) != (ssize_t)n)
            return;
    }
}

void co_filesystem_of(struct blk_device *dev, struct filesystem *out)
{
    auto_free uint8_t *buf = mem_aligned(STEP_BYTES);
    struct look l = {.fd = memfd_create("ends", MFD_CLOEXEC), .out = out};
    *out = (struct filesystem){0};
    if (buf && l.fd >= 0 && dev->size <= INT64_MAX && ftruncate(l.fd, (off_t)dev->size) == 0) {
        uint64_t head = MIN(dev->size, HEAD_BYTES);
        co_copy(dev, l.fd, buf, 0, head);
        co_copy(dev, l.fd, buf, MAX(head, dev->size - MIN(dev->size, TAIL_BYTES)), dev->size);
        (void)co_offload(look, &l);
    }
    if (l.fd >= 0)
        close(l.fd);
}

#else

void co_filesystem_of(struct blk_device *dev, struct filesystem *out)
{
    *out = (struct filesystem){0};
}

#endif

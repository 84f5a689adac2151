/* SPDX-License-Identifier: BSD-3-Clause */
/* file_lock.c - locks on image files that QEMU understands, so that a running machine and we
 * exclude each other.
 *
 * Everybody holds *shared* locks on single bytes of the file (never on its contents' behalf): byte
 * 100 + p says "I use permission p", byte 200 + p says "nobody else may use p". Having taken its
 * own, each looks whether somebody else holds a byte that contradicts: for each p it uses 200 + p,
 * for each p it denies 100 + p. Two who come at once may both be refused, never both let in.
 *
 *   p 0  consistent read    1  write    2  write of unchanged data    3  resize
 *
 * A reader uses 0 and denies 1 and 3; a writer uses 0, 1 and 3 and denies 1 and 3.
 *
 * Who is refused tries again, for a second where nobody is found who holds the lock: of a process
 * that was killed the kernel takes down the rings after it is gone, and its locks with them. */
#include <stdio.h>

#include "block/file.h"

enum { USES = 100, DENIES = 200 };
/* 1 ms, then twice as long each time: a second in all, or a moment where a process has it open. */
enum { LAST_WAIT_MS = 512, LAST_WAIT_HELD_MS = 8 };
enum permission { CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3, PERMISSIONS = 4 };

static const char *const permission_names[PERMISSIONS] = {
    [CONSISTENT_READ] = "consistent read",
    [WRITE] = "write",
    [2] = "write unchanged",
    [RESIZE] = "resize",
};

static unsigned used(struct file_claim c)
{
    return 1u << CONSISTENT_READ | (c.write ? 1u << WRITE | 1u << RESIZE : 0);
}

static unsigned denied(struct file_claim c)
{
    return c.share_all ? 0 : 1u << WRITE | 1u << RESIZE;
}

/* --- who holds it ----------------------------------------------------------------------------- */

/* Reads a small file of /proc; the text ends with a zero byte. */
static bool read_proc(struct host *h, const char *path, char *to, size_t bytes)
{
    struct host_file *f;
    if (co_host_open(h, path, NULL, HOST_READ, &f) < 0)
        return false;
    struct vec v = VEC_BUF(to, bytes - 1);
    int64_t got = co_host_read(f, 0, &v);
    co_host_close(f);
    to[got > 0 ? got : 0] = 0;
    return got > 0;
}

static int refuse(struct host_file *f, const char *name, bool shared, unsigned permission, int pid,
                  struct blk_error *e)
{
    char path[64], program[64] = "", who[128] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    if (pid > 0 && read_proc(f->host, path, program, sizeof(program)))
        program[strcspn(program, "\n")] = 0;
    if (pid > 0)
        snprintf(who, sizeof(who), "Process %d%s%s%s holds it. ", pid, program[0] ? " (" : "",
                 program, program[0] ? ")" : "");
    return err_set(e, -EAGAIN,
                   "Failed to get %s\"%s\" lock\n"
                   "Is another process using the image [%s]?\n"
                   "%sTo read a file in use, say -U (--force-share): what is being written may "
                   "then be seen half done",
                   shared ? "shared " : "", permission_names[permission], name, who);
}

/* --- take, look, let go ----------------------------------------------------------------------- */

static int take_bytes(struct host_file *f, struct file_claim c)
{
    for (unsigned p = 0; p < PERMISSIONS; p++) {
        if (used(c) >> p & 1)
            TRY(host_lock(f, USES + p, 1, 1));
        if (denied(c) >> p & 1)
            TRY(host_lock(f, DENIES + p, 1, 1));
    }
    return 0;
}

/* 0, or the conflict: which byte and whose (*pid; 0: nobody's whom we could find). */
static int look(struct host_file *f, const char *name, struct file_claim c, int *pid,
                struct blk_error *e)
{
    for (unsigned i = 0; i < 2 * PERMISSIONS; i++) {
        unsigned p = i % PERMISSIONS;
        bool shared = i >= PERMISSIONS; /* what we use first, then what we deny */
        if (!((shared ? denied(c) : used(c)) >> p & 1))
            continue;
        *pid = 0;
        int rc = host_lock_test(f, (shared ? USES : DENIES) + p, 1, 2, pid);
        if (rc == -EAGAIN)
            return refuse(f, name, shared, p, *pid, e);
        TRY(rc);
    }
    return 0;
}

void file_unlock(struct host_file *f)
{
    int rc = host_lock(f, USES, PERMISSIONS, 0);
    if (rc == 0)
        rc = host_lock(f, DENIES, PERMISSIONS, 0);
    (void)rc; /* closing lets go of them too */
}

static int co_take(struct host_file *f, const char *name, struct file_claim claim, int *pid,
                   struct blk_error *e)
{
    *pid = 0;
    int rc = take_bytes(f, claim);
    if (rc == -EAGAIN) /* somebody holds one exclusively */
        rc = refuse(f, name, false, claim.write ? WRITE : CONSISTENT_READ, 0, e);
    else if (rc == 0)
        rc = look(f, name, claim, pid, e);
    if (rc == -EAGAIN)
        file_unlock(f);
    return rc;
}

int co_file_lock(struct host_file *f, const char *name, struct file_claim claim,
                 enum file_locking mode, struct blk_error *e)
{
    if (mode == FILE_LOCK_OFF)
        return 0;
    int pid;
    int rc = co_take(f, name, claim, &pid, e);
    for (unsigned ms = 1; rc == -EAGAIN && ms <= (pid ? LAST_WAIT_HELD_MS : LAST_WAIT_MS);
         ms *= 2) {
        co_sleep(ms * 1000000ULL);
        rc = look(f, name, claim, &pid, e); /* without standing in anybody's way */
        if (rc == 0)
            rc = co_take(f, name, claim, &pid, e);
    }
    if (rc == -EAGAIN)
        return rc;
    if (rc == 0 && e)
        *e = (struct blk_error){0};
    if (rc < 0 && mode == FILE_LOCK_AUTO) /* a file system without locks */
        return 0;
    return rc < 0 ? err_errno(e, rc, "%s cannot be locked", name) : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host.c - files, names and locks: every real host, on tmpfs and on a disk file system. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/host.h"
#include "tests/lib/on_host.h"

static const struct row {
    const char *kind;
    bool tmpfs; /* else $TMPDIR or /tmp */
} rows[] = {
    {"threads", true}, {"threads", false}, {"uring", true},
    {"uring", false},  {"aio", true},      {"aio", false},
};

static char dir[200];
static bool tmpfs;

static struct host *self_host(void)
{
    return worker_self()->host;
}

static char *in_dir(const char *name)
{
    static char paths[8][300];
    static unsigned turn;
    char *path = paths[turn++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

/* Runs @fn in a fresh folder on the host of row @i, with two workers. */
static void with_row(int i, int (*fn)(void *))
{
    struct runtime_options o = {.workers = 2};
    struct runtime *rt;
    const char *tmp = getenv("TMPDIR");
    char command[300];

    int rc = host_open(rows[i].kind, &o.host);
    if (rc == -ENOTSUP) {
        printf("skip - %s is not there\n", rows[i].kind);
        return;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_str_eq(host_name(o.host), rows[i].kind);
    tmpfs = rows[i].tmpfs;
    snprintf(dir, sizeof(dir), "%s/host-XXXXXX", tmpfs ? fast_folder() : tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
    ck_assert_int_eq(runtime_run(rt, fn, NULL), 0);
    runtime_close(rt);
    host_close(o.host);
    snprintf(command, sizeof(command), "rm -r '%s'", dir);
    ck_assert_int_eq(system(command), 0);
}

static struct host_file *must_open(const char *name, unsigned flags)
{
    struct host_file *f;

    ck_assert_int_eq(co_host_open(self_host(), in_dir(name), NULL, flags, &f), 0);
    return f;
}

#define NEW (HOST_READ | HOST_WRITE | HOST_CREATE | HOST_EXCLUSIVE | HOST_REGULAR_OR_BLOCK)

static int open_rc(const char *path, const char *beneath, unsigned flags)
{
    struct host_file *f;
    int rc = co_host_open(self_host(), path, beneath, flags, &f);

    co_host_close(f);
    return rc;
}

/* --- contents --------------------------------------------------------------------------------- */

static int contents(void *arg)
{
    struct host_file *f = must_open("file", NEW);
    static uint8_t a[10000], b[10000];
    struct host_stat st;

    memset(a, 0x5a, sizeof(a));
    ck_assert_uint_eq(f->stat.inline_io, tmpfs);
    ck_assert_int_eq(co_host_write(f, 5, &VEC_BUF(a, sizeof(a))), 0);
    ck_assert_int_eq(co_host_read(f, 5, &VEC_BUF(b, sizeof(b))), sizeof(b));
    ck_assert_mem_eq(a, b, sizeof(a));
    ck_assert_int_eq(co_host_read(f, 4005, &VEC_BUF(b, sizeof(b))), 6000);
    ck_assert_int_eq(co_host_read(f, 10005, &VEC_BUF(b, sizeof(b))), 0);
    ck_assert_int_eq(co_host_read(f, 1000000, &VEC_BUF(b, sizeof(b))), 0);
    ck_assert_int_eq(host_read_now(f, 4005, &VEC_BUF(b, sizeof(b))), 6000);
    ck_assert_int_eq(co_host_read(f, 0, &VEC_BUF(b, 0)), 0);
    ck_assert_int_eq(co_host_write(f, INT64_MAX, &VEC_BUF(a, 10)), -EFBIG);
    ck_assert_int_eq(co_host_fsync(f), 0);
    ck_assert_int_eq(co_host_fstat(f, &st), 0);
    ck_assert_uint_eq(st.size, 10005);
    ck_assert_int_eq(co_host_truncate(f, 100), 0);
    ck_assert_int_eq(co_host_fstat(f, &st), 0);
    ck_assert_uint_eq(st.size, 100);
    co_host_close(f);
    f = must_open("file", HOST_READ);
    ck_assert_int_eq(co_host_write(f, 0, &VEC_BUF(a, 10)), -EBADF);
    co_host_close(f);
    ck_assert_int_eq(open_rc(in_dir("file"), NULL, NEW), -EEXIST);
    f = must_open("file", HOST_READ | HOST_WRITE | HOST_TRUNCATE | HOST_REGULAR_OR_BLOCK);
    ck_assert_uint_eq(f->stat.size, 0);
    co_host_close(f);
    return 0;
}

START_TEST(what_was_written_is_read)
{
    with_row(_i, contents);
}
END_TEST

/* Many pieces, more than one system call takes, with empty ones among them. */
static int scattered(void *arg)
{
    struct host_file *f = must_open("file", NEW);
    enum { PIECES = 300 };
    static uint8_t data[PIECES * 100], back[PIECES * 100];
    static struct iovec from[PIECES], to[PIECES];
    size_t at = 0;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    for (unsigned i = 0; i < PIECES; i++) {
        size_t len = i == PIECES - 1 ? sizeof(data) - at : i % 5 ? i % 97 : 0;
        from[i] = (struct iovec){data + at, len};
        to[i] = (struct iovec){back + at, len};
        at += len;
    }
    struct vec v = {.iov = from, .skip = 0, .bytes = sizeof(data)};
    struct vec w = {.iov = to, .skip = 0, .bytes = sizeof(data)};
    ck_assert_int_eq(co_host_write(f, 3, &v), 0);
    ck_assert_int_eq(co_host_read(f, 3, &w), sizeof(data));
    ck_assert_mem_eq(data, back, sizeof(data));
    memset(back, 0, sizeof(back));
    struct vec part = vec_slice(&w, 1234, 20000);
    ck_assert_int_eq(co_host_read(f, 3 + 1234, &part), 20000);
    ck_assert_mem_eq(data + 1234, back + 1234, 20000);
    ck_assert_int_eq(back[1233], 0);
    ck_assert_int_eq(back[21234], 0);
    co_host_close(f);
    return 0;
}

START_TEST(scatter_lists_of_many_pieces)
{
    with_row(_i, scattered);
}
END_TEST

struct slot {
    struct host_file *f;
    unsigned index;
};

static int slot_main(void *arg)
{
    struct slot *s = arg;
    static uint8_t big[256 * 1024];
    uint8_t out[4096], in[4096];

    memset(out, (int)s->index, sizeof(out));
    for (int i = 0; i < 4; i++) {
        TRY(co_host_write(s->f, s->index * 4096ULL, &VEC_BUF(out, sizeof(out))));
        int64_t n = co_host_read(s->f, s->index * 4096ULL, &VEC_BUF(in, sizeof(in)));
        ck_assert_int_eq(n, sizeof(in));
        ck_assert_mem_eq(out, in, sizeof(in));
        if (s->index % 50 == 0)
            TRY(co_host_fsync(s->f));
        if (s->index % 40 == 0)
            TRY(co_host_write(s->f, 16 * MiB, &VEC_BUF(big, sizeof(big))));
    }
    return 0;
}

static int many_at_once(void *arg)
{
    struct host_file *f = arg ? arg : must_open("file", NEW);
    static struct slot slots[2][200];
    unsigned w = worker_self()->index;
    struct co_group g;

    co_group_init(&g, 0);
    for (unsigned i = 0; i < 200; i++) {
        slots[w][i] = (struct slot){f, w * 1000 + i};
        co_group_start(&g, slot_main, &slots[w][i]);
    }
    if (!arg)
        ck_assert_int_eq(co_on(runtime_worker(worker_self()->runtime, 1), many_at_once, f), 0);
    int rc = co_group_wait(&g);
    if (!arg)
        co_host_close(f);
    return rc;
}

START_TEST(hundreds_of_requests_from_two_workers)
{
    with_row(_i, many_at_once);
}
END_TEST

static int direct_slot(void *arg)
{
    struct slot *s = arg;
    uint8_t *out = buf_get(8192), *in = buf_get(8192);
    uint64_t at = s->index * 8192ULL;

    memset(out, (int)s->index + 1, 8192);
    ck_assert_int_eq(co_host_write(s->f, at, &VEC_BUF(out, 8192)), 0);
    ck_assert_int_eq(host_read_now(s->f, at, &VEC_BUF(in, 8192)), -EAGAIN);
    ck_assert_int_eq(co_host_read(s->f, at, &VEC_BUF(in, 8192)), 8192);
    ck_assert_mem_eq(out, in, 8192);
    buf_put(in, 8192);
    buf_put(out, 8192);
    return 0;
}

static int direct(void *arg)
{
    static struct slot slots[400];
    struct host_file *f;
    struct co_group g;

    int rc = co_host_open(self_host(), in_dir("file"), NULL, NEW | HOST_DIRECT, &f);
    if (rc == -EINVAL || tmpfs) { /* tmpfs knows O_DIRECT since Linux 6.6 */
        co_host_close(f);
        return 0;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert(is_pow2(f->stat.request_align) && f->stat.request_align >= 512);
    ck_assert(is_pow2(f->stat.memory_align));
    co_group_init(&g, 0);
    for (unsigned i = 0; i < ARRAY_LEN(slots); i++) {
        slots[i] = (struct slot){f, i};
        co_group_start(&g, direct_slot, &slots[i]);
    }
    ck_assert_int_eq(co_group_wait(&g), 0);
    /* An odd end of the file. */
    ck_assert_int_eq(co_host_truncate(f, 8192 + 1000), 0);
    uint8_t *buf = buf_get(65536);
    ck_assert_int_eq(co_host_read(f, 0, &VEC_BUF(buf, 65536)), 8192 + 1000);
    ck_assert_int_eq(co_host_read(f, 8192, &VEC_BUF(buf, 4096)), 1000);
    ck_assert_int_eq(co_host_read(f, 12288, &VEC_BUF(buf, 4096)), 0);
    co_host_close(f);
    /* What is refused when it is sent. */
    f = must_open("file", HOST_READ | HOST_DIRECT);
    ck_assert_int_eq(co_host_write(f, 0, &VEC_BUF(buf, 4096)), -EBADF);
    ck_assert_int_eq(co_host_read(f, 0, &VEC_BUF(buf, 4096)), 4096);
    buf_put(buf, 65536);
    co_host_close(f);
    return 0;
}

START_TEST(direct_io_more_than_the_ring_holds)
{
    with_row(_i, direct);
}
END_TEST

static int cold(void *arg)
{
    struct host_file *f = must_open("file", NEW);
    uint8_t *a = buf_get(1 << 20), *b = buf_get(1 << 20);

    for (size_t i = 0; i < 1 << 20; i++)
        a[i] = (uint8_t)(i / 4096 + i);
    ck_assert_int_eq(co_host_write(f, 0, &VEC_BUF(a, 1 << 20)), 0);
    ck_assert_int_eq(co_host_fsync(f), 0);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(co_host_advise(f, HOST_DONT_NEED, i * 65536ULL, 1 << 20), 0);
        memset(b, 0xee, 1 << 20);
        ck_assert_int_eq(co_host_read(f, 100, &VEC_BUF(b, 1 << 20)), (1 << 20) - 100);
        ck_assert_mem_eq(a + 100, b, (1 << 20) - 100);
    }
    buf_put(a, 1 << 20);
    buf_put(b, 1 << 20);
    co_host_close(f);
    return 0;
}

START_TEST(reads_that_miss_the_page_cache)
{
    with_row(_i, cold);
}
END_TEST

/* --- space ------------------------------------------------------------------------------------ */

static int holes(void *arg)
{
    struct host_file *f = must_open("file", NEW), *to = must_open("copy", NEW);
    static uint8_t a[65536], b[65536];
    uint64_t end;
    bool data;

    memset(a, 1, sizeof(a));
    ck_assert_int_eq(co_host_extent(f, 0, &data, &end), -ENXIO);
    ck_assert_int_eq(co_host_truncate(f, 1 << 20), 0);
    ck_assert_int_eq(co_host_extent(f, 5, &data, &end), 0);
    ck_assert(!data && end == 1 << 20);
    ck_assert_int_eq(co_host_write(f, 65536, &VEC_BUF(a, sizeof(a))), 0);
    ck_assert_int_eq(co_host_extent(f, 5, &data, &end), 0);
    ck_assert(!data && end == 65536);
    ck_assert_int_eq(co_host_extent(f, 65536, &data, &end), 0);
    ck_assert(data && end == 131072);
    ck_assert_int_eq(co_host_extent(f, 1 << 20, &data, &end), -ENXIO);

    ck_assert_int_eq(co_host_copy(f, 65536, to, 0, 65536), 65536);
    ck_assert_int_eq(co_host_read(to, 0, &VEC_BUF(b, sizeof(b))), sizeof(b));
    ck_assert_mem_eq(a, b, sizeof(b));
    ck_assert_int_eq(co_host_copy(f, 1 << 20, to, 0, 65536), 0);

    ck_assert_int_eq(co_host_fallocate(f, HOST_PUNCH, 65536, 32768), 0);
    ck_assert_int_eq(co_host_extent(f, 5, &data, &end), 0);
    ck_assert(!data && end == 98304);
    int rc = co_host_fallocate(f, HOST_ZERO, 98304, 4096);
    ck_assert(rc == 0 || (tmpfs && rc == -ENOTSUP));
    if (rc == 0) {
        ck_assert_int_eq(co_host_read(f, 98304, &VEC_BUF(b, 4097)), 4097);
        ck_assert(mem_is_zero(b, 4096) && b[4096] == 1);
    }
    ck_assert_int_eq(co_host_fallocate(f, HOST_ALLOCATE, 0, 2 << 20), 0);
    struct host_stat st;
    ck_assert_int_eq(co_host_fstat(f, &st), 0);
    ck_assert_uint_eq(st.size, 2 << 20);
    ck_assert_uint_ge(st.allocated, 2 << 20);
    co_host_close(f);
    co_host_close(to);
    return 0;
}

START_TEST(holes_space_and_copies)
{
    with_row(_i, holes);
}
END_TEST

/* --- names ------------------------------------------------------------------------------------ */

static int names(void *arg)
{
    struct host *h = self_host();
    struct host_stat st;
    char **list, *real;
    size_t count;

    co_host_close(must_open("b", NEW));
    co_host_close(must_open("a", NEW));
    co_host_close(must_open(".", HOST_READ | HOST_WRITE | HOST_TEMPORARY));
    ck_assert_int_eq(co_host_list(h, dir, &list, &count), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(list[0], "a");
    ck_assert_str_eq(list[1], "b");
    mem_free(list[0]);
    mem_free(list[1]);
    mem_free(list);
    ck_assert_int_eq(co_host_list(h, in_dir("none"), &list, &count), -ENOENT);
    ck_assert_int_eq(co_host_rename(h, in_dir("b"), in_dir("a")), 0);
    ck_assert_int_eq(co_host_stat(h, in_dir("b"), &st), -ENOENT);
    ck_assert_int_eq(co_host_stat(h, in_dir("a"), &st), 0);
    ck_assert_int_eq(st.type, HOST_FILE_REGULAR);
    ck_assert_uint_eq(st.links, 1);
    ck_assert_int_eq(co_host_stat(h, dir, &st), 0);
    ck_assert_int_eq(st.type, HOST_FILE_DIRECTORY);
    ck_assert_int_eq(co_host_stat(h, "/dev/null", &st), 0);
    ck_assert_int_eq(st.type, HOST_FILE_OTHER);
    ck_assert_int_eq(co_host_sync_dir(h, dir), 0);
    ck_assert_int_eq(symlink("a", in_dir("link")), 0);
    ck_assert_int_eq(co_host_realpath(h, in_dir("link"), &real), 0);
    ck_assert_str_eq(strrchr(real, '/'), "/a");
    mem_free(real);
    ck_assert_int_eq(co_host_unlink(h, in_dir("a")), 0);
    ck_assert_int_eq(co_host_realpath(h, in_dir("link"), &real), -ENOENT);
    return 0;
}

START_TEST(names_and_directories)
{
    with_row(_i, names);
}
END_TEST

static int careful(void *arg)
{
    const unsigned look = HOST_READ | HOST_REGULAR_OR_BLOCK;

    ck_assert_int_eq(mkfifo(in_dir("fifo"), 0600), 0);
    ck_assert_int_eq(symlink("fifo", in_dir("to-fifo")), 0);
    ck_assert_int_eq(symlink("nowhere", in_dir("dangling")), 0);
    ck_assert_int_eq(open_rc(in_dir("fifo"), NULL, look), -EINVAL);
    ck_assert_int_eq(open_rc(in_dir("fifo"), NULL, look | HOST_WRITE), -EINVAL);
    ck_assert_int_eq(open_rc(in_dir("to-fifo"), NULL, look | HOST_CREATE), -EINVAL);
    ck_assert_int_eq(open_rc("/dev/zero", NULL, look), -EINVAL);
    ck_assert_int_eq(open_rc(dir, NULL, look), -EINVAL);
    ck_assert_int_eq(open_rc(in_dir("none"), NULL, look), -ENOENT);
    ck_assert_int_eq(open_rc(in_dir("dangling"), NULL, NEW), -EEXIST);
    ck_assert_int_eq(
        open_rc(in_dir("dangling"), NULL, HOST_READ | HOST_WRITE | (NEW & ~HOST_EXCLUSIVE)), 0);
    ck_assert_int_eq(open_rc(in_dir("nowhere"), NULL, look), 0);
    return 0;
}

START_TEST(only_files_and_disks_are_opened)
{
    with_row(_i, careful);
}
END_TEST

static int beneath(void *arg)
{
    const unsigned look = HOST_READ | HOST_REGULAR_OR_BLOCK;
    char in[300], link[300];

    strcpy(in, in_dir("in"));
    strcpy(link, in_dir("link-to-in"));
    ck_assert_int_eq(mkdir(in, 0700), 0);
    ck_assert_int_eq(mkdir(in_dir("in/sub"), 0700), 0);
    co_host_close(must_open("out", NEW));
    co_host_close(must_open("in/a", NEW));
    ck_assert_int_eq(symlink("in", link), 0);
    ck_assert_int_eq(symlink("../out", in_dir("in/escape")), 0);
    ck_assert_int_eq(symlink("../a", in_dir("in/sub/back")), 0);
    ck_assert_int_eq(symlink("/proc/self/fd/0", in_dir("in/magic")), 0);
    ck_assert_int_eq(open_rc("a", in, look), 0);
    ck_assert_int_eq(open_rc("a", link, look), 0);
    ck_assert_int_eq(open_rc("./sub/../a", in, look), 0);
    ck_assert_int_eq(open_rc("sub/back", in, look), 0);
    ck_assert_int_eq(open_rc("none", in, look), -ENOENT);
    ck_assert_int_eq(open_rc("../out", in, look), -EXDEV);
    ck_assert_int_eq(open_rc("escape", in, look), -EXDEV);
    ck_assert_int_eq(open_rc("magic", in, look), -EXDEV);
    ck_assert_int_eq(open_rc(in_dir("in/a"), in, look), 0);
    ck_assert_int_eq(open_rc(in_dir("in/a"), link, look), 0);
    ck_assert_int_eq(open_rc(in_dir("link-to-in/a"), in, look), 0);
    ck_assert_int_eq(open_rc(in_dir("in/../out"), in, look), -EXDEV);
    ck_assert_int_eq(open_rc(in_dir("in/escape"), in, look), -EXDEV);
    ck_assert_int_eq(open_rc("/etc/passwd", in, look), -EXDEV);
    ck_assert_int_eq(open_rc("new", in, NEW), 0);
    ck_assert_int_eq(open_rc("../new", in, NEW), -EXDEV);
    return 0;
}

START_TEST(beneath_means_beneath)
{
    with_row(_i, beneath);
}
END_TEST

/* --- locks ------------------------------------------------------------------------------------ */

/* A child that holds an exclusive lock on bytes 100..101 until it is killed. */
static pid_t lock_in_child(const char *path)
{
    int ready[2];
    char c;

    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_start = 100, .l_len = 2};
        int fd = open(path, O_RDWR);
        if (fcntl(fd, F_OFD_SETLK, &lock) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        sleep(20);
        _exit(0);
    }
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static int locks(void *arg)
{
    struct host_file *f = must_open("file", NEW);
    struct host_file *g = must_open("file", HOST_READ | HOST_WRITE);
    int holder;

    ck_assert_int_eq(host_lock(f, 100, 1, 1), 0);
    ck_assert_int_eq(host_lock(g, 100, 1, 1), 0);
    ck_assert_int_eq(host_lock(g, 100, 1, 2), -EAGAIN);
    ck_assert_int_eq(host_lock_test(g, 100, 1, 2, &holder), -EAGAIN);
    ck_assert_int_eq(holder, getpid());
    ck_assert_int_eq(host_lock_test(g, 101, 1, 2, &holder), 0);
    ck_assert_int_eq(host_lock(f, 100, 1, 0), 0);
    ck_assert_int_eq(host_lock(g, 100, 1, 2), 0);
    ck_assert_int_eq(host_lock(f, 100, 1, 1), -EAGAIN);
    co_host_close(g);

    pid_t child = lock_in_child(in_dir("file"));
    ck_assert_int_eq(host_lock(f, 101, 5, 1), -EAGAIN);
    ck_assert_int_eq(host_lock_test(f, 101, 5, 1, &holder), -EAGAIN);
    ck_assert_int_eq(holder, child);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    ck_assert_int_eq(host_lock(f, 101, 5, 1), 0);
    co_host_close(f);
    return 0;
}

START_TEST(locks_exclude_and_name_their_holder)
{
    with_row(_i, locks);
}
END_TEST

/* --- clock and randomness --------------------------------------------------------------------- */

START_TEST(the_environment_names_a_host)
{
    const char *before = getenv(HOST_VARIABLE);
    auto_free char *kept = mem_strdup(before ? before : "");
    struct host *h;

    setenv(HOST_VARIABLE, "threads", 1);
    ck_assert_int_eq(host_open(NULL, &h), 0);
    ck_assert_str_eq(host_name(h), "threads");
    host_close(h);
    setenv(HOST_VARIABLE, "pigeon", 1);
    ck_assert_int_eq(host_open(NULL, &h), -ENOTSUP);
    ck_assert_int_eq(host_open("threads", &h), 0); /* what is said goes before */
    host_close(h);
    setenv(HOST_VARIABLE, "", 1);
    ck_assert_int_eq(host_open(NULL, &h), 0);
    host_close(h);
    setenv(HOST_VARIABLE, kept, 1);
}
END_TEST

START_TEST(the_date_can_be_set_and_uuids_differ)
{
    struct host *h;
    uint8_t a[16], b[16];

    setenv("SOURCE_DATE_EPOCH", "1234567890", 1);
    ck_assert_int_eq(host_open(NULL, &h), 0);
    unsetenv("SOURCE_DATE_EPOCH");
    ck_assert_uint_eq(host_wall_clock(h), 1234567890000000000ULL);
    host_uuid(h, a);
    host_uuid(h, b);
    ck_assert_mem_ne(a, b, 16);
    ck_assert_int_eq(a[6] >> 4, 4);
    ck_assert_int_eq(a[8] >> 6, 2);
    host_close(h);
    ck_assert_int_eq(host_open("pigeon", &h), -ENOTSUP);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("host");
    TCase *tc = tcase_create("host");
    int n = ARRAY_LEN(rows);

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, what_was_written_is_read, 0, n);
    tcase_add_loop_test(tc, scatter_lists_of_many_pieces, 0, n);
    tcase_add_loop_test(tc, hundreds_of_requests_from_two_workers, 0, n);
    tcase_add_loop_test(tc, direct_io_more_than_the_ring_holds, 0, n);
    tcase_add_loop_test(tc, reads_that_miss_the_page_cache, 0, n);
    tcase_add_loop_test(tc, holes_space_and_copies, 0, n);
    tcase_add_loop_test(tc, names_and_directories, 0, n);
    tcase_add_loop_test(tc, only_files_and_disks_are_opened, 0, n);
    tcase_add_loop_test(tc, beneath_means_beneath, 0, n);
    tcase_add_loop_test(tc, locks_exclude_and_name_their_holder, 0, n);
    tcase_add_test(tc, the_environment_names_a_host);
    tcase_add_test(tc, the_date_can_be_set_and_uuids_differ);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

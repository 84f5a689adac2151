/* SPDX-License-Identifier: BSD-3-Clause */
/* file.c - the file driver and raw on it: options, locks, holes, growth, copies, creation. */
#include <check.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/host_sim.h"
#include "imgfmt/raw.h"
#include "tests/lib/on_host.h"

#define FILE_TEST(name)                 \
    static int co_##name(void *arg);    \
    START_TEST(name)                    \
    {                                   \
        on_host(NULL, co_##name, NULL); \
        remove("file-test.a");          \
        remove("file-test.b");          \
    }                                   \
    END_TEST                            \
    static int co_##name(void *arg)

/* A host file of @bytes made outside of the driver. */
static void make_file(const char *name, uint64_t bytes)
{
    int fd = open(name, O_CREAT | O_TRUNC | O_RDWR, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
    close(fd);
}

static int try_file(const char *name, const char *options, unsigned flags, struct blk_device **out,
                    struct blk_error *e)
{
    char text[300];
    snprintf(text, sizeof(text), "filename=%s%s%s", name, options[0] ? "," : "", options);
    return co_try_open_text(&file_driver, text, flags, NULL, out, e);
}

static struct blk_device *open_file(const char *name, const char *options)
{
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    int rc = try_file(name, options, BLK_OPEN_WRITE, &dev, &e);
    ck_assert_msg(rc == 0, "%s: %s", name, e.text);
    return dev;
}

FILE_TEST(what_cannot_be_opened_is_told_why)
{
    struct blk_device *dev;
    struct blk_error e = {0};
    ck_assert_int_eq(try_file("file-test.none", "", 0, &dev, &e), -ENOENT);
    ck_assert_str_eq(e.text, "Could not open 'file-test.none': No such file or directory");
    ck_assert_int_eq(try_file("/dev/null", "", 0, &dev, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.text, "neither a regular file nor a block device"));
    ck_assert_int_lt(try_file(".", "", 0, &dev, &e), 0);
    make_file("file-test.a", 10);
    ck_assert_int_eq(try_file("file-test.a", "cache=warm", 0, &dev, &e), -EINVAL);
    ck_assert_int_eq(try_file("file-test.a", "lokcing=on", 0, &dev, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.text, "locking"));
    return 0;
}

static void refuse(unsigned flags, const char *first_line)
{
    struct blk_device *dev;
    struct blk_error e = {0};
    char pid[32], line[64];
    ck_assert_int_eq(try_file("file-test.a", "", flags, &dev, &e), -EAGAIN);
    snprintf(line, sizeof(line), "%s\n", first_line);
    snprintf(pid, sizeof(pid), "Process %d (", (int)getpid());
    ck_assert_msg(strncmp(e.text, line, strlen(line)) == 0, "%s", e.text);
    ck_assert_ptr_nonnull(strstr(e.text, "\nIs another process using the image [file-test.a]?\n"));
    ck_assert_msg(strstr(e.text, pid) != NULL, "%s", e.text);
    ck_assert_ptr_nonnull(strstr(e.text, "--force-share"));
}

FILE_TEST(a_writer_is_alone_and_readers_share)
{
    struct blk_device *writer, *reader, *other;
    struct blk_error e = {0};
    make_file("file-test.a", 1000);
    writer = open_file("file-test.a", "");
    refuse(0, "Failed to get shared \"write\" lock");
    refuse(BLK_OPEN_WRITE, "Failed to get \"write\" lock");
    ck_assert_int_eq(try_file("file-test.a", "", BLK_OPEN_FORCE_SHARE, &reader, &e), 0);
    co_close_ok(reader);
    ck_assert_int_eq(try_file("file-test.a", "locking=off", 0, &reader, &e), 0);
    co_close_ok(reader);
    ck_assert_int_eq(co_blk_reopen(writer, false, &e), 0);
    ck_assert_int_eq(try_file("file-test.a", "", 0, &reader, &e), 0);
    ck_assert_int_eq(try_file("file-test.a", "", 0, &other, &e), 0);
    refuse(BLK_OPEN_WRITE, "Failed to get \"write\" lock");
    ck_assert_int_eq(co_blk_reopen(writer, true, &e), -EAGAIN); /* and what it had, it keeps */
    ck_assert(!writer->writable);
    co_close_ok(reader);
    co_close_ok(other);
    ck_assert_int_eq(co_blk_reopen(writer, true, &e), 0);
    refuse(0, "Failed to get shared \"write\" lock");
    co_close_ok(writer);
    return 0;
}

/* The bytes that QEMU 7.2 locks for a reader and a writer of a qcow2 (seen in /proc/locks). */
FILE_TEST(the_locked_bytes_are_qemus)
{
    static const struct {
        unsigned flags;
        const char *held; /* of 100..104 and 200..204 */
    } rows[] = {{0, "10000"
                    "01010"},
                {BLK_OPEN_WRITE, "11010"
                                 "01010"}};
    make_file("file-test.a", 1000);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct blk_device *dev;
        struct blk_error e = {0};
        char held[11] = "";
        ck_assert_int_eq(try_file("file-test.a", "", rows[i].flags, &dev, &e), 0);
        int fd = open("file-test.a", O_RDWR);
        for (int p = 0; p < 10; p++) {
            struct flock l = {.l_type = F_WRLCK, .l_start = p < 5 ? 100 + p : 195 + p, .l_len = 1};
            ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &l), 0);
            held[p] = l.l_type == F_UNLCK ? '0' : l.l_type == F_RDLCK ? '1' : 'x';
        }
        close(fd);
        ck_assert_str_eq(held, rows[i].held);
        co_close_ok(dev);
    }
    return 0;
}

/* Locks an open file as a writer does and puts it into a socket: no process has it open any more,
 * as a killed one's when its rings are still there. Closing the socket lets go of it. */
static int lock_in_a_socket(const char *name)
{
    int ends[2];
    union {
        struct cmsghdr head;
        uint8_t room[CMSG_SPACE(sizeof(int))];
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)),
                          .cmsg_level = SOL_SOCKET,
                          .cmsg_type = SCM_RIGHTS}};
    struct iovec one = {.iov_base = "x", .iov_len = 1};
    struct msghdr message = {.msg_iov = &one,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct flock lock = {.l_type = F_RDLCK, .l_start = 201, .l_len = 1};
    int fd = open(name, O_RDWR);
    ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(ends[0], &message, 0), 1);
    close(fd);
    close(ends[0]);
    return ends[1];
}

static void let_go_later(void *arg)
{
    int *socket = arg;
    co_sleep(50000000);
    close(*socket);
    *socket = -1;
}

FILE_TEST(the_lock_of_one_who_is_gone_is_waited_for)
{
    struct blk_device *dev;
    struct blk_error e = {0};
    make_file("file-test.a", 1000);
    int socket = lock_in_a_socket("file-test.a");
    ck_assert_int_eq(try_file("file-test.a", "", BLK_OPEN_WRITE, &dev, &e), -EAGAIN); /* a second */
    ck_assert_ptr_null(strstr(e.text, "Process"));
    ck_assert_int_eq(co_start(let_go_later, &socket), 0);
    ck_assert_int_eq(try_file("file-test.a", "", BLK_OPEN_WRITE, &dev, &e), 0);
    ck_assert_int_eq(socket, -1);
    ck_assert_str_eq(e.text, "");
    co_close_ok(dev);
    return 0;
}

FILE_TEST(nothing_is_truncated_before_the_lock)
{
    struct blk_device *writer, *dev;
    struct blk_error e = {0};
    struct stat st;
    json_t *tree = json_pack("{s:s,s:i}", "filename", "file-test.a", "x-lamina-create",
                             HOST_CREATE | HOST_TRUNCATE);
    make_file("file-test.a", 1000);
    writer = open_file("file-test.a", "");
    ck_assert_int_eq(co_blk_open(&file_driver, NULL, tree, BLK_OPEN_WRITE, NULL, NULL, 0, &dev, &e),
                     -EAGAIN);
    ck_assert_int_eq(stat("file-test.a", &st), 0);
    ck_assert_int_eq(st.st_size, 1000);
    co_close_ok(writer);
    ck_assert_int_eq(co_blk_open(&file_driver, NULL, tree, BLK_OPEN_WRITE, NULL, NULL, 0, &dev, &e),
                     0);
    ck_assert_uint_eq(dev->size, 0);
    co_close_ok(dev);
    json_decref(tree);
    return 0;
}

FILE_TEST(a_directory_contains_what_is_opened_beneath_it)
{
    struct blk_device *dev;
    struct blk_error e = {0};
    make_file("file-test.a", 1000);
    ck_assert_int_eq(mkdir("file-test.d", 0755), 0);
    json_t *tree =
        json_pack("{s:s,s:s}", "filename", "../file-test.a", "x-lamina-beneath", "file-test.d");
    ck_assert_int_eq(co_blk_open(&file_driver, "x", tree, 0, NULL, NULL, 0, &dev, &e), -EXDEV);
    json_decref(tree);
    rmdir("file-test.d");
    return 0;
}

FILE_TEST(holes_are_seen_and_made)
{
    struct blk_device *dev;
    static uint8_t buf[65536];
    struct blk_extent ext;
    make_file("file-test.a", 1 << 20);
    dev = open_file("file-test.a", "");
    memset(buf, 1, sizeof(buf));
    ck_assert_int_eq(co_blk_write_buf(dev, 131072, buf, sizeof(buf), 0), 0);
    ck_assert_int_eq(co_blk_map(dev, 0, 1 << 20, &ext), 0);
    ck_assert(ext.bytes == 131072 && (ext.flags & BLK_EXT_ZERO) && !(ext.flags & BLK_EXT_DATA));
    ck_assert_int_eq(co_blk_map(dev, 131072, 1 << 19, &ext), 0);
    ck_assert(ext.bytes == 65536 && (ext.flags & BLK_EXT_DATA) && ext.child_offset == 131072);
    ck_assert_int_eq(co_blk_map(dev, 196608, 4096, &ext), 0);
    ck_assert(ext.bytes == 4096 && (ext.flags & BLK_EXT_ZERO));
    /* a hole that was seen is not believed once somebody may have written there */
    ck_assert_int_eq(co_blk_write_buf(dev, 200704, buf, 4096, 0), 0);
    ck_assert_int_eq(co_blk_map(dev, 200704, 4096, &ext), 0);
    ck_assert(ext.flags & BLK_EXT_DATA);
    ck_assert_int_eq(co_blk_discard(dev, 131072, 65536), 0);
    ck_assert_int_eq(co_blk_map(dev, 131072, 65536, &ext), 0);
    ck_assert(ext.bytes == 65536 && (ext.flags & BLK_EXT_ZERO));
    ck_assert_int_eq(co_blk_read_buf(dev, 131072, buf, 65536), 0);
    ck_assert(mem_is_zero(buf, 65536));
    struct blk_info info;
    ck_assert_int_eq(co_blk_info(dev, &info, NULL), 0);
    ck_assert_uint_eq(info.actual_size, 4096);
    blk_info_drop(&info);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 0, 65536, BLK_NO_FALLBACK), 0);
    ck_assert_int_eq(co_blk_info(dev, &info, NULL), 0);
    ck_assert_uint_eq(info.actual_size, 4096 + 65536); /* zeroed, space kept */
    blk_info_drop(&info);
    co_close_ok(dev);
    return 0;
}

FILE_TEST(a_file_grows_by_writes_and_raw_on_it_does_not)
{
    struct stat st;
    uint8_t byte = 4;
    struct blk_error e = {0};
    for (unsigned direct = 0; direct < 2; direct++) {
        make_file("file-test.a", 1000);
        struct blk_device *dev = open_file("file-test.a", direct ? "cache=none" : "");
        struct blk_device *raw = co_open_text(&raw_driver, "", dev);
        ck_assert_int_eq(co_blk_write_buf(raw, 1000, &byte, 1, 0), -ENOSPC);
        ck_assert_int_eq(co_blk_write_buf(dev, 123456, &byte, 1, 0), 0);
        ck_assert_uint_eq(dev->size, 123457);
        ck_assert_int_eq(stat("file-test.a", &st), 0);
        ck_assert_int_eq(st.st_size, 123457);
        ck_assert_int_eq(co_blk_resize(raw, 5001, false, &e),
                         -EINVAL); /* raw did not see it grow */
        ck_assert_int_eq(co_blk_resize(raw, 5001, true, &e), 0);
        ck_assert_int_eq(stat("file-test.a", &st), 0);
        ck_assert_int_eq(st.st_size, 5001);
        ck_assert_int_eq(co_blk_resize(raw, 100, false, &e), -EINVAL);
        ck_assert_ptr_nonnull(strstr(e.text, "Use the --shrink option"));
        co_close_ok(raw);
    }
    return 0;
}

FILE_TEST(copies_do_not_change_a_byte)
{
    static uint8_t a[300000], b[300000];
    uint64_t seed = 3;
    struct blk_extent ext;
    fill_random(&seed, a, sizeof(a));
    memset(a + 65536, 0, 131072);
    make_file("file-test.a", sizeof(a));
    make_file("file-test.b", 0);
    struct blk_device *from = co_open_text(&raw_driver, "", open_file("file-test.a", ""));
    struct blk_device *to = open_file("file-test.b", "");
    ck_assert_int_eq(co_blk_write_buf(from, 0, a, 65536, 0), 0);
    ck_assert_int_eq(co_blk_write_buf(from, 196608, a + 196608, sizeof(a) - 196608, 0), 0);
    int rc = co_blk_copy(to, 0, from, 0, sizeof(a));
    if (rc == -ENOTSUP) /* a file system without copies */
        goto done;
    ck_assert_int_eq(rc, 0);
    ck_assert_uint_eq(to->size, sizeof(a));
    ck_assert_int_eq(co_blk_read_buf(to, 0, b, sizeof(b)), 0);
    ck_assert_mem_eq(a, b, sizeof(a));
    ck_assert_int_eq(co_blk_copy(to, 100001, from, 7, 1001), 0);
    memcpy(b + 100001, a + 7, 1001);
    ck_assert_int_eq(co_blk_read_buf(to, 0, a, sizeof(a)), 0);
    ck_assert_mem_eq(a, b, sizeof(a));
    ck_assert_int_eq(co_blk_copy(to, 0, from, sizeof(a), 1), -EINVAL);
    ck_assert_int_eq(co_blk_map(from, 65536, 1000, &ext), 0);
done:
    co_close_ok(from);
    co_close_ok(to);
    return 0;
}

/* Two files one behind the other. */
static struct blk_device *open_two(const char *a, const char *b)
{
    struct blk_child parts[2] = {{"child", open_file(a, "")}, {"child", open_file(b, "")}};
    struct blk_device *dev;
    ck_assert_int_eq(
        co_blk_open(&concat_driver, "two", NULL, BLK_OPEN_WRITE, NULL, parts, 2, &dev, NULL), 0);
    return dev;
}

FILE_TEST(a_copy_may_come_from_many_places)
{
    static uint8_t a[20000], b[20000];
    uint64_t seed = 8;
    make_file("file-test.a", 9001);
    make_file("file-test.b", 10999);
    make_file("file-test.c", 0);
    struct blk_device *two = open_two("file-test.a", "file-test.b");
    struct blk_device *to = open_file("file-test.c", "");
    fill_random(&seed, a, sizeof(a));
    ck_assert_int_eq(co_blk_write_buf(two, 0, a, sizeof(a), 0), 0);
    int rc = co_blk_copy(to, 3, two, 5, 19000);
    if (rc != -ENOTSUP) {
        ck_assert_int_eq(rc, 0);
        ck_assert_int_eq(co_blk_read_buf(to, 3, b, 19000), 0);
        ck_assert_mem_eq(a + 5, b, 19000);
        ck_assert_int_eq(co_blk_copy(two, 1000, to, 3, 18000), 0); /* and go to many */
        ck_assert_int_eq(co_blk_read_buf(two, 0, b, sizeof(b)), 0);
        ck_assert_mem_eq(b + 1000, a + 5, 18000);
        ck_assert_mem_eq(b, a, 1000);
        ck_assert_mem_eq(b + 19000, a + 19000, 1000);
    }
    co_close_ok(two);
    co_close_ok(to);
    remove("file-test.c");
    return 0;
}

/* What no file filled never comes out. */
FILE_TEST(a_file_that_was_cut_behind_our_back_reads_zero)
{
    uint8_t buf[20000];
    make_file("file-test.a", 10000);
    make_file("file-test.b", 10000);
    struct blk_device *two = open_two("file-test.a", "file-test.b");
    memset(buf, 1, sizeof(buf));
    ck_assert_int_eq(co_blk_write_buf(two, 0, buf, sizeof(buf), 0), 0);
    ck_assert_int_eq(truncate("file-test.a", 4000), 0);
    ck_assert_int_eq(truncate("file-test.b", 5000), 0);
    memset(buf, 0xff, sizeof(buf));
    ck_assert_int_eq(co_blk_read_buf(two, 0, buf, sizeof(buf)), 0);
    ck_assert(buf[3999] == 1 && mem_is_zero(buf + 4000, 6000));
    ck_assert(buf[14999] == 1 && mem_is_zero(buf + 15000, 5000));
    memset(buf, 0xff, sizeof(buf));
    ck_assert_int_eq(co_blk_read_buf(two, 2000, buf, 5000), 0); /* in one place */
    ck_assert(buf[1999] == 1 && mem_is_zero(buf + 2000, 3000));
    co_close_ok(two);
    return 0;
}

/* --- on a simulated disk ---------------------------------------------------------------------- */

static struct blk_device *open_sim(const char *name, const char *options)
{
    char text[200];
    struct blk_device *dev;
    snprintf(text, sizeof(text), "filename=%s%s", name, options);
    json_t *tree = json_object();
    struct blk_error e = {0};
    ck_assert_int_eq(opts_text_to_tree(text, NULL, tree, &e), 0);
    json_object_set_new(tree, "x-lamina-create", json_integer(HOST_CREATE));
    int rc = co_blk_open(&file_driver, NULL, tree, BLK_OPEN_WRITE, NULL, NULL, 0, &dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    json_decref(tree);
    return dev;
}

static int flush_it(void *dev)
{
    return co_blk_flush(dev);
}

static int co_sim_flushes(void *arg)
{
    struct host *h = arg;
    struct blk_device *dev = open_sim("/a", "");
    uint8_t byte = 1;
    struct co_group group;
    ck_assert_int_eq(co_blk_write_buf(dev, 0, &byte, 1, 0), 0);
    ck_assert_uint_eq(host_sim_count(h, SIM_FSYNC), 0);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, &byte, 1, BLK_FUA), 0);
    ck_assert_uint_eq(host_sim_count(h, SIM_FSYNC), 1);
    co_group_init(&group, 0);
    for (unsigned i = 0; i < 50; i++)
        co_group_start(&group, flush_it, dev);
    ck_assert_int_eq(co_group_wait(&group), 0);
    /* one that began before the others came, one for all of them */
    ck_assert_uint_eq(host_sim_count(h, SIM_FSYNC), 3);
    struct blk_device *durable = open_sim("/b", ",cache=writethrough");
    ck_assert_int_eq(co_blk_write_buf(durable, 0, &byte, 1, 0), 0);
    ck_assert_int_eq(co_blk_write_buf(durable, 0, &byte, 1, 0), 0); /* in place */
    ck_assert_int_eq(co_blk_write_zeroes(durable, 0, 1, 0), 0);
    ck_assert_uint_eq(host_sim_count(h, SIM_FSYNC), 6);
    struct blk_device *careless = open_sim("/c", ",cache=unsafe");
    ck_assert_int_eq(co_blk_write_buf(careless, 0, &byte, 1, BLK_FUA), 0);
    ck_assert_int_eq(co_blk_flush(careless), 0);
    ck_assert_uint_eq(host_sim_count(h, SIM_FSYNC), 6);
    /* a failed fsync is for ever, and for this file only */
    host_sim_fault(h, &(struct sim_fault){.op = SIM_FSYNC, .nth = 1, .times = 1, .rc = -EIO});
    ck_assert_int_eq(co_blk_flush(dev), -EIO);
    ck_assert_int_eq(co_blk_flush(dev), -EIO);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, &byte, 1, BLK_FUA), -EIO);
    ck_assert_int_eq(co_blk_flush(durable), 0);
    ck_assert_uint_eq(host_sim_fired(h), 1);
    co_close_ok(dev);
    dev = open_sim("/a", "");
    ck_assert_int_eq(co_blk_flush(dev), 0);
    co_close_ok(dev);
    co_close_ok(durable);
    co_close_ok(careless);
    return 0;
}

static int co_sim_errors(void *arg)
{
    struct host *h = arg;
    static uint8_t buf[8000];
    struct blk_child parts[2] = {{"child", open_sim("/a", "")}, {"child", open_sim("/b", "")}};
    struct blk_device *two;
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(co_blk_write_buf(parts[i].dev, 0, buf, 4000, 0), 0);
    ck_assert_int_eq(
        co_blk_open(&concat_driver, "two", NULL, BLK_OPEN_WRITE, NULL, parts, 2, &two, NULL), 0);
    for (unsigned n = 1; n <= 2; n++) {
        host_sim_fault(h, &(struct sim_fault){.op = SIM_READ, .nth = n, .times = 1, .rc = -EIO});
        ck_assert_int_eq(co_blk_read_buf(two, 0, buf, 8000), -EIO);
        host_sim_fault(h,
                       &(struct sim_fault){.op = SIM_WRITE, .nth = n, .times = 1, .rc = -ENOSPC});
        ck_assert_int_eq(co_blk_write_buf(two, 0, buf, 8000, 0), -ENOSPC);
    }
    co_close_ok(two);
    return 0;
}

static int co_sim_device(void *arg)
{
    static uint8_t buf[20000];
    struct blk_device *dev;
    struct blk_extent ext;
    struct blk_error e = {0};
    ck_assert_int_eq(try_file("/dev/sdz", "", BLK_OPEN_WRITE, &dev, &e), 0);
    ck_assert_uint_eq(dev->size, 1 << 20);
    ck_assert(!dev->limits.growable && !dev->limits.fresh_reads_zero);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, sizeof(buf)), 0);
    ck_assert(!mem_is_zero(buf, sizeof(buf)));
    ck_assert_int_eq(co_blk_map(dev, 0, 1 << 20, &ext), 0);
    ck_assert(ext.flags & BLK_EXT_DATA);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 1000, 15000, BLK_MAY_UNMAP), 0);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, sizeof(buf)), 0);
    ck_assert(mem_is_zero(buf + 1000, 15000) && !mem_is_zero(buf, 1000));
    ck_assert(!mem_is_zero(buf + 16000, 4000));
    ck_assert_int_eq(co_blk_write_buf(dev, (1 << 20) - 5, buf, 10, 0), -ENOSPC);
    ck_assert_int_eq(co_blk_resize(dev, 1 << 19, true, &e), -ENOTSUP);
    ck_assert_int_eq(co_blk_discard(dev, 0, 1 << 20), 0);
    ck_assert_int_eq(co_blk_flush(dev), 0);
    co_close_ok(dev);
    return 0;
}

static void on_sim(int (*fn)(void *arg), bool in_order)
{
    struct host *h;
    ck_assert_int_eq(host_sim_open(&(struct sim_options){.seed = 1, .in_order = in_order}, &h), 0);
    ck_assert_int_eq(host_sim_add_device(h, "/dev/sdz", 1 << 20), 0);
    on_this_host(h, fn, h);
    host_close(h);
}

START_TEST(flushes_are_shared_and_their_failure_sticks)
{
    on_sim(co_sim_flushes, false);
}
END_TEST

START_TEST(a_block_device_keeps_its_size_and_forgets_nothing)
{
    on_sim(co_sim_device, false);
}
END_TEST

START_TEST(errors_of_the_disk_come_up_unchanged)
{
    on_sim(co_sim_errors, false);
    on_sim(co_sim_errors, true);
}
END_TEST

/* --- raw -------------------------------------------------------------------------------------- */

static struct blk_device *create_raw(const char *options, uint64_t size, int expected)
{
    struct blk_error e = {0};
    make_file("file-test.a", 0);
    struct blk_device *file = open_file("file-test.a", "");
    struct blk_create c = {.file = file, .size = size};
    ck_assert_int_eq(co_try_create_text(&raw_driver, options, &c, &e), expected);
    return file;
}

FILE_TEST(raw_is_created_as_asked)
{
    static const struct {
        const char *options;
        uint64_t allocated;
    } rows[] = {{"", 0}, {"preallocation=falloc", 131072}, {"preallocation=full", 131072}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct blk_device *file = create_raw(rows[i].options, 130001, 0);
        struct blk_info info;
        ck_assert_uint_eq(file->size, 130001);
        ck_assert_int_eq(co_blk_info(file, &info, NULL), 0);
        ck_assert_uint_eq(info.actual_size, rows[i].allocated);
        blk_info_drop(&info);
        co_close_ok(file);
    }
    return 0;
}

FILE_TEST(a_guest_cannot_make_a_probed_disk_another_format)
{
    make_file("file-test.a", 100000);
    struct blk_child child = {"file", open_file("file-test.a", "")};
    json_t *tree = json_pack("{s:b}", "x-lamina-probed", 1);
    struct blk_device *raw;
    uint8_t zero[1000] = {0};
    ck_assert_int_eq(
        co_blk_open(&raw_driver, "x", tree, BLK_OPEN_WRITE, NULL, &child, 1, &raw, NULL), 0);
    json_decref(tree);
    ck_assert_int_eq(co_blk_write_buf(raw, 0, zero, 1000, 0), 0);
    ck_assert_int_eq(co_blk_write_buf(raw, 511, zero, 2, 0), 0);
    if (blk_find_driver(blk_drivers, "qcow2")) {
        static const uint8_t header[8] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};
        ck_assert_int_eq(co_blk_write_buf(raw, 0, header, 8, 0), -EPERM);
        ck_assert_int_eq(co_blk_write_buf(raw, 512, header, 8, 0), 0);
        ck_assert_int_eq(co_blk_write_buf(raw, 1, header + 1, 7, 0), 0);
        ck_assert_int_eq(co_blk_write_buf(raw, 0, header, 1, 0), -EPERM); /* in two steps */
    }
    co_close_ok(raw);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("file");
    TCase *tc = tcase_create("file");
    tcase_add_test(tc, what_cannot_be_opened_is_told_why);
    tcase_add_test(tc, a_writer_is_alone_and_readers_share);
    tcase_add_test(tc, the_locked_bytes_are_qemus);
    tcase_add_test(tc, the_lock_of_one_who_is_gone_is_waited_for);
    tcase_add_test(tc, nothing_is_truncated_before_the_lock);
    tcase_add_test(tc, a_directory_contains_what_is_opened_beneath_it);
    tcase_add_test(tc, holes_are_seen_and_made);
    tcase_add_test(tc, a_file_grows_by_writes_and_raw_on_it_does_not);
    tcase_add_test(tc, copies_do_not_change_a_byte);
    tcase_add_test(tc, a_copy_may_come_from_many_places);
    tcase_add_test(tc, a_file_that_was_cut_behind_our_back_reads_zero);
    tcase_add_test(tc, flushes_are_shared_and_their_failure_sticks);
    tcase_add_test(tc, a_block_device_keeps_its_size_and_forgets_nothing);
    tcase_add_test(tc, errors_of_the_disk_come_up_unchanged);
    tcase_add_test(tc, raw_is_created_as_asked);
    tcase_add_test(tc, a_guest_cannot_make_a_probed_disk_another_format);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

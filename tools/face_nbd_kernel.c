/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd_kernel.c - qemu-nbd -c and -d: the kernel's nbd device is a client of our own socket.
 *
 * A thread connects, haggles with the oldest option there is (it gives the size and the flags that
 * the kernel wants, and nothing that it does not know), hands the socket to the device, and stays
 * in DO_IT until somebody disconnects. Then it ends the server, as the server's end ends it.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd/proto.h"
#include "tools/face_nbd.h"

#define BLOCK 512u

/* The kernel's own header has the protocol's names once more, as other things than ours. */
enum {
    DEVICE_SET_SOCK = _IO(0xab, 0),
    DEVICE_SET_BLKSIZE = _IO(0xab, 1),
    DEVICE_DO_IT = _IO(0xab, 3),
    DEVICE_CLEAR_SOCK = _IO(0xab, 4),
    DEVICE_CLEAR_QUE = _IO(0xab, 5),
    DEVICE_SET_SIZE_BLOCKS = _IO(0xab, 7),
    DEVICE_DISCONNECT = _IO(0xab, 8),
    DEVICE_SET_FLAGS = _IO(0xab, 10),
};

int nbd_face_disconnect(const struct nbd_face *f, const char *device)
{
    int fd = open(device, O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        tool_error(f->plan.tool, "Cannot open %s: %s", device, strerror(errno));
        return 1;
    }
    ioctl(fd, DEVICE_CLEAR_QUE);
    ioctl(fd, DEVICE_DISCONNECT);
    ioctl(fd, DEVICE_CLEAR_SOCK);
    close(fd);
    printf("%s disconnected\n", device);
    return 0;
}

/* --- the thread --- */

struct haggled {
    uint64_t size;
    uint16_t flags;
};

static bool receive(int fd, void *to, size_t bytes)
{
    return recv(fd, to, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static int haggle(int fd, const char *name, struct haggled *out)
{
    struct nbd_hello hello;
    struct {
        be32 flags;
        struct nbd_option_head option;
    } ask = {.flags = be32_of(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
             .option = {.magic = be64_of(NBD_OPTION_MAGIC),
                        .code = be32_of(NBD_OPT_EXPORT_NAME),
                        .bytes = be32_of((uint32_t)strlen(name))}};
    struct {
        be64 size;
        be16 flags;
    } answer;

    static_assert(sizeof(ask) == 20 && sizeof(answer) == 10, "as on the wire");
    if (!receive(fd, &hello, sizeof(hello)) ||
        send(fd, &ask, sizeof(ask), MSG_NOSIGNAL) != sizeof(ask) ||
        send(fd, name, strlen(name), MSG_NOSIGNAL) != (ssize_t)strlen(name) ||
        !receive(fd, &answer, sizeof(answer)))
        return -EPROTO;
    *out = (struct haggled){be64_get(answer.size), be16_get(answer.flags)};
    return 0;
}

static int connect_to(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(to.sun_path))
        return -ENAMETOOLONG;
    strcpy(to.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)(void *)&to, sizeof(to)) < 0) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    return fd;
}

/* The device takes the socket, and what it has to know. */
static int hand_over(int device, int socket, const struct haggled *h)
{
    int read_only = (h->flags & NBD_FLAG_READ_ONLY) != 0;

    if (ioctl(device, DEVICE_SET_SOCK, (unsigned long)socket) < 0 ||
        ioctl(device, DEVICE_SET_BLKSIZE, (unsigned long)BLOCK) < 0 ||
        ioctl(device, DEVICE_SET_SIZE_BLOCKS, (unsigned long)(h->size / BLOCK)) < 0)
        return -errno;
    if (ioctl(device, DEVICE_SET_FLAGS, (unsigned long)h->flags) < 0 &&
        (errno != ENOTTY || (read_only && ioctl(device, BLKROSET, &read_only) < 0)))
        return -errno;
    return 0;
}

static int attach(struct nbd_face *f, int socket, int *device)
{
    struct haggled h;
    int rc = haggle(socket, f->name, &h);

    if (rc < 0)
        return nbd_face_fail(f, "%s: %s", f->socket, strerror(-rc));
    *device = open(f->device, O_RDWR | O_CLOEXEC);
    if (*device < 0)
        return nbd_face_fail(f, "Failed to open %s: %s", f->device, strerror(errno));
    rc = hand_over(*device, socket, &h);
    return rc < 0 ? nbd_face_fail(f, "%s cannot be set up: %s", f->device, strerror(-rc)) : 0;
}

static int run(struct nbd_face *f, int socket)
{
    int device = -1, rc = attach(f, socket, &device);

    if (rc == 0) {
        if (f->verbose)
            fprintf(stderr, "NBD device %s is now connected to %s\n", f->device,
                    f->plan.offers[0].what);
        serve_around_background(f->serving->around);
        rc = ioctl(device, DEVICE_DO_IT);
        ioctl(device, DEVICE_CLEAR_QUE);
        ioctl(device, DEVICE_CLEAR_SOCK);
    }
    if (device >= 0)
        close(device);
    return rc;
}

static void *kernel_main(void *arg)
{
    struct nbd_face *f = arg;
    int socket = connect_to(f->socket);

    if (socket < 0)
        nbd_face_fail(f, "Failed to connect to '%s': %s", f->socket, strerror(-socket));
    f->kernel_failed = socket < 0 || run(f, socket) < 0;
    if (socket >= 0)
        close(socket);
    kill(getpid(), SIGTERM);
    return NULL;
}

int nbd_face_connect(void *arg, struct serving *s, struct blk_error *e)
{
    struct nbd_face *f = arg;
    int rc;

    f->serving = s;
    rc = pthread_create(&f->kernel, NULL, kernel_main, f);
    if (rc)
        return err_set(e, -rc, "Failed to create client thread: %s", strerror(rc));
    f->kernel_runs = true;
    return 0;
}

void nbd_face_join(struct nbd_face *f)
{
    if (f->kernel_runs)
        pthread_join(f->kernel, NULL);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_around.c - what started the server, and what it starts: sockets handed over by a service
 * manager (or by a client: libnbd's socket activation), notifications, a parent that ends, a
 * command to run, going to the background.
 *
 * The protocols are systemd's: LISTEN_FDS descriptors from 3 on if LISTEN_PID is this process; a
 * datagram to NOTIFY_SOCKET, with descriptors that are to be kept over a restart (FDSTORE=1). */
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/serve.h"

extern char **environ;

/* --- handed over --- */

static long number_in(const char *name)
{
    const char *text = getenv(name);
    char *end;
    long n;

    if (!text || !*text)
        return -1;
    n = strtol(text, &end, 10);
    return *end ? -1 : n;
}

static int take_sockets(struct serve_around *a, struct blk_error *e)
{
    long count = number_in("LISTEN_FDS"), pid = number_in("LISTEN_PID");

    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
    if (pid != (long)getpid() || count <= 0)
        return 0;
    if (count > SERVE_SOCKETS)
        return err_set(e, -EINVAL, "%ld sockets were handed over; at most %d", count,
                       SERVE_SOCKETS);
    for (int fd = 3; fd < 3 + count; fd++) {
        int listening = 0;
        socklen_t bytes = sizeof(listening);

        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) < 0 || !listening)
            return err_set(e, -EINVAL, "descriptor %d was handed over and is no listening socket",
                           fd);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        a->sockets[a->socket_count++] = fd;
    }
    return 0;
}

static bool is_unix_at(int fd, const char *path)
{
    struct sockaddr_un un = {0};
    socklen_t bytes = sizeof(un);

    return getsockname(fd, (struct sockaddr *)(void *)&un, &bytes) == 0 &&
           un.sun_family == AF_UNIX && strncmp(un.sun_path, path, sizeof(un.sun_path)) == 0;
}

/* One of the Internet with that port: what of it the address names was decided when it was made. */
static bool is_at_port(int fd, unsigned long port)
{
    struct sockaddr_storage any = {0};
    socklen_t bytes = sizeof(any);
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (getsockname(fd, (struct sockaddr *)(void *)&any, &bytes) < 0)
        return false;
    memcpy(&v4, &any, sizeof(v4));
    memcpy(&v6, &any, sizeof(v6));
    return (any.ss_family == AF_INET && (port == 0 || ntohs(v4.sin_port) == port)) ||
           (any.ss_family == AF_INET6 && (port == 0 || ntohs(v6.sin6_port) == port));
}

static bool is_at(int fd, const char *address)
{
    const char *colon = strrchr(address, ':');

    if (strncmp(address, "private:", 8) == 0)
        address += 8;
    if (strncmp(address, "unix:", 5) == 0)
        return is_unix_at(fd, address + 5);
    return strncmp(address, "tcp:", 4) == 0 && is_at_port(fd, strtoul(colon + 1, NULL, 10));
}

int serve_around_take(struct serve_around *a, const char *address)
{
    for (unsigned i = 0; i < a->socket_count; i++)
        if (a->sockets[i] >= 0 && is_at(a->sockets[i], address)) {
            int fd = a->sockets[i];

            a->sockets[i] = -1;
            return fd;
        }
    return -1;
}

int serve_around_next(struct serve_around *a)
{
    for (unsigned i = 0; i < a->socket_count; i++)
        if (a->sockets[i] >= 0) {
            int fd = a->sockets[i];

            a->sockets[i] = -1;
            return fd;
        }
    return -1;
}

/* --- the service manager --- */

void serve_around_notify(const struct serve_around *a, const char *text, const int *fds,
                         unsigned count)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(SERVE_SOCKETS * sizeof(int))];
    } control = {0};
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr msg = {.msg_name = &to, .msg_iov = &iov, .msg_iovlen = 1};
    int fd;

    if (!a->notify || strlen(a->notify) >= sizeof(to.sun_path))
        return;
    memcpy(to.sun_path, a->notify, strlen(a->notify));
    if (to.sun_path[0] == '@')
        to.sun_path[0] = 0;
    msg.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(a->notify));
    if (count) {
        struct cmsghdr *c = &control.head;

        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendmsg(fd, &msg, MSG_NOSIGNAL);
    close(fd);
}

/* --- the beginning --- */

int serve_around_begin(struct serve_around *a, struct serve_plan *plan, struct blk_error *e)
{
    const char *notify = getenv("NOTIFY_SOCKET");

    *a = (struct serve_around){.ready_pipe = -1, .parent = getppid()};
    if (plan->exit_with_parent) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() == 1 && a->parent != 1)
            return err_set(e, -ESRCH, "who started this server has ended");
    }
    if (notify && *notify) {
        a->notify = mem_strdup(notify);
        if (!a->notify)
            return err_set(e, -ENOMEM, "out of memory");
    }
    unsetenv("NOTIFY_SOCKET");
    if (plan->keep_sockets && !a->notify)
        return err_set(e, -EINVAL,
                       "--keep-sockets needs a service manager that keeps them (NOTIFY_SOCKET)");
    return take_sockets(a, e);
}

void serve_around_drop(struct serve_around *a)
{
    for (int fd; (fd = serve_around_next(a)) >= 0;)
        close(fd);
    mem_free(a->notify);
    a->notify = NULL;
}

/* --- the background --- */

/* In the parent: 0 when the child says that it is ready, its status when it ends without. */
static int wait_for_child(int pipe_end, pid_t child)
{
    int status;
    char ready;

    if (read(pipe_end, &ready, 1) == 1)
        return 0;
    if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
        return WEXITSTATUS(status);
    return 1;
}

bool serve_around_fork(struct serve_around *a, int *status)
{
    int ends[2];
    pid_t child;

    *status = 1;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return true;
    child = fork();
    if (child < 0)
        return true;
    if (child == 0) {
        close(ends[0]);
        a->ready_pipe = ends[1];
        setsid();
        return false;
    }
    close(ends[1]);
    *status = wait_for_child(ends[0], child);
    return true;
}

void serve_around_background(struct serve_around *a)
{
    int null;

    if (a->ready_pipe < 0)
        return;
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd < 3; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    (void)!write(a->ready_pipe, "r", 1);
    close(a->ready_pipe);
    a->ready_pipe = -1;
}

void serve_around_ready(struct serving *s)
{
    struct serve_around *a = s->around;
    int fds[SERVE_SOCKETS];

    if (s->plan->keep_sockets)
        serve_around_notify(a, "FDSTORE=1\nFDNAME=lamina", fds,
                            nbd_server_share(s->server, fds, SERVE_SOCKETS));
    serve_around_notify(a, "READY=1", NULL, 0);
    if (!s->plan->on_ready)
        serve_around_background(a);
}

int serve_around_label(const char *label, struct blk_error *e)
{
    static const char attribute[] = "/proc/thread-self/attr/sockcreate";
    int fd = open(attribute, O_WRONLY | O_CLOEXEC), rc = 0;

    if (fd < 0 || write(fd, label ? label : "", label ? strlen(label) + 1 : 0) < 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc < 0 && label ? err_set(e, rc, "Cannot set SELinux socket create context to %s: %s",
                                     label, strerror(-rc))
                           : 0;
}

/* --- a command --- */

static const char *part_of(const char *address, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(address, prefix, n) == 0 ? address + n : "";
}

/* What the command may want to know, in our own environment: nobody else reads it. */
static int tell_command(struct serving *s)
{
    const struct nbd_export *x = nbd_server_exports(s->server)->first;
    const char *address = nbd_server_address(s->server), *name = x ? x->name : "";
    const char *tcp = part_of(address, "tcp:");
    auto_free char *uri = serve_uri(s, address, name);

    if (!uri || setenv("uri", uri, 1) < 0 || setenv("exportname", name, 1) < 0 ||
        setenv("unixsocket", part_of(address, "unix:"), 1) < 0 ||
        setenv("port", *tcp ? strrchr(tcp, ':') + 1 : "", 1) < 0)
        return -ENOMEM;
    return 0;
}

int serve_around_run(struct serving *s, struct blk_error *e)
{
    char sh[] = "sh", c[] = "-c", path[] = "/bin/sh";
    char *argv[] = {sh, c, (char *)(uintptr_t)s->plan->run, NULL};
    posix_spawnattr_t attr;
    sigset_t none;
    int rc;

    if (tell_command(s) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none); /* ours are blocked */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    rc = posix_spawn(&s->around->child, path, NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    return rc ? err_errno(e, -rc, "cannot run '%.100s'", s->plan->run) : 0;
}

bool serve_around_ended(struct serve_around *a)
{
    int status;

    if (a->child <= 0 || waitpid(a->child, &status, WNOHANG) != a->child)
        return false;
    a->child = 0;
    a->child_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

void serve_around_end(struct serve_around *a)
{
    if (a->child > 0)
        kill(a->child, SIGTERM);
    a->child = 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_address.c - "unix:PATH" and "tcp:HOST:PORT": listening, accepting, connecting. Names are
 * looked up on the pool, which has the stack for it. */
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/host_os.h"

#define CONNECT_PATIENCE_NS 5000000000ULL /* with a listener whose queue is full */

/* One address to try: enough for both families. */
struct where {
    struct sockaddr_storage addr;
    socklen_t bytes;
};

static const struct sockaddr *sockaddr_of(const struct where *w)
{
    return (const struct sockaddr *)(const void *)&w->addr;
}

/* --- texts ------------------------------------------------------------------------------------ */

static int parse_unix(const char *path, struct where *w)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    if (!*path)
        return -EINVAL;
    if (strlen(path) >= sizeof(un.sun_path))
        return -ENAMETOOLONG;
    strcpy(un.sun_path, path);
    memset(w, 0, sizeof(*w));
    memcpy(&w->addr, &un, sizeof(un));
    w->bytes = sizeof(un);
    return 0;
}

/* "CID:PORT", both numbers. */
static int parse_vsock(const char *text, struct where *w)
{
    struct sockaddr_vm vm = {.svm_family = AF_VSOCK};
    unsigned cid, port;
    char rest;

    if (sscanf(text, "%u:%u%c", &cid, &port, &rest) != 2)
        return -EINVAL;
    vm.svm_cid = cid;
    vm.svm_port = port;
    memset(w, 0, sizeof(*w));
    memcpy(&w->addr, &vm, sizeof(vm));
    w->bytes = sizeof(vm);
    return 0;
}

#define WHERE_MAX 16

struct lookup {
    const char *text; /* HOST:PORT */
    bool passive;
    struct where where[WHERE_MAX];
    unsigned count;
};

/* "HOST:PORT", "[V6]:PORT", ":PORT" (this machine). */
static int split_host_port(const char *text, char *host, size_t room, const char **port)
{
    const char *colon = strrchr(text, ':');

    if (!colon || !colon[1])
        return -EINVAL;
    *port = colon + 1;
    size_t len = (size_t)(colon - text);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (len >= room)
        return -ENAMETOOLONG;
    memcpy(host, text, len);
    host[len] = 0;
    if (len == 0)
        snprintf(host, room, "127.0.0.1");
    return 0;
}

static int lookup_rc(int gai)
{
    return gai == EAI_SYSTEM   ? -errno
           : gai == EAI_MEMORY ? -ENOMEM
           : gai == EAI_AGAIN  ? -EAGAIN
                               : -EADDRNOTAVAIL;
}

static int lookup_job(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (l->passive ? AI_PASSIVE : 0)};
    struct addrinfo *found;
    const char *port;
    char name[256];

    TRY(split_host_port(l->text, name, sizeof(name), &port));
    int gai = getaddrinfo(name, port, &hints, &found);
    if (gai)
        return lookup_rc(gai);
    for (struct addrinfo *a = found; a && l->count < WHERE_MAX; a = a->ai_next) {
        memcpy(&l->where[l->count].addr, a->ai_addr, a->ai_addrlen);
        l->where[l->count++].bytes = a->ai_addrlen;
    }
    freeaddrinfo(found);
    return l->count ? 0 : -EADDRNOTAVAIL;
}

static int co_lookup(const char *address, struct lookup *l)
{
    l->count = 0;
    if (strncmp(address, "unix:", 5) == 0) {
        l->count = 1;
        return parse_unix(address + 5, &l->where[0]);
    }
    if (strncmp(address, "vsock:", 6) == 0) {
        l->count = 1;
        return parse_vsock(address + 6, &l->where[0]);
    }
    if (strncmp(address, "tcp:", 4) != 0)
        return -EINVAL;
    l->text = address + 4;
    return co_pool(worker_self()->runtime->cpu, lookup_job, l);
}

/* The text of a socket's own address (@peer: of the other end's). */
static void describe(int fd, bool peer, char *out, size_t room)
{
    struct where w = {.bytes = sizeof(w.addr)};
    struct sockaddr *addr = (struct sockaddr *)(void *)&w.addr;
    char host[INET6_ADDRSTRLEN + 32], port[16];

    out[0] = 0;
    if ((peer ? getpeername : getsockname)(fd, addr, &w.bytes) < 0)
        return;
    if (addr->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&w.addr;
        snprintf(out, room, "unix:%.*s", (int)sizeof(un->sun_path), un->sun_path);
    } else if (addr->sa_family == AF_VSOCK) {
        const struct sockaddr_vm *vm = (const struct sockaddr_vm *)(const void *)&w.addr;
        snprintf(out, room, "vsock:%u:%u", vm->svm_cid, vm->svm_port);
    } else if (getnameinfo(addr, w.bytes, host, sizeof(host), port, sizeof(port),
                           NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        snprintf(out, room, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
    }
}

/* --- sockets ---------------------------------------------------------------------------------- */

static int socket_for(const struct where *w)
{
    int fd = socket(w->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd < 0 ? -errno : fd;
}

static void no_delay(int fd, int family)
{
    int on = 1;

    if (family == AF_INET || family == AF_INET6)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Gives a stream; takes @fd. */
static int make_stream(struct host *h, int fd, bool peer, struct os_stream **out)
{
    char address[256];

    describe(fd, peer, address, sizeof(address));
    return os_stream_make(h, fd, address, out);
}

/* --- listening -------------------------------------------------------------------------------- */

static int listen_at(const struct where *w, bool private)
{
    int on = 1, fd = socket_for(w);

    if (fd < 0)
        return fd;
    if (private) /* before bind(): the file has these rights from its first moment */
        fchmod(fd, 0600);
    if (w->addr.ss_family == AF_INET || w->addr.ss_family == AF_INET6)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, sockaddr_of(w), w->bytes) < 0 || listen(fd, SOMAXCONN) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static int remember_to_unlink(struct os_stream *s, const char *path)
{
    struct stat st;

    s->unlink_path = mem_strdup(path);
    if (!s->unlink_path || lstat(path, &st) < 0) {
        unlink(path);
        return -ENOMEM;
    }
    s->unlink_device = st.st_dev;
    s->unlink_inode = st.st_ino;
    return 0;
}

int co_os_listen(struct host *h, const char *address, struct host_stream **out)
{
    struct lookup l = {.passive = true};
    struct os_stream *s;
    int fd = -EADDRNOTAVAIL;

    bool private = strncmp(address, "private:", 8) == 0;
    if (private)
        address += 8;
    TRY(co_lookup(address, &l));
    for (unsigned i = 0; i < l.count && fd < 0; i++)
        fd = listen_at(&l.where[i], private);
    if (fd < 0)
        return fd;
    TRY(make_stream(h, fd, false, &s));
    s->pub.listening = true;
    if (l.where[0].addr.ss_family == AF_UNIX) {
        int rc = remember_to_unlink(s, address + 5);
        if (rc < 0) {
            os_stream_close(&s->pub);
            return rc;
        }
    }
    *out = &s->pub;
    return 0;
}

int os_listen_at(struct host *h, int fd, struct host_stream **out)
{
    struct os_stream *s;
    int listening = 0, flags = fcntl(fd, F_GETFL);
    socklen_t bytes = sizeof(listening);

    if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) < 0)
        return -errno;
    if (!listening) {
        close(fd);
        return -EINVAL;
    }
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    TRY(make_stream(h, fd, false, &s));
    s->pub.listening = true;
    s->shared = true;
    *out = &s->pub;
    return 0;
}

/* A connection that failed before we looked at it is the peer's affair, not the listener's. */
static bool accept_again(int error)
{
    return error == EINTR || error == ECONNABORTED || error == EPROTO || error == ENETDOWN ||
           error == EHOSTUNREACH || error == ENETUNREACH || error == ETIMEDOUT;
}

int co_os_accept(struct host_stream *pub, struct host_stream **out)
{
    struct os_stream *listener = container_of(pub, struct os_stream, pub), *s;
    struct where peer;

    for (;;) {
        if (atomic_load(&listener->shut))
            return -ECANCELED;
        peer.bytes = sizeof(peer.addr);
        int fd = accept4(listener->fd, (struct sockaddr *)(void *)&peer.addr, &peer.bytes,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            no_delay(fd, peer.addr.ss_family);
            TRY(make_stream(pub->host, fd, true, &s));
            *out = &s->pub;
            return 0;
        }
        if (accept_again(errno))
            continue;
        if (errno != EAGAIN)
            return atomic_load(&listener->shut) ? -ECANCELED : -errno;
        atomic_fetch_and(&listener->ready, ~(unsigned)HOST_READABLE);
        TRY(co_os_stream_wait(pub, HOST_READABLE, 0));
    }
}

/* --- connecting ------------------------------------------------------------------------------- */

/* A Unix listener whose queue is full gives EAGAIN and no event: ask again. */
static int connect_patiently(int fd, const struct where *w)
{
    uint64_t give_up = worker_now() + CONNECT_PATIENCE_NS, pause = 100000;

    for (;;) {
        if (connect(fd, sockaddr_of(w), w->bytes) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        if (worker_now() >= give_up)
            return -EAGAIN;
        co_sleep(pause);
        pause = MIN(pause * 2, 10000000);
    }
}

static int finish_connect(struct os_stream *s)
{
    int error = 0;
    socklen_t bytes = sizeof(error);

    TRY(co_os_stream_wait(&s->pub, HOST_WRITABLE, 0));
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        return -errno;
    return -error;
}

static int connect_to(struct host *h, const struct where *w, const char *address,
                      struct os_stream **out)
{
    struct os_stream *s;
    int fd = socket_for(w);

    if (fd < 0)
        return fd;
    no_delay(fd, w->addr.ss_family);
    int rc = connect_patiently(fd, w);
    if (rc < 0 && rc != -EINPROGRESS) {
        close(fd);
        return rc;
    }
    TRY(os_stream_make(h, fd, address, &s));
    if (rc < 0)
        rc = finish_connect(s);
    if (rc < 0) {
        os_stream_close(&s->pub);
        return rc;
    }
    *out = s;
    return 0;
}

int co_os_connect(struct host *h, const char *address, struct host_stream **out)
{
    struct lookup l = {.passive = false};
    struct os_stream *s = NULL;
    int rc = -EADDRNOTAVAIL;

    TRY(co_lookup(address, &l));
    for (unsigned i = 0; i < l.count && !s; i++)
        rc = connect_to(h, &l.where[i], address, &s);
    if (s)
        *out = &s->pub;
    return s ? 0 : rc;
}

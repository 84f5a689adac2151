/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_least.c - an NBD server that does the least that can be done with a request: what no server
 * over this kernel's sockets and files can be faster than. Used by bench/thin and bench/nbd.
 *
 *   nbd_least SOCKET FILE [BYTES|copy]
 *
 * One client, one thread, one buffer. The payload of a write is received into that and written at
 * once to FILE, whose BYTES have all been taken before; each write goes behind the last one,
 * wherever the client wanted it. Answers go out when no request is waiting. A flush is an
 * fdatasync(). Without BYTES FILE is read as it is: a small read is a recv() that waits, a pread()
 * and a send(); a long one a recv(), a send() of the header and a sendfile(), or with "copy" as a
 * small one. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd/proto.h"

#define ANSWERS 64u
#define ROOM    (4u << 20) /* of a payload */
#define PAGE    4096u
#define LONG    (32u << 10) /* reads that are not copied */

struct least {
    int client, file;
    uint64_t size, next; /* next: where the next write goes */
    uint8_t *buf;
    struct nbd_simple_reply answers[ANSWERS];
    unsigned count;
    bool copies; /* reads of any length */
};

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "nbd_least: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void recv_whole(const struct least *l, void *to, size_t bytes)
{
    if (bytes == 0)
        return;
    check(bytes <= ROOM, "too long");
    check(recv(l->client, to, bytes, MSG_WAITALL) == (ssize_t)bytes, "recv");
}

static void send_whole(const struct least *l, const void *from, size_t bytes)
{
    check(send(l->client, from, bytes, MSG_NOSIGNAL) == (ssize_t)bytes, "send");
}

static void answer_option(const struct least *l, uint32_t code, uint32_t type, uint32_t bytes)
{
    struct nbd_option_reply r = {.magic = be64_of(NBD_OPT_REPLY_MAGIC),
                                 .code = be32_of(code),
                                 .type = be32_of(type),
                                 .bytes = be32_of(bytes)};
    send_whole(l, &r, sizeof(r));
}

/* Refuses all options up to NBD_OPT_GO. */
static void shake_hands(struct least *l)
{
    struct nbd_hello hello = {.magic = be64_of(NBD_MAGIC),
                              .option_magic = be64_of(NBD_OPTION_MAGIC),
                              .flags = be16_of(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)};
    struct nbd_info_export info = {.type = be16_of(NBD_INFO_EXPORT),
                                   .size = be64_of(l->size),
                                   .flags = be16_of(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH)};
    struct nbd_option_head head;
    be32 flags;

    send_whole(l, &hello, sizeof(hello));
    recv_whole(l, &flags, sizeof(flags));
    for (;;) {
        recv_whole(l, &head, sizeof(head));
        recv_whole(l, l->buf, be32_get(head.bytes));
        if (be32_get(head.code) == NBD_OPT_GO)
            break;
        answer_option(l, be32_get(head.code), NBD_REP_ERR_UNSUP, 0);
    }
    answer_option(l, NBD_OPT_GO, NBD_REP_INFO, sizeof(info));
    send_whole(l, &info, sizeof(info));
    answer_option(l, NBD_OPT_GO, NBD_REP_ACK, 0);
}

static void send_answers(struct least *l)
{
    if (l->count)
        send_whole(l, l->answers, l->count * sizeof(l->answers[0]));
    l->count = 0;
}

/* False: the client is gone. */
static bool next_request(struct least *l, struct nbd_request_wire *r)
{
    struct pollfd p = {.fd = l->client, .events = POLLIN};
    ssize_t n;

    while ((n = recv(l->client, r, sizeof(*r), l->count ? MSG_DONTWAIT : 0)) < 0 &&
           errno == EAGAIN) {
        send_answers(l);
        check(poll(&p, 1, -1) == 1, "poll");
    }
    if (n <= 0)
        return false;
    recv_whole(l, (uint8_t *)r + n, sizeof(*r) - (size_t)n);
    return be16_get(r->type) != NBD_CMD_DISC;
}

static void write_next(struct least *l, uint32_t bytes)
{
    recv_whole(l, l->buf, bytes);
    l->next = l->next + bytes <= l->size ? l->next : 0;
    check(pwrite(l->file, l->buf, bytes, (off_t)l->next) == (ssize_t)bytes, "write");
    l->next += bytes;
}

static void read_there(struct least *l, const struct nbd_request_wire *r)
{
    struct nbd_simple_reply head = {.magic = be32_of(NBD_SIMPLE_MAGIC), .cookie = r->cookie};
    uint32_t bytes = be32_get(r->length);
    off_t at = (off_t)be64_get(r->offset);
    ssize_t n;

    if (bytes < LONG || l->copies) {
        uint8_t *to = l->buf + PAGE;
        check(bytes <= ROOM - PAGE, "too long");
        memcpy(to - sizeof(head), &head, sizeof(head));
        check(pread(l->file, to, bytes, at) == (ssize_t)bytes, "read");
        send_whole(l, to - sizeof(head), sizeof(head) + bytes);
        return;
    }
    check(send(l->client, &head, sizeof(head), MSG_NOSIGNAL | MSG_MORE) == sizeof(head), "send");
    for (; bytes; bytes -= (uint32_t)n) {
        n = sendfile(l->client, l->file, &at, bytes);
        check(n > 0, "sendfile");
    }
}

static void serve(struct least *l)
{
    struct nbd_request_wire r;

    while (next_request(l, &r)) {
        if (be16_get(r.type) == NBD_CMD_READ) {
            read_there(l, &r);
            continue;
        }
        if (be16_get(r.type) == NBD_CMD_WRITE)
            write_next(l, be32_get(r.length));
        else
            check(be16_get(r.type) == NBD_CMD_FLUSH && fdatasync(l->file) == 0, "flush");
        l->answers[l->count++] =
            (struct nbd_simple_reply){.magic = be32_of(NBD_SIMPLE_MAGIC), .cookie = r.cookie};
        if (l->count == ANSWERS)
            send_answers(l);
    }
}

static void open_file(struct least *l, const char *name, const char *bytes)
{
    struct stat st;

    l->file =
        open(name, bytes ? O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0600);
    check(l->file >= 0 && fstat(l->file, &st) == 0, name);
    l->size = bytes ? strtoull(bytes, NULL, 0) : (uint64_t)st.st_size;
    check(!bytes || fallocate(l->file, 0, 0, (off_t)l->size) == 0, name);
}

int main(int argc, char **argv)
{
    static struct least l;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), room = 1 << 20;

    if (argc < 3 || argc > 4)
        return 2;
    l.buf = aligned_alloc(4096, ROOM);
    check(l.buf, "memory");
    l.copies = argc == 4 && strcmp(argv[3], "copy") == 0;
    open_file(&l, argv[2], l.copies ? NULL : argv[3]);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", argv[1]);
    check(s >= 0 && bind(s, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(s, 1) == 0, argv[1]);
    l.client = accept(s, NULL, NULL);
    check(l.client >= 0 && setsockopt(l.client, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) == 0,
          "accept");
    shake_hands(&l);
    serve(&l);
    return 0;
}

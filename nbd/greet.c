/* SPDX-License-Identifier: BSD-3-Clause */
/* greet.c - the handshake of one client: feeds the machine of handshake.c from the stream, and does
 * what takes time for it: the TLS handshake (on the pool), looking into folders, opening exports.
 */
#include <stdio.h>

#include "nbd/connection.h"
#include "nbd/handshake.h"
#include "nbd/server.h"
#include "nbd/source.h"
#include "nbd/tls.h"

static int co_send_all(struct nbd_conn *c, const uint8_t *from, size_t bytes)
{
    while (bytes) {
        struct iovec iov = {.iov_base = (void *)from, .iov_len = bytes};
        int64_t n = host_stream_sendv(c->stream, &iov, 1);

        if (n == -EAGAIN) {
            TRY(co_host_stream_wait(c->stream, HOST_WRITABLE, 0));
            continue;
        }
        if (n < 0)
            return (int)n;
        from += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int64_t co_recv_some(struct nbd_conn *c, uint8_t *to, size_t bytes)
{
    int64_t n;

    while ((n = host_stream_recv(c->stream, to, bytes)) == -EAGAIN)
        TRY(co_host_stream_wait(c->stream, HOST_READABLE, 0));
    return n == 0 ? -ECONNRESET : n;
}

/* A host's address without the port; of a Unix socket the process. */
static void describe_host(struct host_stream *s, struct nbd_peer *p)
{
    const char *address = host_stream_address(s);
    const char *colon = strrchr(address, ':');
    struct host_peer who;

    host_stream_peer(s, &who);
    p->uid = who.uid;
    if (strncmp(address, "unix:", 5) == 0 && who.pid > 0)
        snprintf(p->host, sizeof(p->host), "process %lld", (long long)who.pid);
    else
        snprintf(p->host, sizeof(p->host), "%.*s", (int)(colon ? colon - address : 0), address);
}

static int co_secure(struct nbd_conn *c, struct nbd_handshake *h, struct nbd_peer *peer)
{
    struct host_stream *sealed;

    TRY(co_nbd_tls_begin(nbd_server_tls(c->server), c->stream, &sealed, peer));
    c->stream = sealed;
    nbd_peer_name_host(peer);
    nbd_handshake_secured(h);
    return 0;
}

/* An export that cannot be had is unknown to the client; why, the server says. */
static void co_fetch_export(struct nbd_handshake *h, struct nbd_exports *all)
{
    struct nbd_export *x = NULL;
    struct blk_error e = {0};

    if (co_nbd_sources_open(all, h->wanted, h->peer, &x, &e) < 0)
        x = NULL;
    nbd_handshake_fetched(h, x, NULL);
}

static void co_fetch_contexts(struct nbd_handshake *h)
{
    struct nbd_contexts *list;

    if (co_nbd_contexts_of(h->about->dev, h->about->shown, &list) < 0)
        list = NULL;
    nbd_handshake_knows(h, list);
}

static void co_fetch(struct nbd_handshake *h, struct nbd_exports *all, struct nbd_names *names)
{
    if (h->want == NBD_WANT_EXPORT)
        co_fetch_export(h, all);
    else if (h->want == NBD_WANT_CONTEXTS)
        co_fetch_contexts(h);
    else
        nbd_handshake_fetched(h, NULL, co_nbd_sources_list(all, h->peer, names) < 0 ? NULL : names);
}

/* Eats the message that is there, if it is whole. */
static size_t co_feed(struct nbd_conn *c, struct nbd_handshake *h, const uint8_t *in, size_t have)
{
    struct nbd_exports *all = nbd_server_exports(c->server);
    struct nbd_names names = {0};
    size_t used;

    while (used = nbd_handshake_feed(h, in, have), h->want != NBD_WANT_NOTHING)
        co_fetch(h, all, &names);
    nbd_names_drop(&names);
    return used;
}

/* Feeds the handshake until it is through. *have bytes are left over in @in. */
static int co_haggle(struct nbd_conn *c, struct nbd_handshake *h, struct nbd_peer *peer,
                     uint8_t *in, size_t *have)
{
    for (;;) {
        size_t used;
        int64_t n;

        TRY(co_send_all(c, h->out, h->out_bytes));
        nbd_handshake_sent(h);
        if (h->phase == NBD_PHASE_TRANSMIT)
            return 0;
        if (h->phase == NBD_PHASE_CLOSE)
            return -ECONNRESET;
        if (h->phase == NBD_PHASE_SECURE) {
            assert(*have == 0);
            TRY(co_secure(c, h, peer));
        }
        used = co_feed(c, h, in, *have);
        *have -= used;
        memmove(in, in + used, *have);
        if (used)
            continue;
        n = co_recv_some(c, in + *have, NBD_GREET_IN - *have);
        if (n < 0)
            return (int)n;
        *have += (size_t)n;
    }
}

static void take_over(struct nbd_conn *c, struct nbd_handshake *h)
{
    c->export = h->chosen;
    c->writer = h->writer;
    h->chosen = NULL;
    h->writer = NULL;
    c->contexts = nbd_contexts_ref(h->agreed_of);
    c->session = (struct nbd_session){
        .structured = h->structured,
        .extended = h->extended,
        .agreed = h->agreed,
        .align = h->asked_block_size ? nbd_facts_now(&c->export->facts).min_block : 1,
    };
}

int co_nbd_greet(struct nbd_conn *c, uint8_t *left, size_t *bytes)
{
    struct nbd_peer peer = {.uid = -1};
    struct nbd_handshake h;
    int rc;

    describe_host(c->stream, &peer);
    rc = nbd_handshake_begin(&h, nbd_server_exports(c->server), &peer,
                             nbd_server_tls_mode(c->server));
    if (rc == 0)
        rc = co_haggle(c, &h, &peer, left, bytes);
    if (rc == 0 && (c->broken || h.chosen->gone))
        rc = -ECANCELED;
    if (rc == 0)
        take_over(c, &h);
    nbd_handshake_drop(&h);
    nbd_peer_drop(&peer);
    return rc;
}

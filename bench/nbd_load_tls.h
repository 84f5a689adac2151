/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_load_tls.h - a socket of nbd_load.c, in the clear or under TLS with a pre-shared key. */
#ifndef BENCH_NBD_LOAD_TLS_H
#define BENCH_NBD_LOAD_TLS_H

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#if HAVE_GNUTLS
#include <gnutls/gnutls.h>

/* A session as "bench" with the key @hex, kept to the end of the program; NULL: it did not come
 * about. */
static inline void *tls_start(int fd, const char *hex)
{
    gnutls_datum_t key = {(unsigned char *)(uintptr_t)hex, (unsigned)strlen(hex)};
    gnutls_psk_client_credentials_t who;
    gnutls_session_t tls;
    int rc;

    if (gnutls_psk_allocate_client_credentials(&who) < 0 ||
        gnutls_psk_set_client_credentials(who, "bench", &key, GNUTLS_PSK_KEY_HEX) < 0 ||
        gnutls_init(&tls, GNUTLS_CLIENT) < 0)
        return NULL;
    gnutls_set_default_priority_append(tls, "+ECDHE-PSK:+DHE-PSK:+PSK", NULL, 0);
    gnutls_credentials_set(tls, GNUTLS_CRD_PSK, who);
    gnutls_transport_set_int(tls, fd);
    do
        rc = gnutls_handshake(tls);
    while (rc < 0 && !gnutls_error_is_fatal(rc));
    return rc < 0 ? NULL : tls;
}

/* As recv() and send(); @tls: NULL for none. */
static inline ssize_t recv_some(int fd, void *tls, void *to, size_t bytes)
{
    return tls ? gnutls_record_recv(tls, to, bytes) : recv(fd, to, bytes, 0);
}

static inline ssize_t send_some(int fd, void *tls, const void *from, size_t bytes)
{
    return tls ? gnutls_record_send(tls, from, bytes) : send(fd, from, bytes, MSG_NOSIGNAL);
}
#else
static inline void *tls_start(int fd, const char *hex)
{
    return NULL;
}

static inline ssize_t recv_some(int fd, void *tls, void *to, size_t bytes)
{
    return recv(fd, to, bytes, 0);
}

static inline ssize_t send_some(int fd, void *tls, const void *from, size_t bytes)
{
    return send(fd, from, bytes, MSG_NOSIGNAL);
}
#endif

#endif

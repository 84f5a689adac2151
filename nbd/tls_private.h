/* SPDX-License-Identifier: BSD-3-Clause */
/* tls_private.h - between tls.c and tls_stream.c. */
#ifndef NBD_TLS_PRIVATE_H
#define NBD_TLS_PRIVATE_H

#include "nbd/tls.h"

#if HAVE_GNUTLS

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct nbd_tls {
    gnutls_certificate_credentials_t x509; /* NULL: none */
    gnutls_psk_server_credentials_t psk;   /* NULL: none */
    gnutls_priority_t priority;
    bool any_client; /* a client with no certificate may come, and certificates say nothing */
    gnutls_typed_vdata_st purpose[1]; /* what a client's certificate has to be for */
};

/* A session that has not said anything yet. */
must_use int nbd_tls_session(struct nbd_tls *t, gnutls_session_t *out);
/* Fills @peer from what the handshake proved. */
must_use int nbd_tls_who(struct nbd_tls *t, gnutls_session_t session, struct nbd_peer *peer);

#endif
#endif

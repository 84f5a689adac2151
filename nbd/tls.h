/* SPDX-License-Identifier: BSD-3-Clause */
/* tls.h - the server's side of TLS, by GnuTLS: credentials from a folder, and a stream that seals
 * what goes through another one.
 *
 * The folder has the names that libvirt and QEMU use:
 *
 *   server-cert.pem, server-key.pem   X.509
 *   ca-cert.pem                       who signs clients' certificates; every client has to show one
 *   ca-crl.pem                        certificates that were revoked
 *   keys.psk                          lines IDENTITY:HEX, as `psktool` writes them
 *
 * One or both kinds may be there. TLS 1.2 and 1.3 only. */
#ifndef NBD_TLS_H
#define NBD_TLS_H

#include "block/host.h"
#include "nbd/zone.h"

struct nbd_tls;

struct nbd_tls_options {
    const char *folder;
    bool any_client;          /* X.509: clients need no certificate */
    const char *priority;     /* GnuTLS's words; NULL: its NORMAL */
    bool want_x509, want_psk; /* only this kind, which has to be there; neither: what is there */
};

/* Reads files: at the start, or on the pool. -ENOTSUP in a build without GnuTLS. */
must_use int nbd_tls_open(const struct nbd_tls_options *o, struct nbd_tls **out,
                          struct blk_error *e);
void nbd_tls_close(struct nbd_tls *t); /* NULL: nothing */
/* The handshake over @inner, then *out stands in its place (and closes it); @peer gets the names
 * that were proved. On failure @inner stays the caller's. May be shut down meanwhile. */
must_use int co_nbd_tls_begin(struct nbd_tls *t, struct host_stream *inner,
                              struct host_stream **out, struct nbd_peer *peer);

#endif

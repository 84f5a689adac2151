/* SPDX-License-Identifier: BSD-3-Clause */
/* tls.c - credentials: which keys the server has, whom it believes, and who a client has proved to
 * be. The stream is tls_stream.c's. */
#include "nbd/tls_private.h"

#if HAVE_GNUTLS

#include <stdio.h>
#include <unistd.h>

/* --- from a folder --- */

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

static char *path_of(const struct nbd_tls_options *o, const char *name)
{
    return mem_printf("%s/%s", o->folder, name);
}

static int refused(struct blk_error *e, const char *path, int rc)
{
    return err_set(e, -EINVAL, "%s: %s", path, gnutls_strerror(rc));
}

/* ca-cert.pem and ca-crl.pem: which clients are believed. */
static int load_authorities(struct nbd_tls *t, const struct nbd_tls_options *o, struct blk_error *e)
{
    auto_free char *ca = path_of(o, "ca-cert.pem"), *crl = path_of(o, "ca-crl.pem");
    int rc;

    if (!ca || !crl)
        return err_set(e, -ENOMEM, "out of memory");
    t->any_client = o->any_client;
    if (!there(ca) && o->any_client)
        return 0;
    rc = gnutls_certificate_set_x509_trust_file(t->x509, ca, GNUTLS_X509_FMT_PEM);
    if (rc <= 0)
        return refused(e, ca, rc < 0 ? rc : GNUTLS_E_NO_CERTIFICATE_FOUND);
    if (there(crl)) {
        rc = gnutls_certificate_set_x509_crl_file(t->x509, crl, GNUTLS_X509_FMT_PEM);
        if (rc < 0)
            return refused(e, crl, rc);
    }
    return 0;
}

static int load_x509(struct nbd_tls *t, const struct nbd_tls_options *o, struct blk_error *e)
{
    auto_free char *cert = path_of(o, "server-cert.pem"), *key = path_of(o, "server-key.pem");
    int rc;

    if (!cert || !key)
        return err_set(e, -ENOMEM, "out of memory");
    if (o->want_psk || (!o->want_x509 && !there(cert)))
        return 0;
    if (gnutls_certificate_allocate_credentials(&t->x509) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    rc = gnutls_certificate_set_x509_key_file(t->x509, cert, key, GNUTLS_X509_FMT_PEM);
    if (rc < 0)
        return err_set(e, -EINVAL, "%s with %s: %s", cert, "server-key.pem", gnutls_strerror(rc));
    gnutls_certificate_set_known_dh_params(t->x509, GNUTLS_SEC_PARAM_MEDIUM);
    return load_authorities(t, o, e);
}

static int load_psk(struct nbd_tls *t, const struct nbd_tls_options *o, struct blk_error *e)
{
    auto_free char *keys = path_of(o, "keys.psk");
    int rc;

    if (!keys)
        return err_set(e, -ENOMEM, "out of memory");
    if (o->want_x509 || (!o->want_psk && !there(keys)))
        return 0;
    if (access(keys, R_OK) < 0)
        return err_errno(e, -errno, "%s", keys);
    if (gnutls_psk_allocate_server_credentials(&t->psk) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    rc = gnutls_psk_set_server_credentials_file(t->psk, keys);
    if (rc < 0)
        return refused(e, keys, rc);
    gnutls_psk_set_server_known_dh_params(t->psk, GNUTLS_SEC_PARAM_MEDIUM);
    return 0;
}

static int set_priority(struct nbd_tls *t, const struct nbd_tls_options *o, struct blk_error *e)
{
    auto_free char *words =
        mem_printf("%s:-VERS-TLS1.0:-VERS-TLS1.1:-VERS-DTLS-ALL%s",
                   o->priority ? o->priority : "NORMAL", t->psk ? ":+ECDHE-PSK:+DHE-PSK" : "");
    const char *where;

    if (!words)
        return err_set(e, -ENOMEM, "out of memory");
    if (gnutls_priority_init(&t->priority, words, &where) < 0)
        return err_set(e, -EINVAL, "GnuTLS does not know the priority '%s'", where);
    return 0;
}

int nbd_tls_open(const struct nbd_tls_options *o, struct nbd_tls **out, struct blk_error *e)
{
    struct nbd_tls *t = mem_zalloc(sizeof(*t));
    int rc;

    if (!t)
        return err_set(e, -ENOMEM, "out of memory");
    t->purpose[0] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                            .data = (void *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT};
    rc = load_x509(t, o, e);
    if (rc == 0)
        rc = load_psk(t, o, e);
    if (rc == 0 && !t->x509 && !t->psk)
        rc = err_set(e, -ENOENT, "%s has neither server-cert.pem with server-key.pem, nor keys.psk",
                     o->folder);
    if (rc == 0)
        rc = set_priority(t, o, e);
    if (rc < 0) {
        nbd_tls_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void nbd_tls_close(struct nbd_tls *t)
{
    if (!t)
        return;
    if (t->x509)
        gnutls_certificate_free_credentials(t->x509);
    if (t->psk)
        gnutls_psk_free_server_credentials(t->psk);
    if (t->priority)
        gnutls_priority_deinit(t->priority);
    mem_free(t);
}

/* --- a session --- */

int nbd_tls_session(struct nbd_tls *t, gnutls_session_t *out)
{
    if (gnutls_init(out, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0)
        return -ENOMEM;
    if (gnutls_priority_set(*out, t->priority) < 0 ||
        (t->x509 && gnutls_credentials_set(*out, GNUTLS_CRD_CERTIFICATE, t->x509) < 0) ||
        (t->psk && gnutls_credentials_set(*out, GNUTLS_CRD_PSK, t->psk) < 0)) {
        gnutls_deinit(*out);
        return -ENOMEM;
    }
    if (t->x509 && !t->any_client) {
        gnutls_certificate_server_set_request(*out, GNUTLS_CERT_REQUIRE);
        gnutls_session_set_verify_cert2(*out, t->purpose, ARRAY_LEN(t->purpose), 0);
    }
    return 0;
}

/* --- who it is --- */

/* A name with a NUL inside is not the name that it looks like. */
static int add_name(struct nbd_names *to, const char *text, size_t bytes)
{
    if (bytes == 0 || memchr(text, 0, bytes))
        return 0;
    return nbd_names_add(to, text, bytes);
}

static int names_of_cert(gnutls_x509_crt_t cert, struct nbd_peer *peer)
{
    gnutls_datum_t dn;
    char text[512];
    size_t bytes = sizeof(text);

    if (gnutls_x509_crt_get_dn3(cert, &dn, 0) == 0) {
        peer->dn = memchr(dn.data, 0, dn.size) ? NULL : mem_strdup((const char *)dn.data);
        gnutls_free(dn.data);
    }
    if (gnutls_x509_crt_get_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, 0, text, &bytes) == 0)
        TRY(add_name(&peer->certs, text, bytes));
    for (unsigned i = 0; i < 64; i++) {
        int type;

        bytes = sizeof(text);
        type = gnutls_x509_crt_get_subject_alt_name(cert, i, text, &bytes, NULL);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (type == GNUTLS_SAN_DNSNAME || type == GNUTLS_SAN_RFC822NAME || type == GNUTLS_SAN_URI)
            TRY(add_name(&peer->certs, text, bytes));
    }
    return 0;
}

static int name_by_cert(gnutls_session_t session, struct nbd_peer *peer)
{
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
    gnutls_x509_crt_t cert;
    int rc;

    if (!chain || count == 0)
        return 0; /* any client may come */
    if (gnutls_x509_crt_init(&cert) < 0)
        return -ENOMEM;
    rc = gnutls_x509_crt_import(cert, &chain[0], GNUTLS_X509_FMT_DER) < 0
             ? -EPROTO
             : names_of_cert(cert, peer);
    gnutls_x509_crt_deinit(cert);
    return rc;
}

int nbd_tls_who(struct nbd_tls *t, gnutls_session_t session, struct nbd_peer *peer)
{
    peer->secure = true;
    if (gnutls_auth_get_type(session) == GNUTLS_CRD_PSK) {
        const char *name = gnutls_psk_server_get_username(session);

        peer->psk = name ? mem_strdup(name) : NULL;
        return peer->psk ? 0 : -EPROTO;
    }
    return t->any_client ? 0 : name_by_cert(session, peer);
}

#else

int nbd_tls_open(const struct nbd_tls_options *o, struct nbd_tls **out, struct blk_error *e)
{
    return err_set(e, -ENOTSUP, "this lamina was built without GnuTLS: it has no TLS");
}

void nbd_tls_close(struct nbd_tls *t) {}

int co_nbd_tls_begin(struct nbd_tls *t, struct host_stream *inner, struct host_stream **out,
                     struct nbd_peer *peer)
{
    return -ENOTSUP;
}

#endif

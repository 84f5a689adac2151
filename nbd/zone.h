/* SPDX-License-Identifier: BSD-3-Clause */
/* zone.h - who a client is, and who may see an export.
 *
 * A zone is a list of WHO: `cert:NAME` (the common name, or an alternative name, of the
 * certificate that the client showed), `dn:NAME` (its whole distinguished name), `psk:IDENTITY`,
 * `uid:NUMBER` or `uid:USER` (who runs the process at the other end of a Unix socket). An empty
 * zone admits everybody. Pure but for the user's name, which is looked up when a zone is read. */
#ifndef NBD_ZONE_H
#define NBD_ZONE_H

#include "block/err.h"

/* A list of strings, owned. */
struct nbd_names {
    char **at;
    size_t count, room;
};
must_use int nbd_names_add(struct nbd_names *n, const void *text, size_t bytes);
bool nbd_names_have(const struct nbd_names *n, const char *text);
void nbd_names_drop(struct nbd_names *n);

/* What the transport vouches for. */
struct nbd_peer {
    bool secure;            /* TLS */
    struct nbd_names certs; /* names in the certificate that was checked */
    char *dn;               /* its distinguished name (RFC 4514); NULL: no certificate */
    char *psk;              /* the identity whose key it has; NULL: none */
    int64_t uid;            /* of the process; -1: not known */
    char host[200];         /* which machine or process: what `writers` counts */
};
void nbd_peer_drop(struct nbd_peer *p);
/* Adds the name that TLS found to p->host, so that who shares an address is told apart. */
void nbd_peer_name_host(struct nbd_peer *p);

enum nbd_who_kind { NBD_WHO_CERT, NBD_WHO_DN, NBD_WHO_PSK, NBD_WHO_UID };
struct nbd_who {
    enum nbd_who_kind kind;
    char *name;
    int64_t uid;
};
struct nbd_zone {
    struct nbd_who *who;
    size_t count;
};

/* Adds WHO, one or several with blanks between. */
must_use int nbd_zone_add(struct nbd_zone *z, const char *text, struct blk_error *e);
/* Adds `dn:NAME`, whatever is in the name. -ENOMEM. */
must_use int nbd_zone_add_dn(struct nbd_zone *z, const char *name);
must_use int nbd_zone_copy(const struct nbd_zone *from, struct nbd_zone *to);
void nbd_zone_drop(struct nbd_zone *z);
bool nbd_zone_admits(const struct nbd_zone *z, const struct nbd_peer *p);

#endif

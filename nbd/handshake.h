/* SPDX-License-Identifier: BSD-3-Clause */
/* handshake.h - option haggling as a machine that eats bytes and gives bytes: no socket, no time,
 * no coroutine. A fuzzer feeds it as it is; greet.c feeds it from a stream, and does for it what
 * takes time: the TLS handshake, opening an export that is opened when it is asked for. */
#ifndef NBD_HANDSHAKE_H
#define NBD_HANDSHAKE_H

#include "nbd/context.h"
#include "nbd/export.h"
#include "nbd/proto.h"

enum nbd_phase {
    NBD_PHASE_HELLO,    /* our hello is out, the client's flags are awaited */
    NBD_PHASE_OPTIONS,  /* options are awaited */
    NBD_PHASE_SECURE,   /* send what is in @out, do the TLS handshake, nbd_handshake_secured() */
    NBD_PHASE_TRANSMIT, /* agreed: send what is in @out, then serve @chosen */
    NBD_PHASE_CLOSE,    /* send what is in @out, then hang up */
};

enum nbd_tls_mode { NBD_TLS_OFF, NBD_TLS_ALLOW, NBD_TLS_REQUIRE };

/* What the option that is next in line needs first; it is left uneaten until then. */
enum nbd_want { NBD_WANT_NOTHING, NBD_WANT_EXPORT, NBD_WANT_LIST, NBD_WANT_CONTEXTS };

struct nbd_handshake {
    const struct nbd_exports *exports; /* borrowed */
    const struct nbd_peer *peer;       /* borrowed */
    enum nbd_tls_mode tls;
    enum nbd_phase phase;
    enum nbd_want want;
    char *wanted;                   /* of NBD_WANT_EXPORT: its name */
    bool fetched;                   /* what was wanted has been looked for */
    struct nbd_export *held;        /* what was found, until the option is done */
    const struct nbd_names *listed; /* borrowed */
    struct nbd_export *about;       /* of NBD_WANT_CONTEXTS: the export; held */
    bool known;                     /* its contexts are... */
    struct nbd_contexts *contexts;  /* ...these; a reference */
    bool fixed, no_zeroes;
    bool structured;                /* structured replies agreed */
    bool asked_block_size;          /* by the INFO or GO that counts */
    bool extended;                  /* extended headers too */
    uint32_t agreed;                /* contexts, of this list... */
    struct nbd_contexts *agreed_of; /* (a reference) */
    struct nbd_export *context;     /* ...for this export only; held */
    struct nbd_export *chosen;      /* in NBD_PHASE_TRANSMIT; held, and... */
    struct nbd_writer *writer;      /* ...entered: the caller may take both over */
    unsigned options;
    uint64_t skip; /* bytes of an oversized payload still to be thrown away */

    uint8_t *out; /* to be sent; the caller takes bytes off by nbd_handshake_sent() */
    size_t out_bytes, out_room;
};

/* Ready, with our hello in @out. -ENOMEM. nbd_handshake_drop() it also then. */
must_use int nbd_handshake_begin(struct nbd_handshake *h, const struct nbd_exports *exports,
                                 const struct nbd_peer *peer, enum nbd_tls_mode tls);
void nbd_handshake_drop(struct nbd_handshake *h);
/* Eats at most one message of @bytes bytes at @in; how many it ate (0: the message is not complete
 * yet, or h->want says what has to be fetched before it is fed again). Never more than
 * NBD_MAX_PAYLOAD + 16 bytes are needed for one. */
size_t nbd_handshake_feed(struct nbd_handshake *h, const uint8_t *in, size_t bytes);
/* What was wanted is there, or is not to be had: an export @x (held; taken over) or NULL, or the
 * names of @names (borrowed until the option is done) or NULL. */
void nbd_handshake_fetched(struct nbd_handshake *h, struct nbd_export *x,
                           const struct nbd_names *names);
/* The contexts of h->about; takes the reference. */
void nbd_handshake_knows(struct nbd_handshake *h, struct nbd_contexts *contexts);
/* The TLS handshake is through and @peer (as given at the beginning) says who it is. All that was
 * agreed before it is forgotten. */
void nbd_handshake_secured(struct nbd_handshake *h);
/* The whole of @out was sent. */
void nbd_handshake_sent(struct nbd_handshake *h);

/* --- payloads, parsed: bytes in, trusted views out. -EINVAL on anything odd. --- */

struct nbd_name {
    const uint8_t *text; /* not terminated */
    uint32_t bytes;
};
/* Of INFO and GO. */
struct nbd_info_request {
    struct nbd_name name;
    const be16 *items; /* enum nbd_info_type, as they came */
    unsigned count;
};
must_use int nbd_parse_info(const uint8_t *in, size_t bytes, struct nbd_info_request *out);

/* Of LIST_ and SET_META_CONTEXT. All queries are known to lie inside. */
struct nbd_meta_request {
    struct nbd_name name;
    const uint8_t *at; /* the next query */
    uint32_t left;     /* queries not yet taken */
};
must_use int nbd_parse_meta(const uint8_t *in, size_t bytes, struct nbd_meta_request *out);
/* Takes the next query; false when there is none. */
bool nbd_meta_next(struct nbd_meta_request *m, struct nbd_name *query);

#endif

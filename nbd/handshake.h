/* SPDX-License-Identifier: BSD-3-Clause */
/* handshake.h - option haggling as a machine that eats bytes and gives bytes: no socket, no time,
 * no coroutine. A fuzzer feeds it as it is; connection.c feeds it from a stream. */
#ifndef NBD_HANDSHAKE_H
#define NBD_HANDSHAKE_H

#include "nbd/export.h"
#include "nbd/proto.h"

enum nbd_phase {
    NBD_PHASE_HELLO,    /* our hello is out, the client's flags are awaited */
    NBD_PHASE_OPTIONS,  /* options are awaited */
    NBD_PHASE_TRANSMIT, /* agreed: send what is in @out, then serve @chosen */
    NBD_PHASE_CLOSE,    /* send what is in @out, then hang up */
};

struct nbd_handshake {
    const struct nbd_exports *exports; /* borrowed */
    enum nbd_phase phase;
    bool fixed, no_zeroes;
    bool structured;            /* structured replies agreed */
    bool asked_block_size;      /* by the INFO or GO that counts */
    bool allocation;            /* base:allocation agreed, for... */
    struct nbd_export *context; /* ...this export only */
    struct nbd_export *chosen;  /* in NBD_PHASE_TRANSMIT */
    unsigned options;
    uint64_t skip; /* bytes of an oversized payload still to be thrown away */

    uint8_t *out; /* to be sent; the caller takes bytes off by nbd_handshake_sent() */
    size_t out_bytes, out_room;
};

/* The number under which a connection knows base:allocation. */
#define NBD_CONTEXT_ALLOCATION 1u

/* Ready, with our hello in @out. -ENOMEM. nbd_handshake_drop() it also then. */
must_use int nbd_handshake_begin(struct nbd_handshake *h, const struct nbd_exports *exports);
void nbd_handshake_drop(struct nbd_handshake *h);
/* Eats at most one message of @bytes bytes at @in; how many it ate (0: the message is not complete
 * yet). Never more than NBD_MAX_PAYLOAD + 16 bytes are needed for one. */
size_t nbd_handshake_feed(struct nbd_handshake *h, const uint8_t *in, size_t bytes);
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

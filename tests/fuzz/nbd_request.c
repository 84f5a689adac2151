/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_request.c - any bytes as a request's header, of either kind: what is let through lies inside
 * the export, is no longer than was advertised, and writes nothing that is read-only. */
#include <stdlib.h>

#include "nbd/connection.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool true_here)
{
    if (!true_here)
        abort();
}

static void look(const struct nbd_ask *a, const struct nbd_session *s, const struct nbd_facts *f)
{
    bool changes =
        a->type == NBD_CMD_WRITE || a->type == NBD_CMD_TRIM || a->type == NBD_CMD_WRITE_ZEROES;

    must(a->type < NBD_COMMANDS);
    must(!(changes && f->flags & NBD_FLAG_READ_ONLY));
    if (a->type == NBD_CMD_DISC || a->type == NBD_CMD_FLUSH)
        return;
    if (a->type == NBD_CMD_BLOCK_STATUS && a->flags & NBD_CMD_FLAG_PAYLOAD_LEN)
        return; /* narrow() looks */
    must(range_fits(a->offset, a->length, f->size));
    must(((a->offset | a->length) & (s->align - 1)) == 0);
    if (a->type == NBD_CMD_READ || a->type == NBD_CMD_WRITE)
        must(a->length <= NBD_MAX_REQUEST);
    if (a->type == NBD_CMD_BLOCK_STATUS)
        must(s->agreed && a->length > 0);
}

/* The payload of a BLOCK_STATUS: a view of what is left, padded with zeroes. */
static void narrow(struct nbd_ask *a, const uint8_t *data, size_t bytes,
                   const struct nbd_session *s, const struct nbd_facts *f)
{
    uint8_t payload[8 + 4 * NBD_MAX_CONTEXTS] = {0};
    const char *why = "";

    must(a->payload >= 8 && a->payload <= sizeof(payload));
    memcpy(payload, data, MIN(bytes, sizeof(payload)));
    if (nbd_ask_narrow(a, payload, s, f, &why) == 0) {
        must(!(a->asked & ~s->agreed) && a->length > 0);
        look(a, s, f);
    } else {
        must(*why);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct nbd_request_ext raw;
    struct nbd_session s;
    struct nbd_facts f = {.min_block = 1, .max_block = NBD_MAX_REQUEST};
    struct nbd_ask ask;
    uint32_t error, magic;
    const char *why;

    if (bytes < sizeof(raw) + 2)
        return 0;
    s = (struct nbd_session){
        .structured = data[0] & 1, .agreed = data[0] & 2 ? 21 : 0, .align = data[0] & 4 ? 4096 : 1};
    s.extended = s.structured && data[0] & 32;
    f.flags = data[0] & 8 ? NBD_FLAG_READ_ONLY : 0;
    f.size = 1ULL << (data[1] % 64);
    magic = s.extended ? NBD_EXT_REQUEST_MAGIC : NBD_REQUEST_MAGIC;
    memcpy(&raw, data + 2, sizeof(raw));
    if (!(data[0] & 16)) /* else the magic stays what it is */
        raw.magic = be32_of(magic);
    if (nbd_ask_parse(&raw, &s, &f, &ask, &error, &why) < 0) {
        must(be32_get(raw.magic) != magic || be64_get(raw.length) > UINT32_MAX);
        return 0;
    }
    must((error == 0) == (*why == 0));
    if (error == 0)
        look(&ask, &s, &f);
    if (error == 0 && ask.type == NBD_CMD_BLOCK_STATUS && ask.payload)
        narrow(&ask, data + 2 + sizeof(raw), bytes - 2 - sizeof(raw), &s, &f);
    return 0;
}

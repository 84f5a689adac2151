/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_request.c - any 28 bytes as a request: what is let through lies inside the export, is no
 * longer than was advertised, and writes nothing that is read-only. */
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
    must(range_fits(a->offset, a->length, f->size));
    must(((a->offset | a->length) & (s->align - 1)) == 0);
    if (a->type == NBD_CMD_READ || a->type == NBD_CMD_WRITE)
        must(a->length <= NBD_MAX_REQUEST);
    if (a->type == NBD_CMD_BLOCK_STATUS)
        must(s->allocation && a->length > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct nbd_request_wire raw;
    struct nbd_session s;
    struct nbd_facts f = {.min_block = 1, .max_block = NBD_MAX_REQUEST};
    struct nbd_ask ask;
    uint32_t error;
    const char *why;

    if (bytes < sizeof(raw) + 2)
        return 0;
    s = (struct nbd_session){data[0] & 1, data[0] & 2, data[0] & 4 ? 4096 : 1};
    f.flags = data[0] & 8 ? NBD_FLAG_READ_ONLY : 0;
    f.size = 1ULL << (data[1] % 64);
    memcpy(&raw, data + 2, sizeof(raw));
    if (!(data[0] & 16)) /* else the magic stays what it is */
        raw.magic = be32_of(NBD_REQUEST_MAGIC);
    if (nbd_ask_parse(&raw, &s, &f, &ask, &error, &why) < 0) {
        must(be32_get(raw.magic) != NBD_REQUEST_MAGIC);
        return 0;
    }
    must((error == 0) == (*why == 0));
    if (error == 0)
        look(&ask, &s, &f);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_handshake.c - any bytes a client may send while it haggles. The first byte chooses the sizes
 * of the pieces they arrive in; the outcome must not depend on it. */
#include <stdlib.h>

#include "nbd/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char long_name[NBD_MAX_NAME + 1];
static struct nbd_export second = {
    .name = long_name,
    .facts = {.size = 1 * MiB,
              .flags = 1,
              .min_block = 512,
              .preferred_block = 4096,
              .max_block = NBD_MAX_REQUEST},
};
static struct nbd_export first = {
    .next = &second,
    .name = (char *)"a",
    .description = (char *)"words",
    .facts = {.size = 12345,
              .flags = 3,
              .min_block = 1,
              .preferred_block = 4096,
              .max_block = NBD_MAX_REQUEST},
};
static const struct nbd_peer nobody = {.uid = -1};
static const struct nbd_exports exports = {.first = &first, .last = &second, .count = 2};

struct outcome {
    enum nbd_phase phase;
    size_t eaten, answered;
    const struct nbd_export *chosen;
    bool structured, extended;
    uint32_t agreed;
};

static void must(bool true_here)
{
    if (!true_here)
        abort();
}

static struct outcome play(const uint8_t *data, size_t bytes, size_t step)
{
    struct nbd_handshake h;
    struct outcome o = {0};
    size_t have = 0, used;

    must(nbd_handshake_begin(&h, &exports, &nobody, NBD_TLS_OFF) == 0);
    while (h.phase < NBD_PHASE_TRANSMIT && o.eaten + have < bytes) {
        have = MIN(have + step, bytes - o.eaten);
        while (h.phase < NBD_PHASE_TRANSMIT &&
               (used = nbd_handshake_feed(&h, data + o.eaten, have)) > 0) {
            must(used <= have);
            o.eaten += used;
            have -= used;
            o.answered += h.out_bytes;
            must(h.out_bytes < 64 * KiB);
            nbd_handshake_sent(&h);
        }
        must(have < sizeof(struct nbd_option_head) + NBD_MAX_PAYLOAD ||
             h.phase >= NBD_PHASE_TRANSMIT);
    }
    o.phase = h.phase;
    o.chosen = h.chosen;
    o.structured = h.structured;
    o.extended = h.extended;
    o.agreed = h.agreed;
    must((o.phase == NBD_PHASE_TRANSMIT) == (o.chosen != NULL));
    nbd_handshake_drop(&h);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct outcome whole, pieces;

    memset(long_name, 'x', NBD_MAX_NAME);
    if (bytes == 0)
        return 0;
    whole = play(data + 1, bytes - 1, SIZE_MAX / 2);
    pieces = play(data + 1, bytes - 1, 1 + data[0] % 64);
    must(whole.phase == pieces.phase && whole.chosen == pieces.chosen &&
         whole.answered == pieces.answered && whole.structured == pieces.structured &&
         whole.extended == pieces.extended && whole.agreed == pieces.agreed);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_entry.c - the entries of a qcow2 image's tables: L2, L1 and reference counts.
 *
 *   L2, a cluster:     63 COPIED | 62 0 | 55..9 offset | 0 ZERO (version 3)
 *   L2, compressed:    63 0      | 62 1 | 61..x sectors beyond the first | x-1..0 offset in bytes,
 *                      x = 62 - (cluster_bits - 8)
 *   L2, extended:      as above without ZERO, and behind it a bitmap of 32 subclusters:
 *                      63..32 reads as zero | 31..0 lies here; never both, none of a compressed one
 *   In images with an external data file an offset of 0 with COPIED is a place like any other.
 *   L1:                63 COPIED | 55..9 offset of the L2 table
 *
 * Pure: any bytes are answered. Reserved bits are ignored when read (check names them) and never
 * written. */
#include "imgfmt/qcow2.h"

static unsigned packed_offset_bits(uint32_t cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

uint64_t qcow2_packed_offset_max(uint32_t cluster_bits)
{
    return MIN((1ULL << packed_offset_bits(cluster_bits)) - 1, QCOW2_MAX_OFFSET - 1);
}

static void decode_packed(uint64_t raw, uint32_t cluster_bits, struct qcow2_entry *out)
{
    unsigned bits = packed_offset_bits(cluster_bits);
    uint64_t sectors = ((raw & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> bits) + 1;

    out->state = MAP_PACKED;
    out->offset = raw & ((1ULL << bits) - 1);
    out->packed_bytes = (uint32_t)(sectors * QCOW2_SECTOR - out->offset % QCOW2_SECTOR);
}

static int decode_subclusters(struct qcow2_bits bits, bool at_zero, struct qcow2_entry *out)
{
    uint32_t here = (uint32_t)bits.sub, zero = (uint32_t)(bits.sub >> 32);
    struct map_cell cell = {.offset = out->offset};

    if (here & zero || (here && !out->offset && !at_zero))
        return -EIO;
    map_set_pieces(&cell, here, zero);
    out->state = cell.state;
    out->sub = cell.sub;
    return 0;
}

int qcow2_entry_decode(const struct qcow2_header *h, struct qcow2_bits bits,
                       struct qcow2_entry *out)
{
    uint64_t raw = bits.entry;

    *out = (struct qcow2_entry){.copied = raw & QCOW2_COPIED};
    if (raw & QCOW2_COMPRESSED) {
        decode_packed(raw, h->cluster_bits, out);
        return out->offset < QCOW2_MAX_OFFSET && !qcow2_has_data_file(h) ? 0 : -EIO;
    }
    bool at_zero = qcow2_has_data_file(h) && out->copied;
    out->offset = raw & QCOW2_OFFSET_MASK;
    if (out->offset & ((1ULL << h->cluster_bits) - 1))
        return -EIO;
    if (qcow2_extended(h))
        return decode_subclusters(bits, at_zero, out);
    if (raw & QCOW2_ZERO) {
        out->state = MAP_ZERO;
        return h->version >= 3 ? 0 : -EIO;
    }
    out->state = out->offset || at_zero ? MAP_DATA : MAP_HOLE;
    return 0;
}

static uint64_t encode_first(const struct qcow2_header *h, const struct qcow2_entry *e)
{
    struct map_cell cell = {.state = e->state, .offset = e->offset, .sub = e->sub};
    uint64_t copied = e->copied && map_has_space(&cell) ? QCOW2_COPIED : 0;
    uint32_t cluster_bits = h->cluster_bits;

    switch (e->state) {
    case MAP_ZERO:
        return e->offset | copied | (qcow2_extended(h) ? 0 : QCOW2_ZERO);
    case MAP_DATA:
        return e->offset | copied;
    case MAP_PARTIAL:
        assert(qcow2_extended(h));
        return e->offset | copied;
    case MAP_PACKED: {
        unsigned bits = packed_offset_bits(cluster_bits);
        uint64_t last = e->offset + e->packed_bytes - 1;
        uint64_t more = last / QCOW2_SECTOR - e->offset / QCOW2_SECTOR;
        assert(e->packed_bytes && e->offset <= qcow2_packed_offset_max(cluster_bits));
        assert(more <= (1ULL << (62 - bits)) - 1);
        return QCOW2_COMPRESSED | more << bits | e->offset;
    }
    default:
        return 0;
    }
}

struct qcow2_bits qcow2_entry_encode(const struct qcow2_header *h, const struct qcow2_entry *e)
{
    struct map_cell cell = {.state = e->state, .sub = e->sub};
    struct qcow2_bits bits = {.entry = encode_first(h, e)};

    if (qcow2_extended(h) && e->state != MAP_PACKED)
        bits.sub = map_pieces_here(&cell) | (uint64_t)map_pieces_zero(&cell) << 32;
    return bits;
}

struct qcow2_bits qcow2_bits_get(const struct qcow2_header *h, const void *entry)
{
    be64 raw[2] = {be64_of(0), be64_of(0)};

    memcpy(raw, entry, qcow2_entry_bytes(h));
    return (struct qcow2_bits){be64_get(raw[0]), be64_get(raw[1])};
}

void qcow2_bits_put(const struct qcow2_header *h, struct qcow2_bits bits, void *entry)
{
    be64 raw[2] = {be64_of(bits.entry), be64_of(bits.sub)};

    memcpy(entry, raw, qcow2_entry_bytes(h));
}

/* --- reference counts ----------------------------------------------------- */

uint64_t qcow2_count_get(const uint8_t *block, uint32_t order, uint64_t index)
{
    if (order < 3) {
        unsigned bits = 1u << order;
        unsigned per_byte = 8 / bits;
        unsigned shift = (unsigned)(index % per_byte) * bits;
        return (block[index / per_byte] >> shift) & ((1u << bits) - 1);
    }
    const uint8_t *at = block + (index << (order - 3));
    switch (order) {
    case 3:
        return *at;
    case 4:
        return be16_get(*(const be16 *)at);
    case 5:
        return be32_get(*(const be32 *)at);
    default:
        return be64_get(*(const be64 *)at);
    }
}

void qcow2_count_set(uint8_t *block, uint32_t order, uint64_t index, uint64_t count)
{
    assert(count <= qcow2_count_max(order));
    if (order < 3) {
        unsigned bits = 1u << order;
        unsigned per_byte = 8 / bits;
        unsigned shift = (unsigned)(index % per_byte) * bits;
        uint8_t mask = (uint8_t)(((1u << bits) - 1) << shift);
        uint8_t *at = block + index / per_byte;
        *at = (uint8_t)((*at & ~mask) | count << shift);
        return;
    }
    uint8_t *at = block + (index << (order - 3));
    switch (order) {
    case 3:
        *at = (uint8_t)count;
        break;
    case 4:
        *(be16 *)at = be16_of((uint16_t)count);
        break;
    case 5:
        *(be32 *)at = be32_of((uint32_t)count);
        break;
    default:
        *(be64 *)at = be64_of(count);
    }
}

/* Whether eight bytes at once settle the question for all counts in them. */
static bool word_skips(const uint8_t *at, uint32_t order, bool zero)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    if (!zero)
        return word == 0;
    if (order < 3)
        return word == UINT64_MAX;
    if (order == 3)
        return !((word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL);
    if (order == 4)
        return !((word - 0x0001000100010001ULL) & ~word & 0x8000800080008000ULL);
    return false;
}

uint64_t qcow2_count_find(const uint8_t *block, uint32_t order, uint64_t from, uint64_t to,
                          bool zero)
{
    uint64_t per_word = 64u >> order;

    for (uint64_t i = from; i < to;) {
        if (i % per_word == 0 && to - i >= per_word &&
            word_skips(block + i / per_word * 8, order, zero)) {
            i += per_word;
            continue;
        }
        if ((qcow2_count_get(block, order, i) == 0) == zero)
            return i;
        i++;
    }
    return to;
}

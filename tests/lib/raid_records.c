/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_records.c - see raid_records.h. */
#include "tests/lib/raid_records.h"

struct journal_meta_disk *records_meta(struct journal_meta_disk *m, uint64_t at, uint64_t number)
{
    memset(m, 0, sizeof(*m));
    m->magic = le32_of(JOURNAL_MAGIC);
    m->version = 1;
    m->bytes = le32_of(JOURNAL_HEAD);
    m->sequence = le64_of(number);
    m->position = le64_of(at * 8);
    return m;
}

void records_add(const struct records *r, struct journal_meta_disk *m, unsigned kind,
                 uint64_t location, uint8_t byte)
{
    uint8_t block[JOURNAL_BLOCK];
    unsigned at = le32_get(m->bytes);
    struct journal_payload_disk *p = (void *)((uint8_t *)m + at);
    memset(block, byte, sizeof(block));
    *p = (struct journal_payload_disk){le16_of((uint16_t)kind), le16_of(0), le32_of(8),
                                       le64_of(location / 512)};
    p->crc[0] = le32_of(journal_crc(r->seed, block, sizeof(block)));
    m->bytes = le32_of(at + 20);
}

static int co_put_block(const struct records *r, uint64_t at, const void *block)
{
    return co_blk_write_buf(r->dev, r->start + at * JOURNAL_BLOCK, block, JOURNAL_BLOCK, 0);
}

int co_records_put(const struct records *r, uint64_t at, struct journal_meta_disk *m,
                   unsigned blocks, uint8_t byte)
{
    uint8_t block[JOURNAL_BLOCK];
    journal_seal(m, r->seed);
    TRY(co_put_block(r, at, m));
    memset(block, byte, sizeof(block));
    for (unsigned i = 1; i <= blocks; i++)
        TRY(co_put_block(r, at + i, block));
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* send_format.c - headers and records of a stream, written and read (send_format.h). */
#include "tools/send_format.h"

#include "block/crc32c.h"

static const char magic[8] = {'L', 'A', 'M', 'S', 'E', 'N', 'D', '\n'};

/* --- the header --- */

static uint32_t header_crc(const struct send_header_disk *raw)
{
    return crc32c(0, raw, offsetof(struct send_header_disk, crc));
}

void send_header_put(const struct send_header *h, struct send_header_disk *to)
{
    *to = (struct send_header_disk){
        .version = le32_of(1),
        .flags = le32_of(h->increment ? SEND_INCREMENT : 0),
        .size = le64_of(h->size),
        .base_size = le64_of(h->base_size),
        .start = le64_of(h->start),
    };
    memcpy(to->magic, magic, sizeof(magic));
    sumhash_put(&h->base, to->base);
    sumhash_put(&h->passed, to->passed);
    to->crc = le32_of(header_crc(to));
}

/* What its numbers break, or NULL. */
static const char *header_wrong(const struct send_header *h, uint32_t flags)
{
    static const struct sumhash none;
    const struct {
        bool broken;
        const char *sentence;
    } rules[] = {
        {flags & ~(uint32_t)SEND_INCREMENT, "the stream has features that are not known here"},
        {h->size > INT64_MAX || h->base_size > INT64_MAX, "a size is more than a disk can have"},
        {h->start > h->size || h->start % SEND_BLOCK != 0, "the stream's start is no place in it"},
        {h->start == 0 && !sumhash_equal(&h->passed, &none), "a stream from the start passes data"},
        {!h->increment && (h->base_size > 0 || !sumhash_equal(&h->base, &none)),
         "a full stream names a base"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return rules[i].sentence;
    return NULL;
}

int send_header_parse(const struct send_header_disk *raw, struct send_header *out,
                      struct blk_error *e)
{
    if (memcmp(raw->magic, magic, sizeof(magic)) != 0)
        return err_set(e, -EINVAL, "this is no stream of `lamina send`");
    if (le32_get(raw->crc) != header_crc(raw))
        return err_set(e, -EBADMSG, "the stream's header is damaged");
    if (le32_get(raw->version) != 1)
        return err_set(e, -ENOTSUP, "the stream has version %" PRIu32 "; 1 is known here",
                       le32_get(raw->version));
    uint32_t flags = le32_get(raw->flags);
    *out = (struct send_header){
        .increment = flags & SEND_INCREMENT,
        .size = le64_get(raw->size),
        .base_size = le64_get(raw->base_size),
        .start = le64_get(raw->start),
        .base = sumhash_get(raw->base),
        .passed = sumhash_get(raw->passed),
    };
    const char *wrong = header_wrong(out, flags);
    return wrong ? err_set(e, -EINVAL, "%s", wrong) : 0;
}

/* --- records --- */

static uint32_t record_crc(const struct send_record_disk *raw, const uint8_t *payload)
{
    uint32_t crc = crc32c(0, raw, offsetof(struct send_record_disk, crc));
    return crc32c(crc, payload, le32_get(raw->payload_bytes));
}

void send_record_put(const struct send_record *r, const uint8_t *payload,
                     struct send_record_disk *to)
{
    *to = (struct send_record_disk){
        .kind = le32_of(r->kind),
        .payload_bytes = le32_of(r->payload_bytes),
        .offset = le64_of(r->offset),
        .bytes = le64_of(r->bytes),
        .number = le32_of(r->number),
    };
    to->crc = le32_of(record_crc(to, payload));
}

bool send_record_intact(const struct send_record *r, const struct send_record_disk *raw,
                        const uint8_t *payload)
{
    return r->crc == record_crc(raw, payload);
}

static bool whole_blocks(const struct send_record *r, uint64_t size)
{
    uint64_t end = r->offset + r->bytes;
    return r->bytes > 0 && r->offset % SEND_BLOCK == 0 && (end % SEND_BLOCK == 0 || end == size);
}

/* True if the lengths are the kind's. The range lies in the disk. */
static bool is_shaped(const struct send_record *r, const struct send_header *h)
{
    switch (r->kind) {
    case SEND_DATA:
        return whole_blocks(r, h->size) && r->bytes <= SEND_DATA_MOST &&
               r->payload_bytes == r->bytes;
    case SEND_PACKED:
        return whole_blocks(r, h->size) && r->bytes <= SEND_DATA_MOST && r->payload_bytes > 0 &&
               r->payload_bytes < r->bytes;
    case SEND_ZERO:
        return whole_blocks(r, h->size) && r->payload_bytes == 0 && h->increment;
    case SEND_POINT:
        return r->offset % SEND_BLOCK == 0 && r->bytes == 0 && r->payload_bytes == SUMHASH_BYTES;
    case SEND_END:
        return r->offset == h->size && r->bytes == 0 && r->payload_bytes == SEND_END_PAYLOAD;
    }
    return false;
}

int send_record_parse(struct send_place *p, const struct send_record_disk *raw,
                      struct send_record *out, struct blk_error *e)
{
    assert(!p->ended);
    *out = (struct send_record){
        .kind = (enum send_kind)le32_get(raw->kind),
        .payload_bytes = le32_get(raw->payload_bytes),
        .offset = le64_get(raw->offset),
        .bytes = le64_get(raw->bytes),
        .number = le32_get(raw->number),
        .crc = le32_get(raw->crc),
    };
    if (out->number != p->number || out->offset < p->offset ||
        !range_fits(out->offset, out->bytes, p->header->size) || !is_shaped(out, p->header))
        return err_set(e, -EBADMSG, "record %" PRIu32 " of the stream is damaged", p->number);
    p->number++;
    p->offset = out->offset + out->bytes;
    p->ended = out->kind == SEND_END;
    return 0;
}

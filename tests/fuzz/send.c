/* SPDX-License-Identifier: BSD-3-Clause */
/* send.c - any bytes as a stream that is received into a disk in memory. Checksums and numbers are
 * put right first, else nothing else would be seen. What was received must have the hash that the
 * stream says, or is refused. */
#include "tests/fuzz/fuzz_stack.h"
#include "tools/receive.h"

#define DISK_MOST (16 * MiB)

struct bytes_input {
    struct receive_input input;
    const uint8_t *data;
    size_t bytes, at;
};

static int co_read(struct receive_input *input, void *to, size_t bytes)
{
    struct bytes_input *in = container_of(input, struct bytes_input, input);
    if (bytes > in->bytes - in->at)
        return -ENODATA;
    memcpy(to, in->data + in->at, bytes);
    in->at += bytes;
    return 0;
}

static int co_receive(void *arg)
{
    struct fuzz_input *in = arg;
    struct bytes_input input = {.input.co_read = co_read, .data = in->data, .bytes = in->bytes};
    struct receive_apply a = {.input = &input.input, .reads_zero = in->bytes % 2};
    struct blk_error e = {0};
    if (co_receive_header(&input.input, &a.header, &e) < 0 || a.header.size > DISK_MOST)
        return 0;
    struct fuzz_input none = {.data = in->data};
    a.target = co_fuzz_disk(&none);
    a.from = in->bytes % 3 ? a.header.start : align_down(a.header.size / 2, SEND_BLOCK);
    if (a.header.start > 0)
        a.from = a.header.start;
    a.before = a.header.passed;
    int rc = co_receive_apply(&a, &e);
    assert((rc < 0) == (e.text[0] != 0));
    co_blk_close(a.target, &e);
    return 0;
}

static void put_right(uint8_t *data, size_t bytes)
{
    struct send_header_disk *h = (struct send_header_disk *)data;
    struct send_header parsed = {.increment = le32_get(h->flags) & 1,
                                 .size = le64_get(h->size) % (DISK_MOST + 1),
                                 .base_size = le64_get(h->base_size),
                                 .start = le64_get(h->start),
                                 .base = sumhash_get(h->base),
                                 .passed = sumhash_get(h->passed)};
    send_header_put(&parsed, h);
    uint32_t number = 0;
    for (size_t at = sizeof(*h); bytes - at >= sizeof(struct send_record_disk); number++) {
        struct send_record_disk *raw = (struct send_record_disk *)(data + at);
        struct send_record r = {.kind = (enum send_kind)le32_get(raw->kind),
                                .payload_bytes = le32_get(raw->payload_bytes),
                                .number = number,
                                .offset = le64_get(raw->offset),
                                .bytes = le64_get(raw->bytes)};
        at += sizeof(*raw);
        if (r.payload_bytes > bytes - at)
            break;
        send_record_put(&r, data + at, raw);
        at += r.payload_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < sizeof(struct send_header_disk) || bytes > 256 * KiB)
        return 0;
    uint8_t *copy = malloc(bytes);
    if (!copy)
        return 0;
    memcpy(copy, data, bytes);
    if (bytes % 8)
        put_right(copy, bytes);
    struct fuzz_input in = {.data = copy, .bytes = bytes};
    fuzz_stack_with(co_receive, &in);
    free(copy);
    return 0;
}

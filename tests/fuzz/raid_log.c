/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_log.c - any bytes as records of the stripe log of an array that went down being written to:
 * whatever they say, the array opens or says why not, what is replayed stays within the members'
 * data, and the array opens again afterwards.
 *
 * The input's first byte says the level, the second who is missing; then come records: the ring's
 * member, how many entries, the blocks of contents, the order, and the entries. Heads, numbers and
 * checksums are made, or nothing would be seen of what is behind them. */
#include "block/crc32c.h"
#include "raid/log.h"
#include "raid/md.h"
#include "tests/fuzz/fuzz_stack.h"

#define DISKS   4u
#define DATA_AT (256 * KiB)
#define DATA    (256 * KiB)
#define DISK    (DATA_AT + DATA + 64 * KiB)
#define CHUNK   (16 * KiB)
#define SESSION 7u
#define GUARD   0x5a

struct input {
    const uint8_t *data;
    size_t bytes;
};

struct array {
    struct blk_device *disk[DISKS];
    uint64_t ring, ring_bytes, next[DISKS], sequence[DISKS];
};

static void must(bool yes)
{
    if (!yes)
        __builtin_trap();
}

static void make_super(struct md_super *s, int level, unsigned i)
{
    *s = (struct md_super){.version = MD_1_2,
                           .super_offset = 4096,
                           .level = level,
                           .layout = level == 4 ? 0 : LEFT_SYMMETRIC,
                           .disks = DISKS,
                           .events = 5,
                           .number = i,
                           .chunk = CHUNK,
                           .data_offset = DATA_AT,
                           .size = DATA,
                           .data_size = DATA,
                           .recovery_offset = UINT64_MAX};
    memcpy(s->uuid, "fuzz-array-uuid!", sizeof(s->uuid));
    for (unsigned k = 0; k < DISKS; k++)
        must(md_super_set_role(s, k, k));
    md_super_build(s);
}

static void co_put_head(struct array *a, const struct md_super *s, unsigned i)
{
    uint32_t crc = log_super_crc(s);
    struct log_head_disk h = {.tag = LOG_HEAD_TAG,
                              .flags = le32_of(LOG_SYNCED),
                              .session = le64_of(SESSION),
                              .ring_bytes = le64_of(a->ring_bytes),
                              .ring = le32_of(i + 1),
                              .super_now = le32_of(crc),
                              .super_tried = le32_of(crc),
                              .super_next = le32_of(crc)};
    memcpy(h.array_uuid, s->uuid, sizeof(h.array_uuid));
    h.crc = le32_of(crc32c(0, &h, sizeof(h)));
    must(co_blk_write_buf(a->disk[i], a->ring - LOG_BLOCK, &h, sizeof(h), 0) == 0);
}

static void co_make(struct array *a, int level)
{
    static const struct blk_error none;
    struct md_super *s = mem_alloc(sizeof(*s));
    uint8_t *guard = mem_alloc(64 * KiB);
    must(s && guard);
    memset(guard, GUARD, 64 * KiB);
    for (unsigned i = 0; i < DISKS; i++) {
        struct blk_error e = none;
        json_t *tree = json_pack("{s:i,s:b}", "size", (int)DISK, "growable", 0);
        must(co_blk_open(&mem_driver, "disk", tree, BLK_OPEN_WRITE, NULL, NULL, 0, &a->disk[i],
                         &e) == 0);
        json_decref(tree);
        make_super(s, level, i);
        must(log_area(s, &a->ring, &a->ring_bytes));
        must(co_blk_write_buf(a->disk[i], s->super_offset, s->raw, MD_SUPER_BYTES, 0) == 0);
        must(co_blk_write_buf(a->disk[i], DATA_AT + DATA, guard, 64 * KiB, 0) == 0);
        co_put_head(a, s, i);
    }
    mem_free(guard);
    mem_free(s);
}

/* Gives how many bytes of the input it took; 0: it is at an end. */
static size_t co_put_record(struct array *a, const uint8_t *data, size_t bytes)
{
    struct log_record_disk *h;
    if (bytes < 4)
        return 0;
    unsigned i = data[0] % DISKS, count = data[1] % 12;
    size_t entries = MIN(count * sizeof(h->entry[0]), bytes - 4);
    uint64_t head = log_header_bytes(count), total = head + data[2] % 8 * LOG_BLOCK;
    if (a->next[i] + total > a->ring_bytes)
        return 0;
    h = mem_zalloc(total);
    must(h != NULL);
    memcpy(h->tag, LOG_TAG, sizeof(h->tag));
    h->session = le64_of(SESSION);
    h->sequence = le64_of(a->sequence[i]++);
    h->order = le64_of(data[3]);
    h->bytes = le32_of((uint32_t)total);
    h->count = le32_of(count);
    memcpy(h->entry, data + 4, entries);
    h->contents_crc = le32_of(crc32c(0, (uint8_t *)h + head, total - head));
    h->crc = le32_of(crc32c(0, h, head));
    must(co_blk_write_buf(a->disk[i], a->ring + a->next[i], h, total, 0) == 0);
    a->next[i] += total;
    mem_free(h);
    return 4 + entries;
}

static int co_open(struct array *a, unsigned without, struct blk_device **out)
{
    struct blk_error e = {0};
    struct blk_child parts[DISKS];
    unsigned count = 0;
    for (unsigned i = 0; i < DISKS; i++)
        if (!(without >> i & 1))
            parts[count++] = (struct blk_child){"member", blk_ref(a->disk[i])};
    return co_blk_open(&md_driver, NULL, NULL, BLK_OPEN_WRITE, NULL, parts, count, out, &e);
}

static void co_check_guards(struct array *a)
{
    uint8_t *guard = mem_alloc(64 * KiB);
    for (unsigned i = 0; i < DISKS; i++) {
        must(guard && co_blk_read_buf(a->disk[i], DATA_AT + DATA, guard, 64 * KiB) == 0);
        for (unsigned k = 0; k < 64 * KiB; k++)
            must(guard[k] == GUARD);
    }
    mem_free(guard);
}

static int co_use(void *arg)
{
    const struct input *in = arg;
    const int level = 4 + in->data[0] % 3;
    unsigned without = in->data[1] % (1u << DISKS);
    if (__builtin_popcount(without) > (level == 6 ? 2 : 1))
        without = 0;
    struct array a = {0};
    struct blk_device *dev;
    co_make(&a, level);
    for (size_t at = 2, n; (n = co_put_record(&a, in->data + at, in->bytes - at)) > 0; at += n)
        ;
    if (co_open(&a, without, &dev) == 0) {
        must(co_blk_close(dev, NULL) == 0);
        must(co_open(&a, without, &dev) == 0);
        must(co_blk_close(dev, NULL) == 0);
    }
    co_check_guards(&a);
    for (unsigned i = 0; i < DISKS; i++)
        must(co_blk_close(a.disk[i], NULL) == 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct input in = {data, bytes};
    if (bytes >= 2)
        fuzz_stack_with(co_use, &in);
    return 0;
}

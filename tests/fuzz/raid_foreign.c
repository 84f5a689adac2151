/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_foreign.c - any bytes as the metadata of members of other arrays than md's: Intel's, and a
 * DDF header with what follows it. What is parsed is told, as two members of which one is behind.
 *
 * The input's first byte says which. Checksums are put right, or nothing would be seen of what is
 * behind them. */
#include <stdlib.h>
#include <zlib.h>

#include "block/endian.h"
#include "raid/foreign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define MOST (64 * KiB)

static void must(bool yes)
{
    if (!yes)
        __builtin_trap();
}

/* The sum of the words, where the first sector says how many bytes count. */
static void seal_imsm(uint8_t *tail, size_t bytes)
{
    uint8_t *first = tail + bytes - 1024;
    le32 size, word;
    uint32_t sum = 0;
    memcpy(&size, first + 36, sizeof(size));
    memset(first + 32, 0, 4);
    for (size_t at = 0; at + 4 <= le32_get(size); at += 4) {
        const uint8_t *from = first + at;
        if (at >= 512) /* the rest lies before it */
            from = first - align_up(le32_get(size) - 512, 512) + (at - 512);
        if (from < tail || from + 4 > tail + bytes)
            return;
        memcpy(&word, from, sizeof(word));
        sum += le32_get(word);
    }
    word = le32_of(sum);
    memcpy(first + 32, &word, sizeof(word));
}

static void seal_at(uint8_t *raw, size_t bytes, uint64_t at, uint64_t size)
{
    if (size < 8 || !range_fits(at, size, bytes))
        return;
    memset(raw + at + 4, 0xff, 4);
    be32 crc = be32_of((uint32_t)crc32(UINT32_MAX, raw + at, (uInt)size) ^ UINT32_MAX);
    memcpy(raw + at + 4, &crc, sizeof(crc));
}

/* The sections that the header tells of, then the header. */
static void seal_ddf(uint8_t *raw, size_t bytes)
{
    enum { DISKS, VOLUMES, CONFIGS, DISK };
    be16 record;
    memcpy(&record, raw + 134, sizeof(record));
    for (unsigned i = DISKS; i <= DISK; i++) {
        be32 place[2];
        memcpy(place, raw + 200 + i * sizeof(place), sizeof(place));
        uint64_t at = be32_get(place[0]) * 512ull, size = be32_get(place[1]) * 512ull;
        uint64_t step = i == CONFIGS ? be16_get(record) * 512ull : size;
        if (i == DISK)
            step = size = 512;
        for (uint64_t done = 0; step && done + step <= MIN(size, bytes); done += step)
            seal_at(raw, bytes, at + done, step);
    }
    seal_at(raw, bytes, 0, DDF_SECTOR);
}

static int parse(uint8_t *raw, size_t bytes, bool ddf, struct foreign *out)
{
    struct blk_error e = {0};
    uint64_t reach, place[2];
    int rc;
    if (ddf) {
        seal_ddf(raw, bytes);
        (void)!foreign_ddf_anchor(raw, bytes, place, &e);
        rc = foreign_ddf_header(raw, &reach, &e);
        if (rc == 0 && reach > bytes)
            return -EINVAL;
        if (rc == 0)
            rc = foreign_ddf_parse(raw, reach, out, &e);
    } else {
        seal_imsm(raw, bytes);
        rc = foreign_imsm_parse(raw, bytes, out, &e);
    }
    must(rc == 0 || rc == -ENODATA || e.text[0]);
    return rc;
}

static void tell(const struct foreign *f)
{
    struct foreign *old = mem_alloc(sizeof(*old));
    char *text;
    if (!old)
        abort();
    *old = *f;
    old->generation -= MIN(old->generation, 2);
    for (unsigned i = 0; i < f->count; i++) {
        const struct foreign_volume *v = &f->volume[i];
        must(v->disks > 0 && v->disks <= FOREIGN_DISKS && v->used > 0);
        must(v->slot == RAID_NO_DISK || v->slot < v->disks);
    }
    struct foreign_member m[] = {{"dir/a,b", f, NULL}, {"c", old, "qcow2"}, {"d", NULL, NULL}};
    must(foreign_tell(m, ARRAY_LEN(m), &text) == 0 && *text);
    free(text);
    mem_free(old);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 1 + 1024 || bytes > MOST)
        return 0;
    uint8_t *raw = mem_aligned(bytes - 1);
    struct foreign *f = mem_zalloc(sizeof(*f));
    if (!raw || !f)
        abort();
    memcpy(raw, data + 1, bytes - 1);
    if (parse(raw, bytes - 1, data[0] & 1, f) == 0)
        tell(f);
    mem_free(raw);
    mem_free(f);
    return 0;
}

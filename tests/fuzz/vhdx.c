/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx.c - any bytes to each parser of VHDX, with checksums set right. */
#include <stdlib.h>

#include "imgfmt/vhdx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* @to is the input, as far as it goes, else zeroes. */
static void fill(void *to, size_t room, const uint8_t *data, size_t bytes)
{
    memset(to, 0, room);
    memcpy(to, data, MIN(room, bytes));
}

static void fuzz_tables(const uint8_t *data, size_t bytes)
{
    static struct vhdx_header_disk headers[2];
    static struct vhdx_regions_disk regions;
    static struct vhdx_metadata_disk metadata;
    struct vhdx_header h;
    struct vhdx_regions r;
    struct vhdx_metadata d;
    struct blk_error e;
    uint8_t items[VHDX_ITEMS][16];
    fill(headers, sizeof(headers), data, bytes);
    memcpy(headers[0].signature, "head", 4);
    vhdx_seal(&headers[0], sizeof(headers[0]));
    (void)!vhdx_header_choose(headers, GiB, &h, &e);
    fill(&regions, sizeof(regions), data, bytes);
    memcpy(regions.signature, "regi", 4);
    vhdx_seal(&regions, sizeof(regions));
    h = (struct vhdx_header){.log_offset = MiB, .log_bytes = MiB};
    (void)!vhdx_regions_parse(&regions, &h, &r, &e);
    fill(&metadata, sizeof(metadata), data, bytes);
    memcpy(metadata.signature, "metadata", 8);
    (void)!vhdx_metadata_parse(&metadata, MiB, &d, &e);
    fill(items, sizeof(items), data, bytes);
    if (vhdx_items_parse(items, &d, &e) == 0 && vhdx_entries(&d, d.size) > 1ULL << 40)
        abort();
}

/* The log's entries get right sums where they have the length for it. */
static void fuzz_log(const uint8_t *data, size_t bytes)
{
    struct vhdx_header h = {.log_guid = {1}};
    struct vhdx_replay r = {.log_bytes = 16 * VHDX_PAGE};
    struct blk_error e;
    uint8_t page[VHDX_PAGE] = {0};
    if (!(r.log = mem_alloc(r.log_bytes)))
        return;
    fill(r.log, r.log_bytes, data, bytes);
    for (uint64_t at = 0; at < r.log_bytes; at += VHDX_PAGE) {
        struct vhdx_log_entry_disk *n = (void *)(r.log + at);
        if (n->signature[0] != 'l')
            continue;
        memcpy(n->signature, "loge", 4);
        memcpy(n->guid, h.log_guid, 16);
        if (le32_get(n->bytes) >= VHDX_PAGE && le32_get(n->bytes) <= r.log_bytes - at)
            vhdx_entry_seal(n);
    }
    if (vhdx_replay_find(&r, &h, GiB, &e) == 0)
        vhdx_replay_patch(&r, le32_get(*(le32 *)r.log), page, 100);
    vhdx_replay_drop(&r);
}

static void fuzz_locator(const uint8_t *data, size_t bytes)
{
    struct blk_error e;
    uint8_t linkage[16];
    char *name;
    auto_free uint8_t *raw = mem_alloc(bytes + 16);
    if (!raw)
        return;
    memcpy(raw, vhdx_guid_locator, 16);
    memcpy(raw + 16, data, bytes);
    if (vhdx_locator_parse(raw, bytes + 16, &name, linkage, &e) == 0)
        mem_free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        fuzz_tables(data + 1, bytes - 1);
        return 0;
    case 1:
        fuzz_log(data + 1, bytes - 1);
        return 0;
    default:
        fuzz_locator(data + 1, bytes - 1);
        return 0;
    }
}

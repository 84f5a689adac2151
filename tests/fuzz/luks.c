/* SPDX-License-Identifier: BSD-3-Clause */
/* luks.c - any bytes as a LUKS image in memory: both headers parsed (the checksum of version 2 put
 * right first, so that its JSON is reached), facts printed, slots of little work tried with a key.
 * Nothing may crash or hang; memory stays small. */
#include "imgfmt/luks.h"
#include "tests/fuzz/fuzz_stack.h"

static void seal(uint8_t *raw, size_t bytes, uint64_t at)
{
    struct luks2_disk d;
    uint64_t all = bytes > at ? luks2_header_bytes(raw + at, bytes - at, at) : 0;
    if (!all || all > bytes - at)
        return;
    memcpy(&d, raw + at, sizeof d);
    memset(d.checksum_name, 0, sizeof d.checksum_name);
    memcpy(d.checksum_name, "sha256", 6);
    memset(d.checksum, 0, sizeof d.checksum);
    memcpy(raw + at, &d, sizeof d);
    kdf_hash_of(kdf_hash_find("sha256"), raw + at, all, d.checksum);
    memcpy(raw + at, &d, sizeof d);
}

static bool cheap(const struct luks *l, const struct luks_slot *s)
{
    bool slot = s->kdf == LUKS_PBKDF2 ? s->iterations < 200
                                      : s->argon2.memory_kib < 256 && s->argon2.passes < 4;
    return s->active && slot && l->digest_iterations < 200 && s->stripes < 64;
}

static void co_use(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_error e;
    struct blk_info info;
    struct luks_where w = {.file = blk_child(dev, "file"), .own_payload = true};
    struct luks *l = mem_alloc(sizeof *l);
    uint8_t key[CRYPT_KEY_MAX], sector[4096];
    if (co_blk_info(dev, &info, &e) == 0)
        blk_info_drop(&info);
    if (l && co_luks_read(&w, l, &e) == 0)
        for (unsigned i = 0; i < l->slot_count; i++)
            if (cheap(l, &l->slots[i]))
                (void)!co_luks_try(&w, l, i, (struct kdf_bytes){tail, bytes}, key, &e);
    if (dev->size)
        (void)!co_blk_read_buf(dev, 0, sector, MIN(sizeof sector, dev->size));
    mem_free(l);
}

static int co_input(void *arg)
{
    const struct fuzz_input *in = arg;
    struct blk_error e = {0};
    struct blk_device *dev;
    struct blk_child file = {"file", co_fuzz_disk(in)};
    if (co_blk_open(&luks_driver, "image", NULL, BLK_OPEN_NO_DATA, NULL, &file, 1, &dev, &e) < 0)
        return 0;
    co_use(dev, in->data, MIN(in->bytes, 16));
    co_blk_close(dev, &e);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 256 * KiB)
        return 0;
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (!copy)
        return 0;
    if (bytes)
        memcpy(copy, data, bytes);
    seal(copy, bytes, 0);
    for (uint64_t at = LUKS2_HEADER_MIN; at <= 128 * KiB; at *= 2)
        seal(copy, bytes, at);
    struct fuzz_input in = {&luks_driver, copy, bytes, co_use};
    fuzz_stack_with(co_input, &in);
    free(copy);
    return 0;
}

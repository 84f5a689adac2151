/* SPDX-License-Identifier: BSD-3-Clause */
/* luks_header.c - the header of LUKS version 1: bytes to struct luks, and back. Pure.
 *
 *   | header 592 | key material of 8 slots, each in whole sectors | data |
 *
 * (LUKS On-Disk Format 1.2.3.) Every field of what is parsed may be used without another look. */
#include <stdio.h>

#include "imgfmt/luks.h"

#define SLOT_ALIGN 4096 /* of key material and data in what we make, as QEMU does */

unsigned luks_version_of(const uint8_t *head, size_t bytes)
{
    be16 version;
    if (bytes < sizeof(struct luks1_disk) || memcmp(head, LUKS_MAGIC, 6) != 0)
        return 0;
    memcpy(&version, head + offsetof(struct luks1_disk, version), sizeof version);
    return be16_get(version) <= 2 ? be16_get(version) : 0;
}

uint64_t luks_material_bytes(const struct luks_slot *s)
{
    return align_up((uint64_t)s->key_bytes * s->stripes, LUKS_SECTOR);
}

static bool terminated(const char *text, size_t bytes)
{
    return memchr(text, 0, bytes) != NULL;
}

static int parse_words(const struct luks1_disk *d, struct luks *out, struct blk_error *e)
{
    if (!terminated(d->cipher, sizeof d->cipher) || !terminated(d->mode, sizeof d->mode) ||
        !terminated(d->hash, sizeof d->hash))
        return err_bad(e, -EINVAL, "the LUKS header is damaged: a name has no end");
    TRY(crypt_spec_parse(d->cipher, d->mode, be32_get(d->key_bytes), &out->payload, e));
    out->hash = kdf_hash_find(d->hash);
    if (!out->hash)
        return err_bad(e, -ENOTSUP, "the hash '%.32s' is not known", d->hash);
    snprintf(out->uuid, sizeof out->uuid, "%.40s", d->uuid);
    return 0;
}

static int parse_slot(const struct luks1_disk *d, const struct luks_parse *in, unsigned i,
                      struct luks *out, struct blk_error *e)
{
    const struct luks1_slot_disk *raw = &d->slots[i];
    struct luks_slot *s = &out->slots[i];
    uint32_t state = be32_get(raw->state);
    if (state != LUKS_SLOT_ACTIVE && state != LUKS_SLOT_EMPTY)
        return err_bad(e, -EINVAL,
                       "the LUKS header is damaged: key slot %u is in no known state (%#" PRIx32
                       ")",
                       i, state);
    *s = (struct luks_slot){
        .present = true,
        .active = state == LUKS_SLOT_ACTIVE,
        .material_offset = (uint64_t)be32_get(raw->material_sector) * LUKS_SECTOR,
        .stripes = be32_get(raw->stripes),
        .key_bytes = out->payload.key_bytes,
        .af_hash = out->hash,
        .hash = out->hash,
        .area = out->payload,
        .iterations = be32_get(raw->iterations),
        .salt_bytes = LUKS1_SALT,
    };
    memcpy(s->salt, raw->salt, LUKS1_SALT);
    if (s->stripes == 0 || s->stripes > LUKS_STRIPES_MAX)
        return err_bad(e, -EINVAL,
                       "the LUKS header is damaged: key slot %u has %" PRIu32 " stripes", i,
                       s->stripes);
    s->material_bytes = luks_material_bytes(s);
    if (s->material_offset < sizeof *d ||
        !range_fits(s->material_offset, s->material_bytes,
                    in->own_payload ? out->payload_offset : in->file_bytes))
        return err_bad(e, -EINVAL,
                       "the LUKS header is damaged: the key material of slot %u (at %" PRIu64
                       ") lies over the header, the data or the end",
                       i, s->material_offset);
    if (s->active && (s->iterations == 0 || s->iterations > LUKS_ROUNDS_MAX))
        return err_bad(e, -EINVAL,
                       "key slot %u asks for %" PRIu32 " rounds of PBKDF2; 1 to %d are "
                       "taken",
                       i, s->iterations, LUKS_ROUNDS_MAX);
    return 0;
}

/* Two slots in one place would overwrite each other. */
static int check_apart(const struct luks *l, struct blk_error *e)
{
    for (unsigned i = 0; i < l->slot_count; i++)
        for (unsigned k = i + 1; k < l->slot_count; k++) {
            const struct luks_slot *a = &l->slots[i], *b = &l->slots[k];
            if (a->material_offset < b->material_offset + b->material_bytes &&
                b->material_offset < a->material_offset + a->material_bytes)
                return err_bad(e, -EINVAL,
                               "the LUKS header is damaged: key slots %u and %u overlap", i, k);
        }
    return 0;
}

int luks1_parse(const struct luks_parse *in, struct luks *out, struct blk_error *e)
{
    struct luks1_disk d;
    *out = (struct luks){.version = 1, .slot_count = LUKS1_SLOTS};
    if (in->bytes < sizeof d)
        return err_wrong_format(e, "not a LUKS image: it is too short");
    memcpy(&d, in->raw, sizeof d);
    if (memcmp(d.magic, LUKS_MAGIC, 6) != 0 && !in->fresh)
        return err_wrong_format(e, "not a luks image");
    if (be16_get(d.version) != 1)
        return err_bad(e, -ENOTSUP, "LUKS version %u is not known", be16_get(d.version));
    out->payload_offset = (uint64_t)be32_get(d.payload_sector) * LUKS_SECTOR;
    TRY(parse_words(&d, out, e));
    if (in->own_payload && out->payload_offset == 0)
        return err_set(e, -ENOTSUP, "the LUKS header is a detached one: it has no data behind it");
    if (in->own_payload && out->payload_offset > in->file_bytes)
        return err_bad(e, -EINVAL,
                       "the LUKS header says the data begins at %" PRIu64
                       ", but the file ends at %" PRIu64,
                       out->payload_offset, in->file_bytes);
    for (unsigned i = 0; i < LUKS1_SLOTS; i++)
        TRY(parse_slot(&d, in, i, out, e));
    out->digest_hash = out->hash;
    out->digest_bytes = LUKS1_DIGEST;
    out->digest_salt_bytes = LUKS1_SALT;
    out->digest_iterations = be32_get(d.digest_iterations);
    if (out->digest_iterations == 0 || out->digest_iterations > LUKS_ROUNDS_MAX)
        return err_bad(e, -EINVAL,
                       "the LUKS header asks for %" PRIu32 " rounds of PBKDF2; 1 to %d "
                       "are taken",
                       out->digest_iterations, LUKS_ROUNDS_MAX);
    memcpy(out->digest, d.digest, LUKS1_DIGEST);
    memcpy(out->digest_salt, d.digest_salt, LUKS1_SALT);
    return check_apart(out, e);
}

void luks1_put(const struct luks *l, struct luks1_disk *to)
{
    *to = (struct luks1_disk){
        .version = be16_of(1),
        .payload_sector = be32_of((uint32_t)(l->payload_offset / LUKS_SECTOR)),
        .key_bytes = be32_of(l->payload.key_bytes),
        .digest_iterations = be32_of(l->digest_iterations),
    };
    memcpy(to->magic, LUKS_MAGIC, 6);
    snprintf(to->cipher, sizeof to->cipher, "%s", crypt_cipher_name(&l->payload));
    crypt_mode_text(&l->payload, to->mode, sizeof to->mode);
    snprintf(to->hash, sizeof to->hash, "%s", kdf_hash_name(l->hash));
    memcpy(to->digest, l->digest, LUKS1_DIGEST);
    memcpy(to->digest_salt, l->digest_salt, LUKS1_SALT);
    memcpy(to->uuid, l->uuid, sizeof to->uuid);
    for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
        const struct luks_slot *s = &l->slots[i];
        to->slots[i].state = be32_of(s->active ? LUKS_SLOT_ACTIVE : LUKS_SLOT_EMPTY);
        to->slots[i].iterations = be32_of(s->active ? s->iterations : 0);
        if (s->active)
            memcpy(to->slots[i].salt, s->salt, LUKS1_SALT);
        to->slots[i].material_sector = be32_of((uint32_t)(s->material_offset / LUKS_SECTOR));
        to->slots[i].stripes = be32_of(s->stripes);
    }
}

void luks1_layout(struct luks *l)
{
    uint64_t at = SLOT_ALIGN;
    l->slot_count = LUKS1_SLOTS;
    for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
        struct luks_slot *s = &l->slots[i];
        *s = (struct luks_slot){
            .present = true,
            .material_offset = at,
            .stripes = LUKS1_STRIPES,
            .key_bytes = l->payload.key_bytes,
            .af_hash = l->hash,
            .hash = l->hash,
            .area = l->payload,
            .salt_bytes = LUKS1_SALT,
        };
        s->material_bytes = luks_material_bytes(s);
        at += align_up(s->material_bytes, SLOT_ALIGN);
    }
    l->payload_offset = at;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* luks_info.c - the facts of a LUKS header, in the shape that qemu-img gives those of version 1.
 * Nothing is derived: no pass phrase is needed. */
#include "imgfmt/luks.h"

static void put(json_t *o, const char *key, json_t *v)
{
    json_object_set_new(o, key, v);
}

static void put_number(json_t *o, const char *key, uint64_t n)
{
    put(o, key, json_integer((json_int_t)n));
}

static json_t *slot_info(const struct luks *l, const struct luks_slot *s, uint64_t at)
{
    json_t *o = json_object();
    put(o, "active", json_boolean(s->active));
    if (s->active && s->kdf == LUKS_PBKDF2)
        put_number(o, "iters", s->iterations);
    if (s->active && s->kdf == LUKS_ARGON2) {
        put(o, "kdf", json_string(s->argon2.kind == KDF_ARGON2I ? "argon2i" : "argon2id"));
        put_number(o, "time", s->argon2.passes);
        put_number(o, "memory-kib", s->argon2.memory_kib);
        put_number(o, "cpus", s->argon2.lanes);
    }
    put_number(o, "key-offset", at + s->material_offset);
    if (s->active)
        put_number(o, "stripes", s->stripes);
    return o;
}

json_t *luks_info(const struct luks *l, uint64_t header_at, bool named)
{
    json_t *o = json_object(), *slots = json_array();
    const char *iv = crypt_iv_name(&l->payload);
    if (l->version == 2) {
        put_number(o, "version", 2);
        if (l->label[0])
            put(o, "label", json_from_text(l->label));
        put_number(o, "sector-size", l->payload.sector_bytes);
    }
    if (iv)
        put(o, "ivgen-alg", json_string(iv));
    put(o, "hash-alg", json_string(kdf_hash_name(l->digest_hash)));
    put(o, "cipher-alg", json_string(crypt_alg_name(&l->payload)));
    put(o, "uuid", json_from_text(l->uuid));
    if (named)
        put(o, "format", json_string("luks"));
    if (l->payload.iv_hash)
        put(o, "ivgen-hash-alg", json_string(kdf_hash_name(l->payload.iv_hash)));
    put(o, "cipher-mode", json_string(crypt_mode_name(&l->payload)));
    for (unsigned i = 0; i < l->slot_count; i++)
        if (l->slots[i].present)
            json_array_append_new(slots, slot_info(l, &l->slots[i], header_at));
    put(o, "slots", slots);
    put_number(o, "payload-offset", header_at + l->payload_offset);
    put_number(o, "master-key-iters", l->digest_iterations);
    return o;
}

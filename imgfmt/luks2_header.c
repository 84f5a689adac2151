/* SPDX-License-Identifier: BSD-3-Clause */
/* luks2_header.c - the header of LUKS version 2: a binary part, a JSON text behind it. Pure.
 *
 *   | binary 4096 | JSON | binary 4096 | JSON | key material of all slots | ... | data |
 *
 * (LUKS2 On-Disk Format 1.1.) Two copies; the valid one with the higher sequence counts. The text
 * is parsed with all numbers bounded; what it asks for beyond one encrypted segment (integrity,
 * a re-encryption under way) is refused by name. 64-bit numbers are strings there. */
#include <nettle/base64.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/option_text.h"
#include "imgfmt/luks.h"

/* --- the binary part --------------------------------------------------------------------------
 */

uint64_t luks2_header_bytes(const uint8_t *raw, size_t bytes, uint64_t at)
{
    struct luks2_disk d;
    if (bytes < sizeof d)
        return 0;
    memcpy(&d, raw, sizeof d);
    uint64_t all = be64_get(d.header_bytes);
    if (memcmp(d.magic, at ? LUKS2_MAGIC_2 : LUKS_MAGIC, 6) != 0 || be16_get(d.version) != 2 ||
        be64_get(d.header_offset) != at || !is_pow2(all) || all < LUKS2_HEADER_MIN ||
        all > LUKS2_HEADER_MAX || (at && all != at))
        return 0;
    return all;
}

int luks2_check(uint8_t *raw, uint64_t bytes, struct blk_error *e)
{
    struct luks2_disk *d = (struct luks2_disk *)raw; /* all its members are bytes */
    uint8_t said[sizeof d->checksum], is[KDF_HASH_MAX];
    const struct kdf_hash *h = NULL;
    assert(bytes >= sizeof *d);
    if (memchr(d->checksum_name, 0, sizeof d->checksum_name))
        h = kdf_hash_find(d->checksum_name);
    if (!h)
        return err_bad(e, -EINVAL, "the checksum '%.32s' of the LUKS2 header is not known",
                       d->checksum_name);
    memcpy(said, d->checksum, sizeof said);
    memset(d->checksum, 0, sizeof d->checksum);
    kdf_hash_of(h, raw, bytes, is);
    memcpy(d->checksum, said, sizeof said);
    if (memcmp(said, is, kdf_hash_bytes(h)) != 0)
        return err_bad(e, -EINVAL, "the LUKS2 header is damaged: its checksum is wrong");
    return 0;
}

/* --- JSON -------------------------------------------------------------------------------------
 */

static int damaged(const char *where, const char *key, struct blk_error *e)
{
    return err_bad(e, -EINVAL, "the LUKS2 header is damaged: %.60s: %.40s", where, key);
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* A number that JSON holds as such, in [least, most]. */
static int get_number(const json_t *o, const char *where, const char *key, uint64_t least,
                      uint64_t most, uint64_t *out, struct blk_error *e)
{
    const json_t *v = json_object_get(o, key);
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 0 || (uint64_t)n < least || (uint64_t)n > most)
        return damaged(where, key, e);
    *out = (uint64_t)n;
    return 0;
}

static int get_u32(const json_t *o, const char *where, const char *key, uint32_t least,
                   uint32_t most, uint32_t *out, struct blk_error *e)
{
    uint64_t n = 0;
    TRY(get_number(o, where, key, least, most, &n, e));
    *out = (uint32_t)n;
    return 0;
}

/* A number of 64 bits: a string of digits. */
static int get_u64(const json_t *o, const char *where, const char *key, uint64_t *out,
                   struct blk_error *e)
{
    const char *s = text_of(o, key);
    char *end;
    size_t len = strlen(s);
    if (len == 0 || len > 20 || strspn(s, "0123456789") != len)
        return damaged(where, key, e);
    errno = 0;
    *out = strtoull(s, &end, 10);
    return errno ? damaged(where, key, e) : 0;
}

static int get_base64(const json_t *o, const char *where, const char *key, uint8_t *to, size_t room,
                      size_t *bytes, struct blk_error *e)
{
    const char *s = text_of(o, key);
    size_t len = strlen(s);
    uint8_t raw[BASE64_DECODE_LENGTH(128)];
    struct base64_decode_ctx ctx;
    size_t n = sizeof raw;
    base64_decode_init(&ctx);
    if (len == 0 || len > 128 || !base64_decode_update(&ctx, &n, raw, len, s) ||
        !base64_decode_final(&ctx) || n == 0 || n > room)
        return damaged(where, key, e);
    memcpy(to, raw, n);
    *bytes = n;
    return 0;
}

static int get_hash(const json_t *o, const char *where, const struct kdf_hash **out,
                    struct blk_error *e)
{
    *out = kdf_hash_find(text_of(o, "hash"));
    if (!*out)
        return err_bad(e, -ENOTSUP, "%s: the hash '%.40s' is not known", where, text_of(o, "hash"));
    return 0;
}

/* "aes-xts-plain64" */
static int get_cipher(const json_t *o, const char *where, uint32_t key_bytes,
                      struct crypt_spec *out, struct blk_error *e)
{
    char name[32];
    const char *s = text_of(o, "encryption");
    size_t n = strcspn(s, "-");
    if (n == 0 || n >= sizeof name || !s[n])
        return err_bad(e, -ENOTSUP, "%s: the cipher '%.60s' is not known", where, s);
    snprintf(name, sizeof name, "%.*s", (int)n, s);
    int rc = crypt_spec_parse(name, s + n + 1, key_bytes, out, e);
    return rc < 0 && e ? err_prefix(e, "%s: %.60s", where, s) : rc;
}

/* "3" to 3; UINT_MAX: no such number. */
static unsigned index_of(const char *text, unsigned limit)
{
    size_t len = text ? strlen(text) : 0;
    if (len == 0 || len > 2 || strspn(text, "0123456789") != len)
        return UINT32_MAX;
    unsigned n = (unsigned)atoi(text);
    return n < limit ? n : UINT32_MAX;
}

/* --- key slots --------------------------------------------------------------------------------
 */

static int parse_kdf(const json_t *kdf, const char *where, struct luks_slot *s, struct blk_error *e)
{
    const char *type = text_of(kdf, "type");
    TRY(get_base64(kdf, where, "salt", s->salt, sizeof s->salt, &s->salt_bytes, e));
    if (strcmp(type, "pbkdf2") == 0) {
        s->kdf = LUKS_PBKDF2;
        TRY(get_hash(kdf, where, &s->hash, e));
        return get_u32(kdf, where, "iterations", 1, LUKS_ROUNDS_MAX, &s->iterations, e);
    }
    if (strcmp(type, "argon2i") != 0 && strcmp(type, "argon2id") != 0)
        return err_bad(e, -ENOTSUP, "%s: the key derivation '%.40s' is not known", where, type);
    struct kdf_argon2_cost *c = &s->argon2;
    s->kdf = LUKS_ARGON2;
    c->kind = strcmp(type, "argon2i") == 0 ? KDF_ARGON2I : KDF_ARGON2ID;
    TRY(get_u32(kdf, where, "time", 1, UINT32_MAX, &c->passes, e));
    TRY(get_u32(kdf, where, "memory", 8, UINT32_MAX, &c->memory_kib, e));
    TRY(get_u32(kdf, where, "cpus", 1, UINT32_MAX, &c->lanes, e));
    if (c->memory_kib > LUKS_MEMORY_MAX || c->lanes > LUKS_LANES_MAX ||
        (uint64_t)c->passes * c->memory_kib > LUKS_WORK_MAX / KiB)
        return err_set(e, -ENOTSUP,
                       "%s: Argon2 asks for %" PRIu32 " KiB of memory, %" PRIu32
                       " times, in %" PRIu32 " lanes: more than is taken",
                       where, c->memory_kib, c->passes, c->lanes);
    return 0;
}

static int parse_area(const json_t *area, const char *where, uint64_t file_bytes,
                      struct luks_slot *s, struct blk_error *e)
{
    uint32_t key_bytes = 0;
    if (strcmp(text_of(area, "type"), "raw") != 0)
        return err_bad(e, -ENOTSUP, "%s: the area '%.40s' is not known", where,
                       text_of(area, "type"));
    TRY(get_u64(area, where, "offset", &s->material_offset, e));
    TRY(get_u64(area, where, "size", &s->material_bytes, e));
    TRY(get_u32(area, where, "key_size", 1, CRYPT_KEY_MAX, &key_bytes, e));
    TRY(get_cipher(area, where, key_bytes, &s->area, e));
    if (s->material_offset % LUKS_SECTOR || luks_material_bytes(s) > s->material_bytes ||
        !range_fits(s->material_offset, s->material_bytes, file_bytes))
        return damaged(where, "area", e);
    return 0;
}

static int parse_slot(const json_t *o, const char *where, uint64_t file_bytes, struct luks_slot *s,
                      struct blk_error *e)
{
    const json_t *af = json_object_get(o, "af"), *priority = json_object_get(o, "priority");
    const char *type = text_of(o, "type");
    if (strcmp(type, "reencrypt") == 0)
        return err_set(e, -ENOTSUP, "the image is being re-encrypted; let cryptsetup finish that");
    if (strcmp(type, "luks2") != 0)
        return 0; /* of somebody else: left alone */
    TRY(get_u32(o, where, "key_size", 1, CRYPT_KEY_MAX, &s->key_bytes, e));
    if (strcmp(text_of(af, "type"), "luks1") != 0)
        return err_set(e, -ENOTSUP, "%s: the splitter '%.40s' is not known", where,
                       text_of(af, "type"));
    TRY(get_u32(af, where, "stripes", 1, LUKS_STRIPES_MAX, &s->stripes, e));
    TRY(get_hash(af, where, &s->af_hash, e));
    TRY(parse_area(json_object_get(o, "area"), where, file_bytes, s, e));
    TRY(parse_kdf(json_object_get(o, "kdf"), where, s, e));
    s->last = json_is_integer(priority) && json_integer_value(priority) == 0;
    s->present = true;
    return 0;
}

static int parse_slots(const json_t *root, uint64_t file_bytes, struct luks *out,
                       struct blk_error *e)
{
    const char *key;
    json_t *value;
    char where[24];
    out->slot_count = LUKS2_SLOTS;
    json_object_foreach (json_object_get(root, "keyslots"), key, value) {
        unsigned i = index_of(key, LUKS2_SLOTS);
        if (i == UINT32_MAX)
            return damaged("keyslots", "name", e);
        snprintf(where, sizeof where, "key slot %u", i);
        TRY(parse_slot(value, where, file_bytes, &out->slots[i], e));
    }
    return 0;
}

/* --- the segment, its digest ------------------------------------------------------------------
 */

static int parse_segment(const json_t *root, uint64_t file_bytes, struct luks *out,
                         uint32_t *sector_bytes, const json_t **segment, struct blk_error *e)
{
    const json_t *all = json_object_get(root, "segments");
    *segment = json_object_get(all, "0");
    if (json_object_size(all) != 1 || !*segment)
        return err_set(e, -ENOTSUP, "the image has %zu LUKS2 segments; one is read",
                       json_object_size(all));
    if (strcmp(text_of(*segment, "type"), "crypt") != 0)
        return err_bad(e, -ENOTSUP, "the LUKS2 segment '%.40s' is not known",
                       text_of(*segment, "type"));
    if (json_object_get(*segment, "integrity"))
        return err_set(e, -ENOTSUP,
                       "the image is encrypted with integrity (%.40s), which is "
                       "dm-integrity's",
                       text_of(json_object_get(*segment, "integrity"), "type"));
    if (json_object_get(*segment, "flags"))
        return err_set(e, -ENOTSUP, "the image is being re-encrypted; let cryptsetup finish that");
    TRY(get_u64(*segment, "segment", "offset", &out->payload_offset, e));
    TRY(get_u64(*segment, "segment", "iv_tweak", &out->iv_tweak, e));
    TRY(get_u32(*segment, "segment", "sector_size", 512, 4096, sector_bytes, e));
    if (strcmp(text_of(*segment, "size"), "dynamic") != 0)
        TRY(get_u64(*segment, "segment", "size", &out->payload_bytes, e));
    if (!is_pow2(*sector_bytes) || out->payload_offset % LUKS_SECTOR ||
        out->payload_offset < 2 * out->header_bytes || out->payload_bytes % *sector_bytes ||
        !range_fits(out->payload_offset, out->payload_bytes, file_bytes))
        return damaged("segment", "its place", e);
    return 0;
}

static bool names_zero(const json_t *list)
{
    size_t i;
    json_t *v;
    json_array_foreach (list, i, v)
        if (json_is_string(v) && strcmp(json_string_value(v), "0") == 0)
            return true;
    return false;
}

static int parse_digest(const json_t *root, struct luks *out, struct blk_error *e)
{
    const char *key;
    json_t *value, *found = NULL, *v;
    size_t i;
    json_object_foreach (json_object_get(root, "digests"), key, value)
        if (names_zero(json_object_get(value, "segments")))
            found = value;
    if (!found)
        return damaged("digests", "none is of the data", e);
    if (strcmp(text_of(found, "type"), "pbkdf2") != 0)
        return err_bad(e, -ENOTSUP, "the LUKS2 digest '%.40s' is not known",
                       text_of(found, "type"));
    TRY(get_hash(found, "digest", &out->digest_hash, e));
    TRY(get_u32(found, "digest", "iterations", 1, LUKS_ROUNDS_MAX, &out->digest_iterations, e));
    TRY(get_base64(found, "digest", "salt", out->digest_salt, sizeof out->digest_salt,
                   &out->digest_salt_bytes, e));
    TRY(get_base64(found, "digest", "digest", out->digest, sizeof out->digest, &out->digest_bytes,
                   e));
    if (out->digest_bytes < LUKS1_DIGEST)
        return damaged("digest", "too short", e);
    json_array_foreach (json_object_get(found, "keyslots"), i, v) {
        unsigned slot = index_of(json_string_value(v), LUKS2_SLOTS);
        if (slot != UINT32_MAX && out->slots[slot].present)
            out->slots[slot].active = true;
    }
    return 0;
}

/* The key of the data is as long as what its slots hold. */
static int parse_payload_cipher(const json_t *segment, uint32_t sector_bytes, struct luks *out,
                                struct blk_error *e)
{
    uint32_t key_bytes = 0;
    for (unsigned i = 0; i < LUKS2_SLOTS; i++) {
        const struct luks_slot *s = &out->slots[i];
        if (!s->active)
            continue;
        if (key_bytes && key_bytes != s->key_bytes)
            return damaged("keyslots", "keys of two lengths", e);
        key_bytes = s->key_bytes;
    }
    if (!key_bytes)
        return err_bad(e, -EINVAL, "no key slot of the LUKS2 header is in use: the data is lost");
    TRY(get_cipher(segment, "segment", key_bytes, &out->payload, e));
    out->payload.sector_bytes = sector_bytes;
    return 0;
}

/* Features that a reader must know: we know none of them. */
static int parse_config(const json_t *root, struct blk_error *e)
{
    const json_t *needs = json_object_get(
        json_object_get(json_object_get(root, "config"), "requirements"), "mandatory");
    if (json_array_size(needs) > 0)
        return err_bad(e, -ENOTSUP, "the LUKS2 header requires '%.60s', which is not known",
                       json_is_string(json_array_get(needs, 0))
                           ? json_string_value(json_array_get(needs, 0))
                           : "?");
    return 0;
}

static int parse_tree(const json_t *root, uint64_t file_bytes, struct luks *out,
                      struct blk_error *e)
{
    uint32_t sector_bytes = 0;
    const json_t *segment;
    TRY(parse_config(root, e));
    TRY(parse_slots(root, file_bytes, out, e));
    TRY(parse_segment(root, file_bytes, out, &sector_bytes, &segment, e));
    TRY(parse_digest(root, out, e));
    return parse_payload_cipher(segment, sector_bytes, out, e);
}

int luks2_parse(const uint8_t *raw, uint64_t bytes, uint64_t file_bytes, struct luks *out,
                struct blk_error *e)
{
    struct luks2_disk d;
    const char *text = (const char *)raw + LUKS2_BINARY;
    assert(bytes > LUKS2_BINARY);
    memcpy(&d, raw, sizeof d);
    *out = (struct luks){
        .version = 2, .header_bytes = be64_get(d.header_bytes), .sequence = be64_get(d.sequence)};
    snprintf(out->uuid, sizeof out->uuid, "%.40s", d.uuid);
    snprintf(out->label, sizeof out->label, "%.48s", d.label);
    snprintf(out->subsystem, sizeof out->subsystem, "%.48s", d.subsystem);
    size_t len = strnlen(text, bytes - LUKS2_BINARY);
    if (len > LUKS2_JSON_MAX)
        return err_set(e, -E2BIG, "the JSON text of the LUKS2 header is longer than %llu bytes",
                       LUKS2_JSON_MAX);
    TRY(json_check_depth(text, len, e));
    json_error_t where;
    json_auto_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(root))
        return err_bad(e, -EINVAL, "the LUKS2 header is damaged: its text is no JSON object");
    return parse_tree(root, file_bytes, out, e);
}

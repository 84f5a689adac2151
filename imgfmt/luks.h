/* SPDX-License-Identifier: BSD-3-Clause */
/* luks.h - LUKS headers, versions 1 and 2, and what is done with their key slots.
 *
 * A header holds a *volume key* in up to 32 *slots*: blown up by the anti-forensic splitter and
 * encrypted with a key that is derived from a pass phrase. A *digest* tells whether what came out
 * of a slot is the volume key. The same struct serves both versions; the parsers are pure.
 *
 *   luks_header.c  version 1: bytes to struct luks, and back
 *   luks2_header.c version 2: the binary part, and the JSON text behind it
 *   luks_read.c    which header of an image counts
 *   luks_key.c     unlocking, filling and erasing slots
 *   luks_create.c  options, a new header
 *   luks_amend.c   pass phrases added and erased later
 *   luks_info.c    facts
 *   luks.c         the driver
 *   crypt_io.c     reading and writing through a cipher: the driver's, and qcow2's */
#ifndef IMGFMT_LUKS_H
#define IMGFMT_LUKS_H

#include "block/block.h"
#include "block/endian.h"
#include "imgfmt/crypt.h"
#include "imgfmt/kdf.h"

#define LUKS_SECTOR 512

/* --- version 1 on disk: LUKS On-Disk Format 1.2.3, section 2 ---------------------------------- */

#define LUKS1_SLOTS      8
#define LUKS1_SALT       32
#define LUKS1_DIGEST     20
#define LUKS1_STRIPES    4000
#define LUKS_SLOT_ACTIVE 0x00ac71f3u
#define LUKS_SLOT_EMPTY  0x0000deadu
#define LUKS_MAGIC       "LUKS\xba\xbe"
#define LUKS2_MAGIC_2    "SKUL\xba\xbe" /* of the second header of version 2 */

struct luks1_slot_disk {
    be32 state;      /* LUKS_SLOT_ACTIVE or _EMPTY */
    be32 iterations; /* of PBKDF2 */
    uint8_t salt[LUKS1_SALT];
    be32 material_sector; /* where the key material begins, from the header's begin */
    be32 stripes;
};

struct luks1_disk {
    uint8_t magic[6];
    be16 version;
    char cipher[32]; /* "aes" */
    char mode[32];   /* "xts-plain64" */
    char hash[32];   /* of PBKDF2 and the splitter */
    be32 payload_sector;
    be32 key_bytes;
    uint8_t digest[LUKS1_DIGEST];
    uint8_t digest_salt[LUKS1_SALT];
    be32 digest_iterations;
    char uuid[40];
    struct luks1_slot_disk slots[LUKS1_SLOTS];
};
static_assert(sizeof(struct luks1_slot_disk) == 48, "LUKS1 slot");
static_assert(sizeof(struct luks1_disk) == 592, "LUKS1 header");
static_assert(offsetof(struct luks1_disk, slots) == 208, "LUKS1 header");

/* --- version 2 on disk: LUKS2 On-Disk Format 1.1, section 2 ----------------------------------- */

#define LUKS2_BINARY     4096        /* the JSON text begins behind it */
#define LUKS2_HEADER_MIN (16 * KiB)  /* with the JSON area */
#define LUKS2_HEADER_MAX (4 * MiB)   /* powers of two between */
#define LUKS2_JSON_MAX   (512 * KiB) /* that we parse: cryptsetup's default area has 12 KiB */
#define LUKS2_SLOTS      32

struct luks2_disk {
    uint8_t magic[6];
    be16 version;
    be64 header_bytes; /* binary part and JSON area */
    be64 sequence;     /* the header with the higher one counts */
    char label[48];
    char checksum_name[32]; /* "sha256" */
    uint8_t salt[64];
    char uuid[40];
    char subsystem[48];
    be64 header_offset; /* from the begin of the device: 0 or header_bytes */
    uint8_t padding[184];
    uint8_t checksum[64]; /* of the whole header with zeroes here */
    uint8_t padding2[7 * 512];
};
static_assert(sizeof(struct luks2_disk) == LUKS2_BINARY, "LUKS2 header");
static_assert(offsetof(struct luks2_disk, checksum) == 448, "LUKS2 header");

/* --- both, parsed ----------------------------------------------------------------------------- */

#define LUKS_SALT_MAX    64
#define LUKS_STRIPES_MAX 16384     /* with 64 bytes of key: 1 MiB */
#define LUKS_MEMORY_MAX  (4 * MiB) /* KiB that Argon2 may take: cryptsetup's own limit */
#define LUKS_LANES_MAX   64
#define LUKS_WORK_MAX    (1 * TiB)  /* bytes that Argon2 may go over, passes times memory */
#define LUKS_ROUNDS_MAX  1000000000 /* of PBKDF2: a quarter of an hour */

enum luks_kdf { LUKS_PBKDF2, LUKS_ARGON2 };
struct luks_slot {
    bool present; /* version 1: always; version 2: the slot is described */
    bool active;  /* holds the key of our data */
    bool last;    /* version 2: only if the caller asks for it (priority 0) */
    uint64_t material_offset, material_bytes;
    uint32_t stripes, key_bytes;
    const struct kdf_hash *af_hash;
    struct crypt_spec area; /* the cipher of the key material */
    enum luks_kdf kdf;
    const struct kdf_hash *hash;   /* PBKDF2 */
    uint32_t iterations;           /* PBKDF2 */
    struct kdf_argon2_cost argon2; /* Argon2 */
    uint8_t salt[LUKS_SALT_MAX];
    size_t salt_bytes;
};

struct luks {
    unsigned version;
    char uuid[41];
    struct crypt_spec payload; /* how the data is encrypted; its key is the volume key */
    uint64_t payload_offset, payload_bytes; /* bytes 0: to the end of the file */
    uint64_t iv_tweak;                      /* version 2: number of the first sector of 512 bytes */
    const struct kdf_hash *hash;            /* version 1 */
    const struct kdf_hash *digest_hash;
    uint8_t digest[KDF_HASH_MAX], digest_salt[LUKS_SALT_MAX];
    size_t digest_bytes, digest_salt_bytes;
    uint32_t digest_iterations;
    unsigned slot_count; /* LUKS1_SLOTS or LUKS2_SLOTS */
    struct luks_slot slots[LUKS2_SLOTS];
    uint64_t sequence, header_bytes; /* version 2 */
    char label[49], subsystem[49];   /* version 2 */
};

/* --- luks_header.c ---------------------------------------------------------------------------- */

/* The first bytes of a LUKS header: 1, 2, or 0: none. */
unsigned luks_version_of(const uint8_t *head, size_t bytes);
/* @raw: at least sizeof(struct luks1_disk), from the header's begin; @file_bytes: what there is
 * from there on. @own_payload: the data begins at payload_offset (false in qcow2). A missing magic
 * is no error if @fresh. */
struct luks_parse {
    const uint8_t *raw;
    size_t bytes;
    uint64_t file_bytes;
    bool own_payload, fresh;
};
must_use int luks1_parse(const struct luks_parse *in, struct luks *out, struct blk_error *e);
void luks1_put(const struct luks *l, struct luks1_disk *to);
/* What key slots and the data of a version 1 header with @spec's key take: offsets as QEMU makes
 * them. */
void luks1_layout(struct luks *l);
/* Bytes of a slot's key material. */
uint64_t luks_material_bytes(const struct luks_slot *s);

/* --- luks2_header.c: pure; JSON must not be parsed on a coroutine ------------------------------
 */

/* The size of a version 2 header from its first 4096 bytes; 0: they are none. @at: where they were
 * read, which they must say too. */
uint64_t luks2_header_bytes(const uint8_t *raw, size_t bytes, uint64_t at);
/* @raw: the whole header (changed and restored for the checksum). -EINVAL: it is damaged. */
must_use int luks2_check(uint8_t *raw, uint64_t bytes, struct blk_error *e);
/* A checked header. @file_bytes as above. */
must_use int luks2_parse(const uint8_t *raw, uint64_t bytes, uint64_t file_bytes, struct luks *out,
                         struct blk_error *e);

/* --- luks_read.c ------------------------------------------------------------------------------ */

/* The header that lies at @at in @file, of at most @bytes (0: to the end). */
struct luks_where {
    struct blk_device *file;
    uint64_t at, bytes; /* bytes 0: the file's */
    bool own_payload, fresh;
};
must_use int co_luks_read(const struct luks_where *w, struct luks *out, struct blk_error *e);

/* --- luks_key.c ------------------------------------------------------------------------------- */

/* The volume key, by the first slot that @secret opens: gives *key (key_free(), of
 * l->payload.key_bytes) and *slot. -EACCES: none. */
must_use int co_luks_unlock(const struct luks_where *w, const struct luks *l,
                            struct kdf_bytes secret, uint8_t **key, unsigned *slot,
                            struct blk_error *e);
/* Whether @secret opens slot @i (1), or not (0). */
must_use int co_luks_try(const struct luks_where *w, const struct luks *l, unsigned i,
                         struct kdf_bytes secret, uint8_t *key, struct blk_error *e);
/* How strong a new slot is: @msec of this machine's time, or @rounds if that is not 0. */
struct luks_strength {
    uint64_t msec, rounds;
};
/* Version 1: the digest of @key. */
must_use int co_luks1_set_digest(struct luks *l, const uint8_t *key, struct luks_strength s,
                                 struct host *host, struct blk_error *e);
/* Version 1: puts @key under @secret into slot @i of @l and its key material into the file; the
 * header is the caller's to write, after a flush. */
must_use int co_luks1_fill(const struct luks_where *w, struct luks *l, unsigned i,
                           const uint8_t *key, struct kdf_bytes secret, struct luks_strength s,
                           struct blk_error *e);
/* Overwrites the key material of slot @i with noise. */
must_use int co_luks1_wipe(const struct luks_where *w, const struct luks *l, unsigned i,
                           struct blk_error *e);

/* --- luks_create.c, luks_amend.c -------------------------------------------------------------- */

/* Entries of option tables, in the order in which qemu-img lists them. A number of rounds that is
 * told is for those who want the same strength on every machine. */
#define LUKS_STRENGTH_OPTIONS(prefix)                                                   \
    {.name = prefix "iter-time",                                                        \
     .type = OPT_INT,                                                                   \
     .preset = "2000",                                                                  \
     .min = 1,                                                                          \
     .max = 1000000,                                                                    \
     .help = "Time to spend in PBKDF in milliseconds"},                                 \
    {                                                                                   \
        .name = prefix "iterations", .type = OPT_INT, .min = 1, .max = LUKS_ROUNDS_MAX, \
        .help = "Rounds of PBKDF, instead of a time"                                    \
    }
#define LUKS_CREATE_OPTIONS(prefix)                                     \
    {.name = prefix "cipher-alg",                                       \
     .type = OPT_STRING,                                                \
     .preset = "aes-256",                                               \
     .help = "Name of encryption cipher algorithm"},                    \
        {.name = prefix "cipher-mode",                                  \
         .type = OPT_STRING,                                            \
         .preset = "xts",                                               \
         .help = "Name of encryption cipher mode"},                     \
        {.name = prefix "hash-alg",                                     \
         .type = OPT_STRING,                                            \
         .preset = "sha256",                                            \
         .help = "Name of encryption hash algorithm"},                  \
        LUKS_STRENGTH_OPTIONS(prefix),                                  \
        {.name = prefix "ivgen-alg",                                    \
         .type = OPT_STRING,                                            \
         .preset = "plain64",                                           \
         .help = "Name of IV generator algorithm"},                     \
        {.name = prefix "ivgen-hash-alg",                               \
         .type = OPT_STRING,                                            \
         .help = "Name of IV generator hash algorithm"},                \
    {                                                                   \
        .name = prefix "key-secret", .type = OPT_SECRET,                \
        .help = "ID of the secret that provides the keyslot passphrase" \
    }
#define LUKS_AMEND_OPTIONS(prefix)                                                     \
    LUKS_STRENGTH_OPTIONS(prefix),                                                     \
        {.name = prefix "keyslot",                                                     \
         .type = OPT_INT,                                                              \
         .help = "Select a single keyslot to modify explicitly"},                      \
        {.name = prefix "new-secret",                                                  \
         .type = OPT_SECRET,                                                           \
         .help = "New secret to set in the matching keyslots. Empty string to erase"}, \
        {.name = prefix "old-secret",                                                  \
         .type = OPT_SECRET,                                                           \
         .help = "Select all keyslots that match this password"},                      \
    {                                                                                  \
        .name = prefix "state", .type = OPT_ENUM, .choices = luks_states,              \
        .help = "Select new state of affected keyslots (active/inactive)"              \
    }
extern const char *const luks_states[]; /* inactive, active */

/* The options of a new header, with a prefix in front of their names ("" or "encrypt."). */
struct luks_wish {
    struct crypt_spec spec;
    const struct kdf_hash *hash;
    struct luks_strength strength;
    uint8_t *secret; /* key_free(secret, secret_bytes + 1) */
    size_t secret_bytes;
};
must_use int luks_wish_take(const struct opts *o, const char *prefix, struct luks_wish *out,
                            struct blk_error *e);
void luks_wish_drop(struct luks_wish *w);
/* Fills @out with a new header of version 1 for @wish, a random key, one slot; writes the key
 * material and, if @magic, the header. */
must_use int co_luks1_make(const struct luks_where *w, const struct luks_wish *wish, bool magic,
                           struct luks *out, struct blk_error *e);
/* The bytes in front of the data of what co_luks1_make() would make. */
uint64_t luks1_head_bytes(const struct crypt_spec *spec);
must_use int co_luks1_write_header(const struct luks_where *w, const struct luks *l, bool magic,
                                   unsigned flags);

/* What -o of amend says; prefix as above. @unlocked: the volume key, NULL: not known. */
must_use int co_luks_amend(const struct luks_where *w, struct luks *l, const uint8_t *key,
                           const struct opts *o, const char *prefix, struct blk_error *e);

/* --- luks_info.c ------------------------------------------------------------------------------ */

/* NULL: no memory. @named: with the word luks among the facts. */
json_t *luks_info(const struct luks *l, uint64_t header_at, bool named);

/* --- crypt_io.c ------------------------------------------------------------------------------- */

/* A stretch of ciphertext in @child: byte @at is the begin of the sector @number (of 512). */
struct crypt_place {
    const struct crypt *crypt;
    struct blk_device *child;
    uint64_t at, number;
};
must_use int co_crypt_read(const struct crypt_place *p, const struct vec *to);
must_use int co_crypt_write(const struct crypt_place *p, const struct vec *from, unsigned flags);
/* Decrypts what was read already. */
must_use int co_crypt_in_place(const struct crypt *crypt, uint64_t number, const struct vec *data);
#define CRYPT_TRANSFER_MAX (2 * MiB) /* of one co_crypt_write() */

extern const struct blk_driver luks_driver;

#endif

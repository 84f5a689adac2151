/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_label.c - labels and headers of metadata areas: parsed with every number checked, and built.
 */
#include "volumes/lvm_label.h"

static const char area_magic[16] = " LVM2 x[5A%r0N*>";

#define HEADER_AT      offsetof(struct lvm_label_disk, uuid)
#define CRC_FROM       offsetof(struct lvm_label_disk, header)
#define EXTENSION_USED 1

uint32_t lvm_crc(uint32_t crc, const void *data, size_t bytes)
{
    static const uint32_t nibble[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    for (const uint8_t *p = data; bytes--; p++) {
        crc ^= *p;
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}

/* --- UUIDs -------------------------------------------------------------------------------------
 */

/* True if a hyphen stands in front of character @i. */
static bool hyphen_before(unsigned i)
{
    return i >= 6 && i <= 26 && (i - 6) % 4 == 0;
}

void lvm_uuid_text(const char *uuid, char text[LVM_UUID_TEXT])
{
    for (unsigned i = 0; i < LVM_UUID; i++) {
        if (hyphen_before(i))
            *text++ = '-';
        *text++ = uuid[i];
    }
    *text = 0;
}

static bool is_uuid(const char *c)
{
    static const char known[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#";
    return strspn(c, known) >= LVM_UUID;
}

bool lvm_uuid_parse(const char *text, char uuid[LVM_UUID + 1])
{
    unsigned n = 0;
    for (; *text; text++) {
        if (*text == '-')
            continue;
        if (n == LVM_UUID)
            return false;
        uuid[n++] = *text;
    }
    uuid[n] = 0;
    return n == LVM_UUID && is_uuid(uuid);
}

void lvm_uuid_make(const uint8_t random[LVM_UUID], char uuid[LVM_UUID + 1])
{
    static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (unsigned i = 0; i < LVM_UUID; i++)
        uuid[i] = letters[random[i] % 62];
    uuid[LVM_UUID] = 0;
}

/* --- labels ------------------------------------------------------------------------------------
 */

static uint32_t label_crc(const struct lvm_label_disk *raw)
{
    return lvm_crc(LVM_CRC_INITIAL, (const uint8_t *)raw + CRC_FROM, LVM_SECTOR - CRC_FROM);
}

static bool is_label(const struct lvm_label_disk *raw, uint64_t sector)
{
    return memcmp(raw->id, "LABELONE", 8) == 0 && memcmp(raw->type, "LVM2 001", 8) == 0 &&
           le64_get(raw->sector) == sector && le32_get(raw->header) == HEADER_AT &&
           le32_get(raw->crc) == label_crc(raw);
}

/* The span at *at, which is moved on. False: the lists do not end in the sector. */
static bool next_span(const struct lvm_label_disk *raw, size_t *at, struct lvm_span *out)
{
    struct lvm_span_disk span;
    if (*at + sizeof(span) > sizeof(raw->lists))
        return false;
    memcpy(&span, raw->lists + *at, sizeof(span));
    *at += sizeof(span);
    *out = (struct lvm_span){le64_get(span.offset), le64_get(span.bytes)};
    return true;
}

static int lists_parse(const struct lvm_label_disk *raw, struct lvm_label *l, struct blk_error *e)
{
    struct lvm_span span;
    size_t at = 0;
    do { /* data areas: the text says where extents are */
        if (!next_span(raw, &at, &span))
            return err_bad(e, -EINVAL, "the label is damaged: its list of data areas does not end");
        if (l->data_at == 0)
            l->data_at = span.offset;
    } while (span.offset);
    for (;;) {
        if (!next_span(raw, &at, &span))
            return err_bad(e, -EINVAL,
                           "the label is damaged: its list of metadata areas does not end");
        if (!span.offset)
            break;
        if (l->area_count == LVM_AREAS_MOST)
            return err_bad(e, -EINVAL, "the label names more than %d metadata areas",
                           LVM_AREAS_MOST);
        l->areas[l->area_count++] = span;
    }
    le32 version = {{0}}, flags = {{0}};
    if (at + 8 <= sizeof(raw->lists)) {
        memcpy(&version, raw->lists + at, 4);
        memcpy(&flags, raw->lists + at + 4, 4);
    }
    if (le32_get(version) >= 2)
        l->extension = offsetof(struct lvm_label_disk, lists) + at + 4;
    l->used = l->extension && le32_get(flags) & EXTENSION_USED;
    return 0;
}

int lvm_label_find(const void *sectors, size_t bytes, struct lvm_label *out, struct blk_error *e)
{
    *out = (struct lvm_label){0};
    for (unsigned i = 0; i < LVM_LABEL_SECTORS && (i + 1) * LVM_SECTOR <= bytes; i++) {
        struct lvm_label_disk raw;
        memcpy(&raw, (const uint8_t *)sectors + i * LVM_SECTOR, sizeof(raw));
        if (!is_label(&raw, i))
            continue;
        memcpy(out->uuid, raw.uuid, LVM_UUID);
        if (!is_uuid(out->uuid))
            return err_bad(e, -EINVAL, "the label is damaged: what it has for a UUID is none");
        out->sector = i;
        out->device_bytes = le64_get(raw.device_bytes);
        return lists_parse(&raw, out, e);
    }
    int rc = err_set(e, -ENOENT, "it is no physical volume: it has no label of LVM2");
    err_next(e,
             "`lamina tree FOLDER` shows which files are physical volumes; a label that was lost "
             "is made anew by `pvcreate --uuid UUID --restorefile /etc/lvm/backup/VG`");
    return rc;
}

static void put_span(uint8_t *at, uint64_t offset, uint64_t bytes)
{
    struct lvm_span_disk span = {le64_of(offset), le64_of(bytes)};
    memcpy(at, &span, sizeof(span));
}

void lvm_label_build(const char *uuid, uint64_t device_bytes, bool used, struct lvm_label_disk *out)
{
    le32 version = le32_of(2), flags = le32_of(used ? EXTENSION_USED : 0);
    *out = (struct lvm_label_disk){
        .sector = le64_of(1), .header = le32_of(HEADER_AT), .device_bytes = le64_of(device_bytes)};
    memcpy(out->id, "LABELONE", 8);
    memcpy(out->type, "LVM2 001", 8);
    memcpy(out->uuid, uuid, LVM_UUID);
    put_span(out->lists, LVM_DATA_AT, 0); /* to the end of the device */
    put_span(out->lists + 32, LVM_AREA_AT, LVM_DATA_AT - LVM_AREA_AT);
    memcpy(out->lists + 64, &version, 4);
    memcpy(out->lists + 68, &flags, 4);
    out->crc = le32_of(label_crc(out));
}

void lvm_label_set_used(struct lvm_label_disk *raw, const struct lvm_label *l, bool used)
{
    le32 flags;
    uint8_t *at = (uint8_t *)raw + l->extension;
    if (!l->extension)
        return;
    memcpy(&flags, at, 4);
    uint32_t now = le32_get(flags) & ~(uint32_t)EXTENSION_USED;
    flags = le32_of(used ? now | EXTENSION_USED : now);
    memcpy(at, &flags, 4);
    raw->crc = le32_of(label_crc(raw));
}

/* --- metadata areas ----------------------------------------------------------------------------
 */

static uint32_t area_crc(const struct lvm_area_disk *raw)
{
    return lvm_crc(LVM_CRC_INITIAL, (const uint8_t *)raw + 4, LVM_SECTOR - 4);
}

int lvm_area_parse(const struct lvm_area_disk *raw, const struct lvm_span *area,
                   struct lvm_locn *committed, struct blk_error *e)
{
    const struct lvm_locn_disk *locn = &raw->committed;
    *committed = (struct lvm_locn){0};
    if (memcmp(raw->magic, area_magic, sizeof(area_magic)) != 0)
        return err_bad(e, -EINVAL,
                       "the metadata area at byte %" PRIu64 " is damaged: it does not begin as one",
                       area->offset);
    if (le32_get(raw->crc) != area_crc(raw))
        return err_bad(e, -EBADMSG, "the checksum of the metadata area at %" PRIu64 " is wrong",
                       area->offset);
    if (le32_get(raw->version) != 1 || le64_get(raw->start) != area->offset ||
        le64_get(raw->bytes) != area->bytes || area->bytes <= 2 * LVM_SECTOR)
        return err_bad(e, -EINVAL,
                       "the metadata area at byte %" PRIu64
                       " is damaged: its header names another place",
                       area->offset);
    *committed = (struct lvm_locn){.offset = le64_get(locn->offset),
                                   .bytes = le64_get(locn->bytes),
                                   .crc = le32_get(locn->crc),
                                   .ignored = le32_get(locn->flags) & 1};
    if (committed->bytes && (committed->offset < LVM_SECTOR || committed->offset >= area->bytes ||
                             committed->bytes > area->bytes - LVM_SECTOR))
        return err_bad(e, -EINVAL,
                       "the metadata area at byte %" PRIu64
                       " is damaged: it names a text outside of itself",
                       area->offset);
    return 0;
}

static struct lvm_locn_disk locn_of(const struct lvm_locn *l)
{
    if (!l)
        return (struct lvm_locn_disk){0};
    return (struct lvm_locn_disk){.offset = le64_of(l->offset),
                                  .bytes = le64_of(l->bytes),
                                  .crc = le32_of(l->crc),
                                  .flags = le32_of(l->ignored)};
}

void lvm_area_build(const struct lvm_span *area, const struct lvm_locn *committed,
                    const struct lvm_locn *precommitted, struct lvm_area_disk *out)
{
    *out = (struct lvm_area_disk){.version = le32_of(1),
                                  .start = le64_of(area->offset),
                                  .bytes = le64_of(area->bytes),
                                  .committed = locn_of(committed),
                                  .precommitted = locn_of(precommitted)};
    memcpy(out->magic, area_magic, sizeof(area_magic));
    out->crc = le32_of(area_crc(out));
}

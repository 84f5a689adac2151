/* SPDX-License-Identifier: BSD-3-Clause */
/* luks.c - encrypted disks as Linux's dm-crypt and QEMU know them: LUKS versions 1 and 2 are read
 * and written, version 1 is made.
 *
 *   | header(s) | key material | data, encrypted sector by sector |
 *
 * Byte n of the disk is byte n of the data; nothing is allocated, so there is no order between
 * writes but that of the key slots (L1, L2 of luks_amend.c) and of a fresh image: it has no magic
 * until all else is written. What was never written reads as noise, as everywhere with LUKS. */
#include "imgfmt/luks.h"
#include "block/resolver.h"

struct luks_disk {
    struct luks l;
    struct luks_where where;
    struct crypt *crypt; /* NULL: opened without a key, for facts only */
    uint8_t *key;        /* of CRYPT_KEY_MAX; NULL likewise */
};

/* --- data -------------------------------------------------------------------------------------
 */

static struct crypt_place place(const struct luks_disk *d, uint64_t offset)
{
    return (struct crypt_place){.crypt = d->crypt,
                                .child = d->where.file,
                                .at = d->l.payload_offset + offset,
                                .number = d->l.iv_tweak + offset / LUKS_SECTOR};
}

static int co_luks_data_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct luks_disk *d = dev->state;
    struct crypt_place p = place(d, offset);
    return d->crypt ? co_crypt_read(&p, to) : -ENOKEY;
}

static int co_luks_data_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                              unsigned flags)
{
    const struct luks_disk *d = dev->state;
    struct crypt_place p = place(d, offset);
    return d->crypt ? co_crypt_write(&p, from, flags) : -ENOKEY;
}

/* --- open -------------------------------------------------------------------------------------
 */

static const struct opt_desc luks_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the encrypted disk lies in"},
    {.name = "key-secret", .type = OPT_SECRET, .help = "id of the secret that opens a key slot"},
    {0},
};

static int co_luks_keys(struct luks_disk *d, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    uint8_t *secret;
    size_t bytes;
    unsigned slot;
    TRY(opener_secret(opener, opts ? opts_text(opts, "key-secret") : NULL, &secret, &bytes, e));
    int rc = co_luks_unlock(&d->where, &d->l, (struct kdf_bytes){secret, bytes}, &d->key, &slot, e);
    key_wipe(secret, bytes);
    mem_free(secret);
    TRY(rc);
    rc = crypt_new(&d->l.payload, d->key, &d->crypt);
    return rc < 0 ? err_errno(e, rc, "the key of the data cannot be used") : 0;
}

static uint64_t disk_bytes(const struct luks_disk *d)
{
    uint64_t there = d->where.file->size - MIN(d->l.payload_offset, d->where.file->size);
    uint64_t bytes = d->l.payload_bytes ? MIN(d->l.payload_bytes, there) : there;
    return align_down(bytes, d->l.payload.sector_bytes);
}

static void set_limits(struct blk_device *dev, const struct luks_disk *d)
{
    blk_inherit_limits(dev, d->where.file);
    dev->limits.request_align = d->l.payload.sector_bytes;
    dev->limits.memory_align = 1;
    dev->limits.max_transfer = CRYPT_TRANSFER_MAX;
    dev->limits.discard_granularity = 0;
    dev->limits.zero_align = 1;
    dev->limits.fresh_reads_zero = false;
    dev->limits.discard_reads_zero = false;
    dev->limits.can_zero_fast = false;
    dev->limits.can_unmap = false;
    dev->limits.growable = false;
}

static int co_luks_close(struct blk_device *dev, struct blk_error *e)
{
    struct luks_disk *d = dev->state;
    crypt_drop(d->crypt);
    key_free(d->key, CRYPT_KEY_MAX);
    mem_free(d);
    return 0;
}

static int co_luks_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct luks_disk *d = mem_zalloc(sizeof *d);
    unsigned pass = BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE | BLK_OPEN_NO_DATA;
    if (!d)
        return err_set(e, -ENOMEM, "out of memory");
    d->where.own_payload = true;
    d->where.fresh = dev->open_flags & BLK_OPEN_FRESH;
    int rc = co_blk_want_child(dev, opener, "file", dev->open_flags & pass, &d->where.file, e);
    if (rc == 0)
        rc = co_luks_read(&d->where, &d->l, e);
    if (rc == 0 && !(dev->open_flags & BLK_OPEN_NO_DATA))
        rc = co_luks_keys(d, opts, opener, e);
    dev->state = d;
    if (rc < 0) {
        co_luks_close(dev, NULL);
        dev->state = NULL;
        return rc;
    }
    dev->size = disk_bytes(d);
    set_limits(dev, d);
    return 0;
}

static int co_luks_complete(struct blk_device *dev, struct blk_error *e)
{
    struct luks_disk *d = dev->state;
    int rc = co_luks1_write_header(&d->where, &d->l, true, 0);
    if (rc < 0)
        return err_errno(e, rc, "cannot write the LUKS header");
    d->where.fresh = false;
    return 0;
}

static int co_luks_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct luks_disk *d = dev->state;
    uint64_t end;
    if (d->l.payload_bytes)
        return err_set(e, -ENOTSUP,
                       "the LUKS2 header gives the disk a fixed size: cryptsetup "
                       "changes it");
    if (size % d->l.payload.sector_bytes)
        return err_set(e, -EINVAL,
                       "the size must be a multiple of the encryption's sectors, %" PRIu32 " bytes",
                       d->l.payload.sector_bytes);
    if (!add_u64(d->l.payload_offset, size, &end))
        return err_set(e, -EFBIG, "%" PRIu64 " bytes are more than an encrypted disk can hold",
                       size);
    return co_blk_resize(d->where.file, end, shrink, e);
}

static int co_luks_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct luks_disk *d = dev->state;
    out->encrypted = true;
    out->specific = luks_info(&d->l, 0, false);
    return 0;
}

/* --- create, amend ----------------------------------------------------------------------------
 */

static const struct opt_desc luks_create_options[] = {
    LUKS_CREATE_OPTIONS(""), {.name = "size", .type = OPT_SIZE, .help = "Virtual disk size"}, {0}};

static const struct opt_desc luks_amend_options[] = {LUKS_AMEND_OPTIONS(""), {0}};

static int co_make_room(const struct blk_create *c, uint64_t head, struct blk_error *e)
{
    uint64_t end;
    if (c->size > INT64_MAX || !add_u64(head, align_up(c->size, LUKS_SECTOR), &end) ||
        end > INT64_MAX)
        return err_set(e, -EFBIG, "%" PRIu64 " bytes are more than an encrypted disk can hold",
                       c->size);
    if (c->file->limits.growable)
        return co_blk_resize(c->file, end, true, e);
    return end <= c->file->size
               ? 0
               : err_set(e, -ENOSPC, "%s has %" PRIu64 " bytes, %" PRIu64 " are needed",
                         c->file->name, c->file->size, end);
}

static int co_luks_create(const struct blk_create *c, struct blk_error *e)
{
    struct luks_wish wish = {0};
    struct luks_where w = {.file = c->file, .own_payload = true};
    auto_free struct luks *l = mem_alloc(sizeof *l);
    int rc = l ? luks_wish_take(c->opts, "", &wish, e) : err_set(e, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = co_make_room(c, luks1_head_bytes(&wish.spec), e);
    if (rc == 0)
        rc = co_luks1_make(&w, &wish, !c->fresh, l, e);
    luks_wish_drop(&wish);
    return rc;
}

static int co_luks_measure(struct blk_measure *m, struct blk_error *e)
{
    struct crypt_spec spec;
    const struct opts *o = m->opts;
    TRY(crypt_spec_words(opts_text(o, "cipher-alg"), opts_text(o, "cipher-mode"),
                         opts_text(o, "ivgen-alg"), opts_text(o, "ivgen-hash-alg"), &spec, e));
    if (!add_u64(luks1_head_bytes(&spec), m->size, &m->required))
        return err_set(e, -EFBIG, "%" PRIu64 " bytes are more than an encrypted disk can hold",
                       m->size);
    m->fully_allocated = m->required;
    return 0;
}

static int co_luks_amend_keys(struct blk_device *dev, const struct opts *opts, struct blk_error *e)
{
    struct luks_disk *d = dev->state;
    return co_luks_amend(&d->where, &d->l, d->key, opts, "", e);
}

/* --- probe ------------------------------------------------------------------------------------
 */

/* qemu-img 7.2 knows version 1 only. */
static int luks_probe(const struct blk_probe *p, const char **reason)
{
    unsigned version = luks_version_of(p->head, p->head_bytes);
    *reason = version == 2 ? "it begins with a LUKS2 header" : "it begins with a LUKS header";
    return version == 1 || (version == 2 && !p->as_qemu) ? 100 : 0;
}

const struct blk_driver luks_driver = {
    .name = "luks",
    .title = "encrypted disk (LUKS 1 and 2; 1 is made)",
    .mend = "nothing decrypts the data without its header: put a backup of that back (`cryptsetup "
            "luksHeaderRestore FILE --header-backup-file BACKUP`), or take FILE from a backup",
    .extensions = "luks",
    .is_format = true,
    .is_layer = true,
    .handles_fua = true,
    .open_options = luks_options,
    .create_options = luks_create_options,
    .amend_options = luks_amend_options,
    .probe = luks_probe,
    .co_create = co_luks_create,
    .co_measure = co_luks_measure,
    .co_open = co_luks_open,
    .co_close = co_luks_close,
    .co_read = co_luks_data_read,
    .co_write = co_luks_data_write,
    .co_complete = co_luks_complete,
    .co_resize = co_luks_resize,
    .co_info = co_luks_info,
    .co_amend = co_luks_amend_keys,
};

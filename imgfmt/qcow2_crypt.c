/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_crypt.c - clusters encrypted with LUKS. The image holds a LUKS header of version 1 in
 * clusters of its own (named by a header extension); its key encrypts every cluster of data, the
 * number of a sector being its place in the file / 512. Compressed clusters, tables and VM states'
 * tables are plain.
 *
 * So a device that encrypts lies between the engine's data and the file, byte n over byte n, and
 * the engine knows nothing of it: m->data is that device, m->packed the file. It is as long as a
 * file can be; what the file does not have reads as noise, as fresh clusters do, which therefore
 * never count as zeroes. */
#include <stdio.h>

#include "block/resolver.h"
#include "imgfmt/luks.h"
#include "imgfmt/old_aes.h"
#include "imgfmt/qcow2.h"

#define LAYER_BYTES align_down(QCOW2_MAX_OFFSET, LUKS_SECTOR)

struct qcow2_crypt {
    struct luks l;
    struct luks_where where;
    uint8_t *key; /* NULL: opened for facts only */
    struct crypt *crypt;
};

/* --- the layer ------------------------------------------------------------ */

struct layer {
    struct blk_device *file;
    const struct crypt *crypt; /* borrowed from the image; NULL: no key */
};

static int co_layer_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct layer *l = mem_zalloc(sizeof(*l));

    if (!l)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_want_child(dev, opener, "file", dev->open_flags, &l->file, e);
    if (rc < 0) {
        mem_free(l);
        return rc;
    }
    dev->state = l;
    dev->size = LAYER_BYTES;
    dev->limits = (struct blk_limits){
        .request_align = LUKS_SECTOR,
        .memory_align = 1,
        .max_transfer = CRYPT_TRANSFER_MAX,
        .zero_align = 1,
        .can_unmap = l->file->limits.can_unmap,
    };
    return 0;
}

static int co_layer_close(struct blk_device *dev, struct blk_error *e)
{
    (void)e;
    mem_free(dev->state);
    return 0;
}

static int co_layer_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct layer *l = dev->state;
    struct crypt_place p = {l->crypt, l->file, offset, offset / LUKS_SECTOR};
    uint64_t there = offset < l->file->size ? MIN(to->bytes, l->file->size - offset) : 0;

    if (!l->crypt)
        return -ENOKEY;
    struct vec inside = vec_slice(to, 0, align_down(there, LUKS_SECTOR));
    struct vec past = vec_slice(to, inside.bytes, to->bytes - inside.bytes);
    if (past.bytes)
        vec_fill(&past, 0); /* never written */
    return inside.bytes ? co_crypt_read(&p, &inside) : 0;
}

static int co_layer_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                          unsigned flags)
{
    const struct layer *l = dev->state;
    struct crypt_place p = {l->crypt, l->file, offset, offset / LUKS_SECTOR};

    return l->crypt ? co_crypt_write(&p, from, flags) : -ENOKEY;
}

static int co_layer_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    const struct layer *l = dev->state;
    uint64_t there = offset < l->file->size ? MIN(bytes, l->file->size - offset) : 0;

    return there ? co_blk_discard(l->file, offset, there) : 0;
}

/* What is on disk is counted with the image's own file. */
static int co_layer_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    (void)dev;
    (void)e;
    out->actual_size = 0;
    return 0;
}

static const struct blk_driver layer_driver = {
    .name = "qcow2-crypt",
    .title = "the encrypted clusters of a qcow2 image",
    .handles_fua = true,
    .co_open = co_layer_open,
    .co_close = co_layer_close,
    .co_read = co_layer_read,
    .co_write = co_layer_write,
    .co_discard = co_layer_discard,
    .co_info = co_layer_info,
};

/* --- open ----------------------------------------------------------------- */

static int co_unlock(struct qcow2_crypt *c, const struct opts *opts, struct blk_opener *opener,
                     struct blk_error *e)
{
    uint8_t *secret;
    size_t bytes;
    unsigned slot;
    int rc = opener_secret(opener, opts ? opts_text(opts, "encrypt.key-secret") : NULL, &secret,
                           &bytes, e);

    old_aes_name_option(rc, e);
    TRY(rc);
    rc = co_luks_unlock(&c->where, &c->l, (struct kdf_bytes){secret, bytes}, &c->key, &slot, e);
    key_wipe(secret, bytes);
    mem_free(secret);
    TRY(rc);
    rc = crypt_new(&c->l.payload, c->key, &c->crypt);
    return rc < 0 ? err_errno(e, rc, "the key of the data cannot be used") : 0;
}

int co_qcow2_aes_read(struct qcow2 *q, uint64_t offset, const struct vec *to)
{
    return co_old_aes_read(q->map.dev, q->crypt->crypt, offset, to);
}

static int co_add_layer(struct qcow2 *q, struct blk_error *e)
{
    struct blk_device *dev = q->map.dev, *layer;
    struct blk_child file = {"file", blk_ref(q->map.file)};
    unsigned flags = dev->open_flags & BLK_OPEN_WRITE;

    TRY(co_blk_open(&layer_driver, dev->name, NULL, flags, NULL, &file, 1, &layer, e));
    ((struct layer *)layer->state)->crypt = q->crypt->crypt;
    int rc = blk_add_child(dev, "crypt", layer);
    if (rc < 0) {
        co_blk_close(layer, NULL);
        return err_set(e, rc, "out of memory");
    }
    q->map.data = layer;
    q->map.packed = q->map.file;
    return 0;
}

/* Tables are checked without a key as well. */
static int may_lack(const struct qcow2 *q, int rc)
{
    return rc == -ENOKEY && q->map.dev->open_flags & BLK_OPEN_CHECK ? 0 : rc;
}

int co_qcow2_open_crypt(struct qcow2 *q, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    const struct qcow2_header *h = &q->header;
    bool facts = q->map.dev->open_flags & (BLK_OPEN_NO_DATA | BLK_OPEN_FACTS);

    if (h->crypt_method == QCOW2_CRYPT_NONE)
        return 0;
    if (qcow2_has_data_file(h))
        return err_set(e, -ENOTSUP,
                       "the image is encrypted and its data lies in another file, "
                       "which is not read together");
    struct qcow2_crypt *c = q->crypt = mem_zalloc(sizeof(*c));
    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    if (h->crypt_method == QCOW2_CRYPT_AES)
        return facts ? 0 : may_lack(q, co_old_aes_open(opts, opener, &c->crypt, e));
    c->where =
        (struct luks_where){.file = q->map.file, .at = h->crypto_offset, .bytes = h->crypto_bytes};
    TRY(co_luks_read(&c->where, &c->l, e));
    if (!facts)
        TRY(may_lack(q, co_unlock(c, opts, opener, e)));
    return co_add_layer(q, e);
}

void qcow2_crypt_drop(struct qcow2 *q)
{
    struct qcow2_crypt *c = q->crypt;

    if (!c)
        return;
    crypt_drop(c->crypt);
    key_free(c->key, CRYPT_KEY_MAX);
    mem_free(c);
    q->crypt = NULL;
}

json_t *qcow2_crypt_info(const struct qcow2 *q)
{
    if (q->header.crypt_method == QCOW2_CRYPT_AES)
        return json_pack("{s:s}", "format", "aes");
    return luks_info(&q->crypt->l, 0, true);
}

int co_qcow2_amend_crypt(struct qcow2 *q, const struct opts *opts, struct blk_error *e)
{
    static const char *const keys[] = {"state", "new-secret", "old-secret", "keyslot"};
    bool told = opts_given(opts, "encrypt.iter-time") || opts_given(opts, "encrypt.iterations");
    char name[40];

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        snprintf(name, sizeof(name), "encrypt.%s", keys[i]);
        told |= opts_given(opts, name);
    }
    if (!told)
        return 0;
    if (!q->crypt)
        return err_set(e, -EINVAL, "Can't amend encryption options - encryption not present");
    return co_luks_amend(&q->crypt->where, &q->crypt->l, q->crypt->key, opts, "encrypt.", e);
}

/* --- create --------------------------------------------------------------- */

int qcow2_crypt_take(const struct opts *o, struct qcow2_header *h, struct blk_error *e)
{
    const char *format = opts_text(o, "encrypt.format");
    struct crypt_spec spec;

    if (opts_bool(o, "encryption") || (format && strcmp(format, "aes") == 0))
        return err_set(e, -ENOTSUP,
                       "the encryption 'aes' is broken by design and is not made; "
                       "encrypt.format=luks is");
    if (!format && opts_given(o, "encrypt.key-secret"))
        return err_set(e, -EINVAL, "Parameter 'encrypt.format' is missing");
    if (!format || !*format)
        return 0;
    if (strcmp(format, "luks") != 0)
        return err_set(e, -EINVAL, "Parameter 'format' does not accept value '%.40s'", format);
    if (qcow2_has_data_file(h))
        return err_set(e, -ENOTSUP, "encryption and an external data file do not go together here");
    TRY(crypt_spec_words(opts_text(o, "encrypt.cipher-alg"), opts_text(o, "encrypt.cipher-mode"),
                         opts_text(o, "encrypt.ivgen-alg"), opts_text(o, "encrypt.ivgen-hash-alg"),
                         &spec, e));
    h->crypt_method = QCOW2_CRYPT_LUKS;
    h->crypto_bytes = luks1_head_bytes(&spec);
    return 0;
}

int co_qcow2_make_crypt(const struct blk_create *c, const struct qcow2_header *h,
                        struct blk_error *e)
{
    struct luks_wish wish = {0};
    struct luks_where w = {.file = c->file, .at = h->crypto_offset, .bytes = h->crypto_bytes};
    auto_free struct luks *l = mem_alloc(sizeof(*l));

    if (h->crypt_method != QCOW2_CRYPT_LUKS)
        return 0;
    int rc =
        l ? luks_wish_take(c->opts, "encrypt.", &wish, e) : err_set(e, -ENOMEM, "out of memory");
    old_aes_name_option(rc, e);
    if (rc == 0)
        rc = co_luks1_make(&w, &wish, true, l, e);
    luks_wish_drop(&wish);
    return rc;
}

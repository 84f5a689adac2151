/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_info.c - what a qcow2 image says about itself, for people and JSON: names as qemu-img
 * prints them. Lists inside the image (snapshots, bitmaps) are read piece by piece, bounded. */
#include "imgfmt/qcow2_bitmap.h"

/* --- snapshots ------------------------------------------------------------ */

/* Text of an image as a JSON string: bytes that are no UTF-8 become question marks. */
static json_t *text_json(const char *text, size_t bytes)
{
    json_t *v = json_stringn(text, bytes);

    if (v)
        return v;
    auto_free char *copy = mem_alloc(bytes + 1);
    if (!copy)
        return NULL;
    for (size_t i = 0; i < bytes; i++)
        copy[i] = text[i] & 0x80 ? '?' : text[i];
    return json_stringn(copy, bytes);
}

/* What is listed takes at most so much memory, whatever the image claims to hold. */
#define LISTED_BYTES  (20 * MiB)
#define LISTED_OBJECT 1000 /* a JSON object of a few members, about */

struct listing {
    json_t *array;
    uint64_t used, left_out;
};

static bool listing_has_room(struct listing *l, size_t text_bytes)
{
    if (l->used + LISTED_OBJECT + text_bytes > LISTED_BYTES) {
        l->left_out++;
        return false;
    }
    l->used += LISTED_OBJECT + text_bytes;
    return true;
}

static int list_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    struct listing *l = arg;

    if (!listing_has_room(l, (size_t)s->id_bytes + s->name_bytes))
        return 0;
    json_t *one = json_pack(
        "{s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "id", text_json(s->id, s->id_bytes), "name",
        text_json(s->name, s->name_bytes), "vm-state-size", (json_int_t)s->vm_state_bytes,
        "date-sec", (json_int_t)s->date_sec, "date-nsec", (json_int_t)s->date_nsec, "vm-clock-sec",
        (json_int_t)(s->vm_clock_nsec / 1000000000), "vm-clock-nsec",
        (json_int_t)(s->vm_clock_nsec % 1000000000));

    if (one && s->has_icount)
        json_object_set_new(one, "icount", json_integer((json_int_t)s->icount));
    return one && json_array_append_new(l->array, one) == 0 ? 0 : -ENOMEM;
}

static int co_list_snapshots(struct qcow2 *q, struct blk_info *out, struct blk_error *e)
{
    with_lock(&q->snapshots);
    if (q->header.snapshot_count == 0)
        return 0;
    out->snapshots = json_array();
    if (!out->snapshots)
        return err_errno(e, -ENOMEM, "cannot list the snapshots");
    struct listing l = {.array = out->snapshots};
    int rc = co_qcow2_snapshots(q, list_snapshot, &l, e);
    out->snapshots_left_out = l.left_out;
    return rc;
}

/* --- bitmaps -------------------------------------------------------------- */

static int list_bitmap(void *arg, const struct qcow2_bitmap *b)
{
    struct listing *l = arg;

    if (!listing_has_room(l, b->name_bytes))
        return 0;
    json_t *flags = json_array();
    json_t *one =
        json_pack("{s:o, s:o, s:I}", "flags", flags, "name", text_json(b->name, b->name_bytes),
                  "granularity", (json_int_t)(1ULL << MIN(b->granularity_bits, 62)));

    if (one && b->flags & QCOW2_BITMAP_IN_USE)
        json_array_append_new(flags, json_string("in-use"));
    if (one && b->flags & QCOW2_BITMAP_AUTO)
        json_array_append_new(flags, json_string("auto"));
    return one && json_array_append_new(l->array, one) == 0 ? 0 : -ENOMEM;
}

/* --- all of it ------------------------------------------------------------ */

static int co_list_bitmaps(struct qcow2 *q, json_t *data, struct blk_error *e)
{
    struct qcow2_bitmap_list list;
    struct listing l = {.array = json_array()};

    with_lock(&q->bitmaps.lock);
    int rc = l.array ? co_qcow2_bitmaps(q, &list, list_bitmap, &l, e) : -ENOMEM;
    if (rc == 0 && json_array_size(l.array))
        json_object_set(data, "bitmaps", l.array);
    if (rc == 0 && l.left_out)
        json_object_set_new(data, "bitmaps-left-out", json_integer((json_int_t)l.left_out));
    json_decref(l.array);
    return rc;
}

/* In the order that qemu-img prints. */
static int co_specific(struct qcow2 *q, struct blk_info *out, struct blk_error *e)
{
    const struct qcow2_header *h = &q->header;
    json_t *data = json_object();

    if (!data)
        return err_errno(e, -ENOMEM, "cannot describe the image");
    out->specific = data;
    json_object_set_new(data, "compat", json_string(h->version >= 3 ? "1.1" : "0.10"));
    json_object_set_new(data, "compression-type",
                        json_string(h->compression_type == QCOW2_ZSTD ? "zstd" : "zlib"));
    if (h->version >= 3) {
        json_object_set_new(data, "lazy-refcounts",
                            json_boolean(h->compatible & QCOW2_LAZY_REFCOUNTS));
    }
    int rc = co_list_bitmaps(q, data, e);
    json_object_set_new(data, "refcount-bits", json_integer(1 << h->refcount_order));
    if (qcow2_has_data_file(h)) {
        if (q->data_name)
            json_object_set_new(data, "data-file", text_json(q->data_name, strlen(q->data_name)));
        json_object_set_new(data, "data-file-raw", json_boolean(qcow2_raw_data(h)));
    }
    if (q->crypt)
        json_object_set_new(data, "encrypt", qcow2_crypt_info(q));
    if (h->version >= 3) {
        json_object_set_new(data, "corrupt", json_boolean(h->incompatible & QCOW2_CORRUPT));
        json_object_set_new(data, "extended-l2", json_boolean(h->incompatible & QCOW2_EXTENDED_L2));
    }
    return rc;
}

int co_qcow2_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);

    out->virtual_size = q->header.size;
    out->cluster_size = (uint32_t)q->map.cluster_bytes;
    out->vm_state_offset =
        align_up(q->header.size,
                 q->map.cluster_bytes * (q->map.cluster_bytes / qcow2_entry_bytes(&q->header)));
    out->has_dirty = true;
    out->encrypted = q->header.crypt_method != QCOW2_CRYPT_NONE;
    out->has_bitmaps = q->header.version >= 3;
    out->dirty = q->header.incompatible & QCOW2_DIRTY;
    out->corrupt = q->header.incompatible & QCOW2_CORRUPT;
    if (q->backing_name) {
        out->backing_name = mem_strdup(q->backing_name);
        if (!out->backing_name)
            return err_errno(e, -ENOMEM, "cannot describe the image");
    }
    if (q->full_backing_name) {
        out->full_backing_name = mem_strdup(q->full_backing_name);
        if (!out->full_backing_name)
            return err_errno(e, -ENOMEM, "cannot describe the image");
    }
    if (q->backing_format) {
        out->backing_format = mem_strdup(q->backing_format);
        if (!out->backing_format)
            return err_errno(e, -ENOMEM, "cannot describe the image");
    }
    TRY(co_specific(q, out, e));
    return co_list_snapshots(q, out, e);
}

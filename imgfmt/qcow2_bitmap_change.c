/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_bitmap_change.c - persistent bitmaps made, removed, cleared, enabled, disabled, merged; and
 * read.
 *
 * Each change is one row of the new list, then published (B2 of qcow2_bitmap.c). While the image is
 * being written to, those that record are marked in use on disk and their bits live in memory: what
 * changes them changes memory only, and they are stored when they are disabled or the image is
 * closed. */
#include "imgfmt/qcow2_bitmap.h"

static struct qcow2_dirty *find(const struct qcow2 *q, const char *name)
{
    for (uint32_t i = 0; i < q->bitmaps.count; i++)
        if (strcmp(q->bitmaps.list[i]->name, name) == 0)
            return q->bitmaps.list[i];
    return NULL;
}

static int not_found(const char *name, struct blk_error *e)
{
    return err_set(e, -ENOENT, "Dirty bitmap '%s' not found", name);
}

/* Not one that only can be removed. */
static int must_be_usable(const struct qcow2_dirty *d, struct blk_error *e)
{
    if (d->kind == QCOW2_INCONSISTENT)
        return qcow2_bitmap_inconsistent(d, e);
    if (d->kind == QCOW2_FOREIGN)
        return err_set(e, -ENOTSUP, "bitmap '%s' has features that are not known here", d->name);
    return 0;
}

/* --- changes -------------------------------------------------------------- */

struct change {
    struct qcow2 *q;
    const struct blk_bitmap_change *wanted;
    struct qcow2_bitmap_rows rows;
    struct qcow2_bitmap_row *row; /* the one it is about; add: none yet */
    struct qcow2_dirty *made;
    struct qcow2_granules bits; /* of it, once it is published; no words: as they are */
    struct blk_error *e;
};

static bool is_recording(const struct change *c)
{
    return c->row->flags & QCOW2_BITMAP_IN_USE;
}

static int make_bits(const struct change *c, const struct qcow2_dirty *d,
                     struct qcow2_granules *out)
{
    return qcow2_granules_make(out, c->q->header.size, d->disk.granularity_bits,
                               c->q->header.cluster_bits);
}

static int co_store_row(struct change *c, const struct qcow2_granules *bits)
{
    int rc = co_qcow2_bitmap_row_store(c->q, &c->rows, c->row, bits);
    return rc < 0 ? err_errno(c->e, rc, "cannot write bitmap '%s'", c->row->d->name) : 0;
}

/* What the source, a bitmap of this image or of another, says from @at on. */
static int co_source_run(struct change *c, uint64_t at, struct blk_bitmap_extent *out)
{
    const struct blk_bitmap_change *w = c->wanted;
    uint64_t left = c->q->header.size - at;

    if (w->source != c->q->map.dev)
        return co_blk_bitmap_read(w->source, w->source_name, at, left, out, c->e);
    struct qcow2_dirty *from = find(c->q, w->source_name);
    if (!from)
        return not_found(w->source_name, c->e);
    TRY(must_be_usable(from, c->e));
    TRY(co_qcow2_granules_load(c->q, from, c->e));
    unsigned g = from->disk.granularity_bits;
    uint64_t end = qcow2_granules_run(&from->bits, at >> g, &out->dirty);
    out->bytes = MIN((end << g) - at, left);
    return 0;
}

/* Sets in @bits what is dirty in the source. */
static int co_fill(struct change *c, struct qcow2_granules *bits, unsigned g)
{
    struct blk_bitmap_extent ext;

    for (uint64_t at = 0; at < c->q->header.size; at += ext.bytes) {
        TRY(co_source_run(c, at, &ext));
        if (ext.dirty)
            qcow2_granules_set(bits, at >> g, (at + ext.bytes - 1) >> g);
    }
    return 0;
}

/* From now on it records: marked, if the image is being written to. */
static int enable(struct change *c)
{
    struct qcow2_dirty *d = c->row->d;

    c->row->flags |= QCOW2_BITMAP_AUTO;
    if (!c->q->bitmaps.armed)
        return 0;
    c->row->flags |= QCOW2_BITMAP_IN_USE;
    return d->bits.words ? 0 : make_bits(c, d, &d->bits);
}

static int granularity_bits(const struct change *c, uint8_t *bits)
{
    uint64_t g = c->wanted->granularity, size = c->q->header.size;

    if (g == 0)
        g = MIN(MAX(c->q->map.cluster_bytes, 4 * KiB), 64 * KiB);
    if (!is_pow2(g) || g < 1ULL << QCOW2_MIN_GRANULARITY || g > 1ULL << QCOW2_MAX_GRANULARITY)
        return err_set(c->e, -EINVAL, "Granularity must be power of 2 and at least 512");
    *bits = (uint8_t)log2_floor(g);
    if (size >> *bits > QCOW2_MAX_BITMAP_BYTES) /* as QEMU, which keeps to an eighth of what fits */
        return err_set(c->e, -EINVAL,
                       "Too much space will be occupied by the bitmap. Use larger granularity");
    return 0;
}

static int may_add(const struct change *c)
{
    const struct qcow2 *q = c->q;
    const char *name = c->wanted->name;
    uint64_t bytes = align_up(24 + strlen(name), 8);

    if (!*name)
        return err_set(c->e, -EINVAL, "Bitmap name cannot be empty");
    if (strlen(name) > QCOW2_MAX_BITMAP_NAME)
        return err_set(c->e, -EINVAL, "Bitmap name too long: %.1100s", name);
    if (find(q, name))
        return err_set(c->e, -EEXIST, "Bitmap already exists: %s", name);
    if (q->header.version < 3)
        return err_set(c->e, -ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
    if (q->header.size == 0)
        return err_set(c->e, -EINVAL, "a disk of 0 bytes has nothing that could be dirty");
    if (q->bitmaps.count >= QCOW2_MAX_BITMAPS)
        return err_set(c->e, -ENOSPC, "Maximum number of persistent bitmaps is already reached");
    if (q->bitmaps.bytes + bytes > QCOW2_MAX_BITMAP_DIR)
        return err_set(c->e, -ENOSPC, "Not enough space in the bitmap directory");
    return 0;
}

static int co_add(struct change *c)
{
    const char *name = c->wanted->name;
    struct qcow2_bitmap b = {
        .type = QCOW2_BITMAP_DIRTY, .name = name, .name_bytes = (uint16_t)strlen(name)};

    TRY(may_add(c));
    TRY(granularity_bits(c, &b.granularity_bits));
    c->made = qcow2_dirty_make(c->q, &b);
    if (!c->made)
        return err_errno(c->e, -ENOMEM, "cannot make a bitmap");
    c->made->kind = QCOW2_USABLE;
    c->row = &c->rows.rows[c->rows.count++];
    c->row->d = c->made;
    int rc = make_bits(c, c->made, &c->bits);
    if (rc < 0)
        return err_errno(c->e, rc, "cannot make a bitmap");
    if (c->wanted->source_name)
        TRY(co_fill(c, &c->bits, b.granularity_bits));
    TRY(co_store_row(c, &c->bits));
    if (c->wanted->disabled)
        return 0;
    rc = enable(c);
    return rc < 0 ? err_errno(c->e, rc, "cannot make a bitmap") : 0;
}

static int co_remove(struct change *c)
{
    struct qcow2_bitmap_rows *r = &c->rows;
    struct qcow2_bitmap_row *end = r->rows + --r->count;

    r->removed = c->row->d;
    co_qcow2_space_of(c->q, &r->removed->disk, &r->old);
    memmove(c->row, c->row + 1, (size_t)(end - c->row) * sizeof(*end));
    c->row = NULL;
    return 0;
}

static int co_clear(struct change *c)
{
    int rc = make_bits(c, c->row->d, &c->bits);
    if (rc < 0)
        return err_errno(c->e, rc, "cannot clear bitmap '%s'", c->row->d->name);
    return is_recording(c) ? 0 : co_store_row(c, &c->bits);
}

static int co_enable(struct change *c)
{
    if (c->row->flags & QCOW2_BITMAP_AUTO)
        return 0;
    int rc = enable(c);
    return rc < 0 ? err_errno(c->e, rc, "cannot enable bitmap '%s'", c->row->d->name) : 0;
}

static int co_disable(struct change *c)
{
    struct qcow2_dirty *d = c->row->d;

    if (is_recording(c) && d->changed) {
        TRY(co_qcow2_granules_load(c->q, d, c->e));
        TRY(co_store_row(c, &d->bits));
    }
    c->row->flags &= ~(uint32_t)(QCOW2_BITMAP_AUTO | QCOW2_BITMAP_IN_USE);
    return 0;
}

static int co_merge(struct change *c)
{
    struct qcow2_dirty *d = c->row->d;
    unsigned g = d->disk.granularity_bits;

    TRY(co_qcow2_granules_load(c->q, d, c->e));
    int rc = make_bits(c, d, &c->bits);
    if (rc < 0)
        return err_errno(c->e, rc, "cannot merge into bitmap '%s'", d->name);
    memcpy(c->bits.words, d->bits.words, div_up(d->bits.count, 64) * 8);
    TRY(co_fill(c, &c->bits, g));
    return is_recording(c) ? 0 : co_store_row(c, &c->bits);
}

static const struct action {
    int (*co_fn)(struct change *c);
    bool any_kind; /* also one that is inconsistent or foreign */
} actions[] = {
    [BLK_BITMAP_ADD] = {co_add, true},          [BLK_BITMAP_REMOVE] = {co_remove, true},
    [BLK_BITMAP_CLEAR] = {co_clear, false},     [BLK_BITMAP_ENABLE] = {co_enable, false},
    [BLK_BITMAP_DISABLE] = {co_disable, false}, [BLK_BITMAP_MERGE] = {co_merge, false},
};

static int look_up(struct change *c)
{
    const struct blk_bitmap_change *w = c->wanted;
    struct qcow2_dirty *d = find(c->q, w->name);

    if (w->action == BLK_BITMAP_ADD)
        return 0;
    if (!d)
        return not_found(w->name, c->e);
    for (uint32_t i = 0; i < c->rows.count; i++)
        if (c->rows.rows[i].d == d)
            c->row = &c->rows.rows[i];
    return actions[w->action].any_kind ? 0 : must_be_usable(d, c->e);
}

/* Published: memory follows. */
static void show(struct change *c)
{
    struct qcow2_dirty *d =
        c->row ? c->wanted->action == BLK_BITMAP_ADD ? take(c->made) : find(c->q, c->wanted->name)
               : NULL;
    if (!d)
        return;
    bool recording = d->disk.flags & QCOW2_BITMAP_IN_USE;
    if (c->bits.words) {
        mem_free(d->bits.words);
        d->bits = c->bits;
        d->whole = true;
        c->bits = (struct qcow2_granules){0};
        d->changed = recording;
    } else if (!recording) {
        d->changed = false;
    }
}

static int co_change(struct change *c)
{
    const struct action *a = &actions[c->wanted->action];
    int rc = qcow2_bitmap_rows_begin(c->q, &c->rows);

    if (rc < 0)
        return err_errno(c->e, rc, "cannot change the list of bitmaps");
    rc = look_up(c);
    if (rc == 0)
        rc = a->co_fn(c);
    if (rc < 0) {
        co_qcow2_bitmap_rows_drop(c->q, &c->rows);
        return rc;
    }
    rc = co_qcow2_bitmap_publish(c->q, &c->rows, c->e);
    if (rc == 0)
        show(c);
    return rc;
}

int co_qcow2_bitmap_change(struct blk_device *dev, const struct blk_bitmap_change *wanted,
                           struct blk_error *e)
{
    struct change c = {.q = qcow2_of_dev(dev), .wanted = wanted, .e = e};

    if (dev->open_flags & BLK_OPEN_CHECK)
        return err_set(e, -EROFS, "the image is open for check and repair only");
    int rc = co_map_will_write(&c.q->map);
    if (rc == 0 && c.q->header_unsure) {
        with_lock(&c.q->alloc);
        rc = co_qcow2_sure_header(c.q);
    }
    if (rc < 0)
        return err_errno(e, rc, "cannot write the header");
    with_lock(&c.q->bitmaps.lock);
    TRY(co_qcow2_bitmaps_known(c.q, e));
    rc = co_change(&c);
    qcow2_dirty_drop(c.made);
    mem_free(c.bits.words);
    return rc;
}

/* --- looking -------------------------------------------------------------- */

int co_qcow2_bitmap_list(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                         struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);

    with_lock(&q->bitmaps.lock);
    TRY(co_qcow2_bitmaps_known(q, e));
    struct blk_bitmap *list = mem_array(MAX(q->bitmaps.count, 1), sizeof(*list));
    if (!list)
        return err_errno(e, -ENOMEM, "cannot list the bitmaps");
    for (uint32_t i = 0; i < q->bitmaps.count; i++) {
        const struct qcow2_dirty *d = q->bitmaps.list[i];
        list[i] = (struct blk_bitmap){.name = mem_strdup(d->name),
                                      .granularity = 1ULL << d->disk.granularity_bits,
                                      .enabled = d->disk.flags & QCOW2_BITMAP_AUTO,
                                      .inconsistent = d->kind == QCOW2_INCONSISTENT,
                                      .foreign = d->kind == QCOW2_FOREIGN};
        if (!list[i].name) {
            blk_bitmaps_drop(list, i);
            return err_errno(e, -ENOMEM, "cannot list the bitmaps");
        }
    }
    *out = list;
    *count = q->bitmaps.count;
    return 0;
}

int co_qcow2_bitmap_read(struct blk_device *dev, const char *name, uint64_t offset, uint64_t bytes,
                         struct blk_bitmap_extent *out, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);

    with_lock(&q->bitmaps.lock);
    TRY(co_qcow2_bitmaps_known(q, e));
    struct qcow2_dirty *d = find(q, name);
    if (!d)
        return not_found(name, e);
    TRY(must_be_usable(d, e));
    TRY(co_qcow2_granules_load(q, d, e));
    unsigned g = d->disk.granularity_bits;
    if (offset >> g >= d->bits.count) { /* behind a shrink that failed half way: nobody knows */
        *out = (struct blk_bitmap_extent){.dirty = true, .bytes = bytes};
        return 0;
    }
    uint64_t end = qcow2_granules_run(&d->bits, offset >> g, &out->dirty);
    out->bytes = MIN((end << g) - offset, bytes);
    return 0;
}

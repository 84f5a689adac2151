/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2.c - QEMU's copy-on-write images, versions 2 and 3: open, close, the driver's table.
 *
 *   | header cluster | refcount table | refcount blocks, L1, L2 tables, data: anywhere, in clusters
 * |
 *
 *   L1 entry -> L2 table (one cluster) -> cluster of data, zeroes, or a piece of compressed bytes
 *   refcount table entry -> refcount block -> how many entries refer to each cluster of the file
 *
 * Reading and writing are the engine's (map.c); this driver knows the bytes, and where space comes
 * from (qcow2_refcount.c). What must be on disk before what:
 *
 *   Q1  count of a new cluster (rank 0) -> L2 entry (rank 2). A new refcount block with its own
 *       count (0) -> refcount table entry (1) -> L2 entry.
 *   Q2  data of a new cluster that hides older contents, reuses space or is compressed -> L2 entry
 *       (the engine's meta_data_before()).
 *   Q3  a new L2 table (rank 2) -> L1 entry (rank 3).
 *   Q4  L2 or L1 entry gone -> count lowered -> space reused or punched (the engine's deferred
 *       calls, then qcow2_free.c).
 *   Q5  a longer refcount table: all it names, its blocks and itself -> header (offset and length
 *       in one sector) -> old table freed (qcow2_table.c). A longer L1 table likewise
 *       (qcow2_resize.c).
 *   Q6  the header changes by whole-sector writes, each durable before what relies on it: unknown
 *       autoclear bits are cleared before the first write; the corrupt bit is set before anybody
 *       is told that the device is read-only for ever.
 *   Q7  a fresh image has no magic until all else is written.
 *   Q8  snapshots: S1 to S3 of qcow2_snapshot.c. Bitmaps: B1 to B3 of qcow2_bitmap.c.
 * So after a crash a count may be too high (a leak), never too low. */
#include "block/resolver.h"
#include "imgfmt/old_aes.h"
#include "imgfmt/qcow2_bitmap.h"

/* --- the header on disk --------------------------------------------------- */

int co_qcow2_put_header(struct qcow2 *q, const struct qcow2_header *h)
{
    uint8_t sector[QCOW2_SECTOR];

    memcpy(sector, q->sector, sizeof(sector));
    qcow2_header_put(h, q->hidden, sector);
    q->header_unsure = true;
    blk_step(q->map.file, "header_update");
    TRY(co_blk_write_buf(q->map.file, 0, sector, sizeof(sector), q->map.fresh ? 0 : BLK_FUA));
    q->header_unsure = false;
    memcpy(q->sector, sector, sizeof(sector));
    if (h->l1_offset != q->header.l1_offset || h->l1_entries != q->header.l1_entries ||
        h->snapshots_offset != q->header.snapshots_offset ||
        h->snapshot_count != q->header.snapshot_count)
        q->guard.built = false; /* learned anew before the next allocation */
    q->header = *h;
    return 0;
}

int co_qcow2_sure_header(struct qcow2 *q)
{
    assert_held(&q->alloc);
    return likely(!q->header_unsure) ? 0 : co_qcow2_put_header(q, &q->header);
}

static int co_sure_header(struct qcow2 *q)
{
    if (likely(!q->header_unsure))
        return 0;
    with_lock(&q->alloc);
    return co_qcow2_sure_header(q);
}

static int co_before_first_write(struct map *m)
{
    struct qcow2 *q = qcow2_of(m);
    TRY(co_qcow2_bitmaps_forget_stale(q));
    struct qcow2_header h = q->header;
    h.autoclear &= QCOW2_AUTOCLEAR_KNOWN;
    if (!h.bitmaps.bytes)
        h.autoclear &= ~(uint64_t)QCOW2_BITMAPS;
    if (h.autoclear == q->header.autoclear)
        return 0;
    with_lock(&q->alloc);
    return co_qcow2_put_header(q, &h); /* Q6 */
}

/* --- marking the image corrupt -------------------------------------------- */

static void co_write_corrupt_bit(void *arg)
{
    struct qcow2 *q = arg;

    co_mutex_lock(&q->alloc);
    struct qcow2_header h = q->header;
    h.incompatible |= QCOW2_CORRUPT;
    (void)!co_qcow2_put_header(q, &h); /* best effort: the device is read-only either way */
    co_mutex_unlock(&q->alloc);
    q->background--;
    co_queue_wake_all(&q->idle);
}

static void on_event(struct blk_listener *l, struct blk_device *dev, enum blk_event ev)
{
    struct qcow2 *q = container_of(l, struct qcow2, listener);

    if (ev != BLK_EV_MARKED_CORRUPT || q->header.version < 3 || q->hidden ||
        q->header.incompatible & QCOW2_CORRUPT || !(dev->open_flags & BLK_OPEN_WRITE))
        return;
    q->background++;
    if (co_start_later(co_write_corrupt_bit, q) < 0)
        q->background--;
}

/* --- the engine's view of the entries ------------------------------------- */

static int decode(const struct map *m, const void *entry, struct map_cell *out)
{
    const struct qcow2 *q = qcow2_of(m);
    struct qcow2_entry e;
    struct qcow2_bits bits = qcow2_bits_get(&q->header, entry);

    *out = (struct map_cell){.state = MAP_HOLE};
    if ((bits.entry | bits.sub) == 0)
        return 0;
    TRY(qcow2_entry_decode(&q->header, bits, &e));
    bool alone = qcow2_has_data_file(&q->header); /* nothing else lies there, nobody shares it */
    uint64_t bytes = e.state == MAP_PACKED ? e.packed_bytes : m->cluster_bytes;
    if (!alone && (e.offset || e.state == MAP_PACKED) && qcow2_hits_tables(q, e.offset, bytes))
        return -EIO; /* a write there would destroy the image */
    out->state = e.state;
    out->offset = e.offset;
    out->packed_bytes = e.packed_bytes;
    out->sub = e.sub;
    out->shared = !alone && e.offset != 0 && !e.copied && e.state != MAP_PACKED;
    return 0;
}

static void encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    const struct qcow2 *q = qcow2_of(m);
    struct qcow2_entry e = {
        .state = cell->state,
        .copied = !cell->shared,
        .offset = cell->offset,
        .packed_bytes = cell->packed_bytes,
        .sub = cell->sub,
    };

    qcow2_bits_put(&q->header, qcow2_entry_encode(&q->header, &e), entry);
}

int qcow2_root_decode(const struct map *m, const void *raw, uint64_t *offset, bool *shared)
{
    const struct qcow2 *q = qcow2_of(m);
    be64 disk;

    memcpy(&disk, raw, sizeof(disk));
    uint64_t bits = be64_get(disk);
    *offset = bits & QCOW2_OFFSET_MASK;
    *shared = *offset != 0 && !(bits & QCOW2_COPIED);
    if (*offset == 0)
        return 0;
    if (*offset & (m->cluster_bytes - 1) || qcow2_hits_tables(q, *offset, m->cluster_bytes))
        return -EIO;
    return 0;
}

static void root_encode(const struct map *m, uint64_t offset, void *raw)
{
    be64 disk = be64_of(offset ? offset | QCOW2_COPIED : 0);

    (void)m;
    memcpy(raw, &disk, sizeof(disk));
}

/* --- images that were not closed --------------------------------------------- */

/* Who writes an image with the dirty bit (lazy refcounts) repairs it first, as QEMU does. Here the
 * bit is never set: the order of writes keeps the counts right in every crash. */
static int co_repair_dirty(struct qcow2 *q, struct blk_error *e)
{
    struct blk_check c = {.fix_leaks = true, .fix_errors = true};

    if (!(q->header.incompatible & QCOW2_DIRTY))
        return 0;
    TRY(co_qcow2_check(q->map.dev, &c, e));
    if (q->header.incompatible & QCOW2_DIRTY)
        return err_set(e, -EACCES,
                       "the image was not closed cleanly and could not be repaired (%" PRIu64
                       " corruptions, %" PRIu64 " errors are left); open it read-only",
                       c.corruptions, c.check_errors);
    return 0;
}

static bool may_repair(const struct blk_device *dev)
{
    return dev->open_flags & BLK_OPEN_WRITE && !(dev->open_flags & BLK_OPEN_CHECK);
}

/* What an image needs before it is written to. */
static int co_ready_to_write(struct qcow2 *q, struct blk_error *e)
{
    TRY(co_repair_dirty(q, e));
    with_lock(&q->bitmaps.lock);
    return co_qcow2_bitmaps_known(q, e);
}

/* --- open ----------------------------------------------------------------- */

uint32_t qcow2_page_bytes(uint32_t cluster_bits)
{
    uint64_t cluster = 1ULL << cluster_bits;

    /* Small pages keep a scattered write-back small; large tables come in at most 32 pieces. */
    return (uint32_t)MIN(MAX(cluster / 16, MIN(cluster, 4 * KiB)), 64 * KiB);
}

static const struct map_format qcow2_format = {
    .decode = decode,
    .encode = encode,
    .root_decode = qcow2_root_decode,
    .root_encode = root_encode,
    .co_place = co_qcow2_place,
    .co_place_packed = co_qcow2_place_packed,
    .co_place_table = co_qcow2_place_table,
    .unplace = qcow2_unplace,
    .unplace_table = qcow2_unplace_table,
    .co_release = co_qcow2_release,
    .co_release_table = co_qcow2_release_table,
    .co_before_first_write = co_before_first_write,
    .unpack = qcow2_unpack,
    .pack = qcow2_pack,
    .root_rank = QCOW2_RANK_L1,
    .table_rank = QCOW2_RANK_L2,
};

static char *span_text(const uint8_t *raw, struct qcow2_span s)
{
    char *text = mem_alloc(s.bytes + 1);

    if (text) {
        memcpy(text, raw + s.offset, s.bytes);
        text[s.bytes] = 0;
    }
    return text;
}

static int keep_names(struct qcow2 *q, const uint8_t *raw)
{
    if (q->header.backing_name.bytes) {
        q->backing_name = span_text(raw, q->header.backing_name);
        if (!q->backing_name)
            return -ENOMEM;
    }
    if (q->header.backing_format.bytes) {
        q->backing_format = span_text(raw, q->header.backing_format);
        if (!q->backing_format)
            return -ENOMEM;
    }
    if (q->header.data_file_name.bytes) {
        q->data_name = span_text(raw, q->header.data_file_name);
        if (!q->data_name)
            return -ENOMEM;
    }
    return 0;
}

static int co_read_header(struct qcow2 *q, struct blk_device *dev, struct blk_error *e)
{
    struct blk_device *file = q->map.file;
    struct qcow2_raw_header in = {
        .raw = q->sector,
        .bytes = MIN(file->size, QCOW2_SECTOR),
        .file_bytes = file->size,
        .fresh = dev->open_flags & BLK_OPEN_FRESH,
        .damaged = dev->open_flags & BLK_OPEN_CHECK,
    };
    auto_free uint8_t *cluster = NULL;
    int rc = in.bytes ? co_blk_read_buf(file, 0, q->sector, in.bytes) : 0;

    if (rc < 0)
        return err_errno(e, rc, "cannot read the qcow2 header");
    uint64_t wants = MIN(qcow2_header_wants(q->sector, in.bytes, in.fresh), file->size);
    if (wants > in.bytes) {
        cluster = mem_aligned(wants);
        if (!cluster)
            return err_errno(e, -ENOMEM, "cannot read the qcow2 header");
        rc = co_blk_read_buf(file, 0, cluster, wants);
        if (rc < 0)
            return err_errno(e, rc, "cannot read the qcow2 header");
        in.raw = cluster;
        in.bytes = wants;
    }
    TRY(qcow2_header_parse(&in, &q->header, e));
    bool write = dev->open_flags & BLK_OPEN_WRITE && !(dev->open_flags & BLK_OPEN_CHECK);
    TRY(qcow2_header_refuse(&q->header, in.raw, write, e));
    rc = keep_names(q, in.raw);
    return rc < 0 ? err_errno(e, rc, "cannot open the image") : 0;
}

static void fill_shape(const struct qcow2_header *h, struct map_shape *s)
{
    *s = (struct map_shape){
        .size = h->size,
        .cluster_bits = (uint8_t)h->cluster_bits,
        .entry_bytes = (uint8_t)qcow2_entry_bytes(h),
        .piece_bits = qcow2_extended(h) ? (uint8_t)(h->cluster_bits - QCOW2_SUBCLUSTER_BITS) : 0,
        .levels = 2,
        .table_entries = (1u << h->cluster_bits) / qcow2_entry_bytes(h),
        .table_bytes = 1u << h->cluster_bits,
        .root_entry_bytes = 8,
        .root_offset = h->l1_offset,
        .root_entries = h->l1_entries,
        .no_zero_cells = h->version < 3,
        .zero_keeps_space = h->version >= 3,
        .fixed_places = qcow2_has_data_file(h),
        .always_stored = qcow2_raw_data(h),
    };
}

/* What the metadata cache may take: as asked, else enough for the whole image up to 32 MiB. */
static uint64_t cache_bytes(const struct qcow2 *q, const struct opts *opts)
{
    uint64_t clusters = div_up(q->header.size, q->map.cluster_bytes);
    uint64_t all = clusters * qcow2_entry_bytes(&q->header) +
                   (clusters << q->header.refcount_order) / 8 + 2 * MiB;
    uint64_t limit = MIN(all, 32 * MiB);

    if (opts && opts_given(opts, "cache-size")) {
        limit = opts_number(opts, "cache-size");
    } else if (opts &&
               (opts_given(opts, "l2-cache-size") || opts_given(opts, "refcount-cache-size"))) {
        limit = opts_number(opts, "l2-cache-size") + opts_number(opts, "refcount-cache-size");
    }
    return MAX(limit, 16ULL * q->page_bytes);
}

int qcow2_open_map(struct qcow2 *q, const struct opts *opts, struct blk_error *e)
{
    struct map *m = &q->map;

    fill_shape(&q->header, &m->shape);
    m->cluster_bytes = qcow2_cluster_bytes(&q->header);
    m->format = &qcow2_format;
    m->state = q;
    q->page_bytes = qcow2_page_bytes(q->header.cluster_bits);
    q->block_order = q->header.cluster_bits + 3 - q->header.refcount_order;
    static const char *const load_steps[META_RANKS] = {[QCOW2_RANK_BLOCK] = "refblock_load",
                                                       [QCOW2_RANK_TABLE] = "reftable_load",
                                                       [QCOW2_RANK_L2] = "l2_load",
                                                       [QCOW2_RANK_L1] = "l1_load"};
    static const char *const write_steps[META_RANKS] = {[QCOW2_RANK_BLOCK] = "refblock_update_part",
                                                        [QCOW2_RANK_TABLE] = "reftable_update",
                                                        [QCOW2_RANK_L2] = "l2_update",
                                                        [QCOW2_RANK_L1] = "l1_update"};
    struct meta_options mo = {
        .file = m->file,
        .page_bytes = q->page_bytes,
        .limit_bytes = cache_bytes(q, opts),
        .fresh = m->fresh,
        .may_write = qcow2_guard_page,
        .load_steps = load_steps,
        .write_steps = write_steps,
        .guard = q,
    };
    int rc = meta_open(&mo, &m->meta);
    if (rc < 0)
        return err_errno(e, rc, "cannot open the image");
    return map_attach(m, e);
}

void qcow2_set_limits(struct qcow2 *q)
{
    struct blk_limits *l = &q->map.dev->limits;
    bool behind = q->map.backing || q->backing_missing;
    unsigned sub = qcow2_extended(&q->header) ? QCOW2_SUBCLUSTER_BITS : 0;

    l->request_align = qcow2_is_aes(q) ? QCOW2_SECTOR : 1;
    l->memory_align = 1;
    l->cluster_size = (uint32_t)q->map.cluster_bytes;
    l->zero_align = (uint32_t)(q->map.cluster_bytes >> sub);
    l->discard_granularity = q->map.cluster_bytes >> sub;
    l->fresh_reads_zero = !behind;
    l->discard_reads_zero = !behind;
    l->can_zero_fast = q->header.version >= 3 || !behind;
    l->can_unmap = true;
}

static int ask_for_backing(struct qcow2 *q, struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *dev = q->map.dev;
    unsigned flags = dev->open_flags & BLK_OPEN_FORCE_SHARE;

    if (blk_child(dev, "backing"))
        return 0;
    if (opener && opener_has(opener, "backing") && !q->backing_name)
        return co_opener_reference(opener, dev, "backing", "", NULL, flags, e); /* or null: none */
    if (!q->backing_name)
        return 0;
    if (opener && opener_full_name(opener, q->backing_name, &q->full_backing_name) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    if (!opener || dev->open_flags & BLK_OPEN_NO_BACKING) {
        q->backing_missing = true;
        return 0;
    }
    return co_opener_reference(opener, dev, "backing", q->backing_name, q->backing_format, flags,
                               e);
}

static int co_opened(struct blk_device *dev, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);

    qcow2_data_opened(q);
    q->map.backing = blk_child(dev, "backing");
    if (q->map.backing)
        q->backing_missing = false;
    qcow2_set_limits(q);
    return 0;
}

void co_qcow2_free(struct qcow2 *q)
{
    if (q->map.priv)
        co_map_detach(&q->map);
    else if (q->map.meta)
        co_meta_close(q->map.meta);
    if (q->releases != q->kept)
        mem_free(q->releases);
    qcow2_runs_drop(&q->free);
    qcow2_guard_drop(q);
    qcow2_bitmaps_drop(q);
    qcow2_crypt_drop(q);
    codec_drop(&q->codec);
    mem_free(q->sector);
    mem_free(q->backing_name);
    mem_free(q->full_backing_name);
    mem_free(q->data_name);
    mem_free(q->backing_format);
    mem_free(q);
}

/* Discarded clusters keep their space, as QEMU 8.1 has it. */
static int take_discard(struct qcow2 *q, const struct opts *opts, struct blk_error *e)
{
    bool keeps = opts && opts_bool(opts, "discard-no-unref");

    if (keeps && q->header.version < 3)
        return err_set(e, -EINVAL, "discard-no-unref is only supported since qcow2 version 3");
    q->map.shape.discard_keeps = keeps;
    return 0;
}

static int co_open_parts(struct qcow2 *q, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct blk_device *dev = q->map.dev;
    unsigned pass = BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE;

    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags & pass, &q->map.file, e));
    if (!q->map.file)
        return err_set(e, -EINVAL, "qcow2 needs a \"file\"");
    q->map.data = q->map.file;
    q->file_bytes = q->map.file->size;
    TRY(co_read_header(q, dev, e));
    qcow2_codec_init(q, opts ? (unsigned)opts_number(opts, "compression-level") : 0);
    TRY(co_qcow2_open_crypt(q, opts, opener, e));
    TRY(qcow2_open_map(q, opts, e));
    TRY(take_discard(q, opts, e));
    TRY(co_qcow2_ask_for_data(q, opener, e));
    return ask_for_backing(q, opener, e);
}

static int co_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                   struct blk_error *e)
{
    struct qcow2 *q = mem_zalloc(sizeof(*q));

    if (!q)
        return err_errno(e, -ENOMEM, "cannot open the image");
    q->map.dev = dev;
    q->map.fresh = q->hidden = dev->open_flags & BLK_OPEN_FRESH;
    q->next = UINT64_MAX;
    q->free.limit = 4096;
    q->releases = q->kept;
    q->release_room = QCOW2_RELEASES_KEPT;
    q->listener.on_event = on_event;
    q->sector = mem_zalloc(QCOW2_SECTOR);
    int rc = q->sector ? co_open_parts(q, opts, opener, e)
                       : err_errno(e, -ENOMEM, "cannot open the image");
    if (rc < 0) {
        co_qcow2_free(q);
        return rc;
    }
    dev->state = &q->map;
    dev->size = q->header.size;
    blk_listen(dev, &q->listener);
    rc = may_repair(dev) ? co_ready_to_write(q, e) : 0;
    if (rc < 0) {
        blk_unlisten(dev, &q->listener);
        dev->state = NULL;
        co_qcow2_free(q);
        return rc;
    }
    return co_opened(dev, e);
}

/* --- close ---------------------------------------------------------------- */

/* Everything written back, everything let go of counted. */
int co_qcow2_settle(struct qcow2 *q, bool flush)
{
    int rc = co_meta_settle(q->map.meta, flush);

    while (q->release_count || q->draining || q->background) {
        co_qcow2_drain(q);
        while (q->background)
            co_queue_wait(&q->idle);
        int again = co_meta_settle(q->map.meta, flush);
        rc = rc < 0 ? rc : again;
    }
    return rc;
}

/* What was recorded goes into the image, and what that lets go of is counted. */
static int co_store_bitmaps(struct qcow2 *q, struct blk_error *e)
{
    if (!q->bitmaps.recording)
        return 0;
    int rc = co_qcow2_bitmaps_store(q, e);
    int again = co_qcow2_settle(q, !q->map.fresh);
    return rc == 0 && again < 0 ? err_errno(e, again, "cannot write the image's tables back") : rc;
}

static int co_close(struct blk_device *dev, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    bool flush = dev->open_flags & BLK_OPEN_WRITE && !q->map.fresh;
    int rc = co_qcow2_settle(q, flush);

    if (rc == 0)
        rc = co_sure_header(q);
    bool stored = rc == 0 && dev->writable;
    int kept = stored ? co_store_bitmaps(q, e) : 0;
    if (stored)
        co_qcow2_trim_file(q);
    blk_unlisten(dev, &q->listener);
    co_qcow2_free(q);
    return rc < 0 ? err_errno(e, rc, "cannot write the image's tables back") : kept;
}

static int co_complete(struct blk_device *dev, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    int rc = co_qcow2_settle(q, false);

    if (rc == 0) {
        co_qcow2_trim_file(q);
        q->hidden = false; /* Q7 */
        rc = co_qcow2_put_header(q, &q->header);
    }
    return rc < 0 ? err_errno(e, rc, "cannot complete the image") : 0;
}

static int co_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);

    if (write) {
        TRY(qcow2_header_refuse(&q->header, q->sector, true, e));
        return co_ready_to_write(q, e);
    }
    int rc = co_qcow2_settle(q, true);
    if (rc < 0)
        return err_errno(e, rc, "cannot write the image's tables back");
    rc = co_store_bitmaps(q, e);
    if (rc < 0 && (co_sure_header(q) < 0 || co_qcow2_bitmaps_arm(q) < 0))
        qcow2_bitmaps_lose(q);
    return rc;
}

/* --- requests ------------------------------------------------------------- */

/* Without its backing file an image cannot say what its holes hold. */
static int needs_backing(struct blk_device *dev)
{
    const struct qcow2 *q = qcow2_of_dev(dev);

    return q->backing_missing || q->data_missing ? -ENOTSUP : 0;
}

static int co_may_write(struct blk_device *dev)
{
    TRY(needs_backing(dev));
    if (dev->open_flags & BLK_OPEN_CHECK)
        return -EROFS; /* opened to be repaired: tables may be anywhere */
    return co_sure_header(qcow2_of_dev(dev));
}

static int co_flush(struct blk_device *dev)
{
    TRY(co_sure_header(qcow2_of_dev(dev)));
    return co_map_flush(dev);
}

static int co_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    /* check reads what lies here, and nothing else */
    if (!(dev->open_flags & BLK_OPEN_CHECK) || qcow2_of_dev(dev)->data_missing)
        TRY(needs_backing(dev));
    if (qcow2_is_aes(qcow2_of_dev(dev)))
        return co_qcow2_aes_read(qcow2_of_dev(dev), offset, to);
    return co_map_read(dev, offset, to);
}

static int co_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags)
{
    TRY(co_may_write(dev));
    if (flags & BLK_COMPRESSED && qcow2_has_data_file(&qcow2_of_dev(dev)->header))
        return -ENOTSUP; /* each cluster of a data file lies at its own offset */
    TRY(co_qcow2_record(qcow2_of_dev(dev), offset, from->bytes));
    return co_map_write(dev, offset, from, flags);
}

static int co_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    TRY(co_may_write(dev));
    TRY(co_qcow2_record(qcow2_of_dev(dev), offset, bytes));
    return co_map_write_zeroes(dev, offset, bytes, flags);
}

static int co_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    TRY(co_may_write(dev));
    TRY(co_qcow2_record(qcow2_of_dev(dev), offset, bytes));
    return co_map_discard(dev, offset, bytes);
}

static int co_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    if (qcow2_of_dev(dev)->crypt)
        return -ENOTSUP; /* the bytes must be seen; and nothing placed before that is known */
    TRY(co_may_write(dev));
    TRY(co_qcow2_record(qcow2_of_dev(dev), offset, from->bytes));
    return co_map_copy(dev, offset, from);
}

/* Gives how many clusters of the file's first @clusters are in use, or @enough if at least so many.
 */
static int co_clusters_in_use(struct qcow2 *q, uint64_t clusters, uint64_t enough, uint64_t *used)
{
    *used = 0;
    with_lock(&q->alloc);
    for (uint64_t at = 0; at < clusters && *used < enough;) {
        uint64_t value = 0, run = MIN(clusters - at, qcow2_page_run(q, at)), same = run;
        int rc = co_qcow2_count_same(q, at, run, &value, &same);
        if (rc < 0 && rc != -ENOENT) /* no refcount block: nothing is in use */
            return rc;
        *used += value ? same : 0;
        at += same;
    }
    return 0;
}

/* Once: space that is counted but was never filled (preallocation=metadata, a file copied sparsely)
 * shows as a file that takes less than is in use, by two clusters and a ninth of what it takes
 * (QEMU draws the line there). Then map lets the file's holes show. */
static int co_look_for_holes(struct qcow2 *q)
{
    struct blk_info info;
    struct blk_error ignored;
    uint64_t cluster = q->map.cluster_bytes, length = div_up(q->map.file->size, cluster), used;
    if (q->looked_for_holes || qcow2_has_data_file(&q->header))
        return 0;
    TRY(co_blk_info(q->map.file, &info, &ignored));
    uint64_t taken = info.actual_size == UINT64_MAX ? length : info.actual_size / cluster;
    blk_info_drop(&info);
    uint64_t enough = MAX(taken + taken / 9, taken + 2);
    if (length >= enough) {
        TRY(co_clusters_in_use(q, length, enough, &used));
        q->map.shape.file_has_holes = used >= enough;
    }
    q->looked_for_holes = true;
    return 0;
}

static int co_map(struct blk_device *dev, uint64_t offset, uint64_t bytes, struct blk_extent *out)
{
    if (qcow2_of_dev(dev)->data_missing)
        return -ENOTSUP;
    TRY(co_look_for_holes(qcow2_of_dev(dev)));
    TRY(co_map_map(dev, offset, bytes, out));
    if (qcow2_of_dev(dev)->crypt) /* what lies there is not what is shown */
        out->flags &= ~(unsigned)(BLK_EXT_PLACED | BLK_EXT_RECURSE);
    return 0;
}

static bool resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                    struct blk_place *out)
{
    const struct qcow2 *q = qcow2_of_dev(dev);
    return !q->backing_missing && !q->data_missing && !qcow2_is_aes(q) &&
           !(write && (q->header_unsure || !qcow2_recorded(q, offset, bytes))) &&
           map_resolve(dev, offset, bytes, write, out);
}

static int probe(const struct blk_probe *p, const char **reason)
{
    struct qcow2_header_disk d;

    if (p->head_bytes < QCOW2_V2_BYTES)
        return 0;
    memcpy(&d, p->head, QCOW2_V2_BYTES);
    if (be32_get(d.magic) != QCOW2_MAGIC || be32_get(d.version) < 2)
        return 0;
    *reason = "it begins with QFI and a qcow2 version";
    return 100;
}

static const struct opt_desc open_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "where the image lies"},
    {.name = "backing", .type = OPT_CHILD, .help = "instead of the backing file the image names"},
    {.name = "data-file", .type = OPT_CHILD, .help = "instead of the data file the image names"},
    {.name = "discard-no-unref",
     .type = OPT_BOOL,
     .preset = "off",
     .help = "what is discarded keeps its space in the image"},
    {.name = "encrypt.format", .type = OPT_STRING, .help = "luks; the image says it itself"},
    OLD_AES_SECRET,
    {.name = "cache-size", .type = OPT_SIZE, .help = "bytes for all cached tables"},
    {.name = "l2-cache-size",
     .type = OPT_SIZE,
     .help = "bytes for cached L2 tables",
     .preset = "32M"},
    {.name = "refcount-cache-size",
     .type = OPT_SIZE,
     .help = "bytes for cached reference counts",
     .preset = "256K"},
    {.name = "compression-level",
     .type = OPT_INT,
     .preset = "0",
     .max = CODEC_LEVEL_MAX,
     .help = "of clusters written compressed: 0 fast, 1 to 9 smaller and slower"},
    {0},
};

const struct blk_driver qcow2_driver = {
    .name = "qcow2",
    .title = "QEMU's copy-on-write image, versions 2 and 3",
    .extensions = "qcow2 qcow2c",
    .is_format = true,
    .handles_fua = true,
    .compresses = true,
    .open_options = open_options,
    .create_options = qcow2_create_options,
    .probe = probe,
    .co_create = co_qcow2_create,
    .co_measure = co_qcow2_measure,
    .co_open = co_open,
    .co_opened = co_opened,
    .co_close = co_close,
    .co_reopen = co_reopen,
    .co_read = co_read,
    .co_write = co_write,
    .co_write_zeroes = co_write_zeroes,
    .co_discard = co_discard,
    .co_flush = co_flush,
    .resolve = resolve,
    .co_map = co_map,
    .co_copy = co_copy,
    .co_complete = co_complete,
    .co_resize = co_qcow2_resize,
    .co_make_empty = co_qcow2_make_empty,
    .co_compact = co_qcow2_compact,
    .co_change_backing = co_qcow2_change_backing,
    .amend_options = qcow2_amend_options,
    .co_amend = co_qcow2_amend,
    .co_check = co_qcow2_check,
    .co_info = co_qcow2_info,
    .co_inner_list = co_qcow2_inner_list,
    .co_inner_open = co_qcow2_inner_open,
    .co_snapshot_list = co_qcow2_snapshot_list,
    .co_snapshot_create = co_qcow2_snapshot_create,
    .co_snapshot_apply = co_qcow2_snapshot_apply,
    .co_snapshot_delete = co_qcow2_snapshot_delete,
    .co_bitmap_list = co_qcow2_bitmap_list,
    .co_bitmap_change = co_qcow2_bitmap_change,
    .co_bitmap_read = co_qcow2_bitmap_read,
};

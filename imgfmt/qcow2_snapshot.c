/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_snapshot.c - internal snapshots: made, gone back to, deleted.
 *
 *   snapshot table -> entry: id, name, date, disk size, L1 table -> the same L2 tables and clusters
 *
 * The device is gated (no request runs) and written back before anything begins. What must be on
 * disk before what (each arrow a flush; "counts" are those of L2 tables and all they lead to):
 *
 *   create  S1  in new space: the active L2 tables that hold COPIED flags, without them; two L1
 *               tables that lead there, the snapshot's and the active one; the counts of all of
 *               this; the snapshot table -> header: places of the L1, refcount and snapshot tables
 *               in one sector -> the space of the old ones
 *   delete  S2  in new space: the counts without the snapshot; the active L1 and L2 tables with
 *               COPIED where one reference is left; the snapshot table -> header, as above -> the
 *               space of the old ones and of what nothing refers to
 *   apply   S3  the snapshot's counts up, COPIED cleared in its tables (they hold none as a rule)
 *               -> a new active L1 table -> header: L1 place and length, disk size, in one sector
 *               -> counts of what was active before down, space of its L1 table
 *
 * So each happens in the one write of the header, and what a crash leaves before or after it are
 * leaks. Create and delete change counts and flags that contradict each other in any order of
 * writes, so they write neither in place (qcow2_shadow.h). Apply may count in place: what the old
 * active tables hold alone keeps its count, all else has two or more before and after. */
#include <stdio.h>
#include <stdlib.h>

#include "imgfmt/qcow2_refwalk.h"

uint64_t qcow2_snapshot_size(const struct qcow2 *q, const struct qcow2_snapshot *s)
{
    return s->has_disk_bytes ? s->disk_bytes : q->header.size;
}

static uint64_t clusters_for(const struct qcow2 *q, uint64_t bytes)
{
    return MAX(div_up(bytes, q->map.cluster_bytes), 1);
}

static char *text_of(const char *text, size_t bytes)
{
    char *copy = mem_alloc(bytes + 1);

    if (copy) {
        memcpy(copy, text, bytes);
        copy[bytes] = 0;
    }
    return copy;
}

/* --- the list ------------------------------------------------------------- */

struct listing {
    struct qcow2 *q;
    struct blk_snapshot *list;
    size_t count;
};

static int list_one(void *arg, const struct qcow2_snapshot *s)
{
    struct listing *l = arg;

    l->list[l->count++] = (struct blk_snapshot){
        .id = text_of(s->id, s->id_bytes),
        .name = text_of(s->name, s->name_bytes),
        .vm_state_bytes = s->vm_state_bytes,
        .date_sec = s->date_sec,
        .date_nsec = (uint32_t)s->date_nsec,
        .vm_clock_nsec = s->vm_clock_nsec,
        .icount = s->has_icount ? s->icount : UINT64_MAX,
        .virtual_size = qcow2_snapshot_size(l->q, s),
    };
    return l->list[l->count - 1].id && l->list[l->count - 1].name ? 0 : -ENOMEM;
}

int co_qcow2_snapshot_list(struct blk_device *dev, struct blk_snapshot **out, size_t *count,
                           struct blk_error *e)
{
    struct listing l = {.q = qcow2_of_dev(dev)};

    *out = NULL;
    *count = 0;
    with_lock(&l.q->snapshots);
    if (l.q->header.snapshot_count == 0)
        return 0;
    l.list = mem_array(l.q->header.snapshot_count, sizeof(*l.list));
    int rc = l.list ? co_qcow2_snapshots(l.q, list_one, &l, e) : -ENOMEM;
    if (rc < 0) {
        blk_snapshots_drop(l.list, l.count);
        return rc == -ENOMEM ? err_errno(e, rc, "cannot list the snapshots") : rc;
    }
    *out = l.list;
    *count = l.count;
    return 0;
}

/* --- a new snapshot table ------------------------------------------------- */

/* Where things go; 0: not placed (yet). */
struct place {
    uint64_t offset, clusters;
};

static int co_place(struct qcow2 *q, uint64_t bytes, struct place *out)
{
    out->clusters = clusters_for(q, bytes);
    with_lock(&q->alloc);
    int rc = co_qcow2_place_together(q, out->clusters, &out->offset);
    if (rc < 0)
        out->offset = 0;
    else /* pages of what lay there before may be in the cache */
        co_meta_forget(q->map.meta, out->offset, out->clusters << q->header.cluster_bits);
    return rc;
}

static void give_back(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    if (offset && bytes)
        qcow2_release(q, offset, align_up(bytes, q->map.cluster_bytes), QCOW2_TABLE);
}

static void unplace(struct qcow2 *q, const struct place *p)
{
    give_back(q, p->offset, p->clusters << q->header.cluster_bits);
}

/* What changes the snapshots: the table as it was and as it will be. */
struct change {
    struct qcow2 *q;
    struct qcow2_snapshot_table old;
    uint8_t *raw; /* the new table */
    uint64_t bytes;
    struct place table, l1_place, active_place; /* of the snapshot's L1 table, of the active one */
    struct qcow2_l1 l1;                         /* that is counted */
    struct qcow2_l1 active;
    struct qcow2_shadow shadow; /* the new counts */
    struct qcow2_moves moves;   /* L2 tables whose flags change */
    struct qcow2_snapshot s;    /* the one it is about; texts point into old.raw */
    uint64_t at, used;          /* its bytes in the old table */
};

static int co_change_begin(struct change *c, struct qcow2 *q, struct blk_error *e)
{
    *c = (struct change){.q = q};
    co_mutex_lock(&q->snapshots); /* until co_change_end() */
    if (q->header.incompatible & QCOW2_DATA_FILE)
        return err_set(e, -ENOTSUP,
                       "an image whose data lies in an external file cannot hold snapshots: the "
                       "data file counts no references");
    if (q->map.dev->open_flags & BLK_OPEN_CHECK)
        return err_set(e, -EROFS, "the image is open for check and repair only");
    int rc = co_map_will_write(&q->map);
    if (rc == 0) {
        with_lock(&q->alloc);
        rc = co_qcow2_sure_header(q);
    }
    if (rc == 0)
        rc = co_qcow2_settle(q, true);
    if (rc < 0)
        return err_errno(e, rc, "cannot write the image's tables back");
    return co_qcow2_snapshot_table(q, &c->old, e);
}

static void co_change_end(struct change *c)
{
    mem_free(c->old.raw);
    mem_free(c->raw);
    qcow2_l1_drop(&c->l1);
    qcow2_l1_drop(&c->active);
    qcow2_places_drop(&c->moves.places);
    co_qcow2_shadow_drop(&c->shadow);
    co_mutex_unlock(&c->q->snapshots);
}

/* Nothing of it is in the image: the space is given back. */
static void co_change_undo(struct change *c)
{
    unplace(c->q, &c->l1_place);
    unplace(c->q, &c->active_place);
    unplace(c->q, &c->table);
    qcow2_places_undo(c->q, &c->moves.places);
    co_qcow2_shadow_undo(&c->shadow);
}

static bool same_text(const char *text, const char *raw, size_t bytes)
{
    return strlen(text) == bytes && memcmp(text, raw, bytes) == 0;
}

static int find(struct change *c, const char *id, struct blk_error *e)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < c->old.count; i++) {
        c->at = at;
        qcow2_snapshot_next(&c->old, &at, &c->s);
        c->used = at - c->at;
        if (same_text(id, c->s.id, c->s.id_bytes))
            return 0;
    }
    return err_set(e, -ENOENT, "there is no snapshot with the id \"%s\"", id);
}

/* Everything of the new tables and what they name is durable: they become the image's. If that
 * fails, which of them the file names is not known until the header was written again: the space of
 * the new ones stays, and leaks. */
static int co_publish(struct change *c, uint32_t count, uint64_t *freed, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    struct qcow2_header old = q->header;

    co_mutex_lock(&q->alloc);
    struct qcow2_header h = q->header;
    h.snapshot_count = count;
    h.snapshots_offset = count ? c->table.offset : 0;
    h.refcount_table_offset = c->shadow.table;
    if (c->active_place.offset)
        h.l1_offset = c->active_place.offset;
    int rc = co_qcow2_put_header(q, &h);
    co_mutex_unlock(&q->alloc);
    if (rc < 0)
        return err_errno(e, rc, "cannot write the image's header");
    (void)!qcow2_reshape(q, &q->header); /* the old L1 table is nobody's from here on */
    co_qcow2_shadow_taken(&c->shadow, freed);
    if (c->active_place.offset)
        give_back(q, old.l1_offset, old.l1_entries * 8ULL);
    give_back(q, old.snapshots_offset, c->old.bytes);
    return 0;
}

static int co_write_table(struct change *c)
{
    return c->bytes ? co_blk_write_buf(c->q->map.file, c->table.offset, c->raw, c->bytes, 0) : 0;
}

/* --- create --------------------------------------------------------------- */

/* One more than the highest number that an id begins with. */
static void next_id(const struct qcow2_snapshot_table *t, char *to, size_t room)
{
    uint64_t highest = 0, at = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        struct qcow2_snapshot s;
        char digits[21];
        qcow2_snapshot_next(t, &at, &s);
        snprintf(digits, sizeof(digits), "%.*s", (int)MIN(s.id_bytes, 20), s.id);
        uint64_t n = digits[0] >= '0' && digits[0] <= '9' ? strtoull(digits, NULL, 10) : 0;
        highest = n < UINT64_MAX ? MAX(highest, n) : highest;
    }
    snprintf(to, room, "%" PRIu64, highest + 1);
}

static int may_create(const struct qcow2 *q, const struct blk_snapshot *wanted, struct blk_error *e)
{
    if (!wanted->name || !*wanted->name || strlen(wanted->name) > 255)
        return err_set(e, -EINVAL, "a snapshot's name has 1 to 255 bytes");
    if (q->header.refcount_order == 0)
        return err_set(e, -EINVAL,
                       "the image counts references with 1 bit, which cannot say that a snapshot "
                       "shares a cluster; convert it to refcount_bits=16");
    if (q->header.snapshot_count >= QCOW2_MAX_SNAPSHOTS)
        return err_set(e, -EFBIG, "the image holds %u snapshots already, as many as can be",
                       QCOW2_MAX_SNAPSHOTS);
    return 0;
}

/* The old entries and the new one. */
static int build_table(struct change *c, const struct blk_snapshot *wanted, struct blk_error *e)
{
    const struct qcow2_header *h = &c->q->header;
    char id[24];
    uint64_t old = align_up(c->old.bytes, 8);

    next_id(&c->old, id, sizeof(id));
    c->s = (struct qcow2_snapshot){
        .l1_offset = c->l1_place.offset,
        .l1_entries = MAX(h->l1_entries, 1),
        .date_sec = wanted->date_sec,
        .date_nsec = wanted->date_nsec,
        .vm_clock_nsec = wanted->vm_clock_nsec,
        .vm_state_bytes = wanted->vm_state_bytes,
        .disk_bytes = h->size,
        .icount = wanted->icount,
        .has_icount = wanted->icount != UINT64_MAX,
        .id = id,
        .id_bytes = (uint16_t)strlen(id),
        .name = wanted->name,
        .name_bytes = (uint16_t)strlen(wanted->name),
    };
    if (old + 1024 > 64 * MiB)
        return err_set(e, -EFBIG, "the snapshot table would be longer than 64 MiB");
    mem_free(c->raw);
    c->raw = mem_zalloc(old + 1024);
    if (!c->raw)
        return err_errno(e, -ENOMEM, "cannot write the snapshot table");
    if (c->old.bytes)
        memcpy(c->raw, c->old.raw, c->old.bytes);
    c->bytes = old + qcow2_snapshot_put(&c->s, c->raw + old);
    return 0;
}

/* Room for all that is written anew: the counts last, since placing changes them. */
static int co_place_all(struct change *c, uint64_t tables, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    uint64_t l1_bytes = q->header.l1_entries * 8ULL;
    int rc = l1_bytes ? co_place(q, l1_bytes, &c->active_place) : 0;

    c->moves.shadow = &c->shadow;
    if (rc == 0 && c->bytes)
        rc = co_place(q, c->bytes, &c->table);
    if (rc == 0)
        rc = co_qcow2_places(q, &c->moves.places, tables);
    if (rc == 0)
        rc = co_qcow2_shadow_place(q, &c->shadow);
    return rc < 0 ? err_errno(e, rc, "cannot make room for the new tables") : 0;
}

static int co_count_up(struct change *c, struct qcow2_shadow *shadow, struct blk_error *e)
{
    uint64_t none = 0;
    int rc = co_qcow2_refer_all(c->q, &c->l1, 1, shadow, &none);

    if (rc == -ERANGE)
        return err_set(e, -EINVAL,
                       "a cluster has as many references as %u bits can count, or is not counted "
                       "at all; nothing was changed (check the image, or convert it to more "
                       "refcount_bits)",
                       1u << c->q->header.refcount_order);
    return rc < 0 ? err_errno(e, rc, "cannot count the references of a snapshot") : 0;
}

static int co_write_l1(struct change *c, const struct qcow2_l1 *l, const struct place *p)
{
    return p->offset
               ? co_qcow2_l1_write(c->q, l, p->offset, p->clusters << c->q->header.cluster_bits)
               : 0;
}

/* Everything but the header. */
static int co_write_all(struct change *c, const struct qcow2_l1 *active)
{
    TRY(co_write_l1(c, active, &c->active_place));
    TRY(co_write_table(c));
    return co_qcow2_shadow_write(&c->shadow);
}

/* S1: the active tables without COPIED flags are the snapshot's as well. */
static int co_share(struct change *c, struct blk_error *e)
{
    int rc = co_qcow2_shadow_copy(&c->shadow);

    if (rc == 0)
        rc = co_qcow2_clear_copied(c->q, &c->l1, &c->moves);
    if (rc < 0)
        return err_errno(e, rc, "cannot write the snapshot's tables");
    TRY(co_count_up(c, &c->shadow, e));
    rc = co_write_l1(c, &c->l1, &c->l1_place);
    if (rc == 0)
        rc = co_write_all(c, &c->l1);
    return rc < 0 ? err_errno(e, rc, "cannot write the snapshot") : 0;
}

static int co_place_snapshot(struct change *c, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    uint64_t tables = 0;
    int rc = co_qcow2_find_copied(q, &c->l1, &tables);

    if (rc == 0)
        rc = co_place(q, q->header.l1_entries * 8ULL, &c->l1_place);
    if (rc < 0)
        return err_errno(e, rc, "cannot make room for a snapshot");
    return co_place_all(c, tables, e);
}

static int co_create(struct change *c, const struct blk_snapshot *wanted, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    uint64_t freed = 0;

    TRY(co_qcow2_l1_read(q, q->header.l1_offset, q->header.l1_entries, &c->l1, e));
    TRY(build_table(c, wanted, e)); /* how long it will be */
    int rc = co_place_snapshot(c, e);
    if (rc == 0)
        rc = build_table(c, wanted, e);
    if (rc == 0)
        rc = co_share(c, e);
    if (rc < 0) {
        co_change_undo(c);
        return rc;
    }
    return co_publish(c, q->header.snapshot_count + 1, &freed, e);
}

/* After the change: the engine looks everything up anew; what was given back is counted. */
static int co_finish(struct qcow2 *q, int rc, struct blk_error *e)
{
    int again = qcow2_reshape(q, &q->header);

    if (again == 0)
        again = co_qcow2_settle(q, true);
    return rc == 0 && again < 0 ? err_errno(e, again, "cannot write the image's tables back") : rc;
}

int co_qcow2_snapshot_create(struct blk_device *dev, const struct blk_snapshot *wanted,
                             struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct change c;

    TRY(may_create(q, wanted, e));
    int rc = co_change_begin(&c, q, e);
    if (rc == 0)
        rc = co_finish(q, co_create(&c, wanted, e), e);
    co_change_end(&c);
    return rc;
}

/* --- delete --------------------------------------------------------------- */

static int cut_entry(struct change *c, struct blk_error *e)
{
    uint64_t behind = MIN(c->at + c->used, c->old.bytes);

    c->bytes = c->old.bytes - (behind - c->at);
    c->raw = mem_alloc(MAX(c->bytes, 1));
    if (!c->raw)
        return err_errno(e, -ENOMEM, "cannot write the snapshot table");
    memcpy(c->raw, c->old.raw, c->at);
    memcpy(c->raw + c->at, c->old.raw + behind, c->old.bytes - behind);
    return 0;
}

/* S3: what the header named before is nobody's. */
static int co_count_down(struct change *c, uint64_t *freed, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    int rc = co_qcow2_refer_all(q, &c->l1, -1, NULL, freed);

    if (rc == 0)
        rc = co_meta_write_back(q->map.meta, true);
    if (rc == -ERANGE)
        return err_set(e, -EIO,
                       "it is done, but some reference counts were too low, and space could not be "
                       "given back; check the image");
    return rc < 0 ? err_errno(e, rc, "it is done, but not all space could be given back") : 0;
}

/* @bytes of a table with a count of one or more: what giving it back frees. */
static int co_give_back_table(struct qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t *freed)
{
    uint64_t count = 0;

    if (!offset || !bytes)
        return 0;
    co_mutex_lock(&q->alloc);
    int rc = co_qcow2_count(q, offset >> q->header.cluster_bits, &count);
    co_mutex_unlock(&q->alloc);
    if (count == 1)
        *freed += align_up(bytes, q->map.cluster_bytes);
    give_back(q, offset, bytes);
    return rc;
}

/* The places that turned out not to be needed count nothing. */
static int co_leave_places(struct change *c)
{
    struct qcow2_places *p = &c->moves.places;

    for (size_t i = p->used; i < p->count; i++)
        TRY(co_qcow2_shadow_lower(&c->shadow, p->at[i] >> c->q->header.cluster_bits));
    return 0;
}

/* S2: the counts without the snapshot, and the active tables with the flags that follow. */
static int co_unshare(struct change *c, struct blk_error *e)
{
    uint64_t none = 0;
    int rc = co_qcow2_shadow_copy(&c->shadow);

    if (rc == 0)
        rc = co_qcow2_refer_all(c->q, &c->l1, -1, &c->shadow, &none);
    if (rc == 0)
        rc = co_qcow2_set_copied(c->q, &c->active, &c->moves);
    if (rc == 0)
        rc = co_leave_places(c);
    if (rc == -ERANGE)
        return err_set(e, -EIO,
                       "some reference counts are too low; nothing was changed: check and repair "
                       "the image first");
    if (rc == 0)
        rc = co_write_all(c, &c->active);
    return rc < 0 ? err_errno(e, rc, "cannot write the tables without the snapshot") : 0;
}

static int co_prepare_delete(struct change *c, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    uint64_t tables = 0;

    TRY(co_qcow2_l1_read(q, c->s.l1_offset, c->s.l1_entries, &c->l1, e));
    TRY(co_qcow2_l1_read(q, q->header.l1_offset, q->header.l1_entries, &c->active, e));
    if (c->old.count > 1)
        TRY(cut_entry(c, e));
    int rc = co_qcow2_find_uncopied(q, &c->active, &tables);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the image's tables");
    TRY(co_place_all(c, tables, e));
    return co_unshare(c, e);
}

static int co_delete(struct change *c, uint64_t *freed, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    int rc = co_prepare_delete(c, e);

    if (rc < 0) {
        co_change_undo(c);
        return rc;
    }
    TRY(co_publish(c, c->old.count - 1, freed, e));
    *freed -= (uint64_t)c->moves.places.count << q->header.cluster_bits; /* came and went */
    return co_give_back_table(q, c->s.l1_offset, c->s.l1_entries * 8ULL, freed);
}

int co_qcow2_snapshot_delete(struct blk_device *dev, const char *id, uint64_t *freed,
                             struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct change c;
    int rc = co_change_begin(&c, q, e);

    if (rc == 0)
        rc = find(&c, id, e);
    if (rc == 0 && qcow2_snapshot_is_open(q, &c.s))
        rc = err_set(e, -EBUSY, "the snapshot is being read");
    if (rc == 0)
        rc = co_finish(q, co_delete(&c, freed, e), e);
    co_change_end(&c);
    return rc;
}

/* --- apply ---------------------------------------------------------------- */

/* The header as it will be. */
static int plan_apply(struct change *c, struct qcow2_header *h, struct blk_error *e)
{
    const struct qcow2 *q = c->q;
    uint64_t size = qcow2_snapshot_size(q, &c->s), needs;

    if (size > INT64_MAX || size % 512)
        return err_set(e, -EINVAL, "the snapshot says it is %" PRIu64 " bytes long", size);
    needs = qcow2_l1_needs(size, &q->header);
    if (needs > QCOW2_MAX_L1_BYTES / 8)
        return err_set(e, -EFBIG, "the snapshot's disk of %" PRIu64 " bytes is too large", size);
    *h = q->header;
    h->size = size;
    h->l1_entries = (uint32_t)MAX(MAX(needs, c->s.l1_entries), 1);
    return 0;
}

/* S3: up to the new L1 table. */
static int co_write_active(struct change *c)
{
    struct qcow2 *q = c->q;

    TRY(co_meta_write_back(q->map.meta, true));
    TRY(co_qcow2_clear_copied(q, &c->l1, NULL));
    TRY(co_qcow2_l1_write(q, &c->l1, c->l1_place.offset,
                          c->l1_place.clusters << q->header.cluster_bits));
    return co_blk_flush(q->map.file);
}

static int co_apply_counted(struct change *c, struct blk_error *e)
{
    uint64_t ignored = 0;

    TRY(co_count_up(c, NULL, e));
    int rc = co_write_active(c);
    if (rc < 0) {
        (void)!co_qcow2_refer_all(c->q, &c->l1, -1, NULL, &ignored); /* else they leak */
        return err_errno(e, rc, "cannot write the tables of the snapshot");
    }
    return 0;
}

/* The header names the snapshot's contents as the active ones. */
static int co_switch(struct change *c, struct qcow2_header *h, struct blk_error *e)
{
    struct qcow2 *q = c->q;

    co_mutex_lock(&q->alloc);
    struct qcow2_header now = q->header; /* the refcount table may have moved */
    now.size = h->size;
    now.l1_entries = h->l1_entries;
    now.l1_offset = c->l1_place.offset;
    int rc = co_qcow2_put_header(q, &now);
    co_mutex_unlock(&q->alloc);
    return rc < 0 ? err_errno(e, rc, "cannot write the image's header") : 0;
}

static int co_apply(struct change *c, struct blk_error *e)
{
    struct qcow2 *q = c->q;
    struct qcow2_header old = q->header, h = old;
    struct qcow2_l1 before;
    uint64_t freed = 0;

    TRY(plan_apply(c, &h, e));
    TRY(co_qcow2_l1_read(q, old.l1_offset, old.l1_entries, &before, e));
    int rc = co_qcow2_l1_read(q, c->s.l1_offset, c->s.l1_entries, &c->l1, e);
    if (rc == 0) {
        rc = co_place(q, h.l1_entries * 8ULL, &c->l1_place);
        if (rc < 0)
            err_errno(e, rc, "cannot make room for an L1 table");
    }
    if (rc == 0)
        rc = co_apply_counted(c, e);
    if (rc < 0) {
        unplace(q, &c->l1_place);
        qcow2_l1_drop(&before);
        return rc;
    }
    rc = co_switch(c, &h, e);
    qcow2_l1_drop(&c->l1);
    c->l1 = before;
    TRY(rc);
    (void)!qcow2_reshape(q, &q->header); /* the old L1 table is nobody's from here on */
    rc = co_count_down(c, &freed, e);
    give_back(q, old.l1_offset, old.l1_entries * 8ULL);
    return rc;
}

int co_qcow2_snapshot_apply(struct blk_device *dev, const char *id, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct change c;

    if (q->bitmaps.count) /* they say what writes changed; nobody could say what this does */
        return err_set(e, -EBUSY, "Device has active dirty bitmaps");
    int rc = co_change_begin(&c, q, e);
    if (rc == 0)
        rc = find(&c, id, e);
    if (rc == 0)
        rc = co_finish(q, co_apply(&c, e), e);
    co_change_end(&c);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_snapshot_table.c - the list of internal snapshots: bytes to structs and back, and reading
 * it whole.
 *
 *   | fixed 40 | extra data | id | name | padding to 8 | next entry ...
 *
 * Extra data begins with the VM state's length in 64 bits, the size of the disk, and the
 * instruction count; what may follow there is kept, since entries that stay are copied byte for
 * byte. At most 65,536 entries, 64 MiB in all, 1 KiB of extra data each. */
#include "imgfmt/qcow2.h"

#define TABLE_MAX  (64 * MiB)
#define EXTRA_MAX  1024
#define FIRST_READ (64 * KiB)

struct snapshot_disk {
    be64 l1_offset;
    be32 l1_entries;
    be16 id_bytes;
    be16 name_bytes;
    be32 date_sec;
    be32 date_nsec;
    be64 vm_clock_nsec;
    be32 vm_state_bytes;
    be32 extra_bytes; /* then extra data, id, name, padding to 8 */
};
static_assert(sizeof(struct snapshot_disk) == 40, "qcow2 snapshot");

struct snapshot_extra_disk {
    be64 vm_state_bytes;
    be64 disk_bytes;
    be64 icount; /* all ones: none */
};
static_assert(sizeof(struct snapshot_extra_disk) == 24, "qcow2 snapshot, extra data");

int64_t qcow2_snapshot_parse(const uint8_t *raw, size_t bytes, struct qcow2_snapshot *out)
{
    struct snapshot_extra_disk x = {0};
    struct snapshot_disk d;

    if (bytes < sizeof(d))
        return -EAGAIN;
    memcpy(&d, raw, sizeof(d));
    uint32_t extra = be32_get(d.extra_bytes);
    if (extra > EXTRA_MAX)
        return -EINVAL;
    *out = (struct qcow2_snapshot){
        .l1_offset = be64_get(d.l1_offset),
        .l1_entries = be32_get(d.l1_entries),
        .date_sec = be32_get(d.date_sec),
        .date_nsec = be32_get(d.date_nsec),
        .vm_clock_nsec = be64_get(d.vm_clock_nsec),
        .vm_state_bytes = be32_get(d.vm_state_bytes),
        .id_bytes = be16_get(d.id_bytes),
        .name_bytes = be16_get(d.name_bytes),
    };
    uint64_t all = sizeof(d) + extra + out->id_bytes + out->name_bytes;
    if (bytes < all)
        return -EAGAIN;
    raw += sizeof(d);
    memcpy(&x, raw, MIN(extra, sizeof(x)));
    if (extra >= 8)
        out->vm_state_bytes = be64_get(x.vm_state_bytes);
    out->has_disk_bytes = extra >= 16;
    if (out->has_disk_bytes)
        out->disk_bytes = be64_get(x.disk_bytes);
    if (extra >= 24) {
        out->icount = be64_get(x.icount);
        out->has_icount = out->icount != UINT64_MAX;
    }
    out->id = (const char *)raw + extra;
    out->name = out->id + out->id_bytes;
    return (int64_t)align_up(all, 8);
}

uint64_t qcow2_snapshot_put(const struct qcow2_snapshot *s, uint8_t *to)
{
    struct snapshot_disk d = {
        .l1_offset = be64_of(s->l1_offset),
        .l1_entries = be32_of(s->l1_entries),
        .id_bytes = be16_of(s->id_bytes),
        .name_bytes = be16_of(s->name_bytes),
        .date_sec = be32_of((uint32_t)s->date_sec),
        .date_nsec = be32_of((uint32_t)s->date_nsec),
        .vm_clock_nsec = be64_of(s->vm_clock_nsec),
        .vm_state_bytes = be32_of((uint32_t)MIN(s->vm_state_bytes, UINT32_MAX)),
        .extra_bytes = be32_of(sizeof(struct snapshot_extra_disk)),
    };
    struct snapshot_extra_disk x = {
        .vm_state_bytes = be64_of(s->vm_state_bytes),
        .disk_bytes = be64_of(s->disk_bytes),
        .icount = be64_of(s->has_icount ? s->icount : UINT64_MAX),
    };
    uint64_t id_at = sizeof(d) + sizeof(x), bytes = id_at + s->id_bytes + s->name_bytes;

    memset(to, 0, align_up(bytes, 8));
    memcpy(to, &d, sizeof(d));
    memcpy(to + sizeof(d), &x, sizeof(x));
    memcpy(to + id_at, s->id, s->id_bytes);
    memcpy(to + id_at + s->id_bytes, s->name, s->name_bytes);
    return align_up(bytes, 8);
}

/* --- the whole table ------------------------------------------------------ */

struct reading {
    uint8_t *buf;
    uint64_t have, room;
};

/* More of the table into memory: at least as much again. */
static int co_read_more(struct qcow2 *q, struct reading *r)
{
    uint64_t at = q->header.snapshots_offset + r->have, end = q->map.file->size;
    uint64_t want = MIN(MAX(FIRST_READ, r->have), TABLE_MAX - r->have);

    want = at < end ? MIN(want, end - at) : 0;
    if (want == 0)
        return -EINVAL;
    uint8_t *more = mem_resize(r->buf, r->have + want);
    if (!more)
        return -ENOMEM;
    r->buf = more;
    TRY(co_blk_read_buf(q->map.file, at, r->buf + r->have, want));
    r->have += want;
    return 0;
}

static int co_read_table(struct qcow2 *q, struct reading *r, struct qcow2_snapshot_table *t,
                         struct blk_error *e)
{
    for (; t->count < q->header.snapshot_count; t->count++) {
        struct qcow2_snapshot s;
        int64_t used = -EAGAIN;
        int rc = 0;
        while (rc == 0 && (!r->buf || (used = qcow2_snapshot_parse(
                                           r->buf + t->bytes, r->have - t->bytes, &s)) == -EAGAIN))
            rc = co_read_more(q, r);
        if (rc == 0 && used < 0)
            rc = (int)used;
        if (rc == -EINVAL)
            return err_set(e, rc, "snapshot %" PRIu32 " of the snapshot table is damaged",
                           t->count);
        if (rc < 0)
            return err_errno(e, rc, "cannot read the snapshot table");
        t->bytes += (uint64_t)used;
    }
    return 0;
}

int co_qcow2_snapshot_table(struct qcow2 *q, struct qcow2_snapshot_table *out, struct blk_error *e)
{
    struct reading r = {0};

    *out = (struct qcow2_snapshot_table){0};
    int rc = co_read_table(q, &r, out, e);
    if (rc < 0) {
        mem_free(r.buf);
        return rc;
    }
    out->bytes = MIN(out->bytes, r.have); /* the last one's padding may be missing */
    out->raw = r.buf;
    return 0;
}

void qcow2_snapshot_next(const struct qcow2_snapshot_table *t, uint64_t *at,
                         struct qcow2_snapshot *out)
{
    int64_t used = qcow2_snapshot_parse(t->raw + *at, t->bytes - *at, out);

    assert(used > 0);
    *at += (uint64_t)used;
}

/* --- one at a time, in little memory --------------------------------------- */

#define ENTRY_MAX (40 + EXTRA_MAX + 65535 + 65535 + 8)

/* @bytes: how long the table is, when all was walked. */
static int co_walk_snapshots(struct qcow2 *q, int (*fn)(void *arg, const struct qcow2_snapshot *s),
                             void *arg, uint64_t *bytes, struct blk_error *e)
{
    uint64_t at = q->header.snapshots_offset, start = at;
    uint64_t have_at = at, have = 0; /* what lies in buf: many entries, or one that is large */
    auto_free uint8_t *buf = q->header.snapshot_count ? mem_alloc(ENTRY_MAX) : NULL;

    if (q->header.snapshot_count && !buf)
        return err_errno(e, -ENOMEM, "cannot read the snapshot table");
    for (uint32_t i = 0; i < q->header.snapshot_count; i++) {
        uint64_t file_bytes = q->map.file->size;
        uint64_t n = at < file_bytes ? MIN(ENTRY_MAX, file_bytes - at) : 0;
        struct qcow2_snapshot s;
        uint64_t skip = MIN(at - have_at, have);
        int64_t used = qcow2_snapshot_parse(buf + skip, have - skip, &s);
        int rc = used == -EAGAIN && n ? co_blk_read_buf(q->map.file, at, buf, n) : 0;
        if (rc < 0)
            return err_errno(e, rc, "cannot read the snapshot table");
        if (used == -EAGAIN) {
            have_at = at;
            have = n;
            used = qcow2_snapshot_parse(buf, n, &s);
        }
        if (used < 0)
            return err_bad(e, -EINVAL, "snapshot %" PRIu32 " at %" PRIu64 " is damaged", i, at);
        rc = fn(arg, &s);
        if (rc != 0)
            return rc;
        at += (uint64_t)used;
        if (at - start > TABLE_MAX)
            return err_bad(e, -EFBIG, "the snapshot table is longer than 64 MiB");
    }
    *bytes = at - start;
    return 0;
}

int co_qcow2_snapshots(struct qcow2 *q, int (*fn)(void *arg, const struct qcow2_snapshot *s),
                       void *arg, struct blk_error *e)
{
    uint64_t bytes;

    return co_walk_snapshots(q, fn, arg, &bytes, e);
}

static int ignore_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    return 0;
}

int co_qcow2_snapshot_bytes(struct qcow2 *q, uint64_t *bytes, struct blk_error *e)
{
    return co_walk_snapshots(q, ignore_snapshot, NULL, bytes, e);
}

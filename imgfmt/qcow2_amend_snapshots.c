/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_amend_snapshots.c - whether an image's snapshots can be those of a version 2 image, which
 * has no zero clusters, and whose snapshots all are as large as the disk. Only looks: a snapshot's
 * tables never change, so what they hold that cannot be said refuses. */
#include "imgfmt/qcow2_refwalk.h"

struct look {
    struct qcow2 *q;
    uint8_t *table; /* a cluster */
    struct blk_error *e;
};

static bool holds_zero_clusters(const uint8_t *table, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += 8) {
        be64 raw;
        memcpy(&raw, table + at, sizeof(raw));
        if (!(be64_get(raw) & QCOW2_COMPRESSED) && be64_get(raw) & QCOW2_ZERO)
            return true;
    }
    return false;
}

static int co_look_at_tables(struct look *l, const struct qcow2_snapshot *s,
                             const struct qcow2_l1 *l1)
{
    const struct map *m = &l->q->map;

    for (uint32_t i = 0; i < l1->count; i++) {
        uint64_t at = l1->entries[i] & QCOW2_OFFSET_MASK;
        if (at == 0)
            continue;
        int rc = co_blk_read_buf(m->file, at, l->table, m->cluster_bytes);
        if (rc < 0)
            return err_errno(l->e, rc, "cannot read the tables of snapshot %.*s", s->name_bytes,
                             s->name);
        if (holds_zero_clusters(l->table, m->cluster_bytes))
            return err_set(l->e, -ENOTSUP,
                           "the snapshot %.*s holds zero clusters, which version 2 cannot say; "
                           "delete it first",
                           s->name_bytes, s->name);
    }
    return 0;
}

static int co_look_at(void *arg, const struct qcow2_snapshot *s)
{
    struct look *l = arg;
    struct qcow2_l1 l1 = {0};

    if (qcow2_snapshot_size(l->q, s) != l->q->header.size || s->vm_state_bytes)
        return err_set(l->e, -ENOTSUP, "Internal snapshots prevent downgrade of image");
    int rc = co_qcow2_l1_read(l->q, s->l1_offset, s->l1_entries, &l1, l->e);
    if (rc == 0)
        rc = co_look_at_tables(l, s, &l1);
    qcow2_l1_drop(&l1);
    return rc;
}

int co_qcow2_check_old_snapshots(struct qcow2 *q, struct blk_error *e)
{
    auto_free uint8_t *table = mem_aligned(q->map.cluster_bytes);
    struct look l = {q, table, e};

    if (q->header.snapshot_count == 0)
        return 0;
    if (!table)
        return err_set(e, -ENOMEM, "out of memory");
    return co_qcow2_snapshots(q, co_look_at, &l, e);
}

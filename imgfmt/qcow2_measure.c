/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_measure.c - how many bytes a qcow2 image will take. Pure but for the walk over the source's
 * extents.
 *
 * The numbers are QEMU's, so that space reserved by them suffices for either program: header, L2
 * tables and L1 table for every cluster of the disk, counts for all of that, and the data clusters
 * (all of them: fully allocated; those that will be written: required). */
#include "imgfmt/qcow2.h"

/* Clusters for the counts of @clusters others, the table that finds them included. */
static uint64_t count_clusters(uint64_t clusters, uint32_t cluster_bits, uint32_t order)
{
    uint64_t blocks = 0, table = 0, last;

    do {
        last = blocks + table;
        blocks = div_up(clusters + last, 1ULL << (cluster_bits + 3 - order));
        table = div_up(blocks, 1ULL << (cluster_bits - 3));
    } while (blocks + table != last);
    return blocks + table;
}

/* The file's bytes with every cluster of @size (whole clusters) allocated. */
static uint64_t full_bytes(uint64_t size, const struct qcow2_header *h, uint32_t entry_bytes)
{
    uint64_t cluster = qcow2_cluster_bytes(h);
    uint64_t l2_bytes = align_up((size >> h->cluster_bits) * entry_bytes, cluster);
    uint64_t l1_bytes = align_up((l2_bytes >> h->cluster_bits) * 8, cluster);
    uint64_t all = cluster + l2_bytes + l1_bytes + size;

    return all + (count_clusters(all >> h->cluster_bits, h->cluster_bits, h->refcount_order)
                  << h->cluster_bits);
}

/* What the source's bitmaps take, each stored in full. */
static uint64_t bitmap_bytes(const struct blk_measure *m, uint64_t cluster)
{
    uint64_t sum = 0, directory = 0;
    const json_t *one;
    size_t i;

    json_array_foreach (m->bitmaps, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        uint64_t granularity = (uint64_t)json_integer_value(json_object_get(one, "granularity"));
        const json_t *flag;
        size_t f;
        bool stale = !name || !granularity;
        json_array_foreach (json_object_get(one, "flags"), f, flag)
            stale |= strcmp(json_string_value(flag), "in-use") == 0;
        if (stale)
            continue;
        uint64_t clusters = div_up(div_up(div_up(m->size, granularity), 8), cluster);
        sum += clusters * cluster + align_up(clusters * 8, cluster);
        directory += align_up(24 + strlen(name), 8);
    }
    return sum + align_up(directory, cluster);
}

int co_qcow2_measure(struct blk_measure *m, struct blk_error *e)
{
    struct qcow2_header h = {0};
    uint64_t size, data = 0;

    TRY(qcow2_take_shape(m->opts, &h, e));
    uint64_t cluster = qcow2_cluster_bytes(&h);
    uint32_t entry_bytes = qcow2_entry_bytes(&h);
    if (m->size > INT64_MAX - cluster ||
        div_up(div_up(m->size, cluster) * entry_bytes, cluster) * 8 > QCOW2_MAX_L1_BYTES)
        return err_set(e, -EFBIG, "The image size is too large (try using a larger cluster size)");
    size = align_up(m->size, cluster);
    const char *mode = opts_text(m->opts, "preallocation");
    bool reserved = mode && (strcmp(mode, "full") == 0 || strcmp(mode, "falloc") == 0);
    if (reserved || (m->source && opts_given(m->opts, "backing_file"))) {
        data = size; /* how much of the source the backing file shows is not known */
    } else if (m->source) {
        int rc = co_blk_data_bytes(m->source, cluster, &data);
        if (rc < 0)
            return err_errno(e, rc, "Unable to get block status");
    }
    m->fully_allocated = full_bytes(size, &h, entry_bytes) + align_up(h.crypto_bytes, cluster);
    m->required = m->fully_allocated - size + data;
    m->has_bitmaps = m->bitmaps && h.version >= 3;
    if (m->has_bitmaps)
        m->bitmap_bytes = bitmap_bytes(m, cluster);
    return 0;
}

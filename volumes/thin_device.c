/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_device.c - thin devices in the metadata: made, snapshotted, deleted; their mappings.
 *
 * The top tree of mappings holds the root of each device's own tree. Before that is changed, the
 * way to it in the top tree is copied: so what a metadata snapshot shares is held (T3). */
#include "volumes/thin_meta.h"

/* --- the kinds of tree ------------------------------------------------------------------------
 */

static uint64_t value_of(const uint8_t *value)
{
    le64 v;
    memcpy(&v, value, sizeof(v));
    return le64_get(v);
}

static int co_hold_root(struct thin_meta *m, const uint8_t *value)
{
    if (thin_meta_count(m, value_of(value)) == 0)
        return -EBADMSG;
    thin_meta_hold(m, value_of(value));
    return 0;
}

static int co_drop_root(struct thin_meta *m, const uint8_t *value)
{
    return co_thin_tree_drop(m, &thin_mappings, value_of(value));
}

static int co_hold_mapping(struct thin_meta *m, const uint8_t *value)
{
    return co_thin_data_hold(m, thin_mapping_block(value_of(value)));
}

static int co_drop_mapping(struct thin_meta *m, const uint8_t *value)
{
    return co_thin_data_drop(m, thin_mapping_block(value_of(value)));
}

const struct thin_tree thin_devices = {8, co_hold_root, co_drop_root};
const struct thin_tree thin_roots = {8, co_hold_root, NULL};
const struct thin_tree thin_mappings = {8, co_hold_mapping, co_drop_mapping};
const struct thin_tree thin_claims = {8, co_hold_mapping, NULL};
const struct thin_tree thin_details = {sizeof(struct thin_detail_disk), NULL, NULL};
const struct thin_tree thin_bitmaps = {sizeof(struct thin_index_disk), NULL, NULL};
const struct thin_tree thin_overflow = {4, NULL, NULL};

/* --- details, roots ---------------------------------------------------------------------------
 */

int co_thin_detail(struct thin_meta *m, uint32_t id, struct thin_detail *out)
{
    uint8_t value[sizeof(struct thin_detail_disk)];
    TRY(co_thin_lookup(m, &thin_details, m->super.details_root, id, value));
    *out = thin_detail_get(value);
    return 0;
}

int co_thin_set_detail(struct thin_meta *m, uint32_t id, const struct thin_detail *d)
{
    uint8_t value[sizeof(struct thin_detail_disk)];
    thin_detail_put(d, value);
    return co_thin_insert(m, &thin_details, &m->super.details_root, id, value);
}

int co_thin_root(struct thin_meta *m, uint32_t id, uint64_t *root)
{
    le64 value;
    TRY(co_thin_lookup(m, &thin_devices, m->super.mapping_root, id, &value));
    *root = le64_get(value);
    return 0;
}

static int co_set_root(struct thin_meta *m, uint32_t id, uint64_t root)
{
    le64 value = le64_of(root);
    return co_thin_insert(m, &thin_roots, &m->super.mapping_root, id, &value);
}

/* The device's root, and the way to it is this transaction's own. */
static int co_open_root(struct thin_meta *m, uint32_t id, uint64_t *root)
{
    TRY(co_thin_root(m, id, root));
    return co_set_root(m, id, *root);
}

static int co_must_be_new(struct thin_meta *m, uint32_t id)
{
    struct thin_detail d;
    if (id > THIN_ID_MOST)
        return -EINVAL;
    int rc = co_thin_detail(m, id, &d);
    return rc == 0 ? -EEXIST : rc == -ENOENT ? 0 : rc;
}

/* --- devices ----------------------------------------------------------------------------------
 */

int co_thin_create(struct thin_meta *m, uint32_t id)
{
    uint64_t root;
    struct thin_detail d = {
        .transaction = m->super.transaction, .created = m->super.time, .snapped = m->super.time};
    TRY(co_must_be_new(m, id));
    TRY(co_thin_tree_new(m, &thin_mappings, &root));
    TRY(co_set_root(m, id, root));
    return co_thin_set_detail(m, id, &d);
}

int co_thin_snap(struct thin_meta *m, uint32_t id, uint32_t of)
{
    struct thin_detail origin;
    uint64_t root;
    TRY(co_must_be_new(m, id));
    TRY(co_thin_detail(m, of, &origin));
    TRY(co_open_root(m, of, &root));
    if (thin_meta_count(m, root) == 0)
        return -EBADMSG;
    uint32_t time = ++m->super.time;
    struct thin_detail snap = {.mapped = origin.mapped,
                               .transaction = m->super.transaction,
                               .created = time,
                               .snapped = time};
    origin.snapped = time;
    thin_meta_hold(m, root);
    TRY(co_set_root(m, id, root));
    TRY(co_thin_set_detail(m, id, &snap));
    return co_thin_set_detail(m, of, &origin);
}

int co_thin_delete(struct thin_meta *m, uint32_t id)
{
    struct thin_detail d;
    TRY(co_thin_detail(m, id, &d));
    TRY(co_thin_remove(m, &thin_details, &m->super.details_root, id));
    return co_thin_remove(m, &thin_devices, &m->super.mapping_root, id);
}

/* --- mappings ---------------------------------------------------------------------------------
 */

static int co_map_one(struct thin_meta *m, uint64_t *root, uint64_t block, uint64_t data_block,
                      uint64_t *added)
{
    le64 value = le64_of(thin_mapping(data_block, m->super.time)), old;
    int rc = co_thin_lookup(m, &thin_mappings, *root, block, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    *added += rc == -ENOENT;
    thin_unhold(m, data_block, 1);
    TRY(co_thin_data_hold(m, data_block));
    return co_thin_insert(m, &thin_mappings, root, block, &value);
}

int co_thin_map(struct thin_meta *m, uint32_t id, uint64_t first, const struct thin_run *data,
                uint64_t *added)
{
    uint64_t root;
    *added = 0;
    TRY(co_open_root(m, id, &root));
    for (uint64_t i = 0; i < data->count; i++)
        TRY(co_map_one(m, &root, first + i, data->first + i, added));
    return co_set_root(m, id, root);
}

/* @block is mapped, and in no other way than through this device. */
static int co_is_own(struct thin_meta *m, uint32_t id, uint64_t root, uint64_t block, le64 *value,
                     bool *own)
{
    uint32_t count;
    int rc = co_thin_lookup(m, &thin_mappings, root, block, value);
    *own = false;
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    TRY(co_thin_count(m, thin_mapping_block(le64_get(*value)), &count));
    if (count != 1)
        return 0;
    TRY(co_thin_is_alone(m, &thin_devices, m->super.mapping_root, id, own));
    return *own ? co_thin_is_alone(m, &thin_mappings, root, block, own) : 0;
}

int co_thin_claim(struct thin_meta *m, uint32_t id, uint64_t first, uint64_t count,
                  uint64_t *claimed, bool *pending)
{
    uint64_t root, before;
    bool own;
    le64 value;
    *claimed = 0;
    *pending = false;
    TRY(co_thin_root(m, id, &root));
    before = root;
    while (*claimed < count) {
        TRY(co_is_own(m, id, root, first + *claimed, &value, &own));
        *pending = own && (m->unshared || m->unsharing);
        if (!own || *pending)
            break;
        if (root == before)
            TRY(co_open_root(m, id, &root));
        value = le64_of(thin_mapping(thin_mapping_block(le64_get(value)), m->super.time));
        TRY(co_thin_insert(m, &thin_claims, &root, first + *claimed, &value));
        ++*claimed;
    }
    return root == before ? 0 : co_set_root(m, id, root);
}

int co_thin_unmap(struct thin_meta *m, uint32_t id, uint64_t *first, uint64_t end, unsigned most,
                  uint64_t *removed)
{
    uint64_t root, key, root_before;
    le64 value;
    *removed = 0;
    TRY(co_thin_root(m, id, &root));
    int rc = co_thin_next(m, &thin_mappings, root, *first, &key, &value);
    if (rc == -ENOENT || (rc == 0 && key >= end)) {
        *first = end;
        return 0;
    }
    TRY(rc);
    TRY(co_open_root(m, id, &root));
    root_before = root;
    while (rc == 0 && key < end && *removed < most) {
        TRY(co_thin_remove(m, &thin_mappings, &root, key));
        ++*removed;
        *first = key + 1;
        rc = co_thin_next(m, &thin_mappings, root, *first, &key, &value);
    }
    if (rc == -ENOENT || (rc == 0 && key >= end))
        *first = end;
    else
        TRY(rc);
    return root == root_before ? 0 : co_set_root(m, id, root);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lv_thin.c - lamina lv create and remove where volumes are thin. */
#include "tools/lvm.h"
#include "volumes/lvm_pool.h"

static const char why[] = "lamina lv";

/* --- a pool ------------------------------------------------------------------------------------
 */

/* 64 bytes for each block, as LVM2 reckons; 2 MiB to 16 GiB. */
static uint64_t metadata_for(uint64_t data_bytes, uint64_t chunk)
{
    uint64_t bytes = data_bytes / chunk * 64;
    return MIN(MAX(bytes, 2 * MiB), 16 * GiB - 64 * MiB);
}

static int read_pool_sizes(struct lvm_verb *v, struct lvm_pool_new *n, const char *chunk,
                           const char *metadata)
{
    uint64_t bytes;
    n->chunk_bytes = 64 * KiB;
    if (chunk)
        TRY(lvm_parse_size(chunk, KiB, &n->chunk_bytes, &v->error));
    if (n->chunk_bytes < 64 * KiB || n->chunk_bytes > GiB || n->chunk_bytes % (64 * KiB))
        return err_set(&v->error, -EINVAL,
                       "Chunk size must be a multiple of 64 KiB, up to 1 GiB, not %s", chunk);
    bytes = metadata_for(n->data.extents * v->vg->extent_bytes, n->chunk_bytes);
    if (metadata)
        TRY(lvm_parse_size(metadata, MiB, &bytes, &v->error));
    if (bytes < 2 * MiB || bytes > 16 * GiB)
        return err_set(&v->error, -EINVAL, "a pool's metadata has 2 MiB to 16 GiB");
    n->metadata = (struct lvm_wanted){.extents = div_up(bytes, v->vg->extent_bytes), .stripes = 1};
    return 0;
}

static int co_make_pool(struct lvm_verb *v, struct lvm_vg **copy, const struct lvm_pool_new *n)
{
    TRY(lvm_pool_create(copy, n, &v->error));
    TRY(co_lvm_pool_format(v->set, *copy, n->name, &v->error));
    TRY(co_lvm_commit(v->set, copy, why, &v->error));
    v->vg = *copy;
    return lvm_verb_say(v, "Logical volume \"%s\" created.", n->name);
}

int co_lvm_thin_pool(struct lvm_verb *v, struct lvm_pool_new *n, const char *chunk,
                     const char *metadata)
{
    char uuids[3][LVM_UUID + 1];
    struct lvm_vg *copy;
    TRY(read_pool_sizes(v, n, chunk, metadata));
    for (size_t i = 0; i < ARRAY_LEN(uuids); i++) {
        lvm_uuid_new(v->tool->host, uuids[i]);
        n->uuids[i] = uuids[i];
    }
    if (n->data.only)
        return err_set(&v->error, -EINVAL, "a thin pool takes any physical volumes of its group");
    TRY(lvm_vg_copy(v->vg, &copy, &v->error));
    int rc = co_make_pool(v, &copy, n);
    if (rc < 0)
        lvm_vg_drop(copy);
    return rc;
}

/* --- volumes -----------------------------------------------------------------------------------
 */

/* What an earlier run left undone comes first; names stay good, models do not. */
static int co_settle(struct lvm_verb *v, const char *pool)
{
    return co_lvm_pool_settle(v->set, &v->vg, pool, why, &v->error);
}

static int co_make_thin(struct lvm_verb *v, const char *name, const char *pool, const char *origin,
                        uint64_t extents)
{
    char uuid[LVM_UUID + 1];
    TRY(co_settle(v, pool));
    lvm_uuid_new(v->tool->host, uuid);
    struct lvm_thin_new n = {.name = name,
                             .uuid = uuid,
                             .pool = lvm_find_lv(v->vg, pool),
                             .origin = origin ? lvm_find_lv(v->vg, origin) : NULL,
                             .extents = extents};
    TRY(lvm_thin_create(v->vg, &n, &v->error));
    TRY(co_lvm_verb_commit(v, "Logical volume \"%s\" created.", name));
    return co_settle(v, pool);
}

int co_lvm_thin(struct lvm_verb *v, const char *name, const char *pool, const char *size)
{
    uint64_t bytes;
    if (!pool || !size)
        return err_set(&v->error, -EINVAL,
                       "a thin volume is made with -V SIZE and --thinpool POOL");
    const struct lvm_lv *lv = lvm_find_lv(v->vg, pool);
    if (!lv || lv->segments[0].type->what != LVM_POOL)
        return err_set(&v->error, -ENOENT, "Thin pool %s/%s not found.", v->vg->name, pool);
    TRY(lvm_parse_size(size, MiB, &bytes, &v->error));
    return co_make_thin(v, name, pool, NULL, div_up(bytes, v->vg->extent_bytes));
}

static int co_snap(struct lvm_verb *v, const char *name)
{
    const struct lvm_segment *s = &v->lv->segments[0];
    if (s->type->what != LVM_THIN)
        return err_set(&v->error, -ENOTSUP,
                       "%s/%s is no thin volume: snapshots of others are not made here",
                       v->vg->name, v->lv->name);
    auto_free char *pool = mem_strdup(s->pool->name);
    auto_free char *origin = mem_strdup(v->lv->name);
    if (!pool || !origin)
        return err_set(&v->error, -ENOMEM, "out of memory");
    return co_make_thin(v, name, pool, origin, v->lv->extents);
}

int co_lvm_snapshot(struct lvm_verb *v, const char *name)
{
    auto_free char *place = mem_strdup(v->operands[0]);
    auto_free char *dotted = NULL;
    if (!place)
        return err_set(&v->error, -ENOMEM, "out of memory");
    char *lv = strrchr(place, '/'), *at = lv && !name ? strchr(lv, '@') : NULL;
    if (!name && (!at || !at[1]))
        return err_set(&v->error, -EINVAL,
                       "a snapshot is named: -s -n NAME SET//VG/LV, or -s SET//VG/LV@SNAP");
    if (at) {
        *at = 0;
        dotted = mem_printf("%s.%s", lv + 1, at + 1);
        if (!dotted)
            return err_set(&v->error, -ENOMEM, "out of memory");
    }
    TRY(co_lvm_verb_open(v, place, LVM_NAMED_LV, NULL, 0, true));
    return co_snap(v, name ? name : dotted);
}

int co_lvm_thin_remove(struct lvm_verb *v)
{
    auto_free char *pool = mem_strdup(v->lv->segments[0].pool->name);
    auto_free char *name = mem_strdup(v->lv->name);
    if (!pool || !name)
        return err_set(&v->error, -ENOMEM, "out of memory");
    TRY(co_settle(v, pool));
    TRY(lvm_thin_remove(v->vg, lvm_find_lv(v->vg, name), &v->error));
    TRY(co_lvm_verb_commit(v, "Logical volume \"%s\" successfully removed", name));
    return co_settle(v, pool);
}

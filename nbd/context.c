/* SPDX-License-Identifier: BSD-3-Clause */
/* context.c - which meta contexts an export has, and what they are called. */
#include "nbd/context.h"

struct nbd_contexts *nbd_contexts_ref(struct nbd_contexts *list)
{
    if (list)
        list->refs++;
    return list;
}

void nbd_contexts_drop(struct nbd_contexts *list)
{
    if (!list || --list->refs > 0)
        return;
    for (unsigned i = 0; i < list->bitmaps; i++)
        mem_free(list->bitmap[i]);
    mem_free(list);
}

static bool is_shown(const struct nbd_shown *shown, const char *bitmap)
{
    size_t i = 0;

    if (!shown)
        return true;
    while (i < shown->bitmap_count && strcmp(shown->bitmaps[i], bitmap) != 0)
        i++;
    return i < shown->bitmap_count;
}

/* What its image marked as not to be relied on tells nobody anything. */
static int collect(const struct blk_bitmap *all, size_t count, const struct nbd_shown *shown,
                   struct nbd_contexts *list)
{
    for (size_t i = 0; i < count && list->bitmaps < ARRAY_LEN(list->bitmap); i++) {
        if (all[i].inconsistent || all[i].foreign || !is_shown(shown, all[i].name))
            continue;
        list->bitmap[list->bitmaps] = mem_strdup(all[i].name);
        if (!list->bitmap[list->bitmaps])
            return -ENOMEM;
        list->bitmaps++;
    }
    return 0;
}

int co_nbd_contexts_of(struct blk_device *dev, const struct nbd_shown *shown,
                       struct nbd_contexts **out)
{
    struct blk_error e = {0};
    struct blk_bitmap *all = NULL;
    struct nbd_contexts *list;
    size_t count = 0;
    int rc;

    *out = NULL;
    if (co_blk_bitmap_list(dev, &all, &count, &e) < 0 && !shown)
        return 0;
    list = mem_zalloc(sizeof(*list));
    rc = -ENOMEM;
    if (list) {
        list->refs = 1;
        list->no_depth = shown && !shown->depth;
        rc = collect(all, count, shown, list);
    }
    blk_bitmaps_drop(all, count);
    if (rc < 0)
        nbd_contexts_drop(list);
    else
        *out = list;
    return rc;
}

unsigned nbd_contexts_count(const struct nbd_contexts *list)
{
    return NBD_FIRST_BITMAP + (list ? list->bitmaps : 0);
}

const char *nbd_context_kind(unsigned index)
{
    static const char *const kinds[] = {"base:allocation", "qemu:allocation-depth",
                                        "qemu:dirty-bitmap:"};

    return kinds[MIN(index, (unsigned)NBD_FIRST_BITMAP)];
}

const char *nbd_context_rest(const struct nbd_contexts *list, unsigned index)
{
    assert(index < nbd_contexts_count(list));
    return index < NBD_FIRST_BITMAP ? "" : list->bitmap[index - NBD_FIRST_BITMAP];
}

bool nbd_context_meant(const struct nbd_contexts *list, unsigned index, const void *query,
                       size_t bytes, bool listing)
{
    const char *kind = nbd_context_kind(index), *rest = nbd_context_rest(list, index);
    size_t kind_bytes = strlen(kind), rest_bytes = strlen(rest);
    if (bytes == kind_bytes + rest_bytes && memcmp(query, kind, kind_bytes) == 0 &&
        memcmp((const char *)query + kind_bytes, rest, rest_bytes) == 0)
        return true;
    return listing && bytes > 0 && bytes <= kind_bytes && memcmp(query, kind, bytes) == 0 &&
           kind[bytes - 1] == ':';
}

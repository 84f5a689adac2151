/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_opened.c - thin pools and arrays that are open: once for all volumes of a set that stand on
 * them. What stands on another one comes behind it in the list, so all are closed from the end. */
#include "volumes/lvm.h"

const struct lvm_opened *lvm_opened_find(const struct lvm_set *s, const struct lvm_lv *lv)
{
    for (size_t i = 0; i < s->opened_count; i++)
        if (s->opened[i].lv == lv)
            return &s->opened[i];
    return NULL;
}

int co_lvm_opened_add(const struct lvm_opening *o, const struct lvm_opened *one)
{
    struct lvm_set *s = o->set;
    struct lvm_opened *grown = mem_resize(s->opened, (s->opened_count + 1) * sizeof(*grown));
    assert_held(&s->opening);
    if (!grown) {
        co_blk_close(one->dev, NULL);
        return err_set(o->e, -ENOMEM, "out of memory");
    }
    s->opened = grown;
    s->opened[s->opened_count++] = *one;
    return 0;
}

int co_lvm_opened_close(struct lvm_set *s, struct blk_error *e)
{
    int rc = 0;
    while (s->opened_count > 0) {
        int one = co_blk_close(s->opened[--s->opened_count].dev, rc ? NULL : e);
        rc = rc ? rc : one;
    }
    mem_free(take(s->opened));
    return rc;
}

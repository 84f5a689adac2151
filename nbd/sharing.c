/* SPDX-License-Identifier: BSD-3-Clause */
/* sharing.c - named groups of exports that share. */
#include "nbd/sharing.h"

int nbd_group_get(struct nbd_sharing *all, const char *name, struct nbd_group **out)
{
    struct nbd_group **at = &all->first, *g;

    for (; *at; at = &(*at)->next)
        if (strcmp((*at)->name, name) == 0) {
            *out = *at;
            return 0;
        }
    g = mem_zalloc(sizeof(*g));
    if (g) {
        g->name = mem_strdup(name);
        g->share = share_group_new(&(struct share_budget){0});
    }
    if (!g || !g->name || !g->share) {
        if (g) {
            share_group_free(g->share);
            mem_free(g->name);
        }
        mem_free(g);
        return -ENOMEM;
    }
    *out = *at = g;
    return 0;
}

struct nbd_group *nbd_group_of(const struct nbd_sharing *all, const struct nbd_export *x)
{
    struct share *s = x->share;

    for (struct nbd_group *g = all->first; g && s; g = g->next)
        if (g->share == share_group_of(s))
            return g;
    return NULL;
}

int nbd_share_set(struct nbd_sharing *all, struct nbd_export *x, const char *group,
                  const struct share_wish *w, struct blk_error *e)
{
    struct nbd_group *g = group ? NULL : nbd_group_of(all, x);
    struct share *s = x->share;
    int rc = g ? 0 : nbd_group_get(all, group ? group : "", &g);

    if (rc < 0)
        return err_set(e, rc, "out of memory");
    if (s) {
        share_move(s, g->share);
        share_set(s, w);
        return 0;
    }
    s = share_join(g->share, w);
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    x->share = s;
    return 0;
}

void nbd_sharing_drop(struct nbd_sharing *all)
{
    while (all->first) {
        struct nbd_group *g = all->first;

        all->first = g->next;
        share_group_free(g->share);
        mem_free(g->name);
        mem_free(g);
    }
}

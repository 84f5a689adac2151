/* SPDX-License-Identifier: BSD-3-Clause */
/* part.c - a list of partitions, and what the drivers answer from it. */
#include <stdio.h>

#include "volumes/part.h"

const char *const part_sector_sizes[] = {"512", "4096", NULL};

struct part *part_add(struct part_table *t)
{
    struct part *grown = mem_resize(t->list, (t->count + 1) * sizeof(*grown));
    if (!grown)
        return NULL;
    t->list = grown;
    grown[t->count] = (struct part){0};
    return &grown[t->count++];
}

void part_forget_all(struct part_table *t)
{
    for (size_t i = 0; i < t->count; i++)
        mem_free(t->list[i].label);
    mem_free(take(t->list));
    t->count = 0;
}

const struct part *part_find(const struct part_table *t, const char *name)
{
    char own[16];
    for (size_t i = 0; i < t->count; i++) { /* each has one name: p01 would be a second */
        snprintf(own, sizeof(own), "p%u", t->list[i].number);
        if (strcmp(own, name) == 0)
            return &t->list[i];
    }
    return NULL;
}

const struct part *part_last(const struct part_table *t)
{
    const struct part *last = NULL;
    for (size_t i = 0; i < t->count; i++)
        if (!last || t->list[i].offset >= last->offset)
            last = &t->list[i];
    return last;
}

uint64_t part_next_start(const struct part_table *t, const struct part *p, uint64_t end)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->list[i].offset > p->offset)
            end = MIN(end, t->list[i].offset);
    return end;
}

/* --- what drivers answer ------------------------------------------------------------------------
 */

int co_part_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                       struct blk_error *e)
{
    const struct part_table *t = dev->state;
    struct blk_inner *list = mem_array(MAX(t->count, 1), sizeof(*list));
    size_t n = 0;
    bool ok = list;
    for (size_t i = 0; ok && i < t->count; i++) {
        const struct part *p = &t->list[i];
        if (p->is_container)
            continue;
        list[n] = (struct blk_inner){.name = mem_printf("p%u", p->number),
                                     .kind = mem_strdup("partition"),
                                     .bytes = p->bytes};
        ok = list[n].name && list[n].kind;
        n++;
    }
    if (!ok) {
        blk_inner_drop(list, list ? n : 0);
        return err_set(e, -ENOMEM, "out of memory");
    }
    *out = list;
    *count = n;
    return 0;
}

int co_part_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                       struct blk_error *e)
{
    const struct part_table *t = container->state;
    const struct part *p = part_find(t, name);
    if (!p)
        return err_set(e, -ENOENT,
                       "the partition table (%s) has no partition \"%.60s\"; they are called p1, "
                       "p2, ...",
                       t->scheme, name);
    if (!range_fits(p->offset, p->bytes, t->file->size))
        return err_bad(e, -EINVAL,
                       "%s, %" PRIu64 " bytes from %" PRIu64
                       " on, reaches past the end of the disk (%" PRIu64 " bytes)",
                       name, p->bytes, p->offset, t->file->size);
    int rc = blk_show_slice(dev, t->file, p->offset, p->bytes);
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

static json_t *part_facts(const struct part *p)
{
    char name[16];
    snprintf(name, sizeof(name), "p%u", p->number);
    json_t *facts = json_pack("{s:s, s:I, s:I, s:s}", "name", name, "start", (json_int_t)p->offset,
                              "size", (json_int_t)p->bytes, "type", p->type);
    int rc = facts ? 0 : -1;
    if (rc == 0 && p->type_title)
        rc = json_object_set_new(facts, "type-name", json_string(p->type_title));
    if (rc == 0 && p->uuid[0])
        rc = json_object_set_new(facts, "uuid", json_string(p->uuid));
    if (rc == 0 && p->label)
        rc = json_object_set_new(facts, "label", json_from_text(p->label));
    if (rc < 0)
        json_decref(take(facts));
    return facts;
}

int co_part_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct part_table *t = dev->state;
    json_t *list = json_array();
    json_t *facts = json_pack("{s:s, s:I, s:o}", "table", t->scheme, "sector-size",
                              (json_int_t)t->sector_bytes, "partitions", list);
    int rc = facts ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < t->count; i++)
        rc = json_array_append_new(list, part_facts(&t->list[i]));
    if (rc < 0) {
        json_decref(facts);
        return err_set(e, -ENOMEM, "out of memory");
    }
    out->virtual_size = t->file->size;
    out->specific = facts;
    return 0;
}

/* A table is no disk: what is inside is named. */
int co_part_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return -EINVAL;
}

int co_part_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags)
{
    return -EINVAL;
}

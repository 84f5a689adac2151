/* SPDX-License-Identifier: BSD-3-Clause */
/* gpt.c - the driver of GUID partition tables: finds the copy that counts, and says when the other
 * one is damaged.
 *
 * The first copy counts if it is sound, else the one in the last sector. How long sectors are
 * nobody told: 512 and 4096 are tried. */
#include "volumes/gpt.h"
#include "block/resolver.h"
#include "volumes/mbr.h"

static const uint32_t sector_sizes[] = {512, 4096};

/* --- reading ------------------------------------------------------------------------------------
 */

static uint64_t sectors_of(const struct gpt *g)
{
    return g->t.file->size / g->t.sector_bytes;
}

/* One copy, checked. *entries: mem_free() it. */
static int co_read_copy(const struct gpt *g, uint64_t at, struct gpt_header *h, uint8_t **entries,
                        struct blk_error *e)
{
    uint32_t sector = g->t.sector_bytes;
    auto_free uint8_t *raw = mem_aligned(sector);
    *entries = NULL;
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    if (at >= sectors_of(g))
        return err_set(e, -ENODATA, "sector %" PRIu64 " lies past the end of the disk", at);
    int rc = co_blk_read_buf(g->t.file, at * sector, raw, sector);
    if (rc < 0)
        return err_errno(e, rc, "sector %" PRIu64 " cannot be read", at);
    TRY(gpt_header_parse(raw, sector, at, sectors_of(g), h, e));
    uint64_t bytes = gpt_entries_bytes(h);
    uint8_t *list = mem_aligned(bytes);
    if (!list)
        return err_set(e, -ENOMEM, "out of memory");
    rc = co_blk_read_buf(g->t.file, h->entries_at * sector, list, bytes);
    if (rc < 0)
        rc = err_errno(e, rc, "the entries at sector %" PRIu64 " cannot be read", h->entries_at);
    else if (gpt_crc(list, bytes) != h->entries_crc)
        rc = err_bad(e, -EINVAL, "the checksum of the entries at sector %" PRIu64 " is wrong",
                     h->entries_at);
    if (rc < 0)
        mem_free(list);
    else
        *entries = list;
    return rc;
}

/* Both copies with sectors of the size that is set. */
static int co_read_both(struct gpt *g, struct blk_error *e)
{
    struct gpt_header other;
    struct blk_error why = {0};
    uint8_t *entries = NULL;
    int rc = co_read_copy(g, 1, &g->header, &g->entries, e);
    g->first_good = rc == 0;
    uint64_t at = g->first_good ? g->header.other : sectors_of(g) - 1;
    int second = co_read_copy(g, at, &other, &entries, &why);
    g->second_good = second == 0;
    if (rc == -ENOMEM || second == -ENOMEM) {
        mem_free(entries);
        return err_set(e, -ENOMEM, "out of memory");
    }
    if (!g->first_good && !g->second_good)
        return rc;
    const char *text = g->first_good ? why.text : e->text;
    memcpy(g->damage, text, MIN(strlen(text), sizeof(g->damage) - 1));
    if (!g->first_good) {
        g->header = other;
        g->entries = entries;
        g->from_second = true;
        *e = (struct blk_error){0};
        return 0;
    }
    mem_free(entries);
    return 0;
}

static int co_find_table(struct gpt *g, struct blk_error *e)
{
    struct blk_error first = {0};
    for (size_t i = 0; i < ARRAY_LEN(sector_sizes); i++) {
        g->t.sector_bytes = sector_sizes[i];
        if (g->t.file->size < 6 * sector_sizes[i])
            continue;
        int rc = co_read_both(g, e);
        if (rc == 0 || rc == -ENOMEM)
            return rc;
        if (first.rc == 0 || rc != -ENODATA)
            first = *e;
    }
    if (first.rc == 0)
        return err_set(e, -EINVAL, "the disk is too small for a partition table");
    return err_bad(e, -EINVAL,
                   "both copies of the partition table (GPT) are damaged or not there: %s",
                   first.text);
}

static void say_damage(const struct gpt *g, struct blk_opener *opener)
{
    if (g->from_second)
        opener_say(opener,
                   "%s: the first copy of the partition table is damaged (%s); the one at "
                   "the end is used",
                   g->t.file->name, g->damage);
    else if (!g->second_good)
        opener_say(opener, "%s: the partition table's second copy is damaged (%s)", g->t.file->name,
                   g->damage);
}

static void drop(struct gpt *g)
{
    part_forget_all(&g->t);
    mem_free(g->entries);
    mem_free(g);
}

static int co_gpt_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    struct gpt *g = mem_zalloc(sizeof(*g));
    if (!g)
        return err_set(e, -ENOMEM, "out of memory");
    g->t = (struct part_table){.file = file, .scheme = "gpt"};
    int rc = co_find_table(g, e);
    if (rc == 0 && (rc = gpt_list(g)) < 0)
        err_set(e, rc, "out of memory");
    if (rc < 0) {
        drop(g);
        return rc;
    }
    say_damage(g, opener);
    dev->state = g;
    return 0;
}

static int co_gpt_close(struct blk_device *dev, struct blk_error *e)
{
    drop(dev->state);
    return 0;
}

/* --- facts --------------------------------------------------------------------------------------
 */

static int co_gpt_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct gpt *g = dev->state;
    char uuid[UUID_TEXT];
    TRY(co_part_info(dev, out, e));
    uuid_text(g->header.disk, uuid);
    uint64_t second_at = g->from_second ? g->header.own : g->header.other;
    int rc = json_object_set_new(out->specific, "uuid", json_string(uuid));
    rc |= json_object_set_new(out->specific, "first-copy",
                              json_string(g->first_good ? "good" : "damaged"));
    rc |= json_object_set_new(out->specific, "second-copy",
                              json_string(g->second_good ? "good" : "damaged"));
    rc |= json_object_set_new(out->specific, "second-copy-at-end",
                              json_boolean(second_at == sectors_of(g) - 1));
    return rc < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static bool header_at(const uint8_t *bytes, size_t count, size_t at, uint32_t sector)
{
    struct gpt_header_disk d;
    if (!range_fits(at, sector, count))
        return false;
    memcpy(&d, bytes + at, sizeof(d));
    return memcmp(d.signature, "EFI PART", sizeof(d.signature)) == 0;
}

/* Somebody wrote another table over it since. */
static bool is_replaced(const struct mbr_disk *m)
{
    return mbr_is_sane(m) && mbr_is_used(m) && !mbr_has_type(m, MBR_GPT);
}

static int gpt_probe(const struct blk_probe *p, const char **reason)
{
    struct mbr_disk m;
    *reason = "a partition table (GPT)";
    if (p->head_bytes < sizeof(m))
        return 0;
    memcpy(&m, p->head, sizeof(m));
    if (is_replaced(&m))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(sector_sizes); i++)
        if (header_at(p->head, p->head_bytes, sector_sizes[i], sector_sizes[i]))
            return 90;
    for (size_t i = 0; i < ARRAY_LEN(sector_sizes); i++)
        if (p->tail_bytes >= sector_sizes[i] &&
            header_at(p->tail, p->tail_bytes, p->tail_bytes - sector_sizes[i], sector_sizes[i]))
            return 70;
    return mbr_is_sane(&m) && mbr_has_type(&m, MBR_GPT) ? 60 : 0;
}

const struct blk_driver gpt_driver = {
    .name = "gpt",
    .title = "partitions, as a GUID partition table lists them",
    .mend = "programs like testdisk find where partitions begin and end; "
            "driver=slice,offset=BYTES,size=BYTES,file.filename=FILE (with --image-opts) opens one "
            "by that",
    .only_inner = true,
    .create_options = gpt_create_options,
    .inner_options = gpt_inner_options,
    .probe = gpt_probe,
    .co_create = co_gpt_create,
    .co_open = co_gpt_open,
    .co_close = co_gpt_close,
    .co_inner_list = co_part_inner_list,
    .co_inner_open = co_part_inner_open,
    .co_inner_add = co_gpt_add,
    .co_inner_delete = co_gpt_delete,
    .co_inner_grow = co_gpt_grow,
    .co_read = co_part_read,
    .co_write = co_part_write,
    .co_info = co_gpt_info,
};

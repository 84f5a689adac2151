/* SPDX-License-Identifier: BSD-3-Clause */
/* hdd_descriptor.c - DiskDescriptor.xml: parts, images, snapshots. Only leaves count; which one it
 * is, the two names above the text say. */
#include <stdio.h>

#include "imgfmt/hdd.h"
#include "imgfmt/xml.h"

#define NIL_GUID  "{00000000-0000-0000-0000-000000000000}"
#define TOP_GUID  "{5fbaabe3-6958-40ff-92a7-860e329aab41}" /* where the text names none */
#define LEAF_MOST 4096
#define LEVELS    64 /* xml.c allows no more */

struct parse {
    struct hdd_descriptor *d;
    struct blk_error *e;
    char names[LEVELS][24]; /* of the elements that are open, cut short */
    unsigned depth;
    char text[LEAF_MOST];
    size_t used;
    size_t part_room, shot_room, image_room;
};

/* --- leaves --- */

static int take_sectors(struct parse *p, uint64_t *bytes)
{
    uint64_t n = 0;
    const char *c = p->text;
    for (; *c >= '0' && *c <= '9'; c++)
        if (!mul_u64(n, 10, &n) || !add_u64(n, (uint64_t)(*c - '0'), &n))
            break;
    if (*c || c == p->text || n > INT64_MAX / 512)
        return err_bad(p->e, -EINVAL, "the descriptor's %s is no number of sectors: %.40s",
                       p->names[p->depth - 1], p->text);
    *bytes = n * 512;
    return 0;
}

static int take_guid(struct parse *p, char to[HDD_GUID])
{
    if (strlen(p->text) != HDD_GUID - 1)
        return err_bad(p->e, -EINVAL, "the descriptor's %s is no GUID: %.60s",
                       p->names[p->depth - 1], p->text);
    for (size_t i = 0; i < HDD_GUID; i++) /* of either case */
        to[i] = p->text[i] >= 'A' && p->text[i] <= 'F' ? p->text[i] + 32 : p->text[i];
    return 0;
}

static struct hdd_part *part(struct parse *p)
{
    return p->d->part_count ? &p->d->parts[p->d->part_count - 1] : NULL;
}

static struct hdd_image *image(struct parse *p)
{
    struct hdd_part *s = part(p);
    return s && s->count ? &s->images[s->count - 1] : NULL;
}

static int take_type(struct parse *p)
{
    image(p)->plain = strcmp(p->text, "Plain") == 0;
    if (image(p)->plain || strcmp(p->text, "Compressed") == 0)
        return 0;
    return err_bad(p->e, -ENOTSUP, "images of type '%.40s' are unknown", p->text);
}

static int take_file(struct parse *p)
{
    if (image(p)->file || !*p->text)
        return err_bad(p->e, -EINVAL, "the descriptor has an image with %s file",
                       *p->text ? "a second" : "no");
    image(p)->file = mem_strdup(p->text);
    return image(p)->file ? 0 : err_set(p->e, -ENOMEM, "out of memory");
}

static int take_leaf(struct parse *p, const char *in, const char *name)
{
    struct hdd_descriptor *d = p->d;
    struct hdd_shot *shot = d->shot_count ? &d->shots[d->shot_count - 1] : NULL;
    if (strcmp(in, "Disk_Parameters") == 0 && strcmp(name, "Disk_size") == 0)
        return take_sectors(p, &d->bytes);
    if (strcmp(in, "Disk_Parameters") == 0 && strcmp(name, "Padding") == 0)
        d->padded = strcmp(p->text, "0") != 0;
    if (strcmp(in, "Encryption") == 0 && strcmp(name, "Engine") == 0)
        d->encrypted = *p->text && strcmp(p->text, NIL_GUID) != 0;
    if (strcmp(in, "Storage") == 0 && part(p) && strcmp(name, "Start") == 0)
        return take_sectors(p, &part(p)->begin);
    if (strcmp(in, "Storage") == 0 && part(p) && strcmp(name, "End") == 0)
        return take_sectors(p, &part(p)->end);
    if (strcmp(in, "Image") == 0 && image(p) && strcmp(name, "GUID") == 0)
        return take_guid(p, image(p)->guid);
    if (strcmp(in, "Image") == 0 && image(p) && strcmp(name, "Type") == 0)
        return take_type(p);
    if (strcmp(in, "Image") == 0 && image(p) && strcmp(name, "File") == 0)
        return take_file(p);
    if (strcmp(in, "Snapshots") == 0 && strcmp(name, "TopGUID") == 0)
        return take_guid(p, d->top);
    if (strcmp(in, "Shot") == 0 && shot && strcmp(name, "GUID") == 0)
        return take_guid(p, shot->guid);
    if (strcmp(in, "Shot") == 0 && shot && strcmp(name, "ParentGUID") == 0)
        return take_guid(p, shot->parent);
    return 0;
}

/* --- elements --- */

/* A zeroed one more at the end of *array. */
static int add(struct parse *p, void **array, size_t *count, size_t *room, size_t each, size_t most)
{
    if (*count == most)
        return err_bad(p->e, -EFBIG, "the descriptor names more than %zu %ss", most,
                       p->names[p->depth - 1]);
    if (*count == *room) {
        void *grown = mem_resize(*array, (*room + 16) * each);
        if (!grown)
            return err_set(p->e, -ENOMEM, "out of memory");
        *array = grown;
        *room += 16;
    }
    memset((uint8_t *)*array + *count * each, 0, each);
    ++*count;
    return 0;
}

static int on_start(void *arg, const char *name, const char **attributes)
{
    struct parse *p = arg;
    struct hdd_descriptor *d = p->d;
    const char *in = p->depth ? p->names[p->depth - 1] : "";
    (void)attributes;
    assert(p->depth < LEVELS);
    if (p->depth == 0 && strcmp(name, "Parallels_disk_image") != 0)
        return err_set(p->e, -EINVAL, "not a Parallels disk descriptor: it is a <%.40s>", name);
    snprintf(p->names[p->depth++], sizeof(p->names[0]), "%s", name);
    p->used = 0;
    p->text[0] = '\0';
    if (strcmp(name, "Storage") == 0) {
        p->image_room = 0;
        return add(p, (void **)&d->parts, &d->part_count, &p->part_room, sizeof(*d->parts),
                   HDD_PARTS_MOST);
    }
    if (strcmp(name, "Shot") == 0)
        return add(p, (void **)&d->shots, &d->shot_count, &p->shot_room, sizeof(*d->shots),
                   HDD_SHOTS_MOST);
    if (strcmp(name, "Image") == 0 && strcmp(in, "Storage") == 0)
        return add(p, (void **)&part(p)->images, &part(p)->count, &p->image_room,
                   sizeof(struct hdd_image), HDD_SHOTS_MOST);
    return 0;
}

static int on_text(void *arg, const char *text, size_t bytes)
{
    struct parse *p = arg;
    if (p->used + bytes >= sizeof(p->text)) /* nothing that counts is so long */
        bytes = sizeof(p->text) - 1 - p->used;
    memcpy(p->text + p->used, text, bytes);
    p->used += bytes;
    p->text[p->used] = '\0';
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int on_end(void *arg, const char *name)
{
    struct parse *p = arg;
    size_t from = 0;
    while (p->used && is_blank(p->text[p->used - 1]))
        p->text[--p->used] = '\0';
    while (is_blank(p->text[from]))
        from++;
    memmove(p->text, p->text + from, p->used + 1 - from);
    int rc = p->depth > 1 ? take_leaf(p, p->names[p->depth - 2], name) : 0;
    p->depth--;
    p->used = 0;
    p->text[0] = '\0';
    return rc;
}

int co_hdd_descriptor_read(struct blk_device *file, struct hdd_descriptor *out, struct blk_error *e)
{
    *out = (struct hdd_descriptor){.top = TOP_GUID};
    if (file->size > HDD_TEXT_MOST)
        return err_bad(e, -EFBIG, "%" PRIu64 " bytes are too many for a descriptor", file->size);
    auto_free struct parse *p = mem_zalloc(sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    p->d = out;
    p->e = e;
    struct xml_handler h = {.start = on_start, .end = on_end, .text = on_text, .arg = p};
    return co_xml_parse(file, 0, file->size, &h, e);
}

/* --- what it says --- */

const struct hdd_image *hdd_image_of(const struct hdd_part *part, const char *guid)
{
    for (size_t i = 0; i < part->count; i++)
        if (strcmp(part->images[i].guid, guid) == 0)
            return &part->images[i];
    return NULL;
}

const char *hdd_parent_of(const struct hdd_descriptor *d, const char *guid)
{
    for (size_t i = 0; i < d->shot_count; i++)
        if (strcmp(d->shots[i].guid, guid) == 0)
            return strcmp(d->shots[i].parent, NIL_GUID) != 0 && *d->shots[i].parent
                       ? d->shots[i].parent
                       : NULL;
    return NULL;
}

static int check_part(const struct hdd_descriptor *d, const struct hdd_part *part,
                      struct blk_error *e)
{
    const char *guid = d->top;
    for (size_t layers = 0; guid; guid = hdd_parent_of(d, guid)) {
        const struct hdd_image *i = hdd_image_of(part, guid);
        if (!i || !i->file)
            return err_bad(e, -EINVAL, "the descriptor names no image file for %s", guid);
        if (i->plain && hdd_parent_of(d, guid))
            return err_bad(e, -EINVAL, "%.200s is plain, and yet has a parent", i->file);
        if (++layers > part->count)
            return err_bad(e, -EINVAL, "the snapshots go round in circles");
    }
    return 0;
}

int hdd_descriptor_check(const struct hdd_descriptor *d, struct blk_error *e)
{
    uint64_t at = 0;
    if (d->encrypted)
        return err_set(e, -ENOTSUP,
                       "the disk is encrypted by Parallels, in a way that is not documented: "
                       "decrypt it there first");
    if (d->padded)
        return err_bad(e, -ENOTSUP,
                       "the descriptor's Padding is not 0, and what that means is not documented");
    if (d->part_count == 0)
        return err_bad(e, -EINVAL, "the descriptor names no storage");
    for (size_t i = 0; i < d->part_count; i++) {
        const struct hdd_part *p = &d->parts[i];
        if (p->begin != at || p->end <= at)
            return err_bad(e, -EINVAL,
                           "storage %zu begins at %" PRIu64 ", the one before ends at "
                           "%" PRIu64,
                           i, p->begin, at);
        TRY(check_part(d, p, e));
        at = p->end;
    }
    if (at != d->bytes)
        return err_bad(e, -EINVAL, "the storages have %" PRIu64 " bytes, the disk %" PRIu64, at,
                       d->bytes);
    return 0;
}

/* --- another size --- */

/* Where the last number between <@name> and </@name> lies in @text; NULL: nowhere. */
static const char *last_number(const char *text, const char *name, size_t *length)
{
    char end[32];
    const char *found = NULL;
    snprintf(end, sizeof(end), "</%s>", name);
    for (const char *c = text; (c = strstr(c, end)); c++)
        found = c;
    if (!found)
        return NULL;
    const char *from = found;
    while (from > text && from[-1] != '>')
        from--;
    *length = (size_t)(found - from);
    return from > text ? from : NULL;
}

/* The same text with @number there; NULL: no such element, or no memory. Takes @text. */
static char *with_number(char *text, const char *name, uint64_t number)
{
    auto_free char *before = text;
    size_t length;
    const char *at = before ? last_number(before, name, &length) : NULL;
    return at ? mem_printf("%.*s%" PRIu64 "%s", (int)(at - before), before, number, at + length)
              : NULL;
}

int co_hdd_descriptor_resize(struct blk_device *file, uint64_t bytes, struct blk_error *e)
{
    uint64_t length = file->size, track = 16 * 32 * 512;
    assert(length <= HDD_TEXT_MOST); /* it was read when the disk was opened */
    char *text = mem_zalloc(length + 1);
    int rc = text ? co_blk_read_buf(file, 0, text, length) : -ENOMEM;
    if (rc < 0) {
        mem_free(text);
        return err_errno(e, rc, "the descriptor cannot be read");
    }
    text = with_number(text, "Disk_size", bytes / 512);
    text = with_number(text, "End", bytes / 512);
    text = with_number(text, "Cylinders", bytes % track ? bytes / 512 : bytes / track);
    text = with_number(text, "Heads", bytes % track ? 1 : 16);
    auto_free char *now = with_number(text, "Sectors", bytes % track ? 1 : 32);
    if (!now)
        return err_set(e, -EINVAL, "the descriptor lacks a number that the size stands in");
    if (strlen(now) > length)
        TRY(co_blk_resize(file, strlen(now), true, e));
    rc = co_blk_write_buf(file, 0, now, strlen(now), 0);
    if (rc == 0)
        rc = co_blk_flush(file);
    if (rc < 0)
        return err_errno(e, rc, "the descriptor cannot be written");
    return strlen(now) < length ? co_blk_resize(file, strlen(now), true, e) : 0;
}

void hdd_descriptor_drop(struct hdd_descriptor *d)
{
    for (size_t i = 0; i < d->part_count; i++) {
        for (size_t k = 0; k < d->parts[i].count; k++)
            mem_free(d->parts[i].images[k].file);
        mem_free(d->parts[i].images);
    }
    mem_free(take(d->parts));
    mem_free(take(d->shots));
    d->part_count = d->shot_count = 0;
}

/* --- a new one --- */

/* Text between tags. */
static char *escaped(const char *text)
{
    size_t bytes = 1;
    for (const char *c = text; *c; c++)
        bytes += 5;
    char *out = mem_alloc(bytes), *to = out;
    for (const char *c = text; out && *c; c++) {
        const char *word = *c == '&' ? "&amp;" : *c == '<' ? "&lt;" : *c == '>' ? "&gt;" : NULL;
        if (word) {
            strcpy(to, word);
            to += strlen(word);
        } else {
            *to++ = *c;
        }
    }
    if (out)
        *to = '\0';
    return out;
}

char *hdd_descriptor_text(const struct hdd_new *n)
{
    auto_free char *file = escaped(n->file);
    auto_free char *name = escaped(n->name);
    if (!file || !name)
        return NULL;
    return mem_printf("<?xml version='1.0' encoding='UTF-8'?>\n"
                      "<Parallels_disk_image Version=\"1.0\">\n"
                      "    <Disk_Parameters>\n"
                      "        <Disk_size>%" PRIu64 "</Disk_size>\n"
                      "        <Cylinders>%" PRIu64 "</Cylinders>\n"
                      "        <Heads>%u</Heads>\n"
                      "        <Sectors>%u</Sectors>\n"
                      "        <Padding>0</Padding>\n"
                      "        <Name>%s</Name>\n"
                      "    </Disk_Parameters>\n"
                      "    <StorageData>\n"
                      "        <Storage>\n"
                      "            <Start>0</Start>\n"
                      "            <End>%" PRIu64 "</End>\n"
                      "            <Blocksize>%" PRIu64 "</Blocksize>\n"
                      "            <Image>\n"
                      "                <GUID>" TOP_GUID "</GUID>\n"
                      "                <Type>%s</Type>\n"
                      "                <File>%s</File>\n"
                      "            </Image>\n"
                      "        </Storage>\n"
                      "    </StorageData>\n"
                      "    <Snapshots>\n"
                      "        <Shot>\n"
                      "            <GUID>" TOP_GUID "</GUID>\n"
                      "            <ParentGUID>" NIL_GUID "</ParentGUID>\n"
                      "        </Shot>\n"
                      "    </Snapshots>\n"
                      "</Parallels_disk_image>\n",
                      n->bytes / 512, n->cylinders, n->heads, n->sectors, name, n->bytes / 512,
                      n->cluster_bytes / 512, n->plain ? "Plain" : "Compressed", file);
}

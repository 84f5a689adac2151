/* SPDX-License-Identifier: BSD-3-Clause */
/* ova_ovf.c - what an OVF description says of disks: its File and Disk elements, wherever they are.
 * The rest of it (machines, networks) is nothing to a storage engine. */
#include <stdlib.h>

#include "imgfmt/ova.h"
#include "imgfmt/xml.h"

#define OVF_MAX (16 * MiB)

struct parse {
    struct ovf *ovf;
    struct blk_error *e;
};

static int number(const char *text, uint64_t *out)
{
    *out = 0;
    for (; *text; text++)
        if (*text < '0' || *text > '9' || !mul_u64(*out, 10, out) ||
            !add_u64(*out, (uint64_t)(*text - '0'), out))
            return -EINVAL;
    return 0;
}

/* "byte * 2^N"; also the older names of units. */
int ovf_parse_unit(const char *text, uint64_t *bytes)
{
    static const struct {
        const char *name;
        unsigned bits;
    } names[] = {{"byte", 0},       {"bytes", 0},      {"KiloBytes", 10},
                 {"MegaBytes", 20}, {"GigaBytes", 30}, {"TeraBytes", 40}};
    unsigned bits;
    char rest;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcasecmp(text, names[i].name) == 0) {
            *bytes = 1ULL << names[i].bits;
            return 0;
        }
    }
    if (sscanf(text, "byte * 2^%2u%c", &bits, &rest) != 1 || bits > 60)
        return -EINVAL;
    *bytes = 1ULL << bits;
    return 0;
}

static int copy(const char **attributes, const char *name, char **out)
{
    const char *value = xml_attribute(attributes, name);
    if (!value)
        return 0;
    if (strlen(value) > TAR_NAME_MAX)
        return -EFBIG;
    *out = mem_strdup(value);
    return *out ? 0 : -ENOMEM;
}

/* Room for one more; false: no memory. */
static bool grow(void **array, size_t count, size_t *room, size_t each)
{
    if (count < *room)
        return true;
    size_t more = MAX(2 * *room, 16);
    void *grown = mem_resize(*array, more * each);
    if (!grown)
        return false;
    *array = grown;
    *room = more;
    return true;
}

static int on_file(struct parse *p, const char **a)
{
    struct ovf *o = p->ovf;
    const char *size = xml_attribute(a, "size"), *chunk = xml_attribute(a, "chunkSize");
    const char *packed = xml_attribute(a, "compression");
    if (o->file_count == TAR_FILES_MAX)
        return err_bad(p->e, -EFBIG, "the description names too many files");
    if (!grow((void **)&o->files, o->file_count, &o->file_room, sizeof(*o->files)))
        return err_set(p->e, -ENOMEM, "out of memory");
    struct ovf_file *f = &o->files[o->file_count++];
    *f = (struct ovf_file){.bytes = UINT64_MAX};
    f->gzip = packed && strcmp(packed, "gzip") == 0;
    f->other = packed && !f->gzip && *packed && strcmp(packed, "identity") != 0;
    int rc = copy(a, "id", &f->id);
    if (rc == 0)
        rc = copy(a, "href", &f->href);
    if (rc == 0 && size)
        rc = number(size, &f->bytes);
    if (rc == 0 && chunk)
        rc = number(chunk, &f->chunk_bytes);
    return rc < 0 ? err_errno(p->e, rc, "the description has a broken File element") : 0;
}

static int on_disk(struct parse *p, const char **a)
{
    struct ovf *o = p->ovf;
    const char *capacity = xml_attribute(a, "capacity");
    const char *unit = xml_attribute(a, "capacityAllocationUnits");
    uint64_t each = 1;
    if (o->disk_count == OVA_DISKS_MAX)
        return err_bad(p->e, -EFBIG, "the description names too many disks");
    if (!grow((void **)&o->disks, o->disk_count, &o->disk_room, sizeof(*o->disks)))
        return err_set(p->e, -ENOMEM, "out of memory");
    struct ovf_disk *d = &o->disks[o->disk_count++];
    *d = (struct ovf_disk){0};
    int rc = copy(a, "diskId", &d->id);
    if (rc == 0)
        rc = copy(a, "fileRef", &d->file_id);
    if (rc == 0)
        rc = copy(a, "format", &d->format);
    if (rc == 0)
        rc = copy(a, "parentRef", &d->parent);
    /* A capacity may also be the name of a property: then it is not known here. */
    if (rc == 0 && unit)
        rc = ovf_parse_unit(unit, &each);
    if (rc == 0 && (!capacity || number(capacity, &d->capacity) < 0 ||
                    !mul_u64(d->capacity, each, &d->capacity) || d->capacity > INT64_MAX))
        d->capacity = 0;
    return rc < 0 ? err_errno(p->e, rc, "the description has a broken Disk element") : 0;
}

static int on_start(void *arg, const char *name, const char **attributes)
{
    if (strcmp(name, "File") == 0 && xml_attribute(attributes, "href"))
        return on_file(arg, attributes);
    if (strcmp(name, "Disk") == 0 && xml_attribute(attributes, "diskId"))
        return on_disk(arg, attributes);
    return 0;
}

int co_ovf_read(struct blk_device *dev, const struct tar_file *at, struct ovf *out,
                struct blk_error *e)
{
    struct parse p = {out, e};
    struct xml_handler h = {.start = on_start, .arg = &p};
    if (at->bytes > OVF_MAX)
        return err_bad(e, -EFBIG, "a description of %" PRIu64 " bytes is too large", at->bytes);
    return co_xml_parse(dev, at->offset, at->bytes, &h, e);
}

void ovf_drop(struct ovf *o)
{
    for (size_t i = 0; i < o->file_count; i++) {
        mem_free(o->files[i].id);
        mem_free(o->files[i].href);
    }
    for (size_t i = 0; i < o->disk_count; i++) {
        mem_free(o->disks[i].id);
        mem_free(o->disks[i].file_id);
        mem_free(o->disks[i].format);
        mem_free(o->disks[i].parent);
    }
    mem_free(take(o->files));
    mem_free(take(o->disks));
    o->file_count = o->disk_count = 0;
}

const struct ovf_file *ovf_file_of(const struct ovf *o, const struct ovf_disk *d)
{
    for (size_t i = 0; d->file_id && i < o->file_count; i++)
        if (o->files[i].id && strcmp(o->files[i].id, d->file_id) == 0)
            return &o->files[i];
    return NULL;
}

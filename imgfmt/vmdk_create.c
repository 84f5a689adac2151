/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_create.c - new VMDK images: the file with grains, files with extents, and the text that
 * names them, last. */
#include <stdio.h>

#include "imgfmt/vmdk.h"

#define EXTENT_MAX  (2ULL * GiB)
#define PLACES_MOST (UINT32_MAX / 128ULL * VMDK_GRAIN) /* of 32-bit entries */

enum { SUB_SPARSE, SUB_FLAT, SUB_SPLIT_SPARSE, SUB_SPLIT_FLAT, SUB_STREAM, SUB_VMFS };
static const char *const subformats[] = {"monolithicSparse",
                                         "monolithicFlat",
                                         "twoGbMaxExtentSparse",
                                         "twoGbMaxExtentFlat",
                                         "streamOptimized",
                                         "vmfsSparse",
                                         NULL};
/* The kinds of extents, and what the names of their files are made of, with a number where there
 * may be several. */
static const struct {
    enum vmdk_extent_kind kind;
    const char *word;
    bool numbered;
} extents[] = {{VMDK_SPARSE, NULL, false}, {VMDK_FLAT, "flat", false},
               {VMDK_SPARSE, "s", true},   {VMDK_FLAT, "f", true},
               {VMDK_SPARSE, NULL, false}, {VMDK_VMFS_SPARSE, "delta", false}};

const struct opt_desc vmdk_create_options[] = {
    {.name = "adapter_type",
     .type = OPT_STRING,
     .preset = "ide",
     .help = "Virtual adapter type: ide, lsilogic, buslogic or legacyESX"},
    {.name = "backing_file", .type = OPT_STRING, .help = "File name of a base image"},
    {.name = "backing_fmt", .type = OPT_STRING, .help = "format of the base image: vmdk"},
    {.name = "compat6", .type = OPT_BOOL, .preset = "off", .help = "hardware version 6"},
    {.name = "hwversion", .type = OPT_STRING, .help = "virtual hardware version (default: 4)"},
    {.name = "toolsversion", .type = OPT_STRING, .help = "version of the guest's VMware tools"},
    {.name = "subformat",
     .type = OPT_ENUM,
     .choices = subformats,
     .preset = "monolithicSparse",
     .help = "how the disk is kept in files"},
    {.name = "zeroed_grain",
     .type = OPT_BOOL,
     .preset = "off",
     .help = "entries can say that a grain is zero"},
    {.name = "cid", .type = OPT_STRING, .help = "content id, eight hex digits (default: any)"},
    {0},
};

/* --- a sparse extent --- */

struct places {
    uint64_t tables, rgd, rgt, gd, gt, end;
};

static struct places places_for(uint64_t size, bool with_text)
{
    struct places p = {.tables = div_up(size, (uint64_t)VMDK_GRAIN * VMDK_TABLE)};
    uint64_t directory = align_up(p.tables * 4, VMDK_TABLE_BYTES);
    uint64_t tables = p.tables * VMDK_TABLE_BYTES;
    p.rgd = align_up(512 + (with_text ? VMDK_TEXT_ROOM : 0), VMDK_TABLE_BYTES);
    p.rgt = p.rgd + directory;
    p.gd = p.rgt + tables;
    p.gt = p.gd + directory;
    p.end = align_up(p.gt + tables, VMDK_GRAIN);
    return p;
}

static void fill_header(struct vmdk_header_disk *raw, const struct blk_create *c, uint64_t size,
                        const struct places *p, bool with_text)
{
    bool zeroed = opts_bool(c->opts, "zeroed_grain");
    *raw = (struct vmdk_header_disk){
        .magic = le32_of(c->fresh ? 0 : VMDK_MAGIC),
        .version = le32_of(zeroed ? 2 : 1),
        .flags = le32_of(VMDK_NEWLINES | VMDK_REDUNDANT | (zeroed ? VMDK_ZERO_GRAIN : 0)),
        .table_entries = le32_of(VMDK_TABLE),
        .newlines = {'\n', ' ', '\r', '\n'},
    };
    raw->capacity = le64_of(size / 512);
    raw->grain = le64_of(VMDK_GRAIN / 512);
    raw->descriptor_at = le64_of(with_text ? 1 : 0);
    raw->descriptor_size = le64_of(with_text ? VMDK_TEXT_ROOM / 512 : 0);
    raw->rgd_at = le64_of(p->rgd / 512);
    raw->gd_at = le64_of(p->gd / 512);
    raw->overhead = le64_of(p->end / 512);
}

static void fill_directory(uint8_t *raw, uint64_t count, uint64_t first)
{
    for (uint64_t i = 0; i < count; i++)
        vmdk_entry_put(raw + i * 4, first + i * VMDK_TABLE_BYTES);
}

static void fill_holes(const void *arg, uint64_t first, uint64_t count, void *to)
{
    memset(to, 0, count * 4);
}

/* @text NULL: an extent of several. */
static int co_create_sparse(const struct blk_create *c, uint64_t size, const char *text,
                            struct blk_error *e)
{
    struct places p = places_for(size, text);
    struct vmdk_header_disk raw;
    uint64_t directory = align_up(p.tables * 4, VMDK_TABLE_BYTES);
    auto_free uint8_t *gds = mem_zalloc(2 * directory + 1);
    auto_free char *room = mem_zalloc(VMDK_TEXT_ROOM);
    if (!gds || !room)
        return err_set(e, -ENOMEM, "out of memory");
    if (size > PLACES_MOST)
        return err_set(e, -EFBIG, "a sparse VMDK extent is smaller than 2 TiB");
    if (text && strlen(text) >= VMDK_TEXT_ROOM)
        return err_set(e, -EINVAL, "the names are too long for the descriptor");
    memcpy(room, text ? text : "", text ? strlen(text) : 0);
    fill_header(&raw, c, size, &p, text);
    fill_directory(gds, p.tables, p.rgt);
    fill_directory(gds + directory, p.tables, p.gt);
    struct map_units_piece pieces[] = {
        {p.rgd, gds, directory},
        {p.gd, gds + directory, directory},
        {512, room, VMDK_TEXT_ROOM},
    };
    struct map_units_image image = {
        .end = p.end,
        .table_offset = p.gt,
        .table_bytes = p.tables * VMDK_TABLE_BYTES,
        .entries = p.tables * VMDK_TABLE,
        .entry_bytes = 4,
        .fill = fill_holes,
        .zero_offset = p.rgt,
        .zero_bytes = p.tables * VMDK_TABLE_BYTES,
        .pieces = pieces,
        .piece_count = text ? 3 : 2,
        .last = {0, &raw, sizeof(raw)},
    };
    return co_map_units_create(c, &image, e);
}

/* --- the text --- */

struct plan {
    const struct blk_create *c;
    uint64_t size, sub;
    char *base;         /* the image's own name, without its folder */
    int stem;           /* of it, without the ending */
    const char *ending; /* with its dot */
    const char *parent; /* NULL: none */
    uint32_t cid, parent_cid;
    char *extents; /* lines */
};

static const struct {
    const char *name;
    unsigned heads;
} adapters[] = {{"ide", 16}, {"buslogic", 255}, {"lsilogic", 255}, {"legacyESX", 255}};

static char *text_of(const struct plan *p, unsigned heads)
{
    const struct opts *o = p->c->opts;
    const char *hardware = opts_text(o, "hwversion"), *tools = opts_text(o, "toolsversion");
    bool old = !hardware || !*hardware || strcmp(hardware, "undefined") == 0;
    auto_free char *hint =
        mem_printf(p->parent ? "parentFileNameHint=\"%s\"\n" : "", p->parent ? p->parent : "");
    if (!hint)
        return NULL;
    return mem_printf("# Disk DescriptorFile\n"
                      "version=1\n"
                      "CID=%08" PRIx32 "\n"
                      "parentCID=%08" PRIx32 "\n"
                      "createType=\"%s\"\n"
                      "%s\n"
                      "# Extent description\n"
                      "%s\n"
                      "# The Disk Data Base\n"
                      "#DDB\n\n"
                      "ddb.virtualHWVersion = \"%s\"\n"
                      "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
                      "ddb.geometry.heads = \"%u\"\n"
                      "ddb.geometry.sectors = \"63\"\n"
                      "ddb.adapterType = \"%s\"\n"
                      "ddb.toolsVersion = \"%s\"\n",
                      p->cid, p->parent_cid, subformats[p->sub], hint, p->extents,
                      !old                      ? hardware
                      : opts_bool(o, "compat6") ? "6"
                                                : "4",
                      (uint64_t)(p->size / (63 * heads * 512)), heads, opts_text(o, "adapter_type"),
                      tools && *tools ? tools : "2147483647");
}

static int make_text(const struct plan *p, char **out, struct blk_error *e)
{
    const char *adapter = opts_text(p->c->opts, "adapter_type");
    for (size_t i = 0; i < ARRAY_LEN(adapters); i++)
        if (strcmp(adapter, adapters[i].name) == 0) {
            *out = text_of(p, adapters[i].heads);
            return *out ? 0 : err_set(e, -ENOMEM, "out of memory");
        }
    return err_set(e, -EINVAL, "Unknown adapter type: %.60s", adapter);
}

/* --- what a person said --- */

static bool fits_a_line(const char *text)
{
    return !text || !text[strcspn(text, "\"\r\n")];
}

static int take_names(struct plan *p, struct blk_error *e)
{
    const struct blk_create *c = p->c;
    const char *name = c->name ? c->name : c->file->name, *slash = strrchr(name, '/');
    p->base = mem_strdup(slash ? slash + 1 : name);
    if (!p->base)
        return err_set(e, -ENOMEM, "out of memory");
    const char *dot = strrchr(p->base, '.');
    p->stem = (int)(dot ? (size_t)(dot - p->base) : strlen(p->base));
    p->ending = p->base + p->stem;
    p->parent = opts_text(c->opts, "backing_file");
    if (p->parent && !*p->parent)
        p->parent = NULL;
    if (!fits_a_line(p->base) || !fits_a_line(p->parent) ||
        !fits_a_line(opts_text(c->opts, "hwversion")) ||
        !fits_a_line(opts_text(c->opts, "toolsversion")))
        return err_set(e, -EINVAL, "quotes and line ends cannot stand in a descriptor");
    return 0;
}

static int take_ids(struct plan *p, struct blk_error *e)
{
    const char *cid = opts_text(p->c->opts, "cid");
    const struct blk_device *parent = p->c->backing;
    unsigned value;
    char rest;
    p->parent_cid = VMDK_NO_PARENT;
    while (p->cid == 0 || p->cid == VMDK_NO_PARENT) {
        host_random(p->c->file->host, &p->cid, sizeof(p->cid));
        if (!cid)
            continue;
        if (strlen(cid) > 8 || sscanf(cid, "%x%c", &value, &rest) != 1 || value == VMDK_NO_PARENT)
            return err_set(e, -EINVAL, "'%.60s' is no content id: up to eight hex digits", cid);
        p->cid = value;
        break;
    }
    if (!p->parent)
        return 0;
    if (!parent)
        return err_set(e, -EINVAL, "the backing image is needed for its content id");
    const struct vmdk *v = parent->state;
    if (strcmp(parent->driver->name, vmdk_driver.name) != 0 || !v->text)
        return err_set(e, -EINVAL, "Invalid backing file format: %s. Must be vmdk",
                       parent->driver->name);
    p->parent_cid = v->d.cid;
    return 0;
}

/* --- extents --- */

static enum vmdk_extent_kind kind_of(const struct plan *p)
{
    return extents[p->sub].kind;
}

static int add_line(struct plan *p, uint64_t bytes, const char *name, struct blk_error *e)
{
    char *more =
        mem_printf("%sRW %" PRIu64 " %s \"%s\"%s\n", p->extents ? p->extents : "", bytes / 512,
                   vmdk_extent_word(kind_of(p)), name, kind_of(p) == VMDK_FLAT ? " 0" : "");
    if (!more)
        return err_set(e, -ENOMEM, "out of memory");
    mem_free(p->extents);
    p->extents = more;
    return 0;
}

static int co_fill_extent(const struct plan *p, struct blk_device *file, uint64_t bytes,
                          struct blk_error *e)
{
    struct blk_create c = *p->c;
    c.file = file;
    c.fresh = false; /* it counts when the descriptor does */
    if (kind_of(p) == VMDK_SPARSE)
        return co_create_sparse(&c, bytes, NULL, e);
    if (kind_of(p) == VMDK_VMFS_SPARSE)
        return co_vmdk_create_cowd(&c, bytes, e);
    TRY(co_blk_resize(file, bytes, false, e));
    int rc = co_blk_flush(file);
    return rc < 0 ? err_errno(e, rc, "the extent cannot be written") : 0;
}

static int co_make_extent(struct plan *p, unsigned number, uint64_t bytes, struct blk_error *e)
{
    struct blk_create c = *p->c;
    struct blk_device *file;
    const char *word = extents[p->sub].word;
    auto_free char *name =
        extents[p->sub].numbered
            ? mem_printf("%.*s-%s%03u%s", p->stem, p->base, word, number, p->ending)
            : mem_printf("%.*s-%s%s", p->stem, p->base, word, p->ending);
    if (!name)
        return err_set(e, -ENOMEM, "out of memory");
    if (!c.co_make_file)
        return err_set(e, -ENOTSUP, "a VMDK of several files cannot be made here");
    c.beside = true;
    TRY(c.co_make_file(&c, name, &file, e));
    int rc = co_fill_extent(p, file, bytes, e);
    int closed = co_blk_close(file, rc == 0 ? e : NULL);
    TRY(rc < 0 ? rc : closed);
    return add_line(p, bytes, name, e);
}

static int co_make_extents(struct plan *p, struct blk_error *e)
{
    uint64_t most = extents[p->sub].numbered ? EXTENT_MAX : UINT64_MAX;
    unsigned number = 1;
    if (!extents[p->sub].word)
        return add_line(p, p->size, p->base, e);
    if (p->size == 0)
        return err_set(e, -EINVAL, "a VMDK of several files cannot be empty");
    if (p->size / most >= VMDK_EXTENTS_MOST)
        return err_set(e, -EFBIG, "more than %d extents", VMDK_EXTENTS_MOST);
    for (uint64_t at = 0; at < p->size; at += MIN(most, p->size - at))
        TRY(co_make_extent(p, number++, MIN(most, p->size - at), e));
    return 0;
}

static int co_write_descriptor(const struct plan *p, char *text, struct blk_error *e)
{
    size_t bytes = strlen(text);
    if (p->c->fresh)
        text[0] = 0;
    struct map_units_image image = {
        .end = bytes,
        .entry_bytes = 4,
        .fill = fill_holes,
        .last = {0, text, bytes},
    };
    return co_map_units_create(p->c, &image, e);
}

static int co_create_planned(struct plan *p, struct blk_error *e)
{
    TRY(take_names(p, e));
    TRY(take_ids(p, e));
    bool flat = kind_of(p) == VMDK_FLAT;
    if (flat && p->parent)
        return err_set(e, -ENOTSUP, "Flat image can't have backing file");
    if (flat && opts_bool(p->c->opts, "zeroed_grain"))
        return err_set(e, -ENOTSUP, "Flat image can't enable zeroed grain");
    if (p->sub == SUB_VMFS && opts_bool(p->c->opts, "zeroed_grain"))
        return err_set(e, -ENOTSUP, "vmfsSparse has no zeroed grains");
    if (p->sub == SUB_STREAM && p->parent)
        return err_set(e, -ENOTSUP, "a stream can't have a backing file");
    TRY(co_make_extents(p, e));
    auto_free char *text = NULL;
    TRY(make_text(p, &text, e));
    if (p->sub == SUB_STREAM)
        return co_vmdk_create_stream(p->c, p->size, text, e);
    return p->sub == SUB_SPARSE ? co_create_sparse(p->c, p->size, text, e)
                                : co_write_descriptor(p, text, e);
}

int co_vmdk_create(const struct blk_create *c, struct blk_error *e)
{
    struct plan p = {
        .c = c, .size = align_up(c->size, 512), .sub = opts_number(c->opts, "subformat")};
    int rc = co_create_planned(&p, e);
    mem_free(p.base);
    mem_free(p.extents);
    return rc;
}

/* --- measuring --- */

/* What extents of that subformat have before anything is written to them. */
static uint64_t empty_bytes(uint64_t sub, uint64_t size)
{
    uint64_t most = extents[sub].numbered ? EXTENT_MAX : MAX(size, 1), sum = 0;
    if (extents[sub].kind == VMDK_FLAT)
        return size;
    if (sub == SUB_VMFS)
        return vmdk_cowd_empty_bytes(size);
    if (sub == SUB_STREAM)
        return vmdk_stream_empty_bytes(size);
    sum = size / most * places_for(most, sub == SUB_SPARSE).end;
    if (size % most || size == 0)
        sum += places_for(size % most, sub == SUB_SPARSE).end;
    return sum;
}

/* Without the text, where that is a file of its own: its length is that of names. Of a stream,
 * where no grain gets smaller by deflating. */
int co_vmdk_measure(struct blk_measure *m, struct blk_error *e)
{
    uint64_t sub = opts_number(m->opts, "subformat"), size = align_up(m->size, 512);
    if (size > (extents[sub].numbered ? VMDK_EXTENTS_MOST * EXTENT_MAX : PLACES_MOST))
        return err_set(e, -EFBIG, "the disk is too large for %s", subformats[sub]);
    struct map_units_measure u = {.size = size,
                                  .empty_bytes = empty_bytes(sub, size),
                                  .cluster_bytes = VMDK_GRAIN,
                                  .unit_bytes = VMDK_GRAIN,
                                  .overlay = opts_given(m->opts, "backing_file")};
    if (extents[sub].kind == VMDK_FLAT)
        u.unit_bytes = 0;
    if (sub == SUB_VMFS) {
        u.cluster_bytes = u.unit_bytes = 512;
        u.table_bytes = VMDK_COWD_TABLE * 4;
        u.table_covers = VMDK_COWD_TABLE * 512;
    }
    if (sub == SUB_STREAM) {
        u.unit_bytes = VMDK_STORED_GRAIN;
        u.table_bytes = sizeof(struct vmdk_metadata_disk) + VMDK_TABLE_BYTES;
        u.table_covers = VMDK_TABLE * VMDK_GRAIN;
    }
    return co_map_units_measure(m, &u, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd_create.c - new VHD images, and the geometry that some of their readers believe in.
 *
 * Virtual PC and QEMU take the size that cylinders, heads and sectors give; Hyper-V, Azure and
 * others the number in the footer. Unless force_size asks for the exact size, the disk is made as
 * large as the next geometry, so that all agree. With it the creator is given as "win ", which
 * means to all that the number counts. Azure wants whole MiB as well. */
#include "block/host.h"
#include "block/utf16.h"
#include "block/uuid.h"
#include "imgfmt/vhd.h"

enum { SUB_DYNAMIC, SUB_FIXED };
static const char *const subformats[] = {"dynamic", "fixed", NULL};

const struct opt_desc vhd_create_options[] = {
    {.name = "subformat",
     .type = OPT_ENUM,
     .choices = subformats,
     .preset = "dynamic",
     .help = "Type of virtual hard disk format (dynamic, fixed)"},
    {.name = "force_size",
     .type = OPT_BOOL,
     .preset = "off",
     .help = "exactly this size, instead of the next that a CHS geometry gives"},
    {.name = "azure",
     .ours = true,
     .type = OPT_BOOL,
     .preset = "off",
     .help = "fixed, of exactly this size, in whole MiB"},
    {.name = "block_size",
     .ours = true,
     .type = OPT_SIZE,
     .preset = "2M",
     .min = 4096,
     .max = 256 * MiB,
     .help = "bytes that are allocated at once"},
    {.name = "uuid", .ours = true, .type = OPT_STRING, .help = "of the image (default: a new one)"},
    {.name = "backing_file",
     .ours = true,
     .type = OPT_STRING,
     .help = "the parent of a differencing image"},
    {.name = "backing_fmt", .ours = true, .type = OPT_STRING, .help = "format of the parent"},
    {0},
};

struct vhd_geometry vhd_geometry_of(uint64_t sectors)
{
    uint64_t tracks, heads = 16, per_track;
    sectors = MIN(sectors, VHD_CHS_MOST);
    if (sectors > 65535ULL * 16 * 63) {
        per_track = 255;
        tracks = sectors / per_track;
    } else {
        per_track = 17;
        tracks = sectors / per_track;
        heads = MAX(div_up(tracks, 1024), 4);
        if (tracks >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
            tracks = sectors / per_track;
        }
        if (tracks >= heads * 1024) {
            per_track = 63;
            heads = 16;
            tracks = sectors / per_track;
        }
    }
    return (struct vhd_geometry){.cylinders = tracks / heads, .heads = heads, .sectors = per_track};
}

/* The smallest geometry that holds @sectors. */
static struct vhd_geometry geometry_for(uint64_t sectors)
{
    struct vhd_geometry g = vhd_geometry_of(sectors);
    for (uint64_t more = 1; sectors <= VHD_CHS_MOST && vhd_geometry_sectors(&g) < sectors; more++)
        g = vhd_geometry_of(sectors + more);
    return g;
}

struct plan {
    const struct blk_create *c; /* NULL: it is only measured */
    const struct opts *opts;
    uint64_t wish; /* the size that is asked for */
    uint64_t size;
    uint32_t block_bytes;
    bool fixed;
    const char *parent; /* NULL: none */
    uint8_t name[2][VHD_NAME_ROOM];
    size_t name_bytes;
    struct vhd_footer_disk footer;
    struct vhd_header_disk header;
};

static int choose_size(struct plan *p, struct blk_error *e)
{
    const struct opts *o = p->opts;
    bool azure = opts_bool(o, "azure"), exact = azure || opts_bool(o, "force_size");
    uint64_t sectors = div_up(p->wish, 512);
    struct vhd_geometry g = geometry_for(sectors);
    p->fixed = azure || opts_number(o, "subformat") == SUB_FIXED;
    if (azure)
        sectors = align_up(sectors, MiB / 512);
    if (!exact && sectors <= VHD_CHS_MOST && vhd_geometry_sectors(&g) < VHD_CHS_MOST)
        sectors = vhd_geometry_sectors(&g);
    if (exact)
        g = vhd_geometry_of(sectors);
    if (sectors > VHD_SECTORS_MOST)
        return err_set(e, -EFBIG, "a VHD image cannot be larger than 2040 GiB");
    bool agrees = vhd_geometry_sectors(&g) == sectors || vhd_geometry_sectors(&g) == VHD_CHS_MOST;
    p->size = sectors * 512;
    p->footer.cylinders = be16_of(g.cylinders);
    p->footer.heads = g.heads;
    p->footer.sectors = g.sectors;
    memcpy(p->footer.creator, agrees && !exact ? "vpc " : "win ", 4);
    return 0;
}

static int fill_footer(struct plan *p, struct blk_error *e)
{
    struct vhd_footer_disk *f = &p->footer;
    struct host *host = p->c->file->host;
    memcpy(f->cookie, "conectix", 8);
    f->features = be32_of(2);
    f->version = be32_of(0x00010000);
    f->header_offset = be64_of(p->fixed ? UINT64_MAX : sizeof(*f));
    f->time = be32_of((uint32_t)(host_wall_clock(host) / 1000000000 - VHD_EPOCH));
    f->creator_version = be32_of(0x00050003);
    memcpy(f->creator_host, "Wi2k", 4);
    f->original_size = f->size = be64_of(p->size);
    f->type = be32_of(p->fixed ? VHD_FIXED : p->parent ? VHD_DIFFERENCING : VHD_DYNAMIC);
    TRY(uuid_choose(host, opts_text(p->c->opts, "uuid"), f->uuid, e));
    if (p->c->fresh)
        memset(f->cookie, 0, sizeof(f->cookie));
    vhd_seal_footer(f);
    return 0;
}

/* A path as Windows writes it: relative ones begin with ".\\". */
static int windows_name(struct plan *p, struct blk_error *e)
{
    p->name_bytes = utf16_from_path(p->parent, p->name[0], VHD_NAME_ROOM);
    if (p->name_bytes == 0)
        return err_set(e, -EINVAL, "the name of the parent is too long, or no UTF-8");
    memcpy(p->name[1], p->name[0], VHD_NAME_ROOM);
    return 0;
}

static void name_parent(struct plan *p)
{
    static const char platforms[2][5] = {"W2ru", "W2ku"};
    const char *slash = strrchr(p->parent, '/');
    uint64_t at = 512 + 2 * sizeof(p->header); /* behind the spare header's place */
    (void)!utf16_from_text(slash ? slash + 1 : p->parent, true, p->header.parent_name,
                           sizeof(p->header.parent_name) - 2);
    for (unsigned i = 0; i < 2; i++, at += VHD_NAME_ROOM) {
        struct vhd_locator_disk *l = &p->header.locators[i];
        memcpy(l->platform, platforms[i], 4);
        l->space = be32_of(VHD_NAME_ROOM);
        l->bytes = be32_of(p->name_bytes);
        l->offset = be64_of(at);
    }
    if (p->c->backing && p->c->backing->driver == &vhd_driver) {
        const struct vhd *v = container_of((struct map *)p->c->backing->state, struct vhd, map);
        memcpy(p->header.parent_uuid, v->footer.uuid, 16);
        p->header.parent_time = v->footer.time;
    }
}

/* Behind the headers and what names a parent. */
static uint64_t table_at(const struct plan *p)
{
    uint64_t names = p->parent ? sizeof(p->header) + 2 * VHD_NAME_ROOM : 0;
    return 512 + sizeof(p->header) + names;
}

static void fill_header(struct plan *p)
{
    struct vhd_header_disk *h = &p->header;
    memcpy(h->cookie, "cxsparse", 8);
    h->next = be64_of(UINT64_MAX);
    h->table_offset = be64_of(table_at(p));
    h->version = be32_of(0x00010000);
    h->entries = be32_of(div_up(p->size, p->block_bytes));
    h->block_bytes = be32_of(p->block_bytes);
    if (p->parent)
        name_parent(p);
    vhd_seal_header(h);
}

static void fill_free(const void *arg, uint64_t first, uint64_t count, void *to)
{
    memset(to, 0xff, count * 4);
}

static int co_create_dynamic(struct plan *p, struct blk_error *e)
{
    fill_header(p);
    const struct vhd_locator_disk *l = p->header.locators;
    uint64_t table = be64_get(p->header.table_offset);
    uint64_t table_bytes = align_up(be32_get(p->header.entries) * 4ULL, 512);
    uint64_t footer_at = table + table_bytes;
    if (!p->c->file->limits.growable)
        footer_at = align_down(p->c->file->size, 512) - sizeof(p->footer);
    struct map_units_piece pieces[] = {
        {512, &p->header, sizeof(p->header)},
        {footer_at, &p->footer, sizeof(p->footer)},
        {be64_get(l[0].offset), p->name[0], be32_get(l[0].space)},
        {be64_get(l[1].offset), p->name[1], be32_get(l[1].space)},
    };
    struct map_units_image image = {
        .end = footer_at + sizeof(p->footer),
        .table_offset = table,
        .table_bytes = table_bytes,
        .entries = be32_get(p->header.entries),
        .entry_bytes = 4,
        .fill = fill_free,
        .pieces = pieces,
        .piece_count = p->parent ? 4 : 2,
        .last = {0, &p->footer, sizeof(p->footer)},
    };
    return co_map_units_create(p->c, &image, e);
}

static int co_create_fixed(struct plan *p, struct blk_error *e)
{
    struct map_units_image image = {
        .end = p->size + sizeof(p->footer),
        .entry_bytes = 4,
        .fill = fill_free,
        .zero_bytes = p->size,
        .last = {p->size, &p->footer, sizeof(p->footer)},
    };
    return co_map_units_create(p->c, &image, e);
}

static int choose(struct plan *p, const struct opts *opts, uint64_t size, struct blk_error *e)
{
    p->opts = opts;
    p->wish = size;
    p->block_bytes = opts_number(opts, "block_size");
    p->parent = opts_text(opts, "backing_file");
    if (p->parent && !*p->parent)
        p->parent = NULL;
    if (!is_pow2(p->block_bytes))
        return err_set(e, -EINVAL, "block_size must be a power of two");
    TRY(choose_size(p, e));
    if (p->fixed && p->parent)
        return err_set(e, -EINVAL, "a fixed VHD image has no parent");
    return 0;
}

int co_vhd_create(const struct blk_create *c, struct blk_error *e)
{
    auto_free struct plan *p = mem_zalloc(sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    p->c = c;
    TRY(choose(p, c->opts, c->size, e));
    if (p->parent)
        TRY(windows_name(p, e));
    TRY(fill_footer(p, e));
    return p->fixed ? co_create_fixed(p, e) : co_create_dynamic(p, e);
}

int co_vhd_measure(struct blk_measure *m, struct blk_error *e)
{
    auto_free struct plan *p = mem_zalloc(sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(choose(p, m->opts, m->size, e));
    uint64_t table = align_up(div_up(p->size, p->block_bytes) * 4, 512);
    uint64_t lead = align_up(div_up(p->block_bytes / 512, 8), 512);
    struct map_units_measure u = {.size = p->size,
                                  .empty_bytes = p->size + sizeof(p->footer),
                                  .cluster_bytes = p->block_bytes,
                                  .overlay = opts_given(m->opts, "backing_file")};
    if (!p->fixed) {
        u.empty_bytes = table_at(p) + table + sizeof(p->footer);
        u.unit_bytes = lead + p->block_bytes;
    }
    return co_map_units_measure(m, &u, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_amend.c - changes what can be changed of an existing image.
 *
 *   1 everything that is asked for is checked; nothing has changed if it is refused
 *   2 the size (qcow2_resize.c's order)
 *   3 to version 3: a rewrite of the header (qcow2_rewrite.c), since other widths need it
 *   4 the width of the counts (qcow2_amend_counts.c's order)
 *   5 to version 2: what says "zero" becomes a hole where nothing is behind, else a cluster of
 *     zeroes, as version 2 has no other way to say it -> F
 *   6 one rewrite of the header: version and lazy refcounts
 * What is told of key slots (luks_amend.c's order) comes before 2.
 * Each step leaves a whole image, so a crash leaves those done that came first. */
#include "imgfmt/luks.h"
#include "imgfmt/qcow2.h"

const struct opt_desc qcow2_amend_options[] = {
    {.name = "backing_file", .type = OPT_STRING, .help = "File name of a base image"},
    {.name = "backing_fmt", .type = OPT_STRING, .help = "Image format of the base image"},
    {.name = "compat", .type = OPT_STRING, .help = "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {.name = "data_file", .type = OPT_STRING, .help = "File name of an external data file"},
    {.name = "data_file_raw",
     .type = OPT_BOOL,
     .help = "The external data file must stay valid as a raw image"},
    LUKS_AMEND_OPTIONS("encrypt."),
    {.name = "lazy_refcounts", .type = OPT_BOOL, .help = "Postpone refcount updates"},
    {.name = "refcount_bits", .type = OPT_INT, .help = "Width of a refcount entry in bits"},
    {.name = "size", .type = OPT_SIZE, .help = "Virtual disk size"},
    {0},
};

/* --- what is asked for ---------------------------------------------------- */

static int take_version(const struct opts *o, struct qcow2_header *h, struct blk_error *e)
{
    const char *told = opts_text(o, "compat");

    if (!told)
        return 0;
    if (strcmp(told, "0.10") == 0 || strcmp(told, "v2") == 0)
        h->version = 2;
    else if (strcmp(told, "1.1") == 0 || strcmp(told, "v3") == 0)
        h->version = 3;
    else
        return err_set(e, -EINVAL, "Unknown compatibility level %s", told);
    return 0;
}

static bool names_differ(const char *told, const char *has)
{
    return strcmp(told ? told : "", has ? has : "") != 0 || !told != !has;
}

/* What cannot be changed may be told as it is. */
static int check_names(const struct qcow2 *q, const struct opts *o, struct blk_error *e)
{
    bool told = opts_given(o, "backing_file") || opts_given(o, "backing_fmt");

    if (opts_given(o, "data_file") && !qcow2_has_data_file(&q->header))
        return err_set(e, -EINVAL,
                       "data-file can only be set for images that use an external data file");
    if (opts_given(o, "data_file_raw") && opts_bool(o, "data_file_raw") &&
        !qcow2_raw_data(&q->header))
        return err_set(e, -EINVAL, "data-file-raw cannot be set on existing images");
    if (told && (names_differ(opts_text(o, "backing_file"), q->backing_name) ||
                 names_differ(opts_text(o, "backing_fmt"), q->backing_format)))
        return err_set(e, -EINVAL,
                       "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
    return 0;
}

static int take_counts(const struct opts *o, struct qcow2_header *h, struct blk_error *e)
{
    if (!opts_given(o, "refcount_bits"))
        return 0;
    uint64_t bits = opts_number(o, "refcount_bits");
    if (!is_pow2(bits) || bits > 64)
        return err_set(e, -EINVAL,
                       "Refcount width must be a power of two and may not exceed 64 bits");
    if (h->version < 3 && bits != 16 && bits != 1ULL << h->refcount_order)
        return err_set(e, -EINVAL,
                       "Refcount widths other than 16 bits require compatibility level 1.1 or "
                       "above (use compat=1.1 or greater)");
    h->refcount_order = log2_floor(bits);
    return 0;
}

static int co_check_downgrade(struct qcow2 *q, const struct qcow2_header *want, struct blk_error *e)
{
    if (want->refcount_order != 4)
        return err_set(e, -EINVAL, "compat=0.10 requires refcount_bits=16");
    if (qcow2_has_data_file(&q->header))
        return err_set(e, -ENOTSUP, "Cannot downgrade an image with a data file");
    if (q->header.incompatible & ~(uint64_t)QCOW2_DIRTY)
        return err_set(e, -ENOTSUP, "Cannot downgrade an image with incompatible features set (%s)",
                       q->header.incompatible & QCOW2_COMPRESSION
                           ? "version 2 has no compression but zlib"
                           : "version 2 has none");
    if (q->header.bitmaps.bytes)
        return err_set(e, -ENOTSUP,
                       "the image holds persistent bitmaps, which version 2 does not have; remove "
                       "them first");
    return co_qcow2_check_old_snapshots(q, e);
}

static int take_lazy(const struct opts *o, struct qcow2_header *h, struct blk_error *e)
{
    bool told = opts_given(o, "lazy_refcounts");

    if (told && opts_bool(o, "lazy_refcounts") && h->version < 3)
        return err_set(e, -EINVAL,
                       "Lazy refcounts only supported with compatibility level 1.1 and above (use "
                       "compat=1.1 or greater)");
    if (told && opts_bool(o, "lazy_refcounts"))
        h->compatible |= QCOW2_LAZY_REFCOUNTS;
    else if (told)
        h->compatible &= ~(uint64_t)QCOW2_LAZY_REFCOUNTS;
    return 0;
}

/* --- zeroes that version 2 can say ---------------------------------------- */

#define RANGES 512

struct zero_ranges {
    struct qcow2_run runs[RANGES];
    size_t count;
};

static int note_zero(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct zero_ranges *z = arg;
    struct qcow2_run *last = z->count ? &z->runs[z->count - 1] : NULL;

    (void)m;
    if (cell->state != MAP_ZERO)
        return 0;
    if (last && last->first + last->count == cluster) {
        last->count++;
        return 0;
    }
    if (z->count == RANGES)
        return 1; /* these first */
    z->runs[z->count++] = (struct qcow2_run){cluster, 1};
    return 0;
}

static int co_write_zero_data(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t step = MAX(q->map.cluster_bytes, 1 * MiB);
    uint8_t *zeroes = buf_get(step);
    int rc = zeroes ? 0 : -ENOMEM;

    if (zeroes)
        memset(zeroes, 0, step);
    for (uint64_t at = 0; rc == 0 && at < bytes; at += step) {
        struct vec v = VEC_BUF(zeroes, MIN(step, bytes - at));
        rc = co_map_write(q->map.dev, offset + at, &v, 0);
    }
    if (zeroes)
        buf_put(zeroes, step);
    return rc;
}

static int co_expand_run(struct qcow2 *q, const struct qcow2_run *r)
{
    uint64_t behind = q->map.backing ? q->map.backing->size : 0;
    uint64_t hidden = MIN(r->first + r->count, div_up(behind, q->map.cluster_bytes));
    uint64_t from = r->first << q->header.cluster_bits;

    if (hidden > r->first) {
        uint64_t end = MIN(hidden << q->header.cluster_bits, q->header.size);
        TRY(co_write_zero_data(q, from, end - from));
    }
    return co_map_drop(&q->map, MAX(hidden, r->first), r->first + r->count);
}

static int co_expand_zeroes(struct qcow2 *q)
{
    auto_free struct zero_ranges *z = mem_alloc(sizeof(*z));
    int rc = z ? 1 : -ENOMEM;

    while (rc == 1) {
        z->count = 0;
        rc = co_map_walk(&q->map, note_zero, z);
        for (size_t i = 0; rc >= 0 && i < z->count; i++) {
            int done = co_expand_run(q, &z->runs[i]);
            rc = done < 0 ? done : rc;
        }
    }
    return rc < 0 ? rc : co_qcow2_settle(q, true);
}

/* --- all of it ------------------------------------------------------------ */

static int co_put_cover(struct qcow2 *q, const struct qcow2_header *want, const char *data_name)
{
    struct qcow2_cover cover = {.header = want,
                                .backing_name = q->backing_name,
                                .backing_format = q->backing_format,
                                .data_name = data_name};

    with_lock(&q->alloc);
    struct qcow2_header h = q->header; /* tables may have moved meanwhile */
    h.version = want->version;
    h.compatible = want->compatible;
    h.incompatible = want->version < 3 ? 0 : q->header.incompatible;
    h.autoclear = want->version < 3 ? 0 : q->header.autoclear;
    if (!qcow2_raw_data(want))
        h.autoclear &= ~(uint64_t)QCOW2_RAW_DATA;
    cover.header = &h;
    TRY(co_qcow2_rewrite(q, &cover));
    q->map.shape.always_stored = qcow2_raw_data(&h);
    return 0;
}

/* The data file goes by another name from now on; NULL: by the same. */
static int keep_data_name(struct qcow2 *q, const char *name)
{
    char *copy = name ? mem_strdup(name) : NULL;

    if (name && !copy)
        return -ENOMEM;
    if (copy) {
        mem_free(q->data_name);
        q->data_name = copy;
    }
    return 0;
}

/* The header says @want's version and features. */
static int co_change_header(struct qcow2 *q, const struct qcow2_header *want, const struct opts *o,
                            struct blk_error *e)
{
    const char *data_name = opts_given(o, "data_file") ? opts_text(o, "data_file") : NULL;

    if (data_name && (!*data_name || (q->data_name && strcmp(data_name, q->data_name) == 0)))
        data_name = NULL;
    if (want->version == q->header.version && want->compatible == q->header.compatible &&
        qcow2_raw_data(want) == qcow2_raw_data(&q->header) && !data_name)
        return 0;
    int rc = co_map_will_write(&q->map);
    if (rc == 0 && want->version < q->header.version)
        rc = co_expand_zeroes(q);
    if (rc == 0)
        rc = co_qcow2_settle(q, true);
    if (rc == 0)
        rc = co_put_cover(q, want, data_name);
    if (rc == 0)
        rc = keep_data_name(q, data_name);
    if (rc == -ENOSPC)
        return err_set(e, rc, "No space left in the file header");
    return rc < 0 ? err_errno(e, rc, "cannot amend the image") : 0;
}

static int co_change_width(struct qcow2 *q, const struct qcow2_header *want, struct blk_error *e)
{
    if (want->refcount_order == q->header.refcount_order)
        return 0;
    int rc = co_map_will_write(&q->map);
    if (rc == 0)
        rc = co_qcow2_change_counts(q, want->refcount_order, e);
    return rc < 0 && !(e && e->rc) ? err_errno(e, rc, "cannot change the width of the counts") : rc;
}

static int co_change(struct qcow2 *q, const struct opts *o, const struct qcow2_header *want,
                     struct blk_error *e)
{
    if (opts_given(o, "size"))
        TRY(co_qcow2_resize(q->map.dev, opts_number(o, "size"), true, e));
    if (want->version > q->header.version)
        TRY(co_change_header(q, want, o, e));
    TRY(co_change_width(q, want, e));
    return co_change_header(q, want, o, e);
}

int co_qcow2_amend(struct blk_device *dev, const struct opts *opts, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct qcow2_header want = q->header;

    TRY(take_version(opts, &want, e));
    TRY(check_names(q, opts, e));
    TRY(take_counts(opts, &want, e));
    TRY(take_lazy(opts, &want, e));
    if (opts_given(opts, "data_file_raw") && !opts_bool(opts, "data_file_raw"))
        want.autoclear &= ~(uint64_t)QCOW2_RAW_DATA;
    if (want.version < q->header.version) {
        TRY(co_check_downgrade(q, &want, e));
        want.compatible = 0;
    }
    TRY(co_qcow2_amend_crypt(q, opts, e));
    return co_change(q, opts, &want, e);
}

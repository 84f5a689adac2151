/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_inner.c - a snapshot of a qcow2 image as a device of its own, read-only: `x.qcow2//@name`.
 *
 * It is the engine over the snapshot's L1 table, in the same file and over the same backing device,
 * with a metadata cache of its own. Clusters and L2 tables of a snapshot never change while it is
 * there (COPIED flags do, and a reader does not look at them), so the image itself may be written
 * meanwhile; only deleting the snapshot is refused. */
#include "imgfmt/qcow2.h"

struct qcow2_view {
    struct qcow2 q; /* first: the engine's operations find the map in it */
    struct qcow2 *container;
    struct qcow2_view *next;
    char *id;
};

static struct qcow2_view *view_of(struct blk_device *dev)
{
    return container_of(qcow2_of_dev(dev), struct qcow2_view, q);
}

bool qcow2_snapshot_is_open(const struct qcow2 *q, const struct qcow2_snapshot *s)
{
    for (const struct qcow2_view *v = q->views; v; v = v->next)
        if (strlen(v->id) == s->id_bytes && memcmp(v->id, s->id, s->id_bytes) == 0)
            return true;
    return false;
}

/* --- the list ------------------------------------------------------------- */

int co_qcow2_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                        struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t n;

    TRY(co_qcow2_snapshot_list(dev, &list, &n, e));
    struct blk_inner *inner = mem_array(MAX(n, 1), sizeof(*inner));
    bool ok = inner;
    for (size_t i = 0; ok && i < n; i++) {
        inner[i] = (struct blk_inner){.name = mem_printf("@%s", list[i].name),
                                      .kind = mem_strdup("snapshot"),
                                      .bytes = list[i].virtual_size};
        ok = inner[i].name && inner[i].kind;
    }
    blk_snapshots_drop(list, n);
    if (!ok) {
        blk_inner_drop(inner, inner ? n : 0);
        return err_errno(e, -ENOMEM, "cannot list the snapshots");
    }
    *out = inner;
    *count = n;
    return 0;
}

/* --- the device ----------------------------------------------------------- */

static int needs_backing(struct blk_device *dev)
{
    return qcow2_of_dev(dev)->backing_missing ? -ENOTSUP : 0;
}

static int co_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    TRY(needs_backing(dev));
    return co_map_read(dev, offset, to);
}

static int co_refuse_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                           unsigned flags)
{
    return -EROFS;
}

static int co_flush(struct blk_device *dev)
{
    return 0; /* nothing of it ever waits to be written */
}

static bool resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                    struct blk_place *out)
{
    return !write && !qcow2_of_dev(dev)->backing_missing &&
           map_resolve(dev, offset, bytes, false, out);
}

static int co_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    return write ? err_set(e, -EROFS, "a snapshot is read-only; apply it to write to it") : 0;
}

static int co_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);

    out->virtual_size = q->header.size;
    out->cluster_size = (uint32_t)q->map.cluster_bytes;
    return 0;
}

static int co_close(struct blk_device *dev, struct blk_error *e)
{
    struct qcow2_view *v = view_of(dev), **link = &v->container->views;

    while (*link != v)
        link = &(*link)->next;
    *link = v->next;
    mem_free(v->id);
    co_qcow2_free(&v->q); /* frees v: q is its first member */
    return 0;
}

static const struct blk_driver snapshot_driver = {
    .name = "qcow2-snapshot",
    .title = "a snapshot inside a qcow2 image, read-only",
    .co_close = co_close,
    .co_reopen = co_reopen,
    .co_read = co_read,
    .co_write = co_refuse_write,
    .co_flush = co_flush,
    .resolve = resolve,
    .co_map = co_map_map,
    .co_info = co_info,
};

/* --- open ----------------------------------------------------------------- */

/* "id=N", "name=N", or a name or else an id. */
static const struct blk_snapshot *find(const struct blk_snapshot *list, size_t count,
                                       const char *text)
{
    if (strncmp(text, "id=", 3) == 0)
        return blk_snapshot_by_id(list, count, text + 3);
    if (strncmp(text, "name=", 5) == 0)
        return blk_snapshot_by_name(list, count, text + 5);
    const struct blk_snapshot *s = blk_snapshot_by_name(list, count, text);
    return s ? s : blk_snapshot_by_id(list, count, text);
}

struct wanted {
    const char *id;
    struct qcow2_snapshot found;
};

static int pick(void *arg, const struct qcow2_snapshot *s)
{
    struct wanted *w = arg;

    if (strlen(w->id) != s->id_bytes || memcmp(w->id, s->id, s->id_bytes) != 0)
        return 0;
    w->found = *s;
    return 1;
}

static int fill(struct qcow2_view *v, const struct qcow2_snapshot *s, struct blk_error *e)
{
    struct qcow2 *q = &v->q, *from = v->container;
    uint64_t size = qcow2_snapshot_size(from, s);
    uint64_t needs = qcow2_l1_needs(size, &from->header);

    q->header = from->header;
    q->header.l1_offset = s->l1_offset;
    q->header.l1_entries = s->l1_entries;
    q->header.size = size;
    if (size > INT64_MAX || s->l1_entries * 8ULL > QCOW2_MAX_L1_BYTES || needs > s->l1_entries ||
        s->l1_offset & (from->map.cluster_bytes - 1) || s->l1_offset >= QCOW2_MAX_OFFSET)
        return err_bad(e, -EINVAL,
                       "the snapshot's entry is damaged: an L1 table of %" PRIu32
                       " entries at %" PRIu64 " for %" PRIu64 " bytes",
                       s->l1_entries, s->l1_offset, size);
    qcow2_codec_init(q, 0);
    q->next = UINT64_MAX;
    q->releases = q->kept;
    q->release_room = QCOW2_RELEASES_KEPT;
    q->map.file = from->map.file;
    q->map.data = from->map.data;
    q->map.packed = from->map.packed;
    q->map.backing = from->map.backing;
    q->backing_missing = from->backing_missing;
    return qcow2_open_map(q, NULL, e);
}

/* Children: what it reads from, and the image, which is to stay open. */
static int add_children(struct blk_device *dev, struct blk_device *container)
{
    const struct qcow2 *from = qcow2_of_dev(container);
    const struct blk_child children[] = {
        {"container", container}, {"file", from->map.file}, {"backing", from->map.backing}};

    for (size_t i = 0; i < ARRAY_LEN(children); i++) {
        if (!children[i].dev)
            continue;
        int rc = blk_add_child(dev, children[i].role, blk_ref(children[i].dev));
        if (rc < 0) {
            co_blk_close(children[i].dev, NULL);
            return rc;
        }
    }
    return 0;
}

static int co_open_view(struct blk_device *container, const char *id, struct blk_device *dev,
                        struct blk_error *e)
{
    struct qcow2_view *v = mem_zalloc(sizeof(*v));
    struct qcow2 *from = qcow2_of_dev(container);
    struct wanted w = {.id = id};

    if (!v)
        return err_errno(e, -ENOMEM, "cannot open the snapshot");
    v->container = from;
    v->q.map.dev = dev;
    v->id = mem_strdup(id);
    with_lock(&from->snapshots); /* it is not deleted before it is known to be open */
    int rc = v->id ? co_qcow2_snapshots(from, pick, &w, e) : err_errno(e, -ENOMEM, "out of memory");
    if (rc >= 0)
        rc = rc == 1 ? fill(v, &w.found, e) : err_set(e, -ENOENT, "the snapshot is gone");
    if (rc == 0 && add_children(dev, container) < 0)
        rc = err_errno(e, -ENOMEM, "cannot open the snapshot");
    if (rc < 0) {
        mem_free(v->id);
        co_qcow2_free(&v->q);
        return rc;
    }
    dev->driver = &snapshot_driver;
    dev->state = &v->q.map;
    dev->size = v->q.header.size;
    dev->writable = false;
    dev->open_flags &= ~(unsigned)BLK_OPEN_WRITE;
    qcow2_set_limits(&v->q);
    v->next = from->views;
    from->views = v;
    return 0;
}

int co_qcow2_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                        struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t count;

    if (name[0] != '@')
        return err_set(e, -ENOENT, "snapshots inside a qcow2 image are named //@NAME or //@ID");
    if (qcow2_is_aes(qcow2_of_dev(container)))
        return err_set(e, -ENOTSUP, "snapshots of an image with qcow2's old AES are not read");
    TRY(co_qcow2_snapshot_list(container, &list, &count, e));
    const struct blk_snapshot *s = find(list, count, name + 1);
    int rc = s ? co_open_view(container, s->id, dev, e)
               : err_set(e, -ENOENT, "the image holds no snapshot \"%s\"", name + 1);
    blk_snapshots_drop(list, count);
    return rc;
}

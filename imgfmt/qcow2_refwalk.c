/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_refwalk.c - every reference below one L1 table, counted up or down.
 *
 * The walk reads L2 tables a megabyte at a time and gathers the clusters that their entries lead
 * to. Up to a million are sorted, and then the reference counts change page by page: each page is
 * looked up once, checked whole, changed whole. Sorting first is what makes a scattered image
 * cheap: its clusters come in no order, so that counting one by one would visit each page again and
 * again. */
#include "imgfmt/qcow2_refwalk.h"

#define SORTED_AT_ONCE (1U << 20)
#define BUNDLE_BYTES   (1 * MiB)
#define BUNDLE_TABLES  64
#define IN_FLIGHT      16

/* --- the L1 table --------------------------------------------------------- */

struct sort_job {
    uint64_t *a, *b;
    size_t n;
};

/* By 11 bits at a time, from the lowest; the result is in @a, which may have traded places with @b.
 * On the pool. */
static int run_sort(void *arg)
{
    struct sort_job *j = arg;
    uint64_t max = 0;

    for (size_t i = 0; i < j->n; i++)
        max |= j->a[i];
    for (unsigned shift = 0; shift < 64 && max >> shift; shift += 11) {
        uint32_t at[2049] = {0};
        for (size_t i = 0; i < j->n; i++)
            at[(j->a[i] >> shift & 2047) + 1]++;
        for (unsigned d = 1; d < 2049; d++)
            at[d] += at[d - 1];
        for (size_t i = 0; i < j->n; i++)
            j->b[at[j->a[i] >> shift & 2047]++] = j->a[i];
        uint64_t *t = j->a;
        j->a = j->b;
        j->b = t;
    }
    return 0;
}

/* Every L2 table lies where one can, and none is named twice (walking would take for ever). */
static int co_check_l1(const struct qcow2 *q, const struct qcow2_l1 *l, struct blk_error *e)
{
    auto_free uint64_t *sorted = mem_array(MAX(l->count, 1), sizeof(*sorted));
    auto_free uint64_t *spare = mem_array(MAX(l->count, 1), sizeof(*spare));
    uint32_t used = 0;
    int rc = 0;

    if (!sorted || !spare)
        return err_errno(e, -ENOMEM, "cannot read an L1 table");
    for (uint32_t i = 0; i < l->count && rc == 0; i++) {
        be64 raw = be64_of(l->entries[i]);
        uint64_t offset;
        bool shared;
        if (qcow2_root_decode(&q->map, &raw, &offset, &shared) < 0 || offset >= q->map.file->size)
            rc = err_set(e, -EIO,
                         "L1 entry %" PRIu32 " leads to %" PRIu64 ", where no L2 table can be; "
                         "check the image",
                         i, (uint64_t)(l->entries[i] & QCOW2_OFFSET_MASK));
        else if (offset)
            sorted[used++] = offset;
    }
    struct sort_job sort = {sorted, spare, used};
    if (rc == 0)
        rc = co_offload(run_sort, &sort);
    for (uint32_t i = 1; i < used && rc == 0; i++)
        if (sort.a[i] == sort.a[i - 1])
            rc = err_set(e, -EIO,
                         "the L2 table at %" PRIu64 " is used more than once; check the image",
                         sort.a[i]);
    return rc;
}

int co_qcow2_l1_read(struct qcow2 *q, uint64_t offset, uint32_t count, struct qcow2_l1 *out,
                     struct blk_error *e)
{
    uint64_t bytes = count * 8ULL, cluster = q->map.cluster_bytes;

    *out = (struct qcow2_l1){.count = count};
    if (bytes > QCOW2_MAX_L1_BYTES || offset & (cluster - 1) || offset >= QCOW2_MAX_OFFSET ||
        (count && !range_fits(offset, bytes, align_up(q->map.file->size, cluster))))
        return err_bad(e, -EINVAL,
                       "an L1 table of %" PRIu32 " entries cannot lie at %" PRIu64
                       "; check the image",
                       count, offset);
    out->entries = mem_array(MAX(count, 1), 8);
    out->flagged = mem_array(count / 64 + 1, 8);
    int rc = out->entries && out->flagged ? 0 : -ENOMEM;
    uint64_t there = offset < q->map.file->size ? MIN(bytes, q->map.file->size - offset) : 0;
    if (rc == 0 && there)
        rc = co_blk_read_buf(q->map.file, offset, out->entries, there);
    if (rc < 0)
        err_errno(e, rc, "cannot read the L1 table at %" PRIu64, offset);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        be64 raw;
        memcpy(&raw, &out->entries[i], 8);
        out->entries[i] = be64_get(raw);
    }
    if (rc == 0)
        rc = co_check_l1(q, out, e);
    if (rc < 0)
        qcow2_l1_drop(out);
    return rc;
}

void qcow2_l1_drop(struct qcow2_l1 *l)
{
    mem_free(l->entries);
    mem_free(l->flagged);
    *l = (struct qcow2_l1){0};
}

int co_qcow2_l1_write(struct qcow2 *q, const struct qcow2_l1 *l, uint64_t offset, uint64_t bytes)
{
    return co_qcow2_write_words(q, l->entries, l->count, offset, bytes);
}

/* --- walking L2 tables, many at a time ------------------------------------- */

struct table {
    struct qcow2 *q;
    uint64_t offset;
    uint32_t index; /* in the L1 table */
    uint8_t *data;
    bool dirty;
    uint64_t to; /* where it is written */
};

struct bundle {
    struct qcow2 *q;
    uint8_t *memory;
    struct table tables[BUNDLE_TABLES];
    unsigned count, most;
};

static int co_load(void *arg)
{
    struct table *t = arg;
    uint64_t end = t->q->map.file->size, want = t->q->map.cluster_bytes;
    uint64_t there = t->offset < end ? MIN(want, end - t->offset) : 0;

    memset(t->data + there, 0, want - there);
    return there ? co_blk_read_buf(t->q->map.file, t->offset, t->data, there) : 0;
}

static int co_store(void *arg)
{
    struct table *t = arg;

    return co_blk_write_buf(t->q->map.file, t->to, t->data, t->q->map.cluster_bytes, 0);
}

static int co_each(struct bundle *b, int (*co_fn)(void *table), bool only_dirty)
{
    struct co_group g;

    co_group_init(&g, IN_FLIGHT);
    for (unsigned i = 0; i < b->count && !co_group_failed(&g); i++)
        if (!only_dirty || b->tables[i].dirty)
            co_group_start(&g, co_fn, &b->tables[i]);
    return co_group_wait(&g);
}

/* What a walk does with each table: looks, and may change it (t->dirty). A positive value ends the
 * walk. */
struct walk {
    int (*co_fn)(struct walk *w, struct table *t);
    bool (*wants)(struct walk *w, uint32_t index); /* NULL: all */
    struct qcow2_l1 *l1;
};

static int co_walk_bundle(struct walk *w, struct bundle *b)
{
    bool dirty = false;
    int rc = co_each(b, co_load, false);

    for (unsigned i = 0; i < b->count && rc == 0; i++) {
        rc = w->co_fn(w, &b->tables[i]);
        dirty |= b->tables[i].dirty;
    }
    for (unsigned i = 0; i < b->count && rc == 0 && dirty; i++)
        if (b->tables[i].dirty)
            co_meta_forget(b->q->map.meta, b->tables[i].offset, b->q->map.cluster_bytes);
    if (rc == 0 && dirty)
        rc = co_each(b, co_store, true);
    b->count = 0;
    return rc;
}

static int co_walk(struct qcow2 *q, struct walk *w)
{
    uint64_t cluster = q->map.cluster_bytes;
    unsigned most = (unsigned)MIN(MAX(BUNDLE_BYTES / cluster, 1), BUNDLE_TABLES);
    auto_free struct bundle *b = mem_zalloc(sizeof(*b));
    auto_free uint8_t *memory = mem_aligned(most * cluster);
    int rc = 0;

    if (!b || !memory)
        return -ENOMEM;
    b->q = q;
    for (uint32_t i = 0; i < w->l1->count && rc == 0; i++) {
        uint64_t offset = w->l1->entries[i] & QCOW2_OFFSET_MASK;
        if (offset && (!w->wants || w->wants(w, i))) {
            b->tables[b->count] = (struct table){.q = q,
                                                 .offset = offset,
                                                 .to = offset,
                                                 .index = i,
                                                 .data = memory + b->count * cluster};
            b->count++;
        }
        if (b->count == most)
            rc = co_walk_bundle(w, b);
    }
    if (rc == 0 && b->count)
        rc = co_walk_bundle(w, b);
    return rc;
}

/* The first word of the entry at @data, COPIED and all; the bitmap behind it in a long one says
 * nothing of places. */
uint64_t qcow2_entry_word(const uint8_t *data)
{
    be64 raw;

    memcpy(&raw, data, sizeof(raw));
    return be64_get(raw);
}

void qcow2_entry_word_put(uint8_t *data, uint64_t bits)
{
    be64 raw = be64_of(bits);

    memcpy(data, &raw, sizeof(raw));
}

/* --- for others ----------------------------------------------------------- */

struct each {
    struct walk walk;
    int (*fn)(void *arg, struct qcow2_l2_seen *t);
    void *arg;
};

static int each_table(struct walk *w, struct table *t)
{
    struct each *each = container_of(w, struct each, walk);
    struct qcow2_l2_seen seen = {.offset = t->offset, .data = t->data, .to = t->to};
    int rc = each->fn(each->arg, &seen);

    t->dirty = seen.dirty;
    t->to = seen.to;
    return rc;
}

int co_qcow2_each_l2(struct qcow2 *q, struct qcow2_l1 *l,
                     int (*fn)(void *arg, struct qcow2_l2_seen *t), void *arg)
{
    struct each each = {.walk = {.co_fn = each_table, .l1 = l}, .fn = fn, .arg = arg};

    return co_walk(q, &each.walk);
}

/* --- counting ------------------------------------------------------------- */

struct counting {
    struct walk walk;
    struct qcow2 *q;
    struct qcow2_shadow *shadow; /* NULL: the image's own counts */
    int delta;
    uint64_t *clusters, *spare; /* SORTED_AT_ONCE each */
    size_t used;
    uint64_t done;  /* references that were counted */
    uint64_t limit; /* count no more than so many: to take back what was done */
    uint64_t freed; /* bytes */
};

/* How many of sorted[0..n) lie in the first one's page of counts. */
static size_t in_page(const struct qcow2 *q, const uint64_t *sorted, size_t n)
{
    uint64_t end = sorted[0] + qcow2_page_run(q, sorted[0]);
    size_t k = 1;

    while (k < n && sorted[k] < end)
        k++;
    return k;
}

static size_t repeats(const uint64_t *sorted, size_t n)
{
    size_t k = 1;

    while (k < n && sorted[k] == sorted[0])
        k++;
    return k;
}

/* The references sorted[0..n), all in one page: all are counted, or none. Those whose count becomes
 * zero move to the front, *zeroes of them. */
static int co_count_page(struct counting *c, uint64_t *sorted, size_t n, size_t *zeroes)
{
    struct qcow2 *q = c->q;
    uint32_t order = q->header.refcount_order;
    uint64_t max = qcow2_count_max(order), base, first = sorted[0];
    struct meta_page *page;
    int delta = c->delta;
    int rc = c->shadow ? co_qcow2_shadow_page(c->shadow, first, &page, &base)
                       : co_qcow2_count_page(q, first, &page, &base);

    *zeroes = 0;
    if (rc < 0)
        return rc == -ENOENT ? -ERANGE : rc;
    for (size_t i = 0, k; i < n && rc == 0; i += k) {
        uint64_t count = qcow2_count_get(page->data, order, base + (sorted[i] - first));
        k = repeats(sorted + i, n - i);
        if (delta > 0 ? max - count < k : count < k)
            rc = -ERANGE;
    }
    if (rc == 0)
        rc = meta_touch(q->map.meta, page);
    for (size_t i = 0, k; i < n && rc == 0; i += k) {
        uint64_t index = base + (sorted[i] - first), cluster = sorted[i];
        uint64_t count = qcow2_count_get(page->data, order, index);
        k = repeats(sorted + i, n - i);
        count = delta > 0 ? count + k : count - k;
        qcow2_count_set(page->data, order, index, count);
        if (count == 0)
            sorted[(*zeroes)++] = cluster;
    }
    meta_put(q->map.meta, page);
    return rc;
}

/* Clusters that nothing refers to any more, in order. */
static void co_free_clusters(struct counting *c, const uint64_t *sorted, size_t n)
{
    for (size_t i = 0, k; i < n; i += k) {
        for (k = 1; i + k < n && sorted[i + k] == sorted[i] + k;)
            k++;
        co_qcow2_freed(c->q, sorted[i], k);
        c->freed += k << c->q->header.cluster_bits;
    }
}

/* All that was gathered. */
static int co_count_gathered(struct counting *c)
{
    struct sort_job sort = {c->clusters, c->spare, c->used};
    size_t zeroes = 0, freed = 0;
    int rc = co_offload(run_sort, &sort);

    c->clusters = sort.a;
    c->spare = sort.b;
    for (size_t i = 0, k; i < c->used && rc == 0; i += k) {
        if (c->done >= c->limit) {
            rc = 1;
            break;
        }
        k = in_page(c->q, c->clusters + i, c->used - i);
        with_lock(&c->q->alloc);
        rc = co_count_page(c, c->clusters + i, k, &zeroes);
        if (rc == 0) {
            c->done += k;
            memmove(c->spare + freed, c->clusters + i, zeroes * sizeof(*c->spare));
            freed += zeroes;
        }
    }
    c->used = 0;
    if (!c->shadow) /* else nothing is free before the header says so */
        co_free_clusters(c, c->spare, freed);
    return rc;
}

static int co_refer(struct counting *c, uint64_t cluster)
{
    if (c->used == SORTED_AT_ONCE)
        TRY(co_count_gathered(c));
    c->clusters[c->used++] = cluster;
    return 0;
}

static int co_refer_entry(struct counting *c, uint64_t bits, bool *flag)
{
    const struct qcow2_header *h = &c->q->header;
    struct qcow2_entry e;

    if (bits == 0)
        return 0;
    TRY(qcow2_entry_decode(h, (struct qcow2_bits){bits, 0}, &e));
    if (e.state != MAP_PACKED) {
        *flag |= e.copied && e.offset;
        return e.offset ? co_refer(c, e.offset >> h->cluster_bits) : 0;
    }
    uint64_t last = (e.offset + e.packed_bytes - 1) >> h->cluster_bits;
    for (uint64_t at = e.offset >> h->cluster_bits; at <= last; at++)
        TRY(co_refer(c, at));
    return 0;
}

static int co_count_table(struct walk *w, struct table *t)
{
    struct counting *c = container_of(w, struct counting, walk);
    uint32_t step = c->q->map.shape.entry_bytes;
    bool flag = false;

    TRY(co_refer(c, t->offset >> c->q->header.cluster_bits));
    for (uint64_t i = 0; i < c->q->map.cluster_bytes; i += step)
        TRY(co_refer_entry(c, qcow2_entry_word(t->data + i), &flag));
    if (flag)
        w->l1->flagged[t->index / 64] |= 1ULL << t->index % 64;
    if (c->delta < 0) /* it may be somebody else's soon */
        co_meta_forget(c->q->map.meta, t->offset, c->q->map.cluster_bytes);
    return 0;
}

static int co_count_walk(struct counting *c)
{
    int rc = co_walk(c->q, &c->walk);

    if (rc == 0 && c->used)
        rc = co_count_gathered(c);
    return MIN(rc, 0);
}

int co_qcow2_refer_all(struct qcow2 *q, struct qcow2_l1 *l, int delta, struct qcow2_shadow *shadow,
                       uint64_t *freed)
{
    auto_free uint64_t *a = mem_alloc(SORTED_AT_ONCE * sizeof(*a));
    auto_free uint64_t *b = mem_alloc(SORTED_AT_ONCE * sizeof(*b));

    if (!a || !b)
        return -ENOMEM;
    struct counting c = {
        .walk = {.co_fn = co_count_table, .l1 = l},
        .q = q,
        .shadow = shadow,
        .delta = delta,
        .clusters = a,
        .spare = b,
        .limit = UINT64_MAX,
    };
    int rc = co_count_walk(&c);
    if (rc < 0 && delta > 0 && c.done &&
        !shadow) { /* the same walk gathers the same: take back as many */
        c.delta = -1;
        c.limit = c.done;
        c.done = c.used = 0;
        (void)!co_count_walk(&c); /* else they leak */
    }
    q->pack_at = 0; /* where it stood may be free, or shared */
    *freed += c.freed;
    return rc;
}

/* --- COPIED flags --------------------------------------------------------- */

struct flagging {
    struct walk walk;
    struct qcow2 *q;
    struct qcow2_moves *moves;
    uint64_t tables; /* found */
};

static bool is_flagged(struct walk *w, uint32_t index)
{
    return w->l1->flagged[index / 64] >> index % 64 & 1;
}

static void set_flagged(struct qcow2_l1 *l, uint32_t index, bool flagged)
{
    l->flagged[index / 64] &= ~(1ULL << index % 64);
    l->flagged[index / 64] |= (uint64_t)flagged << index % 64;
}

/* A table that was changed goes to its new place; nothing else is known to lie at the old one. */
static int co_move(struct walk *w, struct table *t)
{
    struct flagging *f = container_of(w, struct flagging, walk);

    if (!t->dirty || !f->moves)
        return 0;
    TRY(co_qcow2_shadow_lower(f->moves->shadow, t->offset >> f->q->header.cluster_bits));
    t->to = qcow2_places_take(&f->moves->places);
    w->l1->entries[t->index] = (w->l1->entries[t->index] & ~QCOW2_OFFSET_MASK) | t->to;
    return 0;
}

/* Whether an entry could have the flag, and where it leads. */
static bool may_have_flag(const struct qcow2 *q, uint64_t bits, uint64_t *cluster)
{
    struct qcow2_entry e;

    if (bits == 0 || qcow2_entry_decode(&q->header, (struct qcow2_bits){bits, 0}, &e) < 0 ||
        e.state == MAP_PACKED || !e.offset)
        return false;
    *cluster = e.offset >> q->header.cluster_bits;
    return true;
}

static int find_copied(struct walk *w, struct table *t)
{
    struct flagging *f = container_of(w, struct flagging, walk);
    uint32_t step = t->q->map.shape.entry_bytes;
    bool found = false;

    for (uint64_t i = 0; i < t->q->map.cluster_bytes && !found; i += step)
        found = qcow2_entry_word(t->data + i) & QCOW2_COPIED;
    set_flagged(w->l1, t->index, found);
    f->tables += found;
    return 0;
}

int co_qcow2_find_copied(struct qcow2 *q, struct qcow2_l1 *l, uint64_t *tables)
{
    struct flagging f = {.walk = {.co_fn = find_copied, .l1 = l}, .q = q};
    int rc = co_walk(q, &f.walk);

    *tables = f.tables;
    return rc;
}

static int co_find_uncopied(struct walk *w, struct table *t)
{
    struct flagging *f = container_of(w, struct flagging, walk);
    struct qcow2 *q = t->q;
    uint32_t step = q->map.shape.entry_bytes;
    bool found = false;

    with_lock(&q->alloc);
    for (uint64_t i = 0; i < q->map.cluster_bytes && !found; i += step) {
        uint64_t bits = qcow2_entry_word(t->data + i), cluster, count;
        if (bits & QCOW2_COPIED || !may_have_flag(q, bits, &cluster))
            continue;
        TRY(co_qcow2_count(q, cluster, &count));
        found = count <= 2;
    }
    set_flagged(w->l1, t->index, found);
    f->tables += found;
    return 0;
}

/* Also tables that others share by their count: it may be a leak that a crash left, which the
 * clusters that they lead to need not have. */
int co_qcow2_find_uncopied(struct qcow2 *q, struct qcow2_l1 *l, uint64_t *tables)
{
    struct flagging f = {.walk = {.co_fn = co_find_uncopied, .l1 = l}, .q = q};
    int rc = co_walk(q, &f.walk);

    *tables = f.tables;
    return rc;
}

static int co_clear_table(struct walk *w, struct table *t)
{
    uint32_t step = t->q->map.shape.entry_bytes;

    for (uint64_t i = 0; i < t->q->map.cluster_bytes; i += step) {
        uint64_t bits = qcow2_entry_word(t->data + i);
        if (!(bits & QCOW2_COPIED))
            continue;
        qcow2_entry_word_put(t->data + i, bits & ~QCOW2_COPIED);
        t->dirty = true;
    }
    return co_move(w, t);
}

int co_qcow2_clear_copied(struct qcow2 *q, struct qcow2_l1 *l, struct qcow2_moves *moves)
{
    struct flagging f = {
        .walk = {.co_fn = co_clear_table, .wants = is_flagged, .l1 = l}, .q = q, .moves = moves};

    for (uint32_t i = 0; i < l->count; i++)
        l->entries[i] &= ~QCOW2_COPIED;
    return co_walk(q, &f.walk);
}

static int co_set_table(struct walk *w, struct table *t)
{
    struct flagging *f = container_of(w, struct flagging, walk);
    uint32_t step = t->q->map.shape.entry_bytes;

    for (uint64_t i = 0; i < t->q->map.cluster_bytes; i += step) {
        uint64_t bits = qcow2_entry_word(t->data + i), cluster, count;
        if (bits & QCOW2_COPIED || !may_have_flag(t->q, bits, &cluster))
            continue;
        TRY(co_qcow2_shadow_count(f->moves->shadow, cluster, &count));
        if (count != 1)
            continue;
        qcow2_entry_word_put(t->data + i, bits | QCOW2_COPIED);
        t->dirty = true;
    }
    return co_move(w, t);
}

int co_qcow2_set_copied(struct qcow2 *q, struct qcow2_l1 *l, struct qcow2_moves *moves)
{
    struct flagging f = {
        .walk = {.co_fn = co_set_table, .wants = is_flagged, .l1 = l}, .q = q, .moves = moves};

    TRY(co_walk(q, &f.walk));
    for (uint32_t i = 0; i < l->count; i++) {
        uint64_t offset = l->entries[i] & QCOW2_OFFSET_MASK, count = 0;
        if (offset)
            TRY(co_qcow2_shadow_count(moves->shadow, offset >> q->header.cluster_bits, &count));
        if (count == 1)
            l->entries[i] |= QCOW2_COPIED;
    }
    return 0;
}

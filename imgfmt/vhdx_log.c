/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx_log.c - the log of a VHDX: which of its entries count, what they make of the file, and the
 * bytes of new ones. Over memory only.
 *
 *   | entry: header 64, descriptors 32 each, to whole pages; a page for each "desc" | entry | ...
 *
 * The log is a ring. Entries that count carry the header's GUID, follow one another without a gap,
 * in place and in number, and the last one's tail is the place of one of them: from there on they
 * are replayed. Of several such sequences the one with the highest number counts. A page in the log
 * lacks its first 8 and last 4 bytes, which the descriptor has; the number of the entry stands
 * there instead, so a page that was half written shows. */
#include <stdlib.h>

#include "block/crc32c.h"
#include "imgfmt/vhdx.h"

#define HEAD_BYTES  ((uint64_t)sizeof(struct vhdx_log_entry_disk))
#define DESC_BYTES  ((uint64_t)sizeof(struct vhdx_descriptor_disk))
#define ZEROES_MOST 4096 /* zeroed stretches of one log */
/* Bytes that are summed for each byte of log: entries of an honest one hardly overlap. */
#define SUM_FACTOR 8

/* --- entries --- */

struct scan {
    const uint8_t *log;
    uint64_t bytes, summed;
    const uint8_t *guid;
};
struct entry {
    uint64_t at, bytes, tail, sequence, flushed, length;
    uint32_t descriptors;
};

static const void *in_log(const struct scan *s, uint64_t at)
{
    return s->log + at % s->bytes;
}

static uint64_t front_bytes(uint64_t descriptors)
{
    return align_up(HEAD_BYTES + descriptors * DESC_BYTES, VHDX_PAGE);
}

static const struct vhdx_descriptor_disk *descriptor(const struct scan *s, const struct entry *n,
                                                     uint32_t i)
{
    return in_log(s, n->at + HEAD_BYTES + i * DESC_BYTES);
}

/* Summed up in two parts where the entry goes over the end. */
static uint32_t sum_of(const struct scan *s, const struct entry *n)
{
    uint64_t first = MIN(n->bytes, s->bytes - n->at);
    uint32_t sum =
        crc32c_but(s->log + n->at, first, offsetof(struct vhdx_log_entry_disk, checksum));
    return crc32c(sum, s->log, n->bytes - first);
}

static bool is_desc(const struct vhdx_descriptor_disk *d)
{
    return memcmp(d->signature, "desc", 4) == 0;
}

static bool data_fits(const struct scan *s, const struct entry *n, uint64_t at)
{
    const struct vhdx_log_data_disk *p = in_log(s, at);
    return memcmp(p->signature, "data", 4) == 0 &&
           le32_get(p->sequence_high) == n->sequence >> 32 &&
           le32_get(p->sequence_low) == (uint32_t)n->sequence;
}

static bool descriptors_fit(const struct scan *s, const struct entry *n)
{
    uint64_t data = front_bytes(n->descriptors);
    for (uint32_t i = 0; i < n->descriptors; i++) {
        const struct vhdx_descriptor_disk *d = descriptor(s, n, i);
        uint64_t bytes = is_desc(d) ? VHDX_PAGE : le64_get(d->leading);
        if (le64_get(d->sequence) != n->sequence || le64_get(d->offset) % VHDX_PAGE ||
            bytes % VHDX_PAGE || !range_fits(le64_get(d->offset), bytes, INT64_MAX))
            return false;
        if (!is_desc(d) && memcmp(d->signature, "zero", 4) != 0)
            return false;
        if (!is_desc(d))
            continue;
        if (data + VHDX_PAGE > n->bytes || !data_fits(s, n, n->at + data))
            return false;
        data += VHDX_PAGE;
    }
    return true;
}

/* A valid entry at @at? -EFBIG: looking takes too long. */
static int look(struct scan *s, uint64_t at, struct entry *out, bool *valid)
{
    const struct vhdx_log_entry_disk *raw = in_log(s, at);
    *out = (struct entry){
        .at = at,
        .bytes = le32_get(raw->bytes),
        .tail = le32_get(raw->tail),
        .sequence = le64_get(raw->sequence),
        .flushed = le64_get(raw->flushed),
        .length = le64_get(raw->length),
        .descriptors = le32_get(raw->descriptors),
    };
    *valid = memcmp(raw->signature, "loge", 4) == 0 && memcmp(raw->guid, s->guid, 16) == 0 &&
             out->sequence != 0 && out->bytes % VHDX_PAGE == 0 && out->bytes <= s->bytes &&
             out->tail % VHDX_PAGE == 0 && out->tail < s->bytes &&
             front_bytes(out->descriptors) <= out->bytes;
    if (!*valid)
        return 0;
    s->summed += out->bytes;
    if (s->summed > SUM_FACTOR * s->bytes)
        return -EFBIG;
    *valid = sum_of(s, out) == le32_get(raw->checksum) && descriptors_fit(s, out);
    return 0;
}

/* --- the sequence that counts --- */

struct sequence {
    uint64_t start;    /* of the first entry */
    uint64_t bytes;    /* of all */
    struct entry last; /* sequence 0: there is none */
};

/* All that follow one another from @at on. */
static int follow(struct scan *s, uint64_t at, struct sequence *out)
{
    struct entry n;
    bool valid;
    *out = (struct sequence){.start = at};
    while (out->bytes < s->bytes) {
        TRY(look(s, (at + out->bytes) % s->bytes, &n, &valid));
        bool next = out->last.sequence == 0 || n.sequence == out->last.sequence + 1;
        if (!valid || !next || n.bytes > s->bytes - out->bytes)
            break;
        out->last = n;
        out->bytes += n.bytes;
    }
    return 0;
}

/* The last entry's tail is the place of one of them: then out->start becomes that. */
static int cut_to_tail(struct scan *s, struct sequence *q, bool *found)
{
    struct entry n;
    bool valid;
    *found = false;
    for (uint64_t done = 0; done < q->bytes; done += n.bytes) {
        uint64_t at = (q->start + done) % s->bytes;
        TRY(look(s, at, &n, &valid));
        if (at == q->last.tail) {
            *found = true;
            q->start = at;
            q->bytes -= done;
            return 0;
        }
    }
    return 0;
}

static int find_sequence(struct scan *s, struct sequence *best)
{
    *best = (struct sequence){0};
    for (uint64_t at = 0; at < s->bytes;) {
        struct sequence q;
        bool counts = false;
        TRY(follow(s, at, &q));
        at += MAX(q.bytes, VHDX_PAGE); /* past the end: it went around */
        if (q.last.sequence > best->last.sequence)
            TRY(cut_to_tail(s, &q, &counts));
        if (counts)
            *best = q;
    }
    return 0;
}

/* --- what it does --- */

static int count_changes(struct scan *s, const struct sequence *q, struct vhdx_replay *r)
{
    struct entry n;
    bool valid;
    for (uint64_t done = 0; done < q->bytes; done += n.bytes) {
        TRY(look(s, (q->start + done) % s->bytes, &n, &valid));
        for (uint32_t i = 0; i < n.descriptors; i++) {
            bool desc = is_desc(descriptor(s, &n, i));
            r->page_count += desc;
            r->zero_count += !desc;
        }
    }
    if (r->zero_count > ZEROES_MOST)
        return -EFBIG;
    r->pages = mem_array(MAX(r->page_count, 1), sizeof(*r->pages));
    r->zeroes = mem_array(MAX(r->zero_count, 1), sizeof(*r->zeroes));
    return r->pages && r->zeroes ? 0 : -ENOMEM;
}

static void collect_entry(struct scan *s, const struct entry *n, struct vhdx_replay *r)
{
    uint64_t data = n->at + front_bytes(n->descriptors);
    for (uint32_t i = 0; i < n->descriptors; i++) {
        const struct vhdx_descriptor_disk *d = descriptor(s, n, i);
        struct vhdx_change c = {.offset = le64_get(d->offset),
                                .bytes = VHDX_PAGE,
                                .order = r->page_count + r->zero_count,
                                .desc = d};
        if (is_desc(d)) {
            c.data = in_log(s, data);
            data += VHDX_PAGE;
            r->pages[r->page_count++] = c;
        } else {
            c.bytes = le64_get(d->leading);
            r->zeroes[r->zero_count++] = c;
        }
    }
}

static int by_offset(const void *a, const void *b)
{
    const struct vhdx_change *p = a, *q = b;
    if (p->offset != q->offset)
        return p->offset < q->offset ? -1 : 1;
    return p->order < q->order ? -1 : p->order > q->order;
}

static int collect(struct scan *s, const struct sequence *q, struct vhdx_replay *r)
{
    struct entry n;
    bool valid;
    size_t kept = 0;
    TRY(count_changes(s, q, r));
    r->page_count = r->zero_count = 0;
    for (uint64_t done = 0; done < q->bytes; done += n.bytes) {
        TRY(look(s, (q->start + done) % s->bytes, &n, &valid));
        collect_entry(s, &n, r);
        r->length = MAX(r->length, n.length);
    }
    qsort(r->pages, r->page_count, sizeof(*r->pages), by_offset);
    for (size_t i = 0; i < r->page_count; i++)
        if (i + 1 == r->page_count || r->pages[i + 1].offset != r->pages[i].offset)
            r->pages[kept++] = r->pages[i];
    r->page_count = kept;
    return 0;
}

int vhdx_replay_find(struct vhdx_replay *r, const struct vhdx_header *h, uint64_t file_bytes,
                     struct blk_error *e)
{
    struct scan s = {.log = r->log, .bytes = r->log_bytes, .guid = h->log_guid};
    struct sequence q;
    int rc = find_sequence(&s, &q);
    s.summed = 0;
    if (rc == 0 && q.last.flushed > file_bytes)
        return err_set(e, -EINVAL,
                       "the log was written when the file had %" PRIu64 " bytes; it has %" PRIu64,
                       q.last.flushed, file_bytes);
    if (rc == 0)
        rc = collect(&s, &q, r);
    if (rc == -EFBIG)
        return err_set(e, rc, "the log is too intricate to be replayed");
    if (rc == 0 && r->length > 2 * VHDX_SIZE_MOST)
        return err_bad(e, -EINVAL, "the log asks for a file of %" PRIu64 " bytes", r->length);
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

void vhdx_replay_drop(struct vhdx_replay *r)
{
    mem_free(r->log);
    mem_free(r->pages);
    mem_free(r->zeroes);
    *r = (struct vhdx_replay){0};
}

void vhdx_change_page(const struct vhdx_change *c, void *page)
{
    uint8_t *to = page;
    memcpy(to, &c->desc->leading, 8);
    memcpy(to + 8, c->data->bytes, sizeof(c->data->bytes));
    memcpy(to + VHDX_PAGE - 4, &c->desc->trailing, 4);
}

/* The last change of the page at @offset; NULL: there is none. */
static const struct vhdx_change *change_at(const struct vhdx_replay *r, uint64_t offset)
{
    const struct vhdx_change *found = NULL;
    size_t low = 0, high = r->page_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->pages[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < r->page_count && r->pages[low].offset == offset)
        found = &r->pages[low];
    for (size_t i = r->zero_count; i-- > 0;) {
        const struct vhdx_change *z = &r->zeroes[i];
        if (offset >= z->offset && offset - z->offset < z->bytes)
            return found && found->order > z->order ? found : z;
    }
    return found;
}

void vhdx_replay_patch(const struct vhdx_replay *r, uint64_t offset, void *to, uint64_t bytes)
{
    uint8_t page[VHDX_PAGE];
    if (!r->log)
        return;
    for (uint64_t done = 0, n; done < bytes; done += n) {
        uint64_t at = offset + done, in_page = at % VHDX_PAGE;
        const struct vhdx_change *c = change_at(r, at - in_page);
        n = MIN(bytes - done, VHDX_PAGE - in_page);
        if (!c)
            continue;
        memset(page, 0, sizeof(page));
        if (c->data)
            vhdx_change_page(c, page);
        memcpy((uint8_t *)to + done, page + in_page, n);
    }
}

/* --- new entries --- */

uint64_t vhdx_entry_bytes(uint64_t pages)
{
    return front_bytes(pages) + pages * VHDX_PAGE;
}

void vhdx_entry_begin(void *to, const struct vhdx_log_entry *l, uint32_t pages)
{
    struct vhdx_log_entry_disk *raw = to;
    memset(to, 0, front_bytes(pages));
    memcpy(raw->signature, "loge", 4);
    raw->bytes = le32_of(vhdx_entry_bytes(pages));
    raw->tail = le32_of(l->tail);
    raw->sequence = le64_of(l->sequence);
    raw->descriptors = le32_of(pages);
    memcpy(raw->guid, l->guid, 16);
    raw->flushed = le64_of(l->flushed);
    raw->length = le64_of(l->length);
}

void vhdx_entry_page(void *to, uint32_t i, uint64_t offset, const void *page)
{
    struct vhdx_log_entry_disk *raw = to;
    struct vhdx_descriptor_disk *d = (void *)((uint8_t *)to + HEAD_BYTES + i * DESC_BYTES);
    struct vhdx_log_data_disk *data =
        (void *)((uint8_t *)to + front_bytes(le32_get(raw->descriptors)) + i * (uint64_t)VHDX_PAGE);
    uint64_t sequence = le64_get(raw->sequence);
    memcpy(d->signature, "desc", 4);
    memcpy(&d->leading, page, 8);
    memcpy(&d->trailing, (const uint8_t *)page + VHDX_PAGE - 4, 4);
    d->offset = le64_of(offset);
    d->sequence = raw->sequence;
    memcpy(data->signature, "data", 4);
    data->sequence_high = le32_of((uint32_t)(sequence >> 32));
    memcpy(data->bytes, (const uint8_t *)page + 8, sizeof(data->bytes));
    data->sequence_low = le32_of((uint32_t)sequence);
}

void vhdx_entry_seal(void *to)
{
    vhdx_seal(to, le32_get(((struct vhdx_log_entry_disk *)to)->bytes));
}

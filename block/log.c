/* SPDX-License-Identifier: BSD-3-Clause */
/* log.c - a layer that passes everything on and remembers each write, zero, discard and flush: in
 * memory, and where a child "log" is given, in that as well.
 *
 *   a log file:  | header | record | data | record | data | ...   all little endian
 *
 * Reads go straight through; changes never resolve, so none is missed. A record is made when its
 * request has ended, failed ones too; if it cannot be kept, the request fails with that error. */
#include "block/log.h"
#include "block/endian.h"

#define LOG_MAGIC "lamina log 1\n\0\0"

struct log_header_disk { /* 16 bytes at offset 0 */
    char magic[16];
};

struct log_record_disk { /* 56 bytes, the data of a write behind it where it was kept */
    le32 op, flags;
    le32 rc; /* negated errno */
    le32 has_data;
    le64 offset, bytes, began, hash;
    le64 check; /* 0x6c6f67 + op, so that a torn tail is told from a record */
};
static_assert(sizeof(struct log_header_disk) == 16, "log header");
static_assert(sizeof(struct log_record_disk) == 56, "log record");
#define RECORD_CHECK 0x6c6f67ULL

struct log {
    struct blk_device *child, *file; /* file: NULL, or where records are written */
    bool keep_data;
    struct log_record *records;
    size_t count, room;
    uint64_t file_end;
};

uint64_t log_hash(const struct vec *v)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (uint64_t at = 0; at < v->bytes;) {
        size_t len;
        struct vec rest = vec_slice(v, at, v->bytes - at);
        const uint8_t *p = vec_first(&rest, &len);
        for (size_t i = 0; i < len; i++)
            hash = (hash ^ p[i]) * 0x100000001b3;
        at += len;
    }
    return hash;
}

size_t log_count(const struct blk_device *dev)
{
    assert(dev->driver == &log_driver);
    return ((const struct log *)dev->state)->count;
}

const struct log_record *log_at(const struct blk_device *dev, size_t index)
{
    const struct log *l = dev->state;
    assert(dev->driver == &log_driver && index < l->count);
    return &l->records[index];
}

void log_drop(struct log_record *records, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mem_free(records[i].data);
    mem_free(records);
}

void log_clear(struct blk_device *dev)
{
    struct log *l = dev->state;
    assert(dev->driver == &log_driver);
    log_drop(l->records, l->count);
    l->records = NULL;
    l->count = l->room = 0;
}

/* --- keeping ---------------------------------------------------------------------------------- */

static int append_to_file(struct log *l, const struct log_record *r)
{
    uint64_t data_bytes = r->data ? r->bytes : 0;
    struct log_record_disk raw = {.op = le32_of(r->op),
                                  .flags = le32_of(r->flags),
                                  .rc = le32_of((uint32_t)-r->rc),
                                  .has_data = le32_of(r->data != NULL),
                                  .offset = le64_of(r->offset),
                                  .bytes = le64_of(r->bytes),
                                  .began = le64_of(r->began),
                                  .hash = le64_of(r->hash),
                                  .check = le64_of(RECORD_CHECK + r->op)};
    struct iovec iov[2] = {{&raw, sizeof(raw)}, {r->data, data_bytes}};
    struct vec v = {.iov = iov, .bytes = sizeof(raw) + data_bytes};
    uint64_t at = l->file_end;
    l->file_end += v.bytes; /* others append behind it meanwhile */
    return co_blk_write(l->file, at, &v, 0);
}

static struct log_record *new_record(struct log *l)
{
    if (l->count == l->room) {
        size_t room = MAX(l->room * 2, (size_t)64);
        struct log_record *grown = mem_resize(l->records, room * sizeof(*grown));
        if (!grown)
            return NULL;
        l->records = grown;
        l->room = room;
    }
    return &l->records[l->count];
}

/* Takes r->data. Gives the error that the request ends with. */
static int co_keep(struct log *l, struct log_record r)
{
    struct log_record *slot = new_record(l);
    if (!slot) {
        mem_free(r.data);
        return r.rc < 0 ? r.rc : -ENOMEM;
    }
    *slot = r;
    l->count++;
    int rc = l->file ? append_to_file(l, &r) : 0;
    return r.rc < 0 ? r.rc : rc;
}

/* --- requests --------------------------------------------------------------------------------- */

static int co_log_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct log *l = dev->state;
    struct log_record r = {.op = LOG_WRITE,
                           .flags = flags,
                           .offset = offset,
                           .bytes = from->bytes,
                           .began = l->count,
                           .hash = log_hash(from)};
    if (l->keep_data) {
        r.data = mem_alloc(from->bytes);
        if (!r.data)
            return -ENOMEM;
        vec_to_buf(from, r.data);
    }
    r.rc = co_blk_write(l->child, offset, from, flags);
    return co_keep(l, r);
}

static int co_log_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                               unsigned flags)
{
    struct log *l = dev->state;
    struct log_record r = {
        .op = LOG_ZERO, .flags = flags, .offset = offset, .bytes = bytes, .began = l->count};
    r.rc = co_blk_write_zeroes(l->child, offset, bytes, flags);
    return co_keep(l, r);
}

static int co_log_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct log *l = dev->state;
    struct log_record r = {.op = LOG_DISCARD, .offset = offset, .bytes = bytes, .began = l->count};
    r.rc = co_blk_discard(l->child, offset, bytes);
    return co_keep(l, r);
}

static int co_log_flush(struct blk_device *dev)
{
    struct log *l = dev->state;
    struct log_record r = {.op = LOG_FLUSH, .began = l->count};
    r.rc = co_blk_flush(l->child);
    return co_keep(l, r);
}

static bool log_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                        struct blk_place *out)
{
    const struct log *l = dev->state;
    if (write)
        return false;
    *out = (struct blk_place){.child = l->child, .offset = offset, .bytes = bytes};
    return true;
}

static int co_log_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    return -ENOTSUP; /* the bytes must be seen */
}

static int co_log_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    const struct log *l = dev->state;
    return co_blk_resize(l->child, size, shrink, e);
}

/* --- open, close ------------------------------------------------------------------------------ */

static const struct opt_desc log_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the device below"},
    {.name = "log", .type = OPT_CHILD, .help = "a file to write the records to"},
    {.name = "data", .type = OPT_BOOL, .preset = "off", .help = "keep the bytes of writes"},
    {0},
};

static int start_file(struct log *l, struct blk_error *e)
{
    const struct log_header_disk header = {.magic = LOG_MAGIC};
    if (!l->file->limits.growable)
        return err_set(e, -EINVAL, "the log %s is not a file that can grow", l->file->name);
    int rc = co_blk_resize(l->file, 0, true, e);
    if (rc == 0) {
        rc = co_blk_write_buf(l->file, 0, &header, sizeof(header), 0);
        if (rc < 0)
            err_errno(e, rc, "the log %s cannot be written", l->file->name);
    }
    l->file_end = sizeof(header);
    return rc;
}

/* While the device is read-only there is nothing to record, and the log file stays as it is. */
static int co_log_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    struct log *l = dev->state;
    struct blk_device *file = blk_child(dev, "log");
    if (!write || l->file || !file)
        return 0;
    l->file = file;
    int rc = start_file(l, e);
    if (rc < 0)
        l->file = NULL;
    return rc;
}

static int co_log_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct blk_device *child, *file = blk_child(dev, "log");
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    if (!file && opts_given(opts, "log"))
        TRY(co_blk_want_child(dev, opener, "log", dev->open_flags | BLK_OPEN_WRITE, &file, e));
    struct log *l = mem_zalloc(sizeof(*l));
    if (!l)
        return err_set(e, -ENOMEM, "out of memory");
    *l = (struct log){.child = child, .keep_data = opts_bool(opts, "data")};
    dev->state = l;
    int rc = dev->writable ? co_log_reopen(dev, true, e) : 0;
    if (rc < 0) {
        mem_free(l);
        return rc;
    }
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    dev->limits.growable = child->limits.growable;
    return 0;
}

static int co_log_close(struct blk_device *dev, struct blk_error *e)
{
    log_clear(dev);
    mem_free(dev->state);
    return 0;
}

const struct blk_driver log_driver = {
    .name = "log",
    .title = "remembers every write and flush to the device below",
    .is_filter = true,
    .handles_fua = true,
    .open_options = log_options,
    .co_open = co_log_open,
    .co_close = co_log_close,
    .co_reopen = co_log_reopen,
    .co_write = co_log_write,
    .co_write_zeroes = co_log_write_zeroes,
    .co_discard = co_log_discard,
    .co_flush = co_log_flush,
    .resolve = log_resolve,
    .co_copy = co_log_copy,
    .co_resize = co_log_resize,
};

/* --- reading back ----------------------------------------------------------------------------- */

/* Reads the record at *at and moves *at behind it. 1: there is none (end, or a torn tail). */
static int co_read_record(struct blk_device *file, uint64_t *at, struct log_record *out,
                          struct blk_error *e)
{
    struct log_record_disk raw;
    if (!range_fits(*at, sizeof(raw), file->size))
        return 1;
    int rc = co_blk_read_buf(file, *at, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "%s cannot be read", file->name);
    uint32_t op = le32_get(raw.op);
    if (op > LOG_FLUSH || le64_get(raw.check) != RECORD_CHECK + op)
        return 1;
    *out = (struct log_record){.op = op,
                               .flags = le32_get(raw.flags),
                               .rc = -(int)(le32_get(raw.rc) & 0xfff),
                               .offset = le64_get(raw.offset),
                               .bytes = le64_get(raw.bytes),
                               .began = le64_get(raw.began),
                               .hash = le64_get(raw.hash)};
    uint64_t data = *at + sizeof(raw);
    *at = data;
    if (!le32_get(raw.has_data))
        return 0;
    if (!range_fits(data, out->bytes, file->size))
        return 1;
    out->data = mem_alloc(out->bytes);
    if (!out->data)
        return err_set(e, -ENOMEM, "out of memory");
    rc = co_blk_read_buf(file, data, out->data, out->bytes);
    *at += out->bytes;
    if (rc < 0) {
        mem_free(out->data);
        return err_errno(e, rc, "%s cannot be read", file->name);
    }
    return 0;
}

int co_log_read(struct blk_device *file, struct log_record **out, size_t *count,
                struct blk_error *e)
{
    struct log_header_disk header = {0};
    struct log l = {0};
    if (file->size >= sizeof(header))
        TRY(co_blk_read_buf(file, 0, &header, sizeof(header)));
    if (memcmp(header.magic, LOG_MAGIC, sizeof(header.magic)) != 0)
        return err_set(e, -EINVAL, "%s is not a log of writes: it does not begin as one",
                       file->name);
    uint64_t at = sizeof(header);
    for (;;) {
        struct log_record *slot = new_record(&l);
        int rc = slot ? co_read_record(file, &at, slot, e) : err_set(e, -ENOMEM, "out of memory");
        if (rc == 0) {
            l.count++;
            continue;
        }
        if (rc < 0) {
            log_drop(l.records, l.count);
            return rc;
        }
        *out = l.records;
        *count = l.count;
        return 0;
    }
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* luks_read.c - which header of an image counts. Version 1 has one; of the two of version 2 the
 * valid one with the higher sequence number does, and where the first is damaged the second is
 * looked for at the few places where it may be. Nothing is repaired. */
#include "block/worker.h"
#include "imgfmt/luks.h"

struct header2 {
    uint8_t *raw;
    uint64_t bytes, file_bytes;
    struct luks *out;
    struct blk_error *e;
};

/* On the pool: a deep JSON text needs more stack than a coroutine has. */
static int check_and_parse(void *arg)
{
    struct header2 *h = arg;
    TRY(luks2_check(h->raw, h->bytes, h->e));
    return luks2_parse(h->raw, h->bytes, h->file_bytes, h->out, h->e);
}

/* The header at @at of version 2; -ENOENT: there is none. */
static int co_header2(const struct luks_where *w, uint64_t at, uint64_t file_bytes,
                      struct luks *out, struct blk_error *e)
{
    auto_free uint8_t *raw = mem_alloc(LUKS2_BINARY);
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    if (!range_fits(at, LUKS2_BINARY, file_bytes))
        return err_set(e, -ENOENT, "not a luks image: it is too short");
    int rc = co_blk_read_buf(w->file, w->at + at, raw, LUKS2_BINARY);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the LUKS header");
    uint64_t all = luks2_header_bytes(raw, LUKS2_BINARY, at);
    if (!all || !range_fits(at, all, file_bytes))
        return err_bad(e, -ENOENT, "the LUKS2 header at %" PRIu64 " is damaged", at);
    mem_free(take(raw));
    raw = mem_alloc(all);
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    rc = co_blk_read_buf(w->file, w->at + at, raw, all);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the LUKS header");
    struct header2 h = {raw, all, file_bytes, out, e};
    return co_offload(check_and_parse, &h);
}

/* The second header where the first does not say where it is. */
static int co_search_second(const struct luks_where *w, uint64_t file_bytes, struct luks *out,
                            struct blk_error *e)
{
    struct blk_error ignored;
    for (uint64_t at = LUKS2_HEADER_MIN; at <= LUKS2_HEADER_MAX; at *= 2)
        if (co_header2(w, at, file_bytes, out, &ignored) == 0)
            return 0;
    return e ? e->rc : -EINVAL; /* what is wrong with the first */
}

static int co_read2(const struct luks_where *w, uint64_t file_bytes, struct luks *out,
                    struct blk_error *e)
{
    struct blk_error ignored, first_error = {0};
    int rc = co_header2(w, 0, file_bytes, out, &first_error);
    if (rc == -ENOMEM || rc == -EIO || rc == -ENOTSUP) {
        if (e)
            *e = first_error;
        return rc;
    }
    if (rc < 0) {
        rc = co_search_second(w, file_bytes, out, &first_error);
        if (rc < 0 && e)
            *e = first_error;
        return rc == -ENOENT ? -EINVAL : rc;
    }
    struct luks *second = mem_zalloc(sizeof *second);
    if (second && co_header2(w, out->header_bytes, file_bytes, second, &ignored) == 0 &&
        second->sequence > out->sequence)
        *out = *second;
    mem_free(second);
    return 0;
}

int co_luks_read(const struct luks_where *w, struct luks *out, struct blk_error *e)
{
    uint8_t head[sizeof(struct luks1_disk)];
    uint64_t end = w->bytes ? w->bytes : w->file->size - MIN(w->at, w->file->size);
    size_t bytes = MIN(end, sizeof head);
    int rc = bytes ? co_blk_read_buf(w->file, w->at, head, bytes) : 0;
    if (rc < 0)
        return err_errno(e, rc, "cannot read the LUKS header");
    if (w->own_payload && !w->fresh && luks_version_of(head, bytes) != 1) {
        rc = co_read2(w, end, out, e);
        if (rc < 0 && luks_version_of(head, bytes) != 2 && rc != -ENOMEM && rc != -EIO)
            return err_wrong_format(e, "not a luks image");
        return rc;
    }
    struct luks_parse in = {head, bytes, end, w->own_payload, w->fresh};
    return luks1_parse(&in, out, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* client.c - a remote NBD export as a device: options, sizes, requests.
 *
 * Every request is a call or a few (client.h); many are in flight, on one connection or several.
 * What the server cannot do is done without: FUA by a flush, block status by "all of it is data".
 * Requests outlive a server that goes away for less than reconnect-delay; nothing is lost with it
 * (client_replay.c). */
#ifdef HAVE_LIBNBD
#include <libnbd.h>

#include "block/resolver.h"
#include "block/worker.h"
#include "nbd/client.h"

#define SECOND       1000000000ULL
#define MAX_TRANSFER (8 * MiB)
#define MAX_RANGE    (1 * GiB) /* of one trim, zero or status on the wire */

static struct client *client_of(const struct blk_device *dev)
{
    return dev->state;
}

/* --- requests -----------------------------------------------------------------------------------
 */

/* One contiguous piece of memory for the whole of @v: its own, or a buffer. NULL: no memory. */
static void *flat(const struct vec *v, bool *own)
{
    size_t first;
    void *at = vec_first(v, &first);

    *own = first < v->bytes;
    return *own ? buf_get(v->bytes) : at;
}

static int co_client_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct client_call call = {.op = CLIENT_READ, .offset = offset, .bytes = to->bytes};
    bool own;

    call.buf = flat(to, &own);
    if (!call.buf)
        return -ENOMEM;
    int rc = co_client_call(client_of(dev), &call);
    if (rc == 0 &&
        call.odd) { /* allowed, but the same bytes twice and others never would look so */
        memset(call.buf, 0, call.bytes);
        rc = co_client_call(client_of(dev), &call);
    }
    if (own && rc == 0)
        vec_from_buf(to, call.buf);
    if (own)
        buf_put(call.buf, to->bytes);
    return rc;
}

/* A change of the disk's contents, with FUA where the server has it or not. */
static int co_change(struct client *c, struct client_call *call, unsigned flags)
{
    bool fua = flags & BLK_FUA;

    if (fua && c->facts.fua)
        call->flags |= LIBNBD_CMD_FLAG_FUA;
    TRY(co_replay_prepare(c, call));
    int rc = co_client_call(c, call);
    replay_drop(c, call);
    if (rc == 0 && fua && !c->facts.fua)
        rc = co_client_flush(c);
    return rc;
}

static int co_client_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                           unsigned flags)
{
    struct client_call call = {.op = CLIENT_WRITE, .offset = offset, .bytes = from->bytes};
    bool own;

    call.buf = flat(from, &own);
    if (!call.buf)
        return -ENOMEM;
    if (own)
        vec_to_buf(from, call.buf);
    int rc = co_change(client_of(dev), &call, flags);
    if (own)
        buf_put(call.buf, from->bytes);
    return rc;
}

/* In parts that the wire's 32 bits hold. */
static int co_ranges(struct client *c, struct client_call what, unsigned flags)
{
    uint64_t end = what.offset + what.bytes;

    while (what.offset < end) {
        struct client_call call = what;

        call.bytes = MIN(end - what.offset, MAX_RANGE);
        TRY(co_change(c, &call, flags));
        what.offset += call.bytes;
    }
    return 0;
}

static int co_client_zero(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct client *c = client_of(dev);
    struct client_call call = {.op = CLIENT_ZERO, .offset = offset, .bytes = bytes};

    if (!c->facts.zero || (flags & BLK_NO_FALLBACK && !c->facts.fast_zero))
        return -ENOTSUP;
    if (flags & BLK_NO_FALLBACK)
        call.flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
    if (!(flags & BLK_MAY_UNMAP))
        call.flags |= LIBNBD_CMD_FLAG_NO_HOLE;
    return co_ranges(c, call, flags);
}

static int co_client_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct client *c = client_of(dev);
    struct client_call call = {.op = CLIENT_TRIM, .offset = offset, .bytes = bytes};

    return c->facts.trim ? co_ranges(c, call, 0) : 0;
}

static int co_client_flush_all(struct blk_device *dev)
{
    return co_client_flush(client_of(dev));
}

/* --- block status -------------------------------------------------------------------------------
 */

/* A hole of unknown contents must be read. */
static unsigned extent_flags(uint32_t nbd)
{
    unsigned flags = BLK_EXT_ALLOCATED | BLK_EXT_PLACED;

    if (!(nbd & LIBNBD_STATE_ZERO))
        return flags | BLK_EXT_DATA;
    return flags | BLK_EXT_ZERO | (nbd & LIBNBD_STATE_HOLE ? 0 : BLK_EXT_DATA);
}

static bool find_extent(const struct client_extents *x, uint64_t offset, struct blk_extent *out)
{
    uint64_t at = x->offset;

    for (unsigned i = 0; i < x->count && offset >= at; i++) {
        if (offset - at < x->list[i].bytes) {
            out->bytes = MIN(out->bytes, x->list[i].bytes - (offset - at));
            out->flags = extent_flags(x->list[i].flags);
            return true;
        }
        at += x->list[i].bytes;
    }
    return false;
}

/* An answer is remembered only where nobody writes through us. */
static int co_client_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                         struct blk_extent *out)
{
    struct client *c = client_of(dev);
    uint32_t align = dev->limits.request_align;
    struct client_call call = {.op = CLIENT_STATUS, .offset = align_down(offset, align)};
    uint64_t end = dev->writable ? align_up(offset + bytes, align) : c->facts.size;

    *out = (struct blk_extent){
        .flags = extent_flags(0), .bytes = bytes, .child = dev, .child_offset = offset};
    if (!c->facts.status || (!dev->writable && find_extent(&c->seen, offset, out)))
        return 0;
    auto_free struct client_extents *x = mem_zalloc(sizeof(*x));
    if (!x)
        return -ENOMEM;
    call.extents = x;
    call.bytes = MIN(MIN(end, c->facts.size) - call.offset, MAX_RANGE);
    TRY(co_client_call(c, &call));
    if (!find_extent(x, offset, out)) /* an answer that says nothing */
        return 0;
    if (!dev->writable)
        c->seen = *x;
    return 0;
}

/* --- options ------------------------------------------------------------------------------------
 */

static const char *const server_types[] = {"inet", "unix", "vsock", NULL};

static const struct opt_desc client_options[] = {
    {.name = "server.type", .type = OPT_ENUM, .choices = server_types, .help = "how to get there"},
    {.name = "server.host", .type = OPT_STRING, .help = "the server's name or address"},
    {.name = "server.port", .type = OPT_STRING, .help = "its TCP port", .preset = "10809"},
    {.name = "server.path", .type = OPT_STRING, .help = "its Unix socket"},
    {.name = "server.cid",
     .type = OPT_INT,
     .max = UINT32_MAX,
     .help = "its vsock address, where server.port is a vsock port"},
    {.name = "host", .type = OPT_STRING, .help = "the same as server.host"},
    {.name = "port", .type = OPT_STRING, .help = "the same as server.port"},
    {.name = "path", .type = OPT_STRING, .help = "the same as server.path"},
    {.name = "export", .type = OPT_STRING, .help = "the export's name (none: the default one)"},
    {.name = "tls", .type = OPT_BOOL, .help = "encrypt, or do not connect at all", .preset = "off"},
    {.name = "tls-certificates",
     .type = OPT_STRING,
     .help = "the folder of ca-cert.pem, client-cert.pem, client-key.pem; implies tls"},
    {.name = "tls-psk-file", .type = OPT_STRING, .help = "a file of NAME:KEY lines; implies tls"},
    {.name = "tls-username", .type = OPT_STRING, .help = "which of its lines"},
    {.name = "tls-verify-peer",
     .type = OPT_BOOL,
     .preset = "on",
     .help = "check the server's certificate"},
    {.name = "tls-creds",
     .type = OPT_STRING,
     .help = "id of an --object tls-creds-x509 or tls-creds-psk; implies tls"},
    {.name = "reconnect-delay",
     .type = OPT_INT,
     .preset = "0",
     .max = 86400 * 365,
     .help = "seconds that requests wait for a server that went away (0: they fail at once)"},
    {.name = "open-timeout",
     .type = OPT_INT,
     .preset = "30",
     .min = 1,
     .max = 86400,
     .help = "seconds that connecting may take"},
    {.name = "connections",
     .type = OPT_INT,
     .preset = "1",
     .min = 1,
     .max = CLIENT_LINKS,
     .help = "to open, where the server allows several"},
    {.name = "replay-size",
     .type = OPT_SIZE,
     .preset = "64M",
     .max = 64 * GiB,
     .help = "bytes of unflushed changes kept for the server that comes back (0: flushes fail)"},
    {0},
};

/* Both spellings; not both at once. */
static int text_of(const struct opts *o, const char *key, char **out, struct blk_error *e)
{
    char long_name[24];

    snprintf(long_name, sizeof(long_name), "server.%s", key);
    const char *flat_text = opts_text(o, key), *nested = opts_text(o, long_name);
    if (flat_text && opts_given(o, long_name))
        return err_set(e, -EINVAL, "%s and %s mean the same", key, long_name);
    const char *text = flat_text ? flat_text : nested;
    *out = text ? mem_strdup(text) : NULL;
    return text && !*out ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int copy_text(const struct opts *o, const char *key, char **out)
{
    const char *text = opts_text(o, key);

    *out = text ? mem_strdup(text) : NULL;
    return text && !*out ? -ENOMEM : 0;
}

static int take_server(const struct opts *o, struct client_where *w, struct blk_error *e)
{
    TRY(text_of(o, "host", &w->host, e));
    TRY(text_of(o, "port", &w->port, e));
    TRY(text_of(o, "path", &w->path, e));
    bool has_cid = opts_given(o, "server.cid");
    w->cid = has_cid ? (uint32_t)opts_number(o, "server.cid") : 0;
    if ((w->host != NULL) + (w->path != NULL) + has_cid != 1)
        return err_set(e, -EINVAL,
                       "the driver nbd needs one of server.host, server.path and server.cid");
    const struct opt_value *type = opts_get(o, "server.type");
    if (type->given && type->number != (has_cid ? 2 : w->path ? 1 : 0))
        return err_set(e, -EINVAL, "server.type is %s, but what is told belongs to another one",
                       type->text);
    if (has_cid && w->port[strspn(w->port, "0123456789")])
        return err_set(e, -EINVAL, "'%.20s' is not a vsock port: a number is expected", w->port);
    if (has_cid)
        w->text = mem_printf("vsock:%u:%s", w->cid, w->port);
    else
        w->text = w->path
                      ? mem_strdup(w->path)
                      : mem_printf(strchr(w->host, ':') ? "[%s]:%s" : "%s:%s", w->host, w->port);
    return w->text ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* QEMU's way of saying the same as tls-certificates and tls-psk-file. */
static int take_creds(const char *id, struct blk_opener *opener, struct client_where *w,
                      struct blk_error *e)
{
    const json_t *o = id ? opener_object(opener, id) : NULL;
    if (!id)
        return 0;
    if (w->certificates || w->psk_file)
        return err_set(e, -EINVAL, "tls-creds and the other tls- options exclude each other");
    if (!o)
        return err_set(e, -ENOENT, "No TLS credentials with id '%.60s'", id);
    const char *dir = json_string_value(json_object_get(o, "dir"));
    const char *type = json_string_value(json_object_get(o, "qom-type"));
    const char *end = json_string_value(json_object_get(o, "endpoint"));
    const char *user = json_string_value(json_object_get(o, "username"));
    const char *verify = json_string_value(json_object_get(o, "verify-peer"));
    if (!dir || (end && strcmp(end, "client") != 0))
        return err_set(e, -EINVAL, "Expecting TLS credentials with a client endpoint");
    if (strcmp(type, "tls-creds-psk") == 0)
        w->psk_file = mem_printf("%s/keys.psk", dir);
    else
        w->certificates = mem_strdup(dir);
    if (user && !w->user)
        w->user = mem_strdup(user);
    if (verify) /* on, yes, true: what it may be is known already */
        w->verify = strcmp(verify, "on") == 0 || *verify == 'y' || *verify == 't';
    return w->psk_file || w->certificates ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int take_where(const struct opts *o, struct blk_opener *opener, struct client_where *w,
                      struct blk_error *e)
{
    TRY(take_server(o, w, e));
    if (copy_text(o, "export", &w->export) < 0 ||
        copy_text(o, "tls-certificates", &w->certificates) < 0 ||
        copy_text(o, "tls-psk-file", &w->psk_file) < 0 ||
        copy_text(o, "tls-username", &w->user) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    if (w->export && strlen(w->export) > 4096)
        return err_set(e, -ENAMETOOLONG, "an export's name has at most 4096 bytes");
    if (w->certificates && w->psk_file)
        return err_set(e, -EINVAL, "tls-certificates and tls-psk-file exclude each other");
    w->verify = opts_bool(o, "tls-verify-peer");
    TRY(take_creds(opts_text(o, "tls-creds"), opener, w, e));
    w->tls = opts_bool(o, "tls") || w->certificates || w->psk_file;
    return 0;
}

static int take_options(struct client *c, const struct opts *o, struct blk_opener *opener,
                        struct blk_error *e)
{
    TRY(take_where(o, opener, &c->where, e));
    c->reconnect_ns = opts_number(o, "reconnect-delay") * SECOND;
    c->open_ns = opts_number(o, "open-timeout") * SECOND;
    c->wanted = (unsigned)opts_number(o, "connections");
    c->replay.limit = c->reconnect_ns ? opts_number(o, "replay-size") : 0;
    return 0;
}

/* --- life ---------------------------------------------------------------------------------------
 */

static void client_free(struct client *c)
{
    struct client_where *w = &c->where;
    char *texts[] = {w->host, w->port, w->path,         w->export,
                     w->text, w->user, w->certificates, w->psk_file};

    replay_end(c);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        mem_free(texts[i]);
    mem_free(c);
}

static void set_limits(struct blk_device *dev, const struct client_facts *f)
{
    struct blk_limits *l = &dev->limits;
    uint32_t align = f->size % f->min_block == 0 ? f->min_block : 1;

    dev->size = f->size;
    l->request_align = align;
    l->zero_align = align;
    l->max_transfer = align_down(MIN(f->max_block, MAX_TRANSFER), align);
    l->optimal_transfer = MIN(l->max_transfer, 1 * MiB);
    l->discard_granularity = align;
    l->can_zero_fast = f->fast_zero;
    l->can_unmap = f->trim || f->zero;
}

static int co_client_begin(struct blk_device *dev, struct client *c, const struct opts *opts,
                           struct blk_opener *opener, struct blk_error *e)
{
    struct client_facts facts;

    TRY(take_options(c, opts, opener, e));
    if (!c->host->ops->stream_watch)
        return err_set(e, -ENOTSUP, "libnbd does its own I/O, which host %s does not know",
                       host_name(c->host));
    TRY(co_client_connect(c, &facts, e));
    if ((dev->open_flags & BLK_OPEN_WRITE) && facts.read_only)
        return err_set(
            e, -EACCES,
            "NBD server %.200s: the server lets nobody write to this export: open it read-only",
            c->where.text);
    return 0;
}

static int co_client_open(struct blk_device *dev, const struct opts *opts,
                          struct blk_opener *opener, struct blk_error *e)
{
    struct client *c = mem_zalloc(sizeof(*c));

    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    c->host = worker_self()->host;
    int rc = co_client_begin(dev, c, opts, opener, e);
    if (rc < 0) {
        co_client_disconnect(c);
        client_free(c);
        return rc;
    }
    dev->state = c;
    set_limits(dev, &c->facts);
    return 0;
}

static int co_client_close(struct blk_device *dev, struct blk_error *e)
{
    struct client *c = client_of(dev);

    co_client_disconnect(c);
    client_free(c);
    return 0;
}

static int co_client_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    if (write && client_of(dev)->facts.read_only)
        return err_set(
            e, -EACCES,
            "NBD server %.200s: the server lets nobody write to this export: open it read-only",
            client_of(dev)->where.text);
    client_of(dev)->seen.count = 0;
    return 0;
}

static int co_client_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    out->actual_size = UINT64_MAX;
    return 0;
}

const struct blk_driver client_driver = {
    .name = "nbd",
    .title = "a disk that an NBD server offers",
    .handles_fua = true,
    .open_options = client_options,
    .co_open = co_client_open,
    .co_close = co_client_close,
    .co_reopen = co_client_reopen,
    .co_read = co_client_read,
    .co_write = co_client_write,
    .co_write_zeroes = co_client_zero,
    .co_discard = co_client_discard,
    .co_flush = co_client_flush_all,
    .co_map = co_client_map,
    .co_info = co_client_info,
};
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.c - a layer that fails the n-th request, once or from then on, short or late; and that asks
 * for an alignment which its child does not need, to see that the waist keeps to it.
 *
 * Nothing is resolved through it, so it sees every request. */
#include "block/fault.h"

struct fault {
    struct blk_device *child;
    struct fault_rule rule;
    uint64_t counted; /* requests that the rule looked at */
    uint64_t seen[FAULT_OPS], fired;
};

void fault_set(struct blk_device *dev, const struct fault_rule *rule)
{
    struct fault *f = dev->state;
    assert(dev->driver == &fault_driver);
    f->rule = rule ? *rule : (struct fault_rule){0};
    f->counted = 0;
}

uint64_t fault_seen(const struct blk_device *dev, enum fault_op op)
{
    const struct fault *f = dev->state;
    uint64_t sum = 0;
    assert(dev->driver == &fault_driver);
    for (unsigned i = 0; i < FAULT_OPS; i++)
        sum += op == FAULT_ALL || op == i ? f->seen[i] : 0;
    return sum;
}

uint64_t fault_fired(const struct blk_device *dev)
{
    assert(dev->driver == &fault_driver);
    return ((const struct fault *)dev->state)->fired;
}

/* Counts a request; the rule if it is this one's turn, else NULL. Waits if the rule says so. */
static const struct fault_rule *co_strike(struct fault *f, enum fault_op op)
{
    const struct fault_rule *r = &f->rule;
    f->seen[op]++;
    if (r->nth == 0 || (r->op != FAULT_ALL && r->op != op))
        return NULL;
    uint64_t n = ++f->counted;
    if (n < r->nth || (r->times != 0 && n - r->nth >= r->times))
        return NULL;
    f->fired++;
    if (r->delay_ns)
        co_sleep(r->delay_ns);
    return r;
}

/* What the waist promises to a device that declared these limits. */
static void check_request(const struct blk_device *dev, uint64_t offset, const struct vec *v)
{
    const struct blk_limits *l = &dev->limits;
    assert(((offset | v->bytes) & (l->request_align - 1)) == 0);
    assert(l->max_transfer == 0 || v->bytes <= l->max_transfer);
    assert(vec_aligned(v, l->memory_align));
}

static int co_fault_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct fault *f = dev->state;
    check_request(dev, offset, to);
    const struct fault_rule *r = co_strike(f, FAULT_READ);
    if (!r || r->rc == 0)
        return co_blk_read_inside(f->child, offset, to);
    int rc = r->rc;
    struct vec part = vec_slice(to, 0, MIN(r->short_bytes, to->bytes));
    int got = part.bytes ? co_blk_read_inside(f->child, offset, &part) : 0;
    return got < 0 ? got : rc;
}

static int co_fault_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                          unsigned flags)
{
    struct fault *f = dev->state;
    check_request(dev, offset, from);
    const struct fault_rule *r = co_strike(f, FAULT_WRITE);
    if (!r || r->rc == 0)
        return co_blk_write_inside(f->child, offset, from, flags);
    int rc = r->rc;
    struct vec part = vec_slice(from, 0, MIN(r->short_bytes, from->bytes));
    int done = part.bytes ? co_blk_write_inside(f->child, offset, &part, flags) : 0;
    return done < 0 ? done : rc;
}

static int co_fault_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                 unsigned flags)
{
    struct fault *f = dev->state;
    uint64_t align = dev->limits.zero_align, end = offset + bytes;
    assert(offset % align == 0 && (end % align == 0 || end >= dev->size));
    const struct fault_rule *r = co_strike(f, FAULT_ZERO);
    if (!r || r->rc == 0)
        return co_blk_write_zeroes(f->child, offset, bytes, flags);
    int rc = r->rc;
    uint64_t part = MIN(r->short_bytes, bytes);
    int done = part ? co_blk_write_zeroes(f->child, offset, part, flags) : 0;
    return done < 0 ? done : rc;
}

static int co_fault_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct fault *f = dev->state;
    const struct fault_rule *r = co_strike(f, FAULT_DISCARD);
    return r && r->rc ? r->rc : co_blk_discard(f->child, offset, bytes);
}

static int co_fault_flush(struct blk_device *dev)
{
    struct fault *f = dev->state;
    const struct fault_rule *r = co_strike(f, FAULT_FLUSH);
    return r && r->rc ? r->rc : co_blk_flush(f->child);
}

static int co_fault_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                        struct blk_extent *out)
{
    const struct fault *f = dev->state;
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = bytes,
                               .child = f->child,
                               .child_offset = offset};
    return 0;
}

static int co_fault_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    const struct fault *f = dev->state;
    return co_blk_resize(f->child, size, shrink, e);
}

/* --- open ------------------------------------------------------------------------------------- */

static const char *const op_names[] = {"read", "write", "flush", "discard", "zero", "all", NULL};
static const struct {
    const char *name;
    int rc;
} errors[] = {
    {"EIO", -EIO},     {"ENOSPC", -ENOSPC}, {"ENOTSUP", -ENOTSUP},     {"EROFS", -EROFS},
    {"EPERM", -EPERM}, {"ENOMEM", -ENOMEM}, {"ETIMEDOUT", -ETIMEDOUT}, {"none", 0},
};
static const char *const error_names[] = {"EIO",    "ENOSPC",    "ENOTSUP", "EROFS", "EPERM",
                                          "ENOMEM", "ETIMEDOUT", "none",    NULL};

static const struct opt_desc fault_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the device below"},
    {.name = "op", .type = OPT_ENUM, .choices = op_names, .help = "which requests fail"},
    {.name = "nth", .type = OPT_INT, .preset = "1", .help = "the first that fails (1: the next)"},
    {.name = "times",
     .type = OPT_INT,
     .preset = "1",
     .help = "how many fail (0: all from then on)"},
    {.name = "errno",
     .type = OPT_ENUM,
     .choices = error_names,
     .preset = "EIO",
     .help = "with what"},
    {.name = "short", .type = OPT_SIZE, .preset = "0", .help = "bytes done before it fails"},
    {.name = "delay", .type = OPT_INT, .preset = "0", .help = "nanoseconds to wait first"},
    {.name = "request-align",
     .type = OPT_SIZE,
     .preset = "1",
     .min = 1,
     .max = 65536,
     .help = "alignment of offsets and lengths to ask for"},
    {.name = "memory-align",
     .type = OPT_SIZE,
     .preset = "1",
     .min = 1,
     .max = 4096,
     .help = "alignment of buffers to ask for"},
    {.name = "max-transfer", .type = OPT_SIZE, .preset = "0", .help = "longest request to ask for"},
    {.name = "zero-align",
     .type = OPT_SIZE,
     .preset = "1",
     .min = 1,
     .max = 1 << 30,
     .help = "alignment of zeroes to ask for"},
    {0},
};

static int read_limits(struct blk_device *dev, const struct opts *opts, struct blk_error *e)
{
    struct blk_limits *l = &dev->limits;
    uint64_t request = opts_number(opts, "request-align"),
             memory = opts_number(opts, "memory-align");
    uint64_t zero = opts_number(opts, "zero-align"), most = opts_number(opts, "max-transfer");
    if (!is_pow2(request) || !is_pow2(memory) || !is_pow2(zero))
        return err_set(e, -EINVAL, "alignments must be powers of two");
    if (most != 0 && most < request)
        return err_set(e, -EINVAL, "max-transfer is less than request-align");
    l->request_align = (uint32_t)request;
    l->memory_align = (uint32_t)memory;
    l->zero_align = (uint32_t)zero;
    l->max_transfer = most;
    return 0;
}

static int co_fault_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct blk_device *child;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    TRY(read_limits(dev, opts, e));
    struct fault *f = mem_zalloc(sizeof(*f));
    if (!f)
        return err_set(e, -ENOMEM, "out of memory");
    f->child = child;
    if (opts_given(opts, "op"))
        f->rule = (struct fault_rule){.op = (enum fault_op)opts_number(opts, "op"),
                                      .nth = opts_number(opts, "nth"),
                                      .times = opts_number(opts, "times"),
                                      .rc = errors[opts_number(opts, "errno")].rc,
                                      .short_bytes = opts_number(opts, "short"),
                                      .delay_ns = opts_number(opts, "delay")};
    dev->state = f;
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    dev->limits.growable = child->limits.growable;
    return 0;
}

static int co_fault_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

const struct blk_driver fault_driver = {
    .name = "fault",
    .title = "fails, shortens or delays requests to the device below",
    .handles_fua = true,
    .open_options = fault_options,
    .co_open = co_fault_open,
    .co_close = co_fault_close,
    .co_read = co_fault_read,
    .co_write = co_fault_write,
    .co_write_zeroes = co_fault_write_zeroes,
    .co_discard = co_fault_discard,
    .co_flush = co_fault_flush,
    .co_map = co_fault_map,
    .co_resize = co_fault_resize,
};

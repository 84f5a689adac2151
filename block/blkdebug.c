/* SPDX-License-Identifier: BSD-3-Clause */
/* blkdebug.c - QEMU's fault injector by its own words: inject-error rules, as options or in a file.
 *
 * Its events are steps of QEMU's drivers. Those that every driver takes stand for kinds of requests
 * here: read_aio reads, write_aio and pwritev writes, pwritev_zero zeroes, flush_to_os and
 * flush_to_disk flushes, none all; other events are refused. Rules begin to count when all that
 * stands on this layer is open, so that headers are read. Nothing is resolved through it. */
#include <ctype.h>

#include "block/block.h"

#define MOST_RULES   6
#define CONFIG_BYTES (64 * KiB)
#define SECTOR       512

enum op { OP_READ = 1, OP_WRITE = 2, OP_ZERO = 4, OP_DISCARD = 8, OP_FLUSH = 16, OP_ALL = 31 };

static const struct word {
    const char *name;
    unsigned ops;
} events[] = {{"none", OP_ALL},           {"read_aio", OP_READ},     {"write_aio", OP_WRITE},
              {"pwritev", OP_WRITE},      {"pwritev_zero", OP_ZERO}, {"flush_to_os", OP_FLUSH},
              {"flush_to_disk", OP_FLUSH}},
  io_types[] = {{"read", OP_READ},
                {"write", OP_WRITE},
                {"write-zeroes", OP_ZERO},
                {"discard", OP_DISCARD},
                {"flush", OP_FLUSH}};

/* What one rule says; NULL: not told. */
struct rule_words {
    const char *event, *iotype, *error, *once, *sector, *immediately;
};

struct rule {
    unsigned ops;
    int rc;
    bool once, anywhere;
    uint64_t offset; /* of its sector */
};

struct blkdebug {
    struct blk_device *child;
    struct rule rules[2 * MOST_RULES]; /* of the options and of the file */
    unsigned count;
    bool armed;
};

/* --- requests --------------------------------------------------------------------------------- */

/* The error that a rule has for it, or 0. */
static int strike(struct blkdebug *d, enum op op, uint64_t offset, uint64_t bytes)
{
    for (unsigned i = 0; d->armed && i < d->count; i++) {
        struct rule *r = &d->rules[i];
        bool here = r->anywhere || (r->offset < offset + bytes && offset < r->offset + SECTOR);
        if (!(r->ops & op) || !here)
            continue;
        if (r->once)
            r->ops = 0;
        return r->rc;
    }
    return 0;
}

static int co_blkdebug_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct blkdebug *d = dev->state;
    TRY(strike(d, OP_READ, offset, to->bytes));
    return co_blk_read_inside(d->child, offset, to);
}

static int co_blkdebug_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                             unsigned flags)
{
    struct blkdebug *d = dev->state;
    TRY(strike(d, OP_WRITE, offset, from->bytes));
    return co_blk_write_inside(d->child, offset, from, flags);
}

static int co_blkdebug_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                    unsigned flags)
{
    struct blkdebug *d = dev->state;
    TRY(strike(d, OP_ZERO, offset, bytes));
    return co_blk_write_zeroes(d->child, offset, bytes, flags);
}

static int co_blkdebug_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct blkdebug *d = dev->state;
    TRY(strike(d, OP_DISCARD, offset, bytes));
    return co_blk_discard(d->child, offset, bytes);
}

static int co_blkdebug_flush(struct blk_device *dev)
{
    struct blkdebug *d = dev->state;
    TRY(strike(d, OP_FLUSH, 0, UINT64_MAX));
    return co_blk_flush(d->child);
}

static int co_blkdebug_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                           struct blk_extent *out)
{
    const struct blkdebug *d = dev->state;
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = bytes,
                               .child = d->child,
                               .child_offset = offset};
    return 0;
}

static int co_blkdebug_resize(struct blk_device *dev, uint64_t size, bool shrink,
                              struct blk_error *e)
{
    const struct blkdebug *d = dev->state;
    return co_blk_resize(d->child, size, shrink, e);
}

/* --- rules ------------------------------------------------------------------------------------ */

static int find_word(const struct word *list, size_t count, const char *name, unsigned *ops,
                     struct blk_error *e)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0) {
            *ops &= list[i].ops;
            return 0;
        }
    return err_set(e, -ENOTSUP, "'%.40s' is no event or kind of request that can fail here", name);
}

static int number(const char *text, uint64_t most, uint64_t *out, struct blk_error *e)
{
    if (opts_parse_size(text, out, NULL) < 0 || *out > most)
        return err_set(e, -EINVAL, "'%.40s' is not a number up to %" PRIu64, text, most);
    return 0;
}

static bool is_on(const char *text)
{
    return text &&
           (strcmp(text, "on") == 0 || strcmp(text, "true") == 0 || strcmp(text, "yes") == 0);
}

static int add_rule(struct blkdebug *d, const struct rule_words *w, struct blk_error *e)
{
    struct rule r = {.ops = OP_ALL, .once = is_on(w->once), .anywhere = !w->sector};
    uint64_t error = EIO, sector = 0;
    if (d->count == ARRAY_LEN(d->rules))
        return err_set(e, -EINVAL, "too many rules");
    if (!w->event)
        return err_set(e, -EINVAL, "Parameter 'event' is missing");
    TRY(find_word(events, ARRAY_LEN(events), w->event, &r.ops, e));
    if (w->iotype)
        TRY(find_word(io_types, ARRAY_LEN(io_types), w->iotype, &r.ops, e));
    if (w->error)
        TRY(number(w->error, 4095, &error, e));
    if (w->sector)
        TRY(number(w->sector, INT64_MAX / SECTOR, &sector, e));
    r.rc = -(int)error;
    r.offset = sector * SECTOR;
    d->rules[d->count++] = r;
    return 0;
}

/* --- the file: [inject-error] and lines of key = "value" ---------------------------------------
 */

static char *strip(char *text)
{
    text += strspn(text, " \t\"");
    for (size_t n = strlen(text); n && strchr(" \t\r\"", text[n - 1]); n--)
        text[n - 1] = '\0';
    return text;
}

static int config_word(struct rule_words *w, char *line, struct blk_error *e)
{
    const struct {
        const char *key;
        const char **to;
    } keys[] = {{"event", &w->event}, {"iotype", &w->iotype}, {"errno", &w->error},
                {"once", &w->once},   {"sector", &w->sector}, {"immediately", &w->immediately}};
    char *value = strchr(line, '=');
    if (value)
        *value++ = '\0';
    const char *key = strip(line);
    for (size_t i = 0; value && i < ARRAY_LEN(keys); i++)
        if (strcmp(keys[i].key, key) == 0) {
            *keys[i].to = strip(value);
            return 0;
        }
    return err_set(e, -EINVAL, "the rules' file has a line that is not known: '%.40s'", key);
}

static int parse_config(struct blkdebug *d, char *text, struct blk_error *e)
{
    struct rule_words words = {0};
    bool open = false;
    for (char *line; (line = strsep(&text, "\n"));) {
        line += strspn(line, " \t\r");
        bool section = strncmp(line, "[inject-error", 13) == 0;
        if (*line == '\0' || *line == '#')
            continue;
        if (open && section)
            TRY(add_rule(d, &words, e));
        if (section)
            words = (struct rule_words){0};
        else if (!open)
            return err_set(e, -EINVAL, "the rules' file may hold [inject-error] only: '%.40s'",
                           line);
        else
            TRY(config_word(&words, line, e));
        open = true;
    }
    return open ? add_rule(d, &words, e) : 0;
}

static int co_read_config(struct blkdebug *d, struct blk_device *file, struct blk_error *e)
{
    if (file->size > CONFIG_BYTES)
        return err_set(e, -EFBIG, "the rules' file is larger than 64 KiB");
    auto_free char *text = mem_zalloc(file->size + 1);
    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = file->size ? co_blk_read_buf(file, 0, text, file->size) : 0;
    return rc < 0 ? err_errno(e, rc, "the rules' file cannot be read") : parse_config(d, text, e);
}

/* --- open ------------------------------------------------------------------------------------- */

#define RULE(n)                                                                             \
    {.name = "inject-error." n ".event", .type = OPT_STRING, .help = "when it may fail"},   \
        {.name = "inject-error." n ".iotype", .type = OPT_STRING, .help = "what may fail"}, \
        {.name = "inject-error." n ".errno", .type = OPT_STRING, .help = "with what (5)"},  \
        {.name = "inject-error." n ".once", .type = OPT_STRING, .help = "on: only once"},   \
        {.name = "inject-error." n ".sector", .type = OPT_STRING, .help = "only there"},    \
    {                                                                                       \
        .name = "inject-error." n ".immediately", .type = OPT_STRING, .help = "accepted"    \
    }

static const struct opt_desc blkdebug_options[] = {
    {.name = "image", .type = OPT_CHILD, .help = "the device below"},
    {.name = "config", .type = OPT_CHILD, .help = "a file with rules"},
    {.name = "align",
     .type = OPT_SIZE,
     .preset = "1",
     .min = 1,
     .max = 65536,
     .help = "alignment of offsets and lengths to ask for"},
    RULE("0"),
    RULE("1"),
    RULE("2"),
    RULE("3"),
    RULE("4"),
    RULE("5"),
    {0},
};

static const char *word_of(const struct opts *opts, unsigned rule, const char *key)
{
    char name[40];
    snprintf(name, sizeof(name), "inject-error.%u.%s", rule, key);
    return opts_text(opts, name);
}

static int option_rules(struct blkdebug *d, const struct opts *opts, struct blk_error *e)
{
    for (unsigned i = 0; i < MOST_RULES; i++) {
        const struct rule_words w = {.event = word_of(opts, i, "event"),
                                     .iotype = word_of(opts, i, "iotype"),
                                     .error = word_of(opts, i, "errno"),
                                     .once = word_of(opts, i, "once"),
                                     .sector = word_of(opts, i, "sector")};
        if (w.event || w.iotype || w.error || w.once || w.sector)
            TRY(add_rule(d, &w, e));
    }
    return 0;
}

static int co_blkdebug_open(struct blk_device *dev, const struct opts *opts,
                            struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *child, *config = NULL;
    uint64_t align = opts_number(opts, "align");
    TRY(co_blk_want_child(dev, opener, "image", dev->open_flags, &child, e));
    if (!child || !is_pow2(align))
        return err_set(e, -EINVAL, child ? "align is a power of two" : "an image is needed");
    if (opts_given(opts, "config"))
        TRY(co_blk_want_child(dev, opener, "config", 0, &config, e));
    struct blkdebug *d = mem_zalloc(sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "out of memory");
    d->child = child;
    int rc = option_rules(d, opts, e);
    if (rc == 0 && config)
        rc = co_read_config(d, config, e);
    if (rc < 0) {
        mem_free(d);
        return rc;
    }
    dev->state = d;
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    dev->limits.growable = child->limits.growable;
    dev->limits.request_align = (uint32_t)align;
    return 0;
}

static int co_blkdebug_opened(struct blk_device *dev, struct blk_error *e)
{
    struct blkdebug *d = dev->state;
    d->armed = true;
    return 0;
}

static int co_blkdebug_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

const struct blk_driver blkdebug_driver = {
    .name = "blkdebug",
    .title = "fails requests by QEMU's rules",
    .handles_fua = true,
    .open_options = blkdebug_options,
    .co_open = co_blkdebug_open,
    .co_opened = co_blkdebug_opened,
    .co_close = co_blkdebug_close,
    .co_read = co_blkdebug_read,
    .co_write = co_blkdebug_write,
    .co_write_zeroes = co_blkdebug_write_zeroes,
    .co_discard = co_blkdebug_discard,
    .co_flush = co_blkdebug_flush,
    .co_map = co_blkdebug_map,
    .co_resize = co_blkdebug_resize,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* blkdebug.c - QEMU's fault injector by its own words: inject-error and set-state rules, as options
 * or in a file.
 *
 * A rule waits for an event in a state (it begins with 1; 0 or none told: any). When that comes,
 * set-state changes the state, and inject-error makes the requests fail that come from then on:
 * those of an iotype, at a sector, the first one only if `once` is said. Rules of a later event
 * take the place of those that were waiting so.
 *
 * Events are steps of the driver above: what it tells through blk_step() before a request of its
 * own. A request that nothing was told of is the guest's data: read_aio or write_aio. A write is
 * pwritev as well, or pwritev_zero, and pwritev_done when it is over; a flush is flush_to_os and
 * flush_to_disk. `none` is there from the beginning. */
#include <ctype.h>

#include "block/block.h"

#define MOST_RULES    24
#define OPTION_RULES  5 /* that options can tell: inject-error.0 to .4 */
#define OPTION_STATES 3
#define CONFIG_BYTES  (64 * KiB)
#define SECTOR        512

enum op { OP_READ = 1, OP_WRITE = 2, OP_ZERO = 4, OP_DISCARD = 8, OP_FLUSH = 16, OP_ALL = 31 };

/* With a kind of request: the next one of it is this step's, and not the guest's data. */
#define ALONE 0
static const struct word {
    const char *name;
    unsigned ops;
} events[] = {{"none", ALONE},
              {"read_aio", ALONE},
              {"write_aio", ALONE},
              {"pwritev", ALONE},
              {"pwritev_zero", ALONE},
              {"pwritev_done", ALONE},
              {"flush_to_os", ALONE},
              {"flush_to_disk", ALONE},
              {"cluster_alloc", ALONE},
              {"l2_load", OP_READ},
              {"l2_update", OP_WRITE},
              {"l1_update", OP_WRITE},
              {"refblock_load", OP_READ},
              {"refblock_update_part", OP_WRITE},
              {"reftable_load", OP_READ},
              {"reftable_update", OP_WRITE},
              {"cow_read", OP_READ},
              {"cow_write", OP_WRITE},
              {"read_compressed", OP_READ},
              {"write_compressed", OP_WRITE},
              {"cluster_alloc_space", OP_WRITE},
              /* steps of ours that QEMU has no name for */
              {"l1_load", OP_READ},
              {"header_update", OP_WRITE}},
  io_types[] = {{"read", OP_READ},       {"write", OP_WRITE}, {"write-zeroes", OP_ZERO},
                {"discard", OP_DISCARD}, {"flush", OP_FLUSH}, {"block-status", 0}};

/* Steps of QEMU's that are none here: a rule that waits for one waits for ever. */
static const char *const foreign_events[] = {"l1_grow_alloc_table",
                                             "l1_grow_write_table",
                                             "l1_grow_activate_table",
                                             "l2_update_compressed",
                                             "l2_alloc_cow_read",
                                             "l2_alloc_write",
                                             "read_backing_aio",
                                             "vmstate_load",
                                             "vmstate_save",
                                             "reftable_grow",
                                             "refblock_update",
                                             "refblock_alloc",
                                             "refblock_alloc_hookup",
                                             "refblock_alloc_write",
                                             "refblock_alloc_write_blocks",
                                             "refblock_alloc_write_table",
                                             "refblock_alloc_switch_table",
                                             "cluster_alloc_bytes",
                                             "cluster_free",
                                             "pwritev_rmw_head",
                                             "pwritev_rmw_after_head",
                                             "pwritev_rmw_tail",
                                             "pwritev_rmw_after_tail",
                                             "empty_image_prepare",
                                             "l1_shrink_write_table",
                                             "l1_shrink_free_l2_clusters",
                                             "cor_write"};

/* What one rule says; NULL: not told. */
struct rule_words {
    bool sets_state;
    const char *event, *state, *new_state, *iotype, *error, *once, *sector, *immediately;
};

struct rule {
    const char *event; /* of the tables above */
    bool sets_state;
    uint64_t state, new_state; /* 0: any */
    unsigned ops;
    int rc;
    bool once, anywhere;
    bool active, spent;
    uint64_t offset; /* of its sector */
};

struct blkdebug {
    struct blk_device *child;
    struct rule rules[MOST_RULES]; /* of the options and of the file */
    unsigned count;
    uint64_t state;
    unsigned told; /* kinds of requests of a step that was told and has not come yet */
    bool opened;   /* all that stands on this is: what is read from now on is data */
};

/* --- events ----------------------------------------------------------------------------------- */

static void happen(struct blkdebug *d, const char *event)
{
    uint64_t state = d->state;
    bool injected = false;
    for (unsigned i = 0; i < d->count; i++) {
        struct rule *r = &d->rules[i];
        if (strcmp(r->event, event) != 0 || (r->state && r->state != state))
            continue;
        if (r->sets_state) {
            d->state = r->new_state;
            continue;
        }
        for (unsigned k = 0; !injected && k < d->count; k++)
            d->rules[k].active = false;
        injected = true;
        r->active = !r->spent;
    }
}

static const struct word *find_word(const struct word *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}

static void blkdebug_step(struct blk_device *dev, const char *name)
{
    struct blkdebug *d = dev->state;
    const struct word *w = find_word(events, ARRAY_LEN(events), name);
    assert(w);
    if (w->ops)
        d->told = w->ops;
    happen(d, w->name);
}

/* --- requests --------------------------------------------------------------------------------- */

/* The error that a rule has for it, or 0. */
static int strike(struct blkdebug *d, enum op op, uint64_t offset, uint64_t bytes)
{
    bool data = d->opened && !(d->told & op);
    d->told = 0;
    if (data && (op & (OP_READ | OP_WRITE)))
        happen(d, op == OP_READ ? "read_aio" : "write_aio");
    if (op & (OP_WRITE | OP_ZERO))
        happen(d, op == OP_WRITE ? "pwritev" : "pwritev_zero");
    for (unsigned i = 0; i < d->count; i++) {
        struct rule *r = &d->rules[i];
        bool here = r->anywhere || (r->offset >= offset && r->offset < offset + bytes);
        if (!r->active || !(r->ops & op) || !here)
            continue;
        if (r->once) {
            r->spent = true;
            r->active = false;
        }
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
    int rc = co_blk_write_inside(d->child, offset, from, flags);
    happen(d, "pwritev_done");
    return rc;
}

static int co_blkdebug_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                    unsigned flags)
{
    struct blkdebug *d = dev->state;
    TRY(strike(d, OP_ZERO, offset, bytes));
    int rc = co_blk_write_zeroes(d->child, offset, bytes, flags);
    happen(d, "pwritev_done");
    return rc;
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
    happen(d, "flush_to_os");
    happen(d, "flush_to_disk");
    TRY(strike(d, OP_FLUSH, 0, 0));
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

/* The event of that name, or NULL. */
static const char *find_event(const char *name)
{
    const struct word *w = find_word(events, ARRAY_LEN(events), name);
    for (size_t i = 0; !w && i < ARRAY_LEN(foreign_events); i++)
        if (strcmp(foreign_events[i], name) == 0)
            return foreign_events[i];
    return w ? w->name : NULL;
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

static int number_told(const char *text, uint64_t most, uint64_t *out, struct blk_error *e)
{
    return text ? number(text, most, out, e) : 0;
}

static int add_rule(struct blkdebug *d, const struct rule_words *w, struct blk_error *e)
{
    struct rule r = {
        .sets_state = w->sets_state, .ops = OP_ALL, .once = is_on(w->once), .anywhere = !w->sector};
    uint64_t error = EIO, sector = 0;
    if (d->count == ARRAY_LEN(d->rules))
        return err_set(e, -EINVAL, "there are more rules than can be kept");
    if (!w->event)
        return err_set(e, -EINVAL, "Parameter 'event' is missing");
    r.event = find_event(w->event);
    if (!r.event)
        return err_set(e, -EINVAL, "invalid parameter value: %.40s", w->event);
    if (w->iotype) {
        const struct word *type = find_word(io_types, ARRAY_LEN(io_types), w->iotype);
        if (!type)
            return err_set(e, -EINVAL, "invalid parameter value: %.40s", w->iotype);
        r.ops = type->ops;
    }
    TRY(number_told(w->state, INT32_MAX, &r.state, e));
    TRY(number_told(w->new_state, INT32_MAX, &r.new_state, e));
    TRY(number_told(w->error, 4095, &error, e));
    TRY(number_told(w->sector, INT64_MAX / SECTOR, &sector, e));
    r.rc = -(int)error;
    r.offset = sector * SECTOR;
    d->rules[d->count++] = r;
    return 0;
}

/* --- the file: [inject-error], [set-state] and lines of key = "value" --------------------------
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
    } keys[] = {{"event", &w->event},         {"state", &w->state},
                {"iotype", &w->iotype},       {"errno", &w->error},
                {"once", &w->once},           {"sector", &w->sector},
                {"new_state", &w->new_state}, {"immediately", &w->immediately}};
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

/* A section begins; false: it is none that is known. */
static bool section(const char *line, struct rule_words *w)
{
    *w = (struct rule_words){.sets_state = strncmp(line, "[set-state", 10) == 0};
    return w->sets_state || strncmp(line, "[inject-error", 13) == 0;
}

static int parse_config(struct blkdebug *d, char *text, struct blk_error *e)
{
    struct rule_words words = {0};
    bool open = false;
    for (char *line; (line = strsep(&text, "\n"));) {
        line += strspn(line, " \t\r");
        if (*line == '\0' || *line == '#')
            continue;
        if (*line != '[' && open) {
            TRY(config_word(&words, line, e));
            continue;
        }
        if (open)
            TRY(add_rule(d, &words, e));
        open = section(line, &words);
        if (!open)
            return err_set(e, -EINVAL,
                           "the rules' file may hold [inject-error] and [set-state]: '%.40s'",
                           line);
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
        {.name = "inject-error." n ".state", .type = OPT_STRING, .help = "in which state"}, \
        {.name = "inject-error." n ".iotype", .type = OPT_STRING, .help = "what may fail"}, \
        {.name = "inject-error." n ".errno", .type = OPT_STRING, .help = "with what (5)"},  \
        {.name = "inject-error." n ".once", .type = OPT_STRING, .help = "on: only once"},   \
        {.name = "inject-error." n ".sector", .type = OPT_STRING, .help = "only there"},    \
    {                                                                                       \
        .name = "inject-error." n ".immediately", .type = OPT_STRING, .help = "accepted"    \
    }
#define STATE(n)                                                                         \
    {.name = "set-state." n ".event", .type = OPT_STRING, .help = "when it changes"},    \
        {.name = "set-state." n ".state", .type = OPT_STRING, .help = "in which state"}, \
    {                                                                                    \
        .name = "set-state." n ".new_state", .type = OPT_STRING, .help = "into which"    \
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
    STATE("0"),
    STATE("1"),
    STATE("2"),
    {0},
};

static const char *word_of(const struct opts *opts, const char *what, unsigned rule,
                           const char *key)
{
    char name[40];
    snprintf(name, sizeof(name), "%s.%u.%s", what, rule, key);
    return opts_text(opts, name);
}

static int option_rules(struct blkdebug *d, const struct opts *opts, struct blk_error *e)
{
    for (unsigned i = 0; i < OPTION_RULES; i++) {
        const struct rule_words w = {.event = word_of(opts, "inject-error", i, "event"),
                                     .state = word_of(opts, "inject-error", i, "state"),
                                     .iotype = word_of(opts, "inject-error", i, "iotype"),
                                     .error = word_of(opts, "inject-error", i, "errno"),
                                     .once = word_of(opts, "inject-error", i, "once"),
                                     .sector = word_of(opts, "inject-error", i, "sector")};
        if (w.event || w.state || w.iotype || w.error || w.once || w.sector)
            TRY(add_rule(d, &w, e));
    }
    for (unsigned i = 0; i < OPTION_STATES; i++) {
        const struct rule_words w = {.sets_state = true,
                                     .event = word_of(opts, "set-state", i, "event"),
                                     .state = word_of(opts, "set-state", i, "state"),
                                     .new_state = word_of(opts, "set-state", i, "new_state")};
        if (w.event || w.state || w.new_state)
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
    d->state = 1;
    happen(d, "none");
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
    d->opened = true;
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
    .step = blkdebug_step,
    .co_close = co_blkdebug_close,
    .co_read = co_blkdebug_read,
    .co_write = co_blkdebug_write,
    .co_write_zeroes = co_blkdebug_write_zeroes,
    .co_discard = co_blkdebug_discard,
    .co_flush = co_blkdebug_flush,
    .co_map = co_blkdebug_map,
    .co_resize = co_blkdebug_resize,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_dump.c - `lamina pool dump` and `delta`: a pool's mappings as XML, in the words of thin_dump
 * and thin_delta. What is damaged is passed and told. */
#include "tools/pool.h"
#include "volumes/thin_extents.h"

enum { ARG_SNAP1 = ARG_LONG, ARG_SNAP2, ARG_VERBOSE, ARG_DEV, ARG_SKIP };

static void print_super(const struct thin_super *s, bool flags)
{
    printf("<superblock uuid=\"\" time=\"%u\" transaction=\"%" PRIu64 "\"", s->time,
           s->transaction);
    if (flags)
        printf(" flags=\"%u\" version=\"%u\"", s->flags, s->version);
    printf(" data_block_size=\"%" PRIu64 "\" nr_data_blocks=\"%" PRIu64 "\">\n",
           s->chunk_bytes / 512, s->data.blocks);
}

static int damage(struct pool_look *l, const struct thin_reader *r)
{
    if (r->bad == 0)
        return 0;
    return err_set(&l->task.error, -EBADMSG, "%" PRIu64 " parts of the metadata were passed; %s",
                   r->bad, r->first.text);
}

/* --- dump -------------------------------------------------------------------------------------
 */

struct dump {
    struct pool_look look;
    const char *dev_text, *out;
    uint32_t dev;
    bool skip;
};

static int print_device(struct thin_reader *r, uint32_t id, const struct thin_detail *d)
{
    printf("  <device dev_id=\"%u\" mapped_blocks=\"%" PRIu64 "\" transaction=\"%" PRIu64
           "\" creation_time=\"%u\" snap_time=\"%u\">\n",
           id, d->mapped, d->transaction, d->created, d->snapped);
    return 0;
}

static int print_extent(struct thin_reader *r, const struct thin_extent *x)
{
    if (x->length == 1)
        printf("    <single_mapping origin_block=\"%" PRIu64 "\" data_block=\"%" PRIu64
               "\" time=\"%u\"/>\n",
               x->begin, x->data, x->time);
    else
        printf("    <range_mapping origin_begin=\"%" PRIu64 "\" data_begin=\"%" PRIu64
               "\" length=\"%" PRIu64 "\" time=\"%u\"/>\n",
               x->begin, x->data, x->length, x->time);
    return ferror(stdout) ? -EIO : 0;
}

static int print_device_end(struct thin_reader *r)
{
    puts("  </device>");
    return 0;
}

static int co_dump(struct pool_look *l)
{
    struct dump *d = container_of(l, struct dump, look);
    struct thin_reader r = {.device = print_device,
                            .extent = d->skip ? NULL : print_extent,
                            .device_end = print_device_end};
    print_super(&l->meta.super, true);
    int rc = co_thin_read(&l->meta, d->dev_text ? &d->dev : NULL, &r);
    puts("</superblock>");
    if (rc < 0)
        return err_errno(&l->task.error, rc, "the mappings cannot be read");
    return damage(l, &r);
}

static int run_dump(struct tool *t, int argc, char **argv)
{
    struct dump d = {.look = {.task.tool = t, .co_look = co_dump}};
    const struct arg_place places[] = {POOL_LOOK_PLACES(&d.look),
                                       {ARG_DEV, &d.dev_text, NULL},
                                       {ARG_SKIP, NULL, &d.skip},
                                       {0, NULL, NULL}};
    int id = pool_look_read(&d.look, argc, argv, places);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (d.dev_text && !pool_id_told(t, d.dev_text, &d.dev))
        return 1;
    return pool_look_run(&d.look);
}

static const struct arg_desc dump_options[] = {
    POOL_LOOK_OPTIONS,
    {ARG_DEV, "dev-id", "ID", "only this device", 0, false},
    {ARG_SKIP, "skip-mappings", NULL, "only the devices", 0, false},
    ARG_END};

const struct command pool_dump_command = {
    .name = "pool dump",
    .run = run_dump,
    .usage = "pool dump [OPTION]... METADATA",
    .summary = "Print all devices and mappings as XML, as thin_dump does",
    .faces = FACE_LAMINA,
    .options = dump_options,
    .notes = "Damaged parts are passed; then the exit status is 1, and all that could be read is\n"
             "printed.\n"
             "\n"
             "  lamina pool dump meta.img >pool.xml",
};

/* --- delta ------------------------------------------------------------------------------------
 */

enum side { SAME, DIFFERENT, LEFT_ONLY, RIGHT_ONLY, NOTHING };
static const char *const side_names[] = {"same", "different", "left_only", "right_only"};

struct extents {
    struct thin_extent *list;
    size_t count, room, at;
};

struct delta {
    struct pool_look look;
    const char *texts[2];
    uint32_t ids[2];
    bool verbose;
    struct extents sides[2];
    enum side kind; /* of what is to be printed */
    uint64_t begin, length;
};

static int keep_extent(struct thin_reader *r, const struct thin_extent *x)
{
    struct extents *to = r->arg;
    if (to->count == to->room) {
        size_t room = MAX(64, to->room * 2);
        struct thin_extent *grown = mem_resize(to->list, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        to->list = grown;
        to->room = room;
    }
    to->list[to->count++] = *x;
    return 0;
}

static void end_kind(struct delta *d)
{
    if (d->kind != NOTHING && d->verbose)
        printf("    </%s>\n", side_names[d->kind]);
    else if (d->kind != NOTHING)
        printf("    <%s begin=\"%" PRIu64 "\" length=\"%" PRIu64 "\"/>\n", side_names[d->kind],
               d->begin, d->length);
    d->kind = NOTHING;
}

static void print_range(enum side kind, uint64_t begin, uint64_t length, const uint64_t data[2])
{
    printf("      <range begin=\"%" PRIu64 "\" ", begin);
    if (kind == DIFFERENT)
        printf("left_data_begin=\"%" PRIu64 "\" right_data_begin=\"%" PRIu64 "\"", data[0],
               data[1]);
    else
        printf("data_begin=\"%" PRIu64 "\"", data[kind == RIGHT_ONLY]);
    printf(" length=\"%" PRIu64 "\"/>\n", length);
}

static void tell(struct delta *d, enum side kind, uint64_t begin, uint64_t length,
                 const uint64_t data[2])
{
    bool goes_on = kind == d->kind && (d->verbose || d->begin + d->length == begin);
    if (!goes_on) {
        end_kind(d);
        d->kind = kind;
        d->begin = begin;
        d->length = 0;
        if (d->verbose)
            printf("    <%s>\n", side_names[kind]);
    }
    d->length += length;
    if (d->verbose)
        print_range(kind, begin, length, data);
}

static const struct thin_extent *current(const struct extents *x)
{
    return x->at < x->count ? &x->list[x->at] : NULL;
}

/* The first @n blocks of a side are told. */
static void advance(struct extents *x, uint64_t n)
{
    struct thin_extent *e = &x->list[x->at];
    e->begin += n;
    e->data += n;
    e->length -= n;
    x->at += e->length == 0;
}

/* What comes next of both sides, as far as it is of one kind. */
static void step(struct delta *d)
{
    const struct thin_extent *l = current(&d->sides[0]), *r = current(&d->sides[1]);
    if (l && r && l->begin == r->begin) {
        const uint64_t data[2] = {l->data, r->data};
        uint64_t n = MIN(l->length, r->length);
        tell(d, l->data == r->data ? SAME : DIFFERENT, l->begin, n, data);
        advance(&d->sides[0], n);
        advance(&d->sides[1], n);
        return;
    }
    bool left = !r || (l && l->begin < r->begin);
    const struct thin_extent *x = left ? l : r, *other = left ? r : l;
    uint64_t n = other ? MIN(x->length, other->begin - x->begin) : x->length;
    const uint64_t data[2] = {x->data, x->data};
    tell(d, left ? LEFT_ONLY : RIGHT_ONLY, x->begin, n, data);
    advance(&d->sides[!left], n);
}

static int co_delta(struct pool_look *l)
{
    struct delta *d = container_of(l, struct delta, look);
    struct thin_reader r = {.any_time = true, .extent = keep_extent};
    for (unsigned i = 0; i < 2; i++) {
        r.arg = &d->sides[i];
        int rc = co_thin_read(&l->meta, &d->ids[i], &r);
        if (rc == -ENOENT)
            return err_set(&l->task.error, rc, "the pool has no volume %u", d->ids[i]);
        if (rc < 0)
            return err_errno(&l->task.error, rc, "the mappings of volume %u cannot be read",
                             d->ids[i]);
    }
    print_super(&l->meta.super, false);
    printf("  <diff left=\"%u\" right=\"%u\">\n", d->ids[0], d->ids[1]);
    while (current(&d->sides[0]) || current(&d->sides[1]))
        step(d);
    end_kind(d);
    puts("  </diff>\n</superblock>");
    return damage(l, &r);
}

static int run_delta(struct tool *t, int argc, char **argv)
{
    struct delta d = {.look = {.task.tool = t, .co_look = co_delta}, .kind = NOTHING};
    const struct arg_place places[] = {POOL_LOOK_PLACES(&d.look),
                                       {ARG_SNAP1, &d.texts[0], NULL},
                                       {ARG_SNAP2, &d.texts[1], NULL},
                                       {ARG_VERBOSE, NULL, &d.verbose},
                                       {0, NULL, NULL}};
    int id = pool_look_read(&d.look, argc, argv, places);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    for (unsigned i = 0; i < 2; i++) {
        if (!d.texts[i])
            return tool_misuse(t, "--snap1 and --snap2 say which volumes");
        if (!pool_id_told(t, d.texts[i], &d.ids[i]))
            return 1;
    }
    int rc = pool_look_run(&d.look);
    mem_free(d.sides[0].list);
    mem_free(d.sides[1].list);
    return rc;
}

static const struct arg_desc delta_options[] = {
    POOL_LOOK_OPTIONS,
    {ARG_SNAP1, "snap1", "ID", "the number of one volume", 0, false},
    {ARG_SNAP2, "snap2", "ID", "the number of the other one", 0, false},
    {ARG_VERBOSE, "verbose", NULL, "with the places in the data device", 0, false},
    ARG_END};

const struct command pool_delta_command = {
    .name = "pool delta",
    .run = run_delta,
    .usage = "pool delta [OPTION]... --snap1 ID --snap2 ID METADATA",
    .summary = "Print in what blocks two volumes differ, as thin_delta does",
    .faces = FACE_LAMINA,
    .options = delta_options,
    .notes = "  lamina pool delta --snap1 1 --snap2 2 meta.img",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_ls.c - `lamina pool ls` and `rmap`: the devices of a pool and what is theirs alone; who uses
 * a region of the data device. In the words of thin_ls and thin_rmap. */
#include <stdlib.h>

#include "tools/pool.h"
#include "volumes/thin_extents.h"

enum { ARG_NO_HEADERS = ARG_LONG, ARG_REGION };

/* --- ls ---------------------------------------------------------------------------------------
 */

struct device {
    uint32_t id;
    struct thin_detail detail;
    uint64_t exclusive;
};

struct ls {
    struct pool_look look;
    struct device *list;
    size_t count, room;
    struct thin_counts counts;
    bool no_headers, counting;
};

/* --- columns --- */

enum value { ID, MAPPED, EXCLUSIVE, SHARED, TRANSACTION, CREATED, SNAPPED };
enum unit { PLAIN, BLOCKS, SECTORS, BYTES, READABLE };
static const struct column {
    const char *name;
    enum value value;
    enum unit unit;
} columns[] = {
    {"DEV", ID, PLAIN},
    {"MAPPED_BLOCKS", MAPPED, BLOCKS},
    {"EXCLUSIVE_BLOCKS", EXCLUSIVE, BLOCKS},
    {"SHARED_BLOCKS", SHARED, BLOCKS},
    {"MAPPED_SECTORS", MAPPED, SECTORS},
    {"EXCLUSIVE_SECTORS", EXCLUSIVE, SECTORS},
    {"SHARED_SECTORS", SHARED, SECTORS},
    {"MAPPED_BYTES", MAPPED, BYTES},
    {"EXCLUSIVE_BYTES", EXCLUSIVE, BYTES},
    {"SHARED_BYTES", SHARED, BYTES},
    {"MAPPED", MAPPED, READABLE},
    {"EXCLUSIVE", EXCLUSIVE, READABLE},
    {"SHARED", SHARED, READABLE},
    {"TRANSACTION", TRANSACTION, PLAIN},
    {"CREATE_TIME", CREATED, PLAIN},
    {"SNAP_TIME", SNAPPED, PLAIN},
};

struct chosen {
    const struct column *list[32];
    size_t count;
};

static const struct column *find_column(const char *word, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        if (strlen(columns[i].name) == len && strncmp(columns[i].name, word, len) == 0)
            return &columns[i];
    return NULL;
}

static bool choose(const struct tool *t, const char *text, struct chosen *out)
{
    out->count = 0;
    while (*text) {
        size_t len = strcspn(text, ",");
        const struct column *c = find_column(text, len);
        if (!c || out->count == ARRAY_LEN(out->list)) {
            tool_misuse(t, "'%.*s' is no column; --help lists them", (int)len, text);
            return false;
        }
        out->list[out->count++] = c;
        text += len + (text[len] == ',');
    }
    return out->count > 0;
}

static uint64_t value_of(const struct device *d, enum value v)
{
    switch (v) {
    case ID:
        return d->id;
    case MAPPED:
        return d->detail.mapped;
    case EXCLUSIVE:
        return d->exclusive;
    case SHARED:
        return d->detail.mapped - MIN(d->exclusive, d->detail.mapped);
    case TRANSACTION:
        return d->detail.transaction;
    case CREATED:
        return d->detail.created;
    case SNAPPED:
        return d->detail.snapped;
    }
    return 0;
}

/* The largest unit in which it has less than 8192, as thin_ls prints. */
static void readable(uint64_t bytes, char *to, size_t room)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t i = 0;
    for (; bytes >= 8192 && i + 1 < ARRAY_LEN(units); i++)
        bytes /= 1024;
    snprintf(to, room, "%" PRIu64 "%s", bytes, units[i]);
}

static void cell_text(const struct ls *l, const struct device *d, const struct column *c, char *to,
                      size_t room)
{
    uint64_t v = value_of(d, c->value), chunk = l->look.meta.super.chunk_bytes;
    if (c->unit == READABLE)
        readable(v * chunk, to, room);
    else
        snprintf(to, room, "%" PRIu64,
                 c->unit == SECTORS ? v * (chunk / 512)
                 : c->unit == BYTES ? v * chunk
                                    : v);
}

static void print_table(const struct ls *l, const struct chosen *ch)
{
    int widths[ARRAY_LEN(ch->list)] = {0};
    char text[32];
    for (size_t c = 0; c < ch->count; c++) {
        widths[c] = l->no_headers ? 0 : (int)strlen(ch->list[c]->name);
        for (size_t i = 0; i < l->count; i++) {
            cell_text(l, &l->list[i], ch->list[c], text, sizeof(text));
            widths[c] = MAX(widths[c], (int)strlen(text));
        }
    }
    for (size_t c = 0; c < ch->count && !l->no_headers; c++)
        printf("%*s ", widths[c], ch->list[c]->name);
    if (!l->no_headers)
        putchar('\n');
    for (size_t i = 0; i < l->count; i++) {
        for (size_t c = 0; c < ch->count; c++) {
            cell_text(l, &l->list[i], ch->list[c], text, sizeof(text));
            printf("%*s ", widths[c], text);
        }
        putchar('\n');
    }
}

/* --- reading --- */

static int add_device(struct thin_reader *r, uint32_t id, const struct thin_detail *d)
{
    struct ls *l = r->arg;
    if (!l->counting) {
        l->count++;
        return 0;
    }
    if (l->count == l->room) {
        size_t room = MAX(16, l->room * 2);
        struct device *grown = mem_resize(l->list, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        l->list = grown;
        l->room = room;
    }
    l->list[l->count++] = (struct device){.id = id, .detail = *d};
    return 0;
}

/* First all are counted, then those with a count of one are their device's own. */
static int count_extent(struct thin_reader *r, const struct thin_extent *x)
{
    struct ls *l = r->arg;
    for (uint64_t i = 0; i < x->length; i++) {
        if (l->counting)
            TRY(thin_counts_add(&l->counts, x->data + i));
        else
            l->list[l->count - 1].exclusive += thin_counts_get(&l->counts, x->data + i) == 1;
    }
    return 0;
}

static int co_ls(struct pool_look *look)
{
    struct ls *l = container_of(look, struct ls, look);
    struct thin_reader r = {.device = add_device, .extent = count_extent, .arg = l};
    int rc = thin_counts_init(&l->counts, look->meta.super.data.blocks);
    l->counting = true;
    if (rc == 0)
        rc = co_thin_read(&look->meta, NULL, &r);
    l->counting = false;
    l->count = 0;
    if (rc == 0)
        rc = co_thin_read(&look->meta, NULL, &r);
    if (rc < 0)
        return err_errno(&look->task.error, rc, "the pool's devices cannot be read");
    return r.bad ? err_set(&look->task.error, -EBADMSG, "%s", r.first.text) : 0;
}

static const struct arg_desc ls_options[] = {
    POOL_LOOK_OPTIONS,
    {'o', "columns", "COLUMNS", "which, comma separated (DEV,MAPPED,CREATE_TIME,SNAP_TIME)", 0,
     false},
    {ARG_NO_HEADERS, "no-headers", NULL, "print no line with the columns' names", 0, false},
    ARG_END};

static int run_ls(struct tool *t, int argc, char **argv)
{
    struct ls l = {.look = {.task.tool = t, .co_look = co_ls}};
    const char *text = "DEV,MAPPED,CREATE_TIME,SNAP_TIME";
    struct chosen ch;
    const struct arg_place places[] = {POOL_LOOK_PLACES(&l.look),
                                       {'o', &text, NULL},
                                       {ARG_NO_HEADERS, NULL, &l.no_headers},
                                       {0, NULL, NULL}};
    int id = pool_look_read(&l.look, argc, argv, places);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (!choose(t, text, &ch))
        return 1;
    int rc = pool_look_run(&l.look);
    if (rc == 0)
        print_table(&l, &ch);
    thin_counts_drop(&l.counts);
    mem_free(l.list);
    return rc;
}

const struct command pool_ls_command = {
    .name = "pool ls",
    .run = run_ls,
    .usage = "pool ls [OPTION]... METADATA",
    .summary = "List the devices of a pool and what they take, as thin_ls does",
    .faces = FACE_LAMINA,
    .options = ls_options,
    .notes = "COLUMNS: DEV TRANSACTION CREATE_TIME SNAP_TIME; MAPPED, EXCLUSIVE and SHARED, each "
             "also\nwith _BLOCKS, _SECTORS or _BYTES behind it.\n"
             "\n"
             "  lamina pool ls -o DEV,MAPPED,EXCLUSIVE meta.img",
};

/* --- rmap -------------------------------------------------------------------------------------
 */

#define REGIONS_MOST 64

struct use {
    uint64_t data, begin, length;
    uint32_t id;
};

struct region {
    uint64_t begin, end;
};

struct rmap {
    struct pool_look look;
    struct region regions[REGIONS_MOST];
    size_t region_count;
    uint32_t id; /* device that is read */
    struct use *list;
    size_t count, room;
};

static int region_told(struct rmap *m, const char *text)
{
    char *at, *end;
    uint64_t begin = strtoull(text, &at, 10);
    uint64_t stop = strncmp(at, "..", 2) == 0 ? strtoull(at + 2, &end, 10) : 0;
    if (at == text || strncmp(at, "..", 2) != 0 || end == at + 2 || *end || stop <= begin ||
        m->region_count == REGIONS_MOST) {
        tool_misuse(m->look.task.tool, "'%s' is no region of blocks like 5..45", text);
        return ARGS_BAD;
    }
    m->regions[m->region_count++] = (struct region){begin, stop};
    return 0;
}

static int by_begin(const void *a, const void *b)
{
    const struct region *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* So that no block is told twice. */
static void join_regions(struct rmap *m)
{
    size_t kept = 0;
    qsort(m->regions, m->region_count, sizeof(m->regions[0]), by_begin);
    for (size_t i = 1; i < m->region_count; i++) {
        struct region *last = &m->regions[kept];
        if (m->regions[i].begin <= last->end)
            last->end = MAX(last->end, m->regions[i].end);
        else
            m->regions[++kept] = m->regions[i];
    }
    m->region_count = kept + 1;
}

static int rmap_option(void *verb, int id, const char *value)
{
    return region_told(container_of(verb, struct rmap, look), value);
}

static int enter_device(struct thin_reader *r, uint32_t id, const struct thin_detail *d)
{
    ((struct rmap *)r->arg)->id = id;
    return 0;
}

static int add_use(struct rmap *m, const struct thin_extent *x, uint64_t from, uint64_t to)
{
    if (m->count == m->room) {
        size_t room = MAX(64, m->room * 2);
        struct use *grown = mem_resize(m->list, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        m->list = grown;
        m->room = room;
    }
    m->list[m->count++] = (struct use){from, x->begin + (from - x->data), to - from, m->id};
    return 0;
}

/* The parts of it that lie in a region. */
static int clip_extent(struct thin_reader *r, const struct thin_extent *x)
{
    struct rmap *m = r->arg;
    for (size_t i = 0; i < m->region_count; i++) {
        uint64_t from = MAX(x->data, m->regions[i].begin);
        uint64_t to = MIN(x->data + x->length, m->regions[i].end);
        if (from < to)
            TRY(add_use(m, x, from, to));
    }
    return 0;
}

static int by_data(const void *a, const void *b)
{
    const struct use *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int co_rmap(struct pool_look *look)
{
    struct rmap *m = container_of(look, struct rmap, look);
    struct thin_reader r = {
        .any_time = true, .device = enter_device, .extent = clip_extent, .arg = m};
    int rc = co_thin_read(&look->meta, NULL, &r);
    if (rc < 0)
        return err_errno(&look->task.error, rc, "the mappings cannot be read");
    return r.bad ? err_set(&look->task.error, -EBADMSG, "%s", r.first.text) : 0;
}

static const struct arg_desc rmap_options[] = {
    POOL_LOOK_OPTIONS,
    {ARG_REGION, "region", "BEGIN..END", "blocks of the data device, the last one not included", 0,
     false},
    ARG_END};

static int run_rmap(struct tool *t, int argc, char **argv)
{
    struct rmap m = {.look = {.task.tool = t, .co_look = co_rmap, .option = rmap_option}};
    const struct arg_place places[] = {POOL_LOOK_PLACES(&m.look), {0, NULL, NULL}};
    int id = pool_look_read(&m.look, argc, argv, places);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (m.region_count == 0)
        return tool_misuse(t, "--region says which blocks");
    join_regions(&m);
    int rc = pool_look_run(&m.look);
    if (m.count)
        qsort(m.list, m.count, sizeof(*m.list), by_data);
    for (size_t i = 0; rc == 0 && i < m.count; i++) {
        const struct use *u = &m.list[i];
        printf("data %" PRIu64 "..%" PRIu64 " -> thin(%u) %" PRIu64 "..%" PRIu64 "\n", u->data,
               u->data + u->length, u->id, u->begin, u->begin + u->length);
    }
    mem_free(m.list);
    return rc;
}

const struct command pool_rmap_command = {
    .name = "pool rmap",
    .run = run_rmap,
    .usage = "pool rmap --region BEGIN..END... METADATA",
    .summary = "Say whose the blocks of a region of the data device are, as thin_rmap does",
    .faces = FACE_LAMINA,
    .options = rmap_options,
    .notes = "  lamina pool rmap --region 0..100 --region 500..600 meta.img",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_restore.c - `lamina pool restore`: metadata from XML, as thin_dump writes it.
 *
 * The parser runs on another thread and fills a list; between two pieces of the text the list is
 * put into the metadata. */
#include <stdlib.h>

#include "imgfmt/xml.h"
#include "tools/pool.h"
#include "volumes/thin_build.h"

enum event_kind { SUPER, DEVICE, DEVICE_END, EXTENT };

struct event {
    enum event_kind kind;
    uint32_t id;
    struct thin_detail detail;
    struct thin_extent extent;
};

struct events {
    struct event *list;
    size_t count, room;
};

/* Mappings that several devices share, by name. */
struct def {
    struct def *next;
    char *name;
    struct events events;
};

struct restore {
    struct task task;
    struct image in, out;
    bool force;
    struct blk_device *to;
    struct thin_build build;
    struct thin_super super;
    bool begun, in_device;
    struct events events;
    struct def *defs, *in_def;
    struct blk_error parse_error; /* of the other thread */
};

/* --- the parser's thread ----------------------------------------------------------------------
 */

static int add(struct events *to, const struct event *v)
{
    if (to->count == to->room) {
        size_t room = MAX(256, to->room * 2);
        struct event *grown = mem_resize(to->list, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        to->list = grown;
        to->room = room;
    }
    to->list[to->count++] = *v;
    return 0;
}

static int wrong(struct restore *r, const char *element, const char *what)
{
    return err_set(&r->parse_error, -EINVAL, "the XML's <%.40s>: %.80s", element, what);
}

/* A number below @limit (0: any). */
static int number(struct restore *r, const char *element, const char **attributes, const char *name,
                  uint64_t limit, uint64_t *out)
{
    const char *text = xml_attribute(attributes, name);
    char *end;
    errno = 0;
    *out = text ? strtoull(text, &end, 10) : 0;
    if (!text || *text < '0' || *text > '9' || *end || errno || (limit && *out >= limit))
        return wrong(r, element, name);
    return 0;
}

static int on_super(struct restore *r, const char *el, const char **a)
{
    uint64_t time, sectors, blocks;
    TRY(number(r, el, a, "time", 1ULL << 32, &time));
    TRY(number(r, el, a, "transaction", 0, &r->super.transaction));
    TRY(number(r, el, a, "data_block_size", 1ULL << 32, &sectors));
    TRY(number(r, el, a, "nr_data_blocks", THIN_DATA_MOST, &blocks));
    r->super.time = (uint32_t)time;
    r->super.chunk_bytes = sectors * 512;
    r->super.data.blocks = blocks;
    return add(&r->events, &(struct event){.kind = SUPER});
}

static int on_device(struct restore *r, const char *el, const char **a)
{
    uint64_t id, created, snapped;
    struct event v = {.kind = DEVICE};
    TRY(number(r, el, a, "dev_id", THIN_ID_MOST + 1ULL, &id));
    TRY(number(r, el, a, "mapped_blocks", 0, &v.detail.mapped));
    TRY(number(r, el, a, "transaction", 0, &v.detail.transaction));
    TRY(number(r, el, a, "creation_time", 1ULL << 32, &created));
    TRY(number(r, el, a, "snap_time", 1ULL << 32, &snapped));
    v.id = (uint32_t)id;
    v.detail.created = (uint32_t)created;
    v.detail.snapped = (uint32_t)snapped;
    r->in_device = true;
    return add(&r->events, &v);
}

static int on_mapping(struct restore *r, const char *el, const char **a, bool range)
{
    uint64_t time;
    struct event v = {.kind = EXTENT, .extent.length = 1};
    struct thin_extent *x = &v.extent;
    TRY(number(r, el, a, range ? "origin_begin" : "origin_block", 0, &x->begin));
    TRY(number(r, el, a, range ? "data_begin" : "data_block", THIN_DATA_MOST, &x->data));
    if (range)
        TRY(number(r, el, a, "length", THIN_DATA_MOST, &x->length));
    TRY(number(r, el, a, "time", 1ULL << 32, &time));
    x->time = (uint32_t)time;
    if (!r->in_def && !r->in_device)
        return wrong(r, el, "it stands outside of a device");
    return add(r->in_def ? &r->in_def->events : &r->events, &v);
}

static int on_def(struct restore *r, const char *el, const char **a)
{
    const char *name = xml_attribute(a, "name");
    struct def *d = name ? mem_zalloc(sizeof(*d)) : NULL;
    if (!name)
        return wrong(r, el, "name");
    if (d)
        d->name = mem_strdup(name);
    if (!d || !d->name) {
        mem_free(d);
        return -ENOMEM;
    }
    d->next = r->defs;
    r->defs = r->in_def = d;
    return 0;
}

static int on_ref(struct restore *r, const char *el, const char **a)
{
    const char *name = xml_attribute(a, "name");
    struct def *d = r->defs;
    while (d && name && strcmp(d->name, name) != 0)
        d = d->next;
    if (!d || !name || r->in_def || !r->in_device)
        return wrong(r, el, "it names nothing that was defined");
    for (size_t i = 0; i < d->events.count; i++)
        TRY(add(&r->events, &d->events.list[i]));
    return 0;
}

static int on_start(void *arg, const char *name, const char **attributes)
{
    struct restore *r = arg;
    if (strcmp(name, "range_mapping") == 0 || strcmp(name, "single_mapping") == 0)
        return on_mapping(r, name, attributes, name[0] == 'r');
    if (strcmp(name, "device") == 0)
        return on_device(r, name, attributes);
    if (strcmp(name, "superblock") == 0)
        return on_super(r, name, attributes);
    if (strcmp(name, "def") == 0)
        return on_def(r, name, attributes);
    if (strcmp(name, "ref") == 0)
        return on_ref(r, name, attributes);
    return wrong(r, name, "it is no element of a pool");
}

static int on_end(void *arg, const char *name)
{
    struct restore *r = arg;
    if (strcmp(name, "def") == 0)
        r->in_def = NULL;
    if (strcmp(name, "device") != 0)
        return 0;
    r->in_device = false;
    return add(&r->events, &(struct event){.kind = DEVICE_END});
}

/* --- the metadata -----------------------------------------------------------------------------
 */

static int co_apply(struct restore *r, const struct event *v)
{
    struct blk_error *e = &r->task.error;
    if (v->kind == SUPER && r->begun)
        return err_set(e, -EINVAL, "the XML has a second superblock");
    if (v->kind == SUPER) {
        r->begun = true;
        return co_thin_build_begin(&r->build, r->to, &r->super, e);
    }
    if (!r->begun)
        return err_set(e, -EINVAL, "the XML's superblock is missing");
    if (v->kind == DEVICE)
        return co_thin_build_device(&r->build, v->id, &v->detail, e);
    if (v->kind == DEVICE_END)
        return co_thin_build_device_end(&r->build, e);
    return co_thin_build_extent(&r->build, &v->extent, e);
}

static int co_fed(void *arg)
{
    struct restore *r = arg;
    for (size_t i = 0; i < r->events.count; i++)
        TRY(co_apply(r, &r->events.list[i]));
    r->events.count = 0;
    return 0;
}

static int co_restore(struct restore *r, struct blk_device *in)
{
    const struct xml_handler h = {
        .start = on_start, .end = on_end, .co_fed = co_fed, .endless = true, .arg = r};
    struct blk_error *e = &r->task.error;
    int rc = co_xml_parse(in, 0, in->size, &h, e);
    if (rc < 0 && r->parse_error.rc)
        *e = r->parse_error;
    if (rc == 0 && !r->begun)
        rc = err_set(e, -EINVAL, "the XML describes no pool");
    return r->begun ? co_thin_build_end(&r->build, rc, e) : rc;
}

static int co_body(struct task *t)
{
    struct restore *r = container_of(t, struct restore, task);
    struct blk_device *in;
    TRY(co_image_open(t->tool, &r->in, &in, &t->error));
    int rc = co_pool_output_open(t->tool, &r->out, r->force, &r->to, &t->error);
    if (rc == 0)
        rc = co_image_close(r->to, co_restore(r, in), &t->error);
    return co_image_close(in, rc, &t->error);
}

static void drop(struct restore *r)
{
    for (struct def *d = r->defs, *next; d; d = next) {
        next = d->next;
        mem_free(d->name);
        mem_free(d->events.list);
        mem_free(d);
    }
    mem_free(r->events.list);
}

static const struct arg_desc options[] = {
    {'i', "input", "FILE", "the XML, as pool dump prints it", 0, false},
    {'o', "output", "METADATA", "the metadata device; the pool that it holds is lost", 0, false},
    ARG_POOL_FORCE,
    {'f', "format", "FORMAT", "METADATA's format (else it is found out)", 0, false},
    ARG_QUIET,
    ARG_END};

static int run(struct tool *t, int argc, char **argv)
{
    struct restore r = {.task = {.tool = t, .kind = "pool restore", .co_body = co_body},
                        .in = {.trust = TRUST_READ, .format = "raw"},
                        .out = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE}};
    const struct arg_place places[] = {{'i', &r.in.text, NULL},
                                       {'o', &r.out.text, NULL},
                                       {'f', &r.out.format, NULL},
                                       {ARG_POOL_FORCE_ID, NULL, &r.force},
                                       {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &r};
    int id = args_read(t, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (!r.in.text || !r.out.text || line.argc)
        return tool_misuse(t, "expecting --input FILE and --output METADATA");
    int rc = task_run(&r.task, 1);
    drop(&r);
    return rc;
}

const struct command pool_restore_command = {
    .name = "pool restore",
    .run = run,
    .usage = "pool restore --input FILE --output METADATA",
    .summary = "Make a pool's metadata from XML, as thin_restore does",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "METADATA is there already, large enough for all of it.\n"
             "\n"
             "  lamina pool restore -i pool.xml -o meta.img",
};

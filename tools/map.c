/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c - where an image's data lies: one extent per line, through the whole chain. Printed when
 * the walk is over: neighbours that say the same are one line. */
#include "tools/draw.h"
#include "tools/image.h"
#include "tools/output.h"

enum { ARG_MAX = ARG_LONG };

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {'s', "start-offset", "OFFSET", "begin there", 0, false},
    {'l', "max-length", "LENGTH", "go at most this far", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_FORCE_SHARE,
    ARG_END};

struct entry {
    uint64_t start, length, offset;
    unsigned depth;
    bool data, zero, present, placed;
    const char *file; /* of the device that it lies in; owned by struct map's names */
};

/* Lines of JSON. A full sheet is written by a pool thread while the walk fills the other one: a map
 * of a million clusters is 200 MB of text. */
#define SHEET_BYTES (256 * KiB)
#define LINE_BYTES  256
struct sheet {
    size_t bytes;
    char text[SHEET_BYTES + LINE_BYTES];
};

struct map {
    struct tool *tool;
    struct image image;
    struct sheet *sheets, *filling; /* two */
    struct co_group writing;
    uint64_t start, length; /* told */
    struct entry current;
    bool any, refused, drawn;
    struct draw picture; /* drawn */
    struct blk_error error;
};

/* --- printing: as the walk goes, it may be long -------------------------------------------------
 */

/* printf() would take most of the time of a map of a million lines. */
static char *put_text(char *to, const char *text)
{
    size_t n = strlen(text);
    memcpy(to, text, n);
    return to + n;
}

static char *put_number(char *to, const char *before, uint64_t value)
{
    char digits[20];
    unsigned n = sizeof(digits);
    to = put_text(to, before);
    do
        digits[--n] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    memcpy(to, digits + n, sizeof(digits) - n);
    return to + sizeof(digits) - n;
}

static char *put_word(char *to, const char *before, bool yes)
{
    return put_text(put_text(to, before), yes ? "true" : "false");
}

static int write_sheet(void *arg)
{
    struct sheet *s = arg;
    fwrite(s->text, 1, s->bytes, stdout); /* main asks ferror() */
    s->bytes = 0;
    return 0;
}

static int co_write_sheet(void *arg)
{
    return co_offload(write_sheet, arg);
}

/* Hands the sheet over and takes the other one, once that is written. */
static void co_turn_sheet(struct map *m)
{
    co_group_start(&m->writing, co_write_sheet, m->filling);
    m->filling = m->filling == m->sheets ? m->sheets + 1 : m->sheets;
}

static void co_print_json(struct map *m, const struct entry *e, bool first)
{
    struct sheet *s = m->filling;
    char *line = s->text + s->bytes, *to = put_text(line, first ? "[" : ",\n");
    to = put_number(to, "{ \"start\": ", e->start);
    to = put_number(to, ", \"length\": ", e->length);
    to = put_number(to, ", \"depth\": ", e->depth);
    to = put_word(to, ", \"present\": ", e->present);
    to = put_word(to, ", \"zero\": ", e->zero);
    to = put_word(to, ", \"data\": ", e->data);
    if (e->placed)
        to = put_number(to, ", \"offset\": ", e->offset);
    *to++ = '}';
    assert(to - line <= LINE_BYTES);
    s->bytes += (size_t)(to - line);
    if (s->bytes >= SHEET_BYTES)
        co_turn_sheet(m);
}

/* Only what holds something; @m is marked if it cannot be said where. */
static void print_human(struct map *m, const struct entry *e)
{
    if (!e->data || e->zero)
        return;
    if (!e->placed || !e->file) {
        m->refused = true;
        return;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->length, e->offset,
           e->file);
}

static void co_print(struct map *m, bool first)
{
    if (m->tool->output == OUTPUT_JSON)
        co_print_json(m, &m->current, first);
    else
        print_human(m, &m->current);
}

/* --- the walk ------------------------------------------------------------------------------------
 */

static bool continues(const struct entry *a, const struct entry *b)
{
    return a->depth == b->depth && a->data == b->data && a->zero == b->zero &&
           a->present == b->present && a->placed == b->placed && a->file == b->file &&
           (!a->placed || a->offset + a->length == b->offset);
}

static int co_next(struct blk_device *dev, uint64_t at, uint64_t end, struct entry *e)
{
    struct blk_extent ext;
    unsigned depth;
    TRY(co_blk_map_chain(dev, NULL, at, end - at, &ext, &depth));
    bool known = (ext.flags & BLK_EXT_PLACED) && !(ext.flags & BLK_EXT_COMPRESSED);
    *e = (struct entry){.start = at,
                        .length = ext.bytes,
                        .depth = depth,
                        .data = ext.flags & BLK_EXT_DATA,
                        .zero = ext.flags & BLK_EXT_ZERO,
                        .present = ext.flags & BLK_EXT_ALLOCATED,
                        .placed = known,
                        .offset = known ? ext.child_offset : 0,
                        .file = known && ext.child ? ext.child->name : NULL};
    return 0;
}

/* QEMU counts in sectors: what a raw file's last one lacks reads zero. */
static void co_print_padding(struct map *m, uint64_t end)
{
    const struct entry last = m->current;
    m->current = (struct entry){.start = end,
                                .length = align_up(end, 512) - end,
                                .zero = true,
                                .present = true,
                                .placed = last.placed,
                                .offset = last.offset + last.length,
                                .file = last.file};
    co_print(m, false);
}

static int co_walk(struct map *m, struct blk_device *dev)
{
    uint64_t end = dev->size, told;
    bool printed = false;
    if (m->length && add_u64(m->start, m->length, &told))
        end = MIN(end, told);
    for (uint64_t at = m->start; at < end && !m->refused;) {
        struct entry e;
        int rc = co_next(dev, at, end, &e);
        if (rc < 0)
            return err_errno(&m->error, rc, "Failed to read image metadata");
        at += e.length;
        if (m->drawn && e.data && !e.zero)
            draw_add(&m->picture, e.depth, e.start, e.length);
        if (m->any && continues(&m->current, &e)) {
            m->current.length += e.length;
            continue;
        }
        if (m->any) {
            co_print(m, !printed);
            printed = true;
        }
        m->current = e;
        m->any = true;
    }
    if (m->any && !m->refused)
        co_print(m, !printed);
    if (m->any && m->tool->face == FACE_IMG && end == dev->size && end % 512)
        co_print_padding(m, end);
    return 0;
}

static int co_walk_json(struct map *m, struct blk_device *dev)
{
    m->sheets = m->filling = mem_array(2, sizeof(*m->sheets));
    if (!m->sheets)
        return err_set(&m->error, -ENOMEM, "out of memory");
    m->sheets[0].bytes = m->sheets[1].bytes = 0;
    co_group_init(&m->writing, 1);
    int rc = co_walk(m, dev);
    co_turn_sheet(m);
    co_group_wait(&m->writing);
    puts(m->any ? "]" : "[]");
    mem_free(m->sheets);
    return rc;
}

/* The list, and on a terminal a picture of it. */
static int co_walk_human(struct map *m, struct blk_device *dev)
{
    size_t layers = 0, i = 0;
    for (struct blk_device *d = dev; d; d = blk_child(d, "backing"))
        layers++;
    m->drawn = draw_is_wanted(m->tool);
    if (m->drawn && draw_init(&m->picture, dev->size, layers) < 0)
        return err_set(&m->error, -ENOMEM, "out of memory");
    printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    int rc = co_walk(m, dev);
    bool whole = rc == 0 && !m->refused;
    for (struct blk_device *d = dev; whole && m->drawn && d; d = blk_child(d, "backing"), i++)
        draw_row(&m->picture, i, d->name, d->driver->name);
    draw_drop(&m->picture);
    return rc;
}

static int co_run(void *arg)
{
    struct map *m = arg;
    struct blk_device *dev;
    int rc;
    TRY(co_image_open(m->tool, &m->image, &dev, &m->error));
    rc = m->tool->output == OUTPUT_JSON ? co_walk_json(m, dev) : co_walk_human(m, dev);
    return co_image_end(m->tool, dev, rc, &m->error);
}

/* --- what is told --------------------------------------------------------------------------------
 */

static int option(void *verb, int id, const char *value)
{
    struct map *m = verb;
    bool start = id == 's';
    return size_told(m->tool, start ? "start offset" : "max length", value,
                     start ? &m->start : &m->length)
               ? 0
               : ARGS_BAD;
}

static int parse(struct map *m, int argc, char **argv)
{
    const struct arg_place places[] = {IMAGE_PLACES(&m->image), {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, m};
    return image_read(m->tool, &line, &m->image);
}

static int run(struct tool *t, int argc, char **argv)
{
    struct map m = {.tool = t, .image = {.trust = TRUST_READ}};
    int id = parse(&m, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    int rc = tool_run(t, 1, co_run, &m);
    if (rc < 0)
        return tool_failed(t, &m.error);
    if (m.refused) {
        tool_error(t, "File contains external, encrypted or compressed clusters.");
        return 1;
    }
    return 0;
}

const struct command map_command = {
    .name = "map",
    .run = run,
    .usage = "map [OPTION]... IMAGE",
    .summary = "List where an image's data lies, through all that it stands on",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes =
        "For people: what holds data, and where. As JSON: every extent; depth 0 is IMAGE itself,\n"
        "1 what it stands on, and so on. On a terminal the chain is drawn as well.\n"
        "\n"
        "  lamina map disk.qcow2\n"
        "  lamina map --output=json --start-offset=1G --max-length=64M overlay.qcow2",
};

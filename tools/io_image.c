/* SPDX-License-Identifier: BSD-3-Clause */
/* io_image.c - qemu-io's commands that open an image or close it, and those about all of it: sizes,
 * facts, what it holds. */
#include <getopt.h>

#include "tools/io.h"
#include "tools/output.h"

/* --- opening ---------------------------------------------------------------------------------- */

struct opening {
    struct io *io;
    struct image image;
    struct blk_error error;
};

static int co_open(void *arg)
{
    struct opening *o = arg;
    struct io *io = o->io;
    co_group_init(&io->aio, 0);
    return co_image_open(io->tool, &o->image, &io->dev, &o->error);
}

/* A text of key=value,... as it stands among others: commas doubled. */
static char *doubled(const char *text)
{
    char *out = mem_array(2, strlen(text) + 1), *to = out;
    for (; out && *text; text++) {
        if (*text == ',')
            *to++ = ',';
        *to++ = *text;
    }
    return out;
}

/* What is opened as driver=...,key=value: the options, and the file among them. */
static char *with_options(const struct io_how *how)
{
    auto_free char *file = how->text && !how->image_opts ? doubled(how->text) : NULL;
    if (how->text && how->image_opts)
        return mem_printf("%s,%s", how->text, how->options);
    if (!how->text)
        return mem_strdup(how->options);
    return file ? mem_printf("%s,file.filename=%s", how->options, file) : NULL;
}

static bool is_direct(const char *cache)
{
    return cache && strchr("nod", cache[0]); /* none, off, directsync */
}

/* What contradicts itself, or NULL. */
static const char *contradiction(const struct io *io, const struct io_how *how)
{
    if (how->native && !is_direct(how->cache))
        return "aio=native was specified, but it requires cache.direct=on, which was not "
               "specified.";
    if (io->tool->force_share && !how->read_only)
        return "force-share=on can only be used with read-only images";
    return NULL;
}

static void keep(struct io *io, const struct io_how *how)
{
    io->how = *how;
    io->how.text = how->text ? mem_strdup(how->text) : NULL;
    io->how.format = how->format ? mem_strdup(how->format) : NULL;
    io->how.options = how->options ? mem_strdup(how->options) : NULL;
    io->how.cache = how->cache ? mem_strdup(how->cache) : NULL;
}

static void forget(struct io *io)
{
    mem_free((char *)io->how.text);
    mem_free((char *)io->how.format);
    mem_free((char *)io->how.options);
    mem_free((char *)io->how.cache);
    io->how = (struct io_how){0};
}

int io_open(struct io *io, const struct io_how *how)
{
    auto_free char *text = how->options ? with_options(how) : NULL;
    struct opening o = {.io = io,
                        .image = {.text = text ? text : how->text,
                                  .format = how->format,
                                  .image_opts = how->image_opts || text,
                                  .cache = how->cache,
                                  .flags = how->read_only ? 0 : BLK_OPEN_WRITE,
                                  .trust = TRUST_WRITE,
                                  .bare = true}};
    struct io_snapshot snapshot = {0};
    const char *sentence = contradiction(io, how);
    int rc = sentence ? err_set(&o.error, -EINVAL, "%s", sentence) : 0;
    if (rc == 0 && how->snapshot) {
        rc = io_snapshot_make(io, &o.image, &snapshot, &o.error);
        o.image.text = snapshot.text;
        o.image.format = NULL;
        o.image.image_opts = false;
    }
    if (rc == 0)
        rc = io_work(io, co_open, &o);
    io_snapshot_drop(&snapshot);
    if (rc == 0) {
        keep(io, how);
        return 0;
    }
    tool_error(io->tool, "can't open%s%s: %s", how->text ? " device " : "",
               how->text ? how->text : "", o.error.text);
    return rc;
}

static int co_close(void *arg)
{
    struct io *io = arg;
    (void)!co_group_wait(&io->aio);
    return co_blk_close(take(io->dev), NULL);
}

int io_close(struct io *io)
{
    int rc = io->dev ? io_work(io, co_close, io) : 0;
    forget(io);
    return rc;
}

static bool one_of(const struct io *io, const char *what, const char *value,
                   const char *const *words)
{
    for (; *words; words++)
        if (strcmp(*words, value) == 0)
            return true;
    tool_error(io->tool, "Invalid %s option: %s", what, value);
    return false;
}

bool io_how_told(const struct io *io, struct io_how *how, int option, const char *value)
{
    static const char *const aio[] = {"threads", "native", "io_uring", NULL};
    static const char *const discard[] = {"ignore", "off", "unmap", "on", NULL};
    switch (option) {
    case 't':
        how->cache = value;
        return cache_told(io->tool, "cache", value);
    case 'i':
        how->native = strcmp(value, "native") == 0;
        return one_of(io, "aio", value, aio);
    default:
        how->no_discard = strcmp(value, "ignore") == 0 || strcmp(value, "off") == 0;
        return one_of(io, "discard", value, discard);
    }
}

/* One option of `open`: 0, -EINVAL after a message, 1: there is no such. */
static int open_option(struct io *io, struct io_how *how, int id, bool *share)
{
    switch (id) {
    case 'r':
        how->read_only = true;
        return 0;
    case 's':
        how->snapshot = true;
        return 0;
    case 'C':
        how->copy_on_read = true;
        return 0;
    case 'n':
        how->cache = "none";
        return 0;
    case 'k':
        how->native = true;
        return 0;
    case 'U':
        *share = true;
        return 0;
    case 'o':
        how->options = optarg;
        return 0;
    case 't':
    case 'd':
    case 'i':
        return io_how_told(io, how, id, optarg) ? 0 : -EINVAL;
    default:
        return 1;
    }
}

static int cmd_open(struct io *io, int argc, char **argv)
{
    struct io_how how = {.image_opts = io->image_opts};
    bool share = false;
    int id, rc = 0;
    optind = 0;
    opterr = 1;
    while (rc == 0 && (id = getopt(argc, argv, "snCro:ki:t:d:U")) != -1)
        rc = open_option(io, &how, id, &share);
    if (rc == 1)
        return io_misuse(io_find(argv[0]));
    if (rc < 0)
        return rc;
    if (how.image_opts && how.options) {
        puts("--image-opts and 'open -o' are mutually exclusive");
        return -EINVAL;
    }
    if (optind < argc - 1 || (optind == argc && !how.options))
        return io_misuse(io_find(argv[0]));
    if (io->dev) {
        tool_error(io->tool, "file open already, try 'help close'");
        return -EINVAL;
    }
    how.text = optind < argc ? argv[optind] : NULL;
    io->tool->force_share = share;
    return io_open(io, &how);
}

static int cmd_close(struct io *io, int argc, char **argv)
{
    return io_close(io);
}

/* --- opening again ---------------------------------------------------------------------------- */

struct reopening {
    struct io *io;
    bool write;
    struct blk_error error;
};

static int co_reopen(void *arg)
{
    struct reopening *r = arg;
    (void)!co_group_wait(&r->io->aio);
    return co_blk_reopen(r->io->dev, r->write, &r->error);
}

/* The first key of @text that the driver does not know; a new string, or NULL. */
static char *foreign_option(const struct blk_driver *d, const char *text)
{
    json_auto_t *tree = json_object();
    struct blk_error e = {0};
    const char *key;
    json_t *value;
    if (!tree || opts_text_to_tree(text, NULL, tree, &e) < 0)
        return mem_strdup(text);
    json_object_foreach (tree, key, value) {
        const struct opt_desc *o = d->open_options;
        while (o && o->name && strcmp(o->name, key) != 0)
            o++;
        if (!o || !o->name)
            return mem_strdup(key);
    }
    return NULL;
}

/* With another cache mode or other options it is closed and opened as before but for these. */
static int open_anew(struct io *io, const char *cache, const char *options, bool read_only)
{
    auto_free char *foreign = options ? foreign_option(io->dev->driver, options) : NULL;
    if (foreign) {
        tool_error(io->tool, "Cannot change the option '%s'", foreign);
        return -EINVAL;
    }
    const char *format = io->how.format ? io->how.format : io->dev->driver->name;
    auto_free char *text = io->how.text ? mem_strdup(io->how.text) : NULL;
    auto_free char *named =
        mem_printf("driver=%s%s%s", format, options ? "," : "", options ? options : "");
    auto_free char *old_cache = io->how.cache ? mem_strdup(io->how.cache) : NULL;
    auto_free char *old_options = io->how.options ? mem_strdup(io->how.options) : NULL;
    struct io_how how = io->how;
    if (!named)
        return -ENOMEM;
    how.text = text;
    how.format = NULL;
    how.cache = cache ? cache : old_cache;
    how.options = old_options ? old_options : named;
    if (how.image_opts)
        how.options = options;
    how.read_only = read_only;
    int rc = io_close(io);
    return rc < 0 ? rc : io_open(io, &how);
}

static int cmd_reopen(struct io *io, int argc, char **argv)
{
    struct reopening r = {.io = io, .write = io->dev->writable};
    const char *cache = NULL, *options = NULL;
    bool told = false;
    int id;
    optind = 0;
    opterr = 1;
    while ((id = getopt(argc, argv, "c:o:rw")) != -1) {
        if (id == 'c' && !cache_told(io->tool, "cache", optarg))
            return -EINVAL;
        if ((id == 'r' || id == 'w') && told) {
            tool_error(io->tool, "Only one -r/-w option may be given");
            return -EINVAL;
        }
        if (id == '?')
            return io_misuse(io_find(argv[0]));
        told |= id == 'r' || id == 'w';
        r.write = id == 'w' || (r.write && id != 'r');
        cache = id == 'c' ? optarg : cache;
        options = id == 'o' ? optarg : options;
    }
    if (optind != argc)
        return io_misuse(io_find(argv[0]));
    if (cache || options)
        return open_anew(io, cache, options, !r.write);
    int rc = r.write == io->dev->writable ? 0 : io_work(io, co_reopen, &r);
    if (rc < 0)
        tool_error(io->tool, "%s", r.error.text);
    return rc;
}

/* --- sizes ------------------------------------------------------------------------------------ */

uint64_t io_size(const struct io *io)
{
    return align_up(io->dev->size, 512);
}

static int cmd_length(struct io *io, int argc, char **argv)
{
    char text[40];
    puts(io_size_text((double)io_size(io), text, sizeof(text)));
    return 0;
}

struct truncation {
    struct io *io;
    struct image_size to;
    struct blk_error error;
};

static int co_truncate(void *arg)
{
    struct truncation *t = arg;
    if (t->to.preallocation != PREALLOC_OFF && t->to.bytes < t->io->dev->size)
        return err_set(&t->error, -EINVAL, "Preallocation can't be used for shrinking an image");
    return co_image_resize(t->io->tool, t->io->dev, &t->to, &t->error);
}

static int cmd_truncate(struct io *io, int argc, char **argv)
{
    struct truncation t = {.io = io, .to = {.shrink = true}};
    int id;
    optind = 0;
    opterr = 1;
    while ((id = getopt(argc, argv, "m:")) != -1) {
        if (id == '?')
            return io_misuse(io_find(argv[0]));
        if (!preallocation_told(io->tool, optarg, &t.to.preallocation))
            return -EINVAL;
    }
    if (optind != argc - 1)
        return io_misuse(io_find(argv[0]));
    if (!io_number(argv[optind], &t.to.bytes))
        return -EINVAL;
    int rc = io_work(io, co_truncate, &t);
    if (rc < 0)
        tool_error(io->tool, "%s", t.error.text);
    return rc;
}

/* --- what it holds ---------------------------------------------------------------------------- */

struct walk {
    struct io *io;
    uint64_t offset, bytes, held;
    bool print; /* each run of one kind */
};

static void print_run(uint64_t offset, uint64_t bytes, bool held)
{
    char size[40], at[40];
    printf("%s (0x%" PRIx64 ") bytes %s at offset %s (0x%" PRIx64 ")\n",
           io_size_text((double)bytes, size, sizeof(size)), bytes,
           held ? "    allocated" : "not allocated", io_size_text((double)offset, at, sizeof(at)),
           offset);
}

/* What is in this image, and not behind it. */
static int co_walk(void *arg)
{
    struct walk *w = arg;
    struct blk_device *dev = w->io->dev;
    uint64_t end = w->offset + w->bytes, run = w->offset;
    bool run_held = false;
    for (uint64_t at = run; at < end;) {
        uint64_t left = MIN(end, dev->size) - MIN(at, dev->size);
        struct blk_extent ext = {.bytes = end - at}; /* the rest of an odd disk's last sector */
        unsigned depth;
        if (left)
            TRY(co_blk_map_chain(dev, blk_child(dev, "backing"), at, left, &ext, &depth));
        bool held = left ? ext.flags & BLK_EXT_ALLOCATED : run_held;
        if (at > run && held != run_held) {
            if (w->print)
                print_run(run, at - run, run_held);
            run = at;
        }
        run_held = held;
        w->held += held ? ext.bytes : 0;
        at += ext.bytes;
    }
    if (w->print && end > run)
        print_run(run, end - run, run_held);
    return 0;
}

static int cmd_map(struct io *io, int argc, char **argv)
{
    struct walk w = {.io = io, .bytes = io_size(io), .print = true};
    int rc = io_work(io, co_walk, &w);
    if (rc < 0)
        tool_error(io->tool, "Failed to get allocation status: %s", strerror(-rc));
    return rc;
}

static int cmd_alloc(struct io *io, int argc, char **argv)
{
    struct walk w = {.io = io, .bytes = 512};
    char at[40];
    if (!io_number(argv[1], &w.offset) || (argc == 3 && !io_number(argv[2], &w.bytes)))
        return -EINVAL;
    w.bytes = MIN(w.bytes, io_size(io) - MIN(w.offset, io_size(io)));
    int rc = io_work(io, co_walk, &w);
    if (rc < 0)
        printf("is_allocated failed: %s\n", strerror(-rc));
    else
        printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", w.held, w.bytes,
               io_size_text((double)w.offset, at, sizeof(at)));
    return rc;
}

struct facts {
    struct io *io;
    struct blk_info info;
};

static int co_facts(void *arg)
{
    struct facts *f = arg;
    return co_blk_info(f->io->dev, &f->info, NULL);
}

static int cmd_info(struct io *io, int argc, char **argv)
{
    struct facts f = {.io = io};
    char cluster[40], state[40];
    printf("format name: %s\n", io->dev->driver->name);
    int rc = io_work(io, co_facts, &f);
    if (rc < 0)
        return rc;
    printf("cluster size: %s\nvm state offset: %s\n",
           io_size_text(f.info.cluster_size, cluster, sizeof(cluster)),
           io_size_text((double)f.info.vm_state_offset, state, sizeof(state)));
    output_info_specific(&f.info);
    blk_info_drop(&f.info);
    return 0;
}

const struct io_command io_image_commands[] = {
    {"open", "o", cmd_open, 1, -1, IO_NO_FILE,
     "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", "open the file specified by path",
     "-r: read only. -s: writes go into a temporary overlay. -C: what is read comes up from the "
     "backing\nimage. -n: -t none. -k, -i MODE: accepted. -d ignore: discards do nothing. -U: take "
     "no locks.\n-o: driver=...,key=value.\n"},
    {"close", "c", cmd_close, 0, 0, 0, NULL, "close the current open file", NULL},
    {"reopen", NULL, cmd_reopen, 0, -1, 0, "[(-r|-w)] [-c cache] [-o options]",
     "reopens an image with new options", "-r, -w: read only, or not. -c: another cache mode.\n"},
    {"length", "l", cmd_length, 0, 0, 0, NULL, "gets the length of the current file", NULL},
    {"truncate", "t", cmd_truncate, 1, 3, IO_WRITES, "[-m prealloc_mode] off",
     "truncates the current file at the given offset", NULL},
    {"map", NULL, cmd_map, 0, 0, 0, "", "prints the allocated areas of a file", NULL},
    {"alloc", "a", cmd_alloc, 1, 2, 0, "offset [count]",
     "checks if offset is allocated in the file", NULL},
    {"info", "i", cmd_info, 0, 0, 0, NULL, "prints information about the current file", NULL},
    {0},
};

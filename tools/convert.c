/* SPDX-License-Identifier: BSD-3-Clause */
/* convert.c - convert: what is told, and how it is run. */
#include <signal.h>
#include <unistd.h>

#include "tools/convert.h"
#include "tools/pipe.h"

enum {
    ARG_FORCE = ARG_LONG,
    ARG_SYNC,
    ARG_TARGET_IS_ZERO,
    ARG_IMAGE_OPTS,
    ARG_TARGET_IMAGE_OPTS,
    ARG_DROP_BEHIND,
    ARG_SALVAGE,
    ARG_BITMAPS,
    ARG_SKIP_BROKEN,
    ARG_HASH,
    ARG_EXPECT,
    ARG_RESUME
};

static const struct arg_desc options[] = {
    {'f', "source-format", "FORMAT", "the sources' format (else it is found out)", 0, false},
    {'O', "target-format", "FORMAT", "the target's format (else what TARGET's ending says)", 0,
     false},
    {'c', "compress", NULL, "compress the data", 0, false},
    {'o', "target-format-options", "KEY=VALUE,...", "options of the format; -o help lists them", 0,
     false},
    {'B', NULL, "IMAGE", "the target stands on IMAGE, which shows what the source's own does", 0,
     false},
    {'b', "backing", "IMAGE", "the same as -B", 0, false},
    {'F', "backing-format", "FORMAT", "the format of -B's image", 0, false},
    {'l', "snapshot", "NAME",
     "the disk as that snapshot inside the source holds it: a name or an id", 0, false},
    {'n', "no-create", NULL, "write into TARGET, which is there already", 0, false},
    {ARG_TARGET_IS_ZERO, "target-is-zero", NULL, "with -n: TARGET reads zero everywhere", 0, false},
    {ARG_BITMAPS, "bitmaps", NULL, "copy the source's persistent bitmaps too", 0, false},
    {ARG_SKIP_BROKEN, "skip-broken-bitmaps", NULL, "but those that cannot be used", 0, false},
    {ARG_FORCE, "force", NULL, "replace TARGET if it exists", FACE_LAMINA, false},
    {ARG_RESUME, "resume", NULL,
     "keep a journal beside TARGET; go on from it if an earlier run was interrupted", FACE_LAMINA,
     false},
    {ARG_SYNC, "sync", NULL, "do not return before TARGET is durable", FACE_LAMINA, false},
    {'t', "target-cache", "MODE",
     "none, writeback, writethrough, directsync, unsafe (the default: no flush)", 0, false},
    {'T', "source-cache", "MODE", "how the sources are cached: modes as of -t", 0, false},
    {'S', "sparse-size", "SIZE", "leave out runs of SIZE zeroes (4k); 0 writes all", 0, false},
    {'m', "parallel", "N", "requests in flight (8)", 0, false},
    {'W', "oob-writes", NULL, "write in any order (it always may)", 0, false},
    {'r', "rate-limit", "RATE", "at most RATE bytes a second", 0, false},
    {'C', "copy-range-offloading", NULL, "copy inside the kernel (it always does where it can)", 0,
     false},
    {ARG_DROP_BEHIND, "drop-behind", "WHEN",
     "auto, on, off: keep what was copied out of the page cache (auto: if it is much)", FACE_LAMINA,
     false},
    {ARG_SALVAGE, "salvage", NULL, "what cannot be read is zero, and told, instead of an error", 0,
     false},
    {ARG_HASH, "hash", "NAME", "read TARGET back and print its hash: sha256, blkhash or sumhash",
     FACE_LAMINA, false},
    {ARG_EXPECT, "expect", "VALUE", "with --hash: fail, without a TARGET, unless it is VALUE",
     FACE_LAMINA, false},
    {ARG_IMAGE_OPTS, "image-opts", NULL, "sources are driver=...,key=value or json:{...}", 0,
     false},
    {ARG_TARGET_IMAGE_OPTS, "target-image-opts", NULL, "the same for TARGET; needs -n", 0, false},
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

/* --- running ------------------------------------------------------------------------------------
 */

static int co_body(struct task *t)
{
    struct convert *c = container_of(t, struct convert, task);
    int rc = co_convert_open(c);
    t->job.total = c->hash.kind ? 2 * c->size : c->size;
    if (rc == 0 && !c->resume.ended)
        rc = c->target ? co_convert_copy(c) : co_convert_pipe_disk(c);
    if (rc == 0 && t->signal)
        rc = err_set(&t->error, -ECANCELED, "interrupted");
    return co_convert_close(c, rc);
}

/* --- what is told ------------------------------------------------------------------------------
 */

static int sparse_told(struct convert *c, const char *value)
{
    struct tool *t = c->make.tool;
    if (!size_told(t, "buffer size for sparse output", value, &c->sparse))
        return ARGS_BAD;
    c->sparse_told = true;
    if (c->sparse % 512 == 0 && c->sparse <= 16 * MiB)
        return 0;
    tool_error(t,
               tool_words(t,
                          "-S is a multiple of 512 up to 16M, or 0 to look for no zeroes: not '%s'",
                          "Invalid buffer size for sparse output specified. Valid sizes are "
                          "multiples of 512 up to 16777216. Select 0 to disable sparse detection "
                          "(fully allocates output).%.0s"),
               value);
    return ARGS_BAD;
}

static int flight_told(struct convert *c, const char *value)
{
    char *end;
    long n = strtol(value, &end, 0);
    if (*value && !*end && n >= 1 && n <= 16) {
        c->in_flight = (unsigned)n;
        return 0;
    }
    tool_error(c->make.tool,
               tool_words(c->make.tool, "-m is a number from 1 to 16, not '%s'",
                          "Invalid number of coroutines. Allowed number of coroutines is between "
                          "1 and 16%.0s"),
               value);
    return ARGS_BAD;
}

static int drop_told(struct convert *c, const char *value)
{
    static const char *const words[] = {
        [DROP_IF_BIG] = "auto", [DROP_ALWAYS] = "on", [DROP_NEVER] = "off"};
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(value, words[i]) == 0) {
            c->drop.mode = i;
            return 0;
        }
    }
    tool_error(c->make.tool, "--drop-behind is auto, on or off, not '%s'", value);
    return ARGS_BAD;
}

static int option(void *verb, int id, const char *value)
{
    struct convert *c = verb;
    struct tool *t = c->make.tool;
    switch (id) {
    case 'o':
        return make_options_told(t, c->make.options, value, &c->help);
    case 'S':
        return sparse_told(c, value);
    case 'm':
        return flight_told(c, value);
    case 'r':
        return size_told(t, "rate limit", value, &c->task.rate) ? 0 : ARGS_BAD;
    case ARG_DROP_BEHIND:
        return drop_told(c, value);
    case ARG_HASH:
        return hash_kind_told(t, value, &c->hash);
    case ARG_EXPECT:
        return hash_expect_told(t, value, &c->hash);
    default:
        return 0; /* -W: said of every run */
    }
}

static int parse(struct convert *c, int argc, char **argv)
{
    const struct arg_place places[] = {
        {'f', &c->format, NULL},
        {'O', &c->target_format, NULL},
        {'c', NULL, &c->compress},
        {'B', &c->backing, NULL},
        {'b', &c->backing, NULL},
        {'F', &c->backing_format, NULL},
        {'n', NULL, &c->into},
        {'t', &c->cache, NULL},
        {'T', &c->source_cache, NULL},
        {'l', &c->snapshot, NULL},
        {'C', NULL, &c->offload},
        {ARG_TARGET_IS_ZERO, NULL, &c->target_is_zero},
        {ARG_FORCE, NULL, &c->make.force},
        {ARG_BITMAPS, NULL, &c->with_bitmaps},
        {ARG_SKIP_BROKEN, NULL, &c->skip_broken},
        {ARG_SYNC, NULL, &c->sync},
        {ARG_RESUME, NULL, &c->resume.asked},
        {ARG_SALVAGE, NULL, &c->salvage},
        {ARG_IMAGE_OPTS, NULL, &c->image_opts},
        {ARG_TARGET_IMAGE_OPTS, NULL, &c->target_image_opts},
        {0, NULL, NULL},
    };
    struct command_line line = {argc, argv, places, option, c};
    int id = args_read(c->make.tool, &line);
    if (id != ARGS_END)
        return id;
    c->names = line.argv;
    c->count = line.argc > 1 ? (size_t)line.argc - 1 : 0;
    c->make.name = line.argc > 0 ? line.argv[line.argc - 1] : NULL;
    c->make.pipe = c->make.tool->face == FACE_LAMINA && is_pipe(c->make.name);
    return ARGS_END;
}

/* The first rule that what was told breaks, or NULL. */
static const char *contradiction(const struct convert *c)
{
    const struct {
        bool broken;
        const char *sentence;
    } rules[] = {
        {c->count == 0, c->make.tool->face == FACE_LAMINA
                            ? "Must specify image file name: lamina convert SOURCE... TARGET"
                            : "Must specify image file name"},
        {c->image_opts && c->format, "--image-opts and --format are mutually exclusive"},
        {c->target_image_opts && !c->into, "--target-image-opts requires use of -n flag"},
        {c->target_image_opts && c->target_format,
         "--target-image-opts and -O are mutually exclusive"},
        {c->target_is_zero && !c->into, "--target-is-zero requires use of -n flag"},
        {c->target_is_zero && c->backing,
         "Cannot use --target-is-zero when the destination image has a backing file"},
        {c->resume.asked && c->cache && strcmp(c->cache, "unsafe") == 0,
         "--resume relies on flushes: not with -t unsafe"},
        {c->into && json_object_size(c->make.options) > 0,
         "-o has no effect when skipping image creation"},
        {c->offload && c->sparse_told, "Cannot enable copy offloading when -S is used"},
        {c->offload && c->compress, "Cannot enable copy offloading when -c is used"},
        {c->offload && c->salvage, "Cannot use copy offloading in salvaging mode"},
        {c->backing && c->count > 1,
         "Having a backing file for the target makes no sense when concatenating multiple input "
         "images"},
        {c->backing && !c->backing_format && c->make.tool->face != FACE_LAMINA && !c->into,
         "Use of backing file requires explicit backing format"},
        {c->snapshot && c->count > 1, "No support for concatenating multiple snapshot"},
        {c->snapshot && strncmp(c->snapshot, "snapshot.", 9) == 0 &&
             strncmp(c->snapshot + 9, "id=", 3) != 0 && strncmp(c->snapshot + 9, "name=", 5) != 0,
         "-l takes snapshot.id=ID, snapshot.name=NAME, or a name or id"},
        {c->skip_broken && !c->with_bitmaps, "Use of --skip-broken-bitmaps requires --bitmaps"},
        {c->with_bitmaps && c->count > 1, "Copying bitmaps only possible with single source"},
        {c->hash.expect[0] && !c->hash.kind, "--expect needs --hash: which hash is it?"},
        {c->make.pipe && (c->into || c->backing || c->hash.kind || c->sync),
         "-n, -B, --hash and --sync need a target that is no pipe"},
        {c->resume.asked && (c->into || c->make.force || c->make.pipe || c->with_bitmaps),
         "--resume makes a new file: not with -n, --force, --bitmaps or a pipe"},
        {c->into && c->make.force, "--force and -n contradict each other"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return rules[i].sentence;
    return NULL;
}

/* The target's format: told, or said by its ending; in the face raw. */
static int target_format(struct convert *c)
{
    struct tool *t = c->make.tool;
    struct make *m = &c->make;
    if (c->into && (!c->target_format || c->target_image_opts)) {
        if (t->face != FACE_LAMINA && !c->target_image_opts)
            c->target_format = "raw";
        return 0;
    }
    if (c->target_format)
        m->driver = format_find(t, c->target_format, "");
    else if (t->face != FACE_LAMINA)
        m->driver = format_find(t, "raw", "");
    else if (!(m->driver = format_by_ending(m->name)))
        tool_error(t, "the ending of '%s' names no format; say it with -O", m->name);
    if (!m->driver)
        return 1;
    if (!c->into && !format_creates(t, m->driver, ""))
        return 1;
    if (c->compress && !m->driver->compresses) {
        (void)format_no_compression(t, m->driver, &c->task.error);
        return tool_failed(t, &c->task.error);
    }
    return 0;
}

/* Proxmox's qemu-img has a filter of that name: what lies behind reads zero. */
static void take_zeroinit(struct convert *c)
{
    static const char prefix[] = "zeroinit:";
    const char *name = c->make.name;
    if (!name || c->make.tool->face != FACE_IMG || strncmp(name, prefix, strlen(prefix)) != 0)
        return;
    c->make.name = name + strlen(prefix);
    c->target_is_zero |= c->into;
}

/* Everything that can be known before a file is opened; 0, or 1 after a message. */
static int check(struct convert *c)
{
    struct tool *t = c->make.tool;
    if (!cache_told(t, "cache", c->cache) || !cache_told(t, "source cache", c->source_cache))
        return 1;
    make_backing_told(c->make.options, &c->backing, &c->backing_format);
    take_zeroinit(c);
    const char *sentence = contradiction(c);
    if (sentence) {
        tool_error(t, "%s", sentence);
        return 1;
    }
    uint64_t size;
    bool given;
    if (make_take_size(&c->make, &size, &given, &c->task.error) < 0)
        return tool_failed(t, &c->task.error);
    if (c->resume.asked) { /* what the journal says must be so after a crash */
        c->make.steady = c->sync = true;
        c->make.fresh = false;
    }
    c->make.cache = c->cache ? c->cache : c->sync ? "writeback" : "unsafe";
    if (!c->cache)
        c->cache = c->make.cache;
    if (target_format(c))
        return 1;
    if (c->backing && !c->into && !make_knows_option(&c->make, "backing_file")) {
        (void)format_no_backing(t, c->make.driver, &c->task.error);
        return tool_failed(t, &c->task.error);
    }
    return 0;
}

static int convert(struct convert *c)
{
    struct tool *t = c->make.tool;
    if (c->help &&
        !(c->make.driver = format_find(t, c->target_format ? c->target_format : "raw", "")))
        return 1;
    if (c->help) {
        make_print_help(t, c->make.driver, c->make.name != NULL);
        return 0;
    }
    if (check(c))
        return 1;
    if (c->make.pipe && isatty(STDOUT_FILENO)) {
        tool_error(t, "standard output is a terminal: send it into a file or a program");
        return 1;
    }
    t->stdout_taken = c->make.pipe;
    signal(SIGPIPE, SIG_IGN); /* who reads the progress may go away, */
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like another */
    int rc = task_run(&c->task, 0);
    if (rc == 0 && c->hash.kind && !t->quiet)
        printf("%s  %s\n", c->hash_text, c->make.name);
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct convert c = {.task = {.tool = t, .kind = "convert", .co_body = co_body},
                        .make = {.tool = t, .options = json_object(), .fresh = true},
                        .sparse = 4 * KiB,
                        /* One by one clusters lie in the same order whatever the machine does. */
                        .in_flight = getenv("SOURCE_DATE_EPOCH") ? 1 : 8};
    int id = parse(&c, argc, argv);
    int rc = id == ARGS_END ? convert(&c) : id == ARGS_HELP ? 0 : 1;
    make_drop(&c.make);
    return rc;
}

const struct command convert_command = {
    .name = "convert",
    .run = run,
    .usage = "convert [OPTION]... SOURCE... TARGET",
    .summary = "Copy a disk into another format",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes =
        "Several sources are put one behind the other. TARGET must not exist, unless --force says\n"
        "that it may be replaced or -n that it shall be written into. A new TARGET has its name "
        "only\n"
        "when it is whole. SIGUSR1 asks how far it is. A SOURCE or TARGET - is standard input or\n"
        "output.\n"
        "\n"
        "  lamina convert disk.img disk.qcow2\n"
        "  lamina convert -p -c -O qcow2 /dev/vg0/vm1 vm1.qcow2\n"
        "  lamina convert --resume -p disk.img /mnt/backup/disk.qcow2\n"
        "  lamina convert --hash sha256 disk.qcow2 disk.img\n"
        "  lamina convert -O qcow2 disk.img - | ssh host 'cat > disk.qcow2'\n"
        "  lamina convert -n -O raw disk.qcow2 /dev/vg0/vm1",
};

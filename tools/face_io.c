/* SPDX-License-Identifier: BSD-3-Clause */
/* face_io.c - called as qemu-io: commands of -c, or of standard input, on an image.
 *
 * The runtime lives as long as the program: a command is one coroutine in it (io_work). */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>

#include "tools/io.h"

#define MOST_WORDS    64
#define MOST_COMMANDS 64

/* --- commands --------------------------------------------------------------------------------- */

static int cmd_help(struct io *io, int argc, char **argv);

static int cmd_quit(struct io *io, int argc, char **argv)
{
    io->quit = true;
    return 0;
}

static int cmd_abort(struct io *io, int argc, char **argv)
{
    abort();
}

static int cmd_raise(struct io *io, int argc, char **argv)
{
    uint64_t number;
    if (!io_number(argv[1], &number) || number > INT32_MAX)
        return -EINVAL;
    fflush(stdout);
    return raise((int)number) == 0 ? 0 : -EINVAL;
}

static int co_doze(void *arg)
{
    co_sleep(*(const uint64_t *)arg * 1000000);
    return 0;
}

static int cmd_sleep(struct io *io, int argc, char **argv)
{
    char *end;
    errno = 0;
    uint64_t ms = strtoul(argv[1], &end, 0);
    if (errno || end == argv[1] || *end || argv[1][0] == '-' || ms > INT32_MAX) {
        printf("%s is not a valid number\n", argv[1]);
        return -EINVAL;
    }
    return io_work(io, co_doze, &ms);
}

/* Breakpoints stop QEMU's own steps, which are not ours. */
static int no_breakpoints(const char *sentence, const char *tag)
{
    printf(sentence, tag);
    printf(": %s\n", strerror(ENOTSUP));
    return -ENOTSUP;
}

static int cmd_break(struct io *io, int argc, char **argv)
{
    return no_breakpoints("Could not set breakpoint%s", "");
}

static int cmd_remove_break(struct io *io, int argc, char **argv)
{
    return no_breakpoints("Could not remove breakpoint %s", argv[1]);
}

static int cmd_resume(struct io *io, int argc, char **argv)
{
    return no_breakpoints("Could not resume request%s", "");
}

static int cmd_wait_break(struct io *io, int argc, char **argv)
{
    return no_breakpoints("Could not wait for breakpoint %s", argv[1]);
}

static const struct io_command own_commands[] = {
    {"abort", NULL, cmd_abort, 0, 0, IO_NO_FILE, NULL, "simulate a program crash using abort(3)",
     NULL},
    {"break", NULL, cmd_break, 2, 2, 0, "event tag",
     "sets a breakpoint on event and tags the stopped request as tag", NULL},
    {"help", "?", cmd_help, 0, 1, IO_NO_FILE, "[command]", "help for one or all commands", NULL},
    {"quit", "q", cmd_quit, 0, 0, IO_NO_FILE, NULL, "exit the program", NULL},
    {"remove_break", NULL, cmd_remove_break, 1, 1, 0, "tag", "remove a breakpoint by tag", NULL},
    {"resume", NULL, cmd_resume, 1, 1, 0, "tag", "resumes the request tagged as tag", NULL},
    {"sigraise", NULL, cmd_raise, 1, 1, IO_NO_FILE, "signal", "raises a signal", NULL},
    {"sleep", NULL, cmd_sleep, 1, 1, 0, NULL, "waits for the given value in milliseconds", NULL},
    {"wait_break", NULL, cmd_wait_break, 1, 1, 0, "tag", "waits for the suspension of a request",
     NULL},
    {0},
};

static const struct io_command *const tables[] = {own_commands, io_image_commands, io_rw_commands};

const struct io_command *io_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(tables); i++)
        for (const struct io_command *c = tables[i]; c->name; c++)
            if (strcmp(c->name, name) == 0 || (c->alias && strcmp(c->alias, name) == 0))
                return c;
    return NULL;
}

static void print_usage(const struct io_command *c)
{
    printf("%s %s%s-- %s\n", c->name, c->usage ? c->usage : "", c->usage ? " " : "", c->summary);
}

int io_misuse(const struct io_command *c)
{
    print_usage(c);
    return -EINVAL;
}

static int by_name(const void *a, const void *b)
{
    const struct io_command *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int cmd_help(struct io *io, int argc, char **argv)
{
    const struct io_command *all[MOST_COMMANDS], *c;
    size_t count = 0;
    if (argc > 1) {
        c = io_find(argv[1]);
        if (!c)
            printf("command %s not found\n", argv[1]);
        else
            print_usage(c);
        if (c && c->notes)
            printf("\n%s\n", c->notes);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(tables); i++)
        for (c = tables[i]; c->name && count < MOST_COMMANDS; c++)
            all[count++] = c;
    qsort(all, count, sizeof(*all), by_name);
    for (size_t i = 0; i < count; i++)
        print_usage(all[i]);
    puts("\nUse 'help commandname' for extended help.");
    return 0;
}

/* --- running ---------------------------------------------------------------------------------- */

int io_work(struct io *io, int (*co_fn)(void *arg), void *arg)
{
    int rc = runtime_run(io->tool->runtime, co_fn, arg);
    io_aio_print(io);
    return rc;
}

static bool count_fits(const struct io_command *c, int given)
{
    if (given >= c->least && (c->most < 0 || given <= c->most))
        return true;
    fprintf(stderr, "bad argument count %d to %s, expected ", given, c->name);
    if (c->most < 0)
        fprintf(stderr, "at least %d arguments\n", c->least);
    else if (c->most == c->least)
        fprintf(stderr, "%d arguments\n", c->least);
    else
        fprintf(stderr, "between %d and %d arguments\n", c->least, c->most);
    return false;
}

static int run_words(struct io *io, int argc, char **argv)
{
    const struct io_command *c = io_find(argv[0]);
    if (!c)
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
    else if (!io->dev && !(c->needs & IO_NO_FILE))
        fprintf(stderr, "no file open, try 'help open'\n");
    else if (!count_fits(c, argc - 1))
        return -EINVAL;
    else if ((c->needs & IO_WRITES) && !io->dev->writable)
        tool_error(io->tool, "Block node is read-only");
    else
        return c->run(io, argc, argv);
    return -EINVAL;
}

/* A line of words with blanks between. 0, or -errno. */
static int run_line(struct io *io, const char *line)
{
    auto_free char *copy = mem_strdup(line);
    char *words[MOST_WORDS + 1], *rest = copy;
    int count = 0;
    if (!copy)
        return -ENOMEM;
    for (char *word; count < MOST_WORDS && (word = strsep(&rest, " "));)
        if (*word)
            words[count++] = word;
    words[count] = NULL;
    return count ? run_words(io, count, words) : 0;
}

/* Lines of standard input until it ends. */
static int run_input(struct io *io)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = 0;
    while (!io->quit) {
        printf("%s> ", io->tool->called);
        fflush(stdout);
        if ((n = getline(&line, &room, stdin)) < 0)
            break;
        if (n > 0 && line[n - 1] == '\n')
            line[n - 1] = '\0';
        int done = run_line(io, line);
        rc = done < 0 ? done : rc;
    }
    free(line);
    return rc;
}

/* --- what is told ----------------------------------------------------------------------------- */

struct told {
    struct io_how how;
    char **lines; /* of -c */
    int count;
};

static void usage(const struct tool *t)
{
    printf("Usage: %s [OPTIONS]... [-c STRING]... [file]\n"
           "QEMU Disk exerciser, by lamina\n"
           "\n"
           "  --object OBJECT      a secret: secret,id=NAME,file=FILE\n"
           "  --image-opts         file is driver=...,key=value or json:{...}\n"
           "  -c, --cmd STRING     run this command; may be repeated\n"
           "  -f, --format FMT     the image's format (else it is found out)\n"
           "  -r, --read-only      do not write\n"
           "  -s, --snapshot       writes go into a temporary overlay\n"
           "  -n, --nocache        the same as -t none\n"
           "  -C, --copy-on-read   what is read comes up from the backing image\n"
           "  -m, --misalign       use memory that is not aligned\n"
           "  -k, --native-aio     the same as -i native\n"
           "  -i, --aio=MODE       accepted: threads, native or io_uring\n"
           "  -t, --cache=MODE     none, writeback, writethrough, directsync or unsafe\n"
           "  -d, --discard=MODE   unmap, or ignore: discards do nothing\n"
           "  -T, --trace EVENTS   accepted\n"
           "  -U, --force-share    take no locks; needs -r\n"
           "  -h, --help           display this help and exit\n"
           "  -V, --version        output version information and exit\n"
           "\n"
           "See '%s -c help' for the commands. Without -c they are read from standard input.\n",
           t->called, t->called);
}

enum { OPT_OBJECT = 256, OPT_IMAGE_OPTS };
static const struct option longs[] = {{"object", required_argument, NULL, OPT_OBJECT},
                                      {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
                                      {"cmd", required_argument, NULL, 'c'},
                                      {"format", required_argument, NULL, 'f'},
                                      {"read-only", no_argument, NULL, 'r'},
                                      {"snapshot", no_argument, NULL, 's'},
                                      {"nocache", no_argument, NULL, 'n'},
                                      {"copy-on-read", no_argument, NULL, 'C'},
                                      {"misalign", no_argument, NULL, 'm'},
                                      {"native-aio", no_argument, NULL, 'k'},
                                      {"aio", required_argument, NULL, 'i'},
                                      {"cache", required_argument, NULL, 't'},
                                      {"discard", required_argument, NULL, 'd'},
                                      {"trace", required_argument, NULL, 'T'},
                                      {"force-share", no_argument, NULL, 'U'},
                                      {"help", no_argument, NULL, 'h'},
                                      {"version", no_argument, NULL, 'V'},
                                      {0}};

/* An option that is only kept; false: it is none of these. */
static bool keep_option(struct io *io, struct told *w, int id)
{
    switch (id) {
    case 'c':
        w->lines[w->count++] = optarg;
        return true;
    case 'f':
        w->how.format = optarg;
        return true;
    case 'r':
        w->how.read_only = true;
        return true;
    case 's':
        w->how.snapshot = true;
        return true;
    case 'n':
        w->how.cache = "none";
        return true;
    case 'C':
        w->how.copy_on_read = true;
        return true;
    case 'm':
        io->misalign = true;
        return true;
    case 'k':
        w->how.native = true;
        return true;
    case 'U':
        io->tool->force_share = true;
        return true;
    case OPT_IMAGE_OPTS:
        io->image_opts = w->how.image_opts = true;
        return true;
    default:
        return id == 'T';
    }
}

/* ARGS_END, or ARGS_BAD or ARGS_HELP after all was said. */
static int parse(struct io *io, struct told *w, int argc, char **argv)
{
    int id;
    while ((id = getopt_long(argc, argv, "hVc:d:f:rsnCmki:t:T:U", longs, NULL)) != -1) {
        if (keep_option(io, w, id))
            continue;
        if (id == 'V') {
            puts("qemu-io version 7.2.0 (lamina)");
            return ARGS_HELP;
        }
        bool fine = id == 'i' || id == 't' || id == 'd' ? io_how_told(io, &w->how, id, optarg)
                    : id == OPT_OBJECT                  ? tool_add_object(io->tool, optarg)
                                                        : false;
        if (id == 'h' || id == '?')
            usage(io->tool);
        if (!fine)
            return id == 'h' ? ARGS_HELP : ARGS_BAD;
    }
    if (argc - optind > 1) {
        usage(io->tool);
        return ARGS_BAD;
    }
    w->how.text = optind < argc ? argv[optind] : NULL;
    if (!w->how.image_opts || !w->how.format)
        return ARGS_END;
    tool_error(io->tool, "--image-opts and -f are mutually exclusive");
    return ARGS_BAD;
}

static int session(struct io *io, const struct told *w)
{
    int rc = 0;
    if (w->how.text && io_open(io, &w->how) < 0)
        return 1;
    for (int i = 0; i < w->count && !io->quit; i++) {
        int done = run_line(io, w->lines[i]);
        rc = done < 0 ? done : rc;
    }
    if (w->count == 0)
        rc = run_input(io);
    int closed = io_close(io);
    return rc < 0 || closed < 0 ? 1 : 0;
}

int face_io_main(struct tool *t, int argc, char **argv)
{
    struct io io = {.tool = t};
    struct told w = {.lines = mem_array((size_t)argc, sizeof(*w.lines))};
    int id = w.lines ? parse(&io, &w, argc, argv) : ARGS_BAD, rc = id == ARGS_HELP ? 0 : 1;
    if (id == ARGS_END && tool_start(t, 1, 0) == 0) {
        rc = session(&io, &w);
        tool_stop(t);
    }
    mem_free(w.lines);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c - lamina: by which name it is called, and which verb it is told.
 *
 * Called as qemu-img, qemu-nbd or qemu-io (a link to the one binary) it is that face; by any other
 * name it is lamina. Policy is two tables: the verbs and the faces. */
#include <stdlib.h>
#include <unistd.h>

#include "tools/manual.h"

/* A line each, so that what is added in two places does not meet. */
/* clang-format off */
static const struct command *const commands[] = {
    &info_command,
    &convert_command,
    &create_command,
    &check_command,
    &compare_command,
    &map_command,
    &resize_command,
    &measure_command,
    &commit_command,
    &rebase_command,
    &amend_command,
    &snapshot_command,
    &bitmap_command,
    &compact_command,
    &serve_command,
    &part_command,
    &tree_command,
    &ctl_command,
    &top_command,
    &raid_command,
    &pool_command,
    &send_command,
    &receive_command,
    &hash_command,
    &bench_command,
    &dd_command,
    &img_bench_command,
    &pv_command,
    &vg_command,
    &lv_command,
    NULL,
};
/* clang-format on */

static const char img_examples[] = "  qemu-img create -f qcow2 disk.qcow2 20G\n"
                                   "  qemu-img create -f qcow2 -b base.qcow2 -F qcow2 vm1.qcow2\n"
                                   "  qemu-img convert -p -f raw -O qcow2 disk.img vm1.qcow2\n"
                                   "  qemu-img info --backing-chain --output=json vm1.qcow2\n"
                                   "  qemu-img resize disk.qcow2 +10G";

static const char io_examples[] =
    "  qemu-io -f qcow2 -c 'write -P 7 1M 64k' -c 'read -P 7 1M 64k' disk.qcow2\n"
    "  qemu-io -r -c map disk.qcow2\n"
    "  qemu-io -f raw -c 'read 0 512' blkdebug::disk.img";

static const char nbd_examples[] =
    "  qemu-nbd -f qcow2 --persistent --socket=/run/vm1.sock vm1.qcow2\n"
    "  qemu-nbd --fork --pid-file=/run/vm1.pid --socket=/run/vm1.sock -r disk.qcow2";

static const struct tool_face faces[] = {
    {"qemu-img", "disk images under the words of QEMU's program", img_examples, FACE_IMG,
     face_img_main, NULL},
    {"qemu-io", "requests to a disk under the words of QEMU's program", io_examples, FACE_IO,
     face_io_main, NULL},
    {"qemu-nbd", "an NBD server under the words of QEMU's program", nbd_examples, FACE_NBD, NULL,
     &nbd_face_command},
    {NULL, NULL, NULL, 0, NULL, NULL},
};

static const char tasks[] =
    "lamina: every virtual disk format, and what disks are made of\n"
    "\n"
    "  lamina info disk.qcow2                       what it is: format, sizes, what it stands on\n"
    "  lamina disk.qcow2                            what is inside: partitions, volumes, file "
    "systems\n"
    "  lamina convert disk.img disk.qcow2           from one format to another, by the target's "
    "ending\n"
    "  lamina create disk.qcow2 20G                 a new, empty disk\n"
    "  lamina create -b base.qcow2 vm1.qcow2        a new disk that begins as another one is now\n"
    "  lamina check disk.qcow2                      is it sound? (-r leaks or -r all repairs)\n"
    "  lamina compare a.qcow2 b.img                 do both show the guest the same bytes?\n"
    "  lamina map disk.qcow2                        where its data lies\n"
    "  lamina resize disk.qcow2 +10G                grow it (--shrink: make it smaller)\n"
    "  lamina snapshot -c monday disk.qcow2         keep what it holds now under a name\n"
    "  lamina serve disk.qcow2                      offer it over NBD; `lamina ctl` steers the "
    "server\n"
    "  lamina raid create -l 1 -n 2 a.img b.img     an array that Linux would assemble\n"
    "\n"
    "lamina VERB --help says all about a verb, lamina help formats what there is. The verbs:";

static void print_tasks(const struct tool *t)
{
    puts(tasks);
    printf(" ");
    for (const struct command *const *c = t->commands; *c; c++)
        if ((*c)->faces & t->face)
            printf(" %s", (*c)->name);
    putchar('\n');
}

static void print_formats(void)
{
    printf("%-10s %-56s %-12s %s\n", "format", "", "endings", "can also be");
    for (const struct blk_driver *const *d = blk_drivers; *d; d++) {
        if (!(*d)->is_format)
            continue;
        const struct {
            bool can;
            const char *word;
        } can[] = {
            {(*d)->co_create != NULL, "created"},    {(*d)->compresses, "compressed"},
            {(*d)->co_resize != NULL, "resized"},    {(*d)->co_check != NULL, "checked"},
            {(*d)->co_compact != NULL, "compacted"},
        };
        printf("%-10s %-56s %-12s", (*d)->name, (*d)->title,
               (*d)->extensions ? (*d)->extensions : "");
        for (size_t i = 0; i < ARRAY_LEN(can); i++)
            if (can[i].can)
                printf(" %s", can[i].word);
        putchar('\n');
    }
}

/* lamina help [VERB|formats|pages|man PAGE|completion SHELL] */
static int help(struct tool *t, int argc, char **argv)
{
    const char *topic = argc > 1 ? argv[1] : "", *word = argc > 2 ? argv[2] : "";
    const struct command *c = command_find(t, topic);
    if (c)
        command_help(t, c, stdout);
    else if (strcmp(topic, "formats") == 0)
        print_formats();
    else if (strcmp(topic, "pages") == 0)
        manual_list(t, faces);
    else if (strcmp(topic, "man") == 0)
        return manual_page(t, faces, word);
    else if (strcmp(topic, "completion") == 0)
        return completion_print(t, word);
    else if (*topic && strcmp(topic, "help") != 0)
        return tool_misuse(t,
                           "there is no help on '%s'; there is on each verb, and on formats, "
                           "pages, man and completion",
                           topic);
    else
        print_tasks(t);
    return 0;
}

static int unknown_verb(const struct tool *t, const char *verb)
{
    const char *names[ARRAY_LEN(commands)];
    size_t count = 0;
    for (const struct command *const *c = t->commands; *c; c++)
        if ((*c)->faces & t->face)
            names[count++] = (*c)->name;
    const char *near = opts_nearest(verb, names, count);
    if (near)
        tool_error(t, "there is no verb '%s'; did you mean '%s'?", verb, near);
    else
        tool_error(t, "there is no verb '%s'; `%s` alone lists them", verb, t->called);
    return 1;
}

/* Options before the verb: the common ones. Gives the index of the verb, 0 when there is nothing
 * left to do and *rc is the exit status. */
static int lamina_prefix(struct tool *t, int argc, char **argv, int *rc)
{
    static const struct command prefix = {.usage = "[OPTION]... VERB ...", .faces = FACE_LAMINA};
    int verb = 1;
    while (verb < argc && argv[verb][0] == '-')
        verb += (strcmp(argv[verb], "--host") == 0 || strcmp(argv[verb], "--chain") == 0) ? 2 : 1;
    if (verb > argc)
        verb = argc;
    struct args a;
    const char *value;
    t->command = &prefix;
    *rc = 1;
    if (args_init(&a, t, verb, argv) < 0)
        return 0;
    int id = args_next(&a, &value);
    args_drop(&a);
    t->command = NULL;
    if (id == ARGS_END && verb < argc)
        return verb;
    if (id != ARGS_BAD) {
        print_tasks(t);
        *rc = 0;
    }
    return 0;
}

static int lamina_main(struct tool *t, int argc, char **argv)
{
    int rc;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("lamina 0.1");
        return 0;
    }
    int verb = lamina_prefix(t, argc, argv, &rc);
    if (verb == 0)
        return rc;
    if (strcmp(argv[verb], "help") == 0)
        return help(t, argc - verb, argv + verb);
    t->command = command_find(t, argv[verb]);
    if (!t->command && access(argv[verb], F_OK) == 0) { /* a file: what is inside? */
        t->command = &tree_command;
        verb--;
    }
    if (!t->command)
        return unknown_verb(t, argv[verb]);
    argc -= verb;
    rc = tool_start_servers(t, &argc, argv + verb);
    return rc ? rc : t->command->run(t, argc, argv + verb);
}

/* Nothing printed may be lost without a word: a full disk under stdout is an error. */
static int end(struct tool *t, int rc)
{
    tool_drop_objects(t);
    tool_end_servers(t);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        tool_error(t, "cannot write the output: %s", strerror(errno));
        return rc ? rc : 1;
    }
    return rc;
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    struct tool t = {.called = slash      ? slash + 1
                               : argc > 0 ? argv[0]
                                          : "lamina",
                     .face = FACE_LAMINA,
                     .commands = commands,
                     .tasks = tasks};
    for (size_t i = 0; i < ARRAY_LEN(faces); i++) {
        const struct tool_face *f = &faces[i];
        if (!f->name || strcmp(t.called, f->name) != 0)
            continue;
        t.face = f->face;
        t.command = f->command;
        return end(&t, f->main ? f->main(&t, argc, argv) : f->command->run(&t, argc, argv));
    }
    return end(&t, lamina_main(&t, argc, argv));
}

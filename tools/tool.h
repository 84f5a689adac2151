/* SPDX-License-Identifier: BSD-3-Clause */
/* tool.h - the frame of the command line: what a subcommand is, what it is told, and how it runs.
 *
 * One file per subcommand, ending with its `const struct command`. A subcommand's run() parses its
 * arguments on the main thread (args_next), runs its work as one coroutine (tool_run), and prints
 * the results on the main thread after it: JSON and big parsing never happen on a coroutine. The
 * program is lamina, or one of the faces, by the name that it is called by. */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include <stdio.h>

#include "block/resolver.h"

struct command;

enum face {
    FACE_LAMINA = 1,
    FACE_IMG = 2, /* called as qemu-img */
    FACE_NBD = 4, /* qemu-nbd */
    FACE_IO = 8,  /* qemu-io */
};

enum output { OUTPUT_HUMAN, OUTPUT_JSON };
enum progress_kind { PROGRESS_NONE, PROGRESS_BAR, PROGRESS_JSON };
#define TOOL_OBJECTS 32

/* What the caller asked of this run. main.c fills it, args_next() sets the common options. */
struct tool {
    const char *called; /* the last part of argv[0]: the prefix of messages */
    enum face face;
    const struct command *command;
    const struct command *const *commands; /* all of lamina's verbs; ends with NULL */
    const char *tasks;                     /* what it is for, with examples */

    /* Common options. Under lamina's own name every verb takes --host, --chain and --untrusted,
     * before the verb or after it. The others belong to the verbs that list them. */
    const char *host_kind;             /* --host=uring|threads; NULL: host_open()'s choice */
    const char *chain_dir;             /* --chain DIR; NULL: none */
    bool untrusted;                    /* --untrusted */
    bool force_share;                  /* -U */
    bool quiet;                        /* -q */
    enum progress_kind progress;       /* -p, --progress */
    enum output output;                /* --output */
    const char *objects[TOOL_OBJECTS]; /* --object, in order */
    char *told_objects[TOOL_OBJECTS];  /* those that came from a descriptor; owned */
    unsigned object_count;

    bool stdout_taken, stdin_taken; /* an image goes to, or came from, there (pipe.h) */
    bool ending;                    /* a signal asks for the end; atomic */

    struct tool_server *servers; /* started for this run (bracket.c) */

    /* While tool_run() runs. */
    struct host *host;
    struct runtime *runtime;
};

struct command {
    const char *name;
    int (*run)(struct tool *t, int argc,
               char **argv);            /* argv[0] is the verb; gives the exit status */
    const char *usage;                  /* "info [OPTION]... IMAGE" */
    const char *summary;                /* one line, no full stop */
    unsigned faces;                     /* enum face: where the verb is known */
    const struct arg_desc *options;     /* ends with a zero id */
    const struct command *const *verbs; /* of a verb that has verbs; ends with NULL */
    const char *notes; /* what --help says below the options: prose and examples; may be NULL */
};

/* --- servers on the command line (bracket.c)
 * ----------------------------------------------------------------------------------------- */

/* Starts what stands between words [ and ] in @argv (argv[0] is the verb), and puts the URLs in
 * their places. 0, or the exit status after a message. */
must_use int tool_start_servers(struct tool *t, int *argc, char **argv);
/* Ends them. */
void tool_end_servers(struct tool *t);

/* --- options
 * ----------------------------------------------------------------------------------------- */

/* One option of a verb. @id is what args_next() returns: the letter itself where there is one, a
 * number from ARG_LONG on where there is none. */
enum { ARG_LONG = 1000 };
struct arg_desc {
    int id;
    const char *name; /* long name without the dashes; NULL: only the letter */
    const char
        *value;       /* what the value is called in help ("FORMAT"); NULL: the option takes none */
    const char *help; /* one line, no full stop; NULL: not shown in help */
    unsigned faces;   /* enum face; 0: all that know the verb */
    bool optional;    /* the value may be left out (`--fork[=X]`) */
};

/* Walks the arguments as GNU getopt_long() does: permuting, unique abbreviations, glued values. */
struct args {
    struct tool *tool;
    const struct command *command;
    int argc;
    char **argv;
    struct option *longs; /* owned */
    char *shorts;         /* owned */
    int seen;             /* argv index reached, for messages */
};
enum { ARGS_END = -1, ARGS_BAD = -2, ARGS_HELP = -3 };

/* Cannot fail for the arguments; -ENOMEM. args_drop() it. */
must_use int args_init(struct args *a, struct tool *t, int argc, char **argv);
/* The next option's id and *value (NULL: none given). Options common to all verbs, -q, -p, -U,
 * --output and --object (where the verb lists them) are stored into the tool and not returned.
 * ARGS_END: only operands are left (args_operands()). ARGS_BAD: told on stderr, exit with 1.
 * ARGS_HELP: help was printed, exit with 0. */
int args_next(struct args *a, const char **value);
int args_operands(const struct args *a, char ***operands); /* their number; borrowed */
void args_drop(struct args *a);

/* Where a verb keeps what an option says: the last text that was told, or that it was. */
struct arg_place {
    int id;
    const char **text;
    bool *flag;
};
/* A verb's command line, read in one go. */
struct command_line {
    int argc; /* with the verb first; after args_read() the operands only */
    char **argv;
    const struct arg_place *places; /* ends with a zero id; NULL: none */
    /* Takes the options that have no place: 0, or ARGS_BAD after a message. NULL: all have one. */
    int (*option)(void *verb, int id, const char *value);
    void *verb;
};
/* ARGS_END, ARGS_BAD (told on stderr) or ARGS_HELP (printed). */
must_use int args_read(struct tool *t, struct command_line *w);

/* Keeps an --object for the resolvers of this run. False after a message: there are too many. */
bool tool_add_object(struct tool *t, const char *text);
void tool_drop_objects(struct tool *t);
/* secret.c: `fd=N` in an object's @text is read now: gives *out, the text with what was read; NULL:
 * there is none. */
must_use int tool_secret(const struct tool *t, const char *text, char **out, struct blk_error *e);

/* Entries that verbs share in their tables. */
#define ARG_FORCE_SHARE                                                                          \
    {                                                                                            \
        'U', "force-share", NULL, "open even if another process writes the image; take no lock", \
            0, false                                                                             \
    }
#define ARG_QUIET                                                \
    {                                                            \
        'q', "quiet", NULL, "print nothing but errors", 0, false \
    }
/* Under lamina's own name the long one says how. */
#define ARG_PROGRESS                                                                             \
    {'p', NULL, NULL, "show how far it is", FACE_LAMINA, false},                                 \
        {'p', "progress", NULL, "show how far it is", FACE_IMG, false},                          \
    {                                                                                            \
        ARG_PROGRESS_ID, "progress", "bar|json", "the same, or as a line of JSON for each step", \
            FACE_LAMINA, false                                                                   \
    }
#define ARG_OUTPUT                                                                          \
    {                                                                                       \
        ARG_OUTPUT_ID, "output", "human|json", "print for people or for programs", 0, false \
    }
#define ARG_SECRET                                                                        \
    {                                                                                     \
        ARG_OBJECT_ID, "object", "OBJECT", "a secret: secret,id=NAME,file=FILE", 0, false \
    }
#define ARG_END                       \
    {                                 \
        0, NULL, NULL, NULL, 0, false \
    }
enum {
    ARG_OUTPUT_ID = 900,
    ARG_HOST_ID,
    ARG_CHAIN_ID,
    ARG_UNTRUSTED_ID,
    ARG_OBJECT_ID,
    ARG_PROGRESS_ID
};

/* What every verb takes under lamina's own name; ends with a zero id. */
extern const struct arg_desc tool_common_options[];
/* Prints usage, summary, options and notes of @c. */
void command_help(const struct tool *t, const struct command *c, FILE *to);
const struct command *command_find(const struct tool *t, const char *name);
/* Runs the verb of two words whose second one is argv[1]; t->command is the group, whose name is
 * the first one. @verbs ends with NULL. Gives the exit status. */
int command_group(struct tool *t, const struct command *const *verbs, int argc, char **argv);

/* --- messages
 * --------------------------------------------------------------------------------------------- */

/* "lamina: SENTENCE" (or the face's name) on stderr. */
void tool_error(const struct tool *t, const char *fmt, ...) printf_like(2, 3);
/* "lamina: next: SENTENCE" below an error, for people: not in the faces, nor where a program reads
 * JSON. "": nothing. */
void tool_next(const struct tool *t, const char *sentence);
/* @ours under lamina's own name, else @theirs: two ways to say one thing with the same arguments.
 */
const char *tool_words(const struct tool *t, const char *ours, const char *theirs)
    __attribute__((format_arg(2), format_arg(3)));
/* As tool_error(), then a line that points at the verb's help. Returns 1, the exit status. */
int tool_misuse(const struct tool *t, const char *fmt, ...) printf_like(2, 3);

/* --- running (run.c)
 * ---------------------------------------------------------------------------------------- */

/* Opens host and runtime, runs @co_fn(@arg) as a coroutine on worker 0 until it returns, closes
 * both; gives its value. -errno (told on stderr) if they cannot be had. @pool_threads: 0: as many
 * as CPUs. */
must_use int tool_run(struct tool *t, unsigned pool_threads, int (*co_fn)(void *arg), void *arg);
/* The two around it, for a program that runs several coroutines one after another. */
must_use int tool_start(struct tool *t, unsigned workers, unsigned pool_threads);
void tool_stop(struct tool *t);
/* As tool_run(), with @workers event loops. */
must_use int tool_run_workers(struct tool *t, unsigned workers, unsigned pool_threads,
                              int (*co_fn)(void *arg), void *arg);
/* Blocks @signals (0-ended) in this thread and all that start later, for co_host_signal(). Before
 * tool_run(). */
void tool_block_signals(const int *signals);
/* A resolver for this run; inside tool_run(). @trust as for lamina's own name: the faces and
 * --untrusted have their own rows, which are used instead. image.h has one with the secrets. */
void tool_resolver(struct tool *t, enum trust trust, struct resolver *r);

/* --- the verbs
 * ------------------------------------------------------------------------------------------------
 */

extern const struct command create_command, info_command, convert_command, check_command,
    map_command, compare_command, resize_command, measure_command, commit_command, rebase_command,
    snapshot_command, amend_command, bitmap_command, compact_command;
extern const struct command hash_command, bench_command, send_command, receive_command;
extern const struct command part_command, tree_command, pv_command, vg_command, lv_command;
extern const struct command serve_command, ctl_command, top_command, raid_command, pool_command;
extern const struct command dd_command, img_bench_command; /* qemu-img's only */
/* A face that has no verbs is one command. */
extern const struct command nbd_face_command;

int face_img_main(struct tool *t, int argc, char **argv);
int face_io_main(struct tool *t, int argc, char **argv);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl.c - `lamina ctl`: asks a running server over its control socket, one request, one answer. */
#include <stdlib.h>
#include <unistd.h>

#include "block/ctl.h"
#include "tools/tool.h"

static const struct arg_desc options[] = {
    ARG_OUTPUT,
    ARG_END,
};

#define OPTIONS_MOST 7

static const struct question {
    const char *verb;
    const char *arguments[2]; /* their keys in the request, in the order of the command line */
    const char *misuse;       /* what is said when there are more or fewer */
    void (*print)(const json_t *result); /* NULL: nothing to tell */
    const char *list;                    /* key of a list whose objects have these arguments, as
                                            often as they are there; NULL: they are the request's */
    const char *options[OPTIONS_MOST];   /* KEY=VALUE, behind the arguments */
    bool waits;                          /* until the job has ended, or is ready */
} questions[];

struct call {
    struct tool *tool;
    const char *path;
    bool waits;
    json_t *request, *result;
};

#define LOOK_NS 100000000ULL /* between two looks at a job */

static bool goes_on(const json_t *job)
{
    static const char *const going[] = {"created", "running", "paused"};
    const char *state = json_string_value(json_object_get(job, "state"));

    for (size_t i = 0; state && i < ARRAY_LEN(going); i++)
        if (strcmp(state, going[i]) == 0)
            return !json_is_true(json_object_get(job, "ready"));
    return false;
}

/* A job that did not end well is an error. */
static int job_failed(const struct tool *t, const json_t *job)
{
    const char *error = json_string_value(json_object_get(job, "error"));

    if (error)
        tool_error(t, "%s", error);
    return error ? -EIO : 0;
}

static int co_call(void *arg)
{
    struct call *c = arg;
    struct blk_error e = {0};
    int rc = co_ctl_call(c->tool->host, c->path, c->request, &c->result, &e);

    while (rc == 0 && c->waits && goes_on(c->result)) {
        co_sleep(LOOK_NS);
        json_decref(take(c->result));
        rc = co_ctl_call(c->tool->host, c->path, c->request, &c->result, &e);
    }
    if (rc < 0)
        tool_error(c->tool, "%s", e.text);
    return rc < 0 || !c->waits ? rc : job_failed(c->tool, c->result);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void print_exports(const json_t *result)
{
    const json_t *x;
    size_t i;

    printf("%s\n", text_of(result, "address"));
    printf("%-24s %16s %8s %12s %12s %8s\n", "EXPORT", "BYTES", "CLIENTS", "READS", "WRITES",
           "ERRORS");
    json_array_foreach (json_object_get(result, "exports"), i, x)
        printf("%-24s %16lld %8lld %12lld %12lld %8lld%s\n",
               *text_of(x, "name") ? text_of(x, "name") : "(default)", number_of(x, "size"),
               number_of(x, "clients"), number_of(x, "reads"), number_of(x, "writes"),
               number_of(x, "errors"),
               json_is_true(json_object_get(x, "read-only")) ? "  read-only" : "");
}

static void print_job(const json_t *job)
{
    printf("%-24s %-10s %-10s %lld of %lld  %s%s%s\n", text_of(job, "id"), text_of(job, "kind"),
           json_is_true(json_object_get(job, "ready")) ? "ready" : text_of(job, "state"),
           number_of(job, "done"), number_of(job, "total"), text_of(job, "of"),
           *text_of(job, "error") ? ": " : "", text_of(job, "error"));
}

static void print_id(const json_t *result)
{
    puts(text_of(result, "id"));
}

static void print_jobs(const json_t *result)
{
    const json_t *job;
    size_t i;

    if (json_array_size(result) == 0)
        puts("no jobs");
    json_array_foreach (result, i, job)
        print_job(job);
}

static void print_verbs(const json_t *result)
{
    const json_t *verb;
    size_t i;

    json_array_foreach (result, i, verb)
        printf("%-16s %s\n", text_of(verb, "do"), text_of(verb, "help"));
}

static void print_array(const json_t *array)
{
    const json_t *m;
    size_t i;

    printf("%s of %lld members, %s\n", text_of(array, "level"), number_of(array, "raid-devices"),
           json_is_false(json_object_get(array, "clean")) ? "not in sync" : "in sync");
    json_array_foreach (json_object_get(array, "members"), i, m)
        printf("%4lld %-12s %s\n", json_object_get(m, "role") ? number_of(m, "role") : -1,
               text_of(m, "state"), text_of(m, "name"));
}

/* Who shares what; `lamina top` shows the rest. */
static void print_shares(const json_t *result)
{
    const json_t *x, *g;
    size_t i;

    printf("%-24s %-16s %8s %9s %9s %12s %10s\n", "EXPORT", "GROUP", "WEIGHT", "MIN-IOPS", "IOPS",
           "BPS", "WAITED-MS");
    json_array_foreach (json_object_get(result, "exports"), i, x) {
        const json_t *s = json_object_get(x, "share");

        if (json_is_object(s))
            printf("%-24s %-16s %8lld %9lld %9lld %12lld %10lld\n",
                   *text_of(x, "name") ? text_of(x, "name") : "(default)", text_of(s, "group"),
                   number_of(s, "weight"), number_of(s, "min-iops"), number_of(s, "iops"),
                   number_of(s, "bps"), number_of(s, "waited-ns") / 1000000);
    }
    printf("%-24s %8s %9s %12s %8s %8s\n", "GROUP", "EXPORTS", "IOPS", "BPS", "DEPTH", "NOW");
    json_array_foreach (json_object_get(result, "groups"), i, g)
        printf("%-24s %8lld %9lld %12lld %8lld %8lld\n",
               *text_of(g, "name") ? text_of(g, "name") : "(default)", number_of(g, "exports"),
               number_of(g, "iops"), number_of(g, "bps"), number_of(g, "depth"),
               number_of(g, "depth-now"));
}

static void print_events(const json_t *result)
{
    const json_t *x;
    size_t i;

    printf("%lld events\n", number_of(result, "seen"));
    printf("%-24s %8s %9s %13s %14s\n", "EXPORT", "RESIZED", "LOW-WATER", "MEMBER-FAILED",
           "MARKED-CORRUPT");
    json_array_foreach (json_object_get(result, "exports"), i, x)
        printf("%-24s %8lld %9lld %13lld %14lld\n",
               *text_of(x, "name") ? text_of(x, "name") : "(default)", number_of(x, "resized"),
               number_of(x, "low-water"), number_of(x, "member-failed"),
               number_of(x, "marked-corrupt"));
}

#define NOTHING "takes nothing more"
#define JOB     "wants the job's id"
#define EXPORT  "wants the export's name"
#define MEMBER  "wants the export's name and the member's name or role"

static const struct question questions[] = {
    {"list", {NULL}, NOTHING, .print = print_exports},
    {"help", {NULL}, NOTHING, .print = print_verbs},
    {"jobs", {NULL}, NOTHING, .print = print_jobs},
    {"show", {"id"}, JOB, .print = print_job},
    {"wait", {"id"}, JOB, .print = print_job, .waits = true},
    {"pause", {"id"}, JOB, .print = NULL},
    {"resume", {"id"}, JOB, .print = NULL},
    {"complete", {"id"}, JOB, .print = NULL},
    {"cancel", {"id"}, JOB, .print = NULL},
    {"forget", {"id"}, JOB, .print = NULL},
    {"speed", {"id", "bytes_per_second"}, "wants the job's id and bytes per second", .print = NULL},
    {"add",
     {"spec"},
     "wants what to export",
     .options = {"name", "format", "read-only", "description", "allow", "writers"}},
    {"throttle",
     {NULL},
     NOTHING,
     .options = {"export", "group", "weight", "min-iops", "iops", "bps", "depth"}},
    {"remove", {"name"}, EXPORT, .options = {"failed"}},
    {"resize", {"name", "size"}, "wants the export's name and its new size", .options = {"shrink"}},
    {"snapshot",
     {"name", "file"},
     "wants export names, each with the file of its new image",
     .list = "exports",
     .options = {"format"}},
    {"snapshot-inside",
     {"name", "snapshot"},
     "wants the export's name and the snapshot's",
     .print = NULL},
    {"commit", {"name"}, EXPORT, .print = print_id, .options = {"by-hand", "speed"}},
    {"stream", {"name"}, EXPORT, .print = print_id, .options = {"base", "speed"}},
    {"mirror",
     {"name", "target"},
     "wants the export's name and the other image",
     .print = print_id,
     .options = {"format", "existing", "by-hand", "speed"}},
    {"backup",
     {"name", "target"},
     "wants the export's name and the image to write to",
     .print = print_id,
     .options = {"format", "existing", "bitmap", "incremental", "base", "base-format", "speed"}},
    {"point",
     {"name", "as"},
     "wants export names, each with the name of the export to be made",
     .list = "exports",
     .options = {"bitmap", "scratch", "limit"}},
    {"raid", {"name"}, EXPORT, .print = print_array},
    {"member-add",
     {"name", "spec"},
     "wants the export's name and the new member",
     .options = {"format", "force"}},
    {"member-re-add",
     {"name", "spec"},
     "wants the export's name and the former member",
     .options = {"format"}},
    {"member-replace", {"name", "member"}, MEMBER, .options = {"with", "spec", "format", "force"}},
    {"member-fail", {"name", "member"}, MEMBER, .print = NULL},
    {"member-remove", {"name", "member"}, MEMBER, .print = NULL},
    {"grow", {"name"}, EXPORT, .options = {"size", "raid-devices"}},
    {"scrub", {"name"}, EXPORT, .print = print_id, .options = {"repair", "speed"}},
    {"stats", {NULL}, NOTHING, .print = print_shares},
    {"events", {NULL}, NOTHING, .print = print_events, .options = {"seen", "seconds"}},
    {"throttle",
     {NULL},
     "wants export=NAME or group=NAME, and what to change",
     .options = {"export", "group", "weight", "min-iops", "iops", "bps", "depth"}},
    {"shutdown", {NULL}, NOTHING, .print = NULL},
};

static const struct question *find(const char *verb)
{
    for (size_t i = 0; i < ARRAY_LEN(questions); i++)
        if (strcmp(questions[i].verb, verb) == 0)
            return &questions[i];
    return NULL;
}

static void print_result(struct tool *t, const struct question *q, const json_t *result)
{
    if (t->output == OUTPUT_JSON) {
        json_dumpf(result, stdout, JSON_INDENT(4) | JSON_ENCODE_ANY);
        putchar('\n');
    } else if (q->print) {
        q->print(result);
    }
}

/* --- from words to a request --- */

/* What names a file here has to name it there: the server may run in another folder. */
static json_t *value_of(const char *key, const char *word)
{
    static const char *const files[] = {"file", "target", "base", "scratch", "spec"};
    char cwd[4096];
    size_t i = 0;

    while (i < ARRAY_LEN(files) && strcmp(files[i], key) != 0)
        i++;
    bool is_file = i < ARRAY_LEN(files) && word[0] != '/' && !strchr(word, ':') &&
                   (strcmp(key, "spec") != 0 || access(word, F_OK) == 0);
    if (!is_file || !getcwd(cwd, sizeof(cwd)))
        return json_string(word);
    return json_sprintf("%s/%s", cwd, word);
}

/* The option that @word is the value of; *value: behind its =. */
static const char *option_of(const struct question *q, const char *word, const char **value)
{
    for (size_t i = 0; i < OPTIONS_MOST && q->options[i]; i++) {
        size_t n = strlen(q->options[i]);

        if (strncmp(word, q->options[i], n) == 0 && word[n] == '=') {
            *value = word + n + 1;
            return q->options[i];
        }
    }
    return NULL;
}

/* How many of the words are arguments: @each, or with a list any number of times that. */
static int count_arguments(const struct question *q, int each, int count, char **words)
{
    const char *value;
    int n = each;

    while (q->list && n + each <= count && !option_of(q, words[n], &value))
        n += each;
    return n;
}

static int add_arguments(const struct question *q, int each, int n, char **words, json_t *to)
{
    json_t *list = q->list ? json_array() : NULL;

    if (list && json_object_set_new(to, q->list, list) < 0)
        return -ENOMEM;
    for (int i = 0; i < n; i += each) {
        json_t *o = list ? json_object() : json_incref(to);
        int rc = 0;

        for (int k = 0; k < each && rc == 0; k++)
            rc = json_object_set_new(o, q->arguments[k], value_of(q->arguments[k], words[i + k]));
        if (list && rc == 0)
            rc = json_array_append(list, o);
        json_decref(o);
        if (rc < 0)
            return -EILSEQ;
    }
    return 0;
}

static int add_options(struct tool *t, const struct question *q, int count, char **words,
                       json_t *to)
{
    for (int i = 0; i < count; i++) {
        const char *value, *key = option_of(q, words[i], &value);

        if (!key) {
            tool_misuse(t, "'%s' does not take '%s'", q->verb, words[i]);
            return -EINVAL;
        }
        if (json_object_set_new(to, key, value_of(key, value)) < 0)
            return -EILSEQ;
    }
    return 0;
}

/* The request that the words after the socket make; NULL after a message. */
static json_t *request(struct tool *t, const struct question *q, int count, char **words)
{
    json_t *o = json_pack("{s:s}", "do", q->waits ? "show" : q->verb);
    int each = 0, n;

    while (each < (int)ARRAY_LEN(q->arguments) && q->arguments[each])
        each++;
    n = count_arguments(q, each, count, words);
    if (n > count || (n < count && !q->options[0])) {
        tool_misuse(t, "'%s' %s", q->verb, q->misuse);
        json_decref(o);
        return NULL;
    }
    int rc = each ? add_arguments(q, each, n, words, o) : 0;
    if (rc == 0)
        rc = add_options(t, q, count - n, words + n, o);
    if (rc == 0)
        return o;
    if (rc == -EILSEQ)
        tool_error(t, "these words are not UTF-8");
    json_decref(o);
    return NULL;
}

static int unknown_question(const struct tool *t, const char *word)
{
    const char *names[ARRAY_LEN(questions)], *near;

    for (size_t i = 0; i < ARRAY_LEN(questions); i++)
        names[i] = questions[i].verb;
    near = opts_nearest(word, names, ARRAY_LEN(names));
    return tool_misuse(t, "a server cannot be asked to '%s'%s%s%s", word,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int ask(struct tool *t, int count, char **words)
{
    const struct question *q = count >= 2 ? find(words[1]) : NULL;
    struct call c = {.tool = t, .path = words[0], .waits = q && q->waits};

    if (count < 2)
        return tool_misuse(t, "expecting: %s", t->command->usage);
    if (!q)
        return unknown_question(t, words[1]);
    c.request = request(t, q, count - 2, words + 2);
    if (!c.request)
        return 1;
    int rc = tool_run(t, 1, co_call, &c);
    json_decref(c.request);
    if (rc == 0)
        print_result(t, q, c.result);
    json_decref(c.result);
    return rc ? 1 : 0;
}

static int ctl_main(struct tool *t, int argc, char **argv)
{
    struct command_line line = {.argc = argc, .argv = argv};
    int id = args_read(t, &line);

    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    return ask(t, line.argc, line.argv);
}

const struct command ctl_command = {
    .name = "ctl",
    .run = ctl_main,
    .usage = "ctl [--output=json] SOCKET WHAT [WORD]... [KEY=VALUE]...",
    .summary = "Ask or steer a running server over its control socket",
    .faces = FACE_LAMINA,
    .options = options,
    .notes =
        "SOCKET is what the server was given as --control. WHAT is one of\n"
        "  list                   the exports, their clients and counts\n"
        "  throttle               export= or group=, and what is to change: weight= min-iops= "
        "iops=\n"
        "                         bps= depth=\n"
        "  add SPEC               a further export; name= format= read-only=on description= "
        "allow=WHO\n"
        "                         writers=N\n"
        "  remove NAME            an export goes; of a point export, failed=on: its bitmap is as "
        "it\n"
        "                         was before\n"
        "  resize NAME SIZE       shrink=on: what is behind is lost\n"
        "  snapshot NAME FILE     a new image FILE on top takes what is written from now on; "
        "several\n"
        "                         NAME FILE in one instant; format=\n"
        "  snapshot-inside NAME SNAPSHOT   inside the image\n"
        "  commit NAME            the image goes down into the one it stands on; by-hand=on\n"
        "  stream NAME            the image takes in what it stands on; base=FILE: what is above "
        "that\n"
        "  mirror NAME FILE       a new image FILE takes its place; format= existing=on "
        "by-hand=on\n"
        "  backup NAME FILE       copies what it shows at this instant; format= existing=on\n"
        "                         bitmap=NAME notes what changes from now on; incremental=on: "
        "only\n"
        "                         what that says, with base=FILE, the backup before it\n"
        "  point NAME AS          exports what it shows at this instant as AS; several NAME AS in\n"
        "                         one instant; bitmap= scratch=FOLDER limit=SIZE\n"
        "  jobs                   the long work that runs inside the server; it begins with "
        "speed=50M\n"
        "  show ID                one job\n"
        "  wait ID                until it has ended, or is ready (by-hand=on)\n"
        "  pause ID, resume ID    let it rest, let it go on\n"
        "  speed ID SPEED         at most so many bytes per second (50M); 0: no limit\n"
        "  complete ID            a job that is ready may end\n"
        "  cancel ID              end it; the export stays what it is\n"
        "  forget ID              a job that has ended is listed no more\n"
        "  shutdown               stop serving: answer what is in flight, flush, close\n"
        "  help                   what this server can be asked\n"
        "\n"
        "  lamina ctl /run/vm.ctl snapshot disk monday.qcow2\n"
        "  lamina ctl /run/vm.ctl mirror disk /new/disk.qcow2 by-hand=on\n"
        "  lamina ctl /run/vm.ctl speed mirror-1 50M",
};

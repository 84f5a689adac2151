/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl.c - `lamina ctl`: asks a running server over its control socket, one request, one answer. */
#include <stdlib.h>

#include "block/ctl.h"
#include "tools/tool.h"

static const struct arg_desc options[] = {
    ARG_OUTPUT,
    ARG_END,
};

static const struct question {
    const char *verb;
    const char *arguments[2]; /* their keys in the request, in the order of the command line */
    const char *misuse;       /* what is said when there are more or fewer */
    void (*print)(const json_t *result); /* NULL: nothing to tell */
} questions[];

struct call {
    struct tool *tool;
    const char *path;
    json_t *request, *result;
};

static int co_call(void *arg)
{
    struct call *c = arg;
    struct blk_error e = {0};
    int rc = co_ctl_call(c->tool->host, c->path, c->request, &c->result, &e);

    if (rc < 0)
        tool_error(c->tool, "%s", e.text);
    return rc;
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
    printf("%-24s %-10s %-10s %lld of %lld  %s\n", text_of(job, "id"), text_of(job, "kind"),
           text_of(job, "state"), number_of(job, "done"), number_of(job, "total"),
           text_of(job, "error"));
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
        printf("%-12s %s\n", text_of(verb, "do"), text_of(verb, "help"));
}

#define NOTHING "takes nothing more"
#define JOB     "wants the job's id"

static const struct question questions[] = {
    {"list", {NULL}, NOTHING, print_exports},
    {"help", {NULL}, NOTHING, print_verbs},
    {"jobs", {NULL}, NOTHING, print_jobs},
    {"show", {"id"}, JOB, print_job},
    {"pause", {"id"}, JOB, NULL},
    {"resume", {"id"}, JOB, NULL},
    {"cancel", {"id"}, JOB, NULL},
    {"speed", {"id", "bytes_per_second"}, "wants the job's id and bytes per second", NULL},
    {"shutdown", {NULL}, NOTHING, NULL},
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

/* The request that the words after the socket make; NULL after a message. */
static json_t *request(struct tool *t, const struct question *q, int count, char **words)
{
    json_t *o = json_pack("{s:s}", "do", q->verb);
    int n = 0;

    for (; n < (int)ARRAY_LEN(q->arguments) && q->arguments[n]; n++)
        if (n < count)
            json_object_set_new(o, q->arguments[n], json_string(words[n]));
    if (o && n == count && json_object_size(o) == (size_t)n + 1)
        return o;
    json_decref(o);
    if (n != count)
        tool_misuse(t, "'%s' %s", q->verb, q->misuse);
    else
        tool_error(t, "these words are not UTF-8");
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
    struct call c = {.tool = t, .path = words[0]};

    if (count < 2)
        return tool_misuse(t, "which socket, and what to ask?");
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
    .usage = "ctl [--output=json] SOCKET WHAT [ID [SPEED]]",
    .summary = "Asks or steers a running server over its control socket",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "SOCKET is what the server was given as --control. WHAT is one of\n"
             "  list               the exports, their clients and counts\n"
             "  jobs               the long work that runs inside the server\n"
             "  show ID            one job\n"
             "  pause ID           let it rest\n"
             "  resume ID          let it go on\n"
             "  speed ID SPEED     at most so many bytes per second (50M); 0: no limit\n"
             "  cancel ID          end it; what it has done stays\n"
             "  shutdown           stop serving: answer what is in flight, flush, close\n"
             "  help               what this server can be asked\n"
             "\n"
             "  lamina ctl /run/vm.ctl speed scrub-1 50M",
};

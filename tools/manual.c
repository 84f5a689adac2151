/* SPDX-License-Identifier: BSD-3-Clause */
/* manual.c - man pages (`lamina help man PAGE`) from the tables that the program itself works by:
 * one for lamina, one for each verb (with the verbs that it has), one for each face. Indented lines
 * of a verb's notes that begin with a program's name are its examples. */
#include "tools/manual.h"

#define PREFIX "lamina-"

/* --- roff --- */

static void text(const char *s, size_t bytes)
{
    bool begin = true;
    for (size_t i = 0; i < bytes; i++) {
        if (begin && (s[i] == '.' || s[i] == '\''))
            fputs("\\&", stdout);
        begin = s[i] == '\n';
        if (s[i] == '\\')
            fputs("\\e", stdout);
        else if (s[i] == '-')
            fputs("\\-", stdout);
        else
            putchar(s[i]);
    }
}

static void say(const char *s)
{
    text(s, strlen(s));
}

static void title(const char *page, const char *summary)
{
    printf(".TH \"");
    for (const char *c = page; *c; c++)
        putchar(*c >= 'a' && *c <= 'z' ? *c + 'A' - 'a' : *c);
    printf("\" 1 \"\" \"lamina\" \"User Commands\"\n.SH NAME\n");
    say(page);
    printf(" \\- ");
    say(summary);
    putchar('\n');
}

/* --- notes --- */

/* An indented line that calls the program. */
static bool is_example(const char *line)
{
    static const char *const names[] = {"lamina ", "qemu-img ", "qemu-nbd ", "qemu-io "};
    const char *word = line + strspn(line, " ");
    for (size_t i = 0; word != line && i < ARRAY_LEN(names); i++)
        if (strncmp(word, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* Prints the lines of @notes that are examples, or those that are not. True if there were any. */
static bool lines(const char *notes, bool examples, const char *heading)
{
    bool verbatim = false, any = false;
    for (const char *line = notes; line && *line;) {
        size_t bytes = strcspn(line, "\n");
        bool wanted = is_example(line) == examples, indented = line[0] == ' ';
        if (wanted && (bytes > 0 || any)) {
            if (!any && heading)
                printf(".SH %s\n", heading);
            any = true;
            if (indented != verbatim)
                puts(indented ? ".nf" : ".fi");
            verbatim = indented;
            if (bytes == 0)
                printf(".PP");
            text(line, bytes);
            putchar('\n');
        }
        line += bytes + (line[bytes] == '\n');
    }
    if (verbatim)
        puts(".fi");
    return any;
}

/* --- options --- */

static void option(const struct arg_desc *d)
{
    puts(".TP");
    if (d->id < 256)
        printf("\\fB\\-%c\\fR%s", d->id, d->name ? ", " : "");
    if (d->name) {
        printf("\\fB\\-\\-");
        say(d->name);
        printf("\\fR");
    }
    if (d->value) {
        printf("%s%s\\fI", d->optional ? "[" : "", d->name ? "=" : " ");
        say(d->value);
        printf("\\fR%s", d->optional ? "]" : "");
    }
    putchar('\n');
    say(d->help);
    putchar('\n');
}

static void options(const struct arg_desc *d, enum face face)
{
    for (; d && d->id; d++)
        if (d->help && (d->faces == 0 || d->faces & face))
            option(d);
}

/* --- pages --- */

static void synopsis(const struct command *c, const char *called)
{
    printf(".PP\n\\fB");
    say(called);
    printf("\\fR ");
    say(c->usage);
    putchar('\n');
}

/* Exit status, environment, and where else to look. */
static void tail(bool lamina)
{
    puts(".SH EXIT STATUS\n0 when all was done, 1 when it failed or was misused; a sentence on "
         "standard error says why.\nWhere a command says more about its exit status, it is told "
         "above.");
    puts(".SH ENVIRONMENT\n.TP\n\\fBLAMINA_HOST\\fR\nHow files are read and written where "
         "\\-\\-host does not say: uring, threads or aio.\n.TP\n\\fBTMPDIR\\fR\nWhere temporary "
         "files are made (/var/tmp).\n.TP\n\\fBSOURCE_DATE_EPOCH\\fR\nThe time that is written "
         "into images.\n.TP\n\\fBNO_COLOR\\fR\nNo colours on a terminal.");
    puts(lamina ? ".SH SEE ALSO\n\\fBlamina\\fR(1), \\fBqemu\\-img\\fR(1), \\fBnbdkit\\fR(1), "
                  "\\fBnbdcopy\\fR(1)"
                : ".SH SEE ALSO\n\\fBlamina\\fR(1)");
}

static void verb_page(const struct command *c, const char *page)
{
    title(page, c->summary);
    puts(".SH SYNOPSIS");
    synopsis(c, "lamina");
    puts(".SH DESCRIPTION");
    say(c->summary);
    puts(".\n.PP");
    lines(c->notes, false, NULL);
    for (const struct command *const *v = c->verbs; v && *v; v++) {
        printf(".SS ");
        say((*v)->name);
        putchar('\n');
        synopsis(*v, "lamina");
        puts(".PP");
        say((*v)->summary);
        puts(".\n.PP");
        lines((*v)->notes, false, NULL);
        options((*v)->options, FACE_LAMINA);
    }
    puts(".SH OPTIONS");
    options(c->options, FACE_LAMINA);
    options(tool_common_options, FACE_LAMINA);
    bool any = lines(c->notes, true, "EXAMPLES");
    for (const struct command *const *v = c->verbs; v && *v; v++)
        any |= lines((*v)->notes, true, any ? NULL : "EXAMPLES");
    tail(true);
}

static void lamina_page(const struct tool *t)
{
    title("lamina", "virtual disks: image formats, RAID, thin pools, NBD");
    puts(".SH SYNOPSIS\n\\fBlamina\\fR [\\fIOPTION\\fR]... \\fIVERB\\fR ...\n.SH DESCRIPTION\n"
         "One unprivileged program that opens, converts, checks and serves virtual disks. What is\n"
         "opened is named by a file, a URL, or a stack of layers; its format is found out unless\n"
         "it is told. Each verb has a page of its own.\n.SH VERBS");
    for (const struct command *const *c = t->commands; *c; c++) {
        if (!((*c)->faces & FACE_LAMINA))
            continue;
        printf(".TP\n\\fBlamina\\-%s\\fR(1)\n", (*c)->name);
        say((*c)->summary);
        putchar('\n');
    }
    puts(".SH OPTIONS\nThese stand before the verb or behind it.");
    options(tool_common_options, FACE_LAMINA);
    puts(".SH EXAMPLES\n.nf");
    lines(t->tasks, true, NULL);
    puts(".fi");
    tail(true);
}

static void face_page(const struct tool *t, const struct tool_face *f)
{
    title(f->name, f->summary);
    puts(".SH SYNOPSIS");
    if (f->command)
        printf("\\fB%s\\fR [\\fIOPTION\\fR]... ...\n", f->name);
    else
        printf("\\fB%s\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]... ...\n", f->name);
    printf(".SH DESCRIPTION\n\\fBlamina\\fR, called by the name \\fB%s\\fR, takes the options and "
           "prints the words\nof QEMU's program of that name.\n",
           f->name);
    if (f->command) {
        lines(f->command->notes, false, NULL);
        puts(".SH OPTIONS");
        options(f->command->options, f->face);
    }
    for (const struct command *const *c = t->commands; !f->command && *c; c++) {
        if (!((*c)->faces & f->face))
            continue;
        printf(".SS %s\n", (*c)->name);
        synopsis(*c, f->name);
        puts(".PP");
        say((*c)->summary);
        puts(".");
        options((*c)->options, f->face);
    }
    lines(f->examples, true, "EXAMPLES");
    tail(false);
}

int manual_page(const struct tool *t, const struct tool_face *faces, const char *page)
{
    bool of_verb = strncmp(page, PREFIX, strlen(PREFIX)) == 0;
    const struct command *c = of_verb ? command_find(t, page + strlen(PREFIX)) : NULL;
    const struct tool_face *f = faces;
    while (f->name && strcmp(f->name, page) != 0)
        f++;
    if (strcmp(page, "lamina") == 0)
        lamina_page(t);
    else if (c)
        verb_page(c, page);
    else if (f->name)
        face_page(t, f);
    else
        return tool_misuse(t, "there is no page '%s'; `lamina help pages` lists them", page);
    return 0;
}

void manual_list(const struct tool *t, const struct tool_face *faces)
{
    puts("lamina");
    for (const struct command *const *c = t->commands; *c; c++)
        if ((*c)->faces & FACE_LAMINA)
            printf(PREFIX "%s\n", (*c)->name);
    for (; faces->name; faces++)
        puts(faces->name);
}

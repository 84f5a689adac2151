/* SPDX-License-Identifier: BSD-3-Clause */
/* completion.c - completions for bash, zsh and fish (`lamina help completion SHELL`), from the
 * tables of verbs and options. Formats are completed where an option's value is a FORMAT, words
 * where it is a list of them; everything else is a file. */
#include "tools/manual.h"

/* --- words --- */

static bool is_ours(const struct arg_desc *d)
{
    return d->help && (d->faces == 0 || d->faces & FACE_LAMINA);
}

static void print_formats(void)
{
    const char *between = "";
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        if ((*d)->is_format) {
            printf("%s%s", between, (*d)->name);
            between = " ";
        }
}

/* The words that an option's value can be; nothing where it can be anything. */
static void print_values(const struct arg_desc *d)
{
    if (strcmp(d->value, "FORMAT") == 0)
        print_formats();
    for (const char *c = d->value; strchr(d->value, '|') && *c; c++)
        putchar(*c == '|' ? ' ' : *c);
}

static bool has_values(const struct arg_desc *d)
{
    return d->value && (strcmp(d->value, "FORMAT") == 0 || strchr(d->value, '|'));
}

/* Calls @each for a verb's options and the common ones. */
static void each_option(const struct command *c, void (*each)(const struct arg_desc *d, void *arg),
                        void *arg)
{
    const struct arg_desc *tables[] = {c->options, tool_common_options};
    for (size_t i = 0; i < ARRAY_LEN(tables); i++)
        for (const struct arg_desc *d = tables[i]; d && d->id; d++)
            if (is_ours(d))
                each(d, arg);
}

/* Calls @each for every verb; @of is the one that has it, NULL for those of lamina itself. */
static void each_verb(const struct tool *t,
                      void (*each)(const struct command *of, const struct command *c))
{
    for (const struct command *const *c = t->commands; *c; c++) {
        if (!((*c)->faces & FACE_LAMINA))
            continue;
        each(NULL, *c);
        for (const struct command *const *v = (*c)->verbs; v && *v; v++)
            each(*c, *v);
    }
}

/* "create" of "raid create": a verb of a verb has both in its name. */
static const char *last_word(const struct command *c)
{
    const char *blank = strrchr(c->name, ' ');
    return blank ? blank + 1 : c->name;
}

static void verb_names(const struct command *const *c)
{
    for (; c && *c; c++)
        if ((*c)->faces & FACE_LAMINA)
            printf(" %s", last_word(*c));
}

/* --- bash --- */

static void bash_option(const struct arg_desc *d, void *arg)
{
    if (d->id < 256)
        printf(" -%c", d->id);
    if (d->name)
        printf(" --%s", d->name);
}

static void bash_value(const struct arg_desc *d, void *arg)
{
    if (!has_values(d))
        return;
    printf("            ");
    if (d->id < 256)
        printf("-%c%s", d->id, d->name ? "|" : "");
    if (d->name)
        printf("--%s", d->name);
    printf(") values=\"");
    print_values(d);
    puts("\" ;;");
}

static void bash_verb(const struct command *of, const struct command *c)
{
    printf("    \"%s\")\n        words=\"", c->name);
    each_option(c, bash_option, NULL);
    printf("\"\n        case $previous in\n");
    each_option(c, bash_value, NULL);
    printf("        esac\n        verbs=\"");
    verb_names(c->verbs);
    puts("\" ;;");
}

static void bash(const struct tool *t)
{
    printf("# bash completion for lamina\n"
           "_lamina()\n{\n"
           "    local current=$2 previous=$3 verb= words= values= verbs= i\n"
           "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
           "        [[ ${COMP_WORDS[i]} == -* ]] && continue\n"
           "        [ -z \"$verb\" ] && verb=${COMP_WORDS[i]} && continue\n"
           "        case $verb in");
    for (const struct command *const *c = t->commands; *c; c++)
        if ((*c)->verbs)
            printf(" %s) verb+=\" ${COMP_WORDS[i]}\" ;;", (*c)->name);
    printf(" esac\n        break\n    done\n"
           "    COMPREPLY=()\n"
           "    case $verb in\n"
           "    '')\n        verbs=\"");
    verb_names(t->commands);
    puts(" help\" ;;");
    each_verb(t, bash_verb);
    puts("    esac\n"
         "    if [ -n \"$values\" ]; then\n"
         "        COMPREPLY=($(compgen -W \"$values\" -- \"$current\"))\n"
         "    elif [[ $current == -* ]]; then\n"
         "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "    elif [ -n \"$verbs\" ]; then\n"
         "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$current\"))\n"
         "    fi\n"
         "}\n"
         "complete -o default -F _lamina lamina");
}

/* --- zsh --- */

/* Help as zsh's _arguments takes it between brackets and single quotes. */
static void zsh_text(const char *s)
{
    for (; *s; s++) {
        if (strchr("[]:\\", *s))
            putchar('\\');
        fputs(*s == '\'' ? "'\\''" : (const char[]){*s, '\0'}, stdout);
    }
}

static void zsh_spelling(const struct arg_desc *d, const char *dashes, const char *name)
{
    printf("'*%s%s%s[", dashes, name, d->value ? (dashes[1] ? "=" : "+") : "");
    zsh_text(d->help);
    printf("]");
    if (d->value) {
        printf(":%s:", "value");
        printf(has_values(d) ? "(" : "_files");
        if (has_values(d))
            print_values(d);
        printf(has_values(d) ? ")" : "");
    }
    printf("' ");
}

static void zsh_option(const struct arg_desc *d, void *arg)
{
    if (d->id < 256)
        zsh_spelling(d, "-", (const char[]){(char)d->id, '\0'});
    if (d->name)
        zsh_spelling(d, "--", d->name);
}

static void zsh_verb(const struct command *of, const struct command *c)
{
    if (c->verbs) {
        printf("    %s) if ((CURRENT == 3)); then compadd --", c->name);
        verb_names(c->verbs);
        puts("; return; fi ;;");
        return;
    }
    printf("    '%s') _arguments ", c->name);
    each_option(c, zsh_option, NULL);
    puts("'*:image:_files' ;;");
}

static void zsh(const struct tool *t)
{
    printf("#compdef lamina\n"
           "_lamina()\n{\n"
           "    local verb=$words[2]\n"
           "    if ((CURRENT == 2)); then\n        compadd --");
    verb_names(t->commands);
    printf(" help\n        return\n    fi\n    case $verb in\n   ");
    for (const struct command *const *c = t->commands; *c; c++)
        if ((*c)->verbs)
            printf(" %s) ((CURRENT > 3)) && verb+=\" $words[3]\" ;;", (*c)->name);
    puts(" esac\n    case $verb in");
    each_verb(t, zsh_verb);
    puts("    esac\n}\n_lamina \"$@\"");
}

/* --- fish --- */

static void fish_text(const char *s)
{
    putchar('\'');
    for (; *s; s++)
        fputs(*s == '\'' ? "\\'" : *s == '\\' ? "\\\\" : (const char[]){*s, '\0'}, stdout);
    putchar('\'');
}

struct fish_place {
    const struct command *of, *command;
};

static void fish_condition(const struct fish_place *p)
{
    printf("complete -c lamina -n '__fish_seen_subcommand_from %s",
           p->of ? p->of->name : p->command->name);
    if (p->of)
        printf("; and __fish_seen_subcommand_from %s", last_word(p->command));
    printf("'");
}

static void fish_option(const struct arg_desc *d, void *arg)
{
    fish_condition(arg);
    if (d->id < 256)
        printf(" -s %c", d->id);
    if (d->name)
        printf(" -l %s", d->name);
    if (has_values(d)) {
        printf(" -x -a '");
        print_values(d);
        printf("'");
    } else if (d->value) {
        printf(" -r");
    }
    printf(" -d ");
    fish_text(d->help);
    putchar('\n');
}

static void fish_verb(const struct command *of, const struct command *c)
{
    struct fish_place p = {of, c};
    if (of)
        printf("complete -c lamina -n '__fish_seen_subcommand_from %s' -a %s -d ", of->name,
               last_word(c));
    else
        printf("complete -c lamina -n __fish_use_subcommand -a %s -d ", c->name);
    fish_text(c->summary);
    putchar('\n');
    each_option(c, fish_option, &p);
}

static void fish(const struct tool *t)
{
    puts("# fish completion for lamina");
    each_verb(t, fish_verb);
}

int completion_print(const struct tool *t, const char *shell)
{
    static const struct {
        const char *name;
        void (*print)(const struct tool *t);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    for (size_t i = 0; shell && i < ARRAY_LEN(shells); i++) {
        if (strcmp(shell, shells[i].name) == 0) {
            shells[i].print(t);
            return 0;
        }
    }
    return tool_misuse(t, "`lamina help completion` takes bash, zsh or fish");
}

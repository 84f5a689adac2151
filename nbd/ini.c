/* SPDX-License-Identifier: BSD-3-Clause */
/* ini.c - files of sections and keys: a copy of the text is cut up in place, line by line. */
#include "nbd/ini.h"

struct parser {
    struct ini *out;
    struct blk_error *e;
    unsigned line, section;
    const char *kind, *name;
};

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Without the blanks around it, and without the quotes around that. */
static char *trim(char *text)
{
    size_t n;

    while (blank(*text))
        text++;
    n = strlen(text);
    while (n && blank(text[n - 1]))
        n--;
    if (n >= 2 && text[0] == '"' && text[n - 1] == '"') {
        text++;
        n -= 2;
    }
    text[n] = 0;
    return text;
}

static int add(struct parser *p, const char *key, const char *value)
{
    struct ini *o = p->out;

    if (o->count == o->room) {
        size_t room = o->room ? 2 * o->room : 32;
        struct ini_entry *more = mem_resize(o->entries, room * sizeof(*more));

        if (!more)
            return err_set(p->e, -ENOMEM, "out of memory");
        o->entries = more;
        o->room = room;
    }
    o->entries[o->count++] = (struct ini_entry){.line = p->line,
                                                .section = p->section,
                                                .kind = p->kind,
                                                .name = p->name,
                                                .key = key,
                                                .value = value};
    return 0;
}

static int begin_section(struct parser *p, char *text)
{
    char *end = strrchr(text, ']'), *name;

    if (!end || *trim(end + 1))
        return err_set(p->e, -EINVAL, "line %u: a section is [KIND] or [KIND NAME]", p->line);
    *end = 0;
    text = trim(text + 1);
    name = text + strcspn(text, " \t");
    if (*name)
        *name++ = 0;
    if (!*text)
        return err_set(p->e, -EINVAL, "line %u: a section has a kind", p->line);
    p->section++;
    p->kind = text;
    p->name = trim(name);
    return add(p, NULL, NULL);
}

static int take_line(struct parser *p, char *text)
{
    char *equals, *key;

    while (blank(*text))
        text++;
    if (!*text || *text == '#' || *text == ';')
        return 0;
    if (*text == '[')
        return begin_section(p, text);
    equals = strchr(text, '=');
    if (!equals)
        return err_set(p->e, -EINVAL, "line %u: this is no section, and no key = value", p->line);
    *equals = 0;
    key = trim(text);
    if (!*key)
        return err_set(p->e, -EINVAL, "line %u: a key stands before =", p->line);
    if (!p->section)
        return err_set(p->e, -EINVAL, "line %u: a section comes before the first key", p->line);
    return add(p, key, trim(equals + 1));
}

int ini_parse(const void *bytes, size_t count, struct ini *out, struct blk_error *e)
{
    struct parser p = {.out = out, .e = e};
    char *at, *end;

    *out = (struct ini){0};
    if (count > INI_MAX_BYTES)
        return err_set(e, -EFBIG, "more than %u bytes", INI_MAX_BYTES);
    if (count && memchr(bytes, 0, count))
        return err_set(e, -EINVAL, "a zero byte: this is no text");
    out->text = mem_alloc(count + 1);
    if (!out->text)
        return err_set(e, -ENOMEM, "out of memory");
    if (count)
        memcpy(out->text, bytes, count);
    out->text[count] = 0;
    for (at = out->text; at; at = end) {
        end = strchr(at, '\n');
        if (end)
            *end++ = 0;
        p.line++;
        if (strlen(at) > INI_MAX_LINE)
            return err_set(e, -EINVAL, "line %u: more than %u bytes", p.line, INI_MAX_LINE);
        TRY(take_line(&p, at));
    }
    return 0;
}

void ini_drop(struct ini *ini)
{
    mem_free(ini->entries);
    mem_free(ini->text);
    *ini = (struct ini){0};
}

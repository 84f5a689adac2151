/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_text.c - reading and changing the text of LVM2's metadata. Writing: lvm_text_build.c.
 *
 * The text is copied once; names and strings are cut out of the copy in place. */
#include "volumes/lvm_text.h"

#include <ctype.h>
#include <stdlib.h>

/* --- memory ------------------------------------------------------------------------------------
 */

#define BLOCK_BYTES (32 * KiB)

struct lvm_block {
    struct lvm_block *next;
    size_t used, bytes;
    char data[] __attribute__((aligned(16)));
};

static void *take_memory(struct lvm_text *t, size_t bytes)
{
    struct lvm_block *b = t->blocks;
    bytes = align_up(bytes, 16);
    if (!b || b->bytes - b->used < bytes) {
        size_t room = MAX(bytes, BLOCK_BYTES);
        b = mem_alloc(sizeof(*b) + room);
        if (!b)
            return NULL;
        *b = (struct lvm_block){.next = t->blocks, .bytes = room};
        t->blocks = b;
    }
    b->used += bytes;
    return b->data + b->used - bytes;
}

static char *copy(struct lvm_text *t, const char *text, size_t bytes)
{
    char *to = take_memory(t, bytes + 1);
    if (to) {
        memcpy(to, text, bytes);
        to[bytes] = 0;
    }
    return to;
}

void lvm_text_drop(struct lvm_text *t)
{
    while (t->blocks) {
        struct lvm_block *b = t->blocks;
        t->blocks = b->next;
        mem_free(b);
    }
    *t = (struct lvm_text){0};
}

/* @name is borrowed for as long as the tree lives. */
static struct lvm_node *add_node(struct lvm_text *t, struct lvm_node *in, enum lvm_kind kind,
                                 const char *name)
{
    struct lvm_node *n = take_memory(t, sizeof(*n));
    if (!n)
        return NULL;
    *n = (struct lvm_node){.kind = kind, .name = name};
    if (in->last)
        in->last->next = n;
    else
        in->first = n;
    in->last = n;
    t->node_count++;
    return n;
}

/* --- reading -----------------------------------------------------------------------------------
 */

struct parser {
    struct lvm_text *tree;
    char *at; /* a zero byte ends the text */
    unsigned line;
    unsigned depth;
    struct blk_error *e;
};

static int wrong(struct parser *p, const char *what)
{
    return err_bad(p->e, -EINVAL, "line %u of the metadata: %s", p->line, what);
}

static void skip_space(struct parser *p)
{
    for (; *p->at; p->at++) {
        if (*p->at == '#')
            p->at += strcspn(p->at, "\n");
        if (*p->at == '\n')
            p->line++;
        else if (!isspace((unsigned char)*p->at))
            return;
    }
}

static int new_node(struct parser *p, struct lvm_node *in, enum lvm_kind kind, const char *name,
                    struct lvm_node **out)
{
    if (p->tree->node_count >= LVM_NODES_MOST)
        return err_bad(p->e, -EFBIG, "the metadata has more than %d values", LVM_NODES_MOST);
    *out = add_node(p->tree, in, kind, name);
    return *out ? 0 : err_set(p->e, -ENOMEM, "out of memory");
}

/* Behind the opening quote; up to behind the closing one. */
static int take_string(struct parser *p, const char **out)
{
    char *from = p->at, *to = p->at;
    for (*out = to; *from != '"'; *to++ = *from++) {
        if (*from == '\\')
            from++;
        if (*from == 0)
            return wrong(p, "a quote is not closed");
        p->line += *from == '\n';
    }
    *to = 0;
    p->at = from + 1;
    return 0;
}

static int take_number(struct parser *p, struct lvm_node *in, const char *name)
{
    struct lvm_node *n;
    size_t digits = strspn(p->at + (*p->at == '-'), "0123456789") + (*p->at == '-');
    size_t all = strspn(p->at, "+-.0123456789eE");
    if (!isdigit((unsigned char)p->at[*p->at == '-']))
        return wrong(p, "a value was expected");
    TRY(new_node(p, in, all > digits ? LVM_FLOAT : LVM_NUMBER, name, &n));
    errno = 0;
    if (n->kind == LVM_NUMBER)
        n->number = strtoll(p->at, NULL, 10);
    else if (!(n->text = copy(p->tree, p->at, all)))
        return err_set(p->e, -ENOMEM, "out of memory");
    if (errno == ERANGE)
        return wrong(p, "a number is too large");
    p->at += all;
    return 0;
}

static int take_list(struct parser *p, struct lvm_node *in, const char *name);

static int take_value(struct parser *p, struct lvm_node *in, const char *name)
{
    struct lvm_node *n;
    if (*p->at == '[')
        return take_list(p, in, name);
    if (*p->at != '"')
        return take_number(p, in, name);
    p->at++;
    TRY(new_node(p, in, LVM_STRING, name, &n));
    return take_string(p, &n->text);
}

/* Lists hold no lists. */
static int take_list(struct parser *p, struct lvm_node *in, const char *name)
{
    struct lvm_node *list;
    TRY(new_node(p, in, LVM_LIST, name, &list));
    for (p->at++;; p->at++) {
        skip_space(p);
        if (*p->at == ']' && !list->first)
            break;
        if (*p->at == '[')
            return wrong(p, "a list stands in a list");
        TRY(take_value(p, list, NULL));
        skip_space(p);
        if (*p->at == ']')
            break;
        if (*p->at != ',')
            return wrong(p, "a list is not closed");
    }
    p->at++;
    return 0;
}

static int take_items(struct parser *p, struct lvm_node *section);

/* `name {` or `name =`: the name is cut off, which may take the next character's place. */
static int take_item(struct parser *p, struct lvm_node *section)
{
    struct lvm_node *child;
    char *name = p->at, *end = p->at + strcspn(p->at, " \t\r\n={}[]\",#");
    if (end == name)
        return wrong(p, "a name was expected");
    p->at = end;
    skip_space(p);
    char what = *p->at;
    if (what != '{' && what != '=')
        return wrong(p, "behind a name stands neither { nor =");
    p->at++;
    *end = 0;
    skip_space(p);
    if (what == '=')
        return take_value(p, section, name);
    TRY(new_node(p, section, LVM_SECTION, name, &child));
    if (++p->depth > LVM_DEPTH_MOST)
        return wrong(p, "sections are nested too deep");
    TRY(take_items(p, child));
    p->depth--;
    if (*p->at != '}')
        return wrong(p, "a section is not closed");
    p->at++;
    return 0;
}

static int take_items(struct parser *p, struct lvm_node *section)
{
    for (;;) {
        skip_space(p);
        if (*p->at == 0 || *p->at == '}')
            return 0;
        TRY(take_item(p, section));
    }
}

int lvm_text_parse(const char *text, size_t bytes, struct lvm_text *out, struct blk_error *e)
{
    *out = (struct lvm_text){.root.kind = LVM_SECTION};
    if (bytes > LVM_TEXT_MOST)
        return err_bad(e, -EFBIG, "%zu bytes of metadata are more than any group has", bytes);
    struct parser p = {.tree = out, .line = 1, .e = e};
    p.at = copy(out, text, strnlen(text, bytes));
    int rc = p.at ? take_items(&p, &out->root) : err_set(e, -ENOMEM, "out of memory");
    if (rc == 0 && *p.at)
        rc = wrong(&p, "a section is closed that was not opened");
    if (rc < 0)
        lvm_text_drop(out);
    return rc;
}

/* --- looking up --------------------------------------------------------------------------------
 */

struct lvm_node *lvm_find(const struct lvm_node *section, const char *name, enum lvm_kind kind)
{
    for (struct lvm_node *n = section ? section->first : NULL; n; n = n->next)
        if (n->kind == kind && strcmp(n->name, name) == 0)
            return n;
    return NULL;
}

const char *lvm_find_text(const struct lvm_node *section, const char *name)
{
    const struct lvm_node *n = lvm_find(section, name, LVM_STRING);
    return n ? n->text : NULL;
}

bool lvm_find_number(const struct lvm_node *section, const char *name, uint64_t *out)
{
    const struct lvm_node *n = lvm_find(section, name, LVM_NUMBER);
    if (!n || n->number < 0)
        return false;
    *out = (uint64_t)n->number;
    return true;
}

static struct lvm_node *find_word(const struct lvm_node *list, const char *word)
{
    for (struct lvm_node *n = list ? list->first : NULL; n; n = n->next)
        if (n->kind == LVM_STRING && strcmp(n->text, word) == 0)
            return n;
    return NULL;
}

bool lvm_list_has(const struct lvm_node *section, const char *name, const char *word)
{
    return find_word(lvm_find(section, name, LVM_LIST), word) != NULL;
}

/* --- changing ----------------------------------------------------------------------------------
 */

struct lvm_node *lvm_add(struct lvm_text *t, struct lvm_node *in, enum lvm_kind kind,
                         const char *name)
{
    const char *own = name ? copy(t, name, strlen(name)) : NULL;
    return name && !own ? NULL : add_node(t, in, kind, own);
}

static struct lvm_node *find_or_add(struct lvm_text *t, struct lvm_node *in, enum lvm_kind kind,
                                    const char *name)
{
    struct lvm_node *n = lvm_find(in, name, kind);
    return n ? n : lvm_add(t, in, kind, name);
}

int lvm_change_text(struct lvm_text *t, struct lvm_node *n, const char *text)
{
    const char *own = n ? copy(t, text, strlen(text)) : NULL;
    if (!own)
        return -ENOMEM;
    n->text = own;
    return 0;
}

int lvm_set_text(struct lvm_text *t, struct lvm_node *in, const char *name, const char *text)
{
    return lvm_change_text(t, find_or_add(t, in, LVM_STRING, name), text);
}

int lvm_set_number(struct lvm_text *t, struct lvm_node *in, const char *name, uint64_t number)
{
    struct lvm_node *n = find_or_add(t, in, LVM_NUMBER, name);
    if (!n)
        return -ENOMEM;
    n->number = (int64_t)number;
    return 0;
}

int lvm_list_add(struct lvm_text *t, struct lvm_node *list, const char *word)
{
    return lvm_change_text(t, lvm_add(t, list, LVM_STRING, NULL), word);
}

void lvm_list_remove(struct lvm_node *list, const char *word)
{
    struct lvm_node *n = find_word(list, word);
    if (n)
        lvm_remove(list, n);
}

int lvm_rename(struct lvm_text *t, struct lvm_node *node, const char *name)
{
    const char *own = copy(t, name, strlen(name));
    if (!own)
        return -ENOMEM;
    node->name = own;
    return 0;
}

void lvm_remove(struct lvm_node *in, struct lvm_node *node)
{
    struct lvm_node *before = NULL;
    struct lvm_node *n = in->first;
    for (; n && n != node; n = n->next)
        before = n;
    if (!n) /* it was removed before */
        return;
    if (before)
        before->next = node->next;
    else
        in->first = node->next;
    if (in->last == node)
        in->last = before;
    node->next = NULL;
}

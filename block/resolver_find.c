/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver_find.c - what an image refers to by identity and not by name: looked for in folders.
 *
 * Looked through are the image's own folder, that of the image which a person named, and --chain's,
 * and a folder in each; in the faces the image's own and the one above it. No other place is
 * touched, only regular files that are really there are opened, and only their beginning is read.
 * What is found is a name: co_opener_reference() decides whether it may be opened. */
#include "block/resolver_private.h"

#define NAMES_MAX 10000 /* looked at in one folder */

struct finding {
    struct resolver *r;
    const struct opener_search *s;
    uint8_t *head;
    char *found; /* relative to the folder, or absolute */
};

static bool ends_in(const char *name, const char *ending)
{
    size_t len = strlen(name), tail = strlen(ending);
    return len > tail && strcasecmp(name + len - tail, ending) == 0;
}

/* The file's beginning; 0: it is not one to be read. */
static int64_t co_read_head(struct finding *f, const char *dir, const char *name)
{
    struct host_stat st;
    struct host_file *file;
    auto_free char *path = mem_printf("%s/%s", dir, name);
    if (!path || co_host_stat(f->r->host, path, &st) < 0 || st.type != HOST_FILE_REGULAR ||
        co_host_open(f->r->host, name, dir, HOST_READ, &file) < 0)
        return 0;
    struct vec v = VEC_BUF(f->head, f->s->head_bytes);
    int64_t n = co_host_read(file, 0, &v);
    co_host_close(file);
    return MAX(n, 0);
}

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mem_free(names[i]);
    mem_free(names);
}

static int co_look_in(struct finding *f, const char *dir)
{
    char **names;
    size_t count;
    if (co_host_list(f->r->host, dir, &names, &count) < 0)
        return 0; /* not there, or not for us */
    int rc = 0;
    for (size_t i = 0; i < MIN(count, NAMES_MAX) && rc == 0 && !f->found; i++) {
        int64_t n = ends_in(names[i], f->s->ending) ? co_read_head(f, dir, names[i]) : 0;
        if (n > 0)
            rc = f->s->look(f->s->arg, names[i], f->head, (size_t)n, &f->found);
    }
    free_names(names, count);
    return rc;
}

/* @prefix: what leads from the image's folder to @dir; NULL: the absolute name does. */
static int co_look_from(struct finding *f, const char *dir, const char *prefix)
{
    TRY(co_look_in(f, dir));
    if (!f->found || *f->found == '/')
        return 0;
    bool odd = prefix && !*prefix && strchr(f->found, ':'); /* would pass for a protocol */
    char *name =
        mem_printf("%s%s%s", prefix ? odd ? "./" : prefix : dir, prefix ? "" : "/", f->found);
    mem_free(f->found);
    f->found = name;
    return name ? 0 : -ENOMEM;
}

/* In @dir and the folder in it. */
static int co_look_below(struct finding *f, const char *dir, const char *prefix)
{
    TRY(co_look_from(f, dir, prefix));
    if (f->found || !f->s->below)
        return 0;
    auto_free char *below = mem_printf("%s/%s", dir, f->s->below);
    auto_free char *name = prefix ? mem_printf("%s%s/", prefix, f->s->below) : NULL;
    auto_free char *real = NULL, *real_below = NULL;
    if (!below || (prefix && !name))
        return -ENOMEM;
    if (co_host_realpath(f->r->host, dir, &real) < 0 ||
        co_host_realpath(f->r->host, below, &real_below) < 0)
        return 0; /* not there */
    size_t len = strlen(real);
    bool inside =
        strncmp(real_below, real, len) == 0 && strrchr(real_below, '/') == real_below + len;
    return inside ? co_look_from(f, below, name) : 0; /* a link leads elsewhere */
}

/* In a folder that references may lead below, whoever's they are. NULL: there is none. */
static int co_look_allowed(struct finding *f, const char *dir)
{
    auto_free char *real = NULL;
    if (!dir || f->found || co_host_realpath(f->r->host, dir, &real) < 0)
        return 0;
    return co_look_below(f, real, NULL);
}

static int co_look_everywhere(struct finding *f, const struct open_run *run, const struct link *l)
{
    auto_free char *dir = l->file_name ? dir_of(l->file_name) : NULL;
    if (!dir)
        return l->file_name ? -ENOMEM : 0;
    TRY(co_look_below(f, dir, ""));
    if (f->found)
        return 0;
    if (run->rule->face) {
        auto_free char *above = mem_printf("%s/..", dir);
        return above ? co_look_below(f, above, "../") : -ENOMEM;
    }
    auto_free char *root = l->root->file_name ? dir_of(l->root->file_name) : NULL;
    TRY(co_look_allowed(f, root));
    return co_look_allowed(f, run->r->chain_dir);
}

int co_opener_find(struct blk_opener *o, const struct opener_search *s, char **out)
{
    struct finding f = {.r = o->run->r, .s = s};
    *out = NULL;
    if (o->run->rule->refs == REFS_NONE || (o->node.flags & BLK_OPEN_NO_BACKING))
        return -EACCES;
    f.head = buf_get(s->head_bytes);
    if (!f.head)
        return -ENOMEM;
    int rc = co_look_everywhere(&f, o->run, o->node.link);
    buf_put(f.head, s->head_bytes);
    if (rc < 0) {
        mem_free(f.found);
        return rc;
    }
    *out = f.found;
    return f.found ? 0 : -ENOENT;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver_trust.c - who may open what: the table of design section 15 (docs/specs.md), and where a
 * reference out of an image leads.
 *
 * Outside the faces a reference is a file's name and nothing else. It starts from the folder of the
 * image that holds it and must end below the folder of the image that a person named, or below
 * --chain; the name is checked as text before the file system is asked at all, then with its
 * symlinks resolved, and the open itself is bounded by the host (beneath). */
#include "block/resolver_private.h"
#include "block/spec.h"

static const struct trust_rule rules[] = {
    [TRUST_FACE] = {.face = true, .probe = PROBE_QEMU, .refs = REFS_QEMU},
    [TRUST_READ] = {.face = false, .probe = PROBE_SAY, .refs = REFS_BELOW},
    [TRUST_WRITE] = {.face = false, .probe = PROBE_AGREE, .refs = REFS_BELOW},
    [TRUST_NOTHING] = {.face = false, .probe = PROBE_SAY, .refs = REFS_NONE},
};

const struct trust_rule *trust_rule(const struct resolver *r)
{
    assert((size_t)r->trust < ARRAY_LEN(rules));
    return &rules[r->trust];
}

const char *role_words(const char *role)
{
    static const char *const words[][2] = {
        {"backing", "backing file"}, {"parent", "parent"}, {"data", "data file"},
        {"data-file", "data file"},  {"image", "image"},   {"extent", "extent"},
        {"data-extent", "extent"},
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(words[i][0], role) == 0)
            return words[i][1];
    return role;
}

/* --- probing
 * ------------------------------------------------------------------------------------- */

/* True if @name ends in one of the driver's extensions. */
static bool extension_is(const struct blk_driver *d, const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *dot = strrchr(slash ? slash : name, '.');
    if (!dot || !dot[1] || !d->extensions)
        return false;
    size_t len = strlen(dot + 1);
    for (const char *at = d->extensions; *at; at += strspn(at, " ")) {
        size_t word = strcspn(at, " ");
        if (word == len && strncasecmp(at, dot + 1, len) == 0)
            return true;
        at += word;
    }
    return false;
}

static void say(struct open_run *run, const char *sentence)
{
    if (run->r->say && sentence)
        run->r->say(run->r, sentence);
}

static void warn_probed_raw(struct open_run *run, const char *name)
{
    auto_free char *text = mem_printf(
        "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, write operations "
        "on block 0 will be restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions.",
        name);
    say(run, text);
}

int trust_probed(struct open_run *run, const struct node *n, const char *name,
                 const struct blk_driver *driver, const char *reason, struct blk_error *e)
{
    bool write = (n->flags & BLK_OPEN_WRITE) != 0;
    if (run->rule->probe == PROBE_QEMU) {
        if (write && strcmp(driver->name, "raw") == 0)
            warn_probed_raw(run, name);
        return 0;
    }
    bool agree = n->link->file_name && extension_is(driver, n->link->file_name);
    if (agree)
        return 0;
    if (write && run->rule->probe == PROBE_AGREE)
        return err_set(e, -EINVAL,
                       "it looks like %s (%s), but its name does not say so: to write to it, tell "
                       "the format with -f %s",
                       driver->name, reason, driver->name);
    auto_free char *text = mem_printf("%s: taken as %s: %s", name, driver->name, reason);
    say(run, text);
    return 0;
}

/* --- where a reference leads
 * ------------------------------------------------------------------------------------- */

char *combine_names(const char *file_name, const char *reference)
{
    const char *slash = *reference == '/' ? NULL : strrchr(file_name, '/');
    return slash ? mem_printf("%.*s/%s", (int)(slash - file_name), file_name, reference)
                 : mem_strdup(reference);
}

char *dir_of(const char *file_name)
{
    const char *slash = strrchr(file_name, '/');
    if (!slash)
        return mem_strdup(".");
    return mem_printf("%.*s", slash == file_name ? 1 : (int)(slash - file_name), file_name);
}

/* What @path is below @dir, or NULL. Both absolute. */
static const char *below(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    while (len && dir[len - 1] == '/')
        len--;
    if (strncmp(path, dir, len) != 0 || path[len] != '/')
        return NULL;
    path += len;
    while (*path == '/')
        path++;
    return *path ? path : NULL;
}

/* Takes "", "." and ".." out of an absolute path, in place, as text. */
static void normalise(char *path)
{
    char *to = path;
    for (char *from = path; *from;) {
        from += strspn(from, "/");
        size_t len = strcspn(from, "/");
        if (len == 2 && memcmp(from, "..", 2) == 0) {
            while (to > path && *--to != '/')
                ;
        } else if (len && !(len == 1 && *from == '.')) {
            *to++ = '/';
            memmove(to, from, len);
            to += len;
        }
        from += len;
    }
    if (to == path)
        *to++ = '/';
    *to = 0;
}

static int co_real_dir(struct open_run *run, struct link *l, struct blk_error *e)
{
    if (l->real_dir)
        return 0;
    auto_free char *dir = l->file_name ? dir_of(l->file_name) : NULL;
    if (!l->file_name)
        return err_set(e, -EACCES, "an image that is not in a file may not refer to one");
    int rc = dir ? co_host_realpath(run->r->host, dir, &l->real_dir) : -ENOMEM;
    return rc < 0 ? err_errno(e, rc, "its folder '%.200s'", dir ? dir : "") : 0;
}

/* A folder below which references may lead: as it is spelt and as it is. */
struct allowed {
    char *spelt, *real;
};

static void allowed_drop(struct allowed *a)
{
    for (size_t i = 0; i < 2; i++) {
        mem_free(a[i].spelt);
        mem_free(a[i].real);
    }
}

static int co_allowed(struct open_run *run, struct link *from, struct allowed *a,
                      struct blk_error *e)
{
    TRY(co_real_dir(run, from->root, e));
    a[0].real = mem_strdup(from->root->real_dir);
    a[0].spelt = dir_of(from->root->file_name);
    if (!a[0].real || !a[0].spelt)
        return err_set(e, -ENOMEM, "no memory to open a device");
    if (!run->r->chain_dir)
        return 0;
    int rc = co_host_realpath(run->r->host, run->r->chain_dir, &a[1].real);
    if (rc < 0)
        return err_errno(e, rc, "--chain '%.200s'", run->r->chain_dir);
    a[1].spelt = mem_strdup(run->r->chain_dir);
    return a[1].spelt ? 0 : err_set(e, -ENOMEM, "no memory to open a device");
}

/* What @path is below one of the allowed folders, that one's real name in *dir; NULL: nowhere. */
static const char *below_allowed(const struct allowed *a, const char *path, bool real_only,
                                 const char **dir)
{
    for (size_t i = 0; i < 2; i++) {
        const char *rest = a[i].real ? below(path, a[i].real) : NULL;
        if (!rest && !real_only && a[i].spelt && *a[i].spelt == '/')
            rest = below(path, a[i].spelt);
        if (rest) {
            *dir = a[i].real;
            return rest;
        }
    }
    return NULL;
}

static int outside(const char *role, const char *reference, struct blk_error *e)
{
    return err_set(e, -EACCES,
                   "'%.200s' is outside of the image's folder: --chain DIR lets a %s lie below DIR",
                   reference, role_words(role));
}

/* @real: where the reference leads, symlinks resolved. */
static int file_below(const char *dir, const char *rest, const char *name, json_t **tree,
                      struct blk_error *e)
{
    json_t *file = spec_file("file", rest);
    if (!file || json_object_set_new(file, "x-lamina-beneath", json_string_nocheck(dir)) < 0 ||
        json_object_set_new(file, "x-lamina-name", json_string_nocheck(name)) < 0) {
        json_decref(file);
        return err_set(e, -ENOMEM, "no memory to open a device");
    }
    *tree = spec_on_file(file);
    return *tree ? 0 : err_set(e, -ENOMEM, "no memory to open a device");
}

static int co_find_below(struct open_run *run, struct link *from, const struct allowed *a,
                         const char *role, const char *reference, json_t **tree,
                         struct blk_error *e)
{
    const char *dir = NULL;
    auto_free char *name = combine_names(from->file_name, reference);
    auto_free char *path =
        *reference == '/' ? mem_strdup(reference) : mem_printf("%s/%s", from->real_dir, reference);
    auto_free char *text = path ? mem_strdup(path) : NULL;
    auto_free char *real = NULL;
    if (!name || !text)
        return err_set(e, -ENOMEM, "no memory to open a device");
    normalise(text);
    if (!below_allowed(a, text, false, &dir))
        return outside(role, reference, e);
    int rc = co_host_realpath(run->r->host, path, &real);
    if (rc < 0)
        return err_errno(e, rc, "%.200s", name);
    const char *rest = below_allowed(a, real, true, &dir);
    return rest ? file_below(dir, rest, name, tree, e) : outside(role, reference, e);
}

static int co_locate_below(struct open_run *run, struct link *from, const char *role,
                           const char *reference, json_t **tree, struct blk_error *e)
{
    struct allowed a[2] = {{0}};
    if (strncmp(reference, "file:", 5) == 0)
        reference += 5;
    if (spec_has_protocol(reference))
        return err_set(e, -EACCES, "an image may refer to files only, not to '%.200s'", reference);
    int rc = co_real_dir(run, from, e);
    if (rc == 0)
        rc = co_allowed(run, from, a, e);
    if (rc == 0)
        rc = co_find_below(run, from, a, role, reference, tree, e);
    allowed_drop(a);
    return rc;
}

/* QEMU takes a data file's name from where it was started, others from the image's folder. */
static int co_locate_as_qemu(struct open_run *run, struct link *from, const char *role,
                             const char *reference, json_t **tree, struct blk_error *e)
{
    if (spec_has_protocol(reference))
        return co_parse_spec(run->r, reference, false, tree, e);
    bool beside = from->file_name && strcmp(role, "data-file") != 0;
    auto_free char *name = combine_names(beside ? from->file_name : "", reference);
    *tree = name ? spec_on_file(spec_file("file", name)) : NULL;
    return *tree ? 0 : err_set(e, -ENOMEM, "no memory to open a device");
}

/* The format that the image says its reference has. A protocol's name there means no format. */
static int set_format(struct open_run *run, const char *format, json_t **tree, struct blk_error *e)
{
    const struct blk_driver *d = blk_find_driver(run->r->drivers, format);
    bool protocol = strcmp(format, "host_device") == 0 || (d && !d->is_format);
    if (!d && !protocol)
        return unknown_driver(run, format, e);
    return put_format(run->r, protocol ? "raw" : d->name, tree, e);
}

int co_trust_locate(struct open_run *run, struct link *from, const char *role,
                    const char *reference, const char *format, json_t **tree, struct blk_error *e)
{
    assert(run->rule->refs != REFS_NONE);
    if (!*reference)
        return err_set(e, -EINVAL, "the image names what it stands on by an empty name");
    int rc = run->rule->refs == REFS_QEMU ? co_locate_as_qemu(run, from, role, reference, tree, e)
                                          : co_locate_below(run, from, role, reference, tree, e);
    return rc == 0 && format ? set_format(run, format, tree, e) : rc;
}

int opener_full_name(const struct blk_opener *o, const char *reference, char **out)
{
    const char *name = o->node.link->file_name;
    *out = spec_has_protocol(reference) ? mem_strdup(reference)
                                        : combine_names(name ? name : "", reference);
    return *out ? 0 : -ENOMEM;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* ova.c - appliances (.ova): the disks inside are opened in place, `x.ova//disk1`.
 *
 *   | description.ovf | manifest.mf | disk 1 | disk 2 ... |      a tar
 *
 * A disk is a slice of the tar, slices one behind the other where it is split, under gzip where it
 * is compressed; what format it has is probed by who opens it. The manifest is verified by a check,
 * or with verify=on before anything else is done. */
#include <stdio.h>

#include "imgfmt/ova.h"

struct ova {
    struct blk_device *file;
    struct tar tar;
    struct ovf ovf;
    const struct tar_file *description, *manifest; /* manifest NULL: none */
};

static bool ends_in(const char *name, const char *ending)
{
    size_t n = strlen(name), m = strlen(ending);
    return n > m && strcasecmp(name + n - m, ending) == 0;
}

static const struct tar_file *find_ending(const struct tar *t, const char *ending)
{
    for (size_t i = 0; i < t->count; i++)
        if (ends_in(t->files[i].name, ending))
            return &t->files[i];
    return NULL;
}

/* --- parts of a disk -------------------------------------------------------------------------- */

struct parts {
    struct blk_child *list; /* owned, with their references */
    size_t count, room;
    struct blk_error *e;
};

static void drop_parts(struct parts *p)
{
    for (size_t i = 0; i < p->count; i++)
        co_blk_close(p->list[i].dev, NULL);
    mem_free(p->list);
}

/* Room for one more. */
static bool grow(struct parts *p)
{
    if (p->count < p->room)
        return true;
    struct blk_child *grown = mem_resize(p->list, (p->room + 16) * sizeof(*grown));
    if (grown) {
        p->list = grown;
        p->room += 16;
    }
    return grown;
}

static int co_add_slice(struct parts *p, const struct ova *o, const struct tar_file *f)
{
    struct blk_child file = {"file", blk_ref(o->file)};
    struct blk_device *slice;
    json_auto_t *tree =
        json_pack("{s:I, s:I}", "offset", (json_int_t)f->offset, "size", (json_int_t)f->bytes);
    if (!tree || !grow(p)) {
        co_blk_close(file.dev, NULL);
        return err_set(p->e, -ENOMEM, "out of memory");
    }
    TRY(co_blk_open(&slice_driver, f->name, tree, o->file->open_flags, NULL, &file, 1, &slice,
                    p->e));
    p->list[p->count++] = (struct blk_child){"child", slice};
    return 0;
}

/* NAME.000000000, NAME.000000001, ...: all but the last one are as long as they should be. */
static int co_add_split(struct parts *p, const struct ova *o, const struct ovf_file *f)
{
    for (unsigned i = 0;; i++) {
        auto_free char *name = mem_printf("%s.%09u", f->href, i);
        const struct tar_file *part = name ? tar_find(&o->tar, name) : NULL;
        if (!name)
            return err_set(p->e, -ENOMEM, "out of memory");
        if (!part && i > 0)
            return 0;
        if (!part)
            return err_set(p->e, -ENOENT, "the tar holds no '%.200s'", name);
        if (i > 0 && p->list[i - 1].dev->size != f->chunk_bytes)
            return err_bad(p->e, -EINVAL, "the part before '%.200s' is not %" PRIu64 " bytes long",
                           name, f->chunk_bytes);
        TRY(co_add_slice(p, o, part));
    }
}

static int co_add_parts(struct parts *p, const struct ova *o, const struct ovf_file *f)
{
    const struct tar_file *whole = tar_find(&o->tar, f->href);
    if (f->other)
        return err_set(p->e, -ENOTSUP, "'%.200s' is compressed in a way that is unknown", f->href);
    if (f->chunk_bytes && !whole)
        return co_add_split(p, o, f);
    if (!whole)
        return err_set(p->e, -ENOENT, "the tar holds no '%.200s'", f->href);
    return co_add_slice(p, o, whole);
}

/* @driver over @children, which are taken over. */
static int co_over(const struct blk_driver *driver, const struct ova *o, const char *name,
                   struct blk_child *children, size_t count, struct blk_device **out,
                   struct blk_error *e)
{
    return co_blk_open(driver, name, NULL, o->file->open_flags, NULL, children, count, out, e);
}

/* What the description calls a file, as one device. */
static int co_open_file(const struct ova *o, const struct ovf_file *f, struct blk_device **out,
                        struct blk_error *e)
{
    struct parts p = {.e = e};
    int rc = co_add_parts(&p, o, f);
    if (rc < 0) {
        drop_parts(&p);
        return rc;
    }
    if (p.count == 1)
        *out = p.list[0].dev;
    else
        rc = co_over(&concat_driver, o, f->href, p.list, p.count, out, e);
    mem_free(p.list);
    if (rc < 0 || !f->gzip)
        return rc;
    struct blk_child packed = {"file", *out};
    return co_over(&gzip_driver, o, f->href, &packed, 1, out, e);
}

/* --- a disk inside ---------------------------------------------------------------------------- */

/* By the disk's id, by the name of its file, or "diskN" by number. */
static const struct ovf_disk *find_disk(const struct ova *o, const char *name)
{
    unsigned number;
    char rest;
    for (size_t i = 0; i < o->ovf.disk_count; i++)
        if (strcmp(o->ovf.disks[i].id, name) == 0)
            return &o->ovf.disks[i];
    for (size_t i = 0; i < o->ovf.disk_count; i++) {
        const struct ovf_file *f = ovf_file_of(&o->ovf, &o->ovf.disks[i]);
        if (f && strcmp(f->href, name) == 0)
            return &o->ovf.disks[i];
    }
    if (sscanf(name, "disk%6u%c", &number, &rest) == 1 && number >= 1 &&
        number <= o->ovf.disk_count)
        return &o->ovf.disks[number - 1];
    return NULL;
}

static int co_open_named(const struct ova *o, const char *name, struct blk_device **out,
                         struct blk_error *e)
{
    const struct ovf_disk *d = find_disk(o, name);
    const struct ovf_file *f = d ? ovf_file_of(&o->ovf, d) : NULL;
    if (!d)
        return err_set(e, -ENOENT, "the appliance has no disk \"%.200s\"; `lamina info` lists them",
                       name);
    if (d->parent)
        return err_set(e, -ENOTSUP,
                       "the disk \"%.200s\" holds only what changed over \"%.200s\", which cannot "
                       "be read here",
                       name, d->parent);
    if (!f)
        return err_set(e, -ENOENT, "the disk \"%.200s\" is empty: it has no file", name);
    return co_open_file(o, f, out, e);
}

static int co_ova_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                             struct blk_error *e)
{
    struct blk_device *disk;
    TRY(co_open_named(container->state, name, &disk, e));
    return readonly_show(dev, disk, e);
}

static int co_ova_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                             struct blk_error *e)
{
    const struct ova *o = dev->state;
    size_t n = o->ovf.disk_count;
    struct blk_inner *list = mem_array(MAX(n, 1), sizeof(*list));
    bool ok = list;
    for (size_t i = 0; ok && i < n; i++) {
        list[i] = (struct blk_inner){.name = mem_strdup(o->ovf.disks[i].id),
                                     .kind = mem_strdup("disk"),
                                     .bytes = o->ovf.disks[i].capacity};
        ok = list[i].name && list[i].kind;
    }
    if (!ok) {
        blk_inner_drop(list, list ? n : 0);
        return err_set(e, -ENOMEM, "out of memory");
    }
    *out = list;
    *count = n;
    return 0;
}

/* --- facts ------------------------------------------------------------------------------------ */

static int put_text(json_t *o, const char *key, const char *text)
{
    return text ? json_object_set_new(o, key, json_from_text(text)) : 0;
}

static json_t *disk_facts(const struct ova *o, const struct ovf_disk *d)
{
    const struct ovf_file *f = ovf_file_of(&o->ovf, d);
    json_t *facts = json_object();
    int rc = put_text(facts, "id", d->id);
    rc |= json_object_set_new(facts, "capacity", json_integer((json_int_t)d->capacity));
    rc |= put_text(facts, "format", d->format);
    rc |= put_text(facts, "file", f ? f->href : NULL);
    rc |= put_text(facts, "changes", d->parent);
    if (f && f->gzip)
        rc |= put_text(facts, "compression", "gzip");
    if (f && f->chunk_bytes)
        rc |= json_object_set_new(facts, "split", json_integer((json_int_t)f->chunk_bytes));
    if (rc != 0)
        json_decref(take(facts));
    return facts;
}

static int co_ova_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct ova *o = dev->state;
    json_t *disks = json_array();
    int rc = disks ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < o->ovf.disk_count; i++) {
        rc = json_array_append_new(disks, disk_facts(o, &o->ovf.disks[i]));
        out->virtual_size = MIN(out->virtual_size + o->ovf.disks[i].capacity, (uint64_t)INT64_MAX);
    }
    out->specific = json_object();
    if (rc == 0)
        rc = put_text(out->specific, "description", o->description->name);
    if (rc == 0)
        rc = put_text(out->specific, "manifest", o->manifest ? o->manifest->name : NULL);
    if (rc == 0)
        rc = json_object_set_new(out->specific, "disks", take(disks));
    json_decref(disks);
    return rc < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

/* --- check ------------------------------------------------------------------------------------ */

static void say(void *arg, const char *sentence)
{
    struct blk_check *c = arg;
    auto_free char *text = mem_printf("ERROR: %s", sentence);
    if (c->say && text)
        c->say(c, text);
}

/* Files are there, and as long as the description says. */
static void check_sizes(const struct ova *o, struct blk_check *c)
{
    for (size_t i = 0; i < o->ovf.file_count; i++) {
        const struct ovf_file *f = &o->ovf.files[i];
        const struct tar_file *t = tar_find(&o->tar, f->href);
        if ((!t && f->chunk_bytes) || (t && (f->bytes == UINT64_MAX || t->bytes == f->bytes)))
            continue;
        auto_free char *text = mem_printf("'%.200s' is not in the tar%s", f->href,
                                          t ? " as long as the description says" : "");
        c->corruptions++;
        if (text)
            say(c, text);
    }
}

static int co_ova_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    const struct ova *o = dev->state;
    uint64_t faults = 0;
    c->data = false; /* all of it is read here */
    if (!o->manifest)
        return err_set(e, -ENOENT, "it holds no manifest to check it against");
    TRY(co_ova_verify(o->file, &o->tar, o->manifest, say, c, &faults, e));
    c->corruptions += faults;
    check_sizes(o, c);
    c->image_end = dev->children[0].dev->size;
    return 0;
}

/* --- open ------------------------------------------------------------------------------------- */

static void first_fault(void *arg, const char *sentence)
{
    struct blk_error *e = arg;
    if (e->text[0] == 0)
        err_bad(e, -EBADMSG, "the manifest does not fit: %.400s", sentence);
}

static int co_verify(const struct ova *o, struct blk_error *e)
{
    struct blk_error first = {0};
    uint64_t faults = 0;
    if (!o->manifest)
        return err_set(e, -ENOENT, "it holds no manifest to verify it against");
    TRY(co_ova_verify(o->file, &o->tar, o->manifest, first_fault, &first, &faults, e));
    return faults ? err_bad(e, -EBADMSG, "%s", first.text) : 0;
}

static int co_open_parts(struct ova *o, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    TRY(co_readonly_file(dev, opener, &o->file, e));
    TRY(co_tar_read(o->file, &o->tar, e));
    o->description = find_ending(&o->tar, ".ovf");
    o->manifest = find_ending(&o->tar, ".mf");
    if (!o->description)
        return err_set(e, -EINVAL, "not an appliance: the tar holds no description (.ovf)");
    TRY(co_ovf_read(o->file, o->description, &o->ovf, e));
    return opts_bool(opts, "verify") ? co_verify(o, e) : 0;
}

static void drop(struct ova *o)
{
    tar_drop(&o->tar);
    ovf_drop(&o->ovf);
    mem_free(o);
}

static int co_ova_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct ova *o = mem_zalloc(sizeof(*o));
    if (!o)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(o, dev, opts, opener, e);
    if (rc < 0) {
        drop(o);
        return rc;
    }
    dev->state = o;
    dev->size = 0; /* it holds disks and is none itself */
    return 0;
}

static int co_ova_close(struct blk_device *dev, struct blk_error *e)
{
    drop(dev->state);
    return 0;
}

static int co_ova_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return -EINVAL;
}

/* A tar whose first file is an .ovf. */
static int ova_probe(const struct blk_probe *p, const char **reason)
{
    struct tar_header h;
    struct blk_error e;
    *reason = "a tar that begins with an OVF description";
    if (p->as_qemu || p->head_bytes < TAR_BLOCK)
        return 0;
    if (memcmp(p->head + offsetof(struct tar_header_disk, magic), "ustar", 5) != 0 ||
        tar_header_parse((const struct tar_header_disk *)p->head, &h, &e) != 1)
        return 0;
    return ends_in(h.name, ".ovf") ? 90 : ends_in(p->name, ".ova") ? 60 : 0;
}

static const struct opt_desc ova_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the appliance lies in"},
    {.name = "verify",
     .type = OPT_BOOL,
     .help = "compare all files with the manifest before anything is opened",
     .preset = "off"},
    {0},
};

const struct blk_driver ova_driver = {
    .name = "ova",
    .title = "an appliance: disks in a tar (read only)",
    .mend = "`tar xf FILE` takes out the disks that are whole, and each opens by itself; else get "
            "it again",
    .extensions = "ova",
    .is_format = true,
    .only_inner = true,
    .inner_is_image = true,
    .open_options = ova_options,
    .probe = ova_probe,
    .co_open = co_ova_open,
    .co_close = co_ova_close,
    .co_reopen = co_readonly_reopen,
    .co_inner_list = co_ova_inner_list,
    .co_inner_open = co_ova_inner_open,
    .co_read = co_ova_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_check = co_ova_check,
    .co_info = co_ova_info,
};

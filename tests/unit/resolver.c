/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver.c - who may open what: each cell of the trust table, chains, circles, and the sentences.
 *
 * Two drivers stand in for formats: "chain", a text of 512 bytes that names a backing file, and
 * "table", a container of two halves. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/host_sim.h"
#include "block/resolver.h"

/* --- the two drivers
 * ------------------------------------------------------------------------------------- */

static char opened_order[64];
static unsigned opened_count;

static int chain_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "it begins with CHAIN";
    return p->head_bytes >= 5 && memcmp(p->head, "CHAIN", 5) == 0 ? 90 : 0;
}

/* "CHAIN|backing|format|" */
static int co_chain_open(struct blk_device *dev, const struct opts *o, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct blk_device *file;
    char head[513] = "", *at = head;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    TRY(co_blk_read_buf(file, 0, head, MIN(file->size, 512)));
    if (strncmp(head, "CHAIN|", 6) != 0)
        return err_set(e, -EINVAL, "Image is not in chain format");
    strsep(&at, "|");
    const char *backing = strsep(&at, "|"), *format = strsep(&at, "|");
    dev->size = 1 * MiB;
    if (opener_has(opener, "backing") || (backing && *backing)) {
        int rc = co_opener_reference(opener, dev, "backing", backing ? backing : "", format,
                                     dev->open_flags, e);
        return rc == -EACCES ? 0 : rc;
    }
    return 0;
}

static int co_chain_opened(struct blk_device *dev, struct blk_error *e)
{
    struct blk_device *backing = blk_child(dev, "backing");
    if (opened_count < sizeof opened_order - 1)
        opened_order[opened_count] = backing ? 'b' : '.';
    opened_count++;
    if (backing && strcmp(backing->driver->name, "chain") == 0 && backing->size == 0)
        return err_set(e, -EIO, "opened before what is behind it");
    return 0;
}

static int co_chain_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    vec_fill(to, 0);
    return 0;
}

static const struct opt_desc chain_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the image"},
    {.name = "backing", .type = OPT_CHILD, .help = "what is behind it"},
    {.name = "lazy", .type = OPT_BOOL, .help = "an option"},
    {0},
};

static const struct blk_driver chain_driver = {
    .name = "chain",
    .title = "test chains",
    .extensions = "chain chn",
    .is_format = true,
    .open_options = chain_options,
    .probe = chain_probe,
    .co_open = co_chain_open,
    .co_opened = co_chain_opened,
    .co_read = co_chain_read,
};

static int table_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "it begins with TABLE";
    return p->head_bytes >= 5 && memcmp(p->head, "TABLE", 5) == 0 ? 80 : 0;
}

static int co_table_open(struct blk_device *dev, const struct opts *o, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    dev->size = file->size;
    return 0;
}

static bool half_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                         struct blk_place *out)
{
    *out = (struct blk_place){
        .child = dev->children[0].dev, .offset = offset + (uintptr_t)dev->state, .bytes = bytes};
    return true;
}

static const struct blk_driver half_driver = {
    .name = "half", .is_filter = true, .resolve = half_resolve};

static int co_table_inner(struct blk_device *container, const char *name, struct blk_device *dev,
                          struct blk_error *e)
{
    uint64_t half = container->size / 2;
    if (strcmp(name, "p1") != 0 && strcmp(name, "p2") != 0)
        return err_set(e, -ENOENT, "there is no %s in it: p1 and p2 are", name);
    dev->driver = &half_driver;
    dev->size = half;
    dev->state = (void *)(uintptr_t)(name[1] == '2' ? half : 0);
    struct blk_device *of = blk_ref(blk_child(container, "file"));
    int rc = blk_add_child(dev, "of", of);
    if (rc < 0)
        co_blk_close(of, NULL);
    return rc;
}

static const struct blk_driver table_driver = {
    .name = "table",
    .title = "two halves",
    .probe = table_probe,
    .co_open = co_table_open,
    .co_inner_open = co_table_inner,
};

extern const struct blk_driver raw_driver;
static const struct blk_driver *const drivers[] = {
    &chain_driver, &raw_driver,   &file_driver,   &mem_driver, &null_driver,
    &slice_driver, &table_driver, &concat_driver, NULL,
};

/* --- a folder to work in
 * ------------------------------------------------------------------------------------- */

static struct host *host;
static struct runtime *rt;
static char folder[200], *was_in, said[900];

static void say(struct resolver *r, const char *sentence)
{
    snprintf(said, sizeof said, "%s", sentence);
}

static void put(const char *path, const char *text, size_t bytes)
{
    FILE *f = fopen(path, "w");
    ck_assert_msg(f != NULL, "%s", path);
    ck_assert_int_eq(fputs(text, f) < 0, 0);
    ck_assert_int_eq(fclose(f), 0);
    if (bytes)
        ck_assert_int_eq(truncate(path, (off_t)bytes), 0);
}

static void fill_folder(void)
{
    ck_assert_int_eq(mkdir("sub", 0777) | mkdir("gold", 0777) | mkdir("other", 0777), 0);
    put("base.img", "raw", 4096);
    put("other/secret", "root:", 4096);
    put("gold/base.img", "raw", 4096);
    put("gold/mid.chain", "CHAIN|base.img|raw|", 512);
    put("sub/base.img", "raw", 4096);
    put("table.img", "TABLE", 8192);
    put("lone.chain", "CHAIN||", 512);
    put("lone.img", "CHAIN||", 512);
    put("noext", "CHAIN||", 512);
    put("good.chain", "CHAIN|base.img|raw|", 512);
    put("probes.chain", "CHAIN|base.img|", 512);
    put("sub/top.chain", "CHAIN|base.img|raw|", 512);
    put("sub/up.chain", "CHAIN|../base.img|raw|", 512);
    put("sub/out.chain", "CHAIN|/etc/passwd|raw|", 512);
    put("sub/gold.chain", "CHAIN|../gold/mid.chain|chain|", 512);
    put("fifo.chain", "CHAIN|fifo|raw|", 512);
    put("url.chain", "CHAIN|nbd://localhost/x|raw|", 512);
    put("json.chain", "CHAIN|json:{\"driver\":\"null\",\"size\":512}||", 512);
    put("devnull.chain", "CHAIN|/dev/null|raw|", 512);
    put("devzero.chain", "CHAIN|/dev/zero|raw|", 512);
    put("link.chain", "CHAIN|out-link|raw|", 512);
    put("inlink.chain", "CHAIN|in-link|raw|", 512);
    put("self.chain", "CHAIN|self.chain|chain|", 512);
    put("ring1.chain", "CHAIN|sub/../ring2.chain|chain|", 512);
    put("ring2.chain", "CHAIN|ring1.chain|chain|", 512);
    put("gone.chain", "CHAIN|nowhere.img|raw|", 512);
    put("top.chain", "CHAIN|gone.chain|chain|", 512);
    put("badfmt.chain", "CHAIN|base.img|rav|", 512);
    put("file.chain", "CHAIN|file:base.img|raw|", 512);
    put("chain2.chain", "CHAIN|good.chain|chain|", 512);
    put("a:b", "raw", 512);
    ck_assert_int_eq(mkfifo("fifo", 0666), 0);
    ck_assert_int_eq(symlink("other/../../../../../../../../etc/passwd", "out-link"), 0);
    ck_assert_int_eq(symlink("sub/base.img", "in-link"), 0);
}

static void enter_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/resolver.XXXXXX", tmp ? tmp : "/tmp");
    was_in = getcwd(NULL, 0);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    fill_folder();
}

static void leave_folder(void)
{
    char command[300];
    ck_assert_int_eq(chdir(was_in), 0);
    free(was_in);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static void setup(void)
{
    struct runtime_options o = {.workers = 1};
    ck_assert_int_eq(host_open("threads", &host), 0);
    o.host = host;
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
}

static void teardown(void)
{
    runtime_close(rt);
    host_close(host);
}

/* --- one open
 * ------------------------------------------------------------------------------------- */

struct open_case {
    enum trust trust;
    const char *text, *format, *chain_dir;
    unsigned flags;
    int rc;
    const char *says;  /* in the error, or in what was said */
    const char *shape; /* driver names top to bottom */
};

static void shape_of(struct blk_device *dev, char *to, size_t room)
{
    *to = 0;
    for (; dev; dev = blk_child(dev, "backing")) {
        struct blk_device *file = dev->child_count ? dev->children[0].dev : NULL;
        size_t used = strlen(to);
        snprintf(to + used, room - used, "%s%s", used ? "<" : "", dev->driver->name);
        if (file && strcmp(file->driver->name, "file") != 0) {
            used = strlen(to);
            snprintf(to + used, room - used, "(%s)", file->driver->name);
        }
    }
}

static int co_try(void *arg)
{
    const struct open_case *c = arg;
    struct resolver r = {
        .host = host, .drivers = drivers, .trust = c->trust, .chain_dir = c->chain_dir, .say = say};
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    char shape[300];
    said[0] = 0;
    opened_count = 0;
    memset(opened_order, 0, sizeof opened_order);
    int rc = co_resolver_open(&r, c->text, c->format, c->flags, &dev, &e);
    ck_assert_msg(rc == c->rc, "%s (trust %d): %d %s", c->text, c->trust, rc, e.text);
    if (c->says)
        ck_assert_msg(strstr(rc < 0 ? e.text : said, c->says), "%s (trust %d) says: %s", c->text,
                      c->trust, rc < 0 ? e.text : said);
    else
        ck_assert_msg(rc < 0 || !said[0], "%s said: %s", c->text, said);
    if (rc == 0) {
        shape_of(dev, shape, sizeof shape);
        if (c->shape)
            ck_assert_str_eq(shape, c->shape);
        for (struct blk_device *d = blk_child(dev, "backing"); d; d = blk_child(d, "backing"))
            ck_assert(!d->writable);
        ck_assert_int_eq(dev->writable, (c->flags & BLK_OPEN_WRITE) != 0);
        ck_assert_int_eq(co_blk_close(dev, NULL), 0);
    }
    return 0;
}

#define W BLK_OPEN_WRITE

static const struct open_case cases[] = {
    /* probing: the faces */
    {TRUST_FACE, "lone.chain", .shape = "chain"},
    {TRUST_FACE, "base.img", .shape = "raw"},
    {TRUST_FACE, "lone.img", .flags = W, .shape = "chain"},
    {TRUST_FACE, "base.img", .flags = W, .shape = "raw", .says = "probing guessed raw.\n"},
    {TRUST_FACE, "base.img", .format = "raw", .flags = W, .shape = "raw"},
    /* probing: verbs that read */
    {TRUST_READ, "lone.chain", .shape = "chain"},
    {TRUST_READ, "lone.img", .shape = "chain",
     .says = "lone.img: taken as chain: it begins with CHAIN"},
    {TRUST_READ, "noext", .shape = "chain", .says = "taken as chain"},
    {TRUST_READ, "base.img", .shape = "raw"},
    {TRUST_READ, "base.img", .format = "chain", .rc = -EINVAL,
     .says = "base.img: Image is not in chain format"},
    /* probing: verbs that write in place */
    {TRUST_WRITE, "lone.chain", .flags = W, .shape = "chain"},
    {TRUST_WRITE, "base.img", .flags = W, .shape = "raw"},
    {TRUST_WRITE, "lone.img", .flags = W, .rc = -EINVAL, .says = "-f chain"},
    {TRUST_WRITE, "noext", .flags = W, .rc = -EINVAL, .says = "noext: it looks like chain"},
    {TRUST_WRITE, "a:b", .flags = W, .rc = -EINVAL, .says = "-f raw"},
    {TRUST_WRITE, "lone.img", .format = "raw", .flags = W, .shape = "raw"},
    {TRUST_WRITE, "lone.img", .format = "chain", .flags = W, .shape = "chain"},
    {TRUST_WRITE, "lone.img", .shape = "chain", .says = "taken as chain"},
    /* info, --untrusted: probes, opens no reference */
    {TRUST_NOTHING, "good.chain", .shape = "chain"},
    {TRUST_NOTHING, "self.chain", .shape = "chain"},
    {TRUST_NOTHING, "sub/out.chain", .shape = "chain"},
    {TRUST_NOTHING, "lone.img", .shape = "chain", .says = "taken as chain"},
    {TRUST_FACE, "good.chain", .flags = BLK_OPEN_NO_BACKING, .shape = "chain"},
    /* references: below the folder */
    {TRUST_READ, "good.chain", .shape = "chain<raw"},
    {TRUST_READ, "probes.chain", .shape = "chain<raw"},
    {TRUST_READ, "sub/top.chain", .shape = "chain<raw"},
    {TRUST_READ, "file.chain", .shape = "chain<raw"},
    {TRUST_READ, "inlink.chain", .shape = "chain<raw"},
    {TRUST_READ, "chain2.chain", .shape = "chain<chain<raw"},
    {TRUST_WRITE, "good.chain", .flags = W, .shape = "chain<raw"},
    {TRUST_FACE, "good.chain", .flags = W, .shape = "chain<raw"},
    /* references that leave it */
    {TRUST_READ, "sub/up.chain", .rc = -EACCES,
     .says = "sub/up.chain: backing file: '../base.img' is outside of the image's folder: --chain"},
    {TRUST_WRITE, "sub/up.chain", .flags = W, .rc = -EACCES, .says = "--chain DIR"},
    {TRUST_READ, "sub/out.chain", .rc = -EACCES, .says = "'/etc/passwd' is outside"},
    {TRUST_READ, "link.chain", .rc = -EACCES, .says = "'out-link' is outside"},
    {TRUST_READ, "sub/gold.chain", .rc = -EACCES, .says = "outside"},
    {TRUST_READ, "sub/up.chain", .chain_dir = ".", .shape = "chain<raw"},
    {TRUST_READ, "sub/gold.chain", .chain_dir = "gold", .shape = "chain<chain<raw"},
    {TRUST_READ, "sub/out.chain", .chain_dir = "gold", .rc = -EACCES, .says = "outside"},
    {TRUST_READ, "link.chain", .chain_dir = ".", .rc = -EACCES, .says = "outside"},
    {TRUST_READ, "sub/up.chain", .chain_dir = "nodir", .rc = -ENOENT, .says = "--chain 'nodir'"},
    {TRUST_FACE, "sub/up.chain", .shape = "chain<raw"},
    {TRUST_FACE, "sub/out.chain", .shape = "chain<raw"},
    {TRUST_FACE, "link.chain", .shape = "chain<raw"},
    /* what is no file */
    {TRUST_READ, "fifo.chain", .rc = -EINVAL, .says = "neither a regular file nor a block device"},
    {TRUST_FACE, "fifo.chain", .rc = -EINVAL, .says = "neither a regular file nor a block device"},
    {TRUST_READ, "fifo", .rc = -EINVAL, .says = "fifo: it is neither"},
    {TRUST_READ, "devnull.chain", .rc = -EACCES, .says = "outside"},
    {TRUST_READ, "devnull.chain", .chain_dir = "/dev", .rc = -EINVAL, .says = "neither a regular"},
    {TRUST_FACE, "devnull.chain", .shape = "chain<raw(null)"},
    {TRUST_FACE, "devzero.chain", .rc = -EINVAL, .says = "neither a regular"},
    {TRUST_READ, "url.chain", .rc = -EACCES, .says = "may refer to files only, not to 'nbd://"},
    {TRUST_WRITE, "url.chain", .flags = W, .rc = -EACCES, .says = "may refer to files only"},
    {TRUST_FACE, "url.chain", .rc = -EINVAL, .says = "Unknown driver 'nbd'"},
    {TRUST_READ, "json.chain", .rc = -EACCES, .says = "may refer to files only"},
    {TRUST_FACE, "json.chain", .shape = "chain<null"},
    /* circles, and what is missing */
    {TRUST_READ, "self.chain", .rc = -ELOOP, .says = "'self.chain' is 'self.chain' again"},
    {TRUST_FACE, "self.chain", .rc = -ELOOP, .says = "circle"},
    {TRUST_WRITE, "self.chain", .flags = W, .rc = -ELOOP, .says = "circle"},
    {TRUST_READ, "ring1.chain", .rc = -ELOOP, .says = "'ring1.chain'"},
    {TRUST_READ, "nope", .rc = -ENOENT, .says = "nope: No such file or directory"},
    {TRUST_FACE, "nope", .rc = -ENOENT,
     .says = "Could not open 'nope': Could not open 'nope': No such file or directory"},
    {TRUST_READ, "top.chain", .rc = -ENOENT, .says = "nowhere.img: No such file or directory"},
    {TRUST_FACE, "top.chain", .rc = -ENOENT,
     .says = "Could not open 'top.chain': Could not open backing file: Could not open backing "
             "file: Could not open 'nowhere.img': No such file or directory"},
    {TRUST_READ, "badfmt.chain", .rc = -ENOTSUP,
     .says = "no driver \"rav\": the nearest is \"raw\""},
    {TRUST_FACE, "badfmt.chain", .rc = -EINVAL, .says = "Unknown driver 'rav'"},
    /* formats told */
    {TRUST_READ, "base.img", .format = "chian", .rc = -EINVAL,
     .says = "base.img: Unknown file format 'chian'"},
    {TRUST_READ, "base.img", .format = "chainn", .rc = -EINVAL, .says = "the nearest is 'chain'"},
    {TRUST_FACE, "base.img", .format = "foo", .rc = -EINVAL,
     .says = "Could not open 'base.img': Unknown driver 'foo'"},
    {TRUST_READ, "json:{\"driver\":\"chain\",\"file.filename\":\"lone.img\"}", .format = "raw",
     .rc = -EINVAL, .says = "told twice"},
    {TRUST_FACE, "json:{\"driver\":\"chain\",\"file.filename\":\"lone.img\"}", .format = "raw",
     .shape = "raw"},
    {TRUST_READ, "json:{\"driver\":\"null\"}", .format = "raw", .shape = "raw(null)"},
    /* trees */
    {TRUST_READ, "driver=chain,file.filename=lone.img,lazy=on", .shape = "chain"},
    {TRUST_READ, "driver=chain,file.filename=lone.img,lasy=on", .rc = -EINVAL,
     .says = "nearest is 'lazy'"},
    {TRUST_READ, "driver=chain,file.filename=lone.img,lasy.x=on", .rc = -EINVAL,
     .says = "has no option 'lasy'"},
    {TRUST_READ, "driver=chain", .rc = -EINVAL, .says = "needs \"file\""},
    {TRUST_READ, "driver=file,filename=base.img", .shape = "file"},
    {TRUST_READ, "driver=host_device,filename=base.img", .shape = "file"},
    {TRUST_FACE, "json:{\"filename\":\"lone.chain\"}", .shape = "chain"},
    {TRUST_FACE, "json:{\"file\":\"lone.chain\"}", .shape = "chain"},
    {TRUST_FACE, "json:{\"driver\":\"qcow9\"}", .rc = -EINVAL, .says = "Unknown driver 'qcow9'"},
    {TRUST_FACE, "json:{\"driver\":\"file\"}", .rc = -EINVAL,
     .says = "The 'file' block driver requires a file name"},
    {TRUST_READ, "driver=chain,file.filename=sub/out.chain,backing.file.filename=base.img",
     .shape = "chain<raw"},
    {TRUST_READ, "json:{\"file.filename\":\"sub/out.chain\",\"backing\":null}", .shape = "chain"},
    {TRUST_READ, "driver=raw,file.filename=base.img,read-only=on,node-name=x,cache.direct=off",
     .shape = "raw"},
    {TRUST_READ, "driver=raw,file.filename=base.img,cache.dierct=off", .rc = -EINVAL,
     .says = "cache.dierct"},
    {TRUST_FACE, "driver=raw", .rc = -ENOENT, .says = "'driver=raw': No such file"},
    /* // and sets */
    {TRUST_READ, "table.img//p2", .shape = "half(raw)"},
    {TRUST_WRITE, "table.img//p2", .flags = W, .shape = "half(raw)"},
    {TRUST_READ, "table.img//p9", .rc = -ENOENT, .says = "there is no p9 in it"},
    {TRUST_READ, "base.img//p1", .rc = -ENOTSUP,
     .says = "base.img: it holds no partitions, volumes"},
    {TRUST_READ, "table.img//p2//x", .rc = -ENOTSUP, .says = "it holds no partitions, volumes"},
    {TRUST_FACE, "table.img//p2", .rc = -ENOTDIR, .says = "Not a directory"},
    {TRUST_READ, "table.img//p2", .format = "chain", .rc = -EINVAL, .says = "not in chain format"},
    {TRUST_READ, "md:base.img,lone.img", .rc = -ENOTSUP,
     .says = "md:base.img,lone.img: this build has no driver \"md\""},
    {TRUST_READ, "lvm:base.img//vg0/root", .rc = -ENOTSUP, .says = "no driver \"lvm\""},
    {TRUST_READ, "thin:base.img,lone.img", .rc = -ENOTSUP, .says = "no driver \"thin\""},
    {TRUST_READ, "dir:sub//vg0/data", .rc = -ENOTSUP, .says = "no driver \"dir\""},
    {TRUST_READ, "nbd://localhost/x", .rc = -ENOTSUP, .says = "no driver \"nbd\""},
    {TRUST_READ, "https://h/x", .rc = -ENOTSUP, .says = "no driver \"https\""},
    {TRUST_READ, "rbd:p/i", .rc = -ENOTSUP, .says = "no driver \"rbd\""},
    {TRUST_FACE, "foo:bar", .rc = -EPROTONOSUPPORT,
     .says = "Could not open 'foo:bar': Unknown protocol 'foo'"},
    {TRUST_FACE, "./a:b", .shape = "raw"},
    {TRUST_READ, "a:b", .shape = "raw", .says = "a:b: taken as raw"},
};

START_TEST(trust_table)
{
    ck_assert_int_eq(runtime_run(rt, co_try, (void *)&cases[_i]), 0);
}
END_TEST

/* --- chains
 * ------------------------------------------------------------------------------------- */

static void make_chain(unsigned links)
{
    char name[40], text[80];
    for (unsigned i = 0; i <= links; i++) {
        snprintf(name, sizeof name, "c%u.chain", i);
        snprintf(text, sizeof text, i < links ? "CHAIN|c%u.chain|chain|" : "CHAIN||", i + 1);
        put(name, text, 512);
    }
}

static int co_long_chain(void *arg)
{
    struct resolver r = {.host = host, .drivers = drivers, .trust = TRUST_READ};
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    opened_count = 0;
    int rc = co_resolver_open(&r, "c1.chain", NULL, 0, &dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    unsigned depth = 0;
    for (struct blk_device *d = dev; d; d = blk_child(d, "backing"))
        depth++;
    ck_assert_uint_eq(depth, 1025);
    ck_assert_uint_eq(opened_count, 1025);
    ck_assert_int_eq(opened_order[0], '.'); /* the last is told first */
    ck_assert_int_eq(opened_order[1], 'b');
    co_blk_close(dev, NULL);
    ck_assert_int_eq(co_resolver_open(&r, "c0.chain", NULL, 0, &dev, &e), -ELOOP);
    ck_assert_ptr_nonnull(strstr(e.text, "longer than 1024"));
    return 0;
}

START_TEST(chains_of_1024)
{
    make_chain(1025);
    runtime_run(rt, co_long_chain, NULL);
}
END_TEST

static int co_deep_tree(void *arg)
{
    struct resolver r = {.host = host, .drivers = drivers, .trust = TRUST_READ};
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    char text[2000] = "json:";
    for (int i = 0; i < 60; i++)
        strcat(text, "{\"driver\":\"raw\",\"file\":");
    strcat(text, "{\"driver\":\"file\",\"filename\":\"base.img\"}");
    for (int i = 0; i < 60; i++)
        strcat(text, "}");
    int rc = co_resolver_open(&r, text, NULL, BLK_OPEN_WRITE, &dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    char buf[3];
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, 3), 0);
    ck_assert_int_eq(memcmp(buf, "raw", 3), 0);
    co_blk_close(dev, NULL);
    return 0;
}

START_TEST(trees_nest_without_a_deep_stack)
{
    runtime_run(rt, co_deep_tree, NULL);
}
END_TEST

/* Every allocation fails once, the whole open each time: an error or success, nothing else. */
static int co_no_memory(void *arg)
{
    static const char *const specs[] = {"chain2.chain", "table.img//p2", "md:base.img//p1,lone.img",
                                        "nbd+unix:///e?socket=s", "rbd:p/i:a=b"};
    unsigned failed = 0;
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        bool fired = true;
        for (uint64_t n = 1; fired; n++) {
            struct resolver r = {.host = host, .drivers = drivers, .trust = TRUST_READ};
            struct blk_device *dev = NULL;
            struct blk_error e = {0};
            struct alloc_fault *f = &worker_self()->alloc_fault;
            *f = (struct alloc_fault){.countdown = n};
            int rc = co_resolver_open(&r, specs[i], NULL, 0, &dev, &e);
            fired = f->seen >= n;
            *f = (struct alloc_fault){0};
            ck_assert_msg(rc == 0 || e.text[0], "%s, allocation %u: %d", specs[i], (unsigned)n, rc);
            ck_assert_msg((rc == 0) == (dev != NULL), "%s, allocation %u: %d %s", specs[i],
                          (unsigned)n, rc, e.text);
            failed += rc == -ENOMEM;
            if (dev)
                co_blk_close(dev, NULL);
        }
    }
    ck_assert_uint_ge(failed, 50);
    return 0;
}

START_TEST(survives_any_failed_allocation)
{
    runtime_run(rt, co_no_memory, NULL);
}
END_TEST

static int co_in_the_simulator(void *arg)
{
    struct open_case c = {TRUST_READ, "dir/top.chain", .shape = "chain<chain<raw"};
    struct host *real = host;
    host = worker_self()->host;
    int rc = co_try(&c);
    c = (struct open_case){TRUST_READ, "dir/out.chain", .rc = -EACCES, .says = "outside"};
    rc += co_try(&c);
    c = (struct open_case){TRUST_READ, "dir/self.chain", .rc = -ELOOP, .says = "circle"};
    rc += co_try(&c);
    host = real;
    return rc;
}

START_TEST(the_same_in_the_simulator)
{
    static const char *const files[][2] = {
        {"dir/top.chain", "CHAIN|mid.chain|chain|"},
        {"dir/mid.chain", "CHAIN|base.img|raw|"},
        {"dir/base.img", "raw"},
        {"dir/out.chain", "CHAIN|../x.img|raw|"},
        {"dir/self.chain", "CHAIN|self.chain||"},
    };
    struct sim_options o = {.seed = 7};
    struct host *sim;
    struct runtime *sim_rt;
    ck_assert_int_eq(host_sim_open(&o, &sim), 0);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        ck_assert_int_eq(host_sim_import(sim, files[i][0], files[i][1], strlen(files[i][1])), 0);
    struct runtime_options ro = {.host = sim, .workers = 1};
    ck_assert_int_eq(runtime_open(&ro, &sim_rt), 0);
    ck_assert_int_eq(runtime_run(sim_rt, co_in_the_simulator, NULL), 0);
    runtime_close(sim_rt);
    host_close(sim);
}
END_TEST

/* --- files, probes, guards, secrets
 * ------------------------------------------------------------------------------------- */

static int co_bottom(void *arg)
{
    struct resolver r = {.host = host, .drivers = drivers, .trust = TRUST_READ, .cache = "unsafe"};
    struct blk_device *dev = NULL;
    const struct blk_driver *d = NULL;
    const char *reason = NULL;
    struct blk_error e = {0};
    ck_assert_int_eq(co_resolver_open_file(&r, "lone.img", 0, 0, &dev, &e), 0);
    ck_assert_str_eq(dev->driver->name, "file");
    ck_assert_int_eq(co_resolver_probe(&r, dev, &d, &reason, &e), 0);
    ck_assert_str_eq(d->name, "chain");
    ck_assert_str_eq(reason, "it begins with CHAIN");
    co_blk_close(dev, NULL);
    unsigned create = HOST_CREATE | HOST_EXCLUSIVE;
    ck_assert_int_eq(co_resolver_open_file(&r, "fresh", BLK_OPEN_WRITE, create, &dev, &e), 0);
    ck_assert(dev->writable && dev->size == 0);
    ck_assert_int_eq(co_resolver_probe(&r, dev, &d, &reason, &e), 0);
    ck_assert_str_eq(d->name, "raw");
    co_blk_close(dev, NULL);
    ck_assert_int_eq(co_resolver_open_file(&r, "fresh", BLK_OPEN_WRITE, create, &dev, &e), -EEXIST);
    ck_assert_str_eq(e.text, "fresh: File exists");
    r.trust = TRUST_FACE;
    ck_assert_int_eq(co_resolver_open_file(&r, "no/x", BLK_OPEN_WRITE, create, &dev, &e), -ENOENT);
    ck_assert_str_eq(e.text, "Could not create 'no/x': No such file or directory");
    return 0;
}

START_TEST(bottom_files_and_probes)
{
    runtime_run(rt, co_bottom, NULL);
}
END_TEST

static int co_guard(void *arg)
{
    struct resolver r = {.host = host, .drivers = drivers, .trust = TRUST_FACE};
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    uint8_t sector[512] = "QFI\xfb";
    ck_assert_int_eq(co_resolver_open(&r, "base.img", NULL, BLK_OPEN_WRITE, &dev, &e), 0);
    bool known = false;
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        known |= strcmp((*d)->name, "qcow2") == 0;
    sector[7] = 3;
    ck_assert_int_eq(co_blk_write_buf(dev, 0, sector, 512, 0), known ? -EPERM : 0);
    ck_assert_int_eq(co_blk_write_buf(dev, 512, sector, 512, 0), 0);
    memset(sector, 'x', 512);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, sector, 512, 0), 0);
    co_blk_close(dev, NULL);
    return 0;
}

START_TEST(probed_raw_is_guarded)
{
    runtime_run(rt, co_guard, NULL);
}
END_TEST

static const struct {
    enum trust trust;
    const char *object;
    int rc;
    const char *says, *bytes;
} secrets[] = {
    {TRUST_READ, "secret,id=s,file=pass", 0, NULL, "hidden\n"},
    {TRUST_READ, "secret,id=s,file=pass64,format=base64", 0, NULL, "hidden\n"},
    {TRUST_FACE, "secret,id=s,data=abc", 0, NULL, "abc"},
    {TRUST_FACE, "secret,id=s,data=YWI=,format=base64", 0, NULL, "ab"},
    {TRUST_READ, "secret,id=s,data=abc", -EACCES, "use file=", NULL},
    {TRUST_READ, "secret,id=s,file=none", -ENOENT, "secret s: could not read 'none'", NULL},
    {TRUST_READ, "secret,id=s,file=fifo", -EINVAL, "could not read", NULL},
    {TRUST_READ, "secret,id=s", -EINVAL, "one of file= and data=", NULL},
    {TRUST_READ, "secret,file=pass", -EINVAL, "option id is missing", NULL},
    {TRUST_FACE, "secret,id=s,data=ab!=,format=base64", -EINVAL, "not base64", NULL},
    {TRUST_FACE, "secret,id=s,data=abcde,format=base64", -EINVAL, "not base64", NULL},
    {TRUST_FACE, "secret,id=s,data=a,keyid=b", -EINVAL, "unknown option 'keyid'", NULL},
    {TRUST_FACE, "throttle,id=s", -EINVAL, "'throttle' is not known", NULL},
};

/* A driver that asks for a secret and keeps it as its contents. */
static int co_secret_open(struct blk_device *dev, const struct opts *o, struct blk_opener *opener,
                          struct blk_error *e)
{
    uint8_t *bytes;
    size_t count;
    TRY(opener_secret(opener, "s", &bytes, &count, e));
    snprintf(said, sizeof said, "%.*s", (int)count, (char *)bytes);
    ck_assert_int_eq(bytes[count], 0);
    mem_free(bytes);
    return 0;
}

static const struct blk_driver secret_driver = {.name = "secretive", .co_open = co_secret_open};
static const struct blk_driver *const secret_drivers[] = {&secret_driver, NULL};

static int co_secret(void *arg)
{
    int i = *(int *)arg;
    struct resolver r = {.host = host, .drivers = secret_drivers, .trust = secrets[i].trust};
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    int rc = co_resolver_add_object(&r, secrets[i].object, &e);
    ck_assert_msg(rc == secrets[i].rc, "%s: %d %s", secrets[i].object, rc, e.text);
    if (rc < 0) {
        ck_assert_msg(strstr(e.text, secrets[i].says), "%s: %s", secrets[i].object, e.text);
        ck_assert_int_eq(co_resolver_open(&r, "json:{\"driver\":\"secretive\"}", NULL, 0, &dev, &e),
                         -ENOENT);
    } else {
        ck_assert_int_eq(co_resolver_add_object(&r, secrets[i].object, &e), -EEXIST);
        rc = co_resolver_open(&r, "json:{\"driver\":\"secretive\"}", NULL, 0, &dev, &e);
        ck_assert_msg(rc == 0, "%s", e.text);
        ck_assert_str_eq(said, secrets[i].bytes);
        co_blk_close(dev, NULL);
    }
    resolver_drop(&r);
    return 0;
}

START_TEST(secrets_by_id)
{
    put("pass", "hidden\n", 0);
    put("pass64", "aGlk\nZGVuCg==\n", 0);
    runtime_run(rt, co_secret, &_i);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("resolver");
    TCase *t = tcase_create("resolver");
    tcase_set_timeout(t, 60);
    tcase_add_unchecked_fixture(t, enter_folder, leave_folder);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, trust_table, 0, ARRAY_LEN(cases));
    tcase_add_test(t, chains_of_1024);
    tcase_add_test(t, trees_nest_without_a_deep_stack);
    tcase_add_test(t, survives_any_failed_allocation);
    tcase_add_test(t, the_same_in_the_simulator);
    tcase_add_test(t, bottom_files_and_probes);
    tcase_add_test(t, probed_raw_is_guarded);
    tcase_add_loop_test(t, secrets_by_id, 0, ARRAY_LEN(secrets));
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver_secret.c - --object secret: pass phrases and keys by id. They come from files (in the
 * faces also from data=, which other users of the machine can see), are read at once and wiped at
 * the end. */
#include <string.h>

#include "block/resolver_private.h"

#define SECRET_MAX (64 * KiB)

struct resolver_secret {
    struct resolver_secret *next;
    char *id;
    uint8_t *bytes; /* a zero byte follows */
    size_t count;
};

struct resolver_object {
    struct resolver_object *next;
    json_t *words; /* owned */
};

static const char *const formats[] = {"raw", "base64", NULL};

static const struct opt_desc secret_options[] = {
    {.name = "qom-type", .type = OPT_STRING, .help = "secret"},
    {.name = "id", .type = OPT_STRING, .help = "what options call it", .required = true},
    {.name = "file", .type = OPT_STRING, .help = "the file that holds it"},
    {.name = "data", .type = OPT_STRING, .help = "the secret itself"},
    {.name = "format",
     .type = OPT_ENUM,
     .help = "how it is written",
     .preset = "raw",
     .choices = formats},
    {0},
};

static void secret_free(struct resolver_secret *s)
{
    if (s->bytes)
        explicit_bzero(s->bytes, s->count);
    mem_free(s->bytes);
    mem_free(s->id);
    mem_free(s);
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* In place: the result is shorter. -EINVAL. */
static int base64_decode(uint8_t *text, size_t *count)
{
    size_t from = 0, to = 0, digits = 0;
    uint32_t bits = 0;
    for (; from < *count && text[from] != '='; from++) {
        int digit = base64_digit((char)text[from]);
        if (digit < 0 && !strchr(" \r\n\t", text[from]))
            return -EINVAL;
        if (digit < 0)
            continue;
        bits = bits << 6 | (uint32_t)digit;
        if (++digits % 4 != 1)
            text[to++] = (uint8_t)(bits >> (6 - 2 * ((digits - 1) % 4)));
    }
    for (; from < *count; from++)
        if (!strchr("=\r\n", text[from]))
            return -EINVAL;
    *count = to;
    return digits % 4 == 1 ? -EINVAL : 0;
}

static int co_read_secret(struct resolver *r, const char *path, struct resolver_secret *s,
                          struct blk_error *e)
{
    struct host_file *f;
    int rc = co_host_open(r->host, path, NULL, HOST_READ | HOST_REGULAR_OR_BLOCK, &f);
    if (rc < 0)
        return err_errno(e, rc, "secret %s: could not read '%.200s'", s->id, path);
    s->bytes = mem_zalloc(SECRET_MAX + 1);
    struct vec to = VEC_BUF(s->bytes, SECRET_MAX + 1);
    int64_t got = s->bytes ? co_host_read(f, 0, &to) : -ENOMEM;
    co_host_close(f);
    s->count = got > 0 ? (size_t)got : 0;
    if (got < 0)
        return err_errno(e, (int)got, "secret %s: could not read '%.200s'", s->id, path);
    if (s->count > SECRET_MAX)
        return err_set(e, -E2BIG, "secret %s: longer than %llu bytes", s->id, SECRET_MAX);
    return 0;
}

/* What the program read from a descriptor, in base64; no copy of it stays. */
static int take_told(char *told, struct resolver_secret *s, struct blk_error *e)
{
    s->count = strlen(told);
    s->bytes = (uint8_t *)mem_strdup(told);
    explicit_bzero(told, s->count);
    if (!s->bytes)
        return err_set(e, -ENOMEM, "no memory for a secret");
    return base64_decode(s->bytes, &s->count);
}

static int co_fill_secret(struct resolver *r, const struct opts *o, struct resolver_secret *s,
                          struct blk_error *e)
{
    const char *file = opts_text(o, "file"), *data = opts_text(o, "data");
    char *told = (char *)json_string_value(json_object_get(o->tree, "x-lamina-bytes"));
    s->id = mem_strdup(opts_text(o, "id"));
    if (!s->id)
        return err_set(e, -ENOMEM, "no memory for a secret");
    if (told) {
        TRY(take_told(told, s, e));
        file = NULL;
    } else if (!file == !data) {
        return err_set(e, -EINVAL, "secret %.60s: expected one of file= and data=", s->id);
    }
    if (data && !trust_rule(r)->face)
        return err_set(
            e, -EACCES,
            "secret %.60s: data= shows it to every user of this machine; use file=", s->id);
    if (file) {
        TRY(co_read_secret(r, file, s, e));
    } else if (!told) {
        s->count = strlen(data);
        s->bytes = (uint8_t *)mem_strdup(data);
        if (!s->bytes)
            return err_set(e, -ENOMEM, "no memory for a secret");
    }
    size_t coded = s->count;
    if (opts_number(o, "format") == 1) {
        int rc = base64_decode(s->bytes, &s->count);
        explicit_bzero(s->bytes + s->count, coded - s->count);
        if (rc < 0)
            return err_set(e, rc, "secret %.60s: not base64", s->id);
    }
    return 0;
}

static struct resolver_secret *find_secret(const struct resolver *r, const char *id)
{
    struct resolver_secret *s = r->secrets;
    while (s && strcmp(s->id, id) != 0)
        s = s->next;
    return s;
}

static int co_add_secret(struct resolver *r, const struct opts *o, struct blk_error *e)
{
    if (find_secret(r, opts_text(o, "id")))
        return err_set(e, -EEXIST, "secret %.60s is given twice", opts_text(o, "id"));
    struct resolver_secret *s = mem_zalloc(sizeof *s);
    int rc = s ? co_fill_secret(r, o, s, e) : err_set(e, -ENOMEM, "no memory for a secret");
    if (rc < 0) {
        if (s)
            secret_free(s);
        return rc;
    }
    s->next = r->secrets;
    r->secrets = s;
    return 0;
}

static const char *const endpoints[] = {"client", "server", NULL};

/* QEMU's words for what TLS is done with; who uses it reads the files. */
static const struct opt_desc tls_options[] = {
    {.name = "qom-type", .type = OPT_STRING, .help = "tls-creds-x509, tls-creds-psk"},
    {.name = "id", .type = OPT_STRING, .help = "what options call it", .required = true},
    {.name = "dir", .type = OPT_STRING, .help = "the folder of its files", .required = true},
    {.name = "endpoint", .type = OPT_ENUM, .help = "which side", .choices = endpoints},
    {.name = "verify-peer", .type = OPT_BOOL, .help = "check the other side's certificate"},
    {.name = "username", .type = OPT_STRING, .help = "which of the keys"},
    {.name = "priority", .type = OPT_STRING, .help = "what GnuTLS may agree on; not heeded"},
    {0},
};

static int add_words(struct resolver *r, const struct opts *o, json_t *tree, struct blk_error *e)
{
    struct resolver_object *n = mem_zalloc(sizeof *n);
    if (!n)
        return err_set(e, -ENOMEM, "no memory for an object");
    n->words = json_incref(tree);
    n->next = r->objects;
    r->objects = n;
    return 0;
}

const json_t *opener_object(const struct blk_opener *o, const char *id)
{
    struct resolver_object *n = o ? o->run->r->objects : NULL;
    for (; n; n = n->next) {
        const char *own = json_string_value(json_object_get(n->words, "id"));
        if (own && strcmp(own, id) == 0)
            return n->words;
    }
    return NULL;
}

static const struct object_type {
    const char *name;
    const struct opt_desc *options;
} types[] = {
    {"secret", secret_options},
    {"tls-creds-x509", tls_options},
    {"tls-creds-psk", tls_options},
};

static const struct object_type *find_type(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_LEN(types); i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

int co_resolver_add_object(struct resolver *r, const char *text, struct blk_error *e)
{
    json_auto_t *tree = json_object();
    if (!tree)
        return err_set(e, -ENOMEM, "no memory for an object");
    TRY(opts_text_to_tree(text, "qom-type", tree, e));
    const char *name = json_string_value(json_object_get(tree, "qom-type"));
    const struct object_type *type = find_type(name);
    if (!type)
        return err_set(
            e, -EINVAL,
            "object type '%.40s' is not known: secret, tls-creds-x509, tls-creds-psk are",
            name ? name : "");
    auto_free struct opts *o = mem_zalloc(sizeof *o);
    if (!o)
        return err_set(e, -ENOMEM, "no memory for an object");
    TRY(opts_parse(type->options, tree, o, e));
    int rc = type == types ? co_add_secret(r, o, e) : add_words(r, o, tree, e);
    opts_drop(o);
    return rc;
}

void resolver_drop(struct resolver *r)
{
    while (r->secrets) {
        struct resolver_secret *s = r->secrets;
        r->secrets = s->next;
        secret_free(s);
    }
    while (r->objects) {
        struct resolver_object *n = r->objects;
        r->objects = n->next;
        json_decref(n->words);
        mem_free(n);
    }
}

static int copy_secret(const struct resolver_secret *s, uint8_t **out, size_t *bytes,
                       struct blk_error *e)
{
    uint8_t *copy = mem_alloc(s->count + 1);
    if (!copy)
        return err_set(e, -ENOMEM, "no memory for a secret");
    memcpy(copy, s->bytes, s->count);
    copy[s->count] = 0;
    *out = copy;
    *bytes = s->count;
    return 0;
}

/* @id NULL: the only one. */
static int give_secret(const struct resolver *r, const char *id, uint8_t **out, size_t *bytes,
                       struct blk_error *e)
{
    bool face = r && trust_rule(r)->face;
    const struct resolver_secret *s = r && !id && !face ? r->secrets : NULL;
    if (id)
        s = r ? find_secret(r, id) : NULL;
    if (id && !s)
        return err_set(e, -ENOENT, "No secret with id '%.60s'", id);
    if (face && !s)
        return err_set(e, -ENOKEY, "Parameter 'key-secret' is required for cipher");
    if (!s)
        return err_set(
            e, -ENOKEY,
            "the image is encrypted: give its key with --object secret,id=KEY,file=FILE");
    if (!id && s->next)
        return err_set(e, -ENOKEY, "several secrets are given: say which one with key-secret=ID");
    return copy_secret(s, out, bytes, e);
}

int opener_secret(struct blk_opener *o, const char *id, uint8_t **out, size_t *bytes,
                  struct blk_error *e)
{
    const struct resolver *r = o ? o->run->r : NULL;
    if (!id && o && !o->node.link->parent)
        id = r->key_secret;
    return give_secret(r, id, out, bytes, e);
}

int opts_secret(const struct opts *o, const char *id, uint8_t **out, size_t *bytes,
                struct blk_error *e)
{
    return give_secret(o->secrets, id, out, bytes, e);
}

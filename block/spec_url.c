/* SPDX-License-Identifier: BSD-3-Clause */
/* spec_url.c - URLs and QEMU's older protocol texts, to trees with QEMU's keys.
 *
 *   nbd://HOST[:PORT][/EXPORT]  nbds://...              {"driver": "nbd", "server": {...}, ...}
 *   nbd+unix:///EXPORT?socket=PATH  nbds+unix:///...
 *   nbd:HOST:PORT[:exportname=E]  nbd:unix:PATH[:exportname=E]
 *   http://...  https://...                            {"driver": "https", "url": ...}
 *   rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:KEY=VALUE]...  a character behind \ stands for itself */
#include <ctype.h>

#include "block/spec.h"

/* Adds a text; a failure is noted once in *rc, so a row of them needs one check. */
static void set(json_t *tree, const char *key, const char *value, int *rc)
{
    if (json_object_set_new_nocheck(tree, key, json_string_nocheck(value)) < 0)
        *rc = -ENOMEM;
}

static int hex_digit(char c)
{
    if (isdigit((unsigned char)c))
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place; -EINVAL for a bad %xx or a zero byte. */
static int percent_decode(char *text, struct blk_error *e)
{
    char *to = text;
    for (; *text; text++) {
        if (*text != '%') {
            *to++ = *text;
            continue;
        }
        int high = hex_digit(text[1]), low = high < 0 ? -1 : hex_digit(text[2]);
        if (low < 0 || (high | low) == 0)
            return err_set(e, -EINVAL, "the URL has a bad %% sequence");
        *to++ = (char)(high << 4 | low);
        text += 2;
    }
    *to = 0;
    return 0;
}

/* --- nbd
 * ------------------------------------------------------------------------------------- */

static int inet_server(json_t *server, const char *host, const char *port, struct blk_error *e)
{
    int rc = 0;
    if (!*host)
        return err_set(e, -EINVAL, "the URL names no host");
    if (strspn(port, "0123456789") != strlen(port) || !*port || strlen(port) > 5 ||
        atoi(port) > 65535)
        return err_set(e, -EINVAL, "'%.20s' is not a port", port);
    set(server, "type", "inet", &rc);
    set(server, "host", host, &rc);
    set(server, "port", port, &rc);
    return rc;
}

/* HOST, HOST:PORT or [V6]:PORT; cuts @text. */
static int host_and_port(char *text, json_t *server, struct blk_error *e)
{
    char *host = text, *rest = text;
    if (*text == '[') {
        host = text + 1;
        rest = strchr(host, ']');
        if (!rest)
            return err_set(e, -EINVAL, "the URL's host lacks a ]");
        *rest++ = 0;
    }
    char *colon = rest + strcspn(rest, ":");
    bool has_port = *colon == ':';
    if (colon != rest && host != text)
        return err_set(e, -EINVAL, "the URL's host has text behind ]");
    *colon = 0;
    return inet_server(server, host, has_port ? colon + 1 : "10809", e);
}

static int unix_server(json_t *server, const char *path, struct blk_error *e)
{
    int rc = 0;
    if (!*path)
        return err_set(e, -EINVAL, "the socket's path is missing: nbd+unix:///NAME?socket=PATH");
    set(server, "type", "unix", &rc);
    set(server, "path", path, &rc);
    return rc;
}

/* CID or CID:PORT; cuts @text. */
static int vsock_server(char *text, json_t *server, struct blk_error *e)
{
    int rc = 0;
    char *colon = text + strcspn(text, ":");
    const char *port = *colon ? colon + 1 : "10809";
    *colon = 0;
    if (!*text || text[strspn(text, "0123456789")] || !*port || port[strspn(port, "0123456789")])
        return err_set(e, -EINVAL, "nbd+vsock:// takes numbers: nbd+vsock://CID:PORT/NAME");
    set(server, "type", "vsock", &rc);
    set(server, "cid", text, &rc);
    set(server, "port", port, &rc);
    return rc;
}

static bool is_nbd_key(const char *key)
{
    static const char *const known[] = {"socket", "connections", "reconnect-delay", "open-timeout"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    return strncmp(key, "tls-", 4) == 0;
}

/* `socket=PATH&tls-...=...`; keys other than socket go into @tree as they are. Cuts @text. */
static int nbd_query(char *text, json_t *tree, const char **path, struct blk_error *e)
{
    int rc = 0;
    for (char *next; text && *text; text = next) {
        next = strchr(text, '&');
        if (next)
            *next++ = 0;
        char *value = strchr(text, '=');
        if (value)
            *value++ = 0;
        if (!value || !is_nbd_key(text))
            return err_set(e, -EINVAL, "the URL has an unknown parameter '%.40s'", text);
        TRY(percent_decode(value, e));
        if (strcmp(text, "socket") == 0)
            *path = value;
        else
            set(tree, text, value, &rc);
    }
    return rc;
}

enum nbd_way { NBD_TCP, NBD_UNIX, NBD_VSOCK };

/* @rest: what stands behind the scheme's "//". Cut. */
static int nbd_url(char *rest, enum nbd_way way, json_t *tree, json_t *server, struct blk_error *e)
{
    bool is_unix = way == NBD_UNIX;
    int rc = 0;
    const char *path = NULL;
    char *query = rest + strcspn(rest, "?");
    if (*query)
        *query++ = 0;
    TRY(nbd_query(query, tree, &path, e));
    char *export = strchr(rest, '/');
    if (export)
        *export ++ = 0;
    if (export && *export) {
        TRY(percent_decode(export, e));
        set(tree, "export", export, &rc);
    }
    TRY(percent_decode(rest, e));
    if (!is_unix && path)
        return err_set(e, -EINVAL, "socket= belongs to nbd+unix://");
    if (is_unix && *rest)
        return err_set(e, -EINVAL, "nbd+unix:// takes no host: nbd+unix:///NAME?socket=PATH");
    if (way == NBD_VSOCK)
        TRY(vsock_server(rest, server, e));
    else
        TRY(is_unix ? unix_server(server, path ? path : "", e) : host_and_port(rest, server, e));
    return rc;
}

/* QEMU's older `nbd:...`. Cuts @rest. */
static int nbd_text(char *rest, json_t *tree, json_t *server, struct blk_error *e)
{
    int rc = 0;
    char *export = strstr(rest, ":exportname=");
    if (export) {
        *export = 0;
        export += strlen(":exportname=");
        if (*export)
            set(tree, "export", export, &rc);
    }
    if (strncmp(rest, "unix:", 5) == 0)
        TRY(unix_server(server, rest + 5, e));
    else if (!strchr(rest, ':'))
        return err_set(e, -EINVAL, "expected nbd:HOST:PORT or nbd:unix:PATH");
    else
        TRY(host_and_port(rest, server, e));
    return rc;
}

struct nbd_scheme {
    const char *prefix;
    enum nbd_way way;
    bool tls, is_url;
};

static const struct nbd_scheme nbd_schemes[] = {
    {"nbd://", NBD_TCP, false, true},         {"nbds://", NBD_TCP, true, true},
    {"nbd+unix://", NBD_UNIX, false, true},   {"nbds+unix://", NBD_UNIX, true, true},
    {"nbd+tcp://", NBD_TCP, false, true},     {"nbds+tcp://", NBD_TCP, true, true},
    {"nbd+vsock://", NBD_VSOCK, false, true}, {"nbds+vsock://", NBD_VSOCK, true, true},
    {"nbd:", NBD_TCP, false, false},
};

static int parse_nbd(const char *text, const struct nbd_scheme *s, json_t *tree,
                     struct blk_error *e)
{
    int rc = 0;
    auto_free char *rest = mem_strdup(text + strlen(s->prefix));
    json_t *server = json_object();
    if (json_object_set_new(tree, "server", server) < 0 || !rest)
        return err_set(e, -ENOMEM, "no memory for a spec");
    set(tree, "driver", "nbd", &rc);
    if (s->tls && json_object_set_new(tree, "tls", json_true()) < 0)
        rc = -ENOMEM;
    TRY(s->is_url ? nbd_url(rest, s->way, tree, server, e) : nbd_text(rest, tree, server, e));
    return rc;
}

/* --- rbd
 * ------------------------------------------------------------------------------------- */

/* Copies up to an unescaped one of @stops, backslashes resolved; *text moves behind that, *stop is
 * what stopped. */
static void rbd_part(const char **text, const char *stops, char *to, char *stop)
{
    while (**text && !strchr(stops, **text)) {
        if (**text == '\\' && (*text)[1])
            ++*text;
        *to++ = *(*text)++;
    }
    *to = 0;
    *stop = **text;
    if (**text)
        ++*text;
}

/* `conf` and `id` are rbd's own; all other keys are settings of the cluster's client. */
static int rbd_options(const char *text, char *word, json_t *tree, struct blk_error *e)
{
    int rc = 0;
    char stop;
    json_t *settings = json_object();
    if (json_object_set_new(tree, "settings", settings) < 0)
        return err_set(e, -ENOMEM, "no memory for a spec");
    while (*text) {
        rbd_part(&text, ":", word, &stop);
        char *value = strchr(word, '=');
        if (!value || value == word || strncmp(word, "x-lamina-", 9) == 0)
            return err_set(e, -EINVAL, "rbd: expected KEY=VALUE behind a colon");
        *value = 0;
        bool own = strcmp(word, "id") == 0 || strcmp(word, "conf") == 0;
        const char *key = strcmp(word, "id") == 0 ? "user" : word;
        set(own ? tree : settings, key, value + 1, &rc);
    }
    if (json_object_size(settings) == 0)
        json_object_del(tree, "settings");
    return rc;
}

static int parse_rbd(const char *text, json_t *tree, struct blk_error *e)
{
    int rc = 0;
    char stop;
    auto_free char *word = mem_alloc(strlen(text) + 1);
    if (!word)
        return err_set(e, -ENOMEM, "no memory for a spec");
    set(tree, "driver", "rbd", &rc);
    rbd_part(&text, "/", word, &stop);
    if (stop != '/' || !*word)
        return err_set(e, -EINVAL, "expected rbd:POOL/IMAGE");
    set(tree, "pool", word, &rc);
    rbd_part(&text, "/@:", word, &stop);
    if (stop == '/') {
        set(tree, "namespace", word, &rc);
        rbd_part(&text, "@:", word, &stop);
    }
    if (!*word)
        return err_set(e, -EINVAL, "expected rbd:POOL/IMAGE");
    set(tree, "image", word, &rc);
    if (stop == '@') {
        rbd_part(&text, ":", word, &stop);
        set(tree, "snapshot", word, &rc);
    }
    if (stop == ':')
        TRY(rbd_options(text, word, tree, e));
    return rc;
}

/* --- all
 * ------------------------------------------------------------------------------------- */

static int parse_http(const char *text, const char *driver, json_t *tree)
{
    int rc = 0;
    set(tree, "driver", driver, &rc);
    set(tree, "url", text, &rc);
    return rc;
}

static bool parse_url(const char *text, json_t *tree, int *rc, struct blk_error *e)
{
    for (size_t i = 0; i < ARRAY_LEN(nbd_schemes); i++)
        if (strncmp(text, nbd_schemes[i].prefix, strlen(nbd_schemes[i].prefix)) == 0) {
            *rc = parse_nbd(text, &nbd_schemes[i], tree, e);
            return true;
        }
    if (strncmp(text, "rbd:", 4) == 0)
        *rc = parse_rbd(text + 4, tree, e);
    else if (strncmp(text, "https://", 8) == 0)
        *rc = parse_http(text, "https", tree);
    else if (strncmp(text, "http://", 7) == 0)
        *rc = parse_http(text, "http", tree);
    else
        return false;
    return true;
}

bool spec_url(const char *text, json_t **out, int *rc, struct blk_error *e)
{
    json_t *tree = json_object();
    *out = NULL;
    *rc = 0;
    if (!tree) {
        *rc = err_set(e, -ENOMEM, "no memory for a spec");
        return true;
    }
    bool is_url = parse_url(text, tree, rc, e);
    if (*rc == -ENOMEM)
        err_set(e, -ENOMEM, "no memory for a spec");
    if (is_url && *rc == 0)
        *out = tree;
    else
        json_decref(tree);
    return is_url;
}

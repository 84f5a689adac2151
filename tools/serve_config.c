/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_config.c - a server described in a file:
 *
 *   [server]            keys are the long options of `lamina serve`
 *   socket = /run/lamina.sock
 *   [export NAME]       one image
 *   image = vm1.qcow2
 *   [folder PREFIX]     every image in a folder
 *   folder = /srv/images
 *   [clones NAME]       each NAME/... is a copy-on-write clone of one image
 *   image = golden.qcow2
 */
#include <fcntl.h>
#include <unistd.h>

#include "tools/serve.h"

static int read_file(const char *path, uint8_t **out, size_t *bytes, struct blk_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t room = INI_MAX_BYTES + 1;
    uint8_t *buf = mem_alloc(room);
    ssize_t n = 1;

    *bytes = 0;
    if (fd < 0 || !buf) {
        int rc = fd < 0 ? -errno : -ENOMEM;

        mem_free(buf);
        if (fd >= 0)
            close(fd);
        return err_errno(e, rc, "%s", path);
    }
    while (n > 0 && *bytes < room) {
        n = read(fd, buf + *bytes, room - *bytes);
        *bytes += n > 0 ? (size_t)n : 0;
    }
    n = n < 0 ? -errno : 0;
    close(fd);
    if (n < 0) {
        mem_free(buf);
        return err_errno(e, (int)n, "%s", path);
    }
    *out = buf;
    return 0;
}

struct reading {
    struct serve_plan *plan;
    struct serve_offer *offer; /* of this section; NULL: it is [server] */
    unsigned servers;
    int (*set)(void *arg, const char *key, const char *value, struct blk_error *e);
    void *arg;
    struct blk_error *e;
};

static int begin(struct reading *r, const struct ini_entry *s)
{
    static const struct {
        const char *word;
        enum serve_kind kind;
    } kinds[] = {{"export", SERVE_EXPORT}, {"folder", SERVE_FOLDER}, {"clones", SERVE_CLONES}};

    r->offer = NULL;
    if (strcmp(s->kind, "server") == 0)
        return *s->name || r->servers++ ? err_set(r->e, -EINVAL, "there is one section [server]")
                                        : 0;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(s->kind, kinds[i].word) == 0) {
            r->offer = serve_offer_add(r->plan, kinds[i].kind);
            if (!r->offer)
                return err_set(r->e, -ENOMEM, "out of memory");
            r->offer->name = s->name;
            return 0;
        }
    return err_set(r->e, -EINVAL, "[%.60s] is no section: server, export, folder, clones", s->kind);
}

static int take_entry(struct reading *r, const struct ini_entry *s)
{
    if (!s->key)
        return begin(r, s);
    if (r->offer)
        return serve_offer_set(r->offer, s->key, s->value, r->e);
    return r->set(r->arg, s->key, s->value, r->e);
}

int serve_config_read(struct serve_config *c, const char *path, struct serve_plan *plan,
                      int (*set)(void *arg, const char *key, const char *value,
                                 struct blk_error *e),
                      void *arg, struct blk_error *e)
{
    struct reading r = {.plan = plan, .set = set, .arg = arg, .e = e};
    auto_free uint8_t *bytes = NULL;
    size_t count;
    int rc;

    TRY(read_file(path, &bytes, &count, e));
    rc = ini_parse(bytes, count, &c->ini, e);
    if (rc < 0)
        return err_prefix(e, "%s", path);
    for (size_t i = 0; i < c->ini.count; i++)
        if (take_entry(&r, &c->ini.entries[i]) < 0)
            return err_prefix(e, "%s: line %u", path, c->ini.entries[i].line);
    return 0;
}

void serve_config_drop(struct serve_config *c)
{
    ini_drop(&c->ini);
}

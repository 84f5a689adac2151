/* SPDX-License-Identifier: BSD-3-Clause */
/* secret.c - --object secret,id=X,fd=N: a pass phrase from a descriptor that the caller left open
 * (a pipe, a file that has no name). It is read once, before the run: each resolver of the run asks
 * for it again. */
#include <nettle/base64.h>
#include <unistd.h>

#include "tools/tool.h"

#define SECRET_MAX (64 * KiB)

static int read_all(int fd, uint8_t *to, size_t room, size_t *count)
{
    for (*count = 0; *count < room;) {
        ssize_t n = read(fd, to + *count, room - *count);
        if (n == 0)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        *count += (size_t)n;
    }
    return -E2BIG;
}

/* "secret,id=A,,B,format=raw,x-lamina-bytes=BASE64" */
static char *told_text(const char *id, const char *format, const uint8_t *bytes, size_t count)
{
    size_t coded = BASE64_ENCODE_RAW_LENGTH(count), at = 0;
    size_t room = 2 * strlen(id) + strlen(format) + coded + 60;
    char *text = mem_zalloc(room);
    if (!text)
        return NULL;
    at += (size_t)snprintf(text, room, "secret,id=");
    for (; *id; id++) {
        if (*id == ',')
            text[at++] = ',';
        text[at++] = *id;
    }
    at += (size_t)snprintf(text + at, room - at, ",format=%s,x-lamina-bytes=", format);
    base64_encode_raw(text + at, count, bytes);
    return text;
}

static int take_descriptor(const json_t *tree, int fd, char **out, struct blk_error *e)
{
    const char *id = json_string_value(json_object_get(tree, "id"));
    const char *format = json_string_value(json_object_get(tree, "format"));
    size_t count = 0;
    if (!id || json_object_get(tree, "file") || json_object_get(tree, "data"))
        return err_set(e, -EINVAL, "a secret is id=NAME and one of file= and fd=");
    uint8_t *bytes = mem_zalloc(SECRET_MAX + 1);
    if (!bytes)
        return err_set(e, -ENOMEM, "no memory for a secret");
    int rc = read_all(fd, bytes, SECRET_MAX + 1, &count);
    if (rc == 0)
        *out = told_text(id, format ? format : "raw", bytes, count);
    explicit_bzero(bytes, SECRET_MAX + 1);
    mem_free(bytes);
    if (rc < 0)
        return err_errno(e, rc, "secret %.60s: could not read descriptor %d", id, fd);
    return *out ? 0 : err_set(e, -ENOMEM, "no memory for a secret");
}

int tool_secret(const struct tool *t, const char *text, char **out, struct blk_error *e)
{
    json_auto_t *tree = json_object();
    int fd = 0;
    char rest;
    *out = NULL;
    if (!tree)
        return err_set(e, -ENOMEM, "no memory for an object");
    TRY(opts_text_to_tree(text, "qom-type", tree, e));
    if (json_object_get(tree, "x-lamina-bytes"))
        return err_set(e, -EINVAL, "unknown option 'x-lamina-bytes'");
    const char *told = json_string_value(json_object_get(tree, "fd"));
    if (!told || t->face != FACE_LAMINA)
        return 0;
    if (sscanf(told, "%d%c", &fd, &rest) != 1 || fd < 0)
        return err_set(e, -EINVAL, "fd=%.20s is no descriptor", told);
    return take_descriptor(tree, fd, out, e);
}

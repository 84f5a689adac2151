/* SPDX-License-Identifier: BSD-3-Clause */
/* ova_manifest.c - the manifest of an appliance: a line per file with its SHA-1, SHA-256 or
 * SHA-512, by nettle. */
#include <stdio.h>
#ifdef HAVE_NETTLE
#include <nettle/nettle-meta.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#endif

#include "imgfmt/ova.h"

#define MANIFEST_MAX (2 * MiB)
#define STEP         (1 * MiB)

static const struct {
    const char *name;
    unsigned bytes;
} kinds[] = {{"SHA1", 20}, {"SHA256", 32}, {"SHA512", 64}};

/* --- a line ----------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int ova_digest_parse(const char *line, size_t bytes, struct ova_digest *out)
{
    const char *end = line + bytes, *open = memchr(line, '(', bytes), *close = NULL;
    for (const char *at = open; at && at < end; at++) /* a name may hold ) as well */
        if (*at == ')')
            close = at;
    if (!close || (size_t)(close - open - 1) > TAR_NAME_MAX || close == open + 1)
        return -EINVAL;
    size_t word = (size_t)(open - line);
    while (word && line[word - 1] == ' ')
        word--;
    for (out->kind = 0; out->kind < ARRAY_LEN(kinds); out->kind++)
        if (strlen(kinds[out->kind].name) == word && memcmp(line, kinds[out->kind].name, word) == 0)
            break;
    if (out->kind == ARRAY_LEN(kinds))
        return -EINVAL;
    memcpy(out->name, open + 1, (size_t)(close - open - 1));
    out->name[close - open - 1] = 0;
    const char *at = close + 1;
    while (at < end && (*at == ' ' || *at == '='))
        at++;
    if ((size_t)(end - at) != 2 * kinds[out->kind].bytes)
        return -EINVAL;
    for (unsigned i = 0; i < kinds[out->kind].bytes; i++) {
        int high = hex_value(at[2 * i]), low = hex_value(at[2 * i + 1]);
        if (high < 0 || low < 0)
            return -EINVAL;
        out->digest[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

/* --- files ------------------------------------------------------------------------------------ */

#ifdef HAVE_NETTLE
static const struct nettle_hash *hash_of(unsigned kind)
{
    return kind == 0 ? &nettle_sha1 : kind == 1 ? &nettle_sha256 : &nettle_sha512;
}

struct hash_job {
    const struct nettle_hash *hash;
    void *state;
    const uint8_t *piece;
    size_t bytes;
};

static int run_hash(void *arg)
{
    struct hash_job *j = arg;
    j->hash->update(j->state, j->bytes, j->piece);
    return 0;
}

static int co_hash(struct blk_device *dev, const struct tar_file *f, unsigned kind, uint8_t *digest)
{
    union {
        struct sha1_ctx sha1;
        struct sha256_ctx sha256;
        struct sha512_ctx sha512;
    } state;
    struct hash_job j = {.hash = hash_of(kind), .state = &state};
    uint8_t *buf = buf_get(STEP);
    int rc = buf ? 0 : -ENOMEM;
    j.hash->init(&state);
    for (uint64_t at = 0; rc == 0 && at < f->bytes; at += j.bytes) {
        j.piece = buf;
        j.bytes = MIN(STEP, f->bytes - at);
        rc = co_blk_read_buf(dev, f->offset + at, buf, j.bytes);
        if (rc == 0)
            rc = co_offload(run_hash, &j);
    }
    j.hash->digest(&state, j.hash->digest_size, digest);
    buf_put(buf, STEP);
    return rc;
}
#else
static int co_hash(struct blk_device *dev, const struct tar_file *f, unsigned kind, uint8_t *digest)
{
    return -ENOTSUP;
}
#endif

/* --- all -------------------------------------------------------------------------------------- */

struct verify {
    struct blk_device *dev;
    const struct tar *tar;
    void (*say)(void *arg, const char *sentence);
    void *arg;
    uint64_t faults;
    bool *listed; /* by the number of the file */
    struct ova_digest line;
};

static void fault(struct verify *v, const char *name, const char *what)
{
    char text[TAR_NAME_MAX + 100];
    snprintf(text, sizeof(text), "'%s' %s", name, what);
    v->faults++;
    if (v->say)
        v->say(v->arg, text);
}

static int co_verify_line(struct verify *v)
{
    const struct ova_digest *d = &v->line;
    const struct tar_file *f = tar_find(v->tar, d->name);
    uint8_t digest[64];
    char text[60];
    if (!f) {
        fault(v, d->name, "is in the manifest and not in the tar");
        return 0;
    }
    if (v->listed[f - v->tar->files]) {
        fault(v, d->name, "is in the manifest twice");
        return 0;
    }
    v->listed[f - v->tar->files] = true;
    TRY(co_hash(v->dev, f, d->kind, digest));
    snprintf(text, sizeof(text), "has another %s than its manifest says", kinds[d->kind].name);
    if (memcmp(digest, d->digest, kinds[d->kind].bytes) != 0)
        fault(v, f->name, text);
    return 0;
}

static int co_verify_lines(struct verify *v, const char *text, size_t bytes, struct blk_error *e)
{
    for (size_t at = 0, n; at < bytes; at += n + 1) {
        const char *line = text + at, *end = memchr(line, '\n', bytes - at);
        n = end ? (size_t)(end - line) : bytes - at;
        size_t length = n;
        while (length && strchr("\r \t", line[length - 1]))
            length--;
        if (length == 0)
            continue;
        if (ova_digest_parse(line, length, &v->line) < 0) {
            fault(v, "the manifest", "has a line that cannot be understood");
            continue;
        }
        int rc = co_verify_line(v);
        if (rc == -ENOTSUP)
            return err_set(e, rc, "this build cannot verify a manifest: it has no nettle");
        if (rc < 0)
            return err_errno(e, rc, "'%.200s' cannot be read", v->line.name);
    }
    return 0;
}

/* The manifest does not list itself, nor its signature. */
static bool needs_line(const struct tar_file *f, const struct tar_file *manifest)
{
    size_t n = strlen(f->name);
    return f != manifest && !(n > 5 && strcmp(f->name + n - 5, ".cert") == 0);
}

int co_ova_verify(struct blk_device *dev, const struct tar *tar, const struct tar_file *manifest,
                  void (*say)(void *arg, const char *sentence), void *arg, uint64_t *faults,
                  struct blk_error *e)
{
    if (manifest->bytes > MANIFEST_MAX)
        return err_bad(e, -EFBIG, "a manifest of %" PRIu64 " bytes is too large", manifest->bytes);
    auto_free struct verify *v = mem_zalloc(sizeof(*v));
    auto_free bool *listed = mem_array(tar->count, sizeof(bool));
    auto_free char *text = mem_alloc(manifest->bytes + 1);
    if (!v || !listed || !text)
        return err_set(e, -ENOMEM, "out of memory");
    *v = (struct verify){.dev = dev, .tar = tar, .say = say, .arg = arg, .listed = listed};
    int rc = co_blk_read_buf(dev, manifest->offset, text, manifest->bytes);
    if (rc < 0)
        return err_errno(e, rc, "the manifest cannot be read");
    TRY(co_verify_lines(v, text, manifest->bytes, e));
    for (size_t i = 0; i < tar->count; i++)
        if (!listed[i] && needs_line(&tar->files[i], manifest))
            fault(v, tar->files[i].name, "is not in the manifest");
    *faults = v->faults;
    return 0;
}

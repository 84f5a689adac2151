/* SPDX-License-Identifier: BSD-3-Clause */
/* spec.h - the grammar of specs (docs/specs.md): from a text to a tree. Opens nothing; the only
 * question it asks is whether a name exists. */
#ifndef BLOCK_SPEC_H
#define BLOCK_SPEC_H

#include "block/option.h"

/* Levels of // in one spec; each is an open device below the next. */
#define SPEC_INNER_MAX 16

struct spec_env {
    bool face; /* QEMU's rules: no sets, no //, text up to ':' before any '/' is a protocol */
    /* True for a regular file or a block device. Pure texts only: NULL, nothing exists. */
    bool (*co_is_file)(const struct spec_env *env, const char *path);
    void *arg;
};

/* Gives *out, a tree as resolver.h describes it. @image_opts: @text is key=value or JSON only. */
must_use int co_spec_parse(const struct spec_env *env, const char *text, bool image_opts,
                           json_t **out, struct blk_error *e);

/* True if QEMU would take what stands before ':' for a protocol. */
bool spec_has_protocol(const char *text);
/* {"driver": @driver, "filename": @filename}; NULL: no memory. */
json_t *spec_file(const char *driver, const char *filename);
/* {"file": @file}: a format, still to be probed, on a file (taken over; NULL gives NULL). */
json_t *spec_on_file(json_t *file);

/* --- the parts; each gives *out or an error
 * ------------------------------------------------------------------------------------- */

/* `json:{...}` or `{...}`. Refuses deep nesting before it parses; parses on the pool when called on
 * a coroutine. */
must_use int co_spec_json(const char *text, json_t **out, struct blk_error *e);
/* One of the URL schemes; false: it is none. *rc is the outcome; *out what stands at the bottom. */
bool spec_url(const char *text, json_t **out, int *rc, struct blk_error *e);
/* md: lvm: thin: dir: ; false: it is none. */
bool co_spec_set(const struct spec_env *env, const char *text, json_t **out, int *rc,
                 struct blk_error *e);
/* What may stand for a member of a set: a URL, a file, NAME//inner. */
must_use int co_spec_plain(const struct spec_env *env, const char *text, json_t **out,
                           struct blk_error *e);
/* Puts the inner names of @names (`p3//vg0/root`) over *tree. */
must_use int spec_inner(const char *names, json_t **tree, struct blk_error *e);

#endif

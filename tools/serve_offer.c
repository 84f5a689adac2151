/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_offer.c - what is offered, key by key: the same keys on the command line and in a file. */
#include <stdlib.h>

#include "nbd/proto.h"
#include "tools/serve.h"

#define DEFAULT_SPACE (16 * GiB)
#define DEFAULT_IDLE  60

struct serve_offer *serve_offer_add(struct serve_plan *plan, enum serve_kind kind)
{
    size_t n = plan->count;
    struct serve_offer *more = plan->offers;

    if (!is_pow2(n) && n) { /* there is room up to the next power of two */
    } else if (!(more = mem_resize(plan->offers, MAX(2 * n, 1) * sizeof(*more)))) {
        return NULL;
    }
    plan->offers = more;
    more[n] = (struct serve_offer){.kind = kind, .space = DEFAULT_SPACE, .idle_sec = DEFAULT_IDLE};
    plan->count++;
    return &more[n];
}

void serve_plan_drop(struct serve_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        nbd_zone_drop(&plan->offers[i].zone);
        mem_free(plan->offers[i].made);
    }
    mem_free(plan->offers);
    plan->offers = NULL;
    plan->count = 0;
}

/* --- values --- */

int serve_yes_no(const char *text, bool *out)
{
    static const char *const words[] = {"yes", "on", "true", "no", "off", "false"};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i < 3;
            return 0;
        }
    return -EINVAL;
}

static int take_number(const char *text, uint64_t most, uint64_t *out, struct blk_error *e)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || n > most)
        return err_set(e, -EINVAL, "'%.60s' is no number from 0 to %" PRIu64, text, most);
    *out = n;
    return 0;
}

static int take_flag(const char *text, bool *out, struct blk_error *e)
{
    return serve_yes_no(text, out) == 0 ? 0 : err_set(e, -EINVAL, "'%.60s' is not yes or no", text);
}

static int take_writers(const char *text, unsigned *out, struct blk_error *e)
{
    uint64_t n;

    TRY(take_number(text, 1000000, &n, e));
    *out = (unsigned)n;
    return 0;
}

/* --- keys --- */

enum { EXPORT = 1 << SERVE_EXPORT, FOLDER = 1 << SERVE_FOLDER, CLONES = 1 << SERVE_CLONES };
enum { ALL = EXPORT | FOLDER | CLONES };

enum key {
    KEY_IMAGE,
    KEY_FOLDER,
    KEY_NAME,
    KEY_FORMAT,
    KEY_DESCRIPTION,
    KEY_READ_ONLY,
    KEY_DEFAULT,
    KEY_ALLOW,
    KEY_WRITERS,
    KEY_KEEP,
    KEY_SPACE,
    KEY_IDLE,
    KEY_GROUP,
    KEY_WEIGHT,
    KEY_MIN_IOPS,
    KEY_IOPS,
    KEY_BPS,
};

static const struct {
    const char *text;
    unsigned kinds;
} keys[] = {
    [KEY_IMAGE] = {"image", EXPORT | CLONES},
    [KEY_FOLDER] = {"folder", FOLDER},
    [KEY_NAME] = {"name", ALL},
    [KEY_FORMAT] = {"format", ALL},
    [KEY_DESCRIPTION] = {"description", EXPORT},
    [KEY_READ_ONLY] = {"read-only", EXPORT | FOLDER},
    [KEY_DEFAULT] = {"default", EXPORT},
    [KEY_ALLOW] = {"allow", ALL},
    [KEY_WRITERS] = {"writers", ALL},
    [KEY_KEEP] = {"keep", CLONES},
    [KEY_SPACE] = {"space", CLONES},
    [KEY_IDLE] = {"idle", FOLDER | CLONES},
    [KEY_GROUP] = {"group", EXPORT},
    [KEY_WEIGHT] = {"weight", EXPORT},
    [KEY_MIN_IOPS] = {"min-iops", EXPORT},
    [KEY_IOPS] = {"iops", EXPORT},
    [KEY_BPS] = {"bps", EXPORT},
};

static int unknown_key(const struct serve_offer *o, const char *key, struct blk_error *e)
{
    const char *names[ARRAY_LEN(keys)], *near;
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (keys[i].kinds & 1u << o->kind)
            names[count++] = keys[i].text;
    near = opts_nearest(key, names, count);
    return err_set(e, -EINVAL,
                   near ? "'%.60s' is not known here; did you mean '%s'?"
                        : "'%.60s' is not known here",
                   key, near);
}

static int set(struct serve_offer *o, enum key key, const char *value, struct blk_error *e)
{
    switch (key) {
    case KEY_IMAGE:
    case KEY_FOLDER:
        o->what = value;
        return 0;
    case KEY_NAME:
        o->name = value;
        return 0;
    case KEY_FORMAT:
        o->format = value;
        return 0;
    case KEY_DESCRIPTION:
        o->description = value;
        return 0;
    case KEY_KEEP:
        o->keep = value;
        return 0;
    case KEY_READ_ONLY:
        return take_flag(value, &o->read_only, e);
    case KEY_DEFAULT:
        return take_flag(value, &o->preset, e);
    case KEY_ALLOW:
        return nbd_zone_add(&o->zone, value, e);
    case KEY_WRITERS:
        return take_writers(value, &o->writers, e);
    case KEY_SPACE:
        return opts_parse_size(value, &o->space, e);
    case KEY_IDLE:
        return take_number(value, 86400ULL * 365, &o->idle_sec, e);
    case KEY_GROUP:
        o->shares = true;
        o->group = value;
        return 0;
    case KEY_WEIGHT:
    case KEY_MIN_IOPS:
    case KEY_IOPS:
    case KEY_BPS:
        o->shares = true;
        return share_wish_word(&o->wish, keys[key].text, value, e);
    }
    return -EINVAL;
}

int serve_offer_set(struct serve_offer *o, const char *key, const char *value, struct blk_error *e)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (strcmp(keys[i].text, key) == 0 && keys[i].kinds & 1u << o->kind) {
            int rc = set(o, (enum key)i, value, e);

            return rc < 0 ? err_prefix(e, "%s", key) : 0;
        }
    return unknown_key(o, key, e);
}

/* --- on the command line --- */

/* Cuts the first word off *at, in place: up to a comma that is not doubled. NULL: none is left. */
static char *next_word(char **at)
{
    char *from = *at, *to = *at, *word = *at;

    if (!from)
        return NULL;
    while (*from && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    *at = *from ? from + 1 : NULL;
    *to = 0;
    return word;
}

int serve_offer_words(struct serve_offer *o, const char *text, struct blk_error *e)
{
    char *at, *word;

    o->made = at = mem_strdup(text);
    if (!at)
        return err_set(e, -ENOMEM, "out of memory");
    word = next_word(&at);
    if (o->kind == SERVE_FOLDER)
        o->what = word;
    else
        o->name = word;
    while ((word = next_word(&at))) {
        char *value = strchr(word, '=');

        if (value)
            *value++ = 0;
        TRY(serve_offer_set(o, word, value ? value : "yes", e));
    }
    return 0;
}

/* --- all together --- */

/* What a file's name says: of clones without the ending. */
static int name_after_file(struct serve_offer *o, struct blk_error *e)
{
    const char *slash = strrchr(o->what, '/'), *base = slash ? slash + 1 : o->what;
    const char *dot = strrchr(base, '.');
    size_t n = o->kind == SERVE_CLONES && dot && dot > base ? (size_t)(dot - base) : strlen(base);
    char *made = mem_printf("%.*s", (int)n, base);

    if (!made)
        return err_set(e, -ENOMEM, "out of memory");
    assert(!o->made);
    o->name = o->made = made;
    return 0;
}

static int check_one(const struct serve_offer *o, struct blk_error *e)
{
    static const char *const needs[] = {"an image", "a folder", "a golden image"};

    if (!o->what || !*o->what)
        return err_set(e, -EINVAL, "'%.100s' needs %s", o->name ? o->name : "", needs[o->kind]);
    if (strlen(o->name) > NBD_MAX_NAME - 300)
        return err_set(e, -ENAMETOOLONG, "the name '%.60s...' is too long", o->name);
    if (o->kind == SERVE_CLONES && !*o->name)
        return err_set(e, -EINVAL, "clones of %.200s need a name", o->what);
    return 0;
}

int serve_offers_check(struct serve_plan *plan, struct blk_error *e)
{
    unsigned presets = 0;

    if (plan->count == 0)
        return err_set(e, -EINVAL, "nothing is to be served: which image?");
    for (size_t i = 0; i < plan->count; i++) {
        struct serve_offer *o = &plan->offers[i];

        if (!o->name && o->kind == SERVE_FOLDER)
            o->name = "";
        if (!o->name && o->kind == SERVE_EXPORT && plan->count == 1)
            o->name = "";
        if (!o->name && o->what)
            TRY(name_after_file(o, e));
        TRY(check_one(o, e));
        presets += o->preset;
        for (size_t j = 0; j < i; j++)
            if (strcmp(plan->offers[j].name, o->name) == 0 &&
                (plan->offers[j].kind == SERVE_EXPORT) == (o->kind == SERVE_EXPORT))
                return err_set(e, -EEXIST, "there are two exports named '%.200s'", o->name);
    }
    return presets > 1 ? err_set(e, -EINVAL, "only one export can be the default") : 0;
}

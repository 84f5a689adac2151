/* SPDX-License-Identifier: BSD-3-Clause */
/* option_text.c - options as people write them: key=value lists, sizes, and misspelt names. */
#include <ctype.h>

#include "block/option_text.h"

/* --- key=value,key=value
 * ------------------------------------------------------------------------------------- */

size_t opts_take_word(const char *text, char *to)
{
    size_t from = 0, len = 0;
    while (text[from] && (text[from] != ',' || text[from + 1] == ',')) {
        if (text[from] == ',')
            from++;
        to[len++] = text[from++];
    }
    to[len] = 0;
    return from;
}

/* The object that the dots in @key lead to; *last is what remains of the key. */
static json_t *descend(json_t *tree, char *key, const char **last, unsigned room,
                       struct blk_error *e)
{
    char *dot;
    for (; (dot = strchr(key, '.')); key = dot + 1) {
        *dot = 0;
        if (!*key || !dot[1] || room-- <= 1) {
            err_set(e, -EINVAL,
                    room ? "an option's name has an empty part" : "options nest too deep");
            return NULL;
        }
        json_t *below = json_object_get(tree, key);
        if (!below) {
            below = json_object();
            if (!below || json_object_set_new_nocheck(tree, key, below) < 0) {
                err_set(e, -ENOMEM, "no memory for options");
                return NULL;
            }
        } else if (!json_is_object(below)) {
            err_set(e, -EINVAL, "option %s is given as a value and as a group", key);
            return NULL;
        }
        tree = below;
    }
    *last = key;
    return tree;
}

/* Two objects under one name become one; anything else is replaced by the later. */
static int put(json_t *in, const char *key, json_t *value, struct blk_error *e)
{
    json_t *old = json_object_get(in, key);
    bool both = json_is_object(old) && json_is_object(value);
    if (old && !both && json_is_object(old) != json_is_object(value)) {
        json_decref(value);
        return err_set(e, -EINVAL, "option %s is given as a value and as a group", key);
    }
    int rc;
    if (both) {
        rc = json_object_update_recursive(old, value);
        json_decref(value);
    } else {
        rc = json_object_set_new_nocheck(in, key, value);
    }
    return rc < 0 ? err_set(e, -ENOMEM, "no memory for options") : 0;
}

int opts_put(json_t *tree, const char *key, json_t *value, unsigned room, struct blk_error *e)
{
    auto_free char *copy = mem_strdup(key);
    const char *last = NULL;
    if (copy && value && !*copy)
        err_set(e, -EINVAL, "an option has no name");
    else if (copy && value)
        tree = descend(tree, copy, &last, room, e);
    else
        err_set(e, -ENOMEM, "no memory for options");
    if (!last) {
        json_decref(value);
        return !copy || !value ? -ENOMEM : -EINVAL;
    }
    return put(tree, last, value, e);
}

int opts_text_to_tree(const char *text, const char *implied, json_t *tree, struct blk_error *e)
{
    auto_free char *word = mem_alloc(strlen(text) + 1);
    if (!word)
        return err_set(e, -ENOMEM, "no memory for options");
    for (bool first = true; *text; first = false) {
        text += opts_take_word(text, word);
        if (*text == ',')
            text++;
        char *equals = strchr(word, '=');
        if (equals)
            *equals = 0;
        bool is_value = !equals && first && implied;
        const char *value = equals ? equals + 1 : is_value ? word : "on";
        TRY(opts_put(tree, is_value ? implied : word, json_string_nocheck(value), OPTS_DEPTH, e));
    }
    return 0;
}

/* --- sizes
 * ------------------------------------------------------------------------------------- */

static int suffix_shift(char c)
{
    static const char letters[] = "bkmgtpe";
    const char *at = c ? strchr(letters, tolower((unsigned char)c)) : NULL;
    return at ? (int)(at - letters) * 10 : -1;
}

/* Reads digits of @base from *text; false when they do not fit. */
static bool take_digits(const char **text, unsigned base, uint64_t *out)
{
    *out = 0;
    bool fits = true;
    for (; isxdigit((unsigned char)**text); ++*text) {
        unsigned c = (unsigned)tolower((unsigned char)**text);
        unsigned digit = isdigit((int)c) ? c - '0' : c - 'a' + 10;
        if (digit >= base)
            break;
        fits = fits && mul_u64(*out, base, out) && add_u64(*out, digit, out);
    }
    return fits;
}

/* The fraction's digits as a share of 2^@shift, rounded down; at most 18 of them count. */
static uint64_t take_fraction(const char **text, int shift, bool *any)
{
    uint64_t digits = 0, scale = 1;
    for (; isdigit((unsigned char)**text); ++*text) {
        *any = *any || **text != '0';
        if (scale < 1000000000000000000ULL) {
            digits = digits * 10 + (uint64_t)(**text - '0');
            scale *= 10;
        }
    }
    return (uint64_t)(((unsigned __int128)digits << shift) / scale);
}

static int size_too_large(const char *text, struct blk_error *e)
{
    return err_set(e, -ERANGE, "size '%.40s' is too large: less than 8 EiB is possible", text);
}

static int parse_hex_size(const char *text, uint64_t *bytes, struct blk_error *e)
{
    const char *at = text + 2;
    if (!isxdigit((unsigned char)*at))
        return err_set(e, -EINVAL, "'%.40s' is not a size", text);
    bool fits = take_digits(&at, 16, bytes);
    if (*at)
        return err_set(e, -EINVAL, "'%.40s' is not a size: hexadecimal takes no suffix", text);
    return fits && *bytes <= INT64_MAX ? 0 : size_too_large(text, e);
}

/* Where the suffix of a decimal size stands: behind digits and an optional fraction. */
static const char *skip_number(const char *at)
{
    at += strspn(at, "0123456789");
    return *at == '.' ? at + 1 + strspn(at + 1, "0123456789") : at;
}

int opts_parse_size(const char *text, uint64_t *bytes, struct blk_error *e)
{
    if (*text == '-')
        return err_set(e, -EINVAL, "'%.40s' is not a size: it must not be negative", text);
    if (text[0] == '0' && tolower((unsigned char)text[1]) == 'x')
        return parse_hex_size(text, bytes, e);
    const char *suffix = skip_number(text);
    int shift = *suffix ? suffix_shift(*suffix) : 0;
    if (!isdigit((unsigned char)*text) || shift < 0 || (*suffix && suffix[1]))
        return err_set(e, -EINVAL,
                       "'%.40s' is not a size: digits, then one of K M G T P E or nothing", text);
    uint64_t whole, part = 0;
    bool fraction = false, fits = take_digits(&text, 10, &whole);
    if (*text == '.') {
        text++;
        part = take_fraction(&text, shift, &fraction);
    }
    if (fraction && shift == 0)
        return err_set(e, -EINVAL, "a fraction of a byte is not a size: add K, M, G, T, P or E");
    if (!fits || !mul_u64(whole, 1ULL << shift, bytes) || !add_u64(*bytes, part, bytes) ||
        *bytes > INT64_MAX)
        return err_set(e, -ERANGE, "the size is too large: less than 8 EiB is possible");
    return 0;
}

/* --- texts
 * ------------------------------------------------------------------------------------- */

int json_check_depth(const char *text, size_t bytes, struct blk_error *e)
{
    unsigned depth = 0;
    bool quoted = false;
    for (const char *end = text + bytes; text < end; text++) {
        if (quoted && *text == '\\')
            text++;
        else if (*text == '"')
            quoted = !quoted;
        else if (!quoted && (*text == '{' || *text == '['))
            depth++;
        else if (!quoted && (*text == '}' || *text == ']') && depth)
            depth--;
        if (depth > OPTS_DEPTH)
            return err_set(e, -EINVAL, "the JSON nests deeper than %d levels", OPTS_DEPTH);
    }
    return 0;
}

json_t *json_from_text(const char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    auto_free char *ascii = mem_strdup(text);
    for (char *c = ascii; c && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return ascii ? json_string(ascii) : NULL;
}

/* --- misspelt names
 * ------------------------------------------------------------------------------------- */

#define NEAR_MAX 63

/* Letters to insert, drop or change; words longer than NEAR_MAX are infinitely far. */
static size_t distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b), row[NEAR_MAX + 1];
    if (la > NEAR_MAX || lb > NEAR_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t above = row[j];
            size_t change =
                diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            row[j] = MIN(change, 1 + MIN(above, row[j - 1]));
            diagonal = above;
        }
    }
    return row[lb];
}

const char *opts_nearest(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t limit = MAX(strlen(word) / 3, (size_t)1);
    for (size_t i = 0; i < count; i++) {
        size_t d = distance(word, names[i]);
        if (d > limit || d >= strlen(names[i]))
            continue;
        best = names[i];
        if (d == 0)
            break;
        limit = d - 1;
    }
    return best;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_text_build.c - a tree as the text that LVM2 stores: one item per line, nothing indented.
 *
 * LVM2's scan jumps over the volumes to the last line that is a lone brace, so a brace that closes
 * a section stands alone on its line, and nothing else does. */
#include <stdio.h>

#include "volumes/lvm_text.h"

struct writer {
    char *text;
    size_t used, room;
    bool failed;
};

static void put(struct writer *w, const char *text, size_t bytes)
{
    if (bytes == 0) /* there may be no text yet */
        return;
    if (w->room - w->used < bytes) {
        size_t room = MAX(w->room * 2, w->used + bytes + 4096);
        char *grown = w->failed ? NULL : mem_resize(w->text, room);
        w->failed |= !grown;
        if (!grown)
            return;
        w->text = grown;
        w->room = room;
    }
    memcpy(w->text + w->used, text, bytes);
    w->used += bytes;
}

static void put_words(struct writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static void put_string(struct writer *w, const char *text)
{
    put_words(w, "\"");
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            put_words(w, "\\");
        put(w, text, 1);
    }
    put_words(w, "\"");
}

static void put_value(struct writer *w, const struct lvm_node *n)
{
    char digits[24];
    switch (n->kind) {
    case LVM_STRING:
        put_string(w, n->text);
        break;
    case LVM_FLOAT:
        put_words(w, n->text);
        break;
    case LVM_NUMBER:
        snprintf(digits, sizeof(digits), "%" PRId64, n->number);
        put_words(w, digits);
        break;
    default: /* a list */
        put_words(w, "[");
        for (const struct lvm_node *one = n->first; one; one = one->next) {
            put_value(w, one);
            put_words(w, one->next ? ", " : "");
        }
        put_words(w, "]");
    }
}

static void put_items(struct writer *w, const struct lvm_node *section)
{
    for (const struct lvm_node *n = section->first; n; n = n->next) {
        put_words(w, n->name);
        if (n->kind == LVM_SECTION) {
            put_words(w, " {\n");
            put_items(w, n);
            put_words(w, "}\n");
        } else {
            put_words(w, " = ");
            put_value(w, n);
            put_words(w, "\n");
        }
    }
}

int lvm_text_build(const struct lvm_text *t, char **out, size_t *bytes)
{
    struct writer w = {0};
    put_items(&w, &t->root);
    put(&w, "\n", 2); /* with its zero byte */
    if (w.failed) {
        mem_free(w.text);
        return -ENOMEM;
    }
    *out = w.text;
    *bytes = w.used;
    return 0;
}

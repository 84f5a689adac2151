/* SPDX-License-Identifier: BSD-3-Clause */
/* receive_journal.c - .TARGET.lamina-received: how far a stream is in the target, and when it is
 * all there, what the target holds. The latter counts as long as the files that the target stands
 * on are as they were, to the nanosecond; then nobody has to read it to know what it is. */
#include "tools/journal.h"
#include "tools/receive.h"

static const char *const states[] = {
    [RECEIVE_GOING] = "receiving", [RECEIVE_WHOLE] = "whole", [RECEIVE_DONE] = "received"};

static json_t *sum_text(const struct sumhash *s)
{
    char text[SUMHASH_TEXT];
    sumhash_print(s, text);
    return json_string(text);
}

int co_receive_journal_write(const struct receive_journal *j, struct blk_error *e)
{
    const struct send_header *h = &j->header;
    assert(j->state != RECEIVE_NOTHING);
    json_t *tree = json_pack(
        "{s:i, s:s, s:b, s:b, s:I, s:I, s:o, s:I, s:o, s:o, s:O*}", "version", 1, "state",
        states[j->state], "made", j->made, "increment", h->increment, "size", (json_int_t)h->size,
        "base-size", (json_int_t)h->base_size, "base", sum_text(&h->base), "at", (json_int_t)j->at,
        "sum", sum_text(&j->sum), "digest", sum_text(&j->digest), "files", j->files);
    return co_journal_write(j->host, j->path, tree, e);
}

static bool get_size(const json_t *tree, const char *key, uint64_t *out)
{
    const json_t *v = json_object_get(tree, key);
    *out = (uint64_t)json_integer_value(v);
    return json_is_integer(v) && json_integer_value(v) >= 0;
}

static bool get_sum(const json_t *tree, const char *key, struct sumhash *out)
{
    const char *text = json_string_value(json_object_get(tree, key));
    return text && sumhash_parse(text, out);
}

static bool parse(const json_t *tree, struct receive_journal *j)
{
    struct send_header *h = &j->header;
    const char *state = json_string_value(json_object_get(tree, "state"));
    for (unsigned i = RECEIVE_GOING; i < ARRAY_LEN(states); i++)
        if (state && strcmp(state, states[i]) == 0)
            j->state = i;
    j->made = json_is_true(json_object_get(tree, "made"));
    h->increment = json_is_true(json_object_get(tree, "increment"));
    j->files = json_incref(json_object_get(tree, "files"));
    return j->state != RECEIVE_NOTHING && get_size(tree, "size", &h->size) &&
           get_size(tree, "base-size", &h->base_size) && get_sum(tree, "base", &h->base) &&
           get_size(tree, "at", &j->at) && j->at <= h->size && j->at % SEND_BLOCK == 0 &&
           get_sum(tree, "sum", &j->sum) && get_sum(tree, "digest", &j->digest);
}

int co_receive_journal_read(struct receive_journal *j, struct blk_error *e)
{
    json_t *tree;
    TRY(co_journal_read(j->host, j->path, &tree, e));
    bool good = !tree || parse(tree, j);
    json_decref(tree);
    return good ? 0
                : err_set(e, -EINVAL, "%s is damaged: remove it to begin anew with a full stream",
                          j->path);
}

bool receive_same_stream(const struct receive_journal *j, const struct send_header *h)
{
    const struct send_header *was = &j->header;
    return was->increment == h->increment && was->size == h->size &&
           was->base_size == h->base_size && sumhash_equal(&was->base, &h->base);
}

bool receive_is_untouched(const struct receive_journal *j, struct blk_device *dev)
{
    json_auto_t *files = journal_files(dev, true);
    bool known = json_array_size(files) > 0;
    for (size_t i = 0; i < json_array_size(files); i++)
        known &= !json_is_null(json_array_get(files, i));
    return j->state == RECEIVE_DONE && known && json_equal(files, j->files);
}

void receive_journal_drop(struct receive_journal *j)
{
    mem_free(take(j->path));
    json_decref(take(j->files));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* hash_disk.c - a disk's hash, and the words of the options that ask for one.
 *
 * blkhash: the blocks are hashed on the pool as they are read, their digests are added in order; so
 * it uses all cores, and so does sumhash. SHA-256 is one chain of steps and has a core to itself,
 * while the others read and inflate. */
#include <nettle/sha2.h>

#include "block/sumhash.h"
#include "tools/hash.h"
#include "tools/inorder.h"

#define BLOCK INORDER_BLOCK

struct hasher {
    struct inorder walk;
    struct sha256_ctx sum;
    uint8_t zero_digest[SHA256_DIGEST_SIZE]; /* of a whole block */
    uint8_t digests[INORDER_SLOTS][INORDER_PIECE / BLOCK][SHA256_DIGEST_SIZE]; /* blkhash */
    struct sumhash sums[INORDER_SLOTS], total;                                 /* sumhash */
};

/* What the hashes differ in. */
struct hash_steps {
    const char *name;
    int (*prepare)(struct inorder_piece *p);
    int (*use)(struct inorder_piece *p);
    void (*finish)(struct hasher *h, uint8_t sum[SHA256_DIGEST_SIZE]);
};

static const uint8_t zeroes[BLOCK];

static void sum_of(const uint8_t *data, size_t bytes, uint8_t to[SHA256_DIGEST_SIZE])
{
    struct sha256_ctx c;
    sha256_init(&c);
    sha256_update(&c, bytes, data);
    sha256_digest(&c, SHA256_DIGEST_SIZE, to);
}

static int hash_blocks(struct inorder_piece *p)
{
    struct hasher *h = p->all->arg;
    uint8_t(*to)[SHA256_DIGEST_SIZE] = h->digests[p->slot];
    for (uint64_t at = 0; at < p->bytes; at += BLOCK, to++) {
        size_t bytes = MIN(BLOCK, p->bytes - at);
        if (bytes == BLOCK && mem_is_zero(p->data + at, bytes))
            memcpy(*to, h->zero_digest, sizeof(*to));
        else
            sum_of(p->data + at, bytes, *to);
    }
    return 0;
}

static void add_zero_blocks(struct hasher *h, uint64_t bytes)
{
    for (; bytes >= BLOCK; bytes -= BLOCK)
        sha256_update(&h->sum, SHA256_DIGEST_SIZE, h->zero_digest);
    if (bytes > 0) {
        uint8_t last[SHA256_DIGEST_SIZE];
        sum_of(zeroes, bytes, last);
        sha256_update(&h->sum, SHA256_DIGEST_SIZE, last);
    }
}

static int add_blocks(struct inorder_piece *p)
{
    struct hasher *h = p->all->arg;
    if (p->data)
        sha256_update(&h->sum, div_up(p->bytes, BLOCK) * SHA256_DIGEST_SIZE,
                      h->digests[p->slot][0]);
    else
        add_zero_blocks(h, p->bytes);
    return 0;
}

static int add_bytes(struct inorder_piece *p)
{
    struct hasher *h = p->all->arg;
    if (p->data)
        sha256_update(&h->sum, p->bytes, p->data);
    for (uint64_t at = 0; !p->data && at < p->bytes; at += BLOCK)
        sha256_update(&h->sum, MIN(BLOCK, p->bytes - at), zeroes);
    return 0;
}

static void finish_bytes(struct hasher *h, uint8_t sum[SHA256_DIGEST_SIZE])
{
    sha256_digest(&h->sum, SHA256_DIGEST_SIZE, sum);
}

static void finish_blocks(struct hasher *h, uint8_t sum[SHA256_DIGEST_SIZE])
{
    uint8_t length[8];
    for (unsigned i = 0; i < sizeof(length); i++)
        length[i] = (uint8_t)(h->walk.bytes >> (8 * i));
    sha256_update(&h->sum, sizeof(length), length);
    finish_bytes(h, sum);
}

/* --- sumhash --- */

static int sum_blocks(struct inorder_piece *p)
{
    struct hasher *h = p->all->arg;
    h->sums[p->slot] = (struct sumhash){0};
    sumhash_add_blocks(&h->sums[p->slot], p->offset, p->data, p->bytes);
    return 0;
}

static int add_sum(struct inorder_piece *p)
{
    struct hasher *h = p->all->arg;
    if (p->data)
        sumhash_add(&h->total, &h->sums[p->slot]);
    return 0;
}

static void finish_sum(struct hasher *h, uint8_t sum[SHA256_DIGEST_SIZE])
{
    sumhash_add_size(&h->total, h->walk.bytes);
    sumhash_put(&h->total, sum);
}

/* --- all of them --- */

static const struct hash_steps hashes[] = {
    [HASH_SHA256] = {"sha256", NULL, add_bytes, finish_bytes},
    [HASH_BLKHASH] = {"blkhash", hash_blocks, add_blocks, finish_blocks},
    [HASH_SUMHASH] = {"sumhash", sum_blocks, add_sum, finish_sum},
};

int co_hash_disk(struct blk_device *dev, uint64_t bytes, enum hash_kind kind, struct job *job,
                 char text[HASH_TEXT], struct blk_error *e)
{
    assert(kind != HASH_NONE);
    struct hasher *h = mem_zalloc(sizeof(*h));
    if (!h)
        return err_set(e, -ENOMEM, "out of memory");
    h->walk = (struct inorder){.dev = dev,
                               .bytes = bytes,
                               .job = job,
                               .error = e,
                               .prepare = hashes[kind].prepare,
                               .use = hashes[kind].use,
                               .arg = h};
    sha256_init(&h->sum);
    sum_of(zeroes, BLOCK, h->zero_digest);
    int rc = co_inorder(&h->walk);
    uint8_t sum[SHA256_DIGEST_SIZE];
    if (rc == 0)
        hashes[kind].finish(h, sum);
    for (unsigned i = 0; rc == 0 && i < sizeof(sum); i++)
        snprintf(text + 2 * i, 3, "%02x", sum[i]);
    mem_free(h);
    return rc;
}

/* --- what is told --- */

const char *hash_name(enum hash_kind kind)
{
    return hashes[kind].name;
}

int hash_kind_told(const struct tool *t, const char *word, struct hash_told *h)
{
    for (enum hash_kind k = HASH_SHA256; k < ARRAY_LEN(hashes); k++) {
        if (strcmp(word, hashes[k].name) == 0) {
            h->kind = k;
            return 0;
        }
    }
    tool_misuse(t, "'%s' is no hash; there are sha256, blkhash and sumhash", word);
    return ARGS_BAD;
}

int hash_expect_told(const struct tool *t, const char *text, struct hash_told *h)
{
    if (strlen(text) != HASH_TEXT - 1 || strspn(text, "0123456789abcdefABCDEF") != HASH_TEXT - 1) {
        tool_misuse(t, "'%s' is no hash: it must have %d hexadecimal digits", text, HASH_TEXT - 1);
        return ARGS_BAD;
    }
    for (unsigned i = 0; i < HASH_TEXT; i++)
        h->expect[i] = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] + 'a' - 'A') : text[i];
    return 0;
}

int hash_compare(const struct hash_told *h, const char *text, const char *name, struct blk_error *e)
{
    if (!h->expect[0] || strcmp(h->expect, text) == 0)
        return 0;
    return err_set(e, -EBADMSG, "the %s of %s is %s, not the expected %s", hash_name(h->kind), name,
                   text, h->expect);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* hash_disk.c - the walk over a disk that is hashed, and the two ways to hash it.
 *
 * The walk cuts the disk into pieces that begin and end at blocks. Some are in flight: each is read
 * (and inflated where the image is compressed) and, for blkhash, its blocks are hashed on the pool.
 * Pieces that are ready are added to the disk's hash in their order, by whoever finds the next one
 * ready. So blkhash uses all cores; SHA-256 is one chain of steps and has a core to itself, while
 * the others read and inflate. Memory is SLOTS pieces, whatever the disk's size. */
#include <nettle/sha2.h>

#include "block/co.h"
#include "tools/hash.h"

#define BLOCK      (64 * KiB)
#define PIECE      (1 * MiB)
#define ZERO_PIECE (256 * MiB)
#define SLOTS      16

struct slot {
    struct hasher *h;
    uint64_t offset, bytes;
    uint8_t *data; /* NULL: zeroes */
    bool ready;
    int rc;
    uint8_t digests[PIECE / BLOCK][SHA256_DIGEST_SIZE]; /* blkhash: of each block */
};

struct hasher {
    struct blk_device *dev;
    enum hash_kind kind;
    struct job *job;
    struct blk_error *error;
    struct sha256_ctx sum;
    uint8_t zero_digest[SHA256_DIGEST_SIZE]; /* of a whole block */
    struct co_group group;
    struct slot slots[SLOTS];
    uint64_t first, next; /* the next piece to add, and to give out; slot: the number % SLOTS */
    bool adding;
    int rc; /* the first error */
    struct co_queue room;
};

static const uint8_t zeroes[BLOCK];

static void sum_of(const uint8_t *data, size_t bytes, uint8_t to[SHA256_DIGEST_SIZE])
{
    struct sha256_ctx c;
    sha256_init(&c);
    sha256_update(&c, bytes, data);
    sha256_digest(&c, SHA256_DIGEST_SIZE, to);
}

/* --- on the pool --- */

static void hash_block(const struct slot *s, const uint8_t *data, size_t bytes,
                       uint8_t to[SHA256_DIGEST_SIZE])
{
    if (bytes == BLOCK && mem_is_zero(data, bytes))
        memcpy(to, s->h->zero_digest, SHA256_DIGEST_SIZE);
    else
        sum_of(data, bytes, to);
}

static int hash_blocks(void *arg)
{
    struct slot *s = arg;
    for (uint64_t at = 0; at < s->bytes; at += BLOCK)
        hash_block(s, s->data + at, MIN(BLOCK, s->bytes - at), s->digests[at / BLOCK]);
    return 0;
}

static void add_zeroes(struct hasher *h, uint64_t bytes)
{
    for (; h->kind == HASH_BLKHASH && bytes >= BLOCK; bytes -= BLOCK)
        sha256_update(&h->sum, SHA256_DIGEST_SIZE, h->zero_digest);
    if (h->kind == HASH_BLKHASH && bytes > 0) {
        uint8_t last[SHA256_DIGEST_SIZE];
        sum_of(zeroes, bytes, last);
        sha256_update(&h->sum, SHA256_DIGEST_SIZE, last);
        return;
    }
    for (uint64_t n; bytes > 0; bytes -= n) {
        n = MIN(bytes, sizeof(zeroes));
        sha256_update(&h->sum, n, zeroes);
    }
}

static int add(void *arg)
{
    struct slot *s = arg;
    struct hasher *h = s->h;
    if (!s->data)
        add_zeroes(h, s->bytes);
    else if (h->kind == HASH_BLKHASH)
        sha256_update(&h->sum, align_up(s->bytes, BLOCK) / BLOCK * SHA256_DIGEST_SIZE,
                      s->digests[0]);
    else
        sha256_update(&h->sum, s->bytes, s->data);
    return 0;
}

/* --- pieces --- */

static void failed(struct hasher *h, int rc)
{
    if (h->rc == 0)
        h->rc = rc;
}

static void co_add(struct slot *s)
{
    struct hasher *h = s->h;
    failed(h, s->rc);
    if (h->rc == 0)
        co_offload(add, s);
    if (s->data)
        buf_put(s->data, PIECE);
    s->data = NULL;
    s->ready = false;
    if (h->rc == 0 && h->job)
        failed(h, co_job_step(h->job, s->bytes));
}

/* Adds what is ready, in order; one coroutine at a time does. */
static void co_add_ready(struct hasher *h)
{
    if (h->adding)
        return;
    h->adding = true;
    while (h->first < h->next && h->slots[h->first % SLOTS].ready) {
        co_add(&h->slots[h->first % SLOTS]);
        h->first++;
        co_queue_wake_all(&h->room);
    }
    h->adding = false;
}

static int co_load(struct slot *s)
{
    struct hasher *h = s->h;
    s->data = buf_get(PIECE);
    int rc = s->data ? co_blk_read_buf(h->dev, s->offset, s->data, s->bytes) : -ENOMEM;
    if (rc < 0) {
        if (h->error->rc == 0) /* the first is told */
            err_errno(h->error, rc, "error while reading at byte %" PRIu64, s->offset);
        return rc;
    }
    return h->kind == HASH_BLKHASH ? co_offload(hash_blocks, s) : 0;
}

static int co_piece(void *arg)
{
    struct slot *s = arg;
    s->rc = co_load(s);
    s->ready = true;
    co_add_ready(s->h);
    return 0;
}

static void co_give(struct hasher *h, uint64_t offset, uint64_t bytes, bool zero)
{
    while (h->next - h->first == SLOTS)
        co_queue_wait(&h->room);
    struct slot *s = &h->slots[h->next++ % SLOTS];
    s->h = h;
    s->offset = offset;
    s->bytes = bytes;
    s->rc = 0;
    s->ready = zero;
    if (zero)
        co_add_ready(h);
    else
        co_group_start(&h->group, co_piece, s);
}

/* --- the walk --- */

/* A run that is all zeroes, or not, in whole blocks but for the disk's end. */
static int co_run(struct hasher *h, uint64_t at, uint64_t end, uint64_t *run, bool *zero)
{
    struct blk_extent ext;
    unsigned depth;
    int rc = co_blk_map_chain(h->dev, NULL, at, end - at, &ext, &depth);
    if (rc < 0)
        return err_errno(h->error, rc, "error while reading block status at byte %" PRIu64, at);
    uint64_t to = at + ext.bytes;
    *zero = (ext.flags & BLK_EXT_ZERO) && (to == end || align_down(to, BLOCK) > at);
    if (to < end)
        to = *zero ? align_down(to, BLOCK) : MIN(align_up(to, BLOCK), end);
    *run = to - at;
    return 0;
}

static int co_walk(struct hasher *h, uint64_t end)
{
    for (uint64_t at = 0; at < end;) {
        uint64_t run = 0;
        bool zero = false;
        TRY(co_run(h, at, end, &run, &zero));
        while (run > 0) {
            uint64_t n = MIN(run, zero ? ZERO_PIECE : PIECE);
            if (h->rc < 0)
                return h->rc;
            co_give(h, at, n, zero);
            at += n;
            run -= n;
        }
    }
    return 0;
}

static void finish(struct hasher *h, uint64_t bytes, char text[HASH_TEXT])
{
    uint8_t sum[SHA256_DIGEST_SIZE], length[8];
    for (unsigned i = 0; i < sizeof(length); i++)
        length[i] = (uint8_t)(bytes >> (8 * i));
    if (h->kind == HASH_BLKHASH)
        sha256_update(&h->sum, sizeof(length), length);
    sha256_digest(&h->sum, sizeof(sum), sum);
    for (unsigned i = 0; i < sizeof(sum); i++)
        snprintf(text + 2 * i, 3, "%02x", sum[i]);
}

int co_hash_disk(struct blk_device *dev, uint64_t bytes, enum hash_kind kind, struct job *job,
                 char text[HASH_TEXT], struct blk_error *e)
{
    assert(kind != HASH_NONE && bytes <= dev->size);
    struct hasher *h = mem_zalloc(sizeof(*h));
    if (!h)
        return err_set(e, -ENOMEM, "out of memory");
    h->dev = dev;
    h->kind = kind;
    h->job = job;
    h->error = e;
    sha256_init(&h->sum);
    sum_of(zeroes, BLOCK, h->zero_digest);
    co_group_init(&h->group, 0);
    failed(h, co_walk(h, bytes));
    while (h->first < h->next) /* also after an error: their memory is theirs until then */
        co_queue_wait(&h->room);
    failed(h, co_group_wait(&h->group));
    if (h->rc == 0)
        finish(h, bytes, text);
    int rc = h->rc;
    mem_free(h);
    return rc;
}

/* --- what is told --- */

static const char *const names[] = {[HASH_SHA256] = "sha256", [HASH_BLKHASH] = "blkhash"};

const char *hash_name(enum hash_kind kind)
{
    return names[kind];
}

int hash_kind_told(const struct tool *t, const char *word, struct hash_told *h)
{
    for (enum hash_kind k = HASH_SHA256; k < ARRAY_LEN(names); k++) {
        if (strcmp(word, names[k]) == 0) {
            h->kind = k;
            return 0;
        }
    }
    tool_misuse(t, "'%s' is no hash; there are sha256 and blkhash", word);
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

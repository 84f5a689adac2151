/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_disk.c - codec of dm-thin's blocks: checksums, superblock, bitmaps, nodes. */
#include "volumes/thin_disk.h"

#include "block/crc32c.h"

static uint32_t checksum(enum thin_kind kind, const uint8_t *block)
{
    static const uint32_t salts[] = {
        [THIN_SUPER] = 160774, [THIN_NODE] = 121107, [THIN_BITMAP] = 240779, [THIN_INDEX] = 160478};
    return ~crc32c(0, block + 4, THIN_BLOCK - 4) ^ salts[kind];
}

static le64 *number_of(uint8_t *block)
{
    return (le64 *)(block + 8);
}

void thin_seal(enum thin_kind kind, uint64_t number, uint8_t *block)
{
    *number_of(block) = le64_of(number);
    *(le32 *)block = le32_of(checksum(kind, block));
}

static const struct thin_node_disk *node_of(const uint8_t *block)
{
    return (const struct thin_node_disk *)block;
}

static const char *verify_node(const uint8_t *block)
{
    const struct thin_node_disk *n = node_of(block);
    uint32_t flags = le32_get(n->flags), entries = le32_get(n->entries);
    uint32_t most = le32_get(n->max_entries), bytes = le32_get(n->value_bytes);
    if (flags != THIN_NODE_INNER && flags != THIN_NODE_LEAF)
        return "neither a leaf nor an inner node";
    if (bytes > THIN_VALUE_MOST || most > THIN_BLOCK / 8 ||
        THIN_NODE_HEAD + most * (8 + bytes) > THIN_BLOCK || entries > most)
        return "a node with more entries than it has room for";
    if (flags == THIN_NODE_INNER && (bytes != 8 || entries == 0))
        return "an inner node without children";
    for (uint32_t i = 1; i < entries; i++)
        if (le64_get(n->keys[i]) <= le64_get(n->keys[i - 1]))
            return "a node whose keys are out of order";
    return NULL;
}

const char *thin_verify(enum thin_kind kind, uint64_t number, const uint8_t *block)
{
    if (le32_get(*(const le32 *)block) != checksum(kind, block))
        return "its checksum is wrong";
    if (le64_get(*(const le64 *)(block + 8)) != number)
        return "it says that it is another block";
    return kind == THIN_NODE ? verify_node(block) : NULL;
}

/* --- superblock -------------------------------------------------------------------------------
 */

static struct thin_root root_get(const struct thin_root_disk *r)
{
    return (struct thin_root){le64_get(r->blocks), le64_get(r->allocated), le64_get(r->bitmap_root),
                              le64_get(r->overflow_root)};
}

static struct thin_root_disk root_put(const struct thin_root *r)
{
    return (struct thin_root_disk){le64_of(r->blocks), le64_of(r->allocated),
                                   le64_of(r->bitmap_root), le64_of(r->overflow_root)};
}

static int check_super(const struct thin_super *s, uint64_t number, uint64_t file_blocks,
                       struct blk_error *e)
{
    const uint64_t roots[] = {s->mapping_root, s->details_root};
    const uint64_t maps[] = {s->data.bitmap_root, s->data.overflow_root, s->metadata.bitmap_root,
                             s->metadata.overflow_root};
    for (size_t i = 0; i < ARRAY_LEN(roots); i++)
        if (roots[i] == 0 || roots[i] >= file_blocks)
            return err_bad(e, -EINVAL,
                           "the superblock is damaged: it names block %" PRIu64
                           " as a root, which cannot be one",
                           roots[i]);
    if (number)
        return 0; /* a metadata snapshot has no space maps */
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        if (maps[i] == 0 || maps[i] >= file_blocks)
            return err_bad(e, -EINVAL,
                           "the superblock is damaged: it names block %" PRIu64
                           " as a root, which cannot be one",
                           maps[i]);
    if (s->held_root >= file_blocks)
        return err_bad(e, -EINVAL,
                       "the superblock is damaged: its metadata snapshot lies past the end");
    if (s->metadata.blocks < 8 || s->metadata.blocks > MIN(file_blocks, THIN_META_MOST))
        return err_bad(e, -EINVAL,
                       "the metadata counts %" PRIu64 " blocks and its device holds %" PRIu64,
                       s->metadata.blocks, file_blocks);
    if (div_up(s->data.blocks, THIN_PER_BITMAP) > s->metadata.blocks)
        return err_bad(e, -EINVAL, "%" PRIu64 " data blocks cannot be counted in this metadata",
                       s->data.blocks);
    return 0;
}

int thin_super_parse(const uint8_t *block, uint64_t number, uint64_t file_blocks,
                     struct thin_super *out, struct blk_error *e)
{
    const struct thin_super_disk *raw = (const struct thin_super_disk *)block;
    if (le64_get(raw->magic) != THIN_MAGIC)
        return err_bad(e, -EINVAL, "it holds no thin pool's metadata");
    const char *wrong = thin_verify(THIN_SUPER, number, block);
    if (wrong)
        return err_bad(e, -EBADMSG, "the pool's superblock: %s", wrong);
    uint64_t chunk = le32_get(raw->chunk_sectors) * 512ULL;
    *out = (struct thin_super){
        .flags = le32_get(raw->flags),
        .time = le32_get(raw->time),
        .transaction = le64_get(raw->transaction),
        .held_root = le64_get(raw->held_root),
        .mapping_root = le64_get(raw->mapping_root),
        .details_root = le64_get(raw->details_root),
        .data = root_get(&raw->data),
        .metadata = root_get(&raw->metadata),
        .chunk_bytes = chunk,
        .metadata_blocks = le64_get(raw->metadata_blocks),
        .version = le32_get(raw->version),
        .compat_ro = le32_get(raw->compat_ro),
    };
    memcpy(out->uuid, raw->uuid, sizeof(out->uuid));
    if (out->version < 1 || out->version > 2)
        return err_set(e, -ENOTSUP, "thin pool metadata of version %u is not known", out->version);
    if (le32_get(raw->incompat))
        return err_set(e, -ENOTSUP, "the pool has features (0x%x) that are not known",
                       le32_get(raw->incompat));
    if (chunk < THIN_CHUNK_LEAST || chunk > THIN_CHUNK_MOST || chunk % THIN_CHUNK_LEAST)
        return err_bad(e, -EINVAL,
                       "the superblock is damaged: it says data blocks of %" PRIu64 " bytes",
                       chunk);
    return check_super(out, number, file_blocks, e);
}

void thin_super_encode(const struct thin_super *s, uint8_t *block)
{
    struct thin_super_disk *raw = (struct thin_super_disk *)block;
    raw->flags = le32_of(s->flags);
    memcpy(raw->uuid, s->uuid, sizeof(s->uuid));
    raw->magic = le64_of(THIN_MAGIC);
    raw->version = le32_of(s->version);
    raw->time = le32_of(s->time);
    raw->transaction = le64_of(s->transaction);
    raw->held_root = le64_of(s->held_root);
    raw->data = root_put(&s->data);
    raw->metadata = root_put(&s->metadata);
    raw->mapping_root = le64_of(s->mapping_root);
    raw->details_root = le64_of(s->details_root);
    raw->chunk_sectors = le32_of((uint32_t)(s->chunk_bytes / 512));
    raw->metadata_block_sectors = le32_of(THIN_BLOCK / 512);
    raw->metadata_blocks = le64_of(s->metadata_blocks);
    thin_seal(THIN_SUPER, 0, block);
}

struct thin_detail thin_detail_get(const uint8_t *value)
{
    const struct thin_detail_disk *d = (const struct thin_detail_disk *)value;
    return (struct thin_detail){le64_get(d->mapped), le64_get(d->transaction), le32_get(d->created),
                                le32_get(d->snapped)};
}

void thin_detail_put(const struct thin_detail *d, uint8_t *value)
{
    struct thin_detail_disk raw = {le64_of(d->mapped), le64_of(d->transaction), le32_of(d->created),
                                   le32_of(d->snapped)};
    memcpy(value, &raw, sizeof(raw));
}

/* --- bitmaps ----------------------------------------------------------------------------------
 */

/* The high bit of an entry comes first. */
static unsigned swap_bits(unsigned v)
{
    return (v & 1) << 1 | v >> 1;
}

unsigned thin_bits_get(const uint8_t *block, unsigned i)
{
    return swap_bits(block[16 + i / 4] >> i % 4 * 2 & 3);
}

void thin_bits_set(uint8_t *block, unsigned i, unsigned value)
{
    uint8_t *byte = &block[16 + i / 4];
    *byte = (uint8_t)((*byte & ~(3u << i % 4 * 2)) | swap_bits(value) << i % 4 * 2);
}

unsigned thin_bits_find(const uint8_t *block, unsigned from, unsigned to)
{
    while (from < to) {
        uint64_t word;
        if (from % 32 == 0 && to - from >= 32) {
            memcpy(&word, block + 16 + from / 4, 8);
            if (((word | word >> 1) & 0x5555555555555555ULL) == 0x5555555555555555ULL) {
                from += 32;
                continue;
            }
        }
        if (thin_bits_get(block, from) == 0)
            return from;
        from++;
    }
    return to;
}

/* --- nodes ------------------------------------------------------------------------------------
 */

unsigned thin_node_most(unsigned value_bytes)
{
    return (THIN_BLOCK - THIN_NODE_HEAD) / (8 + value_bytes) / 3 * 3;
}

void thin_node_init(uint8_t *block, bool leaf, unsigned value_bytes)
{
    struct thin_node_disk *n = (struct thin_node_disk *)block;
    memset(block, 0, THIN_BLOCK);
    n->flags = le32_of(leaf ? THIN_NODE_LEAF : THIN_NODE_INNER);
    n->max_entries = le32_of(thin_node_most(value_bytes));
    n->value_bytes = le32_of(value_bytes);
}

bool thin_node_is_leaf(const uint8_t *block)
{
    return le32_get(node_of(block)->flags) == THIN_NODE_LEAF;
}

unsigned thin_node_entries(const uint8_t *block)
{
    return le32_get(node_of(block)->entries);
}

unsigned thin_node_room(const uint8_t *block)
{
    return le32_get(node_of(block)->max_entries);
}

unsigned thin_node_value_bytes(const uint8_t *block)
{
    return le32_get(node_of(block)->value_bytes);
}

uint64_t thin_node_key(const uint8_t *block, unsigned i)
{
    return le64_get(node_of(block)->keys[i]);
}

void thin_node_set_key(uint8_t *block, unsigned i, uint64_t key)
{
    ((struct thin_node_disk *)block)->keys[i] = le64_of(key);
}

uint8_t *thin_node_value(uint8_t *block, unsigned i)
{
    return block + THIN_NODE_HEAD + thin_node_room(block) * 8 + i * thin_node_value_bytes(block);
}

uint64_t thin_node_child(const uint8_t *block, unsigned i)
{
    le64 v;
    memcpy(&v, thin_node_value((uint8_t *)block, i), sizeof(v));
    return le64_get(v);
}

void thin_node_set_child(uint8_t *block, unsigned i, uint64_t value)
{
    le64 v = le64_of(value);
    memcpy(thin_node_value(block, i), &v, sizeof(v));
}

int thin_node_find(const uint8_t *block, uint64_t key)
{
    int low = -1, high = (int)thin_node_entries(block);
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (thin_node_key(block, (unsigned)middle) <= key)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void set_entries(uint8_t *block, unsigned count)
{
    assert(count <= thin_node_room(block));
    ((struct thin_node_disk *)block)->entries = le32_of(count);
}

/* Entries [from, ...) move to @to, which may overlap. */
static void shift(uint8_t *block, unsigned from, unsigned to)
{
    struct thin_node_disk *n = (struct thin_node_disk *)block;
    size_t count = thin_node_entries(block) - from;
    memmove(&n->keys[to], &n->keys[from], count * 8);
    memmove(thin_node_value(block, to), thin_node_value(block, from),
            count * thin_node_value_bytes(block));
}

static void copy(uint8_t *to, unsigned at, const uint8_t *from, unsigned first, unsigned count)
{
    struct thin_node_disk *n = (struct thin_node_disk *)to;
    assert(thin_node_value_bytes(to) == thin_node_value_bytes(from));
    memcpy(&n->keys[at], &node_of(from)->keys[first], count * 8);
    memcpy(thin_node_value(to, at), thin_node_value((uint8_t *)from, first),
           count * thin_node_value_bytes(to));
}

void thin_node_insert(uint8_t *block, unsigned i, uint64_t key, const void *value)
{
    unsigned count = thin_node_entries(block);
    assert(i <= count && count < thin_node_room(block));
    shift(block, i, i + 1);
    thin_node_set_key(block, i, key);
    memcpy(thin_node_value(block, i), value, thin_node_value_bytes(block));
    set_entries(block, count + 1);
}

void thin_node_remove(uint8_t *block, unsigned i)
{
    unsigned count = thin_node_entries(block);
    assert(i < count);
    shift(block, i + 1, i);
    set_entries(block, count - 1);
}

void thin_node_move_right(uint8_t *from, uint8_t *to, unsigned count)
{
    unsigned have = thin_node_entries(from), there = thin_node_entries(to);
    assert(count <= have && there + count <= thin_node_room(to));
    shift(to, 0, count);
    copy(to, 0, from, have - count, count);
    set_entries(to, there + count);
    set_entries(from, have - count);
}

void thin_node_move_left(uint8_t *from, uint8_t *to, unsigned count)
{
    unsigned have = thin_node_entries(from), there = thin_node_entries(to);
    assert(count <= have && there + count <= thin_node_room(to));
    copy(to, there, from, 0, count);
    shift(from, count, 0);
    set_entries(to, there + count);
    set_entries(from, have - count);
}

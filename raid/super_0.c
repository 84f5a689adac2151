/* SPDX-License-Identifier: BSD-3-Clause */
/* super_0.c - superblocks of version 0.90: 1,024 words in the byte order of their machine. Arrays
 * of the other order are read, not written. */
#include "raid/super.h"

#define WORDS (MD_SUPER_BYTES / 4)

enum { WORD_EVENTS = 39, WORD_CHECKPOINT = 41, WORD_POSITION = 44, WORD_CHECKSUM = 38 };

static uint32_t checksum(const uint8_t *raw)
{
    uint64_t sum = 0;
    le32 word;
    for (unsigned i = 0; i < WORDS; i++) {
        memcpy(&word, raw + 4 * i, sizeof(word));
        if (i != WORD_CHECKSUM)
            sum += le32_get(word);
    }
    return (uint32_t)((sum & UINT32_MAX) + (sum >> 32));
}

/* Old kernels on some machines kept 16 bits of it. */
static uint32_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static void swap_words(uint8_t *raw)
{
    static const unsigned longs[] = {WORD_EVENTS, WORD_CHECKPOINT, WORD_POSITION};
    uint32_t word, both[2];
    for (unsigned i = 0; i < WORDS; i++) {
        memcpy(&word, raw + 4 * i, 4);
        word = __builtin_bswap32(word);
        memcpy(raw + 4 * i, &word, 4);
    }
    for (size_t i = 0; i < ARRAY_LEN(longs); i++) { /* the high half came first */
        memcpy(both, raw + 4 * longs[i], 8);
        memcpy(raw + 4 * longs[i], &both[1], 4);
        memcpy(raw + 4 * longs[i] + 4, &both[0], 4);
    }
}

static unsigned role_of(const struct md_disk_0 *d)
{
    uint32_t state = le32_get(d->state), role = le32_get(d->role);
    if (state & MD0_REMOVED)
        return MD_ROLE_SPARE;
    if (state & MD0_FAULTY)
        return MD_ROLE_FAULTY;
    return state & MD0_SYNC && role < MD_DISKS_0 ? role : MD_ROLE_SPARE;
}

static int parse_reshape(const struct md_super_0 *d, struct md_super *s, struct blk_error *e)
{
    if (le32_get(d->minor) != 91)
        return 0;
    s->reshaping = true;
    s->features |= MD_RESHAPE;
    s->new_level = (int32_t)le32_get(d->new_level);
    s->delta_disks = (int32_t)le32_get(d->delta_disks);
    s->new_layout = le32_get(d->new_layout);
    s->new_chunk = le32_get(d->new_chunk);
    s->backwards = s->delta_disks < 0;
    if (!mul_u64(le64_get(d->reshape_position), 512, &s->reshape_position) ||
        s->delta_disks > MD_DISKS_0 || s->delta_disks < -MD_DISKS_0 ||
        (int)s->disks - s->delta_disks < 1)
        return err_bad(e, -EINVAL,
                       "the superblock is damaged: what it says of a reshape is impossible");
    return 0;
}

static void parse_state(const struct md_super_0 *d, struct md_super *s)
{
    bool clean = le32_get(d->state) & MD0_CLEAN;
    bool checkpoint = le64_get(d->checkpoint_events) == le64_get(d->events);
    s->events = le64_get(d->events);
    if (clean)
        s->resync_offset = UINT64_MAX;
    else
        s->resync_offset = checkpoint ? le32_get(d->resync_offset) * 512ull : 0;
    if (le32_get(d->state) & MD0_BITMAP) {
        s->features |= MD_BITMAP;
        s->bitmap_offset = MD_SUPER_BYTES;
    }
    s->number = le32_get(d->this_disk.number);
    s->role_count = MD_DISKS_0;
    for (unsigned i = 0; i < MD_DISKS_0; i++)
        s->roles[i] = (uint16_t)role_of(&d->disk[i]);
    uint32_t mine = le32_get(d->this_disk.state);
    s->devflags =
        (mine & MD0_WRITE_MOSTLY ? MD_WRITE_MOSTLY : 0) | (mine & MD0_FAILFAST ? MD_FAILFAST : 0);
}

int md_super_0_parse(const uint8_t *raw, uint64_t bytes, struct md_super *s, struct blk_error *e)
{
    const struct md_super_0 *d = (const struct md_super_0 *)s->raw;
    if (le32_get(d->magic) == __builtin_bswap32(MD_MAGIC)) {
        swap_words(s->raw);
        s->swapped = s->read_only = true;
    }
    uint32_t minor = le32_get(d->minor);
    if (le32_get(d->magic) != MD_MAGIC || le32_get(d->major) != 0 || minor < 90 || minor > 91)
        return -ENODATA;
    uint32_t sum = checksum(s->raw), said = le32_get(d->checksum);
    if (sum != said && fold(sum) != fold(said))
        return err_bad(e, -EINVAL, "the superblock is damaged: its checksum is wrong");
    memcpy(s->uuid, &d->uuid0, 4);
    memcpy(s->uuid + 4, &d->uuid1, 12);
    s->ctime = le32_get(d->ctime);
    s->utime = le32_get(d->utime);
    s->level = (int32_t)le32_get(d->level);
    s->layout = s->level == 0 ? 0 : le32_get(d->layout);
    s->disks = le32_get(d->disks);
    s->chunk = le32_get(d->chunk);
    s->size = le32_get(d->size) * KiB;
    s->data_size = s->super_offset;
    if (s->disks > MD_DISKS_0 || le32_get(d->this_disk.number) >= MD_DISKS_0)
        return err_bad(e, -EINVAL, "the superblock is damaged: it says more than %u members",
                       MD_DISKS_0);
    if (s->level > 0 && s->size > s->data_size)
        return err_bad(e, -EINVAL,
                       "the superblock says that %" PRIu64 " bytes are used of each member, and "
                       "this one has been cut off at %" PRIu64,
                       s->size, bytes);
    if (s->level <= 0)
        s->size = 0;
    parse_state(d, s);
    return parse_reshape(d, s, e);
}

/* --- writing -----------------------------------------------------------------------------------
 */

static uint32_t state_of(const struct md_super *s, unsigned number)
{
    unsigned role = md_super_role(s, number);
    if (role == MD_ROLE_FAULTY)
        return MD0_FAULTY;
    if (role < MD_DISKS_0)
        return MD0_ACTIVE | MD0_SYNC;
    return number < s->disks ? MD0_REMOVED | MD0_FAULTY : 0;
}

static void build_disks(const struct md_super *s, struct md_super_0 *d)
{
    uint32_t active = 0, failed = 0, spare = 0;
    for (unsigned i = 0; i < MD_DISKS_0; i++) {
        uint32_t state = state_of(s, i), was = le32_get(d->disk[i].state);
        unsigned role = md_super_role(s, i);
        bool there = role != MD_ROLE_SPARE || le32_get(d->disk[i].number) != 0;
        d->disk[i].state = le32_of(state | (was & (MD0_WRITE_MOSTLY | MD0_FAILFAST)));
        d->disk[i].number = le32_of(there || i < s->disks ? i : 0);
        d->disk[i].role = le32_of(role < MD_DISKS_0 ? role : there || i < s->disks ? i : 0);
        active += state & MD0_SYNC ? 1 : 0;
        failed += (state & (MD0_FAULTY | MD0_REMOVED)) == MD0_FAULTY ? 1 : 0;
        spare += there && i >= s->disks && state == 0 ? 1 : 0;
    }
    d->active = le32_of(active);
    d->working = le32_of(active + spare);
    d->spare = le32_of(spare);
    d->failed = le32_of(failed);
    d->nr_disks = le32_of(active + failed + spare);
    d->this_disk = d->disk[s->number];
}

static void build_reshape(const struct md_super *s, struct md_super_0 *d)
{
    d->minor = le32_of(s->reshaping ? 91 : 90);
    d->reshape_position = le64_of(s->reshaping ? s->reshape_position / 512 : 0);
    d->new_level = le32_of(s->reshaping ? (uint32_t)s->new_level : 0);
    d->delta_disks = le32_of(s->reshaping ? (uint32_t)s->delta_disks : 0);
    d->new_layout = le32_of(s->reshaping ? s->new_layout : 0);
    d->new_chunk = le32_of(s->reshaping ? (uint32_t)s->new_chunk : 0);
}

void md_super_0_build(struct md_super *s)
{
    struct md_super_0 *d = (struct md_super_0 *)s->raw;
    bool clean = s->resync_offset == UINT64_MAX;
    uint32_t state = le32_get(d->state) & ~(uint32_t)MD0_CLEAN;
    d->utime = le32_of((uint32_t)s->utime);
    d->state = le32_of(state | (clean ? MD0_CLEAN : 0));
    d->events = le64_of(s->events);
    d->checkpoint_events = le64_of(clean ? 0 : s->events);
    d->resync_offset = le32_of(clean ? 0 : (uint32_t)MIN(s->resync_offset / 512, UINT32_MAX));
    d->disks = le32_of(s->disks);
    build_disks(s, d);
    build_reshape(s, d);
    d->checksum = le32_of(checksum(s->raw));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_super.c - any bytes as what lies on members of md: superblocks of all versions, those of
 * dm-raid, write-intent bitmaps, lists of bad blocks. What can be parsed is written and parsed
 * again, as the same, and a plan is made of superblocks.
 *
 * The input's first byte says as what, the next 8 how large the member is; then come its bytes.
 * Checksums are put right, or nothing would be seen of what is behind them. */
#include "raid/assemble.h"
#include "raid/badblocks.h"
#include "raid/bitmap.h"
#include "raid/super.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { AS_DM_RAID = MD_DM_RAID, AS_BITMAP, AS_BAD_BLOCKS, AS_KINDS };

#define HEAD 9

static void must(bool yes)
{
    if (!yes)
        __builtin_trap();
}

/* --- superblocks -------------------------------------------------------------------------------
 */

/* The sum of the little-endian words of @bytes but for the one at @field, which it is put into. */
static void seal(uint8_t *raw, size_t bytes, size_t field)
{
    uint64_t sum = 0;
    memset(raw + field, 0, 4);
    for (size_t i = 0; i < bytes; i += 2)
        sum += (uint64_t)(raw[i] | raw[i + 1] << 8) << (i % 4 ? 16 : 0);
    le32 folded = le32_of((uint32_t)((sum & UINT32_MAX) + (sum >> 32)));
    memcpy(raw + field, &folded, sizeof(folded));
}

static void seal_super(enum md_version v, uint8_t *raw)
{
    const struct md_super_1 *one = (const struct md_super_1 *)raw;
    if (v == MD_0_90)
        seal(raw, MD_SUPER_BYTES, offsetof(struct md_super_0, checksum));
    else if (v < MD_VERSIONS)
        seal(raw, 256 + 2 * (size_t)MIN(le32_get(one->max_dev), MD_ROLES_1),
             offsetof(struct md_super_1, checksum));
}

static int parse(enum md_version v, const uint8_t *raw, uint64_t member, struct md_super *out)
{
    struct blk_error e = {0};
    int rc = v == MD_DM_RAID ? md_super_dm_parse(raw, member, 4 * MiB, out, &e)
                             : md_super_parse(v, raw, member, out, &e);
    must(rc == 0 || rc == -ENODATA || e.text[0]);
    return rc;
}

static void plan(struct md_super *s, struct md_super *other)
{
    for (unsigned force = 0; force < 2; force++) {
        struct raid_candidate c[] = {{.name = "a", .super = s}, {.name = "b", .super = other}};
        struct raid_plan p;
        struct blk_error e = {0};
        if (raid_plan(c, 2, force, &p, &e) < 0) {
            must(e.text[0]);
            continue;
        }
        must(p.there + p.missing == p.shape.disks && (p.enough || force));
        raid_plan_drop(&p);
    }
}

static void use_super(enum md_version v, uint8_t *raw, uint64_t member)
{
    struct md_super *s = mem_alloc(sizeof(*s)), *again = mem_alloc(sizeof(*again));
    if (!s || !again)
        abort();
    seal_super(v, raw);
    if (parse(v, raw, member, s) == 0) {
        must(s->role_count <= MD_ROLES_1 && s->disks <= MD_ROLES_1 && s->number < MD_ROLES_1);
        must(v == MD_0_90 || range_fits(s->data_offset, s->data_size, member));
        *again = *s;
        if (!s->read_only) {
            md_super_build(s);
            must(parse(v, s->raw, member, again) == 0);
            must(md_super_same_array(s, again) && s->events == again->events);
            must(memcmp(s->roles, again->roles, sizeof(s->roles)) == 0);
        }
        again->number = (again->number + 1) % MD_DISKS_0;
        plan(s, again);
    }
    mem_free(s);
    mem_free(again);
}

/* --- bitmaps and lists of bad blocks -----------------------------------------------------------
 */

static void use_bitmap(const uint8_t *raw)
{
    struct md_bitmap b, again;
    struct blk_error e = {0};
    uint8_t built[MD_BITMAP_HEADER] = {0};
    if (md_bitmap_parse(raw, &b, &e) < 0)
        return;
    md_bitmap_build(&b, built);
    must(md_bitmap_parse(built, &again, &e) == 0);
    must(b.bits == again.bits && b.chunk == again.chunk && b.events == again.events);
    must(md_bitmap_bytes(&b) >= MD_BITMAP_HEADER + b.bits / 8);
}

static void check_list(const struct bad_list *l)
{
    must(l->count <= l->room && l->told_count <= l->room);
    for (unsigned i = 0; i < l->count; i++) {
        must(l->range[i].start < l->range[i].end);
        must(i == 0 || l->range[i - 1].end < l->range[i].start);
    }
}

/* What is added is bad, what is cleared is not, if there is room to say so. */
static void use_list(const uint8_t *raw, uint64_t member)
{
    struct bad_list *l = mem_zalloc(sizeof(*l));
    if (!l)
        abort();
    l->room = BAD_MOST;
    l->shift = 9 + (unsigned)(member >> 56) % 41;
    bad_parse(l, (const le64 *)raw);
    check_list(l);
    uint64_t at = align_up(member % (1ull << 54), 1ull << l->shift), unit = 1ull << l->shift;
    if (bad_add(l, at, unit)) {
        must(bad_hits(l, at, 1) && bad_even(l, at, unit) == unit);
        check_list(l);
    }
    unsigned before = l->count;
    bad_clear(l, at, unit);
    must(!bad_hits(l, at, unit) || before == l->room);
    check_list(l);
    mem_free(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < HEAD)
        return 0;
    uint8_t *raw = mem_aligned(MD_SUPER_BYTES);
    le64 member;
    if (!raw)
        abort();
    memset(raw, 0, MD_SUPER_BYTES);
    memcpy(raw, data + HEAD, MIN(bytes - HEAD, MD_SUPER_BYTES));
    memcpy(&member, data + 1, sizeof(member));
    unsigned as = data[0] % AS_KINDS;
    if (as == AS_BITMAP)
        use_bitmap(raw);
    else if (as == AS_BAD_BLOCKS)
        use_list(raw, le64_get(member));
    else
        use_super((enum md_version)as, raw, le64_get(member) & INT64_MAX);
    mem_free(raw);
    return 0;
}

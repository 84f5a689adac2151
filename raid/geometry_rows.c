/* SPDX-License-Identifier: BSD-3-Clause */
/* geometry_rows.c - levels 4, 5 and 6: which member of a row has P, which Q, and the order of the
 * data.
 *
 * A layout is a rule of three choices: where P stands, how the data follows, and which power of the
 * generator each disk has in Q. N is the number of disks. The rules named _6 are those of level 5
 * over the first N - 1 disks, with Q on the last. */
#include "raid/geometry.h"

enum p_place { P_FALLS, P_RISES, P_FALLS_LATE, P_AT_0, P_AT_END };
enum data_order {
    DATA_SKIPS, /* ascending disks, past P and Q */
    DATA_TURNS, /* from the disk behind the last parity on, around */
};
enum q_place { Q_BEHIND_P, Q_BEFORE_P, Q_LAST };

static const struct parity_rule rules[] = {
    {"left-asymmetric", "la", LEFT_ASYMMETRIC, true, true, P_FALLS, Q_BEHIND_P, DATA_SKIPS, false},
    {"right-asymmetric", "ra", RIGHT_ASYMMETRIC, true, true, P_RISES, Q_BEHIND_P, DATA_SKIPS,
     false},
    {"left-symmetric", "ls", LEFT_SYMMETRIC, true, true, P_FALLS, Q_BEHIND_P, DATA_TURNS, false},
    {"right-symmetric", "rs", RIGHT_SYMMETRIC, true, true, P_RISES, Q_BEHIND_P, DATA_TURNS, false},
    {"parity-first", "pf", PARITY_FIRST, true, true, P_AT_0, Q_BEHIND_P, DATA_SKIPS, false},
    {"parity-last", "pl", PARITY_LAST, true, true, P_AT_END, Q_BEHIND_P, DATA_SKIPS, false},
    {"ddf-zero-restart", "ddf-zr", DDF_ZERO_RESTART, false, true, P_RISES, Q_BEHIND_P, DATA_SKIPS,
     true},
    {"ddf-N-restart", "ddf-nr", DDF_N_RESTART, false, true, P_FALLS_LATE, Q_BEHIND_P, DATA_SKIPS,
     true},
    {"ddf-N-continue", "ddf-nc", DDF_N_CONTINUE, false, true, P_FALLS, Q_BEFORE_P, DATA_TURNS,
     true},
    {"left-asymmetric-6", "la_6", LEFT_ASYMMETRIC_6, false, true, P_FALLS, Q_LAST, DATA_SKIPS,
     false},
    {"right-asymmetric-6", "ra_6", RIGHT_ASYMMETRIC_6, false, true, P_RISES, Q_LAST, DATA_SKIPS,
     false},
    {"left-symmetric-6", "ls_6", LEFT_SYMMETRIC_6, false, true, P_FALLS, Q_LAST, DATA_TURNS, false},
    {"right-symmetric-6", "rs_6", RIGHT_SYMMETRIC_6, false, true, P_RISES, Q_LAST, DATA_TURNS,
     false},
    {"parity-first-6", "pf_6", PARITY_FIRST_6, false, true, P_AT_0, Q_LAST, DATA_SKIPS, false},
};

static bool rule_fits(const struct parity_rule *r, const struct raid_level *l)
{
    return l->parities == 2 ? r->for_6 : r->for_5;
}

const struct parity_rule *raid_rule_by_number(const struct raid_level *l, uint32_t layout)
{
    if (l->number == 4)
        layout = PARITY_LAST;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].layout == layout && rule_fits(&rules[i], l))
            return &rules[i];
    return NULL;
}

const struct parity_rule *raid_rule_by_name(const struct raid_level *l, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if ((strcmp(rules[i].name, name) == 0 || strcmp(rules[i].brief, name) == 0) &&
            rule_fits(&rules[i], l))
            return &rules[i];
    return NULL;
}

int raid_rows_prepare(struct raid_shape *s, struct blk_error *e)
{
    s->rule = raid_rule_by_number(s->level, s->layout);
    if (!s->rule)
        return err_set(e, -EINVAL, "layout %u of %s is not known", s->layout, s->level->name);
    s->data_disks = s->disks - s->level->parities;
    if (!mul_u64(s->member - s->member % s->chunk, s->data_disks, &s->size))
        return err_set(e, -EFBIG, "the array is too big");
    return 0;
}

/* Disks over which P turns: with Q on the last one it keeps out of there. */
static uint32_t turning(const struct raid_shape *s)
{
    return s->rule->q == Q_LAST && s->level->parities == 2 ? s->disks - 1 : s->disks;
}

struct raid_row raid_row(const struct raid_shape *s, uint64_t row)
{
    struct raid_row r = {.shape = s, .q = RAID_NO_DISK};
    uint32_t n = turning(s), turn = row % n;
    switch (s->rule->p) {
    case P_FALLS:
        r.p = n - 1 - turn;
        break;
    case P_RISES:
        r.p = turn;
        break;
    case P_FALLS_LATE:
        r.p = n - 1 - (turn + 1) % n;
        break;
    case P_AT_0:
        r.p = 0;
        break;
    case P_AT_END:
        r.p = n - s->level->parities;
        break;
    }
    if (s->level->parities == 2) {
        if (s->rule->q == Q_LAST)
            r.q = s->disks - 1;
        else
            r.q = (r.p + (s->rule->q == Q_BEHIND_P ? 1 : n - 1)) % n;
    }
    return r;
}

/* How many of the parities stand before @disk. */
static unsigned parities_before(const struct raid_row *r, uint32_t disk)
{
    return (r->p < disk) + (r->q < disk); /* RAID_NO_DISK is before nothing */
}

/* Where the data of a turning order begins. */
static uint32_t first_turning(const struct raid_row *r)
{
    bool q_follows = r->q != RAID_NO_DISK && r->shape->rule->q == Q_BEHIND_P;
    return (r->p + 1 + q_follows) % turning(r->shape);
}

uint32_t raid_row_disk(const struct raid_row *r, unsigned i)
{
    if (r->shape->rule->data == DATA_TURNS)
        return (first_turning(r) + i) % turning(r->shape);
    uint32_t low = MIN(r->p, r->q), high = r->q == RAID_NO_DISK ? r->q : MAX(r->p, r->q);
    uint32_t disk = i;
    disk += disk >= low;
    disk += disk >= high;
    return disk;
}

unsigned raid_row_index(const struct raid_row *r, uint32_t disk)
{
    uint32_t n = turning(r->shape);
    if (disk == r->p || disk == r->q)
        return r->shape->data_disks;
    if (r->shape->rule->data == DATA_TURNS)
        return (disk + n - first_turning(r)) % n;
    return disk - parities_before(r, disk);
}

unsigned raid_row_power(const struct raid_row *r, uint32_t disk)
{
    uint32_t n = r->shape->disks;
    if (r->shape->rule->powers_by_disk)
        return disk;
    if (r->q == RAID_NO_DISK)
        return raid_row_index(r, disk);
    uint32_t steps = (disk + n - r->q - 1) % n, p_steps = (r->p + n - r->q - 1) % n;
    return steps - (p_steps < steps);
}

unsigned raid_row_powers(const struct raid_shape *s)
{
    return s->rule->powers_by_disk ? s->disks : s->data_disks;
}

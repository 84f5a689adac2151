/* SPDX-License-Identifier: BSD-3-Clause */
/* foreign.c - members of arrays that are not md's: found on a device, and told with a spec for each
 * of their volumes. The disks are put into the volume's order: by what their metadata say (DDF), or
 * by the serial number that is part of their name, as tools that copy disks name copies (Intel's
 * metadata are the same on all disks). */
#include <stdio.h>

#include "raid/foreign.h"

/* --- finding -----------------------------------------------------------------------------------
 */

static int co_read(struct blk_device *dev, uint64_t at, uint8_t *to, uint64_t bytes,
                   struct blk_error *e)
{
    int rc = co_blk_read_buf(dev, at, to, bytes);
    return rc < 0 ? err_errno(e, rc, "the metadata at byte %" PRIu64 " cannot be read", at) : 0;
}

/* From the header on, if that is whole. */
static int co_ddf_at(struct blk_device *dev, uint64_t place, struct foreign *out,
                     struct blk_error *e)
{
    uint64_t bytes;
    uint8_t head[DDF_SECTOR];
    TRY(co_read(dev, place, head, sizeof(head), e));
    TRY(foreign_ddf_header(head, &bytes, e));
    if (!range_fits(place, bytes, dev->size))
        return err_bad(e, -EINVAL, "DDF: the metadata are cut off: the disk was longer once");
    auto_free uint8_t *raw = mem_aligned(bytes);
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_read(dev, place, raw, bytes, e));
    return foreign_ddf_parse(raw, bytes, out, e);
}

/* The primary header counts, the secondary one where that is damaged. */
static int co_find_ddf(struct blk_device *dev, const uint8_t *anchor, struct foreign *out,
                       struct blk_error *e)
{
    uint64_t place[2];
    TRY(foreign_ddf_anchor(anchor, dev->size, place, e));
    int rc = err_bad(e, -EINVAL, "DDF: the anchor is damaged: it says of no header where it is");
    for (unsigned i = 0; i < 2 && rc < 0 && rc != -ENOMEM; i++)
        if (place[i] != UINT64_MAX)
            rc = co_ddf_at(dev, place[i], out, e);
    return rc;
}

int co_foreign_find(struct blk_device *dev, struct foreign **out, struct blk_error *e)
{
    uint64_t end = align_down(dev->size, DDF_SECTOR), bytes = MIN(end, IMSM_TAIL);
    *out = NULL;
    if (bytes < 2 * DDF_SECTOR)
        return 0;
    auto_free struct foreign *f = mem_zalloc(sizeof(*f));
    auto_free uint8_t *tail = mem_aligned(bytes);
    if (!f || !tail)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_read(dev, end - bytes, tail, bytes, e));
    int rc = foreign_imsm_parse(tail, bytes, f, e);
    if (rc == -ENODATA)
        rc = co_find_ddf(dev, tail + bytes - DDF_SECTOR, f, e);
    if (rc == 0)
        *out = take(f);
    return rc == -ENODATA ? 0 : rc;
}

void foreign_text(char to[FOREIGN_NAME], const char *from)
{
    size_t n = strnlen(from, FOREIGN_NAME - 1);
    while (n > 0 && from[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++)
        to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
    to[n] = 0;
}

/* --- specs -------------------------------------------------------------------------------------
 */

/* One volume: who has its slots. */
struct set {
    const struct foreign_volume *volume; /* as the freshest member has it */
    uint64_t generation;
    const struct foreign_member *by_slot[FOREIGN_DISKS];
    uint64_t offset[FOREIGN_DISKS];
    bool out[FOREIGN_DISKS];
    bool sliced; /* each member is told with where its data lies: not all agree, or (level 0) md
                    would use all behind it */
    unsigned told, placed; /* members; those whose slots are known */
};

static const struct foreign_volume *volume_of(const struct foreign *f, const uint8_t *id)
{
    for (unsigned i = 0; f && i < f->count; i++)
        if (memcmp(f->volume[i].id, id, FOREIGN_ID) == 0)
            return &f->volume[i];
    return NULL;
}

/* The slot of the disk whose serial number is in the name, the longest one. */
static unsigned slot_of(const struct foreign_volume *v, const char *name)
{
    const char *slash = strrchr(name, '/');
    unsigned best = RAID_NO_DISK;
    size_t length = 0;
    for (unsigned i = 0; i < v->disks; i++)
        if (strlen(v->serial[i]) > length && strstr(slash ? slash : name, v->serial[i])) {
            best = i;
            length = strlen(v->serial[i]);
        }
    return v->slot != RAID_NO_DISK ? v->slot : best;
}

static void take_member(struct set *s, const struct foreign_member *m)
{
    const struct foreign_volume *v = volume_of(m->of, s->volume->id);
    if (!v || m->of->generation + 1 < s->generation || v->disks != s->volume->disks)
        return; /* it left the array before the others went on */
    unsigned slot = slot_of(v, m->name);
    s->told++;
    for (unsigned i = 0; i < v->disks; i++)
        s->out[i] |= v->out[i];
    if (slot == RAID_NO_DISK || s->by_slot[slot])
        return;
    s->placed++;
    s->by_slot[slot] = m;
    s->offset[slot] = v->offset;
}

static void gather(struct set *s, const uint8_t *id, const struct foreign_member *m, size_t count)
{
    *s = (struct set){0};
    for (size_t i = 0; i < count; i++) {
        const struct foreign_volume *v = volume_of(m[i].of, id);
        if (v && (!s->volume || m[i].of->generation > s->generation)) {
            s->volume = v;
            s->generation = m[i].of->generation;
        }
    }
    for (size_t i = 0; i < count; i++)
        take_member(s, &m[i]);
    uint64_t first = UINT64_MAX;
    s->sliced = s->volume->level == 0;
    for (unsigned i = 0; i < s->volume->disks; i++)
        if (s->by_slot[i]) {
            first = first == UINT64_MAX ? s->offset[i] : first;
            s->sliced |= s->offset[i] != first;
        }
}

/* Commas doubled @times. */
static void put_name(FILE *to, const char *name, unsigned times)
{
    for (; *name; name++)
        for (unsigned i = 0; i < (*name == ',' ? 1u << times : 1); i++)
            fputc(*name, to);
}

/* Whether a serial number stands in the slot: of a disk that is not known by its name, or not told.
 * Where all of several were known, or one of a mirror, the others are missing. */
static bool by_serial(const struct set *s, unsigned slot)
{
    bool all = s->told == s->placed && (s->told > 1 || s->volume->level == 1);
    return !s->by_slot[slot] && !s->out[slot] && !all && s->volume->serial[slot][0];
}

static void put_member(FILE *to, const struct set *s, unsigned slot)
{
    const struct foreign_member *m = s->by_slot[slot];
    const char *serial = s->volume->serial[slot];
    if (s->out[slot] || (!m && !by_serial(s, slot))) {
        fputs("missing", to);
    } else if (!s->sliced) {
        put_name(to, m ? m->name : serial, 1);
    } else {
        fputs("driver=raw,,file=", to);
        put_name(to, m ? m->name : serial, 2);
        fprintf(to, ",,offset=%" PRIu64 ",,size=%" PRIu64, m ? s->offset[slot] : s->volume->offset,
                s->volume->used);
    }
}

static bool is_raw(const struct set *s)
{
    for (unsigned i = 0; i < s->volume->disks; i++)
        if (s->by_slot[i] && s->by_slot[i]->format)
            return false;
    return true;
}

static void put_spec(FILE *to, const struct set *s)
{
    const struct foreign_volume *v = s->volume;
    const struct raid_level *l = raid_level_by_number(v->level);
    char layout[RAID_LAYOUT_TEXT];
    uint64_t offset = v->offset;
    for (unsigned i = 0; i < v->disks; i++) {
        fputc(i ? ',' : ':', to);
        put_member(to, s, i);
        offset = s->by_slot[i] ? s->offset[i] : offset;
    }
    fprintf(to, ",level=%d", v->level);
    raid_layout_text(l, v->layout, layout);
    if (v->level > 4) /* others have none, or one that counts for members of different sizes only */
        fprintf(to, ",layout=%s", layout);
    if (l->has_chunk)
        fprintf(to, ",chunk=%" PRIu64, v->chunk);
    if (!s->sliced)
        fprintf(to, ",data-offset=%" PRIu64 ",member-size=%" PRIu64, offset, v->used);
    if (!s->sliced && is_raw(s))
        fputs(",format=raw", to);
}

static void put_volume(FILE *to, const struct set *s)
{
    const struct foreign_volume *v = s->volume;
    fprintf(to, "; volume '%s' ", v->name);
    if (v->cannot) {
        fprintf(to, "cannot be read as an array of md: %s", v->cannot);
        return;
    }
    if (s->sliced && !is_raw(s)) {
        fputs("takes parts of its members: convert them to raw", to);
        return;
    }
    fputs("is read with md", to);
    put_spec(to, s);
    for (unsigned i = 0; i < v->disks; i++)
        if (by_serial(s, i)) {
            fprintf(to, ", where %s stands for the disk of that serial number", v->serial[i]);
            break;
        }
}

/* Whether nobody before member @i told of the volume. */
static bool is_first(const struct foreign_member *m, size_t i, const uint8_t *id)
{
    for (size_t k = 0; k < i; k++)
        if (volume_of(m[k].of, id))
            return false;
    return true;
}

int foreign_tell(const struct foreign_member *m, size_t count, char **out)
{
    size_t bytes, first = 0;
    FILE *to = open_memstream(out, &bytes);
    if (!to)
        return -ENOMEM;
    while (first + 1 < count && !m[first].of)
        first++;
    assert(m[first].of);
    fprintf(to, "%s of an array of %s, which its controller or mdadm assembles",
            count == 1 ? "a member" : "members", m[first].of->family);
    for (size_t i = 0; i < count; i++)
        for (unsigned k = 0; m[i].of && k < m[i].of->count; k++) {
            struct set s;
            if (!is_first(m, i, m[i].of->volume[k].id))
                continue;
            gather(&s, m[i].of->volume[k].id, m, count);
            put_volume(to, &s);
        }
    return fclose(to) == 0 ? 0 : -ENOMEM;
}

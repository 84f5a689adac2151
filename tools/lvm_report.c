/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_report.c - lists of physical volumes, groups and volumes: the columns, the letters and the
 * sizes of lvm2's pvs, vgs and lvs. */
#include <stdlib.h>

#include "tools/lvm.h"

/* "<1.50g": three digits at most behind which lvm2 says that it rounded up. */
static json_t *size_text(uint64_t bytes)
{
    static const char units[] = "bkmgtpe";
    unsigned unit = 0;
    double value = (double)bytes;
    char text[40];
    if (bytes == 0)
        return json_string("0 ");
    for (; value >= 1024 && units[unit + 1]; unit++)
        value /= 1024;
    snprintf(text, sizeof(text), "%.2f", value);
    return json_sprintf("%s%s%c", strtod(text, NULL) > value ? "<" : "", text, units[unit]);
}

static int add_row(struct lvm_verb *v, json_t *row)
{
    if (!v->rows)
        v->rows = json_array();
    return row && json_array_append_new(v->rows, row) == 0
               ? 0
               : err_set(&v->error, -ENOMEM, "out of memory");
}

/* --- physical volumes --------------------------------------------------------------------------
 */

static json_t *pv_row(const char *name, const struct lvm_vg *vg, const struct lvm_pv *pv,
                      uint64_t device_bytes)
{
    uint64_t size = pv ? pv->extents * vg->extent_bytes : device_bytes;
    bool can = pv && lvm_list_has(pv->node, "status", "ALLOCATABLE");
    char attr[4] = {can ? 'a' : '-', vg && vg->exported ? 'x' : '-',
                    pv && lvm_pv_lost(pv) ? 'm' : '-', 0};
    return json_pack("{s:o, s:s, s:s, s:s, s:o, s:o}", "pv_name", output_text(name), "vg_name",
                     vg ? vg->name : "", "pv_fmt", "lvm2", "pv_attr", attr, "pv_size",
                     size_text(size), "pv_free",
                     size_text(pv ? lvm_free_extents(vg, pv) * vg->extent_bytes : device_bytes));
}

int lvm_report_pvs(struct lvm_verb *v)
{
    for (size_t i = 0; i < v->set->member_count; i++) {
        const struct lvm_member *m = &v->set->members[i];
        const struct lvm_pv *pv = m->vg ? lvm_find_pv(m->vg, m->label.uuid) : NULL;
        TRY(add_row(v, pv_row(v->texts[i], m->vg, pv, m->label.device_bytes)));
    }
    for (size_t g = 0; g < v->set->vg_count; g++)
        for (size_t i = 0; i < v->set->vgs[g]->pv_count; i++)
            if (!v->set->vgs[g]->pvs[i].dev)
                TRY(add_row(v, pv_row("[unknown]", v->set->vgs[g], &v->set->vgs[g]->pvs[i], 0)));
    return 0;
}

/* --- groups ------------------------------------------------------------------------------------
 */

static bool is_partial(const struct lvm_vg *vg)
{
    for (size_t i = 0; i < vg->pv_count; i++)
        if (lvm_pv_lost(&vg->pvs[i]))
            return true;
    return false;
}

static bool is_tie(const struct lvm_lv *lv)
{
    return lv->segments[0].type->what == LVM_SNAPSHOT;
}

static bool is_shown(const struct lvm_lv *lv)
{
    return !is_tie(lv) && (lv->visible || lv->snapshot);
}

static json_t *vg_row(const struct lvm_vg *vg)
{
    unsigned lvs = 0, snaps = 0;
    uint64_t extents = 0;
    for (size_t i = 0; i < vg->lv_count; i++) {
        lvs += is_shown(&vg->lvs[i]);
        snaps += vg->lvs[i].snapshot != NULL;
    }
    for (size_t i = 0; i < vg->pv_count; i++)
        extents += vg->pvs[i].extents;
    char attr[7] = {vg->writable ? 'w' : 'r',
                    vg->resizeable ? 'z' : '-',
                    vg->exported ? 'x' : '-',
                    is_partial(vg) ? 'p' : '-',
                    'n',
                    '-',
                    0};
    return json_pack("{s:s, s:o, s:o, s:o, s:s, s:o, s:o}", "vg_name", vg->name, "pv_count",
                     json_sprintf("%zu", vg->pv_count), "lv_count", json_sprintf("%u", lvs),
                     "snap_count", json_sprintf("%u", snaps), "vg_attr", attr, "vg_size",
                     size_text(extents * vg->extent_bytes), "vg_free",
                     size_text(lvm_free_extents(vg, NULL) * vg->extent_bytes));
}

int lvm_report_vgs(struct lvm_verb *v)
{
    for (size_t i = 0; i < v->set->vg_count; i++)
        TRY(add_row(v, vg_row(v->set->vgs[i])));
    return 0;
}

/* --- logical volumes ---------------------------------------------------------------------------
 */

/* The first letter of a part of another volume. */
static char part_letter(const struct lvm_lv *lv)
{
    static const struct {
        const char *in_name;
        char letter;
    } parts[] = {{"_rimage_", 'I'}, {"_mimage_", 'I'}, {"_rmeta_", 'e'}, {"_tmeta", 'e'},
                 {"_pmspare", 'e'}, {"_tdata", 'T'},   {"_mlog", 'l'}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (strstr(lv->name, parts[i].in_name))
            return parts[i].letter;
    return '-';
}

static char kind_letter(const struct lvm_lv *lv)
{
    static const char letters[] = {
        [LVM_MIRROR] = 'm', [LVM_RAID] = 'r', [LVM_POOL] = 't', [LVM_THIN] = 'V', [LVM_OTHER] = 0};
    char kind = letters[lv->segments[0].type->what];
    bool virtual = lv->segments[0].type->what == LVM_ERROR ||
                   lv->segments[0].type->what == LVM_ZERO;
    if (lv->snapshot)
        return 's';
    if (lv->has_snapshots)
        return 'o';
    if (virtual && part_letter(lv) != 'e')
        return 'v';
    return kind ? kind : lv->visible ? '-' : part_letter(lv);
}

/* What its device-mapper target is called. */
static char target_letter(const struct lvm_lv *lv)
{
    enum lvm_what what = lv->segments[0].type->what;
    if (lv->snapshot || lv->has_snapshots)
        return 's';
    if (what == LVM_RAID || strstr(lv->name, "_rimage_") || strstr(lv->name, "_rmeta_"))
        return 'r';
    if (what == LVM_MIRROR || strstr(lv->name, "_mimage_") || strstr(lv->name, "_mlog"))
        return 'm';
    return what == LVM_THIN || what == LVM_POOL ? 't' : '-';
}

static bool zeroes_blocks(const struct lvm_lv *lv)
{
    const struct lvm_segment *s = &lv->segments[0];
    uint64_t zero = 0;
    if (s->type->what == LVM_THIN)
        s = &s->pool->segments[0];
    return s->type->what == LVM_POOL && lvm_find_number(s->node, "zero_new_blocks", &zero) && zero;
}

static json_t *lv_row(const struct lvm_vg *vg, const struct lvm_lv *lv)
{
    const struct lvm_segment *s = lv->snapshot ? lv->snapshot : &lv->segments[0];
    char attr[] = "--i-------";
    attr[0] = kind_letter(lv);
    attr[1] = lv->writable ? 'w' : 'r';
    attr[6] = target_letter(lv);
    attr[7] = zeroes_blocks(lv) ? 'z' : '-';
    attr[8] = lvm_lv_lost(lv) ? 'p' : '-';
    attr[9] = lvm_list_has(lv->node, "flags", "ACTIVATION_SKIP") ? 'k' : '-';
    return json_pack("{s:o, s:s, s:s, s:o, s:s, s:s}", "lv_name",
                     is_shown(lv) ? json_string(lv->name) : json_sprintf("[%s]", lv->name),
                     "vg_name", vg->name, "lv_attr", attr, "lv_size",
                     size_text(lvm_lv_bytes(vg, lv)), "pool_lv", s->pool ? s->pool->name : "",
                     "origin", s->origin ? s->origin->name : "");
}

int lvm_report_lvs(struct lvm_verb *v, bool all)
{
    for (size_t g = 0; g < v->set->vg_count; g++) {
        const struct lvm_vg *vg = v->set->vgs[g];
        for (size_t i = 0; i < vg->lv_count; i++) /* by name */
            if (is_shown(vg->by_name[i]) || (all && !is_tie(vg->by_name[i])))
                TRY(add_row(v, lv_row(vg, vg->by_name[i])));
    }
    return 0;
}

/* --- printing ----------------------------------------------------------------------------------
 */

static const struct column {
    const char *key, *title;
    bool right; /* numbers */
} columns[] = {
    {"pv_name", "PV", false},   {"lv_name", "LV", false},   {"vg_name", "VG", false},
    {"pv_count", "#PV", true},  {"lv_count", "#LV", true},  {"snap_count", "#SN", true},
    {"pv_fmt", "Fmt", false},   {"pv_attr", "Attr", false}, {"vg_attr", "Attr", false},
    {"lv_attr", "Attr", false}, {"pv_size", "PSize", true}, {"vg_size", "VSize", true},
    {"lv_size", "LSize", true}, {"pool_lv", "Pool", false}, {"origin", "Origin", false},
    {"pv_free", "PFree", true}, {"vg_free", "VFree", true},
};

static void print_cell(const struct column *c, const char *text, int width)
{
    printf(c->right ? " %*s" : " %-*s", width, text);
}

/* lvm2 prints a group's name before its attributes, and its counts before both. */
static void print_table(const json_t *rows)
{
    int widths[ARRAY_LEN(columns)] = {0};
    size_t i;
    json_t *row;
    for (size_t c = 0; c < ARRAY_LEN(columns); c++)
        json_array_foreach (rows, i, row) {
            const char *text = json_string_value(json_object_get(row, columns[c].key));
            if (text)
                widths[c] = MAX(widths[c], MAX((int)strlen(text), (int)strlen(columns[c].title)));
        }
    putchar(' ');
    for (size_t c = 0; c < ARRAY_LEN(columns); c++)
        if (widths[c])
            print_cell(&columns[c], columns[c].title, widths[c]);
    json_array_foreach (rows, i, row) {
        printf("\n ");
        for (size_t c = 0; c < ARRAY_LEN(columns); c++)
            if (widths[c])
                print_cell(&columns[c], json_string_value(json_object_get(row, columns[c].key)),
                           widths[c]);
    }
    putchar('\n');
}

int lvm_report_print(const struct lvm_verb *v, const char *what)
{
    if (v->tool->output == OUTPUT_JSON)
        return output_json(json_pack("{s:[{s:o}]}", "report", what,
                                     v->rows ? json_incref(v->rows) : json_array()));
    if (v->rows)
        print_table(v->rows);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* output_info.c - the facts of one image, for people and as JSON, as qemu-img 7.2 prints them. */
#include <time.h>

#include "tools/output.h"

static const char *text_at(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static long long number_at(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static void snapshot_line(const json_t *s)
{
    char size[32], date[32] = "", clock[80], icount[24] = "";
    time_t at = (time_t)number_at(s, "date-sec");
    struct tm tm;
    if (localtime_r(&at, &tm))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    long long sec = number_at(s, "vm-clock-sec");
    snprintf(clock, sizeof(clock), "%02lld:%02lld:%02lld.%03lld", sec / 3600, sec / 60 % 60,
             sec % 60, number_at(s, "vm-clock-nsec") / 1000000);
    if (json_object_get(s, "icount"))
        snprintf(icount, sizeof(icount), "%lld", number_at(s, "icount"));
    printf("%-9s %-16s %8s%20s%13s%11s\n", text_at(s, "id"), text_at(s, "name"),
           output_size((uint64_t)number_at(s, "vm-state-size"), size, sizeof(size)), date, clock,
           icount);
}

void output_snapshots(const json_t *list, uint64_t left_out)
{
    size_t i;
    const json_t *s;
    if (json_array_size(list) == 0)
        return;
    puts("Snapshot list:");
    printf("%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    json_array_foreach (list, i, s)
        snapshot_line(s);
    if (left_out)
        printf("and %" PRIu64 " more\n", left_out);
}

#define MAX_NESTING 16

static void value(const json_t *v, unsigned depth);

static void members(const json_t *v, unsigned depth)
{
    const char *key;
    json_t *item;
    size_t i;
    if (depth > MAX_NESTING)
        return;
    json_object_foreach ((json_t *)v, key, item) {
        printf("%*s", 4 * (int)depth, "");
        for (const char *c = key; *c; c++)
            putchar(*c == '-' ? ' ' : *c);
        value(item, depth);
    }
    json_array_foreach (v, i, item) {
        printf("%*s[%zu]", 4 * (int)depth, "", i);
        value(item, depth);
    }
}

/* What stands behind a key: on its line, or as lines of its own below. */
static void value(const json_t *v, unsigned depth)
{
    if (json_is_object(v) || json_is_array(v)) {
        puts(":");
        members(v, depth + 1);
    } else if (json_is_string(v)) {
        printf(": %s\n", json_string_value(v));
    } else if (json_is_integer(v)) {
        printf(": %lld\n", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        printf(": %g\n", json_real_value(v));
    } else {
        printf(": %s\n", json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    }
}

static void backing(const struct blk_info *i)
{
    if (!i->backing_name)
        return;
    printf("backing file: %s", i->backing_name);
    if (!i->full_backing_name)
        printf(" (cannot determine actual path)");
    else if (strcmp(i->backing_name, i->full_backing_name) != 0)
        printf(" (actual path: %s)", i->full_backing_name);
    putchar('\n');
    if (i->backing_format)
        printf("backing file format: %s\n", i->backing_format);
}

void output_info_specific(const struct blk_info *i)
{
    if (!i->specific || json_object_size(i->specific) == 0)
        return;
    puts("Format specific information:");
    members(i->specific, 1);
}

void output_info_human(const char *name, const char *format, const struct blk_info *i)
{
    char size[32], disk[32] = "unavailable";
    if (i->actual_size != UINT64_MAX)
        output_size(i->actual_size, disk, sizeof(disk));
    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\ndisk size: %s\n",
           name, format, output_size(i->virtual_size, size, sizeof(size)), i->virtual_size, disk);
    if (i->encrypted)
        puts("encrypted: yes");
    if (i->cluster_size)
        printf("cluster_size: %" PRIu32 "\n", i->cluster_size);
    if (i->dirty)
        puts("cleanly shut down: no");
    backing(i);
    output_snapshots(i->snapshots, i->snapshots_left_out);
    output_info_specific(i);
}

static void put(json_t *o, const char *key, json_t *v)
{
    json_object_set_new(o, key, v);
}

json_t *output_info_json(const char *name, const char *format, const struct blk_info *i)
{
    json_t *o = json_object();
    if (!o)
        return NULL;
    put(o, "filename", output_text(name));
    put(o, "format", json_string(format));
    put(o, "virtual-size", json_integer((json_int_t)i->virtual_size));
    if (i->actual_size != UINT64_MAX)
        put(o, "actual-size", json_integer((json_int_t)i->actual_size));
    if (i->cluster_size)
        put(o, "cluster-size", json_integer(i->cluster_size));
    if (i->encrypted)
        put(o, "encrypted", json_true());
    if (i->compressed)
        put(o, "compressed", json_true());
    if (i->has_dirty || i->actual_size != UINT64_MAX) /* QEMU has no such fact of a remote disk */
        put(o, "dirty-flag", json_boolean(i->dirty));
    if (i->backing_name)
        put(o, "backing-filename", output_text(i->backing_name));
    if (i->full_backing_name)
        put(o, "full-backing-filename", output_text(i->full_backing_name));
    if (i->backing_format)
        put(o, "backing-filename-format", output_text(i->backing_format));
    if (json_array_size(i->snapshots) > 0)
        put(o, "snapshots", json_incref(i->snapshots));
    if (i->snapshots_left_out)
        put(o, "snapshots-left-out", json_integer((json_int_t)i->snapshots_left_out));
    if (i->specific) {
        json_t *s = json_object();
        put(s, "type", json_string(format));
        put(s, "data", json_incref(i->specific));
        put(o, "format-specific", s);
    }
    return o;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* geometry_names.c - layouts as mdadm spells them. */
#include <stdio.h>
#include <stdlib.h>

#include "raid/geometry.h"

static const struct {
    const char *name;
    uint32_t layout;
} raid0_names[] = {{"original", RAID0_ORIGINAL}, {"alternate", RAID0_ALTERNATE}};

void raid_layout_text(const struct raid_level *l, uint32_t layout, char text[RAID_LAYOUT_TEXT])
{
    const struct parity_rule *rule = l->parities ? raid_rule_by_number(l, layout) : NULL;
    unsigned near = layout & 0xff, far = layout >> 8 & 0xff;
    char offset = layout >> 16 & 1 ? 'o' : 'f';

    snprintf(text, RAID_LAYOUT_TEXT, "%u", layout);
    if (l->number == RAID_LINEAR || l->number == 1 || l->number == 4)
        snprintf(text, RAID_LAYOUT_TEXT, "-");
    else if (rule)
        snprintf(text, RAID_LAYOUT_TEXT, "%s", rule->name);
    else if (l->number == 10 && far == 1)
        snprintf(text, RAID_LAYOUT_TEXT, "n%u", near);
    else if (l->number == 10 && near == 1)
        snprintf(text, RAID_LAYOUT_TEXT, "%c%u", offset, far);
    else if (l->number == 10)
        snprintf(text, RAID_LAYOUT_TEXT, "n%u%c%u", near, offset, far);
    for (size_t i = 0; i < ARRAY_LEN(raid0_names) && l->number == 0; i++)
        if (raid0_names[i].layout == layout)
            snprintf(text, RAID_LAYOUT_TEXT, "%s", raid0_names[i].name);
}

/* "n2", "f2", "o3", and both kinds: "n2f2". */
static bool parse_10(const char *text, uint32_t *layout)
{
    unsigned long near = 1, far = 1;
    bool offset = false;
    char *end = (char *)text;

    if (*end == 'n')
        near = strtoul(end + 1, &end, 10);
    if (*end == 'f' || *end == 'o') {
        offset = *end == 'o';
        far = strtoul(end + 1, &end, 10);
    }
    if (end == text || *end || near - 1 >= 255 || far - 1 >= 255)
        return false;
    *layout = (uint32_t)(near | far << 8 | (uint32_t)offset << 16);
    return true;
}

bool raid_layout_parse(const struct raid_level *l, const char *text, uint32_t *layout)
{
    const struct parity_rule *rule = l->parities ? raid_rule_by_name(l, text) : NULL;
    char *end;
    unsigned long number = strtoul(text, &end, 0);

    if (*text >= '0' && *text <= '9' && *end == 0 && number <= UINT32_MAX) {
        *layout = (uint32_t)number;
        return true;
    }
    if (rule)
        *layout = rule->layout;
    if (rule || (l->number == 10 && parse_10(text, layout)))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(raid0_names) && l->number == 0; i++)
        if (strcmp(raid0_names[i].name, text) == 0) {
            *layout = raid0_names[i].layout;
            return true;
        }
    return false;
}

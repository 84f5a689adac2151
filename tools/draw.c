/* SPDX-License-Identifier: BSD-3-Clause */
/* draw.c - chains and bars on a terminal. A cell is blank where a layer holds nothing of that part
 * of the disk, # where it holds nearly all of it, . and : between. */
#include <stdlib.h>
#include <unistd.h>

#include "tools/draw.h"

bool draw_is_wanted(const struct tool *t)
{
    return t->face == FACE_LAMINA && t->output == OUTPUT_HUMAN && isatty(STDOUT_FILENO);
}

int draw_init(struct draw *d, uint64_t size, size_t layers)
{
    const char *off = getenv("NO_COLOR");
    *d = (struct draw){.color = !off || !*off, .size = size, .layers = layers};
    d->held = mem_array(layers, sizeof(*d->held));
    if (!d->held)
        return -ENOMEM;
    memset(d->held, 0, layers * sizeof(*d->held));
    return 0;
}

/* Where cell @i begins. */
static uint64_t cell_at(const struct draw *d, unsigned i)
{
    return d->size / DRAW_CELLS * i + d->size % DRAW_CELLS * i / DRAW_CELLS;
}

void draw_add(struct draw *d, size_t layer, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    for (unsigned i = 0; layer < d->layers && i < DRAW_CELLS; i++) {
        uint64_t from = MAX(offset, cell_at(d, i)), to = MIN(end, cell_at(d, i + 1));
        if (from < to)
            d->held[layer][i] += to - from;
    }
}

static char cell(const struct draw *d, size_t layer, unsigned i)
{
    uint64_t bytes = cell_at(d, i + 1) - cell_at(d, i);
    double share = bytes ? (double)d->held[layer][i] / (double)bytes : 0;
    return share <= 0 ? ' ' : share < 0.33 ? '.' : share < 0.9 ? ':' : '#';
}

void draw_row(const struct draw *d, size_t layer, const char *name, const char *note)
{
    char bar[DRAW_CELLS + 1] = "";
    for (unsigned i = 0; i < DRAW_CELLS; i++)
        bar[i] = cell(d, layer, i);
    printf("%*s%s%s\n", (int)MIN(layer, 16u) * 2, "", layer ? "`- " : "", name);
    printf("  [%s%s%s] %s\n", d->color ? "\033[32m" : "", bar, d->color ? "\033[0m" : "", note);
}

void draw_drop(struct draw *d)
{
    mem_free(d->held);
    d->held = NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* worker_buf.c - bounce buffers: a stack of free ones for each power of two, per worker. What a
 * class keeps is bounded; larger buffers and the surplus go back to the heap. */
#include "block/worker_priv.h"

#define BUF_SMALLEST   4096
#define BUF_KEEP       (8 * MiB) /* bytes that each class keeps */
#define BUF_KEEP_LEAST 4         /* buffers, however large */

struct buf_free {
    struct buf_free *next;
};

static unsigned class_of(size_t bytes)
{
    return bytes <= BUF_SMALLEST ? 0 : log2_floor(bytes - 1) + 1 - log2_floor(BUF_SMALLEST);
}

static size_t class_bytes(unsigned class)
{
    return (size_t)BUF_SMALLEST << class;
}

void *buf_get(size_t bytes)
{
    struct worker_core *w = core_self();
    unsigned class = class_of(bytes);

    assert(w);
    if (class >= BUF_CLASSES)
        return mem_aligned(bytes);
    struct buf_free *b = w->bufs[class].first;
    if (!b)
        return mem_aligned(class_bytes(class));
#ifdef CO_ASAN
    __asan_unpoison_memory_region(b, class_bytes(class));
#endif
    w->bufs[class].first = b->next;
    w->bufs[class].bytes -= class_bytes(class);
    return b;
}

void buf_put(void *buf, size_t bytes)
{
    struct worker_core *w = core_self();
    unsigned class = class_of(bytes);

    if (!buf)
        return;
    assert(w);
    if (class >= BUF_CLASSES ||
        w->bufs[class].bytes >= MAX(BUF_KEEP, BUF_KEEP_LEAST * class_bytes(class))) {
        mem_free(buf);
        return;
    }
    struct buf_free *b = buf;
    b->next = w->bufs[class].first;
    w->bufs[class].first = b;
    w->bufs[class].bytes += class_bytes(class);
#ifdef CO_ASAN
    /* All but the link: the leak sanitizer follows nothing that is poisoned. */
    __asan_poison_memory_region(b + 1, class_bytes(class) - sizeof(*b));
#endif
}

void bufs_free(struct worker_core *w)
{
    for (unsigned class = 0; class < BUF_CLASSES; class ++) {
        struct buf_free *b;
        while ((b = w->bufs[class].first)) {
#ifdef CO_ASAN
            __asan_unpoison_memory_region(b, class_bytes(class));
#endif
            w->bufs[class].first = b->next;
            mem_free(b);
        }
    }
}

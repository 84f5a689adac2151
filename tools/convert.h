/* SPDX-License-Identifier: BSD-3-Clause */
/* convert.h - the parts of convert: what is told (convert.c), opening and making (convert_open.c),
 * the walk and the copying (convert_copy.c), bitmaps (convert_bitmaps.c), the hash of the target
 * (convert_hash.c), a pipe as the target (convert_pipe.c),
 * going on after an interruption (convert_resume.c). */
#ifndef TOOLS_CONVERT_H
#define TOOLS_CONVERT_H

#include "tools/hash.h"
#include "tools/make.h"
#include "tools/task.h"

struct convert_source {
    struct blk_device *dev;
    uint64_t start; /* of its bytes in the target */
    uint64_t bytes; /* how many; where the device ends before, zeroes follow */
};

/* What to do with what the page cache holds of a copy's files (convert_drop.c). */
struct convert_drop {
    enum { DROP_IF_BIG, DROP_ALWAYS, DROP_NEVER } mode;
    uint64_t limit;       /* bytes that are big; 0: not known yet */
    uint64_t seen, since; /* bytes copied: all, since it was last dropped */
};

/* --resume (convert_resume.c). */
struct convert_resume {
    bool asked;
    char *journal; /* its path */
    json_t *plan;
    bool again;    /* the image is there, by an earlier run */
    bool ended;    /* it has its name already: only the journal is left */
    uint64_t from; /* what lies before is in the image, durable */
};

struct convert {
    struct task task;
    struct make make; /* the target */

    /* told */
    char **names;
    size_t count; /* of sources */
    const char *format, *source_cache, *backing, *backing_format, *cache, *target_format;
    const char *snapshot; /* -l, as told; NULL: the disk as it is now */
    bool image_opts, target_image_opts;
    bool compress, into, target_is_zero, sync, offload, help;
    bool sparse_told, salvage;
    bool with_bitmaps, skip_broken;
    uint64_t sparse; /* zero runs of this many bytes are left out; 0: nothing is */
    struct convert_drop drop;
    struct hash_told hash;
    struct convert_resume resume;
    unsigned in_flight;

    /* open */
    struct convert_source *sources;
    struct blk_device *target;
    struct blk_device *bitmap_source; /* with_bitmaps: the image itself, also with -l */
    struct blk_bitmap *bitmaps;
    size_t bitmap_count;
    uint64_t size;          /* of the sources together */
    bool target_reads_zero; /* what is not written reads zero */
    bool read_always;       /* bytes come up: -S, -c, direct I/O, or the target takes no copies */
    uint64_t unit;          /* of the target's space: pieces begin and end there */
    char hash_text[HASH_TEXT]; /* of what was written */
};

must_use int co_convert_open(struct convert *c);
/* Copies everything. */
int co_convert_copy(struct convert *c);
/* Counts @bytes that were given out to be copied; true: time to drop what lies behind. */
bool convert_drop_due(struct convert *c, uint64_t bytes);
/* The copy has come to @offset. */
void co_convert_drop(struct convert *c, uint64_t offset);
/* --bitmaps: before the target is made; once it is open; once it holds the data. */
must_use int co_convert_check_bitmaps(struct convert *c);
must_use int co_convert_check_target(struct convert *c);
must_use int co_convert_copy_bitmaps(struct convert *c);
/* The target is a pipe: writes the sources out one after the other, if it is a plain disk; else the
 * image that was made of them, once it is complete. */
must_use int co_convert_pipe_disk(struct convert *c);
must_use int co_convert_pipe_image(struct convert *c);
/* --resume: reads the journal, if there is one; the sources are open. */
must_use int co_convert_resume_begin(struct convert *c);
/* The target is open: if it was made by this run the journal begins. */
must_use int co_convert_resume_made(struct convert *c);
/* Where to stop after @at to note how far it is; notes that all before @done is written. */
uint64_t convert_resume_step(uint64_t at);
must_use int co_convert_resume_note(struct convert *c, uint64_t done);
/* All is copied; it is closed too; it has its name. */
must_use int co_convert_resume_complete(struct convert *c);
must_use int co_convert_resume_closed(struct convert *c);
int co_convert_resume_end(struct convert *c, int rc);
/* --hash: reads what was written, closed since; -EBADMSG if it is not what is expected. */
must_use int co_convert_hash(struct convert *c);
/* Closes all; with @rc 0 the target takes its name. The first error. */
int co_convert_close(struct convert *c, int rc);

#endif

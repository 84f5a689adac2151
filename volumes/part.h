/* SPDX-License-Identifier: BSD-3-Clause */
/* part.h - partition tables: what GPT and MBR have in common. A table is a container whose inner
 * devices are p1, p2, ...; each is a slice of the disk, so it is as fast as that.
 *
 *   part.c        the list, and what drivers answer from it
 *   part_types.c  what types are called
 *   mbr.c         primary and logical partitions
 *   gpt_disk.c    GPT: bytes to a table and back (pure)
 *   gpt.c         GPT: the driver; both copies
 *   gpt_edit.c    GPT: changes and their order on disk */
#ifndef VOLUMES_PART_H
#define VOLUMES_PART_H

#include "block/block.h"
#include "block/uuid.h"

struct part {
    unsigned number;        /* of pN, from 1 on */
    uint64_t offset, bytes; /* in the disk; untrusted: may reach past its end */
    char type[UUID_TEXT];   /* a GUID, or "0x83" */
    const char *type_title; /* NULL: not known here */
    char *label;            /* owned; NULL: none */
    char uuid[UUID_TEXT];   /* "": none */
    bool is_container;      /* an extended partition: holds others and is none itself */
};

/* The state of both drivers begins with it. */
struct part_table {
    struct blk_device *file;
    const char *scheme; /* "gpt" */
    uint32_t sector_bytes;
    struct part *list; /* owned */
    size_t count;
};

/* Room for one more, zeroed; NULL: no memory. */
struct part *part_add(struct part_table *t);
void part_forget_all(struct part_table *t);
/* "p3". NULL: there is none. */
const struct part *part_find(const struct part_table *t, const char *name);
/* The one that ends last, containers too; NULL: the table is empty. */
const struct part *part_last(const struct part_table *t);
/* Where what lies behind @p begins; @end: nothing does. */
uint64_t part_next_start(const struct part_table *t, const struct part *p, uint64_t end);

/* What drivers answer. */
int co_part_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                       struct blk_error *e);
int co_part_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                       struct blk_error *e);
int co_part_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e);
int co_part_read(struct blk_device *dev, uint64_t offset, const struct vec *to);
int co_part_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags);

/* part_types.c: by a word of sfdisk's ("linux"), a code of sgdisk's ("8300"), or a GUID. False:
 * none of these. */
must_use bool part_type_parse(const char *text, uint8_t guid[16]);
const char *part_type_title(const uint8_t guid[16]); /* NULL: not known */
const char *part_mbr_title(uint8_t type);

extern const char *const part_sector_sizes[]; /* choices of an option: "512", "4096" */

extern const struct blk_driver mbr_driver, gpt_driver;

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* xml.h - XML out of a device, piece by piece, by expat: bounded, no entities of its own, nothing
 * outside is ever opened. */
#ifndef IMGFMT_XML_H
#define IMGFMT_XML_H

#include "block/block.h"

/* Called on a pool thread. A negative value ends the parse with it. */
struct xml_handler {
    /* Names without what stands before their colon; @attributes: for xml_attribute(). */
    int (*start)(void *arg, const char *name, const char **attributes);
    int (*end)(void *arg, const char *name);
    int (*text)(void *arg, const char *text, size_t bytes); /* in pieces */
    void *arg;
    /* On the caller's coroutine, after each 64 KiB that were read. NULL: nothing. */
    int (*co_fed)(void *arg);
    bool endless; /* as many elements as there are; what they are called is looked at by start() */
};

must_use int co_xml_parse(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                          const struct xml_handler *h, struct blk_error *e);
/* The value of @name, whatever stands before its colon, or NULL. */
const char *xml_attribute(const char **attributes, const char *name);

#endif

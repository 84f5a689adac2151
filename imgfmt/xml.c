/* SPDX-License-Identifier: BSD-3-Clause */
/* xml.c - XML by expat. What is not bounded by expat itself is bounded here: depth, the number and
 * the names of elements, the length of one tag; a document that declares entities is refused. */
#include "imgfmt/xml.h"

#ifdef HAVE_EXPAT
#include <expat.h>
#endif

#define STEP      (64 * KiB)
#define TAG_MOST  (256 * KiB) /* bytes of one tag or comment */
#define DEPTH     64
#define ELEMENTS  200000
#define NAME_MOST (8 * MiB) /* of all names together: expat remembers them */

/* Behind the colon: prefixes are the document's own choice. */
static const char *local(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

const char *xml_attribute(const char **attributes, const char *name)
{
    for (; *attributes; attributes += 2)
        if (strcmp(local(*attributes), name) == 0)
            return attributes[1];
    return NULL;
}

#ifdef HAVE_EXPAT
struct xml_parse {
    XML_Parser parser;
    const struct xml_handler *h;
    struct blk_error *e;
    int rc;
    unsigned depth, elements;
    uint64_t names, fed;
    const void *piece; /* of this step */
    size_t piece_bytes;
    bool last;
};

static void stop(struct xml_parse *x, int rc)
{
    x->rc = rc;
    XML_StopParser(x->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
    struct xml_parse *x = arg;
    x->names += strlen(name);
    for (const XML_Char **a = attributes; *a; a += 2)
        x->names += strlen(*a);
    bool many = !x->h->endless && (++x->elements > ELEMENTS || x->names > NAME_MOST);
    if (++x->depth > DEPTH || many) {
        stop(x, err_bad(x->e, -EFBIG, "the XML is too deep or has too many elements"));
        return;
    }
    int rc = x->h->start ? x->h->start(x->h->arg, local(name), attributes) : 0;
    if (rc < 0)
        stop(x, rc);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
    struct xml_parse *x = arg;
    x->depth--;
    int rc = x->h->end ? x->h->end(x->h->arg, local(name)) : 0;
    if (rc < 0)
        stop(x, rc);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int bytes)
{
    struct xml_parse *x = arg;
    int rc = x->h->text ? x->h->text(x->h->arg, text, (size_t)bytes) : 0;
    if (rc < 0)
        stop(x, rc);
}

static void XMLCALL on_entity(void *arg, const XML_Char *name, int is_parameter,
                              const XML_Char *value, int bytes, const XML_Char *base,
                              const XML_Char *system, const XML_Char *public,
                              const XML_Char *notation)
{
    struct xml_parse *x = arg;
    stop(x, err_bad(x->e, -EINVAL, "the XML declares entities, which are not taken from a file"));
}

static int run_step(void *arg)
{
    struct xml_parse *x = arg;
    enum XML_Status status = XML_Parse(x->parser, x->piece, (int)x->piece_bytes, x->last);
    x->fed += x->piece_bytes;
    if (x->rc < 0)
        return x->rc;
    if (status != XML_STATUS_OK)
        return err_bad(x->e, -EINVAL, "the XML is broken at line %lu: %s",
                       (unsigned long)XML_GetCurrentLineNumber(x->parser),
                       XML_ErrorString(XML_GetErrorCode(x->parser)));
    int64_t at = XML_GetCurrentByteIndex(x->parser);
    if (!x->last && at >= 0 && x->fed - MIN((uint64_t)at, x->fed) > TAG_MOST)
        return err_bad(x->e, -EFBIG, "the XML has a tag that is too long");
    return 0;
}

static int co_feed(struct xml_parse *x, struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    uint8_t *piece = buf_get(STEP);
    int rc = piece ? 0 : err_set(x->e, -ENOMEM, "out of memory");
    for (uint64_t at = 0; rc == 0 && at < bytes; at += x->piece_bytes) {
        x->piece = piece;
        x->piece_bytes = MIN(STEP, bytes - at);
        x->last = at + x->piece_bytes == bytes;
        rc = co_blk_read_buf(dev, offset + at, piece, x->piece_bytes);
        rc = rc < 0 ? err_errno(x->e, rc, "the XML cannot be read") : co_offload(run_step, x);
        if (rc == 0 && x->h->co_fed)
            rc = x->h->co_fed(x->h->arg);
    }
    buf_put(piece, STEP);
    return rc;
}

int co_xml_parse(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                 const struct xml_handler *h, struct blk_error *e)
{
    struct xml_parse x = {.parser = XML_ParserCreate(NULL), .h = h, .e = e};
    if (!x.parser)
        return err_set(e, -ENOMEM, "out of memory");
    XML_SetUserData(x.parser, &x);
    XML_SetElementHandler(x.parser, on_start, on_end);
    XML_SetCharacterDataHandler(x.parser, on_text);
    XML_SetEntityDeclHandler(x.parser, on_entity);
    int rc = range_fits(offset, bytes, dev->size) && bytes
                 ? co_feed(&x, dev, offset, bytes)
                 : err_bad(e, -EINVAL, "the XML lies past the end of the file");
    XML_ParserFree(x.parser);
    return rc;
}
#else
int co_xml_parse(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                 const struct xml_handler *h, struct blk_error *e)
{
    return err_set(e, -ENOTSUP, "this build cannot read XML: it has no expat");
}
#endif

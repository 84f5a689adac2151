/* SPDX-License-Identifier: BSD-3-Clause */
/* handshake.c - fixed newstyle negotiation.
 *
 *   server: NBDMAGIC IHAVEOPT flags       client: flags
 *   client: IHAVEOPT code bytes payload   server: replies, the last one ACK or an error (repeated)
 *   until GO or EXPORT_NAME succeeds (transmission), or ABORT, or a breach (hang up)
 *
 * Each option is a row of the table at the end. What a peer can make us hold is one message in and
 * the replies to it; it is given NBD_MAX_OPTIONS tries.
 *
 * TLS. Where it is required, every option before it but STARTTLS and ABORT is answered TLS_REQD.
 * Nothing but the client's flags (which are not said again) survives STARTTLS, and a client that
 * sent anything behind STARTTLS before our answer is hung up: bytes that somebody on the way put
 * there would be taken for the client's. An export that a client may not see is unknown to it. */
#include "nbd/handshake.h"

#include "nbd/source.h"

/* --- what goes out --- */

static void put(struct nbd_handshake *h, const void *from, size_t bytes)
{
    if (h->out_room - h->out_bytes < bytes) {
        size_t room = MAX(2 * h->out_room, h->out_bytes + bytes + 256);
        uint8_t *more = mem_resize(h->out, room);

        if (!more) {
            h->phase = NBD_PHASE_CLOSE;
            return;
        }
        h->out = more;
        h->out_room = room;
    }
    memcpy(h->out + h->out_bytes, from, bytes);
    h->out_bytes += bytes;
}

static void put_reply(struct nbd_handshake *h, uint32_t code, uint32_t type, uint32_t bytes)
{
    struct nbd_option_reply r = {
        .magic = be64_of(NBD_OPT_REPLY_MAGIC),
        .code = be32_of(code),
        .type = be32_of(type),
        .bytes = be32_of(bytes),
    };

    put(h, &r, sizeof(r));
}

/* An error reply with a sentence for the person at the client. */
static void refuse(struct nbd_handshake *h, uint32_t code, uint32_t type, const char *why)
{
    put_reply(h, code, type, (uint32_t)strlen(why));
    put(h, why, strlen(why));
}

static void acknowledge(struct nbd_handshake *h, uint32_t code)
{
    put_reply(h, code, NBD_REP_ACK, 0);
}

int nbd_handshake_begin(struct nbd_handshake *h, const struct nbd_exports *exports,
                        const struct nbd_peer *peer, enum nbd_tls_mode tls)
{
    struct nbd_hello hello = {
        .magic = be64_of(NBD_MAGIC),
        .option_magic = be64_of(NBD_OPTION_MAGIC),
        .flags = be16_of(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
    };

    *h = (struct nbd_handshake){.exports = exports, .peer = peer, .tls = tls};
    put(h, &hello, sizeof(hello));
    return h->phase == NBD_PHASE_CLOSE ? -ENOMEM : 0;
}

static void forget_wanted(struct nbd_handshake *h)
{
    if (h->about)
        nbd_export_release(h->about);
    nbd_contexts_drop(h->contexts);
    h->about = NULL;
    h->contexts = NULL;
    h->known = false;
    if (h->held)
        nbd_export_release(h->held);
    mem_free(h->wanted);
    h->held = NULL;
    h->wanted = NULL;
    h->listed = NULL;
    h->want = NBD_WANT_NOTHING;
    h->fetched = false;
}

static void forget_context(struct nbd_handshake *h)
{
    if (h->context)
        nbd_export_release(h->context);
    nbd_contexts_drop(h->agreed_of);
    h->context = NULL;
    h->agreed_of = NULL;
    h->agreed = 0;
}

void nbd_handshake_drop(struct nbd_handshake *h)
{
    forget_wanted(h);
    forget_context(h);
    if (h->chosen) {
        nbd_export_leave(h->chosen, h->writer);
        nbd_export_release(h->chosen);
        h->chosen = NULL;
    }
    mem_free(h->out);
    h->out = NULL;
}

void nbd_handshake_fetched(struct nbd_handshake *h, struct nbd_export *x,
                           const struct nbd_names *names)
{
    assert(h->want != NBD_WANT_NOTHING && !h->fetched);
    h->want = NBD_WANT_NOTHING;
    h->fetched = true;
    h->held = x;
    h->listed = names;
}

void nbd_handshake_knows(struct nbd_handshake *h, struct nbd_contexts *contexts)
{
    assert(h->want == NBD_WANT_CONTEXTS && !h->known);
    h->want = NBD_WANT_NOTHING;
    h->known = true;
    h->contexts = contexts;
}

void nbd_handshake_secured(struct nbd_handshake *h)
{
    assert(h->phase == NBD_PHASE_SECURE && h->peer->secure);
    forget_context(h);
    h->structured = h->extended = false;
    h->asked_block_size = false;
    h->phase = NBD_PHASE_OPTIONS;
}

void nbd_handshake_sent(struct nbd_handshake *h)
{
    h->out_bytes = 0;
}

/* --- payloads --- */

static bool take_bytes(const uint8_t **at, size_t *left, size_t bytes, const uint8_t **out)
{
    if (*left < bytes)
        return false;
    *out = *at;
    *at += bytes;
    *left -= bytes;
    return true;
}

static bool take_u32(const uint8_t **at, size_t *left, uint32_t *out)
{
    const uint8_t *p;
    be32 raw;

    if (!take_bytes(at, left, sizeof(raw), &p))
        return false;
    memcpy(&raw, p, sizeof(raw));
    *out = be32_get(raw);
    return true;
}

static bool take_name(const uint8_t **at, size_t *left, struct nbd_name *out)
{
    return take_u32(at, left, &out->bytes) && out->bytes <= NBD_MAX_NAME &&
           take_bytes(at, left, out->bytes, &out->text);
}

int nbd_parse_info(const uint8_t *in, size_t bytes, struct nbd_info_request *out)
{
    const uint8_t *p;
    be16 count;

    if (!take_name(&in, &bytes, &out->name) || !take_bytes(&in, &bytes, sizeof(count), &p))
        return -EINVAL;
    memcpy(&count, p, sizeof(count));
    out->count = be16_get(count);
    out->items = (const be16 *)in;
    return bytes == out->count * sizeof(be16) ? 0 : -EINVAL;
}

int nbd_parse_meta(const uint8_t *in, size_t bytes, struct nbd_meta_request *out)
{
    const uint8_t *at;
    uint32_t length;

    if (!take_name(&in, &bytes, &out->name) || !take_u32(&in, &bytes, &out->left))
        return -EINVAL;
    out->at = in;
    for (uint32_t i = 0; i < out->left; i++)
        if (!take_u32(&in, &bytes, &length) || !take_bytes(&in, &bytes, length, &at))
            return -EINVAL;
    return bytes == 0 ? 0 : -EINVAL;
}

bool nbd_meta_next(struct nbd_meta_request *m, struct nbd_name *query)
{
    size_t inside = SIZE_MAX; /* nbd_parse_meta() has looked at every length */

    if (m->left == 0)
        return false;
    m->left--;
    return take_u32(&m->at, &inside, &query->bytes) &&
           take_bytes(&m->at, &inside, query->bytes, &query->text);
}

/* --- options --- */

static uint16_t flags_of(const struct nbd_handshake *h, const struct nbd_export *x)
{
    unsigned flags = nbd_facts_now(&x->facts).flags | (h->structured ? NBD_FLAG_SEND_DF : 0);

    if (h->extended && h->agreed && h->context == x)
        flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    return (uint16_t)flags;
}

static struct nbd_export *find(const struct nbd_handshake *h, const struct nbd_name *name)
{
    return nbd_export_find(h->exports, name->text, name->bytes, h->peer);
}

/* Before the answer: @x is ours from here on, or another host has it. */
static bool enter(struct nbd_handshake *h, struct nbd_export *x)
{
    if (nbd_export_enter(x, h->peer->host, &h->writer) < 0)
        return false;
    nbd_export_hold(x);
    h->chosen = x;
    return true;
}

/* The answer is in @out. */
static void choose(struct nbd_handshake *h)
{
    if (h->context != h->chosen)
        forget_context(h);
    if (h->phase != NBD_PHASE_CLOSE)
        h->phase = NBD_PHASE_TRANSMIT;
}

/* Has no error reply: an unknown name hangs up. */
static void opt_export_name(struct nbd_handshake *h, uint32_t code, const uint8_t *in,
                            uint32_t bytes)
{
    const struct nbd_name name = {in, bytes};
    struct nbd_export *x = bytes <= NBD_MAX_NAME ? find(h, &name) : NULL;
    struct nbd_export_name_reply r = {.zeroes = {0}};

    if (!x || !enter(h, x)) {
        h->phase = NBD_PHASE_CLOSE;
        return;
    }
    r.size = be64_of(nbd_facts_now(&x->facts).size);
    r.flags = be16_of(flags_of(h, x));
    put(h, &r, h->no_zeroes ? offsetof(struct nbd_export_name_reply, zeroes) : sizeof(r));
    h->asked_block_size = false;
    choose(h);
}

static void opt_abort(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    acknowledge(h, code);
    h->phase = NBD_PHASE_CLOSE;
}

static void put_server(struct nbd_handshake *h, uint32_t code, const char *name, const char *text)
{
    uint32_t name_bytes = (uint32_t)strlen(name), text_bytes = text ? (uint32_t)strlen(text) : 0;
    be32 length = be32_of(name_bytes);

    put_reply(h, code, NBD_REP_SERVER, (uint32_t)sizeof(length) + name_bytes + text_bytes);
    put(h, &length, sizeof(length));
    put(h, name, name_bytes);
    if (text)
        put(h, text, text_bytes);
}

static bool hidden_by_static(const struct nbd_handshake *h, const char *name)
{
    for (const struct nbd_export *x = h->exports->first; x; x = x->next)
        if (!x->source && strcmp(x->name, name) == 0)
            return true;
    return false;
}

/* What sources have comes behind what is there anyway. */
static void opt_list(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    for (const struct nbd_export *x = h->exports->first; x; x = x->next)
        if (!x->source && nbd_zone_admits(&x->zone, h->peer))
            put_server(h, code, x->name, x->description);
    for (size_t i = 0; h->listed && i < h->listed->count; i++)
        if (!hidden_by_static(h, h->listed->at[i]))
            put_server(h, code, h->listed->at[i], NULL);
    acknowledge(h, code);
}

static void opt_starttls(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    if (h->tls == NBD_TLS_OFF) {
        refuse(h, code, NBD_REP_ERR_UNSUP, "this server has no TLS");
    } else if (h->peer->secure) {
        refuse(h, code, NBD_REP_ERR_INVALID, "TLS is on already");
    } else {
        acknowledge(h, code);
        if (h->phase != NBD_PHASE_CLOSE)
            h->phase = NBD_PHASE_SECURE;
    }
}

static void put_info_text(struct nbd_handshake *h, uint32_t code, uint16_t type, const char *text)
{
    be16 raw = be16_of(type);

    put_reply(h, code, NBD_REP_INFO, (uint32_t)(sizeof(raw) + strlen(text)));
    put(h, &raw, sizeof(raw));
    put(h, text, strlen(text));
}

static void put_info_numbers(struct nbd_handshake *h, uint32_t code, const struct nbd_export *x,
                             bool asked_block_size)
{
    struct nbd_facts facts = nbd_facts_now(&x->facts);
    struct nbd_info_export export = {
        .type = be16_of(NBD_INFO_EXPORT),
        .size = be64_of(facts.size),
        .flags = be16_of(flags_of(h, x)),
    };
    /* A client that did not ask does not keep to it: it is told, and served, any alignment. */
    struct nbd_info_block_size block = {
        .type = be16_of(NBD_INFO_BLOCK_SIZE),
        .minimum = be32_of(asked_block_size ? facts.min_block : 1),
        .preferred = be32_of(facts.preferred_block),
        .maximum = be32_of(facts.max_block),
    };

    put_reply(h, code, NBD_REP_INFO, sizeof(export));
    put(h, &export, sizeof(export));
    put_reply(h, code, NBD_REP_INFO, sizeof(block));
    put(h, &block, sizeof(block));
}

/* INFO and GO differ in what follows the answer. */
static void opt_go(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    struct nbd_info_request r;
    struct nbd_export *x;
    bool name = false, description = false, block_size = false;

    if (nbd_parse_info(in, bytes, &r) < 0) {
        refuse(h, code, NBD_REP_ERR_INVALID, "malformed request for information");
        return;
    }
    x = find(h, &r.name);
    if (!x) {
        refuse(h, code, NBD_REP_ERR_UNKNOWN, "no export of that name");
        return;
    }
    if (code == NBD_OPT_GO && !enter(h, x)) {
        refuse(h, code, NBD_REP_ERR_POLICY, "another host writes to this export");
        return;
    }
    for (unsigned i = 0; i < r.count; i++) {
        uint16_t type = be16_get(r.items[i]);

        name |= type == NBD_INFO_NAME;
        description |= type == NBD_INFO_DESCRIPTION;
        block_size |= type == NBD_INFO_BLOCK_SIZE;
    }
    if (name)
        put_info_text(h, code, NBD_INFO_NAME, x->name);
    if (description && x->description)
        put_info_text(h, code, NBD_INFO_DESCRIPTION, x->description);
    put_info_numbers(h, code, x, block_size);
    acknowledge(h, code);
    h->asked_block_size = block_size;
    if (code == NBD_OPT_GO)
        choose(h);
}

static void opt_structured(struct nbd_handshake *h, uint32_t code, const uint8_t *in,
                           uint32_t bytes)
{
    if (h->extended) {
        refuse(h, code, NBD_REP_ERR_EXT_REQD, "extended headers are already agreed");
    } else if (h->structured) {
        refuse(h, code, NBD_REP_ERR_INVALID, "structured replies are already agreed");
    } else {
        h->structured = true;
        acknowledge(h, code);
    }
}

static void opt_extended(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    if (h->extended) {
        refuse(h, code, NBD_REP_ERR_INVALID, "extended headers are already agreed");
    } else {
        h->structured = h->extended = true;
        acknowledge(h, code);
    }
}

/* The contexts that the queries mean, as a set. */
static uint32_t meant(const struct nbd_handshake *h, struct nbd_meta_request *r, bool listing)
{
    unsigned count = nbd_contexts_count(h->contexts);
    uint32_t all = count == 32 ? UINT32_MAX : (1u << count) - 1, set = 0;
    struct nbd_name query;

    if (h->contexts && h->contexts->no_depth)
        all &= ~(1u << NBD_DEPTH);
    if (listing && r->left == 0)
        return all;
    while (nbd_meta_next(r, &query))
        for (unsigned i = 0; i < count; i++)
            if (nbd_context_meant(h->contexts, i, query.text, query.bytes, listing))
                set |= 1u << i;
    return set & all;
}

static void put_context(struct nbd_handshake *h, uint32_t code, unsigned index, uint32_t id)
{
    const char *kind = nbd_context_kind(index), *rest = nbd_context_rest(h->contexts, index);
    be32 raw = be32_of(id);

    put_reply(h, code, NBD_REP_META_CONTEXT, (uint32_t)(sizeof(raw) + strlen(kind) + strlen(rest)));
    put(h, &raw, sizeof(raw));
    put(h, kind, strlen(kind));
    put(h, rest, strlen(rest));
}

static void opt_meta(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    bool listing = code == NBD_OPT_LIST_META_CONTEXT;
    struct nbd_meta_request r;
    struct nbd_export *x;
    uint32_t set;

    if (!listing) /* whatever comes of it, the last one counts */
        forget_context(h);
    if (!h->structured || nbd_parse_meta(in, bytes, &r) < 0) {
        refuse(h, code, NBD_REP_ERR_INVALID,
               h->structured ? "malformed query" : "structured replies must be agreed first");
        return;
    }
    x = find(h, &r.name);
    if (!x) {
        refuse(h, code, NBD_REP_ERR_UNKNOWN, "no export of that name");
        return;
    }
    if (h->about && h->about != x) { /* it was exchanged for another one meanwhile */
        refuse(h, code, NBD_REP_ERR_UNKNOWN, "this export is just changing");
        return;
    }
    set = meant(h, &r, listing);
    for (unsigned i = 0; i < NBD_MAX_CONTEXTS; i++)
        if (set >> i & 1)
            put_context(h, code, i, listing ? 0 : i + 1);
    acknowledge(h, code);
    if (!listing) {
        h->agreed = set;
        h->agreed_of = nbd_contexts_ref(h->contexts);
        h->context = x;
        nbd_export_hold(x);
    }
}

static const struct option {
    uint32_t code;
    bool empty; /* a payload is a mistake */
    void (*run)(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes);
} options[] = {
    {NBD_OPT_EXPORT_NAME, false, opt_export_name},
    {NBD_OPT_ABORT, false, opt_abort},
    {NBD_OPT_LIST, true, opt_list},
    {NBD_OPT_STARTTLS, true, opt_starttls},
    {NBD_OPT_INFO, false, opt_go},
    {NBD_OPT_GO, false, opt_go},
    {NBD_OPT_STRUCTURED_REPLY, true, opt_structured},
    {NBD_OPT_LIST_META_CONTEXT, false, opt_meta},
    {NBD_OPT_SET_META_CONTEXT, false, opt_meta},
    {NBD_OPT_EXTENDED_HEADERS, true, opt_extended},
};

static void run_option(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (options[i].code != code)
            continue;
        if (options[i].empty && bytes != 0)
            refuse(h, code, NBD_REP_ERR_INVALID, "this option has no payload");
        else
            options[i].run(h, code, in, bytes);
        return;
    }
    refuse(h, code, NBD_REP_ERR_UNSUP, "this option is not known here");
}

/* --- what has to be fetched first --- */

static bool name_in(uint32_t code, const uint8_t *in, uint32_t bytes, struct nbd_name *out)
{
    struct nbd_info_request info;
    struct nbd_meta_request meta;

    if (code == NBD_OPT_EXPORT_NAME)
        *out = (struct nbd_name){in, bytes};
    else if ((code == NBD_OPT_INFO || code == NBD_OPT_GO) && nbd_parse_info(in, bytes, &info) == 0)
        *out = info.name;
    else if ((code == NBD_OPT_LIST_META_CONTEXT || code == NBD_OPT_SET_META_CONTEXT) &&
             nbd_parse_meta(in, bytes, &meta) == 0)
        *out = meta.name;
    else
        return false;
    return out->bytes <= NBD_MAX_NAME && !memchr(out->text, 0, out->bytes);
}

static bool waits_for_source(struct nbd_handshake *h, uint32_t code, const uint8_t *in,
                             uint32_t bytes)
{
    const struct nbd_export *open;
    struct nbd_name name;

    if (h->fetched || !h->exports->sources)
        return false;
    assert(h->want == NBD_WANT_NOTHING);
    if (code == NBD_OPT_LIST) {
        h->want = NBD_WANT_LIST;
        return true;
    }
    if (!name_in(code, in, bytes, &name))
        return false;
    open = find(h, &name);
    if (open && !nbd_source_doubts(open))
        return false;
    h->wanted = mem_alloc(name.bytes + 1);
    if (!h->wanted) {
        h->phase = NBD_PHASE_CLOSE;
        return false;
    }
    memcpy(h->wanted, name.text, name.bytes);
    h->wanted[name.bytes] = 0;
    if (nbd_sources_know(h->exports, h->wanted, h->peer)) {
        h->want = NBD_WANT_EXPORT;
        return true;
    }
    forget_wanted(h);
    return false;
}

static bool waits_for_contexts(struct nbd_handshake *h, uint32_t code, const uint8_t *in,
                               uint32_t bytes)
{
    struct nbd_meta_request r;
    struct nbd_export *x;

    if (h->known || !h->structured ||
        (code != NBD_OPT_LIST_META_CONTEXT && code != NBD_OPT_SET_META_CONTEXT) ||
        nbd_parse_meta(in, bytes, &r) < 0)
        return false;
    x = find(h, &r.name);
    if (!x || !x->dev)
        return false;
    nbd_export_hold(x);
    h->about = x;
    h->want = NBD_WANT_CONTEXTS;
    return true;
}

/* True if the option has to wait for h->want. */
static bool has_to_wait(struct nbd_handshake *h, uint32_t code, const uint8_t *in, uint32_t bytes)
{
    return waits_for_source(h, code, in, bytes) || waits_for_contexts(h, code, in, bytes);
}

/* --- the machine --- */

static size_t feed_flags(struct nbd_handshake *h, const uint8_t *in, size_t bytes)
{
    be32 raw;
    uint32_t flags;

    if (bytes < sizeof(raw))
        return 0;
    memcpy(&raw, in, sizeof(raw));
    flags = be32_get(raw);
    h->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
    h->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    h->phase = flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
                   ? NBD_PHASE_CLOSE
                   : NBD_PHASE_OPTIONS;
    return sizeof(raw);
}

/* An oversized payload is thrown away if that is cheap; an answer to it is still possible then. */
static size_t feed_oversized(struct nbd_handshake *h, uint32_t code, uint32_t bytes)
{
    if (bytes > NBD_MAX_SKIP || code == NBD_OPT_EXPORT_NAME) {
        h->phase = NBD_PHASE_CLOSE;
    } else {
        h->skip = bytes;
        refuse(h, code, NBD_REP_ERR_TOO_BIG, "the option's payload is too long");
    }
    return sizeof(struct nbd_option_head);
}

/* Where TLS is required and not yet there: nothing is looked at. */
static size_t feed_unprotected(struct nbd_handshake *h, uint32_t code, uint32_t bytes)
{
    if (bytes > NBD_MAX_SKIP || code == NBD_OPT_EXPORT_NAME) {
        h->phase = NBD_PHASE_CLOSE;
    } else {
        h->skip = bytes;
        refuse(h, code, NBD_REP_ERR_TLS_REQD, "this server wants TLS first");
    }
    return sizeof(struct nbd_option_head);
}

static size_t feed_option(struct nbd_handshake *h, const uint8_t *in, size_t bytes)
{
    struct nbd_option_head head;
    uint32_t code, length;

    if (bytes < sizeof(head))
        return 0;
    memcpy(&head, in, sizeof(head));
    code = be32_get(head.code);
    length = be32_get(head.bytes);
    if (be64_get(head.magic) != NBD_OPTION_MAGIC || ++h->options > NBD_MAX_OPTIONS ||
        (!h->fixed && code != NBD_OPT_EXPORT_NAME)) {
        h->phase = NBD_PHASE_CLOSE;
        return sizeof(head);
    }
    if (length > NBD_MAX_PAYLOAD)
        return feed_oversized(h, code, length);
    if (h->tls == NBD_TLS_REQUIRE && !h->peer->secure && code != NBD_OPT_STARTTLS &&
        code != NBD_OPT_ABORT)
        return feed_unprotected(h, code, length);
    if (bytes < sizeof(head) + length || has_to_wait(h, code, in + sizeof(head), length)) {
        h->options--; /* looked at again when it is complete */
        return 0;
    }
    if (h->phase != NBD_PHASE_CLOSE)
        run_option(h, code, in + sizeof(head), length);
    forget_wanted(h);
    if (h->phase == NBD_PHASE_SECURE && bytes > sizeof(head) + length) {
        h->phase = NBD_PHASE_CLOSE; /* what follows was not protected, and would count as if */
        h->out_bytes = 0;
    }
    return sizeof(head) + length;
}

size_t nbd_handshake_feed(struct nbd_handshake *h, const uint8_t *in, size_t bytes)
{
    if (h->skip) {
        size_t n = MIN(h->skip, bytes);

        h->skip -= n;
        return n;
    }
    if (h->phase == NBD_PHASE_HELLO)
        return feed_flags(h, in, bytes);
    if (h->phase == NBD_PHASE_OPTIONS)
        return feed_option(h, in, bytes);
    return 0;
}

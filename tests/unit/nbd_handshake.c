/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_handshake.c - the handshake machine: each option, each refusal, in one piece and byte by
 * byte.
 */
#include <check.h>
#include <stdlib.h>

#include "nbd/connection.h"
#include "nbd/handshake.h"

/* What a client says, put together by hand. */
struct script {
    uint8_t bytes[64 * 1024];
    size_t length;
};

static void say(struct script *s, const void *from, size_t bytes)
{
    ck_assert_uint_le(s->length + bytes, sizeof(s->bytes));
    memcpy(s->bytes + s->length, from, bytes);
    s->length += bytes;
}

static void say_u16(struct script *s, uint16_t v)
{
    be16 raw = be16_of(v);
    say(s, &raw, sizeof(raw));
}

static void say_u32(struct script *s, uint32_t v)
{
    be32 raw = be32_of(v);
    say(s, &raw, sizeof(raw));
}

static void say_option(struct script *s, uint32_t code, uint32_t bytes)
{
    struct nbd_option_head h = {be64_of(NBD_OPTION_MAGIC), be32_of(code), be32_of(bytes)};
    say(s, &h, sizeof(h));
}

static void say_text(struct script *s, const char *text)
{
    say_u32(s, (uint32_t)strlen(text));
    say(s, text, strlen(text));
}

static void say_go(struct script *s, uint32_t code, const char *name, int info)
{
    say_option(s, code, (uint32_t)(4 + strlen(name) + 2 + (info >= 0 ? 2 : 0)));
    say_text(s, name);
    say_u16(s, info >= 0);
    if (info >= 0)
        say_u16(s, (uint16_t)info);
}

static void say_meta(struct script *s, uint32_t code, const char *name, const char *query)
{
    say_option(s, code, (uint32_t)(4 + strlen(name) + 4 + (query ? 4 + strlen(query) : 0)));
    say_text(s, name);
    say_u32(s, query ? 1 : 0);
    if (query)
        say_text(s, query);
}

static struct nbd_export second = {
    .name = (char *)"disk",
    .facts = {.size = 1 * MiB,
              .flags = 1,
              .min_block = 512,
              .preferred_block = 4096,
              .max_block = NBD_MAX_REQUEST},
};
static struct nbd_export first = {
    .next = &second,
    .name = (char *)"first",
    .description = (char *)"words",
    .facts = {.size = 12345,
              .flags = 3,
              .min_block = 1,
              .preferred_block = 4096,
              .max_block = NBD_MAX_REQUEST},
};
static const struct nbd_peer nobody = {.uid = -1};
static const struct nbd_exports exports = {.first = &first, .last = &second, .count = 2};

/* What the server said, after its hello. */
struct heard {
    uint8_t bytes[256 * 1024];
    size_t length, at;
};

static void hear(struct heard *out, struct nbd_handshake *h)
{
    ck_assert_uint_le(out->length + h->out_bytes, sizeof(out->bytes));
    memcpy(out->bytes + out->length, h->out, h->out_bytes);
    out->length += h->out_bytes;
    nbd_handshake_sent(h);
}

/* Feeds the script in pieces of @step bytes, as a socket would. */
static void play(struct nbd_handshake *h, const struct script *s, struct heard *out, size_t step)
{
    size_t have = 0, at = 0, used;

    memset(out, 0, sizeof(*out));
    ck_assert_int_eq(nbd_handshake_begin(h, &exports, &nobody, NBD_TLS_OFF), 0);
    hear(out, h);
    ck_assert_uint_eq(out->length, sizeof(struct nbd_hello));
    out->at = out->length;
    while (at < s->length) {
        have = MIN(have + step, s->length - at);
        while ((used = nbd_handshake_feed(h, s->bytes + at, have)) > 0) {
            at += used;
            have -= used;
            hear(out, h);
        }
        if (h->phase >= NBD_PHASE_TRANSMIT || at + have == s->length)
            break;
    }
    hear(out, h);
}

static uint32_t next_reply(struct heard *out, uint32_t code, uint32_t *bytes, const uint8_t **data)
{
    struct nbd_option_reply r;

    ck_assert_uint_le(out->at + sizeof(r), out->length);
    memcpy(&r, out->bytes + out->at, sizeof(r));
    ck_assert_uint_eq(be64_get(r.magic), NBD_OPT_REPLY_MAGIC);
    ck_assert_uint_eq(be32_get(r.code), code);
    *bytes = be32_get(r.bytes);
    *data = out->bytes + out->at + sizeof(r);
    out->at += sizeof(r) + *bytes;
    ck_assert_uint_le(out->at, out->length);
    return be32_get(r.type);
}

static void expect(struct heard *out, uint32_t code, uint32_t type)
{
    const uint8_t *data;
    uint32_t bytes;

    ck_assert_uint_eq(next_reply(out, code, &bytes, &data), type);
}

static void expect_end(const struct heard *out)
{
    ck_assert_uint_eq(out->at, out->length);
}

static const size_t steps[] = {1, 2, 7, 64 * 1024};

START_TEST(go_by_name_in_pieces_of_any_size)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;

    say_u32(&s, 3);
    say_option(&s, NBD_OPT_STRUCTURED_REPLY, 0);
    say_meta(&s, NBD_OPT_SET_META_CONTEXT, "disk", "base:allocation");
    say_go(&s, NBD_OPT_GO, "disk", NBD_INFO_BLOCK_SIZE);
    play(&h, &s, &out, steps[_i]);
    ck_assert_int_eq(h.phase, NBD_PHASE_TRANSMIT);
    ck_assert_ptr_eq(h.chosen, &second);
    ck_assert(h.structured && h.agreed == 1 && h.asked_block_size);
    expect(&out, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
    expect(&out, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT);
    expect(&out, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
    expect(&out, NBD_OPT_GO, NBD_REP_INFO);
    expect(&out, NBD_OPT_GO, NBD_REP_INFO);
    expect(&out, NBD_OPT_GO, NBD_REP_ACK);
    expect_end(&out);
    nbd_handshake_drop(&h);
}
END_TEST

START_TEST(info_says_size_flags_and_block_sizes)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    struct nbd_info_export x;
    struct nbd_info_block_size b;
    static struct heard out;
    const uint8_t *data;
    uint32_t bytes;

    say_u32(&s, 3);
    say_go(&s, NBD_OPT_INFO, "disk", NBD_INFO_BLOCK_SIZE);
    say_go(&s, NBD_OPT_INFO, "disk", -1);
    play(&h, &s, &out, 100000);
    ck_assert_int_eq(h.phase, NBD_PHASE_OPTIONS);
    for (uint32_t min = 512; min; min = min == 512 ? 1 : 0) { /* 1 for who did not ask */
        ck_assert_uint_eq(next_reply(&out, NBD_OPT_INFO, &bytes, &data), NBD_REP_INFO);
        ck_assert_uint_eq(bytes, sizeof(x));
        memcpy(&x, data, sizeof(x));
        ck_assert_uint_eq(be64_get(x.size), 1 * MiB);
        ck_assert_uint_eq(next_reply(&out, NBD_OPT_INFO, &bytes, &data), NBD_REP_INFO);
        ck_assert_uint_eq(bytes, sizeof(b));
        memcpy(&b, data, sizeof(b));
        ck_assert_uint_eq(be32_get(b.minimum), min);
        ck_assert_uint_eq(be32_get(b.maximum), NBD_MAX_REQUEST);
        expect(&out, NBD_OPT_INFO, NBD_REP_ACK);
    }
    expect_end(&out);
    nbd_handshake_drop(&h);
}
END_TEST

START_TEST(export_name_has_zeroes_unless_agreed)
{
    for (uint32_t flags = 1; flags <= 3; flags += 2) {
        struct nbd_handshake h;
        struct script s = {.length = 0};
        static struct heard out;

        say_u32(&s, flags);
        say_option(&s, NBD_OPT_EXPORT_NAME, 4);
        say(&s, "disk", 4);
        play(&h, &s, &out, 1);
        ck_assert_int_eq(h.phase, NBD_PHASE_TRANSMIT);
        ck_assert_uint_eq(out.length - out.at, flags == 1 ? 134 : 10);
        nbd_handshake_drop(&h);
    }
}
END_TEST

START_TEST(the_empty_name_is_the_first_export)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;

    say_u32(&s, 3);
    say_go(&s, NBD_OPT_GO, "", -1);
    play(&h, &s, &out, 3);
    ck_assert_ptr_eq(h.chosen, &first);
    nbd_handshake_drop(&h);
}
END_TEST

START_TEST(list_names_and_describes)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;
    const uint8_t *data;
    uint32_t bytes;

    say_u32(&s, 3);
    say_option(&s, NBD_OPT_LIST, 0);
    play(&h, &s, &out, 5);
    ck_assert_uint_eq(next_reply(&out, NBD_OPT_LIST, &bytes, &data), NBD_REP_SERVER);
    ck_assert_uint_eq(bytes, 4 + 5 + 5);
    ck_assert_mem_eq(data, "\0\0\0\5firstwords", bytes);
    ck_assert_uint_eq(next_reply(&out, NBD_OPT_LIST, &bytes, &data), NBD_REP_SERVER);
    ck_assert_mem_eq(data, "\0\0\0\4disk", bytes);
    expect(&out, NBD_OPT_LIST, NBD_REP_ACK);
    expect_end(&out);
    nbd_handshake_drop(&h);
}
END_TEST

START_TEST(meta_contexts)
{
    static const struct {
        uint32_t code;
        const char *query;
        unsigned found; /* contexts */
        uint32_t agreed;
    } cases[] = {
        {NBD_OPT_LIST_META_CONTEXT, NULL, 2, 0},
        {NBD_OPT_LIST_META_CONTEXT, "base:", 1, 0},
        {NBD_OPT_LIST_META_CONTEXT, "base:allocation", 1, 0},
        {NBD_OPT_LIST_META_CONTEXT, "base:alloc", 0, 0},
        {NBD_OPT_LIST_META_CONTEXT, "qemu:", 1, 0},
        {NBD_OPT_LIST_META_CONTEXT, "qemu:allocation-depth", 1, 0},
        {NBD_OPT_LIST_META_CONTEXT, "qemu:dirty-bitmap:", 0, 0},
        {NBD_OPT_LIST_META_CONTEXT, "q", 0, 0},
        {NBD_OPT_SET_META_CONTEXT, NULL, 0, 0},
        {NBD_OPT_SET_META_CONTEXT, "base:", 0, 0},
        {NBD_OPT_SET_META_CONTEXT, "qemu:", 0, 0},
        {NBD_OPT_SET_META_CONTEXT, "base:allocation", 1, 1},
        {NBD_OPT_SET_META_CONTEXT, "qemu:allocation-depth", 1, 2},
        {NBD_OPT_SET_META_CONTEXT, "", 0, 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct nbd_handshake h;
        struct script s = {.length = 0};
        static struct heard out;

        say_u32(&s, 3);
        say_option(&s, NBD_OPT_STRUCTURED_REPLY, 0);
        say_meta(&s, cases[i].code, "disk", cases[i].query);
        play(&h, &s, &out, 1);
        expect(&out, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
        for (unsigned n = 0; n < cases[i].found; n++)
            expect(&out, cases[i].code, NBD_REP_META_CONTEXT);
        expect(&out, cases[i].code, NBD_REP_ACK);
        expect_end(&out);
        ck_assert_uint_eq(h.agreed, cases[i].agreed);
        nbd_handshake_drop(&h);
    }
}
END_TEST

START_TEST(a_context_holds_for_its_export_and_until_set_again)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;

    say_u32(&s, 3);
    say_option(&s, NBD_OPT_STRUCTURED_REPLY, 0);
    say_meta(&s, NBD_OPT_SET_META_CONTEXT, "disk", "base:allocation");
    say_go(&s, NBD_OPT_GO, "first", -1);
    play(&h, &s, &out, 9);
    ck_assert_int_eq(h.phase, NBD_PHASE_TRANSMIT);
    ck_assert(!h.agreed);
    nbd_handshake_drop(&h);

    s.length = 0;
    say_u32(&s, 3);
    say_option(&s, NBD_OPT_STRUCTURED_REPLY, 0);
    say_meta(&s, NBD_OPT_SET_META_CONTEXT, "disk", "base:allocation");
    say_meta(&s, NBD_OPT_SET_META_CONTEXT, "nobody", "base:allocation");
    say_go(&s, NBD_OPT_GO, "disk", -1);
    play(&h, &s, &out, 9);
    ck_assert_int_eq(h.phase, NBD_PHASE_TRANSMIT);
    ck_assert(!h.agreed);
    nbd_handshake_drop(&h);
}
END_TEST

/* A payload and how it is answered; the handshake goes on. */
START_TEST(odd_options_are_refused_and_the_handshake_goes_on)
{
    static const struct {
        uint32_t code, bytes;
        const char *payload;
        uint32_t answer;
    } cases[] = {
        {NBD_OPT_STARTTLS, 0, "", NBD_REP_ERR_UNSUP},
        {99, 3, "abc", NBD_REP_ERR_UNSUP},
        {0xffffffff, 0, "", NBD_REP_ERR_UNSUP},
        {NBD_OPT_LIST, 1, "x", NBD_REP_ERR_INVALID},
        {NBD_OPT_STRUCTURED_REPLY, 1, "x", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 0, "", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 3, "\0\0\0", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 4, "\0\0\0\0", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 6, "\0\0\0\1\0\0", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 6, "\xff\xff\xff\xff\0\0", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 6, "\0\0\0\0\0\1", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 7, "\0\0\0\0\0\0x", NBD_REP_ERR_INVALID},
        {NBD_OPT_GO, 7, "\0\0\0\1x\0\0", NBD_REP_ERR_UNKNOWN},
        {NBD_OPT_INFO, 7, "\0\0\0\1x\0\0", NBD_REP_ERR_UNKNOWN},
        {NBD_OPT_SET_META_CONTEXT, 8, "\0\0\0\0\0\0\0\0", NBD_REP_ERR_INVALID},
        {NBD_OPT_LIST_META_CONTEXT, 8, "\0\0\0\0\0\0\0\0", NBD_REP_ERR_INVALID},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct nbd_handshake h;
        struct script s = {.length = 0};
        static struct heard out;

        say_u32(&s, 3);
        say_option(&s, cases[i].code, cases[i].bytes);
        say(&s, cases[i].payload, cases[i].bytes);
        say_go(&s, NBD_OPT_GO, "disk", -1);
        play(&h, &s, &out, 1);
        expect(&out, cases[i].code, cases[i].answer);
        ck_assert_int_eq(h.phase, NBD_PHASE_TRANSMIT);
        nbd_handshake_drop(&h);
    }
}
END_TEST

START_TEST(lying_queries_are_refused)
{
    static const struct {
        uint32_t bytes;
        const char *payload;
    } cases[] = {
        {4, "\0\0\0\0"},
        {8, "\0\0\0\0\xff\xff\xff\xff"},
        {8, "\0\0\0\0\0\0\0\1"},
        {12, "\0\0\0\0\0\0\0\1\0\0\0\1"},
        {12, "\0\0\0\0\0\0\0\1\xff\xff\xff\xff"},
        {9, "\0\0\0\0\0\0\0\0x"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct nbd_meta_request m;

        ck_assert_int_eq(nbd_parse_meta((const uint8_t *)cases[i].payload, cases[i].bytes, &m),
                         -EINVAL);
    }
}
END_TEST

START_TEST(an_oversized_option_is_thrown_away_or_hung_up_on)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;
    static const uint8_t junk[NBD_MAX_PAYLOAD + 1];

    say_u32(&s, 3);
    say_option(&s, NBD_OPT_GO, sizeof(junk));
    say(&s, junk, sizeof(junk));
    say_go(&s, NBD_OPT_GO, "disk", -1);
    play(&h, &s, &out, 4096);
    expect(&out, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
    ck_assert_int_eq(h.phase, NBD_PHASE_TRANSMIT);
    nbd_handshake_drop(&h);

    s.length = 0;
    say_u32(&s, 3);
    say_option(&s, NBD_OPT_GO, 0xffffffff);
    play(&h, &s, &out, 4096);
    ck_assert_int_eq(h.phase, NBD_PHASE_CLOSE);
    nbd_handshake_drop(&h);
}
END_TEST

START_TEST(breaches_hang_up)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;

    say_u32(&s, 4); /* an unknown client flag */
    play(&h, &s, &out, 1);
    ck_assert_int_eq(h.phase, NBD_PHASE_CLOSE);
    nbd_handshake_drop(&h);

    s.length = 0; /* no option magic */
    say_u32(&s, 3);
    say(&s, "0123456789abcdef", 16);
    play(&h, &s, &out, 1);
    ck_assert_int_eq(h.phase, NBD_PHASE_CLOSE);
    nbd_handshake_drop(&h);

    s.length = 0; /* not fixed newstyle, so nothing but EXPORT_NAME */
    say_u32(&s, 0);
    say_option(&s, NBD_OPT_LIST, 0);
    play(&h, &s, &out, 1);
    ck_assert_int_eq(h.phase, NBD_PHASE_CLOSE);
    nbd_handshake_drop(&h);

    s.length = 0; /* too many options */
    say_u32(&s, 3);
    for (unsigned i = 0; i <= NBD_MAX_OPTIONS; i++)
        say_option(&s, NBD_OPT_LIST, 0);
    play(&h, &s, &out, 1);
    ck_assert_int_eq(h.phase, NBD_PHASE_CLOSE);
    nbd_handshake_drop(&h);

    s.length = 0; /* an unknown name where no error can be told */
    say_u32(&s, 3);
    say_option(&s, NBD_OPT_EXPORT_NAME, 6);
    say(&s, "nobody", 6);
    play(&h, &s, &out, 1);
    ck_assert_int_eq(h.phase, NBD_PHASE_CLOSE);
    expect_end(&out);
    nbd_handshake_drop(&h);
}
END_TEST

START_TEST(abort_is_acknowledged)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;

    say_u32(&s, 3);
    say_option(&s, NBD_OPT_ABORT, 0);
    play(&h, &s, &out, 1);
    expect(&out, NBD_OPT_ABORT, NBD_REP_ACK);
    ck_assert_int_eq(h.phase, NBD_PHASE_CLOSE);
    nbd_handshake_drop(&h);
}
END_TEST

START_TEST(extended_headers)
{
    struct nbd_handshake h;
    struct script s = {.length = 0};
    static struct heard out;

    say_u32(&s, 3);
    say_option(&s, NBD_OPT_EXTENDED_HEADERS, 0);
    say_option(&s, NBD_OPT_EXTENDED_HEADERS, 0);
    say_option(&s, NBD_OPT_STRUCTURED_REPLY, 0);
    say_meta(&s, NBD_OPT_SET_META_CONTEXT, "disk", "base:allocation");
    play(&h, &s, &out, 1);
    expect(&out, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK);
    expect(&out, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_INVALID);
    expect(&out, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_EXT_REQD);
    expect(&out, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT);
    expect(&out, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
    expect_end(&out);
    ck_assert(h.extended && h.structured && h.agreed == 1);
    nbd_handshake_drop(&h);
}
END_TEST

/* --- contexts --- */

START_TEST(contexts_are_named)
{
    struct nbd_contexts list = {.refs = 1, .bitmaps = 2, .bitmap = {"one", "a:b"}};
    static const struct {
        const char *query;
        bool listing;
        uint32_t meant; /* by index */
    } cases[] = {
        {"qemu:dirty-bitmap:one", false, 4},
        {"qemu:dirty-bitmap:a:b", false, 8},
        {"qemu:dirty-bitmap:a:", true, 0},
        {"qemu:dirty-bitmap:on", true, 0},
        {"qemu:dirty-bitmap:onex", true, 0},
        {"qemu:dirty-bitmap:", true, 12},
        {"qemu:dirty-bitmap:", false, 0},
        {"qemu:", true, 14},
        {"base:", true, 1},
        {"", true, 0},
    };

    ck_assert_uint_eq(nbd_contexts_count(&list), 4);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t got = 0;

        for (unsigned n = 0; n < 4; n++)
            if (nbd_context_meant(&list, n, cases[i].query, strlen(cases[i].query),
                                  cases[i].listing))
                got |= 1u << n;
        ck_assert_msg(got == cases[i].meant, "%s: %x, not %x", cases[i].query, got, cases[i].meant);
    }
}
END_TEST

/* --- requests --- */

START_TEST(extended_requests)
{
    enum { LEN = NBD_CMD_FLAG_PAYLOAD_LEN };
    static const struct nbd_facts f = {
        .size = 1ULL << 40, .flags = 1, .min_block = 1, .max_block = NBD_MAX_REQUEST};
    static const struct nbd_session x = {true, true, 5, 1}, none = {true, true, 0, 1};
    static const struct {
        const struct nbd_session *s;
        uint16_t type, flags;
        uint64_t offset, length;
        uint32_t error, payload;
    } cases[] = {
        {&x, NBD_CMD_WRITE, LEN, 0, 512, 0, 512},
        {&x, NBD_CMD_WRITE, 0, 0, 512, 0, 512},
        {&x, NBD_CMD_WRITE, LEN, 0, UINT32_MAX, NBD_EINVAL, UINT32_MAX},
        {&x, NBD_CMD_READ, 0, 0, 1ULL << 32, NBD_EOVERFLOW, 0},
        {&x, NBD_CMD_READ, LEN, 0, 512, NBD_EINVAL, 512},
        {&x, NBD_CMD_TRIM, 0, 0, 1ULL << 40, 0, 0},
        {&x, NBD_CMD_WRITE_ZEROES, 0, 1, 1ULL << 40, NBD_ENOSPC, 0},
        {&x, NBD_CMD_CACHE, 0, 0, 1ULL << 40, 0, 0},
        {&x, NBD_CMD_CACHE, 0, 0, UINT64_MAX, NBD_EINVAL, 0},
        {&x, NBD_CMD_BLOCK_STATUS, 0, 0, 1ULL << 40, 0, 0},
        {&x, NBD_CMD_BLOCK_STATUS, LEN, 0, 12, 0, 12},
        {&x, NBD_CMD_BLOCK_STATUS, LEN, UINT64_MAX, 8, 0, 8}, /* the payload says more */
        {&x, NBD_CMD_BLOCK_STATUS, LEN, 0, 10, NBD_EINVAL, 10},
        {&x, NBD_CMD_BLOCK_STATUS, LEN, 0, 4, NBD_EINVAL, 4},
        {&x, NBD_CMD_BLOCK_STATUS, LEN, 0, 8 + 4 * 33, NBD_EINVAL, 8 + 4 * 33},
        {&none, NBD_CMD_BLOCK_STATUS, LEN, 0, 12, NBD_EINVAL, 12},
    };
    struct nbd_ask ask;
    const char *why;
    uint32_t error;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct nbd_request_ext raw = {be32_of(NBD_EXT_REQUEST_MAGIC), be16_of(cases[i].flags),
                                      be16_of(cases[i].type),         be64_of(77),
                                      be64_of(cases[i].offset),       be64_of(cases[i].length)};

        ck_assert_int_eq(nbd_ask_parse(&raw, cases[i].s, &f, &ask, &error, &why), 0);
        ck_assert_msg(error == cases[i].error && ask.payload == cases[i].payload,
                      "case %zu: error %u, payload %u (%s)", i, error, ask.payload, why);
        raw.magic = be32_of(NBD_REQUEST_MAGIC);
        ck_assert_int_eq(nbd_ask_parse(&raw, cases[i].s, &f, &ask, &error, &why), -EPROTO);
        raw.magic = be32_of(NBD_EXT_REQUEST_MAGIC);
        raw.length = be64_of(1ULL << 32);
        raw.flags = be16_of(LEN);
        ck_assert_int_eq(nbd_ask_parse(&raw, cases[i].s, &f, &ask, &error, &why), -EPROTO);
    }
}
END_TEST

START_TEST(filters_of_block_status)
{
    enum { LEN = NBD_CMD_FLAG_PAYLOAD_LEN };
    static const struct nbd_facts f = {
        .size = 1ULL << 40, .flags = 1, .min_block = 1, .max_block = NBD_MAX_REQUEST};
    static const struct nbd_session x = {true, true, 5, 1};
    static const struct {
        uint64_t length;
        uint32_t ids[3], count, error, asked;
    } filters[] = {
        {1 * MiB, {1}, 1, 0, 1},
        {1ULL << 40, {3, 1}, 2, 0, 5},
        {1 * MiB, {2}, 1, NBD_EINVAL, 0},
        {1 * MiB, {3, 3}, 2, NBD_EINVAL, 0},
        {1 * MiB, {0}, 1, NBD_EINVAL, 0},
        {1 * MiB, {33}, 1, NBD_EINVAL, 0},
        {0, {1}, 1, NBD_EINVAL, 0},
        {(1ULL << 40) + 1, {1}, 1, NBD_EINVAL, 0},
        {512, {0}, 0, 0, 0},
    };
    struct nbd_ask ask;
    const char *why;
    uint32_t error;

    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        uint8_t raw[20];
        be64 length = be64_of(filters[i].length);

        memcpy(raw, &length, sizeof(length));
        for (unsigned n = 0; n < filters[i].count; n++) {
            be32 id = be32_of(filters[i].ids[n]);

            memcpy(raw + 8 + 4 * n, &id, sizeof(id));
        }
        ask = (struct nbd_ask){.type = NBD_CMD_BLOCK_STATUS,
                               .flags = LEN,
                               .payload = 8 + 4 * filters[i].count,
                               .asked = 5};
        error = nbd_ask_narrow(&ask, raw, &x, &f, &why);
        ck_assert_msg(error == filters[i].error && (error || ask.asked == filters[i].asked),
                      "filter %zu: error %u, asked %x (%s)", i, error, ask.asked, why);
    }
}
END_TEST

START_TEST(requests_are_checked_against_the_facts)
{
    enum { FUA = 1, NO_HOLE = 2, DF = 4, ONE = 8, FAST = 16 };
    static const struct nbd_facts rw = {
        .size = 1 * MiB, .flags = 1, .min_block = 512, .max_block = NBD_MAX_REQUEST};
    static const struct nbd_facts ro = {.size = 1 * MiB,
                                        .flags = 1 | NBD_FLAG_READ_ONLY,
                                        .min_block = 1,
                                        .max_block = NBD_MAX_REQUEST};
    static const struct nbd_session all = {true, false, 3, 1}, none = {false, false, 0, 1},
                                    strict = {true, false, 1, 512};
    static const struct {
        const struct nbd_session *s;
        const struct nbd_facts *f;
        uint16_t type, flags;
        uint64_t offset;
        uint32_t length, error;
    } cases[] = {
        {&all, &rw, NBD_CMD_READ, 0, 0, 4096, 0},
        {&all, &rw, NBD_CMD_READ, DF | FUA, 1, 1, 0},
        {&none, &rw, NBD_CMD_READ, DF, 0, 4096, NBD_EINVAL},
        {&all, &rw, NBD_CMD_READ, NO_HOLE, 0, 4096, NBD_EINVAL},
        {&all, &rw, NBD_CMD_READ, 32, 0, 4096, NBD_EINVAL},
        {&all, &rw, NBD_CMD_READ, 0, 1 * MiB - 1, 1, 0},
        {&all, &rw, NBD_CMD_READ, 0, 1 * MiB - 1, 2, NBD_EINVAL},
        {&all, &rw, NBD_CMD_READ, 0, UINT64_MAX, 100, NBD_EINVAL},
        {&all, &rw, NBD_CMD_READ, 0, UINT64_MAX - 50, 100, NBD_EINVAL},
        {&all, &rw, NBD_CMD_READ, 0, 0, NBD_MAX_REQUEST + 1, NBD_EOVERFLOW},
        {&all, &rw, NBD_CMD_WRITE, FUA, 0, 512, 0},
        {&all, &rw, NBD_CMD_WRITE, 0, 1 * MiB, 1, NBD_ENOSPC},
        {&all, &rw, NBD_CMD_WRITE, 0, UINT64_MAX, 1, NBD_ENOSPC},
        {&all, &rw, NBD_CMD_WRITE, 0, 0, UINT32_MAX, NBD_EINVAL},
        {&all, &ro, NBD_CMD_WRITE, 0, 0, 512, NBD_EPERM},
        {&all, &ro, NBD_CMD_TRIM, 0, 0, 512, NBD_EPERM},
        {&all, &ro, NBD_CMD_WRITE_ZEROES, 0, 0, 512, NBD_EPERM},
        {&all, &ro, NBD_CMD_FLUSH, 0, 0, 0, 0},
        {&all, &rw, NBD_CMD_FLUSH, FAST, 0, 0, NBD_EINVAL},
        {&all, &rw, NBD_CMD_TRIM, FUA, 0, 512, 0},
        {&all, &rw, NBD_CMD_TRIM, 0, 1 * MiB, 1, NBD_EINVAL},
        {&all, &rw, NBD_CMD_WRITE_ZEROES, FUA | NO_HOLE | FAST, 0, 1 * MiB, 0},
        {&all, &rw, NBD_CMD_WRITE_ZEROES, ONE, 0, 1, NBD_EINVAL},
        {&all, &rw, NBD_CMD_WRITE_ZEROES, 0, 1, 1 * MiB, NBD_ENOSPC},
        {&all, &rw, NBD_CMD_CACHE, 0, 0, 1 * MiB, 0},
        {&all, &rw, NBD_CMD_CACHE, 0, 0, UINT32_MAX, NBD_EINVAL},
        {&all, &rw, NBD_CMD_BLOCK_STATUS, ONE, 0, 1 * MiB, 0},
        {&all, &rw, NBD_CMD_BLOCK_STATUS, 0, 0, 0, NBD_EINVAL},
        {&all, &rw, NBD_CMD_BLOCK_STATUS, 0, 0, UINT32_MAX, NBD_EINVAL},
        {&none, &rw, NBD_CMD_BLOCK_STATUS, 0, 0, 1, NBD_EINVAL},
        {&strict, &rw, NBD_CMD_READ, 0, 512, 1024, 0},
        {&strict, &rw, NBD_CMD_READ, 0, 511, 512, NBD_EINVAL},
        {&strict, &rw, NBD_CMD_WRITE, 0, 0, 100, NBD_EINVAL},
        {&all, &rw, NBD_COMMANDS, 0, 0, 0, NBD_EINVAL},
        {&all, &rw, 0xffff, 0, 0, 0, NBD_EINVAL},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct nbd_request_wire raw = {be32_of(NBD_REQUEST_MAGIC), be16_of(cases[i].flags),
                                       be16_of(cases[i].type),     be64_of(77),
                                       be64_of(cases[i].offset),   be32_of(cases[i].length)};
        struct nbd_ask ask;
        uint32_t error;
        const char *why;

        ck_assert_int_eq(nbd_ask_parse(&raw, cases[i].s, cases[i].f, &ask, &error, &why), 0);
        ck_assert_msg(error == cases[i].error, "case %zu: error %u, not %u (%s)", i, error,
                      cases[i].error, why);
        ck_assert(error == 0 || *why);
        raw.magic = be32_of(NBD_REQUEST_MAGIC + 1);
        ck_assert_int_eq(nbd_ask_parse(&raw, cases[i].s, cases[i].f, &ask, &error, &why), -EPROTO);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd_handshake");
    TCase *tc = tcase_create("all");
    SRunner *sr = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, go_by_name_in_pieces_of_any_size, 0, (int)ARRAY_LEN(steps));
    tcase_add_test(tc, info_says_size_flags_and_block_sizes);
    tcase_add_test(tc, export_name_has_zeroes_unless_agreed);
    tcase_add_test(tc, the_empty_name_is_the_first_export);
    tcase_add_test(tc, list_names_and_describes);
    tcase_add_test(tc, meta_contexts);
    tcase_add_test(tc, a_context_holds_for_its_export_and_until_set_again);
    tcase_add_test(tc, odd_options_are_refused_and_the_handshake_goes_on);
    tcase_add_test(tc, lying_queries_are_refused);
    tcase_add_test(tc, an_oversized_option_is_thrown_away_or_hung_up_on);
    tcase_add_test(tc, breaches_hang_up);
    tcase_add_test(tc, abort_is_acknowledged);
    tcase_add_test(tc, extended_headers);
    tcase_add_test(tc, contexts_are_named);
    tcase_add_test(tc, extended_requests);
    tcase_add_test(tc, filters_of_block_status);
    tcase_add_test(tc, requests_are_checked_against_the_facts);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_load.c - an NBD client that is cheaper than any server: it keeps a number of requests in
 * flight over a Unix socket, refills all that were answered with one send, and takes all answers
 * that came with one recv. Used by bench/nbd to load servers, and by tests/e2e/nbd_kill.sh to write
 * blocks that can be told apart and to look which of them survived.
 *
 *   nbd_load --socket PATH [--export NAME] --mode MODE [--block N] [--depth N] [--seconds S]
 *            [--seed N] [--simple] [--cpu N] [--pid N] [--state FILE] [--span BYTES] [--fua]
 *            [--batch N] [--flush N] [--psk HEX]
 *
 * New requests are sent when --batch of them can be (default: a quarter of the depth), so that no
 * server is made to wake up for each single one. --psk: over TLS, as "bench" with that key.
 *
 * With --flush every N-th request is a flush. firstwrite writes to the beginning of each 64 KiB of
 * the export once, in no order, and ends early when there are no more.
 *
 * Modes: randread, randwrite, firstwrite, seqread: prints one JSON line (iops, p50 and p99 in
 * microseconds, and the CPU microseconds per request of process --pid and of the client). write:
 * tagged blocks in rounds, each with a flush, until the time is up or the server is gone; --state
 * is read if it is there and says afterwards what must be found. check: reads back what --state
 * says. */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench/nbd_load_tls.h"
#include "nbd/proto.h"

#define MAX_DEPTH 1024u
#define IN_ROOM   (1u << 20)
#define CHUNK     65536u
#define BUCKETS   4096u /* of 1/16 octave, in ns */

struct load {
    const char *socket, *export, *mode, *state, *psk;
    uint32_t block, depth, batch, flush;
    double seconds;
    uint64_t seed, span;
    bool simple, structured, fua, writes;
    int cpu, pid;

    int fd;
    void *tls; /* a gnutls_session_t; NULL: none */
    uint64_t size;
    uint8_t *in, *out;
    size_t in_bytes, out_bytes, out_room;
    uint64_t skip; /* bytes of read data still to come, thrown away */
    uint64_t random_state, next_seq_offset, done, issued;
    uint64_t sent_ns[MAX_DEPTH];
    uint16_t idle[MAX_DEPTH]; /* slots to be sent */
    unsigned idles;
    uint64_t histogram[BUCKETS];
    uint8_t pattern[65536];
};

static void die(const char *what)
{
    fprintf(stderr, "nbd_load: %s: %s\n", what, errno ? strerror(errno) : "protocol error");
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t random_next(struct load *l)
{
    uint64_t z = (l->random_state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* --- the connection --- */

/* False when the server is gone. */
static bool send_all(struct load *l, const void *from, size_t bytes)
{
    while (bytes) {
        ssize_t n = send_some(l->fd, l->tls, from, bytes);

        if (n <= 0)
            return false;
        from = (const uint8_t *)from + n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool recv_all(struct load *l, void *to, size_t bytes)
{
    while (bytes) {
        ssize_t n = recv_some(l->fd, l->tls, to, bytes);

        if (n <= 0)
            return false;
        to = (uint8_t *)to + n;
        bytes -= (size_t)n;
    }
    return true;
}

static void send_option(struct load *l, uint32_t code, const void *payload, uint32_t bytes)
{
    struct nbd_option_head h = {
        .magic = be64_of(NBD_OPTION_MAGIC), .code = be32_of(code), .bytes = be32_of(bytes)};

    if (!send_all(l, &h, sizeof(h)) || !send_all(l, payload, bytes))
        die("option");
}

/* Reads replies to an option to the last one; true: it was granted. */
static bool take_option_replies(struct load *l)
{
    for (;;) {
        struct nbd_option_reply r;
        uint8_t payload[8192];
        struct nbd_info_export info;

        if (!recv_all(l, &r, sizeof(r)) || be32_get(r.bytes) > sizeof(payload) ||
            !recv_all(l, payload, be32_get(r.bytes)))
            die("option reply");
        if (be32_get(r.type) & 0x80000000u)
            return false;
        if (be32_get(r.type) == NBD_REP_ACK)
            return true;
        memcpy(&info, payload, sizeof(info));
        if (be32_get(r.type) == NBD_REP_INFO && be16_get(info.type) == NBD_INFO_EXPORT)
            l->size = be64_get(info.size);
    }
}

static void connect_to_server(struct load *l)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct nbd_hello hello;
    be32 flags = be32_of(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    uint8_t go[4 + 256 + 2] = {0};
    be32 name_bytes = be32_of((uint32_t)strlen(l->export));
    int room = 4 << 20;

    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", l->socket);
    if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        die(l->socket);
    setsockopt(l->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    if (!recv_all(l, &hello, sizeof(hello)) || !send_all(l, &flags, sizeof(flags)))
        die("hello");
    if (l->psk) {
        send_option(l, NBD_OPT_STARTTLS, NULL, 0);
        if (!take_option_replies(l))
            die("the server refuses TLS");
        l->tls = tls_start(l->fd, l->psk);
        if (!l->tls)
            die("TLS");
    }
    if (!l->simple) {
        send_option(l, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        l->structured = take_option_replies(l);
    }
    memcpy(go, &name_bytes, sizeof(name_bytes));
    memcpy(go + 4, l->export, strlen(l->export));
    send_option(l, NBD_OPT_GO, go, (uint32_t)(4 + strlen(l->export) + 2));
    if (!take_option_replies(l))
        die("the server refuses the export");
}

static void put(struct load *l, const void *from, size_t bytes)
{
    assert(l->out_bytes + bytes <= l->out_room);
    memcpy(l->out + l->out_bytes, from, bytes);
    l->out_bytes += bytes;
}

static void put_request(struct load *l, uint16_t type, uint16_t flags, uint64_t cookie,
                        uint64_t offset, uint32_t length)
{
    struct nbd_request_wire r = {.magic = be32_of(NBD_REQUEST_MAGIC),
                                 .flags = be16_of(flags),
                                 .type = be16_of(type),
                                 .cookie = be64_of(cookie),
                                 .offset = be64_of(offset),
                                 .length = be32_of(length)};

    put(l, &r, sizeof(r));
}

static bool flush_out(struct load *l)
{
    bool ok = send_all(l, l->out, l->out_bytes);

    l->out_bytes = 0;
    return ok;
}

/* One reply (or chunk) off the front of the received bytes. @data_bytes follow it. */
struct reply {
    uint64_t cookie;
    uint32_t error, data_bytes;
    bool last;
};

/* Bytes of its head, 0: not all there yet. Data of reads is left to the caller. */
static size_t parse_reply(const struct load *l, const uint8_t *in, size_t bytes, struct reply *out)
{
    struct nbd_simple_reply s;
    struct nbd_chunk c;
    uint16_t type;

    if (bytes < sizeof(s))
        return 0;
    memcpy(&s, in, sizeof(s));
    if (be32_get(s.magic) == NBD_SIMPLE_MAGIC) {
        *out = (struct reply){.cookie = be64_get(s.cookie), .error = be32_get(s.error), .last = 1};
        return sizeof(s);
    }
    if (bytes < sizeof(c))
        return 0;
    memcpy(&c, in, sizeof(c));
    if (be32_get(c.magic) != NBD_STRUCTURED_MAGIC)
        die("reply magic");
    type = be16_get(c.type);
    *out = (struct reply){.cookie = be64_get(c.cookie),
                          .error = type & 0x8000 ? 1 : 0,
                          .data_bytes = be32_get(c.bytes),
                          .last = be16_get(c.flags) & NBD_CHUNK_DONE};
    return sizeof(c);
}

/* --- load --- */

/* Chunks that firstwrite goes through: an odd factor leads to each of 2^n once. */
static uint64_t chunks_of(const struct load *l)
{
    return 1ULL << log2_floor(MAX(l->size / CHUNK, 1));
}

static uint64_t next_offset(struct load *l)
{
    uint64_t blocks = l->size / l->block, offset = l->next_seq_offset;

    if (strcmp(l->mode, "firstwrite") == 0)
        return l->next_seq_offset++ * 0x9e3779b1u % chunks_of(l) * CHUNK;
    if (strcmp(l->mode, "seqread") != 0)
        return random_next(l) % blocks * l->block;
    l->next_seq_offset = (offset + l->block) % (blocks * l->block);
    return offset;
}

static void fill_slot(struct load *l, unsigned slot, uint64_t at_ns)
{
    l->sent_ns[slot] = at_ns;
    if (l->flush && ++l->issued % l->flush == 0) {
        put_request(l, NBD_CMD_FLUSH, 0, slot, 0, 0);
        return;
    }
    put_request(l, l->writes ? NBD_CMD_WRITE : NBD_CMD_READ,
                l->writes && l->fua ? NBD_CMD_FLAG_FUA : 0, slot, next_offset(l), l->block);
    for (uint32_t n = 0; l->writes && n < l->block; n += MIN(l->block, sizeof(l->pattern)))
        put(l, l->pattern, MIN(l->block, sizeof(l->pattern)));
}

static bool all_written(const struct load *l)
{
    return strcmp(l->mode, "firstwrite") == 0 && l->next_seq_offset + l->depth > chunks_of(l);
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned octave;

    if (ns < 16)
        return (unsigned)ns;
    octave = log2_floor(ns);
    return MIN(octave * 16 + (unsigned)((ns >> (octave - 4)) & 15), BUCKETS - 1);
}

static double bucket_us(unsigned bucket)
{
    if (bucket < 16)
        return bucket / 1e3;
    return (double)((16ULL + bucket % 16) << (bucket / 16 - 4)) / 1e3;
}

static double percentile(const struct load *l, double part)
{
    uint64_t want = (uint64_t)(part * (double)l->done), seen = 0;

    for (unsigned b = 0; b < BUCKETS; b++)
        if ((seen += l->histogram[b]) > want)
            return bucket_us(b);
    return 0;
}

static void take_replies(struct load *l, uint64_t at_ns)
{
    size_t at = 0;

    for (;;) {
        uint64_t n = MIN(l->skip, l->in_bytes - at);
        struct reply r;
        size_t head;

        l->skip -= n;
        at += n;
        head = l->skip ? 0 : parse_reply(l, l->in + at, l->in_bytes - at, &r);
        if (head == 0)
            break;
        at += head;
        if (r.error || r.cookie >= l->depth)
            die("the server answered an error");
        l->skip = r.data_bytes;
        if (!l->structured && !l->writes)
            l->skip = l->block;
        if (!r.last)
            continue;
        l->done++;
        l->histogram[bucket_of(at_ns - l->sent_ns[r.cookie])]++;
        l->idle[l->idles++] = (uint16_t)r.cookie;
    }
    memmove(l->in, l->in + at, l->in_bytes - at);
    l->in_bytes -= at;
}

/* What a process's threads have run, in ns: the scheduler counts finer than the clock ticks. */
static uint64_t own_ns(int pid)
{
    char path[400];
    unsigned long long ns;
    uint64_t sum = 0;
    struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    tasks = opendir(path);
    while (tasks && (entry = readdir(tasks))) {
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, entry->d_name);
        f = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (f && fscanf(f, "%llu", &ns) == 1)
            sum += ns;
        if (f)
            fclose(f);
    }
    if (tasks)
        closedir(tasks);
    return sum;
}

/* With its children's: some servers fork for each client. */
static uint64_t cpu_ns(int pid)
{
    uint64_t ns = pid ? own_ns(pid) : 0;
    char path[64];
    int child;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
    f = pid ? fopen(path, "r") : NULL;
    while (f && fscanf(f, "%d", &child) == 1)
        ns += own_ns(child);
    if (f)
        fclose(f);
    return ns;
}

static void run_load(struct load *l)
{
    uint64_t begin = now_ns(), warm = begin + (uint64_t)(l->seconds * 0.1 * 1e9), t = begin;
    uint64_t end = warm + (uint64_t)(l->seconds * 1e9), ran = cpu_ns(l->pid);
    uint64_t own = cpu_ns(getpid());
    bool warming = true;

    for (unsigned i = 0; i < l->depth; i++)
        l->idle[l->idles++] = (uint16_t)i;
    while (t < end && !all_written(l)) {
        ssize_t n;

        if (l->idles >= l->batch) {
            for (; l->idles; l->idles--)
                fill_slot(l, l->idle[l->idles - 1], t);
            if (!flush_out(l))
                die("send");
        }
        n = recv_some(l->fd, l->tls, l->in + l->in_bytes, IN_ROOM - l->in_bytes);
        if (n <= 0)
            die("recv");
        l->in_bytes += (size_t)n;
        t = now_ns();
        take_replies(l, t);
        if (warming && t >= warm) {
            warming = false;
            l->done = 0;
            memset(l->histogram, 0, sizeof(l->histogram));
            ran = cpu_ns(l->pid);
            own = cpu_ns(getpid());
            begin = t;
        }
    }
    double seconds = (double)(t - begin) / 1e9;
    double cpu = (double)(cpu_ns(l->pid) - ran) / 1e9;
    double mine = (double)(cpu_ns(getpid()) - own) / 1e9;
    printf("{\"mode\": \"%s\", \"block\": %u, \"depth\": %u, \"iops\": %.0f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"cpu_us\": %.3f, \"client_us\": %.3f}\n",
           l->mode, l->block, l->depth, (double)l->done / seconds, percentile(l, 0.5),
           percentile(l, 0.99), l->pid && l->done ? cpu * 1e6 / (double)l->done : 0,
           l->done ? mine * 1e6 / (double)l->done : 0);
}

/* --- verification --- */

/* What is known of a block: writes are numbered, 0 is "never". */
struct mark {
    uint64_t issued, acked, flushed;
};

/* First bytes of a tagged block; the rest repeats the tag. */
struct tag {
    uint64_t magic, block, number, check;
};
#define TAG_MAGIC 0x6c616d696e61746bULL

static struct tag tag_of(uint64_t block, uint64_t number)
{
    uint64_t check = (block * 0x9e3779b97f4a7c15u) ^ (number * 0xbf58476d1ce4e5b9u);

    return (struct tag){TAG_MAGIC, block, number, check};
}

static void fill_block(uint8_t *to, uint32_t bytes, uint64_t block, uint64_t number)
{
    struct tag tag = tag_of(block, number);

    for (uint32_t i = 0; i + sizeof(tag) <= bytes; i += sizeof(tag))
        memcpy(to + i, &tag, sizeof(tag));
}

static struct mark *load_state(const struct load *l, uint64_t blocks)
{
    struct mark *m = calloc(blocks, sizeof(*m));
    FILE *f = fopen(l->state, "r");

    if (!m)
        die("memory");
    if (f) {
        if (fread(m, sizeof(*m), blocks, f) != blocks)
            die(l->state);
        fclose(f);
    }
    return m;
}

static void save_state(const struct load *l, const struct mark *m, uint64_t blocks)
{
    FILE *f = fopen(l->state, "w");

    if (!f || fwrite(m, sizeof(*m), blocks, f) != blocks || fclose(f) != 0)
        die(l->state);
}

#define FLUSH_COOKIE 0xffffffffffffffffULL

/* One reply with nothing behind it. False: the server is gone. */
static bool wait_reply(struct load *l, struct reply *r)
{
    struct nbd_simple_reply s;
    uint8_t rest[4096];

    if (!recv_all(l, &s, sizeof(s)))
        return false;
    if (parse_reply(l, (uint8_t *)&s, sizeof(s), r) != 0)
        return r->error ? (errno = 0, die("write refused"), false) : true;
    memcpy(rest, &s, sizeof(s)); /* a chunk: its last four bytes are missing */
    if (!recv_all(l, rest + sizeof(s), sizeof(struct nbd_chunk) - sizeof(s)) ||
        parse_reply(l, rest, sizeof(struct nbd_chunk), r) == 0 || r->data_bytes > sizeof(rest) ||
        !recv_all(l, rest, r->data_bytes))
        return false;
    if (r->error)
        die("write refused");
    return true;
}

/* A round: depth writes to different blocks; a flush goes out when half are answered, and what had
 * been answered by then is durable when the flush is. */
static bool write_round(struct load *l, struct mark *m, uint64_t blocks, uint64_t *number)
{
    uint64_t block[MAX_DEPTH], wrote[MAX_DEPTH];
    unsigned acked[MAX_DEPTH], acks = 0, covered = 0, left = l->depth + 1;
    uint64_t first = random_next(l) % blocks, step = random_next(l) % (blocks / l->depth) + 1;

    for (unsigned i = 0; i < l->depth; i++) {
        uint8_t *data = l->out + l->out_bytes + sizeof(struct nbd_request_wire);

        block[i] = (first + i * step) % blocks; /* all different: depth * step <= blocks */
        wrote[i] = m[block[i]].issued = ++*number;
        put_request(l, NBD_CMD_WRITE, l->fua ? NBD_CMD_FLAG_FUA : 0, i, block[i] * l->block,
                    l->block);
        fill_block(data, l->block, block[i], *number);
        l->out_bytes += l->block;
    }
    if (!flush_out(l))
        return false;
    while (left) {
        struct reply r;

        if (!wait_reply(l, &r))
            return false;
        left--;
        if (r.cookie == FLUSH_COOKIE) {
            for (unsigned i = 0; i < covered; i++)
                m[block[acked[i]]].flushed = wrote[acked[i]];
            continue;
        }
        m[block[r.cookie]].acked = wrote[r.cookie];
        if (l->fua)
            m[block[r.cookie]].flushed = wrote[r.cookie];
        acked[acks++] = (unsigned)r.cookie;
        if (acks == (l->depth + 1) / 2) {
            covered = acks;
            put_request(l, NBD_CMD_FLUSH, 0, FLUSH_COOKIE, 0, 0);
            if (!flush_out(l))
                return false;
        }
    }
    return true;
}

static int run_writer(struct load *l)
{
    uint64_t blocks = (l->span ? MIN(l->span, l->size) : l->size) / l->block, number = 0;
    uint64_t end = now_ns() + (uint64_t)(l->seconds * 1e9), rounds = 0, first;
    struct mark *m = load_state(l, blocks);
    bool alive = true;

    for (uint64_t i = 0; i < blocks; i++)
        number = MAX(number, m[i].issued);
    first = number;
    if (blocks < l->depth)
        die("the export is too small");
    fputs("writing\n", stderr); /* who kills the server waits for this */
    while (alive && now_ns() < end) {
        alive = write_round(l, m, blocks, &number);
        rounds += alive;
    }
    save_state(l, m, blocks);
    printf("{\"mode\": \"write\", \"writes\": %" PRIu64 ", \"rounds\": %" PRIu64
           ", \"server_gone\": %s}\n",
           number - first, rounds, alive ? "false" : "true");
    free(m);
    return 0;
}
/* A write that was never answered may be there in part, by sectors: whoever is killed in the middle
 * of a write to a page cache leaves some of the pages as they were, and an image's blocks need not
 * begin where pages do (VDI). */
#define SECTOR 512u

static bool sector_fine(const uint8_t *data, uint64_t block, const struct mark *m)
{
    uint8_t want[SECTOR];
    struct tag tag;

    memcpy(&tag, data, sizeof(tag));
    if (m->flushed == 0 && mem_is_zero(data, SECTOR))
        return true;
    if (tag.magic != TAG_MAGIC || tag.number < m->flushed || tag.number > m->issued)
        return false;
    fill_block(want, SECTOR, block, tag.number);
    return memcmp(want, data, SECTOR) == 0;
}

/* The first sector of the block that is not; NULL: all are. */
static const uint8_t *bad_sector(const struct load *l, const uint8_t *data, uint64_t block,
                                 const struct mark *m)
{
    for (uint32_t at = 0; at < l->block; at += SECTOR)
        if (!sector_fine(data + at, block, m))
            return data + at;
    return NULL;
}

static void read_block(struct load *l, uint64_t block, uint8_t *to)
{
    bool last = false;

    put_request(l, NBD_CMD_READ, 0, 1, block * l->block, l->block);
    if (!flush_out(l))
        die("send");
    while (!last) {
        struct nbd_chunk c;
        struct nbd_simple_reply s;
        be64 offset;
        uint32_t bytes;

        if (!l->structured) {
            if (!recv_all(l, &s, sizeof(s)) || be32_get(s.error) || !recv_all(l, to, l->block))
                die("read");
            return;
        }
        if (!recv_all(l, &c, sizeof(c)) || be16_get(c.type) & 0x8000 ||
            !recv_all(l, &offset, sizeof(offset)))
            die("read");
        bytes = be32_get(c.bytes) - 8;
        last = be16_get(c.flags) & NBD_CHUNK_DONE;
        if (be16_get(c.type) == NBD_CHUNK_HOLE) {
            be32 length;

            if (!recv_all(l, &length, sizeof(length)))
                die("read");
            memset(to + (be64_get(offset) - block * l->block), 0, be32_get(length));
        } else if (bytes > l->block ||
                   !recv_all(l, to + (be64_get(offset) - block * l->block), bytes)) {
            die("read");
        }
    }
}

static int run_check(struct load *l)
{
    uint64_t blocks = (l->span ? MIN(l->span, l->size) : l->size) / l->block, bad = 0, seen = 0;
    struct mark *m = load_state(l, blocks);
    uint8_t *data = malloc(l->block);

    for (uint64_t i = 0; data && i < blocks; i++) {
        const uint8_t *wrong;
        struct tag tag;

        if (m[i].issued == 0)
            continue;
        seen++;
        read_block(l, i, data);
        wrong = bad_sector(l, data, i, &m[i]);
        if (!wrong || bad++ >= 10)
            continue;
        memcpy(&tag, wrong, sizeof(tag));
        fprintf(stderr,
                "nbd_load: block %" PRIu64 " at %zu: flushed %" PRIu64 ", issued %" PRIu64
                ", found %" PRIu64 "\n",
                i, (size_t)(wrong - data), m[i].flushed, m[i].issued, tag.number);
    }
    printf("{\"mode\": \"check\", \"blocks\": %" PRIu64 ", \"lost\": %" PRIu64 "}\n", seen, bad);
    free(data);
    free(m);
    return bad ? 1 : 0;
}

/* Takes what is still in flight: some servers do not like to be left with answers in hand. */
static void say_goodbye(struct load *l)
{
    l->out_bytes = 0;
    put_request(l, NBD_CMD_DISC, 0, 0, 0, 0);
    if (flush_out(l))
        while (recv_some(l->fd, l->tls, l->in, IN_ROOM) > 0)
            ;
    close(l->fd);
}

/* --- command line --- */

static const struct option longs[] = {
    {"socket", 1, NULL, 's'}, {"export", 1, NULL, 'x'}, {"mode", 1, NULL, 'm'},
    {"block", 1, NULL, 'b'},  {"depth", 1, NULL, 'd'},  {"seconds", 1, NULL, 't'},
    {"seed", 1, NULL, 'r'},   {"simple", 0, NULL, 'S'}, {"cpu", 1, NULL, 'c'},
    {"pid", 1, NULL, 'p'},    {"state", 1, NULL, 'f'},  {"span", 1, NULL, 'n'},
    {"fua", 0, NULL, 'F'},    {"batch", 1, NULL, 'B'},  {"flush", 1, NULL, 'L'},
    {"psk", 1, NULL, 'k'},    {NULL, 0, NULL, 0},
};

static void set_number(struct load *l, int id)
{
    uint64_t v = strtoull(optarg, NULL, 0);

    switch (id) {
    case 'b':
        l->block = (uint32_t)v;
        break;
    case 'd':
        l->depth = (uint32_t)v;
        break;
    case 'B':
        l->batch = (uint32_t)v;
        break;
    case 'L':
        l->flush = (uint32_t)v;
        break;
    case 'r':
        l->seed = v;
        break;
    case 'c':
        l->cpu = (int)v;
        break;
    case 'p':
        l->pid = (int)v;
        break;
    case 'n':
        l->span = v;
        break;
    case 't':
        l->seconds = strtod(optarg, NULL);
        break;
    }
}

static void parse_words(struct load *l, int argc, char **argv)
{
    int id;

    while ((id = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (id == 's')
            l->socket = optarg;
        else if (id == 'x')
            l->export = optarg;
        else if (id == 'm')
            l->mode = optarg;
        else if (id == 'f')
            l->state = optarg;
        else if (id == 'k')
            l->psk = optarg;
        else if (id == 'S')
            l->simple = true;
        else if (id == 'F')
            l->fua = true;
        else if (id == '?')
            exit(2);
        else
            set_number(l, id);
    }
    if (!l->batch)
        l->batch = MAX(l->depth / 4, 1);
    if (!l->socket || !l->mode || l->batch > l->depth || l->depth < 1 || l->depth > MAX_DEPTH ||
        l->block < 512 || l->block > NBD_MAX_REQUEST || strlen(l->export) > 250) {
        fprintf(stderr, "nbd_load: see the first lines of bench/nbd_load.c\n");
        exit(2);
    }
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (cpu >= 0)
        sched_setaffinity(0, sizeof(set), &set);
}

int main(int argc, char **argv)
{
    static struct load l = {
        .export = "", .block = 4096, .depth = 64, .seconds = 3, .seed = 1, .cpu = 1};
    bool verify;
    int rc = 0;

    parse_words(&l, argc, argv);
    l.random_state = l.seed;
    l.writes = strcmp(l.mode, "randwrite") == 0 || strcmp(l.mode, "firstwrite") == 0;
    for (size_t i = 0; i < sizeof(l.pattern); i++)
        l.pattern[i] = (uint8_t)random_next(&l);
    l.out_room = (size_t)(l.depth + 1) * (sizeof(struct nbd_request_wire) + l.block + 65536);
    l.in = malloc(IN_ROOM);
    l.out = malloc(l.out_room);
    if (!l.in || !l.out)
        die("memory");
    verify = strcmp(l.mode, "write") == 0 || strcmp(l.mode, "check") == 0;
    if (verify && !l.state)
        die("--state is missing");
    pin(l.cpu);
    connect_to_server(&l);
    if (l.size < l.block)
        die("the export is smaller than a block");
    if (!verify)
        run_load(&l);
    else
        rc = strcmp(l.mode, "write") == 0 ? run_writer(&l) : run_check(&l);
    say_goodbye(&l);
    return rc;
}

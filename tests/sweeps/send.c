/* SPDX-License-Identifier: BSD-3-Clause */
/* send.c - the proof over `receive`: the power goes at every cut of one, with any legal order of
 * what was not durable, and each of its calls fails once. The same stream is then received again,
 * and the target must show what was sent: nothing is ever half received for good, nothing that was
 * not sent is called whole.
 *
 * The streams are written here by the words of docs/stream.md, with a point after every third
 * block. */
#include <stdio.h>
#include <stdlib.h>

#include "block/host_sim.h"
#include "block/host_sim_store.h"
#include "tests/lib/on_host.h"
#include "tools/receive.h"

#define B      SEND_BLOCK
#define BLOCKS 20
#define SIZE   ((BLOCKS - 1) * B + 1536) /* the last block is none */
#define SMALL  (12 * B)
#define POINTS 3

/* --- disks and streams --- */

struct disk {
    uint8_t bytes[BLOCKS * B];
    uint64_t size;
};

struct stream {
    struct receive_input input;
    uint8_t *bytes;
    size_t count, at;
    uint32_t number;
    struct sumhash sum;
};

static int co_read(struct receive_input *in, void *to, size_t bytes)
{
    struct stream *s = container_of(in, struct stream, input);
    if (bytes > s->count - s->at)
        return -ENODATA;
    memcpy(to, s->bytes + s->at, bytes);
    s->at += bytes;
    return 0;
}

static void put(struct stream *s, const void *bytes, size_t count)
{
    memcpy(s->bytes + s->count, bytes, count);
    s->count += count;
}

static void put_record(struct stream *s, struct send_record r, const uint8_t *payload)
{
    struct send_record_disk raw;
    r.number = s->number++;
    send_record_put(&r, payload, &raw);
    put(s, &raw, sizeof(raw));
    put(s, payload, r.payload_bytes);
}

static struct sumhash hash_of(const struct disk *d)
{
    struct sumhash s = {0};
    sumhash_add_blocks(&s, 0, d->bytes, d->size);
    sumhash_add_size(&s, d->size);
    return s;
}

/* @old NULL: in full. */
static void build(struct stream *s, const struct disk *old, const struct disk *new)
{
    struct send_header h = {.increment = old, .size = new->size};
    struct send_header_disk raw;
    uint8_t end[SEND_END_PAYLOAD];
    unsigned sent = 0;
    *s = (struct stream){.input.co_read = co_read, .bytes = malloc(2 * sizeof(new->bytes))};
    must(s->bytes);
    if (old) {
        h.base_size = old->size;
        h.base = hash_of(old);
    }
    send_header_put(&h, &raw);
    put(s, &raw, sizeof(raw));
    for (uint64_t at = 0; at < new->size; at += B) {
        uint64_t n = MIN(B, new->size - at);
        bool zero = mem_is_zero(new->bytes + at, n);
        if (old ? memcmp(old->bytes + at, new->bytes + at, B) == 0 : zero)
            continue;
        struct send_record r = {.kind = zero ? SEND_ZERO : SEND_DATA,
                                .payload_bytes = zero ? 0 : (uint32_t)n,
                                .offset = at,
                                .bytes = n};
        put_record(s, r, new->bytes + at);
        sumhash_add_blocks(&s->sum, at, new->bytes + at, n);
        sumhash_put(&s->sum, end);
        if (++sent % POINTS == 0 && n == B)
            put_record(s, (struct send_record){SEND_POINT, SUMHASH_BYTES, 0, 0, at + B, 0}, end);
    }
    struct sumhash whole = hash_of(new);
    sumhash_put(&whole, end);
    sumhash_put(&s->sum, end + SUMHASH_BYTES);
    put_record(s, (struct send_record){SEND_END, SEND_END_PAYLOAD, 0, 0, new->size, 0}, end);
}

/* Two of three blocks hold data; in what comes after, half of them are others, some zero. */
static void draw(struct disk *d, const struct disk *before, uint64_t size, uint64_t seed)
{
    if (before)
        memcpy(d->bytes, before->bytes, sizeof(d->bytes));
    for (uint64_t i = 0; i < BLOCKS; i++) {
        uint64_t what = next_random(&seed) % 6;
        if (before ? what < 2 : what < 4)
            fill_random(&seed, d->bytes + i * B, B);
        else if (before && what == 2)
            memset(d->bytes + i * B, 0, B);
    }
    d->size = size;
    memset(d->bytes + size, 0, sizeof(d->bytes) - size);
}

/* --- one receive --- */

struct row {
    const char *name, *target, *format, *base; /* base: TARGET is made on it */
    const char *option, *value;                /* of the new image */
    bool increment;
    uint64_t old_size, new_size;
};

struct attempt {
    struct host *host;
    const struct row *row;
    struct stream *stream;
    const struct disk *shows; /* afterwards */
    const char *target;       /* NULL: the row's */
    bool full;                /* not the row's own stream */
    int rc;                   /* of receiving */
    struct blk_error error;
};

static struct tool tool_of(struct attempt *a)
{
    return (struct tool){
        .called = "send", .face = FACE_LAMINA, .host = a->host, .quiet = true, .commands = NULL};
}

static int co_attempt(void *arg)
{
    struct attempt *a = arg;
    struct tool t = tool_of(a);
    struct receive *r = mem_zalloc(sizeof(*r));
    must(r);
    *r = (struct receive){
        .task.tool = &t,
        .target_format = a->row->format,
        .format = a->row->format,
        .base = a->full ? NULL : a->row->base,
        .make = {.tool = &t,
                 .options = json_object(),
                 .steady = true,
                 .cache = "writeback",
                 .name = a->target ? a->target : a->row->target},
        .input = &a->stream->input,
    };
    if (a->row->option)
        must(json_object_set_new(r->make.options, a->row->option, json_string(a->row->value)) == 0);
    a->stream->at = 0;
    job_init(&r->task.job, "receive", NULL, NULL);
    a->rc = co_receive_run(r);
    a->error = r->task.error;
    receive_journal_drop(&r->journal);
    make_drop(&r->make);
    mem_free(r);
    return 0;
}

/* 0: the target shows what it should. */
static int co_look(void *arg)
{
    struct attempt *a = arg;
    struct tool t = tool_of(a);
    struct blk_device *dev;
    struct image i = {.text = a->row->target, .format = a->row->format, .trust = TRUST_READ};
    int rc = co_image_open(&t, &i, &dev, &a->error);
    if (rc < 0)
        return rc;
    uint8_t *bytes = mem_alloc(BLOCKS * B);
    must(bytes);
    if (dev->size != align_up(a->shows->size, 512))
        rc = err_set(&a->error, -EBADMSG, "the size is %" PRIu64, dev->size);
    if (rc == 0)
        rc = co_blk_read_buf(dev, 0, bytes, a->shows->size);
    if (rc == 0 && memcmp(bytes, a->shows->bytes, a->shows->size) != 0)
        rc = err_set(&a->error, -EBADMSG, "the target is not what was sent");
    mem_free(bytes);
    return co_image_close(dev, rc, &a->error);
}

/* Receives again after whatever happened. What is refused then is there in whole already. */
static bool recovers(struct attempt *a)
{
    int first = a->rc;
    on_this_host(a->host, co_attempt, a);
    bool refused = a->rc == -ESTALE || a->rc == -EEXIST;
    if (a->rc < 0 && !refused)
        return false;
    struct blk_error said = a->error;
    if (on_this_host(a->host, co_look, a) < 0) {
        if (refused)
            a->error = said;
        return false;
    }
    a->rc = first;
    return true;
}

/* --- a row --- */

struct proof {
    const struct row *row;
    struct disk old, new;
    struct stream full, stream;
    struct host *clean; /* the machine before the receive */
    uint64_t states, faults;
    bool failed;
};

static void prepare(struct proof *p, uint64_t seed)
{
    const struct row *row = p->row;
    struct sim_options o = {.seed = seed};
    draw(&p->old, NULL, row->old_size, seed);
    draw(&p->new, row->increment ? &p->old : NULL, row->new_size, seed + 1);
    build(&p->full, NULL, &p->old);
    build(&p->stream, row->increment ? &p->old : NULL, &p->new);
    struct attempt a = {.row = row, .stream = &p->full, .target = row->base, .full = true};
    must(host_sim_open(&o, &a.host) == 0);
    if (row->increment) {
        on_this_host(a.host, co_attempt, &a);
        if (a.rc < 0)
            fprintf(stderr, "%s: %s\n", row->name, a.error.text);
        must(a.rc == 0);
    }
    must(host_sim_clone(a.host, seed, &p->clean) == 0);
    host_close(a.host);
}

static struct attempt begin(struct proof *p, uint64_t seed)
{
    struct attempt a = {.row = p->row, .stream = &p->stream, .shows = &p->new};
    must(host_sim_clone(p->clean, seed, &a.host) == 0);
    return a;
}

static void crash_once(struct proof *p, struct attempt *run, uint64_t seed)
{
    size_t cut = next_random(&seed) % (host_sim_cut(run->host) + 1);
    size_t pending = host_sim_pending(run->host, cut);
    uint8_t *apply = calloc(pending + 1, 1);
    unsigned how = next_random(&seed) % 4;
    for (size_t i = 0; apply && i < pending; i++)
        apply[i] = how < 2 ? (uint8_t)how : (uint8_t)(next_random(&seed) % 3);
    struct attempt a = *run;
    must(apply && host_sim_crash(run->host, cut, apply, seed, &a.host) == 0);
    if (!recovers(&a)) {
        p->failed = true;
        printf("# cut %zu: %s\n", cut, a.error.text);
        for (size_t i = 0; i < pending; i++) {
            char text[120];
            host_sim_pending_text(run->host, cut, i, text, sizeof(text));
            printf("#   %s: %s\n", (const char *[]){"dropped", "applied", "torn"}[apply[i]], text);
        }
    }
    p->states++;
    free(apply);
    host_close(a.host);
}

static void crashes(struct proof *p, uint64_t seed, unsigned states)
{
    struct attempt run = begin(p, seed);
    host_sim_record(run.host);
    on_this_host(run.host, co_attempt, &run);
    if (run.rc < 0 || on_this_host(run.host, co_look, &run) < 0) {
        printf("# undisturbed: %s\n", run.error.text);
        p->failed = true;
    }
    for (unsigned i = 0; i < states && !p->failed; i++)
        crash_once(p, &run, seed * 1000 + i);
    host_close(run.host);
}

/* Each call of a kind fails once: an error or not, the next run ends well. */
static void faults(struct proof *p, enum sim_op op)
{
    bool fired = true;
    for (uint64_t nth = 1; fired && !p->failed; nth++) {
        struct attempt a = begin(p, 5);
        struct sim_fault f = {.op = op,
                              .nth = nth,
                              .times = 1,
                              .rc = op == SIM_WRITE && nth % 2 ? -ENOSPC : -EIO,
                              .lose_unsynced = op == SIM_FSYNC};
        host_sim_fault(a.host, &f);
        on_this_host(a.host, co_attempt, &a);
        fired = host_sim_fired(a.host) > 0;
        host_sim_fault(a.host, NULL);
        bool whole = a.rc < 0 || on_this_host(a.host, co_look, &a) == 0;
        if (!whole || (a.rc < 0 && !recovers(&a))) {
            p->failed = true;
            printf("# call %" PRIu64 " of kind %d fails: %s\n", nth, op, a.error.text);
        }
        p->faults += fired;
        host_close(a.host);
    }
}

static bool prove(const struct row *row, unsigned seeds, unsigned states)
{
    static const enum sim_op kinds[] = {SIM_READ,      SIM_WRITE, SIM_FSYNC, SIM_TRUNCATE,
                                        SIM_FALLOCATE, SIM_OPEN,  SIM_NAMES};
    struct proof *p = calloc(1, sizeof(*p));
    must(p);
    uint64_t all = 0, failing = 0;
    bool failed = false;
    for (uint64_t seed = 1; seed <= seeds && !failed; seed++) {
        *p = (struct proof){.row = row};
        prepare(p, seed);
        crashes(p, seed, states);
        for (size_t i = 0; seed == 1 && i < ARRAY_LEN(kinds); i++)
            faults(p, kinds[i]);
        host_close(p->clean);
        free(p->full.bytes);
        free(p->stream.bytes);
        all += p->states;
        failing += p->faults;
        failed = p->failed;
    }
    free(p);
    printf("%s - %s: %" PRIu64 " crashes, %" PRIu64 " failed calls\n", failed ? "FAIL" : "ok",
           row->name, all, failing);
    return !failed;
}

#define SAME_SIZE .old_size = SIZE, .new_size = SIZE

static const struct row rows[] = {
    {.name = "send-raw-full", .target = "/sim/t.raw", .format = "raw", SAME_SIZE},
    {.name = "send-qcow2-full", .target = "/sim/t.qcow2", .format = "qcow2", SAME_SIZE},
    {.name = "send-qcow2-data-file",
     .target = "/sim/t.qcow2",
     .format = "qcow2",
     .option = "data_file",
     .value = "t.data",
     SAME_SIZE},
    {.name = "send-vmdk-split",
     .target = "/sim/t.vmdk",
     .format = "vmdk",
     .option = "subformat",
     .value = "twoGbMaxExtentSparse",
     SAME_SIZE},
    {.name = "send-raw", .target = "/sim/t.raw", .format = "raw", .increment = true, SAME_SIZE},
    {.name = "send-qcow2",
     .target = "/sim/t.qcow2",
     .format = "qcow2",
     .increment = true,
     SAME_SIZE},
    {.name = "send-qcow2-on-base",
     .target = "/sim/t.qcow2",
     .format = "qcow2",
     .base = "/sim/base.qcow2",
     .increment = true,
     SAME_SIZE},
    {.name = "send-qcow2-grows",
     .target = "/sim/t.qcow2",
     .format = "qcow2",
     .increment = true,
     .old_size = SMALL,
     .new_size = SIZE},
    {.name = "send-raw-shrinks",
     .target = "/sim/t.raw",
     .format = "raw",
     .increment = true,
     .old_size = SIZE,
     .new_size = SMALL},
    {.name = "send-qcow2-shrinks",
     .target = "/sim/t.qcow2",
     .format = "qcow2",
     .increment = true,
     .old_size = SIZE,
     .new_size = SMALL - 1000},
    {0},
};

int main(int argc, char **argv)
{
    const char *only = argc == 3 && strcmp(argv[1], "--row") == 0 ? argv[2] : NULL;
    bool all = long_form();
    bool good = true;
    for (const struct row *row = rows; row->name; row++)
        if (!only || strcmp(only, row->name) == 0)
            good &= prove(row, all ? 40 : 2, 60);
    return good ? 0 : 1;
}

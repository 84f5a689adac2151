/* SPDX-License-Identifier: BSD-3-Clause */
/* crypt_io.c - reading and writing through a cipher. What is read lands in the caller's memory and
 * is decrypted there; what is written is encrypted into a buffer of ours, for the caller's bytes
 * must not change. Small requests are done at once, larger ones in pieces on all cores. */
#include "block/worker.h"
#include "imgfmt/luks.h"

#define AT_ONCE   (16 * KiB)  /* some ten microseconds: less than a trip to the pool costs */
#define PIECE     (128 * KiB) /* of one trip */
#define MAX_TRIPS (CRYPT_TRANSFER_MAX / PIECE)

struct piece {
    const struct crypt *crypt;
    uint64_t number;
    struct vec data;
    uint8_t *to; /* encrypting: where to; NULL: decrypt in place */
};

/* A sector that lies in more than one piece of memory. */
static void decrypt_scattered(const struct piece *p, uint64_t number, const struct vec *data)
{
    uint8_t sector[CRYPT_SECTOR_MAX];
    vec_to_buf(data, sector);
    crypt_decrypt(p->crypt, number, sector, sector, data->bytes);
    vec_from_buf(data, sector);
}

static void encrypt_scattered(const struct piece *p, uint64_t number, const struct vec *data,
                              uint8_t *to)
{
    vec_to_buf(data, to);
    crypt_encrypt(p->crypt, number, to, to, data->bytes);
}

static int work(void *arg)
{
    const struct piece *p = arg;
    uint64_t one = crypt_spec_of(p->crypt)->sector_bytes;
    for (uint64_t at = 0; at < p->data.bytes;) {
        struct vec rest = vec_slice(&p->data, at, p->data.bytes - at);
        uint64_t number = p->number + at / LUKS_SECTOR;
        size_t flat;
        uint8_t *from = vec_first(&rest, &flat);
        uint64_t n = align_down(flat, one);
        struct vec first = vec_slice(&rest, 0, n ? n : one);
        if (n && p->to)
            crypt_encrypt(p->crypt, number, p->to + at, from, n);
        else if (n)
            crypt_decrypt(p->crypt, number, from, from, n);
        else if (p->to)
            encrypt_scattered(p, number, &first, p->to + at);
        else
            decrypt_scattered(p, number, &first);
        at += first.bytes;
    }
    return 0;
}

static int co_work(void *arg)
{
    return co_offload(work, arg);
}

/* @to NULL: decrypts @data in place. */
static int co_run(const struct crypt_place *p, const struct vec *data, uint8_t *to)
{
    struct piece pieces[MAX_TRIPS];
    struct co_group group;
    size_t count = 0;
    pieces[0] = (struct piece){p->crypt, p->number, *data, to};
    if (data->bytes <= AT_ONCE)
        return work(&pieces[0]);
    if (data->bytes <= PIECE)
        return co_work(&pieces[0]);
    co_group_init(&group, 0);
    for (uint64_t at = 0; at < data->bytes; at += PIECE, count++) {
        if (count == MAX_TRIPS) { /* longer than one transfer: in turns */
            TRY(co_group_wait(&group));
            co_group_init(&group, 0);
            count = 0;
        }
        pieces[count] =
            (struct piece){p->crypt, p->number + at / LUKS_SECTOR,
                           vec_slice(data, at, MIN(PIECE, data->bytes - at)), to ? to + at : NULL};
        co_group_start(&group, co_work, &pieces[count]);
    }
    return co_group_wait(&group);
}

int co_crypt_in_place(const struct crypt *crypt, uint64_t number, const struct vec *data)
{
    struct crypt_place p = {.crypt = crypt, .number = number};
    return co_run(&p, data, NULL);
}

int co_crypt_read(const struct crypt_place *p, const struct vec *to)
{
    TRY(co_blk_read(p->child, p->at, to));
    return co_run(p, to, NULL);
}

int co_crypt_write(const struct crypt_place *p, const struct vec *from, unsigned flags)
{
    assert(from->bytes <= CRYPT_TRANSFER_MAX);
    uint8_t *buf = buf_get(from->bytes);
    if (!buf)
        return -ENOMEM;
    int rc = co_run(p, from, buf);
    if (rc == 0)
        rc = co_blk_write_buf(p->child, p->at, buf, from->bytes, flags);
    buf_put(buf, from->bytes);
    return rc;
}

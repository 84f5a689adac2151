/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd.h - what the files of the qemu-nbd face share.
 *
 *   face_nbd.c         the command line, in qemu-nbd's order of refusals
 *   face_nbd_tls.c     --object, --tls-creds, --tls-authz
 *   face_nbd_over.c    what lies over the image: -s, -l, -o, -B, --discard, --detect-zeroes
 *   face_nbd_list.c    -L
 *   face_nbd_kernel.c  -c, -d: the kernel's nbd device as the client */
#ifndef TOOLS_FACE_NBD_H
#define TOOLS_FACE_NBD_H

#include <pthread.h>

#include "nbd/context.h"
#include "tools/serve.h"

#define NBD_FACE_BITMAPS 30

struct nbd_face {
    struct serve_plan plan;
    const char *socket, *port, *bind, *name, *format, *description, *creds, *authz, *hostname;
    const char *snapshot, *detect, *aio, *discard, *device;
    bool read_only, temporary, disconnect, list, verbose, persistent;
    uint64_t offset;
    const char *bitmaps[NBD_FACE_BITMAPS];
    struct nbd_shown shown;
    json_t *objects; /* by id: TLS's, and who may connect */
    char address[600], own_socket[160];
    struct serving *serving; /* for the kernel's client */
    pthread_t kernel;
    bool kernel_runs, kernel_failed;
};

/* A message; gives ARGS_BAD. */
int nbd_face_fail(const struct nbd_face *f, const char *fmt, ...) printf_like(2, 3);

/* --- face_nbd_tls.c */

/* --object; 0 or ARGS_BAD. */
must_use int nbd_face_object(struct nbd_face *f, const char *text);
/* What the command line says of TLS, into the plan; 0 or ARGS_BAD. */
must_use int nbd_face_tls(struct nbd_face *f);
/* Who may see the export. */
must_use int nbd_face_authz(struct nbd_face *f, struct serve_offer *o);
/* The folder and the kind of the credentials. */
const char *nbd_face_creds(const struct nbd_face *f, const char *key);

/* --- face_nbd_over.c: a serve_offer's co_over */

must_use int co_nbd_face_over(void *arg, struct blk_device **dev, struct blk_error *e);

/* --- face_nbd_list.c: the exit status */

int nbd_face_list(const struct nbd_face *f);

/* --- face_nbd_kernel.c */

/* -d: the exit status. */
int nbd_face_disconnect(const struct nbd_face *f, const char *device);
/* Clients can connect: so does the device, on a thread of its own. A plan's on_ready. */
must_use int nbd_face_connect(void *arg, struct serving *s, struct blk_error *e);
/* The server has ended. */
void nbd_face_join(struct nbd_face *f);

#endif

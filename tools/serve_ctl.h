/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_ctl.h - what `lamina ctl` does to a running server: exports that come, go and change, and
 * work on their devices while clients use them (block/live.h).
 *
 *   serve_ctl.c    the socket, its verbs and their arguments, the exports
 *   serve_work.c   who works on which export; jobs from their beginning to their end
 *   serve_live.c   snapshot, mirror, commit, stream
 *   serve_past.c   backups and point exports
 *   serve_image.c  the images that these make
 *   serve_raid.c   arrays: members, scrubs, a job that keeps them whole
 *
 * All of it runs on the server's worker; devices are opened and changed at their home.
 * docs/control.md is the protocol. */
#ifndef TOOLS_SERVE_CTL_H
#define TOOLS_SERVE_CTL_H

#include "block/ctl.h"
#include "block/live.h"
#include "nbd/server.h"
#include "tools/make.h"
#include "tools/serve_watch.h"

struct serve_ctl {
    struct tool *tool;
    struct nbd_server *server;
    struct serve_watch *watch;
    const char *cache;             /* of what is opened; NULL: the default */
    struct resolver_shared shared; /* what exports stand on together */
    struct co_mutex opening;       /* one export comes or goes at a time */
    struct ctl *socket;
    struct job_list jobs;
    struct serve_claim *claims;
    struct serve_work *works;
    struct serve_point *points;
    bool closing;   /* what only waits ends */
    unsigned dealt; /* exports that were opened: they are dealt out to the workers */
};

/* A message and -errno. */
must_use int co_serve_ctl_open(struct serve_ctl *s, const char *path);
/* Cancels what is at work, and waits; before the server is closed. May never have been opened. */
void co_serve_ctl_close(struct serve_ctl *s);
/* What an export is to stand on so that it can be worked on: puts a seat over @dev (taken, also on
 * failure) if it is writable. At its home. */
must_use int co_serve_seat(struct blk_device *dev, struct blk_device **out, struct blk_error *e);

/* --- arguments --- */

/* -EINVAL: there are other keys than "do" and @keys (NULL at the end). */
must_use int ask_known(const json_t *request, const char *const *keys, struct blk_error *e);
/* *out is NULL where there is none, which is an error if it is @needed. */
must_use int ask_text(const json_t *request, const char *key, bool needed, const char **out,
                      struct blk_error *e);
/* true, false, or "on" and "off"; *out is left alone where there is none. */
must_use int ask_bool(const json_t *request, const char *key, bool *out, struct blk_error *e);
/* A number, or a text such as 10G; *out as above. */
must_use int ask_size(const json_t *request, const char *key, uint64_t *out, struct blk_error *e);
/* A list of 1 to @room objects. */
must_use int ask_list(const json_t *request, const char *key, size_t room, const json_t **out,
                      size_t *count, struct blk_error *e);

/* --- work --- */

/* Somebody works on an export, which stays meanwhile. */
struct serve_claim {
    struct serve_claim *next;
    struct serve_ctl *s;
    struct nbd_export *export; /* NULL: claims none */
    const char *by;            /* "a mirror": static */
    bool alone;                /* nobody else may who also has to be alone */
};
enum serve_claim_how {
    CLAIM_ALONE = 1,
    CLAIM_MOVES = 2,  /* another image will be the device */
    CLAIM_STANDS = 4, /* what the image stands on changes, or that it does */
};
/* Finds @name, which has to stand on a seat: its export and seat are c->export and
 * c->export->dev. Opens what a source has under that name. -EBUSY. */
must_use int co_serve_claim(struct serve_ctl *s, const char *name, const char *by, unsigned how,
                            struct serve_claim *c, struct blk_error *e);
void serve_unclaim(struct serve_claim *c);
/* NULL: nobody. */
const char *serve_claimed(const struct serve_ctl *s, const struct nbd_export *x);
/* By its name, or the one that the empty name means. */
must_use int serve_find(struct serve_ctl *s, const char *name, struct nbd_export **out,
                        struct blk_error *e);

/* An image that work is done into: made anew, or one that was there. At @home. */
struct serve_image {
    struct worker *home;
    char *file; /* as told; owned */
    struct make make;
    struct blk_device *dev; /* open for writing */
    bool anew;              /* it has its name only after co_serve_image_name() */
    bool taken;             /* somebody else closes dev */
    bool blank;             /* all of it reads zero */
};
struct serve_image_wish {
    const char *file, *format; /* NULL: by the file's ending, else qcow2 */
    bool existing;             /* it is there */
    uint64_t size;
    const char *backing, *backing_format; /* what a new one stands on; NULL: nothing */
    bool bare;                            /* do not open that */
};
/* On failure there is nothing to drop. */
must_use int co_serve_image_open(struct serve_ctl *s, struct worker *home,
                                 const struct serve_image_wish *wish, struct serve_image *out,
                                 struct blk_error *e);
/* It is whole and durable: it takes its name, durably. dev is still open. */
must_use int co_serve_image_name(struct serve_image *i, struct blk_error *e);
/* Closes it; a new one that has no name goes away. */
void co_serve_image_drop(struct serve_image *i);
/* The file that @dev, an image, lies in: as another image beside @file is to name it. Gives *out
 * (mem_free()) and its format. */
must_use int co_serve_image_reference(struct serve_ctl *s, struct blk_device *dev, const char *file,
                                      char **out, const char **format, struct blk_error *e);
/* The path of the file that @dev is an image in; NULL: it is none. */
const char *serve_image_path(const struct blk_device *dev);

struct serve_work {
    struct serve_work *next;
    struct serve_ctl *s;
    struct job job;
    struct serve_claim claim;
    struct serve_image image;
    int (*co_do)(struct serve_work *w, struct blk_error *e);
    bool by_hand, repair;
    uint64_t speed; /* bytes per second; 0: no limit */
    struct live_past *past;
    struct blk_device *base;     /* of a stream; an array; a reference */
    char *about, *name, *format; /* of the export; of the base */
};
must_use int serve_work_new(struct serve_ctl *s, const char *kind,
                            int (*co_do)(struct serve_work *w, struct blk_error *e),
                            struct serve_work **out, struct blk_error *e);
/* Begins (@rc 0), or drops what could not begin. Gives *result, {"id": ...}, and the first error.
 */
int co_serve_work_begin(struct serve_work *w, int rc, json_t **result, struct blk_error *e);
void serve_forget(struct job *j); /* that has ended */
int co_serve_forget(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);

/* --- verbs --- */

int co_serve_snapshot(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_snapshot_inside(struct ctl *c, const json_t *request, json_t **result,
                             struct blk_error *e);
int co_serve_mirror(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_commit(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_stream(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_backup(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_point(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_raid(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_events(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_scrub(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_member_add(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_member_re_add(struct ctl *c, const json_t *request, json_t **result,
                           struct blk_error *e);
int co_serve_member_replace(struct ctl *c, const json_t *request, json_t **result,
                            struct blk_error *e);
int co_serve_grow(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
int co_serve_member_fail(struct ctl *c, const json_t *request, json_t **result,
                         struct blk_error *e);
int co_serve_member_remove(struct ctl *c, const json_t *request, json_t **result,
                           struct blk_error *e);
/* Starts the job that keeps @x's array whole, if it stands on one. */
must_use int co_serve_raid_keep(struct serve_ctl *s, struct nbd_export *x, struct blk_error *e);
/* @x goes, if it is a point export: true. @failed: what it was made for has failed. */
bool co_serve_point_remove(struct serve_ctl *s, struct nbd_export *x, bool failed, int *rc,
                           struct blk_error *e);
void co_serve_points_end(struct serve_ctl *s);
/* What `list` says of a point export; NULL: @x is none. */
json_t *co_serve_point_to_json(const struct serve_ctl *s, const struct nbd_export *x);

#endif

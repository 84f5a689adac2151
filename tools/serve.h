/* SPDX-License-Identifier: BSD-3-Clause */
/* serve.h - what `lamina serve` and the qemu-nbd face have in common: a server described, and run.
 *
 *   serve.c           the verb: its options
 *   serve_offer.c     what is offered: NAME,key=value of --export, sections of a file
 *   serve_config.c    the file: --config, --check-config
 *   serve_run.c       from the plan to a server and to its end
 *   serve_open.c      exports, folders, clones are opened
 *   serve_say.c       URIs
 *   serve_ctl.h       what it answers while it runs
 *   serve_watch.h     how it is seen from outside
 *   serve_around.c    what started us, and what we start: sockets handed over, notifications,
 *                     a parent that ends, a command to run, going to the background */
#ifndef TOOLS_SERVE_H
#define TOOLS_SERVE_H

#include <sys/types.h>

#include "nbd/ini.h"
#include "nbd/server.h"
#include "tools/serve_ctl.h"
#include "tools/serve_watch.h"
#include "tools/tool.h"

enum serve_kind { SERVE_EXPORT, SERVE_FOLDER, SERVE_CLONES };

/* An export, the images of a folder, or clones of a golden image. Texts are borrowed from the
 * command line or the file, but for @made. */
struct serve_offer {
    enum serve_kind kind;
    const char *name;   /* the export's; of the others: what stands before "/NAME" ("": nothing) */
    const char *what;   /* a spec, or the folder */
    const char *format; /* NULL: probed */
    const char *description; /* NULL: none */
    const char *keep;        /* clones: the folder where they stay; NULL: nowhere */
    uint64_t space;          /* clones: bytes that all of them may take */
    uint64_t idle_sec;       /* folder, clones: until one that nobody uses is closed */
    bool read_only, preset;
    bool shares;            /* told group or any of wish */
    const char *group;      /* NULL: none is named */
    struct share_wish wish; /* --share can say the same */
    unsigned writers;
    struct nbd_zone zone; /* owned */
    char *made;           /* what owned texts lie in; NULL: none */
    /* Puts further layers on the image that was opened: *dev is taken, also on failure, and given.
     * NULL: none. */
    int (*co_over)(void *arg, struct blk_device **dev, struct blk_error *e);
    void *over_arg;
    const struct nbd_shown *shown; /* NULL: all of it */
};

#define SERVE_ADDRESSES 8

struct serving;

struct serve_plan {
    struct tool *tool;
    struct serve_offer *offers; /* owned, as is what is in them */
    size_t count;
    const char *cache;                      /* NULL: the default */
    const char *addresses[SERVE_ADDRESSES]; /* as host.h writes them */
    unsigned address_count;
    const char *preset_address; /* where no other is told, and no socket was handed over */
    const char *pid_file;       /* NULL: none */
    const char *control;        /* path of the control socket; NULL: none */
    const char *scratch;        /* folder of clones that are not kept */
    const char *run;            /* command to run; the end of it ends the server; NULL: none */
    struct nbd_tls_options tls; /* folder NULL: no TLS */
    enum nbd_tls_mode tls_mode;
    /* Called when clients can connect, in place of telling who waits for us to go to the
     * background: it does that itself (serve_around_background). NULL: nothing. */
    int (*on_ready)(void *arg, struct serving *s, struct blk_error *e);
    void *ready_arg;
    bool image_opts;          /* specs are key=value, or JSON */
    bool once;                /* end with the last client */
    bool announce;            /* print URIs and a QEMU line */
    bool check_only;          /* open all, read-only, say so, and end */
    bool exit_with_parent;    /* stop when who started us has ended */
    bool background;          /* be a daemon when clients can connect */
    const char *socket_label; /* SELinux's, of the sockets; NULL: none is told */
    bool keep_sockets;        /* give the listening sockets to the service manager */
    unsigned max_clients;     /* 0: no limit */
    struct serve_watch_plan watch;
    unsigned workers; /* event loops: exports are spread over them; 0: one */
};

/* Serves until a signal or the plan ends it. The exit status. */
int serve_run(struct serve_plan *plan);
void serve_plan_drop(struct serve_plan *plan);

/* --- serve_offer.c --- */

/* A new offer in the plan; NULL: no memory. Valid until the next. */
struct serve_offer *serve_offer_add(struct serve_plan *plan, enum serve_kind kind);
/* One key. *e names it, and the nearest one where there is none of that name. */
must_use int serve_offer_set(struct serve_offer *o, const char *key, const char *value,
                             struct blk_error *e);
/* "NAME[,key=value]...", commas in the name doubled; a key alone is key=yes. */
must_use int serve_offer_words(struct serve_offer *o, const char *text, struct blk_error *e);
/* All that an offer needs is told, and no two have one name; what is not told is filled in. */
must_use int serve_offers_check(struct serve_plan *plan, struct blk_error *e);
/* yes, no, on, off, true, false. */
must_use int serve_yes_no(const char *text, bool *out);

/* --- serve_config.c --- */

struct serve_config {
    struct ini ini;
};
/* Reads @path. Offers go to the plan; for each key of [server] @set is called. */
must_use int serve_config_read(struct serve_config *c, const char *path, struct serve_plan *plan,
                               int (*set)(void *arg, const char *key, const char *value,
                                          struct blk_error *e),
                               void *arg, struct blk_error *e);
void serve_config_drop(struct serve_config *c);

/* --- while it runs --- */

struct serving {
    struct serve_plan *plan;
    struct nbd_server *server;
    struct nbd_tls *tls;
    struct serve_watch *watch;
    struct serve_ctl ctl;
    struct serve_around *around;
    struct resolver resolver[2]; /* of sources: to read, to write */
    bool pid_written;
    bool signals_end; /* the coroutine that waits for signals has ended */
    struct co_queue ended;
};

/* serve_open.c: all offers. */
must_use int co_serve_open(struct serving *s);
/* serve_say.c */
void serve_announce(const struct serving *s);
/* The URI of an export; gives it (mem_free). */
char *serve_uri(const struct serving *s, const char *address, const char *name);

/* --- serve_around.c --- */

#define SERVE_SOCKETS 16

/* Read at the start, while there is one thread. */
struct serve_around {
    int sockets[SERVE_SOCKETS]; /* that were handed over; -1: taken */
    unsigned socket_count;
    char *notify; /* the service manager's socket; NULL: there is none */
    pid_t parent;
    int ready_pipe; /* to who waits for us to go to the background; -1: nobody */
    pid_t child;    /* of --run; 0: none */
    int child_status;
};

/* Takes LISTEN_FDS and NOTIFY_SOCKET out of the environment. */
must_use int serve_around_begin(struct serve_around *a, struct serve_plan *plan,
                                struct blk_error *e);
/* Goes to the background: in the parent it returns when the child is ready or has ended, with true
 * and the exit status. */
bool serve_around_fork(struct serve_around *a, int *status);
void serve_around_drop(struct serve_around *a);
/* A socket that was handed over and listens on @address; -1: none. */
int serve_around_take(struct serve_around *a, const char *address);
/* The next one that nobody took; -1: none is left. */
int serve_around_next(struct serve_around *a);
/* Tells the service manager, and gives it descriptors to keep. */
void serve_around_notify(const struct serve_around *a, const char *text, const int *fds,
                         unsigned count);
/* Clients can connect: whoever waits for that is told. */
void serve_around_ready(struct serving *s);
/* Lets who waits go on without us: from here on we are in the background. */
void serve_around_background(struct serve_around *a);
/* SELinux's label of the sockets that this thread makes (NULL: the process's again). */
must_use int serve_around_label(const char *label, struct blk_error *e);
/* Runs plan->run. */
must_use int serve_around_run(struct serving *s, struct blk_error *e);
/* A child ended: true if it was the command. */
bool serve_around_ended(struct serve_around *a);
/* The server has ended: so does the command. */
void serve_around_end(struct serve_around *a);

#endif

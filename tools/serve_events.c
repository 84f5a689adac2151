/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_events.c - the control socket's verb `events`: what happened to the exports' devices, told
 * at once or when more has happened than the asker knows. Events are counted where they happen, on
 * any worker, so none is lost between two questions, and nothing is kept for askers that do not
 * come back. */
#include "nbd/server.h"
#include "tools/serve_ctl.h"

#define SECONDS_MOST 20 /* a client of ours waits 30 for an answer */
#define LOOK_NS      20000000ULL

static int add_export(json_t *list, const struct nbd_export *x)
{
    static const char *const names[NBD_EVENTS] = {[BLK_EV_RESIZED] = "resized",
                                                  [BLK_EV_LOW_WATER] = "low-water",
                                                  [BLK_EV_MEMBER_FAILED] = "member-failed",
                                                  [BLK_EV_MARKED_CORRUPT] = "marked-corrupt"};
    json_t *one = json_pack("{s:s}", "name", x->name);
    for (unsigned ev = 0; ev < NBD_EVENTS; ev++)
        json_object_set_new(one, names[ev],
                            json_integer((json_int_t)atomic_load(&x->happened[ev])));
    return json_array_append_new(list, one);
}

int co_serve_events(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);
    struct nbd_exports *all = nbd_server_exports(s->server);
    uint64_t seconds = 0, seen = 0;
    TRY(ask_known(request, (const char *const[]){"seen", "seconds", NULL}, e));
    TRY(ask_size(request, "seen", &seen, e));
    TRY(ask_size(request, "seconds", &seconds, e));
    uint64_t end = worker_now() + MIN(seconds, SECONDS_MOST) * 1000000000ULL;
    while (atomic_load(&all->happened) == seen && worker_now() < end && !s->closing)
        co_sleep(LOOK_NS);
    seen = atomic_load(&all->happened);
    json_t *list = json_array();
    for (const struct nbd_export *x = all->first; x; x = x->next)
        if (add_export(list, x) < 0) {
            json_decref(list);
            return err_set(e, -ENOMEM, "no memory for an answer");
        }
    *result = json_pack("{s:I, s:o}", "seen", (json_int_t)seen, "exports", list);
    return 0;
}

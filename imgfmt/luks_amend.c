/* SPDX-License-Identifier: BSD-3-Clause */
/* luks_amend.c - pass phrases added to a header of version 1, and erased.
 *
 *   L1  key material of a new slot -> header that says it is active.
 *   L2  header that says a slot is empty -> its key material overwritten.
 * So a crash never leaves an active slot without its material: at worst a pass phrase is not yet
 * there, or not yet erased beyond recovery. The last slot is erased only by force. */
#include <stdio.h>

#include "block/resolver.h"
#include "imgfmt/luks.h"

const char *const luks_states[] = {"inactive", "active", NULL};

struct amend {
    const struct luks_where *where;
    struct luks *l;
    const uint8_t *key;
    const struct opts *opts;
    const char *prefix;
    bool force;
    struct blk_error *e;
};

static const struct opt_value *value(const struct amend *a, const char *name)
{
    char buf[48];
    snprintf(buf, sizeof buf, "%s%s", a->prefix, name);
    return opts_get(a->opts, buf);
}

static int co_publish(const struct amend *a, const struct luks *l)
{
    int rc = co_blk_flush(a->where->file);
    if (rc == 0)
        rc = co_luks1_write_header(a->where, l, true, 0);
    if (rc == 0)
        rc = co_blk_flush(a->where->file);
    if (rc < 0)
        return err_errno(a->e, rc, "cannot write the LUKS header");
    *a->l = *l;
    return 0;
}

static unsigned active_slots(const struct luks *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < l->slot_count; i++)
        n += l->slots[i].active;
    return n;
}

/* --- adding -----------------------------------------------------------------------------------
 */

/* The slot that is told, or the first empty one. */
static int pick_slot(const struct amend *a, unsigned *slot)
{
    const struct opt_value *told = value(a, "keyslot");
    for (unsigned i = 0; i < a->l->slot_count && !told->given; i++)
        if (!a->l->slots[i].active) {
            *slot = i;
            return 0;
        }
    if (!told->given)
        return err_set(a->e, -ENOSPC, "Can't add a keyslot - all keyslots are in use");
    *slot = (unsigned)told->number;
    if (a->l->slots[*slot].active && !a->force)
        return err_set(a->e, -EEXIST,
                       "Refusing to overwrite active keyslot %u - please erase it first", *slot);
    return 0;
}

static int co_add(struct amend *a, struct luks *l, struct kdf_bytes secret)
{
    unsigned slot = 0;
    struct luks_strength s = {.msec = value(a, "iter-time")->number,
                              .rounds = value(a, "iterations")->number};
    TRY(pick_slot(a, &slot));
    if (l->slots[slot].active) { /* by force: it is empty first */
        struct luks *emptied = mem_alloc(sizeof *emptied);
        if (!emptied)
            return err_set(a->e, -ENOMEM, "out of memory");
        *emptied = *l;
        emptied->slots[slot].active = false;
        int rc = co_publish(a, emptied);
        mem_free(emptied);
        TRY(rc);
    }
    TRY(co_luks1_fill(a->where, l, slot, a->key, secret, s, a->e));
    return co_publish(a, l);
}

static int co_activate(struct amend *a, struct luks *l)
{
    const char *id = value(a, "new-secret")->text;
    uint8_t *bytes = NULL;
    size_t count = 0;
    if (!id)
        return err_set(a->e, -EINVAL, "'new-secret' is required to activate a keyslot");
    if (value(a, "old-secret")->given)
        return err_set(a->e, -EINVAL, "'old-secret' must not be given when activating keyslots");
    TRY(opts_secret(a->opts, id, &bytes, &count, a->e));
    int rc = co_add(a, l, (struct kdf_bytes){bytes, count});
    key_wipe(bytes, count);
    mem_free(bytes);
    return rc;
}

/* --- erasing ----------------------------------------------------------------------------------
 */

/* Marks the slots that @id opens; @only: of these slots. */
static int co_match(struct amend *a, const char *id, uint32_t only, uint32_t *out)
{
    uint8_t *bytes = NULL, *key = key_alloc(CRYPT_KEY_MAX);
    size_t count = 0;
    int rc = key ? opts_secret(a->opts, id, &bytes, &count, a->e)
                 : err_set(a->e, -ENOMEM, "out of memory");
    *out = 0;
    for (unsigned i = 0; rc == 0 && i < a->l->slot_count; i++) {
        if (!(only >> i & 1) || !a->l->slots[i].active)
            continue;
        int fits = co_luks_try(a->where, a->l, i, (struct kdf_bytes){bytes, count}, key, a->e);
        if (fits > 0)
            *out |= 1u << i;
        rc = MIN(fits, 0);
    }
    if (bytes)
        key_wipe(bytes, count);
    mem_free(bytes);
    key_free(key, CRYPT_KEY_MAX);
    return rc;
}

/* Which slots go. */
static int co_choose(struct amend *a, uint32_t *out)
{
    const struct opt_value *told = value(a, "keyslot");
    const char *old = value(a, "old-secret")->text;
    uint32_t one = told->given ? 1u << told->number : 0;
    if (!old && !told->given)
        return err_set(a->e, -EINVAL,
                       "To erase keyslot(s), either explicit keyslot index or the password "
                       "currently contained in them must be given");
    if (told->given && !a->l->slots[told->number].active && !a->force)
        return err_set(a->e, -EINVAL, "Given keyslot %u is already erased (inactive) ",
                       (unsigned)told->number);
    *out = one;
    if (!old)
        return 0;
    TRY(co_match(a, old, told->given ? one : UINT32_MAX, out));
    if (!*out && told->given)
        return err_set(a->e, -EINVAL,
                       "Given keyslot %u doesn't contain the given old password for erase "
                       "operation",
                       (unsigned)told->number);
    return *out ? 0
                : err_set(a->e, -EINVAL,
                          "No keyslots match given (old) password for erase operation");
}

static int may_erase(const struct amend *a, uint32_t which)
{
    unsigned go = 0;
    for (unsigned i = 0; i < a->l->slot_count; i++)
        go += which >> i & a->l->slots[i].active;
    if (go < active_slots(a->l) || a->force)
        return 0;
    if (value(a, "old-secret")->given)
        return err_set(
            a->e, -EPERM,
            "All the active keyslots match the (old) password that was given and erasing "
            "them will erase all the data in the image irreversibly - refusing "
            "operation");
    return err_set(a->e, -EPERM,
                   "Attempt to erase the only active keyslot %u which will erase all the data in "
                   "the image irreversibly - refusing operation",
                   (unsigned)value(a, "keyslot")->number);
}

static int co_erase(struct amend *a, struct luks *l)
{
    uint32_t which = 0;
    if (value(a, "new-secret")->given)
        return err_set(a->e, -EINVAL, "'new-secret' must not be given when erasing keyslots");
    if (value(a, "iter-time")->given)
        return err_set(a->e, -EINVAL, "'iter-time' must not be given when erasing keyslots");
    TRY(co_choose(a, &which));
    TRY(may_erase(a, which));
    for (unsigned i = 0; i < l->slot_count; i++)
        if (which >> i & 1)
            l->slots[i].active = false;
    TRY(co_publish(a, l)); /* L2 */
    for (unsigned i = 0; i < l->slot_count; i++)
        if (which >> i & 1)
            TRY(co_luks1_wipe(a->where, l, i, a->e));
    int rc = co_blk_flush(a->where->file);
    return rc < 0 ? err_errno(a->e, rc, "cannot overwrite the key slot") : 0;
}

int co_luks_amend(const struct luks_where *w, struct luks *l, const uint8_t *key,
                  const struct opts *o, const char *prefix, struct blk_error *e)
{
    struct amend a = {w, l, key, o, prefix, o->force, e};
    if (l->version != 1)
        return err_set(e, -ENOTSUP, "key slots of LUKS2 are changed with cryptsetup");
    if (!value(&a, "state")->given)
        return err_set(e, -EINVAL, "Parameter 'state' is missing");
    if (!key)
        return err_set(e, -ENOKEY, "the image was opened without its key");
    if (value(&a, "keyslot")->given && value(&a, "keyslot")->number >= l->slot_count)
        return err_set(e, -EINVAL,
                       "Invalid keyslot %" PRIu64 " specified, must be between 0 and %u",
                       value(&a, "keyslot")->number, l->slot_count - 1);
    auto_free struct luks *changed = mem_alloc(sizeof *changed);
    if (!changed)
        return err_set(e, -ENOMEM, "out of memory");
    *changed = *l;
    return value(&a, "state")->number ? co_activate(&a, changed) : co_erase(&a, changed);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd_tls.c - qemu-nbd's objects: TLS credentials in folders, and who may connect. Secrets are
 * the resolver's. */
#include <unistd.h>

#include "tools/face_nbd.h"

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* What QEMU looks at while it reads the command line. */
static int check_creds(struct nbd_face *f, const json_t *object, const char *type)
{
    const char *dir = text_of(object, "dir");
    const char *first = strcmp(type, "tls-creds-psk") == 0 ? "keys.psk" : "ca-cert.pem";

    if (!dir)
        return nbd_face_fail(f, "Missing 'dir' property value");
    auto_free char *path = mem_printf("%s/%s", dir, first);
    if (!path)
        return nbd_face_fail(f, "out of memory");
    if (access(path, R_OK) < 0)
        return nbd_face_fail(f, "Unable to access credentials %s: %s", path, strerror(errno));
    return 0;
}

static int keep(struct nbd_face *f, json_t *object, const char *type)
{
    const char *id = text_of(object, "id");

    if (!id)
        return nbd_face_fail(f, "Parameter 'id' is missing");
    if (strncmp(type, "tls-creds-", 10) == 0 && check_creds(f, object, type) < 0)
        return ARGS_BAD;
    return json_object_set(f->objects, id, object) < 0 ? nbd_face_fail(f, "out of memory") : 0;
}

static int take_object(struct nbd_face *f, json_t *tree, const char *text)
{
    static const char *const ours[] = {"tls-creds-x509", "tls-creds-psk", "authz-simple"};
    const char *type = text_of(tree, "qom-type");

    for (size_t i = 0; type && i < ARRAY_LEN(ours); i++)
        if (strcmp(type, ours[i]) == 0)
            return keep(f, tree, type);
    if (!type || strcmp(type, "secret") != 0)
        return nbd_face_fail(f, "Parameter 'qom-type' does not accept value '%s'",
                             type ? type : "");
    if (!tool_add_object(f->plan.tool, text))
        return ARGS_BAD;
    return keep(f, tree, type);
}

int nbd_face_object(struct nbd_face *f, const char *text)
{
    json_t *tree = json_object();
    struct blk_error e = {0};
    int rc;

    if (!tree || opts_text_to_tree(text, "qom-type", tree, &e) < 0)
        rc = nbd_face_fail(f, "%s", tree ? e.text : "out of memory");
    else
        rc = take_object(f, tree, text);
    json_decref(tree);
    return rc;
}

const char *nbd_face_creds(const struct nbd_face *f, const char *key)
{
    return text_of(json_object_get(f->objects, f->creds), key);
}

int nbd_face_tls(struct nbd_face *f)
{
    struct nbd_tls_options *o = &f->plan.tls;
    const char *wanted = f->list ? "client" : "server";
    const char *type = nbd_face_creds(f, "qom-type"), *endpoint = nbd_face_creds(f, "endpoint");
    const char *verify = nbd_face_creds(f, "verify-peer");
    bool checks = true;

    if (!type)
        return nbd_face_fail(f, "Failed to get TLS creds: No TLS credentials with id '%s'",
                             f->creds);
    if (strncmp(type, "tls-creds-", 10) != 0)
        return nbd_face_fail(
            f, "Failed to get TLS creds: Object with id '%s' is not TLS credentials", f->creds);
    if (strcmp(endpoint ? endpoint : "client", wanted) != 0)
        return nbd_face_fail(
            f, "Failed to get TLS creds: Expecting TLS credentials with a %s endpoint", wanted);
    if (verify && serve_yes_no(verify, &checks) < 0)
        return nbd_face_fail(f, "Parameter 'verify-peer' expects 'on' or 'off'");
    o->folder = nbd_face_creds(f, "dir");
    o->priority = nbd_face_creds(f, "priority");
    o->any_client = !checks;
    o->want_x509 = strcmp(type, "tls-creds-x509") == 0;
    o->want_psk = !o->want_x509;
    f->plan.tls_mode = NBD_TLS_REQUIRE;
    return 0;
}

int nbd_face_authz(struct nbd_face *f, struct serve_offer *o)
{
    const json_t *a = json_object_get(f->objects, f->authz);
    const char *identity = text_of(a, "identity");

    if (!a || !identity || strcmp(text_of(a, "qom-type"), "authz-simple") != 0)
        return nbd_face_fail(f, "No authz-simple object with an identity and the id '%s'",
                             f->authz);
    return nbd_zone_add_dn(&o->zone, identity) < 0 ? nbd_face_fail(f, "out of memory") : 0;
}

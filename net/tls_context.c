/* SPDX-License-Identifier: MIT */
/* What the connections of a listener share: an SSL_CTX for each set of names that the same
 * certificates serve, who gets which, and how OpenSSL is to behave. Read-only once it is made, but
 * for its count of references. See net/tls_priv.h for the other parts of TLS. */
#include "net/tls_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

static const struct tls_set no_set = {.certificate = {-1, -1, -1, -1, -1}};

/* --- which certificates for which name ----------------------------------------------------- */

/* Does the certificate carry exactly this name? */
static bool carries(const struct tls_loaded *l, const char *name)
{
    for (size_t i = 0; i < l->name_count; i++) {
        if (strcmp(l->names[i], name) == 0)
            return true;
    }
    return false;
}

/* Add to a set, for each kind that it lacks, the first certificate that carries name. */
static void set_collect(struct tls_set *set, const struct tls_loaded *all, size_t count,
                        const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (set->certificate[all[i].kind] < 0 && carries(&all[i], name))
            set->certificate[all[i].kind] = (int)i;
    }
}

/* The certificates for a name: those that carry it, then wildcards for the kinds still missing. */
static struct tls_set set_for(const struct tls_loaded *all, size_t count, const char *name)
{
    struct tls_set set = no_set;
    const char *dot = strchr(name, '.');
    char wildcard[TLS_NAME_BYTES_MAX + 2];
    set_collect(&set, all, count, name);
    if (dot != NULL && name[0] != '*') {
        snprintf(wildcard, sizeof(wildcard), "*%s", dot);
        set_collect(&set, all, count, wildcard);
    }
    return set;
}

/* The index of a set in the context, which takes it up if it is new. There is room. */
static size_t set_index(struct tls_context *context, const struct tls_set *set)
{
    size_t i = 0;
    for (; i < context->set_count; i++) {
        const struct tls_set *known = &context->sets[i];
        if (memcmp(known->certificate, set->certificate, sizeof(set->certificate)) == 0)
            return i;
    }
    context->sets[context->set_count++] = *set;
    return i;
}

static int compare_names(const void *a, const void *b)
{
    const struct tls_name *left = a, *right = b;
    return strcmp(left->text, right->text);
}

/* Forget repeated names; equal ones have equal sets. */
static void names_sort(struct tls_context *context)
{
    size_t kept = 0;
    if (context->name_count > 0)
        qsort(context->names, context->name_count, sizeof(*context->names), compare_names);
    for (size_t i = 0; i < context->name_count; i++) {
        if (kept > 0 && strcmp(context->names[kept - 1].text, context->names[i].text) == 0)
            free(context->names[i].text);
        else
            context->names[kept++] = context->names[i];
    }
    context->name_count = kept;
}

/* Work out which names there are and which certificates serve each. The default set is that of the
 * default certificate's first name. */
static bool plan_sets(struct tls_context *context, const struct tls_loaded *all, size_t count)
{
    size_t names = 0;
    for (size_t i = 0; i < count; i++)
        names += all[i].name_count;
    context->sets = calloc(names + 1, sizeof(*context->sets));
    context->names = calloc(names + 1, sizeof(*context->names));
    if (context->sets == NULL || context->names == NULL)
        return false;
    struct tls_set first = no_set;
    if (all[0].name_count > 0)
        first = set_for(all, count, all[0].names[0]);
    first.certificate[all[0].kind] = 0;
    set_index(context, &first);
    for (size_t i = 0; i < count; i++) {
        for (size_t n = 0; n < all[i].name_count; n++) {
            struct tls_set set = set_for(all, count, all[i].names[n]);
            struct tls_name *name = &context->names[context->name_count++];
            name->set = set_index(context, &set);
            name->text = strdup(all[i].names[n]);
            if (name->text == NULL) {
                context->name_count--;
                return false;
            }
        }
    }
    names_sort(context);
    return true;
}

/* --- what OpenSSL asks during a handshake -------------------------------------------------- */

static const struct tls_set *set_of_text(const struct tls_context *context, char *text)
{
    const struct tls_name *found =
        bsearch(&(struct tls_name){.text = text}, context->names, context->name_count,
                sizeof(*context->names), compare_names);
    return found != NULL ? &context->sets[found->set] : NULL;
}

/* The set for the name that a client asks for: the exact name, a wildcard, else the default. */
static const struct tls_set *set_of_name(const struct tls_context *context, const char *asked)
{
    char text[TLS_NAME_BYTES_MAX + 1];
    size_t len = asked != NULL ? strlen(asked) : 0;
    const struct tls_set *set = NULL;
    if (len > 0 && asked[len - 1] == '.')
        len--;
    if (len == 0 || len > TLS_NAME_BYTES_MAX || asked[0] == '*')
        return &context->sets[0];
    for (size_t i = 0; i < len; i++)
        text[i] = asked[i] >= 'A' && asked[i] <= 'Z' ? (char)(asked[i] + 'a' - 'A') : asked[i];
    text[len] = '\0';
    set = set_of_text(context, text);
    char *dot = strchr(text, '.');
    if (set == NULL && dot != NULL && dot > text) {
        dot[-1] = '*';
        set = set_of_text(context, dot - 1);
    }
    return set != NULL ? set : &context->sets[0];
}

/* Also called without SNI. The version was chosen already; TLS 1.3 whenever the client has it, so
 * refusing here is the same as a minimum of this name alone. */
static int on_server_name(SSL *ssl, int *alert, void *argument)
{
    const struct tls_context *context = argument;
    const struct tls_set *set =
        set_of_name(context, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    if (SSL_version(ssl) < set->min_version) {
        *alert = SSL_AD_PROTOCOL_VERSION;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    if (SSL_get_SSL_CTX(ssl) != set->ssl_ctx && SSL_set_SSL_CTX(ssl, set->ssl_ctx) == NULL) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* What we speak, best first: some clients that want HTTP/1.0 offer that alone. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *argument)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";
    const struct tls_context *context = argument;
    unsigned char *chosen;
    (void)ssl;
    if (context->any_protocol)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* no_application_protocol */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int making)
{
    struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    return tls_ticket_ready(context->keys, context->ticket_cipher, name, iv, cipher, mac, making);
}

/* --- making the context -------------------------------------------------------------------- */

/* What every SSL_CTX of ours has. AES-128 first, but ChaCha20 for clients that put it first
 * (telephones without AES). Groups are few, because the default ones allow slow key exchanges. */
static bool ssl_ctx_settings(SSL_CTX *s)
{
    char groups[] = "X25519:P-256:P-384:P-521"; /* the macro casts const away */
    SSL_CTX_set_options(s, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* NO_AUTO_CHAIN: else a leaf sent alone makes each handshake look for its issuer. */
    SSL_CTX_set_mode(s, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_msg_callback(s, tls_on_message);
    SSL_CTX_set_read_ahead(s, 1);
    SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(s, TLS_TICKET_TURN_S);
    return SSL_CTX_set_num_tickets(s, 1) == 1 &&
           SSL_CTX_set_session_id_context(s, (const unsigned char *)"modus", 5) == 1 &&
           SSL_CTX_set_cipher_list(
               s, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305") == 1 &&
           SSL_CTX_set_ciphersuites(s, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                       "TLS_CHACHA20_POLY1305_SHA256") == 1 &&
           SSL_CTX_set1_groups_list(s, groups) == 1;
}

static SSL_CTX *ssl_ctx_new(struct tls_context *context, int min_version)
{
    SSL_CTX *s = SSL_CTX_new(TLS_server_method());
    if (s == NULL)
        return NULL;
    if (!ssl_ctx_settings(s) || SSL_CTX_set_min_proto_version(s, min_version) != 1 ||
        SSL_CTX_set_app_data(s, context) != 1 ||
        SSL_CTX_set_tlsext_ticket_key_evp_cb(s, on_ticket) != 1) {
        SSL_CTX_free(s);
        return NULL;
    }
    SSL_CTX_set_tlsext_servername_callback(s, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(s, context);
    SSL_CTX_set_alpn_select_cb(s, on_alpn, context);
    return s;
}

static int version_of(const struct tls_certificate *certificate)
{
    return certificate->min_version >= TLS1_3_VERSION ? TLS1_3_VERSION : TLS1_2_VERSION;
}

/* Every handshake begins in the first SSL_CTX, so its minimum is the lowest of all names. */
static int lowest_version(const struct tls_certificate *certificates, size_t count)
{
    int lowest = TLS1_3_VERSION;
    for (size_t i = 0; i < count; i++) {
        if (version_of(&certificates[i]) < lowest)
            lowest = version_of(&certificates[i]);
    }
    return lowest;
}

/* Give a set its SSL_CTX. A name is as strict as the strictest of its certificates. */
static bool set_open(struct tls_context *context, struct tls_set *set, int lowest,
                     const struct tls_certificate *from, const struct tls_loaded *all, size_t *bad,
                     struct tls_complaint c)
{
    set->ssl_ctx = ssl_ctx_new(context, lowest);
    if (set->ssl_ctx == NULL)
        return tls_complain(c, "TLS can't be set up: %s", tls_openssl_reason());
    for (int kind = 0; kind < TLS_KIND_COUNT; kind++) {
        int i = set->certificate[kind];
        if (i < 0)
            continue;
        ERR_clear_error();
        if (SSL_CTX_use_cert_and_key(set->ssl_ctx, all[i].leaf, all[i].key, all[i].chain, 1) != 1) {
            *bad = (size_t)i;
            return tls_complain(c, "%s can't be used: %s", from[i].certificate,
                                tls_openssl_reason());
        }
        if (version_of(&from[i]) > set->min_version)
            set->min_version = version_of(&from[i]);
    }
    return true;
}

/* Everything in the context that does not depend on the certificates. */
static bool context_open(struct tls_context *context, void *shared)
{
    context->references = 1;
    context->keys = shared;
    if (shared == NULL) {
        context->own_keys = tls_shared_new();
        if (context->own_keys == NULL)
            return false;
        context->keys = context->own_keys;
    }
    context->ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    context->bio_method = tls_bio_method_new();
    return context->ticket_cipher != NULL && context->bio_method != NULL;
}

/* Fill an opened context. all is the caller's to unload, whatever comes of it. */
static bool context_fill(struct tls_context *context, const struct tls_certificate *from,
                         struct tls_loaded *all, size_t count, size_t *bad, struct tls_complaint c)
{
    for (size_t i = 0; i < count; i++) {
        if (!tls_load(&from[i], &all[i], c)) {
            *bad = i;
            return false;
        }
    }
    if (!plan_sets(context, all, count))
        return tls_complain(c, "out of memory");
    for (size_t i = 0; i < context->set_count; i++) {
        if (!set_open(context, &context->sets[i], lowest_version(from, count), from, all, bad, c))
            return false;
    }
    return true;
}

struct tls_context *tls_context_new(const struct tls_certificate *certificates, size_t count,
                                    void *shared, size_t *bad, char *why, size_t why_size)
{
    struct tls_complaint c = {why, why_size};
    size_t which = 0;
    bool ok = false;
    struct tls_context *context = calloc(1, sizeof(*context));
    struct tls_loaded *all = calloc(count + 1, sizeof(*all));
    ERR_clear_error();
    if (context == NULL || all == NULL)
        tls_complain(c, "out of memory");
    else if (count == 0)
        tls_complain(c, "no certificate is given");
    else if (!context_open(context, shared))
        tls_complain(c, "TLS can't be set up: %s", tls_openssl_reason());
    else
        ok = context_fill(context, certificates, all, count, &which, c);
    for (size_t i = 0; all != NULL && i < count; i++)
        tls_unload(&all[i]);
    free(all);
    ERR_clear_error();
    if (ok)
        return context;
    *bad = which;
    tls_context_free(context);
    return NULL;
}

void tls_context_any_protocol(struct tls_context *context)
{
    context->any_protocol = true;
}

void tls_context_free(struct tls_context *context)
{
    if (context == NULL || atomic_fetch_sub(&context->references, 1) > 1)
        return;
    for (size_t i = 0; i < context->set_count; i++)
        SSL_CTX_free(context->sets[i].ssl_ctx);
    for (size_t i = 0; i < context->name_count; i++)
        free(context->names[i].text);
    tls_shared_free(context->own_keys);
    EVP_CIPHER_free(context->ticket_cipher);
    BIO_meth_free(context->bio_method);
    free(context->sets);
    free(context->names);
    free(context);
}

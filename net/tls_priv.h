/* SPDX-License-Identifier: MIT */
/* The parts of TLS, for each other; OpenSSL is seen in these files and nowhere else:
 *
 *   tls.c              the transport that each connection gets
 *   tls_context.c      what a listener's connections share: which certificate serves which name,
 *                      and how OpenSSL is to behave
 *   tls_certificate.c  certificates and keys from their files
 *   tls_ticket.c       the keys of session tickets, shared by all processes of a listener
 *
 * Invariant of all: OpenSSL's error queue of a thread is empty between calls. Functions with a
 * complaint return false after saying what is wrong.
 */
#ifndef NET_TLS_PRIV_H
#define NET_TLS_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <openssl/ssl.h>

#include "net/tls.h"

enum {
    TLS_NAME_BYTES_MAX = 255,
    TLS_TICKET_TURN_S = 8 * 3600, /* a key is given out so long, and accepted as long again */
};

/* --- tls_certificate.c --- */

/* Where to say what is wrong. */
struct tls_complaint {
    char *why;
    size_t size;
};

/* Say it, and forget OpenSSL's errors. Returns false, for `return`. */
__attribute__((format(printf, 2, 3))) bool tls_complain(struct tls_complaint c, const char *format,
                                                        ...);
/* OpenSSL's own words for the first thing that went wrong. */
const char *tls_openssl_reason(void);

/* Certificates of different kinds can serve one name: OpenSSL takes what the client can check. */
enum tls_kind {
    TLS_KIND_EC,
    TLS_KIND_RSA,
    TLS_KIND_RSA_PSS,
    TLS_KIND_ED25519,
    TLS_KIND_ED448,
    TLS_KIND_COUNT,
};

/* A certificate while the context is made. */
struct tls_loaded {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    enum tls_kind kind;
    char **names;
    size_t name_count;
};

/* Read a certificate, its chain and its key, and check that they belong together. *l comes zeroed
 * and is to be unloaded, whatever comes of it. Blocks on the disk. */
bool tls_load(const struct tls_certificate *from, struct tls_loaded *l, struct tls_complaint c);
void tls_unload(struct tls_loaded *l);

/* --- tls_ticket.c --- */

struct tls_shared;

/* Zeroed keys of one's own, for a context that shares none; NULL: no memory. */
struct tls_shared *tls_shared_new(void);
void tls_shared_free(struct tls_shared *keys);
/* Ready the cipher and MAC of a ticket that is made or read: what OpenSSL's callback for tickets is
 * to do. Returns as that: -1 on failure, 0: key unknown, 1, or 2: renew it. Safe from: any thread.
 */
int tls_ticket_ready(struct tls_shared *keys, const EVP_CIPHER *aes, unsigned char *name,
                     unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int making);

/* --- tls_context.c --- */

/* Certificates that serve the same names: one of each kind at most. */
struct tls_set {
    int certificate[TLS_KIND_COUNT]; /* index; -1 none */
    int min_version;
    SSL_CTX *ssl_ctx;
};

struct tls_name {
    char *text; /* lower case; "*.rest" is a wildcard */
    size_t set;
};

/* Read-only after it was made, but for the references. */
struct tls_context {
    _Atomic size_t references;
    struct tls_set *sets; /* the first belongs to the default certificate */
    size_t set_count;
    struct tls_name *names; /* sorted by text */
    size_t name_count;
    bool any_protocol; /* ALPN is not answered, nor HTTP in the clear */
    struct tls_shared *keys;
    struct tls_shared *own_keys; /* when none are shared */
    EVP_CIPHER *ticket_cipher;
    BIO_METHOD *bio_method;
};

/* --- tls.c --- */

/* The BIO that lies between OpenSSL and a transport; NULL: no memory. */
BIO_METHOD *tls_bio_method_new(void);
/* For SSL_CTX_set_msg_callback: counts what could keep OpenSSL busy without end. */
void tls_on_message(int is_ours, int version, int type, const void *bytes, size_t len, SSL *ssl,
                    void *arg);

#endif
